"""States of networks in a few coordinates, with a check of what is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.divergence import Divergence
from trajtools.results.plain import Result
from trajtools.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Projection(Result):
    """States of one or several trajectories in a few common coordinates.

    Attributes
    ----------
    method : str
        ``"pca"`` or ``"mds"``.
    metric : str
        Distance that the coordinates stand for.
    coordinates : ndarray of float64, shape (N, k)
        One row per state, member after member; NaN for states that were left out. The centre of all states is at 0,
        and the first trajectory ends at larger coordinates than it starts.
    member : ndarray of int64, shape (N,)
        Trajectory of each row.
    step : ndarray of int64, shape (N,)
        Its step.
    names : tuple of str
        What the trajectories are called.
    reference : ndarray of int64, shape (M,)
        The trajectory that each one is a perturbed copy of; -1: it is none.
    eigenvalues : ndarray of float64, shape (k,)
        Mean square of each coordinate times the number of states.
    share : ndarray of float64, shape (k,)
        Part of the total spread that each coordinate holds: the eigenvalue over the sum of the absolute values of all.
    negative : float
        Part of that sum that comes from negative eigenvalues, which no coordinates have; 0 for Euclidean distances.
    axes : ndarray of float64, shape (k, P)
        Directions in weight space, of length 1; empty where only distances were given.
    distance_correlation, rank_correlation : float
        Pearson's and Spearman's correlation of the distances in the coordinates with those of the whole states, over
        the pairs of at most 256 states.
    trustworthiness : float
        How far the neighbours in the coordinates are neighbours in truth, 0 to 1 (Venna and Kaski 2001).
    n_excluded : int
        States left out because they hold NaN or inf.
    embedded, full : Divergence or None
        How the perturbed copies part from their references: in the first coordinate, and in the L1 distance of the
        whole states (in the given metric, where the coordinates come from distances). None without copies.
    decorrelation : ndarray of float64, shape (U,), in steps
        Decorrelation time of each copy from the first coordinate; NaN where it is not reached.
    decorrelation_full : ndarray of float64, shape (U,), in steps
        The same from the distance of the whole states.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know.
    """

    method: str
    metric: str
    coordinates: Floats
    member: Ints
    step: Ints
    names: tuple[str, ...]
    reference: Ints
    eigenvalues: Floats
    share: Floats
    negative: float
    axes: Floats
    distance_correlation: float
    rank_correlation: float
    trustworthiness: float
    n_excluded: int
    embedded: Divergence | None
    full: Divergence | None
    decorrelation: Floats
    decorrelation_full: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def of(self, member: int = 0) -> Floats:
        """Coordinates of one trajectory.

        Parameters
        ----------
        member : int
            Which.

        Returns
        -------
        ndarray of float64, shape (T, k)
        """
        return self.coordinates[self.member == member]

    def plot(self, ax: Any = None) -> Any:
        """Draw the trajectories; see `trajtools.plots.projection`.

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

        return plots.projection(self, ax=ax)
