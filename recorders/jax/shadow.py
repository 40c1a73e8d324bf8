"""Shadows of a JAX training run: curvature and local exponents for one extra gradient per step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recorders import shadows
from recorders.jax.hessian import Functions, LossFunction, Objective
from recorders.shadows import (
    GROUND,
    ROUNDOFF,
    Climb,
    CurvatureRule,
    climb,
    floor_of,
    own_ascent,
    points_down,
    random_direction,
    read,
)
from trajtools.errors import DataError, MissingDependencyError

State = dict[str, Any]
Arrays = list[Any]


class Shadow(shadows.Shadow):
    """Copies of a network at a small distance, trained on the same batches and rescaled after every step.

    Parameters
    ----------
    params : pytree of arrays
        The initial network; defines structure and shapes.
    loss_fn : callable
        ``loss_fn(params, *batch)`` -> scalar; pure, traced by JAX.
    learning_rate : float, callable or None
        Learning rate of the training, or an optax ``schedule(step)``: the forward copy follows SGD. Not needed for the
        reverse copy alone, or if passed at every step.
    momentum : float
        Momentum of ``optax.sgd``; 0: none.
    nesterov : bool
        As in ``optax.sgd``.
    weight_decay : float
        Coefficient of ``optax.add_decayed_weights`` before the SGD.
    directions : sequence of {"forward", "reverse"}
        "forward": local exponent and h_min; "reverse": h_max. One extra gradient per step each.
    epsilon : float or None
        Distance of the copies, 2-norm over all weights. None: sqrt(roundoff) times the norm of `params` (float64: 1e-8
        of it; float32: 2e-4 of it).
    ascent : float or None
        Length of the uphill step of the reverse copy, in the unit of a learning rate. None: ``|d| / |q|``, which is 1 /
        h_max once the copy is aligned.
    window : int or None
        Steps between fresh offsets of the forward copy. None: never.
    of : {"batch", "subset", "full"}
        Extent of the data, for the names of the metrics: "full" if every batch is the whole training set.
    seed : int
        Seed of the offsets.

    Raises
    ------
    ArchitectureError, DataError, UnknownNameError
        If the tree has no floating-point array, or an argument is invalid.

    Notes
    -----
    Call `value_and_grad` instead of ``jax.value_and_grad(loss_fn)``, or `step` in addition, which costs one more
    gradient; inside jit and scan, `pure_step`. See `recorders.shadows` for the meaning and names of the numbers.

    Random keys in the batch are the same for all copies, so they use the same dropout masks. The weights of a copy are
    theta + d rounded to their dtype; d is corrected accordingly. A step with gradients that are not finite, or with
    weights too large for the offset, counts as lost (`n_lost`): its numbers are NaN, and the copies restart. Offsets
    after the first one are cyclic shifts, by the number of steps within each array, of a second random vector.

    Examples
    --------
    >>> def loss_fn(params, x):
    ...     return (x @ params["w"]) ** 2
    >>> params, x = {"w": jnp.ones(2)}, jnp.array([3.0, 1.0])
    >>> shadow = Shadow(params, loss_fn, learning_rate=0.01, of="full")
    >>> for _ in range(20):
    ...     loss, gradient = shadow.value_and_grad(params, x)
    ...     params = jax.tree_util.tree_map(lambda w, g: w - 0.01 * g, params, gradient)
    >>> round(shadow.h_max, 2)
    20.0
    """

    def __init__(
        self,
        params: Any,
        loss_fn: LossFunction,
        *,
        learning_rate: float | Callable[[Any], Any] | None = None,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        directions: Sequence[str] = ("forward", "reverse"),
        epsilon: float | None = None,
        ascent: float | None = None,
        window: int | None = None,
        of: str = "batch",
        seed: int = 0,
    ) -> None:
        self._objective = Objective(params, loss_fn)
        roundoff = max(ROUNDOFF[dtype.itemsize] for dtype in self._objective.dtypes)
        super().__init__(directions, epsilon=epsilon, ascent=ascent, window=window, of=of, roundoff=roundoff)
        self._rate, self._seed = learning_rate, seed
        self._motion = Motion(
            self._objective.functions, self.directions, momentum, nesterov, weight_decay, ascent, window, roundoff
        )
        weights = self._objective.weights(params)
        self._epsilon = self._choose_epsilon(float(jnp.sqrt(inner(weights, weights))))
        self._compiled = compiled(self._motion)
        self._state = self.init()

    # -- public methods

    def value_and_grad(self, params: Any, *batch: Any, learning_rate: float | None = None) -> tuple[jax.Array, Any]:
        """Compute loss and gradient of a batch, like `jax.value_and_grad`, and advance the copies.

        Parameters
        ----------
        params : pytree
            The current weights.
        *batch : object
            Arguments of the loss function after the weights.
        learning_rate : float or None
            Learning rate of the next step; None: that of the constructor.

        Returns
        -------
        tuple of (Array, pytree)
            Loss; gradient, with None for leaves that are not weights.
        """
        loss, gradients = self._objective.functions.gradient(
            self._objective.weights(params), self._objective.arrays, batch
        )
        self._follow(params, batch, gradients, learning_rate)
        return loss, self._objective.tree(gradients)

    def step(
        self, params: Any, *batch: Any, gradients: Any = None, learning_rate: float | None = None
    ) -> dict[str, float]:
        """Advance the copies on a batch, for loops that compute their own gradients.

        Parameters
        ----------
        params : pytree
            The current weights, before the update.
        *batch : object
            Arguments of the loss function after the weights.
        gradients : pytree or None
            Gradient of this batch at these weights, not clipped, scaled or accumulated. None: computed here, which
            costs one more pass.
        learning_rate : float or None
            Learning rate of the next step; None: that of the constructor.

        Returns
        -------
        dict of str to float
            See `metrics`.
        """
        if gradients is None:
            at_weights = self._objective.functions.gradient(
                self._objective.weights(params), self._objective.arrays, batch
            )[1]
            self.n_gradients += 1
        else:
            at_weights = self._objective.picked(gradients)
        self._follow(params, batch, at_weights, learning_rate)
        return self.metrics

    def init(self) -> State:
        """Return the initial state of the copies, for `pure_step`.

        Returns
        -------
        dict
            A pytree of arrays: offsets, offsets of the momentum, and counters.
        """

        def offset(direction: str, draw: int) -> list[jax.Array]:
            return self._objective.unflat(
                self._epsilon * random_direction(self._objective.n, self._seed, direction, draw)
            )

        offsets = {direction: offset(direction, 0) for direction in self.directions}
        return self._motion.start(offsets, offset("forward", 1), self._epsilon)

    def pure_step(
        self, state: State, params: Any, *batch: Any, gradients: Any = None, learning_rate: Any = None
    ) -> tuple[State, dict[str, jax.Array]]:
        """Advance the copies as a pure function, for jit, `jax.lax.scan` and `record_scan`.

        Parameters
        ----------
        state : dict
            From `init` or the previous call.
        params : pytree
            The current weights, before the update.
        *batch : object
            Arguments of the loss function after the weights.
        gradients : pytree or None
            Gradient of this batch at these weights, not clipped or scaled. None: computed here.
        learning_rate : scalar or None
            Learning rate of the next step; None: that of the constructor.

        Returns
        -------
        state : dict
            State after the step.
        metrics : dict of str to Array
            See `metrics`; there is no warning of the floor here: check ``shadow_floor``.
        """
        weights = self._objective.weights(params)
        if gradients is None:
            at_weights = self._objective.functions.gradient(weights, self._objective.arrays, batch)[1]
        else:
            at_weights = self._objective.picked(gradients)
        # Compiled also without an outer trace, as in an optax update called step by step.
        rate = self._rate_at(state["steps"], learning_rate)
        state, numbers = self._compiled(state, weights, (at_weights, self._objective.arrays, batch), rate)
        return state, self._named(jnp, numbers)

    # -- one step

    def _rate_at(self, step: Any, override: Any) -> Any:
        """The learning rate of a step."""
        rate = self._rate if override is None else override
        if rate is None:
            if "forward" in self.directions:
                raise DataError(
                    "the forward shadow needs the learning rate: Shadow(..., learning_rate=0.1), a schedule, or "
                    'learning_rate= at every step; directions=("reverse",) needs none'
                )
            return math.nan
        return rate(step) if callable(rate) else rate

    def _follow(self, params: Any, batch: Any, gradients: list[Any], learning_rate: Any) -> None:
        """Advance the copies, and store their readings."""
        weights = self._objective.weights(params)
        rate = self._rate_at(self.n_steps, learning_rate)
        self._state, readings = self._compiled(self._state, weights, (gradients, self._objective.arrays, batch), rate)
        now = jax.device_get(readings)
        account, size = now.pop("climb", None), now.pop("size", None)
        readings = {name: float(value) for name, value in now.items()}
        for direction in self.directions:
            if readings.pop(f"{direction}_length") == 0.0 and not self.n_steps:
                self._refuse_rounded(self._epsilon)
            self.n_lost += math.isnan(readings[f"{direction}_curvature"])
        self._last = readings
        self.n_steps += 1
        self.n_gradients += len(self.directions)
        if account is not None:
            self._floor.see(Climb(*map(float, account)), float(size), self._epsilon)


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
        Shadow of the initial parameters with the reverse copy; used as a pure function and not modified.
    learning_rate : float
        Learning rate of the first updates.
    c : float
        Rate times smoothed h_max: 1 is the Newton step of the steepest direction, 2 the limit of plain SGD.
    smoothing : float
        Weight of the past in the exponential mean of h_max; 0: none.
    lowest, highest : float
        Bounds of the rate.
    warm_up : int
        Updates at `learning_rate`, while the shadow aligns with the steepest direction.
    interval : int
        Updates between later changes of the rate.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        ``tx.update(updates, state, params, batch=(x, y), gradients=None)``: `batch` holds the arguments of the loss
        function after the parameters, `gradients` the gradient of that batch if available (else it is recomputed). The
        state is a `CurvatureState`.

    Raises
    ------
    DataError
        If the shadow has no reverse copy, or an argument is invalid.
    MissingDependencyError
        If optax is not installed.

    Notes
    -----
    Use it instead of ``optax.scale_by_learning_rate``, last in a chain: ``optax.chain(optax.trace(0.9),
    CurvatureLR(shadow, 0.1))``. The curvature at the weights before an update sets the rate of that update. Curvatures
    that are not positive and finite are ignored.

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
        raise DataError('this shadow has no reverse copy, which measures h_max: pass directions=("reverse",)')
    rule = CurvatureRule(c, smoothing, lowest, highest, warm_up, interval)
    h_max = f"shadow_h_max_{shadow.of}"

    def init(params: Any) -> CurvatureState:
        del params  # known to the shadow
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
        latest = {name: jnp.asarray(value, rate.dtype) for name, value in metrics.items()}
        return scaled, CurvatureState(copies, state.count + 1, smoothed, rate.astype(state.learning_rate.dtype), latest)

    return optax.GradientTransformationExtraArgs(init, update)


class CurvatureState(NamedTuple):
    """State of `CurvatureLR`.

    Attributes
    ----------
    shadow : dict
        State of the copies.
    count : Array
        Number of updates.
    smoothed : Array
        Mean curvature.
    learning_rate : Array
        Learning rate of the last update.
    metrics : dict of str to Array
        Last metrics of the shadow.
    """

    shadow: Any
    count: jax.Array
    smoothed: jax.Array
    learning_rate: jax.Array
    metrics: dict[str, jax.Array]


@dataclass(frozen=True)
class Motion:
    """Motion of the copies: the settings of a `Shadow` fixed at compilation.

    Attributes
    ----------
    functions : Functions
        Derivatives of the loss.
    directions : tuple of str
        Directions of the copies.
    momentum, weight_decay : float
        Coefficients of SGD.
    nesterov : bool
        Whether SGD uses Nesterov's momentum.
    ascent : float or None
        Uphill step of the reverse copy.
    window : int or None
        Steps between fresh offsets of the forward copy.
    roundoff : float
        Roundoff of the coarsest dtype of the weights.
    """

    functions: Functions
    directions: tuple[str, ...]
    momentum: float
    nesterov: bool
    weight_decay: float
    ascent: float | None
    window: int | None
    roundoff: float

    def start(self, offsets: dict[str, Arrays], spare: Arrays, epsilon: float) -> State:
        """Return the initial state of the copies."""
        zero = jnp.zeros(())
        state: State = {"steps": jnp.zeros((), jnp.int32), "spare": spare, "epsilon": jnp.asarray(epsilon, zero.dtype)}
        state |= offsets
        if "forward" in offsets:
            state["momenta"] = [jnp.zeros_like(d) for d in offsets["forward"]] if self.momentum else []
            state["climb"], state["floor"] = Climb(*[zero] * len(GROUND)), zero
        return state

    def step(
        self, state: State, weights: Arrays, data: tuple[Arrays, Any, Any], rate: Any
    ) -> tuple[State, dict[str, Any]]:
        """Advance every copy by its own gradient of the batch."""
        gradients, arrays, batch = data
        new: State = {**state, "steps": state["steps"] + 1}
        numbers: dict[str, Any] = {}
        for direction in self.directions:
            elsewhere = [w + d for w, d in zip(weights, state[direction], strict=True)]
            at_copy = self.functions.value_and_gradient(elsewhere, arrays, batch)[1]
            d = [e - w for e, w in zip(elsewhere, weights, strict=True)]
            q = [one - other for one, other in zip(at_copy, gradients, strict=True)]
            products = inner(d, d), inner(d, q), inner(q, q)
            momenta = state["momenta"] if direction == "forward" else []
            was = products[0] + rate**2 * inner(momenta, momenta) if momenta else products[0]
            moved, momenta = self._moved(direction, (d, q, momenta), products, rate)
            now = inner(moved, moved) + (rate**2 * inner(momenta, momenta) if momenta else 0.0)
            good = jnp.isfinite(now) & jnp.isfinite(products[2]) & (products[0] > 0)
            for name, value in zip(("growth", "curvature", "residual"), read(jnp, products, was, now), strict=True):
                numbers[f"{direction}_{name}"] = jnp.where(good, value, jnp.nan)
            numbers[f"{direction}_length"] = products[0]
            afresh = ~good | (now == 0)
            if direction == "forward":
                if self.window is not None:
                    afresh |= new["steps"] % self.window == 0
                self._watch(new, numbers, weights, rate)
                new["climb"] = Climb(*(jnp.where(afresh, 0.0, part).astype(part.dtype) for part in new["climb"]))
            self._draw_back(new, direction, (moved, momenta), afresh, state["epsilon"] / jnp.sqrt(now))
        return new, numbers

    def _moved(
        self, direction: str, vectors: tuple[Arrays, Arrays, Arrays], products: Sequence[Any], rate: Any
    ) -> tuple[Arrays, Arrays]:
        """Advance an offset uphill, or exactly by the difference of two SGD steps."""
        d, q, v = vectors
        if direction == "reverse":
            ascent = own_ascent(jnp, products[0], products[2]) if self.ascent is None else self.ascent
            return [a + ascent * b for a, b in zip(d, q, strict=True)], []
        change = [b + self.weight_decay * a for a, b in zip(d, q, strict=True)]
        if v:
            v = [self.momentum * old + c for old, c in zip(v, change, strict=True)]
            change = [c + self.momentum * b for c, b in zip(change, v, strict=True)] if self.nesterov else v
        return [a - rate * c for a, c in zip(d, change, strict=True)], v

    def _draw_back(self, new: State, direction: str, moved: tuple[Arrays, Arrays], afresh: Any, back: Any) -> None:
        """Rescale an offset and its momenta, or draw a fresh one."""
        fresh = [jnp.roll(part.ravel(), new["steps"]).reshape(part.shape) for part in new["spare"]]
        offset, momenta = moved
        new[direction] = [jnp.where(afresh, a, back * b).astype(b.dtype) for a, b in zip(fresh, offset, strict=True)]
        if direction == "forward":
            new["momenta"] = [jnp.where(afresh, 0.0, back * v).astype(v.dtype) for v in momenta]

    def _watch(self, new: State, numbers: dict[str, Any], weights: Arrays, rate: Any) -> None:
        """Monitor the direction of the forward copy and its rounding floor."""
        numbers["down"] = points_down(
            numbers["forward_curvature"], numbers["forward_residual"], rate, bool(self.momentum)
        )
        numbers["size"] = jnp.sqrt(inner(weights, weights))
        new["climb"] = numbers["climb"] = climb(jnp, new["climb"], numbers["forward_growth"])
        floor = floor_of(jnp, self.roundoff, numbers["size"], new["epsilon"], new["climb"].gain)
        new["floor"] = numbers["floor"] = jnp.maximum(new["floor"], floor).astype(new["floor"].dtype)


@lru_cache(maxsize=16)
def compiled(motion: Motion) -> Callable[..., Any]:
    """Return the jitted `Motion.step`, shared by equal motions."""
    return jax.jit(motion.step)


def inner(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """Inner product over all weights, in the widest enabled dtype."""
    wide = jnp.zeros(()).dtype
    return sum((jnp.sum(x.astype(wide) * y.astype(wide)) for x, y in zip(a, b, strict=True)), jnp.zeros(()))
