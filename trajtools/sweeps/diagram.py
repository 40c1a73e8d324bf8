"""Phase diagrams over two hyper-parameters, and scaling laws of the training time where training is stable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, SelectionError
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.statistics import random_generator
from trajtools.sweeps.onset import (
    N_RESAMPLES,
    SENSITIVE,
    combine,
    curve_of,
    median,
    onset_of,
    quantiles,
    select_threshold,
)
from trajtools.types import Floats, RNGLike
from trajtools.wording import bounds, counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.sweeps.sweep import Sweep, SweepPoint

SCALING_RESAMPLES = 499
COMPLEMENT = "1-momentum"
BEND = 4.0  # standard errors of the curvature
STRAIGHTER = 0.9  # a parabola must leave less than this share of the scatter
EXACT = 1e-9  # a scatter below is rounding


@dataclass(frozen=True, eq=False, repr=False)
class PhaseDiagram(Result):
    """Exponent and verdict over two hyper-parameters.

    Attributes
    ----------
    x_name, y_name : str
        The hyper-parameters.
    x, y : ndarray of float64, shape (nx,) and (ny,)
        The values that occur, in order.
    exponent : ndarray of float64, shape (ny, nx)
        Mean exponent of the runs there that vote on the onset, else of all; NaN where there is none.
    verdict : list of list of str
        The same grid: the verdict, as in `Sweep.exponents`; ``""`` where there is none.
    time : ndarray of float64, shape (n_thresholds, ny, nx)
        Median training time; inf where most do not reach the threshold.
    count : ndarray of int64, shape (ny, nx)
        Runs.
    boundary : ndarray of float64, shape (ny,)
        Onset along x for each y; NaN where there is none, or noise hides it.
    intervals : ndarray of float64, shape (ny, 2)
        Of the boundary, made of whole cells of the sweep; NaN where there is none.
    reasons : tuple of Reason
        How each onset was found, or why there is none, and what the runs of one cell do not share.
    level : float
        Confidence level of the intervals.

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
    >>> diagram = result.phase_diagram()
    >>> diagram.x.tolist(), diagram.y.tolist()
    ([0.1, 0.2, 0.4], [0.0, 0.9])
    >>> diagram.boundary.round(2).tolist()
    [0.28, 0.28]
    """

    x_name: str
    y_name: str
    x: Floats
    y: Floats
    exponent: Floats
    verdict: list[list[str]]
    time: Floats
    count: Any
    boundary: Floats
    intervals: Floats
    reasons: tuple[Reason, ...]
    level: float
    _dims: ClassVar[AxisNames] = {
        "exponent": ("y", "x"),
        "verdict": ("y", "x"),
        "count": ("y", "x"),
        "time": ("threshold", "y", "x"),
        "boundary": ("y",),
        "intervals": ("y", "bound"),
    }

    def _sentence(self) -> str:
        known = int(np.isfinite(self.boundary).sum())
        return (
            f"{len(self.x)} values of {self.x_name} x {len(self.y)} of {self.y_name}, "
            f"{counted(int(np.sum(self.count)), 'run')}; an onset of chaos at {known} of {len(self.y)} values "
            f"of {self.y_name}."
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the diagram; see `trajtools.plots.phase_diagram`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn.
        """
        from trajtools import plots

        return plots.phase_diagram(self, ax=ax)

    def boundary_law(
        self, factor: Callable[[Floats], Floats], name: str = "factor", *, rng: RNGLike = None
    ) -> BoundaryLaw:
        """Ask whether the onset follows a function of y.

        Parameters
        ----------
        factor : callable
            ``factor(y)`` gives what the onset may go with, positive, as in ``lambda momentum: 1 - momentum``.
        name : str
            What the factor is called in words.
        rng : int, numpy.random.Generator or None
            Source of the draws; None is the seed 0.

        Returns
        -------
        BoundaryLaw
            The power of the factor, and whether the onset may be proportional to it.

        Raises
        ------
        DataError
            If the factor is not positive where there is an onset.
        """
        return boundary_law(self, factor, name, rng=rng)


