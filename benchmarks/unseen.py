"""Chaotic systems that the rules of the fit were not made with: maps and flows from the literature.

Tangent maps are exact to rounding by a complex step, so that a system is its rule and where it starts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trajtools.systems.system import Rule, System

STEP = 1e-30  # imaginary; its square vanishes beside anything


def system(
    name: str,
    rule: Callable[[np.ndarray], np.ndarray],
    low: tuple[float, ...],
    high: tuple[float, ...],
    *,
    dt: float = 1.0,
    substeps: int = 0,
    exact: tuple[float, ...] = (),
) -> System:
    """A rule on states (n, d), analytic in them, that starts between `low` and `high`."""

    def jacobian(s: np.ndarray) -> np.ndarray:
        columns = [rule(s + 1j * STEP * unit).imag / STEP for unit in np.eye(s.shape[1])]
        return np.stack(columns, axis=2)

    return System(
        name,
        len(low),
        rule,
        jacobian,
        lambda rng, n: rng.uniform(low, high, (n, len(low))),
        dt=dt,
        substeps=substeps,
        exact=exact,
    )


def stacked(*columns: np.ndarray) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*columns), axis=1)


def chen() -> System:
    """Chen and Ueta 1999, (35, 3, 28)."""
    return system(
        "chen",
        lambda s: stacked(
            35 * (s[:, 1] - s[:, 0]),
            -7 * s[:, 0] - s[:, 0] * s[:, 2] + 28 * s[:, 1],
            s[:, 0] * s[:, 1] - 3 * s[:, 2],
        ),
        (-5, -5, 10),
        (5, 5, 20),
        dt=0.005,
        substeps=4,
    )


def thomas() -> System:
    """Thomas's cyclically symmetric flow, b = 0.18."""
    return system(
        "thomas", lambda s: np.sin(np.roll(s, -1, axis=1)) - 0.18 * s, (-2,) * 3, (2,) * 3, dt=0.25, substeps=5
    )


def sprott_b() -> System:
    """Sprott 1994, case B: (yz, x - y, 1 - xy)."""
    return system(
        "sprott b",
        lambda s: stacked(s[:, 1] * s[:, 2], s[:, 0] - s[:, 1], 1 - s[:, 0] * s[:, 1]),
        (-1,) * 3,
        (1,) * 3,
        dt=0.08,
        substeps=4,
    )


def driven_pendulum() -> System:
    """A damped pendulum in a periodic force (damping 0.5, force 1.15, frequency 2/3); angle and phase on circles."""

    def rule(s: np.ndarray) -> np.ndarray:
        # The angle t lives as (cos t, sin t), and so does the phase of the force.
        cosine, sine, speed, force, other = s.T
        return stacked(-sine * speed, cosine * speed, -0.5 * speed - sine + 1.15 * force, -2 / 3 * other, 2 / 3 * force)

    made = system("driven pendulum", rule, (0,) * 5, (1,) * 5, dt=0.1, substeps=4)

    def start(rng: np.random.Generator, n: int) -> np.ndarray:
        angle, speed, phase = rng.uniform(-np.pi, np.pi, (3, n))
        return stacked(np.cos(angle), np.sin(angle), speed / np.pi, np.cos(phase), np.sin(phase))

    return System(made.name, 5, rule, made.jacobian, start, dt=made.dt, substeps=made.substeps)


def hyperchaos() -> System:
    """Rossler 1979 in four dimensions, with two positive exponents."""
    return system(
        "hyperchaos",
        lambda s: stacked(
            -s[:, 1] - s[:, 2],
            s[:, 0] + 0.25 * s[:, 1] + s[:, 3],
            3 + s[:, 0] * s[:, 2],
            -0.5 * s[:, 2] + 0.05 * s[:, 3],
        ),
        (-21, -1, -1, 14),
        (-19, 1, 1, 16),
        dt=0.1,
        substeps=10,
    )


