"""`trajtools lyapunov`: the exponent of twins or of one trajectory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from trajtools.cli import options
from trajtools.cli.options import Selection
from trajtools.cli.printing import bullets, table
from trajtools.cli.runner import (
    Outcome,
    Request,
    Source,
    analysis_command,
    finish,
    labels,
    save_figure,
    select_states,
)
from trajtools.errors import DataError
from trajtools.reasons import Reason, codes, in_order
from trajtools.wording import counted, one_unit, time_units

if TYPE_CHECKING:
    from trajtools.cli.printing import Block
    from trajtools.exponents.divergence import Divergence
    from trajtools.exponents.exponent import Exponent
    from trajtools.exponents.windows import Windows
    from trajtools.neighbors.rules import NearestK, WithinRadius
    from trajtools.report.collect import Analysis
    from trajtools.store import Run
    from trajtools.store.foreign import Ensemble
    from trajtools.trajectory import Trajectory

# Choices of the library, written out so that --help loads nothing; a test compares them.
METHODS = ("twins", "rosenstein", "kantz", "wolf", "hybrid")
METHODS_BY_RADIUS = ("kantz", "hybrid")
AVERAGES = ("mean-log", "log-mean", "rms")
UNITS = ("step", "epoch", "learning-rate")
PROCEDURES = ("danovski2024",)

FACTS = ("status", "states", "members", "references", "twins", "parameters", "dtype", "stored")


@dataclass(frozen=True)
class Settings:
    """The options of an exponent; None and "auto" leave the choice to the library."""

    selection: Selection = field(default_factory=Selection)
    method: str = "auto"
    metric: str | None = None
    scale: str | None = None
    average: str | None = None
    region: tuple[float, float] | None = None
    procedure: str | None = None
    level: float = 0.95
    seed: int = 0
    neighbors: NearestK | WithinRadius | None = None
    theiler: int | None = None
    horizon: int | None = None
    embed: tuple[int, int] | None = None
    null: str = "auto"
    surrogates: int = 99
    buffers: bool | None = None
    dt: float | None = None
    per: str | None = None
    steps_per_epoch: float | None = None
    learning_rate: float | None = None
    steps_per_sample: float | None = None
    windows: tuple[int, int] | None = None

    @property
    def neighbor_options(self) -> list[str]:
        """The given options that twins do not have."""
        values = {"member": self.selection.member, "series": self.selection.series}
        values |= {
            name: getattr(self, name) for name in ("scale", "neighbors", "theiler", "horizon", "embed", "buffers")
        }
        return [f"--{name}" for name, value in values.items() if value is not None]

    def for_units(self) -> dict[str, Any]:
        """Return the keyword arguments of `Exponent.per`."""
        return {"steps_per_epoch": self.steps_per_epoch, "learning_rate": self.learning_rate}

    def for_library(self) -> dict[str, Any]:
        """Return the keyword arguments of `tt.lyapunov`."""
        dim, delay = self.embed if self.embed is not None else (None, None)
        return {
            "method": self.method,
            "metric": self.metric,
            "scale": self.scale,
            "average": self.average,
            "neighbors": self.neighbors,
            "theiler": self.theiler,
            "horizon": self.horizon,
            "dim": dim,
            "delay": delay,
            "region": self.region if self.region is not None else "auto",
            "null": None if self.null == "none" else self.null,
            "surrogates": self.surrogates,
            "buffers": self.buffers,
            "dt": self.dt,
            "procedure": self.procedure,
            "level": self.level,
            "rng": self.seed,
        }


@analysis_command("lyapunov", strict=True)
@click.option(
    "--method", type=click.Choice(["auto", *METHODS]), default="auto", show_default=True,
    help="auto: twins if the run has any, else the neighbours of one trajectory.",
)  # fmt: skip
@click.option("--embed", type=options.embedding, metavar="DIM,DELAY", help="Delay coordinates; auto: from the data.")
@click.option("--buffers/--no-buffers", default=None, help="Append the optimiser's recorded buffers to the weights.")
@click.option("--neighbors", type=options.neighbor_rule, metavar="K|R", help="Number of neighbours, or radius.")
@options.theiler
@click.option("--horizon", type=click.IntRange(min=1), help="How long neighbours are followed, in samples.")
@options.metric(None, "Distance between two states.  [default: l1 for twins, of distances and sketches the stored one, "
                "l2 for neighbours]")  # fmt: skip
@options.scale
@click.option("--average", type=click.Choice(AVERAGES), help="Average over twins or neighbours.")
@click.option("--region", type=options.span(float), metavar="START:STOP",
              help="Fit here, in steps since the perturbation.")  # fmt: skip
@click.option("--procedure", type=click.Choice(PROCEDURES), help="Use a published procedure.")
@click.option("--null", default="auto", show_default=True, help="Null hypothesis of the growth test; none: no test.")
@click.option("--surrogates", type=click.IntRange(min=1), default=99, show_default=True, help="Number of surrogates.")
@click.option("--dt", type=click.FloatRange(0, min_open=True), help="Time between samples, in your own unit.")
@click.option("--per", type=click.Choice(UNITS), help="Unit of the exponent.")
@click.option(
    "--steps-per-epoch", type=click.FloatRange(0, min_open=True), help="For --per epoch, if the run does not record it."
)
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True),
              help="For --per learning-rate, if the run does not record it: a constant.")  # fmt: skip
@click.option(
    "--steps-per-sample", type=click.FloatRange(0, min_open=True), help="For --per, of a table: training steps a row."
)
@click.option("--windows", type=options.window_lengths, metavar="W[,S]",
              help="Also in windows of W steps, one every S steps.")  # fmt: skip
@click.option("--pool", is_flag=True, help="Pool the twins of all runs, such as other seeds, into one exponent.")
@options.level
@options.seed
def lyapunov(request: Request, *, pool: bool, **chosen: Any) -> None:
    """Measure how fast nearby trainings diverge, for each run of each FILE, or with --pool for all of them.

    Twins are perturbed copies that were trained with their reference. Without twins, the neighbours of one
    trajectory are used, if it returns to earlier states. The result is an exponent with an interval, a verdict and
    its reasons. A FILE may also be a table of numbers (.csv, .tsv, .txt, .dat, .npy, .npz, .parquet) with one state a
    row, or an HDF5 file of another program that holds twins, or distances of twins: say what it holds with --layout, or
    with --dataset, --axes and --holds.
    """
    if request.foreign is not None:
        request = replace(request, foreign={**request.foreign, "metric": chosen["metric"] or "l1"}, together=True)
    settings = Settings(selection=request.selection, **chosen)
    if request.strict and settings.procedure is not None:
        raise click.UsageError(
            f"--strict needs a verdict, and --procedure {settings.procedure} gives none: drop one of the two"
        )
    if pool and request.foreign is not None:
        raise click.UsageError(
            "--pool is for recorded runs, and the initial conditions of such a file are pooled: drop it"
        )
    if pool:
        outcomes, errors = request.all_runs(lambda runs: _analyse_pooled(runs, settings))
    else:
        outcomes, errors = request.each_run(lambda source: analyse(source, settings))
    request.write(outcomes, errors, [with_curve(one.result) for one in outcomes], text)
    if request.plot is not None and outcomes:
        save_figure(_figure(outcomes), request.plot)
    finish(errors, [one.result.exponent.verdict for one in outcomes] if request.strict else ())


def analyse(source: Source, settings: Settings, *, published: str | None = None) -> Analysis:
    """Measure how fast twins, or neighbours of one trajectory, diverge.

    `published` names a procedure whose exponent is added for comparison.
    """
    if source.foreign is not None:
        return _analyse_foreign(source, source.foreign, settings)
    return _analyse_run(source, settings, published) if source.table is None else _analyse_table(source, settings)


def _analyse_run(source: Source, settings: Settings, published: str | None) -> Analysis:
    import trajtools as tt
    from trajtools.report.collect import Analysis

    run = source.recorded_run()
    comparison: Exponent | None = None
    data: Any
    if _by_twins(run, settings):
        _check_has_twins(run)
        data = growth = _divergence([run], settings)
        exponent = _fit(growth, settings, settings.procedure)
        comparison = _fit(growth, settings, published) if published else None
    else:
        _check_rule(settings)
        data = select_states(run, settings.selection)
        exponent = _with_member(tt.lyapunov(data, **settings.for_library()), run, settings)
        growth = exponent.curve if exponent.curve is not None else _empty_divergence(exponent, run.time_unit)
    windows = _windows(data, settings) if settings.windows is not None else None
    if settings.per is not None:
        known = {"run": run, **settings.for_units()}
        exponent = exponent.per(settings.per, **known)
        windows = windows.per(settings.per, **known) if windows is not None else None
    return Analysis(str(source.path), run.name, growth, exponent, comparison, _facts(run), dict(run.hparams), windows)


def _analyse_pooled(sources: Sequence[Source], settings: Settings) -> Analysis:
    """Measure how fast the twins of several runs diverge, with one exponent for all."""
    from trajtools.report.collect import Analysis

    runs = [source.recorded_run() for source in sources]
    for run in runs:
        _check_has_twins(run)
        if not _by_twins(run, settings):
            raise DataError("--pool takes twins: drop --method, and the options for the neighbours of one trajectory")
    growth = _divergence(runs, settings)
    exponent = _fit(growth, settings, settings.procedure)
    windows = _windows(growth, settings) if settings.windows is not None else None
    if settings.per is not None:
        are_alike = "runs-differ" not in codes(growth.warnings)
        numbers = {"run": runs[0] if are_alike else None, **settings.for_units()}
        exponent = exponent.per(settings.per, **numbers)
        windows = windows.per(settings.per, **numbers) if windows is not None else None
    files = [str(source.path) for source in sources]
    facts: dict[str, Any] = {
        "files": files,
        "runs": [run.name for run in runs],
        "references": growth.n_references,
        "twins": sum(_twins(run) for run in runs),
    }
    shared = {name: value for name, value in runs[0].hparams.items() if all(_has(run, name, value) for run in runs)}
    return Analysis(", ".join(files), counted(len(runs), "run"), growth, exponent, None, facts, shared, windows)


def _has(run: Run, name: str, value: Any) -> bool:
    return name in run.hparams and repr(run.hparams[name]) == repr(value)


def _twins(run: Run) -> int:
    return sum(member.reference >= 0 for member in run.members)


def _analyse_table(source: Source, settings: Settings) -> Analysis:
    import trajtools as tt
    from trajtools.cli.tables import refuse_options
    from trajtools.report.collect import Analysis

    assert source.table is not None
    only_runs = {
        "--buffers": settings.buffers is not None,
        "--procedure": settings.procedure is not None,
        "--method twins": settings.method == "twins",
    }
    refuse_options([name for name, present in only_runs.items() if present], source.path)
    _check_rule(settings)
    states = source.states()
    exponent = tt.lyapunov(states, **settings.for_library())
    growth = exponent.curve if exponent.curve is not None else _empty_divergence(exponent, exponent.unit[2:])
    windows = _windows(states, settings) if settings.windows is not None else None
    if settings.per is not None:
        known = {**settings.for_units(), "steps_per_sample": settings.steps_per_sample}
        exponent = exponent.per(settings.per, **known)
        windows = windows.per(settings.per, **known) if windows is not None else None
    values = source.table.values
    _, columns = source.table.columns(settings.selection, source.path)
    exponent = source.remarked(exponent)
    facts = {"states": len(values), "columns": ", ".join(columns), "dtype": str(values.dtype)}
    if source.table.clock is not None:
        facts["clock"] = source.table.clock_text()
    return Analysis(str(source.path), source.name, growth, exponent, None, facts, {}, windows)


def _analyse_foreign(source: Source, ensemble: Ensemble, settings: Settings) -> Analysis:
    """Analyse the twins, or their distances, in a file of another program."""
    import trajtools as tt
    from trajtools.report.collect import Analysis

    alone = [*settings.neighbor_options, *(["--method"] * (settings.method not in ("auto", "twins")))]
    if alone or (settings.selection.select and ensemble.holds == "distances"):
        raise DataError(
            f"{', '.join(alone) or '--select'}: only for trajectories of weights; {source.path.name} is read as twins. "
            "Drop the option, or convert the file first (trajtools convert)"
        )
    window = settings.selection.window
    if ensemble.distances is None:
        pairs = ensemble.pairs
        if not all(copies for _, copies in pairs):
            raise DataError(
                f"{source.path.name} is declared to hold no copies: the axis 'member' is missing or of size 1; convert "
                "the file first (trajtools convert), then each trajectory is analysed by itself"
            )
        if settings.selection.select:
            chosen = settings.selection.select
            pairs = [(one.select(*chosen), [copy.select(*chosen) for copy in copies]) for one, copies in pairs]
        growth = tt.twins(
            pairs, metric=settings.metric, average=settings.average or "mean-log", dt=settings.dt, window=window
        )
    else:
        step = ensemble.step
        inside = slice(None) if window is None else (step >= window[0]) & (step < window[1])
        growth = tt.Divergence.from_distances(
            ensemble.distances[inside],
            time=step[inside],
            group=ensemble.group,
            metric=ensemble.metric,
            average=settings.average or "mean-log",
            time_unit="step",
        )
        if settings.dt is not None:
            time, known = growth.time * settings.dt, {**growth.settings, "dt": settings.dt}
            growth = replace(growth, time=time, time_unit="time", settings=known)
    exponent = _fit(growth, settings, settings.procedure)
    windows = _windows(growth, settings) if settings.windows is not None else None
    if settings.per is not None:
        exponent = exponent.per(settings.per, **settings.for_units())
        windows = windows.per(settings.per, **settings.for_units()) if windows is not None else None
    facts = {
        "states": len(ensemble.step),
        "references": growth.n_references,
        "twins": len(ensemble.group),
        "parameters": sum(p.size for p in ensemble.parameters) or None,
        "stored": ensemble.holds,
    }
    name = source.name
    return Analysis(str(source.path), name, growth, exponent, None, facts, dict(ensemble.hparams), windows)


def _by_twins(run: Run, settings: Settings) -> bool:
    """Whether twins are used, and not the neighbours of one trajectory."""
    if settings.method == "twins" and settings.neighbor_options:
        raise DataError(
            f"{', '.join(settings.neighbor_options)}: only for the neighbours of one trajectory; drop --method twins "
            "or these options"
        )
    return settings.method == "twins" or (
        settings.method == "auto" and _twins(run) > 0 and not settings.neighbor_options
    )


def _check_has_twins(run: Run) -> None:
    if _twins(run):
        return
    members = f"{run.n_members} member{'s' * (run.n_members != 1)}"
    raise DataError(
        f"run {run.name!r} of {run.path} has {members} and no perturbed copy, which twins need: record a "
        "reference with perturbed copies (recorders.twins.perturb, or perturb of your framework's recorder)"
    )


def _check_rule(settings: Settings) -> None:
    """Refuse a radius for a method that takes the nearest neighbours."""
    from trajtools.neighbors.rules import WithinRadius

    if isinstance(settings.neighbors, WithinRadius) and settings.method not in METHODS_BY_RADIUS:
        raise DataError(
            f"a radius is for --method {' and '.join(METHODS_BY_RADIUS)}; the other methods take the nearest "
            "neighbours: give --neighbors a whole number, such as 4"
        )


def _divergence(runs: Sequence[Run], settings: Settings) -> Divergence:
    """Return the divergence curves of the twins, of all parameters or of the selected ones."""
    import trajtools as tt

    select = settings.selection.select
    for run in runs:
        if select and run.stored != "weights":
            raise DataError(
                f"run {run.name!r} stores {run.stored} and no weights: no parameters can be selected from it"
            )
    return tt.twins(
        list(runs),
        metric=settings.metric,
        average=settings.average or "mean-log",
        window=settings.selection.window,
        dt=settings.dt,
        select=tuple(select),
    )


def _fit(growth: Divergence, settings: Settings, procedure: str | None) -> Exponent:
    region: Any = settings.region if settings.region is not None else "auto"
    null = {"auto": "power-law", "none": None}.get(settings.null, settings.null)
    return growth.fit(region, null=null, procedure=procedure, level=settings.level, rng=settings.seed)


def _with_member(exponent: Exponent, run: Run, settings: Settings) -> Exponent:
    """Add the member and the metric to the settings, and a warning if the member was not chosen among several."""
    member = settings.selection.member
    more = {"member": member or 0, "series": settings.selection.series}
    warnings = exponent.warnings
    if member is None and run.n_members > 1:
        words = "this is member 0 of {members}; --member selects another one"
        warnings = (*warnings, Reason.of("first-member", words, members=run.n_members))
    return replace(exponent, settings=exponent.settings | more, warnings=warnings)


def _windows(data: Divergence | Trajectory | Any, settings: Settings) -> Windows:
    """Measure in windows of the data that the whole was measured on."""
    import trajtools as tt

    window, step = settings.windows or (None, None)
    chosen = settings.for_library()
    if isinstance(data, tt.Divergence):
        chosen = {name: chosen[name] for name in ("null", "level", "rng")}
    return tt.lyapunov_windows(data, window=window, step=step, **chosen)


def _empty_divergence(exponent: Exponent, unit: str) -> Divergence:
    """Return a divergence without curves, for an exponent that was refused before there were any."""
    import numpy as np

    import trajtools as tt

    nothing, none = np.full((0, 1), np.nan), np.empty(0, dtype=np.int64)
    return tt.Divergence(
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


def _facts(run: Run) -> dict[str, Any]:
    """Describe the run, with the last value of each metric (median of the references): were the networks learning?"""
    import numpy as np

    from trajtools.cli.files import describe_run

    facts = {name: value for name, value in describe_run(run).items() if name in FACTS}
    references = [i for i, member in enumerate(run.members) if member.reference < 0]
    last = {name: run.metrics[name][-1] for name in run.metrics} if run.n_states else {}
    facts["last"] = {
        name: float(value if value.ndim == 0 else np.median(value[references]))
        for name, value in last.items()
        if value.ndim < 2
    }
    return facts


def with_curve(answer: Analysis) -> dict[str, Any]:
    """Return an answer with its mean curve, as JSON can hold it."""
    from trajtools.results import to_plain

    growth = answer.growth
    curve = {
        "time": growth.time,
        "log_distance": growth.log_distance,
        "unit": growth.time_unit,
        "metric": growth.metric,
    }
    plain: dict[str, Any] = to_plain({**answer.to_dict(), "curve": curve})
    return plain


# Text


def text(outcomes: list[Outcome]) -> list[Block]:
    """Return the table, then the reasons and windows of each run."""
    from trajtools.plots._axes import number

    answers: list[Analysis] = [one.result for one in outcomes]
    head, rows = columns(answers[0]), [row(answer) for answer in answers]
    if answers[0].exponent.settings.get("procedure") in PROCEDURES:
        head = [*head, "s.d.", "kept"]
        for cells, answer in zip(rows, answers, strict=True):
            cells += [number(answer.exponent.spread), f"{answer.exponent.used_fraction:.0%}"]
    right = {1, 2, 4, 5, 6, 7}
    if len({answer.run for answer in answers}) < len(answers):  # runs of one name are told apart by their file
        head = ["file", *head]
        rows = [[answer.file, *cells] for cells, answer in zip(rows, answers, strict=True)]
        right = {i + 1 for i in right}
    blocks: list[Block] = [table(head, rows, right=right, keys=head.index("run") + 1)]
    for label, answer in zip(labels(outcomes), answers, strict=True):
        remarks = in_order((*answer.exponent.reasons, *answer.exponent.warnings, *answer.growth.warnings))
        blocks.append(bullets(f"{label}: {answer.exponent.verdict}. {answer.exponent.summary()}", remarks))
        if answer.windows is not None:
            blocks.append(_windows_text(answer.run, answer.windows))
    blocks.append(bullets("How to read it:", _reading(answers)))
    return blocks


def _reading(answers: Sequence[Analysis]) -> list[str]:
    """What the columns of the table mean."""
    unit = answers[0].exponent.unit.removeprefix("1/")
    twins = any(answer.exponent.method == "twins" for answer in answers)
    who = "nearby trainings" if twins else "neighbouring states"
    notes = [f"exponent: e-folds (factors of e) per {one_unit(unit)} by which the distance between {who} grows"]
    if twins:
        notes += [
            "verdict: whether the distance grows exponentially, and after every perturbation; `trajtools stability` "
            "asks another question, whether copies return to the path of their reference",
            "used: initial conditions with a fit, of all",
        ]
    return notes


def columns(answer: Analysis) -> list[str]:
    """Return the head of the table; all answers share unit and level."""
    exponent = answer.exponent
    return [
        "run",
        f"exponent ({exponent.unit})",
        f"{exponent.level:.0%} interval",
        "verdict",
        f"fitted {time_units(answer.growth.time_unit)}",
        "used",
    ]


def row(answer: Analysis) -> list[str]:
    """Return the cells of one answer."""
    from trajtools.plots._axes import interval, number, window

    exponent = answer.exponent
    used = f"{exponent.n_used} of {exponent.n_total}"
    return [answer.run, number(exponent.value), interval(exponent), exponent.verdict, window(exponent), used]


def _windows_text(run: str, windows: Windows) -> Block:
    from trajtools.plots._axes import interval, number

    head = ["steps", f"exponent ({windows.unit})", f"{windows.level:.0%} interval", "verdict", "e-folds"]
    rows = [
        [
            f"{windows.start[w]}-{windows.stop[w]}",
            number(windows.value[w]),
            interval(one),
            one.verdict,
            number(windows.gain[w]),
        ]
        for w, one in enumerate(windows.exponents)
    ]
    low, high = windows.max_gain_between
    gain = "no window has a known gain"
    if math.isfinite(windows.max_gain):
        gain = f"largest cumulative gain: {number(windows.max_gain)} e-folds, from step {low} to {high}"
    return [f"{run}, window by window:", table(head, rows, right={1, 2, 4}), bullets(gain, windows.warnings)]


def _figure(outcomes: list[Outcome]) -> Any:
    """Draw one panel for each answer."""
    from trajtools import plots

    answers: list[Analysis] = [one.result for one in outcomes]
    return plots.divergences(
        [(f"{a.run}: {a.exponent.verdict}", a.growth, a.exponent) for a in answers],
        windows=[(a.run, a.windows) for a in answers if a.windows is not None],
    )
