"""Records without chaos and records of chaos, as functions of a seed: what `false_alarms.py` runs on.

`DEVELOPMENT` were looked at while the tests of one trajectory were made. `HELD_OUT` were written down before, and not
run before the code was frozen. A first frozen version was wrong on three of ten records of `sheared_cycle_observed` and
one of `filtered_telegraph`: both moved to `DEVELOPMENT`, and the last four of `HELD_OUT` were added before the second
version ran. That version lost Holmes' map, which moved to `SEEN`. `FRESH` were written for the version after that,
before any of them was run. Every record is one trajectory; parameters are drawn from the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.signal import butter, lfilter, sosfilt
from unseen import UNSEEN, halvorsen, holmes, lozi

from trajtools.systems import SYSTEMS
from trajtools.systems.system import System

Record = Callable[[np.random.Generator], Any]


def euler(
    field: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    noise: float | np.ndarray,
    rng: np.random.Generator,
    *,
    states: int,
    step: float,
    substeps: int,
    transient: int = 500,
) -> np.ndarray:
    """Stochastic differential equation by the Euler-Maruyama scheme; one state every `substeps` steps."""
    x, out = np.asarray(start, dtype=float), np.empty((states, len(start)))
    kicks = rng.standard_normal(((states + transient) * substeps, len(start))) * (noise * np.sqrt(step))
    for t, kick in enumerate(kicks):
        x = x + step * field(x) + kick
        at, rest = divmod(t, substeps)
        if rest == substeps - 1 and at >= transient:
            out[at - transient] = x
    return out


def stuart_landau(rng: np.random.Generator, shear: float, noise: float, states: int = 5000) -> np.ndarray:
    z, out = 1.0 + 0j, np.empty(states + 500, dtype=complex)
    kicks = noise * (rng.standard_normal((len(out), 2)) @ [1, 1j])
    for t, kick in enumerate(kicks):
        z += 0.05 * (z * (1 + 2j) - (1 + shear * 1j) * abs(z) ** 2 * z) + kick
        out[t] = z
    return np.stack([out.real, out.imag], axis=1)[500:]


def noisy_map(
    rule: Callable[[Any], Any], start: Any, noise: float, rng: np.random.Generator, states: int = 5000
) -> np.ndarray:
    x = np.atleast_1d(np.asarray(start, dtype=float))
    kicks = noise * rng.standard_normal((states + 1000, len(x)))
    out = np.empty_like(kicks)
    for t, kick in enumerate(kicks):
        x = np.atleast_1d(rule(x)) + kick
        out[t] = x
    return out[1000:, 0] if len(x) == 1 else out[1000:]


def power_law_noise(rng: np.random.Generator, exponent: float, states: int) -> np.ndarray:
    """Gaussian noise whose spectrum is frequency ** -exponent; half of a record of twice the length."""
    frequency = np.fft.rfftfreq(2 * states)
    size = np.zeros(len(frequency))
    size[1:] = frequency[1:] ** (-exponent / 2)
    phases = rng.standard_normal((2, len(size)))
    return np.fft.irfft(size * (phases[0] + 1j * phases[1]))[:states]


# -- development -------------------------------------------------------------------------------------------------------


def sheared_cycle(rng: np.random.Generator) -> Any:
    return stuart_landau(rng, 3.0, rng.choice([0.005, 0.02, 0.05]))


def sheared_cycle_series(rng: np.random.Generator) -> Any:
    return stuart_landau(rng, rng.uniform(0, 4), rng.choice([0.01, 0.03]))[:, 0]


def noisy_period_3(rng: np.random.Generator) -> Any:
    return noisy_map(lambda x: np.clip(3.84 * x * (1 - x), 0.01, 0.99), 0.5, rng.choice([3e-4, 1e-3]), rng)


def noisy_period_2(rng: np.random.Generator) -> Any:
    return noisy_map(lambda x: np.clip(3.3 * x * (1 - x), 0.01, 0.99), 0.5, rng.choice([1e-3, 1e-2]), rng, 2000)


def ar1(rng: np.random.Generator) -> Any:
    return lfilter([1], [1, -0.9], rng.standard_normal(1300))[300:]


def moving_average(rng: np.random.Generator) -> Any:
    return np.convolve(rng.standard_normal(1510), np.ones(10), "valid")


def interpolated_noise(rng: np.random.Generator) -> Any:
    return np.interp(np.arange(0, 300, 0.1), np.arange(301), rng.standard_normal(301))


def one_over_f(rng: np.random.Generator) -> Any:
    return power_law_noise(rng, 1.0, 3000)


def fractional_motion(rng: np.random.Generator) -> Any:
    return power_law_noise(rng, 2 * rng.uniform(0.2, 0.8) + 1, 3000)


def ar2(rng: np.random.Generator) -> Any:
    radius, angle = rng.uniform(0.8, 0.99), rng.uniform(0.1, 1.0)
    return lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], rng.standard_normal(4500))[500:]


def measured_torus(rng: np.random.Generator) -> Any:
    t, w = np.arange(4000), rng.uniform(0.03, 0.3)
    x = np.sin(w * t + rng.uniform(0, 6)) + rng.uniform(0.5, 1) * np.sin(w * np.sqrt(2) * t + rng.uniform(0, 6))
    return x + rng.choice([0.01, 0.05, 0.2]) * rng.standard_normal(len(t))


def strange_nonchaotic(rng: np.random.Generator) -> Any:
    """Grebogi, Ott, Pelikan and Yorke 1984: 2 sigma tanh(x) cos(2 pi theta); the largest exponent is 0."""
    x, theta, sigma, out = rng.uniform(0.5, 1), rng.random(), rng.choice([1.2, 1.5, 2.0]), np.empty((6000, 3))
    for t in range(len(out)):
        x, theta = 2 * sigma * np.tanh(x) * np.cos(2 * np.pi * theta), (theta + (np.sqrt(5) - 1) / 2) % 1
        out[t] = x, np.cos(2 * np.pi * theta), np.sin(2 * np.pi * theta)
    return out[1000:]


def sgd_on_quadratic(rng: np.random.Generator) -> Any:
    h = rng.uniform(0.2, 2.0, 6)
    mix = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    noise = 0.1 * rng.standard_normal((4500, 6))
    return (
        np.stack([lfilter([1], [1, -(1 - 0.1 * rate)], e) for rate, e in zip(h, noise.T, strict=True)], 1)[500:] @ mix
    )


def drifting_weights(rng: np.random.Generator) -> Any:
    t = np.linspace(0, 1, 3000)[:, None]
    way = t * rng.standard_normal(30) + t**2 * rng.standard_normal(30)
    return way + 0.002 * rng.standard_normal((3000, 30)).cumsum(axis=0) * rng.uniform(0.1, 1)


def random_walk(rng: np.random.Generator) -> Any:
    return rng.standard_normal((3000, int(rng.choice([1, 3])))).cumsum(axis=0)


def noisy_van_der_pol(rng: np.random.Generator) -> Any:
    def field(s: np.ndarray) -> np.ndarray:
        return np.array([s[1], (1 - s[0] ** 2) * s[1] - s[0]])

    return euler(
        field, np.array([2.0, 0]), np.array([0, rng.choice([0.1, 0.4])]), rng, states=4000, step=0.02, substeps=5
    )


def filtered_noise(rng: np.random.Generator) -> Any:
    width = rng.uniform(2, 15)
    return np.convolve(rng.standard_normal(4000), np.exp(-0.5 * (np.arange(-100, 101) / width) ** 2), "valid")


def double_well(rng: np.random.Generator) -> Any:
    return euler(lambda s: s - s**3, np.array([1.0]), 0.9, rng, states=5000, step=0.05, substeps=1)[:, 0]


# -- held out ----------------------------------------------------------------------------------------------------------


def sheared_cycle_observed(rng: np.random.Generator) -> Any:
    """Other shears and noises, seen through three nonlinear functions."""
    shear = rng.choice([-4.0, 1.0, 6.0])

    def field(s: np.ndarray) -> np.ndarray:
        x, y, square = s[0], s[1], s[0] ** 2 + s[1] ** 2
        return np.array([x - 2 * y - square * (x - shear * y), y + 2 * x - square * (y + shear * x)])

    noise = rng.uniform(0.02, 0.2)
    x, y = euler(field, np.array([1.0, 0]), noise, rng, states=4000, step=0.01, substeps=5).T
    return np.stack([x + 0.3 * y**2, np.tanh(y), x * y], axis=1)


def noisy_fitzhugh_nagumo(rng: np.random.Generator) -> Any:
    def field(s: np.ndarray) -> np.ndarray:
        return np.array([s[0] - s[0] ** 3 / 3 - s[1] + 0.5, 0.08 * (s[0] + 0.7 - 0.8 * s[1])])

    noise = np.array([rng.choice([0.02, 0.1]), 0])
    return euler(field, np.array([0.0, 0]), noise, rng, states=4000, step=0.05, substeps=10)


def noisy_brusselator_series(rng: np.random.Generator) -> Any:
    def field(s: np.ndarray) -> np.ndarray:
        return np.array([1 - 3.2 * s[0] + s[0] ** 2 * s[1], 2.2 * s[0] - s[0] ** 2 * s[1]])

    noise = rng.choice([0.01, 0.04])
    return euler(field, np.array([1.0, 1]), noise, rng, states=4000, step=0.02, substeps=10)[:, 0]


def noisy_henon_cycle(rng: np.random.Generator) -> Any:
    """Henon's map with a = 0.95, a cycle of period 4 whose noise is kept small."""
    return noisy_map(
        lambda s: np.array([1 - 0.95 * s[0] ** 2 + s[1], 0.3 * s[0]]), [0.1, 0.1], rng.choice([1e-3, 5e-3]), rng
    )


