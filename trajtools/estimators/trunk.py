"""The trunk of a network iterated as a map, after Feng, Zhang and Lai (2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trajtools.errors import DataError
from trajtools.results.order_chaos import TrunkStability
from trajtools.types import Floats

Trunk = Callable[[Any], Any]

RUN_AWAY = 1e10
_STEP = 1e-6  # of the central differences, relative to the size of the state: their error is near 1e-11
_AT_ONCE = 2**22


def asymptotic_distance(
    J: float, J0: float = 0.0, *, size: int = 1000, steps: int = 500, epsilon: float = 1e-4, rng: Any = 0
) -> float:
    """Distance that two nearby states of a random tanh map keep: the colour of the phase diagram.

    Parameters
    ----------
    J, J0 : float
        The entries of W are drawn with mean J0 / N and standard deviation J / sqrt(N).
    size : int
        N; 10,000 in the paper.
    steps : int
        Iterations; the distance is the mean over the last fifth.
    epsilon : float
        Standard deviation of the perturbation of every unit.
    rng : int, numpy.random.Generator or None
        Draws W, the state and the perturbation.

    Returns
    -------
    float
        Euclidean distance: 0 in the ordered phase, of the order of sqrt(N) in the chaotic one.

    Raises
    ------
    DataError
        If an argument makes no sense.

    References
    ----------
    .. [1] L. Zhang, L. Feng, K. Chen and C. H. Lai, arXiv:2107.09437 (2021), figure 1b

    Examples
    --------
    >>> asymptotic_distance(0.5, size=200, steps=100) < 1e-6 < 1 < asymptotic_distance(3.0, size=200, steps=100)
    True
    """
    if size < 1 or steps < 5 or not epsilon > 0 or not J > 0:
        raise DataError(f"size={size}, steps={steps}, epsilon={epsilon}, J={J}: at least 1, at least 5, both positive")
    random = np.random.default_rng(rng)
    weights = J0 / size + J / np.sqrt(size) * random.standard_normal((size, size))
    state = random.standard_normal(size)
    both = np.stack([state, state + epsilon * random.standard_normal(size)])
    distances = np.empty(steps)
    for t in range(steps):
        both = np.tanh(both @ weights)
        distances[t] = np.linalg.norm(both[1] - both[0])
    return float(distances[-max(1, steps // 5) :].mean())


def iterated_trunk(
    trunk: Trunk,
    x: Any,
    *,
    steps: int = 500,
    epsilon: float = 1e-4,
    product: bool = True,
    rng: Any = 0,
) -> TrunkStability:
    r"""Iterate a trunk whose output has the shape of its input, and ask whether it is ordered or chaotic.

    Parameters
    ----------
    trunk : callable
        ``trunk(x)`` maps states (n, N) to states (n, N), each row by itself, in float64; e.g.
        ``lambda x: np.tanh(x @ W)`` with a recorded kernel W.
    x : array_like, shape (n, N)
        Inputs, e.g. 100 test images.
    steps : int
        Iterations.
    epsilon : float
        Standard deviation of the perturbation of M3.
    product : bool
        Whether to compute M2, which takes a Jacobian at every second-half iterate.
    rng : int, numpy.random.Generator or None
        Draws the perturbation and the tangent vectors.

    Returns
    -------
    TrunkStability
        One entry per input.

    Raises
    ------
    DataError
        If the trunk does not return the shape of its input, or an argument makes no sense.

    Notes
    -----
    The paper's edge of chaos is \|J*\|_F / sqrt(N) = 1 with J* the Jacobian at the asymptotic state. ln of it (M1) is a
    mean over all directions, so it lies below the largest exponent; M3 saturates, because the perturbation is finite
    and never renormalised. `exponent` is the textbook one: a tangent vector, renormalised at every iterate.
    Jacobians are central differences of `trunk` in float64, 2 N evaluations each.

    References
    ----------
    .. [1] L. Feng, L. Zhang and C. H. Lai, Optimal Machine Intelligence at the Edge of Chaos, arXiv:1909.05176 (2019)

    Examples
    --------
    >>> import numpy as np
    >>> found = iterated_trunk(lambda x: 0.5 * x, np.ones((1, 3)), steps=40)
    >>> np.round([found.exponent[0], found.by_norm[0], found.by_product[0]], 6)
    array([-0.693147, -0.693147, -0.693147])
    """
    states = np.array(x, dtype=np.float64, ndmin=2)
    if states.ndim != 2 or steps < 4 or not epsilon > 0:
        raise DataError(
            f"x has shape {states.shape} (n, N needed), steps={steps} (at least 4), epsilon={epsilon} (> 0)"
        )
    apply = _checked(trunk)
    random = np.random.default_rng(rng)
    n, size = states.shape
    direction = states.mean(axis=0)
    length = float(np.linalg.norm(direction)) or 1.0
    with np.errstate(all="ignore"):
        walk = _iterate(apply, states, steps, epsilon, random)
        orbit, separations, exponent = walk
        last = orbit[-1]
        jacobians = [_jacobian(apply, state) for state in last]
        norm = np.array([np.linalg.norm(j) / np.sqrt(size) for j in jacobians])
        radius = np.array([_radius(j) for j in jacobians])
        by_product = np.array([_product(apply, orbit[steps // 2 : steps, k]) for k in range(n)]) if product else None
        by_separation = np.log(separations[-1] / separations[0]) / steps
        by_norm = np.log(norm)
    away = ~np.isfinite(last).all(axis=1) | (np.abs(last).mean(axis=1) > RUN_AWAY)
    words = [f"{int(away.sum())} of {n} orbits ran away"] if away.any() else []
    for values in (exponent, norm, radius, by_norm, by_separation):
        values[away] = np.nan
    return TrunkStability(
        norm=norm,
        radius=radius,
        exponent=exponent,
        by_norm=by_norm,
        by_product=np.full(n, np.nan) if by_product is None else np.where(away, np.nan, by_product),
        by_separation=by_separation,
        distance=np.where(away, np.nan, separations[steps // 2 :].mean(axis=0)),
        orbit=orbit @ (direction / length),
        settings={"steps": steps, "epsilon": epsilon, "product": product, "N": size, "n": n},
        warnings=tuple(words),
    )


def _checked(trunk: Trunk) -> Trunk:
    def apply(states: Floats) -> Floats:
        found = np.asarray(trunk(states), dtype=np.float64)
        if found.shape != states.shape:
            raise DataError(
                f"the trunk gave shape {found.shape} for states {states.shape}: only a map of a space onto itself can "
                "be iterated; end the trunk where its shape is that of the input"
            )
        return found

    return apply


def _iterate(
    apply: Trunk, states: Floats, steps: int, epsilon: float, random: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Orbits (steps + 1, n, N), distances to the perturbed copies (steps + 1, n), largest exponents (n,)."""
    n = len(states)
    copies = states + epsilon * random.standard_normal(states.shape)
    tangent = random.standard_normal(states.shape)
    orbit = np.empty((steps + 1, *states.shape))
    separations, growth = np.empty((steps + 1, n)), np.zeros(n)
    orbit[0], separations[0] = states, np.linalg.norm(copies - states, axis=1)
    counted = 0
    for t in range(steps):
        small = _STEP * (1.0 + np.linalg.norm(states, axis=1, keepdims=True))
        tangent *= small / np.linalg.norm(tangent, axis=1, keepdims=True)
        pushed = apply(np.concatenate([states, copies, states + tangent, states - tangent]))
        states, copies = pushed[:n], pushed[n : 2 * n]
        tangent = 0.5 * (pushed[2 * n : 3 * n] - pushed[3 * n :])
        if t >= steps // 2:  # by then the tangent has turned and the orbit has settled
            growth += np.log(np.linalg.norm(tangent, axis=1) / small[:, 0])
            counted += 1
        dead = ~(np.linalg.norm(tangent, axis=1) > 0)
        tangent[dead] = random.standard_normal(tangent[dead].shape)
        orbit[t + 1], separations[t + 1] = states, np.linalg.norm(copies - states, axis=1)
    return orbit, separations, growth / counted


