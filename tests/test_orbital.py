"""Orbital stability: twins of the distances, known answers of oscillators, cycles, saddles and of a real training."""

import naive_orbits as naive
import numpy as np
import pytest

import trajtools as tt
from recorders import Recorder, iris
from trajtools.distances.metric import find_metric
from trajtools.errors import DataError, SelectionError, UnknownNameError
from trajtools.reasons import codes
from trajtools.stability import unrelated
from trajtools.stability.pairs import Rows
from trajtools.systems import hopf, oscillator, saddle_escape, van_der_pol
from trajtools.systems.system import System
from trajtools.wiring import describe


def orbits(system, starts, T):
    """(n, T, d) from given initial states."""
    states, out = np.array(starts, dtype=float), np.empty((len(starts), T, system.dimension))
    for t in range(T):
        out[:, t] = states
        states = system.advance(states)
    return out


def on_cycle(system, inits, transient=3000, spread=37):
    """States on the limit cycle at several phases."""
    state = system.start(np.random.default_rng(0), 1)
    for _ in range(transient):
        state = system.advance(state)
    found = []
    for _ in range(inits):
        found.append(state[0])
        for _ in range(spread):
            state = system.advance(state)
    return np.array(found)


def perturbed(system, starts, epsilon, direction, T):
    """Pairs (reference, [copy]); the copies are moved along the flow or across it."""
    velocity = system.rule(starts)
    unit = velocity / np.linalg.norm(velocity, axis=1, keepdims=True)
    move = unit if direction == "along" else np.stack([-unit[:, 1], unit[:, 0]], axis=1)
    states = orbits(system, np.concatenate([starts, starts + epsilon * move]), T)
    n = len(starts)
    return [(states[i], [states[n + i]]) for i in range(n)]


# ------------------------------------------------------------------------------------------------ unrelated states


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
def test_bands_of_unrelated_states_equal_their_definition(metric):
    rng = np.random.default_rng(8)
    reference = rng.standard_normal((101, 3))
    found = tt.orbital_stability(reference, reference + 1e-3 * rng.standard_normal((101, 3)), metric=metric)
    window = 3  # of independent states: the correlation is gone after one state
    distances = {
        (i, j): naive_distance(metric, reference[i], reference[j]) for i in range(101) for j in range(101)
        if abs(i - j) >= window
    }  # fmt: skip
    nearest = [min(d for (i, _), d in distances.items() if i == k) for k in range(101)]
    np.testing.assert_allclose(found.chance_distance, np.quantile(list(distances.values()), [0.05, 0.95]), rtol=1e-12)
    np.testing.assert_allclose(found.chance_orbit, np.quantile(nearest, [0.05, 0.95]), rtol=1e-12)


def naive_distance(metric, a, b):
    if metric == "cosine":
        return 1 - sum(a * b) / np.sqrt(sum(a * a) * sum(b * b))
    return sum(abs(a - b)) if metric == "l1" else np.sqrt(sum((a - b) ** 2))


def test_nearest_unrelated_states_are_looked_for_in_the_whole_orbit(monkeypatch):
    rng = np.random.default_rng(9)
    reference = rng.standard_normal((400, 2))
    whole = unrelated.unrelated([Rows(reference)], find_metric("l2"))
    monkeypatch.setattr(unrelated, "MOST_PAIRS", 128 * 7)  # in small blocks
    assert unrelated.unrelated([Rows(reference)], find_metric("l2")) == whole
    sparse = unrelated.unrelated([Rows(reference[::4])], find_metric("l2"))
    assert whole[1][1] < sparse[1][1]


def test_copies_in_chaos_forget_their_reference_and_those_on_a_cycle_do_not():
    system = tt.systems.henon()
    start = system.trajectory(1, rng=np.random.default_rng(1), transient=200)
    states = orbits(system, np.concatenate([start, start + 1e-9, start - 1e-9]), 800)
    found = tt.orbital_stability(states[0], [states[1], states[2]], metric="l2")
    low, high = found.chance_distance
    assert 0 < found.chance_orbit[1] < low < high
    assert "unrelated" in codes(found.warnings)
    cycle = tt.orbital_stability(perturbed(hopf(), on_cycle(hopf(), 1), 1e-6, "along", 800), metric="l2")
    assert cycle.distance.max() < cycle.chance_distance[0]
    assert "unrelated" not in codes(cycle.warnings)


