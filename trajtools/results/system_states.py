"""The few states that a trajectory dwells in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trajtools.results.plain import Result
from trajtools.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class SystemStates(Result):
    """The few states that a trajectory dwells in; one, where nothing speaks for more.

    Attributes
    ----------
    count : int
        Number K of system states.
    labels : ndarray of int64, shape (T,)
        System state of each state, numbered in the order of their first visit; -1 for states that were left out.
    step : ndarray of int64, shape (T,)
        Step of each state.
    sizes : ndarray of int64, shape (K,)
        States in each.
    medoids : ndarray of int64, shape (K,)
        Index of the state with the smallest mean distance to the others of its system state.
    transitions : ndarray of int64, shape (K, K)
        How often a state of system state i (row) is followed by one of j, from each finite state to the next sample.
    dwell : ndarray of int64, shape (V,), in samples
        Length of each visit, in order of time.
    visited : ndarray of int64, shape (V,)
        The system state of each visit.
    candidates : ndarray of int64, shape (n,)
        Numbers of system states that were compared.
    scores : ndarray of float64, shape (n,)
        The criterion for each of them.
    criterion : str
        ``"silhouette"``, ``"dunn"`` or ``"given"``.
    p_value : float
        Probability under the null of a score as high as the best one; NaN where it was not tested.
    null : str
        The null, in words; empty where it was not tested.
    linkage : str
        How clusters were joined.
    n_excluded : int
        States without distances.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know.
    """

    count: int
    labels: Ints
    step: Ints
    sizes: Ints
    medoids: Ints
    transitions: Ints
    dwell: Ints
    visited: Ints
    candidates: Ints
    scores: Floats
    criterion: str
    p_value: float
    null: str
    linkage: str
    n_excluded: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def mean_dwell(self) -> Floats:
        """Mean length of the visits to each system state, in samples.

        Returns
        -------
        ndarray of float64, shape (K,)
        """
        visits = np.bincount(self.visited, minlength=self.count)
        return np.asarray(np.bincount(self.visited, weights=self.dwell, minlength=self.count) / np.maximum(visits, 1))

    def plot(self, ax: Any = None) -> Any:
        """Draw the system states over time; see `trajtools.plots.system_states`.

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

        return plots.system_states(self, ax=ax)
