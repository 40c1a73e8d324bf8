"""Input of a recurrence plot: states or distances, embedded without a copy, read row by row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.pairwise import Distances
from trajtools.embedding import embed
from trajtools.errors import DataError, UnknownNameError
from trajtools.neighbors.rules import NearestK, RecurrenceRate
from trajtools.recurrences.lines import Lines, count_lags, count_rows
from trajtools.recurrences.thresholds import absolute, absolute_of_rows, just_reached
from trajtools.trajectory import Trajectory
from trajtools.types import Bools, Floats, Ints
from trajtools.wording import counted

if TYPE_CHECKING:
    from trajtools.recurrences.measures import Convention

METRICS = ("linf", "l2", "l1")


# As in trajtools._kernels.recurrence_lines, which is imported on use because numba loads slowly.
_CODES = {"l1": 1, "l2": 2, "linf": 3}


_L2 = 2


# Range of numbers whose squares, and those of differences down to 1e-16 of the largest, are normal numbers.
_SMALLEST, _LARGEST = 1e-120, 1e120


# Relative distances below this underflow when squared.
_LEAST_SHARE = 1e-140


Words = NDArray[np.uint64]


# Memory of distances computed at once.
_BAND_BYTES = 32 * 2**20


# States of more coordinates are compared in blocks of rows.
_HIGH_DIMENSION = 128


Settings = dict[str, Any]


def sampling(x: Any, dt: float | None) -> tuple[float, str]:
    """Time between two samples, and its unit."""
    if dt is not None:
        if not (np.isfinite(dt) and dt > 0):
            raise DataError(f"dt={dt!r}: the time between two samples must be positive")
        return float(dt), getattr(dt, "unit", "time")
    step, natural, unit = getattr(x, "step", None), getattr(x, "dt", 1.0), getattr(x, "time_unit", "sample")
    if step is None or len(step) < 2:
        return float(natural), unit
    gaps = np.unique(np.diff(step))
    if len(gaps) > 1:
        raise DataError(
            f"the states are between {gaps[0]} and {gaps[-1]} steps apart; lines of a recurrence plot need even "
            "spacing: select with window(start, stop, every=k)"
        )
    return float(natural) * int(gaps[0]), unit


@dataclass(frozen=True, eq=False)
class Pair:
    """The states of the rows and of the columns of a recurrence plot, and their metric.

    Attributes
    ----------
    rows, columns : PaddedStates
        The same object for one system.
    metric : str
        Name of the metric.
    code : int
        Code of the metric for the kernels.
    scale : float
        A power of two that scales the numbers before squaring, so that no square overflows.
    by_rate : bool
        Whether the threshold is chosen by a recurrence rate.
    """

    rows: PaddedStates
    columns: PaddedStates
    metric: str
    code: int
    scale: float
    by_rate: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the plot."""
        return len(self.rows), len(self.columns)

    @property
    def symmetric(self) -> bool:
        """Whether rows and columns are one system."""
        return self.rows is self.columns

    def part(self, rows: tuple[int, int], columns: tuple[int, int]) -> Pair:
        """Return a rectangle of the plot, as views."""
        left = self.rows.part(*rows)
        right = left if self.symmetric and rows == columns else self.columns.part(*columns)
        return Pair(left, right, self.metric, self.code, self.scale, self.by_rate)

    def level(self, threshold: float, inclusive: bool) -> float:
        """Threshold as the kernels compare it."""
        largest = float(threshold) if inclusive else float(np.nextafter(threshold, -np.inf))
        if self.code != _L2 or largest <= 0 or not np.isfinite(largest):
            return largest
        largest *= self.scale
        if largest < _LEAST_SHARE * self.largest_number * self.scale:
            if self.by_rate:
                raise DataError(
                    f"the states grow up to {self.largest_number:.3g}, as in a training that diverges, and beside them "
                    f"the distance of this recurrence rate, {threshold:.3g}, underflows when squared: select the "
                    "states before (window(start, stop), or --window START:STOP in a command), or pass metric='l1'"
                )
            raise DataError(
                f"threshold={threshold:g} is less than {_LEAST_SHARE:g} of the largest coordinate and underflows when "
                "squared: use metric 'l1' or 'linf', or subtract the offset of the states"
            )
        return largest_square(largest)

    @property
    def largest_number(self) -> float:
        """Largest finite magnitude of a coordinate."""
        return max(_largest(self.rows.series), _largest(self.columns.series))

    def plane(self, threshold: float, inclusive: bool) -> Any:
        """Arrays of the pair for the kernels."""
        from trajtools._kernels.recurrence_lines import Plane

        left = _pad(self.rows.series, self.scale)
        right = left if self.symmetric else _pad(self.columns.series, self.scale)
        return Plane(left, right, self.rows.offsets, self.code, self.level(threshold, inclusive))


