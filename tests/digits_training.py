"""A tanh network on digits, from weights and batches that torch, JAX and Lightning share."""

import numpy as np
import pytest

STEPS, SIZE = 400, 50


def initial(seed):
    """Weights of 64-16-10 units, spread as torch spreads them."""
    rng = np.random.default_rng(seed)
    weights = {}
    for i, (n, m) in enumerate([(64, 16), (16, 10)]):
        weights[f"w{i}"] = rng.uniform(-1, 1, (n, m)) / np.sqrt(n)
        weights[f"b{i}"] = rng.uniform(-1, 1, m) / np.sqrt(n)
    return weights


def batches(seed):
    """Random batches of 50 of the first 1000 digits."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    rows = np.random.default_rng(seed).integers(0, 1000, (STEPS, SIZE))
    return [(x[i] / 16 - 0.5, y[i]) for i in rows]


def torch_network(seed):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10)).double()
    weights = initial(seed)
    with torch.no_grad():
        for i, layer in enumerate((net[0], net[2])):
            layer.weight.copy_(torch.from_numpy(weights[f"w{i}"].T))
            layer.bias.copy_(torch.from_numpy(weights[f"b{i}"]))
    return net


def torch_batches(seed):
    torch = pytest.importorskip("torch")
    return [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in batches(seed)]


def lightning_fit(rate, seed, callbacks, *, resume=None, logger=False, **options):
    """Fit under Lightning, in one epoch."""
    torch, lightning = pytest.importorskip("torch"), pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch_network(seed)

        def training_step(self, batch, i):
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=rate)

    options = {"enable_checkpointing": False, **options}
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", precision="64-true", logger=logger, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks, **options,
    )  # fmt: skip
    trainer.fit(Classifier(), torch.utils.data.DataLoader(torch_batches(seed), batch_size=None), ckpt_path=resume)
