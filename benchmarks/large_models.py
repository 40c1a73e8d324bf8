"""Memory and answers of recorded twins of large networks: ``python benchmarks/large_models.py FOLDER``.

Every row is a process of its own, and memory is the largest resident set, so rows do not disturb each other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

COPIES = 4
WAYS = ("alone", "twins", "distances", "sketch", "weights")


def peak_bytes() -> int:
    """Largest resident memory so far (Linux only)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def make(weights: int) -> tuple[Any, Any, Any, Any]:
    """Return a perceptron of about so many weights, a loss, and the batch that every step takes."""
    import torch

    torch.manual_seed(0)
    width = round(weights**0.5)
    model = torch.nn.Sequential(torch.nn.Linear(32, width), torch.nn.Tanh(), torch.nn.Linear(width, width, bias=False),
                                torch.nn.Tanh(), torch.nn.Linear(width, 1), torch.nn.Tanh())  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(16, 32, generator=generator)
    y = 0.5 * torch.randn(16, 1, generator=generator).clamp(-1, 1)
    return model, torch.nn.MSELoss(), x, y


def train_alone(options: argparse.Namespace) -> None:
    """Train a reference and its copies in a plain loop; the user's model stays beside them, as with `Twins`."""
    import torch

    model, loss_fn, x, y = make(options.weights)
    models = [deepcopy(model) for _ in range(1 + COPIES)]
    optimizers = [torch.optim.SGD(one.parameters(), lr=options.rate) for one in models]
    for _ in range(options.steps):
        for one, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss_fn(one(x), y).backward()
            optimizer.step()


def train_twins(options: argparse.Namespace) -> None:
    """Train with `Twins`, recorded or not."""
    import torch

    from recorders.torch import Recorder, Twins

    model, loss_fn, x, y = make(options.weights)
    twins = Twins(
        model,
        loss_fn,
        lambda p: torch.optim.SGD(p, lr=options.rate),
        members=COPIES,
        seed=0,
        epsilon=1e-6,
        replant=None,
    )
    if options.row == "twins":
        for _ in range(options.steps):
            twins.step(x, y)
        return
    every = options.every if options.row == "weights" else 1
    options.file.unlink(missing_ok=True)
    with Recorder(options.file, twins, store=options.row, metric="l2", every=every, quiet=True):
        for _ in range(options.steps):
            twins.step(x, y)


def row(options: argparse.Namespace) -> None:
    """Train once and print what it took."""
    import torch

    torch.set_num_threads(1)
    start, began = peak_bytes(), time.process_time()
    (train_alone if options.row == "alone" else train_twins)(options)
    print(json.dumps({"bytes": peak_bytes() - start, "seconds": time.process_time() - began}))


def run_row(way: str, options: argparse.Namespace, file: Path) -> dict[str, float]:
    """Train in a process of its own."""
    numbers = {name: getattr(options, name) for name in ("weights", "steps", "rate", "every")}
    line = [sys.executable, __file__, str(file.parent), "--row", way, "--file", str(file)]
    line += [f"--{name}={value}" for name, value in numbers.items()]
    result: dict[str, float] = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    return result


def memory(options: argparse.Namespace) -> None:
    """Print the peak of every way, in states of one network, and its difference to the plain loop."""
    width = round(options.weights**0.5)
    state = 4 * (width**2 + 34 * width + 1)
    print(f"{options.weights:.0e} float32 weights: a network is {state / 2**20:.0f} MiB, a recorded state {1 + COPIES}")
    alone = None
    for way in WAYS:
        file = options.folder / f"large_{way}.h5"
        found = run_row(way, options, file)
        file.unlink(missing_ok=True)
        alone = alone or found
        name = {"alone": "plain loop of five models", "twins": "Twins, not recorded"}.get(way, f"recorded, {way}")
        name += f" every {options.every}" if way == "weights" else ""
        more = (found["bytes"] - alone["bytes"]) / state
        print(
            f"  {name:28s} peak {found['bytes'] / state:5.1f} networks, {more:+5.1f} of the plain loop"
            f"   CPU {found['seconds'] / alone['seconds']:5.2f}",
            flush=True,
        )


def answers(options: argparse.Namespace) -> None:
    """Print the exponent of one training from each kind of file."""
    import trajtools as tt

    print(f"{options.weights:.0e} float32 weights, {COPIES} twins, {options.steps} steps: exponent of each store, l2")
    exponents = []
    for way in ("distances", "sketch", "weights"):
        file = options.folder / f"large_{way}.h5"
        run_row(way, options, file)
        with tt.open(file) as run:
            exponent = tt.twins(run, metric="l2").fit()
        low, high = exponent.interval
        print(
            f"  {way:10s} {exponent.value:.4f} [{low:.4f}, {high:.4f}]   {exponent.verdict}, {exponent.growth}"
            f"   {file.stat().st_size / 2**20:.0f} MiB",
            flush=True,
        )
        exponents.append(exponent)
        file.unlink()
    low, high = max(e.interval[0] for e in exponents), min(e.interval[1] for e in exponents)
    inside = all(low <= e.value <= high for e in exponents)
    print(f"  each value lies in all three intervals: {'yes' if inside else 'no'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", choices=("memory", "answers"), default="memory")
    parser.add_argument("--weights", type=int, default=10**8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--every", type=int, default=3, help="Of the weights; all else is recorded at every step.")
    parser.add_argument("--rate", type=float, help="Default: 250 over the width, where copies part.")
    parser.add_argument("--row", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rate = options.rate or 250 / round(options.weights**0.5)
    if options.row:
        row(options)
    else:
        (memory if options.part == "memory" else answers)(options)


if __name__ == "__main__":
    main()
