"""The exponent from curves of neighbours: the plateau of the local slopes, with an interval that covers its choice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.exponent import Exponent
from trajtools.reasons import Reason
from trajtools.statistics import window_fits
from trajtools.types import Floats, Ints, RNGLike

if TYPE_CHECKING:
    from trajtools.exponents.divergence import Divergence

METHODS = ("rosenstein", "kantz", "wolf", "hybrid")
FOLLOWED_TO_SATURATION = ("rosenstein", "kantz")
SHARED = 2.0  # a pair can be counted from both of its ends, so the blocks hold half as many independent pairs
FEWEST_BLOCKS = 5  # of reference states: the scatter of fewer says little
BOUNDED = 1.0  # e-folds: neighbours that never part further than this stay neighbours
JUMP = 0.5  # of the whole rise in the first step: the separation is not resolved


# Choices of this toolkit; none of them knows a scale. They are kept in the settings of every result.
FEWEST_EFOLDS = 1.0  # that a fitted window must hold


FEWEST_STEPS = 3  # of a window: a line through fewer shows no shape
MARGINS = (1.5, 1.0)  # e-folds below saturation where windows end: the second where the first leaves no window
FLAT_SHARE = 0.1  # of the whole rise that the last quarter of a saturated curve may add
SATURATED = 0.5  # e-folds below the last quarter's mean where the curve counts as saturated
TRANSIENT = 3  # one part in so many of the Theiler window, a correlation time, is always skipped: neighbours turn
MOST_SKIPPED = 4  # at most one part in so many of the curve up to saturation
EDGES = 36  # candidate ends of windows
NEARLY = 2.0  # windows with a score up to so many times the best are nearly as good


def fit_neighbors(
    growth: Divergence,
    region: str | tuple[float, float] = "auto",
    *,
    level: float = 0.95,
    rng: RNGLike = 0,
) -> Exponent:
    r"""Fit the exponential regime of a curve of neighbours.

    Notes
    -----
    The value is the slope of the mean curve in the window that `find_plateau` chooses. The
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


