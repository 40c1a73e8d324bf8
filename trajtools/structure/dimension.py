"""The correlation dimension of the set that a trajectory fills (Grassberger and Procaccia 1983, Takens 1985)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.embedding import embed, estimate_delay
from trajtools.errors import DataError
from trajtools.inputs import takes_states
from trajtools.neighbors.search import evenly
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.statistics import random_generator, window_fits
from trajtools.structure.correlation_sum import CorrelationSum, Pairs, find_pairs, sum_of, takens_estimate
from trajtools.trajectory import StatesLike
from trajtools.types import Floats, Ints, RealArrayLike, RNGLike
from trajtools.values import not_finite, training_steps
from trajtools.wording import bounds, spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.distances.metric import MetricLike


# Choices of this toolkit, listed in the settings of every result.
LARGEST_SHARE = 0.1  # of all pairs may be inside the largest radius: edge effects set in beyond


LARGEST_ERROR = 0.1  # relative standard error of C at the smallest radius
FEWEST_PAIRS = 30
BEND = 0.05  # relative difference of the slopes in the lower and upper half of a window
SHORTEST = float(np.log(4.0))  # width of a window in ln r
DRAWS = 400
LAG_RANGES = 32  # of lags, resampled
SHARED_LAGS = 0.5  # of the variance between them that states have in common, above which it counts
LAG_ERRORS = (1.0, 0.3, 0.0)  # share of their error that counts in the choice of radii, in turn
_LAG_ROWS, _LAG_STATES = 128, 16_384


# Choices of this toolkit, listed in the settings of every result.
DIMS = (1, 2, 3, 4, 5, 6, 7)


FILLED = 0.85  # of the dimension of the space counts as space-filling: edge effects lower the slope
SATURATED = 0.07  # relative change of the slope over the last three embedding dimensions
VAGUE = 0.25  # largest half width of a conclusive interval, relative to the slope
RETURNS = 0.5  # least mean time between close pairs, relative to that between all pairs
LONGEST_WINDOW = 0.2  # longest Theiler window, relative to the record
EXCESS = 1.15  # times the dimension of the space is impossible for a set in it
_RETURN_STATES = 1024
_COUNTED = 0.3  # of all pairs are inside the largest radius; beyond are edge effects only


@dataclass(frozen=True, eq=False, repr=False)
class Dimension(Result):
    """Correlation dimension of the set that a trajectory fills, with interval and verdict.

    Attributes
    ----------
    value : float
        Slope of ln C against ln r in the scaling region; NaN without a scaling region.
    interval : (float, float)
        Confidence interval from resampling blocks of reference states, windows and lags, including the bias from the
        edges of the set; (NaN, NaN) if unknown.
    level : float
        Confidence level of the interval.
    verdict : str
        ``"finite"``: a set of this dimension, smaller than that of the space. ``"space-filling"``: it fills the space
        like noise; its dimension is at least that of the space. ``"inconclusive"``: see `reasons`.
    reasons : tuple of Reason
        Reasons for it, with numbers.
    region : (float, float)
        Smallest and largest radius of the scaling region.
    window_values : ndarray of float64, shape (W,)
        The slope over every admissible window in the region.
    takens : float
        Takens' maximum-likelihood estimate from the pairs closer than `takens_radius`.
    takens_interval : (float, float)
        Its confidence interval, from the same blocks.
    takens_radius : float
        The geometric mean of the ends of the region.
    bound : float
        Largest dimension measurable from N states, 2 log10 N (Eckmann and Ruelle 1992).
    space : int
        Dimension of the space of the states; 0 for distances.
    dims : ndarray of int64, shape (m,)
        Embedding dimensions of a series; empty for states and distances.
    dim_values : ndarray of float64, shape (m,)
        The slope in each of them.
    dim_intervals : ndarray of float64, shape (m, 2)
        Their intervals.
    correlation_sums : tuple of CorrelationSum
        One per embedding dimension, or the one of the states; `value` comes from the last usable one.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import trajtools as tt
    >>> result = tt.correlation_dimension(tt.systems.henon().trajectory(1000, rng=0))
    >>> 1.0 < result.value < 1.4, result.verdict
    (True, 'finite')
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
    _dims: ClassVar[AxisNames] = {"dim_values": ("dims",), "dim_intervals": ("dims", "bound")}
    _one_row: ClassVar[bool] = True

    def _sentence(self) -> str:
        return {
            "finite": "The states lie on a set of this dimension, smaller than that of their space.",
            "space-filling": "The states fill their space, as noise does; their dimension is at least that of it.",
        }.get(self.verdict, "The data do not decide; the reasons say what is missing.")

    def _head(self) -> str:
        if np.isnan(self.value):
            return f"unknown: {self.verdict}"
        return f"{spoken(self.value)}, {self.level:.0%} interval {bounds(self.interval)}: {self.verdict}"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the local slopes and the region; see `trajtools.plots.correlation_dimension`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Axes to draw in; None: a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes of the plot.
        """
        from trajtools import plots

        return plots.correlation_dimension(self, ax=ax)


@takes_states("x")
def correlation_dimension(
    x: StatesLike | Distances,
    radii: RealArrayLike | float | None = None,
    *,
    metric: MetricLike = "l2",
    scale: str | None = None,
    theiler: int | None = None,
    dims: int | Sequence[int] | None = None,
    delay: int | None = None,
    most: int = 20_000,
    level: float = 0.95,
    rng: RNGLike = None,
) -> Dimension:
    r"""Correlation dimension: the scaling exponent of the number of close pairs with the radius.

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,); or Distances, shape (T, T)
        States of one trajectory, or their distances; or a series (T,) or (T, 1), which is embedded.
    radii : array_like of float or None, shape (R,)
        None: from the data, as in `correlation_sum`, up to a radius with about 30 % of the pairs.
    metric : str or callable
        As in `correlation_sum`.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    theiler : int or None, in samples
        Pairs closer in time are not counted; None: from the data, see `correlation_sum`.
    dims : int, sequence of int or None
        Embedding dimensions of a series; None: 1 to 7, limited so that half of the series is left. ``dims=1`` takes the
        values of the series as states. Not for states or distances.
    delay : int or None, in samples
        Delay of the embedding; None: first minimum of the mutual information, see `estimate_delay`.
    most : int
        Of more states every k-th is used, with k the smallest prime that leaves at most `most`, and a warning says so:
        the pairs of 10^6 states would take hours. Not for Distances. The windows of the correlation sums are then in
        units of k samples.
    level : float
        Confidence level of the intervals.
    rng : int, numpy.random.Generator or None
        Generator of the resampling; None is the seed 0.

    Returns
    -------
    Dimension
        Value, interval, verdict, reasons and the correlation sums.

    Raises
    ------
    DataError
        If the data are not suitable, or no two states differ.
    UnknownNameError
        If the metric is unknown.

    Notes
    -----
    The scaling region is the longest window of radii, at least a factor of 4, with at most a tenth of all pairs inside
    and C(r) known to 10 %, in which the slopes of the two halves agree within 5 %. A goodness of fit is no criterion:
    every correlation sum looks straight to it. The interval comes from resampling blocks of reference states together
    with the windows inside the region, and reaches to the slope at radius zero where edges of the set bend the curve,
    :math:`\ln C = a + D \ln r + b r` (a uniform cube: 2.9 in the region). Where the distance of two states depends on
    their lag alone, as on a torus, all states have the same close pairs, and only lags count as independent: they are
    resampled too. Takens' estimate [2]_ uses all pairs below one radius and needs no fit; its interval has neither.

    The verdict ``"finite"`` means that the slope is smaller than the dimension of the space and, for a series, that it
    saturates with the embedding dimension. It does not imply determinism: noise with a steep spectrum also has a finite
    dimension (Osborne and Provenzale 1989); compare with surrogates.

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
        raise DataError(f"level={level!r}; it must lie between 0 and 1, such as 0.95")
    generator = random_generator(rng)
    series = _series(x, metric)
    if series is None:
        if dims is not None or delay is not None:
            passed = [f"{name}={value!r}" for name, value in (("dims", dims), ("delay", delay)) if value is not None]
            raise DataError(f"{' and '.join(passed)}: only for a series (T,); states are not embedded")
        states, every, thinned = _thinned(x, metric, most)
        pairs = find_pairs(states, metric=metric, theiler=_shortened(theiler, every))
        sums = sum_of(pairs, radii, _COUNTED)
        scaling = find_scaling(sums, lag_deviations(pairs, sums, generator), level, generator)
        return _assemble([(pairs, sums, scaling)], level, {"every": every}, (*thinned, *_not_finite(x, pairs.usable)))
    dimensions = _checked_dims(dims)
    lag, settings = _delay(series, delay, dimensions)
    if dims is None:  # default dimensions that leave half of a short series
        dimensions = tuple(dim for dim in dimensions if 2 * (dim - 1) * lag <= len(series))
    estimates: list[Estimate] = []
    for dim in dimensions:
        # One window for all embeddings: their coordinates are the same series.
        states, every, thinned = _thinned(embed(series, dim, lag), metric, most)
        window = _shortened(theiler, every) if theiler is not None or not estimates else estimates[0][0].theiler
        pairs = find_pairs(states, metric=metric, theiler=window)
        sums = sum_of(pairs, radii, _COUNTED)
        deviations = lag_deviations(pairs, sums, generator)
        estimates.append((pairs, sums, find_scaling(sums, deviations, level, generator)))
    remarks = (*thinned, *_not_finite(x, np.isfinite(series), "samples"))
    return _assemble(estimates, level, settings | {"dims": dimensions, "delay": lag, "every": every}, remarks)


