"""`trajtools convert`: a folder of saved weights becomes a file with one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import click

from trajtools.cli import info, options
from trajtools.cli.lyapunov import progress
from trajtools.cli.reading import debugging, reading
from trajtools.cli.recorder_process import command_line, environment
from trajtools.errors import DataError, RecordingError

PATIENCE = 5.0
"""Seconds that an interrupted conversion has to end."""


def hyperparameters(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> dict[str, Any]:
    """Read a JSON object, given as such or as a file that holds it.

    Parameters
    ----------
    _ctx, _parameter : object
        Of the command line.
    value : str or None
        As the user gave it.

    Returns
    -------
    dict
        Empty for None.
    """
    if value is None:
        return {}
    try:
        text = value if value.lstrip().startswith("{") else Path(value).read_text(encoding="utf-8")
        found = json.loads(text, parse_constant=_refuse)
    except OSError as problem:
        raise click.BadParameter(
            f"{value!r} is neither JSON, such as '{{\"lr\": 0.1}}', nor a file: {problem}"
        ) from None
    except ValueError as problem:
        raise click.BadParameter(f"{value!r} is no JSON, such as '{{\"lr\": 0.1}}': {problem}") from None
    if not isinstance(found, dict):
        raise click.BadParameter(f"{value!r} is no JSON object; name every number, as in '{{\"lr\": 0.1}}'")
    return found


def _refuse(constant: str) -> None:
    """NaN and infinities, which the file would keep as null."""
    raise ValueError(f"it has no {constant}; leave out what is unknown")


@click.command("convert")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, metavar="FILE.h5", type=click.Path(path_type=Path, dir_okay=False),
              help="The file to be written; it must not exist.")  # fmt: skip
@click.option("--run", metavar="NAME", default="run", show_default=True, help="Name of the run in it.")
@click.option(
    "--files", metavar="GLOB", default="", help="Only these checkpoints: '*.pt', 'checkpoint-*/*.safetensors'."
)
@click.option("--step-pattern", metavar="REGEX", help="Where the step is in a file's name: 'epoch(\\d+)'.")
@click.option("--include", metavar="GLOB", multiple=True, help="Only arrays of this name; may be repeated.")
@click.option("--exclude", metavar="GLOB", multiple=True, help="No arrays of this name; may be repeated.")
@click.option("--order", metavar="GLOB", multiple=True,
              help="These arrays come first, in this order; for layers that the files hold in another.")  # fmt: skip
@click.option("--key", metavar="NAME", help="Entry of the .pt files that holds the weights, where it is not alone.")
@click.option(
    "--hparams", metavar="JSON", callback=hyperparameters, help="Hyper-parameters: '{\"lr\": 0.1}', or a file."
)
@click.option("--compress", type=click.Choice(["zstd", "gzip"]), help="Compress the weights, without loss.")
@options.as_json
@options.quiet
@options.debug
def command(*, folder: Path, output: Path, as_json: bool, quiet: bool, **chosen: Any) -> None:
    """Turn the checkpoints in FOLDER into a run, one state for each file, in the order of their steps.

    Takes .npz, .safetensors and PyTorch's .pt, .pth, .ckpt, of the latter weights only. The step is the number in the
    file's name; which one was taken is told. All files must hold the same arrays, of the same shapes and dtypes; NaN
    and infinities are data. The output is written whole or not at all.
    """
    if os.path.lexists(output):
        raise DataError(f"{output} exists and a recorded run is never overwritten: name another --output")
    request = {**chosen, "folder": str(folder), "path": str(output), "command": sys.argv}
    order = converted(request, output, quiet)
    with reading(output) as file:
        described = info.describe(file)
        nodes = [(node.name, node.size) for run in file.values() for node in run.nodes]
    steps = {"rule": order["rule"], "example": order["example"], "files": order["names"]}
    if as_json:
        click.echo(options.document("convert/1", steps=steps, nodes=[list(node) for node in nodes], **described))
        return
    layers = ", ".join(f"{name} {size}" for name, size in nodes[:12])
    more = f", and {len(nodes) - 12} more" if len(nodes) > 12 else ""
    lines = [info.in_words(described), f"  nodes      {layers or 'none'}{more}"]
    lines.append(f"  step       {order['rule']}: {order['example']}")
    click.echo(options.printable("\n".join(lines)))


def converted(request: dict[str, Any], output: Path, quiet: bool) -> dict[str, Any]:
    """Have the recorders convert a folder.

    Parameters
    ----------
    request : dict
        As `python -m recorders.checkpoints` takes it.
    output : Path
        The file that is to be written.
    quiet : bool
        Show no progress.

    Returns
    -------
    dict
        ``names, steps, rule, example`` of the checkpoints.

    Raises
    ------
    DataError
        If they cannot be converted; the message says why.
    RecordingError
        If the process ended without a word.
    """
    with conversion(request, output) as process:
        last: dict[str, Any] = {}
        for event in events(process, quiet):
            last = event
        status = process.wait()
    if "error" in last:
        if debugging():
            click.echo(last["trace"], err=True)
        if last["fault"]:
            raise RuntimeError(last["error"])
        raise DataError(last["error"])
    if "order" not in last:
        raise RecordingError(f"the conversion ended with exit status {status}, and {output} was not written")
    order: dict[str, Any] = last["order"]
    return order


@contextmanager
def conversion(request: dict[str, Any], output: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the conversion; whatever ends it early leaves nothing behind.

    Parameters
    ----------
    request : dict
        What it is to do.
    output : Path
        What it is to write.

    Yields
    ------
    subprocess.Popen
        The process, which has got the request.
    """
    line = command_line("recorders.checkpoints")
    pipe = subprocess.PIPE
    process = subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, encoding="utf-8", env=environment())
    try:
        assert process.stdin is not None
        with process.stdin as stdin:
            stdin.write(json.dumps(request))
        yield process
    except BaseException:
        end(process)
        for left in ("", ".journal", f".new-{process.pid}"):
            Path(f"{os.path.abspath(output)}.part-{process.pid}{left}").unlink(missing_ok=True)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def end(process: subprocess.Popen[str]) -> None:
    """End a conversion; a terminal has sent it the same interrupt already, anything else has not.

    Parameters
    ----------
    process : subprocess.Popen
        The process.
    """
    for patience, harder in ((0.5, process.terminate), (PATIENCE, process.kill)):
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            harder()
    process.wait()


def events(process: subprocess.Popen[str], quiet: bool) -> Iterator[dict[str, Any]]:
    """Read what the conversion tells, and show how far it is.

    Parameters
    ----------
    process : subprocess.Popen
        The process.
    quiet : bool
        Show nothing.

    Yields
    ------
    dict
        One event.
    """
    assert process.stdout is not None
    lines = (json.loads(line) for line in process.stdout)
    first = next(lines, None)
    if first is None:
        return
    with progress(first.get("states", 0), "Converting", quiet) as step:
        for event in chain([first], lines):
            if "done" in event:
                step(1)
            yield event
