"""HDF5 files of other programs: what is refused of them, and their arrays by path, each read when it is used.

No link, external or virtual storage is followed, no filter but gzip, lzf, Zstandard and HDF5's own is run, and no array
is larger than what the file holds of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil, prod
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from trajtools.errors import (
    DataError,
    FormatError,
    MissingDependencyError,
    TooLargeError,
    TrajtoolsError,
    UnsafeFileError,
)
from trajtools.store.files import one_line
from trajtools.store.layout import ZSTD, filters_of
from trajtools.store.reading import check_storage

MOST_OBJECTS = 1_000_000
MAX_CHUNK_BYTES = 2**30  # of one chunk, which is decompressed as a whole
TEXT_BYTES = 2**20
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf", 32015: "zstd"}


@dataclass(frozen=True)
class Array:
    """An array of an HDF5 file that has not been read yet.

    Attributes
    ----------
    path : str
        From the root, without a slash at the beginning.
    shape, dtype
        As h5py says.
    read : callable
        Gives the array.
    check : callable
        Refuses an array that does not lie in this file, or is not as large as it says.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], np.ndarray]
    check: Callable[[], None]


@dataclass(frozen=True)
class Contents:
    """What an HDF5 file holds: arrays in the order of their names, and texts among the attributes of groups.

    Attributes
    ----------
    arrays : dict of str to Array
        By path.
    texts : dict of (str, str) to list of str
        By path of the group and name of the attribute.
    """

    arrays: dict[str, Array]
    texts: dict[tuple[str, str], list[str]]


@contextmanager
def open_hdf5(path: Path, content: BinaryIO | None = None) -> Iterator[h5py.File]:
    """Open a file for reading; `content` stands for the file where it lies inside of another one."""
    if not path.is_file():
        raise DataError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
    with _one_sentence(path), h5py.File(path if content is None else content, "r") as file:
        yield file


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Turn what HDF5 says into one sentence."""
    try:
        yield
    except TrajtoolsError:
        raise
    except MemoryError as error:
        raise UnsafeFileError(f"{path} takes more memory than there is; it is damaged") from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, UnicodeError) as error:
        raise FormatError(f"HDF5 cannot read {path}: {one_line(error)}") from error


@contextmanager
def open_contents(path: Path, content: BinaryIO | None = None) -> Iterator[Contents]:
    """List what a file holds."""
    with ExitStack() as opened:
        contents = Contents({}, {})
        _walk(opened.enter_context(open_hdf5(path, content)), contents, path)
        yield contents


def is_run(path: Path) -> bool:
    """Whether an HDF5 file is one of trajtools."""
    try:
        with h5py.File(path, "r") as file:
            return "format" in file.attrs and _texts(file, "format") == ["trajtools"]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, UnicodeError):
        return False


def _walk(root: h5py.File, contents: Contents, path: Path) -> None:
    """Visit every group once, by hard links alone."""
    waiting: list[tuple[str, h5py.Group]] = [("", root)]
    visited: set[int] = set()
    objects = 0
    while waiting:
        place, group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in visited:
            continue
        visited.add(address)
        for name in group.attrs:
            texts = _texts(group, name)
            if texts is not None:
                contents.texts[place, name] = texts
        for name in group:
            objects += 1
            if objects > MOST_OBJECTS:
                raise UnsafeFileError(f"{path} holds more than {MOST_OBJECTS:,} objects")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            child, below = group[name], f"{place}/{name}".lstrip("/")
            if isinstance(child, h5py.Group):
                waiting.append((below, child))
            elif isinstance(child, h5py.Dataset) and isinstance(child.dtype, np.dtype) and child.shape is not None:
                contents.arrays[below] = Array(
                    below, child.shape, child.dtype, partial(_read, child, path), partial(check_held, child, path)
                )


def _read(dataset: h5py.Dataset, path: Path) -> np.ndarray:
    check_held(dataset, path)
    with _one_sentence(path):
        return np.asarray(dataset[()])


def check_held(data: h5py.Dataset, path: Path) -> None:
    """Refuse what the file does not hold, before memory is asked for."""
    check_storage(data)
    strange = [str(number) for number in filters_of(data) if number not in FILTERS]
    if strange:
        raise UnsafeFileError(
            f"{data.name} of {path} uses the HDF5 filter {', '.join(strange)}; read are {', '.join(FILTERS.values())}: "
            "write a copy without it (h5repack)"
        )
    if ZSTD in filters_of(data):
        _load_zstandard()
    declared, size = data.dtype.itemsize * prod(data.shape), os.path.getsize(path)
    room = (
        size
        if data.chunks is None or not filters_of(data)
        else data.id.get_num_chunks() * data.dtype.itemsize * prod(data.chunks)
    )
    if declared > max(size, room):
        raise UnsafeFileError(f"{data.name} of {path} declares {declared} bytes, but holds far fewer")
    size = data.dtype.itemsize
    if data.chunks is None:
        held, needed = data.id.get_storage_size(), size * prod(data.shape)
    else:
        if size * prod(data.chunks) > MAX_CHUNK_BYTES:
            raise TooLargeError(f"{data.name} of {path} has chunks of {size * prod(data.chunks)} bytes; at most 1 GiB")
        held = data.id.get_num_chunks()
        needed = prod(ceil(n / chunk) for n, chunk in zip(data.shape, data.chunks, strict=True))
    if held < needed:
        raise FormatError(
            f"{data.name} of {path} declares the shape {data.shape}, but only {held / needed:.0%} of it was ever "
            "written; the rest would be read as zeros. Write a copy that holds complete trainings only"
        )


def _load_zstandard() -> None:
    """Make the Zstandard filter known to HDF5."""
    if not h5py.h5z.filter_avail(ZSTD):
        try:
            import hdf5plugin  # noqa: F401
        except ImportError:
            raise MissingDependencyError(
                "this file needs the Zstandard filter of HDF5, which is not installed; run: pip install hdf5plugin"
            ) from None


def _texts(group: h5py.Group, name: str) -> list[str] | None:
    """Return an attribute of one text or several; None of anything else."""
    attribute = h5py.h5a.open(group.id, name.encode())
    kind, count = attribute.get_type(), attribute.get_space().get_simple_extent_npoints()
    if not isinstance(kind, h5py.h5t.TypeStringID) or count * kind.get_size() > TEXT_BYTES:
        return None
    value = np.asarray(group.attrs[name], dtype=object).reshape(-1)
    return [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in value]
