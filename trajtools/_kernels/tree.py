"""Searches in a k-d tree of buckets. See trajtools._kernels.buckets."""

# Arrays go one by one into what is called for every pair: numba copies a tuple of them at each call, which made the
# searches three times slower.
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools._kernels._jit import kernel
from trajtools._kernels.buckets import BUCKET, FAR, L1, L2, L2_SCALED


@kernel(_nrt=False)
def lengthen(gaps: Any, leaves: Any, leaf: Any, home: Any, lane: Any) -> Any:
    """From the largest difference to the Euclidean distance, without squaring anything above one."""
    for k in range(BUCKET):
        if 0.0 < gaps[k] <= FAR:
            total = 0.0
            for c in range(leaves.shape[1]):
                step = (leaves[leaf, c, k] - leaves[home, c, lane]) / gaps[k]
                total += step * step
            gaps[k] *= np.sqrt(total)


@kernel(_nrt=False, forceinline=True)
def leaf_gaps(gaps: Any, leaves: Any, leaf: Any, home: Any, lane: Any, metric: Any) -> Any:
    """Gaps between one point (a lane of the leaf `home`) and all lanes of a leaf."""
    for k in range(BUCKET):
        gaps[k] = 0.0
    if metric == L2:
        for c in range(leaves.shape[1]):
            v = leaves[home, c, lane]
            for k in range(BUCKET):
                step = leaves[leaf, c, k] - v
                gaps[k] += step * step
    elif metric == L1:
        for c in range(leaves.shape[1]):
            v = leaves[home, c, lane]
            for k in range(BUCKET):
                gaps[k] += abs(leaves[leaf, c, k] - v)
    else:
        for c in range(leaves.shape[1]):
            v = leaves[home, c, lane]
            for k in range(BUCKET):
                step = abs(leaves[leaf, c, k] - v)
                gaps[k] = step if step > gaps[k] else gaps[k]
        if metric == L2_SCALED:
            lengthen(gaps, leaves, leaf, home, lane)


@kernel(_nrt=False, forceinline=True)
def box_gap(boxes: Any, node: Any, leaves: Any, home: Any, lane: Any, metric: Any) -> Any:
    """Smallest gap that a point of the node's box can have; rounding keeps it below every real one."""
    total = 0.0
    for c in range(boxes.shape[2]):
        v = leaves[home, c, lane]
        below = boxes[node, 0, c] - v
        above = v - boxes[node, 1, c]
        step = below if below > above else above
        step = step if step > 0.0 else 0.0
        if metric == L2:
            total += step * step
        elif metric == L1:
            total += step
        else:
            total = step if step > total else total
    return total


@kernel(_nrt=False)
def insert(best: Any, found: Any, row: Any, gap: Any, other: Any) -> Any:
    """Put a point into a sorted row of nearest ones; equal gaps go to the earlier time."""
    at = best.shape[1] - 1
    if gap == best[row, at] and other > found[row, at]:
        return
    while at > 0 and (best[row, at - 1] > gap or (best[row, at - 1] == gap and found[row, at - 1] > other)):
        best[row, at] = best[row, at - 1]
        found[row, at] = found[row, at - 1]
        at -= 1
    best[row, at] = gap
    found[row, at] = other


@kernel(_nrt=False, forceinline=True)
def offer_leaf(
    leaves: Any,
    times: Any,
    leaf: Any,
    home: Any,
    lane: Any,
    metric: Any,
    theiler: Any,
    gaps: Any,
    best: Any,
    found: Any,
) -> Any:
    """Offer the points of a leaf to the list of nearest ones; True if one was met at distance zero."""
    leaf_gaps(gaps, leaves, leaf, home, lane, metric)
    time = times[home, lane]
    last = best.shape[1] - 1
    worst = best[time, last]
    hit = False
    for k in range(BUCKET):
        hit |= gaps[k] <= worst
    repeat = False
    if hit:
        for k in range(BUCKET):
            if gaps[k] <= best[time, last] and abs(times[leaf, k] - time) >= theiler:
                if gaps[k] > 0.0:
                    insert(best, found, time, gaps[k], times[leaf, k])
                else:
                    repeat = True
    return repeat


