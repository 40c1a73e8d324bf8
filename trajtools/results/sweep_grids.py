"""What a sweep over several hyper-parameters says: the phase diagram, a law of its boundary, one of the times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError
from trajtools.results.plain import Result
from trajtools.types import Floats


@dataclass(frozen=True, eq=False)
class PhaseDiagram(Result):
    """Exponent and verdict over two hyper-parameters.

    Attributes
    ----------
    x_name, y_name : str
        The hyper-parameters.
    x, y : ndarray of float64, shape (nx,) and (ny,)
        The values that occur, in order.
    exponent : ndarray of float64, shape (ny, nx)
        Mean exponent of the runs there; NaN where there is none.
    verdict : list of list of str
        The same grid: the verdict, ``"mixed"`` where the runs there differ, ``""`` where there is none.
    time : ndarray of float64, shape (n_thresholds, ny, nx)
        Median training time; inf where most do not reach the threshold.
    count : ndarray of int64, shape (ny, nx)
        Runs.
    boundary : ndarray of float64, shape (ny,)
        Onset along x for each y; NaN where there is none, or noise hides it.
    intervals : ndarray of float64, shape (ny, 2)
        Of the boundary, made of whole cells of the sweep; NaN where there is none.
    reasons : tuple of str
        How each onset was found, or why there is none, and what the runs of one cell do not share.
    level : float
        Confidence level of the intervals.
    """

    x_name: str
    y_name: str
    x: Floats
    y: Floats
    exponent: Floats
    verdict: list[list[str]]
    time: Floats
    count: Any
    boundary: Floats
    intervals: Floats
    reasons: tuple[str, ...]
    level: float

    def plot(self, ax: Any = None) -> Any:
        """Draw the diagram; see `trajtools.plots.phase_diagram`.

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

        return plots.phase_diagram(self, ax=ax)

    def boundary_law(self, factor: Callable[[Floats], Floats], name: str = "factor", *, rng: Any = 0) -> BoundaryLaw:
        """Ask whether the onset follows a function of y.

        Parameters
        ----------
        factor : callable
            ``factor(y)`` gives what the onset may go with, positive, as in ``lambda momentum: 1 - momentum``.
        name : str
            What the factor is called in words.
        rng : int, numpy.random.Generator or None
            Source of the draws.

        Returns
        -------
        BoundaryLaw
            The power of the factor, and whether the onset may be proportional to it.

        Raises
        ------
        DataError
            If the factor is not positive where there is an onset.
        """
        from trajtools.sweeps.diagram import boundary_law

        return boundary_law(self, factor, name, rng=rng)


@dataclass(frozen=True, eq=False)
class BoundaryLaw(Result):
    """Whether the onset of chaos follows a function of the second hyper-parameter; see `PhaseDiagram.boundary_law`.

    Attributes
    ----------
    name : str
        What the factor is called.
    power : float
        ln onset = constant + power x ln factor, the onsets drawn evenly from their intervals: the median. NaN with
        fewer than two onsets, or where the factor does not vary.
    interval : (float, float)
        At the level of the diagram.
    proportional : bool
        Whether one constant times the factor lies within the intervals of all onsets, two at least.
    constant : (float, float)
        The constants that do; NaN where there is none.
    n_used : int
        Onsets.
    reasons : tuple of str
        What was left out.
    """

    name: str
    power: float
    interval: tuple[float, float]
    proportional: bool
    constant: tuple[float, float]
    n_used: int
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        """Say the power, and whether the onset may be proportional to the factor."""
        low, high = self.interval
        power = f"onset ~ ({self.name})^{self.power:.3g} [{low:.3g}, {high:.3g}]; " if self.power == self.power else ""
        same = f"{'may be' if self.proportional else 'is not'} proportional to {self.name}"
        return "; ".join([f"{power}it {same}" if self.n_used > 1 else f"no law in {self.name}", *self.reasons])


