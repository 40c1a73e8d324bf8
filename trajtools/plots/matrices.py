"""Distances as images, the distance to an orbit, and the shares of the layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.distances.equal_times import Contributions
from trajtools.distances.pairwise import Distances
from trajtools.neighbors.to_orbit import ToOrbit
from trajtools.plots.canvas import new_figure

MAX_PIXELS = 1000
"""Along each side; of more states every k-th is shown."""


def distances(found: Distances, ax: Any = None) -> Any:
    """Draw all distances as an image; states that are excluded are blank.

    Parameters
    ----------
    found : Distances
        What to draw; of more than 1000 states every k-th is shown, and the title says so.
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
        ax = new_figure(6, 5).add_subplot()
    rows, columns = (max(1, -(-n // MAX_PIXELS)) for n in found.shape)
    shown = found[::rows, ::columns]
    steps = [found.column_step[::columns], found.step[::rows]]
    edges = [np.concatenate([s[:1], s[1:] / 2 + s[:-1] / 2, s[-1:]]) if len(s) > 1 else np.array([0, 1]) for s in steps]
    image = ax.pcolormesh(*edges, shown, cmap="viridis", rasterized=True)
    ax.figure.colorbar(image, ax=ax, label=f"distance ({found.metric})")
    ax.set_aspect("equal" if found.square else "auto")
    ax.set_xlabel("step")
    ax.set_ylabel("step")
    thinned = f", every {max(rows, columns)}. state" if max(rows, columns) > 1 else ""
    ax.set_title(f"{found.shape[0]} x {found.shape[1]} states{thinned}, {found.n_excluded} excluded")
    return ax


def to_orbit(found: ToOrbit, ax: Any = None) -> Any:
    """Draw the distance to the orbit over time.

    Parameters
    ----------
    found : ToOrbit
        What to draw.
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
        ax = new_figure(6, 4).add_subplot()
    ax.plot(found.step, found.distance)
    if np.any(found.distance > 0):
        ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel(f"distance to the orbit ({found.metric})")
    ax.set_title(f"{len(found.distance)} states, {found.n_excluded} excluded")
    return ax


def contributions(found: Contributions, ax: Any = None) -> Any:
    """Draw the share of each part, stacked; the distances themselves where they do not add up.

    Parameters
    ----------
    found : Contributions
        What to draw.
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
        ax = new_figure(6, 4).add_subplot()
    if np.isfinite(found.share).any():
        ax.stackplot(found.step, np.nan_to_num(found.share.T), labels=found.names)
        ax.set_ylabel("share of the whole")
    else:
        for name, curve in zip(found.names, found.distance.T, strict=True):
            ax.plot(found.step, curve, label=name)
        ax.set_ylabel(f"distance ({found.metric})")
    ax.set_xlabel("step")
    ax.set_title(f"{found.metric} per {found.per}")
    ax.legend(fontsize="small")
    return ax
