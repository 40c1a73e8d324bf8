"""Reading chunks: where they are in the file, whether they are whole, and rectangles of states out of them."""

from __future__ import annotations

import contextlib
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from operator import attrgetter
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from trajtools.errors import DamagedError, FormatError, MissingDependencyError
from trajtools.store.files import RawFile, check_head, cut_short, open_for_reading, salvage_hint
from trajtools.store.layout import LARGEST_RATIO, SHUFFLE, SLOTS, Axis, Stream, checksum, checksum_of_parts
from trajtools.store.strangers import ZSTD, Objects

Selection = slice | NDArray[Any] | Sequence[int]
Indices = slice | NDArray[np.int64]
FETCH_BYTES = 2**22  # what is hashed and copied while it is in the cache of the processor
ROW_BYTES = 2**13  # rows of a chunk from here on are read to their places one by one
CLAIMS_BYTES = 2**23  # of checksums that are remembered
MOST_AT_ONCE = 500  # chunks of one read; systems take at least 1024 buffers
PIECE_BYTES = 2**16  # of a chunk, from which on many chunks are read side by side in pieces
PASS_BYTES = 2**20  # of all pieces that are read side by side
Piece = tuple[slice, slice, NDArray[Any]]
Rooms = list[NDArray[Any]] | NDArray[Any]  # for chunks, each (rows, entries)
_GAP = np.empty(2**12, np.uint8)  # takes what lies between two chunks, which costs less than another read
_TRIES = 4
_LOOKUPS = 10**6


