"""Weights that PyTorch saved, as arrays by name; nothing but weights is ever loaded."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recorders.adapter import listed
from recorders.checkpoints.archives import Leaf, Leaves, reading
from trajtools.errors import DataError


@contextmanager
def open_torch(path: Path, key: str | None = None) -> Iterator[Leaves]:
    """Open what `torch.save` wrote of a state dict."""
    found = _loaded(path)
    if key is not None:
        if not isinstance(found, Mapping) or key not in found:
            raise DataError(f"{path} has no entry {key!r}; it holds {_told(found)}")
        found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise DataError(f"{path} holds {_told(found)}; needed name -> tensor, as model.state_dict() gives")
    inner = {str(name): _tensors(value) for name, value in found.items() if isinstance(value, Mapping)}
    if inner:
        likely = max(inner, key=inner.__getitem__)
        raise DataError(f"{path} holds {_told(found)}: say which entry holds the weights, such as --key {likely}")
    yield {str(name): _leaf(value) for name, value in found.items()}


def _loaded(path: Path) -> Any:
    problems = (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
    with reading(path, *problems), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)  # who saved it is not who reads it
        try:
            # Mapped, so that only what is read comes into memory; the old format, which is no zip file, cannot be.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as problem:
            if not zipfile.is_zipfile(path):
                raise ValueError(
                    "this is no file that torch.save wrote, or an old one with more than weights"
                ) from problem
            raise DataError(
                f"{path} holds more than weights, and what else is in there could run code, so it is not loaded "
                "(torch.load with weights_only=True refuses it): save model.state_dict() alone"
            ) from problem


def _leaf(value: Any) -> Leaf:
    if not isinstance(value, torch.Tensor):
        return Leaf((), f"a {type(value).__name__}", lambda: np.empty(0))
    dtype = str(value.dtype).rpartition(".")[2]
    if value.layout is not torch.strided or value.is_quantized:
        return Leaf(tuple(value.shape), f"a tensor of layout {value.layout}", lambda: np.empty(0))

    def read() -> np.ndarray:
        tensor = value.detach()
        return tensor.contiguous().view(torch.int16).numpy() if dtype == "bfloat16" else tensor.numpy()

    return Leaf(tuple(value.shape), dtype, read)


def _tensors(found: Mapping[Any, Any]) -> int:
    return sum(isinstance(value, torch.Tensor) for value in found.values())


def _told(found: Any) -> str:
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}"
    kinds = {
        str(name): f"{len(value)} entries" if isinstance(value, Mapping) else type(value).__name__
        for name, value in found.items()
    }
    return listed([f"{name} ({kind})" for name, kind in kinds.items()], 8) or "nothing"
