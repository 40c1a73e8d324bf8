"""Steps of `Twins` at once and one after the other: what the rule of `vectorize="auto"` is fitted to.

    OMP_NUM_THREADS=1 python benchmarks/vectorizing.py

Both train the same members on the same batches, in turn; the printed ratio is the least time of the looped step over
that of the vectorised one. A ratio below 1 means that the loop is faster.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from recorders.torch import Twins

SIZES = ((64, 32, 10), (64, 128, 10), (784, 128, 10), (784, 300, 100, 10), (784, 512, 512, 10), (1500, 1000, 1000, 10))


def twins(sizes: tuple[int, ...], members: int, vectorize: bool) -> Twins:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for n, m in pairwise(sizes):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return Twins(
        nn.Sequential(*layers[:-1]), nn.CrossEntropyLoss(), lambda p: torch.optim.SGD(p, lr=0.01),
        epsilon=1e-4, members=members, seed=0, vectorize=vectorize, replant=None,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="*", default=[2, 8])
    parser.add_argument("--batch", type=int, nargs="*", default=[32, 256])
    parser.add_argument("--seconds", type=float, default=1.0, help="of processor time for each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for sizes in SIZES:
        weights = sum((n + 1) * m for n, m in pairwise(sizes))
        for members in options.members:
            for batch in options.batch:
                x, y = torch.randn(batch, sizes[0]), torch.randint(0, sizes[-1], (batch,))
                both = [twins(sizes, members, way) for way in (True, False)]
                least = [np.inf, np.inf]
                start = time.process_time()
                while time.process_time() - start < options.seconds:
                    for at, each in enumerate(both):
                        before = time.process_time()
                        each.step(x, y)
                        least[at] = min(least[at], time.process_time() - before)
                name = "-".join(map(str, sizes))
                print(
                    f"{name:18s} {weights:9d} weights, {members + 1} members, batch {batch:3d}: "
                    f"loop {least[1] * 1e3:8.2f} ms, at once {least[0] * 1e3:8.2f} ms, ratio {least[1] / least[0]:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
