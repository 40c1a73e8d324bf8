"""DeltaCon: how the influence that every node has on every other differs between two networks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.features import EUCLIDEAN, on_features
from trajtools.distances.metric import Metric
from trajtools.distances.skeleton import Skeleton
from trajtools.types import Floats


class Influence:
    r"""Signed roots of the influence :math:`S = (1 + \varepsilon^2 D - \varepsilon W)^{-1}` of node on node.

    :math:`W = A + A^T`, :math:`D_{ii} = \sum_j |W_{ij}|`, :math:`\varepsilon = 1 / (1 + \max_i D_{ii})`. With these the
    matrix is diagonally dominant whatever the signs of the weights, and so has an inverse. One part of the nodes has no
    edges inside (in a network without skips: every second layer), so that only a matrix of the size of the other part
    is inverted.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        skeleton.check_dense()
        self._skeleton = skeleton
        self.width = skeleton.n_nodes**2

    def __call__(self, state: Floats) -> Floats:
        """Return the signed roots (N * N,) for a state (P,), the part without edges inside first."""
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


def _inverse(across: Floats, inside: Floats, diagonal: Floats) -> Floats:
    """Invert [[P, -B], [-B', Q - C]] with P and Q diagonal: by blocks, the one of P is never inverted."""
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


def _signed_roots(matrix: Floats) -> Floats:
    roots = np.sqrt(np.abs(matrix))
    return np.copysign(roots, matrix, out=roots)


def root_euclidean(x: Floats, y: Floats) -> float:
    """Euclidean distance of the signed roots of two matrices: Matusita's distance where no entry is negative."""
    difference: NDArray[np.float64] = x - y
    return float(np.sqrt(difference @ difference))


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
