"""A file below HDF5: plain reads and writes, the writer's lock, and the superblock.

HDF5 itself is open only while a run is opened for reading, and for the life of a writer. Everything else is done with
plain reads and writes at offsets that HDF5 gave.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
import struct
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py

from trajtools.errors import FileBusyError, FormatError, TrajtoolsError, UnsafeFileError

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUPERBLOCK_BYTES = 48
HEAD_BYTES = 2**16  # covers the structure of most files, so that HDF5 opens them from one read
LIBVER = ("v110", "v110")
WAY_OUT = "`trajtools validate` says what is missing, `trajtools repair --salvage` saves what is whole"
_FIELDS = struct.Struct("<8sBBBBQQQQ")
# Of the header of a B-tree: kind, bytes of a node and of a record, depth, records of the root and of all nodes.
_TREE = struct.Struct("<5xBIHH10xHQ4x")
_RECORDS = {1: 24, 2: 36, 3: 16, 4: 28, 5: 11, 6: 15, 8: 17, 9: 13}  # bytes, of large objects, links and attributes
_NODE_BYTES, _DEEPEST = 10, 32  # of a node around its records; levels of nodes
_ARRAY = struct.Struct("<44xQQ12x")  # of the header of an extensible array: entries in use, existing ones
# Of the header of a heap: width of its table, bytes of its smallest and largest blocks, bits of an offset, rows in use.
_HEAP = struct.Struct("<110xHQQH10xH4x")
_ROOT = 64  # where the root group begins in the files that are made here
_MASK = 0xFFFFFFFF
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
_LOCK_TRIES, _LOCK_PAUSE = 20, 0.02
_LOCK_OFFSET = 2**40  # Windows locks bytes, and a locked byte cannot be read: this one is never part of the file


class RawFile:
    """A file open for reads and writes at offsets.

    Attributes
    ----------
    path : Path
        The file.
    descriptor : int
        Of the system; -1 once closed.
    identity : tuple of int
        Device and inode.
    head : bytes or None
        A superblock to read instead of a damaged one.
    """

    head: bytes | None = None

    def __init__(self, path: str | os.PathLike[str], *, write: bool = False) -> None:
        self.path = Path(os.path.abspath(path))
        self._flags = (os.O_RDWR if write else os.O_RDONLY) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        self._lock = threading.Lock()
        self._open()
        self.identity = self._identity()

    def _open(self) -> None:
        self.descriptor = os.open(self.path, self._flags)
        self._finalizer = weakref.finalize(self, _close, self.descriptor)

    def _identity(self) -> tuple[int, int]:
        status = os.fstat(self.descriptor)
        return status.st_dev, status.st_ino

    def reopen(self) -> None:
        """Open the file again if it was closed; another file under its name is refused."""
        if self._flags & os.O_RDWR:  # it would come back without its lock
            raise OSError(errno.EBADF, f"{self.path} is closed")
        with self._lock:
            if self.descriptor >= 0:
                return
            self._open()
        if self._identity() != self.identity:
            self.close()
            raise FormatError(f"{self.path} was replaced since it was opened; open it again")

    @property
    def size(self) -> int:
        """Size of the file, in bytes."""
        return os.fstat(self.descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes, fewer at the end of the file."""
        data = bytearray(length)
        return bytes(data[: self.read_into(offset, memoryview(data))])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill a buffer as far as the file goes; returns the number of bytes."""
        if self.descriptor < 0:
            self.reopen()
        view, done = buffer.cast("B"), 0
        while done < len(view):
            count = self._read_some(offset + done, view[done:])
            if not count:
                break
            done += count
        return done

    def fill(self, offset: int, part: Any) -> None:
        """Fill an array of bytes from a place on, with zeros past the end of the file."""
        self.fill_each((offset,), (part,))

    def fill_each(self, offsets: Iterable[int], parts: Iterable[Any]) -> None:
        """Fill arrays of bytes, each from a place of its own on, with zeros past the end of the file."""
        read = getattr(os, "preadv", None)
        for offset, part in zip(offsets, parts, strict=True):
            done = read(self.descriptor, (part,), offset) if read and self.descriptor >= 0 else 0
            if done < len(part):
                part[done + self.read_into(offset + done, part[done:].data) :] = 0

    def read_parts(self, offset: int, parts: list[Any]) -> None:
        """Fill arrays of bytes from one place on, with zeros past the end of the file."""
        if len(parts) == 1 or not hasattr(os, "preadv"):
            for part in parts:
                self.fill(offset, part)
                offset += len(part)
            return
        if self.descriptor < 0:
            self.reopen()
        done = os.preadv(self.descriptor, parts, offset)
        for part in parts:  # what one call did not give
            if done >= len(part):
                done -= len(part)
                offset += len(part)
                continue
            part[done + self.read_into(offset + done, part[done:].data) :] = 0
            offset, done = offset + len(part), 0

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write bytes."""
        view = memoryview(data).cast("B")
        while len(view):
            if hasattr(os, "pwrite"):
                count = os.pwrite(self.descriptor, view, offset)
            else:
                with self._lock:
                    os.lseek(self.descriptor, offset, os.SEEK_SET)
                    count = os.write(self.descriptor, view)
            view, offset = view[count:], offset + count

    def _read_some(self, offset: int, view: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.descriptor, [view], offset)
        with self._lock:
            os.lseek(self.descriptor, offset, os.SEEK_SET)
            data = os.read(self.descriptor, len(view))
        view[: len(data)] = data
        return len(data)

    def sync(self) -> None:
        """Wait until the disk has everything."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Close the file, and give up its lock."""
        if self._finalizer.detach():
            _close(self.descriptor)
        self.descriptor = -1


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)


