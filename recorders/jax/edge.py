"""Find the learning rate to take and the edge of chaos of a JAX training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
from recorders.jax.tangents import floating
from recorders.jax.trees import float64, is_weight
from recorders.jax.twins import Lockstep
from trajtools.errors import DataError
from trajtools.types import Floats, RealArrayLike

NEVER = 1e-18  # a gradient whose square is lost in float32


def find_edge(
    params: Any,
    data: Iterable[Any],
    loss_fn: Callable[..., Any],
    optimizer: Callable[[Any], Any],
    *,
    rates: RealArrayLike | None = None,
    steps: int = 320,
    seeds: int | Iterable[int] = 1,
    exponents: bool = True,
    has_aux: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Edge:
    """Recommend a learning rate by a race of short trainings, and locate the edge of chaos.

    Parameters
    ----------
    params : pytree, or callable
        The current weights, which are not modified; or ``params(seed)`` -> pytree, for other initial weights for every
        seed.
    data : iterable of batches
        Each batch a tuple of arguments of the loss function after the weights. Taken as needed, and repeated if there
        are fewer than `steps`. All rates use the same batches; a random key in a batch is common to all copies.
    loss_fn : callable
        ``loss_fn(params, *batch)`` -> scalar, or with `has_aux` -> (scalar, anything).
    optimizer : callable
        ``optimizer(rate)`` -> optax.GradientTransformation, for a traced rate, such as
        ``lambda rate: optax.sgd(rate, momentum=0.9)``, with schedules and clipping as in the training.
    rates : (float, float), sequence of float, or None
        None: 1e-4 to 10, three per decade, and further where the best rate is at an end. A pair: the ends of a range.
    steps : int
        Most steps of a copy. The race ends earlier: once the loss has fallen to a tenth of its start, or to 0.7 of it
        after 80 steps (160 if several rates are as good).
    seeds : int or sequence of int
        Number of seeds, or the seeds. Without a function `params`, they differ in the order of the batches; seed 0 has
        the order of the data.
    exponents : bool
        Whether to measure exponents and locate the edge of chaos; False costs nothing for it.
    has_aux : bool
        See `loss_fn`.
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

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> params = {"w": jnp.ones(3)}
    >>> def loss_fn(params, x):
    ...     return ((x @ params["w"]) ** 2).mean()
    >>> x = jnp.eye(3)
    >>> import optax
    >>> edge = find_edge(params, [(x,)], loss_fn, optax.sgd, rates=[0.01, 0.1, 10.0], steps=20, exponents=False)
    >>> edge.recommended
    0.1
    """
    tried, numbers, most = check_rates(rates), check_seeds(seeds), check_steps(steps)
    if not callable(loss_fn):
        raise DataError(f"loss_fn must be a function loss_fn(params, *batch), got {type(loss_fn).__name__}")
    if not callable(optimizer):
        raise DataError(
            "optimizer must be a function of the rate, since every rate is tried: optax.sgd, or lambda rate: "
            f"optax.sgd(rate, momentum=0.9); got {type(optimizer).__name__}"
        )
    copies = Copies(params, data, loss_fn, optimizer, has_aux=has_aux, seeds=numbers)
    return search(
        copies, rates=tried, seeds=numbers, steps=most, exponents=exponents, progress=progress, settings={}
    )  # fmt: skip


class Copies:
    """Trainings from the same weights on the same batches, see `recorders.edge.Copies`."""

    def __init__(
        self,
        params: Any,
        data: Iterable[Any],
        loss_fn: Callable[..., Any],
        optimizer: Callable[[Any], Any],
        *,
        has_aux: bool,
        seeds: tuple[int, ...],
    ) -> None:
        drawn = callable(params) and not any(is_weight(leaf) for leaf in jax.tree_util.tree_leaves(params))
        self._params = {seed: params(seed) if drawn else params for seed in seeds}
        self._loss: Callable[..., Any] = (lambda *arguments: loss_fn(*arguments)[0]) if has_aux else loss_fn
        self._optimizer = optimizer
        self.batches = CommonBatches(data, lambda batch: batch)
        self._lockstep = Lockstep(self._params[seeds[0]], self._loss, optimizer(0.0), False, independent=False)
        self._update, self._push = jax.jit(self._updated), jax.jit(self._pushed)
        loss = lambda weights, batch: self._loss(self._lockstep.whole(weights), *batch)  # noqa: E731
        self._measure, self._gradient = jax.jit(loss), jax.jit(jax.grad(loss))
        self._hessian = jax.jit(
            lambda weights, along, batch: jax.jvp(lambda at: jax.grad(loss)(at, batch), (weights,), (along,))[1]
        )
        self._start = {
            seed: jax.tree_util.tree_map(jnp.asarray, self._lockstep.trained(tree))
            for seed, tree in self._params.items()
        }
        self._carries: dict[tuple[float, int], Any] = {}
        self._losses: dict[tuple[float, int], list[float]] = {}
        self._nonzero: dict[tuple[float, int], list[int]] = {}
        self.gradients, self.exponents_from = 0, "tangent vectors"
        self._has_derivative = True

    def train(self, rate: float, seed: int, stop: int) -> Floats:
        """Continue a copy and return all its losses."""
        key = rate, seed
        losses, counts = self._losses.setdefault(key, []), self._nonzero.setdefault(key, [0, 0])
        if key not in self._carries:
            self._carries[key] = self._start[seed], self._optimizer(jnp.asarray(rate)).init(self._start[seed])
        count: Any = 0
        for batch in self.batches.upto(stop, seed)[len(losses) :]:
            if losses and not np.isfinite(losses[-1]):
                break
            weights, state, loss, count = self._update(*self._carries[key], rate, batch)
            self._carries[key] = weights, state
            losses.append(float(loss))
            self.gradients += 1
            if len(losses) == 1:
                counts[0] = int(count)
        counts[1] = int(count)
        return np.array(losses)

    def active(self, rate: float, seed: int) -> float:
        """Nonzero entries in the last gradient over those in the first; 0 where there are none in either."""
        first, last = self._nonzero[rate, seed]
        return last / max(first, 1)

    def release(self, rate: float) -> None:
        """Free the copies at a rate."""
        for key in [key for key in self._carries if key[0] == rate]:
            del self._carries[key]

    def train_apart(
        self, rate: float, seed: int, batches: Sequence[Any], parts: Sequence[Any], at: Collection[int]
    ) -> tuple[Floats, Floats]:
        """Train a copy on other batches; its losses, and those on the parts after so many steps."""
        carry = self._start[seed], self._optimizer(jnp.asarray(rate)).init(self._start[seed])
        losses, apart = np.full(len(batches), np.inf), np.full((len(at), len(parts)), np.inf)
        points = {steps: k for k, steps in enumerate(at)}
        for t, batch in enumerate(batches, start=1):
            weights, state, loss, _ = self._update(*carry, rate, batch)
            carry = weights, state
            losses[t - 1] = float(loss)
            self.gradients += 1
            if not np.isfinite(losses[t - 1]):
                break
            if t in points:
                apart[points[t]] = [float(self._measure(weights, part)) for part in parts]
        self.gradients += apart.size // 3  # a loss is a third of a gradient
        return losses, apart

    def _stepped(self, weights: Any, state: Any, rate: Any, batch: Any) -> tuple[Any, Any, Any, Any]:
        """One update as a pure function; also the loss before it and the gradient."""

        def loss_of(trained: Any) -> Any:
            return self._loss(self._lockstep.whole(trained), *batch)

        loss, gradient = jax.value_and_grad(loss_of)(weights)
        updates, state = self._optimizer(rate).update(gradient, state, weights)
        moved = jax.tree_util.tree_map(lambda p, u: jnp.asarray(p + u).astype(p.dtype), weights, updates)
        return moved, state, loss, gradient

    def _updated(self, weights: Any, state: Any, rate: Any, batch: Any) -> tuple[Any, Any, Any, Any]:
        """One update; also the loss before it and the number of nonzero gradients."""
        moved, state, loss, gradient = self._stepped(weights, state, rate, batch)
        return moved, state, loss, sum(jnp.count_nonzero(leaf) for leaf in jax.tree_util.tree_leaves(gradient))

    def grow(self, rate: float, seed: int, steps: int) -> tuple[Floats, Floats]:
        """Growth of tangent vectors or shadows, (steps, VECTORS), and losses."""
        if self.exponents_from == "tangent vectors":
            growth, losses = self._follow(rate, seed, steps, double=False)
            replica, _ = self._replicated(rate, seed, steps)
            if self._has_derivative:
                return np.hstack([growth, replica]), losses
            self.exponents_from = "float64 shadows"
        return self._replicated(rate, seed, steps)

    def _replicated(self, rate: float, seed: int, steps: int) -> tuple[Floats, Floats]:
        """Growth and losses along the float64 replica."""
        with float64():
            try:
                if self.exponents_from == "tangent vectors":
                    return self._follow(rate, seed, steps, double=True)
                return self._shadow(rate, seed, steps)
            except (TypeError, ValueError) as error:
                first_line = str(error).strip().partition("\n")[0][:200]
                raise ExponentsUnknown(f"the training does not run in float64 ({first_line})") from error

    def _follow(self, rate: float, seed: int, steps: int, *, double: bool) -> tuple[Floats, Floats]:
        """Growth of one tangent vector along the training, or of the others along its replica; and the losses."""
        convert = _as_double if double else jnp.asarray
        weights = jax.tree_util.tree_map(convert, self._start[seed])
        state = self._optimizer(jnp.asarray(rate)).init(weights)
        blocks = range(1, VECTORS) if double else range(1)
        at = floating((weights, state))[0]
        sizes = [leaf.size for leaf in at]
        growth, losses = np.full((steps, len(blocks)), np.nan), np.full(steps, np.nan)
        for t, batch in enumerate(self.batches.upto(steps, seed)):
            placed = jax.tree_util.tree_map(_as_double, batch) if double else batch
            self.gradients += 1
            if t < FIRST:
                weights, state, loss, _ = self._update(weights, state, rate, placed)
                losses[t] = float(loss)
                continue
            if t == FIRST:
                curve = self._curve(weights, placed)
                starts = [start(k, _size(weights), curve, BLOCK) for k in blocks]
                vectors = TangentVectors(sum(sizes), starts, burn_of(steps) - FIRST)
            columns = vectors.columns
            cuts = np.split(columns.T, np.cumsum(sizes)[:-1], axis=1)
            along = [jnp.asarray(c.reshape(-1, *leaf.shape), leaf.dtype) for c, leaf in zip(cuts, at, strict=True)]
            weights, state, loss, images = self._push(weights, state, along, rate, placed)
            losses[t] = float(loss)
            self.gradients += 1 + columns.shape[1]  # of the derivative, and a product for each vector
            if not np.isfinite(losses[t]):
                break
            flat = [np.asarray(image, np.float64).reshape(columns.shape[1], -1).T for image in jax.device_get(images)]
            pushed = np.concatenate(flat)
            self._has_derivative = self._has_derivative and bool(np.isfinite(pushed).all())
            growth[t] = vectors.advance(pushed)
        return growth, losses

    def _curve(self, weights: Any, batch: Any, norm: float = 0.0) -> Callable[[Floats], Floats]:
        """Product of the Hessian with a vector; with a norm of the weights, from a difference of gradients."""

        def product(direction: Floats) -> Floats:
            self.gradients += 2
            if norm:
                moved = self._gradient(_displaced(weights, EPSILONS[0] * norm * direction), batch)
                curved = jax.tree_util.tree_map(jnp.subtract, moved, self._gradient(weights, batch))
            else:
                curved = self._hessian(weights, _like(weights, direction), batch)
            leaves = jax.device_get(jax.tree_util.tree_leaves(curved))
            return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])

        return product

    def _shadow(self, rate: float, seed: int, steps: int) -> tuple[Floats, Floats]:
        """Growth of shadows of the float64 replica, at two distances in different directions; and its losses."""
        first = jax.tree_util.tree_map(_as_double, self._start[seed])
        norm = float(jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree_util.tree_leaves(first))))
        sizes = [epsilon * norm for epsilon in EPSILONS]
        carries = [(first, self._optimizer(jnp.asarray(rate)).init(first)) for _ in (0.0, *sizes)]
        growth, losses = np.full((steps, len(EPSILONS)), np.nan), np.full(steps, np.nan)
        for t, batch in enumerate(self.batches.upto(steps, seed)):
            doubles = jax.tree_util.tree_map(_as_double, batch)
            if t == FIRST:
                curve = self._curve(carries[0][0], doubles, norm)
                for k, size in enumerate(sizes):
                    weights, state = carries[1 + k]
                    carries[1 + k] = _displaced(weights, size * start(k, _size(first), curve)[:, 0]), state
            moved = [self._update(*carry, rate, doubles) for carry in carries]
            self.gradients += len(carries)
            losses[t] = float(moved[0][2])
            if not all(np.isfinite(float(loss)) for _, _, loss, _ in moved):
                break
            carries = [(weights, state) for weights, state, _, _ in moved]
            for k, size in enumerate(sizes if t >= FIRST else ()):
                carries[1 + k], length = _draw_back(carries[0], carries[1 + k], size)
                with np.errstate(divide="ignore"):
                    growth[t, k] = np.log(float(length) / size)
        return growth, losses

    def _pushed(self, weights: Any, state: Any, vectors: Any, rate: Any, batch: Any) -> tuple[Any, Any, Any, Any]:
        """One update, the loss before it, and its derivative along vectors of (weights, optimiser state)."""
        at, put = floating((weights, state))

        def step(everything: list[Any]) -> list[Any]:
            weights, state = put(everything)
            moved, after, _, _ = self._stepped(weights, state, rate, batch)
            return floating((moved, after))[0]

        images = jax.vmap(lambda vector: jax.jvp(step, (at,), (vector,))[1])(vectors)
        moved, after, loss, gradient = self._stepped(weights, state, rate, batch)
        gradients = jax.tree_util.tree_leaves(gradient)
        n = len(gradients)
        # Adam has no derivative for a weight that never had a gradient (the root of 0); such a weight stays.
        images[:n] = [
            jnp.where(jnp.isnan(new) & (jnp.abs(g) < NEVER), old, new)
            for new, old, g in zip(images[:n], vectors[:n], gradients, strict=True)
        ]
        return moved, after, loss, images


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree_util.tree_leaves(tree))


def _displaced(tree: Any, offset: Floats) -> Any:
    """Weights moved by a flat vector."""
    return jax.tree_util.tree_map(jnp.add, tree, _like(tree, offset))


def _like(tree: Any, flat: Floats) -> Any:
    """Flat vector as a tree of this structure, in its dtypes."""
    leaves, treedef = jax.tree_util.tree_flatten(tree)
    cuts = np.split(flat, np.cumsum([leaf.size for leaf in leaves])[:-1])
    parts = [jnp.asarray(cut.reshape(leaf.shape), leaf.dtype) for cut, leaf in zip(cuts, leaves, strict=True)]
    return jax.tree_util.tree_unflatten(treedef, parts)


@jax.jit
def _draw_back(reference: Any, shadow: Any, size: Any) -> tuple[Any, Any]:
    """Rescale weights and optimiser state of a shadow to its first distance; also return the distance before."""
    pairs = zip(jax.tree_util.tree_leaves(reference[0]), jax.tree_util.tree_leaves(shadow[0]), strict=True)
    length = jnp.sqrt(sum(jnp.sum(jnp.square(b - a)) for a, b in pairs))
    factor = jnp.where(jnp.isfinite(length) & (length > 0), size / length, 1.0)

    def back(one: Any, other: Any) -> Any:
        if not jnp.issubdtype(jnp.asarray(one).dtype, jnp.floating):
            return other
        scaled = one + (other - one) * factor
        # Mean squares stay so.
        return jnp.where(jnp.all(one >= 0) & jnp.all(other >= 0), jnp.maximum(scaled, 0), scaled)

    return jax.tree_util.tree_map(back, reference, shadow), length


def _as_double(leaf: Any) -> Any:
    floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.asarray(np.asarray(leaf), jnp.float64) if floating else leaf
