"""The phase diagram of order and chaos, and a layer's path through it."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.plots.canvas import new_figure
from trajtools.training.order_chaos import OrderChaos, mean_field_boundary


def order_chaos(found: OrderChaos, ax: Any = None) -> Any:
    """Draw the path of a layer on the plane of J0/J and 1/J, with the mean-field boundary.

    Parameters
    ----------
    found : OrderChaos
        The path; the first state is an open circle, the last a filled one.
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
        ax = new_figure(6, 4.6).add_subplot()
    known = np.isfinite(found.J) & (found.J > 0)
    across, up = found.J0[known] / found.J[known], 1 / found.J[known]
    heights = np.linspace(0.05, 0.99, 48)
    edge = np.array([mean_field_boundary(height) for height in heights])
    left, right = min(-1.0, across.min(initial=0.0) - 0.1), max(2.0, across.max(initial=0.0) + 0.1)
    for side in (-1, 1):  # the sign of the mean does not matter
        ax.plot(side * edge, heights, color="0.3", linewidth=1)
    ax.plot([-1, 1], [1, 1], color="0.3", linewidth=1, label="edge of chaos (mean field)")
    ax.plot(across, up, color="tab:blue", linewidth=1.5, label=found.layer)
    ax.plot(across[:1], up[:1], "o", color="tab:blue", markerfacecolor="white")
    ax.plot(across[-1:], up[-1:], "o", color="tab:blue")
    ax.set_xlim(left, right)
    ax.set_ylim(0, max(2.1, up.max(initial=0.0) * 1.05))
    ax.set_xlabel("J0 / J")
    ax.set_ylabel("1 / J")
    ax.legend(loc="upper right", fontsize="small")
    return ax