def noisy_ricker_cycle(rng: np.random.Generator) -> Any:
    return noisy_map(lambda x: np.abs(x * np.exp(2.3 - x)), 1.0, rng.choice([2e-3, 2e-2]), rng, 3000)


def heavy_tailed_arma(rng: np.random.Generator) -> Any:
    return lfilter([1, 0.5, 0.3], [1, -0.6, 0.2, -0.3], rng.standard_t(4, 3500))[500:]


def filtered_telegraph(rng: np.random.Generator) -> Any:
    sign = np.where(np.cumsum(rng.random(3500) < rng.uniform(0.02, 0.1)) % 2, 1.0, -1.0)
    keep = rng.uniform(0.8, 0.97)
    return lfilter([1 - keep], [1, -keep], sign)[500:]


def threshold_autoregression(rng: np.random.Generator) -> Any:
    x, out = 0.0, np.empty(4500)
    for t, kick in enumerate(rng.standard_normal(len(out))):
        x = (0.9 * x + 1.0 if x <= 0 else -0.6 * x + 0.5) + 0.5 * kick
        out[t] = x
    return out[500:]


def changing_variance(rng: np.random.Generator) -> Any:
    x, variance, out = 0.0, 1.0, np.empty(4500)
    for t, kick in enumerate(rng.standard_normal(len(out))):
        variance = 0.1 + 0.2 * x**2 + 0.7 * variance
        x = np.sqrt(variance) * kick
        out[t] = x
    return out[500:]


