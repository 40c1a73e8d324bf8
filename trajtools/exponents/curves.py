"""The curves of a divergence: averages over copies, and over initial conditions."""

from __future__ import annotations

import numpy as np

from trajtools.types import Floats, Ints

AVERAGES = ("mean-log", "log-mean", "rms")


def average_curves(distances: Floats, group: Ints, start: Ints, average: str) -> tuple[Floats, Ints, Ints]:
    """Average the units of one initial condition and take the logarithm, in the order that `average` names.

    Parameters
    ----------
    distances : ndarray of float64, shape (U, K + 1)
        One row per unit; NaN after its end.
    group, start : ndarray of int64, shape (U,)
        Initial condition and step of perturbation of each unit.
    average : str
        ``"mean-log"``: no average before the logarithm, one curve per unit. ``"log-mean"``: the logarithm of the mean
        over the copies of one initial condition. ``"rms"``: the logarithm of the root mean square over them.

    Returns
    -------
    curves : ndarray of float64, shape (C, K + 1)
        Natural logarithms; NaN where a distance is zero or missing.
    group, start : ndarray of int64, shape (C,)
        Labels of the curves.

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
    """Average curves over the units of each initial condition, then over the initial conditions, ignoring NaN.

    Parameters
    ----------
    curves : ndarray of float64, shape (C, K + 1)
        Logarithmic curves; NaN after a curve's end.
    group : ndarray of int64, shape (C,)
        Initial condition of each curve.

    Returns
    -------
    ndarray of float64, shape (K + 1,)
        NaN where no curve is left.
    """
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
