"""Commands on whole files: info, validate, repair, export."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trajtools.cli import options, printable
from trajtools.cli.runner import (
    FILES_HELP,
    Errors,
    check_target,
    collecting,
    document,
    emit,
    expand,
    finish,
    opened,
    plain_errors,
    progress,
    report,
    select_runs,
    table,
)
from trajtools.cli.tables import check_is_file
from trajtools.errors import SelectionError

if TYPE_CHECKING:
    from trajtools.cli.runner import Block
    from trajtools.exports import Part
    from trajtools.store import File, Problem, Run

FORMATS = ("npz", "csv", "graphml")
COLUMNS = ("metrics", "distances", "weights")
# Options that make sense for one format only.
ONLY_FOR = {"what": "csv", "series": "csv", "metric": "csv", "max_columns": "csv", "max_edges": "graphml"}


def _each_file(files: Sequence[Path], output: Path | None, action: Callable[[Path], Any]) -> tuple[list[Any], Errors]:
    """Do something with each file; one that fails does not keep the others from being treated."""
    errors: Errors = []
    paths = expand(files, errors)
    if output is not None:
        check_target(output, paths)
    results = []
    for path in paths:
        with collecting(errors, path):
            check_is_file(path)
            results.append(action(path))
    report(errors)
    return results, errors


# info


@click.command("info", epilog=FILES_HELP)
@options.files
@options.runs
@options.as_json
@options.output
@options.debug
def info(*, files: tuple[Path, ...], runs: tuple[str, ...], as_json: bool, output: Path | None) -> None:
    """Describe each FILE: its runs, states, members, parameters, metrics, and whether they are complete."""

    def action(path: Path) -> dict[str, Any]:
        with opened(path) as file:
            return describe(file, runs)

    descriptions, errors = _each_file(files, output, action)
    if as_json:
        emit(document("info/1", files=descriptions, errors=plain_errors(errors)), output)
    elif descriptions:
        emit([block for one in descriptions for block in describe_text(one)], output)
    finish(errors)


def describe(file: File, patterns: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what a file holds, of the runs of these names or globs, as JSON can hold it."""
    path = Path(file.path)
    return {
        "file": str(path),
        "format_version": file.format_version,
        "bytes": path.stat().st_size,
        "runs": [describe_run(run) for run in (select_runs(file, patterns) if len(file) or patterns else [])],
    }


def describe_run(run: Run) -> dict[str, Any]:
    """Return what a run holds, as JSON can hold it."""
    from trajtools.results import to_plain

    step = run.step
    references = sum(member.reference < 0 for member in run.members)
    plain: dict[str, Any] = to_plain(
        {
            "run": run.name,
            "status": run.status,
            "states": run.n_states,
            "members": run.n_members,
            "references": references,
            "twins": run.n_members - references,
            "parameters": run.n_parameters,
            "stored": run.stored,
            "dtype": str(run.dtype),
            "first_step": step[0] if len(step) else None,
            "last_step": step[-1] if len(step) else None,
            "time_unit": run.time_unit,
            "metrics": {name: list(run.metrics[name].shape) for name in run.metrics},
            "layers": [{"name": p.name, "kind": p.kind, "shape": p.shape, "dtype": p.dtype} for p in run.parameters],
            "reference": run.reference,
            "hparams": run.hparams,
            "provenance": run.provenance,
            "overhead": run.overhead,
        }
    )
    return plain


def describe_text(description: dict[str, Any]) -> list[Block]:
    """Return what `describe` returned as text."""
    from rich.filesize import decimal

    count = len(description["runs"])
    version, size = description["format_version"], decimal(description["bytes"])
    head = f"{description['file']}: format {version}, {size}, {count} run{'s' * (count != 1)}"
    return [head, *(_run_text(run) for run in description["runs"])]


