"""Where training is fastest along a sweep, and whether that is the onset of chaos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trajtools.results.sweep import Sweep, SweepPoint
from trajtools.results.sweep_answers import Coincidence, Fastest, Onset
from trajtools.sweeps.curve import N_RESAMPLES, quantiles
from trajtools.sweeps.reading import select_threshold
from trajtools.types import Floats

NEAR = 1.25
FASTER = 0.9  # a control counts as faster below this share of the time at the minimum


def medians(points: Sequence[SweepPoint], row: int) -> tuple[Floats, list[Floats]]:
    """Training times at each x, the initial conditions of all runs there put together."""
    xs = sorted({p.x for p in points if p.times.shape[1]})
    return np.array(xs), [np.concatenate([p.times[row] for p in points if p.x == x]) for x in xs]


def median(times: Floats) -> float:
    """Median with the infinite times at the end; the lower of two middle values if the upper is infinite."""
    ordered = np.sort(times)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(low) if np.isinf(high) else float((low + high) / 2)


def fastest(sweep: Sweep, threshold: float | None, *, level: float, rng: Any) -> Fastest:
    """Find the minimum of the training time of a sweep over one hyper-parameter; see `Sweep.fastest`."""
    points = [p for p in sweep.points if not p.control]
    row = select_threshold(points, sweep.thresholds, threshold)
    x, times = medians(points, row)
    middle = np.array([median(t) for t in times])
    accuracy = sweep.thresholds[row]
    if not np.isfinite(middle).any():
        words = f"at no value do half of the initial conditions reach {accuracy:g}"
        nothing = (float("nan"), float("nan"))
        unit = sweep.time_unit
        return Fastest(
            float("nan"), nothing, float("inf"), nothing, accuracy, False, (words,), np.empty(0), unit, level
        )
    best = int(np.argmin(middle))
    draws = _draws(x, times, np.random.default_rng(rng))
    low, high = quantiles(draws, level)
    low, high = min(low, x[max(0, best - 1)]), max(high, x[min(len(x) - 1, best + 1)])
    near = x[middle <= NEAR * middle[best]]
    inside = 0 < best < len(x) - 1
    arrived = float(np.isfinite(times[best]).mean())
    reasons = [
        f"the median time to {accuracy:g} is {middle[best]:.4g} {sweep.time_unit}s at {x[best]:.4g}, where "
        f"{arrived:.0%} of {len(times[best])} initial conditions reach it"
    ]
    if not inside:
        reasons.append("the minimum lies at an end of the range: extend the sweep")
    if min(len(t) for t in times) < 5:
        reasons.append(f"as few as {min(len(t) for t in times)} initial conditions at a value: the interval is rough")
    span = (float(near[0]), float(near[-1]))
    interval = (float(low), float(high))
    found = (float(x[best]), interval, float(middle[best]), span, accuracy, inside, tuple(reasons), draws)
    return Fastest(*found, sweep.time_unit, level)


def _draws(x: Floats, times: list[Floats], rng: np.random.Generator) -> Floats:
    """The minimum of the median training time in resamplings of the initial conditions."""
    drawn = np.empty((N_RESAMPLES, len(x)))
    for k, values in enumerate(times):
        ordered = np.sort(values[rng.integers(0, len(values), size=(N_RESAMPLES, len(values)))], axis=1)
        low, high = ordered[:, (len(values) - 1) // 2], ordered[:, len(values) // 2]
        drawn[:, k] = np.where(np.isinf(high), low, (low + np.where(np.isinf(high), low, high)) / 2)
    return np.where(np.isfinite(drawn.min(axis=1)), x[np.argmin(drawn, axis=1)], np.nan)


def coincidence(sweep: Sweep, threshold: float | None, *, level: float, rng: Any) -> Coincidence:
    """Compare the minimum of the training time with the onset; see `Sweep.coincidence`."""
    random = np.random.default_rng(rng)
    begins, quickest = sweep.onset(level=level, rng=random), sweep.fastest(threshold, level=level, rng=random)
    control = _control(sweep, quickest)
    if not begins.found or not np.isfinite(quickest.value):
        missing = begins.reasons if not begins.found else quickest.reasons
        nothing = (float("nan"), float("nan"))
        return Coincidence(float("nan"), nothing, "inconclusive", (*missing, *control), begins, quickest)
    ratio = quickest.value / begins.value
    with np.errstate(invalid="ignore"):
        low, high = quantiles(random.permutation(quickest.draws) / begins.draws, level)
    low = min(low, quickest.interval[0] / begins.interval[1])
    high = max(high, quickest.interval[1] / begins.interval[0])
    verdict = "coincide" if low <= 1 <= high else "apart"
    if not quickest.inside:
        verdict = "inconclusive"
    words = (
        f"training is fastest at {ratio:.3g} times the onset [{low:.3g}, {high:.3g}]",
        *(quickest.reasons[1:] if not quickest.inside else ()),
        *control,
    )
    return Coincidence(ratio, (float(low), float(high)), verdict, words, begins, quickest)


def _control(sweep: Sweep, quickest: Fastest) -> tuple[str, ...]:
    """What the stable controls of equal step length say about the minimum."""
    controls = [p for p in sweep.points if p.control]
    if not controls:
        return ("no stable control in the sweep: whether chaos makes the minimum is not tested",)
    x, times = medians(controls, sweep.thresholds.index(quickest.threshold))
    beyond = x > quickest.value
    if not beyond.any() or not np.isfinite(quickest.time):
        return ("no control beyond the minimum",)
    middle = np.array([median(t) for t in times])[beyond]
    best = int(np.argmin(middle))
    if middle[best] < FASTER * quickest.time:
        return (
            f"the stable control of equal step length goes on to {middle[best]:.4g} {sweep.time_unit}s at "
            f"{x[beyond][best]:.4g}, faster than the minimum: instability cuts the speed-up off, it does not make it",
        )
    return (
        f"the stable control of equal step length is no faster beyond the minimum ({middle[best]:.4g} at best): the "
        "minimum is not explained by instability alone",
    )


def describe(onset: Onset, quickest: Fastest) -> str:
    """One line for people about where both lie."""
    begins = f"{onset.value:.4g} [{onset.interval[0]:.4g}, {onset.interval[1]:.4g}]" if onset.found else "not found"
    speed = f"{quickest.value:.4g} [{quickest.interval[0]:.4g}, {quickest.interval[1]:.4g}]"
    return f"onset {begins}, fastest {speed if np.isfinite(quickest.value) else 'not found'}"
