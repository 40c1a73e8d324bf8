"""Counts of pairs of states by distance, all radii in one pass. See trajtools.structure.correlation_sum.

Bin 0 holds distance zero, bin k gaps in (limits[k - 1], limits[k]], the last bin those beyond the largest radius;
``limits`` starts with 0 and ends with inf. `start` maps the leading bits of a gap to its first possible bin. Ordered
pairs are counted, each under the block of its first state. A node of the tree with all points in one bin is counted as
a whole: rounding is monotonic, so the bounds of a box and the distances of its points are consistent.
"""

# Arrays are passed one by one to functions called for every pair: numba copies a tuple of them at each call.
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools._kernels._jit import kernel
from trajtools._kernels.neighbors import BUCKET, FAR, STACK, leaf_gaps, load_point
from trajtools.types import L1, L2, L2_SCALED

SHIFT = 47  # leaves the sign, 11 bits of exponent and 5 of the mantissa
LEAVES_PER_CHUNK = 256
_SCALED_ROUNDING = 1.0 + 1e-12  # widens the bound of a scaled distance, which is not computed term by term


@kernel()
def first_bins(limits: Any) -> Any:
    """First possible bin of a gap, for every value of its leading bits."""
    start = np.zeros(1 << (63 - SHIFT), dtype=np.int64)
    value = np.zeros(1)
    bits = value.view(np.int64)
    at = 0
    for key in range(start.shape[0]):
        bits[0] = np.int64(key) << SHIFT
        while at < limits.shape[0] - 1 and limits[at] < value[0]:
            at += 1
        start[key] = at
    return start


@kernel(_nrt=False, forceinline=True)
def _bin(gap: Any, bits: Any, start: Any, limits: Any) -> Any:
    at = start[bits >> SHIFT]
    while gap > limits[at]:
        at += 1
    return at


@kernel(_nrt=False)
def _bounds(boxes: Any, home: Any, node: Any, metric: Any, out: Any) -> Any:
    """Write the smallest and the largest gap between points of two boxes."""
    low = 0.0
    high = 0.0
    for c in range(boxes.shape[2]):
        near = max(boxes[node, 0, c] - boxes[home, 1, c], boxes[home, 0, c] - boxes[node, 1, c], 0.0)
        far = max(boxes[node, 1, c] - boxes[home, 0, c], boxes[home, 1, c] - boxes[node, 0, c])
        if metric == L2:
            low += near * near
            high += far * far
        elif metric == L1:
            low += near
            high += far
        else:
            low = near if near > low else low
            high = high + far if metric == L2_SCALED else max(high, far)
    out[0] = low
    out[1] = high * _SCALED_ROUNDING if metric == L2_SCALED else high


@kernel(_nrt=False)
def _count_leaf(
    leaves: Any,
    leaf: Any,
    home: Any,
    filled: Any,
    metric: Any,
    start: Any,
    limits: Any,
    logged: Any,
    point: Any,
    gaps: Any,
    bits: Any,
    lanes: Any,
    logs: Any,
) -> Any:
    """Bins of all pairs of two leaves, one row per lane of the home leaf."""
    last = limits.shape[0] - 1
    for lane in range(filled):
        load_point(leaves, home, lane, point)
        leaf_gaps(gaps, 0, leaves, leaf, point, metric)
        for k in range(BUCKET):
            if gaps[k] <= FAR:
                at = _bin(gaps[k], bits[k], start, limits)
                lanes[lane, at] += 1
                if 0 < at <= logged and at < last:
                    logs[lane, at] += np.log(gaps[k])


@kernel(_nrt=False)
def _count_home(
    leaves: Any,
    boxes: Any,
    sizes: Any,
    home: Any,
    filled: Any,
    metric: Any,
    start: Any,
    limits: Any,
    logged: Any,
    point: Any,
    gaps: Any,
    bits: Any,
    whole: Any,
    lanes: Any,
    logs: Any,
    stack: Any,
    ends: Any,
    end_bits: Any,
) -> Any:
    """Count all pairs with the first state in one leaf."""
    n_leaves = leaves.shape[0]
    last = limits.shape[0] - 1
    stack[0] = 1
    depth = 1
    while depth > 0:
        depth -= 1
        node = stack[depth]
        _bounds(boxes, n_leaves + home, node, metric, ends)
        low = _bin(ends[0], end_bits[0], start, limits)
        if low == last:
            whole[last] += sizes[node]
            continue
        if low == _bin(ends[1], end_bits[1], start, limits) and (low == 0 or low > logged):
            whole[low] += sizes[node]
        elif node >= n_leaves:
            _count_leaf(
                leaves, node - n_leaves, home, filled, metric, start, limits, logged, point, gaps, bits, lanes, logs
            )
        else:
            stack[depth] = 2 * node + 1
            stack[depth + 1] = 2 * node
            depth += 2


