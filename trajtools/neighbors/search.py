"""Nearest neighbours of every state, what was left out, and the index that the kernels search in."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from trajtools.neighbors.rules import NearestK
from trajtools.neighbors.states import PRECOMPUTED, MetricOfStates, States, compact, prepare
from trajtools.neighbors.strategy import Strategy, choose, named
from trajtools.types import Floats, Ints

# So many levels of the tree are split one after the other, their nodes on several threads; then whole subtrees.
_TOP_LEVELS = 4
# Fewer values are sorted in one piece; more in pieces between quantiles of a sample.
_SORTED_WHOLE, _SORTED_SAMPLE, _SORTED_PARTS = 2**15, 1000, 4


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest neighbours of every state.

    Attributes
    ----------
    index : ndarray of int64, shape (T, k)
        Times of the neighbours, nearest first; -1 where there is none.
    distance : ndarray of float64, shape (T, k)
        Their distances; NaN where there is none.
    n_references : int
        States with at least one neighbour.
    counts : dict of str to int
        What was left out: ``not_finite`` states, states that are ``not_followable`` (those included), states
        ``without_neighbors``, and ordered pairs of states at ``zero_distance`` outside the Theiler window.
    strategy : Strategy
        The search that was used.
    """

    index: Ints
    distance: Floats
    n_references: int
    counts: dict[str, int] = field(default_factory=dict)
    strategy: Strategy = field(default_factory=lambda: Strategy("brute", -1, ""))


def find_nearest(
    x: Any,
    *,
    metric: MetricOfStates = "l2",
    neighbors: NearestK | None = None,
    theiler: int,
    horizon: int = 0,
    strategy: str | None = None,
) -> Neighbors:
    """Nearest neighbours outside the Theiler window that can be followed as long as the state itself.

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,); or (T, T)
        States, or with ``metric="precomputed"`` their distances.
    metric : str or callable
        ``"l1"``, ``"l2"``, ``"linf"`` or ``"precomputed"``; or a function of two blocks of states (t, d) that gives
        their distances (t,), pair by pair.
    neighbors : NearestK or None
        How many; None: one.
    theiler : int, in samples
        States closer in time than this are not neighbours; a state is never its own neighbour.
    horizon : int, in samples
        A state and its neighbour must be in the record, and finite, for so many steps more.
    strategy : str or None
        ``"brute"``, ``"sweep"`` or ``"tree"``; None chooses. The neighbours do not depend on it.

    Returns
    -------
    Neighbors
        Times and distances; of neighbours at the same distance the earlier one comes first. Zero distances are no
        neighbours, and are counted.

    Raises
    ------
    DataError
        If the data cannot be searched so.
    UnknownNameError
        If the metric is unknown.

    Examples
    --------
    >>> found = find_nearest([0.0, 5.0, 1.0, 5.5, 0.9], theiler=1)
    >>> found.index[:, 0].tolist()
    [4, 3, 4, 1, 2]
    """
    states = prepare(x, metric=metric, theiler=theiler, horizon=horizon)
    return nearest(states if strategy else compact(states), neighbors or NearestK(), strategy)


def nearest(states: States, rule: NearestK, strategy: str | None = None) -> Neighbors:
    """Search prepared states; see `find_nearest`."""
    from trajtools._kernels import tree
    from trajtools._kernels._threads import in_parts
    from trajtools._kernels.neighbors import nearest as search

    chosen = named(states, strategy) if strategy else choose(states, None)
    index = build(states, chosen)
    gaps = np.full((len(states), int(rule.k)), tree.FAR)
    found = np.full((len(states), int(rule.k)), -1, dtype=np.int64)
    repeats = np.zeros(len(states), dtype=np.bool_)
    in_parts(
        lambda first, last: search(index, first, last, states.theiler, gaps, found, repeats),
        len(states) if index.kind == tree.MATRIX else len(index.leaves),
    )
    distance = np.sqrt(gaps, out=gaps) if states.root else gaps
    distance[found < 0] = np.nan
    n_references = int(np.count_nonzero(found[:, 0] >= 0))
    counts = count_left_out(states, bool(repeats.any()))
    counts["without_neighbors"] = int(np.count_nonzero(states.usable)) - n_references
    return Neighbors(found, distance, n_references, counts, chosen)


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
    # Earlier members of the same group that are far enough back in time.
    span = int(times.max()) + 1
    reach = np.searchsorted(group * span + times, group * span + np.maximum(times - states.theiler, -1), side="right")
    return 2 * int(np.maximum(reach - starts, 0).sum())