def forced_logistic_nonchaotic(rng: np.random.Generator) -> Any:
    """Logistic map with quasi-periodic forcing that is too weak for chaos (exponents of -0.6 and below)."""
    x, theta, strength, out = 0.4, rng.random(), rng.uniform(0.005, 0.03), np.empty((6000, 3))
    for t in range(len(out)):
        x, theta = 3.3 * (1 + strength * np.cos(2 * np.pi * theta)) * x * (1 - x), (theta + (np.sqrt(5) - 1) / 2) % 1
        out[t] = x, np.cos(2 * np.pi * theta), np.sin(2 * np.pi * theta)
    return out[1000:]


def measured_three_torus(rng: np.random.Generator) -> Any:
    t, w = np.arange(5000), rng.uniform(0.05, 0.2)
    angles = [w * ratio * t + rng.uniform(0, 6) for ratio in (1, np.sqrt(2), (np.sqrt(5) - 1) / 2)]
    x = np.stack([f(a) for a in angles for f in (np.cos, np.sin)], axis=1)
    return x + rng.choice([0.003, 0.03]) * rng.standard_normal(x.shape)


def diffusing_torus(rng: np.random.Generator) -> Any:
    t = np.arange(5000)
    walk = rng.choice([0.005, 0.05]) * rng.standard_normal((2, 5000)).cumsum(axis=1)
    a, b = 0.13 * t + walk[0], 0.13 * np.sqrt(3) * t + walk[1]
    return np.stack([(2 + np.cos(b)) * np.cos(a), (2 + np.cos(b)) * np.sin(a), np.sin(b)], axis=1)


