"""Tables of numbers from other programs: .npy, .csv, .tsv, .txt and .dat files with one state a row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajtools.errors import (
    DataError,
    FormatError,
    SelectionError,
)

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    pass

    Part = str | RichTable
    Block = Part | list[Part]

from typing import TYPE_CHECKING

from trajtools.errors import TooLargeError

if TYPE_CHECKING:
    from trajtools.cli.runner import Selection

SUFFIXES = (".npy", ".csv", ".tsv", ".txt", ".dat")
MAX_BYTES = 4 * 2**30
TIME_NAMES = ("t", "time", "step", "steps", "epoch", "index")  # names of columns that hold no state
MISSING = ("", "na", "nan")


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers (T, d), one state a row, and the names of the columns: their numbers from 0 where the file has none."""

    values: Any
    names: tuple[str, ...]

    def columns(self, names: str | None, path: Path) -> tuple[Any, tuple[str, ...]]:
        """Return the named columns, (T,) or (T, d), and their names; all columns for None."""
        if names is None:
            _refuse_time(self, path)
            return (self.values[:, 0] if self.values.shape[1] == 1 else self.values), self.names
        chosen = tuple(name.strip() for name in names.split(","))
        for name in chosen:
            if name not in self.names:
                raise SelectionError(f"{path.name} has no column {name!r}; it has {', '.join(self.names)}")
        values = self.values[:, [self.names.index(name) for name in chosen]]
        return (values[:, 0] if len(chosen) == 1 else values), chosen

    def states(self, selection: Selection, path: Path) -> Any:
        """Return the selected columns and rows: an array, or with a window a Trajectory."""
        import trajtools as tt

        only_runs = {"--member": selection.member is not None, "--select": bool(selection.select)}
        refuse_options([name for name, present in only_runs.items() if present], path)
        states, _ = self.columns(selection.series, path)
        if selection.window is None:
            return states
        return tt.Trajectory.from_array(states, time_unit="sample").window(*selection.window)


def refuse_options(names: list[str], path: Path) -> None:
    """Refuse options that need a recorded file."""
    if names:
        raise DataError(
            f"{', '.join(names)}: only for recorded files; {path.name} is a table, which holds one trajectory. Drop "
            "the option, or record twins (recorders.Recorder)"
        )


def _refuse_time(table: Table, path: Path) -> None:
    """Refuse a first column that looks like time: it would make every trajectory drift."""
    import numpy as np

    if table.values.shape[1] < 2:
        return
    first = np.asarray(table.values[:, 0], dtype=np.float64)
    gaps = np.diff(first)
    even = len(gaps) > 2 and gaps[0] > 0 and bool(np.all(np.abs(gaps - gaps[0]) <= 1e-6 * gaps[0]))
    if even or table.names[0].lower() in TIME_NAMES:
        raise DataError(
            f"the first column of {path.name}, {table.names[0]!r}, is probably time, not a state; select the columns "
            f"of the state: --series {','.join(table.names[1:])}"
        )


def is_table(path: Path) -> bool:
    """Whether a file is read here, by its name."""
    return path.suffix.lower() in SUFFIXES


def read_table(path: Path) -> Table:
    """Read a table.

    A .npy file holds an array (T,) or (T, d). A text file has one state a line, numbers separated by commas,
    semicolons, tabs or blanks; the first line may name the columns, lines that begin with # are skipped, and an empty
    cell is NaN.
    """
    check_is_file(path)
    if path.stat().st_size > MAX_BYTES:
        raise TooLargeError(f"{path} is larger than {MAX_BYTES // 2**30} GiB; thin the states out, or project them")
    return _read_array(path) if path.suffix.lower() == ".npy" else _read_text(path)


def _read_array(path: Path) -> Table:
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise FormatError(f"{path} is not a .npy file of numbers ({error}); write it with numpy.save") from error
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
        raise FormatError(
            f"{path} holds an array {array.shape} of {array.dtype}; a trajectory is (T,) or (T, d), of real numbers"
        )
    values = array[:, None] if array.ndim == 1 else array
    return Table(values, tuple(str(at) for at in range(values.shape[1])))


def _read_text(path: Path) -> Table:
    import numpy as np

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 text ({error.reason})") from error
    rows = [
        (number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")
    ]
    if not rows:
        raise FormatError(f"{path} has no line with numbers")
    delimiter = next((mark for mark in (";", ",", "\t") if mark in rows[0][1]), None)
    cells = [(number, [cell.strip().strip('"') for cell in line.split(delimiter)]) for number, line in rows]
    names: tuple[str, ...] = ()
    if any(_number(cell) is None for cell in cells[0][1]):
        names = tuple(cells[0][1])
        cells = cells[1:]
    width = len(names) or len(cells[0][1])
    values = np.empty((len(cells), width))
    for row, (number, line) in enumerate(cells):
        if len(line) != width:
            raise FormatError(f"line {number} of {path} has {len(line)} cells, the first one has {width}")
        for column, cell in enumerate(line):
            value = _number(cell)
            if value is None:
                raise FormatError(f"line {number} of {path}, cell {column + 1}: {cell!r} is not a number")
            values[row, column] = value
    return Table(values, names or tuple(str(at) for at in range(width)))


def _number(cell: str) -> float | None:
    if cell.lower() in MISSING:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return None


def check_is_file(path: Path) -> None:
    """Refuse a path that is no file, an empty file, and suggest files that are there."""
    if path.is_dir():
        inside = sorted(path.glob("*.h5"))
        hint = f"; did you mean {inside[0]}?" if inside else " without .h5 files"
        raise DataError(f"{path} is a folder{hint}")
    if not path.exists():
        beside = sorted(path.parent.glob("*.h5")) if path.parent.is_dir() else []
        hint = f"; its folder holds {', '.join(p.name for p in beside[:5])}" if beside else ""
        raise DataError(f"{path} does not exist{hint}")
    if path.stat().st_size == 0:
        raise FormatError(f"{path} is empty (0 bytes)")
