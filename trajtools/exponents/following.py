"""Pairs of neighbouring states, followed in time: radii, networks as states, curves and segments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, NoNeighborsError, UnknownNameError
from trajtools.exponents.divergence import Divergence
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.neighbors.search import Strategy, choose, evenly, nearest
from trajtools.neighbors.states import LANES, States, across_motion, check_motion, directions, prepare
from trajtools.reasons import Reason
from trajtools.statistics import AVERAGES, average_curves, mean_curve
from trajtools.trajectory import Trajectory
from trajtools.types import Floats, Ints

if TYPE_CHECKING:
    from trajtools.distances.metric import MetricLike

# The fourth neighbour: a larger ball costs e-folds (a 30th neighbour made exponents of maps 2 to 6 % too high).
_AUTO_QUERIES, _AUTO_NEIGHBOR, _SPREAD_STATES = 64, 4, 512


GRAPH_L1 = "graph-l1"
LENGTHS = ("radius", "radii", "limit", "distance_along")  # settings that are distances
_BLOCKS = 128
_SHORTEST_BLOCK = 32


# Of the spread (the median distance of two states): where a pair counts as grown too far, if nobody says otherwise.
LIMIT_SHARE = 0.1


_SPREAD_SAMPLE = 200


# Cosines closer than this are equal: on a line, or in L1, many are, up to rounding.
EQUAL_COSINES = 1e-9


def absolute_radii(states: States, rule: WithinRadius) -> Floats:
    """The radii of a rule as distances, ascending."""
    if not isinstance(rule.radius, str):
        radii = np.unique(np.asarray(rule.radius, dtype=np.float64))
        return radii * spread(states) if rule.relative else radii
    times = np.flatnonzero(states.usable)
    reach = []
    for query in evenly(times, _AUTO_QUERIES):
        distance = states.between(np.array([query]), times)[0]
        distance = np.sort(distance[(np.abs(times - query) >= states.theiler) & (distance > 0)])
        if len(distance):
            reach.append(distance[min(_AUTO_NEIGHBOR, len(distance)) - 1])
    if not reach:
        raise NoNeighborsError(
            f"no two states at least theiler={states.theiler} samples apart differ, so no radius can be chosen; "
            "lower theiler, record more, or check that the states move at all"
        )
    return np.array([float(np.median(reach))])


def spread(states: States) -> float:
    """Median distance between two states of the record, from at most 512 evenly spaced ones."""
    times = evenly(np.flatnonzero(states.usable), _SPREAD_STATES)
    distance = states.between(times, times)[np.triu_indices(len(times), 1)]
    median = float(np.median(distance))
    if not median > 0:
        raise NoNeighborsError(
            "half of the states are equal: radii relative to the spread mean nothing; give distances"
        )
    return median


def as_links(x: Any, nodes: int | None) -> tuple[Any, float]:
    r"""Rows of links, and what their L1 distance is multiplied with."""
    if isinstance(x, Trajectory):
        if nodes is None and x.nodes:
            # A table of parameters lists every link once and with its direction.
            return x, _factor(0, sum(int(each.size) for each in x.nodes))
        return x, _factor(int(x.shape[1]), nodes)
    array = np.asarray(x)
    if array.ndim == 3:
        size = array.shape[1]
        if size != array.shape[2] or nodes not in (None, size):
            raise DataError(f"adjacency matrices are (T, N, N); these have shape {array.shape}, nodes={nodes}")
        return array[:, ~np.eye(size, dtype=bool)], _factor(size * (size - 1), size)
    if array.ndim != 2:
        raise DataError(
            f"metric 'graph-l1' compares adjacency matrices (T, N, N) or rows of links (T, E), not shape {array.shape}"
        )
    return array, _factor(int(array.shape[1]), nodes)


def _factor(links: int, nodes: int | None) -> float:
    if nodes is None:
        raise DataError(
            f"metric 'graph-l1' divides by N(N-1), and {links} links leave N open: give nodes=N, or adjacency "
            "matrices (T, N, N)"
        )
    if isinstance(nodes, bool) or not isinstance(nodes, (int, np.integer)) or nodes < 2:
        raise DataError(f"nodes={nodes!r}: a graph has a whole number of nodes, at least 2")
    pairs = int(nodes) * (int(nodes) - 1)
    return (2.0 if 2 * links == pairs else 1.0) / pairs


def check_nodes(nodes: int | None, metric: Any) -> None:
    """Refuse a number of nodes where the metric has no use for it."""
    if nodes is not None:
        raise DataError(f"nodes={nodes!r} belongs to metric 'graph-l1', not to {metric!r}; leave it out")


def on_graphs(
    estimate: Callable[..., Divergence],
    x: Any,
    *,
    nodes: int | None,
    neighbors: WithinRadius | NearestK | None = None,
    **options: Any,
) -> Divergence:
    """Run an estimator in L1 on the links of graphs, and give its curves in the normalised distance."""
    links, factor = as_links(x, nodes)
    rule = neighbors
    if isinstance(rule, WithinRadius) and not (rule.relative or isinstance(rule.radius, str)):
        rule = replace(rule, radius=(np.asarray(rule.radius, dtype=np.float64) / factor).tolist())
    plain = estimate(links, metric="l1", neighbors=rule, **options)
    found = normalised(plain, factor)
    if neighbors is not None:
        rule_as_asked = {"rule": type(neighbors).__name__, **vars(neighbors)}
        found = replace(found, settings=found.settings | {"neighbors": rule_as_asked})
    return found


def normalised(plain: Divergence, factor: float) -> Divergence:
    """Turn a divergence in L1 of links into one in the normalised distance of graphs."""
    settings = plain.settings | {"metric": GRAPH_L1, "factor": factor}
    settings |= {name: settings[name] * factor for name in LENGTHS if name in settings}
    if "curves" in settings:
        settings["curves"] = settings["curves"] + np.log(factor)
    return replace(
        plain,
        metric=GRAPH_L1,
        log_distance=plain.log_distance + np.log(factor),
        distances=plain.distances * factor,
        settings=settings,
    )


def sampling(x: Any, dt: float | None) -> tuple[float, str, Ints | None]:
    """Time between two samples, its unit, and the steps of the states."""
    unit, step, natural = "sample", None, 1.0
    if isinstance(x, (Trajectory, Distances)):
        unit, step = x.time_unit, x.step
        gaps = np.unique(np.diff(step))
        if len(gaps) > 1:
            raise DataError(
                f"the states are between {gaps[0]} and {gaps[-1]} steps apart; following pairs needs even spacing: "
                "select with window(start, stop, every=k)"
            )
        natural = x.dt * int(gaps[0]) if len(gaps) else x.dt
    if dt is None:
        dt = natural
    else:
        unit = "time"
    if not (np.isfinite(dt) and dt > 0):
        raise DataError(f"dt={dt!r}: the time between two samples is a positive number")
    return float(dt), unit, step


def check_average(average: str) -> int:
    """The average as the kernels know it."""
    if average not in AVERAGES:
        raise UnknownNameError(f"average {average!r} is none of {', '.join(AVERAGES)}")
    return AVERAGES.index(average)


def block_edges(states: States) -> Ints:
    """Bounds of the blocks of reference states: equally long, and longer than a pair is followed."""
    times = np.flatnonzero(states.usable)
    first, stop = int(times[0]), int(times[-1]) + 1
    shortest = max(_SHORTEST_BLOCK, states.theiler, states.horizon + 1)
    blocks = int(np.clip((stop - first) // shortest, 1, _BLOCKS))
    return first + (np.arange(blocks + 1) * (stop - first)) // blocks


def padded(horizon: int) -> int:
    """Number of steps that the kernels follow: horizon + 1, rounded up to whole lanes."""
    return -(-(horizon + 1) // LANES) * LANES


def as_divergence(
    states: States,
    sums: tuple[Floats, Ints],
    edges: Ints,
    *,
    method: str,
    average: str,
    rule: NearestK | WithinRadius,
    strategy: Strategy,
    clock: tuple[float, str, Ints | None],
    n_references: int,
    counts: dict[str, int],
    extra: dict[str, Any],
    warnings: tuple[Reason, ...] = (),
) -> Divergence:
    """Turn the sums of the blocks into curves."""
    logs, terms = sums
    held = terms[:, 0] > 0
    if not held.any():
        raise NoNeighborsError(
            f"{method}: none of {int(np.count_nonzero(states.usable))} states has a neighbour under {rule} outside "
            f"theiler={states.theiler} ({counts}); enlarge the neighbourhood, lower theiler, or record more"
        )
    dt, unit, step = clock
    with np.errstate(invalid="ignore", divide="ignore"):
        curve = logs.sum(axis=0) / terms.sum(axis=0)
        rows = np.exp(logs[held] / terms[held])
    first = edges[:-1][held]
    last = int(edges[-1]) - 1 + states.horizon
    unknown = np.full(len(rows), np.nan)
    settings: dict[str, Any] = {
        "metric": states.metric,
        "neighbors": {"rule": type(rule).__name__, **asdict(rule)},
        "theiler": states.theiler,
        **({"theiler_why": states.theiler_why} if states.theiler_why else {}),
        "horizon": states.horizon,
        "dt": dt,
        "steps_per_sample": steps_per_sample(step),
        "span": (int(edges[0]), last) if step is None else (int(step[edges[0]]), int(step[last])),
        "average": average,
        "strategy": strategy.name,
        "strategy_why": strategy.why,
        "left_out": counts,
        "terms": terms.sum(axis=0),
        "block_terms": terms[held],
        **extra,
    }
    return Divergence(
        method=method,
        metric=states.metric,
        average=average,
        time=np.arange(states.horizon + 1, dtype=np.float64) * dt,
        time_unit=unit,
        log_distance=curve,
        distances=rows,
        group=np.arange(len(rows)),
        start=first if step is None else step[first],
        floor=np.full(rows.shape, np.nan),
        scale=unknown,
        n_references=n_references,
        settings=settings,
        warnings=warnings,
    )


def steps_per_sample(step: Ints | None) -> int | None:
    """Steps from one state to the next."""
    return int(step[1] - step[0]) if step is not None and len(step) > 1 else None


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
    x: Any, *, metric: MetricLike, nodes: int | None, theiler: int | None, horizon: int, across: bool = False
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
    times = evenly(np.flatnonzero(walk.states.usable), _SPREAD_SAMPLE)
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
    warnings: tuple[Reason, ...] = (),
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
            **({"theiler_why": walk.states.theiler_why} if walk.states.theiler_why else {}),
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
