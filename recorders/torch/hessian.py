"""Curvature of the loss of a torch model at its weights, without side effects on training.

The functions `sharpness`, `hessian_vector_product`, `batch_sharpness`, `trace` and `spectral_density` are those of
`recorders.hessian.HessianProbes`; this module provides gradients and Hessian-vector products.

Every pass uses detached weights and copies of the buffers, through `torch.func.functional_call`, and restores the
random generators: weights, gradients, buffers, mode and generators do not change. A pass sees what training sees next:
the current mode (`model.train()` or `model.eval()`) and the dropout of the next forward pass; batch normalisation in
train mode uses the statistics of the batch, and its running averages do not change. State in plain attributes of
modules is not protected.

Examples
--------
>>> model, mse = nn.Linear(2, 1, bias=False), nn.MSELoss()
>>> x, y = torch.tensor([[3.0, 1.0]]), torch.zeros(1, 1)
>>> result = sharpness(model, mse, x, y, of="full")
>>> round(result.h_max, 4), abs(round(result.h_min, 4)), result.converged
(20.0, 0.0, True)
>>> hessian_vector_product(model, mse, [1.0, 0.0], x, y)
array([18.,  6.])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from recorders.hessian import HessianProbes, Precision, examples, of_length, pieces
from recorders.torch.modules import devices_of, innermost, refuse_sharded, same_noise, scalar, trainable, unwrap
from trajtools.errors import ArchitectureError, DataError
from trajtools.types import Floats

LossFunction = Callable[..., Tensor]


class Objective:
    """The loss of a model as a function of its trainable weights."""

    def __init__(self, model: nn.Module, loss_fn: LossFunction) -> None:
        refuse_sharded(model)
        self.model = unwrap(model)
        self.loss_fn = loss_fn
        trainable(self.model)  # raises without trainable parameters
        # functional_call needs the names of the modules, with the additions of torch.compile.
        self.names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        self.shapes = [tuple(weight.shape) for weight in self.weights()]
        self.sizes = [weight.numel() for weight in self.weights()]
        self.places = [(weight.device, weight.dtype) for weight in self.weights()]
        self.n = sum(self.sizes)

    def weights(self) -> list[Tensor]:
        """Current trainable weights in the order of a recorded state, detached but not copied."""
        return [parameter.detach() for parameter in self.parameters()]

    def parameters(self) -> list[nn.Parameter]:
        """Trainable parameters in the order of a recorded state."""
        named = dict(self.model.named_parameters())
        return [named[name] for name in self.names]

    def loss(self, weights: Sequence[Tensor], batch: tuple[Any, ...]) -> Tensor:
        """Evaluate the loss of one batch at other weights, with its graph."""
        x, *targets = batch
        arguments, keywords = ((), x) if isinstance(x, dict) else (x if isinstance(x, tuple) else (x,), {})
        state = dict(zip(self.names, weights, strict=True))
        state |= {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        try:
            return scalar(self.loss_fn(functional_call(self.model, state, arguments, keywords), *targets))
        except TypeError as error:
            error.add_note(
                "The loss is loss_fn(model(x), *targets). Here the model got "
                f"{len(arguments) + len(keywords)} argument(s) and the loss {len(targets)} target(s). Pass x and each "
                "target as arguments of their own, (..., x, y); a tuple as x is several arguments of the model."
            )
            raise

    def gradient(self, weights: Sequence[Tensor], batch: tuple[Any, ...]) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradient of one batch at other weights; generators advance as in one pass."""
        leaves = [weight.detach().requires_grad_() for weight in weights]
        with torch.enable_grad():
            loss = self.loss(leaves, batch)
            gradient = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        return loss.detach(), list(gradient)

    @contextmanager
    def noise(self) -> Iterator[Callable[[], None]]:
        """Yield a function that restores the random generators to their current state; also restored at the end."""
        with same_noise(devices_of(self.weights())) as rewind:
            try:
                yield rewind
            finally:
                rewind()

    def flat(self, tensors: Iterable[Tensor], dtype: torch.dtype = torch.float64) -> Floats:
        """Flatten tensors shaped like the weights to one new vector on the host."""
        parts = [tensor.detach().reshape(-1) for tensor in tensors]
        if len({part.device for part in parts}) > 1:
            parts = [part.cpu() for part in parts]
        return torch.cat(parts).to("cpu", dtype).numpy()

    def unflat(self, vector: Floats) -> list[Tensor]:
        """Split a vector into tensors with the shapes, dtypes and devices of the weights, as views where possible."""
        cuts = torch.from_numpy(np.ascontiguousarray(vector)).split(self.sizes)
        return [
            cut.view(shape).to(device, dtype)
            for cut, (device, dtype), shape in zip(cuts, self.places, self.shapes, strict=True)
        ]


