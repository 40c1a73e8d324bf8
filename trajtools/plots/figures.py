"""Divergence curves with matplotlib, which is loaded when a figure is drawn and not before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trajtools.growth.windows import Windows
from trajtools.plots.canvas import new_figure
from trajtools.plots.curves import fitted_line, floor_curve, null_band, orbit_curves, saturation, slopes
from trajtools.plots.words import interval, number
from trajtools.results.divergence import Divergence
from trajtools.results.exponent import Exponent


def divergence(growth: Divergence, exponent: Exponent | None = None, ax: Any = None) -> Any:
    """Draw how distances grow: every initial condition or block of neighbours, their mean, and what was fitted.

    Parameters
    ----------
    growth : Divergence
        The curves: thin grey lines, one per initial condition (mean over its copies) or block of states; their mean is
        thick.
    exponent : Exponent or None
        Adds the fitted window, its line, the lines that the interval allows, the value in the legend, and the curves of
        the surrogates where there were any.
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Where it was drawn; ``.figure.savefig(...)`` writes it.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    if ax is None:
        ax = new_figure(7, 4.6).add_subplot()
    curves, of_twins = orbit_curves(growth), growth.method == "twins"
    thin = {"color": "0.55", "linewidth": 0.5, "alpha": 0.5}
    for row, curve in enumerate(curves):
        label = None if row else f"{growth.n_references} initial conditions" if of_twins else f"{len(curves)} blocks"
        ax.plot(growth.time, np.exp(curve), label=label, **thin)
    ax.plot(growth.time, np.exp(growth.log_distance), color="tab:blue", linewidth=2.5, label="mean")
    floor = floor_curve(growth)
    if np.isfinite(floor).any():
        ax.plot(growth.time, np.exp(floor), color="0.3", linewidth=1, linestyle=":", label="rounding floor")
    if exponent is not None:
        _draw_fit(ax, growth, exponent)
        _draw_null(ax, exponent)
    ax.set_yscale("log")
    ax.set_xlabel(f"time {'since the perturbation ' if of_twins else ''}({growth.time_unit})")
    ax.set_ylabel(f"distance {'to the reference' if of_twins else 'of neighbours'} ({growth.metric})")
    ax.legend(loc="lower right", fontsize="small")
    return ax


def _draw_null(ax: Any, exponent: Exponent) -> None:
    band = null_band(exponent)
    if band is None:
        return
    low, high, color = np.exp(band["low"]), np.exp(band["high"]), "tab:green"
    ax.fill_between(band["time"], low, high, color=color, alpha=0.2, linewidth=0, label="90 % of the null")
    ax.plot(band["time"], np.exp(band["record"]), color=color, linewidth=1, label="what the null was compared with")


def _draw_fit(ax: Any, growth: Divergence, exponent: Exponent) -> None:
    line = fitted_line(exponent)
    words = f"{number(exponent.value)} {exponent.unit}, {exponent.level:.0%} interval {interval(exponent)}"
    if line is None:
        ax.plot([], [], " ", label=f"{exponent.verdict}: nothing fitted")
        return
    ax.axvspan(*line[0], color="tab:blue", alpha=0.12, linewidth=0)
    allowed = slopes(exponent)
    if allowed is not None:
        ax.fill_between(allowed[0], np.exp(allowed[1]), np.exp(allowed[2]), color="tab:red", alpha=0.15, linewidth=0)
    ax.plot(line[0], np.exp(line[1]), color="tab:red", linestyle="--", linewidth=1.75, label=words)
    top = saturation(growth, exponent)
    if np.isfinite(top):
        stop = "fits stop here, below saturation" if growth.method == "twins" else "saturation"
        ax.axhline(np.exp(top), color="0.3", linewidth=1, linestyle="-.", label=stop)


def divergences(
    panels: Sequence[tuple[str, Divergence, Exponent | None]], windows: Sequence[tuple[str, Windows]] = ()
) -> Any:
    """Draw several divergences side by side, on one scale.

    Parameters
    ----------
    panels : sequence of (str, Divergence, Exponent or None)
        Title, curves and what was fitted to them; at least one.
    windows : sequence of (str, Windows)
        Title and exponents of windows, drawn after the curves.

    Returns
    -------
    matplotlib.figure.Figure
        ``.savefig(...)`` writes it.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    count = len(panels) + len(windows)
    columns = min(2, count)
    rows = -(-count // columns)
    figure = new_figure(7 * columns, 4.6 * rows)
    first = None
    for place, (title, growth, exponent) in enumerate(panels):
        ax = figure.add_subplot(rows, columns, place + 1, sharey=first)
        divergence(growth, exponent, ax=ax).set_title(title)
        first = ax if first is None else first
    for place, (title, found) in enumerate(windows, start=len(panels)):
        ax = figure.add_subplot(rows, columns, place + 1)
        ax.set_title(f"{title}: {draw_windows(found, ax=ax).get_title()}", fontsize="small")
    return figure


VERDICT_COLORS = {"chaotic": "tab:red", "transient": "tab:orange", "regular": "tab:blue", "inconclusive": "0.5"}


def draw_windows(found: Windows, ax: Any = None) -> Any:
    """Draw the exponent of each window of the training, with its interval and its verdict.

    Parameters
    ----------
    found : Windows
        Of `trajtools.lyapunov_windows`. Bars are drawn thin where the twins were perturbed before the window.
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Where it was drawn.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    if ax is None:
        ax = new_figure(7, 4.0).add_subplot()
    ax.axhline(0, color="0.3", linewidth=0.8)
    named: set[str] = set()
    for w, verdict in enumerate(found.verdict):
        span = [found.start[w], found.stop[w]]
        color = VERDICT_COLORS[verdict]
        if not np.isfinite(found.value[w]):
            ax.axvspan(*span, color="0.92", linewidth=0)
            continue
        if np.isfinite(found.interval[w]).all():
            ax.fill_between(span, *found.interval[w], color=color, alpha=0.2, linewidth=0)
        label = None if verdict in named else verdict
        ax.plot(span, [found.value[w]] * 2, color=color, linewidth=3 if found.fresh[w] else 1.5, label=label)
        named.add(verdict)
    for begun in found.perturbed:
        ax.axvline(begun, color="0.3", linewidth=0.5, linestyle=":")
    if np.isfinite(found.max_gain):
        low, high = found.max_gain_between
        ax.set_title(
            f"largest cumulative gain: {number(found.max_gain)} e-folds, steps {low} to {high}", fontsize="small"
        )
    ax.set_xlabel("step of the training")
    ax.set_ylabel(f"exponent ({found.unit})")
    if named:
        ax.legend(fontsize="small")
    return ax
