"""Recurrence quantification in windows of time."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.errors import DataError
from trajtools.recurrences.conventions import find_convention
from trajtools.recurrences.quantities import measure
from trajtools.results.recurrence import MEASURES, Recurrence
from trajtools.results.recurrence_views import WindowedRecurrence


def quantify_windows(result: Recurrence, size: int, step: int, *, each: bool) -> WindowedRecurrence:
    """Cut windows out of a recurrence plot along its line of identity; see `Recurrence.windowed`."""
    for name, value in (("size", size), ("step", step)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise DataError(f"{name}={value!r}: windows are counted in samples, a whole number from 1 on")
    length = min(result.lines.shape)
    least = max(result.theiler, 1) + 2
    if not least <= size <= length:
        raise DataError(
            f"size={size}: a window holds between {least} states (theiler={result.theiler}) and all {length}"
        )
    start = np.arange(0, length - size + 1, step, dtype=np.int64)
    found = [_one(result, int(a), int(a) + size, each) for a in start]
    n_excluded = int(np.count_nonzero(~result.plot_source.finite[0]))
    empty = sum(measures is None for measures, _ in found)
    values = {
        name: np.array([np.nan if m is None else float(m[name]) for m, _ in found], dtype=np.float64)
        for name in MEASURES
    }
    warnings = (f"{empty} of {len(start)} windows hold no two finite states",) if empty else ()
    return WindowedRecurrence(
        start=start,
        time=np.asarray((start + (size - 1) / 2) * result.dt, dtype=np.float64),
        values=values,
        threshold=np.array([level for _, level in found], dtype=np.float64),
        size=int(size),
        step=int(step),
        time_unit=result.time_unit,
        settings=result.settings | {"each": each, "n_excluded": n_excluded},
        warnings=warnings,
    )


def _one(result: Recurrence, start: int, stop: int, each: bool) -> tuple[Any, float]:
    """Measures and threshold of one window; None where it holds too little."""
    rules = find_convention(result.convention)
    plot = result.plot_source.part(start, stop)
    rows, columns = plot.finite
    lags = np.flatnonzero(rows)[:, None] - np.flatnonzero(columns)[None]
    if not np.any(np.abs(lags) >= max(result.theiler, 0 if result.kind == "cross" else 1)):
        return None, float("nan")
    if each:
        plot = plot.with_own_threshold(result.theiler)
    lines = plot.count(rules.windows(result.theiler), rules.times == "middles")
    options = {name: result.settings[name] for name in ("lmin", "vmin", "wmin", "border", "semi", "trend_border")}
    measures = measure(
        lines,
        rules,
        theiler=result.theiler,
        symmetric=plot.symmetric,
        cross=result.kind == "cross",
        dt=result.dt,
        **options,
    )
    return measures, plot.level()
