import naive
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from trajtools.errors import DataError
from trajtools.statistics import choose_spans, fit_slope, knees, usable, window_fits

NO_FLOOR = np.full((1, 1), -np.inf)


def test_line_is_that_of_the_normal_equations():
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.normal(size=30)), rng.normal(size=30)
    fit = fit_slope(x, y, 3, 25)
    slope, intercept, r2 = naive.line(x[3:25].tolist(), y[3:25].tolist())
    assert_allclose([fit.slope, fit.intercept, fit.r2], [slope, intercept, r2], rtol=1e-12)
    assert (fit.start, fit.stop) == (3, 25)


def test_error_of_the_slope_is_the_textbook_one():
    from scipy.stats import linregress

    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 20))
    assert_allclose(fit_slope(x, y).stderr, linregress(x, y).stderr, rtol=1e-10)


@settings(deadline=None, max_examples=50)
@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.integers(2, 40))
def test_a_straight_line_is_found_exactly(slope, intercept, n):
    x = np.arange(n) * 0.5
    fit = fit_slope(x, intercept + slope * x)
    assert_allclose([fit.slope, fit.intercept], [slope, intercept], atol=1e-9 * (1 + abs(slope) + abs(intercept)) * n)


def test_points_that_are_not_finite_are_left_out():
    fit = fit_slope([0, 1, 2, 3, 4], [0, 2, np.nan, np.inf, 8])
    assert_allclose(fit.slope, 2)


def test_a_line_through_one_point_is_refused():
    with pytest.raises(DataError, match="widen the region"):
        fit_slope([0, 1, 2], [1, np.nan, np.nan])
    with pytest.raises(DataError, match="equal length"):
        fit_slope([0, 1], [1, 2, 3])


def test_all_windows_at_once_equal_one_by_one():
    rng = np.random.default_rng(2)
    curves = rng.normal(size=(4, 50)).cumsum(axis=1) - 1e3
    curves[1, 20] = np.nan
    time = np.arange(50) * 0.1 + 7
    starts, stops = np.array([0, 5, 21, 0]), np.array([10, 30, 50, 50])
    slope, intercept, r2 = window_fits(time, curves, starts, stops)
    for c in range(4):
        for w in range(4):
            if c == 1 and starts[w] <= 20 < stops[w]:
                assert np.isnan([slope[c, w], r2[c, w]]).all()
                continue
            here = slice(starts[w], stops[w])
            expected = naive.line(time[here].tolist(), curves[c, here].tolist())
            assert_allclose([slope[c, w], intercept[c, w], r2[c, w]], expected, rtol=1e-7)


def test_usable_stretch_starts_above_the_floor_and_ends_at_a_gap_or_at_the_floor():
    curve = np.log(np.array([[1e-9, 1e-7, 1e-6, 1e-5, np.nan, 1e-4], [1.0, 0.1, 1e-2, 1e-9, 1e-9, 1.0]]))
    begin, end, at_floor = usable(curve, np.full((2, 6), np.log(1e-8)))
    assert begin.tolist() == [1, 0]
    assert end.tolist() == [3, 2]
    assert at_floor == 3


def test_a_curve_below_its_floor_has_no_points():
    begin, end, _ = usable(np.log(np.full((1, 4), 1e-9)), np.log(np.full((1, 4), 1e-8)))
    assert end[0] < begin[0]


def test_unknown_floor_forbids_nothing():
    begin, end, at_floor = usable(np.zeros((1, 4)), np.full((1, 4), np.nan))
    assert (begin[0], end[0], at_floor) == (0, 3, 0)


def test_knee_is_where_growth_ends_however_long_the_drift_after_it():
    for length in (60, 100, 1000):
        t = np.arange(float(length))
        curve = np.where(t < 50, 0.4 * t, 20 + 0.5 * np.log1p((t - 50).clip(0) / 50))
        knee, excess = knees(t, curve[None], np.zeros(1, int), np.array([length - 1]))
        assert knee[0] == naive.knee(curve)[0] == 50
        assert_allclose(excess[0], naive.knee(curve)[1], rtol=1e-12)


def test_straight_convex_and_shrinking_curves_do_not_saturate():
    t = np.arange(100.0)
    for curve in (0.3 * t, 0.003 * t**2, -0.3 * t, np.zeros(100)):
        spans = choose_spans(t, np.stack([curve] * 3), NO_FLOOR)
        assert spans.rule == "end of the record"
        assert spans.level == np.inf
        assert spans.saturated == 0


def test_curves_that_grow_alike_stop_at_one_time_below_saturation():
    t = np.arange(100.0)
    curves = np.minimum(-20 + 0.4 * t, 0) + np.linspace(-0.5, 0.5, 10)[:, None]
    spans = choose_spans(t, curves, NO_FLOOR)
    assert spans.rule == "common"
    assert len(set(spans.stop.tolist())) == 1
    assert np.all(curves[np.arange(10), spans.last] < spans.level + 1e-12)


def test_curves_that_burst_at_different_times_stop_one_by_one():
    t = np.arange(200.0)
    onset = np.linspace(0, 120, 30)[:, None]
    curves = np.minimum(-20 + 0.5 * (t - onset).clip(0), 0)
    spans = choose_spans(t, curves, NO_FLOOR)
    assert spans.rule == "first passage"
    low = float(np.median(curves.max(axis=1))) - np.log(1000)
    assert_array_equal(spans.stop, [naive.first_passage(curve, low) for curve in curves])
    assert np.mean(curves[np.arange(30), spans.last] >= spans.level) <= 0.05
