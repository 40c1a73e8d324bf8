"""Whether a trajectory can have an exponent: its optimiser, drift, noise, and what else speaks against it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.types import Floats, Ints
from trajtools.wording import counted

if TYPE_CHECKING:
    from trajtools.neighbors.search import Neighbors

_ADAPTIVE = re.compile(
    r"\b(adam\w*|nadam|radam|rmsprop|adagrad|adadelta|adafactor|lion|lamb|lars|rprop|l?bfgs|shampoo|sophia|muon)\b"
)


_MOMENTUM = re.compile(r"\bmomentum\s*[=:]\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)")
_NESTEROV = re.compile(r"\bnesterov\b(?!\s*[=:]\s*(?:false|none|0\b))")
FEWEST_STATES = 100  # for a neighbour search
REFERENCES = 400  # followed by a probe
MOST_STATES = 20_000  # searched by a probe
SEGMENTS = 8  # compared for stationarity
DRIFT = 0.5  # largest share of the variance between the means of segments
UNEQUAL = 10.0  # largest ratio of the spreads of segments in a stationary record
RECENT = 0.15  # of the record: neighbours whose median time apart is less reflect drift, not recurrence
CONTRAST = float(np.exp(-1.0))  # nearest over typical distance; above, there is no room for one e-fold
FLOOR_FACTOR = 10.0  # smallest usable distance over the rounding of the stored numbers
REPEATS = 0.5  # largest share of references that recur exactly
SATURATION = 0.5  # e-folds below the maximum of the mean log distance where a probe counts as saturated
TWINS = (
    "twins can tell: perturbed copies that are trained beside it (`Twins` of the recorders), read by trajtools.twins"
)
SUGGEST_TWINS = ("too-few-states", "drift", "not-stationary", "no-contrast", "hidden-state")  # reason codes


@dataclass(frozen=True)
class Optimizer:
    r"""An optimiser as a dynamical system.

    Attributes
    ----------
    momentum : float
        Momentum :math:`\mu`; 0 for plain gradient descent.
    nesterov : bool
        Whether the gradient is evaluated after the momentum step.
    adaptive : str
        Name of a method whose step is not linear in the gradient (``"adam"``, ...); empty for the others.
    """

    momentum: float = 0.0
    nesterov: bool = False
    adaptive: str = ""

    @property
    def has_buffers(self) -> bool:
        """Whether the optimiser has state besides the weights."""
        return bool(self.momentum or self.nesterov or self.adaptive)

    @property
    def description(self) -> str:
        """Description: ``"gradient descent with momentum 0.9"``."""
        if self.adaptive:
            return self.adaptive
        kind = "Nesterov momentum" if self.nesterov else "momentum"
        return f"gradient descent with {kind} {self.momentum:g}" if self.momentum else "gradient descent"


def optimizer_of(run: Any) -> Optimizer:
    """The optimiser of a run: that of the recorder, where the hyper-parameters say nothing else."""
    recorded = getattr(run, "provenance", {}).get("optimizer")
    plain = (
        {key: recorded.get(key) for key in ("name", "momentum", "nesterov")} if isinstance(recorded, Mapping) else {}
    )
    return infer_optimizer({**plain, **getattr(run, "hparams", {})})


def infer_optimizer(hparams: Mapping[str, Any]) -> Optimizer:
    """Infer the optimiser from free-form hyper-parameters."""
    momentum, nesterov, adaptive = 0.0, False, ""
    for key, value in _flat(hparams):
        if value is None or value is False or (isinstance(value, (int, float)) and value == 0):
            continue
        text = f"{key}={value}".lower().replace("_", " ")
        method = _ADAPTIVE.search(text)
        adaptive = adaptive or (method[1] if method else "")
        nesterov = nesterov or _NESTEROV.search(text) is not None
        momentum_text = _MOMENTUM.search(text) if isinstance(value, str) else None
        if key.lower() == "momentum" and isinstance(value, (int, float)) and not isinstance(value, bool):
            momentum = float(value)
        elif momentum_text is not None:
            momentum = float(momentum_text[1])
    return Optimizer(momentum, nesterov, adaptive)


def _flat(hparams: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in hparams.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield str(key), value


@dataclass(frozen=True, eq=False, repr=False)
class Probe(Result):
    """Statistics of the neighbours of a trajectory, from a sample of its states.

    Attributes
    ----------
    n_states : int
        Finite states.
    n_references : int
        States followed.
    contrast : float
        Median distance to the nearest neighbour over the median distance of two states.
    time_apart : float
        Median time between neighbours, in parts of the record; a third for independent times.
    drift : float
        Share of the variance between the means of `SEGMENTS` segments.
    unequal : float
        Largest over smallest spread (standard deviation) of the segments.
    repeats : float
        Mean number of exact repetitions of a state.
    at_floor : float
        Share of the nearest distances that rounding of the stored numbers could produce.
    saturation : int
        Samples until the mean log distance saturates; the longest lag if it does not.
    rise : float
        E-folds from the first to the largest mean log distance.
    lags : ndarray of int64, shape (L,)
        Lags, in samples.
    log_distance : ndarray of float64, shape (L,)
        Mean logarithm of the distance at each lag.
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
    _dims: ClassVar[AxisNames] = {"log_distance": ("lags",)}

    def _sentence(self) -> str:
        return (
            f"{counted(self.n_states, 'state')}: neighbours are at {self.contrast:.3g} of the distance of any two "
            f"states, and {self.time_apart:.0%} of the record apart in time; {self.drift:.0%} of the variance is drift."
        )


