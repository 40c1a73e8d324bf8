"""Exponents, delay and dimension of a series: rows of `table.py`, against the same estimators on scipy's cKDTree, nolds
and neurokit2.

    python benchmarks/table.py --only series
    python benchmarks/series.py threads            # what more threads give, beside what the machine gives
    python benchmarks/series.py memory             # 10^6 states: peak memory

The baseline on cKDTree does what we do with numpy: the same neighbours outside the same Theiler window, the same pairs
followed for the same horizon, the same averages. The curves of ours and of the peers are held to each other.
"""

from __future__ import annotations

import argparse
import resource
import timeit
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from measure import Growth, Item, Maker, Row, cost, installed, skip
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist

import trajtools as tt
from trajtools.embedding import estimate_delay
from trajtools.exponents.neighbor_methods import kantz, rosenstein
from trajtools.neighbors.rules import WithinRadius
from trajtools.structure import zero_one_test

# Theiler window and horizon in samples; radii as multiples of the standard deviation, for 10^4 states.
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


def rosenstein_by_nolds(series: np.ndarray, theiler: int, horizon: int) -> Maker:
    def make() -> Any:
        lyap_r = installed("nolds").lyap_r
        options = {"emb_dim": 2, "lag": 1, "min_tsep": theiler - 1, "trajectory_len": horizon + 1}
        return lambda: lyap_r(series, **options, fit="poly", debug_data=True)[1][1]

    return make


def rosenstein_by_neurokit(series: np.ndarray, theiler: int, horizon: int) -> Maker:
    def make() -> Any:
        lyapunov = installed("neurokit2").complexity_lyapunov
        options = {"delay": 1, "dimension": 2, "separation": theiler - 1, "len_trajectory": horizon + 1}
        return lambda: lyapunov(series, **options, method="rosenstein1993")[1]["Divergence_Rate"]

    return make


def follow(x: np.ndarray, i: np.ndarray, j: np.ndarray, horizon: int) -> Any:
    """Sum the squared differences of ready pairs in one coordinate at every lag, compiled: no search, no logarithm."""
    import numba

    @numba.njit(fastmath=True)
    def total(x: np.ndarray, i: np.ndarray, j: np.ndarray, horizon: int) -> float:
        out = 0.0
        for p in range(len(i)):
            for k in range(horizon + 1):
                step = x[i[p] + k] - x[j[p] + k]
                out += step * step
        return out

    first = np.ascontiguousarray(x[:, 0])
    return lambda: total(first, i, j, horizon)


def agree(tolerances: dict[str, float], curve: Callable[[Any], np.ndarray]) -> Callable[[dict[str, Any]], None]:
    """Hold our curve to those of the peers."""

    def check(answers: dict[str, Any]) -> None:
        ours = curve(answers["ours"])
        for name, tolerance in tolerances.items():
            if name in answers:
                np.testing.assert_allclose(ours, answers[name], rtol=tolerance, atol=tolerance, err_msg=name)

    return check


def rosenstein_row(name: str, x: np.ndarray) -> Row:
    theiler, horizon = SETTINGS[name]
    series = np.append(x[:, 0], x[-1, 1])  # the delay vectors of the maps are its own
    peers: dict[str, Maker] = {}

    def by_ckdtree() -> Any:
        first = min((2, 4, 8), key=lambda k: cost(lambda: rosenstein_by_ckdtree(x, theiler, horizon, k))[0])
        return lambda: rosenstein_by_ckdtree(x, theiler, horizon, first)

    def limit() -> Any:
        j = nearest_by_ckdtree(x, theiler, horizon, 4)
        return follow(x, np.arange(len(j)), j, horizon)

    peers["scipy cKDTree"] = by_ckdtree
    if len(x) <= 10_000 and name != "lorenz":
        peers["nolds"] = rosenstein_by_nolds(series, theiler, horizon)
        peers["neurokit2"] = rosenstein_by_neurokit(series, theiler, horizon)
    elif name != "lorenz":
        peers["nolds"] = peers["neurokit2"] = skip(f"a matrix of {8 * len(x) ** 2 / 1e9:.0f} GB")
    return Row(
        f"Rosenstein, {name}, {power(len(x))} states",
        lambda: rosenstein(x, theiler=theiler, horizon=horizon),
        peers,
        ("pairs in one coordinate", limit),
        agree({"scipy cKDTree": 1e-9, "nolds": 1e-6, "neurokit2": 1e-3}, lambda curve: curve.log_distance),
    )


