"""Distance of every state of one trajectory to the orbit of another: the nearest of all its states."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.distances import tiles
from trajtools.distances.metric import MetricLike
from trajtools.distances.tiles import Comparison, Tile, compare, compute
from trajtools.errors import DataError
from trajtools.reasons import Reason
from trajtools.results import Result
from trajtools.types import Bools, Floats, Ints, StatesLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
class ToOrbit(Result):
    """How far every state of one trajectory is from the orbit of another.

    Attributes
    ----------
    metric : str
        Name of the distance between states.
    distance : ndarray of float64, shape (T,)
        Distance to the nearest state of the orbit; NaN for states that are not finite.
    argmin : ndarray of int64, shape (T,)
        Index of the nearest state of the orbit, the first of equal ones; -1 for states that are not finite.
    step : ndarray of int64, shape (T,)
        Step of each state.
    orbit_step : ndarray of int64, shape (S,)
        Step of each state of the orbit.
    time_unit : str
        Unit of `dt`.
    dt : float, in `time_unit`
        Time of one step.
    excluded : ndarray of bool, shape (T,)
        States that hold NaN or inf.
    orbit_excluded : ndarray of bool, shape (S,)
        States of the orbit that hold NaN or inf; none of them is the nearest.
    n_computed : int
        How many of the T x S distances were computed; the others were shown to be larger.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of Reason
        What the reader should know before believing the distances.
    """

    metric: str
    distance: Floats
    argmin: Ints
    step: Ints
    orbit_step: Ints
    time_unit: str
    dt: float
    excluded: Bools
    orbit_excluded: Bools
    n_computed: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()

    @property
    def n_excluded(self) -> int:
        """How many states have no distance to the orbit."""
        return int(self.excluded.sum())

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw them; see `trajtools.plots.to_orbit`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn.
        """
        from trajtools import plots

        return plots.to_orbit(self, ax=ax)


def to_orbit(a: StatesLike, b: StatesLike, *, metric: MetricLike = "l2", executor: Executor | None = None) -> ToOrbit:
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
        warnings=_warnings(~known, ~what.columns.finite),
    )


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
    tiles.run(left, search, keep, executor=None, workers=tiles.threads())
    parts = [known[rows.start] for rows in search.rows()]
    distance, argmin = (np.concatenate([getattr(part, name) for part in parts]) for name in ("distance", "argmin"))
    return Found(distance, argmin, search.computed + sum(part.computed for part in parts)), LANDMARKS


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


def _all_of(what: Comparison) -> Floats:
    """All distances (n, L), of many states to few."""
    out = np.empty((len(what.x), len(what.y)))
    few = slice(0, len(what.y))

    def keep(rows: slice, block: Floats) -> None:
        out[rows] = what.blank(rows, few, block)

    rows = _stretches(len(what.x), SIDE)
    workers = tiles.threads()
    tiles.run(rows, compute, keep, executor=None, workers=workers, send=lambda side: what.tile(side, few))
    return out


def _stretches(length: int, side: int) -> list[slice]:
    return [slice(start, min(start + side, length)) for start in range(0, length, side)]


def nothing(count: int) -> Found:
    """Return what is known before anything is computed."""
    return Found(np.full(count, np.inf), np.full(count, -1, dtype=np.int64), 0)


def _everything(what: Comparison, executor: Executor | None) -> Found:
    """Compute all distances, in large tiles."""
    workers = tiles.threads()
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
    tiles.run(tasks, compute, keep, executor=executor, workers=workers, send=send)
    parts = list(found.values()) or [nothing(0)]
    distance, argmin = (np.concatenate([getattr(part, name) for part in parts]) for name in ("distance", "argmin"))
    return Found(distance, argmin, sum(part.computed for part in parts))


def _warnings(excluded: Any, orbit_excluded: Any) -> tuple[Reason, ...]:
    warnings = []
    if excluded.any():
        words = "{excluded} of {states} states hold NaN or inf, or have no distance in this metric, and are excluded"
        count = np.count_nonzero(excluded)
        warnings.append(Reason.of("not-finite", words, excluded=count, states=len(excluded)))
    if orbit_excluded.any():
        words = "{excluded} of {states} states of the orbit hold NaN or inf; none of them is the nearest"
        count = np.count_nonzero(orbit_excluded)
        warnings.append(Reason.of("orbit-not-finite", words, excluded=count, states=len(orbit_excluded)))
    return tuple(warnings)
