"""Networks as states: their links as rows, and the normalised distance between two graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from trajtools.errors import DataError
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.results.divergence import Divergence
from trajtools.trajectory import Trajectory

GRAPH_L1 = "graph-l1"
LENGTHS = ("radius", "radii", "limit", "distance_along")  # settings that are distances


def as_links(x: Any, nodes: int | None) -> tuple[Any, float]:
    r"""Rows of links, and what their L1 distance is multiplied with."""
    if isinstance(x, Trajectory):
        if nodes is None and x.nodes:
            # A table of parameters lists every link once and with its direction.
            return x, _factor(0, sum(int(each.size) for each in x.nodes))
        return x, _factor(int(x.shape[1]), nodes)
    array = np.asarray(x)
    if array.ndim == 3:
        size = array.shape[1]
        if size != array.shape[2] or nodes not in (None, size):
            raise DataError(f"adjacency matrices are (T, N, N); these have shape {array.shape}, nodes={nodes}")
        return array[:, ~np.eye(size, dtype=bool)], _factor(size * (size - 1), size)
    if array.ndim != 2:
        raise DataError(
            f"metric 'graph-l1' compares adjacency matrices (T, N, N) or rows of links (T, E), not shape {array.shape}"
        )
    return array, _factor(int(array.shape[1]), nodes)


def check_nodes(nodes: int | None, metric: Any) -> None:
    """Refuse a number of nodes where the metric has no use for it."""
    if nodes is not None:
        raise DataError(f"nodes={nodes!r} belongs to metric 'graph-l1', not to {metric!r}; leave it out")


def on_graphs(
    estimate: Callable[..., Divergence],
    x: Any,
    *,
    nodes: int | None,
    neighbors: WithinRadius | NearestK | None = None,
    **options: Any,
) -> Divergence:
    """Run an estimator in L1 on the links of graphs, and give its curves in the normalised distance."""
    links, factor = as_links(x, nodes)
    rule = neighbors
    if isinstance(rule, WithinRadius) and not (rule.relative or isinstance(rule.radius, str)):
        rule = replace(rule, radius=(np.asarray(rule.radius, dtype=np.float64) / factor).tolist())
    plain = estimate(links, metric="l1", neighbors=rule, **options)
    found = normalised(plain, factor)
    if neighbors is not None:
        rule_as_asked = {"rule": type(neighbors).__name__, **vars(neighbors)}
        found = replace(found, settings=found.settings | {"neighbors": rule_as_asked})
    return found


def normalised(plain: Divergence, factor: float) -> Divergence:
    """Turn a divergence in L1 of links into one in the normalised distance of graphs."""
    settings = plain.settings | {"metric": GRAPH_L1, "factor": factor}
    settings |= {name: settings[name] * factor for name in LENGTHS if name in settings}
    if "curves" in settings:
        settings["curves"] = settings["curves"] + np.log(factor)
    return replace(
        plain,
        metric=GRAPH_L1,
        log_distance=plain.log_distance + np.log(factor),
        distances=plain.distances * factor,
        settings=settings,
    )


def _factor(links: int, nodes: int | None) -> float:
    if nodes is None:
        raise DataError(
            f"metric 'graph-l1' divides by N(N-1), and {links} links do not tell N: give nodes=N, or adjacency "
            "matrices (T, N, N)"
        )
    if isinstance(nodes, bool) or not isinstance(nodes, (int, np.integer)) or nodes < 2:
        raise DataError(f"nodes={nodes!r}: a graph has a whole number of nodes, at least 2")
    pairs = int(nodes) * (int(nodes) - 1)
    return (2.0 if 2 * links == pairs else 1.0) / pairs
