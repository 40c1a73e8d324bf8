"""All distances between the states of a trajectory, tile by tile, out of core, on any number of workers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from trajtools.distances import schedule
from trajtools.distances.comparison import Comparison, compare
from trajtools.distances.metrics import MetricLike
from trajtools.distances.tiles import Tile, compute
from trajtools.errors import DataError, TooLargeError
from trajtools.results import Distances

MAX_MATRIX_BYTES = 4 * 2**30
"""A matrix larger than this is not kept in memory."""

Progress = Callable[[int, int], None]


def pairwise(
    x: Any,
    *,
    y: Any = None,
    metric: MetricLike = "l2",
    out: str | Path | None = None,
    block: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Distances:
    """Distances of all states to each other.

    Parameters
    ----------
    x : Trajectory or array_like, shape (T, P) or (T,)
        The states. Those of a file are read as they are needed and never held all at once.
    y : Trajectory, array_like or None, shape (S, P) or (S,)
        States of another trajectory; None: those of `x`.
    metric : str, callable or Metric
        Distance between states, see `METRICS`.
    out : str, Path or None
        Write the distances to this file while they are computed, and continue there if it was begun before; None: keep
        them in memory.
    block : int or None, in states
        Side of the tiles that the matrix is cut into; None: chosen. It changes no number.
    executor : concurrent.futures.Executor or None
        Where the tiles are computed: a process pool, ``dask.distributed.Client.get_executor()``, ...; None: on as many
        threads of this process as numba is allowed (``NUMBA_NUM_THREADS``, `numba.set_num_threads`).
    progress : callable or None
        ``progress(done, total)`` is called, in this thread, whenever a tile is done.

    Returns
    -------
    Distances
        float64, shape (T, T), or (T, S) with `y`. States that hold NaN or inf are excluded, counted, and NaN here.

    Raises
    ------
    DataError
        If the states cannot be compared, or `out` holds the distances of something else.
    TooLargeError
        If the matrix does not fit: into memory (give `out`), or onto the disk.
    UnknownNameError
        If there is no such metric.

    Notes
    -----
    Sums go over direct differences of the weights, never over the Gram matrix, so that neighbouring states are as
    exact as distant ones. Differences of float32 weights are taken and summed a few at a time in float32, everything
    else is float64 (`settings` says which): the relative error is about 1e-8, and at most 1e-14 for states that are
    stored as float64. The numbers depend neither on tiles nor on threads nor on the executor.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> tt.pairwise(np.array([[0.0, 0.0], [3.0, 4.0]]))[:].tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    """
    if block is not None and (isinstance(block, bool) or not isinstance(block, int | np.integer) or block < 1):
        raise DataError(f"block={block!r}: it counts states, a whole number from 1 on")
    what = compare(x, y, metric, digest=out is not None, executor=executor)
    workers = schedule.threads()
    side = min(int(block), what.side(1)) if block is not None else what.side(workers)
    matrix = _in_memory(what)
    tasks = _tasks(what, side)

    def keep(task: tuple[slice, slice], found: Any) -> None:
        rows, columns = task
        matrix[rows, columns] = what.blank(rows, columns, found)
        if what.symmetric and rows != columns:
            matrix[columns, rows] = matrix[rows, columns].T

    def send(task: tuple[slice, slice]) -> Tile:
        return what.tile(*task, travels=executor is not None)

    schedule.run(tasks, compute, keep, executor=executor, workers=workers, send=send)
    return _result(what, matrix)


def _tasks(what: Comparison, side: int) -> list[tuple[slice, slice]]:
    rows, columns = (
        [slice(start, min(start + side, len(states))) for start in range(0, len(states), side)]
        for states in (what.x, what.y)
    )
    return [(r, c) for r in rows for c in columns if not what.symmetric or c.start <= r.start]


def _in_memory(what: Comparison) -> Any:
    size = 8 * len(what.x) * len(what.y)
    if size > MAX_MATRIX_BYTES:
        raise TooLargeError(
            f"the distances of {len(what.x)} x {len(what.y)} states are {size / 2**30:.1f} GiB, more than "
            f"{MAX_MATRIX_BYTES / 2**30:.0f} GiB; give out=path to keep them on disk, or thin the states out "
            "(x.window(every=k))"
        )
    return np.empty((len(what.x), len(what.y)))


def _result(what: Comparison, matrix: Any) -> Distances:
    matrix.flags.writeable = False
    return Distances(
        values=matrix,
        metric=what.metric.name,
        step=what.x.step,
        column_step=what.y.step,
        dt=what.x.dt,
        time_unit=what.x.time_unit,
        excluded=~what.rows.finite,
        column_excluded=~what.columns.finite,
        floor=what.rows.floor,
        square=what.square,
        symmetric=what.symmetric,
        settings={"metric": what.metric.name, "single_precision": what.single},
    )
