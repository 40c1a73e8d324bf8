"""Formulas of a shadow's step, for numbers and for arrays that are being traced alike (`xp`: numpy or jax.numpy).

What they mean stands at the top of `recorders.shadows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from recorders.lanczos import Floats

DIRECTIONS = ("forward", "reverse")
ALIGNED = 0.1  # largest eta x residual at which the forward copy counts as pointing along one curvature
ROUNDOFF = {8: 2.0**-53, 4: 2.0**-24, 2: 2.0**-9}
"""Half a unit in the last place, by bytes of the dtype; of the two of two bytes the coarser one, bfloat16."""


class Climb(NamedTuple):
    """How a copy has grown since it began.

    Attributes
    ----------
    steps : scalar
        Steps so far.
    total, lowest : scalar
        Sum of the growths, in nats, and its minimum.
    gain : scalar
        Largest rise from a minimum, in nats.
    quiet : scalar
        Steps before the present rise had made its first nat.
    """

    steps: Any = 0.0
    total: Any = 0.0
    lowest: Any = 0.0
    gain: Any = 0.0
    quiet: Any = 0.0

    @property
    def rise(self) -> Any:
        """Present rise from the minimum, in nats."""
        return self.total - self.lowest

    @property
    def missed(self) -> Any:
        """Nats that the copy would have risen more, had it risen from its beginning as it does now."""
        return self.quiet * self.rise / (self.steps - self.quiet + 1)


GROUND = Climb()


def read(xp: Any, products: Sequence[Any], was: Any, now: Any) -> tuple[Any, Any, Any]:
    """Read growth, curvature and residual off one step of a copy."""
    dd, dq, qq = products
    curvature = dq / dd
    return 0.5 * xp.log(now / was), curvature, xp.sqrt(xp.maximum(qq / dd - curvature**2, 0.0))


def own_ascent(xp: Any, dd: Any, qq: Any) -> Any:
    """Length of the uphill step where the user gave none: |d| / |q|.

    Notes
    -----
    Once the copy is aligned this is 1 / h_max: what has the curvature h_max doubles, what has h_2 grows by 1 + h_2 /
    h_max, and negative curvature shrinks as long as it is weaker than 3 h_max. Longer steps come nearer to the power
    iteration, which is faster, and fails where |h_min| > h_max.
    """
    return xp.where(qq > 0, xp.sqrt(dd / xp.where(qq > 0, qq, 1.0)), 0.0)


def points_down(curvature: Any, residual: Any, rate: Any, momentum: bool) -> Any:
    """Whether the forward copy points along the low end of the spectrum, and along one curvature only."""
    return ((curvature < 0) if momentum else (rate * curvature < 1)) & (rate * residual < ALIGNED)


def climb(xp: Any, state: Climb, growth: Any) -> Climb:
    """Take a step's growth into the account of a copy."""
    steps = state.steps + 1
    total = state.total + xp.where(xp.isfinite(growth), growth, 0.0)
    lowest = xp.minimum(state.lowest, total)
    quiet = xp.where(total - lowest < 1, steps, state.quiet)
    return Climb(steps, total, lowest, xp.maximum(state.gain, total - lowest), quiet)


def floor_of(xp: Any, roundoff: float, weights: Any, epsilon: Any, gain: Any) -> Any:
    """How much of a copy may be rounding: roundoff |theta| / epsilon e^gain."""
    return roundoff * weights / epsilon * xp.exp(xp.minimum(gain, 60.0))


def random_direction(n: int, seed: int, direction: str, draw: int) -> Floats:
    """Draw an offset of unit length, the same in every framework."""
    found = np.random.default_rng([seed, DIRECTIONS.index(direction), draw]).standard_normal(n)
    return found / np.linalg.norm(found)
