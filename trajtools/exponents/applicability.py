"""Whether a trajectory can have an exponent: its optimiser, drift, noise, and what else speaks against it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError
from trajtools.reasons import Reason
from trajtools.results import Result
from trajtools.types import Floats, Ints

if TYPE_CHECKING:
    from trajtools.neighbors.search import Neighbors

_ADAPTIVE = re.compile(
    r"\b(adam\w*|nadam|radam|rmsprop|adagrad|adadelta|adafactor|lion|lamb|lars|rprop|l?bfgs|shampoo|sophia|muon)\b"
)


_MOMENTUM = re.compile(r"\bmomentum\s*[=:]\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)")
_NESTEROV = re.compile(r"\bnesterov\b(?!\s*[=:]\s*(?:false|none|0\b))")
FEWEST_STATES = 100  # of which neighbours can be looked for
REFERENCES = 400  # that a probe follows
MOST_STATES = 20_000  # that a probe searches
SEGMENTS = 8  # that stationarity compares
DRIFT = 0.5  # of the variance may lie between the means of segments
UNEQUAL = 10.0  # the largest over the smallest spread of segments that may be called the same
RECENT = 0.15  # of the record: neighbours whose median distance in time is less are the drift itself
CONTRAST = float(np.exp(-1.0))  # nearest over typical distance: above, there is no room for an e-fold
FLOOR_FACTOR = 10.0  # distances must exceed the rounding of the stored numbers so many times
REPEATS = 0.5  # of the references may return exactly
SATURATION = 0.5  # e-folds below the highest mean distance where the probe counts it as saturated
TWINS = "use twins: perturbed copies of the training, see trajtools.twins"
SUGGEST_TWINS = ("too-few-states", "drift", "not-stationary", "no-contrast", "hidden-state")  # codes of such reasons


@dataclass(frozen=True)
class Optimizer:
    r"""An optimiser as a dynamical system.

    Attributes
    ----------
    momentum : float
        Share :math:`\mu` of the last step that is made again; 0 for plain gradient descent.
    nesterov : bool
        Whether the gradient is that of the state which the momentum alone leads to.
    adaptive : str
        Name of a method whose step is no linear function of the gradient (``"adam"``, ...); empty for the others.
    """

    momentum: float = 0.0
    nesterov: bool = False
    adaptive: str = ""

    @property
    def has_buffers(self) -> bool:
        """Whether the optimiser keeps more than the weights from one step to the next."""
        return bool(self.momentum or self.nesterov or self.adaptive)

    @property
    def words(self) -> str:
        """Name for a sentence: ``"gradient descent with momentum 0.9"``."""
        if self.adaptive:
            return self.adaptive
        kind = "Nesterov momentum" if self.nesterov else "momentum"
        return f"gradient descent with {kind} {self.momentum:g}" if self.momentum else "gradient descent"


def optimizer_of(hparams: Mapping[str, Any]) -> Optimizer:
    """Read the optimiser from hyper-parameters, which are the user's own words."""
    momentum, nesterov, adaptive = 0.0, False, ""
    for key, value in _flat(hparams):
        if value is None or value is False or (isinstance(value, (int, float)) and value == 0):
            continue
        words = f"{key}={value}".lower().replace("_", " ")
        named = _ADAPTIVE.search(words)
        adaptive = adaptive or (named[1] if named else "")
        nesterov = nesterov or _NESTEROV.search(words) is not None
        said = _MOMENTUM.search(words) if isinstance(value, str) else None
        if key.lower() == "momentum" and isinstance(value, (int, float)) and not isinstance(value, bool):
            momentum = float(value)
        elif said is not None:
            momentum = float(said[1])
    return Optimizer(momentum, nesterov, adaptive)


