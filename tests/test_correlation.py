"""Autocorrelation of networks, correlations of nodes, cycles: twins, exact values of the literature, refusals."""

from importlib import import_module

import naive_orbits as naive
import numpy as np
import pytest

import trajtools as tt
from recorders import iris
from recorders.iris import initial_weights
from trajtools.errors import DataError, SelectionError, TooLargeError, UnknownNameError
from trajtools.reasons import codes
from trajtools.systems import (
    SYSTEMS,
    darn,
    darn_autocorrelation,
    periodic_networks,
    softmax_map,
    white_networks,
)
from trajtools.wiring import describe


def walk(T=120, P=5, seed=0):
    rng = np.random.default_rng(seed)
    return 0.1 * rng.standard_normal((T, P)).cumsum(axis=0) + rng.standard_normal((T, P))


def euclidean(x):
    return tt.Distances.from_array(np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=2)), metric="l2")


# --------------------------------------------------------------------------------------------------------- twins


@pytest.mark.parametrize("P", [1, 5])
def test_autocorrelation_equals_its_definition(P):
    x = walk(P=P)
    found = tt.autocorrelation(x, lags=60, null=None)
    np.testing.assert_allclose(found.values, naive.autocorrelation(x, 60), rtol=0, atol=1e-13)
    assert found.pairs.tolist() == list(range(120, 59, -1))
    assert found.variance == pytest.approx(x.var(axis=0).sum(), rel=1e-12)


def test_a_series_is_correlated_as_the_paper_does():
    # acf(k) = [sum_t (x_t - m)(x_{t+k} - m) / (n - k)] / var(x)
    x = np.sin(np.arange(200.0)) + walk(200, 1)[:, 0]
    m, n = x.mean(), len(x)
    expected = [((x[: n - k] - m) * (x[k:] - m)).sum() / (n - k) / x.var() for k in range(50)]
    np.testing.assert_allclose(tt.autocorrelation(x, lags=49, null=None).values, expected, rtol=0, atol=1e-13)


def test_states_that_are_not_finite_are_left_out_of_every_sum():
    x = walk()
    x[[17, 60, 61], [0, 1, 2]] = [np.nan, np.inf, -np.inf]
    found = tt.autocorrelation(x, lags=40, surrogates=39)
    np.testing.assert_allclose(found.values, naive.autocorrelation(x, 40), rtol=0, atol=1e-13)
    assert found.n_excluded == 3
    assert found.pairs[0] == 117
    (gaps,) = [one.numbers for one in found.warnings if one.code == "not-finite"]
    assert gaps == {"excluded": 3, "states": 120, "first": 17}
    assert np.isfinite(found.low).all()


@pytest.mark.parametrize("detrend", [None, "linear", "quadratic", "difference", 11])
def test_distances_give_the_same_numbers_as_states(detrend):
    x = walk()
    x[40] = np.nan
    a = tt.autocorrelation(x, lags=30, detrend=detrend, surrogates=19, rng=3)
    b = tt.autocorrelation(euclidean(x), lags=30, detrend=detrend, surrogates=19, rng=3)
    np.testing.assert_allclose(a.values, b.values, rtol=0, atol=1e-11)
    np.testing.assert_allclose(a.high, b.high, rtol=0, atol=1e-11)
    assert a.p_value == b.p_value


def test_columns_and_gram_matrix_give_the_same_null(monkeypatch):
    autocorrelation = import_module("trajtools.structure.autocorrelation")

    x = walk(200, 1)
    calls = []
    gram = autocorrelation.gram_of
    monkeypatch.setattr(autocorrelation, "gram_of", lambda *a: calls.append(1) or gram(*a))
    by_columns = tt.autocorrelation(x, lags=20, surrogates=39)
    assert not calls
    # The same states in more coordinates than times: a rotation leaves every product as it is.
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4000, 1)))[0].T
    by_gram = tt.autocorrelation(x @ turn, lags=20, surrogates=39)
    assert calls
    for name in ("values", "low", "high"):
        np.testing.assert_allclose(getattr(by_gram, name), getattr(by_columns, name), rtol=0, atol=1e-12)


