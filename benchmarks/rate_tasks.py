"""Small trainings for learning rates: nine to develop `find_edge` with, and seven sets that it was tested on later.

A task trains in float32 for a fixed budget of steps. Its weights and batches depend on the seed only, so that all rates
and methods start from the same weights and see the same batches.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_blobs,
    make_circles,
    make_classification,
    make_friedman1,
    make_friedman2,
    make_friedman3,
    make_gaussian_quantiles,
    make_hastie_10_2,
    make_moons,
    make_s_curve,
    make_sparse_uncorrelated,
    make_swiss_roll,
)
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "examples")]

from datasets import load  # noqa: E402

EVERY = 5  # steps between two evaluations of the test loss
SEEDS = (0, 1, 2)
CROSS_ENTROPY, SQUARES = nn.CrossEntropyLoss(), nn.MSELoss()
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """A training: network, data, loss and optimiser, with the rates of its sweep and a budget of steps."""

    name: str
    make: Callable[[], nn.Module]
    train: Batch
    test: Batch
    loss: Callable[..., Tensor]
    optimizer: str
    rates: np.ndarray
    budget: int
    batch_size: int = 64
    held_out: bool = False

    def network(self, seed: int) -> nn.Module:
        torch.manual_seed(10 + seed)
        return self.make()

    def batches(self, n: int, seed: int) -> list[Batch]:
        rng, rows = np.random.default_rng(77 + seed), []
        while len(rows) < n:
            order = rng.permutation(len(self.train[0]))
            rows += [
                order[i : i + self.batch_size] for i in range(0, len(order) - self.batch_size + 1, self.batch_size)
            ]
        return [(self.train[0][r], self.train[1][r]) for r in rows[:n]]

    def factory(self, parameters: Any, rate: float) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.optimizer](parameters, rate)


OPTIMIZERS: dict[str, Callable[[Any, float], torch.optim.Optimizer]] = {
    "sgd": lambda p, rate: torch.optim.SGD(p, lr=rate),
    "momentum": lambda p, rate: torch.optim.SGD(p, lr=rate, momentum=0.9),
    "nesterov": lambda p, rate: torch.optim.SGD(p, lr=rate, momentum=0.9, nesterov=True),
    "adam": lambda p, rate: torch.optim.Adam(p, lr=rate),
    "adamw": lambda p, rate: torch.optim.AdamW(p, lr=rate),
    "adamw-decay": lambda p, rate: torch.optim.AdamW(p, lr=rate, weight_decay=0.1),
    "rmsprop": lambda p, rate: torch.optim.RMSprop(p, lr=rate),
}
SGD_RATES, ADAM_RATES = np.geomspace(1e-3, 10, 13), np.geomspace(1e-4, 1, 13)


def run(task: Task, seed: int, rate: float, make: Callable[..., Any] | None = None) -> tuple[list[float], list[float]]:
    """Train for the whole budget. Returns training losses per step and test losses every `EVERY` steps."""
    model = task.network(seed)
    optimizer = (make or task.factory)(model.parameters(), rate)
    train, test = [np.inf] * task.budget, [np.inf] * (task.budget // EVERY)
    for i, (x, y) in enumerate(task.batches(task.budget, seed)):
        optimizer.zero_grad()
        loss = task.loss(model(x), y)
        value = loss.item()
        if not np.isfinite(value) or value > 1e6:
            break
        train[i] = value
        loss.backward()
        optimizer.step()
        if i % EVERY == EVERY - 1:
            model.eval()
            with torch.no_grad():
                value = task.loss(model(task.test[0]), task.test[1]).item()
            test[i // EVERY] = value if np.isfinite(value) else np.inf
            model.train()
    return train, test


# -- networks


def mlp(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU, dropout: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(fan_in, fan_out), activation(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def convolutions(first: int, second: int, pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    layers += [nn.Conv2d(1, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(first, second, 3, padding=1), nn.BatchNorm2d(second), nn.ReLU()]
    layers += [nn.AvgPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(second * (4 if pool else 16), 10))


class Block(nn.Module):
    """Attention and feed-forward block with pre-normalisation."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.n1, self.n2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.forward_part = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = self.qkv(self.n1(x)).reshape(n, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attention = torch.softmax(q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5, -1) @ v
        x = x + self.out(attention.transpose(1, 2).reshape(n, length, width))
        return x + self.forward_part(self.n2(x))


