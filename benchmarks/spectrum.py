"""Errors and coverage of `tt.lyapunov_spectrum` on maps, without and with measurement noise.

    python benchmarks/spectrum.py                            # fourteen maps, 2 lengths: a minute
    python benchmarks/spectrum.py --lengths 1000 --seeds 1

The true exponents are those of the tangent map along the same orbit. "Linear" is linear maps of 2 (d + 1) neighbours
with intervals from blocks of time alone. The quadratic maps of the default were developed on the Hénon map, its choice
of more neighbours and the wider intervals on the first eight maps below, and that noise leads to quadratic maps of more
neighbours on Burgers' map too. The last four were run when this was done.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np

import trajtools as tt

Rule = Callable[[np.ndarray], np.ndarray]
NOISES = (0.0, 1e-3)  # standard deviation over that of each coordinate


def ikeda(x: np.ndarray) -> np.ndarray:
    angle = 0.4 - 6 / (1 + x[0] ** 2 + x[1] ** 2)
    c, s = 0.9 * np.cos(angle), 0.9 * np.sin(angle)
    return np.array([1 + x[0] * c - x[1] * s, x[0] * s + x[1] * c])


def generalised_henon(x: np.ndarray) -> np.ndarray:
    return np.array([1.76 - x[1] ** 2 - 0.1 * x[2], x[0], x[1]])


def coupled_logistic(x: np.ndarray) -> np.ndarray:
    y = 3.9 * x * (1 - x)
    return 0.9 * y + 0.1 * y[::-1]


def tinkerbell(x: np.ndarray) -> np.ndarray:
    a, b = x
    return np.array([a * a - b * b + 0.9 * a - 0.6013 * b, 2 * a * b + 2 * a + 0.5 * b])


def holmes(x: np.ndarray) -> np.ndarray:
    return np.array([x[1], -0.2 * x[0] + 2.77 * x[1] - x[1] ** 3])


def delayed_logistic(x: np.ndarray) -> np.ndarray:
    return np.array([2.27 * x[0] * (1 - x[1]), x[0]])


def standard(x: np.ndarray) -> np.ndarray:
    momentum = x[1] + 7 * np.sin(x[0])
    return np.array([x[0] + momentum, momentum]) % (2 * np.pi)


def lozi(x: np.ndarray) -> np.ndarray:
    return np.array([1 - 1.7 * abs(x[0]) + x[1], 0.5 * x[0]])


def burgers(x: np.ndarray) -> np.ndarray:
    return np.array([0.75 * x[0] - x[1] ** 2, 1.75 * x[1] + x[0] * x[1]])


def fold(x: np.ndarray) -> np.ndarray:
    return np.array([x[1] - 0.1 * x[0], x[0] ** 2 - 1.7])


def gauss(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-6.2 * x**2) - 0.5)


def coupled_tents(x: np.ndarray) -> np.ndarray:
    y = np.where(x < 0.6, x / 0.6, (1 - x) / 0.4)
    return 0.9 * y + 0.1 * y[::-1]


def lorenz(x: np.ndarray) -> np.ndarray:
    return np.array([x[0] * x[1] - x[2], x[0], x[1]])


def coupled_henon(x: np.ndarray) -> np.ndarray:
    a, b, c, d = x
    return np.array([1 - 1.4 * (0.9 * a + 0.1 * c) ** 2 + b, 0.3 * a, 1 - 1.4 * (0.9 * c + 0.1 * a) ** 2 + d, 0.3 * c])


MAPS: dict[str, tuple[Rule, list[float]]] = {
    "ikeda": (ikeda, [0.5, 0.0]),
    "generalised henon": (generalised_henon, [1.0, 0.1, 0.0]),
    "coupled logistic": (coupled_logistic, [0.3, 0.6]),
    "tinkerbell": (tinkerbell, [-0.72, -0.64]),
    "holmes": (holmes, [0.1, 0.2]),
    "delayed logistic": (delayed_logistic, [0.5, 0.5]),
    "standard, K = 7": (standard, [0.5, 0.5]),
    "lozi": (lozi, [0.1, 0.1]),
    "burgers": (burgers, [-0.1, 0.1]),
    "fold": (fold, [0.1, 0.1]),
    "gauss": (gauss, [0.1]),
    "coupled tents": (coupled_tents, [0.3, 0.7]),
    "lorenz map": (lorenz, [0.5, 0.5, -1.0]),
    "coupled henon": (coupled_henon, [0.1, 0.1, 0.2, 0.1]),
}


def orbit(rule: Rule, start: list[float], length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Orbit (T, d), and its exponents from the tangent map."""
    x = np.array(start) + 1e-3 * np.random.default_rng(seed).standard_normal(len(start))
    for _ in range(500):
        x = rule(x)
    states, frame, logs = np.empty((length, len(start))), np.eye(len(start)), np.zeros(len(start))
    for t in range(length):
        states[t] = x
        frame, stretched = np.linalg.qr(jacobian(rule, x) @ frame)
        logs += np.log(np.abs(np.diag(stretched)))
        x = rule(x)
    return states, logs / length


