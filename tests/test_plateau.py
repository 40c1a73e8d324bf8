"""Curves of neighbours: the plateau is found between transient and saturation, and the interval doubts it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.divergence import Divergence
from trajtools.exponents.fit_neighbors import find_plateau, fit_neighbors, more_states, saturation, standard_error
from trajtools.reasons import codes

RATE = 0.2


def planted(blocks=40, steps=60, *, rate=RATE, level=0.0, start=-8.0, noise=0.02, transient=0.0, method="rosenstein"):
    """Blocks whose distances grow exponentially into saturation, with slopes of their own."""
    rng = np.random.default_rng(1)
    time = np.arange(steps + 1.0)
    slopes = rate * (1 + noise * rng.standard_normal((blocks, 1)))
    free = start + slopes * time + transient * (1 - np.exp(-time / 2))
    curves = -np.logaddexp(-free, -level)
    return Divergence(
        method=method,
        metric="l2",
        average="mean-log",
        time=time,
        time_unit="sample",
        log_distance=curves.mean(axis=0),
        distances=np.exp(curves),
        group=np.arange(blocks),
        start=np.arange(blocks) * 100,
        floor=np.full(curves.shape, np.nan),
        scale=np.full(blocks, np.nan),
        n_references=blocks,
        settings={"theiler": 3, "block_terms": np.full((blocks, steps + 1), 50)},
    )


def test_the_slope_of_a_planted_plateau_is_found():
    found = planted(steps=90).fit()
    assert_allclose(found.value, RATE, rtol=0.02)
    assert found.interval[0] < RATE < found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.05 * RATE
    assert found.window[1] < 40  # where it saturates
    assert found.settings["saturation_level"] == pytest.approx(0.0, abs=0.05)
    assert len(found.window_values) > 3
    assert_allclose(found.settings["half_values"], RATE, rtol=0.03)


def test_a_transient_is_skipped():
    found = planted(transient=2.0, start=-14.0, steps=100).fit()
    assert found.window[0] >= 4
    assert_allclose(found.value, RATE, rtol=0.03)


def test_the_fit_knows_no_scale():
    one, two = planted(start=-8.0, level=0.0).fit(), planted(start=-108.0, level=-100.0).fit()
    assert_allclose(two.value, one.value, rtol=1e-9)
    assert two.window == one.window


def test_little_room_widens_the_interval():
    wide, narrow = planted(start=-3.5).fit(), planted(start=-12.0, steps=80).fit()
    assert wide.interval[1] - wide.interval[0] > 4 * (narrow.interval[1] - narrow.interval[0])
    assert wide.interval[0] < RATE < wide.interval[1]


def sparser(share=0.25, **options):
    growth = planted(**options)
    return replace(growth, settings=growth.settings | {"share": share})


def test_farther_neighbors_that_grow_at_another_rate_widen_the_interval():
    growth = planted()
    plain = fit_neighbors(growth)
    same, other = (fit_neighbors(growth, sparser=sparser(start=-7.0, rate=rate)) for rate in (RATE, 1.3 * RATE))
    assert plain.value == same.value == other.value
    assert np.diff(same.interval) < 1.1 * np.diff(plain.interval)
    assert other.settings["value_of_sparse_states"] == pytest.approx(1.3 * RATE, rel=0.02)
    # An error proportional to the distance: neighbours are e times as far apart.
    added = np.sqrt(other.settings["standard_error"] ** 2 - plain.settings["standard_error"] ** 2)
    assert added == pytest.approx(0.3 * RATE / (np.e - 1), rel=0.05)
    assert other.settings["density_dimension"] == pytest.approx(np.log(4), rel=0.01)
    assert np.isnan(plain.settings["density_dimension"])


def test_farther_neighbors_leave_the_sign_of_growth():
    growth = planted()
    plain, other = fit_neighbors(growth), fit_neighbors(growth, sparser=sparser(start=-7.95, rate=3 * RATE))
    assert other.value - 2 * other.settings["standard_error"] < 0 < other.interval[0] < 0.5 * RATE
    assert other.interval[1] > 3 * RATE
    assert other.settings["p_zero"] == plain.settings["p_zero"] < 1e-6


def test_neighbors_that_are_hardly_farther_add_no_more_than_their_difference():
    growth = planted()
    plain, other = fit_neighbors(growth), fit_neighbors(growth, sparser=sparser(start=-7.95, rate=1.3 * RATE))
    added = np.sqrt(other.settings["standard_error"] ** 2 - plain.settings["standard_error"] ** 2)
    assert added == pytest.approx(0.3 * RATE, rel=0.05)


def test_farther_neighbors_without_a_window_are_fitted_in_the_same_one():
    growth, far = planted(), sparser(start=-1.5)
    found = fit_neighbors(growth, sparser=far)
    inside = (far.time >= found.window[0]) & (far.time <= found.window[1])
    slope = np.polyfit(far.time[inside], far.log_distance[inside], 1)[0]
    assert found.settings["value_of_sparse_states"] == pytest.approx(slope)


def test_no_window_says_how_many_states_would_give_one():
    growth = planted(start=-1.8, steps=40)
    found = fit_neighbors(growth, sparser=sparser(start=-1.1, steps=40))
    assert found.reasons[0].code == "no-exponential-regime"
    times = found.reasons[0].numbers["times"]
    assert f"about {times:.2g} times as many states" in str(found.reasons[0])
    # So many states, and half as many again, bring neighbours closer by their dimension, which is enough.
    closer = growth.log_distance[0] - np.log(1.5 * times) / found.settings["density_dimension"]
    assert np.isnan(found.value)
    assert fit_neighbors(planted(start=closer, steps=60)).value == pytest.approx(RATE, rel=0.3)
    assert "record more states" in str(fit_neighbors(growth).reasons[0])


def test_a_curve_that_is_about_to_saturate_ends_at_its_highest_point():
    growth = planted(steps=34, start=-6.0, level=-0.5)
    level, end = saturation(growth.log_distance, 1.0)
    assert level == growth.log_distance.max()
    assert growth.log_distance[end] <= level - 1.0 < growth.log_distance[end + 1]


def test_replaced_pairs_that_end_near_the_spread_of_the_states_have_wide_intervals():
    growth = planted(steps=8, method="wolf", start=-4.0, level=4.0)
    far, near = (
        replace(growth, settings=growth.settings | {"spread": size}).fit().settings["finite_distance_share"]
        for size in (1.0, 0.1)
    )
    assert near == pytest.approx(10 * far)
    assert far == pytest.approx(np.exp(growth.log_distance[4]))


def test_a_curve_without_saturation_is_fitted_to_its_end():
    growth = planted(steps=20)
    assert saturation(growth.log_distance, 1.0) == (float("inf"), 20)
    assert growth.fit().window[1] > 12
    assert_allclose(growth.fit().value, RATE, rtol=0.02)


def test_neighbours_that_stay_neighbours_are_bounded_and_not_called_regular_without_a_test():
    found = planted(rate=0.0).fit()
    assert (found.verdict, found.growth) == ("inconclusive", "undecided")
    assert codes(found.reasons) == ("bounded",)


def test_short_windows_near_saturation_have_wide_intervals():
    short, long = (planted(start=start).fit() for start in (-3.2, -8.0))
    assert short.settings["gain"] < 2 < long.settings["gain"]
    assert short.interval[0] < RATE < short.interval[1]
    assert np.diff(short.interval) > 2 * np.diff(long.interval)


def test_a_jump_is_no_exponential_regime():
    growth = planted(steps=30, rate=8.0, start=-5.0)
    found = growth.fit()
    assert found.verdict == "inconclusive"
    assert found.reasons[0].code == "unresolved"


def test_a_region_can_be_given():
    found = planted().fit((5.0, 15.0))
    assert found.window == (5.0, 15.0)
    assert_allclose(found.value, RATE, rtol=0.02)
    with pytest.raises(DataError, match="contains 0 points"):
        planted().fit((500.0, 600.0))
    with pytest.raises(UnknownNameError, match="auto"):
        planted().fit("best")
    with pytest.raises(DataError, match="level"):
        planted().fit(level=2.0)


def test_few_blocks_give_no_interval():
    found = planted(blocks=3).fit()
    assert np.isnan(found.interval).all()
    assert found.reasons[-1].code == "error-unknown"


def test_without_the_data_no_verdict_of_chaos_is_given():
    found = planted().fit()
    assert found.verdict == "inconclusive"
    assert found.reasons[-1].code == "not-tested"


def test_blocks_that_are_replaced_are_fitted_whole():
    found = planted(steps=8, method="wolf", start=-20.0).fit()
    assert_allclose(found.value, RATE, rtol=0.02)
    assert found.window[1] - found.window[0] >= 4


def test_the_slope_of_replaced_blocks_is_what_they_gain_from_end_to_end():
    growth = planted(steps=8, method="hybrid", start=-20.0, transient=1.0)
    found = growth.fit()
    assert found.window == (0.0, 8.0)
    assert_allclose(found.value, (growth.log_distance[-1] - growth.log_distance[0]) / 8, rtol=1e-12)
    gains = np.log(growth.distances[:, -1] / growth.distances[:, 0]) / 8
    assert_allclose(found.values, gains, rtol=1e-12)
    assert growth.fit((2.0, 6.0)).value != found.value


def test_all_nan_after_a_point_is_the_end():
    growth = planted(steps=40)
    curve = growth.log_distance.copy()
    curve[25:] = np.nan
    cut = Divergence(**{**vars(growth), "log_distance": curve})
    assert find_plateau(cut, None).stop < 25


def test_the_standard_error_is_that_of_a_weighted_mean():
    rng = np.random.default_rng(2)
    blocks = rng.standard_normal((50, 1))
    assert_allclose(standard_error(blocks, np.ones(50)), blocks.std(ddof=1) / np.sqrt(50))
    assert np.isnan(standard_error(blocks[:1], np.ones(1)))


def test_more_states_than_anybody_records_are_no_advice():
    for dimension, reachable in ((2.0, True), (8.0, False)):
        advice, times = more_states(1.2, dimension)
        assert times == pytest.approx(np.exp(1.2 * dimension))
        assert ("out of reach" in advice) is not reachable
