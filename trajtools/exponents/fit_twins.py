"""Exponent of twins: the growth phase, the shape of the growth, separate starts, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.exponent import Exponent
from trajtools.exponents.growth_phase import (
    FEWEST_UNITS,
    Cells,
    Comparison,
    Decay,
    Shape,
    Window,
    compare_shapes,
    compare_sizes,
    find_decay,
    find_window,
    make_cells,
    pieces,
    ratio_of_sums,
)
from trajtools.exponents.nulls import BASIN, basin_null, twins_optimizer
from trajtools.exponents.verdict import Start, caveats, in_order, judge
from trajtools.reasons import Reason
from trajtools.statistics import DECISION, SATURATION_MARGIN, Ratio, random_generator, shape_evidence, sign_flip_p
from trajtools.types import Floats, Ints, RNGLike
from trajtools.wording import time_units

if TYPE_CHECKING:
    from trajtools.exponents.divergence import Divergence

POWER_LAW = "power-law"
NULL_TEXTS = {
    POWER_LAW: "a power of the time since the perturbation",
    BASIN: "twins in a quadratic basin under the same optimiser ({optimizer}; d^p = sum of w |m(t)|^p over its modes)",
}
NULLS = tuple(NULL_TEXTS)
EVIDENCE_BLOCKS = 8  # sign flips, at least: 2^-8 < 1 %
BAND_SHARE = 0.9  # of the null curves inside the band
BAND_POINTS = 60  # most points of a band, which is for plots
MOST_POINTS = 400  # of a curve in the test of a null; longer curves are subsampled
LARGEST_MISFIT = 0.1  # of the rise: a null that misses a point by more does not describe it
LARGEST_JUMP = 3.0  # e-folds in the first step
LONG_ENOUGH = 1.5  # times the usual time to the upper level: a start that was followed for less does not vote
EARLY = 0.25  # of a start: later perturbations in it are not separate evidence
LEFT = 0.75  # of the twins that have not yet reached the upper level, for the rate at a time of the training
WINDOWS_PER_PHASE = 4  # of the rate by time
MOST_WINDOWS = 200
RUNAWAY_BLOCKS = 10
REPEATED_BLOCKS = 1e-3  # of the rate: blocks of time that agree better are no independent samples
ROUNDED_UNITS = 1e-9  # of the rate: initial conditions or starts that agree better are equal to rounding


def fit_twins(
    growth: Divergence,
    region: str | tuple[float, float] = "auto",
    *,
    null: str | None = POWER_LAW,
    level: float = 0.95,
    rng: RNGLike = None,
) -> Exponent:
    r"""Exponent of the growth phase of twins.

    Notes
    -----
    .. math:: \lambda = \frac{\sum_i [L_i(e_i) - L_i(s_i)]}{\sum_i (e_i - s_i)}

    where :math:`L_i` is the mean over the copies of :math:`\ln d` for the initial condition and start i,
    :math:`s_i` its first passage of the onset level, and :math:`e_i` its first passage of the upper level, a factor 50
    below saturation. Passages are stopping times, so by Wald's identity the ratio of sums has no selection bias. The
    onset level lies at least two e-folds above the start, and higher where the rate still rises after it. A curve that
    stalls between the levels is followed for three median durations and counts as far as it came.

    The interval is Student's t from the scatter of initial conditions, or of starts if there are fewer than five, or
    else of blocks of time.
    """
    if null is not None and null not in NULLS:
        raise UnknownNameError(
            f"there is no null {null!r} for twins; there are {', '.join(NULLS)}, and None for no test"
        )
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    fit = measure(growth, region, null, level, random_generator(rng))
    judgement = judge(fit, null)
    return _exponent(fit, judgement, region=region, null=null, level=level, rng=rng)


@dataclass(frozen=True, eq=False)
class TwinFit:
    """What was measured on the curves of twins.

    Attributes
    ----------
    growth : Divergence
        The divergence.
    cells : Cells
        Curve of each initial condition and start.
    window : Window or None
        The growth phase; None where too few curves grow, or for a region of the caller's.
    decay : Decay or None
        The decay; only looked for without a growth phase.
    first, last : ndarray of int64, shape (C,)
        Fitted points of each cell of `fitted_cells`; ``last <= first`` for none.
    ratio : Ratio
        Rate over the fitted points.
    whole : Ratio
        Rate over all usable points.
    shape : Shape or None
        Exponential against power law.
    p_null, evidence : float
        p-value of the null of shapes fitted by least squares, and mean evidence against it, between -1 and 1.
    p_slower : float
        p-value of "the null does not fit the whole rise better than an exponential"; NaN where not tested.
    starts : tuple of Start
        Separate starts.
    comparisons : tuple of Comparison
        Rates of the sizes of the perturbation at equal times of the training, of each size and the next.
    speed_share : float
        Share of the growth by which the steps of the reference grow, too; NaN where its speed is unknown.
    runaway : bool
        Whether the reference itself runs away.
    unit : str
        Independent unit of the interval.
    band : dict or None
        Band of the null.
    fixed_region : bool
        Whether the caller chose the region.
    """

    growth: Divergence
    cells: Cells
    window: Window | None
    decay: Decay | None
    first: Ints
    last: Ints
    ratio: Ratio
    whole: Ratio
    shape: Shape | None
    p_null: float
    evidence: float
    p_slower: float
    starts: tuple[Start, ...]
    comparisons: tuple[Comparison, ...]
    speed_share: float
    runaway: bool
    unit: str
    band: dict[str, Floats] | None
    fixed_region: bool = False

    @property
    def fitted_cells(self) -> Cells:
        """The curves that `first` and `last` refer to."""
        return self.cells if self.decay is None else self.decay.cells

    @property
    def fitted(self) -> Ints:
        """Cells with fitted points."""
        return np.flatnonzero(self.last > self.first)

    @property
    def steps(self) -> float:
        """Median number of fitted steps."""
        return float(np.median((self.last - self.first)[self.fitted])) if len(self.fitted) else 0.0

    @property
    def gain(self) -> float:
        """Mean fitted growth of a cell, in e-folds."""
        cells, rows = self.fitted_cells, self.fitted
        if not len(rows):
            return 0.0
        return float(np.mean(cells.values[rows, self.last[rows]] - cells.values[rows, self.first[rows]]))

    @property
    def agreement(self) -> float:
        """Half the interval over the rate, where the units scatter too little to be a sample; else NaN.

        Blocks of time of one growing direction repeat one factor, and units that are equal to rounding have no scatter.
        """
        low, high = self.ratio.interval
        share = (high - low) / 2 / abs(self.ratio.value) if self.ratio.value else float("nan")
        return share if share < (REPEATED_BLOCKS if self.unit == "blocks of time" else ROUNDED_UNITS) else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Confidence interval of the rate; NaN where the units tell nothing about it."""
        return self.ratio.interval if np.isnan(self.agreement) else (float("nan"), float("nan"))

    @property
    def rise_steps(self) -> float:
        """Median number of steps of the whole rise."""
        rows = self.cells.known
        return float(np.median((rise_end(self.cells) - self.cells.begin)[rows])) if len(rows) else 0.0

    @property
    def rises(self) -> Floats:
        """Largest rise of each usable cell above its first point, in e-folds."""
        cells, rows = self.cells, self.cells.known
        return np.array(
            [
                np.nanmax(cells.values[r, cells.begin[r] : cells.end[r] + 1]) - cells.values[r, cells.begin[r]]
                for r in rows
            ]
        )


