"""Slow and obvious curvature and exponents of a small numpy network, without a line of the packages under test."""

import numpy as np


def pieces(w, sizes=((5, 4), (5,), (3, 5), (3,))):
    """Cut a flat vector into the arrays of a 4-5-3 network: weight (out, in), bias, weight, bias."""
    found, at = [], 0
    for shape in sizes:
        n = int(np.prod(shape))
        found.append(w[at : at + n].reshape(shape))
        at += n
    return found


N = 43


def gradient(w, x, y):
    """Gradient of half the mean squared error of a tanh network, by hand."""
    w1, b1, w2, b2 = pieces(w)
    a = np.tanh(x @ w1.T + b1)
    e = (a @ w2.T + b2 - y) / y.size
    back = (e @ w2) * (1 - a**2)
    return np.concatenate([(back.T @ x).ravel(), back.sum(0), (e.T @ a).ravel(), e.sum(0)])


def jacobian(f, at, step=1e-5):
    """Central differences, extrapolated once."""

    def differences(h):
        h = np.broadcast_to(h, len(at))
        return np.stack([(f(at + k * e) - f(at - k * e)) / (2 * k) for k, e in zip(h, np.eye(len(at)), strict=True)], 1)

    return (4 * differences(step) - differences(2 * step)) / 3


def hessian(w, x, y):
    return jacobian(lambda v: gradient(v, x, y), w, 1e-3)


def sgd(rate, momentum=0.0, decay=0.0, nesterov=False):
    """One step of SGD on (weights, velocity), as one function of one vector."""

    def step(state, x, y):
        w, v = state[:N], state[N:]
        g = gradient(w, x, y) + decay * w
        if not momentum:
            return np.concatenate([w - rate * g, v])
        v = momentum * v + g
        return np.concatenate([w - rate * (g + momentum * v if nesterov else v), v])

    return step


def adam(rate, t, betas=(0.9, 0.999), eps=1e-8):
    """Step number t of Adam on (weights, first moment, second moment)."""

    def step(state, x, y):
        w, m, v = np.split(state, 3)
        g = gradient(w, x, y)
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        scale = np.sqrt(v / (1 - betas[1] ** t)) + eps
        return np.concatenate([w - rate * m / (1 - betas[0] ** t) / scale, m, v])

    return step


def benettin(steps, state, batches, columns, size=1e-5):
    """ln of the stretching of each column in each step: the whole Jacobian, and Gram-Schmidt by hand."""
    found = []
    for step, (x, y) in zip(steps, batches, strict=True):
        columns = jacobian(lambda s, f=step, x=x, y=y: f(s, x, y), state, size) @ columns
        state = step(state, x, y)
        row = []
        for j in range(columns.shape[1]):
            for i in range(j):
                columns[:, j] -= (columns[:, i] @ columns[:, j]) * columns[:, i]
            row.append(np.log(np.linalg.norm(columns[:, j])))
            columns[:, j] /= np.linalg.norm(columns[:, j])
        found.append(row)
    return np.array(found)


def two_networks(step, start, offset, batches, rate):
    """Train a network and a copy, draw the copy back to its distance after every step; ln of the growth of each step.

    The distance counts the velocities in the unit of a displacement, rate x velocity.
    """
    scale = np.ones(len(start))
    scale[N:] = rate
    epsilon, found = np.linalg.norm(scale * offset), []
    here, there = start, start + offset
    for x, y in batches:
        here, there = step(here, x, y), step(there, x, y)
        d = there - here
        found.append(np.log(np.linalg.norm(scale * d) / epsilon))
        there = here + d * epsilon / np.linalg.norm(scale * d)
    return np.array(found)


def kaplan_yorke(exponents):
    """By its definition, with a loop."""
    total, ordered = 0.0, sorted(exponents, reverse=True)
    for j, value in enumerate(ordered):
        if total + value < 0:
            return j + total / abs(value)
        total += value
    return None


def symmetric(values, seed=0):
    """A matrix with these eigenvalues, turned at random."""
    values = np.asarray(values, float)
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    return (q * values) @ q.T
