"""Repair a file left by a killed writer; make a new file of what is whole in a damaged one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DamagedError, FileBusyError, FormatError
from trajtools.results import Shown
from trajtools.store import layout as on_disk
from trajtools.store.checks import Survey, survey
from trajtools.store.chunks import Blocks
from trajtools.store.files import (
    SUPERBLOCK_BYTES,
    WAY_OUT,
    Owner,
    RawFile,
    bytes_missing,
    check_head,
    lock_for_life,
    seal,
    sealed,
)
from trajtools.store.isolation import in_child
from trajtools.store.layout import Cells, StreamLayout
from trajtools.store.reading import Run, StoredArray
from trajtools.store.writing import RunWriter
from trajtools.wording import counted

Array = NDArray[Any]


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
        return f"{self.path}: {'; '.join(self.actions)}; {counted(self.states, 'state')} committed."


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
        raise DamagedError(
            f"{raw.path}: its last {bytes_missing(raw)} bytes were cut off, which nothing brings back; "
            f"`trajtools repair {raw.path} --salvage NEW.h5` makes a file of what is whole"
        )
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
    with Survey(path) as run:
        run.locate_all()
        whole = _whole(run)
        if not len(whole):
            raise DamagedError(f"no state in {path} is whole; nothing can be salvaged")
        lost = np.setdiff1d(np.arange(run.n_states), whole)
        steps = run.steps()[lost]
        actions = [f"copied {len(whole)} states to {out}", *(f"{p.where}: {p.text}" for p in run.problems)]
        if len(lost):
            actions.append(f"lost {len(lost)} states: {_spans(lost)}{_named(steps)}")
        writer = _create(run, out)
        try:
            _copy(run, whole, writer)
            plantings, n = run.planting_blocks, run.cells.plantings
            copied = _plant(run, writer)
            if copied < n:
                actions.append(f"lost {n - copied} of {n} plantings ({plantings.axis.sums})")
            _finish(run, writer, actions, complete=len(actions) == 1)
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
    beside: dict[str, Any] = {}
    for name, table in (("optimizer", run.optimizer_parameters), ("buffers", run.buffer_parameters)):
        if table and name in run.axis.streams:
            beside[name] = {"parameters": table, "dtype": run.texts[f"{name}.logical_dtype"]}
    filters = run.axis.streams[run.stored].filters
    return RunWriter.create(
        out,
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
        **beside,
        metrics=list(run.metrics),
        uuid=run.uuid if run.shard else "",
        shard=run.texts.get("shard", ""),
    )


def _copy(run: Survey, whole: NDArray[np.int64], writer: RunWriter) -> None:
    rows = writer.layout.rows
    for start in range(0, len(whole), rows):
        part = whole[start : start + rows]
        content: dict[str, Any] = {}
        if run.stored == "weights":
            content["tiles"] = _tiles(writer.layout, run.states.read(part, raw=True))
        elif run.stored == "distances":
            content["distances"] = _series(run, "distances", part)
        else:
            content["sketch"] = StoredArray(run, "sketch").read(part)
        if writer.optimizer_layout is not None:
            content["optimizer_tiles"] = _tiles(
                writer.optimizer_layout, StoredArray(run, "optimizer").read(part, raw=True)
            )
        if writer.buffer_layout is not None:
            content["buffer_tiles"] = _tiles(writer.buffer_layout, StoredArray(run, "buffers").read(part, raw=True))
        metrics = {name: np.concatenate([run.metric(name, a, b) for a, b in _pieces(part)]) for name in run.metrics}
        final = start + rows >= len(whole)
        writer.write(start, len(part), step=_series(run, "step", part), metrics=metrics, final=final, **content)


def _tiles(layout: StreamLayout, states: Array) -> Array:
    tiles = layout.new_tiles()
    for row, member in np.ndindex(states.shape[:2]):
        layout.put(tiles, row, member, states[row, member])
    return tiles


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


def _finish(run: Survey, writer: RunWriter, actions: list[str], *, complete: bool) -> None:
    notes = {name: run.notes[name] for name in ("resumed", "overhead") if name in run.notes}
    writer.note(**notes, salvaged={"file": str(run.path), "uuid": run.uuid, "actions": [a[:500] for a in actions[:8]]})
    if writer.unstored:
        actions.append(f"metrics without a free column: {', '.join(writer.unstored)}")
    is_complete = complete and run.cells.status == on_disk.COMPLETE
    writer.close(on_disk.STATUS[on_disk.COMPLETE if is_complete else on_disk.INTERRUPTED])


def _series(run: Survey, name: str, states: NDArray[np.int64]) -> Array:
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
    known = steps[steps >= 0]
    return f" (steps {known[0]} to {known[-1]})" if len(known) else ""
