"""Record a JAX training and its twins at every step of a scan, then test whether the twins separate exponentially.

    python examples/jax_scan.py --out digits.h5 --steps 1000

A small network learns scikit-learn's handwritten digits with optax. Twins of it start a hair's breadth away, see the
same batches, and the distances d(t) tell how sensitive the training is. The whole training runs inside `jax.lax.scan`,
in blocks; while one block of states goes to the file, the next one is computed.
"""

import argparse
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import trajtools as tt
from recorders.jax import Recorder, Twins

LAYERS = (64, 32, 10)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 images of 8 x 8 pixels in [0, 1], and what they show."""
    pixels, labels = load_digits(return_X_y=True)
    return pixels / 16, labels


def network(seed: int) -> list[dict[str, jax.Array]]:
    """Weights of a multilayer perceptron. In float64, so that twins 1e-8 apart stand clear of the rounding."""
    rng = np.random.default_rng(seed)
    return [
        {"w": jnp.asarray(rng.normal(size=(m, n)) * (2 / m) ** 0.5), "b": jnp.zeros(n)} for m, n in pairwise(LAYERS)
    ]


def scores(params: list[dict[str, jax.Array]], x: jax.Array) -> jax.Array:
    """Logits of a batch of images."""
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def loss_fn(params: list[dict[str, jax.Array]], x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross-entropy of a batch."""
    return optax.softmax_cross_entropy_with_integer_labels(scores(params, x), y).mean()


def train(path: str, steps: int, rate: float, twins: int) -> None:
    """Train a reference and its twins on common batches; every state goes to the file."""
    x, y = digits()
    optimizer = optax.sgd(optax.cosine_decay_schedule(rate, steps), momentum=0.9)
    together = Twins(network(0), loss_fn, optimizer, epsilon=1e-8, members=twins, seed=1)
    batches = np.random.default_rng(2).integers(0, len(x) - 297, (steps, 64))
    settings = {"lr": rate, "batch": 64, "steps": steps}
    with Recorder(path, together, hparams=settings, expected_steps=steps) as rec:
        print(rec.forecast.summary)
        losses = together.scan((x[batches], y[batches]), block=64)
    right = (scores(together.reference(), x[-297:]).argmax(1) == y[-297:]).mean()
    print(f"loss {losses[-1, 0]:.3f}, test accuracy {right:.3f}, vectorised: {together.vectorized} ({together.reason})")


def analyse(path: str) -> None:
    """Read the file back: the curve d(t), and what may be said about its growth."""
    with tt.open(path) as run:
        print(f"{run.n_states} states of {run.n_members} networks with {run.n_parameters} weights")
        growth = tt.twins(run, metric="l1")
        exponent = growth.fit()
        print(f"exponent {exponent.value:.4f} per step, 95 % interval {exponent.interval}")
        print(f"verdict: {exponent.verdict} ({'; '.join(map(str, exponent.reasons))})")


def main() -> None:
    """Parse the options, train, analyse."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="digits.h5", help="file to be written; it must not exist")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=0.5, help="learning rate at the start")
    parser.add_argument("--twins", type=int, default=4)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    train(options.out, options.steps, options.rate, options.twins)
    analyse(options.out)


if __name__ == "__main__":
    main()
