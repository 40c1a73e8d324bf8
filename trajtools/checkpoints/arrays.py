"""Arrays in files, each read when it is used: .npy, .npz, safetensors, flax's msgpack, and pickled arrays of NumPy.

The files may come from strangers: nothing is unpickled or executed, and every size is checked against the file before
memory is asked for.
"""

from __future__ import annotations

import json
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from trajtools.checkpoints.pickles import Machine, PickledArray, PickledDtype, to_numpy
from trajtools.checkpoints.steps import natural
from trajtools.errors import DataError, TrajtoolsError

MOST_AXES = 64
LARGEST_HEADER = 100 * 2**20
LARGEST_INFLATED = 2**28  # of a compressed part that is more than `MOST_INFLATED` times as large as it is in the file
MOST_INFLATED = 100
SAFETENSORS = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2), "BOOL": ("bool", 1),
    **{f"{sign}{8 * size}": (f"{name}{8 * size}", size) for sign, name in (("I", "int"), ("U", "uint"))
       for size in (1, 2, 4, 8)},
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Leaf:
    """An array of a checkpoint that has not been read yet.

    Attributes
    ----------
    shape : tuple of int
        Of the array.
    dtype : str
        NumPy's name of its dtype, ``bfloat16`` included; what else stands there instead of an array.
    read : callable
        Gives the array; bfloat16 as its bits, uint16.
    place : hashable, optional
        Where its numbers lie in the file; equal for two names of one array.
    trainable : bool, optional
        Whether the file says that it is trained.
    rows : callable, optional
        Gives an array whose rows are read when they are used.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
    place: Hashable = None
    trainable: bool | None = None
    rows: Callable[[], np.ndarray] | None = None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say which file cannot be read, and why."""
    try:
        yield
    except TrajtoolsError:
        raise
    except DAMAGED as problem:
        empty = path.is_file() and not path.stat().st_size
        reason = "the file is empty" if empty else " ".join(str(problem).split()) or type(problem).__name__
        raise DataError(
            f"{path} cannot be read: {reason[:300]}. Copy it again, or choose the other files with --files"
        ) from problem


DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    struct.error,
    OSError,
)


def checked_shape(shape: Any) -> tuple[int, ...]:
    """Return a shape that NumPy can have; whatever else stands there is damage."""
    if not isinstance(shape, tuple | list) or len(shape) > MOST_AXES:
        raise ValueError("an array whose shape is damaged")
    if not all(isinstance(n, int) and 0 <= n < 2**48 for n in shape):
        raise ValueError(f"an array of the shape {str(shape)[:100]}")
    return tuple(shape)


# Zip archives


def check_inflated(path: Path, entry: zipfile.ZipInfo) -> None:
    """Refuse a part of an archive that is a bomb."""
    if entry.file_size > LARGEST_INFLATED and entry.file_size > MOST_INFLATED * max(1, entry.compress_size):
        raise DataError(
            f"{path}: {entry.filename!r} has {entry.compress_size} bytes and claims to hold {entry.file_size}; "
            "no checkpoint compresses so well, and it is not read"
        )


def mapped(path: Path, entry: zipfile.ZipInfo, dtype: Any, shape: tuple[int, ...], skip: int = 0) -> np.ndarray:
    """Return an array that lies uncompressed in an archive, without reading it."""
    with open(path, "rb") as stream:
        stream.seek(entry.header_offset)
        head = stream.read(30)
        begin = entry.header_offset + 30 + sum(struct.unpack("<HH", head[26:30])) + skip
    return np.memmap(path, dtype, "r", begin, shape)


# NumPy


@contextmanager
def open_npy(path: Path) -> Iterator[Leaf]:
    """Open what `numpy.save` wrote."""
    with reading(path), open(path, "rb") as stream:
        shape, fortran, dtype = _header(stream)
        begin = stream.tell()
    _check_numbers(path, "it", shape, dtype, path.stat().st_size - begin)

    def read() -> np.ndarray:
        if not prod(shape):
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", begin, shape, "F" if fortran else "C")

    yield Leaf(shape, dtype.name, read)


