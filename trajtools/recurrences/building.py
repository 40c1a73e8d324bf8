"""From what the user gives to a plot whose recurrences can be counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.embedding import embed
from trajtools.errors import DataError
from trajtools.neighbors.rules import NearestK, RecurrenceRate
from trajtools.recurrences.conventions import Convention
from trajtools.recurrences.planes import METRICS, Pair, States, is_trajectory, make_pair, prepare
from trajtools.recurrences.sources import DistancePlot, StatePlot, StateRows, TileRows
from trajtools.recurrences.thresholds import absolute, absolute_of_rows, just_reached
from trajtools.types import Bools

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
    metric : str, callable or Metric
        Distance between states.
    dim, delay : int
        Embedding.
    """

    threshold: Any
    theiler: int
    rules: Convention
    metric: Any
    dim: int
    delay: int


def build_plot(x: Any, y: Any, kind: str, asked: Asked) -> tuple[Plot, Chosen]:
    """The plot of one or two systems, and what was chosen for it."""
    if isinstance(x, Distances) or asked.metric == "precomputed":
        if y is not None or asked.dim != 1:
            raise DataError("x holds distances: y and dim belong to states; for two systems give pairwise(x, y=y)")
        return _of_distances(x, kind, asked)
    if asked.metric not in METRICS or (asked.dim == 1 and _is_wide(x)):
        if kind == "joint":
            raise DataError(
                f"joint recurrences are those of up to {_HIGH_DIMENSION} coordinates, in {', '.join(METRICS)}; "
                "project the states, or select fewer parameters"
            )
        return _of_compared(x, y, asked)
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
    levels = tuple(just_reached(f[0], rule, asked.rules.inclusive) for f, rule in zip(found, thresholds, strict=True))
    plot = StatePlot(pairs, levels, asked.rules.inclusive, thresholds)
    return plot, {"thresholds": plot.thresholds, **found[0][1]}


def _of_rows(
    source: Any, finite: tuple[Bools, Bools], asked: Asked, *, square: bool, symmetric: bool
) -> tuple[DistancePlot, Chosen]:
    """Of distances that are read row by row."""
    window = max(asked.theiler, 1) if square else asked.theiler
    chosen: Chosen = {}
    rule, local = asked.threshold, _is_local(asked.threshold)
    if not local:
        level, chosen = absolute_of_rows(source.read, finite, rule, window)
        rule = just_reached(level, rule, asked.rules.inclusive)
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
        _refuse_few(finite[0], "x")
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


def _of_compared(x: Any, y: Any, asked: Asked) -> tuple[Plot, Chosen]:
    """Of states of many coordinates, or in any metric: all distances if they take no more room than the states."""
    from trajtools.distances.pairwise import pairwise
    from trajtools.distances.tiles import compare

    if asked.dim > 1:
        x, y = (None if s is None else embed(s, asked.dim, asked.delay) for s in (x, y))
    rows, size = np.shape(x)[0], int(np.prod(np.shape(x)[1:]))
    columns = rows if y is None else np.shape(y)[0]
    kind = "auto" if y is None else "cross"
    if columns <= size or asked.metric not in METRICS:
        return _of_distances(pairwise(x, y=y, metric=asked.metric), kind, asked)
    what = compare(x, y, asked.metric, digest=False, executor=None)
    _refuse_few(what.rows.finite, "x")
    return _of_rows(
        TileRows(what), (what.rows.finite, what.columns.finite), asked, square=y is None, symmetric=what.symmetric
    )


def _refuse_few(finite: Bools, name: str) -> None:
    if np.count_nonzero(finite) < 2:
        raise DataError(
            f"{name}: {int(np.count_nonzero(finite))} of {len(finite)} states are finite; two at least are needed: "
            "select a window without NaN and inf"
        )
