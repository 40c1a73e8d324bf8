"""Digits at a rate beyond the edge and below it: the same answers from the twins of torch, JAX and Lightning."""

import numpy as np
import pytest

import trajtools as tt

pytestmark = [pytest.mark.recorders, pytest.mark.slow]

BEYOND, BELOW = 4.0, 0.1
SEEDS = range(4)
STEPS, SIZE = 400, 50
OPTIONS = {"members": 4}


def initial(seed):
    """Weights of a tanh network, as torch draws them."""
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
    return torch, net


def train_torch(path, rate, seed):
    torch, net = torch_network(seed)
    from recorders.torch import Recorder, Twins

    twins = Twins(net, torch.nn.functional.cross_entropy, lambda p: torch.optim.SGD(p, lr=rate), seed=seed, **OPTIONS)
    with Recorder(path, twins, quiet=True):
        for x, y in batches(seed):
            twins.step(torch.from_numpy(x), torch.from_numpy(y))


def train_jax(path, rate, seed):
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    from recorders.jax import Recorder, Twins

    def loss_fn(params, x, y):
        scores = jax.numpy.tanh(x @ params["w0"] + params["b0"]) @ params["w1"] + params["b1"]
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

    with jax.enable_x64(True):
        twins = Twins(initial(seed), loss_fn, optax.sgd(rate), seed=seed, **OPTIONS)
        with Recorder(path, twins, quiet=True):
            for x, y in batches(seed):
                twins.step(x, y)


def train_lightning(path, rate, seed):
    torch, net = torch_network(seed)
    lightning = pytest.importorskip("lightning")
    from recorders.lightning import TwinsCallback

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def training_step(self, batch, i):
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=rate)

    data = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in batches(seed)]
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", precision="64-true", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
        callbacks=[TwinsCallback(path, seed=seed, quiet=True, **OPTIONS)],
    )  # fmt: skip
    trainer.fit(Classifier(), torch.utils.data.DataLoader(data, batch_size=None))


TRAININGS = [
    pytest.param(train_torch, marks=pytest.mark.torch, id="torch"),
    pytest.param(train_jax, marks=pytest.mark.jax, id="jax"),
    pytest.param(train_lightning, marks=pytest.mark.torch, id="lightning"),
]


def exponents(tmp_path, train, rate):
    fits = []
    for seed in SEEDS:
        path = tmp_path / f"{rate}-{seed}.h5"
        train(path, rate, seed)
        with tt.open(path) as run:
            assert len(np.unique(run.plantings["step"])) > 1
            fits.append(tt.twins(run).fit())
    return fits


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("train", TRAININGS)
def test_replanted_twins_separate_a_rate_beyond_the_edge_from_one_below_it(tmp_path, train):
    beyond = exponents(tmp_path, train, BEYOND)
    # Rounding decides the fate of one orbit: some initial conditions end undecided.
    assert [one.verdict for one in beyond].count("chaotic") >= 2, [one.summary() for one in beyond]
    assert not any(one.verdict == "regular" for one in beyond)
    assert all(one.interval[0] > 0 for one in beyond)
    below = exponents(tmp_path, train, BELOW)
    assert [one.verdict for one in below] == ["regular"] * len(below)
