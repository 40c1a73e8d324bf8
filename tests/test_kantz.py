import itertools

import naive_series as naive
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from trajtools._kernels.pairs import make_batch, sum_pairs
from trajtools.errors import DataError, NoNeighborsError, UnknownNameError
from trajtools.exponents.neighbor_methods import kantz
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.neighbors.search import build, requested
from trajtools.neighbors.states import prepare
from trajtools.statistics import AVERAGES


def walk(n=70, d=2, seed=0):
    return np.cumsum(np.random.default_rng(seed).normal(size=(n, d)), axis=0)


def henon(n, a=1.4, b=0.3):
    x = np.empty((n, 2))
    x[0] = 0.1, 0.1
    for t in range(n - 1):
        x[t + 1] = 1 - a * x[t, 0] ** 2 + x[t, 1], b * x[t, 0]
    return x


def slope(curve, start, stop):
    return np.polyfit(curve.time[start:stop], curve.log_distance[start:stop], 1)[0]


@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("d", [1, 2, 4])
def test_every_radius_equals_its_slow_twin(metric, average, d):
    x = walk(d=d)
    radii = [0.8, 2.0, 4.5]
    curve = kantz(x, metric=metric, neighbors=WithinRadius(radii), theiler=5, horizon=9, average=average)
    for at, radius in enumerate(radii):
        expected, references, pairs = naive.kantz(x, radius, 5, 9, metric=metric, average=average)
        assert_allclose(curve.settings["curves"][at], expected, rtol=1e-12, atol=1e-13)
        assert curve.settings["references"][at] == references
        assert curve.settings["pairs"][at] == pairs


def test_a_share_of_the_states_equals_the_slow_twin():
    x = walk(192)
    among = {t for t in range(192) if t % 12 < 3}
    curve = kantz(x, neighbors=WithinRadius(4.5), theiler=5, horizon=9, share=0.25)
    expected, references, pairs = naive.kantz(x, 4.5, 5, 9, among=among)
    assert_allclose(curve.log_distance, expected, rtol=1e-12, atol=1e-13)
    assert (curve.n_references, curve.settings["pairs"][0]) == (references, pairs)
    assert 0 < references < 48