@pytest.mark.parametrize("length", [10, 300])
def test_what_drifts_or_is_short_has_no_unrelated_states(length):
    drift = np.c_[np.linspace(0, 9, length), np.linspace(0, 5, length) ** 2]
    found = tt.orbital_stability(drift, drift + 1e-3)
    assert np.isnan([found.chance_distance, found.chance_orbit]).all()
    assert "unrelated" not in codes(found.warnings)
    assert not [label for label in found.plot().get_legend_handles_labels()[1] if "unrelated" in label]


# ------------------------------------------------------------------------------------------------ the distances


@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
def test_distances_of_the_curves_equal_their_definitions(metric):
    rng = np.random.default_rng(3)
    reference, copy = rng.standard_normal((37, 3)), rng.standard_normal((37, 3))
    found = tt.orbital_stability(reference, copy, metric=metric)
    nearest, _ = naive.to_orbit(copy, reference, metric)
    np.testing.assert_allclose(found.orbit[0], nearest, rtol=1e-12)
    np.testing.assert_allclose(found.orbit[0], tt.to_orbit(copy, reference, metric=metric).distance, rtol=1e-12)
    np.testing.assert_allclose(found.tube, max(nearest), rtol=1e-12)
    np.testing.assert_allclose(found.hausdorff, naive.hausdorff(copy, reference, metric), rtol=1e-12)
    np.testing.assert_allclose(found.frechet, naive.frechet(copy, reference, metric), rtol=1e-12)
    np.testing.assert_allclose(found.distance[0], tt.distance(reference, copy, metric=metric), rtol=1e-12)


def test_a_late_path_is_held_against_the_whole_orbit_but_covers_its_own_part():
    rng = np.random.default_rng(4)
    reference, copy = rng.standard_normal((40, 2)), rng.standard_normal((15, 2))
    found = tt.orbital_stability(reference, copy, metric="l2", start=20)
    np.testing.assert_allclose(found.orbit[0], naive.to_orbit(copy, reference, "l2")[0], rtol=1e-12)
    np.testing.assert_allclose(found.frechet, naive.frechet(copy, reference[20:35], "l2"), rtol=1e-12)
    back = max(naive.to_orbit(reference[20:35], copy, "l2")[0])
    np.testing.assert_allclose(found.hausdorff, max(back, found.tube[0]), rtol=1e-12)
    assert found.start.tolist() == [20]


def test_the_distances_are_in_their_order():
    rng = np.random.default_rng(5)
    reference = rng.standard_normal((60, 4)).cumsum(axis=0)
    copies = [reference + 0.3 * rng.standard_normal((60, 4)) for _ in range(3)]
    found = tt.orbital_stability(reference, copies, metric="l1")
    same = found.distance.max(axis=1)
    assert (found.orbit <= found.distance + 1e-12).all()
    assert (found.tube <= found.hausdorff + 1e-12).all()
    assert (found.hausdorff <= found.frechet + 1e-12).all()
    assert (found.frechet <= same + 1e-12).all()


def test_coupling_compiled_equals_interpreted_and_leaves_its_input_alone():
    from trajtools._kernels.orbits import coupled_rows

    rng = np.random.default_rng(0)
    table, before = rng.random((7, 5)), np.full(5, np.inf)
    table.flags.writeable = before.flags.writeable = False
    for begun in (False, True):
        row = rng.random(5) if begun else before
        np.testing.assert_array_equal(coupled_rows(table, row, begun), coupled_rows.py_func(table, row, begun))
    # In parts as at once.
    half = coupled_rows(table[:3], before, False)
    np.testing.assert_array_equal(coupled_rows(table[3:], half, True), coupled_rows(table, before, False))


def test_a_metric_of_networks_takes_the_wiring_from_the_trajectories():
    parameters, nodes = describe({"w": ((2, 3), "float64"), "b": ((3,), "float64")})
    rng = np.random.default_rng(0)
    x = rng.standard_normal((25, 9)).cumsum(axis=0)
    a, b = (tt.Trajectory.from_array(y, parameters=parameters, nodes=nodes) for y in (x, x + 0.1))
    found = tt.orbital_stability(a, b, metric="singular-values")
    np.testing.assert_allclose(found.orbit[0], tt.to_orbit(b, a, metric="singular-values").distance, rtol=1e-9)
    with pytest.raises(DataError, match="needs their wiring"):
        tt.orbital_stability(x, x + 0.1, metric="singular-values")


