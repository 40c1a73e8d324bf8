"""Metrics that compare networks as graphs, by the strengths of their nodes and by DeltaCon."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.metric import Metric
from trajtools.errors import DataError, InputWarning, TooLargeError
from trajtools.types import Floats, Ints
from trajtools.wiring import NodeSet, Parameter, listed

SCALE = "a positive factor on all weights"
UNITS = "a permutation of the units of a hidden layer"
MAX_NODES = 20_000
"""Largest number of nodes for a dense matrix between nodes (over 3 GB)."""


WELL_SEEN = 0.9
"""Share of the weights that are edges, below which a warning names the others."""


CHUNK_ENTRIES = 2**22
"""Feature entries compared at a time (32 MB)."""


BOTH = "one permutation of the nodes of both networks"
PER_NODE = 10  # features of `_node_features`
MOMENTS = 4


class Skeleton:
    """Nodes and edges of a network, without the weights."""

    def __init__(self, parameters: Sequence[Parameter], nodes: Sequence[NodeSet]) -> None:
        if not parameters:
            raise DataError(
                "this metric compares networks and needs to know which weight is which edge: pass a Trajectory with a "
                "table of parameters (from a recorded run, or `Trajectory.from_array(x, parameters=, nodes=)` "
                "with the tables of `trajtools.wiring.describe`), or use an entrywise metric such as 'l1'"
            )
        from trajtools.networks import Network

        self.size = sum(p.size for p in parameters)
        network = Network(np.zeros(self.size), parameters, nodes)  # raises if the tables do not fit
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
                p.undirected,
            )
            for p in network.edge_parameters
        )
        self._say_what_is_missing(parameters)

    def _say_what_is_missing(self, parameters: Sequence[Parameter]) -> None:
        """Warn if much of the network is no edge of the graph."""
        seen = {edges.name for edges in self.edges}
        unseen = sorted((p for p in parameters if p.name not in seen and p.size), key=lambda p: -p.size)
        share = 1 - sum(p.size for p in unseen) / max(1, self.size)
        if unseen and share < WELL_SEEN:
            warnings.warn(
                f"a metric of graphs sees {share:.0%} of the weights here: what {listed([p.name for p in unseen], 3)} "
                "connect is not known, so that they are no edges. Say it when recording, with wiring=, or compare all "
                "weights by an entrywise metric",
                InputWarning,
                stacklevel=2,
            )

    @cached_property
    def sides(self) -> tuple[Ints, Ints, bool]:
        """Two parts of the nodes, the first without internal edges, and whether the second has none either.

        A layered network without skips is bipartite between its even and its odd layers. A node connected to every
        layer, such as the bias node, breaks this and goes to the second part.
        """
        inside = [edges for edges in self.edges if set(edges.ends) <= set(self._columns)]
        return self._indices(self._rows), self._indices(self._columns), not inside

    def symmetric(self, state: Floats) -> Floats:
        """Return the matrix (N, N) of the weights w(i, j) + w(j, i) of a state (P,); w(i, j) of undirected edges."""
        self.check_dense()
        matrix = np.zeros((self.n_nodes, self.n_nodes))
        for edges in self.edges:
            block = edges.summed(state[None])[0]
            matrix[edges.source, edges.target] += block
            if not edges.undirected:
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
        """Raise if the network has too many nodes for a dense matrix."""
        if self.n_nodes > MAX_NODES:
            raise TooLargeError(
                f"the network has {self.n_nodes} nodes, and this metric needs a dense matrix between them (at most "
                f"{MAX_NODES}); select layers first (trajectory.select(...)), or use 'singular-values', 'strengths' or "
                "an entrywise metric"
            )

    @cached_property
    def _rows(self) -> dict[str, slice]:
        names = self._coloured() or self._independent()
        return self._packed([name for name in self.spans if name in names])

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
        neighbors: dict[str, set[str]] = {name: set() for name in self.spans}
        for edges in self.edges:
            for one, other in (edges.ends, edges.ends[::-1]):
                neighbors[one].add(other)
        return neighbors

    def _coloured(self) -> list[str]:
        """Node sets of the larger colour class of every component if two colours suffice; else none."""
        neighbors, colour, selected = self._neighbors(), dict[str, int](), list[str]()
        for start in self.spans:
            if start in colour:
                continue
            colour[start], component = 0, [start]
            for name in component:  # grows during the loop
                for other in sorted(neighbors[name]):
                    if other not in colour:
                        colour[other] = 1 - colour[name]
                        component.append(other)
                    elif colour[other] == colour[name]:
                        return []
            halves = [[n for n in component if colour[n] == c] for c in (0, 1)]
            selected += max(halves, key=self._count)
        return selected

    def _independent(self) -> list[str]:
        """Node sets without edges between them, chosen greedily by size."""
        neighbors, selected = self._neighbors(), list[str]()
        for name in sorted(self.spans, key=lambda n: -self._count([n])):
            if name not in neighbors[name] and not neighbors[name] & set(selected):
                selected.append(name)
        return selected

    def _count(self, names: Iterable[str]) -> int:
        return sum(self.spans[n].stop - self.spans[n].start for n in names)

    def _indices(self, names: Iterable[str]) -> Ints:
        spans = [np.arange(self.spans[n].start, self.spans[n].stop) for n in names]
        return np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)


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
        The source and the target node set.
    undirected : bool
        Whether the block is symmetric, and holds every edge twice.
    """

    name: str
    offset: int
    size: int
    shape: tuple[int, ...]
    axes: tuple[int, int]
    source: slice
    target: slice
    ends: tuple[str, str]
    undirected: bool = False

    def of(self, states: Floats) -> Floats:
        """Return the weights (n, positions, source, target) of states (n, P); a view where the order allows it."""
        block = states[:, self.offset : self.offset + self.size].reshape(len(states), *self.shape)
        source, target = self.axes
        if source < 0:
            return np.moveaxis(block, target + 1, -1).reshape(len(states), -1, 1, self.shape[target])
        block = np.moveaxis(block, (source + 1, target + 1), (-2, -1))
        return block.reshape(len(states), -1, *block.shape[-2:])

    def summed(self, states: Floats) -> Floats:
        """Return the weights (n, source, target) summed over parallel edges (the positions of a convolution)."""
        block = self.of(states)
        return block[:, 0] if block.shape[1] == 1 else block.sum(axis=1)


