"""Find the learning rate to take and the edge of chaos of a torch training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from recorders.edge import (
    BLOCK,
    EPSILONS,
    FIRST,
    VECTORS,
    CommonBatches,
    Edge,
    ExponentsUnknown,
    TangentVectors,
    burn_of,
    check_rates,
    check_seeds,
    check_steps,
    search,
    start,
)
from recorders.torch.hessian import Objective, Slope
from recorders.torch.modules import call, devices_of, refuse_sharded, same_noise, scalar, trainable, unwrap
from recorders.torch.tangents import KNOWN, Tangents
from trajtools.errors import DataError
from trajtools.types import Floats, RealArrayLike

Factory = Callable[[Any, float], torch.optim.Optimizer]


def find_edge(
    model: nn.Module | Callable[[int], nn.Module],
    data: Iterable[Any],
    loss_fn: Callable[..., Tensor],
    optimizer: Factory | torch.optim.Optimizer,
    *,
    rates: RealArrayLike | None = None,
    steps: int = 320,
    seeds: int | Iterable[int] = 1,
    exponents: bool = True,
    scheduler_factory: Callable[[Any], Any] | None = None,
    max_norm: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Edge:
    """Recommend a learning rate by a race of short trainings, and locate the edge of chaos.

    Parameters
    ----------
    model : torch.nn.Module, or callable
        The network with its current weights, which is not modified; or ``model(seed)`` -> module, called with the
        generators seeded, for other initial weights for every seed.
    data : iterable of batches
        A `DataLoader` or a list; each batch a tuple ``(x, *targets)``, or a dict of keywords of the model. Taken as
        needed, moved to the device of the model, and repeated if there are fewer than `steps`.
    loss_fn : callable
        ``loss_fn(model(x), *targets)`` -> scalar Tensor. For dict batches ``loss_fn(model(**batch))``.
    optimizer : callable or torch.optim.Optimizer
        ``optimizer(parameters, rate)`` creates the optimiser; or an optimiser whose type and settings are copied, with
        another rate and without its state.
    rates : (float, float), sequence of float, or None
        None: 1e-4 to 10, three per decade, and further where the best rate is at an end. A pair: the ends of a range.
    steps : int
        Most steps of a copy. The race ends earlier: once the loss has fallen to a tenth of its start, or to 0.7 of it
        after 80 steps (160 if several rates are as good).
    seeds : int or sequence of int
        Number of seeds, or the seeds. Without a function `model`, they differ in the order of the batches and in the
        noise; seed 0 has the order of the data and, with a module, the current state of the generators.
    exponents : bool
        Whether to measure exponents and locate the edge of chaos; False costs nothing for it.
    scheduler_factory : callable or None
        ``scheduler_factory(optimizer)`` -> scheduler, stepped after each update.
    max_norm : float or None
        Clip gradients to this norm, as in the training.
    progress : callable or None
        ``progress(done, total)`` in gradients; the total is an estimate until the end.

    Returns
    -------
    Edge
        Both answers with reasons, doubts, curves and cost; ``print(edge)``, ``edge.plot()``.

    Raises
    ------
    DataError
        If there are no batches, an argument is invalid, or the loss is not finite before the first update.
    ArchitectureError
        If the model is sharded or has no trainable parameters.


    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(-1, 1, 16).double()[:, None]
    >>> model = torch.nn.Linear(1, 1).double()
    >>> loss_fn, options = torch.nn.functional.mse_loss, {"steps": 20, "exponents": False}
    >>> edge = find_edge(model, [(x, 2 * x)], loss_fn, torch.optim.SGD, rates=[0.01, 0.1, 10.0], **options)
    >>> edge.recommended
    0.1
    """
    tried, numbers, most = check_rates(rates), check_seeds(seeds), check_steps(steps)
    _check(model, data, loss_fn, optimizer)
    with same_noise(_all_devices(model)) as rewind:
        try:
            copies = Copies(
                model,
                data,
                loss_fn,
                _factory(optimizer),
                scheduler_factory=scheduler_factory,
                max_norm=max_norm,
                seeds=numbers,
            )
            return search(
                copies, rates=tried, seeds=numbers, steps=most, exponents=exponents, progress=progress,
                settings={"max_norm": max_norm, "scheduler": scheduler_factory is not None},
            )  # fmt: skip
        finally:
            rewind()


class Training:
    """One copy of the model with its optimiser, scheduler and state of the generators."""

    def __init__(self, copies: Copies, model: nn.Module, rate: float, loss_fn: Callable[..., Tensor]) -> None:
        self.model, self.loss_fn, self._max_norm = model, loss_fn, copies.max_norm
        self.optimizer = copies.factory(list(trainable(model).values()), rate)
        self.scheduler = copies.scheduler_factory(self.optimizer) if copies.scheduler_factory else None
        self.noise: Callable[[], None] | None = None
        self.gradients = 0

    def step(self, batch: tuple[Any, ...]) -> float:
        """Make one update and return the loss before it."""

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = scalar(self.loss_fn(call(self.model, batch[0]), *batch[1:]))
            loss.backward()
            if self._max_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self._max_norm)
            self.gradients += 1
            return loss.detach()

        with torch.enable_grad():
            loss = float(self.optimizer.step(closure))
        if self.scheduler is not None:
            self.scheduler.step()
        return loss

    def loss(self, batch: tuple[Any, ...]) -> float:
        """Loss without an update, and without dropout and the like."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        with torch.no_grad():
            loss = float(scalar(self.loss_fn(call(self.model, batch[0]), *batch[1:])))
        for module, mode in modes:
            module.training = mode
        return loss

    def nonzero(self) -> int:
        """Number of nonzero entries in the gradient."""
        return sum(int(torch.count_nonzero(p.grad)) for p in trainable(self.model).values() if p.grad is not None)


