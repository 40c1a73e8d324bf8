"""The correlation sum: pairs of states closer than a radius (Grassberger and Procaccia 1983)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.embedding import theiler_window
from trajtools.errors import DataError
from trajtools.inputs import takes_states
from trajtools.neighbors.search import Strategy, build, evenly
from trajtools.neighbors.states import HIGH_DIMENSION, METRICS, PRECOMPUTED, States, prepare
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.trajectory import StatesLike
from trajtools.types import Bools, Floats, Ints, RealArrayLike
from trajtools.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.distances.metric import MetricLike

BLOCKS = 64
_SHORTEST_BLOCK = 8
_PROBES, _PROBE_STATES = 64, 512
_RATIO = 2.0**0.25
_MOST_RADII = 200
_ROWS_BYTES = 64 * 2**20


# Fraction and number of pairs up to which the logarithms of the distances are summed exactly.
LOGGED_SHARE, _MOST_LOGGED = 0.1, 1e8


Reader = Callable[[int, int], Floats]
Between = Callable[[Ints, Ints], Floats]
_FEWEST_FOR_LAGS = 20
_SEPARATION_ROWS, _LONGEST_LAG = 256, 1000


@dataclass(frozen=True, eq=False, repr=False)
class CorrelationSum(Result):
    r"""Correlation sum: the number of pairs of states closer than a radius, for many radii.

    Attributes
    ----------
    radii : ndarray of float64, shape (R,)
        Ascending, in the unit of the metric.
    counts : ndarray of int64, shape (R,)
        Number of pairs of states (each once) at distances up to each radius, exact.
    n_pairs : int
        All pairs that are at least `theiler` samples apart.
    correlation : ndarray of float64, shape (R,)
        The correlation sum C(r), ``counts / n_pairs``.
    local_slope : ndarray of float64, shape (R - 1,)
        d ln C / d ln r between neighbouring radii; NaN where there are no pairs.
    takens : ndarray of float64, shape (R,)
        Takens' maximum-likelihood estimate from all pairs closer than each radius; NaN beyond a tenth of all pairs
        (not computed) and without pairs.
    metric : str
        Name of the distance.
    theiler : int, in samples
        Pairs closer in time than this are not counted.
    n_states, n_excluded : int
        States compared, and states excluded because of NaN or inf.
    zero_pairs : int
        Pairs at distance zero; they count in C but not in Takens' estimate.
    block_counts : ndarray of int64, shape (B, R)
        Counts by time block of the first state, every pair once from each end; used for resampling.
    block_pairs, block_zeros : ndarray of int64, shape (B,)
        All such pairs of each block, and those at distance zero.
    block_logs : ndarray of float64, shape (B, R)
        Sums of the natural logarithms of their distances; NaN where not computed.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> sums = tt.structure.correlation_sum(x[:, None], theiler=10)
    >>> float(sums.correlation[-1])
    1.0
    """

    radii: Floats
    counts: Ints
    n_pairs: int
    correlation: Floats
    local_slope: Floats
    takens: Floats
    metric: str
    theiler: int
    n_states: int
    n_excluded: int
    zero_pairs: int
    block_counts: Ints
    block_pairs: Ints
    block_zeros: Ints
    block_logs: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "correlation": ("radii",),
        "counts": ("radii",),
        "takens": ("radii",),
        "local_slope": ("gap",),
        "block_counts": ("block", "radii"),
    }

    def _sentence(self) -> str:
        some = np.flatnonzero(self.counts > 0)
        text = f"{counted(self.n_pairs, 'pair')} of {counted(self.n_states, 'state')} ({self.metric})"
        if not len(some):
            return f"{text}; none within the radii."
        low, high = self.radii[some[[0, -1]]]
        share = self.correlation[some[[0, -1]]]
        return f"{text}; {share[0]:.3g} of them within {low:.3g}, {share[1]:.3g} within {high:.3g}."

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the curve; see `trajtools.plots.correlation_sum`.

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

        return plots.correlation_sum(self, ax=ax)


@takes_states("x")
def correlation_sum(
    x: StatesLike | Distances,
    radii: RealArrayLike | float | None = None,
    *,
    metric: MetricLike = "l2",
    scale: str | None = None,
    theiler: int | None = None,
) -> CorrelationSum:
    r"""Correlation sum: exact number of pairs of states closer than each radius.

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,); or Distances, shape (T, T)
        States of one trajectory, or their distances. States with NaN or inf are excluded and counted.
    radii : array_like of float or None, shape (R,)
        None: from the nearest-neighbour distance to the diameter, four per octave.
    metric : str or callable
        ``"l1"``, ``"l2"``, ``"linf"`` or ``"precomputed"`` (then `x` is an array of distances); any other name or
        function is computed by `trajtools.pairwise`, as for states of over 20 dimensions. Ignored for Distances.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    theiler : int or None, in samples
        Pairs with ``abs(i - j) < theiler`` are not counted. None: three times the longest correlation time of the
        coordinates, see `theiler_window`; for distances, the lag at which the temporal separation saturates.

    Returns
    -------
    CorrelationSum
        Integer counts; pairs at exactly the radius count.

    Raises
    ------
    DataError
        If the data are not suitable, or no two states differ.
    UnknownNameError
        If the metric is unknown.
    TooLargeError
        If the distances of the states do not fit in memory.

    Notes
    -----
    .. math:: C(r) = \frac{2}{(N - w)(N - w + 1)} \sum_{j - i \ge w} \Theta(r - d_{ij}), \quad \Theta(0) = 1

    with the Theiler window w [2]_; with excluded states the normalisation is the true number of pairs. Pairs of few
    dimensions are counted in a k-d tree: a node with all points between the same two radii is counted as a whole.

    References
    ----------
    .. [1] P. Grassberger, I. Procaccia, Physica D 9, 189 (1983), doi:10.1016/0167-2789(83)90298-1
    .. [2] J. Theiler, Phys. Rev. A 34, 2427 (1986), doi:10.1103/PhysRevA.34.2427

    Examples
    --------
    >>> import trajtools as tt
    >>> c = tt.structure.correlation_sum([0.0, 3.0, 1.0, 7.0], radii=[1, 3, 4], theiler=1)
    >>> c.counts.tolist(), c.n_pairs
    ([1, 3, 4], 6)
    """
    return sum_of(find_pairs(x, metric=metric, theiler=theiler), radii)


def sum_of(pairs: Pairs, radii: RealArrayLike | float | None, share: float = 1.0) -> CorrelationSum:
    """Compute the correlation sum of prepared pairs."""
    automatic = radii is None
    limits = choose_radii(pairs.between, pairs.usable, pairs.theiler, share) if automatic else _checked_radii(radii)
    edges = blocks_of_time(pairs.usable, pairs.theiler)
    logged = logged_radii(pairs.between, pairs.usable, pairs.theiler, limits)
    counted = pairs.count(limits, edges, logged)
    counts, total, zeros = counted.counts.sum(axis=0) // 2, int(counted.pairs.sum()) // 2, int(counted.zeros.sum()) // 2
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = counts / total
        slope = np.diff(np.log(correlation)) / np.diff(np.log(limits))
    takens = takens_estimate(limits, 2.0 * counts, np.float64(2 * zeros), counted.logs.sum(axis=0))
    warnings = pairs.warnings
    if zeros:
        text = "{zeros} of {pairs} pairs are at distance zero: they count in C(r), not in Takens' estimate"
        warnings += (Reason.of("repeats", text, zeros=zeros, pairs=total),)
    return CorrelationSum(
        radii=limits,
        counts=counts,
        n_pairs=total,
        correlation=correlation,
        local_slope=np.where(np.isfinite(slope), slope, np.nan),
        takens=takens,
        metric=pairs.metric,
        theiler=pairs.theiler,
        n_states=int(np.count_nonzero(pairs.usable)),
        n_excluded=int(np.count_nonzero(~pairs.usable)),
        zero_pairs=zeros,
        block_counts=counted.counts,
        block_pairs=counted.pairs,
        block_zeros=counted.zeros,
        block_logs=counted.logs,
        settings={
            "metric": pairs.metric,
            "theiler": pairs.theiler,
            "theiler_why": pairs.theiler_why,
            "radii": "chosen from the data" if automatic else "as given",
            "block_edges": edges,
            "counted": pairs.way,
        },
        warnings=warnings,
    )


@dataclass(frozen=True, eq=False)
class Pairs:
    """Checked states or distances with their counting function.

    Attributes
    ----------
    metric : str
        Name of the distance.
    usable : ndarray of bool, shape (T,)
        Usable states.
    theiler : int, in samples
        At least 1.
    theiler_why : str
        How the Theiler window was chosen.
    space : int
        Dimension of the states; 0 for distances.
    between : callable
        ``between(rows, columns)`` gives the distances of states to other states.
    count : callable
        ``count(radii, edges, logged)`` gives PairCounts.
    way : str
        Description of the counting method.
    warnings : tuple of Reason
        Warnings on the Theiler window.
    """

    metric: str
    usable: Bools
    theiler: int
    theiler_why: str
    space: int
    between: Between
    count: Callable[[Floats, Ints, int], PairCounts]
    way: str
    warnings: tuple[Reason, ...] = ()


@dataclass(frozen=True, eq=False)
class PairCounts:
    """Ordered pairs of states, by the block of the first one.

    Attributes
    ----------
    radii : ndarray of float64, shape (R,)
        Ascending.
    counts : ndarray of int64, shape (B, R)
        Pairs at distances up to each radius, equal states included.
    logs : ndarray of float64, shape (B, R)
        Sum of the natural logarithms of their distances without equal states; NaN where not computed.
    zeros, pairs : ndarray of int64, shape (B,)
        Pairs at distance zero, and all pairs.
    """

    radii: Floats
    counts: Ints
    logs: Floats
    zeros: Ints
    pairs: Ints


def blocks_of_time(usable: Bools, theiler: int) -> Ints:
    """Bounds of equal blocks of reference states, longer than the Theiler window if possible."""
    times = np.flatnonzero(usable)
    first, stop = int(times[0]), int(times[-1]) + 1
    count = int(np.clip((stop - first) // max(_SHORTEST_BLOCK, theiler), 1, BLOCKS))
    return first + (np.arange(count + 1) * (stop - first)) // count


def logged_radii(between: Between, usable: Bools, theiler: int, radii: Floats) -> int:
    """Number of radii with few enough pairs to sum the logarithms exactly."""
    times = np.flatnonzero(usable)
    spread = _sampled(between, times, evenly(times, _PROBE_STATES), theiler)
    spread = np.sort(spread[np.isfinite(spread)])
    share = np.searchsorted(spread, radii, side="right") / max(len(spread), 1)
    return int(np.count_nonzero(share <= min(LOGGED_SHARE, _MOST_LOGGED / len(times) ** 2)))


def _sampled(between: Between, times: Ints, others: Ints, theiler: int) -> Floats:
    """Distances of sampled states to others; NaN inside the Theiler window."""
    queries = evenly(times, _PROBES)
    distances = between(queries, others)
    distances[np.abs(queries[:, None] - others[None, :]) < theiler] = np.nan
    return distances


def takens_estimate(radii: Floats, counts: Any, zeros: Any, logs: Floats) -> Floats:
    r"""Takens' estimate :math:`-1 / \langle \ln(d / r) \rangle` over all distances below each radius."""
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate: Floats = 1.0 / (np.log(radii) - logs / (counts - zeros))
    return np.where(np.isfinite(estimate), estimate, np.nan)


