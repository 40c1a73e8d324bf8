"""Tangent-space exponents of a torch training run, through the step of its optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recorders import tangents
from recorders.tangents import TangentExponents
from recorders.torch.hessian import LossFunction, Objective, Slope
from recorders.torch.modules import call, innermost, scalar, unwrap
from trajtools.errors import ArchitectureError, DataError
from trajtools.types import Floats

Update = Callable[[Tensor, Tensor, Sequence[Tensor]], tuple[Tensor, list[Tensor]]]


class Tangents(tangents.Tangents):
    """Tangent vectors along a training run: Benettin's method through the step of the optimiser.

    Parameters
    ----------
    model : torch.nn.Module
        The network in training; not modified.
    loss_fn : callable
        ``loss_fn(model(x), *targets)`` -> scalar Tensor.
    optimizer : torch.optim.Optimizer
        Optimiser of the training: SGD, Adam, AdamW or RMSprop. Its buffers belong to the state.
    k : int
        Number of vectors, hence of exponents.
    window : int
        Steps per window; each window starts with fresh vectors.
    vectors : {"both", "fresh", "kept"}
        Fresh vectors in each window, vectors kept from the start, or both.
    of : {"batch", "subset", "full"}
        Extent of the data, for the names of the metrics.
    seed : int
        Seed of the vectors; no torch generator is used.

    Raises
    ------
    ArchitectureError
        If the step of the optimiser is not supported, or it trains no part of this model.
    DataError, UnknownNameError
        If an argument is invalid.

    Notes
    -----
    A step costs a gradient and k Hessian-vector products (2 k for "both"). Fresh vectors are perturbations of the
    weights, and the exponents of a window are their growth in the weights; kept vectors live in (weights, buffers).
    Vectors are stored on the host in float64; products are computed in the dtype of the weights. Gradient clipping is
    ignored. See `recorders.tangents` for the use of windows.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> tangents = Tangents(model, torch.nn.functional.mse_loss, optimizer)
    >>> for _ in range(3):
    ...     loss = tangents.step(torch.eye(2).double(), torch.zeros(2, 1).double())
    >>> tangents.metrics.keys()
    dict_keys(['tangent_growth_batch', 'tangent_window_batch'])
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        optimizer: Any,
        *,
        k: int = 1,
        window: int = 100,
        vectors: str = "both",
        of: str = "batch",
        seed: int = 0,
    ) -> None:
        self._objective = Objective(model, loss_fn)
        self._optimizer = innermost(optimizer)
        owner = {id(p): group for group in self._optimizer.param_groups for p in group["params"]}
        self._groups = [owner.get(id(p)) for p in self._objective.parameters()]
        if not any(group is not None for group in self._groups):
            raise ArchitectureError(
                "the optimiser trains no parameter of this model: create it from model.parameters() of the same model"
            )
        self._sizes = [
            size for made, n in zip(self._rules(), self._objective.sizes, strict=True) for size in [n] * len(made.names)
        ]
        n_state = self._objective.n + sum(self._sizes)
        name = type(self._optimizer).__name__
        super().__init__(
            self._objective.n, n_state, k=k, window=window, vectors=vectors, of=of, seed=seed, optimizer=name
        )

    def step(self, x: Any, *targets: Any) -> dict[str, Any]:
        """Advance the vectors through the next step of the optimiser on a batch.

        Parameters
        ----------
        x : Tensor, tuple or dict
            Input of the model: one argument, several, or keywords.
        *targets : object
            Arguments of the loss function after the output.

        Returns
        -------
        dict of str to float or ndarray (k,)
            See `metrics`.

        Notes
        -----
        Call it before ``optimizer.step()``, and before the forward pass of the batch if the model draws random numbers
        (dropout), so that the vectors use the same. The generators are restored.
        """
        with self._objective.noise():
            slope = Slope(self._objective, (x, *targets))
        self._advance(lambda columns: self._push(slope, columns))
        return self.metrics

    # -- the Jacobian of a step

    def images(self, columns: Floats, x: Any, *targets: Any) -> Floats:
        """Multiply the Jacobian of the next step by vectors of the state; the vectors of `step` do not move.

        Parameters
        ----------
        columns : ndarray of float64, shape (n_state, m)
            Vectors of (weights, buffers).
        x : Tensor, tuple or dict
            Input of the model.
        *targets : object
            Arguments of the loss function after the output.

        Returns
        -------
        ndarray of float64, shape (n_state, m)
            Their images.
        """
        with self._objective.noise():
            slope = Slope(self._objective, (x, *targets))
        return self._push(slope, columns)

    def _rules(self) -> list[Rule]:
        """Update rules of the next step for each weight; weights outside the optimiser stay fixed."""
        state = self._optimizer.state
        return [
            Rule((), lambda w, g, buffers: (w, []))
            if group is None
            else rule(self._optimizer, group, state.get(parameter, {}))
            for group, parameter in zip(self._groups, self._objective.parameters(), strict=True)
        ]

    def _push(self, slope: Slope, columns: Floats) -> Floats:
        """Multiply the Jacobian of the next step by vectors of the state."""
        rules, weights, n = self._rules(), self._objective.weights(), self._objective.n
        vectors = [self._objective.unflat(column) for column in columns[:n].T]
        along = _stacked(vectors), _stacked([slope.times(vector) for vector in vectors])
        cuts = iter(torch.as_tensor(np.ascontiguousarray(columns[n:].T)).split(self._sizes, dim=1))
        new_weights, new_buffers = [], []
        for i, (step, buffers) in enumerate(zip(rules, self._buffers(rules, weights), strict=True)):
            rest = [next(cuts).to(buffer).reshape(-1, *buffer.shape) for buffer in buffers]
            images = _image(step, [weights[i], slope.gradient[i], *buffers], [along[0][i], along[1][i], *rest])
            new_weights.append(images[0])
            new_buffers.extend(images[1:])
        return np.concatenate(
            [part.reshape(columns.shape[1], -1).double().cpu().numpy().T for part in (*new_weights, *new_buffers)]
        )

    def _buffers(self, rules: list[Rule], weights: list[Tensor]) -> list[list[Tensor]]:
        """Current buffers of each weight; zero if the optimiser has none yet."""
        buffers = []
        for step, parameter, weight in zip(rules, self._objective.parameters(), weights, strict=True):
            state = self._optimizer.state.get(parameter, {})
            held = [state.get(name) for name in step.names]
            buffers.append([torch.zeros_like(weight) if buffer is None else buffer.detach() for buffer in held])
        return buffers


