"""Which learning rate do `find_edge`, range tests, common defaults and Prodigy choose, and how fast does it train?

    python benchmarks/rates.py --store rates.jsonl                       # everything, resumable
    python benchmarks/rates.py --store rates.jsonl --mnist FOLDER        # and the task on MNIST
    python benchmarks/rates.py --store rates.jsonl --only held           # the tasks that nothing was developed with

The sweep trains 13 rates from three seeds for the whole budget. The target of a task is the smallest test loss, median
over the seeds, that a rate reaches at a quarter of the budget. Every recommendation is trained from the same weights on
the same batches. Its ratio is the time to the target over that of the best rate of the sweep for this seed; a training
that misses the target counts twice the budget. `share`: gradients of the recommendation over those of the sweep. The
printed `surprises` are misses of recommendations that were not called doubtful; `last test loss` is that at the end of
the budget over the smallest of the sweep, geometric mean.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rate_tasks import EVERY, SEEDS, Task, run, tasks

from recorders.torch import find_edge

Choice = dict[str, Any]


class Store:
    """Results as lines of JSON; what is there is not computed again."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, {}
        if path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.rows[tuple(row["key"])] = row

    def get(self, key: tuple[Any, ...], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if key not in self.rows:
            self.rows[key] = {"key": key, **compute()}
            with self.path.open("a") as file:
                file.write(json.dumps(self.rows[key]) + "\n")
        return self.rows[key]


def trained(store: Store, task: Task, seed: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Training and test losses at a rate."""
    row = store.get((task.name, seed, f"{rate:.5g}"), lambda: _row(run(task, seed, rate)))
    return np.array(row["train"], float), np.array(row["test"], float)


def _row(curves: tuple[list[float], list[float]]) -> dict[str, Any]:
    return {name: [float(f"{v:.6g}") for v in curve] for name, curve in zip(("train", "test"), curves, strict=True)}


def time_to(target: float, test: np.ndarray, budget: int) -> float:
    """Steps until the test loss is at most the target; twice the budget if it never is."""
    reached = np.flatnonzero(test <= target)
    return float((reached[0] + 1) * EVERY) if len(reached) else 2.0 * budget


def last_loss(test: np.ndarray) -> float:
    """Test loss at the end of the budget; what is next to nothing counts as 1e-6."""
    return max(float(np.min(test[-4:])), 1e-6)


class Sweep:
    """Full sweep of a task: target, and the best time for each seed."""

    def __init__(self, store: Store, task: Task) -> None:
        quarter = task.budget // EVERY // 4 - 1
        tests = {seed: [trained(store, task, seed, rate)[1] for rate in task.rates] for seed in SEEDS}
        at_quarter = np.array([[test[quarter] for test in tests[seed]] for seed in SEEDS])
        self.target = float(np.median(at_quarter, axis=0).min())
        self.best = {seed: min(time_to(self.target, test, task.budget) for test in tests[seed]) for seed in SEEDS}
        self.last = {seed: min(last_loss(test) for test in tests[seed]) for seed in SEEDS}
        self.gradients = len(SEEDS) * len(task.rates) * task.budget


# -- methods: each returns the rate and its cost


def edge(task: Task, seed: int) -> Choice:
    """Race of `find_edge`, from the weights and batches of the training."""
    edge = find_edge(task.network(seed), task.batches(400, seed), task.loss, task.factory, exponents=False)
    return {
        "rate": edge.recommended,
        "long": edge.recommended_long,
        "doubtful": edge.doubtful,
        "horizon": edge.horizon,
        "gradients": edge.gradients,
        "doubts": [reason.code for reason in edge.doubts],
        "codes": [reason.code for reason in (*edge.reasons, *edge.warnings)],
    }


def range_test(task: Task, seed: int, lowest: float, highest: float) -> tuple[np.ndarray, np.ndarray]:
    """Loss while the rate grows by a factor every step; 100 steps."""
    model, n = task.network(seed), 100
    rates = lowest * (highest / lowest) ** (np.arange(n) / (n - 1))
    optimizer = task.factory(model.parameters(), lowest)
    losses = []
    for rate, (x, y) in zip(rates, task.batches(n, seed), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        optimizer.zero_grad()
        loss = task.loss(model(x), y)
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            break
        loss.backward()
        optimizer.step()
    return rates[: len(losses)], np.array(losses)


def smoothed(losses: np.ndarray, beta: float) -> np.ndarray:
    """Exponential mean, corrected for its start."""
    mean, result = 0.0, []
    for i, value in enumerate(losses):
        mean = beta * mean + (1 - beta) * value
        result.append(mean / (1 - beta ** (i + 1)))
    return np.array(result)


def until_worse(rates: np.ndarray, losses: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut a range test where the loss exceeds a multiple of its minimum."""
    worse = np.flatnonzero((losses > factor * np.minimum.accumulate(losses)) | ~np.isfinite(losses))
    end = int(worse[0]) if len(worse) else len(losses)
    return rates[: max(end, 3)], losses[: max(end, 3)]


def fastai(task: Task, seed: int) -> dict[str, Choice]:
    """`lr_find` of fastai: rates 1e-7 to 10, smoothing .98, stop at four times the minimum; three suggestions."""
    rates, losses = range_test(task, seed, 1e-7, 10.0)
    rates, losses = until_worse(rates, smoothed(losses, 0.98), 4.0)
    rates, losses = rates[len(rates) // 10 : -5], losses[len(losses) // 10 : -5]
    slopes = np.diff(losses) / np.diff(np.log(rates))
    longest, start, best = np.ones(len(losses), int), np.arange(len(losses)), (0, 0)
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and longest[j] + 1 > longest[i]:
                longest[i], start[i] = longest[j] + 1, start[j]
    end = int(np.argmax(longest))
    best = (int(start[end]), end)
    valley = best[0] + int((best[1] - best[0]) / 3 * 2)
    chosen = {"minimum / 10": rates[np.argmin(losses)] / 10, "steep": rates[np.argmin(slopes)], "valley": rates[valley]}
    return {f"fastai {name}": {"rate": float(rate), "gradients": 100} for name, rate in chosen.items()}


def lightning(task: Task, seed: int) -> Choice:
    """`lr_find` of Lightning: rates 1e-8 to 1, smoothing .98, stop at four times the minimum, steepest descent."""
    rates, losses = range_test(task, seed, 1e-8, 1.0)
    rates, losses = until_worse(rates, smoothed(losses, 0.98), 4.0)
    return {"rate": float(rates[10:-1][np.argmin(np.gradient(losses[10:-1]))]), "gradients": 100}


def lr_finder(task: Task, seed: int) -> Choice:
    """torch-lr-finder: rates 1e-7 to 100, smoothing .05, stop at five times the minimum, steepest descent."""
    rates, losses = range_test(task, seed, 1e-7, 100.0)
    mean = [losses[0]]
    for value in losses[1:]:
        mean.append(0.05 * value + 0.95 * mean[-1])
    rates, losses = until_worse(rates, np.array(mean), 5.0)
    rates, losses = rates[10:-5], losses[10:-5]
    return {"rate": float(rates[np.argmin(np.gradient(losses))]), "gradients": 100}


def default(task: Task) -> float:
    return 0.1 if task.optimizer in ("sgd", "momentum", "nesterov") else 1e-3


def prodigy(task: Task, seed: int) -> dict[str, Any]:
    from prodigyopt import Prodigy

    return _row(run(task, seed, 1.0, lambda parameters, rate: Prodigy(parameters, lr=rate)))


def choices(store: Store, task: Task, seed: int) -> Iterator[tuple[str, Choice]]:
    """Every method's recommendation."""
    race = store.get((task.name, seed, "find_edge"), lambda: edge(task, seed))
    yield "find_edge", race
    yield "find_edge, for long trainings", {**race, "rate": race["long"]}
    for name, choice in store.get((task.name, seed, "fastai"), lambda: fastai(task, seed)).items():
        if name != "key":
            yield name, choice
    yield "Lightning lr_find", store.get((task.name, seed, "lightning"), lambda: lightning(task, seed))
    yield "torch-lr-finder", store.get((task.name, seed, "lr-finder"), lambda: lr_finder(task, seed))
    yield "default: SGD .1, Adam 1e-3", {"rate": default(task), "gradients": 0}


# -- the table


def measured(store: Store, names: list[Task], with_prodigy: bool) -> dict[str, list[dict[str, Any]]]:
    """What became of every recommendation, by method."""
    results: dict[str, list[dict[str, Any]]] = {}
    for task in names:
        sweep = Sweep(store, task)
        for seed in SEEDS:
            tried = []
            for name, choice in choices(store, task, seed):
                fine = choice["rate"] is not None and np.isfinite(choice["rate"])
                nothing = np.full(task.budget // EVERY, np.inf)
                tried.append((name, choice, trained(store, task, seed, choice["rate"])[1] if fine else nothing))
            if with_prodigy:
                row = store.get((task.name, seed, "prodigy"), partial(prodigy, task, seed))
                tried.append(("Prodigy", {"gradients": 0}, np.array(row["test"], float)))
            for name, choice, test in tried:
                results.setdefault(name, []).append(outcome(task, sweep, seed, test) | choice)
                results[name][-1]["share"] = choice["gradients"] / sweep.gradients
        print(f"{task.name} done", flush=True)
    return results


def outcome(task: Task, sweep: Sweep, seed: int, test: np.ndarray) -> dict[str, Any]:
    """Ratio, miss and last loss of one training."""
    took = time_to(sweep.target, test, task.budget)
    last = last_loss(test) / sweep.last[seed]
    return {
        "task": task.name, "seed": seed, "ratio": took / sweep.best[seed], "miss": took > task.budget, "last": last,
    }  # fmt: skip


def group_of(name: str) -> str:
    if not name.startswith("held-"):
        return "developed"
    sets = {
        "held-fresh-": "second held-out set",
        "held-tiny-": "tiny tables",
        "held-small-": "small tables",
        "held-last-": "last tables",
        "held-noisy-": "noisy tables",
        "held-scarce-": "scarce tables",
    }
    return next((title for start, title in sets.items() if name.startswith(start)), "held out")


def table(results: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield "| method | geometric mean | median | worst | misses | surprises | doubtful | gradients | last test loss |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, rows in results.items():
        ratios = np.array([row["ratio"] for row in rows])
        misses = sum(row["miss"] for row in rows)
        doubts = [bool(row.get("doubtful")) for row in rows]
        surprises = sum(row["miss"] and not doubt for row, doubt in zip(rows, doubts, strict=True))
        share = np.mean([row["share"] for row in rows])
        last = np.array([row["last"] for row in rows])
        last = np.exp(np.log(np.minimum(last, 100.0)).mean())
        middle = f"{np.exp(np.log(ratios).mean()):.2f} | {np.median(ratios):.2f} | {ratios.max():.1f}"
        yield (
            f"| {name} | {middle} | {misses} of {len(rows)} | {surprises} | {sum(doubts)} | {share:.1%} | {last:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True, help="lines of JSON with all results so far")
    parser.add_argument("--mnist", metavar="FOLDER", help="images in IDX form")
    parser.add_argument("--only", choices=("developed", "held", "all"), default="all", help="which tasks")
    parser.add_argument("--tasks", nargs="*", help="names of tasks; default: all that --only selects")
    parser.add_argument("--prodigy", action="store_true", help="also train with Prodigy (package prodigyopt)")
    parser.add_argument("--rows", action="store_true", help="print every recommendation of find_edge")
    options = parser.parse_args()
    torch.set_num_threads(1)
    some = [
        task
        for task in tasks(options.mnist).values()
        if (
            task.name in options.tasks
            if options.tasks
            else options.only in ("all", ("developed", "held")[task.held_out])
        )
    ]
    results = measured(Store(options.store), some, options.prodigy)
    if options.rows:
        for row in results["find_edge"]:
            print({key: value for key, value in row.items() if key != "key"})
    for group in (
        "developed",
        "held out",
        "second held-out set",
        "tiny tables",
        "small tables",
        "last tables",
        "noisy tables",
        "scarce tables",
    ):
        part = {name: [row for row in rows if group_of(row["task"]) == group] for name, rows in results.items()}
        if any(part.values()):
            print(f"\n{group}: {len({row['task'] for row in part['find_edge']})} tasks x {len(SEEDS)} seeds")
            print("\n".join(table(part)))
            sure = np.array([row["ratio"] for row in part["find_edge"] if not row["doubtful"]])
            if len(sure):
                mean = np.exp(np.log(sure).mean())
                print(f"find_edge where not doubtful ({len(sure)}): {mean:.2f}, worst {sure.max():.2f}")


if __name__ == "__main__":
    main()
