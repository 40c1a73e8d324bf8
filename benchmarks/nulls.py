"""Records without chaos, and chaotic systems that the toolkit was not made with: what `validation.py` runs on."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from trajtools.systems import SYSTEMS
from trajtools.systems.system import System

IRIS = Path(__file__).parent.parent / "recorders" / "iris.csv"


def sine(rng: np.random.Generator) -> Any:
    t = np.arange(5000)
    return np.sin(rng.uniform(0.03, 0.5) * t + rng.uniform(0, 6))


def torus(rng: np.random.Generator) -> Any:
    t, w = np.arange(5000), rng.uniform(0.03, 0.3)
    return np.sin(w * t + rng.uniform(0, 6)) + rng.uniform(0.5, 1) * np.sin(w * np.sqrt(2) * t + rng.uniform(0, 6))


def iid(rng: np.random.Generator) -> Any:
    return rng.standard_normal(4000)


def iid_states(rng: np.random.Generator) -> Any:
    return rng.uniform(size=(4000, 3))


def random_walk(rng: np.random.Generator) -> Any:
    return np.cumsum(rng.standard_normal(4000))


def random_walk_states(rng: np.random.Generator) -> Any:
    return np.cumsum(rng.standard_normal((4000, 20)), axis=0)


def coloured(rng: np.random.Generator) -> Any:
    """A second-order autoregression, seen through a static function."""
    x, e = np.zeros(5000), rng.standard_normal(5000)
    radius, angle = rng.uniform(0.5, 0.97), rng.uniform(0.1, 1.0)
    for t in range(2, len(x)):
        x[t] = 2 * radius * np.cos(angle) * x[t - 1] - radius**2 * x[t - 2] + e[t]
    return x[500:] if rng.random() < 0.5 else np.tanh(x[500:] / x.std())


def coloured_states(rng: np.random.Generator) -> Any:
    """Stochastic gradient descent around the minimum of a quadratic: a vector autoregression."""
    h = rng.uniform(0.2, 2.0, 4)
    mix = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    x, e = np.zeros((4500, 4)), rng.standard_normal((4500, 4))
    for t in range(1, len(x)):
        x[t] = x[t - 1] * (1 - 0.1 * h) + 0.1 * e[t]
    return x[500:] @ mix


def smooth_noise(rng: np.random.Generator) -> Any:
    """Noise through a Gaussian filter: as smooth as a flow."""
    width = rng.uniform(2, 15)
    kernel = np.exp(-0.5 * (np.arange(-100, 101) / width) ** 2)
    return np.convolve(rng.standard_normal(6000), kernel, "valid")


def phase_noise(rng: np.random.Generator) -> Any:
    """A sine whose phase walks."""
    return np.sin(0.2 * np.arange(5000) + 0.05 * rng.standard_normal(5000).cumsum())


def noisy_cycle(rng: np.random.Generator) -> Any:
    """A van der Pol oscillator that is kicked at every step."""
    x, v, out = 2.0, 0.0, np.empty((4000, 2))
    for t, kick in enumerate(0.03 * rng.standard_normal((4000, 5))):
        for force in kick:
            x, v = x + 0.02 * v, v + 0.02 * ((1 - x * x) * v - x) + force
        out[t] = x, v
    return out


def changing_variance(rng: np.random.Generator) -> Any:
    """Noise whose variance depends on its past (GARCH)."""
    x, variance = np.zeros(5000), 1.0
    for t in range(1, len(x)):
        variance = 0.1 + 0.2 * x[t - 1] ** 2 + 0.7 * variance
        x[t] = np.sqrt(variance) * rng.standard_normal()
    return x


def double_well(rng: np.random.Generator) -> Any:
    """A noisy particle between two minima: nonlinear, not Gaussian, and no chaos."""
    x, e = np.zeros(6000), 0.2 * rng.standard_normal(6000)
    for t in range(1, len(x)):
        x[t] = x[t - 1] + 0.05 * (x[t - 1] - x[t - 1] ** 3) + e[t]
    return x


def van_der_pol(rng: np.random.Generator) -> Any:
    return SYSTEMS["van_der_pol"](mu=rng.uniform(0.5, 2)).trajectory(4000, rng=rng)


def quadratic(rng: np.random.Generator) -> Any:
    return SYSTEMS["quadratic_descent"](eta=0.01, curvatures=rng.uniform(0.1, 9, 10)).trajectory(
        3000, rng=rng, transient=0
    )


def real_descent(rng: np.random.Generator) -> Any:
    """Full-batch gradient descent of a 4-10-3 softmax network on Iris at eta = 0.01, recorded from the start."""
    with IRIS.open() as file:
        rows = [row for row in csv.reader(file) if row and row[0][:1].isdigit()]
    x = np.array([[float(v) for v in row[:4]] for row in rows])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y = np.eye(3)[np.unique([row[4] for row in rows], return_inverse=True)[1]]
    a, b = rng.standard_normal((4, 10)) / 2, np.zeros(10)
    c, d = rng.standard_normal((10, 3)) / 3, np.zeros(3)
    out = np.empty((3000, 83))
    for t in range(len(out)):
        out[t] = np.concatenate([a.ravel(), b, c.ravel(), d])
        hidden = np.tanh(x @ a + b)
        z = hidden @ c + d
        p = np.exp(z - z.max(axis=1, keepdims=True))
        error = (p / p.sum(axis=1, keepdims=True) - y) / len(x)
        back = (error @ c.T) * (1 - hidden**2)
        c, d = c - 0.01 * hidden.T @ error, d - 0.01 * error.sum(axis=0)
        a, b = a - 0.01 * x.T @ back, b - 0.01 * back.sum(axis=0)
    return out


def drifting(rng: np.random.Generator) -> Any:
    """Weights that drift with noise and never come back."""
    t = np.linspace(0, 1, 3000)[:, None]
    way = t * rng.standard_normal(50) + t**2 * rng.standard_normal(50)
    return way + 0.002 * rng.standard_normal((3000, 50)).cumsum(axis=0) * rng.uniform(0.1, 1)


def saddle(rng: np.random.Generator) -> Any:
    return SYSTEMS["saddle_escape"]().trajectory(1500, rng=rng, transient=0)


def saddle_twins(rng: np.random.Generator) -> Any:
    return SYSTEMS["saddle_escape"]().twins(8, 3, 400, epsilon=1e-12, rng=rng, transient=0)


def quadratic_twins(rng: np.random.Generator) -> Any:
    return SYSTEMS["quadratic_descent"](eta=0.01).twins(8, 3, 400, epsilon=1e-8, rng=rng, transient=0)


NULLS = {
    make.__name__: make
    for make in (
        sine,
        torus,
        iid,
        iid_states,
        random_walk,
        random_walk_states,
        coloured,
        coloured_states,
        smooth_noise,
        phase_noise,
        noisy_cycle,
        changing_variance,
        double_well,
        van_der_pol,
        quadratic,
        real_descent,
        drifting,
        saddle,
        quadratic_twins,
    )
}


def halvorsen() -> System:
    """Halvorsen's flow with cyclic symmetry, a = 1.4."""

    def rule(s: np.ndarray) -> np.ndarray:
        x, y, z = s.T
        return np.stack(
            [
                -1.4 * x - 4 * y - 4 * z - y * y,
                -1.4 * y - 4 * z - 4 * x - z * z,
                -1.4 * z - 4 * x - 4 * y - x * x,
            ],
            axis=1,
        )

    def jacobian(s: np.ndarray) -> np.ndarray:
        out = np.full((len(s), 3, 3), -4.0)
        for i in range(3):
            out[:, i, i] = -1.4
            out[:, i, (i + 1) % 3] = -4 - 2 * s[:, (i + 1) % 3]
        return out

    return System("halvorsen", 3, rule, jacobian, lambda rng, n: rng.uniform(-1, 1, (n, 3)), dt=0.02, substeps=8)


