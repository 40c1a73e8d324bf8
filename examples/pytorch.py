"""Record a PyTorch training and its twins at every step, then test whether the twins separate exponentially.

    python examples/pytorch.py --out digits.h5 --steps 1000

A small convolutional network learns scikit-learn's handwritten digits with Adam and a falling learning rate. Twins of
it start a hair's breadth away, see the same batches, and the distances d(t) tell how sensitive the training is.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

import trajtools as tt
from recorders.torch import Recorder, Twins


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """1797 images of 8 x 8 pixels in [0, 1], and what they show."""
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16, dtype=torch.float64).reshape(-1, 1, 8, 8), torch.tensor(labels)


def network() -> nn.Module:
    """8 x 8 pixels -> 10 classes. In float64, so that twins 1e-8 apart stand clear of the rounding."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    ).double()  # fmt: skip


def train(path: str, steps: int, rate: float, twins: int) -> None:
    """Train a reference and its twins on common batches; every state goes to the file."""
    torch.manual_seed(0)
    x, y = digits()
    together = Twins(
        network(),
        nn.CrossEntropyLoss(),
        lambda parameters: torch.optim.Adam(parameters, lr=rate),
        epsilon=1e-8,
        members=twins,
        seed=1,
        scheduler_factory=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
    )
    with Recorder(path, together, hparams={"lr": rate, "batch": 64, "steps": steps}):
        for _ in range(steps):
            batch = torch.randint(len(x) - 297, (64,))
            losses = together.step(x[batch], y[batch])
            together.schedule()
    with torch.no_grad():
        right = (together.models[0](x[-297:]).argmax(1) == y[-297:]).double().mean()
    print(f"loss {losses[0]:.3f}, test accuracy {right:.3f}, vectorised: {together.vectorized} ({together.reason})")


def analyse(path: str) -> None:
    """Read the file back: the curve d(t), and what may be said about its growth."""
    with tt.open(path) as run:
        print(f"{run.n_states} states of {run.n_members} networks with {run.n_parameters} weights")
        growth = tt.twins(run, metric="l1")
        exponent = growth.fit()
        low, high = exponent.interval
        print(f"exponent {exponent.value:.4f} per step, 95 % interval {low:.4f} .. {high:.4f}")
        print(f"verdict: {exponent.verdict} ({'; '.join(map(str, exponent.reasons))})")


def main() -> None:
    """Parse the options, train, analyse."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="digits.h5", help="file to be written; it must not exist")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=0.01, help="learning rate of Adam at the start")
    parser.add_argument("--twins", type=int, default=4)
    options = parser.parse_args()
    train(options.out, options.steps, options.rate, options.twins)
    analyse(options.out)


if __name__ == "__main__":
    main()
