"""The 0-1 test: its formulas, its known answers, and the traps around it."""

import naive_dimension as naive
import numpy as np
import pytest

import trajtools as tt
from trajtools.errors import DataError, UnknownNameError
from trajtools.statistics import least_absolute_slopes


def logistic(r, n, x=0.4):
    out = np.empty(n)
    for t in range(-500, n):
        x = r * x * (1 - x)
        if t >= 0:
            out[t] = x
    return out


@pytest.mark.parametrize("damping", [0.0, 2.5])
def test_k_is_the_correlation_of_the_displacement_with_time(damping):
    x = 0.7 + np.random.default_rng(0).normal(size=230)
    found = tt.structure.zero_one_test(x, frequencies=5, every=1, damping=damping)
    expected = [naive.k_correlation(x, c, damping) for c in found.frequencies]
    np.testing.assert_allclose(found.values, expected, rtol=1e-9)
    assert found.value == np.median(found.values)
    at = found.frequencies[np.argmin(np.abs(found.values - found.value))]
    np.testing.assert_allclose(found.displacement, naive.displacement(x / np.abs(x).max(), at, damping), rtol=1e-9)


def test_leaving_the_mean_out_is_removing_the_oscillation_that_it_makes():
    x = 0.7 + 0.2 * np.random.default_rng(1).normal(size=1500)
    for c in (0.9, 2.3):
        ours, papers = np.array(naive.displacement(x, c)), np.array(naive.displacement_with_mean(x, c))
        # They differ by the cross terms of mean and fluctuation, which average out like 1 / sqrt(N).
        assert np.abs(ours - papers).mean() < 0.15 * ours.mean()


def test_slope_of_least_absolute_deviations_ignores_wild_points():
    x = np.arange(40.0)
    y = np.stack([3 * x - 1, -0.25 * x + 2])
    y[:, [3, 17, 30]] += [[50, -80, 10], [9, -9, 400]]
    np.testing.assert_allclose(least_absolute_slopes(x, y), [3, -0.25], atol=1e-9)


def test_slope_of_least_absolute_deviations_is_the_best_one():
    rng = np.random.default_rng(2)
    x, y = np.sort(rng.normal(size=25)), rng.normal(size=(6, 25))
    for row, slope in zip(y, least_absolute_slopes(x, y), strict=True):
        # The best line goes through two of the points.
        i, j = np.triu_indices(25, 1)
        slopes = (row[j] - row[i]) / (x[j] - x[i])
        cost = [np.abs(row - s * x - np.median(row - s * x)).sum() for s in (*slopes, slope)]
        assert cost[-1] <= min(cost[:-1]) * (1 + 1e-9)


@pytest.mark.parametrize("method", ["correlation", "regression"])
@pytest.mark.parametrize(
    ("x", "verdict"),
    [
        (logistic(4 - 1e-9, 2000), "irregular"),
        (logistic(3.9, 1500), "irregular"),
        (logistic(3.2, 1500), "regular"),
        (logistic(3.55, 2000), "regular"),
        (np.cos(0.7548 * np.pi * np.arange(2000)) + np.cos(1.3247 * np.arange(2000)), "regular"),
        (np.random.default_rng(3).normal(size=1000), "irregular"),
    ],
    ids=["logistic 4", "logistic 3.9", "period 2", "period 8", "quasi-periodic", "noise"],
)
def test_known_answers(x, verdict, method):
    found = tt.structure.zero_one_test(x, method=method)
    assert found.verdict == verdict
    assert found.value == pytest.approx(float(verdict == "irregular"), abs=0.1)
    assert found.every == 1
    assert found.n_used == len(x)


def test_oversampled_chaos_is_thinned_and_not_called_regular():
    lorenz = tt.systems.lorenz().trajectories(1, 12_000, rng=np.random.default_rng(4))[0, :, 0]
    trap = tt.structure.zero_one_test(lorenz, every=1)
    assert trap.value < 0.2
    assert trap.verdict == "inconclusive"
    assert trap.reasons[1].code == "oversampled"
    found = tt.structure.zero_one_test(lorenz)
    assert found.verdict == "irregular"
    assert found.value > 0.9
    assert 10 <= found.every <= 25
    assert found.n_used == len(lorenz[:: found.every])
    assert found.warnings[0].code == "oversampled"
    assert found.warnings[0].numbers["every"] == found.every


