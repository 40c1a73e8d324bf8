"""Exponents of a series against the same estimators on scipy's cKDTree, and against nolds: ratios from one run.

    taskset -c 0 python benchmarks/series.py            # per core: one thread, one core
    python benchmarks/series.py --threads 2             # what the second core gives
    python benchmarks/series.py --memory                # 10^6 states: peak memory

The baseline does what we do, with numpy and cKDTree: the same neighbours outside the same Theiler window, the same
pairs followed for the same horizon, the same averages. Every row first checks that the two curves agree.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from trajtools.exponents.neighbor_methods import kantz, rosenstein
from trajtools.neighbors.rules import WithinRadius

# Theiler window and horizon in samples; radii as multiples of the standard deviation, for 10^4 states: more states
# take smaller ones, so that the neighbourhoods hold some hundred states at most.
SETTINGS = {"logistic": (1, 10), "henon": (5, 15), "lorenz": (50, 75)}
RADII = np.array([0.002, 0.004, 0.008, 0.016, 0.032])


def embedded(series: np.ndarray) -> np.ndarray:
    """Two delay coordinates, one sample apart."""
    return np.ascontiguousarray(np.stack([series[:-1], series[1:]], axis=1))


def logistic(n: int) -> np.ndarray:
    x = np.empty(n + 1)
    x[0] = 0.3
    for t in range(n):
        x[t + 1] = 4 * x[t] * (1 - x[t])
    return embedded(x)


def henon(n: int) -> np.ndarray:
    x = np.full(n + 102, 0.1)
    for t in range(1, n + 101):
        x[t + 1] = 1 - 1.4 * x[t] ** 2 + 0.3 * x[t - 1]
    return embedded(x[101:])


def lorenz(n: int, dt: float = 0.02, parts: int = 4) -> np.ndarray:
    def flow(x: float, y: float, z: float) -> tuple[float, float, float]:
        return 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z

    h = dt / parts
    state = (1.0, 2.0, 20.0)
    out = np.empty((n, 3))
    for t in range(-500, n):
        for _ in range(parts):
            a = flow(*state)
            b = flow(*(s + h / 2 * r for s, r in zip(state, a, strict=True)))
            c = flow(*(s + h / 2 * r for s, r in zip(state, b, strict=True)))
            d = flow(*(s + h * r for s, r in zip(state, c, strict=True)))
            state = tuple(s + h / 6 * (p + 2 * q + 2 * r + u) for s, p, q, r, u in zip(state, a, b, c, d, strict=True))
        if t >= 0:
            out[t] = state
    return out


def nearest_by_ckdtree(x: np.ndarray, theiler: int, horizon: int, k: int) -> np.ndarray:
    """Nearest neighbour outside the window; more than k neighbours are asked for only where they are needed."""
    points = x[: len(x) - horizon]
    tree = cKDTree(points)
    found = np.full(len(points), -1)
    left = np.arange(len(points))
    while len(left):
        k = min(k, len(points))
        distance, index = tree.query(points[left], k)
        good = (np.abs(index - left[:, None]) >= theiler) & (distance > 0)
        first = good.argmax(axis=1)
        done = good[np.arange(len(left)), first]
        found[left[done]] = index[done, first[done]]
        left = left[~done]
        k *= 4
    return found


def rosenstein_by_ckdtree(x: np.ndarray, theiler: int, horizon: int, first: int) -> np.ndarray:
    j = nearest_by_ckdtree(x, theiler, horizon, first)
    i = np.arange(len(j))
    curve = np.empty(horizon + 1)
    for k in range(horizon + 1):
        step = x[i + k] - x[j + k]
        square = np.einsum("ij,ij->i", step, step)
        curve[k] = 0.5 * np.log(square[square > 0]).mean()
    return curve


def balls_as_lists(tree: cKDTree, points: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (point, state) and their distances by query_ball_point, which gives lists."""
    balls = tree.query_ball_point(points, radius, return_sorted=False)
    sizes = np.array([len(b) for b in balls])
    j = np.fromiter((at for ball in balls for at in ball), dtype=np.int64, count=sizes.sum())
    local = np.repeat(np.arange(len(points)), sizes)
    return local, j, np.sqrt(((points[local] - tree.data[j]) ** 2).sum(axis=1))