class Sorter(nn.Module):
    """Transformer that sorts eight tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(8, 32), nn.Parameter(0.1 * torch.randn(8, 32))
        self.block, self.norm, self.out = Block(), nn.LayerNorm(32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.block(self.embedding(x) + self.positions)))


class RowReader(nn.Module):
    """GRU that reads an 8 x 8 image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(8, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 32)
        for row in x.reshape(-1, 8, 8).unbind(1):
            state = self.cell(row, state)
        return self.out(state)


class Adder(nn.Module):
    """LSTM that adds the marked numbers of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(2, 24), nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 24), x.new_zeros(len(x), 24)
        for row in x.unbind(1):
            state = self.cell(row, state)
        return self.out(state[0])


class Residual(nn.Module):
    """Residual network with layer normalisation."""

    def __init__(self, width: int = 48, depth: int = 3) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(64, width), nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


def token_loss(output: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.reshape(-1, output.shape[-1]), y.reshape(-1))


# -- data


def halves(x: Any, y: Any, cut: int, last: int | None = None) -> tuple[Batch, Batch]:
    x = torch.as_tensor(np.asarray(x), dtype=torch.int64 if np.asarray(x).dtype.kind == "i" else torch.float32)
    y = torch.as_tensor(np.asarray(y), dtype=torch.int64 if np.asarray(y).dtype.kind == "i" else torch.float32)
    return (x[:cut], y[:cut]), (x[cut if last is None else last :], y[cut if last is None else last :])


def tasks(mnist: str | None = None) -> dict[str, Task]:
    """All tasks by name; the one on MNIST needs the folder with its ten thousand test images in IDX form."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order] / 16, labels[order].astype(np.int64)
    digits, pictures = halves(images, labels, 1297), halves(images, images, 1297)
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 8, (6500, 8))
    sorting = halves(tokens, np.sort(tokens, axis=1), 6000, 6300)
    x = rng.uniform(-2, 2, (1700, 4))
    y = np.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3] + 0.5 * x[:, 3:] + 0.05 * rng.normal(size=(1700, 1))
    surface = halves(x, y, 1200)
    scales = np.geomspace(1, 1e-2, 50)
    x = rng.normal(size=(3500, 50)) * scales
    slope = x @ (rng.normal(size=50) / scales)
    stretched = halves(x, (slope / slope.std() * 4 + rng.logistic(size=3500) > 0).astype(np.int64), 3000)
    wide_rates = np.geomspace(1e-2, 100, 13)

    def deep() -> nn.Module:
        return mlp(64, 64, 64, 10)

    made = [
        Task("mlp-relu-sgd", deep, *digits, CROSS_ENTROPY, "sgd", SGD_RATES, 800),
        Task("mlp-relu-adam", deep, *digits, CROSS_ENTROPY, "adam", ADAM_RATES, 400),
        Task("cnn-bn-momentum", lambda: convolutions(8, 16, False), *digits, CROSS_ENTROPY, "momentum", SGD_RATES, 240),
        Task("logistic-stretched", lambda: nn.Linear(50, 2), *stretched, CROSS_ENTROPY, "sgd", wide_rates, 800),
        Task("autoencoder-adam", lambda: mlp(64, 32, 8, 32, 64), *pictures, SQUARES, "adam", ADAM_RATES, 600),
        Task("sorter-adamw", Sorter, *sorting, token_loss, "adamw", ADAM_RATES, 280, 32),
        Task("regression-tanh-sgd", lambda: mlp(4, 64, 64, 1, activation=nn.Tanh), *surface, SQUARES, "sgd", SGD_RATES,
             800),
        Task("deep-relu-momentum", lambda: mlp(64, *[32] * 5, 10), *digits, CROSS_ENTROPY, "momentum", SGD_RATES, 500),
    ]  # fmt: skip
    if mnist is not None:
        data = load(mnist, trained=8000)
        mnist_halves = (
            halves(data.train, data.labels, 8000)[0],
            halves(data.test[:1000], data.test_labels[:1000], 0)[1],
        )
        network = lambda: mlp(784, 100, 10, activation=nn.Tanh)  # noqa: E731
        made.append(Task("mnist-tanh-sgd", network, *mnist_halves, CROSS_ENTROPY, "sgd", SGD_RATES, 800))

    # Held out: chosen and written before the method; nothing may be tuned on them.
    features, diagnosis = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(features))
    features = (features - features.mean(0)) / features.std(0)
    clinic = halves(features[order], diagnosis[order].astype(np.int64), 400)
    x, y = make_friedman1(n_samples=1700, n_features=8, noise=0.3, random_state=4)
    friedman = halves(x * 2 - 1, ((y - y.mean()) / y.std())[:, None], 1200)
    kept = {"held_out": True}
    made += [
        Task("held-mlp-adamw", lambda: mlp(64, 128, 10), *digits, CROSS_ENTROPY, "adamw-decay", ADAM_RATES, 300,
             **kept),
        Task("held-conv-adam", lambda: convolutions(6, 12, True), *digits, CROSS_ENTROPY, "adam", ADAM_RATES, 240,
             **kept),
        Task("held-friedman-momentum", lambda: mlp(8, 48, 48, 1, activation=nn.Tanh), *friedman, SQUARES, "momentum",
             SGD_RATES, 500, 32, **kept),
        Task("held-gru-adam", RowReader, *digits, CROSS_ENTROPY, "adam", ADAM_RATES, 240, **kept),
        Task("held-logistic-nesterov", lambda: nn.Linear(64, 10), *digits, CROSS_ENTROPY, "nesterov", SGD_RATES, 400,
             **kept),
        Task("held-dropout-rmsprop", lambda: mlp(64, 96, 96, 10, dropout=0.3), *digits, CROSS_ENTROPY, "rmsprop",
             ADAM_RATES, 400, **kept),
        Task("held-residual-sgd", Residual, *digits, CROSS_ENTROPY, "sgd", SGD_RATES, 400, 32, **kept),
        Task("held-clinic-tanh-adam", lambda: mlp(30, 32, 16, 2, activation=nn.Tanh), *clinic, CROSS_ENTROPY, "adam",
             ADAM_RATES, 200, 32, **kept),
    ]  # fmt: skip
    made += fresh(digits, pictures)
    made += tiny(digits, clinic)
    made += small(digits)
    made += last(digits)
    made += noisy(digits)
    made += scarce(digits)
    return {task.name: task for task in made}


