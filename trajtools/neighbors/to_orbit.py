"""Distance of every state of one trajectory to the nearest state of another."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.distances import tiles
from trajtools.distances.equal_times import pairs
from trajtools.distances.metric import OPERATIONS, Metric, MetricLike, find_metric
from trajtools.distances.tiles import Comparison, Tile, both_sides, compare, compute
from trajtools.errors import DataError
from trajtools.inputs import takes_states
from trajtools.neighbors.search import Strategy, build
from trajtools.neighbors.states import HIGH_DIMENSION, States
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.trajectory import StatesLike, Trajectory
from trajtools.types import L2, Bools, Floats, Ints
from trajtools.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LANDMARKS = 8
SIDE = 64  # rows of a chunk in most files
WORTH = 2**31
"""With fewer terms (states x states x weights), computing all distances is faster than a search."""


LARGEST, SMALLEST = 1e140, 1e-280  # of a state and of a squared distance whose squares keep their digits
TREE_PAYS = 2**18
"""With fewer pairs of states, computing all distances is faster than building a tree."""


PAYS = 0.25
"""If a search computes more than this share of the distances, computing all in large tiles is faster."""


_PROBES = 4


# Relative tolerances (float32, float64) larger than the rounding of the distances in a bound.
_SLACK = {True: 1e-6, False: 1e-12}


@dataclass(frozen=True, eq=False, repr=False)
class ToOrbit(Result):
    """Distance of every state of one trajectory to the orbit of another.

    Attributes
    ----------
    metric : str
        Name of the distance between states.
    distance : ndarray of float64, shape (T,)
        Distance to the nearest state of the orbit; NaN for states that are not finite.
    argmin : ndarray of int64, shape (T,)
        Index of the nearest state of the orbit, the first of equals; -1 for states that are not finite.
    step : ndarray of int64, shape (T,)
        Step of each state.
    orbit_step : ndarray of int64, shape (S,)
        Step of each state of the orbit.
    time_unit : str
        Unit of `dt`.
    dt : float, in `time_unit`
        Time of one step.
    excluded : ndarray of bool, shape (T,)
        States that contain NaN or inf.
    orbit_excluded : ndarray of bool, shape (S,)
        States of the orbit that contain NaN or inf; they are never the nearest.
    n_computed : int
        Number of the T x S distances that were computed; the others are provably larger.
    settings : dict
        Every parameter used, including automatic choices.
    warnings : tuple of Reason
        Warnings that limit the interpretation of the distances.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> path = np.c_[np.cos(0.1 * np.arange(70)), np.sin(0.1 * np.arange(70))]
    >>> found = tt.to_orbit(1.1 * path[:3], path, metric="l2")
    >>> found.distance.round(3).tolist()
    [0.1, 0.1, 0.1]
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
    _dims: ClassVar[AxisNames] = {
        "distance": ("step",),
        "argmin": ("step",),
        "excluded": ("step",),
        "orbit_excluded": ("orbit_step",),
    }

    def _sentence(self) -> str:
        known = self.distance[np.isfinite(self.distance)]
        text = f"{self.metric} distance of {counted(len(self.distance), 'state')} to an orbit of {len(self.orbit_step)}"
        if not len(known):
            return f"{text}: unknown."
        low, middle, high = np.quantile(known, [0, 0.5, 1])
        return f"{text}: median {middle:.4g}, from {low:.4g} to {high:.4g}."

    @property
    def n_excluded(self) -> int:
        """Number of states without a distance to the orbit."""
        return int(self.excluded.sum())

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the distances; see `trajtools.plots.to_orbit`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Axes to draw on; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from trajtools import plots

        return plots.to_orbit(self, ax=ax)