class Blocks:
    """The chunks of one axis, read from the file without HDF5 and verified.

    Attributes
    ----------
    axis : Axis
        Its streams.
    n : int
        Committed rows.
    """

    def __init__(self, raw: RawFile, axis: Axis, n: int) -> None:
        self.axis, self.n, self._raw = axis, n, raw
        self._offsets: dict[str, NDArray[np.int64]] = {}
        self._sizes: dict[str, NDArray[np.int64]] = {}
        self._verified: dict[str, NDArray[np.bool_]] = {}
        self._unindexed: set[str] = set()
        self._local = threading.local()

    @property
    def n_blocks(self) -> int:
        """Blocks that hold committed rows."""
        return -(-self.n // self.axis.rows)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Streams, and the checksums, whose places are not known yet."""
        return [name for name in (self.axis.sums, *names) if name not in self._offsets]

    def locate(self, objects: Objects, name: str) -> int:
        """Learn from HDF5 where the chunks of a stream are, -1 where there is none; returns its rows."""
        stream, dataset = self.axis[name], objects.geometry(name)
        stream.check(dataset)
        offsets, sizes, indexed = _places(dataset.id, stream, self.n_blocks, self._raw.size)
        if not indexed:
            self._unindexed.add(name)
        self._sizes[name], self._verified[name] = sizes, np.zeros(offsets.shape, bool)
        self._offsets[name] = offsets  # at last: other threads take what has offsets for known
        return dataset.shape[0]

    def rows_of(self, block: int) -> int:
        """Committed rows of a block."""
        return min(self.axis.rows, self.n - block * self.axis.rows)

    def slots(self, block: int) -> NDArray[Any]:
        """The slots of a block, (SLOTS, width): the rows that each covers, then its checksums."""
        slots: NDArray[Any] = self._read_slots(np.array([block]))[0]
        return slots

    def _read_slots(self, blocks: NDArray[np.int64]) -> NDArray[Any]:
        """The slots of some blocks, (blocks, SLOTS, width); zeros where there are none."""
        result = np.zeros((len(blocks), SLOTS, self.axis.width), "<u8")
        places = self._offsets[self.axis.sums][blocks, 0].tolist()
        views: Any = result.reshape(len(blocks), -1).view(np.uint8)
        if min(places) < 0:
            there = [at for at, place in enumerate(places) if place >= 0]
            views, places = [views[at] for at in there], [places[at] for at in there]
        self._raw.fill_each(places, views)
        return result

    def compare(self, block: int) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Which chunks of a block match each slot, (SLOTS, width - 1), and a slot for its committed rows as they are.

        Of a sparse stream, a slot that claims no chunk is right about it.
        """
        slots, needed = self.slots(block), self.rows_of(block)
        matching, current = np.zeros((SLOTS, self.axis.width - 1), bool), np.zeros(self.axis.width, "<u8")
        current[0] = needed
        for name, stream in self.axis.streams.items():
            for chunk in range(stream.n_chunks):
                index, here = self.axis.first[name] + chunk, np.array([chunk])
                rows = self._read(stream, np.array([block]), here, slice(0, stream.rows))[0]
                exists = self._offsets[name][block, chunk] >= 0
                for slot, (count, value) in enumerate(slots[:, [0, index]].tolist()):
                    if needed <= count <= stream.rows:
                        whole = exists and value != 0 and _checksum(rows, count, block, index) == value
                        matching[slot, index - 1] = whole or (stream.sparse and not value)
                        if whole:
                            current[index] = checksum(rows[:needed].data.cast("B"), block, index)
        return matching, current

    def fetch(
        self,
        name: str,
        blocks: Sequence[int] | NDArray[np.int64],
        chunks: Sequence[int] | NDArray[np.int64],
        span: slice,
        rooms: Rooms | None = None,
    ) -> Any:
        """Rows of chunks of some blocks, each (rows, entries): in `rooms`, or valid until the next call in this thread.

        `rooms` are arrays of contiguous rows that take whole chunks, or one contiguous array of all; the span is then
        the whole block.
        """
        stream, verified = self.axis.streams[name], self._verified[name]
        at, index = np.asarray(blocks, np.int64), np.asarray(chunks, np.int64)
        if not stream.filters and self._are_known(stream, at, index, self._offsets[name][at, index]):
            return self._read(stream, at, index, span, rooms)
        data, bad = self._verify(stream, at, index, rooms)
        if bad.any():
            block = int(at[bad][0])
            raise DamagedError(self.describe(name, block, index[bad & (at == block)]))
        verified[at, index] = True
        return data if rooms is not None else data[:, span]

    def damaged(self, name: str, block: int) -> list[int]:
        """Chunks of a stream in a block that do not match their checksums."""
        stream = self.axis.streams[name]
        group = max(1, FETCH_BYTES // stream.chunk_bytes)
        parts = [np.arange(at, min(at + group, stream.n_chunks)) for at in range(0, stream.n_chunks, group)]
        return [c for part in parts for c in part[self._verify(stream, np.full_like(part, block), part)[1]].tolist()]

    def _verify(
        self,
        stream: Stream,
        blocks: NDArray[np.int64],
        chunks: NDArray[np.int64],
        rooms: Rooms | None = None,
    ) -> tuple[Any, NDArray[np.bool_]]:
        """Read whole chunks; which of them match no checksum."""
        data = self._rooms(stream, len(blocks), stream.rows) if rooms is None else rooms
        for trial in range(_TRIES):
            bad = self._mismatches(stream, blocks, chunks, data, self._read_hashed(stream, blocks, chunks, data))
            if not bad.any() or blocks[bad].max() < self.n_blocks - 1 or trial == _TRIES - 1:
                break
            time.sleep(0.002 * 4**trial)  # a writer may be rewriting the last block at this moment, or have moved it
            with contextlib.suppress(FormatError), open_for_reading(self._raw) as file:
                self.locate(Objects(file), stream.name)
        return data, bad

    def describe(self, name: str, block: int, chunks: Sequence[int] | NDArray[Any] = ()) -> str:
        """Name the states that damaged chunks of a block take with them."""
        first = block * self.axis.rows
        stream = self.axis.streams[name]
        members = sorted({int(chunk) // stream.grid[1] for chunk in chunks}) if len(stream.grid) == 2 else []
        one = len(members) == 1 and stream.shape[0] > 1
        rows = "plantings" if name.startswith("plantings/") else "states"
        part = f"{name} of the {rows} {first} to {first + self.rows_of(block) - 1}"
        part += f" (member {members[0]})" if one else ""
        path, hint = self._raw.path, salvage_hint(self._raw.path)
        if not check_head(self._raw):
            whole = min(self._reachable() * self.axis.rows, first)
            left = f"at most the first {whole} of {self.n} are whole" if whole else f"none of the {self.n} is whole"
            return f"{path} {cut_short(self._raw)}: {part} cannot be found, {left}; {hint}"
        return f"{part} in {path} cannot be read: its chunks {self.loss(name)}. Everything else can be read; {hint}."

    def _reachable(self) -> int:
        """Leading blocks whose chunks are in the file, of the streams whose places are known."""
        blocks = self.n_blocks
        for name, offsets in self._offsets.items():
            gone = (offsets < 0).any(axis=1)
            if gone.any() and (name == self.axis.sums or not self.axis.streams[name].sparse):
                blocks = min(blocks, int(gone.argmax()))
        return blocks

    def loss(self, name: str) -> str:
        """Why states of a stream are lost: their own bytes, or what HDF5 needs to reach them or their checksums."""
        broken = [one for one in (name, self.axis.sums) if one in self._unindexed]
        if broken:
            return f"cannot be reached (HDF5's own index of {' and '.join(broken)} is damaged)"
        return "do not match their checksums"

    def _read_hashed(
        self, stream: Stream, blocks: NDArray[np.int64], chunks: NDArray[np.int64], rooms: Rooms
    ) -> list[int]:
        """Read whole chunks; their checksums, taken while they are in the cache, and 0 of blocks that are not full."""
        tall, most, sums = stream.rows, max(1, FETCH_BYTES // stream.chunk_bytes), []
        each = zip(rooms, blocks.tolist(), (self.axis.first[stream.name] + chunks).tolist(), strict=True)
        for start in range(0, len(blocks), most):
            part = slice(start, start + most)
            self._read(stream, blocks[part], chunks[part], slice(0, tall), rooms[part])
            sums += [
                _checksum(room, tall, block, index) if (block + 1) * tall <= self.n else 0
                for room, block, index in islice(each, most)
            ]
        return sums

    def _read(
        self,
        stream: Stream,
        blocks: NDArray[np.int64],
        chunks: NDArray[np.int64],
        span: slice,
        rooms: Rooms | None = None,
    ) -> Rooms:
        """Rows of chunks as they are in the file; NaN where a sparse stream has none, zeros past the end."""
        row_bytes, count = stream.row_bytes, span.stop - span.start
        size, places = count * row_bytes, self._offsets[stream.name][blocks, chunks]
        rooms = self._rooms(stream, len(places), count) if rooms is None else rooms
        if isinstance(rooms, np.ndarray):
            data = rooms.reshape(-1).view(np.uint8)
            if len(places) > 1 and size == stream.chunk_bytes and not stream.filters and places.min() >= 0:
                edges = [0, *(np.flatnonzero(np.diff(places) != size) + 1).tolist(), len(places)]
                if 2 * len(edges) < len(places):  # most follow each other without a gap
                    for first, last in pairwise(edges):
                        self._raw.fill(int(places[first]), data[first * size : last * size])
                    return rooms
            views = list(data.reshape(len(places), size))
        else:
            views = [(room.reshape(-1) if room.flags.c_contiguous else room).view(np.uint8) for room in rooms]
        offsets = places.tolist()
        if stream.filters:
            sizes = self._sizes[stream.name][blocks, chunks].tolist()
            for view, offset, length in zip(views, offsets, sizes, strict=True):
                whole = self._inflated(stream, offset, length)
                view[:] = whole[span.start * row_bytes : span.stop * row_bytes]
            return rooms
        skipped = span.start * row_bytes if count < stream.rows else 0
        gaps = np.diff(places) - size if len(places) > 1 else places[:0]
        is_near = bool(((gaps >= 0) & (gaps < len(_GAP))).any())
        if is_near or min(offsets) < 0 or any(view.ndim > 1 for view in views):
            self._read_runs(stream, offsets, views, skipped)
        else:
            self._raw.fill_each([offset + skipped for offset in offsets] if skipped else offsets, views)
        return rooms

    def _read_runs(self, stream: Stream, offsets: list[int], views: list[NDArray[np.uint8]], skipped: int) -> None:
        """Fill views from their chunks; what lies behind each other, but for the gaps of an alignment, in one read."""
        parts: list[NDArray[np.uint8]] = []
        start = end = -1
        for offset, view in zip(offsets, views, strict=True):
            if offset < 0:
                view.view(stream.dtype)[:] = np.nan if stream.sparse else 0
                continue
            gap = offset + skipped - end
            if parts and 0 <= gap < len(_GAP) and len(parts) < MOST_AT_ONCE:
                if gap:
                    parts.append(_GAP[:gap])
            else:
                if parts:
                    self._raw.read_parts(start, parts)
                parts, start = [], offset + skipped
            parts.extend(view if view.ndim == 2 else [view])
            end = offset + skipped + view.nbytes
        if parts:
            self._raw.read_parts(start, parts)

    def _mismatches(
        self, stream: Stream, blocks: NDArray[np.int64], chunks: NDArray[np.int64], data: Rooms, sums: list[int]
    ) -> NDArray[np.bool_]:
        """Which chunks match no slot that covers what is committed; NaN in those that were never committed."""
        if len(blocks) == 1:  # arrays of one would take longer than their chunk
            block, chunk = int(blocks[0]), int(chunks[0])
            slots, first = self._known_slots(block, block)
            claims = slots[block - first][:, [0, self.axis.first[stream.name] + chunk]].tolist()
            return np.array([not self._is_whole(stream, (block, chunk), data[0], sums[0], claims)])
        whole, own = np.zeros(len(blocks), bool), np.array(sums, "<u8")
        exists = self._offsets[stream.name][blocks, chunks] >= 0
        most = max(1, CLAIMS_BYTES // (8 * SLOTS * self.axis.width))
        for start in range(0, len(blocks), most):
            part = slice(start, start + most)
            claims = self._claims(stream, blocks[part], chunks[part])  # after the data, which they cover
            whole[part] = _match(claims, stream.rows, own[part]) & exists[part]
            for at in np.flatnonzero(~whole[part]).tolist():
                n = start + at
                place = int(blocks[n]), int(chunks[n])
                whole[n] = self._is_whole(stream, place, data[n], sums[n], claims[at].tolist())
        return ~whole

    def _is_whole(
        self, stream: Stream, place: tuple[int, int], data: NDArray[Any], known: int, claims: list[list[int]]
    ) -> bool:
        """Whether a chunk matches a slot, of which `claims` are rows and checksum; `known`: that of all its rows, or 0.

        One that was never committed is filled with NaN.
        """
        (block, chunk), tall = place, stream.rows
        index, needed = self.axis.first[stream.name] + chunk, self.rows_of(block)
        sums = [(count, value) for count, value in claims if needed <= count <= tall]
        for count, value in sums if self._offsets[stream.name][place] >= 0 else ():
            if value and value == (known if known and count == tall else _checksum(data, count, block, index)):
                return True
        # Of a sparse stream, nothing there is right where a slot in use claims no chunk.
        if stream.sparse and any(not value for _, value in sums):
            data[...] = np.nan  # what is there was never committed
            return True
        return False

    def _claims(self, stream: Stream, blocks: NDArray[np.int64], chunks: NDArray[np.int64]) -> NDArray[Any]:
        """What the slots say of some chunks, (chunks, SLOTS, 2): the rows that they cover, and a checksum."""
        low, high = int(blocks.min()), int(blocks.max())
        if high - low < 2 * len(blocks):
            slots, first = self._known_slots(low, high)
            at = blocks - first
        else:
            slots, at = self._read_slots(blocks), np.arange(len(blocks))
        claims = np.empty((len(blocks), SLOTS, 2), "<u8")
        claims[..., 0] = slots[at, :, 0]
        claims[..., 1] = slots[at[:, None], np.arange(SLOTS), (self.axis.first[stream.name] + chunks)[:, None]]
        return claims

    def _known_slots(self, low: int, high: int) -> tuple[NDArray[Any], int]:
        """The slots of consecutive blocks, these among them, and the first of the blocks.

        They are remembered where no writer changes them, and read ahead where blocks are read one after the other.
        """
        last, most = self.n_blocks - 1, CLAIMS_BYTES // (8 * SLOTS * self.axis.width)
        slots, first = self._local.__dict__.get("slots", (np.zeros((0, SLOTS, self.axis.width), "<u8"), 0))
        end = first + len(slots)
        if first <= low and high < min(end, last):
            return slots, first
        stop = max(high + 1, min(high + 1 + (len(slots) if low == end else 0), low + most, last))
        more = self._read_slots(np.arange(low, stop))
        if (settled := more[: last - low]).size:
            goes_on = low == end and len(slots) + len(settled) <= most
            self._local.slots = (np.concatenate([slots, settled]), first) if goes_on else (settled, low)
        return more, low

    def _inflated(self, stream: Stream, offset: int, size: int) -> NDArray[np.uint8]:
        limit = stream.chunk_bytes
        if offset < 0 or size > 2 * limit + 1024:
            return np.zeros(limit, np.uint8)
        return decompress(self._raw.read(offset, size), stream)

    def _rooms(self, stream: Stream, chunks: int, rows: int) -> NDArray[Any]:
        """Memory of this thread for rows of chunks, (chunks, rows, entries)."""
        size = chunks * rows * stream.row_bytes
        return self._scratch(size)[:size].view(stream.dtype).reshape(chunks, rows, -1)

    def _scratch(self, size: int) -> NDArray[np.uint8]:
        # New memory costs more than the copy into it.
        buffer = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < size:
            buffer = self._local.buffer = np.empty(max(size, 2**16), np.uint8)
        result: NDArray[np.uint8] = buffer
        return result

    # ------------------------------------------------------------------------------------------- rows and rectangles

    def series(self, name: str, column: int | None, start: int, stop: int) -> NDArray[Any]:
        """Rows start to stop of a stream, or of one of its columns, each (stop - start, entries of a chunk)."""
        stream = self.axis.streams[name]
        chunks = range(stream.n_chunks) if column is None else (column,)
        width = stream.row_bytes // stream.dtype.itemsize
        out = np.empty((stop - start, len(chunks) * width), stream.dtype)
        first, last = start // stream.rows, -(-stop // stream.rows)
        most = max(1, MOST_AT_ONCE // max(1, len(chunks)))
        for block in range(first, last, most):
            count, top = min(most, last - block), block * stream.rows
            a, b = max(start, top), min(stop, top + count * stream.rows)
            span = slice(a - top, b - top) if count == 1 else slice(0, stream.rows)
            at = np.repeat(np.arange(block, block + count), len(chunks))
            data = np.asarray(self.fetch(name, at, [*chunks] * count, span)).reshape(count, len(chunks), -1, width)
            rows = data.transpose(0, 2, 1, 3).reshape(-1, out.shape[1])
            out[a - start : b - start] = rows[a - top - span.start :][: b - a]
        return out

    def rectangle(
        self, name: str, rows: Indices, members: Indices, columns: Indices, *, by_member: bool = False
    ) -> NDArray[Any]:
        """States of a (T, M, P) stream; `by_member`: (M, T, P), into which whole chunks come without a copy."""
        stream = self.axis.streams[name]
        shape = (_count(rows), _count(members), _count(columns))
        result = np.empty((shape[1], shape[0], shape[2]) if by_member else shape, stream.dtype)
        if result.size == 0:
            return result
        out = result.transpose(1, 0, 2) if by_member else result
        numbers = np.arange(members.start, members.stop) if isinstance(members, slice) else members
        if shape[0] == 1 and self._read_state(stream, _first(rows), numbers, columns, out[0]):
            return result
        if isinstance(rows, slice) and (by_member or shape[1] == 1):
            each = result.reshape(shape[1], shape[0], shape[2])
            inner = self._read_blocks(stream, rows, numbers, columns, each)
            if inner is not None:
                for edge in (slice(rows.start, inner.start), slice(inner.stop, rows.stop)):
                    if edge.stop > edge.start:
                        out[edge.start - rows.start : edge.stop - rows.start] = self.rectangle(
                            name, edge, members, columns
                        )
                return result
        pieces = _pieces(columns, stream.chunk[1])
        targets = [(place, piece, int(m) * stream.grid[1] + piece.chunk)
                   for place, m in enumerate(numbers.tolist()) for piece in pieces]  # fmt: skip
        whole, most = (stream.rows, stream.chunk[1]), min(max(1, FETCH_BYTES // stream.chunk_bytes), MOST_AT_ONCE)
        has_long_rows = stream.row_bytes >= ROW_BYTES and stream.rows <= MOST_AT_ONCE
        waiting: list[tuple[int, int, NDArray[Any]]] = []  # whole chunks that go to where they belong without a copy
        for row in _pieces(rows, stream.rows):
            band = out[row.place]
            for at in range(0, len(targets), most):
                part = targets[at : at + most]
                chunks = [chunk for _, _, chunk in part]
                if isinstance(row.part, slice) and not stream.filters:
                    rooms = [band[:, place, piece.place] for place, piece, _ in part if isinstance(piece.part, slice)]
                    if len(rooms) == len(part) and all(
                        room.shape == whole and (room.flags.c_contiguous or has_long_rows) for room in rooms
                    ):
                        if len(waiting) + len(part) > most:
                            self._fetch_whole(name, waiting)
                        waiting += zip([row.chunk] * len(part), chunks, rooms, strict=True)
                        continue
                data = self.fetch(name, [row.chunk] * len(chunks), chunks, row.span)
                for (place, piece, _), chunk in zip(part, data, strict=True):
                    out[:, place][_both(row.place, piece.place)] = chunk[:, piece.span][_both(row.part, piece.part)]
        self._fetch_whole(name, waiting)
        return result

    def _read_blocks(
        self, stream: Stream, rows: slice, members: NDArray[np.int64], columns: Indices, out: NDArray[Any]
    ) -> slice | None:
        """Read the whole blocks among some rows into (M, T, P) if a chunk is as wide as a state; returns their rows."""
        tall, wide = stream.rows, stream.shape[1]
        first, last = -(-rows.start // tall), rows.stop // tall
        is_simple = isinstance(columns, slice) and (columns.start, columns.stop) == (0, wide) and stream.grid[1] == 1
        if stream.filters or not is_simple or last - first < 2:
            return None
        inner = slice(first * tall, last * tall)
        blocks = np.arange(first, last)
        for member, states in zip(members.tolist(), out, strict=True):
            rooms = states[inner.start - rows.start : inner.stop - rows.start].reshape(-1, tall, wide)
            self.fetch(stream.name, blocks, np.full_like(blocks, member), slice(0, tall), rooms)
        return inner

    def pieces(self, name: str, rows: slice, members: NDArray[np.int64], columns: slice) -> Iterator[Piece]:
        """States of a (T, M, P) stream in pieces that are compared while they are in the cache of the processor.

        Yields rows and columns in the rectangle, and the states (m, t, p), valid until the next piece. They are known
        to be whole only once the iteration has ended: damage is found at the end of a chunk.
        """
        stream, (tall, wide) = self.axis.streams[name], (self.axis.rows, self.axis.streams[name].chunk[1])
        for block in range(rows.start // tall, -(-rows.stop // tall)):
            start, stop = max(rows.start, block * tall), min(rows.stop, (block + 1) * tall)
            here = slice(start - rows.start, stop - rows.start)
            for first in range(columns.start, columns.stop, wide):
                there = slice(first, min(first + wide, columns.stop))
                chunks = members * stream.grid[1] + first // wide
                place = slice(there.start - columns.start, there.stop - columns.start)
                is_whole = stop - start == tall and first % wide == 0 and there.stop in (first + wide, stream.shape[1])
                if not (is_whole and self._goes_in_pieces(stream, block, chunks)):
                    yield here, place, self.rectangle(name, slice(start, stop), members, there, by_member=True)
                    continue
                for r, c, data in self._passes(stream, block, chunks):
                    width = min(c.stop, place.stop - place.start) - c.start
                    if width > 0:
                        at = place.start + c.start
                        yield (
                            slice(here.start + r.start, here.start + r.stop),
                            slice(at, at + width),
                            data[:, :, :width],
                        )

    def _goes_in_pieces(self, stream: Stream, block: int, chunks: NDArray[np.int64]) -> bool:
        if stream.filters or self.rows_of(block) < stream.rows:
            return False
        return bool(self._offsets[stream.name][block, chunks].min() >= 0)

    def _passes(self, stream: Stream, block: int, chunks: NDArray[np.int64]) -> Iterator[Piece]:
        """Whole chunks of a full block, piece by piece; raises at the end where one is not whole."""
        if stream.chunk_bytes < 2 * PIECE_BYTES:
            rows = slice(0, stream.rows)
            yield rows, slice(0, stream.chunk[1]), self.fetch(stream.name, [block] * len(chunks), chunks, rows)
            return
        wide, size, row_bytes = stream.chunk[1], stream.dtype.itemsize, stream.row_bytes
        offsets, indices = self._offsets[stream.name][block, chunks], self.axis.first[stream.name] + chunks
        is_known = self._are_known(stream, block, chunks, offsets)
        digests = [xxhash.xxh3_64(seed=(block << 24) + index) for index in indices.tolist()]
        each = max(PIECE_BYTES, min(2 * PIECE_BYTES, PASS_BYTES // len(chunks)))
        high, across = (min(each // row_bytes, stream.rows), wide) if row_bytes <= each else (1, each // size)
        scratch = self._scratch(len(chunks) * high * across * size)
        for top in range(0, stream.rows, high):
            for left in range(0, wide, across):
                count, width = min(high, stream.rows - top), min(across, wide - left)
                length = count * width * size
                data = scratch[: len(chunks) * length].reshape(len(chunks), length)
                starts = offsets + (top * row_bytes + left * size)
                self._raw.fill_each(starts.tolist(), data)
                if not is_known:
                    for view, digest in zip(data, digests, strict=True):
                        digest.update(view.data)
                states = data.view(stream.dtype).reshape(len(chunks), count, width)
                yield slice(top, top + count), slice(left, left + width), states
        if is_known:
            return
        actual = np.array([digest.intdigest() or 1 for digest in digests], "<u8")
        whole = np.zeros(len(chunks), bool)
        for trial in range(_TRIES):  # a writer may be changing the checksums of the last block at this moment
            if trial:
                time.sleep(0.002 * 4**trial)
            whole |= _match(self._claims(stream, np.full(len(chunks), block), chunks), stream.rows, actual)
            if whole.all() or block < self.n_blocks - 1:
                break
        if not whole.all():
            raise DamagedError(self.describe(stream.name, block, chunks[~whole]))
        self._verified[stream.name][block, chunks] = True

    def _fetch_whole(self, name: str, waiting: list[tuple[int, int, NDArray[Any]]]) -> None:
        if waiting:
            blocks, chunks, rooms = map(list, zip(*waiting, strict=True))
            self.fetch(name, blocks, chunks, slice(0, self.axis.rows), rooms)
            waiting.clear()

    def _read_state(self, stream: Stream, row: int, members: NDArray[np.int64], columns: Indices, out: Any) -> bool:
        """Read one state (M, P) out of chunks that are known to be whole, no more than is wanted; False if not so."""
        if stream.filters or not out.flags.c_contiguous or not isinstance(columns, slice):
            return False
        (block, row), wide, size = divmod(row, stream.rows), stream.chunk[1], stream.dtype.itemsize
        first, last = columns.start // wide, -(-columns.stop // wide)
        chunks = (members[:, None] * stream.grid[1] + np.arange(first, last)).reshape(-1)
        offsets = self._offsets[stream.name][block].take(chunks)
        if offsets.min() < 0 or not self._are_known(stream, block, chunks, offsets):
            return False
        edges = [columns.start, *range((first + 1) * wide, last * wide, wide), columns.stop]
        at = [(edge - columns.start) * size for edge in edges]
        skipped = [(row * wide + edge % wide) * size for edge in edges[:-1]]
        for states, places in zip(out.view(np.uint8), offsets.reshape(len(members), -1).tolist(), strict=True):
            starts = [place + more for place, more in zip(places, skipped, strict=True)]
            self._raw.fill_each(starts, [states[a:b] for a, b in pairwise(at)])
        return True

    def _are_known(self, stream: Stream, blocks: Any, chunks: NDArray[np.int64], offsets: NDArray[np.int64]) -> bool:
        """Whether chunks were found whole, and the file was not cut since."""
        if not self._verified[stream.name][blocks, chunks].all():
            return False
        return bool(max(offsets.tolist()) + stream.chunk_bytes <= self._raw.size)


def _checksum(chunk: NDArray[Any], count: int, block: int, index: int) -> int:
    """Checksum of the first rows of a chunk."""
    used = chunk if count == len(chunk) else chunk[:count]
    return checksum(used, block, index) if used.flags.c_contiguous else checksum_of_parts(used, block, index)


def _match(claims: NDArray[Any], rows: int, sums: NDArray[Any]) -> NDArray[np.bool_]:
    """Which chunks a slot of all `rows` claims to have these checksums; none has 0."""
    counts, values = claims[..., 0], claims[..., 1]
    matching: NDArray[np.bool_] = ((counts == rows) & (values != 0) & (values == sums[:, None])).any(axis=1)
    return matching


def _places(
    dataset: h5py.h5d.DatasetID, stream: Stream, n_blocks: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
    """Offset and size of every chunk of the committed blocks, (blocks, chunks), -1 where there is none; index whole?"""
    offsets = np.full((n_blocks, stream.n_chunks), -1, np.int64)
    sizes = np.zeros_like(offsets)
    # States that were dropped have chunks, too, but no more than the file has room for.
    least = max(1, stream.chunk_bytes // LARGEST_RATIO) if stream.filters else stream.chunk_bytes
    room = min(-(-dataset.shape[0] // stream.rows) * stream.n_chunks, end // least)
    most = 2 * max(offsets.size, room) + 10**4
    visited: list[Any] = []

    def note(info: Any) -> bool | None:
        visited.append(info)
        return True if len(visited) >= most else None  # an index that claims more than it can hold

    try:
        dataset.chunk_iter(note)
        indexed = len(visited) < most
    except (RuntimeError, OSError, ValueError, KeyError):
        indexed = False
    if visited:
        # Unsigned, as in the file: what is out of range stays so.
        offset_of = map(attrgetter("chunk_offset"), visited)
        corners = np.fromiter(chain.from_iterable(offset_of), np.uint64).reshape(len(visited), -1).T
        places = np.fromiter(map(attrgetter("byte_offset"), visited), np.uint64)
        lengths = np.minimum(np.fromiter(map(attrgetter("size"), visited), np.uint64), 2**40)
        block, *inside = corners // np.array((stream.rows, *stream.chunk), np.uint64)[: len(corners), None]
        at = np.zeros_like(block)
        for part, n in zip(inside, stream.grid, strict=True):
            at = np.where((part < n) & (at < offsets.shape[1]), at * np.uint64(n) + part, offsets.shape[1])
        known = (block < n_blocks) & (at < offsets.shape[1]) & (places < end)
        where = block[known].astype(np.int64), at[known].astype(np.int64)
        offsets[where], sizes[where] = places[known], lengths[known]
    if not indexed:
        _look_up(dataset, stream, offsets, sizes, end)  # take what can be found
    if not stream.filters:
        offsets[(sizes != stream.chunk_bytes) & (offsets >= 0)] = -1
    return offsets, sizes, indexed


def _look_up(
    dataset: h5py.h5d.DatasetID, stream: Stream, offsets: NDArray[np.int64], sizes: NDArray[np.int64], end: int
) -> None:
    coordinates = stream.coordinates()
    failures = 0
    for block in range(min(len(offsets), _LOOKUPS // max(1, len(coordinates)))):
        for at, place in enumerate(coordinates):
            try:
                info = dataset.get_chunk_info_by_coord((block * stream.rows, *place))
            except (RuntimeError, OSError, ValueError, KeyError):
                failures += 1
                if failures > 1000:
                    return
                continue
            if info.byte_offset is not None and info.byte_offset < end:
                offsets[block, at], sizes[block, at] = info.byte_offset, min(info.size, 2**40)


# -------------------------------------------------------------------------------------------------------- compression


def compress(chunk: NDArray[Any], filters: tuple[int, ...]) -> bytes:
    """A chunk as the filters of HDF5 would leave it: bytes shuffled, then gzip or Zstandard."""
    data = chunk.reshape(-1).view(np.uint8)
    if SHUFFLE in filters:
        data = np.ascontiguousarray(data.reshape(-1, chunk.dtype.itemsize).T).reshape(-1)
    if ZSTD in filters:
        return bytes(zstandard_module().ZstdCompressor(level=1).compress(data.tobytes()))
    return zlib.compress(data.data, 1)


def decompress(data: bytes, stream: Stream) -> NDArray[np.uint8]:
    """The bytes of a chunk, never more than it has; zeros where they cannot be had, which no checksum matches."""
    size = stream.chunk_bytes
    try:
        if ZSTD in stream.filters:
            module = zstandard_module()
            with module.ZstdDecompressor(max_window_size=2**27).stream_reader(data) as reader:
                plain = reader.read(size)
        else:
            plain = zlib.decompressobj().decompress(data, size)
    except MissingDependencyError:
        raise
    except Exception:  # whatever a decompressor raises on damaged data
        plain = b""
    result = np.frombuffer(plain.ljust(size, b"\0"), np.uint8)
    if SHUFFLE in stream.filters:
        result = np.ascontiguousarray(result.reshape(stream.dtype.itemsize, -1).T).reshape(-1)
    return result


def zstandard_module() -> Any:
    """The package that compresses with Zstandard; a sentence where it is missing."""
    try:
        import zstandard
    except ImportError:
        raise MissingDependencyError(
            "this needs Zstandard, which is not installed; run: pip install trajtools[zstd]"
        ) from None
    return zstandard


# --------------------------------------------------------------------------------------------------------- selections


def indices(selection: Selection | None, length: int) -> Indices:
    """A selection along one axis in its simplest form."""
    if selection is None:
        return slice(0, length)
    if isinstance(selection, slice):
        start, stop, step = selection.indices(length)
        if step == 1:
            return slice(start, max(start, stop))
        chosen = np.arange(start, stop, step, dtype=np.int64)
    else:
        chosen = np.asarray(selection, np.int64).reshape(-1)
        outside = (chosen < -length) | (chosen >= length)
        if outside.any():
            raise IndexError(f"index {int(chosen[outside][0])} of an axis of {length}")
        chosen = np.where(chosen < 0, chosen + length, chosen)
    if chosen.size and (np.diff(chosen) == 1).all():
        return slice(int(chosen[0]), int(chosen[-1]) + 1)
    return chosen


def _count(selection: Indices) -> int:
    return selection.stop - selection.start if isinstance(selection, slice) else len(selection)


def _first(selection: Indices) -> int:
    return selection.start if isinstance(selection, slice) else int(selection[0])


@dataclass(frozen=True)
class _Piece:
    """The part of a selection that lies in one chunk: what of the chunk, what of that, and where it goes."""

    chunk: int
    span: slice
    part: Indices
    place: Indices


def _pieces(selection: Indices, width: int) -> list[_Piece]:
    return list(_cut(selection, width))


def _cut(selection: Indices, width: int) -> Iterator[_Piece]:
    if isinstance(selection, slice):
        for chunk in range(selection.start // width, -(-selection.stop // width)):
            first, last = max(selection.start, chunk * width), min(selection.stop, (chunk + 1) * width)
            span, place = (slice(first - at, last - at) for at in (chunk * width, selection.start))
            yield _Piece(chunk, span, slice(None), place)
        return
    order = np.argsort(selection // width, kind="stable")
    chunks, starts = np.unique(selection[order] // width, return_index=True)
    for chunk, places in zip(chunks.tolist(), np.split(order, starts[1:]), strict=True):
        wanted = selection[places] - chunk * width
        first = int(wanted.min())
        yield _Piece(chunk, slice(first, int(wanted.max()) + 1), wanted - first, places)


def _both(rows: Indices, columns: Indices) -> Any:
    """Index rows and columns independently of each other."""
    if isinstance(rows, slice) or isinstance(columns, slice):
        return rows, columns
    return np.ix_(rows, columns)
