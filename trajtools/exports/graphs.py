"""A state as a graph in GraphML."""

from __future__ import annotations

from pathlib import Path

from trajtools.errors import DataError, TooLargeError
from trajtools.exports.part import Part


def write_graphml(path: Path, part: Part, *, largest: int = 100_000) -> None:
    """Write the network that one state is.

    Notes
    -----
    Nodes are ``<node set>:<index>`` with ``layer`` and ``index``; edges have ``weight``, ``parameter`` and ``entry``,
    the index in the state. NaN and infinite weights are ``nan`` and ``inf``, as networkx reads them.
    """
    steps = part.step
    if len(steps) > 1:
        raise DataError(
            f"a .graphml file holds one state, and run {part.run.name!r} has {len(steps)} of them (steps {steps[0]} to "
            f"{steps[-1]}): choose with --step {steps[-1]} or --state -1"
        )
    states = part.weights()
    edges = {p.name: p.size for p in states.parameters if p.source is not None and p.target is not None}
    if sum(edges.values()) > largest:
        big = max(edges, key=edges.__getitem__)
        raise TooLargeError(
            f"the network has {sum(edges.values())} edges, more than {largest} (the largest layer is {big!r} with "
            f"{edges[big]}): choose layers with --select, write --format npz, or raise --max-edges"
        )
    names = [part.run.name, part.run.time_unit, *(n.name for n in states.nodes), *edges]
    strange = next((name for name in names if not name.isprintable()), None)
    if strange is not None:
        raise DataError(f"the name {strange!r} holds control characters, which XML cannot hold")
    import networkx as nx

    graph = nx.relabel_nodes(states.network(0, max_edges=largest), lambda node: f"{node[0]}:{node[1]}")
    member = part.run.members[part.member or 0].name
    graph.graph.update(run=part.run.name, member=member, step=int(steps[0]), time_unit=part.run.time_unit)
    nx.write_graphml(graph, path)
