"""From a run to an answer: the one path that `lyapunov` and `demo` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trajtools.cli.info import run_facts
from trajtools.errors import DataError
from trajtools.estimators.twins import twins
from trajtools.plots.words import interval, number, window
from trajtools.report.answers import Answer
from trajtools.results import Divergence, Exponent
from trajtools.store import Run

FACTS = ("status", "states", "members", "references", "twins", "parameters", "dtype", "stored")


@dataclass(frozen=True)
class Choices:
    """What the user chose; the defaults are those of the library.

    Attributes
    ----------
    method : str
        ``"twins"``, or ``"auto"``: what the run allows.
    metric : str
        Distance between states.
    average : str
        How the copies of one initial condition are averaged.
    select : tuple of str
        Globs of parameter names; empty for all.
    window : (float, float) or None
        Steps of the training that are looked at, [start, stop).
    region : (float, float) or None
        Where the line is fitted, in the time unit since the perturbation; None chooses.
    procedure : str or None
        A published procedure instead of ours.
    level : float
        Confidence level.
    seed : int
        Of the resampling.
    """

    method: str = "auto"
    metric: str = "l1"
    average: str = "mean-log"
    select: tuple[str, ...] = ()
    window: tuple[int, int] | None = None
    region: tuple[float, float] | None = None
    procedure: str | None = None
    level: float = 0.95
    seed: int = 0


def analyse(run: Run, choices: Choices, *, published: str | None = None) -> Answer:
    """Measure how fast the twins of a run leave their references.

    Parameters
    ----------
    run : Run
        Of an open file.
    choices : Choices
        What the user chose.
    published : str or None
        Also fit by this published procedure, for comparison.

    Returns
    -------
    Answer
        With the curves.

    Raises
    ------
    DataError
        If the run cannot be analysed so; the message says what it lacks.
    """
    check_has_twins(run)
    growth = divergence_of(run, choices)
    exponent = fitted(growth, choices, choices.procedure)
    facts = {name: value for name, value in run_facts(run).items() if name in FACTS}
    facts["last"] = last_metrics(run)
    beside = fitted(growth, choices, published) if published else None
    return Answer(str(run.path), run.name, growth, exponent, beside, facts, dict(run.hparams))


def last_metrics(run: Run) -> dict[str, float]:
    """Return every metric at the last state, so that a reader sees whether the networks were learning at all.

    Parameters
    ----------
    run : Run
        Of an open file.

    Returns
    -------
    dict of str to float
        Name -> mean over the references. Metrics with several numbers per member are left out.
    """
    references = [i for i, member in enumerate(run.members) if member.reference < 0]
    found = {}
    for name in run.metrics if run.n_states else ():
        last = run.metrics[name][-1]
        if last.ndim < 2:
            found[name] = float(last if last.ndim == 0 else last[references].mean())
    return found


def check_has_twins(run: Run) -> None:
    """Refuse a run without perturbed copies, and say how to record one.

    Parameters
    ----------
    run : Run
        Of an open file.

    Raises
    ------
    DataError
        If no member has a reference.
    """
    if any(member.reference >= 0 for member in run.members):
        return
    count = f"{run.n_members} member{'s' * (run.n_members != 1)}"
    raise DataError(
        f"run {run.name!r} of {run.path} has {count} and no perturbed copy: an exponent is measured between twins. "
        "Record a reference with its copies (recorders.twins.perturb, or perturb of your framework's recorder)"
    )


def divergence_of(run: Run, choices: Choices) -> Divergence:
    """Return the divergence curves of a run.

    Parameters
    ----------
    run : Run
        With twins.
    choices : Choices
        What the user chose.

    Returns
    -------
    Divergence
        One unit per twin.
    """
    if not choices.select:
        return twins(run, metric=choices.metric, average=choices.average, window=choices.window)
    if run.stored != "weights":
        raise DataError(f"run {run.name!r} stores {run.stored} and no weights: no parameters can be selected from it")
    pairs = [
        (run.trajectory(i).select(*choices.select), [run.trajectory(j).select(*choices.select) for j in copies])
        for i, copies in copies_of(run).items()
    ]
    return twins(pairs, metric=choices.metric, average=choices.average, window=choices.window)


def copies_of(run: Run) -> dict[int, list[int]]:
    """Return the references of a run and their copies.

    Parameters
    ----------
    run : Run
        With twins.

    Returns
    -------
    dict of int to list of int
        Index of a reference -> indices of its copies.
    """
    found: dict[int, list[int]] = {}
    for index, member in enumerate(run.members):
        if member.reference >= 0:
            found.setdefault(member.reference, []).append(index)
    return found


def fitted(growth: Divergence, choices: Choices, procedure: str | None) -> Exponent:
    """Return the exponent of a divergence.

    Parameters
    ----------
    growth : Divergence
        The curves.
    choices : Choices
        What the user chose.
    procedure : str or None
        A published procedure, or None for ours.

    Returns
    -------
    Exponent
        With its doubt.
    """
    region: Any = choices.region if choices.region is not None else "auto"
    return growth.fit(region, procedure=procedure, level=choices.level, rng=choices.seed)


def row(answer: Answer) -> list[str]:
    """Return an answer as a row of the table whose head is `head`.

    Parameters
    ----------
    answer : Answer
        Of one run.

    Returns
    -------
    list of str
        Run, exponent, interval, verdict, fitted steps, used.
    """
    exponent = answer.exponent
    used = f"{exponent.n_used} of {exponent.n_total}"
    return [answer.run, number(exponent.value), interval(exponent), exponent.verdict, window(exponent), used]


def head(answer: Answer) -> list[str]:
    """Return the head of the table.

    Parameters
    ----------
    answer : Answer
        Any of those in the table; they share unit and level.

    Returns
    -------
    list of str
        As many words as `row` has cells.
    """
    exponent = answer.exponent
    unit = answer.growth.time_unit
    return [
        "run",
        f"exponent ({exponent.unit})",
        f"{exponent.level:.0%} interval",
        "verdict",
        f"fitted {unit}s",
        "used",
    ]