def test_small_blocks_change_nothing(monkeypatch):
    from trajtools.stability import pairs as module

    system = hopf(dt=0.1)
    pairs = perturbed(system, on_cycle(system, 2), 1e-3, "across", 150)
    in_memory = tt.orbital_stability(pairs, metric="l2")
    monkeypatch.setattr(module, "WHOLE_BYTES", 0)
    whole = tt.orbital_stability(pairs, metric="l2")
    for name in ("BLOCK_BYTES", "STENCIL_BYTES", "TABLE_BYTES"):
        monkeypatch.setattr(module, name, 500)
    monkeypatch.setattr(module, "ROWS", 7)
    monkeypatch.setattr(module, "KEPT_BYTES", 300)
    parts = tt.orbital_stability(pairs, metric="l2")
    for name in ("distance", "orbit", "transverse", "lag", "frechet", "hausdorff", "resolution", "floor"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
        # Sums in another order; a difference of two states 1e-3 apart has 13 digits.
        np.testing.assert_allclose(getattr(in_memory, name), getattr(whole, name), rtol=1e-12, atol=1e-13)


def test_a_path_beside_an_orbit_compiled_equals_interpreted():
    from trajtools._kernels import orbits
    from trajtools.types import L1, L2, LINF

    rng = np.random.default_rng(6)
    path, orbit = rng.standard_normal((9, 3)), rng.standard_normal((11, 3))
    for code in (L1, L2, LINF):
        results = []
        for kernel in (orbits.along_orbit, orbits.along_orbit.py_func):
            nearest, place, covered = np.empty(9), np.empty(9, np.int64), np.full(5, np.inf)
            frechet = kernel(path, orbit, np.ascontiguousarray(orbit.T), 2, 7, code, nearest, place, covered)
            results.append([nearest, place, covered, frechet])
        for found, own in zip(*results, strict=True):
            np.testing.assert_allclose(found, own, rtol=1e-14)


def test_the_phase_descends_to_the_next_minimum_and_stays_on_ties():
    from trajtools._kernels.orbits import descend

    orbit = np.array([3.0, 1.0, 2.0, 0.0, 0.0, 5.0])[:, None]
    path, usable = np.array([0.0, 0.0, np.nan, 5.0, 2.0])[:, None], np.array([True, True, False, True, True])
    for kernel in (descend, descend.py_func):
        place = np.empty(5, np.int64)
        assert kernel(path, usable, orbit, 1, place) == 5
        assert place.tolist() == [1, 3, -1, 5, 4]


def test_progress_counts_the_perturbed_trajectories():
    system, seen = hopf(dt=0.1), []
    pairs = perturbed(system, on_cycle(system, 3), 1e-3, "across", 60)
    tt.orbital_stability(pairs, metric="l2", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_scale_and_rotation_change_nothing_but_the_unit():
    system = hopf(dt=0.05)
    (reference, (copy,)), *_ = perturbed(system, on_cycle(system, 1), 1e-3, "across", 300)
    c, s = np.cos(0.7), np.sin(0.7)
    turn = 8 * np.array([[c, -s], [s, c]])
    plain = tt.orbital_stability(reference, copy, metric="l2", dt=0.05)
    turned = tt.orbital_stability(reference @ turn, copy @ turn, metric="l2", dt=0.05)
    assert turned.verdict == plain.verdict
    np.testing.assert_allclose(turned.distance, 8 * plain.distance, rtol=1e-9, atol=2e-14)  # rounding of states near 8
    np.testing.assert_allclose(turned.transverse, 8 * plain.transverse, rtol=1e-6, atol=1e-13)
    np.testing.assert_allclose(turned.lag, plain.lag, rtol=0, atol=1e-10)
    assert turned.orbital.rate == pytest.approx(plain.orbital.rate, rel=1e-3)


# ------------------------------------------------------------------------------------------ flows with known answers


@pytest.mark.parametrize(("make", "dt"), [(hopf, 0.05), (van_der_pol, 0.02)])
def test_a_shift_along_a_limit_cycle_is_a_lag_and_nothing_else(make, dt):
    system = make(dt=dt)
    starts = on_cycle(system, 3)
    found = tt.orbital_stability(perturbed(system, starts, 1e-4, "along", 1200), metric="l2", dt=dt)
    assert found.verdict == "orbitally stable", found
    # The shift takes 1e-4 / speed: a lead that stays. It is not exactly along the curved orbit: second order, 1e-8.
    lead = 1e-4 / np.linalg.norm(system.rule(starts), axis=1)
    np.testing.assert_allclose(
        found.lag[:, 200:-5], np.broadcast_to(lead[:, None], found.lag[:, 200:-5].shape), rtol=1e-3
    )
    assert (found.transverse[:, 600:1000] < 1e-9).all()
    assert abs(found.dynamical.change) < 1
    assert found.settings["neutral_removed"] == 1


@pytest.mark.parametrize(
    # The Floquet exponents: -2 (exact), -1.0594 (from the references). Over a window that ends at the numerical floor
    # and is no whole number of periods, the slope of a modulated decay is a few percent off.
    ("make", "dt", "rate"),
    [(hopf, 0.05, -2.0), (van_der_pol, 0.02, -1.0594)],
)
def test_the_distance_to_a_limit_cycle_decays_at_the_floquet_rate(make, dt, rate):
    system = make(dt=dt)
    found = tt.orbital_stability(perturbed(system, on_cycle(system, 6), 1e-4, "across", 1200), metric="l2", dt=dt)
    assert found.verdict == "orbitally stable", found
    assert found.orbital.rate == pytest.approx(rate, rel=0.05)
    low, high = found.orbital.rate_interval
    assert low < found.orbital.rate < high
    assert found.orbital.over == "initial conditions"
    assert found.orbital.change < -10


def test_dt_sets_the_unit_of_rates_and_lags():
    system = hopf(dt=0.05)
    pairs = perturbed(system, on_cycle(system, 2), 1e-4, "along", 400)
    seconds, samples = (tt.orbital_stability(pairs, metric="l2", dt=dt) for dt in (0.05, 1.0))
    np.testing.assert_allclose(seconds.lag, 0.05 * samples.lag, rtol=1e-9, equal_nan=True)
    assert samples.orbital.rate == pytest.approx(0.05 * seconds.orbital.rate, rel=1e-9)
    trajectories = [(tt.Trajectory.from_array(a, dt=0.05), [tt.Trajectory.from_array(b, dt=0.05)]) for a, (b,) in pairs]
    own = tt.orbital_stability(trajectories, metric="l2")
    np.testing.assert_array_equal(own.lag, seconds.lag)
    assert own.time_unit == "time"


def test_a_damped_oscillator_is_asymptotically_stable():
    system = oscillator(damping=0.1, dt=0.1)
    pairs = [
        (one[0], list(one[1:]))
        for one in (
            orbits(system, start + 1e-3 * np.vstack([np.zeros(2), np.eye(2)]), 1000)
            for start in system.start(np.random.default_rng(1), 5)
        )
    ]
    found = tt.orbital_stability(pairs, metric="l2", dt=0.1)
    assert found.verdict == "asymptotically stable", found
    # In these coordinates the decay is modulated by some percent within a turn; 16 turns are fitted.
    assert found.dynamical.rate == pytest.approx(-0.1, rel=0.01)
    assert (found.n_references, found.dynamical.n_units) == (5, 10)


def test_an_undamped_oscillator_is_neutral_across_and_stable_along_its_orbit():
    system = oscillator(damping=0.0, dt=0.1)
    starts = system.start(np.random.default_rng(1), 4)
    radial = starts / np.linalg.norm(starts, axis=1, keepdims=True)
    states = orbits(system, np.concatenate([starts, starts + 1e-3 * radial]), 600)
    across = tt.orbital_stability([(states[i], [states[4 + i]]) for i in range(4)], metric="l2", dt=0.1)
    assert across.verdict == "marginal drift", across
    np.testing.assert_allclose(across.transverse[:, :500], 1e-3, rtol=1e-4)
    assert abs(across.orbital.change) < 1e-3
    along = tt.orbital_stability(perturbed(system, starts, 1e-3, "along", 600), metric="l2", dt=0.1)
    assert along.verdict == "orbitally stable", along
    np.testing.assert_allclose(along.distance, 1e-3, rtol=1e-4)


def pendulum(dt=0.05):
    """Undamped, nonlinear: the period depends on the amplitude, so that neighbours drift apart along the orbit only."""

    def rule(s):
        return np.stack([s[:, 1], -np.sin(s[:, 0])], axis=1)

    def jacobian(s):
        out = np.zeros((len(s), 2, 2))
        out[:, 0, 1], out[:, 1, 0] = 1, -np.cos(s[:, 0])
        return out

    return System("pendulum", 2, rule, jacobian, lambda rng, n: rng.uniform(0.5, 1.5, (n, 2)), dt=dt, substeps=4)


def test_an_undamped_pendulum_is_orbitally_stable_with_a_growing_lag():
    system = pendulum(0.1)
    starts = system.start(np.random.default_rng(2), 4)
    found = tt.orbital_stability(perturbed(system, starts, 1e-3, "across", 1500), metric="l2", dt=0.1)
    assert found.verdict == "orbitally stable", found
    assert found.dynamical.change > 1.5
    assert found.orbital.largest < np.log(3)
    lag = np.abs(found.lag)
    # The lag grows by the difference of the periods in every turn: linear in time.
    np.testing.assert_allclose(lag[:, 1400] / lag[:, 700], 2, rtol=0.05)


def test_a_saddle_is_unstable():
    system = saddle_escape(eta=0.1, distance=1e-9)
    states = orbits(system, [[0.0], [1e-9], [-2e-9], [3e-9]], 150)
    found = tt.orbital_stability(states[0], list(states[1:]), metric="l2")
    assert found.verdict == "unstable", found
    assert found.reasons[0].code == "exponential-growth"
    # ln(1 + eta) until the other minimum is near; the slope over the whole record is lower.
    growing = np.log(found.distance[0, 100] / found.distance[0, 0]) / 100
    assert growing == pytest.approx(np.log(1.1), rel=1e-3)


def test_chaos_is_unstable():
    system = tt.systems.lorenz()
    pairs = system.twins(8, 1, 2000, epsilon=1e-6, rng=np.random.default_rng(3))
    found = tt.orbital_stability(pairs, metric="l2", dt=0.01)
    assert found.verdict == "unstable", found
    # The perturbed stays on the attractor: as a set it is as near as the reference's own states are to each other.
    assert np.median(found.orbit[:, -500:]) < 0.25 * np.median(found.transverse[:, -500:])


def test_a_decay_that_goes_on_is_not_called_marginal():
    # Less than an e-fold so far, but as much of it in the second half as in the first.
    t = np.arange(500.0)[:, None]
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(3):
        start, moved = 1 + rng.random((2, 4)), 1e-3 * rng.standard_normal(4)
        reference = start[0] * np.exp(-0.0016 * t)
        pairs.append((reference, [reference + moved * np.exp(-0.0016 * t)]))
    found = tt.orbital_stability(pairs, metric="l2")
    assert found.verdict == "inconclusive", found
    assert found.reasons[0].code == "still-decays"


def test_slow_growth_is_a_drift_and_not_an_instability():
    t = np.arange(400.0)
    pairs = []
    for seed in range(9):
        rng = np.random.default_rng(seed)
        reference = np.column_stack([10 * t, np.zeros(400)])
        moved = reference + np.column_stack(
            [np.zeros(400), 1e-3 * (1 + 0.2 * t) * (1 + 0.02 * rng.standard_normal(400))]
        )
        pairs.append((reference, [moved]))
    found = tt.orbital_stability(pairs, metric="l1")
    assert found.verdict == "marginal drift", found
    assert found.reasons[0].code == "power-of-time"
    assert "drift away" in str(found)


@pytest.mark.parametrize(
    ("change", "word", "sentence"), [(-0.3, "decays", "come a little closer"), (0.3, "grows", "drift away by less")]
)
def test_words_of_a_small_change_agree_with_its_sign(change, word, sentence):
    t = np.linspace(0, 1, 201)
    pairs = []
    for k in range(9):
        orbit = np.column_stack([np.cos(40 * t + k), np.sin(40 * t + k)])
        distance = 1e-3 * np.exp(change * (1 + 0.01 * k) * np.minimum(4 * t, 1))
        pairs.append((orbit, [orbit * (1 + distance)[:, None]]))
    found = tt.orbital_stability(pairs, metric="l2")
    assert found.verdict == "marginal drift", found
    assert sentence in str(found)
    assert f"it {word}, but by less than 1 e-fold" in found.reasons[0].text


def test_a_cycle_of_a_map_has_no_flow_to_remove():
    system = tt.systems.softmax_map(gain=15.0)
    states = system.start(np.random.default_rng(0), 1)
    for _ in range(500):
        states = system.advance(states)
    moved = states + np.array([[1e-6, -2e-6, 1e-6]])
    x = orbits(system, np.concatenate([states, moved]), 200)
    found = tt.orbital_stability(x[0], x[1], metric="l1")
    assert found.verdict == "asymptotically stable", found
    assert found.settings["neutral_removed"] == 0
    assert "not-smooth" in codes(found.warnings)
    np.testing.assert_array_equal(found.transverse[0][np.isfinite(found.lag[0])] >= 0, True)


@pytest.mark.slow
def test_classes_hold_for_random_perturbations():
    """Eight draws each, with one and with four initial conditions: seldom undecided, never the wrong class."""
    allowed = {
        "van_der_pol": (van_der_pol(dt=0.05), 800, 1e-4, 400, {"orbitally stable"}),
        "hopf": (hopf(dt=0.05), 600, 1e-4, 200, {"orbitally stable"}),
        "damped": (oscillator(damping=0.1), 600, 1e-3, 0, {"asymptotically stable"}),
        "undamped": (oscillator(damping=0.0), 600, 1e-3, 0, {"marginal drift", "orbitally stable"}),
        "pendulum": (pendulum(0.1), 1500, 1e-3, 0, {"marginal drift", "orbitally stable"}),
        "descent": (tt.systems.quadratic_descent(eta=0.1), 200, 1e-3, 0, {"asymptotically stable"}),
        "slow": (tt.systems.quadratic_descent(eta=1e-3, curvatures=(1.0, 2.0)), 1000, 1e-3, 0, {"inconclusive"}),
        "lorenz": (tt.systems.lorenz(), 1500, 1e-6, 500, {"unstable"}),
        "logistic": (tt.systems.logistic(), 300, 1e-9, 0, {"unstable"}),
    }
    for name, (system, T, epsilon, transient, right) in allowed.items():
        for inits, most in ((1, 4), (4, 1)):
            undecided = 0
            for seed in range(8):
                rng = np.random.default_rng(seed)
                pairs = system.twins(inits, 1, T, epsilon=epsilon, rng=rng, transient=transient)
                found = tt.orbital_stability(pairs, metric="l1", dt=system.dt)
                assert found.verdict in {*right, "inconclusive"}, (name, inits, seed, str(found))
                undecided += found.verdict not in right
            assert undecided <= most, (name, inits, undecided)


# ---------------------------------------------------------------------------------------- the training of the paper


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    folder = tmp_path_factory.mktemp("late")
    whole = iris.record(folder, 0.01, inits=4, copies=0, steps=5000)
    rest = iris.restart(folder, 0.01, 4000, copies=3, epsilon=1e-8)
    return whole, rest


@pytest.mark.recorders
def test_a_restarted_training_goes_on_as_if_it_had_not_stopped(late):
    with tt.open(late[0]) as whole, tt.open(late[1]) as rest:
        assert rest.name == "eta=0.01 from 4000"
        assert rest.reference == whole.name == "eta=0.01"
        assert (int(rest.step[0]), int(rest.step[-1])) == (4000, 5000)
        assert [m.reference for m in rest.members[:5]] == [-1, 0, 0, 0, -1]
        own = [m for m, member in enumerate(rest.members) if member.reference < 0]
        np.testing.assert_array_equal(rest.states[:, own], whole.states[4000:5001])


@pytest.mark.recorders
def test_what_iris_learned_is_marginal_as_published(late):
    # d / (epsilon N) falls from 0.50 to about 0.475 and stays there: no isolated minimum, a valley.
    with tt.open(late[0]) as whole, tt.open(late[1]) as rest:
        found = tt.orbital_stability(whole, rest)
        alone = tt.orbital_stability(rest)
    assert found.verdict == alone.verdict == "marginal drift", found
    share = found.distance.mean(axis=0) / (70 * 1e-8)
    assert share[0] == pytest.approx(0.50, abs=0.03)  # the mean of 12 copies; s.d. of one 0.035
    assert 0.01 <= share[0] - share[-1] <= 0.05  # the published change is -0.03 .. -0.01 of epsilon N, all epsilon
    assert abs(share[-1] - share[600]) < 0.01
    assert found.orbital.change_interval[0] > -0.3
    assert found.n_references == 4
    assert found.start.tolist() == [4000] * 12
    # The orbit is the whole training for the one, its last 1000 steps for the other.
    assert (found.orbit <= alone.orbit + 1e-18).all()
    np.testing.assert_array_equal(found.distance, alone.distance)


@pytest.mark.recorders
def test_a_restart_needs_a_step_that_was_recorded(late):
    with pytest.raises(SelectionError, match="recorded steps 0 to 5000"):
        iris.restart(late[0].parent, 0.01, 5000)


@pytest.mark.recorders
def test_members_of_a_run_are_held_against_their_own_references(tmp_path):
    with tt.open(iris.record(tmp_path, 0.05, inits=3, copies=2, steps=60)) as run:
        found = tt.orbital_stability(run)
        assert found.group.tolist() == [0, 0, 1, 1, 2, 2]
        np.testing.assert_array_equal(found.distance[3], tt.distance(run.trajectory(3), run.trajectory(5)))
        growth = tt.twins(run)
        np.testing.assert_array_equal(found.distance, growth.distances)
        np.testing.assert_allclose(found.floor, growth.floor, rtol=1e-12)


# ------------------------------------------------------------------------------------------------ never nonsense


def test_a_twin_that_ends_in_nan_is_unstable_and_says_so():
    t = np.linspace(0, 6, 200)
    reference = np.column_stack([np.cos(t), np.sin(t)])
    broken = reference + 1e-3
    broken[150:] = np.nan
    found = tt.orbital_stability(reference, [reference + 1e-3, broken], metric="l2")
    assert found.verdict == "unstable"
    assert "1 of 2 perturbed trajectories end with NaN" in found.reasons[0].text
    assert (found.n_diverged, found.n_excluded) == (1, 50)
    assert np.isnan(found.distance[1, 150:]).all()
    assert np.isfinite(found.frechet).all()


@pytest.mark.parametrize("of", ["reference", "copy"])
def test_a_nan_in_one_state_is_left_out_and_counted(of):
    system = hopf(dt=0.05)
    (reference, (copy,)), *_ = perturbed(system, on_cycle(system, 1), 1e-3, "across", 400)
    plain = tt.orbital_stability(reference, copy, metric="l2", dt=0.05)
    broken = reference.copy() if of == "reference" else copy.copy()
    broken[200, 0] = np.inf
    pair = (broken, copy) if of == "reference" else (reference, broken)
    found = tt.orbital_stability(*pair, metric="l2", dt=0.05)
    assert found.n_excluded == 1
    assert [one.numbers["excluded"] for one in found.warnings if one.code == "not-finite"] == [1]
    assert found.verdict == plain.verdict
    assert np.isnan(found.distance[0, 200])
    far = np.r_[0:190, 211:400]
    np.testing.assert_array_equal(found.distance[0, far], plain.distance[0, far])
    np.testing.assert_allclose(found.transverse[0, far], plain.transverse[0, far], rtol=1e-9)


def test_a_copy_that_was_not_perturbed_does_not_count():
    x = np.random.default_rng(0).standard_normal((50, 3)).cumsum(axis=0)
    found = tt.orbital_stability(x, [x.copy(), x.copy()])
    assert found.verdict == "inconclusive"
    assert found.reasons[0].code == "no-perturbation"
    assert not found.distance.any()
    assert any("2 of 2 never differ" in words.text for words in found.warnings)


def test_two_states_and_a_state_at_rest_are_no_crash():
    still = np.ones((30, 2))
    found = tt.orbital_stability(still, still + 1e-3, metric="l2")
    assert found.verdict == "marginal drift", found
    assert np.isnan(found.lag).all()
    few = tt.orbital_stability(still[:2], still[:2] + 1e-3)
    assert few.verdict == "inconclusive"
    assert tt.orbital_stability(still[:1], still[:1] + 1).verdict == "inconclusive"


def test_a_distance_at_the_rounding_floor_is_not_taken_for_dynamics():
    t = np.linspace(0, 20, 400)
    reference = np.column_stack([np.cos(t), np.sin(t)]).astype(np.float32)
    copy = reference + np.float32(1.2e-7)
    found = tt.orbital_stability(reference, copy, metric="l2")
    assert found.verdict == "inconclusive", found
    assert found.reasons[0].code == "below-rounding-floor"


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((np.zeros((5, 2)), np.zeros((5, 3))), {}, "2 and 3 weights"),
        ((np.zeros((5, 2)), np.zeros((5, 2))), {"start": 9}, "no step is common"),
        ((np.zeros((5, 2)),), {}, "no perturbed trajectory"),
        ((np.zeros((5, 2)), []), {}, "list of perturbed trajectories is empty"),
        ((np.zeros((5, 2)), np.zeros((5, 2))), {"dt": -1}, "dt must be a positive number"),
        ((np.zeros((5, 2)), np.zeros((5, 2))), {"level": 1.5}, "level must lie between 0 and 1"),
        ((np.zeros((5, 2)), np.zeros((5, 2))), {"start": [1, 2]}, "one step or 1 of them"),
        ((np.zeros((0, 2)), np.zeros((5, 2))), {}, "reference has 0 states"),
    ],
)
def test_bad_input_is_refused_with_a_way_out(arguments, options, words):
    with pytest.raises(DataError, match=words):
        tt.orbital_stability(*arguments, **options)


