"""The correlation dimension of the set that a trajectory fills (Grassberger and Procaccia 1983, Takens 1985)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.embedding import embed, estimate_delay
from trajtools.errors import DataError
from trajtools.neighbors.search import evenly
from trajtools.reasons import Reason
from trajtools.results import Result
from trajtools.statistics import window_fits
from trajtools.structure.correlation_sum import CorrelationSum, Pairs, find_pairs, sum_of, takens_estimate
from trajtools.types import Floats, Ints, RealArrayLike, RNGLike, StatesLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.distances.metric import MetricLike

DIMENSION_VERDICTS = ("finite", "space-filling", "inconclusive")


# Choices of this toolkit; all of them are kept in the settings of a result.
LARGEST_SHARE = 0.1  # of all pairs may be inside the largest radius: beyond, the edge of the set is felt


LARGEST_ERROR = 0.1  # relative standard error of C at the smallest radius
FEWEST_PAIRS = 30
BEND = 0.05  # relative difference of the slopes in the lower and upper half of a window
SHORTEST = float(np.log(4.0))  # width of a window in ln r
DRAWS = 400


# Choices of this toolkit, kept in the settings of every result.
DIMS = (1, 2, 3, 4, 5, 6, 7)


FILLED = 0.85  # of the dimension of the space counts as all of it: the edge of a set lowers its slope so much
SATURATED = 0.07  # relative change of the slope over the last three embedding dimensions
VAGUE = 0.25  # half width of the interval, relative to the slope, above which it says nothing
RETURNS = 0.5  # of the mean time between all pairs must lie between close ones
LONGEST_WINDOW = 0.2  # of the record may be the Theiler window
EXCESS = 1.15  # times the dimension of the space is more than a set in it can have
_RETURN_STATES = 1024
_COUNTED = 0.3  # of all pairs are inside the largest radius; what lies beyond tells of the edge of the set alone


@dataclass(frozen=True, eq=False)
class Dimension(Result):
    """The correlation dimension of the set that a trajectory fills, with its doubt.

    Attributes
    ----------
    value : float
        Slope of ln C against ln r in the scaling region; NaN where there is none.
    interval : (float, float)
        From resampling blocks of reference states and the windows inside the region; (NaN, NaN) where unknown.
    level : float
        Confidence level of the interval.
    verdict : str
        ``"finite"``: a set of this dimension, smaller than the space it lies in. ``"space-filling"``: it fills the
        space as noise does; its dimension is that of the space, or larger. ``"inconclusive"``: see `reasons`.
    reasons : tuple of Reason
        Why, in sentences with numbers.
    region : (float, float)
        Smallest and largest radius of the scaling region.
    window_values : ndarray of float64, shape (W,)
        The slope over every admissible window in the region: what another choice would have given.
    takens : float
        Takens' maximum-likelihood estimate from the pairs closer than `takens_radius`.
    takens_interval : (float, float)
        From the same blocks.
    takens_radius : float
        The geometric middle of the region.
    bound : float
        Largest dimension that so many states can show, 2 log10 N (Eckmann and Ruelle 1992).
    space : int
        Dimension of the space of the states; 0 where only distances are known.
    dims : ndarray of int64, shape (m,)
        Embedding dimensions, where a series was given; empty otherwise.
    dim_values : ndarray of float64, shape (m,)
        The slope in each of them.
    dim_intervals : ndarray of float64, shape (m, 2)
        Their intervals.
    correlation_sums : tuple of CorrelationSum
        One for each embedding dimension, or the one of the states; the last is where `value` comes from.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of Reason
        What the reader should know.
    """

    value: float
    interval: tuple[float, float]
    level: float
    verdict: str
    reasons: tuple[Reason, ...]
    region: tuple[float, float]
    window_values: Floats
    takens: float
    takens_interval: tuple[float, float]
    takens_radius: float
    bound: float
    space: int
    dims: Ints
    dim_values: Floats
    dim_intervals: Floats
    correlation_sums: tuple[CorrelationSum, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the local slopes and the region; see `trajtools.plots.correlation_dimension`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn.
        """
        from trajtools import plots

        return plots.correlation_dimension(self, ax=ax)