@takes_states("a", "b", single=True)
def to_orbit(
    a: StatesLike,
    b: StatesLike,
    *,
    metric: MetricLike = "l2",
    scale: str | None = None,
    executor: Executor | None = None,
) -> ToOrbit:
    r"""Distance of each state of one trajectory to the nearest state of another, and its index.

    Parameters
    ----------
    a : Trajectory or array_like, shape (T, P) or (T,)
        The states.
    b : Trajectory or array_like, shape (S, P) or (S,)
        The orbit.
    metric : str, callable or Metric
        Distance between states, see `METRICS`.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    executor : concurrent.futures.Executor or None
        Computes all distances; None: threads of this process.

    Returns
    -------
    ToOrbit
        ``distance[t]``, the minimum over s of d(a(t), b(s)), and ``argmin[t]``, the first s at the minimum.

    Raises
    ------
    DataError
        If the states have different numbers of weights, or no state of `b` is finite.
    UnknownNameError
        If there is no such metric.

    Notes
    -----
    Of states with at most 20 entries, compared by l1, l2, linf or rms, the nearest is found in a k-d tree of the orbit.
    In a metric with the triangle inequality, :math:`|d(a, c) - d(b, c)| \le d(a, b)`. The exact distances of all states
    to 8 landmarks c on the orbit exclude most pairs of smooth trajectories, and never the nearest one. If the first
    blocks exclude too few pairs, all distances are computed. Landmarks and all distances give
    bit-identical results, with only a few blocks of states in memory.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> result = tt.to_orbit(np.array([0.0, 2.2]), np.array([1.0, 2.0, 3.0]))
    >>> result.argmin.tolist(), [round(d, 1) for d in result.distance.tolist()]
    ([0, 1], [1.0, 0.2])
    """
    left, right = both_sides(a, b, metric)
    by_tree = None if executor is not None else _by_tree(left, right, find_metric(metric))
    if by_tree is not None:
        nearest, finite = by_tree
        settings = {"search": "tree", "differences": "float64"}
    else:
        # The rounding floor is not needed; other processes know a metric by its name only.
        plain = replace(find_metric(metric), rounding=None) if executor is None else metric
        comparison = compare(left, right, plain, digest=False, executor=executor)
        if not comparison.columns.finite.any():
            raise DataError(f"none of the {len(right)} states of the orbit is finite, so there is no nearest state")
        nearest, search = _search(comparison, executor)
        settings = {"search": search, "differences": "float32" if comparison.single else "float64"}
        finite = comparison.columns.finite
    known, name = nearest.argmin >= 0, find_metric(metric).name
    return ToOrbit(
        metric=name,
        distance=np.where(known, nearest.distance, np.nan),
        argmin=nearest.argmin,
        step=left.step,
        orbit_step=right.step,
        time_unit=left.time_unit,
        dt=left.dt,
        excluded=~known,
        orbit_excluded=~finite,
        n_computed=nearest.computed,
        settings={"metric": name, **settings},
        warnings=_warnings(~known, ~finite),
    )


def _search(comparison: Comparison, executor: Executor | None) -> tuple[Nearest, str]:
    """Nearest states, and how they were found."""
    terms = len(comparison.x) * len(comparison.y) * comparison.size
    if executor is not None or not comparison.metric.obeys_triangle or terms < WORTH:
        return _compute_all(comparison, executor), "all distances"
    search = Search(comparison)
    by_row = {rows.start: search(rows) for rows in search.probes()}
    searched = sum(len(nearest.distance) for nearest in by_row.values()) * len(comparison.y)
    if sum(nearest.computed for nearest in by_row.values()) > PAYS * searched:
        return _compute_all(comparison, executor), "all distances"

    def keep(rows: slice, nearest: Nearest) -> None:
        by_row[rows.start] = nearest

    left = [rows for rows in search.rows() if rows.start not in by_row]
    tiles.run(left, search, keep, executor=None, workers=tiles.threads())
    parts = [by_row[rows.start] for rows in search.rows()]
    distance, argmin = (np.concatenate([getattr(part, name) for part in parts]) for name in ("distance", "argmin"))
    return Nearest(distance, argmin, search.computed + sum(part.computed for part in parts)), "landmarks"


