"""What limits the error of twins: how many initial conditions there are, the estimator, or epsilon.

    python benchmarks/twin_errors.py maps --seeds 20
    python benchmarks/twin_errors.py digits                 # a tanh network on digits, float64, at three rates
    python benchmarks/twin_errors.py iris --rates 0.5 1 2   # the network of Danovski et al.

`maps`: for each map and size of the ensemble (three copies of each initial condition, planted once, epsilon 1e-10) the
median error of `tt.twins(...).fit()`; the median difference between the fit and the growth of a tangent vector along
the same references over the same steps, which is the error of the estimator alone; and the mean error with its standard
error, the bias. What is left of the first is the scatter of the finite-time exponent itself, which falls with the root
of the number of initial conditions.

`digits`, `iris`: the rate in equal windows of the training, by epsilon. Every initial condition is trained once per
rate, beside it a copy for each epsilon. A window counts for an epsilon if three quarters of its copies have passed
their onset and are below the upper level at both ends. Rates are means over initial conditions, with 95 % intervals
(Student's t). Of neighbouring epsilons, rates over the same steps of the same trainings are compared as `tt.twins` does
by itself: their difference with its 99 % interval.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before numba and torch are imported; whoever imports this keeps his threads
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
from scipy.special import stdtrit
from twin_families import rate_of
from validation import TWINS

import trajtools as tt
from trajtools.exponents.exponent import Exponent
from trajtools.exponents.growth_phase import find_window, make_cells

MAPS = [
    "logistic",
    "logistic 3.7",
    "quartic GD, eta 2",
    "henon",
    "ikeda",
    "softmax map, gain 10",
    "linear network, eta 1.8",
    "coupled logistic (4 maps, 0.2)",
    "coupled quartic GD (2 maps)",
    "holmes",
    "lozi",
    "tinkerbell",
    "ricker",
]


def pairs_of(system: Any, inits: int, rng: np.random.Generator) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Twins whose references stay finite; some starts run away."""
    length, pairs = int(1.5 * np.log(1e10) / rate_of(system) / system.dt), []
    while len(pairs) < inits:
        more = system.twins(inits, 3, length, epsilon=1e-10, rng=rng)
        pairs += [pair for pair in more if np.isfinite(pair[0]).all()]
    return pairs[:inits]


