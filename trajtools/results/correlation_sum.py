"""How many pairs of states are closer than a radius."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trajtools.results.plain import Result
from trajtools.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class CorrelationSum(Result):
    r"""How many pairs of states are closer than a radius, for many radii.

    Attributes
    ----------
    radii : ndarray of float64, shape (R,)
        Ascending, in the unit of the metric.
    counts : ndarray of int64, shape (R,)
        Pairs of states (each once) at most so far apart, exactly.
    n_pairs : int
        All pairs that are at least `theiler` samples apart.
    correlation : ndarray of float64, shape (R,)
        The correlation sum C(r), ``counts / n_pairs``.
    local_slope : ndarray of float64, shape (R - 1,)
        d ln C / d ln r between neighbouring radii; NaN where there is no pair yet.
    takens : ndarray of float64, shape (R,)
        Takens' maximum-likelihood estimate from all pairs closer than each radius; NaN beyond a tenth of all pairs,
        where it is not computed, and where there are none.
    metric : str
        Name of the distance.
    theiler : int, in samples
        Pairs closer in time than this are not counted.
    n_states, n_excluded : int
        States that were compared, and states left out because they hold NaN or inf.
    zero_pairs : int
        Pairs at distance zero; they count in C and are left out of Takens' estimate.
    block_counts : ndarray of int64, shape (B, R)
        The counts by blocks of time of the first state, every pair once from each of its ends: what is resampled.
    block_pairs, block_zeros : ndarray of int64, shape (B,)
        All such pairs of each block, and those at distance zero.
    block_logs : ndarray of float64, shape (B, R)
        Sums of the natural logarithms of their distances; NaN where they were not taken.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know.
    """

    radii: Floats
    counts: Ints
    n_pairs: int
    correlation: Floats
    local_slope: Floats
    takens: Floats
    metric: str
    theiler: int
    n_states: int
    n_excluded: int
    zero_pairs: int
    block_counts: Ints
    block_pairs: Ints
    block_zeros: Ints
    block_logs: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def plot(self, ax: Any = None) -> Any:
        """Draw the curve; see `trajtools.plots.correlation_sum`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn.
        """
        from trajtools import plots

        return plots.correlation_sum(self, ax=ax)


def takens_estimate(radii: Floats, counts: Any, zeros: Any, logs: Floats) -> Floats:
    r"""Takens' estimate :math:`-1 / \langle \ln(d / r) \rangle` over all distances below each radius.

    Parameters
    ----------
    radii : ndarray of float64, shape (R,)
        Ascending.
    counts : ndarray, shape (..., R)
        Number of distances up to each radius.
    zeros : ndarray, shape (..., 1)
        Number of distances that are zero.
    logs : ndarray of float64, shape (..., R)
        Sum of the logarithms of the distances up to each radius, without the zeros.

    Returns
    -------
    ndarray of float64, shape (..., R)
        NaN where there is none.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate: Floats = 1.0 / (np.log(radii) - logs / (counts - zeros))
    return np.where(np.isfinite(estimate), estimate, np.nan)
