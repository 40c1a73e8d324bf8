"""Distances on disk: an HDF5 file that is valid from the start and is filled tile by tile.

Everything is created, and room for it claimed, before the first distance is written. From then on bytes are put into
their places in the file and nothing of its structure changes, so no kill can damage it. A tile counts as done by the
check sum that is written after it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trajtools.errors import FileBusyError, FormatError, TooLargeError
from trajtools.results import to_plain
from trajtools.store.files import LIBVER, RawFile, lock, one_sentence
from trajtools.store.layout import set_text
from trajtools.store.strangers import Objects
from trajtools.types import Floats

FORMAT, VERSION = "trajtools distances", "1.0"
_ABOUT_BYTES = 2**20
VECTORS = {
    "step": ("<i8", 0),
    "excluded": ("|u1", 0),
    "floor": ("<f8", 0),
    "column_step": ("<i8", 1),
    "column_excluded": ("|u1", 1),
}
_DONE = np.uint64(1 << 32)


class MatrixFile:
    """A file of distances, open.

    Attributes
    ----------
    shape : tuple of int
        (T, S).
    side : int
        Of the tiles.
    about : dict
        What is known of the distances.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        self.path = path
        with one_sentence(path, "open the distances"), h5py.File(path, "r", locking=False) as file:
            objects = Objects(file)
            if h5py.h5a.exists(file.id, b"format") and objects.text("", "format") != FORMAT:
                raise FormatError(f"{path} is not a file of distances (its attribute 'format' is not {FORMAT!r})")
            if objects.text("", "format_version").split(".")[0] != VERSION.split(".", maxsplit=1)[0]:
                raise FormatError(f"{path} has a format version other than {VERSION}; compute the distances again")
            self._datasets = {name: objects.geometry(name) for name in ("distances", "done", "about", *VECTORS)}
            self._offsets = {name: int(one.id.get_offset() or 0) for name, one in self._datasets.items()}
            self.side = int(np.asarray(file["done"].attrs["side"]))
        self.shape: tuple[int, int] = self._datasets["distances"].shape  # type: ignore[assignment]
        self._raw = RawFile(path, write=write)
        try:
            self._check()
            if write and lock(self._raw) is False:
                raise FileBusyError(
                    f"another process is computing distances into {path}; wait for it, or choose another file"
                )
            self.about: dict[str, Any] = json.loads(self.vector("about").tobytes().rstrip(b"\0") or b"{}")
        except BaseException:
            self._raw.close()
            raise

    def _check(self) -> None:
        if self.side < 1 or len(self.shape) != 2:
            raise FormatError(f"{self.path}: distances of the shape {self.shape} in tiles of {self.side}")
        tiles = tuple(-(-n // self.side) for n in self.shape)
        wanted: dict[str, tuple[str, tuple[int, ...]]] = {
            name: (dtype, (self.shape[axis],)) for name, (dtype, axis) in VECTORS.items()
        }
        wanted |= {"done": ("<u8", tiles), "distances": ("<f8", self.shape), "about": ("|u1", (_ABOUT_BYTES,))}
        for name, (kind, shape) in wanted.items():
            one = self._datasets[name]
            in_one_piece = one.chunks is None and (self._offsets[name] or not one.nbytes)
            if (one.dtype.str, one.shape) != (kind, shape) or not in_one_piece:
                raise FormatError(
                    f"{self.path}: {name} is {one.dtype} of shape {one.shape}; needed {kind} of shape {shape}, in one "
                    "piece"
                )
            if self._offsets[name] + one.nbytes > self._raw.size:
                raise FormatError(f"{self.path}: {name} ends beyond the end of the file; the file was truncated")

    def __enter__(self) -> MatrixFile:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; the lock goes with it."""
        self._raw.close()

    def vector(self, name: str) -> NDArray[Any]:
        """Read one of the small datasets."""
        one = self._datasets[name]
        return self._read(self._offsets[name], np.empty(one.shape, one.dtype))

    def set_vector(self, name: str, values: NDArray[Any]) -> None:
        """Write one of the small datasets."""
        one = self._datasets[name]
        self._write(self._offsets[name], np.ascontiguousarray(values.reshape(one.shape), one.dtype))

    def set_about(self, about: Mapping[str, Any]) -> None:
        """Write what is known of the distances."""
        self.set_vector("about", _as_bytes(about))

    def put(self, rows: slice, columns: slice, block: Floats) -> None:
        """Write a tile; it counts once it is marked."""
        for row, line in zip(range(rows.start, rows.stop), np.ascontiguousarray(block, "<f8"), strict=True):
            self._write(self._offsets["distances"] + 8 * (row * self.shape[1] + columns.start), line)

    def get(self, rows: slice, columns: slice) -> Floats:
        """Read a rectangle."""
        result = np.empty((rows.stop - rows.start, columns.stop - columns.start))
        for row, line in zip(range(rows.start, rows.stop), result, strict=True):
            self._read(self._offsets["distances"] + 8 * (row * self.shape[1] + columns.start), line)
        return result

    def mark(self, rows: slice, columns: slice, block: Floats) -> None:
        """Let a tile that was put count as done."""
        self._write(self._mark_at(rows, columns), np.array([_mark(block)]))

    def finished(self, rows: slice, columns: slice) -> Floats | None:
        """Return a tile that is done and whole, else None."""
        mark = self._read(self._mark_at(rows, columns), np.empty(1, "<u8"))[0]
        if not mark & _DONE:
            return None
        block = self.get(rows, columns)
        return block if _mark(block) == mark else None

    def mapped(self) -> Floats:
        """Return the distances as a read-only map of the file."""
        if not all(self.shape):
            return np.empty(self.shape)
        return np.memmap(self.path, np.float64, "r", offset=self._offsets["distances"], shape=self.shape)

    def _mark_at(self, rows: slice, columns: slice) -> int:
        width = self._datasets["done"].shape[1]
        return self._offsets["done"] + 8 * (rows.start // self.side * width + columns.start // self.side)

    def _read(self, at: int, array: NDArray[Any]) -> NDArray[Any]:
        if self._raw.read_into(at, array.reshape(-1).view(np.uint8).data) < array.nbytes:
            raise FormatError(f"{self.path} ends too early; it was truncated. Delete it and compute again")
        return array

    def _write(self, at: int, array: NDArray[Any]) -> None:
        try:
            self._raw.write(at, array.reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise OSError(
                error.errno or errno.EIO,
                f"could not write to {self.path}: {error.strerror}. Finished tiles are safe: free some space and "
                "call again to continue",
            ) from error


def _mark(block: Floats) -> np.uint64:
    return np.uint64(zlib.crc32(np.ascontiguousarray(block, "<f8").data)) | _DONE


def create_matrix(
    path: Path, shape: tuple[int, int], side: int, about: Mapping[str, Any], vectors: Mapping[str, NDArray[Any]]
) -> None:
    """Make a file with room for distances."""
    needed, free = 8 * shape[0] * shape[1] + _ABOUT_BYTES, shutil.disk_usage(path.parent).free
    if needed > free:
        raise TooLargeError(
            f"the distances take {needed / 2**30:.1f} GiB, and {path.parent} has {free / 2**30:.1f} GiB left; thin "
            "the states (window(every=k)), or choose another disk"
        )
    fresh = path.with_name(f"{path.name}.new-{os.getpid()}")
    try:
        with h5py.File(fresh, "w", libver=LIBVER, locking=False) as file:
            set_text(file.id, "format", FORMAT)
            set_text(file.id, "format_version", VERSION)
            tiles = tuple(-(-n // side) for n in shape)
            _claim(file, "distances", "<f8", shape, fill=False)
            _claim(file, "done", "<u8", tiles).attrs.create("side", np.int64(side))
            for name, (dtype, axis) in VECTORS.items():
                _claim(file, name, dtype, (shape[axis],))[...] = vectors[name]
            _claim(file, "about", "|u1", (_ABOUT_BYTES,))[...] = _as_bytes(about)
        os.link(fresh, path)  # unlike renaming, this never replaces a file that came in between
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)


def _claim(file: h5py.File, name: str, dtype: str, shape: tuple[int, ...], *, fill: bool = True) -> h5py.Dataset:
    """Create a dataset in one piece, whose place in the file is fixed at once."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_ALLOC if fill else h5py.h5d.FILL_TIME_NEVER)
    space, kind = h5py.h5s.create_simple(shape), h5py.h5t.py_create(np.dtype(dtype))
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, creation))


def _as_bytes(about: Mapping[str, Any]) -> NDArray[np.uint8]:
    data = json.dumps(to_plain(dict(about))).encode()
    if len(data) > _ABOUT_BYTES:
        raise TooLargeError(f"the settings of these distances take {len(data)} bytes as text, more than {_ABOUT_BYTES}")
    return np.frombuffer(data.ljust(_ABOUT_BYTES, b"\0"), np.uint8)
