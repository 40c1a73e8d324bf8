"""`trajtools report`: all analyses that apply to the runs of some files, as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trajtools import __version__
from trajtools.cli import options, printable
from trajtools.cli.runner import (
    FILES_HELP,
    check_target,
    compile_notice,
    expand,
    finish,
    matches,
    no_such_run,
    opened,
    progress,
    report as report_errors,
    without_unsafe,
)
from trajtools.errors import DataError

if TYPE_CHECKING:
    from trajtools.cli.runner import Errors
    from trajtools.report.collect import RunReport
    from trajtools.sweeps.sweep import Sweep

LEARNING_RATES = ("lr", "learning_rate", "eta")


@click.command("report", epilog=FILES_HELP)
@options.files
@options.runs
@click.option("--x", help="Hyper-parameter to compare the runs along.  [default: the learning rate]")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"),
              show_default=True, help="The page; overwritten if it exists.")  # fmt: skip
@options.seed
@options.quiet
@options.debug
def report(
    *, files: tuple[Path, ...], runs: tuple[str, ...], x: str | None, output: Path, quiet: bool, seed: int
) -> None:
    """Write one page about the runs of all FILEs: what was recorded, verdicts with reasons, curves, recurrences.

    The page is one file that loads nothing from the network.
    """
    from trajtools.report.collect import collect, name_apart
    from trajtools.report.render import runs_page

    errors: Errors = []
    paths = without_unsafe(expand(files, errors), errors)
    report_errors(errors)
    finish(errors)
    check_target(output, paths)
    sections: list[tuple[Path, RunReport]] = []
    rates = set()
    selected: list[Path] = []
    with compile_notice(quiet):
        with progress(len(paths), "Analysing runs", quiet) as advance:
            for path in paths:
                with opened(path) as run:
                    if matches(run.name, runs):
                        selected.append(path)
                        if run.n_states:
                            sections.append((path, collect(run, rng=seed)))
                        rates |= {run.hparams[name] for name in (x, *LEARNING_RATES) if name in run.hparams}
                advance(1)
        if not selected:
            raise no_such_run(paths, runs)
        if not sections:
            raise DataError(f"{', '.join(map(str, files))}: no run holds any states, so there is nothing to report")
        comparison = _compare(selected, sections, x, seed) if len(rates) > 1 else None
    named = name_apart(sections)
    title = f"Training dynamics of {named[0].run}" if len(named) == 1 else f"Training dynamics of {len(named)} runs"
    about = {"files": ", ".join(path.name for path in paths), "trajtools": __version__, "seed": str(seed)}
    output.write_text(runs_page(title, named, comparison, about), encoding="utf-8")
    click.echo(f"Written to {printable(str(output))}.", err=True)


def _compare(paths: list[Path], sections: list[tuple[Path, RunReport]], x: str | None, seed: int) -> Sweep | None:
    """Return the runs as a sweep; None if they have no such hyper-parameter and it was not asked for."""
    import trajtools as tt

    analyses = (section.analysis for _, section in sections)
    known = {analysis.file: analysis.exponent for analysis in analyses if analysis is not None}
    try:
        return tt.sweep(list(map(str, paths)), x or "lr", exponent=known, rng=seed)
    except DataError:
        if x is not None:
            raise
        return None
