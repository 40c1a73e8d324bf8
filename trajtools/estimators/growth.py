"""From the curves to the number: the region, the rate, its interval, its null and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, UnknownNameError
from trajtools.estimators import verdicts
from trajtools.estimators.published import danovski2024
from trajtools.fitting import SATURATION_MARGIN, Spans, choose_spans, first_passage, usable
from trajtools.results import Divergence, Exponent, Floats, Ints
from trajtools.significance import (
    DECISION,
    FEWEST_UNITS,
    N_RESAMPLES,
    Ratio,
    power_evidence,
    resampled_ratio,
    sign_flip_p,
)

PROCEDURES = ("danovski2024",)
NULLS = ("power-law",)
NULL_WORDS = "power law (d ~ (1 + t/tau)^alpha, alpha <= 3) or diffusion (d^2 = d0^2 + a t + b t^2)"
TIME_BLOCKS = 8  # of a single orbit
MOST_POINTS = 400  # of a curve that the null is compared on; longer ones are thinned evenly


@dataclass(frozen=True, eq=False)
class Measured:
    """The curves, what of them was fitted, and the rate that came out.

    Attributes
    ----------
    growth : Divergence
        What was given.
    curves : ndarray of float64, shape (C, K + 1)
        Natural logarithms.
    group, start : ndarray of int64, shape (C,)
        Initial condition and step of perturbation of each curve.
    spans : Spans
        What of each curve can be used.
    first, last : ndarray of int64, shape (C,)
        First and last fitted point of each curve; ``last <= first`` where there is nothing.
    ratio : Ratio
        Rate of the whole.
    unit : str
        What was resampled: ``"initial conditions"``, ``"starts"``, ``"blocks of time"`` or ``""``.
    p_null : float
        p-value against the null; NaN without one.
    evidence : float
        Mean evidence against the null, between -1 and 1; NaN without a null.
    settled : bool
        Whether the rate was found constant after the common start.
    """

    growth: Divergence
    curves: Floats
    group: Ints
    start: Ints
    spans: Spans
    first: Ints
    last: Ints
    ratio: Ratio
    unit: str
    p_null: float
    evidence: float
    settled: bool

    @property
    def gain(self) -> Floats:
        """Growth of the logarithm of each curve over its fitted points, in e-folds; shape (C,)."""
        return landed(self.growth.time, self.curves, self.first, self.last, self.spans.landing)[0]

    @property
    def duration(self) -> Floats:
        """Time in which it grew; shape (C,)."""
        return landed(self.growth.time, self.curves, self.first, self.last, self.spans.landing)[1]


def fit(
    growth: Divergence,
    region: str | tuple[float, float] = "auto",
    *,
    null: str | None = "power-law",
    procedure: str | None = None,
    level: float = 0.95,
    rng: Any = 0,
) -> Exponent:
    r"""Fit the exponential regime of a divergence.

    Parameters
    ----------
    growth : Divergence
        The curves.
    region : "auto" or (float, float)
        Times since the perturbation between which the growth is measured, in the time unit of the divergence; ``"auto"``
        chooses, and `settings` says what it chose.
    null : "power-law" or None
        What the growth is tested against. Without a null the verdict is ``"inconclusive"``.
    procedure : None or "danovski2024"
        None: the procedure below. A name: a published procedure, see `trajtools.estimators.published`.
    level : float
        Confidence level of the interval.
    rng : int, numpy.random.Generator or None
        Source of the resampling; the same seed gives the same bits. None: unpredictable.

    Returns
    -------
    Exponent
        Value, interval, p-value, verdict, reasons, window and settings.

    Raises
    ------
    UnknownNameError
        If there is no such null or procedure.
    DataError
        If the region or the level makes no sense.

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
    if procedure is not None and procedure not in PROCEDURES:
        raise UnknownNameError(
            f"there is no procedure {procedure!r}; there are None (ours) and {', '.join(PROCEDURES)}"
        )
    if null is not None and null not in NULLS:
        raise UnknownNameError(
            f"there is no null {null!r} for twins; there are {', '.join(NULLS)}, and None for no test"
        )
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    if procedure == "danovski2024":
        return danovski2024(growth, level=level)
    generator = np.random.default_rng(rng)
    found = measure(growth, region, null, level, generator)
    epochs = separate_starts(found, level, generator)
    some = found.spans.end > found.spans.begin
    rise = (float("nan"), float("nan"))
    if null is not None and some.any():
        # Asked the other way round: is the null the better one? Its evidence has the opposite sign.
        against, evidence = against_powers(
            growth.time, found.curves, found.group, found.start, found.spans.begin, found.spans.knee, generator, -1.0
        )
        rise = (against, evidence)
    return _exponent(found, epochs, rise, region, null, level, rng)


