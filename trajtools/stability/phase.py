r"""The phase of a perturbed trajectory on the orbit of its reference, between the states that were recorded.

The orbit through recorded states is followed as a polynomial of degree 5 through six of them. The phase is the place
where the Euclidean distance to it has a minimum, followed continuously from the step of the perturbation on: a global
minimum would jump by whole periods on a closed orbit. What is left of the difference at that place is orthogonal to
the local velocity: the neutral direction along the flow has been removed.

Whether the recorded states are dense enough for that is measured, not assumed: every state is predicted from six
neighbours at twice the spacing, and where that misses by more than a tenth of the way between the neighbours the
orbit is taken as the set of its states and nothing is removed. The same number, divided by 64 = 2^6, is the error of
the interpolation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.distances.equal_times import common, pairs
from trajtools.distances.metric import Metric, kernel_ready
from trajtools.stability.rows import Rows
from trajtools.types import Bools, Floats, Ints

NODES = 6
AROUND = 5  # states on either side that the check of the interpolation needs
SMOOTH = 0.1
BAND = 4  # the minimum is looked up this far from where it is expected; further away it is computed when needed
BAND_ROWS = 32
STENCIL_BYTES = 48 * 2**20
# Midpoint weights of six equally spaced nodes, and the value of their error polynomial there.
_MIDDLE = np.array([3, -25, 150, 150, -25, 3]) / 256
_ERROR_AT_MIDDLE = 3.515625
_NEWTON = 6
_ONE = np.zeros(1, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Phase:
    """Where a perturbed trajectory is on the orbit.

    Attributes
    ----------
    place : ndarray of float64, shape (K,)
        Index of the orbit's state at the same phase, with its fraction; NaN for states that are not finite.
    transverse : ndarray of float64, shape (K,)
        Distance to the orbit at that place; NaN where the place lies beyond an end of the record.
    resolution : ndarray of float64, shape (K,)
        Error of the interpolated orbit at that place, in the metric; 0 where nothing was interpolated.
    removed : ndarray of bool, shape (K,)
        Where the neutral direction was removed.
    censored : ndarray of bool, shape (K,)
        Where the place lies beyond an end of the record.
    """

    place: Floats
    transverse: Floats
    resolution: Floats
    removed: Bools
    censored: Bools


def follow_phase(metric: Metric, path: Rows, orbit: Rows, *, rows: Ints, start: int) -> Phase:
    """Follow the phase of a path on an orbit."""
    count = len(rows)
    size = 8 * max(path.shape[1], 1)
    tall = max(1, STENCIL_BYTES // (size * (NODES + 8)))
    parts: list[tuple[Any, ...]] = []
    at = start
    for first in range(0, count, tall):
        states = path.take(rows[first : first + tall])
        found, at = _descend(states, orbit, at)
        parts.append(_refine(metric, states, orbit, found))
    place, transverse, resolution, removed, censored = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Phase(place, transverse, resolution, removed, censored)


def _descend(states: Any, orbit: Rows, at: int) -> tuple[Ints, int]:
    """Local minimum of the Euclidean distance for each state, each begun one state after the last one's."""
    ready = kernel_ready(states)
    fine = np.isfinite(ready).all(axis=1)
    out = np.full(len(ready), -1, dtype=np.int64)
    for first in range(0, len(ready), BAND_ROWS):
        stop = min(first + BAND_ROWS, len(ready))
        near = _Near(ready[first:stop], orbit, at)
        for b in range(stop - first):
            if fine[first + b]:
                at = _minimum(near, b, at)
                out[first + b] = at
            at += 1
    return out, at


def _minimum(near: _Near, b: int, at: int) -> int:
    """Walk downhill from `at`; ties stay, so that an orbit at rest has no phase that wanders."""
    at = min(max(at, 0), near.last)
    here = near(b, at)
    while True:
        before, after = near(b, at - 1), near(b, at + 1)
        if not min(before, after) < here:
            return at
        at, here = (at - 1, before) if before <= after else (at + 1, after)


class _Near:
    """Euclidean distances of some states to the orbit's states near them: a band at once, others when asked for."""

    def __init__(self, states: Any, orbit: Rows, at: int) -> None:
        self.last = len(orbit) - 1
        self._states, self._orbit, self._from = states, orbit, at - BAND
        index = at + np.arange(len(states))[:, None] + np.arange(-BAND, BAND + 1)
        clipped = np.clip(index, 0, self.last)
        wanted, inverse = np.unique(clipped, return_inverse=True)
        left = np.repeat(np.arange(len(states)), 2 * BAND + 1)
        self._band = _euclidean(states, orbit.take(wanted), left, inverse.ravel()).reshape(index.shape)

    def __call__(self, b: int, s: int) -> float:
        if not 0 <= s <= self.last:
            return float("inf")
        j = s - self._from - b
        if 0 <= j <= 2 * BAND:
            found = float(self._band[b, j])
        else:
            found = float(_euclidean(self._states[b : b + 1], self._orbit.take(np.array([s])), _ONE, _ONE)[0])
        return found if np.isfinite(found) else float("inf")