@contextmanager
def open_npz(path: Path) -> Iterator[dict[str, Leaf]]:
    """Open what `numpy.savez` wrote."""
    with ExitStack() as opened:
        with reading(path):
            archive = opened.enter_context(zipfile.ZipFile(path))
            entries = archive.infolist()
            leaves = {entry.filename.removesuffix(".npy"): _entry(path, archive, entry) for entry in entries}
        if len(leaves) < len(entries):
            raise DataError(f"{path} holds two arrays of the same name")
        yield leaves


def _entry(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Leaf:
    check_inflated(path, entry)
    with archive.open(entry) as stream:
        shape, fortran, dtype = _header(stream)
        begin = stream.tell()
    _check_numbers(path, repr(entry.filename.removesuffix(".npy")), shape, dtype, entry.file_size - begin)

    def read() -> np.ndarray:
        with reading(path), archive.open(entry) as stream:
            array = npy.read_array(stream, allow_pickle=False)
            stream.read(1)  # at the end the checksum is looked at
            return array

    plain = entry.compress_type == zipfile.ZIP_STORED and not fortran and 0 not in shape
    return Leaf(shape, dtype.name, read, rows=partial(mapped, path, entry, dtype, shape, begin) if plain else None)


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"an array in version {version} of the .npy format, which arrays of numbers do not need")
    return read(stream)


def _check_numbers(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> None:
    if dtype.hasobject:
        raise DataError(
            f"{path}: {name} is a pickled object, which is never loaded because it can run code; save arrays of numbers"
        )
    if prod(shape) * dtype.itemsize != size:
        raise DataError(f"{path}: {name} declares {shape} of {dtype}, but holds {size} bytes")


# safetensors


@contextmanager
def open_safetensors(path: Path) -> Iterator[dict[str, Leaf]]:
    """Open a safetensors file: its header is JSON, its tensors are bytes."""
    with reading(path):
        head, begin, size = _safetensors_header(path)
        leaves = {name: _tensor(path, name, head[name], begin, size) for name in _order(head)}
    yield leaves


def _order(head: dict[str, Any]) -> list[str]:
    """Names in the order of the file, unless the library sorted them, within each dtype, by name: then by number."""
    groups: dict[str, list[str]] = {}
    for name, about in head.items():
        groups.setdefault(str(about["dtype"]), []).append(name)
    is_sorted = all(names == sorted(names) for names in groups.values())
    return sorted(head, key=natural) if is_sorted else list(head)


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """Return the entries of the header, where the tensors begin, and their bytes."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, LARGEST_HEADER):
            raise ValueError(f"its header claims {length} bytes, and the file has {size}")
        head = json.loads(stream.read(length))
    if not isinstance(head, dict):
        raise ValueError("its header is not a JSON object")
    head.pop("__metadata__", None)
    return head, 8 + length, size - 8 - length


def _tensor(path: Path, name: str, about: Any, begin: int, size: int) -> Leaf:
    shape, offsets, code = checked_shape(about["shape"]), about["data_offsets"], about["dtype"]
    if not all(isinstance(n, int) and n >= 0 for n in offsets) or len(offsets) != 2:
        raise ValueError(f"the entry of {name!r} is damaged")
    start, stop = offsets
    if code not in SAFETENSORS:  # float8 and the like
        return Leaf(shape, str(code).lower(), lambda: np.empty(0))
    dtype, width = SAFETENSORS[code]
    if not start <= stop <= size or stop - start != prod(shape) * width:
        raise ValueError(f"{name!r} declares {shape} of {dtype} in bytes {start} to {stop} of {size}")
    bits = "<u2" if dtype == "bfloat16" else np.dtype(dtype).newbyteorder("<")

    def read() -> np.ndarray:
        if start == stop:
            return np.empty(shape, bits)
        return np.memmap(path, bits, "r", begin + start, shape)

    return Leaf(shape, dtype, read)


# msgpack, as flax.serialization writes it


@contextmanager
def open_msgpack(path: Path) -> Iterator[Any]:
    """Open what ``flax.serialization.to_bytes`` wrote."""
    with reading(path):
        with open(path, "rb") as stream:
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        unpacker = _Unpacker(data)
        tree = unpacker.value(0)
        if unpacker.at != len(data):
            raise ValueError(f"it has {len(data) - unpacker.at} bytes beyond its end")
    yield tree


class _Unpacker:
    """Reads msgpack; arrays become `Leaf`."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def value(self, depth: int) -> Any:
        if depth > 100:
            raise ValueError("it is nested more than 100 levels deep")
        code = self.take(1)[0]
        if code <= 0x7F:
            return code
        if code >= 0xE0:
            return code - 256
        if code <= 0x8F:
            return self.mapping(code & 15, depth)
        if code <= 0x9F:
            return self.sequence(code & 15, depth)
        if code <= 0xBF:
            return self.text(code & 31)
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            return self.number(_NUMBERS[code])
        if code in _SIZED:
            form, kind = _SIZED[code]
            size = self.number(form)
            return getattr(self, kind)(size, depth) if kind in ("mapping", "sequence") else getattr(self, kind)(size)
        if 0xD4 <= code <= 0xD8:
            return self.extension(1 << (code - 0xD4))
        raise ValueError(f"byte {code:#x} at {self.at - 1} is none of msgpack")

    def take(self, size: int) -> memoryview:
        part = self.data[self.at : self.at + size]
        if len(part) < size:
            raise ValueError("it was cut short")
        self.at += size
        return part

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, size: int) -> str:
        return str(self.take(size), "utf-8", "replace")

    def octets(self, size: int) -> memoryview:
        return self.take(size)

    def sequence(self, size: int, depth: int) -> list[Any]:
        return [self.value(depth + 1) for _ in range(size)]

    def mapping(self, size: int, depth: int) -> Any:
        pairs = [(str(self.value(depth + 1)), self.value(depth + 1)) for _ in range(size)]
        tree = dict(pairs)
        return _joined(tree) if "__msgpack_chunked_array__" in tree else tree

    def extension(self, size: int) -> Any:
        kind, part = self.number("<b"), self.take(size)
        if kind not in (1, 3):  # an array, or a number of NumPy
            return None
        shape, name, data = _Unpacker(part).value(0)
        return leaf_of(PickledArray(tuple(shape), PickledDtype(str(name)), data))


