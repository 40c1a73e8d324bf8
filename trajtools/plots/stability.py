"""Distances to the reference and to its orbit, and the lag along it."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.plots.canvas import new_figure
from trajtools.stability.orbital import OrbitalStability


def stability(found: OrbitalStability, ax: Any = None) -> Any:
    """Draw the distance at equal times, the distance to the orbit and the lag of every perturbed trajectory.

    Parameters
    ----------
    found : OrbitalStability
        Of `trajtools.orbital_stability`. Thin lines are single trajectories, thick ones the mean of their logarithms.
    ax : matplotlib.axes.Axes or None
        Where to draw the distances; None makes a new figure, with the lag below them.

    Returns
    -------
    matplotlib.axes.Axes
        Where the distances were drawn.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    below = None
    if ax is None:
        figure = new_figure(7, 6.4)
        ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    _distances(ax, found)
    if below is not None:
        for row in found.lag:
            below.plot(found.time, row, color="0.5", linewidth=0.7)
        below.axhline(0, color="0.3", linewidth=0.7, linestyle=":")
        below.set_ylabel(f"lag along the orbit ({found.time_unit})")
    (ax if below is None else below).set_xlabel(f"time since the perturbation ({found.time_unit})")
    return ax


def _distances(ax: Any, found: OrbitalStability) -> None:
    curves = (
        ("at equal times", found.distance, "tab:blue"),
        ("to the orbit, flow removed", found.transverse, "tab:red"),
    )
    for label, rows, color in curves:
        positive = np.where(rows > 0, rows, np.nan)
        for row in positive:
            ax.plot(found.time, row, color=color, linewidth=0.5, alpha=0.4)
        ax.plot(found.time, _geometric_mean(positive), color=color, linewidth=2.2, label=label)
    for label, rows, style in (
        ("rounding floor", found.floor, ":"),
        ("resolution of the orbit", found.resolution, "--"),
    ):
        known = _geometric_mean(np.where(rows > 0, rows, np.nan))
        if np.isfinite(known).any():
            ax.plot(found.time, known, color="0.4", linewidth=0.9, linestyle=style, label=label)
    ax.set_yscale("log")
    ax.set_ylabel(f"distance ({found.metric})")
    ax.set_title(found.verdict, fontsize="medium")
    ax.legend(fontsize="small")


def _geometric_mean(rows: Any) -> Any:
    """Mean of the logarithms over the trajectories that have a value; NaN where none has."""
    count = np.isfinite(rows).sum(axis=0)
    total = np.log(np.where(np.isfinite(rows), rows, 1.0)).sum(axis=0)
    return np.where(count > 0, np.exp(total / np.maximum(count, 1)), np.nan)
