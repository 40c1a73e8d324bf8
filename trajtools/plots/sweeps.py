"""Figures over hyperparameters: sweeps, phase diagrams, scaling laws, curvature, order and chaos."""

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
    VERDICT_MARKERS,
    in_words,
    legend_above,
    literal,
    logarithmic,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trajtools.sweeps.diagram import PhaseDiagram, Scaling
    from trajtools.sweeps.sweep import Sweep
    from trajtools.training.curvature import Curvature
    from trajtools.training.order_chaos import OrderChaos
    from trajtools.types import Floats

EVEN = 0.05  # smaller relative differences of spacings count as equal
LINEAR = 0.01  # fraction of the largest exponent with linear colours
OF_DESCENT = 2.0  # rate x curvature up to which gradient descent is stable


@styled
def sweep(result: Sweep, threshold: float | None = None, ax: Sequence[Axes] | None = None) -> Figure:
    """Plot exponents (top) and training times (bottom; last losses without them), with the onset and the minimum.

    Filled points vote on the onset; hollow ones do not, and their label says why. Values at which fewer than half of
    the initial conditions reach the accuracy are triangles at the top.

    Parameters
    ----------
    result : Sweep
        A sweep over one hyperparameter.
    threshold : float or None
        Accuracy that defines the training times, as in `Sweep.fastest`.
    ax : sequence of two matplotlib.axes.Axes, or None
        Upper and lower axes to draw in; None: a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, with two axes that share x.

    Raises
    ------
    SelectionError
        If the sweep has two hyperparameters, or no such threshold.

    Examples
    --------
    >>> import trajtools as tt
    >>> from recorders.iris import record
    >>> files = [record(".", rate, inits=2, copies=1, steps=20, mode="w") for rate in (0.1, 1.0)]
    >>> figure = tt.plots.sweep(tt.sweep(files, "eta"))
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['exponent (1/step)', 'steps to accuracy 0.9']
    """
    curve = result.exponents()
    above, below = new_figure(COLUMN, 3.4).subplots(2, 1, sharex=True) if ax is None else ax
    for verdict in dict.fromkeys(curve.verdict):
        here = np.array([v == verdict for v in curve.verdict])
        color = VERDICT_COLORS.get(verdict, "0.3")
        error = np.where(np.isfinite(curve.error), 1.96 * curve.error, 0.0)
        face = color if curve.votes[here].all() else "none"
        above.errorbar(
            curve.x[here],
            curve.value[here],
            error[here],
            fmt=VERDICT_MARKERS.get(verdict, "P"),
            color=color,
            mfc=face,
            elinewidth=0.8,
            markersize=3,
            label=verdict,
        )
    above.axhline(0, color="0.7", linewidth=0.8)
    above.set_ylabel(f"exponent (1/{result.time_unit})")
    onset = result.onset()
    if onset.found:
        for each in (above, below):
            range_label = None if onset.is_located else "onset in this range"
            each.axvspan(*onset.interval, color=RED, alpha=0.1, linewidth=0, label=range_label)
            if onset.is_located:
                each.axvline(onset.value, color=RED, linewidth=1, label=f"onset at {onset.value:.3g}")
    _draw_times(below, result, threshold)
    if len(curve.x) and (curve.x > 0).all():
        for each in (above, below):
            logarithmic(each, "x")
    below.set_xlabel(literal(in_words(result.x_name)))
    for each in (above, below):
        legend_above(each)
    figure: Any = above.figure
    return figure


