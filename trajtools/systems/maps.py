"""Maps with known exponents: one-dimensional, two-dimensional and coupled."""

from __future__ import annotations

import numpy as np

from trajtools.systems.system import System


def _matrix(n: int, entries: list[list[np.ndarray | float]]) -> np.ndarray:
    """Assemble matrices (n, d, d) from a table of columns or numbers."""
    d = len(entries)
    out = np.empty((n, d, d))
    for i, row in enumerate(entries):
        for j, entry in enumerate(row):
            out[:, i, j] = entry
    return out


def logistic(r: float = 4.0) -> System:
    """Logistic map x -> r x (1 - x); at r = 4 the exponent is ln 2.

    Parameters
    ----------
    r : float
        Growth rate, in (0, 4].

    Returns
    -------
    System
        One-dimensional. At r = 4 it is also gradient descent with rate 1 on 4 x^3 / 3 - 3 x^2 / 2.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.logistic()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 1), [0.693])
    """
    return System(
        "logistic",
        1,
        lambda x: r * x * (1 - x),
        lambda x: (r * (1 - 2 * x))[:, :, None],
        lambda rng, n: rng.uniform(0.05, 0.95, (n, 1)),
        exact=(float(np.log(2)),) if r == 4.0 else (),
        parameters={"r": r},
        source="conjugate to the tent map at r = 4",
    )


def bernoulli(beta: float = 3.0) -> System:
    """Bernoulli shift x -> beta x mod 1, exponent ln beta.

    Parameters
    ----------
    beta : float
        Slope. Powers of two raise an error: in binary floating point they lose a bit per step and end at 0.

    Returns
    -------
    System
        One-dimensional.

    Raises
    ------
    ValueError
        If beta is a power of two.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.bernoulli()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 1), [1.099])
    """
    if np.log2(beta) % 1 == 0:
        raise ValueError(f"beta = {beta} shifts all bits out of a binary float; use 3 or 1.9")
    return System(
        "bernoulli",
        1,
        lambda x: (beta * x) % 1.0,
        lambda x: np.full((len(x), 1, 1), beta),
        lambda rng, n: rng.uniform(0, 1, (n, 1)),
        exact=(float(np.log(beta)),),
        parameters={"beta": beta},
        source="constant slope",
    )


def henon(a: float = 1.4, b: float = 0.3) -> System:
    """Henon map (1 - a x^2 + y, b x); exponents 0.41922 and -1.62319 at the standard parameters.

    Parameters
    ----------
    a, b : float
        Parameters; the exponents sum to ln b.

    Returns
    -------
    System
        Two-dimensional.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.henon()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 2), [])
    """
    return System(
        "henon",
        2,
        lambda s: np.stack([1 - a * s[:, 0] ** 2 + s[:, 1], b * s[:, 0]], axis=1),
        lambda s: _matrix(len(s), [[-2 * a * s[:, 0], 1.0], [b, 0.0]]),
        lambda rng, n: rng.uniform(-0.1, 0.1, (n, 2)),
        parameters={"a": a, "b": b},
        source="M. Henon, Commun. Math. Phys. 50, 69 (1976)",
    )


