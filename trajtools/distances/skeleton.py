"""What all states of one network share as graphs: where the weights of every layer stand between the nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, TooLargeError
from trajtools.parameters import NodeSet, Parameter
from trajtools.types import Floats, Ints

MAX_NODES = 20_000
"""Networks with more nodes have no dense matrix between their nodes here: one would take over 3 GB."""


@dataclass(frozen=True)
class Edges:
    """The edges of one parameter: a block between two node sets.

    Attributes
    ----------
    name : str
        The parameter.
    offset, size : int
        Its entries in the state.
    shape : tuple of int
        Shape of the parameter.
    axes : tuple of int
        Axes over the source and the target nodes; the source axis of a bias is -1.
    source, target : slice
        The nodes it connects.
    ends : tuple of str
        The node sets that these are.
    """

    name: str
    offset: int
    size: int
    shape: tuple[int, ...]
    axes: tuple[int, int]
    source: slice
    target: slice
    ends: tuple[str, str]

    def of(self, states: Floats) -> Floats:
        """Return the weights (n, positions, source, target) of states (n, P); a view where the order allows it."""
        block = states[:, self.offset : self.offset + self.size].reshape(len(states), *self.shape)
        source, target = self.axes
        if source < 0:
            return np.moveaxis(block, target + 1, -1).reshape(len(states), -1, 1, self.shape[target])
        block = np.moveaxis(block, (source + 1, target + 1), (-2, -1))
        return block.reshape(len(states), -1, *block.shape[-2:])

    def summed(self, states: Floats) -> Floats:
        """Return the weights (n, source, target) with parallel edges, the positions of a convolution, added."""
        block = self.of(states)
        return block[:, 0] if block.shape[1] == 1 else block.sum(axis=1)


class Skeleton:
    """Nodes and edges of a network, without the weights."""

    def __init__(self, parameters: Sequence[Parameter], nodes: Sequence[NodeSet]) -> None:
        if not parameters:
            raise DataError(
                "this metric compares networks and needs to know which weight is which edge: give a Trajectory that "
                "has a table of parameters (of a recorded run, or `Trajectory.from_array(x, parameters=, nodes=)` "
                "with the tables of `trajtools.parameters.describe`), or use an entrywise metric such as 'l1'"
            )
        from trajtools.networks import Network

        self.size = sum(p.size for p in parameters)
        network = Network(np.zeros(self.size), parameters, nodes)  # refuses tables that do not fit
        starts = np.cumsum([0, *(n.size for n in nodes)]).tolist()
        self.spans = {n.name: slice(start, start + n.size) for n, start in zip(nodes, starts, strict=False)}
        self.n_nodes = network.n_nodes
        self.edges = tuple(
            Edges(
                p.name,
                p.offset,
                p.size,
                p.shape,
                (p.source_axis, p.target_axis),
                self.spans[str(p.source)],
                self.spans[str(p.target)],
                (str(p.source), str(p.target)),
            )
            for p in network.edge_parameters
        )

    @cached_property
    def sides(self) -> tuple[Ints, Ints, bool]:
        """Two parts of the nodes, the first without an edge inside, and whether the second has none either.

        A layered network without skips is bipartite between its even and its odd layers; one node that every layer
        is connected to, such as that of the biases, spoils it, and goes to the second part.
        """
        inside = [edges for edges in self.edges if set(edges.ends) <= set(self._columns)]
        return self._indices(self._rows), self._indices(self._columns), not inside

    def symmetric(self, state: Floats) -> Floats:
        """Return the matrix (N, N) of the weights w(i, j) + w(j, i) of a state (P,)."""
        self.check_dense()
        matrix = np.zeros((self.n_nodes, self.n_nodes))
        for edges in self.edges:
            block = edges.summed(state[None])[0]
            matrix[edges.source, edges.target] += block
            matrix[edges.target, edges.source] += block.T
        return matrix

    def between_sides(self, state: Floats) -> Floats:
        """Return the block of `symmetric` between the first and the second part of `sides`."""
        self.check_dense()
        first, second, _ = self.sides
        matrix = np.zeros((len(first), len(second)))
        for edges in self.edges:
            source, target = edges.ends
            if source in self._rows and target in self._columns:
                matrix[self._rows[source], self._columns[target]] += edges.summed(state[None])[0]
            elif target in self._rows and source in self._columns:
                matrix[self._rows[target], self._columns[source]] += edges.summed(state[None])[0].T
        return matrix

    def check_dense(self) -> None:
        """Refuse a matrix between more nodes than fit."""
        if self.n_nodes > MAX_NODES:
            raise TooLargeError(
                f"the network has {self.n_nodes} nodes, and this metric needs a dense matrix between them (at most "
                f"{MAX_NODES}); select layers first (trajectory.select(...)), or use 'singular-values', 'strengths' or "
                "an entrywise metric"
            )

    @cached_property
    def _rows(self) -> dict[str, slice]:
        chosen = self._coloured() or self._independent()
        return self._packed([name for name in self.spans if name in chosen])

    @cached_property
    def _columns(self) -> dict[str, slice]:
        return self._packed([name for name in self.spans if name not in self._rows])

    def _packed(self, names: Sequence[str]) -> dict[str, slice]:
        packed, start = {}, 0
        for name in names:
            packed[name] = slice(start, start + self._count([name]))
            start = packed[name].stop
        return packed

    def _neighbors(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {name: set() for name in self.spans}
        for edges in self.edges:
            for one, other in (edges.ends, edges.ends[::-1]):
                found[one].add(other)
        return found

    def _coloured(self) -> list[str]:
        """Names of one colour if two colours suffice, of every component the larger one; else nothing."""
        neighbors, colour, chosen = self._neighbors(), dict[str, int](), list[str]()
        for start in self.spans:
            if start in colour:
                continue
            colour[start], component = 0, [start]
            for name in component:  # grows while it is walked through
                for other in sorted(neighbors[name]):
                    if other not in colour:
                        colour[other] = 1 - colour[name]
                        component.append(other)
                    elif colour[other] == colour[name]:
                        return []
            halves = [[n for n in component if colour[n] == c] for c in (0, 1)]
            chosen += max(halves, key=self._count)
        return chosen

    def _independent(self) -> list[str]:
        """Names of node sets without an edge between them, the largest ones first."""
        neighbors, chosen = self._neighbors(), list[str]()
        for name in sorted(self.spans, key=lambda n: -self._count([n])):
            if name not in neighbors[name] and not neighbors[name] & set(chosen):
                chosen.append(name)
        return chosen

    def _count(self, names: Iterable[str]) -> int:
        return sum(self.spans[n].stop - self.spans[n].start for n in names)

    def _indices(self, names: Iterable[str]) -> Ints:
        spans = [np.arange(self.spans[n].start, self.spans[n].stop) for n in names]
        return np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)


def finite_rows(states: Any) -> NDArray[np.bool_]:
    """Whether every weight of each state (n, P) is finite."""
    finite: NDArray[np.bool_] = np.isfinite(states).all(axis=1)
    return finite


def subsets(size: int, width: int, most: int) -> Iterator[slice]:
    """Cut `size` rows of `width` entries into slices of at most `most` entries, at least one row each."""
    rows = max(1, most // max(1, width))
    for start in range(0, size, rows):
        yield slice(start, min(start + rows, size))
