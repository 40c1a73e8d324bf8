"""Open files for reading: one per path and process, opened when needed, never carried into another process.

A file may be written while it is read, by this process, too. What is in the file stays where it is; but a change of the
structure (a new run, the end of a run) can come between two looks at it, and what was looked up before then does not
fit. `steady` looks again.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import h5py

from trajtools.errors import FormatError, InterruptedWriteError, TrajtoolsError
from trajtools.store.beside import BesideWriter
from trajtools.store.detach import is_written_here
from trajtools.store.h5 import in_words
from trajtools.store.journal import journal_path
from trajtools.store.liveness import has_live_writer
from trajtools.store.safety import check_file
from trajtools.store.superblock import SIGNATURE, SIZE, Superblock
from trajtools.store.transaction import recover

_TRIES = 5
_SETTLED_SECONDS = 1.0  # what was changed longer ago than this shows in the time stamp of the file

P = ParamSpec("P")
T = TypeVar("T")
Reader = TypeVar("Reader", bound="Reads")


class Handle:
    """A file open for reading.

    Attributes
    ----------
    lock : threading.RLock
        Held while something is read: a reader keeps others from opening the file anew under it.
    generation : int
        How often the file was opened; objects of HDF5 belong to one generation.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.generation = 0
        self._file: h5py.File | None = None
        self._pid = -1
        self._outdated = False
        self._seen = (0, 0, 0)
        _HANDLES.add(self)

    @property
    def file(self) -> h5py.File:
        """The open file; opened anew after `close`, and in a forked process."""
        if self._outdated:
            self.close()
        if self._file is None or self._pid != os.getpid():
            self._seen = _stamp(self.path)
            self._file, self._pid, self._outdated = open_checked(self.path), os.getpid(), False
            self.generation += 1
        return self._file

    def close(self) -> None:
        """Close the file; the next use opens it again, with what was written meanwhile."""
        with self.lock:
            if self._file is not None and self._pid == os.getpid():
                self._file.close()
            self._file = None

    @property
    def file_id(self) -> h5py.h5f.FileID | None:
        """HDF5's name for the open file; None where it is not open."""
        return self._file.id if self._file is not None and self._pid == os.getpid() else None

    @property
    def is_fresh(self) -> bool:
        """Whether it is open, and the file is as it was when it was opened."""
        return self.file_id is not None and _stamp(self.path) == self._seen

    def outdate(self) -> None:
        """Let the next use open the file again."""
        self._outdated = True

    def was_overtaken(self) -> bool:
        """Say whether the file was changed since it was opened, or so lately that its time stamp does not tell."""
        now = _stamp(self.path)
        return now != self._seen or abs(time.time() - now[2] / 1e9) < _SETTLED_SECONDS


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return (0, 0, 0)
    return status.st_ino, status.st_size, status.st_mtime_ns


_HANDLES: weakref.WeakSet[Handle] = weakref.WeakSet()
_SHARED: weakref.WeakValueDictionary[tuple[Path, int], Handle] = weakref.WeakValueDictionary()


def _renew_locks() -> None:
    for handle in list(_HANDLES):
        handle.lock = threading.RLock()  # its holder may be a thread that the fork has left behind


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class Reads(Protocol):
    """What reads through a handle."""

    _handle: Handle


def steady(method: Callable[Concatenate[Reader, P], T]) -> Callable[Concatenate[Reader, P], T]:
    """Let a method read undisturbed: one thread at a time, and again if the file was changed while it read."""

    @functools.wraps(method)
    def read(self: Reader, /, *args: P.args, **kwargs: P.kwargs) -> T:
        handle = self._handle
        with handle.lock:
            for trial in range(_TRIES):
                try:
                    with in_words(handle.path, "find the requested object"):
                        return method(self, *args, **kwargs)
                except FormatError:
                    if trial == _TRIES - 1 or not handle.was_overtaken():
                        raise
                    handle.close()
                    time.sleep(0.01 * 2**trial)
        raise AssertionError("the loop returns or raises")

    return read


def shared(path: Path) -> Handle:
    """Give the handle of a path in this process."""
    key = (path, os.getpid())
    handle = _SHARED.get(key)
    if handle is None:
        handle = _SHARED.setdefault(key, Handle(path))
    return handle