class Copies:
    """Trainings from the same weights on the same batches, see `recorders.edge.Copies`."""

    def __init__(
        self,
        model: nn.Module | Callable[[int], nn.Module],
        data: Iterable[Any],
        loss_fn: Callable[..., Tensor],
        factory: Factory,
        *,
        scheduler_factory: Callable[[Any], Any] | None,
        max_norm: float | None,
        seeds: tuple[int, ...],
    ) -> None:
        self.factory, self.scheduler_factory, self.max_norm = factory, scheduler_factory, max_norm
        self.gradients, self.exponents_from = 0, ""
        self._loss_fn = loss_fn
        self._models, self._noise = {}, {}
        for seed in seeds:
            if seed or not isinstance(model, nn.Module):
                _seed_all(seed)
            made = model if isinstance(model, nn.Module) else model(seed)
            refuse_sharded(made)
            self._models[seed] = unwrap(made)
            weights = trainable(self._models[seed]).values()
            self._devices = devices_of(weights)
            with same_noise(self._devices) as rewind:
                self._noise[seed] = rewind
        device = next(iter(weights)).device
        self.batches = CommonBatches(data, lambda batch: _placed(batch, device))
        self._trainings: dict[tuple[float, int], Training] = {}
        self._losses: dict[tuple[float, int], list[float]] = {}
        self._nonzero: dict[tuple[float, int], list[int]] = {}

    def train(self, rate: float, seed: int, stop: int) -> Floats:
        """Continue a copy and return all its losses."""
        key = rate, seed
        losses = self._losses.setdefault(key, [])
        batches = self.batches.upto(stop, seed)
        if key not in self._trainings:
            self._trainings[key] = Training(self, deepcopy(self._models[seed]), rate, self._loss_fn)
            self._trainings[key].noise = self._noise[seed]
        training = self._trainings[key]
        before = training.gradients
        if training.noise is not None:
            training.noise()
        for batch in batches[len(losses) : stop]:
            if losses and not np.isfinite(losses[-1]):
                break
            losses.append(training.step(batch))
            if len(losses) == 1:
                self._nonzero[key] = [training.nonzero(), 0]
        with same_noise(self._devices) as rewind:
            training.noise = rewind
        self._nonzero[key][1] = training.nonzero()
        self.gradients += training.gradients - before
        return np.array(losses)

    def active(self, rate: float, seed: int) -> float:
        """Nonzero entries in the last gradient over those in the first; 0 where there are none in either."""
        first, last = self._nonzero[rate, seed]
        return last / max(first, 1)

    def release(self, rate: float) -> None:
        """Free the copies at a rate."""
        for key in [key for key in self._trainings if key[0] == rate]:
            del self._trainings[key]

    def train_apart(
        self, rate: float, seed: int, batches: Sequence[Any], parts: Sequence[Any], at: Collection[int]
    ) -> tuple[Floats, Floats]:
        """Train a copy on other batches; its losses, and those on the parts after so many steps."""
        training = Training(self, deepcopy(self._models[seed]), rate, self._loss_fn)
        losses, apart = np.full(len(batches), np.inf), np.full((len(at), len(parts)), np.inf)
        self._noise[seed]()
        points = {steps: k for k, steps in enumerate(at)}
        for t, batch in enumerate(batches, start=1):
            losses[t - 1] = training.step(batch)
            if not np.isfinite(losses[t - 1]):
                break
            if t in points:
                apart[points[t]] = [training.loss(part) for part in parts]
        self.gradients += training.gradients + apart.size // 3  # a loss is a third of a gradient
        return losses, apart

    def grow(self, rate: float, seed: int, steps: int) -> tuple[Floats, Floats]:
        """Growth of tangent vectors or shadows, (steps, VECTORS), and losses."""
        if self.exponents_from == "":
            first = Training(self, deepcopy(self._models[seed]), rate, self._loss_fn)
            known = type(first.optimizer) in KNOWN and self.max_norm is None
            self.exponents_from = "tangent vectors" if known else "float64 shadows"
        if self.exponents_from == "tangent vectors":
            try:
                growth, losses = zip(
                    *(self._follow(rate, seed, steps, double) for double in (False, True)), strict=True
                )
                return np.hstack(growth), losses[0]
            except (RuntimeError, TypeError):  # an operation without a second derivative, or without float64
                self.exponents_from = "float64 shadows"
        try:
            return self._shadow(rate, seed, steps)
        except (RuntimeError, TypeError) as error:
            first_line = str(error).strip().partition("\n")[0][:200]
            raise ExponentsUnknown(f"the training does not run in float64 ({first_line})") from error

    def _replica(self, seed: int, rate: float, *, double: bool) -> Training:
        """Copy of the training, in float64 or in its own dtype."""
        model, loss_fn = deepcopy(self._models[seed]), self._loss_fn
        if double:
            model = model.double()
            loss_fn = deepcopy(loss_fn).double() if isinstance(loss_fn, nn.Module) else loss_fn
        return Training(self, model, rate, loss_fn)

    def _follow(self, rate: float, seed: int, steps: int, double: bool) -> tuple[Floats, Floats]:
        """Growth of one tangent vector along the training, or of the others along its replica; and the losses."""
        copy = self._replica(seed, rate, double=double)
        jacobian = Tangents(copy.model, copy.loss_fn, copy.optimizer, vectors="kept")
        blocks = range(1, VECTORS) if double else range(1)
        growth, losses = np.full((steps, len(blocks)), np.nan), np.full(steps, np.nan)
        self._noise[seed]()
        for t, batch in enumerate(self.batches.upto(steps, seed)):
            placed = tree_map(_as_double, batch) if double else batch
            if t == FIRST:
                curve = self._curve(copy, placed)
                starts = [start(k, jacobian.n_weights, curve, BLOCK) for k in blocks]
                vectors = TangentVectors(jacobian.n_state, starts, burn_of(steps) - FIRST)
            if t >= FIRST:
                columns = vectors.columns
                images = jacobian.images(columns, *placed)
                self.gradients += 1 + columns.shape[1]  # of the derivative, and a product for each vector
            losses[t] = copy.step(placed)
            self.gradients += 1
            if not np.isfinite(losses[t]):
                break
            if t >= FIRST:
                growth[t] = vectors.advance(images)
        return growth, losses

    def _curve(self, copy: Training, batch: tuple[Any, ...], norm: float = 0.0) -> Callable[[Floats], Floats]:
        """Product of the Hessian with a vector; with a norm of the weights, from a difference of gradients."""
        objective = Objective(copy.model, copy.loss_fn)

        def product(direction: Floats) -> Floats:
            self.gradients += 2
            with objective.noise() as rewind:
                if not norm:
                    return objective.flat(Slope(objective, batch).times(objective.unflat(direction)))
                weights = objective.weights()
                first = objective.flat(objective.gradient(weights, batch)[1])
                rewind()
                offset = objective.unflat(EPSILONS[0] * norm * direction)
                moved = [weight + part for weight, part in zip(weights, offset, strict=True)]
                return objective.flat(objective.gradient(moved, batch)[1]) - first

        return product

    def _shadow(self, rate: float, seed: int, steps: int) -> tuple[Floats, Floats]:
        """Growth of shadows of the float64 replica, at two distances in different directions; and its losses."""
        copies = [self._replica(seed, rate, double=True) for _ in range(1 + len(EPSILONS))]
        weights = list(trainable(copies[0].model).values())
        norm = float(torch.sqrt(sum((w.detach().square().sum() for w in weights), torch.zeros(()))))
        sizes = [epsilon * norm for epsilon in EPSILONS]
        growth, losses = np.full((steps, len(EPSILONS)), np.nan), np.full(steps, np.nan)
        noise = self._noise[seed]
        for t, batch in enumerate(self.batches.upto(steps, seed)):
            placed = tree_map(_as_double, batch)
            if t == FIRST:
                noise()
                curve = self._curve(copies[0], placed, norm)
                for k, (size, copy) in enumerate(zip(sizes, copies[1:], strict=True)):
                    moved = list(trainable(copy.model).values())
                    _displace(moved, size * start(k, sum(w.numel() for w in moved), curve)[:, 0])
            at = []
            for copy in copies:
                noise()
                at.append(copy.step(placed))
            losses[t] = at[0]
            if not np.isfinite(at).all():
                break
            with same_noise(self._devices) as rewind:
                noise = rewind
            self.gradients += len(copies)
            if t >= FIRST:
                growth[t] = [_draw_back(copies[0], copy, size) for copy, size in zip(copies[1:], sizes, strict=True)]
        return growth, losses


