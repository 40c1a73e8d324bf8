"""A file as HDF5 sees it during a change: it reads through to the disk, and what is written stays in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass

_PAGE = 4096


@dataclass(frozen=True)
class Region:
    """Bytes that a change would overwrite.

    Attributes
    ----------
    offset : int
        Place in the file.
    old, new : bytes
        What stands there, and what would; of one length.
    """

    offset: int
    old: bytes
    new: bytes


class Overlay:
    """The file-like object that h5py's ``fileobj`` driver works on."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self.old_size = 0 if descriptor is None else os.fstat(descriptor).st_size
        self._pages: dict[int, bytearray] = {}
        self._appended = bytearray()
        self._position = 0

    @property
    def size(self) -> int:
        """Size of the file after the change; never below the old one, so that the change can be undone."""
        return self.old_size + len(self._appended)

    @property
    def appended(self) -> bytes:
        """What the change puts behind the old end."""
        return bytes(self._appended)

    def regions(self) -> list[Region]:
        """Give the places inside the old file that the change overwrites, in order."""
        found = []
        for number, page in sorted(self._pages.items()):
            old = self._original(number * _PAGE, len(page))
            differ = [i for i in range(len(page)) if page[i] != old[i]]
            if differ:
                first, last = differ[0], differ[-1] + 1
                found.append(Region(number * _PAGE + first, old[first:last], bytes(page[first:last])))
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, as on any file."""
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def tell(self) -> int:
        """Say where the next read or write goes."""
        return self._position

    def read(self, length: int) -> bytes:
        """Give bytes; zeros past the end."""
        data = bytearray(length)
        self.readinto(memoryview(data))
        return bytes(data)

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer; zeros past the end, as HDF5 expects of space it has allocated and not written."""
        view = memoryview(buffer).cast("B")
        data = self._read(self._position, len(view))
        view[: len(data)] = data
        view[len(data) :] = bytes(len(view) - len(data))
        self._position += len(view)
        return len(view)

    def write(self, data: bytes) -> int:
        """Keep the bytes in memory."""
        view = memoryview(data).cast("B")
        start, inside = self._position, max(0, min(len(view), self.old_size - self._position))
        done = 0
        while done < inside:
            number, first = divmod(start + done, _PAGE)
            step = min(_PAGE - first, inside - done)
            self._page(number)[first : first + step] = view[done : done + step]
            done += step
        if inside < len(view):
            place = start + inside - self.old_size
            if place > len(self._appended):
                self._appended.extend(bytes(place - len(self._appended)))
            self._appended[place : place + len(view) - inside] = view[inside:]
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the end of the file."""
        length = max(0, (self._position if size is None else size) - self.old_size)
        del self._appended[length:]
        self._appended.extend(bytes(length - len(self._appended)))
        return self.size

    def flush(self) -> None:
        """Do nothing: the disk is touched by the commit alone."""

    def _read(self, start: int, length: int) -> bytes:
        inside = max(0, min(length, self.old_size - start))
        parts, done = [], 0
        while done < inside:
            number, first = divmod(start + done, _PAGE)
            step = min(_PAGE - first, inside - done)
            page = self._pages.get(number)
            if page is None:
                # One long read up to the next page that was changed.
                while done + step < inside and (start + done + step) // _PAGE not in self._pages:
                    step = min(step + _PAGE, inside - done)
                parts.append(self._original(start + done, step))
            else:
                parts.append(bytes(page[first : first + step]))
            done += step
        if inside < length:
            place = start + inside - self.old_size
            parts.append(bytes(self._appended[place : place + length - inside]))
        return b"".join(parts)

    def _page(self, number: int) -> bytearray:
        if number not in self._pages:
            self._pages[number] = bytearray(self._original(number * _PAGE, _PAGE))
        return self._pages[number]

    def _original(self, start: int, length: int) -> bytes:
        if self._descriptor is None:
            return b""
        data = b""
        while len(data) < length:
            piece = os.pread(self._descriptor, min(length, self.old_size - start) - len(data), start + len(data))
            if not piece:
                break
            data += piece
        return data
