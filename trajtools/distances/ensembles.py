"""Distances of the members of an ensemble to their references, with the rounding floor, in blocks of bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trajtools.distances.metric import Metric, block_floor, in_time, kernel_ready
from trajtools.distances.paths import BLOCK_BYTES
from trajtools.errors import TooLargeError
from trajtools.types import Floats, Ints

ROWS = 64  # The chunks of a file are 64 states of one member: reading fewer rows reads the same chunk twice.


class Ensemble(Protocol):
    """Members that advance together: a `Run`, or a reference with its perturbed copies."""

    @property
    def step(self) -> Any:
        """Steps that were recorded, (T,)."""

    def states(self, rows: Any, members: Any = None, columns: Any = None) -> Any:
        """Return the states of some members, (t, m, p)."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What `to_references` finds.

    Attributes
    ----------
    distance : ndarray of float64, shape (T, U)
        Distance of each twin to its reference.
    floor : ndarray of float64, shape (T, R)
        Distance that rounding alone produces at the state of each reference; NaN where unknown.
    scale : ndarray of float64, shape (R,)
        Largest distance of each reference to the zero state; NaN where it is never finite.
    references : ndarray of int64, shape (R,)
        The members that are references, ascending.
    """

    distance: Floats
    floor: Floats
    scale: Floats
    references: Ints


def to_references(
    ensemble: Ensemble, twins: Ints, reference: Ints, metric: Metric, *, rows: slice, dtype: str, size: int
) -> Measured:
    """Measure every twin against its reference, reading each state once."""
    count = rows.stop - rows.start
    references = np.unique(reference)
    out = Measured(
        np.empty((count, len(twins))),
        np.empty((count, len(references))),
        np.full(len(references), np.nan),
        references,
    )
    tall = min(ROWS, max(count, 1))
    for units in _batches(twins, reference, tall * size * 8):
        members = np.unique(np.concatenate([twins[units], reference[units]]))
        where = np.searchsorted(references, np.unique(reference[units]))
        height, columns = _shape(metric, tall, len(members), size)
        left, right = np.searchsorted(members, twins[units]), np.searchsorted(members, reference[units])
        centre = np.searchsorted(members, references[where])
        followed = in_time(metric)
        for start in range(rows.start, rows.stop, height):
            stop = min(start + height, rows.stop)
            here = slice(start - rows.start, stop - rows.start)
            distance, floor, norm = _block(
                ensemble,
                slice(start, stop),
                members,
                columns=columns,
                size=size,
                units=(left, right, centre),
                metric=followed,
                dtype=dtype,
            )
            out.distance[here, units] = distance
            out.floor[here, where] = floor
            out.scale[where] = np.fmax(
                out.scale[where], np.fmax.reduce(np.where(np.isfinite(norm), norm, np.nan), axis=0)
            )
    return out


def _batches(twins: Ints, reference: Ints, bytes_per_member: int) -> list[Ints]:
    """Group the units by reference, as many references together as fit into a block."""
    order = np.argsort(reference, kind="stable")
    ends = np.flatnonzero(np.diff(reference[order])) + 1
    batches: list[list[Any]] = []
    room = 0
    for family in np.split(order, ends):
        needed = (len(family) + 1) * bytes_per_member
        if not batches or needed > room:
            batches.append([])
            room = BLOCK_BYTES
        batches[-1].append(family)
        room -= needed
    return [np.concatenate(batch) for batch in batches]


def _shape(metric: Metric, rows: int, members: int, size: int) -> tuple[int, int]:
    """Choose rows and columns of a block: columns are cut first, rows only where the metric needs whole states."""
    columns = max(1, BLOCK_BYTES // (8 * rows * members))
    if columns >= size:
        return rows, size
    if metric.merge is not None:
        return rows, columns
    height = BLOCK_BYTES // (8 * members * size)
    if height < 1:
        raise TooLargeError(
            f"metric {metric.name!r} needs whole states, and one state of {members} members is {8 * members * size:,} "
            "bytes; "
            "use l1, l2, linf or rms, select fewer parameters, or analyse fewer members at a time"
        )
    return height, size


def _block(
    ensemble: Ensemble,
    rows: slice,
    members: Ints,
    *,
    columns: int,
    size: int,
    units: tuple[Ints, Ints, Ints],
    metric: Metric,
    dtype: str,
) -> tuple[Floats, Floats, Floats]:
    """Return distance (t, u), floor (t, r) and distance to zero (t, r) of one block of rows, adding over columns."""
    left, right, centre = units
    origin = np.zeros(len(centre), dtype=np.int64)
    found: list[Any] = []
    for start in range(0, size, columns):
        block = kernel_ready(ensemble.states(rows, members.tolist(), slice(start, min(start + columns, size))))
        zero = np.zeros((block.shape[0], 1, block.shape[2]), dtype=block.dtype)
        shown = metric.described(block)
        parts = [
            metric.pairs(shown, shown, left, right),
            block_floor(block[:, centre], metric, dtype, size),
            metric.pairs(shown, metric.described(zero), centre, origin),
        ]
        if found and metric.merge is not None:
            parts = [metric.merge(old, new) for old, new in zip(found, parts, strict=True)]
        found = parts
    if metric.finish is not None:
        found = [metric.finish(found[0], size), found[1], metric.finish(found[2], size)]
    return found[0], found[1], found[2]
