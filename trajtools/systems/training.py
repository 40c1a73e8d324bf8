"""Gradient descent and models of it, with exponents that are known or follow from the tangent map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trajtools.statistics import random_generator
from trajtools.systems.system import System
from trajtools.types import RNGLike

_P1 = "Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024)"


def _diagonal(values: np.ndarray) -> np.ndarray:
    """Diagonal matrices (n, d, d) of values (n, d)."""
    return values[:, :, None] * np.eye(values.shape[1])


def quadratic_descent(eta: float = 0.1, curvatures: Sequence[float] = (1.0, 4.0, 9.0)) -> System:
    """Gradient descent on a quadratic: every mode has the exponent ln abs(1 - eta h).

    Parameters
    ----------
    eta : float
        Learning rate.
    curvatures : sequence of float
        Eigenvalues h of the Hessian.

    Returns
    -------
    System
        Linear; its exponents are exact.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.quadratic_descent()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 3), [-0.105, -0.511])
    """
    factors = 1 - eta * np.asarray(curvatures, float)
    with np.errstate(divide="ignore"):
        exact = tuple(sorted(np.log(np.abs(factors)).tolist(), reverse=True))
    return System(
        "quadratic_descent",
        len(factors),
        lambda x: factors * x,
        lambda x: _diagonal(np.broadcast_to(factors, x.shape)),
        lambda rng, n: rng.standard_normal((n, len(factors))),
        exact=exact,
        training=True,
        parameters={"eta": eta},
        source="algebra",
    )


def quartic_descent(eta: float = 2.0, weights: int = 1) -> System:
    """Gradient descent on the sum of (x^2 - 1)^2 / 4 over independent weights.

    Parameters
    ----------
    eta : float
        Learning rate. At 2 the map is conjugate to the third Chebyshev polynomial and every exponent is ln 3;
        below 1 the minimum is stable, with ln abs(1 - 2 eta).
    weights : int
        Number of weights.

    Returns
    -------
    System
        At eta = 2 bounded by abs(x) <= sqrt(2): states perturbed beyond this bound diverge.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.quartic_descent()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 1), [1.099])
    """
    exact: tuple[float, ...] = ()
    if eta == 2.0:
        exact = (float(np.log(3)),) * weights
    elif 0 < eta < 1 and eta != 0.5:
        exact = (float(np.log(abs(1 - 2 * eta))),) * weights
    return System(
        "quartic_descent",
        weights,
        lambda x: x - eta * (x**3 - x),
        lambda x: _diagonal(1 - eta * (3 * x**2 - 1)),
        lambda rng, n: np.sqrt(2) * np.cos(np.pi * rng.uniform(0.02, 0.98, (n, weights))),
        exact=exact,
        training=True,
        parameters={"eta": eta},
        source="algebra: x -> 3x - 2x^3 = -sqrt(2) T3(x / sqrt(2)) at eta = 2",
    )


def saddle_escape(eta: float = 0.1, distance: float = 1e-9) -> System:
    """Gradient descent on (x^2 - 1)^2 / 4 from near its maximum: long exponential growth without chaos.

    Parameters
    ----------
    eta : float
        Learning rate, below 1.
    distance : float
        Scale of the initial distance to the maximum at 0.

    Returns
    -------
    System
        Twins separate like (1 + eta)^t until they leave the maximum; those on one side converge to one minimum.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.saddle_escape()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 1), [-0.223])
    """
    well = quartic_descent(eta)
    return System(
        "saddle_escape",
        1,
        well.rule,
        well.jacobian,
        lambda rng, n: distance * rng.uniform(0.5, 1.5, (n, 1)),
        exact=well.exact,
        training=True,
        parameters={"eta": eta, "distance": distance},
        source="algebra; the exponent is that of the minimum, ln abs(1 - 2 eta), whatever the first steps do",
    )


def heavy_ball(eta: float = 0.1, beta: float = 0.9, curvature: float = 1.0) -> System:
    """Gradient descent with momentum on a quadratic; the state is (weight, velocity).

    Parameters
    ----------
    eta, beta : float
        Learning rate and momentum: v' = beta v + h x, x' = x - eta v'.
    curvature : float
        Second derivative h.

    Returns
    -------
    System
        Underdamped modes have the exponent ln(beta) / 2, twice; others the logarithms of the two eigenvalues.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.heavy_ball()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 2), [-0.053, -0.053])
    """
    matrix = np.array([[1 - eta * curvature, -eta * beta], [curvature, beta]])
    exact = tuple(sorted(np.log(np.abs(np.linalg.eigvals(matrix))).tolist(), reverse=True))
    return System(
        "heavy_ball",
        2,
        lambda s: s @ matrix.T,
        lambda s: np.broadcast_to(matrix, (len(s), 2, 2)),
        lambda rng, n: rng.standard_normal((n, 2)),
        exact=exact,
        training=True,
        parameters={"eta": eta, "beta": beta, "curvature": curvature},
        source="eigenvalues of the linear map",
    )


def linear_network(eta: float = 2.0, balanced: bool = True) -> System:
    """Two-layer linear network with one weight each: gradient descent on (a b - 1)^2 / 2.

    Parameters
    ----------
    eta : float
        Learning rate. On a = b it is the map of `quartic_descent`; at 2 the exponents are ln 3 along that line and
        exactly 0 across it (Mahler measure).
    balanced : bool
        Start on the line a = b, which is invariant also in floating point; else near it.

    Returns
    -------
    System
        Two weights.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.linear_network()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 2), [1.099, 0.0])
    """

    def rule(s: np.ndarray) -> np.ndarray:
        error = s[:, :1] * s[:, 1:] - 1
        return s - eta * error * s[:, ::-1]

    def jacobian(s: np.ndarray) -> np.ndarray:
        a, b = s[:, 0], s[:, 1]
        out = np.empty((len(s), 2, 2))
        out[:, 0, 0], out[:, 1, 1] = 1 - eta * b**2, 1 - eta * a**2
        out[:, 0, 1] = out[:, 1, 0] = -eta * (2 * a * b - 1)
        return out

    def start(rng: np.random.Generator, n: int) -> np.ndarray:
        a = np.sqrt(2) * np.cos(np.pi * rng.uniform(0.02, 0.98, (n, 1)))
        return np.concatenate([a, a if balanced else a + 1e-3 * rng.standard_normal((n, 1))], axis=1)

    exact = (float(np.log(3)), 0.0) if eta == 2.0 and balanced else ()
    return System(
        "linear_network",
        2,
        rule,
        jacobian,
        start,
        exact=exact,
        training=True,
        parameters={"eta": eta},
        source="algebra at eta = 2",
    )


def softmax_map(gain: float = 10.0, frequencies: Sequence[float] = (1 / 3, 1 / 3, 1 / 3)) -> System:
    """Map of the logits of a softmax network in training with saturated hidden units.

    Parameters
    ----------
    gain : float
        g = eta (1 + number of hidden units at 1).
    frequencies : sequence of float
        Class frequencies of the training set.

    Returns
    -------
    System
        Logits z' = z - g (softmax(z) - frequencies). Their sum is conserved, so one exponent is 0. The fixed point of
        equal classes is stable for g < 2 n, with n - 1 exponents ln abs(1 - g / n) for n classes.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.softmax_map()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 3), [])
    """
    target = np.asarray(frequencies, float)
    n_classes = len(target)

    def softmax(z: np.ndarray) -> np.ndarray:
        weights = np.exp(z - z.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def jacobian(z: np.ndarray) -> np.ndarray:
        p = softmax(z)
        return np.eye(n_classes) - gain * (_diagonal(p) - p[:, :, None] * p[:, None, :])

    exact: tuple[float, ...] = ()
    if gain < 2 * n_classes and np.allclose(target, 1 / n_classes, rtol=0, atol=1e-12) and gain != n_classes:
        exact = (0.0,) + (float(np.log(abs(1 - gain / n_classes))),) * (n_classes - 1)
    return System(
        "softmax_map",
        n_classes,
        lambda z: z - gain * (softmax(z) - target),
        jacobian,
        lambda rng, n: rng.standard_normal((n, n_classes)),
        exact=exact,
        training=True,
        parameters={"gain": gain},
        source=f"the eta = 5 regime of {_P1}, reduced to its logits",
    )


def dictionary_orbit(orbit: np.ndarray, nodes: int, bins: int, *, rng: RNGLike = None) -> np.ndarray:
    """Encode a scalar orbit in [0, 1] as networks: bin k is graph k of an ordered dictionary.

    Parameters
    ----------
    orbit : ndarray (T,), float64
        Values in [0, 1].
    nodes : int
        Nodes of the undirected graphs; the graphs of neighbouring bins differ in one link.
    bins : int
        Length of the dictionary, at most nodes (nodes - 1) / 2 + 1.
    rng : int, numpy.random.Generator or None
        Seed or generator (None: the seed 0) of the first graph and of the order of its flipped links.

    Returns
    -------
    ndarray (T, nodes (nodes - 1) / 2), uint8
        Links of each network. The L1 distance of two of them is the difference of their bins, so the exponent of
        neighbours is that of the scalar map.

    Raises
    ------
    ValueError
        If there are fewer links than steps in the dictionary.

    Examples
    --------
    >>> import trajtools as tt
    >>> orbit = tt.systems.logistic().trajectory(50, rng=0)[:, 0]
    >>> tt.systems.dictionary_orbit(orbit, nodes=5, bins=8).shape
    (50, 10)
    """
    links = nodes * (nodes - 1) // 2
    if links < bins - 1:
        raise ValueError(
            f"{nodes} nodes have {links} links, a dictionary of {bins} graphs needs {bins - 1}; use more nodes"
        )
    rng = random_generator(rng)
    first = rng.integers(0, 2, links, dtype=np.uint8)
    place = np.empty(links, np.int64)
    place[rng.permutation(links)] = np.arange(links)
    index = np.minimum((np.asarray(orbit, float) * bins).astype(np.int64), bins - 1)
    return first ^ (place[None, :] < index[:, None]).astype(np.uint8)
