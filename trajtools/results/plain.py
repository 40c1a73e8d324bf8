"""What estimators return: frozen, with every setting that was used, and words for what went wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

VERDICTS = ("chaotic", "transient", "regular", "inconclusive")
AVERAGES = ("mean-log", "log-mean", "rms")


def to_plain(value: Any) -> Any:
    """Turn a result into what JSON can hold.

    Parameters
    ----------
    value : object
        A result, array, NumPy scalar, container, number or string.

    Returns
    -------
    object
        Dicts, lists, strings, numbers, booleans and None. Numbers keep every digit; NaN and the infinities,
        which JSON does not know, become None.
    """
    if isinstance(value, Result):
        return {name.name: to_plain(getattr(value, name.name)) for name in fields(value)}
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


@dataclass(frozen=True, eq=False)
class Result:
    """What all results can do."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict that JSON can hold.

        Returns
        -------
        dict
            One entry per field. Arrays are lists, numbers keep every digit, NaN and the infinities are None.
        """
        plain: dict[str, Any] = to_plain(self)
        return plain

    def to_json(self, indent: int | None = None) -> str:
        """Return the result as a JSON document.

        Parameters
        ----------
        indent : int or None
            Spaces per level; None puts everything on one line.

        Returns
        -------
        str
            The document; NaN and the infinities are null.
        """
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)


@dataclass(frozen=True, eq=False)
class Fit(Result):
    """A straight line fitted by least squares; see `trajtools.fitting.fit_slope`.

    Attributes
    ----------
    slope, intercept : float
        The line ``intercept + slope * x``.
    stderr : float
        Textbook standard error of the slope, for independent residuals. The points of a divergence curve are not
        independent: this is no interval for an exponent.
    start, stop : int
        The samples ``start <= k < stop`` were fitted.
    r2 : float
        ``1 - SSR / SST``; NaN where all values are equal.
    """

    slope: float
    intercept: float
    stderr: float
    start: int
    stop: int
    r2: float


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
    warnings : tuple of str
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
    warnings: tuple[str, ...] = ()

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

    def fit(
        self,
        region: str | tuple[float, float] = "auto",
        *,
        null: str | None = "power-law",
        procedure: str | None = None,
        level: float = 0.95,
        rng: Any = 0,
    ) -> Exponent:
        """Fit the exponential regime; see `trajtools.growth.fit`.

        Parameters
        ----------
        region : "auto" or (float, float)
            Times between which the growth is measured, in `time_unit`; ``"auto"`` chooses and says what it chose.
        null : "power-law" or None
            What the growth is tested against. Without a null no verdict but ``"inconclusive"`` is given.
        procedure : None or "danovski2024"
            None is the procedure of this toolkit; a name is a published one, with a warning about its bias.
        level : float
            Confidence level of the interval.
        rng : int, numpy.random.Generator or None
            Source of the resampling; the same seed gives the same bits.

        Returns
        -------
        Exponent
            The answer, in 1 / `time_unit`.
        """
        from trajtools.growth import fit

        return fit(self, region, null=null, procedure=procedure, level=level, rng=rng)

    def plot(self, ax: Any = None) -> Any:
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


@dataclass(frozen=True, eq=False)
class Exponent(Result):
    """A growth rate with its doubt.

    Attributes
    ----------
    value : float
        The exponent, natural logarithm, in `unit`; NaN where nothing could be fitted.
    interval : (float, float)
        Confidence interval at `level`; (NaN, NaN) where it is unknown, and `reasons` says why.
    level : float
        Confidence level of the interval.
    p_value : float
        Probability, under the null, of evidence for exponential growth at least this strong; NaN without a null.
    null : str
        The null, in words; empty without one.
    n_used, n_total : int
        Initial conditions (or curves, see ``settings["counted"]``) that entered the value, out of how many.
    verdict : str
        ``"chaotic"``, ``"transient"``, ``"regular"`` or ``"inconclusive"``.
    reasons : tuple of str
        Why, in sentences with numbers.
    window : (float, float)
        Where the growth was measured, in the time unit, since the perturbation: common start, median end.
    window_values : ndarray of float64, shape (W,)
        The exponent over every admissible window inside: what another choice would have given.
    values : ndarray of float64, shape (n_total,)
        The exponent of each initial condition; NaN where it was not used.
    intercept : float
        ``intercept + value * t`` is the line through the mean curve, for plots; NaN where nothing was fitted.
    method, unit : str
        Estimator, and unit of the exponent (``"1/step"``).
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know before believing the number.
    curve : Divergence or None
        What was fitted; not part of `to_dict`.
    """

    value: float
    interval: tuple[float, float]
    level: float
    p_value: float
    null: str
    n_used: int
    n_total: int
    verdict: str
    reasons: tuple[str, ...]
    window: tuple[float, float]
    window_values: Floats
    values: Floats
    intercept: float
    method: str
    unit: str
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    curve: Divergence | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict {self.verdict!r} is none of {', '.join(VERDICTS)}")

    def __str__(self) -> str:
        """Say the number, its interval, the verdict and its reasons, one to a line; `repr` has every field."""
        low, high = self.interval
        span = f"[{low:.4g}, {high:.4g}]" if isfinite(low) and isfinite(high) else "unknown"
        head = f"{self.value:.4g} {self.unit}, {self.level:.0%} interval {span}: {self.verdict}"
        return "\n".join([head, *(f"- {words}" for words in (*self.reasons, *self.warnings))])

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict that JSON can hold, without the curve it was fitted to.

        Returns
        -------
        dict
            One entry per field but `curve`. Arrays are lists, NaN and the infinities are None.
        """
        return {f.name: to_plain(getattr(self, f.name)) for f in fields(self) if f.name != "curve"}

    def per(
        self,
        unit: str,
        *,
        run: Any = None,
        steps_per_epoch: float | None = None,
        learning_rate: Any = None,
        steps_per_sample: float | None = None,
    ) -> Exponent:
        """State the exponent per step, per epoch or per unit of integrated learning rate.

        Parameters
        ----------
        unit : str
            ``"step"``, ``"epoch"`` or ``"learning-rate"``.
        run : Run or None
            Whose hyper-parameters and metrics say what is not given here.
        steps_per_epoch : float or None, in steps
            Steps of one pass through the data.
        learning_rate : float, array_like of float (n,) or None
            A constant, or the rate of the update from step s to step s + 1 at index s.
        steps_per_sample : float or None, in steps
            Steps from one sample to the next, for exponents of arrays.

        Returns
        -------
        Exponent
            In the new unit; see `trajtools.growth.units.per`.

        Raises
        ------
        UnknownNameError
            If there is no such unit.
        DataError
            If neither the arguments nor the run say what the conversion needs.
        """
        from trajtools.growth.units import per

        return per(
            self,
            unit,
            run=run,
            steps_per_epoch=steps_per_epoch,
            learning_rate=learning_rate,
            steps_per_sample=steps_per_sample,
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the curves and the fitted line; see `trajtools.plots.divergence`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn.

        Raises
        ------
        ValueError
            If the result does not hold its curve.
        """
        from trajtools import plots

        if self.curve is None:
            raise ValueError("this exponent does not hold its curve; plot the divergence it was fitted to instead")
        return plots.divergence(self.curve, self, ax=ax)


def average_curves(distances: Floats, group: Ints, start: Ints, average: str) -> tuple[Floats, Ints, Ints]:
    """Average the units of one initial condition and take the logarithm, in the order that `average` names.

    Parameters
    ----------
    distances : ndarray of float64, shape (U, K + 1)
        One row per unit; NaN after its end.
    group, start : ndarray of int64, shape (U,)
        Initial condition and step of perturbation of each unit.
    average : str
        ``"mean-log"``: no average before the logarithm, one curve per unit. ``"log-mean"``: the logarithm of the mean
        over the copies of one initial condition. ``"rms"``: the logarithm of the root mean square over them.

    Returns
    -------
    curves : ndarray of float64, shape (C, K + 1)
        Natural logarithms; NaN where a distance is zero or missing.
    group, start : ndarray of int64, shape (C,)
        Labels of the curves.

    Notes
    -----
    A mean of distances is only meaningful while it is a mean over the same copies, so a curve ends where the first of
    its copies ends. Distances are never averaged over initial conditions before the logarithm: that mean is
    carried by the few fastest ones and grows with the generalised exponent L(1), which is larger than the mean rate.
    """
    positive = np.where(distances > 0, distances, np.nan)
    if average == "mean-log":
        return np.log(positive), group, start
    labels, inverse = np.unique(np.stack([group, start], axis=1), axis=0, return_inverse=True)
    power = 1.0 if average == "log-mean" else 2.0
    curves = np.empty((len(labels), distances.shape[1]))
    for row in range(len(labels)):
        copies = positive[inverse.ravel() == row]
        top = np.max(copies, axis=0)  # scaled, so that squares neither underflow nor overflow
        curves[row] = np.log(top) + np.log(np.mean((copies / top) ** power, axis=0)) / power
    return curves, labels[:, 0], labels[:, 1]


def mean_curve(curves: Floats, group: Ints) -> Floats:
    """Average curves over the units of each initial condition, then over the initial conditions, ignoring NaN.

    Parameters
    ----------
    curves : ndarray of float64, shape (C, K + 1)
        Logarithmic curves; NaN after a curve's end.
    group : ndarray of int64, shape (C,)
        Initial condition of each curve.

    Returns
    -------
    ndarray of float64, shape (K + 1,)
        NaN where no curve is left.
    """
    labels, inverse = np.unique(group, return_inverse=True)
    known = np.isfinite(curves)
    total = np.zeros((len(labels), curves.shape[1]))
    count = np.zeros_like(total)
    np.add.at(total, inverse, np.where(known, curves, 0.0))
    np.add.at(count, inverse, known)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_group = total / count
        alive = count > 0
        mean: Floats = np.where(alive, per_group, 0.0).sum(axis=0) / alive.sum(axis=0)
    return mean
