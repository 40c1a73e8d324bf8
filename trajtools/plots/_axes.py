"""Figures, axis scales, legends and number formats, shared by all figures, tables and reports."""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trajtools.exponents.exponent import Exponent

# Okabe and Ito's colours, which the colour-blind tell apart.
BLUE, RED, GREEN, ORANGE, PINK = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7"
BROWN = "#7a5230"
VERDICT_COLORS = {
    "chaotic": RED,
    "transient": ORANGE,
    "sensitive": PINK,
    "regular": BLUE,
    "diverging": BROWN,
    "inconclusive": "0.5",
}
VERDICT_MARKERS = {
    "chaotic": "^", "transient": "v", "sensitive": "D", "regular": "o", "diverging": "X", "inconclusive": "s",
}  # fmt: skip
LETTER = 0.52  # mean width of a letter over the size of its font
COLUMN = 3.5  # inches, width of a column of a paper
LARGEST = 1e200  # value on a logarithmic axis: ticks lie beyond it, and numbers end at 1.8e308
style: dict[str, Any] = {
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
}
THUMBNAIL_DPI = 110  # of a figure in a notebook
F = TypeVar("F", bound=Callable[..., Any])
_SHOWN_OTHERWISE = ContextVar("shown otherwise", default=False)  # figures are not shown below the cell as well
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def new_figure(width: float, height: float) -> Figure:
    """Create a figure (size in inches); in a notebook one that is shown below the cell, as figures of pyplot are."""
    if _in_notebook():
        from matplotlib import pyplot

        return pyplot.figure(figsize=(width, height), layout="constrained")
    from matplotlib.figure import Figure

    # Not pyplot, which needs a window system and keeps every figure alive.
    return Figure(figsize=(width, height), layout="constrained")


def styled(plot: F) -> F:
    """Draw with `style` where the function makes the figure; in axes of the caller, with the caller's style."""

    @wraps(plot)
    def draw(*arguments: Any, **options: Any) -> Any:
        import matplotlib
        from cycler import cycler

        bound = signature(plot).bind(*arguments, **options).arguments
        if bound.get("ax") is not None:
            return plot(*arguments, **options)
        cycle = cycler(color=[BLUE, RED, GREEN, ORANGE, PINK, BROWN, "0.4"])
        with matplotlib.rc_context(style | {"axes.prop_cycle": cycle}):
            drawn = plot(*arguments, **options)
            is_interactive = matplotlib.is_interactive()
        # The first figure of a notebook loads its backend, which switches this on: without it, no later one is shown.
        matplotlib.interactive(is_interactive)
        return drawn

    return draw  # type: ignore[return-value]


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return (
        not _SHOWN_OTHERWISE.get()
        and ipython is not None
        and getattr(ipython.get_ipython(), "kernel", None) is not None
    )


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


def thumbnail(plot: Callable[[], Axes | Figure]) -> str:
    """Draw a figure for a notebook; returns a data URL."""
    import io
    from base64 import b64encode

    token = _SHOWN_OTHERWISE.set(True)
    try:
        plotted = plot()
    finally:
        _SHOWN_OTHERWISE.reset(token)
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
    """Add a legend above the axes, where it hides no data, in as many columns as fit; the title moves above it."""
    labels = ax.get_legend_handles_labels()[1]
    if labels:
        size = 0.83 * _font_size()
        width = ax.get_position().width * ax.figure.bbox.width * 72 / ax.figure.dpi
        ncols = max(n for n in range(1, len(labels) + 1) if n == 1 or _legend_width(labels, n) * size <= width)
        legend(ax, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=ncols, frameon=False, borderaxespad=0.2,
               handlelength=1.6, columnspacing=1.2)  # fmt: skip
        entitle(ax, ax.get_title())


def _legend_width(labels: Sequence[str], ncols: int) -> float:
    """Width of a legend in so many columns, over the size of its font."""
    columns = [max(map(len, column)) for column in np.array_split(np.array(labels, dtype=object), ncols)]
    return sum(LETTER * letters + 3.2 for letters in columns)


def _font_size() -> float:
    import matplotlib

    return float(matplotlib.rcParams["font.size"])


def entitle(ax: Axes, text: str) -> None:
    """Set the title, above a legend that is above the axes."""
    box: Any = ax.get_legend()
    texts = box.get_texts() if box is not None else []
    rows = -(-len(texts) // box._ncols) if texts else 0
    ax.set_title(text, pad=6.0 + (1.5 * float(texts[0].get_fontsize()) * rows if texts else 0.0))


def panels(titles: Sequence[str], draws: Sequence[Callable[[Axes], Any]]) -> Figure:
    """One panel for each title, two in a row; `draws` draw into the axes of each."""
    return styled(_panels)(titles, draws)


def _panels(titles: Sequence[str], draws: Sequence[Callable[[Axes], Any]]) -> Figure:
    columns = min(2, len(titles))
    rows = -(-len(titles) // columns)
    figure = new_figure(COLUMN * columns, 3.1 * rows)
    for place, (title, draw) in enumerate(zip(titles, draws, strict=True), 1):
        ax = figure.add_subplot(rows, columns, place)
        draw(ax)
        entitle(ax, literal(title))
    return figure


def in_words(name: str) -> str:
    """A hyper-parameter in words."""
    return "learning rate" if name in ("lr", "eta") else name.replace("_", " ")


def literal(text: str) -> str:
    """Escape dollar signs in names from files, which matplotlib would read as mathematics."""
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text).replace("$", r"\$")


def number(value: float) -> str:
    """A number in a table: at most four digits, powers of ten below 0.001 and from 10^6; "unknown" for NaN."""
    if not math.isfinite(value):
        return "unknown"
    size = abs(value)
    if size != 0 and (size < 0.001 or size >= 10**6):
        return f"{value:.1e}"
    return f"{value:.4f}" if 0 < size < 0.1 else f"{value:.{max(0, 4 - len(str(int(size))))}f}"


def interval(exponent: Exponent) -> str:
    """Format the confidence interval, as in ``[0.25, 0.30]``; of a periodic orbit its bound, else "unknown"."""
    return f"below {number(exponent.bound)}" if math.isfinite(exponent.bound) else ends(*exponent.interval)


def ends(low: float, high: float) -> str:
    """Both ends of an interval in a table, apart in the last digit; "unknown" where one is, or both are equal."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return "unknown"
    if number(low) != number(high):
        return f"[{number(low)}, {number(high)}]"
    digits = next(n for n in range(4, 18) if f"{low:.{n}g}" != f"{high:.{n}g}")
    return f"[{low:.{digits}g}, {high:.{digits}g}]"


def waiting(exponent: Exponent) -> str:
    """Format the waiting time before growth: median, and 10 % and 90 % quantiles; empty without growth."""
    low, middle, high = exponent.waiting
    return f"{middle:g} ({low:.4g}-{high:.4g})" if math.isfinite(middle) else ""


def window(exponent: Exponent) -> str:
    """Format the fitted window, as in ``12-58``; empty without a fit."""
    start, stop = exponent.window
    return f"{start:g}-{stop:g}" if np.isfinite([start, stop]).all() else ""
