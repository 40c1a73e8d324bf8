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

from trajtools._kernels._jit import helper, kernel, section
from trajtools._kernels.divergence import LN2, TERMS, follow, multiply, renormalise
from trajtools._kernels.lanes import FOUR, add_distances
from trajtools._kernels.neighbors import Room, ball, make_room
from trajtools.types import L2

MEAN_LOG, LOG_MEAN, RMS = 0, 1, 2


class Rings(NamedTuple):
    """Workspace: the neighbours of one state, by the smallest radius that contains them, and their sums.

    Searches use `room`.
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
    """Input: radii, states that can be followed, and the averaging. `stride`: distance between reference states."""

    limits: np.ndarray
    usable: np.ndarray
    lags: np.ndarray
    metric: int
    theiler: int
    horizon: int
    average: int
    least: int
    stride: int


@section()
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


@section()
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


@section()
def gather(index: Any, axis: Any, groups: Any, matrix: Any, lists: Any, balls: Any, rings: Any, time: Any) -> Any:
    """Find the neighbours of one state and their rings; return their number, and whether one is at zero."""
    if lists is not None:
        count = 0
        while count < lists.shape[1] and lists[time, count] >= 0:
            rings.near[count] = lists[time, count]
            rings.ring[count] = 0
            count += 1
        rings.sizes[0] = count
        return count, False
    n_rings = balls.limits.shape[0]
    widest = balls.limits[n_rings - 1]
    usable, theiler, near, gap, ring = balls.usable, balls.theiler, rings.near, rings.gap, rings.ring
    count, repeat = ball(index, axis, groups, matrix, usable, time, theiler, widest, rings.room, near, gap)
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


@helper(_nrt=False)
def sum_rings(  # noqa: PLR0912 (two ways in one loop)
    matrix: Any,
    balls: Any,
    rings: Any,
    gaps: Any,
    along: Any,
    time: Any,
    count: Any,
    split: Any,
    bits: Any,
    mantissas: Any,
) -> Any:
    """Follow the neighbours of one state and sum over each ring; return the number not followed.

    Without `gaps`, plain distances are summed as they come. `bits` is the integer view of the gaps.
    """
    metric, near, ring, lags, totals = balls.metric, rings.near, rings.ring, balls.lags, rings.totals
    # Only as many steps as needed: square roots are the cost.
    steps = -(-(balls.horizon + 1) // FOUR) * FOUR
    for b in range(totals.shape[0]):
        for k in range(totals.shape[1]):
            totals[b, k] = 0.0 if balls.average != MEAN_LOG and k < steps else 1.0
    if gaps is None:
        for m in range(count):
            if ring[m] >= 0:
                add_distances(totals[ring[m]], steps, lags, time, near[m], metric, balls.average == RMS)
        return 0
    for b in range(totals.shape[0]):
        for k in range(totals.shape[1]):
            rings.powers[b, k] = 0
            rings.zeros[b, k] = 0
    missing = 0
    followed = 0
    for m in range(count):
        b = ring[m]
        if b < 0:
            continue
        followed += 1
        if not follow(gaps, along, time, near[m], lags, matrix, metric, gaps.shape[0], balls.horizon):
            missing += 1
            rings.sizes[b] -= 1
            rings.taken[b] -= 1
        elif balls.average == MEAN_LOG:
            multiply(totals[b], rings.powers[b], rings.zeros[b], bits, mantissas, split)
            if followed % TERMS == 0:
                for r in range(rings.sizes.shape[0]):
                    renormalise(totals[r], rings.powers[r])
        else:
            add_gaps(totals[b], gaps, metric, balls.average)
    return missing


@section()
def add_ring(balls: Any, gaps: Any, rings: Any, totals: Any, b: Any) -> Any:
    """Add the sums of ring b, weighted with its true size, to those of the rings inside it; return that size."""
    if rings.taken[b] == 0:
        return 0
    share = rings.sizes[b] / rings.taken[b]
    weighted = rings.weighted
    if gaps is not None and balls.average == MEAN_LOG:
        half = 0.5 if balls.metric == L2 else 1.0
        for k in range(balls.horizon + 1):
            logs = rings.powers[b, k] * LN2 + np.log(totals[k])
            weighted[k] += share * half * logs
            rings.weights[k] += share * (rings.taken[b] - rings.zeros[b, k])
    else:
        for k in range(totals.shape[0]):
            weighted[k] += share * totals[k]
    return rings.sizes[b]


def make_work(n_times: int, n_rings: int, width: int, dimension: int) -> tuple[Rings, Sums]:
    """Allocate the workspace of one thread, outside the kernels to save compilation."""

    def whole(*shape: int) -> np.ndarray:
        return np.zeros(shape, dtype=np.int64)

    mean, split = np.ones(width), np.ones(width)
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


@helper(_nrt=False)
def _close_reference(balls: Any, gaps: Any, rings: Any, totals: Any, sums: Any, rows: Any, block: Any) -> Any:
    """Add the logarithms of the averages of one state, radius by radius, to the sums of the block.

    `totals` (radii, steps): sums over the neighbours of each ring.
    """
    for k in range(rings.weighted.shape[0]):
        rings.weighted[k] = 0.0
        rings.weights[k] = 0.0
    size = 0
    for b in range(rings.sizes.shape[0]):
        size += add_ring(balls, gaps, rings, totals[b], b)
        if size < balls.least:
            rows.skipped[block, b] += 1
            continue
        rows.pairs[block, b] += size
        if gaps is not None and balls.average == MEAN_LOG:
            for k in range(balls.horizon + 1):
                if rings.weights[k] > 0.0:
                    sums.logs[b, k] += rings.weighted[k] / rings.weights[k]
                else:
                    sums.zeros[b, k] += 1
        else:
            for k in range(totals.shape[1]):  # of the mean, the rest is not used
                sums.mean[k] = rings.weighted[k] / size
            multiply(sums.product[b], sums.exponent[b], sums.zeros[b], sums.mean_bits, sums.mantissas, sums.split)
        sums.held[b] += 1


@section()
def _open_block(sums: Any) -> Any:
    """Reset the sums of a block."""
    for b in range(sums.held.shape[0]):
        sums.held[b] = 0
        for k in range(sums.logs.shape[1]):
            sums.logs[b, k] = 0.0
            sums.product[b, k] = 1.0
            sums.exponent[b, k] = 0
            sums.zeros[b, k] = 0


@section()
def _close_block(balls: Any, sums: Any, rows: Any, block: Any) -> Any:
    """Take the logarithms of the products of a block."""
    half = 0.5 if balls.average == RMS else 1.0
    for b in range(rows.logs.shape[1]):
        for k in range(rows.logs.shape[2]):
            product = sums.exponent[b, k] * LN2 + np.log(sums.product[b, k])
            rows.logs[block, b, k] = sums.logs[b, k] + half * product
            rows.counts[block, b, k] = sums.held[b] - sums.zeros[b, k]


@kernel(nogil=True, _nrt=False)
def kantz_rows(
    index: Any,
    axis: Any,
    groups: Any,
    matrix: Any,
    lists: Any,
    pairs: Any,
    cap: Any,
    balls: Any,
    edges: Any,
    first: Any,
    last: Any,
    gaps: Any,
    bits: Any,
    along: Any,
    rings: Any,
    sums: Any,
    rows: Any,
) -> Any:
    """Fill one row per block of references, for every radius.

    Neighbours come from `lists`, or are found as in `ball`. They are followed as in `follow`, or with `gaps` None by
    plain distances, whose logarithms are not averaged. `bits` is the integer view of `gaps`. Or `pairs` holds the sums
    over all neighbours (slots, radii, steps), their numbers, and the slot of each state (see trajtools._kernels.pairs),
    and `cap`, the most neighbours that are followed (0: all), is None.
    """
    for block in range(first, last):
        _open_block(sums)
        references = 0
        for i in range(edges[block], edges[block + 1]):
            if not balls.usable[i] or i % balls.stride:
                continue
            if pairs is not None:
                totals, sizes, slots = pairs
                for b in range(rings.sizes.shape[0]):
                    rings.sizes[b] = sizes[slots[i], b]
                    rings.taken[b] = rings.sizes[b]
                _close_reference(balls, gaps, rings, totals[slots[i]], sums, rows, block)
            if cap is not None:  # no else: numba leaves out only what depends on None
                n, rows.repeats[i] = gather(index, axis, groups, matrix, lists, balls, rings, i)
                ration(rings, cap, n)
                missing = sum_rings(matrix, balls, rings, gaps, along, i, n, sums.split, bits, sums.mantissas)
                rows.missing[block] += missing
                _close_reference(balls, gaps, rings, rings.totals, sums, rows, block)
            references += 1
            if references % TERMS == 0:
                for b in range(sums.held.shape[0]):
                    renormalise(sums.product[b], sums.exponent[b])
        _close_block(balls, sums, rows, block)