@torch.no_grad()
def _displace(weights: list[Tensor], offset: Floats) -> None:
    """Move weights by a flat vector."""
    cuts = torch.as_tensor(offset).split([w.numel() for w in weights])
    for weight, cut in zip(weights, cuts, strict=True):
        weight.add_(cut.reshape(weight.shape).to(weight))


@torch.no_grad()
def _draw_back(reference: Training, shadow: Training, size: float) -> float:
    """Rescale weights, buffers and optimiser state of a shadow to its first distance; return its growth."""
    pairs = list(zip(trainable(reference.model).values(), trainable(shadow.model).values(), strict=True))
    length = float(torch.sqrt(sum(((b - a).square().sum() for a, b in pairs), torch.zeros((), dtype=torch.float64))))
    if not (length > 0 and np.isfinite(length)):
        return float("nan") if not np.isfinite(length) else float("-inf")
    rest = list(zip(reference.model.buffers(), shadow.model.buffers(), strict=True))
    for one, other in pairs:
        states = reference.optimizer.state.get(one, {}), shadow.optimizer.state.get(other, {})
        for name, value in states[0].items():
            if not torch.is_tensor(value) or value.numel() == 1:
                continue
            if value.shape != one.shape:
                raise ExponentsUnknown(
                    f"the state {name!r} of {type(reference.optimizer).__name__} does not belong to single weights"
                )
            rest.append((value, states[1][name]))
    for one, other in (*pairs, *rest):
        if one.is_floating_point():
            positive = bool((one >= 0).all()) and bool((other >= 0).all())
            other.copy_(one + (other - one) * (size / length))
            if positive:
                other.clamp_(min=0)
    return float(np.log(length / size))


