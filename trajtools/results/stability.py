"""Whether perturbed trajectories come back to their reference, to its orbit, or to neither."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.plain import Result
from trajtools.types import Floats, Ints

STABILITY_CLASSES = ("asymptotically stable", "orbitally stable", "marginal drift", "unstable", "inconclusive")


@dataclass(frozen=True, eq=False)
class Trend(Result):
    """How one distance changes from the perturbation on.

    Attributes
    ----------
    quantity : str
        ``"distance at equal times"`` or ``"distance to the orbit"``.
    rate : float
        Slope of ln d(t), least squares over the part of each curve that is above the numerical floor and, after
        growth by 3 e-folds, not yet within one of its largest value; mean over the initial conditions; in
        1 / time unit. NaN where no curve has such a part.
    rate_interval : (float, float)
        Its confidence interval; NaN where it is unknown.
    change : float
        ln of the distance at the end (mean over the last tenth of what is above the numerical floor; the floor itself
        where it was reached) over the first one. NaN where all of it is below the floor.
    change_interval : (float, float)
        Its confidence interval; NaN where it is unknown.
    late_change : float
        The part of the change that falls into the second half.
    largest : float
        ln of the largest distance over the distance at equal times that the perturbation made.
    n_floor : int
        Trajectories whose distance fell to the numerical floor, and stayed there.
    n_units : int
        Trajectories that count.
    over : str
        What was resampled for the intervals: ``"initial conditions"``, ``"blocks of time"`` or ``"nothing"``.
    exponential : float
        For growth: how much better an exponential describes it than a power law or diffusion, between -1 and 1; NaN
        where nothing grows by an e-fold.
    p_exponential : float
        Probability of evidence at least this strong under the null that both describe it equally well; NaN with
        fewer than 8 initial conditions.
    """

    quantity: str
    rate: float
    rate_interval: tuple[float, float]
    change: float
    change_interval: tuple[float, float]
    late_change: float
    largest: float
    n_floor: int
    n_units: int
    over: str
    exponential: float
    p_exponential: float


@dataclass(frozen=True, eq=False)
class OrbitalStability(Result):
    """How perturbed trajectories move against the orbit of their reference.

    Attributes
    ----------
    verdict : str
        ``"asymptotically stable"``, ``"orbitally stable"``, ``"marginal drift"``, ``"unstable"`` or
        ``"inconclusive"``; see `trajtools.orbital_stability`.
    reasons : tuple of str
        Why, in sentences with numbers.
    dynamical, orbital : Trend
        The evidence: how the distance at equal times and the distance to the orbit change.
    metric : str
        Name of the distance between states.
    time : ndarray of float64, shape (K + 1,)
        Time since the perturbation, in `time_unit`.
    time_unit : str
        Unit of `time` and `lag`; rates are in 1 / unit.
    distance : ndarray of float64, shape (U, K + 1)
        Distance of each perturbed trajectory to its reference at equal times (dynamical stability); NaN where either
        state is not finite, and after the end of the record.
    orbit : ndarray of float64, shape (U, K + 1)
        Distance to the set of all recorded states of the reference, before and after: min over s.
    transverse : ndarray of float64, shape (U, K + 1)
        Distance to the orbit at the same phase, the neutral direction along the flow removed where the orbit is
        sampled densely enough; NaN where the phase lies beyond the record.
    lag : ndarray of float64, shape (U, K + 1)
        Time of the reference at the same phase less the time now, in `time_unit`: positive where the perturbed
        trajectory leads. NaN where the reference stands still, or the phase lies beyond the record.
    floor : ndarray of float64, shape (U, K + 1)
        Distance that rounding of the stored weights alone produces; NaN where unknown.
    resolution : ndarray of float64, shape (U, K + 1)
        Estimated error of the orbit between its recorded states, in the metric; 0 where it was not interpolated.
    frechet : ndarray of float64, shape (U,)
        Discrete Frechet distance to the reference over the same steps.
    hausdorff : ndarray of float64, shape (U,)
        Hausdorff distance: no state of the perturbed is further from the orbit, and no state of the reference over
        the same steps is further from the perturbed.
    tube : ndarray of float64, shape (U,)
        Radius of the tube around the orbit that holds the perturbed trajectory: the largest `orbit`.
    extent : ndarray of float64, shape (U,)
        Size of the orbit: largest distance of a state of the reference to the one at the perturbation.
    group : ndarray of int64, shape (U,)
        The initial condition that each belongs to.
    start : ndarray of int64, shape (U,)
        Step of the perturbation.
    n_references : int
        Number of initial conditions.
    n_diverged, n_excluded : int
        Trajectories that end with NaN or inf; states, of either, that are not finite and were left out.
    settings : dict
        Every parameter as used, chosen or given, with the thresholds of the classes.
    warnings : tuple of str
        What the reader should know before believing the class.
    """

    verdict: str
    reasons: tuple[str, ...]
    dynamical: Trend
    orbital: Trend
    metric: str
    time: Floats
    time_unit: str
    distance: Floats
    orbit: Floats
    transverse: Floats
    lag: Floats
    floor: Floats
    resolution: Floats
    frechet: Floats
    hausdorff: Floats
    tube: Floats
    extent: Floats
    group: Ints
    start: Ints
    n_references: int
    n_diverged: int
    n_excluded: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in STABILITY_CLASSES:
            raise ValueError(f"verdict {self.verdict!r} is none of {', '.join(STABILITY_CLASSES)}")

    def __str__(self) -> str:
        """Say the class and its reasons, one to a line; `repr` has every field."""
        head = f"{self.verdict} ({len(self.group)} perturbed, {self.n_references} initial conditions, {self.metric})"
        return "\n".join([head, *(f"- {words}" for words in (*self.reasons, *self.warnings))])

    def plot(self, ax: Any = None) -> Any:
        """Draw the distances and the lag; see `trajtools.plots.stability`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw the distances; None makes a new figure, with the lag below them.

        Returns
        -------
        matplotlib.axes.Axes
            Where the distances were drawn.
        """
        from trajtools import plots

        return plots.stability(self, ax=ax)
