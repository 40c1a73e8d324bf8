"""Twins without chaos, and twins of chaotic systems, for `false_alarms.py`.

Each family is drawn with one reference and several copies, with few and with many references, and with one planting or
several: what a user records. `DEVELOPMENT` was looked at while the rules were made; `HELD_OUT` was not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import trajtools as tt
from trajtools.exponents.divergence import Divergence
from trajtools.exponents.exponent import Exponent

T = np.arange(401.0)
Make = Callable[[np.random.Generator, int], np.ndarray]


def of_curves(make: Make) -> Callable[[int], Exponent]:
    """Families that are curves of d: one unit, four or twelve, in turn."""

    def run(seed: int) -> Exponent:
        rng = np.random.default_rng([sum(map(ord, make.__name__)), seed])
        units = (1, 4, 12)[seed % 3]
        return Divergence.from_distances(make(rng, units).T).fit()

    return run


def of_map(step: Callable[[Any, np.random.Generator, Any], Any], dim: int, *, dtype: str = "float64", length: int = 400,
           epsilon: float = 1e-8, starts: tuple[int, ...] = (0,), burn: int = 300, size: float = 0.5,
           ) -> Callable[[int], Exponent]:  # fmt: skip
    """Families that are maps of states (n, dim) with common noise: ``step(states, rng, t)``, rng the same for all."""

    def run(seed: int) -> Exponent:
        units = (1, 4, 12)[seed % 3]
        pairs = []
        for unit in range(units):
            rng = np.random.default_rng([dim, seed, unit])
            x = (size * rng.uniform(0.2, 0.9, dim)).astype(dtype)
            noise = np.random.default_rng([seed, unit, 1])
            for t in range(burn):
                x = step(x, noise, t).astype(dtype)
            members = [x] + [None] * (2 * len(starts))
            record: list[list[Any]] = []
            for t in range(length):
                for k, start in enumerate(starts):
                    if t == start:
                        for c in (0, 1):
                            members[1 + 2 * k + c] = (members[0] + epsilon * rng.uniform(-1, 1, dim)).astype(dtype)
                record.append([members[0] if m is None else m for m in members])
                state = noise.bit_generator.state
                following = []
                for m in members:
                    noise.bit_generator.state = state
                    following.append(None if m is None else step(m, noise, t).astype(dtype))
                members = following
            states = np.array(record)
            pairs.append((states[:, 0], list(states[:, 1:].swapaxes(0, 1))))
        return tt.twins(pairs).fit()

    return run


def power_noise(rng: np.random.Generator, n: int) -> np.ndarray:
    return 1e-8 * (1 + T) ** rng.uniform(0.3, 8) * np.exp(0.3 * rng.standard_normal((n, len(T))))


def diffusion(rng: np.random.Generator, n: int) -> np.ndarray:
    steps = rng.standard_normal((n, len(T), 30)) * 10 ** rng.uniform(-8, -3)
    return 1e-8 + np.abs(steps.cumsum(axis=1)).sum(axis=2)


def ballistic(rng: np.random.Generator, n: int) -> np.ndarray:
    return 1e-8 * (1 + 10 ** rng.uniform(-1, 4, (n, 1)) * T)


def bump(rng: np.random.Generator, n: int) -> np.ndarray:
    return (
        1e-8
        * np.exp(rng.uniform(1, 5) * np.exp(-(((T - 150) / 50) ** 2)))
        * np.exp(0.1 * rng.standard_normal((n, len(T))))
    )


def jump(rng: np.random.Generator, n: int) -> np.ndarray:
    d = np.full((n, len(T)), 10 ** rng.uniform(-4, -1)) * np.exp(0.3 * rng.standard_normal((n, len(T))))
    d[:, : int(rng.integers(1, 4))] = 1e-9
    return d


def small_log_walk(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.exp(-18 + 0.05 * rng.standard_normal((n, len(T))).cumsum(axis=1))


def large_log_walk(rng: np.random.Generator, n: int) -> np.ndarray:
    """As large as the growth itself: reported apart, the answer should be 'inconclusive'."""
    return np.exp(-18 + np.minimum(rng.standard_normal((n, len(T))).cumsum(axis=1), 18))


def stretched(rng: np.random.Generator, n: int) -> np.ndarray:
    """A logarithm that grows as a root: exp(t^0.4), slower than any exponential."""
    return 1e-8 * np.exp(rng.uniform(0.8, 1.2, (n, 1)) * T**0.4) * np.exp(0.1 * rng.standard_normal((n, len(T))))


def logarithm(rng: np.random.Generator, n: int) -> np.ndarray:
    return 1e-8 * np.log(2 + T) ** rng.uniform(1, 4, (n, 1)) * np.exp(0.1 * rng.standard_normal((n, len(T))))


def autoregression(rng: np.random.Generator, n: int) -> np.ndarray:
    """Distances of twins that see noise of their own around one minimum."""
    x = np.zeros((n, len(T), 10))
    for t in range(1, len(T)):
        x[:, t] = 0.9 * x[:, t - 1] + 1e-3 * rng.standard_normal((n, 10))
    return 1e-8 + np.abs(x).sum(axis=2)


def _quadratic(x: Any, rng: np.random.Generator, t: int) -> Any:
    return x - 0.1 * (np.linspace(0.05, 15, len(x)) * x + 0.3 * rng.standard_normal(len(x)))


def _noisy_period_three(x: Any, rng: np.random.Generator, t: int) -> Any:
    return np.clip(3.84 * x * (1 - x) + 0.001 * rng.standard_normal(), 0, 1)


def _sheared_cycle(x: Any, rng: np.random.Generator, t: int) -> Any:
    z = x[0] + 1j * x[1]
    z += 0.05 * (z * (1 + 2j) - (1 + 3j) * abs(z) ** 2 * z) + 0.02 * complex(*rng.standard_normal(2))
    return np.array([z.real, z.imag])


def _rotation(x: Any, rng: np.random.Generator, t: int) -> Any:
    c, s = np.cos(0.3), np.sin(0.3)
    return np.concatenate([c * x[::2] - s * x[1::2], s * x[::2] + c * x[1::2]])


def _drift(x: Any, rng: np.random.Generator, t: int) -> Any:
    return x + 0.01 + 0.001 * np.tanh(x) * np.cos(0.1 * t)


def _runaway(x: Any, rng: np.random.Generator, t: int) -> Any:
    return -1.1 * x


def _growing(x: Any, rng: np.random.Generator, t: int) -> Any:
    return 1.02 * x


def _separable(x: Any, rng: np.random.Generator, t: int) -> Any:
    """Logistic regression on separable data: the weights grow for ever, as a logarithm."""
    return x + 0.5 / (1 + np.exp(np.clip(x.sum(), -50, 50)))


def _strange_nonchaotic(x: Any, rng: np.random.Generator, t: int) -> Any:
    phase = (x[1] + (np.sqrt(5) - 1) / 2) % 1.0
    return np.array([3.0 * np.tanh(x[0]) * np.cos(2 * np.pi * x[1]), phase])


def _logistic_29(x: Any, rng: np.random.Generator, t: int) -> Any:
    return 2.9 * x * (1 - x)


def _momentum(x: Any, rng: np.random.Generator, t: int) -> Any:
    half = len(x) // 2
    v = 0.9 * x[half:] - 0.05 * np.linspace(0.1, 30, half) * x[:half]
    return np.concatenate([x[:half] + v, v])


THRICE = (0, 130, 260)
DEVELOPMENT = {
    "twins: powers with noise": of_curves(power_noise),
    "twins: diffusion": of_curves(diffusion),
    "twins: ballistic": of_curves(ballistic),
    "twins: bump": of_curves(bump),
    "twins: small walk of ln d": of_curves(small_log_walk),
    "twins: stretched exponential": of_curves(stretched),
    "twins: SGD on a quadratic": of_map(_quadratic, 20, starts=THRICE),
    "twins: noisy period three": of_map(_noisy_period_three, 1, starts=THRICE),
    "twins: runaway": of_map(_runaway, 3, burn=0, starts=THRICE),
    "twins: rotation in float32": of_map(_rotation, 20, dtype="float32", epsilon=1e-6, starts=THRICE),
    "twins: contracting map": of_map(_logistic_29, 1),
}
HELD_OUT = {
    "twins: jump": of_curves(jump),
    "twins: logarithm": of_curves(logarithm),
    "twins: autoregression": of_curves(autoregression),
    "twins: sheared cycle, common noise": of_map(_sheared_cycle, 2, starts=THRICE),
    "twins: drift": of_map(_drift, 10, burn=0, starts=THRICE),
    "twins: slow runaway": of_map(_growing, 3, burn=0, length=1500),
    "twins: separable": of_map(_separable, 5, burn=0, starts=THRICE),
    "twins: strange, not chaotic": of_map(_strange_nonchaotic, 2, starts=THRICE),
    "twins: momentum on a quadratic": of_map(_momentum, 20, burn=0, starts=THRICE),
    "twins: momentum in float32": of_map(_momentum, 20, dtype="float32", epsilon=1e-5, burn=0, starts=THRICE),
}
APART = {"twins: large walk of ln d": of_curves(large_log_walk)}


def power(make: Callable[[], Any], units: int, starts: int, *, epsilon: float = 1e-10) -> Callable[[int], Exponent]:
    """Twins of a chaotic system: `units` references, planted anew `starts` times as saturation allows."""

    def run(seed: int) -> Exponent:
        system = make()
        rng = np.random.default_rng([units, starts, seed])
        rate = float(system.exact[0]) if system.exact else rate_of(system)
        length = int(1.5 * -np.log(epsilon) / rate / system.dt)
        for _ in range(20):  # some starts run away
            reference = system.trajectories(units, length * starts, rng=rng)
            if np.isfinite(reference).all():
                break
        curves, group, at = [], [], []
        for k in range(starts):
            part = reference[:, k * length : (k + 1) * length]
            states = np.repeat(part[:, 0], 3, axis=0)
            states = states + rng.uniform(-epsilon, epsilon, states.shape)
            for t in range(length):
                distance = np.abs(states - np.repeat(part[:, t], 3, axis=0)).sum(axis=1)
                curves.append(distance)
                states = system.advance(states)
            group += np.repeat(np.arange(units), 3).tolist()
            at += [round(k * length)] * (3 * units)
        d = np.concatenate(np.array(curves).reshape(starts, length, -1), axis=1)
        clock = np.arange(length) * system.dt
        return Divergence.from_distances(d, group=group, start=at, time=clock, time_unit="time").fit()

    return run


_RATES: dict[tuple[str, bytes], float] = {}


def rate_of(system: Any) -> float:
    """Largest exponent from the tangent map, roughly: how long twins take."""
    state = system.start(np.random.default_rng(0), 1)
    key = system.name, system.rule(state).tobytes()  # systems of one name differ by their parameters
    if key not in _RATES:
        _RATES[key] = float(system.exponents(2000, rng=np.random.default_rng(0), k=1, n=16).values[0])
    return _RATES[key]