@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
def test_states_of_many_dimensions_are_compared_once_and_equal_the_twin(metric):
    x = walk(60, 530)  # more entries than are compared at a time
    x[20, 7] = np.nan
    distances = np.unique(naive.distances(np.delete(x, 20, axis=0), metric))
    radius = float(distances[[len(distances) // 2, len(distances) // 2 + 1]].mean())  # no distance is as long as this
    curve = kantz(x, metric=metric, neighbors=WithinRadius(radius), theiler=3, horizon=5)
    expected, references, _ = naive.kantz(x, radius, 3, 5, metric=metric)
    assert curve.settings["strategy"] == "matrix"
    assert "dimension 530" in curve.settings["strategy_why"]
    assert_allclose(curve.log_distance, expected, rtol=1e-12)
    assert curve.n_references == references


@pytest.fixture
def force(monkeypatch):
    """Make the search be the one of this name."""

    def use(name):
        choose = "trajtools.exponents.neighbor_methods.choose"
        monkeypatch.setattr(choose, lambda states, radius, *, paired: requested(states, name))

    return use


@pytest.mark.parametrize("search", ["brute", "sweep", "tree"])
@pytest.mark.parametrize("average", AVERAGES)
def test_every_search_equals_the_slow_twin(force, search, average):
    force(search)
    x = walk(90, 3)
    x[40] = np.nan
    curve = kantz(x, neighbors=WithinRadius(3.0), theiler=3, horizon=6, average=average)
    expected, references, _ = naive.kantz(x, 3.0, 3, 6, average=average)
    assert curve.settings["strategy"] == search
    assert_allclose(curve.log_distance, expected, rtol=1e-12)
    assert curve.n_references == references


@pytest.mark.parametrize("search", ["brute", "sweep", "tree"])
def test_a_radius_whose_square_overflows_takes_all_states(force, search):
    force(search)
    wide, all_states = (
        kantz(walk(), neighbors=WithinRadius(radius), theiler=5, horizon=9) for radius in (1e200, 1e100)
    )
    assert_array_equal(wide.log_distance, all_states.log_distance)
    assert_array_equal(wide.settings["pairs"], all_states.settings["pairs"])


@pytest.mark.parametrize("search", ["brute", "sweep", "tree"])
def test_at_most_so_many_neighbors_are_used_with_their_rings_weight(force, search):
    force(search)
    x = np.random.default_rng(2).normal(size=(120, 2))
    radii = [0.4, 0.9, 1.6]
    curve = kantz(x, neighbors=WithinRadius(radii, max_neighbors=10), theiler=2, horizon=3)
    states = prepare(x, metric="l2", theiler=2, horizon=3)
    usable = np.arange(117)
    if search == "sweep":
        usable = usable[np.argsort(x[:117, requested(states, "sweep").axis], kind="stable")]
    if search == "tree":
        times = build(states, requested(states, "tree")).times
        usable = times[times >= 0]
    expected = naive.capped_kantz(x, radii, theiler=2, horizon=3, cap=10, order=usable)
    assert_allclose(curve.settings["curves"], expected, rtol=1e-12)


@pytest.mark.parametrize("search", ["brute", "sweep"])
@pytest.mark.parametrize("average", ["log-mean", "rms"])
@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
def test_following_each_pair_once_changes_no_bit(force, search, average, metric):
    force(search)
    x = np.round(np.random.default_rng(4).normal(size=(900, 3)), 1)  # ties, and states that repeat
    x[[300, 304]] = np.nan
    options = {"metric": metric, "average": average, "theiler": 4, "horizon": 9}
    radii = [0.15, 0.35, 0.6]
    once = kantz(x, neighbors=WithinRadius(radii), **options)
    twice = kantz(x, neighbors=WithinRadius(radii, max_neighbors=899), **options)
    assert once.settings["left_out"] == twice.settings["left_out"]
    assert once.settings["left_out"]["zero_distance"] > 0
    for name in ("curves", "pairs", "references"):
        assert_array_equal(once.settings[name], twice.settings[name])


def test_sums_do_not_depend_on_the_parts():
    x = np.random.default_rng(6).uniform(size=(150, 2))
    states = prepare(x, metric="l2", theiler=2, horizon=6)
    index = build(states, requested(states, "sweep"))
    limits, count = np.array([0.01, 0.03]), len(index.leaves)

    def sums(edges):
        totals, sizes = np.zeros((8 * count + 1) * 2 * 8), np.zeros((8 * count + 1) * 2, dtype=np.int64)
        repeats, batch = np.zeros(len(x), dtype=bool), make_batch()
        found = index.leaves, index.times, index.axis, index.metric, 2, limits, states.lags(), 8, False
        for first, last in itertools.pairwise(edges):
            sum_pairs(*found, first, last, *batch, totals, sizes, repeats)
        return totals.reshape(-1, 2, 8)[:-1], sizes.reshape(-1, 2)[:-1]

    whole, numbers = sums([0, count])
    for edges in ([0, 1, 7, 8, count], range(count + 1)):
        again, sizes = sums(edges)
        assert_array_equal(again, whole)
        assert_array_equal(sizes, numbers)
    i = 40
    apart = np.linalg.norm(x[:144] - x[i], axis=1)
    inside = (apart <= 0.1) & (np.abs(np.arange(144) - i) >= 2)
    assert numbers[index.slots[i], 0] == inside.sum() > 0
    followed = [np.linalg.norm(x[i : i + 7] - x[j : j + 7], axis=1) for j in np.flatnonzero(inside)]
    assert_allclose(whole[index.slots[i], 0, :7], np.sum(followed, axis=0), rtol=1e-13)


def test_a_cap_that_nothing_reaches_changes_no_bit():
    x = walk(200, 2)
    rule = {"radius": [1.0, 2.0]}
    free = kantz(x, neighbors=WithinRadius(**rule), theiler=3, horizon=5)
    capped = kantz(x, neighbors=WithinRadius(**rule, max_neighbors=400), theiler=3, horizon=5)
    assert_array_equal(free.settings["curves"], capped.settings["curves"])


def test_a_cap_moves_the_curve_less_than_its_scatter():
    x = henon(6000)[100:]
    free = kantz(x, neighbors=WithinRadius([0.02, 0.05]), theiler=5, horizon=6)
    capped = kantz(x, neighbors=WithinRadius([0.02, 0.05], max_neighbors=20), theiler=5, horizon=6)
    assert_allclose(capped.settings["curves"], free.settings["curves"], atol=0.01)
    assert not np.array_equal(capped.settings["curves"], free.settings["curves"])


def test_states_with_few_neighbors_are_skipped_and_counted():
    x = walk()
    curve = kantz(x, neighbors=WithinRadius(2.0, min_neighbors=6), theiler=3, horizon=4)
    expected, references, _ = naive.kantz(x, 2.0, 3, 4, least=6)
    assert_allclose(curve.log_distance, expected, rtol=1e-12)
    assert curve.n_references == references
    assert curve.settings["left_out"]["without_neighbors"] == 66 - references > 0


def test_the_nearest_k_can_be_the_neighborhood():
    x = walk(60, 3)
    lists, _ = naive.nearest(x, 5, 4, 7)
    curve = kantz(x, neighbors=NearestK(5), theiler=4, horizon=7)
    usable = [i for i, found in enumerate(lists) if found]
    expected = [
        np.mean([np.log(np.mean([naive.distance(x[i + k], x[j + k]) for _, j in lists[i]])) for i in usable])
        for k in range(8)
    ]
    assert_allclose(curve.log_distance, expected, rtol=1e-12)
    assert curve.n_references == len(usable)


@pytest.mark.parametrize("average", AVERAGES)
def test_the_curve_from_distances_is_that_from_states(average):
    x = walk(60, 3)
    options = {"neighbors": WithinRadius([1.5, 3.0]), "theiler": 4, "horizon": 7, "average": average}
    given_ = kantz(naive.distances(x), metric="precomputed", **options)
    assert_allclose(given_.settings["curves"], kantz(x, **options).settings["curves"], rtol=1e-12)


def test_the_three_averages_are_ordered_as_jensen_says():
    x = walk(200)
    curves = [
        kantz(x, neighbors=WithinRadius(3.0), theiler=3, horizon=6, average=a).log_distance
        for a in ("mean-log", "log-mean", "rms")
    ]
    assert np.all(curves[0] < curves[1])
    assert np.all(curves[1] < curves[2])


def test_the_smallest_radius_that_serves_half_of_the_states_is_reported():
    x = walk(200)
    curve = kantz(x, neighbors=WithinRadius([1e-6, 1.5, 3.0]), theiler=3, horizon=4)
    assert curve.settings["radius"] == 1.5
    assert_array_equal(curve.log_distance, curve.settings["curves"][1])
    assert np.all(np.isnan(curve.settings["curves"][0]))


def test_logistic_map_gives_ln_2():
    # The radius is 1e-3 of the range: up to half the range there are nine doublings; skip one step, fit five.
    x = np.empty(20_000)
    x[0] = 0.3
    for t in range(19_999):
        x[t + 1] = 4 * x[t] * (1 - x[t])
    curve = kantz(x, neighbors=WithinRadius(1e-3), theiler=1, horizon=7)
    assert slope(curve, 0, 6) == pytest.approx(np.log(2), rel=0.05)
    assert curve.settings["strategy"] == "sweep"


@pytest.mark.parametrize("average", ["log-mean", "mean-log"])
def test_henon_map_full_state_gives_its_exponent(average):
    # 5 % at N = 5000. The root mean square weighs the fastest pairs more and comes out at 0.44 here.
    curve = kantz(henon(5100)[100:], neighbors=WithinRadius(0.01), theiler=10, horizon=8, average=average)
    assert slope(curve, 1, 6) == pytest.approx(0.41922, rel=0.05)


def test_the_automatic_radius_stands_in_the_result():
    curve = kantz(henon(3000)[100:], theiler=5, horizon=5)
    assert 0 < curve.settings["radius"] < 0.2
    # Half of the states have at least 4 neighbours at the median distance to the fourth.
    assert curve.settings["pairs"][0] / curve.n_references > 2


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("scale", [2.0**-30, 3.7])
def test_scale_shifts_the_curve_by_its_logarithm(average, scale):
    x = walk(300, 3)
    plain = kantz(x, neighbors=WithinRadius(2.0), theiler=5, horizon=9, average=average)
    scaled = kantz(x * scale, neighbors=WithinRadius(2.0 * scale), theiler=5, horizon=9, average=average)
    assert_allclose(scaled.log_distance, plain.log_distance + np.log(scale), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-170, 1e170])
def test_numbers_that_cannot_be_squared_are_no_obstacle(scale):
    x = walk(300, 3)
    plain = kantz(x, neighbors=WithinRadius(2.0), theiler=5, horizon=9)
    scaled = kantz(x * scale, neighbors=WithinRadius(2.0 * scale), theiler=5, horizon=9)
    assert_allclose(scaled.log_distance, plain.log_distance + np.log(scale), rtol=1e-10)
    with pytest.raises(DataError, match="multiply the states by a constant"):
        kantz(x * scale, neighbors=WithinRadius(scale), theiler=5, horizon=9, average="rms")


def test_rotation_and_translation_change_nothing_in_l2():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1500, 3))
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    plain = kantz(x, neighbors=WithinRadius(0.3, relative=True), theiler=5, horizon=5)
    turned = kantz(x @ q + 0.5, neighbors=WithinRadius(0.3, relative=True), theiler=5, horizon=5)
    assert_allclose(turned.log_distance, plain.log_distance, rtol=1e-9)


