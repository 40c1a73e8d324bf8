"""States or distances, validated once: metric, finite states, followable states, directions of motion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, TooLargeError, UnknownNameError
from trajtools.neighbors.theiler import choose_window
from trajtools.types import Bools, Floats, Ints

if TYPE_CHECKING:
    from trajtools.distances.metric import MetricLike

DISTANCES = "precomputed"


# Metrics of the kernels; others are evaluated for all pairs.
METRICS = ("l1", "l2", "linf", "rms", DISTANCES)


# As in trajtools._kernels.neighbors, which is imported late because numba is slow to import.
_CODES = {"l1": 1, "l2": 2, "linf": 3, "rms": 2, DISTANCES: 5}


_L1, _L2, _L2_SCALED, PRECOMPUTED = 1, 2, 4, 5


# Squares of numbers between these, and of their differences, keep full precision.
_SMALLEST, _LARGEST = 1e-120, 1e150


# Beyond this, differences can overflow: treated as infinite.
_INFINITE = 1e300


LANES = 8


# Above this dimension, bounding boxes hardly bound distances.
HIGH_DIMENSION = 20


MATRIX_STATES = 8192
_ROW_ENTRIES = 2**20
INFINITE = 1e300  # larger states are not finite, as in `prepare`
ROUNDING = 1e-14  # share of a squared distance below which a remainder is rounding, as in the kernels


@dataclass(frozen=True, eq=False)
class States:
    """Validated states for searches.

    Attributes
    ----------
    points : ndarray of float64, shape (T, d)
        The states, divided by the root of d for ``"rms"``; shape (T, 0) for precomputed distances.
    matrix : ndarray of float64, shape (T, T)
        Precomputed distances; shape (0, 0) for states.
    metric : str
        Name of the metric.
    code : int
        Code of the metric in the kernels.
    usable : ndarray of bool, shape (T,)
        States that can be followed for the whole horizon.
    theiler, horizon : int, in samples
        Theiler window and horizon.
    not_finite : int
        Number of states that contain NaN or inf.
    theiler_why : str
        How the window was chosen; empty if it was an argument.
    """

    points: Floats
    matrix: Floats
    metric: str
    code: int
    usable: Bools
    theiler: int
    horizon: int
    not_finite: int
    theiler_why: str = ""

    def __len__(self) -> int:
        return len(self.usable)

    @property
    def root(self) -> bool:
        """Whether the kernels use squared distances."""
        return self.code == _L2

    def gap(self, distance: Any) -> Any:
        """Distance in the form compared by the kernels."""
        return np.square(distance) if self.root else distance

    def distance(self, gap: Any) -> Any:
        """Inverse of `gap`."""
        return np.sqrt(gap) if self.root else gap

    def lags(self) -> Floats:
        """States as (d, T + padding), with time contiguous; empty for precomputed distances."""
        if self.code == PRECOMPUTED:
            return np.empty((0, 0))
        from trajtools._kernels._jit import in_parts

        lags = np.empty((self.points.shape[1], len(self) + LANES))
        lags[:, len(self) :] = 0.0

        def turn(first: int, last: int) -> None:
            lags[:, first:last] = self.points[first:last].T

        in_parts(turn, len(self), least=2**15)
        return lags

    def between(self, rows: Ints, columns: Ints) -> Floats:
        """Distances between two sets of states; for samples, not for searches."""
        if self.code == PRECOMPUTED:
            return self.matrix[np.ix_(rows, columns)]
        if self.points.shape[1] > HIGH_DIMENSION:
            return self._between_rows(rows, columns)
        out = np.zeros((len(rows), len(columns)))
        for at in range(self.points.shape[1]):
            step = self.points[rows, at][:, None] - self.points[columns, at][None, :]
            if self.code == _L2:
                out += np.square(step, out=step)
                continue
            np.abs(step, out=step)
            if self.code == _L2_SCALED:
                np.hypot(out, step, out=out)
            elif self.metric == "l1" or self.code == _L1:
                out += step
            else:
                np.maximum(out, step, out=out)
        return np.asarray(np.sqrt(out, out=out)) if self.code == _L2 else out

    def _between_rows(self, rows: Ints, columns: Ints) -> Floats:
        """`between` for high dimensions: row by row, a few columns at a time."""
        order = {"l1": 1, "l2": 2, "rms": 2, "linf": np.inf}[self.metric]
        few = max(1, _ROW_ENTRIES // self.points.shape[1])
        out = np.empty((len(rows), len(columns)))
        for at, row in enumerate(rows):
            for start in range(0, len(columns), few):
                step = self.points[columns[start : start + few]] - self.points[row]
                out[at, start : start + few] = np.linalg.norm(step, ord=order, axis=1)
        return out


def prepare(x: Any, *, metric: MetricLike, theiler: int | None, horizon: int) -> States:
    """Validate states for a search; a Theiler window of None is chosen from the data."""
    x, metric, name = _resolved(x, metric)
    if theiler is not None:
        theiler = _sample_count("theiler", theiler)
    horizon = _sample_count("horizon", horizon)
    raw = np.asarray(x)
    if raw.dtype.kind not in "fiub":
        raise DataError(f"states must be real numbers; this array has dtype {raw.dtype}")
    array = raw.astype(np.float64, copy=False)
    if array.ndim == 1 and not (isinstance(metric, str) and metric == DISTANCES):
        array = array[:, None]
    if array.ndim != 2 or not array.shape[1]:
        raise DataError(f"states must be an array (T, d) or (T,); this one has shape {raw.shape}")
    length, why = len(array), ""
    if theiler is None:
        distances = isinstance(metric, str) and metric == DISTANCES
        if distances:
            _check_square(array)
        theiler, why = choose_window(array, distances=distances)
    needed = horizon + max(theiler, 1) + 1
    if length < 2:
        raise DataError(f"neighbours need at least two states, and there are {length}: record more")
    if length < needed:
        raise DataError(
            f"{length} states are too few: following two states for horizon={horizon} steps, theiler={theiler} apart, "
            f"needs at least {needed}; record more, or lower horizon or theiler"
        )
    if callable(metric):
        return replace(_from_distances(_all_distances(array, metric), theiler, horizon), metric=name, theiler_why=why)
    if metric == DISTANCES:
        return replace(_from_distances(array, theiler, horizon), metric=name, theiler_why=why)
    if metric == "rms":
        array = array / np.sqrt(array.shape[1])
    tame = _is_tame(array)  # the common case, without further checks
    finite = np.ones(length, dtype=bool) if tame else np.abs(array).max(axis=1) < _INFINITE  # False for NaN
    states = States(
        points=array,
        matrix=np.empty((0, 0)),
        metric=metric,
        code=_code(array, finite, metric, tame),
        usable=_followable(finite, horizon),
        theiler=max(theiler, 1),
        horizon=horizon,
        not_finite=int(length - np.count_nonzero(finite)),
        theiler_why=why,
    )
    _refuse_unusable(states)
    return states


def _resolved(x: Any, metric: MetricLike) -> tuple[Any, str | Callable[[Any, Any], Any], str]:
    """States or distances; the metric as a built-in name or a function of two blocks; and its name in results."""
    if isinstance(x, Distances):
        # The default metric is ignored: distances know their own.
        if len(x.shape) != 2 or x.shape[0] != x.shape[1]:
            raise DataError(f"neighbours need the distances of one trajectory, (T, T); these have shape {x.shape}")
        return x, DISTANCES, x.metric
    if isinstance(metric, str) and metric in METRICS:
        return x, metric, metric
    # Imported here: only other metrics need the registry.
    from trajtools.distances.equal_times import distance
    from trajtools.distances.metric import bind_metric, find_metric

    try:
        bound = find_metric(metric)
    except UnknownNameError as unknown:
        raise UnknownNameError(f"{unknown}; {DISTANCES!r} accepts distances (T, T)") from None
    bound = bind_metric(bound, x, x)
    return x, lambda a, b: distance(a, b, metric=bound), bound.name


def _sample_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise DataError(f"{name} must be a whole number of samples, 0 or more; got {value!r}")
    return int(value)


def _is_tame(array: Floats) -> bool:
    """Whether all numbers are finite and can be squared at full precision."""
    rows = max(1, _ROW_ENTRIES // 32 // array.shape[1])  # a block that stays in the cache
    for first in range(0, len(array), rows):
        size = np.abs(array[first : first + rows])
        if not (float(size.max()) < _LARGEST and float(size.min()) > _SMALLEST):  # NaN, too
            return bool(_squarable(array).all())
    return True


def _squarable(values: Floats) -> Bools:
    size = np.abs(values)
    squarable: Bools = (size < _LARGEST) & ((size > _SMALLEST) | (size == 0))
    return squarable


def _refuse_unusable(states: States) -> None:
    first, last = int(states.usable.argmax()), len(states) - 1 - int(states.usable[::-1].argmax())
    if not states.usable[first] or last - first < max(states.theiler, 1):
        hint = f"{states.not_finite} of {len(states)} states contain NaN or inf; select a window without them"
        if not states.horizon:
            raise DataError(f"no two finite states are theiler={states.theiler} or more steps apart: {hint}")
        raise DataError(
            f"no two states can be followed for horizon={states.horizon} steps: {hint}, or lower the horizon"
        )


def _check_square(matrix: Floats) -> None:
    if matrix.shape[0] != matrix.shape[1]:
        raise DataError(
            f"distances must have shape (T, T), this array has {matrix.shape}; for states (T, d) use another metric"
        )


def _from_distances(matrix: Floats, theiler: int, horizon: int) -> States:
    _check_square(matrix)
    if np.any(matrix < 0):
        raise DataError("the distances contain negative numbers; they must be zero or positive")
    # A state that is not finite has no distance to any other.
    finite = np.count_nonzero(np.isfinite(matrix), axis=1) > 1
    if not np.allclose(matrix, matrix.T, rtol=1e-6, atol=0.0, equal_nan=True):
        raise DataError("the distances are not symmetric; pass d(i, j) for all pairs of states")
    states = States(
        points=np.empty((len(matrix), 0)),
        matrix=np.ascontiguousarray(matrix),
        metric="precomputed",
        code=PRECOMPUTED,
        usable=_followable(finite, horizon),
        theiler=max(theiler, 1),
        horizon=horizon,
        not_finite=int(len(matrix) - np.count_nonzero(finite)),
    )
    _refuse_unusable(states)
    return states


def _followable(finite: Bools, horizon: int) -> Bools:
    """Whether each state and the next `horizon` states are in the record and finite."""
    usable = np.zeros(len(finite), dtype=bool)
    last = len(finite) - horizon
    if finite.all():
        usable[:last] = True
        return usable
    broken = np.concatenate([[0], np.cumsum(~finite)])
    usable[:last] = broken[horizon + 1 :] == broken[:last]
    return usable


def _code(array: Floats, finite: Bools, metric: str, tame: bool) -> int:
    """Code of the metric: in one dimension all are equal, and squares can overflow."""
    if array.shape[1] == 1:
        return _L1
    if metric != "l2":
        return _CODES[metric]
    return _L2 if tame or bool(np.all(_squarable(array[finite]))) else _L2_SCALED


def _all_distances(array: Floats, metric: Callable[[Any, Any], Any]) -> Floats:
    """Evaluate a metric for all pairs of finite states, row by row."""
    length = len(array)
    if length > MATRIX_STATES:
        raise TooLargeError(
            f"metrics other than {', '.join(METRICS[:4])} are evaluated for all pairs, of at most {MATRIX_STATES} "
            f"states; there are {length}. Subsample the states, or use one of these metrics"
        )
    matrix = np.full((length, length), np.nan)
    finite = np.flatnonzero(np.isfinite(array).all(axis=1))
    for k, i in enumerate(finite):
        others = finite[k:]
        row = np.asarray(metric(np.repeat(array[i : i + 1], len(others), axis=0), array[others]), dtype=np.float64)
        matrix[i, others] = matrix[others, i] = row
    return matrix


def compact(states: States) -> States:
    """Replace high-dimensional states by the matrix of their distances, for faster searches."""
    length, dimension = states.points.shape
    if dimension <= HIGH_DIMENSION or length > MATRIX_STATES or states.code == _L2_SCALED:
        return states
    from trajtools._kernels._jit import in_parts
    from trajtools._kernels.distances import TILE, distance_rows

    points = np.ascontiguousarray(states.points)
    matrix = np.zeros((length, length))
    in_parts(lambda first, last: distance_rows(points, states.code, first, last, matrix), -(-length // TILE))
    return replace(states, matrix=matrix, code=PRECOMPUTED)


def is_scaled(states: States) -> bool:
    """Whether some numbers cannot be squared at full precision, so that the kernels scale each distance."""
    return not bool(np.all(_squarable(states.points[np.abs(states.points) < _INFINITE])))


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
    """Length of separations without their component along the motion."""
    whole, along, size = (np.sum(each, axis=-1) for each in (apart * apart, apart * both, both * both))
    rest = whole - np.where(size > ROUNDING, along * along / np.maximum(size, ROUNDING), 0.0)
    return np.asarray(np.sqrt(np.where(rest > ROUNDING * whole, rest, 0.0)))


def has_directions(points: Floats) -> bool:
    """Whether distances across the motion exist: two or more dimensions, of numbers that can be squared."""
    return points.shape[1] > 1 and not is_scaled(prepare(points, metric="l2", theiler=0, horizon=0))


def check_motion(states: States) -> None:
    """Raise an error for states without distances across the motion."""
    if states.code == PRECOMPUTED or states.metric != "l2" or states.points.shape[1] < 2 or is_scaled(states):
        raise DataError(
            "across=True needs Euclidean distances of states with two or more dimensions, whose squares do not "
            f"overflow; got metric {states.metric!r} and {states.points.shape[1]} dimensions. Embed a series first, "
            "see trajtools.embedding.embed"
        )


def with_directions(states: States) -> Floats:
    """States and directions of motion, in the layout of the kernels."""
    check_motion(states)
    lags = np.zeros((2 * states.points.shape[1], len(states) + LANES))
    lags[:, : len(states)] = np.concatenate([states.points, directions(states.points)], axis=1).T
    return lags


def thinned(index: Ints, stride: int) -> Ints:
    """Neighbour lists of every `stride`-th state; the others are not references."""
    if isinstance(stride, bool) or not isinstance(stride, (int, np.integer)) or stride < 1:
        raise DataError(f"stride={stride!r}: must be a whole number, 1 or more; every stride-th state is a reference")
    if stride == 1:
        return index
    thin = np.full_like(index, -1)
    thin[::stride] = index[::stride]
    return thin
