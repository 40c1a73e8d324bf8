"""Growth of the neighbourhoods of states. See trajtools.exponents.neighbor_methods.

Neighbours are sorted into rings by the smallest radius that contains them, followed once, and cumulated over the rings.
Sums of logarithms are stored as products; see trajtools._kernels.divergence.
"""

# Arrays are passed one by one to functions called for every pair: numba copies a tuple of them at each call, which made
# the searches three times slower.
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from trajtools._kernels._jit import kernel
from trajtools._kernels.divergence import LN2, TERMS, follow, multiply, renormalise
from trajtools._kernels.lanes import FOUR, add_distances
from trajtools._kernels.neighbors import Room, ball, make_room
from trajtools.types import ACROSS, L1, L2, LINF

MEAN_LOG, LOG_MEAN, RMS = 0, 1, 2


class Rings(NamedTuple):
    """Workspace: the neighbours of one state, by the smallest radius that contains them, and their sums.

    `gaps` are those of one pair after each step, `gap_bits` their integer view; searches use `room`.
    """

    near: np.ndarray
    gap: np.ndarray
    ring: np.ndarray
    sizes: np.ndarray
    taken: np.ndarray
    seen: np.ndarray
    totals: np.ndarray
    powers: np.ndarray
    zeros: np.ndarray
    weighted: np.ndarray
    weights: np.ndarray
    gaps: np.ndarray
    gap_bits: np.ndarray
    room: Room


class Sums(NamedTuple):
    """Sums of logarithms of one block, plain or as products of mantissas and exponents, with integer views."""

    logs: np.ndarray
    product: np.ndarray
    exponent: np.ndarray
    zeros: np.ndarray
    held: np.ndarray
    mean: np.ndarray
    mean_bits: np.ndarray
    split: np.ndarray
    mantissas: np.ndarray


class Rows(NamedTuple):
    """Output per block and radius: sums of logs and their number, pairs, references without neighbours.

    `missing` counts pairs of a block that were not followed, `repeats` marks states with a neighbour at distance zero.
    """

    logs: np.ndarray
    counts: np.ndarray
    pairs: np.ndarray
    skipped: np.ndarray
    missing: np.ndarray
    repeats: np.ndarray


class Balls(NamedTuple):
    """Input: radii or lists of neighbours, and the averaging.

    `across`: distances across the motion, whose directions follow the states in `lags`. `stride`: distance between
    reference states.
    """

    lists: np.ndarray
    limits: np.ndarray
    lags: np.ndarray
    theiler: int
    horizon: int
    average: int
    cap: int
    least: int
    across: bool
    stride: int


