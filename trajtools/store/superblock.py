"""The first 48 bytes of an HDF5 file: who left it open, and where it ends.

A writer that dies leaves its mark in the consistency flags, and HDF5 then refuses the file. Clearing the mark takes one
byte, the end-of-file address and a new checksum (Bob Jenkins' lookup3, as the HDF5 file format specification says).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SIZE = 48
_FIELDS = struct.Struct("<8sBBBBQQQQI")
_MASK = 0xFFFFFFFF


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits_1, bits_2, bits_3 in ((4, 6, 8), (16, 19, 4)):
        a = ((a - c) & _MASK) ^ _rotate(c, bits_1)
        c = (c + b) & _MASK
        b = ((b - a) & _MASK) ^ _rotate(a, bits_2)
        a = (a + c) & _MASK
        c = ((c - b) & _MASK) ^ _rotate(b, bits_3)
        b = (b + a) & _MASK
    return a, b, c


def lookup3(data: bytes) -> int:
    """Checksum of HDF5 metadata."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    if not data:
        return c
    while len(data) > 12:
        x, y, z = struct.unpack_from("<3I", data)
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
        data = data[12:]
    x, y, z = struct.unpack("<3I", data.ljust(12, b"\0"))
    a, b, c = (a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK
    c = ((c ^ b) - _rotate(b, 14)) & _MASK
    a = ((a ^ c) - _rotate(c, 11)) & _MASK
    b = ((b ^ a) - _rotate(a, 25)) & _MASK
    c = ((c ^ b) - _rotate(b, 16)) & _MASK
    a = ((a ^ c) - _rotate(c, 4)) & _MASK
    b = ((b ^ a) - _rotate(a, 14)) & _MASK
    return ((c ^ b) - _rotate(b, 24)) & _MASK


@dataclass(frozen=True)
class Superblock:
    """A version 2 or 3 superblock.

    Attributes
    ----------
    version : int
        3 is what SWMR needs.
    flags : int
        0 where nobody writes; a live or dead writer leaves bits.
    end : int, in bytes
        Where the writer last said the file ends.
    """

    version: int
    sizes: tuple[int, int]
    flags: int
    base: int
    extension: int
    end: int
    root: int
    intact: bool

    @classmethod
    def parse(cls, head: bytes) -> Superblock | None:
        """Read the head of a file."""
        if len(head) < SIZE or head[:8] != SIGNATURE or head[8] not in (2, 3) or head[9:11] != b"\x08\x08":
            return None
        _, version, offsets, lengths, flags, base, extension, end, root, checksum = _FIELDS.unpack(head[:SIZE])
        return cls(version, (offsets, lengths), flags, base, extension, end, root, lookup3(head[:44]) == checksum)

    def encode(self) -> bytes:
        """Give the 48 bytes, with a right checksum."""
        body = _FIELDS.pack(
            SIGNATURE, self.version, *self.sizes, self.flags, self.base, self.extension, self.end, self.root, 0
        )[:44]
        return body + struct.pack("<I", lookup3(body))

    def released(self, size: int) -> Superblock:
        """Give the superblock as after a clean close of a file of `size` bytes."""
        return replace(self, flags=0, end=max(size, self.end), intact=True)