def _jacobian(apply: Trunk, state: Floats) -> Floats:
    """Central differences: entry (i, j) is the derivative of output i by input j."""
    size = len(state)
    small = _STEP * (1.0 + float(np.linalg.norm(state)) / np.sqrt(size))
    out = np.empty((size, size))
    few = max(1, _AT_ONCE // size)
    for start in range(0, size, few):
        rows = np.arange(start, min(start + few, size))
        moved = np.zeros((len(rows), size))
        moved[np.arange(len(rows)), rows] = small
        out[:, rows] = ((apply(state + moved) - apply(state - moved)) / (2 * small)).T
    return out


def _radius(jacobian: Floats) -> float:
    return float(np.abs(np.linalg.eigvals(jacobian)).max()) if np.isfinite(jacobian).all() else float("nan")


def _product(apply: Trunk, orbit: Floats) -> float:
    """Ln of the spectral radius of the product of the Jacobians along an orbit (t, N), over t."""
    product, scale = np.eye(orbit.shape[1]), 0.0
    for state in orbit:
        product = _jacobian(apply, state) @ product
        size = float(np.linalg.norm(product))
        if not np.isfinite(size) or size == 0.0:
            return float("nan") if size else float("-inf")
        product, scale = product / size, scale + float(np.log(size))
    return (scale + float(np.log(_radius(product)))) / len(orbit)
