"""Open the weights that Keras saved: .weights.h5 and .keras of Keras 3, and the .h5 of earlier versions."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trajtools.checkpoints.arrays import Leaf, check_inflated, reading
from trajtools.checkpoints.steps import natural
from trajtools.errors import DataError
from trajtools.store.strangers import Array, Contents, open_contents

WEIGHTS = "model.weights.h5"
MOVING = ("moving_mean", "moving_variance")
# The files of Keras 3 number the variables of a layer; these are their names.
VARIABLES = {
    "batch_normalization": ("gamma", "beta", *MOVING),
    "layer_normalization": ("gamma", "beta"),
    "dense": ("kernel", "bias"),
    "conv": ("kernel", "bias"),
    "embedding": ("embeddings",),
    "gru_cell": ("kernel", "recurrent_kernel", "bias"),
    "lstm_cell": ("kernel", "recurrent_kernel", "bias"),
    "simple_rnn_cell": ("kernel", "recurrent_kernel", "bias"),
}


@contextmanager
def open_weights(path: Path) -> Iterator[dict[str, Leaf]]:
    """Open an HDF5 file of Keras."""
    with open_contents(path) as contents:
        yield _leaves(path, contents, [])


@contextmanager
def open_archive(path: Path) -> Iterator[dict[str, Leaf]]:
    """Open a .keras file: a zip archive with the weights and the configuration, which says the order of the layers."""
    with reading(path), zipfile.ZipFile(path) as archive:
        check_inflated(path, archive.getinfo(WEIGHTS))
        layers, content = _layers(archive), io.BytesIO(archive.read(WEIGHTS))
    with open_contents(path, content) as contents:
        yield _leaves(path, contents, layers)


def _layers(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the layers in their order, as far as the configuration says it."""
    if "config.json" not in archive.NameToInfo or archive.getinfo("config.json").file_size > 100 * 2**20:
        return []
    config = json.loads(archive.read("config.json"))
    layers = config.get("config", {}).get("layers", []) if isinstance(config, dict) else []
    return [str(layer.get("config", {}).get("name")) for layer in layers if isinstance(layer, dict)]


def _leaves(path: Path, contents: Contents, layers: list[str]) -> dict[str, Leaf]:
    root = "model_weights" if ("model_weights", "layer_names") in contents.texts else ""
    named = contents.texts.get((root, "layer_names"))
    leaves = _named(contents, root, named) if named is not None else _numbered(contents, layers)
    if not leaves:
        listing = ", ".join(list(contents.arrays)[:5]) or "nothing"
        raise DataError(f"{path} is an HDF5 file, but not one of Keras (.weights.h5, .keras, .h5); it holds {listing}")
    return leaves


def _named(contents: Contents, root: str, layers: list[str]) -> dict[str, Leaf]:
    """Return the weights of a file of Keras 2, which lists layers and weights by name."""
    leaves = {}
    for layer in layers:
        place = f"{root}/{layer}".lstrip("/")
        for weight in contents.texts.get((place, "weight_names"), []):
            array = contents.arrays.get(f"{place}/{weight}")
            if array is not None:
                pieces = weight.removesuffix(":0").split("/")
                pieces = pieces if layer in pieces else [layer, *pieces]
                leaves[".".join(pieces)] = _leaf(array)
    return leaves


def _numbered(contents: Contents, layers: list[str]) -> dict[str, Leaf]:
    """Return the weights of a file of Keras 3: `<layer>/vars/<number>`."""
    groups: dict[str, list[Array]] = {}
    for place in sorted(contents.arrays, key=natural):
        layer, _, number = place.rpartition("/")
        if (layer == "vars" or layer.endswith("/vars")) and number.isdigit() and not layer.startswith("optimizer/"):
            groups.setdefault(layer, []).append(contents.arrays[place])
    names = {layer: (contents.texts.get((layer, "name")) or [""])[0] for layer in groups}
    count = Counter(names.values())
    rank = {name: index for index, name in enumerate(layers)}
    leaves = {}
    for layer in sorted(groups, key=lambda layer: rank.get(names[layer], len(rank))):
        path = layer.removesuffix("vars").strip("/").removeprefix("layers/").replace("/", ".")
        own = names[layer] and count[names[layer]] == 1 and "." not in path and layer.startswith("layers/")
        called = names[layer] if own else path
        kind = path.rpartition(".")[2]
        for array, variable in zip(groups[layer], _variables((kind, names[layer]), groups[layer]), strict=True):
            leaves[f"{called}.{variable}".lstrip(".")] = _leaf(array)
    return leaves


def _variables(kinds: tuple[str, ...], arrays: list[Array]) -> list[str]:
    """Return the names of a layer's variables: those of its class where it is known, else their numbers."""
    for cls, names in VARIABLES.items():
        if any(kind.startswith(cls) for kind in kinds):
            if len(arrays) <= len(names) and MOVING[0] not in names:
                return list(names[: len(arrays)])
            if len(arrays) == len(names):
                return list(names)
            if MOVING[0] in names and len(arrays) >= 2:  # without a scale or a shift
                return [*map(str, range(len(arrays) - 2)), *MOVING]
    if len(arrays) == 4 and len({array.shape for array in arrays}) == 1 and len(arrays[0].shape) == 1:
        return list(VARIABLES["batch_normalization"])
    return list(map(str, range(len(arrays))))


def _leaf(array: Array) -> Leaf:
    array.check()
    return Leaf(array.shape, array.dtype.name, array.read)
