import naive_series as naive
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from trajtools.errors import DataError, NoNeighborsError
from trajtools.exponents.neighbor_methods import rosenstein
from trajtools.neighbors.rules import NearestK
from trajtools.trajectory import Trajectory


def walk(n=70, d=2, seed=0):
    return np.cumsum(np.random.default_rng(seed).normal(size=(n, d)), axis=0)


def logistic(n, start=0.3):
    x = np.empty(n)
    x[0] = start
    for t in range(n - 1):
        x[t + 1] = 4 * x[t] * (1 - x[t])
    return x


def henon(n, a=1.4, b=0.3):
    x = np.empty((n, 2))
    x[0] = 0.1, 0.1
    for t in range(n - 1):
        x[t + 1] = 1 - a * x[t, 0] ** 2 + x[t, 1], b * x[t, 0]
    return x


def slope(curve, start, stop):
    return np.polyfit(curve.time[start:stop], curve.log_distance[start:stop], 1)[0]


@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
@pytest.mark.parametrize(("d", "k", "horizon"), [(1, 1, 0), (2, 1, 9), (3, 4, 8), (5, 2, 20), (30, 2, 8)])
def test_the_curve_equals_its_slow_twin(metric, d, k, horizon):
    x = walk(d=d)
    curve = rosenstein(x, metric=metric, neighbors=NearestK(k), theiler=6, horizon=horizon)
    expected, terms = naive.rosenstein(x, k, 6, horizon, metric=metric)
    assert_allclose(curve.log_distance, expected, rtol=1e-12, atol=1e-13)
    assert_array_equal(curve.settings["terms"], terms)


def first_quarters(n, blocks=16):
    """Times in the first quarter of each of sixteen equal parts."""
    return {t for t in range(n) if t % (n // blocks) < n // blocks / 4}


def test_a_share_uses_states_in_blocks_of_time_as_its_slow_twin_does():
    x = walk(192, 2)
    curve = rosenstein(x, neighbors=NearestK(2), theiler=6, horizon=8, share=0.25)
    expected, terms = naive.rosenstein(x, 2, 6, 8, among=first_quarters(192))
    assert_allclose(curve.log_distance, expected, rtol=1e-12)
    assert_array_equal(curve.settings["terms"], terms)
    assert curve.n_references == 16 * 3
    assert curve.settings["share"] == 0.25


def test_a_share_puts_neighbors_apart_by_the_dimension_of_the_attractor():
    x = henon(20_000)[100:]
    whole, part = (rosenstein(x, theiler=3, horizon=2, share=share).log_distance[0] for share in (1.0, 0.25))
    assert np.log(4) / (part - whole) == pytest.approx(1.26, abs=0.15)


@pytest.mark.parametrize("share", [0.0, 1.5, np.nan, True, "half"])
def test_a_share_is_a_part_of_the_whole(share):
    with pytest.raises(DataError, match="above 0 and at most 1"):
        rosenstein(walk(), theiler=3, horizon=4, share=share)


def test_the_curve_from_distances_is_that_from_states():
    x = walk(60, 3)
    options = {"neighbors": NearestK(2), "theiler": 4, "horizon": 7}
    from_distances = rosenstein(naive.distances(x), metric="precomputed", **options)
    assert_allclose(from_distances.log_distance, rosenstein(x, **options).log_distance, rtol=1e-12)


def test_pairs_that_meet_later_are_left_out_there_and_counted():
    x = np.concatenate([walk(40)[:, 0], np.zeros(12)])
    curve = rosenstein(x, theiler=2, horizon=6)
    expected, terms = naive.rosenstein(x[:, None], 1, 2, 6)
    assert_allclose(curve.log_distance, expected, rtol=1e-12)
    assert curve.settings["left_out"]["zero_later"] == sum(terms[0] - t for t in terms) > 0


def test_a_missing_distance_leaves_out_its_pairs():
    d = naive.distances(walk(50))
    d[20, 31] = d[31, 20] = np.nan
    curve = rosenstein(d, metric="precomputed", neighbors=NearestK(48), theiler=1, horizon=3)
    # The pair itself is no neighbour; pairs one to three steps before it meet it later.
    assert curve.settings["left_out"]["missing_later"] == 2 * 3
    assert np.all(np.isfinite(curve.log_distance))


def test_the_units_are_blocks_of_reference_states():
    x = walk(600)
    curve = rosenstein(x, theiler=10, horizon=5)
    terms = curve.settings["block_terms"]
    assert len(curve.distances) > 10
    assert_array_equal(np.unique(curve.group), np.arange(len(curve.distances)))
    pooled = (np.log(curve.distances) * terms).sum(axis=0) / terms.sum(axis=0)
    assert_allclose(pooled, curve.log_distance, rtol=1e-12)
    assert terms[:, 0].sum() == curve.n_references == 595


def test_logistic_map_gives_ln_2():
    # 20,000 states lie 1e-4 apart, so there are ten doublings before saturation; skip one step, fit six.
    curve = rosenstein(logistic(20_000), theiler=1, horizon=8)
    assert slope(curve, 1, 7) == pytest.approx(np.log(2), rel=0.02)


def test_henon_map_full_state_gives_its_exponent():
    # Two e-folds above the spacing of 5000 states: 5 % is what that leaves.
    curve = rosenstein(henon(5100)[100:], theiler=10, horizon=10)
    assert slope(curve, 1, 7) == pytest.approx(0.41922, rel=0.05)


def test_pairs_on_two_exact_exponentials_grow_exactly():
    # Two exponentials that start 1 % apart, with a state between them that nothing can be followed across.
    t = np.arange(40)
    x = np.concatenate([np.exp(0.25 * t), [np.nan], 1.01 * np.exp(0.25 * t)])
    curve = rosenstein(x, theiler=20, horizon=10)
    assert_allclose(np.diff(curve.log_distance), 0.25, rtol=1e-10)


@pytest.mark.parametrize("scale", [2.0**-30, 1e-170, 3.7, 1e170])
def test_scale_shifts_the_curve_by_its_logarithm(scale):
    x = walk(300, 3)
    plain = rosenstein(x, theiler=5, horizon=9)
    scaled = rosenstein(x * scale, theiler=5, horizon=9)
    assert_allclose(scaled.log_distance, plain.log_distance + np.log(scale), rtol=1e-12, atol=1e-12)


def test_rotation_and_translation_change_nothing_in_l2():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1500, 4))
    q, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    plain = rosenstein(x, theiler=5, horizon=9)
    assert_allclose(rosenstein(x @ q + 0.5, theiler=5, horizon=9).log_distance, plain.log_distance, rtol=1e-9)


