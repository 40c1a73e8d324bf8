"""Many trainings side by side: exponent and training time against hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trajtools.errors import SelectionError
from trajtools.results.exponent import Exponent
from trajtools.results.plain import Result
from trajtools.results.sweep_grids import PhaseDiagram, Scaling
from trajtools.sweeps.onset import Coincidence, Fastest, Onset
from trajtools.types import Floats


@dataclass(frozen=True, eq=False)
class SweepPoint(Result):
    """One run of a sweep.

    Attributes
    ----------
    x, y : float
        Its hyper-parameters; y is NaN in a sweep over one.
    path, run : str
        Where it was read from.
    control : bool
        Whether it is a control (see `trajtools.sweep`).
    exponent : Exponent or None
        Its exponent; None where the run has nothing to measure one from, or it was not asked for.
    times : ndarray of float64, shape (n_thresholds, n)
        Training time of each initial condition to each threshold, in `time_unit`; inf where it was not reached.
    final_loss : ndarray of float64, shape (n,)
        Loss of the last recorded state of each initial condition; NaN where there is none.
    final_accuracy : ndarray of float64, shape (n,)
        Likewise.
    sharpness : float
        Median over the last half of the recorded sharpness; NaN where none was recorded.
    steps : int
        Last recorded step.
    hparams : dict
        All hyper-parameters of the run.
    warnings : tuple of str
        What is missing or doubtful in this run.
    """

    x: float
    y: float
    path: str
    run: str
    control: bool
    exponent: Exponent | None
    times: Floats
    final_loss: Floats
    final_accuracy: Floats
    sharpness: float
    steps: int
    hparams: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def reached(self) -> Floats:
        """Fraction of the initial conditions that reach each threshold, shape (n_thresholds,); NaN without any."""
        if not self.times.shape[1]:
            return np.full(len(self.times), np.nan)
        return np.asarray(np.isfinite(self.times).mean(axis=1))


@dataclass(frozen=True, eq=False)
class Sweep(Result):
    """The runs of a sweep; see `trajtools.sweep`.

    Attributes
    ----------
    x_name, y_name : str
        The hyper-parameters; `y_name` is empty in a sweep over one.
    points : tuple of SweepPoint
        In the order of (y, x).
    thresholds : tuple of float
        Accuracies that the training times are to.
    time_unit : str
        Unit of the training times.
    settings : dict
        What was given.
    warnings : tuple of str
        Runs that were left out, and why.
    """

    x_name: str
    y_name: str
    points: tuple[SweepPoint, ...]
    thresholds: tuple[float, ...]
    time_unit: str
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say the sweep as a table."""
        from trajtools.sweeps.table import as_text

        return as_text(self)

    def onset(self, *, above: float | str = "auto", level: float = 0.95, rng: Any = 0) -> Onset:
        """Find where sensitive dependence begins along x.

        Parameters
        ----------
        above : float or "auto"
            The exponent that counts as sensitive. ``"auto"``: three times the largest exponent of the
            stable points below the first sensitive one, and at least one e-fold in the time that was measured.
        level : float
            Confidence level.
        rng : int, numpy.random.Generator or None
            Source of the resampling.

        Returns
        -------
        Onset
            With `found` False and the reason where the range holds none.

        Raises
        ------
        SelectionError
            If the sweep has two hyper-parameters: take `phase_diagram`, or one value of y.
        """
        from trajtools.sweeps.onset import onset

        return onset(self.one(), above=above, level=level, rng=rng)

    def fastest(self, threshold: float | None = None, *, level: float = 0.95, rng: Any = 0) -> Fastest:
        """Find where training is fastest along x.

        Parameters
        ----------
        threshold : float or None
            One of `thresholds`; None: the largest that at least half of the initial conditions of some run reach.
        level : float
            Confidence level.
        rng : int, numpy.random.Generator or None
            Source of the resampling.

        Returns
        -------
        Fastest
            By the median over the initial conditions, those that do not arrive counted as infinite.

        Raises
        ------
        SelectionError
            If the threshold is not one of the sweep's, or the sweep has two hyper-parameters.
        """
        from trajtools.sweeps.onset import fastest

        return fastest(self.one(), threshold, level=level, rng=rng)

    def coincidence(self, threshold: float | None = None, *, level: float = 0.95, rng: Any = 0) -> Coincidence:
        """Ask whether training is fastest at the onset of chaos, and whether chaos explains it.

        Parameters
        ----------
        threshold : float or None
            As in `fastest`.
        level : float
            Confidence level.
        rng : int, numpy.random.Generator or None
            Source of the resampling.

        Returns
        -------
        Coincidence
            With what the controls say, if there are any: where a stable control of equal step length goes on getting
            faster, the minimum is made by the instability that cuts a 1/eta law off, not by chaos as such.

        Raises
        ------
        SelectionError
            As `onset` and `fastest`.
        """
        from trajtools.sweeps.onset import coincidence

        return coincidence(self.one(), threshold, level=level, rng=rng)

    def phase_diagram(self, *, level: float = 0.95, rng: Any = 0) -> PhaseDiagram:
        """Arrange a sweep over two hyper-parameters as a grid.

        Parameters
        ----------
        level : float
            Confidence level.
        rng : int, numpy.random.Generator or None
            Source of the resampling.

        Returns
        -------
        PhaseDiagram
            Exponent, verdict and training time over x and y, with the onset along x for each y.

        Raises
        ------
        SelectionError
            If the sweep has one hyper-parameter only.
        """
        from trajtools.sweeps.diagram import phase_diagram

        return phase_diagram(self, level=level, rng=rng)

    def scaling(
        self,
        names: tuple[str, ...] | str | None = None,
        threshold: float | None = None,
        *,
        runs: Callable[[SweepPoint], bool] | None = None,
        level: float = 0.95,
        rng: Any = 0,
    ) -> Scaling:
        """Fit a power law of the training time in the hyper-parameters, where training is stable.

        Parameters
        ----------
        names : tuple of str, str or None
            Factors, keys of the hyper-parameters; ``"1-momentum"`` is one minus the momentum. None: x, and y if any.
        threshold : float or None
            As in `fastest`.
        runs : callable or None
            ``runs(point)`` says whether a run may enter the fit, to ask for the law in a part of the range; choose by
            hyper-parameters, for a choice by the times themselves bends the law. None: all that are stable.
        level : float
            Confidence level.
        rng : int, numpy.random.Generator or None
            Source of the resampling.

        Returns
        -------
        Scaling
            The powers with intervals, the scatter about the law, and the times of all runs beside those of the law.
            Its `reasons` say so where the times bend away from any power law.

        Raises
        ------
        SelectionError
            If the threshold or a factor is unknown.
        DataError
            If too few stable runs are left.
        """
        from trajtools.sweeps.scaling import scaling

        return scaling(self, names, threshold, runs=runs, level=level, rng=rng)

    def where(self, y: float | None = None, *, runs: Callable[[SweepPoint], bool] | None = None) -> Sweep:
        """Keep some of the runs.

        Parameters
        ----------
        y : float or None
            Those with this value of y; None: all of them.
        runs : callable or None
            ``runs(point)`` says whether a run is kept, as in ``runs=lambda p: p.hparams["batch_size"] == 64``; None:
            all of them.

        Returns
        -------
        Sweep
            Over x alone if y is given.

        Raises
        ------
        SelectionError
            If no run is left; the message lists the values of y.
        """
        kept = tuple(p for p in self.points if y is None or p.y == y)
        if not kept:
            there = ", ".join(f"{value:g}" for value in sorted({p.y for p in self.points}))
            raise SelectionError(f"no run has {self.y_name or 'y'}={y:g}; there are {there}")
        kept = tuple(p for p in kept if runs is None or runs(p))
        if not kept:
            raise SelectionError(f"runs= keeps none of the {len(self.points)} runs of this sweep")
        name = self.y_name if y is None else ""
        return Sweep(self.x_name, name, kept, self.thresholds, self.time_unit, self.settings, self.warnings)

    def one(self) -> Sweep:
        """Give the sweep itself, if it has one hyper-parameter.

        Returns
        -------
        Sweep
            The sweep.

        Raises
        ------
        SelectionError
            If it has two.
        """
        if self.y_name:
            raise SelectionError(
                f"this sweep has two hyper-parameters, {self.x_name} and {self.y_name}: take one value of the second "
                "(.where(...)), or .phase_diagram()"
            )
        return self

    def plot(self, figure: Any = None) -> Any:
        """Draw exponent and training time against x; see `trajtools.plots.sweep`.

        Parameters
        ----------
        figure : matplotlib.figure.Figure or None
            Where to draw; None makes a new one.

        Returns
        -------
        matplotlib.figure.Figure
            Where it was drawn.
        """
        from trajtools import plots

        return plots.sweep(self, figure=figure)