def test_a_run_without_weights_or_without_twins_is_refused(tmp_path):
    weights = {"w": np.ones(3)}
    twins = [{"w": np.ones(3)}, {"w": np.ones(3) + 1e-3}]
    members = [tt.wiring.Member("a"), tt.wiring.Member("b", reference=0)]
    with Recorder(tmp_path / "d.h5", twins, members=members, store="distances", quiet=True) as recorder:
        for _ in range(5):
            recorder.record(twins)
    with Recorder(tmp_path / "w.h5", weights, quiet=True) as recorder:
        for _ in range(5):
            recorder.record(weights)
    with tt.open(tmp_path / "d.h5") as run, pytest.raises(DataError, match="stores distances but no weights"):
        tt.orbital_stability(run)
    with tt.open(tmp_path / "w.h5") as run, pytest.raises(DataError, match="none is a perturbed copy"):
        tt.orbital_stability(run)


def test_unknown_metrics_and_empty_windows_are_refused():
    x = np.random.default_rng(0).standard_normal((9, 2))
    with pytest.raises(UnknownNameError, match="there is no metric"):
        tt.orbital_stability(x, x + 1, metric="l3")
    with pytest.raises(SelectionError, match=r"window \(50, 60\)"):
        tt.orbital_stability(x, x + 1, window=(50, 60))


