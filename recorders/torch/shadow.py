"""Shadows of a torch training run: curvature and local exponents for one extra gradient per step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from recorders import shadows
from recorders.shadows import ROUNDOFF, CurvatureRule, own_ascent, random_direction, read
from recorders.torch.hessian import LossFunction, Objective
from recorders.torch.modules import call, devices_of, innermost, same_noise, scalar
from trajtools.errors import ArchitectureError, DataError

Numbers = tuple[float, float, float]


class Shadow(shadows.Shadow):
    """Copies of a network at a small distance, trained on the same batches and rescaled after every step.

    Parameters
    ----------
    model : torch.nn.Module
        The network in training; not modified.
    loss_fn : callable
        ``loss_fn(model(x), *targets)`` -> scalar Tensor.
    optimizer : torch.optim.SGD or None
        Optimiser of the training, with or without momentum; the forward copy follows its rule. Not needed for the
        reverse copy alone.
    directions : sequence of {"forward", "reverse"}
        "forward": local exponent and h_min; "reverse": h_max. One extra gradient per step each.
    epsilon : float or None
        Distance of the copies, 2-norm over all trained weights. None: sqrt(roundoff) times the norm of the weights at
        the first step (float64: 1e-8 of it; float32: 2e-4 of it).
    ascent : float or None
        Length of the uphill step of the reverse copy, in the unit of a learning rate. None: ``|d| / |q|``, which is 1 /
        h_max once the copy is aligned.
    window : int or None
        Steps between fresh offsets of the forward copy. None: never.
    of : {"batch", "subset", "full"}
        Extent of the data, for the names of the metrics: "full" if every batch is the whole training set.
    seed : int
        Seed of the first offsets; no torch generator is used.

    Raises
    ------
    ArchitectureError
        If the forward copy is used and the optimiser is not `torch.optim.SGD` or trains no part of this model.
    DataError, UnknownNameError
        If an argument is invalid.

    Notes
    -----
    Call `backward` instead of ``loss.backward()``; or keep the loop and call `step` before the forward pass of the
    batch, which costs one more gradient. See `recorders.shadows` for the meaning and names of the numbers. Offset of
    the momentum buffers: d_v' = mu d_v + (1 - dampening) (q + wd d), d' = d - eta d_v' (Nesterov as in torch); lengths
    are taken over (d, eta d_v) together. Gradient clipping and scaling are ignored.

    The weights of a copy are theta + d rounded to their dtype; d is corrected accordingly. A step with gradients that
    are not finite, or with weights too large for the offset, counts as lost (`n_lost`): its numbers are NaN, and the
    copies restart.

    Examples
    --------
    >>> model = nn.Linear(2, 1, bias=False)
    >>> opt = torch.optim.SGD(model.parameters(), lr=0.01)
    >>> shadow = Shadow(model, nn.MSELoss(), opt, of="full")
    >>> for _ in range(20):
    ...     opt.zero_grad()
    ...     loss = shadow.backward(torch.tensor([[3.0, 1.0]]), torch.zeros(1, 1))
    ...     opt.step()
    >>> round(shadow.h_max, 2)
    20.0
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        optimizer: Any = None,
        *,
        directions: Sequence[str] = ("forward", "reverse"),
        epsilon: float | None = None,
        ascent: float | None = None,
        window: int | None = None,
        of: str = "batch",
        seed: int = 0,
    ) -> None:
        self._model, self._loss_fn = model, loss_fn
        self._objective = Objective(model, loss_fn)
        roundoff = max(ROUNDOFF[weight.element_size()] for weight in self._objective.weights())
        super().__init__(directions, epsilon=epsilon, ascent=ascent, window=window, of=of, roundoff=roundoff)
        self._optimizer = innermost(optimizer)
        self._moved = Moves.of(self._objective, self._optimizer, "forward" in self.directions)
        self._seed, self._draws = seed, dict.fromkeys(self.directions, 0)
        self._offsets: dict[str, list[Tensor]] = {}
        self._momenta: list[Tensor] = []

    # -- public methods

    def backward(self, x: Any, *targets: Any) -> Tensor:
        """Compute the loss of a batch and its gradients, like ``loss.backward()``, and advance the copies.

        Parameters
        ----------
        x : Tensor, tuple or dict
            Input of the model: one argument, several, or keywords.
        *targets : object
            Arguments of the loss function after the output.

        Returns
        -------
        Tensor of shape ()
            The loss, detached; the ``.grad`` of the parameters is bit-identical to that without a shadow.

        Notes
        -----
        Call it between ``optimizer.zero_grad()`` and ``optimizer.step()``. The copies use the same dropout masks.
        """
        batch = (x, *targets)
        devices = devices_of(self._objective.weights())
        parameters = self._objective.parameters()
        before = [None if p.grad is None else p.grad.clone() for p in parameters]
        with same_noise(devices) as to_the_start:
            loss = scalar(self._loss_fn(call(self._model, x), *targets))
            loss.backward()
            gradients = [_added(p, old) for p, old in zip(parameters, before, strict=True)]
            with same_noise(devices) as to_the_end:
                try:
                    self._follow(batch, gradients, to_the_start)
                finally:
                    to_the_end()
        return loss.detach()

    def step(self, x: Any, *targets: Any, gradients: Iterable[Tensor] | None = None) -> dict[str, float]:
        """Advance the copies on a batch, for loops with their own forward and backward passes.

        Parameters
        ----------
        x : Tensor, tuple or dict
            Input of the model: one argument, several, or keywords.
        *targets : object
            Arguments of the loss function after the output.
        gradients : iterable of Tensor, or None
            Gradient of this batch at the current weights, one per trainable parameter, not clipped, scaled or
            accumulated. None: computed here, which costs one more pass.

        Returns
        -------
        dict of str to float
            See `metrics`.

        Notes
        -----
        Call it before ``optimizer.step()``, and before the forward pass of the batch if the model draws random numbers
        (dropout), so that the copies draw the same. The generators are restored.
        """
        batch = (x, *targets)
        with self._objective.noise() as rewind:
            if gradients is None:
                _, at_weights = self._objective.gradient(self._objective.weights(), batch)
                self.n_gradients += 1
            else:
                at_weights = [gradient.detach() for gradient in gradients]
            self._follow(batch, at_weights, rewind)
        return self.metrics

    # -- one step

    def _follow(self, batch: tuple[Any, ...], gradients: list[Tensor], rewind: Any) -> None:
        """Advance every copy by its own gradient of the batch."""
        weights = self._objective.weights()
        size = math.sqrt(_inner(weights, weights))
        epsilon = self._choose_epsilon(size)
        if self._window is not None and self.n_steps % self._window == 0:
            self._offsets.pop("forward", None)
        for direction in self.directions:
            if direction not in self._offsets:
                self._begin(direction, epsilon)
            rewind()
            elsewhere = [w + d for w, d in zip(weights, self._offsets[direction], strict=True)]
            _, at_copy = self._objective.gradient(elsewhere, batch)
            self.n_gradients += 1
            d = [e - w for e, w in zip(elsewhere, weights, strict=True)]
            q = [one - other for one, other in zip(at_copy, gradients, strict=True)]
            reading = self._move(direction, d, q, epsilon)
            self._note(direction, reading)
            if reading is None:
                del self._offsets[direction]
            if direction == "forward":
                self._judge(self._moved.rate, self._moved.momentum, size)
        self.n_steps += 1

    def _move(self, direction: str, d: list[Tensor], q: list[Tensor], epsilon: float) -> Numbers | None:
        """Advance and rescale one copy, and return growth and curvature; None if not finite."""
        products = _inner(d, d), _inner(d, q), _inner(q, q)
        if products[0] == 0.0 and self.n_steps:
            return None  # diverging weights exceed the resolution of the offset
        if products[0] == 0.0:
            self._refuse_rounded(epsilon)
        was = products[0]
        if direction == "forward":
            rates = self._moved.rates()
            was += _inner(self._momenta, self._momenta, rates)
            d, momenta = self._moved.apply(d, q, self._momenta)
            now = _inner(d, d) + _inner(momenta, momenta, rates)
        else:
            ascent = self._ascent
            step = float(own_ascent(np, was, products[2])) if ascent is None else ascent
            d, momenta = [one + step * other for one, other in zip(d, q, strict=True)], []
            now = _inner(d, d)
        if not (math.isfinite(now) and math.isfinite(products[2])):
            return None
        with np.errstate(divide="ignore"):  # eta h = 1 along the offset: ln 0
            reading = read(np, products, was, np.float64(now))
        if now == 0.0:
            self._begin(direction, epsilon)
            return reading
        back = epsilon / math.sqrt(now)
        self._offsets[direction] = [back * one for one in d]
        if direction == "forward":
            self._momenta = [back * one for one in momenta]
        return reading

    def _begin(self, direction: str, epsilon: float) -> None:
        """Draw a fresh offset in the weights that the optimiser updates."""
        direction_vector = random_direction(self._objective.n, self._seed, direction, self._draws[direction])
        self._draws[direction] += 1
        offset = self._objective.unflat(direction_vector)
        if direction == "forward":
            offset = [d if moved else torch.zeros_like(d) for d, moved in zip(offset, self._moved.groups, strict=True)]
            self._momenta = [torch.zeros_like(d) for d in offset] if self._moved.momentum else []
            self._floor.afresh()
        scale = epsilon / math.sqrt(_inner(offset, offset))
        self._offsets[direction] = [scale * d for d in offset]


