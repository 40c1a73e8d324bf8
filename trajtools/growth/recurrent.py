"""From the curve of neighbours of one trajectory to its exponent, with an interval that doubts the window, too."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.exponent import Exponent
from trajtools.growth.plateau import FEWEST_EFOLDS, FEWEST_STEPS, Plateau, block_curves, find_plateau, standard_error
from trajtools.reasons import Reason
from trajtools.results.divergence import Divergence
from trajtools.types import Floats

METHODS = ("rosenstein", "kantz", "wolf", "hybrid")
FOLLOWED_TO_SATURATION = ("rosenstein", "kantz")
SHARED = 2.0  # a pair can be counted from both of its ends, so the blocks hold half as many independent pairs
FEWEST_BLOCKS = 5  # of reference states: the scatter of fewer says little
BOUNDED = 1.0  # e-folds: neighbours that never part further than this stay neighbours
JUMP = 0.5  # of the whole rise in the first step: the separation is not resolved


def fit_recurrent(
    growth: Divergence,
    region: str | tuple[float, float] = "auto",
    *,
    level: float = 0.95,
    rng: Any = 0,
) -> Exponent:
    r"""Fit the exponential regime of a curve of neighbours.

    Parameters
    ----------
    growth : Divergence
        Of `trajtools.rosenstein`, `kantz`, `wolf` or `hybrid`.
    region : "auto" or (float, float)
        Times between which the growth is measured, in the time unit; ``"auto"`` takes the plateau of the local slopes.
    level : float
        Confidence level of the interval.
    rng : int, numpy.random.Generator or None
        Not used: nothing is drawn. It stands here for all fits to be called alike.

    Returns
    -------
    Exponent
        The verdict is ``"regular"`` where neighbours stay neighbours, else ``"inconclusive"``: whether growth is more
        than noise shows takes the data, see `trajtools.lyapunov`.

    Raises
    ------
    DataError
        If the region or the level makes no sense.

    Notes
    -----
    The value is the slope of the mean curve in the window that `trajtools.growth.plateau.find_plateau` chooses. The
    interval is Student's with the error

    .. math:: e^2 = 2 c\, s^2 + (b/2)^2 + u^2 + (n \lambda)^2

    where s is the standard error from blocks of reference states, 2 because pairs may be counted from both ends, c
    corrects for the correlation of neighbouring blocks, b is half the range of the slopes in the thirds of the
    window, u their standard deviation over the windows that are nearly as good, and n the part that finite
    distances may take (see `Plateau`). The latter three do not shrink with the number of references.
    """
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    saturates = growth.method in FOLLOWED_TO_SATURATION
    found = find_plateau(growth, _span(growth, region), saturates=saturates)
    rows, weight = block_curves(growth)
    error, correlation = _error(found, weight)
    degrees = max(int(np.isfinite(found.block_slopes).sum()) - 1, 1)
    nan = float("nan")
    interval, p_positive = (nan, nan), nan
    if np.isfinite(error):
        from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats takes half a second to import

        half = float(stdtrit(degrees, 0.5 + level / 2)) * error
        interval = (found.slope - half, found.slope + half)
        p_positive = float(stdtr(degrees, -found.slope / max(error, 1e-300)))
    verdict, reasons = _judge(growth, found, p_positive)
    window = (float(growth.time[found.start]), float(growth.time[found.stop])) if found.stop else (nan, nan)
    return Exponent(
        value=found.slope,
        interval=interval,
        level=level,
        p_value=nan,
        null="",
        n_used=int(np.isfinite(found.block_slopes).sum()),
        n_total=len(rows),
        verdict=verdict,
        reasons=reasons,
        window=window,
        window_values=found.slopes,
        values=found.block_slopes,
        intercept=found.intercept,
        method=growth.method,
        unit=f"1/{growth.time_unit}",
        settings={
            **{name: value for name, value in growth.settings.items() if name != "block_terms"},
            "region": region,
            "level": level,
            "null": None,
            "procedure": None,
            "rng": int(rng) if isinstance(rng, (int, np.integer)) else str(rng),
            "counted": "blocks of reference states",
            "stop": "plateau of local slopes",
            "saturation_level": found.level,
            "rise": found.rise,
            "gain": found.gain,
            "fewest_efolds": FEWEST_EFOLDS,
            "fewest_steps": FEWEST_STEPS,
            "standard_error": error,
            "error_of_blocks": float(standard_error(found.block_slopes[:, None], weight)[0]) if found.stop else nan,
            "block_correlation": correlation,
            "bend": found.bend,
            "window_spread": found.spread,
            "finite_distance_share": found.near,
            "p_zero": p_positive,
            "half_values": _halves(found, weight),
        },
        warnings=growth.warnings,
        curve=growth,
    )


def _span(growth: Divergence, region: str | tuple[float, float]) -> tuple[int, int] | None:
    if isinstance(region, str):
        if region != "auto":
            raise UnknownNameError(f"region is 'auto' or two times (start, stop), got {region!r}")
        return None
    try:
        begin, end = (float(edge) for edge in region)
    except (TypeError, ValueError):
        raise DataError(f"region is 'auto' or two times (start, stop), got {region!r}") from None
    inside = np.flatnonzero((growth.time >= begin) & (growth.time <= end) & np.isfinite(growth.log_distance))
    if not begin < end or len(inside) < 2:
        raise DataError(
            f"region ({begin:g}, {end:g}) holds {len(inside)} points of a curve that goes to {growth.time[-1]:g} "
            f"{growth.time_unit}s; a line takes 2"
        )
    return int(inside[0]), int(inside[-1])


def _error(found: Plateau, weight: Floats) -> tuple[float, float]:
    """Standard error of the value, and the correlation factor of neighbouring blocks."""
    if not found.stop or np.isfinite(found.block_slopes).sum() < FEWEST_BLOCKS:
        return float("nan"), float("nan")
    blocks = found.block_slopes[np.isfinite(found.block_slopes)]
    deviation = blocks - blocks.mean()
    total = float(np.sum(deviation**2))
    factor = 1.0
    for lag in range(1, len(blocks) // 4 + 1):
        correlation = float(np.sum(deviation[lag:] * deviation[:-lag])) / total if total > 0 else 0.0
        if correlation <= 0:
            break
        factor += 2 * correlation
    sampled = float(standard_error(found.block_slopes[:, None], weight)[0])
    square = SHARED * factor * sampled**2 + (found.bend / 2) ** 2 + found.spread**2 + (found.near * found.slope) ** 2
    return float(np.sqrt(square)), factor


def _halves(found: Plateau, weight: Floats) -> list[float]:
    """Slope from the first and from the second half of the reference states: whether it settles with T."""
    halves = []
    known = np.isfinite(found.block_slopes)
    for part in np.array_split(np.flatnonzero(known), 2) if known.sum() > 1 else ():
        halves.append(float(np.average(found.block_slopes[part], weights=weight[part])))
    return halves


def _judge(growth: Divergence, found: Plateau, p_positive: float) -> tuple[str, tuple[Reason, ...]]:
    unit, lasted = growth.time_unit, float(growth.time[-1])
    saturates = growth.method in FOLLOWED_TO_SATURATION
    if saturates and found.rise < BOUNDED:
        stay = Reason.of(
            "bounded",
            "neighbours part by at most {rise:.2f} e-folds in {time:g} {unit}s: they stay neighbours, there is no "
            "exponential regime",
            rise=found.rise,
            time=lasted,
            unit=unit,
        )
        return "regular", (stay,)
    curve = growth.log_distance
    if saturates and len(curve) > 1 and curve[1] - curve[0] > JUMP * found.rise:
        jump = Reason.of(
            "unresolved",
            "{share:.0%} of the whole separation ({rise:.1f} e-folds) happens in the first step: no exponential regime "
            "is resolved, as for noise; sample more often, or use twins",
            share=(curve[1] - curve[0]) / found.rise,
            rise=found.rise,
        )
        return "inconclusive", (jump,)
    if not found.stop:
        nothing = Reason.of(
            "no-exponential-regime",
            "no window of {needed_steps} steps below saturation holds {needed} e-fold: there is no exponential regime "
            "in {steps} steps; record more states (closer neighbours), or use twins",
            needed_steps=FEWEST_STEPS,
            needed=FEWEST_EFOLDS,
            steps=len(curve) - 1,
        )
        return "inconclusive", (nothing,)
    grown = Reason.of(
        "growth",
        "neighbours part at {rate:.4g} per {unit} over {gain:.1f} e-folds, from {start:g} to {stop:g} {unit}s",
        rate=found.slope,
        gain=found.gain,
        start=growth.time[found.start],
        stop=growth.time[found.stop],
        unit=unit,
    )
    if not np.isfinite(p_positive):
        few = Reason.of(
            "error-unknown",
            "its error is unknown: {blocks} blocks of reference states are fewer than {needed}; record more or lower "
            "the horizon",
            blocks=int(np.isfinite(found.block_slopes).sum()),
            needed=FEWEST_BLOCKS,
        )
        return "inconclusive", (grown, few)
    words = "the curve alone cannot be told from that of noise; trajtools.lyapunov tests it against surrogates"
    return "inconclusive", (grown, Reason("not-tested", words))