# ------------------------------------------------------------------------------------------------------------- locks


def lock(file: RawFile, *, shared: bool = False) -> bool | None:
    """Try to lock a file; True: locked, False: somebody else holds it, None: there are no locks here."""
    try:
        if fcntl is not None:
            fcntl.flock(file.descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        elif msvcrt is not None:
            if not shared:  # the byte stays locked as it is
                os.lseek(file.descriptor, _LOCK_OFFSET, os.SEEK_SET)
                msvcrt.locking(file.descriptor, msvcrt.LK_NBLCK, 1)
        else:
            return None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        if isinstance(error, BlockingIOError | PermissionError) or error.errno == errno.EDEADLK:
            return False
        raise
    return True


def unlock(file: RawFile) -> None:
    """Let go of the lock of a file."""
    if fcntl is not None:
        fcntl.flock(file.descriptor, fcntl.LOCK_UN)


def lock_for_life(file: RawFile) -> bool:
    """Take the lock of a writer, which ends with the file; False where the file system has none."""
    for _ in range(_LOCK_TRIES):
        locked = lock(file)
        if locked is not False:
            return bool(locked)
        time.sleep(_LOCK_PAUSE)  # a reader that checks for a writer holds it for microseconds
    raise FileBusyError(
        f"{file.path} is being written by another recorder, or another program has it open with a lock; a file has one "
        "writer at a time. Record into another file, or close the other one first."
    )


@dataclass(frozen=True)
class Owner:
    """The process that writes a file.

    Attributes
    ----------
    process : int
        Process number.
    host : str
        Name of its machine.
    boot : str
        Identifies a boot (and a container) of that machine; empty where unknown.
    started : int
        Start of the process in clock ticks since boot; -1 where unknown. Process numbers are reused, this is not.
    """

    process: int
    host: str
    boot: str
    started: int

    @classmethod
    def current(cls) -> Owner:
        """Describe this process."""
        return cls(os.getpid(), socket.gethostname(), _boot(), _started(os.getpid()))

    @classmethod
    def from_notes(cls, notes: dict[str, Any]) -> Owner:
        """Read what `to_notes` wrote."""
        entry = notes.get("writer")
        values = entry if isinstance(entry, dict) else {}
        number = {name: v if isinstance(v := values.get(name), int) else -1 for name in ("process", "started")}
        return cls(number["process"], str(values.get("host", "")), str(values.get("boot", "")), number["started"])

    def to_notes(self) -> dict[str, Any]:
        """As the file keeps it."""
        return asdict(self)

    def is_gone(self) -> bool:
        """Whether the process certainly does not exist any more; False where that cannot be known from here."""
        if self.process < 1 or self.host != socket.gethostname() or not self.boot or self.boot != _boot():
            return False
        if not _exists(self.process):
            return True
        return self.started >= 0 and _started(self.process) not in (-1, self.started)


def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> int:
    try:
        # The name of the command may hold anything, so count from the last bracket.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return -2 if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return -1


def _exists(process: int) -> bool:
    if os.name == "nt":  # there, signal 0 ends the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def has_writer(file: RawFile, owner: Owner) -> bool:
    """Whether somebody is writing the file: by its lock, and where there are none, by its process."""
    with contextlib.suppress(OSError):
        probe = RawFile(
            file.path
        )  # a descriptor of its own: letting go of a lock here must not touch one held elsewhere
        try:
            if lock(probe):
                return False
        finally:
            probe.close()
    # Another program may hold a lock as a reader.
    return not owner.is_gone()


# -------------------------------------------------------------------------------------------------------- superblock


def sealed(head: bytes, size: int) -> bytes:
    """The superblock as after a clean close of a file of `size` bytes: no writer's mark, the end where it is."""
    signature, version, offsets, lengths, _, base, extension, _, root = _FIELDS.unpack_from(head)
    body = _FIELDS.pack(signature, version, offsets, lengths, 0, base, extension, size, root)
    return body + struct.pack("<I", lookup3(body))


def seal(file: RawFile, size: int = 0) -> None:
    """Clear the writer's mark and set the end of the file, so that any HDF5 program opens it after a kill.

    A file shorter than `size` grows: HDF5 is about to write there.
    """
    head = file.read(0, SUPERBLOCK_BYTES)
    if file.size < size:
        os.ftruncate(file.descriptor, size)
    whole = sealed(head, file.size)
    if whole != head:
        file.write(0, whole)


def replace_head(file: RawFile) -> bool:
    """Read a damaged superblock as the one that our files are made with; False where the root is elsewhere."""
    if file.read(_ROOT, 4) != b"OHDR":
        return False
    file.head = _FIELDS.pack(SIGNATURE, 3, 8, 8, 0, 0, 2**64 - 1, file.size, _ROOT)
    return True


def check_head(file: RawFile) -> bool:
    """Refuse what is no HDF5 file of ours by its first bytes; False where the file is shorter than it was."""
    head, size = file.read(0, SUPERBLOCK_BYTES), file.size
    if not head:
        raise FormatError(f"{file.path} is empty; needed a trajtools file")
    if not head.startswith(SIGNATURE):
        raise FormatError(
            f"{file.path} is not an HDF5 file; needed a file that a trajtools recorder wrote. The analysis "
            "commands read tables by their names (.csv, .txt, .npy, ...), `trajtools convert` reads checkpoints"
        )
    if len(head) < SUPERBLOCK_BYTES or head[8:11] != b"\x03\x08\x08" or any(head[12:20]):
        raise FormatError(
            f"{file.path} is an HDF5 file, but not a trajtools one; `trajtools convert` reads other layouts"
        )
    (checksum,) = struct.unpack_from("<I", head, 44)
    end = _FIELDS.unpack_from(head)[7]
    if lookup3(head[:44]) != checksum:
        raise FormatError(f"{file.path} is damaged: the checksum of its first 48 bytes is wrong; {WAY_OUT}")
    return bool(end <= size or head[11])


def cut_short(file: RawFile) -> str:
    """Say how much of a file is left that is shorter than its superblock says."""
    whole = _FIELDS.unpack_from(file.read(0, SUPERBLOCK_BYTES))[7]
    return f"was cut short ({file.size} of {whole} bytes are left)"


def salvage_hint(path: Path) -> str:
    """The command that saves what is whole of a damaged file."""
    return f"`trajtools repair --salvage NEW.h5 {path}` makes a file of what is whole"


@lru_cache(maxsize=8)  # a flush asks twice for the same head
def lookup3(data: bytes) -> int:
    """Checksum of HDF5 metadata (Bob Jenkins' lookup3, HDF5 file format specification)."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    if not data:
        return c
    while len(data) > 12:
        x, y, z = struct.unpack_from("<3I", data)
        a, b, c = (a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK
        for bits_1, bits_2, bits_3 in ((4, 6, 8), (16, 19, 4)):
            a = ((a - c) & _MASK) ^ _rotate(c, bits_1)
            c = (c + b) & _MASK
            b = ((b - a) & _MASK) ^ _rotate(a, bits_2)
            a = (a + c) & _MASK
            c = ((c - b) & _MASK) ^ _rotate(b, bits_3)
            b = (b + a) & _MASK
        data = data[12:]
    x, y, z = struct.unpack("<3I", data.ljust(12, b"\0"))
    a, b, c = (a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK
    for p, q, bits in ((1, 2, 14), (2, 0, 11), (0, 1, 25), (1, 2, 16), (2, 0, 4), (0, 1, 14), (1, 2, 24)):
        words = [a, b, c]
        words[q] = ((words[q] ^ words[p]) - _rotate(words[p], bits)) & _MASK
        a, b, c = words
    return c


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


# -------------------------------------------------------------------------------------------------------------- HDF5


class SealedView(io.RawIOBase):
    """A file for HDF5 to read as if its writer had closed it: the same bytes but for the superblock.

    What HDF5 would not survive is handed over as zeros.
    """

    def __init__(self, file: RawFile) -> None:
        self._raw, self._size, self._at = file, file.size, 0
        head = bytearray(file.read(0, HEAD_BYTES))
        head[:SUPERBLOCK_BYTES] = sealed(file.head or bytes(head[:SUPERBLOCK_BYTES]), self._size)
        self._head = memoryview(head)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; zeros past the end."""
        view = memoryview(buffer).cast("B")
        if self._at + len(view) <= len(self._head):
            view[:] = self._head[self._at : self._at + len(view)]
        else:
            done = self._raw.read_into(self._at, view)
            view[done:] = bytes(len(view) - done)
            part = self._head[self._at : self._at + len(view)]
            view[: len(part)] = part
        if not _is_survived(view, self._size):
            view[:] = bytes(len(view))  # no block of HDF5, which it can say in its own words
        self._at += len(view)
        return len(view)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, as on any file."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """Where the next read starts."""
        return self._at

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True


def _is_survived(block: memoryview, size: int) -> bool:
    """Whether HDF5 can take a block of its metadata that it is about to read, in a file of `size` bytes.

    It takes the records of a B-tree for what its header says, counts to whatever the header of an extensible array
    says, and follows the table of a heap whatever its shape. HDF5 reads each of these headers by itself.
    """
    signature = bytes(block[:4])
    if len(block) == _TREE.size and signature == b"BTHD":
        kind, node, record, depth, of_root, of_all = _TREE.unpack(block)
        # Of the chunks of a dataset, a record has as many numbers as there are axes.
        is_right = record == _RECORDS[kind] if kind in _RECORDS else kind in (10, 11) and record >= 16
        holds = record * max(of_root, 1) <= node - _NODE_BYTES
        return is_right and holds and depth <= _DEEPEST and max(node, of_all) <= size
    if len(block) == _ARRAY.size and signature == b"EAHD":
        used, existing = _ARRAY.unpack(block)
        return used <= existing <= size  # an entry takes 8 bytes, but of a file that was cut, most may be gone
    if len(block) >= _HEAP.size and signature == b"FRHP":
        width, smallest, largest, bits, rows = _HEAP.unpack_from(block)
        if not (all(n and not n & (n - 1) for n in (width, smallest, largest)) and smallest <= largest):
            return False
        return bits <= 64 and rows <= bits + 2 - (width * smallest).bit_length()
    return True


def open_for_reading(file: RawFile) -> h5py.File:
    """Open a file with HDF5, also beside its writer and after a kill; needs no right to write."""
    with one_sentence(file.path, "open the file"):
        return h5py.File(SealedView(file), "r")


# HDF5 makes one object of all that a process opens of one file by one driver, and would refuse to write a file that
# some thread reads with h5py. The driver for logging, told to log nothing, is the default one by another name.
_DRIVER = "trajtools writer"
h5py.register_driver(_DRIVER, lambda access: access.set_fapl_log(b"", 0, 0))
_WRITERS: weakref.WeakSet[WritableHDF5] = weakref.WeakSet()


class WritableHDF5:
    """An HDF5 file open for SWMR writing, which can be abandoned without another write to the disk.

    HDF5 writes what it holds when a file is closed and when a process ends. After a failed write, and in a forked
    child, that must not happen: the file on disk is whole as it is, and the parent may go on writing it.
    """

    _raw: RawFile

    def __init__(self, raw: RawFile) -> None:
        if any(other._raw.identity == raw.identity for other in _WRITERS):  # HDF5 would make one file of the two
            raise FileBusyError(f"{raw.path} is being written by this very process; close that recorder first")
        self._raw = raw
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fapl_log(b"", 0, 0)
        access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
        access.set_alignment(512, 512)  # a chunk of a metric then lies in one page, which a kill cannot tear
        access.set_file_locking(False, True)
        # SWMR from the first moment: the mark that a kill leaves is then one that SWMR readers pass.
        flags = h5py.h5f.ACC_RDWR | h5py.h5f.ACC_SWMR_WRITE
        self.file = h5py.File(h5py.h5f.open(os.fsencode(raw.path), flags, fapl=access))
        self._descriptor = self.file.id.get_vfd_handle()
        _WRITERS.add(self)

    def close(self) -> None:
        """Close the file; everything is on disk, and the writer's mark is gone."""
        self.file.close()
        self._descriptor = -1
        _WRITERS.discard(self)

    def detach(self) -> None:
        """Close the file without touching the disk again, as if the process had been killed."""
        self._divert()
        _WRITERS.discard(self)
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # on the way to nowhere nothing matters
            self.file.close()

    def detach_in_child(self) -> None:
        """Leave the file to the parent: drop the copy of its lock, and let nothing be written at exit."""
        with contextlib.suppress(OSError):
            self._divert()
        self._raw.close()

    def _divert(self) -> None:
        if self._descriptor < 0:
            return
        with tempfile.TemporaryFile() as nowhere:
            os.dup2(nowhere.fileno(), self._descriptor, inheritable=False)


def _detach_all() -> None:
    for writer in list(_WRITERS):
        writer.detach_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_all)


def one_line(error: BaseException) -> str:
    """The message of an error without the line breaks of HDF5."""
    return " ".join(str(error).split())


@contextlib.contextmanager
def one_sentence(path: Path, action: str = "") -> Iterator[None]:
    """Turn what h5py raises into one sentence; `action`: what is done to a file of our own."""
    try:
        yield
    except TrajtoolsError:
        raise
    except MemoryError as error:
        raise UnsafeFileError(f"{path} takes more memory to read than there is; the file is damaged") from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, UnicodeError) as error:
        if not action:
            raise FormatError(f"HDF5 cannot read {path}: {one_line(error)}") from error
        raise FormatError(
            f"could not {action} of {path}: {one_line(error)}. The file is damaged or was cut short; {WAY_OUT}"
        ) from error
