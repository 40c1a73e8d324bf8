"""What the race for a learning rate sees on rows that it does not train on."""

from __future__ import annotations

import numpy as np
import pytest

from recorders.left_out import compare, divide
from recorders.race import run_race
from trajtools.reasons import codes


def table(rows, steps, size=10, passes=True):
    """Batches of a table whose rows are numbered; shuffled anew in each pass, or never repeated."""
    rng = np.random.default_rng(1)
    order = np.concatenate([rng.permutation(rows) for _ in range(steps * size // rows + 1)])
    if not passes:
        order = np.arange(steps * size)
    return [(np.c_[part, -part].astype(float), part % 2) for part in order[: steps * size].reshape(steps, size)]


class Apart:
    """Trainings whose losses on rows left out are known for every rate, with a scatter between parts."""

    def __init__(self, loss, fit=0.1, scatter=0.0):
        self.loss, self.fit, self.scatter, self.rates = loss, fit, scatter, []

    def train_apart(self, rate, seed, batches, parts, at):
        trained = {int(row) for batch in batches for row in batch[0][:, 0]}
        assert not any(int(row) in trained for part in parts for row in part[0][:, 0])
        self.rates.append(rate)
        rng = np.random.default_rng([seed, len(self.rates)])
        losses = self.loss(rate) + self.scatter * rng.standard_normal(len(parts))
        fit = self.fit(rate) if callable(self.fit) else self.fit
        return np.full(len(batches), fit), np.tile(losses, (len(at), 1))


def raced(best=1.0, speed=0.012):
    """A race over 80 steps, whose training loss is smallest at the best rate."""
    return run_race(
        lambda rate, seed, stop: np.exp(-speed * np.arange(stop) * min(rate / best, best / rate)), None, (0,), 80
    )


def test_a_rate_that_is_best_on_rows_left_out_is_confirmed():
    race, apart = raced(), Apart(lambda rate: 0.1 / rate)
    after = compare(race, apart, {0: table(200, 80)})
    assert (after.winner, after.long) == (race.winner, race.long)
    assert "left-out" in codes(after.reasons)
    assert after.doubts == race.doubts
    assert apart.rates == pytest.approx([1.0, 0.464159])
    assert np.flatnonzero(np.isfinite(after.left_out)).tolist() == [race.winner - 1, race.winner]


@pytest.mark.parametrize(("fit", "overfits"), [(0.1, True), (4.0, False)])
def test_a_rate_that_is_too_large_for_other_rows_is_doubtful(fit, overfits):
    race = raced()
    after = compare(race, Apart(lambda rate: 0.5 + (np.log(rate / 0.1)) ** 2, fit), {0: table(200, 80)})
    assert after.winner == race.winner
    assert "smaller-on-left-out" in codes(after.doubts)
    assert after.rates[after.long] == pytest.approx(0.1)
    assert codes(after.reasons).count("long-training") == 1
    assert ("overfits" in codes(after.doubts)) == overfits


def test_a_gap_within_the_error_is_no_doubt():
    after = compare(raced(), Apart(lambda rate: 0.5 / rate, fit=0.1, scatter=4.0), {0: table(200, 80)})
    assert "overfits" not in codes(after.doubts)


@pytest.mark.parametrize(("rows", "doubtful"), [(100, True), (800, False)])
def test_the_shortest_race_is_doubtful_where_it_came_back_to_its_rows(rows, doubtful):
    race, apart = raced(speed=1.0), Apart(lambda rate: 0.1)
    assert race.horizon == 20
    after = compare(race, apart, {0: table(rows, 20)})
    assert ("short-race" in codes(after.doubts)) == doubtful
    assert not apart.rates


@pytest.mark.parametrize(("gain", "doubtful"), [(1.3, True), (1.05, False)])
def test_a_smaller_rate_that_is_hardly_better_is_said_without_a_doubt(gain, doubtful):
    after = compare(raced(), Apart(lambda rate: 0.15 * (1 if rate > 0.3 else 1 / gain)), {0: table(200, 80)})
    assert ("smaller-on-left-out" in codes(after.doubts)) == doubtful
    assert ("no-worse-on-left-out" in codes(after.reasons)) != doubtful


def test_a_small_gap_confirms_the_fastest():
    # All rates are as good on rows left out; whether that is a doubt depends on what the gap can be.
    for fit, doubtful in ((0.3, False), (0.2, True)):
        apart = Apart(lambda rate: 0.5, fit=lambda rate, fit=fit: fit / rate)
        assert ("unconfirmed" in codes(compare(raced(), apart, {0: table(200, 80)}).doubts)) == doubtful
    scattered = Apart(lambda rate: 0.5, fit=lambda rate: 0.3 / rate, scatter=0.3)
    assert "unconfirmed" in codes(compare(raced(), scattered, {0: table(200, 80)}).doubts)


def test_a_smaller_rate_that_is_as_good_leaves_the_fastest_unconfirmed():
    same = compare(raced(), Apart(lambda rate: 0.5, fit=lambda rate: 0.2 / rate), {0: table(200, 80)})
    assert "unconfirmed" in codes(same.doubts)
    assert min(same.rates[np.isfinite(same.left_out)]) == pytest.approx(0.1)  # a tenth of the fastest, and no further
    equal = compare(raced(), Apart(lambda rate: 0.5, fit=0.5), {0: table(200, 80)})
    assert "unconfirmed" not in codes(equal.doubts)


def test_a_training_that_diverges_without_the_rows_is_doubtful():
    after = compare(raced(), Apart(lambda rate: np.inf if rate > 0.3 else 0.1 / rate), {0: table(200, 80)})
    assert "near-collapse" in codes(after.doubts)
    assert after.winner == raced().winner


def test_losses_of_fresh_rows_need_no_comparison():
    race, apart = raced(), Apart(lambda rate: 0.1)
    assert compare(race, apart, {0: table(800, 80, passes=False)}) is race
    assert not apart.rates


def test_rows_too_few_to_leave_some_out_are_said():
    after = compare(raced(), Apart(lambda rate: 0.1), {0: table(10, 80)})
    assert "few-rows" in codes(after.warnings)
    assert after.winner == raced().winner


@pytest.mark.parametrize("rows", [16, 40, 200, 555])
def test_a_quarter_of_the_rows_is_left_out_once(rows):
    batches = table(rows, 80)
    division = divide(batches)
    assert [batch[0].shape for batch in division.batches] == [batch[0].shape for batch in batches]
    trained = {int(row) for batch in division.batches for row in batch[0][:, 0]}
    apart = [{int(row) for row in part[0][:, 0]} for part in division.parts]
    assert sum(map(len, apart)) == len(set.union(*apart))
    assert not trained & set.union(*apart)
    assert 4 <= len(apart) <= 16
    assert len(trained) == rows - rows // 4
    assert all((batch[0][:, 0] % 2 == batch[1]).all() for batch in (*division.batches, *division.parts))


def test_batches_without_rows_are_left_out_whole():
    made = [({"x": np.ones((7, 3, i + 1))}, np.zeros(3)) for i in range(20)]
    division = divide([*made, *made])
    assert len(division.parts) == 5
    assert len(division.batches) == 40
    assert not {id(part) for part in division.parts} & {id(batch) for batch in division.batches}
    assert divide(made[:8] * 3) is None


def test_a_torch_training_on_random_labels_is_doubtful():
    torch = pytest.importorskip("torch")
    from recorders.torch import find_edge

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 20, generator=generator)
    y = torch.randint(0, 2, (96,), generator=generator)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.Dropout(0.1), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    data = [(x[i : i + 24], y[i : i + 24]) for i in range(0, 96, 24)]
    edge = find_edge(model, data, torch.nn.functional.cross_entropy, torch.optim.Adam, exponents=False)
    assert edge.horizon > 20
    assert "overfits" in codes(edge.doubts)
    assert np.nanmin(edge.left_out) > 0.5
    assert "left out" in edge.summary()
    assert all(module.training for module in model.modules())


def test_torch_and_jax_measure_the_same_on_rows_left_out():
    torch = pytest.importorskip("torch")
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    import recorders.jax
    import recorders.torch

    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 8)).astype(np.float32)
    y = (x @ rng.standard_normal((8, 1)) + 2 * rng.standard_normal((60, 1))).astype(np.float32)
    model = torch.nn.Linear(8, 1, bias=False)
    weights = jax.numpy.asarray(model.weight.detach().numpy())
    data = [(x[i : i + 20], y[i : i + 20]) for i in range(0, 60, 20)]
    tensors = [tuple(torch.as_tensor(part) for part in batch) for batch in data]
    options = {"rates": (1e-3, 1.0), "exponents": False}
    one = recorders.torch.find_edge(model, tensors, torch.nn.functional.mse_loss, torch.optim.SGD, **options)
    other = recorders.jax.find_edge(weights, data, lambda w, x, y: ((x @ w.T - y) ** 2).mean(), optax.sgd, **options)
    assert np.isfinite(one.left_out).any()
    np.testing.assert_allclose(one.left_out, other.left_out, rtol=1e-4)
    assert one.recommended == other.recommended
