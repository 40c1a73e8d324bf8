"""A balanced k-d tree over buckets of states, and the searches in it. See trajtools.neighbors.

Points lie in buckets of `BUCKET` lanes, one coordinate after the other: `leaves[leaf, coordinate, lane]`. Empty lanes
are +inf, so no distance to them passes a test. Node 1 is the root, node n has the children 2n and 2n + 1, the last half
of the nodes are the leaves. `gap` is the distance, squared for the Euclidean metric.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from trajtools._kernels._jit import kernel
from trajtools.types import L1, L2, L2_SCALED

# Arrays are passed one by one to functions called for every pair: numba copies a tuple of them at each call, which made
# the searches three times slower.
# ruff: noqa: PLR0917


BUCKET = 8
BRUTE, SWEEP, TREE, MATRIX = 0, 1, 2, 3
# Above every gap between finite points, below the gap to an empty lane.
FAR = 1.7976931348623157e308
STACK = 128
_SPREAD_SAMPLE = 64


class Index(NamedTuple):
    """Data of a search; `kind` determines which arrays are filled."""

    kind: int
    metric: int
    axis: int
    leaves: np.ndarray
    times: np.ndarray
    slots: np.ndarray
    boxes: np.ndarray
    flat: np.ndarray
    earliest: np.ndarray
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
def lengthen(gaps: Any, leaves: Any, leaf: Any, home: Any, lane: Any) -> Any:
    """Convert the largest difference to the Euclidean distance without squaring numbers above one."""
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
    """Lower bound of the gap to points in the box of a node, also with rounding."""
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
def insert(best: Any, neighbors: Any, row: Any, gap: Any, other: Any) -> Any:
    """Insert a point into a sorted row of nearest ones; ties are ordered by time."""
    at = best.shape[1] - 1
    if gap == best[row, at] and other > neighbors[row, at]:
        return
    while at > 0 and (best[row, at - 1] > gap or (best[row, at - 1] == gap and neighbors[row, at - 1] > other)):
        best[row, at] = best[row, at - 1]
        neighbors[row, at] = neighbors[row, at - 1]
        at -= 1
    best[row, at] = gap
    neighbors[row, at] = other


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
    neighbors: Any,
) -> Any:
    """Insert the points of a leaf into the list of nearest ones; return whether one is at distance zero."""
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
                    insert(best, neighbors, time, gaps[k], times[leaf, k])
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
    neighbors: Any,
    stack: Any,
    stack_gap: Any,
) -> Any:
    """Nearest points of one point: its own leaf, then siblings on the way up, nearer or earlier children first."""
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
        # Ties go to the earliest point; otherwise all copies of a few points would be visited.
        if gap > best[time, last] or (gap == best[time, last] and earliest[node] > neighbors[time, last]):
            continue
        if gap == 0.0 and flat[node]:
            repeat = True
        elif node >= n_leaves:
            repeat |= offer_leaf(leaves, times, node - n_leaves, home, lane, metric, theiler, gaps, best, neighbors)
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
    """Append the points of a leaf that lie within `limit`; return the new count, and whether one is at zero."""
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
    """Find all points within `limit` of one point, in the order of the leaves."""
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


# Arrays are passed one by one to functions called for every pair: numba copies a tuple of them at each call, which made
# the searches three times slower.
# ruff: noqa: PLR0917


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
    neighbors: Any,
) -> Any:
    """Nearest points of one point among points sorted along an axis: outwards until the axis alone exceeds the gap."""
    n_leaves = leaves.shape[0]
    time = times[home, lane]
    last = best.shape[1] - 1
    v = leaves[home, axis, lane]
    leaf = home
    step = 1
    repeat = False
    while True:
        repeat |= offer_leaf(leaves, times, leaf, home, lane, metric, theiler, gaps, best, neighbors)
        leaf += step
        if step > 0 and (leaf == n_leaves or axis_gap(leaves[leaf, axis, 0] - v, metric) > best[time, last]):
            leaf = home - 1
            step = -1
        if step < 0 and (leaf < 0 or axis_gap(v - leaves[leaf, axis, BUCKET - 1], metric) > best[time, last]):
            return repeat


@kernel(_nrt=False)
def matrix_nearest(matrix: Any, usable: Any, time: Any, theiler: Any, best: Any, neighbors: Any) -> Any:
    """Nearest points of one state, from a row of a distance matrix."""
    last = best.shape[1] - 1
    repeat = False
    for other in range(usable.shape[0]):
        gap = matrix[time, other]
        if not gap < best[time, last] or abs(other - time) < theiler or not usable[other]:
            continue
        if gap > 0.0:
            insert(best, neighbors, time, gap, other)
        else:
            repeat = True
    return repeat


@kernel(nogil=True)
def nearest(index: Any, first: Any, last: Any, theiler: Any, best: Any, neighbors: Any, repeats: Any) -> Any:
    """Fill `best` (gaps), `neighbors` (times) and `repeats` for the points of buckets (or matrix rows) first .. last.

    `best` is initially `FAR`, `neighbors` -1.
    """
    leaves, times, metric = index.leaves, index.times, index.metric
    boxes, flat, earliest = index.boxes, index.flat, index.earliest
    gaps = np.empty(BUCKET)
    stack = np.empty(STACK, dtype=np.int64)
    stack_gap = np.empty(STACK)
    if index.kind == MATRIX:
        for time in range(first, last):
            if index.usable[time]:
                repeats[time] = matrix_nearest(index.matrix, index.usable, time, theiler, best, neighbors)
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
                    neighbors,
                    stack,
                    stack_gap,
                )
            elif index.kind == SWEEP:
                repeats[time] = sweep_nearest(
                    leaves, times, index.axis, home, lane, metric, theiler, gaps, best, neighbors
                )
            else:
                for leaf in range(leaves.shape[0]):
                    repeats[time] |= offer_leaf(leaves, times, leaf, home, lane, metric, theiler, gaps, best, neighbors)


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
    """Find all points within `limit` of one point among points sorted along an axis, in that order."""
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


@kernel(_nrt=False)
def ball(index: Any, time: Any, theiler: Any, limit: Any, gaps: Any, near: Any, near_gap: Any, stack: Any) -> Any:
    """Find all states within `limit` of one state; return their number, and whether one is at zero."""
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