def _draw_times(ax: Axes, result: Sweep, threshold: float | None) -> None:
    if not any(point.times.shape[1] for point in result.points):
        _draw_losses(ax, result)
        return
    for control, style, color, label in ((False, "o-", BLUE, "training"), (True, "s--", GREEN, "stable control")):
        accuracy, x, times = result.times(threshold, control=control)
        reached = np.isfinite(times)
        if reached.any():
            ax.plot(x, np.where(reached, times, np.nan), style, color=color, label=label)
        if (~reached).any():  # at the top, wherever the axis ends
            words, top = f"{label}: not reached", np.full(int((~reached).sum()), 0.95)
            place = ax.get_xaxis_transform()
            ax.plot(x[~reached], top, "^", color=color, mfc="none", transform=place, label=words)
    fastest = result.fastest(accuracy)
    if np.isfinite(fastest.value) and fastest.time > 0:
        ax.plot([fastest.value], [fastest.time], "*", color="k", markersize=8, label=f"fastest at {fastest.value:.3g}")
        logarithmic(ax, "y")
    ax.set_ylabel(literal(f"{result.time_unit}s to accuracy {accuracy:g}"))


def _draw_losses(ax: Axes, result: Sweep) -> None:
    """Where no run has the metric of the training times: the last losses."""
    for control, style, color, label in ((False, "o", BLUE, "training"), (True, "s", GREEN, "stable control")):
        pairs = [(p.x, loss) for p in result.points if p.control is control for loss in p.final_loss]
        x, losses = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
        shown = np.isfinite(losses) & (losses < LARGEST)
        if shown.any():
            ax.plot(x[shown], losses[shown], style, color=color, mfc="none", label=label)
            if (losses[shown] > 0).all():
                logarithmic(ax, "y")
    ax.set_ylabel("last loss")


@styled
def phase_diagram(result: PhaseDiagram, names: tuple[str, str] | None = None, ax: Axes | None = None) -> Axes:
    """Plot the exponent over two hyperparameters, with the onset along x and its interval.

    Parameters
    ----------
    result : PhaseDiagram
        The phase diagram.
    names : (str, str) or None
        Names of x and y; None: those of the diagram.
    ax : matplotlib.axes.Axes or None
        Axes to draw in; None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the plot. Colours are linear near zero and logarithmic beyond, to distinguish slow from fast growth.
        A ring marks a cell with an inconclusive, unconverged or mixed verdict, a cross one whose training diverged or
        died; a cell without exponent is grey. Values spaced neither linearly nor logarithmically are drawn at equal
        distances.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from recorders import Recorder
    >>> for lr in (0.1, 0.2, 0.4):
    ...     for momentum in (0.0, 0.9):
    ...         options = {"mode": "w", "quiet": True, "hparams": {"lr": lr, "momentum": momentum}}
    ...         with Recorder(f"{lr}-{momentum}.h5", {"w": np.ones(2)}, **options) as recorder:
    ...             for step in range(41):
    ...                 growth = 10 * lr - 3 + 0.01 * (step % 3)
    ...                 recorder.record({"w": np.ones(2)}, accuracy=lr * step / 4, growth=growth)
    >>> result = tt.sweep(".", "lr", "momentum", exponent="metric:growth")
    >>> ax = tt.plots.phase_diagram(result.phase_diagram())
    >>> ax.get_xlabel()
    'learning rate'
    """
    ax = new_figure(COLUMN, 2.8).add_subplot() if ax is None else ax
    from matplotlib.colors import SymLogNorm

    (x_scale, x, x_edges), (y_scale, y, y_edges) = _layout(result.x), _layout(result.y)
    size = float(np.nanmax(np.abs(result.exponent), initial=0.0)) or 1.0
    norm = SymLogNorm(linthresh=LINEAR * size, linscale=0.5, vmin=-size, vmax=size, base=10)
    ax.set_facecolor("0.85")
    mesh = ax.pcolormesh(x_edges, y_edges, np.ma.masked_invalid(result.exponent), cmap="RdBu_r", norm=norm)
    powers = 10.0 ** np.arange(np.ceil(np.log10(LINEAR * size)), np.log10(size) + 1e-9)
    bar = ax.figure.colorbar(mesh, ax=ax, label="exponent (1/step)", ticks=[*-powers[::-1], 0.0, *powers])
    bar.ax.minorticks_off()
    for words, marker, label in (
        (("inconclusive", "not converged", "mixed"), "o", "inconclusive or mixed"),
        (("diverging", "diverged", "dead"), "x", "diverged or dead"),
    ):
        rows, columns = np.argwhere([[v in words for v in row] for row in result.verdict]).reshape(-1, 2).T
        if len(rows):
            ax.plot(x[columns], y[rows], marker, ms=3, mfc="w", mec="0.2", mew=0.5, label=label, linestyle="")
    finite = np.isfinite(result.boundary)
    if finite.any():
        at, low, high = (_position(v, result.x, x) for v in (result.boundary[finite], *result.intervals[finite].T))
        spread = np.maximum([at - low, high - at], 0.0)
        ax.errorbar(at, y[finite], xerr=spread, fmt="k.-", capsize=3, label=f"onset, {result.level:.0%}")
    for which, scale, places, values in (("x", x_scale, x, result.x), ("y", y_scale, y, result.y)):
        if scale == "log":
            logarithmic(ax, which)
        if scale == "index":
            ax.set(**{f"{which}ticks": places, f"{which}ticklabels": [f"{value:g}" for value in values]})
    x_name, y_name = names or (literal(in_words(result.x_name)), literal(in_words(result.y_name)))
    ax.set_xlabel(x_name)
    ax.set_ylabel(y_name)
    legend_above(ax)
    return ax


