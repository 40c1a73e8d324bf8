"""Open checkpoints of NumPy, safetensors and PyTorch as arrays by name, each read when it is used.

The files may come from strangers: nothing is unpickled, and PyTorch's are loaded with ``weights_only=True``.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from recorders.adapter import listed
from trajtools.errors import DataError, MissingDependencyError, TrajtoolsError

SAFETENSORS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


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
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


Leaves = dict[str, Leaf]


def open_checkpoint(path: Path, kind: str, key: str | None = None) -> AbstractContextManager[Leaves]:
    """Open a checkpoint."""
    if kind == "torch":
        return open_torch(_torch(path), path, key)
    if key is not None:
        raise DataError(
            f"--key {key!r} selects an entry of a .pt file; {path} is not one: choose arrays with --include"
        )
    return open_npz(path) if kind == "npz" else open_safetensors(path)


@contextmanager
def reading(path: Path, *problems: type[BaseException]) -> Iterator[None]:
    """Say which file cannot be read, and why."""
    try:
        yield
    except TrajtoolsError:
        raise
    except problems as problem:
        empty = path.is_file() and not path.stat().st_size
        reason = "the file is empty" if empty else " ".join(str(problem).split()) or type(problem).__name__
        raise DataError(
            f"{path} cannot be read: {reason[:300]}. It is damaged, or its extension is wrong; copy it again, or "
            "choose the other files with --files"
        ) from problem


DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, SyntaxError)


@contextmanager
def open_npz(path: Path) -> Iterator[Leaves]:
    """Open what `numpy.savez` wrote."""
    with ExitStack() as opened:
        with reading(path, *DAMAGED):
            archive = opened.enter_context(zipfile.ZipFile(path))
            entries = archive.infolist()
            leaves = {entry.filename.removesuffix(".npy"): _npy(path, archive, entry) for entry in entries}
        if len(leaves) < len(entries):
            raise DataError(f"{path} holds two arrays of the same name")
        yield leaves


def _npy(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Leaf:
    with archive.open(entry) as stream:
        shape, dtype = _header(stream)
        begin = stream.tell()
    if dtype.hasobject:
        raise DataError(
            f"{path}: {entry.filename.removesuffix('.npy')!r} is a pickled object, which is never loaded because it "
            "can run code; save arrays of numbers"
        )
    if begin + prod(shape) * dtype.itemsize != entry.file_size:
        raise DataError(f"{path}: {entry.filename!r} declares {shape} of {dtype}, but holds {entry.file_size} bytes")

    def read() -> np.ndarray:
        with reading(path, *DAMAGED), archive.open(entry) as stream:
            array = npy.read_array(stream, allow_pickle=False)
            stream.read(1)  # at the end the checksum is looked at
            return array

    return Leaf(shape, dtype.name, read)


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"an array in version {version} of the .npy format, which arrays of numbers do not need")
    shape, _, dtype = read(stream)
    return shape, dtype


@contextmanager
def open_safetensors(path: Path) -> Iterator[Leaves]:
    """Open a .safetensors file."""
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as problem:
        if problem.name != "safetensors":
            raise
        raise MissingDependencyError(
            f"{path} needs the package safetensors, which is not installed: pip install 'trajtools[safetensors]'"
        ) from None
    with ExitStack() as opened:
        with reading(path, SafetensorError, ValueError):
            file = opened.enter_context(safe_open(path, framework="numpy"))
            leaves = {name: _tensor(path, file, name) for name in sorted(file.keys(), key=natural)}
        yield leaves


def _tensor(path: Path, file: Any, name: str) -> Leaf:
    part = file.get_slice(name)
    dtype = SAFETENSORS.get(part.get_dtype(), part.get_dtype().lower())
    # NumPy has no bfloat16, so that the package needs another one for it; the bits are what is wanted anyway.
    read = _bits(path, name) if dtype == "bfloat16" else lambda: file.get_tensor(name)
    return Leaf(tuple(part.get_shape()), dtype, read)


def _bits(path: Path, name: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with open(path, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            about = json.loads(stream.read(length))[name]
            start, stop = about["data_offsets"]
            stream.seek(8 + length + start)
            return np.frombuffer(stream.read(stop - start), "<u2").reshape(about["shape"])

    return read


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Return what sorts names with numbers in them as people do: 2 before 10."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(False, int(p), "") if p[0] in "0123456789" else (True, 0, p) for p in pieces]


@contextmanager
def open_torch(torch: Any, path: Path, key: str | None = None) -> Iterator[Leaves]:
    """Open what `torch.save` wrote of a state dict."""
    content = _load_torch(torch, path)
    if key is not None:
        if not isinstance(content, Mapping) or key not in content:
            raise DataError(f"{path} has no entry {key!r}; it holds {_summary(content)}")
        content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{path} holds {_summary(content)}; needed name -> tensor, as model.state_dict() gives")
    inner = {str(name): _count_tensors(torch, value) for name, value in content.items() if isinstance(value, Mapping)}
    if inner:
        likely = max(inner, key=inner.__getitem__)
        raise DataError(f"{path} holds {_summary(content)}: select the entry with the weights, such as --key {likely}")
    yield {str(name): _torch_leaf(torch, value) for name, value in content.items()}


def _torch(path: Path) -> Any:
    try:
        import torch
    except ModuleNotFoundError as problem:
        if problem.name != "torch":
            raise
        raise MissingDependencyError(
            f"{path} needs PyTorch, which is not installed: pip install 'trajtools[torch]', or save the "
            "weights as .safetensors or .npz"
        ) from None
    return torch


def _load_torch(torch: Any, path: Path) -> Any:
    problems = (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
    with reading(path, *problems), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)  # who saved it is not who reads it
        try:
            # Mapped, so that only what is read comes into memory; the old format, which is no zip file, cannot be.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as problem:
            if not zipfile.is_zipfile(path):
                raise ValueError(
                    "this file was not written by torch.save, or is an old one with more than weights"
                ) from problem
            raise DataError(
                f"{path} holds more than weights, and the rest could run code, so it is not loaded "
                "(torch.load with weights_only=True refuses it): save model.state_dict() alone"
            ) from problem


def _torch_leaf(torch: Any, value: Any) -> Leaf:
    if not isinstance(value, torch.Tensor):
        return Leaf((), f"a {type(value).__name__}", lambda: np.empty(0))
    dtype = str(value.dtype).rpartition(".")[2]
    if value.layout is not torch.strided or value.is_quantized:
        return Leaf(tuple(value.shape), f"a tensor of layout {value.layout}", lambda: np.empty(0))

    def read() -> np.ndarray:
        tensor = value.detach()
        return tensor.contiguous().view(torch.int16).numpy() if dtype == "bfloat16" else tensor.numpy()

    return Leaf(tuple(value.shape), dtype, read)


def _count_tensors(torch: Any, entries: Mapping[Any, Any]) -> int:
    return sum(isinstance(value, torch.Tensor) for value in entries.values())


def _summary(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    kinds = {
        str(name): f"{len(value)} entries" if isinstance(value, Mapping) else type(value).__name__
        for name, value in content.items()
    }
    return listed([f"{name} ({kind})" for name, kind in kinds.items()], 8) or "nothing"
