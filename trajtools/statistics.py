"""Statistics: line fits and their regions, resampling, sign flips, and the shape of growth curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trajtools.errors import DataError
from trajtools.results import Result
from trajtools.types import Floats, Ints, RNGLike
from trajtools.values import read_array
from trajtools.wording import counted, spoken

# Choices of this toolkit, all independent of scale. They are in the settings of every result.
SATURATION_MARGIN = float(np.log(50.0))  # e-folds below the knee where fits stop: nonlinear terms are 2 % there
ROUNDING_MARGIN = float(np.log(50.0))  # e-folds above the rounding floor where rounding is 2 % of a distance


PASSAGE_MARGIN = float(np.log(1000.0))  # e-folds below the knee for first passages
EARLY_SHARE = 0.02  # largest share of curves past saturation at a common stop
BENT_SHARE = 0.1  # smallest share of bent curves for saturation
COMMON_SHARE = 0.5  # smallest mean growth up to a common stop, over the room; else stops are individual
KNEE_EXCESS = 2.0  # e-folds above its chord from which a curve counts as bent
FLOOR_MARGIN = float(np.log(3.0))  # e-folds above the rounding floor for usable points
N_RESAMPLES = 1999
SQUARABLE = (1e-120, 1e120)  # magnitudes whose squares can be summed and multiplied without loss
DECISION = 0.01  # significance level of all decisions
LARGEST_POWER = 3.0  # of the power laws in the null
FEWEST_UNITS = 8  # 2^-8 < 1 %: with fewer sign flips no p-value can be below `DECISION`
_BATCH = 2_000_000
AVERAGES = ("mean-log", "log-mean", "rms")


def random_generator(rng: RNGLike) -> np.random.Generator:
    """Generator of a seed; None is the seed 0, so that the same call gives the same numbers."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, bool) or not (rng is None or (isinstance(rng, (int, np.integer)) and rng >= 0)):
        raise DataError(f"rng must be a seed (an integer, at least 0), a numpy.random.Generator or None, got {rng!r}")
    return np.random.default_rng(0 if rng is None else int(rng))


def unit_scale(largest: float) -> float:
    """Power of two that brings numbers up to `largest` near 1 where their squares would over- or underflow; else 1."""
    if not 0 < largest < np.inf or SQUARABLE[0] < largest < SQUARABLE[1]:
        return 1.0
    return float(np.ldexp(1.0, -int(np.clip(np.frexp(largest)[1], -1022, 1022))))


def largest_finite(values: Floats) -> float:
    """Largest finite magnitude; 0 if there is none."""
    return float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))


def fit_slope(x: ArrayLike, y: ArrayLike, start: int = 0, stop: int | None = None) -> Fit:
    """Fit a straight line by least squares to the samples ``start <= k < stop``.

    Parameters
    ----------
    x, y : array_like of float, shape (K,)
        Times and values; points with NaN or infinity are excluded.
    start : int
        First sample.
    stop : int or None
        One past the last sample; None: the end.

    Returns
    -------
    Fit
        Slope, intercept, standard error of the slope, samples and R2.

    Raises
    ------
    DataError
        If the shapes differ, or there are fewer than two finite points at different x.

    Examples
    --------
    >>> fit_slope([0, 1, 2, 3], [1.0, 3.5, 6.0, 8.5]).slope
    2.5
    """
    times, values = (read_array(each).astype(np.float64, copy=False) for each in (x, y))
    if times.ndim != 1 or times.shape != values.shape:
        raise DataError(f"a line needs x and y of equal length, got shapes {times.shape} and {values.shape}")
    start, stop, _ = slice(start, stop).indices(len(times))
    times, values = times[start:stop], values[start:stop]
    finite = np.isfinite(times) & np.isfinite(values)
    if not finite.all():
        times, values = times[finite], values[finite]
    if len(times) < 2 or (times == times[0]).all():
        raise DataError(
            f"a line needs at least two finite points at different times; samples {start} to {stop} have "
            f"{len(times)}: widen the region"
        )
    centre, middle = times.mean(), values.mean()
    x_offset, y_offset = times - centre, values - middle
    spread = float((x_offset**2).sum())
    slope = float((x_offset * y_offset).sum() / spread)
    residual = float(((y_offset - slope * x_offset) ** 2).sum())
    total = float((y_offset**2).sum())
    stderr = (residual / (len(times) - 2) / spread) ** 0.5 if len(times) > 2 else float("nan")
    r2 = 1.0 - residual / total if total > 0 else float("nan")
    return Fit(slope, float(middle - slope * centre), stderr, start, stop, r2)


