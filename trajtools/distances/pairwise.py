"""All distances between the states of a trajectory, tile by tile, out of core, on any number of workers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from trajtools.distances import schedule
from trajtools.distances.comparison import Comparison, compare
from trajtools.distances.keeping import Keeper
from trajtools.distances.metric import MetricLike
from trajtools.distances.tiles import Tile, compute
from trajtools.errors import DataError
from trajtools.results.distances import Distances

Progress = Callable[[int, int], None]

_ELSEWHERE = 16


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
        Write the distances to this file while they are computed, and continue there if it was begun before. A folder:
        to a file in it that is named after the content, so that the same distances are found again. The file can be
        deleted at any time; nothing else needs it. None: keep them in memory.
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
    FileBusyError
        If another process is writing to `out`.
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
    # How many workers an executor has it does not say.
    hands = workers if executor is None else max(workers, _ELSEWHERE)
    side = what.side(hands) if block is None else min(int(block), what.side(0))
    keeper = Keeper(what, side, None if out is None else Path(out))
    try:
        _compute(what, keeper, workers, executor, progress)
        return keeper.result()
    finally:
        keeper.close()


def _compute(
    what: Comparison, keeper: Keeper, workers: int, executor: Executor | None, progress: Progress | None
) -> None:
    tasks = keeper.missing()
    total = len(keeper.tiles())
    done = total - len(tasks)

    def tell() -> None:
        if progress is not None:
            progress(done, total)

    def keep(task: tuple[slice, slice], block: Any) -> None:
        nonlocal done
        keeper.keep(task, block)
        done += 1
        tell()

    def send(task: tuple[slice, slice]) -> Tile:
        return what.tile(*task, travels=executor is not None)

    tell()
    if executor is not None and tasks:
        # Many processes that compile at once have broken numba's cache.
        compute(what.tile(slice(0, 1), slice(0, 1)))
    schedule.run(tasks, compute, keep, executor=executor, workers=workers, send=send)