class Features(Protocol):
    """A function of one finite state."""

    width: int
    """Number of features."""

    def __call__(self, state: Floats) -> Floats:
        """Return the features (width,) of a state (P,)."""


def on_features(
    metric: Metric, make: Callable[[Skeleton], Features], wide: Callable[[Floats, Floats], float] | None = None
) -> Metric:
    """Return a metric that compares features computed from a network."""
    return replace(metric, bind=Binding(metric, make, wide))


@dataclass(frozen=True)
class Binding:
    """Factory of a metric on features for one network.

    Attributes
    ----------
    metric : Metric
        Its properties, and the comparison of features.
    make : callable
        Skeleton to Features.
    wide : callable or None
        Compares the features of two states if they are too many to store; None: `metric.pairs` compares.
    """

    metric: Metric
    make: Callable[[Skeleton], Features]
    wide: Callable[[Floats, Floats], float] | None = None

    def __call__(self, parameters: Sequence[Parameter], nodes: Sequence[NodeSet]) -> Metric:
        """Bind the metric to networks with these tables."""
        table = FeatureTable(self.make(Skeleton(parameters, nodes)))
        if self.wide is not None:
            return replace(self.metric, pairs=WidePairs(table, self.wide), bind=None)
        return replace(self.metric, features=table, bind=None)


@dataclass(frozen=True)
class FeatureTable:
    """Features of many states.

    Attributes
    ----------
    features : Features
        The features of one state.
    """

    features: Features

    def __call__(self, states: Any) -> Floats:
        """Return the features (n, width) of states (n, P); NaN where a state or its features are not finite."""
        out = np.full((len(states), self.features.width), np.nan)
        with np.errstate(over="ignore", invalid="ignore"):
            for row, state in enumerate(states):
                if np.isfinite(state).all():
                    # LAPACK refuses a matrix whose sums of weights left the range of float64.
                    with suppress(np.linalg.LinAlgError):
                        out[row] = self.features(np.asarray(state, dtype=np.float64))
        return out


