"""Curves of the distance between neighbouring trajectories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.exponent import Exponent
from trajtools.exponents.fit_neighbors import METHODS as NEIGHBOR_METHODS, fit_neighbors
from trajtools.exponents.fit_twins import fit_twins
from trajtools.exponents.published_fits import fit_published
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.statistics import AVERAGES, average_curves, mean_curve
from trajtools.types import Floats, Ints, RealArrayLike, RNGLike
from trajtools.wording import counted, spoken, time_units

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = float(np.log(10))  # e-folds between perturbations of different sizes, at least


@dataclass(frozen=True, eq=False, repr=False)
class Divergence(Result):
    """Curves of the distance between neighbouring trajectories, before any fit.

    Attributes
    ----------
    method : str
        Name of the estimator.
    metric : str
        Name of the distance between states.
    average : str
        ``"mean-log"``, ``"log-mean"`` or ``"rms"``: average over the copies of one initial condition; see `curves`.
    time : ndarray of float64, shape (K + 1,)
        Time since the perturbation, in `time_unit`.
    time_unit : str
        Unit of `time`; exponents are in 1 / unit.
    log_distance : ndarray of float64, shape (K + 1,)
        Mean of the curves over the initial conditions, natural logarithm; NaN where no curve is left.
    distances : ndarray of float64, shape (U, K + 1)
        Distance of each unit (each twin to its reference), aligned at its own start; zero where it has merged with the
        reference, NaN after the end of its record and from its first state that is not finite.
    group : ndarray of int64, shape (U,)
        Initial condition of each unit. Units of one group share an orbit and are not independent.
    start : ndarray of int64, shape (U,)
        Step at which the perturbation was introduced.
    floor : ndarray of float64, shape (U, K + 1)
        Distance that rounding of the stored weights alone can produce; NaN where unknown.
    scale : ndarray of float64, shape (U,)
        Largest distance of the reference from zero along its record: the room for growth; NaN where unknown.
    n_references : int
        Number of initial conditions.
    settings : dict
        Every parameter used, including automatic choices.
    warnings : tuple of Reason
        Warnings that limit the interpretation of the curves.
    speed : ndarray of float64, shape (U, K + 1), or None
        L1 length of the last step of the reference of each unit, at the times of `distances`; NaN where it was not
        measured. None where the states are not known.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(60.0)
    >>> twins = (0.9**t, [0.9**t + 1e-9 * 1.3**t])
    >>> growth = tt.twins(twins)
    >>> growth.method, len(growth.time)
    ('twins', 60)
    >>> curves = 1e-9 * np.exp([0.3 * t, 0.31 * t])
    >>> tt.Divergence.from_distances(curves).log_distance.shape
    (2,)
    """

    method: str
    metric: str
    average: str
    time: Floats
    time_unit: str
    log_distance: Floats
    distances: Floats
    group: Ints
    start: Ints
    floor: Floats
    scale: Floats
    n_references: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    speed: Floats | None = None
    _dims: ClassVar[AxisNames] = {
        "distances": ("curve", "time"),
        "floor": ("curve", "time"),
        "group": ("curve",),
        "start": ("curve",),
        "scale": ("curve",),
        "log_distance": ("time",),
    }

    def _sentence(self) -> str:
        e_folds = (
            float(np.nanmax(self.log_distance) - self.log_distance[0]) if np.isfinite(self.log_distance).any() else 0
        )
        growth = f"{e_folds:.3g} e-folds between its start and its largest value"
        curves = counted(len(self.distances), "curve") + f" from {counted(self.n_references, 'initial condition')}"
        over = (
            f"over {spoken(float(self.time[-1]))} {time_units(self.time_unit)}" if len(self.time) else "without a time"
        )
        return f"{curves} ({self.method}, {self.metric}), {over}; the mean gains {growth}. .fit() gives the exponent."

    @classmethod
    def from_distances(
        cls,
        d: RealArrayLike,
        *,
        time: RealArrayLike | None = None,
        group: RealArrayLike | None = None,
        start: int | Sequence[int] | None = None,
        metric: str = "l1",
        average: str = "mean-log",
        time_unit: str | None = None,
    ) -> Self:
        """Divergence from distances d(t) that exist already.

        Parameters
        ----------
        d : array_like, shape (T, C) or (T,), or list of C series
            Distance of each copy to its reference at equal times; series of a list may differ in length. NaN and masked
            entries are unknown: a curve ends at the first one.
        time : array_like or None, shape (T,)
            Time of each row, rising; None: 0, 1, 2, ...
        group : array_like or None, shape (C,)
            Initial condition of each curve, as numbers or names. Copies of one reference share theirs and are not
            independent. None: each curve is an initial condition of its own.
        start : int, sequence of int or None
            Step at which the curves begin, in the unit of `time`: one for all, or one for each. None: the first time.
        metric : str
            Name of the distance, as a label: nothing is computed again.
        average : str
            ``"mean-log"``, ``"log-mean"`` or ``"rms"``: how the copies of one initial condition are averaged, see
            `trajtools.twins`.
        time_unit : str or None
            Unit of `time`; None: ``"step"``, or ``"time"`` where `time` is given.

        Returns
        -------
        Divergence
            As `trajtools.twins` makes it: a curve begins where its distance is first above zero. The rounding floor of
            the weights is unknown, and a warning says so.

        Raises
        ------
        DataError
            If the distances are no real numbers of such a shape or negative, or if `time`, `group` or `start` do not
            fit them.
        UnknownNameError
            If there is no such average.

        Examples
        --------
        >>> import numpy as np
        >>> import trajtools as tt
        >>> t = np.arange(60)
        >>> d = 1e-9 * np.outer(np.exp(0.3 * t), [1.0, 1.1, 0.9])     # three copies of one reference
        >>> growth = tt.Divergence.from_distances(d, group=[0, 0, 0])
        >>> bool(np.allclose(np.diff(growth.log_distance), 0.3))
        True
        """
        if average not in AVERAGES:
            raise UnknownNameError(f"there is no average {average!r}; there are {', '.join(AVERAGES)}")
        series = _series(d)
        clock = _clock(time, max(map(len, series)))
        label = _labels(group, len(series))
        begin = _starts(start, round(float(clock[0])), len(series))
        unknown = np.full(len(clock), np.nan)
        records = [clean(clock[: len(row)], row, unknown[: len(row)]) for row in series]
        grid, distances, floor = align_records(records)
        start_of = begin + np.array([round(float(one.step[0] - clock[0])) for one in records], dtype=np.int64)
        counts = count_left_out(records)
        curves = average_curves(distances, label, start_of, average)
        settings = {"metric": metric, "average": average, "dt": 1.0, "window": None, "stored": "distances"}
        settings |= {"n_units": len(records), "n_references": len(np.unique(label))}
        words = "only distances are known: the rounding floor of the weights behind them was not checked"
        return cls(
            method="twins",
            metric=metric,
            average=average,
            time=np.asarray(grid, dtype=np.float64),
            time_unit=time_unit or ("step" if time is None else "time"),
            log_distance=mean_curve(curves[0], curves[1]),
            distances=distances,
            group=label,
            start=start_of,
            floor=floor,
            scale=np.full(len(records), np.nan),
            n_references=len(np.unique(label)),
            settings=settings | {f"n_{name}": count for name, count in counts.items()},
            warnings=(
                Reason("floor-unknown", words),
                *left_out_warnings(counts, records, time_unit or ("step" if time is None else "time")),
            ),
        )

    @property
    def planting(self) -> Ints:
        """Number of the planting of each unit, shape (U,): units of one initial condition and start share it."""
        pairs = np.stack([self.group, self.start], axis=1)
        return np.unique(pairs, axis=0, return_inverse=True)[1].ravel().astype(np.int64)

    @property
    def size(self) -> Ints:
        """Class of the first distance of each unit, shape (U,), 0 the smallest: copies of one epsilon share it.

        First distances belong to different classes where a gap between them, of a factor 10 at least, is wider than
        both classes.
        """
        return size_classes(self.distances[:, 0] if self.distances.shape[1] else np.zeros(len(self.group)))

    def curves(self) -> tuple[Floats, Ints, Ints]:
        """Logarithmic curves for fits, averaged by the rule `average`.

        Returns
        -------
        curves : ndarray of float64, shape (C, K + 1)
            Natural logarithms; NaN after the end of a curve. One curve per unit for ``"mean-log"``, else one per
            initial condition and start.
        group, start : ndarray of int64, shape (C,)
            Initial condition of each curve, and the step of its perturbation.
        """
        return average_curves(self.distances, self.group, self.start, self.average)

    def orbit_curves(self) -> Floats:
        """One curve per initial condition and start, averaged over the copies by the rule `average`.

        Returns
        -------
        ndarray of float64, shape (C, K + 1)
            Natural logarithms of the distance; NaN after the end of a curve.
        """
        curves, group, start = self.curves()
        orbits, orbit = np.unique(np.stack([group, start], axis=1), axis=0, return_inverse=True)
        if len(orbits) == len(curves):
            return curves
        rows = [curves[orbit.ravel() == k] for k in range(len(orbits))]
        return np.array([mean_curve(copies, np.zeros(len(copies), dtype=np.int64)) for copies in rows])

    def floor_curve(self) -> Floats:
        """Distance that rounding alone can produce, as the median over the units.

        Returns
        -------
        ndarray of float64, shape (K + 1,)
            Natural logarithms; NaN where the rounding floor is unknown or zero.
        """
        floor = np.broadcast_to(self.floor, self.distances.shape)
        medians = np.full(floor.shape[1], np.nan)
        for k in range(floor.shape[1]):
            known = floor[:, k][floor[:, k] > 0]
            if known.size:
                medians[k] = np.log(np.median(known))
        return medians

    def fit(
        self,
        region: str | tuple[float, float] = "auto",
        *,
        null: str | None = "power-law",
        procedure: str | None = None,
        level: float = 0.95,
        rng: RNGLike = None,
    ) -> Exponent:
        """Fit the exponential regime.

        Parameters
        ----------
        region : "auto" or (float, float)
            Times between which the growth is measured, in `time_unit`; ``"auto"``: from the data.
        null : "power-law", "quadratic-basin" or None
            Null hypothesis for the growth of twins. None: no test; the verdict is then inconclusive or regular.
            `trajtools.lyapunov` tests neighbours against surrogates of the data.
        procedure : None, "danovski2024", "caligiuri2023" or "caligiuri2023-production"
            None: the procedure of this toolkit; a name: a published one, with a warning about its bias.
        level : float
            Confidence level of the interval.
        rng : int, numpy.random.Generator or None
            Random numbers for the resampling; None is the seed 0.

        Returns
        -------
        Exponent
            In 1 / `time_unit`.

        Raises
        ------
        UnknownNameError
            If there is no such null or procedure.
        DataError
            If the region or the level is invalid, or the curves were not computed for the procedure.

        See Also
        --------
        trajtools.exponents.fit_twins.fit_twins : the fit of twins.
        trajtools.exponents.fit_neighbors.fit_neighbors : the fit of neighbour curves.
        trajtools.exponents.published_fits : the published procedures.
        """
        if procedure is not None:
            return fit_published(self, procedure, level=level)
        if self.method in NEIGHBOR_METHODS:
            return fit_neighbors(self, region, level=level, rng=rng)
        return fit_twins(self, region, null=null, level=level, rng=rng)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the curves; see `trajtools.plots.divergence`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Axes to draw on; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from trajtools import plots

        return plots.divergence(self, ax=ax)


def size_classes(first: Floats) -> Ints:
    """Class of each first distance; see `Divergence.size`."""
    positive = np.isfinite(first) & (first > 0)
    logs = np.sort(np.log(first[positive]))
    if not len(logs):
        return np.zeros(len(first), dtype=np.int64)
    gaps = np.diff(logs)
    edges = np.flatnonzero(gaps >= APART)
    parts = np.split(logs, edges + 1)
    spread = [part[-1] - part[0] for part in parts]
    wide = [k for k, edge in enumerate(edges) if gaps[edge] > max(spread[k], spread[k + 1])]
    if len(wide) < len(edges):  # draws in few dimensions scatter as widely
        return np.zeros(len(first), dtype=np.int64)
    middle = [(logs[edge] + logs[edge + 1]) / 2 for edge in edges]
    return np.searchsorted(middle, np.log(np.where(positive, first, np.exp(logs[0])))).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Record:
    """A curve (1, L) from its perturbation on, and what was left out of it; or several (C, L), if that is nothing."""

    step: Any
    distance: Floats
    floor: Floats
    diverged: bool = False
    merged: bool = False
    unperturbed: bool = False
    zeros: int = 0


def clean(step: Any, distance: Floats, floor: Floats) -> Record:
    """Cut a curve (L,) to what follows its perturbation; NaN from where it is not finite."""
    apart = distance != 0
    if not apart.any():
        return Record(step, distance[None], floor[None], unperturbed=True, zeros=len(distance))
    first = int(apart.argmax())
    step, distance, floor = step[first:], distance[first:].copy(), floor[first:].copy()
    finite = np.isfinite(distance)
    diverged = not finite.all()
    if diverged:
        distance[finite.argmin() :] = np.nan
    zero = distance == 0
    return Record(step, distance[None], floor[None], diverged, bool(zero[-1]), False, int(np.count_nonzero(zero)))


def align_records(records: Sequence[Record]) -> tuple[Any, Floats, Floats]:
    """Put the curves on the time since their perturbations: times (K + 1,), distances and floors (U, K + 1)."""
    clocks = {id(one.step): one.step for one in records}  # many records share one
    times = {name: step - step[0] for name, step in clocks.items()}
    grid = max((times[id(one.step)] for one in records), key=len)
    if any((own != grid[: len(own)]).any() for own in times.values()):
        raise DataError(
            "the twins were perturbed at different steps, and the states were not recorded at equal spacing, so their "
            "times cannot be aligned; record every k-th step, or use `window` to analyse one perturbation at a time"
        )
    distances = np.full((sum(len(one.distance) for one in records), len(grid)), np.nan)
    floor = np.full_like(distances, np.nan)
    at = 0
    for one in records:
        count, length = one.distance.shape
        distances[at : at + count, :length], floor[at : at + count, :length] = one.distance, one.floor
        at += count
    return grid, distances, floor


def count_left_out(records: Iterable[Record]) -> dict[str, int]:
    """Count the curves that end early, and the zeros."""
    names = ("diverged", "merged", "unperturbed", "zeros")
    each = [(one.diverged, one.merged, one.unperturbed, one.zeros) for one in records]
    return dict(zip(names, np.array(each, dtype=np.int64).reshape(-1, len(names)).sum(axis=0).tolist(), strict=True))


def left_out_warnings(counts: dict[str, int], records: Sequence[Record], unit: str) -> list[Reason]:
    """Say which curves end early, or never begin."""
    total = sum(len(one.distance) for one in records)
    ends = [float(one.step[np.isnan(one.distance[0]).argmax()]) for one in records if one.diverged]
    texts = {
        "unperturbed": "{count} of {total} twins never differ from their reference (distance 0 at every state): they "
        "were not perturbed, or the perturbation was rounded away; they are not fitted",
        "merged": "{count} of {total} twins end at distance 0: they merged with their reference",
        "diverged": "{count} of {total} twins, or their reference, are NaN or infinite from {unit} {first:g} on (the "
        "earliest): they are analysed up to there",
    }
    values = {"total": total, "unit": unit, "first": min(ends, default=float("nan"))}
    return [Reason.of(code, text, count=counts[code], **values) for code, text in texts.items() if counts[code]]


def _series(d: Any) -> list[Floats]:
    """Return the curves one by one, as float64; masked entries become NaN."""
    if isinstance(d, (list, tuple)) and d and all(np.ndim(one) == 1 for one in d):
        rows = [_real(one) for one in d]
    else:
        table = _real(d)
        if table.ndim not in (1, 2):
            raise DataError(f"distances are (T, C), (T,) or a list of series; got an array of shape {table.shape}")
        rows = list(table[:, None].T if table.ndim == 1 else table.T)
    if not rows or not all(map(len, rows)):
        raise DataError("the distances hold no curve, or a curve without a single value")
    negative = next((row[row < 0] for row in rows if (row < 0).any()), None)
    if negative is not None:
        raise DataError(
            f"a distance is {negative[0]:g}, and distances are never negative; if these are logarithms, give numpy.exp "
            "of them"
        )
    return rows


def _real(values: Any) -> Floats:
    try:
        array = np.ma.filled(values.astype(np.float64), np.nan) if np.ma.isMaskedArray(values) else np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; tensors that NumPy does not take
        raise DataError(f"distances are an array of real numbers, and this is none: {error}") from error
    if array.dtype.kind not in "iuf":
        raise DataError(f"distances are real numbers; got dtype {array.dtype}")
    return np.asarray(array, dtype=np.float64)


def _clock(time: Any, length: int) -> Floats:
    if time is None:
        return np.arange(length, dtype=np.float64)
    clock = np.asarray(time)
    if clock.dtype.kind not in "iuf" or clock.shape != (length,):
        raise DataError(f"time must be {length} numbers, one for each row of the distances; got shape {clock.shape}")
    clock = clock.astype(np.float64)
    if not (np.isfinite(clock).all() and (np.diff(clock) > 0).all()):
        raise DataError("time must rise from row to row, without NaN")
    return clock


def _labels(group: Any, count: int) -> Ints:
    if group is None:
        return np.arange(count, dtype=np.int64)
    names = np.asarray(group)
    if names.shape != (count,):
        raise DataError(f"group must name the initial condition of each of the {count} curves; got shape {names.shape}")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _starts(start: Any, first: int, count: int) -> Ints:
    begin = np.asarray(first if start is None else start)
    if begin.dtype.kind not in "iu" or begin.shape not in ((), (1,), (count,)):
        raise DataError(f"start must be one step or {count} of them (one for each curve), as integers; got {start!r}")
    return np.broadcast_to(begin, (count,)).astype(np.int64)
