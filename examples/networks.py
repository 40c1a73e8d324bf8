"""Ensembles of small networks in numpy, for the studies: every member by the same operations, all members at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

State = dict[str, np.ndarray]


def initial(sizes: tuple[int, ...], seeds: list[int], *, scale: float = 1.0, biased: bool = True) -> State:
    """Weights from N(0, scale^2), biases 0; the kernels are ``0.kernel``, ``1.kernel``, ... (in, out)."""
    state: State = {}
    for k, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        drawn = [np.random.default_rng([seed, k]).standard_normal((fan_in, fan_out)) for seed in seeds]
        state[f"{k}.kernel"] = scale * np.stack(drawn)
        if biased or k == len(sizes) - 2:
            state[f"{k}.bias"] = np.zeros((len(seeds), fan_out))
    return state


def forward(state: State, x: np.ndarray) -> list[np.ndarray]:
    """Activations of all layers, (members, n, width): tanh, the last one logits."""
    layers = [x[None] if x.ndim == 2 else x]
    depth = sum(name.endswith("kernel") for name in state)
    for k in range(depth):
        out = layers[-1] @ state[f"{k}.kernel"]
        if f"{k}.bias" in state:
            out += state[f"{k}.bias"][:, None]
        layers.append(np.tanh(out, out=out) if k < depth - 1 else out)
    return layers


def loss_and_gradient(state: State, x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, State]:
    """Mean cross-entropy of each member, (members,), and its gradient."""
    layers = forward(state, x)
    with np.errstate(over="ignore", invalid="ignore"):
        logits = layers[-1] - layers[-1].max(axis=2, keepdims=True)
        right = np.take_along_axis(logits, np.broadcast_to(labels[None, :, None], (len(logits), len(x), 1)), axis=2)
        error = np.exp(logits)
        total = error.sum(axis=2, keepdims=True)
        loss = (np.log(total) - right).mean(axis=(1, 2))
        error /= total
    error[:, np.arange(len(x)), labels] -= 1
    error /= len(x)
    gradient: State = {}
    for k in range(len(layers) - 2, -1, -1):
        gradient[f"{k}.kernel"] = np.matmul(layers[k].swapaxes(1, 2), error)
        if f"{k}.bias" in state:
            gradient[f"{k}.bias"] = error.sum(axis=1)
        if k:
            error = (error @ state[f"{k}.kernel"].swapaxes(1, 2)) * (1 - layers[k] ** 2)
    return loss, {name: gradient[name] for name in state}


def accuracy(state: State, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of the images that each member names correctly."""
    return np.asarray((forward(state, x)[-1].argmax(axis=2) == labels).mean(axis=1))


def descend(state: State, gradient: State, rate: float) -> None:
    """One step of gradient descent, in place."""
    for name in state:
        state[name] -= rate * gradient[name]


def whole(state: State, alive: np.ndarray, members: int) -> State:
    """All members, NaN for those that are not trained any more: their distances end there."""
    if len(alive) == members:
        return state
    out = {name: np.full((members, *values.shape[1:]), np.nan) for name, values in state.items()}
    for name, values in state.items():
        out[name][alive] = values
    return out
