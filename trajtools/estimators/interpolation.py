"""Finer sampling of a flow, so that neighbours are found beside a state and not before or behind it."""

from __future__ import annotations

import numpy as np

from trajtools.exponents.applicability import Probe
from trajtools.exponents.fit_neighbors import BOUNDED
from trajtools.neighbors.states import MATRIX_STATES, MetricOfStates
from trajtools.types import Floats

REFINED_STATES = 160_000  # at most, after interpolation
REFINED_DIMENSION = 20
FINEST = 8  # samples that one is divided into, at most
SMOOTH = 0.1  # of the distance of neighbours: the largest error of an interpolation that may be used
HALVING = 10.0  # by which half the spacing lowers that error at least; fourth order would be 16


def fineness(states: Floats, seen: Probe, metric: MetricOfStates) -> tuple[int, float]:
    """How finely to interpolate, and the distance between samples.

    Neighbours of a sampled flow are apart along it by a quarter of a sample on average.

    Parameters
    ----------
    states : ndarray of float64, shape (T, d)
        The trajectory.
    seen : Probe
        What its neighbours look like.
    metric : str or callable
        Distance; a function is asked for all pairs, which limits their number.

    Returns
    -------
    finer : int
        Parts that one sample is divided into.
    step : float
        Median distance between two samples; 0 where it is no flow, or not smooth enough to be interpolated.
    """
    if seen.rise < BOUNDED or states.shape[1] > REFINED_DIMENSION or not np.isfinite(states).all():
        return 1, 0.0
    part = states[: min(len(states), 5001)]
    near = float(np.exp(seen.log_distance[0]))
    even, odd = part[::2], part[3:-3:2]
    between = (9 * (even[1:-2] + even[2:-1]) - even[:-3] - even[3:])[: len(odd)] / 16
    rough = np.sqrt(np.sum((between - odd[: len(between)]) ** 2, axis=1))
    # Between four points interpolation is off nine times as far as a spline: then none is loaded, which takes time.
    if len(rough) and float(np.quantile(rough, 0.95)) > 30 * HALVING * SMOOTH * near:
        return 1, 0.0
    from scipy.interpolate import CubicSpline

    coarse = CubicSpline(np.arange(0, len(part), 2), part[::2])
    error = np.sqrt(np.sum((coarse(np.arange(1, len(part) - 1, 2)) - part[1:-1:2]) ** 2, axis=1))
    if not float(np.quantile(error, 0.95)) < HALVING * SMOOTH * near:
        return 1, 0.0
    step = float(np.median(np.sqrt(np.sum(np.diff(part, axis=0) ** 2, axis=1))))
    wanted = int(np.ceil(2 * step / near))
    most = REFINED_STATES if isinstance(metric, str) else MATRIX_STATES
    return int(np.clip(min(wanted, most // len(states)), 1, FINEST)), step


def interpolated(states: Floats, finer: int) -> Floats:
    """Divide each sample by cubic splines.

    Parameters
    ----------
    states : ndarray of float64, shape (T, d)
        The trajectory.
    finer : int
        Into how many parts; 1 changes nothing.

    Returns
    -------
    ndarray of float64, shape ((T - 1) finer + 1, d)
    """
    if finer == 1:
        return states
    from scipy.interpolate import CubicSpline

    at = np.arange((len(states) - 1) * finer + 1) / finer
    return np.asarray(CubicSpline(np.arange(len(states)), states)(at))
