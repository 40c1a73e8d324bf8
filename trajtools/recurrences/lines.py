"""Lines and recurrences of a recurrence plot, counted without storing the plot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.errors import DataError
from trajtools.results import AxisNames, Result
from trajtools.types import Bools, Ints
from trajtools.wording import counted

if TYPE_CHECKING:
    from trajtools.recurrences.rows import Pair

KINDS = ("diagonal", "vertical", "white", "times")
_SHORTEST_BLOCK = 1024
_WORD = 64
_NO_BITS = np.zeros(0, dtype=np.uint64)


@dataclass(frozen=True, eq=False, repr=False)
class Lines(Result):
    """Histograms of the lines of a recurrence plot by length, and of recurrences by lag.

    Attributes
    ----------
    diagonal, one_end, both_ends : ndarray of int64, shape (n,)
        Entry l: diagonal lines of length l: all; those with one end at a border of the plot (or at a state that is not
        finite); those with both ends there.
    vertical, white, white_cut, times : ndarray of int64, shape (n,)
        Vertical lines; white vertical lines between two black ones; white lines with an end at a border, at the Theiler
        window or at a state that is not finite; recurrence times.
    recurrences, cells : ndarray of int64, shape (T + S - 1,)
        Recurrences, and pairs of finite states, of each lag ``i - j``, from ``1 - S`` on.
    square_recurrences, square_cells : ndarray of int64, shape (T + S - 1,)
        The same in the largest square from the first states on; identical if T = S.
    shape : (int, int)
        T and S.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> lines = tt.recurrence(x, dim=2, delay=8).lines
    >>> lines.shape
    (392, 392)
    >>> int(lines.diagonal.sum()) > 0
    True
    """

    diagonal: Ints
    one_end: Ints
    both_ends: Ints
    vertical: Ints
    white: Ints
    white_cut: Ints
    times: Ints
    recurrences: Ints
    cells: Ints
    square_recurrences: Ints
    square_cells: Ints
    shape: tuple[int, int]
    _dims: ClassVar[AxisNames] = dict.fromkeys(
        ("diagonal", "one_end", "both_ends", "vertical", "white", "white_cut", "times"), ("length",)
    ) | dict.fromkeys(("recurrences", "cells", "square_recurrences", "square_cells"), ("lag",))

    def _arrays(self) -> dict[str, tuple[tuple[str, ...], Any]]:
        """Histograms of one length: each ends with its longest line."""
        arrays = super()._arrays()
        longest = max(len(array) for dims, array in arrays.values() if dims == ("length",))
        padded = {name: np.pad(array, (0, longest - len(array))) for name, (dims, array) in arrays.items()
                  if dims == ("length",)}  # fmt: skip
        return arrays | {name: (("length",), array) for name, array in padded.items()}

    def _sentence(self) -> str:
        rows, columns = self.shape
        return (
            f"{counted(int(self.diagonal.sum()), 'diagonal line')} and {int(self.vertical.sum()):,} vertical ones in a "
            f"recurrence plot of {rows} x {columns} states."
        )

    def counts(self, kind: str) -> Ints:
        """Return the histogram of the lengths of one kind of lines.

        Parameters
        ----------
        kind : str
            ``"diagonal"``, ``"vertical"``, ``"white"`` or ``"times"`` (recurrence times).

        Returns
        -------
        ndarray of int64, shape (n,)
            Entry l: lines of length l.

        Raises
        ------
        DataError
            If there is no such kind of lines.
        """
        if kind not in KINDS:
            raise DataError(f"kind={kind!r} is not a kind of line; choose from {', '.join(KINDS)}")
        return np.asarray(getattr(self, kind))

    def time_apart(self, theiler: int) -> float:
        """Mean time between states that recur, over that between all states.

        Parameters
        ----------
        theiler : int, in samples
            Lags closer to zero are excluded.

        Returns
        -------
        float
            About 1 where a trajectory returns, small where it drifts; NaN without recurrences.
        """
        apart = self._is_outside(max(theiler, 1))
        lag, recurrences, cells = self._lag()[apart], self.recurrences[apart], self.cells[apart]
        if not recurrences.sum() or not cells.sum():
            return float("nan")
        return float((lag @ recurrences) / recurrences.sum() * (cells.sum() / (lag @ cells)))

    def outside(self, theiler: int) -> tuple[int, int]:
        """Count recurrences and cells outside a Theiler window.

        Parameters
        ----------
        theiler : int, in samples
            Lags closer to zero are excluded.

        Returns
        -------
        recurrences, cells : int
        """
        outside = self._is_outside(theiler)
        return int(self.recurrences[outside].sum()), int(self.cells[outside].sum())

    def cells_outside(self, theiler: int) -> Ints:
        """Count the cells of each diagonal outside a Theiler window.

        Parameters
        ----------
        theiler : int, in samples
            Lags closer to zero are excluded.

        Returns
        -------
        ndarray of int64, shape (n,)
            Diagonals without cells are left out.
        """
        cells = self.cells[self._is_outside(theiler)]
        return cells[cells > 0]

    def _is_outside(self, theiler: int) -> Bools:
        return self._lag() >= theiler

    def _lag(self) -> Ints:
        return np.abs(np.arange(len(self.cells)) - (self.shape[1] - 1))


def count_lags(
    pair: Pair,
    threshold: float,
    *,
    other: tuple[Pair, float] | None = None,
    inclusive: bool = True,
    windows: tuple[int, int] = (1, 1),
    middles: bool = False,
) -> Lines:
    """Count the lines of a plot of states, lag by lag."""
    from trajtools._kernels._jit import in_parts
    from trajtools._kernels.recurrence_lines import ENTRIES, MIDDLES, lag_block, make_lags, stitch, threads

    rows, columns = pair.shape
    plane = pair.plane(threshold, inclusive)
    second = plane if other is None else other[0].plane(other[1], inclusive)
    row_finite, column_finite = pair.rows.finite, pair.columns.finite
    if other is not None:
        row_finite, column_finite = row_finite & other[0].rows.finite, column_finite & other[0].columns.finite
    mirrored = pair.symmetric and (other is None or other[0].symmetric)
    holes = not (row_finite.all() and column_finite.all())
    bits = (pack(row_finite, before=1), pack(column_finite)) if holes else (_NO_BITS, _NO_BITS)
    n_blocks = min(threads(), columns // _SHORTEST_BLOCK) if columns >= 2 * _SHORTEST_BLOCK else 1
    bounds = np.array([columns * b // n_blocks // _WORD * _WORD for b in range(n_blocks)] + [columns], dtype=np.int64)
    edges = np.zeros((n_blocks, rows + columns - 1, 2), dtype=np.int64)
    blocks: list[Any] = [None] * n_blocks

    def work(first: int, last: int) -> None:
        for block in range(first, last):
            begin, end = bounds[block], bounds[block + 1]
            blocks[block] = make_lags(plane, second, rows, columns, begin, end)
            lag_block(
                plane,
                second,
                other is not None,
                rows,
                columns,
                (row_finite, column_finite),
                bits,
                holes,
                windows,
                mirrored,
                MIDDLES if middles else ENTRIES,
                begin,
                end,
                edges[block],
                blocks[block],
            )

    if n_blocks == 1:
        work(0, 1)
        return as_lines(blocks[0].histograms, blocks[0].counts, pair.shape)
    in_parts(work, n_blocks)
    histograms, counts = sum(f.histograms for f in blocks), sum(f.counts for f in blocks)
    histograms += stitch(edges, bounds, rows, columns, windows[0], mirrored, row_finite, column_finite)
    return as_lines(histograms, counts, pair.shape)


def as_lines(histograms: Ints, counts: Ints, shape: tuple[int, int]) -> Lines:
    """Convert the histograms of the kernels, without trailing zeros."""
    longest = histograms.shape[1] - (histograms[:, ::-1] != 0).argmax(axis=1)
    longest[~np.logical_or.reduce(histograms, axis=1)] = 1
    trimmed = [row[:end] for row, end in zip(histograms, longest, strict=True)]
    recurrences, square_recurrences, cells, square_cells = counts
    diagonal, one_end, both_ends, vertical, white, white_cut, times = trimmed
    return Lines(
        diagonal=diagonal,
        one_end=one_end,
        both_ends=both_ends,
        vertical=vertical,
        white=white,
        white_cut=white_cut,
        times=times,
        recurrences=recurrences,
        cells=cells,
        square_recurrences=square_recurrences,
        square_cells=square_cells,
        shape=shape,
    )


def pack(flags: Bools, before: int = 0) -> Any:
    """Pack flags into 64-bit words, with empty words around them."""
    text = -(-len(flags) // _WORD) + 4
    bits = np.zeros(_WORD * text, dtype=bool)
    bits[: len(flags)] = flags
    packed = np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)
    return np.concatenate([np.zeros(before, dtype=np.uint64), packed])


def count_rows(
    read: Callable[[int, int], Any],
    shape: tuple[int, int],
    finite: tuple[Bools, Bools],
    *,
    windows: tuple[int, int],
    middles: bool,
) -> Lines:
    """Count the lines of a recurrence plot, row by row."""
    from trajtools._kernels.recurrence_lines import ENTRIES, HISTOGRAMS, MEMORY, MIDDLES
    from trajtools._kernels.recurrence_rows import count_rows as count

    rows, columns = shape
    text = -(-columns // _WORD)
    column_bits = pack(finite[1])[:text].copy()
    was, memory = np.zeros((2, text), dtype=np.uint64), np.full((_WORD * text, MEMORY), -1, dtype=np.int32)
    slants = -(-(rows + columns) // _WORD) + 1
    slanted, begun = np.zeros(slants, dtype=np.uint64), np.zeros(_WORD * slants, dtype=np.int64)
    histograms = np.zeros((HISTOGRAMS, max(rows, columns) + 2), dtype=np.int64)
    counts = np.zeros((4, rows + columns - 1), dtype=np.int64)
    rule = MIDDLES if middles else ENTRIES

    def take(bits: Any, start: int) -> None:
        count(
            bits,
            start,
            rows,
            columns,
            *finite,
            column_bits,
            windows,
            rule,
            was,
            memory,
            slanted,
            begun,
            histograms,
            counts,
        )

    for start in range(0, rows, rows_at_a_time(columns)):
        take(read(start, min(start + rows_at_a_time(columns), rows)), start)
    take(np.zeros((1, text), dtype=np.uint64), rows)
    counts[2] = pairs_of_lags(*finite)
    square = min(rows, columns)
    inside = pairs_of_lags(finite[0][:square], finite[1][:square])
    counts[3, columns - square : columns + square - 1] = inside
    return as_lines(histograms, counts, shape)


def pairs_of_lags(rows: Bools, columns: Bools) -> Ints:
    """Pairs of finite states of every lag ``i - j``, from ``1 - S`` on."""
    length = len(rows) + len(columns) - 1
    size = 1 << (length - 1).bit_length()
    product = np.fft.rfft(rows.astype(np.float64), size) * np.fft.rfft(columns[::-1].astype(np.float64), size)
    return np.rint(np.fft.irfft(product, size)[:length]).astype(np.int64)


def rows_at_a_time(columns: int) -> int:
    """Number of rows of distances that take about 4 MB."""
    return max(1, 2**19 // columns)
