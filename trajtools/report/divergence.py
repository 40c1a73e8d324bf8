"""Divergence curves as inline SVG, with the fitted window, the floor and the saturation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trajtools.plots.curves import fitted_line, floor_curve, null_band, orbit_curves, saturation
from trajtools.plots.words import interval, number
from trajtools.report.markup import Html, tag
from trajtools.report.svg import Figure
from trajtools.results.divergence import Divergence
from trajtools.results.exponent import Exponent

# More lines than these cannot be told apart in a figure of this size, and each adds 2 kB to the page.
MOST_CURVES = 40
MOST_POINTS = 250
LN10 = math.log(10.0)


def divergence_figure(growth: Divergence, exponent: Exponent, y_range: tuple[float, float] | None = None) -> Html:
    """Draw one divergence.

    Parameters
    ----------
    growth : Divergence
        The curves.
    exponent : Exponent
        What was fitted to them.
    y_range : (float, float) or None
        Range of the distance in log10, so that several figures can share it; None takes that of the curves.

    Returns
    -------
    Html
        One SVG element.
    """
    low, high = y_range or log10_range([growth])
    last = float(growth.time[-1]) if len(growth.time) > 1 else 1.0
    figure = Figure(
        x=(float(growth.time[0]), last),
        y=(low, high),
        x_label=f"{growth.time_unit}s since the perturbation",
        y_label="distance to the reference",
        title=f"Distance over time: {number(exponent.value)} {exponent.unit} {interval(exponent)}, {exponent.verdict}",
    )
    line = fitted_line(exponent)
    if line is not None:
        figure.band(float(line[0][0]), float(line[0][1]), "band")
    thin = slice(None, None, math.ceil(len(growth.time) / MOST_POINTS))
    curves = orbit_curves(growth)
    for row in shown(len(curves)):
        figure.line(growth.time[thin], curves[row][thin] / LN10, "curve")
    floor = floor_curve(growth)
    figure.line(growth.time[thin], floor[thin] / LN10, "floor")
    top = saturation(growth, exponent)
    if math.isfinite(top):
        figure.rule(top / LN10, "floor", "fits stop here")
    band = null_band(exponent)
    if band is not None:
        figure.between(band["time"], band["low"] / LN10, band["high"] / LN10, "null")
        if growth.method != "twins":  # a stretch of the record, in Euclidean distances: not the curve itself
            figure.line(band["time"], band["record"] / LN10, "compared")
    figure.line(growth.time[thin], growth.log_distance[thin] / LN10, "mean")
    if line is not None:
        figure.line(line[0], line[1] / LN10, "fit")
    return figure.render()


def shown(curves: int) -> NDArray[np.int64]:
    """Return which of many curves are drawn: evenly spread, the first and the last among them.

    Parameters
    ----------
    curves : int
        How many there are.

    Returns
    -------
    ndarray of int
        Their indices.
    """
    return np.unique(np.linspace(0, curves - 1, min(curves, MOST_CURVES)).round().astype(np.int64))


def log10_range(growths: Sequence[Divergence]) -> tuple[float, float]:
    """Return whole powers of ten around all curves.

    Parameters
    ----------
    growths : sequence of Divergence
        What the figures will show.

    Returns
    -------
    (float, float)
        log10 of the lowest and the highest distance shown, at least two decades apart.
    """
    found = [curve[np.isfinite(curve)] for growth in growths for curve in (orbit_curves(growth), floor_curve(growth))]
    values = np.concatenate(found) / LN10
    if values.size == 0:
        return -1.0, 1.0
    low, high = math.floor(values.min()), math.ceil(values.max())
    return float(low), float(max(high, low + 2))


def key() -> Html:
    """Return what the lines of the figures mean.

    Returns
    -------
    Html
        A list with a sample of each line.
    """
    meanings = {
        "curve": "one initial condition (mean over its copies)",
        "mean": "mean over the initial conditions",
        "fit": "fitted line",
        "floor": "rounding floor (below: not measurable)",
    }
    entries = [tag("li", _sample(look), words) for look, words in meanings.items()]
    areas = {"band": "fitted window", "null": "middle 90 % of what the null comes to"}
    entries += [tag("li", _area(look), words) for look, words in areas.items()]
    return tag("ul", entries, class_="key")


def _area(look: str) -> Html:
    square = tag("rect", x=0, y=0, width=28, height=12, class_=look)
    return tag("svg", square, viewBox="0 0 28 12", aria_hidden="true")


def _sample(look: str) -> Html:
    return tag("svg", tag("path", d="M0 6L28 6", class_=look), viewBox="0 0 28 12", aria_hidden="true")
