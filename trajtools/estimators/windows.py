"""Exponents of one window of training after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from trajtools.errors import DataError
from trajtools.exponents.divergence import Divergence
from trajtools.exponents.exponent import Exponent
from trajtools.growth.twin_windows import twin_windows
from trajtools.growth.windows import Windows, unknown, windows_of
from trajtools.reasons import Reason
from trajtools.types import Ints

MOST_WINDOWS = 10_000


def lyapunov_windows(
    x: Any,
    *,
    window: int | None = None,
    step: int | None = None,
    method: str = "auto",
    metric: Any = None,
    dt: float | None = None,
    level: float = 0.95,
    rng: Any = 0,
    **options: Any,
) -> Windows:
    r"""Lyapunov exponent in windows of the training, which is not stationary.

    Parameters
    ----------
    x : Run, pair, list of Runs or pairs, Divergence of twins; or Trajectory, array_like (T, d) or (T,)
        As `trajtools.lyapunov` takes it, or curves of twins that are there already.
    window : int or None, in steps
        Length of the windows. None: for twins perturbed at several steps, from each of these to the next.
    step : int or None, in steps
        From the start of one window to that of the next; None: `window`.
    method : str
        As of `trajtools.lyapunov`.
    metric : str, callable, Metric or None
        Distance between states; None: that of the method.
    dt : float or None
        Time between two steps; None keeps the unit of the data.
    level : float
        Confidence level of the intervals.
    rng : int, numpy.random.Generator or None
        Source of the draws.
    **options
        For `trajtools.lyapunov` (neighbours), or `average` and `null` (twins).

    Returns
    -------
    Windows
        One exponent per window with its interval and verdict, and the largest cumulative gain.

    Raises
    ------
    DataError
        If there is no window to look at, or more than 10,000, or an option is unknown.
    UnknownNameError
        If there is no such method, metric or average.

    Notes
    -----
    One exponent from the first step to the last hides what happened between. Worse, a perturbation that has been
    carried along while the training was stable has lost the part that would grow later: when the dynamics becomes
    unstable, it needs hundreds of steps to show (delayed loss of stability). So twins perturbed inside a window are
    used in it, if there are any; windows without fresh twins are counted in a warning.

    Twins: growth from the state at the start of the window to that at its end, see `trajtools.growth.twin_windows`.
    Neighbours: the states of the window alone are the record, so windows must be long enough for states to return.

    See Also
    --------
    trajtools.lyapunov : one exponent for the whole record.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(101)
    >>> distance = 1e-6 * 0.9 ** np.minimum(t, 50) * 1.2 ** np.maximum(t - 50, 0)
    >>> found = tt.lyapunov_windows((np.ones(101), [1 + distance]), window=25)
    >>> np.round(np.exp(found.value), 3).tolist()
    [0.9, 0.9, 1.2, 1.2]
    """
    from trajtools.exponents.twins import has_twins

    for name, given, least in (("window", window, 2), ("step", step, 1)):
        whole = isinstance(given, (int, np.integer)) and not isinstance(given, bool)
        if given is not None and not (whole and given >= least):
            raise DataError(f"{name}={given!r}: a whole number of steps, {least} or more")
    if isinstance(x, Divergence) or method == "twins" or (method == "auto" and has_twins(x)):
        growth = x if isinstance(x, Divergence) else _twins(x, metric, dt, options)
        options = {name: value for name, value in options.items() if name != "average"}
        if set(options) - {"null"}:
            raise DataError(f"twins in windows know no option {', '.join(sorted(set(options) - {'null'}))}")
        null = options.get("null", "auto")
        begin, end = _twin_edges(growth, window, step)
        found = twin_windows(growth, begin, end, null="power-law" if null == "auto" else null, level=level, rng=rng)
    else:
        found = _of_record(x, window, step, method=method, metric=metric, dt=dt, level=level, rng=rng, **options)
    settings = found.settings | {"window": window, "step": step if step is not None else window}
    return replace(found, settings=settings)


def _twins(x: Any, metric: Any, dt: float | None, options: dict[str, Any]) -> Divergence:
    from trajtools.exponents.twins import twins

    return twins(x, metric=metric if metric is not None else "l1", average=options.get("average") or "mean-log", dt=dt)


def _twin_edges(growth: Divergence, window: int | None, step: int | None) -> tuple[Ints, Ints]:
    starts = np.unique(growth.start)
    per_step = float(growth.settings.get("dt", 1.0))
    last = np.where(np.isfinite(growth.distances), np.arange(len(growth.time)), 0).max(axis=1)
    end = int((growth.start + np.round(growth.time[last] / per_step)).max())
    if window is not None:
        return _edges(int(starts[0]), end, window, step)
    if len(starts) < 2:
        raise DataError(
            f"the twins were all perturbed at step {starts[0]}, so their starts define no windows: give window= (the "
            f"record goes to step {end}), or perturb at several steps"
        )
    return starts, np.append(starts[1:], max(end, int(starts[-1]) + 1))


def _edges(first: int, end: int, window: int, step: int | None) -> tuple[Ints, Ints]:
    """Windows of equal length; what is left at the end is a window if it is at least half as long, or the only one."""
    stride = step if step is not None else window
    start = np.arange(first, max(end - window // 2, first) + 1, stride, dtype=np.int64)
    if stride < window:
        start = start[: 1 + max(0, end - first - window + stride - 1) // stride]  # the first to reach the end is last
    if len(start) > MOST_WINDOWS:
        raise DataError(
            f"window={window}, step={stride} makes {len(start)} windows, at most {MOST_WINDOWS} are analysed"
        )
    return start, np.minimum(start + window, end)


def _of_record(x: Any, window: int | None, step: int | None, *, method: str, **options: Any) -> Windows:
    from trajtools.estimators.lyapunov import lyapunov

    if not hasattr(x, "step"):
        x = np.asarray(x)
        if x.dtype.kind not in "fiub" or x.ndim not in (1, 2):
            raise DataError(
                f"windows are cut from twins, a Run, a Trajectory, or an array (T,) or (T, d) of real numbers; got "
                f"{x.dtype} of shape {x.shape}"
            )
    recorded = np.asarray(x.step if hasattr(x, "step") else np.arange(len(x)), dtype=np.int64)
    if not len(recorded):
        raise DataError("the record holds no state")
    if window is None:
        raise DataError(
            f"give window=, the length of the windows in steps; the record goes from step {recorded[0]} to "
            f"{recorded[-1]}"
        )
    gap = int(np.median(np.diff(recorded))) if len(recorded) > 1 else 1
    start, stop = _edges(int(recorded[0]), int(recorded[-1]) + gap, window, step)
    found: list[Exponent] = []
    for a, b in zip(start.tolist(), stop.tolist(), strict=True):
        if not np.any((recorded >= a) & (recorded < b)):
            none = Reason.of("no-states", "no state was recorded in the steps {start} to {stop}", start=a, stop=b)
            found.append(unknown(method, "1/step", options["level"], none))
        else:
            found.append(lyapunov(x, method=method, window=(a, b), **options))
    known = np.array([exponent.verdict != "inconclusive" for exponent in found])
    clock = _time_per_step(x, recorded, options["dt"])
    return windows_of(found, start, stop, clock, known=known, settings=_settings(found, options))


def _settings(found: list[Exponent], options: dict[str, Any]) -> dict[str, Any]:
    rng = options["rng"]
    plain = {name: value for name, value in options.items() if name != "rng"}
    return plain | {"method": found[0].method, "rng": int(rng) if isinstance(rng, (int, np.integer)) else str(rng)}


def _time_per_step(x: Any, recorded: Ints, dt: float | None) -> float:
    """Of a record: `dt` is the time from one sample to the next, which may be several steps apart."""
    if dt is None:
        return float(getattr(x, "dt", 1.0))
    gap = float(recorded[1] - recorded[0]) if len(recorded) > 1 else 1.0
    return dt / gap
