"""Compare many runs: exponent, training time and sharpness against hyper-parameters, one task for each run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.errors import DamagedError, DataError, FormatError, SelectionError, TrajtoolsError
from trajtools.exponents.exponent import Exponent
from trajtools.reasons import Reason
from trajtools.results import Result, import_optional
from trajtools.statistics import blocked_mean, random_generator
from trajtools.sweeps.answer import RATE_NAMES, answer
from trajtools.sweeps.cache import Cache, encode, key_of
from trajtools.sweeps.diagram import PhaseDiagram, Scaling, phase_diagram, scaling
from trajtools.sweeps.onset import (
    Coincidence,
    Curve,
    Fastest,
    Onset,
    coincidence,
    curve_of,
    fastest,
    median,
    medians,
    onset,
    select_threshold,
)
from trajtools.types import Floats, RNGLike
from trajtools.wording import WIDTH, columns, counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from trajtools.store import Run

NAMES = ("auto", "trajectory")
FEWEST_BLOCKS = 8
N_RESAMPLES = 999
LEVEL, ALPHA = 0.95, 0.01
SMALL_FILE = 64 * 2**20  # bytes
UNREADABLE = "unreadable-file"
FEW_ROWS = 15  # of the table in a repr
THRESHOLDS = (0.7, 0.8, 0.85, 0.9)
# A dead training: a loss that is constant to this relative width over at least so many states, and has not fallen below
# this share of its start, or an accuracy that has not risen by so much.
CONSTANT, FEWEST_STILL, UNLEARNED, BETTER = 1e-4, 5, 0.9, 0.05


@dataclass(frozen=True, eq=False, repr=False)
class SweepPoint(Result):
    """One run of a sweep.

    Attributes
    ----------
    x, y : float
        Its hyper-parameters; y is NaN in a sweep over one.
    path, run : str
        Where it was read from.
    control : bool
        Whether it is a control (see `trajtools.sweep`).
    exponent : Exponent or None
        Its exponent; None where the run has nothing to measure one from, or it was not asked for.
    times : ndarray of float64, shape (n_thresholds, n)
        Training time of each initial condition to each threshold, in `time_unit`; inf where it was not reached.
    final_loss : ndarray of float64, shape (n,)
        Last recorded loss of each initial condition, which is that of the last state or of the one before it; NaN
        where the training ends in NaN.
    final_accuracy : ndarray of float64, shape (n,)
        Likewise.
    sharpness : float
        Median over the last half of the recorded sharpness; NaN where none was recorded.
    steps : int
        Last recorded step.
    hparams : dict
        All hyper-parameters of the run.
    warnings : tuple of Reason
        What is missing or doubtful in this run.
    outcome : str
        ``"trained"``; ``"diverged"``, where the loss of most initial conditions ends in NaN or infinity; or ``"dead"``,
        where most stand still without having learned. Such runs do not vote on the onset.
    lost_at : float
        First step from which the weights of a run that diverged are NaN or infinite; NaN where that is unknown.

    Examples
    --------
    >>> import trajtools as tt
    >>> from recorders.iris import record
    >>> files = [record(".", rate, inits=2, copies=1, steps=20, mode="w") for rate in (0.1, 1.0)]
    >>> point = tt.sweep(".", "eta").points[1]
    >>> point.x, point.steps, point.outcome
    (1.0, 20, 'trained')
    >>> point.final_accuracy.shape
    (2,)
    """

    x: float
    y: float
    path: str
    run: str
    control: bool
    exponent: Exponent | None
    times: Floats
    final_loss: Floats
    final_accuracy: Floats
    sharpness: float
    steps: int
    hparams: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    outcome: str = "trained"
    lost_at: float = float("nan")

    def _sentence(self) -> str:
        exponent = "no exponent" if self.exponent is None else self.exponent._head()
        return f"run {self.run!r}: {exponent}; {self.outcome}, {counted(self.steps, 'step')}."

    @property
    def reached(self) -> Floats:
        """Fraction of the initial conditions that reach each threshold, shape (n_thresholds,); NaN without any."""
        if not self.times.shape[1]:
            return np.full(len(self.times), np.nan)
        return np.asarray(np.isfinite(self.times).mean(axis=1))


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Result):
    """The runs of a sweep; see `trajtools.sweep`.

    Attributes
    ----------
    x_name, y_name : str
        The hyper-parameters; `y_name` is empty in a sweep over one.
    points : tuple of SweepPoint
        In the order of (y, x).
    thresholds : tuple of float
        Accuracies that the training times are to.
    time_unit : str
        Unit of the training times.
    settings : dict
        What was given.
    warnings : tuple of Reason
        Runs that were left out, and why.

    Examples
    --------
    >>> import trajtools as tt
    >>> from recorders.iris import record
    >>> files = [record(".", rate, inits=2, copies=1, steps=20, mode="w") for rate in (0.1, 1.0)]
    >>> result = tt.sweep(".", "eta")
    >>> result.x_name, result.thresholds
    ('eta', (0.7, 0.8, 0.85, 0.9))
    >>> result.where(runs=lambda run: run.x > 0.5).points[0].run
    'eta=1'
    """

    x_name: str
    y_name: str
    points: tuple[SweepPoint, ...]
    thresholds: tuple[float, ...]
    time_unit: str
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()

    def _sentence(self) -> str:
        if self.y_name:
            verdicts = Counter(p.exponent.verdict for p in self.points if p.exponent is not None)
            counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()) or "no exponents"
            return f"{counted(len(self.points), 'run')} over {self.x_name} and {self.y_name}: {counts}."
        runs = [(p.x, p.exponent, p.outcome) for p in self.points if not p.control]
        return answer(self.x_name, runs, self.fastest())

    def _remarks(self) -> tuple[str, ...]:
        doubts: dict[str, list[str]] = {}
        for point in self.points:
            for words in map(str, point.warnings):
                doubts.setdefault(words, []).append(point.run)
        return (
            *(f"{_named(names)}: {words}" for words, names in doubts.items()),
            *(f"left out: {words}" for words in self.warnings),
        )

    def _lines(self) -> Sequence[str]:
        lines = columns(header(self), rows(self)[:FEW_ROWS], len(self.points))
        if len(lines[0]) <= 1.5 * WIDTH:
            return lines
        return columns(header(self, names=()), rows(self, names=())[:FEW_ROWS], len(self.points))

    def _facts(self) -> Sequence[tuple[str, ...]]:
        return [tuple(header(self)), *map(tuple, rows(self))]

    def to_dataframe(self) -> DataFrame:
        """Convert the sweep to a table of pandas, one row a run.

        Returns
        -------
        pandas.DataFrame
            Hyper-parameters, exponent with both ends of its interval, verdict, outcome, median training time to each
            accuracy, median final loss and accuracy, and sharpness.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        return import_optional("pandas").DataFrame([_record(self, point) for point in self.points])

    def onset(self, *, above: float | str = "auto", level: float = 0.95, rng: RNGLike = None) -> Onset:
        """Find where sensitive dependence begins along x.

        Parameters
        ----------
        above : float or "auto"
            The exponent that counts as sensitive. ``"auto"``: three times the largest exponent of the
            stable points below the first sensitive one, and at least one e-fold in the time that was measured.
        level : float
            Confidence level.
        rng : int, numpy.random.Generator or None
            Source of the resampling; None is the seed 0.

        Returns
        -------
        Onset
            With `found` False and the reason where the range holds none. Runs that do not vote are counted in its
            reasons (see `exponents`), and so is a gap in the grid at the onset.

        Raises
        ------
        SelectionError
            If the sweep has two hyper-parameters: take `phase_diagram`, or one value of y.
        """
        return onset(self.one(), above=above, level=level, rng=rng)

    def fastest(self, threshold: float | None = None, *, level: float = 0.95, rng: RNGLike = None) -> Fastest:
        """Find where training is fastest along x.

        Parameters
        ----------
        threshold : float or None
            One of `thresholds`; None: the largest that at least half of the initial conditions of some run reach.
        level : float
            Confidence level.
        rng : int, numpy.random.Generator or None
            Source of the resampling; None is the seed 0.

        Returns
        -------
        Fastest
            By the median over the initial conditions, those that do not arrive counted as infinite.

        Raises
        ------
        SelectionError
            If the threshold is not one of the sweep's, or the sweep has two hyper-parameters.
        """
        return fastest(self.one(), threshold, level=level, rng=rng)

    def coincidence(self, threshold: float | None = None, *, level: float = 0.95, rng: RNGLike = None) -> Coincidence:
        """Ask whether training is fastest at the onset of chaos, and whether chaos explains it.

        Parameters
        ----------
        threshold : float or None
            As in `fastest`.
        level : float
            Confidence level.
        rng : int, numpy.random.Generator or None
            Source of the resampling; None is the seed 0.

        Returns
        -------
        Coincidence
            ``"coincide"``, ``"differ"`` or ``"not decided"``, with what is missing, and with what the controls say, if
            there are any: where a stable control of equal step length goes on getting
            faster, the minimum is made by the instability that cuts a 1/eta law off, not by chaos as such.

        Raises
        ------
        SelectionError
            As `onset` and `fastest`.
        """
        return coincidence(self.one(), threshold, level=level, rng=rng)

    def phase_diagram(self, *, level: float = 0.95, rng: RNGLike = None) -> PhaseDiagram:
        """Arrange a sweep over two hyper-parameters as a grid.

        Parameters
        ----------
        level : float
            Confidence level.
        rng : int, numpy.random.Generator or None
            Source of the resampling; None is the seed 0.

        Returns
        -------
        PhaseDiagram
            Exponent, verdict and training time over x and y, with the onset along x for each y.

        Raises
        ------
        SelectionError
            If the sweep has one hyper-parameter only.
        """
        return phase_diagram(self, level=level, rng=rng)

    def scaling(
        self,
        names: tuple[str, ...] | str | None = None,
        threshold: float | None = None,
        *,
        runs: Callable[[SweepPoint], bool] | None = None,
        level: float = 0.95,
        rng: RNGLike = None,
    ) -> Scaling:
        """Fit a power law of the training time in the hyper-parameters, where training is stable.

        Parameters
        ----------
        names : tuple of str, str or None
            Factors, keys of the hyper-parameters; ``"1-momentum"`` is one minus the momentum. None: x, and y if any.
        threshold : float or None
            As in `fastest`.
        runs : callable or None
            ``runs(point)`` says whether a run may enter the fit, to ask for the law in a part of the range; choose by
            hyper-parameters, for a choice by the times themselves bends the law. None: all that are stable.
        level : float
            Confidence level.
        rng : int, numpy.random.Generator or None
            Source of the resampling; None is the seed 0.

        Returns
        -------
        Scaling
            The powers with intervals, the scatter about the law, and the times of all runs beside those of the law.
            Its `reasons` say so where the times bend away from any power law.

        Raises
        ------
        SelectionError
            If the threshold or a factor is unknown.
        DataError
            If too few stable runs are left.
        """
        return scaling(self, names, threshold, runs=runs, level=level, rng=rng)

    def where(self, y: float | None = None, *, runs: Callable[[SweepPoint], bool] | None = None) -> Sweep:
        """Keep some of the runs.

        Parameters
        ----------
        y : float or None
            Those with this value of y; None: all of them.
        runs : callable or None
            ``runs(point)`` says whether a run is kept, as in ``runs=lambda p: p.hparams["batch_size"] == 64``; None:
            all of them.

        Returns
        -------
        Sweep
            Over x alone if y is given.

        Raises
        ------
        SelectionError
            If no run is left; the message lists the values of y.
        """
        kept = tuple(p for p in self.points if y is None or p.y == y)
        if not kept:
            there = ", ".join(f"{value:g}" for value in sorted({p.y for p in self.points}))
            raise SelectionError(f"no run has {self.y_name or 'y'}={y:g}; there are {there}")
        kept = tuple(p for p in kept if runs is None or runs(p))
        if not kept:
            raise SelectionError(f"runs= selects none of the {len(self.points)} runs of this sweep")
        name = self.y_name if y is None else ""
        return Sweep(self.x_name, name, kept, self.thresholds, self.time_unit, self.settings, self.warnings)

    def one(self) -> Sweep:
        """Give the sweep itself, if it has one hyper-parameter.

        Returns
        -------
        Sweep
            The sweep.

        Raises
        ------
        SelectionError
            If it has two.
        """
        if self.y_name:
            raise SelectionError(
                f"this sweep has two hyper-parameters, {self.x_name} and {self.y_name}: select one value of the "
                "second (.where(...)), or use .phase_diagram()"
            )
        return self

    def exponents(self) -> Curve:
        """Average the exponents at each x; controls and runs without an exponent are left out.

        Returns
        -------
        Curve
            Arrays ``x, value, error, duration`` of shape (n,), and ``verdict``, in the order of x: of the runs that
            vote on the onset, else of all. An inconclusive exponent does not vote, nor one that is not converged, nor
            a run that diverged or died; ``left_out`` holds x of each of them, and why.

        Raises
        ------
        SelectionError
            If the sweep has two hyper-parameters.
        """
        return curve_of(self.one().points)

    def times(self, threshold: float | None = None, *, control: bool = False) -> tuple[float, Floats, Floats]:
        """Return the median training time at each x.

        Parameters
        ----------
        threshold : float or None
            As in `fastest`.
        control : bool
            The times of the controls, and not of the runs that are no controls.

        Returns
        -------
        threshold : float
            The accuracy to be reached.
        x : ndarray of float64, shape (n,)
            Values of the hyper-parameter at which an accuracy was recorded.
        times : ndarray of float64, shape (n,)
            Median over the initial conditions, in `time_unit`; inf where fewer than half of them reach the threshold.

        Raises
        ------
        SelectionError
            If the threshold is not one of the sweep's.
        """
        row = select_threshold(self.points, self.thresholds, threshold)
        x, times = medians([p for p in self.points if p.control is control], row)
        return self.thresholds[row], x, np.array([median(t) for t in times], dtype=np.float64)

    def plot(self, ax: Sequence[Axes] | None = None) -> Figure:
        """Draw exponent and training time against x; see `trajtools.plots.sweep`.

        Parameters
        ----------
        ax : sequence of two matplotlib.axes.Axes, or None
            Upper and lower axes to draw in; None: a new figure.

        Returns
        -------
        matplotlib.figure.Figure
            Where it was drawn.
        """
        from trajtools import plots

        return plots.sweep(self, ax=ax)


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} runs ({names[0]}, ...)"


