"""A Lyapunov exponent with its interval and verdict, in any unit of time."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from trajtools.errors import DataError, UnknownNameError
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result, to_plain
from trajtools.types import Floats, Ints
from trajtools.wording import bounds, spoken, time_units

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.exponents.divergence import Divergence
    from trajtools.store import Run

VERDICTS = ("chaotic", "transient", "sensitive", "regular", "diverging", "inconclusive")
GROWTHS = ("exponential", "slower", "none", "contracting", "diverging", "undecided")
PERSISTENCES = ("shown", "ended", "mixed", "not tested")
UNITS = ("step", "epoch", "learning-rate")
RATE_NAMES = ("learning_rate", "lr", "eta")  # names of the hyper-parameter, in order of precedence
EPOCH_NAMES = ("steps_per_epoch", "batches_per_epoch")
UNEQUAL = 0.1  # largest relative difference of the mean rates of several starts without a warning


@dataclass(frozen=True, eq=False, repr=False)
class Exponent(Result):
    """A Lyapunov exponent with its interval and verdict.

    Attributes
    ----------
    value : float
        The exponent, natural logarithm, in `unit`; NaN if nothing was fitted.
    interval : (float, float)
        Confidence interval at `level`; (NaN, NaN) if unknown, with the cause in `reasons`.
    level : float
        Confidence level of the interval.
    p_value : float
        Probability, under the null, of evidence for exponential growth at least this strong; NaN without a null.
    null : str
        Description of the null; empty without one.
    n_used, n_total : int
        Number of initial conditions (or curves, see ``settings["counted"]``) used, and their total number.
    verdict : str
        `growth` and `persistence` in one word: ``"chaotic"``, ``"transient"``, ``"sensitive"``, ``"regular"``,
        ``"diverging"`` or ``"inconclusive"``.
    reasons : tuple of Reason
        Reasons for the verdict, see `trajtools.reasons.Reason`.
    window : (float, float)
        Fitted window, in the time unit, since the perturbation: common start, median end.
    window_values : ndarray of float64, shape (W,)
        The exponent over every admissible window inside: its sensitivity to the choice of window.
    values : ndarray of float64, shape (n_total,)
        The exponent of each initial condition; NaN for those not used.
    intercept : float
        ``intercept + value * t`` is the fitted line, for plots: of twins, through the median start of the fitted
        stretches (``settings["stretches"]``); NaN if nothing was fitted.
    method, unit : str
        Estimator, and unit of the exponent (``"1/step"``).
    settings : dict
        Every parameter used, including automatic choices.
    warnings : tuple of Reason
        Warnings that limit the interpretation of the value.
    curve : Divergence or None
        The fitted curves; not part of `to_dict`.
    growth : str
        How the distance grows: ``"exponential"``; ``"slower"``, as a power of time or by diffusion; ``"none"``;
        ``"contracting"``; ``"diverging"``, as fast as the training itself runs away, or of one trajectory, whose steps
        grow until it is NaN or infinite; or ``"undecided"``.
    persistence : str
        Whether growth follows every perturbation: ``"shown"``; ``"ended"``, if it followed the earlier ones only;
        ``"mixed"``; or ``"not tested"``, with fewer than two starts that were followed long enough.
    waiting : (float, float, float)
        10 %, 50 % and 90 % quantiles of the time from the perturbation to the onset of growth, in the time unit of the
        curve; NaN for other methods than twins, and without growth.
    fraction_growing : float
        Fraction of the curves of twins, one for each initial condition and start, that grow; NaN for other methods.
    from_perturbation : float
        Gain over time since the perturbation, waiting included: the mean finite-time exponent of twins, in `unit`; NaN
        for other methods. It depends on epsilon.
    rate_by_time : dict of str to ndarray of float64, shape (W,)
        Rate of the twins in windows of the training: ``start`` and ``stop`` in the time unit since step 0; ``rate`` in
        `unit`, NaN where fewer than three quarters of the twins are below the upper level; ``left``, their fraction.
        Empty for other methods.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(60.0)
    >>> twins = (0.9**t, [0.9**t + 1e-9 * 1.3**t])
    >>> exponent = tt.twins(twins).fit()
    >>> round(exponent.value, 2), exponent.growth
    (0.26, 'exponential')
    >>> [reason.code for reason in exponent.reasons]
    ['growth', 'waiting', 'null-rejected', 'persistence-not-tested']
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
    curve: Divergence | None = None
    growth: str = "undecided"
    persistence: str = "not tested"
    waiting: tuple[float, float, float] = (float("nan"),) * 3
    fraction_growing: float = float("nan")
    from_perturbation: float = float("nan")
    rate_by_time: dict[str, Floats] = field(default_factory=dict)
    _dims: ClassVar[AxisNames] = {"values": ("initial_condition",), "window_values": ("choice",)}
    _one_row: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, allowed in (("verdict", VERDICTS), ("growth", GROWTHS), ("persistence", PERSISTENCES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    @property
    def bound(self) -> float:
        """Upper bound, in `unit`, of an exponent whose value is unknown: of an orbit that repeats exactly; else NaN."""
        if np.isfinite(self.value):
            return float("nan")
        return float(self.settings.get("largest_exponent", float("nan"))) * self.unit_factor

    def _head(self) -> str:
        if np.isfinite(self.bound):
            period = self.settings.get("period")
            return f"below {self.bound:.2g} {self.unit}: {self.verdict}" + (f", period {period:.6g}" if period else "")
        if np.isnan(self.value):
            return f"unknown: {self.verdict}"
        return f"{spoken(self.value)} {self.unit}, {self.level:.0%} interval {bounds(self.interval)}: {self.verdict}"

    def _sentence(self) -> str:
        tenfold = np.log(10) / self.value * self.unit_factor if self.value > 0 else float("nan")
        time = (
            f"tenfold every {tenfold:.3g} {time_units(self.curve.time_unit)}"
            if self.curve is not None
            else "exponentially"
        )
        if "at_rest" in self.settings:
            return "The trajectory stands still."
        if self.method != "twins":  # one trajectory: there are neighbouring states, and no copies
            return {
                "chaotic": f"The distance between neighbouring states grows {time}, all along the record.",
                "regular": "The trajectory returns to where it was, and neighbouring states stay close.",
                "diverging": "The trajectory runs away until it is NaN or infinite.",
            }.get(self.verdict, "The data do not decide; the reasons say what is missing.")
        return {
            "chaotic": f"The distance to nearby copies grows {time}, whenever they are perturbed.",
            "transient": f"The distance to nearby copies grew {time} at first; later perturbations no longer grow.",
            "sensitive": f"The distance to nearby copies grows {time}; whether later perturbations grow, too, is open.",
            "regular": {
                "contracting": "Nearby copies come together.",
                "slower": "The distance to nearby copies grows, but no faster than a power of time.",
            }.get(
                self.growth,
                "The distance to nearby copies grows, but by less than one e-fold in the recorded time."
                if self.interval[0] > 0
                else "Nearby copies stay as close as they were.",
            ),
            "diverging": "The training itself runs away, so its copies separate as fast as it does.",
            "inconclusive": "The data do not decide; the reasons say what is missing.",
        }[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """Convert the result to a dict that JSON can represent, without the fitted curves.

        Returns
        -------
        dict
            One entry per field except `curve`. Arrays become lists, NaN and infinities become None.
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
        r"""Convert the exponent to 1/step, 1/epoch or 1/(integrated learning rate).

        Parameters
        ----------
        unit : str
            ``"step"``, ``"epoch"`` or ``"learning-rate"``.
        run : Run or None
            Run whose hyper-parameters and metrics supply the arguments that are None.
        steps_per_epoch : float or None, in steps
            Steps of one pass through the data; None: from the run.
        learning_rate : float, array_like of float (n,) or None
            A constant, or the rate of the update from step s to step s + 1 at index s; None: from the run.
        steps_per_sample : float or None, in steps
            Steps from one sample to the next, for exponents of arrays, which do not store it; None: from the data.

        Returns
        -------
        Exponent
            Value, interval, `values` and `window_values` in the new unit. `window` keeps the unit of the curve, other
            settings the unit they were measured in; ``settings["conversion"]`` describes the conversion.

        Raises
        ------
        UnknownNameError
            If there is no such unit.
        DataError
            If neither the arguments nor the run supply the numbers that the conversion needs.

        Notes
        -----
        .. math:: \lambda_\eta = \lambda \, \frac{n}{\sum_{s} \eta_s}

        for the n fitted steps s: the growth over them, divided by the integrated learning rate instead of their number.
        A gradient flow with time :math:`\sum \eta_s` has the same exponent at every small learning rate in this unit.
        Rates are interpolated between recorded steps. For neighbours, which come from the whole record, the mean rate
        of the whole record is used.
        """
        if unit not in UNITS:
            raise UnknownNameError(f"there is no unit {unit!r}; there are {', '.join(UNITS)}")
        plain = _unconverted(self)
        growth, name = plain.curve, _name(unit)
        if growth is None and not np.isfinite(plain.value):
            return replace(plain, unit=f"1/{name}")  # no value to convert
        if growth is None:
            raise DataError("this exponent has no curve, so the fitted steps are unknown")
        steps = _steps_per_time(plain.settings, steps_per_sample, growth.time_unit)
        if unit == "step":
            conversion = _Conversion(1.0, f"one {growth.time_unit} is {steps:g} steps", {})
        elif unit == "epoch":
            conversion = _epoch(run, steps_per_epoch)
        else:
            conversion = _learning_rate(plain, growth, steps, run, learning_rate)
        factor = conversion.steps / steps
        low, high = plain.interval
        record = {
            "per": unit,
            "from_unit": plain.unit,
            "factor": factor,
            "steps_per_time_unit": steps,
            "source": conversion.source,
            **conversion.settings,
        }
        reason = Reason.of(
            "converted",
            "converted to a rate per {name}: {source}; rates in the other sentences are per {time_unit}",
            name=name,
            source=conversion.source,
            time_unit=growth.time_unit,
        )
        return replace(
            plain,
            value=plain.value * factor,
            interval=(low * factor, high * factor),
            values=plain.values * factor,
            window_values=plain.window_values * factor,
            from_perturbation=plain.from_perturbation * factor,
            rate_by_time=_scaled(plain.rate_by_time, factor),
            unit=f"1/{name}",
            settings=plain.settings | {"conversion": record},
            reasons=plain.reasons if plain.unit == f"1/{name}" else (*plain.reasons, reason),
            warnings=(*plain.warnings, *conversion.warnings),
        )

    @property
    def unit_factor(self) -> float:
        """The exponent in `unit` over the exponent in 1 / `time_unit` of its curve; 1 without a conversion."""
        return float(self.settings.get("conversion", {}).get("factor", 1.0))

    @property
    def spread(self) -> float:
        """Standard deviation of `values` over the initial conditions used; NaN for fewer than two."""
        used = self.values[np.isfinite(self.values)]
        return float(used.std()) if used.size > 1 else float("nan")

    @property
    def used_fraction(self) -> float:
        """Fraction of the initial conditions used; 0 if there are none."""
        return self.n_used / self.n_total if self.n_total else 0.0

    def fitted_line(self) -> tuple[Floats, Floats] | None:
        """Endpoints of the fitted line.

        Returns
        -------
        (ndarray, ndarray) or None
            Times, in the unit of the curve, and natural logarithms of the distance; None if nothing was fitted.
        """
        ends = np.asarray(self.window, dtype=np.float64)
        line = self.intercept + self.value / self.unit_factor * ends
        return (ends, line) if np.isfinite(ends).all() and np.isfinite(line).all() else None

    def interval_lines(self) -> tuple[Floats, Floats, Floats] | None:
        """Lines through the start of the fitted line, with the slopes at both ends of the interval.

        Returns
        -------
        (ndarray, ndarray, ndarray) or None
            Times of both ends, and natural logarithms of the distance on the lower and on the upper line; None if
            the fit or its interval is unknown.
        """
        line, slopes = self.fitted_line(), np.asarray(self.interval, dtype=np.float64) / self.unit_factor
        if line is None or not np.isfinite(slopes).all():
            return None
        ends, values = line
        low, high = values[0] + slopes[:, None] * (ends - ends[0])
        return ends, low, high

    def null_band(self) -> dict[str, Floats] | None:
        """Band of curves under the null.

        Returns
        -------
        dict or None
            ``time`` in the unit of the curve, and natural logarithms of the distance: ``record``, the tested curve
            (of part of the record, or the mean over the twins), and ``low`` and ``high``, the 5 % and 95 % quantiles of
            the surrogates, or of the null fitted to each curve of twins. None without a test.
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
            Axes to draw on; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.

        Raises
        ------
        ValueError
            If the result has no curve.
        """
        from trajtools import plots

        if self.curve is None:
            raise ValueError("this exponent has no curve; plot the divergence it was fitted to instead")
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
        from_perturbation=exponent.from_perturbation / factor,
        rate_by_time=_scaled(exponent.rate_by_time, 1 / factor),
        unit=conversion["from_unit"],
        settings={name: value for name, value in exponent.settings.items() if name != "conversion"},
        reasons=tuple(reason for reason in exponent.reasons if reason.code != "converted"),
    )


def _scaled(rates: dict[str, Floats], factor: float) -> dict[str, Floats]:
    return rates | {"rate": rates["rate"] * factor} if rates else rates


def _steps_per_time(settings: dict[str, Any], override: float | None, unit: str) -> float:
    """Steps in one time unit of the curve."""
    dt = float(settings.get("dt", 1.0))
    if "steps_per_sample" not in settings:
        return 1.0 / dt  # twins: dt is the time of one step
    recorded = settings["steps_per_sample"]
    if override is None and recorded is None:
        raise DataError(
            f"this exponent of an array is per {unit}, and the number of steps per sample is unknown: give "
            "steps_per_sample=, or analyse a Trajectory, which stores its steps"
        )
    return _positive(override if override is not None else recorded, "steps_per_sample") / dt


def _positive(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{name} must be a positive number, got {value!r}") from None
    if not (np.isfinite(number) and number > 0):
        raise DataError(f"{name} must be a positive number, got {number:g}")
    return number


def _name(unit: str) -> str:
    return "integrated learning rate" if unit == "learning-rate" else unit


@dataclass(frozen=True)
class _Conversion:
    """Steps per new unit, and the source of that number."""

    steps: float
    source: str
    settings: dict[str, Any]
    warnings: tuple[Reason, ...] = ()


def _epoch(run: Any, override: float | None) -> _Conversion:
    if override is not None:
        steps = _positive(override, "steps_per_epoch")
        text = f"an epoch is {steps:g} steps (given)"
    else:
        steps, source = _epoch_of_run(run)
        text = f"an epoch is {steps:g} steps ({source})"
    return _Conversion(steps, text, {"steps_per_epoch": steps})


def _epoch_of_run(run: Any) -> tuple[float, str]:
    if run is None:
        raise DataError("the number of steps per epoch is unknown: give steps_per_epoch=, or a run= that records it")
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
        "the number of steps per epoch is unknown: give steps_per_epoch="
    )


def _steps_per_epoch(step: Floats, epoch: Floats) -> float | None:
    known = np.isfinite(epoch)
    step, epoch = step[known], epoch[known]
    if len(epoch) and np.all(epoch == np.round(epoch)):
        # An integer counter: only the steps at which it advances determine the length of an epoch.
        advances = np.flatnonzero(np.diff(epoch) > 0) + 1
        step, epoch = step[advances], epoch[advances]
    if len(epoch) < 2 or not epoch[-1] > epoch[0]:
        return None
    return float((step[-1] - step[0]) / (epoch[-1] - epoch[0]))


def _learning_rate(
    plain: Exponent, growth: Divergence, steps: float, run: Any, override: ArrayLike | None
) -> _Conversion:
    begin, end = _fitted_steps(plain, growth, steps)
    means, source = _mean_rates(begin, end, run, override)
    weight = (end - begin).astype(np.float64)
    mean = float(np.sum(means * weight) / np.sum(weight))
    if not mean > 0:
        raise DataError(
            f"the mean learning rate over the fitted steps is {mean:g} ({source}), so its integral is zero; use the "
            "exponent per step"
        )
    warnings = []
    if np.ptp(means) > UNEQUAL * mean:
        warnings.append(
            Reason.of(
                "learning-rates-differ",
                "the mean learning rate differs between the starts, from {low:.3g} to {high:.3g}: the value is the "
                "total growth over the total integrated learning rate; see lyapunov_windows for separate windows",
                low=means.min(),
                high=means.max(),
            )
        )
    low, high = int(begin.min()), int(end.max())
    text = f"the mean learning rate is {mean:.4g} over the fitted steps, within {low} to {high} ({source})"
    settings = {"mean_learning_rate": mean, "over_steps": (low, high), "learning_rates": means}
    return _Conversion(1.0 / mean, text, settings, tuple(warnings))


def _fitted_steps(plain: Exponent, growth: Divergence, steps: float) -> tuple[Ints, Ints]:
    """First and last fitted step of each start; for neighbours, of the whole record."""
    starts, settings = np.unique(growth.start), plain.settings
    if "steps_per_sample" in settings:
        scale = 1.0 if settings["steps_per_sample"] is not None else steps * float(settings["dt"])
        low, high = settings.get("span", (starts[0], starts[-1] + growth.time[-1] * steps / scale))
        return np.array([round(low * scale)]), np.array([round(high * scale)])
    window = np.asarray(plain.window, dtype=np.float64) * steps
    if not np.isfinite(window).all():
        raise DataError(
            "nothing was fitted, so there are no steps over which to integrate the learning rate; use the "
            "exponent per step"
        )
    low, high = round(window[0]), round(window[1])
    # Late starts are followed for less time: the record ends, or twins are planted anew.
    age = np.round(growth.time * steps).astype(np.int64)
    last = np.where(np.isfinite(growth.distances), age, 0).max(axis=1)
    end = np.minimum([last[growth.start == start].max() for start in starts], max(high, low + 1))
    fitted = end > low
    return starts[fitted] + low, starts[fitted] + end[fitted]


def _mean_rates(begin: Ints, end: Ints, run: Any, override: ArrayLike | None) -> tuple[Floats, str]:
    """Mean rate of the updates from step begin[i] to step end[i], and its source."""
    if override is None and run is None:
        raise DataError(
            "the learning rate is unknown: give learning_rate= (a number, or the rate of every update), or a run= that "
            "records it"
        )
    if override is None:
        step, rate, source = _rates_of_run(run)
    else:
        rate, source = np.atleast_1d(np.asarray(override, dtype=np.float64)), "given"
        if rate.ndim != 1 or not len(rate) or not np.isfinite(rate).all() or (rate < 0).any():
            raise DataError("learning_rate must be a number or one number per update, finite and not negative")
        step = np.arange(len(rate), dtype=np.float64)
    if len(rate) == 1:
        return np.full(len(begin), rate[0]), source
    first, last = int(begin.min()), int(end.max())
    # A rate belongs to the state that its update starts from; the last one is valid until the next state.
    if first < step[0] or last > step[-1] + float(np.diff(step).max()):
        raise DataError(
            f"learning rates are known from step {step[0]:g} to {step[-1]:g} ({source}), but the fitted steps are "
            f"{first} to {last}; give learning_rate= for all of them"
        )
    total = np.concatenate([[0.0], np.cumsum(np.interp(np.arange(first, last), step, rate))])
    return np.asarray((total[end - first] - total[begin - first]) / (end - begin)), source


def _rates_of_run(run: Any) -> tuple[Floats, Floats, str]:
    """Recorded steps and learning rates: a metric, else a constant hyper-parameter."""
    names = [name for name in run.metrics if name == "learning_rate" or name.startswith("learning_rate_")]
    if names:
        columns = [np.asarray(run.metrics[name], np.float64).reshape(run.n_states, -1) for name in names]
        rates = np.concatenate(columns, axis=1)
        known = np.isfinite(rates).all(axis=1)
        if known.any():
            rates = rates[known]
            if not np.all(rates == rates[:, :1]):
                raise DataError(
                    f"run {run.name!r} has several learning rates ({', '.join(names)}), which differ between parameter "
                    "groups or members: give the one to integrate as learning_rate="
                )
            source = f"metric {names[0]} of run {run.name!r}"
            return np.asarray(run.step, np.float64)[known], rates[:, 0], source
    for name in RATE_NAMES:
        if name in run.hparams:
            rate = _positive(run.hparams[name], f"the hyper-parameter {name} of run {run.name!r}")
            source = f"hyper-parameter {name} of run {run.name!r}, assumed constant"
            return np.zeros(1), np.array([rate]), source
    raise DataError(
        f"run {run.name!r} records no learning rate, neither as a metric (learning_rate) nor as a hyper-parameter "
        f"({', '.join(RATE_NAMES)}): give learning_rate="
    )


def unknown_exponent(
    method: str, unit: str, level: float, reasons: tuple[Reason, ...], settings: dict[str, Any] | None = None
) -> Exponent:
    """Inconclusive exponent with value NaN and these reasons."""
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
    """Add the steps of the states to an exponent that was computed from a plain array."""
    if "steps_per_sample" not in exponent.settings or len(step) < 2:
        return exponent
    gap = float(step[1] - step[0]) / float(exponent.settings.get("interpolated", 1))
    low, high = exponent.settings.get("span", (0, (float(step[-1]) - float(step[0])) / gap))
    settings = {"steps_per_sample": gap, "span": (float(step[0]) + low * gap, float(step[0]) + high * gap)}
    return replace(exponent, settings=exponent.settings | settings)
