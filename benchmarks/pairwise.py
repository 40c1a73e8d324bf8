"""All distances of many states: ours against scipy, a C kernel and a float64 matrix product, as ratios from one run.

    NUMBA_NUM_THREADS=2 python benchmarks/pairwise.py                       # 2000 states of 100,000 float32 weights
    python benchmarks/pairwise.py --states 1000 --weights 50000 --dtype float64
    python benchmarks/pairwise.py --file 6                                  # out of core: 6 GiB, peak memory
    python benchmarks/pairwise.py --file 6 --weights 1000000 --workers 2    # the same on Dask workers, interrupted once

Seconds are of the processor unless they are called wall: other programs may run beside. scipy is timed on a few states
and extrapolated, its cost per pair being constant. The C kernel is compiled with gcc on the spot, for this processor.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.spatial.distance import cdist, pdist

import trajtools as tt

NAMES = {"l1": "cityblock", "l2": "euclidean"}
FEW = 150


def walk(states: int, weights: int, dtype: str) -> np.ndarray:
    """Neighbouring states that differ by about 1e-4 of the weights, as in a training."""
    rng = np.random.default_rng(0)
    x = np.empty((states, weights), dtype)
    x[0] = rng.standard_normal(weights)
    for t in range(1, states):
        x[t] = x[t - 1] + 1e-4 * rng.standard_normal(weights, dtype=np.float32)
        if t % 100 == 0:
            x[t] = rng.standard_normal(weights, dtype=np.float32)
    return x


def cost(act: Callable[[], Any], repeat: int = 1) -> tuple[float, float]:
    """Least wall and processor time."""
    found = []
    for _ in range(repeat):
        wall, used = time.perf_counter(), time.process_time()
        act()
        found.append((time.perf_counter() - wall, time.process_time() - used))
    return min(w for w, _ in found), min(c for _, c in found)


def c_kernel(folder: Path) -> Any:
    library = folder / "kernel.so"
    source = Path(__file__).with_name("pairwise_kernel.c")
    subprocess.run(["gcc", "-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return ctypes.CDLL(str(library))


def by_c(library: Any, metric: str, x: np.ndarray) -> np.ndarray:
    out = np.zeros((len(x), len(x)))
    arguments = [ctypes.c_void_p, *[ctypes.c_long] * 4, ctypes.c_void_p]
    function = getattr(library, metric)
    function.argtypes, function.restype = arguments, None
    function(x.ctypes.data, *x.shape, 0, len(x), out.ctypes.data)
    return np.sqrt(out) if metric == "l2" else out


def product(x: np.ndarray) -> float:
    """Seconds of a float64 matrix product of all states with all states, from a stretch of the weights."""
    part = x[:, : min(x.shape[1], 10_000)].astype(np.float64)
    other = part.copy()  # of an array with its own transpose numpy would compute half
    return cost(lambda: part @ other.T, 2)[1] * x.shape[1] / part.shape[1]


def errors(x: np.ndarray, metric: str, found: Any) -> tuple[float, float]:
    """Largest relative error of distances to neighbours in time, and to any others."""
    pick = np.r_[0:12, len(x) // 2 : len(x) // 2 + 12]
    states = x[pick].astype(np.float64)
    truth = cdist(states, states, NAMES[metric])
    measured = found[np.ix_(pick, pick)]
    off = ~np.eye(len(pick), dtype=bool)
    near = np.abs(np.subtract.outer(pick, pick)) == 1
    relative = np.abs(measured / np.where(off, truth, 1) - 1)
    return float(relative[near].max()), float(relative[off & ~near].max())


def compare(states: int, weights: int, dtype: str, threads: int) -> None:
    x = walk(states, weights, dtype)
    tt.pairwise(x[:64], metric="l1")  # compiles
    print(f"{states} states x {weights} weights, {dtype}, {threads} threads")
    for metric, name in NAMES.items():
        few = x[:FEW].astype(np.float64)
        ratio = states**2 / FEW**2
        slow = cost(lambda few=few, name=name: cdist(few, few, name))[1] * ratio
        half = cost(lambda few=few, name=name: pdist(few, name))[1] * ratio
        kept: list[Any] = []
        wall, used = cost(lambda m=metric, k=kept: k.append(tt.pairwise(x, metric=m)), 2)
        found = kept[-1]
        near, far = errors(x, metric, found.values)
        speed = states**2 * weights / 2 / used / 1e9
        print(f"{metric}: {wall:.2f} s wall, {used:.2f} s = {speed:.1f} G terms/s and core")
        print(f"   cdist {slow:.0f} s: {slow / wall:.0f}x by wall, {slow / used:.0f}x per core")
        print(f"   pdist {half:.0f} s: {half / used:.1f}x per core")
        if dtype == "float32" and states % 4 == 0 and weights % 16 == 0:
            with tempfile.TemporaryDirectory() as folder:
                library = c_kernel(Path(folder))
                by_hand = cost(lambda m=metric, library=library: by_c(library, m, x))[1]
            print(f"   C kernel {by_hand:.2f} s: ours takes {used / by_hand:.2f} of it")
        if metric == "l2":
            gemm = product(x)
            print(f"   float64 matrix product {gemm:.2f} s: ours takes {used / gemm:.2f} of it")
        print(f"   relative error near {near:.1e}, far {far:.1e}")


# ------------------------------------------------------------------------------------------------------ out of core


def peak() -> float:
    """Largest resident memory of this process so far, in GiB (Linux only)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def read(path: Path, out: Path, workers: int) -> None:
    """Compute the distances of a file; with Dask workers, a third of the tiles before an interruption."""
    began = time.perf_counter()
    x = tt.open(path).trajectory()
    if not workers:
        found, peaks = tt.pairwise(x, metric="l1", out=out), []
    else:
        from distributed import Client, LocalCluster

        def stop(done: int, total: int) -> None:
            if done > total // 3:
                raise KeyboardInterrupt

        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=0, dashboard_address=None)
        with cluster, Client(cluster) as client:
            with suppress(KeyboardInterrupt):
                tt.pairwise(x, metric="l1", out=out, executor=client.get_executor(), progress=stop)
            found = tt.pairwise(x, metric="l1", out=out, executor=client.get_executor())
            peaks = list(client.run(peak).values())
    side = found.settings["block"]
    print(f"{found.shape[0]} states in tiles of {side}: {time.perf_counter() - began:.0f} s wall, "
          f"{found.settings['tiles_resumed']} tiles from before the interruption, peak {peak():.2f} GiB"
          + "".join(f", worker {one:.2f}" for one in peaks))  # fmt: skip