def measure(
    growth: Divergence, region: str | tuple[float, float], null: str | None, level: float, rng: np.random.Generator
) -> TwinFit:
    """Choose the region and measure the rate."""
    cells = make_cells(growth)
    window = decay = shape = None
    if isinstance(region, str):
        if region != "auto":
            raise DataError(f"region must be 'auto' or two times (start, stop), got {region!r}")
        window = find_window(cells)
        decay = find_decay(growth, level) if window is None else None
        if window is not None:
            first, last, shape = window.first, window.last, compare_shapes(cells, window)
        elif decay is not None:
            first, last = decay.first, decay.last
        else:
            first, last = cells.begin, np.maximum(cells.end, cells.begin)
    else:
        first, last = _fixed_region(cells, region)
    starts = separate_starts(growth, cells, window, level)
    if window is not None and shape is not None:
        first, last, shape = _of_growing_starts(cells, window, starts, (first, last, shape))
    of = cells if decay is None else decay.cells
    ratio = ratio_of_sums(of, first, last, level) if decay is None else decay.ratio
    whole = ratio_of_sums(cells, cells.begin, np.maximum(cells.end, cells.begin), level)
    p_null, evidence, band, p_slower = float("nan"), float("nan"), None, float("nan")
    if null is not None:
        kind = partial(shape_evidence, null=basin_null(growth) if null == BASIN else None)
        p_null, evidence, band = against(of, first, last, rng, kind)
        p_slower = _slower(cells, rise_end(cells), rng, kind)
    unit = pieces(of, first, last)[3] if np.isfinite(ratio.error) else ""
    share, runaway = _runaway(growth, cells, window)
    return TwinFit(
        growth,
        cells,
        window,
        decay,
        first,
        last,
        ratio,
        whole,
        shape,
        p_null,
        evidence,
        p_slower,
        starts,
        () if window is None else compare_sizes(cells, window, float(growth.settings.get("dt", 1.0)), 1 - DECISION),
        share,
        runaway,
        unit,
        band,
        fixed_region=not isinstance(region, str),
    )


