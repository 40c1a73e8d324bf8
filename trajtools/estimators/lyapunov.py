"""An exponent in one call."""

from __future__ import annotations

from typing import Any

from trajtools.distances import MetricLike
from trajtools.errors import UnknownNameError
from trajtools.results import Exponent

METHODS = ("twins",)


def lyapunov(
    x: Any,
    *,
    method: str = "auto",
    metric: MetricLike = "l1",
    average: str = "mean-log",
    dt: float | None = None,
    window: tuple[int, int] | None = None,
    region: str | tuple[float, float] = "auto",
    null: str | None = "power-law",
    procedure: str | None = None,
    level: float = 0.95,
    rng: Any = 0,
) -> Exponent:
    """Lyapunov exponent with its interval and a verdict, in one call.

    Parameters
    ----------
    x : Run, pair, or list of Runs or pairs
        As `trajtools.twins` takes it.
    method : str
        ``"twins"``, or ``"auto"``: the method that fits the data, which the result names.
    metric : str, callable or Metric
        Distance between states, see `trajtools.METRICS`.
    average : str
        ``"mean-log"``, ``"log-mean"`` or ``"rms"``, see `trajtools.twins`.
    dt : float or None
        Time between two steps; None keeps the unit of the data.
    window : (int, int) or None
        Use only the states whose step s fulfils ``window[0] <= s < window[1]``.
    region : "auto" or (float, float)
        Times since the perturbation between which the growth is measured.
    null : "power-law" or None
        What the growth is tested against.
    procedure : None or "danovski2024"
        None: the procedure of this toolkit; a name: a published one.
    level : float
        Confidence level of the interval.
    rng : int, numpy.random.Generator or None
        Source of the resampling; the same seed gives the same bits.

    Returns
    -------
    Exponent
        In 1 / (unit of time), natural logarithm; `curve` holds the divergence it was fitted to.

    Raises
    ------
    UnknownNameError
        If there is no such method, metric, average, null or procedure.
    DataError
        If `x` has no twins.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(60.0)
    >>> pairs = [(x * 0.9**t, [x * 0.9**t + 1e-6 * 0.5**t]) for x in (1.0, 2.0, 3.0)]
    >>> exponent = tt.lyapunov(pairs, window=(0, 20))
    >>> round(exponent.value, 6), exponent.verdict
    (-0.693147, 'regular')
    """
    if method not in ("auto", *METHODS):
        raise UnknownNameError(f"there is no method {method!r}; there are {', '.join(METHODS)}, and 'auto' to choose")
    from trajtools.estimators.twins import twins  # here: estimators do not import each other, this one only dispatches

    growth = twins(x, metric=metric, average=average, dt=dt, window=window)
    return growth.fit(region, null=null, procedure=procedure, level=level, rng=rng)
