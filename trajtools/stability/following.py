"""Everything that is measured between one perturbed trajectory and its reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trajtools.distances.equal_times import pairs
from trajtools.distances.metric import Metric, bind_metric, block_floor, in_time
from trajtools.errors import DataError, SelectionError
from trajtools.stability.phase import follow_phase
from trajtools.stability.rows import Rows
from trajtools.stability.sets import compare
from trajtools.types import Bools, Floats, Ints

BLOCK_BYTES = 32 * 2**20


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
        The initial condition.
    dt : float
        Time of a step.
    time_unit : str
        Its unit.
    dtype : str
        Narrowest format that either was stored in: its rounding is the floor of the distances.
    """

    reference: Rows
    perturbed: Rows
    reference_step: Ints
    perturbed_step: Ints
    group: int
    dt: float
    time_unit: str
    dtype: str


@dataclass(frozen=True, eq=False)
class Followed:
    """What `follow` measures, from the perturbation on.

    Attributes
    ----------
    step : ndarray of int64, shape (K,)
        Steps that both recorded, from the perturbation on.
    distance, orbit, transverse, lag, floor, resolution : ndarray of float64, shape (K,)
        As in `trajtools.results.OrbitalStability`.
    removed, censored : ndarray of bool, shape (K,)
        Where the neutral direction was removed, and where the place on the orbit lies beyond the record.
    frechet, hausdorff, tube, extent : float
        Frechet and Hausdorff distance, radius of the tube, and the size of the orbit: the largest distance of a
        state of the reference to the one at the perturbation.
    group : int
        The initial condition.
    unperturbed, diverged : bool
        Never different from the reference; not finite at its end.
    excluded, uncommon : int
        States that are not finite, of either; steps of the perturbed that the reference did not record.
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


def follow(pair: Pair, metric: Metric, window: tuple[int, int] | None) -> Followed:
    """Measure one perturbed trajectory against the orbit of its reference."""
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
    )


def _common(pair: Pair, window: tuple[int, int] | None) -> tuple[Ints, Ints, Ints]:
    """Steps that both recorded, within the window, and the rows that hold them."""
    if pair.reference.shape[1] != pair.perturbed.shape[1]:
        raise DataError(
            f"the states have {pair.reference.shape[1]} and {pair.perturbed.shape[1]} weights; only states of one "
            "architecture have a distance"
        )
    if not len(pair.reference) or not len(pair.perturbed):
        raise DataError(
            f"the reference holds {len(pair.reference)} states and the perturbed trajectory {len(pair.perturbed)}; "
            "both need at least one"
        )
    step, theirs, mine = np.intersect1d(pair.reference_step, pair.perturbed_step, return_indices=True)
    if not len(step):
        raise DataError(
            f"the reference was recorded at steps {pair.reference_step[0]} to {pair.reference_step[-1]}, the perturbed "
            f"trajectory at {pair.perturbed_step[0]} to {pair.perturbed_step[-1]}, and no step is common; record both "
            "at the same steps, or say with `start` at which step of the reference an array begins"
        )
    if window is not None:
        inside = (step >= window[0]) & (step < window[1])
        if not inside.any():
            raise SelectionError(f"no common state lies in the window {window}; they run from {step[0]} to {step[-1]}")
        step, theirs, mine = step[inside], theirs[inside], mine[inside]
    return step, mine.astype(np.int64), theirs.astype(np.int64)


def _same_time(pair: Pair, metric: Metric, mine: Ints, theirs: Ints) -> tuple[Floats, Floats, Bools, Bools]:
    """Distance at equal times, rounding floor, and which states of either are finite."""
    count, width = len(mine), pair.reference.shape[1]
    distance, floor = np.empty(count), np.empty(count)
    fine_mine, fine_theirs = np.empty(count, dtype=bool), np.empty(count, dtype=bool)
    tall = max(1, BLOCK_BYTES // (16 * max(width, 1)))
    one = np.zeros(1, dtype=np.int64)
    for first in range(0, count, tall):
        here = slice(first, min(first + tall, count))
        a, b = pair.perturbed.take(mine[here]), pair.reference.take(theirs[here])
        fine_mine[here], fine_theirs[here] = np.isfinite(a).all(axis=1), np.isfinite(b).all(axis=1)
        found = pairs(metric, a[:, None], b[:, None], one, one)[:, 0]
        distance[here] = np.where(fine_mine[here] & fine_theirs[here], found, np.nan)
        floor[here] = block_floor(b[:, None], metric, pair.dtype, width)[:, 0]
    return distance, floor, fine_mine, fine_theirs


def _finite(rows: Rows) -> Ints:
    fine = [np.isfinite(rows.read(a, min(a + 64, len(rows)))).all(axis=1) for a in range(0, len(rows), 64)]
    return np.flatnonzero(np.concatenate(fine)).astype(np.int64)


def _extent(pair: Pair, metric: Metric, rows: Ints, start: int) -> float:
    """Largest distance of a state of the reference to the one at the perturbation."""
    centre, one = pair.reference.take(np.array([start])), np.zeros(1, dtype=np.int64)
    tall = max(1, BLOCK_BYTES // (16 * max(pair.reference.shape[1], 1)))
    largest = 0.0
    for first in range(0, len(rows), tall):
        states = pair.reference.take(rows[first : first + tall])
        found = pairs(metric, states[:, None], np.broadcast_to(centre, states.shape)[:, None], one, one)
        largest = float(np.fmax(largest, np.nanmax(found, initial=0.0)))
    return largest


def _speed(pair: Pair, metric: Metric, place: Floats) -> Floats:
    """How far the reference moves in two samples around each place; NaN where the place is unknown."""
    out = np.full(len(place), np.nan)
    last = len(pair.reference) - 1
    known = np.flatnonzero(np.isfinite(place))
    if last < 1 or not len(known):
        return out
    index = np.clip(np.rint(place[known]).astype(np.int64), 0, last)
    one = np.zeros(1, dtype=np.int64)
    tall = max(1, BLOCK_BYTES // (16 * max(pair.reference.shape[1], 1)))
    for first in range(0, len(index), tall):
        part = index[first : first + tall]
        before = pair.reference.take(np.maximum(part - 1, 0))
        after = pair.reference.take(np.minimum(part + 1, last))
        out[known[first : first + tall]] = pairs(metric, before[:, None], after[:, None], one, one)[:, 0]
    return out


def _time_at(pair: Pair, place: Floats) -> Floats:
    """Step of the reference at a fractional index, continued in a straight line beyond the ends."""
    step = pair.reference_step.astype(np.float64)
    if len(step) < 2:
        return np.where(np.isfinite(place), step[0], np.nan)
    low = np.clip(np.nan_to_num(np.floor(place)), 0, len(step) - 2).astype(np.int64)
    return step[low] + (place - low) * (step[low + 1] - step[low])