@dataclass(frozen=True, eq=False, repr=False)
class BoundaryLaw(Result):
    """Whether the onset of chaos follows a function of the second hyper-parameter; see `PhaseDiagram.boundary_law`.

    Attributes
    ----------
    name : str
        What the factor is called.
    power : float
        ln onset = constant + power x ln factor, the onsets drawn evenly from their intervals: the median. NaN with
        fewer than two onsets, or where the factor does not vary.
    interval : (float, float)
        At the level of the diagram.
    proportional : bool
        Whether one constant times the factor lies within the intervals of all onsets, two at least.
    constant : (float, float)
        The constants that do; NaN where there is none.
    n_used : int
        Onsets.
    reasons : tuple of Reason
        What was left out.

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
    >>> law = result.phase_diagram().boundary_law(lambda momentum: 1 + momentum, "1 + momentum")
    >>> law.name, law.n_used
    ('1 + momentum', 2)
    """

    name: str
    power: float
    interval: tuple[float, float]
    proportional: bool
    constant: tuple[float, float]
    n_used: int
    reasons: tuple[Reason, ...]

    def _sentence(self) -> str:
        low, high = self.interval
        power = f"onset ~ ({self.name})^{self.power:.3g} [{low:.3g}, {high:.3g}]; " if self.power == self.power else ""
        same = f"{'may be' if self.proportional else 'is not'} proportional to {self.name}"
        return f"{power}it {same}." if self.n_used > 1 else f"no law in {self.name}."


def boundary_law(diagram: PhaseDiagram, factor: Callable[[Floats], Floats], name: str, *, rng: RNGLike) -> BoundaryLaw:
    """Set the onsets against a function of y; see `PhaseDiagram.boundary_law`."""
    known = np.isfinite(diagram.boundary) & (diagram.intervals > 0).all(axis=1)
    n, nothing = int(known.sum()), (float("nan"), float("nan"))
    words = "{missing} of {values} values of {name} have no onset"
    lost = Reason.of("no-onset", words, missing=len(known) - n, values=len(known), name=diagram.y_name)
    reasons = (lost,) if n < len(known) else ()
    if n < 2:
        few = Reason.of("too-few-values", "a law needs two onsets, got {onsets}", onsets=n)
        return BoundaryLaw(name, float("nan"), nothing, False, nothing, n, (*reasons, few))
    values = np.broadcast_to(np.asarray(factor(diagram.y[known]), dtype=np.float64), (n,))
    if not (np.isfinite(values) & (values > 0)).all():
        raise DataError(f"the factor must be positive at each {diagram.y_name}; it is {values.tolist()}")
    scale, (low, high) = np.log(values), np.log(diagram.intervals[known]).T
    power, interval = float("nan"), nothing
    if np.ptp(scale) > 0:
        drawn = random_generator(rng).uniform(low, high, (N_RESAMPLES, n))
        slopes = (drawn - drawn.mean(axis=1, keepdims=True)) @ (scale - scale.mean()) / (n * scale.var())
        power, interval = float(np.median(slopes)), quantiles(slopes, diagram.level)
    least, most = float(np.exp((low - scale).max())), float(np.exp((high - scale).min()))
    constant = (least, most) if least <= most else nothing
    return BoundaryLaw(name, power, interval, least <= most, constant, n, reasons)


