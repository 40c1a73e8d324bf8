"""Shadows: copies at a tiny distance, trained on the same batches and rescaled after every step.

Framework-free bookkeeping behind `recorders.torch.Shadow` and `recorders.jax.Shadow`. With d the offset of the copy,
g the gradients of the same batch at both places and q = g(theta + d) - g(theta), which is H d up to terms in |d|^2:

- the forward copy trains as the network does, d' = d - eta q for plain SGD. Its growth ln(|d'| / |d|) is the local
  exponent of the training, in nats per step, and it turns towards the direction that grows most: that of h_min while
  the largest curvature is stable (h_max < 2 / eta - |h_min|), that of h_max beyond;
- the reverse copy goes uphill, d' = d + a q, and turns towards the direction of h_max whatever eta is.

Both curvatures are read as Rayleigh quotients d q / d d, whose error is of second order in the angle that is still
missing; the residual |q - h d| / |d| tells how far the quotient is from an eigenvalue at most. With the same data at
every step they become eigenvalues of its Hessian. With mini-batches each reading is d H_B d / d d for the batch B of
the step, along a direction that many batches have turned: readings scatter from batch to batch, and their mean over
steps comes close to the largest curvature of the whole set from below (the mean is d H d / d d, at most h_max). It is
not the largest eigenvalue of a batch's own Hessian, which is larger: `sharpness` of the batch tells that one. The names
of the metrics say which data were used:

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
ALIGNED = 0.1  # largest eta x residual at which the forward copy counts as pointing along one curvature
ROUNDOFF = {8: 2.0**-53, 4: 2.0**-24, 2: 2.0**-9}
"""Half a unit in the last place, by bytes of the dtype; of the two of two bytes the coarser one, bfloat16."""


class Shadow:
    """What the shadows of torch and JAX share: settings, the readings of the last step, and their metrics.

    Attributes
    ----------
    directions : tuple of str
        Which copies there are.
    epsilon : float or None
        Distance of the copies, |d|; None while it has not been chosen.
    of : str
        What the data are.
    n_steps : int
        Steps that the copies have made.
    n_gradients : int
        Gradients that the copies have cost, beyond those of the training.
    n_lost : int
        Steps without numbers, because a gradient was not finite.
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
                raise DataError(f"{name}={value}: it must be positive, or None to choose it automatically")
        self.epsilon, self._ascent, self._window = epsilon, ascent, window
        self.of = check_extent(of)
        self.n_steps = self.n_gradients = self.n_lost = 0
        self._floor = Floor(roundoff)
        self._last: dict[str, float] = {}

    @property
    def metrics(self) -> dict[str, float]:
        """Numbers of the last step, for ``rec.record(**shadow.metrics)``; NaN before the first."""
        return {name: float(value) for name, value in self._named(np, self._last).items()}

    @property
    def h_max(self) -> float:
        """Largest curvature of the last step's data, from the reverse copy."""
        return self._last.get("reverse_curvature", math.nan)

    @property
    def h_min(self) -> float:
        """Smallest curvature of the last step's data, from the forward copy; NaN while that points elsewhere."""
        return self._last["forward_curvature"] if self._last.get("down") else math.nan

    @property
    def growth(self) -> float:
        """ln(|d'| / |d|) of the forward copy in the last step: the local exponent, nats per step."""
        return self._last.get("forward_growth", math.nan)

    @property
    def floor(self) -> float:
        """How much of the forward copy may be rounding, see `recorders.shadows.Floor`."""
        return self._floor.value

    @property
    def warnings(self) -> tuple[Reason, ...]:
        """What the reader should know before believing the numbers."""
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
        """Refuse an epsilon whose offset vanishes in the very first step."""
        raise DataError(
            f"epsilon={epsilon:.3g}: the dtype of the weights rounds the whole offset away. Pass a larger epsilon, "
            "or omit it to choose one automatically"
        )

    def _note(self, direction: str, reading: Sequence[float] | None) -> None:
        """Keep the reading of one copy, as `read` gives it; None where the step has no numbers."""
        self.n_lost += reading is None
        values = (math.nan, math.nan, math.nan) if reading is None else reading
        for name, value in zip(("growth", "curvature", "residual"), values, strict=True):
            self._last[f"{direction}_{name}"] = float(value)

    def _judge(self, rate: float, momentum: bool, weights: float) -> None:
        """Find where the forward copy points and how near it is to rounding, after `_note`."""
        last = self._last
        last["down"] = float(points_down(last["forward_curvature"], last["forward_residual"], rate, momentum))
        self._floor.note(last["forward_growth"], weights, self.epsilon or math.nan)
        last["floor"] = self._floor.value

    def _named(self, xp: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
        """Name the numbers of a step as at the top of this module.

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
    """Watches whether the growth of a copy could be that of rounding errors.

    Attributes
    ----------
    climb : Climb
        How the copy has grown since its last fresh offset.
    value : float
        ``roundoff |theta| / epsilon e^gain``, the largest seen.
    warning : Reason or None
        The warning, once it was given.

    Notes
    -----
    Every step rounds the weights, which adds an error of the relative size roundoff |theta| / epsilon to the offset.
    While a copy is damped in a direction that becomes unstable later, that error is all that is left there, and when it
    has grown by e^gain it is what is seen: the exponent then depends on epsilon and on the dtype (delayed loss of
    stability). A copy that grows from its beginning on is not concerned, and nobody is warned of it; `window=` draws
    fresh offsets where growth may begin late.
    """

    def __init__(self, roundoff: float) -> None:
        self.roundoff = roundoff
        self.value = 0.0
        self.warning: Reason | None = None
        self.climb = GROUND

    def afresh(self) -> None:
        """Begin with a fresh offset."""
        self.climb = GROUND

    def note(self, growth: float, weights: float, epsilon: float) -> None:
        """Take in one step.

        Warns
        -----
        UserWarning
            As `see` does.
        """
        self.see(climb(np, self.climb, growth), weights, epsilon)

    def see(self, now: Climb, weights: float, epsilon: float) -> None:
        """Take in an account that was kept elsewhere.

        Warns
        -----
        UserWarning
            Once, when the floor exceeds 1 % by a growth that began late.
        """
        self.climb = now
        self.value = max(self.value, float(floor_of(np, self.roundoff, weights, epsilon, now.gain)))
        share = float(floor_of(np, self.roundoff, weights, epsilon, 0.0))
        present = share * math.exp(min(now.rise, 60.0))
        # A copy that could have been damped below its rounding errors before it grew; not one that grew from the start.
        if present > LARGEST_FLOOR and now.missed > -math.log(share) and self.warning is None:
            self.warning = Reason.of(
                "delayed-loss-of-stability",
                "the forward shadow at epsilon = {epsilon:.2g} was quiet for {quiet:.0f} steps and has grown by "
                "{rise:.1f} nats since. A perturbation that was damped earlier grows late (delayed loss of "
                "stability), partly from rounding errors: after the same growth, they may be {share:.2g} of it. Its "
                "exponent may depend on epsilon. "
                "Compare with fresh offsets (window=), another epsilon, float64, or tangent_exponents",
                epsilon=epsilon,
                quiet=now.quiet,
                rise=now.rise,
                share=present,
            )
            warnings.warn(str(self.warning), stacklevel=2)


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


def random_direction(n: int, seed: int, direction: str, draw: int) -> Floats:
    """Draw an offset of unit length, the same in every framework."""
    normal = np.random.default_rng([seed, DIRECTIONS.index(direction), draw]).standard_normal(n)
    return normal / np.linalg.norm(normal)


@dataclass(frozen=True)
class CurvatureRule:
    """How a rate follows the largest curvature.

    Attributes
    ----------
    c : float
        Rate times smoothed h_max.
    smoothing : float
        Weight of the past in the exponential mean of h_max, 0 for none. The mean begins after the warm-up.
    lowest, highest : float
        Bounds of the rate.
    warm_up : int
        So many updates keep the rate as it was given.
    interval : int
        After that, the rate is set anew at every so many updates.
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
                "positive (1 or less is careful, 2 the limit), smoothing in [0, 1), and 0 <= lowest <= highest"
            )
        if self.warm_up < 0 or self.interval < 1:
            raise DataError(
                f"warm_up={self.warm_up}, interval={self.interval}: warm_up must be at least 0 updates and interval "
                "at least 1"
            )

    def smooth(self, xp: Any, smoothed: Any, h_max: Any, n_updates: Any) -> Any:
        """Take a curvature into the mean."""
        mean = xp.where(xp.isnan(smoothed), h_max, self.smoothing * smoothed + (1 - self.smoothing) * h_max)
        counts = xp.isfinite(h_max) & (h_max > 0) & (n_updates > self.warm_up)
        return xp.where(counts, mean, smoothed)

    def rate(self, xp: Any, rate: Any, smoothed: Any, n_updates: Any) -> Any:
        """Set the rate."""
        due = (n_updates > self.warm_up) & ((n_updates - self.warm_up - 1) % self.interval == 0)
        wanted = xp.clip(self.c / xp.where(smoothed > 0, smoothed, 1.0), self.lowest, self.highest)
        return xp.where(due & (smoothed > 0), wanted, rate)
