"""Growth, persistence and verdict of twins, with reasons; see `fit_neighbors` for those of neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from trajtools.exponents.growth_phase import FEWEST_EFOLDS, ONSET
from trajtools.exponents.nulls import BASIN
from trajtools.reasons import Reason
from trajtools.statistics import DECISION, ROUNDING_MARGIN, SATURATION_MARGIN
from trajtools.types import Floats, Ints
from trajtools.wording import one_unit, time_units

if TYPE_CHECKING:
    from trajtools.exponents.fit_twins import TwinFit

STARTS = 3  # separate times of perturbation that vote, for persistence
MISS = 0.01  # probability that a start that votes fails to grow by chance
CHANCE = 0.05  # smallest probability of so many failures by chance, for persistence
BOUNDED = 1.0  # e-folds: distances that rise by less do not grow
MOST_LISTED = 4  # starts in a reason
SHORTEST = 20  # steps of a record, to show the absence of growth
FEWEST_STEPS = 3  # fitted steps: fewer show no curvature
SHAPE_STEPS = 10  # of a rise, to prefer a power law to an exponential
SLOWDOWN = (
    0.35  # ln of the time of the upper half of the growth over that of the lower: a larger one is no constant rate
)
NOT_CONVERGED = 0.1  # of the rate: the least difference between two sizes of the perturbation that counts
NARROW = ("float16", "bfloat16", "float32")
NULLS = {"power-law": "a power law", BASIN: "a quadratic basin under the same optimiser"}
VERDICTS = {
    ("exponential", "shown"): "chaotic",
    ("exponential", "ended"): "transient",
    ("exponential", "mixed"): "sensitive",
    ("exponential", "not tested"): "sensitive",
}
REGULAR = ("none", "contracting", "slower")


@dataclass(frozen=True, eq=False)
class Start:
    """Perturbations introduced at about the same time, before the growth of the first of them has ended.

    Attributes
    ----------
    step : int
        Step of the first perturbation.
    value : float
        Rate of its growth phase; NaN without one.
    interval : (float, float)
        Confidence interval of the rate; NaN where unknown.
    gain : float
        Mean fitted growth, in e-folds.
    votes : bool
        Whether it was followed for long enough to reach the upper level at the usual rate.
    grows : bool
        Whether most of its curves that vote reach the upper level.
    cells : ndarray of int64
        Its curves.
    late : bool
        Whether it reached the upper level, but later than starts that vote may.
    """

    step: int
    value: float
    interval: tuple[float, float]
    gain: float
    votes: bool
    grows: bool
    cells: Ints
    late: bool = False


@dataclass(frozen=True)
class Judgement:
    """Growth, persistence, the verdict that follows from both, and the reasons."""

    growth: str
    persistence: str
    verdict: str
    reasons: tuple[Reason, ...]


def judge(fit: TwinFit, null: str | None) -> Judgement:
    """Judge growth and persistence."""
    growth, reasons = _growth(fit, null)
    if growth == "undecided" and fit.window is not None and reasons[0].code == "growth":
        # How the growth is spread over the training can be known where its shape is not.
        persistence, reason = judge_persistence(fit.starts, fit.growth.time_unit)
        more = (reason,) if persistence != "not tested" else ()
        return Judgement(growth, persistence, "inconclusive", (*reasons, *more))
    if growth != "exponential":
        verdict = "regular" if growth in REGULAR else "diverging" if growth == "diverging" else "inconclusive"
        return Judgement(growth, "not tested", verdict, reasons)
    persistence, reason = judge_persistence(fit.starts, fit.growth.time_unit)
    return Judgement(growth, persistence, VERDICTS[growth, persistence], (*reasons, reason))


def judge_persistence(starts: tuple[Start, ...], unit: str) -> tuple[str, Reason]:
    """Judge whether growth follows every start that was followed for long enough."""
    votes = [start for start in starts if start.votes]
    growing, failing = [s for s in votes if s.grows], [s for s in votes if not s.grows]
    steps, rates = _steps(growing), _listed([start.value for start in growing])
    others = _without_vote(starts)
    if len(votes) < 2:
        text = (
            "whether the growth persists was not tested: it takes {needed} separate perturbations, each after the "
            "previous growth has ended and followed for long enough, and there is {voting}; plant the twins anew "
            "during the training"
        )
        return "not tested", Reason.of("persistence-not-tested", text, needed=STARTS, voting=len(votes))
    if len(votes) >= STARTS and growing and _by_chance(len(failing), len(votes)) > CHANCE:
        text = "growth follows {growing} of {votes} separate starts ({steps}), at {rates} per {unit}{others}"
        values = {"growing": len(growing), "votes": len(votes), "steps": steps, "rates": rates, "unit": one_unit(unit)}
        values["others"] = others
        return "shown", Reason.of("persistent", text, **values)
    if failing and growing and in_order(votes):
        text = "the growth ended: it follows the perturbations at {steps}, and not those at {silent}{others}"
        silent = _steps(failing)
        return "ended", Reason.of(
            "not-persistent", text, steps=steps, silent=silent, growing=len(growing), others=others
        )
    text = (
        "whether the growth persists is undecided: it follows {growing} of {votes} separate starts ({steps}), at "
        "{rates} per {unit}; {needed} are needed, and nearly all of them must grow{others}"
    )
    values = {"growing": len(growing), "votes": len(votes), "steps": steps, "rates": rates, "unit": one_unit(unit)}
    values["others"] = others
    return "mixed", Reason.of("persistence-mixed", text, needed=STARTS, **values)


def _without_vote(starts: tuple[Start, ...]) -> str:
    """Say which starts have no vote, and why; empty if there are none."""
    texts = []
    for late, why in ((False, "not followed for long enough"), (True, "grew too late to count")):
        without = [start for start in starts if not start.votes and start.late == late]
        if without:
            texts.append(f"; no vote at {_steps(without)}: {why}")
    return "".join(texts)


def _steps(starts: Sequence[Start]) -> str:
    return ("step " if len(starts) == 1 else "steps ") + _listed([start.step for start in starts])


def _listed(values: Sequence[float]) -> str:
    """List a few numbers; of many, their range."""
    known = [value for value in values if np.isfinite(value)]
    chosen = values if len(values) <= MOST_LISTED or not known else (min(known), max(known))
    texts = [str(value) if isinstance(value, int) else f"{value:.3g}" for value in chosen]
    return (", " if chosen is values else " to ").join(texts)


def _by_chance(failures: int, votes: int) -> float:
    """Probability of at least so many failures at the miss rate."""
    from scipy.special import bdtrc

    return 1.0 if failures == 0 else float(bdtrc(failures - 1, votes, MISS))


def in_order(votes: list[Start]) -> bool:
    """Whether growing starts precede failing ones: without exception, or by the rank-sum test at 5 %."""
    grows = np.array([start.grows for start in votes])
    if all(early >= late for early, late in pairwise(grows.tolist())):
        return True
    if grows[-1]:
        return False
    m, n = int(grows.sum()), int((~grows).sum())
    ranks = np.flatnonzero(grows).sum() - m * (m - 1) / 2  # pairs in which a failing start comes first
    spread = (m * n * (m + n + 1) / 12) ** 0.5
    return bool((ranks - m * n / 2) / spread < -1.645)


def _growth(fit: TwinFit, null: str | None) -> tuple[str, tuple[Reason, ...]]:
    if not len(fit.cells.known):
        return "undecided", (_nothing_to_fit(fit),)
    if fit.growth.settings.get("noise") in ("independent", "mixed"):
        text = (
            "each twin used its own batches, so gradient noise alone separates them; train the twins on common batches"
        )
        return "undecided", (Reason("independent-batches", text),)
    if fit.runaway:
        return "diverging", (_runaway(fit),)
    if fit.decay is not None and fit.ratio.interval[1] < 0:
        return "contracting", (_contracts(fit),)
    if fit.fixed_region:
        return _of_region(fit, null)
    if fit.window is None:
        return _without_growth_phase(fit, null)
    return _with_growth_phase(fit, null)


def _with_growth_phase(fit: TwinFit, null: str | None) -> tuple[str, tuple[Reason, ...]]:
    unit = fit.growth.time_unit
    saturates = fit.window is not None and np.isfinite(fit.window.saturation)
    if fit.steps < FEWEST_STEPS and not saturates:
        length = float(np.median((fit.cells.end - fit.cells.begin)[fit.cells.known]))
        return "undecided", (_too_little(fit, float(np.mean(fit.rises)), length, float(fit.cells.time[-1])),)
    if not len(fit.fitted):
        return "undecided", (_too_fast(fit),)
    growth = Reason.of(
        "growth",
        "the distance grows by {gain:.1f} e-folds in {time:g} {units} (median), {rate:.4g} per {unit}, "
        + ("before it saturates" if saturates else "and has not saturated by the last state"),
        gain=fit.gain,
        time=float(np.median((fit.cells.time[fit.last] - fit.cells.time[fit.first])[fit.fitted])),
        rate=fit.ratio.value,
        unit=one_unit(unit),
        units=time_units(unit),
    )
    if null is None:
        return "undecided", (growth, no_null("power-law"))
    if fit.steps < FEWEST_STEPS:
        slower = _slower(fit, null)
        return slower or ("undecided", (growth, _too_fast(fit)))
    name = NULLS[null]
    shape = fit.shape
    bent = shape is not None and shape.p_exponential < DECISION and shape.statistic > shape.power_law / 2
    if bent and shape is not None and fit.steps >= SHAPE_STEPS:
        text = "the growth slows down as {null} does (p of an exponential = {p:.3g})"
        return "slower", (growth, Reason.of("null-fits-better", text, null="a power law", p=shape.p_exponential))
    if not np.isfinite(fit.ratio.p_positive):
        text = (
            "the error of the rate is unknown: there are {curves} independent curves and {steps:g} fitted steps; "
            "{remedies}"
        )
        remedies = _remedies("train more initial conditions", _more_room(fit, fit.gain / 2))
        reason = Reason.of("error-unknown", text, curves=len(fit.fitted), steps=fit.steps, remedies=remedies)
        return "undecided", (growth, reason)
    # A walk that is measured between its own passages looks twice as significant (reflection principle).
    alpha = DECISION / 2 if fit.unit == "blocks of time" else DECISION
    if fit.ratio.p_positive >= alpha:
        text = (
            "a rate of zero cannot be excluded (p = {p:.3g} from {clusters} {unit}, and {level:g} is needed); train "
            "more initial conditions"
        )
        values = {"p": fit.ratio.p_positive, "clusters": fit.ratio.clusters, "unit": fit.unit, "level": alpha}
        return "undecided", (growth, Reason.of("zero-not-excluded", text, **values))
    p_power = shape.p_power_law if shape is not None else float("nan")
    p_value = p_power if null == "power-law" else max(p_power, fit.p_null)
    if not p_value < DECISION:
        slower = _slower(fit, null)
        text = "{null} is not excluded (p = {p:.3g}, and {level:g} is needed); {remedies}"
        more = "train more initial conditions, or longer for more starts"
        remedies = _remedies(_more_room(fit, fit.gain / 2), more)
        reason = Reason.of("null-fits-as-well", text, null=name, p=p_value, level=DECISION, remedies=remedies)
        return slower or ("undecided", (growth, reason))
    if shape is not None and shape.p_exponential < DECISION and shape.statistic > SLOWDOWN:
        text = (
            "the growth slows down: the upper half of it takes {factor:.2g} times as long as the lower half (p of a "
            "constant rate = {p:.3g}); it is neither exponential nor {null}"
        )
        values = {"factor": float(np.exp(shape.statistic)), "p": shape.p_exponential, "null": name}
        return "undecided", (growth, Reason.of("slows-down", text, **values))
    return "exponential", (growth, Reason.of("null-rejected", "{null} is rejected (p = {p:.3g})", null=name, p=p_value))


def _slower(fit: TwinFit, null: str) -> tuple[str, tuple[Reason, ...]] | None:
    """Growth that a power law or diffusion fits better over the whole rise; None where that is not shown."""
    risen = fit.rise_steps
    rise = float(np.mean(fit.rises))
    if not (fit.p_slower < DECISION and rise >= FEWEST_EFOLDS and risen >= SHAPE_STEPS):
        return None
    text = (
        "the distance grows by {gain:.1f} e-folds, and {null} fits the growth better than an exponential (p = {p:.3g})"
    )
    name = NULLS[null] + (" or diffusion" if null == "power-law" else "")
    return "slower", (Reason.of("null-fits-better", text, gain=rise, null=name, p=fit.p_slower),)


def _without_growth_phase(fit: TwinFit, null: str | None) -> tuple[str, tuple[Reason, ...]]:
    cells, rows, unit = fit.cells, fit.cells.known, fit.growth.time_unit
    rise = float(np.mean(fit.rises))
    length = float(np.median((cells.end - cells.begin)[rows]))
    time = float(np.median(cells.time[cells.end[rows]] - cells.time[cells.begin[rows]]))
    bounded = Reason.of(
        "bounded",
        "the distance rises at most {rise:.2f} e-folds above its start (mean) in {time:g} {units}",
        rise=rise,
        time=time,
        units=time_units(unit),
    )
    if length < SHORTEST:
        if rise >= BOUNDED:
            return "undecided", (_too_little(fit, rise, length, time),)
        text = "{steps:g} steps are too few to show the absence of growth ({needed} are needed); record longer"
        return "undecided", (bounded, Reason.of("too-few-steps", text, steps=length, needed=SHORTEST))
    if fit.whole.p_positive > 1 - DECISION:
        text = "the distance decays: the rate is {rate:.4g} per {unit}, below zero at the 1 % level"
        return "contracting", (bounded, Reason.of("contracts", text, rate=fit.whole.value, unit=one_unit(unit)))
    room = _room(fit)
    if room < FEWEST_EFOLDS:
        text = (
            "the perturbation is almost as large as the weights (room for {room:.1f} e-folds), so it cannot grow; {way}"
        )
        way = _more_room(fit) or "rounding leaves no room for a smaller one"
        return "undecided", (bounded, Reason.of("no-room", text, room=room, way=way))
    largest, highest = float(np.max(fit.rises)), _upper_bound(fit) * time
    slow = fit.whole.interval[0] > 0  # a rate above zero, which can still be too small to count as growth
    if largest < BOUNDED and not slow:
        text = "no curve rises by {limit:g} e-fold: there is no growth in the recorded time"
        return "none", (bounded, Reason.of("no-exponential-regime", text, limit=BOUNDED, room=room))
    if highest < BOUNDED:
        text = (
            "over {time:g} {units} the mean growth is at most {highest:.2g} e-folds (upper bound at the 1 % level): "
            "there is none"
        )
        if slow:
            text = (
                "the distance grows slowly, at {rate:.3g} per {unit}, and by at most {highest:.2g} e-folds in "
                "{time:g} {units} (upper bound at the 1 % level): less than {limit:g} does not count as growth, and "
                "only curves that are followed for longer can show whether it goes on"
            )
        values = {"time": time, "units": time_units(unit), "highest": highest, "room": room}
        values |= {"rate": fit.whole.value, "unit": one_unit(unit), "limit": BOUNDED}
        none = Reason.of("no-exponential-regime", text, **values)
        growing = int(np.sum(fit.rises >= FEWEST_EFOLDS))
        text = "{growing} of {curves} curves rise by {needed:g} e-folds or more, and the others stay"
        few = Reason.of("few-curves-grow", text, growing=growing, curves=len(rows), needed=FEWEST_EFOLDS)
        return "none", (bounded, none, *((few,) if growing else ()))
    slower = _slower(fit, null) if null is not None else None
    return slower or ("undecided", (_too_little(fit, rise, length, time),))


def _upper_bound(fit: TwinFit) -> float:
    """One-sided upper bound of the rate over the whole record, at the 1 % level; NaN where the error is unknown."""
    from scipy.special import stdtrit

    whole = fit.whole
    if not np.isfinite(whole.error):
        return float("nan")
    return whole.value + float(stdtrit(whole.clusters - 1, 1 - DECISION)) * whole.error


def _of_region(fit: TwinFit, null: str | None) -> tuple[str, tuple[Reason, ...]]:
    """Growth in a region of the caller's choice, with the test of the null by least squares."""
    gain, steps = fit.gain, fit.steps
    if not len(fit.fitted):
        return "undecided", (_nothing_to_fit(fit),)
    if fit.ratio.interval[1] < 0 and steps >= FEWEST_STEPS:
        return "contracting", (_contracts(fit),)
    if abs(gain) < BOUNDED and steps >= SHORTEST and fit.ratio.interval[1] * fit.growth.time[-1] < BOUNDED:
        return _without_growth_phase(fit, null)
    if gain < FEWEST_EFOLDS or steps < FEWEST_STEPS:
        length = float(np.median((fit.last - fit.first)[fit.fitted]))
        return "undecided", (_too_little(fit, gain, length, float(fit.growth.time[-1])),)
    growth = Reason.of(
        "growth",
        "the distance grows by {gain:.1f} e-folds in the region, {rate:.4g} per {unit}",
        gain=gain,
        rate=fit.ratio.value,
        unit=one_unit(fit.growth.time_unit),
    )
    if null is None:
        return "undecided", (growth, no_null("power-law"))
    if not fit.ratio.p_positive < DECISION:
        text = "a rate of zero cannot be excluded (p = {p:.3g}); train more initial conditions"
        return "undecided", (growth, Reason.of("zero-not-excluded", text, p=fit.ratio.p_positive))
    if not fit.p_null < DECISION:
        text = "{null} fits the growth as well as an exponential (p = {p:.3g})"
        return "undecided", (growth, Reason.of("null-fits-as-well", text, null=NULLS[null], p=fit.p_null))
    text = "{null} is rejected (p = {p:.3g})"
    return "exponential", (growth, Reason.of("null-rejected", text, null=NULLS[null], p=fit.p_null))


