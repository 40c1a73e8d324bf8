"""The nearest state of an orbit without looking at all: what the triangle inequality rules out is not computed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from trajtools.distances import schedule
from trajtools.distances.comparison import Comparison
from trajtools.distances.tiles import compute
from trajtools.types import Floats, Ints

LANDMARKS = 8
SIDE = 64  # of a chunk in most files
WORTH = 2**31
"""Fewer terms (states x states x weights) are faster summed than avoided."""
PAYS = 0.25
"""If more than this part of the distances has to be computed, large tiles of all of them are faster."""
_PROBES = 4
# The bound is a difference of distances that were rounded: it is lowered by more than that.
_SLACK = {True: 1e-6, False: 1e-12}


@dataclass(frozen=True, eq=False)
class Found:
    """The nearest states of some rows.

    Attributes
    ----------
    distance : ndarray of float64, shape (n,)
        Distance to the nearest state; inf where there is none.
    argmin : ndarray of int64, shape (n,)
        The first state at that distance; -1 where there is none.
    computed : int
        How many distances were computed for it.
    """

    distance: Floats
    argmin: Ints
    computed: int

    def nearer(self, block: Floats, start: int) -> Found:
        """Return the nearest of these and of a block (n, m) of distances to the states from `start` on."""
        block = np.where(np.isnan(block), np.inf, block)
        place = block.argmin(axis=1)
        distance = block[np.arange(len(block)), place]
        place += start
        # Of equal ones the first, whatever the order in which the blocks come.
        better = (distance < self.distance) | ((distance == self.distance) & (place < self.argmin))
        better &= np.isfinite(distance)
        return Found(
            np.where(better, distance, self.distance),
            np.where(better, place, self.argmin),
            self.computed + block.size,
        )


def nothing(count: int) -> Found:
    """Return what is known before anything is computed."""
    return Found(np.full(count, np.inf), np.full(count, -1, dtype=np.int64), 0)


class Search:
    """Looks for the nearest states, by landmarks on the orbit."""

    def __init__(self, what: Comparison) -> None:
        self._what = what
        finite = np.flatnonzero(what.columns.finite)
        picked = finite[np.linspace(0, len(finite) - 1, LANDMARKS).round().astype(int)]
        marks = what.pick_columns(np.unique(picked))
        self._of_rows = _all_of(replace(marks, x=what.x, rows=what.rows))
        self._of_columns = _all_of(replace(marks, x=what.y, rows=what.columns))
        self.computed = self._of_rows.size + self._of_columns.size

    def rows(self) -> list[slice]:
        """Return the blocks of states that are searched for together."""
        return _stretches(len(self._what.x), SIDE)

    def probes(self) -> list[slice]:
        """Return some of these blocks, to see whether it pays."""
        rows = self.rows()
        return [rows[k] for k in np.unique(np.linspace(0, len(rows) - 1, _PROBES).round().astype(int))]

    def __call__(self, rows: slice) -> Found:
        """Find the nearest states of a block of rows, in the order of the bounds of the columns."""
        what = self._what
        bound = self._bounds(rows)
        stretches = _stretches(len(what.y), SIDE)
        # Lowest bound of each row in each block of columns; infinite where nothing finite is.
        lowest = np.stack([bound[:, columns].min(axis=1) for columns in stretches], axis=1)
        found = nothing(rows.stop - rows.start)
        for k in np.argsort(lowest.min(axis=0), kind="stable"):
            if np.any(lowest[:, k] <= found.distance):
                block = compute(what.tile(rows, stretches[k]))
                found = found.nearer(what.blank(rows, stretches[k], block), stretches[k].start)
        return found

    def _bounds(self, rows: slice) -> Floats:
        """No distance (n, S) of a finite state of these rows is below its bound; inf where there is no distance."""
        what = self._what
        bound = np.zeros((rows.stop - rows.start, len(what.y)))
        with np.errstate(invalid="ignore"):
            for mine, theirs in zip(self._of_rows[rows].T, self._of_columns.T, strict=True):
                slack = _SLACK[what.single] * (mine[:, None] + theirs)
                np.fmax(bound, np.abs(mine[:, None] - theirs) - slack, out=bound)
        bound[~what.rows.finite[rows]] = np.inf
        bound[:, ~what.columns.finite] = np.inf
        return bound


def _all_of(what: Comparison) -> Floats:
    """All distances (n, L), of many states to few."""
    out = np.empty((len(what.x), len(what.y)))
    few = slice(0, len(what.y))

    def keep(rows: slice, block: Floats) -> None:
        out[rows] = what.blank(rows, few, block)

    rows = _stretches(len(what.x), SIDE)
    workers = schedule.threads()
    schedule.run(rows, compute, keep, executor=None, workers=workers, send=lambda side: what.tile(side, few))
    return out


def _stretches(length: int, side: int) -> list[slice]:
    return [slice(start, min(start + side, length)) for start in range(0, length, side)]
