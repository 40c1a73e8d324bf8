"""How the distance between neighbouring trajectories grows: the curves, not a number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.exponents.exponent import Exponent
from trajtools.exponents.fit_neighbors import METHODS as NEIGHBOR_METHODS, fit_neighbors
from trajtools.exponents.fit_twins import fit_twins
from trajtools.exponents.published_fits import fit_published
from trajtools.reasons import Reason
from trajtools.results import Result
from trajtools.statistics import average_curves, mean_curve
from trajtools.types import Floats, Ints, RNGLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Divergence(Result):
    """How the distance between neighbouring trajectories grows: the curves, not a number.

    Attributes
    ----------
    method : str
        The estimator that made it.
    metric : str
        Name of the distance between states.
    average : str
        ``"mean-log"``, ``"log-mean"`` or ``"rms"``: how the copies of one initial condition are averaged; see `curves`.
    time : ndarray of float64, shape (K + 1,)
        Time since the perturbation, in `time_unit`.
    time_unit : str
        Unit of `time`; exponents are in 1 / unit.
    log_distance : ndarray of float64, shape (K + 1,)
        Mean over the initial conditions of their curves, natural logarithm; NaN where no curve is left.
    distances : ndarray of float64, shape (U, K + 1)
        Distance of each unit (each twin to its reference), aligned at its own start; zero where it has merged with the
        reference, NaN after the end of its record and from where a weight is not finite.
    group : ndarray of int64, shape (U,)
        The initial condition that the unit belongs to. Units of one group share an orbit and are not independent.
    start : ndarray of int64, shape (U,)
        Step at which the perturbation was introduced.
    floor : ndarray of float64, shape (U, K + 1)
        Distance that rounding of the stored weights alone produces; NaN where unknown.
    scale : ndarray of float64, shape (U,)
        Largest distance of the reference to zero on its way, the room that the twins have; NaN where unknown.
    n_references : int
        Number of initial conditions.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of Reason
        What the reader should know before believing the curve.
    """

    method: str
    metric: str
    average: str
    time: Floats
    time_unit: str
    log_distance: Floats
    distances: Floats
    group: Ints
    start: Ints
    floor: Floats
    scale: Floats
    n_references: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()

    def curves(self) -> tuple[Floats, Ints, Ints]:
        """Return the logarithmic curves that are fitted, averaged as `average` says.

        Returns
        -------
        curves : ndarray of float64, shape (C, K + 1)
            Natural logarithms; NaN after a curve's end. For ``"mean-log"`` one curve per unit, for the others one per
            initial condition and start.
        group, start : ndarray of int64, shape (C,)
            Initial condition of each curve, and the step at which it was perturbed.
        """
        return average_curves(self.distances, self.group, self.start, self.average)

    def orbit_curves(self) -> Floats:
        """Return one curve per initial condition and start, averaged over its copies as `average` says.

        Returns
        -------
        ndarray of float64, shape (C, K + 1)
            Natural logarithms of the distance; NaN after a curve's end.
        """
        curves, group, start = self.curves()
        orbits, orbit = np.unique(np.stack([group, start], axis=1), axis=0, return_inverse=True)
        if len(orbits) == len(curves):
            return curves
        rows = [curves[orbit.ravel() == k] for k in range(len(orbits))]
        return np.array([mean_curve(copies, np.zeros(len(copies), dtype=np.int64)) for copies in rows])

    def floor_curve(self) -> Floats:
        """Return the distance that rounding alone produces, as the median over the units.

        Returns
        -------
        ndarray of float64, shape (K + 1,)
            Natural logarithms; NaN where the floor is unknown or zero.
        """
        floor = np.broadcast_to(self.floor, self.distances.shape)
        medians = np.full(floor.shape[1], np.nan)
        for k in range(floor.shape[1]):
            known = floor[:, k][floor[:, k] > 0]
            if known.size:
                medians[k] = np.log(np.median(known))
        return medians

    def fit(
        self,
        region: str | tuple[float, float] = "auto",
        *,
        null: str | None = "power-law",
        procedure: str | None = None,
        level: float = 0.95,
        rng: RNGLike = 0,
    ) -> Exponent:
        """Fit the exponential regime.

        Parameters
        ----------
        region : "auto" or (float, float)
            Times between which the growth is measured, in `time_unit`; ``"auto"`` chooses and says what it chose.
        null : "power-law", "quadratic-basin" or None
            What the growth of twins is tested against. Without a null no verdict but ``"inconclusive"`` is given.
            Neighbours are tested against surrogates of the data, by `trajtools.lyapunov`.
        procedure : None, "danovski2024", "caligiuri2023" or "caligiuri2023-production"
            None is the procedure of this toolkit; a name is a published one, with a warning about its bias.
        level : float
            Confidence level of the interval.
        rng : int, numpy.random.Generator or None
            Source of the resampling; the same seed gives the same bits.

        Returns
        -------
        Exponent
            In 1 / `time_unit`.

        Raises
        ------
        UnknownNameError
            If there is no such null or procedure.
        DataError
            If the region or the level makes no sense, or the curves were not made for the procedure.

        See Also
        --------
        trajtools.exponents.fit_twins.fit_twins : how twins are fitted.
        trajtools.exponents.fit_neighbors.fit_neighbors : how neighbours are fitted.
        trajtools.exponents.published_fits : the published procedures.
        """
        if procedure is not None:
            return fit_published(self, procedure, level=level)
        if self.method in NEIGHBOR_METHODS:
            return fit_neighbors(self, region, level=level, rng=rng)
        return fit_twins(self, region, null=null, level=level, rng=rng)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the curves; see `trajtools.plots.divergence`.

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

        return plots.divergence(self, ax=ax)
