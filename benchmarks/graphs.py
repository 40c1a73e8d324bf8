"""Distances between two dense layered networks: rows of `table.py`, against netrd and the LAPACK calls alone.

    python benchmarks/table.py --only graphs          # 3 layers of 333 units, 221,778 edges
    OMP_NUM_THREADS=1 python benchmarks/graphs.py     # planted orders of hidden units

netrd takes networkx graphs, which are built before the clock starts. It drops the weights in most distances, so times
are compared and not values; ours are first checked against full matrices.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from measure import Growth, Item, Maker, Row, Skipped, installed

import trajtools as tt
from trajtools.distances.graphs import Skeleton
from trajtools.distances.spectral import normalized_laplacian, signed_laplacian
from trajtools.distances.symmetry import find_units
from trajtools.networks import Network
from trajtools.wiring import describe

LIMIT = 10  # seconds of the processor that a distance of netrd may take

# Ours: the nearest relative in netrd, where no row above has it.
PEERS = {
    "l2": "Frobenius",
    "strengths": "DegreeDivergence",
    "absolute-strengths": "",
    "strength-distribution": "DegreeDivergence",
    "netsimile": "NetSimile",
    "deltacon": "DeltaCon",
    "singular-values": "",
    "adjacency-spectrum": "",
    "adjacency-wasserstein": "",
    "laplacian-spectrum": "LaplacianSpectral",
    "laplacian-wasserstein": "",
    "heat-trace": "NetLSD",
    "quantum-jensen-shannon": "QuantumJSD",
}


def networks(units: int) -> tuple[Any, Any, np.ndarray]:
    """Tables of three dense layers, and two states."""
    tables = describe({"W1": ((units, units), "float64"), "W2": ((units, units), "float64")})
    states = np.random.default_rng(0).normal(size=(2, 2 * units * units)) / np.sqrt(units)
    return *tables, states


def lapack(name: str, skeleton: Skeleton, states: np.ndarray) -> Callable[[], Any] | None:
    """The eigenvalue problems that a distance cannot do without, on matrices that are ready."""
    size = skeleton.n_nodes // 3
    if name == "singular-values":
        blocks = [layer for state in states for layer in state.reshape(2, size, size)]
        return lambda: [np.linalg.svd(block, compute_uv=False) for block in blocks]
    if name.startswith("adjacency") or name == "heat-trace":
        halves = [skeleton.between_sides(state) for state in states]
        return lambda: [np.linalg.svd(half, compute_uv=False) for half in halves]
    if name.startswith("laplacian"):
        full = [signed_laplacian(skeleton.symmetric(state)) for state in states]
        return lambda: [np.linalg.eigvalsh(matrix) for matrix in full]
    if name == "quantum-jensen-shannon":
        full = [normalized_laplacian(skeleton.symmetric(state)) for state in states]
        mixture = full[0] + full[1]
        return lambda: [*map(np.linalg.eigh, full), np.linalg.eigvalsh(mixture)]
    return None


def checked(skeleton: Skeleton, states: np.ndarray, found: dict[str, float]) -> None:
    """Hold the spectral distances to spectra of full matrices."""
    full = [skeleton.symmetric(state) for state in states]
    values = [np.linalg.eigvalsh(matrix) for matrix in full]
    np.testing.assert_allclose(found["adjacency-spectrum"], np.linalg.norm(values[0] - values[1]), rtol=1e-9)
    np.testing.assert_allclose(found["adjacency-wasserstein"], np.abs(values[0] - values[1]).mean(), rtol=1e-9)
    traces = [
        np.exp(-np.outer(np.logspace(-2, 2, 250), np.linalg.eigvalsh(normalized_laplacian(m)))).sum(1) for m in full
    ]
    np.testing.assert_allclose(found["heat-trace"], np.linalg.norm(traces[0] - traces[1]), rtol=1e-9)
    roots = []
    for matrix in full:
        degree = np.abs(matrix).sum(axis=1)
        epsilon = 1 / (1 + degree.max())
        influence = np.linalg.inv(np.diag(1 + epsilon**2 * degree) - epsilon * matrix)
        roots.append(np.copysign(np.sqrt(np.abs(influence)), influence))
    np.testing.assert_allclose(found["deltacon"], np.linalg.norm(roots[0] - roots[1]), rtol=1e-9)


def by_netrd(name: str, graphs: Callable[[], list[Any]]) -> Maker:
    """A distance of netrd, tried in a process of its own first: some take minutes."""

    def make() -> Any:
        distance = getattr(installed("netrd").distance, name)
        pair = graphs()

        def attempt() -> None:
            resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
            distance().dist(*pair)

        process = multiprocessing.get_context("fork").Process(target=attempt)
        process.start()
        process.join()
        if process.exitcode:
            raise Skipped(f"fails, or takes more than {LIMIT} s")
        return lambda: distance().dist(*pair)

    return make


def items(quick: bool = False) -> Iterator[Item]:
    """One row for each metric, and how the costs grow with the number of units."""
    parameters, nodes, states = networks(33 if quick else 333)
    skeleton = Skeleton(parameters, nodes)
    a, b = (tt.Trajectory.from_array(x[None], parameters=parameters, nodes=nodes) for x in states)

    @cache
    def graphs() -> list[Any]:
        networkx = installed("networkx")
        return [networkx.Graph(Network(x, parameters, nodes).to_networkx()) for x in states]

    # The spectra of full matrices, once for all rows.
    checked(skeleton, states, {name: float(tt.distance(a, b, metric=name)[0]) for name in PEERS})
    for name, peer in PEERS.items():
        call = lapack(name, skeleton, states)
        yield Row(
            f"`distance`, {name}, {skeleton.n_nodes} nodes, {len(states[0]):,} edges",
            lambda name=name: tt.distance(a, b, metric=name),
            {f"netrd {peer}": by_netrd(peer, graphs)} if peer else {},
            ("LAPACK alone", lambda call=call: call) if call else None,
        )
    aims = {"l1": "2: edges", "deltacon": "3", "adjacency-spectrum": "3", "laplacian-spectrum": "3"}
    for name, aim in aims.items():
        sizes = (20, 40, 80) if quick else (50, 100, 200, 400)
        yield Growth(f"`distance`, {name}, three layers", "units a layer", sizes, lambda n, m=name: pair_of(n, m), aim)


def pair_of(units: int, metric: str) -> Callable[[], Any]:
    parameters, nodes, states = networks(units)
    a, b = (tt.Trajectory.from_array(x[None], parameters=parameters, nodes=nodes) for x in states)
    return lambda: tt.distance(a, b, metric=metric)


def permutations(repeats: int) -> None:
    """Print how often planted orders are found, and how long a pair takes."""
    print(f"{'hidden units':24}{'found':>10}{'ms a pair':>12}{'random pair':>14}")
    for hidden in ((64,), (512,), (512, 512), (512, 256, 128), (64, 64, 64, 64, 64)):
        sizes = (32, *hidden, 10)
        shapes = {f"{i}.{k}": s for i, (m, n) in enumerate(pairwise(sizes)) for k, s in (("w", (n, m)), ("b", (n,)))}
        axes = {name: (1, 0) for name in shapes if name.endswith("w")}
        parameters, nodes = describe({n: (s, "float64") for n, s in shapes.items()}, axes=axes)
        rng, units = np.random.default_rng(1), find_units(parameters, nodes)
        hits, spent, apart = 0, [], []
        for k in range(repeats):
            a = rng.normal(size=sum(p.size for p in parameters))
            b = a.copy()
            for group in units.sets:
                order = rng.permutation(group.size)
                for use in group.uses:
                    view = use.view(b)
                    view[...] = view[order]
            start = time.perf_counter()
            hits += tt.align(a, b, parameters=parameters, nodes=nodes).distance[0] == 0
            spent.append(time.perf_counter() - start)
            if k < 3:
                start = time.perf_counter()
                tt.align(a, rng.normal(size=len(a)), parameters=parameters, nodes=nodes)
                apart.append(time.perf_counter() - start)
        planted, random = (1e3 * float(np.median(times)) for times in (spent, apart))
        print(f"{'-'.join(map(str, hidden)):24}{hits:>5} of {repeats:<3}{planted:10.1f}{random:14.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    permutations(parser.parse_args().repeats)
