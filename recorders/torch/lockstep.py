"""Gradients of M copies of a network on one common batch: vectorised where that is safe, else one after the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from recorders.torch.modules import trainable

PROBES = 16
"""Draws of the check that equal members get equal bits: a draw missed at most 13 of 16 times where they do not."""

ELEMENTWISE = frozenset(
    getattr(torch.optim, name)
    for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta", "Adagrad", "RMSprop", "Rprop", "ASGD")
)
"""Optimisers whose update of an entry depends on that entry alone, so that one of them can hold all members."""


@contextmanager
def same_noise(devices: Iterable[torch.device]) -> Iterator[Callable[[], None]]:
    """Let several passes draw the same random numbers."""
    start = (torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002 (the user's global state)
    elsewhere = [(device, _device_generator(device).get_rng_state(*_which(device))) for device in devices]

    def rewind() -> None:
        torch.set_rng_state(start[0])
        np.random.set_state(start[1])  # noqa: NPY002
        random.setstate(start[2])
        for device, state in elsewhere:
            _device_generator(device).set_rng_state(state, *_which(device))

    yield rewind


def _device_generator(device: torch.device) -> Any:
    """The module of torch that holds the generator of a device: torch.cuda, torch.mps, ..."""
    return getattr(torch, device.type)


def _which(device: torch.device) -> tuple[torch.device, ...]:
    """The argument that tells devices of one kind apart; mps has one only and takes none."""
    return () if device.type == "mps" else (device,)


def devices_of(tensors: Iterable[Tensor]) -> list[torch.device]:
    """Give the devices besides the CPU that tensors live on."""
    return list({tensor.device for tensor in tensors if not tensor.is_cpu})


def call(model: nn.Module, x: Any) -> Any:
    """Call a model on one input, a tuple of arguments or a dict of keywords."""
    if isinstance(x, dict):
        return model(**x)
    return model(*x) if isinstance(x, tuple) else model(x)


def stack(models: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Lay the trainable parameters of equal models side by side, and let the models look into that storage.

    Parameters
    ----------
    models : sequence of torch.nn.Module
        M copies of one model, owned by the caller.

    Returns
    -------
    dict of str to Tensor, each of shape (M, ...)
        Leaves that require gradients. ``models[i]`` sees every later change of row i, and the other way round.
    """
    rows = [trainable(model) for model in models]
    stacked = {}
    for name in rows[0]:
        whole = torch.stack([row[name].detach() for row in rows])
        for i, row in enumerate(rows):
            row[name].data = whole[i]
        stacked[name] = whole.requires_grad_()
    return stacked


def losses_at_once(model: nn.Module, loss_fn: Callable[..., Tensor], stacked: dict[str, Tensor], batch: Any) -> Tensor:
    """Losses of all members in one vectorised pass, every member under the same random numbers."""
    x, *targets = batch

    def one(parameters: dict[str, Tensor]) -> Tensor:
        arguments, keywords = ((), x) if isinstance(x, dict) else (x if isinstance(x, tuple) else (x,), {})
        return scalar(loss_fn(functional_call(model, parameters, arguments, keywords), *targets))

    return vmap(one, randomness="same")(stacked)


def why_not_at_once(
    model: nn.Module, loss_fn: Callable[..., Tensor], stacked: dict[str, Tensor], batch: Any
) -> tuple[str, str]:
    """Find out on one batch whether the vectorised pass does to every member what a pass of its own would do.

    Notes
    -----
    The second is no rarity. An elementwise kernel treats the end of an array, where it does not fill a SIMD register,
    by other instructions than the rest; with several members in one array that end belongs to the last of them.
    Sigmoid, GELU, SiLU and others then round the members differently, and d(t) = 0 is lost for epsilon = 0.
    """
    scratch = deepcopy(model)
    buffers = {name: buffer.clone() for name, buffer in scratch.named_buffers()}
    with same_noise(devices_of(stacked.values())) as rewind:
        with torch.no_grad():
            loss_fn(call(scratch, batch[0]), *batch[1:])
        rewind()
        after = dict(scratch.named_buffers())
        changed = [name for name, old in buffers.items() if not torch.equal(old, after[name])]
        if changed:
            return f"a forward pass changes the buffer {changed[0]!r}, and each member needs its own", ""
        try:
            uneven = _rounds_unevenly(scratch, loss_fn, stacked, batch)
        except Exception as error:
            # Whatever vmap cannot trace (.item(), recurrent kernels, ...) has its own exception type; all mean: loop.
            return f"torch.func.vmap cannot do it ({type(error).__name__}: {str(error).splitlines()[0][:200]})", ""
        finally:
            rewind()
    return "", uneven


