"""Open files for reading: one per path and process, opened when needed, never carried into another process."""

from __future__ import annotations

import os
import time
import weakref
from pathlib import Path

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


class Handle:
    """A file open for reading.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        self._file: h5py.File | None = None
        self._pid = -1

        _HANDLES.add(self)

    @property
    def file(self) -> h5py.File:
        """The open file; opened anew after `close` and in a forked process."""
        if self._file is None or self._pid != os.getpid():
            self._file, self._pid = open_checked(self.path), os.getpid()
            self.generation += 1
        return self._file

    def close(self) -> None:
        """Close the file; the next use opens it again, with what was written meanwhile."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None


_HANDLES: weakref.WeakSet[Handle] = weakref.WeakSet()
_SHARED: weakref.WeakValueDictionary[tuple[Path, int], Handle] = weakref.WeakValueDictionary()


def shared(path: Path) -> Handle:
    """Give the handle of a path in this process.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Handle
    """
    key = (path, os.getpid())
    handle = _SHARED.get(key)
    if handle is None:
        handle = _SHARED[key] = Handle(path)
    return handle


def release(path: Path) -> None:
    """Close all handles of a file in this process, because HDF5 does not open it for writing beside them.

    Parameters
    ----------
    path : Path
        The file. Its handles open it anew when they are used next.
    """
    for handle in list(_HANDLES):
        if handle.path == path or (handle.path.exists() and path.exists() and handle.path.samefile(path)):
            handle.close()


def open_checked(path: Path) -> h5py.File:
    """Open a file for reading and check that it is one of ours.

    Parameters
    ----------
    path : Path
        The file; it may be written by another process at this moment.

    Returns
    -------
    h5py.File

    Raises
    ------
    FileNotFoundError
        If there is none.
    FormatError
        If it is no trajtools file, of another version, or damaged.
    """
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
    file = _read(path, BesideWriter(path) if marked else path)
    if marked and not is_written_here(path) and has_live_writer(file):
        # Only beside a living writer: in SWMR mode HDF5 reads a damaged place again and again, for hours.
        file.close()
        file = _read(path, path, swmr=True)
    return file


def _read(path: Path, source: Path | BesideWriter, *, swmr: bool = False) -> h5py.File:
    options = {"locking": False, "swmr": swmr} if isinstance(source, Path) else {}
    with in_words(path, "open the file"):
        file = h5py.File(source, "r", **options)
    try:
        with in_words(path, "read the head of the file"):
            check_file(file)
    except BaseException:
        file.close()
        raise
    return file


def roll_back(path: Path) -> bool:
    """Put a file right whose writer was killed in the middle of a change.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bool
        Whether there was something to put right.

    Raises
    ------
    InterruptedWriteError
        If it cannot be written from here.
    """
    try:
        return recover(path)
    except PermissionError as error:
        raise InterruptedWriteError(
            f"{path} was left in the middle of a change ({journal_path(path).name} lies beside it), and it cannot be "
            "mended from here without permission to write; run `trajtools repair` where it can be written"
        ) from error


def check_head(path: Path, head: bytes, size: int) -> Superblock | None:
    """Check the first bytes of a file.

    Parameters
    ----------
    path : Path
        The file, for the words.
    head : bytes
        Its first 48 bytes.
    size : int, in bytes
        Its size.

    Returns
    -------
    Superblock or None
        None for an older kind of HDF5 file.

    Raises
    ------
    FormatError
        If it is no HDF5 file, or cut short.
    """
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
