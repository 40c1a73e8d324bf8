"""Numbers, nouns and tables in the text of results."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan
from typing import Any

from trajtools.errors import DataError

WIDTH = 100  # of a line
MOST_ROWS = 20  # of a table
MOST_DIGITS = 17  # tell any two floats apart


def short(value: Any) -> str:
    """A value in a few characters."""
    import numpy as np  # here, so that `--help` does without

    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, np.ndarray):
        return f"array {value.shape}"
    if isinstance(value, (dict, list, tuple)) and len(value) > 6:
        return f"{type(value).__name__} of {len(value)}"
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def spoken(value: float, digits: int = 4) -> str:
    """A number in a sentence; "unknown" for NaN."""
    return "unknown" if isnan(value) else f"{value:.{digits}g}"


def bounds(interval: Sequence[float]) -> str:
    """Both ends of an interval in a sentence, apart in the last digit; "unknown" where one is, or both are equal."""
    low, high = interval
    if not (isfinite(low) and isfinite(high) and low < high):
        return "unknown"
    digits = next((n for n in range(4, MOST_DIGITS) if f"{low:.{n}g}" != f"{high:.{n}g}"), MOST_DIGITS)
    return f"[{low:.{digits}g}, {high:.{digits}g}]"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 state", "2 states"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def time_units(unit: str) -> str:
    """A unit of time in the plural; numbers without a unit are in "units of time"."""
    return "units of time" if unit == "time" else f"{unit}s"


def one_unit(unit: str) -> str:
    """A unit of time in the singular; numbers without a unit are in a "unit of time"."""
    return "unit of time" if unit == "time" else unit


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], total: int | None = None) -> list[str]:
    """Lines of a table with columns of equal width; `total`: number of rows, if only the first ones are given."""
    if any(len(row) != len(head) for row in rows):
        raise DataError(f"a table of {len(head)} columns needs rows of as many cells")
    shown = list(rows[:MOST_ROWS])
    widths = [max(len(line[k]) for line in (head, *shown)) for k in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *shown)
    ]
    more = (len(rows) if total is None else total) - len(shown)
    return [*lines, f"... and {more} more"] if more > 0 else lines
