"""Distances of chosen pairs, along the way and to everything. See trajtools.neighbors.segments."""

# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from trajtools._kernels._jit import kernel
from trajtools._kernels.tree import L1, L2, L2_SCALED, PRECOMPUTED


@kernel()
def distance(points: Any, matrix: Any, i: Any, j: Any, metric: Any) -> Any:
    """Distance of two states; four sums side by side, because one after the other waits for itself."""
    if metric == PRECOMPUTED:
        return matrix[i, j]
    a, b = points[i], points[j]
    whole = a.shape[0] // 4 * 4
    s0 = s1 = s2 = s3 = 0.0
    if metric == L2:
        for c in range(0, whole, 4):
            s0 += (a[c] - b[c]) ** 2
            s1 += (a[c + 1] - b[c + 1]) ** 2
            s2 += (a[c + 2] - b[c + 2]) ** 2
            s3 += (a[c + 3] - b[c + 3]) ** 2
        for c in range(whole, a.shape[0]):
            s0 += (a[c] - b[c]) ** 2
        return np.sqrt((s0 + s1) + (s2 + s3))
    if metric == L1:
        for c in range(0, whole, 4):
            s0 += abs(a[c] - b[c])
            s1 += abs(a[c + 1] - b[c + 1])
            s2 += abs(a[c + 2] - b[c + 2])
            s3 += abs(a[c + 3] - b[c + 3])
        for c in range(whole, a.shape[0]):
            s0 += abs(a[c] - b[c])
        return (s0 + s1) + (s2 + s3)
    top = 0.0
    for c in range(a.shape[0]):
        top = max(top, abs(a[c] - b[c]))
    if metric == L2_SCALED and top > 0.0:
        for c in range(a.shape[0]):
            s0 += ((a[c] - b[c]) / top) ** 2
        return top * np.sqrt(s0)
    return top


@kernel()
def distances_to(points: Any, matrix: Any, i: Any, others: Any, metric: Any) -> Any:
    """Distances of one state to some others."""
    out = np.empty(others.shape[0])
    for m in range(others.shape[0]):
        out[m] = distance(points, matrix, i, others[m], metric)
    return out


@kernel()
def paths(points: Any, matrix: Any, i: Any, others: Any, horizon: Any, metric: Any) -> Any:
    """Distances of one state to some others, and of their successors: one row per other state."""
    out = np.empty((others.shape[0], horizon + 1))
    for m in range(others.shape[0]):
        for k in range(horizon + 1):
            out[m, k] = distance(points, matrix, i + k, others[m] + k, metric)
    return out


@kernel(parallel=True)
def nearest_of(points: Any, matrix: Any, usable: Any, times: Any, k: Any, theiler: Any, metric: Any) -> Any:
    """The k nearest states of some states: distances, times with -1 where there is none, pairs at distance zero."""
    best = np.full((times.shape[0], k), np.inf)
    found = np.full((times.shape[0], k), -1, dtype=np.int64)
    repeats = np.zeros(times.shape[0], dtype=np.int64)
    for row in prange(times.shape[0]):
        i = times[row]
        for j in range(usable.shape[0]):
            if abs(i - j) < theiler or not usable[j]:
                continue
            d = distance(points, matrix, i, j, metric)
            if d == 0.0:
                repeats[row] += 1
            if not 0.0 < d < best[row, k - 1]:
                continue
            at = k - 1
            while at > 0 and best[row, at - 1] > d:
                best[row, at] = best[row, at - 1]
                found[row, at] = found[row, at - 1]
                at -= 1
            best[row, at] = d
            found[row, at] = j
    return best, found, repeats
