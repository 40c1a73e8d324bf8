"""The verdict on a measured growth, in sentences with numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.significance import DECISION

if TYPE_CHECKING:
    from trajtools.estimators.growth import Measured

FEWEST_EFOLDS = 3.0  # of fitted growth, before anything is called exponential
BOUNDED = 1.0  # e-folds: distances that never rise further than this stay near their start
SHORTEST = 20  # states that a record must have before "nothing grows" says something
FEWEST_STEPS = 3  # fitted steps: a line through fewer shows no shape
EPOCHS = 3  # separate times of perturbation that persistence asks for


@dataclass(frozen=True, eq=False)
class Epoch:
    """Perturbations introduced at about one time: before those of the epoch before had run their course.

    Attributes
    ----------
    start : int
        Step of the first of them.
    value : float
        Rate of its curves.
    gain : float
        Mean fitted growth, in e-folds.
    p_positive : float
        One-sided p-value of "the rate is not positive"; NaN where unknown.
    """

    start: int
    value: float
    gain: float
    p_positive: float

    @property
    def grows(self) -> bool:
        """Whether this epoch alone shows growth."""
        return self.gain >= FEWEST_EFOLDS and self.p_positive < DECISION


Judgement = tuple[str, tuple[str, ...]]


def judge(found: Measured, epochs: tuple[Epoch, ...], rise: tuple[float, float], null: str | None) -> Judgement:
    """Return the verdict and its reasons.

    Parameters
    ----------
    found : Measured
        What was fitted.
    epochs : tuple of Epoch
        Separate times of perturbation.
    rise : (float, float)
        p-value and mean evidence against the null over the whole rise up to the knee.
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
    if not np.any(found.spans.end > found.spans.begin):
        return "inconclusive", _nothing_to_fit(found)
    noise = found.growth.settings.get("noise")
    if noise is not None and "independent" in str(noise):
        return "inconclusive", (
            "the twins saw batches of their own, so they separate by the noise whether or not the dynamics are sensitive; "
            "train them on common batches",
        )
    tallest = float(np.mean(_tallest(found)))
    if tallest < BOUNDED:
        return _bounded(found, tallest)
    some = found.last > found.first
    gain = float(np.mean(found.gain[some])) if some.any() else 0.0
    steps = float(np.median((found.last - found.first)[some])) if some.any() else 0.0
    if gain < FEWEST_EFOLDS or steps < FEWEST_STEPS:
        return _too_little(found, gain, steps, rise)
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
        return _not_exponential(grown, found.p_null, found.evidence)
    if not np.isfinite(found.ratio.p_positive):
        return "inconclusive", (
            grown,
            f"its error is unknown: there is one initial condition, and {steps:g} fitted steps are too few to cut it into "
            "independent stretches; train more initial conditions",
        )
    if found.ratio.p_positive >= DECISION:
        return "inconclusive", (
            grown,
            f"a rate of zero cannot be excluded at the 1 % level (p = {found.ratio.p_positive:.3g}, "
            f"{found.ratio.clusters} {found.unit}); train more initial conditions",
        )
    tested = f"a power law or diffusion does not describe it (p = {found.p_null:.3g})"
    return _persistence((grown, tested), epochs, unit)


def _persistence(reasons: tuple[str, ...], epochs: tuple[Epoch, ...], unit: str) -> Judgement:
    growing = [epoch for epoch in epochs if epoch.grows]
    where = ", ".join(str(epoch.start) for epoch in epochs)
    if len(epochs) >= EPOCHS and len(growing) == len(epochs):
        rates = ", ".join(f"{epoch.value:.3g}" for epoch in epochs)
        return "chaotic", (
            *reasons,
            f"perturbations introduced at {len(epochs)} separate times (steps {where}) all grow, at {rates} per {unit}",
        )
    if len(epochs) < EPOCHS:
        return "transient", (
            *reasons,
            f"perturbations were introduced at {len(epochs)} separate time{'s' * (len(epochs) != 1)} (step {where}), "
            f"so it is not shown that the sensitivity persists; perturb at {EPOCHS} or more, each after the growth of the "
            "one before has ended",
        )
    silent = ", ".join(f"{epoch.start} ({epoch.gain:.1f} e-folds)" for epoch in epochs if not epoch.grows)
    return "transient", (
        *reasons,
        f"of perturbations introduced at {len(epochs)} separate times, those at step {silent} show no exponential growth of "
        f"{FEWEST_EFOLDS:g} e-folds: the sensitivity does not persist",
    )


def _tallest(found: Measured) -> Any:
    """Highest rise of each usable curve above its first point, in e-folds."""
    index = np.arange(found.curves.shape[1])
    begin, end = found.spans.begin[:, None], found.spans.end[:, None]
    inside = np.where((index >= begin) & (index <= end), found.curves, -np.inf)
    usable = found.spans.end > found.spans.begin
    first = found.curves[np.arange(len(found.curves)), found.spans.begin]
    return (inside.max(axis=1) - first)[usable]


