"""A Lyapunov exponent with its interval and verdict, in any unit of time."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from trajtools.errors import DataError, UnknownNameError
from trajtools.reasons import Reason
from trajtools.results import Result, to_plain
from trajtools.types import Floats, Ints

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.exponents.divergence import Divergence
    from trajtools.store import Run

VERDICTS = ("chaotic", "transient", "regular", "inconclusive")
UNITS = ("step", "epoch", "learning-rate")
RATE_NAMES = ("learning_rate", "lr", "eta")  # of hyper-parameters, in the order in which they are looked for
EPOCH_NAMES = ("steps_per_epoch", "batches_per_epoch")
UNEQUAL = 0.1  # relative difference of the mean rates of several starts that is worth a warning


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
        run: Run | None = None,
        steps_per_epoch: float | None = None,
        learning_rate: ArrayLike | None = None,
        steps_per_sample: float | None = None,
    ) -> Exponent:
        r"""State the exponent per step, per epoch or per unit of integrated learning rate.

        Parameters
        ----------
        unit : str
            ``"step"``, ``"epoch"`` or ``"learning-rate"``.
        run : Run or None
            Whose hyper-parameters and metrics say what is not given here.
        steps_per_epoch : float or None, in steps
            Steps of one pass through the data; None: what the run says.
        learning_rate : float, array_like of float (n,) or None
            A constant, or the rate of the update from step s to step s + 1 at index s; None: what the run says.
        steps_per_sample : float or None, in steps
            Steps from one sample to the next, for exponents of arrays, which do not know; None: what the data say.

        Returns
        -------
        Exponent
            Value, interval, `values` and `window_values` in the new unit. `window` stays in the unit of the curve, the
            older settings in the unit they were measured in; ``settings["conversion"]`` says what was done.

        Raises
        ------
        UnknownNameError
            If there is no such unit.
        DataError
            If neither the arguments nor the run say what the conversion needs.

        Notes
        -----
        .. math:: \lambda_\eta = \lambda \, \frac{n}{\sum_{s} \eta_s}

        for the n fitted steps s: the growth over them, divided by the integrated learning rate instead of their number.
        A gradient flow with time :math:`\sum \eta_s` has the same exponent at every small learning rate in this unit.
        Between recorded rates they are interpolated. Of neighbours, which come from everywhere in the record, it is the
        mean rate of the record that counts.
        """
        if unit not in UNITS:
            raise UnknownNameError(f"there is no unit {unit!r}; there are {', '.join(UNITS)}")
        plain = _unconverted(self)
        growth, name = plain.curve, _name(unit)
        if growth is None and not np.isfinite(plain.value):
            return replace(plain, unit=f"1/{name}")  # nothing was found, in any unit
        if growth is None:
            raise DataError("this exponent does not hold its curve, so the steps that were fitted are unknown")
        steps = _steps_per_time(plain.settings, steps_per_sample, growth.time_unit)
        if unit == "step":
            found = _Conversion(1.0, f"one {growth.time_unit} is {steps:g} steps", {})
        elif unit == "epoch":
            found = _epoch(run, steps_per_epoch)
        else:
            found = _learning_rate(plain, growth, steps, run, learning_rate)
        factor = found.steps / steps
        low, high = plain.interval
        conversion = {
            "per": unit,
            "from_unit": plain.unit,
            "factor": factor,
            "steps_per_time_unit": steps,
            "source": found.words,
            **found.settings,
        }
        stated = Reason.of(
            "converted",
            "stated per {name}: {source}; rates in the other sentences are per {time_unit}",
            name=name,
            source=found.words,
            time_unit=growth.time_unit,
        )
        return replace(
            plain,
            value=plain.value * factor,
            interval=(low * factor, high * factor),
            values=plain.values * factor,
            window_values=plain.window_values * factor,
            unit=f"1/{name}",
            settings=plain.settings | {"conversion": conversion},
            reasons=plain.reasons if plain.unit == f"1/{name}" else (*plain.reasons, stated),
            warnings=(*plain.warnings, *found.warnings),
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

    def plot(self, ax: Axes | None = None) -> Axes:
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


def _unconverted(exponent: Exponent) -> Exponent:
    conversion = exponent.settings.get("conversion")
    if conversion is None:
        return exponent
    factor = exponent.unit_factor
    low, high = exponent.interval

    return replace(
        exponent,
        value=exponent.value / factor,
        interval=(low / factor, high / factor),
        values=exponent.values / factor,
        window_values=exponent.window_values / factor,
        unit=conversion["from_unit"],
        settings={name: value for name, value in exponent.settings.items() if name != "conversion"},
        reasons=tuple(reason for reason in exponent.reasons if reason.code != "converted"),
    )


def _steps_per_time(settings: dict[str, Any], given: float | None, unit: str) -> float:
    """Steps in one time unit of the curve."""
    dt = float(settings.get("dt", 1.0))
    if "steps_per_sample" not in settings:
        return 1.0 / dt  # twins: dt is the time of one step
    known = settings["steps_per_sample"]
    if given is None and known is None:
        raise DataError(
            f"this exponent is per {unit} of an array, and nothing says how many steps a sample is: give "
            "steps_per_sample=, or analyse a Trajectory, which knows its steps"
        )
    return _positive(given if given is not None else known, "steps_per_sample") / dt


def _positive(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{name} is {value!r}; it must be a positive number") from None
    if not (np.isfinite(number) and number > 0):
        raise DataError(f"{name} is {number:g}; it must be a positive number")
    return number


def _name(unit: str) -> str:
    return "integrated learning rate" if unit == "learning-rate" else unit


@dataclass(frozen=True)
class _Conversion:
    """How many steps one new unit is, and where that comes from."""

    steps: float
    words: str
    settings: dict[str, Any]
    warnings: tuple[Reason, ...] = ()


def _epoch(run: Any, given: float | None) -> _Conversion:
    if given is not None:
        steps = _positive(given, "steps_per_epoch")
        words = f"an epoch is {steps:g} steps (given)"
    else:
        steps, source = _epoch_of_run(run)
        words = f"an epoch is {steps:g} steps ({source})"
    return _Conversion(steps, words, {"steps_per_epoch": steps})


def _epoch_of_run(run: Any) -> tuple[float, str]:
    if run is None:
        raise DataError(
            "how many steps an epoch has is unknown: give steps_per_epoch=, or run= of which it is recorded"
        )
    for name in EPOCH_NAMES:
        if name in run.hparams:
            return _positive(run.hparams[name], f"the hyper-parameter {name} of run {run.name!r}"), (
                f"hyper-parameter {name} of run {run.name!r}"
            )
    if "epoch" in run.metrics:
        epoch = np.asarray(run.metrics["epoch"], dtype=np.float64)
        epoch = epoch if epoch.ndim == 1 else epoch.reshape(len(epoch), -1)[:, 0]
        steps = _steps_per_epoch(np.asarray(run.step, dtype=np.float64), epoch)
        if steps is not None:
            return steps, f"metric epoch of run {run.name!r}"
    raise DataError(
        f"run {run.name!r} has neither the hyper-parameter steps_per_epoch nor a metric epoch that advances twice, so "
        "the length of an epoch is unknown: give steps_per_epoch="
    )


def _steps_per_epoch(step: Floats, epoch: Floats) -> float | None:
    known = np.isfinite(epoch)
    step, epoch = step[known], epoch[known]
    if len(epoch) and np.all(epoch == np.round(epoch)):
        # A counter: only the steps at which it advances tell how long an epoch is.
        advances = np.flatnonzero(np.diff(epoch) > 0) + 1
        step, epoch = step[advances], epoch[advances]
    if len(epoch) < 2 or not epoch[-1] > epoch[0]:
        return None
    return float((step[-1] - step[0]) / (epoch[-1] - epoch[0]))


def _learning_rate(plain: Exponent, growth: Divergence, steps: float, run: Any, given: ArrayLike | None) -> _Conversion:
    begin, end = _fitted_steps(plain, growth, steps)
    means, source = _mean_rates(begin, end, run, given)
    weight = (end - begin).astype(np.float64)
    mean = float(np.sum(means * weight) / np.sum(weight))
    if not mean > 0:
        raise DataError(
            f"the learning rate over the fitted steps is {mean:g} ({source}): nothing was integrated; state the "
            "exponent per step"
        )
    warnings = []
    if np.ptp(means) > UNEQUAL * mean:
        warnings.append(
            Reason.of(
                "learning-rates-differ",
                "the mean learning rate differs between the starts, from {low:.3g} to {high:.3g}: the value divides "
                "the whole growth by the whole integrated learning rate; see the windows (lyapunov_windows)",
                low=means.min(),
                high=means.max(),
            )
        )
    low, high = int(begin.min()), int(end.max())
    words = f"the mean learning rate is {mean:.4g} over the fitted steps, within {low} to {high} ({source})"
    found = {"mean_learning_rate": mean, "over_steps": (low, high), "learning_rates": means}
    return _Conversion(1.0 / mean, words, found, tuple(warnings))


def _fitted_steps(plain: Exponent, growth: Divergence, steps: float) -> tuple[Ints, Ints]:
    """First and last fitted step of each start; of neighbours, of the whole record."""
    starts, settings = np.unique(growth.start), plain.settings
    if "steps_per_sample" in settings:
        scale = 1.0 if settings["steps_per_sample"] is not None else steps * float(settings["dt"])
        low, high = settings.get("span", (starts[0], starts[-1] + growth.time[-1] * steps / scale))
        return np.array([round(low * scale)]), np.array([round(high * scale)])
    window = np.asarray(plain.window, dtype=np.float64) * steps
    if not np.isfinite(window).all():
        raise DataError(
            "nothing was fitted, so there are no steps over which a learning rate could be integrated; state the "
            "exponent per step"
        )
    low, high = round(window[0]), round(window[1])
    return starts + low, starts + max(high, low + 1)


def _mean_rates(begin: Ints, end: Ints, run: Any, given: ArrayLike | None) -> tuple[Floats, str]:
    """Mean rate of the updates from step begin[i] to step end[i], and where it was found."""
    if given is None and run is None:
        raise DataError(
            "the learning rate is unknown: give learning_rate= (a number, or the rate of every update), or run= of "
            "which it is recorded"
        )
    if given is None:
        step, rate, source = _rates_of_run(run)
    else:
        rate, source = np.atleast_1d(np.asarray(given, dtype=np.float64)), "given"
        if rate.ndim != 1 or not len(rate) or not np.isfinite(rate).all() or (rate < 0).any():
            raise DataError("learning_rate must be a number or one number per update, none of them negative or NaN")
        step = np.arange(len(rate), dtype=np.float64)
    if len(rate) == 1:
        return np.full(len(begin), rate[0]), source
    first, last = int(begin.min()), int(end.max())
    # A rate stands at the state that its update started from: the last one is good until the next state.
    if first < step[0] or last > step[-1] + float(np.diff(step).max()):
        raise DataError(
            f"learning rates are known for the updates from step {step[0]:g} to {step[-1]:g} ({source}), the fitted "
            f"steps are {first} to {last}; give learning_rate= for all of them"
        )
    total = np.concatenate([[0.0], np.cumsum(np.interp(np.arange(first, last), step, rate))])
    return np.asarray((total[end - first] - total[begin - first]) / (end - begin)), source


def _rates_of_run(run: Any) -> tuple[Floats, Floats, str]:
    """Steps and learning rates as recorded: as a metric, else one constant among the hyper-parameters."""
    names = [name for name in run.metrics if name == "learning_rate" or name.startswith("learning_rate_")]
    if names:
        columns = [np.asarray(run.metrics[name], np.float64).reshape(run.n_states, -1) for name in names]
        rates = np.concatenate(columns, axis=1)
        known = np.isfinite(rates).all(axis=1)
        if known.any():
            rates = rates[known]
            if not np.all(rates == rates[:, :1]):
                raise DataError(
                    f"run {run.name!r} has several learning rates ({', '.join(names)}), which differ between groups of "
                    "parameters or members: give the one to integrate as learning_rate="
                )
            source = f"metric {names[0]} of run {run.name!r}"
            return np.asarray(run.step, np.float64)[known], rates[:, 0], source
    for name in RATE_NAMES:
        if name in run.hparams:
            rate = _positive(run.hparams[name], f"the hyper-parameter {name} of run {run.name!r}")
            source = f"hyper-parameter {name} of run {run.name!r}, taken as constant"
            return np.zeros(1), np.array([rate]), source
    raise DataError(
        f"run {run.name!r} has recorded no learning rate, neither as a metric (learning_rate) nor as a hyper-parameter "
        f"({', '.join(RATE_NAMES)}): give learning_rate="
    )


def unknown_exponent(
    method: str, unit: str, level: float, reasons: tuple[Reason, ...], settings: dict[str, Any] | None = None
) -> Exponent:
    """Return an exponent without a value: NaN and inconclusive, with the reasons."""
    nan = float("nan")
    return Exponent(
        value=nan,
        interval=(nan, nan),
        level=level,
        p_value=nan,
        null="",
        n_used=0,
        n_total=0,
        verdict="inconclusive",
        reasons=reasons,
        window=(nan, nan),
        window_values=np.empty(0),
        values=np.empty(0),
        intercept=nan,
        method=method,
        unit=unit,
        settings=settings or {},
    )


def with_steps(exponent: Exponent, step: Ints) -> Exponent:
    """Tell an exponent of an array of states from a trajectory which steps they stand at."""
    if "steps_per_sample" not in exponent.settings or len(step) < 2:
        return exponent
    gap = float(step[1] - step[0]) / float(exponent.settings.get("interpolated", 1))
    low, high = exponent.settings.get("span", (0, (float(step[-1]) - float(step[0])) / gap))
    known = {"steps_per_sample": gap, "span": (float(step[0]) + low * gap, float(step[0]) + high * gap)}
    return replace(exponent, settings=exponent.settings | known)
