"""Metrics that compare what is computed of every network: its spectrum, its strengths, a matrix between its nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from trajtools.distances.metric import Metric
from trajtools.distances.skeleton import Skeleton
from trajtools.parameters import NodeSet, Parameter
from trajtools.types import Floats, Ints

CHUNK_ENTRIES = 2**22
"""Features are compared so many at a time: 32 MB."""


class Features(Protocol):
    """What is computed of one finite state."""

    width: int
    """How many numbers it is."""

    def __call__(self, state: Floats) -> Floats:
        """Return the features (width,) of a state (P,)."""


@dataclass(frozen=True)
class FeatureTable:
    """Features of many states.

    Attributes
    ----------
    features : Features
        What to compute of each.
    """

    features: Features

    def __call__(self, states: Any) -> Floats:
        """Return the features (n, width) of states (n, P); NaN where a state, or what it leads to, is not finite."""
        out = np.full((len(states), self.features.width), np.nan)
        with np.errstate(over="ignore", invalid="ignore"):
            for row, state in enumerate(states):
                if np.isfinite(state).all():
                    # LAPACK refuses a matrix whose sums of weights left the range of float64.
                    with suppress(np.linalg.LinAlgError):
                        out[row] = self.features(np.asarray(state, dtype=np.float64))
        return out


@dataclass(frozen=True)
class RowPairs:
    """Distances of features by a function of rows (n, F) and (n, F) that gives (n,)."""

    compare: Callable[[Floats, Floats], Floats]

    def __call__(self, a: Any, b: Any, left: Ints, right: Ints) -> Floats:
        """Return the distances (t, k) of the features ``a[:, left[k]]`` and ``b[:, right[k]]``."""
        out = np.empty((a.shape[0], len(left)))
        height = max(1, CHUNK_ENTRIES // max(1, a.shape[2]))
        for t in range(a.shape[0]):
            for start in range(0, len(left), height):
                chosen = slice(start, start + height)
                out[t, chosen] = self.compare(a[t, left[chosen]], b[t, right[chosen]])
        return out


@dataclass(frozen=True)
class WidePairs:
    """Distances of states by features that are too many to be kept: at most those of two states are held."""

    table: FeatureTable
    compare: Callable[[Floats, Floats], float]

    def __call__(self, a: Any, b: Any, left: Ints, right: Ints) -> Floats:
        """Return the distances (t, k) of the states ``a[:, left[k]]`` and ``b[:, right[k]]``."""
        out = np.empty((a.shape[0], len(left)))
        # A reference with many twins is computed once.
        swapped = len(np.unique(right)) < len(np.unique(left))
        (one, kept), (two, other) = ((b, right), (a, left)) if swapped else ((a, left), (b, right))
        order = np.argsort(kept, kind="stable")
        for t in range(a.shape[0]):
            last, first = -1, np.empty(0)
            for k in order:
                if kept[k] != last:
                    last, first = int(kept[k]), self.table(one[t, kept[k]][None])[0]
                second = self.table(two[t, other[k]][None])[0]
                ends = (second, first) if swapped else (first, second)
                out[t, k] = self.compare(*ends) if np.isfinite(first[0] + second[0]) else np.nan
        return out


@dataclass(frozen=True)
class Binding:
    """Makes a metric on features for one network.

    Attributes
    ----------
    metric : Metric
        What is said of it, and how features are compared.
    make : callable
        Skeleton to Features.
    wide : callable or None
        Compares the features of two states, where they are too many to be kept; None: `metric.pairs` compares.
    """

    metric: Metric
    make: Callable[[Skeleton], Features]
    wide: Callable[[Floats, Floats], float] | None = None

    def __call__(self, parameters: Sequence[Parameter], nodes: Sequence[NodeSet]) -> Metric:
        """Return the metric for networks with these tables."""
        table = FeatureTable(self.make(Skeleton(parameters, nodes)))
        if self.wide is not None:
            return replace(self.metric, pairs=WidePairs(table, self.wide), bind=None)
        return replace(self.metric, features=table, bind=None)


def on_features(
    metric: Metric, make: Callable[[Skeleton], Features], wide: Callable[[Floats, Floats], float] | None = None
) -> Metric:
    """Give a metric the features that it compares, computed of a network."""
    return replace(metric, bind=Binding(metric, make, wide))


@dataclass(frozen=True)
class Compiled:
    """A compiled distance by its name in `trajtools._kernels.distances`, loaded when it is first called."""

    name: str

    def __call__(self, a: Any, b: Any, left: Ints, right: Ints) -> Floats:
        """Return the distances (t, k) of ``a[:, left[k]]`` and ``b[:, right[k]]``."""
        from trajtools._kernels import distances

        found: Floats = getattr(distances, self.name)(a, b, np.asarray(left), np.asarray(right))
        return found


EUCLIDEAN, ABSOLUTE = Compiled("pairs_l2"), Compiled("pairs_l1")
