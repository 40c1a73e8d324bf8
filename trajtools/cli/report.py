"""`trajtools report`: all analyses that apply to the runs of some files, as one HTML page."""

from __future__ import annotations

import os
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trajtools import __version__
from trajtools.cli import options, printable
from trajtools.cli.runner import (
    FILES_HELP,
    check_target,
    compile_notice,
    executor,
    finish,
    matches,
    no_such_run,
    opened,
    progress,
    report as report_errors,
    unique,
)
from trajtools.cli.sweep import measure, own_cache, readable
from trajtools.errors import DataError, FormatError, TrajtoolsError

if TYPE_CHECKING:
    from trajtools.cli.runner import Errors
    from trajtools.report.collect import RunReport, Task
    from trajtools.sweeps.sweep import Sweep

DETAILS = 50


@click.command("report", epilog=FILES_HELP)
@options.files
@options.runs
@click.option("--x", help="Hyper-parameter to compare the runs along.  [default: the learning rate]")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"),
              show_default=True, help="The page; overwritten if it exists.")  # fmt: skip
@click.option("--details", type=click.IntRange(min=1), default=DETAILS, show_default=True, metavar="N",
              help="Of more runs, show the details of N, evenly spaced; the others are in the tables.")  # fmt: skip
@options.workers
@options.scheduler
@options.seed
@options.quiet
@options.debug
def report(
    *,
    files: tuple[Path, ...],
    runs: tuple[str, ...],
    x: str | None,
    output: Path,
    details: int,
    workers: int,
    scheduler: str | None,
    quiet: bool,
    seed: int,
) -> None:
    """Write one page about the runs of all FILEs: what was recorded, verdicts with reasons, curves, recurrences.

    The page is one file that loads nothing from the network.
    """
    from trajtools.report.collect import name_apart
    from trajtools.report.render import runs_page

    errors: Errors = []
    paths = readable(files, errors)
    check_target(output, paths)
    selected = _named(paths, runs) if runs else paths
    if not selected:
        raise no_such_run(paths, runs)
    failures: Errors = []
    with compile_notice(quiet), executor(workers, scheduler) as pool:
        comparison = _compare(selected, x, seed, pool, quiet)
        tasks = _tasks(selected, comparison, details, seed)
        sections, empty = _collect(selected, tasks, pool, quiet, failures)
    report_errors(failures)
    errors += failures
    if not sections:
        finish(failures)
        raise DataError(f"{', '.join(map(str, files))}: no run holds any states, so there is nothing to report")
    if comparison is not None and len({point.x for point in comparison.points}) < 2:
        if x is not None:
            click.echo(f"--x {printable(x)}: nothing to compare, since {_one_value(comparison)}.", err=True)
        comparison = None
    named = name_apart(sections)
    title = f"Training dynamics of {named[0].run}" if len(named) == 1 else f"Training dynamics of {len(named)} runs"
    about = {"files": ", ".join(path.name for path in paths), "trajtools": __version__, "seed": str(seed)}
    unread = [
        (Path(file).name, text.removeprefix(f"{file} ").removeprefix(f"{os.path.abspath(file)} "))
        for file, text in unique(errors)
    ]
    unread += [(path.name, "holds no states") for path in empty]
    output.write_text(runs_page(title, named, comparison, about, unread), encoding="utf-8")
    click.echo(f"Written to {printable(str(output))}.", err=True)
    finish(errors)


def _named(paths: list[Path], patterns: tuple[str, ...]) -> list[Path]:
    """The files whose runs have such a name."""
    chosen = []
    for path in paths:
        with opened(path) as run:
            chosen += [path] if matches(run.name, patterns) else []
    return chosen


def _compare(paths: list[Path], x: str | None, seed: int, pool: Executor | None, quiet: bool) -> Sweep | None:
    """Return the runs as a sweep; None if they have no such hyper-parameter and it was not asked for."""
    if len(paths) < 2 and x is None:
        return None
    try:
        return measure(paths, x or "lr", pool, own_cache(paths, quiet), quiet, rng=seed)
    except (DataError, FormatError):
        if x is not None:
            raise
        return None


def _one_value(comparison: Sweep) -> str:
    """Why the runs do not differ in the hyper-parameter."""
    if len(comparison.points) == 1:
        return "only one run has it"
    return f"all runs have the value {comparison.points[0].x:g}"


def _tasks(paths: list[Path], comparison: Sweep | None, details: int, seed: int) -> list[Task]:
    """What is wanted of each run: details of some, and the exponent of the others; and what the sweep has of it."""
    count = len(paths)
    shown = {(2 * k + 1) * count // (2 * details) for k in range(details)} if count > details else set(range(count))
    known = {} if comparison is None else {point.path: point for point in comparison.points}
    return [(str(path), seed, at in shown, known.get(os.path.abspath(path))) for at, path in enumerate(paths)]


def _collect(
    paths: list[Path], tasks: list[Task], pool: Executor | None, quiet: bool, errors: Errors
) -> tuple[list[tuple[Path, RunReport]], list[Path]]:
    """Collect what the page shows of each run, with progress; and the files that hold no states."""
    from trajtools.report.collect import is_known, outline

    left = [task for task in tasks if not is_known(task)]
    results = map(collected, left) if pool is None else pool.map(collected, left)
    sections: list[tuple[Path, RunReport]] = []
    empty: list[Path] = []
    with progress(len(left), "Analysing runs", quiet) as advance:
        for path, task in zip(paths, tasks, strict=True):
            report = outline(task) if is_known(task) else next(results)
            if isinstance(report, Exception):
                errors.append((str(path), report))
            elif report is None:
                empty.append(path)
            else:
                sections.append((path, report))
            advance(not is_known(task))
    return sections, empty


def collected(task: Task) -> RunReport | Exception | None:
    """What the page shows of a run, or why nothing can be shown."""
    from trajtools.report.collect import collect_file

    try:
        return collect_file(task)
    except (TrajtoolsError, OSError) as error:
        return error
