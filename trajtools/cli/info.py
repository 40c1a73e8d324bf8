"""`trajtools info`: what a file holds, without computing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trajtools.cli import options
from trajtools.cli.reading import chosen_runs, each, reading, tell, told
from trajtools.results.plain import to_plain
from trajtools.store import File, Run


@click.command("info")
@options.files
@options.runs
@options.as_json
@options.output
@options.debug
def command(*, files: tuple[Path, ...], runs: tuple[str, ...], as_json: bool, output: Path | None) -> None:
    """Say what each FILE holds: runs, states, members, parameters, metrics, and whether they are complete."""

    def look(path: Path) -> dict[str, Any]:
        with reading(path) as file:
            return describe(file, runs)

    described, errors = each(files, look)
    tell(errors)
    if as_json:
        options.emit(options.document("info/1", files=described, errors=told(errors)), output, files)
    elif described:
        options.emit("\n\n".join(in_words(one) for one in described), output, files)
    if errors:
        click.get_current_context().exit(1)


def describe(file: File, patterns: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what a file holds.

    Parameters
    ----------
    file : File
        Open.
    patterns : tuple of str
        Names or globs of runs; empty for all.

    Returns
    -------
    dict
        ``file``, ``format_version``, ``bytes`` and one entry per run in ``runs``; plain, as JSON can hold it.
    """
    path = Path(file.path)
    found = [run_facts(run) for run in (chosen_runs(file, patterns) if len(file) or patterns else [])]
    return {
        "file": str(path),
        "format_version": file.format_version,
        "bytes": path.stat().st_size,
        "runs": found,
    }


def run_facts(run: Run) -> dict[str, Any]:
    """Return what one run holds.

    Parameters
    ----------
    run : Run
        Of an open file.

    Returns
    -------
    dict
        Plain, as JSON can hold it.
    """
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


def in_words(described: dict[str, Any]) -> str:
    """Return what `describe` found, for people.

    Parameters
    ----------
    described : dict
        As `describe` returns it.

    Returns
    -------
    str
        Several lines.
    """
    size = options.megabytes(described["bytes"])
    count = len(described["runs"])
    head = f"{described['file']}: format {described['format_version']}, {size}, {count} run{'s' * (count != 1)}"
    return "\n\n".join([head, *(_run_in_words(run) for run in described["runs"])])


def _run_in_words(run: dict[str, Any]) -> str:
    states = f"{run['states']}"
    if run["states"]:
        states += f" (steps {run['first_step']} to {run['last_step']})"
    members = f"{run['members']}"
    if run["twins"]:
        members += f" ({run['references']} references, {run['twins']} perturbed copies)"
    layers = ", ".join(f"{p['name']} {'x'.join(map(str, p['shape'])) or 'scalar'}" for p in run["layers"][:8])
    if len(run["layers"]) > 8:
        layers += f", and {len(run['layers']) - 8} more"
    lines = {
        "status": run["status"],
        "states": states,
        "members": members,
        "parameters": f"{run['parameters']} ({layers})",
        "stored": f"{run['stored']}, {run['dtype']}",
        "metrics": ", ".join(run["metrics"]) or "none",
        "hparams": ", ".join(f"{name}={value}" for name, value in run["hparams"].items()) or "none",
    }
    if run["reference"]:
        lines["reference"] = run["reference"]
    return "\n".join([f"run {run['run']}", *(f"  {name:<11}{value}" for name, value in lines.items())])
