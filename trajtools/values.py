"""Numbers, column names and clock of arrays, masks, tensors, lists, and tables of pandas, polars and xarray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.clocks import UNIT_OF_SPELLING, Clock, even_clock, parse_dates, time_name
from trajtools.errors import DataError
from trajtools.reasons import Reason
from trajtools.wording import one_unit, time_units

TABLES = ("pandas", "polars", "xarray", "pyarrow")
MOST_NAMED = 5  # columns that a message lists
STEPPED = ("step", "epoch")  # units of time of a training


@dataclass(frozen=True, eq=False)
class Values:
    """Numbers with what is known about them.

    Attributes
    ----------
    array : ndarray
        The numbers; NaN where they are masked or missing.
    names : tuple of str
        Names of the columns; empty if there are none.
    clock : Clock or None
        Their clock, which has been applied to the rows.
    reasons : tuple of Reason
        What was done to them.
    """

    array: NDArray[Any]
    names: tuple[str, ...] = ()
    clock: Clock | None = None
    reasons: tuple[Reason, ...] = ()


def not_finite(
    finite: NDArray[np.bool_], *, step: NDArray[Any] | None = None, noun: str = "states", of: str = ""
) -> tuple[Reason, ...]:
    """Say how many states are left out because they are not finite, and from where on; nothing if none is.

    `step`: their steps, if they have any; `of`: which of several trajectories they belong to.
    """
    excluded = int(np.count_nonzero(~finite))
    if not excluded:
        return ()
    first = int(np.argmin(finite))
    values = {"excluded": excluded, "states": len(finite), "noun": f"{noun} of {of}" if of else noun}
    values |= {"first": first if step is None else int(step[first]), "place": place(first, step)}
    if excluded == len(finite):
        return (Reason.of("not-finite", "all {states} {noun} are missing (NaN) or infinite", **values),)
    if first == len(finite) - excluded:
        text = (
            "from {place} on the {noun} are NaN or infinite: the {kept} before are analysed, the other {excluded} are "
            "left out"
        )
        return (Reason.of("not-finite", text, kept=first, **values),)
    text = "{excluded} of {states} {noun} are missing (NaN) or infinite, the first at {place}: left out"
    return (Reason.of("not-finite", text, **values),)


def rows_not_finite(x: Any) -> tuple[Reason, ...]:
    """Say how many states of `x`, or samples if it is a series, are left out because they are not finite."""
    step, noun = training_steps(x), "samples" if np.size(x) == len(x) else "states"
    return not_finite(finite_rows(x), step=step, noun=noun)


def place(row: int, step: NDArray[Any] | None) -> str:
    """Name a state by its step, or by its index where there are no steps."""
    return f"index {row}" if step is None else f"step {step[row]}"


def training_steps(x: Any) -> NDArray[Any] | None:
    """Steps of the states of a training; None of arrays, and of tables with a clock, whose rows are counted."""
    step = getattr(x, "step", None)
    return np.asarray(step) if step is not None and getattr(x, "time_unit", "") in STEPPED else None


def finite_rows(x: Any) -> NDArray[np.bool_]:
    """Which states of `x`, (T, d) or (T,), are finite, shape (T,)."""
    rows = np.asarray(x).reshape(len(x), -1)
    if not rows.shape[1]:
        return np.ones(len(rows), dtype=bool)
    # Both are NaN where a number is: no mask as large as the states.
    return np.asarray(np.isfinite(rows.min(axis=1)) & np.isfinite(rows.max(axis=1)))


def package(x: Any) -> str:
    """Package that the type of `x`, or a class that it is derived from, belongs to; empty for numpy's and Python's."""
    for cls in type(x).__mro__:
        name = cls.__module__.partition(".")[0]
        if name in (*TABLES, "torch", "cupy", "networkx", "scipy"):
            return name
    return ""


def is_ready(x: Any) -> bool:
    """Whether `x` is an array of real numbers as it is."""
    return type(x) is np.ndarray and x.dtype.kind in "fiub"


def read_values(x: Any, name: str = "x") -> Values:
    """Read numbers, and the clock of a table; nothing is copied that is right already."""
    if is_ready(x):
        return Values(x)
    if isinstance(x, (str, bytes, PathLike)):
        raise DataError(
            f"{name} is text, {_short(x)}, and not an array of real numbers; open a recorded file with tt.open, read a "
            "table with pandas.read_csv or numpy.loadtxt"
        )
    home = package(x)
    if home in TABLES:
        return _READERS[home](x, name)
    if isinstance(x, np.ndarray) and x.dtype.names is not None:
        return _table({str(column): x[column] for column in x.dtype.names}, name)
    return Values(read_array(x, name))


def read_array(x: Any, name: str = "x") -> NDArray[Any]:
    """Convert to an array of real numbers, with NaN where it is masked or missing."""
    if is_ready(x):
        array: NDArray[Any] = x
        return array
    if isinstance(x, Mapping):
        raise DataError(
            f"{name} is a dict; needed an array, a table such as a DataFrame, or a list of states, one a step"
        )
    raw = _plain(x, name)
    if isinstance(raw, np.ma.MaskedArray):
        if raw.dtype.kind in "iub":
            raw = raw.astype(np.float64)
        return _real(raw.filled(np.nan), name) if raw.dtype.kind == "f" else _real(_objects(raw, name), name)
    return _real(raw, name)


def _plain(x: Any, name: str) -> Any:
    """Array of what holds numbers: tensors, sparse matrices, and lists of these."""
    if isinstance(x, np.ndarray):
        return x if isinstance(x, np.ma.MaskedArray) else np.asarray(x)  # np.matrix and others index unlike arrays
    home = package(x)
    if home == "torch":
        return _of_tensor(x)
    if home == "cupy":
        return np.asarray(x.get())
    if hasattr(x, "toarray"):  # scipy's sparse matrices
        return np.asarray(x.toarray())
    if isinstance(x, (list, tuple)) and any(_has_entries(item) for item in x):
        return _stacked(x, name)
    try:
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name}: a {type(x).__name__} cannot be read as numbers ({error})") from error


def _of_tensor(tensor: Any) -> NDArray[Any]:
    """Numbers of a torch tensor on any device, with or without a gradient; those numpy lacks become float32."""
    tensor = tensor.detach().cpu()
    if str(tensor.layout) != "torch.strided":
        tensor = tensor.to_dense()
    if any(kind in str(tensor.dtype) for kind in ("bfloat16", "float8")):
        tensor = tensor.float()
    return np.asarray(tensor.numpy())


def _has_entries(item: Any) -> bool:
    return not isinstance(item, (int, float, str)) and (hasattr(item, "shape") or hasattr(item, "__len__"))


def _stacked(items: Sequence[Any], name: str) -> NDArray[Any]:
    """One array of a list of arrays, tensors, masked arrays or lists, one a state."""
    if all(isinstance(item, (list, tuple)) for item in items) and not _has_arrays(items):
        try:
            return np.asarray(items)
        except ValueError:
            sizes = [len(item) for item in items]
            raise _unequal(sizes, name) from None
    arrays = [_state(item, f"{name}[{at}]") for at, item in enumerate(items)]
    if len({array.shape for array in arrays}) > 1:
        raise _unequal([array.shape for array in arrays], name)
    return np.stack(arrays)


def _state(item: Any, name: str) -> NDArray[Any]:
    """One state: an array, a missing number, or a dict of arrays, one after the other, as state dicts have it."""
    if item is None:
        return np.asarray(np.nan)
    if isinstance(item, Mapping):
        return np.concatenate([read_array(part, f"{name}[{key!r}]").reshape(-1) for key, part in item.items()])
    return read_values(item, name).array


def _has_arrays(items: Sequence[Any]) -> bool:
    return any(not isinstance(entry, (int, float, str, list, tuple)) for item in items for entry in item)


def _unequal(sizes: Sequence[Any], name: str) -> DataError:
    other = next((at for at, size in enumerate(sizes) if size != sizes[0]), 0)
    return DataError(
        f"the states in {name} differ in shape: state 0 has {sizes[0]}, state {other} has {sizes[other]}; every state "
        "is one flat array of the same numbers"
    )


def _real(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Refuse what is not real numbers; convert objects and the floats that numpy does not know."""
    if array.dtype.kind == "O":
        if not array.ndim:
            raise DataError(
                f"{name} is of type {type(array.item()).__name__} and holds no numbers; needed states (T, d) or a "
                "series (T,), as an array, a tensor, a table or a Trajectory"
            )
        array = _objects(array, name)
    kind = array.dtype.kind
    if kind == "f":
        return array.astype(np.float64) if array.dtype.itemsize > 8 else array
    if kind in "iub":
        return array
    if kind == "V" and array.dtype.names is None and array.dtype.type is not np.void:  # bfloat16, float8 of ml_dtypes
        return array.astype(np.float32)
    words = {
        "c": "complex ones; give real and imaginary part as two columns, np.c_[x.real, x.imag]",
        "M": "dates; give the values, and the time between them as dt=",
        "m": "durations; give the values, and the time between them as dt=",
        "U": "text; convert it to numbers first, x.astype(float)",
        "S": "text; convert it to numbers first, x.astype(float)",
    }
    raise DataError(
        f"{name}, shape {array.shape} of dtype {array.dtype}, must hold real numbers; it holds "
        f"{words.get(kind, 'none')}"
    )


