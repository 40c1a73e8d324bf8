"""Dynamical systems with known exponents, or exponents computed from their equations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from trajtools.errors import DataError
from trajtools.results import AxisNames, Result
from trajtools.statistics import random_generator
from trajtools.types import RNGLike
from trajtools.wording import counted, spoken

Rule = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(Result):
    """Lyapunov exponents computed from the equations.

    Attributes
    ----------
    values : ndarray (k,), float64
        Largest first; natural logarithm, per unit of time.
    standard_errors : ndarray (k,), float64
        Standard errors over the independent initial conditions.
    samples : ndarray (n, k), float64
        Finite-time exponents of each initial condition.
    settings : dict
        Steps, transient, initial conditions, and how many diverged.

    Examples
    --------
    >>> import trajtools as tt
    >>> spectrum = tt.systems.cat().exponents(200, n=5, rng=0)
    >>> spectrum.values.round(2).tolist()
    [0.96, -0.96]
    """

    values: np.ndarray
    standard_errors: np.ndarray
    samples: np.ndarray
    settings: dict[str, Any]
    _dims: ClassVar[AxisNames] = {
        "values": ("exponent",),
        "standard_errors": ("exponent",),
        "samples": ("start", "exponent"),
    }

    def _sentence(self) -> str:
        both = zip(self.values, self.standard_errors, strict=True)
        exponents = ", ".join(f"{spoken(value)} ({spoken(error, 1)})" for value, error in both)
        return f"{exponents}: exponents and standard errors from {counted(len(self.samples), 'start')}."

    @property
    def kaplan_yorke_dimension(self) -> float:
        """Kaplan-Yorke dimension of the computed spectrum; NaN if it needs more exponents."""
        sums = np.cumsum(self.values)
        if self.values[0] < 0:
            return 0.0
        below = np.flatnonzero(sums < 0)
        if not len(below):
            return float("nan")
        j = int(below[0])
        return j + float(sums[j - 1] / abs(self.values[j]))


@dataclass(frozen=True)
class System:
    """A map, or a flow sampled every `dt`, with its tangent map.

    Attributes
    ----------
    name : str
        Name in `SYSTEMS`.
    dimension : int
        Number of state variables d.
    rule : callable
        States (n, d) -> next states (n, d) for a map, -> time derivatives (n, d) for a flow.
    jacobian : callable
        States (n, d) -> derivatives of `rule`, (n, d, d).
    start : callable
        (generator, n) -> n random initial states (n, d) in the basin of interest.
    dt : float
        Time between two samples; 1 for a map.
    substeps : int
        Runge-Kutta steps (fourth order) within one sample of a flow; 0 for a map.
    exact : tuple of float
        Exponents known in closed form, largest first; possibly not all, or empty.
    training : bool
        Whether the system is gradient descent or a model of it.
    parameters : dict
        Parameters of the rule.
    source : str
        Reference of the system and its exponents.

    Examples
    --------
    >>> import trajtools as tt
    >>> henon = tt.systems.henon()
    >>> henon.dimension, henon.trajectory(100, rng=0).shape
    (2, (100, 2))
    >>> spectrum = henon.exponents(200, n=5, rng=0)
    >>> spectrum.values.shape
    (2,)
    """

    name: str
    dimension: int
    rule: Rule
    jacobian: Rule
    start: Callable[[np.random.Generator, int], np.ndarray]
    dt: float = 1.0
    substeps: int = 0
    exact: tuple[float, ...] = ()
    training: bool = False
    parameters: dict[str, float] = field(default_factory=dict)
    source: str = ""

    def __repr__(self) -> str:
        flow = self.substeps > 0 or self.dt != 1
        kind, clock = ("flow", f", sampled every {self.dt:g}") if flow else ("map", "")
        values = ", ".join(f"{name}={value:.6g}" for name, value in self.parameters.items())
        return f"System: {self.name}({values}), a {kind} of dimension {self.dimension}{clock}"

    def advance(self, states: np.ndarray) -> np.ndarray:
        """Advance states by one sample.

        Parameters
        ----------
        states : ndarray (n, d), float64
            States.

        Returns
        -------
        ndarray (n, d), float64
            One sample later.
        """
        if not self.substeps:
            return self.rule(states)
        h = self.dt / self.substeps
        for _ in range(self.substeps):
            a = self.rule(states)
            b = self.rule(states + h / 2 * a)
            c = self.rule(states + h / 2 * b)
            d = self.rule(states + h * c)
            states = states + h / 6 * (a + 2 * b + 2 * c + d)
        return states

    def advance_tangents(self, states: np.ndarray, tangents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Advance states and tangent vectors by one sample.

        Parameters
        ----------
        states : ndarray (n, d), float64
            States.
        tangents : ndarray (n, d, k), float64
            k tangent vectors at each state.

        Returns
        -------
        tuple of ndarray
            Both, one sample later.
        """
        if not self.substeps:
            return self.rule(states), self.jacobian(states) @ tangents
        h = self.dt / self.substeps
        for _ in range(self.substeps):
            a, p = self.rule(states), self.jacobian(states) @ tangents
            x = states + h / 2 * a
            b, q = self.rule(x), self.jacobian(x) @ (tangents + h / 2 * p)
            x = states + h / 2 * b
            c, r = self.rule(x), self.jacobian(x) @ (tangents + h / 2 * q)
            x = states + h * c
            d, s = self.rule(x), self.jacobian(x) @ (tangents + h * r)
            states = states + h / 6 * (a + 2 * b + 2 * c + d)
            tangents = tangents + h / 6 * (p + 2 * q + 2 * r + s)
        return states, tangents

    def trajectories(self, n: int, T: int, *, rng: RNGLike = None, transient: int = 1000) -> np.ndarray:
        """Simulate from random initial states.

        Parameters
        ----------
        n : int
            Number of trajectories.
        T : int, in samples
            Length of each.
        rng : int, numpy.random.Generator or None
            Seed or generator (None: the seed 0) of the initial states.
        transient : int, in samples
            Samples discarded before the first one.

        Returns
        -------
        ndarray (n, T, d), float64
            The trajectories; a diverged one is NaN or inf from there on.
        """
        for name, value, least in (("n", n, 1), ("T", T, 0), ("transient", transient, 0)):
            if not hasattr(value, "__index__") or value < least:
                raise DataError(f"{name} must be an integer, at least {least}; got {value!r}")
        rng = random_generator(rng)
        states = self.start(rng, n)
        with np.errstate(all="ignore"):
            for _ in range(transient):
                states = self.advance(states)
            out = np.empty((n, T, self.dimension))
            for t in range(T):
                out[:, t] = states
                states = self.advance(states)
        return out

    def trajectory(self, T: int, *, rng: RNGLike = None, transient: int = 1000) -> np.ndarray:
        """Simulate one trajectory from a random initial state.

        Parameters
        ----------
        T : int, in samples
            Length.
        rng : int, numpy.random.Generator or None
            Seed or generator (None: the seed 0) of the initial state.
        transient : int, in samples
            Samples discarded before the first one.

        Returns
        -------
        ndarray (T, d), float64
            The trajectory.
        """
        return self.trajectories(1, T, rng=rng, transient=transient)[0]

    def twins(
        self,
        n: int,
        copies: int,
        T: int,
        *,
        epsilon: float,
        rng: RNGLike = None,
        transient: int = 1000,
    ) -> list[tuple[np.ndarray, list[np.ndarray]]]:
        """Simulate references and perturbed copies, for `trajtools.twins`.

        Parameters
        ----------
        n : int
            Number of initial conditions.
        copies : int
            Number of perturbed copies of each.
        T : int, in samples
            Length.
        epsilon : float
            Every entry of a copy is perturbed by Uniform(-epsilon, epsilon).
        rng : int, numpy.random.Generator or None
            Seed or generator (None: the seed 0) of initial states and perturbations.
        transient : int, in samples
            Samples discarded before the perturbation.

        Returns
        -------
        list of (ndarray (T, d), list of ndarray (T, d))
            A reference and its copies, for every initial condition.
        """
        rng = random_generator(rng)
        states = self.start(rng, n)
        with np.errstate(all="ignore"):
            for _ in range(transient):
                states = self.advance(states)
            states = np.repeat(states[:, None], copies + 1, axis=1)
            states[:, 1:] += rng.uniform(-epsilon, epsilon, size=states[:, 1:].shape)
            states = states.reshape(-1, self.dimension)
            out = np.empty((n * (copies + 1), T, self.dimension))
            for t in range(T):
                out[:, t] = states
                states = self.advance(states)
        groups = out.reshape(n, copies + 1, T, self.dimension)
        return [(group[0], list(group[1:])) for group in groups]

    def exponents(
        self,
        T: int,
        *,
        rng: RNGLike = None,
        k: int | None = None,
        n: int = 16,
        transient: int = 1000,
    ) -> Spectrum:
        """Compute Lyapunov exponents from the tangent map (Benettin's method, QR at every sample).

        Parameters
        ----------
        T : int, in samples
            Number of samples used.
        rng : int, numpy.random.Generator or None
            Seed or generator (None: the seed 0) of initial states and tangent vectors.
        k : int, optional
            Number of exponents; all by default.
        n : int
            Independent initial conditions, for the standard errors.
        transient : int, in samples
            Samples discarded while the tangent vectors align.

        Returns
        -------
        Spectrum
            Natural logarithm, per unit of time.

        Raises
        ------
        DataError
            If every initial condition diverges.

        References
        ----------
        .. [1] G. Benettin et al., Meccanica 15, 9 and 21 (1980), doi:10.1007/BF02128236
        """
        k = self.dimension if k is None else k
        rng = random_generator(rng)
        states = self.start(rng, n)
        tangents = np.linalg.qr(rng.standard_normal((n, self.dimension, k)))[0]
        sums = np.zeros((n, k))
        with np.errstate(all="ignore"):
            for t in range(transient + T):
                states, tangents = self.advance_tangents(states, tangents)
                alive = np.isfinite(tangents).all(axis=(1, 2))
                # A diverged run keeps a valid frame; its sum is NaN.
                tangents[~alive] = np.eye(self.dimension, k)
                tangents, r = np.linalg.qr(tangents)
                if t >= transient:
                    sums += np.log(np.abs(np.diagonal(r, axis1=1, axis2=2)))
                sums[~alive] = np.nan
        samples = sums / (T * self.dt)
        good = samples[np.isfinite(samples[:, 0])]
        if not len(good):
            raise DataError(f"{self.name}: all {n} initial conditions diverged; start in the basin of the attractor")
        error = good.std(axis=0, ddof=1) / np.sqrt(len(good)) if len(good) > 1 else np.full(k, np.nan)
        settings = {"T": T, "transient": transient, "n": n, "n_escaped": n - len(good), "k": k, "dt": self.dt}
        return Spectrum(good.mean(axis=0), error, samples, settings)
