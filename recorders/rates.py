"""A learning rate from curvature, c / h_max: the formulas behind `CurvatureLR` of torch and of JAX.

With plain gradient descent c = 1 zeroes the steepest direction of a quadratic in one step, and c = 2 is where it stops
being stable (heavy ball: 2 (1 + momentum)). h_max is smoothed, the rate is clipped, and for the first steps the given
rate stands, because the reverse shadow has yet to turn towards the steepest direction and reports too little until it
has. Published descriptions leave smoothing, clipping and intervals open; here each is an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trajtools.errors import DataError


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
                f"warm_up={self.warm_up}, interval={self.interval}: updates, at least 0 and at least 1 of them"
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
