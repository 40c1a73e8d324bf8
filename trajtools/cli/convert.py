"""`trajtools convert`: checkpoints of other programs to a file with one run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trajtools.cli import debugging, files, options, printable
from trajtools.cli.printing import document, emit, table
from trajtools.cli.runner import (
    module_command,
    module_environment,
    open_in_child,
    opened,
    progress,
)
from trajtools.cli.tables import is_table
from trajtools.errors import DataError, RecordingError

if TYPE_CHECKING:
    from trajtools.cli.printing import Block

PATIENCE = 5.0  # seconds that an interrupted conversion has to end


@click.command("convert")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, metavar="FILE.h5", type=click.Path(path_type=Path),
              help="The file to be written, or of several runs the folder; it must not exist.")  # fmt: skip
@click.option("--name", metavar="NAME", default="", help="Name of the run.  [default: that of the output]")
@click.option("--files", metavar="GLOB", default="", help="Only these files or folders: '*.pt', 'checkpoint-*'.")
@click.option("--step-pattern", metavar="REGEX", help="Where the step is in a file name: 'epoch(\\d+)'.")
@click.option("--include", metavar="GLOB", multiple=True, help="Only arrays of this name; repeatable.")
@click.option("--exclude", metavar="GLOB", multiple=True, help="Exclude arrays of this name; repeatable.")
@click.option("--order", metavar="GLOB", multiple=True,
              help="These arrays come first, in this order, if the files have the layers in another.")  # fmt: skip
@click.option("--key", metavar="NAME", help="Entry of the files with the weights, if several could be: 'a.model'.")
@click.option("--rename", metavar="OLD=NEW", multiple=True,
              help="Begin names with NEW instead of OLD: 'model.=' drops a prefix; repeatable.")  # fmt: skip
@click.option(
    "--hparams", metavar="JSON", type=options.json_object, default="{}",
    help="Hyper-parameters: '{\"lr\": 0.1}', or a file with them.",
)  # fmt: skip
@click.option("--compress", type=click.Choice(["zstd", "gzip"]), help="Compress the weights, without loss.")
@options.foreign
@options.metric("l1", "Metric of the distances that an HDF5 file holds.")
@options.as_json
@options.quiet
@options.debug
def convert(*, source: Path, output: Path, as_json: bool, quiet: bool, **chosen: Any) -> None:
    """Convert the checkpoints in SOURCE into a run, one state for each, in the order of their steps.

    SOURCE is a folder of checkpoints, or one file with a whole trajectory (an array of states, or arrays that all have
    time as their first axis). Files are known by their content: PyTorch (.pt, .pth, .bin, .ckpt), safetensors with
    their index, npz, npy, Keras (.weights.h5, .keras), flax (.msgpack), folders of Orbax and of
    torch.distributed.checkpoint. Nothing in them is executed. The step is the number in the name (10k is 10000); the
    output shows which one. The state is what the recorder takes: tied weights once, no running statistics, no integers,
    names without `module.` and `_orig_mod.`. All checkpoints must hold the same arrays; NaN and infinities are data.
    The output is written completely or not at all.

    An HDF5 file of another program is read if --layout, or --dataset, --axes and --holds, say what it holds; each
    initial condition becomes a file of its own in the folder --output.
    """
    declared = options.declaration(dict(chosen)) is not None
    if os.path.lexists(output):
        raise DataError(f"{output} exists, and a recorded run is never overwritten: choose another --output")
    if not declared and is_table(output):
        raise DataError(f"{output} would be read as a table by its name: end it in .h5")
    if declared:
        _check_foreign(source)
    request = {**chosen, "source": str(source), "path": str(output), "command": sys.argv}
    try:
        conversion = _convert(request, output, quiet)
    except DataError as error:
        raise error if declared else _explained(source, error) from error
    descriptions, nodes = [], []
    for path in map(Path, conversion["paths"]):
        with opened(path) as run:
            descriptions.append(files.describe(run))
            nodes = [(node.name, node.size) for node in run.nodes]
    for note in conversion["notes"]:
        click.echo(f"Note: {printable(note)}.", err=True)
    if declared and as_json:
        emit(document("convert/1", files=descriptions))
    elif declared:
        rows = [[one["file"], str(one["states"]), str(one["twins"]), one["stored"]] for one in descriptions]
        emit([table(["file", "states", "copies", "stored"], rows, right={1, 2})])
    elif as_json:
        steps = {"rule": conversion["rule"], "example": conversion["example"], "files": conversion["names"]}
        more = {name: conversion[name] for name in ("entry", "left_out", "notes")}
        emit(document("convert/1", steps=steps, nodes=[list(node) for node in nodes], **more, **descriptions[0]))
    else:
        emit([*files.describe_text(descriptions[0]), _text(conversion, nodes)])


def _check_foreign(path: Path) -> None:
    """Refuse options for checkpoints, and let a child process meet an HDF5 file of another program first."""
    from trajtools.store import foreign

    context = click.get_current_context()
    for name in ("name", "files", "step_pattern", "include", "exclude", "order", "key", "rename"):
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} is for checkpoints, not for an HDF5 file: drop it")
    open_in_child(foreign.examine, path)


def _explained(source: Path, error: DataError) -> DataError:
    """Say how an HDF5 file of another program can be read."""
    from trajtools.store.foreign import suggestion
    from trajtools.store.isolation import in_child

    if not source.is_file():
        return error
    ((_, way),) = in_child(suggestion, [os.path.abspath(source)])
    return DataError(f"{source} is an HDF5 file; {way}") if way and isinstance(way, str) else error


def _text(conversion: dict[str, Any], nodes: list[tuple[str, int]]) -> Block:
    layers = ", ".join(f"{name} {size}" for name, size in nodes[:12])
    more = f", and {len(nodes) - 12} more" if len(nodes) > 12 else ""
    rows = [["nodes", f"{layers or 'none'}{more}"], ["step", f"{conversion['rule']}: {conversion['example']}"]]
    rows += [["entry", conversion["entry"]]] if conversion["entry"] else []
    rows += [["left out", "; ".join(conversion["left_out"])]] if conversion["left_out"] else []
    return table(None, [[f"  {name}", value] for name, value in rows])


def _convert(request: dict[str, Any], output: Path, quiet: bool) -> dict[str, Any]:
    """Convert in a process of its own; returns a `trajtools.checkpoints.Conversion` as a dict."""
    with _process(request, output) as process:
        last: dict[str, Any] = {}
        for event in _events(process, quiet):
            last = event
        status = process.wait()
    if "error" in last:
        if debugging():
            click.echo(last["trace"], err=True)
        if last["fault"]:
            raise RuntimeError(last["error"])
        raise DataError(last["error"])
    if "conversion" not in last:
        raise RecordingError(f"the conversion ended with exit status {status}, and {output} was not written")
    conversion: dict[str, Any] = last["conversion"]
    return conversion


@contextmanager
def _process(request: dict[str, Any], output: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the conversion; whatever ends it early leaves nothing behind."""
    command, pipe = module_command("trajtools.checkpoints"), subprocess.PIPE
    # A process group of its own: an interrupt from the terminal would hit it anywhere, and is ours to pass on.
    group = 0 if os.name == "posix" else None
    process = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8", env=module_environment(), process_group=group
    )
    try:
        assert process.stdin is not None
        with process.stdin as stdin:
            stdin.write(json.dumps(request))
        yield process
    except BaseException:
        _end(process)
        draft = Path(f"{os.path.abspath(output)}.part-{process.pid}")
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        draft.unlink(missing_ok=True)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _end(process: subprocess.Popen[str]) -> None:
    """End a conversion, at the latest after `PATIENCE`."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _events(process: subprocess.Popen[str], quiet: bool) -> Iterator[dict[str, Any]]:
    """Yield the events of the conversion, and show its progress."""
    assert process.stdout is not None
    lines = (json.loads(line) for line in process.stdout)
    first = next(lines, None)
    if first is None:
        return
    with progress(first.get("states", 0), "Converting", quiet) as advance:
        for event in chain([first], lines):
            if "done" in event:
                advance(1)
            yield event