@dataclass(frozen=True, eq=False, repr=False)
class Scaling(Result):
    """A power law for the training time, fitted where training is stable; see `Sweep.scaling`.

    Attributes
    ----------
    names : tuple of str
        The factors, as keys of the hyper-parameters.
    powers : ndarray of float64, shape (k,)
        ln time = constant + sum of power x ln factor.
    intervals : ndarray of float64, shape (k, 2)
        From resampled runs and initial conditions.
    constant : float
        Natural logarithm of the time at all factors 1.
    scatter : float
        Root mean square of the residuals of ln time: how well the curves collapse.
    n_used, n_total : int
        Runs that entered, out of how many.
    factors : ndarray of float64, shape (n_total, k)
        Of each run, in the order of the sweep; NaN where a run that did not enter lacks one.
    times : ndarray of float64, shape (n_total,)
        Median training time of each run; inf where it does not arrive, NaN where no accuracy was recorded.
    used : ndarray of bool, shape (n_total,)
        Which runs entered.
    threshold : float
        The accuracy to be reached.
    time_unit : str
        Unit of the times.
    level : float
        Confidence level.
    reasons : tuple of Reason
        What was left out and why, and whether the times bend away from the law.

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
    >>> law = result.scaling("lr", 0.9)
    >>> law.names, law.powers.round(1).tolist()
    (('lr',), [-1.0])
    """

    names: tuple[str, ...]
    powers: Floats
    intervals: Floats
    constant: float
    scatter: float
    n_used: int
    n_total: int
    factors: Floats
    times: Floats
    used: NDArray[np.bool_]
    threshold: float
    time_unit: str
    level: float
    reasons: tuple[Reason, ...]
    _dims: ClassVar[AxisNames] = {"powers": ("names",), "intervals": ("names", "bound")}

    def _sentence(self) -> str:
        powers = zip(self.names, self.powers, self.intervals, strict=True)
        law = " x ".join(f"({name})^{power:.3g} {bounds(ends)}" for name, power, ends in powers)
        return (
            f"{self.time_unit}s to {self.threshold:g} ~ {law}; scatter {self.scatter:.2g} in ln time, {self.n_used} of "
            f"{counted(self.n_total, 'run')}."
        )

    @property
    def predicted(self) -> Floats:
        """Times by the law, of the runs that did not enter, too; shape (n_total,)."""
        return np.asarray(np.exp(self.constant + np.log(self.factors) @ self.powers))

    def factor(self, name: str) -> Floats:
        """Return the values of one factor.

        Parameters
        ----------
        name : str
            One of `names`.

        Returns
        -------
        ndarray of float64, shape (n_total,)
            Of each run; NaN where a run that did not enter lacks it.

        Raises
        ------
        SelectionError
            If the law has no such factor.
        """
        if name not in self.names:
            raise SelectionError(f"the law has no factor {name!r}; choose from {', '.join(self.names)}")
        return np.asarray(self.factors[:, self.names.index(name)])

    def holds_to(self, along: Floats, where: NDArray[np.bool_] | None = None, *, within: float = 0.25) -> float:
        """Find how far along some quantity the law holds, whether the runs entered the fit or not.

        Parameters
        ----------
        along : ndarray of float64, shape (n_total,)
            The quantity, one value for each run, as in ``law.factors[:, 0] / law.factors[:, 1]``.
        where : ndarray of bool, shape (n_total,), or None
            Runs to look at; None: all.
        within : float
            A time is off the law where it is larger or smaller by a factor of more than 1 + `within`.

        Returns
        -------
        float
            The largest value before the first run that is off; NaN if the first one is. Runs whose time by the law is
            unknown are passed over; one that does not arrive is off.

        Raises
        ------
        DataError
            If there is not one value for each run.
        """
        if np.shape(along) != self.times.shape:
            raise DataError(f"along has the shape {np.shape(along)}; needed one value for each run, {self.times.shape}")
        with np.errstate(divide="ignore"):
            off = np.abs(np.log(self.times / self.predicted))
        seen = np.isfinite(along) & np.isfinite(self.predicted) & ~np.isnan(self.times)
        seen &= True if where is None else where
        first = np.min(along[seen & (off > np.log1p(within))], initial=np.inf)
        return float(np.max(along[seen & (along < first)], initial=-np.inf)) if (along[seen] < first).any() else np.nan

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the times against those of the law; see `trajtools.plots.scaling`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn.
        """
        from trajtools import plots

        return plots.scaling(self, ax=ax)


def phase_diagram(sweep: Sweep, *, level: float, rng: RNGLike) -> PhaseDiagram:
    """Arrange a sweep over two hyper-parameters as a grid; see `Sweep.phase_diagram`."""
    if not sweep.y_name:
        raise SelectionError("a phase diagram needs two hyper-parameters: sweep(files, x=..., y=...)")
    points = [p for p in sweep.points if not p.control]
    if not points:
        raise SelectionError(f"a phase diagram needs runs that are not controls; all {len(sweep.points)} of them are")
    xs, ys = sorted({p.x for p in points}), sorted({p.y for p in points})
    shape = (len(ys), len(xs))
    exponent, count = np.full(shape, np.nan), np.zeros(shape, dtype=np.int64)
    time = np.full((len(sweep.thresholds), *shape), np.nan)
    verdict = [["" for _ in xs] for _ in ys]
    for row, y in enumerate(ys):
        for column, x in enumerate(xs):
            here = [p for p in points if p.x == x and p.y == y]
            count[row, column] = len(here)
            measured = [p for p in here if p.exponent is not None]
            if measured:
                exponent[row, column], _, _, verdict[row][column] = combine(measured)
            for k in range(len(sweep.thresholds)):
                times = np.concatenate([p.times[k] for p in here]) if here else np.empty(0)
                time[k, row, column] = median(times) if len(times) else np.nan
    random = random_generator(rng)
    begins = [onset_of(curve_of([p for p in points if p.y == y]), level=level, rng=random) for y in ys]
    reasons = [_at(sweep.y_name, y, reason) for y, o in zip(ys, begins, strict=True) for reason in o.reasons]
    return PhaseDiagram(
        x_name=sweep.x_name,
        y_name=sweep.y_name,
        x=np.array(xs),
        y=np.array(ys),
        exponent=exponent,
        verdict=verdict,
        time=time,
        count=count,
        boundary=np.array([o.value if o.found else np.nan for o in begins]),
        intervals=np.array([o.interval if o.found else (np.nan, np.nan) for o in begins]).reshape(-1, 2),
        reasons=(*reasons, *_not_shared(points)),
        level=level,
    )


def _at(name: str, y: float, reason: Reason) -> Reason:
    """The reason of the onset at one value of y."""
    return Reason(reason.code, f"{name}={y:g}: {reason}", {**reason.numbers, name: y})


def _not_shared(points: list[SweepPoint]) -> tuple[Reason, ...]:
    """Hyper-parameters in which runs of one cell differ: the cell is a mean over them."""
    seen: dict[tuple[float, float], dict[str, Any]] = {}
    names: dict[str, None] = {}
    for point in points:
        first = seen.setdefault((point.x, point.y), point.hparams)
        names |= dict.fromkeys(k for k in {**first, **point.hparams} if first.get(k) != point.hparams.get(k))
    if not names:
        return ()
    words = f"runs of one cell differ in {', '.join(names)}; the cell is their mean (choose with .where(runs=...))"
    return (Reason("runs-differ", words),)


def scaling(
    sweep: Sweep,
    names: tuple[str, ...] | str | None,
    threshold: float | None,
    *,
    runs: Callable[[SweepPoint], bool] | None,
    level: float,
    rng: RNGLike,
) -> Scaling:
    """Fit ln(time) as a linear function of the logarithms of the factors; see `Sweep.scaling`."""
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    given = (names,) if isinstance(names, str) else tuple(names or ())
    wanted = given or tuple(name for name in (sweep.x_name, sweep.y_name) if name)
    row = select_threshold(sweep.points, sweep.thresholds, threshold)
    points = [p for p in sweep.points if not p.control]
    used, reasons = _stable(points, row, sweep.thresholds[row], runs)
    n_used = int(used.sum())
    factors = _factors(sweep, points, wanted, used)
    if n_used < len(wanted) + 2:
        raise DataError(
            f"{n_used} stable runs reach {sweep.thresholds[row]:g}; a law with {len(wanted)} powers needs at least "
            f"{len(wanted) + 2}" + ": " * bool(reasons) + "; ".join(map(str, reasons))
        )
    design = np.column_stack([np.ones(n_used), np.log(factors[used])])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise DataError(f"the factors {', '.join(wanted)} do not vary independently among the {n_used} stable runs")
    times = [points[k].times[row] for k in np.flatnonzero(used)]
    log_time = np.log([median(t) for t in times])
    found = np.linalg.lstsq(design, log_time, rcond=None)[0]
    draws = _draws(design, times, random_generator(rng))
    intervals = np.array([quantiles(draws[:, k], level) for k in range(1, draws.shape[1])])
    scatter = float(np.sqrt(np.mean((log_time - design @ found) ** 2)))
    return Scaling(
        names=wanted,
        powers=found[1:],
        intervals=intervals,
        constant=float(found[0]),
        scatter=scatter,
        n_used=n_used,
        n_total=len(points),
        factors=factors,
        times=np.array([median(p.times[row]) if p.times.shape[1] else np.nan for p in points]),
        used=used,
        threshold=sweep.thresholds[row],
        time_unit=sweep.time_unit,
        level=level,
        reasons=(*reasons, *_bend(log_time, design @ found, scatter, design.shape[1])),
    )


def _stable(
    points: list[SweepPoint], row: int, threshold: float, runs: Callable[[SweepPoint], bool] | None
) -> tuple[NDArray[np.bool_], list[Reason]]:
    """Which runs are asked for, are shown to be stable, and arrive after the first step; each is counted once."""
    verdict = np.array(["none" if p.exponent is None else p.exponent.verdict for p in points], dtype=object)
    asked = np.array([runs is None or bool(runs(p)) for p in points], dtype=bool)
    failed = asked & np.array([p.outcome != "trained" for p in points], dtype=bool)
    failed |= asked & (verdict == "diverging")
    sensitive = asked & ~failed & np.isin(verdict, SENSITIVE)
    unsure = asked & ~failed & (verdict == "inconclusive")
    rest = asked & ~failed & ~sensitive & ~unsure
    blind = rest & np.array([not p.times.shape[1] for p in points], dtype=bool)
    used = rest & np.array([bool(p.times.shape[1]) and 0 < median(p.times[row]) < np.inf for p in points], dtype=bool)
    never = f"do not reach {threshold:g} or start above it"
    unclear = "with an inconclusive exponent were left out (a sweep with exponent=None takes every run as stable)"
    counts = {
        "not-selected": (~asked, "were not selected"),
        "diverged": (failed, "that diverged or died were left out"),
        "sensitive": (sensitive, "with sensitive dependence were left out"),
        "inconclusive": (unsure, unclear),
        "no-metric": (blind, "have no recorded accuracy"),
        "accuracy-not-reached": (rest & ~blind & ~used, never),
        "no-exponent": (used & (verdict == "none"), "have no exponent and count as stable"),
    }
    return used, [
        Reason.of(code, "{count} of {runs} runs {words}", count=which.sum(), runs=len(points), words=words)
        for code, (which, words) in counts.items()
        if which.any()
    ]


def _factors(sweep: Sweep, points: list[SweepPoint], names: tuple[str, ...], used: NDArray[np.bool_]) -> Floats:
    """Factors of all runs, (n, k); NaN where a run that does not enter has none."""
    factors = np.full((len(points), len(names)), np.nan)
    for k, point in enumerate(points):
        try:
            factors[k] = [_factor(point, name, sweep) for name in names]
        except SelectionError:
            if used[k]:
                raise
    return factors


def _factor(point: SweepPoint, name: str, sweep: Sweep) -> float:
    key = "momentum" if name == COMPLEMENT else name
    value = point.x if name == sweep.x_name else point.y if name == sweep.y_name else point.hparams.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise SelectionError(f"run {point.run!r} has no number {key!r}; it has {', '.join(point.hparams) or 'none'}")
    factor = 1.0 - float(value) if name == COMPLEMENT else float(value)
    if not factor > 0:
        raise SelectionError(f"run {point.run!r}: {name}={factor:g}; a power law needs positive factors")
    return factor


def _draws(design: Floats, times: list[Floats], rng: np.random.Generator) -> Floats:
    """Coefficients with the runs and, within them, the initial conditions resampled."""
    n, unknowns = design.shape
    count = np.array([len(t) for t in times])
    padded = np.full((n, count.max()), np.nan)
    for k, t in enumerate(times):
        padded[k, : len(t)] = t
    beyond = np.arange(padded.shape[1]) >= count[:, None]
    draws = np.full((SCALING_RESAMPLES, unknowns), np.nan)
    for at in range(SCALING_RESAMPLES):
        rows = np.atleast_1d(rng.integers(0, n, size=n))
        drawn = padded[rows[:, None], (rng.random(padded.shape) * count[rows, None]).astype(np.int64)]
        middle = _medians(np.where(beyond[rows], np.nan, drawn), count[rows])
        fine = np.isfinite(middle) & (middle > 0)
        if np.linalg.matrix_rank(design[rows][fine]) == unknowns:
            draws[at] = np.linalg.lstsq(design[rows][fine], np.log(middle[fine]), rcond=None)[0]
    return draws


def _medians(values: Floats, count: NDArray[np.int64]) -> Floats:
    """`median` of the first `count` values of each row; NaN behind them."""
    ordered, row = np.sort(values, axis=1), np.arange(len(values))
    low, high = ordered[row, (count - 1) // 2], ordered[row, count // 2]
    return np.asarray(np.where(np.isinf(high), low, (low + np.where(np.isinf(high), low, high)) / 2))


def _bend(log_time: Floats, predicted: Floats, scatter: float, unknowns: int) -> list[Reason]:
    """Say so where a parabola describes the times far better than the law does."""
    free = len(log_time) - unknowns - 1
    if free < 1 or not np.ptp(predicted) > 0 or scatter < EXACT:
        return []
    z = predicted - predicted.mean()
    bent = np.column_stack([np.ones(len(z)), z, z**2])
    if np.linalg.matrix_rank(bent) < 3:
        return []
    found = np.linalg.lstsq(bent, log_time, rcond=None)[0]
    rest = float(np.sum((log_time - bent @ found) ** 2))
    error = np.sqrt(rest / free * np.linalg.inv(bent.T @ bent)[2, 2])
    left = float(np.sqrt(rest / len(z)))
    if not (abs(found[2]) > BEND * error and left < STRAIGHTER * scatter):
        return []
    slow, fast = (found[1] + 2 * found[2] * end for end in (z.max(), z.min()))
    words = (
        "no power law: the times change {slow:.2g} times as steeply as the fit at its slow end and {fast:.2g} times at "
        "its fast end (a parabola leaves a scatter of {scatter:.2g}); select a part of the range with runs="
    )
    return [Reason.of("no-power-law", words, slow=slow, fast=fast, scatter=left)]
