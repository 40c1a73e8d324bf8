"""Distance of every state of one trajectory to the orbit of another: the nearest of all its states."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import numpy as np

from trajtools.distances import schedule
from trajtools.distances.comparison import Comparison, compare
from trajtools.distances.landmarks import LANDMARKS, PAYS, WORTH, Found, Search, nothing
from trajtools.distances.metric import MetricLike
from trajtools.distances.tiles import Tile, compute
from trajtools.errors import DataError
from trajtools.results.to_orbit import ToOrbit


def to_orbit(a: Any, b: Any, *, metric: MetricLike = "l2", executor: Executor | None = None) -> ToOrbit:
    r"""Distance of each state of one trajectory to the nearest state of another, and which one that is.

    Parameters
    ----------
    a : Trajectory or array_like, shape (T, P) or (T,)
        The states that are measured.
    b : Trajectory or array_like, shape (S, P) or (S,)
        The orbit.
    metric : str, callable or Metric
        Distance between states, see `METRICS`.
    executor : concurrent.futures.Executor or None
        Where distances are computed, all of them; None: threads of this process.

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

    Notes
    -----
    In a metric that obeys the triangle inequality, :math:`|d(a, c) - d(b, c)| \le d(a, b)`: with the exact distances of
    all states to 8 landmarks c on the orbit, most pairs are ruled out where trajectories are smooth, and never the
    nearest one. Where the first blocks show that too few are ruled out, all distances are computed. The answer is the
    same, bit by bit. Nothing but a few blocks of states is in memory at a time.

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
    found, landmarks = _search(what, executor)
    known = found.argmin >= 0
    return ToOrbit(
        metric=what.metric.name,
        distance=np.where(known, found.distance, np.nan),
        argmin=found.argmin,
        step=what.x.step,
        orbit_step=what.y.step,
        time_unit=what.x.time_unit,
        dt=what.x.dt,
        excluded=~known,
        orbit_excluded=~what.columns.finite,
        n_computed=found.computed,
        settings={
            "metric": what.metric.name,
            "differences": "float32" if what.single else "float64",
            "landmarks": landmarks,
        },
        warnings=_words(~known, ~what.columns.finite),
    )


def _words(excluded: Any, orbit_excluded: Any) -> tuple[str, ...]:
    words = []
    if excluded.any():
        words.append(
            f"{np.count_nonzero(excluded)} of {len(excluded)} states hold NaN or inf, or have no distance in this "
            "metric, and are excluded"
        )
    if orbit_excluded.any():
        words.append(
            f"{np.count_nonzero(orbit_excluded)} of {len(orbit_excluded)} states of the orbit hold NaN or inf; none of "
            "them is the nearest"
        )
    return tuple(words)


def _search(what: Comparison, executor: Executor | None) -> tuple[Found, int]:
    """Return the nearest states, and by how many landmarks the others were ruled out."""
    terms = len(what.x) * len(what.y) * what.size
    if executor is not None or not what.metric.obeys_triangle or terms < WORTH:
        return _everything(what, executor), 0
    search = Search(what)
    known = {rows.start: search(rows) for rows in search.probes()}
    looked_at = sum(len(found.distance) for found in known.values()) * len(what.y)
    if sum(found.computed for found in known.values()) > PAYS * looked_at:
        return _everything(what, executor), 0

    def keep(rows: slice, found: Found) -> None:
        known[rows.start] = found

    left = [rows for rows in search.rows() if rows.start not in known]
    schedule.run(left, search, keep, executor=None, workers=schedule.threads())
    parts = [known[rows.start] for rows in search.rows()]
    distance, argmin = (np.concatenate([getattr(part, name) for part in parts]) for name in ("distance", "argmin"))
    return Found(distance, argmin, search.computed + sum(part.computed for part in parts)), LANDMARKS


def _everything(what: Comparison, executor: Executor | None) -> Found:
    """Compute all distances, in large tiles."""
    workers = schedule.threads()
    side = what.side(workers)
    rows, columns = (
        [slice(start, min(start + side, len(x))) for start in range(0, len(x), side)] for x in (what.x, what.y)
    )
    found = {r.start: nothing(r.stop - r.start) for r in rows}

    def keep(task: tuple[slice, slice], block: Any) -> None:
        found[task[0].start] = found[task[0].start].nearer(what.blank(*task, block), task[1].start)

    def send(task: tuple[slice, slice]) -> Tile:
        return what.tile(*task, travels=executor is not None)

    tasks = [(r, c) for r in rows for c in columns]
    schedule.run(tasks, compute, keep, executor=executor, workers=workers, send=send)
    parts = list(found.values()) or [nothing(0)]
    distance, argmin = (np.concatenate([getattr(part, name) for part in parts]) for name in ("distance", "argmin"))
    return Found(distance, argmin, sum(part.computed for part in parts))
