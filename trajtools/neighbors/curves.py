"""From sums over blocks of reference states to a `Divergence`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from trajtools.errors import DataError, NoNeighborsError, UnknownNameError
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.neighbors.states import LANES, Floats, Ints, States
from trajtools.neighbors.strategy import Strategy
from trajtools.results import AVERAGES, Divergence
from trajtools.results.distances import Distances
from trajtools.trajectory import Trajectory

_BLOCKS = 128
_SHORTEST_BLOCK = 32


def sampling(x: Any, dt: float | None) -> tuple[float, str, Ints | None]:
    """Time between two samples, its unit, and the steps of the states.

    Parameters
    ----------
    x : array_like, Trajectory or Distances
        What was given to the estimator.
    dt : float or None, in the time unit
        Time between two samples; None: what the trajectory says, 1 for arrays.

    Returns
    -------
    dt : float
        In the time unit.
    unit : str
        That of the trajectory, ``"sample"`` for arrays; ``"time"`` where `dt` was given, in a unit of the caller's.
    step : ndarray of int64 or None
        Steps of a trajectory.

    Raises
    ------
    DataError
        If `dt` is no positive number, or the states of a trajectory are not evenly spaced in time.
    """
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
    """Steps from one state to the next.

    Parameters
    ----------
    step : ndarray of int64 or None
        Steps of evenly spaced states; None: unknown.

    Returns
    -------
    int or None
        None where it is unknown.
    """
    return int(step[1] - step[0]) if step is not None and len(step) > 1 else None


def check_average(average: str) -> int:
    """The average as the kernels know it.

    Parameters
    ----------
    average : str
        One of `trajtools.results.AVERAGES`.

    Returns
    -------
    int

    Raises
    ------
    UnknownNameError
        If it is none of them.
    """
    if average not in AVERAGES:
        raise UnknownNameError(f"average {average!r} is none of {', '.join(AVERAGES)}")
    return AVERAGES.index(average)


def block_edges(states: States) -> Ints:
    """Bounds of the blocks of reference states: equally long, and longer than a pair is followed.

    Parameters
    ----------
    states : States
        From `prepare`.

    Returns
    -------
    ndarray of int64, shape (B + 1,)
        Block b holds the references ``edges[b] <= i < edges[b + 1]``.
    """
    times = np.flatnonzero(states.usable)
    first, stop = int(times[0]), int(times[-1]) + 1
    shortest = max(_SHORTEST_BLOCK, states.theiler, states.horizon + 1)
    blocks = int(np.clip((stop - first) // shortest, 1, _BLOCKS))
    return first + (np.arange(blocks + 1) * (stop - first)) // blocks


def padded(horizon: int) -> int:
    """Number of steps that the kernels follow: horizon + 1, rounded up to whole lanes.

    Parameters
    ----------
    horizon : int, in samples
        Steps that are wanted.

    Returns
    -------
    int
    """
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
    """Turn the sums of the blocks into curves.

    Parameters
    ----------
    states : States
        From `prepare`.
    sums : (ndarray of float64, ndarray of int64), shapes (B, K + 1)
        Sums of logarithms and the number of terms, per block.
    edges : ndarray of int64, shape (B + 1,)
        Bounds of the blocks.
    method, average : str
        Names for the result.
    rule : NearestK or WithinRadius
        As asked.
    strategy : Strategy
        As chosen.
    clock : tuple
        From `sampling`.
    n_references : int
        Reference states that contributed.
    counts : dict of str to int
        What was left out.
    extra : dict
        More settings.
    warnings : tuple of str
        For the reader.

    Returns
    -------
    Divergence
        One unit per block that holds a pair; its distances are the exponentials of its mean logarithm.

    Raises
    ------
    NoNeighborsError
        If no block holds a pair.
    """
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