def jacobian(rule: Rule, x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences; a jump of a torus is taken out."""
    columns = [(rule(x + step * unit) - rule(x - step * unit)) for unit in np.eye(len(x))]
    return np.stack([np.where(np.abs(c) > np.pi, c - 2 * np.pi * np.sign(c), c) for c in columns], axis=1) / (2 * step)


HELD_OUT = ("gauss", "coupled tents", "lorenz map", "coupled henon")


def measured(names: list[str], lengths: list[int], seeds: int) -> Iterator[tuple[str, str, bool, float, float]]:
    """Rows (case, which exponent, whether the interval covers, relative error, relative half width)."""
    for name in names:
        rule, start = MAPS[name]
        for length in lengths:
            for seed in range(seeds):
                x, true = orbit(rule, start, length, seed)
                for noise in NOISES:
                    y = x + noise * x.std(axis=0) * np.random.default_rng(seed + 5).standard_normal(x.shape)
                    linear = tt.NearestK(2 * (x.shape[1] + 1))
                    for kind, neighbors in (("linear", linear), ("default", None)):
                        found = tt.lyapunov_spectrum(y, theiler=1, neighbors=neighbors)
                        ends = found.intervals if neighbors is None else statistical(found)
                        for i, (value, (low, high)) in enumerate(zip(found.values, ends, strict=True)):
                            place = "largest" if i == 0 else "smallest" if i == len(true) - 1 else "middle"
                            if np.isfinite(value):
                                error, width = abs(value - true[i]), (high - low) / 2
                                row = low <= true[i] <= high, error / abs(true[i]), width / abs(true[i])
                                maps = "held out" if name in HELD_OUT else "seen"
                                if not row[0] and kind == "default":
                                    print(f"missed: {name}, {length} states, noise {noise:g}, {place}: {row}")
                                yield f"{maps} | {kind}, noise {noise:g}", place, *row
        print(f"{name} done", flush=True)


def statistical(found: tt.exponents.LyapunovSpectrum) -> np.ndarray:
    """Intervals from the blocks of time alone."""
    from scipy.stats import t

    blocks = found.block_values
    reach = t.ppf((1 + found.level) / 2, len(blocks) - 1) * blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks))
    ends = np.full((len(found.values), 2), np.nan)
    ends[: len(reach)] = found.values[: len(reach), None] + reach[:, None] * [-1, 1]
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="*", default=[1000, 3000])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--maps", nargs="*", default=list(MAPS), choices=list(MAPS))
    options = parser.parse_args()
    groups: dict[tuple[str, str], list[tuple[bool, float, float]]] = {}
    for case, place, *row in measured(options.maps, options.lengths, options.seeds):
        groups.setdefault((case, place), []).append(tuple(row))
    print("| systems | maps | exponent | interval covers | median error | half width |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (case, place), rows in sorted(groups.items(), reverse=True):
        covers, errors, widths = np.array(rows, float).T
        known = f"{int(covers.sum())} of {len(rows)}"
        print(f"| {case} | {place} | {known} | {np.median(errors):.1%} | {np.median(widths):.1%} |")


if __name__ == "__main__":
    main()
