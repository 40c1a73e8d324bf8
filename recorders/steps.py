"""Which step a state is, and whether it is stored."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from recorders.policies import Policy
from trajtools.errors import RecordingError


class Steps:
    """Counts the updates of a training."""

    def __init__(self, every: Policy, now: int, passed: int, opening: Sequence[np.ndarray]) -> None:
        self.now = now
        self.fresh = True  # no state has come since opening
        self._every, self._passed, self._opening = every, passed, digest(opening)

    def wanted(self, step: int) -> bool:
        """Whether the state of this step is stored."""
        return step > self._passed and self._every(step)

    def is_opening(self, arrays: Sequence[np.ndarray]) -> bool:
        """Whether this state, the first since opening, is the one at opening, bit for bit."""
        fresh, self.fresh = self.fresh, False
        return fresh and self._opening == digest(arrays)

    def given(self, step: int) -> int:
        """A step that the user names."""
        self.fresh = False
        if operator.index(step) < self.now:
            raise RecordingError(f"step {step} comes after step {self.now}; steps rise. Record it as a run of its own")
        return operator.index(step)

    def of_block(self, blocks: Sequence[np.ndarray], k: int, step: int | Sequence[int] | None) -> list[int]:
        """The steps of k consecutive states."""
        if k == 0:
            return []
        if step is None:
            first = self.now if self.is_opening([block[0] for block in blocks]) else self.now + 1
            return list(range(first, first + k))
        each = (
            step if isinstance(step, Sequence | np.ndarray) else range(operator.index(step), operator.index(step) + k)
        )
        steps = [operator.index(one) for one in each]
        if len(steps) != k or any(after <= before for before, after in pairwise(steps)):
            raise RecordingError(f"a block of {k} states needs {k} rising steps, got {steps[:10]}")
        return [self.given(one) for one in steps]


def digest(arrays: Sequence[np.ndarray]) -> bytes:
    """16 bytes that tell states apart, bit for bit."""
    seen = hashlib.blake2b(digest_size=16)
    for array in arrays:
        seen.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return seen.digest()


def told(every: Policy) -> dict[str, Any]:
    """A policy, for the provenance of a run."""
    choose = getattr(every, "choose", None)
    return {type(every).__name__: asdict(every) if choose is None else getattr(choose, "__name__", repr(choose))}
