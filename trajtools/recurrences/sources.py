"""Where the recurrences of a plot come from: states, or distances that are read; never the plot itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, TooLargeError
from trajtools.neighbors.rules import NearestK, RecurrenceRate
from trajtools.recurrences.counting import count_lags, count_rows
from trajtools.recurrences.planes import Bools, Floats, Pair
from trajtools.recurrences.thresholds import absolute, absolute_of_rows
from trajtools.results import Lines, Recurrence

Words = NDArray[np.uint64]

# States of a block that is compared with others, in float64.
_BLOCK_BYTES = 16 * 2**20
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
        levels = [absolute(p, rule, theiler)[0] for p, rule in zip(self.pairs, self.asked, strict=True)]
        return replace(self, thresholds=tuple(levels))

    def part(self, start: int, stop: int) -> StatePlot:
        """The plot of some states of the rows and of the columns."""
        return replace(self, pairs=tuple(p.part((start, stop), (start, stop)) for p in self.pairs))


@dataclass(frozen=True, eq=False)
class StateRows:
    """Distances that are computed from states when they are read.

    Attributes
    ----------
    rows, columns : ndarray or Trajectory, shapes (T, d) and (S, d)
        The states; of a trajectory a block at a time is read.
    code : int
        The metric as the kernels know it.
    scale : float
        A power of two that numbers are multiplied with before they are squared.
    """

    rows: Any
    columns: Any
    code: int
    scale: float = 1.0

    def read(self, start: int, stop: int) -> Floats:
        """Distances of some rows to all columns, shape (t, S)."""
        from trajtools._kernels.recurrence_rows import distance_block

        a = self._scaled(self.rows, start, stop)
        length, dimension = self.columns.shape
        out = np.empty((len(a), length))
        step = max(1, _BLOCK_BYTES // (8 * dimension))
        for begin in range(0, length, step):
            end = min(begin + step, length)
            distance_block(a, self._scaled(self.columns, begin, end), self.code, out[:, begin:end])
        return np.sqrt(out) / self.scale if self.code == 2 else out

    def _scaled(self, states: Any, start: int, stop: int) -> Floats:
        block = np.ascontiguousarray(states[start:stop], dtype=np.float64)
        return block if self.scale == 1.0 else block * self.scale

    @classmethod
    def of(cls, pair: Pair) -> StateRows:
        """Of checked states."""
        points = pair.rows.points()
        return cls(points, points if pair.symmetric else pair.columns.points(), pair.code, pair.scale)


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
        return replace(self, rule=absolute_of_rows(self.distances, self.finite, self.asked, theiler)[0])

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
            apart = self.finite[1] & (np.abs(columns - i) >= self.theiler)
            others = np.flatnonzero(apart)
            k = neighbors_of(self.rule, len(others))
            order = np.argsort(row[others], kind="stable")[:k]
            out[at, others[order]] = True
            if len(order):
                out[at] |= ~apart & self.finite[1] & (row <= row[others[order[-1]]])
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
