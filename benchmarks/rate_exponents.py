"""Are the exponents of `find_edge` those of well aligned tangent vectors?

    python benchmarks/rate_exponents.py --store exponents.jsonl                     # everything, resumable
    python benchmarks/rate_exponents.py --store exponents.jsonl --tasks held-fresh-wine-sgd

The truth for a rate is the growth, over the same steps of the float64 training, of the direction that has grown most
until then: the leading left singular vector of the product of the Jacobians before, in the span of 24 vectors that
start along the curvature and 8 random ones, or of all directions where the network has no more. None of them is a
vector of `find_edge`. Rates are those that `find_edge` measures with its defaults.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rate_tasks import Task, tasks
from rates import Store
from torch.utils._pytree import tree_map

from recorders.edge import EXPONENT_STEPS, FIRST, burn_of
from recorders.torch import find_edge
from recorders.torch.hessian import Objective, Slope
from recorders.torch.tangents import Tangents

ALONG, RANDOM = 24, 8
SMOOTH = (
    "regression-tanh-sgd", "logistic-stretched", "sorter-adamw", "held-friedman-momentum", "held-residual-sgd",
    "held-clinic-tanh-adam", "held-fresh-wine-sgd", "held-small-diabetes-momentum", "held-noisy-friedman-momentum",
    "held-scarce-teacher-rmsprop",
)  # fmt: skip
KINKED = (
    "mlp-relu-sgd", "mlp-relu-adam", "held-conv-adam", "held-fresh-diabetes-adam", "held-fresh-moons-adam",
    "held-scarce-curve-momentum", "held-noisy-shells-adamw",
)  # fmt: skip


def aligned(task: Task, rate: float) -> float:
    """Growth per step of the direction that has grown most, NaN where the float64 training diverges."""
    torch.manual_seed(0)
    model = task.network(0).double()
    optimizer = task.factory(model.parameters(), rate)
    batches = [
        tree_map(lambda part: part.double() if part.is_floating_point() else part, batch)
        for batch in task.batches(EXPONENT_STEPS, 0)
    ]
    jacobian = Tangents(model, task.loss, optimizer, vectors="kept")
    n, rng = jacobian.n_weights, np.random.default_rng(12345)
    burn, size = burn_of(EXPONENT_STEPS), min(ALONG + RANDOM, n)
    frame, product, direction = np.zeros((jacobian.n_state, size)), np.eye(size), np.empty(0)
    for t, batch in enumerate(batches):
        if t == FIRST:
            frame[:n] = np.eye(n) if n <= size else starts(Objective(model, task.loss), batch, rng, n)
            frame = np.linalg.qr(frame)[0]
        if t == burn:
            direction = np.linalg.svd(product)[0][:, 0]
            gain = -math.log(np.linalg.norm(frame[:n] @ direction))
        images = jacobian.images(frame, *batch) if t >= FIRST else frame
        if not np.isfinite(images).all():
            return math.nan
        if t >= FIRST:
            frame, triangle = np.linalg.qr(images)
        if FIRST <= t < burn:
            product = triangle @ product
            product /= np.abs(product).max()
        elif t >= burn:
            direction = triangle @ direction
            gain += math.log(np.linalg.norm(direction))
            direction /= np.linalg.norm(direction)
        optimizer.zero_grad()
        task.loss(model(batch[0]), *batch[1:]).backward()
        optimizer.step()
    return (gain + math.log(np.linalg.norm(frame[:n] @ direction))) / (len(batches) - burn)


def starts(objective: Objective, batch: Any, rng: np.random.Generator, n: int) -> np.ndarray:
    columns = rng.standard_normal((n, ALONG + RANDOM))
    with objective.noise():
        slope = Slope(objective, batch)
    for k in range(ALONG):
        columns[:, k] = objective.flat(slope.times(objective.unflat(columns[:, k])))
    return columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)


def measured(task: Task) -> dict[str, Any]:
    edge = find_edge(task.network(0), task.batches(400, 0), task.loss, task.factory)
    rows = [
        [float(edge.rates[i]), float(edge.exponents[i]), edge.convergence[i], aligned(task, float(edge.rates[i]))]
        for i in np.flatnonzero(np.isfinite(edge.exponents))
    ]
    return {"rows": rows, "gradients": edge.gradients, "exponent_gradients": edge.exponent_gradients}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True, help="lines of JSON with all results so far")
    parser.add_argument("--tasks", nargs="*", default=[*SMOOTH, *KINKED], help="names of tasks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    store, known = Store(options.store), tasks()
    for group, names in (("smooth", SMOOTH), ("with kinks", KINKED)):
        some = {
            name: store.get((name,), lambda name=name: measured(known[name])) for name in names if name in options.tasks
        }
        rows = [(name, *row) for name, found in some.items() for row in found["rows"]]
        steps = EXPONENT_STEPS - burn_of(EXPONENT_STEPS)
        for name, rate, value, code, truth in rows:
            print(f"{name:30s} {rate:9.3g} {value:9.4f} {code:9s} aligned {truth:9.4f}")
        if not rows:
            continue
        print(f"{group}: {len(rows)} exponents on {len(some)} tasks")
        for code in ("relative", "absolute", "no"):
            part = [(value, truth) for _, _, value, found, truth in rows if found == code]
            near = sum(abs(value - truth) <= 0.2 * abs(truth) for value, truth in part)
            small = sum(abs(value - truth) * steps <= 0.2 * max(1.0, abs(truth) * steps) for value, truth in part)
            print(f"  {code}: {len(part)}; within 20 %: {near}; or within 0.2 nats over {steps} steps: {small}")


if __name__ == "__main__":
    main()
