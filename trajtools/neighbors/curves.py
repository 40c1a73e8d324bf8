"""From sums over blocks of reference states to a `Divergence`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, NoNeighborsError, UnknownNameError
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.neighbors.search import Strategy
from trajtools.neighbors.states import LANES, States
from trajtools.results.curves import AVERAGES
from trajtools.results.divergence import Divergence
from trajtools.trajectory import Trajectory
from trajtools.types import Floats, Ints

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
