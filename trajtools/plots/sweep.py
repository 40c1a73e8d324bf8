"""Exponent and training time of a sweep on one axis of the hyper-parameter."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.plots.canvas import logarithmic, new_figure
from trajtools.sweeps.onset import Curve, curve_of, median, medians, select_threshold
from trajtools.sweeps.sweep import Sweep

COLOURS = {"chaotic": "tab:red", "transient": "tab:orange", "regular": "tab:blue", "inconclusive": "0.6"}


def sweep(found: Sweep, threshold: float | None = None, figure: Any = None) -> Any:
    """Draw exponents above, training times below, with the onset and the minimum.

    Parameters
    ----------
    found : Sweep
        Over one hyper-parameter.
    threshold : float or None
        Accuracy of the training times, as in `Sweep.fastest`.
    figure : matplotlib.figure.Figure or None
        Where to draw; None makes a new one.

    Returns
    -------
    matplotlib.figure.Figure
        With two axes that share x.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    SelectionError
        If the sweep has two hyper-parameters or not that threshold.
    """
    figure = new_figure(7, 6) if figure is None else figure
    above, below = figure.subplots(2, 1, sharex=True)
    curve = curve_of(found.one().points)
    _exponents(above, curve)
    begins = found.onset()
    if begins.found:
        for ax in (above, below):
            ax.axvspan(*begins.interval, color="tab:red", alpha=0.1, linewidth=0)
            ax.axvline(begins.value, color="tab:red", linewidth=1, label=f"onset {begins.value:.3g}")
    _times(below, found, threshold)
    if len(curve.x) and (curve.x > 0).all():
        logarithmic(below, "x")
    below.set_xlabel(found.x_name)
    for ax in (above, below):
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize="small")
    return figure


def _exponents(ax: Any, curve: Curve) -> None:
    for verdict in dict.fromkeys(curve.verdict):
        here = np.array([v == verdict for v in curve.verdict])
        colour = COLOURS.get(verdict, "tab:purple")
        error = np.where(np.isfinite(curve.error), 1.96 * curve.error, 0.0)
        ax.errorbar(curve.x[here], curve.value[here], error[here], fmt="o", color=colour, capsize=2, label=verdict)
    ax.axhline(0, color="0.7", linewidth=0.8)
    ax.set_ylabel("exponent (1/step)")


def _times(ax: Any, found: Sweep, threshold: float | None) -> None:
    row = select_threshold(found.points, found.thresholds, threshold)
    for control, style, name in ((False, "o-", "training"), (True, "s--", "stable control")):
        x, times = medians([p for p in found.points if p.control is control], row)
        middle = np.array([median(t) for t in times])
        if np.isfinite(middle).any():
            ax.plot(x, np.where(np.isfinite(middle), middle, np.nan), style, label=name)
    quickest = found.fastest(found.thresholds[row])
    if np.isfinite(quickest.value) and quickest.time > 0:
        ax.plot([quickest.value], [quickest.time], "*", color="k", markersize=12, label=f"fastest {quickest.value:.3g}")
        logarithmic(ax, "y")
    ax.set_ylabel(f"{found.time_unit}s to accuracy {found.thresholds[row]:g}")
