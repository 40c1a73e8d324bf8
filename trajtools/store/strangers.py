"""HDF5 files of other programs: their arrays by path, each read when it is used.

No link, external or virtual storage is followed, no filter but HDF5's own is run, and no array is larger than what the
file holds of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from trajtools.errors import UnsafeFileError
from trajtools.store.files import one_sentence

MOST_OBJECTS = 1_000_000
MOST_INFLATED = 1100  # deflate makes nothing smaller than 1 / 1032
TEXT_BYTES = 2**20
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32"}


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
def open_contents(path: Path, content: BinaryIO | None = None) -> Iterator[Contents]:
    """List what a file holds; `content` stands for the file where it lies inside of another one."""
    with ExitStack() as opened:
        contents = Contents({}, {})
        with one_sentence(path, "read"):
            file = opened.enter_context(h5py.File(path if content is None else content, "r"))
            _walk(file, contents, path)
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
    size = path.stat().st_size
    waiting: list[tuple[str, h5py.Group]] = [("", root)]
    seen: set[int] = set()
    objects = 0
    while waiting:
        place, group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
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
                    below, child.shape, child.dtype, partial(_read, child, size, path), partial(_check, child, size)
                )


def _read(dataset: h5py.Dataset, size: int, path: Path) -> np.ndarray:
    with one_sentence(path, f"read {dataset.name}"):
        _check(dataset, size)
        return np.asarray(dataset[()])


def _check(dataset: h5py.Dataset, size: int) -> None:
    """Refuse an array that does not lie in this file, or not as large as it says."""
    plist = dataset.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
        raise UnsafeFileError(f"{dataset.name} has its data in another file, which is not read")
    strange = [plist.get_filter(i)[3] for i in range(plist.get_nfilters()) if plist.get_filter(i)[0] not in FILTERS]
    if strange:
        raise UnsafeFileError(f"{dataset.name} is compressed with {strange[0]!r}; needed gzip or nothing")
    wanted, there = prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if wanted > max(there, 0) * (MOST_INFLATED if plist.get_nfilters() else 1) or there > size:
        raise UnsafeFileError(f"{dataset.name} declares {wanted} bytes, and the file holds {there} of them")


def _texts(group: h5py.Group, name: str) -> list[str] | None:
    """Return an attribute of one text or several; None of anything else."""
    attribute = h5py.h5a.open(group.id, name.encode())
    kind, count = attribute.get_type(), attribute.get_space().get_simple_extent_npoints()
    if not isinstance(kind, h5py.h5t.TypeStringID) or count * kind.get_size() > TEXT_BYTES:
        return None
    value = np.asarray(group.attrs[name], dtype=object).reshape(-1)
    return [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in value]
