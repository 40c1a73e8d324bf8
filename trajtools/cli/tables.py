"""Tables of numbers from other programs, one state a row: text, .npy, .npz and .parquet files."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trajtools.errors import DataError, FormatError, MissingDependencyError, SelectionError, TooLargeError
from trajtools.wording import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trajtools.cli.options import Selection
    from trajtools.clocks import Clock
    from trajtools.reasons import Reason

MOST_NAMED = 5  # files beside one that is missing
SUFFIXES = (".npy", ".npz", ".csv", ".tsv", ".txt", ".dat", ".parquet")
MAX_BYTES = 4 * 2**30
NO_CLOCK = "none"
SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": None, "blank": None}
MISSING = ("", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none", "nil", "-", "--", "?", ".")
PROBED = 50  # lines from which separator and decimal mark are found
MOST_LISTED = 8  # columns that a message lists
_GROUPS = {mark: re.compile(rf"[+-]?\d{{1,3}}({re.escape(mark)}\d{{3}})+(?!\d)") for mark in (",", ".")}
_FORTRAN = re.compile(r"[+-]?[\d.]+[dD][+-]?\d+")
_BLANK_GROUPS = re.compile(r"(?<=\d)[ '\u00a0\u2009\u202f](?=\d{3}(\D|$))")
_LIKE_A_DATE = re.compile(r"\d{4}-\d{1,2}$|\d{1,4}([-/. ])(\d{1,2}|[^\W\d]{3,})\1\d{1,4}|[^\W\d]{3,} \d{1,2} \d{4}")
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:[.,]\d+)?))?")


@dataclass(frozen=True)
class Dialect:
    """How the cells of a text file are written.

    Attributes
    ----------
    separator : str or None
        Between cells; None: blanks.
    decimal : str
        Decimal mark, ``"."`` or ``","``.
    thousands : str
        Mark between groups of three digits; empty if there is none.
    """

    separator: str | None
    decimal: str
    thousands: str = ""

    def cells(self, lines: Sequence[str]) -> Iterator[list[str]]:
        """Split lines into cells without quotes and blanks around them."""
        if self.separator is None:
            return ([cell.strip('"') for cell in line.split()] for line in lines)
        rows = csv.reader(lines, delimiter=self.separator, skipinitialspace=True)
        return ([cell.strip() for cell in row] for row in rows)

    def number(self, cell: str) -> float | None:
        """Number in a cell, NaN if it is missing; None for text."""
        if cell.lower() in MISSING:
            return float("nan")
        if self.thousands:
            cell = cell.replace(self.thousands, "")
        if self.decimal != ".":
            if "." in cell:
                return None
            cell = cell.replace(self.decimal, ".")
        try:
            return float(cell)
        except ValueError:
            return _with_blanks(cell)


def _with_blanks(cell: str) -> float | None:
    """Number with blanks or apostrophes between groups of three digits, or with the exponent of Fortran, 1.0D-3."""
    try:
        if _FORTRAN.fullmatch(cell):
            return float(cell.lower().replace("d", "e"))
        return float(_BLANK_GROUPS.sub("", cell)) if _BLANK_GROUPS.search(cell) else None
    except ValueError:
        return None


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers (T, d), one state a row, their columns, and their clock.

    Attributes
    ----------
    values : ndarray, shape (T, d)
        The columns of numbers but the clock, in the order of time.
    names : tuple of str
        Names of the columns: their numbers from 0 where the file has none.
    clock : Clock or None
        The clock.
    clock_name : str
        Its column.
    text : dict
        Columns that hold no numbers, with the place and text of the first cell that is none.
    counters : tuple of str
        Columns that rise evenly besides the clock, such as numbers of rows: no states unless they are selected.
    """

    values: Any
    names: tuple[str, ...]
    clock: Clock | None = None
    clock_name: str = ""
    text: Mapping[str, str] = field(default_factory=dict)
    counters: tuple[str, ...] = ()

    def columns(self, selection: Selection, path: Path) -> tuple[Any, tuple[str, ...]]:
        """Return the selected columns, (T,) or (T, d), and their names; all columns if none was selected."""
        chosen = self._chosen(selection) or tuple(name for name in self.names if name not in self.counters)
        for name in chosen:
            if name in self.text:
                raise FormatError(f"{self.text[name]}; select other columns: {self._listed()}")
            if name not in self.names:
                clock = f" ({self.clock_name} is its clock)" if self.clock_name else ""
                raise SelectionError(f"{path.name} has no column {name!r}; it has {self._listed()}{clock}")
        if not chosen:
            raise DataError(
                f"{path.name} has no column but the clock {self.clock_name!r}; --time none makes it a state"
            )
        values = self.values
        if chosen != self.names:
            values = values[:, [self.names.index(name) for name in chosen]]
        return (values[:, 0] if len(chosen) == 1 else values), chosen

    def _chosen(self, selection: Selection) -> tuple[str, ...]:
        known = {*self.names, *self.text}
        chosen: list[str] = []
        for name in (*selection.columns, *((selection.series,) if selection.series is not None else ())):
            chosen += [name] if name in known else [part.strip() for part in name.split(",")]
        return tuple(chosen)

    def _listed(self) -> str:
        more = f" and {len(self.names) - MOST_LISTED} more" if len(self.names) > MOST_LISTED else ""
        return ", ".join(self.names[:MOST_LISTED]) + more

    def states(self, selection: Selection, path: Path) -> Any:
        """Return the selected columns and rows: an array, or with a clock or a window a Trajectory."""
        import trajtools as tt

        only_runs = {"--member": selection.member is not None, "--select": bool(selection.select)}
        refuse_options([name for name, present in only_runs.items() if present], path)
        states, _ = self.columns(selection, path)
        if self.clock is not None:
            trajectory = tt.Trajectory.from_array(states, dt=self.clock.dt, time_unit=self.clock.unit)
        elif selection.window is not None:
            trajectory = tt.Trajectory.from_array(states, time_unit="sample")
        else:
            return states
        return trajectory if selection.window is None else trajectory.window(*selection.window)

    @property
    def warnings(self) -> tuple[Reason, ...]:
        """What was done to the rows."""
        return self.clock.reasons if self.clock is not None else ()

    def clock_text(self) -> str | None:
        """The clock in a few words; None if there is none."""
        return f"{self.clock_name}: {self.clock.dt:g} {self.clock.unit} a row" if self.clock is not None else None


