r"""Distances between the spectra of networks.

Eigenvalues are those of symmetric matrices, by LAPACK's symmetric solver: the adjacency matrix of a layered network is
triangular up to the order of its nodes, so all its own eigenvalues are zero, whatever the weights. The spectra here
are those of :math:`W = A + A^T`, in which a layered network, where no two nodes are connected both ways, loses nothing
but the arrowheads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from trajtools.distances.graphs import ABSOLUTE, EUCLIDEAN, Features, Skeleton, on_features
from trajtools.distances.metric import Metric
from trajtools.errors import DataError
from trajtools.types import Floats

DIFFUSION_TIMES = np.logspace(-2, 2, 250)


class SingularValues:
    """Singular values of the weights of every layer, layer by layer, descending.

    A convolution is unfolded: every position of the kernel and source channel is a row. The values come from the
    singular value decomposition and not from the smaller Gram matrix, whose eigenvalues are their squares: it would
    lose half the digits of the small ones, and twins differ in these digits.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self._edges = skeleton.edges
        shapes = [edges.of(np.zeros((1, skeleton.size))).shape for edges in skeleton.edges]
        self.width = sum(min(k * source, target) for _, k, source, target in shapes)

    def __call__(self, state: Floats) -> Floats:
        """Return the singular values (width,) of a state (P,)."""
        blocks = [edges.of(state[None])[0] for edges in self._edges]
        return np.concatenate([np.linalg.svd(block.reshape(-1, block.shape[-1]), compute_uv=False) for block in blocks])


class AdjacencySpectrum:
    r"""Eigenvalues of :math:`W = A + A^T`, ascending.

    In a bipartite network they are the singular values of the block between its two sides with both signs, and zeros.
    """

    def __init__(self, skeleton: Skeleton, *, mean: bool = False) -> None:
        skeleton.check_dense()
        self._skeleton = skeleton
        self._divisor = skeleton.n_nodes if mean else 1
        self.width = skeleton.n_nodes

    def __call__(self, state: Floats) -> Floats:
        """Return the eigenvalues (N,) of a state (P,), divided by N for a mean."""
        if self._skeleton.sides[2]:
            return _mirrored(self._skeleton.between_sides(state), self.width) / self._divisor
        return np.linalg.eigvalsh(self._skeleton.symmetric(state)) / self._divisor


class LaplacianSpectrum:
    r"""Eigenvalues of the signed Laplacian :math:`L = D - W`, :math:`D_{ii} = \sum_j |W_{ij}|`, ascending.

    It is positive semidefinite for weights of any sign, and is zero on a vector that takes opposite signs across
    negative weights and equal ones across positive weights.
    """

    def __init__(self, skeleton: Skeleton, *, mean: bool = False) -> None:
        skeleton.check_dense()
        self._skeleton = skeleton
        self._divisor = skeleton.n_nodes if mean else 1
        self.width = skeleton.n_nodes

    def __call__(self, state: Floats) -> Floats:
        """Return the eigenvalues (N,) of a state (P,), divided by N for a mean."""
        return np.linalg.eigvalsh(signed_laplacian(self._skeleton.symmetric(state))) / self._divisor


class HeatTrace:
    r"""Trace of the heat kernel :math:`\sum_i \exp(-t \lambda_i)` at some times t.

    The eigenvalues are those of the normalised signed Laplacian :math:`D^{-1/2} L D^{-1/2}`, which lie in [0, 2] as
    those of a graph without signs; a node without any weight has the eigenvalue 0.
    """

    def __init__(self, skeleton: Skeleton, *, times: Sequence[float] = tuple(DIFFUSION_TIMES)) -> None:
        skeleton.check_dense()
        self._skeleton, self._times = skeleton, np.asarray(times)
        self.width = len(times)

    def __call__(self, state: Floats) -> Floats:
        """Return the heat trace (width,) of a state (P,)."""
        # A third of the eigenvalues of a layered network are exactly 1: one exponential will do for them.
        values, counts = np.unique(self.eigenvalues(state), return_counts=True)
        return np.exp(-np.outer(self._times, values)) @ counts.astype(np.float64)

    def eigenvalues(self, state: Floats) -> Floats:
        """Return the eigenvalues (N,) of the normalised signed Laplacian of a state (P,)."""
        if not self._skeleton.sides[2]:
            normalized = normalized_laplacian(self._skeleton.symmetric(state))
            return np.asarray(np.linalg.eigvalsh(normalized), dtype=np.float64)
        block = self._skeleton.between_sides(state)
        rows, columns = np.abs(block).sum(axis=1), np.abs(block).sum(axis=0)
        empty = int((rows == 0).sum() + (columns == 0).sum())
        values = 1.0 + _mirrored(_scaled(block, rows, columns), self._skeleton.n_nodes)
        # A node without weights gave a zero to the spectrum of the scaled block, and so a one here: it is a zero.
        ones = np.argsort(np.abs(values - 1.0))[:empty]
        values[ones] = 0.0
        return np.sort(values)


def signed_laplacian(matrix: Floats) -> Floats:
    r"""Return :math:`L = D - W` with :math:`D_{ii} = \sum_j |W_{ij}|`."""
    laplacian = -matrix
    laplacian[np.diag_indices_from(laplacian)] += np.abs(matrix).sum(axis=1)
    return laplacian


