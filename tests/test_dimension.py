"""Correlation sums count exactly; dimensions of known sets come out, and what cannot be told is not told."""

import naive_dimension as naive
import numba
import numpy as np
import pytest

import trajtools as tt
from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, UnknownNameError
from trajtools.structure.correlation_sum import find_pairs, sum_of
from trajtools.structure.dimension import lag_deviations


def circle(n, rng):
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def lorenz_states(rng):
    """400 pieces of the attractor, 20 states each, 0.2 time units apart."""
    return tt.systems.lorenz().trajectories(400, 400, rng=rng)[:, ::20].reshape(-1, 3)


def feigenbaum(n, x=0.4, r=3.5699456718709449):
    out = np.empty(n)
    for t in range(-100_000, n):
        x = r * x * (1 - x)
        if t >= 0:
            out[t] = x
    return out


def matrix_of(x, metric="l2"):
    return np.array([[naive.distance(a, b, metric) for b in x] for a in x])


def broken(rng, n=90):
    x = rng.normal(size=(n, 2))
    x[[3, 40]] = np.nan, np.inf
    x[50:60] = x[20:30]  # copies
    return x


STATES = {
    "line": lambda rng: rng.normal(size=80),
    "plane with gaps and copies": broken,
    "lattice": lambda rng: rng.integers(0, 4, size=(120, 3)).astype(float),
    "walk in five dimensions": lambda rng: np.cumsum(rng.normal(size=(70, 5)), axis=0),
    "float32": lambda rng: rng.normal(size=(60, 2)).astype(np.float32),
}


@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
@pytest.mark.parametrize("name", STATES)
def test_counts_are_those_of_all_pairs(name, metric):
    x = STATES[name](np.random.default_rng(1))
    rows = x.reshape(len(x), -1)
    for theiler in (0, 1, 7):
        found = tt.structure.correlation_sum(x, metric=metric, theiler=theiler)
        counts, pairs = naive.correlation_sum(rows, found.radii, theiler, metric)
        assert found.counts.tolist() == counts
        assert found.counts.dtype == np.int64
        assert found.n_pairs == pairs
        np.testing.assert_array_equal(found.correlation, np.array(counts) / pairs)


def test_pairs_at_exactly_the_radius_are_inside():
    grid = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), axis=-1).reshape(-1, 2)
    radii = [1, np.sqrt(2), np.sqrt(3), 2, np.sqrt(5), np.sqrt(8), 3, np.sqrt(10), 5]
    found = tt.structure.correlation_sum(grid, radii, theiler=1)
    assert found.counts.tolist() == naive.correlation_sum(grid, radii, 1)[0]


def test_takens_estimate_is_that_of_all_pairs_below_the_radius():
    x = broken(np.random.default_rng(2))
    found = tt.structure.correlation_sum(x, theiler=3)
    known = np.flatnonzero(np.isfinite(found.takens))
    assert len(known) > 10
    assert found.zero_pairs == 10
    for at in known:
        assert found.takens[at] == pytest.approx(naive.takens(x, found.radii[at], 3), rel=1e-11)


@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
def test_tree_and_distances_give_the_same_counts(metric):
    x = np.random.default_rng(3).normal(size=(150, 3))
    x[7] = np.nan
    by_tree = tt.structure.correlation_sum(x, metric=metric, theiler=4)
    matrix = matrix_of(x, metric)
    given = tt.structure.correlation_sum(matrix, by_tree.radii, metric="precomputed", theiler=4)
    known = tt.structure.correlation_sum(Distances.from_array(matrix, metric=metric), by_tree.radii, theiler=4)
    for other in (given, known):
        np.testing.assert_array_equal(other.counts, by_tree.counts)
        np.testing.assert_array_equal(other.block_counts, by_tree.block_counts)
        assert (other.n_pairs, other.n_states, other.n_excluded) == (by_tree.n_pairs, 149, 1)
    assert known.metric == metric


def test_blocks_add_up_to_twice_the_counts():
    found = tt.structure.correlation_sum(np.random.default_rng(4).normal(size=(700, 2)), theiler=9)
    np.testing.assert_array_equal(found.block_counts.sum(axis=0), 2 * found.counts)
    assert found.block_pairs.sum() == 2 * found.n_pairs
    assert len(found.block_pairs) > 20


