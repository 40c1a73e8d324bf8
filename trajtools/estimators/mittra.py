"""The perturbed cloud of Mittra (2024), which calls itself Kantz-Wolf; `hybrid` offers it by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from trajtools.errors import DataError
from trajtools.exponents.curves import average_curves, mean_curve
from trajtools.exponents.divergence import Divergence
from trajtools.neighbors.states import MetricOfStates
from trajtools.reasons import Reason
from trajtools.types import Floats

NAME = "mittra2024"
LARGEST = 1e9  # distance at which the published sum stops
CURVATURE = Reason(
    "published-bias",
    "mittra2024 averages the distances of an unaligned cloud over a few steps: for gradient descent that measures the "
    "mean curvature (-eta tr(H) / n), not the largest exponent (-eta h_min), which can have the opposite sign; nothing "
    "is renormalised or replaced, no line is fitted, and L1 is not divided by time, so it grows with the record",
)


def mittra_cloud(x: Any, *, metric: MetricOfStates, horizon: int | None, dt: float | None) -> Divergence:
    r"""Mean distance of a cloud of copies to its parent, and the two numbers that are taken from it.

    Parameters
    ----------
    x : Run, pair, or list of Runs or pairs
        ``(reference, [copies])`` as `trajtools.twins` takes it; the first state is the perturbed one, before any step.
    metric : str or callable
        ``"l2"`` in the paper.
    horizon : int or None, in samples
        Steps E that are used; None: all.
    dt : float or None
        As in `trajtools.twins`.

    Returns
    -------
    Divergence
        One unit per copy. `settings` holds, one number per initial condition, ``"L1"`` and ``"L2"``, and ``"growth"``,
        the terms of L2.

    Raises
    ------
    DataError
        If there is no cloud, or fewer than two steps.

    Notes
    -----
    .. math:: L_1 = \langle \ln d_e / d_1 \rangle_{e = 2 \dots E}, \quad L_2 = \langle \ln d_e / d_{e-1} \rangle_{e = 2
       \dots E}, \quad d_e = \frac{1}{M + 1} \sum_{i=0}^{M} |\theta_i(e) - \theta_0(e)|

    over the M copies and the parent itself, whose zero is counted as published; d_1 is the distance after the first
    step. Both means stop before the first d_e that is not finite or above 1e9.

    References
    ----------
    .. [1] T. Mittra, Utilizing Lyapunov Exponents in designing deep neural networks, arXiv:2410.05988 (2024)
    """
    from trajtools.estimators.twins import twins

    growth = twins(x, metric=metric, average="log-mean", dt=dt)
    steps = growth.distances.shape[1] - 1
    last = steps if horizon is None else horizon
    if isinstance(last, bool) or not isinstance(last, (int, np.integer)) or not 2 <= last <= steps:
        raise DataError(f"horizon={horizon!r}: procedure 'mittra2024' uses 2 to {steps} steps of these {steps}")
    distances = growth.distances[:, : last + 1]
    curves, group, _ = average_curves(distances, growth.group, growth.start, "log-mean")
    cloud = _cloud(distances, np.stack([growth.group, growth.start], axis=1))
    summed, terms = _published(cloud)
    settings = growth.settings | {"procedure": NAME, "horizon": last, "cloud": cloud, "growth": terms}
    settings |= {"L1": summed, "L2": _means(terms)}
    frozen = int(np.count_nonzero(np.all(terms == 0, axis=1)))
    words = "{frozen} of {clouds} clouds never change their size: dead units, not a zero exponent"
    dead = (Reason.of("frozen-clouds", words, frozen=frozen, clouds=len(terms)),) if frozen else ()
    return replace(
        growth,
        method="hybrid",
        time=growth.time[: last + 1],
        log_distance=mean_curve(curves, group),
        distances=distances,
        floor=growth.floor[:, : last + 1],
        settings=settings,
        warnings=(*growth.warnings, CURVATURE, *dead),
    )


def _cloud(distances: Floats, labels: Any) -> Floats:
    """Mean distance to the parent over the parent and its copies, one row per initial condition."""
    _, inverse = np.unique(labels, axis=0, return_inverse=True)
    inverse = inverse.ravel()
    sums = np.zeros((int(inverse.max()) + 1, distances.shape[1]))
    np.add.at(sums, inverse, distances)
    return sums / (np.bincount(inverse) + 1.0)[:, None]


def _published(cloud: Floats) -> tuple[Floats, Floats]:
    """L1 of every cloud, and the terms of L2 (NaN from where they are not used)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(cloud > 0, cloud, np.nan))[:, 1:]
        beyond = np.cumsum(~(cloud[:, 1:] <= LARGEST), axis=1) > 0
    logs = np.where(beyond, np.nan, logs)
    return _means(logs[:, 1:] - logs[:, :1]), np.diff(logs, axis=1)


def _means(rows: Floats) -> Floats:
    """Mean of each row over what is known; NaN where nothing is."""
    known = np.isfinite(rows)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, rows, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
