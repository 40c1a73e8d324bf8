"""`trajtools report`: everything that applies to the runs of some files, as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from trajtools import __version__
from trajtools.cli import each_run, options
from trajtools.cli.lyapunov import progress, saying_that_it_compiles
from trajtools.cli.reading import check_is_file, chosen_runs, reading
from trajtools.errors import DataError
from trajtools.report.file_page import file_page
from trajtools.report.gathering import Gathered, gather, told_apart
from trajtools.sweeps.sweep import Sweep, sweep

RATES = ("lr", "learning_rate", "eta")


@click.command("report")
@options.files
@options.runs
@click.option("--x", help="Hyper-parameter that the runs are compared along; the learning rate if not given.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"),
              show_default=True, help="The page; overwritten if it is there.")  # fmt: skip
@each_run.seed
@options.quiet
@options.debug
def command(
    *, files: tuple[Path, ...], runs: tuple[str, ...], x: str | None, output: Path, quiet: bool, seed: int
) -> None:
    """Write one page about the runs of all FILEs: what was recorded, verdicts with reasons, curves, recurrences.

    The page is one file that loads nothing from the network.
    """
    options.check_target(output, files)
    gathered: list[tuple[Path, Gathered]] = []
    rates = set()
    with saying_that_it_compiles(quiet):
        for path in files:
            check_is_file(path)
            with reading(path) as file:
                chosen = chosen_runs(file, runs)
                with progress(len(chosen), path.name, quiet) as step:
                    for run in chosen:
                        if run.n_states:
                            gathered.append((path, gather(run, rng=seed)))
                        rates |= {run.hparams[name] for name in (x, *RATES) if name in run.hparams}
                        step(1)
        if not gathered:
            raise DataError(f"{', '.join(map(str, files))}: no run holds a state, there is nothing to report")
        swept = compared(files, runs, x, seed) if len(rates) > 1 else None
    found = told_apart(gathered)
    title = f"Training dynamics of {found[0].run}" if len(found) == 1 else f"Training dynamics of {len(found)} runs"
    made = {"files": ", ".join(path.name for path in files), "trajtools": __version__, "seed": str(seed)}
    output.write_text(file_page(title, found, swept, made), encoding="utf-8")
    click.echo(f"Written to {output}.", err=True)


def compared(files: tuple[Path, ...], runs: tuple[str, ...], x: str | None, seed: int) -> Sweep | None:
    """Put the runs into a sweep.

    Parameters
    ----------
    files : tuple of Path
        As the user gave them.
    runs : tuple of str
        Names or globs; empty for all.
    x : str or None
        The hyper-parameter.
    seed : int
        Of the resampling.

    Returns
    -------
    Sweep or None
        None where the runs have no such number and it was not asked for.
    """
    from fnmatch import fnmatchcase

    def wanted(run: object) -> bool:
        name = getattr(run, "name", "")
        return not runs or any(name == p or fnmatchcase(name, p) for p in runs)

    try:
        return sweep([str(path) for path in files], x or "lr", runs=wanted, rng=seed)
    except DataError:
        if x is not None:
            raise
        return None
