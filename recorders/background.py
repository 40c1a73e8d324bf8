"""The queue from captured states to the file, with its writer thread.

Locks: `_lock` guards the blocks, `_io` the writer of the file; whoever needs both takes `_lock` first, and the thread
holds only `_io` while it writes. The thread writes full blocks (``threaded``), writes a block that is not full yet when
the time is up, and writes the heartbeat; without ``threaded``, full blocks are written by the training loop itself.

The newest state is always in the current block, also when that is full: the block is handed over when the next state
needs a row, so metrics of the newest state find it in memory.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recorders.adapter import Pending
from recorders.planting import Planting
from recorders.storage import Block, Storage
from trajtools.errors import RecordingError
from trajtools.store import RunWriter
from trajtools.store.layout import NAME_BYTES
from trajtools.wiring import listed

BEAT_SECONDS = 10.0


class RecordingWarning(UserWarning):
    """Something is not recorded; the training goes on."""


def warn(text: str) -> None:
    """Warn at the line of the user's that called the recorder."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).split(".")[0] == "recorders":
        frame, level = frame.f_back, level + 1
    warnings.warn(text, RecordingWarning, stacklevel=level)


class _WriterLost(Exception):
    """The file cannot be written any more; `Tape.check` says why."""


ON_FULL = ("block", "skip", "error")
WRITERS = ("auto", "thread", "direct")


