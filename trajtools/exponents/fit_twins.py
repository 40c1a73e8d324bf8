"""Exponent from curves of twins: fitted region, rate, interval, null, and separate starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.exponent import Exponent
from trajtools.exponents.nulls import BASIN, basin_null, twins_optimizer
from trajtools.exponents.verdict import FEWEST_EFOLDS, Epoch, caveats, does_not_persist, judge, without_persistence
from trajtools.reasons import Reason
from trajtools.statistics import (
    DECISION,
    FEWEST_UNITS,
    N_RESAMPLES,
    SATURATION_MARGIN,
    Ratio,
    Spans,
    average_curves,
    choose_spans,
    random_generator,
    resampled_ratio,
    shape_evidence,
    sign_flip_p,
    usable,
)
from trajtools.types import Floats, Ints, RNGLike

if TYPE_CHECKING:
    from trajtools.exponents.divergence import Divergence

NULL_TEXTS = {
    "power-law": "power law (d ~ (1 + t/tau)^alpha, alpha <= 3) or diffusion (d^2 = d0^2 + a t + b t^2)",
    BASIN: "twins in a quadratic basin under the same optimiser ({optimizer}; d^p = sum of w |m(t)|^p over its modes)",
}


NULLS = tuple(NULL_TEXTS)
EARLY = 0.25  # of an epoch: later perturbations in it are not separate evidence
Shape = Callable[[Floats, Floats, Ints, Ints, int], tuple[Floats, Floats]]
Band = dict[str, Floats]
NULL_SHARE = 0.9  # share of the null curves inside the band
BAND_POINTS = 60  # most points of a band, which is for plots
SKIPPED = 8  # usable time over the shortest skipped transient, in which the perturbation aligns
MOST_SKIPPED = 4  # usable time over the longest skipped transient
TIME_BLOCKS = 8  # of a single orbit
MOST_POINTS = 400  # of a curve in the test of the null; longer curves are subsampled


def fit_twins(
    growth: Divergence,
    region: str | tuple[float, float] = "auto",
    *,
    null: str | None = "power-law",
    level: float = 0.95,
    rng: RNGLike = None,
) -> Exponent:
    r"""Fit the exponential regime of the divergence of twins.

    Notes
    -----
    .. math:: \lambda = \frac{\sum_i [\ln d_i(t_i^*) - \ln d_i(t_0)]}{\sum_i (t_i^* - t_0)}

    where i runs over the initial conditions (after averaging over copies): the mean of the local slopes, with equal
    weight for each step of each initial condition. Each curve ends at :math:`t_i^*`, its first passage of the
    saturation level, which is common to all curves. That is a stopping time, for which the ratio of sums is unbiased
    (Wald's identity), whereas the mean of :math:`\Delta \ln d_i / \Delta t_i` favours curves that grew fast by
    chance. R2 plays no role. The start :math:`t_0` is also common: the first time after which the rate is constant
    within its error, when the perturbation has aligned with the growing directions.

    The interval resamples initial conditions, then twins. With one initial condition it comes from at least three
    separate starts, or else from blocks of time.
    """
    if null is not None and null not in NULLS:
        raise UnknownNameError(
            f"there is no null {null!r} for twins; there are {', '.join(NULLS)}, and None for no test"
        )
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    generator = random_generator(rng)
    fit = measure(growth, region, null, level, generator)
    epochs = separate_starts(fit, level, generator)
    if any(epoch.grows for epoch in epochs) and any(epoch.silent for epoch in epochs):
        return _fit_growing(growth, epochs, region, null=null, level=level, rng=rng)

    def rise() -> tuple[float, float]:
        # The converse test: does the null fit better over the whole rise?
        shape = evidence_function(growth, null or NULLS[0])
        p_value, evidence, _ = against_shapes(
            fit.curves, fit.spans.begin, fit.spans.knee, generator, shape=shape, in_favour=True
        )
        return p_value, evidence

    verdict, reasons = judge(fit, epochs, rise, null)
    return _exponent(
        fit,
        epochs,
        (verdict, reasons),
        settings=_settings(fit, epochs, region=region, null=null, level=level, rng=rng),
    )


def measure(
    growth: Divergence, region: str | tuple[float, float], null: str | None, level: float, rng: np.random.Generator
) -> TwinFit:
    """Choose the region and measure the rate."""
    curves = Curves(growth.time, *growth.curves())
    floor = np.asarray(np.broadcast_to(growth.floor, growth.distances.shape))
    log_floor, _, _ = average_curves(floor, growth.group, growth.start, growth.average)
    if isinstance(region, str):
        if region != "auto":
            raise DataError(f"region must be 'auto' or two times (start, stop), got {region!r}")
        single = len(np.unique(curves.group)) < 2 and len(np.unique(curves.start)) < 3
        spans = choose_spans(curves.time, curves.values, log_floor, single=single)
        common, settled = _settling(curves, spans)
        first = np.maximum(spans.begin, common)
    else:
        spans, first = _fixed_region(curves, log_floor, region)
        settled = True
    last = np.maximum(spans.last, first - 1)
    gain, duration = curves.landed(first, last, spans.landing)
    ratio, unit = rate(curves, first, last, (gain, duration), level=level, rng=rng)
    p_null, evidence, band = float("nan"), float("nan"), None
    if null is not None:
        p_null, evidence, band = against_shapes(curves, first, last, rng, shape=evidence_function(growth, null))
    return TwinFit(growth, curves, spans, first, last, gain, duration, ratio, unit, p_null, evidence, settled, band)


@dataclass(frozen=True, eq=False)
class TwinFit:
    """Curves, their fitted parts, and the rate.

    Attributes
    ----------
    growth : Divergence
        The divergence.
    curves : Curves
        Its curves.
    spans : Spans
        Usable part of each curve.
    first, last : ndarray of int64, shape (C,)
        First and last fitted point of each curve; ``last <= first`` if there is none.
    gain, duration : ndarray of float64, shape (C,)
        Growth of each curve over its fitted points, in e-folds, and its duration.
    ratio : Ratio
        Rate over all curves.
    unit : str
        Resampled unit: ``"initial conditions"``, ``"starts"``, ``"blocks of time"``, or ``""`` for none.
    p_null, evidence : float
        p-value against the null, and mean evidence against it, between -1 and 1; NaN without a null.
    settled : bool
        Whether the rate is constant after the common start.
    band : dict or None
        Band of the null, see `against_shapes`.
    """

    growth: Divergence
    curves: Curves
    spans: Spans
    first: Ints
    last: Ints
    gain: Floats
    duration: Floats
    ratio: Ratio
    unit: str
    p_null: float
    evidence: float
    settled: bool
    band: Band | None = None

    @property
    def fitted(self) -> Ints:
        """Curves with fitted points."""
        return np.flatnonzero(self.last > self.first)

    @property
    def usable(self) -> Ints:
        """Curves with at least two points above the rounding floor."""
        return np.flatnonzero(self.spans.end > self.spans.begin)


@dataclass(frozen=True, eq=False)
class Curves:
    """Logarithmic curves with their labels.

    Attributes
    ----------
    time : ndarray of float64, shape (K + 1,)
        Time since the perturbation.
    values : ndarray of float64, shape (C, K + 1)
        Natural logarithms of distances.
    group, start : ndarray of int64, shape (C,)
        Initial condition of each curve, and the step of its perturbation.
    """

    time: Floats
    values: Floats
    group: Ints
    start: Ints

    def __getitem__(self, rows: Ints) -> Curves:
        """Select curves."""
        return Curves(self.time, self.values[rows], self.group[rows], self.start[rows])

    @property
    def cell(self) -> Ints:
        """Label of the initial condition and start of each curve: curves of one cell are copies of each other."""
        return np.unique(np.stack([self.group, self.start], axis=1), axis=0, return_inverse=True)[1].ravel()

    def gain(self, first: Ints, last: Ints) -> Floats:
        """Growth of each curve from `first` to `last`, zero if ``last <= first``; shape (C,)."""
        rows = np.arange(len(self.values))
        nonempty = last > first
        with np.errstate(invalid="ignore"):
            gain = self.values[rows, np.where(nonempty, last, 0)] - self.values[rows, np.where(nonempty, first, 0)]
        return np.where(nonempty, gain, 0.0)

    def duration(self, first: Ints, last: Ints) -> Floats:
        """Time from `first` to `last`, zero if ``last <= first``; shape (C,)."""
        return np.asarray(self.time[np.maximum(last, first)] - self.time[first])

    def landed(self, first: Ints, last: Ints, landing: int) -> tuple[Floats, Floats]:
        """Mean gain and duration, each (C,), between the first and the last `landing` points, pair by pair.

        For shorter curves, those between the first and the last point.
        """
        count = np.where(last - first >= 2 * landing, landing, 1)
        gain, duration = np.zeros(len(first)), np.zeros(len(first))
        for k in range(int(count.max(initial=1))):
            a = np.where(k < count, first + k, first)
            b = np.where(k < count, np.maximum(last - count + 1 + k, a), first)
            gain += self.gain(a, b) / count
            duration += self.duration(a, b) / count
        return gain, duration


def rate(
    curves: Curves,
    first: Ints,
    last: Ints,
    grown: tuple[Floats, Floats],
    *,
    level: float,
    rng: np.random.Generator,
) -> tuple[Ratio, str]:
    """Rate over all curves, with its error from initial conditions, else from starts, else from blocks of time."""
    nonempty = np.flatnonzero(last > first)
    gain, duration, used = grown[0][nonempty], grown[1][nonempty], curves[nonempty]
    if not len(nonempty):
        nan = float("nan")
        return Ratio(nan, nan, (nan, nan), nan, 0), ""
    if len(np.unique(used.group)) >= 2:
        return resampled_ratio(gain, duration, used.cell, used.group, level=level, rng=rng), "initial conditions"
    if len(np.unique(used.start)) >= 3:
        return resampled_ratio(gain, duration, used.cell, used.start, level=level, rng=rng), "starts"
    if int(np.median((last - first)[nonempty])) < TIME_BLOCKS:
        return resampled_ratio(gain, duration, used.cell, used.group, level=level, rng=rng), ""
    gain, duration, block = _time_blocks(used, first[nonempty], last[nonempty])
    return resampled_ratio(gain, duration, block, block, level=level, rng=rng), "blocks of time"


def _time_blocks(curves: Curves, first: Ints, last: Ints) -> tuple[Floats, Floats, Ints]:
    """Cut every curve into `TIME_BLOCKS` blocks, the same for all copies of an orbit."""
    edges = np.round(np.linspace(int(first.min()), int(np.median(last)), TIME_BLOCKS + 1)).astype(np.int64)
    edges[-1] = curves.values.shape[1] - 1
    cuts: list[tuple[Ints, Ints]] = [(np.clip(a, first, last), np.clip(b, first, last)) for a, b in pairwise(edges)]
    gain = np.concatenate([curves.gain(a, b) for a, b in cuts])
    duration = np.concatenate([curves.duration(a, b) for a, b in cuts])
    return gain, duration, np.repeat(np.arange(TIME_BLOCKS), len(first))


def _settling(curves: Curves, spans: Spans) -> tuple[int, bool]:
    """Find the first point after which the early and the later rate agree at the 1 % level."""
    nonempty = spans.last > spans.begin
    if not nonempty.any():
        return 0, True
    length = int(np.median((spans.last - spans.begin)[nonempty]))
    begin = int(np.median(spans.begin[nonempty]))
    if length < 4:
        return begin, True
    width = max(1, length // 8)
    earliest = begin + -(-length // SKIPPED)
    latest = max(earliest, begin + length // MOST_SKIPPED)
    compare = _by_orbit if len(np.unique(curves.group)) > 1 else _by_time
    for shift in range(earliest, latest + 1):
        gap, error, freedom, later = compare(curves, spans, shift, width)
        if freedom < 1:
            return shift, True
        from scipy.special import stdtrit

        if abs(gap) <= float(stdtrit(freedom, 1 - DECISION / 2)) * error + 1e-6 * later:
            return shift, True
    return latest, False


def _by_orbit(curves: Curves, spans: Spans, shift: int, width: int) -> tuple[float, float, int, float]:
    """Early minus late rate, its error over initial conditions, degrees of freedom, and the size of the late rate."""
    (g1, t1), (g2, t2) = _piece(curves, spans, shift, shift + width), _piece(curves, spans, shift + width, None)
    if t1.sum() <= 0 or t2.sum() <= 0:
        return 0.0, 0.0, 0, 0.0
    early, late = g1.sum() / t1.sum(), g2.sum() / t2.sum()
    pull = (g1 - early * t1) / t1.sum() - (g2 - late * t2) / t2.sum()
    freedom = len(pull) - 1
    return early - late, float(np.sqrt(np.sum(pull**2) * len(pull) / freedom)), freedom, abs(late)


def _piece(curves: Curves, spans: Spans, low: int, high: int | None) -> tuple[Floats, Floats]:
    """Gain and time of each initial condition between two points, within the fitted span."""
    last = np.maximum(spans.last, spans.begin)
    a = np.clip(low, spans.begin, last)
    b = last if high is None else np.clip(high, spans.begin, last)
    _, inverse = np.unique(curves.group, return_inverse=True)
    return _sums(inverse, curves.gain(a, b)), _sums(inverse, curves.duration(a, b))


def _sums(label: Ints, values: Floats) -> Floats:
    return np.bincount(label, values).astype(np.float64)


def _by_time(curves: Curves, spans: Spans, shift: int, width: int) -> tuple[float, float, int, float]:
    """`_by_orbit` for a single orbit, with the error from the scatter over later blocks of time."""
    edges = [*range(shift, shift + 9 * width, width), None]
    pieces = [_piece(curves, spans, low or 0, high) for low, high in pairwise(edges)]
    rates = np.array([g.sum() / t.sum() for g, t in pieces if t.sum() > 0])
    if len(rates) < 4:
        return 0.0, 0.0, 0, 0.0
    late = rates[1:]
    error = float(late.std(ddof=1) * (1 + 1 / len(late)) ** 0.5)
    return rates[0] - late.mean(), error, len(late) - 1, abs(float(late.mean()))


def _fixed_region(curves: Curves, floor: Floats, region: tuple[float, float]) -> tuple[Spans, Ints]:
    try:
        low, high = (float(edge) for edge in region)
    except (TypeError, ValueError):
        raise DataError(f"region must be 'auto' or two times (start, stop), got {region!r}") from None
    time = curves.time
    inside = np.flatnonzero((time >= low) & (time <= high))
    if len(inside) < 2:
        raise DataError(
            f"the region {low:g} to {high:g} contains {len(inside)} recorded times (of {time[0]:g} to {time[-1]:g}); a "
            "slope needs two: widen it"
        )
    begin, end, at_floor = usable(curves.values, floor)
    spans = Spans(begin, end, np.minimum(end, inside[-1]) - 1, 1, end, float("inf"), "given", 0, at_floor)
    return spans, np.maximum(begin, inside[0])


def against_shapes(
    curves: Curves,
    first: Ints,
    last: Ints,
    rng: np.random.Generator,
    *,
    shape: Shape = shape_evidence,
    in_favour: bool = False,
) -> tuple[float, float, Band | None]:
    """Test the shape of the growth against a null: p-value, mean evidence, and the band of the null."""
    long_enough = np.flatnonzero(last - first >= 3)
    if not len(long_enough):
        return float("nan"), float("nan"), None
    orbit = curves[long_enough].cell
    blocks = max(1, -(-FEWEST_UNITS // (int(orbit.max()) + 1)))
    thin = max(1, len(curves.time) // MOST_POINTS)
    a, b = -(-first[long_enough] // thin), last[long_enough] // thin
    evidence, fitted = shape(curves.time[::thin], curves.values[long_enough][:, ::thin], a, b, blocks)
    known = np.isfinite(evidence[:, 0])
    if not known.any():
        return float("nan"), float("nan"), None
    band = _band(curves.time[::thin], curves.values[long_enough][known, ::thin], fitted[known])
    _, orbit = np.unique(orbit[known], return_inverse=True)
    copies = np.bincount(orbit)
    per_orbit = np.stack([np.bincount(orbit, evidence[known, k]) / copies for k in range(blocks)], axis=1)
    sign = -1.0 if in_favour else 1.0
    return sign_flip_p(sign * per_orbit.ravel(), rng=rng), float(per_orbit.sum(axis=1).mean()), band


def _band(time: Floats, values: Floats, fitted: Floats) -> Band:
    """Mean of the curves and quantiles of the fitted null, where at least half of the curves were tested."""
    compared = np.isfinite(fitted)
    points = np.flatnonzero(compared.sum(axis=0) * 2 >= len(fitted))
    points = points[:: -(-len(points) // BAND_POINTS)]
    fitted, values = fitted[:, points], np.where(compared, values, np.nan)[:, points]
    low, high = np.nanquantile(fitted, [(1 - NULL_SHARE) / 2, (1 + NULL_SHARE) / 2], axis=0)
    return {"time": time[points], "record": np.nanmean(values, axis=0), "low": low, "high": high}


def evidence_function(growth: Divergence, null: str) -> Shape:
    """Function that gives the evidence for an exponential against a null, from curves."""
    return partial(shape_evidence, null=basin_null(growth) if null == BASIN else None)


def separate_starts(fit: TwinFit, level: float, rng: np.random.Generator) -> tuple[Epoch, ...]:
    """Group perturbations by time; each group begins after the growth of the previous one has ended."""
    growth, start = fit.growth, fit.curves.start
    step = float(growth.settings.get("dt", 1.0))
    over = start + growth.time[np.maximum(fit.spans.last, fit.spans.knee)] / step
    recorded = growth.time[np.where(np.isnan(growth.distances), 0, np.arange(len(growth.time))).max(axis=1)]
    needed = FEWEST_EFOLDS / max(_fastest(fit), 1e-300)
    epochs: list[Epoch] = []
    left = np.unique(start[fit.usable])
    while len(left):
        first_step = int(left[0])
        until = max(float(np.median(over[start == first_step])), first_step + 1.0)
        # Perturbations late in the epoch cover only the end of the growth: they are in the epoch, but not evidence.
        early = first_step + max((until - first_step) * EARLY, 1.0)
        members = np.flatnonzero((start >= first_step) & (start < early))
        ratio = fit.ratio
        if len(members) < len(start):
            grown = fit.gain[members], fit.duration[members]
            ratio, _ = rate(fit.curves[members], fit.first[members], fit.last[members], grown, level=level, rng=rng)
        used = members[fit.last[members] > fit.first[members]]
        gain = float(np.mean(fit.gain[used])) if len(used) else 0.0
        units = (growth.start >= first_step) & (growth.start < early)
        long_enough = bool(np.median(recorded[units]) >= needed)
        epochs.append(Epoch(first_step, early, until, ratio.value, gain, ratio.p_positive, long_enough))
        left = left[left >= until]
    return tuple(epochs)


def _fastest(fit: TwinFit) -> float:
    """Largest mean rate among the starts."""
    rates = [0.0]
    for first_step in np.unique(fit.curves.start):
        members = fit.curves.start == first_step
        duration = float(fit.duration[members].sum())
        rates.append(float(fit.gain[members].sum()) / duration if duration > 0 else 0.0)
    return max(rates)


def _exponent(
    fit: TwinFit, epochs: tuple[Epoch, ...], judgement: tuple[str, tuple[Reason, ...]], *, settings: dict[str, Any]
) -> Exponent:
    growth, time, fitted = fit.growth, fit.growth.time, fit.fitted
    labels, inverse = np.unique(fit.curves.group, return_inverse=True)
    gain, duration = np.bincount(inverse, fit.gain), np.bincount(inverse, fit.duration)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(duration > 0, gain / duration, np.nan)
    nan = float("nan")
    window, intercept = (nan, nan), nan
    if len(fitted):
        window = (float(np.median(time[fit.first[fitted]])), float(np.median(time[fit.last[fitted]])))
        intercepts = fit.curves.values[fitted, fit.first[fitted]] - fit.ratio.value * time[fit.first[fitted]]
        intercept = float(np.mean(intercepts))
    # A rate of zero and the null must both be rejected: the p-value of their union is the larger one.
    p_value = max(fit.p_null, fit.ratio.p_positive) if np.isfinite([fit.p_null, fit.ratio.p_positive]).all() else nan
    return Exponent(
        value=fit.ratio.value,
        interval=fit.ratio.interval,
        level=settings["level"],
        p_value=p_value,
        null=_null_text(settings["null"], growth),
        n_used=int(np.sum(duration > 0)),
        n_total=len(labels),
        verdict=judgement[0],
        reasons=judgement[1],
        window=window,
        window_values=_window_values(fit),
        values=values,
        intercept=intercept,
        method=growth.method,
        unit=f"1/{growth.time_unit}",
        settings=settings,
        warnings=(*growth.warnings, *caveats(fit)),
        curve=growth,
    )


def _null_text(null: str | None, growth: Divergence) -> str:
    if null is None:
        return ""
    return NULL_TEXTS[null].format(optimizer=twins_optimizer(growth).description if null == BASIN else "")


def _window_values(fit: TwinFit) -> Floats:
    """Rates over windows inside the fitted one, at least half as long: the sensitivity to its choice."""
    fitted = fit.fitted
    if not len(fitted):
        return np.empty(0)
    first, last, curves = fit.first[fitted], fit.last[fitted], fit.curves[fitted]
    low, high = int(np.median(first)), int(np.median(last))
    edges = np.unique(np.round(np.linspace(low, high, 17)).astype(np.int64))
    values = []
    for a in edges:
        for b in edges[edges - a >= max((high - low) / 2, 1)]:
            begin, end = np.clip(a, first, last), np.clip(b, first, last)
            duration = float(curves.duration(begin, end).sum())
            if duration > 0:
                values.append(float(curves.gain(begin, end).sum()) / duration)
    return np.array(values)


def _fit_growing(growth: Divergence, epochs: tuple[Epoch, ...], region: Any, **options: Any) -> Exponent:
    """Fit only the epochs that grow, and call the growth a transient because others do not."""
    growing = np.zeros(len(growth.start), dtype=bool)
    for epoch in epochs:
        if not epoch.silent:
            growing |= (growth.start >= epoch.start) & (growth.start < epoch.early)
    parts = {name: getattr(growth, name)[growing] for name in ("distances", "group", "start", "floor", "scale")}
    part = replace(growth, **parts, n_references=len(np.unique(growth.group[growing])))
    fit = fit_twins(part, region, **options)
    settings = fit.settings | {
        "starts": [epoch.start for epoch in epochs],
        "start_values": [epoch.value for epoch in epochs],
        "n_curves_of_other_starts": int(np.sum(~growing)),
    }
    verdict = "transient" if fit.verdict == "chaotic" else fit.verdict
    reasons = (*without_persistence(fit.reasons), does_not_persist(epochs))
    return replace(fit, verdict=verdict, reasons=reasons, settings=settings, curve=growth)


def _settings(
    fit: TwinFit, epochs: tuple[Epoch, ...], *, region: Any, null: str | None, level: float, rng: RNGLike
) -> dict[str, Any]:
    """Settings of the fit, including automatic choices."""
    spans = fit.spans
    return {
        **fit.growth.settings,
        "region": region,
        "level": level,
        "null": null,
        "procedure": None,
        "rng": int(rng) if isinstance(rng, (int, np.integer)) else str(rng),
        "counted": "initial conditions",
        "weighting": "every step of every initial condition equally",
        "stop": spans.rule,
        "landing": spans.landing,
        "saturation_level": spans.level,
        "saturation_margin": SATURATION_MARGIN,
        "settled": fit.settled,
        "null_band": fit.band,
        "n_saturated": spans.saturated,
        "n_points_at_floor": spans.at_floor,
        "n_points_past_saturation": int(np.maximum(spans.end - spans.last, 0).sum()),
        "n_curves": len(fit.first),
        "n_curves_used": len(fit.fitted),
        "resampled": fit.unit,
        "n_resamples": N_RESAMPLES,
        "standard_error": fit.ratio.error,
        "p_zero": fit.ratio.p_positive,
        "p_power_law": fit.p_null,
        "evidence_against_power_law": fit.evidence,
        "starts": [epoch.start for epoch in epochs],
        "start_values": [epoch.value for epoch in epochs],
    }
