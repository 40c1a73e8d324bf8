"""A learning rate that follows the largest curvature of a JAX training, as an optax transformation."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recorders.jax.shadow import Shadow
from recorders.rates import CurvatureRule
from trajtools.errors import DataError, MissingDependencyError


class CurvatureState(NamedTuple):
    """State of `CurvatureLR`.

    Attributes
    ----------
    shadow : dict
        Of the copies.
    count : Array
        Updates so far.
    smoothed : Array
        Mean curvature.
    learning_rate : Array
        Of the last update.
    metrics : dict of str to Array
        What the shadow told last.
    """

    shadow: Any
    count: jax.Array
    smoothed: jax.Array
    learning_rate: jax.Array
    metrics: dict[str, jax.Array]


def CurvatureLR(
    shadow: Shadow,
    learning_rate: float,
    *,
    c: float = 1.0,
    smoothing: float = 0.9,
    lowest: float = 0.0,
    highest: float = math.inf,
    warm_up: int = 20,
    interval: int = 1,
) -> Any:
    """Scale updates by -c / h_max, from the reverse shadow of the training.

    Parameters
    ----------
    shadow : Shadow
        With the reverse copy, opened on the parameters at the start; it is used as a pure function and not moved.
    learning_rate : float
        Rate of the first updates.
    c : float
        Rate times smoothed h_max: 1 is the Newton step of the steepest direction, 2 the limit of plain SGD.
    smoothing : float
        Weight of the past in the exponential mean of h_max; 0: none.
    lowest, highest : float
        Bounds of the rate.
    warm_up : int
        So many updates use `learning_rate`, while the shadow turns towards the steepest direction.
    interval : int
        After that, the rate is set anew at every so many updates.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        ``tx.update(updates, state, params, batch=(x, y), gradients=None)``: `batch` holds the arguments of the loss
        function behind the parameters, `gradients` the gradient of that batch if it is at hand (else it is computed
        again). The state is a `CurvatureState`.

    Raises
    ------
    DataError
        If the shadow has no reverse copy, or an argument makes no sense.
    MissingDependencyError
        If optax is not installed.

    Notes
    -----
    Put it in the place of ``optax.scale_by_learning_rate``, last in a chain: ``optax.chain(optax.trace(0.9),
    CurvatureLR(shadow, 0.1))``. The curvature at the weights before an update sets the rate of that update. A curvature
    that is not positive and finite is left out.

    Examples
    --------
    >>> def loss_fn(params, x):
    ...     return (x @ params) ** 2
    >>> params, x = jnp.ones(2), jnp.array([3.0, 1.0])
    >>> tx = CurvatureLR(Shadow(params, loss_fn, directions=("reverse",)), 0.01, warm_up=10)
    >>> state = tx.init(params)
    >>> for _ in range(20):
    ...     gradient = jax.grad(loss_fn)(params, x)
    ...     update, state = tx.update(gradient, state, params, batch=(x,), gradients=gradient)
    ...     params = params + update
    >>> round(float(state.learning_rate), 3)  # h_max = 20
    0.05
    """
    try:
        import optax
    except ImportError as error:
        raise MissingDependencyError("CurvatureLR is an optax transformation: pip install optax") from error
    if "reverse" not in shadow.directions:
        raise DataError('this shadow has no reverse copy, which measures h_max: give directions=("reverse",)')
    rule = CurvatureRule(c, smoothing, lowest, highest, warm_up, interval)
    h_max = f"shadow_h_max_{shadow.of}"

    def init(params: Any) -> CurvatureState:
        del params  # the shadow was opened on them
        nothing = {name: jnp.asarray(value, jnp.zeros(()).dtype) for name, value in shadow.metrics.items()}
        rate = jnp.asarray(learning_rate, jnp.zeros(()).dtype)
        return CurvatureState(shadow.init(), jnp.zeros((), jnp.int32), jnp.full((), jnp.nan), rate, nothing)

    def update(
        updates: Any, state: CurvatureState, params: Any = None, *, batch: Any = (), gradients: Any = None, **_: Any
    ) -> tuple[Any, CurvatureState]:
        if params is None:
            raise DataError("CurvatureLR measures at the weights: tx.update(updates, state, params, batch=...)")
        data = batch if isinstance(batch, tuple) else (batch,)
        copies, metrics = shadow.pure_step(
            state.shadow, params, *data, gradients=gradients, learning_rate=state.learning_rate
        )
        smoothed = rule.smooth(jnp, state.smoothed, metrics[h_max], state.count + 1)
        rate = rule.rate(jnp, state.learning_rate, smoothed, state.count + 1)
        scaled = jax.tree_util.tree_map(lambda u: (-rate * u).astype(u.dtype), updates)
        kept = {name: jnp.asarray(value, rate.dtype) for name, value in metrics.items()}
        return scaled, CurvatureState(copies, state.count + 1, smoothed, rate.astype(state.learning_rate.dtype), kept)

    return optax.GradientTransformationExtraArgs(init, update)