def test_number_of_threads_changes_no_bit():
    x = np.random.default_rng(5).normal(size=(4000, 3))
    answers, threads = [], numba.get_num_threads()
    try:
        for n in (1, threads):
            numba.set_num_threads(n)
            answers.append(tt.structure.correlation_sum(x, theiler=5))
    finally:
        numba.set_num_threads(threads)
    for name in ("counts", "takens", "block_logs"):
        np.testing.assert_array_equal(getattr(answers[0], name), getattr(answers[1], name))


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**30, 1e-170, 1e160])
def test_counts_do_not_depend_on_the_unit_of_the_weights(scale):
    x = np.random.default_rng(6).normal(size=(300, 3))
    radii = np.geomspace(0.05, 4, 30)
    np.testing.assert_array_equal(
        tt.structure.correlation_sum(x * scale, radii * scale, theiler=1).counts,
        tt.structure.correlation_sum(x, radii, theiler=1).counts,
    )


def test_counts_do_not_depend_on_the_direction_of_time():
    x = np.random.default_rng(7).normal(size=(300, 2))
    radii = np.geomspace(0.05, 4, 20)
    forward, backward = (tt.structure.correlation_sum(y, radii, theiler=6) for y in (x, x[::-1]))
    np.testing.assert_array_equal(forward.counts, backward.counts)


def test_the_input_is_not_changed():
    x = broken(np.random.default_rng(8))
    before = x.copy()
    tt.structure.correlation_sum(x)
    tt.correlation_dimension(x)
    np.testing.assert_array_equal(x, before)


