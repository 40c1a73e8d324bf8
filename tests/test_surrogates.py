"""Surrogates keep what their null says, and nothing else; p-values count the data."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.signal import lfilter

import trajtools as tt
from trajtools._kernels.iaaft import impose_spectrum, rank_rows
from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.applicability import Optimizer, infer_optimizer
from trajtools.exponents.nulls import (
    BASIN,
    DESCRIPTIONS,
    NULLS,
    against_surrogates,
    fit_basin,
    is_accepted,
    matched_ends,
    rank_p,
    steepest,
    surrogate,
)
from trajtools.statistics import DECISION


def record(seed, length=512, dims=3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((length, dims)).cumsum(axis=0) * 0.1
    return np.sin(x) + 0.1 * rng.standard_normal((length, dims))


@pytest.mark.parametrize("length", [511, 512])
def test_phase_randomised_keep_spectra_and_cross_spectra(length):
    x = record(1, length)
    made = surrogate(x, "phase-randomised", rng=np.random.default_rng(2))
    before, after = np.fft.rfft(x, axis=0), np.fft.rfft(made, axis=0)
    assert_allclose(np.abs(after), np.abs(before), rtol=1e-9, atol=1e-9)
    assert_allclose(after[:, 0] * after[:, 1].conj(), before[:, 0] * before[:, 1].conj(), rtol=1e-9, atol=1e-7)
    assert not np.allclose(made, x, atol=0.1)


def test_iaaft_keeps_the_values_exactly_and_the_spectrum_nearly():
    x = np.exp(record(3, dims=1)[:, 0])
    made = surrogate(x, "iaaft", rng=np.random.default_rng(4))[:, 0]
    assert_allclose(np.sort(made), np.sort(x))
    power = np.abs(np.fft.rfft(x - x.mean()))
    assert np.linalg.norm(np.abs(np.fft.rfft(made - made.mean())) - power) < 0.05 * np.linalg.norm(power)
    assert np.corrcoef(made, x)[0, 1] < 0.9


def test_iaaft_does_not_depend_on_the_unit_or_the_origin():
    x = np.exp(record(3, dims=1)[:, 0])
    one, two = (surrogate(y, "iaaft", rng=np.random.default_rng(4))[:, 0] for y in (x, 1e6 - 2.0**40 * x))
    assert_allclose(np.argsort(np.argsort(-two)), np.argsort(np.argsort(one)))


def test_iaaft_of_a_gaussian_process_keeps_the_spectrum_within_its_misfit():
    x = np.convolve(np.random.default_rng(20).standard_normal(1100), 0.9 ** np.arange(80.0))[80:1080]
    made = surrogate(x, "iaaft", rng=np.random.default_rng(21))[:, 0]
    before, after = (np.abs(np.fft.rfft(y - y.mean())) for y in (x, made))
    assert np.linalg.norm(after - before) < 0.02 * np.linalg.norm(before)


def test_ranks_are_those_of_a_comparison_of_all_pairs():
    rng = np.random.default_rng(22)
    rows = (rng.standard_normal((3, 200)) * 10.0 ** rng.integers(-30, 30, (3, 200))).astype(np.float32)
    rows[1] = np.round(rng.standard_normal(200))  # ties
    rows[2, ::7], rows[2, 1], rows[2, 2] = 0.0, np.inf, -np.inf
    ranks = np.empty(rows.shape, dtype=np.int64)
    rank_rows(rows, ranks)
    for row, mine in zip(rows, ranks, strict=True):
        assert np.array_equal(mine, naive.ranks(row))


def test_an_imposed_spectrum_keeps_the_phases():
    rng = np.random.default_rng(23)
    spectra = rng.standard_normal((2, 9)) + 1j * rng.standard_normal((2, 9))
    spectra[1, 4] = 0.0
    amplitude, misfit, before = rng.random(9), np.empty(2), spectra.copy()
    impose_spectrum(spectra, amplitude, misfit)
    for row in range(2):
        expected, change = naive.with_amplitude(before[row], amplitude)
        assert_allclose(spectra[row], expected, rtol=1e-12)
        assert_allclose(misfit[row], change, rtol=1e-12)


@pytest.mark.parametrize("count", [99, 999])
def test_a_test_that_ends_early_decides_as_the_whole_one(count):
    rng = np.random.default_rng(24)
    ended = 0
    for shift in np.linspace(0.0, 4.0, 60):
        drawn, value = rng.standard_normal(count), shift
        at = next((n for n in range(19, count) if is_accepted(value, drawn[:n], count)), count)
        ended += at < count
        assert (rank_p(value, drawn[:at]) <= DECISION) is (rank_p(value, drawn) <= DECISION)
    assert 10 < ended < 55


def test_surrogates_of_a_linear_process_are_drawn_until_the_null_is_accepted():
    x = np.convolve(np.random.default_rng(25).standard_normal(700), 0.9 ** np.arange(80.0))[80:680, None]
    options = {"embedding": (2, 1), "theiler": 10, "horizon": 20, "count": 99, "rng": np.random.default_rng(26)}
    tested = against_surrogates(x, "iaaft", **options)
    assert 19 <= tested.settings["surrogates"] < 99
    assert tested.p_value > DECISION


@pytest.mark.parametrize("dims", [3, 40])
def test_random_walks_have_the_drift_and_covariance_of_the_steps(dims):
    rng = np.random.default_rng(5)
    mix = rng.standard_normal((dims, dims))
    x = np.cumsum(rng.standard_normal((4000, dims)) @ mix + 0.3, axis=0)
    made = surrogate(x, "random-walk", rng=np.random.default_rng(6))
    before, after = np.diff(x, axis=0), np.diff(made, axis=0)
    assert_allclose(made[0], x[0])
    # Sampling error of a covariance from 4000 steps is about 1.6 % of its largest entries.
    assert np.abs(np.cov(after.T) - np.cov(before.T)).max() < 0.15 * np.cov(before.T).max()
    assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=4 * before.std(axis=0).max() / np.sqrt(2000))


def test_random_walks_of_few_states_in_many_dimensions_stay_in_their_span():
    x = record(7, length=20, dims=300).cumsum(axis=0)
    made = surrogate(x, "random-walk", rng=np.random.default_rng(8))
    steps = np.diff(x, axis=0)
    assert np.linalg.matrix_rank(np.concatenate([steps, np.diff(made, axis=0)])) == len(steps)


def test_shuffled_increments_are_the_same_steps():
    x = record(9)
    made = surrogate(x, "shuffled-increments", rng=np.random.default_rng(10))
    assert_allclose(np.sort(np.diff(made, axis=0), axis=0), np.sort(np.diff(x, axis=0), axis=0), atol=1e-12)
    assert_allclose(made[[0, -1]], x[[0, -1]], atol=1e-9)


def test_same_seed_gives_the_same_bits():
    for null in NULLS:
        x = record(11, dims=1)
        one, two = (surrogate(x, null, rng=np.random.default_rng(12)) for _ in range(2))
        assert np.array_equal(one, two)
        assert DESCRIPTIONS[null]


def test_matched_ends_cut_off_a_step_between_the_ends():
    t = np.arange(1000)
    x = np.sin(2 * np.pi * t / 97.3)[:, None]
    part = x[matched_ends(x)]
    assert len(part) >= 800
    assert (
        max(prime for prime in range(2, 800) if len(part) % prime == 0 and all(prime % k for k in range(2, prime)))
        <= 11
    )
    step, whole = abs(part[0, 0] - part[-1, 0]), abs(x[0, 0] - x[-1, 0])
    assert step < 0.1 < whole


def test_p_values_count_the_data_as_one_of_the_null():
    assert rank_p(5.0, np.arange(99.0) / 99) == 0.01
    assert rank_p(-1.0, np.arange(99.0)) == 1.0
    assert rank_p(2.0, np.array([1.0, 2.0, np.nan])) == 0.75  # ties and what is not a number speak for the null
    assert np.isnan(rank_p(np.nan, np.zeros(3)))


def test_what_has_no_surrogate_is_refused():
    with pytest.raises(UnknownNameError, match="iaaft"):
        surrogate(record(1), "bootstrap", rng=np.random.default_rng(0))
    with pytest.raises(DataError, match="phase-randomised"):
        surrogate(record(1), "iaaft", rng=np.random.default_rng(0))
    with pytest.raises(DataError, match="finite"):
        surrogate([1.0, np.nan, 2.0, 3.0], "iaaft", rng=np.random.default_rng(0))
    with pytest.raises(DataError, match="at least 4"):
        surrogate([1.0, 2.0], "iaaft", rng=np.random.default_rng(0))


def descent(optimizer, curvatures, length, seed, noise=0.0):
    """Steps of gradient descent in a turned quadratic basin, written as an optimiser writes them."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((len(curvatures), len(curvatures))))[0]
    hessian, minimum = turn * curvatures @ turn.T, np.arange(len(curvatures))
    x, velocity = 10 * rng.standard_normal(len(curvatures)), np.zeros(len(curvatures))
    out = []
    for _ in range(length):
        out.append(x)
        look = x + optimizer.momentum * velocity if optimizer.nesterov else x
        velocity = optimizer.momentum * velocity - hessian @ (look - minimum)
        x = x + velocity + noise * rng.standard_normal(len(curvatures))
        velocity = x - out[-1]
    return np.array(out)


