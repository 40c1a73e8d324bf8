"""Reading rectangles out of a (T, M, P) dataset, however rows and columns are chosen, each chunk once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Selection = slice | NDArray[Any]
Simple = slice | NDArray[np.int64]


def indices(selection: Selection | None, length: int) -> Simple:
    """Put a choice along one axis into its simplest form."""
    if selection is None:
        return slice(0, length)
    if isinstance(selection, slice):
        start, stop, step = selection.indices(length)
        if step == 1:
            return slice(start, max(start, stop))
        chosen = np.arange(start, stop, step, dtype=np.int64)
    else:
        chosen = np.asarray(selection, np.int64).reshape(-1)
        if chosen.size and (chosen.min() < -length or chosen.max() >= length):
            raise IndexError(f"index {chosen.min() if chosen.min() < -length else chosen.max()} of an axis of {length}")
        chosen = np.where(chosen < 0, chosen + length, chosen)
    if chosen.size and (np.diff(chosen) == 1).all():
        return slice(int(chosen[0]), int(chosen[-1]) + 1)
    return chosen


def count(selection: Simple) -> int:
    """Say how many entries a simple choice has."""
    return selection.stop - selection.start if isinstance(selection, slice) else len(selection)


class BlockReader:
    """Reads rectangles of one dataset: whole chunks where most of one is wanted, single stretches where little is."""

    def __init__(self, dataset: h5py.Dataset, *, filtered: bool) -> None:
        self._dataset, self._filtered = dataset, filtered
        self._rows, _, self._columns = dataset.chunks
        self._scratch = np.empty((self._rows, self._columns), dataset.dtype)

    def read(self, rows: Simple, members: Simple, columns: Simple) -> NDArray[Any]:
        """Read states."""
        out = np.empty((count(rows), count(members), count(columns)), self._dataset.dtype)
        if out.size == 0:
            return out
        chosen = np.arange(members.start, members.stop) if isinstance(members, slice) else members
        if (
            isinstance(rows, slice)
            and isinstance(columns, slice)
            and (self._filtered or self._is_sparse(rows, columns))
        ):
            if isinstance(members, slice):
                self._dataset.read_direct(out, (rows, members, columns))
                return out
            for place, member in enumerate(chosen.tolist()):
                out[:, place] = self._dataset[rows, member, columns]
            return out
        column_pieces = _pieces(columns, self._columns)
        for row_piece in _pieces(rows, self._rows):
            for place, member in enumerate(chosen.tolist()):
                for column_piece in column_pieces:
                    part = self._part(row_piece.chunk, member, column_piece.chunk, row_piece.span, column_piece.span)
                    out[:, place][_both(row_piece.place, column_piece.place)] = part[
                        _both(row_piece.part, column_piece.part)
                    ]
        return out

    def _read_chunks(self, out: NDArray[Any], rows: slice, members: NDArray[np.int64], columns: slice) -> None:
        scratch, read_chunk = self._scratch, self._dataset.id.read_direct_chunk
        raw = scratch.view(np.uint8).reshape(-1)
        numbers = members.tolist()
        for row in _pieces(rows, self._rows):
            top, wanted_rows, rows_of_out = row.chunk * self._rows, row.span, out[row.place]
            for column in _pieces(columns, self._columns):
                left, target = column.chunk * self._columns, rows_of_out[:, :, column.place]
                wanted = scratch[wanted_rows, column.span]
                for place, member in enumerate(numbers):
                    read_chunk((top, member, left), out=raw)
                    target[:, place] = wanted

    def _is_sparse(self, rows: slice, columns: slice) -> bool:
        wanted = min(count(rows), self._rows) * min(count(columns), self._columns)
        return 4 * wanted < self._rows * self._columns

    def _part(self, row_chunk: int, member: int, column_chunk: int, rows: slice, columns: slice) -> NDArray[Any]:
        """Give rows and columns, counted from the corner of the chunk, of one chunk."""
        top, left = row_chunk * self._rows, column_chunk * self._columns
        if self._filtered or self._is_sparse(rows, columns):
            return np.asarray(
                self._dataset[top + rows.start : top + rows.stop, member, left + columns.start : left + columns.stop]
            )
        bytes_ = self._scratch.view(np.uint8).reshape(-1)
        self._dataset.id.read_direct_chunk((top, member, left), out=bytes_)
        return self._scratch[rows, columns]


@dataclass(frozen=True)
class _Piece:
    """The part of a choice that lies in one chunk: what of the chunk, what of that, and where it goes."""

    chunk: int
    span: slice
    part: Simple
    place: Simple


def _pieces(selection: Simple, width: int) -> list[_Piece]:
    if isinstance(selection, slice):
        found = []
        for chunk in range(selection.start // width, -(-selection.stop // width)):
            first, last = max(selection.start, chunk * width), min(selection.stop, (chunk + 1) * width)
            span, place = (slice(first - at, last - at) for at in (chunk * width, selection.start))
            found.append(_Piece(chunk, span, slice(None), place))
        return found
    order = np.argsort(selection // width, kind="stable")
    chunks, starts = np.unique(selection[order] // width, return_index=True)
    found = []
    for chunk, places in zip(chunks.tolist(), np.split(order, starts[1:]), strict=True):
        wanted = selection[places] - chunk * width
        first = int(wanted.min())
        found.append(_Piece(chunk, slice(first, int(wanted.max()) + 1), wanted - first, places))
    return found


def _both(rows: Simple, columns: Simple) -> Any:
    """Index rows and columns independently of each other."""
    if isinstance(rows, slice) or isinstance(columns, slice):
        return rows, columns
    return np.ix_(rows, columns)
