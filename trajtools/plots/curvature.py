"""Rate times curvature along training."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.plots.canvas import new_figure
from trajtools.training.curvature import Curvature


def curvature(found: Curvature, ax: Any = None) -> Any:
    """Draw rate x h_max with the lines 1, 2 and that of the optimiser, and the entry into the edge of stability.

    Parameters
    ----------
    found : Curvature
        Of one run.
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
        ax = new_figure(7, 4.6).add_subplot()
    known = np.isfinite(found.product)
    style = "." if known.sum() < 200 else "-"
    ax.plot(found.step[known], found.product[known], style, color="tab:blue", label=found.sources["h_max"])
    for level in dict.fromkeys((1.0, 2.0, found.threshold)):
        dashed = level != found.threshold
        ax.axhline(level, color="0.5" if dashed else "tab:red", linewidth=1, linestyle=":" if dashed else "-")
    if np.isfinite(found.entry):
        ax.axvline(found.entry, color="tab:green", linewidth=1, label=f"edge of stability from step {found.entry:.0f}")
    ax.set_ylim(0, 1.2 * max(found.threshold, float(np.nanquantile(found.product, 0.99)) if known.any() else 0.0))
    ax.set_xlabel("step")
    ax.set_ylabel("learning rate x largest curvature")
    ax.legend(fontsize="small")
    return ax