def non_normal_diffusion(rng: np.random.Generator) -> Any:
    """An Ornstein-Uhlenbeck process whose matrix is far from symmetric."""
    pull = np.diag([1.0, 1.2, 1.5, 0.8]) + np.triu(rng.uniform(-4, 4, (4, 4)), 1)
    return euler(lambda s: -pull @ s, np.zeros(4), 0.5, rng, states=4000, step=0.05, substeps=2)


def momentum_on_quadratic(rng: np.random.Generator) -> Any:
    columns = [
        lfilter([1], [1, -(1.9 - 0.1 * h), 0.9], 0.02 * rng.standard_normal(4500)) for h in rng.uniform(0.2, 3.0, 5)
    ]
    return np.stack(columns, axis=1)[500:]


def cubed_diffusion(rng: np.random.Generator) -> Any:
    return lfilter([1], [1, -rng.uniform(0.8, 0.98)], rng.standard_normal(4500))[500:] ** 3


def seasons_in_noise(rng: np.random.Generator) -> Any:
    t = np.arange(3000)
    return np.sin(2 * np.pi * t / 52) + rng.uniform(0.1, 1) * lfilter([1], [1, -0.7], rng.standard_normal(3000))


def noisy_predator_prey(rng: np.random.Generator) -> Any:
    def field(s: np.ndarray) -> np.ndarray:  # in logarithms, with a weak pull to a cycle
        return np.array([1 - np.exp(s[1]) - 0.05 * np.exp(s[0]), np.exp(s[0]) - 1])

    return euler(field, np.array([0.5, 0]), rng.choice([0.05, 0.2]), rng, states=4000, step=0.02, substeps=8)


def noisy_duffing(rng: np.random.Generator) -> Any:
    """Duffing's oscillator driven in resonance: a noisy cycle of period 1."""

    def field(s: np.ndarray) -> np.ndarray:
        pull = 1 - s[2] ** 2 - s[3] ** 2  # keeps the force on its circle
        drive = [-1.2 * s[3] + pull * s[2], 1.2 * s[2] + pull * s[3]]
        return np.array([s[1], -0.4 * s[1] + s[0] - s[0] ** 3 + 0.2 * s[2], *drive])

    noise = np.array([0, rng.choice([0.02, 0.1]), 0, 0])
    return euler(field, np.array([1.0, 0, 1, 0]), noise, rng, states=4000, step=0.02, substeps=8)


def fractional_noise(rng: np.random.Generator) -> Any:
    return power_law_noise(rng, rng.uniform(0.3, 0.8), 4000)


def noisy_double_cycle(rng: np.random.Generator) -> Any:
    """Two coupled Stuart-Landau oscillators, one with shear, that are kicked."""
    out, z = np.empty((5000, 2), dtype=complex), np.array([1.0, 1j])
    kicks = rng.choice([0.005, 0.02]) * (rng.standard_normal((5500, 2, 2)) @ [1, 1j])
    for t, kick in enumerate(kicks):
        growth = z * (1 + np.array([2j, 1.3j])) - (1 + np.array([2j, 0])) * abs(z) ** 2 * z
        z = z + 0.05 * (growth + 0.1 * z[::-1]) + kick
        if t >= 500:
            out[t - 500] = z
    return np.concatenate([out.real, out.imag], axis=1)


