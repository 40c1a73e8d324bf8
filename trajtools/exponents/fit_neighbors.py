"""Exponent from curves of neighbours: the plateau of local slopes, with an interval that includes its choice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.exponent import Exponent
from trajtools.reasons import Reason
from trajtools.statistics import window_fits
from trajtools.types import Floats, Ints, RNGLike
from trajtools.wording import one_unit, time_units

if TYPE_CHECKING:
    from trajtools.exponents.divergence import Divergence

METHODS = ("rosenstein", "kantz", "wolf", "hybrid")
FOLLOWED_TO_SATURATION = ("rosenstein", "kantz")
SHARED = 2.0  # a pair can be counted from both ends, so half of the pairs of the blocks are independent
FEWEST_BLOCKS = 5  # blocks of reference states for a standard error
BOUNDED = 1.0  # e-folds: neighbours that separate by less stay neighbours
JUMP = 0.5  # share of the total rise in the first step above which the separation is not resolved


# Choices of this toolkit, all independent of scale. They are in the settings of every result.
FEWEST_EFOLDS = 1.0  # of a fitted window


FEWEST_STEPS = 3  # of a fitted window: fewer show no curvature
OUT_OF_REACH = 1000.0  # times as many states, which nobody records
UNBENT = 2.0  # e-folds of a window; shorter ones hide how much finite distances bend the curve
MARGINS = (1.5, 1.0)  # e-folds below saturation where windows end; the second if the first leaves no window
FLAT_SHARE = 0.1  # largest share of the rise in the last quarter of a saturated curve
BENDING_SHARE = 0.15  # the same for one that is about to saturate, at its highest point or above; a line has 0.25
SATURATED = 0.5  # e-folds below the mean of the last quarter where a curve counts as saturated
TRANSIENT = 3  # Theiler window over the skipped transient of one correlation time, in which separations align
MOST_SKIPPED = 4  # length of the curve up to saturation over the longest skipped transient
EDGES = 36  # candidate ends of windows
NEARLY = 2.0  # largest score, over the best, of windows that count as nearly as good


def fit_neighbors(
    growth: Divergence,
    region: str | tuple[float, float] = "auto",
    *,
    level: float = 0.95,
    rng: RNGLike = None,
    sparser: Divergence | None = None,
) -> Exponent:
    r"""Fit the exponential regime of a curve of neighbours.

    Parameters
    ----------
    growth : Divergence
        Curve of an estimator.
    region : "auto" or (float, float)
        Times between which a line is fitted.
    level : float
        Confidence level.
    rng : int, numpy.random.Generator or None
        For the settings only.
    sparser : Divergence or None
        Curve of the same estimator from a share of the states. Its neighbours are farther apart, so the difference of
        the exponents is an error that distances cause.

    Notes
    -----
    The value is the slope of the mean curve in the window from `find_plateau`. The interval is
    Student's with the error

    .. math:: e^2 = 2 c\, s^2 + (b/2)^2 + u^2 + (n \lambda)^2 + f^2

    where s is the standard error from blocks of reference states, the factor 2 accounts for pairs counted from both
    ends, c for the correlation of successive blocks, b is half the range of the slopes in the thirds of the window, u
    the standard deviation of the slopes over windows that are nearly as good, n the relative error from finite
    distances (see `Plateau`), more in a window of less than two e-folds, and f the part of the difference from the
    exponent of sparser states (of their own best window, or of the same one if they have none) that an error
    proportional to the distance leaves: over r - 1, where their neighbours are r times as far apart, at most all of it.
    The last four do not decrease with the number of references. It is a factor where the interval
    lies above zero: it moves the lower end towards zero but not across, and is left out of the test of zero.
    """
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    saturates = growth.method in FOLLOWED_TO_SATURATION
    plateau = find_plateau(growth, _span(growth, region), saturates=saturates)
    rows, weight = block_curves(growth)
    sparse, dimension, density = float("nan"), float("nan"), 0.0
    if sparser is not None:
        sparse = _sparse_slope(sparser, plateau, _span(growth, region))
        farther = float(np.exp(sparser.log_distance[0] - growth.log_distance[0]))
        dimension = -float(np.log(sparser.settings["share"]) / np.log(farther)) if farther > 1 else float("nan")
        density = float(np.nan_to_num(abs(sparse - plateau.slope))) / max(farther - 1, 1.0)
    alone, correlation = _error(plateau, weight)
    error = float(np.hypot(alone, density))
    degrees = max(int(np.isfinite(plateau.block_slopes).sum()) - 1, 1)
    nan = float("nan")
    interval, p_positive = (nan, nan), nan
    if np.isfinite(error):
        from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats takes half a second to import

        reach = float(stdtrit(degrees, 0.5 + level / 2))
        low, wider = plateau.slope - reach * alone, reach * (error - alone)
        # The distance of neighbours changes how fast they separate, not whether: as a factor, it leaves the sign.
        low = low / (1 + wider / low) if low > 0 else low - wider
        interval = (low, plateau.slope + reach * error)
        p_positive = float(stdtr(degrees, -plateau.slope / max(alone, 1e-300)))
    verdict, reasons = _judge(growth, plateau, p_positive, dimension)
    window = (float(growth.time[plateau.start]), float(growth.time[plateau.stop])) if plateau.stop else (nan, nan)
    return Exponent(
        value=plateau.slope,
        interval=interval,
        level=level,
        p_value=nan,
        null="",
        n_used=int(np.isfinite(plateau.block_slopes).sum()),
        n_total=len(rows),
        verdict=verdict,
        reasons=reasons,
        window=window,
        window_values=plateau.slopes,
        values=plateau.block_slopes,
        intercept=plateau.intercept,
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
            "saturation_level": plateau.level,
            "rise": plateau.rise,
            "gain": plateau.gain,
            "fewest_efolds": FEWEST_EFOLDS,
            "fewest_steps": FEWEST_STEPS,
            "standard_error": error,
            "error_of_blocks": float(standard_error(plateau.block_slopes[:, None], weight)[0]) if plateau.stop else nan,
            "block_correlation": correlation,
            "bend": plateau.bend,
            "window_spread": plateau.spread,
            "finite_distance_share": plateau.near,
            "value_of_sparse_states": sparse,
            "density_dimension": dimension,
            "p_zero": p_positive,
            "half_values": _halves(plateau, weight),
        },
        warnings=growth.warnings,
        curve=growth,
    )


def find_plateau(growth: Divergence, span: tuple[int, int] | None, *, saturates: bool = True) -> Plateau:
    r"""Choose the window with the most constant local slopes.

    Notes
    -----
    All windows with enough e-folds between the transient (a correlation time) and saturation are fitted. The best has
    the smallest

    .. math:: \frac{\sqrt{b^2 + s^2}}{\lambda} \frac{r}{g}

    with half the range b of the slopes of its thirds, the standard error s from the blocks, its slope
    :math:`\lambda`, its gain g and the room r in e-folds: constant slope first, then length. The curve is bent during
    the transient, while separations align with the growing direction, and near saturation, so the criterion excludes
    both without any scale.
    """
    curve = growth.log_distance
    finite = np.isfinite(curve)
    rise = float(np.nanmax(curve) - curve[0]) if finite.any() and finite[0] else 0.0
    level, end, starts, stops = _windows(curve, int(growth.settings.get("theiler", 0)), saturates)
    if span is not None:
        starts, stops = (np.array([edge]) for edge in span)
    if not len(starts):
        return Plateau(0, 0, float("nan"), float("nan"), level=level, end=end, rise=rise)
    rows, weight = block_curves(growth)
    # Blocks with replacement are telescoped, as in Wolf's method: every step of the record has the same weight.
    telescoped = span is None and not saturates
    time, line, lines, first, past = growth.time, curve[None], rows, starts, stops + 1
    if telescoped:
        ends = [int(starts[0]), int(stops[0])]
        time, line, lines, first, past = time[ends], line[:, ends], rows[:, ends], np.array([0]), np.array([2])
    slope, intercept, _ = (rows[0] for rows in window_fits(time, line, first, past))
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
        near=_finite_distance_error(float(curve[(starts[best] + stops[best]) // 2]), level, growth),
        slopes=slope[near],
        gain=float(gain[best]),
        level=level,
        end=end,
        rise=rise,
    )


@dataclass(frozen=True, eq=False)
class Plateau:
    """The fitted window, and the spread over the alternatives.

    Attributes
    ----------
    start, stop : int
        First and last fitted point; both 0 without an admissible window.
    slope : float
        Slope of the mean curve in the window; NaN without a window.
    intercept : float
        Intercept of the fitted line.
    block_slopes : ndarray of float64, shape (B,)
        Slope of the curve of each block in the window.
    bend : float
        Half the range of the slopes of the three thirds of the window.
    spread : float
        Standard deviation of the slopes over the windows that are nearly as good.
    near : float
        Relative error of the slope from finite distances: the distance in the middle of the window over that at
        saturation, plus the squared ratio of the distance along the flow to it.
    slopes : ndarray of float64, shape (W,)
        Slopes of the mean curve over all windows that are nearly as good.
    gain : float
        E-folds between the ends of the window.
    level : float
        Natural logarithm of the distance at saturation; infinite if the curve does not saturate.
    end : int
        Last point available to windows.
    rise : float
        E-folds from the first to the highest point of the curve.
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
    """Saturation level, last point before it, and the candidate windows."""
    finite = np.isfinite(curve)
    if not finite.all():
        curve = curve[: int(np.argmin(finite))]  # beyond, all pairs are at distance zero, or none is left
    for margin in MARGINS:
        level, end = saturation(curve, margin) if saturates else (float("inf"), len(curve) - 1)
        starts, stops = _candidates(curve, end, theiler, saturates)
        if len(starts):
            break
    return level, end, starts, stops