def _record(sweep: Sweep, point: SweepPoint) -> dict[str, Any]:
    """One run as a row of a table."""
    one = point.exponent
    low, high = (float("nan"),) * 2 if one is None else one.interval
    row: dict[str, Any] = {sweep.x_name: point.x} | ({sweep.y_name: point.y} if sweep.y_name else {})
    row |= {name: value for name, value in point.hparams.items() if isinstance(value, (bool, int, float, str))} | row
    row |= {"run": point.run, "control": point.control, "outcome": point.outcome, "steps": point.steps}
    row |= {"exponent": float("nan") if one is None else one.value, "exponent_low": low, "exponent_high": high}
    row["verdict"] = "" if one is None else one.verdict
    row |= {
        f"{sweep.time_unit}s to {value:g}": median(times) if len(times) else float("nan")
        for value, times in zip(sweep.thresholds, point.times, strict=True)
    }
    return row | {
        "final_loss": _middle(point.final_loss),
        "final_accuracy": _middle(point.final_accuracy),
        "sharpness": point.sharpness,
    }


def header(sweep: Sweep, names: Sequence[str] | None = None) -> list[str]:
    """Titles of the columns; `names` are the further hyper-parameters, by default those that tell the runs apart."""
    further = others(sweep) if names is None else names
    names = [sweep.x_name, *([sweep.y_name] if sweep.y_name else []), *further]
    times = [f"{sweep.time_unit}s to {value:g} (reached)" for value in sweep.thresholds]
    measured = [*times, "median final loss", "median accuracy", "sharpness"]
    recorded = [name for name, kept in zip(measured, _recorded_columns(sweep), strict=True) if kept]
    return [*names, "run", "exponent", f"{LEVEL:.0%} interval", "verdict", *recorded]


