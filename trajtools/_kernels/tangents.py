"""Tangent vectors along a chain of linear maps. See trajtools.exponents.spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools._kernels._jit import kernel


@kernel()
def orthonormalise(frame: Any, logs: Any) -> Any:
    """Gram-Schmidt in place, with logarithms of the norms; vanishing vectors become zero."""
    for c in range(frame.shape[1]):
        for before in range(c):
            overlap = 0.0
            for a in range(frame.shape[0]):
                overlap += frame[a, before] * frame[a, c]
            for a in range(frame.shape[0]):
                frame[a, c] -= overlap * frame[a, before]
        square = 0.0
        for a in range(frame.shape[0]):
            square += frame[a, c] ** 2
        logs[c] = 0.5 * np.log(square)
        for a in range(frame.shape[0]):
            frame[a, c] = frame[a, c] / np.sqrt(square) if square > 0.0 else 0.0


@kernel()
def multiply(matrix: Any, frame: Any, out: Any) -> Any:
    """Write the product of two small matrices into the third."""
    for a in range(matrix.shape[0]):
        for c in range(frame.shape[1]):
            total = 0.0
            for b in range(matrix.shape[1]):
                total += matrix[a, b] * frame[b, c]
            out[a, c] = total


@kernel()
def tangent_logs(maps: Any, linked: Any, planes: Any, k: Any) -> Any:
    """Logarithms (n, k) of the stretching of k orthonormal vectors in each map, and the vectors before (n, k, d).

    `linked`: whether a map continues from the previous one; if not, the vectors restart. `planes` holds orthonormal
    vectors as rows, (n, p, d), that span the subspace of the vectors before each map; the loss by projection onto it
    does not count. Without planes the vectors are unconstrained.
    """
    n, size = maps.shape[0], maps.shape[1]
    logs = np.empty((n, k))
    frames = np.empty((n, k, size))
    discarded = np.empty(k)
    frame = np.zeros((size, k))
    moved = np.zeros((size, k))
    inside = np.zeros((planes.shape[1], k))
    for t in range(n):
        if t == 0 or not linked[t]:
            for a in range(size):
                for c in range(k):
                    frame[a, c] = 1.0 if a == c else 0.0
                    if planes.shape[0] > 0:
                        frame[a, c] = planes[t, c, a]
        elif planes.shape[0] > 0:
            multiply(planes[t], frame, inside)
            orthonormalise(inside, discarded)
            multiply(planes[t].T, inside, frame)
        # Not by slices: the error for unequal shapes takes numba seconds to compile.
        for c in range(k):
            for a in range(size):
                frames[t, c, a] = frame[a, c]
        multiply(maps[t], frame, moved)
        orthonormalise(moved, logs[t])
        frame, moved = moved, frame
    return logs, frames