def test_the_null_is_that_of_shuffled_states():
    x = walk(40, 2)
    found = tt.autocorrelation(x, lags=10, surrogates=19, level=0.9, rng=7)
    rng = np.random.default_rng(7)
    drawn = np.array([naive.autocorrelation(x, 10, rng.permutation(np.arange(40))) for _ in range(19)])
    np.testing.assert_allclose(found.low[1:], np.quantile(drawn, 0.05, axis=0)[1:], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.high[1:], np.quantile(drawn, 0.95, axis=0)[1:], rtol=0, atol=1e-12)
    largest = np.abs(drawn[:, 1:]).max(axis=1)
    assert found.threshold == pytest.approx(np.sort(largest)[17], rel=1e-12)  # two of twenty lie beyond the 18th
    reached = np.abs(found.values[1:]).max()
    assert found.p_value == (1 + np.sum(largest >= reached)) / 20


def test_small_blocks_change_nothing(monkeypatch):
    autocorrelation = import_module("trajtools.structure.autocorrelation")

    parameters, nodes = describe({name: (w.shape, "float64") for name, w in initial_weights(0).items()})
    x = tt.Trajectory.from_array(walk(50, 83), parameters=parameters, nodes=nodes)
    whole = tt.autocorrelation(x, lags=12, per="layer", null=None)
    monkeypatch.setattr(autocorrelation, "BLOCK_BYTES", 8 * 50 * 3)
    parts = tt.autocorrelation(x, lags=12, per="layer", null=None)
    np.testing.assert_allclose(parts.values, whole.values, rtol=0, atol=1e-14)
    np.testing.assert_allclose(parts.layer_values, whole.layer_values, rtol=0, atol=1e-14)


def test_layers_parameters_and_kinds_are_correlated_apart():
    parameters, nodes = describe({name: (w.shape, "float64") for name, w in initial_weights(0).items()})
    x = walk(50, 83)
    trajectory = tt.Trajectory.from_array(x, parameters=parameters, nodes=nodes)
    found = tt.autocorrelation(trajectory, lags=9, per="layer", surrogates=19)
    assert found.layers == ("hidden", "output")
    for row, columns in ((0, slice(0, 50)), (1, slice(50, 83))):
        np.testing.assert_allclose(found.layer_values[row], naive.autocorrelation(x[:, columns], 9), rtol=0, atol=1e-13)
    assert found.layer_low.shape == found.layer_high.shape == (2, 10)
    names = tt.autocorrelation(trajectory, lags=9, per="parameter", null=None).layers
    assert names == tuple(p.name for p in parameters)
    kinds = tt.autocorrelation(trajectory, lags=9, per="kind", null=None)
    weights = np.r_[0:40, 50:80]
    np.testing.assert_allclose(
        kinds.layer_values[kinds.layers.index("dense")], naive.autocorrelation(x[:, weights], 9), rtol=0, atol=1e-13
    )
    selected = tt.autocorrelation(trajectory.select("*.kernel"), lags=9, null=None)
    np.testing.assert_allclose(selected.values, kinds.layer_values[kinds.layers.index("dense")], rtol=0, atol=1e-13)


def test_small_motion_of_large_weights_is_not_lost():
    rng = np.random.default_rng(0)
    step = rng.standard_normal((300, 20)).cumsum(axis=0)
    plain = tt.autocorrelation(step, null=None).values
    moved = tt.autocorrelation(1 + 1e-8 * step, null=None).values
    np.testing.assert_allclose(moved, plain, rtol=0, atol=1e-7)  # 1 + 1e-8 s keeps 8 digits of s


def test_motion_at_the_level_of_rounding_is_called_so():
    weights = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    rounded = (weights.astype(float) + 1e-9 * walk(200, 50)).astype(np.float32)
    found = tt.autocorrelation(rounded, null=None)
    assert "below-rounding-floor" in codes(found.warnings)
    assert "below-rounding-floor" not in codes(tt.autocorrelation(walk(), null=None).warnings)