def choose_radii(between: Between, usable: Bools, theiler: int, share: float = 1.0) -> Floats:
    """Radii from the nearest neighbours to the diameter, four per octave, estimated from a sample."""
    times = np.flatnonzero(usable)
    near = _sampled(between, times, times, theiler)
    near[~(near > 0)] = np.nan
    if not np.isfinite(near).any():
        raise DataError(
            f"no two of {len(times)} states at least theiler={theiler} samples apart differ, so all distances are 0. "
            "Lower theiler, record more, or check that the states move at all"
        )
    low, high = float(np.nanmin(near)), float(np.nanquantile(near, share))
    step = max(np.log(_RATIO), np.log(high / low) / _MOST_RADII)
    first, last = int(np.floor(np.log(low) / step)), int(np.ceil(np.log(high) / step))
    return np.exp(np.arange(first, last + 1) * step)


def _checked_radii(radii: Any) -> Floats:
    values = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    if values.ndim != 1 or not len(values) or not (np.isfinite(values) & (values > 0)).all():
        raise DataError(f"radii must be positive numbers, shape (R,); got {radii!r}")
    return np.unique(values)


def find_pairs(x: StatesLike | Distances, *, metric: MetricLike, theiler: int | None) -> Pairs:
    """Check the input and choose how to count its pairs."""
    if isinstance(x, Distances):
        return _pairs_from_distances(x, theiler)
    shape = x.shape if hasattr(x, "shape") else np.shape(np.asarray(x))
    dimension = int(shape[1]) if len(shape) == 2 else 1
    plain = metric if isinstance(metric, str) and metric in METRICS else None
    if plain is not None and (dimension <= HIGH_DIMENSION or plain == "precomputed"):
        return _pairs_from_states(x, plain, theiler)
    from trajtools.distances.pairwise import pairwise

    return _pairs_from_distances(pairwise(x, metric=metric), theiler)