def balls_as_arrays(tree: cKDTree, points: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (point, state) and their distances by sparse_distance_matrix, which gives arrays."""
    pairs = cKDTree(points).sparse_distance_matrix(tree, radius, output_type="ndarray")
    return pairs["i"], pairs["j"], pairs["v"]


def kantz_by_ckdtree(
    x: np.ndarray, radii: np.ndarray, *, theiler: int, horizon: int, balls: Callable[..., Any], rows: int = 2000
) -> np.ndarray:
    """One ball query at the largest radius; pairs binned by radius and cumulated, as we do."""
    points = x[: len(x) - horizon]
    tree = cKDTree(points)
    logs = np.zeros((len(radii), horizon + 1))
    counts = np.zeros((len(radii), 1))
    for start in range(0, len(points), rows):
        reference = np.arange(start, min(start + rows, len(points)))
        local, j, first = balls(tree, points[reference], radii[-1])
        i = reference[local]
        keep = (np.abs(i - j) >= theiler) & (first > 0)
        i, j = i[keep], j[keep]
        cell = local[keep] * len(radii) + np.searchsorted(radii, first[keep])
        shape = (len(reference), len(radii))
        held = np.cumsum(np.bincount(cell, minlength=np.prod(shape)).reshape(shape), axis=1)
        counts[:, 0] += (held > 0).sum(axis=0)
        for k in range(horizon + 1):
            step = x[i + k] - x[j + k]
            distance = np.sqrt(np.einsum("ij,ij->i", step, step))
            total = np.cumsum(np.bincount(cell, distance, np.prod(shape)).reshape(shape), axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                logs[:, k] += np.where(held > 0, np.log(total / held), 0.0).sum(axis=0)
    return logs / counts


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Best of some runs: wall time, and the answer."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        answer = work()
        best = min(best, time.perf_counter() - start)
    return best, answer


def compare(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[float, float, Any, Any]:
    """Time the two in turn, so that both see the same machine; best of the turns."""
    mine = others = np.inf
    for _ in range(repeats):
        seconds, a = timed(ours, 2)
        mine = min(mine, seconds)
        seconds, b = timed(theirs, 1)
        others = min(others, seconds)
    return mine, others, a, b


def show(name: str, seconds: float, baseline: float, note: str) -> float:
    ratio = baseline / seconds
    print(f"{name:34s} {seconds * 1e3:9.1f} ms {baseline * 1e3:10.1f} ms {ratio:7.1f}x  {note}", flush=True)
    return ratio


def best_first(x: np.ndarray, theiler: int, horizon: int) -> int:
    """Number of neighbours that the baseline had best ask for at first."""
    return min((2, 4, 8), key=lambda k: timed(lambda: rosenstein_by_ckdtree(x, theiler, horizon, k), 1)[0])


def bench_rosenstein(data: dict[str, np.ndarray], repeats: int) -> None:
    ratios = []
    for name, x in data.items():
        theiler, horizon = SETTINGS[name]
        first = best_first(x, theiler, horizon)
        seconds, baseline, curve, expected = compare(
            lambda x=x, t=theiler, h=horizon: rosenstein(x, theiler=t, horizon=h),
            lambda x=x, t=theiler, h=horizon, k=first: rosenstein_by_ckdtree(x, t, h, k),
            repeats,
        )
        np.testing.assert_allclose(curve.log_distance, expected, rtol=1e-9)
        ratios.append(show(f"rosenstein {name} {len(x)}", seconds, baseline, curve.settings["strategy"]))
    print(f"{'geometric mean':62s} {np.exp(np.mean(np.log(ratios))):7.1f}x")


def faster_balls(x: np.ndarray, radii: np.ndarray, theiler: int, horizon: int) -> Callable[..., Any]:
    """The way of asking for balls that is faster for the baseline."""

    def seconds(balls: Callable[..., Any]) -> float:
        return timed(lambda: kantz_by_ckdtree(x, radii, theiler=theiler, horizon=horizon, balls=balls), 1)[0]

    return min((balls_as_lists, balls_as_arrays), key=seconds)


def bench_kantz(data: dict[str, np.ndarray], repeats: int) -> None:
    ratios: dict[int | None, list[float]] = {None: [], 100: []}
    for name, x in data.items():
        theiler, horizon = SETTINGS[name]
        # More states take smaller radii, so that the neighbourhoods hold some hundred states at most.
        shrink = (len(x) / 10_000) ** (-0.5 if name == "lorenz" else -0.8)
        radii = RADII * shrink * np.sqrt(x.var(axis=0).sum()) * (4 if name == "lorenz" else 1)
        ask = faster_balls(x[:5000], radii, theiler, horizon)
        for cap, found in ratios.items():
            rule = WithinRadius(tuple(radii), max_neighbors=cap)
            seconds, baseline, curve, expected = compare(
                lambda x=x, r=rule, t=theiler, h=horizon: kantz(x, neighbors=r, theiler=t, horizon=h),
                lambda x=x, r=radii, t=theiler, h=horizon, a=ask: kantz_by_ckdtree(x, r, theiler=t, horizon=h, balls=a),
                repeats,
            )
            difference = np.abs(curve.settings["curves"] - expected).max()
            assert difference < (1e-9 if cap is None else 0.05), difference
            size = curve.settings["pairs"][-1] / curve.settings["references"][-1]
            note = f"{curve.settings['strategy']}, up to {size:.0f} neighbours, curves differ by {difference:.1e}"
            title = f"kantz x5 {'exact' if cap is None else f'<= {cap}'} {name} {len(x)}"
            found.append(show(title, seconds, baseline, note))
    for cap, found in ratios.items():
        title = f"geometric mean, {'exact' if cap is None else f'at most {cap} neighbours'}"
        print(f"{title:62s} {np.exp(np.mean(np.log(found))):7.1f}x")


def bench_nolds(data: dict[str, np.ndarray]) -> None:
    try:
        from nolds import lyap_r
    except ImportError as error:
        print(f"nolds: skipped, it cannot be imported here ({error})")
        return
    ratios = []
    for name, x in data.items():
        theiler, horizon = SETTINGS[name]
        series = np.append(x[:, 0], x[-1, 1])
        delays = embedded(series)
        seconds, _ = timed(lambda d=delays, t=theiler, h=horizon: rosenstein(d, theiler=t, horizon=h), 5)
        baseline, _ = timed(
            lambda s=series, t=theiler, h=horizon: lyap_r(s, emb_dim=2, lag=1, min_tsep=t, trajectory_len=h + 1), 1
        )
        ratios.append(show(f"rosenstein {name} {len(x)}, nolds", seconds, baseline, ""))
    print(f"{'geometric mean':62s} {np.exp(np.mean(np.log(ratios))):7.1f}x")


def machine_gives(threads: int, seconds: float) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The same arithmetic on one thread and in equal parts on several: no memory, no lock, nothing to share."""
    from concurrent.futures import ThreadPoolExecutor

    import numba

    @numba.njit(nogil=True)
    def burn(count: int) -> float:
        total = 0.0
        for k in range(count):
            total += np.sqrt(k * 1.0)
        return total

    burn(10)
    count = int(1e6 * seconds / max(timed(lambda: burn(1_000_000), 3)[0], 1e-6))
    pool = ThreadPoolExecutor(threads)
    return lambda: burn(count), lambda: list(pool.map(burn, [count // threads] * threads))


def bench_threads(data: dict[str, np.ndarray], threads: int, repeats: int) -> None:
    """What more threads give, beside what the machine gives at that moment: all in turn, best of the turns."""
    import numba

    print(f"{'':34s} {'1 thread':>12s} {f'{threads} threads':>13s} {'gain':>8s}  the machine gives")
    for name, x in data.items():
        theiler, horizon = SETTINGS[name]
        shrink = (len(x) / 10_000) ** (-0.5 if name == "lorenz" else -0.8)
        radii = RADII * shrink * np.sqrt(x.var(axis=0).sum()) * (4 if name == "lorenz" else 1)
        rule = WithinRadius(tuple(radii), max_neighbors=100)
        for title, work in (
            ("rosenstein", lambda x=x, t=theiler, h=horizon: rosenstein(x, theiler=t, horizon=h)),
            ("kantz x5 <= 100", lambda x=x, r=rule, t=theiler, h=horizon: kantz(x, neighbors=r, theiler=t, horizon=h)),
        ):
            numba.set_num_threads(1)
            jobs = [work, work, *machine_gives(threads, timed(work, 3)[0])]
            best = [np.inf] * 4
            for _ in range(5 * repeats):
                for at, job in enumerate(jobs):
                    numba.set_num_threads(threads if at == 1 else 1)
                    best[at] = min(best[at], timed(job, 1)[0])
            note = f"{best[2] / best[3]:.2f}x"
            one, more = best[0] * 1e3, best[1] * 1e3
            print(
                f"{f'{title} {name} {len(x)}':34s} {one:9.1f} ms {more:10.1f} ms {one / more:7.2f}x  {note}", flush=True
            )


def bench_memory(n: int) -> None:
    x = lorenz(n)
    rosenstein(x[:5000], theiler=50, horizon=75)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, _ = timed(lambda: rosenstein(x, theiler=50, horizon=75), 1)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"rosenstein lorenz {n}: {seconds:.2f} s, {grown / 1024:.0f} MB above the data ({x.nbytes / 2**20:.0f} MB)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="only the peak memory at 10^6 states")
    parser.add_argument("--only", choices=("rosenstein", "kantz", "nolds", "threads"))
    options = parser.parse_args()

    import numba

    numba.set_num_threads(options.threads)
    if options.memory:
        bench_memory(10**6)
        return
    print(f"{options.threads} thread(s); ours, cKDTree (always one thread), ratio")
    data = {"logistic": logistic(options.n), "henon": henon(options.n), "lorenz": lorenz(options.n)}
    if options.threads > 1:
        bench_threads(data, options.threads, options.repeats)
        numba.set_num_threads(options.threads)
    small = {name: x[:10_000] for name, x in data.items()}
    if options.only in (None, "rosenstein"):
        bench_rosenstein(data, options.repeats)
        bench_rosenstein(small, options.repeats)
    if options.only in (None, "kantz"):
        bench_kantz(small, options.repeats)
        bench_kantz(data, 1)
    if options.only in (None, "nolds"):
        bench_nolds(small)


if __name__ == "__main__":
    main()
