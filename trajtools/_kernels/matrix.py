"""All distances between states of many dimensions, by direct differences. See trajtools.neighbors.states.compact."""

# Arrays go one by one into what is called for every pair: numba copies a tuple of them at each call.
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools._kernels._jit import kernel
from trajtools._kernels.tree import L1, L2

# Entries of a row that are compared at a time: a tile of them stays in the cache while the other rows pass.
CHUNK = 512
TILE = 16


@kernel(_nrt=False, forceinline=True)
def _part(points: Any, i: Any, j: Any, start: Any, stop: Any, metric: Any) -> Any:
    """Sum over some entries of one pair. Four running sums: one alone would wait for its own last addition."""
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
    """Fill the tiles of rows first .. last of a symmetric matrix (T, T) that comes filled with zeros."""
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
