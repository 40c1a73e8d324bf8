"""Recorded states in the formats of other programs: arrays, state dicts, tables, labelled arrays, graphs."""

from __future__ import annotations

import csv
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from trajtools.distances.equal_times import distance
from trajtools.errors import DataError, MissingDependencyError, SelectionError, TooLargeError, UnknownNameError
from trajtools.results import to_plain
from trajtools.store import Run, StoredStates, publish
from trajtools.trajectory import MAX_ARRAY_BYTES, Trajectory
from trajtools.types import Floats
from trajtools.wiring import Parameter

FORMATS = ("npz", "safetensors", "pt", "csv", "parquet", "nc", "zarr", "graphml", "gexf")
TABLES, STATE_DICTS, GRAPHS = ("csv", "parquet"), ("npz", "safetensors", "pt"), ("graphml", "gexf")
WHAT = ("metrics", "distances", "weights")
ENDINGS = {"pth": "pt"}
BLOCK_BYTES = 16 * 2**20
Tick = Callable[[int], object]
ROWS, PARQUET_ROWS = 64, 8192
INSTALL = 'pip install "trajtools[interop]"'


def silent(_count: int) -> None:
    """Show no progress."""


def export(
    run: Run,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    member: int | None = None,
    select: str | Sequence[str] = (),
    window: tuple[int, int] | None = None,
    every: int = 1,
    step: int | None = None,
    state: int | None = None,
    what: str | Sequence[str] = (),
    series: str | Sequence[str] = (),
    metric: str | None = None,
    max_columns: int = 1000,
    max_edges: int = 100_000,
    mode: str = "x",
) -> Path:
    """Write a run in the format of another program.

    Parameters
    ----------
    run : Run
        Of a file that `trajtools.open` opened.
    path : path
        The file. For the state dicts also a folder, new or empty, which gets a file for each state.
    format : str or None
        ``"npz"``, ``"safetensors"`` and ``"pt"`` (state dicts), ``"csv"`` and ``"parquet"`` (tables with a row for each
        state), ``"nc"`` and ``"zarr"`` (labelled arrays for xarray), ``"graphml"`` and ``"gexf"`` (one state as a
        network); None: from the ending of the path.
    member : int or None
        Whose weights; None: the first, and metrics and distances of all.
    select : str or sequence of str
        Globs of parameter names; empty for all.
    window : (int, int) or None
        Only states whose step s fulfils ``window[0] <= s < window[1]``.
    every : int
        Only every k-th of these states.
    step, state : int or None
        One state, by its step or by its index (-1 is the last).
    what : str or sequence of str
        Columns of a table: ``"metrics"``, ``"distances"`` of twins to their reference, ``"weights"``; empty: metrics.
    series : str or sequence of str
        Globs of metrics in a table; empty for all.
    metric : str or None
        Distance between twins in a table; None: the stored one, ``"l1"`` where weights are stored.
    max_columns, max_edges : int
        Limits of tables and of networks.
    mode : str
        As of a recorder: ``"x"`` refuses a file that exists, ``"w"`` overwrites it.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    FileExistsError
        If the file exists, and may not be overwritten.
    UnknownNameError
        If there is no such format or mode.
    SelectionError
        If a selection matches nothing.
    DataError
        If the run does not hold what is asked for, or a format holds one state and several are selected.
    TooLargeError
        If a limit is exceeded; the message names a smaller question.
    MissingDependencyError
        If a package is missing that the format needs.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from recorders import Recorder
    >>> with Recorder("export.h5", {"w": np.ones(3)}, hparams={"lr": 0.1}, quiet=True) as recorder:
    ...     for step in range(5):
    ...         recorder.record({"w": np.full(3, 0.9**step)}, loss=0.9**step)
    >>> with tt.open("export.h5") as run:
    ...     path = tt.export(run, "metrics.csv")
    >>> path.read_text().split()[0]
    'step,loss'
    """
    if not hasattr(run, "trajectory"):
        raise DataError(f"export() takes an open Run, got a {type(run).__name__}; tt.open(file) opens one")
    target = Path(path)
    chosen = format or format_of(target)
    if chosen not in FORMATS:
        raise UnknownNameError(f"there is no format {chosen!r}; there are {', '.join(FORMATS)}")
    if mode not in ("x", "w"):
        raise UnknownNameError(f"there is no mode {mode!r}; there are 'x' (a new file) and 'w' (overwrite the file)")
    rows = select_rows(run, window=window, every=every, state=state, step=step)
    globs, columns, names = ((one,) if isinstance(one, str) else tuple(one) for one in (select, what, series))
    part = Part(run, rows, state is not None or step is not None, member, globs)
    write(
        part,
        target,
        chosen,
        what=columns,
        series=names,
        metric=metric,
        max_columns=max_columns,
        max_edges=max_edges,
        overwrite=mode == "w",
    )
    return target


