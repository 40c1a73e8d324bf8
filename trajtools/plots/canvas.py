"""A new figure; the one place where matplotlib is imported."""

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