def _median_time(found: Measured) -> float:
    return float(np.median(found.duration[found.last > found.first]))


def _nothing_to_fit(found: Measured) -> tuple[str, ...]:
    total = len(found.curves)
    silent = int(found.growth.settings.get("n_unperturbed", 0))
    if silent == total:
        return (
            f"none of the {total} twins ever differs from its reference: there was no perturbation, or it was rounded away; "
            "perturb with an epsilon that the dtype holds",
        )
    return (
        f"no curve has two points above the rounding floor ({found.spans.at_floor} points lie at or below it); use a "
        "larger epsilon or a wider dtype",
    )


def _bounded(found: Measured, tallest: float) -> Judgement:
    unit, growth = found.growth.time_unit, found.growth
    usable = found.spans.end > found.spans.begin
    length = float(np.median((found.spans.end - found.spans.begin)[usable]))
    lasted = float(np.median((growth.time[found.spans.end] - growth.time[found.spans.begin])[usable]))
    stays = f"the distance rises at most {tallest:.2f} e-folds above its start (mean) in {lasted:g} {unit}s"
    if found.ratio.interval[1] < 0 and length >= FEWEST_STEPS:
        return "regular", (
            stays,
            f"it shrinks: the {found.growth.method} rate is {found.ratio.value:.4g} per {unit}, below zero in its whole interval",
        )
    if length < SHORTEST:
        return "inconclusive", (
            stays,
            f"{length:g} steps are too few to say that nothing grows ({SHORTEST} are needed); record longer",
        )
    first = found.curves[np.arange(len(found.curves)), found.spans.begin]
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.log(np.array([np.nanmax(growth.scale[growth.group == g], initial=np.nan) for g in found.group]))
    room = float(np.median((scale - first)[usable])) if np.isfinite(scale[usable]).all() else float("nan")
    if room < FEWEST_EFOLDS:
        return "inconclusive", (
            stays,
            f"the perturbation is as large as the weights (room for {room:.1f} e-folds), so it could not have grown; "
            "use a smaller epsilon",
        )
    words = f", with room for {room:.1f}" if np.isfinite(room) else ""
    return "regular", (f"{stays}{words}: there is no exponential regime in the recorded time",)


def _too_little(found: Measured, gain: float, steps: float, rise: tuple[float, float]) -> Judgement:
    unit = found.growth.time_unit
    usable = found.spans.end > found.spans.begin
    rows = np.flatnonzero(usable)
    whole = found.curves[rows, found.spans.knee[rows]] - found.curves[rows, found.spans.begin[rows]]
    total = float(np.mean(whole))
    if total >= FEWEST_EFOLDS and rise[1] < 0 and rise[0] < DECISION:
        return "regular", (
            f"the distance grows by {total:.1f} e-folds, and a power law or diffusion describes the growth better than an "
            f"exponential does (p = {rise[0]:.3g})",
        )
    seen = f"only {gain:.1f} e-folds in {steps:g} steps (median) lie between the start and saturation"
    if np.isfinite(found.spans.level):
        way = "use a smaller epsilon, so that the growth has more room" if steps >= FEWEST_STEPS else (
            "the separation is faster than the recording, or it is not exponential; record every step and use a smaller epsilon"
        )  # fmt: skip
    else:
        way = f"record longer than {found.growth.time[-1]:g} {unit}s"
    return "inconclusive", (f"{seen}, {FEWEST_EFOLDS:g} e-folds in {FEWEST_STEPS} steps are needed; {way}",)


def _not_exponential(grown: str, p_null: float, evidence: float) -> Judgement:
    if not np.isfinite(p_null):
        return "inconclusive", (
            grown,
            "no curve has the four points that a comparison with a power law needs; record more often",
        )
    if evidence < 0 and p_null > 1 - DECISION:
        return "regular", (
            grown,
            f"a power law or diffusion describes it better than an exponential does (p = {p_null:.3g})",
        )
    return "inconclusive", (
        grown,
        f"a power law or diffusion describes it as well as an exponential does (p = {p_null:.3g}); more initial conditions or "
        "a smaller epsilon would tell them apart",
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
    some = found.last > found.first
    if not found.settled and some.any():
        words.append(
            "the growth rate is not constant over the fitted window (its early part differs at the 1 % level wherever the "
            "window starts): the value is a mean over unequal stretches, see `window_values`"
        )
    if found.unit == "blocks of time":
        words.append(
            "there is one initial condition: the interval comes from blocks of time and says nothing about other initial conditions"
        )
    if found.unit == "" and some.any():
        words.append("there is one initial condition and too short a record: the interval is unknown")
    if found.spans.at_floor:
        words.append(f"{found.spans.at_floor} points at or below three times the rounding floor were not fitted")
    unused = len(found.curves) - int(some.sum())
    if unused:
        words.append(
            f"{unused} of {len(found.curves)} curves have no point to fit between the common start and their end"
        )
    return tuple(words)