def _rounds_unevenly(model: nn.Module, loss_fn: Callable[..., Tensor], stacked: dict[str, Tensor], batch: Any) -> str:
    """Give equal parameters to all members, several times, and compare what comes out bit by bit."""
    generator = torch.Generator().manual_seed(0)
    for draw in range(PROBES):
        equal = {}
        for name, values in stacked.items():
            row = values.detach()[0]
            if draw:
                factor = 1 + 0.3 * torch.randn(row.shape, generator=generator, dtype=torch.float32)
                row = row * factor.to(row)
            equal[name] = row.expand_as(values).clone().requires_grad_()
        with torch.enable_grad():
            losses = losses_at_once(model, loss_fn, equal, batch)
            gradients = torch.autograd.grad(losses.sum(), list(equal.values()), allow_unused=True)
        for found in (losses, *gradients):
            if found is not None and not _same_rows(found):
                return "vectorised kernels round equal members differently for batches of this shape"
    return ""


def _same_rows(values: Tensor) -> bool:
    """Whether all rows hold the same numbers; NaN equals NaN."""
    first = values[:1].expand_as(values)
    return bool(((values == first) | (values.isnan() & first.isnan())).all())


def gradients_one_by_one(
    models: Sequence[nn.Module], loss_fn: Callable[..., Tensor], stacked: dict[str, Tensor], batch: Any
) -> Tensor:
    """Losses and gradients of the members one after the other; the gradients are left in ``stacked[name].grad``."""
    losses, rows = [], []
    with same_noise(devices_of(stacked.values())) as rewind:
        for i, model in enumerate(models):
            if i:
                rewind()
            loss = scalar(loss_fn(call(model, batch[0]), *batch[1:]))
            rows.append(torch.autograd.grad(loss, list(trainable(model).values()), allow_unused=True))
            losses.append(loss.detach())
    for (name, values), column in zip(stacked.items(), zip(*rows, strict=True), strict=True):
        given = [gradient for gradient in column if gradient is not None]
        if given and len(given) < len(column):
            # One optimiser over all members cannot leave some of them alone, as a plain training would.
            raise RuntimeError(
                f"parameter {name!r} got a gradient in {len(given)} of {len(column)} members: they took different "
                "paths through the model. Pass vectorize=False, which gives each member an optimiser of its own"
            )
        values.grad = torch.stack(given) if given else None
    return torch.stack(losses)


def clip(stacked: dict[str, Tensor], max_norm: float) -> None:
    """Scale the gradient of every member down to a norm, as `torch.nn.utils.clip_grad_norm_` does for one model."""
    gradients = [values.grad for values in stacked.values() if values.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    factors = (max_norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.to(gradient).reshape(-1, *[1] * (gradient.ndim - 1)))


def scalar(loss: Tensor) -> Tensor:
    """Check that a loss is one number for one member."""
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        came = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"loss_fn(output, *targets) gave {came}; it must give one number: take the mean or the sum")
    return loss


def one_optimizer(models: Sequence[nn.Module], stacked: dict[str, Tensor], optimizer: Any) -> Any:
    """Build one optimiser over the stacked parameters, with the groups of the one made for a single member."""
    whole = {id(row): stacked[name] for name, row in trainable(models[0]).items()}
    groups = []
    for group in optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        groups.append({**settings, "params": [whole[id(p)] for p in group["params"] if id(p) in whole]})
    return type(optimizer)(groups)
