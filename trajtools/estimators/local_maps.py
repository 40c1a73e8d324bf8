"""Linear maps fitted to the neighbours of states, and vectors sent through them; see `lyapunov_spectrum`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.errors import NoNeighborsError
from trajtools.estimators.thickness import Thickness
from trajtools.neighbors.states import States
from trajtools.types import Floats, Ints

_CHUNK = 2_000_000  # numbers of a batch of neighbourhoods
_IN_PLANE = 0.95  # overlap from which free vectors count as lying in the tangent planes


@dataclass(frozen=True, eq=False)
class LocalMaps:
    """Affine maps along a record.

    Attributes
    ----------
    linear : ndarray of float64, shape (n, d, d)
        Their linear parts.
    principal : ndarray of float64, shape (n, d, d)
        Principal directions of the neighbourhoods, as rows.
    times : ndarray of int64, shape (n,)
        Where they begin.
    linked : ndarray of bool, shape (n,)
        Whether a map begins where the one before ends.
    unexplained : ndarray of float64, shape (n,)
        The part of the neighbours' scatter after a map that the fit leaves, 1 if it explains nothing.
    """

    linear: Floats
    principal: Floats
    times: Ints
    linked: Any
    unexplained: Floats


def fit_maps(states: States, index: Ints, rows: Ints, across: Thickness) -> LocalMaps:
    """Fit the maps along the record, each from where the one before ends."""
    step, d = states.horizon, states.points.shape[1]
    has = np.zeros(len(states), dtype=bool)
    has[rows] = True
    chain = np.arange(int(rows[0]), len(states) - step, step)
    chain = chain[has[chain]]
    linear, principal = np.empty((len(chain), d, d)), np.empty((len(chain), d, d))
    rank, unexplained = np.empty(len(chain), dtype=np.int64), np.empty(len(chain))
    batch = max(1, _CHUNK // (index.shape[1] * d))
    for start in range(0, len(chain), batch):
        part = slice(start, min(start + batch, len(chain)))
        linear[part], principal[part], rank[part], unexplained[part] = _maps(
            states, index[chain[part]], across.rounding
        )
    spanned = rank >= across.directions
    if not spanned.any():
        raise NoNeighborsError(
            f"the {index.shape[1]} neighbours of no state span {across.directions} directions, so no map can be "
            "fitted: states repeat, or a coordinate is constant or a multiple of others; leave it out or use more "
            "neighbours"
        )
    chain = chain[spanned]
    linked = np.concatenate([[False], np.diff(chain) == step])
    return LocalMaps(linear[spanned], principal[spanned], chain, linked, unexplained[spanned])


def stretching(maps: LocalMaps, directions: int) -> tuple[Floats, Floats | None, float]:
    """Send orthonormal vectors through the maps."""
    from trajtools._kernels.tangents import tangent_logs

    d = maps.linear.shape[1]
    free, vectors = tangent_logs(maps.linear, maps.linked, np.empty((0, d, d)), d)
    if directions == d:
        return free, None, 1.0
    planes = np.ascontiguousarray(maps.principal[:, :directions])
    inside = planes @ np.swapaxes(vectors[:, :directions], 1, 2)
    overlap = float(np.median(np.linalg.svd(inside, compute_uv=False)[:, -1]))
    if overlap >= _IN_PLANE:
        return free, None, overlap
    laid, _ = tangent_logs(maps.linear, maps.linked, planes, directions)
    return free, laid, overlap


def _maps(states: States, near: Ints, rounding: float) -> tuple[Floats, Floats, Ints, Floats]:
    """Linear parts of affine fits, principal directions as rows, ranks of the neighbourhoods, what is unexplained."""
    before, after = states.points[near], states.points[near + states.horizon]
    before = before - before.mean(axis=1, keepdims=True)
    after = after - after.mean(axis=1, keepdims=True)
    # Neighbourhoods are tiny: bring them to size one, so that no scale of the states matters to the inverse.
    scale = np.maximum(np.abs(before).max(axis=(1, 2), keepdims=True), rounding)
    after /= scale
    left, extent, principal = np.linalg.svd(before / scale, full_matrices=False)
    # A direction in which the neighbours do not differ at all has no map.
    dead = extent * scale[:, 0] <= rounding
    inverse = np.where(dead, 0.0, 1.0 / np.where(dead, 1.0, extent))
    image = np.swapaxes(left, 1, 2) @ after
    linear = np.swapaxes(image * inverse[:, :, None], 1, 2) @ principal
    rank = np.count_nonzero(~dead, axis=1)
    top = np.abs(after).max(axis=(1, 2), keepdims=True)
    top[top == 0] = 1.0
    left_over = np.sum(((after - left @ image) / top) ** 2, axis=(1, 2)) / np.maximum(near.shape[1] - 1 - rank, 1)
    total = np.sum((after / top) ** 2, axis=(1, 2)) / (near.shape[1] - 1)
    return linear, principal, rank, np.where(total > 0, left_over / np.where(total > 0, total, 1.0), 0.0)
