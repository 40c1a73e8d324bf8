"""What a shadow tells: a copy a hair's breadth away, moved on the same batches and drawn back after every step.

Framework-free bookkeeping behind `recorders.torch.Shadow` and `recorders.jax.Shadow`. With d the offset of the copy,
g the gradients of the same batch at both places and q = g(theta + d) - g(theta), which is H d up to terms in |d|^2:

- the forward copy trains as the network does, d' = d - eta q for plain SGD. Its growth ln(|d'| / |d|) is the local
  exponent of the training, in nats per step, and it turns towards the direction that grows most: that of h_min while
  the largest curvature is stable (h_max < 2 / eta - |h_min|), that of h_max beyond;
- the reverse copy goes uphill, d' = d + a q, and turns towards the direction of h_max whatever eta is.

Both curvatures are read as Rayleigh quotients d q / d d, whose error is of second order in the angle that is still
missing; the residual |q - h d| / |d| tells how far the quotient is from an eigenvalue at most. They are those of the
data that were used: of the mini-batch in stochastic training, whose largest curvature exceeds that of the whole set.
The names of the metrics say so:

================================ ================================================================
``shadow_growth_batch``          ln(|d'| / |d|) of the forward copy, nats per step
``shadow_h_min_batch``           its Rayleigh quotient; NaN while the copy points elsewhere or eta x residual > 0.1
``shadow_h_min_residual_batch``  residual of the quotient
``shadow_h_max_batch``           Rayleigh quotient of the reverse copy
``shadow_h_max_residual_batch``  residual of the quotient
``shadow_reverse_growth_batch``  ln(|d'| / |d|) of the reverse copy; ln 2 once it is aligned, unless `ascent` is given
``shadow_floor_batch``           2^-53 |theta| / epsilon e^gain (2^-24 for float32): see `Floor`
``shadow_epsilon``               |d|
================================ ================================================================
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recorders.curvature import label
from trajtools.store import DataError, UnknownNameError

DIRECTIONS = ("forward", "reverse")
LARGEST_FLOOR = 1e-2
ALIGNED = 0.1  # largest eta x residual at which the forward copy counts as pointing along one curvature
ROUNDOFF = {8: 2.0**-53, 4: 2.0**-24, 2: 2.0**-9}
"""Half a unit in the last place, by bytes of the dtype; of the two of two bytes the coarser one, bfloat16."""


@dataclass(frozen=True)
class Reading:
    """What one step of one copy told.

    Attributes
    ----------
    growth : float
        ln(|d'| / |d|), nats per step.
    curvature : float
        Rayleigh quotient d q / d d.
    residual : float
        |q - curvature d| / |d|.
    """

    growth: float = math.nan
    curvature: float = math.nan
    residual: float = math.nan


NOTHING = Reading()


def rayleigh(dd: float, dq: float, qq: float) -> tuple[float, float]:
    """Curvature along an offset, and how far it is from an eigenvalue at most.

    Parameters
    ----------
    dd, dq, qq : float
        Inner products of the offset d and of the difference q of the gradients.

    Returns
    -------
    tuple of (float, float)
        d q / d d, and |q - (d q / d d) d| / |d|.
    """
    curvature = dq / dd
    return curvature, math.sqrt(max(qq / dd - curvature**2, 0.0))


def own_ascent(dd: float, qq: float) -> float:
    """Length of the uphill step where the user gave none: |d| / |q|.

    Parameters
    ----------
    dd, qq : float
        Squared lengths of the offset and of the difference of the gradients.

    Returns
    -------
    float
        0 where there is no curvature at all.

    Notes
    -----
    Once the copy is aligned this is 1 / h_max: what has the curvature h_max doubles, what has h_2 grows by 1 + h_2 /
    h_max, and negative curvature shrinks as long as it is weaker than 3 h_max. Longer steps come nearer to the power
    iteration, which is faster, and fails where |h_min| > h_max.
    """
    return math.sqrt(dd / qq) if qq > 0 else 0.0


class Floor:
    """Watches whether the growth of a copy could be that of rounding errors.

    Parameters
    ----------
    roundoff : float
        Half a unit in the last place of the weights.

    Attributes
    ----------
    gain : float
        Largest growth since any earlier step, in nats; it begins anew with a fresh offset.
    value : float
        ``roundoff |theta| / epsilon e^gain``, the largest seen.
    warned : str
        The warning, once it was given; else empty.

    Notes
    -----
    Every step rounds the weights, which adds an error of the relative size roundoff |theta| / epsilon to the offset.
    While a copy is damped in a direction that becomes unstable later, that error is all that is left there, and when it
    has grown by e^gain it is what is seen: the exponent then depends on epsilon and on the dtype (delayed loss of
    stability). A copy that began afresh where the growth begins is not concerned: `window=` draws fresh offsets.
    """

    def __init__(self, roundoff: float) -> None:
        self.roundoff = roundoff
        self.value = 0.0
        self.warned = ""
        self.afresh()

    def afresh(self) -> None:
        """Begin with a fresh offset."""
        self._total = self._lowest = self.gain = 0.0

    def note(self, growth: float, weights: float, epsilon: float) -> None:
        """Take in one step.

        Parameters
        ----------
        growth : float
            ln(|d'| / |d|).
        weights : float
            |theta|.
        epsilon : float
            |d|.

        Warns
        -----
        UserWarning
            Once, when the floor exceeds 1 %.
        """
        if math.isfinite(growth):
            self._total += growth
            self._lowest = min(self._lowest, self._total)
            self.gain = max(self.gain, self._total - self._lowest)
        self.value = max(self.value, self.roundoff * weights / epsilon * math.exp(min(self.gain, 700.0)))
        if self.value > LARGEST_FLOOR and not self.warned:
            self.warned = (
                f"a shadow at epsilon = {epsilon:.2g} has grown by {self.gain:.1f} nats: rounding errors of "
                f"{self.roundoff * weights / epsilon:.1g} of its length, grown as much, may be what is seen. Compare "
                "with fresh offsets (window=), another epsilon, float64, or tangent_exponents"
            )
            warnings.warn(self.warned, stacklevel=4)


class Book:
    """Settings of a pair of shadows, their last readings, and the metrics that are made of them.

    Parameters
    ----------
    directions : sequence of {"forward", "reverse"}
        Which copies there are.
    epsilon : float or None
        As given; None until it is chosen.
    ascent : float or None
        As given.
    window : int or None
        As given.
    of : str
        Whose Hessian.
    roundoff : float
        Of the coarsest dtype among the weights.

    Raises
    ------
    UnknownNameError, DataError
        If an argument makes no sense.
    """

    def __init__(
        self,
        directions: Sequence[str],
        *,
        epsilon: float | None,
        ascent: float | None,
        window: int | None,
        of: str,
        roundoff: float,
    ) -> None:
        self.directions = (directions,) if isinstance(directions, str) else tuple(directions)
        odd = [name for name in self.directions if name not in DIRECTIONS]
        if odd or not self.directions:
            raise UnknownNameError(f'directions={directions!r}: give "forward", "reverse" or both')
        for name, value in (("epsilon", epsilon), ("ascent", ascent), ("window", window)):
            if value is not None and not value > 0:
                raise DataError(f"{name}={value}: it must be positive, or None to have it chosen")
        self.epsilon, self.ascent, self.window = epsilon, ascent, window
        self.of = label(of)
        self.floor = Floor(roundoff)
        self.last = dict.fromkeys(DIRECTIONS, NOTHING)
        self.points_down = True
        self.n_steps = self.n_gradients = self.n_lost = 0

    def choose_epsilon(self, weights: float) -> float:
        """Give epsilon; where none was given, sqrt(roundoff) |theta|, between rounding and curvature of the gradient.

        Parameters
        ----------
        weights : float
            |theta|.

        Returns
        -------
        float
            |d|.

        Raises
        ------
        DataError
            If the weights are zero or not finite.
        """
        if self.epsilon is None:
            if not (weights > 0 and math.isfinite(weights)):
                raise DataError(f"|theta| = {weights}: no offset can be scaled to it; give epsilon=")
            self.epsilon = math.sqrt(self.floor.roundoff) * weights
        return self.epsilon

    def due(self) -> bool:
        """Whether the forward copy begins afresh at this step."""
        return self.window is not None and self.n_steps % self.window == 0

    def forward(self, reading: Reading, rate: float, momentum: bool, weights: float) -> None:
        """Take in a step of the forward copy.

        Parameters
        ----------
        reading : Reading
            What it told.
        rate : float
            Learning rate; where groups differ, the largest.
        momentum : bool
            Whether the optimiser has momentum: then a positive curvature says nothing about which end it belongs to.
        weights : float
            |theta|.
        """
        self.last["forward"] = reading
        # Along the low end of the spectrum a plain step stretches without turning round; along the high end it flips.
        self.points_down = reading.curvature < 0 if momentum else rate * reading.curvature < 1
        self.points_down &= rate * reading.residual < ALIGNED
        self.floor.note(reading.growth, weights, self.epsilon or math.nan)

    @property
    def h_max(self) -> float:
        """Largest curvature, from the reverse copy."""
        return self.last["reverse"].curvature

    @property
    def h_min(self) -> float:
        """Smallest curvature, from the forward copy; NaN while it does not point there."""
        return self.last["forward"].curvature if self.points_down else math.nan

    @property
    def metrics(self) -> dict[str, float]:
        """The last step's numbers, under the names at the top of this module."""
        found = {}
        if "forward" in self.directions:
            down = self.last["forward"]
            found["shadow_growth"] = down.growth
            found["shadow_h_min"] = self.h_min
            found["shadow_h_min_residual"] = down.residual if self.points_down else math.nan
            found["shadow_floor"] = self.floor.value
        if "reverse" in self.directions:
            up = self.last["reverse"]
            found["shadow_reverse_growth"] = up.growth
            found["shadow_h_max"] = up.curvature
            found["shadow_h_max_residual"] = up.residual
        named = {f"{name}_{self.of}": value for name, value in found.items()}
        return {**named, "shadow_epsilon": math.nan if self.epsilon is None else self.epsilon}


def random_direction(n: int, seed: int, direction: str, draw: int) -> np.ndarray:
    """Draw an offset of unit length, the same in every framework.

    Parameters
    ----------
    n : int
        Number of weights.
    seed : int
        Of the shadow.
    direction : str
        Of the copy.
    draw : int
        How many offsets the copy had before.

    Returns
    -------
    ndarray of float64, shape (n,)
        Normal in every entry, scaled.
    """
    found = np.random.default_rng([seed, DIRECTIONS.index(direction), draw]).standard_normal(n)
    return found / np.linalg.norm(found)
