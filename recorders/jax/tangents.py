"""Tangent-space exponents of a JAX training run, through the step of its optimiser."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recorders import tangents
from recorders.jax.hessian import LossFunction, Objective
from recorders.jax.trees import is_weight
from recorders.tangents import TangentExponents
from trajtools.errors import DataError
from trajtools.types import Floats


class Tangents(tangents.Tangents):
    """Tangent vectors along a training run: Benettin's method through the step of the optimiser.

    Parameters
    ----------
    params : pytree of arrays
        The initial network; defines structure and shapes.
    loss_fn : callable
        ``loss_fn(params, *batch)`` -> scalar; pure, traced by JAX.
    optimizer : optax.GradientTransformation
        Anything with ``init(params)`` and ``update(gradients, state, params)``. The floating-point arrays of its state
        belong to the state of the system.
    k : int
        Number of vectors, hence of exponents.
    window : int
        Steps per window; each window starts with fresh vectors.
    vectors : {"both", "fresh", "kept"}
        Fresh vectors in each window, vectors kept from the start, or both.
    of : {"batch", "subset", "full"}
        Extent of the data, for the names of the metrics.
    seed : int
        Seed of the vectors.

    Raises
    ------
    ArchitectureError, DataError, UnknownNameError
        If the tree has no floating-point array, or an argument is invalid.

    Notes
    -----
    A step costs about k + 1 gradients (2 k + 1 for "both"). Fresh vectors are perturbations of the weights, and the
    exponents of a window are their growth in the weights; kept vectors live in (weights, buffers). Vectors are stored
    on the host in float64; products are computed in the dtype of the weights. See `recorders.tangents` for the use of
    windows.

    Adam has no derivative for a weight that never had a gradient (the square root of 0): such a step counts as lost
    (`n_lost`). ``optax.adam(..., eps_root=1e-16)`` avoids this.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> params = {"w": jnp.ones(3)}
    >>> def loss_fn(params, x):
    ...     return ((x @ params["w"]) ** 2).mean()
    >>> x = jnp.eye(3)
    >>> import optax
    >>> optimizer = optax.sgd(0.1)
    >>> state = optimizer.init(params)
    >>> tangents = Tangents(params, loss_fn, optimizer)
    >>> for _ in range(3):
    ...     metrics = tangents.step(params, state, x)
    ...     updates, state = optimizer.update(params, state)
    ...     params = optax.apply_updates(params, updates)
    >>> sorted(metrics)
    ['tangent_growth_batch', 'tangent_window_batch']
    """

    def __init__(
        self,
        params: Any,
        loss_fn: LossFunction,
        optimizer: Any,
        *,
        k: int = 1,
        window: int = 100,
        vectors: str = "both",
        of: str = "batch",
        seed: int = 0,
    ) -> None:
        self._objective = Objective(params, loss_fn)
        self._optimizer = optimizer
        buffers = floating(optimizer.init(self._objective.tree(self._objective.weights(params))))[0]
        self._shapes = [*self._objective.shapes, *(buffer.shape for buffer in buffers)]
        self._sizes = [int(np.prod(shape, dtype=np.int64)) for shape in self._shapes]
        n = self._objective.n
        super().__init__(n, sum(self._sizes), k=k, window=window, vectors=vectors, of=of, seed=seed)
        self._images = jax.jit(self._pushed)

    def step(self, params: Any, state: Any, *batch: Any) -> dict[str, Any]:
        """Advance the vectors through the next step of the optimiser on a batch.

        Parameters
        ----------
        params : pytree
            The current weights, before the update.
        state : pytree
            State of the optimiser, before the update.
        *batch : object
            Arguments of the loss function after the weights.

        Returns
        -------
        dict of str to float or ndarray (k,)
            See `metrics`.
        """
        weights = self._objective.weights(params)

        def push(columns: Floats) -> Floats:
            cuts = np.split(columns, np.cumsum(self._sizes)[:-1])
            columnwise = [
                jnp.asarray(np.ascontiguousarray(cut.T).reshape(-1, *shape))
                for cut, shape in zip(cuts, self._shapes, strict=True)
            ]
            images = jax.device_get(self._images(weights, state, batch, columnwise))
            return np.concatenate([np.asarray(part, np.float64).reshape(columns.shape[1], -1).T for part in images])

        self._advance(push)
        return self.metrics

    # -- the Jacobian of a step

    def update(self, weights: list[Any], state: Any, batch: Any) -> tuple[list[Any], Any]:
        """Compute the step of the optimiser as a pure function.

        Parameters
        ----------
        weights : list of array
            Weights in the order of a recorded state.
        state : pytree
            State of the optimiser.
        batch : tuple
            Arguments of the loss function after the parameters.

        Returns
        -------
        tuple of (list of array, pytree)
            Weights and state after the step.
        """
        objective = self._objective
        gradient = objective.functions.value_and_gradient(weights, objective.arrays, batch)[1]
        changes, state = self._optimizer.update(objective.tree(gradient), state, objective.tree(weights))
        moved = [(w + u).astype(w.dtype) for w, u in zip(weights, objective.picked(changes), strict=True)]
        return moved, state

    def _pushed(self, weights: list[Any], state: Any, batch: Any, tangents: list[Any]) -> list[Any]:
        """Multiply the Jacobian of the step by vectors of (weights, buffers), along the leading axis."""
        buffers, put = floating(state)
        at = [*weights, *buffers]
        n = len(weights)

        def step(everything: list[Any]) -> list[Any]:
            moved, after = self.update(everything[:n], put(everything[n:]), batch)
            return [*moved, *floating(after)[0]]

        derivative = jax.linearize(step, at)[1]
        along = [t.astype(a.dtype) for t, a in zip(tangents, at, strict=True)]
        return jax.vmap(derivative)(along)


def tangent_exponents(
    params: Any,
    loss_fn: LossFunction,
    optimizer: Any,
    batches: Iterable[Any],
    *,
    k: int = 1,
    window: int = 100,
    vectors: str = "both",
    discard: int = 0,
    level: float = 0.95,
    state: Any = None,
    of: str = "batch",
    seed: int = 0,
) -> TangentExponents:
    r"""Lyapunov exponents of a training run, by Benettin's method through the step of the optimiser.

    Parameters
    ----------
    params : pytree of arrays
        Start of the training.
    loss_fn : callable
        ``loss_fn(params, *batch)`` -> scalar; pure, traced by JAX.
    optimizer : optax.GradientTransformation
        Anything with ``init(params)`` and ``update(gradients, state, params)``.
    batches : iterable of tuples
        Arguments of the loss function after the parameters, for each step.
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
    state : pytree or None
        State of the optimiser at the start; None: ``optimizer.init``.
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
    ArchitectureError, DataError, UnknownNameError
        If there are no batches or no weights, or an argument is invalid.

    Notes
    -----
    With F the step (a map of weights and buffers, on the batch of that step) and Q
    orthonormal, :math:`DF\,Q = Q' R` and :math:`\lambda_i = \langle \ln |R_{ii}| \rangle`. DF is applied by
    forward-mode differentiation through gradient and update; for plain SGD it is :math:`1 - \eta H`. These are
    finite-time numbers of a driven system: consider `windows` together with `values`. `Tangents` follows an existing
    training loop.

    Examples
    --------
    >>> import optax
    >>> result = tangent_exponents(jnp.ones(1), lambda w: jnp.sum(w**2), optax.sgd(0.1), [()] * 100, window=50)
    >>> round(float(result.values[0]), 4)  # ln |1 - 0.1 x 2|
    -0.2231
    """
    follower = Tangents(params, loss_fn, optimizer, k=k, window=window, vectors=vectors, of=of, seed=seed)
    weights = follower._objective.weights(params)
    if state is None:
        state = optimizer.init(follower._objective.tree(weights))
    update = jax.jit(follower.update)
    for batch in batches:
        arguments = tuple(batch) if isinstance(batch, list | tuple) else (batch,)
        follower.step(follower._objective.layout.put(params, weights), state, *arguments)
        weights, state = update(weights, state, arguments)
    if not follower._local:
        raise DataError("there are no batches: pass one for each step of the training")
    return follower.result(discard=discard, level=level)


def floating(tree: Any) -> tuple[list[Any], Any]:
    """Return the floating-point arrays of a tree, and a function that replaces them."""
    leaves, treedef = jax.tree_util.tree_flatten(tree)
    at = [i for i, leaf in enumerate(leaves) if is_weight(leaf)]

    def put(arrays: list[Any]) -> Any:
        new = list(leaves)
        for i, array in zip(at, arrays, strict=True):
            new[i] = array
        return jax.tree_util.tree_unflatten(treedef, new)

    return [leaves[i] for i in at], put
