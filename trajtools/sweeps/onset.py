"""Where sensitive dependence begins along a sweep."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.errors import DataError
from trajtools.results.sweep import Sweep
from trajtools.results.sweep_answers import Onset
from trajtools.sweeps.curve import Curve, curve_of, quantiles
from trajtools.types import Floats

# Below the onset gradient descent grows slowly along -h_min; three times the largest of these exponents is well past
# their scatter and still far below any instability.
TIMES_STABLE = 3.0
ERRORS = 4.0  # standard errors: beyond them a point is as sure as it can be
SHARE = 0.9  # of the resamplings must hold an onset


def onset(sweep: Sweep, *, above: float | str, level: float, rng: Any) -> Onset:
    """Find the onset of a sweep over one hyper-parameter; see `Sweep.onset`."""
    return onset_of(curve_of(sweep.points), above=above, level=level, rng=rng)


def onset_of(curve: Curve, *, above: float | str = "auto", level: float = 0.95, rng: Any = 0) -> Onset:
    """Find the onset along a curve of exponents."""
    if isinstance(above, str) and above != "auto":
        raise DataError(f"above={above!r}: an exponent, or 'auto'")
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    settings = {"above": above, "level": level, "points": len(curve.x), "times_stable": TIMES_STABLE}
    if len(curve.x) < 2:
        words = f"{len(curve.x)} values of the hyper-parameter have an exponent; an onset needs two at least"
        return _none(curve, (words,), float("nan"), level, settings)
    limit, stable = _limits(curve, above)
    scale = np.log(curve.x) if (curve.x > 0).all() else curve.x
    cap = np.maximum(np.abs(limit), ERRORS * np.where(np.isfinite(curve.error), curve.error, 0.0))
    cap = np.where(cap > 0, cap, np.inf)
    at, place = _crossing(scale, curve.value - limit, cap)
    if at <= 0:
        return _none(curve, (_why_none(curve, limit, at),), float(limit[-1]), level, settings | {"stable": stable})
    drawn = curve.draws(np.random.default_rng(rng)) - limit
    splits = [_crossing(scale, row, cap) for row in drawn]
    draws = np.array([crossing for _, crossing in splits])
    back = np.exp if (curve.x > 0).all() else np.asarray
    # Where the exponent bends, the line between two points is off by as much as they are apart: whole cells count.
    inside = np.array([k for k, crossing in splits if np.isfinite(crossing)] or [at])
    low, high = quantiles(curve.x[inside - 1], level)[0], quantiles(curve.x[inside], level)[1]
    low, high = min(low, curve.x[at - 1]), max(high, curve.x[at])
    value = float(back(place))
    share = float(np.isfinite(draws).mean())
    reasons = [
        f"the exponent passes {limit[at]:.3g} between {curve.x[at - 1]:.4g} ({curve.value[at - 1]:.3g}) and "
        f"{curve.x[at]:.4g} ({curve.value[at]:.3g})"
    ]
    stray = int(np.sum((curve.value > limit) != (np.arange(len(curve.x)) >= at)))
    if stray:
        reasons.append(f"{stray} of {len(curve.x)} values lie on the other side of the limit than their neighbours")
    if share < SHARE:
        reasons.append(f"only {share:.0%} of the resamplings hold an onset: the noise of the exponents hides it")
    if not np.isfinite(curve.error).all():
        reasons.append("some exponents have no interval; they were not resampled")
    return Onset(
        value=value,
        interval=(float(low), float(high)),
        bracket=_bracket(curve),
        above=float(np.interp(place, scale, limit)),
        found=share >= SHARE,
        reasons=tuple(reasons),
        draws=np.asarray(back(draws)),
        level=level,
        settings=settings | {"stable": stable, "share": share},
    )


def _limits(curve: Curve, above: float | str) -> tuple[Floats, float]:
    """The exponent that counts as sensitive at each x, and the largest stable one before the first sensitive."""
    if not isinstance(above, str):
        return np.full(len(curve.x), float(above)), float("nan")
    first = int(np.argmax(curve.sensitive)) if curve.sensitive.any() else len(curve.x)
    regular = np.array([v == "regular" for v in curve.verdict], dtype=bool)
    regular[first:] = False
    stable = float(curve.value[regular].max(initial=0.0))
    known = np.isfinite(curve.duration) & (curve.duration > 0)
    e_fold = np.where(known, 1.0 / np.where(known, curve.duration, 1.0), 0.0)
    return np.maximum(TIMES_STABLE * stable, e_fold), stable


def _crossing(scale: Floats, excess: Floats, cap: Floats) -> tuple[int, float]:
    """Split with the fewest points on the wrong side, and where the line between its two neighbours crosses."""
    # A point counts by how far it is from its limit, up to a cap, so that neither noise nor an outlier moves the split.
    weight = np.clip(excess, -cap, cap)
    wrong_below = np.concatenate([[0.0], np.cumsum(np.maximum(weight, 0.0))])
    wrong_above = np.concatenate([np.cumsum(np.maximum(-weight, 0.0)[::-1])[::-1], [0.0]])
    at = int(np.argmin(wrong_below + wrong_above))
    if at in (0, len(excess)):
        return (0 if at == 0 else -1), float("nan")
    share = -excess[at - 1] / (excess[at] - excess[at - 1])
    return at, float(scale[at - 1] + share * (scale[at] - scale[at - 1]))


def _bracket(curve: Curve) -> tuple[float, float]:
    """Largest x up to which every verdict is regular, smallest that is sensitive."""
    regular = np.array([v == "regular" for v in curve.verdict])
    leading = int(np.argmin(regular)) if not regular.all() else len(regular)
    sensitive = np.flatnonzero(curve.sensitive)
    low = float(curve.x[leading - 1]) if leading else float("nan")
    return low, float(curve.x[sensitive[0]]) if len(sensitive) else float("nan")


def _why_none(curve: Curve, limit: Floats, at: int) -> str:
    span = f"{curve.x[0]:.4g} to {curve.x[-1]:.4g}"
    if at == 0:
        return f"the exponent is above {limit[0]:.3g} from the smallest value on: no onset in {span}; go lower"
    over = np.flatnonzero(curve.value > limit)
    single = f" but for {len(over)} values without neighbours above it" if len(over) else ""
    return f"the exponent is below {limit[-1]:.3g} up to the largest value{single}: no onset in {span}; go higher"


def _none(curve: Curve, reasons: tuple[str, ...], above: float, level: float, settings: dict[str, Any]) -> Onset:
    nothing = (float("nan"), float("nan"))
    bracket = _bracket(curve) if len(curve.x) else nothing
    return Onset(float("nan"), nothing, bracket, above, False, reasons, np.empty(0), level, settings)
