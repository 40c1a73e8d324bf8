"""`trajtools lyapunov`: the exponent of twins or of one trajectory, as a table, a document or a figure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from trajtools._kernels._jit import on_compile as told_of_compiling
from trajtools.cli import options
from trajtools.cli.analysis import analyse, head, row
from trajtools.cli.asking import Choices, embedding, lengths, rule, span
from trajtools.cli.reading import Errors, chosen_runs, debugging, reading, tell, told
from trajtools.cli.tables import analyse_table, is_table
from trajtools.errors import MissingDependencyError, TrajtoolsError
from trajtools.estimators.lyapunov import METHODS
from trajtools.growth.units import UNITS
from trajtools.growth.windows import Windows
from trajtools.plots.words import interval, kept, number, spread
from trajtools.report.answers import Answer
from trajtools.results.curves import AVERAGES
from trajtools.results.plain import to_plain

PROCEDURES = ("danovski2024",)
FIGURES = (".png", ".svg", ".pdf")


@click.command("lyapunov")
@options.files
@click.option(
    "--method",
    type=click.Choice(["auto", *METHODS]),
    default="auto",
    show_default=True,
    help="auto: twins where the run has any, else the neighbours of one trajectory.",
)
@options.runs
@click.option("--select", metavar="GLOB", multiple=True, help="Only parameters of this name, such as '*.weight'.")
@click.option("--member", type=click.IntRange(min=0), help="The one trajectory: this member of the run.")
@click.option("--series", metavar="NAME", help="The one trajectory: this metric (or, of a table, these columns).")
@click.option("--embed", callback=embedding, metavar="DIM,DELAY", help="Delay coordinates; auto: from the data.")
@click.option("--buffers/--no-buffers", default=None, help="Join the optimiser's recorded buffers to the weights.")
@click.option("--neighbors", callback=rule, metavar="K|R", help="How many neighbours (4), or how near (0.05).")
@click.option("--theiler", type=click.IntRange(min=0), help="States closer in time, in samples, are no neighbours.")
@click.option("--horizon", type=click.IntRange(min=1), help="How long neighbours are followed, in samples.")
@click.option("--metric", help="Distance between two states; l1 for twins and l2 for neighbours if not given.")
@click.option("--average", type=click.Choice(AVERAGES), help="Over copies or neighbours; that of the method's paper.")
@click.option("--window", callback=span(int), metavar="START:STOP", help="Only these steps of the training.")
@click.option("--region", callback=span(float), metavar="START:STOP", help="Fit here, in steps since the perturbation.")
@click.option("--procedure", type=click.Choice(PROCEDURES), help="A published procedure instead of ours.")
@click.option("--null", default="auto", show_default=True, help="What growth is tested against; none: no test.")
@click.option("--surrogates", type=click.IntRange(min=1), default=99, show_default=True, help="Drawn from the null.")
@click.option("--dt", type=click.FloatRange(0, min_open=True), help="Time between samples, in a unit of your own.")
@click.option("--per", type=click.Choice(UNITS), help="State the exponent per step, epoch or integrated learning rate.")
@click.option("--steps-per-epoch", type=click.FloatRange(0, min_open=True), help="If the run does not know.")
@click.option(
    "--windows", callback=lengths, metavar="W[,S]", help="Also window by window: W steps, S from one to the next."
)
@click.option("--level", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True,
              help="Confidence level of the interval.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the resampling.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the curves (.png, .svg or .pdf).")
@click.option("--strict", is_flag=True, help="Exit with status 3 if a verdict is inconclusive; not with --procedure.")
@options.as_json
@options.output
@options.quiet
@options.debug
def command(
    *,
    files: tuple[Path, ...],
    runs: tuple[str, ...],
    plot: Path | None,
    strict: bool,
    as_json: bool,
    output: Path | None,
    quiet: bool,
    **chosen: Any,
) -> None:
    """Measure how fast nearby trainings diverge, for each run of each FILE.

    Twins are perturbed copies that were trained beside their reference. Without any, the neighbours of one trajectory
    take their place, if it returns to where it has been. The answer is an exponent with an interval, a verdict and the
    reasons for it. A FILE may also be a table: .npy, or .csv and .txt with one state a line.
    """
    if strict and chosen["procedure"] is not None:
        raise click.UsageError(
            f"--strict asks for a verdict, and --procedure {chosen['procedure']} gives a number without one: drop one "
            "of the two"
        )
    check_plot(plot, files)
    if output is not None:
        options.check_target(output, files)
    choices = Choices(**chosen)
    with saying_that_it_compiles(quiet):
        answers, errors = gather(files, runs, choices, quiet=quiet)
    tell(errors)
    if as_json:
        found = [with_curve(answer) for answer in answers]
        text = options.document("lyapunov/1", results=found, errors=told(errors))
        options.emit(text, output, files)
    elif answers:
        options.emit(in_words(answers, several_files=len(files) > 1), output, files)
    if plot is not None and answers:
        draw(answers, plot)
    leave(answers, failed=bool(errors), strict=strict)


def leave(answers: list[Answer], *, failed: bool, strict: bool) -> None:
    """Leave with the exit status that the answers deserve.

    Parameters
    ----------
    answers : list of Answer
        What was found.
    failed : bool
        Whether something could not be analysed.
    strict : bool
        Whether an inconclusive verdict counts.
    """
    if failed:
        click.get_current_context().exit(1)
    if strict and any(answer.exponent.verdict == "inconclusive" for answer in answers):
        click.get_current_context().exit(3)


def gather(
    files: tuple[Path, ...], patterns: tuple[str, ...], choices: Choices, *, quiet: bool = False,
    published: str | None = None,
) -> tuple[list[Answer], Errors]:  # fmt: skip
    """Analyse the runs of several files; what fails does not keep the others from being analysed.

    Parameters
    ----------
    files : tuple of Path
        As the user gave them.
    patterns : tuple of str
        Names or globs of runs; empty for all.
    choices : Choices
        What the user chose.
    quiet : bool
        No progress.
    published : str or None
        Also fit by this published procedure.

    Returns
    -------
    answers : list of Answer
        One per run.
    errors : list of (str, Exception)
        File, and why it or one of its runs could not be analysed.
    """
    answers: list[Answer] = []
    errors: Errors = []
    for path in files:
        try:
            if is_table(path):
                answers.append(analyse_table(path, choices, patterns))
                continue
            with reading(path) as file:
                chosen = chosen_runs(file, patterns)
                with progress(len(chosen), path.name, quiet) as step:
                    for run in chosen:
                        try:
                            answers.append(replace(analyse(run, choices, published=published), file=str(path)))
                        except TrajtoolsError as problem:
                            if debugging():
                                raise
                            errors.append((str(path), problem))
                        step(1)
        except (TrajtoolsError, OSError) as problem:
            if debugging():
                raise
            errors.append((str(path), problem))
    return answers, errors


@contextmanager
def progress(length: int, label: str, quiet: bool) -> Iterator[Any]:
    """Show a bar on a terminal, nothing elsewhere.

    Parameters
    ----------
    length : int
        Number of steps.
    label : str
        What stands before the bar.
    quiet : bool
        Show nothing anywhere.

    Yields
    ------
    callable
        Called with the number of steps that were made.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update


