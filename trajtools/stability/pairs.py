"""Distances, phase and lag between a perturbed trajectory and its reference."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trajtools.distances import tiles
from trajtools.distances.equal_times import as_states, common, pairs, read_rows
from trajtools.distances.metric import OPERATIONS, Metric, bind_metric, block_floor, in_time, kernel_ready
from trajtools.distances.tiles import compute, stored_format
from trajtools.errors import DataError, SelectionError
from trajtools.trajectory import Trajectory
from trajtools.types import Bools, Floats, Ints
from trajtools.wording import counted

ROWS = 64  # the chunks of a file are 64 states
ROW_BYTES = 8 * 2**20
KEPT_BYTES = 128 * 2**20
WHOLE_BYTES = 32 * 2**20  # trajectories up to this size are read once
MOST_ENTRIES = 256  # of states that are compared row by row; longer ones in tiles
NODES = 6
AROUND = 5  # states on either side for the check of the interpolation
SMOOTH = 0.1
BAND = 4  # half width of the precomputed distances around the expected minimum
BAND_ROWS = 32
STENCIL_BYTES = 48 * 2**20


# Midpoint weights of six equally spaced nodes, and the value of their error polynomial there.
_MIDDLE = np.array([3, -25, 150, 150, -25, 3]) / 256


_ERROR_AT_MIDDLE = 3.515625
_SCALES = np.array([[float(np.prod([k - j for j in range(NODES) if j != k]))] for k in range(NODES)])
_NEWTON = 6
_ONE = np.zeros(1, dtype=np.int64)
TABLE_BYTES = 16 * 2**20
BLOCK_BYTES = 32 * 2**20
NARROW = ("bfloat16", "float16", "float32")
Family = tuple[Any, list[Any], str | None]  # a reference, its copies, and their storage format


@dataclass(frozen=True, eq=False)
class Pair:
    """A reference and one perturbed copy of it.

    Attributes
    ----------
    reference, perturbed : Rows
        Their states.
    reference_step, perturbed_step : ndarray of int64, shape (S,) and (T,)
        Steps of the states, ascending.
    group : int
        Index of the initial condition.
    dt : float
        Time of a step.
    time_unit : str
        Unit of `dt`.
    dtype : str
        Narrowest storage format of the two; its rounding is the floor of the distances.
    """

    reference: Rows
    perturbed: Rows
    reference_step: Ints
    perturbed_step: Ints
    group: int
    dt: float
    time_unit: str
    dtype: str


class Rows:
    """Random access to the states of a trajectory or array, with a cache of blocks."""

    def __init__(self, x: Any) -> None:
        self.shape: tuple[int, int] = (len(x), int(x.shape[1]))
        size = 8 * max(self.shape[1], 1)
        self.states = x
        self._whole = read_rows(x, 0, len(x)) if size * len(x) <= WHOLE_BYTES else None
        self._rows = max(1, min(ROWS, ROW_BYTES // size))
        self._most = max(2, KEPT_BYTES // (self._rows * size))
        self._cache: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def is_whole(self) -> bool:
        """Whether all states are in memory."""
        return self._whole is not None

    @property
    def dtype(self) -> str:
        """Name of the dtype in which the states are read."""
        return str(self.states.dtype)

    def read(self, start: int, stop: int) -> Any:
        """Return the states start .. stop, (t, P), in their stored dtype."""
        return read_rows(self.states, start, stop) if self._whole is None else self._whole[start:stop]

    def take(self, index: Ints) -> Any:
        """Return the states of some indices, (k, P)."""
        if self._whole is not None:
            return self._whole[index]
        block = index // self._rows
        out = None
        for number in np.unique(block):
            here = block == number
            states = self._block(int(number))
            if out is None:
                out = np.empty((len(index), self.shape[1]), dtype=states.dtype)
            out[here] = states[index[here] - int(number) * self._rows]
        return np.empty((0, self.shape[1])) if out is None else out

    def _block(self, number: int) -> Any:
        if number in self._cache:
            self._cache.move_to_end(number)
        else:
            start = number * self._rows
            self._cache[number] = self.read(start, min(start + self._rows, len(self)))
            if len(self._cache) > self._most:
                self._cache.popitem(last=False)
        return self._cache[number]


@dataclass(frozen=True, eq=False)
class Followed:
    """Distances and phase of a perturbed trajectory, from the perturbation on.

    Attributes
    ----------
    step : ndarray of int64, shape (K,)
        Common recorded steps, from the perturbation on.
    distance, orbit, transverse, lag, floor, resolution : ndarray of float64, shape (K,)
        As in `OrbitalStability`.
    removed, censored : ndarray of bool, shape (K,)
        States with the neutral direction removed, and states whose phase lies beyond the record.
    frechet, hausdorff, tube, extent : float
        Frechet and Hausdorff distance, radius of the tube, and the size of the orbit: the largest distance of a
        state of the reference to the one at the perturbation.
    group : int
        Index of the initial condition.
    unperturbed, diverged : bool
        Whether it never differs from the reference; whether its end is not finite.
    excluded, uncommon : int
        States of either that are not finite; steps of the perturbed trajectory missing in the reference.
    lost : int
        Step from which either is not finite to the end; -1 if both end in finite states.
    """

    step: Ints
    distance: Floats
    orbit: Floats
    transverse: Floats
    lag: Floats
    floor: Floats
    resolution: Floats
    removed: Bools
    censored: Bools
    frechet: float
    hausdorff: float
    tube: float
    extent: float
    group: int
    unperturbed: bool
    diverged: bool
    excluded: int
    uncommon: int
    lost: int


def follow(pair: Pair, metric: Metric, window: tuple[int, int] | None) -> Followed:
    """Compare one perturbed trajectory with the orbit of its reference."""
    step, mine, theirs = _common(pair, window)
    metric = bind_metric(metric, pair.reference.states, pair.perturbed.states)
    distance, floor, fine_mine, fine_theirs = _same_time(pair, in_time(metric), mine, theirs)
    apart = np.flatnonzero(distance != 0)
    unperturbed = not len(apart)
    first = 0 if unperturbed else int(apart[0])
    step, mine, theirs = step[first:], mine[first:], theirs[first:]
    distance, floor = distance[first:], floor[first:]
    fine_mine, fine_theirs = fine_mine[first:], fine_theirs[first:]
    orbit_rows = _finite(pair.reference)
    good = np.flatnonzero(fine_mine)
    inside = np.searchsorted(orbit_rows, [theirs[0], theirs[-1] + 1])
    sets = compare(metric, (pair.perturbed, mine[good]), (pair.reference, orbit_rows), slice(*inside.tolist()))
    phase = follow_phase(metric, pair.perturbed, pair.reference, rows=mine, start=int(theirs[0]))
    orbit = np.full(len(mine), np.nan)
    orbit[good] = sets.nearest
    both = np.flatnonzero(fine_mine & fine_theirs)
    end = int(both[-1]) + 1 if len(both) else 0
    still = ~(_speed(pair, metric, phase.place) > 2 * floor)
    lag = (_time_at(pair, phase.place) - step) * pair.dt
    return Followed(
        step=step,
        distance=distance,
        orbit=orbit,
        transverse=phase.transverse,
        lag=np.where(still | phase.censored, np.nan, lag),
        floor=floor,
        resolution=phase.resolution,
        removed=phase.removed,
        censored=phase.censored,
        frechet=sets.frechet,
        hausdorff=sets.hausdorff,
        tube=sets.tube,
        extent=_extent(pair, metric, orbit_rows, int(theirs[0])),
        group=pair.group,
        unperturbed=unperturbed,
        diverged=bool(not fine_mine[-1] and fine_theirs[-1]),
        excluded=int((~fine_mine).sum()) + len(pair.reference) - len(orbit_rows),
        uncommon=len(pair.perturbed) - len(np.intersect1d(pair.reference_step, pair.perturbed_step)),
        lost=int(step[end]) if end < len(step) else -1,
    )


def _common(pair: Pair, window: tuple[int, int] | None) -> tuple[Ints, Ints, Ints]:
    """Common recorded steps in the window, and their rows in both."""
    if pair.reference.shape[1] != pair.perturbed.shape[1]:
        raise DataError(
            f"the states have {pair.reference.shape[1]} and {pair.perturbed.shape[1]} weights; only states of one "
            "architecture have a distance"
        )
    if not len(pair.reference) or not len(pair.perturbed):
        raise DataError(
            f"the reference has {len(pair.reference)} states and the perturbed trajectory {len(pair.perturbed)}; "
            "both need at least one"
        )
    step, theirs, mine = np.intersect1d(pair.reference_step, pair.perturbed_step, return_indices=True)
    if not len(step):
        raise DataError(
            f"the reference was recorded at steps {pair.reference_step[0]} to {pair.reference_step[-1]}, the perturbed "
            f"trajectory at {pair.perturbed_step[0]} to {pair.perturbed_step[-1]}, and no step is common; record both "
            "at the same steps, or set `start` to the first step of the array in the reference"
        )
    if window is not None:
        inside = (step >= window[0]) & (step < window[1])
        if not inside.any():
            raise SelectionError(f"no common state lies in the window {window}; they run from {step[0]} to {step[-1]}")
        step, theirs, mine = step[inside], theirs[inside], mine[inside]
    return step, mine.astype(np.int64), theirs.astype(np.int64)


def _same_time(pair: Pair, metric: Metric, mine: Ints, theirs: Ints) -> tuple[Floats, Floats, Bools, Bools]:
    """Distance at equal times, rounding floor, and the finite states of either."""
    count, width = len(mine), pair.reference.shape[1]
    distance, floor = np.empty(count), np.empty(count)
    fine_mine, fine_theirs = np.empty(count, dtype=bool), np.empty(count, dtype=bool)
    tall = max(1, BLOCK_BYTES // (16 * max(width, 1)))
    one = np.zeros(1, dtype=np.int64)
    for first in range(0, count, tall):
        here = slice(first, min(first + tall, count))
        a, b = pair.perturbed.take(mine[here]), pair.reference.take(theirs[here])
        fine_mine[here], fine_theirs[here] = np.isfinite(a).all(axis=1), np.isfinite(b).all(axis=1)
        distances_here = pairs(metric, a[:, None], b[:, None], one, one)[:, 0]
        distance[here] = np.where(fine_mine[here] & fine_theirs[here], distances_here, np.nan)
        floor[here] = block_floor(b[:, None], metric, pair.dtype, width)[:, 0]
    return distance, floor, fine_mine, fine_theirs


def _finite(rows: Rows) -> Ints:
    tall = len(rows) if rows.is_whole else ROWS
    fine = [np.isfinite(rows.read(a, min(a + tall, len(rows)))).all(axis=1) for a in range(0, len(rows), tall)]
    return np.flatnonzero(np.concatenate(fine)).astype(np.int64)


def compare(metric: Metric, path: Some, orbit: Some, part: slice) -> Sets:
    """Compute set distances between a path and an orbit."""
    from trajtools._kernels.orbits import coupled_rows

    count, length = len(path[1]), len(orbit[1])
    nearest, argmin = np.full(count, np.nan), np.zeros(count, dtype=np.int64)
    n_columns = len(range(*part.indices(length)))
    covered = np.full(n_columns, np.inf)
    coupling = np.full(n_columns, np.inf)
    if not count or not length:
        return Sets(nearest, argmin, float("nan"), float("nan"))
    code = _plain_code(metric)
    if code and path[0].shape[1] <= MOST_ENTRIES and path[0].is_whole and orbit[0].is_whole:
        return _compare_whole(code, metric, path, orbit, part)
    for first, table in tables(metric, path, orbit):
        here = slice(first, first + len(table))
        argmin[here] = table.argmin(axis=1)
        nearest[here] = table[np.arange(len(table)), argmin[here]]
        part_table = np.ascontiguousarray(table[:, part])
        if n_columns:
            covered = np.minimum(covered, part_table.min(axis=0))
            coupling = coupled_rows(part_table, coupling, first > 0)
    back = float(covered.max()) if n_columns else float("nan")
    frechet = float(coupling[-1]) if n_columns else float("nan")
    return Sets(nearest, orbit[1][argmin], back, frechet)


def _plain_code(metric: Metric) -> int:
    """Code of a metric that the kernels compare as it is; 0 of others."""
    plain = metric.sums is not None and metric.merge is not None and not metric.sums.signs
    return OPERATIONS[metric.sums.operation] if plain and metric.sums is not None else 0


def _compare_whole(code: int, metric: Metric, path: Some, orbit: Some, part: slice) -> Sets:
    """`compare` for states in memory, row by row: no matrix of distances is ever made."""
    from trajtools._kernels.orbits import along_orbit

    mine, theirs = (np.ascontiguousarray(rows.take(index), dtype=np.float64) for rows, index in (path, orbit))
    nearest, place = np.empty(len(mine)), np.empty(len(mine), dtype=np.int64)
    first, last, _ = part.indices(len(theirs))
    covered = np.full(max(last - first, 0), np.inf)
    columns = np.ascontiguousarray(theirs.T)
    frechet = along_orbit(mine, theirs, columns, first, max(first, last), code, nearest, place, covered)
    back = float(covered.max()) if len(covered) else float("nan")
    if metric.finish is not None:
        nearest, (back, frechet) = (
            metric.finish(nearest, mine.shape[1]),
            metric.finish(np.array([back, frechet]), mine.shape[1]),
        )
    return Sets(nearest, orbit[1][place], float(back), float(frechet))


@dataclass(frozen=True, eq=False)
class Sets:
    """Set distances between a path and an orbit.

    Attributes
    ----------
    nearest : ndarray of float64, shape (K,)
        Distance of each state of the path to the set of all states of the orbit.
    argmin : ndarray of int64, shape (K,)
        Index of the nearest state of the orbit.
    back : float
        Largest distance of a state of the part of the orbit to the path, the reverse Hausdorff distance.
    frechet : float
        Discrete Frechet distance of the path and the part of the orbit; NaN if either is empty.
    """

    nearest: Floats
    argmin: Ints
    back: float
    frechet: float

    @property
    def tube(self) -> float:
        """Radius of the tube around the orbit that contains the path."""
        return float(self.nearest.max()) if len(self.nearest) else float("nan")

    @property
    def hausdorff(self) -> float:
        """Hausdorff distance: the larger of the two one-sided ones."""
        return float(max(self.tube, self.back)) if len(self.nearest) else float("nan")


def tables(metric: Metric, path: Some, orbit: Some) -> Iterator[tuple[int, Floats]]:
    """Yield (first, distances (k, S)) of blocks of states of the path to all states of the orbit."""
    (mine, mine_rows), (theirs, their_rows) = path, orbit
    low, high = int(mine_rows[0]), int(mine_rows[-1]) + 1
    # Skip the rounding floor, already known: it costs as much as the distances of small networks.
    plain = replace(metric, rounding=None)
    comparison = tiles.compare(mine.states[low:high], theirs.states, plain, digest=False, executor=None)
    workers = tiles.threads()
    side = comparison.side(workers)
    tall = max(1, min(side, TABLE_BYTES // (8 * len(theirs))))
    columns = [slice(start, min(start + side, len(theirs))) for start in range(0, len(theirs), side)]
    for start in range(low, high, tall):
        first, last = np.searchsorted(mine_rows, [start, start + tall]).tolist()
        if first == last:
            continue
        rows = slice(start - low, min(start + tall, high) - low)
        table = np.empty((rows.stop - rows.start, len(theirs)))
        _fill(table, comparison, rows, columns, workers)
        if last - first < len(table):
            table = table[mine_rows[first:last] - start]
        yield first, table if len(their_rows) == len(theirs) else np.ascontiguousarray(table[:, their_rows])


def _fill(table: Floats, comparison: tiles.Comparison, rows: slice, columns: list[slice], workers: int) -> None:
    def keep(task: slice, block: Floats) -> None:
        table[:, task] = block

    tiles.run(columns, compute, keep, executor=None, workers=workers, send=lambda task: comparison.tile(rows, task))


def follow_phase(metric: Metric, path: Rows, orbit: Rows, *, rows: Ints, start: int) -> Phase:
    """Follow the phase of a path on an orbit."""
    count = len(rows)
    size = 8 * max(path.shape[1], 1)
    tall = max(1, STENCIL_BYTES // (size * (NODES + 8)))
    parts: list[tuple[Any, ...]] = []
    at = start
    for first in range(0, count, tall):
        states = path.take(rows[first : first + tall])
        nearest, at = _descend(states, orbit, at)
        parts.append(_refine(metric, states, orbit, nearest))
    place, transverse, resolution, removed, censored = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Phase(place, transverse, resolution, removed, censored)


@dataclass(frozen=True, eq=False)
class Phase:
    """Phase of a perturbed trajectory on the orbit.

    Attributes
    ----------
    place : ndarray of float64, shape (K,)
        Fractional index of the orbit at the same phase; NaN for states that are not finite.
    transverse : ndarray of float64, shape (K,)
        Distance to the orbit at this phase; NaN where it lies beyond the record.
    resolution : ndarray of float64, shape (K,)
        Error of the interpolated orbit there, in the metric; 0 without interpolation.
    removed : ndarray of bool, shape (K,)
        States with the neutral direction removed.
    censored : ndarray of bool, shape (K,)
        States whose phase lies beyond the record.
    """

    place: Floats
    transverse: Floats
    resolution: Floats
    removed: Bools
    censored: Bools


def _descend(states: Any, orbit: Rows, at: int) -> tuple[Ints, int]:
    """Local minimum of the Euclidean distance for each state, started one state after the previous minimum."""
    ready = kernel_ready(states)
    if orbit.is_whole:
        from trajtools._kernels.orbits import descend

        ready, whole = common(ready, orbit.read(0, len(orbit)))
        place = np.empty(len(ready), dtype=np.int64)
        return place, int(descend(ready, np.isfinite(ready).all(axis=1), whole, at, place))
    fine = np.isfinite(ready).all(axis=1)
    out = np.full(len(ready), -1, dtype=np.int64)
    for first in range(0, len(ready), BAND_ROWS):
        stop = min(first + BAND_ROWS, len(ready))
        near = _Near(ready[first:stop], orbit, at)
        for b in range(stop - first):
            if fine[first + b]:
                at = _minimum(near, b, at)
                out[first + b] = at
            at += 1
    return out, at


class _Near:
    """Euclidean distances of states to nearby states of the orbit: a band at once, others on demand."""

    def __init__(self, states: Any, orbit: Rows, at: int) -> None:
        self.last = len(orbit) - 1
        self._states, self._orbit, self._from = states, orbit, at - BAND
        index = at + np.arange(len(states))[:, None] + np.arange(-BAND, BAND + 1)
        clipped = np.clip(index, 0, self.last)
        needed, inverse = np.unique(clipped, return_inverse=True)
        left = np.repeat(np.arange(len(states)), 2 * BAND + 1)
        self._band = _euclidean(states, orbit.take(needed), left, inverse.ravel()).reshape(index.shape)

    def __call__(self, b: int, s: int) -> float:
        if not 0 <= s <= self.last:
            return float("inf")
        j = s - self._from - b
        if 0 <= j <= 2 * BAND:
            distance = float(self._band[b, j])
        else:
            distance = float(_euclidean(self._states[b : b + 1], self._orbit.take(np.array([s])), _ONE, _ONE)[0])
        return distance if np.isfinite(distance) else float("inf")


def _euclidean(a: Any, b: Any, left: Ints, right: Ints) -> Floats:
    from trajtools._kernels.distances import pairs_l2

    a, b = common(a, b)
    return np.asarray(pairs_l2(a[None], b[None], left, right)[0])


def _minimum(near: _Near, b: int, at: int) -> int:
    """Descend from `at` to a local minimum; ties stay, so that the phase of an orbit at rest is constant."""
    at = min(max(at, 0), near.last)
    here = near(b, at)
    while True:
        before, after = near(b, at - 1), near(b, at + 1)
        if not min(before, after) < here:
            return at
        at, here = (at - 1, before) if before <= after else (at + 1, after)


def _refine(metric: Metric, states: Any, orbit: Rows, nearest: Ints) -> tuple[Any, ...]:
    """Fractional index, distance there, its error, and where the neutral direction was removed."""
    count, last = len(nearest), len(orbit) - 1
    place, transverse = np.where(nearest >= 0, nearest, np.nan), np.full(count, np.nan)
    resolution, removed = np.zeros(count), np.zeros(count, dtype=bool)
    finite = np.flatnonzero(nearest >= 0)
    if len(finite):
        here = orbit.take(nearest[finite])
        transverse[finite] = _rowwise(metric, states[finite], here)
    missed, smooth = _interpolation(metric, orbit, nearest[finite])
    fit = finite[smooth]
    if len(fit):
        base = np.clip(nearest[fit] - NODES // 2 + 1, 0, last + 1 - NODES)
        with np.errstate(invalid="ignore"):  # NaN next to a state that is not finite
            u, point = _project(np.asarray(states[fit], dtype=np.float64), orbit, base, nearest[fit])
        place[fit] = base + u
        transverse[fit] = _rowwise(metric, np.asarray(states[fit], dtype=np.float64), point)
        shape = np.abs(np.prod(u[:, None] - np.arange(NODES), axis=1)) / _ERROR_AT_MIDDLE
        resolution[fit] = missed[smooth] / 2**NODES * shape
        removed[fit] = True
    # A nearest state at an end of the record only bounds the distance, unless the phase is inside.
    ends = (nearest == 0) | (nearest == last)
    censored = ends & np.where(removed, (place < -0.5) | (place > last + 0.5), False)
    transverse[censored] = np.nan
    return place, transverse, resolution, removed, censored


def _interpolation(metric: Metric, orbit: Rows, nearest: Ints) -> tuple[Floats, Bools]:
    """Interpolation error of six neighbours at twice the spacing, and whether it is small."""
    last = len(orbit) - 1
    if last < 2 * AROUND or not len(nearest):
        return np.full(len(nearest), np.nan), np.zeros(len(nearest), dtype=bool)
    centre = np.clip(nearest, AROUND, last - AROUND)
    states, inverse = np.unique(centre, return_inverse=True)
    middle = np.asarray(orbit.take(states), dtype=np.float64)
    predicted = np.zeros_like(middle)
    for k, weight in zip(range(-AROUND, AROUND + 1, 2), _MIDDLE, strict=True):
        # Interpolate differences, not states: the weights add up to one, and differences are small.
        predicted += weight * (orbit.take(states + k) - middle)
    step = np.asarray(orbit.take(states + 1), dtype=np.float64) - orbit.take(states - 1)
    with np.errstate(over="ignore"):  # of a training that ran away
        smooth = np.linalg.norm(predicted, axis=1) < SMOOTH * np.linalg.norm(step, axis=1)
    missed = _rowwise(metric, middle, middle + predicted)
    return missed[inverse], smooth[inverse]


def _rowwise(metric: Metric, a: Any, b: Any) -> Floats:
    index = np.zeros(1, dtype=np.int64)
    return pairs(metric, np.asarray(a)[:, None], np.asarray(b)[:, None], index, index)[:, 0]


def _project(states: Floats, orbit: Rows, base: Ints, nearest: Ints) -> tuple[Floats, Floats]:
    """Offset u from `base` where the difference is orthogonal to the interpolated orbit, and the point there."""
    centre = np.asarray(orbit.take(nearest), dtype=np.float64)
    nodes = np.empty((len(states), NODES, states.shape[1]))
    for k in range(NODES):
        np.subtract(orbit.take(base + k), centre, out=nodes[:, k])
    # Newton steps need scalar products only; the weights are read once.
    among = nodes @ nodes.swapaxes(1, 2)
    apart = np.einsum("tkp,tp->tk", nodes, states - centre, optimize=True)
    u = (nearest - base).astype(np.float64)
    low, high = u - 1.5, u + 1.5
    for _ in range(_NEWTON):
        weight, slope = _lagrange(u)
        pull = (slope * (apart - np.einsum("tkl,tl->tk", among, weight))).sum(axis=1)
        speed = np.einsum("tk,tkl,tl->t", slope, among, slope)
        with np.errstate(invalid="ignore", divide="ignore"):
            move = pull / speed
        u = np.clip(u + np.where(np.isfinite(move), move, 0.0), low, high)
    return u, centre + np.einsum("tk,tkp->tp", _lagrange(u)[0], nodes, optimize=True)


def _lagrange(u: Floats) -> tuple[Floats, Floats]:
    """Weights of the nodes 0 .. 5 at u, (t, 6), and their derivatives."""
    factors = u - np.arange(NODES)[:, None]
    # Products of the factors before and behind each node, and their derivatives.
    before, behind = np.ones_like(factors), np.ones_like(factors)
    before_slope, behind_slope = np.zeros_like(factors), np.zeros_like(factors)
    for k in range(1, NODES):
        before[k] = before[k - 1] * factors[k - 1]
        before_slope[k] = before_slope[k - 1] * factors[k - 1] + before[k - 1]
        behind[-k - 1] = behind[-k] * factors[-k]
        behind_slope[-k - 1] = behind_slope[-k] * factors[-k] + behind[-k]
    weight = before * behind / _SCALES
    slope = (before_slope * behind + before * behind_slope) / _SCALES
    return weight.T, slope.T


def _speed(pair: Pair, metric: Metric, place: Floats) -> Floats:
    """Distance the reference moves in two samples around each index; NaN where unknown."""
    out = np.full(len(place), np.nan)
    last = len(pair.reference) - 1
    finite = np.flatnonzero(np.isfinite(place))
    if last < 1 or not len(finite):
        return out
    index = np.clip(np.rint(place[finite]).astype(np.int64), 0, last)
    one = np.zeros(1, dtype=np.int64)
    tall = max(1, BLOCK_BYTES // (16 * max(pair.reference.shape[1], 1)))
    for first in range(0, len(index), tall):
        part = index[first : first + tall]
        before = pair.reference.take(np.maximum(part - 1, 0))
        after = pair.reference.take(np.minimum(part + 1, last))
        out[finite[first : first + tall]] = pairs(metric, before[:, None], after[:, None], one, one)[:, 0]
    return out


def _time_at(pair: Pair, place: Floats) -> Floats:
    """Step of the reference at a fractional index, extrapolated linearly beyond the ends."""
    step = pair.reference_step.astype(np.float64)
    if len(step) < 2:
        return np.where(np.isfinite(place), step[0], np.nan)
    low = np.clip(np.nan_to_num(np.floor(place)), 0, len(step) - 2).astype(np.int64)
    return step[low] + (place - low) * (step[low + 1] - step[low])


def _extent(pair: Pair, metric: Metric, rows: Ints, start: int) -> float:
    """Largest distance of a state of the reference to the one at the perturbation."""
    centre, one = pair.reference.take(np.array([start])), np.zeros(1, dtype=np.int64)
    tall = max(1, BLOCK_BYTES // (16 * max(pair.reference.shape[1], 1)))
    largest = 0.0
    for first in range(0, len(rows), tall):
        states = pair.reference.take(rows[first : first + tall])
        distances = pairs(metric, states[:, None], np.broadcast_to(centre, states.shape)[:, None], one, one)
        largest = float(np.fmax(largest, np.nanmax(distances, initial=0.0)))
    return largest


def gather(reference: Any, perturbed: Any, *, start: int | Sequence[int] | None, dt: float | None) -> list[Pair]:
    """Convert the input to pairs."""
    if perturbed is None:
        families = _families(reference)
    elif _is_run(perturbed):
        families = _restarted(reference, perturbed)
    else:
        families = [(_single(reference), _as_list(perturbed), None)]
    count = sum(len(copies) for _, copies, _ in families)
    offsets = _offsets(start, count)
    pairs: list[Pair] = []
    groups: dict[int, int] = {}
    for original, copies, dtype in families:
        group = groups.setdefault(id(original), len(groups))
        first = _Source(original, "the reference", None, dtype)
        for copy in copies:
            second = _Source(copy, "a perturbed trajectory", offsets[len(pairs)], dtype)
            pairs.append(_pair(first, second, group, dt))
    return pairs


def _offsets(start: int | Sequence[int] | None, count: int) -> list[int | None]:
    if start is None:
        return [None] * count
    starts = np.asarray(start)
    if starts.dtype.kind not in "iu" or starts.shape not in ((), (count,)):
        raise DataError(f"start must be one step or {count} of them (one per perturbed trajectory), got {start!r}")
    return [int(s) for s in np.broadcast_to(starts, (count,))]


def _families(x: Any) -> list[Family]:
    """Return references with their copies from a Run, a pair or a list of pairs."""
    if _is_run(x):
        _require_weights(x)
        owners = [member.reference for member in x.members]
        roots = sorted({owner for owner in owners if owner >= 0})
        if not roots:
            raise DataError(
                f"run {x.name!r} has {counted(len(owners), 'member')} and none is a perturbed copy of another; record "
                "twins (`perturb`), or pass the perturbed trajectories as the second argument"
            )
        return [
            (x.trajectory(r), [_longest(x, m) for m, owner in enumerate(owners) if owner == r], str(x.logical_dtype))
            for r in roots
        ]
    if isinstance(x, tuple) and len(x) == 2 and isinstance(x[1], (list, tuple)):
        return [(_single(x[0]), _as_list(x[1]), None)]
    if isinstance(x, list) and x and all(isinstance(item, tuple) and len(item) == 2 for item in x):
        return [(_single(a), _as_list(b), None) for a, b in x]
    raise DataError(
        "there is no perturbed trajectory: pass the perturbed trajectories as the second argument, a Run with "
        "perturbed "
        "copies, or a list of pairs (reference, [perturbed, ...])"
    )


def _longest(run: Any, member: int) -> Any:
    """Return a copy from one planting to the next: the longest of these stretches, the first of equal ones."""
    rows = max(run.stretches(member), key=lambda part: part.stop - part.start, default=slice(0, 0))
    return run.trajectory(member)[rows]


def _is_run(x: Any) -> bool:
    return hasattr(x, "members") and hasattr(x, "trajectory")


def _require_weights(run: Any) -> None:
    if getattr(run, "stored", "weights") != "weights":
        raise DataError(
            f"run {run.name!r} stores {run.stored} but no weights: the distance to an orbit needs the states. "
            "`trajtools.twins` uses stored distances at equal times"
        )


def _single(x: Any) -> Any:
    if not _is_run(x):
        return x
    _require_weights(x)
    free = [m for m, member in enumerate(x.members) if member.reference < 0]
    if len(free) != 1:
        raise DataError(
            f"run {x.name!r} has {len(free)} members that are not copies, but one reference is needed; pass "
            "run.trajectory(member)"
        )
    return x.trajectory(free[0])


def _as_list(x: Any) -> list[Any]:
    if isinstance(x, (list, tuple)) and x and not np.isscalar(x[0]):
        return [_single(item) for item in x]
    if isinstance(x, np.ndarray) and x.ndim == 3:
        return list(x)
    if isinstance(x, (list, tuple)) and not x:
        raise DataError("the list of perturbed trajectories is empty: at least one is needed")
    return [_single(x)]


class _Source:
    """States of one trajectory with their steps."""

    def __init__(self, x: Any, name: str, start: int | None, dtype: str | None) -> None:
        states = as_states(x, name)
        self.rows = Rows(states)
        self.step = np.asarray(getattr(states, "step", np.arange(len(states))), dtype=np.int64)
        if start is not None and len(self.step):
            self.step = self.step - self.step[0] + start
        self.dt = float(getattr(states, "dt", 1.0))
        self.time_unit = str(getattr(states, "time_unit", "step"))
        stored = stored_format(states) if isinstance(states, Trajectory) else str(states.dtype)
        self.dtype = stored if dtype is None else dtype


def _restarted(reference: Any, run: Any) -> list[Family]:
    """Match copies in one run with references in another, by the names of members."""
    _require_weights(run)
    if not _is_run(reference):
        return [(_single(reference), [run.trajectory(m) for m in range(run.n_members)], str(run.logical_dtype))]
    _require_weights(reference)
    names = {member.name: m for m, member in enumerate(reference.members) if member.reference < 0}
    families: dict[int, list[Any]] = {}
    for m, member in enumerate(run.members):
        if member.reference < 0 and any(other.reference >= 0 for other in run.members):
            continue  # the unperturbed continuation
        name = run.members[member.reference].name if member.reference >= 0 else member.name
        if name not in names and len(names) > 1:
            raise DataError(
                f"member {member.name!r} of run {run.name!r} is a copy of {name!r}, and run {reference.name!r} has no "
                f"member of that name; it has {', '.join(map(repr, names))}"
            )
        owner = names[name] if name in names else next(iter(names.values()))
        families.setdefault(owner, []).append(_longest(run, m))
    dtypes = (str(reference.logical_dtype), str(run.logical_dtype))
    dtype = next((narrow for narrow in NARROW if narrow in dtypes), dtypes[0])
    return [(reference.trajectory(owner), copies, dtype) for owner, copies in sorted(families.items())]


def _pair(first: _Source, second: _Source, group: int, dt: float | None) -> Pair:
    if dt is None and (first.dt, first.time_unit) != (second.dt, second.time_unit):
        raise DataError(
            f"a step of the reference is {first.dt:g} {first.time_unit}, one of the perturbed trajectory "
            f"{second.dt:g} {second.time_unit}; pass dt to bring them to one unit"
        )
    dtypes = (first.dtype, second.dtype)
    return Pair(
        reference=first.rows,
        perturbed=second.rows,
        reference_step=first.step,
        perturbed_step=second.step,
        group=group,
        dt=first.dt if dt is None else float(dt),
        time_unit=first.time_unit if dt is None else getattr(dt, "unit", "time"),
        dtype=next((narrow for narrow in NARROW if narrow in dtypes), first.dtype),
    )


Some = tuple[Rows, Ints]
