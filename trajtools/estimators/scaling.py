"""Where a correlation sum is a power law, and its slope there, with the slopes that other choices would have given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trajtools.fitting import window_fits
from trajtools.structure.correlation_sum import CorrelationSum, takens_estimate
from trajtools.types import Floats, Ints

# Choices of this toolkit; all of them are kept in the settings of a result.
LARGEST_SHARE = 0.1  # of all pairs may be inside the largest radius: beyond, the edge of the set is felt
LARGEST_ERROR = 0.1  # relative standard error of C at the smallest radius
FEWEST_PAIRS = 30
BEND = 0.05  # relative difference of the slopes in the lower and upper half of a window
SHORTEST = float(np.log(4.0))  # width of a window in ln r
DRAWS = 400


@dataclass(frozen=True, eq=False)
class Scaling:
    """A scaling region.

    Attributes
    ----------
    value : float
        Its slope; NaN where there is no region.
    interval : (float, float)
        Of the slope.
    region : (float, float)
        Radii.
    window_values : ndarray of float64, shape (W,)
        Slopes of the admissible windows inside.
    takens, takens_radius : float
        Takens' estimate and the radius it is for.
    takens_interval : (float, float)
        Of the estimate.
    reason : str
        Why there is no region, and why the dimension is 0 if it is known without one; empty where there is one.
    """

    value: float
    interval: tuple[float, float]
    region: tuple[float, float]
    window_values: Floats
    takens: float
    takens_interval: tuple[float, float]
    takens_radius: float
    reason: str = ""


def choices() -> dict[str, Any]:
    """The choices behind a region, for the settings of a result."""
    return {
        "largest_share_of_pairs": LARGEST_SHARE,
        "largest_relative_error": LARGEST_ERROR,
        "fewest_pairs": FEWEST_PAIRS,
        "largest_bend": BEND,
        "shortest_window": SHORTEST,
        "draws": DRAWS,
    }


def no_scaling(reason: str) -> Scaling:
    """Say why there is no region."""
    unknown = (float("nan"), float("nan"))
    return Scaling(float("nan"), unknown, unknown, np.empty(0), float("nan"), unknown, float("nan"), reason)


def find_scaling(sums: CorrelationSum, level: float, rng: np.random.Generator) -> Scaling:
    r"""Find the longest window of radii in which ln C is straight.

    Notes
    -----
    Both states of a pair are random, resampling the blocks of the first one moves only one of them: to first order
    (Hoeffding) the deviation of a correlation sum is twice that of the resampled one, and it is doubled here. Each draw
    also takes one of the admissible windows at least half as long as the region, so that the interval holds the doubt
    about the window.
    """
    weights = rng.multinomial(len(sums.block_pairs), np.full(len(sums.block_pairs), 1 / len(sums.block_pairs)), DRAWS)
    log_c, drawn = _drawn(sums, weights)
    if sums.zero_pairs > LARGEST_SHARE * sums.n_pairs:
        return _points(sums)
    span, reason = _span(sums)
    if reason:
        return no_scaling(reason)
    x, curves = np.log(sums.radii[span]), np.vstack([log_c[span], drawn[:, span]])
    starts, stops = _windows(x)
    if not len(starts):
        return no_scaling(
            f"C(r) is known well enough from r={sums.radii[span.start]:.3g} to {sums.radii[span.stop - 1]:.3g}, which "
            "is less than a factor of 4: too few states for this dimension"
        )
    slopes, _, _ = window_fits(x, curves, starts, stops)
    straight = np.flatnonzero(_bend(x, curves[:1], starts, stops) <= BEND * np.maximum(np.abs(slopes[0]), BEND))
    if not len(straight):
        return no_scaling(
            f"in no window of a factor of 4 in r do the slopes of the two halves agree within {BEND:.0%}: no scaling"
        )
    width = (stops - starts)[straight]
    best = straight[np.lexsort((starts[straight], -width))[0]]
    inside = straight[
        (starts[straight] >= starts[best])
        & (stops[straight] <= stops[best])
        & (2 * width >= stops[best] - starts[best])
    ]
    tails = ((1 - level) / 2, (1 + level) / 2)
    drawn_slopes = slopes[1 + np.arange(DRAWS), rng.choice(inside, DRAWS)]
    radii = sums.radii[span]
    middle = int((starts[best] + stops[best] - 1) // 2) + span.start
    estimate, estimates = _takens(sums, weights, middle)
    return Scaling(
        float(slopes[0, best]),
        _quantiles(drawn_slopes, tails),
        (float(radii[starts[best]]), float(radii[stops[best] - 1])),
        slopes[0, inside],
        estimate,
        _quantiles(estimates, tails),
        float(sums.radii[middle]),
    )


def _points(sums: CorrelationSum) -> Scaling:
    """A few states that come again and again have dimension 0, whatever the radii between them."""
    words = f"{sums.zero_pairs} of {sums.n_pairs} pairs of states are equal: the same states repeat exactly"
    return replace(no_scaling(words), value=0.0, takens=0.0)


def _drawn(sums: CorrelationSum, weights: Ints) -> tuple[Floats, Floats]:
    """Return ln C (R,) and its redrawn curves (DRAWS, R)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_c = np.log(sums.correlation)
        drawn = np.log(weights @ sums.block_counts) - np.log(weights @ sums.block_pairs)[:, None]
        return log_c, log_c + 2 * (drawn - log_c)


def _span(sums: CorrelationSum) -> tuple[slice, str]:
    """Radii at which C is known and small."""
    blocks = len(sums.block_pairs)
    excess = sums.block_counts - np.outer(sums.block_pairs, sums.correlation)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = 2 * np.sqrt((excess**2).sum(axis=0) * blocks / (blocks - 1)) / sums.block_counts.sum(axis=0)
    good = np.flatnonzero(
        (sums.counts >= FEWEST_PAIRS) & (error <= LARGEST_ERROR) & (sums.correlation <= LARGEST_SHARE)
    )
    if len(good):
        return slice(int(good[0]), int(good[-1]) + 1), ""
    return slice(0), (
        f"at no radius with at most {LARGEST_SHARE:.0%} of all pairs is C(r) known to {LARGEST_ERROR:.0%}: "
        f"{sums.n_states} states are too few, or they hardly return"
    )


def _windows(x: Floats) -> tuple[Ints, Ints]:
    start, stop = np.meshgrid(np.arange(len(x)), np.arange(len(x)) + 1, indexing="ij")
    wide = (stop - start >= 4) & (x[np.minimum(stop, len(x)) - 1] - x[start] >= SHORTEST * (1 - 1e-9))
    return start[wide], stop[wide]


def _bend(x: Floats, curve: Floats, starts: Ints, stops: Ints) -> Floats:
    middle = (starts + stops) // 2
    lower, _, _ = window_fits(x, curve, starts, middle + 1)
    upper, _, _ = window_fits(x, curve, middle, stops)
    return np.abs(upper - lower)[0]


def _takens(sums: CorrelationSum, weights: Ints, at: int) -> tuple[float, Floats]:
    """Takens' estimate at one radius, and from the redrawn blocks."""
    columns = [at]
    logs = sums.block_logs[:, columns]
    drawn = takens_estimate(
        sums.radii[columns], weights @ sums.block_counts[:, columns], (weights @ sums.block_zeros)[:, None],
        weights @ logs,
    )[:, 0]  # fmt: skip
    estimate = float(sums.takens[at])
    return estimate, estimate + 2 * (drawn - estimate)


def _quantiles(values: Floats, tails: tuple[float, float]) -> tuple[float, float]:
    if not np.isfinite(values).all() or not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, tails)
    return float(low), float(high)
