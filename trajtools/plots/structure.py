"""Figures of recurrences, correlations, dimension and the 0-1 test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trajtools.plots._axes import BLUE, COLUMN, RED, legend_above, literal, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.recurrences.measures import Recurrence, WindowedRecurrence
    from trajtools.structure.autocorrelation import Autocorrelation
    from trajtools.structure.correlation_sum import CorrelationSum
    from trajtools.structure.cycles import Cycles
    from trajtools.structure.dimension import Dimension
    from trajtools.structure.zero_one import ZeroOne


@styled
def recurrence(
    result: Recurrence, *, distances: bool = False, pixels: int = 800, start: float = 0.0, ax: Axes | None = None
) -> Axes:
    """Draw the recurrence plot, or its distances.

    Parameters
    ----------
    result : Recurrence
        From `trajtools.recurrence`.
    distances : bool
        Draw the distances themselves, without a threshold.
    pixels : int
        Largest number of cells per side; longer plots are averaged over cells (recurrence rate or mean distance).
    start : float
        Time of the first state.
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
    >>> x = np.sin(0.2 * np.arange(400))
    >>> ax = tt.plots.recurrence(tt.recurrence(x, dim=2, delay=8))
    >>> ax.get_xlabel()
    'time (sample)'
    """
    image = result.image(pixels, distances=distances)
    if ax is None:
        ax = new_figure(COLUMN, 3.5).add_subplot()
    low, *highs = (start + (n - 0.5) * result.dt for n in (0, *result.lines.shape))
    mappable = ax.imshow(
        image,
        origin="lower",
        extent=(low, highs[1], low, highs[0]),
        interpolation="nearest",
        cmap="viridis_r" if distances else "binary",
        vmin=0.0,
        vmax=None if distances else max(float(np.nanmax(image, initial=0.0)), 1e-12),
    )
    if distances:
        ax.figure.colorbar(mappable, ax=ax, label=literal(f"distance ({result.metric})"))
    ax.set_xlabel(literal(f"time ({result.time_unit})"))
    ax.set_ylabel(literal(f"time ({result.time_unit})"))
    ax.set_title(f"RR {result.RR:.3g}, DET {result.DET:.3g}, LAM {result.LAM:.3g}", fontsize="medium")
    return ax


@styled
def recurrence_lines(result: Recurrence, kind: str = "diagonal", ax: Axes | None = None) -> Axes:
    """Plot the histogram of line lengths.

    Parameters
    ----------
    result : Recurrence
        From `trajtools.recurrence`.
    kind : str
        ``"diagonal"``, ``"vertical"``, ``"white"`` or ``"times"`` (recurrence times).
    ax : matplotlib.axes.Axes or None
        Axes to draw in; None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the plot.

    Raises
    ------
    DataError
        If there is no such kind of lines.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> ax = tt.plots.recurrence_lines(tt.recurrence(x, dim=2, delay=8))
    >>> ax.get_xlabel()
    'length of diagonal lines (sample)'
    """
    counts = result.lines.counts(kind)
    if ax is None:
        ax = new_figure(COLUMN, 2.6).add_subplot()
    lengths = np.flatnonzero(counts)
    ax.plot(lengths * result.dt, counts[lengths], "o", markersize=3)
    ax.set_yscale("log")
    ax.set_xscale("log")
    quantity = "recurrence time" if kind == "times" else f"length of {kind} lines"
    ax.set_xlabel(literal(f"{quantity} ({result.time_unit})"))
    ax.set_ylabel("number")
    return ax


@styled
def recurrence_windows(
    result: WindowedRecurrence, names: tuple[str, ...] = ("RR", "DET", "LAM"), ax: Axes | None = None
) -> Axes:
    """Plot recurrence measures over time.

    Parameters
    ----------
    result : WindowedRecurrence
        From `Recurrence.windowed`.
    names : tuple of str
        Names of the measures.
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
    >>> x = np.sin(0.2 * np.arange(400))
    >>> ax = tt.plots.recurrence_windows(tt.recurrence(x, dim=2, delay=8).windowed(100))
    >>> ax.get_xlabel()
    'time (sample)'
    """
    if ax is None:
        ax = new_figure(COLUMN, 2.2).add_subplot()
    for name in names:
        ax.plot(result.time, result[name], marker=".", label=name)
    ax.set_xlabel(literal(f"time ({result.time_unit})"))
    ax.set_ylabel(f"measure in windows of {result.size} states")
    legend_above(ax)
    return ax


@styled
def autocorrelation(result: Autocorrelation, ax: Axes | None = None, *, cycles: Cycles | None = None) -> Axes:
    """Plot the autocorrelation, the band of its null, and the values of each layer.

    Parameters
    ----------
    result : Autocorrelation
        From `trajtools.autocorrelation`.
    ax : matplotlib.axes.Axes or None
        Axes to draw in; None: a new figure.
    cycles : Cycles or None
        From `trajtools.structure.find_cycles`; marks the multiples of the period.

    Returns
    -------
    matplotlib.axes.Axes
        The axes of the plot.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> ax = tt.plots.autocorrelation(tt.autocorrelation(np.sin(0.2 * np.arange(400)), surrogates=19))
    >>> ax.get_xlabel()
    'lag (step)'
    """
    if ax is None:
        ax = new_figure(COLUMN, 2.4).add_subplot()
    if np.isfinite(result.low[1:]).any():
        label = f"{result.settings.get('level', 0.95):.0%} of {result.null}"
        ax.fill_between(result.time[1:], result.low[1:], result.high[1:], color="0.8", linewidth=0, label=label)
        for sign in (-1, 1):
            ax.axhline(sign * result.threshold, color="0.5", linewidth=0.8, linestyle=":")
    for name, values in zip(result.layers, result.layer_values, strict=True):
        ax.plot(result.time, values, linewidth=0.8, alpha=0.8, label=literal(name))
    ax.plot(result.time, result.values, color=BLUE, linewidth=1.8, label="network autocorrelation")
    if cycles is not None and np.isfinite(cycles.period):
        for mark in np.arange(1, int(result.lag[-1] / cycles.period) + 1) * cycles.time:
            ax.axvline(mark, color=RED, linewidth=0.5, alpha=0.6)
        ax.set_title(f"{cycles.kind} period {cycles.time:.4g} {cycles.time_unit}", fontsize="medium")
    ax.axhline(0, color="0.3", linewidth=0.7)
    ax.set_xlabel(literal(f"lag ({result.time_unit})"))
    ax.set_ylabel("autocorrelation")
    legend_above(ax)
    return ax


@styled
def correlation_sum(result: CorrelationSum, ax: Axes | None = None) -> Axes:
    """Plot the correlation sum against the radius.

    Parameters
    ----------
    result : CorrelationSum
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
    >>> x = np.sin(0.2 * np.arange(400))
    >>> ax = tt.plots.correlation_sum(tt.structure.correlation_sum(x[:, None], theiler=10))
    >>> ax.get_xlabel()
    'radius r (l2)'
    """
    if ax is None:
        ax = new_figure(COLUMN, 2.7).add_subplot()
    some = result.counts > 0
    ax.loglog(result.radii[some], result.correlation[some], color=BLUE, marker=".", linewidth=1)
    ax.set_xlabel(literal(f"radius r ({result.metric})"))
    ax.set_ylabel("correlation sum C(r)")
    return ax


@styled
def correlation_dimension(result: Dimension, ax: Axes | None = None) -> Axes:
    """Plot the local slopes of the correlation sums, the scaling region and the dimension.

    Parameters
    ----------
    result : Dimension
        The dimension; one curve per embedding dimension, or one for states.
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
    >>> x = np.sin(0.2 * np.arange(400))
    >>> ax = tt.plots.correlation_dimension(tt.correlation_dimension(x[:, None]))
    >>> ax.get_xlabel()
    'radius r (l2)'
    """
    if ax is None:
        ax = new_figure(COLUMN, 2.7).add_subplot()
    embedded = len(result.correlation_sums) > 1
    for k, sums in enumerate(result.correlation_sums):
        middle = np.sqrt(sums.radii[1:] * sums.radii[:-1])
        label = f"embedding dimension {result.dims[k]}" if embedded else "local slope"
        ax.plot(middle, sums.local_slope, linewidth=1, color=f"C{k}", label=label)
    if np.isfinite(result.region).all():
        low, high = result.interval
        label = f"{result.value:.3f} [{low:.3f}, {high:.3f}], {result.verdict}"
        ax.axvspan(*result.region, color=BLUE, alpha=0.12, linewidth=0)
        ax.hlines(result.value, *result.region, color="black", linewidth=1.5, label=label)
    else:
        ax.plot([], [], " ", label=f"{result.verdict}: no scaling region")
    ax.set_xscale("log")
    slopes = np.concatenate([sums.local_slope[np.isfinite(sums.local_slope)] for sums in result.correlation_sums])
    top = max([result.space or 1, *result.dims.tolist()]) + 0.5
    if np.isnan(result.value):  # all that there is to be seen are the slopes
        top = max(top, 1.1 * float(slopes.max(initial=0.0)))
    ax.set_ylim(min(0.0, float(slopes.min(initial=0.0))), max(top, np.nan_to_num(result.value) * 1.3))
    ax.set_xlabel(literal(f"radius r ({result.correlation_sums[-1].metric})"))
    ax.set_ylabel("d ln C / d ln r")
    legend_above(ax)
    return ax


@styled
def zero_one_test(result: ZeroOne, ax: Axes | None = None) -> Axes:
    """Plot K of the 0-1 test for every frequency, and their median.

    Parameters
    ----------
    result : ZeroOne
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
    >>> x = tt.systems.logistic().trajectory(500, rng=0)[:, 0]
    >>> ax = tt.plots.zero_one_test(tt.structure.zero_one_test(x))
    >>> ax.get_xlabel()
    'frequency c (radians per sample)'
    """
    if ax is None:
        ax = new_figure(COLUMN, 2.5).add_subplot()
    ax.plot(result.frequencies, result.values, ".", color="0.5", label=f"K of {len(result.values)} frequencies")
    ax.axhline(result.value, color=BLUE, linewidth=2, label=f"median {result.value:.3f}: {result.verdict}")
    for level in (result.settings["low"], result.settings["high"]):
        ax.axhline(level, color="0.3", linewidth=0.8, linestyle=":")
    ax.set_ylim(-0.6, 1.4)
    ax.set_xlabel("frequency c (radians per sample)")
    ax.set_ylabel(literal(f"K ({result.method})"))
    legend_above(ax)
    return ax
