"""Figures of divergence curves and fitted exponents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.plots._axes import (
    BLUE,
    COLUMN,
    GREEN,
    LARGEST,
    RED,
    VERDICT_COLORS,
    entitle,
    interval,
    legend_above,
    literal,
    new_figure,
    number,
    styled,
)

FLOOR_NEAR = 7.0  # e-folds below the curves within which the rounding floor is drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trajtools.exponents.divergence import Divergence
    from trajtools.exponents.exponent import Exponent
    from trajtools.exponents.windows import Windows
    from trajtools.types import Floats


@styled
def divergence(
    growth: Divergence, exponent: Exponent | None = None, ax: Axes | None = None, *, max_curves: int | None = None
) -> Axes:
    """Plot divergence curves, their mean, and the fit.

    Parameters
    ----------
    growth : Divergence
        The curves: thin grey lines, one per initial condition (mean over its copies) or block of states, and a thick
        mean.
    exponent : Exponent or None
        Adds the fitted window and line, the lines at both ends of the interval, the value in the legend, and the band
        of the null, if any.
    ax : matplotlib.axes.Axes or None
        Axes to draw in; None: a new figure.
    max_curves : int or None
        Largest number of thin lines, evenly selected; None: all.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the plot; ``.figure.savefig(...)`` writes the figure.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(60.0)
    >>> twins = (0.9**t, [0.9**t + 1e-9 * 1.3**t])
    >>> ax = tt.plots.divergence(tt.twins(twins), tt.twins(twins).fit())
    >>> ax.get_xlabel()
    'time since the perturbation (step)'
    """
    if ax is None:
        ax = new_figure(COLUMN, 3.3).add_subplot()
    twins = growth.method == "twins"
    _draw_curves(ax, growth, max_curves)
    mean, label = _mean(growth) if twins else (growth.log_distance, "mean")
    ax.plot(growth.time, _exp(mean), color="0.15", linewidth=1.5, label=label)
    floor = growth.floor_curve()
    near = np.nanmin(growth.log_distance, initial=np.inf) - FLOOR_NEAR
    if np.isfinite(floor).any() and np.nanmax(floor) > near:
        ax.plot(growth.time, _exp(floor), color="0.3", linewidth=1, linestyle=":", label="rounding floor")
    if exponent is not None:
        _draw_fit(ax, exponent, max_curves)
        _draw_null(ax, exponent, with_record=not twins)
    ax.set_yscale("log")
    ax.set_xlabel(literal(f"time {'since the perturbation ' if twins else ''}({growth.time_unit})"))
    ax.set_ylabel(literal(f"distance {'to the reference' if twins else 'of neighbours'} ({growth.metric})"))
    if len(growth.time) > 1:
        ax.set_xlim(growth.time[0], growth.time[-1])
    legend_above(ax)
    return ax


def _exp(logarithm: Any) -> Any:
    """The distance; one of a training that ran away ends at the largest number that an axis can show."""
    return np.exp(np.minimum(logarithm, np.log(LARGEST)))


def _mean(growth: Divergence) -> tuple[Floats, str]:
    """Mean over the half of the curves that last longest, while all of them last: one that ends would make it jump."""
    curves = growth.orbit_curves()
    known = np.isfinite(curves)
    last = np.where(known.any(axis=1), curves.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1), -1)
    until = int(np.median(last))
    kept = last >= until
    if last.min() == last.max() or until < 1:
        return growth.log_distance, "mean of all curves"
    mean = np.full(curves.shape[1], np.nan)
    mean[: until + 1] = curves[kept, : until + 1].mean(axis=0)
    return mean, f"mean of the {int(kept.sum())} longest curves"


def _draw_curves(ax: Axes, growth: Divergence, most: int | None) -> None:
    curves = growth.orbit_curves()
    most = len(curves) if most is None else min(most, len(curves))
    rows = np.unique(np.linspace(0, len(curves) - 1, most).round().astype(int))
    plural = "" if len(curves) == 1 else "s"
    total = f"{len(curves)} {'curve' if growth.method == 'twins' else 'block'}{plural}"
    label = total if len(rows) == len(curves) else f"{len(rows)} of {total}"
    for place, row in enumerate(rows):
        ax.plot(growth.time, _exp(curves[row]), color="0.55", linewidth=0.5, alpha=0.5,
                label=None if place else label)  # fmt: skip


def _draw_fit(ax: Axes, exponent: Exponent, most: int | None) -> None:
    line = exponent.fitted_line()
    if line is None:
        ax.plot([], [], " ", label=f"{exponent.verdict}: nothing fitted")
        return
    time, log_distance = line
    stretches = np.asarray(exponent.settings.get("stretches", np.empty((0, 4))))
    if len(stretches):
        shown = np.unique(np.linspace(0, len(stretches) - 1, min(len(stretches), most or len(stretches))).round())
        for place, (start, low, stop, high) in enumerate(stretches[shown.astype(int)]):
            label = None if place else "fitted stretches"
            ax.plot([start, stop], _exp([low, high]), color=BLUE, linewidth=0.8, alpha=0.6, label=label)
    else:
        ax.axvspan(*time, color=BLUE, alpha=0.12, linewidth=0, label="fitted window")
    wedge = exponent.interval_lines()
    if wedge is not None:
        ends, low, high = wedge
        ax.fill_between(ends, _exp(low), _exp(high), color=RED, alpha=0.15, linewidth=0)
    label = f"{number(exponent.value)} {interval(exponent)} {exponent.unit}"
    ax.plot(time, _exp(log_distance), color=RED, linestyle="--", linewidth=2, label=literal(label))
    level = exponent.settings.get("saturation_level")
    if isinstance(level, float | int) and np.isfinite(level):
        ax.axhline(_exp(level), color="0.3", linewidth=1, linestyle="-.", label="saturation")


def _draw_null(ax: Axes, exponent: Exponent, *, with_record: bool) -> None:
    band = exponent.null_band()
    if band is None:
        return
    low, high, color = _exp(band["low"]), _exp(band["high"]), GREEN
    ax.fill_between(band["time"], low, high, color=color, alpha=0.2, linewidth=0, label="null: 90% of the surrogates")
    if with_record:  # for twins this is the mean, already drawn
        ax.plot(band["time"], _exp(band["record"]), color=color, linewidth=1, label="tested curve")


@styled
def divergences(
    panels: Sequence[tuple[str, Divergence, Exponent | None]], windows: Sequence[tuple[str, Windows]] = ()
) -> Figure:
    """Plot several divergences side by side, on one scale.

    Parameters
    ----------
    panels : sequence of (str, Divergence, Exponent or None)
        Titles, curves and fits; at least one.
    windows : sequence of (str, Windows)
        Title and exponents of windows, drawn after the curves.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``.savefig(...)`` writes it.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(60.0)
    >>> twins = (0.9**t, [0.9**t + 1e-9 * 1.3**t])
    >>> growth = tt.twins(twins)
    >>> figure = tt.plots.divergences([("fitted", growth, growth.fit()), ("curves", growth, None)])
    >>> len(figure.axes)
    2
    """
    count = len(panels) + len(windows)
    columns = min(2, count)
    rows = -(-count // columns)
    figure = new_figure(COLUMN * columns, 3.1 * rows)
    first = None
    for place, (title, growth, exponent) in enumerate(panels):
        ax = figure.add_subplot(rows, columns, place + 1, sharey=first)
        divergence(growth, exponent, ax=ax)
        legend, value = ax.get_legend(), ""
        if place and legend is not None:  # the first panel has the legend of all
            legend.remove()
            value = "" if exponent is None else f"\n{number(exponent.value)} {interval(exponent)} {exponent.unit}"
        entitle(ax, literal(title + value))
        first = ax if first is None else first
    for place, (title, result) in enumerate(windows, start=len(panels)):
        ax = figure.add_subplot(rows, columns, place + 1)
        gain = draw_windows(result, ax=ax).get_title()
        entitle(ax, f"{literal(title)}: {gain}" if gain else literal(title))
    return figure


@styled
def draw_windows(result: Windows, ax: Axes | None = None) -> Axes:
    """Plot the exponent of each window of the training, with its interval and its verdict.

    Parameters
    ----------
    result : Windows
        From `trajtools.lyapunov_windows`. Bars are thin if the twins were perturbed before the window.
    ax : matplotlib.axes.Axes or None
        Axes to draw in; None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the plot.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(60.0)
    >>> twins = (0.9**t, [0.9**t + 1e-9 * 1.3**t])
    >>> ax = tt.plots.windows(tt.lyapunov_windows(twins, window=20))
    >>> ax.get_xlabel()
    'step of the training'
    """
    if ax is None:
        ax = new_figure(COLUMN, 2.6).add_subplot()
    ax.axhline(0, color="0.3", linewidth=0.8)
    named: set[str] = set()
    for w, verdict in enumerate(result.verdict):
        span = [result.start[w], result.stop[w]]
        color = VERDICT_COLORS[verdict]
        if not np.isfinite(result.value[w]):
            ax.axvspan(*span, color="0.92", linewidth=0)
            continue
        if np.isfinite(result.interval[w]).all():
            ax.fill_between(span, *result.interval[w], color=color, alpha=0.2, linewidth=0)
        label = None if verdict in named else verdict
        ax.plot(span, [result.value[w]] * 2, color=color, linewidth=3 if result.fresh[w] else 1.5, label=label)
        named.add(verdict)
    if len(result.perturbed):
        bottom = ax.get_xaxis_transform()
        ax.plot(result.perturbed, np.full(len(result.perturbed), 0.02), "|", color="0.3", transform=bottom,
                markersize=5, markeredgewidth=0.6, label="perturbations")  # fmt: skip
    if np.isfinite(result.max_gain):
        low, high = result.max_gain_between
        ax.set_title(f"largest gain: {number(result.max_gain)} e-folds, steps {low} to {high}")
    ax.set_xlabel("step of the training")
    ax.set_ylabel(literal(f"exponent ({result.unit})"))
    legend_above(ax)
    return ax
