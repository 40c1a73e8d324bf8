"""Whether the growth rate of twins depends on epsilon: the rate in equal windows of the training, by epsilon.

    python benchmarks/epsilons.py digits                    # a tanh network on digits, float64, at three rates
    python benchmarks/epsilons.py iris --rates 0.5 1 2      # the network of Danovski et al.

Every initial condition is trained once per rate, beside it a copy for each epsilon. A window counts for an epsilon if
three quarters of its copies have passed their onset and are below the upper level at both ends. Rates are means over
initial conditions, with 95 % intervals (Student's t). Of neighbouring epsilons, rates over the same steps of the same
trainings are compared as `tt.twins` does by itself: their difference with its 99 % interval.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
from scipy.special import stdtrit

import trajtools as tt
from trajtools.exponents.exponent import Exponent

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--rates", type=float, nargs="*")
    parser.add_argument("--epsilons", type=float, nargs="*", default=[1e-6, 1e-8, 1e-11, 1e-14])
    parser.add_argument("--inits", type=int, default=12)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--width", type=int, help="steps of a window")
    arguments = parser.parse_args()
    train, rates, steps, width = TASKS[arguments.task]
    epsilons = sorted(arguments.epsilons)
    names = [f"{epsilon:g}" for epsilon in epsilons]
    print(f"| rate | steps | {' | '.join(names)} |\n{'| --- ' * (len(names) + 2)}|")
    compared = []
    for rate in arguments.rates or rates:
        with tempfile.TemporaryDirectory() as folder:
            runs = train(Path(folder), rate, epsilons, arguments.inits, arguments.steps or steps)
            growth = tt.twins(runs)
            exponent = growth.fit()
        for begin, end, cells in windows(growth, exponent, arguments.width or width):
            print(f"| {rate:g} | {begin} to {end} | {' | '.join(cells)} |")
        for k, one in enumerate(exponent.settings["rates_by_size"]):
            (small, large), (low, high) = one["rates"], one["difference"]
            compared.append(
                f"| {rate:g} | {names[k]}, {names[k + 1]} | {small:.4f} | {large:.4f} | {low:.4f} to {high:.4f} |"
            )
        print(f"{rate:g}: {exponent}", flush=True)
    print("\n| rate | epsilons | rate of the smaller | rate of the larger | difference, 99 % interval |")
    print("| --- " * 5 + "|", *compared, sep="\n")


if __name__ == "__main__":
    main()
