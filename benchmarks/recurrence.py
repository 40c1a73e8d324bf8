"""Recurrence quantification: rows of `table.py`, against pyunicorn and PyRQA on the same vectors.

    python benchmarks/table.py --only recurrence
    python benchmarks/recurrence.py threads            # what the second core gives
    python benchmarks/recurrence.py memory             # 10^5 vectors: time, and peak memory beyond the data

Lorenz's x, embedded with dimension 3 and delay 5, at a threshold where 5 % of the pairs recur. All measures count: of
the peers RR, DET, L, Lmax, ENTR, LAM, TT, Vmax, of ours the rest as well. Each row first checks that they agree. PyRQA
needs an OpenCL platform, such as pocl.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from measure import Growth, Item, Maker, Row, Skipped, installed, skip
from series import lorenz, power

import trajtools as tt
from trajtools.recurrences.lines import count_lags
from trajtools.recurrences.rows import make_pair, prepare
from trajtools.recurrences.thresholds import absolute

DIM, DELAY = 3, 5
NAMES = {"linf": "supremum", "l2": "euclidean", "l1": "manhattan"}
SHARED = ("DET", "L", "Lmax", "ENTR", "LAM", "TT", "Vmax")


def ours(x: np.ndarray, metric: str, threshold: float, convention: str = "standard") -> dict[str, float]:
    found = tt.recurrence(x, dim=DIM, delay=DELAY, metric=metric, threshold=threshold, convention=convention)
    return {name: found[name] for name in SHARED}


def by_pyunicorn(x: np.ndarray, metric: str, threshold: float) -> dict[str, float]:
    plot = installed("pyunicorn.timeseries").RecurrencePlot(
        x, metric=NAMES[metric], dim=DIM, tau=DELAY, threshold=threshold, silence_level=2
    )
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


def run_pyrqa(x: np.ndarray, metric: str, threshold: float, dtype: type = np.float64) -> Any:
    platforms = installed("pyopencl").get_platforms
    try:
        platforms()
    except Exception as error:
        raise Skipped("no OpenCL platform") from error
    metrics, computation, settings, series = (
        installed(f"pyrqa.{name}") for name in ("metric", "computation", "settings", "time_series")
    )
    radius = installed("pyrqa.neighbourhood").FixedRadius(threshold)
    kind = {"linf": metrics.MaximumMetric, "l2": metrics.EuclideanMetric, "l1": metrics.TaxicabMetric}[metric]
    data = series.TimeSeries(x, embedding_dimension=DIM, time_delay=DELAY, dtype=dtype)
    chosen = settings.Settings(data, neighbourhood=radius, similarity_measure=kind, theiler_corrector=1)
    return computation.RQAComputation.create(chosen, verbose=False).run()


def by_pyrqa(x: np.ndarray, metric: str, threshold: float) -> dict[str, float]:
    found = run_pyrqa(x, metric, threshold)
    return {
        "DET": found.determinism,
        "L": found.average_diagonal_line,
        "Lmax": found.longest_diagonal_line,
        "ENTR": found.entropy_diagonal_lines,
        "LAM": found.laminarity,
        "TT": found.trapping_time,
        "Vmax": found.longest_vertical_line,
    }


PEERS = {"pyunicorn": by_pyunicorn, "PyRQA": by_pyrqa}


@cache
def series(length: int) -> np.ndarray:
    """Values that single precision can hold, to which the packages cast: what is compared is the same for all."""
    x = lorenz(length + (DIM - 1) * DELAY)[:, 0].astype(np.float32).astype(np.float64)
    x.flags.writeable = False
    return x


def compare_all(x: np.ndarray) -> Callable[[float], Any]:
    """Compare all pairs of single values with a threshold and count, compiled: the least that can be done."""
    import numba

    @numba.njit
    def count(x: np.ndarray, threshold: float) -> int:
        total = 0
        for i in range(len(x)):
            for j in range(i):
                total += abs(x[i] - x[j]) <= threshold
        return total

    count(x[:10], 1.0)
    return lambda threshold: count(x, threshold)


def measures_row(length: int, metric: str) -> Row:
    x = series(length)
    rule = tt.RecurrenceRate(0.05)
    threshold = tt.recurrence(x, dim=DIM, delay=DELAY, metric=metric, threshold=rule).threshold

    def made(name: str) -> Maker:
        def make() -> Any:
            PEERS[name](x[:300], metric, threshold)  # compiles
            return lambda: PEERS[name](x, metric, threshold)

        return make if length <= 10_000 else skip("90 GB of memory" if name == "pyunicorn" else "several minutes")

    def limit() -> Any:
        count = compare_all(x[:length])
        return lambda: count(threshold)

    def check(answers: dict[str, Any]) -> None:
        for name in PEERS.keys() & answers.keys():
            mine = ours(x, metric, threshold, name.lower())
            for measure, value in answers[name].items():
                np.testing.assert_allclose(mine[measure], value, rtol=1e-9, err_msg=f"{name} {measure}")

    return Row(
        f"RQA, {power(length)} vectors, {metric}, threshold given",
        lambda: ours(x, metric, threshold),
        {name: made(name) for name in PEERS},
        ("comparing single values", limit),
        check,
    )


def close_row() -> Row:
    """States that differ by 10^-8, as weights do late in a training: single precision cannot tell them apart."""
    x = 1 + 1e-8 * lorenz(1000 + (DIM - 1) * DELAY)[:, 0]
    threshold = tt.recurrence(x, dim=DIM, delay=DELAY, metric="linf", threshold=tt.RecurrenceRate(0.1)).threshold

    def by_pyunicorn() -> Any:
        plot = installed("pyunicorn.timeseries").RecurrencePlot
        options = {"metric": "supremum", "dim": DIM, "tau": DELAY, "threshold": threshold, "silence_level": 2}
        return lambda: plot(x, **options).recurrence_rate()

    def by_pyrqa_default() -> Any:
        run_pyrqa(x[:300], "linf", threshold, np.float32)  # compiles
        return lambda: run_pyrqa(x, "linf", threshold, np.float32).recurrence_rate

    def check(answers: dict[str, Any]) -> str:
        rates = {name: answer if name != "ours" else answer["RR"] for name, answer in answers.items()}
        np.testing.assert_allclose(rates["ours"], 0.1, rtol=1e-3)
        return "recurrence rate: " + ", ".join(f"{name} {rate:.3f}" for name, rate in rates.items())

    return Row(
        "RQA near 1: 10^3 vectors that move by 10^-8, rate 0.1",
        lambda: tt.recurrence(x, dim=DIM, delay=DELAY, metric="linf", threshold=threshold),
        {"pyunicorn": by_pyunicorn, "PyRQA, float32": by_pyrqa_default},
        check=check,
    )


def threshold_row(length: int, metric: str) -> Row:
    """The threshold by rate; the limit is the counting that follows."""
    states = prepare(series(length), dim=DIM, delay=DELAY)
    pair = make_pair(states, states, metric)
    rule = tt.RecurrenceRate(0.05)
    level = absolute(pair, rule, 1)[0]
    return Row(
        f"threshold by recurrence rate, {power(length)} vectors, {metric}",
        lambda: absolute(pair, rule, 1)[0],
        limit=("the counting", lambda: lambda: count_lags(pair, level)),
    )


def items(quick: bool = False) -> Iterator[Item]:
    """Rows of the table, and how the costs grow with the number of vectors."""
    n = 1000 if quick else 10_000
    for metric in ("linf", "l2"):
        yield measures_row(n, metric)
    if not quick:
        yield measures_row(100_000, "linf")
    yield close_row()
    for metric in ("linf", "l2"):
        yield threshold_row(3 * n, metric)
    sizes = [1000, 3000] if quick else [1000, 3000, 10_000, 30_000]
    for metric in ("linf", "l2"):
        work = lambda n, m=metric: lambda: tt.recurrence(series(n), dim=DIM, delay=DELAY, metric=m)  # noqa: E731
        yield Growth(f"`recurrence` by rate, {metric}", "vectors", sizes, work, "2: every pair")


# -- more threads, and memory ------------------------------------------------------------------------------------------


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


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
    parser.add_argument("what", choices=("threads", "memory"))
    if parser.parse_args().what == "memory":
        bench_memory(100_000)
        return
    second_core(10_000)
    second_core(30_000)


if __name__ == "__main__":
    main()
