"""Curvature of a loss at the weights of a pytree.

The functions `sharpness`, `hessian_vector_product`, `batch_sharpness`, `trace` and `spectral_density` are those of
`recorders.hessian.HessianProbes`; this module provides gradients and Hessian-vector products.

Derivatives are compiled once per loss function (by object, so pass the same one every time, not a new lambda),
structure of the tree and shape of the data; a cache holds the last sixteen loss functions and their closures. Random
numbers come from the keys in the batch: the same batch, the same dropout.

Examples
--------
>>> def loss_fn(params, x):
...     return (x @ params["w"]) ** 2
>>> params, x = {"w": jnp.ones(2)}, np.array([3.0, 1.0])
>>> result = sharpness(params, loss_fn, x, of="full")
>>> round(result.h_max, 4), abs(round(result.h_min, 4)), result.converged
(20.0, 0.0, True)
>>> hessian_vector_product(params, loss_fn, [1.0, 0.0], x)
array([18.,  6.])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recorders.hessian import HessianProbes, Precision, examples, of_length, pieces
from recorders.jax.trees import Layout, refuse_unreadable
from trajtools.errors import DataError
from trajtools.types import Floats


def _is_flat(vector: Any) -> bool:
    """Whether a vector is an array or a list of numbers, not a tree."""
    if isinstance(vector, list | tuple):
        return all(isinstance(entry, float | int | np.number) for entry in vector)
    return isinstance(vector, np.ndarray | jax.Array)


LossFunction = Callable[..., Any]


class Functions:
    """Compiled derivatives of one loss function on trees of one structure."""

    def __init__(self, loss_fn: LossFunction, layout: Layout, others: tuple[Any, ...]) -> None:
        self._loss_fn, self._layout, self._others = loss_fn, layout, others
        self.gradient = jax.jit(self.value_and_gradient)
        self.product = jax.jit(self._product)
        self.linearized = jax.jit(self._linearized)

    def value_and_gradient(self, weights: Any, arrays: Any, batch: Any) -> Any:
        """Loss and its gradient."""
        return jax.value_and_grad(self._loss)(weights, arrays, batch)

    def _loss(self, weights: Any, arrays: Any, batch: Any) -> Any:
        """The loss as a function of the weights."""
        others = iter(zip(self._others, arrays, strict=True))
        positions = {position: i for i, position in enumerate(self._layout.positions)}
        leaves = []
        for at in range(self._layout.treedef.num_leaves):
            if at in positions:
                leaves.append(weights[positions[at]])
            else:
                static, array = next(others)
                leaves.append(static if array is None else array)
        loss = self._loss_fn(jax.tree_util.tree_unflatten(self._layout.treedef, leaves), *batch)
        if jnp.shape(loss) != ():
            raise ValueError(
                f"loss_fn(params, *batch) returned shape {jnp.shape(loss)}; it must be one number: take the mean or "
                "the sum (without auxiliary outputs)"
            )
        return loss

    def _product(self, weights: Any, arrays: Any, batch: Any, tangents: Any) -> Any:
        """H v: the derivative of the gradient along v."""
        return jax.jvp(lambda w: jax.grad(self._loss)(w, arrays, batch), (weights,), (tangents,))[1]

    def _linearized(self, weights: Any, arrays: Any, batch: Any) -> Any:
        """The function v -> H v, with all that does not depend on v computed already."""
        return jax.linearize(lambda w: jax.grad(self._loss)(w, arrays, batch), weights)[1]


@jax.jit
def _apply(function: Any, argument: Any) -> Any:
    return function(argument)


@partial(jax.jit, static_argnames="shapes")
def _apply_flat(function: Any, vector: Any, shapes: tuple[tuple[int, ...], ...]) -> Any:
    """The same for weights of one dtype in one vector: one transfer each way, however many arrays there are."""
    cuts = np.cumsum([prod(shape) for shape in shapes])[:-1].tolist()
    parts = [part.reshape(shape) for part, shape in zip(jnp.split(vector, cuts), shapes, strict=True)]
    return jnp.concatenate([part.ravel() for part in function(parts)])


_cached_functions = lru_cache(maxsize=16)(Functions)


class Objective:
    """A loss as a function of the weights of a tree."""

    def __init__(self, params: Any, loss_fn: LossFunction) -> None:
        self.layout = Layout.of(params)
        weights = set(self.layout.positions)
        others = [leaf for i, leaf in enumerate(jax.tree_util.tree_leaves(params)) if i not in weights]
        self.arrays = tuple(leaf if isinstance(leaf, jax.Array | np.ndarray) else None for leaf in others)
        static = tuple(leaf if array is None else None for leaf, array in zip(others, self.arrays, strict=True))
        key = Layout(self.layout.treedef, (), self.layout.positions, (), ())  # names and owners are irrelevant here
        try:
            self.functions = _cached_functions(loss_fn, key, static)
        except TypeError:  # the tree or the loss function is not hashable: compile without a cache
            self.functions = Functions(loss_fn, key, static)
        first = self.weights(params)
        self.shapes = [weight.shape for weight in first]
        self.dtypes = [weight.dtype for weight in first]
        self.sizes = [weight.size for weight in first]
        self.n = sum(self.sizes)

    def weights(self, params: Any) -> list[jax.Array]:
        """Select the weights of a tree, in the order of a recorded state."""
        return [jnp.asarray(leaf) for leaf in self.layout.pick(params)]

    def tree(self, weights: Sequence[Any]) -> Any:
        """Build a tree with these weights and None elsewhere, like gradients of equinox."""
        leaves: list[Any] = [None] * self.layout.treedef.num_leaves
        for position, array in zip(self.layout.positions, weights, strict=True):
            leaves[position] = array
        return jax.tree_util.tree_unflatten(self.layout.treedef, leaves)

    def picked(self, tree: Any) -> list[Any]:
        """Select the gradients of the weights from a tree, whose other leaves may be None or missing."""
        leaves = jax.tree_util.tree_leaves(tree)
        if len(leaves) == self.layout.treedef.num_leaves:
            return [leaves[position] for position in self.layout.positions]
        ranks = {position: rank for rank, position in enumerate(sorted(self.layout.positions))}
        return [leaves[ranks[position]] for position in self.layout.positions]

    def flat(self, arrays: Sequence[Any], dtype: Any = np.float64) -> Floats:
        """Flatten arrays shaped like the weights to one new vector on the host."""
        return np.concatenate([np.asarray(array).ravel() for array in jax.device_get(arrays)], dtype=dtype)

    def unflat(self, vector: Any) -> list[jax.Array]:
        """Split a vector into arrays like the weights."""
        cuts = np.split(np.asarray(vector), np.cumsum(self.sizes)[:-1])
        return [
            jnp.asarray(cut.reshape(shape).astype(dtype, copy=False))
            for cut, shape, dtype in zip(cuts, self.shapes, self.dtypes, strict=True)
        ]


class Hessian:
    """Products of the Hessian of a loss with flat float64 vectors, on a batch or on `Batches`."""

    _batches: Iterable[tuple[Any, ...]]

    def __init__(self, params: Any, loss_fn: LossFunction, batch: tuple[Any, ...]) -> None:
        self.objective = Objective(params, loss_fn)
        self.n = self.objective.n
        leaves = self.objective.layout.pick(params)
        refuse_unreadable(self.objective.layout.names, leaves)
        self.weights = [jnp.asarray(leaf) for leaf in leaves]
        self.precision = Precision.of((d.itemsize, float(jnp.finfo(d).eps)) for d in self.objective.dtypes)
        self._linear: Any = None  # the product with the one batch, once it has been asked for
        # A loss may contain its data and take the parameters only.
        self._batches, self._reduction = pieces(batch) if batch else (((),), "one")

    def batches(self) -> Iterator[tuple[float, tuple[Any, ...]]]:
        """Yield weight and data of each batch."""
        for batch in self._batches:
            yield 1.0 if self._reduction in ("one", "sum") else float(examples(batch)), batch

    def times(self, tangents: Sequence[Any], batch: tuple[Any, ...]) -> list[Any]:
        """H v on one batch."""
        objective = self.objective
        return objective.functions.product(self.weights, objective.arrays, batch, list(tangents))

    def gradient(self, batch: tuple[Any, ...]) -> list[Any]:
        """Gradient of one batch."""
        return self.objective.functions.gradient(self.weights, self.objective.arrays, batch)[1]

    def flatten(self, vector: Any) -> tuple[Floats, Callable[[Floats], Any]]:
        """Flatten a vector; also return a function that restores its structure."""
        objective = self.objective
        if _is_flat(vector):
            return of_length(vector, self.n), lambda product: product
        return objective.flat(objective.picked(vector)), lambda product: objective.tree(objective.unflat(product))

    def along_gradients(self) -> Iterator[tuple[float, float]]:
        """Yield g H g and g g of each batch."""
        for _, data in self.batches():
            gradient = self.gradient(data)
            g, hg = self.objective.flat(gradient), self.objective.flat(self.times(gradient, data))
            yield float(g @ hg), float(g @ g)

    def __call__(self, vector: Floats) -> Floats:
        """Multiply the Hessian by a flat vector."""
        if self._reduction == "one":
            if self._linear is None:
                ((_, batch),) = self.batches()
                self._linear = self.objective.functions.linearized(self.weights, self.objective.arrays, batch)
            if all(dtype == self.precision.dtype for dtype in self.objective.dtypes):
                argument = np.asarray(vector, self.precision.dtype)
                return np.array(_apply_flat(self._linear, argument, tuple(self.objective.shapes)))
            tangents = self.objective.unflat(vector)
            return self.objective.flat(_apply(self._linear, tangents), self.precision.dtype)
        tangents, total, weight = self.objective.unflat(vector), np.zeros(self.n), 0.0
        for share, batch in self.batches():
            total += share * self.objective.flat(self.times(tangents, batch))
            weight += share
        return total / (weight if self._reduction == "mean" else 1.0)


def preconditioner(opt_state: Any, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Any:
    r"""Diagonal of the matrix P by whose inverse Adam multiplies its step, after its last update.

    Parameters
    ----------
    opt_state : pytree
        State of `optax.adam`, `adamw` or a chain with `scale_by_adam`.
    b1, b2, eps : float
        Those of the optimiser, which its state does not hold.

    Returns
    -------
    pytree
        Like the parameters, for ``sharpness(..., preconditioner=)``.

    Raises
    ------
    DataError
        If there is no state of Adam, or it has made no update.

    Notes
    -----
    Adam steps by :math:`-\eta P^{-1} m`, :math:`P = (1 - b_1^t) (\sqrt{v / (1 - b_2^t)} + \epsilon)`, so that P^-1 H is
    compared with :math:`2 (1 + b_1) / ((1 - b_1) \eta)` (Cohen et al. 2022, arXiv:2207.14484).

    Examples
    --------
    >>> import optax
    >>> optimizer = optax.adam(0.1)
    >>> state = optimizer.init({"w": jnp.ones(2)})
    >>> _, state = optimizer.update({"w": jnp.array([0.5, 4.0])}, state)
    >>> [round(float(p), 6) for p in preconditioner(state)["w"]]
    [0.05, 0.4]
    """

    def is_adam(node: Any) -> bool:
        return all(hasattr(node, name) for name in ("count", "mu", "nu"))

    known = [node for node in jax.tree_util.tree_leaves(opt_state, is_leaf=is_adam) if is_adam(node)]
    if len(known) != 1 or not int(known[0].count):
        raise DataError(
            f"{len(known)} states of Adam in a {type(opt_state).__name__}; the preconditioner needs one (count, mu, "
            "nu), after an update"
        )
    (state,) = known
    t = int(state.count)
    return jax.tree_util.tree_map(lambda v: (1 - b1**t) * (jnp.sqrt(v / (1 - b2**t)) + eps), state.nu)


_probes = HessianProbes(Hessian)
sharpness = _probes.sharpness
hessian_vector_product = _probes.hessian_vector_product
batch_sharpness = _probes.batch_sharpness
trace = _probes.trace
spectral_density = _probes.spectral_density
