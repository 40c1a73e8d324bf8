"""How the distances of all pairs of states follow from sums over the weights, which the tiles of a kernel add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.types import DIFFERING, L1, L2, LINF, Floats

OPERATIONS = {"l1": L1, "l2": L2, "linf": LINF, "differing": DIFFERING}
"""Sum of the absolute differences, root of the sum of their squares, the largest, the number of those not zero."""


@dataclass(frozen=True)
class Sums:
    """A distance that follows from one sum over the weights.

    Attributes
    ----------
    operation : str
        One of `OPERATIONS`.
    finish : callable
        ``finish(sums, size, left, right)`` with sums (n, m), the number P of weights and the Euclidean norms (n,) and
        (m,) of the states (None unless `norms`) gives the distances (n, m).
    norms : bool
        Whether `finish` needs the norms.
    unit : bool
        Whether the states are divided by their norms first.
    signs : bool
        Whether the signs of the weights are compared instead of the weights.
    entries : tuple of slice or None
        The entries that count; None: all.
    """

    operation: str
    finish: Callable[[Floats, int, Any, Any], Floats]
    norms: bool = False
    unit: bool = False
    signs: bool = False
    entries: tuple[slice, ...] | None = None


def as_they_are(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """The distances are there already."""
    return sums


def root_means(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """Euclidean distances per weight."""
    return sums / np.sqrt(size)


def shares(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """The part of the weights that was counted."""
    return sums / size


def halves(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """Half the squared distance of two unit vectors: 1 - cos."""
    found = sums * sums / 2
    found[left == 0] = np.nan
    found[:, right == 0] = np.nan
    return found


def of_the_larger(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """Euclidean distances as parts of the larger norm; two states that are zero do not differ."""
    larger = np.maximum(left[:, None], right[None, :])
    with np.errstate(invalid="ignore"):  # inf of a state that is excluded
        return np.divide(sums, larger, out=np.zeros_like(sums), where=larger > 0)


@dataclass(frozen=True)
class PerPair:
    """Sums over edges, divided by a number of pairs of nodes."""

    number: float

    def __call__(self, sums: Floats, size: int, left: Any, right: Any) -> Floats:
        """Divide."""
        return sums / self.number