def _flat(hparams: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in hparams.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield str(key), value


@dataclass(frozen=True, eq=False)
class Probe(Result):
    """What neighbours of a trajectory look like, from a few of its states.

    Attributes
    ----------
    n_states : int
        Finite states.
    n_references : int
        States that were followed.
    contrast : float
        Median distance to the nearest neighbour over the median distance of two states.
    time_apart : float
        Median time between neighbours, in parts of the record; a third for independent times.
    drift : float
        Part of the variance that lies between the means of `SEGMENTS` segments.
    unequal : float
        Largest over smallest spread (root mean square deviation from their means) of the segments.
    repeats : float
        How many times a state comes back exactly, on average.
    at_floor : float
        Part of the nearest distances that rounding of the stored numbers could make.
    saturation : int
        Samples until the mean logarithm of the distance saturates; the longest lag looked at if it does not.
    rise : float
        E-folds by which neighbours part in all.
    lags : ndarray of int64, shape (L,)
        Samples that the probe looked ahead.
    log_distance : ndarray of float64, shape (L,)
        Mean logarithm of the distance there.
    """

    n_states: int
    n_references: int
    contrast: float
    time_apart: float
    drift: float
    unequal: float
    repeats: float
    at_floor: float
    saturation: int
    rise: float
    lags: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    log_distance: Floats = field(default_factory=lambda: np.empty(0))


def probe(states: Floats, *, theiler: int, dtype: np.dtype[Any]) -> Probe:
    """Look at the nearest neighbours of some states, and at where they go."""
    from trajtools.neighbors.rules import NearestK
    from trajtools.neighbors.search import find_nearest

    part = states[: min(len(states), MOST_STATES)]
    found = find_nearest(part, neighbors=NearestK(1), theiler=theiler)
    finite = np.flatnonzero(np.isfinite(part).all(axis=1))
    chosen, near, gaps = _pairs(found, len(part), theiler)
    size = np.sqrt(np.nansum(part[chosen] ** 2, axis=1))
    floor = float(np.finfo(dtype).eps) * np.maximum(size, 1e-300) if dtype.kind == "f" else np.zeros(len(chosen))

    def apart(i: Ints, j: Ints) -> Floats:
        return np.asarray(np.sqrt(np.sum((part[i] - part[j]) ** 2, axis=1)))

    return _seen(
        found, (chosen, near, gaps), finite, apart, length=len(part), floor=floor, parts=_segments(part[finite])
    )


def _pairs(found: Neighbors, length: int, theiler: int) -> tuple[Ints, Ints, Floats]:
    """Some states, their nearest neighbours, and how far apart they are."""
    with_neighbor = np.flatnonzero(found.index[:, 0] >= 0)
    if not len(with_neighbor):
        raise DataError(
            f"no two of {length} states differ that are {theiler} samples apart; there are no neighbours: the record "
            "repeats exactly, or is too short"
        )
    chosen = _evenly(with_neighbor, REFERENCES)
    return chosen, found.index[chosen, 0], found.distance[chosen, 0]


def _evenly(times: Ints, most: int) -> Ints:
    return times if len(times) <= most else times[(np.arange(most) * len(times)) // most]


def _seen(
    found: Neighbors,
    pairs: tuple[Ints, Ints, Floats],
    finite: Ints,
    apart: Callable[[Ints, Ints], Floats],
    *,
    length: int,
    floor: Floats,
    parts: tuple[float, float],
) -> Probe:
    chosen, near, gaps = pairs
    typical = _typical(_evenly(finite, 256), apart)
    lags, curve = _follow(length, chosen, near, apart)
    highest = float(np.nanmax(curve))
    late = np.flatnonzero(curve >= highest - SATURATION)
    return Probe(
        n_states=len(finite),
        n_references=len(chosen),
        contrast=float(np.median(gaps)) / typical if typical > 0 else 1.0,
        time_apart=float(np.median(np.abs(near - chosen))) / length,
        drift=parts[0],
        unequal=parts[1],
        repeats=float(found.counts["zero_distance"]) / max(length, 1) if found.counts["zero_distance"] else 0.0,
        at_floor=float(np.mean(gaps <= FLOOR_FACTOR * floor)),
        saturation=int(lags[late[0]]),
        rise=highest - float(curve[0]),
        lags=lags,
        log_distance=curve,
    )


def _typical(times: Ints, apart: Callable[[Ints, Ints], Floats]) -> float:
    """Median distance of two of the states."""
    gaps = [gap for k, i in enumerate(times) for gap in apart(np.full(len(times) - k - 1, i), times[k + 1 :]).tolist()]
    return float(np.median(gaps)) if gaps else 0.0


def _follow(length: int, i: Ints, j: Ints, apart: Callable[[Ints, Ints], Floats]) -> tuple[Ints, Floats]:
    """Mean logarithm of the distance of pairs at growing lags, up to a quarter of the record."""
    longest = max(length // 4, 1)
    lags = np.unique(np.concatenate([np.arange(min(longest, 8) + 1), np.geomspace(1, longest, 60).astype(np.int64)]))
    curve = np.full(len(lags), np.nan)
    for at, lag in enumerate(lags):
        inside = np.maximum(i, j) + lag < length
        gaps = apart(i[inside] + lag, j[inside] + lag)
        gaps = gaps[np.isfinite(gaps) & (gaps > 0)]
        if len(gaps) >= 5:
            curve[at] = float(np.mean(np.log(gaps)))
    known: NDArray[np.bool_] = np.isfinite(curve)
    if not known.any():
        return lags[:1], np.zeros(1)
    return lags[known], curve[known]


def _segments(states: Floats) -> tuple[float, float]:
    """Part of the variance between the means of segments, and the ratio of their spreads; NaN-free states (T, d)."""
    if len(states) < 2 * SEGMENTS:
        return 0.0, 1.0
    parts = np.array_split(states, SEGMENTS)
    middle = states.mean(axis=0)
    total = float(np.sum((states - middle) ** 2))
    between = sum(float(np.sum((part.mean(axis=0) - middle) ** 2)) * len(part) for part in parts)
    spreads = [float(np.sqrt(np.sum((part - part.mean(axis=0)) ** 2) / len(part))) for part in parts]
    unequal = max(spreads) / min(spreads) if min(spreads) > 0 else float("inf")
    return between / total if total > 0 else 0.0, unequal if total > 0 else 1.0


def probe_distances(matrix: Floats, *, theiler: int, floor: Floats) -> Probe:
    """Do the same with the distances of all pairs of states."""
    from trajtools.neighbors.rules import NearestK
    from trajtools.neighbors.search import find_nearest

    part = matrix[:MOST_STATES, :MOST_STATES]
    found = find_nearest(part, metric="precomputed", neighbors=NearestK(1), theiler=theiler)
    finite = np.flatnonzero(np.count_nonzero(np.isfinite(part), axis=1) > 1)
    chosen, near, gaps = _pairs(found, len(part), theiler)
    return _seen(
        found,
        (chosen, near, gaps),
        finite,
        lambda i, j: part[i, j],
        length=len(part),
        floor=np.nan_to_num(floor[chosen]),
        parts=_segments_apart(part, finite),
    )


def _segments_apart(matrix: Floats, finite: Ints) -> tuple[float, float]:
    """`_segments` from distances: half the mean squared distance of two points is their variance."""
    if len(finite) < 2 * SEGMENTS:
        return 0.0, 1.0

    def variance(rows: Ints) -> float:
        return float(np.mean([np.mean(np.nan_to_num(matrix[i, rows]) ** 2) for i in rows])) / 2

    total, parts = variance(finite), np.array_split(finite, SEGMENTS)
    within = [variance(part) for part in parts]
    inside = sum(one * len(part) for one, part in zip(within, parts, strict=True)) / len(finite)
    unequal = float(np.sqrt(max(within) / min(within))) if min(within) > 0 else float("inf")
    return max(1 - inside / total, 0.0) if total > 0 else 0.0, unequal if total > 0 else 1.0


def objections(found: Probe, *, theiler: int) -> tuple[Reason, ...]:
    """Reasons why neighbours do not show the exponent of this trajectory, each with the way out."""
    reasons = []
    if found.n_states < FEWEST_STATES:
        reasons.append(
            Reason.of(
                "too-few-states",
                "{states} finite states are too few for neighbours ({needed} are needed); record more, or {twins}",
                states=found.n_states,
                needed=FEWEST_STATES,
                twins=TWINS,
            )
        )
    if found.time_apart < RECENT and found.drift > DRIFT / 2:
        reasons.append(
            Reason.of(
                "drift",
                "the nearest neighbours outside the Theiler window of {theiler} samples are close in time (median "
                "{apart:.1%} of the record apart): the trajectory drifts and does not return; {twins}",
                theiler=theiler,
                apart=found.time_apart,
                twins=TWINS,
            )
        )
    elif found.drift > DRIFT:
        reasons.append(
            Reason.of(
                "not-stationary",
                "the trajectory is not stationary: {share:.0%} of its variance lie between the means of {segments} "
                "segments; record longer, select a window in which it stays, or {twins}",
                share=found.drift,
                segments=SEGMENTS,
                twins=TWINS,
            )
        )
    elif found.unequal > UNEQUAL:
        reasons.append(
            Reason.of(
                "not-stationary",
                "the trajectory is not stationary: the spread of its states differs by a factor of {factor:.3g} "
                "between {segments} segments; select a window in which it stays, or {twins}",
                factor=found.unequal,
                segments=SEGMENTS,
                twins=TWINS,
            )
        )
    if found.contrast > CONTRAST:
        reasons.append(
            Reason.of(
                "no-contrast",
                "the nearest neighbours are hardly nearer than other states ({contrast:.2f} of the typical distance): "
                "there is no room for exponential growth, as for noise in many dimensions; {twins}",
                contrast=found.contrast,
                twins=TWINS,
            )
        )
    if found.repeats > REPEATS:
        reasons.append(
            Reason.of(
                "repeats",
                "the states repeat exactly ({repeats:.3g} times each on average): distances of zero do not grow; the "
                "orbit is periodic, or the numbers are coarse (integers, float16): store more digits",
                repeats=found.repeats,
            )
        )
    elif found.at_floor > REPEATS:
        reasons.append(
            Reason.of(
                "below-rounding-floor",
                "{share:.0%} of the nearest distances are within {factor:g} times the rounding of the stored numbers; "
                "store more digits",
                share=found.at_floor,
                factor=FLOOR_FACTOR,
            )
        )
    return tuple(reasons)