def correlation_dimension(
    x: StatesLike | Distances,
    radii: RealArrayLike | float | None = None,
    *,
    metric: MetricLike = "l2",
    theiler: int | None = None,
    dims: int | Sequence[int] | None = None,
    delay: int | None = None,
    level: float = 0.95,
    rng: RNGLike = 0,
) -> Dimension:
    r"""Correlation dimension: how fast the number of close pairs grows with the radius.

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,); or Distances, shape (T, T)
        States of one trajectory, or their distances; or a series (T,) or (T, 1), which is embedded.
    radii : array_like of float or None, shape (R,)
        None: from the data, as for `correlation_sum`, but only up to where about 30 % of the pairs are inside.
    metric : str or callable
        As for `correlation_sum`.
    theiler : int or None, in samples
        Pairs closer in time are not counted; None: from the data, see `correlation_sum`.
    dims : int, sequence of int or None
        Embedding dimensions for a series; None: 1 to 7, as far as half of the series is left. ``dims=1`` takes the
        series as the state that it is. Not for states or distances.
    delay : int or None, in samples
        Delay of the embedding; None: first minimum of the mutual information, see `estimate_delay`.
    level : float
        Confidence level of the intervals.
    rng : int, numpy.random.Generator or None
        Source of the resampling; the same seed gives the same bits.

    Returns
    -------
    Dimension
        Value, interval, verdict and reasons, and the correlation sums behind them.

    Raises
    ------
    DataError
        If the data cannot be analysed so, or no two states differ.
    UnknownNameError
        If the metric is unknown.

    Notes
    -----
    The scaling region is the longest window of radii, at least a factor of 4, with at most a tenth of all pairs inside
    and C(r) known to 10 %, in which the slopes of the two halves agree within 5 %; no goodness of fit is asked for,
    every correlation sum looks straight to it. The interval comes from resampling blocks of reference states together
    with the windows inside the region; a bias, such as that from the edge of the set, is not in it. Takens' estimate
    [2]_ uses all pairs below one radius and no line.

    A verdict ``"finite"`` says that the slope is smaller than the dimension of the space, and, for a series, that it
    stops growing with the embedding dimension. It does not say that the dynamics is deterministic: noise with a steep
    spectrum has a finite dimension, too (Osborne and Provenzale 1989); compare with surrogates.

    References
    ----------
    .. [1] P. Grassberger, I. Procaccia, Phys. Rev. Lett. 50, 346 (1983), doi:10.1103/PhysRevLett.50.346
    .. [2] F. Takens, in Lecture Notes in Mathematics 1125, 99 (1985), doi:10.1007/BFb0075637
    .. [3] J.-P. Eckmann, D. Ruelle, Physica D 56, 185 (1992), doi:10.1016/0167-2789(92)90023-G

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 2000)
    >>> d = tt.correlation_dimension(np.stack([np.cos(angle), np.sin(angle)], axis=1), theiler=1)
    >>> d.verdict, bool(abs(d.value - 1) < 0.05)
    ('finite', True)
    """
    if not 0 < level < 1:
        raise DataError(f"level={level!r}: a confidence level lies between 0 and 1, such as 0.95")
    generator = np.random.default_rng(rng)
    series = _series(x, metric)
    if series is None:
        if dims is not None or delay is not None:
            raise DataError(f"dims={dims!r} and delay={delay!r} are for a series (T,); states are not embedded again")
        pairs = find_pairs(x, metric=metric, theiler=theiler)
        sums = sum_of(pairs, radii, _COUNTED)
        return _answer([(pairs, sums, find_scaling(sums, level, generator))], level, {})
    asked = _checked_dims(dims)
    lag, settings = _delay(series, delay, asked)
    if dims is None:  # of the default ones, those that leave half of a short series
        asked = tuple(dim for dim in asked if 2 * (dim - 1) * lag <= len(series))
    found: list[Found] = []
    for dim in asked:
        # One window for all: the coordinates of every embedding are the same series.
        window = theiler if theiler is not None else (found[0][0].theiler if found else None)
        pairs = find_pairs(embed(series, dim, lag), metric=metric, theiler=window)
        sums = sum_of(pairs, radii, _COUNTED)
        found.append((pairs, sums, find_scaling(sums, level, generator)))
    return _answer(found, level, settings | {"dims": asked, "delay": lag})