def _of_growing_starts(
    cells: Cells, window: Window, starts: tuple[Start, ...], whole: tuple[Ints, Ints, Shape]
) -> tuple[Ints, Ints, Shape]:
    """Keep the starts that grow where growth ended: its rate is theirs, and those after it say that it ended.

    Only in this order: to select the starts that grow among others would make a walk grow.
    """
    votes = [start for start in starts if start.votes]
    growing = [start for start in votes if start.grows]
    if len(growing) in (0, len(votes)) or not in_order(votes):
        return whole
    rows = np.unique(np.concatenate([start.cells for start in growing]))
    first, last = np.zeros_like(window.first), np.zeros_like(window.last)
    first[rows], last[rows] = window.first[rows], window.last[rows]
    part = replace(
        window, **{name: getattr(window, name)[rows] for name in ("first", "last", "onset", "growers", "reached")}
    )
    return first, last, compare_shapes(cells[rows], part)


def _fixed_region(cells: Cells, region: tuple[float, float]) -> tuple[Ints, Ints]:
    try:
        low, high = (float(edge) for edge in region)
    except (TypeError, ValueError):
        raise DataError(f"region must be 'auto' or two times (start, stop), got {region!r}") from None
    time = cells.time
    inside = np.flatnonzero((time >= low) & (time <= high))
    if len(inside) < 2:
        raise DataError(
            f"the region {low:g} to {high:g} contains {len(inside)} recorded times (of {time[0]:g} to {time[-1]:g}); a "
            "slope needs two: widen it"
        )
    first = np.maximum(cells.begin, inside[0])
    return first, np.maximum(np.minimum(cells.end, inside[-1]), first)


def rise_end(cells: Cells) -> Ints:
    """Highest point of each cell."""
    index = np.arange(cells.values.shape[1])
    inside = (index >= cells.begin[:, None]) & (index <= cells.end[:, None])
    return np.asarray(np.where(inside, cells.values, -np.inf).argmax(axis=1), dtype=np.int64)


def _slower(cells: Cells, last: Ints, rng: np.random.Generator, kind: Callable[..., tuple[Floats, Floats]]) -> float:
    """p-value against "the null does not fit the whole rise better than an exponential"; 1 where it fits neither.

    A first step that jumps is left out: noise or rounding takes over from the perturbation there.
    """
    jump = cells.at(np.minimum(cells.begin + 1, cells.values.shape[1] - 1)) - cells.at(cells.begin)
    first = cells.begin + (jump > LARGEST_JUMP)
    rows = np.flatnonzero(last - first >= 3)
    if not len(rows):
        return float("nan")
    _, fitted = kind(cells.time, cells.values[rows], first[rows], last[rows], 1)
    rise = cells.values[rows, last[rows]] - cells.values[rows, cells.begin[rows]]
    with np.errstate(invalid="ignore"):
        misfit = np.nanmax(np.abs(cells.values[rows] - fitted), axis=1) / rise
    if not np.median(misfit) <= LARGEST_MISFIT:
        return 1.0
    p_value, evidence, _ = against(cells, first, last, rng, kind, in_favour=True)
    return p_value if evidence < 0 else 1.0