def test_dt_is_the_unit_of_time():
    x = walk(200)
    curve = rosenstein(x, theiler=5, horizon=4, dt=0.25)
    assert curve.time.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert_array_equal(curve.log_distance, rosenstein(x, theiler=5, horizon=4).log_distance)


def test_a_trajectory_brings_its_own_time():
    x = walk(200)
    path = Trajectory.from_array(x, dt=0.1, step=np.arange(200) * 5 + 100)
    curve = rosenstein(path, theiler=5, horizon=4)
    assert_allclose(curve.time, np.arange(5) * 0.5)
    assert curve.time_unit == "time"  # a step takes 0.1 of it
    assert curve.start[0] == 100
    assert_array_equal(curve.log_distance, rosenstein(x, theiler=5, horizon=4).log_distance)


def test_a_trajectory_with_uneven_steps_is_refused():
    path = Trajectory.from_array(walk(100), step=np.arange(100) ** 2)
    with pytest.raises(DataError, match=r"select with window\(start, stop, every=k\)"):
        rosenstein(path, theiler=5, horizon=4)


def test_the_number_of_threads_changes_no_bit():
    import numba

    x = np.random.default_rng(5).normal(size=(5000, 3))
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = rosenstein(x, theiler=9, horizon=7)
    finally:
        numba.set_num_threads(before)
    two = rosenstein(x, theiler=9, horizon=7)
    assert_array_equal(one.log_distance, two.log_distance)
    assert_array_equal(one.distances, two.distances)


def test_thousands_of_factors_neither_overflow_nor_vanish():
    x = np.random.default_rng(1).normal(size=(4000, 1)) * 1e-90
    curve = rosenstein(x, neighbors=NearestK(9), theiler=1, horizon=2)
    # Later on the pairs are independent: the mean of ln|sqrt(2) z| is -gamma / 2; its scatter here is about .02.
    assert_allclose(curve.log_distance[1:], np.log(1e-90) - np.euler_gamma / 2, atol=0.08)


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(3, 30), st.integers(1, 3)),
        elements=st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-2, 2).map(float)),
    )
)
def test_no_numbers_crash_it(x):
    try:
        curve = rosenstein(x, theiler=1, horizon=1)
    except DataError:
        return
    assert not np.any(np.isinf(curve.log_distance))
    assert np.isfinite(curve.log_distance[0])