def _recorded_columns(sweep: Sweep) -> list[bool]:
    """Whether any run has training times, a loss, an accuracy and a sharpness; what none has is no column."""
    points = sweep.points
    times = any(point.times.shape[1] for point in points)
    loss = any(len(point.final_loss) for point in points)
    accuracy = any(len(point.final_accuracy) for point in points)
    sharpness = any(np.isfinite(point.sharpness) for point in points)
    return [*[times] * len(sweep.thresholds), loss, accuracy, sharpness]


def sweep(
    files: str | Path | Run | Mapping[str, Run] | Sequence[str | Path | Run],
    x: str = "lr",
    y: str | None = None,
    *,
    runs: Callable[[Run], bool] | None = None,
    exponent: str | None = "auto",
    accuracy: str = "accuracy",
    loss: str = "loss",
    thresholds: Sequence[float] = THRESHOLDS,
    stays: int = 1,
    control: str | None = "control",
    executor: Executor | None = None,
    cache: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    rng: int = 0,
) -> Sweep:
    """Collect runs into a table of hyper-parameters against exponent, training time, loss and sharpness.

    Parameters
    ----------
    files : path, folder, pattern, Run, list of them, or what `trajtools.open_runs` gives
        The runs.
    x, y : str
        Keys of the runs' `hparams` whose values are numbers; `y` None: one hyper-parameter. For the learning rate,
        ``lr``, ``learning_rate`` and ``eta`` mean the same.
    runs : callable or None
        ``runs(run)`` says whether a run is taken; None: all.
    exponent : str or None
        ``"auto"``: by `trajtools.lyapunov` where a run has twins, else none; ``"metric:NAME"``: the mean of a recorded
        metric that holds the growth per step, as a shadow probe gives it; ``"trajectory"``: from the recurrences of
        member 0 where there are no twins; None: none.
    accuracy, loss : str
        Names of the metrics that the training times and final values are taken from.
    thresholds : sequence of float
        Accuracies to be reached.
    stays : int
        A threshold counts as reached where the accuracy stays there for so many recorded states.
    control : str or None
        Runs whose `hparams` have this key with a true value are controls: drawn and compared, but no part of onset
        and minimum, and without an exponent.
    executor : concurrent.futures.Executor or None
        Runs one task for each run; None: this process. A task is a path and these options.
    cache : path or None
        A file for the results of finished runs, created if needed: a sweep that was interrupted goes on from there. A
        run is measured again where its file, an option, NumPy or this package has changed; always, where its file was
        changed in the last two seconds or is one of several shards. It can be deleted at any time. None: no file.
    progress : callable or None
        ``progress(done, total)``: first with the number of runs that are in the cache, then after each run.
    rng : int
        Seed of the resampling of the exponents.

    Returns
    -------
    Sweep
        With the runs that could not be used, and why, in `warnings`.

    Raises
    ------
    DataError
        If no run has the hyper-parameters, an argument makes no sense, or `cache` is a file of another kind.

    Notes
    -----
    Only references are counted for times and final values, never their twins: each is one initial condition. A training
    time is the step of the first recorded state whose accuracy is at least the threshold, so its resolution is that
    of the recording.

    Examples
    --------
    >>> import trajtools as tt
    >>> from recorders.iris import record
    >>> files = [record(".", rate, inits=2, copies=1, steps=20, mode="w") for rate in (0.1, 1.0)]
    >>> result = tt.sweep(files, "eta")
    >>> [point.x for point in result.points]
    [0.1, 1.0]
    """
    options = Options.of(
        x=x, y=y, control=control, exponent=exponent, accuracy=accuracy, loss=loss,
        thresholds=thresholds, stays=stays, rng=rng,
    )  # fmt: skip
    limits = options.thresholds
    if cache is not None and not isinstance(rng, int | np.integer):
        raise DataError(f"rng={rng!r}: with a cache it must be an integer, so that equal sweeps can be told")
    paths = [str(path) for path in _paths(files, runs)]
    measured = _measured(paths, options, executor, None if cache is None else Cache(Path(cache)), progress)
    points = [one.point for one in measured if one.point is not None]
    left_out = [one.left_out for one in measured if one.left_out is not None]
    if not paths:
        raise DataError(
            "there are no files to compare: pass paths, folders or runs"
            if runs is None
            else "runs= chose none of the files"
        )
    if all(reason.code == UNREADABLE for reason in left_out) and not points:
        raise FormatError("; ".join(map(str, left_out[:5])))
    if not points:
        raise DataError(
            f"no run with the hyper-parameter {' and '.join(repr(name) for name in (x, y) if name)}; "
            + "; ".join(map(str, left_out[:5]))
        )
    settings = {"exponent": exponent, "accuracy": accuracy, "loss": loss, "stays": int(stays), "control": control}
    ordered = tuple(sorted(points, key=lambda p: (p.control, p.y if y else 0.0, p.x, p.path, p.run)))
    unit = next((one.time_unit for one in measured if one.time_unit), "step")
    return Sweep(x, y or "", ordered, limits, unit, settings | {"rng": rng}, tuple(left_out))