def _series(x: Any, metric: Any) -> Any:
    """The values (T,) if `x` is a series, else None."""
    if isinstance(x, Distances) or (isinstance(metric, str) and metric == "precomputed"):
        return None
    shape = x.shape if hasattr(x, "shape") else np.shape(x)
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        values = np.asarray(x).reshape(-1)
        if values.dtype.kind not in "fiub":
            raise DataError(f"a series holds real numbers; this one has dtype {values.dtype}")
        return values.astype(np.float64)
    return None


def _checked_dims(dims: int | Sequence[int] | None) -> tuple[int, ...]:
    asked = DIMS if dims is None else tuple(np.atleast_1d(np.asarray(dims)).tolist())
    if not asked or not all(isinstance(d, int) and d >= 1 for d in asked):
        raise DataError(f"dims={dims!r}: embedding dimensions are whole numbers from 1 on")
    return tuple(sorted(set(asked)))


def _delay(series: Any, delay: int | None, dims: tuple[int, ...]) -> tuple[int, dict[str, Any]]:
    if delay is not None or dims == (1,):
        return (1 if delay is None else delay), {"delay_why": "as given" if delay is not None else "not embedded"}
    choice = estimate_delay(series)
    return choice.value, {"delay_why": choice.reason}


def _answer(found: list[Found], level: float, settings: dict[str, Any]) -> Dimension:
    """Put together what was found, for one set of states or for several embedding dimensions."""
    known = [each for each in found if np.isfinite(each[2].value)]
    pairs, sums, scaling = known[-1] if known else found[-1]
    bound = 2 * float(np.log10(max(sums.n_states, 1)))
    verdict, reasons = _verdict(found, known, bound)
    embedded = "dims" in settings
    return Dimension(
        value=scaling.value,
        interval=scaling.interval,
        level=level,
        verdict=verdict,
        reasons=reasons,
        region=scaling.region,
        window_values=scaling.window_values,
        takens=scaling.takens,
        takens_interval=scaling.takens_interval,
        takens_radius=scaling.takens_radius,
        bound=bound,
        space=pairs.space,
        dims=np.array(settings.get("dims", ()), dtype=np.int64),
        dim_values=np.array([s.value for _, _, s in found if embedded]),
        dim_intervals=np.array([s.interval for _, _, s in found if embedded]).reshape(-1, 2),
        correlation_sums=tuple(c for _, c, _ in found),
        settings={
            **sums.settings,
            "n_states": sums.n_states,
            "n_excluded": sums.n_excluded,
            **choices(),
            "filled": FILLED,
            "saturated": SATURATED,
            "vague": VAGUE,
            "returns": RETURNS,
            "longest_window": LONGEST_WINDOW,
            "excess": EXCESS,
            **settings,
        },
        warnings=tuple(dict.fromkeys(w for _, c, _ in found for w in c.warnings)),
    )  # fmt: skip


