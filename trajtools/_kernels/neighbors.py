"""Nearest neighbours and balls outside a Theiler window, by any index. See trajtools.neighbors."""

# Arrays go one by one into what is called for every pair: numba copies a tuple of them at each call, which made the
# searches three times slower.
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools._kernels._jit import kernel
from trajtools._kernels.tree import (
    BUCKET,
    MATRIX,
    STACK,
    SWEEP,
    TREE,
    insert,
    offer_leaf,
    take_leaf,
    tree_ball,
    tree_nearest,
)
from trajtools.types import L2


@kernel(_nrt=False, forceinline=True)
def axis_gap(step: Any, metric: Any) -> Any:
    """Gap of two points that differ along one axis only."""
    return step * step if metric == L2 else abs(step)


@kernel(_nrt=False, forceinline=True)
def sweep_nearest(
    leaves: Any,
    times: Any,
    axis: Any,
    home: Any,
    lane: Any,
    metric: Any,
    theiler: Any,
    gaps: Any,
    best: Any,
    found: Any,
) -> Any:
    """Nearest points of one point among those sorted along an axis: outwards until the axis alone is too far."""
    n_leaves = leaves.shape[0]
    time = times[home, lane]
    last = best.shape[1] - 1
    v = leaves[home, axis, lane]
    leaf = home
    step = 1
    repeat = False
    while True:
        repeat |= offer_leaf(leaves, times, leaf, home, lane, metric, theiler, gaps, best, found)
        leaf += step
        if step > 0 and (leaf == n_leaves or axis_gap(leaves[leaf, axis, 0] - v, metric) > best[time, last]):
            leaf = home - 1
            step = -1
        if step < 0 and (leaf < 0 or axis_gap(v - leaves[leaf, axis, BUCKET - 1], metric) > best[time, last]):
            return repeat


@kernel(_nrt=False)
def matrix_nearest(matrix: Any, usable: Any, time: Any, theiler: Any, best: Any, found: Any) -> Any:
    """Nearest points of one state, read from the row of a distance matrix."""
    last = best.shape[1] - 1
    repeat = False
    for other in range(usable.shape[0]):
        gap = matrix[time, other]
        if not gap < best[time, last] or abs(other - time) < theiler or not usable[other]:
            continue
        if gap > 0.0:
            insert(best, found, time, gap, other)
        else:
            repeat = True
    return repeat


@kernel(nogil=True)
def nearest(index: Any, first: Any, last: Any, theiler: Any, best: Any, found: Any, repeats: Any) -> Any:
    """Fill `best` (gaps), `found` (times) and `repeats` for the points of the buckets (or matrix rows) first .. last.

    `best` comes filled with `FAR`, `found` with -1.
    """
    leaves, times, metric = index.leaves, index.times, index.metric
    boxes, flat, earliest = index.boxes, index.flat, index.earliest
    gaps = np.empty(BUCKET)
    stack = np.empty(STACK, dtype=np.int64)
    stack_gap = np.empty(STACK)
    if index.kind == MATRIX:
        for time in range(first, last):
            if index.usable[time]:
                repeats[time] = matrix_nearest(index.matrix, index.usable, time, theiler, best, found)
        return
    for home in range(first, last):
        for lane in range(BUCKET):
            time = times[home, lane]
            if time < 0:
                continue
            if index.kind == TREE:
                repeats[time] = tree_nearest(
                    leaves,
                    times,
                    boxes,
                    flat,
                    earliest,
                    home,
                    lane,
                    metric,
                    theiler,
                    gaps,
                    best,
                    found,
                    stack,
                    stack_gap,
                )
            elif index.kind == SWEEP:
                repeats[time] = sweep_nearest(leaves, times, index.axis, home, lane, metric, theiler, gaps, best, found)
            else:
                for leaf in range(leaves.shape[0]):
                    repeats[time] |= offer_leaf(leaves, times, leaf, home, lane, metric, theiler, gaps, best, found)


@kernel(_nrt=False)
def sweep_ball(
    leaves: Any,
    times: Any,
    axis: Any,
    home: Any,
    lane: Any,
    metric: Any,
    theiler: Any,
    limit: Any,
    gaps: Any,
    near: Any,
    near_gap: Any,
) -> Any:
    """All points within `limit` of one point among those sorted along an axis, in that order."""
    n_leaves = leaves.shape[0]
    v = leaves[home, axis, lane]
    first = home
    while first > 0 and axis_gap(v - leaves[first - 1, axis, BUCKET - 1], metric) <= limit:
        first -= 1
    count = 0
    repeat = False
    for leaf in range(first, n_leaves):
        if leaf > home and axis_gap(leaves[leaf, axis, 0] - v, metric) > limit:
            break
        count, again = take_leaf(leaves, times, leaf, home, lane, metric, theiler, limit, gaps, near, near_gap, count)
        repeat |= again
    return count, repeat


@kernel(_nrt=False)
def matrix_ball(matrix: Any, usable: Any, time: Any, theiler: Any, limit: Any, near: Any, near_gap: Any) -> Any:
    """All states within `limit` of one state, read from the row of a distance matrix."""
    count = 0
    repeat = False
    for other in range(usable.shape[0]):
        gap = matrix[time, other]
        if gap <= limit and abs(other - time) >= theiler and usable[other]:
            if gap > 0.0:
                near[count] = other
                near_gap[count] = gap
                count += 1
            else:
                repeat = True
    return count, repeat


@kernel(_nrt=False)
def ball(index: Any, time: Any, theiler: Any, limit: Any, gaps: Any, near: Any, near_gap: Any, stack: Any) -> Any:
    """All states within `limit` of one state, in the order of the index; their number, and whether one was at zero."""
    if index.kind == MATRIX:
        return matrix_ball(index.matrix, index.usable, time, theiler, limit, near, near_gap)
    leaves, times, metric = index.leaves, index.times, index.metric
    home = index.slots[time] // BUCKET
    lane = index.slots[time] % BUCKET
    if index.kind == TREE:
        return tree_ball(
            leaves, times, index.boxes, index.flat, home, lane, metric, theiler, limit, gaps, near, near_gap, stack
        )
    if index.kind == SWEEP:
        return sweep_ball(leaves, times, index.axis, home, lane, metric, theiler, limit, gaps, near, near_gap)
    count = 0
    repeat = False
    for leaf in range(leaves.shape[0]):
        count, again = take_leaf(leaves, times, leaf, home, lane, metric, theiler, limit, gaps, near, near_gap, count)
        repeat |= again
    return count, repeat
