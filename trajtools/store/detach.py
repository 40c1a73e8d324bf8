"""The writer's open HDF5 file, which can be abandoned without another write to the disk.

HDF5 flushes what it holds when a file is closed, and when a process ends. After a failed write, and in a forked child,
that must not happen: the file on disk is consistent as it is, and the parent goes on writing it.

HDF5 makes one object of all that a process opens of one file by one driver: it would refuse to write a file that some
thread reads, and keep it open for that reader when the writer closes it. The writer has a driver of its own.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from pathlib import Path

import h5py

from trajtools.store.transaction import LIBVER

_DRIVER = "trajtools writer"


def _choose_driver(access: h5py.h5p.PropFAID) -> None:
    # The driver for logging, told to log nothing, is the default one by another name: the same calls, the same speed.
    access.set_fapl_log(b"", 0, 0)


h5py.register_driver(_DRIVER, _choose_driver)


class Detachable:
    """An HDF5 file open for SWMR writing."""

    def __init__(self, path: Path) -> None:
        # Chunks are written straight to the file; the cache serves small series only.
        self.file = h5py.File(path, "r+", driver=_DRIVER, libver=LIBVER, locking=False, rdcc_nbytes=8 * 2**20)
        self._descriptor = self.file.id.get_vfd_handle()
        self.identity = _identity(os.fstat(self._descriptor))
        self.file.swmr_mode = True
        _ALL.add(self)

    def close(self) -> None:
        """Close the file; everything is on disk, and its mark of being written is gone."""
        _ALL.discard(self)
        self.file.flush()
        self.file.close()

    def divert(self) -> None:
        """Send whatever HDF5 still writes to nowhere."""
        with tempfile.TemporaryFile() as nowhere:
            os.dup2(nowhere.fileno(), self._descriptor, inheritable=False)

    def detach(self) -> None:
        """Close without touching the disk again, as if the process had been killed."""
        self.divert()
        _ALL.discard(self)
        # What goes wrong on the way to nowhere is of no interest.
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            self.file.close()


_ALL: weakref.WeakSet[Detachable] = weakref.WeakSet()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def is_written_here(path: Path) -> bool:
    """Say whether this process has the file open for writing."""
    return bool(_ALL) and _identity(os.stat(path)) in {opened.identity for opened in list(_ALL)}


def _divert_all() -> None:
    for opened in list(_ALL):
        with contextlib.suppress(OSError):
            opened.divert()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_divert_all)