def _euclidean(a: Any, b: Any, left: Ints, right: Ints) -> Floats:
    from trajtools._kernels.distances import pairs_l2

    a, b = common(a, b)
    return np.asarray(pairs_l2(a[None], b[None], left, right)[0])


def _refine(metric: Metric, states: Any, orbit: Rows, nearest: Ints) -> tuple[Any, ...]:
    """Place between the states, distance there, its error, and where the neutral direction was removed."""
    count, last = len(nearest), len(orbit) - 1
    place, transverse = np.where(nearest >= 0, nearest, np.nan), np.full(count, np.nan)
    resolution, removed = np.zeros(count), np.zeros(count, dtype=bool)
    known = np.flatnonzero(nearest >= 0)
    if len(known):
        here = orbit.take(nearest[known])
        transverse[known] = _rowwise(metric, states[known], here)
    missed, smooth = _interpolation(metric, orbit, nearest[known])
    fit = known[smooth]
    if len(fit):
        base = np.clip(nearest[fit] - NODES // 2 + 1, 0, last + 1 - NODES)
        with np.errstate(invalid="ignore"):  # beside a state that is not finite there is no place, and NaN says so
            u, point = _project(np.asarray(states[fit], dtype=np.float64), orbit, base, nearest[fit])
        place[fit] = base + u
        transverse[fit] = _rowwise(metric, np.asarray(states[fit], dtype=np.float64), point)
        shape = np.abs(np.prod(u[:, None] - np.arange(NODES), axis=1)) / _ERROR_AT_MIDDLE
        resolution[fit] = missed[smooth] / 2**NODES * shape
        removed[fit] = True
    # The nearest state at an end of the record only bounds the distance, unless the place itself is inside.
    ends = (nearest == 0) | (nearest == last)
    censored = ends & np.where(removed, (place < -0.5) | (place > last + 0.5), False)
    transverse[censored] = np.nan
    return place, transverse, resolution, removed, censored


def _rowwise(metric: Metric, a: Any, b: Any) -> Floats:
    index = np.zeros(1, dtype=np.int64)
    return pairs(metric, np.asarray(a)[:, None], np.asarray(b)[:, None], index, index)[:, 0]


def _interpolation(metric: Metric, orbit: Rows, nearest: Ints) -> tuple[Floats, Bools]:
    """How far six neighbours at twice the spacing miss each state, and whether that is little."""
    last = len(orbit) - 1
    if last < 2 * AROUND or not len(nearest):
        return np.full(len(nearest), np.nan), np.zeros(len(nearest), dtype=bool)
    centre = np.clip(nearest, AROUND, last - AROUND)
    states, inverse = np.unique(centre, return_inverse=True)
    middle = np.asarray(orbit.take(states), dtype=np.float64)
    predicted = np.zeros_like(middle)
    for k, weight in zip(range(-AROUND, AROUND + 1, 2), _MIDDLE, strict=True):
        # Differences, not states: the weights add up to one, and what they add is small.
        predicted += weight * (orbit.take(states + k) - middle)
    step = np.linalg.norm(np.asarray(orbit.take(states + 1), dtype=np.float64) - orbit.take(states - 1), axis=1)
    smooth = np.linalg.norm(predicted, axis=1) < SMOOTH * step
    missed = _rowwise(metric, middle, middle + predicted)
    return missed[inverse], smooth[inverse]


def _project(states: Floats, orbit: Rows, base: Ints, nearest: Ints) -> tuple[Floats, Floats]:
    """Place u (from `base` on) where the difference is orthogonal to the interpolated orbit, and the point there."""
    centre = np.asarray(orbit.take(nearest), dtype=np.float64)
    nodes = np.empty((len(states), NODES, states.shape[1]))
    for k in range(NODES):
        np.subtract(orbit.take(base + k), centre, out=nodes[:, k])
    # The steps towards the place need scalar products only; the weights themselves are gone through once.
    among = nodes @ nodes.swapaxes(1, 2)
    apart = np.einsum("tkp,tp->tk", nodes, states - centre, optimize=True)
    u = (nearest - base).astype(np.float64)
    low, high = u - 1.5, u + 1.5
    for _ in range(_NEWTON):
        weight, slope = _lagrange(u)
        pull = (slope * (apart - np.einsum("tkl,tl->tk", among, weight))).sum(axis=1)
        speed = np.einsum("tk,tkl,tl->t", slope, among, slope)
        with np.errstate(invalid="ignore", divide="ignore"):
            move = pull / speed
        u = np.clip(u + np.where(np.isfinite(move), move, 0.0), low, high)
    return u, centre + np.einsum("tk,tkp->tp", _lagrange(u)[0], nodes, optimize=True)


def _lagrange(u: Floats) -> tuple[Floats, Floats]:
    """Weights of the nodes 0 .. 5 at u, (t, 6), and their derivatives."""
    weight, slope = np.ones((len(u), NODES)), np.zeros((len(u), NODES))
    for k in range(NODES):
        others = [j for j in range(NODES) if j != k]
        scale = float(np.prod([k - j for j in others]))
        factors = [u - j for j in others]
        weight[:, k] = np.prod(factors, axis=0) / scale
        for skipped in range(NODES - 1):
            slope[:, k] += np.prod([f for i, f in enumerate(factors) if i != skipped], axis=0) / scale
    return weight, slope