def measure(
    growth: Divergence, region: str | tuple[float, float], null: str | None, level: float, rng: np.random.Generator
) -> Measured:
    """Choose the region and measure the rate; the arguments are those of `fit`."""
    curves, group, start = growth.curves()
    with np.errstate(divide="ignore", invalid="ignore"):
        log_floor, _, _ = _floor_of_curves(growth)
    time = growth.time
    if isinstance(region, str):
        if region != "auto":
            raise DataError(f"region must be 'auto' or two times (start, stop), got {region!r}")
        single = len(np.unique(group)) < 2 and len(np.unique(start)) < 3
        spans = choose_spans(time, curves, log_floor, single=single)
        first_index, settled = _settling(time, curves, group, spans)
        first = np.maximum(spans.begin, first_index)
        last = spans.last
    else:
        spans, first, last = _given_region(time, curves, log_floor, region)
        settled = True
    last = np.maximum(last, first - 1)
    ratio, unit = _rate(time, curves, group, start, first, last, spans.landing, level=level, rng=rng)
    p_null, evidence = float("nan"), float("nan")
    if null is not None:
        p_null, evidence = against_powers(time, curves, group, start, first, last, rng)
    return Measured(growth, curves, group, start, spans, first, last, ratio, unit, p_null, evidence, settled)


def gains(curves: Floats, first: Ints, last: Ints) -> Floats:
    """Return the growth of each curve from its first to its last point, zero where there is none; shape (C,)."""
    rows = np.arange(len(curves))
    some = last > first
    with np.errstate(invalid="ignore"):
        gain = curves[rows, np.where(some, last, 0)] - curves[rows, np.where(some, first, 0)]
    return np.where(some, gain, 0.0)


def landed(time: Floats, curves: Floats, first: Ints, last: Ints, landing: int) -> tuple[Floats, Floats]:
    """Mean gain and duration, each (C,), between the first and the last `landing` points, pair by pair.

    Curves shorter than twice that many points are measured from their first to their last point.
    """
    landing = np.where(last - first >= 2 * landing, landing, 1)
    gain, duration = np.zeros(len(curves)), np.zeros(len(curves))
    for k in range(int(landing.max(initial=1))):
        here = k < landing
        a, b = np.where(here, first + k, first), np.where(here, last - landing + 1 + k, first)
        b = np.maximum(b, a)
        gain += gains(curves, a, b) / landing
        duration += (time[b] - time[a]) / landing
    return gain, duration


def _floor_of_curves(growth: Divergence) -> tuple[Floats, Ints, Ints]:
    """Return the logarithm of the floor of each curve: of each unit, or the mean of those that a curve averages."""
    from trajtools.results import average_curves

    floor = np.broadcast_to(growth.floor, growth.distances.shape)
    return average_curves(np.asarray(floor), growth.group, growth.start, growth.average)


