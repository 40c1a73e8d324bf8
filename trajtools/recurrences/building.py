"""From what the user gives to a plot whose recurrences can be counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.errors import DataError
from trajtools.neighbors.rules import NearestK, RecurrenceRate, ScaledRadius
from trajtools.recurrences.conventions import Convention
from trajtools.recurrences.planes import Bools, Pair, States, is_trajectory, make_pair, metric_code, prepare
from trajtools.recurrences.sources import DistancePlot, StatePlot, StateRows
from trajtools.recurrences.thresholds import absolute, absolute_of_rows
from trajtools.results import Distances

# States of more coordinates are compared row by row, a block of them at a time.
_HIGH_DIMENSION = 128
Plot = StatePlot | DistancePlot
Chosen = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """How recurrences are found.

    Attributes
    ----------
    threshold : float, WithinRadius, ScaledRadius, RecurrenceRate, NearestK, or a pair of them
        Which states recur.
    theiler : int, in samples
        Pairs closer in time do not count.
    rules : Convention
        What the measures mean.
    metric : str
        Name of the distance.
    dim, delay : int
        Embedding.
    """

    threshold: Any
    theiler: int
    rules: Convention
    metric: str
    dim: int
    delay: int


def build_plot(x: Any, y: Any, kind: str, asked: Asked) -> tuple[Plot, Chosen]:
    """The plot of one or two systems, and what was chosen for it.

    Parameters
    ----------
    x, y : array_like, Trajectory, Distances or None
        As `trajtools.recurrence` takes them.
    kind : str
        ``"auto"``, ``"cross"`` or ``"joint"``.
    asked : Asked
        How recurrences are found.

    Returns
    -------
    plot : StatePlot or DistancePlot
    chosen : dict
        ``thresholds``, and what they came from.

    Raises
    ------
    DataError
        If the data cannot be analysed so.
    UnknownNameError
        If the metric is unknown.
    """
    if isinstance(x, Distances) or asked.metric == "precomputed":
        if y is not None or asked.dim != 1:
            raise DataError("x holds distances: y and dim belong to states; for two systems give pairwise(x, y=y)")
        return _of_distances(x, kind, asked)
    if kind != "joint" and asked.dim == 1 and _is_wide(x):
        return _of_wide_states(x, y, asked)
    first = prepare(x, dim=asked.dim, delay=asked.delay)
    if y is None:
        return _of_states((make_pair(first, first, asked.metric),), (asked.threshold,), asked)
    second = prepare(y, dim=asked.dim, delay=asked.delay, name="y")
    if kind == "cross":
        return _of_states((make_pair(first, second, asked.metric),), (asked.threshold,), asked)
    if len(first) != len(second):
        raise DataError(f"joint recurrences need states at the same times; x has {len(first)}, y {len(second)}")
    each = asked.threshold if isinstance(asked.threshold, (tuple, list)) else (asked.threshold, asked.threshold)
    if len(each) != 2:
        raise DataError(f"threshold={asked.threshold!r}: one rule for both systems, or a pair of them")
    both = first.finite & second.finite
    systems = [States(s.series, s.offsets, both) for s in (first, second)]
    return _of_states(tuple(make_pair(s, s, asked.metric) for s in systems), tuple(each), asked)


def _is_local(rule: Any) -> bool:
    return isinstance(rule, NearestK) or (isinstance(rule, RecurrenceRate) and rule.local)


def _of_states(pairs: tuple[Pair, ...], thresholds: tuple[Any, ...], asked: Asked) -> tuple[Plot, Chosen]:
    if any(_is_local(rule) for rule in thresholds):
        if len(pairs) > 1:
            raise DataError(f"threshold={thresholds[0]!r}: joint recurrences take one distance for each system")
        pair = pairs[0]
        rows = StateRows.of(pair)
        return _of_rows(rows, (pair.rows.finite, pair.columns.finite), asked, square=pair.symmetric, symmetric=True)
    found = [absolute(pair, rule, asked.theiler) for pair, rule in zip(pairs, thresholds, strict=True)]
    plot = StatePlot(pairs, tuple(f[0] for f in found), asked.rules.inclusive, thresholds)
    return plot, {"thresholds": plot.thresholds, **found[0][1]}


def _of_rows(
    source: Any, finite: tuple[Bools, Bools], asked: Asked, *, square: bool, symmetric: bool
) -> tuple[DistancePlot, Chosen]:
    """Of distances that are read row by row."""
    window = max(asked.theiler, 1) if square else asked.theiler
    chosen: Chosen = {}
    rule, local = asked.threshold, _is_local(asked.threshold)
    if not local:
        rule, chosen = absolute_of_rows(source.read, finite, rule, window)
    plot = DistancePlot(
        source=source,
        finite=finite,
        rule=rule,
        inclusive=asked.rules.inclusive,
        square=square,
        symmetric=square and symmetric and not local,
        theiler=window,
        asked=asked.threshold,
    )
    return plot, {"thresholds": (plot.level(),), **chosen}


@dataclass(frozen=True, eq=False)
class MatrixRows:
    """Rows of distances in memory.

    Attributes
    ----------
    matrix : ndarray of float64, shape (T, S)
        The distances.
    """

    matrix: Any

    def read(self, start: int, stop: int) -> Any:
        """Rows start .. stop."""
        return self.matrix[start:stop]


def _of_distances(x: Any, kind: str, asked: Asked) -> tuple[DistancePlot, Chosen]:
    if isinstance(x, Distances):
        finite = (~x.excluded, ~x.column_excluded)
        return _of_rows(x, finite, asked, square=kind == "auto", symmetric=x.symmetric)
    matrix = np.asarray(x)
    if matrix.dtype.kind not in "fiub" or matrix.ndim != 2 or min(matrix.shape) < 2:
        raise DataError(f"distances are an array (T, S) of real numbers; this one is {matrix.dtype} {matrix.shape}")
    matrix = matrix.astype(np.float64, copy=False)
    if np.any(matrix < 0):
        raise DataError("the given distances hold negative numbers; distances are positive or zero")
    known = ~np.isnan(matrix)
    finite = (known.any(axis=1), known.any(axis=0))
    if np.count_nonzero(known) != np.count_nonzero(finite[0]) * np.count_nonzero(finite[1]):
        raise DataError("single distances are NaN; a state without distances has NaN in its whole row and column")
    square = kind == "auto"
    symmetric = square and np.array_equal(matrix, matrix.T, equal_nan=True)
    return _of_rows(MatrixRows(matrix), finite, asked, square=square, symmetric=symmetric)


def _is_wide(x: Any) -> bool:
    shape = x.shape if is_trajectory(x) else np.shape(x)
    return len(shape) == 2 and shape[1] > _HIGH_DIMENSION


def _of_wide_states(x: Any, y: Any, asked: Asked) -> tuple[DistancePlot, Chosen]:
    rows = x if is_trajectory(x) else np.asarray(x)
    columns = rows if y is None else y if is_trajectory(y) else np.asarray(y)
    if len(columns.shape) != 2 or columns.shape[1] != rows.shape[1]:
        raise DataError(f"the states of x have {rows.shape[1]} coordinates, y has shape {columns.shape}")
    if isinstance(asked.threshold, ScaledRadius) and asked.threshold.by == "std":
        raise DataError(f"{asked.threshold}: for states of more than {_HIGH_DIMENSION} coordinates give by='max'")
    finite = _finite(rows)
    others = finite if y is None else _finite(columns)
    source = StateRows(rows, columns, metric_code(asked.metric, rows.shape[1]))
    return _of_rows(source, (finite, others), asked, square=y is None, symmetric=True)


def _finite(states: Any) -> Bools:
    """Which states are finite, read a block at a time."""
    if states.dtype.kind not in "fiub":
        raise DataError(f"states are real numbers; this array has dtype {states.dtype}")
    step = max(1, 2**23 // states.shape[1])
    parts = [np.isfinite(np.asarray(states[a : a + step])).all(axis=1) for a in range(0, len(states), step)]
    finite = np.concatenate(parts)
    if np.count_nonzero(finite) < 2:
        raise DataError(f"{int(np.count_nonzero(finite))} of {len(finite)} states are finite; two at least are needed")
    return finite
