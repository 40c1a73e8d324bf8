"""Small JAX trainings that the tests record, and how they read the files."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import trajtools as tt


def mlp(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {
        "hidden": {"kernel": jnp.asarray(rng.normal(size=(6, 9)), dtype), "bias": jnp.zeros(9, dtype)},
        "out": {"kernel": jnp.asarray(rng.normal(size=(9, 3)), dtype), "bias": jnp.zeros(3, dtype)},
    }


def batches(n=20, size=8, dtype=np.float32):
    rng = np.random.default_rng(1)
    return np.asarray(rng.normal(size=(n, size, 6)), dtype), rng.integers(0, 3, (n, size)).astype(np.int32)


def loss_of(params, x, y):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    scores = jax.nn.log_softmax(hidden @ params["out"]["kernel"] + params["out"]["bias"])
    return -jnp.take_along_axis(scores, y[:, None], 1).mean()


def sgd(params, batch):
    loss, gradients = jax.value_and_grad(loss_of)(params, *batch)
    return jax.tree_util.tree_map(lambda p, g: p - 0.1 * g, params, gradients), {"loss": loss}


def exact(params, x):
    """An update that no order of operations can round: sums of small whole numbers."""
    new = jax.tree_util.tree_map(lambda p: p + x, params)
    return new, {"loss": x * 2.0, "norm": params["w"].sum()}


WHOLE = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}


def flat(params):
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree_util.tree_leaves(params)])


def read(path):
    with tt.open(path) as run:
        return run.states[:][:, 0], run.step.tolist(), dict(run.metrics)


def tables(path):
    with tt.open(path) as run:
        return {parameter.name: parameter for parameter in run.parameters}


def quiet_environment(**extra):
    """What a process of its own needs to find the packages of this checkout."""
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).resolve().parents[1]), **extra}