def _by_tree(x: Trajectory, y: Trajectory, metric: Metric) -> tuple[Nearest, Bools] | None:
    """Nearest states by a k-d tree of the orbit, and which of its states are finite; None where no tree serves."""
    sums = metric.sums
    if sums is None or sums.signs or metric.merge is None or x.shape[1] > HIGH_DIMENSION:
        return None
    if len(x) * len(y) < TREE_PAYS:
        return None
    from trajtools._kernels import orbits
    from trajtools._kernels._jit import in_parts
    from trajtools._kernels.neighbors import make_room

    path, orbit = (np.ascontiguousarray(each.read(), dtype=np.float64) for each in (x, y))
    usable: Bools = np.logical_and.reduce(np.isfinite(path), axis=1)
    finite: Bools = np.logical_and.reduce(np.isfinite(orbit), axis=1)
    largest = max(
        np.abs(each, where=fine[:, None], out=np.zeros_like(each)).max()
        for each, fine in ((path, usable), (orbit, finite))
    )
    if not finite.any() or largest > LARGEST:
        return None
    code = OPERATIONS[sums.operation]
    index = build(States(orbit, np.empty((0, 0)), sums.operation, code, finite, 1, 0, 0), Strategy("tree", -1, ""))
    gap, place = np.full(len(path), np.inf), np.full(len(path), -1, dtype=np.int64)
    computed: list[int] = []

    # Searches among neighbours leave out copies of a point; here they are the nearest.
    groups = index.groups._replace(flat=np.zeros_like(index.groups.flat))

    def work(first: int, last: int) -> None:
        arrays = index.leaves, index.times, groups, code, make_room(path.shape[1])
        computed.append(orbits.tree_to_orbit(path, usable, first, last, *arrays, gap, place))

    in_parts(work, len(path))
    rows = np.flatnonzero(usable)
    distance = np.full(len(path), np.inf)
    one = np.zeros(1, dtype=np.int64)
    distance[rows] = pairs(metric, path[rows, None], orbit[place[rows], None], one, one)[:, 0]
    if code == L2 and np.any((gap[rows] < SMALLEST) & (distance[rows] > 0)):
        return None  # squares of the distances underflow
    return Nearest(distance, place, sum(computed)), finite


