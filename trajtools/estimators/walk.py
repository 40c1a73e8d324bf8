"""A trajectory read once, state after state: how large it is, how far from its start, how long its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.distances.equal_times import ONE, pairs, read_rows
from trajtools.types import Bools, Floats, Ints

_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True, eq=False)
class Path:
    """What one reading gives, NaN where a state is not finite.

    Attributes
    ----------
    usable : ndarray of bool, shape (T,)
        Finite states.
    norm, steps, displacement : ndarray of float64, shape (T,)
        Distances to zero, to the state before (NaN for the first), and to the first finite state.
    layer_mean, layer_sd : ndarray of float64, shape (T, L)
        Of the weights of each layer.
    """

    usable: Bools
    norm: Floats
    steps: Floats
    displacement: Floats
    layer_mean: Floats
    layer_sd: Floats


def layers_of(states: Any) -> tuple[tuple[str, ...], list[slice]]:
    """Names of the parameters of a trajectory, and their entries; one, ``"all"``, where they are not known."""
    parameters = getattr(states, "parameters", ())
    if not parameters:
        return ("all",), [slice(0, states.shape[1])]
    return tuple(p.name for p in parameters), [slice(p.offset, p.offset + p.size) for p in parameters]


def walk(states: Any, metric: Any, spans: list[slice]) -> Path:
    """Read the states once, in blocks."""
    length, size = len(states), int(states.shape[1])
    usable = np.zeros(length, dtype=bool)
    norm, steps, displacement = (np.full(length, np.nan) for _ in range(3))
    mean, sd = np.full((length, len(spans)), np.nan), np.full((length, len(spans)), np.nan)
    origin, before = None, None
    rows = max(1, _BLOCK_BYTES // (8 * size))
    for start in range(0, length, rows):
        block = np.asarray(read_rows(states, start, min(start + rows, length)))
        here = slice(start, start + len(block))
        good = np.isfinite(block).all(axis=1)
        usable[here] = good
        if origin is None and good.any():
            origin = np.array(block[np.argmax(good)])[None]
        shown = block[:, None]
        norm[here] = np.where(good, pairs(metric, shown, np.zeros_like(shown), ONE, ONE)[:, 0], np.nan)
        if origin is not None:
            from_origin = np.broadcast_to(origin, block.shape)[:, None]
            displacement[here] = np.where(good, pairs(metric, shown, from_origin, ONE, ONE)[:, 0], np.nan)
        joined = block if before is None else np.concatenate([before, block])
        if len(joined) > 1:
            moved = pairs(metric, joined[1:, None], joined[:-1, None], ONE, ONE)[:, 0]
            steps[here.stop - len(moved) : here.stop] = moved
        whole = np.where(good[:, None], block, 0)
        for at, span in enumerate(spans):
            mean[here, at] = np.where(good, whole[:, span].mean(axis=1, dtype=np.float64), np.nan)
            sd[here, at] = np.where(good, whole[:, span].std(axis=1, dtype=np.float64), np.nan)
        before = np.array(block[-1:])
    follows = np.concatenate([[False], usable[1:] & usable[:-1]])
    return Path(usable, norm, np.where(follows, steps, np.nan), displacement, mean, sd)


def clock_of(states: Any) -> tuple[Ints, Floats, str]:
    """Steps, times and their unit."""
    if hasattr(states, "step"):
        return states.step, states.time, states.time_unit
    return np.arange(len(states)), np.arange(len(states), dtype=np.float64), "sample"
