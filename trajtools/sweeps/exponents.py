"""The exponent of one run of a sweep."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.errors import SelectionError, TrajtoolsError
from trajtools.results.exponent import Exponent
from trajtools.significance import blocked_mean
from trajtools.types import Floats

NAMES = ("auto", "trajectory")
FEWEST_BLOCKS = 8
N_RESAMPLES = 999
LEVEL = 0.95


def exponent_of(run: Any, asked: str | None, rng: int, words: list[str]) -> Exponent | None:
    """Measure the exponent of a run in the way that was asked for."""
    from trajtools.estimators.lyapunov import lyapunov
    from trajtools.estimators.twins import has_twins

    if asked is None:
        return None
    if asked.startswith("metric:"):
        return recorded(run, asked.removeprefix("metric:"), rng)
    if asked not in NAMES:
        raise SelectionError(f"exponent={asked!r} is none of {', '.join(map(repr, NAMES))}, 'metric:NAME' and None")
    if asked == "auto" and not has_twins(run):
        words.append("no twins: no exponent")
        return None
    try:
        return lyapunov(run, rng=rng)
    except TrajtoolsError as error:
        words.append(f"no exponent: {error}")
        return None


def recorded(run: Any, name: str, rng: int) -> Exponent:
    """Mean of a metric that holds the growth of a renormalised shadow per step."""
    if name not in list(run.metrics):
        raise SelectionError(f"run {run.name!r} has no metric {name!r}; it has {', '.join(run.metrics) or 'none'}")
    values = run.metrics[name].reshape(run.n_states, -1)
    values = values[np.isfinite(values).any(axis=1)]
    rate, interval = mean_growth(values, np.random.default_rng(rng))
    known = np.isfinite(interval[0])
    verdict = "inconclusive" if not known else "regular" if interval[1] <= 0 else "inconclusive"
    verdict = "transient" if known and interval[0] > 0 else verdict
    reasons = {
        "transient": "the recorded growth per step is above zero over this record; whether it persists is not shown",
        "regular": "the recorded growth per step is below zero",
        "inconclusive": "the recorded growth per step cannot be told from zero" if known else "too few recorded steps",
    }
    return Exponent(
        value=rate,
        interval=interval,
        level=LEVEL,
        p_value=float("nan"),
        null="",
        n_used=values.shape[1],
        n_total=values.shape[1],
        verdict=verdict,
        reasons=(reasons[verdict],),
        window=(0.0, float(run.step[-1])) if run.n_states else (float("nan"),) * 2,
        window_values=np.empty(0),
        values=np.array([np.nanmean(column) for column in values.T]) if values.size else np.empty(0),
        intercept=float("nan"),
        method=f"metric:{name}",
        unit=f"1/{run.time_unit}",
        settings={"metric": name, "states": len(values), "interval": "moving blocks of time", "rng": rng},
    )


def mean_growth(values: Floats, rng: np.random.Generator, level: float = LEVEL) -> tuple[float, tuple[float, float]]:
    """Mean of growth rates along time, with an interval from moving blocks."""
    nothing = (float("nan"), float("nan"))
    if not values.size or not np.isfinite(values).any():
        return float("nan"), nothing
    series = np.nanmean(values, axis=1)
    series = series[np.isfinite(series)]
    value, n = float(series.mean()), len(series)
    if n < 2 * FEWEST_BLOCKS:
        return value, nothing
    length = min(round(n**0.5), n // FEWEST_BLOCKS)  # longer than for independent noise: bursts last
    return value, blocked_mean(series, length, count=N_RESAMPLES, level=level, rng=rng)