@pytest.mark.parametrize("average", AVERAGES)
def test_the_number_of_threads_changes_no_bit(average):
    import numba

    x = np.random.default_rng(5).normal(size=(3000, 3))
    before = numba.get_num_threads()
    options = {"neighbors": WithinRadius([0.2, 0.4], max_neighbors=30), "theiler": 9, "horizon": 7, "average": average}
    try:
        numba.set_num_threads(1)
        one = kantz(x, **options)
    finally:
        numba.set_num_threads(before)
    two = kantz(x, **options)
    assert_array_equal(one.settings["curves"], two.settings["curves"])
    assert_array_equal(one.distances, two.distances)


def test_thousands_of_factors_neither_overflow_nor_vanish():
    x = np.random.default_rng(1).normal(size=4000) * 1e-90
    for average in AVERAGES[:2]:
        curve = kantz(x, neighbors=WithinRadius(1e-91), theiler=1, horizon=2, average=average)
        assert np.all(np.abs(curve.log_distance - np.log(1e-90)) < 4)


@settings(max_examples=60, deadline=None)
@given(
    x=arrays(
        np.float64,
        st.tuples(st.integers(3, 30), st.integers(1, 3)),
        elements=st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-2, 2).map(float)),
    ),
    average=st.sampled_from(AVERAGES),
)
def test_no_numbers_crash_it(x, average):
    try:
        curve = kantz(x, neighbors=WithinRadius([1.0, 3.0]), theiler=1, horizon=1, average=average)
    except DataError:
        return
    assert not np.any(np.isinf(curve.log_distance))