class CurvatureLR(LRScheduler):
    """Scheduler of the learning rate c / h_max, from the reverse shadow of the training.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its rate is set. Groups with different rates keep their ratios: the largest is c / h_max.
    shadow : Shadow
        Shadow of the same training, with the reverse copy; the loop advances it.
    c : float
        Rate times smoothed h_max: 1 is the Newton step of the steepest direction, 2 the limit of plain SGD.
    smoothing : float
        Weight of the past in the exponential mean of h_max; 0: none.
    lowest, highest : float
        Bounds of the rate.
    warm_up : int
        Updates at the rate of the optimiser, while the shadow aligns with the steepest direction.
    interval : int
        Updates between later changes of the rate.

    Raises
    ------
    DataError
        If the shadow has no reverse copy, or an argument is invalid.

    Notes
    -----
    Call ``step`` once per update, after ``optimizer.step()``, like any scheduler: the curvature at the weights before
    the update sets the rate of the next one. Curvatures that are not positive and finite are ignored. For an optimiser
    that scales its steps otherwise (Adam), 1 / h_max is not the length of a Newton step.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> opt = torch.optim.SGD(model.parameters(), lr=0.01)
    >>> shadow = Shadow(model, torch.nn.MSELoss(), directions=("reverse",))
    >>> schedule = CurvatureLR(opt, shadow, warm_up=10)
    >>> for _ in range(20):
    ...     opt.zero_grad()
    ...     loss = shadow.backward(torch.tensor([[3.0, 1.0]]), torch.zeros(1, 1))
    ...     opt.step()
    ...     schedule.step()
    >>> round(opt.param_groups[0]["lr"], 3)  # h_max = 20
    0.05
    """

    def __init__(
        self,
        optimizer: Any,
        shadow: Shadow,
        *,
        c: float = 1.0,
        smoothing: float = 0.9,
        lowest: float = 0.0,
        highest: float = math.inf,
        warm_up: int = 20,
        interval: int = 1,
    ) -> None:
        if "reverse" not in shadow.directions:
            raise DataError(
                'this shadow has no reverse copy, which measures h_max: Shadow(..., directions=("reverse",))'
            )
        self.rule = CurvatureRule(c, smoothing, lowest, highest, warm_up, interval)
        self.shadow = shadow
        self.smoothed = math.nan
        self._last_step = -1
        self._rate = max(float(group["lr"]) for group in optimizer.param_groups)
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """Rates of the groups for the next update; torch calls this once per ``step``.

        Returns
        -------
        list of float
            One rate per group.
        """
        if self.shadow.n_steps != max(self._last_step, 0):  # a new curvature is available
            self._last_step = self.shadow.n_steps
            self.smoothed = float(self.rule.smooth(np, self.smoothed, self.shadow.h_max, self.last_epoch))
            self._rate = float(self.rule.rate(np, self._rate, self.smoothed, self.last_epoch))
        largest = max(map(float, self.base_lrs))
        return [self._rate * float(base) / largest if largest > 0 else self._rate for base in self.base_lrs]

    @property
    def metrics(self) -> dict[str, Any]:
        """For ``rec.record(**schedule.metrics)``: ``curvature_rate`` and ``curvature_smoothed``, c / rate unclipped."""
        return {"curvature_rate": self._rate, "curvature_smoothed": self.smoothed}

    def state_dict(self) -> dict[str, Any]:
        """State without the optimiser and the shadow.

        Returns
        -------
        dict
            For ``load_state_dict``.
        """
        return {name: value for name, value in super().state_dict().items() if name not in ("shadow", "rule")}


