"""Writing a run: create or resume its file, append blocks, commit, close.

Nothing of the structure changes after the file was made. A block is written in this order: its checksums, its chunks, a
flush, and the number of committed states last. So a process that is killed anywhere leaves every committed state as it
was, and every chunk matches one of its checksums.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from trajtools.errors import ArchitectureError, DamagedError, FileBusyError, RecordingError
from trajtools.store import layout as on_disk
from trajtools.store.chunks import Blocks, compress, zstandard_module
from trajtools.store.files import (
    Owner,
    RawFile,
    WritableHDF5,
    check_head,
    cut_short,
    lock,
    lock_for_life,
    one_line,
    salvage_hint,
    seal,
    unlock,
)
from trajtools.store.layout import Axis, Cells, RunSpec, Stream, StreamLayout, checksum
from trajtools.store.reading import Run
from trajtools.store.strangers import ZSTD
from trajtools.wiring import Parameter

_log = logging.getLogger("trajtools")
Array = NDArray[Any]
MODES = ("x", "w", "next")
SOFTWARE = ("trajtools", "numpy", "h5py", "hdf5plugin", "torch", "jax", "jaxlib", "optax", "flax", "equinox",
            "lightning", "transformers", "safetensors", "sklearn")  # fmt: skip
MOST_WORDS = 500  # characters of a reason in the notes
_Method = TypeVar("_Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Tail:
    """The last block of a run that is resumed, where it is not full.

    Attributes
    ----------
    start, count : int
        First state of the block, and its committed states.
    step : ndarray of int64, shape (count,)
        Their steps.
    metrics : dict of str to ndarray, shapes (count, ...)
        Their metrics.
    content : dict of str to ndarray
        What is stored of the states, by stream: ``weights``, ``optimizer``, ``buffers`` and ``sketch`` of the shape
        (count, M, numbers), ``distances`` of the shape (count, M).
    """

    start: int
    count: int
    step: Array
    metrics: dict[str, Array]
    content: dict[str, Array]


def _one_at_a_time(method: _Method) -> _Method:
    """Let one thread at a time into a writer; a forked child, which writes nothing, does not wait."""

    @wraps(method)
    def locked(writer: RunWriter, /, *arguments: Any, **options: Any) -> Any:
        if os.getpid() != writer._pid:
            return method(writer, *arguments, **options)
        with writer._lock:
            return method(writer, *arguments, **options)

    return cast(_Method, locked)


class RunWriter:
    """The writer of one run; made by `create` or `resume`, closed by `close` or `abort`.

    Attributes
    ----------
    path : Path
        The file.
    layouts : dict of str to StreamLayout
        Geometry of the states and of what is stored beside them, by stream.
    layout : StreamLayout
        That of the states; `layout.rows` of them make a block.
    committed : int
        States that are whole on disk.
    uuid : str
        Of the run, where it is resumed or was chosen.
    last_step : int
        Step of the last committed state; -1 before the first.
    metrics : dict of str to tuple of int
        Shape of each metric for one state: (), (M,) or (M, k).
    unstored : tuple of str
        Metrics that found no free column.
    tail : Tail or None
        After `resume`: the last block as far as it was committed, if it was not full, so that it is completed in place.
    filtered : bool
        The states are compressed: a block is written whole, and a partial one only at the end.
    """

    def __init__(self, path: Path, spec: RunSpec, *, durable: bool) -> None:
        self.path = path
        self.layouts: dict[str, StreamLayout] = dict(spec.layouts)
        self.committed, self.last_step = 0, -1
        self.uuid = spec.uuid
        self.metrics: dict[str, tuple[int, ...]] = {}
        self.unstored: tuple[str, ...] = ()
        self.tail: Tail | None = None
        self.stored = spec.stored
        self._n_members = len(spec.members)
        self._durable, self._pid, self._ended = durable, os.getpid(), ""
        self._before_block = -1  # step of the state before the last block
        self._columns_of_block: dict[tuple[str, int], Array] = {}
        self._lock = threading.RLock()
        self._cells = Cells()
        self._planted = _planting_rows()
        self._plantings: _BlockWriter

    @property
    def layout(self) -> StreamLayout:
        """Geometry of the states."""
        return self.layouts[self.stored]

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], spec: RunSpec, *, mode: str = "x", durable: bool = False
    ) -> RunWriter:
        """Make the file and open it for appending; the path is claimed at once."""
        if mode not in MODES:
            raise ValueError(
                f"mode={mode!r}: needed 'x' (a new file), 'next' (the next free name) or 'w' (overwrite the file)"
            )
        if spec.compress == "zstd":
            zstandard_module()  # missing packages are for the opening to say, not for the first block
        place = Path(os.path.abspath(path))
        if mode == "w":
            _refuse_live_writer(place)
        if mode == "next":
            place, places, structure = _create_next(place, spec)
        else:
            structure = spec.structure(place)
            places = on_disk.create(place, structure, overwrite=mode == "w")
        writer = cls(place, spec, durable=durable)
        try:
            writer._open(_Position(places, structure.axis, structure.planting_axis))
        except FileBusyError:  # somebody else resumed it at once
            raise
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(place)
            raise
        return writer

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        spec: RunSpec,
        *,
        durable: bool = False,
        force: bool = False,
        keep: Callable[[Run], int] | None = None,
    ) -> RunWriter:
        """Continue a run whose writer closed it or died; every committed state stays.

        `spec` is the run as the training that goes on has it: its tables must be those of the file, and its provenance
        is noted. `keep` says how many of the run's states stay, where a training goes on from an earlier one; those
        after them are dropped, with what was planted in them. `force` is for file systems without locks, where a writer
        on another machine cannot be seen.
        """
        writer = cls(Path(os.path.abspath(path)), spec, durable=durable)
        with Run(writer.path) as run:
            _require_same(run, spec)
            writer.uuid = run.uuid
            if any(ZSTD in stream.filters for stream in run.axis.streams.values()):
                zstandard_module()
        writer._open(None, resumed=spec.provenance or {}, force=force, keep=keep)
        return writer

    @_one_at_a_time
    def write(
        self,
        start: int,
        count: int,
        *,
        step: Array,
        metrics: Mapping[str, Array] | None = None,
        plantings: Sequence[Sequence[float]] = (),
        final: bool = False,
        **content: Array,
    ) -> None:
        """Write one block, whole or as far as it goes, and commit it.

        Parameters
        ----------
        start, count : int
            First state of the block, and how many there are.
        step : ndarray of int, shape (count,)
            Their steps.
        metrics : mapping of str to ndarray, shapes (count,), (count, M) or (count, M, k)
            Their metrics; a new name takes a free column, or joins `unstored` where there is none.
        plantings : sequence of (step, member, epsilon, seed, norm)
            Which members were placed anew beside their references in these states; committed together with them.
        final : bool
            Nothing follows; a compressed run takes a partial block only then.
        **content : ndarray
            What is stored of the states, by stream (``weights``, ``optimizer``, ``buffers``, ``sketch``): the block as
            `StreamLayout.new_tiles` gives it, whose rows from `count` on are ignored by readers, or an array
            (count, M, numbers); ``distances``: (count, M).

        Raises
        ------
        ValueError
            If the block does not fit.
        RecordingError
            If the file cannot be written any more, or is not the writer's any more.
        """
        self._require_open()
        steps = np.ascontiguousarray(step, np.int64)
        before = self.last_step if start >= self.committed else self._before_block
        self._check_place(start, count, steps, before, final)
        streams = {name: stream for name, stream in self._axis.streams.items() if not stream.sparse}
        content = {"step": steps, **content}
        for name in dict.fromkeys((*streams, *content)):
            if name not in streams or name not in content:
                verb = "stores" if name in streams else "does not store"
                raise ValueError(f"{name}: this run {verb} them with every block")
        chunks = {name: _chunks(streams[name], np.asarray(array), count) for name, array in content.items()}
        try:
            self.check_owner()
            if start >= self.committed:
                self._columns_of_block = {}
            # A checksum covers all rows of its chunk: columns of this block that got nothing new are written again.
            self._columns_of_block |= self._columns(metrics or {})
            self._blocks.put(start, count, chunks, self._columns_of_block)
            planted = self._put_plantings(plantings)
            self._flush()
            self._cells.plantings = planted
            self._cells.committed = start + count
            self._put_cells()
        except (OSError, RuntimeError) as error:
            raise self._fail(error) from error
        self._before_block = before
        self.committed, self.last_step = start + count, int(steps[-1])

    @_one_at_a_time
    def plant(self, step: int, member: int, epsilon: float, seed: int, norm: float = np.nan) -> None:
        """Note that a member was placed anew beside its reference, `norm` away, in the state of a step."""
        self._require_open()
        try:
            self.check_owner()
            planted = self._put_plantings([(step, member, epsilon, seed, norm)])
            self._flush()
            self._cells.plantings = planted
            self._put_cells()
        except (OSError, RuntimeError) as error:
            raise self._fail(error) from error

    def _put_plantings(self, plantings: Sequence[Sequence[float]]) -> int:
        """Write plantings behind those of the file; returns how many there are once the cells say so."""
        at, rows = self._cells.plantings, on_disk.PLANTING_ROWS
        while plantings:
            start = at // rows * rows
            here, plantings = plantings[: start + rows - at], plantings[start + rows - at :]
            for i, row in enumerate(here):
                for name, value in zip(self._planted, row, strict=True):
                    self._planted[name][at - start + i] = value
            content = {f"plantings/{name}": values for name, values in self._planted.items()}
            at += len(here)
            self._plantings.put(start, at - start, content)
            if at == start + rows:
                self._planted = _planting_rows()
        return at

    @_one_at_a_time
    def beat(self) -> None:
        """Show that the recorder lives, and notice if the file is not its own any more; call it every few seconds."""
        if self._ended or os.getpid() != self._pid:
            return
        try:
            self.check_owner()
            self._put_cells()
        except (OSError, RuntimeError) as error:
            raise self._fail(error) from error

    @_one_at_a_time
    def close(self, status: str = "complete", overhead: Mapping[str, Any] | None = None, why: str = "") -> None:
        """Finish the run; every write after this is refused. A second call does nothing. `why` it is interrupted."""
        if self._ended or os.getpid() != self._pid:
            return
        if status not in on_disk.STATUS[1:]:
            raise ValueError(f"status={status!r}: needed 'complete' or 'interrupted'")
        try:
            self.check_owner()
            if overhead is not None:
                self.note(overhead=dict(overhead))
            if why:
                with contextlib.suppress(ValueError):  # the notes are full
                    self.note(ended=why[:MOST_WORDS])
            self._hdf5.close()
            seal(self._raw)
            self._cells.status = on_disk.STATUS.index(status)
            self._put_cells()
            if self._durable:
                self._raw.sync()
        except (OSError, RuntimeError) as error:
            raise self._fail(error) from error
        self._ended = "closed"
        self._raw.close()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What earlier writers said about what is not in the file."""
        return tuple(map(str, self._notes.get("remarks", ())))

    @_one_at_a_time
    def abort(self, why: str = "") -> None:
        """Leave the file as it is on disk, every committed state valid; readers see it as interrupted, and why."""
        if self._ended or os.getpid() != self._pid:
            return
        self._ended = "aborted"
        self._hdf5.detach()
        with contextlib.suppress(OSError, RuntimeError):
            self.check_owner()
            seal(self._raw)
            if why:
                with contextlib.suppress(ValueError):  # the notes are full
                    self.note(ended=why[:MOST_WORDS])
            self._cells.status = on_disk.INTERRUPTED
            self._put_cells()
        self._raw.close()

    def check_owner(self) -> None:
        """Raise if the file was replaced, removed, moved, or taken over by another writer."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            raise RecordingError(f"{self.path} was removed or moved while it was recorded") from None
        if (status.st_dev, status.st_ino) != self._raw.identity:
            raise RecordingError(f"{self.path} was replaced while it was recorded")
        self._check_generation(self._cells.generation)

    def _check_generation(self, generation: int) -> None:
        cells = Cells.unpack(self._raw.read(self._places["store/cells"], Cells.BYTES))
        if cells is None or cells.generation != generation:
            raise RecordingError(f"{self.path} was taken over by another writer")

    # ---------------------------------------------------------------------------------------------------- opening

    def _open(
        self,
        position: _Position | None,
        *,
        resumed: Mapping[str, Any] | None = None,
        force: bool = False,
        keep: Callable[[Run], int] | None = None,
    ) -> None:
        """Lock the file and open it for appending, at the start or where the last writer ended (None)."""
        self._raw = RawFile(self.path, write=True)
        try:
            locked = lock_for_life(self._raw)
            if not check_head(self._raw):
                raise DamagedError(
                    f"{self.path} {cut_short(self._raw)}; {salvage_hint(self.path)}, which can be resumed"
                )
            if not locked:
                self._warn_no_locks(force)
            seal(self._raw)
            if keep is not None:
                self._drop(keep)
            if position is None:
                with Run(self.path) as run:
                    self._read_back(run)
                    position = _Position.at_end(run)
            self._hdf5 = self._open_hdf5(locked)
        except BaseException:
            self._raw.close()
            raise
        try:
            self._take(position)
            self._notes.pop("ended", None)
            self.note(writer=Owner.current().to_notes())
            if resumed is not None:
                self.note(resumed=[*self._notes.get("resumed", []), dict(resumed)])
            if locked:
                self._share_lock()
            self.check_owner()
        except BaseException:
            self._hdf5.detach()
            self._raw.close()
            raise

    def _take(self, position: _Position) -> None:
        """Go on from a position: with a generation of our own, so that another writer notices."""
        self._places, self._axis, self._notes = position.places, position.axis, position.notes
        self.filtered = any(stream.filters for stream in position.axis.streams.values())
        self._column_names, self._planted = position.column_names, position.planted
        self._check_generation(position.cells.generation)
        if self.tail is not None:
            self._columns_of_block = self._columns(self.tail.metrics)
        self._blocks = _BlockWriter(self._hdf5.file, position.axis, *position.tails[0])
        self._plantings = _BlockWriter(self._hdf5.file, position.planting_axis, *position.tails[1])
        self._cells = position.cells
        self._cells.generation += 1
        self._cells.status, self._cells.process = on_disk.RECORDING, self._pid
        self._put_cells()

    def _drop(self, keep: Callable[[Run], int]) -> None:
        """Drop the states after the first ones that are kept; the cells alone say what belongs to the run."""
        with Run(self.path) as run:
            n_kept, cells, place = keep(run), replace(run.cells), run.places["store/cells"]
            if n_kept >= run.n_states:
                return
            last = run.step[n_kept - 1] if n_kept else -1
            cells.plantings = int(np.count_nonzero(run.plantings["step"] <= last))
        cells.committed = n_kept
        cells.generation += 1
        self._raw.write(place, cells.pack())

    def _open_hdf5(self, locked: bool) -> WritableHDF5:
        try:
            hdf5 = WritableHDF5(self._raw)
        except BlockingIOError:  # HDF5_USE_FILE_LOCKING=TRUE: HDF5 insists on a lock of its own while it opens the file
            unlock(self._raw)
            hdf5 = WritableHDF5(self._raw)
            if locked and lock(self._raw) is False:
                hdf5.detach()
                raise FileBusyError(
                    f"{self.path} was opened by another recorder at the same moment; try again"
                ) from None
        seal(self._raw)  # HDF5 marked the file
        return hdf5

    def _share_lock(self) -> None:
        """Let readers of any program in; other writers stay out."""
        if lock(self._raw, shared=True) is False:  # the system lets go of a lock before it takes the other
            raise FileBusyError(f"{self.path} was opened by another recorder at the same moment; try again")

    def _warn_no_locks(self, force: bool) -> None:
        with Run(self.path) as run:
            owner, recording = Owner.from_notes(run.notes), run.cells.status == on_disk.RECORDING
        if recording and not owner.is_gone() and not force:
            raise FileBusyError(
                f"{self.path} may be written by process {owner.process} on {owner.host}: the file system has no locks "
                "that would tell. Make sure that it has ended, then resume with force=True."
            )
        _log.warning(
            "%s: the file system has no locks, so nothing keeps a second recorder from the same file.", self.path
        )

    def _read_back(self, run: Run) -> None:
        """Geometry, names and the last block of a run that goes on."""
        self.committed = run.n_states
        rows = run.axis.rows
        for name, layout in self.layouts.items():
            columns = run.axis.streams[name].chunk[-1] if name != "distances" else layout.columns
            self.layouts[name] = replace(layout, rows=rows, columns=columns)
        self.metrics = {name: shape[1:] for name, shape in run.metric_shapes.items()}
        self.unstored = run.unstored
        start = run.n_states // rows * rows
        first = max(0, min(start, run.n_states - 1) - (0 if run.n_states % rows else rows - 1))
        steps = run.series("step", max(0, first - 1), run.n_states) if run.n_states else np.zeros(0, np.int64)
        self.last_step = int(steps[-1]) if len(steps) else -1
        self._before_block = int(steps[0]) if first and len(steps) else -1
        if run.n_states % rows:
            self.tail = _read_tail(run, start)

    # ---------------------------------------------------------------------------------------------------- one block

    def _check_place(self, start: int, count: int, steps: Array, before: int, final: bool) -> None:
        rows = self.layout.rows
        last_block = max(0, self.committed - 1) // rows * rows
        if last_block // rows != self._blocks.block:  # full, and written by another writer
            last_block = self.committed
        if start % rows or not last_block <= start <= self.committed or not 1 <= count <= rows:
            raise ValueError(
                f"a block of {count} states at {start}: needed 1 to {rows} states from a multiple of {rows} on, in the "
                f"last block ({last_block}) or right behind the {self.committed} committed states"
            )
        if start + count < self.committed:
            raise ValueError(f"{self.committed} states are committed; a shorter block would drop some of them")
        if self.filtered and count < rows and not final:
            raise ValueError("a compressed run takes whole blocks only; pass final=True for the last one")
        if steps.shape != (count,) or (np.diff(steps) <= 0).any() or steps[0] <= before:
            raise ValueError(f"step must be {count} increasing numbers above {before}, got {steps}")

    def _columns(self, metrics: Mapping[str, Array]) -> dict[tuple[str, int], Array]:
        """The columns of the metrics, each padded with NaN; new names take free ones."""
        result = {}
        for name, values in metrics.items():
            array = np.asarray(values, np.float64)
            shape = array.shape[1:]
            if shape and (len(shape) > 2 or shape[0] != self._n_members):
                raise ValueError(f"metric {name!r} has the shape {shape} per state; needed (), (M,) or (M, k)")
            if name in self.unstored:
                continue
            if name not in self.metrics and not self._take_columns(name, shape):
                continue
            if self.metrics[name] != shape:
                raise ValueError(
                    f"metric {name!r} has shape {shape} per state, in the file it has {self.metrics[name]}"
                )
            stream = "member_metrics" if shape else "metrics"
            padded = np.full((self.layout.rows, *shape), np.nan)
            padded[: len(array)] = array
            for column, part in zip(self._columns_of(name, shape), _split(padded), strict=True):
                result[stream, self._column_names[stream].index(column)] = part
        return result

    @staticmethod
    def _columns_of(name: str, shape: tuple[int, ...]) -> list[str]:
        return [name] if len(shape) < 2 else [f"{name}[{k}]" for k in range(shape[1])]

    def _take_columns(self, name: str, shape: tuple[int, ...]) -> bool:
        stream = "member_metrics" if shape else "metrics"
        columns, used = self._columns_of(name, shape), self._column_names[stream]
        texts = [_name_bytes(column) for column in columns]
        all_names = {**self._column_names, stream: [*used, *columns]}
        widths = {n: s[1] for n, s in {**self.metrics, name: shape}.items() if len(s) == 2}
        if (
            len(used) + len(columns) > self._axis.streams[stream].shape[0]
            or not all(0 < len(text) <= on_disk.NAME_BYTES for text in texts)
            or set(columns) & set(used)
            or not on_disk.fits_notes({**self._notes, "columns": all_names, "widths": widths})
        ):
            self.unstored = (*self.unstored, name)
            if on_disk.fits_notes({**self._notes, "unstored": self.unstored}):
                self.note(unstored=list(self.unstored))
            return False
        place = self._places["member_metric" if shape else "metric"]
        for at, text in enumerate(texts, len(used)):
            self._raw.write(place + on_disk.NAME_BYTES * at, text.ljust(on_disk.NAME_BYTES, b"\0"))
        self._column_names[stream] = all_names[stream]
        self.metrics[name] = shape
        self.note(columns=self._column_names, widths=widths)
        return True

    def _flush(self) -> None:
        seal(self._raw, self._hdf5.file.id.get_filesize())  # before HDF5 writes what refers to the new end
        self._hdf5.file.flush()
        seal(self._raw)
        if self._durable:
            self._raw.sync()

    def _put_cells(self) -> None:
        self._cells.heartbeat = time.time_ns()
        self._raw.write(self._places["store/cells"], self._cells.pack())
        if self._durable:
            self._raw.sync()

    @_one_at_a_time
    def note(self, **entries: Any) -> None:
        """Rewrite the notes, in the slot that is not in use; old continuations go where there is no room."""
        notes = {**self._notes, **entries}
        while True:
            try:
                data = on_disk.pack_notes(notes)
                break
            except ValueError:
                if notes.get("resumed"):
                    notes["resumed"] = notes["resumed"][1:]
                    notes["resumed_dropped"] = notes.get("resumed_dropped", 0) + 1
                elif "overhead" in entries:
                    notes = dict(self._notes)
                    entries = {}
                else:
                    raise
        self._notes = notes
        slot = 1 - self._cells.notes
        self._raw.write(self._places["store/notes"] + slot * on_disk.NOTES_BYTES, data)
        self._cells.notes = slot
        self._put_cells()

    def _fail(self, error: BaseException) -> RecordingError:
        if self._ended:  # by another thread, which has said why
            return RecordingError(f"the recording into {self.path} is {self._ended}; open a new one, or resume=True")
        self.abort(one_line(error))
        if isinstance(error, RecordingError):
            return error
        return RecordingError(
            f"recording into {self.path} stopped: {one_line(error)}. The {self.committed} states committed before are "
            "safe; free some space or choose another disk, then continue with resume=True."
        )

    def _require_open(self) -> None:
        if os.getpid() != self._pid:
            raise RecordingError("a recorder belongs to the process that opened it; open another file in this one")
        if self._ended:
            raise RecordingError(f"the recording into {self.path} is {self._ended}; open a new one, or resume=True")


def _planting_rows() -> dict[str, Array]:
    return {name: np.zeros(on_disk.PLANTING_ROWS, dtype) for name, dtype in on_disk.PLANTING_STREAMS.items()}


@dataclass
class _Position:
    """Where a writer goes on: the structure of the file, and what its last writer left.

    `tails`: for each axis the last block and its checksums, where that block is not full, see `_last_sums`.
    """

    places: Mapping[str, int]
    axis: Axis
    planting_axis: Axis
    cells: Cells = field(default_factory=Cells)
    notes: dict[str, Any] = field(default_factory=dict)
    column_names: dict[str, list[str]] = field(default_factory=lambda: {"metrics": [], "member_metrics": []})
    planted: dict[str, Array] = field(default_factory=_planting_rows)
    tails: tuple[tuple[int, Array | None], tuple[int, Array | None]] = ((-1, None), (-1, None))

    @classmethod
    def at_end(cls, run: Run) -> _Position:
        """Of a run that goes on."""
        planted, rows = _planting_rows(), run.plantings
        tail = run.cells.plantings // on_disk.PLANTING_ROWS * on_disk.PLANTING_ROWS
        for name in on_disk.PLANTING_STREAMS:
            planted[name][: run.cells.plantings - tail] = rows[name][tail:]
        names = {name: list(columns) for name, columns in run.column_names.items()}
        tails = (_last_sums(run, run.blocks), _last_sums(run, run.planting_blocks))
        return cls(run.places, run.axis, run.planting_axis, run.cells, run.notes, names, planted, tails)


def _last_sums(run: Run, blocks: Blocks) -> tuple[int, Array | None]:
    """The last block and its checksums, where it is not full: its first slot then covers what is committed.

    A writer that was killed may have left some chunks that match one slot only, and others that match another; the slot
    that matches least is in nobody's use.
    """
    block, rest = divmod(blocks.n, blocks.axis.rows)
    if not rest:
        return -1, None
    run._locate(blocks, *blocks.axis.streams)
    slots, (matching, current) = blocks.slots(block), blocks.compare(block)
    if not matching.any(axis=0).all():
        raise DamagedError(
            f"the last states of the file, from {block * blocks.axis.rows} on, are damaged; `trajtools repair "
            "--salvage` makes a file of what is whole, which can be resumed"
        )
    free = int(np.argmin(matching.sum(axis=1)))
    slots[free] = current
    return block, np.roll(slots, -free, axis=0)


class _BlockWriter:
    """Writes the blocks of one axis: checksums first, then chunks."""

    def __init__(self, file: h5py.File, axis: Axis, block: int, slots: Array | None) -> None:
        self._axis, self._sums = axis, h5py.h5d.open(file.id, axis.sums.encode())
        self._ids = {name: h5py.h5d.open(file.id, name.encode()) for name in axis.streams}
        self._lengths = {name: dataset.shape[0] for name, dataset in self._ids.items()}
        self._coordinates = {name: stream.coordinates() for name, stream in axis.streams.items()}
        self._slots = np.zeros((on_disk.SLOTS, axis.width), "<u8")
        self.block, self._slot = block, 0
        if slots is not None:
            self._slots[:] = slots
            self._sums.write_direct_chunk((block, 0, 0), self._slots)
            file.flush()

    def put(
        self,
        start: int,
        count: int,
        content: Mapping[str, Array],
        columns: Mapping[tuple[str, int], Array] | None = None,
    ) -> None:
        """Write the rows `start` to `start + count`; each array holds whole blocks, chunk after chunk."""
        axis = self._axis
        block = start // axis.rows
        if block != self.block:
            self.block, slot = block, 0
            self._slots[:] = 0
        else:
            slot = (self._slot + 1) % on_disk.SLOTS
            self._slots[slot] = self._slots[self._slot]  # sparse chunks that are not rewritten
        sums = self._slots[slot]
        sums[0] = count
        chunks: list[tuple[str, tuple[int, ...], Array | bytes]] = []

        def add(name: str, at: int, chunk: Array) -> None:
            stream, index = axis.streams[name], axis.first[name] + at
            rows = chunk.reshape(axis.rows, -1)[:count]
            sums[index] = checksum(rows.data.cast("B"), block, index)
            place = (start, *self._coordinates[name][at])
            chunks.append((name, place, compress(chunk, stream.filters) if stream.filters else chunk))

        for name, array in content.items():
            stream = axis.streams[name]
            parts = array.reshape(stream.n_chunks, axis.rows, -1)
            for at in range(stream.n_chunks):
                add(name, at, parts[at])
        for (name, column), values in (columns or {}).items():
            add(name, column, np.ascontiguousarray(values))
        if self._sums.shape[0] <= block:
            self._sums.set_extent((block + 1, *self._slots.shape))
        self._sums.write_direct_chunk((block, 0, 0), self._slots)
        for name, dataset in self._ids.items():
            if self._lengths[name] < start + count:  # never shorter, which SWMR readers could not follow
                dataset.set_extent((start + count, *axis.streams[name].shape))
                self._lengths[name] = start + count
        for name, place, data in chunks:
            self._ids[name].write_direct_chunk(place, data)
        self._slot = slot  # not before: an interrupted write is repeated in the same slot


def _chunks(stream: Stream, array: Array, count: int) -> Array:
    """A block of a stream, chunk after chunk: as it is, or filled from an array of its states."""
    if array.dtype == stream.dtype and array.shape == stream.block_shape and array.flags.c_contiguous:
        return array
    if array.shape != (count, *stream.shape) or not np.can_cast(array.dtype, stream.dtype):
        raise ValueError(
            f"{stream.name}: needed {stream.dtype} of the shape {(count, *stream.shape)}, or a C-contiguous block "
            f"{stream.block_shape} as new_tiles() gives, got {array.dtype} of the shape {array.shape}"
        )
    return stream.block_of(array)


def _name_bytes(name: str) -> bytes:
    """A name as the file keeps it; empty where it cannot."""
    try:
        return b"" if "\0" in name else name.encode()
    except UnicodeEncodeError:
        return b""


def _split(values: Array) -> list[Array]:
    return [values] if values.ndim < 3 else [np.ascontiguousarray(values[:, :, k]) for k in range(values.shape[2])]


def _read_tail(run: Run, start: int) -> Tail:
    content: dict[str, Array] = {}
    for name in on_disk.FILTERED:
        if name in run.axis.streams:
            stream = run.axis.streams[name]
            rows = run._read_rows(name, start, run.n_states)
            content[name] = stream.block_of(rows) if name in ("weights", *on_disk.BESIDE) else rows
    return Tail(
        start=start,
        count=run.n_states - start,
        step=run.series("step", start, run.n_states),
        metrics={name: run.metric(name, start) for name in run.metrics},
        content=content,
    )


def _create_next(path: Path, spec: RunSpec) -> tuple[Path, dict[str, int], on_disk.Structure]:
    """Create the file under its name or the first free one of name-2, name-3, ..."""
    place, number = path, 1
    while True:
        try:
            structure = spec.structure(place)
            return place, on_disk.create(place, structure), structure
        except FileExistsError:
            number += 1
            place = path.with_name(f"{path.stem}-{number}{path.suffix}")


def _refuse_live_writer(path: Path) -> None:
    if not path.exists():
        return
    raw = RawFile(path)
    try:
        if lock(raw) is False:
            raise FileBusyError(f"{path} is being written, or in use with a lock; mode='w' does not overwrite it")
    finally:
        raw.close()


def _require_same(run: Run, spec: RunSpec) -> None:
    """Refuse to resume with another network or other settings."""
    differences: list[str] = []
    for table, what in (("parameters", "parameter"), ("optimizer_parameters", "optimiser buffer"),
                        ("buffer_parameters", "buffer")):  # fmt: skip
        differences += _table_differences(what, getattr(run, table), spec.tables[table])
    if len(run.members) != len(spec.members):
        differences.append(f"{len(run.members)} members in the file, {len(spec.members)} now")
    else:
        # The size of a perturbation may follow from weights that have moved on; the plantings have each one's own.
        pairs = [
            (a, b)
            for a, b in zip(run.members, spec.members, strict=True)
            if replace(a, epsilon=0) != replace(b, epsilon=0)
        ]
        differences += [f"member {a} in the file is {b} now" for a, b in pairs]
    if run.stored != spec.stored:
        differences.append(f"the file stores {run.stored}, now {spec.stored} are to be stored")
    elif run.logical_dtype != spec.dtype and spec.stored == "weights":
        differences.append(f"states are {run.logical_dtype} in the file, {spec.dtype} now")
    if run.distance_metric != spec.distance_metric:
        differences.append(f"the metric is {run.distance_metric} in the file, {spec.distance_metric} now")
    if run.sketch_settings != (None if spec.sketch is None else dict(spec.sketch)):
        differences.append(f"the sketch is {run.sketch_settings} in the file, {spec.sketch} now")
    if run.texts.get("shard", "") != spec.shard:
        differences.append("the file holds another part of the sharded network than this rank does now")
    if differences:
        more = f" (and {len(differences) - 3} more differences)" if len(differences) > 3 else ""
        raise ArchitectureError(
            f"{run.path} cannot be resumed: {'; '.join(differences[:3])}{more}. Build the same network, or record into "
            "a new file."
        )


def _table_differences(what: str, ours: tuple[Parameter, ...], theirs: tuple[Parameter, ...]) -> list[str]:
    if len(ours) != len(theirs):
        return [f"{len(ours)} {what}s in the file, {len(theirs)} now"]
    keys = ("name", "shape", "dtype")
    return [
        f"{what} {a.name!r} {a.shape} {a.dtype} in the file is {b.name!r} {b.shape} {b.dtype} now"
        for a, b in zip(ours, theirs, strict=True)
        if any(getattr(a, key) != getattr(b, key) for key in keys)
    ]


# ---------------------------------------------------------------------------------------------- where a run comes from


def origin() -> dict[str, Any]:
    """Provenance of what this process writes."""
    return {
        "software": versions(),
        "command": list(sys.argv),
        "start_time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "host": platform.node(),
            "system": f"{platform.system()} {platform.release()}",
            "cpus": os.cpu_count(),
        },
        "seeds": seeds(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are loaded in this process; imports none."""
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in SOFTWARE}
    installed = {name: str(version) for name, version in loaded.items() if version is not None}
    return {"python": platform.python_version(), **installed}


def seeds() -> dict[str, int]:
    """Seeds that can be read without touching a generator: PYTHONHASHSEED, and the seed of a loaded torch."""
    result = {}
    if os.environ.get("PYTHONHASHSEED", "").isdigit():
        result["PYTHONHASHSEED"] = int(os.environ["PYTHONHASHSEED"])
    initial = getattr(sys.modules.get("torch"), "initial_seed", None)
    if initial is not None:
        result["torch"] = int(initial())
    return result