_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i",
    0xD3: ">q",
}  # fmt: skip
_SIZED = {
    0xC4: (">B", "octets"), 0xC5: (">H", "octets"), 0xC6: (">I", "octets"),
    0xC7: (">B", "extension"), 0xC8: (">H", "extension"), 0xC9: (">I", "extension"),
    0xD9: (">B", "text"), 0xDA: (">H", "text"), 0xDB: (">I", "text"),
    0xDC: (">H", "sequence"), 0xDD: (">I", "sequence"), 0xDE: (">H", "mapping"), 0xDF: (">I", "mapping"),
}  # fmt: skip


def _joined(tree: dict[str, Any]) -> Leaf:
    """Return the array that flax cut into pieces because it has more than a gigabyte."""
    shape = checked_shape(list(tree["shape"].values()))
    chunks = [chunk for chunk in tree["chunks"].values() if isinstance(chunk, Leaf)]
    if not chunks or sum(prod(chunk.shape) for chunk in chunks) != prod(shape):
        raise ValueError(f"the pieces of an array of shape {shape} do not fit together")
    return Leaf(shape, chunks[0].dtype, lambda: np.concatenate([c.read().reshape(-1) for c in chunks]).reshape(shape))


# Pickles of NumPy


@contextmanager
def open_pickle(path: Path) -> Iterator[Any]:
    """Open what `pickle.dump` wrote of containers of arrays."""
    with reading(path):
        with open(path, "rb") as stream:
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        tree = Machine(data).run()
    yield tree


def leaf_of(array: PickledArray) -> Leaf:
    """Return an array of a pickle, after checking that its bytes are there."""
    shape, dtype = checked_shape(array.shape), array.dtype
    if not isinstance(dtype, PickledDtype) or not isinstance(array.data, bytes | memoryview | str):
        return Leaf((), "an array of objects", lambda: np.empty(0))
    try:
        known = np.dtype({"bfloat16": "<u2"}.get(dtype.code, dtype.code))
    except TypeError:
        return Leaf(shape, dtype.code, lambda: np.empty(0))
    if prod(shape) * known.itemsize != len(array.data):
        raise ValueError(f"an array that declares {shape} of {dtype.code}, and holds {len(array.data)} bytes")
    return Leaf(shape, "bfloat16" if dtype.code == "bfloat16" else known.name, partial(to_numpy, array))
