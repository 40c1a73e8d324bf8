"""Figures of states: distances, orbits, projections, metrics, change points and system states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trajtools.plots._axes import (
    BLUE,
    COLUMN,
    LARGEST,
    RED,
    legend_above,
    literal,
    logarithmic,
    new_figure,
    styled,
)

SHARES = ("acc", "auc", "f1", "precision", "recall", "fraction", "share")  # in names of metrics that are fractions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from trajtools.distances.equal_times import Contributions
    from trajtools.distances.pairwise import Distances
    from trajtools.neighbors.to_orbit import ToOrbit
    from trajtools.stability.orbital import OrbitalStability
    from trajtools.structure.change_points import ChangePoints
    from trajtools.structure.observables import Observables
    from trajtools.structure.projection import Projection
    from trajtools.structure.system_states import SystemStates
    from trajtools.types import Floats


@styled
def distances(result: Distances, ax: Axes | None = None, *, pixels: int = 1000) -> Axes:
    """Plot all distances as an image, with excluded states blank.

    Parameters
    ----------
    result : Distances
        Result to plot.
    ax : matplotlib.axes.Axes or None
        Axes to draw in; None: a new figure.
    pixels : int
        Largest number of states per side; above it, every k-th state is drawn, as stated in the title.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the plot.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.random.default_rng(0).standard_normal((80, 3)).cumsum(axis=0)
    >>> ax = tt.plots.distances(tt.pairwise(x))
    >>> ax.get_xlabel()
    'step'
    """
    if ax is None:
        ax = new_figure(COLUMN, 3.3).add_subplot()
    rows, columns = (max(1, -(-n // pixels)) for n in result.shape)
    steps = [result.column_step[::columns], result.step[::rows]]
    edges = [np.concatenate([s[:1], s[1:] / 2 + s[:-1] / 2, s[-1:]]) if len(s) > 1 else np.array([0, 1]) for s in steps]
    image = ax.pcolormesh(*edges, result[::rows, ::columns], cmap="viridis", rasterized=True)
    ax.figure.colorbar(image, ax=ax, label=literal(f"distance ({result.metric})"), fraction=0.08)
    ax.set_aspect("equal" if result.square else "auto")
    ax.set_xlabel("step")
    ax.set_ylabel("step")
    thinned = f", one in {max(rows, columns)} drawn" if max(rows, columns) > 1 else ""
    ax.set_title(f"{result.shape[0]} x {result.shape[1]} states{thinned}, {result.n_excluded} excluded")
    return ax


@styled
def to_orbit(result: ToOrbit, ax: Axes | None = None) -> Axes:
    """Plot the distance to the orbit over time.

    Parameters
    ----------
    result : ToOrbit
        Result to plot.
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
    >>> x = np.random.default_rng(0).standard_normal((80, 3)).cumsum(axis=0)
    >>> ax = tt.plots.to_orbit(tt.to_orbit(x, x[::2]))
    >>> ax.get_xlabel()
    'step'
    """
    if ax is None:
        ax = new_figure(COLUMN, 2.6).add_subplot()
    ax.plot(result.step, result.distance)
    if np.any(result.distance > 0):
        ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel(literal(f"distance to the orbit ({result.metric})"))
    ax.set_title(f"{len(result.distance)} states, {result.n_excluded} excluded")
    return ax


@styled
def contributions(result: Contributions, ax: Axes | None = None) -> Axes:
    """Plot the stacked share of each part, or the distances themselves if they are not additive.

    Parameters
    ----------
    result : Contributions
        Result to plot.
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
    >>> from trajtools.wiring import describe
    >>> table, nodes = describe({"W1": ((2, 3), "float64"), "W2": ((3, 1), "float64")})
    >>> a = tt.Trajectory.from_array(np.zeros((2, 9)), parameters=table, nodes=nodes)
    >>> b = tt.Trajectory.from_array(np.ones((2, 9)), parameters=table, nodes=nodes)
    >>> ax = tt.plots.contributions(tt.distances.contributions(a, b))
    >>> ax.get_xlabel()
    'step'
    """
    if ax is None:
        ax = new_figure(COLUMN, 2.6).add_subplot()
    names = [literal(name) for name in result.names]
    if np.isfinite(result.share).any():
        ax.stackplot(result.step, np.nan_to_num(result.share.T), labels=names)
        ax.set_ylabel("share of the distance")
    else:
        for name, curve in zip(names, result.distance.T, strict=True):
            ax.plot(result.step, curve, label=name)
        ax.set_ylabel(literal(f"distance ({result.metric})"))
    ax.set_xlabel("step")
    ax.set_title(literal(f"{result.metric} per {result.per}"))
    legend_above(ax)
    return ax


@styled
def stability(result: OrbitalStability, ax: Axes | None = None) -> Axes:
    """Plot the distance at equal times, the distance to the orbit and the lag of every perturbed trajectory.

    Parameters
    ----------
    result : OrbitalStability
        From `trajtools.orbital_stability`. Thin lines are trajectories, thick lines their geometric mean; bands are
        what unrelated states of the reference have.
    ax : matplotlib.axes.Axes or None
        Axes for the distances; None: a new figure, with the lag below them.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the distances.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(400.0)
    >>> orbit = np.c_[np.cos(0.1 * t), np.sin(0.1 * t)]
    >>> result = tt.orbital_stability((orbit, [orbit * (1 + 0.01 * 0.97**t)[:, None]]))
    >>> ax = tt.plots.stability(result)
    >>> ax.get_ylabel()
    'distance (l1)'
    """
    below = None
    if ax is None:
        figure = new_figure(COLUMN, 4.0)
        ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    _draw_orbit_distances(ax, result)
    if below is not None:
        for row in result.lag:
            below.plot(result.time, row, color="0.5", linewidth=0.7)
        below.axhline(0, color="0.3", linewidth=0.7, linestyle=":")
        below.set_ylabel(literal(f"lag ({result.time_unit})"))
    (ax if below is None else below).set_xlabel(literal(f"time since the perturbation ({result.time_unit})"))
    return ax


def _draw_orbit_distances(ax: Axes, result: OrbitalStability) -> None:
    curves = (
        ("at equal times", result.distance, BLUE),
        ("to the orbit", result.transverse, RED),
    )
    for label, rows, color in curves:
        positive = np.where(rows > 0, rows, np.nan)
        for row in positive:
            ax.plot(result.time, row, color=color, linewidth=0.5, alpha=0.4)
        ax.plot(result.time, _geometric_mean(positive), color=color, linewidth=2.2, label=label)
    for label, rows, style in (
        ("rounding floor", result.floor, ":"),
        ("resolution", result.resolution, "--"),
    ):
        mean = _geometric_mean(np.where(rows > 0, rows, np.nan))
        if np.isfinite(mean).any():
            ax.plot(result.time, mean, color="0.4", linewidth=0.9, linestyle=style, label=label)
    for label, (low, high), color in (
        ("unrelated, at equal times", result.chance_distance, BLUE),
        ("unrelated, to the orbit", result.chance_orbit, RED),
    ):
        if 0 < low < high:
            ax.axhspan(low, high, color=color, alpha=0.12, linewidth=0, label=label)
    ax.set_yscale("log")
    lowest = min((float(rows[rows > 0].min()) for _, rows, _ in curves if (rows > 0).any()), default=0.0)
    if lowest > 0:  # far below the curves, the rounding floor would leave them little room
        ax.set_ylim(bottom=lowest / 30)
    ax.set_ylabel(literal(f"distance ({result.metric})"))
    ax.set_title(result.verdict, fontsize="medium")
    legend_above(ax)  # loc="best" is slow with many lines


def _geometric_mean(rows: Floats) -> Floats:
    """Geometric mean over the trajectories with a value; NaN without any."""
    count = np.isfinite(rows).sum(axis=0)
    total = np.log(np.where(np.isfinite(rows), rows, 1.0)).sum(axis=0)
    return np.where(count > 0, np.exp(total / np.maximum(count, 1)), np.nan)


@styled
def projection(result: Projection, ax: Axes | None = None) -> Axes:
    """Plot the trajectories in their first two coordinates, or the first one over time.

    Parameters
    ----------
    result : Projection
        The projection; perturbed copies are thin lines, a dot marks each start.
    ax : matplotlib.axes.Axes or None
        Axes to draw in; None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the plot; ``.figure.savefig(...)`` writes the figure.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.random.default_rng(0).standard_normal((80, 3)).cumsum(axis=0)
    >>> ax = tt.plots.projection(tt.structure.pca(x))
    >>> ax.get_xlabel()
    'coordinate 1 (85%)'
    """
    if ax is None:
        ax = new_figure(COLUMN, 3.1).add_subplot()
    plane = result.coordinates.shape[1] > 1
    for member, name in enumerate(result.names):
        rows, copy = result.member == member, result.reference[member] >= 0
        z = result.coordinates[rows]
        x, y = (z[:, 0], z[:, 1]) if plane else (result.step[rows], z[:, 0])
        style = {"linewidth": 0.6, "alpha": 0.6} if copy else {"linewidth": 1.8, "label": literal(name)}
        (line,) = ax.plot(x, y, **style)
        ax.plot(x[:1], y[:1], ".", color=line.get_color())
    ax.set_xlabel(f"coordinate 1 ({result.share[0]:.0%})" if plane else "step")
    ax.set_ylabel(f"coordinate 2 ({result.share[1]:.0%})" if plane else f"coordinate 1 ({result.share[0]:.0%})")
    title = f"{result.method} ({result.metric}), correlation of distances {result.distance_correlation:.2f}"
    ax.set_title(literal(title))
    legend_above(ax)
    return ax


@styled
def observables(result: Observables, ax: Axes | None = None) -> Axes:
    """Plot norm, displacement and step length over time.

    Parameters
    ----------
    result : Observables
        Result to plot.
    ax : matplotlib.axes.Axes or None
        Axes to draw in; None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the plot; ``.figure.savefig(...)`` writes the figure.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.random.default_rng(0).standard_normal((80, 3)).cumsum(axis=0)
    >>> ax = tt.plots.observables(tt.structure.observables(x))
    >>> ax.get_xlabel()
    'time (sample)'
    """
    if ax is None:
        ax = new_figure(COLUMN, 2.2).add_subplot()
    for values, label in (
        (result.norm, "norm"),
        (result.displacement, "displacement"),
        (result.step_length, "step length"),
    ):
        ax.plot(result.time, np.where(values > 0, values, np.nan), linewidth=1, label=label)
    ax.set_yscale("log")
    ax.set_xlabel(literal(f"time ({result.time_unit})"))
    ax.set_ylabel(literal(result.metric))
    legend_above(ax)
    return ax


@styled
def metric(step: ArrayLike, values: ArrayLike, name: str, ax: Axes | None = None) -> Axes:
    """Plot a recorded metric, such as the loss, over training.

    Parameters
    ----------
    step : array_like of float, shape (T,)
        Steps of the training.
    values : array_like of float, shape (T,)
        The metric. The axis is logarithmic for a loss, and for positive values that span more than a decade; shares
        such as the accuracy, and metrics with values at or below zero, have a linear one.
    name : str
        Name of the metric.
    ax : matplotlib.axes.Axes or None
        Axes to draw in; None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the plot. Values of a loss that are not positive are marks at its lower edge, and counted.

    Examples
    --------
    >>> import trajtools as tt
    >>> ax = tt.plots.metric([0, 10, 20], [1.0, 0.1, 0.01], "loss")
    >>> ax.get_ylabel(), ax.get_yscale()
    ('loss', 'log')
    """
    if ax is None:
        ax = new_figure(COLUMN, 2.2).add_subplot()
    steps, heights = np.asarray(step), np.asarray(values, dtype=np.float64)
    finite = np.isfinite(heights)
    positive = finite & (heights > 0)
    if _is_logarithmic(name, heights[finite]):
        heights = np.minimum(heights, LARGEST)
        ax.plot(steps, np.where(positive, heights, np.nan), color=BLUE)
        logarithmic(ax, "y")
        low, high = heights[positive].min(), heights[positive].max()
        ax.set_ylim(low / 1.15, max(high * 1.15, 2.0 * low))
        rest = finite & ~positive
        if rest.any():
            label, edge = f"{rest.sum()} at or below 0", np.full(rest.sum(), low / 1.15)
            ax.plot(steps[rest], edge, "v", markersize=4, color=RED, clip_on=False, label=label)
            legend_above(ax)
    else:
        ax.plot(steps, heights, color=BLUE)
        if _is_share(name, heights[finite]):
            ax.set_ylim(-0.02, 1.02)
    if len(steps) > 1:
        ax.set_xlim(steps[0], steps[-1])
    ax.set_xlabel("step")
    ax.set_ylabel(literal(name))
    return ax


def _is_share(name: str, values: Floats) -> bool:
    """Whether a metric is a fraction, by its name and its values."""
    return (
        any(word in name.lower() for word in SHARES) and len(values) > 0 and bool(np.all((values >= 0) & (values <= 1)))
    )


def _is_logarithmic(name: str, values: Floats) -> bool:
    positive = values[values > 0]
    if _is_share(name, values) or not len(positive):
        return False
    if "loss" in name.lower() and len(positive) > len(values) / 2:
        return True
    return len(positive) == len(values) and bool(positive.max() > 10 * positive.min())


@styled
def change_points(result: ChangePoints, ax: Axes | None = None) -> Axes:
    """Plot the signal, the mean of each segment, and the changes.

    Parameters
    ----------
    result : ChangePoints
        Result to plot.
    ax : matplotlib.axes.Axes or None
        Axes to draw in; None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the plot; ``.figure.savefig(...)`` writes the figure.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.random.default_rng(0).standard_normal((80, 3)).cumsum(axis=0)
    >>> ax = tt.plots.change_points(tt.structure.change_points(x))
    >>> ax.get_xlabel()
    'step'
    """
    if ax is None:
        ax = new_figure(COLUMN, 2.2).add_subplot()
    signal = "step length" if result.signal == "step_length" else literal(result.signal)
    ax.plot(result.steps, result.values, color="0.6", linewidth=0.7, label=signal)
    edges = np.concatenate([result.steps[:1], result.step, result.steps[-1:]])
    ax.hlines(result.segment_mean, edges[:-1], edges[1:], color=BLUE, linewidth=2, label="mean of each segment")
    for step in result.step:
        ax.axvline(step, color=RED, linewidth=1, linestyle="--")
    count = len(result.index)
    title = f"{count} change{'s' * (count != 1)}"
    ax.set_title(f"{title}, p = {result.p_value:.3g}" if np.isfinite(result.p_value) else title)
    ax.set_xlabel("step")
    ax.set_ylabel(signal)
    legend_above(ax)
    return ax


@styled
def system_states(result: SystemStates, ax: Axes | None = None) -> Axes:
    """Plot the system state at each step.

    Parameters
    ----------
    result : SystemStates
        Result to plot.
    ax : matplotlib.axes.Axes or None
        Axes to draw in; None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the plot; ``.figure.savefig(...)`` writes the figure.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.random.default_rng(0).standard_normal((80, 3)).cumsum(axis=0)
    >>> ax = tt.plots.system_states(tt.structure.system_states(np.r_[x, x + 100]))
    >>> ax.get_xlabel()
    'step'
    """
    if ax is None:
        ax = new_figure(COLUMN, 1.7).add_subplot()
    labels = np.where(result.labels >= 0, result.labels + 1.0, np.nan)
    ax.step(result.step, labels, where="post", color=BLUE, linewidth=1)
    ax.set_yticks(np.arange(1, result.count + 1))
    ax.set_ylim(0.5, result.count + 0.5)
    ax.set_xlabel("step")
    ax.set_ylabel("system state")
    ax.set_title(f"{result.count} system state{'s' * (result.count != 1)}, by {result.criterion}")
    return ax