def _verdict(found: list[Found], known: list[Found], bound: float) -> tuple[str, tuple[Reason, ...]]:
    """Say what the slopes mean, and why."""
    if not known:
        reason = found[-1][2].reason
        return "inconclusive", (reason,) if reason is not None else ()
    pairs, sums, scaling = known[-1]
    value, half = scaling.value, (scaling.interval[1] - scaling.interval[0]) / 2
    if scaling.reason is not None:  # states that repeat exactly
        return "finite", (scaling.reason,)
    slope = Reason.of(
        "slope",
        "the slope is {slope:.3g} from r={first:.3g} to {last:.3g}, [{low:.3g}, {high:.3g}]",
        slope=value,
        first=scaling.region[0],
        last=scaling.region[1],
        low=scaling.interval[0],
        high=scaling.interval[1],
    )
    doubts = []
    if value > bound:
        words = "{states} states can show a dimension of at most 2 log10 N = {bound:.2g}"
        doubts.append(Reason.of("too-few-states", words, states=sums.n_states, bound=bound))
    if not half <= VAGUE * max(value, VAGUE):
        words = "the interval is wider than {share:.0%} of the value to either side"
        doubts.append(Reason.of("wide-interval", words, share=VAGUE))
    if value > EXCESS * pairs.space > 0:
        words = "that is more than the dimension of the space, {space}: no scaling of a set"
        doubts.append(Reason.of("exceeds-space", words, space=pairs.space))
    length = len(pairs.usable)
    if pairs.theiler > LONGEST_WINDOW * length:
        words = "the Theiler window, {theiler} of {samples} samples, leaves too few independent states"
        doubts.append(Reason.of("long-theiler-window", words, theiler=pairs.theiler, samples=length))
    share = _time_between_close(pairs, scaling)
    if share < RETURNS:
        words = (
            "close pairs are {share:.0%} as far apart in time as all pairs: the states drift and hardly return, so the "
            "slope is that of a path and not of a set"
        )
        doubts.append(Reason.of("drift", words, share=share))
    if doubts:
        return "inconclusive", (slope, *doubts)
    verdict, reason = _compared_with_space(found, known)
    return verdict, (slope, reason)


def _time_between_close(pairs: Pairs, scaling: Scaling) -> float:
    """Mean time between close states over the mean time between all: 1 where they return, small where they drift."""
    sample = evenly(np.flatnonzero(pairs.usable), _RETURN_STATES)
    distance = pairs.between(sample, sample)
    lag = np.abs(sample[:, None] - sample[None, :])
    apart = (lag >= pairs.theiler) & np.isfinite(distance)
    if not apart.any():
        return float("nan")
    # At least one pair in a hundred: a small sample may hold none within the region.
    limit = max(scaling.region[1], float(np.quantile(distance[apart], 0.01)))
    return float(lag[apart & (distance <= limit)].mean() / lag[apart].mean())


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
    reason : Reason or None
        Why there is no region, and why the dimension is 0 if it is known without one; empty where there is one.
    """

    value: float
    interval: tuple[float, float]
    region: tuple[float, float]
    window_values: Floats
    takens: float
    takens_interval: tuple[float, float]
    takens_radius: float
    reason: Reason | None = None


def _compared_with_space(found: list[Found], known: list[Found]) -> tuple[str, Reason]:
    value, space = known[-1][2].value, known[-1][0].space
    if space and value >= FILLED * space and (len(found) == 1 or space > 1):
        words = "that is the dimension of the space, {space}: a set this large, or noise"
        return "space-filling", Reason.of("fills-space", words, space=space)
    if len(found) == 1 and space:
        return "finite", Reason.of("below-space", "smaller than that of the space, {space}", space=space)
    if len(found) == 1:
        return "finite", Reason("space-unknown", "the distances do not tell that of the space")
    values = [each[2].value for each in known]
    if len(values) < 3:
        words = "there is a scaling region in {dimensions} embedding dimensions: saturation takes 3"
        return "inconclusive", Reason.of("too-few-dimensions", words, dimensions=len(values))
    growth = abs(values[-1] - values[-3]) / max(abs(values[-1]), VAGUE)
    last = "from embedding dimension {first} to {last} it changes by {change:.1%}: "
    numbers = {"first": known[-3][0].space, "last": space, "change": growth}
    if growth <= SATURATED:
        return "finite", Reason.of("saturated", last + "it is saturated", **numbers)
    return "inconclusive", Reason.of("not-saturated", last + "it is not saturated", **numbers)


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
    if reason is not None:
        return no_scaling(reason)
    x, curves = np.log(sums.radii[span]), np.vstack([log_c[span], drawn[:, span]])
    starts, stops = _windows(x)
    if not len(starts):
        words = (
            "C(r) is known well enough from r={first:.3g} to {last:.3g}, which is less than a factor of 4: too few "
            "states for this dimension"
        )
        numbers = {"first": sums.radii[span.start], "last": sums.radii[span.stop - 1]}
        return no_scaling(Reason.of("too-few-states", words, **numbers))
    slopes, _, _ = window_fits(x, curves, starts, stops)
    straight = np.flatnonzero(_bend(x, curves[:1], starts, stops) <= BEND * np.maximum(np.abs(slopes[0]), BEND))
    if not len(straight):
        words = "in no window of a factor of 4 in r do the two halves have slopes within {share:.0%}: no scaling"
        return no_scaling(Reason.of("no-scaling", words, share=BEND))
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


def _drawn(sums: CorrelationSum, weights: Ints) -> tuple[Floats, Floats]:
    """Return ln C (R,) and its redrawn curves (DRAWS, R)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_c = np.log(sums.correlation)
        drawn = np.log(weights @ sums.block_counts) - np.log(weights @ sums.block_pairs)[:, None]
        return log_c, log_c + 2 * (drawn - log_c)


