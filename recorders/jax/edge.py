"""Find the edge of chaos of a JAX training run, and recommend a learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recorders.edge import Edge, check_counts, check_rates, first_batches, judge, shadow_distance, train
from recorders.jax.twins import Lockstep
from recorders.shadows import random_direction
from trajtools.types import RealArrayLike


def find_edge(
    params: Any,
    data: Iterable[Any],
    loss_fn: Callable[..., Any],
    optimizer: Callable[[Any], Any],
    *,
    rates: RealArrayLike = (1e-3, 10.0),
    points: int = 12,
    steps: int = 100,
    shadows: int = 1,
    epsilon: float | None = None,
    seed: int = 0,
    has_aux: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Edge:
    """Locate the onset of chaos over learning rates from short training runs, and recommend a rate.

    Parameters
    ----------
    params : pytree
        The current weights; not modified.
    data : iterable of batches
        Each batch a tuple of arguments of the loss function after the weights. Repeated if shorter than `steps`. All
        rates use the same batches; a random key in a batch is common to all copies.
    loss_fn : callable
        ``loss_fn(params, *batch)`` -> scalar, or with `has_aux` -> (scalar, anything).
    optimizer : callable
        ``optimizer(rate)`` -> optax.GradientTransformation, for a traced rate, such as
        ``lambda rate: optax.sgd(rate, momentum=0.9)``.
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
    seed : int
        Seed of the directions of the shadows.
    has_aux : bool
        See `loss_fn`.
    progress : callable or None
        ``progress(done, total)`` after each step.

    Returns
    -------
    Edge
        Onset and recommendation with reasons, curves and cost; ``print(edge)``, ``edge.plot()``.

    Raises
    ------
    DataError
        If there are no batches, or an argument is invalid.

    Notes
    -----
    Shadows are rescaled together with the state of the optimiser, so the exponent is that of the full state under
    momentum or Adam. It is a finite-time exponent of the first `steps` updates from these weights. One vmapped call
    updates all copies. Each rate costs ``steps * (1 + shadows)`` gradients.
    """
    check_counts(points=points, steps=steps, shadows=shadows)
    tried = check_rates(rates, points)
    batches = first_batches(data, steps)
    plain = _plain_loss(loss_fn, has_aux)
    lockstep = Lockstep(params, plain, optimizer(0.0), False, independent=False)
    start = jax.tree_util.tree_map(jnp.asarray, lockstep.trained(params))
    size, members = _shadows(start, epsilon, shadows, seed)
    update = jax.jit(_updater(lockstep, plain, optimizer, size))
    carry = _carry(members, optimizer, jnp.asarray(tried))

    def step(batch: tuple[Any, ...]) -> tuple[Any, Any]:
        nonlocal carry
        carry, loss, grown = update(carry, jnp.asarray(tried), batch)
        return np.asarray(loss, np.float64), np.asarray(grown, np.float64)

    growth, losses = train(step, batches, steps=steps, n_rates=len(tried), progress=progress)
    settings = {
        "steps": steps, "points": len(tried), "shadows": shadows, "epsilon": size, "seed": seed, "vectorized": True,
        "batches": len(batches),
    }  # fmt: skip
    return judge(tried, growth, losses, gradients=steps * len(tried) * (1 + shadows), settings=settings)


def _plain_loss(loss_fn: Callable[..., Any], has_aux: bool) -> Callable[..., Any]:
    if not has_aux:
        return loss_fn
    return lambda *arguments: loss_fn(*arguments)[0]


def _shadows(start: Any, epsilon: float | None, shadows: int, seed: int) -> tuple[float, Any]:
    """Distance of the shadows; reference and shadows with a leading axis (1 + shadows)."""
    leaves, treedef = jax.tree_util.tree_flatten(start)
    norm = float(np.sqrt(sum(float(jnp.sum(jnp.square(leaf.astype(jnp.float32)))) for leaf in leaves)))
    size = shadow_distance(epsilon, norm, (leaf.dtype.itemsize for leaf in leaves))
    sizes = [leaf.size for leaf in leaves]
    columns: list[list[Any]] = [[leaf] for leaf in leaves]
    for k in range(shadows):
        cuts = np.split(size * random_direction(sum(sizes), seed, "forward", k), np.cumsum(sizes)[:-1])
        for column, leaf, cut in zip(columns, leaves, cuts, strict=True):
            column.append(leaf + jnp.asarray(cut.reshape(leaf.shape)).astype(leaf.dtype))
    return size, jax.tree_util.tree_unflatten(treedef, [jnp.stack(column) for column in columns])


def _carry(members: Any, optimizer: Callable[[Any], Any], rates: Any) -> tuple[Any, Any]:
    """Weights and optimiser states of all copies, shape (R, 1 + shadows, ...)."""

    def at(rate: Any) -> tuple[Any, Any]:
        return members, jax.vmap(optimizer(rate).init)(members)

    return jax.vmap(at)(rates)


def _updater(
    lockstep: Lockstep, loss_fn: Callable[..., Any], optimizer: Callable[[Any], Any], size: float
) -> Callable[..., Any]:
    """Return a pure function that updates all copies and rescales the shadows."""

    def one(member: Any, state: Any, rate: Any, batch: Any) -> Any:
        loss, gradient = jax.value_and_grad(lambda trained: loss_fn(lockstep.whole(trained), *batch))(member)
        updates, state = optimizer(rate).update(gradient, state, member)
        moved = jax.tree_util.tree_map(lambda p, u: jnp.asarray(p + u).astype(p.dtype), member, updates)
        return moved, state, loss

    def at(members: Any, states: Any, rate: Any, batch: Any) -> Any:
        members, states, losses = jax.vmap(lambda member, state: one(member, state, rate, batch))(members, states)
        square = sum(_square(leaf) for leaf in jax.tree_util.tree_leaves(members))
        length = jnp.sqrt(square)
        factor = jnp.where(jnp.isfinite(length) & (length > 0), size / length, 1.0)
        back = lambda leaf: _shrink(leaf, factor)  # noqa: E731
        rescaled = jax.tree_util.tree_map(back, members), jax.tree_util.tree_map(back, states)
        return rescaled, losses[0], jnp.mean(jnp.log(length / size))

    def update(carry: Any, rates: Any, batch: Any) -> Any:
        return jax.vmap(lambda members, states, rate: at(members, states, rate, batch))(*carry, rates)

    return update


def _square(leaf: Any) -> Any:
    """Squared distances of the shadows in one array, shape (shadows,)."""
    offset = (leaf[1:] - leaf[:1]).astype(jnp.float64 if leaf.dtype == jnp.float64 else jnp.float32)
    return jnp.sum(jnp.square(offset).reshape(offset.shape[0], -1), axis=1)


def _shrink(leaf: Any, factor: Any) -> Any:
    """Scale the offsets of shadows from their reference; non-negative values (mean squares) stay non-negative."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    scaled = leaf[:1] + (leaf[1:] - leaf[:1]) * factor.reshape(-1, *[1] * (leaf.ndim - 1)).astype(leaf.dtype)
    clamped = jnp.where(jnp.all(leaf >= 0), jnp.maximum(scaled, 0), scaled)
    return jnp.concatenate([leaf[:1], clamped])
