"""Correlations between the egonets of the nodes of a small network."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.errors import DataError, SelectionError, TooLargeError
from trajtools.networks import Network
from trajtools.results.correlation import NodeCorrelation
from trajtools.trajectory import Trajectory
from trajtools.types import Floats

TENSOR_BYTES = 2**30
FEWEST = 4


def node_correlation(x: Any, *, lag: int = 0, window: tuple[int, int] | None = None) -> NodeCorrelation:
    r"""Correlate the egonet of every node with that of every other, `lag` states later.

    Parameters
    ----------
    x : Trajectory or ndarray, shape (T, N, N)
        Adjacency matrices in time, entry (i, j) the edge from i to j; or a trajectory whose parameters are edges (the
        whole network then, bias node included).
    lag : int, in states
        Lag; 0: correlations at equal times.
    window : (int, int) or None
        Use only the states whose step s fulfils ``window[0] <= s < window[1]``.

    Returns
    -------
    NodeCorrelation

    Raises
    ------
    DataError
        If `x` holds no square matrices, or fewer than four finite states, or no pair of them has this lag.
    SelectionError
        If no state lies in the window.
    TooLargeError
        If the matrices take more than 1 GiB.

    Notes
    -----
    .. math:: C(\tau) = \frac{1}{T - \tau} \sum_t \tilde A(t) \tilde A(t + \tau)^\mathsf{T}

    with the centred matrices, as in [1]_. The trace of C(tau) over that of C(0) is `trajtools.autocorrelation` (of all
    edges). Row i of the matrix holds the edges that leave node i; give the transposed matrices for those that arrive.

    References
    ----------
    .. [1] L. Lacasa, J. P. Rodriguez, V. M. Eguiluz, Phys. Rev. Research 4, L042008 (2022),
       doi:10.1103/PhysRevResearch.4.L042008

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> a = np.zeros((4, 2, 2))
    >>> a[:, 0, 1], a[:, 1, 1] = [1, 0, 1, 0], [0, 1, 0, 1]
    >>> tt.node_correlation(a).correlation.tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    matrices, labels = _matrices(x, window)
    count = len(matrices)
    if not 0 <= lag < count:
        raise DataError(f"lag is {lag}; {count} states have lags from 0 to {count - 1}")
    fine = np.asarray(np.isfinite(matrices).all(axis=(1, 2)))
    if fine.sum() < FEWEST:
        raise DataError(f"{int(fine.sum())} finite states of {count}; a correlation needs at least {FEWEST}")
    shifted = np.where(fine[:, None, None], matrices, 0.0)
    shifted -= shifted[int(np.argmax(fine))]
    centred = np.where(fine[:, None, None], shifted - shifted[fine].mean(axis=0), 0.0)
    pairs = int(np.sum(fine[: count - lag] & fine[lag:]))
    if not pairs:
        raise DataError(f"no two finite states are {lag} apart; choose another lag")
    covariance = np.einsum("tik,tjk->ij", centred[: count - lag], centred[lag:], optimize=True) / pairs
    own = np.einsum("tik,tik->i", centred, centred) / fine.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where((own[:, None] > 0) & (own > 0), covariance / np.sqrt(np.outer(own, own)), np.nan)
    still, excluded = int((own == 0).sum()), int((~fine).sum())
    words = [f"{still} of {len(own)} nodes do not move: they have no correlation"] if still else []
    words += [f"{excluded} of {count} states are not finite and were left out"] if excluded else []
    return NodeCorrelation(
        lag=int(lag),
        covariance=covariance,
        correlation=correlation,
        labels=labels,
        n_states=count,
        n_excluded=excluded,
        settings={"lag": int(lag), "window": window, "pairs": pairs},
        warnings=tuple(words),
    )


def _matrices(x: Any, window: tuple[int, int] | None) -> tuple[Floats, tuple[Any, ...]]:
    """Adjacency matrices (T, N, N) and names of the nodes."""
    trajectory = isinstance(x, Trajectory)
    array = x if trajectory else np.asarray(x)
    if not trajectory and (array.ndim != 3 or array.shape[1] != array.shape[2] or array.dtype.kind not in "biuf"):
        raise DataError(
            f"x must be adjacency matrices, (T, N, N), or a Trajectory that knows its parameters; got shape "
            f"{array.shape} of {array.dtype}"
        )
    step = np.asarray(x.step) if trajectory else np.arange(len(array))
    inside = np.arange(len(step)) if window is None else np.flatnonzero((step >= window[0]) & (step < window[1]))
    if not len(inside):
        raise SelectionError(f"no state lies in the window {window}; there are {len(step)}")
    rows = slice(int(inside[0]), int(inside[-1]) + 1)
    if len(np.unique(np.diff(step[rows]))) > 1:
        raise DataError("the states are not equally spaced; select a window that was recorded evenly")
    if not trajectory:
        return array[rows].astype(np.float64), tuple(range(array.shape[1]))
    states = x.read(rows.start, rows.stop)
    networks = [Network(state, x.parameters, x.nodes) for state in states[:1]]
    nodes = networks[0].n_nodes
    if 8 * len(states) * nodes**2 > TENSOR_BYTES:
        raise TooLargeError(
            f"{len(states)} matrices of {nodes} x {nodes} take {8 * len(states) * nodes**2 / 2**30:.1f} GiB, the limit "
            f"is {TENSOR_BYTES / 2**30:.0f} GiB; select fewer layers or states"
        )
    dense = np.stack([Network(state, x.parameters, x.nodes).adjacency().toarray() for state in states])
    return dense, tuple(networks[0].labels)
