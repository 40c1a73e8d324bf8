"""The part of a run that is to be written: some of its states, of one member, some of its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, SelectionError
from trajtools.store import Run, StoredStates
from trajtools.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class Part:
    """Some states of a run.

    Attributes
    ----------
    run : Run
        Of an open file.
    rows : slice
        Which states, by index.
    single : bool
        One state was asked for, so that no array has an axis of states.
    member : int or None
        Whose weights; None: nobody chose, which is the first.
    select : tuple of str
        Globs of parameter names; empty for all.
    """

    run: Run
    rows: slice
    single: bool = False
    member: int | None = None
    select: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.member is not None and not 0 <= self.member < self.run.n_members:
            raise SelectionError(
                f"run {self.run.name!r} has {self.run.n_members} members (from 0): there is no member {self.member}"
            )

    @property
    def step(self) -> NDArray[np.int64]:
        """Steps of the states, (T,)."""
        return self.run.step[self.rows]

    def weights(self) -> Trajectory:
        """Return the weights."""
        return self._cut(self.run.trajectory(self.member or 0))

    def weights_of(self, member: int) -> Trajectory:
        """Return the weights of another member."""
        return self._cut(self.run.trajectory(member))

    def buffers(self) -> Trajectory | None:
        """Return what was recorded of the optimiser."""
        if self.run.optimizer is None or self.select:
            return None
        source = StoredStates(self.run.path, self.run.name, self.member or 0, "optimizer", n_states=self.run.n_states)
        return Trajectory(source, step=self.run.step, parameters=self.run.optimizer_parameters)[self.rows]

    def metric(self, name: str) -> NDArray[np.float64]:
        """Return a metric."""
        values = self.run.metrics[name][self.rows]
        return values[:, self.member] if values.ndim > 1 and self.member is not None else values

    def _cut(self, states: Trajectory) -> Trajectory:
        chosen = states[self.rows]
        return chosen.select(*self.select) if self.select else chosen


def rows_of(
    run: Run,
    *,
    window: tuple[int, int] | None = None,
    every: int = 1,
    state: int | None = None,
    step: int | None = None,
) -> slice:
    """Find the states that were asked for."""
    steps, count = run.step, run.n_states
    if not count:
        raise DataError(f"run {run.name!r} holds no state: nothing was recorded into it")
    if state is not None:
        if not -count <= state < count:
            raise SelectionError(f"run {run.name!r} has {count} states (0 to {count - 1}): there is no state {state}")
        return slice(state % count, state % count + 1, 1)
    if step is not None:
        at = int(np.searchsorted(steps, step))
        if at == count or steps[at] != step:
            near = " and ".join(str(one) for one in steps[max(0, at - 1) : at + 1])
            raise SelectionError(f"run {run.name!r} has no state of step {step}; the nearest: {near}")
        return slice(at, at + 1, 1)
    first, last = (0, count) if window is None else (int(np.searchsorted(steps, edge)) for edge in window)
    if first >= last:
        raise SelectionError(f"no state of run {run.name!r} in steps {window}; it has steps {steps[0]} to {steps[-1]}")
    return slice(first, last, every)


def original(values: Any, dtype: str) -> Any:
    """Give numbers in the dtype of the training; the file holds mixed ones in a wider one, without loss."""
    return values.astype(dtype) if dtype in ("float16", "float32", "float64") else values