def test_equal_states_are_counted_whole():
    x = np.repeat([[0.0, 0.0], [1.0, 0.0]], 3000, axis=0)
    found = tt.structure.correlation_sum(x, [0.5, 1.0], theiler=1)
    assert found.counts.tolist() == [2 * 3000 * 2999 // 2, 6000 * 5999 // 2]
    assert np.isnan(found.takens).all()
    assert found.warnings[0].code == "repeats"


@pytest.mark.parametrize(
    ("make", "truth", "tolerance", "verdict"),
    [
        (lambda rng: circle(4000, rng), 1.0, 0.03, "finite"),
        (lambda rng: rng.uniform(size=(6000, 2)), 2.0, 0.06, "space-filling"),
        # Grassberger and Procaccia 1.25 +- 0.02, later estimates 1.21; the estimate at 10^4 states is 1.204 +- 0.010.
        (lambda rng: tt.systems.henon().trajectory(10_000, rng=rng), 1.21, 0.03, "finite"),
        (lorenz_states, 2.05, 0.06, "finite"),
    ],
    ids=["circle", "square", "henon", "lorenz"],
)
def test_known_dimensions_come_out(make, truth, tolerance, verdict):
    found = tt.correlation_dimension(make(np.random.default_rng(10)))
    assert found.value == pytest.approx(truth, abs=tolerance)
    assert found.takens == pytest.approx(truth, abs=1.5 * tolerance)
    # The bias from the gaps of a set is not in the interval; it is 0.02 at most here.
    assert found.interval[0] - 0.02 <= truth <= found.interval[1] + 0.02
    assert found.verdict == verdict


def test_dimension_at_the_onset_of_chaos_is_one_half():
    found = tt.correlation_dimension(feigenbaum(20_000), dims=1)
    assert found.value == pytest.approx(0.5, abs=0.01)
    assert found.interval[0] < 0.5 < found.interval[1]
    assert found.verdict == "finite"


def test_dimension_of_a_series_saturates():
    x = tt.systems.henon().trajectory(4000, rng=np.random.default_rng(11))[:, 0]
    found = tt.correlation_dimension(x)
    assert found.dims.tolist() == list(range(1, 8))
    assert found.dim_values[0] == pytest.approx(1.0, abs=0.1)  # a line can hold no more
    np.testing.assert_allclose(found.dim_values[1:], 1.21, atol=0.1)
    assert found.verdict == "finite"
    assert found.reasons[-1].code == "saturated"
    assert found.settings["delay"] == 1


def test_noise_fills_every_space():
    found = tt.correlation_dimension(np.random.default_rng(12).normal(size=3000), dims=(1, 2, 3))
    np.testing.assert_allclose(found.dim_values, [1, 2, 3], rtol=0.06)
    assert found.verdict == "space-filling"


def test_too_few_states_are_said_to_be_too_few():
    x = np.random.default_rng(13).normal(size=(400, 8))
    found = tt.correlation_dimension(x, theiler=1)
    assert found.verdict == "inconclusive"
    assert np.isnan(found.value)
    assert found.reasons[0].code == "too-few-states"
    assert found.bound == pytest.approx(2 * np.log10(400))
    short = np.sin(0.1 * np.arange(90))
    assert tt.correlation_dimension(short).verdict == "inconclusive"
    assert tt.correlation_dimension(short, delay=9).dims[-1] == 6
    few = tt.correlation_dimension([0.0, 1.0, 3.0], dims=1)
    assert few.verdict == "inconclusive"


@pytest.mark.parametrize("theiler", [None, 10])
def test_a_walk_that_does_not_return_has_no_dimension(theiler):
    walk = np.cumsum(np.random.default_rng(14).normal(size=(3000, 3)), axis=0)
    assert tt.correlation_dimension(walk, theiler=theiler).verdict == "inconclusive"
    drift = np.arange(2000.0)[:, None] * [1.0, 0.3] + np.random.default_rng(15).normal(size=(2000, 2))
    found = tt.correlation_dimension(drift, theiler=theiler)
    assert found.verdict == "inconclusive"


@pytest.mark.parametrize(
    "series",
    [
        np.tile([1.0, 2.0, 5.0], 60),
        np.random.default_rng(0).random(300) < 0.5,
        np.concatenate([np.random.default_rng(1).normal(size=200), np.zeros(300)]),
    ],
    ids=["cycle", "coin", "constant tail"],
)
def test_states_that_mostly_coincide_are_inconclusive(series):
    found = tt.correlation_dimension(series)
    assert (found.verdict, [reason.code for reason in found.reasons]) == ("inconclusive", ["repeats"])
    assert np.isnan(found.value)
    assert [warning.code for warning in found.warnings].count("repeats") == 1


def test_dimension_of_networks_comes_from_their_distances():
    rng = np.random.default_rng(16)
    plane = np.linalg.qr(rng.normal(size=(50, 2)))[0]
    x = circle(700, rng) @ plane.T
    matrix = np.linalg.norm(x[:, None, :] - x[None], axis=2)
    matrix[5] = matrix[:, 5] = np.nan
    found = tt.correlation_dimension(Distances.from_array(matrix, metric="l2"), theiler=1)
    assert found.value == pytest.approx(1.0, abs=0.05)
    assert found.verdict == "finite"
    assert found.space == 0
    assert found.settings["n_excluded"] == 1


def test_same_seed_gives_the_same_bits():
    x = circle(800, np.random.default_rng(17))
    a, b, c = (tt.correlation_dimension(x, rng=seed) for seed in (1, 1, 2))
    assert a.to_json() == b.to_json()
    assert (a.value, a.interval) != (c.value, c.interval)
    assert a.value == c.value


@pytest.mark.parametrize("n", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_intervals_cover_the_truth(n):
    hits = {"circle": 0, "torus": 0}
    for seed in range(n):
        rng = np.random.default_rng(seed)
        # No edge: what is left is chance. 0.88 of 100 is the demand on every interval of this toolkit.
        torus = np.concatenate([circle(600, rng), circle(600, rng)], axis=1)
        for name, x, truth in (("circle", circle(400, rng), 1.0), ("torus", torus, 2.0)):
            low, high = tt.correlation_dimension(x, theiler=1).interval
            hits[name] += low <= truth <= high
    assert min(hits.values()) >= 0.88 * n


def test_intervals_hold_the_dimension_of_cubes_in_spite_of_their_edges():
    hits = []
    for seed in range(8):
        cube = np.random.default_rng(seed).uniform(size=(1500, 3))
        low, high = tt.correlation_dimension(cube, theiler=1).interval
        hits.append(low <= 3 <= high)
    assert sum(hits) >= 7


@pytest.mark.parametrize("states", [2000, 5000])
def test_intervals_hold_the_dimension_of_a_torus_that_a_trajectory_fills(states):
    hits = []
    for seed in range(6):
        angles = np.random.default_rng(seed).uniform(0, 6, 2) + np.outer(np.arange(states), [0.7, 0.7 * np.sqrt(3)])
        torus = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
        low, high = tt.correlation_dimension(torus, theiler=1).interval
        hits.append(low <= 2 <= high)
    assert sum(hits) >= 5


def test_only_states_that_share_their_close_lags_widen_the_interval():
    rng = np.random.default_rng(0)
    turning = circle(1500, rng)
    angles = 0.7 * np.arange(1500)
    rotation = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for x, shared in ((turning, False), (rotation, True)):
        pairs = find_pairs(x, metric="l2", theiler=1)
        assert lag_deviations(pairs, sum_of(pairs, None), rng).any() == shared


@pytest.mark.slow
def test_a_hundred_thousand_states_are_counted():
    x = tt.systems.henon().trajectory(100_000, rng=np.random.default_rng(18))
    found = tt.correlation_dimension(x, most=len(x))
    assert 1.2 < found.value < 1.25
    assert found.correlation_sums[0].n_pairs > 4.9e9
    lorenz = tt.systems.lorenz().trajectory(100_000, rng=np.random.default_rng(19))
    assert tt.correlation_dimension(lorenz).value == pytest.approx(2.05, abs=0.04)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tt.structure.correlation_sum(np.ones(50)), DataError, "differ"),
        (lambda: tt.correlation_dimension(np.ones((50, 2))), DataError, "differ"),
        (lambda: tt.structure.correlation_sum([0.0, 1.0], [0.0]), DataError, "positive"),
        (lambda: tt.structure.correlation_sum(np.arange(9.0), theiler=-1), DataError, "theiler=-1"),
        (lambda: tt.structure.correlation_sum(np.arange(9.0), theiler=9), DataError, "too few"),
        (lambda: tt.structure.correlation_sum(np.full((9, 2), np.nan)), DataError, "NaN"),
        (lambda: tt.structure.correlation_sum(np.array(["a", "b"])), DataError, "real numbers"),
        (lambda: tt.correlation_dimension(np.arange(90.0), dims=0), DataError, "dims=0"),
        (lambda: tt.correlation_dimension(np.ones((90, 2)), dims=3), DataError, "series"),
        (lambda: tt.correlation_dimension(np.arange(90.0), level=95), DataError, "level=95"),
        (lambda: tt.structure.correlation_sum(np.zeros((3, 3)) - 1, metric="precomputed"), DataError, "negative"),
        (lambda: tt.structure.correlation_sum(np.eye(4)[:3], metric="no such"), UnknownNameError, "no such"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_words(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_distances_that_are_not_symmetric_are_refused():
    matrix = np.random.default_rng(20).uniform(size=(30, 30))
    with pytest.raises(DataError, match="symmetric"):
        tt.structure.correlation_sum(Distances.from_array(matrix))


def test_many_states_are_thinned_by_a_prime_and_said_to_be():
    # A square wave of 12 samples on a circle: one of every 4, 6 or 8 states would meet three, two or three phases.
    angle = 2 * np.pi * (np.arange(9600) / 12 % 1 + 0.01 * np.random.default_rng(3).uniform(size=9600))
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = tt.correlation_dimension(x, theiler=14, most=2000)
    sums = found.correlation_sums[0]
    assert (found.settings["every"], sums.n_states, sums.theiler) == (5, 1920, 3)
    assert [w.code for w in found.warnings] == ["thinned"]
    np.testing.assert_array_equal(sums.counts, tt.structure.correlation_sum(x[::5], sums.radii, theiler=3).counts)


def test_results_become_plain_and_draw_themselves():
    x = circle(500, np.random.default_rng(21))
    found = tt.correlation_dimension(x)
    assert found.to_dict()["value"] == found.value
    assert any("finite" in line.get_label() for line in (*found.plot().lines, *found.plot().collections))
    sums = tt.structure.correlation_sum(x)
    np.testing.assert_allclose(sums.plot().lines[0].get_ydata(), sums.correlation[sums.counts > 0])
    nothing = tt.correlation_dimension(np.random.default_rng(22).normal(size=(100, 9))).plot()
    assert "inconclusive: no scaling region" in [line.get_label() for line in nothing.lines]