def _objects(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Numbers of an array of Python objects; None and pandas.NA are missing."""
    masked = np.ma.getmaskarray(array)
    plain = np.ma.getdata(array)
    if plain.size and all(value is None for value in plain.flat):
        raise DataError(f"{name} holds no numbers, only None (shape {plain.shape})")
    out = np.empty(plain.shape)
    for place, value in np.ndenumerate(plain):
        if masked[place] or value is None or type(value).__name__ in ("NAType", "NaTType"):
            out[place] = np.nan
            continue
        try:
            if isinstance(value, (str, bytes)):
                raise TypeError
            out[place] = float(value)
        except (TypeError, ValueError):
            where = place[0] if len(place) == 1 else place
            raise DataError(
                f"{name} holds objects and not only numbers: {_short(value)} in row {where}; convert it first, or "
                "select the columns of numbers"
            ) from None
    return out


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Tables


def read_columns(table: Any, name: str) -> dict[str, NDArray[Any]]:
    """Columns of a table of arrow, as numbers or times."""
    return {str(label): _column(_arrow_column(table.column(label)), name) for label in table.column_names}


def _table(columns: Mapping[str, Any], name: str, clock: Clock | None = None) -> Values:
    """States of named columns (T,); the column of times, if there is one, is their clock."""
    known = {label: _column(values, f"{name}[{label!r}]") for label, values in columns.items()}
    clock_column: str | None = None
    remark: tuple[Reason, ...] = ()
    if clock is None:
        clock_column, clock, remark = split_clock(known, name)
    states = {label: values for label, values in known.items() if label != clock_column}
    wrong = [label for label, values in states.items() if values.dtype.kind not in "fiub"]
    if wrong:
        first = states[wrong[0]]
        holds = "times" if first.dtype.kind in "mM" else f"text ({_short(str(first[0]))})" if len(first) else "text"
        right = [label for label in states if label not in wrong][:2]
        such = f", such as {name}[[{', '.join(map(repr, right))}]]" if right else ""
        raise DataError(
            f"{name}: {'column' if len(wrong) == 1 else 'columns'} {_listed(wrong)}: {wrong[0]!r} holds {holds} and no "
            f"numbers; select the columns of the state{such}"
        )
    if not states:
        raise DataError(f"{name} has no column of numbers; its columns are {_listed(list(columns))}")
    parts = list(states.values())
    array = parts[0][:, None] if len(parts) == 1 else np.stack(parts, axis=1)
    return ordered(Values(array, tuple(states), clock, remark))


def ordered(values: Values) -> Values:
    """Apply the order of the clock to the rows."""
    clock = values.clock
    if clock is None:
        return values
    array = values.array if clock.order is None else values.array[clock.order]
    return replace(values, array=array, reasons=(*clock.reasons, *values.reasons))


def split_clock(columns: Mapping[str, NDArray[Any]], name: str) -> tuple[str | None, Clock | None, tuple[Reason, ...]]:
    """Find the column of times: dates, or numbers named as time that rise or fall. Its name, clock, and a remark."""
    dated = [label for label, values in columns.items() if values.dtype.kind in "mM"]
    if len(dated) > 1:
        raise DataError(f"{name} has several columns of times, {_listed(dated)}; keep the one that is the clock")
    named = [
        label
        for label, values in columns.items()
        if time_name(label) is not None and values.dtype.kind in "fiu" and len(columns) > 1 and _is_monotonic(values)
    ]
    for label in (*dated, *named):
        unit = (time_name(label) or ("", "time"))[1]
        clock = even_clock(columns[label], f"the column {label!r} of {name}", unit=unit)
        if clock is not None:
            text = "the column {column!r} is the clock (a row every {dt:g} {units}), not a coordinate of the state"
            units = one_unit(clock.unit) if clock.dt == 1 else time_units(clock.unit)
            remark = Reason.of("clock-column", text, column=label, dt=clock.dt, unit=clock.unit, units=units)
            return label, clock, (remark,)
    return None, None, ()


def _is_monotonic(values: NDArray[Any]) -> bool:
    return len(values) > 2 and bool(np.all(values[1:] >= values[:-1]) or np.all(values[1:] <= values[:-1]))


def _column(values: Any, name: str) -> NDArray[Any]:
    """A column as numbers or as times; text that is neither stays text."""
    array = np.asarray(values) if not isinstance(values, np.ma.MaskedArray) else values
    if array.dtype.kind in "OU":
        texts = [value for value in array.tolist() if isinstance(value, str)]
        if texts:
            filled = ["" if value is None or value != value else str(value) for value in array.tolist()]  # noqa: PLR0124
            dates = parse_dates(filled)
            return dates if dates is not None else np.asarray(filled)
        return _dates_of_objects(array, name)
    return array if array.dtype.kind in "mM" else read_array(array, name)


def _dates_of_objects(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Numbers of objects, or times of datetime objects."""
    first = next((value for value in array.tolist() if value is not None), None)
    if hasattr(first, "isoformat"):
        return np.array([None if value is None else value for value in array.tolist()], dtype="datetime64[us]")
    return read_array(array, name)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(repr, names[:MOST_NAMED])) + more