def _paths(files: Any, chosen: Callable[[Run], bool] | None) -> list[Path]:
    """The file of every run of paths, folders, patterns and runs, in their order; opened only to choose among them."""
    from trajtools.store import open, open_runs
    from trajtools.store.runs import Runs

    if isinstance(files, Mapping):
        items = [files] if isinstance(files, Runs) else list(files.values())
    else:
        several = isinstance(files, Iterable) and not isinstance(files, str) and not hasattr(files, "hparams")
        items = list(files) if several else [files]
    paths: list[Path] = []
    for item in items:
        if not isinstance(item, Runs) and hasattr(item, "hparams"):
            paths += [item.path] if chosen is None or chosen(item) else []
            continue
        if not isinstance(item, (Runs, str, os.PathLike)):
            raise DataError(f"a sweep compares files, folders, patterns or runs; got a {type(item).__name__}")
        for path in (item if isinstance(item, Runs) else open_runs(item)).paths.values():
            if chosen is None:
                paths.append(path)
            else:
                with open(path) as run:
                    paths += [path] if chosen(run) else []
    return paths


def _measured(
    paths: list[str],
    options: Options,
    executor: Executor | None,
    cache: Cache | None,
    progress: Callable[[int, int], None] | None,
) -> list[_Measured]:
    """Measure every run that is not in the cache, and store each result as soon as it is there."""
    results: dict[int, _Measured] = {}
    keys = ["" if cache is None else key_of(path, options) for path in paths]
    for at, key in enumerate(keys):
        known = cache.get(key) if cache is not None and key else None
        if known is not None:
            results[at] = known
    left = [at for at in range(len(paths)) if at not in results]
    if progress is not None:
        progress(len(results), len(paths))
    for at, result in _completed(left, paths, options, executor):
        results[at] = result
        is_read = result.left_out is None or result.left_out.code != UNREADABLE
        if cache is not None and keys[at] and is_read:
            cache.put(keys[at], result)
        if progress is not None:
            progress(len(results), len(paths))
    return [results[at] for at in range(len(paths))]


