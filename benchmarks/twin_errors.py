"""What limits the error of twins on maps: the estimator, or how many initial conditions there are.

    python benchmarks/twin_errors.py --seeds 20

For each map and size of the ensemble (three copies of each initial condition, planted once, epsilon 1e-10): the median
error of `tt.twins(...).fit()`; the median difference between the fit and the growth of a tangent vector along the same
references over the same steps, which is the error of the estimator alone; and the mean error with its standard error,
the bias. What is left of the first is the scatter of the finite-time exponent itself, which falls with the root of the
number of initial conditions.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
from twin_families import rate_of
from validation import TWINS

import trajtools as tt
from trajtools.exponents.growth_phase import find_window, make_cells

MAPS = [
    "logistic",
    "logistic 3.7",
    "quartic GD, eta 2",
    "henon",
    "ikeda",
    "softmax map, gain 10",
    "linear network, eta 1.8",
    "coupled logistic (4 maps, 0.2)",
    "coupled quartic GD (2 maps)",
    "holmes",
    "lozi",
    "tinkerbell",
    "ricker",
]


def pairs_of(system: Any, inits: int, rng: np.random.Generator) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Twins whose references stay finite; some starts run away."""
    length, pairs = int(1.5 * np.log(1e10) / rate_of(system) / system.dt), []
    while len(pairs) < inits:
        more = system.twins(inits, 3, length, epsilon=1e-10, rng=rng)
        pairs += [pair for pair in more if np.isfinite(pair[0]).all()]
    return pairs[:inits]


def tangent_growth(system: Any, references: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Logarithm of the length of a tangent vector along each reference, (n, T)."""
    vector, out = rng.standard_normal((len(references), references.shape[2])), np.zeros(references.shape[:2])
    for t in range(references.shape[1] - 1):
        vector = np.einsum("nij,nj->ni", system.jacobian(references[:, t]), vector)
        length = np.linalg.norm(vector, axis=1)
        vector, out[:, t + 1] = vector / length[:, None], out[:, t] + np.log(length)
    return out


def errors(name: str, inits: int, seed: int, true: float) -> tuple[float, float]:
    """Relative error of the fit, and of the fit against the tangent vector over the same steps."""
    system = TWINS[name][0]()
    rng = np.random.default_rng([sum(map(ord, name)), inits, seed])
    pairs = pairs_of(system, inits, rng)
    growth = tt.twins(pairs, dt=system.dt)
    cells = make_cells(growth)
    window = find_window(cells)
    if window is None:
        return np.nan, np.nan
    tangent = tangent_growth(system, np.array([reference for reference, _ in pairs]), rng)[cells.group]
    rows = np.flatnonzero(window.last > window.first)
    gain = tangent[rows, window.last[rows]] - tangent[rows, window.first[rows]]
    exact = gain.sum() / np.sum(cells.time[window.last[rows]] - cells.time[window.first[rows]])
    value = growth.fit().value
    return value / true - 1, (value - exact) / true


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--inits", type=int, nargs="*", default=[12, 48, 192])
    parser.add_argument("--systems", nargs="*", default=MAPS)
    arguments = parser.parse_args()
    columns = [f"{inits}: error | estimator alone | bias" for inits in arguments.inits]
    print(f"| initial conditions | {' | '.join(columns)} |\n{'| --- ' * (3 * len(columns) + 1)}|")
    for name in arguments.systems:
        system = TWINS[name][0]()
        rng = np.random.default_rng(12345)
        true = (
            system.exact[0] if system.exact else system.exponents(20000, rng=rng, k=1, n=16, transient=2000).values[0]
        )
        cells = []
        for inits in arguments.inits:
            each = np.array([errors(name, inits, seed, float(true)) for seed in range(arguments.seeds)])
            each = each[np.isfinite(each[:, 0])]
            middle, alone = np.median(np.abs(each), axis=0)
            error = each[:, 0].std(ddof=1) / np.sqrt(len(each))
            cells.append(f"{middle:.1%} | {alone:.2%} | {each[:, 0].mean():+.1%} ± {error:.1%}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
