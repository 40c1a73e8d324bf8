"""In how many directions the neighbourhoods of a trajectory extend; `lyapunov_spectrum` asks before it fits maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.neighbors.search import evenly
from trajtools.neighbors.states import States
from trajtools.types import Floats

# Neighbours per dimension of the small and of the large neighbourhoods, and how many states are asked.
SMALL, LARGE = 6, 24
STATES = 400
# Extent ~ size along the attractor, ~ size^2 across it; a thin direction that is also fractal or noisy lies between.
BORDER = 1.35
_ROUNDING = 1e4  # spacings of the largest coordinate: smaller extents are those of rounding and its drift
_REFERENCE_DRAWS = 400


@dataclass(frozen=True, eq=False)
class Thickness:
    """How the extent of neighbourhoods grows with their size.

    Attributes
    ----------
    growth : ndarray of float64, shape (d,)
        Power of the size with which the extent grows in each principal direction; NaN where unknown.
    directions : int
        Leading directions with a power below `BORDER`; all of them where it is unknown.
    sizes : (int, int)
        Neighbours in the small and in the large neighbourhoods.
    rounding : float
        Extents smaller than this are made by rounding.
    known : bool
        Whether the record was long enough.
    """

    growth: Floats
    directions: int
    sizes: tuple[int, int]
    rounding: float
    known: bool


def thickness(states: States, dtype: Any = np.float64) -> Thickness:
    r"""Compare the principal extents of small and large neighbourhoods.

    Notes
    -----
    The power of direction c is the median over states of :math:`\ln \sigma_c(large)/\sigma_c(small)`, over that of the
    first direction. Few points fill their minor directions worse than many: the same ratio for points drawn evenly
    from a d-dimensional ball is subtracted, so that a cloud without structure has the power 1 in all directions. A
    direction in which the neighbours differ by rounding only has an infinite power.
    """
    from trajtools._kernels.divergence import nearest_of

    d = states.points.shape[1]
    rounding = _rounding(states, dtype)
    sizes = (SMALL * (d + 1), LARGE * (d + 1))
    usable = np.flatnonzero(states.usable)
    if len(usable) < 4 * sizes[1]:
        return Thickness(np.full(d, np.nan), d, sizes, rounding, known=False)
    if d == 1:
        return Thickness(np.ones(1), 1, sizes, rounding, known=True)
    times = evenly(usable, STATES)
    points = np.ascontiguousarray(states.points)
    _, index, _ = nearest_of(points, states.matrix, states.usable, times, sizes[1], states.theiler, states.code)
    index = index[index[:, -1] >= 0]
    if not len(index):
        return Thickness(np.full(d, np.nan), d, sizes, rounding, known=False)
    large, small = _extents(points[index]), _extents(points[index[:, : sizes[0]]])
    fill = np.mean(_extents(_ball(d, sizes[1])) - _extents(_ball(d, sizes[0])), axis=0)
    with np.errstate(invalid="ignore"):
        middle = np.median(large - small, axis=0) - (fill - fill[0])
    if not middle[0] > 0:
        return Thickness(np.full(d, np.nan), d, sizes, rounding, known=False)
    dead = ~np.isfinite(middle) | (np.median(large, axis=0) < np.log(rounding))
    growth = np.where(dead, np.inf, middle / middle[0])
    thick = growth < BORDER
    directions = int(d if thick.all() else np.argmin(thick))
    return Thickness(growth, max(directions, 1), sizes, rounding, known=True)


def _rounding(states: States, dtype: Any) -> float:
    """Extents that rounding and its drift make; a subnormal number where all states are zero."""
    spacing = np.finfo(dtype if np.issubdtype(dtype, np.floating) else np.float64).eps
    return float(max(_ROUNDING * float(spacing) * np.abs(states.points[states.usable]).max(), 5e-324))


def _extents(clouds: Floats) -> Floats:
    """Logarithms of the root mean square extents of clouds (n, m, d) in their principal directions, (n, d)."""
    centred = clouds - clouds.mean(axis=1, keepdims=True)
    top = np.abs(centred).max(axis=(1, 2), keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        extents = np.linalg.svd(np.where(top > 0, centred / top, 0.0), compute_uv=False)
        return np.asarray(np.log(extents / np.sqrt(clouds.shape[1])) + np.log(top[:, :, 0]))


def _ball(d: int, count: int) -> Floats:
    """Clouds of points drawn evenly from the unit ball, always the same ones."""
    rng = np.random.default_rng(0)
    draws = max(8, _REFERENCE_DRAWS // d)
    points = rng.normal(size=(draws, count, d))
    points /= np.linalg.norm(points, axis=2, keepdims=True)
    return np.asarray(points * rng.random((draws, count, 1)) ** (1 / d))
