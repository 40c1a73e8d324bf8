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
_BOXES = HELD * BUCKET  # place of the gaps to boxes, behind those to points
_SPREAD_SAMPLE = 64
PER_BIN, _MOST_SHIFTS = 4, 32  # values per bin, and shifts per value up to which bins are sorted by insertion


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


@kernel(_nrt=False)
def sort_order(values: Any, starts: Any, place: Any, order: Any) -> Any:
    """Write the order of values by their size, equal ones as they stand; False if they are too uneven for equal bins.

    Bins of equal width are sorted by insertion, which is fast where each holds a few values. `starts` (bins + 1,), of
    zeros, and `place` (n,) are workspace.
    """
    n = values.shape[0]
    bins = starts.shape[0] - 1
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
        starts[place[i] + 1] += 1
    squares = 0
    for b in range(bins):
        squares += starts[b + 1] * starts[b + 1]
        starts[b + 1] += starts[b]
    if squares > _MOST_SHIFTS * n:
        return False
    for i in range(n):
        order[starts[place[i]]] = i
        starts[place[i]] += 1
    begin = 0
    for b in range(bins):
        for m in range(begin + 1, starts[b]):
            i = order[m]
            v = values[i]
            at = m
            while at > begin and values[order[at - 1]] > v:
                order[at] = order[at - 1]
                at -= 1
            order[at] = i
        begin = starts[b]
    return True


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


@kernel(_nrt=False)
def count_candidates(
    columns: Any,
    times: Any,
    queries: Any,
    query_times: Any,
    metric: Any,
    theiler: Any,
    radius: Any,
    gaps: Any,
    counts: Any,
) -> Any:
    """Number of points of a sample that a sweep along each axis compares with a query, and that within `radius`.

    Adds to `counts` (d,), and returns the other number; both are totals of all queries. Points are given as columns
    (d, n), queries as rows; `gaps` (n,) is workspace. An infinite radius means the nearest point of the sample. Points
    at distance zero and, for the nearest, those in the Theiler window do not count. Scaled distances are taken as
    largest differences, which suffices for an estimate.
    """
    d, n = columns.shape
    inside = np.int64(0)
    for q in range(query_times.shape[0]):
        point = queries[q]
        _sample_gaps(gaps, columns, point, metric)
        reach = radius
        if radius == np.inf:
            for k in range(n):
                if 0.0 < gaps[k] < reach and abs(times[k] - query_times[q]) >= theiler:
                    reach = gaps[k]
            reach = np.sqrt(reach) if metric == L2 else reach
        else:
            limit = radius * radius if metric == L2 else radius
            for k in range(n):
                inside += np.int64(gaps[k] <= limit) & np.int64(gaps[k] > 0.0)
        for c in range(d):
            column, low, high = columns[c], point[c] - reach, point[c] + reach
            count = np.int64(0)
            for k in range(n):
                count += np.int64(column[k] >= low) & np.int64(column[k] <= high)
            counts[c] += count
    return inside


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
        gaps=np.empty(_BOXES + LANES),
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


@helper(_nrt=False)
def insert(best: Any, neighbors: Any, row: Any, gap: Any, other: Any) -> Any:
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
def offer_leaf(
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
                insert(best, near, time, gaps[k], times[leaf, k])
            else:
                repeat = True
    return repeat


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
    box_gaps(gaps, _BOXES, boxes, group, point, metric)
    inside = within(gaps, _BOXES, limit) & ~skip
    base = depth
    repeat = False
    while inside != 0:
        k = lowest(inside)
        inside &= inside - np.uint64(1)
        gap, time = gaps[_BOXES + k], earliest[group, k]
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


@helper(_nrt=False, forceinline=True)
def axis_gap(step: Any, metric: Any) -> Any:
    """Gap of two points that differ along one axis only."""
    return step * step if metric == L2 else abs(step)


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
    """Fill `best` (gaps), `neighbors` (times) and `repeats` for the points of the buckets first .. last of a tree.

    The leaf of a point comes first, then the nodes beside it on the way up, the nearest ones first. `best` is initially
    `FAR`, `neighbors` -1.
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
                    repeat |= offer_leaf(leaves, times, node, point, time, metric, theiler, gaps, best, neighbors)
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
            insert(best, neighbors, time, gap, other)


@kernel(nogil=True, _nrt=False)
def sweep_nearest(
    leaves: Any,
    times: Any,
    axis: Any,
    metric: Any,
    first: Any,
    last: Any,
    theiler: Any,
    room: Any,
    best: Any,
    neighbors: Any,
    repeats: Any,
) -> Any:
    """`tree_nearest` for points sorted along an axis, outwards until the axis alone exceeds the gap; or for all points.

    Without an axis (brute force), every leaf is compared.
    """
    point, gaps = room.point, room.gaps
    n_leaves = leaves.shape[0]
    worst = best.shape[1] - 1
    for place in range(first * BUCKET, last * BUCKET):
        home, lane = place // BUCKET, place % BUCKET
        time = times[home, lane]
        if time < 0:
            continue
        load_point(leaves, home, lane, point)
        repeat = False
        leaf, step = home, 1
        while True:
            repeat |= offer_leaf(leaves, times, leaf, point, time, metric, theiler, gaps, best, neighbors)
            leaf += step
            if step > 0 and (
                leaf == n_leaves
                or (axis >= 0 and axis_gap(leaves[leaf, axis, 0] - point[axis], metric) > best[time, worst])
            ):
                leaf = home - 1
                step = -1
            if step < 0 and (
                leaf < 0
                or (axis >= 0 and axis_gap(point[axis] - leaves[leaf, axis, BUCKET - 1], metric) > best[time, worst])
            ):
                break
        repeats[time] = repeat


@kernel(nogil=True, _nrt=False)
def matrix_nearest(
    matrix: Any, usable: Any, first: Any, last: Any, theiler: Any, best: Any, neighbors: Any, repeats: Any
) -> Any:
    """`tree_nearest` for the rows first .. last of a distance matrix."""
    worst = best.shape[1] - 1
    for time in range(first, last):
        if not usable[time]:
            continue
        for other in range(usable.shape[0]):
            gap = matrix[time, other]
            if not gap < best[time, worst] or abs(other - time) < theiler or not usable[other]:
                continue
            if gap > 0.0:
                insert(best, neighbors, time, gap, other)
            else:
                repeats[time] = True


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


@section()
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
        box_gaps(gaps, _BOXES, groups.boxes, group, point, metric)
        inside = within(gaps, _BOXES, limit)
        if group >= bottom:
            for k in range(LANES - 1, -1, -1):
                if (inside >> np.uint64(k)) & np.uint64(1):
                    if gaps[_BOXES + k] == 0.0 and groups.flat[group, k]:
                        repeat = True
                    else:
                        stack[depth] = groups.first[group] + k
                        depth += 1
            continue
        while inside != 0:
            k = lowest(inside)
            inside &= inside - np.uint64(1)
            if gaps[_BOXES + k] == 0.0 and groups.flat[group, k]:
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


@section()
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


@section()
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