def _span(sums: CorrelationSum) -> tuple[slice, Reason | None]:
    """Radii at which C is known and small."""
    blocks = len(sums.block_pairs)
    excess = sums.block_counts - np.outer(sums.block_pairs, sums.correlation)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = 2 * np.sqrt((excess**2).sum(axis=0) * blocks / (blocks - 1)) / sums.block_counts.sum(axis=0)
    good = np.flatnonzero(
        (sums.counts >= FEWEST_PAIRS) & (error <= LARGEST_ERROR) & (sums.correlation <= LARGEST_SHARE)
    )
    if len(good):
        return slice(int(good[0]), int(good[-1]) + 1), None
    return slice(0), Reason.of(
        "too-few-states",
        "at no radius with at most {share:.0%} of all pairs is C(r) known to {error:.0%}: {states} states are too few, "
        "or they hardly return",
        share=LARGEST_SHARE,
        error=LARGEST_ERROR,
        states=sums.n_states,
    )


def _windows(x: Floats) -> tuple[Ints, Ints]:
    start, stop = np.meshgrid(np.arange(len(x)), np.arange(len(x)) + 1, indexing="ij")
    wide = (stop - start >= 4) & (x[np.minimum(stop, len(x)) - 1] - x[start] >= SHORTEST * (1 - 1e-9))
    return start[wide], stop[wide]


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


def _points(sums: CorrelationSum) -> Scaling:
    """A few states that come again and again have dimension 0, whatever the radii between them."""
    words = "{zeros} of {pairs} pairs of states are equal: the same states repeat exactly"
    repeats = Reason.of("repeats", words, zeros=sums.zero_pairs, pairs=sums.n_pairs)
    return replace(no_scaling(repeats), value=0.0, takens=0.0)


def no_scaling(reason: Reason) -> Scaling:
    """Say why there is no region."""
    unknown = (float("nan"), float("nan"))
    return Scaling(float("nan"), unknown, unknown, np.empty(0), float("nan"), unknown, float("nan"), reason)


def _quantiles(values: Floats, tails: tuple[float, float]) -> tuple[float, float]:
    if not np.isfinite(values).all() or not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, tails)
    return float(low), float(high)


def _bend(x: Floats, curve: Floats, starts: Ints, stops: Ints) -> Floats:
    middle = (starts + stops) // 2
    lower, _, _ = window_fits(x, curve, starts, middle + 1)
    upper, _, _ = window_fits(x, curve, middle, stops)
    return np.abs(upper - lower)[0]


Found = tuple[Pairs, CorrelationSum, Scaling]
