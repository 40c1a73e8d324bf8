"""Shadows: copies at a small distance, trained on the same batches and rescaled after every step.

Framework-free part of `recorders.torch.Shadow` and `recorders.jax.Shadow`. With d the offset of the copy, g the
gradients of the same batch at both points and q = g(theta + d) - g(theta), which is H d up to terms in |d|^2:

- the forward copy trains like the network, d' = d - eta q for plain SGD. Its growth ln(|d'| / |d|) is the local
  exponent of the training, in nats per step, and it aligns with the fastest-growing direction: that of h_min while the
  largest curvature is stable (h_max < 2 / eta - |h_min|), that of h_max beyond;
- the reverse copy goes uphill, d' = d + a q, and aligns with the direction of h_max for any eta.

Both curvatures are Rayleigh quotients d q / d d, with an error of second order in the remaining angle; the residual
|q - h d| / |d| bounds the distance to an eigenvalue. With the same data at every step they converge to eigenvalues of
its Hessian. With mini-batches each reading is d H_B d / d d for the batch B of the step, along a direction shaped by
many batches: readings scatter between batches, and their mean over steps approaches the largest curvature of the whole
set from below (the mean is d H d / d d, at most h_max). It is not the largest eigenvalue of the Hessian of a batch,
which is larger: use `sharpness` of the batch for that. The names of the metrics state the data:

================================ ================================================================
``shadow_growth_batch``          ln(|d'| / |d|) of the forward copy, nats per step
``shadow_h_min_batch``           its Rayleigh quotient; NaN while the copy is not aligned or eta x residual > 0.1
``shadow_h_min_residual_batch``  residual of the quotient
``shadow_h_max_batch``           Rayleigh quotient of the reverse copy
``shadow_h_max_residual_batch``  residual of the quotient
``shadow_reverse_growth_batch``  ln(|d'| / |d|) of the reverse copy; ln 2 once it is aligned, unless `ascent` is set
``shadow_floor_batch``           2^-53 |theta| / epsilon e^gain (2^-24 for float32): see `Floor`
``shadow_epsilon``               |d|
================================ ================================================================
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np

from recorders.hessian import check_extent
from trajtools.errors import DataError, UnknownNameError
from trajtools.reasons import Reason
from trajtools.types import Floats

LARGEST_FLOOR = 1e-2
DIRECTIONS = ("forward", "reverse")
ALIGNED = 0.1  # largest eta x residual of an aligned forward copy
ROUNDOFF = {8: 2.0**-53, 4: 2.0**-24, 2: 2.0**-9}
"""Half a unit in the last place, by bytes of the dtype; for two bytes that of bfloat16, the coarser one."""


class Shadow:
    """Common part of the shadows of torch and JAX: settings, readings of the last step, and metrics.

    Attributes
    ----------
    directions : tuple of str
        Directions of the copies.
    epsilon : float or None
        Distance of the copies, ``|d|``; None before the first step.
    of : str
        Extent of the data.
    n_steps : int
        Number of steps of the copies.
    n_gradients : int
        Number of extra gradients for the copies.
    n_lost : int
        Steps without numbers because a gradient was not finite.
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
            raise UnknownNameError(f'directions={directions!r}: it must be "forward", "reverse" or both')
        for name, value in (("epsilon", epsilon), ("ascent", ascent), ("window", window)):
            if value is not None and not value > 0:
                raise DataError(f"{name}={value}: it must be positive, or None to choose it automatically")
        self.epsilon, self._ascent, self._window = epsilon, ascent, window
        self.of = check_extent(of)
        self.n_steps = self.n_gradients = self.n_lost = 0
        self._floor = Floor(roundoff)
        self._last: dict[str, float] = {}

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the last step, for ``rec.record(**shadow.metrics)``; NaN before the first."""
        return {name: float(value) for name, value in self._named(np, self._last).items()}

    @property
    def h_max(self) -> float:
        """Largest curvature on the data of the last step, from the reverse copy."""
        return self._last.get("reverse_curvature", math.nan)

    @property
    def h_min(self) -> float:
        """Smallest curvature on the data of the last step, from the forward copy; NaN while it is not aligned."""
        return self._last["forward_curvature"] if self._last.get("down") else math.nan

    @property
    def growth(self) -> float:
        """``ln(|d'| / |d|)`` of the forward copy in the last step: the local exponent in nats."""
        return self._last.get("forward_growth", math.nan)

    @property
    def floor(self) -> float:
        """Fraction of the forward copy that may be rounding, see `recorders.shadows.Floor`."""
        return self._floor.value

    @property
    def warnings(self) -> tuple[Reason, ...]:
        """Caveats of the result."""
        return (self._floor.warning,) if self._floor.warning else ()

    def _choose_epsilon(self, weights: float) -> float:
        """Epsilon; by default sqrt(roundoff) |theta|, between rounding and the curvature of the gradient."""
        if self.epsilon is None:
            if not (weights > 0 and math.isfinite(weights)):
                raise DataError(f"|theta| = {weights}: no offset can be scaled to it; pass epsilon=")
            self.epsilon = math.sqrt(self._floor.roundoff) * weights
        return self.epsilon

    @staticmethod
    def _refuse_rounded(epsilon: float) -> NoReturn:
        """Raise for an epsilon whose offset vanishes in the first step."""
        raise DataError(
            f"epsilon={epsilon:.3g}: the dtype of the weights rounds the whole offset away. Pass a larger epsilon, "
            "or omit it to choose one automatically"
        )

    def _note(self, direction: str, reading: Sequence[float] | None) -> None:
        """Store the reading of one copy from `read`; None for a lost step."""
        self.n_lost += reading is None
        values = (math.nan, math.nan, math.nan) if reading is None else reading
        for name, value in zip(("growth", "curvature", "residual"), values, strict=True):
            self._last[f"{direction}_{name}"] = float(value)

    def _judge(self, rate: float, momentum: bool, weights: float) -> None:
        """Compute the direction of the forward copy and its rounding floor, after `_note`."""
        last = self._last
        last["down"] = float(points_down(last["forward_curvature"], last["forward_residual"], rate, momentum))
        self._floor.note(last["forward_growth"], weights, self.epsilon or math.nan)
        last["floor"] = self._floor.value

    def _named(self, xp: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
        """Map the numbers of a step to the metric names of this module.

        Their keys are ``<direction>_<growth, curvature or residual>``, ``down`` and ``floor``.
        """
        metrics: dict[str, Any] = {}
        if "forward" in self.directions:
            metrics["shadow_growth"] = numbers.get("forward_growth", math.nan)
            down = xp.asarray(numbers.get("down", 0.0)) > 0
            metrics["shadow_h_min"] = xp.where(down, numbers.get("forward_curvature", math.nan), math.nan)
            metrics["shadow_h_min_residual"] = xp.where(down, numbers.get("forward_residual", math.nan), math.nan)
            metrics["shadow_floor"] = numbers.get("floor", math.nan)
        if "reverse" in self.directions:
            metrics["shadow_reverse_growth"] = numbers.get("reverse_growth", math.nan)
            metrics["shadow_h_max"] = numbers.get("reverse_curvature", math.nan)
            metrics["shadow_h_max_residual"] = numbers.get("reverse_residual", math.nan)
        named = {f"{name}_{self.of}": value for name, value in metrics.items()}
        return {**named, "shadow_epsilon": xp.asarray(math.nan if self.epsilon is None else self.epsilon)}


class Floor:
    """Detects growth of a copy that may come from rounding errors.

    Attributes
    ----------
    climb : Climb
        Growth of the copy since its last fresh offset.
    value : float
        ``roundoff |theta| / epsilon e^gain``, the largest so far.
    warning : Reason or None
        The warning, once issued.

    Notes
    -----
    Every step rounds the weights, which adds an error of relative size roundoff |theta| / epsilon to the offset. While
    a copy is damped in a direction that becomes unstable later, only this error remains in it and dominates after
    growth by e^gain: the exponent then depends on epsilon and on the dtype (delayed loss of stability). A copy that
    grows from the start is not affected and gets no warning; `window=` draws fresh offsets if growth may begin late.
    """

    def __init__(self, roundoff: float) -> None:
        self.roundoff = roundoff
        self.value = 0.0
        self.warning: Reason | None = None
        self.climb = GROUND

    def afresh(self) -> None:
        """Reset for a fresh offset."""
        self.climb = GROUND

    def note(self, growth: float, weights: float, epsilon: float) -> None:
        """Add one step.

        Warns
        -----
        UserWarning
            As in `see`.
        """
        self.see(climb(np, self.climb, growth), weights, epsilon)

    def see(self, now: Climb, weights: float, epsilon: float) -> None:
        """Add the growth recorded elsewhere.

        Warns
        -----
        UserWarning
            Once, when the floor exceeds 1 % after late growth.
        """
        self.climb = now
        self.value = max(self.value, float(floor_of(np, self.roundoff, weights, epsilon, now.gain)))
        share = float(floor_of(np, self.roundoff, weights, epsilon, 0.0))
        present = share * math.exp(min(now.rise, 60.0))
        # Only copies that may have been damped below their rounding errors before growth.
        if present > LARGEST_FLOOR and now.missed > -math.log(share) and self.warning is None:
            self.warning = Reason.of(
                "delayed-loss-of-stability",
                "the forward shadow was quiet for {quiet:.0f} steps and has grown by {rise:.1f} nats since, up to "
                "{share:.0%} of it from rounding, so its exponent depends on epsilon (delayed loss of stability). Use "
                "fresh offsets (window=) or tangent_exponents",
                quiet=now.quiet,
                rise=now.rise,
                share=min(present, 1.0),
            )
            warnings.warn(str(self.warning), stacklevel=2)


class Climb(NamedTuple):
    """Growth of a copy since its start.

    Attributes
    ----------
    steps : scalar
        Number of steps.
    total, lowest : scalar
        Cumulative growth, in nats, and its minimum.
    gain : scalar
        Largest rise from a minimum, in nats.
    quiet : scalar
        Steps before the current rise reached one nat.
    """

    steps: Any = 0.0
    total: Any = 0.0
    lowest: Any = 0.0
    gain: Any = 0.0
    quiet: Any = 0.0

    @property
    def rise(self) -> Any:
        """Current rise from the minimum, in nats."""
        return self.total - self.lowest

    @property
    def missed(self) -> Any:
        """Additional nats of a copy that rises at the current rate from the start."""
        return self.quiet * self.rise / (self.steps - self.quiet + 1)


GROUND = Climb()


def climb(xp: Any, state: Climb, growth: Any) -> Climb:
    """Add the growth of one step."""
    steps = state.steps + 1
    total = state.total + xp.where(xp.isfinite(growth), growth, 0.0)
    lowest = xp.minimum(state.lowest, total)
    quiet = xp.where(total - lowest < 1, steps, state.quiet)
    return Climb(steps, total, lowest, xp.maximum(state.gain, total - lowest), quiet)


def floor_of(xp: Any, roundoff: float, weights: Any, epsilon: Any, gain: Any) -> Any:
    """Fraction of a copy that may be rounding: roundoff |theta| / epsilon e^gain."""
    return roundoff * weights / epsilon * xp.exp(xp.minimum(gain, 60.0))


def read(xp: Any, products: Sequence[Any], was: Any, now: Any) -> tuple[Any, Any, Any]:
    """Compute growth, curvature and residual of one step of a copy."""
    dd, dq, qq = products
    curvature = dq / dd
    return 0.5 * xp.log(now / was), curvature, xp.sqrt(xp.maximum(qq / dd - curvature**2, 0.0))


def own_ascent(xp: Any, dd: Any, qq: Any) -> Any:
    """Default length of the uphill step: ``|d| / |q|``.

    Notes
    -----
    For an aligned copy this is 1 / h_max: the component along h_max doubles, that along h_2 grows by 1 + h_2 / h_max,
    and components of negative curvature shrink if it is weaker than 3 h_max. Longer steps approach the power iteration,
    which is faster, and fails if |h_min| > h_max.
    """
    return xp.where(qq > 0, xp.sqrt(dd / xp.where(qq > 0, qq, 1.0)), 0.0)


def points_down(curvature: Any, residual: Any, rate: Any, momentum: bool) -> Any:
    """Whether the forward copy is aligned with the low end of the spectrum."""
    return ((curvature < 0) if momentum else (rate * curvature < 1)) & (rate * residual < ALIGNED)


def random_direction(n: int, seed: int, direction: str, draw: int) -> Floats:
    """Draw an offset of unit length, the same in every framework."""
    normal = np.random.default_rng([seed, DIRECTIONS.index(direction), draw]).standard_normal(n)
    return normal / np.linalg.norm(normal)


@dataclass(frozen=True)
class CurvatureRule:
    """Update rule of a learning rate that follows the largest curvature.

    Attributes
    ----------
    c : float
        Rate times smoothed h_max.
    smoothing : float
        Weight of the past in the exponential mean of h_max, 0 for none. The mean starts after the warm-up.
    lowest, highest : float
        Bounds of the rate.
    warm_up : int
        Updates at the initial rate.
    interval : int
        Updates between later changes of the rate.
    """

    c: float = 1.0
    smoothing: float = 0.9
    lowest: float = 0.0
    highest: float = math.inf
    warm_up: int = 20
    interval: int = 1

    def __post_init__(self) -> None:
        if not (self.c > 0 and 0 <= self.smoothing < 1 and 0 <= self.lowest <= self.highest):
            raise DataError(
                f"c={self.c}, smoothing={self.smoothing}, lowest={self.lowest}, highest={self.highest}: c must be "
                "positive (1 or less is safe, 2 the limit), smoothing in [0, 1), and 0 <= lowest <= highest"
            )
        if self.warm_up < 0 or self.interval < 1:
            raise DataError(
                f"warm_up={self.warm_up}, interval={self.interval}: warm_up must be at least 0 updates and interval "
                "at least 1"
            )

    def smooth(self, xp: Any, smoothed: Any, h_max: Any, n_updates: Any) -> Any:
        """Update the mean curvature."""
        mean = xp.where(xp.isnan(smoothed), h_max, self.smoothing * smoothed + (1 - self.smoothing) * h_max)
        counts = xp.isfinite(h_max) & (h_max > 0) & (n_updates > self.warm_up)
        return xp.where(counts, mean, smoothed)

    def rate(self, xp: Any, rate: Any, smoothed: Any, n_updates: Any) -> Any:
        """Compute the rate of an update."""
        due = (n_updates > self.warm_up) & ((n_updates - self.warm_up - 1) % self.interval == 0)
        target = xp.clip(self.c / xp.where(smoothed > 0, smoothed, 1.0), self.lowest, self.highest)
        return xp.where(due & (smoothed > 0), target, rate)
