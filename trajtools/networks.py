"""One state as a graph: blocks between layers, adjacency, node strengths, networkx graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from trajtools.errors import DataError, TooLargeError, UnknownNameError
from trajtools.types import Floats
from trajtools.values import read_array
from trajtools.wiring import NodeSet, Parameter

if TYPE_CHECKING:
    import networkx

STRENGTHS = ("signed", "absolute", "positive", "negative")


class Network:
    """Weighted directed multigraph of one state.

    Parameters
    ----------
    state : array_like, shape (P,)
        Entries of the state; NaN and infinity are valid weights.
    parameters : sequence of Parameter
        Edge of each entry; parameters without source and target are not edges.
    nodes : sequence of NodeSet
        Node sets; their order is the order of the nodes.

    Raises
    ------
    DataError
        If state, parameters and nodes do not match, or no parameter is an edge.

    Examples
    --------
    >>> from trajtools.wiring import describe
    >>> table, nodes = describe({"w": ((2, 1), "float64"), "b": ((1,), "float64")})
    >>> network = Network([0.5, -2.0, 1.0], table, nodes)
    >>> network.n_nodes, network.n_edges
    (4, 3)
    >>> network.strengths().incoming.tolist()          # input 0, input 1, the unit, the bias node
    [0.0, 0.0, -0.5, 0.0]
    """

    def __init__(self, state: ArrayLike, parameters: Sequence[Parameter], nodes: Sequence[NodeSet]) -> None:
        entries = read_array(state, "the state").astype(np.float64, copy=False)
        described = sum(p.size for p in parameters)
        if entries.shape != (described,):
            raise DataError(f"the parameters describe a state of shape ({described},); this one has {entries.shape}")
        self._state = entries
        self._nodes = tuple(nodes)
        self._edges = tuple(p for p in parameters if p.source is not None and p.target is not None)
        if not self._edges:
            raise DataError(
                "no parameter of this state is an edge of the graph; define edges when recording, with "
                "wiring={name: (source, target)}, or select dense, convolution or bias parameters"
            )
        starts = np.cumsum([0, *(n.size for n in self._nodes)])
        self._first = {n.name: int(start) for n, start in zip(self._nodes, starts[:-1], strict=True)}
        self._n_nodes = int(starts[-1])
        sizes = {n.name: n.size for n in self._nodes}
        for p in self._edges:
            if p.target_axis < 0:
                raise DataError(
                    f"parameter {p.name!r} ends at {p.target!r}, but none of its axes runs over these nodes"
                )
            for node_set, axis in ((p.source, p.source_axis), (p.target, p.target_axis)):
                size = 1 if axis < 0 else p.shape[axis]
                if node_set not in sizes or sizes[node_set] != size:
                    raise DataError(
                        f"parameter {p.name!r} needs a node set {node_set!r} of {size} nodes; "
                        f"the table has {', '.join(f'{n.name!r} ({n.size})' for n in self._nodes) or 'none'}"
                    )

    @property
    def nodes(self) -> tuple[NodeSet, ...]:
        """Node sets, in the order of the nodes."""
        return self._nodes

    @property
    def edge_parameters(self) -> tuple[Parameter, ...]:
        """Parameters that are edges."""
        return self._edges

    @property
    def n_nodes(self) -> int:
        """Number of nodes N, over all node sets."""
        return self._n_nodes

    @property
    def n_edges(self) -> int:
        """Number of edges: all entries of the edge parameters, including zero weights and parallel edges."""
        return sum(p.size for p in self._edges)

    @property
    def labels(self) -> list[tuple[str, int]]:
        """Node set, and index in it, of every node in order."""
        return [(node_set.name, i) for node_set in self._nodes for i in range(node_set.size)]

    def blocks(self, *, positions: bool = False) -> dict[str, Floats]:
        """Weights of each layer as a matrix from its source to its target nodes.

        Parameters
        ----------
        positions : bool
            Keep parallel edges separate, with the positions of a convolution kernel as leading axes. False: sum them.

        Returns
        -------
        dict of str to ndarray of float64, shape (source, target) or (..., source, target)
            One block per edge parameter; a bias is one row.
        """
        blocks = {}
        for p in self._edges:
            block = self._block(p)
            if not positions:
                with np.errstate(invalid="ignore"):  # inf - inf is NaN, as it should be
                    block = block.sum(axis=tuple(range(block.ndim - 2)))
            blocks[p.name] = np.array(block)
        return blocks

    def adjacency(self) -> sparse.csr_array:
        """Weights between all nodes.

        Returns
        -------
        scipy.sparse.csr_array of float64, shape (N, N)
            Entry (i, j) is the weight of the edge from node i to node j, in the order of `labels`; parallel edges are
            summed, edges of weight zero are stored explicitly.
        """
        rows, columns, weights = [], [], []
        for p, block in zip(self._edges, self.blocks().values(), strict=True):
            source, target = np.indices(block.shape)
            rows.append((source + self._first[str(p.source)]).ravel())
            columns.append((target + self._first[str(p.target)]).ravel())
            weights.append(block.ravel())
        where = (np.concatenate(rows), np.concatenate(columns))
        shape = (self._n_nodes, self._n_nodes)
        with np.errstate(invalid="ignore"):
            return sparse.coo_array((np.concatenate(weights), where), shape=shape).tocsr()

    def strengths(self, kind: str = "signed") -> Strengths:
        """In- and out-strength of every node: sums over its edges, counting parallel edges separately.

        Parameters
        ----------
        kind : {"signed", "absolute", "positive", "negative"}
            Sum of the weights, of their absolute values, of the positive, or of the negative ones (at most 0).

        Returns
        -------
        Strengths

        Raises
        ------
        UnknownNameError
            If there is no such kind.
        """
        if kind not in STRENGTHS:
            raise UnknownNameError(f"there is no strength {kind!r}; there are {', '.join(STRENGTHS)}")
        incoming, outgoing = np.zeros(self._n_nodes), np.zeros(self._n_nodes)
        with np.errstate(invalid="ignore"):
            for p in self._edges:
                block = _part(self._block(p), kind)
                others = tuple(range(block.ndim - 2))
                into, out_of = block.sum(axis=(*others, -2)), block.sum(axis=(*others, -1))
                incoming[self._span(p.target, len(into))] += into
                outgoing[self._span(p.source, len(out_of))] += out_of
        return Strengths(kind, incoming, outgoing)

    def to_networkx(self, max_edges: int = 1_000_000) -> networkx.MultiDiGraph:
        """Convert to a networkx graph.

        Parameters
        ----------
        max_edges : int
            Largest number of edges: networkx needs about half a kilobyte per edge.

        Returns
        -------
        networkx.MultiDiGraph
            Nodes are (node set, index), with attributes ``layer`` (name of the node set) and ``index``. Edges have
            ``weight`` (float), ``parameter`` (name) and ``entry`` (index in the state).

        Raises
        ------
        TooLargeError
            If there are more than `max_edges` edges.
        """
        import networkx as nx

        if self.n_edges > max_edges:
            largest = max(self._edges, key=lambda p: p.size)
            raise TooLargeError(
                f"the network has {self.n_edges} edges, the limit is max_edges={max_edges}; select layers first "
                f"(trajectory.select(...); the largest is {largest.name!r} with {largest.size}), use "
                "Network.adjacency(), which is sparse, or raise max_edges"
            )
        graph = nx.MultiDiGraph()
        graph.add_nodes_from((label, {"layer": label[0], "index": label[1]}) for label in self.labels)
        for p in self._edges:
            graph.add_edges_from(self._listed(p))
        return graph

    def _block(self, p: Parameter) -> Floats:
        """View of the parameter as (positions ..., source, target)."""
        block = self._state[p.offset : p.offset + p.size].reshape(p.shape)
        return _oriented(block, p)

    def _span(self, node_set: str | None, size: int) -> slice:
        first = self._first[str(node_set)]
        return slice(first, first + size)

    def _listed(self, p: Parameter) -> Iterator[tuple[tuple[str, int], tuple[str, int], dict[str, Any]]]:
        entries = _oriented(np.arange(p.offset, p.offset + p.size).reshape(p.shape), p)
        for (*_, source, target), entry in np.ndenumerate(entries):
            weight = float(self._state[entry])
            attributes = {"weight": weight, "parameter": p.name, "entry": int(entry)}
            yield (str(p.source), source), (str(p.target), target), attributes


@dataclass(frozen=True)
class Strengths:
    """Sums of the weights of the edges that end and start at each node.

    Attributes
    ----------
    kind : str
        One of `STRENGTHS`.
    incoming, outgoing : ndarray of float64, shape (N,)
        In the order of `Network.labels`. NaN where an edge of the node is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from trajtools.wiring import describe
    >>> table, nodes = describe({"W1": ((2, 3), "float64"), "W2": ((3, 1), "float64")})
    >>> network = Network(np.ones(9), table, nodes)
    >>> network.strengths().incoming.shape
    (6,)
    """

    kind: str
    incoming: Floats
    outgoing: Floats


def _oriented(array: NDArray[Any], p: Parameter) -> NDArray[Any]:
    """Move the source and the target axis to the end; a bias gets a source axis of length one."""
    if p.source_axis < 0:
        return np.moveaxis(array, p.target_axis, -1)[..., None, :]
    return np.moveaxis(array, (p.source_axis, p.target_axis), (-2, -1))


def _part(weights: Floats, kind: str) -> Floats:
    if kind == "absolute":
        return np.abs(weights)
    if kind == "positive":
        return np.maximum(weights, 0.0)  # unlike a mask, keeps NaN
    return np.minimum(weights, 0.0) if kind == "negative" else weights
