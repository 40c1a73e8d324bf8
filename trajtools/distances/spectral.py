r"""Distances between the spectra of networks.

Eigenvalues are those of symmetric matrices, computed with LAPACK's symmetric solver. The adjacency matrix of a layered
network is triangular up to the order of its nodes, so all its own eigenvalues are zero. The spectra here
are those of :math:`W = A + A^T`. No two nodes of a layered network are connected both ways, so W loses only the
direction of its edges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from trajtools.distances.graphs import ABSOLUTE, EUCLIDEAN, SCALE, UNITS, Features, Skeleton, on_features
from trajtools.distances.metric import Metric
from trajtools.errors import DataError
from trajtools.types import Floats

DIFFUSION_TIMES = np.logspace(-2, 2, 250)
SWITCH = "a change of sign of all weights that a hidden unit sends and receives"
_EIGENVALUES = "N^3: the eigenvalues of each state once, from half the nodes where no biases join the layers"
CLOSE = 1e-6
"""Below this the divergence is computed in second order; the relative error there is of this size."""


def heat_trace(times: ArrayLike = DIFFUSION_TIMES) -> Metric:
    r"""Metric on the traces of the heat kernel of the normalised signed Laplacian, after NetLSD.

    Parameters
    ----------
    times : array_like, shape (n,)
        Diffusion times t > 0; large ones probe the whole network, small ones single nodes.

    Returns
    -------
    Metric
        For `distance`, `twins`, ...; ``METRICS["heat-trace"]`` has 250 times from 0.01 to 100.

    Raises
    ------
    DataError
        If the times are not positive numbers.

    Notes
    -----
    .. math:: d(a, b) = \sqrt{\sum_t (h_t(a) - h_t(b))^2}, \qquad h_t = \sum_i e^{-t \lambda_i}

    with the eigenvalues of :math:`D^{-1/2} (D - W) D^{-1/2}`, :math:`W = A + A^T`,
    :math:`D_{ii} = \sum_j |W_{ij}|`, which for weights of both signs lie in [0, 2] as in [1]_. NetLSD [2]_ assumes
    positive weights. The distance is continuous except where a node loses its last weight: its eigenvalue jumps from
    1 to 0.

    References
    ----------
    .. [1] J. Kunegis et al., SIAM Int. Conf. Data Mining, 559 (2010), doi:10.1137/1.9781611972801.49
    .. [2] A. Tsitsulin et al., KDD, 2347 (2018), doi:10.1145/3219819.3219991

    Examples
    --------
    >>> heat_trace([0.1, 1.0, 10.0]).name
    'heat-trace'
    """
    values = np.asarray(times, dtype=np.float64)
    if values.ndim != 1 or not values.size or not (np.isfinite(values) & (values > 0)).all():
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
    return on_features(metric, partial(HeatTrace, times=tuple(values.tolist())))


class HeatTrace:
    r"""Trace of the heat kernel :math:`\sum_i \exp(-t \lambda_i)` at some times t.

    The eigenvalues are those of the normalised signed Laplacian :math:`D^{-1/2} L D^{-1/2}` and lie in [0, 2], as for
    a graph without signs; a node without weights has the eigenvalue 0.
    """

    def __init__(self, skeleton: Skeleton, *, times: Sequence[float] = tuple(DIFFUSION_TIMES)) -> None:
        skeleton.check_dense()
        self._skeleton, self._times = skeleton, np.asarray(times)
        self.width = len(times)

    def __call__(self, state: Floats) -> Floats:
        """Return the heat trace (width,) of a state (P,)."""
        # A third of the eigenvalues of a layered network are exactly 1: compute one exponential for them.
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
        # A node without weights gives the scaled block an eigenvalue 0, hence 1 here: correct it to 0.
        ones = np.argsort(np.abs(values - 1.0))[:empty]
        values[ones] = 0.0
        return np.sort(values)


def normalized_laplacian(matrix: Floats) -> Floats:
    r"""Return :math:`D^{-1/2} (D - W) D^{-1/2}` with :math:`D_{ii} = \sum_j |W_{ij}|`."""
    degree = np.abs(matrix).sum(axis=1)
    laplacian = -_scaled(matrix, degree, degree)
    laplacian[np.diag_indices_from(laplacian)] += degree > 0
    return laplacian


def _scaled(block: Floats, rows: Floats, columns: Floats) -> Floats:
    """Return the block divided by the roots of the strengths of its rows and columns; 0 without weights."""
    with np.errstate(divide="ignore"):
        left, right = 1.0 / np.sqrt(rows), 1.0 / np.sqrt(columns)
    left[rows == 0] = right[columns == 0] = 0.0
    return block * left[:, None] * right


def _mirrored(block: Floats, size: int) -> Floats:
    """Eigenvalues (size,), ascending, of the symmetric matrix with this block and its transpose off the diagonal."""
    values = np.linalg.svd(block, compute_uv=False) if min(block.shape) else np.zeros(0)
    return np.concatenate([-values, np.zeros(size - 2 * len(values)), values[::-1]])


def quantum_jensen_shannon(beta: float = 1.0) -> Metric:
    r"""Metric on networks as density matrices: the root of the quantum Jensen-Shannon divergence.

    Parameters
    ----------
    beta : float
        Diffusion time; large values compare the slow modes, which span the whole network.

    Returns
    -------
    Metric
        For `distance`, `twins`, ...; ``METRICS["quantum-jensen-shannon"]`` has beta = 1.

    Raises
    ------
    DataError
        If `beta` is not a number in (0, 10].

    Notes
    -----
    .. math:: d^2 = S\left(\frac{\rho + \sigma}{2}\right) - \frac{S(\rho) + S(\sigma)}{2}, \qquad
              \rho = \frac{e^{-\beta L}}{\mathrm{Tr}\, e^{-\beta L}}, \qquad S(\rho) = -\mathrm{Tr}\, \rho \ln \rho

    after [1]_, with the normalised signed Laplacian :math:`L = D^{-1/2} (D - W) D^{-1/2}`, :math:`W = A + A^T`,
    :math:`D_{ii} = \sum_j |W_{ij}|`: positive semidefinite for weights of any sign, so that :math:`\rho` is a density
    matrix. Its root obeys the triangle inequality [2]_. Natural logarithms: at most :math:`\sqrt{\ln 2}`.

    The three entropies of close networks cancel. Below a divergence of 1e-6 it is therefore computed as
    :math:`\frac{1}{2} \sum_{ij} \Delta_{ij}^2 (\ln \mu_i - \ln \mu_j) / (\mu_i - \mu_j)`, with
    :math:`\Delta = (\rho - \sigma) / 2` in the eigenbasis of the mixture and its eigenvalues :math:`\mu`; the first
    neglected term is of fourth order in :math:`\Delta`.

    References
    ----------
    .. [1] M. De Domenico, J. Biamonte, Phys. Rev. X 6, 041062 (2016), doi:10.1103/PhysRevX.6.041062
    .. [2] D. Virosztek, Adv. Math. 380, 107595 (2021), doi:10.1016/j.aim.2021.107595

    Examples
    --------
    >>> quantum_jensen_shannon(2.0).kind
    'pseudo-metric'
    """
    if isinstance(beta, bool) or not 0 < beta <= 10:
        raise DataError(
            f"beta={beta!r}; it must be in (0, 10], or the density matrices are singular to working precision"
        )
    metric = Metric(
        "quantum-jensen-shannon",
        "root of the quantum Jensen-Shannon divergence of density matrices of the signed Laplacian",
        EUCLIDEAN,
        kind="pseudo-metric",
        symmetric=True,
        invariant_to=("one permutation of the nodes of both networks", SCALE),
        cost="N^3: an eigendecomposition of each state and the eigenvalues of each pair",
    )
    return on_features(metric, partial(DensityMatrix, beta=float(beta)), root_divergence)


def root_divergence(x: Floats, y: Floats) -> float:
    """Root of the quantum Jensen-Shannon divergence of two density matrices."""
    size = int(np.sqrt(len(x) - 1))
    one, two = x[:-1].reshape(size, size), y[:-1].reshape(size, size)
    mixture = (one + two) / 2
    values = np.asarray(np.linalg.eigvalsh(mixture), dtype=np.float64)
    divergence = _entropy(values) - (x[-1] + y[-1]) / 2
    if divergence < CLOSE:
        divergence = _second_order(mixture, (one - two) / 2)
    return float(np.sqrt(divergence))


def _entropy(weights: Floats) -> float:
    positive = weights[weights > 0]
    return float(-(positive * np.log(positive)).sum())


def _second_order(mixture: Floats, apart: Floats) -> float:
    values, vectors = np.linalg.eigh(mixture)
    rotated = vectors.T @ apart @ vectors
    one, two = values[:, None], values
    gap = one - two
    # (ln m - ln n) / (m - n) = 2 artanh(r) / (r (m + n)), r = (m - n) / (m + n), without cancellation for m near n.
    ratio = gap / (one + two)
    with np.errstate(invalid="ignore"):
        kernel = np.where(np.abs(ratio) > 1e-8, 2 * np.arctanh(ratio) / gap, 2 / (one + two))
    return float(np.sum(rotated**2 * kernel)) / 2


class DensityMatrix:
    r"""The state :math:`\rho = e^{-\beta L} / \mathrm{Tr}\, e^{-\beta L}` of a network, and its entropy in nats."""

    def __init__(self, skeleton: Skeleton, *, beta: float) -> None:
        skeleton.check_dense()
        self._skeleton, self._beta = skeleton, beta
        self.width = skeleton.n_nodes**2 + 1

    def __call__(self, state: Floats) -> Floats:
        """Return the density matrix, flat, and its entropy (N * N + 1,) for a state (P,)."""
        values, vectors = np.linalg.eigh(normalized_laplacian(self._skeleton.symmetric(state)))
        weights = np.exp(-self._beta * (values - values[0]))
        weights /= weights.sum()
        out = np.empty(self.width)
        np.matmul(vectors * weights, vectors.T, out=out[:-1].reshape(len(values), -1))
        out[-1] = _entropy(weights)
        return out


class SingularValues:
    """Singular values of the weights, layer by layer, descending.

    A convolution is unfolded: every position of the kernel and source channel is a row. The values come from the
    singular value decomposition, not from the smaller Gram matrix: its eigenvalues are their squares, which would lose
    half the digits of the small values, and twins differ in these digits.
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

    In a bipartite network they are plus and minus the singular values of the block between its sides, and zeros.
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

    It is positive semidefinite for weights of any sign, and vanishes on a vector with opposite signs across negative
    weights and equal ones across positive weights.
    """

    def __init__(self, skeleton: Skeleton, *, mean: bool = False) -> None:
        skeleton.check_dense()
        self._skeleton = skeleton
        self._divisor = skeleton.n_nodes if mean else 1
        self.width = skeleton.n_nodes

    def __call__(self, state: Floats) -> Floats:
        """Return the eigenvalues (N,) of a state (P,), divided by N for a mean."""
        return np.linalg.eigvalsh(signed_laplacian(self._skeleton.symmetric(state))) / self._divisor


def signed_laplacian(matrix: Floats) -> Floats:
    r"""Return :math:`L = D - W` with :math:`D_{ii} = \sum_j |W_{ij}|`."""
    laplacian = -matrix
    laplacian[np.diag_indices_from(laplacian)] += np.abs(matrix).sum(axis=1)
    return laplacian


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


QUANTUM = quantum_jensen_shannon()