def test_scale_shift_and_the_order_of_the_weights_change_nothing():
    x = walk()
    plain = tt.autocorrelation(x, lags=30).values
    np.testing.assert_allclose(tt.autocorrelation(-7 * x[:, ::-1] + 3, lags=30).values, plain, rtol=0, atol=1e-12)


def test_time_and_window_follow_the_steps():
    x = walk(200, 2)
    trajectory = tt.Trajectory.from_array(x, step=10 * np.arange(200), dt=0.5)
    found = tt.autocorrelation(trajectory, window=(500, 1500), lags=8, null=None)
    np.testing.assert_allclose(found.time, 5.0 * np.arange(9))
    assert found.time_unit == "time"
    assert found.n_states == 100
    np.testing.assert_allclose(found.values, naive.autocorrelation(x[50:150], 8), rtol=0, atol=1e-13)


# ----------------------------------------------------------------------------------------- exact values of networks


def replicated(make, lags, seeds, **options):
    """Mean autocorrelation over independent networks, and its standard error."""
    rows = [
        tt.autocorrelation(make(np.random.default_rng(seed)), lags=lags, null=None, **options).values
        for seed in range(seeds)
    ]
    return np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) / np.sqrt(seeds)


def within(found, error, expected, slack=1e-12):
    """Three standard errors at each lag; with 20 networks Student's t puts 0.7 % of the lags outside."""
    assert (np.abs(found - expected) <= 3 * error + slack).all(), (found - expected) / error


def test_white_networks_have_no_autocorrelation_but_the_bias():
    T = 100
    make = lambda rng: white_networks(40, T, density=0.3, rng=rng)  # noqa: E731
    mean, error = replicated(make, 5, 20)
    within(mean[1:], error[1:], -1 / (T - 1))
    corrected, error = replicated(make, 5, 20, correct=True)
    within(corrected[1:], error[1:], 0.0)
    one = tt.autocorrelation(make(np.random.default_rng(0)), lags=20)
    assert one.bias == -1 / (T - 1)
    assert one.p_value > 0.01
    assert tt.autocorrelation(make(np.random.default_rng(0)), correct=True, null=None).bias == 0


@pytest.mark.parametrize("memory", [0.5, 0.9])
def test_networks_that_copy_the_last_state_forget_geometrically(memory):
    T = 500
    mean, error = replicated(lambda rng: darn(30, T, memory=memory, density=0.3, rng=rng), 5, 20)
    expected = memory ** np.arange(6)
    np.testing.assert_allclose(darn_autocorrelation(memory, 1, 5), expected, rtol=1e-12)
    # The estimated mean takes the variance of the mean out of every lag: (1 + q) / (1 - q) / T of tr C(0).
    bias = (1 + memory) / (1 - memory) / T
    within(mean, error, (expected - bias) / (1 - bias), slack=2 / T**1.5)
    assert np.abs(mean - expected).max() < 2 * bias


def test_networks_with_longer_memory_follow_yule_and_walker():
    T, memory, order = 500, 0.8, 3
    expected = darn_autocorrelation(memory, order, 8)
    # Checked against the recursion itself, written as a fixed point.
    for k in range(1, 9):
        assert expected[k] == pytest.approx(memory / order * sum(expected[abs(k - i)] for i in range(1, order + 1)))
    mean, error = replicated(lambda rng: darn(30, T, memory=memory, order=order, density=0.3, rng=rng), 8, 20)
    tail = darn_autocorrelation(memory, order, 400)
    bias = (1 + 2 * tail[1:].sum()) / T
    within(mean, error, (expected - bias) / (1 - bias), slack=2 / T**1.5)