def _pairs_from_distances(x: Distances, theiler: int | None) -> Pairs:
    if not x.symmetric:
        raise DataError(
            f"a correlation sum needs symmetric distances of one trajectory, (T, T); these are {x.shape[0]} x "
            f"{x.shape[1]} in {x.metric}" + (", which is not symmetric" if x.square else "")
        )
    return _pairs_from_rows(x.read, ~np.asarray(x.excluded), theiler, x.metric, "rows of distances were read in turn")


def _pairs_from_rows(
    read: Callable[[int, int], Floats], usable: Bools, theiler: int | None, metric: str, way: str
) -> Pairs:
    length = len(usable)

    def between(rows: Ints, columns: Ints) -> Floats:
        return np.stack([np.asarray(read(int(i), int(i) + 1))[0][columns] for i in rows])

    window, why, warnings = (
        (_checked_theiler(theiler), "as given", ()) if theiler is not None else _separation(between, usable)
    )
    if np.count_nonzero(usable) < 2 or np.ptp(np.flatnonzero(usable)) < window:
        raise DataError(
            f"{np.count_nonzero(usable)} of {length} states are usable, no two of them theiler={window} samples apart; "
            "record more or lower theiler"
        )
    return Pairs(
        metric,
        usable,
        window,
        why,
        0,
        between,
        lambda radii, edges, logged: count_rows(read, usable, window, radii, edges),
        way,
        warnings,
    )


