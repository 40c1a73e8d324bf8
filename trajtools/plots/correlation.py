"""Autocorrelation with the band of its null, and the period that was found in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.plots.canvas import new_figure
from trajtools.structure.autocorrelation import Autocorrelation
from trajtools.structure.cycles import Cycles


def autocorrelation(found: Autocorrelation, ax: Any = None, *, cycles: Cycles | None = None) -> Any:
    """Draw the autocorrelation, the band of its null, and the values of each layer.

    Parameters
    ----------
    found : Autocorrelation
        Of `trajtools.autocorrelation`.
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a new figure.
    cycles : Cycles or None
        Of `trajtools.find_cycles`: marks the multiples of the period.

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
        ax = new_figure(7, 4.2).add_subplot()
    if np.isfinite(found.low[1:]).any():
        level = found.settings.get("level", 0.95)
        ax.fill_between(
            found.time[1:],
            found.low[1:],
            found.high[1:],
            color="0.8",
            linewidth=0,
            label=f"{level:.0%} of {found.null}",
        )
        for sign in (-1, 1):
            ax.axhline(sign * found.threshold, color="0.5", linewidth=0.8, linestyle=":")
    for name, values in zip(found.layers, found.layer_values, strict=True):
        ax.plot(found.time, values, linewidth=0.8, alpha=0.8, label=name)
    ax.plot(found.time, found.values, color="tab:blue", linewidth=1.8, label="network autocorrelation")
    if cycles is not None and np.isfinite(cycles.period):
        marks = np.arange(1, int(found.lag[-1] / cycles.period) + 1) * cycles.time
        for mark in marks:
            ax.axvline(mark, color="tab:red", linewidth=0.5, alpha=0.6)
        ax.set_title(f"{cycles.kind} period {cycles.time:.4g} {cycles.time_unit}", fontsize="medium")
    ax.axhline(0, color="0.3", linewidth=0.7)
    ax.set_xlabel(f"lag ({found.time_unit})")
    ax.set_ylabel("autocorrelation")
    ax.legend(fontsize="small")
    return ax
