"""What each part of a network contributes to a distance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.plain import Result
from trajtools.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Contributions(Result):
    """What each part of a network contributes to the distance of two trajectories.

    Attributes
    ----------
    metric : str
        Name of the distance between states.
    per : str
        ``"layer"``, ``"parameter"`` or ``"kind"``: what the parts are.
    names : tuple of str, length L
        The parts, in the order of the state.
    sizes : tuple of int, length L
        Number of weights of each.
    step : ndarray of int64, shape (T,)
        Step of each state.
    distance : ndarray of float64, shape (T, L)
        Distance of the two trajectories in each part alone.
    whole : ndarray of float64, shape (T,)
        Distance over all parts.
    share : ndarray of float64, shape (T, L)
        Part of the whole: of the sum of absolute differences (l1), of the sum of squares (l2, rms), of the number of
        signs (sign). The shares of a state add up to 1. NaN where the whole is 0, and for metrics that do not add up.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know before believing the numbers.
    """

    metric: str
    per: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    step: Ints
    distance: Floats
    whole: Floats
    share: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def plot(self, ax: Any = None) -> Any:
        """Draw them; see `trajtools.plots.contributions`.

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

        return plots.contributions(self, ax=ax)