def _candidates(curve: Floats, end: int, theiler: int, saturates: bool) -> tuple[Ints, Ints]:
    """First and last points of the windows after the transient with enough steps and e-folds."""
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
    """Saturation level of a curve, and the last point at least `margin` below it."""
    last = len(curve) - 1
    if last < 4:
        return float("inf"), last
    quarter = curve[-max(2, last // 4) :]
    half = len(quarter) // 2
    rise = float(np.max(curve) - curve[0])
    added = float(np.mean(quarter[half:]) - np.mean(quarter[:half])) * len(quarter) / max(half, 1)
    if not added <= BENDING_SHARE * rise:
        return float("inf"), last
    level = float(np.mean(quarter)) if added <= FLAT_SHARE * rise else float(np.max(curve))
    over = np.flatnonzero(~(curve <= level - margin))
    return level, int(over[0] - 1) if len(over) else last


def block_curves(growth: Divergence) -> tuple[Floats, Floats]:
    """Logarithmic curves of the blocks of reference states, and the weights of the blocks."""
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
    finite = np.isfinite(blocks)
    share = np.where(finite, weight[:, None], 0.0)
    share /= np.maximum(share.sum(axis=0), 1e-300)
    middle = np.sum(share * np.where(finite, blocks, 0.0), axis=0)
    count = finite.sum(axis=0)
    square = np.sum((share * np.where(finite, blocks - middle, 0.0)) ** 2, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 1, np.sqrt(square * count / (count - 1)), np.nan)


def _finite_distance_error(middle: float, level: float, growth: Divergence) -> float:
    """Relative error of the slope at distances near saturation, or near the distance along the flow."""
    along = float(growth.settings.get("distance_along", 0.0))
    spread = float(growth.settings.get("spread", 0.0))
    if not np.isfinite(level) and spread > 0:  # pairs that are replaced never saturate
        level = float(np.log(spread))
    return float(np.exp(middle - level)) + (along / float(np.exp(middle))) ** 2


def _sparse_slope(sparser: Divergence, plateau: Plateau, span: tuple[int, int] | None) -> float:
    """Exponent of sparser states, whose neighbours are farther apart; NaN where there is none."""
    if not plateau.stop:
        return float("nan")
    own = find_plateau(sparser, span)
    if own.stop:
        return own.slope
    edges = np.array([plateau.start, plateau.stop + 1])
    return float(window_fits(sparser.time, sparser.log_distance[None], edges[:1], edges[1:])[0][0, 0])


def _error(plateau: Plateau, weight: Floats) -> tuple[float, float]:
    """Standard error of the value, and the correlation factor of successive blocks."""
    if not plateau.stop or np.isfinite(plateau.block_slopes).sum() < FEWEST_BLOCKS:
        return float("nan"), float("nan")
    blocks = plateau.block_slopes[np.isfinite(plateau.block_slopes)]
    deviation = blocks - blocks.mean()
    total = float(np.sum(deviation**2))
    factor = 1.0
    for lag in range(1, len(blocks) // 4 + 1):
        correlation = float(np.sum(deviation[lag:] * deviation[:-lag])) / total if total > 0 else 0.0
        if correlation <= 0:
            break
        factor += 2 * correlation
    sampled = float(standard_error(plateau.block_slopes[:, None], weight)[0])
    near = plateau.near * plateau.slope * max(1.0, UNBENT / max(plateau.gain, FEWEST_EFOLDS))
    square = SHARED * factor * sampled**2 + (plateau.bend / 2) ** 2 + plateau.spread**2 + near**2
    return float(np.sqrt(square)), factor


def more_states(efolds: float, dimension: float) -> tuple[str, float]:
    """Advice to record more, and how many times as many states give neighbours that many e-folds closer."""
    if not (efolds > 0 and np.isfinite(dimension)):
        return "record more states, so that neighbours are closer", float("nan")
    times = float(np.exp(min(efolds * dimension, 700.0)))
    if times > OUT_OF_REACH:
        return f"closer neighbours would take about {times:.2g} times as many states, which is out of reach", times
    return f"record about {times:.2g} times as many states, so that neighbours are closer", times


def _judge(growth: Divergence, plateau: Plateau, p_positive: float, dimension: float) -> tuple[str, tuple[Reason, ...]]:
    unit, duration = growth.time_unit, float(growth.time[-1])
    untested = Reason("not-tested", "noise can give such a curve too; trajtools.lyapunov tests what made it")
    saturates = growth.method in FOLLOWED_TO_SATURATION
    if saturates and plateau.rise < BOUNDED:
        bounded = Reason.of(
            "bounded",
            "neighbours separate by at most {rise:.2f} e-folds in {time:g} {units}: they stay neighbours, and there is "
            "no exponential regime",
            rise=plateau.rise,
            time=duration,
            unit=one_unit(unit),
            units=time_units(unit),
        )
        return "inconclusive", (bounded,)
    curve = growth.log_distance
    if saturates and len(curve) > 1 and curve[1] - curve[0] > JUMP * plateau.rise:
        jump = Reason.of(
            "unresolved",
            "{share:.0%} of the total separation ({rise:.1f} e-folds) happens in the first step: no exponential regime "
            "is resolved, as with noise; sample more often",
            share=(curve[1] - curve[0]) / plateau.rise,
            rise=plateau.rise,
        )
        return "inconclusive", (jump,)
    if not plateau.stop:
        advice, times = more_states(_missing(curve) if saturates else float("nan"), dimension)
        no_window = Reason.of(
            "no-exponential-regime",
            "no window of {needed_steps} steps below saturation spans {needed} e-fold: there is no exponential regime "
            "in {steps} steps; {advice}",
            advice=advice,
            times=times,
            needed_steps=FEWEST_STEPS,
            needed=FEWEST_EFOLDS,
            steps=len(curve) - 1,
        )
        return "inconclusive", (no_window,)
    growth_reason = Reason.of(
        "growth",
        "neighbours separate at {rate:.4g} per {unit} over {gain:.1f} e-folds, from {start:g} to {stop:g} {units}",
        rate=plateau.slope,
        gain=plateau.gain,
        start=growth.time[plateau.start],
        stop=growth.time[plateau.stop],
        unit=one_unit(unit),
        units=time_units(unit),
    )
    if not np.isfinite(p_positive):
        blocks = int(np.isfinite(plateau.block_slopes).sum())
        no_error = Reason.of(
            "error-unknown",
            "the standard error is unknown: it needs {needed} blocks of reference states, and there are {blocks}; "
            "record {times:.2g} times as long or longer, fill gaps if there are any, or lower the horizon",
            blocks=blocks,
            needed=FEWEST_BLOCKS,
            times=FEWEST_BLOCKS / max(blocks, 1),
        )
        return "inconclusive", (growth_reason, no_error)
    return "inconclusive", (growth_reason, untested)


def _missing(curve: Floats) -> float:
    """E-folds by which neighbours are too far apart for a window."""
    top = int(np.nanargmax(curve))
    step = float(np.nanmax(np.diff(curve[: top + 1]), initial=0.0))
    return MARGINS[-1] + max(FEWEST_EFOLDS, FEWEST_STEPS * step) - float(curve[top] - curve[0])


def _span(growth: Divergence, region: str | tuple[float, float]) -> tuple[int, int] | None:
    if isinstance(region, str):
        if region != "auto":
            raise UnknownNameError(f"region must be 'auto' or two times (start, stop), got {region!r}")
        return None
    try:
        begin, end = (float(edge) for edge in region)
    except (TypeError, ValueError):
        raise DataError(f"region must be 'auto' or two times (start, stop), got {region!r}") from None
    inside = np.flatnonzero((growth.time >= begin) & (growth.time <= end) & np.isfinite(growth.log_distance))
    if not begin < end or len(inside) < 2:
        raise DataError(
            f"region ({begin:g}, {end:g}) contains {len(inside)} points of a curve that ends at {growth.time[-1]:g} "
            f"{time_units(growth.time_unit)}; a line needs 2"
        )
    return int(inside[0]), int(inside[-1])


def _halves(plateau: Plateau, weight: Floats) -> list[float]:
    """Slopes from the first and the second half of the reference states, for their convergence with T."""
    halves = []
    finite = np.isfinite(plateau.block_slopes)
    for part in np.array_split(np.flatnonzero(finite), 2) if finite.sum() > 1 else ():
        halves.append(float(np.average(plateau.block_slopes[part], weights=weight[part])))
    return halves