def _contracts(fit: TwinFit) -> Reason:
    return Reason.of(
        "contracts",
        "the distance decays by {decay:.1f} e-folds, {rate:.4g} per {unit}, "
        + ("and the whole interval lies below zero" if np.isfinite(fit.interval[0]) else "at a constant rate"),
        decay=-fit.gain,
        rate=fit.ratio.value,
        unit=one_unit(fit.growth.time_unit),
    )


def _runaway(fit: TwinFit) -> Reason:
    text = (
        "the training itself runs away: its own steps grow as fast as its twins part, and are largest at the end of "
        "the record"
    )
    if not fit.growth.settings.get("n_diverged", 0):  # else it has overflowed
        text += "; it diverges, or the record ends during the escape from a saddle, which looks the same"
    return Reason("runaway", text, {"share": fit.speed_share})


def _too_fast(fit: TwinFit) -> Reason:
    text = (
        "the growth from its onset to saturation takes {steps:g} recorded steps (median), and {needed} are needed: it "
        "is too fast for the record, or a jump{way}"
    )
    gaps = np.diff(fit.growth.time)
    complete = fit.growth.time_unit == "step" and len(gaps) > 0 and float(gaps.min()) <= 1.0
    per_step = max(fit.gain, FEWEST_EFOLDS) / max(fit.steps, 1.0)
    remedies = _remedies(
        "" if complete else "record every step", _more_room(fit, (FEWEST_STEPS - fit.steps) * per_step)
    )
    way = f"; {remedies}" if remedies else ""
    return Reason.of("too-fast", text, steps=fit.steps, needed=FEWEST_STEPS, way=way)


