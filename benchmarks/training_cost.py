"""What recording and twins cost a training, as ratios to the same training without them, in one run.

    python benchmarks/training_cost.py            # minutes; --quick to see that it works

A perceptron and a small transformer, batches of 64, AdamW: plain loops in torch, and the Trainers of Lightning and
Hugging Face. The ways take turns; each number is the median over the turns of its time over that of the
unrecorded loop of the same turn, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from recorders.torch import LoopTwins, Recorder, Twins

Way = Callable[[Path, int], None]


class Transformer(nn.Module):
    """Two layers of width 64 on sequences of 32 letters."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(64, 64), nn.Parameter(torch.randn(32, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(64, 64)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.head(self.layers(self.letters(input_ids) + self.places)).flatten(0, 1)
        return logits if labels is None else {"loss": nn.functional.cross_entropy(logits, labels.flatten())}


class Perceptron(nn.Module):
    """784-128-10."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(784, 128), nn.Tanh(), nn.Linear(128, 10))

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.layers(input_ids)
        return logits if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}


@cache
def data(kind: type[nn.Module], n: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    if kind is Perceptron:
        return [
            (torch.randn(64, 784, generator=generator), torch.randint(10, (64,), generator=generator)) for _ in range(n)
        ]
    letters = torch.randint(64, (n, 64, 33), generator=generator)
    return [(batch[:, :-1].contiguous(), batch[:, 1:].flatten()) for batch in letters]


@cache
def examples(kind: type[nn.Module], n: int) -> list[dict[str, Tensor]]:
    """The same data, one by one."""
    rows = [(row, label) for x, y in data(kind, n) for row, label in zip(x, y.reshape(64, -1), strict=True)]
    return [{"input_ids": row, "labels": label.squeeze()} for row, label in rows]


def update_on(x: Tensor, y: Tensor) -> Callable[[Any, Any], Tensor]:
    def update(model: Any, optimizer: Any) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return update


def plain_ways(kind: type[nn.Module]) -> dict[str, Way]:
    """Loops in torch; the first is not recorded."""

    def start() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = kind()
        return model, torch.optim.AdamW(model.parameters(), lr=1e-3)

    def bare(folder: Path, n: int) -> None:
        model, optimizer = start()
        for x, y in data(kind, n):
            update_on(x, y)(model, optimizer)

    def recorded(every: int) -> Way:
        def go(folder: Path, n: int) -> None:
            model, optimizer = start()
            with Recorder(folder / "run.h5", model, optimizer=optimizer, every=every, mode="w", quiet=True):
                for x, y in data(kind, n):
                    update_on(x, y)(model, optimizer)

        return go

    def with_twins(every: int, store: str) -> Way:
        def go(folder: Path, n: int) -> None:
            model, optimizer = start()
            twins = LoopTwins(model, optimizer, members=2)
            with Recorder(folder / "run.h5", twins, every=every, store=store, mode="w", quiet=True):
                for x, y in data(kind, n):
                    twins.step(update_on(x, y))

        return go

    def vectorised(folder: Path, n: int) -> None:
        model, _ = start()
        factory = lambda parameters: torch.optim.AdamW(parameters, lr=1e-3)  # noqa: E731
        twins = Twins(model, nn.functional.cross_entropy, factory, members=2, seed=0)
        with Recorder(folder / "run.h5", twins, mode="w", quiet=True):
            for x, y in data(kind, n):
                twins.step(x, y)

    return {
        "unrecorded": bare,
        "recorded, every step": recorded(1),
        "recorded, every tenth": recorded(10),
        "two twins (LoopTwins), every step": with_twins(1, "weights"),
        "two twins (LoopTwins), every tenth": with_twins(10, "weights"),
        "two twins (LoopTwins), distances": with_twins(1, "distances"),
        "two twins (Twins), every step": vectorised,
    }


def lightning_ways(kind: type[nn.Module]) -> dict[str, Way]:
    """Fits of Lightning."""
    import lightning

    from recorders.lightning import RecorderCallback, TwinsCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = kind()

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    def fit(callback: Any, every: int = 1) -> Way:
        def go(folder: Path, n: int) -> None:
            callbacks = [callback(folder / "run.h5", every=every, mode="w", quiet=True)] if callback else []
            trainer = lightning.Trainer(
                max_steps=n, max_epochs=-1, accelerator="cpu", logger=False, enable_progress_bar=False,
                enable_model_summary=False, enable_checkpointing=False, callbacks=callbacks,
            )  # fmt: skip
            trainer.fit(Module(), torch.utils.data.DataLoader(data(kind, n), batch_size=None))

        return go

    return ways_of_callbacks(fit, RecorderCallback, TwinsCallback)


def huggingface_ways(kind: type[nn.Module]) -> dict[str, Way]:
    """Trainings of transformers."""
    import transformers

    from recorders.huggingface import RecorderCallback, TwinsCallback

    transformers.logging.set_verbosity_error()

    def train(callback: Any, every: int = 1) -> Way:
        def go(folder: Path, n: int) -> None:
            torch.manual_seed(0)
            callbacks = [callback(folder / "run.h5", every=every, mode="w", quiet=True)] if callback else []
            arguments = transformers.TrainingArguments(
                output_dir=str(folder / "out"), max_steps=n, per_device_train_batch_size=64, report_to=[],
                disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, save_strategy="no", logging_steps=10**6,
            )  # fmt: skip
            transformers.Trainer(kind(), arguments, train_dataset=examples(kind, n), callbacks=callbacks).train()

        return go

    return ways_of_callbacks(train, RecorderCallback, TwinsCallback)


def ways_of_callbacks(go: Callable[..., Way], recorder: Any, twins: Any) -> dict[str, Way]:
    return {
        "unrecorded": go(None),
        "RecorderCallback, every step": go(recorder),
        "RecorderCallback, every tenth": go(recorder, 10),
        "TwinsCallback, two twins, every step": go(twins),
        "TwinsCallback, two twins, every tenth": go(twins, 10),
    }


def compare(title: str, ways: dict[str, Way], folder: Path, n: int, repeat: int) -> None:
    """Let the ways take turns, and print their times over that of the first."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeat + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way(folder, n if turn else 5)  # the first turn loads what is loaded on first use
            times[name].append(time.perf_counter() - began)
    print(title, flush=True)
    for name in list(ways)[1:]:
        ratios = sorted(t / bare for t, bare in list(zip(times[name], times["unrecorded"], strict=True))[1:])
        print(f"  {name:38s} {median(ratios):5.2f}   ({ratios[0]:.2f} .. {ratios[-1]:.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it works")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("recorders").setLevel(logging.ERROR)
    repeat = 1 if options.quick else options.turns
    with tempfile.TemporaryDirectory() as scratch:
        for kind, steps in ((Perceptron, 300), (Transformer, 60)):
            for trainer, ways in (
                ("torch", plain_ways),
                ("Lightning", lightning_ways),
                ("transformers", huggingface_ways),
            ):
                made = ways(kind)
                compare(f"{kind.__name__}, {trainer}", made, Path(scratch), 10 if options.quick else steps, repeat)


if __name__ == "__main__":
    main()