def release(path: Path) -> None:
    """Let all handles of a file in this process see what is in it from now on."""
    for handle in list(_HANDLES):
        if handle.path == path or (handle.path.exists() and path.exists() and handle.path.samefile(path)):
            handle.outdate()


def open_checked(path: Path) -> h5py.File:
    """Open a file for reading and check that it is one of ours."""
    for trial in range(_TRIES):
        try:
            return _open(path)
        except (TrajtoolsError, OSError):
            # A writer may be in the middle of a change of a few milliseconds.
            if trial == _TRIES - 1 or not path.exists():
                raise
            time.sleep(0.01 * 2**trial)
    raise AssertionError("the loop returns or raises")


def _open(path: Path) -> h5py.File:
    if path.is_dir():
        raise FormatError(f"{path} is a folder; needed a trajtools file")
    roll_back(path)
    with open(path, "rb") as raw:
        head, size = raw.read(SIZE), os.fstat(raw.fileno()).st_size
    block = check_head(path, head, size)
    marked = block is not None and block.flags != 0
    if not marked:
        return _directly(path, swmr=False)
    file = _read(path, BesideWriter(path))
    if is_written_here(path) or not has_live_writer(file):
        return file
    # Only beside a living writer: in SWMR mode HDF5 reads a damaged place again and again, for hours.
    file.close()
    return _directly(path, swmr=True)


def _directly(path: Path, *, swmr: bool) -> h5py.File:
    # HDF5 gives all of a process one view of a file: the one that was first, even if it is out of date by now.
    if not _is_viewed(path):
        try:
            return _read(path, path, swmr=swmr)
        except FormatError:
            # Perhaps it is viewed here since, or marked by a writer at this moment; if it is damaged, the view through
            # an object of our own says so, too.
            pass
    return _read(path, BesideWriter(path))


def _is_viewed(path: Path) -> bool:
    """Whether HDF5 has a view of the file in this process, other than one by our handles of the file as it is now."""
    there, fresh = os.stat(path), _fresh_views(path)
    for opened in h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE):
        if opened in fresh or opened.get_access_plist().get_driver() != h5py.h5fd.SEC2:
            continue
        if os.path.samestat(there, os.fstat(opened.get_vfd_handle())):
            return True
    return False


def _fresh_views(path: Path) -> set[h5py.h5f.FileID]:
    """Views of the file as it is now by our handles, without those that another thread closes at this moment."""
    found: set[h5py.h5f.FileID] = set()
    for handle in list(_HANDLES):
        view = handle.file_id if handle.path == path and handle.is_fresh else None
        if view is not None:
            with suppress(TypeError):  # what h5py says of the name of a closed file
                found.add(view)
    return found


def _read(path: Path, source: Path | BesideWriter, *, swmr: bool = False) -> h5py.File:
    options = {"locking": False, "swmr": swmr} if isinstance(source, Path) else {}
    with in_words(path, "open the file"):
        file = h5py.File(source, "r", **options)
    try:
        with in_words(path, "read the head of the file"):
            check_file(file, str(path))
    except BaseException:
        file.close()
        raise
    return file


def roll_back(path: Path) -> bool:
    """Put a file right whose writer was killed in the middle of a change."""
    try:
        return recover(path)
    except PermissionError as error:
        raise InterruptedWriteError(
            f"{path} was left in the middle of a change ({journal_path(path).name} is next to it), and repairing it "
            "needs write permission; run `trajtools repair` where the file is writable"
        ) from error


def check_head(path: Path, head: bytes, size: int) -> Superblock | None:
    """Check the first bytes of a file."""
    if not head:
        raise FormatError(f"{path} is empty; needed a trajtools file")
    if not head.startswith(SIGNATURE):
        raise FormatError(f"{path} is not an HDF5 file; needed a file that a trajtools recorder wrote")
    block = Superblock.parse(head)
    if block is not None and not block.intact:
        raise FormatError(f"{path} is damaged: the checksum of its first 48 bytes is wrong")
    if block is not None and not block.flags and block.end > size:
        raise FormatError(f"{path} is truncated: {size} bytes are there, {block.end} were written. Copy it again.")
    return block
