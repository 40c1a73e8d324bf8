"""Export recorded states to NumPy archives, CSV tables and GraphML."""

from __future__ import annotations

import csv
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from trajtools.distances.equal_times import distance
from trajtools.errors import DataError, SelectionError, TooLargeError
from trajtools.store import Run, StoredStates
from trajtools.trajectory import Trajectory
from trajtools.types import Floats

BLOCK_BYTES = 16 * 2**20
Tick = Callable[[int], object]
WHAT = ("metrics", "distances", "weights")
ROWS = 64


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Write a file or a folder under a temporary name, and rename it when it is complete."""
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
        os.replace(draft, target)
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
        source = StoredStates(self.run.path, self.run.name, self.member or 0, "optimizer", n_states=self.run.n_states)
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
    entries = [_whole("step", part.step[cut])]
    if run.stored == "weights" or part.select:
        part = replace(part, member=part.member or 0)  # metrics and weights of the same member
        entries += _parameters(part.weights(), "", part.single)
    else:
        values: Any = getattr(run, run.stored)[part.rows]
        entries.append(_whole(run.stored, (values if part.member is None else values[:, part.member])[cut]))
    buffers = part.buffers()
    if buffers is not None:
        entries += _parameters(buffers, "optimizer/", part.single)
    entries += [_whole(f"metrics/{name}", part.metric(name)[cut]) for name in run.metrics]
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"run {run.name!r} has several arrays named {twice[0]!r}: exclude one with --select")
    return entries


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
    entries = []
    for p in states.parameters:
        dtype = original(np.empty(0, states.dtype), p.dtype).dtype
        shape = p.shape if single else (len(states), *p.shape)
        entries.append(Entry(prefix + p.name, shape, dtype, _reader(states, slice(p.offset, p.offset + p.size), dtype)))
    return entries


def original(values: Any, dtype: str) -> Any:
    """Convert numbers to the dtype of the training; files store mixed dtypes in a wider one, without loss."""
    return values.astype(dtype) if dtype in ("float16", "float32", "float64") else values


def _reader(states: Trajectory, columns: slice, dtype: np.dtype[Any]) -> Callable[[], Iterator[NDArray[Any]]]:
    rows = max(1, BLOCK_BYTES // max(1, (columns.stop - columns.start) * states.dtype.itemsize))

    def pieces() -> Iterator[NDArray[Any]]:
        for start in range(0, len(states), rows):
            yield original(states.read(start, min(start + rows, len(states)), columns), dtype.name)

    return pieces


def write_npz(path: Path, entries: list[Entry], tick: Tick = lambda _: None) -> None:
    """Write an archive for `numpy.load`."""
    with zipfile.ZipFile(path, "w") as archive:
        for entry in entries:
            header = {"descr": npy.dtype_to_descr(entry.dtype), "fortran_order": False, "shape": entry.shape}
            with archive.open(f"{entry.name}.npy", "w", force_zip64=True) as stream:
                npy.write_array_header_1_0(stream, header)
                for piece in entry.pieces():
                    stream.write(np.ascontiguousarray(piece).tobytes())
            tick(1)


def write_folder(folder: Path, part: Part, tick: Tick = lambda _: None) -> None:
    """Write one archive of weights per state, with the step in its name."""
    states = part.weights()
    digits = len(str(states.step[-1]))
    folder.mkdir()
    for rows, block in states.blocks():
        for step, state in zip(states.step[rows], block, strict=True):
            arrays = [
                _whole(p.name, original(state[p.offset : p.offset + p.size], p.dtype).reshape(p.shape))
                for p in states.parameters
            ]
            write_npz(folder / f"step_{step:0{digits}d}.npz", arrays)
            tick(1)


def select_columns(
    part: Part, what: Sequence[str], *, series: Sequence[str] = (), metric: str = "l1", largest: int = 1000
) -> list[Columns]:
    """Columns of the table, computed lazily."""
    run = part.run
    kinds = list(dict.fromkeys(what)) or ["metrics"] * bool(run.metrics) + ["distances"] * (run.stored == "distances")
    if not kinds:
        raise _without_metrics(run)
    groups = []
    for kind in kinds:
        if kind == "metrics":
            groups += _metrics(part, series)
        else:
            groups.append(_distances(part, metric) if kind == "distances" else _weights(part, largest))
    _check(part, [name for group in groups for name in group.names], largest)
    return groups


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


def _distances(part: Part, metric: str) -> Columns:
    run = part.run
    twins = [i for i, m in enumerate(run.members) if m.reference >= 0 and part.member in (None, i)]
    if not twins:
        who = f"member {part.member} of run {run.name!r} is" if part.member is not None else f"run {run.name!r} has"
        raise DataError(f"{who} no perturbed copy of another member, so there is no distance between twins")
    if run.stored == "distances":
        if metric != run.distance_metric:
            raise DataError(
                f"run {run.name!r} stores distances in {run.distance_metric}: --metric {run.distance_metric}"
            )
        stored: Any = run.distances
        values = stored[part.rows][:, twins]
        return Columns(_twin_heads(part, twins), lambda start, stop: values[start:stop])

    @cache
    def computed() -> Floats:
        pairs = ((part.member_weights(run.members[i].reference), part.member_weights(i)) for i in twins)
        return np.stack([distance(reference, twin, metric=metric) for reference, twin in pairs], axis=1)

    return Columns(_twin_heads(part, twins), lambda start, stop: computed()[start:stop])


def _twin_heads(part: Part, twins: list[int]) -> list[str]:
    return [f"distance[{part.run.members[i].name}]" for i in twins]


def _weights(part: Part, largest: int) -> Columns:
    states = part.weights()
    if states.shape[1] > largest:  # checked before creating that many names
        _check(part, [""] * states.shape[1], largest)
    names = [_head(p.name, [str(i) for i in place]) for p in states.parameters for place in np.ndindex(*p.shape)]
    return Columns(names, lambda start, stop: states.read(start, stop).astype(np.float64))


def write_csv(stream: TextIO, part: Part, columns: list[Columns], tick: Tick = lambda _: None) -> None:
    """Write the table as CSV; numbers keep every digit, NaN and infinities are ``nan`` and ``inf``."""
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["step", *(name for one in columns for name in one.names)])
    for rows, values in _blocks(len(part.step), columns):
        for step, row in zip(part.step[rows].tolist(), values.tolist(), strict=True):
            table.writerow([step, *row])
        tick(len(values))


def _blocks(count: int, columns: list[Columns]) -> Iterator[tuple[slice, Floats]]:
    for start in range(0, count, ROWS):
        stop = min(start + ROWS, count)
        yield slice(start, stop), np.concatenate([one.read(start, stop) for one in columns], axis=1)


def write_graphml(path: Path, part: Part, *, largest: int = 100_000) -> None:
    """Write the graph of one state.

    Notes
    -----
    Nodes are ``<node set>:<index>`` with ``layer`` and ``index``; edges have ``weight``, ``parameter`` and ``entry``,
    the index in the state. NaN and infinite weights are ``nan`` and ``inf``, as networkx reads them.
    """
    steps = part.step
    if len(steps) > 1:
        raise DataError(
            f"a .graphml file contains one state, and run {part.run.name!r} has {len(steps)} (steps {steps[0]} to "
            f"{steps[-1]}): select one with --step {steps[-1]} or --state -1"
        )
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

    graph = nx.relabel_nodes(states.network(0, max_edges=largest), lambda node: f"{node[0]}:{node[1]}")
    member = part.run.members[part.member or 0].name
    graph.graph.update(run=part.run.name, member=member, step=int(steps[0]), time_unit=part.run.time_unit)
    nx.write_graphml(graph, path)
