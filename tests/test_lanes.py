"""Kernels that handle eight numbers at once, against NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from trajtools._kernels import lanes, neighbors
from trajtools.types import L1, L2, LINF

METRICS = {L1: 1, L2: 2, LINF: np.inf}


def gaps_of(steps, metric, axis):
    """Distances, squared for L2, of differences along an axis."""
    size = np.abs(steps)
    if metric == LINF:
        return size.max(axis=axis)
    return (size**2 if metric == L2 else size).sum(axis=axis)


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


def order_by_bins(values):
    """Order of the values, None where they are too uneven."""
    place, order = np.empty((2, len(values)), dtype=np.int64)
    starts = np.zeros(max(len(values) // neighbors.PER_BIN, 1) + 1, dtype=np.int64)
    return order if neighbors.sort_order(values, starts, place, order) else None


def test_order_by_bins():
    rng = np.random.default_rng(5)
    for values in (rng.normal(size=1000), rng.integers(0, 300, 1000) / 7, np.sin(np.arange(999.0)), np.array([2.0])):
        assert_array_equal(order_by_bins(values), np.argsort(values, kind="stable"))
    assert order_by_bins(np.append(rng.normal(size=999), 1e9)) is None  # all but one in a single bin
    assert order_by_bins(np.full(1000, 3.0)) is None
    assert order_by_bins(np.arange(1000.0) * 5e-324) is None
    assert_array_equal(order_by_bins(np.array([5e-324, 0.0])), [1, 0])


@pytest.mark.parametrize("metric", METRICS)
def test_candidates_of_a_sweep(metric):
    rng = np.random.default_rng(6)
    points, times = rng.normal(size=(200, 2)), np.arange(200)
    points[50] = points[10]
    asked = np.array([10, 60, 150])
    for radius in (0.4, np.inf):
        expected, inside = np.zeros(2), 0
        for q in asked:
            steps = points - points[q]
            distance = np.linalg.norm(steps, ord=METRICS[metric], axis=1)
            inside += np.count_nonzero((distance > 0) & (distance <= radius))
            far = (np.abs(times - q) >= 5) & (distance > 0)
            reach = min(radius, distance[far].min())
            expected += np.count_nonzero(np.abs(steps) <= (reach if radius == np.inf else radius), axis=0)
        columns, counts = points.T.copy(), np.zeros(2, dtype=np.int64)
        count = neighbors.count_candidates(
            columns, times, points[asked], asked, metric, 5, radius, np.empty(200), counts
        )
        assert_array_equal(counts, expected)
        if radius < np.inf:
            assert count == inside