def _too_little(fit: TwinFit, rise: float, length: float, time: float) -> Reason:
    cells, rows = fit.cells, fit.cells.known
    no_phase = fit.window is None and not fit.fixed_region
    plateau, saturated = cells.plateau()
    if saturated[rows].mean() >= 0.5 and length >= SHORTEST:
        way = _more_room(fit) or "train more initial conditions"
        room = float(np.median((plateau - cells.at(cells.begin))[rows])) - ONSET - SATURATION_MARGIN
        if no_phase and rise >= ONSET and room < FEWEST_EFOLDS:
            text = (
                "the distance rises by {rise:.1f} e-folds above its start (mean) and saturates: of these {room:.1f} "
                "lie between the onset of growth and a factor 50 below saturation (median), and {needed:g} are needed "
                "to tell exponential growth from slower growth; {way}"
            )
            return Reason.of("too-little-growth", text, rise=rise, room=max(room, 0.0), needed=FEWEST_EFOLDS, way=way)
    else:
        span = f"{time:g} {time_units(fit.growth.time_unit)}"
        way = f"record longer than {span}"
        if fit.fixed_region:
            way = "fit a longer region"
        elif _replanted(fit):
            way = f"leave more than {span} between plantings (replant=)"
    growing = int(np.sum(fit.rises >= ONSET + FEWEST_EFOLDS))
    if growing and no_phase:
        text = (
            "only {growing} of {curves} curves (one for each initial condition and start) reached {least:g} e-folds, "
            "too few to measure their growth: it takes three of one start, or all where it has fewer; train more "
            "initial conditions, or {way}"
        )
        values = {"growing": growing, "curves": len(rows), "least": ONSET + FEWEST_EFOLDS, "way": way}
        return Reason.of("few-curves-grow", text, **values)
    text = (
        "the distance rises by {rise:.1f} e-folds above its start (mean), which is too little to tell exponential "
        "growth from slower growth or none; {way}"
    )
    return Reason.of("too-little-growth", text, rise=rise, way=way)


