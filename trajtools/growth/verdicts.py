"""The verdict on a measured growth, in sentences with numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trajtools.growth.measured import Measured
from trajtools.growth.persistence import EPOCHS, FEWEST_EFOLDS, Epoch, does_not_persist
from trajtools.results.curves import Floats
from trajtools.significance import DECISION
from trajtools.surrogates import BASIN

BOUNDED = 1.0  # e-folds: distances that never rise further than this stay near their start
SHORTEST = 20  # states that a record must have before "nothing grows" says something
FEWEST_STEPS = 3  # fitted steps: a line through fewer shows no shape
NULLS = {"power-law": "a power law or diffusion", BASIN: "a quadratic basin under the same optimiser"}
SHAPE_STEPS = 10  # fitted steps that a power law must describe better before the growth counts as one


Judgement = tuple[str, tuple[str, ...]]
Rise = Callable[[], tuple[float, float]]


def judge(found: Measured, epochs: tuple[Epoch, ...], rise: Rise, null: str | None) -> Judgement:
    """Return the verdict and its reasons.

    Parameters
    ----------
    found : Measured
        What was fitted.
    epochs : tuple of Epoch
        Separate times of perturbation.
    rise : callable
        Gives the p-value of the null being the better description of the whole rise up to the knee, and the mean
        evidence against it; only called where it is needed.
    null : str or None
        The null that was asked for.

    Returns
    -------
    verdict : str
        As in `Exponent`.
    reasons : tuple of str
        Sentences.
    """
    unit = found.growth.time_unit
    if not len(found.usable):
        return "inconclusive", _nothing_to_fit(found)
    noise = found.growth.settings.get("noise")
    if noise is not None and "independent" in str(noise):
        return "inconclusive", (
            "the twins saw batches of their own, so they separate by the noise whether or not the dynamics are "
            "sensitive; "
            "train them on common batches",
        )
    tallest = float(np.mean(_tallest(found)))
    if tallest < BOUNDED:
        return _bounded(found, tallest)
    some = found.some
    gain = float(np.mean(found.gain[some])) if len(some) else 0.0
    steps = float(np.median((found.last - found.first)[some])) if len(some) else 0.0
    if gain < FEWEST_EFOLDS or steps < FEWEST_STEPS:
        return _too_little(found, gain, steps, (rise, NULLS[null]) if null is not None else None)
    grown = (
        f"the distance grows by {gain:.1f} e-folds in {_median_time(found):g} {unit}s (median), "
        f"{found.ratio.value:.4g} per {unit}, before it comes within a factor of 100 of saturation"
        if np.isfinite(found.spans.level)
        else f"the distance grows by {gain:.1f} e-folds in {_median_time(found):g} {unit}s (median), "
        f"{found.ratio.value:.4g} per {unit}, and has not saturated at the end of the record"
    )
    if null is None:
        return "inconclusive", (grown, "no null was asked for, so the growth was not tested; use null='power-law'")
    if not found.p_null < DECISION:
        return _not_exponential(grown, found, steps, NULLS[null])
    if not np.isfinite(found.ratio.p_positive):
        return "inconclusive", (
            grown,
            f"its error is unknown: there is one initial condition, and {steps:g} fitted steps are too few to cut it "
            "into "
            "independent stretches; train more initial conditions",
        )
    if found.ratio.p_positive >= DECISION:
        return "inconclusive", (
            grown,
            f"a rate of zero cannot be excluded at the 1 % level (p = {found.ratio.p_positive:.3g}, "
            f"{found.ratio.clusters} {found.unit}); train more initial conditions",
        )
    tested = f"{NULLS[null]} does not describe it (p = {found.p_null:.3g})"
    return _persistence((grown, tested), epochs, unit)


def _persistence(reasons: tuple[str, ...], epochs: tuple[Epoch, ...], unit: str) -> Judgement:
    if any(epoch.silent for epoch in epochs):
        return "transient", (*reasons, does_not_persist(epochs))
    growing = [epoch for epoch in epochs if epoch.grows]
    where = ", ".join(str(epoch.start) for epoch in growing)
    if len(growing) >= EPOCHS:
        rates = ", ".join(f"{epoch.value:.3g}" for epoch in growing)
        return "chaotic", (
            *reasons,
            f"perturbations introduced at {len(growing)} separate times (steps {where}) grow, at {rates} per {unit}, "
            "and at "
            "no time does one fail to grow",
        )
    times = f"{len(growing)} separate time{'s' * (len(growing) != 1)}" + (f" (step {where})" if growing else "")
    return "transient", (
        *reasons,
        f"exponential growth is shown for perturbations introduced at {times}, so it is not shown that the sensitivity "
        f"persists; perturb at {EPOCHS} or more, each after the growth of the one before has ended",
    )


def _tallest(found: Measured) -> Floats:
    """Highest rise of each usable curve above its first point, in e-folds."""
    index, rows = np.arange(found.curves.values.shape[1]), found.usable
    begin, end = found.spans.begin[rows], found.spans.end[rows]
    values = found.curves.values[rows]
    inside = np.where((index >= begin[:, None]) & (index <= end[:, None]), values, -np.inf)
    return np.asarray(inside.max(axis=1) - values[np.arange(len(rows)), begin])


def _median_time(found: Measured) -> float:
    return float(np.median(found.duration[found.some]))


def _nothing_to_fit(found: Measured) -> tuple[str, ...]:
    total = len(found.first)
    silent = int(found.growth.settings.get("n_unperturbed", 0))
    if silent == total:
        return (
            f"none of the {total} twins ever differs from its reference: there was no perturbation, or it was rounded "
            "away; "
            "perturb with an epsilon that the dtype holds",
        )
    return (
        f"no curve has two points above the rounding floor ({found.spans.at_floor} points lie at or below it); use a "
        "larger epsilon or a wider dtype",
    )


def _bounded(found: Measured, tallest: float) -> Judgement:
    unit, growth = found.growth.time_unit, found.growth
    rows = found.usable
    begin, end = found.spans.begin[rows], found.spans.end[rows]
    length = float(np.median(end - begin))
    lasted = float(np.median(growth.time[end] - growth.time[begin]))
    stays = f"the distance rises at most {tallest:.2f} e-folds above its start (mean) in {lasted:g} {unit}s"
    if found.ratio.interval[1] < 0 and length >= FEWEST_STEPS:
        return "regular", (
            stays,
            f"it shrinks: the {found.growth.method} rate is {found.ratio.value:.4g} per {unit}, below zero in its "
            "whole interval",
        )
    if length < SHORTEST:
        return "inconclusive", (
            stays,
            f"{length:g} steps are too few to say that nothing grows ({SHORTEST} are needed); record longer",
        )
    largest = np.array([growth.scale[growth.group == label].max() for label in found.curves.group[rows]])
    with np.errstate(divide="ignore"):
        room = float(np.median(np.log(largest) - found.curves.values[rows, begin]))
    if room < FEWEST_EFOLDS:
        return "inconclusive", (
            stays,
            f"the perturbation is as large as the weights (room for {room:.1f} e-folds), so it could not have grown; "
            "use a smaller epsilon",
        )
    words = f", with room for {room:.1f}" if np.isfinite(room) else ""
    return "regular", (f"{stays}{words}: there is no exponential regime in the recorded time",)


def _too_little(found: Measured, gain: float, steps: float, tested: tuple[Rise, str] | None) -> Judgement:
    unit = found.growth.time_unit
    rows = found.usable
    whole = found.curves.values[rows, found.spans.knee[rows]] - found.curves.values[rows, found.spans.begin[rows]]
    total = float(np.mean(whole))
    risen = float(np.median((found.spans.knee - found.spans.begin)[rows]))
    p_null, evidence, words = 1.0, 0.0, ""
    if tested is not None and total >= FEWEST_EFOLDS and risen >= SHAPE_STEPS:
        (p_null, evidence), words = tested[0](), tested[1]
    if evidence < 0 and p_null < DECISION:
        return "regular", (
            f"the distance grows by {total:.1f} e-folds, and {words} describes the growth better than an exponential "
            f"does (p = {p_null:.3g})",
        )
    seen = f"only {gain:.1f} e-folds in {steps:g} steps (median) lie between the start and saturation"
    if np.isfinite(found.spans.level) and np.median((found.spans.end - found.spans.begin)[rows]) >= SHORTEST:
        way = "use a smaller epsilon, so that the growth has more room" if steps >= FEWEST_STEPS else (
            "the separation is faster than the recording, or it is not exponential; record every step and use a "
            "smaller epsilon"
        )  # fmt: skip
    else:
        way = f"record longer than {found.growth.time[-1]:g} {unit}s"
    return "inconclusive", (f"{seen}, {FEWEST_EFOLDS:g} e-folds in {FEWEST_STEPS} steps are needed; {way}",)


def _not_exponential(grown: str, found: Measured, steps: float, words: str) -> Judgement:
    p_null, evidence = found.p_null, found.evidence
    if not np.isfinite(p_null):
        return "inconclusive", (
            grown,
            f"no curve has the four points that a comparison with {words} needs; record more often",
        )
    if evidence < 0 and p_null > 1 - DECISION and steps < SHAPE_STEPS:
        return "inconclusive", (
            grown,
            f"{steps:g} fitted steps are too few to tell an exponential from {words} ({SHAPE_STEPS} are needed); "
            "use a smaller epsilon, so that the growth has more room",
        )
    if evidence < 0 and p_null > 1 - DECISION:
        return "regular", (
            grown,
            f"{words} describes it better than an exponential does (p = {p_null:.3g})",
        )
    return "inconclusive", (
        grown,
        f"{words} describes it as well as an exponential does (p = {p_null:.3g}); more initial conditions or a smaller "
        "epsilon would tell them apart",
    )


def caveats(found: Measured) -> tuple[str, ...]:
    """Return what the reader should know before believing the number.

    Parameters
    ----------
    found : Measured
        What was fitted.

    Returns
    -------
    tuple of str
        Sentences.
    """
    words = []
    some = found.some
    if not found.settled and len(some):
        words.append(
            "the growth rate is not constant over the fitted window (its early part differs at the 1 % level wherever "
            "the "
            "window starts): the value is a mean over unequal stretches, see `window_values`"
        )
    if found.unit == "blocks of time":
        words.append(
            "there is one initial condition: the interval comes from blocks of time and says nothing about other "
            "initial conditions"
        )
    if found.unit == "" and len(some):
        words.append("there is one initial condition and too short a record: the interval is unknown")
    if found.spans.at_floor:
        words.append(f"{found.spans.at_floor} points at or below three times the rounding floor were not fitted")
    unused = len(found.first) - len(some)
    if unused:
        words.append(
            f"{unused} of {len(found.first)} curves have no point to fit between the common start and their end"
        )
    return tuple(words)
