"""Pairs of neighbouring states followed in time: radii, graphs as states, curves and segments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.embedding import embed
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

# The fourth neighbour: larger balls leave fewer e-folds (with the 30th, exponents of maps were 2 to 6 % too high).
_AUTO_QUERIES, _AUTO_NEIGHBOR, _SPREAD_STATES = 64, 4, 512


GRAPH_L1 = "graph-l1"
LENGTHS = ("radius", "radii", "limit", "spread", "distance_along")  # settings with the unit of a distance
_BLOCKS = 128
_SHORTEST_BLOCK = 32
_SPARSE_BLOCKS = 16  # into which a share of the record is divided


# Default distance at which a pair is replaced, over the spread (the median distance of two states).
LIMIT_SHARE = 0.1


_SPREAD_SAMPLE = 200


# Cosines closer than this are equal: on a line, or in L1, many differ only by rounding.
EQUAL_COSINES = 1e-9


def absolute_radii(states: States, rule: WithinRadius) -> Floats:
    """Radii of a rule as distances, ascending."""
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
            "lower theiler, record more, or check that the states change at all"
        )
    return np.array([float(np.median(reach))])


def spread(states: States) -> float:
    """Median distance between two states of the record, from at most 512 evenly spaced ones."""
    times = evenly(np.flatnonzero(states.usable), _SPREAD_STATES)
    distance = states.between(times, times)[np.triu_indices(len(times), 1)]
    median = float(np.median(distance))
    if not median > 0:
        raise NoNeighborsError(
            "half of the states are equal, so radii relative to the spread are undefined; give absolute radii"
        )
    return median


def as_links(x: Any, nodes: int | None) -> tuple[Any, float]:
    r"""Rows of links, and the factor of their L1 distance."""
    if isinstance(x, Trajectory):
        if nodes is None and x.nodes:
            # A table of parameters lists every directed link once.
            return x, _factor(0, sum(int(each.size) for each in x.nodes))
        return x, _factor(int(x.shape[1]), nodes)
    array = np.asarray(x)
    if array.ndim == 3:
        size = array.shape[1]
        if size != array.shape[2] or nodes not in (None, size):
            raise DataError(f"adjacency matrices have shape (T, N, N); got shape {array.shape}, nodes={nodes}")
        return array[:, ~np.eye(size, dtype=bool)], _factor(size * (size - 1), size)
    if array.ndim != 2:
        raise DataError(
            f"metric 'graph-l1' needs adjacency matrices (T, N, N) or rows of links (T, E), not shape {array.shape}"
        )
    return array, _factor(int(array.shape[1]), nodes)


def _factor(links: int, nodes: int | None) -> float:
    if nodes is None:
        raise DataError(
            f"metric 'graph-l1' divides by N(N-1), but {links} links do not determine N: give nodes=N, or adjacency "
            "matrices (T, N, N)"
        )
    if isinstance(nodes, bool) or not isinstance(nodes, (int, np.integer)) or nodes < 2:
        raise DataError(f"nodes must be an integer, at least 2; got {nodes!r}")
    pairs = int(nodes) * (int(nodes) - 1)
    return (2.0 if 2 * links == pairs else 1.0) / pairs


def check_nodes(nodes: int | None, metric: Any) -> None:
    """Raise an error if nodes= is passed with a metric that does not use it."""
    if nodes is not None:
        raise DataError(f"nodes={nodes!r} applies to metric 'graph-l1', not to {metric!r}; omit it")


def on_graphs(
    estimate: Callable[..., Divergence],
    x: Any,
    *,
    nodes: int | None,
    neighbors: WithinRadius | NearestK | None = None,
    **options: Any,
) -> Divergence:
    """Run an estimator in L1 on the links of graphs, and normalise its distances."""
    links, factor = as_links(x, nodes)
    rule = neighbors
    if isinstance(rule, WithinRadius) and not (rule.relative or isinstance(rule.radius, str)):
        rule = replace(rule, radius=(np.asarray(rule.radius, dtype=np.float64) / factor).tolist())
    plain = estimate(links, metric="l1", neighbors=rule, **options)
    growth = normalised(plain, factor)
    if neighbors is not None:
        original = {"rule": type(neighbors).__name__, **vars(neighbors)}
        growth = replace(growth, settings=growth.settings | {"neighbors": original})
    return growth


def normalised(plain: Divergence, factor: float) -> Divergence:
    """Convert a divergence in L1 of links to the normalised distance of graphs."""
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


def delay_vectors(x: Any, dim: int | None, delay: int) -> tuple[Any, dict[str, int]]:
    """Delay vectors of a series as states with the clock of `x`, and the settings; `x` itself where `dim` is None."""
    if dim is None:
        if delay != 1:
            raise DataError(f"delay={delay} without dim: give the embedding dimension as well")
        return x, {}
    if isinstance(x, Distances) or np.ndim(x) > 2:
        raise DataError("dim and delay embed a series; distances and adjacency matrices are states already: omit them")
    vectors: Any = embed(x, dim, delay)
    if isinstance(x, Trajectory):
        step = x.step[: len(vectors)]
        vectors = Trajectory.from_array(vectors, step=step, dt=x.dt, time_unit=x.time_unit)
    return vectors, {"dim": dim, "delay": delay}


def with_settings(divergence: Divergence, settings: dict[str, int]) -> Divergence:
    """Add settings to a result."""
    return replace(divergence, settings={**divergence.settings, **settings}) if settings else divergence


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
        unit = getattr(dt, "unit", "time")
    if not (np.isfinite(dt) and dt > 0):
        raise DataError(f"dt, the time between two samples, must be a positive number; got {dt!r}")
    return float(dt), unit, step


def check_average(average: str) -> int:
    """Code of the average in the kernels."""
    if average not in AVERAGES:
        raise UnknownNameError(f"average must be one of {', '.join(AVERAGES)}, got {average!r}")
    return AVERAGES.index(average)


def check_share(share: float) -> float:
    """Share of the record that is used."""
    if isinstance(share, bool) or not isinstance(share, (int, float, np.number)) or not 0 < share <= 1:
        raise DataError(
            f"share, the part of the record whose states are used, must be above 0 and at most 1; got {share!r}"
        )
    return float(share)


def in_blocks(states: States, share: float) -> States:
    """Use only a share of the states, in blocks of time; a flow passes by as rarely as in a shorter record."""
    if share == 1:
        return states
    period = max(len(states) // _SPARSE_BLOCKS, round(1 / share))
    return replace(states, usable=states.usable & (np.arange(len(states)) % period < share * period))


def block_edges(states: States) -> Ints:
    """Bounds of the blocks of reference states, of equal length, longer than the horizon."""
    first, stop = int(states.usable.argmax()), len(states) - int(states.usable[::-1].argmax())
    shortest = max(_SHORTEST_BLOCK, states.theiler, states.horizon + 1)
    blocks = int(np.clip((stop - first) // shortest, 1, _BLOCKS))
    return first + (np.arange(blocks + 1) * (stop - first)) // blocks


def padded(horizon: int) -> int:
    """Number of steps in the kernels: horizon + 1, rounded up to whole lanes."""
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
    """Divergence from the sums of the blocks."""
    logs, terms = sums
    filled = terms[:, 0] > 0
    if not filled.any():
        zeros = counts.get("zero_distance", 0)
        why = f": {zeros:,} pairs of equal states do not separate" if zeros else ""
        raise NoNeighborsError(
            f"{method}: none of {int(np.count_nonzero(states.usable))} states has a neighbour under {rule} outside "
            f"theiler={states.theiler}{why}; enlarge the neighbourhood, lower theiler, or record more"
        )
    dt, unit, step = clock
    with np.errstate(invalid="ignore", divide="ignore"):
        curve = logs.sum(axis=0) / terms.sum(axis=0)
        rows = np.exp(logs[filled] / terms[filled])
    first = edges[:-1][filled]
    last = int(edges[-1]) - 1 + states.horizon
    scale = np.full(len(rows), np.nan)
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
        "block_terms": terms[filled],
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
        scale=scale,
        n_references=n_references,
        settings=settings,
        warnings=warnings,
    )


def steps_per_sample(step: Ints | None) -> int | None:
    """Steps from one state to the next."""
    return int(step[1] - step[0]) if step is not None and len(step) > 1 else None


@dataclass(frozen=True, eq=False)
class Walk:
    """A prepared trajectory, with distances along pairs of states.

    Attributes
    ----------
    states : States
        From `trajtools.neighbors.states.prepare`.
    metric : str
        Requested metric.
    factor : float
        Factor of the distances of `states`; 1 except for normalised distances of graphs.
    directions : ndarray of float64, shape (T, d), or None
        Unit vectors along the motion, for distances across it.
    """

    states: States
    metric: str
    factor: float
    directions: Floats | None = None

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
        """Paths used for the growth: `whole`, from `paths`, or distances across the motion."""
        if self.directions is None:
            return whole
        steps = np.arange(self.states.horizon + 1)
        there = np.asarray(others)[:, None] + steps
        apart = self.states.points[there] - self.states.points[i + steps]
        return across_motion(apart, self.directions[there] + self.directions[i + steps])


def prepare_walk(
    x: Any, *, metric: MetricLike, nodes: int | None, theiler: int | None, horizon: int, across: bool = False
) -> Walk:
    """Prepare states for following pairs, block by block."""
    factor = 1.0
    kernel_metric = metric
    if metric == GRAPH_L1:
        x, factor = as_links(x, nodes)
        kernel_metric = "l1"
    else:
        check_nodes(nodes, metric)
    states = prepare(x, metric=kernel_metric, theiler=theiler, horizon=horizon)
    if states.horizon < 1:
        raise DataError("horizon=0: a block needs at least one step")
    contiguous = np.ascontiguousarray(states.points)
    if contiguous is not states.points:
        states = States(**{**vars(states), "points": contiguous})
    motion = None
    if across:
        check_motion(states)
        motion = directions(states.points)
    return Walk(states, GRAPH_L1 if metric == GRAPH_L1 else states.metric, factor, motion)


def block_starts(walk: Walk) -> Ints:
    """Starts of consecutive blocks; states that cannot be followed are skipped."""
    usable = np.flatnonzero(walk.states.usable)
    starts, at = [], 0
    while at < len(usable):
        starts.append(int(usable[at]))
        at = int(np.searchsorted(usable, starts[-1] + walk.states.horizon))
    return np.array(starts, dtype=np.int64)


def candidates(walk: Walk, rule: NearestK, starts: Ints) -> tuple[Ints, bool, Strategy]:
    """Nearest states of the first state of each block, whether states repeat, and the search."""
    states = walk.states
    strategy = choose(states, None)
    if strategy.name in ("tree", "sweep"):
        # Searching for all states costs less than comparing these few with all others.
        neighbors = nearest(states, rule, strategy)
        return neighbors.index[starts], neighbors.counts["zero_distance"] > 0, strategy
    from trajtools._kernels.divergence import nearest_of

    _, index, repeats = nearest_of(
        states.points, states.matrix, states.usable, starts, int(rule.k), states.theiler, states.code
    )
    return index, bool(repeats.any()), strategy


def growth_limit(walk: Walk, limit: float | None) -> tuple[float, float]:
    """Distance beyond which a pair is replaced, and the median distance between two states."""
    times = evenly(np.flatnonzero(walk.states.usable), _SPREAD_SAMPLE)
    apart = np.concatenate([walk.distances(int(i), times[at + 1 :]) for at, i in enumerate(times[:-1])])
    median = float(np.nanmedian(apart)) if np.isfinite(apart).any() else 0.0
    if limit is None and not median > 0:
        raise NoNeighborsError("half of the states are equal, so their spread gives no limit; give limit= (a distance)")
    if limit is not None and not limit > 0:
        raise DataError(f"limit must be a positive distance, got {limit!r}")
    return (LIMIT_SHARE * median if limit is None else float(limit)), median


def cosine(to_old: Any, to_new: Any, between: Any) -> Any:
    """Cosine of the angle between two separations from one state, by the law of cosines."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        gain = (to_old - between) / to_new
        return np.clip((gain * (1 + between / to_old) + to_new / to_old) / 2, -1.0, 1.0)


def mean_rate(rows: Floats, duration: float) -> float:
    """Wolf's exponent: total growth of the blocks that end at a positive distance, over their total time."""
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
    """Divergence of blocks, one unit per block."""
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
    curves, curve_group, _ = average_curves(rows, group, start, average)
    return Divergence(
        method=method,
        metric=walk.metric,
        average=average,
        time=np.arange(rows.shape[1], dtype=np.float64) * dt,
        time_unit=unit,
        log_distance=mean_curve(curves, curve_group),
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
            "across": walk.directions is not None,
            **settings,
        },
        warnings=warnings,
    )