def _completed(
    left: list[int], paths: list[str], options: Options, executor: Executor | None
) -> Iterator[tuple[int, _Measured]]:
    """Measure runs, and yield each as it is done."""
    if executor is None:
        for at in left:
            yield at, measure(paths[at], options)
        return
    futures = {executor.submit(measure, paths[at], options): at for at in left}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:
            future.cancel()


@dataclass(frozen=True)
class Options:
    """What is wanted of every run."""

    x: str
    y: str | None
    control: str
    exponent: str | None
    accuracy: str
    loss: str
    thresholds: tuple[float, ...]
    stays: int
    rng: int

    @classmethod
    def of(
        cls,
        *,
        x: str,
        y: str | None,
        control: str | None,
        exponent: str | None,
        accuracy: str,
        loss: str,
        thresholds: Sequence[float],
        stays: int,
        rng: int,
    ) -> Options:
        """The arguments of `sweep`, checked."""
        limits = tuple(sorted({float(value) for value in thresholds}))
        if not limits or not all(np.isfinite(limits)):
            raise DataError(f"thresholds={thresholds!r}: pass at least one number")
        if isinstance(stays, bool) or int(stays) != stays or stays < 1:
            raise DataError(f"stays={stays!r}: it must be a whole number of recorded states, at least 1")
        return cls(x, y, control or "", exponent, accuracy, loss, limits, int(stays), rng)


