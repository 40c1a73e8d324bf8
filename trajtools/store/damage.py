"""What is wrong with a file, and what can be made of it: check it, repair it, copy what is whole to a new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DamagedError, FileBusyError, FormatError, TrajtoolsError, UnsafeFileError
from trajtools.results import Shown
from trajtools.store import layout as on_disk
from trajtools.store.chunks import Blocks
from trajtools.store.files import (
    SUPERBLOCK_BYTES,
    WAY_OUT,
    Owner,
    RawFile,
    check_head,
    cut_short,
    has_writer,
    lock_for_life,
    one_line,
    open_for_reading,
    replace_head,
    salvage_hint,
    seal,
    sealed,
)
from trajtools.store.isolation import in_child
from trajtools.store.layout import Cells, RunSpec
from trajtools.store.reading import Run, StoredArray
from trajtools.store.strangers import Objects, read_text
from trajtools.store.writing import RunWriter
from trajtools.wording import counted

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
    with Survey(path) as run:
        _attempt("structure", lambda: _structure(run))
        run.locate_all()


def check(path: str) -> list[tuple[str, ...]]:
    """Find the problems of a file, in this process."""
    if not os.path.isfile(path):
        return [("error", "file", "it is not a regular file")]
    problems: list[Problem] = []
    with contextlib.suppress(TrajtoolsError, OSError):  # the survey says it
        raw = RawFile(path)
        try:
            if not check_head(raw):
                problems.append(Problem("error", "file", f"it {cut_short(raw)}; {salvage_hint(raw.path)}"))
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
            self.notes = {"columns": {name: self.stored_names(name) for name in ("metrics", "member_metrics")}}
            self._names_known = True
            self._name_columns()
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

    def _count(self, objects: Objects) -> None:
        if not self.is_counted:
            self.cells.committed = min(objects.geometry(name).shape[0] for name in self.axis.streams)
            self.cells.plantings = objects.geometry("plantings/step").shape[0]

    def stored_names(self, stream: str) -> list[str]:
        """Names of the columns of a stream of metrics, as they stand beside it."""
        place, size = self.places[stream.removesuffix("s")], on_disk.NAME_BYTES
        data = self._raw.read(place, size * self.axis.streams[stream].shape[0])
        names = np.frombuffer(data[: len(data) // size * size], f"S{size}").tolist()
        return [name.decode("utf-8", "replace") for name in names if name]

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
        claims = [n for n in blocks.slots(block)[:, 0].tolist() if 0 < n <= blocks.axis.rows]
        if claims:
            return block * blocks.axis.rows + max(claims)
    return 0


# ------------------------------------------------------------------------------------------------------------- checks


def _structure(run: Survey) -> Iterator[Problem]:
    """What other programs read of the structure, beside an empty file that is made from its checksummed text."""
    with on_disk.empty_file(run.structure, Path("expected")) as expected, open_for_reading(run._raw) as file:
        ours, theirs = Objects(expected), Objects(file)
        places = dict(ours.walk())
        for place in ("", *places):
            entry = ours.open(place)
            if place and not theirs.has(place):
                yield Problem("error", place, "it is missing")
            else:
                yield from _attempt(place or "/", lambda a=entry, p=place: _differences(p, a, theirs))  # type: ignore[misc]
        for name in on_disk.STRUCTURES:
            yield from _attempt(name, lambda name=name: _copy_of_structure(run, theirs, name))  # type: ignore[misc]
        strangers = 0
        for place, other in theirs.walk():
            if place not in places and strangers < _MOST_STRANGERS and place.rpartition("/")[0] in ("", *places):
                strangers += 1
                yield Problem("warning", place, "the format does not know it, and readers ignore it")
            if isinstance(other, Exception):
                yield Problem("error", place, one_line(other))


def _copy_of_structure(run: Survey, objects: Objects, name: str) -> Iterator[Problem]:
    if on_disk.unpack_json(run._read_whole(objects.geometry(name))) is None:
        yield Problem("error", name, "it does not match its checksum; the other copy is read")


def _differences(place: str, ours: Any, objects: Objects) -> Iterator[Problem]:
    """What of one object is not as the structure has it."""
    theirs = objects.open(place)
    if type(theirs) is not type(ours):
        yield Problem("error", place, f"it must be a {'dataset' if isinstance(ours, h5py.h5d.DatasetID) else 'group'}")
        return
    if isinstance(ours, h5py.h5d.DatasetID) and place not in on_disk.STRUCTURES:
        a, b = h5py.Dataset(ours), objects.dataset(place)
        grows = int(a.chunks is not None)
        pairs = {
            "type": (a.dtype if a.dtype.kind != "S" else "text", b.dtype if b.dtype.kind != "S" else "text"),
            "shape": (a.shape[grows:], b.shape[grows:]),
            "largest shape": (a.maxshape, b.maxshape),
            "chunks": (a.chunks, b.chunks),
            "fill value": (str(a.fillvalue), str(b.fillvalue)),
        }
        for what, (expected, actual) in pairs.items():
            if expected != actual:
                yield Problem("error", place, f"its {what} must be {expected}, it is {actual}")
                return
        is_fixed = place not in on_disk.PLACES and ours.get_offset() is not None
        if is_fixed and not np.array_equal(a[()], b[()], equal_nan=a.dtype.kind == "f"):
            yield Problem("error", place, "it differs from the structure, which readers use instead")
    known, others = (
        [name for name in h5py.AttributeManager(h5py.HLObject(one)) if name not in _OF_SCALES] for one in (ours, theirs)
    )
    for name in known:
        if objects.text(place, name) != read_text(h5py.h5a.open(ours, name.encode()), name):
            yield Problem(
                "error", place or "/", f"its attribute {name!r} differs from the structure, which readers use instead"
            )
    for name in others[:_MOST_STRANGERS]:
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
    return f"the {rows} {start} to {stop - 1}{_named(steps[start:stop])}"


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
    for stream, names in run.column_names.items():
        dataset = stream.removesuffix("s")
        if run.stored_names(stream)[: len(names)] != names:
            yield Problem("error", dataset, "the names of metrics are not those of the notes, which readers take")
        if len(set(names)) < len(names) or len(names) > run.axis.streams[stream].shape[0]:
            yield Problem("error", dataset, "the names of metrics are not unique, or more than there are columns")


def _members(run: Survey) -> Iterator[Problem]:
    try:
        on_disk.check_members(run.members)
        on_disk.check_parameters(run.parameters)
    except TrajtoolsError as error:
        yield Problem("error", "members", one_line(error))


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
    "structure": _structure,
    "streams": _data,
    "step": _order,
    "metric": _names,
    "members": _members,
    "plantings": _planted,
    "file": _mark,
}


# ---------------------------------------------------------------------------------------------------- repair, salvage


@dataclass(frozen=True, repr=False)
class Repair(Shown):
    """What a repair did.

    Attributes
    ----------
    path : Path
        The file that was repaired, or the new one.
    changed : bool
        Whether anything was written.
    states : int
        Committed states in `path`.
    actions : tuple of str
        What was done, and what is lost.
    lost : ndarray of int64
        Steps of the lost states; -1 for one whose step is damaged, too.
    """

    path: Path
    changed: bool
    states: int
    actions: tuple[str, ...]
    lost: NDArray[np.int64]

    def _sentence(self) -> str:
        return f"{self.path}: {'; '.join(self.actions)}; it holds {counted(self.states, 'state')}."


def repair(path: str | os.PathLike[str], *, salvage: str | os.PathLike[str] | None = None) -> Repair:
    """Repair a file left by a crashed writer, or salvage what is whole of a damaged one.

    Without `salvage`, the file is made one that any HDF5 program opens. A file that needs nothing is left as it is, and
    a file that is being written is not touched.

    Parameters
    ----------
    path : path-like
        The file.
    salvage : path-like, optional
        Make a new file here of all states that are whole, and leave `path` as it is.

    Returns
    -------
    Repair

    Raises
    ------
    FileBusyError
        If another process writes the file, or may write it where the file system has no locks.
    DamagedError
        If no state is whole.
    FormatError
        If it is not a trajtools file, or too damaged to be read.
    FileExistsError
        If `salvage` exists.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from recorders import Recorder
    >>> with Recorder("whole.h5", {"w": np.ones(3)}, hparams={"lr": 0.1}, quiet=True) as recorder:
    ...     for step in range(5):
    ...         recorder.record({"w": np.full(3, 0.9**step)}, loss=0.9**step)
    >>> result = tt.repair("whole.h5")
    >>> result.changed, result.states
    (False, 5)
    """
    place = Path(os.path.abspath(path))
    if not place.exists():
        raise FileNotFoundError(f"{place} does not exist")
    ((_, result),) = in_child(survey if salvage is not None else count, [str(place)])
    if isinstance(result, FormatError) and salvage is not None:
        raise type(result)(f"nothing can be salvaged: {str(result).partition('; ' + WAY_OUT)[0]}")
    if isinstance(result, Exception):
        raise result
    if salvage is not None:
        return _salvage(place, Path(os.path.abspath(salvage)))
    raw = RawFile(place, write=True)
    try:
        return _repair(raw)
    finally:
        raw.close()


def count(path: str) -> int:
    """Count the committed states of a file that opens."""
    with Run(path) as run:
        return run.n_states


def _repair(raw: RawFile) -> Repair:
    actions = []
    whole_file = check_head(raw)
    locked = lock_for_life(raw)
    with Run(raw.path) as run:
        owner, states = Owner.from_notes(run.notes), run.n_states
        recording = run.cells.status == on_disk.RECORDING
        place = run.places["store/cells"]
    if recording and not locked and not owner.is_gone():
        raise FileBusyError(
            f"{raw.path} may be written by process {owner.process} on {owner.host}: the file system has no locks that "
            "would tell. Make sure that it has ended; salvage= copies what is whole without touching the file."
        )
    if not whole_file:
        raise DamagedError(f"{raw.path} {cut_short(raw)}, and nothing brings back the rest; {salvage_hint(raw.path)}")
    if raw.read(0, SUPERBLOCK_BYTES) != sealed(raw.read(0, SUPERBLOCK_BYTES), raw.size):
        seal(raw)
        actions.append("cleared the mark of its writer, so that any HDF5 program opens it")
    if recording:
        cells = Cells.unpack(raw.read(place, Cells.BYTES))
        assert cells is not None
        cells.status = on_disk.INTERRUPTED
        raw.write(place, cells.pack())
        actions.append("marked it as interrupted")
    changed = recording or bool(actions)
    if changed:
        raw.sync()
    return Repair(
        raw.path,
        changed,
        states,
        tuple(actions) or ("nothing to repair (`trajtools validate` checks the data)",),
        np.zeros(0, np.int64),
    )


# ------------------------------------------------------------------------------------------------------------ salvage


def _salvage(path: Path, out: Path) -> Repair:
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists and is not overwritten: choose another path")
    with Survey(path) as run:
        run.locate_all()
        whole = _whole(run)
        if not len(whole):
            raise DamagedError(f"no state in {path} is whole; nothing can be salvaged")
        lost = np.setdiff1d(np.arange(run.n_states), whole)
        steps = run.steps()[lost]
        actions = [f"copied {counted(len(whole), 'state')} of {path}", *(f"{p.where}: {p.text}" for p in run.problems)]
        losses = [f"lost {len(lost)} states: {_spans(lost)}{_named(steps)}"] if len(lost) else []
        writer = _create(run, out)
        try:
            _copy(run, whole, writer)
            plantings, n = run.planting_blocks, run.cells.plantings
            copied = _plant(run, writer)
            if copied < n:
                losses.append(f"lost {n - copied} of {n} plantings ({plantings.axis.sums})")
            actions += losses
            _finish(run, writer, actions, losses, len(whole))
        except BaseException:
            writer.abort()
            with contextlib.suppress(OSError):
                os.unlink(out)
            raise
    return Repair(out, True, len(whole), tuple(actions), steps)


def _whole(run: Survey) -> NDArray[np.int64]:
    """States that are whole in all streams."""
    blocks, parts = run.blocks, [np.zeros(0, np.int64)]
    for block in range(blocks.n_blocks):
        if not _is_damaged(blocks, block):
            parts.append(block * blocks.axis.rows + np.arange(blocks.rows_of(block)))
    whole = np.concatenate(parts)
    steps = _series(run, "step", whole)
    return whole[np.concatenate([[True], np.diff(np.maximum.accumulate(steps)) > 0])[: len(whole)]]


def _is_damaged(blocks: Blocks, block: int) -> bool:
    return any(blocks.damaged(name, block) for name in blocks.axis.streams)


def _create(run: Survey, out: Path) -> RunWriter:
    beside = {
        stream: {"parameters": getattr(run, table), "dtype": run.texts[f"{stream}.logical_dtype"]}
        for stream, table in on_disk.BESIDE.items()
        if stream in run.axis.streams
    }
    filters = run.axis.streams[run.stored].filters
    spec = RunSpec(
        parameters=run.parameters,
        members=run.members,
        dtype=run.logical_dtype,
        nodes=run.nodes,
        stored=run.stored,
        name=run.name,
        time_unit=run.time_unit,
        hparams=run.hparams,
        provenance=run.provenance,
        reference=run.reference,
        compress=next(name for name, numbers in on_disk.COMPRESSIONS.items() if numbers == filters),
        sketch=run.sketch_settings,
        distance_metric=run.distance_metric,
        metrics=list(run.metrics),
        uuid=run.uuid if run.shard else "",
        shard=run.texts.get("shard", ""),
        **beside,
    )
    return RunWriter.create(out, spec)


def _copy(run: Survey, whole: NDArray[np.int64], writer: RunWriter) -> None:
    rows = writer.layout.rows
    for start in range(0, len(whole), rows):
        part = whole[start : start + rows]
        content: dict[str, Any] = {
            name: _series(run, name, part) if name == "distances" else StoredArray(run, name).read(part, raw=True)
            for name in writer.layouts
        }
        metrics = {name: np.concatenate([run.metric(name, a, b) for a, b in _pieces(part)]) for name in run.metrics}
        final = start + rows >= len(whole)
        writer.write(start, len(part), step=_series(run, "step", part), metrics=metrics, final=final, **content)


def _plant(run: Survey, writer: RunWriter) -> int:
    """Copy the plantings of whole blocks; returns how many."""
    blocks, done = run.planting_blocks, 0
    for block in range(blocks.n_blocks):
        if _is_damaged(blocks, block):
            continue
        count = blocks.rows_of(block)
        first = block * blocks.axis.rows
        columns = [blocks.series(f"plantings/{n}", None, first, first + count) for n in on_disk.PLANTING_STREAMS]
        for row in zip(*(c.reshape(-1).tolist() for c in columns), strict=True):
            writer.plant(*row)
        done += count
    return done


def _finish(run: Survey, writer: RunWriter, actions: list[str], losses: list[str], n_whole: int) -> None:
    notes = {name: run.notes[name] for name in ("resumed", "ended", "remarks") if name in run.notes}
    is_complete, was_complete = len(actions) == 1, run.cells.status == on_disk.COMPLETE
    remarks = notes.get("remarks", [])
    if not is_complete:
        outcome = f"salvaged: {n_whole} of {run.n_states} states are whole"
        if was_complete:  # of one that was interrupted, how its recording ended stays
            notes["ended"] = outcome
        remarks = [*remarks, *([] if was_complete else [outcome]), *(text[:500] for text in losses)]
    salvaged = {"file": str(run.path), "uuid": run.uuid, "actions": [a[:500] for a in actions[:8]]}
    try:
        writer.note(**{**notes, "remarks": remarks} if remarks else notes, salvaged=salvaged)
    except ValueError:  # no room for more remarks
        writer.note(**notes, salvaged=salvaged)
    if "overhead" in run.notes:  # last, because it is left out where there is no room
        writer.note(overhead=run.notes["overhead"])
    if writer.unstored:
        actions.append(f"metrics without a free column: {', '.join(writer.unstored)}")
    writer.close(on_disk.STATUS[on_disk.COMPLETE if is_complete and was_complete else on_disk.INTERRUPTED])


def _series(run: Survey, name: str, states: NDArray[np.int64]) -> NDArray[Any]:
    empty = run.axis.streams[name]
    parts = [run.series(name, a, b) for a, b in _pieces(states)]
    return np.concatenate(parts) if parts else np.zeros((0, *empty.shape), empty.dtype)


def _pieces(states: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Intervals of consecutive states."""
    for part in np.split(states, np.flatnonzero(np.diff(states) != 1) + 1):
        if len(part):
            yield int(part[0]), int(part[-1]) + 1


def _spans(states: NDArray[np.int64]) -> str:
    return ", ".join(f"{a} to {b - 1}" if b - a > 1 else str(a) for a, b in _pieces(states))


def _named(steps: NDArray[np.int64]) -> str:
    if not (steps >= 0).any():
        return ""
    first, last = ("?" if step < 0 else str(step) for step in (steps[0], steps[-1]))
    return f" (steps {first} to {last})"
