"""Figures, axis scales, legends and number formats, shared by all figures, tables and reports."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trajtools.exponents.exponent import Exponent

VERDICT_COLORS = {
    "chaotic": "tab:red",
    "transient": "tab:orange",
    "sensitive": "tab:pink",
    "regular": "tab:blue",
    "diverging": "tab:brown",
    "inconclusive": "0.5",
}
THUMBNAIL_DPI = 110  # of a figure in a notebook
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def new_figure(width: float, height: float) -> Figure:
    """Create a figure (size in inches) independent of the user's backend."""
    from matplotlib.figure import Figure

    # Not pyplot, which needs a window system and keeps every figure alive.
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, target: Any, **options: Any) -> None:
    """Write a figure to a file, with reproducible bytes.

    The format follows from the file name or ``format=``; other options are those of matplotlib.
    """
    import matplotlib

    kind = options.get("format") or Path(target).suffix.lower().lstrip(".")
    undated: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    salt = {} if matplotlib.rcParams["svg.hashsalt"] else {"svg.hashsalt": "trajtools"}
    with matplotlib.rc_context(salt), warnings.catch_warnings():
        # The font lacks some scripts and shows boxes instead; not worth a warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(target, metadata=undated.get(kind), **options)


def thumbnail(plotted: Axes | Figure) -> str:
    """Draw a figure for a notebook; returns a data URL."""
    import io
    from base64 import b64encode

    figure: Any = plotted if hasattr(plotted, "savefig") else plotted.figure
    target = io.BytesIO()
    save_figure(figure, target, format="png", dpi=THUMBNAIL_DPI)
    return f"data:image/png;base64,{b64encode(target.getvalue()).decode()}"


def logarithmic(ax: Axes, which: str) -> None:
    """Make the axis "x" or "y" logarithmic, with plain numbers if it spans less than two decades.

    Matplotlib writes 0.2 as 2 x 10^-1 on such an axis. Axes below 1e-4 or above 1e6 keep powers of ten.
    """
    from matplotlib.ticker import LogFormatterSciNotation

    ax.set(**{f"{which}scale": "log"})
    axis = {"x": ax.xaxis, "y": ax.yaxis}[which]

    class Plain(LogFormatterSciNotation):
        def __call__(self, x: float, pos: int | None = None) -> str:
            label: str = super().__call__(x, pos)
            low, high = sorted(axis.get_view_interval())
            return f"{x:.6g}" if label and high < 100 * low and low >= 1e-4 and high < 1e6 else label

    for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        set_formatter(Plain(minor_thresholds=(1, 0.7)))


def legend(ax: Axes, **options: Any) -> None:
    """Add a small legend if there are labels."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small", **options)


def legend_above(ax: Axes) -> None:
    """Add a legend above the axes, where it hides no data."""
    legend(ax, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)


def literal(text: str) -> str:
    """Escape dollar signs in names from files, which matplotlib would read as mathematics."""
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text).replace("$", r"\$")


def number(value: float) -> str:
    """Format an exponent: three decimals, four below 0.1, powers of ten below 0.001; "unknown" for NaN."""
    if not math.isfinite(value):
        return "unknown"
    size = abs(value)
    if size != 0 and (size < 0.001 or size >= 10**6):
        return f"{value:.1e}"
    return f"{value:.4f}" if 0 < size < 0.1 else f"{value:.3f}"


def interval(exponent: Exponent) -> str:
    """Format the confidence interval, as in ``[0.25, 0.30]``; "unknown" without one."""
    low, high = exponent.interval
    return f"[{number(low)}, {number(high)}]" if np.isfinite([low, high]).all() else "unknown"


def waiting(exponent: Exponent) -> str:
    """Format the waiting time before growth: median, and 10 % and 90 % quantiles; empty without growth."""
    low, middle, high = exponent.waiting
    return f"{middle:g} ({low:.4g}-{high:.4g})" if math.isfinite(middle) else ""


def window(exponent: Exponent) -> str:
    """Format the fitted window, as in ``12-58``; empty without a fit."""
    start, stop = exponent.window
    return f"{start:g}-{stop:g}" if np.isfinite([start, stop]).all() else ""
