"""The stored states as lazy arrays: of a whole run (T, M, P), and of one member (T, P)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trajtools.errors import FormatError, TooLargeError
from trajtools.store import blocks, safety
from trajtools.store.dtypes import widen
from trajtools.store.h5 import ZSTD, filters, in_words, load_zstd
from trajtools.store.handles import Handle, shared, steady

LARGEST_BYTES = 4 * 2**30
# For compressed chunks: room for those of one weight over 16,000 states, so that the next weight comes from memory.
CACHE_BYTES = 256 * 2**20
CACHE_SLOTS = 20_011


class StoredArray:
    """The first `n_states` states of a run, read when indexed.

    Attributes
    ----------
    shape : tuple of int
        (T, M, P).
    dtype : numpy.dtype
        Of what indexing gives; bfloat16 comes as float32.
    """

    def __init__(self, handle: Handle, run: str, name: str, n_states: int) -> None:
        self._handle, self._run, self._name = handle, run, name
        self._cache: tuple[int, h5py.Dataset, blocks.BlockReader] | None = None
        logical, shape, stored = self._described()
        self._widened = logical == "bfloat16"
        self.shape: tuple[int, int, int] = (n_states, *shape)
        self.dtype: np.dtype[Any] = np.dtype(np.float32) if self._widened else stored

    @property
    def ndim(self) -> int:
        """Three."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<stored {self._name} of run {self._run!r}, shape {self.shape}, {self.dtype}>"

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = list(key) if isinstance(key, tuple) else [key]
        if any(k is Ellipsis for k in keys):
            at = next(i for i, k in enumerate(keys) if k is Ellipsis)
            keys[at : at + 1] = [slice(None)] * (4 - len(keys))
        if len(keys) > 3:
            raise IndexError(f"{len(keys)} indices for an array of 3 axes")
        keys += [slice(None)] * (3 - len(keys))
        chosen, single = [], []
        for axis, (k, length) in enumerate(zip(keys, self.shape, strict=True)):
            if isinstance(k, int | np.integer):
                single.append(axis)
            chosen.append(k if isinstance(k, slice) else _positions(k, length))
        found = self.read(*chosen)
        return found[tuple(0 if axis in single else slice(None) for axis in range(3))]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("stored states must be read, which makes a copy")
        size = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        if size > LARGEST_BYTES:
            raise TooLargeError(
                f"all states of run {self._run!r} are {size / 2**30:.1f} GiB, more than {LARGEST_BYTES // 2**30} GiB; "
                "read a part (weights[a:b]), or iterate over run.trajectory().blocks()"
            )
        return np.asarray(self.read(), dtype)

    @steady
    def read(
        self,
        rows: slice | NDArray[Any] | None = None,
        members: slice | list[int] | NDArray[Any] | None = None,
        columns: slice | NDArray[Any] | None = None,
        *,
        raw: bool = False,
    ) -> NDArray[Any]:
        """Read a rectangle."""
        axes = zip((rows, members, columns), self.shape, strict=True)
        chosen = [blocks.indices(k if isinstance(k, slice | None) else np.asarray(k), n) for k, n in axes]
        with in_words(self._handle.path, f"read {self._name} of run {self._run!r}"):
            found = self._opened()[1].read(*chosen)
        return widen(found) if self._widened and not raw else found

    @steady
    def _described(self) -> tuple[str, tuple[int, int], np.dtype[Any]]:
        """Logical dtype, shape of one state, stored dtype."""
        dataset, _ = self._opened()
        return safety.attribute(dataset, "logical_dtype", ""), dataset.shape[1:], dataset.dtype

    @steady
    def _opened(self) -> tuple[h5py.Dataset, blocks.BlockReader]:
        file = self._handle.file
        if self._cache is None or self._cache[0] != self._handle.generation:
            with in_words(self._handle.path, f"find {self._name} of run {self._run!r}"):
                group = safety.child(safety.child(file, "runs", h5py.Group), self._run, h5py.Group)
                dataset = _with_cache(group, self._name, 0)
                if dataset.ndim != 3 or dataset.chunks is None or dataset.dtype.str not in ("<f2", "<f4", "<f8", "<u2"):
                    raise FormatError(
                        f"{dataset.name} must be chunked, of three axes, of a known dtype; it is {dataset}"
                    )
                found = filters(dataset)
                if found:
                    if ZSTD in found:
                        load_zstd()
                    del dataset  # HDF5 gives one cache to all that have a dataset open at once
                    dataset = _with_cache(group, self._name, CACHE_BYTES)
                self._cache = self._handle.generation, dataset, blocks.BlockReader(dataset, filtered=bool(found))
        return self._cache[1:]


def _with_cache(group: h5py.Group, name: str, size: int) -> h5py.Dataset:
    """Open a dataset with a chunk cache of its own; without one, HDF5 reads just the bytes that are asked for."""
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(CACHE_SLOTS, size, 0.75)
    return safety.child(group, name, h5py.Dataset, access)


def _positions(key: Any, length: int) -> NDArray[np.int64]:
    array = np.atleast_1d(np.asarray(key))
    if array.dtype == bool:
        if array.shape != (length,):
            raise IndexError(f"a mask of shape {array.shape} for an axis of {length}")
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise IndexError(f"states are indexed by integers, slices, lists of integers or masks, not by {key!r}")
    return array.astype(np.int64)


class StoredStates:
    """The states of one member, as a source for `Trajectory`; pickles as path and place, opens the file when read.

    Attributes
    ----------
    shape : tuple of int
        (T, P).
    dtype : numpy.dtype
        Of what `read` gives.
    """

    def __init__(self, path: Path, run: str, member: int, dataset: str = "weights", *, n_states: int) -> None:
        self.path, self.run, self.member, self.dataset = Path(path), run, member, dataset
        self._n_states = n_states
        self._array = StoredArray(shared(self.path), run, dataset, n_states)
        self.shape: tuple[int, int] = (n_states, self._array.shape[2])
        self.dtype = self._array.dtype

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self.path, self.run, self.member, self.dataset, self._n_states))

    def __repr__(self) -> str:
        return f"<member {self.member} of run {self.run!r} in {str(self.path)!r}, shape {self.shape}>"

    def read(self, rows: slice | NDArray[Any], columns: slice | NDArray[Any] | None = None) -> NDArray[Any]:
        """Read states."""
        return self._array.read(rows, slice(self.member, self.member + 1), columns)[:, 0]


def _reopen(path: Path, run: str, member: int, dataset: str, n_states: int) -> StoredStates:
    return StoredStates(path, run, member, dataset, n_states=n_states)