def radii_of(name: str, x: np.ndarray) -> np.ndarray:
    """Five radii; more states take smaller ones, so that the neighbourhoods hold some hundred states at most."""
    shrink = (len(x) / 10_000) ** (-0.5 if name == "lorenz" else -0.8)
    return RADII * shrink * np.sqrt(x.var(axis=0).sum()) * (4 if name == "lorenz" else 1)


def kantz_row(name: str, x: np.ndarray, only_last: bool = False) -> Row:
    theiler, horizon = SETTINGS[name]
    radii = radii_of(name, x)[-1:] if only_last else radii_of(name, x)
    rule = WithinRadius(tuple(radii))

    def by_ckdtree() -> Any:
        def ask(x: np.ndarray, balls: Callable[..., Any]) -> np.ndarray:
            return kantz_by_ckdtree(x, radii, theiler=theiler, horizon=horizon, balls=balls)

        faster = min((balls_as_lists, balls_as_arrays), key=lambda balls: cost(lambda: ask(x[:4000], balls))[0])
        return lambda: ask(x, faster)

    def limit() -> Any:
        points = x[: len(x) - horizon]
        i, j, _ = balls_as_arrays(cKDTree(points), points, radii[-1])
        apart = np.abs(i - j) >= theiler
        return follow(x, i[apart], j[apart], horizon)

    return Row(
        f"Kantz, {'one radius' if only_last else 'five radii'}, {name}, {power(len(x))} states",
        lambda: kantz(x, neighbors=rule, theiler=theiler, horizon=horizon),
        {"scipy cKDTree": by_ckdtree},
        ("pairs in one coordinate", limit),
        agree({"scipy cKDTree": 1e-9}, lambda curve: curve.settings["curves"]),
    )


def lyapunov_row(x: np.ndarray) -> Row:
    """An exponent with interval, null and verdict; the peers and the limit give a number alone."""
    theiler, horizon = SETTINGS["logistic"]

    def check(answers: dict[str, Any]) -> str:
        found, few = answers["ours"], x[:3000]
        numbers = [f"ln 2 is 0.693; ours {found.value:.3f} [{found.interval[0]:.3f}, {found.interval[1]:.3f}]"]
        if "nolds" in answers:
            lyap_r = installed("nolds").lyap_r
            fixed = lyap_r(few, emb_dim=2, lag=1, min_tsep=theiler, fit="poly")
            numbers.append(f"nolds on 3,000 points {lyap_r(few):.3f}, with dimension 2 and delay 1 {fixed:.3f}")
        if "neurokit2" in answers:
            fixed = installed("neurokit2").complexity_lyapunov(few, delay=1, dimension=2, separation=theiler)[0]
            numbers.append(f"neurokit2, the same, {fixed:.3f}")
        return "; ".join(numbers)

    return Row(
        f"`tt.lyapunov`, logistic, {power(len(x))} points: interval, null, verdict",
        lambda: tt.lyapunov(x, dim=2, delay=1),
        {"nolds": rosenstein_by_nolds(x, theiler, horizon), "neurokit2": rosenstein_by_neurokit(x, theiler, horizon)},
        ("`rosenstein` alone", lambda: lambda: rosenstein(x, dim=2, delay=1, theiler=theiler, horizon=horizon)),
        check,
    )


def delay_row(x: np.ndarray) -> Row:
    def by_neurokit() -> Any:
        delay = installed("neurokit2").complexity_delay
        return lambda: delay(x, delay_max=50, method="fraser1986")

    return Row(f"`estimate_delay`, {power(len(x))} points", lambda: estimate_delay(x), {"neurokit2": by_neurokit})


def dimension_row(x: np.ndarray) -> Row:
    def by_nolds() -> Any:
        dimension = installed("nolds").corr_dim
        return lambda: dimension(x, emb_dim=2, fit="poly")

    def by_neurokit() -> Any:
        dimension = installed("neurokit2").fractal_correlation
        return lambda: dimension(x, delay=1, dimension=2)

    def by_scipy() -> Any:
        states = embedded(x)
        return lambda: pdist(states)

    return Row(
        f"`correlation_dimension`, {power(len(x))} points",
        lambda: tt.correlation_dimension(x, dims=2, delay=1),
        {"nolds": by_nolds, "neurokit2": by_neurokit, "scipy pdist, nothing counted": by_scipy},
    )


def power(n: int) -> str:
    """A round number in words of the table."""
    exponent = int(np.log10(n))
    factor = n // 10**exponent
    return f"{'' if factor == 1 else f'{factor} x '}10^{exponent}"


