"""What a metric is, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.distances.sums import Sums
from trajtools.errors import DataError
from trajtools.parameters import NodeSet, Parameter

RowMetric = Callable[[Any, Any], Any]

KINDS = ("metric", "pseudo-metric", "divergence", "unstated")


@dataclass(frozen=True)
class Metric:
    """A distance between two states, and what it says of itself.

    Attributes
    ----------
    name : str
        Its name in `METRICS`.
    description : str
        One line for people.
    pairs : callable
        ``pairs(a, b, left, right)`` with states a (t, m, p) and b (t, n, p) gives the distances (t, k) of
        ``a[:, left[k]]`` and ``b[:, right[k]]``, over the p entries it is shown. With `features`, a and b hold those.
    merge : callable or None
        Puts the distances over two disjoint sets of entries together; None: the metric needs all entries at once.
    finish : callable or None
        ``finish(distance, P)``: the last step, once all P entries are merged.
    rounding : callable or None
        ``rounding(sums, P)``: the distance that rounding alone produces, from the sum, the root of the sum of squares
        and the maximum of the spacings of the weights; None: unknown.
    kind : str
        ``"metric"``: zero for equal states only, symmetric, obeys the triangle inequality; ``"pseudo-metric"``: may be
        zero for states that differ; ``"divergence"``: zero on itself, the triangle inequality is not claimed;
        ``"unstated"``: nothing is claimed (a function that was given).
    symmetric : bool or None
        Whether d(a, b) = d(b, a); None: not said, then no one may count on it.
    invariant_to : tuple of str
        What may be done to a state (or to both) without any change of the distance.
    cost : str
        Operations for one pair of states of P weights, N nodes.
    features : callable or None
        ``features(states)`` with states (n, P) gives float64 (n, F): what is computed once for each state. `pairs` then
        compares features, and `merge` must be None.
    bind : callable or None
        ``bind(parameters, nodes)`` gives the metric for networks with this table of parameters and these node sets.
        Such a metric needs the wiring; its own `pairs` is never called. See `bind_metric`.
    following : callable or None
        ``following()`` gives a `pairs` that begins each search where its last call ended, for one caller that visits
        the states of the same pairs in the order of time. See `in_time`.
    sums : Sums or None
        How the distances of all pairs follow from sums over the weights, where they do: what makes `pairwise` fast.
    """

    name: str
    description: str
    pairs: Callable[..., Any]
    merge: Callable[[Any, Any], Any] | None = None
    finish: Callable[[Any, int], Any] | None = None
    rounding: Callable[[Any, int], Any] | None = None
    kind: str = "unstated"
    symmetric: bool | None = None
    invariant_to: tuple[str, ...] = ()
    cost: str = ""
    features: Callable[[Any], Any] | None = None
    bind: Callable[[Sequence[Parameter], Sequence[NodeSet]], Metric] | None = None
    following: Callable[[], Callable[..., Any]] | None = None
    sums: Sums | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"metric {self.name!r} is of kind {self.kind!r}; there are {', '.join(KINDS)}")
        if self.features is not None and self.merge is not None:
            raise DataError(f"metric {self.name!r} has features, which need whole states, and merges parts of states")

    @property
    def obeys_triangle(self) -> bool:
        """Whether the triangle inequality is claimed."""
        return self.kind in ("metric", "pseudo-metric")

    def described(self, states: Any) -> Any:
        """Return what `pairs` compares of a block (t, m, P): the features of its states (t, m, F), or the block."""
        if self.features is None:
            return states
        count, members, size = states.shape
        found = np.asarray(self.features(states.reshape(count * members, size)), dtype=np.float64)
        return np.ascontiguousarray(found.reshape(count, members, -1))


MetricLike = str | RowMetric | Metric
