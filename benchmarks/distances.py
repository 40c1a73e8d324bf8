"""Distances between states: rows of `table.py`, against scipy, sklearn, torch and a C kernel.

    python benchmarks/table.py --only distances
    python benchmarks/distances.py --file 6 --folder DIR     # out of core: 6 GiB, killed once, peak memory
    python benchmarks/distances.py --file 6 --weights 1000000 --workers 2    # on Dask workers
    python benchmarks/distances.py --file 37.3 --weights 1000000 --workers 2 --levels 256    # 10^4 x 10^6

All pairs: neighbouring states differ by 1e-4 of the weights, as in a training, and the errors of all peers stand in the
table. scipy is timed on a few states and extrapolated, its cost per pair being constant. The C kernel
(`pairwise_kernel.c`) is compiled with gcc on the spot, for this processor.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import Growth, Item, Maker, Row, Scaled, Skipped, installed
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, pdist, squareform
from series import lorenz, power

import trajtools as tt

NAMES = {"l1": "cityblock", "l2": "euclidean"}
FEW = 96  # states, of scipy
FLOAT32_ERROR = 1e-7


def walk(states: int, weights: int, dtype: str = "float32") -> np.ndarray:
    """Neighbouring states that differ by about 1e-4 of the weights, as in a training."""
    rng = np.random.default_rng(0)
    x = np.empty((states, weights), dtype)
    x[0] = rng.standard_normal(weights)
    for t in range(1, states):
        x[t] = x[t - 1] + 1e-4 * rng.standard_normal(weights, dtype=np.float32)
        if t % 100 == 0:
            x[t] = rng.standard_normal(weights, dtype=np.float32)
    return x


def c_kernel(metric: str, x: np.ndarray) -> Any:
    """All distances by `pairwise_kernel.c`."""
    source = Path(__file__).with_name("pairwise_kernel.c")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernel.so"
        line = ["gcc", "-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(source)]
        try:
            subprocess.run(line, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Skipped("gcc does not compile it") from error
        function = getattr(ctypes.CDLL(str(library)), metric)
    function.argtypes, function.restype = [ctypes.c_void_p, *[ctypes.c_long] * 4, ctypes.c_void_p], None

    def compute() -> np.ndarray:
        lower = np.zeros((len(x), len(x)))
        function(x.ctypes.data, *x.shape, 0, len(x), lower.ctypes.data)
        values = np.sqrt(lower) if metric == "l2" else lower
        return values + np.tril(values, -1).T - np.triu(values, 1)

    return compute


def errors(x: np.ndarray, metric: str, values: Any) -> tuple[float, float]:
    """Median relative error of distances to neighbours in time, and the largest of any others."""
    pick = np.r_[0:12, len(x) // 2 : len(x) // 2 + 12]
    states = x[pick].astype(np.float64)
    truth = cdist(states, states, NAMES[metric])
    off = ~np.eye(len(pick), dtype=bool)
    near = np.abs(np.subtract.outer(pick, pick)) == 1
    relative = np.abs(np.asarray(values[np.ix_(pick, pick)]) / np.where(off, truth, 1) - 1)
    return float(np.median(relative[near])), float(relative[off & ~near].max())


def pairwise_row(metric: str, states: int, weights: int) -> Row:
    x = walk(states, weights)
    few = x[:FEW].astype(np.float64)

    def by_sklearn() -> Any:
        pairwise = installed("sklearn.metrics.pairwise")
        return partial(pairwise.manhattan_distances if metric == "l1" else pairwise.euclidean_distances, x)

    def by_torch(mode: str) -> Maker:
        def make() -> Any:
            torch = installed("torch")
            tensor = torch.from_numpy(x)
            return lambda: torch.cdist(tensor, tensor, p=int(metric[1]), compute_mode=mode).numpy()

        return make

    def check(answers: dict[str, Any]) -> str:
        near, far = errors(x, metric, answers.pop("ours").values)
        if max(near, far) > FLOAT32_ERROR:
            raise AssertionError(f"relative error of ours {near:.1e} near, {far:.1e} far")
        off = {name: errors(x, metric, values) for name, values in answers.items() if "dist of" not in name}
        wrong = [f"{name} {near:.0%}" for name, (near, _) in off.items() if near > 0.01]
        return f"median error of consecutive states: {', '.join(wrong)}" if wrong else ""

    peers: dict[str, Maker] = {
        f"scipy cdist of {FEW}": lambda: Scaled(partial(cdist, few, few, NAMES[metric]), (states / FEW) ** 2),
        f"scipy pdist of {FEW}": lambda: Scaled(
            lambda: squareform(pdist(few, NAMES[metric])), states * (states - 1) / FEW / (FEW - 1)
        ),
        "sklearn": by_sklearn,
        "torch.cdist": by_torch("use_mm_for_euclid_dist_if_necessary"),
    }
    if metric == "l2":
        peers["torch.cdist, exact mode"] = by_torch("donot_use_mm_for_euclid_dist")
    return Row(
        f"pairwise {metric}, {states} states x {power(weights)} float32",
        lambda: tt.pairwise(x, metric=metric),
        peers,
        ("C kernel", lambda: c_kernel(metric, x)),
        check,
    )


def paths(length: int, weights: int) -> dict[str, np.ndarray]:
    """A smooth path and a rough one, of twice the length."""
    rng = np.random.default_rng(0)
    return {
        "Lorenz path": lorenz(2 * length) @ rng.normal(size=(3, weights)),
        "random walk": np.cumsum(rng.normal(size=(2 * length, weights)), axis=0),
    }


def to_orbit_row(name: str, x: np.ndarray) -> Row:
    a, b = np.split(x, 2)

    def check(answers: dict[str, Any]) -> None:
        np.testing.assert_allclose(answers["ours"].distance, answers["scipy cKDTree"][0], rtol=1e-9, atol=1e-12)

    return Row(
        f"`to_orbit`, {len(a)} states x {a.shape[1]}, {name}",
        lambda: tt.to_orbit(a, b),
        {"scipy cKDTree": lambda: lambda: cKDTree(b).query(a)},
        check=check,
    )


def stability_of(length: int, weights: int, copies: int) -> Any:
    x = paths(length // 2, weights)["Lorenz path"]
    perturbed = [x + 1e-6 * np.random.default_rng(k).normal(size=x.shape) for k in range(copies)]
    return lambda: tt.orbital_stability(x, perturbed)


def items(quick: bool = False) -> Iterator[Item]:
    """Rows of the table, and how the costs grow with states, weights and copies."""
    weights = 10_000 if quick else 100_000
    for metric in NAMES:
        yield pairwise_row(metric, 304, weights - weights % 16)
    for length in (1000,) if quick else (4000, 16_000):
        for name, x in paths(length, 20).items():
            yield to_orbit_row(name, x)
    more = [500, 1000, 2000] if quick else [500, 1000, 2000, 4000]
    yield Growth(
        "`pairwise`, 1,000 weights", "states", more, lambda n: partial(tt.pairwise, walk(n, 1000)), "2: every pair"
    )
    yield Growth(
        "`pairwise`, 100 states", "weights", [8 * n for n in more], lambda n: partial(tt.pairwise, walk(100, n)), "1"
    )
    smooth = paths(max(more) * 4, 20)["Lorenz path"]
    yield Growth(
        "`to_orbit`, 20 weights, Lorenz path", "states", [4 * n for n in more],
        lambda n: partial(tt.to_orbit, smooth[:n], smooth[-n:]), "1 (with a logarithm)",
    )  # fmt: skip
    wide = paths(1000, 2 * max(more))["Lorenz path"]
    yield Growth(
        "`to_orbit`, 1,000 states, Lorenz path", "weights", [2 * n for n in more],
        lambda n: partial(tt.to_orbit, wide[:1000, :n], wide[1000:, :n]), "1",
    )  # fmt: skip
    yield Growth(
        "`orbital_stability`, 20 weights, 4 copies", "states", more, lambda n: stability_of(n, 20, 4),
        "2: the Frechet distance needs every pair",
    )  # fmt: skip
    yield Growth(
        "`orbital_stability`, 500 states, 20 weights", "copies", [4, 8, 16, 32], lambda n: stability_of(500, 20, n), "1"
    )


# ------------------------------------------------------------------------------------------------------ out of core


def peak() -> float:
    """Largest resident memory of this process so far, in GiB (Linux only)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def read(path: Path, out: Path, address: str, stop: int) -> None:
    """Compute the distances of a file; on Dask workers where there is an address.

    This process ends itself by SIGKILL where a third of the tiles are done, if `stop` says so.
    """
    began = time.perf_counter()

    def count(done: int, total: int) -> None:
        if stop and done > total // 3:
            print(f"killed at {done} of {total} tiles, after {time.perf_counter() - began:.0f} s, "
                  f"peak {peak():.2f} GiB", flush=True)  # fmt: skip
            os.kill(os.getpid(), signal.SIGKILL)

    with ExitStack() as stack:
        pool = None
        if address:
            from distributed import Client

            pool = stack.enter_context(Client(address)).get_executor()
        x = stack.enter_context(tt.open(path)).trajectory()
        found = tt.pairwise(x, metric="l1", out=out, executor=pool, progress=count)
    print(f"{found.shape[0]} states in tiles of {found.settings['block']}: {time.perf_counter() - began:.0f} s wall, "
          f"{found.settings['tiles_resumed']} tiles from before, peak {peak():.2f} GiB", flush=True)  # fmt: skip


