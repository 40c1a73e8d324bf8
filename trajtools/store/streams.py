"""Appending to the datasets of a run: whole chunks straight to the file, the rest through HDF5's chunk cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from trajtools.store.detach import Detachable
from trajtools.store.geometry import StreamLayout
from trajtools.store.h5 import ZSTD, filters, load_zstd
from trajtools.store.incoming import Array, Block


def grow(dataset: h5py.Dataset, length: int) -> None:
    """Make a dataset at least `length` long; never shorter, which SWMR readers could not follow."""
    shape = dataset.id.shape
    if shape[0] < length:
        dataset.id.set_extent((length, *shape[1:]))


def append_rows(dataset: h5py.Dataset, start: int, rows: NDArray[np.generic]) -> None:
    """Write rows from `start` on."""
    grow(dataset, start + len(rows))
    # What `dataset[a:b] = rows` does, without the 80 microseconds that it takes to find out.
    rows = np.ascontiguousarray(rows, dataset.dtype)
    there = dataset.id.get_space()
    there.select_hyperslab((start,) + (0,) * (rows.ndim - 1), rows.shape)
    dataset.id.write(h5py.h5s.create_simple(rows.shape), there, rows)


class TileWriter:
    """Writes blocks of tiles into one dataset."""

    def __init__(self, dataset: h5py.Dataset, layout: StreamLayout) -> None:
        self._dataset, self._layout = dataset, layout
        self.filtered = bool(filters(dataset))

    def write(self, start: int, count: int, tiles: NDArray[np.generic]) -> None:
        """Write one block."""
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


class RunStreams:
    """Everything of a run that grows, open for appending.

    Attributes
    ----------
    has_weights : bool
        Whether the run stores weights.
    shapes : dict of str to tuple of int
        Datasets that are no tiles, and the shape of one state in each.
    """

    def __init__(self, path: Path, run: str, layout: StreamLayout, optimizer_layout: StreamLayout | None) -> None:
        self._open = Detachable(path)
        group = self._open.file["runs"][run]
        if any(ZSTD in filters(group[name]) for name in ("weights", "optimizer") if name in group):
            load_zstd()
        self._weights = TileWriter(group["weights"], layout) if "weights" in group else None
        self._optimizer = None if optimizer_layout is None else TileWriter(group["optimizer"], optimizer_layout)
        self._datasets = {name: group[name] for name in ("step", "distances", "sketch") if name in group}
        self._datasets |= {f"metrics/{name}": dataset for name, dataset in group["metrics"].items()}
        self.has_weights = self._weights is not None
        self.shapes: dict[str, tuple[int, ...]] = {name: d.shape[1:] for name, d in self._datasets.items()}

    def append(self, block: Block, series: Mapping[str, Array]) -> None:
        """Write one block and hand it to the system."""
        for writer, tiles in ((self._weights, block.tiles), (self._optimizer, block.optimizer_tiles)):
            if writer is not None and tiles is not None:
                writer.write(block.start, block.count, tiles)
        for name, values in series.items():
            append_rows(self._datasets[name], block.start, values)
        self._open.file.flush()

    def close(self) -> None:
        """Close the file; everything is on disk."""
        self._open.close()

    def detach(self) -> None:
        """Let go of the file without another byte reaching the disk."""
        self._open.detach()
