"""A sweep along one hyper-parameter as arrays: the runs at each value put together, and their resampled exponents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf

import numpy as np
from numpy.typing import NDArray

from trajtools.results.sweep import SweepPoint
from trajtools.types import Floats

N_RESAMPLES = 1999
SENSITIVE = ("chaotic", "transient")


@dataclass(frozen=True, eq=False)
class Curve:
    """Exponents against x.

    Attributes
    ----------
    x : ndarray of float64, shape (n,)
        Values of the hyper-parameter, in order.
    value, error : ndarray of float64, shape (n,)
        Mean exponent there, and its standard error; NaN where it is unknown.
    duration : ndarray of float64, shape (n,)
        For how long the growth was measured.
    verdict : tuple of str
        ``"mixed"`` where runs at one x differ.
    """

    x: Floats
    value: Floats
    error: Floats
    duration: Floats
    verdict: tuple[str, ...]

    @property
    def sensitive(self) -> NDArray[np.bool_]:
        """Where the verdict says sensitive dependence."""
        return np.array([v in SENSITIVE for v in self.verdict], dtype=bool)

    def draws(self, rng: np.random.Generator, n: int = N_RESAMPLES) -> Floats:
        """Resampled exponents."""
        error = np.where(np.isfinite(self.error), self.error, 0.0)
        return np.asarray(self.value + error * rng.standard_normal((n, len(self.x))))


def curve_of(points: Sequence[SweepPoint]) -> Curve:
    """Put the runs at each x together; controls and runs without an exponent are left out."""
    with_exponent = [p for p in points if not p.control and p.exponent is not None and np.isfinite(p.exponent.value)]
    xs = sorted({p.x for p in with_exponent})
    rows = [_together([p for p in with_exponent if p.x == x]) for x in xs]
    value, error, duration = (np.array([row[k] for row in rows], dtype=np.float64) for k in range(3))
    return Curve(np.array(xs, dtype=np.float64), value, error, duration, tuple(str(row[3]) for row in rows))


def _together(points: list[SweepPoint]) -> tuple[float, float, float, str]:
    exponents = [p.exponent for p in points if p.exponent is not None]
    values = np.array([e.value for e in exponents])
    errors = np.array([(e.interval[1] - e.interval[0]) / 2 / _quantile(e.level) for e in exponents])
    verdicts = {e.verdict for e in exponents}
    error = float(np.sqrt(np.sum(errors**2))) / len(errors)
    if len(values) > 1:  # runs that differ by their seed differ by more than their intervals say
        error = max(error, float(values.std(ddof=1)) / np.sqrt(len(values))) if np.isfinite(error) else float("nan")
    spans = [e.window[1] - e.window[0] for e in exponents]
    return float(values.mean()), error, float(np.mean(spans)), verdicts.pop() if len(verdicts) == 1 else "mixed"


def _quantile(level: float) -> float:
    """Two-sided quantile of the normal distribution, by bisection; scipy would cost its import."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if erf(middle / 2**0.5) < level else (low, middle)
    return low


def quantiles(draws: Floats, level: float) -> tuple[float, float]:
    """Interval of draws, those without a value left out."""
    known = draws[np.isfinite(draws)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
