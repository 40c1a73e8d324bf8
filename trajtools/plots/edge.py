"""Exponent and loss against the learning rate, as `find_edge` measured them."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.plots.canvas import logarithmic, new_figure


def edge(found: Any, figure: Any = None) -> Any:
    """Draw exponents above and late losses below, with the onset and the recommended rate.

    Parameters
    ----------
    found : recorders.edge.Edge
        The answer of `find_edge`.
    figure : matplotlib.figure.Figure or None
        Where to draw; None makes a new one.

    Returns
    -------
    matplotlib.figure.Figure
        With two axes that share the rate.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure = new_figure(7, 6) if figure is None else figure
    above, below = figure.subplots(2, 1, sharex=True)
    spread = np.abs(found.intervals - found.exponents[:, None])
    error = np.where(np.isfinite(spread), spread, 0.0).T
    above.errorbar(found.rates, found.exponents, error, fmt="o-", color="tab:blue", capsize=2)
    above.axhline(0, color="0.7", linewidth=0.8)
    above.set_ylabel("exponent (nats per step)")
    below.plot(found.rates, np.where(np.isfinite(found.losses), found.losses, np.nan), "o-", color="0.3")
    below.set_ylabel("late training loss")
    for which in ("x", "y"):
        logarithmic(below, which)
    below.set_xlabel("learning rate")
    for ax in (above, below):
        if found.found:
            ax.axvspan(*found.onset_interval, color="tab:red", alpha=0.1, linewidth=0)
            ax.axvline(found.onset, color="tab:red", linewidth=1, label=f"onset {found.onset:.3g}")
        if np.isfinite(found.recommended):
            words = f"recommended {found.recommended:.3g}"
            ax.axvline(found.recommended, color="tab:green", linewidth=1.5, linestyle="--", label=words)
    if below.get_legend_handles_labels()[0]:
        below.legend(fontsize="small")
    return figure