@dataclass(frozen=True)
class WidePairs:
    """Distances of states by features too large to store: at most those of two states are in memory."""

    table: FeatureTable
    compare: Callable[[Floats, Floats], float]

    def __call__(self, a: Any, b: Any, left: Ints, right: Ints) -> Floats:
        """Return the distances (t, k) of the states ``a[:, left[k]]`` and ``b[:, right[k]]``."""
        out = np.empty((a.shape[0], len(left)))
        # A reference with many twins is computed once.
        swapped = len(np.unique(right)) < len(np.unique(left))
        (one, anchors), (two, other) = ((b, right), (a, left)) if swapped else ((a, left), (b, right))
        order = np.argsort(anchors, kind="stable")
        for t in range(a.shape[0]):
            last, first = -1, np.empty(0)
            for k in order:
                if anchors[k] != last:
                    last, first = int(anchors[k]), self.table(one[t, anchors[k]][None])[0]
                second = self.table(two[t, other[k]][None])[0]
                ends = (second, first) if swapped else (first, second)
                out[t, k] = self.compare(*ends) if np.isfinite(first[0] + second[0]) else np.nan
        return out


def finite_rows(states: Any) -> NDArray[np.bool_]:
    """Whether every weight of each state (n, P) is finite."""
    finite: NDArray[np.bool_] = np.isfinite(states).all(axis=1)
    return finite


