"""Record a training loop written by hand in numpy, and its twins, then test whether the twins separate exponentially.

    python examples/any_loop.py --out spirals.h5 --steps 600 --rate 8

No framework: a state is a dict of arrays, and any loop that has one can record it. A network learns to tell two spirals
apart by full-batch gradient descent; its twins start 1e-8 away and take the same steps.
"""

import argparse

import numpy as np

import trajtools as tt
from recorders import Recorder, perturb


def spirals(n: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Two spirals of n points, shape (2 n, 2), and which one each point is on."""
    angle = np.linspace(0.5, 2 * np.pi, n)[:, None]
    arm = angle / np.pi * np.hstack([np.cos(angle), np.sin(angle)])
    return np.vstack([arm, -arm]), np.repeat([0.0, 1.0], n)[:, None]


def gradient_step(net: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, rate: float) -> float:
    """One step of gradient descent, in place; returns the cross-entropy before it."""
    hidden = np.tanh(x @ net["W1"] + net["b1"])
    logit = hidden @ net["W2"] + net["b2"]
    loss = np.mean(np.logaddexp(0, logit) - y * logit)
    error = (0.5 * (1 + np.tanh(0.5 * logit)) - y) / len(x)
    back = error @ net["W2"].T * (1 - hidden**2)
    gradient = {"W1": x.T @ back, "b1": back.sum(0), "W2": hidden.T @ error, "b2": error.sum(0)}
    for name in net:
        net[name] -= rate * gradient[name]
    return float(loss)


def main() -> None:
    """Train the network and its twins, then analyse the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="spirals.h5", help="file to be written; it must not exist")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rate", type=float, default=8.0, help="learning rate")
    options = parser.parse_args()
    rng, (x, y) = np.random.default_rng(0), spirals()
    net = {"W1": rng.normal(size=(2, 16)), "b1": np.zeros(16), "W2": rng.normal(size=(16, 1)), "b2": np.zeros(1)}
    networks = [net, *perturb(net, epsilon=1e-8, members=5, seed=1)]
    with Recorder(options.out, networks, hparams={"lr": options.rate}) as rec:
        for _ in range(options.steps):
            losses = [gradient_step(each, x, y, options.rate) for each in networks]
            rec.record(loss=losses)  # of the newest state, the one that the losses were computed from
            rec.record(networks)  # the new state
    with tt.open(options.out) as run:
        exponent = tt.twins(run, metric="l1").fit()
        print(f"{run.n_states} states of {run.n_members} networks, loss {run.metrics['loss'][-2, 0]:.3f} at the end")
        print(f"exponent {exponent.value:.4f} per step, verdict: {exponent.verdict}")
        print(*exponent.reasons, sep="\n")


if __name__ == "__main__":
    main()