def _replanted(fit: TwinFit) -> bool:
    """Whether most curves end because their twins were planted anew, and not with the record."""
    growth, cells, rows = fit.growth, fit.cells, fit.cells.known
    end = cells.start[rows] + cells.time[cells.end[rows]] / float(growth.settings.get("dt", 1.0))
    return bool(np.mean([np.any(cells.start[rows] >= at) for at in end - 0.5]) >= 0.5)


def _more_room(fit: TwinFit, needed: float = FEWEST_EFOLDS) -> str:
    """Say how the growth gets `needed` more e-folds below its start; empty if there is no way."""
    below = _room_below(fit) - ROUNDING_MARGIN
    if np.isnan(below):
        return "use a smaller epsilon, if the dtype of the weights can hold one"
    if below >= needed:
        return "use a smaller epsilon"
    dtype = str(fit.growth.settings.get("dtype", ""))
    return "train in float64, with a smaller epsilon" if dtype in NARROW else ""


def _room_below(fit: TwinFit) -> float:
    """E-folds between the start of the curves and the distance that rounding makes; NaN where that is unknown."""
    first, floor = fit.growth.distances[:, 0], np.broadcast_to(fit.growth.floor, fit.growth.distances.shape)[:, 0]
    known = (first > 0) & (floor > 0)
    return float(np.median(np.log(first[known]) - np.log(floor[known]))) if known.any() else float("nan")