def _read_pandas(x: Any, name: str) -> Values:
    if not hasattr(x, "index"):  # an Index, or an extension array
        return Values(_pandas_numbers(x, name))
    clock = _clock_of_index(x.index, name)
    if x.ndim == 1:
        return ordered(Values(_pandas_numbers(x, name), () if x.name is None else (str(x.name),), clock))
    labels = [label if isinstance(label, str) else str(label) for label in x.columns]
    if len(set(labels)) < len(labels):
        raise DataError(f"{name} has several columns of one name, of {_listed(labels)}; rename them")
    numbers = all(getattr(kind, "kind", "O") in "fiub" and not hasattr(kind, "na_value") for kind in x.dtypes)
    timed = clock is None and any(time_name(label) is not None for label in labels)
    block = np.asarray(x) if numbers and not timed else None  # which pandas may hold without a copy
    if block is not None and block.dtype.kind != "O":  # numbers beside booleans make objects
        return ordered(Values(block, tuple(labels), clock))
    columns = {label: _pandas_column(x.iloc[:, at], f"{name}[{label!r}]") for at, label in enumerate(labels)}
    return _table(columns, name, clock)


def _pandas_column(column: Any, name: str) -> Any:
    if getattr(column.dtype, "kind", "O") == "M":
        return _pandas_times(column)
    kind = getattr(column.dtype, "kind", "O")
    return _pandas_numbers(column, name) if kind in "fiub" else column.astype(object).to_numpy()


