"""`find_edge`: what it measures on maps with known exponents, what it recommends, and that it leaves no trace."""

from __future__ import annotations

import random

import numpy as np
import pytest

from recorders.edge import check_rates, judge, late_losses, recommend
from trajtools.errors import DataError
from trajtools.reasons import codes

RATES = np.geomspace(0.1, 10, 9)


def made(growth, losses=None, steps=100, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    grown = np.broadcast_to(np.asarray(growth, float), (steps, len(growth))) + noise * rng.standard_normal(
        (steps, len(growth))
    )
    curves = np.broadcast_to(1 / RATES if losses is None else np.asarray(losses, float), (steps, len(growth)))
    return judge(RATES, grown, curves, gradients=10, settings={"seed": 0})


def test_a_planted_onset_is_found_and_the_rate_before_it_recommended():
    losses = np.where(RATES > 1.8, 5.0, 1 / RATES)
    found = made(np.where(RATES > 1.5, 0.4, 0.001), losses, noise=0.002)
    assert found.found
    assert found.onset_interval[0] <= 1.5 <= found.onset_interval[1]
    assert found.recommended <= found.onset_interval[1]
    assert "onset" in codes(found.reasons)


def test_a_minimum_below_the_onset_is_said_to_be_no_work_of_chaos():
    found = made(np.where(RATES > 1.5, 0.4, 0.001), np.abs(np.log(RATES / 0.3)) + 0.1, noise=0.002)
    assert found.recommended == pytest.approx(RATES[2])
    assert "fastest-below-onset" in codes(found.reasons)


def test_a_minimum_beyond_the_onset_is_said():
    found = made(np.where(RATES > 1.5, 0.4, 0.001), 1 / RATES, noise=0.002)
    assert found.recommended == 10.0
    assert "fastest-beyond-onset" in codes(found.reasons)


def test_no_onset_is_said():
    found = made(np.full(9, 0.001), noise=0.0005)
    assert not found.found
    assert found.reasons[0].code == "no-onset"
    assert "try larger ones" in str(found.reasons[-1])


def test_noise_that_hides_the_onset_is_said():
    found = made(np.linspace(-0.01, 0.05, 9), noise=3.0)
    assert not found.found or found.onset_interval[1] / found.onset_interval[0] > 3


def test_diverged_trainings_are_counted_and_never_recommended():
    losses = np.where(RATES > 2, np.nan, 1.0)
    found = made(np.where(RATES > 2, np.nan, 0.0), losses)
    assert found.recommended <= 2
    assert np.isinf(found.losses[RATES > 2]).all()
    assert any("diverged at 3 of 9" in words.text for words in found.warnings)
    nothing = made(np.full(9, np.nan), np.full(9, np.nan))
    assert np.isnan(nothing.recommended)
    nothing.to_json()
    str(nothing)


def test_late_losses_are_medians_of_the_last_quarter():
    losses = np.arange(40.0)[:, None] * [1, -1]
    assert late_losses(losses) == pytest.approx([34.5, -34.5])


def test_a_rate_beyond_the_onset_is_taken_only_where_it_is_clearly_better():
    rates = np.array([1.0, 2.0, 3.0])
    assert recommend(rates, np.array([3.0, 2.0, 1.95]), 2.0)[0] == 2.0
    rate, reasons = recommend(rates, np.array([3.0, 2.0, 1.0]), 2.0)
    assert rate == 3.0
    assert "worse-below-onset" in codes(reasons)
    assert recommend(rates, np.array([3.0, 2.0, np.inf]), 0.5)[0] == 2.0


@pytest.mark.parametrize("rates", [(1.0, 0.1), (0.1,), (-1.0, 1.0), (np.nan, 1.0), ()])
def test_rates_that_make_no_range_are_refused(rates):
    with pytest.raises(DataError, match="rate"):
        check_rates(rates, 12)


def test_an_edge_is_drawn():
    figure = made(np.where(RATES > 1.5, 0.4, 0.001), noise=0.002).plot()
    assert [ax.get_xscale() for ax in figure.axes] == ["log", "log"]


class Torch:
    """One-weight trainings in torch."""

    def __init__(self):
        self.torch = pytest.importorskip("torch")
        self.torch.set_num_threads(1)
        from recorders.torch import find_edge

        self.find_edge = find_edge

    def weight(self, value):
        torch = self.torch

        class One(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.w = torch.nn.Parameter(torch.tensor(value, dtype=torch.float64))

            def forward(self, x):
                return self.w * x

        return One()

    def run(self, value, loss, rates, steps, momentum=0.0, **options):
        torch = self.torch
        make = lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=momentum)  # noqa: E731
        model = self.weight([value] if np.isscalar(value) else value)
        return self.find_edge(
            model, [(torch.ones(1, dtype=torch.float64),)], loss, make, rates=rates, steps=steps, **options
        )


class Jax:
    """The same in jax."""

    def __init__(self):
        self.jax = pytest.importorskip("jax")
        self.optax = pytest.importorskip("optax")
        from recorders.jax import find_edge

        self.find_edge = find_edge

    def run(self, value, loss, rates, steps, momentum=0.0, **options):
        w = self.jax.numpy.asarray(np.atleast_1d(np.asarray(value, float)))
        return self.find_edge(
            {"w": w},
            [(np.ones(1),)],
            lambda params, x: loss(params["w"] * x),
            lambda rate: self.optax.sgd(rate, momentum=momentum or None),
            rates=rates,
            steps=steps,
            **options,
        )


@pytest.fixture
def float64():
    """JAX in float64, for one test."""
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(params=[pytest.param(Torch, marks=pytest.mark.torch), pytest.param(Jax, marks=pytest.mark.jax)])
def framework(request):
    if request.param is Jax:
        request.getfixturevalue("float64")
    return request.param()


def quartic(w):
    return ((w**2 - 1) ** 2 / 4).sum()


def test_exponents_of_the_quartic_loss_are_the_known_ones(framework):
    found = framework.run(0.3, quartic, [0.3, 0.4, 2.0], 1500, epsilon=1e-7)
    assert found.exponents[:2] == pytest.approx(np.log([0.4, 0.2]), abs=1e-3)
    assert found.exponents[2] == pytest.approx(np.log(3), abs=0.03)
    low, high = found.intervals[2]
    assert low <= np.log(3) <= high
    assert found.gradients == 1500 * 3 * 2


def test_exponents_of_a_quadratic_loss_are_exact_for_every_rate(framework):
    h = np.array([0.5, 2.0])
    rates = np.array([0.3, 0.8, 0.95])
    found = framework.run([0.7, -0.4], lambda w: (w**2 * _like(w, h)).sum() / 2, rates, 300)
    truth = np.log(np.abs(1 - rates[:, None] * h)).max(axis=1)
    assert found.exponents == pytest.approx(truth, abs=2e-3)


def test_momentum_is_part_of_the_state(framework):
    found = framework.run(0.7, lambda w: (w**2).sum() / 2, [0.05, 0.1, 0.3], 1200, momentum=0.9)
    # Underdamped, whatever the rate. Weights and momentum turn into each other, and weights are what is measured: the
    # sum of the growths is off by a few nats at most, however many steps there are.
    assert found.exponents == pytest.approx(0.5 * np.log(0.9), abs=4 / (0.8 * 1200))


def _like(w, values):
    if type(w).__module__.startswith("torch"):
        import torch

        return torch.as_tensor(values)
    return values


def digits(n=300):
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits

    features, labels = load_digits(return_X_y=True)
    return features[:n] / 16, labels[:n]


def mlp(torch, seed=0, norm=False, dropout=False):
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(64, 24), torch.nn.Tanh()]
    layers += [torch.nn.BatchNorm1d(24)] if norm else []
    layers += [torch.nn.Dropout(0.2)] if dropout else []
    return torch.nn.Sequential(*layers, torch.nn.Linear(24, 10)).double()


