"""A matrix as inline SVG: cells of a few shades, neighbours of one shade drawn as one rectangle."""

from __future__ import annotations

import numpy as np

from trajtools.report.markup import Html, tag
from trajtools.report.svg import nice_ticks
from trajtools.results.curves import Floats

SHADES = 9
SIDE, LEFT, TOP, SPAN = 300, 44, 8, 248


def heat_map(values: Floats, time: Floats, *, label: str, title: str) -> Html:
    """Draw a square matrix, time to the right and upwards.

    Parameters
    ----------
    values : ndarray of float64, shape (n, n)
        What is shown; NaN stays empty.
    time : ndarray of float64, shape (n,)
        Of the rows and columns.
    label : str
        What the axes show.
    title : str
        What a screen reader says instead of the drawing.

    Returns
    -------
    Html
        One SVG element.
    """
    n = len(values)
    known = np.isfinite(values)
    low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 1.0)
    level = np.where(known, np.clip((values - low) / ((high - low) or 1.0) * SHADES, 0, SHADES - 1), -1).astype(int)
    cells = [
        tag("path", d="".join(_runs(level, shade, n)), class_="heat", style=f"opacity:{(shade + 1) / SHADES:.2f}")
        for shade in range(SHADES)
        if (level == shade).any()
    ]
    return tag("svg", tag("title", title), cells, _axes(time, label), viewBox=f"0 0 {SIDE} {SIDE}", role="img")


def _runs(level: np.ndarray, shade: int, n: int) -> list[str]:
    """One path element for each run of cells of one shade in a row."""
    size = SPAN / n
    words = []
    for row in range(n):
        here = np.concatenate([[False], level[row] == shade, [False]])
        starts, stops = np.flatnonzero(here[1:] & ~here[:-1]), np.flatnonzero(here[:-1] & ~here[1:])
        top = TOP + SPAN - (row + 1) * size
        for start, stop in zip(starts, stops, strict=True):
            left, width = LEFT + start * size, (stop - start) * size
            words.append(f"M{left:.1f} {top:.1f}h{width:.1f}v{size:.1f}h{-width:.1f}z")
    return words


def _axes(time: Floats, label: str) -> list[Html]:
    low, high = float(time[0]), float(time[-1])
    parts = [tag("rect", x=LEFT, y=TOP, width=SPAN, height=SPAN, class_="frame")]
    for value in nice_ticks(low, high, 4) if high > low else [low]:
        at = (value - low) / ((high - low) or 1.0) * SPAN
        parts.append(tag("text", f"{value:g}", x=f"{LEFT + at:.1f}", y=TOP + SPAN + 15, text_anchor="middle"))
        parts.append(tag("text", f"{value:g}", x=LEFT - 5, y=f"{TOP + SPAN - at + 4:.1f}", text_anchor="end"))
    parts.append(tag("text", label, x=LEFT + SPAN / 2, y=SIDE - 8, text_anchor="middle"))
    return parts
