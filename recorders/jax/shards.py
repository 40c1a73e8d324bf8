"""JAX arrays that are sharded over processes, of which each process records what its devices hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from recorders.jax.trees import is_weight
from recorders.shards import Part, Shards
from trajtools.store import Box


class Held:
    """What the devices of this process hold of an array: its boxes, one after another."""

    def __init__(self, leaf: Any, part: Part) -> None:
        self.shape, self.dtype = part.local_shape, leaf.dtype
        self.arrays = _shards(leaf) if isinstance(leaf, jax.Array) else [leaf] * len(part.boxes)

    def on_host(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Join the arrays of the devices, which are on the host now."""
        if not arrays:
            return np.empty(0, self.dtype)
        if len(arrays) == 1:
            return arrays[0].reshape(self.shape)
        return np.concatenate([array.reshape(-1) for array in arrays])


class JaxShards(Shards):
    """What this process holds of a tree; `local` gives it.

    Notes
    -----
    Of a replicated array, JAX numbers the copies: copy 0 is recorded. An array that belongs to one process alone is
    recorded by process 0. The devices of a process are read one by one, and nothing is gathered on any of them.
    """

    def __init__(self) -> None:
        mesh = {"process": jax.process_count()}
        super().__init__(rank=jax.process_index(), mesh=mesh, parts={}, gather=_gather)

    def local(self, named: Mapping[str, Any]) -> dict[str, Held]:
        """Return what this process records of each array."""
        result = {}
        for name, leaf in named.items():
            if name not in self.parts:
                self.parts[name] = self._part(leaf)
            result[name] = Held(leaf, self.parts[name])
        return result

    def _part(self, leaf: Any) -> Part:
        shape = tuple(leaf.shape)
        if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > len(leaf.sharding.addressable_devices):
            return Part(shape, tuple(_box(one.index, shape) for one in _owned(leaf)))
        return Part(shape, (Box((0,) * len(shape), shape),) if self.rank == 0 else ())


def _owned(leaf: Any) -> list[Any]:
    """The shards of this process that are no copies, in the order of their places."""
    owned = [one for one in leaf.addressable_shards if one.replica_id == 0 and one.data.size]
    return sorted(owned, key=lambda one: _box(one.index, leaf.shape).start)


def _shards(leaf: Any) -> list[Any]:
    if leaf.is_fully_addressable:
        return [leaf] if jax.process_index() == 0 else []
    return [one.data for one in _owned(leaf)]


def _box(index: tuple[slice, ...], shape: tuple[int, ...]) -> Box:
    spans = [part.indices(n) for part, n in zip(index, shape, strict=True)]
    return Box(tuple(start for start, _, _ in spans), tuple(stop - start for start, stop, _ in spans))


def _gather(value: Any) -> list[Any]:
    """Collect a small object from every process."""
    from jax.experimental.multihost_utils import process_allgather

    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = np.asarray(process_allgather(np.array([len(data)], np.int32))).reshape(-1)
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(data)] = data
    rows = np.asarray(process_allgather(padded)).reshape(len(lengths), -1)
    return [json.loads(bytes(row[:n])) for row, n in zip(rows, lengths, strict=True)]


def shards_of(*trees: Any) -> JaxShards | None:
    """Return the shards of this process; None if it can read all arrays."""
    leaves = [leaf for leaf in jax.tree_util.tree_leaves(trees) if is_weight(leaf) and isinstance(leaf, jax.Array)]
    if all(leaf.is_fully_addressable for leaf in leaves if not isinstance(leaf, jax.core.Tracer)):
        return None
    return JaxShards()