def _thinned(x: Any, metric: Any, most: int) -> tuple[Any, int, tuple[Reason, ...]]:
    """At most `most` states, evenly spaced in time, their spacing in samples, and a warning if it is not 1."""
    if isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 2:
        raise DataError(f"most={most!r}: it must be an integer, 2 or more")
    if isinstance(x, Distances) or (isinstance(metric, str) and metric == "precomputed") or len(x) <= most:
        return x, 1, ()
    # A prime: any other spacing may divide the period of a forcing, and all states would have the same phase.
    every = next(k for k in count(-(-len(x) // most)) if all(k % divisor for divisor in range(2, int(k**0.5) + 1)))
    text = "one of every {every} of {samples} states is used; most= sets the number"
    return np.asarray(x)[::every], every, (Reason.of("thinned", text, every=every, samples=len(x)),)


def _not_finite(x: Any, finite: Any, noun: str = "states") -> tuple[Reason, ...]:
    """Say which states or samples are left out; of a record that was thinned, how many of those that are left."""
    step = training_steps(x)
    known = step is not None and len(step) == len(finite)
    return not_finite(finite, step=np.asarray(step) if known else None, noun=noun)


def _shortened(theiler: int | None, every: int) -> int | None:
    """The user's Theiler window in units of `every` samples; what is invalid is refused where it is used."""
    return theiler if theiler is None or every == 1 else -(-theiler // every)


def _series(x: Any, metric: Any) -> Any:
    """The values (T,) if `x` is a series, else None."""
    if isinstance(x, Distances) or (isinstance(metric, str) and metric == "precomputed"):
        return None
    shape = x.shape if hasattr(x, "shape") else np.shape(x)
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        values = np.asarray(x).reshape(-1)
        if values.dtype.kind not in "fiub":
            raise DataError(f"a series must hold real numbers; this one has dtype {values.dtype}")
        return values.astype(np.float64)
    return None


def _checked_dims(dims: int | Sequence[int] | None) -> tuple[int, ...]:
    dimensions = DIMS if dims is None else tuple(np.atleast_1d(np.asarray(dims)).tolist())
    if not dimensions or not all(isinstance(d, int) and d >= 1 for d in dimensions):
        raise DataError(f"dims={dims!r}; embedding dimensions are positive integers")
    return tuple(sorted(set(dimensions)))


def _delay(series: Any, delay: int | None, dims: tuple[int, ...]) -> tuple[int, dict[str, Any]]:
    if delay is not None or dims == (1,):
        return (1 if delay is None else delay), {"delay_why": "as given" if delay is not None else "not embedded"}
    choice = estimate_delay(series)
    return choice.value, {"delay_why": choice.reason}


def _assemble(
    estimates: list[Estimate], level: float, settings: dict[str, Any], remarks: tuple[Reason, ...]
) -> Dimension:
    """Assemble the result of one set of states or of several embedding dimensions."""
    usable = [each for each in estimates if np.isfinite(each[2].value)]
    pairs, sums, scaling = usable[-1] if usable else estimates[-1]
    bound = 2 * float(np.log10(max(sums.n_states, 1)))
    verdict, reasons = _verdict(estimates, usable, bound)
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
        dim_values=np.array([s.value for _, _, s in estimates if embedded]),
        dim_intervals=np.array([s.interval for _, _, s in estimates if embedded]).reshape(-1, 2),
        correlation_sums=tuple(c for _, c, _ in estimates),
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
        warnings=(*remarks, *_warnings([each[1] for each in estimates])),
    )  # fmt: skip


def _warnings(sums: list[CorrelationSum]) -> tuple[Reason, ...]:
    """Return the warnings of all embedding dimensions, each once."""
    warnings = tuple(dict.fromkeys(w for each in sums for w in each.warnings))
    repeats = [w for w in warnings if w.code == "repeats"]
    if len(repeats) < 2:
        return warnings
    shares = [each.zero_pairs / each.n_pairs for each in sums if each.zero_pairs]
    text = (
        "{least:.2g} to {most:.2g} of the pairs are at distance zero, depending on the embedding dimension: they count "
        "in C(r), not in Takens' estimate"
    )
    merged = Reason.of("repeats", text, least=min(shares), most=max(shares))
    return (*(w for w in warnings if w.code != "repeats"), merged)


def _verdict(estimates: list[Estimate], usable: list[Estimate], bound: float) -> tuple[str, tuple[Reason, ...]]:
    """Return the verdict on the slopes, and the reasons."""
    if not usable:
        found = [each[2].reason for each in estimates if each[2].reason is not None]
        return "inconclusive", tuple([r for r in found if r.code == "repeats"][:1] or found[-1:])
    pairs, sums, scaling = usable[-1]
    value, half = scaling.value, (scaling.interval[1] - scaling.interval[0]) / 2
    slope = Reason.of(
        "slope",
        "the slope is {slope:.3g} from r={first:.3g} to {last:.3g}, [{low:.3g}, {high:.3g}]",
        slope=value,
        first=scaling.region[0],
        last=scaling.region[1],
        low=scaling.interval[0],
        high=scaling.interval[1],
    )
    reservations = []
    if value > bound:
        text = "the largest dimension measurable from {states} states is 2 log10 N = {bound:.2g}"
        reservations.append(Reason.of("too-few-states", text, states=sums.n_states, bound=bound))
    if not np.isfinite(half):
        reservations.append(Reason("wide-interval", "the interval is unknown"))
    elif half > VAGUE * max(value, VAGUE):
        text = "the interval extends over {share:.0%} of the value to either side"
        reservations.append(Reason.of("wide-interval", text, share=VAGUE))
    if value > EXCESS * pairs.space > 0:
        text = "the slope exceeds the dimension of the space, {space}"
        reservations.append(Reason.of("exceeds-space", text, space=pairs.space))
    length = len(pairs.usable)
    if pairs.theiler > LONGEST_WINDOW * length:
        text = "the Theiler window, {theiler} of {samples} samples, leaves too few independent states"
        reservations.append(Reason.of("long-theiler-window", text, theiler=pairs.theiler, samples=length))
    share = _time_between_close(pairs, scaling)
    if share < RETURNS:
        text = (
            "close pairs are {share:.0%} as far apart in time as all pairs: the states drift and hardly return, so the "
            "slope is that of a path, not of a set"
        )
        reservations.append(Reason.of("drift", text, share=share))
    if reservations:
        return "inconclusive", (slope, *reservations)
    verdict, reason = _compared_with_space(estimates, usable)
    return verdict, (slope, reason)


def _time_between_close(pairs: Pairs, scaling: Scaling) -> float:
    """Mean time between close states over that between all states: 1 if they return, small if they drift."""
    sample = evenly(np.flatnonzero(pairs.usable), _RETURN_STATES)
    distance = pairs.between(sample, sample)
    lag = np.abs(sample[:, None] - sample[None, :])
    apart = (lag >= pairs.theiler) & np.isfinite(distance)
    if not apart.any():
        return float("nan")
    # At least one pair in a hundred: a small sample may have none within the region.
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
        Interval of the slope.
    region : (float, float)
        Radii.
    window_values : ndarray of float64, shape (W,)
        Slopes of the admissible windows inside.
    takens, takens_radius : float
        Takens' estimate and its radius.
    takens_interval : (float, float)
        Interval of the estimate.
    reason : Reason or None
        Why there is no region; None with one.
    """

    value: float
    interval: tuple[float, float]
    region: tuple[float, float]
    window_values: Floats
    takens: float
    takens_interval: tuple[float, float]
    takens_radius: float
    reason: Reason | None = None


def _compared_with_space(estimates: list[Estimate], usable: list[Estimate]) -> tuple[str, Reason]:
    value, space = usable[-1][2].value, usable[-1][0].space
    if space and value >= FILLED * space and (len(estimates) == 1 or space > 1):
        text = "the slope is the dimension of the space, {space}: a space-filling set, or noise"
        return "space-filling", Reason.of("fills-space", text, space=space)
    if len(estimates) == 1 and space:
        return "finite", Reason.of("below-space", "it is smaller than the dimension of the space, {space}", space=space)
    if len(estimates) == 1:
        return "finite", Reason("space-unknown", "the dimension of the space is unknown for distances")
    values = [each[2].value for each in usable]
    if len(values) < 3:
        text = (
            "{dimensions} of {tried} embedding dimensions have a scaling region, the largest is {last}, and saturation "
            "takes 3: the slope need not be the dimension of an attractor"
        )
        counts = {"dimensions": len(values), "tried": len(estimates), "last": space}
        return "inconclusive", Reason.of("too-few-dimensions", text, **counts)
    growth = abs(values[-1] - values[-3]) / max(abs(values[-1]), VAGUE)
    last = "from embedding dimension {first} to {last} it changes by {change:.1%}: "
    numbers = {"first": usable[-3][0].space, "last": space, "change": growth}
    if growth <= SATURATED:
        return "finite", Reason.of("saturated", last + "it is saturated", **numbers)
    return "inconclusive", Reason.of("not-saturated", last + "it is not saturated", **numbers)


def choices() -> dict[str, Any]:
    """Constants behind a scaling region, for the settings of a result."""
    return {
        "largest_share_of_pairs": LARGEST_SHARE,
        "largest_relative_error": LARGEST_ERROR,
        "shared_lags": SHARED_LAGS,
        "fewest_pairs": FEWEST_PAIRS,
        "largest_bend": BEND,
        "shortest_window": SHORTEST,
        "draws": DRAWS,
    }


def find_scaling(sums: CorrelationSum, deviations: Floats, level: float, rng: np.random.Generator) -> Scaling:
    r"""Find the longest window of radii in which ln C is straight.

    Notes
    -----
    Resampling the blocks of the first state of a pair moves only one of the two random states: to first order
    (Hoeffding) the deviation of a correlation sum is twice that of the resampled one, hence doubled here. Each draw
    also takes one of the admissible windows at least half as long as the region, so that the interval includes the
    uncertainty of the window. `deviations` are those of ln C from `lag_deviations`.
    """
    weights = rng.multinomial(len(sums.block_pairs), np.full(len(sums.block_pairs), 1 / len(sums.block_pairs)), DRAWS)
    log_c, resampled = _resampled(sums, weights)
    resampled = resampled + deviations
    if sums.zero_pairs > LARGEST_SHARE * sums.n_pairs:
        return no_scaling(_coincidence(sums))
    # Few lags leave no radius that is known well: then their error counts less in the choice, and the interval is wide.
    lag_error = deviations.std(axis=0)
    for counted in LAG_ERRORS if lag_error.any() else LAG_ERRORS[:1]:
        span, reason = _span(sums, counted * lag_error)
        starts, stops = _windows(np.log(sums.radii[span]))
        if len(starts):
            break
    if reason is not None:
        return no_scaling(reason)
    x, curves = np.log(sums.radii[span]), np.vstack([log_c[span], resampled[:, span]])
    if not len(starts):
        text = (
            "C(r) is known well enough from r={first:.3g} to {last:.3g} only, less than a factor of 4: too few "
            "states for this dimension"
        )
        numbers = {"first": sums.radii[span.start], "last": sums.radii[span.stop - 1]}
        return no_scaling(Reason.of("too-few-states", text, **numbers))
    slopes, _, _ = window_fits(x, curves, starts, stops)
    # Shared lags bend the curve by chance: the slopes of the halves may differ by their error.
    allowed = BEND * np.maximum(np.abs(slopes[0]), BEND)
    if deviations.any():
        allowed = np.maximum(allowed, 2 * _bend(x, deviations[:, span], starts, stops).std(axis=0))
    straight = np.flatnonzero(np.abs(_bend(x, curves[:1], starts, stops)[0]) <= allowed)
    if not len(straight):
        text = "no window of a factor of 4 in r has slopes of its halves within {share:.0%}: no scaling"
        return no_scaling(Reason.of("no-scaling", text, share=BEND))
    width = (stops - starts)[straight]
    best = straight[np.lexsort((starts[straight], -width))[0]]
    inside = straight[
        (starts[straight] >= starts[best])
        & (stops[straight] <= stops[best])
        & (2 * width >= stops[best] - starts[best])
    ]
    tails = ((1 - level) / 2, (1 + level) / 2)
    drawn_slopes = slopes[1 + np.arange(DRAWS), rng.choice(inside, DRAWS)]
    plain, edges = _quantiles(drawn_slopes, tails), _quantiles(_slopes_at_zero(x, curves), tails)
    radii = sums.radii[span]
    middle = int((starts[best] + stops[best] - 1) // 2) + span.start
    estimate, estimates = _takens(sums, weights, middle)
    return Scaling(
        float(slopes[0, best]),
        (float(np.fmin(plain[0], edges[0])), float(np.fmax(plain[1], edges[1]))),
        (float(radii[starts[best]]), float(radii[stops[best] - 1])),
        slopes[0, inside],
        estimate,
        _quantiles(estimates, tails),
        float(sums.radii[middle]),
    )


def _slopes_at_zero(x: Floats, curves: Floats) -> Floats:
    """Slopes of the resampled curves at radius zero: an edge lowers ln C in proportion to the radius."""
    if len(x) < 6:
        return np.full(len(curves) - 1, np.nan)
    terms = np.stack([np.ones_like(x), x, np.exp(x - x[-1])], axis=1)
    weight = 1 / np.maximum(curves[1:].std(axis=0), 1e-12)
    return np.asarray(np.linalg.lstsq(terms * weight[:, None], (curves[1:] * weight).T, rcond=None)[0][1])


def lag_deviations(pairs: Pairs, sums: CorrelationSum, rng: np.random.Generator) -> Floats:
    """Resampled deviations of ln C (DRAWS, R) from a sample of lags; zero where states do not share close lags.

    Where the distance of two states depends on their lag alone (a rotation), the pairs of one lag are one observation.
    The number of close pairs in ranges of lags is counted for states far apart; the part of its variance that they
    have in common is that of the lags.
    """
    times = np.flatnonzero(pairs.usable)[:_LAG_STATES]
    length = int(times[-1] - times[0]) + 1
    rows = evenly(times, int(np.clip(length // max(pairs.theiler, 1), 2, _LAG_ROWS)))
    distance = pairs.between(rows, times)
    lag = np.abs(rows[:, None] - times[None, :])
    width = len(sums.radii)
    hits = np.zeros((len(rows), LAG_RANGES, width + 1))
    for row, (gaps, lags) in enumerate(zip(distance, lag, strict=True)):
        valid = np.isfinite(gaps) & (lags >= max(pairs.theiler, 1))
        where = (lags[valid] * LAG_RANGES) // length * (width + 1) + np.searchsorted(sums.radii, gaps[valid])
        hits[row] = np.bincount(where, minlength=LAG_RANGES * (width + 1)).reshape(LAG_RANGES, width + 1)
    close, total = np.cumsum(hits, axis=2)[:, :, :width], hits.sum(axis=2)
    found, all_pairs = close.sum(axis=0), total.sum(axis=0)
    share = found.sum(axis=0) / all_pairs.sum()
    square = np.sum(all_pairs**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        common = np.sum(found**2 - np.sum(close**2, axis=0), axis=0) / (square - np.sum(total**2)) - share**2
        between = np.sum((found - all_pairs[:, None] * share) ** 2, axis=0) / square
        fraction = np.where(between > 0, common / between, 0.0)
        weights = rng.multinomial(LAG_RANGES, np.full(LAG_RANGES, 1 / LAG_RANGES), DRAWS)
        drawn = (weights @ found) / (weights @ all_pairs)[:, None] / share - 1  # to first order, that of ln C
    # Decided once for all radii: at a single one, few close pairs share a lag by chance.
    counted = (found.sum(axis=0) >= FEWEST_PAIRS) & (share <= LARGEST_SHARE)
    shared = counted.any() and float(np.median(fraction[counted])) > SHARED_LAGS
    fraction = np.clip(fraction, 0.0, 1.0) if shared else np.zeros(width)
    scale = np.sqrt(fraction * length / len(pairs.usable))
    return np.where(scale > 0, np.nan_to_num(drawn) * scale, 0.0)


def _resampled(sums: CorrelationSum, weights: Ints) -> tuple[Floats, Floats]:
    """Return ln C (R,) and its resampled curves (DRAWS, R)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_c = np.log(sums.correlation)
        resampled = np.log(weights @ sums.block_counts) - np.log(weights @ sums.block_pairs)[:, None]
        return log_c, log_c + 2 * (resampled - log_c)


def _span(sums: CorrelationSum, lag_error: Floats) -> tuple[slice, Reason | None]:
    """Radii at which C is small and known accurately."""
    blocks = len(sums.block_pairs)
    excess = sums.block_counts - np.outer(sums.block_pairs, sums.correlation)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = 2 * np.sqrt((excess**2).sum(axis=0) * blocks / (blocks - 1)) / sums.block_counts.sum(axis=0)
    good = np.flatnonzero(
        (sums.counts >= FEWEST_PAIRS)
        & (np.hypot(error, lag_error) <= LARGEST_ERROR)
        & (sums.correlation <= LARGEST_SHARE)
    )
    if len(good):
        return slice(int(good[0]), int(good[-1]) + 1), None
    return slice(0), Reason.of(
        "too-few-states",
        "C(r) is not known to {error:.0%} at any radius with at most {share:.0%} of all pairs: {states} states are too "
        "few, or they hardly return",
        share=LARGEST_SHARE,
        error=LARGEST_ERROR,
        states=sums.n_states,
    )


def _windows(x: Floats) -> tuple[Ints, Ints]:
    if not len(x):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    start, stop = np.meshgrid(np.arange(len(x)), np.arange(len(x)) + 1, indexing="ij")
    wide = (stop - start >= 4) & (x[np.minimum(stop, len(x)) - 1] - x[start] >= SHORTEST * (1 - 1e-9))
    return start[wide], stop[wide]


def _takens(sums: CorrelationSum, weights: Ints, at: int) -> tuple[float, Floats]:
    """Takens' estimate at one radius, and from the resampled blocks."""
    columns = [at]
    logs = sums.block_logs[:, columns]
    resampled = takens_estimate(
        sums.radii[columns], weights @ sums.block_counts[:, columns], (weights @ sums.block_zeros)[:, None],
        weights @ logs,
    )[:, 0]  # fmt: skip
    estimate = float(sums.takens[at])
    return estimate, estimate + 2 * (resampled - estimate)


def _coincidence(sums: CorrelationSum) -> Reason:
    """Say that so many states are equal that no small radius is left in which C(r) could scale."""
    text = (
        "{zeros} of {pairs} pairs of states are equal: the states mostly coincide, as on a cycle, in a constant part, "
        "or with few different values, so C(r) does not scale"
    )
    return Reason.of("repeats", text, zeros=sums.zero_pairs, pairs=sums.n_pairs)


def no_scaling(reason: Reason) -> Scaling:
    """Return a scaling without a region."""
    unknown = (float("nan"), float("nan"))
    return Scaling(float("nan"), unknown, unknown, np.empty(0), float("nan"), unknown, float("nan"), reason)


def _quantiles(values: Floats, tails: tuple[float, float]) -> tuple[float, float]:
    if not np.isfinite(values).all() or not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, tails)
    return float(low), float(high)


def _bend(x: Floats, curve: Floats, starts: Ints, stops: Ints) -> Floats:
    """Slopes of the upper half of each window less those of the lower half."""
    middle = (starts + stops) // 2
    lower, _, _ = window_fits(x, curve, starts, middle + 1)
    upper, _, _ = window_fits(x, curve, middle, stops)
    return np.asarray(upper - lower)


Estimate = tuple[Pairs, CorrelationSum, Scaling]
