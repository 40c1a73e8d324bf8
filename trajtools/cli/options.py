"""Options that several commands share, and how they print."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from trajtools import __version__
from trajtools.cli import keep_debug
from trajtools.errors import DataError

Command = TypeVar("Command", bound=Callable[..., Any])

files = click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
output = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the answer here instead of to stdout.",
)
runs = click.option(
    "--run", "runs", metavar="NAME", multiple=True, help="Only runs of this name; may be repeated, * and ? match any."
)
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")


def debug(command: Command) -> Command:
    """Let `--debug` also stand after the command.

    Parameters
    ----------
    command : callable
        What is to become a command.

    Returns
    -------
    callable
        The same, with the option.
    """
    return click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=keep_debug,
        help="Show tracebacks of errors.",
    )(command)


def document(schema: str, **content: Any) -> str:
    """Return one JSON document.

    Parameters
    ----------
    schema : str
        Name and version of its form, such as ``lyapunov/1``.
    **content : object
        What it holds; must be plain already.

    Returns
    -------
    str
        The document, without a NaN or an infinity in it.
    """
    head = {"schema": f"trajtools/{schema}", "version": __version__}
    return json.dumps({**head, **content}, indent=2, allow_nan=False)


def emit(text: str, output: Path | None, inputs: Iterable[Path] = ()) -> None:
    """Print the answer, or write it to a file.

    Parameters
    ----------
    text : str
        The answer.
    output : Path or None
        Where to; None is stdout.
    inputs : iterable of Path
        Files that must not be overwritten by it.
    """
    if output is None:
        click.echo(printable(text))
        return
    check_target(output, inputs)
    output.write_text(text + "\n", encoding="utf-8")
    click.echo(f"Written to {output}.", err=True)


def printable(text: str) -> str:
    """Return a text that cannot command the terminal, whatever names a file holds.

    Parameters
    ----------
    text : str
        Perhaps with control characters in it.

    Returns
    -------
    str
        The same with these written out; line ends stay.
    """
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def check_target(target: Path, inputs: Iterable[Path]) -> None:
    """Refuse what cannot be written before anything is computed, and to write over one of the recorded files.

    Parameters
    ----------
    target : Path
        What is to be written.
    inputs : iterable of Path
        What is being read.

    Raises
    ------
    DataError
        If the target is one of the inputs, or its folder does not exist.
    """
    if not target.parent.is_dir():
        raise DataError(f"{target} cannot be written: there is no folder {target.parent}")
    for path in inputs:
        if target.exists() and path.exists() and os.path.samefile(target, path):
            raise DataError(f"{target} is the recorded file itself: name another file for the output")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """Return a table in columns of equal width.

    Parameters
    ----------
    head : sequence of str
        One word per column.
    rows : sequence of sequence of str
        The cells.
    right : iterable of int
        Columns that are set right-aligned.

    Returns
    -------
    str
        Lines without trailing blanks.
    """
    aligned = set(right)
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = (row[i].rjust(widths[i]) if i in aligned else row[i].ljust(widths[i]) for i in range(len(head)))
        return "  ".join(cells).rstrip()

    return "\n".join(line(row) for row in (head, *rows))


def megabytes(size: float) -> str:
    """Return a size in words.

    Parameters
    ----------
    size : float, in bytes
        How large.

    Returns
    -------
    str
        Such as ``3.2 MB``.
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:.3g} TB"