def _given_region(time: Floats, curves: Floats, floor: Floats, region: tuple[float, float]) -> tuple[Spans, Ints, Ints]:
    try:
        low, high = (float(edge) for edge in region)
    except (TypeError, ValueError):
        raise DataError(f"region must be 'auto' or two times (start, stop), got {region!r}") from None
    inside = np.flatnonzero((time >= low) & (time <= high))
    if len(inside) < 2:
        raise DataError(
            f"the region {low:g} to {high:g} holds {len(inside)} of the recorded times ({time[0]:g} to {time[-1]:g}); "
            "a slope needs two: widen it"
        )
    begin, end, at_floor = usable(curves, floor)
    spans = Spans(begin, end, np.minimum(end, inside[-1]) - 1, 1, end, float("inf"), "given", 0, at_floor)
    return spans, np.maximum(begin, inside[0]), spans.last


def _settling(time: Floats, curves: Floats, group: Ints, spans: Spans) -> tuple[int, bool]:
    """Find the first point after which the early rate equals the later one within its error (1 % level)."""
    some = spans.last > spans.begin
    if not some.any():
        return 0, True
    length = int(np.median(spans.last[some] - spans.begin[some]))
    begin = int(np.median(spans.begin[some]))
    width = max(1, length // 8)
    if length < 4:
        return begin, True
    from scipy.stats import t as student

    single = len(np.unique(group)) < 2
    for shift in range(begin, begin + max(1, length // 4) + 1):
        edges = [shift, shift + width]
        if single:
            edges += [shift + width * k for k in range(2, 9)]
        pieces = [
            _piece(time, curves, group, spans, low, high) for low, high in zip(edges, [*edges[1:], None], strict=True)
        ]
        if single:
            rates = np.array([g.sum() / t.sum() for g, t in pieces if t.sum() > 0])
            if len(rates) < 4:
                return begin, True
            later = rates[1:]
            gap, error, freedom = (
                rates[0] - later.mean(),
                float(later.std(ddof=1) * (1 + 1 / len(later)) ** 0.5),
                len(later) - 1,
            )
        else:
            (g1, t1), (g2, t2) = pieces
            if t1.sum() <= 0 or t2.sum() <= 0:
                return begin, True
            r1, r2 = g1.sum() / t1.sum(), g2.sum() / t2.sum()
            pull = (g1 - r1 * t1) / t1.sum() - (g2 - r2 * t2) / t2.sum()
            later, gap, freedom = np.array([r2]), r1 - r2, len(pull) - 1
            error = float(np.sqrt(np.sum(pull**2) * len(pull) / freedom))
        tolerance = float(student.ppf(1 - DECISION / 2, freedom)) * error + 1e-6 * float(np.abs(later).max())
        if abs(gap) <= tolerance:
            return shift, True
    return begin + max(1, length // 4), False


def _piece(
    time: Floats, curves: Floats, group: Ints, spans: Spans, low: int, high: int | None
) -> tuple[Floats, Floats]:
    """Gain and time of each initial condition between two points, within what is fitted."""
    last = np.maximum(spans.last, spans.begin)
    a = np.clip(low, spans.begin, last)
    b = last if high is None else np.clip(high, spans.begin, last)
    gain, duration = gains(curves, a, b), time[b] - time[a]
    _, inverse = np.unique(group, return_inverse=True)
    return np.bincount(inverse, gain), np.bincount(inverse, duration)


def _rate(
    time: Floats,
    curves: Floats,
    group: Ints,
    start: Ints,
    first: Ints,
    last: Ints,
    landing: int,
    *,
    level: float,
    rng: np.random.Generator,
) -> tuple[Ratio, str]:
    """Rate of all curves, with the error from what is independent: initial conditions, else starts, else time."""
    some = last > first
    cell = np.unique(np.stack([group, start], axis=1), axis=0, return_inverse=True)[1].ravel()
    gain, duration = landed(time, curves, first, last, landing)
    gain, duration, cell, kept = gain[some], duration[some], cell[some], group[some]
    if not some.any():
        return Ratio(float("nan"), float("nan"), (float("nan"), float("nan")), float("nan"), 0), ""
    if len(np.unique(kept)) >= 2:
        return resampled_ratio(gain, duration, cell, kept, level=level, rng=rng), "initial conditions"
    if len(np.unique(start[some])) >= 3:
        return resampled_ratio(gain, duration, cell, start[some], level=level, rng=rng), "starts"
    shortest = int(np.median((last - first)[some]))
    if shortest < TIME_BLOCKS:
        return resampled_ratio(gain, duration, cell, kept, level=level, rng=rng), ""
    gain, duration, block = _time_blocks(time, curves[some], first[some], last[some])
    return resampled_ratio(gain, duration, block, block, level=level, rng=rng), "blocks of time"


def _time_blocks(time: Floats, curves: Floats, first: Ints, last: Ints) -> tuple[Floats, Floats, Ints]:
    """Cut every curve into `TIME_BLOCKS` stretches; the copies of one orbit share them."""
    low, high = int(first.min()), int(np.median(last))
    edges = np.round(np.linspace(low, high, TIME_BLOCKS + 1)).astype(np.int64)
    edges[-1] = curves.shape[1] - 1
    gain, duration, block = [], [], []
    for b in range(TIME_BLOCKS):
        a, c = np.clip(edges[b], first, last), np.clip(edges[b + 1], first, last)
        gain.append(gains(curves, a, c))
        duration.append(time[c] - time[a])
        block.append(np.full(len(curves), b))
    return np.concatenate(gain), np.concatenate(duration), np.concatenate(block)


def against_powers(
    time: Floats,
    curves: Floats,
    group: Ints,
    start: Ints,
    first: Ints,
    last: Ints,
    rng: np.random.Generator,
    sign: float = 1.0,
) -> tuple[float, float]:
    """p-value against power law and diffusion (for them, if sign is -1), and the mean evidence; NaN without four points."""
    some = last - first >= 3
    if not some.any():
        return float("nan"), float("nan")
    orbit = np.unique(np.stack([group, start], axis=1)[some], axis=0, return_inverse=True)[1].ravel()
    blocks = max(1, -(-FEWEST_UNITS // (int(orbit.max()) + 1)))
    thin = max(1, len(time) // MOST_POINTS)
    a, b = -(-first[some] // thin), last[some] // thin
    found = power_evidence(time[::thin], curves[some][:, ::thin], a, b, blocks)
    known = np.isfinite(found[:, 0])
    if not known.any():
        return float("nan"), float("nan")
    _, orbit = np.unique(orbit[known], return_inverse=True)
    copies = np.bincount(orbit)
    per_orbit = np.stack([np.bincount(orbit, found[known, k]) / copies for k in range(blocks)], axis=1)
    return sign_flip_p(sign * per_orbit.ravel(), rng=rng), float(per_orbit.sum(axis=1).mean())


def separate_starts(found: Measured, level: float, rng: np.random.Generator) -> tuple[verdicts.Epoch, ...]:
    """Group the perturbations by when they were introduced, each group after the growth of the one before has ended."""
    some = found.last > found.first
    step = float(found.growth.settings.get("dt", 1.0))
    over = found.start + found.growth.time[np.maximum(found.spans.last, found.spans.knee)] / step
    epochs: list[verdicts.Epoch] = []
    begun = np.unique(found.start[found.spans.end > found.spans.begin])
    while len(begun):
        mine = found.start == begun[0]
        until = float(np.median(over[mine]))
        mine = (found.start >= begun[0]) & (found.start < max(until, begun[0] + 1))
        used = mine & some
        ratio = Ratio(float("nan"), float("nan"), (float("nan"), float("nan")), float("nan"), 0)
        if used.any():
            ratio, _ = _rate(
                found.growth.time,
                found.curves[mine],
                found.group[mine],
                found.start[mine],
                found.first[mine],
                found.last[mine],
                found.spans.landing,
                level=level,
                rng=rng,
            )
        gain = float(np.mean(found.gain[used])) if used.any() else 0.0
        epochs.append(verdicts.Epoch(int(begun[0]), ratio.value, gain, ratio.p_positive))
        begun = begun[begun >= max(until, begun[0] + 1)]
    return tuple(epochs)


def _exponent(
    found: Measured,
    epochs: tuple[verdicts.Epoch, ...],
    rise: tuple[float, float],
    region: Any,
    null: str | None,
    level: float,
    rng: Any,
) -> Exponent:
    growth, time = found.growth, found.growth.time
    some = found.last > found.first
    labels, inverse = np.unique(found.group, return_inverse=True)
    gain = np.bincount(inverse, found.gain, len(labels))
    duration = np.bincount(inverse, found.duration, len(labels))
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(duration > 0, gain / duration, np.nan)
    window = (float("nan"), float("nan"))
    intercept = float("nan")
    if some.any():
        window = (float(np.median(time[found.first[some]])), float(np.median(time[found.last[some]])))
        rows = np.flatnonzero(some)
        intercept = float(np.mean(found.curves[rows, found.first[rows]] - found.ratio.value * time[found.first[rows]]))
    verdict, reasons = verdicts.judge(found, epochs, rise, null)
    warnings = (*growth.warnings, *verdicts.caveats(found))
    settings = {
        **growth.settings,
        "region": region,
        "level": level,
        "null": null,
        "procedure": None,
        "rng": rng if isinstance(rng, int) else str(rng),
        "counted": "initial conditions",
        "weighting": "every step of every initial condition equally",
        "saturation_level": found.spans.level,
        "saturation_margin": SATURATION_MARGIN,
        "stop": found.spans.rule,
        "landing": found.spans.landing,
        "n_saturated": found.spans.saturated,
        "n_points_at_floor": found.spans.at_floor,
        "n_points_past_saturation": int(np.maximum(found.spans.end - found.spans.last, 0).sum()),
        "n_curves": len(found.curves),
        "n_curves_used": int(some.sum()),
        "resampled": found.unit,
        "n_resamples": N_RESAMPLES,
        "standard_error": found.ratio.error,
        "p_zero": found.ratio.p_positive,
        "p_power_law": found.p_null,
        "evidence_against_power_law": found.evidence,
        "settled": found.settled,
        "starts": [epoch.start for epoch in epochs],
        "start_values": [epoch.value for epoch in epochs],
    }
    return Exponent(
        value=found.ratio.value,
        interval=found.ratio.interval,
        level=level,
        p_value=max(found.p_null, found.ratio.p_positive) if np.isfinite(found.ratio.p_positive) else float("nan"),
        null=NULL_WORDS if null is not None else "",
        n_used=int(np.sum(duration > 0)),
        n_total=len(labels),
        verdict=verdict,
        reasons=reasons,
        window=window,
        window_values=_window_values(found),
        values=values,
        intercept=intercept,
        method=growth.method,
        unit=f"1/{growth.time_unit}",
        settings=settings,
        warnings=warnings,
        curve=growth,
    )


def _window_values(found: Measured) -> Floats:
    """Rate over the windows inside the fitted one that are at least half as long: what another choice would give."""
    some = found.last > found.first
    if not some.any():
        return np.empty(0)
    low, high = int(np.median(found.first[some])), int(np.median(found.last[some]))
    edges = np.unique(np.round(np.linspace(low, high, 17)).astype(np.int64))
    time, values = found.growth.time, []
    first, last, curves = found.first[some], found.last[some], found.curves[some]
    for a in edges:
        for b in edges[edges - a >= max((high - low) / 2, 1)]:
            here, there = np.clip(a, first, last), np.clip(b, first, last)
            duration = float((time[there] - time[here]).sum())
            if duration > 0:
                values.append(float(gains(curves, here, there).sum()) / duration)
    return np.array(values)
