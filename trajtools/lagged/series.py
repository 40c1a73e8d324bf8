"""States at equal spacing, read by columns: correlations need one weight at all times, not all weights at one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.equal_times import as_states, read_rows
from trajtools.distances.metric import METRICS, block_floor
from trajtools.distances.pairwise import Distances
from trajtools.distances.tiles import stored_format
from trajtools.errors import DataError, SelectionError
from trajtools.trajectory import Trajectory
from trajtools.types import Bools, Floats

Span = tuple[int, int]

BLOCK_BYTES = 64 * 2**20
FEWEST = 4


@dataclass(frozen=True, eq=False)
class Series:
    """A trajectory (or distances) whose states are equally spaced in time.

    Attributes
    ----------
    states : Trajectory, ndarray (T, P) or Distances
        The states, or their distances.
    rows : slice
        Those in the window.
    fine : ndarray of bool, shape (T,)
        Which of them are finite.
    spacing : float
        Time between two states.
    time_unit : str
        Its unit.
    """

    states: Any
    rows: slice
    fine: Bools
    spacing: float
    time_unit: str

    def __len__(self) -> int:
        return len(self.fine)

    @property
    def width(self) -> int:
        """Number of entries of a state."""
        return int(self.states.shape[1])

    def variance_of_rounding(self) -> float:
        """Variance, summed over the entries, that rounding of the stored states alone makes; 0 where it is unknown."""
        states, first = self.states, self.rows.start + int(np.argmax(self.fine))
        if isinstance(states, Distances):
            floor = float(np.asarray(states.floor)[first])
        else:
            state = read_rows(states, first, first + 1)
            dtype = stored_format(states) if isinstance(states, Trajectory) else str(state.dtype)
            floor = float(block_floor(state[:, None], METRICS["l2"], dtype, state.shape[1])[0, 0])
        # The floor is the root mean square difference of two roundings.
        return floor**2 / 2 if np.isfinite(floor) else 0.0

    def columns(self, spans: list[Span]) -> Iterator[Floats]:
        """Yield blocks (T, p) of the columns of some spans, as float64 and less the first finite state."""
        first = int(np.argmax(self.fine))
        wide = max(1, BLOCK_BYTES // (8 * max(len(self), 1)))
        for begin, end in spans:
            for start in range(begin, end, wide):
                block = _columns(self.states, self.rows, start, min(start + wide, end)).astype(np.float64)
                # Before anything is averaged: weights near 1 that move by 1e-8 keep all digits of their motion.
                block = np.where(self.fine[:, None], block, 0.0)
                block -= block[first]
                block[~self.fine] = 0.0
                yield block


def series_of(x: Any, window: tuple[int, int] | None) -> Series:
    """Check what a caller gave and cut it to the window."""
    states = x if isinstance(x, Distances) else as_states(x, "x")
    if isinstance(states, Distances) and not states.square:
        raise DataError(f"distances of one trajectory are needed, square; these are of two, {states.shape}")
    step = np.asarray(getattr(states, "step", np.arange(len(states))), dtype=np.int64)
    rows = slice(0, len(step))
    if window is not None:
        inside = np.flatnonzero((step >= window[0]) & (step < window[1]))
        if not len(inside):
            span = f"the steps run from {step[0]} to {step[-1]}" if len(step) else "there is no state at all"
            raise SelectionError(f"no state lies in the window {window}; {span}")
        rows = slice(int(inside[0]), int(inside[-1]) + 1)
    step = step[rows]
    spacing = np.unique(np.diff(step))
    if len(spacing) > 1:
        raise DataError(
            f"the states are {spacing[0]} to {spacing[-1]} steps apart; a correlation at a lag needs equal spacing: "
            "select a window that was recorded evenly, or every k-th state"
        )
    fine = _fine(states, rows)
    if fine.sum() < FEWEST:
        raise DataError(f"{int(fine.sum())} finite states of {len(fine)}; a correlation needs at least {FEWEST}")
    between = float(spacing[0]) if len(spacing) else 1.0
    return Series(
        states, rows, fine, between * float(getattr(states, "dt", 1.0)), str(getattr(states, "time_unit", "step"))
    )


def _fine(states: Any, rows: slice) -> Bools:
    if isinstance(states, Distances):
        return ~np.asarray(states.excluded, dtype=bool)[rows]
    tall = max(1, BLOCK_BYTES // (8 * max(int(states.shape[1]), 1)))
    found = [
        np.isfinite(read_rows(states, start, min(start + tall, rows.stop))).all(axis=1)
        for start in range(rows.start, rows.stop, tall)
    ]
    return np.concatenate(found) if found else np.zeros(0, dtype=bool)


def _columns(states: Any, rows: slice, start: int, stop: int) -> NDArray[Any]:
    """Some columns of all rows, without reading the others: a file keeps blocks of columns together."""
    if isinstance(states, Trajectory):
        return states.read(rows.start, rows.stop, slice(start, stop))
    return np.asarray(read_rows(states, rows.start, rows.stop))[:, start:stop]