@contextmanager
def saying_that_it_compiles(quiet: bool) -> Iterator[None]:
    """Say on stderr, once, if kernels have to be compiled: it takes seconds, the first time only.

    Parameters
    ----------
    quiet : bool
        Say nothing.
    """
    said: list[str] = []

    def say() -> None:
        if not said and not quiet:
            said.append("compiling")
            click.echo("Compiling kernels; this is kept for the next time ...", err=True)

    with told_of_compiling(say):
        yield


def with_curve(answer: Answer) -> dict[str, Any]:
    """Return an answer with its mean curve, as JSON can hold it.

    Parameters
    ----------
    answer : Answer
        Of one run.

    Returns
    -------
    dict
        The answer, ``curve`` added.
    """
    growth = answer.growth
    curve = {
        "time": growth.time,
        "log_distance": growth.log_distance,
        "unit": growth.time_unit,
        "metric": growth.metric,
    }
    plain: dict[str, Any] = to_plain({**answer.to_dict(), "curve": curve})
    return plain


def in_words(answers: list[Answer], *, several_files: bool = False) -> str:
    """Return the table and the reasons.

    Parameters
    ----------
    answers : list of Answer
        At least one.
    several_files : bool
        Whether the file of each run is worth a column.

    Returns
    -------
    str
        Several lines.
    """
    columns, rows = head(answers[0]), [row(answer) for answer in answers]
    published = answers[0].exponent.settings.get("procedure") in PROCEDURES
    if published:
        columns = [*columns, "s.d.", "kept"]
        for cells, answer in zip(rows, answers, strict=True):
            cells += [number(spread(answer.exponent)), f"{kept(answer.exponent):.0%}"]
    right = {1, 2, 4, 5, 6, 7}
    if several_files:
        columns = ["file", *columns]
        rows = [[answer.file, *cells] for cells, answer in zip(rows, answers, strict=True)]
        right = {i + 1 for i in right}
    text = [options.table(columns, rows, right=right)]
    for answer in answers:
        said = dict.fromkeys((*answer.exponent.reasons, *answer.exponent.warnings, *answer.growth.warnings))
        text.append("\n".join([f"{answer.run}: {answer.exponent.verdict}", *(f"  - {reason}" for reason in said)]))
        if answer.windows is not None:
            text.append(windows_in_words(answer.run, answer.windows))
    return "\n\n".join(text)