def find_plateau(growth: Divergence, span: tuple[int, int] | None, *, saturates: bool = True) -> Plateau:
    r"""Choose the window with the flattest local slopes.

    Notes
    -----
    Every window between the end of the transient (a correlation time) and saturation that holds enough e-folds is
    fitted. The best has the smallest

    .. math:: \frac{\sqrt{b^2 + s^2}}{\lambda} \frac{r}{g}

    with half the range b of the slopes of its thirds, the standard error s from the blocks, its slope, its gain g
    and the room r in e-folds: flat first, then long. The transient in which neighbours turn to where they grow, and
    the approach to saturation, are bent and so left out without naming a scale.
    """
    curve = growth.log_distance
    known = np.isfinite(curve)
    rise = float(np.nanmax(curve) - curve[0]) if known.any() and known[0] else 0.0
    level, end, starts, stops = _windows(curve, int(growth.settings.get("theiler", 0)), saturates)
    if span is not None:
        starts, stops = (np.array([edge]) for edge in span)
    if not len(starts):
        return Plateau(0, 0, float("nan"), float("nan"), level=level, end=end, rise=rise)
    rows, weight = block_curves(growth)
    # Blocks that replace their neighbours are telescoped, as Wolf does: every step of the record counts alike.
    telescoped = span is None and not saturates
    time, line, lines, first, past = growth.time, curve[None], rows, starts, stops + 1
    if telescoped:
        ends = [int(starts[0]), int(stops[0])]
        time, line, lines, first, past = time[ends], line[:, ends], rows[:, ends], np.array([0]), np.array([2])
    slope, intercept, _ = (found[0] for found in window_fits(time, line, first, past))
    bend = _bend(growth.time, curve, starts, stops)
    blocks = window_fits(time, lines, first, past)[0]
    error = standard_error(blocks, weight)
    gain = slope * (growth.time[stops] - growth.time[starts])
    room = max(float(np.max(gain)), FEWEST_EFOLDS)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.sqrt(bend**2 + np.nan_to_num(error) ** 2) / np.abs(slope) * room / np.abs(gain)
    score = np.where(np.isfinite(score), score, np.inf)
    if not np.isfinite(score).any():
        return Plateau(0, 0, float("nan"), float("nan"), level=level, end=end, rise=rise)
    best = int(np.argmin(score))
    near = score <= NEARLY * score[best]
    share = 1.0 / np.maximum(score[near] / max(score[best], 1e-12), 1.0) ** 2
    share /= share.sum()
    spread = float(np.sqrt(np.sum(share * (slope[near] - slope[best]) ** 2)))
    return Plateau(
        start=int(starts[best]),
        stop=int(stops[best]),
        slope=float(slope[best]),
        intercept=float(intercept[best]),
        block_slopes=blocks[:, best],
        bend=float(bend[best]),
        spread=spread,
        near=_doubt(float(curve[(starts[best] + stops[best]) // 2]), level, growth),
        slopes=slope[near],
        gain=float(gain[best]),
        level=level,
        end=end,
        rise=rise,
    )


@dataclass(frozen=True, eq=False)
class Plateau:
    """The window that was chosen, and the others.

    Attributes
    ----------
    start, stop : int
        First and last fitted point; both 0 where there is no admissible window.
    slope : float
        Slope of the mean curve there; NaN without a window.
    intercept : float
        Of the fitted line.
    block_slopes : ndarray of float64, shape (B,)
        Slope of each block's own curve in the window.
    bend : float
        Half the range of the slopes of the three thirds of the window.
    spread : float
        Standard deviation of the slopes over the windows that are nearly as good.
    near : float
        Share of the slope that finite distances may take from it: the distance in the middle of the window over that
        at saturation, and the square of the distance along the flow over it.
    slopes : ndarray of float64, shape (W,)
        Slopes of the mean curve over all windows that are nearly as good.
    gain : float
        E-folds between the ends of the window.
    level : float
        Natural logarithm of the distance at saturation; infinite where the curve does not saturate.
    end : int
        Last point that windows may hold.
    rise : float
        E-folds between the first point of the curve and its highest.
    """

    start: int
    stop: int
    slope: float
    intercept: float
    block_slopes: Floats = field(default_factory=lambda: np.empty(0))
    bend: float = float("nan")
    spread: float = float("nan")
    near: float = 0.0
    slopes: Floats = field(default_factory=lambda: np.empty(0))
    gain: float = 0.0
    level: float = float("inf")
    end: int = 0
    rise: float = 0.0


def _windows(curve: Floats, theiler: int, saturates: bool) -> tuple[float, int, Ints, Ints]:
    """Level of saturation, last point before it, and the windows that may be fitted."""
    known = np.isfinite(curve)
    if not known.all():
        curve = curve[: int(np.argmin(known))]  # all pairs have met there, or none is left
    for margin in MARGINS:
        level, end = saturation(curve, margin) if saturates else (float("inf"), len(curve) - 1)
        starts, stops = _candidates(curve, end, theiler, saturates)
        if len(starts):
            break
    return level, end, starts, stops


def _candidates(curve: Floats, end: int, theiler: int, saturates: bool) -> tuple[Ints, Ints]:
    """First and last points of the windows that hold enough steps and e-folds, after the transient."""
    if end < FEWEST_STEPS:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    if not saturates:
        return np.zeros(1, dtype=np.int64), np.array([end])
    skipped = min(theiler // TRANSIENT, end // MOST_SKIPPED)
    edges = np.unique(np.round(np.linspace(skipped, end, min(end - skipped, EDGES) + 1)).astype(np.int64))
    starts, stops = (grid.ravel() for grid in np.meshgrid(edges, edges, indexing="ij"))
    enough = (stops - starts >= FEWEST_STEPS) & (curve[stops] - curve[starts] >= FEWEST_EFOLDS)
    return starts[enough], stops[enough]


def saturation(curve: Floats, margin: float) -> tuple[float, int]:
    """Level of saturation of a curve, and the last point that lies so far below it."""
    last = len(curve) - 1
    if last < 4:
        return float("inf"), last
    quarter = curve[-max(2, last // 4) :]
    half = len(quarter) // 2
    rise = float(np.max(curve) - curve[0])
    added = float(np.mean(quarter[half:]) - np.mean(quarter[:half])) * len(quarter) / max(half, 1)
    if not added <= FLAT_SHARE * rise:
        return float("inf"), last
    level = float(np.mean(quarter))
    over = np.flatnonzero(~(curve <= level - margin))
    return level, int(over[0] - 1) if len(over) else last


def block_curves(growth: Divergence) -> tuple[Floats, Floats]:
    """Logarithmic curves of the blocks of reference states, and how much each block counts."""
    with np.errstate(divide="ignore", invalid="ignore"):
        curves = np.log(np.where(growth.distances > 0, growth.distances, np.nan))
    terms = growth.settings.get("block_terms")
    weight = np.ones(len(curves)) if terms is None else np.asarray(terms, dtype=np.float64)[:, 0]
    return curves, weight / weight.sum()


def _bend(time: Floats, curve: Floats, starts: Ints, stops: Ints) -> Floats:
    """Half the range of the slopes of the three thirds of each window."""
    length = stops - starts
    first, second = starts + np.maximum(length // 3, 1), stops - np.maximum(length // 3, 1)
    second = np.maximum(second, np.minimum(first + 1, stops - 1))
    thirds = [
        window_fits(time, curve[None], a, b + 1)[0][0]
        for a, b in ((starts, first), (np.minimum(first, second - 1), second), (second, stops))
    ]
    return np.asarray((np.max(thirds, axis=0) - np.min(thirds, axis=0)) / 2)


def standard_error(blocks: Floats, weight: Floats) -> Floats:
    """Standard error of the weighted mean over the blocks."""
    known = np.isfinite(blocks)
    share = np.where(known, weight[:, None], 0.0)
    share /= np.maximum(share.sum(axis=0), 1e-300)
    middle = np.sum(share * np.where(known, blocks, 0.0), axis=0)
    count = known.sum(axis=0)
    square = np.sum((share * np.where(known, blocks - middle, 0.0)) ** 2, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 1, np.sqrt(square * count / (count - 1)), np.nan)


def _doubt(middle: float, level: float, growth: Divergence) -> float:
    """Share of the slope in doubt where distances are not small, or not large beside those along the flow."""
    along = float(growth.settings.get("distance_along", 0.0))
    return float(np.exp(middle - level)) + (along / float(np.exp(middle))) ** 2


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
    words = "noise gives such a curve too; trajtools.lyapunov tests it against surrogates"
    return "inconclusive", (grown, Reason("not-tested", words))


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


def _halves(found: Plateau, weight: Floats) -> list[float]:
    """Slope from the first and from the second half of the reference states: whether it settles with T."""
    halves = []
    known = np.isfinite(found.block_slopes)
    for part in np.array_split(np.flatnonzero(known), 2) if known.sum() > 1 else ():
        halves.append(float(np.average(found.block_slopes[part], weights=weight[part])))
    return halves
