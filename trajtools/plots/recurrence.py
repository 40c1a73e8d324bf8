"""Recurrence plots, thresholded and not, and the lengths of their lines; matplotlib is loaded when one is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.errors import DataError
from trajtools.plots.canvas import new_figure
from trajtools.recurrences.lines import rows_at_a_time
from trajtools.recurrences.plot import unpack_rows
from trajtools.recurrences.result import Recurrence, WindowedRecurrence
from trajtools.results.curves import Floats

_KINDS = ("diagonal", "vertical", "white", "times")


def draw_recurrence(result: Recurrence, *, distances: bool = False, pixels: int = 800, ax: Any = None) -> Any:
    """Draw the recurrence plot, or the distances that it comes from.

    Parameters
    ----------
    result : Recurrence
        From `trajtools.recurrence`.
    distances : bool
        Draw the distances themselves, without a threshold.
    pixels : int
        A longer plot is averaged to so many cells a side: grey is the share of recurrences, or the mean distance.
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    image = averaged(result, distances=distances, pixels=pixels)
    if ax is None:
        ax = new_figure(5.6, 5).add_subplot()
    rows, columns = result.lines.shape
    extent = (-0.5 * result.dt, (columns - 0.5) * result.dt, -0.5 * result.dt, (rows - 0.5) * result.dt)
    shown = ax.imshow(
        image,
        origin="lower",
        extent=extent,
        interpolation="nearest",
        cmap="viridis_r" if distances else "binary",
        vmin=0.0,
        vmax=None if distances else max(float(np.nanmax(image, initial=0.0)), 1e-12),
    )
    if distances:
        ax.figure.colorbar(shown, ax=ax, label=f"distance ({result.metric})")
    ax.set_xlabel(f"time ({result.time_unit})")
    ax.set_ylabel(f"time ({result.time_unit})")
    ax.set_title(f"RR {result.RR:.3g}, DET {result.DET:.3g}, LAM {result.LAM:.3g}", fontsize="medium")
    return ax


def draw_lines(result: Recurrence, kind: str = "diagonal", ax: Any = None) -> Any:
    """Draw how many lines there are of every length.

    Parameters
    ----------
    result : Recurrence
        From `trajtools.recurrence`.
    kind : str
        ``"diagonal"``, ``"vertical"``, ``"white"`` or ``"times"`` (recurrence times).
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    DataError
        If there is no such kind of lines.
    MissingDependencyError
        If matplotlib is not installed.
    """
    if kind not in _KINDS:
        raise DataError(f"kind={kind!r} is none of {', '.join(_KINDS)}")
    if ax is None:
        ax = new_figure(6, 4).add_subplot()
    counts = getattr(result.lines, kind)
    lengths = np.flatnonzero(counts)
    ax.plot(lengths * result.dt, counts[lengths], "o", markersize=3)
    ax.set_yscale("log")
    ax.set_xscale("log")
    ax.set_xlabel(f"{'recurrence time' if kind == 'times' else f'length of {kind} lines'} ({result.time_unit})")
    ax.set_ylabel("number")
    return ax


def draw_windowed(result: WindowedRecurrence, names: tuple[str, ...] = ("RR", "DET", "LAM"), ax: Any = None) -> Any:
    """Draw measures over time.

    Parameters
    ----------
    result : WindowedRecurrence
        From `Recurrence.windowed`.
    names : tuple of str
        Which measures.
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    if ax is None:
        ax = new_figure(7, 4).add_subplot()
    for name in names:
        ax.plot(result.time, result[name], marker=".", label=name)
    ax.set_xlabel(f"time ({result.time_unit})")
    ax.set_ylabel(f"in windows of {result.size} states")
    ax.legend(fontsize="small")
    return ax


def averaged(result: Recurrence, *, distances: bool, pixels: int) -> Floats:
    """Shares of recurrences, or mean distances, in at most so many cells a side; NaN where all states are excluded.

    Parameters
    ----------
    result : Recurrence
        Whose plot.
    distances : bool
        Distances, not recurrences.
    pixels : int
        Most cells a side.

    Returns
    -------
    ndarray of float64, shape (at most pixels, at most pixels)
    """
    source = result.plot_source
    rows, columns = source.shape
    row_cells, column_cells = min(rows, pixels), min(columns, pixels)
    row_of = np.arange(rows) * row_cells // rows
    starts = np.searchsorted(np.arange(columns) * column_cells // columns, np.arange(column_cells))
    finite_rows, finite_columns = source.finite
    total, number = np.zeros((row_cells, column_cells)), np.zeros((row_cells, column_cells))
    step = rows_at_a_time(columns)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        good = finite_rows[start:stop, None] & finite_columns
        values = source.distances(start, stop) if distances else unpack_rows(source.bits(start, stop), columns)
        sums = np.add.reduceat(np.where(good, values, 0.0), starts, axis=1)
        np.add.at(total, row_of[start:stop], sums)
        np.add.at(number, row_of[start:stop], np.add.reduceat(good.astype(np.float64), starts, axis=1))
    with np.errstate(invalid="ignore"):
        return total / number
