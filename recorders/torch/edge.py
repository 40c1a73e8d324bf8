"""Find the edge of chaos of a torch training run, and recommend a learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recorders.edge import Edge, check_counts, check_rates, first_batches, judge, shadow_distance, train
from recorders.shadows import random_direction
from recorders.torch.modules import devices_of, refuse_sharded, same_noise, trainable, unwrap
from recorders.torch.twins import ELEMENTWISE, clip, gradients_one_by_one, losses_at_once, stack, why_not_at_once
from trajtools.errors import ArchitectureError, DataError
from trajtools.types import RealArrayLike

Factory = Callable[[Any, float], torch.optim.Optimizer]


def find_edge(
    model: nn.Module,
    data: Iterable[Any],
    loss_fn: Callable[..., Tensor],
    optimizer: Factory | torch.optim.Optimizer,
    *,
    rates: RealArrayLike = (1e-3, 10.0),
    points: int = 12,
    steps: int = 100,
    shadows: int = 1,
    epsilon: float | None = None,
    max_norm: float | None = None,
    seed: int = 0,
    vectorize: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Edge:
    """Locate the onset of chaos over learning rates from short training runs, and recommend a rate.

    Parameters
    ----------
    model : torch.nn.Module
        The network with its current weights; not modified.
    data : iterable of batches
        A `DataLoader` or a list; each batch a tuple ``(x, *targets)``. Repeated if shorter than `steps`. All rates use
        the same batches.
    loss_fn : callable
        ``loss_fn(model(x), *targets)`` -> scalar Tensor.
    optimizer : callable or torch.optim.Optimizer
        ``optimizer(parameters, rate)`` creates the optimiser; or an optimiser whose type and settings are copied, with
        another rate and without its state.
    rates : (float, float) or sequence of float
        Ends of a geometric range, or the rates.
    points : int
        Number of rates in the range.
    steps : int
        Updates at each rate.
    shadows : int
        Shadow copies per rate, which measure the exponent; each costs one gradient per step.
    epsilon : float or None
        Distance of the shadows, 2-norm over all weights. None: sqrt(roundoff) times the norm of the weights.
    max_norm : float or None
        Clip gradients to this norm, as in the training.
    seed : int
        Seed of the directions of the shadows.
    vectorize : bool or None
        Compute all copies in one vectorised pass; None: if the model allows it.
    progress : callable or None
        ``progress(done, total)`` after each step.

    Returns
    -------
    Edge
        Onset and recommendation with reasons, curves and cost; ``print(edge)``, ``edge.plot()``.

    Raises
    ------
    ArchitectureError
        If the model is sharded or has no trainable parameters.
    DataError
        If there are no batches, or an argument is invalid.

    Notes
    -----
    Weights, gradients, buffers and mode of the model do not change; the global generators of torch, numpy and Python
    are restored. A separate generator of the loader advances.

    Shadows are rescaled together with the buffers of the optimiser, so the exponent is that of the full state under
    momentum or Adam. It is a finite-time exponent of the first `steps` updates from these weights: another
    initialisation, or late training, can have its edge elsewhere. Each rate costs ``steps * (1 + shadows)`` gradients.

    References
    ----------
    .. [1] Jimenez-Gonzalez, Soriano and Lacasa, arXiv:2506.08523 (2025): training is fastest at the onset of chaos.
       `Edge.reasons` states whether this holds here.
    """
    check_counts(points=points, steps=steps, shadows=shadows)
    refuse_sharded(model)
    model = unwrap(model)
    trained = trainable(model)
    tried = check_rates(rates, points)
    placed: dict[str, Any] = {"shadows": shadows, "epsilon": epsilon, "max_norm": max_norm, "seed": seed}
    with same_noise(devices_of(trained.values())) as rewind:
        batches = first_batches(data, steps)
        rewind()
        ensemble = Ensemble(model, loss_fn, _factory(optimizer), tried, **placed)
        ensemble.vectorise(vectorize, batches[0])
        growth, losses = train(ensemble.step, batches, steps=steps, n_rates=len(tried), progress=progress)
        rewind()
    settings = {
        "steps": steps, "points": len(tried), "shadows": shadows, "epsilon": ensemble.epsilon, "seed": seed,
        "max_norm": max_norm, "vectorized": ensemble.vectorized, "why_not": ensemble.why_not, "batches": len(batches),
    }  # fmt: skip
    cost = steps * len(tried) * (1 + shadows)
    return judge(tried, growth, losses, gradients=cost, settings=settings)


class Ensemble:
    """References and shadows at every rate, trained in lock-step."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[..., Tensor],
        factory: Factory,
        rates: Any,
        *,
        shadows: int,
        epsilon: float | None,
        max_norm: float | None,
        seed: int,
    ) -> None:
        self._loss_fn, self._max_norm = loss_fn, max_norm
        self._size = 1 + shadows
        self._models = [deepcopy(model) for _ in range(len(rates) * self._size)]
        self._stacked = stack(self._models)
        self.epsilon = self._place_shadows(epsilon, shadows, seed)
        # Rows of the stacked weights are separate leaves in the same storage, with one optimiser per rate.
        self._parts = [
            {name: values.data[self._rows(r)].requires_grad_() for name, values in self._stacked.items()}
            for r in range(len(rates))
        ]
        self._optimizers = [factory(list(p.values()), float(rate)) for p, rate in zip(self._parts, rates, strict=True)]
        odd = type(self._optimizers[0])
        if odd not in ELEMENTWISE:
            supported = ", ".join(sorted(kind.__name__ for kind in ELEMENTWISE))
            raise DataError(f"{odd.__name__} cannot train several copies in one array; find_edge supports {supported}")
        self.vectorized, self.why_not = False, ""

    def _rows(self, r: int) -> slice:
        return slice(r * self._size, (r + 1) * self._size)

    def _place_shadows(self, epsilon: float | None, shadows: int, seed: int) -> float:
        """Place every shadow at the same distance, in the same directions for every rate."""
        first = [values.detach()[0] for values in self._stacked.values()]
        norm = float(torch.sqrt(sum(((w.double() ** 2).sum() for w in first), torch.zeros((), dtype=torch.float64))))
        size = shadow_distance(epsilon, norm, (w.element_size() for w in first))
        sizes = [w.numel() for w in first]
        for k in range(shadows):
            cuts = torch.as_tensor(size * random_direction(sum(sizes), seed, "forward", k)).split(sizes)
            for values, cut in zip(self._stacked.values(), cuts, strict=True):
                values.data[1 + k :: self._size] += cut.reshape(values.shape[1:]).to(values)
        return size

    def vectorise(self, requested: bool | None, batch: Any) -> None:
        """Choose between one vectorised pass and one pass per copy."""
        if requested is not False:
            self.why_not, _ = why_not_at_once(self._models[0], self._loss_fn, self._stacked, batch)
        self.vectorized = requested is not False and not self.why_not
        if requested and self.why_not:
            raise ArchitectureError(f"vectorize=True, but {self.why_not}; use None")

    def step(self, batch: Any) -> tuple[Any, Any]:
        """Update all copies once and rescale the shadows."""
        losses = self._gradients(batch)
        for r, (part, optimizer) in enumerate(zip(self._parts, self._optimizers, strict=True)):
            for name, values in part.items():
                whole = self._stacked[name].grad
                values.grad = None if whole is None else whole[self._rows(r)]
            if self._max_norm is not None:
                clip(part, self._max_norm)
            optimizer.step()
        growth = list(map(self._draw_back, self._parts, self._optimizers))
        return losses.detach().double().cpu().numpy()[:: self._size], np.array(growth)

    def _gradients(self, batch: Any) -> Tensor:
        if not self.vectorized:
            return gradients_one_by_one(self._models, self._loss_fn, self._stacked, batch)
        with torch.enable_grad():
            losses = losses_at_once(self._models[0], self._loss_fn, self._stacked, batch)
            gradients = torch.autograd.grad(losses.sum(), list(self._stacked.values()), allow_unused=True)
        for values, gradient in zip(self._stacked.values(), gradients, strict=True):
            values.grad = gradient
        return losses

    @torch.no_grad()
    def _draw_back(self, part: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> float:
        """Rescale the shadows of one rate to epsilon, in weights and buffers."""
        square = sum((_offset(v).double().flatten(1) ** 2).sum(dim=1) for v in part.values())
        length = torch.sqrt(torch.as_tensor(square))
        growth = float(torch.log(length / self.epsilon).mean())
        factor = torch.where(length > 0, self.epsilon / length, torch.ones_like(length))
        if torch.isfinite(factor).all():
            for values in part.values():
                _shrink(values.data, factor)
                for buffer in optimizer.state.get(values, {}).values():
                    if torch.is_tensor(buffer) and buffer.shape == values.shape:
                        _shrink(buffer, factor)
        return growth


def _offset(values: Tensor) -> Tensor:
    return values[1:] - values[:1]


def _shrink(values: Tensor, factor: Tensor) -> None:
    """Scale the offsets of shadows from their reference; non-negative values (mean squares) stay non-negative."""
    shape = (-1, *[1] * (values.ndim - 1))
    positive = bool((values >= 0).all())
    values[1:] = values[:1] + _offset(values) * factor.to(values).reshape(shape)
    if positive:
        values.clamp_(min=0)


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
    settings = {key: value for key, value in optimizer.param_groups[0].items() if key in optimizer.defaults}
    return lambda parameters, rate: kind(parameters, **(settings | {"lr": rate}))
