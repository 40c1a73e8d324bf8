"""`trajtools export`: a run in the formats of other programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from trajtools.cli import options
from trajtools.cli.asking import span
from trajtools.cli.lyapunov import progress
from trajtools.cli.reading import chosen_runs, reading
from trajtools.errors import SelectionError
from trajtools.exports import (
    WHAT,
    Part,
    columns_of,
    entries_of,
    rows_of,
    write_csv,
    write_folder,
    write_graphml,
    write_npz,
    writing,
)
from trajtools.store import File, Run

FORMATS = ("npz", "csv", "graphml")
# Options that make sense for one format only.
ONLY = {"what": "csv", "series": "csv", "metric": "csv", "max_columns": "csv", "max_edges": "graphml"}


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--run", metavar="NAME", help="The run; needed where the file holds several.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="As the output's ending says, if not given.")
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="File to write; for npz also a folder, a file for each state; csv can go to stdout.")  # fmt: skip
@click.option("--member", type=click.IntRange(min=0), help="This member of the run; weights of the first if not given.")
@click.option("--select", metavar="GLOB", multiple=True, help="Only parameters of this name: '*.weight'.")
@click.option("--window", callback=span(int), metavar="START:STOP", help="Only these steps of the training.")
@click.option("--every", type=click.IntRange(min=1), default=1, metavar="K", help="Only every K-th of these states.")
@click.option("--step", type=click.IntRange(min=0), metavar="S", help="Only the state of this step.")
@click.option("--state", type=int, metavar="K", help="Only this state, counted from 0; -1 is the last.")
@click.option(
    "--what", type=click.Choice(WHAT), multiple=True, help="Columns of csv; may be repeated. [default: metrics]"
)
@click.option(
    "--series", metavar="NAME", multiple=True, help="Only this metric in csv; may be repeated, * matches any."
)
@click.option("--metric", default="l1", show_default=True, help="Distance of --what distances.")
@click.option("--max-columns", type=click.IntRange(min=1), default=1000, show_default=True, help="Most columns of csv.")
@click.option("--max-edges", type=click.IntRange(min=1), default=100_000, show_default=True, help="Of graphml.")
@options.quiet
@options.debug
def command(*, file: Path, run: str | None, form: str | None, output: Path | None, quiet: bool, **chosen: Any) -> None:
    """Write a run of FILE for other programs.

    npz: every parameter by its name, one array over all states, with `step` and `metrics/<name>`; into a folder, one
    file for each state, which `trajtools convert` reads again. csv: a row for each state; metrics, distances of twins
    to their reference, or weights. graphml: one state as a network. Numbers keep every bit (csv: every digit);
    bfloat16, which NumPy does not have, becomes float32.
    """
    form = checked_form(form, output)
    if output is not None:
        options.check_target(output, (file,))
    with reading(file) as opened:
        part = part_of(
            single_run(opened, run), chosen, silent=quiet or (form == "csv" and "weights" not in chosen["what"])
        )
        if form == "csv":
            write_table(part, output, chosen, quiet)
        elif form == "graphml":
            assert output is not None
            with writing(output) as draft:
                write_graphml(draft, part, largest=chosen["max_edges"])
        else:
            assert output is not None
            write_arrays(part, output, quiet)
    if output is not None and not quiet:
        click.echo(f"Written to {output}.", err=True)


def checked_form(form: str | None, output: Path | None) -> str:
    """Find the format, and refuse options that it does not know.

    Parameters
    ----------
    form : str or None
        As the user chose.
    output : Path or None
        Where to.

    Returns
    -------
    str
        One of `FORMATS`.
    """
    ending = output.suffix.lower().removeprefix(".") if output is not None else ""
    if form is None:
        form = ending if ending in FORMATS else "npz" if output is not None and output.is_dir() else None
    if form is None:
        raise click.UsageError(f"the format is not clear: give --format {'|'.join(FORMATS)}, or an output that ends so")
    if ending in FORMATS and ending != form:
        raise click.UsageError(f"{output} ends as {ending} does, and --format is {form}: give one of them")
    if output is None and form != "csv":
        raise click.UsageError(f"{form} is not for the terminal: name an --output")
    context = click.get_current_context()
    for name, needed in ONLY.items():
        if form != needed and context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} is for --format {needed}, not for {form}")
    given = [f"--{name}" for name in ("state", "step", "window") if context.params[name] is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} choose different states: give one of them")
    return form


def single_run(file: File, name: str | None) -> Run:
    """Return the run that is to be written.

    Parameters
    ----------
    file : File
        Open.
    name : str or None
        Name or glob.

    Returns
    -------
    Run
        The only one that fits.

    Raises
    ------
    SelectionError
        If there are several; the message lists them.
    """
    found = chosen_runs(file, () if name is None else (name,))
    if name is not None:
        found = [run for run in found if run.name == name] or found
    if len(found) > 1:
        names = ", ".join(run.name for run in found[:20])
        raise SelectionError(f"{file.path} holds {len(found)} such runs, one is written: choose with --run ({names})")
    return found[0]


def part_of(run: Run, chosen: dict[str, Any], *, silent: bool) -> Part:
    """Return the states that are to be written, and say whose weights they are if nobody chose.

    Parameters
    ----------
    run : Run
        Of an open file.
    chosen : dict
        The options.
    silent : bool
        Say nothing.

    Returns
    -------
    Part
    """
    state, step = chosen["state"], chosen["step"]
    rows = rows_of(run, window=chosen["window"], every=chosen["every"], state=state, step=step)
    if chosen["member"] is None and run.n_members > 1 and run.stored == "weights" and not silent:
        name = run.members[0].name
        words = f"Weights are those of member 0, {name!r}, of {run.n_members}; --member chooses another."
        click.echo(options.printable(words), err=True)
    return Part(run, rows, state is not None or step is not None, chosen["member"], tuple(chosen["select"]))


def write_arrays(part: Part, output: Path, quiet: bool) -> None:
    """Write NumPy's format.

    Parameters
    ----------
    part : Part
        Which states.
    output : Path
        A file that ends in .npz, or a folder.
    quiet : bool
        Show no progress.
    """
    single_file = output.suffix.lower() == ".npz"
    entries = entries_of(part) if single_file else []
    with writing(output) as draft, progress(len(entries) or len(part.step), "Exporting", quiet) as tick:
        if single_file:
            write_npz(draft, entries, tick)
        else:
            write_folder(draft, part, tick)


def write_table(part: Part, output: Path | None, chosen: dict[str, Any], quiet: bool) -> None:
    """Write csv.

    Parameters
    ----------
    part : Part
        Which states.
    output : Path or None
        A file; None is stdout.
    chosen : dict
        The options.
    quiet : bool
        Show no progress.
    """
    what: Sequence[str] = chosen["what"]
    columns = columns_of(part, what, series=chosen["series"], metric=chosen["metric"], largest=chosen["max_columns"])
    if output is None:
        shown = [replace(one, names=[options.printable(name) for name in one.names]) for one in columns]
        write_csv(sys.stdout, part, shown)
        return
    bar: AbstractContextManager[Any] = progress(len(part.step), "Exporting", quiet)
    with writing(output) as draft, draft.open("w", newline="", encoding="utf-8") as stream, bar as tick:
        write_csv(stream, part, columns, tick)