def _remedies(*ways: str) -> str:
    return ", or ".join(way for way in ways if way)


def _room(fit: TwinFit) -> float:
    """E-folds between the start of the curves and the size of the states; infinite where that is unknown."""
    growth, cells, rows = fit.growth, fit.cells, fit.cells.known
    largest = np.array([growth.scale[growth.group == label].max() for label in cells.group[rows]])
    with np.errstate(divide="ignore"):
        room = float(np.median(np.log(largest) - cells.values[rows, cells.begin[rows]]))
    return room if np.isfinite(room) else float("inf")


def _nothing_to_fit(fit: TwinFit) -> Reason:
    total = len(fit.growth.group)
    silent = int(fit.growth.settings.get("n_unperturbed", 0))
    if silent == total:
        return Reason.of(
            "no-perturbation",
            "none of the {twins} twins differs from its reference at any state: there was no perturbation, or it was "
            "rounded away; use an epsilon that the dtype can represent",
            twins=total,
        )
    return Reason.of(
        "below-rounding-floor",
        "no curve has two points above the rounding floor ({points} points lie at or below it); use a larger epsilon "
        "or a wider dtype",
        points=fit.cells.at_floor,
    )


def no_null(choice: str) -> Reason:
    """Reason of a verdict without a test."""
    return Reason("no-null", f"no null was requested, so the growth was not tested; use null={choice!r}")


