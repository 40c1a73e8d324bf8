"""Projections, change points, system states and observables of a trajectory."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.plots.canvas import new_figure
from trajtools.structure.change_points import ChangePoints
from trajtools.structure.observables import Observables
from trajtools.structure.projection import Projection
from trajtools.structure.system_states import SystemStates


def projection(found: Projection, ax: Any = None) -> Any:
    """Draw the trajectories in their first two coordinates, or the first one over time.

    Parameters
    ----------
    found : Projection
        What to draw; perturbed copies are thin, a dot marks each start.
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
        ax = new_figure(6, 4.8).add_subplot()
    plane = found.coordinates.shape[1] > 1
    for member, name in enumerate(found.names):
        rows, copy = found.member == member, found.reference[member] >= 0
        z = found.coordinates[rows]
        x, y = (z[:, 0], z[:, 1]) if plane else (found.step[rows], z[:, 0])
        style = {"linewidth": 0.6, "alpha": 0.6} if copy else {"linewidth": 1.8, "label": name}
        (line,) = ax.plot(x, y, **style)
        ax.plot(x[:1], y[:1], ".", color=line.get_color())
    ax.set_xlabel(f"coordinate 1 ({found.share[0]:.0%})" if plane else "step")
    ax.set_ylabel(f"coordinate 2 ({found.share[1]:.0%})" if plane else f"coordinate 1 ({found.share[0]:.0%})")
    ax.set_title(f"{found.method} ({found.metric}), correlation of distances {found.distance_correlation:.2f}")
    ax.legend(fontsize="small")
    return ax


def change_points(found: ChangePoints, ax: Any = None) -> Any:
    """Draw the signal, the mean of each segment, and the changes.

    Parameters
    ----------
    found : ChangePoints
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
        ax = new_figure(7, 4).add_subplot()
    ax.plot(found.steps, found.values, color="0.6", linewidth=0.7, label=found.signal)
    edges = np.concatenate([found.steps[:1], found.step, found.steps[-1:]])
    ax.hlines(found.segment_mean, edges[:-1], edges[1:], color="tab:blue", linewidth=2, label="mean of each segment")
    for at in found.step:
        ax.axvline(at, color="tab:red", linewidth=1, linestyle="--")
    words = f"{len(found.index)} changes"
    ax.set_title(f"{words}, p = {found.p_value:.3g}" if np.isfinite(found.p_value) else words)
    ax.set_xlabel("step")
    ax.set_ylabel(found.signal)
    ax.legend(fontsize="small")
    return ax


def system_states(found: SystemStates, ax: Any = None) -> Any:
    """Draw the system state at each step.

    Parameters
    ----------
    found : SystemStates
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
        ax = new_figure(7, 3).add_subplot()
    known = np.where(found.labels >= 0, found.labels + 1.0, np.nan)
    ax.step(found.step, known, where="post", color="tab:blue", linewidth=1)
    ax.set_yticks(np.arange(1, found.count + 1))
    ax.set_ylim(0.5, found.count + 0.5)
    ax.set_xlabel("step")
    ax.set_ylabel("system state")
    ax.set_title(f"{found.count} system state{'s' * (found.count != 1)}, by {found.criterion}")
    return ax


def observables(found: Observables, ax: Any = None) -> Any:
    """Draw norm, displacement and step length over time.

    Parameters
    ----------
    found : Observables
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
        ax = new_figure(7, 4).add_subplot()
    for values, label in (
        (found.norm, "norm"),
        (found.displacement, "displacement"),
        (found.step_length, "step length"),
    ):
        ax.plot(found.time, np.where(values > 0, values, np.nan), linewidth=1, label=label)
    ax.set_yscale("log")
    ax.set_xlabel(f"time ({found.time_unit})")
    ax.set_ylabel(found.metric)
    ax.legend(fontsize="small")
    return ax
