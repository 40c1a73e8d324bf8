"""Confidence intervals of recurrence measures, from lines drawn with replacement."""

from __future__ import annotations

import numpy as np

from trajtools.errors import DataError
from trajtools.recurrences.conventions import find_convention
from trajtools.recurrences.quantities import correct_border, line_measures, recurrence_times
from trajtools.results.recurrence import Recurrence
from trajtools.results.recurrence_views import RecurrenceIntervals
from trajtools.types import Floats, Ints

_GROUPS = {"diagonal": ("DET", "L", "ENTR"), "vertical": ("LAM", "TT", "VENTR"), "times": (None, "MRT", "RTE")}


def resample_lines(
    result: Recurrence, *, n: int, level: float, rng: np.random.Generator | int | None
) -> RecurrenceIntervals:
    """Draw as many lines as there are, with replacement, and measure them; see `Recurrence.bootstrap`.

    Notes
    -----
    In a symmetric plot every diagonal line is there twice, and so is every vertical line as a horizontal one: half as
    many diagonal lines are drawn. Lines are drawn as if they were independent. Neighbouring lines are not: the
    intervals are too narrow for smooth motion, and say nothing about another stretch of the trajectory.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 100:
        raise DataError(f"n={n!r}: percentiles take 100 resamples at least")
    if not 0 < level < 1:
        raise DataError(f"level={level!r}: a confidence level is between 0 and 1")
    source = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(0 if rng is None else rng)
    rules, symmetric = find_convention(result.convention), bool(result.settings["symmetric"])
    options = result.settings
    lengths = {
        "diagonal": correct_border(result.lines, options["border"], semi=options["semi"], symmetric=symmetric),
        "vertical": result.lines.vertical,
        "times": recurrence_times(result.lines, rules),
    }
    least = {"diagonal": options["lmin"], "vertical": options["vmin"], "times": options["wmin"]}
    intervals, drawn = {}, {}
    tail = (1 - level) / 2
    for group, names in _GROUPS.items():
        halves = 2 if group == "diagonal" and symmetric else 1
        number = int(lengths[group].sum()) // halves
        drawn[group] = number
        values = np.full((n, 3), np.nan)
        if number:
            for row, counts in enumerate(_draw(lengths[group], number, int(n), source)):
                values[row] = line_measures(counts, least[group], rules)[:3]
        for column, name in enumerate(names):
            if name is not None:
                intervals[name] = _percentiles(values[:, column], tail)
    return RecurrenceIntervals(
        intervals=intervals,
        level=float(level),
        n=int(n),
        settings={"lines": drawn, "symmetric": symmetric, "convention": result.convention},
        warnings=("lines are drawn as if they were independent: of smooth motion the intervals are too narrow",),
    )


def _draw(lengths: Ints, number: int, n: int, rng: np.random.Generator) -> Ints:
    """Numbers of lines by their length, shape (n, lengths): as a multinomial, which is drawing with replacement."""
    return rng.multinomial(number, lengths / lengths.sum(), size=n)


def _percentiles(values: Floats, tail: float) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)
