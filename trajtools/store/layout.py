"""What stands where in a file: streams and their chunks, tables, cells, notes; and the making of an empty file.

FORMAT.md is the specification. Everything is created before the first state and never changes its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import struct
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from trajtools.errors import ArchitectureError, FormatError, UnsafeFileError
from trajtools.store.files import LIBVER, SUPERBLOCK_BYTES, sealed
from trajtools.store.strangers import ZSTD, Geometry
from trajtools.wiring import Member, NodeSet, Parameter

Row = TypeVar("Row", Parameter, Member, NodeSet)

FORMAT, VERSION = "trajtools", (2, 0)
STORED = ("weights", "sketch", "distances")
BESIDE = {"optimizer": "optimizer_parameters", "buffers": "buffer_parameters"}  # streams beside the states, and tables
# In the order of their checksums: the small ones first, so that metrics are read without those of the weights.
STREAMS = ("step", "metrics", "member_metrics", *STORED, *BESIDE)
SPARSE = ("metrics", "member_metrics")
TEXTS = ("format", "format_version", "Conventions", "name", "uuid", "time_unit", "hparams", "provenance", "reference")
PLANTING_STREAMS = {"step": "<i8", "member": "<i8", "epsilon": "<f8", "seed": "<i8", "norm": "<f8"}
TABLES: dict[str, type[Any]] = {
    "parameters": Parameter,
    "members": Member,
    "nodes": NodeSet,
    "optimizer_parameters": Parameter,
    "buffer_parameters": Parameter,
}
STREAM_TEXTS = dict.fromkeys(("weights", *BESIDE), "logical_dtype") | {"sketch": "settings", "distances": "metric"}
RECORDING, COMPLETE, INTERRUPTED = 0, 1, 2
FILTERED = (*STORED, *BESIDE)  # streams that may be compressed
STATUS = ("recording", "complete", "interrupted")
N_COLUMNS, N_MEMBER_COLUMNS = 32, 8  # spare columns for metrics
NAME_BYTES = 64
NOTES_BYTES = 16 * 2**10
PLANTING_ROWS = 64
SLOTS = 3

MAX_ROWS = 64
CHUNK_BYTES = 2**20
BLOCK_BYTES = 64 * 2**20

LARGEST_RATIO = 20_000  # of the size of data to that of the file; Zstandard needs 100 bytes for 1 MiB of zeros
LARGEST_CHUNK = 256 * 2**20  # bytes, without its filters
STRUCTURE_BYTES = 64 * 2**20
JSON_BYTES, JSON_DEPTH = 16 * 2**20, 64
GZIP, SHUFFLE = 1, 2
COMPRESSIONS = {None: (), "gzip": (SHUFFLE, GZIP), "zstd": (SHUFFLE, ZSTD)}

_NUMBERS = {"int": "<i8", "float": "<f8"}
_STORED_DTYPES = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "bfloat16": "<u2"}


# ------------------------------------------------------------------------------------------------------------- dtypes


def stored_dtype(dtype: object) -> tuple[str, np.dtype[np.generic]]:
    """The name of a dtype of states, and the dtype that stores it without loss."""
    try:
        name = dtype if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype).name  # type: ignore[call-overload]
    except TypeError:
        name = str(dtype)
    if name not in _STORED_DTYPES:
        raise ArchitectureError(
            f"states of dtype {name} cannot be recorded; needed: {', '.join(_STORED_DTYPES)}. "
            "Leave the parameter out with exclude=, or pass its real and imaginary parts (or its float values)."
        )
    return name, np.dtype(_STORED_DTYPES[name])


def promote(names: Sequence[str]) -> str:
    """The smallest dtype that holds all of these exactly."""
    kinds = set(names)
    if len(kinds) == 1:
        return names[0]
    # No 16-bit float holds both float16 and bfloat16; float32 holds either.
    return "float64" if "float64" in kinds else "float32"


def digest(arrays: Sequence[NDArray[Any]]) -> bytes:
    """16 bytes that tell states apart, bit for bit."""
    hasher = xxhash.xxh3_128()
    for array in arrays:
        hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return hasher.digest()


def widen(bits: NDArray[np.generic]) -> NDArray[np.float32]:
    """The bits of bfloat16 numbers as float32, exactly, payloads of NaN included."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


# ------------------------------------------------------------------------------------------------------------ streams


