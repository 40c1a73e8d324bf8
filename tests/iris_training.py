"""The system of Danovski et al. (2024): Iris, 4-10-3, sigmoid and softmax, full batch; many networks at once."""

import numpy as np


def train(rate, *, inits, copies, epsilon, steps, seed):
    """States (steps + 1, inits, 1 + copies, 83); weights N(0, 1), biases 0, copies perturbed in the weights only."""
    from sklearn.datasets import load_iris

    rng = np.random.default_rng(seed)
    features, labels = load_iris(return_X_y=True)
    rows = rng.permutation(150)[:120]
    x, target = features[rows], np.eye(3)[labels[rows]]

    def copied(weights):
        several = np.repeat(weights, copies + 1, axis=1)
        several[:, 1:] += rng.uniform(-epsilon, epsilon, several[:, 1:].shape)
        return several.reshape(-1, *weights.shape[2:])

    w1, w2 = copied(rng.normal(size=(inits, 1, 4, 10))), copied(rng.normal(size=(inits, 1, 10, 3)))
    n = len(w1)
    b1, b2 = np.zeros((n, 1, 10)), np.zeros((n, 1, 3))
    states = np.empty((steps + 1, n, 83))
    for t in range(steps + 1):
        states[t] = np.concatenate([w.reshape(n, -1) for w in (w1, b1, w2, b2)], axis=1)
        hidden = 1 / (1 + np.exp(-(x @ w1 + b1)))
        scores = hidden @ w2 + b2
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        error = (scores / scores.sum(axis=-1, keepdims=True) - target) / len(x)
        back = (error @ w2.transpose(0, 2, 1)) * hidden * (1 - hidden)
        w2, b2 = w2 - rate * hidden.transpose(0, 2, 1) @ error, b2 - rate * error.sum(axis=1, keepdims=True)
        w1, b1 = w1 - rate * x.T @ back, b1 - rate * back.sum(axis=1, keepdims=True)
    return states.reshape(steps + 1, inits, copies + 1, 83)


def pairs(states):
    return [(states[:, i, 0], list(states[:, i, 1:].swapaxes(0, 1))) for i in range(states.shape[1])]