def _as_double(value: Any) -> Any:
    return value.double() if torch.is_tensor(value) and value.is_floating_point() else value


def _placed(batch: tuple[Any, ...], device: torch.device) -> tuple[Any, ...]:
    """Batch on a device; mappings such as those of tokenizers as dicts, which are keywords of the model."""
    plain = tuple(dict(part) if isinstance(part, Mapping) else part for part in batch)
    return tuple(tree_map(lambda value: value.to(device) if torch.is_tensor(value) else value, part) for part in plain)


def _all_devices(model: Any) -> list[torch.device]:
    if isinstance(model, nn.Module):
        return devices_of(model.parameters())
    return [torch.device("cuda")] if torch.cuda.is_available() else []


def _seed_all(seed: int) -> None:
    """Seed the generators that a model or a forward pass may draw from; the caller restores them."""
    import random

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the user's global generator)
    random.seed(seed)


def _check(model: Any, data: Any, loss_fn: Any, optimizer: Any) -> None:
    """Refuse arguments in another order, and functions of other arguments."""
    if not isinstance(model, nn.Module) and not _takes(model, 1):
        raise DataError("model must be a module, or a function model(seed) that creates one: lambda seed: Net()")
    if not isinstance(data, Iterable):
        raise DataError(f"data must be batches, a DataLoader or a list, got {type(data).__name__}")
    if not callable(loss_fn):
        raise DataError(f"loss_fn must be a function loss_fn(model(x), *targets), got {type(loss_fn).__name__}")
    if not isinstance(optimizer, torch.optim.Optimizer) and not _takes(optimizer, 2):
        raise DataError(
            "optimizer must be an optimiser or a function optimizer(parameters, rate), since every rate is tried: "
            "lambda params, lr: torch.optim.SGD(params, lr=lr)"
        )


def _takes(function: Any, count: int) -> bool:
    """Whether a function can be called with so many arguments, as far as is known."""
    try:
        signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # no signature
        return callable(function)
    return True


def _factory(optimizer: Factory | torch.optim.Optimizer) -> Factory:
    """Return a factory of optimisers like this one."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        return optimizer
    kind = type(optimizer)
    if len(optimizer.param_groups) != 1:
        raise DataError(
            f"the optimiser has {len(optimizer.param_groups)} parameter groups; pass a function "
            "optimizer(parameters, rate) that creates it"
        )
    known = signature(kind).parameters
    settings = {key: value for key, value in optimizer.param_groups[0].items() if key in known and key != "params"}
    return lambda parameters, rate: kind(parameters, **(settings | {"lr": rate}))