@kernel(_nrt=False, forceinline=True)
def ration(rings: Any, cap: Any, count: Any) -> Any:
    """Limit the neighbours to `cap`: each ring in turn gets an equal share of the rest, evenly spaced."""
    left = cap
    n_rings = rings.sizes.shape[0]
    whole = True
    for b in range(n_rings):
        rings.seen[b] = 0
        rings.taken[b] = rings.sizes[b]
        if cap > 0:
            rings.taken[b] = min(rings.sizes[b], left // (n_rings - b))
            left -= rings.taken[b]
            whole &= rings.taken[b] == rings.sizes[b]
    if whole:
        return
    for m in range(count):
        b = rings.ring[m]
        if (rings.seen[b] * rings.taken[b]) % rings.sizes[b] >= rings.taken[b]:
            rings.ring[m] = -1
        rings.seen[b] += 1


@kernel(_nrt=False)
def add_gaps(total: Any, gaps: Any, metric: Any, average: Any) -> Any:
    """Add the distances of one pair, or their squares, to the sums of a ring."""
    if average == LOG_MEAN:
        if metric == L2:
            for k in range(total.shape[0]):
                total[k] += np.sqrt(gaps[k])
        else:
            for k in range(total.shape[0]):
                total[k] += gaps[k]
    elif metric == L2:
        for k in range(total.shape[0]):
            total[k] += gaps[k]
    else:
        for k in range(total.shape[0]):
            total[k] += gaps[k] * gaps[k]


@kernel(_nrt=False, forceinline=True)
def gather(index: Any, balls: Any, rings: Any, time: Any) -> Any:
    """Find the neighbours of one state and their rings; return their number, and whether one is at zero."""
    if balls.lists.shape[0] > 0:
        count = 0
        while count < balls.lists.shape[1] and balls.lists[time, count] >= 0:
            rings.near[count] = balls.lists[time, count]
            rings.ring[count] = 0
            count += 1
        rings.sizes[0] = count
        return count, False
    n_rings = balls.limits.shape[0]
    widest = balls.limits[n_rings - 1]
    count, repeat = ball(index, time, balls.theiler, widest, rings.room, rings.near, rings.gap)
    gap, ring = rings.gap, rings.ring
    for m in range(count):
        ring[m] = 0
    left = count
    for b in range(n_rings):
        beyond: Any = 0
        if b < n_rings - 1:
            for m in range(count):
                outside = np.int64(gap[m] > balls.limits[b])
                ring[m] += outside
                beyond += outside
        rings.sizes[b] = left - beyond
        left = beyond
    return count, repeat


@kernel(_nrt=False, forceinline=True)
def sum_rings(index: Any, balls: Any, rings: Any, time: Any, count: Any, split: Any, mantissas: Any) -> Any:
    """Follow the neighbours of one state and sum over each ring; return the number not followed."""
    metric = index.metric
    followed_by = ACROSS if balls.across else metric
    gaps, bits = rings.gaps, rings.gap_bits
    width = gaps.shape[0]
    rings.totals[:] = 1.0
    rings.powers[:] = 0
    rings.zeros[:] = 0
    if balls.average != MEAN_LOG:
        # Only as many steps as needed: square roots are the cost.
        steps = -(-(balls.horizon + 1) // FOUR) * FOUR
        rings.totals[:, :steps] = 0.0
        if followed_by in (L1, L2, LINF):
            lags, near, ring, totals, squared = balls.lags, rings.near, rings.ring, rings.totals, balls.average == RMS
            for m in range(count):
                if ring[m] >= 0:
                    add_distances(totals[ring[m]], steps, lags, time, near[m], metric, squared)
            return 0
    missing = 0
    followed = 0
    for m in range(count):
        b = rings.ring[m]
        if b < 0:
            continue
        followed += 1
        if not follow(gaps, split, time, rings.near[m], balls.lags, index.matrix, followed_by, width, balls.horizon):
            missing += 1
            rings.sizes[b] -= 1
            rings.taken[b] -= 1
        elif balls.average == MEAN_LOG:
            multiply(rings.totals[b], rings.powers[b], rings.zeros[b], bits, mantissas, split)
            if followed % TERMS == 0:
                for r in range(rings.sizes.shape[0]):
                    renormalise(rings.totals[r], rings.powers[r])
        else:
            add_gaps(rings.totals[b], gaps, metric, balls.average)
    return missing


@kernel(_nrt=False, forceinline=True)
def add_ring(metric: Any, balls: Any, rings: Any, b: Any) -> Any:
    """Add the sums of ring b, weighted with its true size, to those of the rings inside it; return that size."""
    if rings.taken[b] == 0:
        return 0
    share = rings.sizes[b] / rings.taken[b]
    weighted, totals = rings.weighted, rings.totals[b]
    if balls.average != MEAN_LOG:
        for k in range(totals.shape[0]):
            weighted[k] += share * totals[k]
        return rings.sizes[b]
    half = 0.5 if metric == L2 else 1.0
    for k in range(balls.horizon + 1):
        logs = rings.powers[b, k] * LN2 + np.log(totals[k])
        weighted[k] += share * half * logs
        rings.weights[k] += share * (rings.taken[b] - rings.zeros[b, k])
    return rings.sizes[b]


def make_work(n_times: int, n_rings: int, width: int, dimension: int) -> tuple[Rings, Sums]:
    """Allocate the workspace of one thread, outside the kernels to save compilation."""

    def whole(*shape: int) -> np.ndarray:
        return np.zeros(shape, dtype=np.int64)

    gaps, mean, split = np.ones(width), np.ones(width), np.ones(width)
    rings = Rings(
        near=whole(n_times),
        gap=np.empty(n_times),
        ring=whole(n_times),
        sizes=whole(n_rings),
        taken=whole(n_rings),
        seen=whole(n_rings),
        totals=np.zeros((n_rings, width)),
        powers=whole(n_rings, width),
        zeros=whole(n_rings, width),
        weighted=np.zeros(width),
        weights=np.zeros(width),
        gaps=gaps,
        gap_bits=gaps.view(np.int64),
        room=make_room(dimension),
    )
    sums = Sums(
        logs=np.zeros((n_rings, width)),
        product=np.ones((n_rings, width)),
        exponent=whole(n_rings, width),
        zeros=whole(n_rings, width),
        held=whole(n_rings),
        mean=mean,
        mean_bits=mean.view(np.int64),
        split=split,
        mantissas=split.view(np.int64),
    )
    return rings, sums


@kernel(_nrt=False, forceinline=True)
def _close_reference(balls: Any, metric: Any, rings: Any, sums: Any, rows: Any, block: Any) -> Any:
    """Add the logarithms of the averages of one state, radius by radius, to the sums of the block."""
    rings.weighted[:] = 0.0
    rings.weights[:] = 0.0
    size = 0
    for b in range(rings.sizes.shape[0]):
        size += add_ring(metric, balls, rings, b)
        if size < balls.least:
            rows.skipped[block, b] += 1
            continue
        rows.pairs[block, b] += size
        if balls.average == MEAN_LOG:
            for k in range(balls.horizon + 1):
                if rings.weights[k] > 0.0:
                    sums.logs[b, k] += rings.weighted[k] / rings.weights[k]
                else:
                    sums.zeros[b, k] += 1
        else:
            for k in range(sums.mean.shape[0]):
                sums.mean[k] = rings.weighted[k] / size
            multiply(sums.product[b], sums.exponent[b], sums.zeros[b], sums.mean_bits, sums.mantissas, sums.split)
        sums.held[b] += 1


@kernel(_nrt=False)
def _open_block(sums: Any) -> Any:
    """Reset the sums of a block."""
    for b in range(sums.held.shape[0]):
        sums.held[b] = 0
        for k in range(sums.logs.shape[1]):
            sums.logs[b, k] = 0.0
            sums.product[b, k] = 1.0
            sums.exponent[b, k] = 0
            sums.zeros[b, k] = 0


@kernel(_nrt=False)
def _close_block(balls: Any, sums: Any, rows: Any, block: Any) -> Any:
    """Take the logarithms of the products of a block."""
    half = 0.5 if balls.average == RMS else 1.0
    for b in range(rows.logs.shape[1]):
        for k in range(rows.logs.shape[2]):
            product = sums.exponent[b, k] * LN2 + np.log(sums.product[b, k])
            rows.logs[block, b, k] = sums.logs[b, k] + half * product
            rows.counts[block, b, k] = sums.held[b] - sums.zeros[b, k]


@kernel(nogil=True, _nrt=False)
def kantz_rows(index: Any, balls: Any, edges: Any, first: Any, last: Any, rings: Any, sums: Any, rows: Any) -> Any:
    """Fill one row per block of references, for every radius."""
    for block in range(first, last):
        _open_block(sums)
        references = 0
        for i in range(edges[block], edges[block + 1]):
            if not index.usable[i] or i % balls.stride:
                continue
            n, rows.repeats[i] = gather(index, balls, rings, i)
            ration(rings, balls.cap, n)
            rows.missing[block] += sum_rings(index, balls, rings, i, n, sums.split, sums.mantissas)
            _close_reference(balls, index.metric, rings, sums, rows, block)
            references += 1
            if references % TERMS == 0:
                for b in range(sums.held.shape[0]):
                    renormalise(sums.product[b], sums.exponent[b])
        _close_block(balls, sums, rows, block)
