"""Two sets of states and a metric, checked and looked at once, cut into tiles."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.distances import schedule
from trajtools.distances.metrics import Metric, MetricLike, bind_metric, find_metric
from trajtools.distances.paths import as_states
from trajtools.distances.scan import Scan, scan
from trajtools.distances.tiles import LARGEST_SINGLE, Tile, Which
from trajtools.errors import DataError, TooLargeError
from trajtools.trajectory import ArrayStates, Trajectory

BUDGET = 256 * 2**20
"""Bytes of states that all threads together hold in memory."""

_LARGEST_TILE = 512
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
        if self.metric.sums is None:
            most = self.budget // (2 * 8 * max(self.x.shape[1], 1))
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
        side = min(most, max(fair, 4 * _GROUPS), _LARGEST_TILE)
        return max(1, side // _GROUPS * _GROUPS or side)

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
            left_norm=self.rows.norm[rows] if norms else np.empty(0),
            right_norm=self.columns.norm[columns] if norms else np.empty(0),
            budget=self.budget,
        )

    def blank(self, rows: slice, columns: slice, block: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put NaN where a state has no distances."""
        block[~self.rows.finite[rows]] = np.nan
        block[:, ~self.columns.finite[columns]] = np.nan
        return block


def compare(x: Any, y: Any, metric: MetricLike, *, digest: bool, executor: Executor | None) -> Comparison:
    """Check two sets of states and look at them once.

    Parameters
    ----------
    x : Trajectory or array_like, shape (T, P) or (T,)
        The states of the rows.
    y : Trajectory, array_like or None, shape (S, P) or (S,)
        The states of the columns; None: those of the rows.
    metric : str, callable or Metric
        Distance between states.
    digest : bool
        Whether a hash of the states is needed.
    executor : Executor or None
        Where the tiles will be computed.

    Returns
    -------
    Comparison
        Ready to be cut into tiles.

    Raises
    ------
    DataError
        If the states cannot be compared.
    """
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
    narrow = all(side.dtype.itemsize < 8 for side in (left, right))
    small = max(rows.largest, columns.largest) <= LARGEST_SINGLE
    # A unit vector in float32 would be rounded by as much as neighbouring states differ.
    single = narrow and small and left.shape[1] >= SHORT and not (bound.sums is not None and bound.sums.unit)
    budget = BUDGET // (workers if executor is None else 1)
    return Comparison(left, right, bound, which, rows, columns, single, budget)


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