def fresh(digits: tuple[Batch, Batch], pictures: tuple[Batch, Batch]) -> list[Task]:
    """Second held-out set: written after the race was tried on the first one, and before its last two rules."""
    features, kinds = load_wine(return_X_y=True)
    order = np.random.default_rng(5).permutation(len(features))
    features = (features - features.mean(0)) / features.std(0)
    wine = halves(features[order], kinds[order].astype(np.int64), 128)
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(6).permutation(len(x))
    diabetes = halves(x[order] / x.std(), ((y - y.mean()) / y.std())[order, None], 320)
    moons = halves(*(part.astype(kind) for part, kind in zip(
        make_moons(1600, noise=0.2, random_state=7), (np.float64, np.int64), strict=True)), 1200)  # fmt: skip
    steps = np.random.default_rng(8).normal(size=(1700, 12, 2))
    sums = halves(steps, (steps[..., 0] * (steps[..., 1] > 0)).sum(1, keepdims=True) / 2, 1200)
    kept = {"held_out": True}
    plain = lambda: nn.Sequential(  # noqa: E731
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10)
    )
    tanh = {"activation": nn.Tanh}
    wide_rates = np.geomspace(1e-2, 100, 13)
    return [
        Task("held-fresh-wine-sgd", lambda: mlp(13, 24, 3, **tanh), *wine, CROSS_ENTROPY, "sgd", SGD_RATES, 300, 32,
             **kept),
        Task("held-fresh-diabetes-adam", lambda: mlp(10, 32, 1), *diabetes, SQUARES, "adam", ADAM_RATES, 300, 32,
             **kept),
        Task("held-fresh-conv-momentum", plain, *digits, CROSS_ENTROPY, "momentum", SGD_RATES, 300, 32, **kept),
        Task("held-fresh-lstm-adamw", Adder, *sums, SQUARES, "adamw", ADAM_RATES, 300, **kept),
        Task("held-fresh-autoencoder-momentum", lambda: mlp(64, 24, 64, **tanh), *pictures, SQUARES, "momentum",
             wide_rates, 400, **kept),
        Task("held-fresh-moons-adam", lambda: mlp(2, 32, 32, 32, 2), *moons, CROSS_ENTROPY, "adam", ADAM_RATES, 300,
             **kept),
    ]  # fmt: skip