@dataclass(frozen=True)
class _Measured:
    """A point, or why there is none."""

    point: SweepPoint | None
    time_unit: str = ""
    left_out: Reason | None = None


def measure(path: str, options: Options) -> _Measured:
    """Measure one run; a file that cannot be read is left out."""
    from trajtools.store import open

    try:
        with open(path) as run:
            return _measure(run, options)
    except (FormatError, OSError) as error:
        text = str(error) if path in str(error) else f"{path}: {error}"
        return _Measured(None, left_out=Reason(UNREADABLE, text))


def examine_and_measure(*options_and_path: Any) -> Any:
    """Try whether a file is safe, as `trajtools.store.isolation.examine` does, and measure its run.

    Takes the fields of `Options` and a path; gives the result as JSON can hold it. None of a shard, of a large file,
    for which that process has neither time nor memory, and where measuring failed: these are left to the sweep.
    """
    from trajtools.store import Run

    *fields, path = options_and_path
    with Run(path) as run:
        run.locate_all()
        if run.shard or run.path.stat().st_size > SMALL_FILE:
            return None
        try:
            return encode(_measure(run, Options(*fields)))
        except Exception:
            return None


def _measure(run: Any, options: Options) -> _Measured:
    values = [_hyper_parameter(run, name) for name in (options.x, options.y) if name]
    if any(value is None for value in values):
        missing = options.x if values[0] is None else options.y
        words = f"{run.path.name}: no number {missing} in hparams; {_remedy(run, missing or '')}"
        return _Measured(None, left_out=Reason("no-hyper-parameter", words))
    is_control = bool(options.control and run.hparams.get(options.control, False))
    warnings: list[Reason] = []
    references = [k for k, member in enumerate(run.members) if member.reference < 0]
    accuracy = _series(run, options.accuracy, references, warnings)
    loss = _series(run, options.loss, references, warnings)
    step = run.step
    outcome = outcome_of(run, references, loss, accuracy)
    point = SweepPoint(
        x=float(values[0] or 0.0),
        y=float(values[1] or 0.0) if options.y else float("nan"),
        path=str(run.path),
        run=run.name,
        control=is_control,
        exponent=None if is_control else exponent_of(run, options.exponent, options.rng, warnings),
        times=training_times(step, accuracy, options.thresholds, options.stays),
        final_loss=_last(loss, diverged=outcome == "diverged"),
        final_accuracy=_last(accuracy, diverged=outcome == "diverged"),
        sharpness=_sharpness(run),
        steps=int(step[-1]) if len(step) else 0,
        hparams=dict(run.hparams),
        warnings=tuple(warnings),
        outcome=outcome,
        lost_at=_lost_at(run) if outcome == "diverged" else float("nan"),
    )
    return _Measured(point, run.time_unit)


def _hyper_parameter(run: Any, name: str) -> float | None:
    """A number in hparams; a learning rate that was recorded as a metric, if it is constant."""
    value = _number(run.hparams, name)
    if value is not None or name not in RATE_NAMES or "learning_rate" not in run.metrics:
        return value
    rates = np.asarray(run.metrics["learning_rate"], dtype=np.float64)
    rates = rates[np.isfinite(rates)]
    return float(rates[0]) if len(rates) and np.ptp(rates) == 0 else None


def _remedy(run: Any, name: str) -> str:
    if name in RATE_NAMES and "learning_rate" in run.metrics:
        return f"its metric learning_rate is not constant, so record hparams={{{name!r}: ...}}"
    numbers = [key for key in run.hparams if _number(run.hparams, key) is not None]
    return f"its numbers are {', '.join(numbers)}" if numbers else f"record hparams={{{name!r}: ...}}"


def _series(run: Any, name: str, references: list[int], warnings: list[Reason]) -> Floats:
    """A metric of the references, shape (T, n); n = 0 where it was not recorded."""
    if name not in list(run.metrics):
        warnings.append(Reason("no-metric", f"no metric {name!r}; recorded: {', '.join(run.metrics) or 'none'}"))
        return np.empty((run.n_states, 0))
    values = run.metrics[name]
    if values.ndim == 1:
        return values[:, None]
    return np.asarray(values[:, references] if values.ndim == 2 and values.shape[1] == run.n_members else values)