def test_verdict_waits_for_more_samples():
    few = tt.structure.zero_one_test(logistic(4 - 1e-9, 150))
    assert few.value > 0.8
    assert few.verdict == "inconclusive"
    assert "150 samples" in few.reasons[1].text
    weak = tt.structure.zero_one_test(logistic(3.6, 3000), method="regression")
    assert weak.verdict == "inconclusive"


def test_a_drift_is_not_judged():
    x = np.arange(4000.0) + np.random.default_rng(5).normal(size=4000)
    assert tt.structure.zero_one_test(x).verdict == "inconclusive"


def test_offset_and_unit_do_not_matter():
    x = logistic(3.97, 800)
    plain = tt.structure.zero_one_test(x).values
    # Weights near one that move by 1e-8: eight digits are left, and enough.
    np.testing.assert_allclose(tt.structure.zero_one_test(1 + 1e-8 * x).values, plain, atol=1e-5)
    np.testing.assert_allclose(tt.structure.zero_one_test(-3e200 * x).values, plain, atol=1e-9)


def test_motion_by_rounding_is_not_motion():
    x = np.float32(1) + np.spacing(np.float32(1)) * np.random.default_rng(6).integers(0, 5, 500).astype(np.float32)
    found = tt.structure.zero_one_test(x)
    assert found.verdict == "inconclusive"
    assert found.reasons[0].code == "below-rounding-floor"
    rest = tt.structure.zero_one_test(np.full(500, 0.3))
    assert (rest.value, rest.verdict) == (0.0, "regular")


def test_gaps_cut_the_series():
    x = logistic(4 - 1e-9, 1500)
    x[400] = np.nan
    found = tt.structure.zero_one_test(x)
    np.testing.assert_array_equal(found.values, tt.structure.zero_one_test(x[401:]).values)
    assert (found.n_used, found.n_total) == (1099, 1500)
    assert found.warnings[0].code == "not-finite"


def test_frequencies_keep_away_from_the_resonances():
    found = tt.structure.zero_one_test(logistic(3.9, 300), frequencies=500, rng=7)
    assert found.frequencies.min() > np.pi / 5
    assert found.frequencies.max() < 4 * np.pi / 5
    again = tt.structure.zero_one_test(logistic(3.9, 300), frequencies=500, rng=7)
    assert found.to_json() == again.to_json()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tt.structure.zero_one_test(np.ones((30, 2))), DataError, "one real series"),
        (lambda: tt.structure.zero_one_test(np.full(30, np.nan)), DataError, "finite"),
        (lambda: tt.structure.zero_one_test(np.ones(30), method="x"), UnknownNameError, "correlation"),
        (lambda: tt.structure.zero_one_test(np.ones(30), every=0), DataError, "every=0"),
        (lambda: tt.structure.zero_one_test(np.ones(30), frequencies=0), DataError, "frequencies=0"),
        (lambda: tt.structure.zero_one_test(np.ones(30), damping=-1), DataError, "damping=-1"),
        (lambda: tt.structure.zero_one_test(np.ones(30), most=10), DataError, "most=10"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_words(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_long_series_is_cut_and_said_to_be():
    x = logistic(3.9, 3000)
    found = tt.structure.zero_one_test(x, every=1, most=2000)
    whole = tt.structure.zero_one_test(x[:2000], every=1)
    np.testing.assert_allclose(found.values, whole.values, rtol=1e-9)
    assert (found.n_used, found.n_total) == (2000, 3000)
    assert [(w.code, w.numbers) for w in found.warnings] == [("thinned", {"used": 2000, "samples": 3000})]


def test_three_samples_give_no_answer():
    found = tt.structure.zero_one_test([1.0, 2.0, 3.0])
    assert np.isnan(found.value)
    assert found.verdict == "inconclusive"


def test_the_answer_draws_itself():
    found = tt.structure.zero_one_test(logistic(3.9, 600))
    lines = found.plot().lines
    np.testing.assert_array_equal(lines[0].get_ydata(), found.values)
    assert f"median {found.value:.3f}: irregular" in [line.get_label() for line in lines]
