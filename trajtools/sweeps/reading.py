"""Runs of many files become the points of a sweep, one task for each run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from trajtools.errors import DataError, SelectionError
from trajtools.results.sweep import Sweep, SweepPoint
from trajtools.types import Floats

THRESHOLDS = (0.7, 0.8, 0.85, 0.9)
RATE_NAMES = ("lr", "learning_rate", "eta")


@dataclass(frozen=True)
class Task:
    """One run and what is wanted of it; small enough to be sent to another process."""

    path: str
    run: str
    x: float
    y: float
    control: bool
    exponent: str | None
    accuracy: str
    loss: str
    thresholds: tuple[float, ...]
    stays: int
    rng: int


def sweep(
    files: Any,
    x: str = "lr",
    y: str | None = None,
    *,
    runs: Callable[[Any], bool] | None = None,
    exponent: str | None = "auto",
    accuracy: str = "accuracy",
    loss: str = "loss",
    thresholds: Sequence[float] = THRESHOLDS,
    stays: int = 1,
    control: str | None = "control",
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    rng: int = 0,
) -> Sweep:
    """Collect runs into a table of hyper-parameters against exponent, training time, loss and sharpness.

    Parameters
    ----------
    files : path, pattern, Run, or list of them
        Every run of these files; ``"sweep/*.h5"`` is expanded.
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
        Runs one task for each run; None: this process.
    progress : callable or None
        ``progress(done, total)`` after each run.
    rng : int
        Seed of the resampling of the exponents.

    Returns
    -------
    Sweep
        With the runs that could not be used, and why, in `warnings`.

    Raises
    ------
    DataError
        If no run has the hyper-parameters, or an argument makes no sense.

    Notes
    -----
    Only references are counted for times and final values, never their twins: each is one initial condition. A training
    time is the step of the first recorded state whose accuracy is at least the threshold, so its resolution is that
    of the recording.
    """
    limits = tuple(sorted({float(value) for value in thresholds}))
    if not limits or not all(np.isfinite(limits)):
        raise DataError(f"thresholds={thresholds!r}: give at least one number")
    if isinstance(stays, bool) or int(stays) != stays or stays < 1:
        raise DataError(f"stays={stays!r}: a whole number of recorded states, at least 1")
    tasks, left_out, unit = [], [], ""
    for run in _runs(files):
        if runs is not None and not runs(run):
            continue
        values = [_number(run.hparams, name) for name in (x, y) if name]
        if any(value is None for value in values):
            left_out.append(f"{run.path.name}, run {run.name!r}: no number {x if values[0] is None else y} in hparams")
            continue
        unit = unit or run.time_unit
        is_control = bool(control and run.hparams.get(control, False))
        first, second = float(values[0] or 0.0), float(values[1] or 0.0) if y else float("nan")
        asked = (exponent, accuracy, loss, limits, int(stays), rng)
        tasks.append(Task(str(run.path), run.name, first, second, is_control, *asked))
    if not tasks:
        raise DataError(
            f"no run with the hyper-parameter {' and '.join(repr(name) for name in (x, y) if name)}; "
            + "; ".join(left_out[:5])
        )
    points = _points(tasks, executor, progress)
    settings = {"exponent": exponent, "accuracy": accuracy, "loss": loss, "stays": int(stays), "control": control}
    ordered = tuple(sorted(points, key=lambda p: (p.control, p.y if y else 0.0, p.x, p.path, p.run)))
    return Sweep(x, y or "", ordered, limits, unit or "step", settings | {"rng": rng}, tuple(left_out))


def _runs(files: Any) -> Iterable[Any]:
    """Every run of paths, patterns and runs, in their order."""
    from trajtools.store import open as open_file

    listed = [files] if isinstance(files, (str, Path)) or hasattr(files, "hparams") else list(files)
    for item in listed:
        if hasattr(item, "hparams"):
            yield item
            continue
        paths = sorted(glob(str(item))) if any(c in str(item) for c in "*?[") and not Path(item).exists() else [item]
        if not paths:
            raise DataError(f"no file matches {item}")
        for path in paths:
            with open_file(path) as file:
                yield from file.values()


def _number(hparams: dict[str, Any], name: str | None) -> float | None:
    for key in RATE_NAMES if name in RATE_NAMES else (name,):
        value = hparams.get(key or "")
        if isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value):
            return float(value)
    return None


def _points(
    tasks: list[Task], executor: Executor | None, progress: Callable[[int, int], None] | None
) -> list[SweepPoint]:
    found = []
    for done, point in enumerate(map(measure, tasks) if executor is None else executor.map(measure, tasks), 1):
        found.append(point)
        if progress is not None:
            progress(done, len(tasks))
    return found


def measure(task: Task) -> SweepPoint:
    """Measure one run."""
    from trajtools.store import open as open_file
    from trajtools.sweeps.exponents import exponent_of

    with open_file(task.path) as file:
        run = file[task.run]
        words: list[str] = []
        references = [k for k, member in enumerate(run.members) if member.reference < 0]
        accuracy = _series(run, task.accuracy, references, words)
        loss = _series(run, task.loss, references, words)
        step = run.step
        found = None if task.control else exponent_of(run, task.exponent, task.rng, words)
        return SweepPoint(
            x=task.x,
            y=task.y,
            path=task.path,
            run=task.run,
            control=task.control,
            exponent=found,
            times=training_times(step, accuracy, task.thresholds, task.stays),
            final_loss=_last(loss),
            final_accuracy=_last(accuracy),
            sharpness=_sharpness(run),
            steps=int(step[-1]) if len(step) else 0,
            hparams=dict(run.hparams),
            warnings=tuple(words),
        )


def _series(run: Any, name: str, references: list[int], words: list[str]) -> Floats:
    """A metric of the references, shape (T, n); n = 0 where it was not recorded."""
    if name not in list(run.metrics):
        words.append(f"no metric {name!r}; it has {', '.join(run.metrics) or 'none'}")
        return np.empty((run.n_states, 0))
    values = run.metrics[name]
    if values.ndim == 1:
        return values[:, None]
    return np.asarray(values[:, references] if values.ndim == 2 and values.shape[1] == run.n_members else values)


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


def _last(values: Floats) -> Floats:
    """Last value of each column that was given; inf and NaN of a diverged training stay what they are."""
    return np.asarray(values[-1]) if len(values) else np.empty(0)


def _sharpness(run: Any) -> float:
    names = [name for name in run.metrics if name == "sharpness" or name.startswith(("h_max", "shadow_h_max"))]
    if not names:
        return float("nan")
    values = run.metrics[names[0]]
    late = values[len(values) // 2 :]
    return float(np.median(late[np.isfinite(late)])) if np.isfinite(late).any() else float("nan")


def select_threshold(points: Sequence[SweepPoint], thresholds: Sequence[float], asked: float | None) -> int:
    """Choose the threshold of the training time."""
    if asked is not None:
        near = [k for k, value in enumerate(thresholds) if abs(value - asked) < 1e-12]
        if not near:
            raise SelectionError(f"threshold {asked:g} is none of the sweep's: {', '.join(map(str, thresholds))}")
        return near[0]
    good = [k for k in range(len(thresholds)) if any(p.times.shape[1] and p.reached[k] >= 0.5 for p in points)]
    return max(good, default=0)
