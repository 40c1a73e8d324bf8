"""A growth rate with its doubt."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any

from trajtools.results.curves import Floats
from trajtools.results.divergence import Divergence
from trajtools.results.plain import Result, to_plain

VERDICTS = ("chaotic", "transient", "regular", "inconclusive")


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