@kernel(nogil=True)
def tree_counts(
    leaves: Any,
    times: Any,
    boxes: Any,
    sizes: Any,
    metric: Any,
    limits: Any,
    start: Any,
    logged: Any,
    block: Any,
    first: Any,
    last: Any,
    counts: Any,
    logs: Any,
) -> Any:
    """Fill one row of counts (chunks, B, bins) and sums of logarithms per chunk of leaves, Theiler window included."""
    bins = limits.shape[0]
    whole = np.zeros(bins, dtype=np.int64)
    lanes = np.zeros((BUCKET, bins), dtype=np.int64)
    sums = np.zeros((BUCKET, bins))
    stack = np.empty(STACK, dtype=np.int64)
    point = np.empty(leaves.shape[1])
    gaps = np.empty(BUCKET)
    bits = gaps.view(np.int64)
    ends = np.empty(2)
    end_bits = ends.view(np.int64)
    n_leaves = leaves.shape[0]
    for chunk in range(first, last):
        for home in range(chunk * LEAVES_PER_CHUNK, min((chunk + 1) * LEAVES_PER_CHUNK, n_leaves)):
            filled = sizes[n_leaves + home]
            whole[:] = 0
            lanes[:] = 0
            sums[:] = 0.0
            _count_home(
                leaves,
                boxes,
                sizes,
                home,
                filled,
                metric,
                start,
                limits,
                logged,
                point,
                gaps,
                bits,
                whole,
                lanes,
                sums,
                stack,
                ends,
                end_bits,
            )
            for lane in range(filled):
                b = block[times[home, lane]]
                for at in range(bins):
                    counts[chunk, b, at] += whole[at] + lanes[lane, at]
                    logs[chunk, b, at] += sums[lane, at]


@kernel(_nrt=False)
def _gap(points: Any, i: Any, j: Any, metric: Any) -> Any:
    """Gap of one pair, term by term as in the leaves."""
    total = 0.0
    for c in range(points.shape[1]):
        step = abs(points[j, c] - points[i, c])
        if metric == L2:
            total += step * step
        elif metric == L1:
            total += step
        else:
            total = step if step > total else total
    if metric == L2_SCALED and 0.0 < total <= FAR:
        squares = 0.0
        for c in range(points.shape[1]):
            step = (points[j, c] - points[i, c]) / total
            squares += step * step
        total *= np.sqrt(squares)
    return total


@kernel(nogil=True)
def near_counts(
    points: Any,
    usable: Any,
    metric: Any,
    theiler: Any,
    limits: Any,
    start: Any,
    logged: Any,
    edges: Any,
    first: Any,
    last: Any,
    counts: Any,
    logs: Any,
) -> Any:
    """Count (B, bins) the pairs to subtract from `tree_counts`: inside the Theiler window, with self-pairs."""
    value = np.empty(1)
    bits = value.view(np.int64)
    top = limits.shape[0] - 1
    for b in range(first, last):
        for i in range(edges[b], edges[b + 1]):
            if not usable[i]:
                continue
            for j in range(max(i - theiler + 1, 0), min(i + theiler, points.shape[0])):
                if usable[j]:
                    value[0] = _gap(points, i, j, metric)
                    at = _bin(value[0], bits[0], start, limits)
                    counts[b, at] += 1
                    if 0 < at <= logged and at < top:
                        logs[b, at] += np.log(value[0])


@kernel(nogil=True)
def row_counts(
    rows: Any,
    at_row: Any,
    usable: Any,
    theiler: Any,
    limits: Any,
    start: Any,
    first: Any,
    last: Any,
    counts: Any,
    logs: Any,
) -> Any:
    """Count rows of distances (t, T) from row `at_row` of their matrix on, into counts (t, bins)."""
    value = np.empty(1)
    bits = value.view(np.int64)
    top = limits.shape[0] - 1
    for row in range(first, last):
        i = at_row + row
        if not usable[i]:
            continue
        for j in range(rows.shape[1]):
            # A missing distance is not a pair.
            if usable[j] and abs(i - j) >= theiler and rows[row, j] >= 0.0:
                value[0] = abs(rows[row, j])  # no negative zero: its bits would be out of range
                at = _bin(value[0], bits[0], start, limits)
                counts[row, at] += 1
                if 0 < at < top:
                    logs[row, at] += np.log(value[0])
