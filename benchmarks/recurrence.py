"""Recurrence quantification against pyunicorn and PyRQA: the same measures of the same vectors, ratios from one run.

    taskset -c 0 python benchmarks/recurrence.py        # per core: one thread, one core
    python benchmarks/recurrence.py --threads 2         # what the second core gives
    python benchmarks/recurrence.py --memory            # 10^5 vectors: time, and peak memory beyond the data

Lorenz's x, embedded with dimension 3 and delay 5, at a threshold where 5 % of the pairs recur. All measures count: of
the peers RR, DET, L, Lmax, ENTR, LAM, TT, Vmax, of ours the rest as well. Every row first checks that they agree. CPU
time is that of all threads of the process: PyRQA uses as many as its OpenCL platform gives it.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from series import lorenz

import trajtools as tt

DIM, DELAY = 3, 5
NAMES = {"linf": "supremum", "l2": "euclidean", "l1": "manhattan"}
SHARED = ("DET", "L", "Lmax", "ENTR", "LAM", "TT", "Vmax")


def ours(x: np.ndarray, metric: str, threshold: float, convention: str = "standard") -> dict[str, float]:
    found = tt.recurrence(x, dim=DIM, delay=DELAY, metric=metric, threshold=threshold, convention=convention)
    return {name: found[name] for name in SHARED}


def of_pyunicorn(x: np.ndarray, metric: str, threshold: float) -> dict[str, float]:
    from pyunicorn.timeseries import RecurrencePlot

    plot = RecurrencePlot(x, metric=NAMES[metric], dim=DIM, tau=DELAY, threshold=threshold, silence_level=2)
    plot.recurrence_rate()
    return {
        "DET": plot.determinism(),
        "L": plot.average_diaglength(),
        "Lmax": plot.max_diaglength(),
        "ENTR": plot.diag_entropy(),
        "LAM": plot.laminarity(),
        "TT": plot.trapping_time(),
        "Vmax": plot.max_vertlength(),
    }


def of_pyrqa(x: np.ndarray, metric: str, threshold: float) -> dict[str, float]:
    from pyrqa import metric as metrics
    from pyrqa.computation import RQAComputation
    from pyrqa.neighbourhood import FixedRadius
    from pyrqa.settings import Settings
    from pyrqa.time_series import TimeSeries

    kind = {"linf": metrics.MaximumMetric, "l2": metrics.EuclideanMetric, "l1": metrics.TaxicabMetric}[metric]
    series = TimeSeries(x, embedding_dimension=DIM, time_delay=DELAY, dtype=np.float64)
    settings = Settings(series, neighbourhood=FixedRadius(threshold), similarity_measure=kind, theiler_corrector=1)
    found = RQAComputation.create(settings, verbose=False).run()
    return {
        "DET": found.determinism,
        "L": found.average_diagonal_line,
        "Lmax": found.longest_diagonal_line,
        "ENTR": found.entropy_diagonal_lines,
        "LAM": found.laminarity,
        "TT": found.trapping_time,
        "Vmax": found.longest_vertical_line,
    }


PEERS = {"pyunicorn": of_pyunicorn, "pyrqa": of_pyrqa}


def timed(work: Callable[[], Any], calls: int = 1) -> tuple[float, float]:
    """Wall and CPU time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        work()
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


def compare(length: int, metrics: list[str], repeats: int, threads: int) -> None:
    """One row for each metric and peer: medians of interleaved runs, and their ratios."""
    # The packages cast to single precision: what it can hold is the same for all.
    x = lorenz(length + (DIM - 1) * DELAY)[:, 0].astype(np.float32).astype(np.float64)
    calls = max(1, 2000 // length)
    for metric in metrics:
        threshold = tt.recurrence(x, dim=DIM, delay=DELAY, metric=metric, threshold=tt.RecurrenceRate(0.05)).threshold
        for name, peer in PEERS.items():
            wanted, found = peer(x, metric, threshold), ours(x, metric, threshold, name)
            for measure in SHARED:
                np.testing.assert_allclose(found[measure], wanted[measure], rtol=1e-9, err_msg=f"{name} {measure}")
            times = []
            for _ in range(repeats):
                times.append((timed(lambda m=metric, t=threshold: ours(x, m, t), 8 * calls),
                              timed(lambda m=metric, t=threshold, p=peer: p(x, m, t), calls)))  # fmt: skip
            wall, cpu = (np.median([[a[k], b[k]] for a, b in times], axis=0) for k in (0, 1))
            print(
                f"{length:7d} {metric:5s} {threads} thread(s)  ours {1e3 * wall[0]:8.2f} ms wall {1e3 * cpu[0]:8.2f} "
                f"CPU   {name:9s} {1e3 * wall[1]:9.2f} wall {1e3 * cpu[1]:9.2f} CPU   ratio {wall[1] / wall[0]:6.1f} "
                f"wall {cpu[1] / cpu[0]:6.1f} CPU",
                flush=True,
            )


def second_core(length: int) -> None:
    """Wall time of one thread over that of two, interleaved."""
    import numba

    x = lorenz(length + (DIM - 1) * DELAY)[:, 0]
    for metric in ("linf", "l2"):
        threshold = tt.recurrence(x, dim=DIM, delay=DELAY, metric=metric).threshold
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(9):
            for threads, found in times.items():
                numba.set_num_threads(threads)
                found.append(timed(lambda m=metric, t=threshold: ours(x, m, t))[0])
        one, two = min(times[1]), min(times[2])
        print(f"{length} {metric}: one thread {1e3 * one:.1f} ms, two {1e3 * two:.1f} ms, ratio {one / two:.2f}")


def bench_memory(length: int) -> None:
    """Time and peak memory of many vectors, beyond what the process and the data take."""
    small = lorenz(2000)[:, 0]
    rng = np.random.default_rng(0)
    for metric in ("linf", "l2"):
        ours(small, metric, 1.0)
        tt.recurrence(small, dim=DIM, delay=DELAY, metric=metric)
    # Pieces of the attractor in a row: a long series in a short time.
    x = np.concatenate([small[rng.integers(0, 1000) :] for _ in range(length // 1000 + 100)])[: length + 10]
    for metric in ("linf", "l2"):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = timed(lambda m=metric: tt.recurrence(x, dim=DIM, delay=DELAY, metric=m))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{length} vectors, {metric}, exact threshold and all measures: {wall:.1f} s wall, {cpu:.1f} s CPU, "
            f"{(after - before) / 1024:.0f} MiB beyond the data"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="only 10^5 vectors: time and peak memory")
    options = parser.parse_args()

    import numba

    warnings.simplefilter("ignore")
    numba.set_num_threads(options.threads)
    if options.memory:
        bench_memory(100_000)
        return
    if options.threads > 1:
        second_core(10_000)
        second_core(30_000)
        return
    for length in options.n:
        compare(length, ["linf", "l2"], options.repeats, options.threads)


if __name__ == "__main__":
    main()
