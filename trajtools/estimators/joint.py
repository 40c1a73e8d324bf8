"""States of several trajectories of one network taken together, read by columns so that they need not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.distances.equal_times import as_states
from trajtools.errors import DataError, TooLargeError
from trajtools.types import Floats, Ints

MOST_STATES = 8192  # their products are 512 MiB
_BLOCK_BYTES = 128 * 2**20


@dataclass(frozen=True, eq=False)
class Joint:
    """Trajectories side by side.

    Attributes
    ----------
    members : tuple
        A Trajectory or array (T, P) each.
    names : tuple of str
        What they are called.
    reference : ndarray of int64, shape (M,)
        The member that each was copied from; -1: it was not.
    step : tuple of ndarray of int64
        Steps of each.
    time_unit : str
        Unit of the steps.
    """

    members: tuple[Any, ...]
    names: tuple[str, ...]
    reference: Ints
    step: tuple[Ints, ...]
    time_unit: str

    @property
    def size(self) -> int:
        """Number of weights in a state."""
        return int(self.members[0].shape[1])

    @property
    def starts(self) -> Ints:
        """First row of each member, and one past the last row of all."""
        return np.concatenate([[0], np.cumsum([len(each) for each in self.members])])

    def member_of_rows(self) -> Ints:
        """Member that each row belongs to."""
        return np.repeat(np.arange(len(self.members)), np.diff(self.starts))

    def columns(self) -> Iterator[tuple[slice, Floats]]:
        """All states in turn, some of their entries at a time, float64 (N, p)."""
        rows = int(self.starts[-1])
        width = max(1, _BLOCK_BYTES // (8 * max(rows, 1)))
        for first in range(0, self.size, width):
            span = slice(first, min(first + width, self.size))
            block = np.empty((rows, span.stop - span.start))
            for each, start in zip(self.members, self.starts[:-1], strict=True):
                part = each.read(0, None, span) if hasattr(each, "read") else each[:, span]
                block[start : start + len(each)] = part
            yield span, block


def join(x: Any) -> Joint:
    """Take together what belongs together."""
    if hasattr(x, "members") and hasattr(x, "trajectory"):
        found = [x.trajectory(m) for m in range(len(x.members))]
        names = tuple(member.name for member in x.members)
        reference = np.array([member.reference for member in x.members], dtype=np.int64)
        return _checked(found, names, reference, x.time_unit)
    if isinstance(x, (list, tuple)) and len(x) == 2 and isinstance(x[1], (list, tuple)) and _is_states(x[0]):
        if not x[1] or not all(_is_states(each) for each in x[1]):
            raise DataError("a reference came without trajectories of its copies; give (reference, [perturbed, ...])")
        names = ("reference", *(f"copy {i + 1}" for i in range(len(x[1]))))
        return _checked([x[0], *x[1]], names, np.array([-1] + [0] * len(x[1])))
    if isinstance(x, (list, tuple)) and x and all(_is_states(each) for each in x):
        return _checked(list(x), tuple(f"trajectory {i}" for i in range(len(x))), np.full(len(x), -1))
    return _checked([x], ("trajectory",), np.array([-1]))


def _is_states(x: Any) -> bool:
    return (hasattr(x, "read") and hasattr(x, "step")) or (isinstance(x, np.ndarray) and x.ndim in (1, 2))


def _checked(found: list[Any], names: tuple[str, ...], reference: Ints, time_unit: str | None = None) -> Joint:
    members = tuple(as_states(each, name) for each, name in zip(found, names, strict=True))
    sizes = {int(each.shape[1]) for each in members}
    if len(sizes) > 1 or 0 in sizes:
        raise DataError(f"the states have {sorted(sizes)} weights; only states of one architecture can be compared")
    total = sum(len(each) for each in members)
    if total > MOST_STATES:
        raise TooLargeError(
            f"{total} states; at most {MOST_STATES} are taken together. Thin them out with "
            f"trajectory.window(every={-(-total // MOST_STATES)}), or take fewer members"
        )
    step = tuple(
        np.asarray(each.step, dtype=np.int64) if hasattr(each, "step") else np.arange(len(each)) for each in members
    )
    unit = time_unit or str(getattr(members[0], "time_unit", "step"))
    return Joint(members, names, reference.astype(np.int64), step, unit)