@dataclass(frozen=True, eq=False)
class PaddedStates:
    """Checked states, embedded without a copy.

    Attributes
    ----------
    series : ndarray of float64, shape (C, N)
        Channels of a series.
    offsets : ndarray of int64, shape (m,)
        Delays in samples, from 0 on: state i has the coordinates ``series[c, i + offset]``.
    finite : ndarray of bool, shape (T,)
        States without NaN or inf.
    """

    series: Floats
    offsets: Ints
    finite: Bools

    def __len__(self) -> int:
        return len(self.finite)

    @property
    def dimension(self) -> int:
        """Number of coordinates of a state."""
        return len(self.series) * len(self.offsets)

    def part(self, start: int, stop: int) -> PaddedStates:
        """Return the states start .. stop, as a view."""
        reach = int(self.offsets[-1])
        return PaddedStates(self.series[:, start : stop + reach], self.offsets, self.finite[start:stop])

    def points(self, start: int = 0, stop: int | None = None) -> Floats:
        """Return states as rows, (t, d), with coordinates in the order of `trajtools.embedding.embed`."""
        stop = len(self) if stop is None else stop
        return np.concatenate([self.series[:, start + o : stop + o].T for o in self.offsets], axis=1)


def largest_square(distance: float) -> float:
    """Largest number whose rounded square root is at most a distance."""
    square = distance * distance
    while np.sqrt(square) <= distance:
        square = float(np.nextafter(square, np.inf))
    while np.sqrt(square) > distance:
        square = float(np.nextafter(square, -np.inf))
    return square


def _pad(series: Floats, scale: float) -> Floats:
    from trajtools._kernels.recurrence_lines import AFTER, BEFORE

    padded = np.full((series.shape[0], BEFORE + series.shape[1] + AFTER), np.nan)
    padded[:, BEFORE : BEFORE + series.shape[1]] = series if scale == 1.0 else series * scale
    return padded


def _largest(series: Floats) -> float:
    finite = np.isfinite(series)
    return float(np.max(np.abs(series), where=finite, initial=0.0))


def pack_rows(flags: Bools) -> Words:
    """Pack rows of flags into 64-bit words."""
    text = -(-flags.shape[1] // 64)
    padded = np.zeros((len(flags), 64 * text), dtype=bool)
    padded[:, : flags.shape[1]] = flags
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)


def unpack_rows(bits: Words, columns: int) -> Bools:
    """Unpack rows of bits into flags."""
    raw = np.ascontiguousarray(bits.astype("<u8")).view(np.uint8)
    return np.unpackbits(raw, axis=1, bitorder="little", count=columns).astype(bool)


