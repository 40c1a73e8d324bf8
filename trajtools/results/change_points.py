"""Where a trajectory changes its pace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.plain import Result
from trajtools.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class ChangePoints(Result):
    """Where a trajectory changes its pace, and what the loss did there.

    Attributes
    ----------
    index : ndarray of int64, shape (C,)
        First state after each change; empty where none is found.
    step : ndarray of int64, shape (C,)
        Its step.
    signal : str
        What was searched for changes.
    values : ndarray of float64, shape (T,)
        The signal; NaN where it is not known.
    steps : ndarray of int64, shape (T,)
        Steps of the signal.
    segment_mean : ndarray of float64, shape (C + 1,)
        Mean of the signal in each segment.
    around : dict of str to ndarray of float64, shape (C, 2)
        For every metric of the run: its median over the states just before and just after each change.
    p_value : float
        Probability of evidence for a change at least this strong under the null; NaN where the penalty was given.
    level : float
        Level of the test: without changes, one is found in such a part of the records.
    null : str
        The null, in words; empty where the penalty was given.
    penalty : float
        What each change had to gain, in the units of the cost.
    correlation : float
        Autocorrelation of neighbouring (averaged) values, which the null has, too.
    resolution : int, in states
        Changes are placed to so many states.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know.
    """

    index: Ints
    step: Ints
    signal: str
    values: Floats
    steps: Ints
    segment_mean: Floats
    around: dict[str, Floats]
    p_value: float
    level: float
    null: str
    penalty: float
    correlation: float
    resolution: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def plot(self, ax: Any = None) -> Any:
        """Draw the signal and its changes; see `trajtools.plots.change_points`.

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

        return plots.change_points(self, ax=ax)