def cat() -> System:
    """Arnold's cat map, on two circles (angles as cosines and sines); exact."""

    def rule(s: np.ndarray) -> np.ndarray:
        a, b = s[:, 0] + 1j * s[:, 1], s[:, 2] + 1j * s[:, 3]
        one, two = a * b, a * b * b
        return stacked(*(part for z in (one / abs(one), two / abs(two)) for part in (z.real, z.imag)))

    def start(rng: np.random.Generator, n: int) -> np.ndarray:
        a, b = rng.uniform(0, 2 * np.pi, (2, n))
        return stacked(np.cos(a), np.sin(a), np.cos(b), np.sin(b))

    value = float(np.log((3 + np.sqrt(5)) / 2))
    return System("cat", 4, rule, lambda s: np.zeros((len(s), 4, 4)), start, exact=(value, -value))


def tinkerbell() -> System:
    """The Tinkerbell map (0.9, -0.6013, 2, 0.5)."""
    return system(
        "tinkerbell",
        lambda s: stacked(
            s[:, 0] ** 2 - s[:, 1] ** 2 + 0.9 * s[:, 0] - 0.6013 * s[:, 1],
            2 * s[:, 0] * s[:, 1] + 2 * s[:, 0] + 0.5 * s[:, 1],
        ),
        (-0.75, -0.65),
        (-0.7, -0.6),
    )


def ricker() -> System:
    """Ricker's map x exp(3 - x)."""
    return system("ricker", lambda s: s * np.exp(3.0 - s), (0.5,), (2.0,))


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


# -- written before the fit of one trajectory was changed again; the second half was run once that was frozen ------


def delayed_logistic() -> System:
    """The delayed logistic map, 2.27 x (1 - y)."""
    return system(
        "delayed logistic", lambda s: stacked(2.27 * s[:, 0] * (1 - s[:, 1]), s[:, 0]), (0.4,) * 2, (0.6,) * 2
    )


def standard() -> System:
    """The standard map, K = 7, on two circles (angle and momentum as cosines and sines)."""

    def rule(s: np.ndarray) -> np.ndarray:
        cosine, sine, other, momentum = s.T
        c, m = np.cos(7 * sine), np.sin(7 * sine)
        kicked, moved = other * c - momentum * m, other * m + momentum * c
        return stacked(cosine * kicked - sine * moved, cosine * moved + sine * kicked, kicked, moved)

    made = system("standard", rule, (0,) * 4, (1,) * 4)

    def start(rng: np.random.Generator, n: int) -> np.ndarray:
        a, b = rng.uniform(0, 2 * np.pi, (2, n))
        return stacked(np.cos(a), np.sin(a), np.cos(b), np.sin(b))

    return System(made.name, 4, rule, made.jacobian, start)


def generalised_henon(dimension: int = 3) -> System:
    """Baier and Klein 1990: d - 1 positive exponents in d dimensions."""

    def rule(s: np.ndarray) -> np.ndarray:
        return np.concatenate([(1.76 - s[:, -2] ** 2 - 0.1 * s[:, -1])[:, None], s[:, :-1]], axis=1)

    return system(f"generalised henon, {dimension}", rule, (0.0,) * dimension, (0.5,) * dimension)


def gingerbread() -> System:
    """Devaney's gingerbread man, (1 - y + |x|, x): area preserving, started in the chaotic sea."""
    return system(
        "gingerbread",
        lambda s: stacked(1 - s[:, 1] + np.where(s[:, 0].real < 0, -s[:, 0], s[:, 0]), s[:, 0]),
        (-0.15, -0.05),
        (-0.05, 0.05),
    )


def coupled_ricker() -> System:
    """Three maps of Ricker, x exp(3 - x), in a ring with coupling 0.1."""

    def rule(s: np.ndarray) -> np.ndarray:
        y = s * np.exp(3.0 - s)
        return 0.8 * y + 0.1 * (np.roll(y, 1, axis=1) + np.roll(y, -1, axis=1))

    return system("coupled ricker", rule, (0.5,) * 3, (2.0,) * 3)


