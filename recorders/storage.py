"""Storage modes of a state: every weight, the distance of each twin to its reference, or a sketch.

Each kind fills blocks of states in host memory, laid out as the file's chunks. A state goes from the user's arrays into
its row by strided assignments, without a flat copy on the way, and a full block is written chunk by chunk as it lies.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import numpy as np

from recorders.adapter import Measured, Pending, Structure, widen
from trajtools.errors import RecordingError
from trajtools.wiring import Member

METRICS = ("l1", "l2", "linf", "rms")
TILES = ("weights", "optimizer", "buffers")  # what of a block goes to the file as it lies in memory
_ENTRIES = 2**16
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_BLOCK = 2**16
_CACHED = 2**27
_PAGE = 4096  # bytes that the system hands out at once, at least


@dataclass(frozen=True)
class Sketch:
    r"""Size and seed of a count sketch.

    Attributes
    ----------
    k : int
        Numbers kept of each network, at least 1.
    seed : int
        Chooses the sketch, 0 <= seed < 2**64; runs are comparable only with the same k and seed.

    Notes
    -----
    .. math:: y_b = \sum_{i : b_i = b} s_i x_i, \quad h_i = m(m(\text{seed}) + (i + 1) g \bmod 2^{64}),
        \quad b_i = \lfloor h_i / 2 \rfloor \bmod k, \quad s_i = 1 - 2 (h_i \bmod 2)

    with m the finaliser of splitmix64 and g = 0x9E3779B97F4A7C15. The sketch is linear, and over seeds
    ``E |Sx|² = |x|²`` with variance at most ``2 |x|⁴ / k``, so the l2 distance of two states is kept within about
    1 / sqrt(2k) of itself; other distances are not.

    References
    ----------
    M. Charikar, K. Chen, M. Farach-Colton, Theor. Comput. Sci. 312, 3 (2004), doi:10.1016/S0304-3975(03)00400-6

    Examples
    --------
    >>> from recorders import Sketch
    >>> Sketch(1000).k
    1000
    """

    k: int
    seed: int = 0

    def __post_init__(self) -> None:
        if operator.index(self.k) < 1:
            raise RecordingError(f"Sketch(k={self.k}): a sketch needs at least one number")
        if not 0 <= operator.index(self.seed) <= _MASK:
            raise RecordingError(f"Sketch(seed={self.seed}): the seed must lie in 0 .. 2**64 - 1")

    @property
    def settings(self) -> dict[str, int | str]:
        """All that is needed to recompute the sketch, as the file keeps it."""
        return {"kind": "count", "hash": "splitmix64", "k": self.k, "seed": self.seed}

    def places(self, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place and sign of entries of the state.

        Parameters
        ----------
        entries : ndarray of int64, (n,)
            Their indices i.

        Returns
        -------
        place : ndarray of int64, (n,)
            b_i, in 0 .. k - 1.
        sign : ndarray of int8, (n,)
            s_i, -1 or 1.
        """
        packed = self._packed(entries)
        return (packed >> 1).astype(np.int64), (1 - 2 * (packed & 1).astype(np.int8)).astype(np.int8)

    def _packed(self, entries: np.ndarray) -> np.ndarray:
        """Places and, in the lowest bit, signs of entries of the state."""
        # Imported here: numba is slow to import, and only a sketch needs it.
        from trajtools._kernels.sketch import place_entries

        key = _mix(np.array([self.seed], dtype=np.uint64))[0]
        packed = np.empty(len(entries), np.uint32 if self.k <= 2**31 else np.uint64)
        place_entries(entries.astype(np.int64, copy=False), key, self.k, packed)
        return packed

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The sketch of states.

        Parameters
        ----------
        x : ndarray, (..., P)
            States; bfloat16 as float32.

        Returns
        -------
        ndarray of float64, (..., k)
            Their sketches.
        """
        states = np.asarray(x)
        out = np.zeros((*states.shape[:-1], self.k))
        sketcher = Sketcher(self, states.shape[-1])
        for place in np.ndindex(states.shape[:-1]):
            sketcher.add(states[place], 0, out[place])
        return out


def _mix(z: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 on an array of uint64, in place."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


class Storage(Protocol):
    """How one kind of run fills its blocks."""

    bytes_per_state: int

    def new_block(self, start: int) -> Block:
        """Make an empty block whose first state has index `start`."""
        ...

    def put(self, block: Block, row: int, arrays: Sequence[np.ndarray]) -> None:
        """Store one state."""
        ...


class Weights:
    """Every entry, in the native dtype."""

    def __init__(self, structure: Structure, layout: Any) -> None:
        self._layout = layout
        self._plan = CopyPlan(structure, layout.columns)
        self.bytes_per_state: int = layout.block_bytes // layout.rows

    def new_block(self, start: int) -> Block:
        """Make an empty block whose first state has index `start`."""
        tiles = self._layout.new_tiles()
        tiles.reshape(-1).view(np.uint8)[::_PAGE] = 0  # the system hands out the memory now, not at the first states
        return Block(start, np.zeros(self._layout.rows, np.int64), {"weights": tiles}, self._plan.places(tiles))

    def put(self, block: Block, row: int, arrays: Sequence[np.ndarray]) -> None:
        """Copy the state into its row of the tiles."""
        copy_state(arrays, block.places, row)


class WithBuffers(Weights):
    """Every entry of the weights, and of the buffers of the optimiser and of the network beside them.

    `beside`: name of the tiles -> structure and layout, in the order of `TILES`.
    """

    def __init__(self, structure: Structure, layout: Any, beside: Mapping[str, tuple[Structure, Any]]) -> None:
        super().__init__(structure, layout)
        self._beside = {name: Weights(*one) for name, one in beside.items()}
        self.bytes_per_state += sum(one.bytes_per_state for one in self._beside.values())

    def new_block(self, start: int) -> Block:
        """Make an empty block whose first state has index `start`."""
        block = super().new_block(start)
        for name, one in self._beside.items():
            other = one.new_block(start)
            block.stored[name] = other.stored["weights"]
            block.places += other.places
        return block


class TwinDistances:
    """d(t) of every twin to its reference, float64; NaN for members without one."""

    def __init__(self, structure: Structure, members: Sequence[Member], metric: str, rows: int) -> None:
        if metric not in METRICS:
            raise RecordingError(
                f"metric={metric!r} cannot be measured while recording; it must be one of {', '.join(METRICS)}"
            )
        self._structure, self._metric, self._rows = structure, metric, rows
        self._twins = [i for i, member in enumerate(members) if member.reference >= 0]
        self._references = [members[i].reference for i in self._twins]
        if not self._twins:
            raise RecordingError(
                'store="distances" stores the distance of each twin to its reference, and no member has a reference. '
                "Record [state, *perturb(state, ...)], or pass members=[Member(..., reference=0), ...]"
            )
        self.bytes_per_state = 8 * structure.n_members

    def new_block(self, start: int) -> Block:
        """Make an empty block whose first state has index `start`."""
        stored = {"distances": np.full((self._rows, self._structure.n_members), np.nan)}
        return Block(start, np.zeros(self._rows, np.int64), stored)

    def put(self, block: Block, row: int, arrays: Sequence[np.ndarray]) -> None:
        """Measure the state, unless it has been measured."""
        block.stored["distances"][row] = arrays[0] if isinstance(arrays, Measured) else self.measure(arrays)

    def measure(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Distances of one state, (M,) float64, NaN for members without a reference."""
        total = np.zeros(len(self._twins))
        n = len(self._structure.names)
        for q in range(n):
            if self._structure.stacked:
                stack = self._flat(arrays[q], q).reshape(self._structure.n_members, -1)
                total = self._add(total, stack, self._twins, self._references)
                continue
            for i, (a, b) in enumerate(zip(self._twins, self._references, strict=True)):
                pair = [self._flat(arrays[member * n + q], q) for member in (a, b)]
                total[i : i + 1] = self._add(total[i : i + 1], pair, [0], [1])
        out = np.full(self._structure.n_members, np.nan)
        if self._metric in ("l2", "rms"):
            total = np.sqrt(total / (self._structure.n_entries if self._metric == "rms" else 1))
        out[self._twins] = total
        return out

    def _flat(self, array: np.ndarray, q: int) -> np.ndarray:
        dtype = self._structure.dtypes[q]
        return widen(array, dtype, "float32" if dtype == "bfloat16" else dtype).reshape(-1)

    def _add(self, total: np.ndarray, rows: Any, twins: list[int], references: list[int]) -> np.ndarray:
        """Add the differences of some of these rows, a stretch at a time, so that no copy of a state is made."""
        step = max(1, _ENTRIES // len(twins))
        for at in range(0, len(rows[0]), step):
            a, b = (np.stack([rows[i][at : at + step] for i in chosen]) for chosen in (twins, references))
            gap = np.abs(a.astype(np.float64) - b)
            if self._metric == "linf":
                total = np.maximum(total, gap.max(axis=1))
            else:
                total = total + (gap if self._metric == "l1" else gap * gap).sum(axis=1)
        return total


class Sketches:
    """A linear sketch of every member, (M, k) float64."""

    def __init__(
        self,
        structure: Structure,
        sketch: Sketch,
        rows: int,
        entries: Callable[[int, int], np.ndarray] = np.arange,
    ) -> None:
        self._structure, self._rows = structure, rows
        self._sketcher = Sketcher(sketch, structure.n_entries, entries)
        self._k = sketch.k
        self.bytes_per_state = 8 * structure.n_members * sketch.k

    def new_block(self, start: int) -> Block:
        """Make an empty block whose first state has index `start`."""
        stored = {"sketch": np.zeros((self._rows, self._structure.n_members, self._k))}
        return Block(start, np.zeros(self._rows, np.int64), stored)

    def put(self, block: Block, row: int, arrays: Sequence[np.ndarray]) -> None:
        """Sketch the state."""
        out = block.stored["sketch"][row]
        out[:] = 0
        n = len(self._structure.names)
        for member in range(self._structure.n_members):
            offset = 0
            for q in range(n):
                array = arrays[q][member] if self._structure.stacked else arrays[member * n + q]
                dtype = self._structure.dtypes[q]
                flat = widen(array, dtype, "float32" if dtype == "bfloat16" else dtype).reshape(-1)
                self._sketcher.add(flat, offset, out[member])
                offset += flat.size


class Sketcher:
    """Adds stretches of a state to its sketch; keeps the places of states up to 2**27 entries (4 bytes each).

    `entries(start, stop)` are the indices in the whole network, of which a state may be a shard.
    """

    def __init__(self, sketch: Sketch, n_entries: int, entries: Callable[[int, int], np.ndarray] = np.arange) -> None:
        from trajtools._kernels.sketch import add_placed

        self._sketch, self._entries, self._add = sketch, entries, add_placed
        self._packed = None
        if n_entries <= _CACHED:
            cuts = range(0, n_entries, _BLOCK)
            parts = [sketch._packed(entries(at, min(at + _BLOCK, n_entries))) for at in cuts]
            self._packed = np.concatenate(parts) if parts else np.empty(0, np.uint32)

    def add(self, flat: np.ndarray, offset: int, out: np.ndarray) -> None:
        """Add the entries `offset` .. `offset` + len(flat) of a state to `out` (k,), float64."""
        if self._packed is not None:
            self._add(flat, self._packed[offset : offset + flat.size], out)
            return
        for at in range(0, flat.size, _BLOCK):
            part = flat[at : at + _BLOCK]
            self._add(part, self._sketch._packed(self._entries(offset + at, offset + at + part.size)), out)


@dataclass
class Block:
    """Up to `rows` consecutive stored states on their way to the file.

    Attributes
    ----------
    start : int
        Index of the first state in the run.
    count : int
        States captured so far.
    written : int
        States of this block that are committed in the file.
    step : ndarray (rows,), int64
        Step of each state.
    metrics : dict of str to ndarray (rows, ...)
        Float64, NaN where nothing was given.
    stored : dict of str to ndarray
        What is stored of the states, by stream: ``weights``, ``distances`` or ``sketch``; ``optimizer`` and ``buffers``
        beside weights.
    places : list
        Where the arrays of a state, those of its buffers behind them, go in the tiles (see `CopyPlan.places`).
    pending : list
        Device copies under way: (row, Pending).
    metrics_changed : bool
        True where a metric arrived for a state that is already committed.
    """

    start: int
    step: np.ndarray
    stored: dict[str, np.ndarray]
    places: list[Place] = field(default_factory=list)
    metrics: dict[str, np.ndarray] = field(default_factory=dict)
    count: int = 0
    written: int = 0
    pending: list[tuple[int, Pending]] = field(default_factory=list)
    metrics_changed: bool = False

    @property
    def rows(self) -> int:
        """How many states fit."""
        return len(self.step)

    def payload(self, count: int) -> dict[str, Any]:
        """The first `count` states as arguments of `RunWriter.write`: small arrays copied, tiles as they are."""
        small = {name: array[:count].copy() for name, array in self.stored.items() if name not in TILES}
        tiles = {name: self.stored[name] for name in TILES if name in self.stored}
        metrics = {name: array[:count].copy() for name, array in self.metrics.items()}
        return {"step": self.step[:count].copy(), "metrics": metrics, **small, **tiles}


Stretch = tuple[np.ndarray, Any, tuple[int, ...] | None]
Place = tuple[tuple[str, str] | None, tuple[int, ...], list[Stretch]]


class CopyPlan:
    """Where every array of a state goes in the tiles (M, n_column_chunks, rows, columns)."""

    def __init__(self, structure: Structure, width: int) -> None:
        self._parts: list[tuple[tuple[str, str] | None, tuple[int, ...], list[Segment]]] = []
        members: list[int | slice] = [slice(None)] if structure.stacked else list(range(structure.n_members))
        lead = (structure.n_members,) if structure.stacked else ()
        for member in members:
            offset = 0
            for shape, dtype in zip(structure.shapes, structure.dtypes, strict=True):
                size = prod(shape)
                bits = (dtype, structure.dtype) if dtype == "bfloat16" else None
                self._parts.append((bits, (*lead, size), _cuts(offset, size, width, member, lead)))
                offset += size

    def places(self, tiles: np.ndarray) -> list[Place]:
        """Where the arrays of a state go in `tiles`, in their order."""
        return [(bits, flat, [_stretch(tiles, cut, flat) for cut in cuts]) for bits, flat, cuts in self._parts]


@dataclass(frozen=True)
class Segment:
    """A stretch of one array that fits into the tiles by one assignment.

    Attributes
    ----------
    members : int or slice
        Which members of the tiles.
    chunks : int or slice
        Which column chunks.
    columns : slice
        Which columns inside the chunks.
    entries : slice
        Which entries of the flattened array.
    shape : tuple of int
        Shape of the stretch: ([M,] [chunks,] columns).
    """

    members: int | slice
    chunks: int | slice
    columns: slice
    entries: slice
    shape: tuple[int, ...]


def _cuts(offset: int, size: int, width: int, members: int | slice, lead: tuple[int, ...]) -> list[Segment]:
    """Cut `size` entries at `offset` of the state: the rest of a chunk, whole chunks in one piece, a last beginning."""
    pieces = []
    at, end = offset, offset + size
    while at < end:
        chunk, column = divmod(at, width)
        entries_from = at - offset
        if column == 0 and end - at >= width:
            n = (end - at) // width
            at += n * width
            shape = (*lead, n, width)
            piece = Segment(members, slice(chunk, chunk + n), slice(0, width), slice(entries_from, at - offset), shape)
        else:
            n = min(end - at, width - column)
            at += n
            where = slice(column, column + n)
            piece = Segment(members, chunk, where, slice(entries_from, at - offset), (*lead, n))
        pieces.append(piece)
    return pieces


def _stretch(tiles: np.ndarray, cut: Segment, flat: tuple[int, ...]) -> Stretch:
    view = np.moveaxis(tiles[cut.members, cut.chunks, :, cut.columns], -2, 0)
    whole = cut.entries == slice(0, flat[-1])
    stacked = isinstance(cut.members, slice)
    index = None if whole else (slice(None), cut.entries) if stacked else cut.entries
    return view, index, None if len(cut.shape) == len(flat) else cut.shape


def copy_state(arrays: Sequence[np.ndarray], places: list[Place], row: int) -> None:
    """Copy one state into its row of a block."""
    # Every microsecond here is one of the training's.
    for array, (bits, flat_shape, stretches) in zip(arrays, places, strict=True):
        flat = (array if bits is None else widen(array, *bits)).reshape(flat_shape)
        for place, index, shape in stretches:
            part = flat if index is None else flat[index]
            place[row] = part if shape is None else part.reshape(shape)