def caveats(fit: TwinFit) -> tuple[Reason, ...]:
    """Warnings about the value."""
    warnings = []
    if fit.window is not None and not fit.window.settled:
        text = (
            "the rate still rises after the onset: the value is a mean over different rates, see `window_values` and "
            "`rate_by_time`"
        )
        warnings.append(Reason("rate-not-constant", text))
    if fit.decay is not None and fit.decay.shape > SLOWDOWN:
        text = (
            "the decay slows down: its lower half takes {factor:.2g} times as long as its upper half, so the value is "
            "a mean over different rates; a power of time decays like that, too"
        )
        warnings.append(Reason.of("rate-not-constant", text, factor=float(np.exp(fit.decay.shape))))
    # Starts after the growth ended are not part of the value.
    differ = _rates_differ(tuple(s for s in fit.starts if np.isin(s.cells, fit.fitted).any()), fit.fitted)
    if differ is not None:
        warnings.append(differ)
    warnings += [*_not_converged(fit), *_resting(fit)]
    if np.isfinite(fit.agreement):
        text = (
            "the interval is unknown: the {units} {unit} agree to within rounding"
            if fit.unit != "blocks of time"
            else "the interval is unknown: the {units} blocks of time agree to within {share:.1g} of the rate, so they "
            "repeat one growth factor and are no independent samples; train more initial conditions"
        )
        values = {"units": fit.ratio.clusters, "unit": fit.unit, "share": fit.agreement}
        warnings.append(Reason.of("interval-unknown", text, **values))
    elif fit.unit == "blocks of time":
        text = (
            "the fit has {curves} independent {noun}: the interval comes from blocks of time and does not cover other "
            "initial conditions"
        )
        warnings.append(Reason.of("one-initial-condition", text, curves=len(fit.fitted), noun=_curves(fit.fitted)))
    if fit.unit == "" and len(fitted := fit.fitted):
        text = "the fit has {curves} independent {noun}, and the record is too short: the interval is unknown"
        warnings.append(Reason.of("interval-unknown", text, curves=len(fitted), noun=_curves(fitted)))
    if fit.cells.at_floor:
        text = "{points} points at or below three times the rounding floor were not fitted"
        warnings.append(Reason.of("below-rounding-floor", text, points=fit.cells.at_floor))
    unused = len(fit.cells) - len(fit.fitted)
    if unused:
        text = (
            "{unused} of {curves} curves (one for each initial condition and start) left out of the fit: no growth, "
            "too short, or begun after the growth ended"
        )
        warnings.append(Reason.of("unused-curves", text, unused=unused, curves=len(fit.cells)))
    return tuple(warnings)


