"""Atomic changes of the structure of a file: new runs, new datasets, attributes, status.

h5py works on an `Overlay`, so the disk is untouched until the change is complete. Then, in this order: the undo
journal, what is appended, what is overwritten (a few hundred bytes), and the journal is removed. A process killed
anywhere leaves the old file or the new one, and `recover` brings back the old one from anything between.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py

from trajtools.errors import FileBusyError, RecordingError
from trajtools.store.h5 import in_words
from trajtools.store.journal import journal_path, roll_back, write_all, write_journal
from trajtools.store.overlay import Overlay
from trajtools.store.superblock import SIZE, Superblock

try:
    import fcntl
except ImportError:  # no advisory locks on this system; the heartbeat still tells writers apart
    fcntl = None  # type: ignore[assignment]

LIBVER = "v110"
"""The oldest HDF5 whose files know SWMR; anything since reads them."""
_PATIENCE_SECONDS = 10.0
# The two cells that change in place never straddle a page, so a kill cannot tear them.
_ALIGNMENT = {"alignment_threshold": 8, "alignment_interval": 8}


@contextlib.contextmanager
def locked(path: Path, *, write: bool = True) -> Iterator[int]:
    """Hold a file for the length of one change, so that two processes never change it at once."""
    descriptor = os.open(path, os.O_RDWR if write else os.O_RDONLY)
    try:
        until = time.monotonic() + _PATIENCE_SECONDS
        while fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise FileBusyError(
                        f"{path} is being changed by another process, or open somewhere in a way that locks it (h5py "
                        "without locking=False, HDF5 viewers); try again when it is done or closed"
                    ) from None
                time.sleep(0.01)
        yield descriptor
    finally:
        os.close(descriptor)


def recover(path: Path) -> bool:
    """Roll back a change that was cut short by a kill, if there was one."""
    if not journal_path(path).exists() or not path.exists():
        return False
    with locked(path) as descriptor:
        return roll_back(path, descriptor)


def change(path: Path, edit: Callable[[h5py.File], None], *, durable: bool = False) -> None:
    """Apply one change to an existing file, all or nothing.

    The mark of a writer that died is cleared on the way; the caller has made sure that no writer lives.
    """
    with locked(path) as descriptor:
        roll_back(path, descriptor)
        overlay = Overlay(descriptor)
        _release(overlay)
        with in_words(path, "change the file"), h5py.File(overlay, "r+", libver=LIBVER, **_ALIGNMENT) as file:
            edit(file)
        _commit(path, descriptor, overlay, durable)


def _release(overlay: Overlay) -> None:
    head = bytearray(SIZE)
    overlay.readinto(memoryview(head))
    block = Superblock.parse(bytes(head))
    if block is not None and (block.flags or block.end < overlay.old_size):
        overlay.seek(0)
        overlay.write(block.released(overlay.old_size).encode())
    if block is not None and block.end > overlay.old_size:
        # Space that the dead writer had claimed and not yet filled; `edit` checks that nothing committed lies there.
        overlay.truncate(block.end)
    overlay.seek(0)


def _commit(path: Path, descriptor: int, overlay: Overlay, durable: bool) -> None:
    regions, appended = overlay.regions(), overlay.appended
    if not regions and not appended:
        return
    try:
        write_journal(path, overlay.old_size, overlay.size, regions)
        write_all(descriptor, appended, overlay.old_size)
        for region in regions:
            write_all(descriptor, region.new, region.offset)
        if durable:
            os.fsync(descriptor)
        os.unlink(journal_path(path))
    except OSError as error:
        roll_back(path, descriptor)
        raise RecordingError(f"{path} could not be changed; it is unmodified: {error}") from error


def create(path: Path, edit: Callable[[h5py.File], None], *, durable: bool = False) -> None:
    """Make a new file with its first content, all or nothing, without ever overwriting one."""
    memory = io.BytesIO()
    with h5py.File(memory, "w", libver=LIBVER, **_ALIGNMENT) as file:
        edit(file)
    draft = path.with_name(f"{path.name}.new-{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            write_all(descriptor, memory.getvalue(), 0)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        claim(draft, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise RecordingError(f"{path} could not be created: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def claim(draft: Path, path: Path) -> None:
    """Give a finished file its name, unless the name is taken."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:
        # No hard links on this file system: claim the name first, then put the file in its place.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        os.replace(draft, path)
