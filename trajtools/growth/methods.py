"""Which fit belongs to which curve."""

from __future__ import annotations

from typing import Any

from trajtools.exponents.exponent import Exponent
from trajtools.growth import exponent
from trajtools.growth.recurrent import METHODS, fit_recurrent
from trajtools.results.divergence import Divergence


def fit(
    growth: Divergence,
    region: str | tuple[float, float] = "auto",
    *,
    null: str | None = "power-law",
    procedure: str | None = None,
    level: float = 0.95,
    rng: Any = 0,
) -> Exponent:
    """Fit the exponential regime of a divergence, twins' or neighbours'.

    Parameters
    ----------
    growth : Divergence
        The curves.
    region : "auto" or (float, float)
        Times between which the growth is measured, in the time unit of the divergence; ``"auto"`` chooses.
    null : "power-law", "quadratic-basin" or None
        What the growth of twins is tested against; neighbours are tested against surrogates of the data, by
        `trajtools.lyapunov`.
    procedure : None or str
        A published procedure, see `trajtools.growth.exponent.fit`.
    level : float
        Confidence level of the interval.
    rng : int, numpy.random.Generator or None
        Source of the resampling.

    Returns
    -------
    Exponent
        See `trajtools.growth.exponent.fit` for twins, `trajtools.growth.recurrent.fit_recurrent` for neighbours.
    """
    if procedure is None and growth.method in METHODS:
        return fit_recurrent(growth, region, level=level, rng=rng)
    return exponent.fit(growth, region, null=null, procedure=procedure, level=level, rng=rng)