def _pandas_times(times: Any) -> NDArray[Any]:
    """Times in UTC."""
    zoned = getattr(times, "dt", times)
    if getattr(zoned, "tz", None) is not None:
        times = zoned.tz_convert("UTC").tz_localize(None) if zoned is times else zoned.tz_convert(None)
    return np.asarray(times.to_numpy())


def _pandas_numbers(x: Any, name: str) -> NDArray[Any]:
    if (
        hasattr(getattr(x, "dtype", None), "na_value") and getattr(x.dtype, "kind", "O") in "fiub"
    ):  # Int64, Float64, ...
        return np.asarray(x.to_numpy(dtype=np.float64, na_value=np.nan))
    return read_array(np.asarray(x), name)


def _clock_of_index(index: Any, name: str) -> Clock | None:
    """Clock of an index of pandas; integers only number the rows, which are sorted by them if they differ."""
    what = f"the index of {name}"
    kind = type(index).__name__
    if kind == "MultiIndex":
        raise DataError(
            f"{what} has {index.nlevels} levels: {name} holds several series; select one, such as {name}.xs(key)"
        )
    if kind == "PeriodIndex":
        index = index.to_timestamp()
    if getattr(index.dtype, "kind", "O") in "mM":
        remedy = f"leave NaN in the gaps, which are taken: {name}.sort_index().asfreq('{{step}}')"
        return even_clock(_pandas_times(index), what, remedy=remedy)
    stamps = np.asarray(index)
    if stamps.dtype.kind == "f":
        return even_clock(stamps, what)
    if stamps.dtype.kind in "iu":
        gaps = np.diff(np.sort(stamps))
        if len(gaps) and np.all(gaps > 0) and not np.array_equal(np.diff(stamps), np.full(len(gaps), gaps[0])):
            remedy = (
                f"leave NaN for rows that were dropped: {name}.reindex(range(first, last + 1)); or, if the index "
                f"only numbers the rows, {name}.reset_index(drop=True)"
            )
            clock = even_clock(stamps, what, unit="sample", remedy=remedy)
            return None if clock is None else replace(clock, dt=1.0)
        return None
    texts = [value for value in stamps.tolist() if isinstance(value, str)]
    dates = parse_dates(texts) if len(texts) == len(stamps) else None
    return None if dates is None else even_clock(dates, what)


