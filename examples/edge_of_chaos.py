"""P4: a layer moves from order to chaos: its path, its speed, and the weight decay that stops it.

    python examples/edge_of_chaos.py --out p4                   # digits, some minutes
    python examples/edge_of_chaos.py --out p4 --data fashion    # images in IDX form

After Zhang, Feng, Chen and Lai (arXiv 2107.09437): one hidden tanh layer as wide as the image, without biases, so that
it can be iterated as a map; mini-batch SGD with momentum; weights from J = 0.5, in the ordered phase.
"""

from itertools import product
from pathlib import Path

import numpy as np
from datasets import Data, load
from networks import accuracy, initial, loss_and_gradient
from studies import Progress, options, recorded, table

import trajtools as tt
from recorders import Recorder

RATES, MOMENTA, BATCHES = (0.02, 0.05, 0.1), (0.0, 0.5, 0.8), (16, 32, 64)
EPOCHS = (5, 80, 500)
START = 0.5


def train(path: Path, data: Data, *, epochs: int, seed: int, decay: float = 0.0, **sgd: float) -> None:
    """Train one network, its hidden kernel recorded after every epoch."""
    rng, width, steps = np.random.default_rng(seed), data.train.shape[1], len(data.train) // sgd["batch_size"]
    state = initial((width, width, 10), [seed], scale=START / np.sqrt(width), biased=False)
    limit = np.sqrt(6 / (width + 10))
    state["1.kernel"] = rng.uniform(-limit, limit, (1, width, 10))
    velocity = {name: np.zeros_like(values) for name, values in state.items()}
    hparams = {**sgd, "samples": steps * sgd["batch_size"], "decay": decay, "seed": seed}
    with Recorder(path, one(state), include=["0.kernel"], hparams=hparams, quiet=True) as rec:
        for epoch in range(epochs + 1):
            loss = loss_and_gradient(state, data.test, data.test_labels)[0]
            right = accuracy(state, data.test, data.test_labels)
            rec.record(one(state), step=epoch * steps, accuracy=right[0], test_loss=loss[0])
            for rows in np.array_split(rng.permutation(len(data.train)), steps) if epoch < epochs else ():
                gradient = loss_and_gradient(state, data.train[rows], data.labels[rows])[1]
                for name, g in gradient.items():
                    shrink = 2 * decay * state[name] if name.endswith("kernel") else 0.0
                    velocity[name] = sgd["momentum"] * velocity[name] - sgd["lr"] * (g + shrink)
                    state[name] += velocity[name]


def one(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The only member of an ensemble of one."""
    return {name: values[0] for name, values in state.items()}


def main() -> None:
    """Train what is missing, then measure every path."""
    chosen = options(__doc__, data=True)
    data, say, epochs = load(chosen.data), Progress().say, EPOCHS[chosen.size]
    grid = list(product(RATES, MOMENTA, BATCHES)) if chosen.size else [(0.1, 0.5, 32), (0.1, 0.0, 32)]
    paths = {}
    for k, (rate, momentum, batch) in enumerate(grid, 1):
        path = paths[rate, momentum, batch] = chosen.out / f"{data.name}-{rate:g}-{momentum:g}-{batch}.h5"
        if not recorded(path):
            train(path, data, epochs=epochs, seed=k, lr=rate, momentum=momentum, batch_size=batch)
        say(f"{k} of {len(grid)} networks")
    found, rows = {}, []
    for key, path in paths.items():
        with tt.open(path) as run:
            found[key] = law = tt.training.order_chaos(run)
            best = int(np.argmin(run.metrics["test_loss"]))
        span = "[{:.3g}, {:.3g}]".format(*law.constant_interval)
        rows.append([*key, law.slope, law.constant, span, law.crossing, law.predicted_crossing, law.J[best]])
    head = ["rate", "momentum", "batch", "A", "K", "95 %", "J = 1 at epoch", "predicted", "J at best loss"]
    table(head, rows, chosen.out / f"{data.name}.md")
    slopes, K = (np.array([getattr(law, name) for law in found.values()]) for name in ("slope", "constant"))
    scale = np.array([rate / ((1 - momentum) * batch) for rate, momentum, batch in paths])
    power = np.polyfit(np.log(scale), np.log(slopes), 1)[0]
    print(f"A ~ (rate / ((1 - momentum) batch))^{power:.3f}; K = {np.median(K):.3g}, {K.min():.3g} to {K.max():.3g}")
    decay = float(np.median([law.weight_decay for law in found.values()]))
    for name, value in (("no decay", 0.0), ("predicted decay", decay)):
        path = chosen.out / f"{data.name}-{name.replace(' ', '-')}.h5"
        if not recorded(path):
            train(path, data, epochs=4 * epochs, seed=0, decay=value, lr=0.1, momentum=0.5, batch_size=32)
        with tt.open(path) as run:
            law, right = tt.training.order_chaos(run), run.metrics["accuracy"]
        print(f"{name} ({value:.2g}): J ends at {law.J[-1]:.3g}, best test accuracy {right.max():.3f}")
    law.plot().figure.savefig(chosen.out / f"{data.name}.png")


if __name__ == "__main__":
    main()