def out_of_core(gib: float, folder: Path, weights: int, workers: int) -> None:
    from recorders import Recorder

    states = int(gib * 2**30 / 4 / weights)
    path, out = folder / "pairwise_bench.h5", folder / "pairwise_bench_distances.h5"
    rng = np.random.default_rng(1)
    try:
        state = {"w": rng.standard_normal(weights, dtype=np.float32)}
        with Recorder(path, state, quiet=True) as recorder:
            for _ in range(states - 1):
                state["w"] = state["w"] + np.float32(1e-3) * rng.standard_normal(weights, dtype=np.float32)
                recorder.record(state)
        print(f"a file of {path.stat().st_size / 2**30:.1f} GiB, {states} states of {weights} weights", flush=True)
        line = [sys.executable, __file__, "--read", str(path), str(out), "--workers", str(workers)]
        subprocess.run(line, check=True)
        few = np.r_[0:40, states // 2 : states // 2 + 40]
        x = tt.open(path).trajectory()
        memory = tt.pairwise(np.stack([x[int(i)] for i in few]), metric="l1")
        disk = tt.Distances.open(out)
        print("the same numbers as in memory, bit by bit:", np.array_equal(disk[few][:, few], memory[:]))
    finally:
        for each in (path, out):
            each.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=2000)
    parser.add_argument("--weights", type=int, default=100_000)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--file", type=float, metavar="GIB", help="out of core, with a file of this size")
    parser.add_argument("--workers", type=int, default=0, help="Dask workers; with --file")
    parser.add_argument("--read", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=Path(), help="where the file is put")
    given = parser.parse_args()
    if given.read:
        read(*given.read, given.workers)
    elif given.file:
        out_of_core(given.file, given.folder, given.weights, given.workers)
    else:
        from trajtools.distances.tiles import threads

        compare(given.states, given.weights, given.dtype, threads())


if __name__ == "__main__":
    main()