@dataclass(frozen=True)
class StreamLayout:
    """How a (T, n_members, n_parameters) stream is cut into chunks, and how a block of it lies in memory.

    Chunks are ``(rows, 1, columns)``. A *block* is `rows` consecutive states of all members; a *tile* is one chunk of
    a block. In memory a block is an array (n_members, n_column_chunks, rows, columns), so that each tile is contiguous
    and goes to disk as it is.

    Attributes
    ----------
    n_parameters, n_members : int
        Entries of a state (P) and networks of the run (M).
    logical_dtype : str
        Dtype of the numbers: ``float16``, ``float32``, ``float64`` or ``bfloat16`` (stored as uint16).
    rows : int
        States in a block.
    columns : int
        Entries of a state in a tile; the last tile of a state is padded with zeros.
    """

    n_parameters: int
    n_members: int
    logical_dtype: str
    rows: int
    columns: int

    @classmethod
    def choose(
        cls,
        n_parameters: int,
        n_members: int,
        dtype: object,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        block_bytes: int = BLOCK_BYTES,
    ) -> StreamLayout:
        """Choose 64 states in a block (fewer if they exceed `block_bytes`), and chunks near `chunk_bytes`."""
        if n_parameters < 1 or n_members < 1:
            raise ValueError(
                f"a state needs at least one entry and one member, got P = {n_parameters}, M = {n_members}"
            )
        name, stored = stored_dtype(dtype)
        rows = min(MAX_ROWS, max(1, block_bytes // (n_members * n_parameters * stored.itemsize)))
        pieces = max(1, round(n_parameters * rows * stored.itemsize / chunk_bytes))
        return cls(n_parameters, n_members, name, rows, -(-n_parameters // pieces))

    def beside(self, n_parameters: int, dtype: object) -> StreamLayout:
        """Choose the geometry of a second stream, whose blocks are as long as those of this one."""
        chosen = StreamLayout.choose(n_parameters, self.n_members, dtype)
        return StreamLayout(n_parameters, self.n_members, chosen.logical_dtype, self.rows, chosen.columns)

    @property
    def n_column_chunks(self) -> int:
        """Tiles of one state."""
        return -(-self.n_parameters // self.columns)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Dtype of the tiles and of the dataset (uint16 for bfloat16)."""
        return stored_dtype(self.logical_dtype)[1]

    @property
    def block_bytes(self) -> int:
        """Size of a block on disk and in memory."""
        return self.n_members * self.n_column_chunks * self.rows * self.columns * self.dtype.itemsize

    def new_tiles(self) -> NDArray[np.generic]:
        """An empty block."""
        return np.zeros((self.n_members, self.n_column_chunks, self.rows, self.columns), self.dtype)

    def put(self, tiles: NDArray[np.generic], row: int, member: int, state: NDArray[np.generic]) -> None:
        """Copy one state into its row of a block."""
        whole = self.n_parameters // self.columns
        cut = whole * self.columns
        tiles[member, :whole, row] = state[:cut].reshape(whole, self.columns)
        if cut < self.n_parameters:
            tiles[member, whole, row, : self.n_parameters - cut] = state[cut:]

    def take(self, tiles: NDArray[np.generic], count: int) -> NDArray[np.generic]:
        """The first states of a block as a plain array (count, M, P)."""
        flat = tiles[:, :, :count].transpose(2, 0, 1, 3).reshape(count, self.n_members, -1)
        return flat[:, :, : self.n_parameters]


@dataclass(frozen=True)
class Stream:
    """A dataset (T, *shape) that grows by blocks of `rows` states, each a grid of chunks (rows, *chunk).

    Attributes
    ----------
    name : str
        Path of the dataset.
    rows : int
        States in a block.
    shape, chunk : tuple of int
        Of one state, and of the part of it in one chunk.
    dtype : numpy.dtype
        Of the dataset.
    sparse : bool
        Chunks may be absent, and read as NaN.
    filters : tuple of int
        HDF5 numbers of the filters.
    """

    name: str
    rows: int
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    sparse: bool = False
    filters: tuple[int, ...] = ()

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each axis of a state."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunk, strict=True))

    @cached_property
    def n_chunks(self) -> int:
        """Chunks of one block."""
        return prod(self.grid)

    @cached_property
    def chunk_bytes(self) -> int:
        """Size of a chunk without filters."""
        return self.rows * prod(self.chunk) * self.dtype.itemsize

    @cached_property
    def row_bytes(self) -> int:
        """Size of one state in a chunk without filters."""
        return prod(self.chunk) * self.dtype.itemsize

    @property
    def block_shape(self) -> tuple[int, ...]:
        """A block in memory, chunk after chunk, as `StreamLayout.new_tiles` gives it."""
        return (*self.grid, self.rows, *self.chunk[len(self.grid) - 1 :])

    def block_of(self, states: NDArray[Any]) -> NDArray[Any]:
        """A block with some states, (count, *shape), in its first rows."""
        block = np.zeros(self.block_shape, self.dtype)
        if len(self.shape) < 2:
            block.reshape(self.rows, *self.shape)[: len(states)] = states
            return block
        for at, first in enumerate(range(0, self.shape[1], self.chunk[1])):
            part = states[:, :, first : first + self.chunk[1]]
            block[:, at, : len(states), : part.shape[2]] = part.transpose(1, 0, 2)
        return block

    def coordinates(self) -> list[tuple[int, ...]]:
        """First entry of each chunk of a block, in the order of their checksums."""
        return [tuple(i * c for i, c in zip(place, self.chunk, strict=True)) for place in np.ndindex(self.grid)]

    def to_json(self) -> dict[str, Any]:
        """As the text of the structure has it."""
        about = {"name": self.name, "shape": self.shape, "chunk": self.chunk, "dtype": self.dtype.str}
        return {**about, "filters": self.filters}

    @classmethod
    def from_json(cls, value: Any, rows: int) -> Stream:
        """Read it back, and refuse what is not of the format."""
        name, kind = value["name"], value["dtype"]
        shape, chunk, filters = (tuple(value[key]) for key in ("shape", "chunk", "filters"))
        if name not in STREAMS or len(shape) != len(chunk) or len(shape) > 2:
            raise FormatError(f"the format does not know a stream {name!r} of the shape {shape}")
        if not all(type(n) is int and 0 <= n < 2**62 for n in (*shape, *chunk)) or 0 in chunk:
            raise FormatError(f"{name} has chunks {(rows, *chunk)} of states {shape}")
        if filters not in COMPRESSIONS.values() or (filters and name not in FILTERED):
            raise UnsafeFileError(
                f"{name} uses the HDF5 filters {filters}; readers take shuffle with gzip or Zstandard, of {FILTERED}"
            )
        if kind not in ("<f2", "<f4", "<f8", "<u2", "<i8"):
            raise FormatError(f"{name} is of dtype {kind!r}, which the format does not know")
        result = cls(name, rows, shape, chunk, np.dtype(kind), name in SPARSE, filters)
        if result.chunk_bytes > LARGEST_CHUNK or result.n_chunks > 2**24:
            raise UnsafeFileError(f"{name} declares chunks of {result.chunk_bytes} bytes, {result.n_chunks} a block")
        return result

    def check(self, dataset: Geometry) -> None:
        """Refuse a dataset that is not what the structure says."""
        if dataset.filters not in COMPRESSIONS.values():
            raise UnsafeFileError(
                f"{dataset.name} uses the HDF5 filters {dataset.filters}; readers take shuffle with gzip or Zstandard"
            )
        ours = (self.shape, (self.rows, *self.chunk), self.dtype.str, self.filters)
        theirs = (dataset.shape[1:], dataset.chunks, dataset.dtype.str, dataset.filters)
        if ours != theirs:
            raise FormatError(
                f"{dataset.name} has the shape, chunks, dtype and filters {theirs}, and the structure says {ours}"
            )


@dataclass(frozen=True)
class Axis:
    """Streams that grow together, block by block, and the dataset of their checksums.

    Attributes
    ----------
    sums : str
        Path of the checksums, (blocks, SLOTS, 1 + number of chunks): in each slot, the rows that its checksums cover,
        then a checksum for each chunk, 0 where there is none.
    rows : int
        Rows of a block.
    streams : dict of str to Stream
        In the order of the checksums.
    first : dict of str to int
        Index of the first checksum of each stream in a slot.
    """

    sums: str
    rows: int
    streams: dict[str, Stream]
    first: dict[str, int]

    @classmethod
    def make(cls, sums: str, rows: int, streams: Sequence[Stream]) -> Axis:
        """Number the chunks of the streams."""
        first, at = {}, 1
        for stream in streams:
            first[stream.name] = at
            at += stream.n_chunks
        return cls(sums, rows, {s.name: s for s in streams}, first)

    @cached_property
    def width(self) -> int:
        """Entries of a slot."""
        return 1 + sum(s.n_chunks for s in self.streams.values())

    def __getitem__(self, name: str) -> Stream:
        """A stream, or the checksums as one."""
        if name != self.sums:
            return self.streams[name]
        return Stream(name, 1, (SLOTS, self.width), (SLOTS, self.width), np.dtype("<u8"))


def checksum(chunk: Any, block: int, index: int) -> int:
    """xxh3-64 of the committed rows of a chunk, contiguous, seeded by its place; never 0, which stands for no chunk."""
    return xxhash.xxh3_64_intdigest(chunk, seed=(block << 24) + index) or 1


def checksum_of_parts(parts: Iterable[Any], block: int, index: int) -> int:
    """`checksum` of bytes that lie in parts."""
    digest = xxhash.xxh3_64(seed=(block << 24) + index)
    for part in parts:
        digest.update(part)
    return digest.intdigest() or 1


# ----------------------------------------------------------------------------------------------------- cells and notes


@dataclass
class Cells:
    """Eight numbers in one place of 64 bytes, which a single write replaces whole; the last is their checksum."""

    committed: int = 0
    plantings: int = 0
    generation: int = 0
    status: int = RECORDING
    heartbeat: int = 0
    process: int = 0
    notes: int = 0

    BYTES = 64

    def pack(self) -> bytes:
        """As the file holds them."""
        body = struct.pack("<7q", *(getattr(self, field.name) for field in dataclasses.fields(self)))
        return body + struct.pack("<Q", xxhash.xxh3_64_intdigest(body))

    @classmethod
    def unpack(cls, data: bytes) -> Cells | None:
        """Read them back; None where the checksum is wrong."""
        if len(data) != cls.BYTES or struct.unpack_from("<Q", data, 56)[0] != xxhash.xxh3_64_intdigest(data[:56]):
            return None
        return cls(*struct.unpack_from("<7q", data))


def pack_json(text: str) -> bytes:
    """JSON behind its checksum and length."""
    body = text.encode()
    return struct.pack("<QQ", xxhash.xxh3_64_intdigest(body), len(body)) + body


def unpack_json(data: bytes) -> str | None:
    """Read it back; None where it is damaged or empty."""
    if len(data) < 16:
        return None
    digest, length = struct.unpack_from("<QQ", data)
    body = data[16 : 16 + length]
    if not length or len(body) != length or xxhash.xxh3_64_intdigest(body) != digest:
        return None
    return body.decode("utf-8", "replace")


def pack_notes(notes: Mapping[str, Any]) -> bytes:
    """Notes padded to a slot."""
    data = pack_json(to_json(notes))
    if len(data) > NOTES_BYTES:
        raise ValueError(f"notes of {len(data) - 16} bytes; there is room for {NOTES_BYTES - 16}")
    return data.ljust(NOTES_BYTES, b"\0")


def fits_notes(notes: Mapping[str, Any]) -> bool:
    """Whether these notes leave a quarter of the room to later ones: writers, continuations, the overhead."""
    return len(to_json(notes).encode()) <= NOTES_BYTES * 3 // 4


def unpack_notes(data: bytes) -> dict[str, Any] | None:
    """Read a slot of the notes back; None where it is damaged or empty."""
    text = unpack_json(data)
    return None if text is None else from_json(text, "the notes")


# ------------------------------------------------------------------------------------------------------------- tables


def columns_of(kind: type[Row], rows: Sequence[Row]) -> dict[str, Any]:
    """A table of parameters, members or node sets: lists of text and arrays of numbers, one a column."""
    result: dict[str, Any] = {}
    for name, type_ in _columns(kind):
        values = [getattr(row, name) for row in rows]
        if type_ in _NUMBERS:
            result[name] = np.array(values, _NUMBERS[type_])
        elif name == "shape":
            result[name] = [",".join(map(str, shape)) for shape in values]
        else:
            result[name] = [_utf8(value or "") for value in values]
    return result


def column_names(kind: type[Row]) -> tuple[str, ...]:
    """Columns of a table, in their order."""
    return tuple(name for name, _ in _columns(kind))


def rows_from(kind: type[Row], columns: Mapping[str, list[Any]]) -> tuple[Row, ...]:
    """Read a table back."""
    missing = [name for name, _ in _columns(kind) if name not in columns]
    if missing:
        raise FormatError(f"a table lacks the column {missing[0]!r}, which the format requires")
    if len({len(columns[name]) for name, _ in _columns(kind)}) > 1:
        raise FormatError("the columns of a table differ in length")
    values = dict(columns)
    try:
        for name, type_ in _columns(kind):
            plain: Any = {"int": int, "float": float}.get(type_, str)
            if not all(type(value) is plain for value in columns[name]):
                raise ValueError(f"its column {name!r} must hold numbers or text of one kind")
            if plain is int and any(abs(value) >= 2**63 for value in columns[name]):
                raise ValueError(f"a number of its column {name!r} is too large")
            if name == "shape":
                values[name] = [tuple(map(int, text.split(","))) if text else () for text in columns[name]]
                if any(n < 0 for shape in values[name] for n in shape):
                    raise ValueError("a size is negative")
            elif type_ == "str | None":
                values[name] = [text or None for text in columns[name]]
        return tuple(kind(*row) for row in zip(*(values[name] for name, _ in _columns(kind)), strict=True))
    except ValueError as error:
        raise FormatError(f"the table of {kind.__name__.lower()}s is wrong: {error}") from error


def _columns(kind: type[Any]) -> list[tuple[str, str]]:
    """Names and types of what a table holds of its rows: `undirected` is a property of graphs made elsewhere."""
    return [(field.name, str(field.type)) for field in dataclasses.fields(kind) if field.name != "undirected"]


def check_parameters(parameters: Sequence[Parameter]) -> int:
    """Check that the parameters tile the state without gap or overlap; returns P."""
    at, names = 0, set()
    for p in parameters:
        if p.offset != at or p.size < 0:
            raise ArchitectureError(
                f"parameter {p.name!r} is declared to hold entries {p.offset} to {p.offset + p.size} of the state, "
                f"but the previous one ends at {at}; offsets must follow each other without gaps"
            )
        if p.name in names:
            raise ArchitectureError(f"two parameters are named {p.name!r}; names must be unique in a run")
        names.add(p.name)
        at += p.size
    if at == 0:
        raise ArchitectureError("the state is empty: no parameter is selected, or all are of size 0")
    return at


def check_members(members: Sequence[Member]) -> None:
    """Check names and references of members."""
    if not members:
        raise ArchitectureError("a run needs at least one member")
    if len({m.name for m in members}) != len(members):
        raise ArchitectureError("two members of the run share a name; names must be unique in a run")
    for index, member in enumerate(members):
        if not -1 <= member.reference < len(members) or member.reference == index:
            raise ArchitectureError(
                f"member {member.name!r} refers to member {member.reference}; needed: the index of another member "
                f"(0 to {len(members) - 1}), or -1 for a reference"
            )


def to_json(value: object) -> str:
    """A value as JSON; NumPy numbers and arrays, paths, sets and dataclasses become plain ones."""
    text = json.dumps(value, default=_plain, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a path or an argument that is not UTF-8 comes as lone surrogates
        return json.dumps(value, default=_plain)
    return text


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(
        f"{value!r} of type {type(value).__name__} cannot be stored as JSON; pass numbers, strings, lists and dicts "
        "(or str(value))"
    )


def from_json(text: str, place: str) -> dict[str, Any]:
    """Read a JSON object from a file that may come from a stranger."""
    if len(text) > JSON_BYTES:
        raise FormatError(f"{place} holds {len(text)} characters of JSON; at most {JSON_BYTES} are read")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{place} is not JSON: {error}") from error
    if not isinstance(value, dict) or _depth(value) > JSON_DEPTH:
        raise FormatError(f"{place} must be a JSON object nested at most {JSON_DEPTH} levels deep")
    return value


def _depth(value: object) -> int:
    level, deepest = [value], 0
    while level and deepest <= JSON_DEPTH:
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        ]
        deepest += 1
    return deepest


# ------------------------------------------------------------------------------------------------------- an empty file


@dataclass
class RunSpec:
    """Everything about a run that is fixed before its first state.

    Attributes
    ----------
    parameters, nodes, members : sequence
        The tables.
    dtype : object
        Dtype of the states, as NumPy takes it, or ``"bfloat16"``; its name once the specification is made.
    stored : str
        ``"weights"``, ``"sketch"`` or ``"distances"``.
    name, time_unit, hparams, provenance, reference, uuid, shard
        Attributes of the file; the shards of one network have a `uuid` in common (see `Shard.to_text`).
    compress : str or None
        ``"zstd"`` or ``"gzip"``.
    sketch : mapping or None
        Settings of a sketch, with its `k`.
    distance_metric : str or None
        Name of the metric of stored distances.
    optimizer, buffers : mapping or None
        What is stored beside the states: ``parameters``, their table, and their ``dtype``.
    metrics : mapping or sequence of str
        Metrics that there must be room for, by name, or by shape for one state: (), (M,) or (M, k).
    """

    parameters: Sequence[Parameter]
    members: Sequence[Member]
    dtype: Any
    nodes: Sequence[NodeSet] = ()
    stored: str = "weights"
    name: str = ""
    time_unit: str = "step"
    hparams: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] | None = None
    reference: str | None = None
    compress: str | None = None
    sketch: Mapping[str, Any] | None = None
    distance_metric: str | None = None
    optimizer: Mapping[str, Any] | None = None
    buffers: Mapping[str, Any] | None = None
    metrics: Mapping[str, tuple[int, ...] | None] | Sequence[str] = ()
    uuid: str = ""
    shard: str = ""

    def __post_init__(self) -> None:
        check_parameters(self.parameters)
        check_members(self.members)
        self.dtype = stored_dtype(self.dtype)[0]
        for value in (self.hparams, self.provenance, self.sketch):
            to_json(value)  # what has no JSON form is refused before a file is made
        if self.stored not in STORED:
            raise ValueError(f"stored={self.stored!r}: needed one of {', '.join(STORED)}")
        if self.compress not in COMPRESSIONS:
            raise ValueError(f"compress={self.compress!r}: needed None, 'zstd' or 'gzip'")
        if (self.stored == "sketch") != (self.sketch is not None):
            raise ValueError(
                "stored='sketch' and the settings of the sketch (sketch=, with its k) must be passed together"
            )
        if self.sketch is not None and not (isinstance(self.sketch.get("k"), int) and self.sketch["k"] > 0):
            raise ValueError(f"the settings of a sketch need a positive integer k, got {dict(self.sketch)!r}")
        if (self.stored == "distances") != (self.distance_metric is not None):
            raise ValueError("stored='distances' and the name of the metric (distance_metric=) must be passed together")

    @property
    def tables(self) -> dict[str, tuple[Any, ...]]:
        """The tables by name; those of what is not stored are empty."""
        beside = {table: getattr(self, stream) or {} for stream, table in BESIDE.items()}
        buffers = {table: tuple(one.get("parameters", ())) for table, one in beside.items()}
        return {
            "parameters": tuple(self.parameters), "members": tuple(self.members), "nodes": tuple(self.nodes), **buffers
        }  # fmt: skip

    @cached_property
    def layouts(self) -> dict[str, StreamLayout]:
        """Geometry of the states, and of what is stored beside them in blocks of the same length."""
        members = len(self.members)
        if self.stored == "weights":
            states = StreamLayout.choose(sum(p.size for p in self.parameters), members, self.dtype)
        else:
            states = StreamLayout.choose(int(self.sketch["k"]) if self.sketch else 1, members, "float64")
        result = {self.stored: states}
        for stream, table in BESIDE.items():
            if self.tables[table]:
                size = check_parameters(self.tables[table])
                result[stream] = states.beside(size, getattr(self, stream)["dtype"])
        return result

    def streams(self) -> list[Stream]:
        """The streams of the states, in the order of their checksums."""
        members, rows = len(self.members), self.layouts[self.stored].rows
        shapes = self.metrics.values() if isinstance(self.metrics, Mapping) else [None] * len(self.metrics)
        numbers = sum(not shape for shape in shapes)
        of_members = sum(shape[1] if shape and len(shape) > 1 else shape != () for shape in shapes)
        columns, member_columns = max(N_COLUMNS, 2 * numbers), max(N_MEMBER_COLUMNS, 2 * of_members)
        double = np.dtype("<f8")
        result = [
            Stream("step", rows, (), (), np.dtype("<i8")),
            Stream("metrics", rows, (columns,), (1,), double, sparse=True),
            Stream("member_metrics", rows, (member_columns, members), (1, members), double, sparse=True),
        ]
        for name, one in self.layouts.items():
            shape, chunk = ((members, one.n_parameters), (1, one.columns)) if name != "distances" else ((members,),) * 2
            result.append(Stream(name, rows, shape, chunk, one.dtype, filters=COMPRESSIONS[self.compress]))
        return result

    def structure(self, path: Path) -> Structure:
        """All that the file will say before its first state."""
        texts = {
            "format": FORMAT,
            "format_version": ".".join(map(str, VERSION)),
            "Conventions": "trajtools-{}.{}".format(*VERSION),
            "name": self.name or path.stem,
            "uuid": self.uuid or uuid.uuid4().hex,
            "time_unit": self.time_unit,
            "hparams": to_json(self.hparams or {}),
            "provenance": to_json(self.provenance or {}),
            "reference": self.reference or "",
            **({"shard": self.shard} if self.shard else {}),
        }
        about = {"sketch": to_json(self.sketch), "distances": self.distance_metric or ""}
        for name, layout in self.layouts.items():
            texts[f"{name}.{STREAM_TEXTS[name]}"] = about.get(name, layout.logical_dtype)
        texts = {name: _utf8(text) for name, text in texts.items()}
        return Structure.make(texts, self.tables, self.streams())


@dataclass(frozen=True)
class Structure:
    """All that is fixed before the first state, which readers take from one checksummed text.

    Attributes
    ----------
    texts : dict of str to str
        Text attributes of the root, and of streams as ``stream.attribute``.
    tables : dict of str to tuple
        Rows of parameters, members, node sets; none of what is not stored.
    axis, planting_axis : Axis
        The streams of the states, and those of the plantings.
    """

    texts: dict[str, str]
    tables: dict[str, tuple[Any, ...]]
    axis: Axis
    planting_axis: Axis

    @classmethod
    def make(cls, texts: dict[str, str], tables: dict[str, tuple[Any, ...]], streams: Sequence[Stream]) -> Structure:
        """Put the streams on their axes."""
        plantings = [
            Stream(f"plantings/{name}", PLANTING_ROWS, (), (), np.dtype(dtype))
            for name, dtype in PLANTING_STREAMS.items()
        ]
        states = Axis.make("store/checksums", streams[0].rows, streams)
        return cls(texts, tables, states, Axis.make("store/planting_checksums", PLANTING_ROWS, plantings))

    def pack(self) -> bytes:
        """As the file holds it."""
        columns = {
            name: {c: v if isinstance(v, list) else v.tolist() for c, v in columns_of(TABLES[name], rows).items()}
            for name, rows in self.tables.items()
            if rows
        }
        streams = [stream.to_json() for stream in self.axis.streams.values()]
        text = to_json({"texts": self.texts, "tables": columns, "rows": self.axis.rows, "streams": streams})
        if len(text) > STRUCTURE_BYTES:
            raise ArchitectureError(
                f"the tables of the run take {len(text)} bytes as text, at most {STRUCTURE_BYTES} are read; leave "
                "parameters or members out, or record them into several files"
            )
        return pack_json(text)

    @classmethod
    def unpack(cls, text: str, where: str, check_version: Callable[[Any], None]) -> Structure:
        """Read it back from a file that may come from a stranger."""
        try:
            value = json.loads(text)
            texts = {str(name): text for name, text in value["texts"].items()}
            version = texts["format_version"]
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FormatError(f"{where}: the structure is not as the format has it ({type(error).__name__})") from error
        check_version(version)
        try:
            return cls._from_json(texts, value)
        except FormatError as error:
            raise type(error)(f"{where}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            text = f"{type(error).__name__}: {error}"
            raise FormatError(f"{where}: the structure is not as the format has it ({text:.200})") from error

    @classmethod
    def _from_json(cls, texts: dict[str, str], value: Any) -> Structure:
        if not all(type(text) is str for text in texts.values()) or not set(TEXTS) <= set(texts):
            raise FormatError("its attributes must be texts")
        columns, rows = value["tables"], value["rows"]
        tables = {name: rows_from(kind, columns[name]) if name in columns else () for name, kind in TABLES.items()}
        if type(rows) is not int or not 1 <= rows <= 2**20:
            raise FormatError(f"its blocks have {rows} states")
        streams = [Stream.from_json(one, rows) for one in value["streams"]]
        names = [stream.name for stream in streams]
        if names != [name for name in STREAMS if name in names] or names[:3] != ["step", *SPARSE]:
            raise FormatError(f"its streams are {names}; needed step, metrics and member_metrics, in this order")
        structure = cls.make(texts, tables, streams)
        structure.check()
        return structure

    @property
    def stored(self) -> str:
        """What is kept of each state."""
        return next(name for name in STORED if name in self.axis.streams)

    @property
    def sizes(self) -> dict[str, int]:
        """Entries of a state, and of what is stored beside it, by stream."""
        named = {"weights": "parameters", **BESIDE}
        return {stream: sum(p.size for p in self.tables[table]) for stream, table in named.items()}

    def check(self) -> None:
        """Refuse tables and streams that contradict each other."""
        streams, members = self.axis.streams, len(self.tables["members"])
        if sum(name in streams for name in STORED) != 1:
            raise FormatError(f"it has the streams {', '.join(streams)}; needed one of {', '.join(STORED)}")
        if not members or not self.tables["parameters"]:
            raise FormatError("it lacks the members or the parameters")
        at = 0
        for p in self.tables["parameters"]:
            if p.offset != at or p.size < 0:
                raise FormatError(f"parameter {p.name!r} begins at entry {p.offset}, needed {at}")
            at += p.size
        expected: dict[str, tuple[int | None, ...]] = {
            "step": (), "metrics": (None,), "member_metrics": (None, members), "distances": (members,),
            "sketch": (members, None), **{name: (members, size) for name, size in self.sizes.items()},
        }  # fmt: skip
        for name, stream in streams.items():
            shape = expected[name]
            if len(shape) != len(stream.shape) or any(
                b not in (None, a) for a, b in zip(stream.shape, shape, strict=True)
            ):
                raise FormatError(f"{name} has the shape (T, {stream.shape}), needed (T, {shape})")
            if len(shape) == 2 and name not in SPARSE and stream.chunk[0] != 1:
                raise FormatError(f"{name} has chunks {stream.chunk}, needed one member in each")
            attribute = STREAM_TEXTS.get(name)
            text = self.texts.get(f"{name}.{attribute}")
            if attribute and text is None:
                raise FormatError(f"{name} lacks the attribute {attribute!r}")
            if attribute == "logical_dtype" and _STORED_DTYPES.get(str(text)) != stream.dtype.str:
                raise FormatError(f"{name} is of dtype {stream.dtype.str}, which does not store {text!r}")


PLACES = ("store/cells", "store/notes", "metric", "member_metric")
STRUCTURES = ("store/structure", "store/structure_copy")  # far from each other, so that a lost page takes one


def create(path: Path, structure: Structure, *, overwrite: bool = False) -> dict[str, int]:
    """Make a file with its whole structure and no state, under another name first: the path never holds half a file.

    Returns the offsets of what is rewritten in place, by `PLACES`.
    """
    draft = path.with_name(f".{path.name[:100]}.{os.urandom(6).hex()}.tmp")
    with empty_file(structure, draft) as file:
        file.flush()
        image: bytes = file.id.get_file_image()
        places = {name: int(h5py.h5d.open(file.id, name.encode()).get_offset()) for name in PLACES}
    try:
        # HDF5 1.14 clears the writer's mark in an image, but leaves the checksum of the superblock as it was.
        draft.write_bytes(sealed(image, len(image)) + image[SUPERBLOCK_BYTES:])
        publish(draft, path, overwrite=overwrite)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
    return places


@contextlib.contextmanager
def empty_file(structure: Structure, name: Path) -> Iterator[h5py.File]:
    """A file without states; made in memory, because HDF5 crashes at exit if it meets a full disk."""
    alignment = {"alignment_threshold": 64, "alignment_interval": 64}
    with h5py.File(name, "w", driver="core", backing_store=False, libver=LIBVER, **alignment) as file:
        _fill(file, structure)
        yield file


def publish(draft: Path, path: Path, *, overwrite: bool = False) -> None:
    """Give a finished file its name, which is taken only to be overwritten."""
    if overwrite:
        os.replace(draft, path)
        return
    try:
        try:
            os.link(draft, path)  # atomic, and never overwrites
        except FileExistsError:
            raise
        except (OSError, NotImplementedError, AttributeError):  # no hard links: claim the name, then replace the claim
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.replace(draft, path)
    except FileExistsError:
        raise FileExistsError(
            f"{path} exists and is not overwritten. Choose another path, mode='next' for the next free name, "
            "mode='w' to overwrite it, or resume=True to continue it."
        ) from None


def _fill(file: h5py.File, structure: Structure) -> None:
    # Below h5py's own objects, whose making takes longer than what HDF5 does.
    root, streams, tables = file.id, structure.axis.streams, structure.tables
    text = np.frombuffer(structure.pack(), "u1")
    h5py.h5g.create(root, b"store")
    _contiguous(root, "store/structure", text)
    made = {"step": _dataset(root, streams["step"])}
    scales = {"step": _scale(made["step"], "step")}
    for name in ("metric", "member_metric"):
        length = streams[f"{name}s"].shape[0]
        scales[name] = _scale(_contiguous(root, name, np.zeros(length, f"S{NAME_BYTES}")), name)
    scales["member"] = _scale(_contiguous(root, "member", text_array([m.name for m in tables["members"]])), "member")
    axes = {
        "metrics": ("step", "metric"),
        "member_metrics": ("step", "member_metric", "member"),
        "distances": ("step", "member"),
        "weights": ("step", "member", "entry"),
        "sketch": ("step", "member", "number"),
        "optimizer": ("step", "member", "optimizer_entry"),
        "buffers": ("step", "member", "buffers_entry"),
    }
    for stream in list(streams.values())[1:]:
        made[stream.name] = dataset = _dataset(root, stream)
        for at, name in enumerate(axes[stream.name]):
            if name not in scales:
                scales[name] = _dimension(root, name, stream.shape[-1])
            h5py.h5ds.attach_scale(dataset, scales[name], at)
    for table, rows in tables.items():
        if rows:
            _table(root, table, columns_of(TABLES[table], rows))
    for name, value in structure.texts.items():
        target, _, attribute = name.rpartition(".")
        set_text(made[target] if target else root, attribute, value)
    for stream in structure.planting_axis.streams.values():
        _dataset(root, stream)
    for axis in (structure.axis, structure.planting_axis):
        _dataset(root, axis[axis.sums])
    cells = Cells(status=INTERRUPTED, heartbeat=time.time_ns())
    _contiguous(root, "store/cells", np.frombuffer(cells.pack(), "<i8"))
    _contiguous(root, "store/notes", np.zeros((2, NOTES_BYTES), "u1"))
    _contiguous(root, "store/structure_copy", text)


def _dataset(root: h5py.h5f.FileID, stream: Stream) -> h5py.h5d.DatasetID:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((stream.rows, *stream.chunk))
    fill: Any = np.nan if stream.sparse else 0
    creation.set_fill_value(np.array(fill, stream.dtype))
    if stream.filters:
        creation.set_shuffle()
        if GZIP in stream.filters:
            creation.set_deflate(1)
        else:  # optional, so that the file can be made without a plugin; chunks are compressed here
            creation.set_filter(ZSTD, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple((0, *stream.shape), (h5py.h5s.UNLIMITED, *stream.shape))
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    kind = h5py.h5t.py_create(stream.dtype)
    return h5py.h5d.create(root, stream.name.encode(), kind, space, creation, lcpl=links)


def _contiguous(root: h5py.h5f.FileID, name: str, values: NDArray[Any]) -> h5py.h5d.DatasetID:
    kind = _text_type(max(2, values.dtype.itemsize)) if values.dtype.kind == "S" else h5py.h5t.py_create(values.dtype)
    dataset = h5py.h5d.create(root, name.encode(), kind, h5py.h5s.create_simple(values.shape))
    if values.dtype.kind == "S":
        # At least two bytes: netCDF4 reads text of one byte as characters.
        values = values.astype(f"S{max(2, values.dtype.itemsize)}")
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values), kind)
    return dataset


def _text_type(size: int) -> h5py.h5t.TypeStringID:
    """Text of fixed length, UTF-8."""
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(size)
    kind.set_strpad(h5py.h5t.STR_NULLPAD)
    kind.set_cset(h5py.h5t.CSET_UTF8)
    return kind


def _scale(dataset: h5py.h5d.DatasetID, name: str) -> h5py.h5d.DatasetID:
    h5py.h5ds.set_scale(dataset, name.encode())
    return dataset


def _dimension(root: h5py.h5f.FileID, name: str, length: int) -> h5py.h5d.DatasetID:
    """A netCDF dimension without values, which takes no room."""
    dataset = h5py.h5d.create(root, name.encode(), h5py.h5t.IEEE_F32BE, h5py.h5s.create_simple((length,)))
    return _scale(dataset, f"This is a netCDF dimension but not a netCDF variable.{length:10d}")


def _table(root: h5py.h5f.FileID, name: str, columns: Mapping[str, Any]) -> None:
    h5py.h5g.create(root, name.encode())
    row = _dimension(root, f"{name}/row", len(next(iter(columns.values()))))
    for column, values in columns.items():
        array = text_array(values) if isinstance(values, list) else values
        h5py.h5ds.attach_scale(_contiguous(root, f"{name}/{column}", array), row, 0)


def text_array(values: Sequence[str]) -> NDArray[np.bytes_]:
    """Text of fixed length, UTF-8."""
    for value in values:
        if "\0" in value:
            raise ArchitectureError(f"the name {value!r} holds a NUL character, which the file cannot store; rename it")
    return np.array([value.encode() for value in values], dtype=np.bytes_)


def _utf8(text: str) -> str:
    """A text without what is not UTF-8, such as the lone surrogates of a path."""
    return text.encode("utf-8", "backslashreplace").decode()


def set_text(target: Any, name: str, value: str) -> None:
    """Set a text attribute of an object of HDF5, of fixed length, so that its size is known before it is read."""
    data = value.encode()
    kind, encoded = _text_type(max(1, len(data))), name.encode()
    if h5py.h5a.exists(target, encoded):
        h5py.h5a.delete(target, encoded)
    attribute = h5py.h5a.create(target, encoded, kind, h5py.h5s.create(h5py.h5s.SCALAR))
    attribute.write(np.array(data, f"S{max(1, len(data))}"), kind)
