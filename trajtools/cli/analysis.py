"""From a run to an answer: the one path that `lyapunov` and `demo` share."""

from __future__ import annotations

from typing import Any

from trajtools.cli.asking import Choices
from trajtools.cli.info import run_facts
from trajtools.cli.recurrences import noted, nothing_to_draw, options_of, record_of
from trajtools.errors import DataError
from trajtools.estimators.lyapunov import lyapunov
from trajtools.estimators.twins import twins
from trajtools.estimators.windows import lyapunov_windows
from trajtools.growth.windows import Windows
from trajtools.plots.words import interval, number, window
from trajtools.report.answers import Answer
from trajtools.results.divergence import Divergence
from trajtools.results.exponent import Exponent
from trajtools.store import Run

FACTS = ("status", "states", "members", "references", "twins", "parameters", "dtype", "stored")


def analyse(run: Run, choices: Choices, *, published: str | None = None) -> Answer:
    """Measure how fast the twins of a run leave their references, or neighbours of one trajectory each other.

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
    beside: Exponent | None = None
    looked_at: Any
    if by_twins(run, choices):
        check_has_twins(run)
        looked_at = growth = divergence_of(run, choices)
        exponent = fitted(growth, choices, choices.procedure)
        beside = fitted(growth, choices, published) if published else None
    else:
        looked_at = record_of(run, choices)
        exponent = noted(lyapunov(looked_at, **options_of(choices)), run, choices)
        growth = exponent.curve if exponent.curve is not None else nothing_to_draw(exponent, run.time_unit)
    windows = windows_of(looked_at, choices) if choices.windows is not None else None
    if choices.per is not None:
        known: dict[str, Any] = {"run": run, "steps_per_epoch": choices.steps_per_epoch}
        exponent = exponent.per(choices.per, **known)
        windows = windows.per(choices.per, **known) if windows is not None else None
    facts = {name: value for name, value in run_facts(run).items() if name in FACTS}
    facts["last"] = last_metrics(run)
    return Answer(str(run.path), run.name, growth, exponent, beside, facts, dict(run.hparams), windows)


def by_twins(run: Run, choices: Choices) -> bool:
    """Whether twins answer, and not the neighbours of one trajectory.

    Parameters
    ----------
    run : Run
        Of an open file.
    choices : Choices
        What the user chose.

    Returns
    -------
    bool

    Raises
    ------
    DataError
        If twins were asked for with options that they do not know.
    """
    if choices.method == "twins" and choices.only_neighbors:
        raise DataError(
            f"{', '.join(choices.only_neighbors)}: only for the neighbours of one trajectory; drop --method twins or "
            "these"
        )
    has = any(member.reference >= 0 for member in run.members)
    return choices.method == "twins" or (choices.method == "auto" and has and not choices.only_neighbors)


def windows_of(looked_at: Any, choices: Choices) -> Windows:
    """Measure window by window.

    Parameters
    ----------
    looked_at : Divergence, Record or Trajectory
        What the whole was measured on.
    choices : Choices
        What the user chose; with windows.

    Returns
    -------
    Windows
        One exponent per window.
    """
    window, step = choices.windows or (None, None)
    options = options_of(choices)
    if isinstance(looked_at, Divergence):
        options = {name: options[name] for name in ("null", "level", "rng")}
        return lyapunov_windows(looked_at, window=window, step=step, **options)
    return lyapunov_windows(looked_at, window=window, step=step, **options)


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
    metric, average = choices.metric or "l1", choices.average or "mean-log"
    if not choices.select:
        return twins(run, metric=metric, average=average, window=choices.window, dt=choices.dt)
    if run.stored != "weights":
        raise DataError(f"run {run.name!r} stores {run.stored} and no weights: no parameters can be selected from it")
    pairs = [
        (run.trajectory(i).select(*choices.select), [run.trajectory(j).select(*choices.select) for j in copies])
        for i, copies in copies_of(run).items()
    ]
    return twins(pairs, metric=metric, average=average, window=choices.window, dt=choices.dt)


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
    null = {"auto": "power-law", "none": None}.get(choices.null, choices.null)
    return growth.fit(region, null=null, procedure=procedure, level=choices.level, rng=choices.seed)


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
