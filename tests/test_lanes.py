"""Kernels that handle eight numbers at once, against NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from trajtools._kernels import lanes, neighbors
from trajtools.types import L1, L2, L2_SCALED, LINF

METRICS = {L1: 1, L2: 2, LINF: np.inf}


def gaps_of(steps, metric, axis):
    """Distances, squared for L2, of differences along an axis."""
    size = np.abs(steps)
    if metric == LINF:
        return size.max(axis=axis)
    return (size**2 if metric == L2 else size).sum(axis=axis)


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
@pytest.mark.parametrize("metric", METRICS)
def test_encounters_of_two_buckets(metric, dimension):
    rng = np.random.default_rng(dimension)
    buckets = rng.integers(0, 3, (2, dimension, 8)).astype(np.float64)  # many ties, and some copies
    times = rng.permutation(16).reshape(2, 8)
    buckets[1, :, 5:], times[1, 5:] = np.inf, -1  # empty lanes
    for home, other in ((0, 1), (1, 0), (0, 0)):
        gaps = np.full(80, -1.0)
        word = int(lanes.encounters(gaps, 8, buckets, times, home, other, 3, 2.0, metric))
        with np.errstate(invalid="ignore"):
            expected = gaps_of(buckets[other][:, :, None] - buckets[home][:, None], metric, 0)
        assert_array_equal(gaps[8:72].reshape(8, 8), expected)
        assert_array_equal(np.delete(gaps, range(8, 72)), -1)
        apart = np.abs(times[other][:, None] - times[home]) >= 3
        bits = np.array([[word >> (8 * k + q) & 1 for q in range(8)] for k in range(8)])
        assert_array_equal(bits, apart & (expected <= 2))


@pytest.mark.parametrize("metric", METRICS)
def test_gaps_to_a_bucket_and_to_boxes(metric):
    rng = np.random.default_rng(1)
    buckets, point = rng.normal(size=(3, 4, 8)), rng.normal(size=4)
    gaps = np.full(24, -1.0)
    lanes.bucket_gaps(gaps, 8, buckets, 2, point, metric)
    assert_allclose(gaps[8:16], gaps_of(buckets[2] - point[:, None], metric, 0), rtol=1e-14)
    assert_array_equal(np.delete(gaps, range(8, 16)), -1)
    boxes = np.sort(rng.normal(size=(2, 4, 2, 8)), axis=2)
    boxes[1, :, 0, 7], boxes[1, :, 1, 7] = np.inf, -np.inf  # a lane without a node
    boxes[1, :, 0, 0], boxes[1, :, 1, 0] = point - 1, point + 1  # the point is inside
    lanes.box_gaps(gaps, 0, boxes, 1, point, metric)
    expected = np.array([gaps_of(point - np.clip(point, *boxes[1, :, :, k].T), metric, 0) for k in range(7)])
    assert_allclose(gaps[:7], expected, rtol=1e-14)
    assert gaps[0] == 0
    assert gaps[7] == np.inf


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
@pytest.mark.parametrize("metric", [*METRICS, L2_SCALED])
def test_eight_searches_at_once(metric, dimension, k):
    rng = np.random.default_rng(dimension)
    buckets = rng.integers(0, 4, (5, dimension, 8)).astype(np.float64)  # many ties, and some copies
    times = rng.permutation(40).reshape(5, 8)
    buckets[4, :, 5:], times[4, 5:] = np.inf, -1  # empty lanes
    own, gaps = times[0], np.empty(64)
    best, near = np.full((k, 8), 1e308), np.full((k, 8), -1)
    zeros = 0
    for other in range(5):
        if lanes.meet(gaps, buckets, 0, other, best, metric):
            zeros |= int(lanes.keep_nearest(gaps, times, other, own, 3, best, near))
    for q in range(8):
        step = np.abs(buckets - buckets[0, :, q][None, :, None])
        gap = np.sqrt((step**2).sum(axis=1)) if metric == L2_SCALED else gaps_of(step, metric, 1)
        far = np.abs(times - own[q]) >= 3
        assert zeros >> q & 1 == np.any(gap[far] == 0)
        expected = sorted(zip(gap[far & (gap > 0)], times[far & (gap > 0)], strict=True))[:k]
        found = [(gap, time) for gap, time in zip(best[:, q], near[:, q], strict=True) if time >= 0]
        assert [time for _, time in found] == [time for _, time in expected]
        assert_allclose([gap for gap, _ in found], [gap for gap, _ in expected], rtol=1e-14)


def test_nothing_near_enough_is_not_met():
    buckets = np.stack([np.zeros((2, 8)), np.full((2, 8), 3.0)])
    best = np.full((1, 8), 17.9)
    assert lanes.meet(np.empty(64), buckets, 0, 1, best, L2) == 0
    best[0, 6] = 18.0
    assert lanes.meet(np.empty(64), buckets, 0, 1, best, L2) == 1 << 6


@pytest.mark.parametrize("metric", METRICS)
def test_reach_along_an_axis(metric):
    buckets = np.zeros((2, 3, 8))
    buckets[1, 2] = np.arange(8.0)
    best = np.full((1, 8), 4.0 if metric == L2 else 2.0)
    assert int(lanes.reached(buckets, 1, 2, 6.0, 1.0, metric, best)) == 0b11110000  # within 2 below, or beyond
    assert int(lanes.reached(buckets, 1, 2, 1.0, -1.0, metric, best)) == 0b00001111


def test_bits_of_comparisons():
    gaps = np.array([9.0, 0.5, 2.0, np.inf, np.nan, 1.0, 0.0, 3.0, 1.5])
    word = int(lanes.within(gaps, 1, 1.5))
    assert [q for q in range(8) if word >> q & 1] == [0, 4, 5, 7]
    times = np.array([np.arange(8), [10, 3, 4, 5, 6, 7, 8, -1]])
    word = int(lanes.apart(times, 1, 5, 2))
    assert [q for q in range(8) if word >> q & 1] == [0, 1, 5, 6, 7]


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
@pytest.mark.parametrize("metric", METRICS)
def test_distances_along_two_paths(metric, dimension):
    rng = np.random.default_rng(dimension)
    states = rng.normal(size=(dimension, 40))
    gaps = gaps_of(states[:, 3:19] - states[:, 20:36], metric, 0)
    distances = np.sqrt(gaps) if metric == L2 else gaps
    for squared, expected in ((False, distances), (True, distances**2)):
        total = np.ones(16)
        lanes.add_distances(total, 12, states, 3, 20, metric, squared)
        assert_allclose(total[:12], 1 + expected[:12], rtol=1e-14)
        assert_array_equal(total[12:], 1)
        both = np.ones(40)
        lanes.add_to_both(both, 3, 20, 12, states, 3, 20, metric, squared)
        assert_array_equal(both[3:15], total[:12])
        assert_array_equal(both[20:32], total[:12])
        assert_array_equal(np.delete(both, [*range(3, 15), *range(20, 32)]), 1)
    old, new = rng.uniform(1, 2, 16), np.empty(16)
    assert lanes.multiply_distances(old, new, states, 3, 20, metric) == 0
    assert_allclose(new, old * gaps, rtol=1e-14)


@pytest.mark.parametrize("odd", [0.0, np.nan, np.inf, 1e-170, 1e170])
def test_products_out_of_range_are_reported(odd):
    old, new, states = np.ones(8), np.empty(8), np.ones((1, 16))
    states[0, 8:] = 0.0
    states[0, 5] = odd
    assert lanes.multiply_distances(old, new, states, 0, 8, L1) != 0
    states[0, 5] = 1.0
    assert lanes.multiply_distances(old, new, states, 0, 8, L1) == 0
    old[5] = 1e-160
    assert lanes.multiply_distances(old, new, states, 0, 8, L1) != 0


def test_order_by_bins():
    rng = np.random.default_rng(5)
    for values in (rng.normal(size=1000), rng.integers(0, 300, 1000) / 7, np.sin(np.arange(999.0)), np.array([2.0])):
        assert_array_equal(neighbors.sort_order(values), np.argsort(values, kind="stable"))
    assert not len(neighbors.sort_order(np.append(rng.normal(size=999), 1e9)))  # all but one in a single bin
    assert not len(neighbors.sort_order(np.full(1000, 3.0)))
    assert not len(neighbors.sort_order(np.arange(1000.0) * 5e-324))
    assert_array_equal(neighbors.sort_order(np.array([5e-324, 0.0])), [1, 0])


@pytest.mark.parametrize("metric", METRICS)
def test_candidates_of_a_sweep(metric):
    rng = np.random.default_rng(6)
    points, times = rng.normal(size=(200, 2)), np.arange(200)
    points[50] = points[10]
    asked = np.array([10, 60, 150])
    for radius in (0.4, np.inf):
        expected, both, inside = np.zeros(2), np.zeros(2), 0
        for q in asked:
            steps = points - points[q]
            distance = np.linalg.norm(steps, ord=METRICS[metric], axis=1)
            inside += np.count_nonzero((distance > 0) & (distance <= radius))
            far = (np.abs(times - q) >= 5) & (distance > 0)
            reach = min(radius, distance[far].min())
            close = np.abs(steps) <= (reach if radius == np.inf else radius)
            expected += np.count_nonzero(close, axis=0)
            both += np.count_nonzero(close & close[:, 1:], axis=0)
        counts, pairs, count, axis = neighbors.count_candidates(points, times, asked, metric, 5, radius, 1, 1)
        assert_allclose(counts, expected / 3)
        assert_allclose(pairs, both / 3)
        assert axis == 1
        assert neighbors.count_candidates(points, times, asked, metric, 5, radius, 1, -1)[3] == np.argmin(expected)
        if radius < np.inf:
            assert count == pytest.approx(inside / 3)
