"""Distances across the motion: what is left of a separation when its part along the velocity is taken out."""

from __future__ import annotations

import numpy as np

from trajtools.errors import DataError
from trajtools.neighbors.states import LANES, PRECOMPUTED, States, is_scaled, prepare
from trajtools.types import Floats, Ints

INFINITE = 1e300  # a state beyond is not finite, as in `prepare`
ROUNDING = 1e-14  # part of a squared distance below which what is left of it is rounding, as in the kernels


def directions(points: Floats) -> Floats:
    """Unit vectors along the motion, from central differences."""
    with np.errstate(invalid="ignore", over="ignore"):
        step = np.diff(points, axis=0)
    before, after = (np.full_like(points, np.nan) for _ in range(2))
    before[1:], after[:-1] = step, step
    velocity = before + after
    for one in (before, after, np.zeros_like(points)):
        unknown = ~np.isfinite(velocity).all(axis=1)
        velocity[unknown] = one[unknown]
    velocity[~(np.abs(points) < INFINITE).all(axis=1)] = np.nan
    size = np.linalg.norm(velocity, axis=1, keepdims=True)
    return np.asarray(velocity / np.where(size > 0, size, 1.0))


def across_motion(apart: Floats, both: Floats) -> Floats:
    """Length of what is left of separations when their part along the motion is taken out."""
    whole, along, size = (np.sum(each, axis=-1) for each in (apart * apart, apart * both, both * both))
    rest = whole - np.where(size > ROUNDING, along * along / np.maximum(size, ROUNDING), 0.0)
    return np.asarray(np.sqrt(np.where(rest > ROUNDING * whole, rest, 0.0)))


def has_directions(points: Floats) -> bool:
    """Whether distances across the motion can be taken: two dimensions or more, of numbers that can be squared."""
    return points.shape[1] > 1 and not is_scaled(prepare(points, metric="l2", theiler=0, horizon=0))


def check_motion(states: States) -> None:
    """Refuse states whose motion has no direction that could be taken out."""
    if states.code == PRECOMPUTED or states.metric != "l2" or states.points.shape[1] < 2 or is_scaled(states):
        raise DataError(
            "across=True takes the motion out of Euclidean distances of states with two dimensions or more, whose "
            f"numbers can be squared; got metric {states.metric!r} and {states.points.shape[1]} dimensions. Embed a "
            "series first, see trajtools.embed"
        )


def with_directions(states: States) -> Floats:
    """States and the directions of their motion, as the kernels read them."""
    check_motion(states)
    lags = np.zeros((2 * states.points.shape[1], len(states) + LANES))
    lags[:, : len(states)] = np.concatenate([states.points, directions(states.points)], axis=1).T
    return lags


def thinned(index: Ints, stride: int) -> Ints:
    """Lists of neighbours of every so many states; the others are no references."""
    if isinstance(stride, bool) or not isinstance(stride, (int, np.integer)) or stride < 1:
        raise DataError(f"stride={stride!r}: every so many states are references, a whole number from 1 on")
    if stride == 1:
        return index
    kept = np.full_like(index, -1)
    kept[::stride] = index[::stride]
    return kept
