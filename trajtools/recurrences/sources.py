"""Where the recurrences of a plot come from: states, or distances that are read; never the plot itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, TooLargeError
from trajtools.neighbors.rules import NearestK, RecurrenceRate
from trajtools.recurrences.lines import Lines, count_lags, count_rows
from trajtools.recurrences.planes import Pair
from trajtools.recurrences.thresholds import absolute, absolute_of_rows, just_reached
from trajtools.results.recurrence import Recurrence
from trajtools.types import Bools, Floats

Words = NDArray[np.uint64]

# Distances of many states that are computed at once.
_BAND_BYTES = 32 * 2**20
_LARGEST_MATRIX = 2**30


@dataclass(frozen=True, eq=False)
class StatePlot:
    """Recurrences of states within a distance, of one system or of two at once.

    Attributes
    ----------
    pairs : tuple of Pair
        One, or two that have to recur together.
    thresholds : tuple of float
        Of each.
    inclusive : bool
        Whether a pair at the threshold recurs.
    asked : tuple
        The rules that the thresholds come from.
    """

    pairs: tuple[Pair, ...]
    thresholds: tuple[float, ...]
    inclusive: bool
    asked: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """T and S."""
        return self.pairs[0].shape

    @property
    def finite(self) -> tuple[Bools, Bools]:
        """States that count, of the rows and of the columns."""
        first, *others = self.pairs
        rows, columns = first.rows.finite, first.columns.finite
        for other in others:
            rows, columns = rows & other.rows.finite, columns & other.columns.finite
        return rows, columns

    @property
    def symmetric(self) -> bool:
        """Whether state i recurs with j when j does with i."""
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
        """Distances of some rows to all columns, in the first system."""
        return StateRows.of(self.pairs[0]).read(start, stop)

    def bits(self, start: int, stop: int) -> Words:
        """Some rows of the plot as bits."""
        found = []
        for pair, threshold in zip(self.pairs, self.thresholds, strict=True):
            found.append(to_bits(StateRows.of(pair).read(start, stop), threshold, self.inclusive))
        return np.bitwise_and.reduce(found)

    def level(self) -> float:
        """Threshold of the (first) system."""
        return self.thresholds[0]

    def with_own_threshold(self, theiler: int) -> StatePlot:
        """The same plot, with thresholds found by the rules that were given."""
        levels = [
            just_reached(absolute(pair, rule, theiler)[0], rule, self.inclusive)
            for pair, rule in zip(self.pairs, self.asked, strict=True)
        ]
        return replace(self, thresholds=tuple(levels))

    def part(self, start: int, stop: int) -> StatePlot:
        """The plot of some states of the rows and of the columns."""
        return replace(self, pairs=tuple(p.part((start, stop), (start, stop)) for p in self.pairs))


@dataclass(frozen=True, eq=False)
class StateRows:
    """Distances that are computed from states when they are read.

    Attributes
    ----------
    rows, columns : ndarray of float64, shapes (T, d) and (S, d)
        The states.
    code : int
        The metric as the kernels know it.
    scale : float
        A power of two that numbers are multiplied with before they are squared.
    """

    rows: Floats
    columns: Floats
    code: int
    scale: float = 1.0

    def read(self, start: int, stop: int) -> Floats:
        """Distances of some rows to all columns, shape (t, S)."""
        from trajtools._kernels.recurrence_rows import distance_block

        out = np.empty((stop - start, len(self.columns)))
        distance_block(self.rows[start:stop], self.columns, self.code, out)
        return np.sqrt(out) / self.scale if self.code == 2 else out

    @classmethod
    def of(cls, pair: Pair) -> StateRows:
        """Of checked states."""
        scale = pair.scale if pair.code == 2 else 1.0
        points = np.ascontiguousarray(pair.rows.points()) * scale
        others = points if pair.symmetric else np.ascontiguousarray(pair.columns.points()) * scale
        return cls(points, others, pair.code, scale)


class TileRows:
    """Distances that are computed tile by tile when they are read: of states of many coordinates."""

    def __init__(self, what: Any) -> None:
        self._what = what
        # A tile reads the states of all its columns: many rows at once, and those that were not asked for are kept.
        self._height = int(np.clip(_BAND_BYTES // (8 * len(what.y)), 16, what.side(0)))
        self._band: tuple[int, Floats] = (-1, np.empty((0, 0)))

    def read(self, start: int, stop: int) -> Floats:
        """Distances of some rows to all columns, shape (t, S)."""
        parts = []
        for band in range(start // self._height, -(-stop // self._height)):
            first = band * self._height
            rows = self._rows(band)
            parts.append(rows[max(start - first, 0) : stop - first])
        return np.concatenate(parts)

    def _rows(self, band: int) -> Floats:
        from trajtools._kernels._threads import in_parts
        from trajtools.distances.tiles import compute

        if self._band[0] == band:
            return self._band[1]
        what, side = self._what, self._what.side(0)
        rows = slice(band * self._height, min((band + 1) * self._height, len(what.x)))
        out = np.empty((rows.stop - rows.start, len(what.y)))

        def work(first: int, last: int) -> None:
            for tile in range(first, last):
                columns = slice(tile * side, min((tile + 1) * side, len(what.y)))
                out[:, columns] = what.blank(rows, columns, compute(what.tile(rows, columns)))

        in_parts(work, -(-len(what.y) // side))
        self._band = (band, out)
        return out


@dataclass(frozen=True, eq=False)
class DistancePlot:
    """Recurrences from distances that are read row by row.

    Attributes
    ----------
    source : object
        With ``read(start, stop)``: distances (t, S).
    finite : (ndarray of bool, ndarray of bool), shapes (T,) and (S,)
        States that count, of the rows and of the columns.
    rule : float, NearestK or RecurrenceRate
        Largest distance, or how many neighbours every state of the rows has.
    inclusive : bool
        Whether a pair at the threshold recurs.
    square : bool
        Whether rows and columns are the same states.
    symmetric : bool
        Whether state i recurs with j when j does with i.
    theiler : int, in samples
        Pairs closer in time are no neighbours.
    asked : object
        The rule that was given; the same as `rule` for a number of neighbours.
    offset : int
        First state of the source that belongs to the plot.
    """

    source: Any
    finite: tuple[Bools, Bools]
    rule: Any
    inclusive: bool
    square: bool
    symmetric: bool
    theiler: int
    asked: Any
    offset: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """T and S."""
        return len(self.finite[0]), len(self.finite[1])

    @property
    def is_local(self) -> bool:
        """Whether every state has a threshold of its own."""
        return isinstance(self.rule, (NearestK, RecurrenceRate))

    def level(self) -> float:
        """Threshold; NaN where every state has its own."""
        return float("nan") if self.is_local else float(self.rule)

    def with_own_threshold(self, theiler: int) -> DistancePlot:
        """The same plot, with a threshold found by the rule that was given."""
        if self.is_local:
            return self
        level, _ = absolute_of_rows(self.distances, self.finite, self.asked, theiler)
        return replace(self, rule=just_reached(level, self.asked, self.inclusive))

    def count(self, windows: tuple[int, int], middles: bool) -> Lines:
        """Count the lines outside Theiler windows."""
        return count_rows(self.bits, self.shape, self.finite, windows=windows, middles=middles)

    def distances(self, start: int, stop: int) -> Floats:
        """Distances of some rows to all columns."""
        rows = np.asarray(self.source.read(self.offset + start, self.offset + stop), dtype=np.float64)
        return np.ascontiguousarray(rows[:, self.offset : self.offset + self.shape[1]] if self.square else rows)

    def bits(self, start: int, stop: int) -> Words:
        """Some rows of the plot as bits."""
        distances = self.distances(start, stop)
        if self.is_local:
            return self._nearest(distances, start)
        return to_bits(distances, self.rule, self.inclusive)

    def _nearest(self, distances: Floats, start: int) -> Words:
        """The nearest states of each row; those within the Theiler window are kept if they are as near."""
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
        """The plot of some states of the rows and of the columns."""
        if not self.square:
            raise DataError("windows of distances between two systems are not cut; give the states instead")
        cut = (self.finite[0][start:stop], self.finite[1][start:stop])
        return replace(self, finite=cut, offset=self.offset + start)


def neighbors_of(rule: NearestK | RecurrenceRate, available: int) -> int:
    """How many neighbours a state has that could have so many."""
    if isinstance(rule, NearestK):
        return min(int(rule.k), available)
    return int(np.ceil(rule.rate * available - 1e-9))


def to_bits(distances: Floats, threshold: float, inclusive: bool) -> Words:
    """Rows of distances as bits: whether they are within a threshold."""
    from trajtools._kernels.recurrence_rows import bits_below

    level = threshold if inclusive else np.nextafter(threshold, -np.inf)
    words = -(-distances.shape[1] // 64)
    return bits_below(np.ascontiguousarray(distances), np.full(len(distances), level), words)


def pack_rows(flags: Bools) -> Words:
    """Rows of flags as words of 64 bits."""
    words = -(-flags.shape[1] // 64)
    padded = np.zeros((len(flags), 64 * words), dtype=bool)
    padded[:, : flags.shape[1]] = flags
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)


def unpack_rows(bits: Words, columns: int) -> Bools:
    """Rows of bits as flags."""
    raw = np.ascontiguousarray(bits.astype("<u8")).view(np.uint8)
    return np.unpackbits(raw, axis=1, bitorder="little", count=columns).astype(bool)


def read_rows(result: Recurrence, start: int, stop: int | None) -> Bools:
    """Rows of the plot of a result; see `Recurrence.matrix`."""
    source = result.plot_source
    rows, columns = source.shape
    start, stop, _ = slice(start, stop).indices(rows)
    if (stop - start) * columns > _LARGEST_MATRIX:
        raise TooLargeError(
            f"{stop - start} rows of {columns} recurrences take more than {_LARGEST_MATRIX // 2**30} GiB; read fewer "
            "rows at a time with matrix(start, stop)"
        )
    flags = unpack_rows(source.bits(start, max(stop, start)), columns)
    rows_finite, columns_finite = source.finite
    return flags & rows_finite[start:stop, None] & columns_finite
