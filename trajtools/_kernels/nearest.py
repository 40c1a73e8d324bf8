"""The nearest neighbours of all states. See trajtools.neighbors.

A sweep searches for the eight points of a bucket at once: each lane holds one of them and its list of nearest ones, and
the points of other buckets are broadcast to all lanes. So each bucket is visited once for eight searches, and one that
holds nothing near enough costs one comparison. A tree is searched point by point: in many dimensions, where it serves,
the points of a bucket have few other buckets in common.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from trajtools._kernels._jit import helper, kernel, section
from trajtools._kernels.lanes import LANES, apart, box_gaps, keep_nearest, lowest, meet, reached, within
from trajtools._kernels.neighbors import BOXES, BUCKET, FAR, leaf_gaps, load_point
from trajtools.types import L1, L2, L2_SCALED

# Arrays are passed one by one to functions called for every bucket: numba copies a tuple of them at each call.
# ruff: noqa: PLR0917


class Block(NamedTuple):
    """Workspace of a sweep: the times of eight points, their lists of nearest ones (k, 8), and gaps."""

    own: np.ndarray
    best: np.ndarray
    near: np.ndarray
    gaps: np.ndarray


def make_block(k: int) -> Block:
    """Allocate the workspace of one thread, outside the kernels to save compilation."""
    return Block(
        own=np.empty(LANES, dtype=np.int64),
        best=np.empty((k, LANES)),
        near=np.empty((k, LANES), dtype=np.int64),
        gaps=np.empty(LANES * BUCKET),
    )


@kernel(nogil=True, _nrt=False)
def sweep_nearest(
    leaves: Any,
    times: Any,
    axis: Any,
    metric: Any,
    strips: Any,
    first: Any,
    last: Any,
    theiler: Any,
    block: Any,
    neighbors: Any,
    repeats: Any,
) -> Any:
    """Fill `neighbors` (times) and `repeats` for the points of the buckets first .. last.

    In each strip outwards from the points along the axis of the sweep, until the axis alone exceeds all gaps; then on
    to the strips beside. Without an axis (brute force), every bucket is visited. `neighbors` is initially -1, `repeats`
    false.
    """
    across, edges, lows, highs, fronts, backs = strips
    own, found, near, gaps = block
    strip_of_home = 0
    for home in range(first, last):
        while home >= edges[strip_of_home + 1]:
            strip_of_home += 1
        _open_block(times, home, own, found, near)
        zeros = np.uint64(0)
        strip, upwards = strip_of_home, True
        while True:
            begin, end = edges[strip], edges[strip + 1]
            start = home if strip == strip_of_home else _first_beside(backs, begin, end, fronts[home])
            leaf, step = start, 1
            while True:
                if step > 0 and (
                    leaf == end or (axis >= 0 and reached(leaves, home, axis, fronts[leaf], 1.0, metric, found) == 0)
                ):
                    leaf, step = start - 1, -1
                if step < 0 and (
                    leaf < begin or (axis >= 0 and reached(leaves, home, axis, backs[leaf], -1.0, metric, found) == 0)
                ):
                    break
                if meet(gaps, leaves, home, leaf, found, metric) != 0:
                    zeros |= keep_nearest(gaps, times, leaf, own, theiler, found, near)
                leaf += step
            if upwards:
                strip += 1
                if strip == lows.shape[0] or reached(leaves, home, across, lows[strip], 1.0, metric, found) == 0:
                    strip, upwards = strip_of_home, False
            if not upwards:
                strip -= 1
                if strip < 0 or reached(leaves, home, across, highs[strip], -1.0, metric, found) == 0:
                    break
        _close_block(own, near, zeros, neighbors, repeats)


@section()
def _open_block(times: Any, home: Any, own: Any, best: Any, near: Any) -> Any:
    """Begin the lists of the points of a bucket; nothing is near an empty lane."""
    for q in range(LANES):
        own[q] = times[home, q]
        for k in range(best.shape[0]):
            best[k, q] = FAR if own[q] >= 0 else -1.0
            near[k, q] = -1


@section()
def _first_beside(backs: Any, begin: Any, end: Any, front: Any) -> Any:
    """First bucket of a strip that does not end before a bucket of another."""
    while begin < end:
        half = (begin + end) // 2
        if backs[half] < front:
            begin = half + 1
        else:
            end = half
    return begin


@section()
def _close_block(own: Any, near: Any, zeros: Any, neighbors: Any, repeats: Any) -> Any:
    """Write the lists of the points of a bucket."""
    for k in range(near.shape[0]):
        for q in range(LANES):
            if own[q] >= 0:
                neighbors[own[q], k] = near[k, q]
    while zeros != 0:
        repeats[own[lowest(zeros)]] = True
        zeros &= zeros - np.uint64(1)


@kernel(nogil=True, _nrt=False)
def tree_nearest(
    leaves: Any,
    times: Any,
    slots: Any,
    groups: Any,
    metric: Any,
    first: Any,
    last: Any,
    theiler: Any,
    room: Any,
    best: Any,
    neighbors: Any,
    repeats: Any,
) -> Any:
    """`sweep_nearest` in a tree; `best` (gaps) is initially `FAR`.

    The leaf of a point comes first, then the nodes beside it on the way up, the nearest ones first.
    """
    boxes, firsts, flat, earliest = groups.boxes, groups.first, groups.flat, groups.earliest
    gaps, point, stack, stack_time, stack_gap = room.gaps, room.point, room.stack, room.stack_time, room.stack_gap
    bottom = max(leaves.shape[0] // LANES, 1)
    worst = best.shape[1] - 1
    # Plain integers from the start: numba would compile the helpers once more for a literal.
    depth, before = np.int64(0), np.int64(-1)
    for place in range(first * BUCKET, last * BUCKET):
        home, lane = place // BUCKET, place % BUCKET
        time = times[home, lane]
        if time < 0:
            continue
        load_point(leaves, home, lane, point)
        if before >= 0 and metric != L2_SCALED:
            _offer_shifted(leaves, slots, metric, time, before, theiler, point, best, neighbors)
        before = time
        repeat = False
        start, count, child = 0, bottom, home
        stack[0], stack_time[0], stack_gap[0] = home, -1, 0.0
        depth += 1
        while True:
            if depth > 0:
                depth -= 1
                node, gap = stack[depth], stack_gap[depth]
                if gap > best[time, worst] or (gap == best[time, worst] and stack_time[depth] > neighbors[time, worst]):
                    continue
                if node >= 0:
                    repeat |= _offer_leaf(leaves, times, node, point, time, metric, theiler, gaps, best, neighbors)
                    continue
                group, skip = -1 - node, np.uint64(0)
            elif count == 0:
                break
            else:  # one level up
                group, skip = start + child // LANES, np.uint64(1) << np.uint64(child % LANES)
                child //= LANES
                start += count
                count = max(count // LANES, 1) if count > 1 else 0
            limit, latest = best[time, worst], neighbors[time, worst]
            depth, again = push_nodes(
                gaps,
                point,
                boxes,
                firsts,
                flat,
                earliest,
                group,
                bottom,
                skip,
                limit,
                latest,
                metric,
                stack,
                stack_time,
                stack_gap,
                depth,
            )
            repeat |= again
        repeats[time] = repeat


@section()
def _offer_shifted(
    leaves: Any,
    slots: Any,
    metric: Any,
    time: Any,
    before: Any,
    theiler: Any,
    point: Any,
    best: Any,
    neighbors: Any,
) -> Any:
    """Offer the neighbours of an earlier query, moved on with the time: close for points of one stretch of an orbit.

    They only bound the search from the start, so the result does not depend on the order of the queries.
    """
    for k in range(best.shape[1]):
        if neighbors[before, k] < 0:
            return
        other = neighbors[before, k] + time - before
        if other < 0 or other >= slots.shape[0] or slots[other] < 0:
            continue
        leaf, lane = slots[other] // BUCKET, slots[other] % BUCKET
        gap = 0.0
        for c in range(leaves.shape[1]):  # term by term as in the leaves
            step = abs(leaves[leaf, c, lane] - point[c])
            if metric == L2:
                gap += step * step
            elif metric == L1:
                gap += step
            else:
                gap = step if step > gap else gap
        if 0.0 < gap <= best[time, best.shape[1] - 1] and abs(other - time) >= theiler:
            _insert(best, neighbors, time, gap, other)


@section()
def _offer_leaf(
    leaves: Any,
    times: Any,
    leaf: Any,
    point: Any,
    time: Any,
    metric: Any,
    theiler: Any,
    gaps: Any,
    best: Any,
    near: Any,
) -> Any:
    """Insert the points of a leaf into the list of nearest ones; return whether one is at distance zero."""
    leaf_gaps(gaps, 0, leaves, leaf, point, metric)
    last = best.shape[1] - 1
    inside = within(gaps, 0, best[time, last]) & apart(times, leaf, time, theiler)
    repeat = False
    while inside != 0:
        k = lowest(inside)
        inside &= inside - np.uint64(1)
        if gaps[k] <= best[time, last]:
            if gaps[k] > 0.0:
                _insert(best, near, time, gaps[k], times[leaf, k])
            else:
                repeat = True
    return repeat


@helper(_nrt=False)
def _insert(best: Any, neighbors: Any, row: Any, gap: Any, other: Any) -> Any:
    """Insert a point into a sorted row of nearest ones, unless it is there; ties are ordered by time."""
    at = best.shape[1] - 1
    if gap == best[row, at] and other > neighbors[row, at]:
        return
    for k in range(at + 1):
        if neighbors[row, k] == other:
            return
    while at > 0 and (best[row, at - 1] > gap or (best[row, at - 1] == gap and neighbors[row, at - 1] > other)):
        best[row, at] = best[row, at - 1]
        neighbors[row, at] = neighbors[row, at - 1]
        at -= 1
    best[row, at] = gap
    neighbors[row, at] = other


@section()
def push_nodes(
    gaps: Any,
    point: Any,
    boxes: Any,
    first: Any,
    flat: Any,
    earliest: Any,
    group: Any,
    bottom: Any,
    skip: Any,
    limit: Any,
    latest: Any,
    metric: Any,
    stack: Any,
    stack_time: Any,
    stack_gap: Any,
    depth: Any,
) -> Any:
    """Push the nodes of a group that may hold a nearer point, the nearest or earliest one last.

    Leaves are pushed as their numbers, groups as -1 - number. Returns the new depth of the stack, and whether a node
    with copies of the point itself was left out.
    """
    box_gaps(gaps, BOXES, boxes, group, point, metric)
    inside = within(gaps, BOXES, limit) & ~skip
    base = depth
    repeat = False
    while inside != 0:
        k = lowest(inside)
        inside &= inside - np.uint64(1)
        gap, time = gaps[BOXES + k], earliest[group, k]
        # Ties go to the earliest point; otherwise all copies of a few points would be visited.
        if gap == limit and time > latest:
            continue
        if gap == 0.0 and flat[group, k]:
            repeat = True
            continue
        at = depth
        while at > base and (stack_gap[at - 1] < gap or (stack_gap[at - 1] == gap and stack_time[at - 1] < time)):
            stack[at], stack_time[at], stack_gap[at] = stack[at - 1], stack_time[at - 1], stack_gap[at - 1]
            at -= 1
        node = first[group] + k
        stack[at], stack_time[at], stack_gap[at] = node if group < bottom else -1 - node, time, gap
        depth += 1
    return depth, repeat


@kernel(nogil=True, _nrt=False)
def matrix_nearest(
    matrix: Any, usable: Any, first: Any, last: Any, theiler: Any, best: Any, neighbors: Any, repeats: Any
) -> Any:
    """`sweep_nearest` for the rows first .. last of a distance matrix."""
    worst = best.shape[1] - 1
    for time in range(first, last):
        if not usable[time]:
            continue
        for other in range(usable.shape[0]):
            gap = matrix[time, other]
            if not gap < best[time, worst] or abs(other - time) < theiler or not usable[other]:
                continue
            if gap > 0.0:
                _insert(best, neighbors, time, gap, other)
            else:
                repeats[time] = True