def normalized_laplacian(matrix: Floats) -> Floats:
    r"""Return :math:`D^{-1/2} (D - W) D^{-1/2}` with :math:`D_{ii} = \sum_j |W_{ij}|`."""
    degree = np.abs(matrix).sum(axis=1)
    laplacian = -_scaled(matrix, degree, degree)
    laplacian[np.diag_indices_from(laplacian)] += degree > 0
    return laplacian


def _mirrored(block: Floats, size: int) -> Floats:
    """Eigenvalues (size,), ascending, of the symmetric matrix whose only blocks are this one and its transpose."""
    values = np.linalg.svd(block, compute_uv=False) if min(block.shape) else np.zeros(0)
    return np.concatenate([-values, np.zeros(size - 2 * len(values)), values[::-1]])


def _scaled(block: Floats, rows: Floats, columns: Floats) -> Floats:
    """Return the block divided by the roots of the strengths of its rows and columns; 0 where there is no weight."""
    with np.errstate(divide="ignore"):
        left, right = 1.0 / np.sqrt(rows), 1.0 / np.sqrt(columns)
    left[rows == 0] = right[columns == 0] = 0.0
    return block * left[:, None] * right


UNITS = "a permutation of the units of a hidden layer"
SWITCH = "a change of sign of all weights that a hidden unit sends and receives"
SCALE = "a positive factor on all weights"
_EIGENVALUES = "N^3: the eigenvalues of each state once, from half the nodes where no biases join the layers"


def heat_trace(times: ArrayLike = DIFFUSION_TIMES) -> Metric:
    r"""Metric on the traces of the heat kernel of the normalised signed Laplacian, as NetLSD has it for graphs.

    Parameters
    ----------
    times : array_like, shape (n,)
        Diffusion times t > 0; large ones look at the whole network, small ones at single nodes.

    Returns
    -------
    Metric
        For `between`, `twins`, ...; ``METRICS["heat-trace"]`` is the one with 250 times from 0.01 to 100.

    Raises
    ------
    DataError
        If the times are not positive numbers.

    Notes
    -----
    .. math:: d(a, b) = \sqrt{\sum_t (h_t(a) - h_t(b))^2}, \qquad h_t = \sum_i e^{-t \lambda_i}

    with the eigenvalues of :math:`D^{-1/2} (D - W) D^{-1/2}`, :math:`W = A + A^T`,
    :math:`D_{ii} = \sum_j |W_{ij}|`, which for weights of both signs lie in [0, 2] as in [1]_. NetLSD [2]_ takes the
    weights to be positive. A node that loses its last weight leaves the spectrum at 1 and enters it at 0: there, and
    only there, the distance jumps.

    References
    ----------
    .. [1] J. Kunegis et al., SIAM Int. Conf. Data Mining, 559 (2010), doi:10.1137/1.9781611972801.49
    .. [2] A. Tsitsulin et al., KDD, 2347 (2018), doi:10.1145/3219819.3219991

    Examples
    --------
    >>> heat_trace([0.1, 1.0, 10.0]).name
    'heat-trace'
    """
    given = np.asarray(times, dtype=np.float64)
    if given.ndim != 1 or not given.size or not (np.isfinite(given) & (given > 0)).all():
        raise DataError(f"diffusion times are positive numbers, shape (n,); got {times!r}")
    metric = Metric(
        "heat-trace",
        "Euclidean distance of the heat traces of the normalised signed Laplacian (NetLSD) at 250 times",
        EUCLIDEAN,
        kind="pseudo-metric",
        symmetric=True,
        invariant_to=(UNITS, SWITCH, SCALE),
        cost=_EIGENVALUES,
    )
    return on_features(metric, partial(HeatTrace, times=tuple(given.tolist())))


def _on_spectrum(name: str, description: str, make: Callable[..., Features], *, mean: bool = False) -> Metric:
    metric = Metric(
        name,
        description,
        ABSOLUTE if mean else EUCLIDEAN,
        kind="pseudo-metric",
        symmetric=True,
        invariant_to=(UNITS, SWITCH),
        cost=_EIGENVALUES if make is AdjacencySpectrum else "N^3: the eigenvalues of each state once",
    )
    return on_features(metric, partial(make, mean=True) if mean else make)


SPECTRAL = (
    on_features(
        Metric(
            "singular-values",
            "Euclidean distance of the singular values of the weights, layer by layer",
            EUCLIDEAN,
            kind="pseudo-metric",
            symmetric=True,
            invariant_to=(UNITS, SWITCH, "a rotation on either side of the weights of a layer"),
            cost="one singular value decomposition of each layer and state",
        ),
        SingularValues,
    ),
    _on_spectrum(
        "adjacency-spectrum", "Euclidean distance of the sorted eigenvalues of the symmetric weights", AdjacencySpectrum
    ),
    _on_spectrum(
        "laplacian-spectrum", "Euclidean distance of the sorted eigenvalues of the signed Laplacian", LaplacianSpectrum
    ),
    _on_spectrum(
        "adjacency-wasserstein",
        "Wasserstein distance of the eigenvalues of the symmetric weights",
        AdjacencySpectrum,
        mean=True,
    ),
    _on_spectrum(
        "laplacian-wasserstein",
        "Wasserstein distance of the eigenvalues of the signed Laplacian",
        LaplacianSpectrum,
        mean=True,
    ),
    heat_trace(),
)