def _layout(values: Floats) -> tuple[str, Floats, Floats]:
    """Scale of an axis, positions of its values, and the edges between them."""
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


def _position(at: Floats, values: Floats, places: Floats) -> Floats:
    """Position of a number between the values."""
    if np.array_equal(values, places) or np.allclose(values, places, rtol=1e-9):
        return at
    return np.interp(np.log(at), np.log(values), places) if (values > 0).all() else np.interp(at, values, places)


@styled
def scaling(result: Scaling, color: str | None = None, ax: Axes | None = None) -> Axes:
    """Plot training times against those of the scaling law.

    Parameters
    ----------
    result : Scaling
        The scaling law.
    color : str or None
        Factor shown by colours; None: the last one.
    ax : matplotlib.axes.Axes or None
        Axes to draw in; None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the plot. Filled points entered the fit, hollow ones did not; runs that never reach the accuracy are
        at the top.

    Raises
    ------
    SelectionError
        If the law has no such factor.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from recorders import Recorder
    >>> for lr in (0.05, 0.1, 0.15, 0.2):
    ...     for momentum in (0.0, 0.9):
    ...         options = {"mode": "w", "quiet": True, "hparams": {"lr": lr, "momentum": momentum}}
    ...         with Recorder(f"{lr}-{momentum}.h5", {"w": np.ones(2)}, **options) as recorder:
    ...             for step in range(81):
    ...                 growth = 10 * lr - 3 + 0.01 * (step % 3)
    ...                 recorder.record({"w": np.ones(2)}, accuracy=lr * step / 4, growth=growth)
    >>> result = tt.sweep(".", "lr", "momentum", exponent="metric:growth")
    >>> ax = tt.plots.scaling(result.scaling("lr", 0.9))
    >>> ax.get_xlabel()
    'law: 3.73 (lr)^-0.99'
    """
    color = result.names[-1] if color is None else color
    values = result.factor(color)
    ax = new_figure(COLUMN, 3.3).add_subplot() if ax is None else ax
    import matplotlib

    plotted = np.isfinite(result.predicted) & (result.times > 0)
    each = np.unique(values[plotted])
    tones = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(each)))
    reached = plotted & np.isfinite(result.times)
    top = 1.5 * float(result.times[reached].max(initial=1.0))
    for value, tone in zip(each, tones, strict=True):
        here = values == value
        label = f"{literal(color)} = {value:.4g}"
        for group, face, name in ((result.used, tone, label), (~result.used, "none", None)):
            selected = here & reached & group
            ax.plot(result.predicted[selected], result.times[selected], "o", ms=4, color=tone, mfc=face, label=name)
        never = here & plotted & ~reached
        ax.plot(result.predicted[never], np.full(never.sum(), top), "^", ms=4, color=tone, mfc="none")
    if (plotted & ~reached).any():
        ax.text(1.0, top, "not reached ", transform=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize="small")
    for axis in ("x", "y"):
        logarithmic(ax, axis)
    if reached.any():
        # The points of the line must not widen the axes.
        ax.set_xlim(0.7 * float(result.predicted[plotted].min()), 1.5 * float(result.predicted[plotted].max()))
        ax.set_ylim(0.7 * float(result.times[reached].min()), 1.5 * top)
        ax.axline((1.0, 1.0), (10.0, 10.0), color="k", linewidth=1, label="the law")
    powers = (f"({literal(n)})^{p:.2g}" for n, p in zip(result.names, result.powers, strict=True))
    ax.set_xlabel(f"law: {np.exp(result.constant):.3g} {' '.join(powers)}")
    ax.set_ylabel(literal(f"{result.time_unit}s to accuracy {result.threshold:g}"))
    legend_above(ax)
    return ax


