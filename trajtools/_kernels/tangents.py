"""Tangent vectors along a chain of linear maps. See trajtools.exponents.spectrum."""

# Arrays are passed one by one to kernels: a tuple of them takes longer to compile.
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools._kernels._jit import helper, kernel, section


@helper(_nrt=False)
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


@helper(_nrt=False)
def multiply(matrix: Any, frame: Any, out: Any) -> Any:
    """Write the product of two small matrices into the third."""
    for a in range(matrix.shape[0]):
        for c in range(frame.shape[1]):
            total = 0.0
            for b in range(matrix.shape[1]):
                total += matrix[a, b] * frame[b, c]
            out[a, c] = total


@section()
def _project(plane: Any, frame: Any, inside: Any, discarded: Any) -> Any:
    """Project vectors onto a plane, given by orthonormal rows, and make them orthonormal again."""
    multiply(plane, frame, inside)
    orthonormalise(inside, discarded)
    for a in range(frame.shape[0]):
        for c in range(frame.shape[1]):
            total = 0.0
            for b in range(plane.shape[0]):
                total += plane[b, a] * inside[b, c]
            frame[a, c] = total


def tangent_logs(
    maps: np.ndarray, linked: np.ndarray, planes: np.ndarray | None, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms (n, k) of the stretching of k orthonormal vectors in each map, and the vectors before (n, k, d).

    `linked`: whether a map continues from the previous one; if not, the vectors restart. `planes` holds orthonormal
    vectors as rows, (n, p, d), that span the subspace of the vectors before each map; the loss by projection onto it
    does not count. None: the vectors are unconstrained.
    """
    n, size = maps.shape[:2]
    logs, frames = np.empty((n, k)), np.empty((n, k, size))
    work = np.zeros((size, k)), np.zeros((size, k)), np.zeros((size, k)), np.empty(k)
    _tangent_rows(maps, linked, planes, *work, logs, frames)
    return logs, frames


@kernel(_nrt=False)
def _tangent_rows(
    maps: Any, linked: Any, planes: Any, frame: Any, moved: Any, inside: Any, discarded: Any, logs: Any, frames: Any
) -> Any:
    """`tangent_logs` with workspace; numba compiles the error for slices of unequal shapes for seconds."""
    for t in range(maps.shape[0]):
        if t == 0 or not linked[t]:
            for a in range(frame.shape[0]):
                for c in range(frame.shape[1]):
                    frame[a, c] = 1.0 if a == c else 0.0
                    if planes is not None:
                        frame[a, c] = planes[t, c, a]
        elif planes is not None:
            _project(planes[t], frame, inside[: planes.shape[1]], discarded)
        for c in range(frame.shape[1]):
            for a in range(frame.shape[0]):
                frames[t, c, a] = frame[a, c]
        multiply(maps[t], frame, moved)
        orthonormalise(moved, logs[t])
        frame, moved = moved, frame