def stiff_cycle_observed(rng: np.random.Generator) -> Any:
    """A van der Pol oscillator with a hardening spring, whose frequency depends on the amplitude, and noise."""
    stiffness = rng.uniform(1, 3)

    def field(s: np.ndarray) -> np.ndarray:
        return np.array([s[1], 0.3 * (1 - s[0] ** 2) * s[1] - s[0] - stiffness * s[0] ** 3])

    noise = np.array([0, rng.choice([0.05, 0.2, 0.5])])
    x, v = euler(field, np.array([1.0, 0]), noise, rng, states=4000, step=0.005, substeps=20).T
    return np.stack([x, v, x * x - 0.2 * v], axis=1)


def switching_autoregression(rng: np.random.Generator) -> Any:
    """Two autoregressions that take turns at random times."""
    second = np.cumsum(rng.random(3500) < 0.03) % 2
    x, out = 0.0, np.empty(3500)
    for t, kick in enumerate(rng.standard_normal(3500)):
        x = 0.95 * x + 0.1 * kick if second[t] else -0.7 * x + 1.0 + 0.3 * kick
        out[t] = x
    return out[500:]


def shot_noise(rng: np.random.Generator) -> Any:
    """Pulses at random times that decay exponentially."""
    pulses = (rng.random(4500) < rng.uniform(0.01, 0.1)) * rng.exponential(size=4500)
    return lfilter([1], [1, -rng.uniform(0.8, 0.97)], pulses)[500:] + 1e-3 * rng.standard_normal(4000)


def excitable_spikes(rng: np.random.Generator) -> Any:
    """FitzHugh-Nagumo at rest, in which noise triggers spikes."""

    def field(s: np.ndarray) -> np.ndarray:
        return np.array([(s[0] - s[0] ** 3 / 3 - s[1]) / 0.05, s[0] + 1.05])

    noise = np.array([0, rng.choice([0.1, 0.25])])
    return euler(field, np.array([-1.0, -0.6]), noise, rng, states=4000, step=0.002, substeps=25)


# -- fresh: written before any of them was run -------------------------------------------------------------------------


