"""A balanced k-d tree over buckets of states, and the searches in it. See trajtools.neighbors.

Points lie in buckets of `BUCKET` lanes, one coordinate after the other: `leaves[leaf, coordinate, lane]`. Empty lanes
are +inf, so no distance to them passes a test. The tree is binary: node 1 is the root, node n has the children 2n and
2n + 1, the last half of the nodes are the leaves. Searches descend three levels at once: the boxes of eight nodes are
a group, whose lanes are compared together. `gap` is the distance, squared for the Euclidean metric.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from trajtools._kernels._jit import helper, kernel, section
from trajtools._kernels.lanes import LANES, apart, box_gaps, bucket_gaps, lowest, within
from trajtools.types import L1, L2, L2_SCALED

# Arrays are passed one by one to functions called for every pair: numba copies a tuple of them at each call, which made
# the searches three times slower.
# ruff: noqa: PLR0917


BUCKET = LANES
# Above every gap between finite points, below the gap to an empty lane.
FAR = 1.7976931348623157e308
STACK = 256
HELD = 8  # leaves compared before their points are taken
BOXES = HELD * BUCKET  # place of the gaps to boxes, behind those to points
_SPREAD_SAMPLE = 64
_PER_BIN, _MOST_SHIFTS = 4, 32  # values per bin, and shifts per value up to which bins are sorted by insertion


class Groups(NamedTuple):
    """Nodes of a tree, eight by eight, from the leaves up; the last group is the root.

    `boxes` (groups, d, 2, lanes): lower and upper sides of the nodes, +inf and -inf for lanes without a node. `first`:
    the first node of a group, a leaf in the first groups, then another group. `flat`: nodes with copies of one point.
    `earliest`: the earliest time in each node.
    """

    boxes: np.ndarray
    first: np.ndarray
    flat: np.ndarray
    earliest: np.ndarray


class Room(NamedTuple):
    """Workspace of a search: gaps to points and boxes, leaves compared, the point searched for, nodes to visit."""

    gaps: np.ndarray
    held: np.ndarray
    point: np.ndarray
    stack: np.ndarray
    stack_time: np.ndarray
    stack_gap: np.ndarray


class Strips(NamedTuple):
    """Buckets of a sweep for nearest neighbours: strip by strip, each sorted along the axis of the sweep.

    `edges`: the first bucket of each strip, and the end. `lows`, `highs`: bounds along the axis `across` of the points
    from a strip on, and of those up to it. `fronts`, `backs`: bounds along the axis of the sweep of the points from a
    bucket on in its strip, and of those up to it.
    """

    across: int
    edges: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    fronts: np.ndarray
    backs: np.ndarray


class Index(NamedTuple):
    """Data of a search: a tree has `boxes` of its nodes and `groups`, a sweep an `axis`, brute force -1 there."""

    metric: int
    axis: int | None
    leaves: np.ndarray
    times: np.ndarray
    slots: np.ndarray
    boxes: np.ndarray | None
    groups: Groups | None


@helper(_nrt=False)
def _partition(points: Any, order: Any, start: Any, stop: Any, axis: Any, pivot: Any, ties: Any) -> Any:
    """Move rows below the pivot (with `ties`: up to it) to the front; return their end.

    Every row is moved, possibly onto itself: a branch would be mispredicted for every other row.
    """
    end = start
    for p in range(start, stop):
        v = points[p, axis]
        for c in range(points.shape[1]):
            held = points[end, c]
            points[end, c] = points[p, c]
            points[p, c] = held
        time = order[end]
        order[end] = order[p]
        order[p] = time
        end += (v < pivot) | (ties & (v == pivot))
    return end


@helper(_nrt=False, forceinline=True)
def _middle(a: Any, b: Any, c: Any) -> Any:
    return max(min(a, b), min(max(a, b), c))


@section()
def _select(points: Any, order: Any, start: Any, stop: Any, nth: Any, axis: Any) -> Any:
    """Reorder the rows so that the nth is at its sorted position along one axis."""
    low = start
    high = stop
    while high - low > 1:
        third = (high - low) // 3
        ninth = third // 3
        a = low + ninth
        b = a + third
        c = b + third
        pivot = _middle(
            _middle(points[a - ninth, axis], points[a, axis], points[a + ninth, axis]),
            _middle(points[b - ninth, axis], points[b, axis], points[b + ninth, axis]),
            _middle(points[c - ninth, axis], points[c, axis], points[c + ninth, axis]),
        )
        end = _partition(points, order, low, high, axis, pivot, False)
        if end == low:
            # No row is below: the pivot and its copies come first.
            end = _partition(points, order, low, high, axis, pivot, True)
            if nth < end:
                return
        if nth < end:
            high = end
        else:
            low = end


@section()
def _longest_axis(points: Any, start: Any, stop: Any) -> Any:
    """Axis of largest spread of the rows, and whether they spread at all; estimated from a sample."""
    longest = 0
    spread = 0.0
    stride = max(1, (stop - start) // _SPREAD_SAMPLE)
    for c in range(points.shape[1]):
        low = points[start, c]
        high = low
        for p in range(start + 1, stop, stride):
            v = points[p, c]
            low = v if v < low else low
            high = v if v > high else high
        if high - low > spread:
            spread = high - low
            longest = c
    return longest


@kernel(nogil=True, _nrt=False)
def sort_subtrees(
    points: Any, order: Any, first: Any, last: Any, top_level: Any, end_level: Any, depth: Any, stack: Any, levels: Any
) -> Any:
    """Reorder rows and times in place by splitting the nodes between two levels at their medians, depth first.

    Each node is split along its longest axis. `stack` and `levels` are workspace of `STACK` integers.
    """
    n = points.shape[0]
    for part in range(first, last):
        stack[0] = (1 << top_level) + part
        levels[0] = top_level
        count = 1
        while count > 0:
            count -= 1
            node = stack[count]
            level = levels[count]
            begin = (node << (depth - level)) - (1 << depth)
            end = ((node + 1) << (depth - level)) - (1 << depth)
            start = (n * begin) >> depth
            stop = (n * end) >> depth
            axis = _longest_axis(points, start, stop)
            _select(points, order, start, stop, (n * ((begin + end) >> 1)) >> depth, axis)
            if level + 1 < end_level:
                for side in range(2):
                    stack[count + side] = 2 * node + 1 - side
                    levels[count + side] = level + 1
                count += 2


def sort_order(values: np.ndarray) -> np.ndarray:
    """Order of values by their size, equal ones as they stand; empty if they are too uneven for equal bins."""
    n = len(values)
    place, order = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    ends = np.zeros(max(n // _PER_BIN, 1) + 1, dtype=np.int64)
    return order if _sort_bins(values, ends, place, order) else order[:0]


@kernel(nogil=True, _nrt=False)
def _sort_bins(values: Any, ends: Any, place: Any, order: Any) -> Any:
    """Sort bins of equal width by insertion, which is fast where each holds a few values; workspace of `_into_bins`."""
    if not _into_bins(values, ends, place, order):
        return False
    begin = 0
    for b in range(ends.shape[0] - 1):
        for m in range(begin + 1, ends[b]):
            i = order[m]
            v = values[i]
            at = m
            while at > begin and values[order[at - 1]] > v:
                order[at] = order[at - 1]
                at -= 1
            order[at] = i
        begin = ends[b]
    return True


@helper(_nrt=False)
def _into_bins(values: Any, ends: Any, place: Any, order: Any) -> Any:
    """Write the order of values by bins of equal width, as they stand within each, and the ends of the bins.

    False if the values are too uneven for equal bins. `ends` (bins + 1,), of zeros, holds one more number than bins;
    `place` (n,) is workspace.
    """
    n = values.shape[0]
    bins = ends.shape[0] - 1
    low, high = values[0], values[0]
    for i in range(n):
        v = values[i]
        low = v if v < low else low
        high = v if v > high else high
    scale = bins / (high - low) if high > low else 0.0
    if scale == np.inf:  # the spread is below the normal numbers
        scale = 0.0
    for i in range(n):
        place[i] = min(int((values[i] - low) * scale), bins - 1)
        ends[place[i] + 1] += 1
    squares = 0
    for b in range(bins):
        squares += ends[b + 1] * ends[b + 1]
        ends[b + 1] += ends[b]
    if squares > _MOST_SHIFTS * n:
        return False
    for i in range(n):
        order[ends[place[i]]] = i
        ends[place[i]] += 1
    return True


def split_strips(
    points: np.ndarray, order: np.ndarray, across: int, bounds: np.ndarray, lows: np.ndarray, highs: np.ndarray
) -> bool:
    """Reorder rows by strips order[bounds[s] : bounds[s + 1]] along an axis, and write the bounds of what is beyond.

    `lows[s]`: of the strips from s on; `highs[s]`: of those up to s. Returns false if the values are too uneven; then
    the rows must be sorted, which they are if they come so.
    """
    n = len(order)
    ends = np.zeros(max(n // _PER_BIN, 1) + 1, dtype=np.int64)
    places, rows = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    return bool(_split_rows(points, order, across, bounds, lows, highs, np.empty(n), ends, places, rows))


@kernel(nogil=True, _nrt=False)
def _split_rows(
    points: Any,
    order: Any,
    across: Any,
    bounds: Any,
    lows: Any,
    highs: Any,
    values: Any,
    ends: Any,
    places: Any,
    rows: Any,
) -> Any:
    n = order.shape[0]
    for at in range(n):
        values[at] = points[order[at], across]
    if _rises(values):
        for at in range(n):
            places[at] = at
    else:
        if not _into_bins(values, ends, rows, places):
            return False
        for at in range(n):
            rows[at] = order[at]
        for at in range(n):
            order[at] = rows[places[at]]
    for s in range(lows.shape[0]):
        low = high = values[places[bounds[s]]]
        for at in range(bounds[s] + 1, bounds[s + 1]):
            v = values[places[at]]
            low = v if v < low else low
            high = v if v > high else high
        lows[s], highs[s] = low, high
    _widen(lows, highs, 0, lows.shape[0])
    return True


@helper(_nrt=False)
def _rises(values: Any) -> Any:
    """Whether values are sorted; every one is compared, so that eight are at once."""
    rising = True
    for at in range(values.shape[0] - 1):
        rising &= values[at] <= values[at + 1]
    return rising


@helper(_nrt=False)
def _widen(lows: Any, highs: Any, first: Any, last: Any) -> Any:
    """Turn bounds of each into those of what follows, and of what comes before."""
    for at in range(last - 2, first - 1, -1):
        lows[at] = min(lows[at], lows[at + 1])
    for at in range(first + 1, last):
        highs[at] = max(highs[at], highs[at - 1])


def fill_strips(
    points: np.ndarray,
    order: np.ndarray,
    axis: int,
    bounds: np.ndarray,
    edges: np.ndarray,
    first: int,
    last: int,
    leaves: np.ndarray,
    times: np.ndarray,
    fronts: np.ndarray,
    backs: np.ndarray,
) -> int:
    """Copy the rows of the strips first .. last into their buckets, by bins along an axis; see `Strips`.

    Returns the first strip whose values are too uneven for bins, or `last`. Rows that come sorted are never so.
    """
    most = int(np.diff(bounds).max())
    work = np.empty(most), *(np.empty(most + extra, dtype=np.int64) for extra in (1, 0, 0))
    return int(_fill_rows(points, order, axis, bounds, edges, first, last, leaves, times, fronts, backs, *work))


@kernel(nogil=True, _nrt=False)
def _fill_rows(
    points: Any,
    order: Any,
    axis: Any,
    bounds: Any,
    edges: Any,
    first: Any,
    last: Any,
    leaves: Any,
    times: Any,
    fronts: Any,
    backs: Any,
    numbers: Any,
    ends: Any,
    place: Any,
    places: Any,
) -> Any:
    for strip in range(first, last):
        start, n = bounds[strip], bounds[strip + 1] - bounds[strip]
        values = numbers[:n]
        for at in range(n):
            values[at] = points[order[start + at], axis]
            places[at] = at
        if not _rises(values):  # as many bins as values: bins are not sorted any further
            for b in range(n + 1):
                ends[b] = 0
            if not _into_bins(values, ends[: n + 1], place, places):
                return strip
        for leaf in range(edges[strip], edges[strip + 1]):
            base = (leaf - edges[strip]) * BUCKET
            low, high = np.inf, -np.inf
            for lane in range(BUCKET):
                if base + lane < n:
                    row, v = order[start + places[base + lane]], values[places[base + lane]]
                    low = v if v < low else low
                    high = v if v > high else high
                    times[leaf, lane] = row
                    for c in range(points.shape[1]):
                        leaves[leaf, c, lane] = points[row, c]
                else:
                    times[leaf, lane] = -1
                    for c in range(points.shape[1]):
                        leaves[leaf, c, lane] = np.inf
            fronts[leaf], backs[leaf] = low, high
        _widen(fronts, backs, edges[strip], edges[strip + 1])
    return last


def count_candidates(
    points: np.ndarray,
    times: np.ndarray,
    queries: np.ndarray,
    metric: int,
    theiler: int,
    radius: float,
    stride: int,
    axis: int,
) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Mean numbers of points of a sample within reach of a query along each axis, along `axis` as well, and in all.

    `times` and `queries` are rows of `points`; of the sample, every `stride`-th is used. The reach is the radius, or if
    that is infinite the gap to the nearest point of the sample. Points at distance zero and, for the nearest, those in
    the Theiler window do not count. Scaled distances are taken as largest differences, which suffices for an estimate.
    `axis` -1: that of the smallest number, which is returned.
    """
    d, n, m = points.shape[1], -(-len(times) // stride), len(queries)
    counts, both = np.zeros((2, d), dtype=np.int64)
    work = np.empty((d, n)), np.empty(n), np.full(m, radius), counts, both
    inside, axis = _count_rows(points, times, queries, metric, theiler, float(radius), stride, axis, *work)
    return counts / m, both / m, inside / m, axis


@kernel(_nrt=False)
def _count_rows(
    points: Any,
    times: Any,
    queries: Any,
    metric: Any,
    theiler: Any,
    radius: Any,
    stride: Any,
    axis: Any,
    columns: Any,
    gaps: Any,
    reaches: Any,
    counts: Any,
    both: Any,
) -> Any:
    """`count_candidates` as sums over the queries, with workspace."""
    d, n = columns.shape
    for k in range(n):
        for c in range(d):
            columns[c, k] = points[times[k * stride], c]
    inside = np.int64(0)
    limit = radius * radius if metric == L2 else radius
    for q in range(queries.shape[0]):
        point = points[queries[q]]
        _sample_gaps(gaps, columns, point, metric)
        if radius == np.inf:
            reach = _gap_of_nearest(gaps, times, stride, queries[q], theiler)
            reaches[q] = np.sqrt(reach) if metric == L2 else reach
        for k in range(n):
            inside += np.int64(gaps[k] <= limit) & np.int64(gaps[k] > 0.0)
        for c in range(d):
            counts[c] += _count_within(columns, point, reaches[q], c, c)
    if axis < 0:
        axis = np.int64(0)
        for c in range(d):
            axis = c if counts[c] < counts[axis] else axis
    for q in range(queries.shape[0]):
        for c in range(d):
            both[c] += _count_within(columns, points[queries[q]], reaches[q], axis, c)
    return inside, axis


@section()
def _sample_gaps(gaps: Any, columns: Any, point: Any, metric: Any) -> Any:
    """Gaps between a point and the points of a sample, given as columns."""
    for k in range(gaps.shape[0]):
        gaps[k] = 0.0
    for c in range(columns.shape[0]):
        column, v = columns[c], point[c]
        if metric == L2:
            for k in range(gaps.shape[0]):
                gaps[k] += (column[k] - v) * (column[k] - v)
        elif metric == L1:
            for k in range(gaps.shape[0]):
                gaps[k] += abs(column[k] - v)
        else:
            for k in range(gaps.shape[0]):
                step = abs(column[k] - v)
                gaps[k] = step if step > gaps[k] else gaps[k]


@section()
def _gap_of_nearest(gaps: Any, times: Any, stride: Any, time: Any, theiler: Any) -> Any:
    """Smallest positive gap of a sample outside the Theiler window; inf if there is none."""
    least = np.inf
    for k in range(gaps.shape[0]):
        if 0.0 < gaps[k] < least and abs(times[k * stride] - time) >= theiler:
            least = gaps[k]
    return least


@helper(_nrt=False)
def _count_within(columns: Any, point: Any, reach: Any, a: Any, b: Any) -> Any:
    """Number of columns within reach of a point along two axes."""
    one, other = columns[a], columns[b]
    low, high, under, over = point[a] - reach, point[a] + reach, point[b] - reach, point[b] + reach
    count = np.int64(0)
    for k in range(columns.shape[1]):
        first = np.int64(one[k] >= low) & np.int64(one[k] <= high)
        count += first & np.int64(other[k] >= under) & np.int64(other[k] <= over)
    return count


def make_tree(n_leaves: int, dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Groups]:
    """Allocate what `bound_tree` fills: boxes (nodes, 2, d) of all nodes, whether they hold copies, times, and groups.

    Outside the kernels to save compilation, as all workspace here.
    """
    count, size = n_leaves, 0
    while count != 1 or not size:
        count = max(count // LANES, 1)
        size += count
    groups = Groups(
        boxes=np.empty((size, dimension, 2, LANES)),
        first=np.empty(size, dtype=np.int64),
        flat=np.zeros((size, LANES), dtype=np.bool_),
        earliest=np.zeros((size, LANES), dtype=np.int64),
    )
    nodes = 2 * n_leaves
    boxes = np.empty((nodes, 2, dimension))
    return boxes, np.ones(nodes, dtype=np.bool_), np.empty(nodes, dtype=np.int64), groups


@kernel(_nrt=False)
def bound_tree(leaves: Any, times: Any, counts: Any, boxes: Any, flat: Any, earliest: Any, groups: Any) -> Any:
    """Bound all nodes from the leaves up: boxes, nodes with copies of one point, earliest times; and group them."""
    n_leaves, d = leaves.shape[0], leaves.shape[1]
    for leaf in range(n_leaves):
        node = n_leaves + leaf
        for c in range(d):
            low = leaves[leaf, c, 0]
            high = low
            for k in range(1, counts[leaf]):
                v = leaves[leaf, c, k]
                low = v if v < low else low
                high = v if v > high else high
            boxes[node, 0, c] = low
            boxes[node, 1, c] = high
            flat[node] &= low == high
        soonest = times[leaf, 0]
        for k in range(1, counts[leaf]):
            soonest = min(soonest, times[leaf, k])
        earliest[node] = soonest
    for node in range(n_leaves - 1, 0, -1):
        for c in range(d):
            boxes[node, 0, c] = min(boxes[2 * node, 0, c], boxes[2 * node + 1, 0, c])
            boxes[node, 1, c] = max(boxes[2 * node, 1, c], boxes[2 * node + 1, 1, c])
            flat[node] &= boxes[node, 0, c] == boxes[node, 1, c]
        earliest[node] = min(earliest[2 * node], earliest[2 * node + 1])
    _group_nodes(boxes, flat, earliest, groups)


@section()
def _group_nodes(boxes: Any, flat: Any, earliest: Any, groups: Any) -> Any:
    sides, first, copies, soonest = groups.boxes, groups.first, groups.flat, groups.earliest
    count = boxes.shape[0] // 2
    group = 0
    child = 0
    while True:
        begun = group
        for start in range(0, count, LANES):
            first[group] = child + start
            for k in range(LANES):
                node = count + start + k
                here = start + k < count
                for c in range(sides.shape[1]):
                    sides[group, c, 0, k] = boxes[node, 0, c] if here else np.inf
                    sides[group, c, 1, k] = boxes[node, 1, c] if here else -np.inf
                if here:
                    copies[group, k] = flat[node]
                    soonest[group, k] = earliest[node]
            group += 1
        if group == begun + 1:
            break
        child = begun
        count = group - begun


@kernel(nogil=True, _nrt=False)
def fill_leaves(
    points: Any, rows: Any, order: Any, starts: Any, first: Any, last: Any, leaves: Any, times: Any, slots: Any
) -> Any:
    """Copy `points[rows]` into the buckets first .. last; `starts` (leaves + 1) bounds them, `order` holds their times.

    `slots` (the slot of every time) is initially -1.
    """
    for leaf in range(first, last):
        for lane in range(BUCKET):
            times[leaf, lane] = -1
            for c in range(leaves.shape[1]):
                leaves[leaf, c, lane] = np.inf
        for p in range(starts[leaf], starts[leaf + 1]):
            lane = p - starts[leaf]
            for c in range(points.shape[1]):
                leaves[leaf, c, lane] = points[rows[p], c]
            times[leaf, lane] = order[p]
            slots[order[p]] = leaf * BUCKET + lane


@section()
def _lengthen(gaps: Any, at: Any, leaves: Any, leaf: Any, point: Any) -> Any:
    """Convert the largest difference to the Euclidean distance without squaring numbers above one."""
    for k in range(BUCKET):
        largest = gaps[at + k]
        if 0.0 < largest <= FAR:
            total = 0.0
            for c in range(leaves.shape[1]):
                step = (leaves[leaf, c, k] - point[c]) / largest
                total += step * step
            gaps[at + k] = largest * np.sqrt(total)


@helper(_nrt=False, forceinline=True)
def leaf_gaps(gaps: Any, at: Any, leaves: Any, leaf: Any, point: Any, metric: Any) -> Any:
    """Write the gaps between a point and all lanes of a leaf into gaps[at : at + 8]."""
    bucket_gaps(gaps, at, leaves, leaf, point, metric)
    if metric == L2_SCALED:
        _lengthen(gaps, at, leaves, leaf, point)


def make_room(dimension: int) -> Room:
    """Allocate the workspace of one thread, outside the kernels to save compilation."""
    return Room(
        gaps=np.empty(BOXES + LANES),
        held=np.empty(HELD, dtype=np.int64),
        point=np.empty(dimension),
        stack=np.empty(STACK, dtype=np.int64),
        stack_time=np.empty(STACK, dtype=np.int64),
        stack_gap=np.empty(STACK),
    )


@helper(_nrt=False, forceinline=True)
def load_point(leaves: Any, home: Any, lane: Any, point: Any) -> Any:
    """Copy the point in one lane of a leaf."""
    for c in range(leaves.shape[1]):
        point[c] = leaves[home, c, lane]


@helper(_nrt=False, forceinline=True)
def _take(word: Any, held: Any, gaps: Any, times: Any, near: Any, near_gap: Any, count: Any) -> Any:
    """Append the marked points of the leaves held; return the new count, and whether one is at zero."""
    repeat = False
    while word != 0:
        k = lowest(word)
        word &= word - np.uint64(1)
        near[count] = times[held[k // BUCKET], k % BUCKET]
        near_gap[count] = gaps[k]
        repeat |= gaps[k] == 0.0
        count += gaps[k] > 0.0
    return count, repeat


@helper(_nrt=False)
def tree_ball(
    leaves: Any,
    times: Any,
    groups: Any,
    time: Any,
    metric: Any,
    theiler: Any,
    limit: Any,
    room: Any,
    near: Any,
    near_gap: Any,
) -> Any:
    """Find all points within `limit` of one point, in the order of the leaves."""
    gaps, held, point, stack = room.gaps, room.held, room.point, room.stack
    bottom = max(leaves.shape[0] // LANES, 1)
    count, kept = 0, 0
    word = np.uint64(0)
    repeat = False
    stack[0] = groups.first.shape[0] - 1
    depth = 1
    while depth > 0:
        depth -= 1
        group = stack[depth]
        box_gaps(gaps, BOXES, groups.boxes, group, point, metric)
        inside = within(gaps, BOXES, limit)
        if group >= bottom:
            for k in range(LANES - 1, -1, -1):
                if (inside >> np.uint64(k)) & np.uint64(1):
                    if gaps[BOXES + k] == 0.0 and groups.flat[group, k]:
                        repeat = True
                    else:
                        stack[depth] = groups.first[group] + k
                        depth += 1
            continue
        while inside != 0:
            k = lowest(inside)
            inside &= inside - np.uint64(1)
            if gaps[BOXES + k] == 0.0 and groups.flat[group, k]:
                repeat = True
                continue
            leaf = groups.first[group] + k
            leaf_gaps(gaps, kept * BUCKET, leaves, leaf, point, metric)
            marked = within(gaps, kept * BUCKET, limit) & apart(times, leaf, time, theiler)
            word |= marked << np.uint64(kept * BUCKET)
            held[kept] = leaf
            kept += 1
            if kept == HELD:
                count, again = _take(word, held, gaps, times, near, near_gap, count)
                repeat |= again
                word, kept = np.uint64(0), 0
    count, again = _take(word, held, gaps, times, near, near_gap, count)
    return count, repeat | again


@helper(_nrt=False)
def span_ball(
    leaves: Any,
    times: Any,
    first: Any,
    last: Any,
    time: Any,
    metric: Any,
    theiler: Any,
    limit: Any,
    room: Any,
    near: Any,
    near_gap: Any,
) -> Any:
    """Find all points of the leaves first .. last within `limit` of one point."""
    gaps, held, point = room.gaps, room.held, room.point
    count = 0
    repeat = False
    for start in range(first, last, HELD):
        word = np.uint64(0)
        for kept in range(min(HELD, last - start)):
            leaf_gaps(gaps, kept * BUCKET, leaves, start + kept, point, metric)
            marked = within(gaps, kept * BUCKET, limit) & apart(times, start + kept, time, theiler)
            word |= marked << np.uint64(kept * BUCKET)
            held[kept] = start + kept
        count, again = _take(word, held, gaps, times, near, near_gap, count)
        repeat |= again
    return count, repeat


@helper(_nrt=False)
def matrix_ball(matrix: Any, usable: Any, time: Any, theiler: Any, limit: Any, near: Any, near_gap: Any) -> Any:
    """Find all states within `limit` of one state, from a row of a distance matrix."""
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


@helper(_nrt=False, forceinline=True)
def axis_gap(step: Any, metric: Any) -> Any:
    """Gap of two points that differ along one axis only."""
    return step * step if metric == L2 else abs(step)


@section()
def ball(
    index: Any,
    axis: Any,
    groups: Any,
    matrix: Any,
    usable: Any,
    time: Any,
    theiler: Any,
    limit: Any,
    room: Any,
    near: Any,
    near_gap: Any,
) -> Any:
    """Find all states within `limit` of one state; return their number, and whether one is at zero.

    From a matrix of distances, a tree with groups of nodes, or leaves along an axis (-1: in any order). numba leaves
    out what depends on an argument that is None, so that only the search in use is compiled.
    """
    if matrix is not None:
        return matrix_ball(matrix, usable, time, theiler, limit, near, near_gap)
    if groups is not None:
        load_point(index.leaves, index.slots[time] // BUCKET, index.slots[time] % BUCKET, room.point)
        return tree_ball(index.leaves, index.times, groups, time, index.metric, theiler, limit, room, near, near_gap)
    if axis is not None:
        leaves, metric, home = index.leaves, index.metric, index.slots[time] // BUCKET
        load_point(leaves, home, index.slots[time] % BUCKET, room.point)
        first, last = 0, leaves.shape[0]
        if axis >= 0:
            v = room.point[axis]
            first, last = home, home + 1
            while first > 0 and axis_gap(v - leaves[first - 1, axis, BUCKET - 1], metric) <= limit:
                first -= 1
            while last < leaves.shape[0] and axis_gap(leaves[last, axis, 0] - v, metric) <= limit:
                last += 1
        return span_ball(leaves, index.times, first, last, time, metric, theiler, limit, room, near, near_gap)
    return 0, False
