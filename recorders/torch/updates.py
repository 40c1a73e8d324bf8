"""Steps of torch's optimisers as pure functions of weights, gradients and buffers, to be differentiated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trajtools.errors import ArchitectureError

Update = Callable[[Tensor, Tensor, Sequence[Tensor]], tuple[Tensor, list[Tensor]]]


@dataclass(frozen=True)
class Rule:
    """How the next step of an optimiser changes one weight tensor.

    Attributes
    ----------
    names : tuple of str
        Its buffers, as the optimiser calls them.
    update : callable
        ``update(weight, gradient, buffers)`` -> (weight, buffers) after the step; pure, entry by entry.
    """

    names: tuple[str, ...]
    update: Update


def rule(optimizer: Any, group: dict[str, Any], state: dict[str, Any]) -> Rule:
    """Read off an optimiser how its next step changes a weight."""
    made = _KNOWN.get(type(optimizer))
    if made is None:
        raise ArchitectureError(
            f"the step of {type(optimizer).__name__} is not known as a function that can be differentiated: tangent "
            f"exponents go through {', '.join(sorted(kind.__name__ for kind in _KNOWN))}. For any other optimiser "
            "take twins (recorders.torch.Twins), or recorders.jax with its optax counterpart"
        )
    return made(optimizer, group, state)


def _sgd(optimizer: Any, group: dict[str, Any], state: dict[str, Any]) -> Rule:
    del optimizer
    momentum, rate = group["momentum"], float(group["lr"])
    first = state.get("momentum_buffer") is None  # torch leaves the dampening out then

    def update(w: Tensor, g: Tensor, buffers: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        g = _signed(g, group) + group["weight_decay"] * w
        if not momentum:
            return w - rate * g, []
        v = momentum * buffers[0] + (1.0 if first else 1 - group["dampening"]) * g
        return w - rate * (g + momentum * v if group["nesterov"] else v), [v]

    return Rule(("momentum_buffer",) if momentum else (), update)


def _adam(optimizer: Any, group: dict[str, Any], state: dict[str, Any]) -> Rule:
    rate, (beta1, beta2), decay = float(group["lr"]), map(float, group["betas"]), float(group["weight_decay"])
    step = float(state.get("step", 0.0)) + 1
    apart = group.get("decoupled_weight_decay", isinstance(optimizer, torch.optim.AdamW))

    def update(w: Tensor, g: Tensor, buffers: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        g = _signed(g, group)
        if apart:
            w = w * (1 - rate * decay)
        else:
            g = g + decay * w
        m = beta1 * buffers[0] + (1 - beta1) * g
        v = beta2 * buffers[1] + (1 - beta2) * g * g
        after, largest = [m, v], v
        if group["amsgrad"]:
            largest = torch.maximum(buffers[2], v)
            after.append(largest)
        scale = _root(largest) / (1 - beta2**step) ** 0.5 + group["eps"]
        return w - rate / (1 - beta1**step) * m / scale, after

    return Rule(("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ())), update)


def _rmsprop(optimizer: Any, group: dict[str, Any], state: dict[str, Any]) -> Rule:
    del optimizer, state
    rate, alpha, momentum = float(group["lr"]), group["alpha"], group["momentum"]
    names = ["square_avg", *(["grad_avg"] if group["centered"] else []), *(["momentum_buffer"] if momentum else [])]

    def update(w: Tensor, g: Tensor, buffers: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        g = _signed(g, group) + group["weight_decay"] * w
        v = alpha * buffers[0] + (1 - alpha) * g * g
        after, spread = [v], v
        if group["centered"]:
            mean = alpha * buffers[1] + (1 - alpha) * g
            after.append(mean)
            spread = v - mean * mean
        change = g / (_root(spread) + group["eps"])
        if momentum:
            change = momentum * buffers[-1] + change
            after.append(change)
        return w - rate * change, after

    return Rule(tuple(names), update)


_KNOWN: dict[type, Callable[[Any, dict[str, Any], dict[str, Any]], Rule]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.RMSprop: _rmsprop,
}


def _signed(gradient: Tensor, group: dict[str, Any]) -> Tensor:
    return -gradient if group["maximize"] else gradient


def _root(squares: Tensor) -> Tensor:
    """Square root with the derivative 0 at 0, where a weight has never had a gradient and sqrt has none."""
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)