@dataclass(frozen=True)
class Moves:
    """Motion of an offset under SGD, with the current settings of every weight.

    Attributes
    ----------
    groups : list of dict or None
        The parameter group of each weight; None for weights that the optimiser does not update.
    parameters : list of torch.nn.Parameter
        The weights as parameters of the optimiser.
    optimizer : torch.optim.SGD or None
        The optimiser of the training.
    """

    groups: list[dict[str, Any] | None]
    parameters: list[Any]
    optimizer: Any = None

    @classmethod
    def of(cls, objective: Objective, optimizer: Any, required: bool) -> Moves:
        """Match the weights of a model with the groups of an optimiser."""
        if not required:
            return cls([None] * len(objective.names), [])
        if type(optimizer) is not torch.optim.SGD:
            raise ArchitectureError(
                "the forward shadow follows torch.optim.SGD, with or without momentum; got "
                f"{_named(optimizer)}. Use tangent_exponents, which supports other optimisers, "
                'or directions=("reverse",), which needs none'
            )
        owner = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        groups = [owner.get(id(p)) for p in objective.parameters()]
        if not any(group is not None for group in groups):
            raise ArchitectureError(
                "the optimiser trains no parameter of this model: create it from model.parameters() of the same model"
            )
        return cls(groups, objective.parameters(), optimizer)

    @property
    def rate(self) -> float:
        """The largest learning rate."""
        return max((float(group["lr"]) for group in self.groups if group is not None), default=math.nan)

    @property
    def momentum(self) -> bool:
        """Whether any weight has momentum."""
        return any(group is not None and group["momentum"] != 0 for group in self.groups)

    def rates(self) -> list[float]:
        """Learning rate of each weight; 0 for fixed ones."""
        return [0.0 if group is None else float(group["lr"]) for group in self.groups]

    def apply(self, d: list[Tensor], q: list[Tensor], v: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Advance an offset by one step, exactly the difference of two SGD steps."""
        new_d, new_v = [], []
        for i, group in enumerate(self.groups):
            if group is None:
                new_d.append(d[i])
                new_v.extend(v[i : i + 1])
                continue
            change = (-q[i] if group["maximize"] else q[i]) + group["weight_decay"] * d[i]
            if v and group["momentum"] != 0:
                buffer = group["momentum"] * v[i] + self._undamped(i, group) * change
                new_v.append(buffer)
                change = change + group["momentum"] * buffer if group["nesterov"] else buffer
            else:
                new_v.extend(v[i : i + 1])
            new_d.append(d[i] - float(group["lr"]) * change)
        return new_d, new_v

    def _undamped(self, i: int, group: dict[str, Any]) -> float:
        """Factor of the gradient in the buffer; torch omits the dampening in the first step."""
        begun = self.optimizer.state.get(self.parameters[i], {}).get("momentum_buffer") is not None
        return 1 - float(group["dampening"]) if begun else 1.0


def _named(optimizer: Any) -> str:
    return "no optimiser" if optimizer is None else type(optimizer).__name__


def _added(parameter: nn.Parameter, old: Tensor | None) -> Tensor:
    """Contribution of the last backward pass to ``.grad``."""
    if parameter.grad is None:
        return torch.zeros_like(parameter)
    return parameter.grad.detach().clone() if old is None else parameter.grad.detach() - old


def _inner(a: Sequence[Tensor], b: Sequence[Tensor], weights: Sequence[float] | None = None) -> float:
    """Inner product over all weights, summed in float64; `weights` are factors of both."""
    factors = weights if weights is not None else [1.0] * len(a)
    parts = [f * f * (x * y).sum(dtype=torch.float64) for f, x, y in zip(factors, a, b, strict=False)]
    return float(sum(part.item() for part in parts))
