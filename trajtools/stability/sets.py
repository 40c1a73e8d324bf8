"""Distances between two paths as sets of states and as curves, in one pass over their distances.

The distances of a block of states of one path to all of the other exist at a time, never the whole table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from trajtools.distances import tiles
from trajtools.distances.metric import Metric
from trajtools.distances.tiles import compute
from trajtools.stability.rows import Rows
from trajtools.types import Floats, Ints

TABLE_BYTES = 16 * 2**20
Some = tuple[Rows, Ints]


@dataclass(frozen=True, eq=False)
class Sets:
    """What `compare` finds.

    Attributes
    ----------
    nearest : ndarray of float64, shape (K,)
        Distance of each state of the path to the set of all states of the orbit.
    argmin : ndarray of int64, shape (K,)
        The state of the orbit that is nearest.
    back : float
        Largest distance of a state of the orbit's part to the path: the other half of the Hausdorff distance.
    frechet : float
        Discrete Frechet distance of the path and the orbit's part; NaN where either is empty.
    """

    nearest: Floats
    argmin: Ints
    back: float
    frechet: float

    @property
    def tube(self) -> float:
        """Radius of the tube around the orbit that holds the path."""
        return float(self.nearest.max()) if len(self.nearest) else float("nan")

    @property
    def hausdorff(self) -> float:
        """Hausdorff distance: the larger of the two one-sided ones."""
        return float(max(self.tube, self.back)) if len(self.nearest) else float("nan")


def compare(metric: Metric, path: Some, orbit: Some, part: slice) -> Sets:
    """Compare a path with an orbit."""
    from trajtools._kernels.distances import coupled_rows

    count, length = len(path[1]), len(orbit[1])
    nearest, argmin = np.full(count, np.nan), np.zeros(count, dtype=np.int64)
    beside = len(range(*part.indices(length)))
    covered = np.full(beside, np.inf)
    coupling = np.full(beside, np.inf)
    if not count or not length:
        return Sets(nearest, argmin, float("nan"), float("nan"))
    for first, table in tables(metric, path, orbit):
        here = slice(first, first + len(table))
        argmin[here] = table.argmin(axis=1)
        nearest[here] = table[np.arange(len(table)), argmin[here]]
        beside_table = np.ascontiguousarray(table[:, part])
        if beside:
            covered = np.minimum(covered, beside_table.min(axis=0))
            coupling = coupled_rows(beside_table, coupling, first > 0)
    back = float(covered.max()) if beside else float("nan")
    frechet = float(coupling[-1]) if beside else float("nan")
    return Sets(nearest, orbit[1][argmin], back, frechet)


def tables(metric: Metric, path: Some, orbit: Some) -> Iterator[tuple[int, Floats]]:
    """Yield (first, distances (k, S)) of blocks of states of the path to all states of the orbit."""
    (mine, mine_rows), (theirs, their_rows) = path, orbit
    low, high = int(mine_rows[0]), int(mine_rows[-1]) + 1
    # Without the rounding of every state, which is known already and takes as long as the distances of small networks.
    known = replace(metric, rounding=None)
    what = tiles.compare(mine.states[low:high], theirs.states, known, digest=False, executor=None)
    workers = tiles.threads()
    side = what.side(workers)
    tall = max(1, min(side, TABLE_BYTES // (8 * len(theirs))))
    columns = [slice(start, min(start + side, len(theirs))) for start in range(0, len(theirs), side)]
    for start in range(low, high, tall):
        first, last = np.searchsorted(mine_rows, [start, start + tall]).tolist()
        if first == last:
            continue
        rows = slice(start - low, min(start + tall, high) - low)
        table = np.empty((rows.stop - rows.start, len(theirs)))
        _fill(table, what, rows, columns, workers)
        if last - first < len(table):
            table = table[mine_rows[first:last] - start]
        yield first, table if len(their_rows) == len(theirs) else np.ascontiguousarray(table[:, their_rows])


def _fill(table: Floats, what: tiles.Comparison, rows: slice, columns: list[slice], workers: int) -> None:
    def keep(task: slice, block: Floats) -> None:
        table[:, task] = block

    tiles.run(columns, compute, keep, executor=None, workers=workers, send=lambda task: what.tile(rows, task))
