"""Whether `find_edge` recommends a rate that trains fast, against a full sweep of rates, and at what share of its cost.

    python benchmarks/edge.py                          # digits
    python benchmarks/edge.py --mnist FOLDER           # and the images in IDX form in this folder

A row is a network, an optimiser and data. The sweep trains every rate from several initial weights until the test
accuracy is reached or the steps are used up; its training time is the median over the initial weights. `ratio` is the
training time at the recommended rate over the smallest one that the sweep found (bound 1.25), `cost` the gradients of
`find_edge` over those of the sweep (bound 0.1).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "examples")]

from datasets import Data, load  # noqa: E402

from recorders.torch import find_edge  # noqa: E402

POINTS, STEPS, EVERY = 12, 40, 1
LOSS = nn.functional.cross_entropy


def mlp(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 10))


def cnn(inputs: int) -> nn.Module:
    side = round(inputs**0.5)
    layers = [nn.Unflatten(1, (1, side, side)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))


def made(network: Callable[[int], nn.Module], inputs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = network(inputs)
    model(torch.zeros(1, inputs))
    return model


def batches(data: Data, size: int, steps: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rng = np.random.default_rng(seed)
    rows = [rng.choice(len(data.train), size, replace=False) for _ in range(steps)]
    return [(torch.as_tensor(data.train[r], dtype=torch.float32), torch.as_tensor(data.labels[r])) for r in rows]


def training_time(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, fed: list, target: float
) -> tuple[float, int]:
    """Steps until the test accuracy is reached (inf if it is not), and the gradients it took."""
    x, y = torch.as_tensor(data.test, dtype=torch.float32), torch.as_tensor(data.test_labels)
    for step, batch in enumerate(fed):
        if step % EVERY == 0:
            with torch.no_grad():
                if (model(x).argmax(1) == y).float().mean() >= target:
                    return float(step), step
        optimizer.zero_grad()
        loss = LOSS(model(batch[0]), batch[1])
        if not torch.isfinite(loss):
            return np.inf, step
        loss.backward()
        optimizer.step()
    return np.inf, len(fed)


def row(
    name: str, network: Callable[[int], nn.Module], momentum: float, data: Data, options: argparse.Namespace
) -> str:
    inputs = data.train.shape[1]
    make = lambda p, rate: torch.optim.SGD(p, lr=rate, momentum=momentum)  # noqa: E731
    rates = (0.01, 10.0) if not momentum else (0.001, 3.0)
    target = options.target
    edge = find_edge(
        made(network, inputs, 100), batches(data, 64, STEPS, 100), LOSS, make, rates=rates, points=POINTS, steps=STEPS
    )
    times, gradients = {}, 0
    for rate in edge.rates:
        found = []
        for seed in range(options.seeds):
            model, fed = made(network, inputs, seed), batches(data, 64, options.steps, seed)
            took, spent = training_time(model, make(model.parameters(), float(rate)), data, fed, target)
            found.append(took)
            gradients += spent
        times[float(rate)] = float(np.median(found))
    best = min(times, key=lambda rate: times[rate])
    ratio = times[edge.recommended] / times[best]
    onset = f"{edge.onset:.3g}" if edge.found else "not found"
    return (
        f"| {name} | {momentum:g} | {onset} | {edge.recommended:.3g} | {times[edge.recommended]:g} | {best:.3g} | "
        f"{times[best]:g} | {ratio:.2f} | {edge.gradients} / {gradients} = {edge.gradients / gradients:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", metavar="FOLDER", help="images in IDX form")
    parser.add_argument("--seeds", type=int, default=5, help="initial weights for each rate of the sweep")
    parser.add_argument("--steps", type=int, default=400, help="at most so many updates each")
    parser.add_argument("--target", type=float, default=0.9, help="test accuracy to be reached")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| data, network | momentum | onset | recommended | steps | fastest | steps | ratio | cost |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    sets = [load()] + ([load(options.mnist)] if options.mnist else [])
    for data in sets:
        for network in (mlp, cnn) if data.name == "digits" else (mlp,):
            for momentum in (0.0, 0.9):
                print(row(f"{data.name}, {network.__name__}", network, momentum, data, options), flush=True)


if __name__ == "__main__":
    main()
