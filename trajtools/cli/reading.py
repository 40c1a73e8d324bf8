"""Opening what the user named, with something useful to say when it is not what they thought."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from trajtools.errors import DataError, FormatError, RunNotFoundError
from trajtools.store import File, Run
from trajtools.store import open as open_file


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
        near = f"; {path.parent} holds {', '.join(p.name for p in there[:5])}" if there else ""
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
