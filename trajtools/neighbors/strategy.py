"""Which search, and why: along an axis, in a k-d tree, over everything, or in a matrix of distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trajtools.errors import DataError
from trajtools.neighbors.states import HIGH_DIMENSION, PRECOMPUTED, States
from trajtools.types import Floats, Ints

STRATEGIES = ("brute", "sweep", "tree", "matrix")
# Below this many states comparing everything is as fast as anything else.
_FEW = 1000
_QUERIES, _SAMPLE = 32, 2048
# Candidates per state up to which a sweep costs less than building and climbing a tree, and how many of the
# candidates of a ball must be inside.
_SWEEP_CANDIDATES = 90.0
_SWEEP_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class Strategy:
    """The search that was chosen.

    Attributes
    ----------
    name : str
        ``"brute"``, ``"sweep"``, ``"tree"`` or ``"matrix"``.
    axis : int
        Coordinate that a sweep runs along; -1 for the others.
    why : str
        The reason, with its numbers.
    """

    name: str
    axis: int
    why: str


def named(states: States, strategy: str) -> Strategy:
    """The strategy of this name, as asked."""
    if strategy not in STRATEGIES:
        raise DataError(f"strategy {strategy!r} is none of {', '.join(STRATEGIES)}")
    if (states.code == PRECOMPUTED) != (strategy == "matrix"):
        raise DataError(f"strategy {strategy!r} does not fit metric {states.metric!r}; leave it out to choose")
    return Strategy(strategy, 0 if strategy == "sweep" else -1, "as asked")


def choose(states: States, radius: float | None) -> Strategy:
    """Choose a search from the dimension, the number of states and a probe of the data."""
    count = int(np.count_nonzero(states.usable))
    dimension = states.points.shape[1]
    if states.code == PRECOMPUTED:
        given = "distances were given" if not dimension else f"dimension {dimension}, above {HIGH_DIMENSION}"
        return Strategy("matrix", -1, given)
    if count < _FEW:
        return Strategy("brute", -1, f"{count} states, fewer than {_FEW}")
    if dimension > HIGH_DIMENSION:
        return Strategy("brute", -1, f"dimension {dimension}, above {HIGH_DIMENSION}")
    candidates, inside = probe(states, radius)
    axis = int(np.argmin(candidates))
    expected = float(candidates[axis])
    words = f"a sweep along coordinate {axis} would look at {expected:.0f} of {count} states for each"
    if expected <= _SWEEP_CANDIDATES + inside / _SWEEP_SHARE:
        return Strategy("sweep", axis, words)
    return Strategy("tree", -1, words)


def probe(states: States, radius: float | None) -> tuple[Floats, float]:
    """Estimate from a sample how many states a sweep along each coordinate would look at, for one state."""
    times = np.flatnonzero(states.usable)
    sample = evenly(times, _SAMPLE)
    queries = evenly(sample, _QUERIES)
    grown = len(times) / len(sample)
    if radius is not None:
        distance = states.between(queries, sample)
        # Copies of the same state are no neighbours; a tree skips them, a sweep does not.
        inside = float(np.mean(np.count_nonzero((distance <= radius) & (distance > 0), axis=1)))
        return _along(states, queries, sample, np.full(len(queries), radius)) * grown, inside * grown
    counts = []
    distance = states.between(queries, sample)
    distance[distance == 0] = np.inf
    window = max(states.theiler, 1)
    first = np.searchsorted(sample, queries - window, side="right")
    last = np.searchsorted(sample, queries + window, side="left")
    for row, (a, b) in enumerate(zip(first, last, strict=True)):
        distance[row, a:b] = np.inf  # closer in time than the window
    for every in (4, 1):
        counts.append(_along(states, queries, sample[::every], distance[:, ::every].min(axis=1)))
    # A record four times as long has so many times the candidates; go on like that to the whole record.
    factor = np.clip(counts[1] / np.maximum(counts[0], 1.0), 1.0, 4.0)
    return counts[1] * factor ** (np.log(grown) / np.log(4.0)), 0.0


def evenly(times: Ints, most: int) -> Ints:
    """At most so many of the times, evenly spaced."""
    if len(times) <= most:
        return times
    return times[(np.arange(most) * len(times)) // most]


def _along(states: States, queries: Ints, sample: Ints, reach: Floats) -> Floats:
    """Mean number of sampled states within reach of the queries along each coordinate."""
    counts = []
    for at in range(states.points.shape[1]):
        values = np.sort(states.points[sample, at])
        centre = states.points[queries, at]
        upper = np.searchsorted(values, centre + reach, side="right")
        counts.append(float(np.mean(upper - np.searchsorted(values, centre - reach))))
    return np.array(counts)