def _resting(fit: TwinFit) -> list[Reason]:
    """Warn of references that do not move in the second half of their record: nothing of their training is left."""
    speed = fit.growth.speed
    if speed is None:
        return []
    known = [row[np.isfinite(row)] for row in speed]
    resting = sum(len(row) >= SHORTEST and not row[len(row) // 2 :].any() for row in known)
    if not resting:
        return []
    text = (
        "the references of {resting} of {curves} curves stand still in the second half of their record: the training "
        "has converged, or its gradients are zero (dead units, a saturated loss, a rate of 0)"
    )
    return [Reason.of("at-rest", text, resting=resting, curves=len(speed))]


def _not_converged(fit: TwinFit) -> list[Reason]:
    """Warn where two sizes of the perturbation grow at different rates at the same times of the same trainings."""
    for one in fit.comparisons:
        low, high = one.difference.interval
        apart = abs(one.difference.value) > NOT_CONVERGED * abs(one.rates[0])
        if not (apart and (low > 0 or high < 0)):
            continue
        text = (
            "not converged: at the same times of the training, copies that began at a distance of {small:.1g} grow at "
            "{rate:.4g} per {unit}, and those that began at {large:.1g} at {other:.4g}; smaller epsilons in float64 "
            "that agree, or tangent vectors along the training, would give the rate"
        )
        (small, large), (rate, other), unit = one.first, one.rates, fit.growth.time_unit
        values = {"small": small, "large": large, "rate": rate, "other": other, "unit": one_unit(unit)}
        return [Reason.of("not-converged", text, **values)]
    return []


def _curves(fitted: Ints) -> str:
    return "curve" if len(fitted) == 1 else "curves"


def _rates_differ(starts: tuple[Start, ...], fitted: Ints) -> Reason | None:
    """Warn where the starts differ by more than their intervals, or by half where these are unknown.

    The value is not their mean: it is pooled over all fitted curves, of which some belong to none of these starts.
    """
    grown = [start for start in starts if np.isfinite(start.value) and start.gain >= FEWEST_EFOLDS]
    if len(grown) < 2:
        return None
    low: Floats = np.array([start.interval[0] for start in grown])
    high: Floats = np.array([start.interval[1] for start in grown])
    values = np.array([start.value for start in grown])
    if np.isfinite(low).all():
        differ = bool(low.max() > high.min())
    else:
        differ = bool(values.max() > 1.5 * values.min())
    if not differ:
        return None
    text = "the starts differ: {rates} at {steps}; the value is pooled over all {curves} fitted curves"
    others = int(np.count_nonzero(~np.isin(fitted, np.concatenate([start.cells for start in grown]))))
    if others:
        text += ", {others} of them from other starts"
    rates, steps = _listed(values.tolist()), _steps(grown)
    numbers = {"lowest": float(values.min()), "highest": float(values.max()), "curves": len(fitted), "others": others}
    return Reason.of("starts-differ", text, rates=rates, steps=steps, **numbers)
