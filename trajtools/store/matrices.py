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
from trajtools.store.files import LIBVER, one_sentence
from trajtools.store.layout import set_text
from trajtools.store.reading import child, text_attribute
from trajtools.types import Floats

try:
    import fcntl
except ImportError:  # no advisory locks on this system
    fcntl = None  # type: ignore[assignment]

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
        self._places: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]] = {}
        with one_sentence(path, "open the distances"), h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format", b"") and text_attribute(file, "format") != FORMAT:
                raise FormatError(f"{path} is not a file of distances (its attribute 'format' is not {FORMAT!r})")
            if text_attribute(file, "format_version").split(".")[0] != VERSION.split(".", maxsplit=1)[0]:
                raise FormatError(f"{path} has a format version other than {VERSION}; compute the distances again")
            for name in ("distances", "done", "about", *VECTORS):
                self._places[name] = _place(file, name)
            self.side = int(np.asarray(file["done"].attrs["side"]))
        self.shape: tuple[int, int] = self._places["distances"][2]  # type: ignore[assignment]
        self._descriptor = os.open(path, os.O_RDWR if write else os.O_RDONLY)
        try:
            self._check(write)
            self.about: dict[str, Any] = json.loads(self.vector("about").tobytes().rstrip(b"\0") or b"{}")
        except BaseException:
            os.close(self._descriptor)
            raise

    def _check(self, write: bool) -> None:
        size = os.fstat(self._descriptor).st_size
        for name, (offset, dtype, shape) in self._places.items():
            if offset + dtype.itemsize * int(np.prod(shape, dtype=object)) > size:
                raise FormatError(f"{self.path}: {name} ends beyond the end of the file; the file was truncated")
        tiles = tuple(-(-n // max(self.side, 1)) for n in self.shape)
        wanted: dict[str, tuple[str, tuple[int, ...]]] = {
            name: (dtype, (self.shape[axis],)) for name, (dtype, axis) in VECTORS.items()
        }
        wanted |= {"done": ("<u8", tiles), "distances": ("<f8", self.shape), "about": ("|u1", (_ABOUT_BYTES,))}
        for name, (kind, expected) in wanted.items():
            if self.side < 1 or self._places[name][1:] != (np.dtype(kind), expected):
                raise FormatError(f"{self.path}: {name} is {self._places[name][1:]}; needed {kind} of shape {expected}")
        if write and fcntl is not None:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FileBusyError(
                    f"another process is computing distances into {self.path}; wait for it, or choose another file"
                ) from None

    def __enter__(self) -> MatrixFile:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; the lock goes with it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def vector(self, name: str) -> NDArray[Any]:
        """Read one of the small datasets."""
        offset, dtype, shape = self._places[name]
        return np.frombuffer(self._read(offset, dtype.itemsize * int(np.prod(shape))), dtype).reshape(shape).copy()

    def set_vector(self, name: str, values: NDArray[Any]) -> None:
        """Write one of the small datasets."""
        offset, dtype, shape = self._places[name]
        self._write(offset, np.ascontiguousarray(values.reshape(shape), dtype).tobytes())

    def set_about(self, about: Mapping[str, Any]) -> None:
        """Write what is known of the distances."""
        self.set_vector("about", np.frombuffer(_as_bytes(about), np.uint8))

    def put(self, rows: slice, columns: slice, block: Floats) -> None:
        """Write a tile; it counts once it is marked."""
        offset, _, (_, width) = self._places["distances"]
        for row, line in zip(range(rows.start, rows.stop), np.ascontiguousarray(block, "<f8"), strict=True):
            self._write(offset + 8 * (row * width + columns.start), line.tobytes())

    def get(self, rows: slice, columns: slice) -> Floats:
        """Read a rectangle."""
        offset, _, (_, width) = self._places["distances"]
        count = columns.stop - columns.start
        lines = [
            self._read(offset + 8 * (row * width + columns.start), 8 * count) for row in range(rows.start, rows.stop)
        ]
        return np.frombuffer(b"".join(lines), "<f8").reshape(len(lines), count).copy()

    def mark(self, rows: slice, columns: slice, block: Floats) -> None:
        """Let a tile that was put count as done."""
        value = np.uint64(zlib.crc32(np.ascontiguousarray(block, "<f8").tobytes())) | _DONE
        self._write(self._mark_at(rows, columns), value.astype("<u8").tobytes())

    def finished(self, rows: slice, columns: slice) -> Floats | None:
        """Return a tile that is done and whole, else None."""
        mark = np.frombuffer(self._read(self._mark_at(rows, columns), 8), "<u8")[0]
        if not mark & _DONE:
            return None
        block = self.get(rows, columns)
        return block if np.uint64(zlib.crc32(block.tobytes())) | _DONE == mark else None

    def mapped(self) -> Floats:
        """Return the distances as a read-only map of the file."""
        offset, _, shape = self._places["distances"]
        if not all(shape):
            return np.empty(shape)
        return np.memmap(self.path, np.float64, "r", offset=offset, shape=shape)

    def _mark_at(self, rows: slice, columns: slice) -> int:
        offset, _, (_, width) = self._places["done"]
        return offset + 8 * (rows.start // self.side * width + columns.start // self.side)

    def _read(self, at: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, at)
        while len(data) < size:
            more = os.pread(self._descriptor, size - len(data), at + len(data))
            if not more:
                raise FormatError(f"{self.path} ends too early; it was truncated. Delete it and compute again")
            data += more
        return data

    def _write(self, at: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._descriptor, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            raise OSError(
                error.errno or errno.EIO,
                f"could not write to {self.path}: {error.strerror}. Finished tiles are safe: free some space and "
                "call again to continue",
            ) from error


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
            set_text(file, "format", FORMAT)
            set_text(file, "format_version", VERSION)
            tiles = tuple(-(-n // side) for n in shape)
            _claim(file, "distances", "<f8", shape, fill=False)
            _claim(file, "done", "<u8", tiles).attrs.create("side", np.int64(side))
            for name, (dtype, axis) in VECTORS.items():
                _claim(file, name, dtype, (shape[axis],))[...] = vectors[name]
            _claim(file, "about", "|u1", (_ABOUT_BYTES,))[...] = np.frombuffer(_as_bytes(about), np.uint8)
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


def _place(file: h5py.File, name: str) -> tuple[int, np.dtype[Any], tuple[int, ...]]:
    dataset = child(file, name, h5py.Dataset)
    offset = dataset.id.get_offset()
    if dataset.chunks is not None or (offset is None and dataset.size):
        raise FormatError(f"{file.filename}: {name} must be stored contiguously")
    return int(offset or 0), dataset.dtype, tuple(int(n) for n in dataset.shape)


def _as_bytes(about: Mapping[str, Any]) -> bytes:
    data = json.dumps(to_plain(dict(about))).encode()
    if len(data) > _ABOUT_BYTES:
        raise TooLargeError(f"the settings of these distances take {len(data)} bytes as text, more than {_ABOUT_BYTES}")
    return data.ljust(_ABOUT_BYTES, b"\0")
