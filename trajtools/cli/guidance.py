"""Examples of every command, what one would ask next, and what to do with the files of a folder."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# Command -> examples, each with its purpose. A test runs all of them, in a folder with these files.
EXAMPLES = {
    "demo": (
        ("trajtools demo --rates 0.1,1 --inits 8 --copies 2 --steps 100", "a small demo, in ./trajtools-demo"),
        ("trajtools demo -o small --rates 1 --inits 5 --copies 2 --steps 80 --json", "its numbers, for a program"),
    ),
    "info": (
        ("trajtools info run.h5", "what is in a file"),
        ("trajtools info runs --json", "all runs of a folder, for a program"),
    ),
    "validate": (
        ("trajtools validate run.h5", "is the file whole?"),
        ("trajtools validate runs -o validity.txt", "all files of a folder"),
    ),
    "repair": (
        ("trajtools repair run.h5", "after a crash: any HDF5 program opens the file again"),
        ("trajtools repair run.h5 --salvage whole.h5", "copy what is whole of a damaged file"),
    ),
    "convert": (
        ("trajtools convert checkpoints -o converted.h5", "a folder of checkpoints as one run"),
        ("trajtools convert checkpoints -o lr.h5 --hparams '{\"lr\": 0.1}'", "with its hyper-parameters"),
    ),
    "export": (
        ("trajtools export run.h5 -o metrics.csv", "the metrics as a table"),
        ("trajtools export run.h5 -o weights.npz --every 10", "every tenth state"),
    ),
    "watch": (
        ("trajtools watch run.h5", "follow a training until it ends"),
        ("trajtools watch runs --once --json", "where the runs of a folder stand"),
    ),
    "lyapunov": (
        ("trajtools lyapunov run.h5 --plot growth.png", "do nearby trainings part, and how fast?"),
        ("trajtools lyapunov series.csv --embed 2,1", "the exponent of a time series"),
    ),
    "stability": (
        ("trajtools stability run.h5", "do perturbed runs return to the orbit?"),
        ("trajtools stability run.h5 --plot orbit.png", "with a figure"),
    ),
    "recurrence": (
        ("trajtools recurrence run.h5 --plot recurrence.png", "does the trajectory return?"),
        ("trajtools recurrence series.csv --embed 2,1 --windows 100", "of a series, in windows"),
    ),
    "distances": (
        ("trajtools distances run.h5 --plot distances.png", "how far apart are the states?"),
        ("trajtools distances run.h5 --metric cosine --json", "by their angles, for a program"),
    ),
    "correlation": (
        ("trajtools correlation run.h5 --per layer", "how long does each layer remember?"),
        ("trajtools correlation series.csv --lags 20 --plot correlation.png", "of a series, with a figure"),
    ),
    "dimension": (
        ("trajtools dimension series.csv --dims 3", "the dimension of the attractor of a series"),
        ("trajtools dimension run.h5 --plot dimension.png", "of the path of a training"),
    ),
    "curvature": (
        ("trajtools curvature probed.h5", "is the training at the edge of stability?"),
        ("trajtools curvature probed.h5 --plot edge.png", "with a figure"),
    ),
    "sweep": (
        ("trajtools sweep runs --plot sweep.png", "where does chaos begin, and what trains fastest?"),
        ("trajtools sweep 'runs/*.h5' --x lr --json", "for a program"),
    ),
    "report": (
        ("trajtools report run.h5", "everything about a run, as one page"),
        ("trajtools report runs -o runs.html", "a page about all runs of a folder"),
    ),
}

# Command -> the commands that answer the next questions, with the question.
NEXT = {
    "info": (("lyapunov", "do nearby trainings stay together?"), ("report", "everything that applies, as one page")),
    "validate": (("info", "what is in the file?"),),
    "repair": (("validate", "is the file whole?"),),
    "watch": (("lyapunov", "do nearby trainings stay together?"),),
    "lyapunov": (("stability", "do they return to the orbit?"), ("report", "everything that applies, as one page")),
    "stability": (("recurrence", "does the trajectory itself return?"),),
    "recurrence": (("dimension", "what dimension does its path have?"), ("correlation", "does it have a period?")),
    "distances": (("recurrence", "where does the trajectory return?"),),
    "correlation": (("recurrence", "where does the trajectory return?"),),
    "dimension": (("lyapunov", "do nearby states part?"),),
    "curvature": (("lyapunov", "do nearby trainings part beyond the edge?"),),
    "sweep": (("report", "one page with the figure and every run"),),
}
TABLES = (".csv", ".tsv", ".txt", ".dat", ".npy", ".npz", ".parquet")
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".safetensors", ".keras", ".msgpack")
MOST_NAMED = 3
PEEK = 4096  # bytes
NUMBERS = re.compile(r"[-+0-9.,;:|\seETZ/nNaA]*[0-9][-+0-9.,;:|\seETZ/nNaA]*")  # a row of a table, with dates


def examples(command: str) -> str:
    """The examples of a command, as they stand in its help; the first line keeps click from wrapping them."""
    lines = [part for line, purpose in EXAMPLES[command] for part in (f"  {line}", f"      {purpose}")]
    return "\n".join(["\b", "Examples:", *lines])


def suggest(command: str, files: Sequence[str]) -> str:
    """What one would ask next, with the files of this command; empty without anything."""
    steps = NEXT.get(command, ())
    inputs = " ".join(map(shlex.quote, files[:MOST_NAMED])) + (" ..." if len(files) > MOST_NAMED else "")
    lines = [(f"trajtools {step} {inputs}", question) for step, question in steps]
    width = max((len(line) for line, _ in lines), default=0)
    return "\n".join(
        f"{'      ' if at else 'Next: '}{line:<{width}}   {question}" for at, (line, question) in enumerate(lines)
    )


def hint(command: str, files: Sequence[str]) -> None:
    """Print what one would ask next on stderr, if somebody is there to read it."""
    text = suggest(command, files) if sys.stderr.isatty() else ""
    if text:
        sys.stderr.write(f"\n{text}\n")


def advise(folder: Path) -> str:
    """Say what to do with the files of a folder."""
    entries = sorted(one for one in folder.iterdir() if not one.name.startswith("."))
    runs = [one.name for one in entries if one.suffix.lower() in (".h5", ".hdf5") and one.is_file()]
    tables = [one.name for one in entries if one.suffix.lower() in TABLES and one.is_file() and _has_numbers(one)]
    checkpoints = [one.name for one in entries if one.suffix.lower() in CHECKPOINTS]
    below = [one.name for one in entries if one.is_dir() and any(one.glob("*.h5"))]
    steps: list[tuple[str, str]] = []
    if runs:
        steps += [(f"trajtools info {shlex.quote(runs[0])}", f"what is in it ({_count(runs, 'HDF5 file')} here)")]
        steps += [(f"trajtools lyapunov {shlex.quote(runs[0])}", "do nearby trainings stay together?")]
        if len(runs) > 1:
            steps += [("trajtools sweep .", "compare the runs: where chaos begins, what trains fastest")]
        steps += [("trajtools report .", "everything that applies, as one page")]
    for name in below[:MOST_NAMED]:
        steps += [(f"trajtools report {shlex.quote(name)}", "a page about the runs of this folder")]
    if checkpoints:
        found = _count(checkpoints, "checkpoint")
        steps += [("trajtools convert . -o converted.h5", f"{found} here, as one run that all commands read")]
    if tables:
        name = shlex.quote(tables[0])
        steps += [(f"trajtools lyapunov {name}", f"the exponent of a series ({_count(tables, 'table')} here)")]
        steps += [(f"trajtools recurrence {name}", "does it return?")]
    if not steps:
        steps = [("trajtools demo", "train, record and analyse a small network: about a minute")]
    width = max(len(line) for line, _ in steps)
    known = bool(runs or below or checkpoints or tables)
    head = "With the files of this folder:" if known else "No runs, checkpoints or tables in this folder. To begin:"
    rows = [f"  {line:<{width}}   {question}" for line, question in steps]
    more = "`trajtools --help` lists all commands; `trajtools COMMAND --help` has examples of each."
    return "\n".join([head, "", *rows, "", more])


def _has_numbers(file: Path) -> bool:
    """Whether a file is a table by its ending, or has a line of numbers; logs and notes end in .txt, too."""
    if file.suffix.lower() not in (".txt", ".dat"):
        return True
    with file.open("rb") as opened:
        lines = opened.read(PEEK).decode("utf-8", "replace").splitlines()
    return any(NUMBERS.fullmatch(line) for line in lines)


def _count(names: Sequence[str], noun: str) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"
