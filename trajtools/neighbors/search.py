"""Nearest neighbours of every state, and the choice of the search."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trajtools.errors import DataError
from trajtools.inputs import takes_states
from trajtools.neighbors.rules import NearestK
from trajtools.neighbors.states import HIGH_DIMENSION, PRECOMPUTED, States, compact, prepare
from trajtools.trajectory import StatesLike
from trajtools.types import L1, L2_SCALED, Floats, Ints

if TYPE_CHECKING:
    from trajtools.distances.metric import MetricLike
    from trajtools.distances.pairwise import Distances

STRATEGIES = ("brute", "sweep", "tree", "matrix")


# Below this number of states, brute force is as fast as any other search.
_FEW = 1000


_QUERIES, _SAMPLE = 32, 1024


# Candidates per state up to which a sweep costs less than a tree, and the smallest share of them inside a ball.
_SWEEP_CANDIDATES = 60.0


# The same for nearest neighbours: their sweep in strips searches for eight states at once.
_STRIP_CANDIDATES = 300.0


# A sweep that searches for eight states at once, of fewer states in so many dimensions, costs at most as much as a tree
# whatever the data, so that nothing is probed. (With 10^4 states it took .2 to .85 of the time, with 2000 .2 to .75.)
_MANY, _FLAT = 10_001, 8


# Ratio of the states to the square of the strips where states lie as dense along one axis as along the other.
_STRIP_STATES = 16.0


_SWEEP_SHARE = 0.3


# The same where each pair is searched for and followed once, which a tree does not do.
_PAIRED_SHARE = 0.03


# Top levels are split one after the other, their nodes in parallel; below, whole subtrees are split in parallel.
_TOP_LEVELS = 4


# One strip of buckets whose ends serve no search.
_NO_STRIPS = np.array([-np.inf]), np.array([np.inf]), np.empty(0), np.empty(0)


# Fewer values are sorted at once; more in parts between quantiles of a sample.
_SORTED_WHOLE, _SORTED_SAMPLE, _SORTED_PARTS = 2**15, 1000, 4


@dataclass(frozen=True, eq=False)
class Strategy:
    """A search and the reason for its choice.

    Attributes
    ----------
    name : str
        ``"brute"``, ``"sweep"``, ``"tree"`` or ``"matrix"``.
    axis : int
        Coordinate of a sweep; -1 for other searches.
    why : str
        The reason, with numbers.
    across, strips : int, int
        Coordinate and number of the strips into which a sweep for nearest neighbours divides the states; -1 and 0 for
        other searches.
    """

    name: str
    axis: int
    why: str
    across: int = -1
    strips: int = 0


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest neighbours of every state.

    Attributes
    ----------
    index : ndarray of int64, shape (T, k)
        Indices of the neighbours, nearest first; -1 where there is none.
    distance : ndarray of float64, shape (T, k)
        Their distances; NaN where there is none.
    n_references : int
        States with at least one neighbour.
    counts : dict of str to int
        Excluded data: ``not_finite`` states, ``not_followable`` states (including those), states
        ``without_neighbors``, and ordered pairs of states at ``zero_distance`` outside the Theiler window.
    strategy : Strategy
        The search used.
    theiler : int, in samples
        The Theiler window.
    theiler_why : str
        How the window was chosen; empty if it was an argument.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> found = tt.neighbors.find_nearest(x[:, None], theiler=10)
    >>> found.index.shape
    (400, 1)
    """

    index: Ints
    distance: Floats
    n_references: int
    counts: dict[str, int] = field(default_factory=dict)
    strategy: Strategy = field(default_factory=lambda: Strategy("brute", -1, ""))
    theiler: int = 0
    theiler_why: str = ""


