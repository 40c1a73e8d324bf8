"""Check a file against every MUST of the format, and name the states that are gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trajtools.errors import FormatError, TrajtoolsError, UnsafeFileError
from trajtools.store import layout as on_disk
from trajtools.store.chunks import Blocks
from trajtools.store.files import (
    SUPERBLOCK_BYTES,
    WAY_OUT,
    Owner,
    RawFile,
    bytes_missing,
    check_head,
    has_writer,
    one_line,
    open_for_reading,
    replace_head,
    sealed,
)
from trajtools.store.isolation import in_child
from trajtools.store.layout import Cells
from trajtools.store.reading import COLUMNS, TEXTS, Run, check_storage, child, has, linked
from trajtools.wiring import Member

_SCALES = ("metric", "member_metric", "member")
_REQUIRED = {
    "": ("step", "metrics", "member_metrics", *_SCALES, "parameters", "members", "plantings", "store"),
    "plantings": tuple(on_disk.PLANTING_STREAMS),
    "store": ("cells", "notes", "checksums", "planting_checksums"),
    **{table: tuple(columns.split()) for table, columns in COLUMNS.items()},
}
_OPTIONAL = {
    "": (*on_disk.FILTERED, *COLUMNS, "entry", "number", "optimizer_entry", "buffers_entry", "nodes"),
    **dict.fromkeys(COLUMNS, ("row",)),
}
_ATTRIBUTES = {
    "": (*TEXTS, "shard", "structure_xxh3"),
    "weights": ("logical_dtype",),
    "optimizer": ("logical_dtype",),
    "buffers": ("logical_dtype",),
    "sketch": ("settings",),
    "distances": ("metric",),
}
# Of dimension scales and of netCDF.
_OF_SCALES = (
    "CLASS",
    "NAME",
    "DIMENSION_LIST",
    "REFERENCE_LIST",
    "_Netcdf4Dimid",
    "_Netcdf4Coordinates",
    "_NCProperties",
)
_MOST_STRANGERS = 100


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file.

    Attributes
    ----------
    severity : str
        ``"error"``: a MUST of the format is broken, or data are gone; ``"warning"``: something unknown is there.
    where : str
        The dataset, table or attribute.
    text : str
        One sentence.
    """

    severity: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.text}"


def validate(path: str | os.PathLike[str]) -> list[Problem]:
    """Check a file: its structure, and every committed chunk against its checksum.

    Works in a child process, so that a file that crashes HDF5 is a problem like any other.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    list of Problem
        Empty for a file without problems.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from recorders import Recorder
    >>> with Recorder("valid.h5", {"w": np.ones(3)}, hparams={"lr": 0.1}, quiet=True) as recorder:
    ...     for step in range(5):
    ...         recorder.record({"w": np.full(3, 0.9**step)}, loss=0.9**step)
    >>> tt.validate("valid.h5")
    []
    """
    place = os.path.abspath(path)
    if not os.path.exists(place):
        raise FileNotFoundError(f"{place} does not exist")
    ((_, result),) = in_child(survey, [place])
    if not isinstance(result, UnsafeFileError):
        ((_, result),) = in_child(check, [place], patient=True)
    if isinstance(result, Exception):
        return [Problem("error", "file", str(result))]
    return [Problem(*entry) for entry in result]


def survey(path: str) -> None:
    """Touch everything of HDF5 that a check or a salvage touches."""
    raw = RawFile(path)
    try:
        _attempt("structure", lambda: _strangers(raw))
    finally:
        raw.close()
    with Survey(path) as run:
        run.locate_all()


def check(path: str) -> list[tuple[str, ...]]:
    """Find the problems of a file, in this process."""
    if not os.path.isfile(path):
        return [("error", "file", "it is not a regular file")]
    problems: list[Problem] = []
    raw = RawFile(path)
    try:
        if not check_head(raw):
            problems.append(Problem("error", "file", f"its last {bytes_missing(raw)} bytes were cut off"))
        problems += _attempt("structure", lambda: _strangers(raw))
    except (TrajtoolsError, OSError):
        pass  # the survey says it
    finally:
        raw.close()
    try:
        run = Survey(path)
    except (TrajtoolsError, OSError) as error:
        problems.append(Problem("error", "structure", _sentence(error)))
    else:
        with run:
            problems += run.problems
            for where, one in _CHECKS.items():
                problems += _attempt(where, lambda one=one: one(run))  # type: ignore[misc]
    return [astuple(problem) for problem in dict.fromkeys(problems)]