def _read_polars(x: Any, name: str) -> Values:
    if hasattr(x, "collect"):  # a LazyFrame
        x = x.collect()
    if not hasattr(x, "columns"):
        return Values(_polars_column(x, name), (x.name,) if x.name else ())
    return _table({label: _polars_column(x.get_column(label), name) for label in x.columns}, name)


def _polars_column(column: Any, name: str) -> NDArray[Any]:
    if column.dtype.is_numeric() and column.null_count():
        column = column.cast(type(column.dtype) if column.dtype.is_float() else float)
    return _column(column.to_numpy(), name)


def _read_pyarrow(x: Any, name: str) -> Values:
    if hasattr(x, "column_names"):
        return _table({label: _arrow_column(x.column(label)) for label in x.column_names}, name)
    return Values(read_array(_arrow_column(x), name))


def _arrow_column(column: Any) -> NDArray[Any]:
    return np.asarray(column.to_pandas()) if hasattr(column, "to_pandas") else np.asarray(column)


def _read_xarray(x: Any, name: str) -> Values:
    if hasattr(x, "data_vars"):
        return _read_dataset(x, name)
    time = _time_dimension(x)
    if time is None:
        return Values(read_array(x.values, name))
    x = x.transpose(time, ...)
    clock = None
    if time in x.coords:
        coordinate = x.coords[time]
        clock = _clock_of_coordinate(coordinate, f"the coordinate {time!r} of {name}")
    values = read_array(x.values, name)
    return ordered(Values(values.reshape(len(values), -1) if values.ndim > 2 else values, (), clock))


def _read_dataset(x: Any, name: str) -> Values:
    labels = [str(label) for label in x.data_vars]
    shapes = {x[label].dims for label in labels}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise DataError(f"{name} is a Dataset whose variables are not all series of one time; give one: {name}[name]")
    parts = [_read_xarray(x[label], name) for label in labels]
    return replace(parts[0], array=np.stack([part.array for part in parts], axis=1), names=tuple(labels))


def _time_dimension(x: Any) -> str | None:
    """Dimension of times: of dates, or named as time; None if there is none."""
    dimensions = [str(dimension) for dimension in x.dims]
    dated = [d for d in dimensions if d in x.coords and x.coords[d].dtype.kind in "mM"]
    named = [d for d in dimensions if time_name(d) is not None]
    return next(iter((*dated, *named, *(d for d in dimensions[:1] if d in x.coords))), None)


def _clock_of_coordinate(coordinate: Any, what: str) -> Clock | None:
    stamps = np.asarray(coordinate.values)
    if stamps.dtype.kind not in "mMfiu":
        return None
    known = time_name(str(coordinate.name))
    if known is None and stamps.dtype.kind in "iu":
        return None
    unit = str(coordinate.attrs.get("units") or (known[1] if known else "time"))
    unit = UNIT_OF_SPELLING.get(unit.lower(), unit)
    return even_clock(
        stamps, what, unit=unit, remedy="leave NaN in the gaps, which are taken: x.resample(time='{step}').asfreq()"
    )


_READERS = {"pandas": _read_pandas, "polars": _read_polars, "xarray": _read_xarray, "pyarrow": _read_pyarrow}
