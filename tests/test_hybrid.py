import naive_series
import naive_wolf as naive
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from trajtools.errors import DataError, NoNeighborsError, UnknownNameError
from trajtools.exponents.wolf import hybrid
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.reasons import codes
from trajtools.statistics import AVERAGES
from trajtools.systems import henon, logistic, lorenz


def walk(n=150, d=2, seed=0):
    return np.cumsum(np.random.default_rng(seed).normal(size=(n, d)), axis=0)


@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
@pytest.mark.parametrize("average", AVERAGES)
def test_blocks_equal_those_of_the_slow_twin(metric, average):
    x = walk()
    x[60] = np.nan
    options = {"limit": 4.0, "turn": 0.7, "metric": metric, "average": average}
    found = hybrid(x, neighbors=NearestK(6), theiler=6, horizon=4, **options)
    expected = naive.hybrid(x, 6, 6, 4, **options)
    assert found.start.tolist() == [b[0] for b in expected]
    assert found.settings["sizes"].tolist() == [b[2] for b in expected]
    assert found.settings["kept"].tolist() == [b[3] for b in expected]
    assert_allclose(found.distances, [b[1] for b in expected], rtol=1e-12)
    assert 0 < found.settings["n_kept"] < len(expected)


def test_neighborhoods_are_replaced_for_both_reasons():
    found = hybrid(walk(600), neighbors=NearestK(6), theiler=6, horizon=4, limit=4.0, turn=0.3).settings
    assert found["n_too_far"] > 0
    assert found["n_turned"] > 0
    assert found["n_unaligned"] > 0


def test_a_radius_that_holds_the_nearest_six_gives_the_same_blocks():
    x = np.random.default_rng(0).normal(size=(100, 2))
    capped = WithinRadius(100.0, max_neighbors=6)
    options = {"theiler": 3, "horizon": 2, "limit": 0.5}
    assert_array_equal(
        hybrid(x, neighbors=capped, **options).distances, hybrid(x, neighbors=NearestK(6), **options).distances
    )


def test_balls_with_too_few_members_are_skipped_and_counted():
    x = walk()
    found = hybrid(x, neighbors=WithinRadius(1.0, min_neighbors=3), theiler=3, horizon=2, limit=1e-9)
    left_out = found.settings["left_out"]
    assert left_out["blocks_without_neighbors"] > 0
    assert left_out["blocks_without_neighbors"] + found.n_references == 74
    assert np.all(found.settings["sizes"] >= 3)


@pytest.mark.parametrize("rule", [NearestK(5), WithinRadius(2.0), WithinRadius("auto")])
def test_blocks_from_distances_are_those_from_states(rule):
    x = walk(d=3)
    options = {"neighbors": rule, "theiler": 4, "horizon": 3, "limit": 2.0}
    from_states = hybrid(x, **options)
    from_distances = hybrid(naive_series.distances(x), metric="precomputed", **options)
    assert_allclose(from_distances.distances, from_states.distances, rtol=1e-12)


@pytest.mark.parametrize("rule", [None, NearestK(8), WithinRadius(0.01)])
@pytest.mark.parametrize("seed", [0, 1])
def test_henon_map_gives_its_exponent(rule, seed):
    # 5 % at N = 5000: the scatter is 1 %, the mean inside a ball is led by its fastest members and lies 2 % high.
    x = henon().trajectory(5000, rng=np.random.default_rng(seed))
    assert hybrid(x, neighbors=rule, theiler=10, horizon=3).settings["rate"] == pytest.approx(0.4192, rel=0.05)


def test_lorenz_flow_gives_its_exponent():
    # 15 %: as wolf, and the members are less well aligned than the best one.
    paths = lorenz().trajectories(3, 20_000, rng=np.random.default_rng(0))
    rates = [hybrid(x, theiler=100, horizon=20, dt=0.01).settings["rate"] for x in paths]
    assert np.mean(rates) == pytest.approx(0.9057, rel=0.15)


def test_networks_of_a_dictionary_give_the_exponent_of_the_map():
    x = logistic(4.0).trajectory(3000, rng=np.random.default_rng(0))[:, 0]
    index = np.minimum((x * 1000).astype(int), 999).astype(float)
    found = hybrid(index, metric="l1", neighbors=NearestK(4), theiler=1, horizon=4)
    assert found.settings["rate"] == pytest.approx(np.log(2), abs=0.05)


def test_distances_of_graphs_are_the_part_of_the_links_that_differ():
    rng = np.random.default_rng(0)
    links = rng.integers(0, 2, size=(120, 45))
    options = {"neighbors": WithinRadius(0.5, relative=True), "theiler": 1, "horizon": 2}
    with pytest.raises(NoNeighborsError):
        hybrid(links, metric="graph-l1", nodes=10, **options)
    found = hybrid(links, metric="graph-l1", nodes=10, neighbors=WithinRadius(0.45), theiler=1, horizon=2)
    assert np.all(found.distances[:, 0] <= 0.45)
    assert np.all(found.distances <= 1)
    plain = hybrid(links, metric="l1", neighbors=WithinRadius(0.45 * 45), theiler=1, horizon=2)
    assert_allclose(found.distances, plain.distances / 45, rtol=1e-12)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("scale", [2.0**-30, 3.7, 1e-170, 1e170])