@pytest.mark.parametrize("noise", [0.0, 0.15, 0.5])
def test_noisy_periodic_networks_come_back_by_the_square_of_what_is_kept(noise):
    period, repeats = 10, 30
    make = lambda rng: periodic_networks(40, period * repeats, period=period, noise=noise, rng=rng)  # noqa: E731
    mean, error = replicated(make, 35, 20)
    kept = (1 - noise) ** 2
    # Of the variance (1 - q)^2 repeats, less the part 1 / period that the estimated mean of the drawn networks takes;
    # the rest is white, and the estimated mean takes 1 / T of it.
    white = (1 - kept) / (period * repeats)
    total = 1 - kept / period - white
    multiples = [10, 20, 30]
    within(mean[multiples], error[multiples], (kept * (1 - 1 / period) - white) / total, slack=1e-9)
    assert mean[10] == pytest.approx(kept, abs=1.5 / period)
    # Between the multiples the sum over a whole period vanishes.
    within(np.mean(mean[1:10]), np.mean(error[1:10]), (-kept / period - white) / total, slack=1e-9)


def test_edges_of_networks_as_matrices_and_as_links_have_one_trace():
    links = darn(6, 80, memory=0.7, rng=np.random.default_rng(0))
    a, b = np.triu_indices(6, 1)
    matrices = np.zeros((80, 6, 6))
    matrices[:, a, b] = matrices[:, b, a] = links
    zero = tt.structure.node_correlation(matrices)
    values = tt.autocorrelation(links, lags=4, null=None).values
    for lag in range(5):
        found = tt.structure.node_correlation(matrices, lag=lag)
        np.testing.assert_allclose(found.covariance, naive.egonet_covariance(matrices, lag), rtol=0, atol=1e-12)
        assert np.trace(found.covariance) / np.trace(zero.covariance) == pytest.approx(values[lag], abs=1e-12)
    np.testing.assert_allclose(np.diagonal(zero.correlation), 1, rtol=1e-12)
    assert (np.abs(zero.correlation) <= 1 + 1e-12).all()


def test_nodes_of_a_recorded_network_are_correlated_by_name():
    parameters, nodes = describe({"w": ((2, 3), "float64"), "b": ((3,), "float64")})
    x = walk(30, 9)
    found = tt.structure.node_correlation(tt.Trajectory.from_array(x, parameters=parameters, nodes=nodes), lag=1)
    assert len(found.labels) == 2 + 3 + 1
    # All edges leave an input or the bias node: the others do not move.
    assert codes(found.warnings).count("constant") == 1
    assert np.isnan(found.correlation).sum() == 36 - 9
    zero = tt.structure.node_correlation(tt.Trajectory.from_array(x, parameters=parameters, nodes=nodes))
    ratio = np.trace(found.covariance) / np.trace(zero.covariance)
    assert ratio == pytest.approx(naive.autocorrelation(x, 1)[1], abs=1e-12)


# --------------------------------------------------------------------------------------------- drift and filters


def test_detrending_takes_out_what_it_says():
    t = np.linspace(0, 1, 300)[:, None]
    noise = np.random.default_rng(0).standard_normal((300, 3))
    for detrend, trend in (("linear", 5e3 * t), ("quadratic", 5e3 * t**2 - 90 * t)):
        drifting = tt.autocorrelation(noise + trend, lags=20, null=None)
        assert drifting.values[10] > 0.8
        plain = tt.autocorrelation(noise, lags=20, detrend=detrend, null=None).values
        np.testing.assert_allclose(
            tt.autocorrelation(noise + trend, lags=20, detrend=detrend, null=None).values, plain, rtol=0, atol=1e-9
        )
    steps = tt.autocorrelation(noise.cumsum(axis=0) + 100 * t, lags=20, detrend="difference")
    np.testing.assert_allclose(steps.values, naive.autocorrelation(noise[1:], 20), rtol=0, atol=1e-9)


def test_a_running_mean_leaves_what_is_faster():
    t = np.arange(400.0)
    fast, slow = np.cos(2 * np.pi * t / 4), 50 * np.cos(2 * np.pi * t / 400)
    found = tt.autocorrelation(fast + slow, lags=20, detrend=21, null=None)
    assert found.values[4] > 0.85
    assert found.values[2] < -0.85


