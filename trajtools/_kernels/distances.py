"""Distances between states: at equal times, of all pairs, and along the coupling of two paths."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trajtools._kernels._jit import kernel
from trajtools.types import L1, L2


@kernel(nogil=True)
def pairs_l1(a: Any, b: Any, left: Any, right: Any) -> Any:
    """Sum of absolute differences of a[t, left[k]] and b[t, right[k]]; see trajtools.distances.METRICS."""
    out = np.empty((a.shape[0], left.shape[0]))
    size = a.shape[2]
    for t in range(a.shape[0]):
        for k in range(left.shape[0]):
            i, j = left[k], right[k]
            # Four running sums hide the latency of the additions.
            s0 = s1 = s2 = s3 = 0.0
            whole = size - size % 4
            for p in range(0, whole, 4):
                s0 += abs(np.float64(a[t, i, p]) - np.float64(b[t, j, p]))
                s1 += abs(np.float64(a[t, i, p + 1]) - np.float64(b[t, j, p + 1]))
                s2 += abs(np.float64(a[t, i, p + 2]) - np.float64(b[t, j, p + 2]))
                s3 += abs(np.float64(a[t, i, p + 3]) - np.float64(b[t, j, p + 3]))
            for p in range(whole, size):
                s0 += abs(np.float64(a[t, i, p]) - np.float64(b[t, j, p]))
            out[t, k] = (s0 + s1) + (s2 + s3)
    return out


@kernel(nogil=True)
def pairs_linf(a: Any, b: Any, left: Any, right: Any) -> Any:
    """Largest absolute difference, NaN if any is NaN; see trajtools.distances.METRICS."""
    out = np.empty((a.shape[0], left.shape[0]))
    for t in range(a.shape[0]):
        for k in range(left.shape[0]):
            i, j = left[k], right[k]
            largest = 0.0
            broken = False
            for p in range(a.shape[2]):
                difference = abs(np.float64(a[t, i, p]) - np.float64(b[t, j, p]))
                if difference > largest:
                    largest = difference
                elif math.isnan(difference):
                    broken = True
            out[t, k] = np.nan if broken else largest
    return out


@kernel(nogil=True)
def pairs_l2(a: Any, b: Any, left: Any, right: Any) -> Any:
    """Root of the sum of squared differences; see trajtools.distances.METRICS."""
    out = np.empty((a.shape[0], left.shape[0]))
    size = a.shape[2]
    for t in range(a.shape[0]):
        for k in range(left.shape[0]):
            i, j = left[k], right[k]
            s0 = s1 = 0.0
            whole = size - size % 2
            for p in range(0, whole, 2):
                d0 = np.float64(a[t, i, p]) - np.float64(b[t, j, p])
                d1 = np.float64(a[t, i, p + 1]) - np.float64(b[t, j, p + 1])
                s0 += d0 * d0
                s1 += d1 * d1
            if whole < size:
                d0 = np.float64(a[t, i, whole]) - np.float64(b[t, j, whole])
                s0 += d0 * d0
            total = s0 + s1
            if total < 1e-280 or total > 1e300:
                # Squares of very small or very large differences underflow or overflow: divide by the largest.
                largest = 0.0
                for p in range(size):
                    difference = abs(np.float64(a[t, i, p]) - np.float64(b[t, j, p]))
                    largest = max(largest, difference)
                if largest > 0.0 and largest < np.inf:
                    total = 0.0
                    for p in range(size):
                        d0 = (np.float64(a[t, i, p]) - np.float64(b[t, j, p])) / largest
                        total += d0 * d0
                    out[t, k] = largest * math.sqrt(total)
                else:
                    out[t, k] = largest
            else:
                out[t, k] = math.sqrt(total)
    return out


@kernel(nogil=True)
def rounding_rows(a: Any, mantissa: int, smallest: int) -> Any:
    """Sum, root sum of squares and maximum of the spacings of a[t, m]; see trajtools.distances.rounding_floor."""
    out = np.empty((3, a.shape[0], a.shape[1]))
    for t in range(a.shape[0]):
        for m in range(a.shape[1]):
            total = squares = largest = 0.0
            for p in range(a.shape[2]):
                value = abs(np.float64(a[t, m, p]))
                if value < np.inf:  # also false for NaN: such a state has no floor, and its distance is NaN
                    exponent = math.frexp(value)[1] - 1 if value > 0.0 else smallest
                    spacing = math.ldexp(1.0, max(exponent, smallest) - mantissa)
                    total += spacing
                    squares += spacing * spacing
                    largest = max(largest, spacing)
            out[0, t, m] = total
            out[1, t, m] = math.sqrt(squares)
            out[2, t, m] = largest
    return out


# Arrays are passed one by one to functions called for every pair: numba copies a tuple of them at each call.
# ruff: noqa: PLR0917


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


@kernel(nogil=True)
def coupled_rows(distances: Any, before: Any, begun: bool) -> Any:
    """Last row of the discrete Frechet table after the rows of `distances`, given the row before them.

    See trajtools.stability.pairs.
    """
    row = before.copy()
    for i in range(distances.shape[0]):
        # The first pair has no predecessor: the coupling starts there.
        diagonal = np.inf if begun or i > 0 else -np.inf
        left = np.inf
        for j in range(distances.shape[1]):
            above = row[j]
            reach = min(above, diagonal, left)
            left = max(reach, distances[i, j])
            row[j] = left
            diagonal = above
    return row
