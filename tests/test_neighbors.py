import naive_series as naive
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from trajtools.errors import DataError, NoNeighborsError, TooLargeError, UnknownNameError
from trajtools.exponents.following import absolute_radii, spread
from trajtools.exponents.neighbor_methods import rosenstein
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.neighbors.search import choose, find_nearest
from trajtools.neighbors.states import compact, prepare

SEARCHES = ["brute", "sweep", "tree"]
METRICS = ["l1", "l2", "linf"]


def walk(n=70, d=2, seed=0):
    return np.cumsum(np.random.default_rng(seed).normal(size=(n, d)), axis=0)


def henon(n, a=1.4, b=0.3):
    x = np.empty((n, 2))
    x[0] = 0.1, 0.1
    for t in range(n - 1):
        x[t + 1] = 1 - a * x[t, 0] ** 2 + x[t, 1], b * x[t, 0]
    return x[100:]


def check_against_twin(x, *, k, theiler, horizon, metric, strategy):
    lists, zeros = naive.nearest(x, k, theiler, horizon, metric=metric)
    found = find_nearest(x, metric=metric, neighbors=NearestK(k), theiler=theiler, horizon=horizon, strategy=strategy)
    index = np.full((len(x), k), -1)
    distance = np.full((len(x), k), np.nan)
    for i, pairs in enumerate(lists):
        for at, (d, j) in enumerate(pairs):
            index[i, at], distance[i, at] = j, d
    assert_array_equal(found.index, index)
    assert_allclose(found.distance, distance, rtol=1e-12)
    assert found.counts["zero_distance"] == zeros


@pytest.mark.parametrize("strategy", SEARCHES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("d", "k", "theiler"), [(1, 1, 0), (2, 3, 5), (3, 2, 10), (6, 1, 1)])
def test_neighbors_are_the_nearest_outside_the_window(strategy, metric, d, k, theiler):
    check_against_twin(walk(d=d), k=k, theiler=theiler, horizon=4, metric=metric, strategy=strategy)


@pytest.mark.parametrize("strategy", SEARCHES)
def test_neighbors_skip_what_is_not_finite(strategy):
    x = walk()
    x[10, 0], x[33, 1], x[34, 0] = np.nan, np.inf, -np.inf
    check_against_twin(x, k=2, theiler=3, horizon=5, metric="l2", strategy=strategy)
    found = find_nearest(x, theiler=3, horizon=5, strategy=strategy)
    assert found.counts["not_finite"] == 3
    # The last five, and each broken state with the five before it (33 and 34 share five).
    assert found.counts["not_followable"] == 5 + 6 + 7


@pytest.mark.parametrize("strategy", SEARCHES)
@settings(max_examples=40, deadline=None)
@given(
    x=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=12, max_size=60),
    k=st.integers(1, 4),
    theiler=st.integers(0, 6),
    metric=st.sampled_from(METRICS),
)
def test_ties_and_repeats_are_settled_as_in_the_twin(strategy, x, k, theiler, metric):
    check_against_twin(np.array(x, dtype=float), k=k, theiler=theiler, horizon=2, metric=metric, strategy=strategy)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_all_searches_give_the_same_bits(d):
    x = np.random.default_rng(d).normal(size=(3000, d))
    found = [find_nearest(x, neighbors=NearestK(3), theiler=20, horizon=3, strategy=s) for s in SEARCHES]
    for other in found[1:]:
        assert_array_equal(found[0].index, other.index)
        assert_array_equal(found[0].distance, other.distance)


@pytest.mark.parametrize("kind", ["heavy tails", "one axis constant", "few values", "mostly equal", "20 dimensions"])
def test_uneven_strips_give_the_same_bits(kind):
    rng = np.random.default_rng(4)
    x = rng.standard_cauchy(size=(1500, 3))
    if kind == "20 dimensions":
        x = rng.normal(size=(1500, 20))
    elif kind == "one axis constant":
        x[:, 1] = 7.0
    elif kind == "few values":
        x = rng.integers(0, 5, size=(1500, 3)).astype(np.float64)
    elif kind == "mostly equal":
        x[:1200] = 0.5
    found = [find_nearest(x, neighbors=NearestK(2), theiler=3, strategy=s) for s in SEARCHES]
    for other in found[1:]:
        assert_array_equal(found[0].index, other.index)
        assert_array_equal(found[0].distance, other.distance)
        assert found[0].counts == other.counts


