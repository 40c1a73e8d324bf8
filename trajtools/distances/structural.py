"""Distances between the strengths of the nodes, and between what is summarised of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.features import ABSOLUTE, Features, RowPairs, on_features
from trajtools.distances.metric import Metric
from trajtools.distances.skeleton import Skeleton
from trajtools.distances.spectral import UNITS
from trajtools.types import Floats

BOTH = "one permutation of the nodes of both networks"

PER_NODE = 10  # features of `_node_features`
MOMENTS = 4


class NodeStrengths:
    """Sums of the weights that end, and that start, at every node; parallel edges each for itself."""

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

    Divided by the size of the set, so that the sum of absolute differences is the sum over sets and directions of the
    Wasserstein distances.
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
    r"""How ten features are distributed over the nodes of each set, after NetSimile.

    Features of a node, of its incoming and of its outgoing edges each: sum of the weights; of their absolute values;
    root of the sum of their squares; the same sums over the weights of two edges in a row, multiplied, signed and
    absolute. Each is summarised over a node set by its first four L-moments,
    :math:`\frac{1}{n} \sum_i P_r\left(2 \frac{i - 1/2}{n} - 1\right) x_{(i)}` with the Legendre polynomials
    :math:`P_0, \dots, P_3`.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._spans = tuple(span for span in skeleton.spans.values() if span.stop > span.start)
        self._weights = [_legendre(span.stop - span.start) for span in self._spans]
        self.width = PER_NODE * MOMENTS * len(self._spans)

    def __call__(self, state: Floats) -> Floats:
        """Return the summaries (sets, features, moments), flat, of a state (P,); NaN where squares leave float64."""
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
        found = np.zeros((PER_NODE, self._skeleton.n_nodes))
        blocks = []
        for edges in self._skeleton.edges:
            block = edges.of(state[None])[0]
            size = np.abs(block)
            signed, absolute = block.sum(axis=0), size.sum(axis=0)
            squares = np.einsum("kst,kst->st", block, block)
            blocks.append((edges, signed, absolute))
            for row, matrix in ((0, signed), (2, absolute), (4, squares)):
                found[row, edges.target] += matrix.sum(axis=0)
                found[row + 1, edges.source] += matrix.sum(axis=1)
        for edges, signed, absolute in blocks:
            for row, matrix in ((6, signed), (8, absolute)):
                found[row, edges.target] += found[row - 6, edges.source] @ matrix
                found[row + 1, edges.source] += matrix @ found[row - 5, edges.target]
        found[4:6] = np.sqrt(found[4:6])
        return found


def relative_summaries(x: Floats, y: Floats) -> Floats:
    r"""Mean over node sets and features of :math:`|x - y| / (|x| + |y|)`, Euclidean over the four moments."""
    groups = [z.reshape(len(z), -1, MOMENTS) for z in (x, y)]
    apart = np.linalg.norm(groups[0] - groups[1], axis=2)
    size = np.linalg.norm(groups[0], axis=2) + np.linalg.norm(groups[1], axis=2)
    ratio = np.divide(apart, size, out=np.zeros_like(apart), where=size != 0)
    return ratio.mean(axis=1)


def _legendre(size: int) -> NDArray[np.float64]:
    """Return the shifted Legendre polynomials (size, 4) at the plotting positions (i - 1/2) / n, divided by n."""
    position = 2 * (np.arange(size) + 0.5) / size - 1
    return np.polynomial.legendre.legvander(position, MOMENTS - 1) / size


def _on_strengths(name: str, description: str, make: Callable[[Skeleton], Features], **said: Any) -> Metric:
    metric = Metric(name, description, ABSOLUTE, kind="pseudo-metric", symmetric=True, cost="P", **said)
    return on_features(metric, make)


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