def forced(name: str, force: Rule, frequency: float, ranges: tuple[float, float], dt: float) -> System:
    """An oscillator x'' = force(x, x', cos) in a periodic force, whose phase lives on a circle."""

    def rule(s: np.ndarray) -> np.ndarray:
        return stacked(s[:, 1], force(s), -frequency * s[:, 3], frequency * s[:, 2])

    made = system(name, rule, (0,) * 4, (1,) * 4, dt=dt, substeps=4)

    def start(rng: np.random.Generator, n: int) -> np.ndarray:
        x, phase = rng.uniform(*ranges, n), rng.uniform(-np.pi, np.pi, n)
        return stacked(x, np.zeros(n), np.cos(phase), np.sin(phase))

    return System(name, 4, rule, made.jacobian, start, dt=dt, substeps=4)


def ueda() -> System:
    """Ueda 1979: x'' = -0.05 x' - x^3 + 7.5 cos t."""
    return forced("ueda", lambda s: -0.05 * s[:, 1] - s[:, 0] ** 3 + 7.5 * s[:, 2], 1.0, (-1, 1), 0.1)


def rabinovich_fabrikant() -> System:
    """Rabinovich and Fabrikant 1979, (1.1, 0.87)."""
    return system(
        "rabinovich fabrikant",
        lambda s: stacked(
            s[:, 1] * (s[:, 2] - 1 + s[:, 0] ** 2) + 0.87 * s[:, 0],
            s[:, 0] * (3 * s[:, 2] + 1 - s[:, 0] ** 2) + 0.87 * s[:, 1],
            -2 * s[:, 2] * (1.1 + s[:, 0] * s[:, 1]),
        ),
        (-1.05, -0.05, 0.45),
        (-0.95, 0.05, 0.55),
        dt=0.05,
        substeps=8,
    )


def nose_hoover() -> System:
    """The oscillator of Nose and Hoover (Sprott A): conservative, started in the chaotic sea."""
    return system(
        "nose hoover",
        lambda s: stacked(s[:, 1], -s[:, 0] + s[:, 1] * s[:, 2], 1 - s[:, 1] ** 2),
        (-0.05, 4.95, -0.05),
        (0.05, 5.05, 0.05),
        dt=0.1,
        substeps=4,
    )


def sprott_e() -> System:
    """Sprott 1994, case E: (yz, x^2 - y, 1 - 4x)."""
    return system(
        "sprott e",
        lambda s: stacked(s[:, 1] * s[:, 2], s[:, 0] ** 2 - s[:, 1], 1 - 4 * s[:, 0]),
        (0.9,) * 3,
        (1.1,) * 3,
        dt=0.1,
        substeps=4,
    )


def rucklidge() -> System:
    """Rucklidge 1992, (2, 6.7): double convection."""
    return system(
        "rucklidge",
        lambda s: stacked(-2 * s[:, 0] + 6.7 * s[:, 1] - s[:, 1] * s[:, 2], s[:, 0], -s[:, 2] + s[:, 1] ** 2),
        (0.9, -0.1, 4.4),
        (1.1, 0.1, 4.6),
        dt=0.06,
        substeps=4,
    )


def gauss() -> System:
    """The Gauss (mouse) map, exp(-6.2 x^2) - 0.5."""
    return system("gauss", lambda s: np.exp(-6.2 * s**2) - 0.5, (0.0,), (0.2,))


def burgers() -> System:
    """Burgers' map, (0.75 x - y^2, 1.75 y + x y)."""
    return system(
        "burgers",
        lambda s: stacked(0.75 * s[:, 0] - s[:, 1] ** 2, 1.75 * s[:, 1] + s[:, 0] * s[:, 1]),
        (-0.12, 0.08),
        (-0.08, 0.12),
    )


def lorenz_map() -> System:
    """Lorenz's chaotic map in three dimensions, (xy - z, x, y)."""
    return system(
        "lorenz map",
        lambda s: stacked(s[:, 0] * s[:, 1] - s[:, 2], s[:, 0], s[:, 1]),
        (0.49, 0.49, -1.01),
        (0.51, 0.51, -0.99),
    )


