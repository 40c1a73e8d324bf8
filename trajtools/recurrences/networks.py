"""Recurrence networks: the plot as an adjacency matrix (Donner et al. 2010)."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.errors import DataError, TooLargeError
from trajtools.recurrences.lines import rows_at_a_time
from trajtools.recurrences.plot import unpack_rows
from trajtools.results.recurrence import Recurrence
from trajtools.results.recurrence_views import RecurrenceNetwork

_LARGEST = 2 * 2**30
_SIMPLEX = float(np.log(3 / 4))


def adjacency_bits(result: Recurrence, start: int, stop: int) -> Any:
    """Rows of the adjacency matrix as bits: recurrences of finite states outside the Theiler window, no loops."""
    from trajtools.recurrences.plot import pack_rows

    rows, columns = result.plot_source.finite
    flags = unpack_rows(result.plot_source.bits(start, stop), len(columns))
    i, j = np.arange(start, stop)[:, None], np.arange(len(columns))
    flags &= rows[start:stop, None] & columns & (np.abs(i - j) >= max(result.theiler, 1))
    return pack_rows(flags)


def to_networkx(result: Recurrence, max_edges: int) -> Any:
    """The network as a graph; see `Recurrence.network`."""
    import networkx as nx

    _refuse_cross(result)
    directed = not result.settings["symmetric"]
    recurrences, _ = result.lines.outside(max(result.theiler, 1))
    edges = recurrences if directed else recurrences // 2
    if edges > max_edges:
        raise TooLargeError(
            f"the recurrence network has {edges} edges, more than max_edges={max_edges}; raise it, take a lower "
            "threshold, or ask for network_measures(), which builds no graph"
        )
    finite = result.plot_source.finite[0]
    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_nodes_from(np.flatnonzero(finite).tolist())
    for start in range(0, len(finite), rows_at_a_time(len(finite))):
        stop = min(start + rows_at_a_time(len(finite)), len(finite))
        i, j = np.nonzero(unpack_rows(adjacency_bits(result, start, stop), len(finite)))
        i += start
        kept = slice(None) if directed else i < j
        graph.add_edges_from(zip(i[kept].tolist(), j[kept].tolist(), strict=True))
    return graph


def quantify_network(result: Recurrence) -> RecurrenceNetwork:
    """Measures of the network, from the plot as bits; see `Recurrence.network_measures`."""
    from trajtools._kernels.recurrence_rows import shared_neighbors

    _refuse_cross(result)
    if not result.settings["symmetric"]:
        raise DataError(
            "the measures are those of undirected networks; with a fixed number of neighbours the recurrence network "
            "is directed: take another threshold, or network()"
        )
    finite = result.plot_source.finite[0]
    length, words = len(finite), -(-len(finite) // 64)
    if 8 * length * words > _LARGEST:
        raise TooLargeError(
            f"the plot of {length} states takes {8 * length * words / 2**30:.1f} GiB as bits, more than "
            f"{_LARGEST / 2**30:.0f}; thin the states out or take a window of them"
        )
    bits = np.empty((length, words), dtype=np.uint64)
    for start in range(0, length, rows_at_a_time(length)):
        stop = min(start + rows_at_a_time(length), length)
        bits[start:stop] = adjacency_bits(result, start, stop)
    closed, degree = shared_neighbors(bits)
    pairs = degree * (degree - 1) // 2
    n_nodes = int(np.count_nonzero(finite))
    n_edges = int(degree.sum()) // 2
    with np.errstate(invalid="ignore", divide="ignore"):
        clustering = closed / pairs
        transitivity = float(np.float64(closed.sum()) / pairs.sum())
        dimension = float(np.log(transitivity) / _SIMPLEX)
    return RecurrenceNetwork(
        n_nodes=n_nodes,
        n_edges=n_edges,
        density=2 * n_edges / (n_nodes * (n_nodes - 1)),
        transitivity=transitivity,
        average_clustering=float(np.where(pairs > 0, closed / np.maximum(pairs, 1), 0.0)[finite].mean()),
        transitivity_dimension=dimension,
        degree=degree,
        clustering=clustering,
        settings={"threshold": result.threshold, "theiler": max(result.theiler, 1), "metric": result.metric},
    )


def _refuse_cross(result: Recurrence) -> None:
    if result.kind == "cross" or result.lines.shape[0] != result.lines.shape[1]:
        raise DataError("a recurrence network has one set of states; cross recurrences have two")