def tiny(digits: tuple[Batch, Batch], clinic: tuple[Batch, Batch]) -> list[Task]:
    """Tables of 100 to 400 rows, which a few steps fit: written before the rule for races of twenty steps."""
    rng, tanh = np.random.default_rng(9), {"activation": nn.Tanh}
    tables = []
    for source in (load_iris, load_wine):
        features, kinds = source(return_X_y=True)
        order = rng.permutation(len(features))
        features = (features - features.mean(0)) / features.std(0)
        tables.append(halves(features[order], kinds[order].astype(np.int64), 100))
    iris, wine = tables
    few = ((digits[0][0][:200], digits[0][1][:200]), digits[1])
    x, kinds = make_circles(1400, noise=0.1, factor=0.5, random_state=10)
    circles = halves(x, kinds.astype(np.int64), 400)
    x, kinds = make_classification(1300, 40, n_informative=10, random_state=11)
    made = halves(x, kinds.astype(np.int64), 300)
    x = rng.normal(size=(1100, 20))
    line = halves(x, x @ rng.normal(size=(20, 1)) / 4 + 0.01 * rng.normal(size=(1100, 1)), 100)
    kept = {"held_out": True}
    return [
        Task("held-tiny-iris-sgd", lambda: mlp(4, 16, 3, **tanh), *iris, CROSS_ENTROPY, "sgd", SGD_RATES, 300, 25,
             **kept),
        Task("held-tiny-iris-adam", lambda: mlp(4, 32, 32, 3), *iris, CROSS_ENTROPY, "adam", ADAM_RATES, 300, 25,
             **kept),
        Task("held-tiny-wine-adam", lambda: mlp(13, 32, 3), *wine, CROSS_ENTROPY, "adam", ADAM_RATES, 200, 25, **kept),
        Task("held-tiny-digits-momentum", lambda: mlp(64, 64, 10), *few, CROSS_ENTROPY, "momentum", SGD_RATES, 300, 32,
             **kept),
        Task("held-tiny-clinic-nesterov", lambda: nn.Linear(30, 2), *clinic, CROSS_ENTROPY, "nesterov", SGD_RATES, 300,
             32, **kept),
        Task("held-tiny-circles-adamw", lambda: mlp(2, 64, 2), *circles, CROSS_ENTROPY, "adamw", ADAM_RATES, 300, 32,
             **kept),
        Task("held-tiny-made-sgd", lambda: mlp(40, 64, 2), *made, CROSS_ENTROPY, "sgd", SGD_RATES, 300, 32, **kept),
        Task("held-tiny-line-sgd", lambda: nn.Linear(20, 1), *line, SQUARES, "sgd", SGD_RATES, 300, 20, **kept),
    ]  # fmt: skip