LAWS = (Optimizer(), Optimizer(0.9), Optimizer(0.9, nesterov=True))


@pytest.mark.parametrize("optimizer", LAWS, ids=lambda law: law.description)
def test_a_basin_is_fitted_exactly_where_there_is_one(optimizer):
    curvatures = np.array([0.05, 0.2, 0.5, 0.9]) * steepest(optimizer)
    x = descent(optimizer, curvatures, 60, 13)
    basin = fit_basin(x, optimizer)
    assert_allclose(basin.rates, curvatures, rtol=1e-6)
    assert np.abs(basin.noise).max() < 1e-9
    assert_allclose(surrogate(x, BASIN, rng=np.random.default_rng(0), optimizer=optimizer), x, atol=1e-7)


@pytest.mark.parametrize("optimizer", LAWS, ids=lambda law: law.description)
def test_a_noisy_basin_is_drawn_with_its_own_rates_and_spread(optimizer):
    curvatures = np.array([0.05, 0.3, 0.8]) * steepest(optimizer)
    x = descent(optimizer, curvatures, 4000, 14, noise=0.1)
    basin = fit_basin(x, optimizer)
    assert_allclose(basin.rates, curvatures, rtol=0.1)
    made = basin.draw(np.random.default_rng(15))
    assert made.shape == x.shape
    assert_allclose(made[500:].std(axis=0), x[500:].std(axis=0), rtol=0.15)
    again = fit_basin(made, optimizer)
    assert_allclose(again.rates, basin.rates, rtol=0.1)
    assert not np.allclose(made[500:], x[500:], atol=0.05)


