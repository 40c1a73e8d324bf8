"""Whether `orbital_stability` names the right class on systems that its rules were not made with.

    python benchmarks/stability.py                 # 10 draws of 6 initial conditions, 2 perturbed copies each
    python benchmarks/stability.py --draws 3

A draw is right if its class is among those that the theory allows, and it is no fault to be inconclusive; what counts
is that no other class is named.
"""

# A rule is a formula: it reads best as one.
# ruff: noqa: E731

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from unseen import stacked, system

import trajtools as tt
from trajtools.systems.system import System

INITS, COPIES, EPSILON = 6, 2, 1e-5
CYCLE, REST, AWAY, NEITHER = (
    ("orbitally stable",),
    ("asymptotically stable", "orbitally stable"),
    ("unstable",),
    ("marginal drift", "orbitally stable"),
)


def brusselator() -> System:
    """A limit cycle; (1, 3)."""
    x = lambda s: s[:, 0] ** 2 * s[:, 1]
    rule = lambda s: stacked(1 - 4 * s[:, 0] + x(s), 3 * s[:, 0] - x(s))
    return system("Brusselator", rule, (0.5, 1), (1.5, 3), dt=0.05, substeps=4)


def fitzhugh_nagumo() -> System:
    """A relaxation cycle."""
    rule = lambda s: stacked(s[:, 0] - s[:, 0] ** 3 / 3 - s[:, 1] + 0.5, (s[:, 0] + 0.7 - 0.8 * s[:, 1]) / 12.5)
    return system("FitzHugh-Nagumo", rule, (-1, -1), (1, 1), dt=0.2, substeps=4)


def selkov() -> System:
    """The cycle of glycolysis."""
    x = lambda s: 0.08 * s[:, 1] + s[:, 0] ** 2 * s[:, 1]
    return system("Selkov", lambda s: stacked(x(s) - s[:, 0], 0.6 - x(s)), (0.5, 0.5), (1, 1), dt=0.1, substeps=4)


def rossler(c: float) -> System:
    """A cycle at c = 2.5, chaos at 5.7."""
    rule = lambda s: stacked(-s[:, 1] - s[:, 2], s[:, 0] + 0.2 * s[:, 1], 0.2 + s[:, 2] * (s[:, 0] - c))
    return system(f"Rossler, c = {c:g}", rule, (-1, -1, 0), (1, 1, 1), dt=0.1, substeps=10)


def duffing(damping: float) -> System:
    """Two wells: friction leads to rest, without it every orbit is neutral."""
    rule = lambda s: stacked(s[:, 1], -damping * s[:, 1] + s[:, 0] - s[:, 0] ** 3)
    return system(f"Duffing, damping {damping:g}", rule, (1.4, -0.1), (1.6, 0.1), dt=0.1, substeps=4)


def lotka_volterra() -> System:
    """Neutral cycles."""
    x = lambda s: s[:, 0] * s[:, 1]
    return system("Lotka-Volterra", lambda s: stacked(s[:, 0] - x(s), x(s) - s[:, 1]), (0.8, 0.4), (1.2, 0.6), dt=0.1,
                  substeps=4)  # fmt: skip


def lorenz(r: float) -> System:
    """Rest at r = 20, chaos at 28."""
    rule = lambda s: stacked(
        10 * (s[:, 1] - s[:, 0]), s[:, 0] * (r - s[:, 2]) - s[:, 1], s[:, 0] * s[:, 1] - 8 / 3 * s[:, 2]
    )
    return system(f"Lorenz, r = {r:g}", rule, (6, 6, 16), (8, 8, 20), dt=0.02, substeps=4)


def heavy_ball() -> System:
    """Gradient descent with momentum 0.9 on a valley: one weight is free."""
    v, w = (lambda s: 0.9 * s[:, 2], lambda s: 0.9 * s[:, 3] - 0.1 * s[:, 1])
    rule = lambda s: stacked(s[:, 0] + v(s), s[:, 1] + w(s), v(s), w(s))
    return system("heavy ball in a valley", rule, (0.2, 0.9, 0, 0), (0.4, 1.1, 0.01, 0.01))


def logistic(r: float) -> System:
    """A cycle of four at 3.5, chaos at 3.9."""
    return system(f"logistic, r = {r:g}", lambda s: r * s * (1 - s), (0.2,), (0.8,))


ROWS = (
    (brusselator(), 2000, CYCLE), (fitzhugh_nagumo(), 2000, CYCLE), (selkov(), 3000, CYCLE),
    (rossler(2.5), 5000, CYCLE), (duffing(0.2), 0, REST), (lorenz(20), 0, REST), (logistic(3.5), 5000, REST),
    (duffing(0), 0, NEITHER), (lotka_volterra(), 0, NEITHER), (heavy_ball(), 0, NEITHER),
    (rossler(5.7), 5000, AWAY), (lorenz(28), 2000, AWAY), (logistic(3.9), 100, AWAY),
)  # fmt: skip


def draw(made: System, transient: int, states: int, rng: np.random.Generator) -> str:
    """Class of one set of initial conditions, perturbed in random directions."""
    starts = made.trajectories(INITS, 1, rng=rng, transient=transient)[:, 0]
    move = rng.standard_normal((COPIES, *starts.shape))
    move *= EPSILON / np.linalg.norm(move, axis=2, keepdims=True)
    now = np.concatenate([starts[None], starts + move]).reshape(-1, made.dimension)
    paths = np.empty((len(now), states, made.dimension))
    for t in range(states):
        paths[:, t] = now
        now = made.advance(now)
    paths = paths.reshape(1 + COPIES, INITS, states, made.dimension)
    pairs = [(paths[0, k], list(paths[1:, k])) for k in range(INITS)]
    return tt.orbital_stability(pairs, metric="l2", dt=made.dt).verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--states", type=int, default=1200)
    given = parser.parse_args()
    print("| system | allowed | right | inconclusive | wrong | what was said |\n| --- | --- | --- | --- | --- | --- |")
    for made, transient, allowed in ROWS:
        said = Counter(draw(made, transient, given.states, np.random.default_rng(k)) for k in range(given.draws))
        right, open_ = sum(said[name] for name in allowed), said["inconclusive"]
        words = ", ".join(f"{name} {count}" for name, count in said.most_common())
        wrong = given.draws - right - open_
        print(f"| {made.name} | {' or '.join(allowed)} | {right} | {open_} | {wrong} | {words} |", flush=True)


if __name__ == "__main__":
    main()
