import numpy as np
import pytest
from numpy.testing import assert_allclose

from trajtools.statistics import power_evidence, resampled_ratio, sign_flip_p


def ratio(gain, duration, cell, cluster, seed=0):
    rng = np.random.default_rng(seed)
    return resampled_ratio(np.array(gain), np.array(duration), np.array(cell), np.array(cluster), level=0.95, rng=rng)


def test_rate_weighs_every_step_equally_and_copies_once():
    # One initial condition with three copies, one with a single twin: (2 + 9) / (1 + 3).
    found = ratio([1.0, 2, 3, 9], [1.0, 1, 1, 3], [0, 0, 0, 1], [0, 0, 0, 1])
    assert_allclose(found.value, 11 / 4)
    assert found.clusters == 2


def test_interval_of_independent_gains_is_that_of_student():
    from scipy.stats import t

    rng = np.random.default_rng(1)
    gain = rng.normal(3, 1, 40)
    found = ratio(gain, np.ones(40), np.arange(40), np.arange(40))
    error = gain.std(ddof=1) / np.sqrt(40)
    assert_allclose(found.error, error, rtol=0.05)
    assert_allclose(np.diff(found.interval)[0] / 2, t.ppf(0.975, 39) * error, rtol=0.05)


def test_copies_of_one_orbit_do_not_narrow_the_interval():
    rng = np.random.default_rng(2)
    gain = rng.normal(3, 1, 20)
    single = ratio(gain, np.ones(20), np.arange(20), np.arange(20))
    copied = ratio(np.repeat(gain, 50), np.ones(1000), np.repeat(np.arange(20), 50), np.repeat(np.arange(20), 50))
    assert_allclose(copied.error, single.error, rtol=0.1)


def test_one_cluster_has_no_interval():
    found = ratio([1.0, 2], [1.0, 1], [0, 0], [0, 0])
    assert_allclose(found.value, 1.5)
    assert np.isnan([found.error, *found.interval, found.p_positive]).all()


def test_same_seed_same_bits():
    rng = np.random.default_rng(3)
    gain, labels = rng.normal(size=30), np.repeat(np.arange(10), 3)
    assert ratio(gain, np.ones(30), labels, labels, 5).interval == ratio(gain, np.ones(30), labels, labels, 5).interval


def test_p_value_counts_the_data_itself():
    assert sign_flip_p(np.ones(30), rng=np.random.default_rng(0)) == 1 / 2000
    assert sign_flip_p(-np.ones(30), rng=np.random.default_rng(0)) == 1.0
    assert np.isnan(sign_flip_p(np.empty(0), rng=np.random.default_rng(0)))


def test_p_value_is_uniform_under_the_null():
    rng = np.random.default_rng(4)
    p = np.array([sign_flip_p(rng.normal(size=12), rng=rng) for _ in range(400)])
    assert abs(np.mean(p < 0.1) - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 400)
    assert abs(np.mean(p < 0.5) - 0.5) < 4 * np.sqrt(0.25 / 400)


def evidence(curve, blocks=1):
    curve = np.atleast_2d(curve)
    time = np.arange(curve.shape[1], dtype=float)
    begin, stop = np.zeros(len(curve), int), np.full(len(curve), curve.shape[1] - 1)
    return power_evidence(time, curve, begin, stop, blocks)


@pytest.mark.parametrize("length", [5, 30, 300])
def test_an_exponential_is_told_from_every_power_law(length):
    assert evidence(10 * np.arange(length) / length).sum() > 0.9


@pytest.mark.parametrize("power", [0.3, 0.5, 1, 2, 3])
@pytest.mark.parametrize("scale", [0.1, 1, 10, 100])
def test_power_laws_are_told_from_an_exponential(power, scale):
    t = np.arange(200)
    assert evidence(power * np.log1p(t / scale)).sum() < -0.9


def test_random_walk_with_drift_is_told_from_an_exponential():
    t = np.arange(200)
    for a, b in ((0.1, 0), (0, 1e-3), (0.5, 1e-4)):
        assert evidence(0.5 * np.log1p(a * t + b * t**2)).sum() < -0.9


def test_blocks_of_time_add_up_to_the_whole():
    rng = np.random.default_rng(5)
    curves = 0.1 * np.arange(50) + rng.normal(size=(3, 50))
    assert_allclose(evidence(curves, 8).sum(axis=1), evidence(curves)[:, 0], rtol=1e-12)


def test_three_points_say_nothing():
    assert np.isnan(evidence([0.0, 1.0, 2.0])).all()
