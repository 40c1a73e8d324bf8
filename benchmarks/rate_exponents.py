"""Are the exponents of `find_edge` those of well aligned tangent vectors?

    python benchmarks/rate_exponents.py --store exponents.jsonl                     # everything, resumable
    python benchmarks/rate_exponents.py --store exponents.jsonl --tasks held-fresh-wine-sgd

The truth for a rate is the growth, over the same steps of the float64 training, of the direction that has grown most
until then (the leading left singular vector of the product of the Jacobians before) in the span of 12 vectors that
start along the curvature, or in that of 4 random ones where it grows faster. None of them is a vector of `find_edge`.
Rates are those that `find_edge` measures with its defaults.
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

from recorders.edge import EXPONENT_STEPS, FIRST, TangentVectors, burn_of
from recorders.torch import find_edge
from recorders.torch.hessian import Objective, Slope
from recorders.torch.tangents import Tangents

ALONG, RANDOM = 12, 4
SMOOTH = (
    "regression-tanh-sgd", "logistic-stretched", "held-friedman-momentum", "held-residual-sgd", "held-fresh-wine-sgd",
    "held-small-diabetes-momentum", "held-scarce-teacher-rmsprop",
)  # fmt: skip
KINKED = ("held-fresh-diabetes-adam", "held-fresh-moons-adam", "held-scarce-curve-momentum")


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
    burn, vectors = burn_of(EXPONENT_STEPS), None
    gains = np.zeros(2)
    for t, batch in enumerate(batches):
        if t == FIRST:
            blocks = starts(Objective(model, task.loss), batch, jacobian.n_weights)
            vectors = TangentVectors(jacobian.n_state, blocks, burn - FIRST)
        if vectors is not None:
            images = jacobian.images(vectors.columns, *batch)
            if not np.isfinite(images).all():
                return math.nan
            gains += (t >= burn) * vectors.advance(images)
        optimizer.zero_grad()
        task.loss(model(batch[0]), *batch[1:]).backward()
        optimizer.step()
    return float(gains.max()) / (len(batches) - burn)


def starts(objective: Objective, batch: Any, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(12345)
    along, random = rng.standard_normal((n, min(ALONG, n))), rng.standard_normal((n, min(RANDOM, n)))
    with objective.noise():
        slope = Slope(objective, batch)
    along = np.stack([objective.flat(slope.times(objective.unflat(column))) for column in along.T], axis=1)
    return [block / np.maximum(np.linalg.norm(block, axis=0), 1e-300) for block in (along, random)]


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