def test_the_same_seed_gives_the_same_bits_and_the_input_is_left_alone():
    rng = np.random.default_rng(0)
    pairs = [(x, [x + 1e-3 * rng.standard_normal(x.shape)]) for x in rng.standard_normal((3, 40, 2)).cumsum(axis=1)]
    before = [x.copy() for x, _ in pairs]
    a, b = tt.orbital_stability(pairs, rng=5), tt.orbital_stability(pairs, rng=5)
    assert a.to_json() == b.to_json()
    for (x, _), kept in zip(pairs, before, strict=True):
        np.testing.assert_array_equal(x, kept)


def test_results_are_plain_data_and_draw_themselves():
    system = hopf(dt=0.1)
    found = tt.orbital_stability(perturbed(system, on_cycle(system, 2), 1e-3, "across", 150), metric="l2", dt=0.1)
    plain = found.to_dict()
    assert plain["orbital"]["rate"] == found.orbital.rate
    assert len(plain["lag"]) == 2
    ax = found.plot()
    assert ax.get_title() == found.verdict
    assert {"at equal times", "to the orbit"} <= {line.get_label() for line in ax.lines}
    assert str(found).startswith(f"OrbitalStability: {found.verdict}")


def test_a_reference_that_drifts_has_no_attractor_to_return_to():
    rng = np.random.default_rng(0)
    angle = np.arange(600) / 5
    circle = np.c_[np.sin(angle), np.cos(angle)]
    walk = np.cumsum(rng.standard_normal((600, 2)), axis=0)
    assert "drift" not in codes(tt.orbital_stability(circle, circle + 1e-6, metric="l2").warnings)
    assert "drift" in codes(tt.orbital_stability(walk, walk + 1e-6, metric="l2").warnings)


