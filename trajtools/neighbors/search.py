"""Nearest neighbours of every state, and the choice of the search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.errors import DataError
from trajtools.inputs import takes_states
from trajtools.neighbors.rules import NearestK
from trajtools.neighbors.states import HIGH_DIMENSION, PRECOMPUTED, States, compact, prepare
from trajtools.types import Floats, Ints, StatesLike

if TYPE_CHECKING:
    from trajtools.distances.metric import MetricLike
    from trajtools.distances.pairwise import Distances

STRATEGIES = ("brute", "sweep", "tree", "matrix")


# Below this number of states, brute force is as fast as any other search.
_FEW = 1000


_QUERIES, _SAMPLE = 32, 1024


# Candidates per state up to which a sweep costs less than a tree, and the smallest share of them inside a ball.
_SWEEP_CANDIDATES = 60.0


_SWEEP_SHARE = 0.3


# Top levels are split one after the other, their nodes in parallel; below, whole subtrees are split in parallel.
_TOP_LEVELS = 4


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
    """

    name: str
    axis: int
    why: str


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
    return nearest(states if strategy else compact(states), neighbors or NearestK(), strategy)


def nearest(states: States, rule: NearestK, strategy: str | None = None) -> Neighbors:
    """`find_nearest` for prepared states."""
    from trajtools._kernels import neighbors
    from trajtools._kernels._jit import in_parts

    chosen = requested(states, strategy) if strategy else choose(states, None)
    gaps = np.full((len(states), int(rule.k)), neighbors.FAR)
    times = np.full((len(states), int(rule.k)), -1, dtype=np.int64)
    repeats = np.zeros(len(states), dtype=np.bool_)
    # One kernel per search: only the one used is compiled.
    search: Callable[..., Any]
    if states.code == PRECOMPUTED:
        search, parts = partial(neighbors.matrix_nearest, states.matrix, states.usable), len(states)
    else:
        index = build(states, chosen)
        leaves, parts = (index.leaves, index.times), len(index.leaves)
        if index.groups is not None:
            search = partial(neighbors.tree_nearest, *leaves, index.slots, index.groups, index.metric)
        else:
            search = partial(neighbors.sweep_nearest, *leaves, index.axis, index.metric)

    def work(first: int, last: int) -> None:
        room = () if states.code == PRECOMPUTED else (neighbors.make_room(states.points.shape[1]),)
        search(first, last, states.theiler, *room, gaps, times, repeats)

    in_parts(work, parts)
    distance = np.sqrt(gaps, out=gaps) if states.root else gaps
    distance[times < 0] = np.nan
    n_references = int(np.count_nonzero(times[:, 0] >= 0))
    counts = count_left_out(states, bool(repeats.any()))
    counts["without_neighbors"] = int(np.count_nonzero(states.usable)) - n_references
    return Neighbors(times, distance, n_references, counts, chosen, states.theiler, states.theiler_why)


def build(states: States, strategy: Strategy) -> Any:
    """Index of the kernels, for states."""
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
    from trajtools._kernels.neighbors import PER_BIN, sort_order

    count = len(values)
    place, order = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    starts = np.zeros(max(count // PER_BIN, 1) + 1, dtype=np.int64)
    if not count or sort_order(np.ascontiguousarray(values), starts, place, order):
        return order
    return np.argsort(values)


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
    """Strategy of this name."""
    if strategy not in STRATEGIES:
        raise DataError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    if (states.code == PRECOMPUTED) != (strategy == "matrix"):
        raise DataError(f"strategy {strategy!r} does not support metric {states.metric!r}; omit it")
    return Strategy(strategy, 0 if strategy == "sweep" else -1, "requested")


def choose(states: States, radius: float | None) -> Strategy:
    """Choose a search from the dimension, the number of states and a sample of the data."""
    count = int(np.count_nonzero(states.usable))
    dimension = states.points.shape[1]
    if states.code == PRECOMPUTED:
        why = "precomputed distances" if not dimension else f"dimension {dimension}, above {HIGH_DIMENSION}"
        return Strategy("matrix", -1, why)
    if count < _FEW:
        return Strategy("brute", -1, f"{count} states, fewer than {_FEW}")
    if dimension > HIGH_DIMENSION:
        return Strategy("brute", -1, f"dimension {dimension}, above {HIGH_DIMENSION}")
    candidates, inside = probe(states, radius)
    axis = int(np.argmin(candidates))
    expected = float(candidates[axis])
    why = f"a sweep along coordinate {axis} would compare each state with {expected:.0f} of {count} states"
    if expected <= _SWEEP_CANDIDATES + inside / _SWEEP_SHARE:
        return Strategy("sweep", axis, why)
    return Strategy("tree", -1, why)


def quick_strategy(count: int, dimension: int) -> str | None:
    """Search by the number of states and the dimension alone, for many records of one size; None: `choose`."""
    if dimension > HIGH_DIMENSION:
        return None
    return "brute" if count < _FEW else "tree"


def probe(states: States, radius: float | None) -> tuple[Floats, float]:
    """Estimate from a sample the number of candidates per state of a sweep along each coordinate."""
    from trajtools._kernels.neighbors import count_candidates

    times = np.flatnonzero(states.usable)
    sample = evenly(times, _SAMPLE)
    asked = evenly(sample, _QUERIES)
    grown = len(times) / len(sample)
    columns, queries = states.points[sample].T.copy(), states.points[asked]
    rest = queries, asked, states.code, states.theiler, np.inf if radius is None else float(radius)

    def count(columns: Floats, times: Ints) -> tuple[Floats, float]:
        counts = np.zeros(len(columns), dtype=np.int64)
        inside = count_candidates(columns, times, *rest, np.empty(len(times)), counts)
        return counts / len(asked), inside / len(asked)

    counts, inside = count(columns, sample)
    if radius is not None:
        return counts * grown, inside * grown
    # Extrapolate the growth of the candidates with a fourfold record to the whole record.
    few, _ = count(columns[:, ::4].copy(), sample[::4].copy())
    factor = np.clip(counts / np.maximum(few, 1.0), 1.0, 4.0)
    return counts * factor ** (np.log(grown) / np.log(4.0)), 0.0


def evenly(times: Ints, most: int) -> Ints:
    """At most `most` of the times, evenly spaced."""
    if len(times) <= most:
        return times
    return times[(np.arange(most) * len(times)) // most]
