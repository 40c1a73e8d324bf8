"""What is kept of a state: its weights, the distances of its twins, or a sketch; each knows how to fill a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from recorders.adapter import Measured, Structure, widen
from recorders.buffers import Block, CopyPlan, copy_state
from recorders.sketch import Sketch, Sketcher
from trajtools.errors import RecordingError
from trajtools.parameters import Member

METRICS = ("l1", "l2", "linf", "rms")
_ENTRIES = 2**16


class Storage(Protocol):
    """How one kind of run fills its blocks."""

    bytes_per_state: int

    def new_block(self, start: int) -> Block:
        """Make an empty block whose first state has index `start`."""
        ...

    def put(self, block: Block, row: int, arrays: Sequence[np.ndarray]) -> None:
        """Keep of one state what is to be kept."""
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
        tiles.fill(0)  # the system hands out the memory now, not at the first states
        return Block(start, np.zeros(self._layout.rows, np.int64), {"tiles": tiles}, self._plan.places(tiles))

    def put(self, block: Block, row: int, arrays: Sequence[np.ndarray]) -> None:
        """Copy the state into its row of the tiles."""
        copy_state(arrays, block.places, row)


class WithBuffers(Weights):
    """Every entry of the weights, and of the optimiser's buffers beside them."""

    def __init__(self, structure: Structure, layout: Any, buffers: Structure, buffer_layout: Any) -> None:
        super().__init__(structure, layout)
        self._beside = Weights(buffers, buffer_layout)
        self.bytes_per_state += self._beside.bytes_per_state

    def new_block(self, start: int) -> Block:
        """Make an empty block whose first state has index `start`."""
        block, beside = super().new_block(start), self._beside.new_block(start)
        block.kept["optimizer_tiles"] = beside.kept["tiles"]
        block.places += beside.places
        return block


class TwinDistances:
    """d(t) of every twin to its reference, float64; NaN for members without one."""

    def __init__(self, structure: Structure, members: Sequence[Member], metric: str, rows: int) -> None:
        if metric not in METRICS:
            raise RecordingError(
                f"metric={metric!r} cannot be measured while recording; it may be {', '.join(METRICS)}"
            )
        self._structure, self._metric, self._rows = structure, metric, rows
        self._twins = [i for i, member in enumerate(members) if member.reference >= 0]
        self._references = [members[i].reference for i in self._twins]
        if not self._twins:
            raise RecordingError(
                'store="distances" keeps the distance of each twin to its reference, and no member has a reference. '
                "Record [state, *perturb(state, ...)], or give members=[Member(..., reference=0), ...]"
            )
        self.bytes_per_state = 8 * structure.n_members

    def new_block(self, start: int) -> Block:
        """Make an empty block whose first state has index `start`."""
        kept = {"distances": np.full((self._rows, self._structure.n_members), np.nan)}
        return Block(start, np.zeros(self._rows, np.int64), kept)

    def put(self, block: Block, row: int, arrays: Sequence[np.ndarray]) -> None:
        """Measure the state, unless it has been measured."""
        block.kept["distances"][row] = arrays[0] if isinstance(arrays, Measured) else self.measure(arrays)

    def measure(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Distances of one state, (M,) float64, NaN for members without a reference."""
        total = np.zeros(len(self._twins))
        n = len(self._structure.names)
        for q in range(n):
            if self._structure.stacked:
                stack = self._flat(arrays[q], q).reshape(self._structure.n_members, -1)
                pairs = [(stack[self._twins], stack[self._references])]
                places: list[slice] = [slice(None)]
            else:
                pairs = [
                    (self._flat(arrays[a * n + q], q)[None], self._flat(arrays[b * n + q], q)[None])
                    for a, b in zip(self._twins, self._references, strict=True)
                ]
                places = [slice(i, i + 1) for i in range(len(pairs))]
            for place, (a, b) in zip(places, pairs, strict=True):
                total[place] = self._add(total[place], a, b)
        out = np.full(self._structure.n_members, np.nan)
        if self._metric in ("l2", "rms"):
            total = np.sqrt(total / (self._structure.n_entries if self._metric == "rms" else 1))
        out[self._twins] = total
        return out

    def _flat(self, array: np.ndarray, q: int) -> np.ndarray:
        dtype = self._structure.dtypes[q]
        return widen(array, dtype, "float32" if dtype == "bfloat16" else dtype).reshape(-1)

    def _add(self, total: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        step = max(1, _ENTRIES // len(a))
        for at in range(0, a.shape[1], step):
            gap = np.abs(a[:, at : at + step].astype(np.float64) - b[:, at : at + step])
            if self._metric == "linf":
                total = np.maximum(total, gap.max(axis=1))
            else:
                total = total + (gap if self._metric == "l1" else gap * gap).sum(axis=1)
        return total


class Sketches:
    """A linear sketch of every member, (M, k) float64."""

    def __init__(self, structure: Structure, sketch: Sketch, rows: int) -> None:
        self._structure, self._sketcher, self._rows = structure, Sketcher(sketch, structure.n_entries), rows
        self._k = sketch.k
        self.bytes_per_state = 8 * structure.n_members * sketch.k

    def new_block(self, start: int) -> Block:
        """Make an empty block whose first state has index `start`."""
        kept = {"sketch": np.zeros((self._rows, self._structure.n_members, self._k))}
        return Block(start, np.zeros(self._rows, np.int64), kept)

    def put(self, block: Block, row: int, arrays: Sequence[np.ndarray]) -> None:
        """Sketch the state."""
        out = block.kept["sketch"][row]
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