@takes_states("x")
def find_nearest(
    x: StatesLike | Distances,
    *,
    metric: MetricLike = "l2",
    scale: str | None = None,
    neighbors: NearestK | None = None,
    theiler: int | None = None,
    horizon: int = 0,
    strategy: str | None = None,
) -> Neighbors:
    """Nearest neighbours outside the Theiler window that can be followed for the whole horizon.

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,); or (T, T)
        States, or with ``metric="precomputed"`` their distances.
    metric : str or callable
        ``"l1"``, ``"l2"``, ``"linf"`` or ``"precomputed"``; or a function of two blocks of states (t, d) that returns
        their distances (t,), row by row.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    neighbors : NearestK or None
        Number of neighbours; None: one.
    theiler : int or None, in samples
        States closer in time than this are not neighbours; None: three times the correlation time, at most an eighth of
        the record, as in `trajtools.lyapunov`. A state is never its own neighbour.
    horizon : int, in samples
        A state and its neighbour must be in the record, and finite, for this many further steps.
    strategy : str or None
        ``"brute"``, ``"sweep"`` or ``"tree"``; None: automatic. The result does not depend on it.

    Returns
    -------
    Neighbors
        Indices and distances; of neighbours at the same distance, the earlier one comes first. States at distance zero
        are not neighbours, and are counted.

    Raises
    ------
    DataError
        If the data cannot be searched so.
    UnknownNameError
        If the metric is unknown.

    Examples
    --------
    >>> neighbors = find_nearest([0.0, 5.0, 1.0, 5.5, 0.9], theiler=1)
    >>> neighbors.index[:, 0].tolist()
    [4, 3, 4, 1, 2]
    """
    states = prepare(x, metric=metric, theiler=theiler, horizon=horizon)
    states = states if strategy else compact(states)
    found = nearest(states, neighbors or NearestK(), strategy)
    return Neighbors(
        found.index,
        _distances(states, found.index),
        found.n_references,
        found.counts,
        found.strategy,
        states.theiler,
        states.theiler_why,
    )


def _distances(states: States, index: Ints) -> Floats:
    """Distances of states and their neighbours, term by term as in the kernels."""
    rows, places = np.nonzero(index >= 0)
    others = index[rows, places]
    out = np.full(index.shape, np.nan)
    if states.code == PRECOMPUTED:
        out[rows, places] = states.matrix[rows, others]
        return out
    total = np.zeros(len(rows))
    for column in states.points.T:
        step = np.abs(column[rows] - column[others])
        if states.root:
            total += np.square(step, out=step)
        elif states.code == L1:
            total += step
        else:
            np.maximum(total, step, out=total)
    if states.code == L2_SCALED:
        largest, total = total, np.zeros(len(rows))
        for column in states.points.T:
            total += np.square((column[rows] - column[others]) / largest)
        total = largest * np.sqrt(total)
    out[rows, places] = states.distance(total)
    return out


@dataclass(frozen=True, eq=False)
class Found:
    """Indices of the neighbours, nearest first, as in `Neighbors`."""

    index: Ints
    n_references: int
    counts: dict[str, int]
    strategy: Strategy


def nearest(states: States, rule: NearestK, strategy: Strategy | str | None = None) -> Found:
    """`find_nearest` for prepared states, without distances."""
    from trajtools._kernels import nearest as kernels, neighbors
    from trajtools._kernels._jit import in_parts

    chosen = requested(states, strategy) if isinstance(strategy, str) else strategy or choose(states, None)
    shape = len(states), int(rule.k)
    times, repeats = np.full(shape, -1, dtype=np.int64), np.zeros(len(states), dtype=np.bool_)
    # One kernel per search: only the one used is compiled.
    if states.code == PRECOMPUTED:
        gaps = np.full(shape, neighbors.FAR)
        in_parts(
            lambda a, b: kernels.matrix_nearest(
                states.matrix, states.usable, a, b, states.theiler, gaps, times, repeats
            ),
            len(states),
        )
    elif chosen.name == "tree":
        index = build(states, chosen)
        gaps = np.full(shape, neighbors.FAR)
        tree = index.leaves, index.times, index.slots, index.groups, index.metric
        in_parts(
            lambda a, b: kernels.tree_nearest(
                *tree, a, b, states.theiler, neighbors.make_room(states.points.shape[1]), gaps, times, repeats
            ),
            len(index.leaves),
        )
    else:
        leaves, leaf_times, strips = (
            into_strips(states, chosen) if chosen.name == "sweep" else _one_strip(states, chosen)
        )
        sweep = leaves, leaf_times, chosen.axis, states.code, strips
        in_parts(
            lambda a, b: kernels.sweep_nearest(
                *sweep, a, b, states.theiler, kernels.make_block(shape[1]), times, repeats
            ),
            len(leaves),
        )
    n_references = int(np.count_nonzero(times[:, 0] >= 0))
    counts = count_left_out(states, bool(repeats.any()))
    counts["without_neighbors"] = int(np.count_nonzero(states.usable)) - n_references
    return Found(times, n_references, counts, chosen)


