"""Digits at a rate beyond the edge and below it: the same answers from the twins of torch, JAX and Lightning."""

import numpy as np
import pytest
from digits_training import batches, initial, lightning_fit, torch_batches, torch_network

import trajtools as tt

pytestmark = [pytest.mark.recorders, pytest.mark.slow]

BEYOND, BELOW = 4.0, 0.1
SEEDS = range(4)
OPTIONS = {"members": 4}


def train_torch(path, rate, seed):
    torch = pytest.importorskip("torch")
    from recorders.torch import Recorder, Twins

    loss_fn = torch.nn.functional.cross_entropy
    twins = Twins(torch_network(seed), loss_fn, lambda p: torch.optim.SGD(p, lr=rate), seed=seed, **OPTIONS)
    with Recorder(path, twins, quiet=True):
        for x, y in torch_batches(seed):
            twins.step(x, y)


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
    pytest.importorskip("lightning")
    from recorders.lightning import TwinsCallback

    lightning_fit(rate, seed, [TwinsCallback(path, seed=seed, quiet=True, **OPTIONS)])


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