@dataclass(frozen=True)
class RowPairs:
    """Distances of features by a function from two arrays of rows (n, F) to (n,)."""

    compare: Callable[[Floats, Floats], Floats]

    def __call__(self, a: Any, b: Any, left: Ints, right: Ints) -> Floats:
        """Return the distances (t, k) of the features ``a[:, left[k]]`` and ``b[:, right[k]]``."""
        out = np.empty((a.shape[0], len(left)))
        height = max(1, CHUNK_ENTRIES // max(1, a.shape[2]))
        for t in range(a.shape[0]):
            for start in range(0, len(left), height):
                rows = slice(start, start + height)
                out[t, rows] = self.compare(a[t, left[rows]], b[t, right[rows]])
        return out


@dataclass(frozen=True)
class Compiled:
    """A compiled distance by its name in `trajtools._kernels.distances`, loaded on the first call."""

    name: str

    def __call__(self, a: Any, b: Any, left: Ints, right: Ints) -> Floats:
        """Return the distances (t, k) of ``a[:, left[k]]`` and ``b[:, right[k]]``."""
        from trajtools._kernels import distances

        result: Floats = getattr(distances, self.name)(a, b, np.asarray(left), np.asarray(right))
        return result


class NodeStrengths:
    """Sums of the incoming and of the outgoing weights of every node; parallel edges count separately."""

    def __init__(self, skeleton: Skeleton, *, absolute: bool = False) -> None:
        self._skeleton, self._absolute = skeleton, absolute
        self.width = 2 * skeleton.n_nodes

    def __call__(self, state: Floats) -> Floats:
        """Return incoming and outgoing strengths (2 N,) of a state (P,)."""
        strengths = np.zeros((2, self._skeleton.n_nodes))
        for edges in self._skeleton.edges:
            block = edges.of(state[None])[0]
            block = np.abs(block) if self._absolute else block
            strengths[0, edges.target] += block.sum(axis=(0, 1))
            strengths[1, edges.source] += block.sum(axis=(0, 2))
        return strengths.ravel()


class SortedStrengths:
    """The distribution of the signed strengths over the nodes of each set, incoming and outgoing.

    Divided by the size of the set: the sum of absolute differences is then the sum of the Wasserstein distances over
    sets and directions.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self._strengths = NodeStrengths(skeleton)
        self._spans = tuple(skeleton.spans.values())
        self._nodes = skeleton.n_nodes
        self.width = 2 * skeleton.n_nodes

    def __call__(self, state: Floats) -> Floats:
        """Return the sorted strengths (2 N,) of a state (P,)."""
        strengths = self._strengths(state).reshape(2, self._nodes)
        return np.concatenate(
            [np.sort(strengths[:, span], axis=1).ravel() / max(1, span.stop - span.start) for span in self._spans]
        )


class NodeSummaries:
    r"""Distribution of ten node features over each node set, after NetSimile.

    Features of a node, for its incoming and its outgoing edges: the sum of the weights, the sum of their absolute
    values, the root of the sum of their squares, and the sums (signed and absolute) of the products of weights over
    paths of two edges. Each is summarised over a node set by its first four L-moments,
    :math:`\frac{1}{n} \sum_i P_r\left(2 \frac{i - 1/2}{n} - 1\right) x_{(i)}` with the Legendre polynomials
    :math:`P_0, \dots, P_3`.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._spans = tuple(span for span in skeleton.spans.values() if span.stop > span.start)
        self._weights = [_legendre(span.stop - span.start) for span in self._spans]
        self.width = PER_NODE * MOMENTS * len(self._spans)

    def __call__(self, state: Floats) -> Floats:
        """Return the summaries (sets, features, moments), flat, of a state (P,); NaN where squares overflow."""
        largest = np.abs(state).max(initial=0.0)
        if largest and not 1e-75 < largest < 1e75:
            return np.full(self.width, np.nan)
        nodes = self._node_features(state)
        summaries = [
            np.sort(nodes[:, span], axis=1) @ weights for span, weights in zip(self._spans, self._weights, strict=True)
        ]
        return np.concatenate(summaries).ravel()

    def _node_features(self, state: Floats) -> Floats:
        """Return features (10, N)."""
        features = np.zeros((PER_NODE, self._skeleton.n_nodes))
        blocks = []
        for edges in self._skeleton.edges:
            block = edges.of(state[None])[0]
            size = np.abs(block)
            signed, absolute = block.sum(axis=0), size.sum(axis=0)
            squares = np.einsum("kst,kst->st", block, block)
            blocks.append((edges, signed, absolute))
            for row, matrix in ((0, signed), (2, absolute), (4, squares)):
                features[row, edges.target] += matrix.sum(axis=0)
                features[row + 1, edges.source] += matrix.sum(axis=1)
        for edges, signed, absolute in blocks:
            for row, matrix in ((6, signed), (8, absolute)):
                features[row, edges.target] += features[row - 6, edges.source] @ matrix
                features[row + 1, edges.source] += matrix @ features[row - 5, edges.target]
        features[4:6] = np.sqrt(features[4:6])
        return features


def _legendre(size: int) -> NDArray[np.float64]:
    """Return the shifted Legendre polynomials (size, 4) at the plotting positions (i - 1/2) / n, divided by n."""
    position = 2 * (np.arange(size) + 0.5) / size - 1
    return np.polynomial.legendre.legvander(position, MOMENTS - 1) / size


def relative_summaries(x: Floats, y: Floats) -> Floats:
    r"""Mean over node sets and features of :math:`|x - y| / (|x| + |y|)`, Euclidean over the four moments."""
    groups = [z.reshape(len(z), -1, MOMENTS) for z in (x, y)]
    apart = np.linalg.norm(groups[0] - groups[1], axis=2)
    size = np.linalg.norm(groups[0], axis=2) + np.linalg.norm(groups[1], axis=2)
    ratio = np.divide(apart, size, out=np.zeros_like(apart), where=size != 0)
    return ratio.mean(axis=1)


class Influence:
    r"""Signed roots of the influence :math:`S = (1 + \varepsilon^2 D - \varepsilon W)^{-1}` of node on node.

    :math:`W = A + A^T`, :math:`D_{ii} = \sum_j |W_{ij}|`, :math:`\varepsilon = 1 / (1 + \max_i D_{ii})`: the matrix is
    diagonally dominant for weights of any sign, hence invertible. One part of the nodes has no internal edges (in a
    network without skips: every second layer), so only a matrix of the size of the other part is inverted.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        skeleton.check_dense()
        self._skeleton = skeleton
        self.width = skeleton.n_nodes**2

    def __call__(self, state: Floats) -> Floats:
        """Return the signed roots (N * N,) for a state (P,), the part without internal edges first."""
        first, second, bipartite = self._skeleton.sides
        across = self._skeleton.between_sides(state)
        size = np.abs(across)
        degrees = np.concatenate([size.sum(axis=1), size.sum(axis=0)])
        inside = np.zeros((len(second), len(second)))
        if not bipartite:
            inside = self._skeleton.symmetric(state)[np.ix_(second, second)]
            degrees[len(first) :] += np.abs(inside).sum(axis=1)
        epsilon = 1.0 / (1.0 + degrees.max(initial=0.0))
        diagonal = 1.0 + epsilon**2 * degrees
        return _signed_roots(_inverse(epsilon * across, epsilon * inside, diagonal)).ravel()


def _signed_roots(matrix: Floats) -> Floats:
    roots = np.sqrt(np.abs(matrix))
    return np.copysign(roots, matrix, out=roots)


def _inverse(across: Floats, inside: Floats, diagonal: Floats) -> Floats:
    """Invert [[P, -B], [-B', Q - C]] with P and Q diagonal: by blocks, without inverting that of P."""
    rows = len(across)
    outer, inner = diagonal[:rows], diagonal[rows:]
    scaled = across / outer[:, None]
    reduced = -(across.T @ scaled) - inside
    reduced[np.diag_indices_from(reduced)] += inner
    out = np.empty((len(diagonal), len(diagonal)))
    block = np.linalg.inv(reduced)
    left = scaled @ block
    out[rows:, rows:], out[:rows, rows:], out[rows:, :rows] = block, left, left.T
    out[:rows, :rows] = left @ scaled.T
    out[np.arange(rows), np.arange(rows)] += 1.0 / outer
    return out


def root_euclidean(x: Floats, y: Floats) -> float:
    """Euclidean distance of the signed roots of two matrices: Matusita's distance where no entry is negative."""
    difference: NDArray[np.float64] = x - y
    return float(np.sqrt(difference @ difference))


def _on_strengths(name: str, description: str, make: Callable[[Skeleton], Features], **properties: Any) -> Metric:
    metric = Metric(name, description, ABSOLUTE, kind="pseudo-metric", symmetric=True, cost="P", **properties)
    return on_features(metric, make)


EUCLIDEAN, ABSOLUTE = Compiled("pairs_l2"), Compiled("pairs_l1")
STRUCTURAL = (
    _on_strengths(
        "strengths",
        "sum over the nodes of the differences of incoming and of outgoing strength, with signs",
        NodeStrengths,
        invariant_to=(BOTH,),
    ),
    _on_strengths(
        "absolute-strengths",
        "sum over the nodes of the differences of incoming and of outgoing absolute strength",
        partial(NodeStrengths, absolute=True),
        invariant_to=(BOTH, "the signs of the weights"),
    ),
    _on_strengths(
        "strength-distribution",
        "Wasserstein distances of the strengths of the nodes, summed over node sets and directions",
        SortedStrengths,
        invariant_to=(UNITS,),
    ),
    on_features(
        Metric(
            "netsimile",
            "relative differences of the moments of ten features of the nodes, after NetSimile, from 0 to 1",
            RowPairs(relative_summaries),
            kind="pseudo-metric",
            symmetric=True,
            invariant_to=(UNITS,),
            cost="P",
        ),
        NodeSummaries,
    ),
)


DELTACON = on_features(
    Metric(
        "deltacon",
        "root Euclidean distance of the influence of every node on every other (DeltaCon), with signs",
        EUCLIDEAN,
        kind="pseudo-metric",
        symmetric=True,
        invariant_to=("one permutation of the nodes of both networks",),
        cost="N^3: one inverse of a matrix between half of the nodes for each state, and N^2 for each pair",
    ),
    Influence,
    root_euclidean,
)
