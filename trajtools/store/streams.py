"""Appending to the datasets of a run: whole chunks straight to the file, the rest through HDF5's chunk cache."""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from trajtools.store.geometry import StreamLayout
from trajtools.store.h5 import filters


def grow(dataset: h5py.Dataset, length: int) -> None:
    """Make a dataset at least `length` long; never shorter, which SWMR readers could not follow.

    Parameters
    ----------
    dataset : h5py.Dataset
        Growing along its first axis.
    length : int
        Wanted.
    """
    shape = dataset.id.shape
    if shape[0] < length:
        dataset.id.set_extent((length, *shape[1:]))


def append_rows(dataset: h5py.Dataset, start: int, rows: NDArray[np.generic]) -> None:
    """Write rows from `start` on.

    Parameters
    ----------
    dataset : h5py.Dataset
        Growing along its first axis.
    start : int
        First row.
    rows : ndarray, shape (n, ...)
        What to write.
    """
    grow(dataset, start + len(rows))
    # What `dataset[a:b] = rows` does, without the 80 microseconds that it takes to find out.
    rows = np.ascontiguousarray(rows, dataset.dtype)
    there = dataset.id.get_space()
    there.select_hyperslab((start,) + (0,) * (rows.ndim - 1), rows.shape)
    dataset.id.write(h5py.h5s.create_simple(rows.shape), there, rows)


class TileWriter:
    """Writes blocks of tiles into one dataset.

    Parameters
    ----------
    dataset : h5py.Dataset, shape (T, M, P)
        Open for writing.
    layout : StreamLayout
        Its geometry.
    """

    def __init__(self, dataset: h5py.Dataset, layout: StreamLayout) -> None:
        self._dataset, self._layout = dataset, layout
        self.filtered = bool(filters(dataset))

    def write(self, start: int, count: int, tiles: NDArray[np.generic]) -> None:
        """Write one block.

        Parameters
        ----------
        start : int
            First state; a multiple of the rows of a block.
        count : int
            States in the block so far.
        tiles : ndarray, shape (n_members, n_column_chunks, rows, columns)
            The whole block; rows from `count` on are padding.
        """
        grow(self._dataset, start + count)
        if self.filtered:
            self._write_filtered(start, count, tiles)
            return
        write_chunk, columns = self._dataset.id.write_direct_chunk, self._layout.columns
        for member in range(self._layout.n_members):
            for piece in range(self._layout.n_column_chunks):
                write_chunk((start, member, piece * columns), tiles[member, piece])

    def _write_filtered(self, start: int, count: int, tiles: NDArray[np.generic]) -> None:
        columns, size = self._layout.columns, self._layout.n_parameters
        for member in range(self._layout.n_members):
            for piece in range(self._layout.n_column_chunks):
                first, last = piece * columns, min((piece + 1) * columns, size)
                self._dataset[start : start + count, member, first:last] = tiles[member, piece, :count, : last - first]
