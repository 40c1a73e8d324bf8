"""Resampling of independent units, and the nulls that growth is tested against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

N_RESAMPLES = 1999
DECISION = 0.01  # every decision is taken at this level
LARGEST_POWER = 3.0  # of the power laws that growth is compared with
FEWEST_UNITS = 8  # 2^-8 < 1 %: with fewer sign flips no p-value can fall below the level of decision
_BATCH = 2_000_000


@dataclass(frozen=True, eq=False)
class Ratio:
    """A rate with its resampling error.

    Attributes
    ----------
    value : float
        Sum of the gains over the sum of the durations.
    error : float
        Standard error; NaN where there are fewer than two independent clusters.
    interval : (float, float)
        Confidence interval; NaN where the error is unknown.
    p_positive : float
        One-sided p-value of "the rate is not positive"; NaN where the error is unknown.
    clusters : int
        Independent units.
    """

    value: float
    error: float
    interval: tuple[float, float]
    p_positive: float
    clusters: int


def moving_blocks(n: int, length: int, count: int, rng: np.random.Generator) -> Ints:
    """Draw where the blocks of resampled series of `n` values begin.

    Parameters
    ----------
    n, length : int
        Values of the series and of a block.
    count : int
        How many series are drawn.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray of int64, shape (count, ceil(n / length))
        First places; the last block of a series may reach beyond `n` values.
    """
    return rng.integers(0, n - length + 1, size=(count, -(-n // length)))


def blocked_mean(
    values: Floats, length: int, *, count: int, level: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Interval of the mean of a correlated series, by the moving-block bootstrap (Kuensch 1989).

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        The series; finite.
    length : int
        Values of a block.
    count : int
        How many series are drawn.
    level : float
        Confidence level.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    (float, float)
        Percentiles of the means.
    """
    starts = moving_blocks(len(values), length, count, rng)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means = (sums[starts + length] - sums[starts]).mean(axis=1) / length
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_ratio(
    gain: Floats, duration: Floats, cell: Ints, cluster: Ints, *, level: float, rng: np.random.Generator
) -> Ratio:
    """Rate with a hierarchical bootstrap: clusters (initial conditions) are drawn, then the twins within their cells.

    Parameters
    ----------
    gain, duration : ndarray of float64, shape (C,)
        Growth of the logarithm of each curve, and the time it took.
    cell : ndarray of int64, shape (C,)
        Curves of one cell are copies of each other (one initial condition, one start); their mean counts.
    cluster : ndarray of int64, shape (C,)
        Cells of one cluster are not independent.
    level : float
        Confidence level.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    Ratio
        The rate; the interval is Student's, with the bootstrap's standard error and the number of clusters less one
        as degrees of freedom, because percentiles of few clusters are too narrow.
    """
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
        pick = order[begin[here] + (rng.random((count, int(here.sum()))) * copies[here]).astype(np.int64)]
        gains[:, here] += gain[pick] / copies[here]
        times[:, here] += duration[pick] / copies[here]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (weight * gains).sum(axis=1) / (weight * times).sum(axis=1)
    return np.where(np.isfinite(ratio), ratio, 0.0)


def sign_flip_p(evidence: Floats, *, rng: np.random.Generator) -> float:
    """Probability that the mean is at least this large if the signs of the independent contributions were random.

    Parameters
    ----------
    evidence : ndarray of float64, shape (n,)
        Contributions, positive where they speak against the null.
    rng : numpy.random.Generator
        Source of the signs.

    Returns
    -------
    float
        ``(k + 1) / (n + 1)`` with k of n resamples at least as large; NaN without contributions.
    """
    if len(evidence) == 0:
        return float("nan")
    observed = float(evidence.mean())
    signs = rng.integers(0, 2, size=(N_RESAMPLES, len(evidence))) * 2.0 - 1.0
    reached = int(np.sum(signs @ evidence / len(evidence) >= observed * (1 - 1e-12)))
    return (reached + 1) / (N_RESAMPLES + 1)


def power_evidence(time: Floats, curves: Floats, begin: Ints, stop: Ints, blocks: int = 1) -> Floats:
    r"""How much better an exponential describes each curve than a power law or diffusion does.

    Parameters
    ----------
    time : ndarray of float64, shape (K,)
        Time since the perturbation.
    curves : ndarray of float64, shape (C, K)
        Natural logarithms of distances.
    begin, stop : ndarray of int64, shape (C,)
        First and last point of each curve that counts.
    blocks : int
        Stretches of time that the evidence is split into.

    Returns
    -------
    ndarray of float64, shape (C, blocks)
        Difference of the squared residuals, null minus exponential, over their sum over the whole curve: the row sums
        lie between -1 (the null fits exactly) and 1 (the exponential does). NaN for curves of fewer than four points.

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
    """`power_evidence` for any null that gives its own residuals, and the curves that the null comes to.

    Parameters
    ----------
    time, curves, begin, stop, blocks
        As in `power_evidence`.
    null : callable or None
        From centred curves (C, K), their mask (C, K), the points of each curve (C,) and the times (K,) to the
        residuals (C, K) of the null that describes them best. None: power laws and diffusion.

    Returns
    -------
    evidence : ndarray of float64, shape (C, blocks)
        As `power_evidence`.
    fitted : ndarray of float64, shape (C, K)
        The best the null can do for each curve, natural logarithms; NaN where nothing was compared.
    """
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
    # A walk without drift is the power law with alpha = 1/2: only drift alone, and mixtures, are shapes of their own.
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
