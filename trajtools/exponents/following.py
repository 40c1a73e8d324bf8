"""Pairs of neighbouring states, followed in time: radii, networks as states, curves and segments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, NoNeighborsError, UnknownNameError
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.neighbors.search import Strategy, evenly
from trajtools.neighbors.states import (
    LANES,
    States,
)
from trajtools.results.curves import AVERAGES
from trajtools.results.divergence import Divergence
from trajtools.trajectory import Trajectory
from trajtools.types import Floats, Ints

# The fourth neighbour: a larger ball costs e-folds (a 30th neighbour made exponents of maps 2 to 6 % too high).
_AUTO_QUERIES, _AUTO_NEIGHBOR, _SPREAD_STATES = 64, 4, 512


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


GRAPH_L1 = "graph-l1"


LENGTHS = ("radius", "radii", "limit", "distance_along")  # settings that are distances


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


def _factor(links: int, nodes: int | None) -> float:
    if nodes is None:
        raise DataError(
            f"metric 'graph-l1' divides by N(N-1), and {links} links do not tell N: give nodes=N, or adjacency "
            "matrices (T, N, N)"
        )
    if isinstance(nodes, bool) or not isinstance(nodes, (int, np.integer)) or nodes < 2:
        raise DataError(f"nodes={nodes!r}: a graph has a whole number of nodes, at least 2")
    pairs = int(nodes) * (int(nodes) - 1)
    return (2.0 if 2 * links == pairs else 1.0) / pairs


_BLOCKS = 128


_SHORTEST_BLOCK = 32


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


def steps_per_sample(step: Ints | None) -> int | None:
    """Steps from one state to the next."""
    return int(step[1] - step[0]) if step is not None and len(step) > 1 else None


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
    warnings: tuple[str, ...] = (),
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