def test_repeats_are_no_neighbors_and_are_counted():
    x = np.round(walk(80), 0)
    curve = kantz(x, neighbors=WithinRadius(2.0), theiler=2, horizon=3)
    expected, _, _ = naive.kantz(x, 2.0, 2, 3)
    assert_allclose(curve.log_distance, expected, rtol=1e-12)
    _, zeros = naive.nearest(x, 1, 2, 3)
    assert curve.settings["left_out"]["zero_distance"] == zeros > 0


def test_an_empty_ball_says_what_to_do():
    with pytest.raises(NoNeighborsError, match="enlarge the neighbourhood"):
        kantz(walk(), neighbors=WithinRadius(1e-9), theiler=1, horizon=2)
    with pytest.raises(NoNeighborsError, match="no radius can be chosen"):
        kantz(np.ones(50), theiler=1, horizon=2)


def test_an_unknown_average_is_refused_with_those_that_are():
    with pytest.raises(UnknownNameError, match="mean-log, log-mean, rms"):
        kantz(walk(), theiler=1, horizon=2, average="median")


@pytest.mark.parametrize("stride", [1, 3])
def test_balls_across_the_motion_equal_their_slow_twin(stride):
    x = walk(90, 3, seed=6)
    x[50] = np.nan
    curve = kantz(x, neighbors=WithinRadius(3.0), theiler=5, horizon=9, across=True, stride=stride)
    expected, references = naive.kantz_across(x, 3.0, 5, 9, stride)
    assert_allclose(curve.log_distance, expected, rtol=1e-11, atol=1e-12)
    assert curve.n_references == references
    with pytest.raises(DataError, match="caligiuri2023"):
        kantz(x, theiler=0, horizon=9, procedure="caligiuri2023", across=True)
