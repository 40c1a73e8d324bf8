"""Surrogates keep what their null says, and nothing else; p-values count the data."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from trajtools.errors import DataError, UnknownNameError
from trajtools.surrogates import DRIFTING, STATIONARY, WORDS, matched_ends, rank_p, surrogate


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
    for null in (*STATIONARY, *DRIFTING):
        x = record(11, dims=1)
        one, two = (surrogate(x, null, rng=np.random.default_rng(12)) for _ in range(2))
        assert np.array_equal(one, two)
        assert WORDS[null]


def test_matched_ends_cut_off_a_step_between_the_ends():
    t = np.arange(1000)
    x = np.sin(2 * np.pi * t / 97.3)[:, None]
    part = x[matched_ends(x)]
    assert len(part) >= 800
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
