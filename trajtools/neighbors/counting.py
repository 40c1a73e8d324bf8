"""Pairs of states counted by their distance, for every block of reference states: what a correlation sum is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from trajtools.errors import DataError
from trajtools.neighbors.search import Strategy, build, evenly
from trajtools.neighbors.states import States
from trajtools.types import Bools, Floats, Ints

BLOCKS = 64
_SHORTEST_BLOCK = 8
_PROBES, _PROBE_STATES = 64, 512
_RATIO = 2.0**0.25
_MOST_RADII = 200
_ROWS_BYTES = 64 * 2**20
# Share of all pairs, and number of them, up to which the logarithms of the distances are summed one by one.
LOGGED_SHARE, _MOST_LOGGED = 0.1, 1e8

Reader = Callable[[int, int], Floats]
Between = Callable[[Ints, Ints], Floats]


@dataclass(frozen=True, eq=False)
class PairCounts:
    """Ordered pairs of states, by the block of the first one.

    Attributes
    ----------
    radii : ndarray of float64, shape (R,)
        Ascending.
    counts : ndarray of int64, shape (B, R)
        Pairs at most so far apart, equal states included.
    logs : ndarray of float64, shape (B, R)
        Sum of the natural logarithms of their distances, equal states left out; NaN where it was not taken.
    zeros, pairs : ndarray of int64, shape (B,)
        Pairs at distance zero, and all of them.
    """

    radii: Floats
    counts: Ints
    logs: Floats
    zeros: Ints
    pairs: Ints


def blocks_of_time(usable: Bools, theiler: int) -> Ints:
    """Bounds of equally long blocks of reference states, longer than the Theiler window where the record allows."""
    times = np.flatnonzero(usable)
    first, stop = int(times[0]), int(times[-1]) + 1
    count = int(np.clip((stop - first) // max(_SHORTEST_BLOCK, theiler), 1, BLOCKS))
    return first + (np.arange(count + 1) * (stop - first)) // count


def count_states(states: States, radii: Floats, edges: Ints, logged: int) -> PairCounts:
    """Count the pairs of states of few dimensions, by a tree."""
    from trajtools._kernels import correlation_sum as kernels
    from trajtools._kernels._threads import in_parts

    limits = _limits(states, radii)
    start = kernels.first_bins(limits)
    tree = build(states, Strategy("tree", -1, "pairs are counted in a tree"))
    sizes = _sizes(tree.times)
    block = _block_of(edges, len(states))
    chunks = -(-len(tree.leaves) // kernels.LEAVES_PER_CHUNK)
    shape = (len(edges) - 1, len(limits))
    counts, logs = np.zeros((chunks, *shape), dtype=np.int64), np.zeros((chunks, *shape))
    given = (tree.leaves, tree.times, tree.boxes, sizes, states.code, limits, start, logged, block)
    in_parts(lambda first, last: kernels.tree_counts(*given, first, last, counts, logs), chunks)
    near, near_logs = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    inside = (np.ascontiguousarray(states.points), states.usable, states.code, states.theiler)
    in_parts(
        lambda first, last: kernels.near_counts(*inside, limits, start, logged, edges, first, last, near, near_logs),
        shape[0],
    )
    total, sums = counts.sum(axis=0) - near, logs.sum(axis=0) - near_logs
    return _cumulated(radii, total, sums * (0.5 if states.root else 1.0), logged)


def count_rows(read: Reader, usable: Bools, theiler: int, radii: Floats, edges: Ints) -> PairCounts:
    """Count the pairs of a matrix of distances, some rows at a time."""
    from trajtools._kernels import correlation_sum as kernels
    from trajtools._kernels._threads import in_parts

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


def _into(work: Callable[..., Any], counts: Ints, logs: Floats, first: int, last: int) -> None:
    work(first, last, counts, logs)


def choose_radii(between: Between, usable: Bools, theiler: int, share: float = 1.0) -> Floats:
    """Radii from the nearest neighbours up to the diameter, four an octave, from a sample."""
    times = np.flatnonzero(usable)
    near = _sampled(between, times, times, theiler)
    near[~(near > 0)] = np.nan
    if not np.isfinite(near).any():
        raise DataError(
            f"no two of {len(times)} states at least theiler={theiler} samples apart differ: there is no distance to "
            "count pairs by. Lower theiler, record more, or check that the states move at all"
        )
    low, high = float(np.nanmin(near)), float(np.nanquantile(near, share))
    step = max(np.log(_RATIO), np.log(high / low) / _MOST_RADII)
    first, last = int(np.floor(np.log(low) / step)), int(np.ceil(np.log(high) / step))
    return np.exp(np.arange(first, last + 1) * step)


def logged_radii(between: Between, usable: Bools, theiler: int, radii: Floats) -> int:
    """Number of the radii that hold few enough pairs for the logarithm of each to be taken."""
    times = np.flatnonzero(usable)
    spread = _sampled(between, times, evenly(times, _PROBE_STATES), theiler)
    spread = np.sort(spread[np.isfinite(spread)])
    share = np.searchsorted(spread, radii, side="right") / max(len(spread), 1)
    return int(np.count_nonzero(share <= min(LOGGED_SHARE, _MOST_LOGGED / len(times) ** 2)))


def _sampled(between: Between, times: Ints, others: Ints, theiler: int) -> Floats:
    """Distances of a few states to some others; NaN inside the Theiler window."""
    queries = evenly(times, _PROBES)
    found = between(queries, others)
    found[np.abs(queries[:, None] - others[None, :]) < theiler] = np.nan
    return found


def _limits(states: States, radii: Floats) -> Floats:
    """Radii as the kernels compare them: the largest gap whose distance is still inside."""
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


def _block_of(edges: Ints, length: int) -> Ints:
    return np.clip(np.searchsorted(edges, np.arange(length), side="right") - 1, 0, len(edges) - 2)


def _cumulated(radii: Floats, bins: Ints, logs: Floats, logged: int) -> PairCounts:
    counts = np.cumsum(bins, axis=1)
    sums = np.cumsum(logs[:, 1:-1], axis=1)
    sums[:, logged:] = np.nan
    return PairCounts(radii, counts[:, 1:-1], sums, counts[:, 0], counts[:, -1])