def tangent_exponents(
    model: nn.Module,
    loss_fn: LossFunction,
    optimizer: Any,
    batches: Iterable[Any],
    *,
    k: int = 1,
    window: int = 100,
    vectors: str = "both",
    discard: int = 0,
    level: float = 0.95,
    of: str = "batch",
    seed: int = 0,
) -> TangentExponents:
    r"""Lyapunov exponents of a training run, by Benettin's method through the step of the optimiser.

    Parameters
    ----------
    model : torch.nn.Module
        Start of the training. A copy is trained; the model is not modified.
    loss_fn : callable
        ``loss_fn(model(x), *targets)`` -> scalar Tensor.
    optimizer : torch.optim.Optimizer
        SGD, Adam, AdamW or RMSprop over the parameters of the model; a copy with its buffers makes the steps.
    batches : iterable of tuples
        ``(x, *targets)`` of each step; their number is the number of steps.
    k : int
        Number of exponents.
    window : int
        Steps per window; each window starts with fresh vectors.
    vectors : {"both", "fresh", "kept"}
        Fresh vectors in each window, vectors kept from the start, or both.
    discard : int
        Initial steps excluded from the exponents of the kept vectors.
    level : float
        Confidence level of the intervals.
    of : {"batch", "subset", "full"}
        Extent of the data, for the record.
    seed : int
        Seed of the vectors.

    Returns
    -------
    TangentExponents
        Exponents in nats per step.

    Raises
    ------
    ArchitectureError
        If the step of the optimiser is not supported, or it trains no part of this model.
    DataError, UnknownNameError
        If there are no batches, or an argument is invalid.

    Notes
    -----
    With F the step (a map of weights and buffers, on the batch of that step) and Q
    orthonormal, :math:`DF\,Q = Q' R` and :math:`\lambda_i = \langle \ln |R_{ii}| \rangle`. DF is applied by
    Hessian-vector products and the derivative of the update; for plain SGD it is :math:`1 - \eta H`.
    These are finite-time numbers of a driven system: consider `windows` together with `values`. `Tangents` follows an
    existing training loop.

    Examples
    --------
    >>> model = nn.Linear(1, 1, bias=False)
    >>> opt = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> batch = torch.ones(1, 1), torch.zeros(1, 1)
    >>> result = tangent_exponents(model, nn.MSELoss(), opt, [batch] * 100, window=50, of="full")
    >>> round(float(result.values[0]), 4), result.windows.round(4).ravel().tolist()  # ln |1 - 0.1 x 2|
    (-0.2231, [-0.2231, -0.2231])
    """
    model, optimizer = deepcopy((unwrap(model), innermost(optimizer)))
    follower = Tangents(model, loss_fn, optimizer, k=k, window=window, vectors=vectors, of=of, seed=seed)
    with follower._objective.noise():
        for batch in batches:
            x, *targets = batch if isinstance(batch, list | tuple) else (batch,)
            follower.step(x, *targets)
            optimizer.zero_grad()
            with torch.enable_grad():
                scalar(loss_fn(call(model, x), *targets)).backward()
            optimizer.step()
    if not follower._local:
        raise DataError("there are no batches: pass one for each step of the training")
    return follower.result(discard=discard, level=level)


