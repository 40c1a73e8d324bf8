"""HDF5 files that nobody vouches for: what is refused of them, and their arrays by path, each read when it is used.

No link, external or virtual storage is followed, no filter but gzip, lzf, Zstandard and HDF5's own is run, and no array
is larger than what the file holds of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil, prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np

from trajtools.errors import DataError, FormatError, MissingDependencyError, TooLargeError, UnsafeFileError
from trajtools.store.files import one_sentence

MOST_OBJECTS = 1_000_000
ATTRIBUTE_BYTES = 64 * 2**20
MAX_CHUNK_BYTES = 2**30  # of one chunk, which is decompressed as a whole
TEXT_BYTES = 2**20
ZSTD = 32015
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf", ZSTD: "zstd"}


class Geometry(NamedTuple):
    """What HDF5 says of a dataset; `chunks` is None where it lies in one piece."""

    id: h5py.h5d.DatasetID
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    filters: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size without filters."""
        return prod(self.shape) * self.dtype.itemsize


class Objects:
    """Groups and datasets of a file by path, found by hard links alone.

    Works below h5py's own objects, whose making takes most of an opening, and opens each group once.
    """

    def __init__(self, file: h5py.File) -> None:
        self._groups: dict[str, Any] = {"": file.id}

    def has(self, path: str) -> bool:
        """Whether there is something at a path; `in` would follow links to other files."""
        parent, _, name = path.rpartition("/")
        return (not parent or self.has(parent)) and bool(self.open(parent).links.exists(_encoded(name)))

    def open(self, path: str) -> Any:
        """Whatever stands at a path in this very file."""
        if path in self._groups:
            return self._groups[path]
        parent, _, name = path.rpartition("/")
        group, encoded = self.open(parent), _encoded(name)
        links = group.links if isinstance(group, h5py.h5g.GroupID) else None
        if links is None or not links.exists(encoded):
            raise FormatError(f"/{path} is missing, which the format requires")
        if (kind := links.get_info(encoded).type) != h5py.h5l.TYPE_HARD:
            target = "another file" if kind == h5py.h5l.TYPE_EXTERNAL else "another place"
            raise UnsafeFileError(f"/{path} is a link to {target}; links are refused. Copy the data into the file.")
        entry = h5py.h5o.open(group, encoded)
        if isinstance(entry, h5py.h5g.GroupID):
            self._groups[path] = entry
        return entry

    def geometry(self, path: str) -> Geometry:
        """What a dataset is; data outside the file, and types that are neither numbers nor text, are refused."""
        entry, place = self.open(path), f"/{path}"
        if not isinstance(entry, h5py.h5d.DatasetID):
            raise FormatError(f"{place} must be a dataset")
        kind, creation = entry.get_type(), entry.get_create_plist()
        check_storage(creation, place)
        if isinstance(kind, h5py.h5t.TypeStringID):
            if kind.is_variable_str():
                raise UnsafeFileError(f"{place} holds text of variable length; the format requires fixed length")
        elif not isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID):
            raise UnsafeFileError(f"{place} holds {type(kind).__name__}; only numbers and text are read")
        chunks = creation.get_chunk() if creation.get_layout() == h5py.h5d.CHUNKED else None
        return Geometry(entry, place, entry.shape, kind.dtype, chunks, filters_of(creation))

    def dataset(self, path: str) -> h5py.Dataset:
        """A dataset as h5py shows it, refused as `geometry` does."""
        return h5py.Dataset(self.geometry(path).id)

    def attribute(self, path: str, name: str) -> Any:
        """Open an attribute of a group or dataset."""
        target = self.open(path)
        if not h5py.h5a.exists(target, name.encode()):
            raise FormatError(f"/{path} lacks the attribute {name!r}, which the format requires")
        return h5py.h5a.open(target, name.encode())

    def text(self, path: str, name: str) -> str:
        """Read a text attribute, after a look at its size."""
        return read_text(self.attribute(path, name), f"the attribute {name!r} of /{path}")

    def walk(self) -> Iterator[tuple[str, Any]]:
        """Everything by path, or the error that opening it raises; each group is entered once."""
        pending, visited, count = [""], set(), 0
        while pending:
            place = pending.pop()
            group = self.open(place)
            address = h5py.h5o.get_info(group).addr
            if address in visited:  # groups may hold each other
                continue
            visited.add(address)
            for encoded in group:
                count += 1
                if count > MOST_OBJECTS:
                    raise UnsafeFileError(f"the file holds more than {MOST_OBJECTS:,} objects")
                path = f"{place}/{encoded.decode('utf-8', 'surrogateescape')}".removeprefix("/")
                try:
                    entry = self.open(path)
                except (OSError, RuntimeError, KeyError, ValueError) as error:
                    entry = error
                if isinstance(entry, h5py.h5g.GroupID):
                    pending.append(path)
                yield path, entry


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def read_text(attribute: Any, what: str) -> str:
    """Read an attribute of one text of fixed length."""
    size, kind, shape = attribute.get_storage_size(), attribute.get_type(), attribute.shape
    if size > ATTRIBUTE_BYTES:
        raise UnsafeFileError(f"{what} claims {size} bytes")
    if prod(shape) != 1 or not isinstance(kind, h5py.h5t.TypeStringID):
        raise FormatError(f"{what} must be one text")
    if kind.is_variable_str():
        raise UnsafeFileError(f"{what} is of variable length; needed a fixed one")
    value = np.zeros(shape, f"S{kind.get_size()}")
    attribute.read(value, mtype=kind)
    return bytes(value.reshape(-1)[0]).decode()