@pytest.mark.parametrize("metric", METRICS)
def test_in_many_dimensions_all_distances_are_computed_once(metric):
    x = walk(60, 33)
    x[50] = np.inf
    found = find_nearest(x, metric=metric, neighbors=NearestK(2), theiler=4, horizon=3)
    plain = find_nearest(x, metric=metric, neighbors=NearestK(2), theiler=4, horizon=3, strategy="brute")
    assert found.strategy.name == "matrix"
    assert_array_equal(found.index, plain.index)
    assert_allclose(found.distance, plain.distance, rtol=1e-12)
    states = prepare(x, metric=metric, theiler=4, horizon=3)
    times = np.arange(5, 40, 3)
    assert_allclose(compact(states).matrix[np.ix_(times, times)], states.between(times, times), rtol=1e-12)


def test_a_matrix_of_distances_gives_the_same_neighbors():
    x = walk(60, 3)
    given_ = find_nearest(naive.distances(x), metric="precomputed", neighbors=NearestK(2), theiler=4, horizon=3)
    assert_array_equal(given_.index, find_nearest(x, neighbors=NearestK(2), theiler=4, horizon=3).index)
    assert given_.strategy.name == "matrix"


@pytest.mark.parametrize("strategy", SEARCHES)
@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1e160, 1e250])
def test_numbers_that_cannot_be_squared_are_no_obstacle(strategy, scale):
    x = walk(80, 3)
    plain = find_nearest(x, theiler=5, strategy="brute")
    scaled = find_nearest(x * scale, theiler=5, strategy=strategy)
    assert_array_equal(scaled.index, plain.index)
    assert_allclose(scaled.distance / scale, plain.distance, rtol=1e-12)


def test_the_number_of_threads_changes_nothing():
    import numba

    x = np.random.default_rng(5).normal(size=(5000, 3))
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = find_nearest(x, theiler=9)
    finally:
        numba.set_num_threads(before)
    two = find_nearest(x, theiler=9)
    assert_array_equal(one.index, two.index)
    assert_array_equal(one.distance, two.distance)


def test_the_search_is_chosen_by_size_dimension_and_a_probe():
    def chosen(x, theiler=1):
        return choose(prepare(x, metric="l2", theiler=theiler, horizon=0), None)

    rng = np.random.default_rng(0)
    assert chosen(rng.normal(size=(500, 2))).name == "brute"
    assert chosen(rng.normal(size=(1500, 30))).name == "brute"
    few = chosen(rng.normal(size=(1500, 6)) * [1, 3, 1, 1, 2, 1])
    assert (few.name, few.axis, few.across) == ("sweep", 1, 4)
    assert "1500 states" in few.why
    assert chosen(rng.normal(size=(30_000, 3))).name == "sweep"
    assert chosen(rng.normal(size=(30_000, 6))).name == "tree"
    assert chosen(rng.normal(size=(30_000, 1))).name == "sweep"
    line = rng.uniform(size=30_000)
    curve = chosen(np.stack([np.zeros(30_000), line, np.sin(line)], axis=1))
    assert curve.name == "sweep"
    assert curve.axis in (1, 2)
    assert "of 30000 states" in curve.why


@pytest.mark.parametrize("value", [0.0, 7.0])
@pytest.mark.parametrize("n", [3, 3000])
def test_a_constant_series_has_no_neighbors_and_says_why(value, n):
    found = find_nearest(np.full(n, value), theiler=1)
    assert found.n_references == 0
    assert np.all(found.index == -1)
    assert np.all(np.isnan(found.distance))
    assert found.counts["zero_distance"] == n * (n - 1)
    assert found.counts["without_neighbors"] == n


def test_a_periodic_series_is_searched_in_no_time():
    x = np.tile([0.0, 1.0, 3.0, 7.0], 10_000)
    found = find_nearest(x, theiler=1, strategy="tree")
    assert_array_equal(found.index[:4, 0], [1, 0, 1, 2])
    assert found.counts["zero_distance"] == 40_000 * 9_999


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float16, np.float32, bool])
def test_any_real_dtype_is_searched_as_float64(dtype):
    x = np.array([0, 50, 10, 55, 9, 100, 101]).astype(dtype)
    expected = find_nearest(x.astype(np.float64), theiler=1)
    assert_array_equal(find_nearest(x, theiler=1).index, expected.index)