@styled
def curvature(result: Curvature, ax: Axes | None = None) -> Axes:
    """Plot rate x h_max with the threshold of the optimiser and the entry into the edge of stability.

    Where the threshold is unknown, that of gradient descent, 2, is drawn dotted.

    Parameters
    ----------
    result : Curvature
        From `trajtools.training.curvature`.
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
    >>> from recorders import Recorder
    >>> with Recorder("drawn.h5", {"w": np.ones(2)}, hparams={"lr": 0.1}, quiet=True) as recorder:
    ...     for step in range(60):
    ...         recorder.record({"w": np.ones(2)}, h_max_full=10.0)
    >>> ax = tt.plots.curvature(tt.training.curvature(tt.open("drawn.h5")))
    >>> ax.get_xlabel()
    'step'
    """
    if ax is None:
        ax = new_figure(COLUMN, 2.6).add_subplot()
    finite = np.isfinite(result.product)
    style = "." if finite.sum() < 200 else "-"
    source = literal(result.sources["h_max"])
    ax.plot(result.step[finite], result.product[finite], style, color=BLUE, label=source)
    known = np.isfinite(result.threshold)
    level = float(result.threshold) if known else OF_DESCENT
    style, label = ("-", "stable below {:.3g}") if known else (":", "gradient descent is stable below {:.3g}")
    ax.axhline(level, color=RED if known else "0.5", linewidth=1, linestyle=style, label=label.format(level))
    if np.isfinite(result.entry):
        label = f"edge of stability from step {result.entry:.0f}"
        ax.axvline(result.entry, color=GREEN, linewidth=1, label=label)
    ax.set_ylim(0, 1.2 * max(level, float(np.nanquantile(result.product, 0.99)) if finite.any() else 0.0))
    ax.set_xlabel("step")
    ax.set_ylabel("learning rate x largest curvature")
    legend_above(ax)
    return ax