class Search:
    """Search for the nearest states by landmarks on the orbit."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        finite = np.flatnonzero(comparison.columns.finite)
        picked = finite[np.linspace(0, len(finite) - 1, LANDMARKS).round().astype(int)]
        marks = comparison.pick_columns(np.unique(picked))
        self._row_marks = _landmark_distances(replace(marks, x=comparison.x, rows=comparison.rows))
        self._column_marks = _landmark_distances(replace(marks, x=comparison.y, rows=comparison.columns))
        self.computed = self._row_marks.size + self._column_marks.size

    def rows(self) -> list[slice]:
        """Blocks of rows."""
        return _stretches(len(self._comparison.x), SIDE)

    def probes(self) -> list[slice]:
        """Sample of the blocks, to estimate the cost of the search."""
        rows = self.rows()
        return [rows[k] for k in np.unique(np.linspace(0, len(rows) - 1, _PROBES).round().astype(int))]

    def __call__(self, rows: slice) -> Nearest:
        """Nearest states of a block of rows; blocks of columns are visited in the order of their bounds."""
        comparison = self._comparison
        bound = self._bounds(rows)
        stretches = _stretches(len(comparison.y), SIDE)
        # Lowest bound of each row in each block of columns; infinite without finite states.
        lowest = np.stack([bound[:, columns].min(axis=1) for columns in stretches], axis=1)
        nearest = empty_result(rows.stop - rows.start)
        for k in np.argsort(lowest.min(axis=0), kind="stable"):
            if np.any(lowest[:, k] <= nearest.distance):
                block = compute(comparison.tile(rows, stretches[k]))
                nearest = nearest.nearer(comparison.blank(rows, stretches[k], block), stretches[k].start)
        return nearest

    def _bounds(self, rows: slice) -> Floats:
        """Lower bounds (n, S) of the distances of these rows; inf where there is no distance."""
        comparison = self._comparison
        bound = np.zeros((rows.stop - rows.start, len(comparison.y)))
        with np.errstate(invalid="ignore"):
            for mine, theirs in zip(self._row_marks[rows].T, self._column_marks.T, strict=True):
                slack = _SLACK[comparison.single] * (mine[:, None] + theirs)
                np.fmax(bound, np.abs(mine[:, None] - theirs) - slack, out=bound)
        bound[~comparison.rows.finite[rows]] = np.inf
        bound[:, ~comparison.columns.finite] = np.inf
        return bound


@dataclass(frozen=True, eq=False)
class Nearest:
    """Nearest states of a block of rows.

    Attributes
    ----------
    distance : ndarray of float64, shape (n,)
        Distance to the nearest state; inf if there is none.
    argmin : ndarray of int64, shape (n,)
        The first state at that distance; -1 if there is none.
    computed : int
        Number of distances computed.
    """

    distance: Floats
    argmin: Ints
    computed: int

    def nearer(self, block: Floats, start: int) -> Nearest:
        """Update with a block (n, m) of distances to the states from `start` on."""
        block = np.where(np.isnan(block), np.inf, block)
        place = block.argmin(axis=1)
        distance = block[np.arange(len(block)), place]
        place += start
        # The first of equals, for any order of the blocks.
        better = (distance < self.distance) | ((distance == self.distance) & (place < self.argmin))
        better &= np.isfinite(distance)
        return Nearest(
            np.where(better, distance, self.distance),
            np.where(better, place, self.argmin),
            self.computed + block.size,
        )


def _landmark_distances(comparison: Comparison) -> Floats:
    """All distances (n, L) of many states to few."""
    out = np.empty((len(comparison.x), len(comparison.y)))
    few = slice(0, len(comparison.y))

    def keep(rows: slice, block: Floats) -> None:
        out[rows] = comparison.blank(rows, few, block)

    rows = _stretches(len(comparison.x), SIDE)
    workers = tiles.threads()
    tiles.run(rows, compute, keep, executor=None, workers=workers, send=lambda side: comparison.tile(side, few))
    return out


def _stretches(length: int, side: int) -> list[slice]:
    return [slice(start, min(start + side, length)) for start in range(0, length, side)]


def empty_result(count: int) -> Nearest:
    """Result before any distance is computed."""
    return Nearest(np.full(count, np.inf), np.full(count, -1, dtype=np.int64), 0)


def _compute_all(comparison: Comparison, executor: Executor | None) -> Nearest:
    """Compute all distances, in large tiles."""
    workers = tiles.threads()
    side = comparison.side(workers)
    rows, columns = (
        [slice(start, min(start + side, len(x))) for start in range(0, len(x), side)]
        for x in (comparison.x, comparison.y)
    )
    by_row = {r.start: empty_result(r.stop - r.start) for r in rows}

    def keep(task: tuple[slice, slice], block: Any) -> None:
        by_row[task[0].start] = by_row[task[0].start].nearer(comparison.blank(*task, block), task[1].start)

    def send(task: tuple[slice, slice]) -> Tile:
        return comparison.tile(*task, travels=executor is not None)

    tasks = [(r, c) for r in rows for c in columns]
    tiles.run(tasks, compute, keep, executor=executor, workers=workers, send=send)
    parts = list(by_row.values()) or [empty_result(0)]
    distance, argmin = (np.concatenate([getattr(part, name) for part in parts]) for name in ("distance", "argmin"))
    return Nearest(distance, argmin, sum(part.computed for part in parts))


def _warnings(excluded: Any, orbit_excluded: Any) -> tuple[Reason, ...]:
    warnings = []
    if excluded.any():
        text = "{excluded} of {states} states contain NaN or inf, or have no distance in this metric, and are excluded"
        count = np.count_nonzero(excluded)
        warnings.append(Reason.of("not-finite", text, excluded=count, states=len(excluded)))
    if orbit_excluded.any():
        text = "{excluded} of {states} states of the orbit contain NaN or inf and are excluded"
        count = np.count_nonzero(orbit_excluded)
        warnings.append(Reason.of("orbit-not-finite", text, excluded=count, states=len(orbit_excluded)))
    return tuple(warnings)
