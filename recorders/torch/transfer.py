"""Exact conversion between tensors and host arrays; from CUDA through pinned buffers on a separate stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recorders import planting
from recorders.adapter import Pending
from trajtools.errors import MissingDependencyError


def host_view(tensor: Tensor) -> np.ndarray:
    """View a tensor in host memory as an array, without a copy; bfloat16 as its bits."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def to_host(tensors: Iterable[Tensor]) -> list[np.ndarray]:
    """Copy tensors from any device into arrays of their own dtype."""
    arrays = []
    for tensor in tensors:
        array = np.array(host_view(tensor.cpu()), order="C")
        arrays.append(array.view(_bfloat16()) if tensor.dtype == torch.bfloat16 else array)
    return arrays


def from_host(array: np.ndarray, tensor: Tensor) -> None:
    """Write an array into a tensor of the same shape and dtype, on any device."""
    if tensor.dtype == torch.bfloat16:
        values = torch.from_numpy(np.ascontiguousarray(array).view(np.uint16)).view(torch.bfloat16)
    else:
        values = torch.from_numpy(np.ascontiguousarray(array))
    tensor.copy_(values.reshape(tensor.shape))


def _bfloat16() -> Any:
    """NumPy dtype of bfloat16, which comes with JAX but not with torch."""
    try:
        from ml_dtypes import bfloat16
    except ImportError as error:
        raise MissingDependencyError(
            "perturbing bfloat16 weights needs the package ml_dtypes: pip install ml_dtypes"
        ) from error
    return bfloat16


class _Slot:
    """One set of buffers: a copy on the device, a pinned copy on the host, and their events."""

    def __init__(self, leaves: Sequence[Tensor], devices: Iterable[torch.device]) -> None:
        self.staged = [torch.empty(leaf.shape, dtype=leaf.dtype, device=leaf.device) for leaf in leaves]
        self.pinned = [torch.empty(leaf.shape, dtype=leaf.dtype, pin_memory=True) for leaf in leaves]
        self.arrays = [host_view(pinned) for pinned in self.pinned]
        self.events = {device: torch.cuda.Event() for device in devices}

    def wait(self) -> None:
        """Block until the host copy is complete."""
        for event in self.events.values():
            event.synchronize()


class CudaReader:
    """Copy states from CUDA devices while training continues.

    Notes
    -----
    The state is first cloned on the device, in the stream of the training: at device bandwidth this takes about a
    hundredth of the transfer, and then the training may overwrite its weights in any way, with or without an optimiser.
    A separate stream then transfers the clone to pinned memory during the next passes. This needs two copies of the
    state on the device, because one may still be in transfer when the next is taken.
    """

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        self.devices = sorted({leaf.device for leaf in leaves if leaf.device.type == "cuda"}, key=str)
        self.streams = {device: torch.cuda.Stream(device) for device in self.devices}
        with torch.inference_mode(False):  # buffers created in inference mode are read-only outside it
            self.slots = [_Slot(leaves, self.devices) for _ in range(2)]
        self.turn = 0

    def read(self, leaves: Sequence[Tensor]) -> Pending:
        """Start the copy of a state."""
        slot = self.slots[self.turn]
        self.turn = 1 - self.turn
        with torch.no_grad():
            for device in self.devices:
                training = torch.cuda.current_stream(device)
                # The clone below must not overwrite a slot that is still in transfer.
                training.wait_event(slot.events[device])
                mine = [i for i, leaf in enumerate(leaves) if leaf.device == device]
                torch._foreach_copy_([slot.staged[i] for i in mine], [leaves[i].detach() for i in mine])
                side = self.streams[device]
                side.wait_stream(training)
                with torch.cuda.stream(side):
                    for i in mine:
                        slot.pinned[i].copy_(slot.staged[i], non_blocking=True)
                    slot.events[device].record(side)
            for pinned, leaf in zip(slot.pinned, leaves, strict=True):
                if leaf.device.type != "cuda":
                    pinned.copy_(leaf.detach())
        return Pending(slot.arrays, slot.wait)

    def fits(self, leaves: Sequence[Tensor]) -> bool:
        """Whether a state has the memory layout of the first one."""
        return all(a.device == b.device for a, b in zip(self.slots[0].staged, leaves, strict=True))


class HostReader:
    """Read states as host arrays in the cheapest way for their device."""

    def __init__(self) -> None:
        self._cuda: CudaReader | None = None
        self._addresses: list[tuple[Any, ...]] = []
        self._views: list[np.ndarray] = []

    def read(self, leaves: Sequence[Tensor]) -> list[np.ndarray] | Pending:
        """Read one state."""
        if any(leaf.is_cuda for leaf in leaves):
            if self._cuda is None or not self._cuda.fits(leaves):
                self._cuda = CudaReader(leaves)
            return self._cuda.read(leaves)
        if not all(leaf.is_cpu for leaf in leaves):
            # Other accelerators (mps, xpu) share no stream interface: use a blocking copy.
            return [host_view(leaf.cpu()) for leaf in leaves]
        # Creating a view costs more than copying a small layer. An existing view shows the current weights as long as
        # they have the same address; holding it prevents reuse of that address.
        addresses = [(leaf.data_ptr(), leaf.stride(), leaf.shape, leaf.dtype) for leaf in leaves]
        if addresses != self._addresses:
            self._addresses, self._views = addresses, [host_view(leaf) for leaf in leaves]
        return list(self._views)


def squared_gaps(members: Sequence[Tensor]) -> Any:
    """Squared Euclidean distance of each later member from the first, (M - 1,) float64: on the device, or an array."""
    first, *others = [member.detach().reshape(-1) for member in members]
    if first.is_cpu:
        if first.dtype in (torch.float32, torch.float64):
            return planting.squared_gaps(first.numpy(), [other.numpy() for other in others])
        pieces = (slice(at, at + planting.CACHED) for at in range(0, first.numel(), planting.CACHED))
        wide = ([member[piece].float().numpy() for member in (first, *others)] for piece in pieces)
        return sum((planting.squared_gaps(one, rest) for one, *rest in wide), np.zeros(len(others)))
    gap = torch.stack(others) - first
    widest = torch.float32 if gap.device.type == "mps" else torch.float64  # mps has no float64
    return (
        torch.linalg.vector_norm(gap, dim=1, dtype=widest)
        .to("cpu" if gap.device.type == "mps" else gap.device)
        .double()
        .square()
    )


def distances(
    mappings: Sequence[Mapping[str, Tensor]], names: Iterable[str], references: Sequence[int], metric: str
) -> np.ndarray:
    """Compute the distances of members to their references on their device."""
    result = np.full(len(references), np.nan)
    names = list(names)

    def member(i: int, name: str) -> Tensor:
        leaf = mappings[0][name][i] if len(mappings) == 1 else mappings[i][name]
        return leaf.detach().double()

    for i, reference in enumerate(references):
        if reference < 0:
            continue
        gaps = [(member(i, name) - member(reference, name)).abs() for name in names]
        if metric == "linf":
            result[i] = max(float(gap.max()) for gap in gaps if gap.numel())
        elif metric == "l1":
            result[i] = float(torch.stack([gap.sum() for gap in gaps]).sum())
        else:
            squares = float(torch.stack([gap.square().sum() for gap in gaps]).sum())
            entries = sum(gap.numel() for gap in gaps)
            result[i] = (squares / entries if metric == "rms" else squares) ** 0.5
    return result