def _separation(between: Between, usable: Bools) -> tuple[int, str, tuple[Reason, ...]]:
    """Theiler window of distances: the lag at which their 10 % quantile reaches half its maximum."""
    times = np.flatnonzero(usable)
    if len(times) < _FEWEST_FOR_LAGS:
        return 1, f"fewer than {_FEWEST_FOR_LAGS} states: no time scale", ()
    longest = min(len(usable) // 5, _LONGEST_LAG)
    rows = evenly(times[times < len(usable) - longest], _SEPARATION_ROWS)
    every = np.arange(len(usable))
    curve = np.zeros(longest + 1)
    near = np.stack([between(np.array([i]), every)[0][i : i + longest + 1] for i in rows])
    for lag in range(1, longest + 1):
        finite = near[np.isfinite(near[:, lag]), lag]
        curve[lag] = np.quantile(finite, 0.1) if len(finite) else 0.0
    if not curve.max() > 0:
        return 1, "constant states: no time scale", ()
    lag = int(np.argmax(curve >= curve.max() / 2))
    why = f"the 10 % quantile of the distances passes half its largest value at lag {lag}"
    drift = Reason.of("drift", "the distances still grow at lag {lag}: the states drift and do not recur", lag=longest)
    return max(lag, 1), why, (drift,) if int(np.argmax(curve)) > 0.9 * longest else ()


def _checked_theiler(theiler: Any) -> int:
    if isinstance(theiler, bool) or not isinstance(theiler, (int, np.integer)) or theiler < 0:
        raise DataError(f"theiler={theiler!r}: it must be a non-negative integer, in samples")
    return max(int(theiler), 1)


def count_rows(read: Reader, usable: Bools, theiler: int, radii: Floats, edges: Ints) -> PairCounts:
    """Count the pairs of a matrix of distances, in blocks of rows."""
    from trajtools._kernels import correlation_sum as kernels
    from trajtools._kernels._jit import in_parts

    length = len(usable)
    limits = np.concatenate([[0.0], radii, [np.inf]])
    start = kernels.first_bins(limits)
    block = _block_of(edges, length)
    total = np.zeros((len(edges) - 1, len(limits)), dtype=np.int64)
    sums = np.zeros(total.shape)
    step = max(1, _ROWS_BYTES // (8 * length))
    for first in range(0, length, step):
        rows = np.ascontiguousarray(read(first, min(first + step, length)), dtype=np.float64)
        counts = np.zeros((len(rows), len(limits)), dtype=np.int64)
        logs = np.zeros(counts.shape)
        work = partial(kernels.row_counts, rows, first, usable, theiler, limits, start)
        in_parts(partial(_into, work, counts, logs), len(rows))
        np.add.at(total, block[first : first + len(rows)], counts)
        np.add.at(sums, block[first : first + len(rows)], logs)
    return _cumulated(radii, total, sums, len(radii))


def _block_of(edges: Ints, length: int) -> Ints:
    return np.clip(np.searchsorted(edges, np.arange(length), side="right") - 1, 0, len(edges) - 2)


def _cumulated(radii: Floats, bins: Ints, logs: Floats, logged: int) -> PairCounts:
    counts = np.cumsum(bins, axis=1)
    sums = np.cumsum(logs[:, 1:-1], axis=1)
    sums[:, logged:] = np.nan
    return PairCounts(radii, counts[:, 1:-1], sums, counts[:, 0], counts[:, -1])


def _into(work: Callable[..., Any], counts: Ints, logs: Floats, first: int, last: int) -> None:
    work(first, last, counts, logs)


def _pairs_from_states(x: Any, metric: str, theiler: int | None) -> Pairs:
    states = prepare(x, metric=metric, theiler=1, horizon=0)
    if states.code == PRECOMPUTED:
        return _pairs_from_rows(
            lambda a, b: states.matrix[a:b], states.usable, theiler, metric, "distances were passed"
        )
    window, why, warnings = _window(states.points, states.usable, theiler)
    states = prepare(x, metric=metric, theiler=window, horizon=0)
    return Pairs(
        metric,
        states.usable,
        states.theiler,
        why,
        states.points.shape[1],
        states.between,
        lambda radii, edges, logged: count_states(states, radii, edges, logged),
        "k-d tree; nodes with all points in one distance bin are counted as a whole",
        warnings,
    )


def _window(points: Floats, usable: Bools, theiler: int | None) -> tuple[int, str, tuple[Reason, ...]]:
    """Theiler window of states: the user's, or three times the longest correlation time of their coordinates."""
    if theiler is not None:
        return _checked_theiler(theiler), "as given", ()
    if np.count_nonzero(usable) < _FEWEST_FOR_LAGS or not np.any(np.ptp(points[usable], axis=0) > 0):
        return 1, f"fewer than {_FEWEST_FOR_LAGS} states, or constant: no time scale", ()
    choice = theiler_window(np.where(usable[:, None], points, np.nan))
    return choice.value, choice.reason, choice.warnings


def count_states(states: States, radii: Floats, edges: Ints, logged: int) -> PairCounts:
    """Count the pairs of states of few dimensions in a tree."""
    from trajtools._kernels import correlation_sum as kernels
    from trajtools._kernels._jit import in_parts

    limits = _limits(states, radii)
    start = kernels.first_bins(limits)
    tree = build(states, Strategy("tree", -1, "pairs are counted in a tree"))
    sizes = _sizes(tree.times)
    block = _block_of(edges, len(states))
    chunks = -(-len(tree.leaves) // kernels.LEAVES_PER_CHUNK)
    shape = (len(edges) - 1, len(limits))
    counts, logs = np.zeros((chunks, *shape), dtype=np.int64), np.zeros((chunks, *shape))
    arguments = (tree.leaves, tree.times, tree.boxes, sizes, states.code, limits, start, logged, block)
    in_parts(lambda first, last: kernels.tree_counts(*arguments, first, last, counts, logs), chunks)
    near, near_logs = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    inside = (np.ascontiguousarray(states.points), states.usable, states.code, states.theiler)
    in_parts(
        lambda first, last: kernels.near_counts(*inside, limits, start, logged, edges, first, last, near, near_logs),
        shape[0],
    )
    total, sums = counts.sum(axis=0) - near, logs.sum(axis=0) - near_logs
    return _cumulated(radii, total, sums * (0.5 if states.root else 1.0), logged)


def _limits(states: States, radii: Floats) -> Floats:
    """Radii as the kernels compare them: the largest gap with a distance up to the radius."""
    gaps = states.gap(radii)
    if states.root:
        for _ in range(4):
            gaps = np.where(np.sqrt(gaps) > radii, np.nextafter(gaps, 0.0), gaps)
        for _ in range(4):
            up = np.nextafter(gaps, np.inf)
            gaps = np.where(np.sqrt(up) <= radii, up, gaps)
    return np.concatenate([[0.0], gaps, [np.inf]])


def _sizes(times: Ints) -> Ints:
    """Number of points under every node of the tree."""
    leaves = len(times)
    sizes = np.zeros(2 * leaves, dtype=np.int64)
    sizes[leaves:] = np.count_nonzero(times >= 0, axis=1)
    level = leaves
    while level > 1:
        level //= 2
        sizes[level : 2 * level] = sizes[2 * level : 4 * level].reshape(-1, 2).sum(axis=1)
    return sizes