@contextmanager
def cluster(workers: int) -> Iterator[tuple[str, Callable[[], list[float]]]]:
    """The address of a Dask scheduler, and what gives the largest memory of each of its workers so far."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=0, dashboard_address=None) as made,
        Client(made) as client,
    ):
        yield made.scheduler_address, lambda: list(client.run(peak).values())


def steps(weights: int, levels: int) -> Iterator[np.ndarray]:
    """States of a random walk; with `levels`, of so many values, of which 2 % change at each step."""
    rng = np.random.default_rng(1)
    w = rng.standard_normal(weights, dtype=np.float32)
    values = np.linspace(-1, 1, levels, dtype=np.float32)
    if levels:
        w = rng.choice(values, weights)
    while True:
        yield w
        if levels:
            w[rng.integers(0, weights, weights // 50)] = rng.choice(values, weights // 50)
        else:
            w = w + np.float32(1e-3) * rng.standard_normal(weights, dtype=np.float32)


def out_of_core(gib: float, folder: Path, weights: int, workers: int, levels: int) -> None:
    """Distances of a file, in a process that is killed once and started again."""
    from recorders import Recorder

    states = int(gib * 2**30 / 4 / weights)
    path, out = folder / "distances_bench.h5", folder / "distances_bench_distances.h5"
    walk = steps(weights, levels)
    try:
        with Recorder(path, {"w": next(walk)}, compress="zstd" if levels else None, quiet=True) as recorder:
            for _ in range(states - 1):
                recorder.record({"w": next(walk)})
        print(f"a file of {path.stat().st_size / 2**30:.1f} GiB, {states} states of {weights} weights", flush=True)
        with cluster(workers) if workers else nullcontext(("", list[float])) as (address, peaks):
            for stop in (1, 0):
                line = [sys.executable, __file__, "--read", str(path), str(out), address, str(stop)]
                ended = subprocess.run(line, check=False).returncode
                if ended != (-signal.SIGKILL if stop else 0):
                    raise SystemExit(f"the reading process ended with {ended}")
            print("".join(f"a worker: peak {one:.2f} GiB\n" for one in peaks()), end="", flush=True)
        few = np.r_[0:40, states // 2 : states // 2 + 40]
        with tt.open(path) as run:
            x = run.trajectory()
            memory = tt.pairwise(np.stack([x[int(i)] for i in few]), metric="l1")
        disk = tt.Distances.open(out)
        print("the same numbers as in memory, bit by bit:", np.array_equal(disk[few][:, few], memory[:]))
    finally:
        for each in (path, out):
            each.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=float, metavar="GIB", default=6.0, help="size of the file")
    parser.add_argument("--weights", type=int, default=2**18)
    parser.add_argument("--workers", type=int, default=0, help="Dask workers")
    parser.add_argument("--read", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--levels", type=int, default=0, help="values of a weight, so that zstd makes the file small")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the file is put")
    options = parser.parse_args()
    if options.read:
        path, out, address, stop = options.read
        read(Path(path), Path(out), address, int(stop))
    else:
        out_of_core(options.file, options.folder, options.weights, options.workers, options.levels)


if __name__ == "__main__":
    main()
