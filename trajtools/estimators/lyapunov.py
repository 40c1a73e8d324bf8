"""An exponent in one call."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.distances import MetricLike
from trajtools.errors import DataError, UnknownNameError
from trajtools.growth.units import with_steps
from trajtools.results import Exponent
from trajtools.surrogates import DRIFTING, STATIONARY
from trajtools.trajectory import Trajectory

METHODS = ("twins", "rosenstein", "kantz", "wolf", "hybrid")
NULLS = (*STATIONARY, *DRIFTING)
METRICS = ("l1", "l2", "linf", "precomputed")


def lyapunov(
    x: Any,
    *,
    method: str = "auto",
    metric: MetricLike | None = None,
    average: str | None = None,
    neighbors: Any = None,
    theiler: int | None = None,
    horizon: int | None = None,
    dim: int | None = None,
    delay: int | None = None,
    dt: float | None = None,
    window: tuple[int, int] | None = None,
    region: str | tuple[float, float] = "auto",
    null: str | None = "auto",
    surrogates: int = 99,
    procedure: str | None = None,
    level: float = 0.95,
    rng: Any = 0,
) -> Exponent:
    """Lyapunov exponent with its interval and a verdict, in one call.

    Parameters
    ----------
    x : Run, pair, list of Runs or pairs; or Trajectory, array_like (T, d) or (T,)
        Twins, as `trajtools.twins` takes them; or one trajectory, whose recurrences take the place of twins. A series
        is embedded.
    method : str
        ``"twins"``, ``"rosenstein"``, ``"kantz"``, ``"wolf"`` or ``"hybrid"``. ``"auto"``: twins where `x` holds twins,
        else rosenstein, which has the most room for growth.
    metric : str, callable, Metric or None
        Distance between states, see `trajtools.METRICS`. None: ``"l1"`` for twins, ``"l2"`` for recurrences, which know
        ``"l1"``, ``"l2"`` and ``"linf"``.
    average : str or None
        ``"mean-log"``, ``"log-mean"`` or ``"rms"``, see `trajtools.twins` and `trajtools.kantz`; None: theirs.
    neighbors : NearestK, WithinRadius or None
        Which states are neighbours; None: what the method takes.
    theiler : int or None, in samples
        States closer in time are no neighbours; None: three times the correlation time, see `theiler_window`.
    horizon : int or None, in samples
        How long pairs are followed; None: half as long again as the distances take to saturate (a quarter of that for
        wolf and hybrid).
    dim, delay : int or None
        Embedding; None: for a series from the data, see `estimate_dimension` and `estimate_delay`, and none for states.
        ``dim=1`` takes a series as the whole state; with ``dim > 1`` states are embedded, too.
    dt : float or None
        Time between two steps; None keeps the unit of the data.
    window : (int, int) or None
        Use only the states whose step s fulfils ``window[0] <= s < window[1]``.
    region : "auto" or (float, float)
        Times since the perturbation between which the growth is measured.
    null : str or None
        What the growth is tested against. ``"auto"``: ``"power-law"`` for twins; for recurrences a null that the data
        could come from, ``"iaaft"`` (series), ``"phase-randomised"`` (states), ``"shuffled-increments"`` or
        ``"random-walk"`` (where they drift). None: no test, and no verdict but inconclusive or regular.
    surrogates : int
        How many records are drawn from the null of recurrences; below 99 no p-value reaches the 1 % level.
    procedure : None or "danovski2024"
        None: the procedure of this toolkit; a name: a published one, for twins.
    level : float
        Confidence level of the interval.
    rng : int, numpy.random.Generator or None
        Source of the resampling and the surrogates; the same seed gives the same bits.

    Returns
    -------
    Exponent
        In 1 / (unit of time), natural logarithm; `curve` holds the divergence it was fitted to, `settings` everything
        that was chosen. Data that cannot be analysed give the verdict ``"inconclusive"`` with the reason.

    Raises
    ------
    UnknownNameError
        If there is no such method, metric, average, null or procedure.
    DataError
        If `x` has no twins though they were asked for, or an argument makes no sense.

    Notes
    -----
    For one trajectory the verdict is ``"chaotic"`` if it is stationary and returns, an exponent of zero is excluded at
    the 1 % level, the local slopes have a plateau, and fewer than 1 % of the records of the null keep neighbours close
    as long. The test takes at most 3000 states, the checks at most 20,000, and both a random projection of states
    with more than 64 dimensions. States of a flow whose samples lie further apart than neighbours do are interpolated
    by cubic splines first, because neighbours are else apart along the flow, which does not grow.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(60.0)
    >>> pairs = [(x * 0.9**t, [x * 0.9**t + 1e-6 * 0.5**t]) for x in (1.0, 2.0, 3.0)]
    >>> exponent = tt.lyapunov(pairs, window=(0, 20))
    >>> round(exponent.value, 6), exponent.verdict
    (-0.693147, 'regular')
    >>> x = np.empty(2000)
    >>> x[0] = 0.4
    >>> for t in range(1999):
    ...     x[t + 1] = 1 - 2 * x[t] ** 2 * 0.999
    >>> exponent = tt.lyapunov(x)
    >>> bool(abs(exponent.value - np.log(2)) < 0.03), exponent.verdict
    (True, 'chaotic')
    """
    # Imported here: estimators do not import each other, this one only dispatches.
    from trajtools.estimators.twins import has_twins, twins

    if method not in ("auto", *METHODS):
        raise UnknownNameError(f"there is no method {method!r}; there are {', '.join(METHODS)}, and 'auto' to choose")
    if method == "twins" or (method == "auto" and has_twins(x)):
        growth = twins(x, metric=metric or "l1", average=average or "mean-log", dt=dt, window=window)
        null = "power-law" if null == "auto" else null
        return growth.fit(region, null=null, procedure=procedure, level=level, rng=rng)
    if procedure is not None:
        raise UnknownNameError(f"procedure {procedure!r} is for twins; for one trajectory give procedure=None")
    from trajtools.estimators.single import Asked, answer

    asked = Asked(
        method="rosenstein" if method == "auto" else method,
        metric=_metric(metric),
        average=average,
        neighbors=neighbors,
        theiler=_count("theiler", theiler, 0),
        horizon=_count("horizon", horizon, 1),
        dim=_count("dim", dim, 1),
        delay=_count("delay", delay, 1),
        dt=dt,
        region=region,
        null=_null(null),
        surrogates=_count("surrogates", surrogates, 1) or 1,
        level=_level(level),
        rng=rng,
    )
    states, clock, doubts = _read(x, dt, window, dim)
    spacing, unit, step = clock
    found = answer(states, asked, clock=(spacing, unit), doubts=doubts)
    return found if step is None else with_steps(found, step)


def _metric(metric: MetricLike | None) -> str:
    name = "l2" if metric is None else metric if isinstance(metric, str) else getattr(metric, "name", str(metric))
    if name not in METRICS[:3]:
        raise UnknownNameError(
            f"metric {name!r}: recurrences know {', '.join(METRICS[:3])}; for others call rosenstein or kantz on "
            "distances, with metric='precomputed'"
        )
    return name


def _null(null: str | None) -> str | None:
    if null is not None and null not in ("auto", *NULLS):
        raise UnknownNameError(
            f"there is no null {null!r} for one trajectory; there are {', '.join(NULLS)}, 'auto', and None for no test"
        )
    return null


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    return level


def _count(name: str, value: Any, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise DataError(f"{name}={value!r}: a whole number, at least {least}")
    return int(value)


def _read(x: Any, dt: float | None, window: tuple[int, int] | None, dim: int | None) -> tuple[Any, Any, Any]:
    """States, (time between samples, unit, steps), and what is known to be wrong with them."""
    from trajtools.neighbors.curves import sampling

    doubts: tuple[str, ...] = ()
    if hasattr(x, "hparams") and hasattr(x, "trajectory"):
        if dim is None or dim == 1:
            doubts = _hidden_state(x)
        x = x.trajectory()
    if window is not None:
        x = x if isinstance(x, Trajectory) else Trajectory.from_array(x)
        x = x.window(*window)
    clock, states = sampling(x, dt), np.asarray(x)
    if states.dtype.kind not in "fiub" or states.ndim not in (1, 2):
        raise DataError(
            f"a trajectory is an array (T,) or (T, d) of real numbers, got {states.dtype} {states.shape}; for networks "
            "give their links as rows"
        )
    return states, clock, doubts


def _hidden_state(run: Any) -> tuple[str, ...]:
    """Objection where the weights of a run alone do not say where it goes next."""
    words = " ".join(f"{key}={value}" for key, value in run.hparams.items()).lower()
    moving = any(name in words for name in ("adam", "rmsprop", "adagrad", "lion", "nesterov"))
    momentum = run.hparams.get("momentum", 0)
    moving |= isinstance(momentum, (int, float)) and momentum != 0
    if not moving and run.optimizer is None:
        return ()
    return (
        "the weights alone are not the state: the optimiser keeps buffers (momentum or moments), so nearby weights "
        "can part without sensitivity; give delay coordinates (dim=2 or more, delay=1), or use twins",
    )
