"""Commands on whole files: info, validate, repair, export."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trajtools.cli import options, printable
from trajtools.cli.printing import document, emit, table
from trajtools.cli.runner import (
    FILES_HELP,
    Errors,
    check_target,
    collecting,
    expand,
    finish,
    matches,
    no_such_run,
    opened,
    plain_errors,
    probed,
    progress,
    report,
    without_unsafe,
)
from trajtools.cli.tables import check_is_file
from trajtools.errors import DataError
from trajtools.wording import counted

if TYPE_CHECKING:
    from trajtools.cli.printing import Block, Grid
    from trajtools.exports import Part
    from trajtools.store import Problem, Run

# Choices of `trajtools.exports`, written out so that --help loads nothing; a test compares them.
TABLES = ("csv", "parquet")
FORMATS = ("npz", "safetensors", "pt", "csv", "parquet", "nc", "zarr", "graphml", "gexf")
COLUMNS = ("metrics", "distances", "weights")
# Options that make sense for some formats only.
ONLY_FOR = dict.fromkeys(("what", "series", "metric", "max_columns"), TABLES)
ONLY_FOR["max_edges"] = ("graphml", "gexf")


def _each_file(
    files: Sequence[Path],
    output: Path | None,
    action: Callable[[Path], Any],
    *,
    task: Callable[[str], Any] | None = None,
) -> tuple[list[Any], Errors]:
    """Do something with each file; one that fails does not keep the others from being treated.

    `task`: the same in a child process, for files that this user has not opened before; what it leaves is done here.
    """
    errors: Errors = []
    paths = expand(files, errors)
    if output is not None:
        check_target(output, paths)
    results = []
    for path, answer in [(path, None) for path in paths] if task is None else probed(paths, errors, task):
        with collecting(errors, path):
            check_is_file(path)
            results.append(action(path) if answer is None else answer)
    report(errors)
    return results, errors


# info


@click.command("info", epilog=FILES_HELP)
@options.files
@options.runs
@options.as_json
@options.output
@options.silent
@options.debug
def info(*, files: tuple[Path, ...], runs: tuple[str, ...], as_json: bool, output: Path | None) -> None:
    """Describe each FILE: its run, states, members, parameters, metrics, and whether it is complete."""
    results, errors = _each_file(files, output, _describe_known, task=describe_file)
    descriptions = [one for one in results if matches(one["run"], runs)]
    if runs and not descriptions and not errors:
        raise no_such_run(expand(files, []), runs)
    if as_json:
        emit(document("info/1", files=descriptions, errors=plain_errors(errors)), output)
    elif descriptions:
        emit([block for one in descriptions for block in describe_text(one)], output)
    finish(errors)


def _describe_known(path: Path) -> dict[str, Any]:
    with opened(path) as run:
        return describe(run)


def describe_file(path: str) -> dict[str, Any] | None:
    """Describe a file in a child process, and touch what others will read; None of a shard, which is not the run."""
    from trajtools.store import Run

    with Run(path) as run:
        run.locate_all()
        return None if run.shard else describe(run)


def describe(run: Run) -> dict[str, Any]:
    """Return what a file holds, as JSON can hold it."""
    return {
        "file": str(run.path),
        "format_version": run.format_version,
        "bytes": sum(path.stat().st_size for path in run.paths),
        **({"shards": len(run.paths)} if len(run.paths) > 1 else {}),
        **describe_run(run),
    }


def describe_run(run: Run) -> dict[str, Any]:
    """Return what a run holds, as JSON can hold it."""
    from trajtools.results import to_plain

    first, last = _step_of(run, 0), _step_of(run, run.n_states - 1)
    references = sum(member.reference < 0 for member in run.members)
    plain: dict[str, Any] = to_plain(
        {
            "run": run.name,
            "uuid": run.uuid,
            "status": run.status,
            "ended": run.ended,
            "remarks": list(run.remarks),
            "states": run.n_states,
            "members": run.n_members,
            "references": references,
            "twins": run.n_members - references,
            **_plantings_of(run),
            "not_finite": _not_finite(run),
            "parameters": run.n_parameters,
            "stored": run.stored,
            "dtype": str(run.dtype),
            "is_cut": run.is_cut,
            "first_step": first,
            "last_step": last,
            "time_unit": run.time_unit,
            "metrics": {name: list(shape) for name, shape in run.metric_shapes.items()},
            "layers": [{"name": p.name, "kind": p.kind, "shape": p.shape, "dtype": p.dtype} for p in run.parameters],
            "reference": run.reference,
            "hparams": run.hparams,
            "provenance": run.provenance,
            "overhead": run.overhead,
        }
    )
    return plain


def _plantings_of(run: Run) -> dict[str, int | None]:
    """Return how often a copy was planted beside its reference, and at how many starts; None where it is damaged."""
    from trajtools.errors import DamagedError

    try:
        planted = run.plantings
    except DamagedError:
        return {"plantings": None, "starts": None}
    members = range(run.n_members)
    starts = {
        (run.members[member].reference, step)
        for member, step in zip(planted["member"].tolist(), planted["step"].tolist(), strict=True)
        if member in members
    }
    return {"plantings": len(planted["step"]), "starts": len(starts)}


def _not_finite(run: Run) -> dict[str, int] | None:
    """Return where the states become NaN or infinite for good; None where they do not, or are damaged."""
    from trajtools.errors import DamagedError

    try:
        return run.not_finite()
    except DamagedError:
        return None


def _step_of(run: Run, state: int) -> int | None:
    """Return the step of a state; None where there is none, or where it is damaged."""
    from trajtools.errors import DamagedError

    try:
        return int(run.series("step", state, state + 1)[0]) if 0 <= state < run.n_states else None
    except DamagedError:
        return None


def describe_text(description: dict[str, Any]) -> list[Block]:
    """Return what `describe` returned as text."""
    from rich.filesize import decimal

    size = decimal(description["bytes"])
    head = f"{description['file']}: format {description['format_version']}, {size}"
    return [[head, _run_table(description)]]


CUT = ", cut short; `trajtools validate` names what is gone, `trajtools repair --salvage NEW.h5 FILE` saves the rest"


def _run_table(run: dict[str, Any]) -> Grid:
    states = f"{run['states']}"
    if run["states"]:
        first, last = ("?" if step is None else step for step in (run["first_step"], run["last_step"]))
        states += f" (steps {first} to {last})"
    members = f"{run['members']}"
    end = run["not_finite"]
    if end:
        which = f", in {end['members']} of {counted(end['checked'], 'member')}" if run["members"] > 1 else ""
        states += f"; NaN or infinite from step {end['step']} on ({counted(end['states'], 'state')}{which})"
    if run["twins"]:
        planted = (
            f", planted {counted(run['plantings'], 'time')}, at {counted(run['starts'], 'start')}"
            if run["plantings"]
            else ""
        )
        copies = counted(run["twins"], "perturbed copy", "perturbed copies")
        members += f" ({counted(run['references'], 'reference')}, {copies}{planted})"
    layers = ", ".join(f"{p['name']} {'x'.join(map(str, p['shape'])) or 'scalar'}" for p in run["layers"][:8])
    if len(run["layers"]) > 8:
        layers += f", and {len(run['layers']) - 8} more"
    rows = {
        "run": run["run"],
        "status": _status_text(run) + (CUT if run["is_cut"] else ""),
        "states": states,
        "members": members,
        "parameters": f"{run['parameters']} ({layers})",
        "stored": f"{run['stored']}, {run['dtype']}",
        "metrics": ", ".join(run["metrics"]) or "none",
        "hparams": ", ".join(f"{name}={value}" for name, value in run["hparams"].items()) or "none",
    }
    optimizer = run["provenance"].get("optimizer")
    if isinstance(optimizer, dict):
        rows["optimizer"] = _optimizer_text(optimizer)
    for remark in run["remarks"]:
        rows["remarks"] = f"{rows['remarks']}; {remark}" if "remarks" in rows else remark
    if run["reference"]:
        rows["reference"] = run["reference"]
    return table(None, [[f"  {name}", value] for name, value in rows.items()])


def _status_text(run: dict[str, Any]) -> str:
    """Return the status, and what it means where the training did not end."""
    if run["status"] != "interrupted":
        return str(run["status"])
    why = run["ended"] or "the recording process ended without closing the file; what it had not written yet is missing"
    return f"interrupted ({why})"


def _optimizer_text(optimizer: dict[str, Any]) -> str:
    """Return the name and the settings of an optimiser, as the recorder found them at opening."""
    keys = ("lr", "momentum", "nesterov", "betas", "weight_decay")
    settings = [f"{key}={optimizer[key]}" for key in keys if optimizer.get(key)]
    text = " ".join([str(optimizer.get("name")), *settings])
    return f"{text} ({optimizer['missing']})" if optimizer.get("missing") else text


# validate, repair


@click.command("validate", epilog=FILES_HELP)
@options.files
@options.as_json
@options.output
@options.silent
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
@click.option("--salvage", metavar="NEW.h5", type=click.Path(path_type=Path, dir_okay=False),
              help="Make a new file of all states of a damaged FILE that are whole.")  # fmt: skip
@options.as_json
@options.output
@options.debug
def repair(*, files: tuple[Path, ...], salvage: Path | None, as_json: bool, output: Path | None) -> None:
    """Repair each FILE left by a crashed writer: no committed state is lost, and any HDF5 program opens the file."""
    import trajtools as tt

    if salvage is not None and (len(files) > 1 or files[0].is_dir()):
        raise click.UsageError("--salvage makes one file of one damaged file: give one FILE")
    repairs, errors = _each_file(files, output, lambda path: tt.repair(path, salvage=salvage))
    if as_json:
        from dataclasses import asdict

        from trajtools.results import to_plain

        entries = [{**to_plain(asdict(one)), "changed": one.changed} for one in repairs]
        emit(document("repair/1", files=entries, errors=plain_errors(errors)), output)
    elif repairs:
        emit("\n".join(one.summary() for one in repairs), output)
    finish(errors)


# export


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), help="Format.  [default: from the output's ending]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="File; for npz, safetensors and pt also a folder, with a file for each state. csv can go to stdout.",
)  # fmt: skip
@click.option("--member", type=click.IntRange(min=0), help="Member of the run.  [default for weights: the first]")
@options.select
@options.window
@click.option("--every", type=click.IntRange(min=1), default=1, metavar="K", help="Only every K-th of these states.")
@click.option("--step", type=click.IntRange(min=0), metavar="S", help="Only the state of this step.")
@click.option("--state", type=int, metavar="K", help="Only this state, counted from 0; -1 is the last.")
@click.option("--what", type=click.Choice(COLUMNS), multiple=True,
              help="Columns of a table; repeatable.  [default: metrics]")  # fmt: skip
@click.option(
    "--series", metavar="NAME", multiple=True, help="Only this metric in a table; repeatable; * is a wildcard."
)
@options.metric(None, "Distance of --what distances.  [default: the stored one, else l1]")
@click.option("--max-columns", type=click.IntRange(min=1), default=1000, show_default=True, help="Limit of a table.")
@click.option("--max-edges", type=click.IntRange(min=1), default=100_000, show_default=True, help="Limit of a network.")
@click.option("--force", is_flag=True, help="Overwrite the output file if it exists.")
@options.quiet
@options.debug
def export(*, file: Path, form: str | None, output: Path | None, force: bool, quiet: bool, **chosen: Any) -> None:
    """Export a run of FILE for other programs.

    npz: every parameter under its name, one array over all states, with `step` and `metrics/<name>`. npz, safetensors
    and pt of one state (--step, --state), or into a folder with a file for each state: the weights alone, as
    `load_state_dict` takes them; `trajtools convert` can read the folder. csv, parquet: one row for each state, with
    metrics, distances of twins to their reference, or weights. nc, zarr: labelled arrays for xarray. graphml, gexf: one
    state as a network. Numbers keep every bit (csv: every digit); where a format has no bfloat16, it becomes float32.
    """
    form = _checked_format(form, output)
    if output is not None:
        check_target(output, (file,))
        if output.is_file() and not force:
            raise DataError(f"{output} exists and is not overwritten: choose another --output, or --force")
    check_is_file(file)
    errors: Errors = []
    if not without_unsafe([file], errors):
        raise errors[0][1]
    with opened(file) as run:
        quiet_member = quiet or (form in TABLES and "weights" not in chosen["what"])
        part = _part(run, chosen, silent=quiet_member)
        if output is None:
            _print_table(part, chosen)
            return
        _write(part, output, form, chosen, force=force, quiet=quiet)
    if not quiet:
        click.echo(f"Written to {printable(str(output))}.", err=True)


def _checked_format(form: str | None, output: Path | None) -> str:
    """Choose the format, and refuse options that it does not have."""
    from trajtools.exports import ending_of, format_of

    ending = ending_of(output) if output is not None else ""
    form = form or (format_of(output) if output is not None else "")
    if not form:
        raise click.UsageError(
            f"the format is unknown: give --format {'|'.join(FORMATS)}, or an output with a known extension"
        )
    if ending and ending != form:
        raise click.UsageError(f"{output} has the extension of {ending}, but --format is {form}: drop one of the two")
    if output is None and form != "csv":
        raise click.UsageError(f"{form} cannot go to the terminal: give an --output")
    context = click.get_current_context()
    for name, needed in ONLY_FOR.items():
        if form not in needed and context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} is for --format {' or '.join(needed)}, not for {form}")
    conflicting = [f"--{name}" for name in ("state", "step", "window") if context.params[name] is not None]
    if len(conflicting) > 1:
        raise click.UsageError(f"{' and '.join(conflicting)} select different states: give one of them")
    return form


def _part(run: Run, chosen: dict[str, Any], *, silent: bool) -> Part:
    """Return the states to be exported, and name the member if none was chosen."""
    from trajtools.exports import Part, select_rows

    state, step = chosen["state"], chosen["step"]
    rows = select_rows(run, window=chosen["window"], every=chosen["every"], state=state, step=step)
    if chosen["member"] is None and run.n_members > 1 and run.stored == "weights" and not silent:
        message = f"Exporting member 0, {run.members[0].name!r}, of {run.n_members}; --member selects another one."
        click.echo(printable(message), err=True)
    return Part(run, rows, state is not None or step is not None, chosen["member"], tuple(chosen["select"]))


def _write(part: Part, output: Path, form: str, chosen: dict[str, Any], *, force: bool, quiet: bool) -> None:
    """Write a file or a folder, with progress."""
    from trajtools import exports

    options_of_format = {name: chosen[name] for name in ("what", "series", "metric", "max_columns", "max_edges")}
    with progress(len(part.step), "Exporting", quiet) as advance:
        exports.write(part, output, form, **options_of_format, overwrite=force, tick=advance)


def _print_table(part: Part, chosen: dict[str, Any]) -> None:
    """Print csv."""
    from dataclasses import replace

    from trajtools.exports import select_columns, write_csv

    columns = select_columns(
        part, chosen["what"], series=chosen["series"], metric=chosen["metric"], largest=chosen["max_columns"]
    )
    columns = [replace(one, names=[printable(name) for name in one.names]) for one in columns]
    write_csv(sys.stdout, part, columns)
