"""The undo journal of a change: the overwritten bytes, in a file next to the original until the change is complete.

The journal is complete and carries its checksum before the first byte of the file is touched. A torn journal therefore
means that nothing was changed; a whole one that everything can be put back.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

from trajtools.errors import InterruptedWriteError
from trajtools.store.overlay import Region

MAGIC = b"trajtools undo 1\n"
_HEAD = struct.Struct("<QQQ")
_PLACE = struct.Struct("<QQ")
_LARGEST = 2**30


def journal_path(path: Path) -> Path:
    """Say where the journal of a file lies."""
    return path.with_name(path.name + ".journal")


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write bytes at a place, however many calls it takes."""
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view[: 2**24], offset)
        view, offset = view[done:], offset + done


def write_journal(path: Path, old_size: int, new_size: int, regions: list[Region]) -> None:
    """Write the journal and bring it to the disk."""
    parts = [MAGIC, _HEAD.pack(old_size, new_size, len(regions))]
    for region in regions:
        parts += [_PLACE.pack(region.offset, len(region.old)), region.old, region.new]
    body = b"".join(parts)
    descriptor = os.open(journal_path(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        write_all(descriptor, body + hashlib.sha256(body).digest(), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parse(data: bytes) -> tuple[int, int, list[Region]] | None:
    body, checksum = data[:-32], data[-32:]
    if not body.startswith(MAGIC) or hashlib.sha256(body).digest() != checksum:
        return None
    old_size, new_size, count = _HEAD.unpack_from(body, len(MAGIC))
    place, regions = len(MAGIC) + _HEAD.size, []
    for _ in range(count):
        offset, length = _PLACE.unpack_from(body, place)
        place += _PLACE.size
        regions.append(Region(offset, body[place : place + length], body[place + length : place + 2 * length]))
        place += 2 * length
    return old_size, new_size, regions


def roll_back(path: Path, descriptor: int) -> bool:
    """Undo a change that was cut short. The caller holds the lock of the file; may itself be killed and run again."""
    journal = journal_path(path)
    try:
        if journal.stat().st_size > _LARGEST:
            raise InterruptedWriteError(f"{journal} is not a trajtools journal (over 1 GiB); move it away")
        parsed = _parse(journal.read_bytes())
    except FileNotFoundError:
        return False
    if parsed is not None:
        old_size, new_size, regions = parsed
        _check_belongs(path, descriptor, old_size, new_size, regions)
        for region in regions:
            write_all(descriptor, region.old, region.offset)
        os.ftruncate(descriptor, old_size)
        os.fsync(descriptor)
    os.unlink(journal)
    return parsed is not None


def _check_belongs(path: Path, descriptor: int, old_size: int, new_size: int, regions: list[Region]) -> None:
    """A journal next to a file that was replaced meanwhile must not be applied to it."""
    belongs = old_size <= os.fstat(descriptor).st_size <= new_size
    for region in regions:
        now = os.pread(descriptor, len(region.old), region.offset)
        belongs = (
            belongs
            and len(now) == len(region.old)
            and all(byte in pair for byte, *pair in zip(now, region.old, region.new, strict=True))
        )
    if not belongs:
        raise InterruptedWriteError(
            f"{journal_path(path)} does not belong to {path}, which has changed since. "
            f"If the file was put there on purpose, delete the journal; otherwise restore the file it belongs to."
        )
