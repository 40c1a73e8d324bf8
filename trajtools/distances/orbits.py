"""Distance of every state of one trajectory to the orbit of another: the nearest of all its states."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import numpy as np

from trajtools.distances import schedule
from trajtools.distances.comparison import Comparison, compare
from trajtools.distances.metrics import MetricLike
from trajtools.distances.tiles import Tile, compute
from trajtools.errors import DataError
from trajtools.results.to_orbit import ToOrbit


def to_orbit(a: Any, b: Any, *, metric: MetricLike = "l2", executor: Executor | None = None) -> ToOrbit:
    """Distance of each state of one trajectory to the nearest state of another, and which one that is.

    Parameters
    ----------
    a : Trajectory or array_like, shape (T, P) or (T,)
        The states that are measured.
    b : Trajectory or array_like, shape (S, P) or (S,)
        The orbit.
    metric : str, callable or Metric
        Distance between states, see `METRICS`.
    executor : concurrent.futures.Executor or None
        Where distances are computed; None: threads of this process.

    Returns
    -------
    ToOrbit
        ``distance[t]``, the minimum over s of d(a(t), b(s)), and ``argmin[t]``, the first s at which it is reached.

    Raises
    ------
    DataError
        If the states have different numbers of weights, or no state of `b` is finite.
    UnknownNameError
        If there is no such metric.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> found = tt.to_orbit(np.array([0.0, 2.2]), np.array([1.0, 2.0, 3.0]))
    >>> found.argmin.tolist(), [round(d, 1) for d in found.distance.tolist()]
    ([0, 1], [1.0, 0.2])
    """
    what = compare(a, b, metric, digest=False, executor=executor)
    if not what.columns.finite.any():
        raise DataError(f"none of the {len(what.y)} states of the orbit is finite; there is nothing to be near to")
    distance = np.full(len(what.x), np.inf)
    argmin = np.full(len(what.x), -1, dtype=np.int64)
    _search(what, distance, argmin, executor)
    distance[argmin < 0] = np.nan
    return ToOrbit(
        metric=what.metric.name,
        distance=distance,
        argmin=argmin,
        step=what.x.step,
        orbit_step=what.y.step,
        time_unit=what.x.time_unit,
        dt=what.x.dt,
        excluded=~what.rows.finite,
        orbit_excluded=~what.columns.finite,
        n_computed=len(what.x) * len(what.y),
        settings={"metric": what.metric.name, "differences": "float32" if what.single else "float64"},
    )


def _search(what: Comparison, distance: Any, argmin: Any, executor: Executor | None) -> None:
    workers = schedule.threads()
    side = what.side(workers)

    def keep(task: tuple[slice, slice], block: Any) -> None:
        rows, columns = task
        block = what.blank(rows, columns, block)
        block[np.isnan(block)] = np.inf
        nearest = block.argmin(axis=1)
        found = block[np.arange(len(block)), nearest]
        place = nearest + columns.start
        # Of equal ones the first, whatever the order in which the tiles come.
        better = (found < distance[rows]) | ((found == distance[rows]) & (place < argmin[rows]))
        better &= np.isfinite(found)
        distance[rows] = np.where(better, found, distance[rows])
        argmin[rows] = np.where(better, place, argmin[rows])

    def send(task: tuple[slice, slice]) -> Tile:
        return what.tile(*task, travels=executor is not None)

    tasks = [(r, c) for r in _stretches(len(what.x), side) for c in _stretches(len(what.y), side)]
    schedule.run(tasks, compute, keep, executor=executor, workers=workers, send=send)


def _stretches(length: int, side: int) -> list[slice]:
    return [slice(start, min(start + side, length)) for start in range(0, length, side)]
