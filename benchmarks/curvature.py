"""What the largest eigenvalue of a Hessian costs, over the Hessian-vector products that it needs.

``OMP_NUM_THREADS=1 python benchmarks/curvature.py``, a perceptron 784-128-10 in float32 and batches of three sizes, in
PyTorch and JAX, in turn. A plain product of torch differentiates a gradient whose graph is kept, that of JAX is a
compiled ``jvp`` of the gradient. Power iteration and eigsh on curvlinops' Hessian (if installed) stop at the same
tolerance. Numbers are least processor times.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

import recorders.jax
import recorders.torch

TOLERANCE = 1e-5
TURNS = 6
Sample = dict[str, tuple[float, int]]  # name -> seconds and products


def seconds(act: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = act()
    return time.process_time() - began, result


def torch_task(batch: int) -> Callable[[], tuple[Sample, float]]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, loss_fn = nn.Sequential(nn.Linear(784, 128), nn.Tanh(), nn.Linear(128, 10)), nn.CrossEntropyLoss()
    x, y = torch.randn(batch, 784), torch.randint(0, 10, (batch,))
    weights = list(model.parameters())
    n = sum(weight.numel() for weight in weights)

    def slope() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(loss_fn(model(x), y), weights, create_graph=True)

    def products(count: int) -> None:
        gradient, vector = slope(), [torch.randn_like(weight) for weight in weights]
        for _ in range(count):
            torch.autograd.grad(gradient, weights, vector, retain_graph=True)

    def power() -> int:
        """Power iteration as PyHessian does it, until the eigenvalue changes by less than the tolerance."""
        gradient, value, count = slope(), 0.0, 0
        vector = [torch.randn_like(weight) for weight in weights]
        while count < 1000:
            count += 1
            size = torch.sqrt(sum((part * part).sum() for part in vector))
            vector = [part / size for part in vector]
            image = torch.autograd.grad(gradient, weights, vector, retain_graph=True)
            before, value = value, float(sum((a * b).sum() for a, b in zip(vector, image, strict=True)))
            if abs(value - before) < TOLERANCE * abs(value):
                break
            vector = list(image)
        return count

    def eigsh() -> int:
        from curvlinops import HessianLinearOperator
        from scipy.sparse.linalg import LinearOperator, eigsh

        hessian = HessianLinearOperator(model, loss_fn, weights, [(x, y)], check_deterministic=False).to_scipy()
        count = 0

        def product(vector: Any) -> Any:
            nonlocal count
            count += 1
            return hessian @ vector.astype(np.float32)

        eigsh(LinearOperator((n, n), product, dtype=np.float32), k=1, which="LA", tol=TOLERANCE)
        return count

    def turn() -> tuple[Sample, float]:
        plain, _ = seconds(lambda: products(20))
        taken, result = seconds(
            lambda: recorders.torch.sharpness(model, loss_fn, x, y, which="largest", tolerance=TOLERANCE)
        )
        sample = {"sharpness": (taken, result.n_products), "power iteration": seconds(power)}
        with suppress(ModuleNotFoundError):
            sample["curvlinops + eigsh"] = seconds(eigsh)
        return sample, plain / 20

    return turn


def jax_task(batch: int) -> Callable[[], tuple[Sample, float]]:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((784, 128)) / 28, np.zeros(128), rng.standard_normal((128, 10)) / 11, np.zeros(10)]
    params = [jnp.asarray(weight, jnp.float32) for weight in weights]
    x = jnp.asarray(rng.standard_normal((batch, 784)), jnp.float32)
    y = jnp.asarray(rng.integers(0, 10, batch))

    def loss_fn(params: Any, x: Any, y: Any) -> Any:
        w, b, v, c = params
        scores = jax.nn.log_softmax(jnp.tanh(x @ w + b) @ v + c)
        return -jnp.mean(jnp.take_along_axis(scores, y[:, None], 1))

    @jax.jit
    def product(params: Any, x: Any, y: Any, v: Any) -> Any:
        return jax.jvp(lambda p: jax.grad(loss_fn)(p, x, y), (params,), (v,))[1]

    def products(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(product(params, x, y, params))

    def turn() -> tuple[Sample, float]:
        plain, _ = seconds(lambda: products(20))
        taken, result = seconds(
            lambda: recorders.jax.sharpness(params, loss_fn, x, y, which="largest", tolerance=TOLERANCE)
        )
        return {"sharpness": (taken, result.n_products)}, plain / 20

    turn()  # compiles
    return turn


def main() -> None:
    for framework, task in (("torch", torch_task), ("jax", jax_task)):
        for batch in (64, 256, 1024):
            turn = task(batch)
            turns = [turn() for _ in range(TURNS)]
            plain = min(one for _, one in turns)
            for name in turns[0][0]:
                least, count = min(sample[name] for sample, _ in turns)
                print(
                    f"{framework}, batch {batch}, {name}: {count} products, {least / count / plain:.2f} x a plain one "
                    f"each, {least * 1e3:.0f} ms"
                )


if __name__ == "__main__":
    main()
