"""Curves of the distance between neighbouring trajectories."""

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
    """Curves of the distance between neighbouring trajectories, before any fit.

    Attributes
    ----------
    method : str
        Name of the estimator.
    metric : str
        Name of the distance between states.
    average : str
        ``"mean-log"``, ``"log-mean"`` or ``"rms"``: average over the copies of one initial condition; see `curves`.
    time : ndarray of float64, shape (K + 1,)
        Time since the perturbation, in `time_unit`.
    time_unit : str
        Unit of `time`; exponents are in 1 / unit.
    log_distance : ndarray of float64, shape (K + 1,)
        Mean of the curves over the initial conditions, natural logarithm; NaN where no curve is left.
    distances : ndarray of float64, shape (U, K + 1)
        Distance of each unit (each twin to its reference), aligned at its own start; zero where it has merged with the
        reference, NaN after the end of its record and from its first state that is not finite.
    group : ndarray of int64, shape (U,)
        Initial condition of each unit. Units of one group share an orbit and are not independent.
    start : ndarray of int64, shape (U,)
        Step at which the perturbation was introduced.
    floor : ndarray of float64, shape (U, K + 1)
        Distance that rounding of the stored weights alone can produce; NaN where unknown.
    scale : ndarray of float64, shape (U,)
        Largest distance of the reference from zero along its record: the room for growth; NaN where unknown.
    n_references : int
        Number of initial conditions.
    settings : dict
        Every parameter used, including automatic choices.
    warnings : tuple of Reason
        Warnings that limit the interpretation of the curves.
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
        """Logarithmic curves for fits, averaged by the rule `average`.

        Returns
        -------
        curves : ndarray of float64, shape (C, K + 1)
            Natural logarithms; NaN after the end of a curve. One curve per unit for ``"mean-log"``, else one per
            initial condition and start.
        group, start : ndarray of int64, shape (C,)
            Initial condition of each curve, and the step of its perturbation.
        """
        return average_curves(self.distances, self.group, self.start, self.average)

    def orbit_curves(self) -> Floats:
        """One curve per initial condition and start, averaged over the copies by the rule `average`.

        Returns
        -------
        ndarray of float64, shape (C, K + 1)
            Natural logarithms of the distance; NaN after the end of a curve.
        """
        curves, group, start = self.curves()
        orbits, orbit = np.unique(np.stack([group, start], axis=1), axis=0, return_inverse=True)
        if len(orbits) == len(curves):
            return curves
        rows = [curves[orbit.ravel() == k] for k in range(len(orbits))]
        return np.array([mean_curve(copies, np.zeros(len(copies), dtype=np.int64)) for copies in rows])

    def floor_curve(self) -> Floats:
        """Distance that rounding alone can produce, as the median over the units.

        Returns
        -------
        ndarray of float64, shape (K + 1,)
            Natural logarithms; NaN where the rounding floor is unknown or zero.
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
            Times between which the growth is measured, in `time_unit`; ``"auto"``: from the data.
        null : "power-law", "quadratic-basin" or None
            Null hypothesis for the growth of twins. None: no test; the verdict is then inconclusive or regular.
            `trajtools.lyapunov` tests neighbours against surrogates of the data.
        procedure : None, "danovski2024", "caligiuri2023" or "caligiuri2023-production"
            None: the procedure of this toolkit; a name: a published one, with a warning about its bias.
        level : float
            Confidence level of the interval.
        rng : int, numpy.random.Generator or None
            Random numbers for the resampling; the same seed gives the same bits.

        Returns
        -------
        Exponent
            In 1 / `time_unit`.

        Raises
        ------
        UnknownNameError
            If there is no such null or procedure.
        DataError
            If the region or the level is invalid, or the curves were not computed for the procedure.

        See Also
        --------
        trajtools.exponents.fit_twins.fit_twins : the fit of twins.
        trajtools.exponents.fit_neighbors.fit_neighbors : the fit of neighbour curves.
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
            Axes to draw on; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from trajtools import plots

        return plots.divergence(self, ax=ax)
