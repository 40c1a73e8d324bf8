"""What else a recurrence plot tells: windows of time, the network, and intervals of the measures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.plain import Result
from trajtools.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class WindowedRecurrence(Result):
    """Measures of recurrence quantification in windows of time.

    Attributes
    ----------
    start : ndarray of int64, shape (W,)
        First state of each window.
    time : ndarray of float64, shape (W,)
        Middle of each window, in `time_unit`.
    values : dict of str to ndarray of float64, shape (W,)
        Every measure by its name; NaN in a window with fewer than two finite states.
    threshold : ndarray of float64, shape (W,)
        Threshold of each window.
    size, step : int, in samples
        Windows.
    time_unit : str
        Unit of time.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know.
    """

    start: Ints
    time: Floats
    values: dict[str, Floats]
    threshold: Floats
    size: int
    step: int
    time_unit: str
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, name: str) -> Floats:
        """Look the values of a measure up by its name."""
        return self.values[name]


@dataclass(frozen=True, eq=False)
class RecurrenceNetwork(Result):
    """Measures of a recurrence network: nodes are finite states, edges recurrences outside the Theiler window.

    Attributes
    ----------
    n_nodes, n_edges : int
        Size.
    density : float
        Edges over pairs of nodes.
    transitivity : float
        Closed over all pairs of neighbours; NaN where no node has two neighbours.
    average_clustering : float
        Mean local clustering, with zero where a node has fewer than two neighbours.
    transitivity_dimension : float
        ``log(transitivity) / log(3 / 4)``: dimension of the attractor in the maximum norm (Donner et al. 2011).
    degree : ndarray of int64, shape (T,)
        Neighbours of each state; 0 for those that are not finite.
    clustering : ndarray of float64, shape (T,)
        Local clustering; NaN for states with fewer than two neighbours.
    settings : dict
        Every parameter as used.
    """

    n_nodes: int
    n_edges: int
    density: float
    transitivity: float
    average_clustering: float
    transitivity_dimension: float
    degree: Ints
    clustering: Floats
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RecurrenceIntervals(Result):
    """Confidence intervals of measures, from lines drawn with replacement.

    Attributes
    ----------
    intervals : dict of str to (float, float)
        Of DET, L, ENTR, LAM, TT, VENTR, MRT and RTE: percentiles of the resamples.
    level : float
        Confidence level.
    n : int
        Resamples.
    settings : dict
        What was resampled.
    warnings : tuple of str
        What the intervals leave out.
    """

    intervals: dict[str, tuple[float, float]]
    level: float
    n: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> tuple[float, float]:
        """Look the interval of a measure up by its name."""
        return self.intervals[name]
