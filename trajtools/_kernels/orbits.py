"""A path of states beside an orbit: nearest states, the coupling of the two, and the phase on the orbit."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools._kernels._jit import kernel
from trajtools._kernels.distances import root_l2
from trajtools._kernels.lanes import LANES, lowest, within
from trajtools._kernels.nearest import push_nodes
from trajtools._kernels.neighbors import BUCKET, FAR, leaf_gaps
from trajtools.types import L1, L2

# Arrays are passed one by one to functions called for every state: numba copies a tuple of them at each call.
# ruff: noqa: PLR0917

WIDTH = 512  # states of the orbit compared at a time: their distances stay in the cache


@kernel(nogil=True)
def tree_to_orbit(
    points: Any,
    usable: Any,
    first: Any,
    last: Any,
    leaves: Any,
    times: Any,
    groups: Any,
    metric: Any,
    room: Any,
    gap: Any,
    place: Any,
) -> Any:
    """Fill `gap` and `place` of the points first .. last: the nearest state of a tree, of equals the first.

    Returns the number of distances computed. See trajtools.neighbors.to_orbit.
    """
    gaps, point, stack, stack_time, stack_gap = room.gaps, room.point, room.stack, room.stack_time, room.stack_gap
    boxes, firsts, flat, earliest = groups.boxes, groups.first, groups.flat, groups.earliest
    bottom = max(leaves.shape[0] // LANES, 1)
    root = -firsts.shape[0]  # as on the stack
    computed = 0
    home = 0  # the leaf of the previous nearest state, which is close to this one's
    for i in range(first, last):
        if not usable[i]:
            continue
        for c in range(points.shape[1]):
            point[c] = points[i, c]
        best, who, begun = FAR, np.int64(-1), -1
        stack[0], stack_time[0], stack_gap[0] = root, -1, 0.0
        stack[1], stack_time[1], stack_gap[1] = home, -1, 0.0
        depth = np.int64(2)
        while depth > 0:
            depth -= 1
            node = stack[depth]
            if stack_gap[depth] > best or (stack_gap[depth] == best and stack_time[depth] > who) or node == begun:
                continue
            if node >= 0:
                best, who, better = _offer(leaves, times, node, metric, point, gaps, best, who)
                if begun < 0:
                    begun = home
                home = node if better else home
                computed += BUCKET
                continue
            depth, _ = push_nodes(
                gaps,
                point,
                boxes,
                firsts,
                flat,
                earliest,
                -1 - node,
                bottom,
                np.uint64(0),
                best,
                who,
                metric,
                stack,
                stack_time,
                stack_gap,
                depth,
            )
        gap[i], place[i] = best, who
    return computed


@kernel(_nrt=False)
def _offer(leaves: Any, times: Any, leaf: Any, metric: Any, point: Any, gaps: Any, best: Any, who: Any) -> Any:
    """Compare a point with the states of a leaf; returns the best gap, its time, and whether it is new."""
    leaf_gaps(gaps, 0, leaves, leaf, point, metric)
    inside = within(gaps, 0, best)
    better = False
    while inside != 0:
        k = lowest(inside)
        inside &= inside - np.uint64(1)
        if gaps[k] < best or (gaps[k] == best and times[leaf, k] < who):
            best, who, better = gaps[k], times[leaf, k], True
    return best, who, better


@kernel(nogil=True)
def along_orbit(
    path: Any, orbit: Any, columns: Any, first: Any, last: Any, metric: Any, nearest: Any, place: Any, covered: Any
) -> Any:
    """Compare each state of a path (K, P) with all of an orbit (S, P), also given by columns (P, S), row by row.

    Fills the distance of each state to the orbit and its place there, and that of each state first .. last of the orbit
    to the path; returns the discrete Frechet distance of the path and this part.
    """
    length = columns.shape[1]
    row = np.empty(length)
    coupling = np.full(last - first, np.inf)
    for i in range(path.shape[0]):
        _distance_row(path[i], orbit, columns, metric, row)
        least, at = row[0], 0
        for s in range(1, length):
            if row[s] < least:
                least, at = row[s], s
        nearest[i], place[i] = least, at
        part = row[first:last]
        for s in range(last - first):
            covered[s] = min(covered[s], part[s])
        couple(coupling, part, i > 0)
    return coupling[last - first - 1] if last > first else np.nan


@kernel(_nrt=False)
def _distance_row(state: Any, orbit: Any, columns: Any, metric: Any, row: Any) -> None:
    """Distances of one state to all states of an orbit."""
    for start in range(0, row.shape[0], WIDTH):
        stop = min(start + WIDTH, row.shape[0])
        part = row[start:stop]
        part[:] = 0.0
        for c in range(state.shape[0]):
            other = columns[c, start:stop]
            value = state[c]
            if metric == L2:
                for s in range(stop - start):
                    part[s] += (other[s] - value) * (other[s] - value)
            elif metric == L1:
                for s in range(stop - start):
                    part[s] += abs(other[s] - value)
            else:
                for s in range(stop - start):
                    step = abs(other[s] - value)
                    part[s] = step if step > part[s] else part[s]
        if metric == L2:
            for s in range(stop - start):
                if 1e-280 < part[s] < 1e300:
                    part[s] = np.sqrt(part[s])
                else:  # a square under- or overflowed
                    part[s] = root_l2(state, orbit[start + s])


@kernel(_nrt=False)
def couple(row: Any, distances: Any, begun: bool) -> None:
    """Go on by one state in the table of the discrete Frechet distance, whose last row is `row`."""
    # The first pair has no predecessor: the coupling starts there.
    diagonal = np.inf if begun else -np.inf
    left = np.inf
    for j in range(distances.shape[0]):
        above = row[j]
        left = max(min(above, diagonal, left), distances[j])
        row[j] = left
        diagonal = above


@kernel(nogil=True)
def coupled_rows(distances: Any, before: Any, begun: bool) -> Any:
    """Last row of the discrete Frechet table after the rows of `distances`, given the row before them.

    See trajtools.stability.pairs.
    """
    row = before.copy()
    for i in range(distances.shape[0]):
        couple(row, distances[i], begun or i > 0)
    return row


@kernel(nogil=True)
def descend(path: Any, usable: Any, orbit: Any, at: Any, place: Any) -> Any:
    """Local minimum on the orbit of the Euclidean distance to each state, started one state after the previous one.

    Ties stay, so that the phase of an orbit at rest is constant. Fills `place` (-1 where a state is not usable), and
    returns where the next state starts.
    """
    last = orbit.shape[0] - 1
    for i in range(path.shape[0]):
        place[i] = -1
        if usable[i]:
            at = min(max(at, 0), last)
            here = _finite_root(path[i], orbit, at)
            before, after = _finite_root(path[i], orbit, at - 1), _finite_root(path[i], orbit, at + 1)
            while min(before, after) < here:
                if before <= after:
                    at, after, here = at - 1, here, before
                    before = _finite_root(path[i], orbit, at - 1)
                else:
                    at, before, here = at + 1, here, after
                    after = _finite_root(path[i], orbit, at + 1)
            place[i] = at
        at += 1
    return at


@kernel(_nrt=False)
def _finite_root(state: Any, orbit: Any, at: Any) -> Any:
    if not 0 <= at < orbit.shape[0]:
        return np.inf
    distance = root_l2(state, orbit[at])
    return distance if np.isfinite(distance) else np.inf