def build(states: States, strategy: Strategy) -> Any:
    """Build what the kernels search in."""
    from trajtools._kernels import tree
    from trajtools._kernels._threads import in_parts

    kind = {"brute": tree.BRUTE, "sweep": tree.SWEEP, "tree": tree.TREE, "matrix": tree.MATRIX}[strategy.name]
    order = np.flatnonzero(states.usable)
    if strategy.name == "sweep":
        order = order[sorted_along(states.points[:, strategy.axis][order])]
    boxes = np.empty((0, 2, 0))
    flat, earliest = np.empty(0, dtype=np.bool_), np.empty(0, dtype=np.int64)
    leaves, times, slots = np.empty((0, 0, 0)), np.empty((0, 0), dtype=np.int64), np.empty(0, dtype=np.int64)
    if strategy.name != "matrix":
        # The kernels are compiled for one kind of array.
        points, rows = np.require(states.points, requirements=("C", "W")), order
        n_leaves = -(-len(order) // tree.BUCKET)
        starts = np.minimum(np.arange(n_leaves + 1) * tree.BUCKET, len(order))
        if strategy.name == "tree":
            # The tree moves the points themselves.
            points, starts = split_points(states, order)
            rows = np.arange(len(order))
        n_leaves = len(starts) - 1
        leaves = np.empty((n_leaves, points.shape[1], tree.BUCKET))
        times, slots = np.empty((n_leaves, tree.BUCKET), dtype=np.int64), np.full(len(states), -1)
        in_parts(lambda a, b: tree.fill_leaves(points, rows, order, starts, a, b, leaves, times, slots), n_leaves)
        if strategy.name == "tree":
            boxes, flat, earliest = tree.bound_tree(leaves, times, np.diff(starts))
    return tree.Index(
        kind, states.code, strategy.axis, leaves, times, slots, boxes, flat, earliest, states.matrix, states.usable
    )


def split_points(states: States, order: Ints) -> tuple[Floats, Ints]:
    """Copy states into the order of a balanced k-d tree; `order` is brought into it, too."""
    from trajtools._kernels import tree
    from trajtools._kernels._threads import in_parts

    depth = max(-(-len(order) // tree.BUCKET) - 1, 0).bit_length()
    points = np.empty((len(order), states.points.shape[1]))
    # The mode only tells numpy not to buffer: all times are inside.
    in_parts(lambda a, b: np.take(states.points, order[a:b], axis=0, out=points[a:b], mode="clip"), len(order))
    for level in range(min(_TOP_LEVELS, depth)):
        end = level + 1 if level + 1 < _TOP_LEVELS else depth
        split = partial(tree.sort_subtrees, points, order, top_level=level, end_level=end, depth=depth)
        in_parts(split, 1 << level)
    return points, (np.arange((1 << depth) + 1) * len(order)) >> depth


def sorted_along(values: Floats) -> Ints:
    """Order that sorts some values, in parts of them on several threads."""
    from trajtools._kernels._threads import in_parts

    if len(values) < _SORTED_WHOLE:
        return np.asarray(np.argsort(values))
    edges = np.quantile(values[:: len(values) // _SORTED_SAMPLE], np.arange(1, _SORTED_PARTS) / _SORTED_PARTS)
    bounds = np.concatenate([[-np.inf], edges, [np.inf]])
    parts: list[Ints] = [np.empty(0, dtype=np.int64)] * _SORTED_PARTS

    def sort(first: int, last: int) -> None:
        for part in range(first, last):
            here = np.flatnonzero((values >= bounds[part]) & (values < bounds[part + 1]))
            parts[part] = here[np.argsort(values[here])]

    in_parts(sort, _SORTED_PARTS)
    return np.concatenate(parts)