def generalised_henon_4() -> System:
    """Baier and Klein's map in four dimensions."""
    return generalised_henon(4)


def coupled_tents() -> System:
    """Two skew tent maps (peak at 0.6) with coupling 0.1."""

    def rule(s: np.ndarray) -> np.ndarray:
        y = np.where(s.real < 0.6, s / 0.6, (1 - s) / 0.4)
        return 0.9 * y + 0.1 * y[:, ::-1]

    return system("coupled tents", rule, (0.2,) * 2, (0.8,) * 2)


def duffing() -> System:
    """Two wells in a periodic force: x'' = -0.3 x' + x - x^3 + 0.5 cos 1.2 t."""
    return forced("duffing", lambda s: -0.3 * s[:, 1] + s[:, 0] - s[:, 0] ** 3 + 0.5 * s[:, 2], 1.2, (-1, 1), 0.1)


def burke_shaw() -> System:
    """Burke and Shaw 1981, (10, 4.272)."""
    return system(
        "burke shaw",
        lambda s: stacked(-10 * (s[:, 0] + s[:, 1]), -s[:, 1] - 10 * s[:, 0] * s[:, 2], 10 * s[:, 0] * s[:, 1] + 4.272),
        (0.5, -0.1, -0.1),
        (0.7, 0.1, 0.1),
        dt=0.02,
        substeps=8,
    )


def arneodo() -> System:
    """Arneodo, Coullet and Tresser 1981: x''' = 5.5 x - 3.5 x' - x'' - x^3."""
    return system(
        "arneodo",
        lambda s: stacked(s[:, 1], s[:, 2], 5.5 * s[:, 0] - 3.5 * s[:, 1] - s[:, 2] - s[:, 0] ** 3),
        (0.15, 0.15, -0.8),
        (0.25, 0.25, -0.7),
        dt=0.06,
        substeps=4,
    )


def lorenz84() -> System:
    """Lorenz 1984, (0.25, 4, 8, 1)."""
    return system(
        "lorenz84",
        lambda s: stacked(
            -0.25 * s[:, 0] - s[:, 1] ** 2 - s[:, 2] ** 2 + 2.0,
            s[:, 0] * s[:, 1] - 4 * s[:, 0] * s[:, 2] - s[:, 1] + 1.0,
            4 * s[:, 0] * s[:, 1] + s[:, 0] * s[:, 2] - s[:, 2],
        ),
        (0.9, 0.9, -0.1),
        (1.1, 1.1, 0.1),
        dt=0.05,
        substeps=6,
    )


def henon_heiles() -> System:
    """Henon and Heiles 1964 at an energy of about 0.16: conservative, started in the chaotic sea."""
    return system(
        "henon heiles",
        lambda s: stacked(s[:, 2], s[:, 3], -s[:, 0] - 2 * s[:, 0] * s[:, 1], -s[:, 1] - s[:, 0] ** 2 + s[:, 1] ** 2),
        (0.0, -0.1501, 0.5399, 0.0),
        (0.0, -0.1499, 0.5401, 0.0),
        dt=0.2,
        substeps=4,
    )


UNSEEN = {
    make.__name__: make for make in (chen, thomas, sprott_b, driven_pendulum, hyperchaos, cat, tinkerbell, ricker)
}
SECOND = {
    make.__name__: make
    for make in (
        delayed_logistic,
        standard,
        generalised_henon,
        gingerbread,
        coupled_ricker,
        ueda,
        rabinovich_fabrikant,
        nose_hoover,
        sprott_e,
        rucklidge,
    )
}
THIRD = {
    make.__name__: make
    for make in (
        gauss,
        burgers,
        lorenz_map,
        generalised_henon_4,
        coupled_tents,
        duffing,
        burke_shaw,
        arneodo,
        lorenz84,
        henon_heiles,
    )
}