def test_blocks_keep_short_memory_out_of_the_alarm():
    # Memory of a few states: against states in random order it is significant, against blocks of 40 it is not.
    x = darn(20, 800, memory=0.6, rng=np.random.default_rng(1))
    assert tt.autocorrelation(x, lags=100).p_value == 0.005
    assert tt.autocorrelation(x, lags=100, null="block", block=40).p_value > 0.01


# ------------------------------------------------------------------------------------------------------------ cycles


def orbit_with_period(period, T, **options):
    """An orbit of saturated softmax training that repeats after so many states, or, for None, does not repeat.

    Which start comes to which orbit is decided by chaos, and so by rounding: the first of 20 is taken.
    """
    for x in softmax_map(**options).trajectories(20, T, rng=np.random.default_rng(0)):
        if next((p for p in range(1, 31) if np.abs(x[p:] - x[:-p]).max() < 1e-6), None) == period:
            return x
    raise AssertionError(f"none of 20 orbits has the period {period}")


@pytest.mark.parametrize(
    ("gain", "true", "kind", "period"), [(15.0, 3, "exact", 3), (20.0, 3, "exact", 3), (10.0, None, "bands", 2)]
)
def test_saturated_softmax_training_has_the_cycles_that_it_has(gain, true, kind, period):
    # g = 15 and 20 are the period-3 levels at eta = 5; at g = 10 the chaos alternates between two bands.
    x = orbit_with_period(true, 1000, gain=gain)
    found = tt.structure.find_cycles(x)
    assert (found.kind, found.period) == (kind, period), found
    assert found.sustained == pytest.approx(1, abs=0.1)
    assert tt.structure.find_cycles(euclidean(x)).period == period


@pytest.mark.recorders
def test_training_at_a_very_high_rate_falls_into_its_period_of_three(tmp_path):
    # eta = 5: more than half of the saturated networks come to visit three levels of the loss in turn, some rest at
    # ln 3, others stay chaotic in two bands. Which network does what is chaos, and differs between processors.
    with tt.open(iris.record(tmp_path, 5.0, inits=16, copies=0, steps=3000)) as run:
        loss = run.metrics["loss"][2000:]
        returns, moves = np.abs(loss[3:] - loss[:-3]), np.abs(np.diff(loss, axis=0))
        settled = np.flatnonzero((returns.max(axis=0) < 1e-3) & (moves.min(axis=0) > 0.05))
        at_rest = np.flatnonzero(np.abs(loss - np.log(3)).max(axis=0) < 0.01)
        roaming = np.flatnonzero(np.median(returns, axis=0) > 0.1)
        assert len(settled), "9 of 16 in the mean"
        for m in (*settled[:1], *at_rest[:1], *roaming[:1]):
            cycle = tt.structure.find_cycles(run.trajectory(m), window=(2000, 3001))
            assert (cycle.period == 3) == (m in settled), str(cycle)
            assert cycle.kind == "none" or m not in at_rest, str(cycle)
        m = settled[0]
        states = run.states[2000:3001, m]
        stored = tt.autocorrelation(run.trajectory(m), window=(2000, 3001), lags=9, per="layer", null=None)
    # A file is read by columns, an array as it is.
    np.testing.assert_allclose(stored.values, naive.autocorrelation(states, 9), rtol=0, atol=1e-9)
    assert stored.layers == ("hidden", "output")


def test_the_whole_cycle_is_found_and_not_a_part_of_it():
    # Period 10, five times nearly the same pair: the autocorrelation at 2 is 0.98.
    found = tt.structure.find_cycles(orbit_with_period(10, 600, gain=10.0, frequencies=(0.35, 38 / 120, 1 / 3)))
    assert (found.kind, found.period) == ("exact", 10), found


@pytest.mark.parametrize(
    "name", ["logistic", "henon", "ikeda", "quartic_descent", "lorenz", "standard_map", "lorenz96"]
)
def test_chaos_has_no_cycle(name):
    # A false alarm in fifty is allowed, so one of two orbits may be taken for a cycle, but not both.
    orbits = SYSTEMS[name]().trajectories(2, 1200, rng=np.random.default_rng(0))
    assert "none" in {tt.structure.find_cycles(x).kind for x in orbits}


