"""Two hyper-parameters and more: the phase diagram, and training times against the law that was fitted to them."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.errors import SelectionError
from trajtools.plots.canvas import logarithmic, new_figure
from trajtools.results.curves import Floats
from trajtools.sweeps.diagram import PhaseDiagram, Scaling

EVEN = 0.05  # spacings that differ by less are drawn as equal
LINEAR = 0.01  # share of the largest exponent up to which the colours are linear


def phase_diagram(found: PhaseDiagram, names: tuple[str, str] | None = None, ax: Any = None) -> Any:
    """Draw the exponent over two hyper-parameters, with the onset along x and its interval.

    Parameters
    ----------
    found : PhaseDiagram
        The grid.
    names : (str, str) or None
        Of x and y; None: those of the diagram.
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Where it was drawn. The colours are linear near zero and logarithmic beyond, so that slow growth is told from
        fast. A ring marks a cell whose verdict is inconclusive or mixed; one without an exponent is grey. Values that
        are spaced evenly neither as they are nor in their logarithm are drawn side by side.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    ax = new_figure(7, 5).add_subplot() if ax is None else ax
    from matplotlib.colors import SymLogNorm

    (x_scale, x, x_edges), (y_scale, y, y_edges) = _layout(found.x), _layout(found.y)
    size = float(np.nanmax(np.abs(found.exponent), initial=0.0)) or 1.0
    norm = SymLogNorm(linthresh=LINEAR * size, linscale=0.5, vmin=-size, vmax=size, base=10)
    ax.set_facecolor("0.85")
    drawn = ax.pcolormesh(x_edges, y_edges, np.ma.masked_invalid(found.exponent), cmap="RdBu_r", norm=norm)
    powers = 10.0 ** np.arange(np.ceil(np.log10(LINEAR * size)), np.log10(size) + 1e-9)
    bar = ax.figure.colorbar(drawn, ax=ax, label="exponent (1/step)", ticks=[*-powers[::-1], 0.0, *powers])
    bar.ax.minorticks_off()
    unsure = np.array([[v in ("inconclusive", "mixed") for v in row] for row in found.verdict], dtype=bool)
    if unsure.any():
        rows, columns = np.nonzero(unsure)
        ax.plot(x[columns], y[rows], "o", ms=3, mfc="w", mec="0.2", mew=0.5, label="inconclusive or mixed")
    known = np.isfinite(found.boundary)
    if known.any():
        at, low, high = (_place(v, found.x, x) for v in (found.boundary[known], *found.intervals[known].T))
        spread = np.maximum([at - low, high - at], 0.0)
        ax.errorbar(at, y[known], xerr=spread, fmt="k.-", capsize=3, label=f"onset, {found.level:.0%}")
    for which, scale, places, values in (("x", x_scale, x, found.x), ("y", y_scale, y, found.y)):
        if scale == "log":
            logarithmic(ax, which)
        if scale == "index":
            ax.set(**{f"{which}ticks": places, f"{which}ticklabels": [f"{value:g}" for value in values]})
    ax.set_xlabel((names or (found.x_name, found.y_name))[0])
    ax.set_ylabel((names or (found.x_name, found.y_name))[1])
    _legend(ax)
    return ax


def scaling(found: Scaling, colour: str | None = None, ax: Any = None) -> Any:
    """Draw the training times against those of the law: on the line it holds.

    Parameters
    ----------
    found : Scaling
        The law.
    colour : str or None
        Factor whose values the colours tell apart; None: the last one.
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Runs that entered the fit are filled, those that were left out hollow; those that do not arrive are at the top.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    SelectionError
        If the law has no such factor.
    """
    colour = found.names[-1] if colour is None else colour
    if colour not in found.names:
        raise SelectionError(f"colour={colour!r} is none of the law's factors: {', '.join(found.names)}")
    ax = new_figure(6, 5).add_subplot() if ax is None else ax
    import matplotlib

    shown = np.isfinite(found.predicted) & (found.times > 0)
    values = found.factors[:, found.names.index(colour)]
    each = np.unique(values[shown])
    tones = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(each)))
    arrived = shown & np.isfinite(found.times)
    top = 1.5 * float(found.times[arrived].max(initial=1.0))
    for value, tone in zip(each, tones, strict=True):
        here = values == value
        for which, face, name in ((found.used, tone, f"{colour} = {value:.4g}"), (~found.used, "none", None)):
            chosen = here & arrived & which
            ax.plot(found.predicted[chosen], found.times[chosen], "o", ms=4, color=tone, mfc=face, label=name)
        never = here & shown & ~arrived
        ax.plot(found.predicted[never], np.full(never.sum(), top), "^", ms=4, color=tone, mfc="none")
    if (shown & ~arrived).any():
        ax.text(1.0, top, "not reached ", transform=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize="small")
    for axis in ("x", "y"):
        logarithmic(ax, axis)
    if arrived.any():
        # The line is no data: its two points do not widen the axes.
        ax.set_xlim(0.7 * float(found.predicted[shown].min()), 1.5 * float(found.predicted[shown].max()))
        ax.set_ylim(0.7 * float(found.times[arrived].min()), 1.5 * top)
        ax.axline((1.0, 1.0), (10.0, 10.0), color="k", linewidth=1, label="the law")
    powers = (f"({n})^{p:.2g}" for n, p in zip(found.names, found.powers, strict=True))
    ax.set_xlabel(f"law: {np.exp(found.constant):.3g} {' '.join(powers)}")
    ax.set_ylabel(f"{found.time_unit}s to {found.threshold:g}")
    _legend(ax)
    return ax


def _layout(values: Floats) -> tuple[str, Floats, Floats]:
    """How an axis is scaled, where its values are drawn, and the edges between them."""
    count = len(values)
    scale, places = "index", np.arange(float(count))
    for name, scaled in (("linear", values), ("log", np.log(values) if (values > 0).all() else values)):
        gaps = np.diff(scaled)
        if count > 2 and np.ptp(gaps) <= EVEN * gaps.mean():
            scale, places = name, scaled
            break
    half = (places[1] - places[0]) / 2 if count > 1 else 0.5
    edges = np.array([places[0] - half, *(places[1:] + places[:-1]) / 2, places[-1] + half])
    return (scale, np.exp(places), np.exp(edges)) if scale == "log" else (scale, places, edges)


def _place(at: Floats, values: Floats, places: Floats) -> Floats:
    """Where a number between the values is drawn."""
    if np.array_equal(values, places) or np.allclose(values, places, rtol=1e-9):
        return at
    return np.interp(np.log(at), np.log(values), places) if (values > 0).all() else np.interp(at, values, places)


def _legend(ax: Any) -> None:
    """Above the axes, where it hides no data."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
