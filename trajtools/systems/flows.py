"""Flows with known exponents, integrated with fixed fourth-order Runge-Kutta steps."""

from __future__ import annotations

import numpy as np

from trajtools.systems.system import System


def lorenz(sigma: float = 10.0, rho: float = 28.0, beta: float = 8 / 3, dt: float = 0.01) -> System:
    """Lorenz 1963 system; exponents 0.9056, 0 and -14.5723 at the standard parameters.

    Parameters
    ----------
    sigma, rho, beta : float
        Parameters; the exponents sum to -(sigma + 1 + beta).
    dt : float
        Time between samples.

    Returns
    -------
    System
        Three-dimensional.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.lorenz()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 3), [])
    """

    def rule(s: np.ndarray) -> np.ndarray:
        x, y, z = s.T
        return np.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z], axis=1)

    def jacobian(s: np.ndarray) -> np.ndarray:
        out = np.zeros((len(s), 3, 3))
        out[:, 0, 0], out[:, 0, 1] = -sigma, sigma
        out[:, 1, 0], out[:, 1, 1], out[:, 1, 2] = rho - s[:, 2], -1, -s[:, 0]
        out[:, 2, 0], out[:, 2, 1], out[:, 2, 2] = s[:, 1], s[:, 0], -beta
        return out

    return System(
        "lorenz",
        3,
        rule,
        jacobian,
        lambda rng, n: rng.uniform(-1, 1, (n, 3)) * [8, 8, 5] + [0, 0, rho - 3],
        dt=dt,
        substeps=max(1, round(dt / 0.005)),
        parameters={"sigma": sigma, "rho": rho, "beta": beta},
        source="E. N. Lorenz, J. Atmos. Sci. 20, 130 (1963)",
    )


def rossler(a: float = 0.2, b: float = 0.2, c: float = 5.7, dt: float = 0.1) -> System:
    """Rossler 1976 system; exponents 0.0714, 0 and -5.3943 at the standard parameters.

    Parameters
    ----------
    a, b, c : float
        Parameters.
    dt : float
        Time between samples.

    Returns
    -------
    System
        Three-dimensional.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.rossler()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 3), [])
    """

    def rule(s: np.ndarray) -> np.ndarray:
        x, y, z = s.T
        return np.stack([-y - z, x + a * y, b + z * (x - c)], axis=1)

    def jacobian(s: np.ndarray) -> np.ndarray:
        out = np.zeros((len(s), 3, 3))
        out[:, 0, 1] = out[:, 0, 2] = -1
        out[:, 1, 0], out[:, 1, 1] = 1, a
        out[:, 2, 0], out[:, 2, 2] = s[:, 2], s[:, 0] - c
        return out

    return System(
        "rossler",
        3,
        rule,
        jacobian,
        lambda rng, n: rng.uniform(-1, 1, (n, 3)) * [4, 4, 0.1] + [0, 0, 0.1],
        dt=dt,
        substeps=max(1, round(dt / 0.02)),
        parameters={"a": a, "b": b, "c": c},
        source="O. E. Rossler, Phys. Lett. A 57, 397 (1976)",
    )


def lorenz96(size: int = 40, forcing: float = 8.0, dt: float = 0.05) -> System:
    """Lorenz 1996 system on a ring.

    Parameters
    ----------
    size : int
        Number of sites.
    forcing : float
        Forcing F; chaotic at 8.
    dt : float
        Time between samples.

    Returns
    -------
    System
        The exponents sum to minus the number of sites.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.lorenz96()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 40), [])
    """

    def rule(x: np.ndarray) -> np.ndarray:
        return (np.roll(x, -1, 1) - np.roll(x, 2, 1)) * np.roll(x, 1, 1) - x + forcing

    def jacobian(x: np.ndarray) -> np.ndarray:
        out = np.zeros((len(x), size, size))
        i = np.arange(size)
        before = np.roll(x, 1, 1)
        out[:, i, (i + 1) % size] += before
        out[:, i, (i - 2) % size] -= before
        out[:, i, (i - 1) % size] += np.roll(x, -1, 1) - np.roll(x, 2, 1)
        out[:, i, i] -= 1
        return out

    return System(
        "lorenz96",
        size,
        rule,
        jacobian,
        lambda rng, n: forcing + rng.standard_normal((n, size)),
        dt=dt,
        substeps=max(1, round(dt / 0.0125)),
        parameters={"forcing": forcing},
        source="E. N. Lorenz, ECMWF Seminar on Predictability (1996)",
    )


