"""The verdict on the growth of twins, with its reasons; neighbour curves are judged in `fit_neighbors`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trajtools.exponents.nulls import BASIN
from trajtools.reasons import Reason
from trajtools.statistics import DECISION
from trajtools.types import Floats

if TYPE_CHECKING:
    from trajtools.exponents.fit_twins import Measured

FEWEST_EFOLDS = 3.0  # of fitted growth, before anything is called exponential
EPOCHS = 3  # separate times of perturbation that persistence asks for
BOUNDED = 1.0  # e-folds: distances that never rise further than this stay near their start
SHORTEST = 20  # states that a record must have before "nothing grows" says something
FEWEST_STEPS = 3  # fitted steps: a line through fewer shows no shape
NULLS = {"power-law": "a power law or diffusion", BASIN: "a quadratic basin under the same optimiser"}
PERSISTENCE = ("persistent", "not-persistent", "persistence-not-tested")  # codes of reasons
SHAPE_STEPS = 10  # fitted steps that a power law must describe better before the growth counts as one
Judgement = tuple[str, tuple[Reason, ...]]
Rise = Callable[[], tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Epoch:
    """Perturbations introduced at about one time: before those of the epoch before had run their course.

    Attributes
    ----------
    start : int
        Step of the first of them.
    early : float
        Perturbations introduced before this step tell whether there is growth.
    until : float
        Step at which the growth of half of them has ended; later perturbations belong to the next epoch.
    value : float
        Rate of its curves.
    gain : float
        Mean fitted growth, in e-folds.
    p_positive : float
        One-sided p-value of "the rate is not positive"; NaN where unknown.
    long_enough : bool
        Whether its record is long enough for `FEWEST_EFOLDS` at the fastest rate that any start shows.
    """

    start: int
    early: float
    until: float
    value: float
    gain: float
    p_positive: float
    long_enough: bool

    @property
    def grows(self) -> bool:
        """Whether this epoch alone shows growth."""
        return self.gain >= FEWEST_EFOLDS and self.p_positive < DECISION

    @property
    def silent(self) -> bool:
        """Whether this epoch shows that growth is absent: it had the time, and did not grow."""
        return self.gain < FEWEST_EFOLDS and self.long_enough


def judge(found: Measured, epochs: tuple[Epoch, ...], rise: Rise, null: str | None) -> Judgement:
    """Return the verdict and its reasons."""
    unit = found.growth.time_unit
    if not len(found.usable):
        return "inconclusive", (_nothing_to_fit(found),)
    if found.growth.settings.get("noise") in ("independent", "mixed"):
        return "inconclusive", (
            Reason(
                "independent-batches",
                "the twins used batches of their own, so gradient noise alone separates them; train the twins on "
                "common batches",
            ),
        )
    tallest = float(np.mean(_tallest(found)))
    if tallest < BOUNDED:
        return _bounded(found, tallest)
    some = found.some
    gain = float(np.mean(found.gain[some])) if len(some) else 0.0
    steps = float(np.median((found.last - found.first)[some])) if len(some) else 0.0
    if gain < FEWEST_EFOLDS or steps < FEWEST_STEPS:
        return _too_little(found, gain, steps, (rise, NULLS[null]) if null is not None else None)
    grown = Reason.of(
        "growth",
        "the distance grows by {gain:.1f} e-folds in {time:g} {unit}s (median), {rate:.4g} per {unit}, "
        + ("before it saturates" if np.isfinite(found.spans.level) else "and has not saturated by the last state"),
        gain=gain,
        time=_median_time(found),
        rate=found.ratio.value,
        unit=unit,
    )
    if null is None:
        return "inconclusive", (grown, no_null("power-law"))
    if not found.p_null < DECISION:
        return _not_exponential(grown, found, steps, NULLS[null])
    if not np.isfinite(found.ratio.p_positive):
        words = (
            "its error is unknown: there is one initial condition, and {steps:g} fitted steps are too few to be cut "
            "into independent stretches; train more initial conditions"
        )
        return "inconclusive", (grown, Reason.of("error-unknown", words, steps=steps))
    if found.ratio.p_positive >= DECISION:
        return "inconclusive", (
            grown,
            Reason.of(
                "zero-not-excluded",
                "a rate of zero cannot be excluded at the 1 % level (p = {p:.3g}, {clusters} {unit}); train more "
                "initial conditions",
                p=found.ratio.p_positive,
                clusters=found.ratio.clusters,
                unit=found.unit,
            ),
        )
    tested = Reason.of("null-rejected", "{null} does not describe it (p = {p:.3g})", null=NULLS[null], p=found.p_null)
    return _persistence((grown, tested), epochs, unit)


def _persistence(reasons: tuple[Reason, ...], epochs: tuple[Epoch, ...], unit: str) -> Judgement:
    if any(epoch.silent for epoch in epochs):
        return "transient", (*reasons, does_not_persist(epochs))
    growing = [epoch for epoch in epochs if epoch.grows]
    where = ", ".join(str(epoch.start) for epoch in growing)
    if len(growing) >= EPOCHS:
        persists = Reason.of(
            "persistent",
            "twins grow from {starts} separate starts (steps {where}), at {rates} per {unit}, and from no start do "
            "they fail to grow",
            starts=len(growing),
            where=where,
            rates=", ".join(f"{epoch.value:.3g}" for epoch in growing),
            unit=unit,
        )
        return "chaotic", (*reasons, persists)
    times = {0: "no start", 1: f"one start (step {where})"}.get(
        len(growing), f"{len(growing)} separate starts ({where})"
    )
    untested = Reason.of(
        "persistence-not-tested",
        "growth is exponential from {times}; whether it persists was not tested: perturb at {needed} or more steps, "
        "each after the previous growth has ended",
        times=times,
        starts=len(growing),
        needed=EPOCHS,
    )
    return "transient", (*reasons, untested)


def does_not_persist(epochs: tuple[Epoch, ...]) -> Reason:
    """Name the perturbations that do not grow."""
    silent = ", ".join(f"{epoch.start} ({epoch.gain:.1f} e-folds)" for epoch in epochs if epoch.silent)
    return Reason.of(
        "not-persistent",
        "the sensitivity does not persist: of {starts} separate starts, those at step {silent} show no exponential "
        "growth of {needed:g} e-folds",
        starts=len(epochs),
        silent=silent,
        needed=FEWEST_EFOLDS,
    )


def _bounded(found: Measured, tallest: float) -> Judgement:
    unit, growth = found.growth.time_unit, found.growth
    rows = found.usable
    begin, end = found.spans.begin[rows], found.spans.end[rows]
    length = float(np.median(end - begin))
    lasted = float(np.median(growth.time[end] - growth.time[begin]))
    stays = Reason.of(
        "bounded",
        "the distance rises at most {rise:.2f} e-folds above its start (mean) in {time:g} {unit}s",
        rise=tallest,
        time=lasted,
        unit=unit,
    )
    if found.ratio.interval[1] < 0 and length >= FEWEST_STEPS:
        shrinks = Reason.of(
            "contracts",
            "it shrinks: the {method} rate is {rate:.4g} per {unit}, and its whole interval lies below zero",
            method=growth.method,
            rate=found.ratio.value,
            unit=unit,
        )
        return "regular", (stays, shrinks)
    if length < SHORTEST:
        words = "{steps:g} steps are too few to show that nothing grows ({needed} are needed); record longer"
        return "inconclusive", (stays, Reason.of("too-few-steps", words, steps=length, needed=SHORTEST))
    largest = np.array([growth.scale[growth.group == label].max() for label in found.curves.group[rows]])
    with np.errstate(divide="ignore"):
        room = float(np.median(np.log(largest) - found.curves.values[rows, begin]))
    if room < FEWEST_EFOLDS:
        words = (
            "the perturbation is as large as the weights (room for {room:.1f} e-folds), so it could not have grown; "
            "use a smaller epsilon"
        )
        return "inconclusive", (stays, Reason.of("no-room", words, room=room))
    ending = "there is no exponential regime in the recorded time"
    if np.isfinite(room):
        ending = f"with room for {room:.1f}, {ending}"
    return "regular", (stays, Reason("no-exponential-regime", ending, {"room": room}))


def _too_little(found: Measured, gain: float, steps: float, tested: tuple[Rise, str] | None) -> Judgement:
    unit = found.growth.time_unit
    rows = found.usable
    whole = found.curves.values[rows, found.spans.knee[rows]] - found.curves.values[rows, found.spans.begin[rows]]
    total = float(np.mean(whole))
    risen = float(np.median((found.spans.knee - found.spans.begin)[rows]))
    p_null, evidence, null = 1.0, 0.0, ""
    if tested is not None and total >= FEWEST_EFOLDS and risen >= SHAPE_STEPS:
        (p_null, evidence), null = tested[0](), tested[1]
    if evidence < 0 and p_null < DECISION:
        words = "the distance grows by {gain:.1f} e-folds, and {null} describes the growth better than an exponential "
        words += "does (p = {p:.3g})"
        return "regular", (Reason.of("null-fits-better", words, gain=total, null=null, p=p_null),)
    if np.isfinite(found.spans.level) and np.median((found.spans.end - found.spans.begin)[rows]) >= SHORTEST:
        way = "use a smaller epsilon, so that the growth has more room" if steps >= FEWEST_STEPS else (
            "the separation is faster than the recording, or it is not exponential; record every step and use a "
            "smaller epsilon"
        )  # fmt: skip
    else:
        way = f"record longer than {found.growth.time[-1]:g} {unit}s"
    little = Reason.of(
        "too-little-growth",
        "only {gain:.1f} e-folds in {steps:g} steps (median) lie between the start and saturation, {needed:g} e-folds "
        "in {needed_steps} steps are needed; {way}",
        gain=gain,
        steps=steps,
        needed=FEWEST_EFOLDS,
        needed_steps=FEWEST_STEPS,
        way=way,
    )
    return "inconclusive", (little,)


def _not_exponential(grown: Reason, found: Measured, steps: float, null: str) -> Judgement:
    p_null, evidence = found.p_null, found.evidence
    if not np.isfinite(p_null):
        words = "no curve has the four points that a comparison with {null} needs; record more often"
        return "inconclusive", (grown, Reason.of("too-few-points", words, null=null))
    if evidence < 0 and p_null > 1 - DECISION and steps < SHAPE_STEPS:
        words = (
            "{steps:g} fitted steps are too few to tell an exponential from {null} ({needed} are needed); use a "
            "smaller epsilon, so that the growth has more room"
        )
        return "inconclusive", (grown, Reason.of("too-few-steps", words, steps=steps, null=null, needed=SHAPE_STEPS))
    if evidence < 0 and p_null > 1 - DECISION:
        words = "{null} describes it better than an exponential does (p = {p:.3g})"
        return "regular", (grown, Reason.of("null-fits-better", words, null=null, p=p_null))
    words = (
        "{null} describes it as well as an exponential does (p = {p:.3g}); more initial conditions or a smaller "
        "epsilon would tell them apart"
    )
    return "inconclusive", (grown, Reason.of("null-fits-as-well", words, null=null, p=p_null))


def _tallest(found: Measured) -> Floats:
    """Highest rise of each usable curve above its first point, in e-folds."""
    index, rows = np.arange(found.curves.values.shape[1]), found.usable
    begin, end = found.spans.begin[rows], found.spans.end[rows]
    values = found.curves.values[rows]
    inside = np.where((index >= begin[:, None]) & (index <= end[:, None]), values, -np.inf)
    return np.asarray(inside.max(axis=1) - values[np.arange(len(rows)), begin])


def _median_time(found: Measured) -> float:
    return float(np.median(found.duration[found.some]))


def _nothing_to_fit(found: Measured) -> Reason:
    total = len(found.first)
    silent = int(found.growth.settings.get("n_unperturbed", 0))
    if silent == total:
        return Reason.of(
            "no-perturbation",
            "none of the {twins} twins ever differs from its reference: there was no perturbation, or it was rounded "
            "away; use an epsilon that the dtype can hold",
            twins=total,
        )
    return Reason.of(
        "below-rounding-floor",
        "no curve has two points above the rounding floor ({points} points lie at or below it); use a larger epsilon "
        "or a wider dtype",
        points=found.spans.at_floor,
    )


def no_null(choice: str) -> Reason:
    """The reason of growth that was tested against nothing."""
    return Reason("no-null", f"no null was requested, so the growth was not tested; use null={choice!r}")


def without_persistence(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """Drop what is said about persistence."""
    return tuple(reason for reason in reasons if reason.code not in PERSISTENCE)


def caveats(found: Measured) -> tuple[Reason, ...]:
    """Return what the reader should know before believing the number."""
    warnings = []
    some = found.some
    if not found.settled and len(some):
        warnings.append(
            Reason(
                "rate-not-constant",
                "the growth rate is not constant over the fitted window (its early part differs at the 1 % level "
                "wherever the window starts): the value is a mean over unequal stretches, see `window_values`",
            )
        )
    if found.unit == "blocks of time":
        warnings.append(
            Reason(
                "one-initial-condition",
                "there is one initial condition: the interval comes from blocks of time and does not cover other "
                "initial conditions",
            )
        )
    if found.unit == "" and len(some):
        words = "there is one initial condition and the record is too short: the interval is unknown"
        warnings.append(Reason("interval-unknown", words))
    if found.spans.at_floor:
        words = "{points} points at or below three times the rounding floor were not fitted"
        warnings.append(Reason.of("below-rounding-floor", words, points=found.spans.at_floor))
    unused = len(found.first) - len(some)
    if unused:
        words = "{unused} of {curves} curves have no point to fit between the common start and their end"
        warnings.append(Reason.of("unused-curves", words, unused=unused, curves=len(found.first)))
    return tuple(warnings)
