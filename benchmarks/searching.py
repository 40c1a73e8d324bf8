"""Nearest states of an orbit, orbital stability and recurrence thresholds, as ratios to their peers in the same run.

``OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/searching.py``. Numbers are least processor times of
interleaved rounds. TRAJTOOLS_ROOT names another checkout to measure with the same program.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

ROOT = Path(os.environ.get("TRAJTOOLS_ROOT", Path(__file__).resolve().parents[1]))
sys.path[:0] = [str(ROOT)]

import trajtools as tt  # noqa: E402
from trajtools.recurrences.lines import count_lags  # noqa: E402
from trajtools.recurrences.rows import make_pair, prepare  # noqa: E402
from trajtools.recurrences.thresholds import absolute  # noqa: E402

WEIGHTS = 20


def least(functions: list[Callable[[], object]], rounds: int = 3) -> list[float]:
    times = [float("inf")] * len(functions)
    for _ in range(rounds):
        for at, function in enumerate(functions):
            start = time.process_time()
            function()
            times[at] = min(times[at], time.process_time() - start)
    return times


def lorenz(length: int, dt: float) -> np.ndarray:
    def slope(s: np.ndarray) -> np.ndarray:
        return np.array([10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]])

    states, s = np.empty((length, 3)), np.array([1.0, 1.0, 20.0])
    for i in range(length):
        a = slope(s)
        b = slope(s + dt / 2 * a)
        c = slope(s + dt / 2 * b)
        s = s + dt / 6 * (a + 2 * b + 2 * c + slope(s + dt * c))
        states[i] = s
    return states


def to_orbit() -> None:
    rng = np.random.default_rng(0)
    for length in (4000, 8000, 16000):
        paths = {
            "Lorenz": lorenz(2 * length, 0.02) @ rng.normal(size=(3, WEIGHTS)),
            "walk": np.cumsum(rng.normal(size=(2 * length, WEIGHTS)), axis=0),
        }
        for name, x in paths.items():
            a, b = x[:length], x[length:]
            tt.to_orbit(a, b)

            def search(a: np.ndarray = a, b: np.ndarray = b) -> None:
                tt.to_orbit(a, b)

            def search_by_scipy(a: np.ndarray = a, b: np.ndarray = b) -> None:
                cKDTree(b).query(a)

            ours, peer = least([search, search_by_scipy])
            print(
                f"to_orbit, {length} states of {WEIGHTS} weights, {name}: {ours:.3f} s, over cKDTree {ours / peer:.2f}"
            )


def stability() -> None:
    for length in (1000, 2000, 4000):
        x = lorenz(length, 0.02) @ np.random.default_rng(0).normal(size=(3, WEIGHTS))
        copies = [x + 1e-6 * np.random.default_rng(k).normal(size=x.shape) for k in range(4)]
        tt.orbital_stability(x[:100], copies[0][:100])

        def follow(x: np.ndarray = x, copies: list[np.ndarray] = copies) -> None:
            tt.orbital_stability(x, copies)

        (ours,) = least([follow], 1)
        print(f"orbital_stability, {length} states of {WEIGHTS} weights x 4: {ours:.2f} s")


def recurrence() -> None:
    for length in (10_000, 30_000):
        x = lorenz(length + 10, 0.05)[:, 0]
        for metric in ("linf", "l2"):
            states = prepare(x, dim=3, delay=5)
            pair = make_pair(states, states, metric)
            rule = tt.RecurrenceRate(0.05)
            small = prepare(x[:3000], dim=3, delay=5)
            absolute(make_pair(small, small, metric), rule, 1)
            level = absolute(pair, rule, 1)[0]

            def search(pair: Any = pair, rule: Any = rule) -> None:
                absolute(pair, rule, 1)

            def count(pair: Any = pair, level: float = level) -> None:
                count_lags(pair, level)

            found, counted = least([search, count], 2)
            ratio = found / counted
            print(f"recurrence, {length} vectors, {metric}: counting {counted:.2f} s, threshold over it {ratio:.2f}")


if __name__ == "__main__":
    to_orbit()
    stability()
    recurrence()
