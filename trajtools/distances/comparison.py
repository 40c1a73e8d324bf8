"""Two sets of states and a metric, checked and looked at once, cut into tiles."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.distances import schedule
from trajtools.distances.equal_times import as_states
from trajtools.distances.metric import Metric, MetricLike, bind_metric, find_metric, kernel_ready
from trajtools.distances.scan import Scan, scan
from trajtools.distances.tiles import LARGEST_SINGLE, Tile, Which
from trajtools.errors import DataError, TooLargeError
from trajtools.trajectory import ArrayStates, Trajectory
from trajtools.types import Bools

BUDGET = 256 * 2**20
"""Bytes of states that all threads together hold in memory."""

_LARGEST_TILE = 512
_LARGEST_READ = 2048
_TILES_PER_WORKER = 4
_GROUPS = 16  # a side is a multiple of this, so that register tiles are full


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is compared with what.

    Attributes
    ----------
    x, y : Trajectory
        The states of the rows and of the columns; the same object where a trajectory is compared with itself.
    metric : Metric
        Ready to be asked.
    which : Which
        The metric as it travels.
    rows, columns : Scan
        What is known of the states.
    size : int
        Number P of weights of a state.
    dtype : str
        Of the states of the rows.
    described : bool
        Whether x and y hold the features of the states, which were computed once for all tiles.
    single : bool
        Whether differences are taken in float32.
    budget : int, in bytes
        Of one tile.
    """

    x: Trajectory
    y: Trajectory
    metric: Metric
    which: Which
    rows: Scan
    columns: Scan
    size: int
    dtype: str
    described: bool
    single: bool
    budget: int

    @property
    def square(self) -> bool:
        """Whether a trajectory is compared with itself."""
        return self.x is self.y

    @property
    def symmetric(self) -> bool:
        """Whether the matrix is symmetric, so that half of it is enough."""
        return self.square and self.metric.symmetric is True

    def side(self, workers: int) -> int:
        """Choose the side of a tile: what memory allows, and small enough that every worker (if any) gets several."""
        most = _LARGEST_TILE
        if not all(isinstance(states.source, ArrayStates) for states in (self.x, self.y)):
            # Every tile reads its states again: larger ones read a file less often. Four such squares are in use.
            most = max(most, min(_LARGEST_READ, int(np.sqrt(self.budget / 32)) // _GROUPS * _GROUPS))
        if self.metric.sums is None:
            most = min(_LARGEST_TILE, self.budget // (2 * 8 * max(self.x.shape[1], 1)))
            if most < 1:
                raise TooLargeError(
                    f"metric {self.metric.name!r} needs whole states, and two of them are "
                    f"{2 * 8 * self.x.shape[1]:,} bytes, more than the {self.budget:,} that a thread may take; select "
                    "fewer parameters, or use a metric that adds up over the weights (l1, l2, linf, rms)"
                )
        if not workers:
            return most
        pairs = len(self.x) * len(self.y) / (2 if self.symmetric else 1)
        fair = int(np.sqrt(pairs / (_TILES_PER_WORKER * workers)))
        side = min(most, max(fair, 4 * _GROUPS))
        # As many tiles as that takes, all of one size.
        longest = max(len(self.x), len(self.y), 1)
        even = -(-longest // -(-longest // side))
        return min(most, -(-even // _GROUPS) * _GROUPS)

    def tile(self, rows: slice, columns: slice, *, travels: bool = False) -> Tile:
        """Cut out a rectangle; what travels to another process takes along only the states that it needs."""
        same = self.square and rows == columns
        left = _part(self.x, rows, travels)
        right = left if same else _part(self.y, columns, travels)
        norms = self.metric.sums is not None and self.metric.sums.norms
        return Tile(
            left,
            right,
            self.which,
            lower=same and self.symmetric,
            single=self.single,
            left_finite=self.rows.finite[rows],
            right_finite=self.columns.finite[columns],
            left_norm=self.rows.norm[rows] if norms else np.empty(0),
            right_norm=self.columns.norm[columns] if norms else np.empty(0),
            budget=self.budget,
            size=self.size,
            described=self.described,
        )

    def pick_columns(self, picked: NDArray[np.int64]) -> Comparison:
        """Return the comparison with a few states of the columns only, which are held in memory."""
        states = np.concatenate([self.y.read(k, k + 1) for k in picked.tolist()])
        known = self.columns
        norm = known.norm[picked] if len(known.norm) else known.norm
        few = replace(known, finite=known.finite[picked], floor=known.floor[picked], norm=norm)
        return replace(self, y=Trajectory.from_array(states, dt=self.y.dt, time_unit=self.y.time_unit), columns=few)

    def blank(self, rows: slice, columns: slice, block: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put NaN where a state has no distances."""
        block[~self.rows.finite[rows]] = np.nan
        block[:, ~self.columns.finite[columns]] = np.nan
        return block


def compare(x: Any, y: Any, metric: MetricLike, *, digest: bool, executor: Executor | None) -> Comparison:
    """Check two sets of states and look at them once."""
    left = _as_trajectory(x, "x")
    right = left if y is None or y is x else _as_trajectory(y, "y")
    if left.shape[1] != right.shape[1]:
        raise DataError(
            f"the states have {left.shape[1]} and {right.shape[1]} weights; only states of one architecture have a "
            "distance"
        )
    found = find_metric(metric)
    bound = bind_metric(found, left, right)
    which = Which.of(found, left if left.parameters else right)
    workers = schedule.threads()
    norms = bound.sums is not None and bound.sums.norms
    rows = scan(left, bound, norms=norms, digest=digest, threads=workers)
    columns = rows if right is left else scan(right, bound, norms=norms, digest=digest, threads=workers)
    budget = BUDGET // (workers if executor is None else 1)
    sources = [(left, rows.finite)] if right is left else [(left, rows.finite), (right, columns.finite)]
    shown = _described(sources, bound, budget)
    return Comparison(
        shown[0] if shown else left,
        shown[-1] if shown else right,
        bound,
        which,
        rows,
        columns,
        size=left.shape[1],
        dtype=str(left.dtype),
        described=bool(shown),
        single=_is_single(bound, left, right, max(rows.largest, columns.largest)),
        budget=budget,
    )


def _is_single(metric: Metric, left: Trajectory, right: Trajectory, largest: float) -> bool:
    narrow = all(x.dtype.itemsize < 8 for x in (left, right)) and largest <= LARGEST_SINGLE
    # A unit vector in float32 would be rounded by as much as neighbouring states differ.
    return metric.sums is not None and not metric.sums.unit and narrow and left.shape[1] >= SHORT


def _described(sources: list[tuple[Trajectory, Bools]], metric: Metric, budget: int) -> list[Trajectory]:
    """Compute the features of all finite states once for all tiles; nothing where there are none, or too many."""
    if metric.features is None or metric.sums is not None or not all(finite.any() for _, finite in sources):
        return []
    found = []
    count = sum(len(x) for x, _ in sources)
    for x, finite in sources:
        first = int(np.flatnonzero(finite)[0])
        width = metric.described(kernel_ready(x.read(first, first + 1))[None]).shape[2]
        if 8 * width * count > FEATURE_BYTES:
            return []
        table = np.full((len(x), width), np.nan)
        states = max(1, budget // (2 * 8 * max(x.shape[1], 1)))

        def describe(
            start: int, x: Trajectory = x, finite: Bools = finite, table: Any = table, n: int = states
        ) -> None:
            rows = start + np.flatnonzero(finite[start : start + n])
            if len(rows):
                block = kernel_ready(x.read(start, min(start + n, len(x))))[rows - start]
                table[rows] = metric.described(block[None])[0]

        with ThreadPoolExecutor(schedule.threads()) as pool:
            list(pool.map(describe, range(0, len(x), states)))
        found.append(Trajectory(ArrayStates(table), step=x.step, dt=x.dt, time_unit=x.time_unit))
    return found


FEATURE_BYTES = 2**30
"""Features that take more than this are computed for every tile anew."""

SHORT = 1024
"""States of fewer weights are compared in float64: the roundings of a few differences do not average out."""


def _as_trajectory(x: Any, name: str) -> Trajectory:
    states = as_states(x, name)
    return states if isinstance(states, Trajectory) else Trajectory.from_array(states)


def _part(x: Trajectory, rows: slice, travels: bool) -> Trajectory:
    part = x[rows]
    if travels and isinstance(x.source, ArrayStates):
        return Trajectory.from_array(np.array(part.read()), parameters=x.parameters, nodes=x.nodes)
    return part