def format_of(path: Path) -> str:
    """Return the format that a path names by its ending, npz for a folder; empty if it names none."""
    return ending_of(path) or ("npz" if path.is_dir() else "")


def ending_of(path: Path) -> str:
    """Return the ending of a path if it is that of a format; empty if not."""
    ending = path.suffix.lower().removeprefix(".")
    ending = ENDINGS.get(ending, ending)
    return ending if ending in FORMATS else ""


def write(
    part: Part,
    target: Path,
    form: str,
    *,
    what: Sequence[str] = (),
    series: Sequence[str] = (),
    metric: str | None = None,
    max_columns: int = 1000,
    max_edges: int = 100_000,
    overwrite: bool = False,
    tick: Tick = silent,
) -> None:
    """Write part of a run in one of `FORMATS`; `tick` is called with the number of states that are done."""
    if form in TABLES:
        columns = select_columns(part, what, series=series, metric=metric, largest=max_columns)
        with writing(target, overwrite=overwrite) as draft:
            (write_csv_file if form == "csv" else write_parquet)(draft, part, columns, tick)
    elif form in GRAPHS:
        with writing(target, overwrite=overwrite) as draft:
            write_graph(draft, part, form, largest=max_edges)
    elif form not in STATE_DICTS:
        dataset = labelled(part, form)
        with writing(target, overwrite=overwrite) as draft:
            write_labelled(draft, dataset, form)
    elif ending_of(target) != form:
        with writing(target, overwrite=overwrite) as draft:
            write_folder(draft, part, form, tick)
    elif form == "npz" and not (part.single and part.run.stored == "weights"):
        entries = archive_entries(part)
        with writing(target, overwrite=overwrite) as draft:
            write_npz(draft, entries)
    else:
        _one_state(part, form)
        with writing(target, overwrite=overwrite) as draft:
            for _, weights, about in _state_dicts(part):
                WRITERS[form](draft, weights, about)