def test_drift_noise_walks_and_rest_have_no_cycle():
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, 400)[:, None]
    trajectories = [
        t**2 + 1e-3 * rng.standard_normal((400, 3)),
        np.exp(-5 * t) * rng.standard_normal(4),
        rng.standard_normal((400, 10)),
        rng.standard_normal((600, 10)).cumsum(axis=0),
        rng.standard_normal((600, 1)).cumsum(axis=0),
        np.ones((100, 2)),
        softmax_map(gain=5.0).trajectory(400, rng=rng),
    ]
    found = [tt.structure.find_cycles(x) for x in trajectories]
    assert [f.kind for f in found] == ["none"] * len(found), "\n".join(map(str, found))
    assert all(np.isnan(f.period) and f.reasons for f in found)
    assert found[5].reasons[0].code == "at-rest"


@pytest.mark.parametrize("detrend", ["linear", 101])
def test_a_cycle_on_a_drift_is_found_once_the_drift_is_out(detrend):
    t = np.arange(800.0)
    x = np.column_stack([np.cos(2 * np.pi * t / 17.3), np.sin(2 * np.pi * t / 17.3)]) + 0.02 * t[:, None]
    assert tt.structure.find_cycles(x).kind == "none"
    found = tt.structure.find_cycles(x, detrend=detrend)
    assert found.kind == "approximate"
    assert found.period == pytest.approx(17.3, rel=0.01)


def test_noisy_periodic_networks_have_their_period():
    for noise, seed in ((0.0, 1), (0.15, 2), (0.5, 3)):
        x = periodic_networks(30, 240, period=12, noise=noise, rng=np.random.default_rng(seed))
        found = tt.structure.find_cycles(x)
        assert found.period == 12, found
        assert found.kind == ("exact" if noise == 0 else "bands")
        assert found.strength == pytest.approx((1 - noise) ** 2, abs=0.05)


def test_limit_cycles_have_the_period_of_the_flow():
    x = SYSTEMS["hopf"](omega=2.0, dt=0.1).trajectory(1500, rng=np.random.default_rng(0))
    found = tt.structure.find_cycles(tt.Trajectory.from_array(x, dt=0.1))
    assert found.kind == "approximate"  # no whole number of states
    assert found.time == pytest.approx(np.pi, rel=2e-3)


@pytest.mark.slow
def test_cycles_are_seldom_seen_where_there_is_none():
    false, total = 0, 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        trajectories = [
            SYSTEMS[name]().trajectory(1200, rng=rng) for name in ("lorenz", "lorenz96", "henon", "standard_map")
        ]
        noise = rng.standard_normal((1000, 3))
        red = np.zeros_like(noise)
        for t in range(1, 1000):
            red[t] = 0.95 * red[t - 1] + noise[t]
        for x in (*trajectories, noise, noise.cumsum(axis=0), red):
            total += 1
            false += tt.structure.find_cycles(x).kind != "none"
    assert false <= 0.02 * total, (false, total)


# ------------------------------------------------------------------------------------------------ never nonsense


