"""The place of one rank's file in the whole network, for models that are sharded over processes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import FormatError
from trajtools.store.layout import check_parameters, columns_of, from_json, rows_from, to_json
from trajtools.wiring import NodeSet, Parameter

Entries = slice | NDArray[np.int64]


@dataclass(frozen=True)
class Box:
    """A rectangular part of an array.

    Attributes
    ----------
    start : tuple of int
        Its first entry along each axis.
    shape : tuple of int
        Its number of entries along each axis.
    """

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)


@dataclass(frozen=True)
class Place:
    """Which entries of the whole state, or of all buffers of the optimiser, a file holds.

    Attributes
    ----------
    parameters : tuple of Parameter
        The table of the whole.
    boxes : tuple of tuple of Box
        For each of them the parts that are in the file, one after another, each in C order; none where it is elsewhere.
    """

    parameters: tuple[Parameter, ...]
    boxes: tuple[tuple[Box, ...], ...]

    @property
    def sizes(self) -> list[int]:
        """Entries of each parameter that are in the file."""
        return [sum(box.size for box in boxes) for boxes in self.boxes]

    @cached_property
    def pieces(self) -> list[Piece]:
        """Every box, with its place in the file and in the whole."""
        found, at = [], 0
        for parameter, boxes in zip(self.parameters, self.boxes, strict=True):
            for box in boxes:
                found.append(Piece(at, parameter.offset, parameter.shape, box))
                at += box.size
        return found

    def entries(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the indices in the whole of the entries `start` .. `stop` of the file."""
        parts = [
            piece.whole(max(start, piece.at) - piece.at, min(stop, piece.end) - piece.at)
            for piece in self.pieces
            if piece.at < stop and piece.end > start
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def cut(self, columns: Entries) -> list[tuple[Entries, Entries]]:
        """Return what the file holds of some entries of the whole: pairs (in the file, among `columns`)."""
        found = [piece.cut(columns) for piece in self.pieces]
        return [one for one in found if one is not None]

    def to_columns(self) -> dict[str, Any]:
        """As the file keeps it."""
        boxes = [[[list(box.start), list(box.shape)] for box in each] for each in self.boxes]
        return {**columns_of(Parameter, self.parameters), "boxes": boxes}

    @classmethod
    def from_columns(cls, columns: Any, where: str) -> Place:
        """Read it back, from a file that may come from a stranger."""
        if not isinstance(columns, dict) or not all(isinstance(column, list) for column in columns.values()):
            raise FormatError(f"{where} must be a table")
        try:
            parameters = rows_from(Parameter, columns)
            check_parameters(parameters)
            boxes = tuple(tuple(Box(*map(_sizes, one)) for one in each) for each in columns["boxes"])
            if len(boxes) != len(parameters):
                raise ValueError("there must be a list of boxes for each parameter")
            for parameter, each in zip(parameters, boxes, strict=True):
                for box in each:
                    ends = [a + n for a, n in zip(box.start, box.shape, strict=True)]
                    if len(ends) != len(parameter.shape) or any(
                        b > n for b, n in zip(ends, parameter.shape, strict=True)
                    ):
                        raise ValueError(f"a box of {parameter.name!r} lies outside of it")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FormatError(f"{where} is wrong: {error}") from error
        return cls(parameters, boxes)


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(isinstance(n, int) and 0 <= n < 2**62 for n in values):
        raise ValueError(f"{values!r:.60} is no list of sizes")
    return tuple(values)


@dataclass(frozen=True)
class Piece:
    """One box: its first entry in the file, the offset and the shape of its array in the whole, and the box."""

    at: int
    offset: int
    shape: tuple[int, ...]
    box: Box

    @property
    def end(self) -> int:
        """Behind its last entry in the file."""
        return self.at + self.box.size

    @cached_property
    def _stride(self) -> int | None:
        """First entry in the array, if the box is one stretch of it; None: it is not."""
        if self.box.shape[1:] != self.shape[1:]:
            return None
        return self.box.start[0] * prod(self.shape[1:]) if self.shape else 0

    def whole(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the indices in the whole of the entries `first` .. `last` of the box."""
        entries = np.arange(first, last)
        if self._stride is not None:
            return entries + (self.offset + self._stride)
        place = np.unravel_index(entries, self.box.shape)
        shifted = tuple(axis + start for axis, start in zip(place, self.box.start, strict=True))
        return np.ravel_multi_index(shifted, self.shape) + self.offset

    def cut(self, columns: Entries) -> tuple[Entries, Entries] | None:
        """Return the entries of the box among `columns` of the whole, and their places there; None: it has none."""
        if isinstance(columns, slice):
            first, last = self._before(columns.start), self._before(columns.stop)
            if first >= last:
                return None
            inside = slice(self.at + first, self.at + last)
            if self._stride is None:
                return inside, self.whole(first, last) - columns.start
            begin = self.offset + self._stride + first - columns.start
            return inside, slice(begin, begin + last - first)
        chosen = columns - self.offset
        mine = np.flatnonzero((chosen >= 0) & (chosen < prod(self.shape)))
        if not len(mine):
            return None
        axes = np.unravel_index(chosen[mine], self.shape) if self.shape else ()
        local = [np.asarray(axis) - start for axis, start in zip(axes, self.box.start, strict=True)]
        held = np.ones(len(mine), bool)
        for axis, size in zip(local, self.box.shape, strict=True):
            held &= (axis >= 0) & (axis < size)
        if not held.any():
            return None
        there = tuple(axis[held] for axis in local)
        flat = np.ravel_multi_index(there, self.box.shape) if there else np.zeros(int(held.sum()), np.int64)
        return np.asarray(flat + self.at, np.int64), mine[held]

    def _before(self, column: int) -> int:
        """Count the entries of the box that stand before an entry of the whole."""
        if self._stride is not None:
            return min(max(column - self.offset - self._stride, 0), self.box.size)
        # C order keeps the order of the entries.
        return bisect_left(range(self.box.size), column, key=lambda i: int(self.whole(i, i + 1)[0]))


@dataclass(frozen=True)
class Shard:
    """What the file of one rank says of the whole.

    Attributes
    ----------
    rank : int
        Rank of the process that wrote the file.
    ranks : tuple of int
        The ranks of all files of the run, in rising order; ranks that hold copies only write none.
    mesh : dict of str to int
        Axes of the mesh of processes.
    weights : Place
        Which entries of the state it holds.
    nodes : tuple of NodeSet
        Node sets of the whole network.
    optimizer : Place or None
        Which entries of the optimiser's buffers.
    """

    rank: int
    ranks: tuple[int, ...]
    mesh: Mapping[str, int]
    weights: Place
    nodes: tuple[NodeSet, ...] = ()
    optimizer: Place | None = None

    def to_text(self) -> str:
        """As the root attribute ``shard`` keeps it."""
        return to_json(
            {
                "rank": self.rank,
                "ranks": self.ranks,
                "mesh": dict(self.mesh),
                "weights": self.weights.to_columns(),
                "nodes": columns_of(NodeSet, self.nodes),
                **({"optimizer": self.optimizer.to_columns()} if self.optimizer else {}),
            }
        )

    @classmethod
    def from_text(cls, text: str, where: str) -> Shard:
        """Read it back, from a file that may come from a stranger."""
        value = from_json(text, f"{where}: shard")
        rank, ranks, mesh, nodes = (value.get(name) for name in ("rank", "ranks", "mesh", "nodes"))
        if not (
            isinstance(rank, int)
            and isinstance(ranks, list)
            and all(isinstance(one, int) for one in ranks)
            and sorted(set(ranks)) == ranks
            and rank in ranks
            and isinstance(mesh, dict)
            and isinstance(nodes, dict)
        ):
            raise FormatError(f"{where}: the attribute 'shard' needs a rank, the rising ranks of all files and a mesh")
        optimizer = value.get("optimizer")
        return cls(
            rank,
            tuple(ranks),
            mesh,
            Place.from_columns(value.get("weights"), f"{where}: shard, weights"),
            rows_from(NodeSet, nodes),
            None if optimizer is None else Place.from_columns(optimizer, f"{where}: shard, optimizer"),
        )

    def check(self, parameters: Sequence[Parameter], optimizer: Sequence[Parameter], where: str) -> None:
        """Check that the tables of the file are those parts of the whole."""
        pairs = [(self.weights, parameters), *([(self.optimizer, optimizer)] if self.optimizer else [])]
        for place, table in pairs:
            named = [(p.name, size) for p, size in zip(place.parameters, place.sizes, strict=True)]
            if named != [(p.name, p.size) for p in table]:
                raise FormatError(f"{where}: the attribute 'shard' and the table of parameters contradict each other")
