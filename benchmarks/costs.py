"""Cost against the number of points, with fitted exponents, beside peers where they are installed.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/costs.py            # up to 10^5 points, some minutes
    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/costs.py --most 1e6

Processor seconds, the least of several runs, on the x coordinate of the Henon map (dimension 2, delay 1) after one call
that loads the kernels. The exponent is the slope of ln(cost) against ln(N) over the last two sizes: 1 is linear. A peer
is not run beyond the size at which it took ten seconds. The table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

import trajtools as tt
from trajtools.embedding import estimate_delay
from trajtools.structure import zero_one_test

LONGEST = 10.0  # seconds of a peer, after which larger sizes are left out
SHOWN = 0.3  # seconds, below which a measurement is repeated


def henon(n: int) -> np.ndarray:
    x, a, b = np.empty(n + 100), 0.1, 0.1
    for t in range(n + 100):
        a, b = 1 - 1.4 * a * a + b, 0.3 * a
        x[t] = a
    return x[100:]


def nolds_rosenstein() -> Callable[[np.ndarray], Any]:
    lyap_r = import_module("nolds").lyap_r
    return lambda x: lyap_r(x, emb_dim=2, lag=1, min_tsep=5, trajectory_len=15)


def ckdtree_nearest() -> Callable[[np.ndarray], Any]:
    tree = import_module("scipy.spatial").cKDTree

    def search(x: np.ndarray) -> Any:
        states = np.stack([x[:-1], x[1:]], axis=1)
        return tree(states).query(states, 12)  # up to ten neighbours lie inside the Theiler window

    return search


def sklearn_nearest() -> Callable[[np.ndarray], Any]:
    nearest = import_module("sklearn.neighbors").NearestNeighbors

    def search(x: np.ndarray) -> Any:
        states = np.stack([x[:-1], x[1:]], axis=1)
        return nearest(n_neighbors=12, algorithm="kd_tree").fit(states).kneighbors(states)

    return search


def pyunicorn_recurrence() -> Callable[[np.ndarray], Any]:
    plot = import_module("pyunicorn.timeseries").RecurrencePlot
    return lambda x: plot(x, dim=2, tau=1, metric="supremum", recurrence_rate=0.05, silence_level=9).recurrence_rate()


def nolds_dimension() -> Callable[[np.ndarray], Any]:
    corr_dim = import_module("nolds").corr_dim
    return lambda x: corr_dim(x, emb_dim=2)


OURS: dict[str, tuple[Callable[[np.ndarray], Any], float]] = {
    "rosenstein": (lambda x: tt.rosenstein(x, dim=2, delay=1, theiler=5, horizon=15), 1e6),
    "kantz, 16 neighbours": (
        lambda x: tt.kantz(x, dim=2, delay=1, theiler=5, horizon=15, neighbors=tt.WithinRadius(max_neighbors=16)),
        1e6,
    ),
    "lyapunov": (lambda x: tt.lyapunov(x, dim=2, delay=1), 1e6),
    "lyapunov, null=None": (lambda x: tt.lyapunov(x, null=None), 1e6),
    "estimate_delay": (estimate_delay, 1e6),
    "zero_one_test": (zero_one_test, 1e6),
    "correlation_dimension": (lambda x: tt.correlation_dimension(x, dims=2, delay=1), 1e6),
    "recurrence, rate .05": (lambda x: tt.recurrence(x, dim=2, delay=1, metric="linf"), 1e4),
}
PEERS: dict[str, Callable[[], Callable[[np.ndarray], Any]]] = {
    "nolds lyap_r": nolds_rosenstein,
    "scipy cKDTree, 12 nearest": ckdtree_nearest,
    "sklearn kd_tree, 12 nearest": sklearn_nearest,
    "nolds corr_dim": nolds_dimension,
    "pyunicorn RecurrencePlot": pyunicorn_recurrence,
}


def cost(work: Callable[[np.ndarray], Any], x: np.ndarray) -> float:
    least, total = np.inf, 0.0
    while total < SHOWN:
        start = time.process_time()
        work(x)
        seconds = time.process_time() - start
        least, total = min(least, seconds), total + seconds
    return least


def row(name: str, work: Callable[[np.ndarray], Any], sizes: list[int], limit: float, longest: float) -> str:
    seconds: list[float] = []
    work(henon(sizes[0]))
    for n in sizes:
        if n > limit or (seconds and seconds[-1] > longest):
            break
        seconds.append(cost(work, henon(n)))
    slope = "-"
    if len(seconds) > 1:
        slope = f"{np.log(seconds[-1] / seconds[-2]) / np.log(sizes[len(seconds) - 1] / sizes[len(seconds) - 2]):.2f}"
    cells = [f"{value:.3g}" for value in seconds] + [""] * (len(sizes) - len(seconds))
    return f"| {name} | {' | '.join(cells)} | {slope} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=float, default=1e5, help="largest number of points")
    parser.add_argument("--only", nargs="*", choices=(*OURS, *PEERS), help="rows of the table")
    options = parser.parse_args()
    sizes = [10**k for k in range(3, 7) if 10**k <= options.most]
    print(f"| seconds | {' | '.join(f'N = {n:,}' for n in sizes)} | exponent |")
    print(f"| --- |{' --- |' * (len(sizes) + 1)}")
    for name, (work, limit) in OURS.items():
        if options.only is None or name in options.only:
            print(row(name, work, sizes, limit, np.inf), flush=True)
    for name, make in PEERS.items():
        if options.only is None or name in options.only:
            try:
                peer = make()
            except (ImportError, AttributeError) as error:
                print(f"| {name} | not installed here ({type(error).__name__}) |", flush=True)
                continue
            print(row(name, peer, sizes, np.inf, LONGEST), flush=True)


if __name__ == "__main__":
    main()
