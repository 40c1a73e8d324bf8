"""From the curves to the number: the region, the rate, its interval, its null and the verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.exponent import Exponent
from trajtools.exponents.nulls import BASIN, optimizer_of_twins
from trajtools.exponents.verdict import Epoch, caveats, does_not_persist, judge, without_persistence
from trajtools.growth.caligiuri import PRODUCTION, caligiuri2023, caligiuri2023_production
from trajtools.growth.measured import Measured, against_shapes, measure, shape_of
from trajtools.growth.persistence import separate_starts
from trajtools.growth.published import danovski2024
from trajtools.reasons import Reason
from trajtools.results.divergence import Divergence
from trajtools.statistics import N_RESAMPLES, SATURATION_MARGIN
from trajtools.types import Floats

PROCEDURES = ("danovski2024", "caligiuri2023", PRODUCTION)
NULL_WORDS = {
    "power-law": "power law (d ~ (1 + t/tau)^alpha, alpha <= 3) or diffusion (d^2 = d0^2 + a t + b t^2)",
    BASIN: "twins in a quadratic basin under the same optimiser ({optimizer}; d^p = sum of w |m(t)|^p over its modes)",
}
NULLS = tuple(NULL_WORDS)


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
        Times since the perturbation between which the growth is measured, in the time unit of the divergence;
        ``"auto"`` chooses, and `settings` says what it chose.
    null : "power-law", "quadratic-basin" or None
        What the growth is tested against: power laws and diffusion, or what twins do in a quadratic basin under the
        optimiser of the run (`trajtools.exponents.nulls`). Without a null the verdict is ``"inconclusive"``.
    procedure : None, "danovski2024", "caligiuri2023" or "caligiuri2023-production"
        None: the procedure below. A name: a published procedure, see `trajtools.growth.published` (twins) and
        `trajtools.growth.caligiuri` (blocks of a temporal network).
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
    if procedure == "caligiuri2023":
        return caligiuri2023(growth, level=level)
    if procedure == PRODUCTION:
        return caligiuri2023_production(growth, level=level)
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


def _of_growing(growth: Divergence, epochs: tuple[Epoch, ...], region: Any, **options: Any) -> Exponent:
    """Fit only the perturbations that grow, and say that the others do not: growth that ends is a transient."""
    kept = np.zeros(len(growth.start), dtype=bool)
    for epoch in epochs:
        if not epoch.silent:
            kept |= (growth.start >= epoch.start) & (growth.start < epoch.early)
    parts = {name: getattr(growth, name)[kept] for name in ("distances", "group", "start", "floor", "scale")}
    part = replace(growth, **parts, n_references=len(np.unique(growth.group[kept])))
    found = fit(part, region, **options)
    settings = found.settings | {
        "starts": [epoch.start for epoch in epochs],
        "start_values": [epoch.value for epoch in epochs],
        "n_curves_of_other_starts": int(np.sum(~kept)),
    }
    verdict = "transient" if found.verdict == "chaotic" else found.verdict
    reasons = (*without_persistence(found.reasons), does_not_persist(epochs))
    return replace(found, verdict=verdict, reasons=reasons, settings=settings, curve=growth)


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
    return NULL_WORDS[null].format(optimizer=optimizer_of_twins(growth).words if null == BASIN else "")


def _settings(
    found: Measured, epochs: tuple[Epoch, ...], *, region: Any, null: str | None, level: float, rng: Any
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