def _attempt(where: str, one: Callable[[], Iterator[Problem]]) -> list[Problem]:
    """Run one check; what it raises is a problem, too, and hides no other."""
    result: list[Problem] = []
    try:
        result.extend(one())  # those before an exception count
    except Exception as error:
        result.append(Problem("error", where, one_line(error)))
    return result


def _sentence(error: Exception) -> str:
    return one_line(error).partition(f"; {WAY_OUT}")[0]


class Survey(Run):
    """A run opened as far as its damage lets it be; what a reader would refuse is a problem.

    Attributes
    ----------
    problems : list of Problem
        Of the structure.
    is_counted : bool
        The count of committed states is that of the file; else it is what the checksums tell.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.problems: list[Problem] = []
        self.is_counted = True
        super().__init__(path)
        if not self._names_known:
            self._take_stored_names()
        if not self.is_counted:
            self.locate_all()
            self.n_states = self.blocks.n = self.cells.committed = _count(self.blocks)
            self.planting_blocks.n = self.cells.plantings = _count(self.planting_blocks)

    def _check_head(self) -> bool:
        try:
            return super()._check_head()
        except FormatError as error:
            if not replace_head(self._raw):
                raise
            self._refuse(error)
            return True

    def _refuse(self, error: FormatError) -> None:
        self.problems.append(Problem("error", "structure", _sentence(error)))

    def _read_cells(self) -> tuple[Cells, dict[str, Any] | None]:
        try:
            cells, notes = super()._read_cells()
        except FormatError as error:
            self._refuse(error)
            self.is_counted = False
            cells = Cells(status=on_disk.INTERRUPTED)
            slots = [self._read_notes(Cells(notes=slot)) for slot in (0, 1)]
            notes = max(filter(None, slots), key=lambda one: len(str(one.get("columns"))), default=None)
        if notes is None:
            self.problems.append(Problem("error", "store/notes", "the notes do not match their checksum"))
        return cells, notes

    def _read_table(self, file: h5py.File, name: str, digest: Any) -> dict[str, list[Any]]:
        try:
            return super()._read_table(file, name, digest)
        except UnsafeFileError:
            raise
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            self.problems.append(Problem("error", name, f"the table cannot be read: {_sentence(error)}"))
        if name == "nodes":
            return {}
        if name == "members":
            names = [n.decode() for n in child(file, "member", h5py.Dataset)[()].tolist()]
            members = on_disk.member_columns([Member(n) for n in names])
            return {column: list(values) for column, values in members.items()}
        size = child(
            file, {"parameters": "weights", "buffer_parameters": "buffers"}.get(name, "optimizer"), h5py.Dataset
        ).shape[-1]
        whole = [name, "other", str(size), "float32", 0, size, "", "", -1, -1]
        return {column: [value] for column, value in zip(COLUMNS[name].split(), whole, strict=True)}

    def _read_structure(self, file: h5py.File, tables: dict[str, dict[str, list[Any]]]) -> None:
        if not self.is_counted:
            names = [name for name in on_disk.STREAMS if has(file, name)]
            self.cells.committed = min(child(file, name, h5py.Dataset).shape[0] for name in names)
            self.cells.plantings = int(child(file, "plantings/step", h5py.Dataset).shape[0])
        super()._read_structure(file, tables)

    def _take_stored_names(self) -> None:
        self.notes = {"columns": {"metrics": self.stored_names["metric"]}}
        self.notes["columns"]["member_metrics"] = self.stored_names["member_metric"]
        self._names_known = True
        self._name_columns()

    def steps(self) -> NDArray[np.int64]:
        """Step of each state; -1 where it is damaged."""
        result = np.full(self.n_states, -1)
        for block in range(self.blocks.n_blocks):
            first = block * self.axis.rows
            stop = first + self.blocks.rows_of(block)
            try:
                result[first:stop] = self.series("step", first, stop)
            except FormatError:
                continue
        return result


def _count(blocks: Blocks) -> int:
    """Rows up to the last block that has checksums."""
    for block in reversed(range(blocks.n_blocks)):
        counts, _ = blocks.slots(block)
        claims = [int(count) for count in counts if 0 < count <= blocks.axis.rows]
        if claims:
            return block * blocks.axis.rows + max(claims)
    return 0


# ------------------------------------------------------------------------------------------------------------- checks


def _strangers(raw: RawFile) -> Iterator[Problem]:
    """What is missing, what is unknown, and what points outside the file."""
    with open_for_reading(raw) as file:
        for group, names in _REQUIRED.items():
            target = file if not group else child(file, group, h5py.Group) if has(file, group) else None
            if target is not None:
                for name in names:
                    if not has(target, name):
                        yield Problem("error", f"{group}/{name}".lstrip("/"), "it is missing")
        yield from _unknown(file)


def _unknown(file: h5py.File) -> Iterator[Problem]:
    pending, strangers = [""], 0
    visited = {h5py.h5o.get_info(file.id).addr}  # groups may hold each other
    while pending:
        group = pending.pop()
        target = file[group] if group else file
        known = (*_REQUIRED.get(group, ()), *_OPTIONAL.get(group, ()))
        for name in target:
            place = f"{group}/{name}".lstrip("/")
            is_known = name in known or group not in (*_REQUIRED, "")
            strangers += not is_known
            if not is_known and strangers <= _MOST_STRANGERS:
                yield Problem("warning", place, "the format does not know it, and readers ignore it")
            try:
                entry = linked(file, place)
                if isinstance(entry, h5py.Dataset):
                    check_storage(entry)
            except (OSError, RuntimeError, KeyError, ValueError) as error:
                yield Problem("error", place, one_line(error))
                continue
            if isinstance(entry, h5py.Group) and (address := h5py.h5o.get_info(entry.id).addr) not in visited:
                visited.add(address)
                pending.append(place)
            if is_known:
                yield from _unknown_attributes(place, entry)
        if not group:
            yield from _unknown_attributes("", file)


def _unknown_attributes(place: str, target: Any) -> Iterator[Problem]:
    known = (*_ATTRIBUTES.get(place, ()), *_OF_SCALES)
    for name in list(target.attrs)[:_MOST_STRANGERS]:
        if name not in known:
            yield Problem("warning", place or "/", f"the format does not know its attribute {name!r}")


def _data(run: Survey) -> Iterator[Problem]:
    """Every chunk of every committed block against its checksum."""
    steps = run.steps()
    for name in run.axis.streams:
        yield from _attempt(name, lambda name=name: _stream(run, run.blocks, name, steps))  # type: ignore[misc]
    for name in run.planting_axis.streams:
        none = np.empty(0, np.int64)  # a planting is no state: its rows have no steps of their own
        yield from _attempt(name, lambda name=name, none=none: _stream(run, run.planting_blocks, name, none))  # type: ignore[misc]


def _stream(run: Survey, blocks: Blocks, name: str, steps: NDArray[np.int64]) -> Iterator[Problem]:
    run._locate(blocks, name)
    first, part = 0, ""
    for block in range(blocks.n_blocks + 1):
        bad = blocks.damaged(name, block) if block < blocks.n_blocks else []
        parts = _parts(run, name, bad) if bad else ""
        if parts != part:
            if part:
                rows = (first * blocks.axis.rows, min(block * blocks.axis.rows, blocks.n))
                where = _range(*rows, steps, "states" if blocks is run.blocks else "plantings")
                yield Problem("error", name, f"{part}{where} {blocks.loss(name)} and are lost")
            first, part = block, parts


def _parts(run: Survey, name: str, chunks: list[int]) -> str:
    """The members or metrics that damaged chunks belong to, where not all are."""
    stream = (run.planting_axis if name.startswith("plantings/") else run.axis).streams[name]
    if name in run.column_names:
        names = [n for at, n in enumerate(run.column_names[name]) if at in chunks]
        return f"{', '.join(names) or 'unused columns'} of "
    if len(stream.grid) == 2 and stream.grid[0] > 1:
        members = sorted({chunk // stream.grid[1] for chunk in chunks})
        if len(members) < run.n_members:
            return f"member{'s' * (len(members) > 1)} {', '.join(run.members[m].name for m in members)} in "
    return "all of "


def _range(start: int, stop: int, steps: NDArray[np.int64], rows: str = "states") -> str:
    known = steps[start:stop][steps[start:stop] >= 0]
    return f"the {rows} {start} to {stop - 1}" + (f" (steps {known[0]} to {known[-1]})" if len(known) else "")


def _order(run: Survey) -> Iterator[Problem]:
    steps = run.steps()
    known = steps[steps >= 0]
    falls = np.flatnonzero(np.diff(known) <= 0)
    if len(falls):
        pair = known[falls[0] : falls[0] + 2]
        yield Problem("error", "step", f"steps must increase, but {pair[1]} follows {pair[0]}")
    if (steps < -1).any():
        yield Problem("error", "step", "a step is negative")


def _names(run: Survey) -> Iterator[Problem]:
    for stream, dataset in (("metrics", "metric"), ("member_metrics", "member_metric")):
        names, stored = run.column_names[stream], run.stored_names[dataset]
        if stored[: len(names)] != names:
            yield Problem("error", dataset, "the names of metrics are not those of the notes, which readers take")
        if len(set(names)) < len(names) or len(names) > run.axis.streams[stream].shape[0]:
            yield Problem("error", dataset, "the names of metrics are not unique, or more than there are columns")


def _members(run: Survey) -> Iterator[Problem]:
    try:
        on_disk.check_members(run.members)
        on_disk.check_parameters(run.parameters)
    except TrajtoolsError as error:
        yield Problem("error", "members", one_line(error))
    with open_for_reading(run._raw) as file:
        scale = child(file, "member", h5py.Dataset)
        if scale.shape != (run.n_members,) or scale.dtype.kind != "S":
            yield Problem("error", "member", f"needed one text for each of {run.n_members} members")
        elif [value.decode("utf-8", "replace") for value in scale[()].tolist()] != [m.name for m in run.members]:
            yield Problem("error", "member", "it differs from members/name")


def _datasets(run: Survey) -> Iterator[Problem]:
    """What other programs rely on."""
    streams = {**run.axis.streams, **run.planting_axis.streams}
    with open_for_reading(run._raw) as file:
        for name, stream in streams.items():
            dataset = child(file, name, h5py.Dataset)
            if dataset.maxshape != (None, *stream.shape):
                yield Problem("error", name, f"it must be able to grow, but its largest shape is {dataset.maxshape}")
            if stream.sparse and not np.isnan(dataset.fillvalue):
                yield Problem("error", name, f"its fill value must be NaN, it is {dataset.fillvalue}")


def _mark(run: Survey) -> Iterator[Problem]:
    head = run._raw.read(0, SUPERBLOCK_BYTES)
    is_marked = not run.is_cut and run._raw.head is None and sealed(head, run._raw.size) != head
    if is_marked and not has_writer(run._raw, Owner.from_notes(run.notes)):
        yield Problem("warning", "file", "it has the mark of a writer that is gone; `trajtools repair` clears it")


def _planted(run: Survey) -> Iterator[Problem]:
    member, step = run.plantings["member"], run.plantings["step"]
    if len(member) and not (member.min() >= 0 and member.max() < run.n_members):
        yield Problem("error", "plantings/member", f"members must be 0 to {run.n_members - 1}")
    falling = [m for m in np.unique(member).tolist() if (np.diff(step[member == m]) <= 0).any()]
    if falling:
        yield Problem("error", "plantings/step", f"the steps of member {falling[0]} must rise")


_CHECKS: dict[str, Callable[[Survey], Iterator[Problem]]] = {
    "streams": _data,
    "step": _order,
    "metric": _names,
    "members": _members,
    "plantings": _planted,
    "datasets": _datasets,
    "file": _mark,
}
