"""Metrics that compare states entry by entry. Their loops are in `trajtools._kernels`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from trajtools.distances.metric import Metric, PerPair, Sums, halves, relative_to_larger, root_means, shares, unchanged
from trajtools.errors import DataError
from trajtools.types import Floats
from trajtools.wiring import NodeSet, Parameter

# Rounding moves a weight by up to half a spacing u, uniformly: the difference of two rounded weights has the mean
# absolute value u / 3 and the mean square u^2 / 6.
_NORM: dict[str, Any] = {
    "kind": "metric",
    "symmetric": True,
    "invariant_to": ("a shift of both states", "one permutation of the entries of both"),
    "cost": "P",
}


_GRAPH_L1_PROPERTIES: dict[str, Any] = {
    "kind": "pseudo-metric",
    "symmetric": True,
    "invariant_to": ("weights that are no edges", "one relabelling of the nodes of both", "a shift of both states"),
    "cost": "P",
}


def _compiled(name: str) -> Callable[..., Any]:
    """Load the kernel on the first call, so that a metric by name does not import numba."""

    def pairs(a: Any, b: Any, left: Any, right: Any) -> Any:
        from trajtools._kernels import distances

        return getattr(distances, name)(a, b, left, right)

    pairs.__name__ = name
    return pairs


def _lengths(states: Any) -> Floats:
    """Euclidean norms (t, m) of states (t, m, P)."""
    from trajtools._kernels.distances import pairs_l2

    members = np.arange(states.shape[1])
    return pairs_l2(states, np.zeros_like(states[:, :1]), members, np.zeros_like(members))


def _relative(a: Any, b: Any, left: Any, right: Any) -> Floats:
    from trajtools._kernels.distances import pairs_l2

    distance = pairs_l2(a, b, left, right)
    larger = np.maximum(_lengths(a)[:, left], _lengths(b)[:, right])
    with np.errstate(invalid="ignore"):
        return np.divide(distance, larger, out=np.zeros_like(distance), where=larger != 0)


def _cosine(a: Any, b: Any, left: Any, right: Any) -> Floats:
    from trajtools._kernels.distances import pairs_l2

    return 0.5 * pairs_l2(_unit(a), _unit(b), left, right) ** 2


def _unit(states: Any) -> Floats:
    length = _lengths(states)[:, :, None]
    with np.errstate(invalid="ignore"):
        return np.divide(states, length, out=np.full(states.shape, np.nan), where=length != 0)


def _differing_signs(a: Any, b: Any, left: Any, right: Any) -> Floats:
    out = np.empty((a.shape[0], len(left)))
    for k, (i, j) in enumerate(zip(left, right, strict=True)):
        x, y = np.sign(a[:, i]), np.sign(b[:, j])
        out[:, k] = np.where(np.isnan(x + y).any(axis=1), np.nan, np.count_nonzero(x != y, axis=1))
    return out


@dataclass(frozen=True)
class _Edges:
    """Select the entries of a state that are edges."""

    stretches: tuple[slice, ...]

    def __call__(self, states: Any) -> Any:
        return np.concatenate([states[:, stretch] for stretch in self.stretches], axis=1)


def _bind_graph_l1(parameters: Sequence[Parameter], nodes: Sequence[NodeSet]) -> Metric:
    number = sum(each.size for each in nodes)
    stretches = tuple(slice(p.offset, p.offset + p.size) for p in parameters if p.source is not None)
    if number < 2 or not stretches:
        raise DataError(
            f"metric 'graph-l1' divides a sum over edges by N(N-1); this network has {number} nodes and "
            f"{len(stretches)} parameters that are edges. Name the connections when recording (wiring=), or use 'l1'"
        )
    pairs = number * (number - 1)
    return Metric(
        _GRAPH_L1.name,
        _GRAPH_L1.description,
        _compiled("pairs_l1"),
        finish=lambda distance, size: distance / pairs,
        features=_Edges(stretches),
        sums=Sums("l1", PerPair(pairs), entries=stretches),
        **_GRAPH_L1_PROPERTIES,
    )


def _unbound(*states: Any) -> Any:
    raise DataError("this metric needs the wiring of a network; see bind_metric")


_NORMS = (
    Metric(
        "l1",
        "sum of the absolute differences of all weights",
        _compiled("pairs_l1"),
        np.add,
        None,
        lambda sums, size: sums[0] / 3,
        sums=Sums("l1", unchanged),
        **_NORM,
    ),
    Metric(
        "l2",
        "root of the sum of the squared differences",
        _compiled("pairs_l2"),
        np.hypot,
        None,
        lambda sums, size: sums[1] / sqrt(6),
        sums=Sums("l2", unchanged),
        **_NORM,
    ),
    Metric(
        "linf",
        "largest absolute difference",
        _compiled("pairs_linf"),
        np.maximum,
        None,
        lambda sums, size: sums[2],
        sums=Sums("linf", unchanged),
        **_NORM,
    ),
    Metric(
        "rms",
        "root of the mean of the squared differences",
        _compiled("pairs_l2"),
        np.hypot,
        lambda distance, size: distance / sqrt(size),
        lambda sums, size: sums[1] / sqrt(6 * size),
        sums=Sums("l2", root_means),
        **_NORM,
    ),
)


_GRAPH_L1 = Metric(
    "graph-l1",
    "sum of the absolute differences of all edges over N(N-1), N nodes",
    _unbound,
    bind=_bind_graph_l1,
    **_GRAPH_L1_PROPERTIES,
)


ENTRYWISE = (
    *_NORMS,
    Metric(
        "relative",
        "Euclidean distance divided by the larger of the two norms; 0 for two zero states",
        _relative,
        kind="metric",
        symmetric=True,
        invariant_to=("one factor on both states", "one rotation of both"),
        cost="P",
        sums=Sums("l2", relative_to_larger, norms=True),
    ),
    Metric(
        "cosine",
        "1 - cos of the angle between the states, accurate for small angles; NaN for a zero state",
        _cosine,
        kind="divergence",
        symmetric=True,
        invariant_to=("a positive factor on either state", "one rotation of both"),
        cost="P",
        sums=Sums("l2", halves, norms=True, unit=True),
    ),
    Metric(
        "sign",
        "fraction of the weights whose signs (-1, 0, 1) differ; jumps where a weight crosses zero",
        _differing_signs,
        np.add,
        lambda distance, size: distance / size,
        kind="pseudo-metric",
        symmetric=True,
        invariant_to=("a positive factor on any weight of either state",),
        cost="P",
        sums=Sums("differing", shares, signs=True),
    ),
    _GRAPH_L1,
)
