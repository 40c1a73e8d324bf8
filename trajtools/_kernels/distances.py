"""Distances between states: at equal times, and of all pairs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trajtools._kernels._jit import kernel
from trajtools.types import L1, L2

# Sums may be taken in any order, so that the compiler fills the vectors of the machine: the last bits depend on it, not
# on threads. Nothing else is relaxed: NaN and inf stay what they are.
_SUM = {"reassoc"}


@kernel(fastmath=_SUM)
def _sum_l1(x: Any, y: Any) -> Any:
    total = 0.0
    for p in range(x.shape[0]):
        total += abs(np.float64(x[p]) - np.float64(y[p]))
    return total


@kernel(fastmath=_SUM)
def root_l2(x: Any, y: Any) -> Any:
    """Root of the sum of squared differences of two rows."""
    total = 0.0
    for p in range(x.shape[0]):
        difference = np.float64(x[p]) - np.float64(y[p])
        total += difference * difference
    if 1e-280 <= total <= 1e300 or math.isnan(total):
        return math.sqrt(total)
    # Squares of very small or very large differences underflow or overflow: divide by the largest.
    largest = _largest(x, y)
    if not 0.0 < largest < np.inf:
        return largest
    total = 0.0
    for p in range(x.shape[0]):
        difference = (np.float64(x[p]) - np.float64(y[p])) / largest
        total += difference * difference
    return largest * math.sqrt(total)


@kernel()
def _largest(x: Any, y: Any) -> Any:
    # Magnitudes are ordered as their bits are, NaN above inf.
    largest = np.uint64(0)
    for p in range(x.shape[0]):
        largest = max(largest, np.float64(abs(np.float64(x[p]) - np.float64(y[p]))).view(np.uint64))
    return np.uint64(largest).view(np.float64)


@kernel(nogil=True)
def pairs_l1(a: Any, b: Any, left: Any, right: Any) -> Any:
    """Sum of absolute differences of a[t, left[k]] and b[t, right[k]]; see trajtools.distances.METRICS."""
    out = np.empty((a.shape[0], left.shape[0]))
    for t in range(a.shape[0]):
        x, y = a[t], b[t]
        for k in range(left.shape[0]):
            out[t, k] = _sum_l1(x[left[k]], y[right[k]])
    return out


@kernel(nogil=True)
def pairs_linf(a: Any, b: Any, left: Any, right: Any) -> Any:
    """Largest absolute difference, NaN if any is NaN; see trajtools.distances.METRICS."""
    out = np.empty((a.shape[0], left.shape[0]))
    for t in range(a.shape[0]):
        x, y = a[t], b[t]
        for k in range(left.shape[0]):
            out[t, k] = _largest(x[left[k]], y[right[k]])
    return out


@kernel(nogil=True)
def pairs_l2(a: Any, b: Any, left: Any, right: Any) -> Any:
    """Root of the sum of squared differences; see trajtools.distances.METRICS."""
    out = np.empty((a.shape[0], left.shape[0]))
    for t in range(a.shape[0]):
        x, y = a[t], b[t]
        for k in range(left.shape[0]):
            out[t, k] = root_l2(x[left[k]], y[right[k]])
    return out


@kernel(fastmath=_SUM)
def _spacings(bits: Any, shift: int, bias: int, mantissa: int, smallest: int) -> Any:
    """Sum, root sum of squares and maximum of the spacings of a row."""
    mask = np.uint64(2 * bias + 1)
    low = np.uint64(smallest + bias)
    raised = np.uint64(1023 - bias)
    scale = math.ldexp(1.0, -mantissa)
    total = squares = 0.0
    largest = np.uint64(0)
    for p in range(bits.shape[0]):
        exponent = (np.uint64(bits[p]) >> np.uint64(shift)) & mask
        power = (max(exponent, low) + raised) << np.uint64(52)
        # Where a weight is inf or NaN, the state has no floor, and its distance is NaN.
        power = power if exponent != mask else np.uint64(0)
        largest = max(largest, power)
        value = np.uint64(power).view(np.float64)
        total += value
        squares += value * value
    return total * scale, math.sqrt(squares) * scale, np.uint64(largest).view(np.float64) * scale


@kernel(nogil=True)
def rounding_rows(bits: Any, shift: int, bias: int, mantissa: int, smallest: int) -> Any:
    """Sum, root sum of squares and maximum of the spacings of a[t, m]; see trajtools.distances.rounding_floor.

    `bits` are the states (t, m, p) as unsigned integers, whose exponents begin at bit `shift` and are raised by `bias`.
    """
    out = np.empty((3, bits.shape[0], bits.shape[1]))
    for t in range(bits.shape[0]):
        for m in range(bits.shape[1]):
            out[0, t, m], out[1, t, m], out[2, t, m] = _spacings(bits[t, m], shift, bias, mantissa, smallest)
    return out


# Arrays are passed one by one to functions called for every pair or piece: numba copies a tuple of them at each call.
# ruff: noqa: PLR0917


@kernel(nogil=True)
def twin_rows(block: Any, left: Any, right: Any, metric: int, distance: Any, top: int, add: bool) -> None:
    """Distances of members left[k] to right[k] of states (m, t, p), in the rows of (T, k) from `top` on.

    With `add`, they are merged with what is there, distances over other entries.
    """
    for k in range(left.shape[0]):
        x, y = block[left[k]], block[right[k]]
        for t in range(block.shape[1]):
            # Inlined: of rows of 100 weights, three quarters of the time would be the call.
            part = _sum_l1(x[t], y[t]) if metric == L1 else _distance(x[t], y[t], metric)
            distance[top + t, k] = _merged(distance[top + t, k], part, metric) if add else part


@kernel(nogil=True)
def reference_rows(
    block: Any,
    bits: Any,
    centre: Any,
    before: Any,
    at: int,
    metric: int,
    layout: Any,
    norm: Any,
    speed: Any,
    spacings: Any,
    top: int,
    add: bool,
) -> None:
    """Distances of members centre[r] of a block (m, t, p) to zero and (L1) to the previous state, and spacings.

    They fill the rows of (T, r) and (3, T, r) from `top` on; with `add`, they are merged with what is there. The
    spacings, of which `bits` and the numbers of `layout` are as in `rounding_rows`, are left out without a layout.
    `before`, (r, P), holds the states before the first ones from the entry `at` on, and takes the last ones.
    """
    zero = np.zeros(0 if metric == L1 else block.shape[2], block.dtype)
    for r in range(centre.shape[0]):
        states, own = block[centre[r]], bits[centre[r]]
        last = before[r][at : at + block.shape[2]]  # contiguous, in the eyes of the compiler
        for t in range(block.shape[1]):
            row = top + t
            length, change = _size_and_change(states[t], states[t - 1] if t else last)
            if metric != L1:
                length = _distance(states[t], zero, metric)
            norm[row, r] = _merged(norm[row, r], length, metric) if add else length
            speed[row, r] = speed[row, r] + change if add else change
            if layout is not None:
                total, root, largest = _spacings(own[t], *layout)
                spacings[0, row, r] = spacings[0, row, r] + total if add else total
                spacings[1, row, r] = math.hypot(spacings[1, row, r], root) if add else root
                spacings[2, row, r] = max(spacings[2, row, r], largest) if add else largest
        _copy(states[block.shape[1] - 1], last)


@kernel()
def _merged(one: float, other: float, metric: int) -> Any:
    """Distance over two sets of entries, from those over each."""
    if metric == L1:
        return one + other
    if metric == L2:
        return math.hypot(one, other)
    return one if one >= other or math.isnan(one) else other


@kernel(fastmath=_SUM)
def _size_and_change(x: Any, y: Any) -> Any:
    """L1 distances of a row to zero and to another one, in one pass."""
    size = change = 0.0
    for p in range(x.shape[0]):
        value = np.float64(x[p])
        size += abs(value)
        change += abs(value - np.float64(y[p]))
    return size, change


@kernel()
def _copy(x: Any, y: Any) -> Any:
    # Assigned to a slice, they would be copied one by one.
    for p in range(x.shape[0]):
        y[p] = x[p]


@kernel()
def _distance(x: Any, y: Any, metric: int) -> Any:
    if metric == L1:
        return _sum_l1(x, y)
    return root_l2(x, y) if metric == L2 else _largest(x, y)


# Entries of a row compared at a time, so that a tile of them stays in the cache.
CHUNK = 512
TILE = 16


@kernel(_nrt=False, forceinline=True)
def _part(points: Any, i: Any, j: Any, start: Any, stop: Any, metric: Any) -> Any:
    """Sum over some entries of one pair, with four running sums to hide latency."""
    s0 = s1 = s2 = s3 = 0.0
    whole = start + ((stop - start) // 4) * 4
    if metric == L2:
        for c in range(start, whole, 4):
            d0 = points[i, c] - points[j, c]
            d1 = points[i, c + 1] - points[j, c + 1]
            d2 = points[i, c + 2] - points[j, c + 2]
            d3 = points[i, c + 3] - points[j, c + 3]
            s0 += d0 * d0
            s1 += d1 * d1
            s2 += d2 * d2
            s3 += d3 * d3
        for c in range(whole, stop):
            d0 = points[i, c] - points[j, c]
            s0 += d0 * d0
        return (s0 + s1) + (s2 + s3)
    if metric == L1:
        for c in range(start, whole, 4):
            s0 += abs(points[i, c] - points[j, c])
            s1 += abs(points[i, c + 1] - points[j, c + 1])
            s2 += abs(points[i, c + 2] - points[j, c + 2])
            s3 += abs(points[i, c + 3] - points[j, c + 3])
        for c in range(whole, stop):
            s0 += abs(points[i, c] - points[j, c])
        return (s0 + s1) + (s2 + s3)
    broken = False
    for c in range(start, stop):
        d0 = abs(points[i, c] - points[j, c])
        s0 = d0 if d0 > s0 else s0
        broken |= np.isnan(d0)
    return np.nan if broken else s0


@kernel(nogil=True)
def distance_rows(points: Any, metric: Any, first: Any, last: Any, matrix: Any) -> Any:
    """Fill the tiles of rows first .. last of a symmetric matrix (T, T), initially zero."""
    length, d = points.shape
    for tile in range(first, last):
        top = tile * TILE
        bottom = min(top + TILE, length)
        for start in range(0, d, CHUNK):
            stop = min(start + CHUNK, d)
            for j in range(bottom):
                for i in range(max(top, j + 1), bottom):
                    part = _part(points, i, j, start, stop, metric)
                    if metric in (L1, L2):
                        matrix[i, j] += part
                    else:
                        matrix[i, j] = matrix[i, j] if part <= matrix[i, j] else part
        for i in range(top, bottom):
            for j in range(i):
                if metric == L2:
                    matrix[i, j] = np.sqrt(matrix[i, j])
                matrix[j, i] = matrix[i, j]