class Slope:
    """Gradient of one batch with its graph, shared by many Hessian-vector products."""

    def __init__(self, objective: Objective, batch: tuple[Any, ...]) -> None:
        self.leaves = [weight.detach().requires_grad_() for weight in objective.weights()]
        # Fused attention kernels have no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            self.loss = objective.loss(self.leaves, batch)
            self.gradient = torch.autograd.grad(
                self.loss, self.leaves, create_graph=True, allow_unused=True, materialize_grads=True
            )

    def times(self, tangents: Sequence[Tensor]) -> list[Tensor]:
        """Multiply the Hessian by a vector."""
        curved = [(g, v) for g, v in zip(self.gradient, tangents, strict=True) if g.requires_grad]
        if not curved:  # a loss linear in all weights
            return [torch.zeros_like(leaf) for leaf in self.leaves]
        gradients, along = zip(*curved, strict=True)
        products = torch.autograd.grad(
            gradients, self.leaves, along, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return [product.detach() for product in products]


class Hessian:
    """Products of the Hessian of a loss with flat float64 vectors, on a batch or on `Batches`."""

    def __init__(self, model: nn.Module, loss_fn: LossFunction, batch: tuple[Any, ...]) -> None:
        self.objective = Objective(model, loss_fn)
        self.n = self.objective.n
        self.precision = Precision.of((dtype.itemsize, torch.finfo(dtype).eps) for _, dtype in self.objective.places)
        self._batches, self._reduction = pieces(batch)
        self._slope: Slope | None = None

    def slopes(self) -> Iterator[tuple[float, Slope]]:
        """Yield weight and gradient graph of each batch, with the same random numbers on every call."""
        with self.objective.noise():
            for batch in self._batches:
                share = 1.0 if self._reduction in ("one", "sum") else float(examples(batch))
                yield share, Slope(self.objective, batch)

    def flatten(self, vector: Any) -> tuple[Floats, Callable[[Floats], Any]]:
        """Flatten a vector; also return a function that restores its structure."""
        objective = self.objective
        if hasattr(vector, "keys"):
            flat = objective.flat(in_order(objective.names, objective.shapes, vector))
            return flat, lambda product: dict(zip(objective.names, objective.unflat(product), strict=True))
        if isinstance(vector, Tensor):
            vector = vector.detach().double().cpu().numpy()
        return of_length(vector, self.n), lambda product: product

    def along_gradients(self) -> Iterator[tuple[float, float]]:
        """Yield g H g and g g of each batch."""
        for _, slope in self.slopes():
            gradient = [part.detach() for part in slope.gradient]
            g, hg = self.objective.flat(gradient), self.objective.flat(slope.times(gradient))
            yield float(g @ hg), float(g @ g)

    def __call__(self, vector: Floats) -> Floats:
        """Multiply the Hessian by a flat vector."""
        tangents = self.objective.unflat(vector)
        if self._reduction == "one":
            if self._slope is None:
                (self._slope,) = (slope for _, slope in self.slopes())
            number = torch.float32 if self.precision.dtype == np.float32 else torch.float64
            return self.objective.flat(self._slope.times(tangents), number)
        total, weight = np.zeros(self.n), 0.0
        for share, slope in self.slopes():
            total += share * self.objective.flat(slope.times(tangents))
            weight += share
        return total / (weight if self._reduction == "mean" else 1.0)


def preconditioner(model: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    r"""Diagonal of the matrix P by whose inverse an optimiser multiplies its step, after its last update.

    Parameters
    ----------
    model : torch.nn.Module
        The network.
    optimizer : torch.optim.Adam, AdamW or RMSprop
        Also inside the wrapper of a trainer.

    Returns
    -------
    dict of str to Tensor
        Of every trainable parameter, for ``sharpness(..., preconditioner=)``.

    Raises
    ------
    DataError
        If the optimiser is of another kind, or has made no update of a parameter.

    Notes
    -----
    Adam steps by :math:`-\eta P^{-1} m`, :math:`P = (1 - \beta_1^t) (\sqrt{v / (1 - \beta_2^t)} + \epsilon)`, so that
    P^-1 H is compared with :math:`2 (1 + \beta_1) / ((1 - \beta_1) \eta)` (Cohen et al. 2022, arXiv:2207.14484);
    RMSprop by :math:`P = \sqrt{v} + \epsilon`, against :math:`2 (1 + \mu) / \eta`.

    Examples
    --------
    >>> model = nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    >>> x, y = torch.tensor([[3.0, 1.0]]), torch.zeros(1, 1)
    >>> nn.functional.mse_loss(model(x), y).backward()
    >>> optimizer.step()
    >>> p = preconditioner(model, optimizer)
    >>> sharpness(model, nn.MSELoss(), x, y, preconditioner=p).metrics.keys()
    dict_keys(['preconditioned_h_max_batch', 'preconditioned_h_min_batch'])
    """
    optimizer = innermost(optimizer)
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    diagonals = {}
    for name, parameter in unwrap(model).named_parameters():
        if not parameter.requires_grad:
            continue
        held, group = optimizer.state.get(parameter) or {}, groups.get(id(parameter), {})
        if "exp_avg_sq" in held and isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
            square, (first, second), t = held["exp_avg_sq"], group["betas"], float(held["step"])
            square = held.get("max_exp_avg_sq", square) / (1 - second**t)
            factor = 1 - first**t
        elif "square_avg" in held and isinstance(optimizer, torch.optim.RMSprop):
            square, factor = held["square_avg"], 1.0
            if group["centered"]:
                square = square - held["grad_avg"] ** 2
        else:
            raise DataError(
                f"{type(optimizer).__name__} has no second moments of {name!r}: the preconditioner is that of Adam, "
                "AdamW or RMSprop, after an update of every parameter"
            )
        diagonals[name] = factor * (square.sqrt() + group["eps"])
    return diagonals


def in_order(names: Sequence[str], shapes: Sequence[tuple[int, ...]], vector: Any) -> list[Any]:
    """Return the tensors of a vector {name: Tensor} in the order of the weights."""
    if set(vector) != set(names):
        odd = sorted(set(vector) ^ set(names))
        raise ArchitectureError(f"the vector needs one tensor for each trainable parameter; these differ: {odd[:5]}")
    for name, shape in zip(names, shapes, strict=True):
        if tuple(vector[name].shape) != shape:
            raise ArchitectureError(f"the vector's {name!r} has shape {tuple(vector[name].shape)}, not {shape}")
    return [vector[name] for name in names]


_probes = HessianProbes(Hessian)
sharpness = _probes.sharpness
hessian_vector_product = _probes.hessian_vector_product
batch_sharpness = _probes.batch_sharpness
trace = _probes.trace
spectral_density = _probes.spectral_density