@dataclass(frozen=True)
class Rule:
    """Update rule of the next step for one weight tensor.

    Attributes
    ----------
    names : tuple of str
        Names of its buffers in the optimiser.
    update : callable
        ``update(weight, gradient, buffers)`` -> (weight, buffers) after the step; pure, entry by entry.
    """

    names: tuple[str, ...]
    update: Update


def rule(optimizer: Any, group: dict[str, Any], state: dict[str, Any]) -> Rule:
    """Return the update rule of an optimiser for a weight."""
    made = KNOWN.get(type(optimizer))
    if made is None:
        raise ArchitectureError(
            f"the step of {type(optimizer).__name__} is not known as a differentiable function: tangent "
            f"exponents support {', '.join(sorted(kind.__name__ for kind in KNOWN))}. For any other optimiser "
            "use twins (recorders.torch.Twins), or recorders.jax with its optax counterpart"
        )
    return made(optimizer, group, state)


def _image(step: Rule, at: list[Tensor], along: list[Tensor]) -> list[Tensor]:
    """Derivative of the update of one weight along several tangents of (weight, gradient, buffers).

    Updates are entrywise, so the derivative of each entry is that of the sum of all entries.
    """
    leaves = [part.detach().requires_grad_() for part in at]
    with torch.enable_grad():
        weight, buffers = step.update(leaves[0], leaves[1], leaves[2:])
        sums = [after.sum() for after in (weight, *buffers)]
    images = []
    for total in sums:
        slopes = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
        images.append(
            sum((slope * part for slope, part in zip(slopes, along, strict=True)), torch.zeros_like(along[0]))
        )
    return images


def _stacked(vectors: list[list[Tensor]]) -> list[Tensor]:
    """Stack vectors along a leading axis, one tensor per weight."""
    return [torch.stack(column) for column in zip(*vectors, strict=True)]


def _sgd(optimizer: Any, group: dict[str, Any], state: dict[str, Any]) -> Rule:
    del optimizer
    momentum, rate = group["momentum"], float(group["lr"])
    first = state.get("momentum_buffer") is None  # torch omits the dampening then

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


KNOWN: dict[type, Callable[[Any, dict[str, Any], dict[str, Any]], Rule]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.RMSprop: _rmsprop,
}


def _signed(gradient: Tensor, group: dict[str, Any]) -> Tensor:
    return -gradient if group["maximize"] else gradient


def _root(squares: Tensor) -> Tensor:
    """Square root with derivative 0 at 0, for weights that never had a gradient."""
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)
