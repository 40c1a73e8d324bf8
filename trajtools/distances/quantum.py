"""Quantum Jensen-Shannon distance: networks as density matrices."""

from __future__ import annotations

from functools import partial

import numpy as np

from trajtools.distances.features import EUCLIDEAN, on_features
from trajtools.distances.metric import Metric
from trajtools.distances.skeleton import Skeleton
from trajtools.distances.spectral import SCALE, normalized_laplacian
from trajtools.errors import DataError
from trajtools.types import Floats

CLOSE = 1e-6
"""Divergences below this are taken from the second-order form, whose relative error is of this size there."""


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


def quantum_jensen_shannon(beta: float = 1.0) -> Metric:
    r"""Metric on networks as density matrices: the root of the quantum Jensen-Shannon divergence.

    Parameters
    ----------
    beta : float
        Diffusion time; large ones compare the slow modes, which span the whole network.

    Returns
    -------
    Metric
        For `between`, `twins`, ...; ``METRICS["quantum-jensen-shannon"]`` has beta = 1.

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
    :math:`\Delta = (\rho - \sigma) / 2` between the eigenvectors of the mixture and its eigenvalues :math:`\mu`; the
    first term that is left out is of fourth order in :math:`\Delta`.

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


def _entropy(weights: Floats) -> float:
    positive = weights[weights > 0]
    return float(-(positive * np.log(positive)).sum())


QUANTUM = quantum_jensen_shannon()
