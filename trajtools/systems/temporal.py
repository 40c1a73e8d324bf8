"""Trajectories of networks with known autocorrelation: white, with memory, and noisy periodic.

All functions return the links of undirected networks in time, shape (T, N (N - 1) / 2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trajtools.statistics import random_generator
from trajtools.types import Floats, RNGLike

Links = NDArray[np.uint8]


def white_networks(nodes: int, T: int, *, density: float = 0.5, rng: RNGLike = None) -> Links:
    """Draw networks without memory: links are independent in time with equal probability.

    Parameters
    ----------
    nodes : int
        Nodes N.
    T : int, in states
        Length.
    density : float
        Probability of a link.
    rng : int, numpy.random.Generator or None
        Seed or generator (None: the seed 0) of the links.

    Returns
    -------
    ndarray (T, N (N - 1) / 2), uint8
        The autocorrelation is 0 at every lag, with a bias of -1 / (T - 1) when the mean is estimated.

    Examples
    --------
    >>> import trajtools as tt
    >>> tt.systems.white_networks(4, 10, rng=0).shape
    (10, 6)
    """
    rng = random_generator(rng)
    return (rng.random((T, _links(nodes))) < density).astype(np.uint8)


def darn(nodes: int, T: int, *, memory: float, order: int = 1, density: float = 0.5, rng: RNGLike = None) -> Links:
    """Draw networks with memory, DARN(p): a link copies one of its last p states, or is redrawn.

    Parameters
    ----------
    nodes : int
        Nodes N.
    T : int, in states
        Length.
    memory : float
        Probability q of copying.
    order : int
        Order p: the copied state is uniform over the last p.
    density : float
        Probability of a redrawn link.
    rng : int, numpy.random.Generator or None
        Seed or generator (None: the seed 0) of the links and their copies.

    Returns
    -------
    ndarray (T, N (N - 1) / 2), uint8
        Stationary from the first state on; `darn_autocorrelation` is its autocorrelation.

    Raises
    ------
    ValueError
        If the memory is not in [0, 1), or the order below 1.

    References
    ----------
    .. [1] O. E. Williams, F. Lillo, V. Latora, New J. Phys. 21, 043028 (2019), doi:10.1088/1367-2630/ab13fb

    Examples
    --------
    >>> import trajtools as tt
    >>> networks = tt.systems.darn(4, 100, memory=0.9, rng=0)
    >>> networks.shape
    (100, 6)
    """
    if not 0 <= memory < 1 or order < 1:
        raise ValueError(f"memory must be in [0, 1) and order at least 1, got {memory} and {order}")
    links = _links(nodes)
    # After this many states every link has been redrawn, up to a probability of 1e-12.
    transient = order * (1 if memory == 0 else int(np.ceil(np.log(1e-12) / np.log(memory))) + 1)
    rng = random_generator(rng)
    past = (rng.random((order, links)) < density).astype(np.uint8)
    out = np.empty((T, links), dtype=np.uint8)
    column = np.arange(links)
    for t in range(transient + T):
        copied = past[rng.integers(order, size=links), column]
        fresh = (rng.random(links) < density).astype(np.uint8)
        now = np.where(rng.random(links) < memory, copied, fresh)
        past = np.concatenate([now[None], past[:-1]])
        if t >= transient:
            out[t - transient] = now
    return out


def darn_autocorrelation(memory: float, order: int, lags: int) -> Floats:
    """Autocorrelation of `darn`, from the Yule-Walker equations.

    Parameters
    ----------
    memory : float
        Probability q of copying.
    order : int
        Order p.
    lags : int
        Largest lag.

    Returns
    -------
    ndarray (lags + 1,), float64
        rho(k) = (q / p) sum of rho(abs(k - i)) over i = 1 .. p, with rho(0) = 1; q^k for order 1.

    Examples
    --------
    >>> import trajtools as tt
    >>> tt.systems.darn_autocorrelation(0.5, order=1, lags=3).tolist()
    [1.0, 0.5, 0.25, 0.125]
    """
    # Unknowns rho(1) .. rho(p); rho(0) = 1 goes to the right-hand side.
    matrix, right = np.eye(order), np.zeros(order)
    for k in range(1, order + 1):
        for i in range(1, order + 1):
            if k == i:
                right[k - 1] += memory / order
            else:
                matrix[k - 1, abs(k - i) - 1] -= memory / order
    rho = np.concatenate([[1.0], np.linalg.solve(matrix, right), np.zeros(lags)])
    for k in range(order + 1, lags + 1):
        rho[k] = memory / order * rho[k - order : k].sum()
    return np.asarray(rho[: lags + 1])


def periodic_networks(
    nodes: int, T: int, *, period: int, noise: float = 0.0, density: float = 0.5, rng: RNGLike = None
) -> Links:
    """Draw noisy periodic networks: each link is redrawn with some probability.

    Parameters
    ----------
    nodes : int
        Nodes N.
    T : int, in states
        Length.
    period : int, in states
        The networks of one period are drawn without memory.
    noise : float
        Probability q of redrawing a link of a state.
    density : float
        Probability of a link.
    rng : int, numpy.random.Generator or None
        Seed or generator (None: the seed 0) of the networks and their noise.

    Returns
    -------
    ndarray (T, N (N - 1) / 2), uint8
        The autocorrelation is (1 - q)^2 at the multiples of the period, for long periods. The mean of the networks is
        estimated from the same period of P states: with k = (1 - q)^2 it is k (1 - 1 / P) / (1 - k / P) there and
        -k / (P - k) on average elsewhere.

    References
    ----------
    .. [1] L. Lacasa, J. P. Rodriguez, V. M. Eguiluz, Phys. Rev. Research 4, L042008 (2022),
       doi:10.1103/PhysRevResearch.4.L042008

    Examples
    --------
    >>> import trajtools as tt
    >>> networks = tt.systems.periodic_networks(4, 12, period=3, rng=0)
    >>> bool((networks[:3] == networks[3:6]).all())
    True
    """
    links = _links(nodes)
    rng = random_generator(rng)
    pattern = rng.random((period, links)) < density
    repeated = pattern[np.arange(T) % period]
    fresh = rng.random((T, links)) < density
    return np.where(rng.random((T, links)) < noise, fresh, repeated).astype(np.uint8)


def _links(nodes: int) -> int:
    if nodes < 2:
        raise ValueError(f"{nodes} nodes have no link; use at least 2")
    return nodes * (nodes - 1) // 2