def probe(states: Floats, *, theiler: int, dtype: np.dtype[Any]) -> Probe:
    """Search and follow the nearest neighbours of a sample of states."""
    from trajtools.neighbors.rules import NearestK
    from trajtools.neighbors.search import find_nearest

    part = states[: min(len(states), MOST_STATES)]
    neighbors = find_nearest(part, neighbors=NearestK(1), theiler=theiler)
    finite = np.flatnonzero(np.isfinite(part).all(axis=1))
    chosen, nearest, gaps = _pairs(neighbors, len(part), theiler)
    size = np.sqrt(np.nansum(part[chosen] ** 2, axis=1))
    floor = float(np.finfo(dtype).eps) * np.maximum(size, 1e-300) if dtype.kind == "f" else np.zeros(len(chosen))

    def distances(i: Ints, j: Ints) -> Floats:
        return np.asarray(np.sqrt(np.sum((part[i] - part[j]) ** 2, axis=1)))

    return _statistics(
        neighbors,
        (chosen, nearest, gaps),
        finite,
        distances,
        length=len(part),
        floor=floor,
        parts=_segments(part[finite]),
    )


def _pairs(neighbors: Neighbors, length: int, theiler: int) -> tuple[Ints, Ints, Floats]:
    """A sample of states, their nearest neighbours, and the distances."""
    with_neighbor = np.flatnonzero(neighbors.index[:, 0] >= 0)
    if not len(with_neighbor):
        raise DataError(
            f"no two of {length} states differ at {theiler} samples apart or more, so there are no neighbours: the "
            "record repeats exactly, or is too short"
        )
    chosen = _evenly(with_neighbor, REFERENCES)
    return chosen, neighbors.index[chosen, 0], neighbors.distance[chosen, 0]