def small(digits: tuple[Batch, Batch]) -> list[Task]:
    """Tables of 120 to 300 rows, written before the race looked at rows that it does not train on."""
    rng, tanh = np.random.default_rng(20), {"activation": nn.Tanh}

    def regression(x: np.ndarray, y: np.ndarray, cut: int) -> tuple[Batch, Batch]:
        order = rng.permutation(len(x))
        x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
        return halves(x[order], y[order, None], cut)

    diabetes = regression(*load_diabetes(return_X_y=True), 120)
    friedman = regression(*make_friedman2(1150, noise=20.0, random_state=21), 150)
    roll = regression(*make_swiss_roll(1200, noise=0.5, random_state=22), 200)
    x, kinds = make_gaussian_quantiles(n_samples=1200, n_features=10, n_classes=3, random_state=23)
    quantiles = halves(x, kinds.astype(np.int64), 200)
    x, signs = make_hastie_10_2(1250, random_state=24)
    hastie = halves(x, (signs > 0).astype(np.int64), 250)
    few = ((digits[0][0][400:700], digits[0][1][400:700]), digits[1])
    kept = {"held_out": True}
    return [
        Task("held-small-diabetes-momentum", lambda: mlp(10, 32, 1, **tanh), *diabetes, SQUARES, "momentum", SGD_RATES,
             300, 24, **kept),
        Task("held-small-quantiles-adam", lambda: mlp(10, 48, 48, 3), *quantiles, CROSS_ENTROPY, "adam", ADAM_RATES,
             300, 25, **kept),
        Task("held-small-hastie-rmsprop", lambda: mlp(10, 64, 2, **tanh), *hastie, CROSS_ENTROPY, "rmsprop", ADAM_RATES,
             300, 32, **kept),
        Task("held-small-friedman-adamw", lambda: mlp(4, 64, 1), *friedman, SQUARES, "adamw", ADAM_RATES, 300, 25,
             **kept),
        Task("held-small-roll-nesterov", lambda: mlp(3, 32, 32, 1, **tanh), *roll, SQUARES, "nesterov", SGD_RATES, 300,
             32, **kept),
        Task("held-small-conv-adam", lambda: convolutions(6, 12, True), *few, CROSS_ENTROPY, "adam", ADAM_RATES, 240,
             32, **kept),
    ]  # fmt: skip


def last(digits: tuple[Batch, Batch]) -> list[Task]:
    """Tables of 120 to 250 rows, written when the doubts about rows left out were, and before these were tried."""
    x, kinds = make_classification(
        1160, 20, n_informative=6, n_classes=4, n_clusters_per_class=1, flip_y=0.1, random_state=30
    )
    four = halves(x, kinds.astype(np.int64), 160)
    x, kinds = make_blobs(1120, 6, centers=5, cluster_std=4.0, random_state=31)
    blobs = halves((x - x.mean(0)) / x.std(0), kinds.astype(np.int64), 120)
    x, y = make_sparse_uncorrelated(1200, 12, random_state=32)
    sparse = halves(x, ((y - y.mean()) / y.std())[:, None], 200)
    few = ((digits[0][0][700:950], digits[0][1][700:950]), digits[1])
    kept = {"held_out": True}
    return [
        Task("held-last-four-momentum", lambda: mlp(20, 64, 4), *four, CROSS_ENTROPY, "momentum", SGD_RATES, 300, 32,
             **kept),
        Task("held-last-blobs-adam", lambda: mlp(6, 64, 64, 5), *blobs, CROSS_ENTROPY, "adam", ADAM_RATES, 300, 24,
             **kept),
        Task("held-last-sparse-sgd", lambda: mlp(12, 48, 1), *sparse, SQUARES, "sgd", SGD_RATES, 300, 25, **kept),
        Task("held-last-gru-adam", RowReader, *few, CROSS_ENTROPY, "adam", ADAM_RATES, 240, 32, **kept),
    ]  # fmt: skip


