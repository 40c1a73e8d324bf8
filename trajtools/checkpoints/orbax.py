"""Open the folders that Orbax writes, with its package tensorstore."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from trajtools.checkpoints.arrays import Leaf, reading
from trajtools.errors import DataError, MissingDependencyError

INDEX = "_METADATA"
LARGEST_INDEX = 2**30
MOST_INFLATED = 1000


def item_of(folder: Path) -> Path | None:
    """Return the folder with the arrays of an Orbax checkpoint: itself, or its only item; None of anything else."""
    if (folder / INDEX).is_file():
        return folder
    if not (folder / "_CHECKPOINT_METADATA").is_file():
        return None
    items = sorted(p.parent for p in folder.glob(f"*/{INDEX}"))
    return next((item for item in items if item.name in ("default", "params", "state")), items[0] if items else None)


@contextmanager
def open_folder(path: Path) -> Iterator[Any]:
    """Open an Orbax checkpoint."""
    try:
        import tensorstore
    except ModuleNotFoundError as problem:
        if problem.name != "tensorstore":
            raise
        raise MissingDependencyError(
            f"{path} is a checkpoint of Orbax, which the package tensorstore reads: pip install tensorstore"
        ) from None
    with reading(path):
        item = item_of(path)
        if item is None:
            raise DataError(f"{path} holds no {INDEX}: it is no checkpoint of Orbax")
        index = item / INDEX
        if index.stat().st_size > LARGEST_INDEX:
            raise ValueError(f"its index has {index.stat().st_size} bytes")
        about = json.loads(index.read_bytes())
        size = sum(p.stat().st_size for p in item.rglob("*") if p.is_file())
        tree: dict[str, Any] = {}
        for entry in about["tree_metadata"].values():
            if entry["value_metadata"].get("skip_deserialize"):
                continue
            keys = [str(one["key"]) for one in entry["key_metadata"]]
            _plant(tree, keys, _leaf(tensorstore, item, about, ".".join(keys), size))
    yield tree


def _plant(tree: dict[str, Any], keys: list[str], leaf: Leaf) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = leaf


def _leaf(tensorstore: Any, item: Path, about: dict[str, Any], name: str, size: int) -> Leaf:
    folder = {"driver": "file", "path": f"{item.absolute()}/"}
    inside = {"driver": "ocdbt", "base": folder, "path": f"{name}/"}
    store = inside if about.get("use_ocdbt") else {**folder, "path": f"{folder['path']}{name}/"}
    driver = "zarr3" if about.get("use_zarr3") else "zarr"
    array = tensorstore.open({"driver": driver, "kvstore": store}, open=True, read=True).result()
    dtype = array.dtype.name
    if prod(array.shape) * array.dtype.numpy_dtype.itemsize > size * MOST_INFLATED:
        raise ValueError(f"{name!r} declares the shape {array.shape}, and the folder has {size} bytes")

    def read() -> np.ndarray:
        with reading(item):
            whole = np.asarray(array.read().result())
            return whole.view(np.uint16) if dtype == "bfloat16" else whole

    return Leaf(tuple(array.shape), dtype, read)
