"""The way from the captured states to the file: blocks in turn, one writer, and the thread that keeps promises of time.

Locks: `_lock` guards the blocks, `_io` the writer of the file; whoever needs both takes `_lock` first, and the thread
holds only `_io` while it writes. The thread writes full blocks (``threaded``), writes a block that is not full yet when
the time is up, and gives the sign of life; without ``threaded``, full blocks are written by the training loop itself.

The newest state is always in the current block, also when that is full: the block is handed over when the next state
needs a row, so metrics of the newest state find it in memory.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from recorders.adapter import Pending
from recorders.cost import Meter
from recorders.metrics import MetricTable
from recorders.pace import Pace
from recorders.storage import Block, Storage
from trajtools.errors import RecordingError
from trajtools.store import RunWriter

BEAT_SECONDS = 10.0


_TAPES: weakref.WeakSet[Tape] = weakref.WeakSet()


def _after_fork() -> None:
    for tape in _TAPES:
        tape.dead = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Tape:
    """States in, file out. Owns the writer from opening to closing."""

    def __init__(self, writer: RunWriter, storage: Storage, metrics: MetricTable, pace: Pace, current: Block) -> None:
        self.meter = Meter(time.perf_counter())
        self.metrics = metrics
        self._writer, self._storage, self._pace = writer, storage, pace
        self._current: Block | None = current
        self._flush_rows = max(1, -(-pace.flush_bytes // storage.bytes_per_state))
        self._next = current.start  # index of the first state of the next block
        self._free: list[Block] = [storage.new_block(0)] if pace.threaded else []
        self._full: deque[Block] = deque()
        self._n_blocks = 1 + len(self._free)
        self._waiting_since: float | None = None
        self._beat_at = time.monotonic() + BEAT_SECONDS
        self.dead = False  # closed, failed or forked: `check` says which
        self._error: BaseException | None = None
        self._told = self._closed = self._stop = self._abandoned = False
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
    ) -> bool:
        """Capture one state."""
        if self.dead:
            self.check()
        if self._asking:
            # A loop that does nothing but record takes the lock again before the thread, woken, can.
            time.sleep(0)
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
            self.meter.states += 1
            block.count = row + 1
            if metrics:
                self.note(metrics)
            if self._waiting_since is None or self._flush_rows <= block.rows:
                self._look_at_clock(block)
            return True

    def note(self, values: Mapping[str, Any], stored: bool = True) -> None:
        """Give metrics, as `MetricTable.parse` returns them, to the newest state; drop them if it is not `stored`."""
        if self.dead:
            self.check()
        with self._lock:
            if not self.metrics.fixed:
                self._guarded(self._fix)
            block = self._current
            if not stored or block is None:
                return
            row = block.count - 1
            for name, value in values.items():
                block.metrics[name][row] = value
            if row < block.written:
                block.metrics_changed = True
                self._mark_waiting()

    def check(self) -> None:
        """Raise what stands in the way of recording on."""
        if self._pid != os.getpid():
            raise RecordingError(
                "this process was forked from the one that records, and a file has one writer; "
                "record in the parent, or open a recorder with a path of its own here"
            )
        if self._error is not None:
            self._told = True
            raise RecordingError(f"the recorder could not write and has stopped: {self._error}") from self._error
        if self._closed:
            raise RecordingError("this recorder is closed; record inside its `with` block, or open it with resume=True")

    def settle(self) -> None:
        """Copy what is still on its way from a device."""
        with self._lock:
            if self._current is not None:
                self._settle(self._current)

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
        block.metrics = block.metrics or self.metrics.new_rows(block.rows)
        self._current = block
        return block

    def _hand_over(self, block: Block) -> None:
        """A full block goes to the thread, or straight to the file."""
        self._settle(block)
        self._guarded(self._fix)
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
                "Record less (every=, include=), give more buffer_bytes, or choose on_full='block' or 'skip'"
            )
        began = time.perf_counter()
        while not self._free:
            self._turn.wait()
            self.check()
        self.meter.blocked_seconds += time.perf_counter() - began
        return True

    def _settle(self, block: Block) -> None:
        while block.pending:
            row, pending = block.pending.pop(0)
            pending.wait()
            self._storage.put(block, row, pending.arrays)

    def _fix(self) -> None:
        """Fix the structure of the run: from here on the file takes states and no new names."""
        if self.metrics.fixed:
            return
        with self._io:
            self._writer.begin(self.metrics.shapes)
        self.metrics.fix()
        if self._current is not None:
            self._current.metrics = self.metrics.new_rows(self._current.rows)

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do something with the file in the training loop; an error stops the recorder for good."""
        try:
            act()
        except Exception as error:
            self._fail(error)
            self.check()

    def _fail(self, error: BaseException) -> None:
        self._error, self.dead = error, True
        self._turn.notify_all()
        self._wake.set()

    def _look_at_clock(self, block: Block) -> None:
        # The opening state alone sets no clock: the metrics of the first step may still be on their way.
        if self.metrics.fixed or block.start + block.count > 1:
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
            self._close_unasked()

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
        """The tail if it is due, else the sign of life; asked for with `_lock` held, done with `_io` held."""
        self._beat_at = time.monotonic() + BEAT_SECONDS
        block = self._current
        if block is None or time.monotonic() < self._flush_at():
            return self._writer.beat
        self._settle(block)
        self._fix()
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
        self._writer.write(start, count, final=final, **payload)
        self._beat_at = time.monotonic() + BEAT_SECONDS
        self.meter.bytes += count * self._storage.bytes_per_state

    # ------------------------------------------------------------------------------------------------------ closing

    def close(self, status: str) -> None:
        """Write what is left, close the file as `status`; raise what went wrong and was not told yet."""
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
            self._close_writer(status)
        if self._error is not None and not self._told:
            self._told = True
            raise RecordingError(f"the last states could not be written: {self._error}") from self._error

    def _write_rest(self) -> None:
        self._fix()
        self._write_queue()
        block = self._current
        if block is not None and (block.count > block.written or block.metrics_changed):
            self._settle(block)
            with self._io:
                self._write(block.start, block.payload(block.count), final=True)

    def _close_writer(self, status: str) -> None:
        try:
            self._writer.close(status if self._error is None else "interrupted", self.meter.as_dict())
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
        self._close_unasked()

    def _close_unasked(self) -> None:
        try:
            self.close("interrupted")
        except RecordingError:
            logging.getLogger("recorders").exception("a recorder that was not closed could not save everything")