@dataclass(frozen=True, eq=False)
class Scaling(Result):
    """A power law for the training time, fitted where training is stable; see `Sweep.scaling`.

    Attributes
    ----------
    names : tuple of str
        The factors, as keys of the hyper-parameters.
    powers : ndarray of float64, shape (k,)
        ln time = constant + sum of power x ln factor.
    intervals : ndarray of float64, shape (k, 2)
        From resampled runs and initial conditions.
    constant : float
        Natural logarithm of the time at all factors 1.
    scatter : float
        Root mean square of the residuals of ln time: how well the curves collapse.
    n_used, n_total : int
        Runs that entered, out of how many.
    factors : ndarray of float64, shape (n_total, k)
        Of each run, in the order of the sweep; NaN where a run that did not enter lacks one.
    times : ndarray of float64, shape (n_total,)
        Median training time of each run; inf where it does not arrive, NaN where no accuracy was recorded.
    used : ndarray of bool, shape (n_total,)
        Which runs entered.
    threshold : float
        The accuracy to be reached.
    time_unit : str
        Unit of the times.
    level : float
        Confidence level.
    reasons : tuple of str
        What was left out and why, and whether the times bend away from the law.
    """

    names: tuple[str, ...]
    powers: Floats
    intervals: Floats
    constant: float
    scatter: float
    n_used: int
    n_total: int
    factors: Floats
    times: Floats
    used: NDArray[np.bool_]
    threshold: float
    time_unit: str
    level: float
    reasons: tuple[str, ...]

    @property
    def predicted(self) -> Floats:
        """Times by the law, of the runs that did not enter, too; shape (n_total,)."""
        return np.asarray(np.exp(self.constant + np.log(self.factors) @ self.powers))

    def holds_to(self, along: Floats, where: NDArray[np.bool_] | None = None, *, within: float = 0.25) -> float:
        """Find how far along some quantity the law holds, whether the runs entered the fit or not.

        Parameters
        ----------
        along : ndarray of float64, shape (n_total,)
            The quantity, one value for each run, as in ``law.factors[:, 0] / law.factors[:, 1]``.
        where : ndarray of bool, shape (n_total,), or None
            Runs to look at; None: all.
        within : float
            A time is off the law where it is larger or smaller by a factor of more than 1 + `within`.

        Returns
        -------
        float
            The largest value before the first run that is off; NaN if the first one is. Runs whose time by the law is
            unknown are passed over; one that does not arrive is off.

        Raises
        ------
        DataError
            If there is not one value for each run.
        """
        if np.shape(along) != self.times.shape:
            raise DataError(f"along has the shape {np.shape(along)}; needed one value for each run, {self.times.shape}")
        with np.errstate(divide="ignore"):
            off = np.abs(np.log(self.times / self.predicted))
        seen = np.isfinite(along) & np.isfinite(self.predicted) & ~np.isnan(self.times)
        seen &= True if where is None else where
        first = np.min(along[seen & (off > np.log1p(within))], initial=np.inf)
        return float(np.max(along[seen & (along < first)], initial=-np.inf)) if (along[seen] < first).any() else np.nan

    def __str__(self) -> str:
        """Say the law, how well it holds, and what was left out."""
        powers = zip(self.names, self.powers, self.intervals, strict=True)
        said = " x ".join(f"({name})^{power:.3g} [{low:.3g}, {high:.3g}]" for name, power, (low, high) in powers)
        head = (
            f"{self.time_unit}s to {self.threshold:g} ~ {said}; scatter {self.scatter:.2g} in ln time, "
            f"{self.n_used} of {self.n_total} runs"
        )
        return "\n".join([head, *(f"  - {words}" for words in self.reasons)])

    def plot(self, ax: Any = None) -> Any:
        """Draw the times against those of the law; see `trajtools.plots.scaling`.

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

        return plots.scaling(self, ax=ax)