def check_storage(creation: Any, place: str) -> None:
    """Refuse a dataset with data outside the file, by its creation properties."""
    if creation.get_layout() == h5py.h5d.VIRTUAL:
        raise UnsafeFileError(f"{place} is a virtual dataset, whose data are in another file; it is refused")
    if creation.get_external_count():
        raise UnsafeFileError(f"{place} has its data in another file ({creation.get_external(0)[0]!r}); it is refused")


def filters_of(creation: Any) -> tuple[int, ...]:
    """HDF5 numbers of the filters of a dataset, by its creation properties."""
    return tuple(creation.get_filter(i)[0] for i in range(creation.get_nfilters()))


# ------------------------------------------------------------------------------------------- files of other programs


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
    with one_sentence(path), h5py.File(path if content is None else content, "r") as file:
        yield file


@contextmanager
def open_contents(path: Path, content: BinaryIO | None = None) -> Iterator[Contents]:
    """List what a file holds."""
    with open_hdf5(path, content) as file:
        contents = Contents({}, _texts("", file))
        for place, entry in Objects(file).walk():
            if isinstance(entry, h5py.h5g.GroupID):
                contents.texts.update(_texts(place, h5py.Group(entry)))
            elif isinstance(entry, h5py.h5d.DatasetID):
                data = h5py.Dataset(entry)
                if isinstance(data.dtype, np.dtype) and data.shape is not None:
                    read, check = partial(_read, data, path), partial(check_held, data, path)
                    contents.arrays[place] = Array(place, data.shape, data.dtype, read, check)
            elif isinstance(entry, Exception) and not isinstance(entry, UnsafeFileError):  # a link leads nowhere
                raise entry
        yield contents


def is_run(path: Path) -> bool:
    """Whether an HDF5 file is one of trajtools."""
    try:
        with h5py.File(path, "r") as file:
            return _texts("", file).get(("", "format")) == ["trajtools"]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, UnicodeError):
        return False


def _read(dataset: h5py.Dataset, path: Path) -> np.ndarray:
    check_held(dataset, path)
    with one_sentence(path):
        return np.asarray(dataset[()])


def check_held(data: h5py.Dataset, path: Path) -> None:
    """Refuse what the file does not hold, before memory is asked for."""
    creation, what = data.id.get_create_plist(), f"{data.name} of {path}"
    check_storage(creation, str(data.name))
    filters, size = filters_of(creation), data.dtype.itemsize
    strange = [str(number) for number in filters if number not in FILTERS]
    if strange:
        raise UnsafeFileError(
            f"{what} uses the HDF5 filter {', '.join(strange)}; read are {', '.join(FILTERS.values())}: write a copy "
            "without it (h5repack)"
        )
    if ZSTD in filters and not h5py.h5z.filter_avail(ZSTD):
        try:
            import hdf5plugin  # noqa: F401  # makes the filter known to HDF5
        except ImportError:
            raise MissingDependencyError(
                "this file needs the Zstandard filter of HDF5, which is not installed; run: pip install hdf5plugin"
            ) from None
    if data.chunks is None:
        held, needed = data.id.get_storage_size(), size * prod(data.shape)
        room = 0
    else:
        held = data.id.get_num_chunks()
        needed = prod(ceil(n / chunk) for n, chunk in zip(data.shape, data.chunks, strict=True))
        room = held * size * prod(data.chunks) if filters else 0
    if size * prod(data.shape) > max(os.path.getsize(path), room):
        raise UnsafeFileError(f"{what} declares {size * prod(data.shape)} bytes, but holds far fewer")
    if size * prod(data.chunks or ()) > MAX_CHUNK_BYTES:
        raise TooLargeError(f"{what} has chunks of {size * prod(data.chunks)} bytes; at most 1 GiB")
    if held < needed:
        raise FormatError(
            f"{what} declares the shape {data.shape}, but only {held / needed:.0%} of it was ever written; the rest "
            "would be read as zeros. Write a copy that holds complete trainings only"
        )


def _texts(place: str, group: h5py.Group) -> dict[tuple[str, str], list[str]]:
    """Attributes of one text or several."""
    result = {}
    for name in group.attrs:
        attribute = h5py.h5a.open(group.id, name.encode())
        kind, count = attribute.get_type(), attribute.get_space().get_simple_extent_npoints()
        if isinstance(kind, h5py.h5t.TypeStringID) and count * kind.get_size() <= TEXT_BYTES:
            value = np.asarray(group.attrs[name], dtype=object).reshape(-1)
            texts = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in value]
            result[place, name] = texts
    return result