def holmes() -> System:
    """The cubic map of Holmes, (y, -0.2 x + 2.77 y - y^3)."""

    def jacobian(s: np.ndarray) -> np.ndarray:
        out = np.zeros((len(s), 2, 2))
        out[:, 0, 1], out[:, 1, 0], out[:, 1, 1] = 1, -0.2, 2.77 - 3 * s[:, 1] ** 2
        return out

    return System(
        "holmes",
        2,
        lambda s: np.stack([s[:, 1], -0.2 * s[:, 0] + 2.77 * s[:, 1] - s[:, 1] ** 3], axis=1),
        jacobian,
        lambda rng, n: rng.uniform(0.3, 0.7, (n, 2)),
    )


def lozi() -> System:
    """The map of Lozi, (1 - 1.7 |x| + y, 0.5 x)."""

    def jacobian(s: np.ndarray) -> np.ndarray:
        out = np.zeros((len(s), 2, 2))
        out[:, 0, 0], out[:, 0, 1], out[:, 1, 0] = -1.7 * np.sign(s[:, 0]), 1, 0.5
        return out

    return System(
        "lozi",
        2,
        lambda s: np.stack([1 - 1.7 * np.abs(s[:, 0]) + s[:, 1], 0.5 * s[:, 0]], axis=1),
        jacobian,
        lambda rng, n: rng.uniform(-0.1, 0.1, (n, 2)),
    )