def _one_strip(states: States, strategy: Strategy) -> tuple[Floats, Ints, Any]:
    """`into_strips` for brute force: all buckets in one strip, whose bounds nothing reads."""
    from trajtools._kernels.neighbors import Strips

    index = build(states, strategy)
    return index.leaves, index.times, Strips(-1, np.array([0, len(index.leaves)]), *_NO_STRIPS)


def build(states: States, strategy: Strategy) -> Any:
    """Index of the kernels, for balls around states; a sweep is not divided into strips."""
    from trajtools._kernels import neighbors
    from trajtools._kernels._jit import in_parts

    order = np.flatnonzero(states.usable)
    if strategy.name == "sweep":
        order = order[sorted_along(states.points[:, strategy.axis][order])]
    # The kernels are compiled for one array layout.
    points, rows = np.require(states.points, requirements=("C", "W")), order
    n_leaves = -(-len(order) // neighbors.BUCKET)
    starts = np.minimum(np.arange(n_leaves + 1) * neighbors.BUCKET, len(order))
    if strategy.name == "tree":
        # The tree reorders the points themselves.
        points, starts = split_points(states, order)
        rows = np.arange(len(order))
    n_leaves = len(starts) - 1
    leaves = np.empty((n_leaves, points.shape[1], neighbors.BUCKET))
    times, slots = np.empty((n_leaves, neighbors.BUCKET), dtype=np.int64), np.full(len(states), -1)
    in_parts(
        lambda a, b: neighbors.fill_leaves(points, rows, order, starts, a, b, leaves, times, slots),
        n_leaves,
        least=_SORTED_WHOLE // neighbors.BUCKET,
    )
    boxes, groups = None, None
    if strategy.name == "tree":
        boxes, *rest, groups = neighbors.make_tree(n_leaves, points.shape[1])
        neighbors.bound_tree(leaves, times, np.diff(starts), boxes, *rest, groups)
    axis = None if groups else strategy.axis
    return neighbors.Index(states.code, axis, leaves, times, slots, boxes, groups)


def into_strips(states: States, strategy: Strategy) -> tuple[Floats, Ints, Any]:
    """Buckets of a sweep for nearest neighbours, their times, and strips."""
    from trajtools._kernels import neighbors
    from trajtools._kernels._jit import in_parts

    points = np.require(states.points, requirements=("C", "W"))
    order, count = np.flatnonzero(states.usable), max(strategy.strips, 1)
    bounds = (np.arange(count + 1) * len(order)) // count
    lows, highs = np.full(count, -np.inf), np.full(count, np.inf)
    if count > 1 and not neighbors.split_strips(points, order, strategy.across, bounds, lows, highs):
        order = order[np.argsort(points[order, strategy.across])]
        neighbors.split_strips(points, order, strategy.across, bounds, lows, highs)
    edges = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(-(-(bounds[1:] - bounds[:-1]) // neighbors.BUCKET), out=edges[1:])
    leaves = np.empty((edges[-1], points.shape[1], neighbors.BUCKET))
    times = np.empty((edges[-1], neighbors.BUCKET), dtype=np.int64)
    fronts, backs = np.empty(edges[-1]), np.empty(edges[-1])

    def fill(first: int, last: int) -> None:
        while first < last:
            first = neighbors.fill_strips(
                points, order, strategy.axis, bounds, edges, first, last, leaves, times, fronts, backs
            )
            if first < last:
                rows = order[bounds[first] : bounds[first + 1]]
                rows[:] = rows[np.argsort(points[rows, strategy.axis])]

    in_parts(fill, count, least=max(1, _SORTED_WHOLE * count // len(order)))
    return leaves, times, neighbors.Strips(strategy.across, edges, lows, highs, fronts, backs)


def sorted_along(values: Floats) -> Ints:
    """Sort order of values, computed in parallel parts."""
    from trajtools._kernels._jit import in_parts

    if len(values) < _SORTED_WHOLE:
        return _order(values)
    edges = np.quantile(values[:: len(values) // _SORTED_SAMPLE], np.arange(1, _SORTED_PARTS) / _SORTED_PARTS)
    bounds = np.concatenate([[-np.inf], edges, [np.inf]])
    parts: list[Ints] = [np.empty(0, dtype=np.int64)] * _SORTED_PARTS

    def sort(first: int, last: int) -> None:
        for part in range(first, last):
            here = np.flatnonzero((values >= bounds[part]) & (values < bounds[part + 1]))
            parts[part] = here[_order(values[here])]

    in_parts(sort, _SORTED_PARTS)
    return np.concatenate(parts)


def _order(values: Floats) -> Ints:
    from trajtools._kernels.neighbors import sort_order

    order = sort_order(np.ascontiguousarray(values)) if len(values) else np.empty(0, dtype=np.int64)
    return order if len(order) == len(values) else np.argsort(values)


def split_points(states: States, order: Ints) -> tuple[Floats, Ints]:
    """Copy states in the order of a balanced k-d tree, and reorder `order` in place."""
    from trajtools._kernels import neighbors
    from trajtools._kernels._jit import in_parts

    depth = max(-(-len(order) // neighbors.BUCKET) - 1, 0).bit_length()
    points = np.empty((len(order), states.points.shape[1]))
    # mode="clip" only avoids a buffer: all indices are valid.
    in_parts(
        lambda a, b: np.take(states.points, order[a:b], axis=0, out=points[a:b], mode="clip"),
        len(order),
        least=_SORTED_WHOLE,
    )
    for level in range(min(_TOP_LEVELS, depth)):
        end = level + 1 if level + 1 < _TOP_LEVELS else depth
        split = partial(_split_nodes, points, order, (level, end, depth))
        in_parts(split, 1 << level, least=1 if len(order) >= _SORTED_WHOLE else 1 << level)
    return points, (np.arange((1 << depth) + 1) * len(order)) >> depth


def _split_nodes(points: Floats, order: Ints, levels: tuple[int, int, int], first: int, last: int) -> None:
    from trajtools._kernels.neighbors import STACK, sort_subtrees

    sort_subtrees(points, order, first, last, *levels, *np.empty((2, STACK), dtype=np.int64))


def count_left_out(states: States, repeats: bool) -> dict[str, int]:
    """Count what no search considers."""
    return {
        "not_finite": states.not_finite,
        "not_followable": int(len(states) - np.count_nonzero(states.usable)),
        "zero_distance": count_repeats(states) if repeats else 0,
    }


def count_repeats(states: States) -> int:
    """Ordered pairs of usable states at distance zero outside the Theiler window."""
    times = np.flatnonzero(states.usable)
    if states.code == PRECOMPUTED:
        apart = np.abs(times[:, None] - times[None, :]) >= states.theiler
        return int(np.count_nonzero((states.matrix[np.ix_(times, times)] == 0) & apart))
    points = states.points[times] + 0.0  # no negative zeros
    _, group = np.unique(points, axis=0, return_inverse=True)
    order = np.lexsort((times, group.ravel()))
    group, times = group.ravel()[order], times[order]
    starts = np.searchsorted(group, group)
    # Earlier members of the same group outside the Theiler window.
    span = int(times.max()) + 1
    reach = np.searchsorted(group * span + times, group * span + np.maximum(times - states.theiler, -1), side="right")
    return 2 * int(np.maximum(reach - starts, 0).sum())


def requested(states: States, strategy: str) -> Strategy:
    """Strategy of this name; a sweep runs along the widest coordinates."""
    if strategy not in STRATEGIES:
        raise DataError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    if (states.code == PRECOMPUTED) != (strategy == "matrix"):
        raise DataError(f"strategy {strategy!r} does not support metric {states.metric!r}; omit it")
    if strategy != "sweep":
        return Strategy(strategy, -1, "requested")
    axis, across = _widest(states)
    return Strategy(strategy, axis, "requested", across, _most_strips(int(np.count_nonzero(states.usable)), across))


def choose(states: States, radius: float | None, *, paired: bool = False) -> Strategy:
    """Choose a search from the dimension, the number of states and a sample of the data.

    For the nearest neighbours, or those within a radius; `paired`: each pair is searched for and followed once.
    """
    count = int(np.count_nonzero(states.usable))
    dimension = states.points.shape[1]
    if states.code == PRECOMPUTED:
        why = "precomputed distances" if not dimension else f"dimension {dimension}, above {HIGH_DIMENSION}"
        return Strategy("matrix", -1, why)
    if count < _FEW:
        return Strategy("brute", -1, f"{count} states, fewer than {_FEW}")
    if dimension > HIGH_DIMENSION:
        return Strategy("brute", -1, f"dimension {dimension}, above {HIGH_DIMENSION}")
    if (radius is None or paired) and count < _MANY and dimension <= _FLAT:
        axis, across = _widest(states)
        strips = (across, _most_strips(count, across)) if radius is None else ()
        return Strategy("sweep", axis, f"{count} states, fewer than {_MANY}", *strips)
    probed = probe(states, radius)
    axis, n = probed.axis, f"{count} states"
    if radius is not None:
        expected = float(probed.candidates[axis])
        why = f"a sweep along coordinate {axis} would compare each state with {expected:.0f} of {n}"
        share = _PAIRED_SHARE if paired else _SWEEP_SHARE
        cheap = expected <= _SWEEP_CANDIDATES + probed.inside / share
        return Strategy("sweep", axis, why) if cheap else Strategy("tree", -1, why)
    across = min((c for c in range(dimension) if c != axis), key=lambda c: probed.both[c], default=axis)
    expected = float(probed.both[across])
    which = f"coordinate {axis}" if across == axis else f"coordinates {axis} and {across}"
    why = f"a sweep along {which} would compare each state with about {expected:.0f} of {n}"
    if expected > _STRIP_CANDIDATES:
        return Strategy("tree", -1, why)
    if across == axis:
        return Strategy("sweep", axis, why, -1, 1)
    strips = _most_strips(count, across) * np.sqrt(probed.candidates[axis] / probed.candidates[across])
    return Strategy("sweep", axis, why, across, max(1, int(strips)))


def _most_strips(count: int, across: int) -> int:
    """Number of strips for states that lie as dense along one axis as along the other; one without another axis."""
    return max(1, int(np.sqrt(count / _STRIP_STATES))) if across >= 0 else 1


def _widest(states: States) -> tuple[int, int]:
    """Coordinate of largest variance, and the one with most variance beside it (-1 if there is no other)."""
    sample = states.points[evenly(np.flatnonzero(states.usable), _SAMPLE)]
    dimension = sample.shape[1]
    if dimension == 1:
        return 0, -1
    sample = sample / max(float(np.abs(sample).max()), np.finfo(np.float64).tiny)  # products stay finite
    covariance = np.cov(sample.T)
    axis = int(np.argmax(covariance.diagonal()))
    left = covariance.diagonal() - covariance[axis] ** 2 / max(covariance[axis, axis], np.finfo(np.float64).tiny)
    left[axis] = -np.inf
    return axis, int(np.argmax(left))


class Probed(NamedTuple):
    """Estimated numbers of states within reach of one: of its nearest neighbour, or of a radius.

    `candidates` (d,): along each coordinate; `axis`: that of the smallest; `both` (d,): along it and each coordinate;
    `inside`: in all.
    """

    candidates: Floats
    axis: int
    both: Floats
    inside: float


def probe(states: States, radius: float | None) -> Probed:
    """Estimate from a sample how many states a search along one or two coordinates compares with each."""
    from trajtools._kernels.neighbors import count_candidates

    times = np.flatnonzero(states.usable)
    sample = evenly(times, _SAMPLE)
    grown = len(times) / len(sample)
    points = np.require(states.points, requirements=("C", "W"))
    reach = np.inf if radius is None else float(radius)
    rest = points, sample, evenly(sample, _QUERIES), states.code, states.theiler, reach
    counts, both, inside, axis = count_candidates(*rest, 1, -1)
    if radius is not None:
        return Probed(counts * grown, axis, both, inside * grown)
    # Extrapolate the growth of the candidates with a fourfold record to the whole record.
    few, few_both, *_ = count_candidates(*rest, 4, axis)
    grown = np.log(grown) / np.log(4.0)
    counts, both = (
        many * np.minimum(np.maximum(many / np.maximum(less, 1.0), 1.0), 4.0) ** grown
        for many, less in ((counts, few), (both, few_both))
    )
    return Probed(counts, axis, both, 0.0)


def evenly(times: Ints, most: int) -> Ints:
    """At most `most` of the times, evenly spaced."""
    if len(times) <= most:
        return times
    return times[(np.arange(most) * len(times)) // most]