@kernel(_nrt=False)
def tree_nearest(
    leaves: Any,
    times: Any,
    boxes: Any,
    flat: Any,
    earliest: Any,
    home: Any,
    lane: Any,
    metric: Any,
    theiler: Any,
    gaps: Any,
    best: Any,
    found: Any,
    stack: Any,
    stack_gap: Any,
) -> Any:
    """Nearest points of one point: its own leaf, then the siblings on the way up; the nearer or earlier child first."""
    n_leaves = leaves.shape[0]
    time = times[home, lane]
    last = best.shape[1] - 1
    depth = 0
    node = 1
    bit = n_leaves >> 1
    while bit > 0:
        node = 2 * node + ((home & bit) > 0)
        stack[depth] = node ^ 1
        stack_gap[depth] = box_gap(boxes, node ^ 1, leaves, home, lane, metric)
        depth += 1
        bit >>= 1
    stack[depth] = node
    stack_gap[depth] = 0.0
    depth += 1
    repeat = False
    while depth > 0:
        depth -= 1
        node = stack[depth]
        gap = stack_gap[depth]
        # Of points at the same gap the earliest counts; without this, copies of a few points would all be visited.
        if gap > best[time, last] or (gap == best[time, last] and earliest[node] > found[time, last]):
            continue
        if gap == 0.0 and flat[node]:
            repeat = True
        elif node >= n_leaves:
            repeat |= offer_leaf(leaves, times, node - n_leaves, home, lane, metric, theiler, gaps, best, found)
        else:
            for side in range(2):
                stack[depth + side] = 2 * node + side
                stack_gap[depth + side] = box_gap(boxes, 2 * node + side, leaves, home, lane, metric)
            left = 2 * node
            if stack_gap[depth] < stack_gap[depth + 1] or (
                stack_gap[depth] == stack_gap[depth + 1] and earliest[left] < earliest[left + 1]
            ):
                stack[depth], stack[depth + 1] = stack[depth + 1], stack[depth]
                stack_gap[depth], stack_gap[depth + 1] = stack_gap[depth + 1], stack_gap[depth]
            depth += 2
    return repeat


@kernel(_nrt=False, forceinline=True)
def take_leaf(
    leaves: Any,
    times: Any,
    leaf: Any,
    home: Any,
    lane: Any,
    metric: Any,
    theiler: Any,
    limit: Any,
    gaps: Any,
    near: Any,
    near_gap: Any,
    count: Any,
) -> Any:
    """Append the points of a leaf that lie within `limit`; return the new count, and whether one was at zero."""
    leaf_gaps(gaps, leaves, leaf, home, lane, metric)
    time = times[home, lane]
    repeat = False
    for k in range(BUCKET):
        apart = (gaps[k] <= limit) & (abs(times[leaf, k] - time) >= theiler)
        near[count] = times[leaf, k]
        near_gap[count] = gaps[k]
        repeat |= apart & (gaps[k] == 0.0)
        count += apart & (gaps[k] > 0.0)
    return count, repeat


@kernel(_nrt=False)
def tree_ball(
    leaves: Any,
    times: Any,
    boxes: Any,
    flat: Any,
    home: Any,
    lane: Any,
    metric: Any,
    theiler: Any,
    limit: Any,
    gaps: Any,
    near: Any,
    near_gap: Any,
    stack: Any,
) -> Any:
    """All points within `limit` of one point, in the order of the leaves."""
    n_leaves = leaves.shape[0]
    count = 0
    repeat = False
    stack[0] = 1
    depth = 1
    while depth > 0:
        depth -= 1
        node = stack[depth]
        gap = box_gap(boxes, node, leaves, home, lane, metric)
        if gap > limit:
            continue
        if gap == 0.0 and flat[node]:
            repeat = True
        elif node >= n_leaves:
            count, again = take_leaf(
                leaves, times, node - n_leaves, home, lane, metric, theiler, limit, gaps, near, near_gap, count
            )
            repeat |= again
        else:
            stack[depth] = 2 * node + 1
            stack[depth + 1] = 2 * node
            depth += 2
    return count, repeat