def tangent_growth(system: Any, references: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Logarithm of the length of a tangent vector along each reference, (n, T)."""
    vector, out = rng.standard_normal((len(references), references.shape[2])), np.zeros(references.shape[:2])
    for t in range(references.shape[1] - 1):
        vector = np.einsum("nij,nj->ni", system.jacobian(references[:, t]), vector)
        length = np.linalg.norm(vector, axis=1)
        vector, out[:, t + 1] = vector / length[:, None], out[:, t] + np.log(length)
    return out


def errors(name: str, inits: int, seed: int, true: float) -> tuple[float, float]:
    """Relative error of the fit, and of the fit against the tangent vector over the same steps."""
    system = TWINS[name][0]()
    rng = np.random.default_rng([sum(map(ord, name)), inits, seed])
    pairs = pairs_of(system, inits, rng)
    growth = tt.twins(pairs, dt=system.dt)
    cells = make_cells(growth)
    window = find_window(cells)
    if window is None:
        return np.nan, np.nan
    tangent = tangent_growth(system, np.array([reference for reference, _ in pairs]), rng)[cells.group]
    rows = np.flatnonzero(window.last > window.first)
    gain = tangent[rows, window.last[rows]] - tangent[rows, window.first[rows]]
    exact = gain.sum() / np.sum(cells.time[window.last[rows]] - cells.time[window.first[rows]])
    value = growth.fit().value
    return value / true - 1, (value - exact) / true


def compare_ensembles(options: argparse.Namespace) -> None:
    """Print the table of the maps."""
    columns = [f"{inits}: error | estimator alone | bias" for inits in options.inits]
    print(f"| initial conditions | {' | '.join(columns)} |\n{'| --- ' * (3 * len(columns) + 1)}|")
    for name in options.systems:
        system = TWINS[name][0]()
        rng = np.random.default_rng(12345)
        true = (
            system.exact[0] if system.exact else system.exponents(20000, rng=rng, k=1, n=16, transient=2000).values[0]
        )
        cells = []
        for inits in options.inits:
            each = np.array([errors(name, inits, seed, float(true)) for seed in range(options.seeds)])
            each = each[np.isfinite(each[:, 0])]
            middle, alone = np.median(np.abs(each), axis=0)
            error = each[:, 0].std(ddof=1) / np.sqrt(len(each))
            cells.append(f"{middle:.1%} | {alone:.2%} | {each[:, 0].mean():+.1%} ± {error:.1%}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


# -- trainings, by epsilon ---------------------------------------------------------------------------------------------

LEFT = 0.75  # of the copies that must grow during all of a window


def digits(folder: Path, rate: float, epsilons: list[float], inits: int, steps: int) -> Any:
    """Minibatch SGD of a tanh network, 64-32-10, on 1000 digits, with the same batches for all initial conditions."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    from recorders.torch import Recorder, Twins

    torch.set_num_threads(1)
    data = load_digits()
    x, y = torch.tensor(data.data[:1000] / 16.0), torch.tensor(data.target[:1000])
    batches = [torch.as_tensor(rows) for rows in np.random.default_rng(0).integers(0, 1000, (steps, 100))]
    runs = []
    for seed in range(inits):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double()
        options: dict[str, Any] = {
            "epsilon": epsilons,
            "members": len(epsilons),
            "replant": None,
            "allow_rounded": True,
        }
        twins = Twins(model, nn.CrossEntropyLoss(), lambda p: torch.optim.SGD(p, lr=rate), seed=seed, **options)
        path = folder / f"digits {rate:g} {seed}.h5"
        with Recorder(path, twins, quiet=True):
            for rows in batches:
                twins.step(x[rows], y[rows])
        runs.append(tt.open(path))
    return runs


def iris(folder: Path, rate: float, epsilons: list[float], inits: int, steps: int) -> Any:
    """Full-batch descent of the network of Danovski et al. (2024)."""
    from recorders import iris as training

    path = training.record(
        folder, rate, inits=inits, copies=len(epsilons), steps=steps, epsilon=epsilons, replant=None, allow_rounded=True
    )
    return tt.open(path)


TASKS: dict[str, tuple[Callable[..., Any], list[float], int, int]] = {
    "digits": (digits, [1.7, 2.0, 3.0], 300, 5),
    "iris": (iris, [0.5, 1.0, 2.0], 300, 20),
}
"""Name -> training, rates, steps, and steps of a window."""


def windows(growth: Any, exponent: Exponent, width: int) -> list[tuple[int, int, list[str]]]:
    """Rate of each size of the perturbation in windows of the training, as text; empty where too few copies grow."""
    upper, share = exponent.settings["upper_level"], exponent.settings["onset_share"]
    logs = np.log(np.where(growth.distances > 0, growth.distances, np.nan))
    onset = logs[:, 0] + np.maximum(2.0, share * (upper - logs[:, 0]))
    first = np.where((logs >= onset[:, None]).any(1), (logs >= onset[:, None]).argmax(1), logs.shape[1])
    last = np.where((logs >= upper).any(1), (logs >= upper).argmax(1), logs.shape[1])
    rows = []
    for begin in range(0, logs.shape[1] - width, width):
        cells = []
        for size in range(growth.size.max() + 1):
            inside = (growth.size == size) & (first <= begin) & (last >= begin + width)
            if inside.sum() < LEFT * (growth.size == size).sum():
                cells.append("")
                continue
            rate = (logs[inside, begin + width] - logs[inside, begin]) / width
            half = float(stdtrit(len(rate) - 1, 0.975)) * rate.std(ddof=1) / np.sqrt(len(rate))
            cells.append(f"{rate.mean():.3f} ± {half:.3f}")
        if sum(map(bool, cells)) > 1:
            rows.append((begin, begin + width, cells))
    return rows


def compare_epsilons(options: argparse.Namespace) -> None:
    """Print rates in windows, and their differences between neighbouring epsilons."""
    train, rates, steps, width = TASKS[options.what]
    epsilons = sorted(options.epsilons)
    names = [f"{epsilon:g}" for epsilon in epsilons]
    print(f"| rate | steps | {' | '.join(names)} |\n{'| --- ' * (len(names) + 2)}|")
    compared = []
    for rate in options.rates or rates:
        with tempfile.TemporaryDirectory() as folder:
            runs = train(Path(folder), rate, epsilons, options.inits, options.steps or steps)
            growth = tt.twins(runs)
            exponent = growth.fit()
        for begin, end, cells in windows(growth, exponent, options.width or width):
            print(f"| {rate:g} | {begin} to {end} | {' | '.join(cells)} |")
        for k, one in enumerate(exponent.settings["rates_by_size"]):
            (small, large), (low, high) = one["rates"], one["difference"]
            compared.append(
                f"| {rate:g} | {names[k]}, {names[k + 1]} | {small:.4f} | {large:.4f} | {low:.4f} to {high:.4f} |"
            )
        print(f"{rate:g}: {exponent}", flush=True)
    print("\n| rate | epsilons | rate of the smaller | rate of the larger | difference, 99 % interval |")
    print("| --- " * 5 + "|", *compared, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("maps", *TASKS))
    parser.add_argument("--inits", type=int, nargs="*", help="initial conditions; maps: 12 48 192, trainings: 12")
    parser.add_argument("--seeds", type=int, default=20, help="of the maps")
    parser.add_argument("--systems", nargs="*", default=MAPS, help="maps")
    parser.add_argument("--rates", type=float, nargs="*", help="of the trainings")
    parser.add_argument("--epsilons", type=float, nargs="*", default=[1e-6, 1e-8, 1e-11, 1e-14])
    parser.add_argument("--steps", type=int, help="of the trainings")
    parser.add_argument("--width", type=int, help="steps of a window")
    options = parser.parse_args()
    if options.what == "maps":
        options.inits = options.inits or [12, 48, 192]
        compare_ensembles(options)
    else:
        options.inits = (options.inits or [12])[0]
        compare_epsilons(options)


if __name__ == "__main__":
    main()
