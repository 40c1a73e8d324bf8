"""Trajectories that no recorder wrote: tables of numbers in .npy, .csv and .txt files, one state a row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trajtools.cli.asking import Choices
from trajtools.cli.reading import check_is_file
from trajtools.cli.recurrences import check_rule, nothing_to_draw, options_of
from trajtools.errors import DataError, FormatError, SelectionError, TooLargeError
from trajtools.estimators.lyapunov import lyapunov
from trajtools.estimators.windows import lyapunov_windows
from trajtools.report.answers import Answer
from trajtools.trajectory import Trajectory

SUFFIXES = (".npy", ".csv", ".txt")
MOST_BYTES = 4 * 2**30
CLOCKS = ("t", "time", "step", "steps", "epoch", "index")  # names of columns that hold no state
MISSING = ("", "na", "nan")


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers from a file.

    Attributes
    ----------
    values : ndarray, shape (T, d)
        One state a row.
    names : tuple of str
        Of the columns; their numbers from 0 where the file gives no names.
    """

    values: Any
    names: tuple[str, ...]


def is_table(path: Path) -> bool:
    """Whether a file is read here, by its name.

    Parameters
    ----------
    path : Path
        As the user gave it.

    Returns
    -------
    bool
    """
    return path.suffix.lower() in SUFFIXES


def analyse_table(path: Path, choices: Choices, patterns: tuple[str, ...] = ()) -> Answer:
    """Measure how fast neighbours of one trajectory part, which is read from a table.

    Parameters
    ----------
    path : Path
        A file of a kind in `SUFFIXES`.
    choices : Choices
        What the user chose.
    patterns : tuple of str
        Names of runs that were asked for: a table has none.

    Returns
    -------
    Answer
        With the curves; the run is called as the file.

    Raises
    ------
    DataError
        If the table cannot be analysed so.
    FormatError
        If it is no table of numbers.
    """
    _refuse_what_runs_know(path, choices, patterns)
    check_rule(choices)
    table = read_table(path)
    x, chosen = _columns(table, choices.series, path)
    if choices.window is not None:
        x = Trajectory.from_array(x, time_unit="sample").window(*choices.window)
    options = options_of(choices)
    exponent = lyapunov(x, **options)
    growth = exponent.curve if exponent.curve is not None else nothing_to_draw(exponent, exponent.unit[2:])
    windows = None
    if choices.windows is not None:
        window, step = choices.windows
        windows = lyapunov_windows(x, window=window, step=step, **options)
    if choices.per is not None:
        exponent = exponent.per(choices.per, steps_per_epoch=choices.steps_per_epoch)
        windows = windows.per(choices.per, steps_per_epoch=choices.steps_per_epoch) if windows is not None else None
    facts = {"states": len(table.values), "columns": ", ".join(chosen), "dtype": str(table.values.dtype)}
    return Answer(str(path), path.stem, growth, exponent, None, facts, {}, windows)


def _refuse_what_runs_know(path: Path, choices: Choices, patterns: tuple[str, ...]) -> None:
    given = {
        "--run": bool(patterns),
        "--select": bool(choices.select),
        "--member": choices.member is not None,
        "--buffers": choices.buffers is not None,
        "--procedure": choices.procedure is not None,
        "--method twins": choices.method == "twins",
    }
    wrong = [name for name, there in given.items() if there]
    if wrong:
        raise DataError(
            f"{', '.join(wrong)}: for files that a recorder wrote; {path.name} is a table, which holds one trajectory. "
            "Drop it, or record twins (recorders.Recorder)"
        )


def _columns(table: Table, wanted: str | None, path: Path) -> tuple[Any, tuple[str, ...]]:
    """The columns that were asked for, (T,) or (T, d), and their names."""
    if wanted is None:
        _refuse_clock(table, path)
        return (table.values[:, 0] if table.values.shape[1] == 1 else table.values), table.names
    chosen = tuple(word.strip() for word in wanted.split(","))
    for name in chosen:
        if name not in table.names:
            raise SelectionError(f"{path.name} has no column {name!r}; it has {', '.join(table.names)}")
    values = table.values[:, [table.names.index(name) for name in chosen]]
    return (values[:, 0] if len(chosen) == 1 else values), chosen


def _refuse_clock(table: Table, path: Path) -> None:
    """A column that only says how late it is would make every trajectory drift."""
    if table.values.shape[1] < 2:
        return
    first = np.asarray(table.values[:, 0], dtype=np.float64)
    gaps = np.diff(first)
    even = len(gaps) > 2 and gaps[0] > 0 and bool(np.all(np.abs(gaps - gaps[0]) <= 1e-6 * gaps[0]))
    if even or table.names[0].lower() in CLOCKS:
        raise DataError(
            f"the first column of {path.name}, {table.names[0]!r}, looks like time and not like a state; name the "
            f"columns of the state: --series {','.join(table.names[1:])}"
        )


def read_table(path: Path) -> Table:
    """Read numbers.

    Parameters
    ----------
    path : Path
        ``.npy``: an array (T,) or (T, d). ``.csv``, ``.txt``: one state a line, numbers between commas, semicolons or
        blanks; the first line may name the columns, lines that begin with ``#`` are left out, and an empty cell is NaN.

    Returns
    -------
    Table

    Raises
    ------
    FormatError
        If it is no such file.
    TooLargeError
        If it is larger than 4 GiB.
    """
    check_is_file(path)
    if path.stat().st_size > MOST_BYTES:
        raise TooLargeError(f"{path} is larger than {MOST_BYTES // 2**30} GiB; thin the states out, or project them")
    return _read_array(path) if path.suffix.lower() == ".npy" else _read_text(path)


def _read_array(path: Path) -> Table:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as problem:
        raise FormatError(f"{path} is no .npy file of numbers ({problem}); write it with numpy.save") from problem
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
        raise FormatError(
            f"{path} holds an array {array.shape} of {array.dtype}; a trajectory is (T,) or (T, d), of real numbers"
        )
    values = array[:, None] if array.ndim == 1 else array
    return Table(values, tuple(str(at) for at in range(values.shape[1])))


def _read_text(path: Path) -> Table:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as problem:
        raise FormatError(f"{path} is no text ({problem.reason}); a table of numbers is, in UTF-8") from problem
    rows = [
        (number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")
    ]
    if not rows:
        raise FormatError(f"{path} holds no line with numbers")
    delimiter = next((mark for mark in (";", ",", "\t") if mark in rows[0][1]), None)
    cells = [(number, [cell.strip().strip('"') for cell in line.split(delimiter)]) for number, line in rows]
    names: tuple[str, ...] = ()
    if any(_number(cell) is None for cell in cells[0][1]):
        names = tuple(cells[0][1])
        cells = cells[1:]
    width = len(names) or len(cells[0][1])
    values = np.empty((len(cells), width))
    for row, (number, found) in enumerate(cells):
        if len(found) != width:
            raise FormatError(f"line {number} of {path} has {len(found)} cells, the first one has {width}")
        for column, cell in enumerate(found):
            value = _number(cell)
            if value is None:
                raise FormatError(f"line {number} of {path}, cell {column + 1}: {cell!r} is no number")
            values[row, column] = value
    return Table(values, names or tuple(str(at) for at in range(width)))


def _number(cell: str) -> float | None:
    if cell.lower() in MISSING:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None
