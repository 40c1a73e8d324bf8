"""Verdict on the growth of twins, with its reasons; see `fit_neighbors` for that on neighbours."""

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
    from trajtools.exponents.fit_twins import TwinFit

FEWEST_EFOLDS = 3.0  # of fitted growth, for exponential growth
EPOCHS = 3  # separate times of perturbation, for persistence
BOUNDED = 1.0  # e-folds: distances that rise by less are bounded
SHORTEST = 20  # states of a record, to show the absence of growth
FEWEST_STEPS = 3  # fitted steps: fewer show no curvature
NULLS = {"power-law": "a power law or diffusion", BASIN: "a quadratic basin under the same optimiser"}
PERSISTENCE = ("persistent", "not-persistent", "persistence-not-tested")  # reason codes
SHAPE_STEPS = 10  # fitted steps, to prefer a power law to an exponential
Judgement = tuple[str, tuple[Reason, ...]]
Rise = Callable[[], tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Epoch:
    """Perturbations introduced at about the same time, before the growth of the first of them has ended.

    Attributes
    ----------
    start : int
        Step of the first perturbation.
    early : float
        Perturbations before this step are evidence for or against growth.
    until : float
        Step at which growth has ended for half of them; later perturbations belong to the next epoch.
    value : float
        Rate of its curves.
    gain : float
        Mean fitted growth, in e-folds.
    p_positive : float
        One-sided p-value of "the rate is not positive"; NaN where unknown.
    long_enough : bool
        Whether the record is long enough for `FEWEST_EFOLDS` at the fastest rate of any start.
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
        """Whether the record of this epoch is long enough for growth, and shows none."""
        return self.gain < FEWEST_EFOLDS and self.long_enough


def judge(fit: TwinFit, epochs: tuple[Epoch, ...], rise: Rise, null: str | None) -> Judgement:
    """Verdict and reasons."""
    unit = fit.growth.time_unit
    if not len(fit.usable):
        return "inconclusive", (_nothing_to_fit(fit),)
    if fit.growth.settings.get("noise") in ("independent", "mixed"):
        return "inconclusive", (
            Reason(
                "independent-batches",
                "each twin used its own batches, so gradient noise alone separates them; train the twins on common "
                "batches",
            ),
        )
    largest_rise = float(np.mean(_largest_rise(fit)))
    if largest_rise < BOUNDED:
        return _bounded(fit, largest_rise)
    fitted = fit.fitted
    gain = float(np.mean(fit.gain[fitted])) if len(fitted) else 0.0
    steps = float(np.median((fit.last - fit.first)[fitted])) if len(fitted) else 0.0
    if gain < FEWEST_EFOLDS or steps < FEWEST_STEPS:
        return _too_little(fit, gain, steps, (rise, NULLS[null]) if null is not None else None)
    growth = Reason.of(
        "growth",
        "the distance grows by {gain:.1f} e-folds in {time:g} {unit}s (median), {rate:.4g} per {unit}, "
        + ("before it saturates" if np.isfinite(fit.spans.level) else "and has not saturated by the last state"),
        gain=gain,
        time=_median_time(fit),
        rate=fit.ratio.value,
        unit=unit,
    )
    if null is None:
        return "inconclusive", (growth, no_null("power-law"))
    if not fit.p_null < DECISION:
        return _not_exponential(growth, fit, steps, NULLS[null])
    if not np.isfinite(fit.ratio.p_positive):
        text = (
            "the standard error is unknown: there is one initial condition, and {steps:g} fitted steps are too few for "
            "independent blocks of time; train more initial conditions"
        )
        return "inconclusive", (growth, Reason.of("error-unknown", text, steps=steps))
    if fit.ratio.p_positive >= DECISION:
        return "inconclusive", (
            growth,
            Reason.of(
                "zero-not-excluded",
                "a rate of zero cannot be excluded at the 1 % level (p = {p:.3g}, {clusters} {unit}); train more "
                "initial conditions",
                p=fit.ratio.p_positive,
                clusters=fit.ratio.clusters,
                unit=fit.unit,
            ),
        )
    tested = Reason.of("null-rejected", "{null} is rejected (p = {p:.3g})", null=NULLS[null], p=fit.p_null)
    return _persistence((growth, tested), epochs, unit)


def _persistence(reasons: tuple[Reason, ...], epochs: tuple[Epoch, ...], unit: str) -> Judgement:
    if any(epoch.silent for epoch in epochs):
        return "transient", (*reasons, does_not_persist(epochs))
    growing = [epoch for epoch in epochs if epoch.grows]
    where = ", ".join(str(epoch.start) for epoch in growing)
    if len(growing) >= EPOCHS:
        persists = Reason.of(
            "persistent",
            "twins grow from {starts} separate starts (steps {where}), at {rates} per {unit}, and there is no start "
            "without growth",
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
    """Reason that lists the starts without growth."""
    silent = ", ".join(f"{epoch.start} ({epoch.gain:.1f} e-folds)" for epoch in epochs if epoch.silent)
    return Reason.of(
        "not-persistent",
        "the sensitivity does not persist: of {starts} separate starts, those at step {silent} show no exponential "
        "growth of {needed:g} e-folds",
        starts=len(epochs),
        silent=silent,
        needed=FEWEST_EFOLDS,
    )


def _bounded(fit: TwinFit, rise: float) -> Judgement:
    unit, growth = fit.growth.time_unit, fit.growth
    rows = fit.usable
    begin, end = fit.spans.begin[rows], fit.spans.end[rows]
    length = float(np.median(end - begin))
    duration = float(np.median(growth.time[end] - growth.time[begin]))
    bounded = Reason.of(
        "bounded",
        "the distance rises at most {rise:.2f} e-folds above its start (mean) in {time:g} {unit}s",
        rise=rise,
        time=duration,
        unit=unit,
    )
    if fit.ratio.interval[1] < 0 and length >= FEWEST_STEPS:
        contracts = Reason.of(
            "contracts",
            "the distance decays: the {method} rate is {rate:.4g} per {unit}, and its whole interval lies below zero",
            method=growth.method,
            rate=fit.ratio.value,
            unit=unit,
        )
        return "regular", (bounded, contracts)
    if length < SHORTEST:
        text = "{steps:g} steps are too few to show the absence of growth ({needed} are needed); record longer"
        return "inconclusive", (bounded, Reason.of("too-few-steps", text, steps=length, needed=SHORTEST))
    largest = np.array([growth.scale[growth.group == label].max() for label in fit.curves.group[rows]])
    with np.errstate(divide="ignore"):
        room = float(np.median(np.log(largest) - fit.curves.values[rows, begin]))
    if room < FEWEST_EFOLDS:
        text = (
            "the perturbation is almost as large as the weights (room for {room:.1f} e-folds), so it cannot grow; use "
            "a smaller epsilon"
        )
        return "inconclusive", (bounded, Reason.of("no-room", text, room=room))
    ending = "there is no exponential regime in the recorded time"
    if np.isfinite(room):
        ending = f"with room for {room:.1f}, {ending}"
    return "regular", (bounded, Reason("no-exponential-regime", ending, {"room": room}))


def _too_little(fit: TwinFit, gain: float, steps: float, tested: tuple[Rise, str] | None) -> Judgement:
    unit = fit.growth.time_unit
    rows = fit.usable
    whole = fit.curves.values[rows, fit.spans.knee[rows]] - fit.curves.values[rows, fit.spans.begin[rows]]
    total = float(np.mean(whole))
    risen = float(np.median((fit.spans.knee - fit.spans.begin)[rows]))
    p_null, evidence, null = 1.0, 0.0, ""
    if tested is not None and total >= FEWEST_EFOLDS and risen >= SHAPE_STEPS:
        (p_null, evidence), null = tested[0](), tested[1]
    if evidence < 0 and p_null < DECISION:
        text = "the distance grows by {gain:.1f} e-folds, and {null} fits the growth better than an exponential "
        text += "(p = {p:.3g})"
        return "regular", (Reason.of("null-fits-better", text, gain=total, null=null, p=p_null),)
    if np.isfinite(fit.spans.level) and np.median((fit.spans.end - fit.spans.begin)[rows]) >= SHORTEST:
        way = "use a smaller epsilon, so that the growth has more room" if steps >= FEWEST_STEPS else (
            "the growth is too fast for the recorded steps, or not exponential; record every step and use a smaller "
            "epsilon"
        )  # fmt: skip
    else:
        way = f"record longer than {fit.growth.time[-1]:g} {unit}s"
    little = Reason.of(
        "too-little-growth",
        "there are only {gain:.1f} e-folds in {steps:g} steps (median) between the start and saturation; {needed:g} "
        "e-folds in {needed_steps} steps are needed; {way}",
        gain=gain,
        steps=steps,
        needed=FEWEST_EFOLDS,
        needed_steps=FEWEST_STEPS,
        way=way,
    )
    return "inconclusive", (little,)


def _not_exponential(growth: Reason, fit: TwinFit, steps: float, null: str) -> Judgement:
    p_null, evidence = fit.p_null, fit.evidence
    if not np.isfinite(p_null):
        text = "no curve has the four points that a test against {null} needs; record more often"
        return "inconclusive", (growth, Reason.of("too-few-points", text, null=null))
    if evidence < 0 and p_null > 1 - DECISION and steps < SHAPE_STEPS:
        text = (
            "{steps:g} fitted steps are too few to distinguish an exponential from {null} ({needed} are needed); use a "
            "smaller epsilon, so that the growth has more room"
        )
        return "inconclusive", (growth, Reason.of("too-few-steps", text, steps=steps, null=null, needed=SHAPE_STEPS))
    if evidence < 0 and p_null > 1 - DECISION:
        text = "{null} fits the growth better than an exponential (p = {p:.3g})"
        return "regular", (growth, Reason.of("null-fits-better", text, null=null, p=p_null))
    text = (
        "{null} fits the growth as well as an exponential (p = {p:.3g}); use more initial conditions or a smaller "
        "epsilon to distinguish them"
    )
    return "inconclusive", (growth, Reason.of("null-fits-as-well", text, null=null, p=p_null))


def _largest_rise(fit: TwinFit) -> Floats:
    """Largest rise of each usable curve above its first point, in e-folds."""
    index, rows = np.arange(fit.curves.values.shape[1]), fit.usable
    begin, end = fit.spans.begin[rows], fit.spans.end[rows]
    values = fit.curves.values[rows]
    inside = np.where((index >= begin[:, None]) & (index <= end[:, None]), values, -np.inf)
    return np.asarray(inside.max(axis=1) - values[np.arange(len(rows)), begin])


def _median_time(fit: TwinFit) -> float:
    return float(np.median(fit.duration[fit.fitted]))


def _nothing_to_fit(fit: TwinFit) -> Reason:
    total = len(fit.first)
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
        points=fit.spans.at_floor,
    )


def no_null(choice: str) -> Reason:
    """Reason of a verdict without a test."""
    return Reason("no-null", f"no null was requested, so the growth was not tested; use null={choice!r}")


def without_persistence(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """Remove reasons about persistence."""
    return tuple(reason for reason in reasons if reason.code not in PERSISTENCE)


def caveats(fit: TwinFit) -> tuple[Reason, ...]:
    """Warnings about the value."""
    warnings = []
    fitted = fit.fitted
    if not fit.settled and len(fitted):
        warnings.append(
            Reason(
                "rate-not-constant",
                "the growth rate is not constant over the fitted window (its early part differs at the 1 % level from "
                "every start of the window): the value is a mean over different rates, see `window_values`",
            )
        )
    if fit.unit == "blocks of time":
        warnings.append(
            Reason(
                "one-initial-condition",
                "there is one initial condition: the interval comes from blocks of time and does not cover other "
                "initial conditions",
            )
        )
    if fit.unit == "" and len(fitted):
        text = "there is one initial condition and the record is too short: the interval is unknown"
        warnings.append(Reason("interval-unknown", text))
    if fit.spans.at_floor:
        text = "{points} points at or below three times the rounding floor were not fitted"
        warnings.append(Reason.of("below-rounding-floor", text, points=fit.spans.at_floor))
    unused = len(fit.first) - len(fitted)
    if unused:
        text = "{unused} of {curves} curves have no points to fit between the common start and their end"
        warnings.append(Reason.of("unused-curves", text, unused=unused, curves=len(fit.first)))
    return tuple(warnings)
