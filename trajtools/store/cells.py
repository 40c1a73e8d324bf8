"""The two numbers of a run that change in place while it is recorded: `committed` and `heartbeat`.

Each is eight aligned bytes at a fixed place, so a single write replaces it whole. Written past HDF5, the heartbeat
needs no HDF5 lock and beats on while a long write runs; nothing in HDF5 caches them, for the writer never touches them
through it.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from pathlib import Path

from trajtools.errors import RecordingError


class Cells:
    """Open the two cells of a run."""

    def __init__(self, path: Path, committed_at: int, heartbeat_at: int, heartbeat: float) -> None:
        self._path = path
        self._committed_at, self._heartbeat_at = committed_at, heartbeat_at
        self._heartbeat = heartbeat
        self._lock = threading.Lock()
        self._descriptor: int | None = os.open(path, os.O_RDWR)

    def commit(self, count: int) -> None:
        """Say that the first `count` states are whole."""
        with self._lock:
            os.pwrite(self._opened(), struct.pack("<q", count), self._committed_at)

    def beat(self) -> None:
        """Say that the writer lives."""
        with self._lock:
            if self._descriptor is not None:
                self._check()
                self._put(time.time())

    def give_up(self) -> None:
        """Say that the writer will not write again, where the file itself cannot be changed any more."""
        with self._lock:
            if self._ours():
                self._put(0.0)

    def check(self) -> None:
        """Check that nobody has taken the run over."""
        with self._lock:
            self._check()

    def sync(self) -> None:
        """Wait until the disk has everything."""
        with self._lock:
            os.fsync(self._opened())

    def close(self) -> None:
        """Close the file; a heartbeat that comes late goes nowhere."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        if self._descriptor is None:
            raise RecordingError(f"the recording into {self._path} is closed")
        return self._descriptor

    def _put(self, heartbeat: float) -> None:
        os.pwrite(self._opened(), struct.pack("<d", heartbeat), self._heartbeat_at)
        self._heartbeat = heartbeat

    def _ours(self) -> bool:
        (found,) = struct.unpack("<d", os.pread(self._opened(), 8, self._heartbeat_at).ljust(8, b"\0"))
        return bool(found == self._heartbeat)

    def _check(self) -> None:
        if not self._ours():
            raise RecordingError(
                f"another process has taken over the recording into {self._path}, because this one sent no heartbeat "
                "for more than a minute; record into a new file, or resume from a fresh recorder"
            )
