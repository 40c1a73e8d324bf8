"""Recorded curvature against the learning rate: where a training stands to the edge of stability."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.plain import Result
from trajtools.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Curvature(Result):
    """What the probes of a run say about its stability; see `trajtools.curvature`.

    Attributes
    ----------
    step : ndarray of int64, shape (T,)
        Steps of the states.
    rate : ndarray of float64, shape (T,)
        Learning rate at each.
    h_max, h_min : ndarray of float64, shape (T,)
        Largest and smallest curvature; NaN where they were not measured.
    sources : dict
        The metric that each series was read from.
    product : ndarray of float64, shape (T,)
        Rate times h_max.
    threshold : float
        Product at which the optimiser loses its stability on a quadratic: 2 for gradient descent, more or less with
        momentum.
    predicted : ndarray of float64, shape (T,)
        Local exponent of plain gradient descent, ln max(|1 - rate h_min|, |1 - rate h_max|), per step; NaN for
        momentum, and where a curvature is missing.
    measured : ndarray of float64, shape (T,)
        Recorded growth of a forward shadow, per step; NaN without one.
    entry : float
        First step at which the product reaches the threshold and its median over what follows stays near it; NaN if it
        never does.
    after : float
        Mean of the product from there on; NaN without an entry.
    after_interval : (float, float)
        From blocks of time.
    agreement : float
        Correlation of `measured` and `predicted`, averaged over stretches of the record; NaN where unknown.
    verdict : str
        ``"below the edge"``, ``"at the edge"``, ``"beyond the edge"``, or ``"inconclusive"``.
    reasons : tuple of str
        In sentences.
    settings : dict
        What was chosen.
    warnings : tuple of str
        Doubts.
    """

    step: Ints
    rate: Floats
    h_max: Floats
    h_min: Floats
    sources: dict[str, str]
    product: Floats
    threshold: float
    predicted: Floats
    measured: Floats
    entry: float
    after: float
    after_interval: tuple[float, float]
    agreement: float
    verdict: str
    reasons: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def plot(self, ax: Any = None) -> Any:
        """Draw the product of rate and curvature with its thresholds; see `trajtools.plots.curvature`.

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

        return plots.curvature(self, ax=ax)