def refuse_options(names: list[str], path: Path) -> None:
    """Refuse options that need a recorded file."""
    if names:
        way = "drop it" if len(names) == 1 else "drop them"
        way += ", or record twins (recorders.Recorder)" if "--method twins" in names else ""
        raise DataError(
            f"{', '.join(names)}: only for recorded files; {path.name} is a table, which holds one trajectory: {way}"
        )


def is_table(path: Path) -> bool:
    """Whether a file is read here, by its name."""
    return path.suffix.lower() in SUFFIXES


def read_table(path: Path, selection: Selection | None = None) -> Table:
    """Read a table.

    A .npy file holds an array (T,) or (T, d), or records; .npz and .parquet files hold columns. A text file has one
    state a line. The first line may name the columns, lines that begin with #, % or // are skipped, and empty cells,
    NA and NULL are NaN. Dates, numbers named as time, and evenly rising numbers are the clock.
    """
    check_is_file(path)
    if path.stat().st_size > MAX_BYTES:
        raise TooLargeError(f"{path} is larger than {MAX_BYTES // 2**30} GiB; thin the states out, or project them")
    suffix = path.suffix.lower()
    readers = {".npy": _read_npy, ".npz": _read_npz, ".parquet": _read_parquet}
    time = None if selection is None else selection.time
    if suffix in readers:
        columns, whole = readers[suffix](path)
        return _timed(columns, {}, path, time, whole)
    separator = None if selection is None else selection.sep
    decimal = None if selection is None else selection.decimal
    columns, text = _read_text(path, separator, decimal)
    if text and (not columns or selection is None or not (selection.columns or selection.series)):
        others = _other_columns(columns, _clock_column(columns, text, path, time) or "")
        ways = f"; leave the column out:{others}" if others else ""
        raise FormatError(next(iter(text.values())) + ways)
    return _timed(columns, text, path, time)