@pytest.mark.parametrize("x", [np.ones(50), np.full(4, -0.0), np.zeros((3, 2))])
def test_without_neighbors_it_says_what_was_left_out(x):
    with pytest.raises(NoNeighborsError, match=r"theiler=.*pairs of equal states"):
        rosenstein(x, theiler=2, horizon=0)


def test_one_state_of_many_weights_is_enough_for_a_row():
    x = np.random.default_rng(0).normal(size=(12, 100_000))
    curve = rosenstein(x, theiler=2, horizon=3)
    expected, _ = naive.rosenstein(x[:, :5], 1, 2, 3)
    assert curve.log_distance.shape == expected.shape
    # Two independent states of 1e5 normal entries are sqrt(2e5) apart, to 1e-2.
    assert_allclose(curve.log_distance, 0.5 * np.log(2e5), atol=0.02)


def test_bad_dt_is_refused():
    with pytest.raises(DataError, match="got 0"):
        rosenstein(walk(50), theiler=1, horizon=2, dt=0)


# -- across the motion -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "k", "horizon", "stride"), [(2, 1, 9, 1), (3, 3, 12, 2), (5, 2, 20, 3)])
def test_the_curve_across_the_motion_equals_its_slow_twin(d, k, horizon, stride):
    x = walk(90, d, seed=3)
    x[40] = np.nan
    curve = rosenstein(x, neighbors=NearestK(k), theiler=6, horizon=horizon, across=True, stride=stride)
    expected, terms = naive.rosenstein_across(x, k, 6, horizon, stride)
    assert_allclose(curve.log_distance, expected, rtol=1e-11, atol=1e-12)
    assert_array_equal(curve.settings["terms"], terms)
    assert curve.settings["across"] is True
    assert curve.settings["stride"] == stride


def test_a_shift_in_time_is_no_distance_across_the_motion():
    # The turns of a helix are 2 pi c apart; its samples meet with a shift of 0.017, which the plain distance counts.
    t, c = 0.1 * np.arange(1500), 1e-3
    helix = np.stack([np.cos(t), np.sin(t), c * t], axis=1)
    options = {"theiler": 20, "horizon": 30}
    plain, across = (rosenstein(helix, **options, across=each) for each in (False, True))
    assert_allclose(np.exp(across.log_distance), 2 * np.pi * c, rtol=1e-3)
    assert np.all(np.exp(plain.log_distance) > 2 * 2 * np.pi * c)


def test_distances_across_the_motion_do_not_change_under_rotation():
    x = walk(300, 3, seed=4)
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    one, two = (rosenstein(each, theiler=5, horizon=12, across=True) for each in (x, x @ turn))
    assert_allclose(two.log_distance, one.log_distance, rtol=1e-9)


def test_what_has_no_direction_is_refused():
    with pytest.raises(DataError, match="two or more dimensions"):
        rosenstein(walk(60, 1), theiler=2, horizon=3, across=True)
    with pytest.raises(DataError, match="'l1'"):
        rosenstein(walk(60, 2), metric="l1", theiler=2, horizon=3, across=True)
    with pytest.raises(DataError, match="precomputed"):
        rosenstein(naive.distances(walk(60, 2)), metric="precomputed", theiler=2, horizon=3, across=True)
    with pytest.raises(DataError, match="stride=0"):
        rosenstein(walk(60, 2), theiler=2, horizon=3, stride=0)


def test_a_partner_is_never_shifted_onto_the_reference_itself():
    # A slow circle: the orbit beside each state is its own, so the shift could walk all the way home.
    t = 0.05 * np.arange(2000)
    noise = 1e-3 * np.random.default_rng(8).normal(size=(2000, 3))
    circle = np.stack([np.cos(t), np.sin(t), 0.3 * np.sin(0.618 * t)], axis=1) + noise
    curve = rosenstein(circle, theiler=3, horizon=100, across=True)
    assert np.all(np.isfinite(curve.log_distance))
    assert curve.settings["left_out"]["zero_later"] == 0