@pytest.mark.torch
@pytest.mark.parametrize("kind", [{}, {"norm": True}, {"dropout": True}])
def test_nothing_of_the_users_is_changed(kind):
    torch = pytest.importorskip("torch")
    from recorders.torch import find_edge

    torch.set_num_threads(1)
    x, y = (torch.as_tensor(a) for a in digits(96))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 32, shuffle=True)
    model = mlp(torch, **kind)
    model(x).sum().backward()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    opt = torch.optim.Adam(model.parameters(), lr=0.1)
    found = find_edge(model, loader, torch.nn.functional.cross_entropy, opt, rates=(1e-3, 1.0), points=3, steps=10)
    assert found.settings["vectorized"] is not kind.get("norm", False)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
    assert model.training
    assert not opt.state


@pytest.mark.torch
def test_one_pass_for_all_copies_and_one_for_each_tell_the_same():
    torch = pytest.importorskip("torch")
    from recorders.torch import find_edge

    torch.set_num_threads(1)
    batch = tuple(torch.as_tensor(a) for a in digits(64))
    make = lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.5)  # noqa: E731
    runs = [
        find_edge(
            mlp(torch), [batch], torch.nn.functional.cross_entropy, make,
            rates=(0.05, 0.5), points=3, steps=15, shadows=2, max_norm=1.0, vectorize=way,
        )
        for way in (True, False)
    ]  # fmt: skip
    assert runs[0].growth == pytest.approx(runs[1].growth, abs=1e-5)
    assert runs[0].curves == pytest.approx(runs[1].curves, rel=1e-9)


