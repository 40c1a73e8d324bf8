"""Reading rectangles out of a (T, M, P) dataset, however rows and columns are chosen, each chunk once."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Selection = slice | NDArray[Any]


def indices(selection: Selection | None, length: int) -> slice | NDArray[np.int64]:
    """Put a choice along one axis into its simplest form.

    Parameters
    ----------
    selection : slice, ndarray of int, or None
        None: everything.
    length : int
        Of the axis.

    Returns
    -------
    slice or ndarray of int64
        A slice of step 1 where the choice is one stretch, else the indices.

    Raises
    ------
    IndexError
        If an index is out of range.
    """
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


def count(selection: slice | NDArray[np.int64]) -> int:
    """Say how many entries a simple choice has.

    Parameters
    ----------
    selection : slice or ndarray
        From `indices`.

    Returns
    -------
    int
    """
    return selection.stop - selection.start if isinstance(selection, slice) else len(selection)


def _pieces(selection: slice | NDArray[np.int64], width: int) -> list[tuple[slice, slice | NDArray[np.int64], Any]]:
    """Cut a choice into (stretch of the file, part of it that is wanted, place in the answer), one for each chunk."""
    if isinstance(selection, slice):
        return [(selection, slice(None), slice(0, count(selection)))] if count(selection) else []
    places: dict[int, list[int]] = {}
    for place, chunk in enumerate((selection // width).tolist()):
        places.setdefault(chunk, []).append(place)
    found: list[tuple[slice, slice | NDArray[np.int64], Any]] = []
    for at in places.values():
        wanted = selection[at]
        first = int(wanted.min())
        found.append((slice(first, int(wanted.max()) + 1), wanted - first, np.asarray(at)))
    return found


def read(
    dataset: h5py.Dataset,
    rows: slice | NDArray[np.int64],
    members: slice | NDArray[np.int64],
    columns: slice | NDArray[np.int64],
) -> NDArray[Any]:
    """Read states.

    Parameters
    ----------
    dataset : h5py.Dataset, shape (T, M, P)
        Chunked in (rows, 1, columns).
    rows, members, columns : slice or ndarray
        From `indices`.

    Returns
    -------
    ndarray, shape (rows, members, columns)
        In the dtype of the dataset.
    """
    out = np.empty((count(rows), count(members), count(columns)), dataset.dtype)
    row_pieces, column_pieces = _pieces(rows, dataset.chunks[0]), _pieces(columns, dataset.chunks[2])
    for member_span, _, member_place in _pieces(members, 1):
        for row_span, row_part, row_place in row_pieces:
            for column_span, column_part, column_place in column_pieces:
                whole = row_part == slice(None) if isinstance(row_part, slice) else False
                plain = whole and isinstance(column_part, slice) and isinstance(members, slice)
                if plain:
                    dataset.read_direct(
                        out, (row_span, member_span, column_span), (row_place, member_place, column_place)
                    )
                    continue
                part = dataset[row_span, member_span, column_span]
                part = part[row_part][:, :, column_part]
                out[_grid(row_place, member_place, column_place, out.shape)] = part
    return out


def _grid(rows: Any, members: Any, columns: Any, shape: tuple[int, ...]) -> Any:
    axes = [
        np.arange(n)[a] if isinstance(a, slice) else a for a, n in zip((rows, members, columns), shape, strict=True)
    ]
    return np.ix_(*axes)
