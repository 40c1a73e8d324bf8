"""The dimension of the set that a trajectory fills, with its doubt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.plain import Result
from trajtools.structure.correlation_sum import CorrelationSum
from trajtools.types import Floats, Ints

DIMENSION_VERDICTS = ("finite", "space-filling", "inconclusive")


@dataclass(frozen=True, eq=False)
class Dimension(Result):
    """The correlation dimension of the set that a trajectory fills, with its doubt.

    Attributes
    ----------
    value : float
        Slope of ln C against ln r in the scaling region; NaN where there is none.
    interval : (float, float)
        From resampling blocks of reference states and the windows inside the region; (NaN, NaN) where unknown.
    level : float
        Confidence level of the interval.
    verdict : str
        ``"finite"``: a set of this dimension, smaller than the space it lies in. ``"space-filling"``: it fills the
        space as noise does; its dimension is that of the space, or larger. ``"inconclusive"``: see `reasons`.
    reasons : tuple of str
        Why, in sentences with numbers.
    region : (float, float)
        Smallest and largest radius of the scaling region.
    window_values : ndarray of float64, shape (W,)
        The slope over every admissible window in the region: what another choice would have given.
    takens : float
        Takens' maximum-likelihood estimate from the pairs closer than `takens_radius`.
    takens_interval : (float, float)
        From the same blocks.
    takens_radius : float
        The geometric middle of the region.
    bound : float
        Largest dimension that so many states can show, 2 log10 N (Eckmann and Ruelle 1992).
    space : int
        Dimension of the space of the states; 0 where only distances are known.
    dims : ndarray of int64, shape (m,)
        Embedding dimensions, where a series was given; empty otherwise.
    dim_values : ndarray of float64, shape (m,)
        The slope in each of them.
    dim_intervals : ndarray of float64, shape (m, 2)
        Their intervals.
    correlation_sums : tuple of CorrelationSum
        One for each embedding dimension, or the one of the states; the last is where `value` comes from.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know.
    """

    value: float
    interval: tuple[float, float]
    level: float
    verdict: str
    reasons: tuple[str, ...]
    region: tuple[float, float]
    window_values: Floats
    takens: float
    takens_interval: tuple[float, float]
    takens_radius: float
    bound: float
    space: int
    dims: Ints
    dim_values: Floats
    dim_intervals: Floats
    correlation_sums: tuple[CorrelationSum, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def plot(self, ax: Any = None) -> Any:
        """Draw the local slopes and the region; see `trajtools.plots.correlation_dimension`.

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

        return plots.correlation_dimension(self, ax=ax)
