"""What recording, twins and the Hessian cost a training: rows of `table.py`, and two tables of their own.

    python benchmarks/table.py --only training
    python benchmarks/training.py trainers             # recorded trainings in torch, Lightning and transformers
    OMP_NUM_THREADS=1 python benchmarks/training.py vectorize   # what `vectorize="auto"` of `Twins` is fitted to

A perceptron and a small transformer, batches of 64, AdamW: plain loops in torch, and the Trainers of Lightning and
Hugging Face. The ways take turns. Of `trainers`, each number is the median over the turns of its time over that of the
unrecorded loop of the same turn, with the smallest and the largest. Of `vectorize`, the least time of the looped step
over that of the vectorised one: below 1 the loop is faster; in JAX, each path over as many separate trainings.
For JAX set XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", too.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from measure import Growth, Item, Row, Skipped, installed, least
from torch import Tensor, nn

from recorders.torch import LoopTwins, Recorder, Twins, hessian_vector_product, sharpness

Training = Callable[[Path, int], None]


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


def plain_ways(kind: type[nn.Module]) -> dict[str, Training]:
    """Loops in torch; the first is not recorded."""

    def start() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = kind()
        return model, torch.optim.AdamW(model.parameters(), lr=1e-3)

    def bare(folder: Path, n: int) -> None:
        model, optimizer = start()
        for x, y in data(kind, n):
            update_on(x, y)(model, optimizer)

    def recorded(every: int) -> Training:
        def go(folder: Path, n: int) -> None:
            model, optimizer = start()
            with Recorder(folder / "run.h5", model, optimizer=optimizer, every=every, mode="w", quiet=True):
                for x, y in data(kind, n):
                    update_on(x, y)(model, optimizer)

        return go

    def with_twins(every: int, store: str) -> Training:
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


def lightning_ways(kind: type[nn.Module]) -> dict[str, Training]:
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

    def fit(callback: Any, every: int = 1) -> Training:
        def go(folder: Path, n: int) -> None:
            callbacks = [callback(folder / "run.h5", every=every, mode="w", quiet=True)] if callback else []
            trainer = lightning.Trainer(
                max_steps=n, max_epochs=-1, accelerator="cpu", logger=False, enable_progress_bar=False,
                enable_model_summary=False, enable_checkpointing=False, callbacks=callbacks,
            )  # fmt: skip
            trainer.fit(Module(), torch.utils.data.DataLoader(data(kind, n), batch_size=None))

        return go

    return ways_of_callbacks(fit, RecorderCallback, TwinsCallback)


def huggingface_ways(kind: type[nn.Module]) -> dict[str, Training]:
    """Trainings of transformers."""
    import transformers

    from recorders.huggingface import RecorderCallback, TwinsCallback

    transformers.logging.set_verbosity_error()

    def train(callback: Any, every: int = 1) -> Training:
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


def ways_of_callbacks(go: Callable[..., Training], recorder: Any, twins: Any) -> dict[str, Training]:
    return {
        "unrecorded": go(None),
        "RecorderCallback, every step": go(recorder),
        "RecorderCallback, every tenth": go(recorder, 10),
        "TwinsCallback, two twins, every step": go(twins),
        "TwinsCallback, two twins, every tenth": go(twins, 10),
    }


def compare(title: str, ways: dict[str, Training], folder: Path, n: int, repeat: int) -> None:
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


# -- the Hessian -------------------------------------------------------------------------------------------------------


TOLERANCE = 1e-5


def network(*sizes: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for n, m in pairwise(sizes):
        layers += [nn.Linear(n, m), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def batch_of(*sizes: int, rows: int = 128) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, sizes[0], generator=generator), torch.randint(sizes[-1], (rows,), generator=generator)


def plain_product(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], list[np.ndarray]]:
    """A product of the Hessian with a random vector; the graph of the gradient is kept."""
    weights = list(model.parameters())
    gradient = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), weights, create_graph=True)
    generator = torch.Generator().manual_seed(2)
    vector = [torch.randn(w.shape, generator=generator) for w in weights]
    return lambda: list(torch.autograd.grad(gradient, weights, vector, retain_graph=True))


def by_curvlinops(model: nn.Module, x: Tensor, y: Tensor) -> Any:
    operator = installed("curvlinops").HessianLinearOperator
    return operator(model, nn.CrossEntropyLoss(), list(model.parameters()), [(x, y)], check_deterministic=False)


def sharpness_row(*sizes: int, rows: int) -> Row:
    model, (x, y) = network(*sizes), batch_of(*sizes, rows=rows)
    loss = nn.functional.cross_entropy

    def ours() -> Any:
        return sharpness(model, loss, x, y, which="largest", tolerance=TOLERANCE)

    def curvlinops() -> Any:
        eigsh = installed("scipy.sparse.linalg").eigsh
        operator = by_curvlinops(model, x, y)
        operator = operator.to_scipy() if hasattr(operator, "to_scipy") else operator
        return lambda: float(eigsh(operator, k=1, which="LA", tol=TOLERANCE, return_eigenvectors=False)[0])

    def pyhessian() -> Any:
        hessian = installed("pyhessian").hessian
        return lambda: hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False).eigenvalues(tol=TOLERANCE)[0][0]

    def limit() -> Any:
        product, count = plain_product(model, x, y), ours().n_products
        return lambda: [product() for _ in range(count)]

    def check(answers: dict[str, Any]) -> str:
        value = float(answers.pop("ours").largest[0])
        off = {name: abs(answer / value - 1) for name, answer in answers.items() if not isinstance(answer, list)}
        if off.get("curvlinops and eigsh", 0) > 1e-3:
            raise AssertionError(f"largest eigenvalue: {value} and {answers}")
        return ", ".join(f"{name} is {error:.1%} off" for name, error in off.items() if error > 1e-3)

    weights = sum(p.numel() for p in model.parameters())
    return Row(
        f"`sharpness`, {weights:,} weights, batch {rows}",
        ours,
        {"curvlinops and eigsh": curvlinops, "PyHessian": pyhessian},
        ("as many plain products", limit),
        check,
    )


def jax_sharpness_row(n: int, hidden: int, m: int, rows: int) -> Row:
    """The same in JAX; a plain product is a compiled `jvp` of the gradient."""
    jax, probes = installed("jax"), installed("recorders.jax")
    params, loss_fn, x, y = jax_perceptron(n, hidden, m, rows)

    def ours() -> Any:
        return probes.sharpness(params, loss_fn, x, y, which="largest", tolerance=TOLERANCE)

    def limit() -> Any:
        count = ours().n_products
        product = jax.jit(lambda p, x, y, v: jax.jvp(lambda p: jax.grad(loss_fn)(p, x, y), (p,), (v,))[1])
        return lambda: [jax.block_until_ready(product(params, x, y, params)) for _ in range(count)]

    weights = sum(weight.size for weight in params)
    return Row(f"`sharpness` in JAX, {weights:,} weights, batch {rows}", ours, limit=("as many plain products", limit))


def product_row(*sizes: int) -> Row:
    model, (x, y) = network(*sizes), batch_of(*sizes)
    vector = np.random.default_rng(0).standard_normal(sum(p.numel() for p in model.parameters()))

    def curvlinops() -> Any:
        operator, single = by_curvlinops(model, x, y), torch.from_numpy(vector.astype("f4"))
        return lambda: (operator @ single).detach().numpy()

    def graph_and_product() -> list[np.ndarray]:
        return plain_product(model, x, y)()

    def check(answers: dict[str, Any]) -> None:
        if "curvlinops" in answers:
            np.testing.assert_allclose(answers["ours"], answers["curvlinops"], rtol=1e-3, atol=TOLERANCE)

    return Row(
        f"`hessian_vector_product`, {len(vector):,} weights",
        lambda: hessian_vector_product(model, nn.functional.cross_entropy, vector, x, y),
        {"curvlinops": curvlinops},
        ("a plain product, graph included", lambda: graph_and_product),
        check,
    )


# -- twins and recording -----------------------------------------------------------------------------------------------


def twins(sizes: tuple[int, ...], members: int, vectorize: bool | str) -> Twins:
    return Twins(
        network(*sizes), nn.CrossEntropyLoss(), lambda p: torch.optim.SGD(p, lr=0.01),
        epsilon=1e-4, members=members, seed=0, vectorize=vectorize, replant=None,
    )  # fmt: skip


def step_of(sizes: tuple[int, ...], members: int, rows: int = 64) -> Callable[[], None]:
    """A step of a reference and its twins, by the path that is chosen."""
    made, (x, y) = twins(sizes, members, "auto"), batch_of(*sizes, rows=rows)
    return lambda: made.step(x, y)


def twins_row(*sizes: int, members: int = 8) -> Row:
    def separate() -> Callable[[], None]:
        x, y = batch_of(*sizes, rows=64)
        models = [network(*sizes) for _ in range(members + 1)]
        optimizers = [torch.optim.SGD(model.parameters(), lr=0.01) for model in models]

        def step() -> None:
            for model, optimizer in zip(models, optimizers, strict=True):
                update_on(x, y)(model, optimizer)

        return step

    return Row(
        f"a step of `Twins`, {members} twins, {'-'.join(map(str, sizes))}",
        step_of(sizes, members),
        limit=(f"{members + 1} separate trainings", separate),
    )


def jax_perceptron(n: int, hidden: int, m: int, rows: int) -> tuple[Any, Callable[..., Any], Any, Any]:
    """Weights of a perceptron, its loss, and a batch."""
    jax, numpy = installed("jax"), installed("jax.numpy")
    rng = np.random.default_rng(0)
    drawn = [
        rng.standard_normal((n, hidden)) / 28,
        np.zeros(hidden),
        rng.standard_normal((hidden, m)) / 11,
        np.zeros(m),
    ]
    params = [numpy.asarray(weight, numpy.float32) for weight in drawn]
    x, y = numpy.asarray(rng.standard_normal((rows, n)), numpy.float32), numpy.asarray(rng.integers(0, m, rows))

    def loss_fn(params: Any, x: Any, y: Any) -> Any:
        w, b, v, c = params
        scores = jax.nn.log_softmax(numpy.tanh(x @ w + b) @ v + c)
        return -numpy.mean(numpy.take_along_axis(scores, y[:, None], 1))

    return params, loss_fn, x, y


def jax_step_of(
    sizes: tuple[int, int, int], members: int, rows: int = 64, path: str = "auto", replant: str | None = None
) -> Callable[[], Any]:
    """A step of twins in JAX: by the path that is chosen, or one of "at once", "stacked" and "apart"."""
    jax, optax, module = installed("jax"), installed("optax"), installed("recorders.jax.twins")
    params, loss_fn, x, y = jax_perceptron(*sizes, rows)
    stacked = {"apart": 0, "stacked": 10**12}.get(path, module.LARGEST_STACKED)
    vectorize = {"auto": "auto", "at once": True}.get(path, False)
    with patch.object(module, "LARGEST_STACKED", stacked):
        made = module.Twins(params, loss_fn, optax.sgd(0.01), epsilon=1e-4, members=members, seed=0, replant=replant,
                            vectorize=vectorize)  # fmt: skip
    return lambda: jax.block_until_ready((made.step(x, y), made.held))


def jax_separate(sizes: tuple[int, int, int], members: int, rows: int = 64) -> Callable[[], Any]:
    """A step of as many separate trainings."""
    jax, optax = installed("jax"), installed("optax")
    params, loss_fn, x, y = jax_perceptron(*sizes, rows)
    optimizer = optax.sgd(0.01)

    @jax.jit
    def update(params: Any, state: Any, x: Any, y: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_fn)(params, x, y)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    trained = [(params, optimizer.init(params), None) for _ in range(members + 1)]

    def step() -> None:
        trained[:] = [update(weights, state, x, y) for weights, state, _ in trained]
        jax.block_until_ready(trained)

    return step


def jax_twins_row(*sizes: int, members: int = 8) -> Row:
    n, hidden, m = sizes
    return Row(
        f"a step of `Twins` in JAX, {members} twins, {n}-{hidden}-{m}",
        jax_step_of((n, hidden, m), members),
        limit=(f"{members + 1} separate trainings", lambda: jax_separate((n, hidden, m), members)),
    )


def recorded_row(folder: Path, way: str, n: int) -> Row:
    ways = plain_ways(Perceptron)

    def by_torch_save(every: int) -> Callable[[], None]:
        def train() -> None:
            torch.manual_seed(0)
            model = Perceptron()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            for i, (x, y) in enumerate(data(Perceptron, n)):
                update_on(x, y)(model, optimizer)
                if i % every == 0:
                    torch.save(model.state_dict(), folder / f"{i}.pt")

        return train

    return Row(
        f"{n} steps of a 784-128-10 perceptron, {way}",
        lambda: ways[way](folder, n),
        {"torch.save of the same": lambda: by_torch_save(10 if "tenth" in way else 1)},
        ("unrecorded", lambda: lambda: ways["unrecorded"](folder, n)),
    )


def items(quick: bool = False) -> Iterator[Item]:
    """Rows of the table, and how the costs grow with members and weights."""
    torch.set_num_threads(1)
    logging.getLogger("recorders").setLevel(logging.ERROR)
    yield product_row(784, 128, 10)
    for rows in (64, 1024):
        yield sharpness_row(784, 128, 10, rows=rows)
    with suppress(Skipped):  # no JAX
        for rows in (64, 1024):
            yield jax_sharpness_row(784, 128, 10, rows)
    for sizes in ((64, 32, 10), (784, 128, 10), *(() if quick else ((1500, 1000, 1000, 10),))):
        yield twins_row(*sizes)
    with suppress(Skipped):
        for sizes in ((64, 32, 10), (784, 128, 10), *(() if quick else ((784, 512, 10),))):
            yield jax_twins_row(*sizes)
    with tempfile.TemporaryDirectory() as name:
        for way in ("recorded, every step", "recorded, every tenth"):
            yield recorded_row(Path(name), way, 20 if quick else 200)
    counts = [2, 4, 8] if quick else [2, 4, 8, 16, 32]
    yield Growth("a step of `Twins`, 784-128-10", "twins", counts, partial(step_of, (784, 128, 10)), "1")
    yield Growth(
        "a step of `Twins`, 4 twins, 784-n-10", "hidden units", [32 * k for k in counts],
        lambda n: step_of((784, n, 10), 4), "1",
    )  # fmt: skip
    with suppress(Skipped):
        yield Growth("a step of `Twins` in JAX, 784-128-10", "twins", counts, partial(jax_step_of, (784, 128, 10)), "1")
        yield Growth(
            "a step of `Twins` in JAX, 4 twins, 784-n-10", "hidden units", [32 * k for k in counts],
            lambda n: jax_step_of((784, n, 10), 4), "1",
        )  # fmt: skip
    yield Growth(
        "`hessian_vector_product`, 64-n-10", "hidden units", [32 * k for k in counts],
        lambda n: product_row(64, n, 10).ours, "1",
    )  # fmt: skip


# -- what the rule of vectorize="auto" is fitted to --------------------------------------------------------------------

SIZES = ((64, 32, 10), (64, 128, 10), (784, 128, 10), (784, 300, 100, 10), (784, 512, 512, 10), (1500, 1000, 1000, 10))


def compare_paths() -> None:
    torch.set_num_threads(1)
    for sizes in SIZES:
        weights = sum((n + 1) * m for n, m in pairwise(sizes))
        for members in (2, 4, 8):
            for rows in (32, 128, 256, 1024):
                x, y = batch_of(*sizes, rows=rows)
                ways = {name: twins(sizes, members, name == "at once") for name in ("loop", "at once")}
                spent = least({name: partial(made.step, x, y) for name, made in ways.items()}, turns=20)
                loop, once = (1e3 * spent[name][0] for name in ways)
                print(
                    f"{'-'.join(map(str, sizes)):18s} {weights:9d} weights, {members + 1} members, batch {rows:3d}: "
                    f"loop {loop:8.2f} ms, at once {once:8.2f} ms, ratio {loop / once:.2f}",
                    flush=True,
                )


JAX_SIZES = ((64, 32, 10), (64, 128, 10), (128, 256, 10), (784, 128, 10), (784, 256, 10), (784, 512, 10))


def compare_jax_paths() -> None:
    for sizes in JAX_SIZES:
        for members in (2, 8):
            for rows in (32, 128):
                ways = {path: jax_step_of(sizes, members, rows, path) for path in ("at once", "stacked", "apart")}
                ways["separate"] = jax_separate(sizes, members, rows)
                spent = {name: seconds for name, (seconds, _) in least(ways, turns=20).items()}
                base = spent.pop("separate")
                print(
                    f"JAX, {'-'.join(map(str, sizes)):12s} {members + 1} members, batch {rows:3d}: "
                    f"{members + 1} separate {1e3 * base:7.2f} ms; over it "
                    + ", ".join(f"{name} {seconds / base:.2f}" for name, seconds in spent.items()),
                    flush=True,
                )


def compare_trainers(quick: bool, turns: int) -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("recorders").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        for kind, steps in ((Perceptron, 300), (Transformer, 60)):
            for trainer, ways in (
                ("torch", plain_ways),
                ("Lightning", lightning_ways),
                ("transformers", huggingface_ways),
            ):
                title = f"{kind.__name__}, {trainer}"
                compare(title, ways(kind), Path(scratch), 10 if quick else steps, 1 if quick else turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("trainers", "vectorize"))
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it works")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    if options.what == "vectorize":
        compare_paths()
        compare_jax_paths()
    else:
        compare_trainers(options.quick, options.turns)


if __name__ == "__main__":
    main()
