"""Distances of neighbouring pairs, summed for both states at once. See trajtools.exponents.neighbor_methods.

A state is a neighbour of its neighbours, so a pair is searched for and followed once, and its distances are added to
the sums of both. Every state gets its neighbours in the order of the buckets, so that the sums are those of one search
per state (`trajtools._kernels.balls`), bit for bit, in whichever parts the buckets are handled.
"""

# Arrays are passed one by one to functions called for every pair.
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools._kernels._jit import helper, kernel
from trajtools._kernels.lanes import LANES, add_to_both, encounters, lowest
from trajtools._kernels.neighbors import axis_gap

BATCH = 16  # buckets compared before their pairs are followed: their gaps stay in the cache
_COLUMN = np.uint64(0x0101010101010101)  # the pairs of one point of a bucket with those of another


@kernel(nogil=True, _nrt=False)
def sum_pairs(
    leaves: Any,
    times: Any,
    axis: Any,
    metric: Any,
    theiler: Any,
    limits: Any,
    lags: Any,
    steps: Any,
    squared: Any,
    first: Any,
    last: Any,
    gaps: Any,
    rings: Any,
    words: Any,
    others: Any,
    totals: Any,
    sizes: Any,
    repeats: Any,
) -> Any:
    """Fill `totals` and `sizes` for the points of the buckets first .. last, which are sorted along an axis.

    `sizes`, of (slots + 1, radii): neighbours whose smallest radius this is, by the place of a state in the buckets.
    `totals`, of (slots + 1, radii, steps): sums of their distances (`squared`: squares) after 0, 1, .. Both are flat
    and initially zero; the last row is for states of other parts. `limits`: the radii, as gaps. `gaps`, `rings`,
    `words` and `others` are workspace.
    """
    n_rings = limits.shape[0]
    widest = limits[n_rings - 1]
    for later in range(2):  # neighbours in earlier parts come first
        for home in range(first, last):
            begin, end = (home, leaves.shape[0]) if later else (0, first)
            if axis >= 0:
                begin, end = _reach(leaves, home, axis, metric, widest, begin, end, later)
            while begin < end:
                count: Any = 0
                while begin < end and count < BATCH:
                    at = count * LANES * LANES
                    words[count] = encounters(gaps, at, leaves, times, home, begin, theiler, widest, metric)
                    others[count] = begin
                    count += np.int64(words[count] != 0)
                    begin += 1
                for pair in range(count * LANES * LANES):
                    rings[pair] = 0
                for b in range(n_rings - 1):
                    for pair in range(count * LANES * LANES):
                        rings[pair] += np.int64(gaps[pair] > limits[b])
                _follow_batch(
                    times,
                    metric,
                    n_rings,
                    lags,
                    steps,
                    squared,
                    home,
                    last if later else 0,
                    count,
                    gaps,
                    rings,
                    words,
                    others,
                    totals,
                    sizes,
                    repeats,
                )


@helper(_nrt=False)
def _reach(leaves: Any, home: Any, axis: Any, metric: Any, limit: Any, begin: Any, end: Any, later: Any) -> Any:
    """Buckets from `begin` up to `end` that are near enough to a bucket along the axis."""
    if later:
        edge, stop = leaves[home, axis, LANES - 1], home + 1
        while stop < end and axis_gap(leaves[stop, axis, 0] - edge, metric) <= limit:
            stop += 1
        return begin, stop
    edge, start = leaves[home, axis, 0], end
    while start > begin and axis_gap(edge - leaves[start - 1, axis, LANES - 1], metric) <= limit:
        start -= 1
    return start, end


@helper(_nrt=False)
def _follow_batch(
    times: Any,
    metric: Any,
    n_rings: Any,
    lags: Any,
    steps: Any,
    squared: Any,
    home: Any,
    shared: Any,
    count: Any,
    gaps: Any,
    rings: Any,
    words: Any,
    others: Any,
    totals: Any,
    sizes: Any,
    repeats: Any,
) -> Any:
    """Follow the pairs of one bucket with some others; those before the bucket `shared` get the distances as well."""
    rows = sizes.shape[0] // n_rings - 1
    for lane in range(LANES):
        own, i = home * LANES + lane, times[home, lane]
        for m in range(count):
            other = others[m]
            word = (words[m] >> np.uint64(lane)) & _COLUMN
            if other == home:  # each pair once
                word &= ~np.uint64(0) << np.uint64(LANES * lane) << np.uint64(LANES)
            while word != 0:
                k = lowest(word) // LANES
                word &= word - np.uint64(1)
                pair, j = (m * LANES + k) * LANES + lane, times[other, k]
                if gaps[pair] == 0.0:
                    repeats[i] = True
                    if other < shared:
                        repeats[j] = True
                    continue
                mine = own * n_rings + rings[pair]
                theirs = (other * LANES + k if other < shared else rows) * n_rings + rings[pair]
                sizes[mine] += 1
                sizes[theirs] += 1
                add_to_both(totals, mine * steps, theirs * steps, steps, lags, i, j, metric, squared)


def make_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Allocate the workspace of one thread, outside the kernels to save compilation."""
    room, kind = BATCH * LANES * LANES, np.dtype(np.int64)
    return np.empty(room), np.empty(room, kind), np.empty(BATCH, np.uint64), np.empty(BATCH, kind)