class Tape:
    """Queue of a recorder: takes states, writes blocks. Owns the writer from opening to closing."""

    def __init__(
        self,
        writer: RunWriter,
        storage: Storage,
        metrics: MetricTable,
        pace: Pace,
        current: Block,
        *,
        strict: bool = False,
    ) -> None:
        self.meter = Meter(time.perf_counter())
        self.metrics = metrics
        self._writer, self._storage, self._pace = writer, storage, pace
        self._beside = MetricsBeside(writer.path)
        self._current: Block | None = current
        self._flush_rows = max(1, -(-pace.flush_bytes // storage.bytes_per_state))
        self._next = current.start  # index of the first state of the next block
        self._free: list[Block] = []
        self._full: deque[Block] = deque()
        self._plantings: list[tuple[int, Planting]] = []  # not in the file yet, each with the index of its state
        self._n_blocks = 1  # the second one is made when it is needed
        self._n_values: dict[str, int] = {}  # how often a metric of the newest state came: micro-batches are averaged
        self._waiting_since: float | None = None
        self._beat_at = time.monotonic() + BEAT_SECONDS
        self.dead = False  # closed, failed or forked: `check` says which
        self._error: BaseException | None = None
        self._strict = strict
        self._reported = self._closed = self._stop = self._stopped = self._abandoned = False
        self._remarks: list[str] = list(writer.remarks)
        self._refused: set[str] = set()  # metrics of which the user was warned that values are none
        self.outcome = "interrupted"
        self.ended = ""  # why the recording is interrupted
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._turn = threading.Condition(self._lock)  # the training loop waits here for a free block
        self._wake = threading.Event()  # and the thread here for work
        self._asking = False  # the thread wants `_lock`
        self._io = threading.Lock()
        _TAPES.add(self)
        self._thread = threading.Thread(target=self._run, name="trajtools recorder", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------- the training loop

    def append(
        self,
        step: int,
        read: Callable[[Any], list[np.ndarray] | Pending],
        state: Any,
        metrics: Mapping[str, Any] | None = None,
        plantings: Iterable[Planting] = (),
    ) -> bool:
        """Capture one state, and what was planted in it; False where it is not stored."""
        if self.dead and not self.check():
            return False
        if self._asking:
            # A loop that does nothing but record takes the lock again before the thread, woken, can.
            time.sleep(0)
        try:
            stored = self._append(step, read, state, metrics, plantings)
        except _WriterLost:
            return self.check()
        if self._beside.news:
            self._beside.warn()
        return stored

    def _append(
        self,
        step: int,
        read: Callable[[Any], list[np.ndarray] | Pending],
        state: Any,
        metrics: Mapping[str, Any] | None,
        plantings: Iterable[Planting],
    ) -> bool:
        with self._lock:
            block = self._current
            if block is None or block.count == block.rows:
                block = self._turn_to_next()
            if block is None:
                self.meter.skipped += 1
                return False
            arrays = read(state)
            row = block.count
            if block.pending:
                self._settle(block)
            if isinstance(arrays, Pending):
                block.pending.append((row, arrays))
            else:
                self._storage.put(block, row, arrays)
            block.step[row] = step
            self._n_values.clear()
            self.meter.states += 1
            self._plantings += [(block.start + row, planting) for planting in plantings]
            block.count = row + 1
            if metrics:
                self.note(metrics)
            if self._waiting_since is None or self._flush_rows <= block.rows:
                self._start_clock(block)
            return True

    def note(self, values: Mapping[str, Any], stored: bool = True) -> None:
        """Give metrics, as `MetricTable.parse` returns them, to the newest state; drop them if it is not `stored`.

        What comes more than once for a state is averaged.
        """
        if self.dead and not self.check():
            return
        with self._lock:
            block = self._current
            if not stored or block is None:
                return
            row = block.count - 1
            for name, value in values.items():
                if name not in block.metrics:
                    block.metrics[name] = self.metrics.new_rows(block.rows, name)
                n = self._n_values[name] = self._n_values.get(name, 0) + 1
                rows = block.metrics[name]
                rows[row] = value if n == 1 else _mean_with(rows[row], value, n)
            if row < block.written:
                block.metrics_changed = True
                self._mark_waiting()

    def check(self) -> bool:
        """Whether recording goes on. If the file is lost, warn once (raise if strict); raise where it is closed."""
        if self._pid != os.getpid():
            raise RecordingError(
                "this process was forked from the one that records, and a file has one writer; "
                "record in the parent, or open a recorder with another path in this process"
            )
        if self._error is not None:
            self._report(f"the recorder could not write and has stopped: {self._error}")
            return False
        if self._stopped and not self._closed:
            return False
        if self._closed:
            raise RecordingError("this recorder is closed; record inside its `with` block, or open it with resume=True")
        return True

    @property
    def is_open(self) -> bool:
        """Whether this process still has to close the file."""
        return not self._closed and self._pid == os.getpid()

    @property
    def path(self) -> Path:
        """The file."""
        return self._writer.path

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was said about what is not in the file."""
        return tuple(self._remarks)

    @property
    def unstored(self) -> tuple[str, ...]:
        """Metrics that found no column."""
        return self._writer.unstored

    def numbers(self, values: Mapping[str, Any], lead: Shape = ()) -> Mapping[str, Any]:
        """Check metrics (`MetricTable.parse`). What is none is left out, with one warning a name; raise if strict."""
        try:
            return self.metrics.parse(values, lead)
        except RecordingError:
            if self._strict:
                raise
        kept: dict[str, Any] = {}
        for name, value in values.items():
            try:
                kept.update(self.metrics.parse({name: value}, lead))
            except RecordingError as error:
                if name not in self._refused:
                    self._refused.add(name)
                    self.remark(f"{error}; such values are not recorded", "The training goes on.")
        return kept

    def remark(self, text: str, outcome: str) -> None:
        """Say in the file and in a warning what is not recorded; raise if strict."""
        if self._strict:
            raise RecordingError(text)
        if text not in self._remarks:
            self._remarks.append(text)
        if self.is_open:
            # The file may be lost, which is reported, or its notes full.
            with self._io, suppress(RecordingError, ValueError):
                self._writer.note(remarks=self._remarks)
        warn(f"{text}. {outcome}")

    def stop(self, why: str, error: Exception) -> None:
        """Record no further state, because the network has changed; raise if strict."""
        if self._strict:
            raise error
        if not self._stopped:
            self._stopped = self.dead = True
            self.ended = why
            self.remark(why, "The training goes on without being recorded.")

    def _report(self, text: str) -> None:
        if self._strict:
            self._reported = True
            raise RecordingError(text) from self._error
        if not self._reported:
            self._reported = True
            warn(f"{text.rstrip('.')}. The training goes on without being recorded.")

    def settle(self) -> None:
        """Copy what is still on its way from a device."""
        with self._lock:
            if self._current is not None:
                self._settle(self._current)

    def flush(self) -> None:
        """Wait until the states so far are in the file; of compressed chunks, those of whole chunks."""
        if self.dead or self._pid != os.getpid():
            return
        with self._lock:
            if self._waiting_since is not None:
                self._waiting_since = -np.inf
            self._wake.set()
            while not self.dead and (self._full or (self._pace.partial and self._waiting_since is not None)):
                self._turn.wait(0.01)
        with self._io:  # the thread holds it while it writes
            pass

    def _turn_to_next(self) -> Block | None:
        """Hand a full block over and give an empty one; None where the state must be left out."""
        if self._current is not None:
            self._hand_over(self._current)
        if not self._free and self._n_blocks >= self._pace.n_blocks and not self._wait():
            return None
        if self._free:
            block = self._free.pop()  # the one used last is the one still in the cache
            block.start, block.count, block.written, block.metrics_changed = self._next, 0, 0, False
            for values in block.metrics.values():
                values.fill(np.nan)
        else:
            block = self._storage.new_block(self._next)
            self._n_blocks += 1
        self._current = block
        return block

    def _hand_over(self, block: Block) -> None:
        """A full block goes to the thread, or straight to the file."""
        self._settle(block)
        self._next = block.start + block.count
        self._full.append(block)
        self._current, self._waiting_since = None, None
        if self._pace.threaded:
            self._wake.set()
            return
        began = time.perf_counter()
        # A block that an interrupt (Ctrl-C) leaves in the queue is written by the thread.
        self._guarded(self._write_queue)
        self.meter.blocked_seconds += time.perf_counter() - began

    def _wait(self) -> bool:
        """Wait for a free block; False where the state is left out instead."""
        if self._pace.on_full == "skip":
            return False
        if self._pace.on_full == "error":
            raise RecordingError(
                f"all {self._pace.n_blocks} buffers are full: the disk is slower than the training. "
                "Record less (every=, include=), increase buffer_bytes, or choose on_full='block' or 'skip'"
            )
        began = time.perf_counter()
        while not self._free:
            self._turn.wait()
            if self.dead:
                raise _WriterLost
        self.meter.blocked_seconds += time.perf_counter() - began
        return True

    def _settle(self, block: Block) -> None:
        while block.pending:
            row, pending = block.pending.pop(0)
            pending.wait()
            self._storage.put(block, row, pending.arrays)

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do something with the file in the training loop; an error stops the recorder for good."""
        try:
            act()
        except Exception as error:
            self._fail(error)
            raise _WriterLost from error

    def _fail(self, error: BaseException) -> None:
        self._error, self.dead = error, True
        self._turn.notify_all()
        self._wake.set()

    def _start_clock(self, block: Block) -> None:
        # The opening state alone sets no clock: the metrics of the first step may still be on their way.
        if block.metrics or block.start + block.count > 1:
            self._mark_waiting()
        if self._pace.partial and block.count < block.rows and block.count - block.written >= self._flush_rows:
            self._waiting_since = -np.inf
            self._wake.set()

    def _mark_waiting(self) -> None:
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
            self._wake.set()

    # -------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            while self._work():
                pass
        except BaseException as error:
            with self._lock:
                self._fail(error)
        if self._abandoned:
            self._close_quietly()

    def _work(self) -> bool:
        """Wait for something to do and do it; False when all is done."""
        if not (self._stop or self._full):
            self._wake.wait(max(0.0, self._seconds_left()))
        # What happens from here on sets it again.
        self._wake.clear()
        with self._thread_turn():
            if self._error is not None or (self._stop and not self._full):
                return False
            if not self._full and self._seconds_left() > 0:
                return True
            block = self._full[0] if self._full else None
            job = self._small_job() if block is None else partial(self._write, block.start, block.payload(block.count))
            self._io.acquire()
        try:
            job()
        finally:
            self._io.release()
        if block is not None:
            with self._thread_turn():
                self._release(block)
        return True

    @contextmanager
    def _thread_turn(self) -> Iterator[None]:
        """Hold `_lock` in the thread, asking the training loop for it first."""
        self._asking = True
        with self._lock:
            self._asking = False
            yield

    def _seconds_left(self) -> float:
        return min(self._beat_at, self._flush_at()) - time.monotonic()

    def _flush_at(self) -> float:
        waiting = self._waiting_since if self._pace.partial else None
        return np.inf if waiting is None else waiting + self._pace.flush_seconds

    def _small_job(self) -> Callable[[], None]:
        """Write the tail if it is due, else the heartbeat; chosen with `_lock` held, done with `_io` held."""
        self._beat_at = time.monotonic() + BEAT_SECONDS
        block = self._current
        if block is None or time.monotonic() < self._flush_at():
            return self._writer.beat
        self._settle(block)
        self._waiting_since, block.metrics_changed = None, False
        block.written = block.count
        return partial(self._write, block.start, block.payload(block.count))

    def _write_queue(self) -> None:
        while self._full:
            block = self._full[0]
            with self._io:
                self._write(block.start, block.payload(block.count))
            self._release(block)

    def _release(self, block: Block) -> None:
        """Free a block that is safe; `_lock` is held. It may have been freed by the other side already."""
        if self._full and self._full[0] is block:
            self._full.popleft()
            self._free.append(block)
        self._turn.notify_all()

    def _write(self, start: int, payload: dict[str, Any], final: bool = False) -> None:
        count = len(payload["step"])
        # What comes in meanwhile belongs to later states, and stands behind these.
        planted = [planting for at, planting in list(self._plantings) if at < start + count]
        self._writer.write(start, count, final=final, plantings=planted, **payload)
        del self._plantings[: len(planted)]
        if self._writer.unstored:
            self._beside.write(self._writer.unstored, payload)
        self._beat_at = time.monotonic() + BEAT_SECONDS
        self.meter.bytes += count * self._storage.bytes_per_state

    # ------------------------------------------------------------------------------------------------------ closing

    def close(self, status: str) -> None:
        """Write what is left, close the file as `status`; raise an error that was not raised yet."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._stop = True
            self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        with self._lock:
            if self._closed:
                return
            self._closed = self.dead = True
            try:
                if self._error is None:
                    self._write_rest()
            except BaseException as error:
                self._fail(error)
            self._close_writer("interrupted" if self._stopped else status)
        if self._error is not None and not self._reported:
            self._report(f"the last states could not be written: {self._error}")
        if self._beside.news:
            self._beside.warn()

    def _write_rest(self) -> None:
        self._write_queue()
        block = self._current
        if block is not None and (block.count > block.written or block.metrics_changed):
            self._settle(block)
            with self._io:
                self._write(block.start, block.payload(block.count), final=True)

    def _close_writer(self, status: str) -> None:
        try:
            status = status if self._error is None else "interrupted"
            self.outcome = f"{status} ({self.ended})" if status == "interrupted" and self.ended else status
            self._writer.close(status, self.meter.as_dict(), self.ended if status == "interrupted" else "")
        except Exception as error:
            self._error = self._error or error
            self._writer.abort()

    def finish(self) -> None:
        """Save a run whose recorder was never closed; called at exit, or when the recorder is collected."""
        if (
            threading.current_thread() is self._thread
        ):  # collected while the thread was at work: it closes when it is done
            self._abandoned = self._stop = True
            return
        self._close_quietly()

    def _close_quietly(self) -> None:
        self.ended = self.ended or "the recorder was not closed: no `with` block, or an error before close()"
        try:
            self.close("interrupted")
        except RecordingError:
            logging.getLogger("recorders").exception("a recorder that was not closed could not save everything")


def is_recorded_here(path: Path) -> bool:
    """Whether an open recorder of this process writes this file."""
    return any(tape.is_open and tape.path.exists() and path.exists() and tape.path.samefile(path) for tape in _TAPES)


def _mean_with(mean: Any, value: Any, n: int) -> Any:
    """Mean of n values, from that of the first n - 1 and the last; equal ones keep every bit."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(mean), mean + value, mean + (np.asarray(value) - mean) / n)


class MetricsBeside:
    """Metrics that found no column in the file: lines of JSON in ``<file>.metrics.jsonl``, one a step.

    The last line of a step holds all its values; NaN and infinities are written as Python's `json` reads them.

    Attributes
    ----------
    path : Path
        The file of lines, made with the first of them.
    news : list of str
        Metrics of which the user was not warned yet.
    """

    def __init__(self, file: Path) -> None:
        self.path = file.with_name(f"{file.name}.metrics.jsonl")
        self.news: list[str] = []
        self._names: set[str] = set()
        self._lines: dict[int, str] = {}  # those of the block that was written last, which may be written again

    def write(self, names: Iterable[str], payload: Mapping[str, Any]) -> None:
        """Append what is new in a block."""
        columns = {name: payload["metrics"][name] for name in names if name in payload["metrics"]}
        lines: dict[int, str] = {}
        for row, step in enumerate(payload["step"].tolist()):
            values = {name: rows[row].tolist() for name, rows in columns.items() if not np.isnan(rows[row]).all()}
            if values:
                lines[step] = json.dumps({"step": step, **values}, ensure_ascii=False)
        text = "".join(f"{line}\n" for step, line in lines.items() if self._lines.get(step) != line)
        self._lines = lines
        if text:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        strange = [name for name in columns if name not in self._names]
        self._names.update(strange)
        self.news += strange

    def warn(self) -> None:
        """Warn of the metrics that came without a column; call it in the training loop."""
        names, self.news = self.news, []
        warn(
            f"the file has no free column for the metric{'s' * (len(names) > 1)} {listed(names)}: values "
            f"go to {self.path}. Declare all metrics when opening: metrics="
        )


_TAPES: weakref.WeakSet[Tape] = weakref.WeakSet()


def _after_fork() -> None:
    for tape in _TAPES:
        tape.dead = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True)
class Pace:
    """How far the file may lag behind, and what happens when the disk is slower than the training.

    Attributes
    ----------
    threaded : bool
        Full blocks are written by a thread.
    on_full : str
        One of `ON_FULL`.
    n_blocks : int
        Largest number of blocks in memory, at least 2.
    flush_seconds : float
        A captured state waits at most so long.
    flush_bytes : int
        So many captured bytes at most wait for their block to fill.
    partial : bool
        False for filtered files, whose blocks are written whole only.
    """

    threaded: bool
    on_full: str
    n_blocks: int
    flush_seconds: float
    flush_bytes: int
    partial: bool

    @classmethod
    def settle(
        cls,
        *,
        writer: str,
        busy_cores: int,
        on_full: str,
        block_bytes: int,
        buffer_bytes: int,
        flush_seconds: float,
        flush_bytes: int,
        partial: bool,
    ) -> Pace:
        """Settle buffers and times from what the user asks."""
        if writer not in WRITERS:
            raise RecordingError(f"writer={writer!r}: it must be one of {', '.join(WRITERS)}")
        if on_full not in ON_FULL:
            raise RecordingError(f"on_full={on_full!r}: it must be one of {', '.join(ON_FULL)}")
        positive = {"buffer_bytes": buffer_bytes, "flush_seconds": flush_seconds, "flush_bytes": flush_bytes}
        for name, value in positive.items():
            if not value > 0:
                raise RecordingError(f"{name}={value}: it must be positive")
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        threaded = writer == "thread" or (writer == "auto" and cores > busy_cores)
        # Blocks that wait for a slow disk are behind, too: together they keep the promise of flush_bytes.
        n_blocks = max(2, int(min(buffer_bytes, flush_bytes) // block_bytes))
        return cls(threaded, on_full, n_blocks, flush_seconds, flush_bytes, partial)


@dataclass
class Meter:
    """What recording cost so far.

    Attributes
    ----------
    opened : float
        `time.perf_counter` at opening.
    record_seconds : float
        Inside `record`, `advance` and `record_block`.
    blocked_seconds : float
        Part of it: waiting for a free buffer, or writing in the training loop itself.
    states, skipped : int
        Stored, and left out because no buffer was free.
    bytes : int
        Handed to the writer; more than the states hold where a block was written before it was full.
    """

    opened: float
    record_seconds: float = 0.0
    blocked_seconds: float = 0.0
    states: int = 0
    skipped: int = 0
    bytes: int = 0

    def as_dict(self) -> dict[str, float | int]:
        """As the file keeps it."""
        return {
            "seconds_total": time.perf_counter() - self.opened,
            "seconds_in_record": self.record_seconds,
            "seconds_blocked": self.blocked_seconds,
            "states": self.states,
            "skipped": self.skipped,
            "bytes": self.bytes,
        }


Shape = tuple[int, ...]


class MetricTable:
    """Names and shapes of a run's metrics, and the check of every value that arrives."""

    def __init__(self, n_members: int, declared: Mapping[str, Shape] | Iterable[str] | None = None) -> None:
        self.n_members = n_members
        self._numbers: set[str] = set()  # metrics that are one number, which need no check
        self._shapes: dict[str, Shape | None] = {}
        if isinstance(declared, Mapping):
            for name, shape in declared.items():
                self._shapes[str(name)] = self._allowed(str(name), tuple(shape))
        else:
            names = (declared,) if isinstance(declared, str) else declared or ()
            for name in map(str, names):
                self._allowed(name, ())
                self._shapes[name] = None

    @property
    def shapes(self) -> dict[str, Shape | None]:
        """Name -> shape per state; None where only the name is known."""
        return dict(self._shapes)

    def adopt(self, shapes: Mapping[str, Shape]) -> None:
        """Take the metrics of the file that goes on."""
        self._shapes.update(shapes)
        self._numbers.update(name for name, shape in shapes.items() if shape == ())

    def parse(self, values: Mapping[str, Any], lead: Shape = ()) -> Mapping[str, Any]:
        """Check values against the table; new names join it."""
        if all(type(value) is float and name in self._numbers for name, value in values.items()) and not lead:
            return values
        parsed = {name: self._array(name, value) for name, value in values.items()}
        joining: dict[str, Shape] = {}
        for name, array in parsed.items():
            if array.shape[: len(lead)] != lead:
                raise RecordingError(
                    f"metric {name!r} has shape {array.shape}; it needs a leading axis of {lead[0]} states"
                )
            shape = array.shape[len(lead) :]
            if self.n_members == 1 and len(shape) == 1 and shape != (1,):
                shape = (1, *shape)  # k numbers of the one member
                parsed[name] = array.reshape((*lead, *shape))
            known = self._shapes.get(name)
            if known is None:
                joining[name] = self._allowed(name, shape)
            elif known != shape:
                raise RecordingError(
                    f"metric {name!r} has shape {shape} per state, its first value had shape {known}; use one shape, "
                    f"and declare it when opening: metrics={{{name!r}: {shape}}}"
                )
        self._shapes.update(joining)
        self._numbers.update(name for name, shape in joining.items() if shape == ())
        return parsed

    def _allowed(self, name: str, shape: Shape) -> Shape:
        if not name or "\0" in name or len(name.encode("utf-8", "replace")) > NAME_BYTES:
            raise RecordingError(f"metric {name!r} needs a name of 1 to {NAME_BYTES} bytes without NUL")
        per_member = len(shape) in (1, 2) and shape[0] == self.n_members and min(shape) > 0
        if shape == () or per_member:
            return shape
        raise RecordingError(
            f"metric {name!r} has shape {shape} per state; with {self.n_members} members it may be a number (), "
            f"({self.n_members},) or ({self.n_members}, k)"
        )

    @staticmethod
    def _array(name: str, value: Any) -> np.ndarray:
        try:
            # tolist() reads arrays and tensors of every framework and dtype, and asks no gradient.
            return np.asarray(value.tolist() if hasattr(value, "tolist") else value, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            found = " ".join(repr(value).split())
            raise RecordingError(
                f"metric {name!r} is a {type(value).__name__} that is neither a real number nor an array of them: "
                f"{found:.80}; {_way_out(value)}"
            ) from error

    def new_rows(self, rows: int, name: str) -> np.ndarray:
        """Room for a metric of `rows` states, all NaN."""
        return np.full((rows, *(self._shapes[name] or ())), np.nan)


def _way_out(value: Any) -> str:
    """What to record in place of a value that is no number."""
    if isinstance(getattr(value, "metrics", None), Mapping):
        return "record the numbers of a result with **result.metrics"
    if isinstance(value, Mapping):
        return "record each of its numbers under a name of its own"
    return "pass its real part or abs(value)" if isinstance(value, complex) else "pass a number, such as float(value)"
