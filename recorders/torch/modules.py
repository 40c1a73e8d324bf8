"""The parameters of a torch module: names, aliases, kinds and axes. Read-only."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from ctypes import string_at
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from recorders.adapter import Role
from recorders.wiring import ATTENTION, BLOCKS, LAYER, STACKS, Rules, adds, chain, wire
from trajtools.errors import ArchitectureError
from trajtools.wiring import Ends, listed

NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    *((nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ()),
)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

BIAS = Role("bias", -1, 0)


def unwrap(model: nn.Module) -> nn.Module:
    """Unwrap a module from torch.compile and data parallelism."""
    if not isinstance(model, nn.Module):
        raise ArchitectureError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    shells = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    while True:
        if isinstance(model, shells):
            model = model.module
        elif "_orig_mod" in model._modules:  # getattr would cost a caught exception at every state
            model = model._modules["_orig_mod"]
        else:
            return model


def clean(name: str) -> str:
    """Strip what torch.compile adds to the names of compiled submodules."""
    return name.replace("_orig_mod.", "")


def refuse_sharded(model: nn.Module) -> None:
    """Raise if this process does not hold all parameters of a model."""
    refuse_unreadable(model)
    sharded = [name for name, parameter in model.named_parameters() if hasattr(parameter, "device_mesh")]
    if sharded or any(type(module).__name__.startswith("FSDP") for module in model.modules()):
        raise ArchitectureError(
            f"the model is sharded over processes ({listed(sharded, 3) or type(model).__name__}), and this needs "
            "the whole model in one process; for twins make copies by `perturb` before it is sharded, shard each of "
            "them, and record the list with Recorder(..., store='distances')"
        )


def refuse_unreadable(model: nn.Module) -> None:
    """Raise if the parameters of a model have no values here."""
    for module in model.modules():
        if any(cls.__name__ == "FullyShardedDataParallel" for cls in type(module).__mro__):
            raise ArchitectureError(
                "the model is wrapped in FullyShardedDataParallel, which hides its parameters. Shard it with "
                "torch.distributed.fsdp.fully_shard (FSDP2): each rank then records its part"
            )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ArchitectureError(
                f"parameter {name!r} is lazy and has no shape yet: run one batch through the model before the recorder "
                "opens"
            )
        if parameter.is_meta:
            raise ArchitectureError(
                f"parameter {name!r} is on the meta device and has no values: materialise the model with "
                ".to_empty(device=...) first"
            )


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """List the parameters that make up the state: trainable ones, tied ones once, in the module's order."""
    parameters = {clean(name): parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not parameters:
        raise ArchitectureError(
            f"{type(model).__name__} has no parameter with requires_grad=True: there is no state to record. "
            "Open the recorder after the layers to be trained have been unfrozen"
        )
    return parameters


def describe(model: nn.Module) -> dict[str, list[str] | dict[str, str]]:
    """List the parameters outside the state: frozen ones and aliases of tied ones."""
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        original = first.setdefault(id(parameter), clean(name))
        if original != clean(name):
            aliases[clean(name)] = original
    frozen = [clean(name) for name, parameter in model.named_parameters() if not parameter.requires_grad]
    return {"frozen": frozen, "aliases": aliases}


def roles(model: nn.Module) -> dict[str, Role]:
    """Return the role of every parameter, from the type of its module."""
    owners = {
        clean(f"{prefix}.{name}" if prefix else name): (module, name)
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }
    result = {}
    for name, parameter in trainable(model).items():
        module, short = owners[name]
        result[name] = _role(module, short, parameter)
    return result


def _role(module: nn.Module, name: str, parameter: nn.Parameter) -> Role:
    """What the parameter `name` of `module` is."""
    if isinstance(module, NORMS) or type(module).__name__.endswith(("RMSNorm", "LayerNorm")):
        return Role("norm")
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return BIAS if name.startswith("bias") else Role("recurrent", 1, 0)
    if "bias" in name:
        return BIAS if parameter.ndim == 1 else Role("bias")
    if not name.endswith("weight"):
        # weight_g and the like: parts of a parametrized kernel
        return Role("other")
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return Role("embedding", 0, 1)
    if isinstance(module, CONVOLUTIONS + TRANSPOSED):
        # A grouped kernel names its channels only within the group: no axis runs over all source units.
        if module.groups != 1:
            return Role("conv")
        return Role("conv", 0, 1) if isinstance(module, TRANSPOSED) else Role("conv", 1, 0)
    if isinstance(module, nn.Linear | nn.MultiheadAttention):
        return Role("dense", 1, 0)
    if type(module).__name__ == "Conv1D" and parameter.ndim == 2:
        # The transformers package writes dense layers as (source, target) under this name.
        return Role("dense", 0, 1)
    return Role("other")


def wiring(model: nn.Module) -> dict[str, Ends | None] | None:
    """Return what the kernels of a network with attention or residual blocks connect; None for a mere chain."""
    stacks: dict[str, tuple[Rules, str]] = {}
    for raw, module in model.named_modules():
        prefix = clean(f"{raw}.").rstrip(".")
        around, _, _ = prefix.rpartition(".")
        known = STACKS.get(type(module).__name__)
        if known is not None:
            stacks[prefix] = known, f"{prefix}:residual" if prefix else "residual"
        elif isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
            # The layers of a stack, and of a Sequential, share the stream.
            outer = model.get_submodule(raw.rpartition(".")[0]) if "." in raw else model
            shared = isinstance(outer, nn.Sequential) or around.rpartition(".")[2] == "layers"
            owner = around if shared else prefix
            stacks[prefix] = LAYER, f"{owner}:residual" if owner else "residual"
        elif isinstance(module, nn.MultiheadAttention) and not any(
            prefix.startswith(f"{one}." if one else "") for one in stacks
        ):
            stacks[prefix] = ATTENTION, ""
    if stacks:
        return wire(roles(model), stacks)
    blocks = [
        clean(name)
        for name, module in model.named_modules()
        if BLOCKS.search(type(module).__name__) and adds(type(module).forward)
    ]
    shapes = {name: tuple(parameter.shape) for name, parameter in trainable(model).items()}
    return chain(roles(model), shapes, blocks) if blocks else None


class Walk:
    """Repeated reading of the state of a module: like `trainable`, but walks the module only after changes."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._names = frozenset(trainable(model))
        self._scan()

    def _scan(self) -> None:
        """Record every entry of the module tree, to detect changes."""
        places = [
            (module._parameters, key, child)
            for module in self.model.modules()
            for key, child in module._parameters.items()
        ]
        places += [
            (module._modules, key, child) for module in self.model.modules() for key, child in module._modules.items()
        ]
        self._places = places
        self._counts = [(module._parameters, len(module._parameters)) for module in self.model.modules()]
        self._counts += [(module._modules, len(module._modules)) for module in self.model.modules()]
        every = {clean(name): parameter for name, parameter in self.model.named_parameters()}
        self._named = {name: parameter for name, parameter in every.items() if name in self._names}
        self._outside = {name: parameter for name, parameter in every.items() if name not in self._names}

    def named(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the state."""
        if self._has_changed():
            self._scan()
        return self._named

    @property
    def is_incomplete(self) -> bool:
        """Whether a parameter of the state is gone."""
        return len(self._named) < len(self._names)

    def unfrozen(self) -> list[str]:
        """Return the names of parameters that train now and are not in the state."""
        return [name for name, parameter in self._outside.items() if parameter.requires_grad]

    def _has_changed(self) -> bool:
        """Whether a layer or a parameter was replaced, added or removed."""
        for place, key, child in self._places:
            if place.get(key) is not child:
                return True
        return any(len(place) != count for place, count in self._counts)


@contextmanager
def same_noise(devices: Iterable[torch.device]) -> Iterator[Callable[[], None]]:
    """Yield a function that restores the random generators, so that several passes draw the same numbers."""
    start = (torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate())  # noqa: NPY002 (the user's)
    words = _numpy_words()
    elsewhere = [(device, _device_generator(device).get_rng_state(*_which(device))) for device in devices]

    def rewind() -> None:
        torch.set_rng_state(start[0])
        # Writing takes numpy 50 microseconds for each member. Draws change the words, unless they take what is left of
        # a pair of normal numbers.
        if not words or start[1]["has_gauss"] or _numpy_words() != words:
            np.random.set_state(start[1])  # noqa: NPY002
        random.setstate(start[2])
        for device, state in elsewhere:
            _device_generator(device).set_rng_state(state, *_which(device))

    yield rewind


def _numpy_words() -> bytes:
    """Words of numpy's global Mersenne twister and the place among them; none of another generator."""
    generator = np.random.mtrand.get_bit_generator()
    if type(generator) is not np.random.MT19937:
        return b""
    return string_at(generator.ctypes.state_address, 4 * 625)


def _device_generator(device: torch.device) -> Any:
    """Module of torch with the generator of a device: torch.cuda, torch.mps, ..."""
    return getattr(torch, device.type)


def _which(device: torch.device) -> tuple[torch.device, ...]:
    """Device argument of the generator functions; none for mps."""
    return () if device.type == "mps" else (device,)


def devices_of(tensors: Iterable[Tensor]) -> list[torch.device]:
    """Devices of tensors other than the CPU."""
    return list({tensor.device for tensor in tensors if not tensor.is_cpu})


def call(model: nn.Module, x: Any) -> Any:
    """Call a model on one input, a tuple of arguments or a dict of keywords."""
    if isinstance(x, dict):
        return model(**x)
    return model(*x) if isinstance(x, tuple) else model(x)


def scalar(loss: Tensor) -> Tensor:
    """Check that a loss is one number for one member."""
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        shape = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"loss_fn(output, *targets) returned {shape}; it must be one number: take the mean or the sum")
    return loss


def innermost(optimizer: Any) -> Any:
    """Find the torch optimiser inside the wrappers of trainers."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    return optimizer
