"""How far every state of one trajectory is from the orbit of another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.plain import Result
from trajtools.types import Bools, Floats, Ints


@dataclass(frozen=True, eq=False)
class ToOrbit(Result):
    """How far every state of one trajectory is from the orbit of another.

    Attributes
    ----------
    metric : str
        Name of the distance between states.
    distance : ndarray of float64, shape (T,)
        Distance to the nearest state of the orbit; NaN for states that are not finite.
    argmin : ndarray of int64, shape (T,)
        Index of the nearest state of the orbit, the first of equal ones; -1 for states that are not finite.
    step : ndarray of int64, shape (T,)
        Step of each state.
    orbit_step : ndarray of int64, shape (S,)
        Step of each state of the orbit.
    time_unit : str
        Unit of `dt`.
    dt : float, in `time_unit`
        Time of one step.
    excluded : ndarray of bool, shape (T,)
        States that hold NaN or inf.
    orbit_excluded : ndarray of bool, shape (S,)
        States of the orbit that hold NaN or inf; none of them is the nearest.
    n_computed : int
        How many of the T x S distances were computed; the others were shown to be larger.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know before believing the distances.
    """

    metric: str
    distance: Floats
    argmin: Ints
    step: Ints
    orbit_step: Ints
    time_unit: str
    dt: float
    excluded: Bools
    orbit_excluded: Bools
    n_computed: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def n_excluded(self) -> int:
        """How many states have no distance to the orbit."""
        return int(self.excluded.sum())

    def plot(self, ax: Any = None) -> Any:
        """Draw them; see `trajtools.plots.to_orbit`.

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

        return plots.to_orbit(self, ax=ax)
