"""Sharded torch models: FSDP2 (`fully_shard`) and DTensor parameters, of which each rank records what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from recorders.shards import Part, Shards
from recorders.torch.modules import trainable
from trajtools.errors import ArchitectureError
from trajtools.store import Box


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is spread over processes."""
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "placements")


def named_arrays(state: Any) -> list[Mapping[str, Any]]:
    """Return name -> parameter for each network of a state that may be sharded."""
    if isinstance(state, Mapping):
        return [state]
    models = [state] if isinstance(state, nn.Module) else state
    if not isinstance(models, Sequence) or not all(isinstance(model, nn.Module) for model in models):
        return []
    return [trainable(model) for model in models]


class TorchShards(Shards):
    """What this rank holds of a model; `local` gives it.

    Notes
    -----
    A parameter that is replicated, or that is no DTensor, is recorded by the ranks at the origin of the axes over which
    there are copies, and by no other. FSDP2 swaps a sharded parameter for the whole one around the forward pass: the
    sharded ones are kept from the opening on.
    """

    def __init__(self, mappings: Sequence[Mapping[str, Any]]) -> None:
        tensors = [leaf for mapping in mappings for leaf in mapping.values() if is_sharded(leaf)]
        self._mesh = max((leaf.device_mesh for leaf in tensors), key=lambda mesh: mesh.ndim)
        names = self._mesh.mesh_dim_names or tuple(str(axis) for axis in range(self._mesh.ndim))
        super().__init__(
            rank=dist.get_rank(),
            mesh=dict(zip(names, self._mesh.mesh.shape, strict=True)),
            parts={},
            gather=self._gather,
        )
        self.kept: list[Mapping[str, Any]] = [dict(mapping) for mapping in mappings]
        for mapping in mappings:
            self.local(mapping)

    def _gather(self, value: Any) -> list[Any]:
        """Collect a small object from every rank of the mesh, axis by axis."""
        found = [value]
        for axis in range(self._mesh.ndim):
            group = self._mesh.get_group(axis)
            answers: list[Any] = [None] * dist.get_world_size(group)
            dist.all_gather_object(answers, found, group=group)
            found = [one for answer in answers for one in answer]
        return found

    def local(self, named: Mapping[str, Any], network: int | None = None) -> dict[str, Tensor]:
        """Return what this rank records of each array; `network`: of the parameters of which network they are."""
        result = {}
        for name, leaf in named.items():
            kept = leaf if network is None or is_sharded(leaf) else self.kept[network].get(name, leaf)
            part = self.parts.get(name)
            if part is None:
                part = self.parts[name] = self._part(name, kept)
            tensor = kept.detach().to_local() if is_sharded(kept) else kept.detach()
            result[name] = tensor if part.boxes else tensor.reshape(-1)[:0]
        return result

    def _part(self, name: str, leaf: Any) -> Part:
        shape = tuple(leaf.shape)
        here = self._mesh.get_coordinate()
        if not is_sharded(leaf):
            return Part(shape, (Box((0,) * len(shape), shape),) if not any(here) else ())
        mesh = leaf.device_mesh
        if mesh.ndim < self._mesh.ndim:
            known = self._mesh.mesh_dim_names or ()
            if not (mesh.mesh_dim_names and set(mesh.mesh_dim_names) <= set(known)):
                raise ArchitectureError(
                    f"parameter {name!r} is sharded over the mesh {mesh}, others over {self._mesh}: name the axes of "
                    "the meshes (mesh_dim_names=), so that one can be seen to be part of the other"
                )
            copies = [at for axis, at in zip(known, here, strict=True) if axis not in mesh.mesh_dim_names]
        elif mesh != self._mesh:
            raise ArchitectureError(f"parameter {name!r} is sharded over the mesh {mesh}, others over {self._mesh}")
        else:
            copies = []
        begin, sizes = [0] * len(shape), list(shape)
        # A strided placement splits what the axes to its right have split already.
        order = sorted(range(mesh.ndim), key=lambda axis: type(leaf.placements[axis]).__name__ == "_StridedShard")
        for axis in order:
            placement, at = leaf.placements[axis], mesh.get_coordinate()[axis]
            if placement.is_partial():
                raise ArchitectureError(f"parameter {name!r} is a partial sum on each rank, which is no state")
            if not hasattr(placement, "dim"):
                copies.append(at)
                continue
            dim, n = placement.dim, mesh.size(axis)
            chunk = -(-sizes[dim] // n)
            first = min(sizes[dim], at * chunk)
            begin[dim], sizes[dim] = begin[dim] + first, min(sizes[dim], first + chunk) - first
        if tuple(sizes) != tuple(leaf.to_local().shape):
            raise ArchitectureError(
                f"parameter {name!r} is placed as {leaf.placements}, of which trajtools does not know the place in the "
                "whole: record a mapping {name: tensor} without it"
            )
        return Part(shape, (Box(tuple(begin), tuple(sizes)),) if not any(copies) and 0 not in sizes else ())


def shards_of(state: Any) -> TorchShards | None:
    """Return what this rank holds of a state; None if nothing of it is sharded."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    mappings = named_arrays(state)
    if not any(is_sharded(leaf) for mapping in mappings for leaf in mapping.values()):
        return None
    return TorchShards(mappings)