@contextmanager
def writing(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Write a file or a folder under a temporary name, and rename it when it is complete."""
    if target.is_file() and not overwrite:
        raise FileExistsError(f"{target} exists and is not overwritten: choose another file, or mode='w'")
    target = Path(os.path.realpath(target))
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise DataError(f"{target} is neither a file nor a folder, and would be replaced: choose another output")
    if target.is_dir() and any(target.iterdir()):
        raise DataError(
            f"{target} is a folder that is not empty, so old and new files could be confused: choose another output"
        )
    if target == Path(os.path.realpath(os.curdir)):
        raise DataError(f"{target} is the current folder, which would be replaced: choose one that does not exist")
    draft = target.with_name(f"{target.name}.part-{os.getpid()}")
    try:
        yield draft
        if target.is_dir():
            target.rmdir()
        if draft.is_dir():
            os.replace(draft, target)
        else:
            publish(draft, target, overwrite=overwrite)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        draft.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class Part:
    """A selection of states of a run.

    Attributes
    ----------
    run : Run
        Run of an open file.
    rows : slice
        Indices of the states.
    single : bool
        Whether to export one state, without an axis of states.
    member : int or None
        Member whose weights are exported; None: the first.
    select : tuple of str
        Globs of parameter names; empty for all.
    """

    run: Run
    rows: slice
    single: bool = False
    member: int | None = None
    select: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.member is not None and not 0 <= self.member < self.run.n_members:
            raise SelectionError(
                f"run {self.run.name!r} has {self.run.n_members} members (from 0): there is no member {self.member}"
            )

    @property
    def step(self) -> NDArray[np.int64]:
        """Steps of the states, (T,)."""
        return self.run.step[self.rows]

    def weights(self) -> Trajectory:
        """Weights of the member."""
        return self._cut(self.run.trajectory(self.member or 0))

    def member_weights(self, member: int) -> Trajectory:
        """Weights of another member."""
        return self._cut(self.run.trajectory(member))

    def buffers(self) -> Trajectory | None:
        """Recorded buffers of the optimiser, if any."""
        if self.run.optimizer is None or self.select:
            return None
        source = StoredStates(self.run, self.member or 0, "optimizer")
        return Trajectory(source, step=self.run.step, parameters=self.run.optimizer_parameters)[self.rows]

    def metric(self, name: str) -> NDArray[np.float64]:
        """Values of a metric."""
        values = self.run.metrics[name][self.rows]
        return values[:, self.member] if values.ndim > 1 and self.member is not None else values

    def _cut(self, states: Trajectory) -> Trajectory:
        chosen = states[self.rows]
        return chosen.select(*self.select) if self.select else chosen


def select_rows(
    run: Run,
    *,
    window: tuple[int, int] | None = None,
    every: int = 1,
    state: int | None = None,
    step: int | None = None,
) -> slice:
    """Indices of the selected states."""
    steps, count = run.step, run.n_states
    if not count:
        raise DataError(f"run {run.name!r} has no states")
    if state is not None:
        if not -count <= state < count:
            raise SelectionError(f"run {run.name!r} has {count} states (0 to {count - 1}): there is no state {state}")
        return slice(state % count, state % count + 1, 1)
    if step is not None:
        at = int(np.searchsorted(steps, step))
        if at == count or steps[at] != step:
            near = " and ".join(str(one) for one in steps[max(0, at - 1) : at + 1])
            raise SelectionError(f"run {run.name!r} has no state of step {step}; the nearest: {near}")
        return slice(at, at + 1, 1)
    first, last = (0, count) if window is None else (int(np.searchsorted(steps, edge)) for edge in window)
    if first >= last:
        raise SelectionError(f"no state of run {run.name!r} in steps {window}; it has steps {steps[0]} to {steps[-1]}")
    return slice(first, last, every)


def archive_entries(part: Part) -> list[Entry]:
    """Arrays of a part of a run."""
    run, cut = part.run, 0 if part.single else slice(None)
    listed = [_whole("step", part.step[cut])]
    if run.stored == "weights" or part.select:
        part = replace(part, member=part.member or 0)  # the metrics are of the member whose weights stand beside them
        listed += _parameters(part.weights(), "", part.single)
    else:
        values: Any = getattr(run, run.stored)[part.rows]
        listed.append(_whole(run.stored, (values if part.member is None else values[:, part.member])[cut]))
    buffers = part.buffers()
    if buffers is not None:
        listed += _parameters(buffers, "optimizer/", part.single)
    listed += [_whole(f"metrics/{name}", part.metric(name)[cut]) for name in run.metrics]
    names = [entry.name for entry in listed]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"run {run.name!r} has several arrays called {twice[0]!r}: exclude one with --select")
    return listed


@dataclass(frozen=True, eq=False)
class Entry:
    """An array of an archive, read in pieces to limit memory.

    Attributes
    ----------
    name : str
        Name in the archive.
    shape : tuple of int
        Shape of the array.
    dtype : numpy.dtype
        Dtype of the array.
    pieces : callable
        Iterates over pieces of the array in C order.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: Callable[[], Iterator[NDArray[Any]]]


def _whole(name: str, values: Any) -> Entry:
    array = np.asarray(values)
    return Entry(name, array.shape, array.dtype, lambda: iter([array]))


def _parameters(states: Trajectory, prefix: str, single: bool) -> list[Entry]:
    listed = []
    for p in states.parameters:
        dtype = original(np.empty(0, states.dtype), p.dtype).dtype
        shape = p.shape if single else (len(states), *p.shape)
        listed.append(Entry(prefix + p.name, shape, dtype, _reader(states, slice(p.offset, p.offset + p.size), dtype)))
    return listed


def original(values: Any, dtype: str) -> Any:
    """Convert numbers to the dtype of the training; files store mixed dtypes in a wider one, without loss."""
    return values.astype(dtype) if dtype in ("float16", "float32", "float64") else values


def _reader(states: Trajectory, columns: slice, dtype: np.dtype[Any]) -> Callable[[], Iterator[NDArray[Any]]]:
    rows = max(1, BLOCK_BYTES // max(1, (columns.stop - columns.start) * states.dtype.itemsize))

    def pieces() -> Iterator[NDArray[Any]]:
        for start in range(0, len(states), rows):
            yield original(states.read(start, min(start + rows, len(states)), columns), dtype.name)

    return pieces


def write_npz(path: Path, entries: list[Entry]) -> None:
    """Write an archive that `numpy.load` opens."""
    with zipfile.ZipFile(path, "w") as archive:
        for entry in entries:
            header = {"descr": npy.dtype_to_descr(entry.dtype), "fortran_order": False, "shape": entry.shape}
            with archive.open(f"{entry.name}.npy", "w", force_zip64=True) as stream:
                npy.write_array_header_1_0(stream, header)
                for piece in entry.pieces():
                    stream.write(np.ascontiguousarray(piece).tobytes())


# State dicts: the weights of one state by the names of the parameters, as `load_state_dict` takes them.


@dataclass(frozen=True, eq=False)
class Weight:
    """One parameter of one state.

    Attributes
    ----------
    name : str
        As the framework calls it.
    dtype : str
        Of the training; float16, bfloat16, float32 or float64.
    values : ndarray
        In that dtype, but bfloat16 as float32.
    """

    name: str
    dtype: str
    values: NDArray[Any]

    def data(self) -> bytes:
        """Return the values as they lie in memory, little-endian; bfloat16 as 16 bits."""
        if self.dtype == "bfloat16":
            return (np.ascontiguousarray(self.values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
        return np.ascontiguousarray(self.values).astype(self.values.dtype.newbyteorder("<"), copy=False).tobytes()


def write_folder(folder: Path, part: Part, form: str, tick: Tick = silent) -> None:
    """Write a file for each state, with the weights alone and the step in its name."""
    digits = len(str(part.step[-1]))
    folder.mkdir()
    for step, weights, about in _state_dicts(part):
        WRITERS[form](folder / f"step_{step:0{digits}d}.{form}", weights, about)
        tick(1)


def _state_dicts(part: Part) -> Iterator[tuple[int, list[Weight], dict[str, str]]]:
    """Yield step, weights and a description of each state."""
    states, run = part.weights(), part.run
    member = run.members[part.member or 0].name
    for rows, block in states.blocks():
        for step, state in zip(states.step[rows].tolist(), block, strict=True):
            about = {"run": run.name, "member": member, "step": str(step), "time_unit": run.time_unit}
            yield step, [_weight(p, state) for p in states.parameters], about


def _weight(p: Parameter, state: NDArray[Any]) -> Weight:
    values = state[p.offset : p.offset + p.size]
    values = values.astype(np.float32) if p.dtype == "bfloat16" else original(values, p.dtype)
    dtype = p.dtype if p.dtype in CODES else values.dtype.name
    return Weight(p.name, dtype, values.reshape(p.shape))


def _one_state(part: Part, form: str) -> None:
    steps = part.step
    if len(steps) > 1:
        others = f", or a folder as output (--format {form})" if form in STATE_DICTS else ""
        raise DataError(
            f"a .{form} file holds one state, and run {part.run.name!r} has {len(steps)} of them (steps {steps[0]} to "
            f"{steps[-1]}): choose with --step {steps[-1]} or --state -1{others}"
        )


CODES = {
    "float16": ("F16", "HalfStorage"),
    "bfloat16": ("BF16", "BFloat16Storage"),
    "float32": ("F32", "FloatStorage"),
    "float64": ("F64", "DoubleStorage"),
}


def _write_npz_state(path: Path, weights: list[Weight], _about: dict[str, str]) -> None:
    write_npz(path, [_whole(weight.name, weight.values) for weight in weights])


def _write_safetensors(path: Path, weights: list[Weight], about: dict[str, str]) -> None:
    """Write a header in JSON and the bytes: https://github.com/huggingface/safetensors#format."""
    header: dict[str, Any] = {"__metadata__": about}
    at = 0
    for weight in weights:
        size = weight.values.size * (2 if weight.dtype == "bfloat16" else weight.values.itemsize)
        code = CODES[weight.dtype][0]
        header[weight.name] = {"dtype": code, "shape": list(weight.values.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for weight in weights:
            stream.write(weight.data())


def _write_torch(path: Path, weights: list[Weight], _about: dict[str, str]) -> None:
    """Write what `torch.save` of a dict of tensors writes; PyTorch is not needed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", _pickled(weights))
        archive.writestr("archive/byteorder", "little")
        for number, weight in enumerate(weights):
            with archive.open(f"archive/data/{number}", "w", force_zip64=True) as stream:
                stream.write(weight.data())
        archive.writestr("archive/version", "3\n")


def _pickled(weights: list[Weight]) -> bytes:
    """Return the pickle, protocol 2, of a dict of tensors whose numbers lie in storages of their own."""

    def text(value: str) -> bytes:
        data = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(data)) + data

    def integer(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    def numbers(values: Sequence[int]) -> bytes:
        return b"(" + b"".join(map(integer, values)) + b"t"

    items = []
    for number, weight in enumerate(weights):
        shape = weight.values.shape
        strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
        storage = b"ctorch\n" + CODES[weight.dtype][1].encode() + b"\n"
        place = b"(" + text("storage") + storage + text(str(number)) + text("cpu") + integer(weight.values.size) + b"tQ"
        hooks = b"ccollections\nOrderedDict\n)R"
        tensor = place + integer(0) + numbers(shape) + numbers(strides) + b"\x89" + hooks  # no gradient, no hooks
        items.append(text(weight.name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + tensor + b"tR")
    return b"\x80\x02}(" + b"".join(items) + b"u."


WRITERS = {"npz": _write_npz_state, "safetensors": _write_safetensors, "pt": _write_torch}


# Tables


def select_columns(
    part: Part, what: Sequence[str], *, series: Sequence[str] = (), metric: str | None = None, largest: int = 1000
) -> list[Columns]:
    """Columns of the table, computed lazily."""
    run = part.run
    kinds = list(dict.fromkeys(what)) or ["metrics"] * bool(run.metrics) + ["distances"] * (run.stored == "distances")
    if not kinds:
        raise _without_metrics(run)
    listed = []
    for kind in kinds:
        if kind == "metrics":
            listed += _metrics(part, series)
        else:
            listed.append(_distances(part, metric) if kind == "distances" else _weights(part, largest))
    _check(part, [name for columns in listed for name in columns.names], largest)
    return listed


@dataclass(frozen=True, eq=False)
class Columns:
    """A group of columns of the table.

    Attributes
    ----------
    names : list of str
        Names of the columns.
    read : callable
        ``read(start, stop)`` returns rows as float64, (t, columns).
    """

    names: list[str]
    read: Callable[[int, int], Floats]


def _check(part: Part, names: list[str], largest: int) -> None:
    if len(names) > largest:
        raise TooLargeError(
            f"the table of run {part.run.name!r} would have {len(names)} columns, more than {largest}: select fewer "
            "(--member, --select, --series), write --format npz, or raise --max-columns"
        )
    if len({"step", *names}) <= len(names):
        twice = next(name for name in names if [*names, "step"].count(name) > 1)
        raise DataError(f"two columns would be named {twice!r}: write two files (--what, --series, --select)")


def _without_metrics(run: Run) -> DataError:
    twins = any(member.reference >= 0 for member in run.members)
    other = {"weights": ["weights", *["distances"] * twins], "distances": ["distances"] * twins}.get(run.stored, [])
    ways = [*(f"--what {kind}" for kind in other), "--format npz"]
    return DataError(f"run {run.name!r} has no metrics: export other data with {' or '.join(ways)}")


def _metrics(part: Part, series: Sequence[str]) -> list[Columns]:
    run, available = part.run, list(part.run.metrics)
    for glob in series:
        if not any(fnmatchcase(name, glob) for name in available):
            raise SelectionError(f"run {run.name!r} has no metric {glob!r}; it has {', '.join(available) or 'none'}")
    if not available:
        raise _without_metrics(run)
    chosen = [name for name in available if not series or any(fnmatchcase(name, glob) for glob in series)]
    return [_metric(part, name) for name in chosen]


def _metric(part: Part, name: str) -> Columns:
    values = part.metric(name)
    axes: list[list[str]] = [[str(i) for i in range(n)] for n in values.shape[1:]]
    if axes and part.member is None:
        axes[0] = [member.name for member in part.run.members]
    flat = values.reshape(len(values), -1)
    return Columns([_head(name, place) for place in product(*axes)], lambda start, stop: flat[start:stop])


def _head(name: str, place: Sequence[str]) -> str:
    return f"{name}[{','.join(place)}]" if place else name


def _distances(part: Part, metric: str | None) -> Columns:
    run = part.run
    twins = [i for i, m in enumerate(run.members) if m.reference >= 0 and part.member in (None, i)]
    if not twins:
        who = f"member {part.member} of run {run.name!r} is" if part.member is not None else f"run {run.name!r} has"
        raise DataError(f"{who} no perturbed copy of another member, so there is no distance between twins")
    if run.stored == "distances":
        if metric not in (None, run.distance_metric):
            raise DataError(
                f"run {run.name!r} stores distances in {run.distance_metric}: --metric {run.distance_metric}"
            )
        stored: Any = run.distances
        values = stored[part.rows][:, twins]
        return Columns(_twin_heads(part, twins), lambda start, stop: values[start:stop])

    @cache
    def computed() -> Floats:
        pairs = ((part.member_weights(run.members[i].reference), part.member_weights(i)) for i in twins)
        return np.stack([distance(reference, twin, metric=metric or "l1") for reference, twin in pairs], axis=1)

    return Columns(_twin_heads(part, twins), lambda start, stop: computed()[start:stop])


def _twin_heads(part: Part, twins: list[int]) -> list[str]:
    return [f"distance[{part.run.members[i].name}]" for i in twins]


def _weights(part: Part, largest: int) -> Columns:
    states = part.weights()
    if states.shape[1] > largest:  # checked before creating that many names
        _check(part, [""] * states.shape[1], largest)
    names = [_head(p.name, [str(i) for i in place]) for p in states.parameters for place in np.ndindex(*p.shape)]
    return Columns(names, lambda start, stop: states.read(start, stop).astype(np.float64))


def write_csv_file(path: Path, part: Part, columns: list[Columns], tick: Tick = silent) -> None:
    """Write the table to a file."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        write_csv(stream, part, columns, tick)


def write_csv(stream: TextIO, part: Part, columns: list[Columns], tick: Tick = silent) -> None:
    """Write the table; numbers keep every digit, NaN and infinities are ``nan`` and ``inf``."""
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["step", *(name for one in columns for name in one.names)])
    for rows, values in _blocks(len(part.step), columns):
        for step, row in zip(part.step[rows].tolist(), values.tolist(), strict=True):
            table.writerow([step, *row])
        tick(len(values))


def write_parquet(path: Path, part: Part, columns: list[Columns], tick: Tick = silent) -> None:
    """Write the table for pandas, polars, R or DuckDB."""
    arrow, parquet = optional("pyarrow", "parquet"), optional("pyarrow.parquet", "parquet")
    names = [name for one in columns for name in one.names]
    schema = arrow.schema([("step", arrow.int64()), *((name, arrow.float64()) for name in names)])
    with parquet.ParquetWriter(path, schema) as writer:
        for rows, values in _blocks(len(part.step), columns, PARQUET_ROWS):
            arrays = [arrow.array(part.step[rows]), *(arrow.array(column) for column in values.T.copy())]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
            tick(len(values))


def optional(name: str, form: str) -> Any:
    """Import a package that one format needs."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise MissingDependencyError(f"the format {form} needs {package}, which is missing: {INSTALL}") from error


def _blocks(count: int, columns: list[Columns], rows: int = ROWS) -> Iterator[tuple[slice, Floats]]:
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        yield slice(start, stop), np.concatenate([one.read(start, stop) for one in columns], axis=1)


# Labelled arrays


def labelled(part: Part, form: str = "nc") -> Any:
    """Return an `xarray.Dataset`: a variable for each parameter and metric, over steps."""
    xarray = optional("xarray", form)
    entries = archive_entries(part)
    size = sum(prod(entry.shape) * entry.dtype.itemsize for entry in entries)
    if size > MAX_ARRAY_BYTES:
        raise TooLargeError(
            f"the arrays of run {part.run.name!r} are {size / 2**30:.1f} GiB, and at most {MAX_ARRAY_BYTES // 2**30} "
            "GiB are held in memory: choose some (--select, --window, --every), or write --format npz"
        )
    plain = {entry.name: entry.name.removeprefix("metrics/").replace("/", ".") for entry in entries}
    names = {
        long: short if list(plain.values()).count(short) == 1 else long.replace("/", ".")
        for long, short in plain.items()
    }
    variables = {}
    for entry in entries:
        values = np.concatenate([np.atleast_1d(piece) for piece in entry.pieces()]).reshape(entry.shape)
        values = values.astype(np.float32) if values.dtype == np.float16 else values  # netCDF has no float16
        first = [] if part.single else ["step"]
        axes = range(values.ndim - len(first))
        variables[names[entry.name]] = ([*first, *(f"{names[entry.name]}_{axis}" for axis in axes)], values)
    step = variables.pop("step")
    run = part.run
    about = {"run": run.name, "member": run.members[part.member or 0].name, "time_unit": run.time_unit}
    return xarray.Dataset(variables, {"step": step}, {**about, "hparams": json.dumps(to_plain(run.hparams))})


def write_labelled(path: Path, dataset: Any, form: str) -> None:
    """Write netCDF 4, or a zarr store."""
    if form == "zarr":
        optional("zarr", form)
        dataset.to_zarr(path, mode="w", consolidated=False)
        return
    engine = next((name for name in ("h5netcdf", "netcdf4") if _importable(name)), None)
    if engine is None:
        raise MissingDependencyError(f"the format nc needs h5netcdf or netCDF4, which are missing: {INSTALL}")
    dataset.to_netcdf(path, engine=engine, format="NETCDF4")


def _importable(engine: str) -> bool:
    try:
        import_module({"netcdf4": "netCDF4"}.get(engine, engine))
    except ImportError:
        return False
    return True


# Graphs


def write_graph(path: Path, part: Part, form: str, *, largest: int = 100_000) -> None:
    """Write the network that one state is, as GraphML or GEXF.

    Notes
    -----
    Nodes are ``<node set>:<index>`` with ``layer`` and ``index``; edges have ``weight``, ``parameter`` and ``entry``,
    the index in the state, which is also the id of the edge. NaN and infinite weights are ``nan`` and ``inf``, as
    networkx reads them.
    """
    _one_state(part, form)
    states = part.weights()
    edges = {p.name: p.size for p in states.parameters if p.source is not None and p.target is not None}
    if sum(edges.values()) > largest:
        big = max(edges, key=edges.__getitem__)
        raise TooLargeError(
            f"the network has {sum(edges.values())} edges, more than {largest} (the largest layer is {big!r} with "
            f"{edges[big]}): select layers with --select, write --format npz, or raise --max-edges"
        )
    names = [part.run.name, part.run.time_unit, *(n.name for n in states.nodes), *edges]
    strange = next((name for name in names if not name.isprintable()), None)
    if strange is not None:
        raise DataError(f"the name {strange!r} contains control characters, which XML does not allow")
    import networkx as nx

    network = states.network(0, max_edges=largest)
    graph = nx.MultiDiGraph(run=part.run.name, step=int(part.step[0]), time_unit=part.run.time_unit)
    graph.graph["member"] = part.run.members[part.member or 0].name
    graph.add_nodes_from((f"{layer}:{i}", data) for (layer, i), data in network.nodes(data=True))
    for (layer, i), (next_layer, j), data in network.edges(data=True):
        # GraphML takes the key as the id, GEXF the attribute; without one, all parallel edges are one to Gephi.
        own = {**data, "id": data["entry"]} if form == "gexf" else data
        graph.add_edge(f"{layer}:{i}", f"{next_layer}:{j}", data["entry"], **own)
    (nx.write_graphml if form == "graphml" else nx.write_gexf)(graph, path)
