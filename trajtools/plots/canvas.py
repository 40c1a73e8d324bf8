"""A new figure, and logarithmic axes with numbers that can be read."""

from __future__ import annotations

from typing import Any

from trajtools.errors import MissingDependencyError


def new_figure(width: float, height: float) -> Any:
    """Make a figure that no window system knows.

    Parameters
    ----------
    width, height : float, in inches
        Its size.

    Returns
    -------
    matplotlib.figure.Figure
        The empty figure.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise MissingDependencyError(
            'figures need matplotlib, which is not installed: pip install "trajtools[plot]"'
        ) from missing
    # A Figure of its own, not pyplot: no window system, no global list of figures that grows.
    return Figure(figsize=(width, height), layout="constrained")


def logarithmic(ax: Any, which: str) -> None:
    """Make an axis logarithmic, with plain numbers where it spans less than two decades.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Whose axis.
    which : {"x", "y"}
        The axis.

    Notes
    -----
    matplotlib writes 0.2 as 2 x 10^-1 on such an axis. Axes that reach below 1e-4 or 1e6 keep powers of ten.
    """
    from matplotlib.ticker import LogFormatterSciNotation

    ax.set(**{f"{which}scale": "log"})
    axis = {"x": ax.xaxis, "y": ax.yaxis}[which]

    class Plain(LogFormatterSciNotation):
        def __call__(self, x: float, pos: int | None = None) -> str:
            label: str = super().__call__(x, pos)
            low, high = sorted(axis.get_view_interval())
            return f"{x:.6g}" if label and high < 100 * low and low >= 1e-4 and high < 1e6 else label

    for place in (axis.set_major_formatter, axis.set_minor_formatter):
        place(Plain(minor_thresholds=(1, 0.7)))
