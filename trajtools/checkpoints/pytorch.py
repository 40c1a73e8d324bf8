"""Open what `torch.save` and torch.distributed.checkpoint wrote, without PyTorch and without executing anything.

Tensors become `Leaf`; every other object stays an inert record of its class, see `trajtools.checkpoints.pickles`.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trajtools.checkpoints.arrays import Leaf, check_inflated, checked_shape, leaf_of, mapped, reading
from trajtools.checkpoints.pickles import Global, Inert, Machine, PickledArray, Rebuild
from trajtools.errors import DataError

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file before version 1.6
DEEPEST = 100
LARGEST_PICKLE = 2**28
DTYPES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1,
    "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1, "complex64": 8, "complex128": 16,
}  # fmt: skip
# Those that NumPy has not.
OTHER_DTYPES = {
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "complex32": 4,
    "qint8": 1, "quint8": 1, "qint32": 4,
}  # fmt: skip
SIZES = DTYPES | OTHER_DTYPES
STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "Untyped": "uint8", "QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32",
}  # fmt: skip


@contextmanager
def open_zip(path: Path) -> Iterator[Any]:
    """Open what `torch.save` writes since version 1.6."""
    with ExitStack() as opened:
        with reading(path):
            archive = opened.enter_context(zipfile.ZipFile(path))
            content = _of_archive(path, archive)
        yield content


def _of_archive(path: Path, archive: zipfile.ZipFile) -> Any:
    names = archive.namelist()
    pickle = min((name for name in names if name.endswith("data.pkl")), key=len)
    root = pickle.removesuffix("data.pkl")
    if f"{root}constants.pkl" in archive.NameToInfo:
        raise DataError(
            f"{path} is a TorchScript program, which is never run; save its weights: "
            "torch.save(torch.jit.load(file).state_dict(), 'weights_1.pt')"
        )
    entry = archive.getinfo(pickle)
    check_inflated(path, entry)
    if entry.file_size > LARGEST_PICKLE:
        raise DataError(f"{path}: its pickle has {entry.file_size} bytes; no checkpoint needs more than 256 MiB")
    order = "<"
    if f"{root}byteorder" in archive.NameToInfo and archive.getinfo(f"{root}byteorder").file_size < 10:
        order = ">" if archive.read(f"{root}byteorder").strip() == b"big" else "<"
    return _load(archive.read(pickle), _Archive(path, archive, root, order))


@contextmanager
def open_legacy(path: Path) -> Iterator[Any]:
    """Open what `torch.save` wrote before version 1.6: pickles, then the numbers of all storages."""
    with reading(path):
        data = np.memmap(path, np.uint8, "r").data
        at, headers = 0, []
        for _ in range(3):  # the magic number, the version, the machine
            machine = Machine(data, at=at)
            headers.append(machine.run())
            at = machine.at
        if headers[0] != MAGIC:
            raise ValueError("it does not begin as a file of torch.save")
        order = "<" if not isinstance(headers[2], dict) or headers[2].get("little_endian", True) else ">"
        stream = _Stream(data, order)
        machine = _machine(data, stream, at)
        content = machine.run()
        keys = Machine(data, at=machine.at)
        stream.locate(keys.run(), keys.at)
    yield content


class _Source(Protocol):
    """Where storages lie: in a zip archive, or one after the other."""

    order: str

    def check(self, storage: Storage) -> None: ...

    def read(self, storage: Storage) -> Any: ...

    def rows(self, storage: Storage, dtype: Any, offset: int, shape: tuple[int, ...]) -> np.ndarray: ...


@dataclass(frozen=True)
class Storage:
    """Numbers in a row that tensors are views of."""

    source: Any
    key: str
    dtype: str
    count: int
    offset: int = 0  # of a view of another storage, in numbers


class _Archive:
    """The storages of a zip archive, each an entry."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, root: str, order: str) -> None:
        self.path, self.archive, self.root, self.order = path, archive, root, order
        self._last: tuple[str, bytes] = ("", b"")

    def check(self, storage: Storage) -> None:
        """Refuse a storage that is not there, or is shorter than it says."""
        entry = self.archive.NameToInfo.get(f"{self.root}data/{storage.key}")
        if entry is None:
            raise ValueError(f"the numbers {storage.key!r} are missing")
        check_inflated(self.path, entry)
        if entry.file_size < storage.count * SIZES[storage.dtype]:
            raise ValueError(f"a tensor of {storage.count} numbers has {entry.file_size} bytes")

    def read(self, storage: Storage) -> bytes:
        """Return the bytes of a storage; the last one is remembered, because many tensors may share it."""
        if self._last[0] != storage.key:
            with reading(self.path):
                self._last = (storage.key, self.archive.read(f"{self.root}data/{storage.key}"))
        return self._last[1]

    def rows(self, storage: Storage, dtype: Any, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array that is read where it is used."""
        entry = self.archive.getinfo(f"{self.root}data/{storage.key}")
        if entry.compress_type != zipfile.ZIP_STORED:
            return np.frombuffer(self.read(storage), dtype, prod(shape), offset).reshape(shape)
        return mapped(self.path, entry, dtype, shape, offset)


class _Stream:
    """The storages of an old file, one after the other."""

    def __init__(self, data: memoryview, order: str) -> None:
        self.data, self.order = data, order
        self.storages: dict[str, Storage] = {}
        self.places: dict[str, int] = {}

    def check(self, storage: Storage) -> None:
        """Remember how large the numbers are: the file does not say it again."""
        self.storages.setdefault(storage.key, storage)

    def locate(self, keys: Any, at: int) -> None:
        """Find the storages, which begin here."""
        for key in keys:
            known = self.storages.get(str(key))
            if known is None:
                raise ValueError(f"the numbers {str(key)!r} belong to no tensor")
            (count,) = struct.unpack(f"{self.order}q", self.data[at : at + 8])
            size = count * SIZES[known.dtype]
            if count < known.count or at + 8 + size > len(self.data):
                raise ValueError("it was cut short")
            self.places[str(key)] = at + 8
            at += 8 + size
        if len(self.places) < len(self.storages):
            raise ValueError("it was cut short")

    def read(self, storage: Storage) -> memoryview:
        """Return the bytes of a storage."""
        begin = self.places[storage.key]
        return self.data[begin : begin + self.storages[storage.key].count * SIZES[self.storages[storage.key].dtype]]

    def rows(self, storage: Storage, dtype: Any, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array that is read where it is used."""
        return np.frombuffer(self.read(storage), dtype, prod(shape), offset).reshape(shape)


def _load(data: bytes, source: _Source) -> Any:
    return _machine(data, source).run()


def _machine(data: bytes | memoryview, source: _Source, at: int = 0) -> Machine:
    return Machine(data, REBUILD, partial(_storage, source), at)


def _storage(source: _Source, name: Any) -> Any:
    """Return the storage that a persistent id names; old files name the class of a module in this way, too."""
    if name[0] == "module":
        return name[1]
    kind, cls, key, _, count, *view = name
    code = cls.name.rpartition(".")[2].removesuffix("Storage") if isinstance(cls, Global) else ""
    if kind != "storage" or code not in STORAGES or not isinstance(count, int) or count < 0:
        raise ValueError(f"a tensor of the unknown kind {code!r}")
    storage = Storage(source, str(key), STORAGES[code], count)
    source.check(storage)
    if view and view[0] is not None:  # how files before 0.4 wrote what shares memory
        _, offset, size = view[0]
        return replace(storage, offset=offset, count=size)
    return storage


# Tensors


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Leaf:
    """``torch._utils._rebuild_tensor`` and ``_rebuild_tensor_v2``."""
    return _view(storage, storage.dtype, offset, shape, stride)


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> Leaf:
    """``torch._utils._rebuild_tensor_v3``: of untyped numbers."""
    name = dtype.name.rpartition(".")[2]
    if name not in SIZES:
        return Leaf(checked_shape(shape), name, lambda: np.empty(0))
    return _view(replace(storage, dtype=name, count=storage.count // SIZES[name]), name, offset, shape, stride)


def _view(storage: Storage, dtype: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Leaf:
    shape, stride = checked_shape(shape), checked_shape(stride)
    if len(shape) != len(stride) or not isinstance(offset, int) or offset < 0:
        raise ValueError(f"a tensor of shape {shape}, strides {stride} and offset {offset}")
    count = prod(shape)
    if count > storage.count and 0 in stride:
        return Leaf(shape, f"{dtype} that Tensor.expand repeats", lambda: np.empty(0))
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if count and (count > storage.count or last >= storage.count):
        raise ValueError(f"a tensor of shape {shape} lies beyond the {storage.count} numbers that it is a view of")
    width, code = SIZES[dtype], {"bfloat16": "uint16"}.get(dtype, dtype)
    begin = (storage.offset + offset) * width
    if dtype in OTHER_DTYPES:
        return Leaf(shape, dtype, lambda: np.empty(0))
    form = np.dtype(code).newbyteorder(storage.source.order)

    def read() -> np.ndarray:
        if not count:
            return np.empty(shape, form)
        flat = np.frombuffer(storage.source.read(storage), form, last - offset + 1, begin)
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, shape, [n * width for n in stride]))

    dense = (
        count and shape and all(a == b * n for (a, b), n in zip(pairwise((*stride, 1)), (*shape[1:], 1), strict=True))
    )
    rows = partial(storage.source.rows, storage, form, begin, shape) if dense else None
    place = (id(storage.source), storage.key, begin, shape, stride) if count else None
    return Leaf(shape, dtype, read, place, rows=rows)


def _parameter(data: Any, trainable: Any = None, *_: Any) -> Any:
    return replace(data, trainable=bool(trainable)) if isinstance(data, Leaf) else data


def _subclass(function: Any, cls: Any, arguments: Any, *_: Any) -> Any:
    """``torch._tensor._rebuild_from_type_v2``: a subclass of Tensor, or a tensor with attributes."""
    known = REBUILD.get(function.name) if isinstance(function, Global) else None
    if known is None:
        return Inert(cls.name if isinstance(cls, Global) else "a tensor of an unknown class")
    return known(*arguments)


def _of_numpy(data: Any, *_: Any) -> Any:
    return leaf_of(data) if isinstance(data, PickledArray) else data


REBUILD: dict[str, Rebuild] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_numpy": _of_numpy,
    "torch._utils._rebuild_xla_tensor": _of_numpy,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch._tensor._rebuild_from_type": _subclass,
    "torch.Size": lambda sizes=(), *_: tuple(sizes),
}


def state_dict_of(module: Inert) -> dict[str, Any] | None:
    """Return the parameters and buffers of a module that was saved whole; None of anything else."""
    entries: dict[str, Any] = {}
    visited: set[int] = set()

    def walk(one: Any, prefix: str, depth: int) -> None:
        if not isinstance(one, Inert) or not isinstance(one.state, Mapping) or id(one) in visited or depth > DEEPEST:
            return
        visited.add(id(one))
        for name, value in _entries(one, "_parameters"):
            if value is not None:
                entries[prefix + name] = value
        for name, value in _entries(one, "_buffers"):
            entries[prefix + name] = replace(value, trainable=False) if isinstance(value, Leaf) else value
        for name, child in _entries(one, "_modules"):
            walk(child, f"{prefix}{name}.", depth + 1)

    if isinstance(module.state, Mapping) and {"_parameters", "_modules"} <= module.state.keys():
        walk(module, "", 0)
        return entries
    return None


def _entries(module: Inert, what: str) -> list[tuple[str, Any]]:
    table = module.state.get(what)
    return [(str(name), value) for name, value in table.items()] if isinstance(table, Mapping) else []


# torch.distributed.checkpoint: a folder with the pickle .metadata and files of pieces of tensors


@contextmanager
def open_distributed(path: Path) -> Iterator[Any]:
    """Open a folder that torch.distributed.checkpoint wrote."""
    with reading(path):
        index = path / ".metadata"
        if index.stat().st_size > LARGEST_PICKLE:
            raise ValueError(f"its index has {index.stat().st_size} bytes")
        about = _fields(Machine(index.read_bytes(), REBUILD).run())
        places: dict[str, list[tuple[Any, dict[str, Any]]]] = {}
        for key, place in (about.get("storage_data") or {}).items():
            piece = _fields(key)
            places.setdefault(str(piece["fqn"]), []).append((piece.get("offset"), _fields(place)))
        paths = about.get("planner_data") or {}
        tree: dict[str, Any] = {}
        for name, entry in about["state_dict_metadata"].items():
            known = _fields(entry)
            value = _pieces(path, name, known, places.get(name, [])) if "chunks" in known else Inert(_class_of(entry))
            _plant(tree, paths.get(name) or (name,), value)
    yield tree


def _fields(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that was not made."""
    state = record.state if isinstance(record, Inert) else None
    return state if isinstance(state, dict) else {}


def _class_of(record: Any) -> str:
    return record.origin if isinstance(record, Inert) else type(record).__name__


def _plant(tree: dict[str, Any], path: Any, value: Any) -> None:
    *above, last = path if isinstance(path, tuple) else (str(path),)
    for key in above:
        branch = tree.setdefault(str(key), {})
        if not isinstance(branch, dict):
            raise ValueError(f"two entries are called {key!r}")
        tree = branch
    tree[str(last)] = value


def _pieces(folder: Path, name: str, about: dict[str, Any], places: list[tuple[Any, dict[str, Any]]]) -> Leaf:
    """Return a tensor that is put together of the pieces that the ranks wrote."""
    shape = checked_shape(about["size"])
    properties = about["properties"].state
    dtype = (properties[0] if isinstance(properties, tuple) else properties["dtype"]).name.rpartition(".")[2]
    sizes = {tuple(f["offsets"]): checked_shape(f["sizes"]) for f in map(_fields, about["chunks"])}
    pieces = {tuple(offset) if offset is not None else (0,) * len(shape): place for offset, place in places}
    if sum(map(prod, sizes.values())) != prod(shape):
        raise ValueError(f"the pieces of a tensor of shape {shape} do not fill it")
    if sizes.keys() - pieces.keys():
        raise ValueError(f"a piece of a tensor of shape {shape} is missing")
    if prod(shape) * SIZES.get(dtype, 1) > sum(place["length"] for place in pieces.values()):
        raise ValueError(f"a tensor of shape {shape} has fewer bytes than it declares")

    def read() -> np.ndarray:
        whole: np.ndarray | None = None
        for offsets, size in sizes.items():
            with reading(folder):
                part = _piece(folder, pieces[offsets])
                if part.size != prod(size):
                    raise ValueError(f"a piece of shape {part.shape} stands for one of shape {size}")
                if whole is None:
                    whole = np.empty(shape, part.dtype)
                whole[tuple(slice(a, a + n) for a, n in zip(offsets, size, strict=True))] = part.reshape(size)
        return np.empty(shape) if whole is None else whole

    return Leaf(shape, dtype, read, (str(folder), name))


def _piece(folder: Path, place: dict[str, Any]) -> np.ndarray:
    """Read one piece: a file of torch.save that stands inside of a larger one."""
    name, offset, length = place["relative_path"], place["offset"], place["length"]
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"a piece lies outside of the folder, in {name!r}")
    if place.get("transform_descriptors"):
        raise ValueError("its pieces are compressed; load it with torch.distributed.checkpoint and save it again")
    path = folder / name
    with path.open("rb") as stream, zipfile.ZipFile(_Window(stream, offset, length)) as archive:
        leaf = _of_archive(path, archive)
        if not isinstance(leaf, Leaf):
            raise ValueError(f"a piece of {name} is no tensor")
        return leaf.read()


class _Window:
    """A part of a file, as a file."""

    def __init__(self, stream: Any, begin: int, size: int) -> None:
        self.stream, self.begin, self.size, self.at = stream, begin, size, 0

    def seekable(self) -> bool:
        """Say that `seek` works."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        self.at = offset + (0, self.at, self.size)[whence]
        if self.at < 0:
            raise ValueError("before the beginning of a piece")
        return self.at

    def read(self, count: int = -1) -> bytes:
        """Read up to the end of the part."""
        left = max(0, self.size - self.at)
        count = left if count is None or count < 0 else min(count, left)
        self.stream.seek(self.begin + self.at)
        part: bytes = self.stream.read(count)
        self.at += len(part)
        return part
