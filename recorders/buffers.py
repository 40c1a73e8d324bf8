"""Host buffers of whole blocks of states, laid out as the file's chunks, and the plan that copies a state into them.

A state goes from the user's arrays into its row of the tiles by strided assignments and nothing else: no flat copy of
the state is made on the way, and a full block is written chunk by chunk as it lies in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from recorders.adapter import Pending, Structure, widen


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


TILES = ("tiles", "optimizer_tiles")  # what of a block goes to the file as it lies in memory

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
    kept : dict of str to ndarray
        What is stored of the states: ``tiles``, ``distances`` or ``sketch``; ``optimizer_tiles`` beside tiles.
    places : list
        Where the arrays of a state, those of its buffers behind them, go in the tiles (see `CopyPlan.places`).
    pending : list
        Device copies under way: (row, Pending).
    metrics_changed : bool
        True where a metric arrived for a state that is already committed.
    """

    start: int
    step: np.ndarray
    kept: dict[str, np.ndarray]
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
        small = {name: array[:count].copy() for name, array in self.kept.items() if name not in TILES}
        tiles = {name: self.kept[name] for name in TILES if name in self.kept}
        metrics = {name: array[:count].copy() for name, array in self.metrics.items()}
        return {"step": self.step[:count].copy(), "metrics": metrics, **small, **tiles}