def test_states_that_do_not_move_are_no_crash():
    found = tt.autocorrelation(np.ones((20, 3)))
    assert np.isnan(found.values).all()
    assert "constant" in codes(found.warnings)
    assert np.isnan(found.p_value)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: tt.autocorrelation(x[:2]), DataError, "2 finite states of 2"),
        (lambda x: tt.autocorrelation(x, lags=120), DataError, "lags from 1 to 119"),
        (lambda x: tt.autocorrelation(x, detrend="cubic"), UnknownNameError, "no detrending 'cubic'"),
        (lambda x: tt.autocorrelation(x, detrend=10), DataError, "odd number"),
        (lambda x: tt.autocorrelation(x, null="gauss"), UnknownNameError, "no null 'gauss'"),
        (lambda x: tt.autocorrelation(x, null="phase-randomised"), UnknownNameError, "keeps the power spectrum"),
        (lambda x: tt.autocorrelation(x, null="block", block=90), DataError, "blocks of 90 states"),
        (lambda x: tt.autocorrelation(x, surrogates=5), DataError, "at least 19"),
        (lambda x: tt.autocorrelation(x, per="layer"), DataError, "a trajectory with parameters"),
        (lambda x: tt.autocorrelation(x, per="unit"), UnknownNameError, "no grouping 'unit'"),
        (lambda x: tt.autocorrelation(x, window=(500, 600)), SelectionError, "no state lies in the window"),
        (lambda x: tt.autocorrelation(x, level=0), DataError, "between 0 and 1"),
        (lambda x: tt.autocorrelation(tt.Distances.from_array(np.ones((9, 9)))), DataError, "only Euclidean ones"),
        (lambda x: tt.structure.find_cycles(x[:12]), DataError, "needs at least 8 lags"),
        (lambda x: tt.structure.find_cycles(x, metric="l7"), UnknownNameError, "no metric"),
        (lambda x: tt.structure.find_cycles(x, alpha=0.001), DataError, "99 shuffles"),
        (tt.structure.node_correlation, DataError, "adjacency matrices"),
        (lambda x: tt.structure.node_correlation(np.zeros((9, 2, 2)), lag=9), DataError, "lags from 0 to 8"),
        (lambda x: tt.structure.node_correlation(np.full((9, 2, 2), np.nan)), DataError, "0 finite states"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_way_out(call, error, words):
    with pytest.raises(error, match=words):
        call(walk())


def test_uneven_steps_and_too_many_states_are_refused(monkeypatch):
    uneven = tt.Trajectory.from_array(walk(20, 2), step=np.arange(20) ** 2)
    with pytest.raises(DataError, match="equal spacing"):
        tt.autocorrelation(uneven)
    autocorrelation = import_module("trajtools.structure.autocorrelation")

    monkeypatch.setattr(autocorrelation, "GRAM_BYTES", 1000)
    monkeypatch.setattr(autocorrelation, "GRAM_BYTES", 1000)
    with pytest.raises(TooLargeError, match="null=None"):
        tt.autocorrelation(walk(60, 300))
    assert np.isfinite(tt.autocorrelation(walk(60, 300), null=None).values).all()


def test_the_same_seed_gives_the_same_bits_and_plain_data():
    x = walk()
    a, b = tt.autocorrelation(x, rng=2), tt.autocorrelation(x, rng=2)
    assert a.to_json() == b.to_json()
    assert tt.structure.find_cycles(x, rng=2).to_json() == tt.structure.find_cycles(x, rng=2).to_json()


def test_figures_show_the_band_and_the_period():
    x = periodic_networks(20, 200, period=8, noise=0.3, rng=np.random.default_rng(0))
    found, cycles = tt.autocorrelation(x), tt.structure.find_cycles(x)
    ax = tt.plots.autocorrelation(found, cycles=cycles)
    assert "period 8" in ax.get_title()
    assert any("states in random order" in c.get_label() for c in ax.collections)
    assert found.plot().lines


@pytest.mark.parametrize("scale", [2.0**532, 2.0**-664])
def test_correlation_does_not_depend_on_numbers_whose_squares_overflow(scale):
    x = SYSTEMS["henon"]().trajectory(500, rng=np.random.default_rng(30))
    one, other = (tt.autocorrelation(y, lags=50) for y in (x, x * scale))
    np.testing.assert_array_equal(one.values, other.values)
    assert one.threshold == other.threshold
    assert tt.structure.find_cycles(np.tile(x[:7], (40, 1)) * scale).period == 7
    matrices = np.random.default_rng(31).normal(size=(30, 4, 4))
    nodes = [tt.structure.node_correlation(m).correlation for m in (matrices, matrices * scale)]
    np.testing.assert_array_equal(*nodes)


def test_correlation_of_an_explosion_is_finite():
    rng, x = np.random.default_rng(32), np.zeros(1000)
    for t in range(1, 1000):
        x[t] = 1.88 * x[t - 1] + rng.standard_normal()
    assert x.max() > 1e200 or x.min() < -1e200
    assert np.isfinite(tt.autocorrelation(x).values).all()
