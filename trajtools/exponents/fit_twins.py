"""The exponent from curves of twins: the region, the rate, its interval, its null, and which starts grow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.exponent import Exponent
from trajtools.exponents.nulls import BASIN, basin_null, optimizer_of_twins
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
EARLY = 0.25  # of an epoch: perturbations introduced later in it are no evidence of their own
Shape = Callable[[Floats, Floats, Ints, Ints, int], tuple[Floats, Floats]]
Band = dict[str, Floats]
NULL_SHARE = 0.9  # of the curves of the null that its band holds
BAND_POINTS = 60  # of a band at most: it is for the eye
SKIPPED = 8  # one part in so many of the usable time is always skipped, while the perturbation turns to where it grows
MOST_SKIPPED = 4  # at most one part in so many
TIME_BLOCKS = 8  # that a single orbit is cut into
MOST_POINTS = 400  # of a curve that the null is compared on; longer ones are thinned evenly


def fit_twins(
    growth: Divergence,
    region: str | tuple[float, float] = "auto",
    *,
    null: str | None = "power-law",
    level: float = 0.95,
    rng: RNGLike = 0,
) -> Exponent:
    r"""Fit the exponential regime of the divergence of twins.

    Notes
    -----
    .. math:: \lambda = \frac{\sum_i [\ln d_i(t_i^*) - \ln d_i(t_0)]}{\sum_i (t_i^* - t_0)}

    where i runs over the initial conditions (copies of one are averaged first): the mean of the local slopes, each step
    of each initial condition with equal weight. A curve stops at :math:`t_i^*`, where it first passes the saturation
    level, which is common to all: that is a stopping time, and the ratio of sums is unbiased for it (Wald's
    identity), while the mean of :math:`\Delta \ln d_i / \Delta t_i` favours those that grew fast by chance. No line's
    R2 decides anything. The start :math:`t_0` is common, too: the first time after which the rate is constant
    within its error (the perturbation has turned to the growing directions).

    The interval resamples initial conditions, then twins. With a single initial condition it comes from its separate
    starts, if there are three, or else from blocks of time.
    """
    if null is not None and null not in NULLS:
        raise UnknownNameError(
            f"there is no null {null!r} for twins; there are {', '.join(NULLS)}, and None for no test"
        )
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    generator = np.random.default_rng(rng)
    found = measure(growth, region, null, level, generator)
    epochs = separate_starts(found, level, generator)
    if any(epoch.grows for epoch in epochs) and any(epoch.silent for epoch in epochs):
        return _of_growing(growth, epochs, region, null=null, level=level, rng=rng)

    def rise() -> tuple[float, float]:
        # Asked the other way round: is the null the better description, over the whole rise?
        shape = shape_of(growth, null or NULLS[0])
        p_value, evidence, _ = against_shapes(
            found.curves, found.spans.begin, found.spans.knee, generator, shape=shape, in_favour=True
        )
        return p_value, evidence

    verdict, reasons = judge(found, epochs, rise, null)
    return _exponent(
        found,
        epochs,
        (verdict, reasons),
        settings=_settings(found, epochs, region=region, null=null, level=level, rng=rng),
    )


def measure(
    growth: Divergence, region: str | tuple[float, float], null: str | None, level: float, rng: np.random.Generator
) -> Measured:
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
        spans, first = _given_region(curves, log_floor, region)
        settled = True
    last = np.maximum(spans.last, first - 1)
    gain, duration = curves.landed(first, last, spans.landing)
    ratio, unit = rate(curves, first, last, (gain, duration), level=level, rng=rng)
    p_null, evidence, band = float("nan"), float("nan"), None
    if null is not None:
        p_null, evidence, band = against_shapes(curves, first, last, rng, shape=shape_of(growth, null))
    return Measured(growth, curves, spans, first, last, gain, duration, ratio, unit, p_null, evidence, settled, band)


@dataclass(frozen=True, eq=False)
class Measured:
    """The curves, what of them was fitted, and the rate that came out.

    Attributes
    ----------
    growth : Divergence
        What was given.
    curves : Curves
        Its curves.
    spans : Spans
        What of each curve can be used.
    first, last : ndarray of int64, shape (C,)
        First and last fitted point of each curve; ``last <= first`` where there is nothing.
    gain, duration : ndarray of float64, shape (C,)
        Growth of the logarithm of each curve over its fitted points in e-folds, and the time it took.
    ratio : Ratio
        Rate of the whole.
    unit : str
        What was resampled: ``"initial conditions"``, ``"starts"``, ``"blocks of time"``, or ``""`` for nothing.
    p_null, evidence : float
        p-value against the null, and mean evidence against it, between -1 and 1; NaN without a null.
    settled : bool
        Whether the rate was found constant after the common start.
    band : dict or None
        What the null comes to, see `against_shapes`.
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
    def some(self) -> Ints:
        """Curves of which something was fitted."""
        return np.flatnonzero(self.last > self.first)

    @property
    def usable(self) -> Ints:
        """Curves that have two points above the rounding floor."""
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
        Initial condition of each curve, and the step at which it was perturbed.
    """

    time: Floats
    values: Floats
    group: Ints
    start: Ints

    def __getitem__(self, rows: Ints) -> Curves:
        """Return some of the curves."""
        return Curves(self.time, self.values[rows], self.group[rows], self.start[rows])

    @property
    def cell(self) -> Ints:
        """Label of each curve's initial condition and start: curves of one cell are copies of each other."""
        return np.unique(np.stack([self.group, self.start], axis=1), axis=0, return_inverse=True)[1].ravel()

    def gain(self, first: Ints, last: Ints) -> Floats:
        """Growth of each curve from its first to its last point, zero where there is none; shape (C,)."""
        rows = np.arange(len(self.values))
        some = last > first
        with np.errstate(invalid="ignore"):
            gain = self.values[rows, np.where(some, last, 0)] - self.values[rows, np.where(some, first, 0)]
        return np.where(some, gain, 0.0)

    def duration(self, first: Ints, last: Ints) -> Floats:
        """Time from its first to its last point, zero where there is none; shape (C,)."""
        return np.asarray(self.time[np.maximum(last, first)] - self.time[first])

    def landed(self, first: Ints, last: Ints, landing: int) -> tuple[Floats, Floats]:
        """Mean gain and duration, each (C,), between the first and the last `landing` points, pair by pair.

        Curves shorter than twice that many points are measured from their first to their last point.
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
    """Rate of all curves, with the error from what is independent: initial conditions, else starts, else time."""
    some = np.flatnonzero(last > first)
    gain, duration, used = grown[0][some], grown[1][some], curves[some]
    if not len(some):
        nan = float("nan")
        return Ratio(nan, nan, (nan, nan), nan, 0), ""
    if len(np.unique(used.group)) >= 2:
        return resampled_ratio(gain, duration, used.cell, used.group, level=level, rng=rng), "initial conditions"
    if len(np.unique(used.start)) >= 3:
        return resampled_ratio(gain, duration, used.cell, used.start, level=level, rng=rng), "starts"
    if int(np.median((last - first)[some])) < TIME_BLOCKS:
        return resampled_ratio(gain, duration, used.cell, used.group, level=level, rng=rng), ""
    gain, duration, block = _time_blocks(used, first[some], last[some])
    return resampled_ratio(gain, duration, block, block, level=level, rng=rng), "blocks of time"


def _time_blocks(curves: Curves, first: Ints, last: Ints) -> tuple[Floats, Floats, Ints]:
    """Cut every curve into `TIME_BLOCKS` stretches; the copies of one orbit share them."""
    edges = np.round(np.linspace(int(first.min()), int(np.median(last)), TIME_BLOCKS + 1)).astype(np.int64)
    edges[-1] = curves.values.shape[1] - 1
    cuts: list[tuple[Ints, Ints]] = [(np.clip(a, first, last), np.clip(b, first, last)) for a, b in pairwise(edges)]
    gain = np.concatenate([curves.gain(a, b) for a, b in cuts])
    duration = np.concatenate([curves.duration(a, b) for a, b in cuts])
    return gain, duration, np.repeat(np.arange(TIME_BLOCKS), len(first))


def _settling(curves: Curves, spans: Spans) -> tuple[int, bool]:
    """Find the first point after which the early rate equals the later one within its error (1 % level)."""
    some = spans.last > spans.begin
    if not some.any():
        return 0, True
    length = int(np.median((spans.last - spans.begin)[some]))
    begin = int(np.median(spans.begin[some]))
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
    """Early rate less late rate, its error from the scatter over initial conditions, freedom, size of the late rate."""
    (g1, t1), (g2, t2) = _piece(curves, spans, shift, shift + width), _piece(curves, spans, shift + width, None)
    if t1.sum() <= 0 or t2.sum() <= 0:
        return 0.0, 0.0, 0, 0.0
    early, late = g1.sum() / t1.sum(), g2.sum() / t2.sum()
    pull = (g1 - early * t1) / t1.sum() - (g2 - late * t2) / t2.sum()
    freedom = len(pull) - 1
    return early - late, float(np.sqrt(np.sum(pull**2) * len(pull) / freedom)), freedom, abs(late)


def _piece(curves: Curves, spans: Spans, low: int, high: int | None) -> tuple[Floats, Floats]:
    """Gain and time of each initial condition between two points, within what is fitted."""
    last = np.maximum(spans.last, spans.begin)
    a = np.clip(low, spans.begin, last)
    b = last if high is None else np.clip(high, spans.begin, last)
    _, inverse = np.unique(curves.group, return_inverse=True)
    return _sums(inverse, curves.gain(a, b)), _sums(inverse, curves.duration(a, b))


def _sums(label: Ints, values: Floats) -> Floats:
    return np.bincount(label, values).astype(np.float64)


def _by_time(curves: Curves, spans: Spans, shift: int, width: int) -> tuple[float, float, int, float]:
    """Do the same for a single orbit, with the scatter over the later stretches of time."""
    edges = [*range(shift, shift + 9 * width, width), None]
    pieces = [_piece(curves, spans, low or 0, high) for low, high in pairwise(edges)]
    rates = np.array([g.sum() / t.sum() for g, t in pieces if t.sum() > 0])
    if len(rates) < 4:
        return 0.0, 0.0, 0, 0.0
    late = rates[1:]
    error = float(late.std(ddof=1) * (1 + 1 / len(late)) ** 0.5)
    return rates[0] - late.mean(), error, len(late) - 1, abs(float(late.mean()))


def _given_region(curves: Curves, floor: Floats, region: tuple[float, float]) -> tuple[Spans, Ints]:
    try:
        low, high = (float(edge) for edge in region)
    except (TypeError, ValueError):
        raise DataError(f"region must be 'auto' or two times (start, stop), got {region!r}") from None
    time = curves.time
    inside = np.flatnonzero((time >= low) & (time <= high))
    if len(inside) < 2:
        raise DataError(
            f"the region {low:g} to {high:g} holds {len(inside)} of the recorded times ({time[0]:g} to {time[-1]:g}); "
            "a slope needs two: widen it"
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
    """Test the shape of the growth against that of a null, such as power laws and diffusion."""
    some = np.flatnonzero(last - first >= 3)
    if not len(some):
        return float("nan"), float("nan"), None
    orbit = curves[some].cell
    blocks = max(1, -(-FEWEST_UNITS // (int(orbit.max()) + 1)))
    thin = max(1, len(curves.time) // MOST_POINTS)
    a, b = -(-first[some] // thin), last[some] // thin
    found, fitted = shape(curves.time[::thin], curves.values[some][:, ::thin], a, b, blocks)
    known = np.isfinite(found[:, 0])
    if not known.any():
        return float("nan"), float("nan"), None
    band = _band(curves.time[::thin], curves.values[some][known, ::thin], fitted[known])
    _, orbit = np.unique(orbit[known], return_inverse=True)
    copies = np.bincount(orbit)
    per_orbit = np.stack([np.bincount(orbit, found[known, k]) / copies for k in range(blocks)], axis=1)
    sign = -1.0 if in_favour else 1.0
    return sign_flip_p(sign * per_orbit.ravel(), rng=rng), float(per_orbit.sum(axis=1).mean()), band


def _band(time: Floats, values: Floats, fitted: Floats) -> Band:
    """Where at least half of the curves were compared: their mean, and the middle of what the null comes to."""
    compared = np.isfinite(fitted)
    there = np.flatnonzero(compared.sum(axis=0) * 2 >= len(fitted))
    there = there[:: -(-len(there) // BAND_POINTS)]
    fitted, values = fitted[:, there], np.where(compared, values, np.nan)[:, there]
    low, high = np.nanquantile(fitted, [(1 - NULL_SHARE) / 2, (1 + NULL_SHARE) / 2], axis=0)
    return {"time": time[there], "record": np.nanmean(values, axis=0), "low": low, "high": high}


def shape_of(growth: Divergence, null: str) -> Shape:
    """How much better an exponential describes curves than a null does, as a function of the curves."""
    return partial(shape_evidence, null=basin_null(growth) if null == BASIN else None)


def separate_starts(found: Measured, level: float, rng: np.random.Generator) -> tuple[Epoch, ...]:
    """Group the perturbations by when they were introduced, each group after the growth of the one before has ended."""
    growth, start = found.growth, found.curves.start
    step = float(growth.settings.get("dt", 1.0))
    over = start + growth.time[np.maximum(found.spans.last, found.spans.knee)] / step
    recorded = growth.time[np.where(np.isnan(growth.distances), 0, np.arange(len(growth.time))).max(axis=1)]
    needed = FEWEST_EFOLDS / max(_fastest(found), 1e-300)
    epochs: list[Epoch] = []
    left = np.unique(start[found.usable])
    while len(left):
        begun = int(left[0])
        until = max(float(np.median(over[start == begun])), begun + 1.0)
        # Those introduced late in the epoch see only the end of the growth: they belong to it, but are no evidence.
        early = begun + max((until - begun) * EARLY, 1.0)
        mine = np.flatnonzero((start >= begun) & (start < early))
        ratio = found.ratio
        if len(mine) < len(start):
            grown = found.gain[mine], found.duration[mine]
            ratio, _ = rate(found.curves[mine], found.first[mine], found.last[mine], grown, level=level, rng=rng)
        used = mine[found.last[mine] > found.first[mine]]
        gain = float(np.mean(found.gain[used])) if len(used) else 0.0
        units = (growth.start >= begun) & (growth.start < early)
        long_enough = bool(np.median(recorded[units]) >= needed)
        epochs.append(Epoch(begun, early, until, ratio.value, gain, ratio.p_positive, long_enough))
        left = left[left >= until]
    return tuple(epochs)


def _fastest(found: Measured) -> float:
    """Largest mean rate among the starts: how fast growth is where there is any."""
    rates = [0.0]
    for begun in np.unique(found.curves.start):
        mine = found.curves.start == begun
        duration = float(found.duration[mine].sum())
        rates.append(float(found.gain[mine].sum()) / duration if duration > 0 else 0.0)
    return max(rates)


def _exponent(
    found: Measured, epochs: tuple[Epoch, ...], judgement: tuple[str, tuple[Reason, ...]], *, settings: dict[str, Any]
) -> Exponent:
    growth, time, some = found.growth, found.growth.time, found.some
    labels, inverse = np.unique(found.curves.group, return_inverse=True)
    gain, duration = np.bincount(inverse, found.gain), np.bincount(inverse, found.duration)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(duration > 0, gain / duration, np.nan)
    nan = float("nan")
    window, intercept = (nan, nan), nan
    if len(some):
        window = (float(np.median(time[found.first[some]])), float(np.median(time[found.last[some]])))
        begun = found.curves.values[some, found.first[some]] - found.ratio.value * time[found.first[some]]
        intercept = float(np.mean(begun))
    # Both have to be excluded, a rate of zero and the null: the larger p-value is that of their union.
    p_value = (
        max(found.p_null, found.ratio.p_positive) if np.isfinite([found.p_null, found.ratio.p_positive]).all() else nan
    )
    return Exponent(
        value=found.ratio.value,
        interval=found.ratio.interval,
        level=settings["level"],
        p_value=p_value,
        null=_in_words(settings["null"], growth),
        n_used=int(np.sum(duration > 0)),
        n_total=len(labels),
        verdict=judgement[0],
        reasons=judgement[1],
        window=window,
        window_values=_window_values(found),
        values=values,
        intercept=intercept,
        method=growth.method,
        unit=f"1/{growth.time_unit}",
        settings=settings,
        warnings=(*growth.warnings, *caveats(found)),
        curve=growth,
    )


def _in_words(null: str | None, growth: Divergence) -> str:
    if null is None:
        return ""
    return NULL_TEXTS[null].format(optimizer=optimizer_of_twins(growth).description if null == BASIN else "")


def _window_values(found: Measured) -> Floats:
    """Rate over the windows inside the fitted one that are at least half as long: what another choice would give."""
    some = found.some
    if not len(some):
        return np.empty(0)
    first, last, curves = found.first[some], found.last[some], found.curves[some]
    low, high = int(np.median(first)), int(np.median(last))
    edges = np.unique(np.round(np.linspace(low, high, 17)).astype(np.int64))
    values = []
    for a in edges:
        for b in edges[edges - a >= max((high - low) / 2, 1)]:
            here, there = np.clip(a, first, last), np.clip(b, first, last)
            duration = float(curves.duration(here, there).sum())
            if duration > 0:
                values.append(float(curves.gain(here, there).sum()) / duration)
    return np.array(values)


def _of_growing(growth: Divergence, epochs: tuple[Epoch, ...], region: Any, **options: Any) -> Exponent:
    """Fit only the perturbations that grow, and say that the others do not: growth that ends is a transient."""
    kept = np.zeros(len(growth.start), dtype=bool)
    for epoch in epochs:
        if not epoch.silent:
            kept |= (growth.start >= epoch.start) & (growth.start < epoch.early)
    parts = {name: getattr(growth, name)[kept] for name in ("distances", "group", "start", "floor", "scale")}
    part = replace(growth, **parts, n_references=len(np.unique(growth.group[kept])))
    found = fit_twins(part, region, **options)
    settings = found.settings | {
        "starts": [epoch.start for epoch in epochs],
        "start_values": [epoch.value for epoch in epochs],
        "n_curves_of_other_starts": int(np.sum(~kept)),
    }
    verdict = "transient" if found.verdict == "chaotic" else found.verdict
    reasons = (*without_persistence(found.reasons), does_not_persist(epochs))
    return replace(found, verdict=verdict, reasons=reasons, settings=settings, curve=growth)


def _settings(
    found: Measured, epochs: tuple[Epoch, ...], *, region: Any, null: str | None, level: float, rng: RNGLike
) -> dict[str, Any]:
    """Everything that was chosen, by the caller or by the machine."""
    spans = found.spans
    return {
        **found.growth.settings,
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
        "settled": found.settled,
        "null_band": found.band,
        "n_saturated": spans.saturated,
        "n_points_at_floor": spans.at_floor,
        "n_points_past_saturation": int(np.maximum(spans.end - spans.last, 0).sum()),
        "n_curves": len(found.first),
        "n_curves_used": len(found.some),
        "resampled": found.unit,
        "n_resamples": N_RESAMPLES,
        "standard_error": found.ratio.error,
        "p_zero": found.ratio.p_positive,
        "p_power_law": found.p_null,
        "evidence_against_power_law": found.evidence,
        "starts": [epoch.start for epoch in epochs],
        "start_values": [epoch.value for epoch in epochs],
    }