def outcome_of(run: Any, references: list[int], loss: Floats, accuracy: Floats) -> str:
    """Whether the references went on training: 'trained', 'diverged' or 'dead', by most of them.

    Dead: over the last quarter neither loss nor accuracy changes, and one of them is no better than at the start.
    """
    if run.stored == "weights" and run.n_states:
        try:
            lost = [not np.isfinite(run.trajectory(k)[-1]).all() for k in references]
        except DamagedError:  # the exponent names the damage
            lost = []
        if lost and np.mean(lost) > 0.5:
            return "diverged"
    losses, accuracies = [_recorded(column) for column in loss.T], [_recorded(column) for column in accuracy.T]
    losses = [values for values in losses if len(values)]
    if not losses:
        return "trained"
    if np.mean([np.isinf(values[-1]) for values in losses]) > 0.5:
        return "diverged"
    still = [_stands_still(values) for values in losses]
    unlearned = [not values[-1] < UNLEARNED * values[0] for values in losses]
    if len(accuracies) == len(losses) and all(map(len, accuracies)):
        still = [s and _stands_still(values) for s, values in zip(still, accuracies, strict=True)]
        unlearned = [u or not values[-1] > values[0] + BETTER for u, values in zip(unlearned, accuracies, strict=True)]
    return "dead" if np.mean([s and u for s, u in zip(still, unlearned, strict=True)]) > 0.5 else "trained"


def _lost_at(run: Any) -> float:
    """First step from which the weights are not finite; NaN where that is unknown."""
    try:
        end = run.not_finite()
    except DamagedError:
        return float("nan")
    return float("nan") if end is None else float(end["step"])


def _recorded(values: Floats) -> Floats:
    """Values of a metric where it was recorded; a NaN may be a value or its absence."""
    return values[~np.isnan(values)]