def noisy(digits: tuple[Batch, Batch]) -> list[Task]:
    """Tables of 600 to 1297 rows, some with wrong labels: written before sharper doubts were tried."""
    rng, tanh = np.random.default_rng(40), {"activation": nn.Tanh}
    x = rng.normal(size=(1800, 10))
    teacher = np.tanh(x @ rng.normal(size=(10, 16)) / 2) @ rng.normal(size=(16, 1)) / 2
    taught = halves(x, teacher + 0.3 * rng.normal(size=(1800, 1)), 800)
    labels = digits[0][1].numpy().copy()
    wrong = rng.random(len(labels)) < 0.15
    labels[wrong] = rng.integers(0, 10, int(wrong.sum()))
    flipped = (digits[0][0], torch.as_tensor(labels)), digits[1]
    x, y = make_friedman3(2000, noise=0.2, random_state=41)
    friedman = halves((x - x.mean(0)) / x.std(0), ((y - y.mean()) / y.std())[:, None], 1000)
    x, kinds = make_gaussian_quantiles(n_samples=1700, n_features=6, n_classes=4, random_state=42)
    shells = halves(x, kinds.astype(np.int64), 700)
    x, y = make_s_curve(1600, noise=0.1, random_state=43)
    curve = halves((x - x.mean(0)) / x.std(0), ((y - y.mean()) / y.std())[:, None], 600)
    even = tuple((x, y % 2) for x, y in digits)
    kept = {"held_out": True}
    return [
        Task("held-noisy-teacher-sgd", lambda: mlp(10, 64, 64, 1, **tanh), *taught, SQUARES, "sgd", SGD_RATES, 400, 32,
             **kept),
        Task("held-noisy-labels-adam", lambda: mlp(64, 96, 10), *flipped, CROSS_ENTROPY, "adam", ADAM_RATES, 400,
             **kept),
        Task("held-noisy-friedman-momentum", lambda: mlp(4, 48, 48, 1, **tanh), *friedman, SQUARES, "momentum",
             SGD_RATES, 400, 32, **kept),
        Task("held-noisy-shells-adamw", lambda: mlp(6, 64, 64, 4), *shells, CROSS_ENTROPY, "adamw", ADAM_RATES, 400, 32,
             **kept),
        Task("held-noisy-curve-rmsprop", lambda: mlp(3, 64, 64, 1, dropout=0.1), *curve, SQUARES, "rmsprop", ADAM_RATES,
             400, 32, **kept),
        Task("held-noisy-even-momentum", lambda: convolutions(4, 8, True), *even, CROSS_ENTROPY, "momentum", SGD_RATES,
             240, 32, **kept),
    ]  # fmt: skip


def scarce(digits: tuple[Batch, Batch]) -> list[Task]:
    """Tables of 100 to 300 rows, written together with those of `noisy`."""
    rng, tanh = np.random.default_rng(50), {"activation": nn.Tanh}
    x, y = make_s_curve(1150, noise=0.3, random_state=51)
    curve = halves((x - x.mean(0)) / x.std(0), ((y - y.mean()) / y.std())[:, None], 150)
    x, kinds = make_classification(1120, 15, n_informative=5, n_classes=3, flip_y=0.2, random_state=52)
    flipped = halves(x, kinds.astype(np.int64), 120)
    few = ((digits[0][0][950:1150], digits[0][1][950:1150]), digits[1])
    x, y = load_diabetes(return_X_y=True)
    order = rng.permutation(len(x))
    diabetes = halves(x[order] / x.std(), ((y - y.mean()) / y.std())[order, None], 200)
    x, kinds = make_blobs(1100, 4, centers=4, cluster_std=3.0, random_state=53)
    blobs = halves((x - x.mean(0)) / x.std(0), kinds.astype(np.int64), 100)
    x = rng.normal(size=(1300, 8))
    teacher = np.tanh(x @ rng.normal(size=(8, 12)) / 2) @ rng.normal(size=(12, 2)) / 2
    taught = halves(x, teacher + 0.2 * rng.normal(size=(1300, 2)), 300)
    kept = {"held_out": True}
    return [
        Task("held-scarce-curve-momentum", lambda: mlp(3, 48, 48, 1), *curve, SQUARES, "momentum", SGD_RATES, 300, 25,
             **kept),
        Task("held-scarce-flipped-sgd", lambda: mlp(15, 64, 3, **tanh), *flipped, CROSS_ENTROPY, "sgd", SGD_RATES, 300,
             24, **kept),
        Task("held-scarce-conv-momentum", lambda: convolutions(6, 12, True), *few, CROSS_ENTROPY, "momentum", SGD_RATES,
             240, 25, **kept),
        Task("held-scarce-diabetes-adamw", lambda: mlp(10, 64, 1), *diabetes, SQUARES, "adamw", ADAM_RATES, 300, 25,
             **kept),
        Task("held-scarce-blobs-nesterov", lambda: mlp(4, 32, 4), *blobs, CROSS_ENTROPY, "nesterov", SGD_RATES, 300, 20,
             **kept),
        Task("held-scarce-teacher-rmsprop", lambda: mlp(8, 64, 2, **tanh), *taught, SQUARES, "rmsprop", ADAM_RATES, 300,
             30, **kept),
    ]  # fmt: skip
