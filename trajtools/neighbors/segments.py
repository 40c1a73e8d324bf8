"""Stretches of a trajectory that are followed beside a neighbour each: what Wolf's method and its kin share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trajtools.errors import DataError, NoNeighborsError
from trajtools.exponents.following import GRAPH_L1, as_links, check_nodes, steps_per_sample
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.neighbors.search import Strategy, choose, evenly, nearest
from trajtools.neighbors.states import MetricOfStates, States, across_motion, check_motion, directions, prepare
from trajtools.results.curves import average_curves, mean_curve
from trajtools.results.divergence import Divergence
from trajtools.types import Floats, Ints

# Of the spread (the median distance of two states): where a pair counts as grown too far, if nobody says otherwise.
LIMIT_SHARE = 0.1
_SPREAD_STATES = 200
# Cosines closer than this are equal: on a line, or in L1, many are, up to rounding.
EQUAL_COSINES = 1e-9


@dataclass(frozen=True, eq=False)
class Walk:
    """A prepared trajectory along which pairs are followed.

    Attributes
    ----------
    states : States
        From `trajtools.neighbors.states.prepare`.
    metric : str
        As asked.
    factor : float
        What the distances of `states` are multiplied with: 1, but for normalised distances of graphs.
    ways : ndarray of float64, shape (T, d), or None
        Unit vectors along the motion, where distances across it are asked for.
    """

    states: States
    metric: str
    factor: float
    ways: Floats | None = None

    def __len__(self) -> int:
        return len(self.states)

    def distances(self, i: int, others: Ints) -> Floats:
        """Distances of state i to others, shape (m,)."""
        from trajtools._kernels.divergence import distances_to

        s = self.states
        return self.factor * distances_to(s.points, s.matrix, i, others, s.code)

    def paths(self, i: int, others: Ints) -> Floats:
        """Distances of the states i .. i + horizon to others and their successors, shape (m, horizon + 1)."""
        from trajtools._kernels.divergence import paths

        s = self.states
        return self.factor * paths(s.points, s.matrix, i, others, s.horizon, s.code)

    def measured(self, i: int, others: Ints, whole: Floats) -> Floats:
        """Return the paths that growth is read from: `whole`, those of `paths`, or across the motion."""
        if self.ways is None:
            return whole
        steps = np.arange(self.states.horizon + 1)
        there = np.asarray(others)[:, None] + steps
        apart = self.states.points[there] - self.states.points[i + steps]
        return across_motion(apart, self.ways[there] + self.ways[i + steps])


def prepare_walk(
    x: Any, *, metric: MetricOfStates, nodes: int | None, theiler: int, horizon: int, across: bool = False
) -> Walk:
    """Check states for following pairs of them, block by block."""
    factor = 1.0
    kernel_metric = metric
    if metric == GRAPH_L1:
        x, factor = as_links(x, nodes)
        kernel_metric = "l1"
    else:
        check_nodes(nodes, metric)
    states = prepare(x, metric=kernel_metric, theiler=theiler, horizon=horizon)
    if states.horizon < 1:
        raise DataError("horizon=0: a block is followed for one step at least")
    contiguous = np.ascontiguousarray(states.points)
    if contiguous is not states.points:
        states = States(**{**vars(states), "points": contiguous})
    ways = None
    if across:
        check_motion(states)
        ways = directions(states.points)
    return Walk(states, GRAPH_L1 if metric == GRAPH_L1 else states.metric, factor, ways)


def block_starts(walk: Walk) -> Ints:
    """Where the blocks begin: one after the other, over what is missing to the next state that can be followed."""
    usable = np.flatnonzero(walk.states.usable)
    starts, at = [], 0
    while at < len(usable):
        starts.append(int(usable[at]))
        at = int(np.searchsorted(usable, starts[-1] + walk.states.horizon))
    return np.array(starts, dtype=np.int64)


def candidates(walk: Walk, rule: NearestK, starts: Ints) -> tuple[Ints, bool, Strategy]:
    """The nearest states of the first state of each block."""
    states = walk.states
    strategy = choose(states, None)
    if strategy.name in ("tree", "sweep"):
        # The search of all states costs less than comparing those few with everything.
        found = nearest(states, rule, strategy.name)
        return found.index[starts], found.counts["zero_distance"] > 0, strategy
    from trajtools._kernels.divergence import nearest_of

    _, index, repeats = nearest_of(
        states.points, states.matrix, states.usable, starts, int(rule.k), states.theiler, states.code
    )
    return index, bool(repeats.any()), strategy


def growth_limit(walk: Walk, limit: float | None) -> float:
    """The distance beyond which a pair is given up."""
    if limit is None:
        return LIMIT_SHARE * _spread(walk)
    if not limit > 0:
        raise DataError(f"limit={limit!r}: pairs are given up beyond a positive distance")
    return float(limit)


def _spread(walk: Walk) -> float:
    """Median distance between two of some evenly spaced states."""
    times = evenly(np.flatnonzero(walk.states.usable), _SPREAD_STATES)
    apart = np.concatenate([walk.distances(int(i), times[at + 1 :]) for at, i in enumerate(times[:-1])])
    median = float(np.nanmedian(apart)) if np.isfinite(apart).any() else 0.0
    if not median > 0:
        raise NoNeighborsError(
            "half of the states are equal, so no limit can be taken from their spread; give limit= (a distance)"
        )
    return median


def cosine(to_old: Any, to_new: Any, between: Any) -> Any:
    r"""Cosine of the angle between two separations from one state, from distances alone."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        gain = (to_old - between) / to_new
        return np.clip((gain * (1 + between / to_old) + to_new / to_old) / 2, -1.0, 1.0)