def test_three_states_are_enough_for_neighbors():
    found = find_nearest([0.0, 3.0, 1.0], theiler=1)
    assert found.index[:, 0].tolist() == [2, 2, 0]


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        ([1.0, 2.0], {"theiler": 1, "horizon": 1}, "2 states are too few"),
        ([1.0, 2.0, 3.0], {"theiler": 5}, "lower horizon or theiler"),
        (np.zeros((4, 3, 2)), {"theiler": 1}, r"shape \(4, 3, 2\)"),
        (np.zeros((4, 0)), {"theiler": 1}, r"shape \(4, 0\)"),
        (["a", "b", "c"], {"theiler": 1}, "real numbers"),
        (np.zeros(9, dtype=complex), {"theiler": 1}, "real numbers"),
        (np.zeros(9), {"theiler": -1}, "got -1"),
        (np.zeros(9), {"theiler": 1, "horizon": 1.5}, "got 1.5"),
        (np.full(9, np.nan), {"theiler": 1}, "9 of 9 states contain NaN"),
        (np.zeros((4, 5)), {"theiler": 1, "metric": "precomputed"}, r"shape \(T, T\)"),
        (-np.ones((4, 4)), {"theiler": 1, "metric": "precomputed"}, "negative"),
        (np.triu(np.ones((4, 4))), {"theiler": 1, "metric": "precomputed"}, "not symmetric"),
        (np.zeros(9), {"theiler": 1, "strategy": "magic"}, "got 'magic'"),
        (np.zeros(9), {"theiler": 1, "strategy": "matrix"}, "does not support"),
    ],
)
def test_bad_input_is_refused_with_the_way_out(x, options, words):
    with pytest.raises(DataError, match=words):
        find_nearest(x, **options)


def test_an_unknown_metric_is_refused_with_those_that_are():
    with pytest.raises(UnknownNameError, match=r"l1, l2, linf.*precomputed"):
        find_nearest([1.0, 2.0, 3.0], metric="no such", theiler=1)


@pytest.mark.parametrize(
    ("rule", "arguments", "words"),
    [
        (NearestK, {"k": 0}, "at least 1"),
        (NearestK, {"k": 1.5}, "integer"),
        (WithinRadius, {"radius": -1.0}, "positive"),
        (WithinRadius, {"radius": [1.0, np.nan]}, "positive"),
        (WithinRadius, {"radius": []}, "positive"),
        (WithinRadius, {"radius": "large"}, "'auto'"),
        (WithinRadius, {"radius": "auto", "relative": True}, "omit `relative`"),
        (WithinRadius, {"radius": 1.0, "min_neighbors": 0}, "at least 1"),
        (WithinRadius, {"radius": [1.0, 2.0], "max_neighbors": 1}, "number of radii"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule, arguments, words):
    with pytest.raises(DataError, match=words):
        rule(**arguments)


def test_relative_radii_are_multiples_of_the_median_distance():
    x = walk(60)
    states = prepare(x, metric="l1", theiler=1, horizon=0)
    d = naive.distances(x, "l1")
    median = np.median(d[np.triu_indices(60, 1)])
    assert_allclose(spread(states), median, rtol=1e-12)
    assert_allclose(absolute_radii(states, WithinRadius([0.2, 0.1], relative=True)), [0.1 * median, 0.2 * median])


def test_the_automatic_radius_is_the_median_distance_to_the_fourth_neighbor():
    x = walk(60)
    lists, _ = naive.nearest(x, 4, 4)
    expected = np.median([found[3][0] for found in lists])
    assert_allclose(absolute_radii(prepare(x, metric="l2", theiler=4, horizon=0), WithinRadius()), [expected])


def test_a_constant_series_has_no_automatic_radius():
    states = prepare(np.ones(20), metric="l2", theiler=1, horizon=0)
    with pytest.raises(NoNeighborsError, match="no radius can be chosen"):
        absolute_radii(states, WithinRadius())
    with pytest.raises(NoNeighborsError, match="half of the states are equal"):
        absolute_radii(states, WithinRadius(0.1, relative=True))


def test_neighbors_of_a_map_are_found_far_outside_a_long_window():
    x = henon(4000)
    found = find_nearest(x, theiler=500)
    own = np.arange(len(x))
    assert np.all(np.abs(found.index[:, 0] - own) >= 500)


def test_metrics_of_the_users_own_are_asked_for_every_pair():
    rng = np.random.default_rng(12)
    x = rng.standard_normal((80, 3))
    x[7] = np.nan

    def manhattan(a, b):
        assert a.shape == b.shape
        return np.abs(a - b).sum(axis=1)

    ours, theirs = (find_nearest(x, metric=metric, theiler=3, horizon=2) for metric in ("l1", manhattan))
    np.testing.assert_array_equal(ours.index, theirs.index)
    np.testing.assert_allclose(ours.distance, theirs.distance, rtol=1e-12)
    curve = rosenstein(x, metric=manhattan, theiler=3, horizon=2)
    assert curve.metric == "manhattan"
    np.testing.assert_allclose(
        curve.log_distance, rosenstein(x, metric="l1", theiler=3, horizon=2).log_distance, rtol=1e-12
    )
    with pytest.raises(DataError, match="one distance per state"):
        find_nearest(x, metric=lambda a, b: 0.0, theiler=3)
    with pytest.raises(TooLargeError, match="Subsample the states"):
        find_nearest(np.zeros((9000, 1)), metric=manhattan, theiler=3)