def selkov_series(rng: np.random.Generator) -> Any:
    """Sel'kov's glycolytic cycle, one coordinate, with noise in proportion to the state."""
    x, y, out = 1.0, 1.0, np.empty(4000)
    kicks = rng.choice([0.02, 0.1]) * np.sqrt(0.02) * rng.standard_normal((4500 * 10, 2))
    for t, (a, b) in enumerate(kicks):
        fed = 0.08 * y + x * x * y
        x, y = abs(x + 0.02 * (fed - x) + x * a), abs(y + 0.02 * (0.6 - fed) + y * b)
        if t % 10 == 9 and t >= 5000:
            out[t // 10 - 500] = x
    return out


def sheared_cycle_red_noise(rng: np.random.Generator) -> Any:
    """A Stuart-Landau cycle with shear, pushed by noise that has a memory."""
    shear, keep = rng.uniform(1.5, 4), rng.uniform(0.7, 0.95)
    push = lfilter(
        [np.sqrt(1 - keep**2)], [1, -keep], rng.choice([0.003, 0.01]) * rng.standard_normal((5500, 2)), axis=0
    )
    z, out = 1.0 + 0j, np.empty((5500, 2))
    for t, kick in enumerate(push @ [1, 1j]):
        z += 0.05 * (z * (1 + 3j) - (1 + shear * 1j) * abs(z) ** 2 * z) + kick
        out[t] = z.real, z.imag
    return out[500:]


def noisy_sine_map_cycle(rng: np.random.Generator) -> Any:
    """The sine map's cycle of period 2 or 4, far from its windows of chaos."""
    height = rng.choice([0.78, 0.84])
    return noisy_map(lambda x: np.abs(height * np.sin(np.pi * x)), 0.4, rng.choice([3e-4, 2e-3]), rng, 3000)


def long_autoregression(rng: np.random.Generator) -> Any:
    """Six stable roots drawn at random, uniform innovations."""
    pairs = rng.uniform(0.5, 0.97, 3) * np.exp(1j * rng.uniform(0.1, 3.0, 3))
    return lfilter([1], np.poly(np.concatenate([pairs, pairs.conj()])).real, rng.uniform(-1, 1, 5000))[1000:]


def random_weights_average(rng: np.random.Generator) -> Any:
    """A moving average with random weights, seen through an exponential."""
    x = np.convolve(rng.standard_normal(3100), rng.standard_normal(int(rng.integers(4, 40))), "valid")[:3000]
    return np.exp(0.7 * x / x.std())


def spline_noise(rng: np.random.Generator) -> Any:
    """White noise interpolated by a cubic spline, 6 to 12 samples a knot."""
    each = int(rng.integers(6, 13))
    return CubicSpline(np.arange(420), rng.standard_normal(420))(np.arange(10, 410, 1 / each))[:3500]


def band_noise(rng: np.random.Generator) -> Any:
    """White noise through a narrow or a wide band-pass filter."""
    centre, width = rng.uniform(0.03, 0.15), rng.uniform(0.1, 0.6)
    band = butter(3, [2 * centre * (1 - width / 2), 2 * centre * (1 + width / 2)], "band", output="sos")
    return sosfilt(band, rng.standard_normal(5000))[1000:]


def fractional_motion_states(rng: np.random.Generator) -> Any:
    return np.stack([power_law_noise(rng, 2 * h + 1, 3000) for h in rng.uniform(0.2, 0.8, 3)], axis=1)


def breathing_torus(rng: np.random.Generator) -> Any:
    """Two frequencies whose amplitudes are an autoregression each; states on two circles."""
    t, w = np.arange(4000), rng.uniform(0.05, 0.25)
    size = 1 + 0.1 * lfilter([np.sqrt(1 - 0.98**2)], [1, -0.98], rng.standard_normal((2, 4000)), axis=1)
    angles = np.stack([w * t, w * np.sqrt(3) * t]) + rng.uniform(0, 6, (2, 1))
    return np.concatenate([size * np.cos(angles), size * np.sin(angles)]).T


def minibatch_regression(rng: np.random.Generator) -> Any:
    """SGD on least squares with batches of 8 of 200 examples: around the minimum, the noise depends on the state."""
    inputs = rng.standard_normal((200, 8)) * rng.uniform(0.3, 1.5, 8)
    targets = inputs @ rng.standard_normal(8) + 0.5 * rng.standard_normal(200)
    w, rate, out = np.zeros(8), rng.choice([0.02, 0.1]), np.empty((5000, 8))
    for t in range(len(out)):
        batch = rng.integers(0, 200, 8)
        w = w - rate * inputs[batch].T @ (inputs[batch] @ w - targets[batch]) / 8
        out[t] = w
    return out[1000:]


def cooling_descent(rng: np.random.Generator) -> Any:
    """SGD on a quadratic whose rate falls as the root of the step: it drifts, and its noise shrinks."""
    h, w, out = rng.uniform(0.1, 2.0, 6), 3 * rng.standard_normal(6), np.empty((4000, 6))
    for t, kick in enumerate(rng.standard_normal(out.shape)):
        w = w - 0.3 / np.sqrt(1 + t / 50) * (h * w + 0.3 * kick)
        out[t] = w
    return out


def tanh_torus_nonchaotic(rng: np.random.Generator) -> Any:
    """The forced map of `strange_nonchaotic` with another rotation and a constant push, x and one phase recorded."""
    x, theta, sigma, out = rng.uniform(0.5, 1), rng.random(), rng.uniform(1.6, 2.5), np.empty((6000, 2))
    for t in range(len(out)):
        x, theta = 2 * sigma * np.tanh(x) * np.cos(2 * np.pi * theta) + 0.1, (theta + np.sqrt(2) - 1) % 1
        out[t] = x, np.cos(2 * np.pi * theta + 0.4)
    return out[1000:]


DEVELOPMENT: dict[str, Record] = {
    make.__name__: make
    for make in (
        sheared_cycle,
        sheared_cycle_series,
        noisy_period_3,
        noisy_period_2,
        ar1,
        moving_average,
        interpolated_noise,
        one_over_f,
        fractional_motion,
        ar2,
        measured_torus,
        strange_nonchaotic,
        sgd_on_quadratic,
        drifting_weights,
        random_walk,
        noisy_van_der_pol,
        filtered_noise,
        double_well,
        sheared_cycle_observed,
        filtered_telegraph,
    )
}
HELD_OUT: dict[str, Record] = {
    make.__name__: make
    for make in (
        noisy_fitzhugh_nagumo,
        noisy_brusselator_series,
        noisy_henon_cycle,
        noisy_ricker_cycle,
        heavy_tailed_arma,
        threshold_autoregression,
        changing_variance,
        forced_logistic_nonchaotic,
        measured_three_torus,
        diffusing_torus,
        non_normal_diffusion,
        momentum_on_quadratic,
        cubed_diffusion,
        seasons_in_noise,
        noisy_predator_prey,
        noisy_duffing,
        fractional_noise,
        noisy_double_cycle,
        stiff_cycle_observed,
        switching_autoregression,
        shot_noise,
        excitable_spikes,
    )
}
FRESH: dict[str, Record] = {
    make.__name__: make
    for make in (
        selkov_series,
        sheared_cycle_red_noise,
        noisy_sine_map_cycle,
        long_autoregression,
        random_weights_average,
        spline_noise,
        band_noise,
        fractional_motion_states,
        breathing_torus,
        minibatch_regression,
        cooling_descent,
        tanh_torus_nonchaotic,
    )
}


# -- chaos -------------------------------------------------------------------------------------------------------------


def chaos(make: Callable[[], System], states: int, column: int | None, noise: float) -> Record:
    """A trajectory of a system with measurement noise, a share of the standard deviation of each coordinate."""

    def record(rng: np.random.Generator) -> Any:
        for _ in range(20):  # some starts run away
            x = make().trajectory(states, rng=rng, transient=1000)
            if np.isfinite(x).all():
                break
        x = x + noise * x.std(axis=0) * rng.standard_normal(x.shape)
        return x if column is None else x[:, column]

    return record


def named(name: str, **parameters: Any) -> Callable[[], System]:
    return lambda: SYSTEMS[name](**parameters)


SEEN = {
    "logistic": (named("logistic"), 5000, None),
    "logistic 3.7": (named("logistic", r=3.7), 5000, None),
    "henon": (named("henon"), 5000, None),
    "henon, x only": (named("henon"), 5000, 0),
    "ikeda": (named("ikeda"), 5000, None),
    "lorenz": (named("lorenz"), 10000, None),
    "lorenz, x only": (named("lorenz"), 10000, 0),
    "rossler": (named("rossler"), 10000, None),
    "quartic descent": (named("quartic_descent"), 5000, None),
    "linear network": (named("linear_network", eta=1.8), 5000, None),
    "holmes": (holmes, 5000, None),
    "thomas": (UNSEEN["thomas"], 20000, None),
}
UNUSED = {
    "softmax map": (named("softmax_map"), 5000, None),
    "lozi": (lozi, 5000, None),
    "halvorsen": (halvorsen, 10000, None),
    "chen": (UNSEEN["chen"], 10000, None),
    "sprott b": (UNSEEN["sprott_b"], 10000, None),
    "driven pendulum": (UNSEEN["driven_pendulum"], 10000, None),
    "tinkerbell": (UNSEEN["tinkerbell"], 5000, None),
    "ricker": (UNSEEN["ricker"], 5000, None),
    "cat": (UNSEEN["cat"], 5000, None),
    "hyperchaos": (UNSEEN["hyperchaos"], 20000, None),
    "mackey-glass": (named("mackey_glass"), 10000, -1),
}


def chaotic(systems: dict[str, Any]) -> dict[str, Record]:
    return {
        f"{name}{suffix}": chaos(*row, noise)
        for name, row in systems.items()
        for suffix, noise in (("", 0.0), (" + 1 %", 0.01))
    }