def _timed(
    columns: dict[str, Any], text: dict[str, str], path: Path, time: str | None, whole: NDArray[Any] | None = None
) -> Table:
    """Table of columns, with the one of times as its clock."""
    import numpy as np

    from trajtools.clocks import even_clock, time_name

    name = _clock_column(columns, text, path, time)
    clock = None
    if name is not None:
        known = time_name(name)
        unit = known[1] if known is not None else "sample" if _counts_rows(columns[name]) else "time"
        remedy = f"leave it out (--time none{_other_columns(columns, name)})"
        clock = even_clock(columns[name], f"the column {name!r} of {path.name}", unit=unit, remedy=remedy)
    states = {label: values for label, values in columns.items() if label != name}
    dated = [label for label, values in states.items() if values.dtype.kind in "mM"]
    text = {**text, **{label: f"column {label!r} of {path.name} holds times, which are no states" for label in dated}}
    states = {label: values for label, values in states.items() if label not in dated}
    length = len(next(iter(columns.values()))) if columns else 0
    if whole is not None and len(states) == len(columns):
        values = whole
    else:
        values = np.stack(list(states.values()), axis=1) if states else np.empty((length, 0))
    if clock is not None and clock.order is not None:
        values = values[clock.order]
    counters = tuple(label for label, column in states.items() if name is not None and _rises_evenly(column))
    return Table(values, tuple(states), clock, name or "", text, counters if time is None else ())


def _other_columns(columns: Mapping[str, Any], name: str) -> str:
    return "".join(f" --column {label}" for label in [label for label in columns if label != name][:3])


def _clock_column(columns: dict[str, Any], text: Mapping[str, str], path: Path, time: str | None) -> str | None:
    """The column of times: that of the option, one of dates, one named as time, or one that rises evenly."""
    from trajtools.clocks import time_name

    if time is not None:
        if time.lower() == NO_CLOCK and time not in columns:
            return None
        if time not in columns:
            reason = f": {text[time]}" if time in text else f"; it has {', '.join(list(columns)[:MOST_LISTED])}"
            raise SelectionError(f"{path.name} has no column {time!r} of times{reason}")
        return time
    if len(columns) < 2:
        return None
    _join_dates(columns)
    dated = [label for label, values in columns.items() if values.dtype.kind in "mM"]
    if len(dated) > 1:
        raise SelectionError(f"{path.name} has several columns of times; choose the clock: --time {dated[0]!r}")
    named = [label for label, values in columns.items() if time_name(label) is not None and _is_monotonic(values)]
    even = [label for label, values in columns.items() if _rises_evenly(values)]
    return next(iter((*dated, *named, *even)), None)


def _join_dates(columns: dict[str, Any]) -> None:
    """Join a column of dates and one of times of day."""
    dates = [label for label, values in columns.items() if values.dtype.kind == "M"]
    hours = [label for label, values in columns.items() if values.dtype.kind == "m"]
    if len(dates) == 1 and len(hours) == 1:
        columns[dates[0]] = columns[dates[0]] + columns.pop(hours[0])


def _is_monotonic(values: Any) -> bool:
    return values.dtype.kind in "fiu" and bool((values[1:] >= values[:-1]).all() or (values[1:] <= values[:-1]).all())


def _rises_evenly(values: Any) -> bool:
    """Whether a column is surely time or counts rows: such a coordinate would make every trajectory drift."""
    import numpy as np

    if values.dtype.kind not in "fiu" or len(values) < 4:
        return False
    gaps = np.diff(values.astype(np.float64))
    return bool(gaps[0] > 0 and np.all(np.abs(gaps - gaps[0]) <= 1e-6 * gaps[0]))


