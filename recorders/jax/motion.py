"""One step of the shadows of a JAX training, as a pure function that is compiled once for each kind of shadow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from recorders.jax.objective import Functions
from recorders.offsets import GROUND, Climb, climb, floor_of, own_ascent, points_down, read

State = dict[str, Any]
Arrays = list[Any]


@dataclass(frozen=True)
class Motion:
    """How copies move: what of a `Shadow` is fixed when its step is compiled.

    Attributes
    ----------
    functions : Functions
        Derivatives of the loss.
    directions : tuple of str
        Which copies there are.
    momentum, weight_decay : float
        Of the SGD.
    nesterov : bool
        Of the SGD.
    ascent : float or None
        Uphill step of the reverse copy.
    window : int or None
        Steps between fresh offsets of the forward copy.
    roundoff : float
        Of the coarsest dtype among the weights.
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
        """Give the copies at the start."""
        zero = jnp.zeros(())
        state: State = {"steps": jnp.zeros((), jnp.int32), "spare": spare, "epsilon": jnp.asarray(epsilon, zero.dtype)}
        state |= offsets
        if "forward" in offsets:
            state["momenta"] = [jnp.zeros_like(d) for d in offsets["forward"]] if self.momentum else []
            state["climb"], state["floor"] = Climb(*[zero] * len(GROUND)), zero
        return state

    def step(
        self, state: State, weights: Arrays, given: tuple[Arrays, Any, Any], rate: Any
    ) -> tuple[State, dict[str, Any]]:
        """Move every copy by its own gradient of the batch."""
        gradients, arrays, batch = given
        new: State = {**state, "steps": state["steps"] + 1}
        found: dict[str, Any] = {}
        for direction in self.directions:
            elsewhere = [w + d for w, d in zip(weights, state[direction], strict=True)]
            there = self.functions.value_and_gradient(elsewhere, arrays, batch)[1]
            d = [e - w for e, w in zip(elsewhere, weights, strict=True)]
            q = [one - other for one, other in zip(there, gradients, strict=True)]
            products = inner(d, d), inner(d, q), inner(q, q)
            momenta = state["momenta"] if direction == "forward" else []
            was = products[0] + rate**2 * inner(momenta, momenta) if momenta else products[0]
            moved, momenta = self._moved(direction, (d, q, momenta), products, rate)
            now = inner(moved, moved) + (rate**2 * inner(momenta, momenta) if momenta else 0.0)
            good = jnp.isfinite(now) & jnp.isfinite(products[2]) & (products[0] > 0)
            for name, value in zip(("growth", "curvature", "residual"), read(jnp, products, was, now), strict=True):
                found[f"{direction}_{name}"] = jnp.where(good, value, jnp.nan)
            found[f"{direction}_length"] = products[0]
            afresh = ~good | (now == 0)
            if direction == "forward":
                if self.window is not None:
                    afresh |= new["steps"] % self.window == 0
                self._watch(new, found, weights, rate)
                new["climb"] = Climb(*(jnp.where(afresh, 0.0, part).astype(part.dtype) for part in new["climb"]))
            self._draw_back(new, direction, (moved, momenta), afresh, state["epsilon"] / jnp.sqrt(now))
        return new, found

    def _moved(
        self, direction: str, given: tuple[Arrays, Arrays, Arrays], products: Sequence[Any], rate: Any
    ) -> tuple[Arrays, Arrays]:
        """Move an offset uphill, or by one step exactly as the difference of two steps of SGD."""
        d, q, v = given
        if direction == "reverse":
            ascent = own_ascent(jnp, products[0], products[2]) if self.ascent is None else self.ascent
            return [a + ascent * b for a, b in zip(d, q, strict=True)], []
        change = [b + self.weight_decay * a for a, b in zip(d, q, strict=True)]
        if v:
            v = [self.momentum * old + c for old, c in zip(v, change, strict=True)]
            change = [c + self.momentum * b for c, b in zip(change, v, strict=True)] if self.nesterov else v
        return [a - rate * c for a, c in zip(d, change, strict=True)], v

    def _draw_back(self, new: State, direction: str, moved: tuple[Arrays, Arrays], afresh: Any, back: Any) -> None:
        """Bring an offset and its momenta back to its length, or begin with a fresh one."""
        fresh = [jnp.roll(part.ravel(), new["steps"]).reshape(part.shape) for part in new["spare"]]
        offset, momenta = moved
        new[direction] = [jnp.where(afresh, a, back * b).astype(b.dtype) for a, b in zip(fresh, offset, strict=True)]
        if direction == "forward":
            new["momenta"] = [jnp.where(afresh, 0.0, back * v).astype(v.dtype) for v in momenta]

    def _watch(self, new: State, found: dict[str, Any], weights: Arrays, rate: Any) -> None:
        """Say where the forward copy points and how near it is to rounding."""
        found["down"] = points_down(found["forward_curvature"], found["forward_residual"], rate, bool(self.momentum))
        found["size"] = jnp.sqrt(inner(weights, weights))
        new["climb"] = found["climb"] = climb(jnp, new["climb"], found["forward_growth"])
        floor = floor_of(jnp, self.roundoff, found["size"], new["epsilon"], new["climb"].gain)
        new["floor"] = found["floor"] = jnp.maximum(new["floor"], floor).astype(new["floor"].dtype)


@lru_cache(maxsize=16)
def compiled(motion: Motion) -> Callable[..., Any]:
    """Give the jitted `Motion.step`; equal motions share it."""
    return jax.jit(motion.step)


def inner(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """Inner product over all weights, in the widest type that JAX is set to."""
    wide = jnp.zeros(()).dtype
    return sum((jnp.sum(x.astype(wide) * y.astype(wide)) for x, y in zip(a, b, strict=True)), jnp.zeros(()))
