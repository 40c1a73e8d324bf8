"""One trajectory of a run, of its weights or of a metric, and its exponent from its own recurrences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from trajtools.cli.asking import Choices
from trajtools.errors import DataError, SelectionError
from trajtools.neighbors.rules import WithinRadius
from trajtools.results.divergence import Divergence
from trajtools.results.exponent import Exponent
from trajtools.store import Run
from trajtools.trajectory import Trajectory

BY_RADIUS = ("kantz", "hybrid")


@dataclass(frozen=True)
class Record:
    """One member of a run, or some of its parameters; `trajtools.lyapunov` takes it like a run with one member.

    Attributes
    ----------
    run : Run
        Of an open file.
    member : int
        Which member.
    select : tuple of str
        Globs of parameter names; empty for all.
    window : (int, int) or None
        Only these steps.
    """

    run: Run
    member: int = 0
    select: tuple[str, ...] = ()
    window: tuple[int, int] | None = None

    @property
    def hparams(self) -> dict[str, Any]:
        """Hyper-parameters of the run: they tell whether the weights are the whole state."""
        return self.run.hparams

    @property
    def optimizer(self) -> Any:
        """Buffers of the optimiser, or None."""
        return self.run.optimizer

    @cached_property
    def step(self) -> Any:
        """Steps of the states, (T,)."""
        return self.trajectory().step

    def trajectory(self) -> Trajectory:
        """Return the states.

        Returns
        -------
        Trajectory
            Lazy.
        """
        path = self.run.trajectory(self.member)
        path = path.select(*self.select) if self.select else path
        return path if self.window is None else path.window(*self.window)


def record_of(run: Run, choices: Choices) -> Record | Trajectory:
    """Return what the user wants to have looked at.

    Parameters
    ----------
    run : Run
        Of an open file.
    choices : Choices
        What the user chose.

    Returns
    -------
    Record or Trajectory
        Weights of a member, or a metric.

    Raises
    ------
    SelectionError
        If there is no such member or metric, or parameters of a metric are selected.
    DataError
        If the run holds no state.
    """
    if not run.n_states:
        raise DataError(f"run {run.name!r} holds no state: nothing was recorded into it")
    check_rule(choices)
    member = choices.member or 0
    if not 0 <= member < run.n_members:
        raise SelectionError(f"run {run.name!r} has {run.n_members} members (from 0): there is no member {member}")
    if choices.series is None:
        if run.stored != "weights":
            raise DataError(
                f"run {run.name!r} stores {run.stored} and no weights, so there is no trajectory with neighbours; "
                "use --method twins, or a metric (--series)"
            )
        return Record(run, member, choices.select, choices.window)
    series = series_of(run, choices.series, member, choices.select)
    return series if choices.window is None else series.window(*choices.window)


def check_rule(choices: Choices) -> None:
    """Refuse a radius where the method follows the nearest states.

    Parameters
    ----------
    choices : Choices
        What the user chose.

    Raises
    ------
    DataError
        If the two do not fit.
    """
    if isinstance(choices.neighbors, WithinRadius) and choices.method not in BY_RADIUS:
        raise DataError(
            f"a radius is for --method {' and '.join(BY_RADIUS)}; the others follow the nearest: give --neighbors "
            "a whole number, such as 4"
        )


def series_of(run: Run, name: str, member: int, select: tuple[str, ...] = ()) -> Trajectory:
    """Return a metric of a member as a trajectory.

    Parameters
    ----------
    run : Run
        Of an open file.
    name : str
        The metric.
    member : int
        Its column, where every member has its own.
    select : tuple of str
        Must be empty: a metric has no parameters.

    Returns
    -------
    Trajectory
        From the first to the last finite value.

    Raises
    ------
    SelectionError
        If there is no such metric, or parameters are selected.
    DataError
        If no value is finite.
    """
    if select:
        raise SelectionError(f"--select names parameters, and the metric {name!r} has none: drop one of the two")
    if name not in run.metrics:
        raise SelectionError(f"run {run.name!r} has no metric {name!r}; it has {', '.join(run.metrics) or 'none'}")
    values = np.asarray(run.metrics[name], dtype=np.float64)
    values = values if values.ndim == 1 else values[:, member]
    finite = np.flatnonzero(np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if not len(finite):
        raise DataError(f"the metric {name!r} of run {run.name!r} is finite at no state")
    part = slice(int(finite[0]), int(finite[-1]) + 1)  # the newest state often has no metric yet
    return Trajectory.from_array(values[part], step=run.step[part], time_unit=run.time_unit)


def noted(exponent: Exponent, run: Run, choices: Choices) -> Exponent:
    """Say which member was looked at, where there are several and nobody chose.

    Parameters
    ----------
    exponent : Exponent
        Of one member.
    run : Run
        Its run.
    choices : Choices
        What the user chose.

    Returns
    -------
    Exponent
        The same; `settings` hold member and metric.
    """
    settings = exponent.settings | {"member": choices.member or 0, "series": choices.series}
    words = f"this is member 0 of {run.n_members}; --member looks at another one"
    said = (words,) if choices.member is None and run.n_members > 1 else ()
    return replace(exponent, settings=settings, warnings=(*exponent.warnings, *said))


def options_of(choices: Choices) -> dict[str, Any]:
    """Return what `trajtools.lyapunov` takes, as far as the user chose it.

    Parameters
    ----------
    choices : Choices
        What the user chose.

    Returns
    -------
    dict
        Keyword arguments.
    """
    dim, delay = choices.embed if choices.embed is not None else (None, None)
    return {
        "method": choices.method,
        "metric": choices.metric,
        "average": choices.average,
        "neighbors": choices.neighbors,
        "theiler": choices.theiler,
        "horizon": choices.horizon,
        "dim": dim,
        "delay": delay,
        "region": choices.region if choices.region is not None else "auto",
        "null": None if choices.null == "none" else choices.null,
        "surrogates": choices.surrogates,
        "buffers": choices.buffers,
        "dt": choices.dt,
        "procedure": choices.procedure,
        "level": choices.level,
        "rng": choices.seed,
    }


def nothing_to_draw(exponent: Exponent, unit: str) -> Divergence:
    """Return a divergence without curves, for an exponent that was refused before there were any.

    Parameters
    ----------
    exponent : Exponent
        Without a curve.
    unit : str
        Of time.

    Returns
    -------
    Divergence
        With no unit in it.
    """
    nothing, none = np.full((0, 1), np.nan), np.empty(0, dtype=np.int64)
    return Divergence(
        method=exponent.method,
        metric=str(exponent.settings.get("metric", "")),
        average="mean-log",
        time=np.zeros(1),
        time_unit=unit,
        log_distance=np.full(1, np.nan),
        distances=nothing,
        group=none,
        start=none,
        floor=nothing,
        scale=np.empty(0),
        n_references=0,
    )