@styled
def order_chaos(result: OrderChaos, ax: Axes | None = None) -> Axes:
    """Plot the path of a layer in the plane of J0/J and 1/J, with the mean-field boundary.

    Parameters
    ----------
    result : OrderChaos
        The path; the first state is an open circle, the last a filled one.
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
    >>> weights = np.random.default_rng(0).standard_normal((5, 30, 30)) / 30**0.5
    >>> ax = tt.plots.order_chaos(tt.training.order_chaos(weights))
    >>> ax.get_xlabel()
    'J0 / J'
    """
    if ax is None:
        ax = new_figure(COLUMN, 3).add_subplot()
    finite = np.isfinite(result.J) & (result.J > 0)
    across, up = result.J0[finite] / result.J[finite], 1 / result.J[finite]
    edge, heights = result.boundary()
    left, right = min(-1.0, across.min(initial=0.0) - 0.1), max(2.0, across.max(initial=0.0) + 0.1)
    for side in (-1, 1):  # the sign of the mean does not matter
        ax.plot(side * edge, heights, color="0.3", linewidth=1)
    ax.plot([-1, 1], [1, 1], color="0.3", linewidth=1, label="edge of chaos (mean field)")
    ax.plot(across, up, color=BLUE, linewidth=1.5, label=literal(result.layer))
    ax.plot(across[:1], up[:1], "o", color=BLUE, markerfacecolor="white")
    ax.plot(across[-1:], up[-1:], "o", color=BLUE)
    ax.set_xlim(left, right)
    ax.set_ylim(0, max(2.1, up.max(initial=0.0) * 1.05))
    ax.set_xlabel("J0 / J")
    ax.set_ylabel("1 / J")
    legend_above(ax)
    return ax


@styled
def edge(result: Any, ax: Sequence[Axes] | None = None) -> Figure:
    """Plot late losses (top) and exponents (bottom) against the rate, with both answers.

    Parameters
    ----------
    result : recorders.edge.Edge
        From `find_edge`.
    ax : sequence of two matplotlib.axes.Axes, or None
        Upper and lower axes to draw in; None: a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, with two axes that share the rate. Open circles are exponents that are not converged, open squares
        losses of trainings that ended before the last rung or do not train.
    """
    above, below = new_figure(COLUMN, 4.2).subplots(2, 1, sharex=True) if ax is None else ax
    finite = np.isfinite(result.losses)
    last = finite & (result.steps == result.horizon) & np.isin(result.states, ("trains", "slow"))
    above.plot(result.rates[last], result.losses[last], "s-", color="0.3", label=f"after {result.horizon} steps")
    rest = finite & ~last
    above.plot(result.rates[rest], result.losses[rest], "s", color="0.6", markerfacecolor="white", label="earlier")
    above.set_ylabel("late training loss")
    spread = np.abs(result.intervals - result.exponents[:, None])
    known = result.converged
    for part, face, meaning in ((known, BLUE, "converged"), (~known, "white", "not converged")):
        shown = part & np.isfinite(result.exponents)
        error = np.where(np.isfinite(spread), spread, 0.0).T[:, shown]
        style: dict[str, Any] = {"fmt": "o", "color": BLUE, "markerfacecolor": face, "capsize": 2}
        style["label"] = meaning if shown.any() else None
        below.errorbar(result.rates[shown], result.exponents[shown], error, **style)
    below.axhline(0, color="0.7", linewidth=0.8)
    below.set_ylabel("exponent (1/step)")
    below.set_xlabel("learning rate")
    logarithmic(above, "y")
    for each in (above, below):
        logarithmic(each, "x")
        if np.isfinite(result.recommended):
            label = f"recommended {result.recommended:.3g}"
            each.axvline(result.recommended, color=GREEN, linewidth=1.5, linestyle="--", label=label)
        if np.isfinite(result.recommended_long) and result.recommended_long != result.recommended:
            label = f"for long trainings {result.recommended_long:.3g}"
            each.axvline(result.recommended_long, color=GREEN, linewidth=1, linestyle=":", label=label)
        if result.found:
            each.axvspan(*result.onset_interval, color=RED, alpha=0.1, linewidth=0)
            each.axvline(result.onset, color=RED, linewidth=1, label=f"onset {result.onset:.3g}")
    legend_above(above)
    handles, labels = below.get_legend_handles_labels()
    marks = [k for k, label in enumerate(labels) if label.endswith("converged")]
    if marks:
        below.legend([handles[k] for k in marks], [labels[k] for k in marks], loc="best")
    figure: Any = above.figure
    return figure