def mackey_glass(tau: float = 17.0, steps: int = 170, dt: float = 1.0) -> System:
    """Mackey-Glass delay equation x' = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x, as a map of its history.

    Parameters
    ----------
    tau : float
        Delay; chaotic at 17 (two exponents known to a few percent only) and at 30 (two positive).
    steps : int
        Grid points in one delay; the state is the history on the grid, oldest first. Heun steps.
    dt : float
        Time between samples, a multiple of tau / steps.

    Returns
    -------
    System
        Its dimension is the number of grid points plus one.

    Raises
    ------
    ValueError
        If dt is not a multiple of tau / steps.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.mackey_glass()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 171), [])
    """
    h = tau / steps
    per_sample = round(dt / h)
    if per_sample < 1 or abs(per_sample * h - dt) > 1e-9:
        raise ValueError(f"dt = {dt} is not a multiple of tau / steps = {h}; choose other steps")

    def pull(x: np.ndarray) -> np.ndarray:
        return 0.2 * x / (1 + x**10)

    def slope(x: np.ndarray) -> np.ndarray:
        return 0.2 * (1 - 9 * x**10) / (1 + x**10) ** 2

    def one(s: np.ndarray) -> np.ndarray:
        past, later, now = s[:, 0], s[:, 1], s[:, -1]
        first = pull(past) - 0.1 * now
        second = pull(later) - 0.1 * (now + h * first)
        return np.concatenate([s[:, 1:], (now + h / 2 * (first + second))[:, None]], axis=1)

    def one_jacobian(s: np.ndarray) -> np.ndarray:
        n, d = s.shape
        out = np.zeros((n, d, d))
        i = np.arange(d - 1)
        out[:, i, i + 1] = 1
        out[:, -1, 0] = h / 2 * (1 - 0.1 * h) * slope(s[:, 0])
        out[:, -1, 1] += h / 2 * slope(s[:, 1])
        out[:, -1, -1] += 1 - 0.1 * h + 0.005 * h * h
        return out

    def rule(s: np.ndarray) -> np.ndarray:
        for _ in range(per_sample):
            s = one(s)
        return s

    def jacobian(s: np.ndarray) -> np.ndarray:
        out = np.broadcast_to(np.eye(s.shape[1]), (len(s), s.shape[1], s.shape[1]))
        for _ in range(per_sample):
            out = one_jacobian(s) @ out
            s = one(s)
        return out

    return System(
        "mackey_glass",
        steps + 1,
        rule,
        jacobian,
        lambda rng, n: 0.9 + 0.2 * rng.uniform(-1, 1, (n, 1)) + np.zeros((1, steps + 1)),
        dt=dt,
        parameters={"tau": tau},
        source="M. C. Mackey, L. Glass, Science 197, 287 (1977)",
    )


def van_der_pol(mu: float = 1.0, dt: float = 0.1) -> System:
    """Van der Pol oscillator, a limit cycle: exponents 0 along it and -1.0594 across it at mu = 1.

    Parameters
    ----------
    mu : float
        Nonlinearity.
    dt : float
        Time between samples.

    Returns
    -------
    System
        Two-dimensional.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.van_der_pol()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 2), [])
    """

    def rule(s: np.ndarray) -> np.ndarray:
        x, v = s.T
        return np.stack([v, mu * (1 - x**2) * v - x], axis=1)

    def jacobian(s: np.ndarray) -> np.ndarray:
        x, v = s.T
        out = np.zeros((len(s), 2, 2))
        out[:, 0, 1] = 1
        out[:, 1, 0], out[:, 1, 1] = -2 * mu * x * v - 1, mu * (1 - x**2)
        return out

    return System(
        "van_der_pol",
        2,
        rule,
        jacobian,
        lambda rng, n: 2 + 0.5 * rng.uniform(-1, 1, (n, 2)),
        dt=dt,
        substeps=max(1, round(dt / 0.02)),
        parameters={"mu": mu},
        source="Floquet multiplier, computed",
    )


def hopf(omega: float = 1.0, dt: float = 0.1) -> System:
    """Normal form of the Hopf bifurcation on its limit cycle: exponents exactly 0 and -2.

    Parameters
    ----------
    omega : float
        Frequency.
    dt : float
        Time between samples.

    Returns
    -------
    System
        Two-dimensional.

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.hopf()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 2), [0.0, -2.0])
    """

    def rule(s: np.ndarray) -> np.ndarray:
        x, y = s.T
        r = 1 - x**2 - y**2
        return np.stack([r * x - omega * y, r * y + omega * x], axis=1)

    def jacobian(s: np.ndarray) -> np.ndarray:
        x, y = s.T
        out = np.empty((len(s), 2, 2))
        out[:, 0, 0], out[:, 0, 1] = 1 - 3 * x**2 - y**2, -2 * x * y - omega
        out[:, 1, 0], out[:, 1, 1] = omega - 2 * x * y, 1 - x**2 - 3 * y**2
        return out

    return System(
        "hopf",
        2,
        rule,
        jacobian,
        lambda rng, n: rng.uniform(0.5, 1, (n, 2)),
        dt=dt,
        substeps=max(1, round(dt / 0.02)),
        exact=(0.0, -2.0),
        parameters={"omega": omega},
        source="algebra",
    )


def oscillator(damping: float = 0.1, omega: float = 1.0, dt: float = 0.1) -> System:
    """Linear oscillator x'' + 2 damping x' + omega^2 x = 0: both exponents are -damping if underdamped.

    Parameters
    ----------
    damping : float
        Damping rate; 0: every orbit is closed and neutral.
    omega : float
        Undamped frequency.
    dt : float
        Time between samples.

    Returns
    -------
    System
        Two-dimensional; the state is (x, x' / omega).

    Examples
    --------
    >>> import trajtools as tt
    >>> system = tt.systems.oscillator()
    >>> system.trajectory(100, rng=0).shape, [round(value, 3) for value in system.exact[:2]]
    ((100, 2), [-0.1, -0.1])
    """
    matrix = np.array([[0.0, omega], [-omega, -2 * damping]])
    exact = tuple(sorted(np.linalg.eigvals(matrix).real.tolist(), reverse=True))
    return System(
        "oscillator",
        2,
        lambda s: s @ matrix.T,
        lambda s: np.broadcast_to(matrix, (len(s), 2, 2)),
        lambda rng, n: rng.uniform(0.5, 1, (n, 2)),
        dt=dt,
        substeps=max(1, round(dt / 0.02)),
        exact=exact,
        parameters={"damping": damping, "omega": omega},
        source="eigenvalues of the linear flow",
    )
