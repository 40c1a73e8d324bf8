"""Trajectories with planted twins on systems whose growth is known."""

import numpy as np

from trajtools.exponents.twins import twins


def orbit(step, x, n):
    states = [x]
    for _ in range(n):
        states.append(step(states[-1]))
    return np.array(states)


def pairs(step, states, *, epsilon, copies, n, rng, inward=False):
    """One (reference, [perturbed, ...]) for each of the states (N, P)."""
    found = []
    for x in states:
        shift = epsilon * rng.uniform(-1, 1, (copies, len(x)))
        if inward:
            shift = -np.sign(x) * np.abs(shift)
        found.append((orbit(step, x, n), list(orbit(step, x + shift, n).swapaxes(0, 1))))
    return found


def logistic(x):
    return 4 * x * (1 - x)


def logistic_growth(seed, *, inits=30, copies=3, epsilon=1e-10, n=60, **options):
    rng = np.random.default_rng(seed)
    states = np.sin(np.pi * rng.uniform(0, 1, (inits, 1)) / 2) ** 2
    return twins(pairs(logistic, states, epsilon=epsilon, copies=copies, n=n, rng=rng), **options)


def quartic(x):
    """Gradient descent on (x^2 - 1)^2 / 4 with learning rate 2: x -> 3 x - 2 x^3, exponent ln 3."""
    return 3 * x - 2 * x**3


def quartic_growth(seed, *, inits=30, copies=3, weights=2, epsilon=1e-10, n=40):
    rng = np.random.default_rng(seed)
    states = np.sqrt(2) * np.sin(np.pi * rng.uniform(-0.5, 0.5, (inits, weights)))
    return twins(pairs(quartic, states, epsilon=epsilon, copies=copies, n=n, rng=rng, inward=True))


def skew_tent(x, p=0.3):
    return np.where(x < p, x / p, (1 - x) / (1 - p))


SKEW_TENT_EXPONENT = -0.3 * np.log(0.3) - 0.7 * np.log(0.7)


def skew_tent_growth(seed, *, inits=30, copies=3):
    rng = np.random.default_rng(seed)
    states = rng.uniform(0, 1, (inits, 1))
    return twins(pairs(skew_tent, states, epsilon=1e-10, copies=copies, n=70, rng=rng))


def saddle(x, rate=0.1):
    """Gradient descent on (x^2 - 1)^2 / 4 near its saddle at 0."""
    return x - rate * (x**3 - x)


def from_distances(distances, group=None, *, dt=None, start=None, **options):
    """Twins whose distances (U, T) are given: the reference stays at 1, the twin is off by the distance."""
    distances = np.asarray(distances, dtype=np.float64)
    group = np.arange(len(distances)) if group is None else np.asarray(group)
    reference = {label: np.tile([1.0, 0.0], (distances.shape[1], 1)) for label in np.unique(group)}
    listed = []
    for row, label in zip(distances, group, strict=True):
        twin = reference[label].copy()
        twin[:, 1] = row
        listed.append((reference[label], [twin]))
    return twins(listed, dt=dt, start=start, **options)
