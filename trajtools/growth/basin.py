r"""What twins would do in a quadratic basin under the optimiser of their training, against what they do.

In a basin :math:`x_{t+1} = x_t + \mu(x_t - x_{t-1}) - \eta H(\cdot - x^*)` on common batches the noise is the same for
both and cancels: the difference of twins is a sum of modes, one for each curvature, and each mode is known once
:math:`\eta h` is. Without momentum no mode grows. With momentum modes near the edge of stability grow for a while, by
up to :math:`2 / (1 - \mu)`, without any sensitivity: that is what this null is for. The perturbation is taken to be
one of the weights alone, made where the curve begins; of a window that begins later, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trajtools.errors import DataError
from trajtools.optimizers import Optimizer
from trajtools.results.divergence import Divergence
from trajtools.surrogates import BASIN, steepest
from trajtools.types import Floats, Ints

RATES = 48  # curvatures that a basin is made of: half evenly, half logarithmically between flat and unstable
FLATTEST = 1e-6  # of the steepest
SMALLEST = 1e-9  # of the largest distance of a fitted curve: modes may pass through zero together


def optimizer_of_twins(growth: Divergence) -> Optimizer:
    """The optimiser that twins were trained by.

    Parameters
    ----------
    growth : Divergence
        Of `trajtools.twins`; pairs of arrays count as trained by plain gradient descent.

    Returns
    -------
    Optimizer

    Raises
    ------
    DataError
        If they were trained by several, or by one that knows no quadratic basin.
    """
    known = growth.settings.get("optimizer")
    if isinstance(known, list):
        raise DataError(
            f"null {BASIN!r} is that of one optimiser; these runs were trained by several: analyse them one by one"
        )
    optimizer = Optimizer(**known) if known else Optimizer()
    steepest(optimizer)
    return optimizer


def modes(steps: Ints, optimizer: Optimizer) -> Floats:
    """What becomes of a perturbation of one along each curvature.

    Parameters
    ----------
    steps : ndarray of int64, shape (K,)
        Steps since the perturbation, ascending.
    optimizer : Optimizer
        Gradient descent, with momentum or without. The perturbation is one of the weights: the momentum is the same.

    Returns
    -------
    ndarray of float64, shape (H, K)
        The perturbations.
    """
    top, mu = steepest(optimizer), optimizer.momentum
    nu = mu * optimizer.nesterov
    half = RATES // 2
    rates = np.concatenate([np.linspace(0, top, half), top * np.geomspace(FLATTEST, 1 - 1 / half, RATES - half)])
    out = np.empty((len(rates), len(steps)))
    here, step, at = np.ones(len(rates)), np.zeros(len(rates)), 0
    for column, wanted in enumerate(steps.tolist()):
        while at < wanted:
            step = mu * step - rates * (here + nu * step)
            here = here + step
            at += 1
        out[:, column] = here
    return out


def basin_null(growth: Divergence) -> Callable[[Floats, Floats, Floats, Floats], Floats]:
    r"""The null as `trajtools.statistics.shape_evidence` asks for it.

    Parameters
    ----------
    growth : Divergence
        Of `trajtools.twins`.

    Returns
    -------
    callable
        From curves (C, K), their mask (C, K), the points of each (C,) and the times (K,) to the residuals (C, K) of
        the best basin: with :math:`d^p = \sum_h w_h |m_h(t)|^p`, all weights w >= 0, and the better one of p = 1 (a
        sum of absolute values whose weights are the axes of the basin) and p = 2 (a Euclidean distance, or one of
        many mixed weights).

    Raises
    ------
    DataError
        As `optimizer_of_twins`.
    """
    optimizer = optimizer_of_twins(growth)
    per_step = float(growth.settings.get("dt", 1.0))

    def residuals(y: Floats, mask: Floats, count: Floats, time: Floats) -> Floats:
        from scipy.optimize import nnls

        shapes = np.abs(modes(np.round(time / per_step).astype(np.int64), optimizer))
        out = np.zeros_like(y)
        for row in range(len(y)):
            known = mask[row] > 0
            found = [_best(y[row, known], shapes[:, known] ** p, p, nnls) for p in (1, 2)]
            out[row, known] = min(found, key=lambda left: float(np.sum(left**2)))
        return out

    return residuals


def _best(y: Floats, shapes: Floats, power: int, nnls: Any) -> Floats:
    """Residuals of ln d of the best sum of modes, each point by its relative error."""
    weight = np.exp(-power * y)
    used = shapes.max(axis=1) > 0
    columns = (shapes[used] * weight).T
    scale = columns.max(axis=0)
    share, _ = nnls(columns / scale, np.ones(len(y)))
    model = (columns / scale) @ share
    left = -np.log(np.maximum(model, SMALLEST * max(float(model.max()), 1e-300))) / power
    return np.asarray(left - left.mean())
