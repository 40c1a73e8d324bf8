"""Reading a file that is marked as open for writing: by this process, or by a writer that has died.

HDF5 opens a marked file as a SWMR reader only, and not at all where this process has it open in another way. Through a
file object of our own the reader depends on neither. HDF5's lock keeps reads and writes of metadata apart, and the
order in which a SWMR writer puts them on disk does the rest.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from trajtools.store.superblock import SIZE, Superblock


class BesideWriter:
    """A read-only file object that hides the writer's mark."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        # h5py closes no file object that it is handed; this one goes with its last user.
        weakref.finalize(self, os.close, self._descriptor)
        self._size = os.fstat(self._descriptor).st_size
        head = os.pread(self._descriptor, SIZE, 0)
        block = Superblock.parse(head)
        self._head = head
        if block is not None:
            whole = block.released(self._size)
            # A writer may have claimed space that it has not filled; it reads as zeros, and nothing committed is there.
            self._head, self._size = whole.encode(), whole.end
        self._position = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, as on any file."""
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        """Say where the next read goes."""
        return self._position

    def read(self, length: int) -> bytes:
        """Give bytes; zeros past the end."""
        data = bytearray(length)
        self.readinto(memoryview(data))
        return bytes(data)

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer; zeros past the end."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            got = os.preadv(self._descriptor, [view[done:]], self._position + done)
            if not got:
                view[done:] = bytes(len(view) - done)
                break
            done += got
        if self._position < SIZE:
            part = self._head[self._position : self._position + len(view)]
            view[: len(part)] = part
        self._position += len(view)
        return len(view)

    def write(self, data: bytes) -> int:
        """Refuse."""
        raise OSError("this view of the file is read-only")

    def truncate(self, size: int | None = None) -> int:
        """Refuse, silently: HDF5 asks on closing."""
        return self._size if size is None else size

    def flush(self) -> None:
        """Do nothing."""