@dataclass(frozen=True, eq=False, repr=False)
class Fit(Result):
    """A straight line fitted by least squares; see `trajtools.statistics.fit_slope`.

    Attributes
    ----------
    slope, intercept : float
        The line ``intercept + slope * x``.
    stderr : float
        Standard error of the slope for independent residuals. The points of a divergence curve are not independent, so
        this is not an error of an exponent.
    start, stop : int
        The samples ``start <= k < stop`` were fitted.
    r2 : float
        ``1 - SSR / SST``; NaN if all values are equal.
    """

    slope: float
    intercept: float
    stderr: float
    start: int
    stop: int
    r2: float

    def _sentence(self) -> str:
        points = counted(self.stop - self.start, "point")
        return f"slope {spoken(self.slope)} over {points}, R2 {spoken(self.r2)}."


def window_fits(time: Floats, curves: Floats, starts: Ints, stops: Ints) -> tuple[Floats, Floats, Floats]:
    """Slopes, intercepts and R2 of lines through every curve on every window, by prefix sums."""
    finite = np.isfinite(curves)
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = np.where(finite, curves, 0.0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
    y = np.where(finite, curves - middle[:, None], 0.0)  # centred: prefix sums of large values lose digits
    centre = time.mean()
    x = time - centre

    def sums(rows: Floats) -> Floats:
        padded = np.concatenate([np.zeros((*rows.shape[:-1], 1)), np.cumsum(rows, axis=-1)], axis=-1)
        return np.asarray(padded[..., stops] - padded[..., starts])

    n = (stops - starts).astype(np.float64)
    sx, sxx = sums(x), sums(x * x)
    sy, sxy, syy = sums(y), sums(x * y), sums(y * y)
    broken = sums((~finite).astype(np.float64)) > 0
    spread = sxx - sx * sx / n
    total = syy - sy * sy / n
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (sxy - sx * sy / n) / spread
        r2 = np.where(total > 1e-12 * np.abs(syy), slope * slope * spread / total, np.nan)
    intercept = (sy - slope * sx) / n + middle[:, None] - slope * centre
    return tuple(np.where(broken, np.nan, values) for values in (slope, intercept, r2))  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Spans:
    """Usable points of each curve.

    Attributes
    ----------
    begin, end : ndarray of int64, shape (C,)
        First and last usable point; ``end < begin`` if there is none.
    stop : ndarray of int64, shape (C,)
        Growth is measured up to the mean of the points ``stop + 1 .. stop + landing``.
    landing : int
        Number of these points.
    knee : ndarray of int64, shape (C,)
        Point where the curve bends down; `end` if it does not.
    level : float
        Natural logarithm of the distance at saturation; infinite without saturation.
    rule : str
        Rule for `stop`: ``"end of the record"``, ``"common"``, ``"first passage"`` or ``"given"``.
    saturated : int
        Number of curves that bend down.
    at_floor : int
        Number of points excluded at or below the rounding floor.
    """

    begin: Ints
    end: Ints
    stop: Ints
    landing: int
    knee: Ints
    level: float
    rule: str
    saturated: int
    at_floor: int

    @property
    def last(self) -> Ints:
        """Last fitted point of each curve, (C,)."""
        return np.minimum(self.stop + self.landing, self.end)


def usable(curves: Floats, floor: Floats) -> tuple[Ints, Ints, int]:
    """First contiguous span of each curve above the rounding floor, and the number of points below it."""
    finite = np.isfinite(curves)
    high = finite & ~(curves <= floor + FLOOR_MARGIN)
    begin = np.argmax(high, axis=1)
    after = np.arange(curves.shape[1])[None, :] > begin[:, None]
    broken = after & ~high
    end = np.where(broken.any(axis=1), np.argmax(broken, axis=1) - 1, curves.shape[1] - 1)
    end = np.where(high.any(axis=1), end, begin - 1)
    return begin.astype(np.int64), end.astype(np.int64), int(np.sum(finite & ~high))


def choose_spans(time: Floats, curves: Floats, floor: Floats, *, single: bool = False) -> Spans:
    """Choose the fitted span of each curve: above the rounding floor, below saturation.

    Notes
    -----
    The saturation level is common to all curves, `SATURATION_MARGIN` below the median height of their knees: a level
    from the end of each curve would depend on the future of that curve and bias its rate.

    If the curves grow alike, all stop at a common time, the last at which at most `EARLY_SHARE` of them are past
    saturation: a time that no single curve determines does not bias the rates. Otherwise (bursts at different times),
    each curve stops at its first passage of a lower level, `PASSAGE_MARGIN` below the knees, and its growth is measured
    up to the mean of the following points that stay below saturation (the landing). A first passage is a stopping time,
    so by Wald's identity the sum of gains over the sum of times is unbiased for independent increments; the landing
    removes the bias of bounded fluctuations, which are high at the passage (1.6 % of the rate on the logistic map).
    """
    begin, end, at_floor = usable(curves, floor)
    knee, excess = knees(time, curves, begin, end)
    bent = excess >= KNEE_EXCESS
    if bent.sum() < BENT_SHARE * max(1, int(np.sum(end > begin))):
        bent = np.zeros_like(bent)
    height = float(np.median(curves[np.flatnonzero(bent), knee[bent]])) if bent.any() else float("inf")
    level = height - SATURATION_MARGIN
    rule, stop, landing = "end of the record", end - 1, 1
    if bent.any():
        rule, stop, landing = _stops(curves, begin, end, height)
    if single and rule != "end of the record":
        stop, landing = stop + landing - 1, 1
    return Spans(begin, end, stop, landing, np.where(bent, knee, end), level, rule, int(bent.sum()), at_floor)


def knees(time: Floats, curves: Floats, begin: Ints, end: Ints) -> tuple[Ints, Floats]:
    """Knee of each curve, the point highest above the chord of its usable span, and its height above the chord."""
    rows = np.arange(len(curves))
    last = np.maximum(end, begin)
    index = np.arange(curves.shape[1])
    inside = (index >= begin[:, None]) & (index <= last[:, None])
    first_value, last_value = curves[rows, begin], curves[rows, last]
    length = np.where(last > begin, time[last] - time[begin], 1.0)
    chord = (
        first_value[:, None] + (time[None, :] - time[begin][:, None]) * ((last_value - first_value) / length)[:, None]
    )
    above = np.where(inside & np.isfinite(curves), curves - chord, -np.inf)
    knee = np.argmax(above, axis=1)
    excess = np.where(end > begin, above[rows, knee], 0.0)
    return knee.astype(np.int64), excess


def _stops(curves: Floats, begin: Ints, end: Ints, height: float) -> tuple[str, Ints, int]:
    """Rule (common or individual stops), stops and landing."""
    rows = np.flatnonzero(end > begin)
    level = height - SATURATION_MARGIN
    past = first_passage(curves[rows], begin[rows], end[rows], level)
    over = np.sort(np.where(curves[rows, past] >= level, past, curves.shape[1]))
    common = int(min(over[int(EARLY_SHARE * len(rows))] - 1, end.max()))
    at = np.clip(common, begin[rows], end[rows])
    first = curves[rows, begin[rows]]
    grown, room = float(np.mean(curves[rows, at] - first)), float(np.mean(level - first))
    if grown >= COMMON_SHARE * room:
        return "common", np.minimum(common, end) - 1, 1
    stop = first_passage(curves, begin, end, height - PASSAGE_MARGIN)
    landing = 1
    while landing < curves.shape[1] // 10:
        there = curves[rows, np.minimum(stop[rows] + landing + 1, end[rows])]
        if np.mean(there >= level) > EARLY_SHARE:
            break
        landing += 1
    return "first passage", stop, landing


def first_passage(curves: Floats, begin: Ints, end: Ints, level: float) -> Ints:
    """First point of each curve at or above the level, else its end; shape (C,)."""
    index = np.arange(curves.shape[1])
    with np.errstate(invalid="ignore"):
        over = (curves >= level) & (index >= begin[:, None]) & (index <= end[:, None])
    return np.where(over.any(axis=1), np.argmax(over, axis=1), end).astype(np.int64)


def least_absolute_slopes(x: Floats, y: Floats) -> Floats:
    """Slopes of the lines with the smallest sum of absolute deviations, robust to outliers.

    Notes
    -----
    For each slope the best intercept is the median of the residuals, and the sum of their absolute values is convex in
    the slope; a golden-section search finds its minimum.
    """
    steps = np.diff(y, axis=1) / np.diff(x)
    low, high = steps.min(axis=1), steps.max(axis=1)
    golden = (5**0.5 - 1) / 2

    def cost(slope: Floats) -> Floats:
        rest = y - slope[:, None] * x
        return np.asarray(np.abs(rest - np.median(rest, axis=1)[:, None]).sum(axis=1))

    a, b = high - golden * (high - low), low + golden * (high - low)
    cost_a, cost_b = cost(a), cost(b)
    for _ in range(60):
        left = cost_a <= cost_b
        low, high = np.where(left, low, a), np.where(left, b, high)
        new = np.where(left, high - golden * (high - low), low + golden * (high - low))
        cost_new = cost(new)
        a, b = np.where(left, new, b), np.where(left, a, new)
        cost_a, cost_b = np.where(left, cost_new, cost_b), np.where(left, cost_a, cost_new)
    return np.asarray((low + high) / 2)


@dataclass(frozen=True, eq=False)
class Ratio:
    """A rate with its resampling error.

    Attributes
    ----------
    value : float
        Sum of the gains over the sum of the durations.
    error : float
        Standard error; NaN for fewer than two independent clusters.
    interval : (float, float)
        Confidence interval; NaN if the error is unknown.
    p_positive : float
        One-sided p-value of "the rate is not positive"; NaN if the error is unknown.
    clusters : int
        Number of independent units.
    """

    value: float
    error: float
    interval: tuple[float, float]
    p_positive: float
    clusters: int


def moving_blocks(n: int, length: int, count: int, rng: np.random.Generator) -> Ints:
    """Draw the starts of the blocks of resampled series of `n` values."""
    return rng.integers(0, n - length + 1, size=(count, -(-n // length)))


def blocked_mean(
    values: Floats, length: int, *, count: int, level: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Interval of the mean of a correlated series, by the moving-block bootstrap (Kuensch 1989)."""
    starts = moving_blocks(len(values), length, count, rng)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means = (sums[starts + length] - sums[starts]).mean(axis=1) / length
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_ratio(
    gain: Floats, duration: Floats, cell: Ints, cluster: Ints, *, level: float, rng: np.random.Generator
) -> Ratio:
    """Rate with a hierarchical bootstrap: resample clusters (initial conditions), then the twins in their cells."""
    _, first, of_cell = np.unique(cell, return_index=True, return_inverse=True)
    copies = np.bincount(of_cell)
    clusters, of_cluster = np.unique(cluster[first], return_inverse=True)
    total_gain = np.bincount(of_cell, gain) / copies
    total_time = np.bincount(of_cell, duration) / copies
    value = float(total_gain.sum() / total_time.sum()) if total_time.sum() > 0 else float("nan")
    n = len(clusters)
    if n < 2 or not np.isfinite(value):
        return Ratio(value, float("nan"), (float("nan"), float("nan")), float("nan"), n)
    order = np.argsort(of_cell, kind="stable")
    begin = np.concatenate([[0], np.cumsum(copies)[:-1]])
    draws = np.empty(N_RESAMPLES)
    batch = max(1, _BATCH // len(gain))
    for done in range(0, N_RESAMPLES, batch):
        count = min(batch, N_RESAMPLES - done)
        draws[done : done + count] = _draw(count, rng, n, of_cluster, (gain, duration, order, begin, copies))
    error = float(np.sqrt(np.mean((draws - value) ** 2) * n / (n - 1)))
    from scipy.special import stdtr, stdtrit  # Student's t without scipy.stats, which takes a second to import

    half = float(stdtrit(n - 1, 0.5 + level / 2)) * error
    scale = max(error, 1e-12 * abs(value), 1e-300)
    return Ratio(value, error, (value - half, value + half), float(stdtr(n - 1, -value / scale)), n)


def _draw(count: int, rng: np.random.Generator, n: int, of_cluster: Ints, data: tuple[Any, ...]) -> Floats:
    gain, duration, order, begin, copies = data
    weight = rng.multinomial(n, np.full(n, 1.0 / n), size=count)[:, of_cluster].astype(np.float64)
    gains = np.zeros((count, len(copies)))
    times = np.zeros_like(gains)
    for k in range(int(copies.max())):
        here = copies > k
        cells = slice(None) if here.all() else np.flatnonzero(here)  # a slice is not copied
        of = copies[cells]
        pick = order[begin[cells] + (rng.random((count, len(of))) * of).astype(np.int64)]
        gains[:, cells] += gain[pick] / of
        times[:, cells] += duration[pick] / of
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (weight * gains).sum(axis=1) / (weight * times).sum(axis=1)
    return np.where(np.isfinite(ratio), ratio, 0.0)


def sign_flip_p(evidence: Floats, *, rng: np.random.Generator) -> float:
    """Probability of a mean at least this large if the signs of independent contributions were random."""
    if len(evidence) == 0:
        return float("nan")
    observed = float(evidence.mean())
    signs = rng.integers(0, 2, size=(N_RESAMPLES, len(evidence))) * 2.0 - 1.0
    reached = int(np.sum(signs @ evidence / len(evidence) >= observed * (1 - 1e-12)))
    return (reached + 1) / (N_RESAMPLES + 1)


def power_evidence(time: Floats, curves: Floats, begin: Ints, stop: Ints, blocks: int = 1) -> Floats:
    r"""Evidence of each curve for an exponential against a power law or diffusion.

    Notes
    -----
    All are fitted to :math:`\ln d(t)` by least squares. The null is the best of
    :math:`\ln d_0 + \alpha \ln(1 + t/\tau)` with :math:`0 \le \alpha \le 3` and of
    :math:`\ln d_0 + \frac12 \ln(1 + a t + b t^2)`, that is :math:`d = \sqrt{d_0^2 + a' t + b' t^2}` (random walk with
    drift), over logarithmic grids of :math:`\tau`, a and b. The null has more freedom than the exponential.
    """
    return shape_evidence(time, curves, begin, stop, blocks)[0]


def shape_evidence(
    time: Floats,
    curves: Floats,
    begin: Ints,
    stop: Ints,
    blocks: int = 1,
    *,
    null: Callable[[Floats, Floats, Floats, Floats], Floats] | None = None,
) -> tuple[Floats, Floats]:
    """`power_evidence` for any null with its own residuals, and the fitted curves of the null."""
    n_curves, n_points = curves.shape
    index = np.arange(n_points)
    mask = ((index >= begin[:, None]) & (index <= stop[:, None])).astype(np.float64)
    count = mask.sum(axis=1)
    out, fitted = np.full((n_curves, blocks), np.nan), np.full(curves.shape, np.nan)
    good = count >= 4
    if not good.any():
        return out, fitted
    mask, count = mask[good], count[good]
    y = np.where(mask > 0, curves[good], 0.0)
    middle = y.sum(axis=1) / count
    y = np.where(mask > 0, y - middle[:, None], 0.0)
    line, _ = _residuals(y, mask, count, time[None, :], None)
    other = (null or _best_null)(y, mask, count, time)
    fitted[good] = np.where(mask > 0, y - other + middle[:, None], np.nan)
    noise = (1e-9 * np.maximum(np.abs(y).max(axis=1), 1.0)) ** 2  # residuals below this are rounding
    difference = other**2 - line**2
    scale = (other**2 + line**2).sum(axis=1) + count * noise
    block = np.clip(((index - begin[good][:, None]) * blocks) // count[:, None].astype(np.int64), 0, blocks - 1)
    for b in range(blocks):
        out[good, b] = np.where((block == b) & (mask > 0), difference, 0.0).sum(axis=1) / scale
    return out, fitted


def _residuals(y: Floats, mask: Floats, count: Floats, shape: Floats, largest: float | None) -> tuple[Floats, Floats]:
    """Residuals (C, K) of ``y ~ c + slope * shape`` within the mask, with shapes (1, K) or (C, K), and the slope."""
    x = np.where(mask > 0, shape, 0.0)
    x = np.where(mask > 0, x - (x.sum(axis=1) / count)[:, None], 0.0)
    spread = (x * x).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(spread > 0, (x * y).sum(axis=1) / spread, 0.0)
    if largest is not None:
        slope = np.clip(slope, 0.0, largest)
    return y - slope[:, None] * x, slope


def _best_null(y: Floats, mask: Floats, count: Floats, time: Floats) -> Floats:
    """Residuals (C, K) of the best power law or diffusion of each curve."""
    step = float(np.min(np.diff(time)))
    scales = np.geomspace(1e-3 * step, 1e2 * float(time[-1] - time[0]), 48)
    powers = np.log1p(time[None, :] / scales[:, None])
    drift = 1.0 / np.geomspace(1e-4 * step, 1e2 * float(time[-1]), 64) ** 2
    # A walk without drift is the power law with alpha = 1/2; only pure drift and mixtures are separate shapes.
    mixed = np.geomspace(1e-4 * step, 1e2 * float(time[-1]), 20)
    a = np.concatenate([np.zeros(len(drift)), np.repeat(1.0 / mixed, len(mixed))])
    b = np.concatenate([drift, np.tile(1.0 / mixed**2, len(mixed))])
    walks = 0.5 * np.log1p(a[:, None] * time + b[:, None] * time**2)

    def cost(shapes: Floats, largest: float | None) -> tuple[Floats, Ints]:
        sx, sxx, sxy = mask @ shapes.T, mask @ (shapes**2).T, y @ shapes.T
        syy = (y * y).sum(axis=1)[:, None]
        spread = np.maximum(sxx - sx**2 / count[:, None], 1e-300)
        slope = np.ones_like(sxy) if largest is None else np.clip(sxy / spread, 0.0, largest)
        left = syy - 2 * slope * sxy + slope**2 * spread
        return left.min(axis=1), left.argmin(axis=1)

    power_cost, power = cost(powers, LARGEST_POWER)
    walk_cost, walk = cost(walks, None)
    by_power, _ = _residuals(y, mask, count, powers[power], LARGEST_POWER)
    x = np.where(mask > 0, walks[walk], 0.0)
    by_walk = np.where(mask > 0, y - x + (x.sum(axis=1) / count)[:, None], 0.0)
    return np.where((power_cost <= walk_cost)[:, None], by_power, by_walk)


def average_curves(distances: Floats, group: Ints, start: Ints, average: str) -> tuple[Floats, Ints, Ints]:
    """Average the units of each initial condition and take the logarithm, in the order given by `average`.

    Notes
    -----
    A mean of distances is only meaningful over a fixed set of copies, so a curve ends where the first of its copies
    ends. Distances are never averaged over initial conditions before the logarithm: the few fastest dominate that mean,
    which grows with the generalised exponent L(1), larger than the mean rate.
    """
    positive = np.where(distances > 0, distances, np.nan)
    if average == "mean-log":
        return np.log(positive), group, start
    labels, inverse = np.unique(np.stack([group, start], axis=1), axis=0, return_inverse=True)
    power = 1.0 if average == "log-mean" else 2.0
    curves = np.empty((len(labels), distances.shape[1]))
    for row in range(len(labels)):
        copies = positive[inverse.ravel() == row]
        top = np.max(copies, axis=0)  # scaled, so that squares neither underflow nor overflow
        curves[row] = np.log(top) + np.log(np.mean((copies / top) ** power, axis=0)) / power
    return curves, labels[:, 0], labels[:, 1]


def mean_curve(curves: Floats, group: Ints) -> Floats:
    """Average curves over the units of each initial condition, then over the initial conditions, ignoring NaN."""
    labels, inverse = np.unique(group, return_inverse=True)
    finite = np.isfinite(curves)
    order = np.argsort(inverse, kind="stable")
    first = np.searchsorted(inverse[order], np.arange(len(labels)))
    total = np.add.reduceat(np.where(finite, curves, 0.0)[order], first, axis=0)
    count = np.add.reduceat(finite[order].astype(np.float64), first, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_group = total / count
        alive = count > 0
        mean: Floats = np.where(alive, per_group, 0.0).sum(axis=0) / alive.sum(axis=0)
    return mean
