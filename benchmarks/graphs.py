"""Distances between two dense layered networks against netrd, and against the LAPACK calls alone: ratios from one run.

    OMP_NUM_THREADS=1 python benchmarks/graphs.py                     # 3 layers of 333 units, 221,778 edges
    OMP_NUM_THREADS=1 python benchmarks/graphs.py --quick             # 3 layers of 33 units
    OMP_NUM_THREADS=1 python benchmarks/graphs.py --permutations      # planted orders of hidden units

netrd (`pip install netrd`) takes networkx graphs, which are built before the clock starts. It drops the weights in most
distances and warns, so times are compared and not values; every row of ours is first checked against full matrices. A
distance of netrd that takes longer than `--limit` seconds is stopped, and its ratio is a lower bound.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import trajtools as tt
from trajtools.distances.graphs import Skeleton
from trajtools.distances.spectral import normalized_laplacian, signed_laplacian
from trajtools.distances.symmetry import find_units
from trajtools.networks import Network
from trajtools.wiring import describe

# Ours: the nearest relative in netrd.
PEERS = {
    "l2": "Frobenius",
    "strengths": "DegreeDivergence",
    "absolute-strengths": "DegreeDivergence",
    "strength-distribution": "DegreeDivergence",
    "netsimile": "NetSimile",
    "deltacon": "DeltaCon",
    "singular-values": "",
    "adjacency-spectrum": "",
    "adjacency-wasserstein": "",
    "laplacian-spectrum": "LaplacianSpectral",
    "laplacian-wasserstein": "LaplacianSpectral",
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


def seconds(functions: list[Callable[[], Any] | None], repeats: int) -> list[float]:
    """Shortest time of each, interleaved, so that what else the machine does is left out; NaN for none."""
    for function in functions:
        if function is not None:
            function()
    times = [[np.nan] if f is None else [] for f in functions]
    for _ in range(repeats):
        for function, mine in zip(functions, times, strict=True):
            if function is not None:
                start = time.perf_counter()
                function()
                mine.append(time.perf_counter() - start)
    return [float(np.min(mine)) for mine in times]


def peer_seconds(name: str, graphs: list[Any], limit: float) -> tuple[float, bool]:
    """Seconds that a distance of netrd takes, and whether it came to an end."""

    def work(queue: Any) -> None:
        import netrd

        warnings.simplefilter("ignore")
        start = time.perf_counter()
        getattr(netrd.distance, name)().dist(*graphs)
        queue.put(time.perf_counter() - start)

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=work, args=(queue,))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.terminate()
        process.join()
        return limit, False
    return (float(queue.get()), True) if process.exitcode == 0 else (np.nan, False)


def compare(units: int, repeats: int, limit: float) -> None:
    """Print the table."""
    parameters, nodes, states = networks(units)
    skeleton = Skeleton(parameters, nodes)
    a, b = (tt.Trajectory.from_array(x[None], parameters=parameters, nodes=nodes) for x in states)
    found = {name: float(tt.distance(a, b, metric=name)[0]) for name in PEERS}
    checked(skeleton, states, found)
    graphs = peers = None
    try:
        import netrd  # noqa: F401
        import networkx as nx

        graphs = [nx.Graph(Network(x, parameters, nodes).to_networkx()) for x in states]
        peers = {name: peer_seconds(name, graphs, limit) for name in sorted({*PEERS.values()} - {""})}
    except ImportError as missing:
        print(f"netrd cannot be imported ({missing}): no ratios to it")
    print(f"{skeleton.n_nodes} nodes, {len(states[0])} edges; shortest of {repeats}")
    print(f"{'metric':24}{'ms':>9}{'LAPACK ms':>11}{'over it':>9}  {'netrd':20}{'ms':>10}{'times ours':>12}")
    for name, peer in PEERS.items():
        call = lapack(name, skeleton, states)
        ours, alone = seconds([lambda name=name: tt.distance(a, b, metric=name), call], repeats)
        theirs, ended = peers[peer] if peers and peer else (np.nan, True)
        more = "" if ended or np.isnan(theirs) else ">"
        print(
            f"{name:24}{1e3 * ours:9.2f}{1e3 * alone:11.2f}{ours / alone:9.2f}  {peer:20}{more:>1}{1e3 * theirs:9.0f}"
            f"{more:>2}{theirs / ours:10.0f}"
        )


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
    parser.add_argument("--quick", action="store_true", help="3 layers of 33 units")
    parser.add_argument("--permutations", action="store_true", help="planted orders of hidden units instead")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that a distance of netrd may take")
    options = parser.parse_args()
    if options.permutations:
        permutations(100 if options.repeats == 7 else options.repeats)
    else:
        compare(33 if options.quick else 333, options.repeats, options.limit)
