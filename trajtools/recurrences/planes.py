"""States whose recurrences are looked at: checked, embedded without a copy, and laid out for the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.trajectory import Trajectory
from trajtools.types import Bools, Floats, Ints

METRICS = ("linf", "l2", "l1")
# As in trajtools._kernels.recurrence_lines, which may not be imported before it is needed: numba takes a while.
_CODES = {"l1": 1, "l2": 2, "linf": 3}
_L2 = 2
# Numbers between these can be squared, and so can their differences down to 1e-16 of the largest.
_SMALLEST, _LARGEST = 1e-120, 1e120
# A distance below this part of the largest number would vanish when it is squared.
_LEAST_SHARE = 1e-140


@dataclass(frozen=True, eq=False)
class States:
    """Checked states.

    Attributes
    ----------
    series : ndarray of float64, shape (C, N)
        Channels of a series.
    offsets : ndarray of int64, shape (m,)
        Delays in samples, from 0 on: state i has the coordinates ``series[c, i + offset]``.
    finite : ndarray of bool, shape (T,)
        States without NaN or inf.
    """

    series: Floats
    offsets: Ints
    finite: Bools

    def __len__(self) -> int:
        return len(self.finite)

    @property
    def dimension(self) -> int:
        """Number of coordinates of a state."""
        return len(self.series) * len(self.offsets)

    def part(self, start: int, stop: int) -> States:
        """States start .. stop, as a view."""
        reach = int(self.offsets[-1])
        return States(self.series[:, start : stop + reach], self.offsets, self.finite[start:stop])

    def points(self, start: int = 0, stop: int | None = None) -> Floats:
        """States as rows, shape (t, d); the coordinates of an embedding as `trajtools.embed` orders them."""
        stop = len(self) if stop is None else stop
        return np.concatenate([self.series[:, start + o : stop + o].T for o in self.offsets], axis=1)


def prepare(x: Any, *, dim: int = 1, delay: int = 1, name: str = "x") -> States:
    """Check states, and note their delays."""
    given = np.asarray(x)
    if given.dtype.kind not in "fiub":
        raise DataError(f"{name}: states are real numbers; this array has dtype {given.dtype}")
    if given.ndim not in (1, 2) or not given.size:
        raise DataError(f"{name}: states are an array (T, d) or (T,); this one has shape {given.shape}")
    for word, value in (("dim", dim), ("delay", delay)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise DataError(f"{word}={value!r}: a whole number, at least 1")
    array = given.astype(np.float64, copy=False)
    series = np.ascontiguousarray(array[:, None].T if array.ndim == 1 else array.T)
    length = series.shape[1] - (dim - 1) * delay
    if length < 2:
        raise DataError(
            f"{name}: {series.shape[1]} samples give {max(length, 0)} states with dim={dim} and delay={delay}; "
            f"{(dim - 1) * delay + 2} samples are needed at least: lower dim or delay, or record more"
        )
    offsets = np.arange(dim, dtype=np.int64) * int(delay)
    good: Bools = np.logical_and.reduce(np.isfinite(series), axis=0)
    finite = np.ones(length, dtype=bool)
    for offset in offsets:
        finite &= good[offset : offset + length]
    if np.count_nonzero(finite) < 2:
        raise DataError(
            f"{name}: {int(np.count_nonzero(finite))} of {length} states are finite; two at least are needed: select a "
            "window without NaN and inf"
        )
    return States(series, offsets, finite)


def sampling(x: Any, dt: float | None) -> tuple[float, str]:
    """Time between two samples, and its unit."""
    if dt is not None:
        if not (np.isfinite(dt) and dt > 0):
            raise DataError(f"dt={dt!r}: the time between two samples is a positive number")
        return float(dt), "time"
    step, natural, unit = getattr(x, "step", None), getattr(x, "dt", 1.0), getattr(x, "time_unit", "sample")
    if step is None or len(step) < 2:
        return float(natural), unit
    gaps = np.unique(np.diff(step))
    if len(gaps) > 1:
        raise DataError(
            f"the states are between {gaps[0]} and {gaps[-1]} steps apart; lines of a recurrence plot need even "
            "spacing: select with window(start, stop, every=k)"
        )
    return float(natural) * int(gaps[0]), unit


def is_trajectory(x: Any) -> bool:
    """Whether it is a lazy trajectory."""
    return isinstance(x, Trajectory)


def metric_code(metric: str, dimension: int) -> int:
    """The metric as the kernels know it; in one dimension all are the same."""
    if metric not in METRICS:
        raise UnknownNameError(
            f"metric {metric!r} is none of {', '.join(METRICS)}; for others give Distances, or distances with "
            "metric='precomputed'"
        )
    return _CODES["linf"] if dimension == 1 else _CODES[metric]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two sets of states, and their distance: the states of the rows and of the columns of a recurrence plot.

    Attributes
    ----------
    rows, columns : States
        The same object for the recurrences of one system.
    metric : str
        Name of the metric.
    code : int
        The metric as the kernels know it.
    scale : float
        A power of two that the numbers are multiplied with before they are squared, so that no square overflows.
    """

    rows: States
    columns: States
    metric: str
    code: int
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the plot."""
        return len(self.rows), len(self.columns)

    @property
    def symmetric(self) -> bool:
        """Whether it is one system."""
        return self.rows is self.columns

    def part(self, rows: tuple[int, int], columns: tuple[int, int]) -> Pair:
        """A rectangle of the plot, as views."""
        left = self.rows.part(*rows)
        right = left if self.symmetric and rows == columns else self.columns.part(*columns)
        return Pair(left, right, self.metric, self.code, self.scale)

    def level(self, threshold: float, inclusive: bool) -> float:
        """What the kernels compare with."""
        largest = float(threshold) if inclusive else float(np.nextafter(threshold, -np.inf))
        if self.code != _L2 or largest <= 0 or not np.isfinite(largest):
            return largest
        largest *= self.scale
        if largest < _LEAST_SHARE * self.largest_number * self.scale:
            raise DataError(
                f"threshold={threshold:g} is less than {_LEAST_SHARE:g} of the largest coordinate, and vanishes when "
                "it is squared: use metric 'l1' or 'linf', or take the offset from the states"
            )
        return largest_square(largest)

    @property
    def largest_number(self) -> float:
        """Largest finite magnitude of a coordinate."""
        return max(_largest(self.rows.series), _largest(self.columns.series))

    def plane(self, threshold: float, inclusive: bool) -> Any:
        """The pair as the kernels read it."""
        from trajtools._kernels.recurrence_lines import Plane

        left = _pad(self.rows.series, self.scale)
        right = left if self.symmetric else _pad(self.columns.series, self.scale)
        return Plane(left, right, self.rows.offsets, self.code, self.level(threshold, inclusive))


def make_pair(rows: States, columns: States, metric: str) -> Pair:
    """Put two sets of states side by side."""
    if rows.dimension != columns.dimension:
        raise DataError(
            f"the states of x have {rows.dimension} coordinates, those of y {columns.dimension}; recurrences between "
            "two systems need the same ones. To join the recurrences of different systems use kind='joint'"
        )
    code = metric_code(metric, rows.dimension)
    scale = 1.0
    if code == _L2:
        largest = max(_largest(rows.series), _largest(columns.series))
        if not (_SMALLEST < largest < _LARGEST) and largest > 0:
            scale = 2.0 ** -float(np.frexp(largest)[1])
    return Pair(rows, columns, metric, code, scale)


def largest_square(distance: float) -> float:
    """The largest number whose rounded square root is not above a distance."""
    square = distance * distance
    while np.sqrt(square) <= distance:
        square = float(np.nextafter(square, np.inf))
    while np.sqrt(square) > distance:
        square = float(np.nextafter(square, -np.inf))
    return square


def _largest(series: Floats) -> float:
    finite = np.isfinite(series)
    return float(np.max(np.abs(series), where=finite, initial=0.0))


def _pad(series: Floats, scale: float) -> Floats:
    from trajtools._kernels.recurrence_lines import AFTER, BEFORE

    padded = np.full((series.shape[0], BEFORE + series.shape[1] + AFTER), np.nan)
    padded[:, BEFORE : BEFORE + series.shape[1]] = series if scale == 1.0 else series * scale
    return padded