def _counts_rows(values: Any) -> bool:
    return _rises_evenly(values) and float(values[1] - values[0]) == 1.0


def _read_npy(path: Path) -> tuple[dict[str, Any], NDArray[Any] | None]:
    import numpy as np

    with path.open("rb") as file:
        written = file.read(6) == b"\x93NUMPY"
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        why = f" ({error})" if written else ""  # else numpy takes it for a pickle, and says how to trust it
        raise FormatError(f"{path} is not a .npy file of numbers{why}; write it with numpy.save") from error
    if array.dtype.names is not None and array.ndim == 1:
        return {str(name): array[name] for name in array.dtype.names}, None
    columns = _columns_of_array(array, path)
    return columns, array[:, None] if array.ndim == 1 else array


def _columns_of_array(array: Any, path: Path, name: str = "") -> dict[str, Any]:
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
        raise FormatError(
            f"{path} holds an array {array.shape} of {array.dtype}; a trajectory is (T,) or (T, d), of real numbers"
        )
    if not array.size:
        raise FormatError(f"{path} holds an array {array.shape} without numbers")
    if array.ndim == 1:
        return {name or "0": array}
    return {f"{name}[{at}]" if name else str(at): array[:, at] for at in range(array.shape[1])}


def _read_npz(path: Path) -> tuple[dict[str, Any], NDArray[Any] | None]:
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {str(name): archive[name] for name in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path} is not a .npz file of numbers ({error}); write it with numpy.savez") from error
    if len(arrays) == 1:
        return _columns_of_array(next(iter(arrays.values())), path), None
    lengths = {array.shape[:1] for array in arrays.values()}
    if len(lengths) != 1 or lengths == {()}:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise FormatError(f"the arrays of {path} differ in length: {shapes}; save those of one trajectory")
    columns: dict[str, Any] = {}
    for name, array in arrays.items():
        columns |= {name: array} if array.dtype.kind in "mM" else _columns_of_array(array, path, name)
    return columns, None


def _read_parquet(path: Path) -> tuple[dict[str, Any], NDArray[Any] | None]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as missing:
        raise MissingDependencyError(
            f'{path}: .parquet files need pyarrow, which is not installed: pip install "trajtools[interop]"'
        ) from missing
    from trajtools.values import read_columns

    try:
        return read_columns(parquet.read_table(path), path.name), None
    except (ArrowException, OSError) as error:
        raise FormatError(f"{path} is not a .parquet file that can be read ({error})") from error


# Text


