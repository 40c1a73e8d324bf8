"""Numbers that follow a trajectory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.plain import Result
from trajtools.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Observables(Result):
    """Numbers that follow a trajectory, state by state.

    Attributes
    ----------
    metric : str
        Distance in which lengths are measured.
    step : ndarray of int64, shape (T,)
        Step of each state.
    time : ndarray of float64, shape (T,)
        Its time, in `time_unit`.
    time_unit : str
        Unit of `time`.
    norm : ndarray of float64, shape (T,)
        Distance to the state of zeros; in L1 the sum of the absolute weights.
    step_length : ndarray of float64, shape (T,)
        Distance to the state before; NaN for the first.
    path_length : ndarray of float64, shape (T,)
        Sum of the steps so far.
    displacement : ndarray of float64, shape (T,)
        Distance to the first finite state.
    relative_displacement : ndarray of float64, shape (T,)
        The displacement over the norm of that state (Delta of Danovski et al. 2024).
    layers : tuple of str
        Names of the parameters; one, ``"all"``, where they are not known.
    layer_mean, layer_sd : ndarray of float64, shape (T, L)
        Mean and standard deviation of the weights of each.
    measures : dict of str to dict of str to float
        For each series that was asked for: ``"dfa"`` (exponent), ``"hurst"`` (exponent), ``"sample-entropy"`` (nats).
    n_excluded : int
        States that hold NaN or inf; their entries are NaN.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know.
    """

    metric: str
    step: Ints
    time: Floats
    time_unit: str
    norm: Floats
    step_length: Floats
    path_length: Floats
    displacement: Floats
    relative_displacement: Floats
    layers: tuple[str, ...]
    layer_mean: Floats
    layer_sd: Floats
    measures: dict[str, dict[str, float]]
    n_excluded: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def plot(self, ax: Any = None) -> Any:
        """Draw norm, displacement and step length; see `trajtools.plots.observables`.

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

        return plots.observables(self, ax=ax)