def _stands_still(values: Floats) -> bool:
    """Whether the last quarter is constant."""
    late = values[-max(1, len(values) // 4) :]
    if len(late) < FEWEST_STILL or not np.isfinite(late).all():
        return False
    return float(np.ptp(late)) <= CONSTANT * float(np.abs(late).max())


def exponent_of(run: Any, asked: str | None, rng: int, warnings: list[Reason]) -> Exponent | None:
    """Measure the exponent of a run in the way that was asked for."""
    from trajtools.exponents.lyapunov import lyapunov
    from trajtools.exponents.twins import has_twins

    if asked is None:
        return None
    if asked.startswith("metric:"):
        return recorded(run, asked.removeprefix("metric:"), rng)
    if asked not in NAMES:
        raise SelectionError(f"exponent={asked!r} is not {', '.join(map(repr, NAMES))}, 'metric:NAME' or None")
    if asked == "auto" and not has_twins(run):
        warnings.append(Reason("no-twins", "no twins: no exponent"))
        return None
    try:
        return lyapunov(run, rng=rng)
    except TrajtoolsError as error:
        warnings.append(Reason("no-exponent", f"no exponent: {error}"))
        return None


def recorded(run: Any, name: str, rng: int) -> Exponent:
    """Mean of a metric that holds the growth of a renormalised shadow per step."""
    if name not in list(run.metrics):
        raise SelectionError(f"run {run.name!r} has no metric {name!r}; it has {', '.join(run.metrics) or 'none'}")
    values = run.metrics[name].reshape(run.n_states, -1)
    values = values[np.isfinite(values).any(axis=1)]
    rate, interval = mean_growth(values, random_generator(rng))
    # The verdict is a test at the 1 % level on either side; the interval has the usual level.
    low, high = mean_growth(values, random_generator(rng), 1 - 2 * ALPHA)[1]
    if not np.isfinite(low):
        verdict, growth, reason = "inconclusive", "undecided", Reason("too-few-steps", "too few recorded steps")
    elif low > 0:
        verdict, growth = "sensitive", "exponential"
        words = "the recorded growth per step is above zero over this record; whether it persists was not tested"
        reason = Reason("persistence-not-tested", words)
    elif high <= 0:
        verdict, growth, reason = "regular", "contracting", Reason("contracts", "the recorded growth is below zero")
    elif high * len(values) < 1:
        words = "the recorded growth per step amounts to less than one e-fold in {steps} steps"
        verdict, growth, reason = "regular", "none", Reason.of("bounded", words, steps=len(values))
    else:
        verdict, growth = "inconclusive", "undecided"
        reason = Reason("zero-not-excluded", "the recorded growth per step is not distinguished from zero")
    return Exponent(
        value=rate,
        interval=interval,
        level=LEVEL,
        p_value=float("nan"),
        null="",
        n_used=values.shape[1],
        n_total=values.shape[1],
        verdict=verdict,
        reasons=(reason,),
        window=(0.0, float(run.step[-1])) if run.n_states else (float("nan"),) * 2,
        window_values=np.empty(0),
        values=np.array([np.nanmean(column) for column in values.T]) if values.size else np.empty(0),
        intercept=float("nan"),
        method=f"metric:{name}",
        unit=f"1/{run.time_unit}",
        settings={
            "metric": name, "states": len(values), "interval": "moving blocks of time", "alpha": ALPHA, "rng": rng,
        },
        growth=growth,
    )  # fmt: skip


def mean_growth(values: Floats, rng: np.random.Generator, level: float = LEVEL) -> tuple[float, tuple[float, float]]:
    """Mean of growth rates along time, with an interval from moving blocks."""
    nothing = (float("nan"), float("nan"))
    if not values.size or not np.isfinite(values).any():
        return float("nan"), nothing
    series = np.nanmean(values, axis=1)
    series = series[np.isfinite(series)]
    value, n = float(series.mean()), len(series)
    if n < 2 * FEWEST_BLOCKS:
        return value, nothing
    length = min(round(n**0.5), n // FEWEST_BLOCKS)  # longer than for independent noise: bursts last
    return value, blocked_mean(series, length, count=N_RESAMPLES, level=level, rng=rng)


def training_times(step: Any, accuracy: Floats, thresholds: Sequence[float], stays: int = 1) -> Floats:
    """First steps at which accuracies reach thresholds, and stay there."""
    times = np.full((len(thresholds), accuracy.shape[1]), np.inf)
    for column in range(accuracy.shape[1]):
        known = np.flatnonzero(np.isfinite(accuracy[:, column]))
        values = accuracy[known, column]
        for row, threshold in enumerate(thresholds):
            over = values >= threshold
            if stays > 1:
                over = np.convolve(over, np.ones(stays), "valid") >= stays - 0.5 if len(over) >= stays else over[:0]
            if over.any():
                times[row, column] = step[known[int(np.argmax(over))]]
    return times


def _last(values: Floats, *, diverged: bool) -> Floats:
    """Last value of each column; many loops compute none for the state after the last step.

    A NaN may be a value or its absence: at the end of a diverged training it is a value.
    """
    if not len(values):
        return np.empty(values.shape[1])
    if diverged:
        return np.asarray(values[-1])
    known = [_recorded(column) for column in values.T]
    return np.array([column[-1] if len(column) else np.nan for column in known], dtype=np.float64)


def _sharpness(run: Any) -> float:
    names = [name for name in run.metrics if name == "sharpness" or name.startswith(("h_max", "shadow_h_max"))]
    if not names:
        return float("nan")
    values = run.metrics[names[0]]
    late = values[len(values) // 2 :]
    return float(np.median(late[np.isfinite(late)])) if np.isfinite(late).any() else float("nan")


def _number(hparams: dict[str, Any], name: str | None) -> float | None:
    for key in RATE_NAMES if name in RATE_NAMES else (name,):
        value = hparams.get(key or "")
        if isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value):
            return float(value)
    return None


def others(sweep: Sweep) -> list[str]:
    """Hyper-parameters beside x and y that tell the runs apart."""
    known = {sweep.x_name, sweep.y_name, sweep.settings.get("control")}
    if known & set(RATE_NAMES):
        known |= set(RATE_NAMES)
    names = dict.fromkeys(name for p in sweep.points for name in p.hparams if name not in known)
    values = {name: {repr(p.hparams.get(name)) for p in sweep.points} for name in names}
    return [name for name in names if 1 < len(values[name]) < len(sweep.points)]


def rows(sweep: Sweep, names: Sequence[str] | None = None) -> list[list[str]]:
    """Cells of the table."""
    further = others(sweep) if names is None else names
    kept = _recorded_columns(sweep)
    return [_row(sweep, point, further, kept) for point in sweep.points]


def _row(sweep: Sweep, point: SweepPoint, names: Sequence[str], kept: Sequence[bool]) -> list[str]:
    from trajtools.plots._axes import ends, number

    found = point.exponent
    measured = [
        *(_time(point, k) for k in range(len(sweep.thresholds))),
        _typical(point.final_loss),
        _typical(point.final_accuracy),
        f"{point.sharpness:.4g}" if np.isfinite(point.sharpness) else "-",
    ]
    return [
        f"{point.x:g}",
        *([f"{point.y:g}"] if sweep.y_name else []),
        *(_value(point.hparams.get(name)) for name in names),
        point.run + (" (control)" if point.control else ""),
        "-" if found is None else number(found.value),
        "-" if found is None else ends(*found.interval),
        _verdict(point),
        *(cell for cell, recorded in zip(measured, kept, strict=True) if recorded),
    ]


def _verdict(point: SweepPoint) -> str:
    words = [*([] if point.exponent is None else [point.exponent.verdict])]
    at = f" at step {point.lost_at:g}" if np.isfinite(point.lost_at) else ""
    words += [f"({point.outcome}{at})"] if point.outcome != "trained" else []
    return " ".join(words) or "-"


def _time(point: SweepPoint, k: int) -> str:
    if not point.times.shape[1]:
        return "-"
    middle = median(point.times[k])
    return f"{middle:g} ({point.reached[k]:.0%})" if np.isfinite(middle) else f"not ({point.reached[k]:.0%})"


def _typical(values: np.ndarray) -> str:
    lost = int(np.sum(~np.isfinite(values)))
    middle = _middle(values)
    return ("-" if np.isnan(middle) else f"{middle:.4g}") + (f" ({lost} not finite)" if lost else "")


def _middle(values: np.ndarray) -> float:
    """Median of the finite values; NaN without any."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _value(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