@pytest.mark.parametrize("change", [-0.3, 0.0, 0.3])
def test_the_words_agree_with_those_of_the_exponent(change):
    t = np.linspace(0, 1, 201)
    pairs = []
    for k in range(6):
        orbit = np.column_stack([np.cos(40 * t + k), np.sin(40 * t + k)])
        distance = 1e-6 * np.exp(change * (1 + 0.01 * k) * np.minimum(4 * t, 1) + 0.01 * np.sin(300 * t + k))
        pairs.append((orbit, [orbit * (1 + distance)[:, None]]))
    exponent, found = tt.twins(pairs).fit(), tt.orbital_stability(pairs)
    assert exponent.verdict == "regular"
    assert found.verdict in ("marginal drift", "orbitally stable")
    assert "stay" in found.summary()
    same = "less than one e-fold" if exponent.interval[0] > 0 else "stay"
    assert same in exponent.summary() or "together" in exponent.summary()


def test_copies_of_a_reference_at_rest_have_not_forgotten_it():
    rng = np.random.default_rng(0)
    path = np.r_[rng.standard_normal((60, 3)).cumsum(axis=0), np.zeros((140, 3))]
    path[60:] = path[59] + 1e-12 * rng.standard_normal((140, 3))
    copy = path + 1e-6
    found = tt.orbital_stability(path, copy)
    assert "unrelated" not in [one.code for one in found.warnings]