def against(
    cells: Cells,
    first: Ints,
    last: Ints,
    rng: np.random.Generator,
    kind: Callable[..., tuple[Floats, Floats]],
    *,
    in_favour: bool = False,
) -> tuple[float, float, dict[str, Floats] | None]:
    """Test the least-squares fit of an exponential against that of a null: p-value, mean evidence, band of the null."""
    rows = np.flatnonzero(last - first >= 3)
    if not len(rows):
        return float("nan"), float("nan"), None
    blocks = max(1, -(-EVIDENCE_BLOCKS // len(rows)))
    thin = max(1, len(cells.time) // MOST_POINTS)
    time, values = cells.time[::thin], cells.values[rows, ::thin]
    evidence, fitted = kind(time, values, -(-first[rows] // thin), last[rows] // thin, blocks)
    known = np.isfinite(evidence[:, 0])
    if not known.any():
        return float("nan"), float("nan"), None
    band = _band(time, values[known], fitted[known])
    evidence = evidence[known]
    sign = -1.0 if in_favour else 1.0
    return sign_flip_p(sign * evidence.ravel(), rng=rng), float(evidence.sum(axis=1).mean()), band


def _band(time: Floats, values: Floats, fitted: Floats) -> dict[str, Floats] | None:
    """Mean of the curves and quantiles of the fitted null, where at least half of the curves were tested."""
    compared = np.isfinite(fitted)
    points = np.flatnonzero(compared.any(axis=0) & (compared.sum(axis=0) * 2 >= len(fitted)))
    if not len(points):
        return None
    points = points[:: -(-len(points) // BAND_POINTS)]
    fitted, values = fitted[:, points], np.where(compared, values, np.nan)[:, points]
    low, high = np.nanquantile(fitted, [(1 - BAND_SHARE) / 2, (1 + BAND_SHARE) / 2], axis=0)
    return {"time": time[points], "record": np.nanmean(values, axis=0), "low": low, "high": high}


def separate_starts(growth: Divergence, cells: Cells, window: Window | None, level: float) -> tuple[Start, ...]:
    """Group perturbations by time; each group begins after the growth of the previous one has ended."""
    if not len(cells.known):
        return ()
    per_step = float(growth.settings.get("dt", 1.0))
    followed = _followed(growth, cells) / per_step
    usual = float("inf")
    until_vote = np.full(len(cells), np.inf)
    if window is not None and window.reached.any():
        usual = float(np.median(cells.time[window.last[window.reached]])) / per_step
        until_vote = LONG_ENOUGH * usual * cells.way(window.upper)
    usable = cells.end > cells.begin
    starts: list[Start] = []
    left = np.unique(cells.start[usable])
    while len(left):
        begin = int(left[0])
        rows = np.flatnonzero((cells.start == begin) & usable)
        until = min(usual, float(np.median(followed[rows])))
        if window is not None and window.reached[rows].any():
            until = float(np.median(cells.time[window.last[rows[window.reached[rows]]]])) / per_step
        until = begin + max(until, 1.0)
        # Perturbations late in a growth phase cover only its end: they belong to it, but are no evidence.
        early = begin + max((until - begin) * EARLY, 1.0)
        rows = np.flatnonzero((cells.start >= begin) & (cells.start < early) & usable)
        starts.append(_start(cells, window, rows, followed, until_vote, step=per_step, level=level))
        left = left[left >= until]
    return tuple(starts)


def _followed(growth: Divergence, cells: Cells) -> Floats:
    """Time for which each cell was followed, after a merger, too: a copy that has merged does not grow."""
    last = np.where(np.isnan(growth.distances), 0, np.arange(len(growth.time))).max(axis=1)
    return np.array(
        [
            float(growth.time[last[(growth.group == group) & (growth.start == start)]].max())
            for group, start in zip(cells.group, cells.start, strict=True)
        ]
    )


def _start(
    cells: Cells, window: Window | None, rows: Ints, followed: Floats, until: Floats, *, step: float, level: float
) -> Start:
    """Rate and vote of the cells of one start."""
    nan, begin = float("nan"), int(cells.start[rows].min())
    if window is None:
        return Start(begin, nan, (nan, nan), 0.0, False, False, rows)
    part = cells[rows]
    ratio = ratio_of_sums(part, window.first[rows], window.last[rows], level)
    votes, grows = _vote(window.reached[rows], cells.time[window.last[rows]] / step, followed[rows], until[rows])
    if not np.isfinite(until).all():
        votes = grows = bool(window.growers[rows].any())
    fitted = window.last[rows] > window.first[rows]
    gain = part.at(window.last[rows]) - part.at(window.first[rows])
    mean = float(gain[fitted].mean()) if fitted.any() else 0.0
    value = ratio.value if fitted.any() else nan
    late = not votes and bool(window.reached[rows].any())
    return Start(begin, value, ratio.interval, mean, votes, grows, rows, late)


def _vote(reached: NDArray[np.bool_], passage: Floats, followed: Floats, until: Floats) -> tuple[bool, bool]:
    """Whether the cells of a start decide, and whether at least half reach the upper level by a time of their own.

    Notes
    -----
    The share is that of Kaplan and Meier (1958): a cell that is cut before it reaches the level counts for as long as
    it was followed. Cells that reach it early and are cut then would otherwise outvote those that are cut without.
    """
    time = np.where(reached, passage, followed) / until
    left = 1.0
    for now in np.unique(time[reached & (time <= 1)]):
        left *= 1 - np.sum(reached & (time == now)) / np.sum(time >= now)
    grows = bool(left <= 0.5)
    return grows or bool((~reached & (time >= 1)).any()), grows


def _runaway(growth: Divergence, cells: Cells, window: Window | None) -> tuple[float, bool]:
    """Share of the growth that the reference's own steps show, and whether the reference runs away.

    A training that diverges, w' = -a w with a > 1, parts from its twins as fast as its own steps grow.
    """
    if growth.speed is None:
        return float("nan"), False
    with np.errstate(divide="ignore", invalid="ignore"):
        speed = np.log(growth.speed)
    rows = [
        int(np.flatnonzero((growth.group == group) & (growth.start == start))[0])
        for group, start in zip(cells.group, cells.start, strict=True)
    ]
    speed = speed[rows]
    if window is None:
        return float("nan"), bool(np.mean([_accelerates(row) for row in speed[cells.known]]) >= 0.5) if len(
            cells.known
        ) else False
    faster, gained = 0.0, 0.0
    for row in np.flatnonzero(window.last > window.first):
        a, b = int(window.first[row]), int(window.last[row])
        quarter = max(1, (b - a) // 4)
        before, after = speed[row, max(0, a - quarter) : a + 1], speed[row, b - quarter + 1 : b + 1]
        before, after = before[np.isfinite(before)], after[np.isfinite(after)]
        if len(before) and len(after):
            faster += float(after.max() - before.max())
            gained += float(cells.values[row, b] - cells.values[row, a])
    share = faster / gained if gained > 0 else float("nan")
    return share, share > 0.5 and _still_fast(speed[window.last > window.first])


def _still_fast(speed: Floats) -> bool:
    """Whether most references end at their highest speed, and not at rest beyond a saddle."""
    ends = []
    for row in speed:
        known = row[~np.isnan(row)]
        if len(known):
            last = known[-max(1, len(known) // 10) :]
            ends.append(last.max() >= known.max() - 1.0)
    return bool(ends and np.mean(ends) >= 0.5)


def _accelerates(speed: Floats) -> bool:
    """Whether the largest steps of ten blocks keep growing: the last is the largest, by more than it was before."""
    known = speed[~np.isnan(speed)]
    if len(known) < RUNAWAY_BLOCKS:
        return False
    blocks = np.array([block.max() for block in np.array_split(known, RUNAWAY_BLOCKS)])
    if not np.isfinite(blocks).all():
        return bool(np.isposinf(blocks[-1]))
    return bool(blocks[-1] == blocks.max() and blocks[-1] - np.median(blocks[:5]) > 3 and blocks[-1] - blocks[-4] > 1)


def _exponent(fit: TwinFit, judgement: Any, *, region: Any, null: str | None, level: float, rng: RNGLike) -> Exponent:
    growth, cells, fitted = fit.growth, fit.fitted_cells, fit.fitted
    time = cells.time
    inverse = np.unique(cells.group, return_inverse=True)[1]
    gain = np.where(fit.last > fit.first, cells.at(fit.last) - cells.at(fit.first), 0.0)
    duration = time[np.maximum(fit.last, fit.first)] - time[fit.first]
    total_gain, total_time = np.bincount(inverse, gain), np.bincount(inverse, duration)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(total_time > 0, total_gain / total_time, np.nan)
    nan = float("nan")
    window, intercept = (nan, nan), nan
    if len(fitted):
        window = (float(np.median(time[fit.first[fitted]])), float(np.median(time[fit.last[fitted]])))
        intercept = float(np.median(cells.at(fit.first)[fitted] - fit.ratio.value * time[fit.first[fitted]]))
    p_shape = fit.shape.p_power_law if fit.shape is not None and null == POWER_LAW else fit.p_null
    # A rate of zero and the null must both be rejected: the p-value of their union is the larger one.
    p_value = max(p_shape, fit.ratio.p_positive) if np.isfinite([p_shape, fit.ratio.p_positive]).all() else nan
    waiting, fraction, from_perturbation = _waiting(fit)
    reasons = judgement.reasons
    if reasons[0].code == "growth" and np.isfinite(waiting[1]):
        reasons = (reasons[0], _before_growth(waiting, fraction, from_perturbation, growth.time_unit), *reasons[1:])
    return Exponent(
        value=fit.ratio.value,
        interval=fit.interval,
        level=level,
        p_value=p_value if null is not None else nan,
        null=_null_text(null, growth),
        n_used=int(np.sum(total_time > 0)),
        n_total=len(np.unique(growth.group)),
        verdict=judgement.verdict,
        reasons=reasons,
        window=window,
        window_values=_window_values(fit),
        values=values,
        intercept=intercept,
        method=growth.method,
        unit=f"1/{growth.time_unit}",
        settings=_settings(fit, region=region, null=null, level=level, rng=rng),
        warnings=(*growth.warnings, *caveats(fit)),
        curve=growth,
        growth=judgement.growth,
        persistence=judgement.persistence,
        waiting=waiting,
        fraction_growing=fraction,
        from_perturbation=from_perturbation,
        rate_by_time=_rate_by_time(fit),
    )


def _null_text(null: str | None, growth: Divergence) -> str:
    if null is None:
        return ""
    return NULL_TEXTS[null].format(optimizer=twins_optimizer(growth).description if null == BASIN else "")


def _waiting(fit: TwinFit) -> tuple[tuple[float, float, float], float, float]:
    """Quantiles of the time to the onset, share of the cells that grow, and rate since the perturbation."""
    cells, known, nan = fit.cells, fit.cells.known, float("nan")
    if fit.window is None:
        return (nan, nan, nan), 0.0 if len(known) else nan, fit.whole.value
    started = fit.window.last > fit.window.first
    if not started.any():
        return (nan, nan, nan), 0.0, fit.whole.value
    low, middle, high = np.quantile(cells.time[fit.window.first[started]], [0.1, 0.5, 0.9])
    last = np.where(started, fit.window.last, np.maximum(cells.end, cells.begin))
    total = ratio_of_sums(cells, cells.begin, last)
    return (float(low), float(middle), float(high)), float(np.mean(started[known])), total.value


def _before_growth(waiting: tuple[float, float, float], fraction: float, rate: float, unit: str) -> Reason:
    early, middle, late = waiting
    text = (
        "{share:.0%} of the curves grow; median wait {middle:.4g} {units} (10% to 90%: {early:.4g} to {late:.4g}); "
        "since the perturbation the rate is {rate:.4g}"
    )
    return Reason.of("waiting", text, share=fraction, middle=middle, early=early, late=late, rate=rate,
                     units=time_units(unit))  # fmt: skip


def _rate_by_time(fit: TwinFit) -> dict[str, Floats]:
    """Rate in windows of the training, over the cells that have not reached the upper level, while most are left."""
    cells, window = fit.cells, fit.window
    names = ("start", "stop", "rate", "left")
    if window is None or not (window.last > window.first).any():
        return {name: np.empty(0) for name in names}
    per_step = float(fit.growth.settings.get("dt", 1.0))
    known = cells.known
    fitted = window.last > window.first
    duration = float(np.median((cells.time[window.last] - cells.time[window.first])[fitted]))
    shortest = float(np.min(np.diff(cells.time)))
    begin = cells.start[known] * per_step
    end = begin + cells.time[np.where(fitted, window.last, cells.end)[known]]
    low, high = float(begin.min()), float(end.max())
    length = max(duration / WINDOWS_PER_PHASE, shortest, (high - low) / MOST_WINDOWS)
    edges = low + length * np.arange(max(1, int((high - low) / length)) + 1)
    rows = []
    for a, b in pairwise(edges):
        present = (begin < b) & (begin + cells.time[cells.end[known]] > a)
        inside = present & (end >= b)
        if not present.any() or inside.sum() < LEFT * present.sum():
            rows.append((a, b, np.nan, float(inside.sum() / max(present.sum(), 1))))
            continue
        gain = time = 0.0
        for k in np.flatnonzero(inside):
            row = known[k]
            ends = np.clip(np.array([a, b]) - begin[k], cells.time[cells.begin[row]], cells.time[cells.end[row]])
            values = np.interp(ends, cells.time, np.nan_to_num(cells.values[row]))
            gain, time = gain + float(values[1] - values[0]), time + float(ends[1] - ends[0])
        rows.append((a, b, gain / time if time > 0 else np.nan, float(inside.sum() / present.sum())))
    return dict(zip(names, np.array(rows).T.reshape(4, -1), strict=True))


def _window_values(fit: TwinFit) -> Floats:
    """Rates over windows inside the fitted one, at least half as long: the sensitivity to its choice."""
    rows = fit.fitted
    if not len(rows):
        return np.empty(0)
    cells, first, last = fit.fitted_cells, fit.first[rows], fit.last[rows]
    parts = np.linspace(0, 1, 17)
    points = np.round(first[:, None] + (last - first)[:, None] * parts).astype(np.int64)
    level = np.take_along_axis(cells.values[rows], points, axis=1).sum(axis=0)
    clock = cells.time[points].sum(axis=0)
    values = [
        (level[b] - level[a]) / (clock[b] - clock[a])
        for a in range(17)
        for b in range(a + 8, 17)
        if clock[b] > clock[a]
    ]
    return np.array(values)


def _stretches(fit: TwinFit) -> Floats:
    """Both ends of what was fitted, one row a curve: time and ln d at the start, time and ln d at the end."""
    cells, rows = fit.fitted_cells, fit.fitted
    ends = [(cells.time[at], cells.values[rows, at]) for at in (fit.first[rows], fit.last[rows])]
    return np.column_stack([part for pair in ends for part in pair]) if len(rows) else np.empty((0, 4))


def _settings(fit: TwinFit, *, region: Any, null: str | None, level: float, rng: RNGLike) -> dict[str, Any]:
    """Settings of the fit, including automatic choices."""
    window, decay, shape = fit.window, fit.decay, fit.shape
    nan = float("nan")
    return {
        **fit.growth.settings,
        "region": region,
        "level": level,
        "null": null,
        "procedure": None,
        "rng": int(rng) if isinstance(rng, (int, np.integer)) else str(rng),
        "counted": "initial conditions",
        "phase": "growth" if window is not None else "decay" if decay is not None else "whole",
        "onset_share": window.share if window is not None else nan,
        "onset_level": float(np.median(window.onset[window.growers])) if window is not None else nan,
        "upper_level": window.upper if window is not None else nan,
        "saturation_level": window.saturation if window is not None else nan,
        "saturation_margin": SATURATION_MARGIN,
        "decay_floor": decay.floor if decay is not None else nan,
        "settled": window.settled if window is not None else True,
        "null_band": fit.band,
        "stretches": _stretches(fit),
        "n_reached": int(window.reached.sum()) if window is not None else 0,
        "n_points_at_floor": fit.cells.at_floor,
        "n_curves": len(fit.cells),
        "n_curves_used": len(fit.fitted),
        "resampled": fit.unit,
        "fewest_units": FEWEST_UNITS,
        "standard_error": fit.ratio.error,
        "p_zero": fit.ratio.p_positive,
        "shape": shape.statistic if shape is not None else nan,
        "shape_of_power_law": shape.power_law if shape is not None else nan,
        "p_power_law": shape.p_power_law if shape is not None else nan,
        "p_exponential": shape.p_exponential if shape is not None else nan,
        "p_null": fit.p_null,
        "evidence_against_null": fit.evidence,
        "speed_share": fit.speed_share,
        "whole_rate": fit.whole.value,
        "rates_by_size": [
            {"first": one.first, "rates": one.rates, "difference": one.difference.interval} for one in fit.comparisons
        ],
        "starts": [start.step for start in fit.starts],
        "start_values": [start.value for start in fit.starts],
        "start_intervals": [start.interval for start in fit.starts],
        "start_grows": [start.grows for start in fit.starts],
        "start_votes": [start.votes for start in fit.starts],
    }
