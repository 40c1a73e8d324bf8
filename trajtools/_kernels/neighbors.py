"""A balanced k-d tree over buckets of states, and the searches in it. See trajtools.neighbors.

Points lie in buckets of `BUCKET` lanes, one coordinate after the other: `leaves[leaf, coordinate, lane]`. Empty lanes
are +inf, so no distance to them passes a test. The tree is binary: node 1 is the root, node n has the children 2n and
2n + 1, the last half of the nodes are the leaves. Searches descend three levels at once: the boxes of eight nodes are
a group, whose lanes are compared together. `gap` is the distance, squared for the Euclidean metric.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from trajtools._kernels._jit import kernel
from trajtools._kernels.lanes import LANES, apart, box_gaps, bucket_gaps, lowest, within
from trajtools.types import L1, L2, L2_SCALED

# Arrays are passed one by one to functions called for every pair: numba copies a tuple of them at each call, which made
# the searches three times slower.
# ruff: noqa: PLR0917


BUCKET = LANES
BRUTE, SWEEP, TREE, MATRIX = 0, 1, 2, 3
# Above every gap between finite points, below the gap to an empty lane.
FAR = 1.7976931348623157e308
STACK = 256
HELD = 8  # leaves compared before their points are taken
BOXES = HELD * BUCKET  # place of the gaps to boxes, behind those to points
_SPREAD_SAMPLE = 64
_MOST_SHIFTS = 32  # per value, up to which bins are sorted by insertion
# Values per bin: few where bins are not sorted any further, more where the values do not stay in the cache.
_FINE, _COARSE = np.int64(1), np.int64(4)


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
    """Data of a search; `kind` determines which arrays are filled."""

    kind: int
    metric: int
    axis: int
    leaves: np.ndarray
    times: np.ndarray
    slots: np.ndarray
    boxes: np.ndarray
    strips: Strips
    groups: Groups
    matrix: np.ndarray
    usable: np.ndarray


@kernel(_nrt=False)
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


@kernel(_nrt=False, forceinline=True)
def _middle(a: Any, b: Any, c: Any) -> Any:
    return max(min(a, b), min(max(a, b), c))


@kernel(_nrt=False)
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


@kernel(_nrt=False)
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


@kernel()
def _sort_subtree(points: Any, order: Any, top: Any, top_level: Any, end_level: Any, depth: Any) -> Any:
    """Split the nodes of one subtree along their longest axes, depth first."""
    n = points.shape[0]
    stack = np.empty(STACK, dtype=np.int64)
    levels = np.empty(STACK, dtype=np.int64)
    stack[0] = top
    levels[0] = top_level
    count = 1
    while count > 0:
        count -= 1
        node = stack[count]
        level = levels[count]
        first = (node << (depth - level)) - (1 << depth)
        last = ((node + 1) << (depth - level)) - (1 << depth)
        start = (n * first) >> depth
        stop = (n * last) >> depth
        _select(points, order, start, stop, (n * ((first + last) >> 1)) >> depth, _longest_axis(points, start, stop))
        if level + 1 < end_level:
            for side in range(2):
                stack[count + side] = 2 * node + 1 - side
                levels[count + side] = level + 1
            count += 2


@kernel(nogil=True)
def sort_subtrees(points: Any, order: Any, first: Any, last: Any, top_level: Any, end_level: Any, depth: Any) -> Any:
    """Reorder rows and times in place by splitting the nodes between two levels at their medians."""
    for part in range(first, last):
        _sort_subtree(points, order, (1 << top_level) + part, top_level, end_level, depth)


@kernel(nogil=True)
def into_bins(values: Any, per_bin: Any) -> Any:
    """Order of values by bins of equal width, as they stand within each, and the ends of the bins.

    The order is empty if the values are too uneven for equal bins.
    """
    n = values.shape[0]
    low, high = values[0], values[0]
    for v in values:
        low = v if v < low else low
        high = v if v > high else high
    bins = max(n // per_bin, 1)
    scale = bins / (high - low) if high > low else 0.0
    if scale == np.inf:  # the spread is below the normal numbers
        scale = 0.0
    ends = np.zeros(bins + 1, dtype=np.int64)
    place = np.empty(n, dtype=np.int64)
    for i in range(n):
        place[i] = min(int((values[i] - low) * scale), bins - 1)
        ends[place[i] + 1] += 1
    squares = 0
    for b in range(bins):
        squares += ends[b + 1] * ends[b + 1]
        ends[b + 1] += ends[b]
    if squares > _MOST_SHIFTS * n:
        return place[:0], ends
    order = np.empty(n, dtype=np.int64)
    for i in range(n):
        order[ends[place[i]]] = i
        ends[place[i]] += 1
    return order, ends[:bins]


@kernel(nogil=True)
def sort_order(values: Any) -> Any:
    """Order of values by their size, equal ones as they stand; empty if they are too uneven for equal bins.

    Bins of equal width are sorted by insertion, which is fast where each holds a few values.
    """
    order, ends = into_bins(values, _COARSE)
    if order.shape[0] == 0:
        return order
    begin = 0
    for end in ends:
        for m in range(begin + 1, end):
            i = order[m]
            v = values[i]
            at = m
            while at > begin and values[order[at - 1]] > v:
                order[at] = order[at - 1]
                at -= 1
            order[at] = i
        begin = end
    return order


@kernel(nogil=True)
def split_strips(points: Any, order: Any, across: Any, bounds: Any, lows: Any, highs: Any) -> Any:
    """Reorder rows by strips order[bounds[s] : bounds[s + 1]] along an axis, and write the bounds of what is beyond.

    `lows[s]`: of the strips from s on; `highs[s]`: of those up to s. Returns false if the values are too uneven; then
    the rows must be sorted, which they are if they come so.
    """
    n = order.shape[0]
    values = np.empty(n)
    for at in range(n):
        values[at] = points[order[at], across]
    rising = True
    for at in range(n - 1):
        rising &= values[at] <= values[at + 1]
    if not rising:
        places, _ = into_bins(values, _COARSE)
        if places.shape[0] == 0:
            return False
        rows, unsorted = order.copy(), values.copy()
        for at in range(n):
            order[at], values[at] = rows[places[at]], unsorted[places[at]]
    for s in range(lows.shape[0]):
        low = high = values[bounds[s]]
        for at in range(bounds[s] + 1, bounds[s + 1]):
            v = values[at]
            low = v if v < low else low
            high = v if v > high else high
        lows[s], highs[s] = low, high
    _widen(lows, highs, 0, lows.shape[0])
    return True


@kernel(_nrt=False)
def _widen(lows: Any, highs: Any, first: Any, last: Any) -> Any:
    """Turn bounds of each into those of what follows, and of what comes before."""
    for at in range(last - 2, first - 1, -1):
        lows[at] = min(lows[at], lows[at + 1])
    for at in range(first + 1, last):
        highs[at] = max(highs[at], highs[at - 1])


@kernel(nogil=True)
def fill_strips(
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
) -> Any:
    """Copy the rows of the strips first .. last into their buckets, by bins along an axis; see `Strips`.

    Returns the first strip whose values are too uneven for bins, or `last`. Rows that come sorted are never so.
    """
    for strip in range(first, last):
        rows = order[bounds[strip] : bounds[strip + 1]]
        n = rows.shape[0]
        values = np.empty(n)
        for at in range(n):
            values[at] = points[rows[at], axis]
        rising = True
        for at in range(n - 1):
            rising &= values[at] <= values[at + 1]
        places = np.arange(n)
        if not rising:
            places, _ = into_bins(values, _FINE)
            if places.shape[0] == 0:
                return strip
        for leaf in range(edges[strip], edges[strip + 1]):
            base = (leaf - edges[strip]) * BUCKET
            low, high = np.inf, -np.inf
            for lane in range(BUCKET):
                if base + lane < n:
                    row, v = rows[places[base + lane]], values[places[base + lane]]
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


@kernel(_nrt=False)
def _sample_gaps(gaps: Any, columns: Any, point: Any, metric: Any) -> Any:
    """Gaps between a point and the points of a sample, given as columns."""
    gaps[:] = 0.0
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


@kernel()
def count_candidates(
    points: Any, times: Any, queries: Any, metric: Any, theiler: Any, radius: Any, stride: Any, axis: Any
) -> Any:
    """Mean numbers of points of a sample within reach of a query along each axis, along `axis` as well, and in all.

    `times` and `queries` are rows of `points`; of the sample, every `stride`-th is used. The reach is the radius, or if
    that is infinite the gap to the nearest point of the sample. Points at distance zero and, for the nearest, those in
    the Theiler window do not count. Scaled distances are taken as largest differences, which suffices for an estimate.
    `axis` -1: that of the smallest number, which is returned.
    """
    d, n, m = points.shape[1], (times.shape[0] + stride - 1) // stride, queries.shape[0]
    columns = np.empty((d, n))
    for k in range(n):
        for c in range(d):
            columns[c, k] = points[times[k * stride], c]
    counts, both = np.zeros(d), np.zeros(d)
    reaches = np.full(m, radius)
    inside = 0.0
    gaps = np.empty(n)
    limit = radius * radius if metric == L2 else radius
    for q in range(m):
        _sample_gaps(gaps, columns, points[queries[q]], metric)
        if radius == np.inf:
            reaches[q] = _gap_of_nearest(gaps, times, stride, queries[q], theiler)
            reaches[q] = np.sqrt(reaches[q]) if metric == L2 else reaches[q]
        for k in range(n):
            inside += (gaps[k] <= limit) & (gaps[k] > 0.0)
        for c in range(d):
            counts[c] += _count_within(columns, points[queries[q]], reaches[q], c, c)
    axis = np.argmin(counts) if axis < 0 else axis
    for q in range(m):
        for c in range(d):
            both[c] += _count_within(columns, points[queries[q]], reaches[q], axis, c)
    return counts / m, both / m, inside / m, axis


@kernel(_nrt=False)
def _gap_of_nearest(gaps: Any, times: Any, stride: Any, time: Any, theiler: Any) -> Any:
    """Smallest positive gap of a sample outside the Theiler window; inf if there is none."""
    least = np.inf
    for k in range(gaps.shape[0]):
        if 0.0 < gaps[k] < least and abs(times[k * stride] - time) >= theiler:
            least = gaps[k]
    return least


@kernel(_nrt=False)
def _count_within(columns: Any, point: Any, reach: Any, a: Any, b: Any) -> Any:
    """Number of columns within reach of a point along two axes."""
    one, other = columns[a], columns[b]
    low, high, under, over = point[a] - reach, point[a] + reach, point[b] - reach, point[b] + reach
    count: Any = 0
    for k in range(columns.shape[1]):
        first = np.int64(one[k] >= low) & np.int64(one[k] <= high)
        count += first & np.int64(other[k] >= under) & np.int64(other[k] <= over)
    return count


@kernel()
def bound_tree(leaves: Any, times: Any, counts: Any) -> Any:
    """Boxes (nodes, 2, d) of all nodes from the leaves up, nodes with copies of one point, earliest times."""
    n_leaves, d = leaves.shape[0], leaves.shape[1]
    boxes = np.empty((2 * n_leaves, 2, d))
    flat = np.ones(2 * n_leaves, dtype=np.bool_)
    earliest = np.empty(2 * n_leaves, dtype=np.int64)
    for leaf in range(n_leaves):
        for c in range(d):
            low = leaves[leaf, c, 0]
            high = low
            for k in range(1, counts[leaf]):
                v = leaves[leaf, c, k]
                low = v if v < low else low
                high = v if v > high else high
            boxes[n_leaves + leaf, 0, c] = low
            boxes[n_leaves + leaf, 1, c] = high
            flat[n_leaves + leaf] &= low == high
        earliest[n_leaves + leaf] = times[leaf, : counts[leaf]].min()
    for node in range(n_leaves - 1, 0, -1):
        for c in range(d):
            boxes[node, 0, c] = min(boxes[2 * node, 0, c], boxes[2 * node + 1, 0, c])
            boxes[node, 1, c] = max(boxes[2 * node, 1, c], boxes[2 * node + 1, 1, c])
            flat[node] &= boxes[node, 0, c] == boxes[node, 1, c]
        earliest[node] = min(earliest[2 * node], earliest[2 * node + 1])
    return boxes, flat, earliest


@kernel()
def group_nodes(boxes: Any, flat: Any, earliest: Any) -> Any:
    """Arrays of `Groups` from those of `bound_tree`."""
    d = boxes.shape[2]
    count = boxes.shape[0] // 2
    size = 0
    while True:
        count = max(count // LANES, 1)
        size += count
        if count == 1:
            break
    sides = np.empty((size, d, 2, LANES))
    first = np.empty(size, dtype=np.int64)
    copies = np.zeros((size, LANES), dtype=np.bool_)
    soonest = np.zeros((size, LANES), dtype=np.int64)
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
                for c in range(d):
                    sides[group, c, 0, k] = boxes[node, 0, c] if here else np.inf
                    sides[group, c, 1, k] = boxes[node, 1, c] if here else -np.inf
                if here:
                    copies[group, k] = flat[node]
                    soonest[group, k] = earliest[node]
            group += 1
        if group == begun + 1:
            return sides, first, copies, soonest
        child = begun
        count = group - begun


@kernel(nogil=True)
def fill_leaves(
    points: Any, rows: Any, order: Any, starts: Any, first: Any, last: Any, leaves: Any, times: Any, slots: Any
) -> Any:
    """Copy `points[rows]` into the buckets first .. last; `starts` (leaves + 1) bounds them, `order` holds their times.

    `slots` (the slot of every time) is initially -1.
    """
    for leaf in range(first, last):
        leaves[leaf] = np.inf
        times[leaf] = -1
        for p in range(starts[leaf], starts[leaf + 1]):
            lane = p - starts[leaf]
            for c in range(points.shape[1]):
                leaves[leaf, c, lane] = points[rows[p], c]
            times[leaf, lane] = order[p]
            slots[order[p]] = leaf * BUCKET + lane


@kernel(_nrt=False)
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


@kernel(_nrt=False, forceinline=True)
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


@kernel(_nrt=False, forceinline=True)
def load_point(leaves: Any, home: Any, lane: Any, point: Any) -> Any:
    """Copy the point in one lane of a leaf."""
    for c in range(leaves.shape[1]):
        point[c] = leaves[home, c, lane]


@kernel(_nrt=False, forceinline=True)
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


@kernel(_nrt=False, forceinline=True)
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


@kernel(_nrt=False, forceinline=True)
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


@kernel(_nrt=False, forceinline=True)
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


@kernel(_nrt=False, forceinline=True)
def axis_gap(step: Any, metric: Any) -> Any:
    """Gap of two points that differ along one axis only."""
    return step * step if metric == L2 else abs(step)


@kernel(_nrt=False, forceinline=True)
def ball(index: Any, time: Any, theiler: Any, limit: Any, room: Any, near: Any, near_gap: Any) -> Any:
    """Find all states within `limit` of one state; return their number, and whether one is at zero."""
    if index.kind == MATRIX:
        return matrix_ball(index.matrix, index.usable, time, theiler, limit, near, near_gap)
    leaves, times, metric = index.leaves, index.times, index.metric
    home = index.slots[time] // BUCKET
    load_point(leaves, home, index.slots[time] % BUCKET, room.point)
    if index.kind == TREE:
        return tree_ball(leaves, times, index.groups, time, metric, theiler, limit, room, near, near_gap)
    first, last = 0, leaves.shape[0]
    if index.kind == SWEEP:
        v, axis = room.point[index.axis], index.axis
        first, last = home, home + 1
        while first > 0 and axis_gap(v - leaves[first - 1, axis, BUCKET - 1], metric) <= limit:
            first -= 1
        while last < leaves.shape[0] and axis_gap(leaves[last, axis, 0] - v, metric) <= limit:
            last += 1
    return span_ball(leaves, times, first, last, time, metric, theiler, limit, room, near, near_gap)