def mean_rate(rows: Floats, duration: float) -> float:
    """Wolf's value: summed growth of the blocks that have not met at their end, over the time it took."""
    apart = (rows[:, -1] > 0) & (rows[:, 0] > 0)
    if not apart.any():
        return float("nan")
    grown = np.log(rows[apart, -1]) - np.log(rows[apart, 0])
    return float(grown.sum() / (len(grown) * duration))


def segments_divergence(
    walk: Walk,
    rows: Floats,
    starts: Ints,
    *,
    method: str,
    average: str,
    rule: NearestK | WithinRadius | None,
    strategy: str,
    clock: tuple[float, str, Ints | None],
    settings: dict[str, Any],
    warnings: tuple[str, ...] = (),
) -> Divergence:
    """Turn blocks into curves, one unit each."""
    if not len(rows):
        left_out = settings.get("left_out")
        raise NoNeighborsError(
            f"{method}: no block of {walk.states.horizon} steps begins at a state with a neighbour outside "
            f"theiler={walk.states.theiler} ({left_out}); lower theiler or horizon, widen the neighbourhood, "
            "or record more"
        )
    dt, unit, step = clock
    group = np.arange(len(rows))
    start = starts if step is None else np.asarray(step, dtype=np.int64)[starts]
    curves, of, _ = average_curves(rows, group, start, average)
    return Divergence(
        method=method,
        metric=walk.metric,
        average=average,
        time=np.arange(rows.shape[1], dtype=np.float64) * dt,
        time_unit=unit,
        log_distance=mean_curve(curves, of),
        distances=rows,
        group=group,
        start=start,
        floor=np.full(rows.shape, np.nan),
        scale=np.full(len(rows), np.nan),
        n_references=len(rows),
        settings={
            "metric": walk.metric,
            "factor": walk.factor,
            "neighbors": None if rule is None else {"rule": type(rule).__name__, **asdict(rule)},
            "theiler": walk.states.theiler,
            "horizon": walk.states.horizon,
            "dt": dt,
            "steps_per_sample": steps_per_sample(step),
            "average": average,
            "strategy": strategy,
            "across": walk.ways is not None,
            **settings,
        },
        warnings=warnings,
    )