def ikeda(u: float = 0.9) -> System:
    """Ikeda map of a laser in a ring.

    Parameters
    ----------
    u : float
        Dissipation; the exponents sum to 2 ln u.

    Returns
    -------
    System
        Two-dimensional.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.ikeda()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 2), [])
    """

    def angle(s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        q = 1 + s[:, 0] ** 2 + s[:, 1] ** 2
        t = 0.4 - 6 / q
        return q, np.cos(t), np.sin(t)

    def rule(s: np.ndarray) -> np.ndarray:
        _, c, z = angle(s)
        return np.stack([1 + u * (s[:, 0] * c - s[:, 1] * z), u * (s[:, 0] * z + s[:, 1] * c)], axis=1)

    def jacobian(s: np.ndarray) -> np.ndarray:
        x, y = s.T
        q, c, z = angle(s)
        p, r = 12 * x / q**2, 12 * y / q**2
        f, g = -x * z - y * c, x * c - y * z
        return _matrix(len(s), [[u * (c + f * p), u * (-z + f * r)], [u * (z + g * p), u * (c + g * r)]])

    return System(
        "ikeda",
        2,
        rule,
        jacobian,
        lambda rng, n: rng.uniform(0, 0.5, (n, 2)),
        parameters={"u": u},
        source="Ikeda (1979)",
    )


def cat() -> System:
    """Arnold's cat map, with exponents plus and minus ln((3 + sqrt 5) / 2).

    Returns
    -------
    System
        Two-dimensional, area-preserving.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.cat()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 2), [0.962, -0.962])
    """
    matrix = np.array([[2.0, 1.0], [1.0, 1.0]])
    value = float(np.log((3 + np.sqrt(5)) / 2))
    return System(
        "cat",
        2,
        lambda s: (s @ matrix.T) % 1.0,
        lambda s: np.broadcast_to(matrix, (len(s), 2, 2)),
        lambda rng, n: rng.uniform(0, 1, (n, 2)),
        exact=(value, -value),
        source="eigenvalues",
    )


def standard_map(K: float = 1.0) -> System:
    """Chirikov standard map, angle and momentum modulo 2 pi.

    Parameters
    ----------
    K : float
        Kick strength.

    Returns
    -------
    System
        Two-dimensional, area-preserving: the exponents sum to 0. At K = 1 regular islands remain, and orbits stick to
        them, so finite-time values scatter.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.standard_map()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 2), [])
    """
    turn = 2 * np.pi

    def rule(s: np.ndarray) -> np.ndarray:
        p = (s[:, 1] + K * np.sin(s[:, 0])) % turn
        return np.stack([(s[:, 0] + p) % turn, p], axis=1)

    def jacobian(s: np.ndarray) -> np.ndarray:
        c = K * np.cos(s[:, 0])
        return _matrix(len(s), [[1 + c, 1.0], [c, 1.0]])

    return System(
        "standard_map",
        2,
        rule,
        jacobian,
        lambda rng, n: rng.uniform(-0.05, 0.05, (n, 2)) % turn,
        parameters={"K": K},
        source="B. V. Chirikov, Phys. Rep. 52, 263 (1979)",
    )


def coupled_bernoulli(size: int = 64, coupling: float = 0.3, beta: float = 2.0) -> System:
    """Ring of Bernoulli shifts with diffusive coupling, with known spectrum.

    Parameters
    ----------
    size : int
        Number of sites N.
    coupling : float
        Each site receives coupling / 2 from both neighbours. Coupled sites lose no bits even at beta = 2.
    beta : float
        Slope of the shift.

    Returns
    -------
    System
        Exponents ln beta + ln abs(1 - c + c cos(2 pi k / N)), k = 0 .. N - 1.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.coupled_bernoulli()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 64), [0.693, 0.692])
    """
    modes = np.abs(1 - coupling + coupling * np.cos(2 * np.pi * np.arange(size) / size))
    with np.errstate(divide="ignore"):
        exact = tuple(sorted((np.log(beta) + np.log(modes)).tolist(), reverse=True))
    mix = (1 - coupling) * np.eye(size)
    mix += coupling / 2 * (np.roll(np.eye(size), 1, axis=1) + np.roll(np.eye(size), -1, axis=1))
    return System(
        "coupled_bernoulli",
        size,
        lambda x: (
            (1 - coupling) * ((beta * x) % 1.0)
            + coupling / 2 * (np.roll((beta * x) % 1.0, 1, axis=1) + np.roll((beta * x) % 1.0, -1, axis=1))
        ),
        lambda x: np.broadcast_to(beta * mix, (len(x), size, size)),
        lambda rng, n: rng.uniform(0, 1, (n, size)),
        exact=exact,
        training=True,
        parameters={"coupling": coupling, "beta": beta},
        source="circulant tangent map",
    )


def globally_coupled(size: int = 100, coupling: float = 0.1, r: float = 4.0) -> System:
    """Globally coupled logistic maps x' = (1 - c) f(x) + c mean f, as the edges of a weighted network.

    Parameters
    ----------
    size : int
        Number of maps (edges).
    coupling : float
        Strength c.
    r : float
        Parameter of the logistic map.

    Returns
    -------
    System
        Uncoupled or synchronised (strong coupling), it has the exponent of the single map.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.globally_coupled()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 100), [])
    """

    def rule(x: np.ndarray) -> np.ndarray:
        f = r * x * (1 - x)
        return (1 - coupling) * f + coupling * f.mean(axis=1, keepdims=True)

    def jacobian(x: np.ndarray) -> np.ndarray:
        slope = r * (1 - 2 * x)
        return (1 - coupling) * slope[:, :, None] * np.eye(size) + coupling / size * slope[:, None, :]

    return System(
        "globally_coupled",
        size,
        rule,
        jacobian,
        lambda rng, n: rng.uniform(0.05, 0.95, (n, size)),
        training=True,
        parameters={"coupling": coupling, "r": r},
        source="K. Kaneko, Physica D 41, 137 (1990)",
    )