@dataclass(frozen=True)
class PlotOptions:
    """Options of a recurrence plot.

    Attributes
    ----------
    threshold : float, WithinRadius, ScaledRadius, RecurrenceRate, NearestK, or a pair of them
        Which states recur.
    theiler : int, in samples
        Pairs closer in time do not count.
    rules : Convention
        Convention of the measures.
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


def build_plot(x: Any, y: Any, kind: str, options: PlotOptions) -> tuple[Plot, Settings]:
    """Return the plot of one or two systems, and the automatic settings."""
    if isinstance(x, Distances) or options.metric == "precomputed":
        if y is not None or options.dim != 1:
            raise DataError("x holds distances: y and dim apply to states; for two systems pass pairwise(x, y=y)")
        return _plot_of_distances(x, kind, options)
    if options.metric not in METRICS or (options.dim == 1 and _is_wide(x)):
        if kind == "joint":
            raise DataError(
                f"joint recurrences support up to {_HIGH_DIMENSION} coordinates, in {', '.join(METRICS)}; "
                "project the states, or select fewer parameters"
            )
        return _plot_of_compared(x, y, options)
    first = prepare(x, dim=options.dim, delay=options.delay)
    if y is None:
        return _plot_of_states((make_pair(first, first, options.metric),), (options.threshold,), options)
    second = prepare(y, dim=options.dim, delay=options.delay, name="y")
    if kind == "cross":
        return _plot_of_states((make_pair(first, second, options.metric),), (options.threshold,), options)
    if len(first) != len(second):
        raise DataError(f"joint recurrences need states at the same times; x has {len(first)}, y {len(second)}")
    each = options.threshold if isinstance(options.threshold, (tuple, list)) else (options.threshold, options.threshold)
    if len(each) != 2:
        raise DataError(f"threshold={options.threshold!r}: it must be one rule for both systems, or a pair of rules")
    both = first.finite & second.finite
    systems = [PaddedStates(s.series, s.offsets, both) for s in (first, second)]
    return _plot_of_states(tuple(make_pair(s, s, options.metric) for s in systems), tuple(each), options)


def prepare(x: Any, *, dim: int = 1, delay: int = 1, name: str = "x") -> PaddedStates:
    """Check states, and set up their embedding."""
    raw = np.asarray(x)
    if raw.dtype.kind not in "fiub":
        raise DataError(f"{name}: states must be real numbers; this array has dtype {raw.dtype}")
    if raw.ndim not in (1, 2) or not raw.size:
        raise DataError(f"{name}: states must be an array (T, d) or (T,); this one has shape {raw.shape}")
    for word, value in (("dim", dim), ("delay", delay)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise DataError(f"{word}={value!r}: it must be a whole number, at least 1")
    array = raw.astype(np.float64, copy=False)
    series = np.ascontiguousarray(array[:, None].T if array.ndim == 1 else array.T)
    length = series.shape[1] - (dim - 1) * delay
    if length < 2 and dim == 1:
        raise DataError(f"{name}: {counted(length, 'sample')}, and 2 samples are needed: record more")
    if length < 2:
        raise DataError(
            f"{name}: {counted(series.shape[1], 'sample')} {'gives' if series.shape[1] == 1 else 'give'} "
            f"{counted(max(length, 0), 'state')} with dim={dim} and delay={delay}; "
            f"{(dim - 1) * delay + 2} samples are needed: lower dim or delay, or record more"
        )
    offsets = np.arange(dim, dtype=np.int64) * int(delay)
    good: Bools = np.logical_and.reduce(np.isfinite(series), axis=0)
    finite = np.ones(length, dtype=bool)
    for offset in offsets:
        finite &= good[offset : offset + length]
    if np.count_nonzero(finite) < 2:
        raise DataError(
            f"{name}: {int(np.count_nonzero(finite))} of {length} states are finite; at least two are needed"
            + (": select a window without NaN and inf" if not finite.all() else ": record more")
        )
    return PaddedStates(series, offsets, finite)


def _plot_of_states(
    pairs: tuple[Pair, ...], thresholds: tuple[Any, ...], options: PlotOptions
) -> tuple[Plot, Settings]:
    if any(_is_local(rule) for rule in thresholds):
        if len(pairs) > 1:
            raise DataError(f"threshold={thresholds[0]!r}: joint recurrences need one distance for each system")
        pair = pairs[0]
        rows = StateRows.of(pair)
        return _plot_of_rows(
            rows, (pair.rows.finite, pair.columns.finite), options, square=pair.symmetric, symmetric=True
        )
    absolutes = [absolute(pair, rule, options.theiler) for pair, rule in zip(pairs, thresholds, strict=True)]
    levels = tuple(
        just_reached(f[0], rule, options.rules.inclusive) for f, rule in zip(absolutes, thresholds, strict=True)
    )
    pairs = tuple(
        replace(pair, by_rate=isinstance(rule, RecurrenceRate)) for pair, rule in zip(pairs, thresholds, strict=True)
    )
    plot = StatePlot(pairs, levels, options.rules.inclusive, thresholds)
    return plot, {"thresholds": plot.thresholds, **absolutes[0][1]}


@dataclass(frozen=True, eq=False)
class StatePlot:
    """Recurrence plot of states within a distance, of one system or of two jointly.

    Attributes
    ----------
    pairs : tuple of Pair
        One, or two that must recur jointly.
    thresholds : tuple of float
        Threshold of each pair.
    inclusive : bool
        Whether a pair at the threshold recurs.
    rules : tuple
        The rules of the thresholds.
    """

    pairs: tuple[Pair, ...]
    thresholds: tuple[float, ...]
    inclusive: bool
    rules: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """T and S."""
        return self.pairs[0].shape

    @property
    def finite(self) -> tuple[Bools, Bools]:
        """Finite states of the rows and of the columns."""
        first, *others = self.pairs
        rows, columns = first.rows.finite, first.columns.finite
        for other in others:
            rows, columns = rows & other.rows.finite, columns & other.columns.finite
        return rows, columns

    @property
    def symmetric(self) -> bool:
        """Whether the plot is symmetric."""
        return all(p.symmetric for p in self.pairs)

    def count(self, windows: tuple[int, int], middles: bool) -> Lines:
        """Count the lines outside Theiler windows."""
        other = (self.pairs[1], self.thresholds[1]) if len(self.pairs) > 1 else None
        return count_lags(
            self.pairs[0],
            self.thresholds[0],
            other=other,
            inclusive=self.inclusive,
            windows=windows,
            middles=middles,
        )

    def distances(self, start: int, stop: int) -> Floats:
        """Read distances of rows to all columns, in the first system."""
        return StateRows.of(self.pairs[0]).read(start, stop)

    def bits(self, start: int, stop: int) -> Words:
        """Read rows of the plot as bits."""
        bits = []
        for pair, threshold in zip(self.pairs, self.thresholds, strict=True):
            bits.append(to_bits(StateRows.of(pair).read(start, stop), threshold, self.inclusive))
        return np.bitwise_and.reduce(bits)

    def level(self) -> float:
        """Threshold of the first system."""
        return self.thresholds[0]

    def with_own_threshold(self, theiler: int) -> StatePlot:
        """Return the plot with thresholds recomputed by their rules."""
        levels = [
            just_reached(absolute(pair, rule, theiler)[0], rule, self.inclusive)
            for pair, rule in zip(self.pairs, self.rules, strict=True)
        ]
        return replace(self, thresholds=tuple(levels))

    def part(self, start: int, stop: int) -> StatePlot:
        """Return the plot of a window of states."""
        return replace(self, pairs=tuple(p.part((start, stop), (start, stop)) for p in self.pairs))


def to_bits(distances: Floats, threshold: float, inclusive: bool) -> Words:
    """Convert rows of distances to recurrence bits."""
    from trajtools._kernels.recurrence_rows import bits_below

    level = threshold if inclusive else np.nextafter(threshold, -np.inf)
    text = -(-distances.shape[1] // 64)
    return bits_below(np.ascontiguousarray(distances), np.full(len(distances), level), text)


@dataclass(frozen=True, eq=False)
class StateRows:
    """Distances computed from states on reading.

    Attributes
    ----------
    rows, columns : ndarray of float64, shapes (T, d) and (S, d)
        The states.
    code : int
        Code of the metric for the kernels.
    scale : float
        A power of two that scales numbers before squaring.
    """

    rows: Floats
    columns: Floats
    code: int
    scale: float = 1.0

    def read(self, start: int, stop: int) -> Floats:
        """Compute distances of rows to all columns, (t, S)."""
        from trajtools._kernels.recurrence_rows import distance_block

        out = np.empty((stop - start, len(self.columns)))
        distance_block(self.rows[start:stop], self.columns, self.code, out)
        return np.sqrt(out) / self.scale if self.code == 2 else out

    @classmethod
    def of(cls, pair: Pair) -> StateRows:
        """Create from a pair of checked states."""
        scale = pair.scale if pair.code == 2 else 1.0
        points = np.ascontiguousarray(pair.rows.points()) * scale
        others = points if pair.symmetric else np.ascontiguousarray(pair.columns.points()) * scale
        return cls(points, others, pair.code, scale)


def _plot_of_rows(
    source: Any, finite: tuple[Bools, Bools], options: PlotOptions, *, square: bool, symmetric: bool
) -> tuple[DistancePlot, Settings]:
    """Return the plot of distances read row by row."""
    window = max(options.theiler, 1) if square else options.theiler
    settings: Settings = {}
    rule, local = options.threshold, _is_local(options.threshold)
    if not local:
        level, settings = absolute_of_rows(source.read, finite, rule, window)
        rule = just_reached(level, rule, options.rules.inclusive)
    plot = DistancePlot(
        source=source,
        finite=finite,
        rule=rule,
        inclusive=options.rules.inclusive,
        square=square,
        symmetric=square and symmetric and not local,
        theiler=window,
        user_rule=options.threshold,
    )
    return plot, {"thresholds": (plot.level(),), **settings}


@dataclass(frozen=True, eq=False)
class DistancePlot:
    """Recurrence plot of distances read row by row.

    Attributes
    ----------
    source : object
        With ``read(start, stop)``: distances (t, S).
    finite : (ndarray of bool, ndarray of bool), shapes (T,) and (S,)
        Finite states of the rows and of the columns.
    rule : float, NearestK or RecurrenceRate
        Largest distance, or number of neighbours of every state of the rows.
    inclusive : bool
        Whether a pair at the threshold recurs.
    square : bool
        Whether rows and columns are the same states.
    symmetric : bool
        Whether the plot is symmetric.
    theiler : int, in samples
        Pairs closer in time are no neighbours.
    user_rule : object
        The user's rule; equal to `rule` for a number of neighbours.
    offset : int
        First state of the plot in the source.
    """

    source: Any
    finite: tuple[Bools, Bools]
    rule: Any
    inclusive: bool
    square: bool
    symmetric: bool
    theiler: int
    user_rule: Any
    offset: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """T and S."""
        return len(self.finite[0]), len(self.finite[1])

    @property
    def is_local(self) -> bool:
        """Whether every state has its own threshold."""
        return isinstance(self.rule, (NearestK, RecurrenceRate))

    def level(self) -> float:
        """Threshold; NaN if every state has its own."""
        return float("nan") if self.is_local else float(self.rule)

    def with_own_threshold(self, theiler: int) -> DistancePlot:
        """Return the plot with the threshold recomputed by its rule."""
        if self.is_local:
            return self
        level, _ = absolute_of_rows(self.distances, self.finite, self.user_rule, theiler)
        return replace(self, rule=just_reached(level, self.user_rule, self.inclusive))

    def count(self, windows: tuple[int, int], middles: bool) -> Lines:
        """Count the lines outside Theiler windows."""
        return count_rows(self.bits, self.shape, self.finite, windows=windows, middles=middles)

    def distances(self, start: int, stop: int) -> Floats:
        """Read distances of rows to all columns."""
        rows = np.asarray(self.source.read(self.offset + start, self.offset + stop), dtype=np.float64)
        return np.ascontiguousarray(rows[:, self.offset : self.offset + self.shape[1]] if self.square else rows)

    def bits(self, start: int, stop: int) -> Words:
        """Read rows of the plot as bits."""
        distances = self.distances(start, stop)
        if self.is_local:
            return self._nearest(distances, start)
        return to_bits(distances, self.rule, self.inclusive)

    def _nearest(self, distances: Floats, start: int) -> Words:
        """Mark the nearest states of each row; states in the Theiler window are included if as near."""
        out = np.zeros(distances.shape, dtype=bool)
        columns = np.arange(distances.shape[1])
        for at, row in enumerate(distances):
            i = start + at
            if not self.finite[0][i]:
                continue
            near = self.finite[1] & (np.abs(columns - i) < self.theiler)
            away = np.where(near | ~self.finite[1], np.inf, row)
            k = neighbors_of(self.rule, int(np.count_nonzero(np.isfinite(away))))
            if not k:
                continue
            level = np.partition(away, k - 1)[k - 1]
            out[at] = away < level
            equal = np.flatnonzero(away == level)
            out[at, equal[: k - np.count_nonzero(out[at])]] = True
            out[at] |= near & (row <= level)
        return pack_rows(out)

    def part(self, start: int, stop: int) -> DistancePlot:
        """Return the plot of a window of states."""
        if not self.square:
            raise DataError("distances between two systems cannot be split into windows; pass the states instead")
        cut = (self.finite[0][start:stop], self.finite[1][start:stop])
        return replace(self, finite=cut, offset=self.offset + start)


def neighbors_of(rule: NearestK | RecurrenceRate, available: int) -> int:
    """Number of neighbours of a state with `available` candidates."""
    if isinstance(rule, NearestK):
        return min(int(rule.k), available)
    return int(np.ceil(rule.rate * available - 1e-9))


def _is_local(rule: Any) -> bool:
    return isinstance(rule, NearestK) or (isinstance(rule, RecurrenceRate) and rule.local)


def _plot_of_distances(x: Any, kind: str, options: PlotOptions) -> tuple[DistancePlot, Settings]:
    if isinstance(x, Distances):
        finite = (~x.excluded, ~x.column_excluded)
        _refuse_few(finite[0], "x")
        return _plot_of_rows(x, finite, options, square=kind == "auto", symmetric=x.symmetric)
    matrix = np.asarray(x)
    if matrix.dtype.kind not in "fiub" or matrix.ndim != 2 or min(matrix.shape) < 2:
        raise DataError(f"distances must be an array (T, S) of real numbers; this one is {matrix.dtype} {matrix.shape}")
    matrix = matrix.astype(np.float64, copy=False)
    if np.any(matrix < 0):
        raise DataError("some distances are negative; distances must be zero or positive")
    defined = ~np.isnan(matrix)
    finite = (defined.any(axis=1), defined.any(axis=0))
    if np.count_nonzero(defined) != np.count_nonzero(finite[0]) * np.count_nonzero(finite[1]):
        raise DataError("some distances are NaN; an excluded state must have NaN in its whole row and column")
    square = kind == "auto"
    symmetric = square and np.array_equal(matrix, matrix.T, equal_nan=True)
    return _plot_of_rows(MatrixRows(matrix), finite, options, square=square, symmetric=symmetric)


def _refuse_few(finite: Bools, name: str) -> None:
    if np.count_nonzero(finite) < 2:
        raise DataError(
            f"{name}: {int(np.count_nonzero(finite))} of {len(finite)} states are finite; at least two are needed: "
            "select a window without NaN and inf"
        )


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
        """Read the rows start .. stop."""
        return self.matrix[start:stop]


def _plot_of_compared(x: Any, y: Any, options: PlotOptions) -> tuple[Plot, Settings]:
    """Return the plot of wide states or any metric; stores all distances if they are smaller than the states."""
    from trajtools.distances.pairwise import pairwise
    from trajtools.distances.tiles import compare

    if options.dim > 1:
        x, y = (None if s is None else embed(s, options.dim, options.delay) for s in (x, y))
    rows, size = np.shape(x)[0], int(np.prod(np.shape(x)[1:]))
    columns = rows if y is None else np.shape(y)[0]
    kind = "auto" if y is None else "cross"
    if columns <= size or options.metric not in METRICS:
        return _plot_of_distances(pairwise(x, y=y, metric=options.metric), kind, options)
    comparison = compare(x, y, options.metric, digest=False, executor=None)
    _refuse_few(comparison.rows.finite, "x")
    return _plot_of_rows(
        TileRows(comparison),
        (comparison.rows.finite, comparison.columns.finite),
        options,
        square=y is None,
        symmetric=comparison.symmetric,
    )


class TileRows:
    """Distances of wide states, computed tile by tile on reading."""

    def __init__(self, comparison: Any) -> None:
        self._comparison = comparison
        # A tile reads the states of all its columns: compute many rows at once and cache them.
        self._height = int(np.clip(_BAND_BYTES // (8 * len(comparison.y)), 16, comparison.side(0)))
        self._band: tuple[int, Floats] = (-1, np.empty((0, 0)))

    def read(self, start: int, stop: int) -> Floats:
        """Read distances of rows to all columns, (t, S)."""
        parts = []
        for band in range(start // self._height, -(-stop // self._height)):
            first = band * self._height
            rows = self._rows(band)
            parts.append(rows[max(start - first, 0) : stop - first])
        return np.concatenate(parts)

    def _rows(self, band: int) -> Floats:
        from trajtools._kernels._jit import in_parts
        from trajtools.distances.tiles import compute

        if self._band[0] == band:
            return self._band[1]
        comparison, side = self._comparison, self._comparison.side(0)
        rows = slice(band * self._height, min((band + 1) * self._height, len(comparison.x)))
        out = np.empty((rows.stop - rows.start, len(comparison.y)))

        def work(first: int, last: int) -> None:
            for tile in range(first, last):
                columns = slice(tile * side, min((tile + 1) * side, len(comparison.y)))
                out[:, columns] = comparison.blank(rows, columns, compute(comparison.tile(rows, columns)))

        in_parts(work, -(-len(comparison.y) // side))
        self._band = (band, out)
        return out


def _is_wide(x: Any) -> bool:
    shape = x.shape if is_trajectory(x) else np.shape(x)
    return len(shape) == 2 and shape[1] > _HIGH_DIMENSION


def is_trajectory(x: Any) -> bool:
    """Whether `x` is a lazy trajectory."""
    return isinstance(x, Trajectory)


def make_pair(rows: PaddedStates, columns: PaddedStates, metric: str) -> Pair:
    """Combine two sets of states into a pair."""
    if rows.dimension != columns.dimension:
        raise DataError(
            f"the states of x have {rows.dimension} coordinates, those of y {columns.dimension}; recurrences between "
            "two systems need equal coordinates. For joint recurrences of different systems use kind='joint'"
        )
    code = metric_code(metric, rows.dimension)
    scale = 1.0
    if code == _L2:
        largest = max(_largest(rows.series), _largest(columns.series))
        if not (_SMALLEST < largest < _LARGEST) and largest > 0:
            scale = 2.0 ** -float(np.frexp(largest)[1])
    return Pair(rows, columns, metric, code, scale)


def metric_code(metric: str, dimension: int) -> int:
    """Code of the metric for the kernels; all metrics agree in one dimension."""
    if metric not in METRICS:
        raise UnknownNameError(
            f"metric {metric!r} is none of {', '.join(METRICS)}; for other metrics pass Distances, or an array of "
            "distances with metric='precomputed'"
        )
    return _CODES["linf"] if dimension == 1 else _CODES[metric]


Plot = StatePlot | DistancePlot