def _run_text(run: dict[str, Any]) -> Block:
    states = f"{run['states']}"
    if run["states"]:
        states += f" (steps {run['first_step']} to {run['last_step']})"
    members = f"{run['members']}"
    if run["twins"]:
        members += f" ({run['references']} references, {run['twins']} perturbed copies)"
    layers = ", ".join(f"{p['name']} {'x'.join(map(str, p['shape'])) or 'scalar'}" for p in run["layers"][:8])
    if len(run["layers"]) > 8:
        layers += f", and {len(run['layers']) - 8} more"
    rows = {
        "status": run["status"],
        "states": states,
        "members": members,
        "parameters": f"{run['parameters']} ({layers})",
        "stored": f"{run['stored']}, {run['dtype']}",
        "metrics": ", ".join(run["metrics"]) or "none",
        "hparams": ", ".join(f"{name}={value}" for name, value in run["hparams"].items()) or "none",
    }
    if run["reference"]:
        rows["reference"] = run["reference"]
    return [f"run {run['run']}", table(None, [[f"  {name}", value] for name, value in rows.items()])]


# validate, repair


@click.command("validate", epilog=FILES_HELP)
@options.files
@options.as_json
@options.output
@options.debug
def validate(*, files: tuple[Path, ...], as_json: bool, output: Path | None) -> None:
    """Check each FILE against the format (trajtools/FORMAT.md); exit with status 1 if one breaks a MUST."""
    import trajtools as tt

    checks, errors = _each_file(files, output, lambda path: (path, tt.validate(path)))
    broken = [path for path, problems in checks if any(p.severity == "error" for p in problems)]
    if as_json:
        from dataclasses import asdict

        entries = [
            {"file": str(path), "valid": path not in broken, "problems": [asdict(problem) for problem in problems]}
            for path, problems in checks
        ]
        emit(document("validate/1", files=entries, errors=plain_errors(errors)), output)
    elif checks:
        emit("\n".join(_validity(path, problems, path in broken) for path, problems in checks), output)
    for path in broken:
        click.echo(f"Error: {printable(str(path))} breaks the format.", err=True)
    if broken or errors:
        click.get_current_context().exit(1)


def _validity(path: Path, problems: list[Problem], broken: bool) -> str:
    return "\n".join([f"{path}: {'not valid' if broken else 'valid'}", *(f"  {problem}" for problem in problems)])


@click.command("repair", epilog=FILES_HELP)
@options.files
@options.as_json
@options.output
@options.debug
def repair(*, files: tuple[Path, ...], as_json: bool, output: Path | None) -> None:
    """Repair each FILE left by a crashed writer: no committed state is lost, and the file can be written again."""
    import trajtools as tt

    repairs, errors = _each_file(files, output, tt.repair)
    if as_json:
        from dataclasses import asdict

        from trajtools.results import to_plain

        entries = [{**to_plain(asdict(one)), "changed": one.changed} for one in repairs]
        emit(document("repair/1", files=entries, errors=plain_errors(errors)), output)
    elif repairs:
        emit("\n".join(map(str, repairs)), output)
    finish(errors)


# export


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--run", metavar="NAME", help="The run; required if the file holds several.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Format.  [default: from the output's ending]")
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="File; for npz also a folder, with one file for each state. csv can go to stdout.")  # fmt: skip
@click.option("--member", type=click.IntRange(min=0), help="Member of the run.  [default for weights: the first]")
@options.select
@options.window
@click.option("--every", type=click.IntRange(min=1), default=1, metavar="K", help="Only every K-th of these states.")
@click.option("--step", type=click.IntRange(min=0), metavar="S", help="Only the state of this step.")
@click.option("--state", type=int, metavar="K", help="Only this state, counted from 0; -1 is the last.")
@click.option("--what", type=click.Choice(COLUMNS), multiple=True,
              help="Columns of csv; repeatable.  [default: metrics]")  # fmt: skip
@click.option("--series", metavar="NAME", multiple=True, help="Only this metric in csv; repeatable; * is a wildcard.")
@options.metric("l1", "Distance of --what distances.")
@click.option("--max-columns", type=click.IntRange(min=1), default=1000, show_default=True, help="Limit of csv.")
@click.option("--max-edges", type=click.IntRange(min=1), default=100_000, show_default=True, help="Limit of graphml.")
@options.quiet
@options.debug
def export(*, file: Path, run: str | None, form: str | None, output: Path | None, quiet: bool, **chosen: Any) -> None:
    """Export a run of FILE for other programs.

    npz: every parameter under its name, one array over all states, with `step` and `metrics/<name>`; into a folder, one
    file for each state, which `trajtools convert` can read. csv: one row for each state, with metrics, distances of
    twins to their reference, or weights. graphml: one state as a network. Numbers keep every bit (csv: every digit);
    bfloat16, which NumPy does not have, becomes float32.
    """
    form = _checked_format(form, output)
    if output is not None:
        check_target(output, (file,))
    with opened(file) as recorded:
        silent = quiet or (form == "csv" and "weights" not in chosen["what"])
        part = _part(_single_run(recorded, run), chosen, silent=silent)
        if form == "csv":
            _write_table(part, output, chosen, quiet)
        else:
            assert output is not None
            _write_file(part, form, output, chosen["max_edges"], quiet)
    if output is not None and not quiet:
        click.echo(f"Written to {printable(str(output))}.", err=True)


