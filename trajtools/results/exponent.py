"""A growth rate with its doubt."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any

import numpy as np

from trajtools.reasons import Reason
from trajtools.results.divergence import Divergence
from trajtools.results.plain import Result, to_plain
from trajtools.types import Floats

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
    reasons : tuple of Reason
        Why, see `trajtools.reasons.Reason`.
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
    warnings : tuple of Reason
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
    reasons: tuple[Reason, ...]
    window: tuple[float, float]
    window_values: Floats
    values: Floats
    intercept: float
    method: str
    unit: str
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
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

    @property
    def unit_factor(self) -> float:
        """The exponent in `unit` over the exponent in 1 / `time_unit` of its curve; 1 where nothing was converted."""
        return float(self.settings.get("conversion", {}).get("factor", 1.0))

    @property
    def spread(self) -> float:
        """Standard deviation of `values` over the initial conditions that were used; NaN for fewer than two."""
        used = self.values[np.isfinite(self.values)]
        return float(used.std()) if used.size > 1 else float("nan")

    @property
    def used_fraction(self) -> float:
        """Fraction of the initial conditions that entered the value; 0 where there are none."""
        return self.n_used / self.n_total if self.n_total else 0.0

    def fitted_line(self) -> tuple[Floats, Floats] | None:
        """Return both ends of the fitted line.

        Returns
        -------
        (ndarray, ndarray) or None
            Times, in the unit of the curve, and natural logarithms of the distance; None where nothing was fitted.
        """
        ends = np.asarray(self.window, dtype=np.float64)
        line = self.intercept + self.value / self.unit_factor * ends
        return (ends, line) if np.isfinite(ends).all() and np.isfinite(line).all() else None

    def interval_lines(self) -> tuple[Floats, Floats, Floats] | None:
        """Return the lines with the slopes at both ends of the interval, through the start of the fitted line.

        Returns
        -------
        (ndarray, ndarray, ndarray) or None
            Times of both ends, and natural logarithms of the distance on the lower and on the upper line; None where
            the fit or its interval is unknown.
        """
        line, slopes = self.fitted_line(), np.asarray(self.interval, dtype=np.float64) / self.unit_factor
        if line is None or not np.isfinite(slopes).all():
            return None
        ends, values = line
        low, high = values[0] + slopes[:, None] * (ends - ends[0])
        return ends, low, high

    def null_band(self) -> dict[str, Floats] | None:
        """Return the band of curves under the null.

        Returns
        -------
        dict or None
            ``time`` in the unit of the curve, and natural logarithms of the distance: ``record``, the curve that was
            tested (part of the record, or the mean over the twins), and ``low`` and ``high``, between which lie the
            middle 90 % of the surrogates, or of the null fitted to each curve of twins. None without a test.
        """
        band = self.settings.get("null_band")
        if band is None or not np.isfinite(band["low"]).any():
            return None
        time = band.get("time")
        if time is None:
            spacing = float(self.settings.get("dt", 1.0)) * float(self.settings.get("interpolated", 1))
            time = np.asarray(band["lag"]) * spacing
        return {"time": np.asarray(time), **{name: np.asarray(band[name]) for name in ("record", "low", "high")}}

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
