"""K of the 0-1 test over the frequencies."""

from __future__ import annotations

from typing import Any

from trajtools.plots.canvas import new_figure
from trajtools.structure.zero_one import ZeroOne


def zero_one_test(answer: ZeroOne, ax: Any = None) -> Any:
    """Draw K for every frequency, and their median.

    Parameters
    ----------
    answer : ZeroOne
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
        ax = new_figure(6.4, 4.0).add_subplot()
    ax.plot(answer.frequencies, answer.values, ".", color="0.5", label=f"K of {len(answer.values)} frequencies")
    ax.axhline(answer.value, color="tab:blue", linewidth=2, label=f"median {answer.value:.3f}: {answer.verdict}")
    for level in (answer.settings["low"], answer.settings["high"]):
        ax.axhline(level, color="0.3", linewidth=0.8, linestyle=":")
    ax.set_ylim(-0.6, 1.4)
    ax.set_xlabel("frequency c (radians per sample)")
    ax.set_ylabel(f"K ({answer.method})")
    ax.legend(loc="center right", fontsize="small")
    return ax