def _evenly(times: Ints, most: int) -> Ints:
    return times if len(times) <= most else times[(np.arange(most) * len(times)) // most]


def _statistics(
    neighbors: Neighbors,
    pairs: tuple[Ints, Ints, Floats],
    finite: Ints,
    distances: Callable[[Ints, Ints], Floats],
    *,
    length: int,
    floor: Floats,
    parts: tuple[float, float],
) -> Probe:
    chosen, nearest, gaps = pairs
    typical = _typical(_evenly(finite, 256), distances)
    lags, curve = _follow(length, chosen, nearest, distances)
    highest = float(np.nanmax(curve))
    late = np.flatnonzero(curve >= highest - SATURATION)
    return Probe(
        n_states=len(finite),
        n_references=len(chosen),
        contrast=float(np.median(gaps)) / typical if typical > 0 else 1.0,
        time_apart=float(np.median(np.abs(nearest - chosen))) / length,
        drift=parts[0],
        unequal=parts[1],
        repeats=float(neighbors.counts["zero_distance"]) / max(length, 1) if neighbors.counts["zero_distance"] else 0.0,
        at_floor=float(np.mean(gaps <= FLOOR_FACTOR * floor)),
        saturation=int(lags[late[0]]),
        rise=highest - float(curve[0]),
        lags=lags,
        log_distance=curve,
    )


def _typical(times: Ints, distances: Callable[[Ints, Ints], Floats]) -> float:
    """Median distance between two of the states."""
    gaps = [
        gap for k, i in enumerate(times) for gap in distances(np.full(len(times) - k - 1, i), times[k + 1 :]).tolist()
    ]
    return float(np.median(gaps)) if gaps else 0.0


def _follow(length: int, i: Ints, j: Ints, distances: Callable[[Ints, Ints], Floats]) -> tuple[Ints, Floats]:
    """Lags up to a quarter of the record, and the mean log distance of pairs at each."""
    longest = max(length // 4, 1)
    lags = np.unique(np.concatenate([np.arange(min(longest, 8) + 1), np.geomspace(1, longest, 60).astype(np.int64)]))
    curve = np.full(len(lags), np.nan)
    for at, lag in enumerate(lags):
        inside = np.maximum(i, j) + lag < length
        gaps = distances(i[inside] + lag, j[inside] + lag)
        gaps = gaps[np.isfinite(gaps) & (gaps > 0)]
        if len(gaps) >= 5:
            curve[at] = float(np.mean(np.log(gaps)))
    known: NDArray[np.bool_] = np.isfinite(curve)
    if not known.any():
        return lags[:1], np.zeros(1)
    return lags[known], curve[known]


def _segments(states: Floats) -> tuple[float, float]:
    """Share of the variance between the means of segments, and the ratio of their spreads; finite states (T, d)."""
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
    """`probe` of a matrix of distances."""
    from trajtools.neighbors.rules import NearestK
    from trajtools.neighbors.search import find_nearest

    part = matrix[:MOST_STATES, :MOST_STATES]
    neighbors = find_nearest(part, metric="precomputed", neighbors=NearestK(1), theiler=theiler)
    finite = np.flatnonzero(np.count_nonzero(np.isfinite(part), axis=1) > 1)
    chosen, nearest, gaps = _pairs(neighbors, len(part), theiler)
    return _statistics(
        neighbors,
        (chosen, nearest, gaps),
        finite,
        lambda i, j: part[i, j],
        length=len(part),
        floor=np.nan_to_num(floor[chosen]),
        parts=_segments_from_distances(part, finite),
    )


def _segments_from_distances(matrix: Floats, finite: Ints) -> tuple[float, float]:
    """`_segments` from distances: the variance is half the mean squared distance of two points."""
    if len(finite) < 2 * SEGMENTS:
        return 0.0, 1.0

    def variance(rows: Ints) -> float:
        return float(np.mean([np.mean(np.nan_to_num(matrix[i, rows]) ** 2) for i in rows])) / 2

    total, parts = variance(finite), np.array_split(finite, SEGMENTS)
    within = [variance(part) for part in parts]
    inside = sum(value * len(part) for value, part in zip(within, parts, strict=True)) / len(finite)
    unequal = float(np.sqrt(max(within) / min(within))) if min(within) > 0 else float("inf")
    return max(1 - inside / total, 0.0) if total > 0 else 0.0, unequal if total > 0 else 1.0


def objections(probe: Probe, *, theiler: int) -> tuple[Reason, ...]:
    """Reasons why neighbours cannot give the exponent of this trajectory, each with a remedy."""
    reasons = []
    if probe.n_states < FEWEST_STATES:
        reasons.append(
            Reason.of(
                "too-few-states",
                "too few finite states for neighbours: {states}, where {needed} are needed; record more",
                states=probe.n_states,
                needed=FEWEST_STATES,
            )
        )
    if probe.time_apart < RECENT and probe.drift > DRIFT / 2:
        reasons.append(
            Reason.of(
                "drift",
                "the nearest neighbours outside the Theiler window of {theiler} samples are close in time (median "
                "{apart:.1%} of the record apart): the trajectory drifts and does not return",
                theiler=theiler,
                apart=probe.time_apart,
            )
        )
    elif probe.drift > DRIFT:
        reasons.append(
            Reason.of(
                "not-stationary",
                "the trajectory is not stationary: {share:.0%} of its variance lies between the means of {segments} "
                "segments; record longer, or select a stationary window",
                share=probe.drift,
                segments=SEGMENTS,
            )
        )
    elif probe.unequal > UNEQUAL:
        reasons.append(
            Reason.of(
                "not-stationary",
                "the trajectory is not stationary: the spread of its states differs by a factor of {factor:.3g} "
                "between {segments} segments; select a stationary window",
                factor=probe.unequal,
                segments=SEGMENTS,
            )
        )
    if probe.contrast > CONTRAST:
        reasons.append(
            Reason.of(
                "no-contrast",
                "the nearest neighbours are barely closer than other states ({contrast:.2f} of the typical distance): "
                "there is no room for exponential growth, as with noise in many dimensions",
                contrast=probe.contrast,
            )
        )
    if probe.repeats > REPEATS:
        reasons.append(
            Reason.of(
                "repeats",
                "the states repeat exactly ({repeats:.3g} times each on average), and zero distances do not grow: the "
                "orbit is periodic, or the precision is too low (integers, float16); store more digits",
                repeats=probe.repeats,
            )
        )
    elif probe.at_floor > REPEATS:
        reasons.append(
            Reason.of(
                "below-rounding-floor",
                "{share:.0%} of the nearest distances are within {factor:g} times the rounding error of the stored "
                "numbers; store more digits",
                share=probe.at_floor,
                factor=FLOOR_FACTOR,
            )
        )
    return tuple(reasons)
