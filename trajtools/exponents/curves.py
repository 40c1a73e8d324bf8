"""The curves of a divergence: averages over copies, and over initial conditions."""

from __future__ import annotations

import numpy as np

from trajtools.types import Floats, Ints

AVERAGES = ("mean-log", "log-mean", "rms")


def average_curves(distances: Floats, group: Ints, start: Ints, average: str) -> tuple[Floats, Ints, Ints]:
    """Average the units of one initial condition and take the logarithm, in the order that `average` names.

    Notes
    -----
    A mean of distances is only meaningful while it is a mean over the same copies, so a curve ends where the first of
    its copies ends. Distances are never averaged over initial conditions before the logarithm: that mean is
    carried by the few fastest ones and grows with the generalised exponent L(1), which is larger than the mean rate.
    """
    positive = np.where(distances > 0, distances, np.nan)
    if average == "mean-log":
        return np.log(positive), group, start
    labels, inverse = np.unique(np.stack([group, start], axis=1), axis=0, return_inverse=True)
    power = 1.0 if average == "log-mean" else 2.0
    curves = np.empty((len(labels), distances.shape[1]))
    for row in range(len(labels)):
        copies = positive[inverse.ravel() == row]
        top = np.max(copies, axis=0)  # scaled, so that squares neither underflow nor overflow
        curves[row] = np.log(top) + np.log(np.mean((copies / top) ** power, axis=0)) / power
    return curves, labels[:, 0], labels[:, 1]


def mean_curve(curves: Floats, group: Ints) -> Floats:
    """Average curves over the units of each initial condition, then over the initial conditions, ignoring NaN."""
    labels, inverse = np.unique(group, return_inverse=True)
    known = np.isfinite(curves)
    total = np.zeros((len(labels), curves.shape[1]))
    count = np.zeros_like(total)
    np.add.at(total, inverse, np.where(known, curves, 0.0))
    np.add.at(count, inverse, known)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_group = total / count
        alive = count > 0
        mean: Floats = np.where(alive, per_group, 0.0).sum(axis=0) / alive.sum(axis=0)
    return mean
