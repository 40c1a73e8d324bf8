"""At which steps a state is stored: every k-th, log-spaced, listed, or as a function of the step says."""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from trajtools.errors import RecordingError


@dataclass(frozen=True)
class Every:
    """Steps 0, k, 2k, ...

    Attributes
    ----------
    k : int
        Distance between stored steps, at least 1.
    """

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise RecordingError(f"every={self.k}: states are stored every k-th step, k must be 1 or more")

    def __call__(self, step: int) -> bool:
        """Say whether the state of a step is stored."""
        return step % self.k == 0

    def count(self, last: int | None) -> int | None:
        """Count the stored steps of a training."""
        return None if last is None else last // self.k + 1


@dataclass(frozen=True)
class LogSpaced:
    """Step 0, then about `per_decade` steps per factor of ten, rounded to integers, each once.

    The steps are ``round(10 ** (j / per_decade))`` for j = 0, 1, 2, ...

    Attributes
    ----------
    per_decade : int
        Stored steps per factor of ten, at least 1. Small steps coincide after rounding, so there are fewer below 10.
    """

    per_decade: int = 10

    def __post_init__(self) -> None:
        if self.per_decade < 1:
            raise RecordingError(f"LogSpaced({self.per_decade}): steps per decade must be 1 or more")

    def _at(self, j: int) -> int:
        return round(10 ** (j / self.per_decade))

    def __call__(self, step: int) -> bool:
        """Say whether the state of a step is stored."""
        if step == 0:
            return True
        # The index of `step` on the grid, by integers only near the answer: exact for every step below 10 ** 15.
        j = bisect_right(range(16 * self.per_decade), step, key=self._at)
        return j > 0 and self._at(j - 1) == step

    def count(self, last: int | None) -> int | None:
        """Count the stored steps of a training.

        Parameters
        ----------
        last : int or None
            Last step of the training; None where it has no known end.

        Returns
        -------
        int or None
            Number of stored steps in 0 .. `last`; None where there is no end.
        """
        if last is None:
            return None
        steps = {self._at(j) for j in range(bisect_right(range(16 * self.per_decade), last, key=self._at))}
        return 1 + len(steps)


@dataclass(frozen=True, init=False)
class AtSteps:
    """The listed steps, and step 0, which every recorder stores when it opens.

    Attributes
    ----------
    steps : tuple of int
        Sorted, each once.
    """

    steps: tuple[int, ...]

    def __init__(self, steps: Iterable[int]) -> None:
        found = sorted({operator.index(step) for step in steps})
        if found and found[0] < 0:
            raise RecordingError(f"AtSteps: step {found[0]} is negative; steps count optimiser updates from 0")
        object.__setattr__(self, "steps", tuple(found))
        object.__setattr__(self, "_set", frozenset(found))

    def __call__(self, step: int) -> bool:
        """Say whether the state of a step is stored."""
        return step == 0 or step in self._set  # type: ignore[attr-defined]

    def count(self, last: int | None) -> int | None:
        """Count the stored steps of a training.

        Parameters
        ----------
        last : int or None
            Last step of the training; None where it has no known end.

        Returns
        -------
        int
            Number of stored steps in 0 .. `last`, or of all that are listed.
        """
        return len({0, *(s for s in self.steps if last is None or s <= last)})


@dataclass(frozen=True)
class Chosen:
    """The steps that a function of the step number chooses.

    Attributes
    ----------
    choose : callable
        ``choose(step) -> bool``; it must depend on the step alone, because it may be asked more than once.
    """

    choose: Callable[[int], bool]

    def __call__(self, step: int) -> bool:
        """Say whether the state of a step is stored."""
        return bool(self.choose(step))

    def count(self, last: int | None) -> int | None:
        """Count the stored steps of a training."""
        return None


Policy = Every | LogSpaced | AtSteps | Chosen


def policy(every: Any) -> Policy:
    """The policy that the argument `every` of a recorder means."""
    if isinstance(every, Every | LogSpaced | AtSteps | Chosen):
        return every
    if isinstance(every, bool) or not (hasattr(every, "__index__") or callable(every)):
        raise RecordingError(
            f"every={every!r} is a {type(every).__name__}; give a whole number of steps, LogSpaced(per_decade), "
            "AtSteps([...]) or a function step -> bool"
        )
    return Every(operator.index(every)) if hasattr(every, "__index__") else Chosen(every)
