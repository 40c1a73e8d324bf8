"""The pairs behind a correlation sum: of few-dimensional states by a tree, of networks by their distances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.embedding import theiler_window
from trajtools.errors import DataError
from trajtools.neighbors.counting import (
    Between,
    PairCounts,
    blocks_of_time,
    choose_radii,
    count_rows,
    count_states,
    logged_radii,
)
from trajtools.neighbors.search import evenly
from trajtools.neighbors.states import HIGH_DIMENSION, METRICS, PRECOMPUTED, prepare
from trajtools.results.correlation_sum import CorrelationSum, takens_estimate
from trajtools.types import Bools, Floats, Ints

_FEWEST_FOR_LAGS = 20
_SEPARATION_ROWS, _LONGEST_LAG = 256, 1000


@dataclass(frozen=True, eq=False)
class Pairs:
    """Checked states or distances, ready to be counted.

    Attributes
    ----------
    metric : str
        Name of the distance.
    usable : ndarray of bool, shape (T,)
        States that count.
    theiler : int, in samples
        At least 1.
    theiler_why : str
        Where it comes from.
    space : int
        Dimension of the states; 0 where only distances are known.
    between : callable
        Distances of some states to some others.
    count : callable
        ``count(radii, edges, logged)`` gives PairCounts.
    way : str
        How pairs are counted, in words.
    warnings : tuple of str
        From the choice of the Theiler window.
    """

    metric: str
    usable: Bools
    theiler: int
    theiler_why: str
    space: int
    between: Between
    count: Callable[[Floats, Ints, int], PairCounts]
    way: str
    warnings: tuple[str, ...] = ()


def find_pairs(x: Any, *, metric: Any, theiler: int | None) -> Pairs:
    """Check what was given and decide how its pairs are counted."""
    if isinstance(x, Distances):
        return _of_distances(x, theiler)
    shape = x.shape if hasattr(x, "shape") else np.shape(x)
    dimension = int(shape[1]) if len(shape) == 2 else 1
    given = metric == "precomputed" if isinstance(metric, str) else False
    plain = isinstance(metric, str) and metric in METRICS
    if plain and (dimension <= HIGH_DIMENSION or given):
        return _of_states(x, metric, theiler)
    from trajtools.distances.pairwise import pairwise

    return _of_distances(pairwise(x, metric=metric), theiler)


def sum_of(pairs: Pairs, radii: Any, share: float = 1.0) -> CorrelationSum:
    """Count."""
    chosen = radii is None
    limits = choose_radii(pairs.between, pairs.usable, pairs.theiler, share) if chosen else _checked_radii(radii)
    edges = blocks_of_time(pairs.usable, pairs.theiler)
    logged = logged_radii(pairs.between, pairs.usable, pairs.theiler, limits)
    found = pairs.count(limits, edges, logged)
    counts, total, zeros = found.counts.sum(axis=0) // 2, int(found.pairs.sum()) // 2, int(found.zeros.sum()) // 2
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = counts / total
        slope = np.diff(np.log(correlation)) / np.diff(np.log(limits))
    takens = takens_estimate(limits, 2.0 * counts, np.float64(2 * zeros), found.logs.sum(axis=0))
    warnings = pairs.warnings
    if zeros:
        warnings += (f"{zeros} of {total} pairs are at distance zero: they count in C(r), not in Takens' estimate",)
    return CorrelationSum(
        radii=limits,
        counts=counts,
        n_pairs=total,
        correlation=correlation,
        local_slope=np.where(np.isfinite(slope), slope, np.nan),
        takens=takens,
        metric=pairs.metric,
        theiler=pairs.theiler,
        n_states=int(np.count_nonzero(pairs.usable)),
        n_excluded=int(np.count_nonzero(~pairs.usable)),
        zero_pairs=zeros,
        block_counts=found.counts,
        block_pairs=found.pairs,
        block_zeros=found.zeros,
        block_logs=found.logs,
        settings={
            "metric": pairs.metric,
            "theiler": pairs.theiler,
            "theiler_why": pairs.theiler_why,
            "radii": "chosen from the data" if chosen else "as given",
            "block_edges": edges,
            "counted": pairs.way,
        },
        warnings=warnings,
    )


def _checked_radii(radii: Any) -> Floats:
    given = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    if given.ndim != 1 or not len(given) or not (np.isfinite(given) & (given > 0)).all():
        raise DataError(f"radii are positive numbers, shape (R,); got {radii!r}")
    return np.unique(given)


def _of_states(x: Any, metric: str, theiler: int | None) -> Pairs:
    states = prepare(x, metric=metric, theiler=1, horizon=0)
    if states.code == PRECOMPUTED:
        return _of_rows(
            lambda a, b: states.matrix[a:b], states.usable, theiler, metric, "the given distances were read"
        )
    window, why, warnings = _window(states.points, states.usable, theiler)
    states = prepare(x, metric=metric, theiler=window, horizon=0)
    return Pairs(
        metric,
        states.usable,
        states.theiler,
        why,
        states.points.shape[1],
        states.between,
        lambda radii, edges, logged: count_states(states, radii, edges, logged),
        "whole nodes of a k-d tree where all their points are in one bin of distance",
        warnings,
    )


def _of_distances(x: Distances, theiler: int | None) -> Pairs:
    if not x.symmetric:
        raise DataError(
            f"a correlation sum needs symmetric distances of one trajectory, (T, T); these are {x.shape[0]} x "
            f"{x.shape[1]} in {x.metric}" + (", which is not symmetric" if x.square else "")
        )
    return _of_rows(x.read, ~np.asarray(x.excluded), theiler, x.metric, "rows of distances were read in turn")


def _of_rows(read: Callable[[int, int], Floats], usable: Bools, theiler: int | None, metric: str, way: str) -> Pairs:
    length = len(usable)

    def between(rows: Ints, columns: Ints) -> Floats:
        return np.stack([np.asarray(read(int(i), int(i) + 1))[0][columns] for i in rows])

    window, why, warnings = (_given(theiler), "as given", ()) if theiler is not None else _separation(between, usable)
    if np.count_nonzero(usable) < 2 or np.ptp(np.flatnonzero(usable)) < window:
        raise DataError(
            f"{np.count_nonzero(usable)} of {length} states can be compared, none theiler={window} samples apart; "
            "record more or lower theiler"
        )
    return Pairs(
        metric,
        usable,
        window,
        why,
        0,
        between,
        lambda radii, edges, logged: count_rows(read, usable, window, radii, edges),
        way,
        warnings,
    )


def _given(theiler: Any) -> int:
    if isinstance(theiler, bool) or not isinstance(theiler, (int, np.integer)) or theiler < 0:
        raise DataError(f"theiler={theiler!r}: it counts samples, a whole number from 0 on")
    return max(int(theiler), 1)


def _window(points: Floats, usable: Bools, theiler: int | None) -> tuple[int, str, tuple[str, ...]]:
    """Theiler window of states: as given, or three times the longest correlation time of their coordinates."""
    if theiler is not None:
        return _given(theiler), "as given", ()
    if np.count_nonzero(usable) < _FEWEST_FOR_LAGS or not np.any(np.ptp(points[usable], axis=0) > 0):
        return 1, f"fewer than {_FEWEST_FOR_LAGS} states, or all equal: no time scale", ()
    choice = theiler_window(np.where(usable[:, None], points, np.nan))
    return choice.value, choice.reason, choice.warnings


def _separation(between: Between, usable: Bools) -> tuple[int, str, tuple[str, ...]]:
    """Theiler window of distances: where the 10 % quantile of pairs so far apart in time reaches half its largest."""
    times = np.flatnonzero(usable)
    if len(times) < _FEWEST_FOR_LAGS:
        return 1, f"fewer than {_FEWEST_FOR_LAGS} states: no time scale", ()
    longest = min(len(usable) // 5, _LONGEST_LAG)
    rows = evenly(times[times < len(usable) - longest], _SEPARATION_ROWS)
    every = np.arange(len(usable))
    curve = np.zeros(longest + 1)
    near = np.stack([between(np.array([i]), every)[0][i : i + longest + 1] for i in rows])
    for lag in range(1, longest + 1):
        finite = near[np.isfinite(near[:, lag]), lag]
        curve[lag] = np.quantile(finite, 0.1) if len(finite) else 0.0
    if not curve.max() > 0:
        return 1, "the states do not move: no time scale", ()
    lag = int(np.argmax(curve >= curve.max() / 2))
    why = f"the 10 % quantile of the distances passes half its largest value at lag {lag}"
    drifts = int(np.argmax(curve)) > 0.9 * longest
    return max(lag, 1), why, (f"the distances still grow at lag {longest}: a drift, not a recurrence",) * drifts