def _read_text(path: Path, separator: str | None, decimal: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Columns of numbers and of times, and what is no number in the others."""
    from trajtools.clocks import parse_dates

    numbered, comment = _lines(path)
    if not numbered:
        raise FormatError(f"{path} has no line with numbers")
    lines = [line for _, line in numbered]
    dialect = _dialect(lines, path, separator, decimal)
    rows = list(dialect.cells(lines))
    places = [number for number, _ in numbered]
    names: list[str] = []
    if not any(_is_value(cell, dialect) for cell in rows[0] if cell) or _is_header(rows, dialect):
        names, rows, places = rows[0], rows[1:], places[1:]
        if rows and not any(_is_value(cell, dialect) for cell in rows[0]):  # a line of units
            rows, places = rows[1:], places[1:]
    elif comment is not None:
        names = _names_in_comment(comment, dialect, len(rows[0]))
    if not rows:
        raise FormatError(f"{path} has no line with numbers")
    names, rows = _rectangular(names, rows, places, path)
    columns: dict[str, Any] = {}
    text: dict[str, str] = {}
    for at, name in enumerate(names):
        cells = [row[at] for row in rows]
        numbers = _numbers(cells, dialect)
        if numbers is not None:
            columns[name] = numbers
            continue
        times = parse_dates(cells)
        times = _times_of_day(cells) if times is None else times
        if times is not None:
            columns[name] = times
            continue
        row = next(row for row, cell in enumerate(cells) if dialect.number(cell) is None)
        text[name] = f"line {places[row]} of {path}, cell {at + 1}: {cells[row]!r} is not a number"
    return columns, text


def _lines(path: Path) -> tuple[list[tuple[int, str]], str | None]:
    """Lines with their numbers, and the last comment before the first of them."""
    raw = path.read_bytes()
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in raw:
            raise FormatError(f"{path} is not UTF-8 text ({error.reason})") from error
        content = raw.decode("cp1252", errors="replace")
    numbered: list[tuple[int, str]] = []
    comment = None
    for number, line in enumerate(content.splitlines(), 1):
        if line.lstrip().startswith(("#", "%", "//")) and not line.lstrip().lower().startswith("#n/a"):
            comment = comment if numbered else line.lstrip(" #%/")
        elif line.strip():
            numbered.append((number, line))
    return numbered, comment


def _dialect(lines: Sequence[str], path: Path, separator: str | None, decimal: str | None) -> Dialect:
    """Separator and decimal mark: the first pair that reads most cells of a sample of lines as numbers or dates."""
    if separator is not None:
        known = SEPARATORS.get(separator.lower(), separator.strip() or None)
        separators: list[str | None] = [known]
        if known is not None and len(known) != 1:
            raise SelectionError(f"--sep {separator!r}: give one character, 'tab' or 'space'")
    else:
        separators = [";", "\t", ",", None]
    sample = [*lines[:PROBED], *lines[-PROBED:]] if len(lines) > 2 * PROBED else list(lines)
    best, most, unclear = Dialect(separators[-1], decimal or "."), -1.0, ""
    for mark in separators:
        if separator is None and mark is not None and not any(mark in line for line in sample):
            continue
        for point in (decimal,) if decimal is not None else (".", ","):
            if mark == point:
                continue
            dialect, example = _grouped(Dialect(mark, point), sample, decimal)
            rows = list(dialect.cells(sample))
            cells = [cell for row in rows[1 if len(rows) > 1 else 0 :] for cell in row]
            read = sum(_is_value(cell, dialect) for cell in cells) / max(len(cells), 1)
            if read > most + 0.01:
                best, most, unclear = dialect, read, example
    if unclear:
        raise FormatError(
            f"cells of {path} such as {unclear!r} can be read in two ways: say --decimal . if the comma separates "
            "thousands, or --decimal ,"
        )
    return best


def _grouped(dialect: Dialect, sample: Sequence[str], decimal: str | None) -> tuple[Dialect, str]:
    """Add the mark between groups of three digits, if the cells have one; and a cell where this is not clear."""
    mark = "," if dialect.decimal == "." else "."
    if dialect.separator == mark and not any('"' in line for line in sample):
        return dialect, ""
    cells = [cell for row in dialect.cells(sample) for cell in row if mark in cell]
    numbers = [cell for cell in cells if re.fullmatch(r"[+-]?[\d.,]+([eE][+-]?\d+)?", cell)]
    grouped = [cell for cell in numbers if _GROUPS[mark].match(cell)]
    if not numbers or len(grouped) < len(numbers):
        return dialect, ""
    both = any(dialect.decimal in cell for cell in numbers)
    if not both and decimal is None and (mark == "." or dialect.separator == ";"):
        return dialect, ""  # 1.234 is a number as it is; who separates by semicolons has the comma for decimals
    clear = both or decimal is not None or dialect.separator == ","
    return replace(dialect, thousands=mark), "" if clear else numbers[0]


def _is_value(cell: str, dialect: Dialect) -> bool:
    from trajtools.clocks import parse_dates

    if dialect.number(cell) is not None:
        return True
    return bool(_TIME_OF_DAY.fullmatch(cell)) or (bool(_LIKE_A_DATE.match(cell)) and parse_dates([cell]) is not None)


def _is_header(rows: Sequence[Sequence[str]], dialect: Dialect) -> bool:
    """Whether the first row has text where the second has a value."""
    first = [_is_value(cell, dialect) for cell in rows[0]]
    if all(first):
        return False
    if len(rows) < 2:
        return True
    below = [_is_value(cell, dialect) for cell in rows[1]]
    return any(not one and other for one, other in zip(first, below, strict=False))


def _names_in_comment(comment: str, dialect: Dialect, width: int) -> list[str]:
    """Names of columns in a comment above them, if one of them is time."""
    from trajtools.clocks import time_name

    for one in (dialect, Dialect(None, ".")):
        (names, *_) = one.cells([comment]) if comment.strip() else [[]]
        if len(names) == width and any(time_name(name) is not None for name in names):
            return list(names)
    return []


def _rectangular(
    names: list[str], rows: list[list[str]], places: Sequence[int], path: Path
) -> tuple[list[str], list[list[str]]]:
    """Names and rows of one width: without an empty last cell, and without labels of rows that have no name."""
    width = len(names) or len(rows[0])
    if all(not row[-1] for row in rows if len(row) >= width) and len(max(rows, key=len)) > 1:
        if not names or not names[-1]:
            width -= 1
        rows = [row[:-1] if len(row) > width and not row[-1] else row for row in rows]
    elif names and all(len(row) == width + 1 for row in rows):
        rows = [row[1:] for row in rows]
    rows = [row[:-1] if len(row) == width + 1 and not row[-1] else row for row in rows]
    for row, number in zip(rows, places, strict=True):
        if len(row) != width:
            raise FormatError(
                f"line {number} of {path} has {counted(len(row), 'cell')}, the first one has {width}; name the "
                "separator with --sep, the decimal mark with --decimal"
            )
    names = names[:width] or [str(at) for at in range(width)]
    repeated = {name for name in names if names.count(name) > 1}
    return [f"{name}[{at}]" if name in repeated or not name else name for at, name in enumerate(names)], rows


def _numbers(cells: Sequence[str], dialect: Dialect) -> Any:
    """Numbers of a column; None if some cell is text."""
    import numpy as np

    if dialect.decimal == "." and not dialect.thousands:
        try:
            return np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            pass
    numbers = [dialect.number(cell) for cell in cells]
    return None if None in numbers else np.array(numbers, dtype=np.float64)


def _times_of_day(cells: Sequence[str]) -> Any:
    """Durations of a column such as 12:30 or 12:30:05.5; None if some cell is something else."""
    import numpy as np

    matches = [_TIME_OF_DAY.fullmatch(cell) for cell in cells]
    if not all(matches):
        return None
    seconds = [
        3600 * int(m[1]) + 60 * int(m[2]) + float((m[3] or "0").replace(",", ".")) for m in matches if m is not None
    ]
    return np.round(np.array(seconds) * 1e6).astype("timedelta64[us]")


def _beside(path: Path) -> str:
    """Name the files of its folder that can be read, those with similar names first."""
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    names = sorted(p.name for p in path.parent.iterdir() if p.suffix.lower() in (".h5", ".hdf5", *SUFFIXES))
    close = get_close_matches(path.name, names, n=MOST_NAMED)
    listed = [*close, *(name for name in names if name not in close)][:MOST_NAMED]
    more = f" and {len(names) - len(listed)} more" if len(names) > len(listed) else ""
    return f"; its folder holds {', '.join(listed)}{more}" if names else ""


def check_is_file(path: Path) -> None:
    """Refuse a path that is no file, an empty file, and suggest files that are there."""
    if path.is_dir():
        inside = sorted(path.glob("*.h5"))
        hint = f"; did you mean {inside[0]}?" if inside else " without .h5 files"
        raise DataError(f"{path} is a folder{hint}")
    if not path.exists():
        raise DataError(f"{path} does not exist{_beside(path)}")
    if path.stat().st_size == 0:
        raise FormatError(f"{path} is empty (0 bytes)")
