"""Correlation sums, their slopes, and the scaling region."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.plots.canvas import new_figure
from trajtools.structure.correlation_sum import CorrelationSum
from trajtools.structure.dimension import Dimension


def correlation_sum(sums: CorrelationSum, ax: Any = None) -> Any:
    """Draw how many pairs of states are closer than a radius.

    Parameters
    ----------
    sums : CorrelationSum
        What to draw.
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
        ax = new_figure(6.4, 4.4).add_subplot()
    some = sums.counts > 0
    ax.loglog(sums.radii[some], sums.correlation[some], color="tab:blue", marker=".", linewidth=1)
    ax.set_xlabel(f"radius r ({sums.metric})")
    ax.set_ylabel("correlation sum C(r)")
    return ax


def correlation_dimension(dimension: Dimension, ax: Any = None) -> Any:
    """Draw the local slopes of the correlation sums, the scaling region and what was found in it.

    Parameters
    ----------
    dimension : Dimension
        What to draw: one curve per embedding dimension, or the one of the states.
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
        ax = new_figure(6.4, 4.4).add_subplot()
    many = len(dimension.correlation_sums) > 1
    for at, sums in enumerate(dimension.correlation_sums):
        middle = np.sqrt(sums.radii[1:] * sums.radii[:-1])
        label = f"embedding dimension {dimension.dims[at]}" if many else "local slope"
        ax.plot(middle, sums.local_slope, linewidth=1, color=f"C{at}", label=label)
    if np.isfinite(dimension.region).all():
        low, high = dimension.interval
        words = f"{dimension.value:.3f} [{low:.3f}, {high:.3f}], {dimension.verdict}"
        ax.axvspan(*dimension.region, color="tab:blue", alpha=0.12, linewidth=0)
        ax.hlines(dimension.value, *dimension.region, color="black", linewidth=1.5, label=words)
    else:
        ax.plot([], [], " ", label=f"{dimension.verdict}: no scaling region")
    ax.set_xscale("log")
    top = max([dimension.space or 1, *dimension.dims.tolist()]) + 0.5
    ax.set_ylim(0, top if np.isnan(dimension.value) else max(top, dimension.value * 1.3))
    ax.set_xlabel(f"radius r ({dimension.correlation_sums[-1].metric})")
    ax.set_ylabel("d ln C / d ln r")
    ax.legend(loc="upper right", fontsize="small")
    return ax
