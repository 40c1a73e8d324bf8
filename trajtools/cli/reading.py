"""Opening what the user named, with something useful to say when it is not what they thought."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import click

from trajtools.cli import sentence
from trajtools.errors import DataError, FormatError, RunNotFoundError, TrajtoolsError
from trajtools.store import File, Run
from trajtools.store import open as open_file

Found = TypeVar("Found")
Errors = list[tuple[str, Exception]]


def debugging() -> bool:
    """Whether `--debug` was given, so that errors are to be raised and not told.

    Returns
    -------
    bool
        As the user chose.
    """
    return bool(click.get_current_context().meta.get("trajtools.debug"))


def each(files: Sequence[Path], look: Callable[[Path], Found]) -> tuple[list[Found], Errors]:
    """Do something with every file; one that fails does not keep the others from being looked at.

    Parameters
    ----------
    files : sequence of Path
        As the user gave them.
    look : callable
        What is done with a file.

    Returns
    -------
    found : list
        What `look` returned, for the files where it did.
    errors : list of (str, Exception)
        The other files, and why.
    """
    found: list[Found] = []
    errors: Errors = []
    for path in files:
        try:
            check_is_file(path)
            found.append(look(path))
        except (TrajtoolsError, OSError) as problem:
            if debugging():
                raise
            errors.append((str(path), problem))
    return found, errors


def tell(errors: Errors) -> None:
    """Say on stderr what went wrong, one sentence per file.

    Parameters
    ----------
    errors : list of (str, Exception)
        File and reason.
    """
    for where, words in unique(errors):
        click.echo(f"Error: {words}" if where in words else f"Error: {where}: {words}", err=True)


def told(errors: Errors) -> list[dict[str, str]]:
    """Return what went wrong, as JSON can hold it.

    Parameters
    ----------
    errors : list of (str, Exception)
        File and reason.

    Returns
    -------
    list of dict
        ``file`` and ``error``.
    """
    return [{"file": where, "error": words} for where, words in unique(errors)]


def unique(errors: Errors) -> list[tuple[str, str]]:
    """Return every error once: what is wrong with a file is often wrong with each of its runs.

    Parameters
    ----------
    errors : list of (str, Exception)
        File and reason.

    Returns
    -------
    list of (str, str)
        File and sentence.
    """
    return list(dict.fromkeys((where, sentence(problem)) for where, problem in errors))


@contextmanager
def reading(path: Path) -> Iterator[File]:
    """Open a file of recorded runs.

    Parameters
    ----------
    path : Path
        As the user gave it.

    Yields
    ------
    File
        Open while the context lasts.

    Raises
    ------
    DataError
        If there is no such file, or it is a directory.
    """
    check_is_file(path)
    with open_file(path) as file:
        yield file


def check_is_file(path: Path) -> None:
    """Refuse what is no file at all.

    Parameters
    ----------
    path : Path
        As the user gave it.

    Raises
    ------
    DataError
        If there is nothing there, or a directory.
    FormatError
        If the file is empty.
    """
    if path.is_dir():
        inside = sorted(path.glob("*.h5"))
        hint = f"; did you mean {inside[0]}?" if inside else ": name the .h5 file that a recorder wrote"
        raise DataError(f"{path} is a directory{hint}")
    if not path.exists():
        there = sorted(path.parent.glob("*.h5")) if path.parent.is_dir() else []
        near = f"; its folder holds {', '.join(p.name for p in there[:5])}" if there else ""
        raise DataError(f"{path} does not exist{near}")
    if path.stat().st_size == 0:
        raise FormatError(f"{path} is empty (0 bytes): nothing was recorded into it")


def chosen_runs(file: File, patterns: Sequence[str]) -> list[Run]:
    """Return the runs that the user asked for, in the order of the file.

    Parameters
    ----------
    file : File
        Open.
    patterns : sequence of str
        Names or globs; empty for all runs.

    Returns
    -------
    list of Run
        At least one.

    Raises
    ------
    DataError
        If the file holds no runs.
    RunNotFoundError
        If a pattern matches none; the message lists those there are.
    """
    names = list(file)
    if not names:
        raise DataError(f"{file.path} holds no runs: nothing was recorded into it")
    for pattern in patterns:
        if not any(name == pattern or fnmatchcase(name, pattern) for name in names):
            raise RunNotFoundError(f"{file.path} holds no run {pattern!r}; it holds {', '.join(names)}")
    wanted = [n for n in names if not patterns or any(n == p or fnmatchcase(n, p) for p in patterns)]
    return [file[name] for name in wanted]
