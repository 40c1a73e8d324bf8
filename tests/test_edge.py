"""`find_edge`: both answers on trainings whose answer is known, and that it leaves no trace."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from recorders.edge import CURVED, VECTORS, CommonBatches, _looked_again, check_rates, check_seeds, judge, start
from recorders.race import RATIO, run_race
from trajtools.errors import DataError
from trajtools.reasons import codes

RATES = np.geomspace(0.1, 10, 9)
STEPS = 64

# -- judging, framework-free


def planted(growth, best=0.5, *, noise=0.0, apart=0.0, loss=None):
    """An edge from planted growth rates, (R,), and a race that the rate `best` wins."""

    def train(rate, seed, stop):
        t = np.arange(stop)
        return loss(rate, t) if loss else np.exp(-0.05 * t * min(rate / best, (best / rate) ** 0.3))

    race = run_race(train, list(RATES), (0,), 80)
    rng = np.random.default_rng(0)
    grown = np.broadcast_to(np.asarray(growth, float)[:, None, None], (STEPS, 9, 1, VECTORS)).copy()
    grown += noise * rng.standard_normal((STEPS, 9, 1, 1))
    grown[..., 1] += apart
    return judge(race, grown, seeds=(0,), gradients=10, exponent_gradients=20, settings={})


def test_a_planted_onset_is_found():
    edge = planted(np.where(RATES > 1.5, 0.4, 0.001), noise=0.002)
    assert edge.found
    assert edge.converged.all()
    assert edge.onset_interval[0] <= 1.5 <= edge.onset_interval[1]
    assert {"onset", "fastest-below-onset"} <= set(codes(edge.reasons))
    assert "edge of chaos: sensitive dependence begins at" in str(edge)


@pytest.mark.parametrize(("best", "code"), [(0.3, "fastest-below-onset"), (1.8, "fastest-at-onset")])
def test_the_relation_of_both_answers_is_said(best, code):
    edge = planted(np.where(RATES > 1.5, 0.4, 0.001), best, noise=0.002)
    assert code in codes(edge.reasons)


def test_no_onset_is_said():
    edge = planted(np.full(9, 0.001), noise=0.0005)
    assert not edge.found
    assert "no-onset" in codes(edge.reasons)


def test_rates_without_a_converged_exponent_are_named_where_no_onset_is_found():
    edge = planted(np.full(9, 0.001), noise=0.0005, apart=np.where(RATES > 1.5, 0.3, 0.0)[:, None])
    reason = next(reason for reason in edge.reasons if reason.code == "no-onset")
    assert reason.numbers["highest"] == RATES[RATES <= 1.5].max()
    assert (reason.numbers["first"], reason.numbers["last"]) == (RATES[RATES > 1.5].min(), RATES.max())


def test_growth_in_proportion_to_the_rate_is_that_of_gradient_flow():
    edge = planted(0.03 * RATES, noise=0.0005)
    assert not edge.found
    assert "gradient-flow" in codes(edge.reasons)


def test_an_onset_in_one_half_of_the_run_is_not_stable():
    edge = planted(np.full(9, 0.001))
    growth = edge.growth.copy()
    growth[46:, RATES > 1.5] = 0.5
    race = run_race(lambda rate, seed, stop: np.exp(-0.01 * rate * np.arange(stop)), list(RATES), (0,), 80)
    found = judge(race, growth, seeds=(0,), gradients=1, exponent_gradients=1, settings={})
    assert not found.found
    assert "onset-not-stable" in codes(found.reasons)


def test_small_exponents_are_converged_to_an_absolute_error_and_vote():
    edge = planted(np.where(RATES > 1.5, 0.4, 0.001), apart=0.0035)  # .14 nats in 40 steps
    assert edge.convergence == tuple(np.where(RATES > 1.5, "relative", "absolute"))
    assert edge.converged.all()
    assert edge.found
    assert "not-converged" not in codes(edge.warnings)
    assert not planted(np.full(9, 0.001), apart=0.004).converged.any()


def test_growth_below_one_nat_is_never_known_to_a_relative_error():
    assert set(planted(np.full(9, 0.024)).convergence) == {"absolute"}
    assert set(planted(np.full(9, 0.026)).convergence) == {"relative"}


@pytest.mark.parametrize(("random", "expected", "code"), [(0.001, 0.001, "absolute"), (-0.1, -0.1, "no")])
def test_directions_without_curvature_lead_where_those_with_it_shrink(random, expected, code):
    growth = planted(np.full(9, -0.2)).growth.copy()
    growth[..., CURVED:] = random
    race = run_race(lambda rate, seed, stop: np.exp(-0.01 * rate * np.arange(stop)), list(RATES), (0,), 80)
    edge = judge(race, growth, seeds=(0,), gradients=1, exponent_gradients=1, settings={})
    assert edge.exponents == pytest.approx(expected)
    assert set(edge.convergence) == {code}


def test_a_random_vector_that_grows_less_does_not_count():
    growth = planted(np.full(9, 0.1)).growth.copy()
    growth[..., CURVED:] = 0.001
    race = run_race(lambda rate, seed, stop: np.exp(-0.01 * rate * np.arange(stop)), list(RATES), (0,), 80)
    edge = judge(race, growth, seeds=(0,), gradients=1, exponent_gradients=1, settings={})
    assert edge.exponents == pytest.approx(0.1)
    assert set(edge.convergence) == {"relative"}


def test_vectors_start_along_the_curvature_and_the_last_one_at_random():
    hessian = np.diag([0.0] * 96 + [1.0, -2.0, 3.0, 0.5])
    for draw in range(VECTORS):
        direction = start(draw, 100, lambda v: hessian @ v, 3)
        assert direction.shape == (100, 3 if draw < CURVED else 1)
        assert np.linalg.norm(direction, axis=0) == pytest.approx(1)
        assert (np.abs(direction[:96]).max() == 0) == (draw < CURVED)
        assert np.isfinite(start(draw, 100, np.zeros_like)).all()  # no curvature at all


def test_exponents_that_disagree_are_not_converged_and_do_not_vote():
    edge = planted(np.where(RATES > 1.5, 0.4, 0.001), apart=0.2)
    assert not edge.converged.any()
    assert not edge.found
    assert "not-converged" in codes(edge.warnings)
    assert "not converged" in str(edge)


def test_diverged_and_dead_trainings_do_not_vote():
    def loss(rate, t):
        if rate > 4:
            return np.exp(np.minimum(t * rate, 600.0))
        return np.exp(-0.05 * t * rate) if rate < 1.5 else np.full(len(t), 0.98)

    edge = planted(np.where(RATES > 1.5, 0.4, 0.001), loss=loss)
    assert set(edge.states) <= {"slow", "trains", "stuck", "diverged"}
    assert not edge.found
    assert {"diverged", "stuck"} <= set(codes(edge.warnings))
    assert edge.recommended < 1.5


def test_a_result_without_any_answer_can_be_printed_kept_and_drawn():
    edge = planted(np.full(9, np.nan), loss=lambda rate, t: np.ones(len(t)))
    assert np.isnan(edge.recommended)
    assert edge.doubtful
    assert json.loads(edge.to_json())["recommended"] is None
    assert "no rate can be recommended" in repr(edge)
    edge.plot()


def test_a_winner_that_diverges_after_its_race_is_doubtful():
    race = run_race(lambda rate, seed, stop: np.exp(-rate * np.arange(stop)), [0.1, 0.3, 1.0], (0,), 80)
    assert race.horizon == 20
    again = _looked_again(race, race.winner, np.r_[np.ones(40), np.full(24, np.nan)][:, None])
    assert again.states[race.winner] == "diverged"
    assert "near-collapse" in codes(again.doubts)


def test_an_edge_is_drawn():
    figure = planted(np.where(RATES > 1.5, 0.4, 0.001), noise=0.002).plot()
    assert [ax.get_xscale() for ax in figure.axes] == ["log", "log"]


@pytest.mark.parametrize("rates", [(1.0, 0.1), (0.1,), (-1.0, 1.0), (np.nan, 1.0), ()])
def test_rates_that_make_no_range_are_refused(rates):
    with pytest.raises(DataError, match="rate"):
        check_rates(rates)


@pytest.mark.parametrize("seeds", [0, -1, True, "abc", [], [0, 0], [1.5]])
def test_seeds_that_are_none_are_refused(seeds):
    with pytest.raises(DataError, match="seed"):
        check_seeds(seeds)


def test_a_range_has_three_rates_a_decade():
    assert check_rates((0.01, 1.0)) == pytest.approx(np.geomspace(0.01, 1, 7))
    assert check_rates(None) is None
    assert check_seeds(3) == (0, 1, 2)
    assert check_seeds([4, 2]) == (4, 2)


def test_batches_are_taken_as_needed_and_repeated():
    taken = []

    def source():
        for i in range(25):
            taken.append(i)
            yield i

    batches = CommonBatches(source(), lambda batch: batch)
    assert [b[0] for b in batches.upto(10, 0)] == list(range(10))
    assert len(taken) == 10
    first = [b[0] for b in batches.upto(40, 0)]
    assert first == [*range(25), *range(15)]
    other = [b[0] for b in batches.upto(40, 1)]
    assert other != first
    assert other[:20] == [b[0] for b in batches.upto(20, 1)]
    assert sorted(other[:20]) == sorted(first[:20])


# -- known maps, in both frameworks


class Torch:
    """One-weight trainings in torch."""

    def __init__(self):
        self.torch = pytest.importorskip("torch")
        self.torch.set_num_threads(1)
        from recorders.torch import find_edge

        self.find_edge = find_edge

    def run(self, value, loss, rates, momentum=0.0, **options):
        torch = self.torch

        class Weights(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.w = torch.nn.Parameter(torch.tensor(np.atleast_1d(value), dtype=torch.float64))

            def forward(self, x):
                return self.w * x

        make = lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=momentum)  # noqa: E731
        return self.find_edge(Weights(), [(torch.ones(1, dtype=torch.float64),)], loss, make, rates=rates, **options)


class Jax:
    """The same in jax."""

    def __init__(self):
        self.jax = pytest.importorskip("jax")
        self.optax = pytest.importorskip("optax")
        from recorders.jax import find_edge

        self.find_edge = find_edge

    def run(self, value, loss, rates, momentum=0.0, **options):
        return self.find_edge(
            {"w": self.jax.numpy.asarray(np.atleast_1d(np.asarray(value, float)))},
            [(np.ones(1),)],
            lambda params, x: loss(params["w"] * x),
            lambda rate: self.optax.sgd(rate, momentum=momentum or None),
            rates=rates,
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
    edge = framework.run(0.3, quartic, [0.3, 0.4, 1.9])
    assert edge.converged[:2].all()
    assert edge.exponents[:2] == pytest.approx(np.log([0.4, 0.2]), abs=0.02)


def test_the_onset_of_the_quartic_loss_is_where_its_map_becomes_chaotic(framework):
    edge = framework.run(0.05, quartic, [0.7, 0.9, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8])
    if edge.found:
        assert 1.0 <= edge.onset_interval[0] <= edge.onset_interval[1] <= 1.8
    below = edge.rates < 0.95
    assert (edge.exponents[below] < 0).all()
    assert edge.exponents[-1] > 0.1


def test_exponents_of_a_quadratic_loss_are_exact_for_every_rate(framework):
    h = np.array([0.5, 2.0])
    rates = np.array([0.3, 0.8, 0.95])
    edge = framework.run([0.7, -0.4], lambda w: (w**2 * _like(w, h)).sum() / 2, rates)
    truth = np.log(np.abs(1 - rates[:, None] * h)).max(axis=1)
    assert edge.exponents == pytest.approx(truth, abs=2e-3)
    assert not edge.found


def test_divergence_is_no_onset_of_chaos(framework):
    edge = framework.run(0.7, lambda w: (w**2).sum() / 2, [0.1, 0.5, 0.9, 1.5, 2.5, 4.0])
    assert edge.states[-2:] == ("diverged", "diverged")
    assert not edge.found
    assert "diverged" in codes(edge.warnings)
    assert edge.recommended in (0.5, 0.9, 1.5)


def test_momentum_is_part_of_the_state(framework):
    edge = framework.run(0.7, lambda w: (w**2).sum() / 2, [0.05, 0.1, 0.3], momentum=0.9)
    # Underdamped, whatever the rate. Weights and momentum turn into each other, and weights are what is measured: the
    # sum of the growths is off by a few nats at most.
    assert edge.exponents == pytest.approx(0.5 * np.log(0.9), abs=4 / 40)


def _like(w, values):
    if type(w).__module__.startswith("torch"):
        import torch

        return torch.as_tensor(values)
    return values


# -- networks


def digits(n=300):
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits

    features, labels = load_digits(return_X_y=True)
    return features[:n] / 16, labels[:n]


def loader(torch, n=320, size=32, dtype=None):
    x, y = digits(n)
    x, y = torch.as_tensor(x, dtype=dtype or torch.float32), torch.as_tensor(y)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, n, size)]


def mlp(torch, *, norm=False, dropout=False, activation="Tanh", width=24):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(64, width), getattr(torch.nn, activation)()]
    layers += [torch.nn.BatchNorm1d(width)] if norm else []
    layers += [torch.nn.Dropout(0.2)] if dropout else []
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 10))


def sgd(torch, **options):
    return lambda p, lr: torch.optim.SGD(p, lr=lr, **options)


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


@pytest.fixture
def find_edge(torch):
    from recorders.torch import find_edge

    return find_edge


@pytest.mark.torch
@pytest.mark.parametrize("kind", [{}, {"norm": True}, {"dropout": True}])
def test_nothing_of_the_users_is_changed(torch, find_edge, kind):
    x, y = (torch.as_tensor(a) for a in digits(96))
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 32, shuffle=True)
    model = mlp(torch, **kind).double()
    model(x).sum().backward()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    opt = torch.optim.AdamW(model.parameters(), lr=0.1)
    edge = find_edge(model, data, torch.nn.functional.cross_entropy, opt, rates=[0.01, 0.03, 0.1], steps=10, seeds=2)
    assert np.isfinite(edge.exponents).all()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
    assert model.training
    assert not opt.state


@pytest.mark.torch
def test_a_copy_trains_as_the_users_loop_does(torch, find_edge):
    data, loss = loader(torch), torch.nn.functional.cross_entropy
    schedule = lambda opt: torch.optim.lr_scheduler.ExponentialLR(opt, 0.97)  # noqa: E731
    make = lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.1)  # noqa: E731
    torch.manual_seed(3)
    model = mlp(torch, dropout=True, norm=True)
    torch.manual_seed(4)
    edge = find_edge(
        model, data, loss, make, rates=[1e-3, 1e-2, 0.1], steps=40, exponents=False, scheduler_factory=schedule,
        max_norm=1.0,
    )  # fmt: skip
    best = edge.recommended
    opt = make(model.parameters(), best)
    scheduler = schedule(opt)
    for step in range(edge.horizon):
        x, y = data[step % len(data)]
        opt.zero_grad()
        value = loss(model(x), y)
        assert value.item() == edge.curves[step, edge.rates == best, 0][0]
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        scheduler.step()


@pytest.mark.torch
def test_exponents_can_be_left_out(torch, find_edge):
    options = {"rates": [0.03, 0.1, 0.3], "steps": 20}
    arguments = mlp(torch), loader(torch), torch.nn.functional.cross_entropy, sgd(torch)
    without = find_edge(*arguments, exponents=False, **options)
    edge = find_edge(*arguments, **options)
    assert without.exponent_gradients == 0 < edge.exponent_gradients
    assert without.gradients == edge.gradients <= 60
    assert without.recommended == edge.recommended
    assert np.isnan(without.exponents).all()
    assert not without.found


@pytest.mark.torch
def test_dict_batches_and_progress(torch, find_edge):
    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(torch)

        def forward(self, inputs, labels):
            return torch.nn.functional.cross_entropy(self.net(inputs), labels)

    data = [{"inputs": x, "labels": y} for x, y in loader(torch)]
    seen = []
    edge = find_edge(
        Tokens(), data, lambda output: output, sgd(torch), rates=[0.03, 0.1, 0.3], steps=20,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    plain = find_edge(
        mlp(torch), loader(torch), torch.nn.functional.cross_entropy, sgd(torch), rates=[0.03, 0.1, 0.3], steps=20
    )
    assert np.array_equal(edge.curves, plain.curves, equal_nan=True)
    assert edge.exponents == pytest.approx(plain.exponents)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] == edge.gradients + edge.exponent_gradients


@pytest.mark.torch
def test_seeds_draw_their_own_weights_from_a_function(torch, find_edge):
    drawn = lambda seed: torch.nn.Linear(64, 10)  # noqa: E731 (the generators are seeded for it)
    edge = find_edge(
        drawn, loader(torch), torch.nn.functional.cross_entropy, sgd(torch), rates=[0.1, 1.0, 10.0], steps=20,
        seeds=[5, 6, 7], exponents=False,
    )  # fmt: skip
    assert edge.seeds == (5, 6, 7)
    assert len(set(edge.curves[0, 0])) == 3
    again = find_edge(
        drawn, loader(torch), torch.nn.functional.cross_entropy, sgd(torch), rates=[0.1, 1.0, 10.0], steps=20,
        seeds=[6], exponents=False,
    )  # fmt: skip
    assert again.curves[0, 0, 0] == edge.curves[0, 0, 1]


@pytest.mark.torch
def test_shadows_measure_what_tangent_vectors_do(torch):
    from recorders.torch.edge import Copies

    copies = Copies(
        mlp(torch), loader(torch), torch.nn.functional.cross_entropy, sgd(torch, momentum=0.5),
        scheduler_factory=None, max_norm=None, seeds=(0,),
    )  # fmt: skip
    vectors, _ = copies.grow(0.3, 0, 40)
    assert copies.exponents_from == "tangent vectors"
    shadows, losses = copies._shadow(0.3, 0, 40)
    again, same = copies._follow(0.3, 0, 40, True)
    assert losses == pytest.approx(same, rel=1e-9)
    # Shadow k has the direction of the first vector of block k, which is followed until the block is aligned.
    assert shadows[1:15, 1:].sum(axis=0) == pytest.approx(again[1:15].sum(axis=0), abs=1e-3)
    assert shadows[1:, 3].sum() == pytest.approx(again[1:, 2].sum(), abs=1e-3)  # the random one is a block of its own
    assert np.isnan(vectors[0]).all()
    assert np.isnan(shadows[0]).all()
    assert vectors.shape == shadows.shape == (40, 4)


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["NAdam", "clipping"])
def test_without_a_known_derivative_shadows_are_used(torch, find_edge, kind):
    make = (lambda p, lr: torch.optim.NAdam(p, lr=lr)) if kind == "NAdam" else sgd(torch)
    edge = find_edge(
        mlp(torch), loader(torch), torch.nn.functional.cross_entropy, make, rates=[0.001, 0.003, 0.01], steps=20,
        max_norm=1.0 if kind == "clipping" else None,
    )  # fmt: skip
    assert edge.settings["exponents_from"] == "float64 shadows"
    assert np.isfinite(edge.exponents).all()


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["LBFGS", "casts"])
def test_what_has_no_exponents_still_races(torch, find_edge, kind):
    class Casting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(torch)

        def forward(self, x):
            return self.net(x.float())

    make = (lambda p, lr: torch.optim.LBFGS(p, lr=lr, max_iter=2)) if kind == "LBFGS" else sgd(torch)
    model = mlp(torch) if kind == "LBFGS" else Casting()
    edge = find_edge(model, loader(torch), torch.nn.functional.cross_entropy, make, rates=[0.01, 0.1, 1.0], steps=10)
    assert "exponents-not-measured" in codes(edge.reasons)
    assert np.isnan(edge.exponents).all()
    assert np.isfinite(edge.losses).any()


@pytest.mark.torch
def test_clear_words_for_bad_input(torch, find_edge):
    loss = torch.nn.functional.cross_entropy
    with pytest.raises(DataError, match="no batch"):
        find_edge(mlp(torch), [], loss, sgd(torch))
    with pytest.raises(DataError, match="steps=3"):
        find_edge(mlp(torch), loader(torch), loss, sgd(torch), steps=3)
    two = [{"params": [torch.nn.Parameter(torch.ones(1))]}, {"params": [torch.nn.Parameter(torch.ones(1))]}]
    with pytest.raises(DataError, match=r"optimizer\(parameters, rate\)"):
        find_edge(mlp(torch), loader(torch), loss, lambda params: torch.optim.SGD(params, lr=0.1))
    with pytest.raises(DataError, match="lambda seed"):
        find_edge(lambda: mlp(torch), loader(torch), loss, sgd(torch))
    with pytest.raises(DataError, match="data must be batches"):
        find_edge(mlp(torch), loss, loader(torch), sgd(torch))
    with pytest.raises(DataError, match="parameter groups"):
        find_edge(mlp(torch), loader(torch), loss, torch.optim.SGD(two, lr=0.1))


@pytest.mark.torch
@pytest.mark.jax
@pytest.mark.usefixtures("float64")
def test_torch_and_jax_find_the_same_edge(torch, find_edge):
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    from recorders.jax import find_edge as jax_edge

    x, y = digits(64)
    model = mlp(torch).double()
    weights = [p.detach().numpy().copy() for p in model.parameters()]  # a list: in the order of torch

    def loss(params, x, y):
        hidden = jax.numpy.tanh(x @ params[0].T + params[1])
        logits = hidden @ params[2].T + params[3]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    options = {"rates": (0.1, 1.0), "steps": 20}
    ours = find_edge(
        model, [(torch.as_tensor(x), torch.as_tensor(y))], torch.nn.functional.cross_entropy, sgd(torch), **options
    )
    theirs = jax_edge(weights, [(x, y)], loss, optax.sgd, **options)
    assert theirs.curves == pytest.approx(ours.curves, rel=1e-6, nan_ok=True)
    assert theirs.recommended == ours.recommended
    assert theirs.states == ours.states
    assert theirs.gradients == ours.gradients


@pytest.mark.jax
def test_jax_takes_functions_of_the_parameters_and_of_the_rate():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    from recorders.jax import find_edge

    params, data = {"w": jax.numpy.ones(2)}, [(jax.numpy.ones(2),)]
    with pytest.raises(DataError, match="a function of the rate"):
        find_edge(params, data, lambda p, x: (p["w"] @ x) ** 2, optax.sgd(0.1))
    with pytest.raises(DataError, match="loss_fn must be a function"):
        find_edge(params, data, "mse", optax.sgd)


@pytest.mark.jax
def test_jax_measures_a_network_with_dead_inputs_under_adam():
    # Weights that never have a gradient: Adam has no derivative there.
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    from recorders.jax import find_edge

    x, y = digits(128)
    rng = np.random.default_rng(0)
    params = {"a": np.float32(rng.normal(size=(64, 16)) / 8), "b": np.float32(rng.normal(size=(16, 10)) / 4)}

    def loss(p, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(jax.nn.relu(x @ p["a"]) @ p["b"], y).mean(), {}

    edge = find_edge(
        params, [(np.float32(x), y)], loss, optax.adam, rates=[0.003, 0.01, 0.03], steps=20, has_aux=True, seeds=2
    )
    assert np.isfinite(edge.exponents).all()
    assert edge.settings["exponents_from"] == "tangent vectors"
    assert edge.states.count("diverged") == 0


# -- the answers on networks


def aligned(torch, model, data, loss, opt):
    """Growth in float64, over the same steps, of the direction that had grown most of 24 others along the curvature."""
    from recorders.torch import Tangents
    from recorders.torch.hessian import Hessian

    data = [(x.double(), y) for x, y in data]
    jacobian, rng = Tangents(model, loss, opt, vectors="kept"), np.random.default_rng(99)
    n, frame, product = jacobian.n_weights, np.zeros((jacobian.n_state, 24)), np.eye(24)
    for step in range(STEPS):
        if step == 1:
            hessian = Hessian(model, loss, data[1])
            frame[:n] = np.stack([hessian(rng.standard_normal(n)) for _ in range(24)], axis=1)
            frame = np.linalg.qr(frame)[0]
        if step == 24:
            direction = frame @ np.linalg.svd(product)[0][:, :1]
            before, product = np.log(np.linalg.norm(direction[:n])), 0.0
        x, y = data[step % len(data)]
        if 1 <= step < 24:
            frame, triangle = np.linalg.qr(jacobian.images(frame, x, y))
            product = triangle @ product
        elif step >= 24:
            direction = jacobian.images(direction, x, y)
            product += np.log(np.linalg.norm(direction))
            direction /= np.linalg.norm(direction)
        opt.zero_grad()
        loss(model(x), y).backward()
        opt.step()
    return (product + np.log(np.linalg.norm(direction[:n])) - before) / (STEPS - 24)


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["relu-sgd", "norm-adam"])
def test_converged_exponents_are_those_of_other_tangent_vectors_in_float64(torch, find_edge, kind):
    loss = torch.nn.functional.cross_entropy
    make = sgd(torch) if kind == "relu-sgd" else lambda p, lr: torch.optim.Adam(p, lr=lr)
    model = lambda: mlp(torch, activation="ReLU", norm=kind != "relu-sgd")  # noqa: E731
    rates = [0.1, 0.3, 0.6] if kind == "relu-sgd" else [1e-3, 3e-3, 1e-2]
    edge = find_edge(model(), loader(torch), loss, make, rates=rates)
    assert edge.converged.any() or "not-converged" in codes(edge.warnings)
    for i in np.flatnonzero(edge.converged):
        twin = model().double()
        truth = aligned(torch, twin, loader(torch), loss, make(twin.parameters(), edge.rates[i]))
        assert abs(edge.exponents[i] - truth) <= max(0.35 * abs(truth), 0.3 / 40)


@pytest.mark.slow
@pytest.mark.torch
def test_batch_normalisation_under_adam_has_one_answer_in_both_precisions(torch, find_edge):
    # Not 'go lower' in one precision and 'go higher' in the other.
    loss, make = torch.nn.functional.cross_entropy, lambda p, lr: torch.optim.Adam(p, lr=lr)

    def model(dtype):
        torch.manual_seed(0)
        layers = [torch.nn.Unflatten(1, (1, 8, 8)), torch.nn.Conv2d(1, 4, 3, stride=2), torch.nn.BatchNorm2d(4)]
        return torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 10)).to(dtype)

    edges = [
        find_edge(model(dtype), loader(torch, 160, 16, dtype), loss, make, rates=[3e-3, 1e-2, 3e-2], steps=80)
        for dtype in (torch.float32, torch.float64)
    ]
    assert 1 / 3.5 <= edges[0].recommended / edges[1].recommended <= 3.5
    both = np.all([edge.converged for edge in edges], axis=0)
    assert edges[0].exponents[both] == pytest.approx(edges[1].exponents[both], rel=0.35, abs=0.3 / 40)
    if all(edge.found for edge in edges):
        assert 1 / 3.5 <= edges[0].onset / edges[1].onset <= 3.5


@pytest.mark.torch
def test_a_network_without_gradients_is_dead_from_the_start(torch, find_edge):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2, bias=False))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    data = [(torch.randn(8, 4), torch.arange(8) % 2)]
    edge = find_edge(model, data, torch.nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1), steps=20)
    assert set(edge.states) == {"dead"}
    assert np.isnan(edge.recommended)
    assert "dead" in codes(edge.doubts)


@pytest.mark.torch
def test_dead_trainings_at_high_rates_do_not_vote(torch, find_edge):
    edge = find_edge(
        mlp(torch, activation="ReLU"), loader(torch), torch.nn.functional.cross_entropy, sgd(torch),
        rates=[0.03, 0.1, 0.3, 1.0, 100.0, 300.0],
    )  # fmt: skip
    assert set(edge.states[-2:]) <= {"dead", "stuck", "diverged", "collapsed"}
    assert edge.recommended <= 1.0
    assert not any("go higher" in str(reason) for reason in edge.reasons)


@pytest.mark.torch
def test_random_targets_have_no_fastest_rate_at_any_onset(torch, find_edge):
    torch.manual_seed(0)
    data = [(torch.randn(32, 64), torch.randint(0, 10, (32,))) for _ in range(320)]
    edge = find_edge(mlp(torch), data, torch.nn.functional.cross_entropy, sgd(torch), steps=80, exponents=False)
    assert np.isnan(edge.recommended) or edge.doubtful
    assert {"nothing-moved", "plateau"} & set(codes((*edge.reasons, *edge.doubts)))
    assert not any("fastest" in code for code in codes(edge.reasons))


@pytest.mark.torch
def test_regression_that_diverges_has_no_onset_there(torch, find_edge):
    torch.manual_seed(0)
    x = torch.rand(320, 4) * 4 - 2
    y = torch.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    data = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 320, 32)]
    edge = find_edge(model, data, torch.nn.functional.mse_loss, sgd(torch), rates=[0.01, 0.03, 0.1, 3.0, 10.0])
    assert edge.states[-1] == "diverged"
    assert "diverged" in codes(edge.warnings)
    assert not edge.found or edge.onset_interval[1] <= 3.0
    assert edge.recommended <= 0.1


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_the_recommended_rate_trains_digits_fast_or_is_doubtful(torch, find_edge, kind):
    loss, data = torch.nn.functional.cross_entropy, loader(torch)
    make = sgd(torch) if kind == "sgd" else lambda p, lr: torch.optim.Adam(p, lr=lr)
    edge = find_edge(mlp(torch, activation="ReLU"), data, loss, make, exponents=False)
    times = {}
    for rate in edge.rates[(edge.rates >= edge.recommended / 5) & (edge.rates <= edge.recommended * 5)]:
        model = mlp(torch, activation="ReLU")
        opt = make(model.parameters(), float(rate))
        window = []
        for step in range(300):
            x, y = data[step % len(data)]
            value = loss(model(x), y)
            window = [*window[-9:], value.item()]
            if np.mean(window) < 0.4 and len(window) == 10:
                break
            opt.zero_grad()
            value.backward()
            opt.step()
        times[rate] = step + 1
    assert times[edge.recommended] <= 2 * min(times.values()) or edge.doubtful
    assert edge.recommended_long <= edge.recommended / 2 * (1 + 1e-6) or edge.recommended_long == edge.recommended
    assert max(times) / min(times) > RATIO