def items(quick: bool = False) -> Iterator[Item]:
    """Rows of the table, and how the costs grow with the number of points."""
    n = 10_000 if quick else 100_000
    data = {"logistic": logistic(n), "henon": henon(n), "lorenz": lorenz(n)}
    for size in dict.fromkeys((10_000, n)):
        for name, x in data.items():
            yield rosenstein_row(name, x[:size])
    for name, x in data.items():
        yield kantz_row(name, x[:10_000])
    yield kantz_row("henon", data["henon"][:10_000], only_last=True)
    yield kantz_row("lorenz", data["lorenz"][:30_000])
    yield lyapunov_row(data["logistic"][:10_000, 0])
    yield delay_row(data["henon"][:, 0])
    yield dimension_row(data["henon"][:10_000, 0])
    sizes = [10**k for k in range(3, 5 if quick else 7)]
    series = henon(sizes[-1])[:, 0]
    sixteen = WithinRadius(max_neighbors=16)
    works: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
        "`rosenstein`": (lambda x: rosenstein(x, dim=2, delay=1, theiler=5, horizon=15), "1"),
        "`kantz`, 16 neighbours": (lambda x: kantz(x, dim=2, delay=1, theiler=5, horizon=15, neighbors=sixteen), "1"),
        "`lyapunov`": (lambda x: tt.lyapunov(x, dim=2, delay=1), "at most 1"),
        "`lyapunov(null=None)`": (lambda x: tt.lyapunov(x, null=None), "at most 1"),
        "`estimate_delay`": (estimate_delay, "at most 1"),
        "`zero_one_test`": (zero_one_test, "at most 1"),
        "`correlation_dimension`": (lambda x: tt.correlation_dimension(x, dims=2, delay=1), "at most 1"),
    }
    for name, (work, aim) in works.items():
        yield Growth(name, "points", sizes, lambda n, work=work: lambda: work(series[:n]), aim)


# -- more threads, and memory ------------------------------------------------------------------------------------------


def timed(work: Callable[[], Any], repeats: int) -> float:
    """Least wall time."""
    return min(timeit.repeat(work, number=1, repeat=repeats))


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
    count = int(1e6 * seconds / max(timed(lambda: burn(1_000_000), 3), 1e-6))
    pool = ThreadPoolExecutor(threads)
    return lambda: burn(count), lambda: list(pool.map(burn, [count // threads] * threads))


def bench_threads(data: dict[str, np.ndarray], threads: int, repeats: int) -> None:
    """What more threads give, beside what the machine gives at that moment: all in turn, best of the turns."""
    import numba

    print(f"{'':34s} {'1 thread':>12s} {f'{threads} threads':>13s} {'gain':>8s}  the machine gives")
    for name, x in data.items():
        theiler, horizon = SETTINGS[name]
        rule = WithinRadius(tuple(radii_of(name, x)), max_neighbors=100)
        for title, work in (
            ("rosenstein", lambda x=x, t=theiler, h=horizon: rosenstein(x, theiler=t, horizon=h)),
            ("kantz x5 <= 100", lambda x=x, r=rule, t=theiler, h=horizon: kantz(x, neighbors=r, theiler=t, horizon=h)),
        ):
            numba.set_num_threads(1)
            jobs = [work, work, *machine_gives(threads, timed(work, 3))]
            best = [np.inf] * 4
            for _ in range(5 * repeats):
                for at, job in enumerate(jobs):
                    numba.set_num_threads(threads if at == 1 else 1)
                    best[at] = min(best[at], timed(job, 1))
            note = f"{best[2] / best[3]:.2f}x"
            one, more = best[0] * 1e3, best[1] * 1e3
            print(
                f"{f'{title} {name} {len(x)}':34s} {one:9.1f} ms {more:10.1f} ms {one / more:7.2f}x  {note}", flush=True
            )


def bench_memory(n: int) -> None:
    x = lorenz(n)
    rosenstein(x[:5000], theiler=50, horizon=75)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = timed(lambda: rosenstein(x, theiler=50, horizon=75), 1)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"rosenstein lorenz {n}: {seconds:.2f} s, {grown / 1024:.0f} MB above the data ({x.nbytes / 2**20:.0f} MB)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("threads", "memory"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.what == "memory":
        bench_memory(10**6)
        return
    data = {"logistic": logistic(options.n), "henon": henon(options.n), "lorenz": lorenz(options.n)}
    bench_threads(data, options.threads, options.repeats)


if __name__ == "__main__":
    main()