def test_a_basin_turns_with_the_states_and_never_runs_away():
    rng = np.random.default_rng(16)
    x = descent(Optimizer(), np.array([0.1, 0.5, 1.5]), 200, 16, noise=0.1)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    one, two = fit_basin(x), fit_basin(x @ turn)
    assert_allclose(one.rates, two.rates, rtol=1e-9)
    runaway = 1.1 ** np.arange(300.0)[:, None] * rng.standard_normal(4)
    for optimizer in LAWS:
        basin = fit_basin(runaway, optimizer)
        assert np.all((basin.rates >= 0) & (basin.rates <= steepest(optimizer)))
        assert np.isfinite(basin.draw(rng)).all()


@pytest.mark.parametrize("optimizer", LAWS, ids=lambda law: law.description)
def test_the_steepest_basin_is_the_edge_of_stability(optimizer):
    for share, grows in ((0.995, False), (1.005, True)):
        x = descent(optimizer, np.array([share * steepest(optimizer)]), 1500, 17)[:, 0]
        assert (np.abs(x[-100:]).max() > np.abs(x[:100]).max()) is np.bool_(grows)


def test_a_basin_knows_no_adaptive_optimizer():
    with pytest.raises(DataError, match="adamw: use another null"):
        surrogate(record(1), BASIN, rng=np.random.default_rng(0), optimizer=Optimizer(adaptive="adamw"))
    with pytest.raises(DataError, match="between 0 and 1"):
        fit_basin(record(1), Optimizer(momentum=1.5))


@pytest.mark.parametrize(
    ("hparams", "found"),
    [
        ({"lr": 0.1, "batch": 32}, Optimizer()),
        ({"momentum": 0.9}, Optimizer(0.9)),
        ({"momentum": 0}, Optimizer()),
        ({"optimizer": {"name": "SGD", "momentum": 0.5, "nesterov": True}}, Optimizer(0.5, True)),
        ({"optimizer": "SGD(lr=0.1, momentum=0.9, nesterov=False)"}, Optimizer(0.9)),
        ({"optimizer": "AdamW"}, Optimizer(adaptive="adamw")),
        ({"optimizer_class": "torch.optim.RMSprop"}, Optimizer(adaptive="rmsprop")),
        ({"data": "a million lionfish", "nesterov": False, "bn_momentum": 0.1}, Optimizer()),
        ({"momentum": True, "notes": None}, Optimizer()),
    ],
    ids=str,
)
def test_the_optimiser_is_read_from_hyperparameters(hparams, found):
    assert infer_optimizer(hparams) == found
    assert found.has_buffers is (found != Optimizer())


def test_a_static_function_of_a_linear_process_is_not_rejected_and_chaos_with_heavy_tails_is():
    options = {"theiler": 20, "horizon": 30, "count": 99, "embedding": (2, 1)}
    for seed in range(3):
        noise = np.random.default_rng([seed, 9]).standard_normal(1500)
        linear = lfilter([1.0], [1.0, -0.9], noise)[300:]
        found = against_surrogates(np.exp(linear)[:, None], "iaaft", rng=np.random.default_rng(seed), **options)
        assert found.p_value > 0.01
    x = tt.systems.henon().trajectory(1200, rng=np.random.default_rng(0), transient=100)[:, :1]
    found = against_surrogates(np.exp(8 * x), "iaaft", rng=np.random.default_rng(0), **options)
    assert found.p_value == pytest.approx(0.01)