@pytest.mark.torch
@pytest.mark.jax
@pytest.mark.usefixtures("float64")
def test_torch_and_jax_find_the_same_edge():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    from recorders.jax import find_edge as jax_edge
    from recorders.torch import find_edge as torch_edge

    torch.set_num_threads(1)
    x, y = digits(64)
    model = mlp(torch)
    weights = [p.detach().numpy().copy() for p in model.parameters()]  # a list: in the order of torch

    def loss(params, x, y):
        hidden = jax.numpy.tanh(x @ params[0].T + params[1])
        logits = hidden @ params[2].T + params[3]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    options = {"rates": (0.1, 2.0), "points": 4, "steps": 20, "epsilon": 1e-5}
    ours = torch_edge(
        model, [(torch.as_tensor(x), torch.as_tensor(y))], torch.nn.functional.cross_entropy,
        lambda p, lr: torch.optim.SGD(p, lr=lr), **options,
    )  # fmt: skip
    theirs = jax_edge(weights, [(x, y)], loss, optax.sgd, **options)
    assert theirs.curves == pytest.approx(ours.curves, rel=1e-6)
    assert theirs.growth == pytest.approx(ours.growth, abs=1e-4)


@pytest.mark.torch
def test_clear_words_where_an_optimiser_cannot_be_stacked():
    torch = pytest.importorskip("torch")
    from recorders.torch import find_edge

    batch = tuple(torch.as_tensor(a) for a in digits(16))
    with pytest.raises(DataError, match="LBFGS"):
        find_edge(mlp(torch), [batch], torch.nn.functional.cross_entropy, lambda p, lr: torch.optim.LBFGS(p, lr=lr))
    with pytest.raises(DataError, match="no batch"):
        find_edge(mlp(torch), [], torch.nn.functional.cross_entropy, lambda p, lr: torch.optim.SGD(p, lr=lr))
    with pytest.raises(DataError, match="steps=3"):
        find_edge(mlp(torch), [batch], torch.nn.functional.cross_entropy, torch.optim.SGD, steps=3)


@pytest.mark.torch
def test_the_recommended_rate_trains_digits_fast():
    torch = pytest.importorskip("torch")
    from recorders.torch import find_edge

    torch.set_num_threads(1)
    batch = tuple(torch.as_tensor(a) for a in digits(300))
    loss = torch.nn.functional.cross_entropy
    found = find_edge(
        mlp(torch), [batch], loss, lambda p, lr: torch.optim.SGD(p, lr=lr), rates=(0.05, 10), points=9, steps=60
    )
    assert found.found
    times = {}
    for rate in found.rates:
        model = mlp(torch)
        opt = torch.optim.SGD(model.parameters(), lr=float(rate))
        for step in range(400):
            value = loss(model(batch[0]), batch[1])
            if value < 0.1:
                times[rate] = step
                break
            opt.zero_grad()
            value.backward()
            opt.step()
    assert times[found.recommended] <= 1.25 * min(times.values())