def _checked_format(form: str | None, output: Path | None) -> str:
    """Choose the format, and refuse options that it does not have."""
    ending = output.suffix.lower().removeprefix(".") if output is not None else ""
    if form is None:
        form = ending if ending in FORMATS else "npz" if output is not None and output.is_dir() else None
    if form is None:
        raise click.UsageError(
            f"the format is unknown: give --format {'|'.join(FORMATS)}, or an output with a known extension"
        )
    if ending in FORMATS and ending != form:
        raise click.UsageError(f"{output} has the extension of {ending}, but --format is {form}: drop one of the two")
    if output is None and form != "csv":
        raise click.UsageError(f"{form} cannot go to the terminal: give an --output")
    context = click.get_current_context()
    for name, needed in ONLY_FOR.items():
        if form != needed and context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} is for --format {needed}, not for {form}")
    conflicting = [f"--{name}" for name in ("state", "step", "window") if context.params[name] is not None]
    if len(conflicting) > 1:
        raise click.UsageError(f"{' and '.join(conflicting)} select different states: give one of them")
    return form


def _single_run(file: File, name: str | None) -> Run:
    """Return the only run of this name, or that matches it; several are refused."""
    runs = select_runs(file, () if name is None else (name,))
    if name is not None:
        runs = [run for run in runs if run.name == name] or runs
    if len(runs) > 1:
        names = ", ".join(run.name for run in runs[:20])
        raise SelectionError(f"{file.path} holds {len(runs)} such runs; choose one with --run ({names})")
    return runs[0]


def _part(run: Run, chosen: dict[str, Any], *, silent: bool) -> Part:
    """Return the states to be exported, and name the member if none was chosen."""
    from trajtools.exports import Part, select_rows

    state, step = chosen["state"], chosen["step"]
    rows = select_rows(run, window=chosen["window"], every=chosen["every"], state=state, step=step)
    if chosen["member"] is None and run.n_members > 1 and run.stored == "weights" and not silent:
        message = f"Exporting member 0, {run.members[0].name!r}, of {run.n_members}; --member selects another one."
        click.echo(printable(message), err=True)
    return Part(run, rows, state is not None or step is not None, chosen["member"], tuple(chosen["select"]))


def _write_file(part: Part, form: str, output: Path, max_edges: int, quiet: bool) -> None:
    """Write graphml, or npz to a file that ends in .npz, or to a folder."""
    from trajtools.exports import archive_entries, write_folder, write_graphml, write_npz, writing

    if form == "graphml":
        with writing(output) as draft:
            write_graphml(draft, part, largest=max_edges)
        return
    single_file = output.suffix.lower() == ".npz"
    entries = archive_entries(part) if single_file else []
    with writing(output) as draft, progress(len(entries) or len(part.step), "Exporting", quiet) as advance:
        if single_file:
            write_npz(draft, entries, advance)
        else:
            write_folder(draft, part, advance)


def _write_table(part: Part, output: Path | None, chosen: dict[str, Any], quiet: bool) -> None:
    """Write csv, to stdout if there is no output."""
    from dataclasses import replace

    from trajtools.exports import select_columns, write_csv, writing

    columns = select_columns(
        part, chosen["what"], series=chosen["series"], metric=chosen["metric"], largest=chosen["max_columns"]
    )
    if output is None:
        columns = [replace(one, names=[printable(name) for name in one.names]) for one in columns]
        write_csv(sys.stdout, part, columns)
        return
    with (
        writing(output) as draft,
        draft.open("w", newline="", encoding="utf-8") as stream,
        progress(len(part.step), "Exporting", quiet) as advance,
    ):
        write_csv(stream, part, columns, advance)
