"""The Iris network of Danovski, Soriano and Lacasa (2024) and its data; `training` trains and records it.

Everything works on an ensemble: arrays with a leading axis of members, every member by the same operations in the same
order, so that members that are equal stay equal.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
State = dict[str, Floats]

SPECIES = ("setosa", "versicolor", "virginica")
HIDDEN = 10
TRAINED = 120
# What a seed is for: the streams of the split, the weights and the perturbations must not meet.
SPLIT, WEIGHTS, COPIES, LATE = range(4)


def load() -> tuple[Floats, NDArray[np.int64]]:
    """Fisher's Iris as it ships with the package."""
    text = (files("recorders.iris") / "iris.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))[1:]
    features = np.array([row[:4] for row in rows], dtype=np.float64)
    return features, np.array([SPECIES.index(row[4]) for row in rows], dtype=np.int64)


@dataclass(frozen=True)
class Split:
    """The rows that train and the rows that test.

    Attributes
    ----------
    train, test : ndarray of float64, shape (4, 120) and (4, 30), in cm
        Features, one flower a column: with the units on the last axis but one, all sums run over contiguous memory.
    labels, test_labels : ndarray of int64, shape (120,) and (30,)
        Index into `SPECIES`.
    """

    train: Floats
    labels: NDArray[np.int64]
    test: Floats
    test_labels: NDArray[np.int64]


def derived_seed(seed: int, purpose: int, index: int = 0) -> int:
    """Return a seed of 63 bits for one purpose, independent of those for every other (purpose, index)."""
    return int(np.random.SeedSequence([seed, purpose, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def split(seed: int) -> Split:
    """Draw the 120 rows that train; the other 30 test."""
    features, species = load()
    order = np.random.default_rng(derived_seed(seed, SPLIT)).permutation(len(species))
    chosen, rest = np.sort(order[:TRAINED]), np.sort(order[TRAINED:])
    return Split(
        np.ascontiguousarray(features[chosen].T),
        species[chosen],
        np.ascontiguousarray(features[rest].T),
        species[rest],
    )


def initial_weights(seed: int) -> State:
    """Draw one initial condition: weights from N(0, 1), biases 0."""
    rng = np.random.default_rng(seed)
    return {
        "hidden.kernel": rng.standard_normal((4, HIDDEN)),
        "hidden.bias": np.zeros(HIDDEN),
        "output.kernel": rng.standard_normal((HIDDEN, len(SPECIES))),
        "output.bias": np.zeros(len(SPECIES)),
    }


def forward(state: State, features: Floats) -> tuple[Floats, Floats]:
    """Hidden activations and logits of all members."""
    # matmul over the members, never one large product: the same call for each, so that equal members stay equal.
    hidden = np.matmul(state["hidden.kernel"].swapaxes(1, 2), features)
    hidden += state["hidden.bias"][:, :, None]
    np.negative(hidden, out=hidden)
    with np.errstate(over="ignore"):  # exp(710) is inf and 1 / (1 + inf) is 0, as it should be
        np.exp(hidden, out=hidden)
    hidden += 1.0
    np.reciprocal(hidden, out=hidden)
    logits = np.matmul(state["output.kernel"].swapaxes(1, 2), hidden)
    logits += state["output.bias"][:, :, None]
    return hidden, logits


def loss_and_gradient(state: State, features: Floats, labels: NDArray[np.int64]) -> tuple[Floats, State]:
    """Mean cross-entropy of all members, and its gradient."""
    hidden, error = forward(state, features)
    onehot = (np.arange(len(SPECIES))[:, None] == labels).astype(np.float64)
    error -= error.max(axis=1, keepdims=True)
    right = np.einsum("mkn,kn->mn", error, onehot)
    np.exp(error, out=error)
    total = error.sum(axis=1, keepdims=True)
    loss = (np.log(total[:, 0]) - right).mean(axis=1)
    error /= total
    error -= onehot
    error /= len(labels)  # d loss / d logits
    back = np.matmul(state["output.kernel"], error)
    back *= hidden
    gradient = {"output.kernel": np.matmul(hidden, error.swapaxes(1, 2)), "output.bias": error.sum(axis=2)}
    np.subtract(1.0, hidden, out=hidden)
    back *= hidden  # d loss / d (input of the hidden units)
    gradient["hidden.kernel"] = np.matmul(features, back.swapaxes(1, 2))
    gradient["hidden.bias"] = back.sum(axis=2)
    return loss, gradient


def accuracy(state: State, features: Floats, labels: NDArray[np.int64]) -> Floats:
    """Fraction of flowers that each member names correctly."""
    return np.asarray((forward(state, features)[1].argmax(axis=1) == labels).mean(axis=1))