def windows_in_words(run: str, found: Windows) -> str:
    """Return the table of the windows of a run.

    Parameters
    ----------
    run : str
        Its name.
    found : Windows
        At least one window.

    Returns
    -------
    str
        Several lines.
    """
    columns = ["steps", f"exponent ({found.unit})", f"{found.level:.0%} interval", "verdict", "e-folds"]
    rows = [
        [f"{found.start[w]}-{found.stop[w]}", number(found.value[w]), interval(one), one.verdict, number(found.gain[w])]
        for w, one in enumerate(found.exponents)
    ]
    low, high = found.max_gain_between
    lines = [f"{run}, window by window", options.table(columns, rows, right={1, 2, 4})]
    lines.append(f"largest cumulative gain: {number(found.max_gain)} e-folds, from step {low} to {high}")
    return "\n".join([*lines, *(f"  - {words}" for words in found.warnings)])


def check_plot(plot: Path | None, files: tuple[Path, ...]) -> None:
    """Refuse a figure that cannot be written before anything is computed.

    Parameters
    ----------
    plot : Path or None
        Where the figure is wanted.
    files : tuple of Path
        What is being read.
    """
    if plot is None:
        return
    if plot.suffix.lower() not in FIGURES:
        raise click.BadParameter(f"{plot} must end in {', '.join(FIGURES)}", param_hint="--plot")
    if find_spec("matplotlib") is None:
        raise MissingDependencyError('--plot needs matplotlib, which is not installed: pip install "trajtools[plot]"')
    options.check_target(plot, files)


def draw(answers: list[Answer], plot: Path) -> None:
    """Draw one panel per answer.

    Parameters
    ----------
    answers : list of Answer
        At least one.
    plot : Path
        The figure; overwritten if it is there.
    """
    from trajtools import plots

    figure = plots.divergences(
        [(f"{a.run}: {a.exponent.verdict}", a.growth, a.exponent) for a in answers],
        windows=[(a.run, a.windows) for a in answers if a.windows is not None],
    )
    figure.savefig(plot)
    click.echo(f"Figure written to {plot}.", err=True)