def test_scale_shifts_the_curve_by_its_logarithm(average, scale):
    x = walk(300, 3)
    plain = hybrid(x, theiler=5, horizon=4, average=average)
    scaled = hybrid(x * scale, theiler=5, horizon=4, average=average)
    assert_allclose(scaled.log_distance, plain.log_distance + np.log(scale), rtol=1e-9)


def descent(theta, curvatures, eta, steps):
    """Gradient descent on a quadratic."""
    path = [theta]
    for _ in range(steps):
        path.append(path[-1] - eta * curvatures * path[-1])
    return np.array(path)


CURVATURES = np.linspace(-0.5, 3.0, 9)


def cloud(seed=0, copies=24, steps=5, eta=0.01):
    rng = np.random.default_rng(seed)
    start = rng.random(9)
    return descent(start, CURVATURES, eta, steps), [
        descent(start + rng.normal(0, 1e-4, 9), CURVATURES, eta, steps) for _ in range(copies)
    ]


def test_the_published_cloud_gives_its_two_numbers_by_hand():
    reference, copies = cloud()
    found = hybrid((reference, copies), procedure="mittra2024").settings
    d = [sum(np.sqrt(np.sum((c[e] - reference[e]) ** 2)) for c in copies) / 25 for e in range(6)]
    assert_allclose(found["cloud"][0], d, rtol=1e-10)
    assert found["L1"][0] == pytest.approx(np.mean([np.log(d[e] / d[1]) for e in range(2, 6)]), rel=1e-9)
    assert found["L2"][0] == pytest.approx(np.mean([np.log(d[e] / d[e - 1]) for e in range(2, 6)]), rel=1e-9)


def test_the_published_cloud_measures_the_mean_curvature_and_says_so():
    pairs = [cloud(seed) for seed in range(8)]
    found = hybrid(pairs, procedure="mittra2024")
    # The norm of an isotropic cloud shrinks with the mean of the curvatures; the largest exponent is positive.
    assert found.settings["L2"].mean() == pytest.approx(-0.01 * CURVATURES.mean(), rel=0.1)
    assert -0.01 * CURVATURES.min() > 0
    assert "published-bias" in codes(found.warnings)
    assert len(found.settings["L1"]) == 8
    assert found.n_references == 8
    assert found.method == "hybrid"


def test_the_published_sum_stops_where_the_cloud_runs_away():
    reference = np.zeros((6, 1))
    copy = np.array([[1e-3], [1.0], [10.0], [1e3], [1e12], [np.nan]])
    found = hybrid((reference, [copy]), procedure="mittra2024").settings
    assert found["L1"][0] == pytest.approx(np.log([10.0, 1e3]).mean())
    assert found["L2"][0] == pytest.approx(np.log([10.0, 100.0]).mean())


def test_a_frozen_cloud_is_called_dead():
    found = hybrid((np.zeros((5, 2)), [np.ones((5, 2))]), procedure="mittra2024")
    assert found.settings["L1"][0] == 0
    assert "frozen-clouds" in codes(found.warnings)


def test_the_published_cloud_refuses_what_it_does_not_know():
    with pytest.raises(DataError, match="has no neighbour search"):
        hybrid(cloud(), procedure="mittra2024", theiler=3)
    with pytest.raises(DataError, match="2 to 5 steps"):
        hybrid(cloud(), procedure="mittra2024", horizon=9)
    with pytest.raises(DataError, match="no twins"):
        hybrid(walk(), procedure="mittra2024")


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
        found = hybrid(x, theiler=1, horizon=1, average=average)
    except DataError:
        return
    assert not np.any(np.isinf(found.log_distance))


def test_refusals_say_the_way_out():
    x = walk()
    with pytest.raises(DataError, match="needs horizon="):
        hybrid(x, theiler=3)
    with pytest.raises(DataError, match="got 0"):
        hybrid(x, theiler=3, horizon=2, turn=0)
    with pytest.raises(DataError, match="one radius, not 2"):
        hybrid(x, theiler=3, horizon=2, neighbors=WithinRadius([1.0, 2.0]))
    with pytest.raises(UnknownNameError, match="mittra2024"):
        hybrid(x, theiler=3, horizon=2, procedure="kantz")
    with pytest.raises(UnknownNameError, match="mean-log, log-mean, rms"):
        hybrid(x, theiler=3, horizon=2, average="median")
    with pytest.raises(NoNeighborsError, match="widen the neighbourhood"):
        hybrid(x, theiler=3, horizon=2, neighbors=WithinRadius(1e-9))
    with pytest.raises(NoNeighborsError, match="half of the states are equal"):
        hybrid(np.ones(50), theiler=1, horizon=2)


def test_a_lag_along_the_orbit_is_no_growth_across_the_motion():
    # The turns of a helix are 2 pi c apart; its samples meet with a lag, which whole distances count.
    t, c = 0.1 * np.arange(1500), 1e-3
    helix = np.stack([np.cos(t), np.sin(t), c * t], axis=1)
    options = {"neighbors": NearestK(1), "theiler": 20, "horizon": 10}
    whole, across = (hybrid(helix, **options, across=each) for each in (False, True))
    # The direction at the first state of the record is one-sided.
    assert_allclose(across.distances[1:], 2 * np.pi * c, rtol=1e-3)
    assert np.all(whole.distances > 2 * 2 * np.pi * c)
    assert (whole.settings["across"], across.settings["across"]) == (False, True)
