import naive_wolf as naive
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

import trajtools as tt
from trajtools.errors import DataError, NoNeighborsError, UnknownNameError
from trajtools.exponents.spectrum import kaplan_yorke, lyapunov_spectrum
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.reasons import codes
from trajtools.systems import henon, ikeda, logistic, lorenz, rossler, softmax_map
from trajtools.trajectory import Trajectory


def states(system, T, seed=0):
    return system.trajectory(T, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("horizon", [1, 2])
def test_the_exponents_of_the_whole_space_equal_the_slow_twin(horizon):
    x = states(henon(), 260)
    found = lyapunov_spectrum(x, neighbors=NearestK(6), theiler=2, horizon=horizon)
    assert_allclose(found.whole, naive.spectrum(x, 6, 2, horizon) / horizon, rtol=1e-7)


def test_a_gap_starts_the_vectors_anew():
    x = states(henon(), 260)
    x[130] = np.nan
    found = lyapunov_spectrum(x, neighbors=NearestK(6), theiler=2)
    assert_allclose(found.whole, naive.spectrum(x, 6, 2), rtol=1e-7)


def test_a_linear_map_gives_its_eigenvalues_exactly():
    # Neighbours are pushed off the diagonal by an independent start each: many short orbits, one after the other.
    matrix = np.array([[1.1, 0.4], [0.0, 0.8]])
    rng = np.random.default_rng(0)
    x = np.empty((4000, 2))
    for t in range(4000):
        x[t] = rng.normal(size=2) if t % 20 == 0 else matrix @ x[t - 1]
    x[::20] = np.nan
    found = lyapunov_spectrum(x, theiler=1)
    # 17 maps in a row only, so the vectors of each start are still turning: the sum does not care.
    assert found.whole.sum() == pytest.approx(np.log(1.1 * 0.8), rel=1e-6)


def test_henon_map_gives_both_exponents_and_its_dimension():
    orbits = [lyapunov_spectrum(states(henon(), 5000, seed), theiler=1) for seed in range(5)]
    first, second = np.mean([found.values for found in orbits], axis=0)
    assert first == pytest.approx(0.4192, rel=0.03)
    # The Cantor set is resolved by few neighbours only: 5 % too weak.
    assert second == pytest.approx(-1.6232, rel=0.06)
    assert np.mean([found.kaplan_yorke for found in orbits]) == pytest.approx(1.258, abs=0.02)
    assert all(found.resolved.all() for found in orbits)
    covered = sum(found.intervals[0, 0] < 0.4192 < found.intervals[0, 1] for found in orbits)
    assert covered >= 3  # 95 % of 5; fewer than 3 has p = 0.1 %


def test_ikeda_map_gives_both_exponents():
    paths = ikeda().trajectories(3, 5000, rng=np.random.default_rng(0))
    values = np.mean([lyapunov_spectrum(x, theiler=1).values for x in paths], axis=0)
    assert_allclose(values, [0.5077, -0.7184], rtol=0.05)


@pytest.mark.parametrize("length", [1000, 3000])
def test_the_interval_of_the_contracting_exponent_holds_it(length):
    x = states(henon(), length)
    bent = lyapunov_spectrum(x, theiler=1)
    assert bent.settings["order"] == 2
    assert bent.values.sum() == pytest.approx(np.log(0.3), abs=1e-6)  # quadratic maps are exact for a quadratic map
    linear = lyapunov_spectrum(x, theiler=1, neighbors=NearestK(6))
    assert linear.settings["order"] == 1
    for spectrum in (bent, linear):
        low, high = spectrum.intervals[1]
        assert low <= np.log(0.3) - spectrum.values[0] <= high
        assert (np.diff(spectrum.intervals, axis=1)[:, 0] >= 2 * np.abs(spectrum.shifts)).all()
    assert np.diff(linear.intervals[1]) > 2 * np.diff(bent.intervals[1])


def test_noise_calls_for_more_neighbours_and_wider_intervals():
    x = states(henon(), 3000)
    noisy = x + 1e-3 * x.std(axis=0) * np.random.default_rng(0).standard_normal(x.shape)
    plain, spectrum = lyapunov_spectrum(x, theiler=1), lyapunov_spectrum(noisy, theiler=1)
    assert spectrum.settings["neighbors"]["k"] > 12
    assert np.diff(spectrum.intervals[1]) > np.diff(plain.intervals[1])
    assert spectrum.intervals[1, 0] <= plain.values[1] <= spectrum.intervals[1, 1]


def test_a_record_too_short_for_larger_neighbourhoods_says_so():
    spectrum = lyapunov_spectrum(states(henon(), 110), theiler=1)
    assert np.isnan(spectrum.shifts).all()
    assert "neighborhood-bias" in codes(spectrum.warnings)


def test_an_exponent_without_an_interval_is_not_resolved():
    found = lyapunov_spectrum(states(henon(), 60))
    assert np.isnan(found.intervals).all()
    assert not found.resolved.any()
    assert "0 of 2 exponents resolved" in str(found)
    assert "interval-unknown" in codes(found.warnings)


def test_a_series_that_is_not_embedded_is_told_how():
    x = states(henon(), 2000)[:, 0]
    found = lyapunov_spectrum(x)
    assert not found.resolved.any()
    (reason,) = (one for one in found.warnings if one.code == "unexplained")
    assert "dim=" in str(reason)
    assert "delay=" in str(reason)
    noise = lyapunov_spectrum(np.random.default_rng(0).normal(size=2000), dim=2)
    assert not any("dim=" in str(one) for one in noise.warnings)


def test_logistic_map_gives_ln_2():
    found = lyapunov_spectrum(states(logistic(4.0), 3000), theiler=1)
    assert found.values[0] == pytest.approx(np.log(2), rel=0.02)


@pytest.mark.parametrize("horizon", [1, 5])
def test_lorenz_flow_gives_its_two_leading_exponents(horizon):
    paths = lorenz().trajectories(2, 20_000, rng=np.random.default_rng(0))
    found = [lyapunov_spectrum(x, theiler=100, horizon=horizon, dt=0.01) for x in paths]
    values = np.mean([f.values for f in found], axis=0)
    assert values[0] == pytest.approx(0.9057, rel=0.1)
    assert values[1] == pytest.approx(0.0, abs=0.09)
    # The third is thinner than the neighbourhoods: unknown, and said so.
    assert np.isnan(values[2])
    assert all(f.warnings[0].code == "not-resolved" for f in found)
    assert found[0].kaplan_yorke == pytest.approx(2.06, abs=0.06)


@pytest.mark.slow
def test_rossler_flow_gives_its_two_leading_exponents():
    found = lyapunov_spectrum(states(rossler(), 20_000), theiler=100, dt=0.1)
    assert found.values[0] == pytest.approx(0.0714, rel=0.1)
    assert found.values[1] == pytest.approx(0.0, abs=0.01)


def test_a_conserved_sum_is_no_direction():
    # Three logits whose sum is conserved: rounding alone differs along it, and must not leak into the others.
    found = lyapunov_spectrum(states(softmax_map(), 5000), theiler=1)
    truth = softmax_map().exponents(4000, rng=np.random.default_rng(1), k=2, n=8).values
    assert_allclose(found.values[:2], truth, atol=0.02)
    assert found.resolved.tolist() == [True, True, False]


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_an_embedded_logistic_map_has_one_exponent_and_the_rest_is_spurious(dim):
    x = tt.embedding.embed(states(logistic(4.0), 3000)[:, 0], dim)
    found = lyapunov_spectrum(x, theiler=1)
    assert found.values[0] == pytest.approx(np.log(2), rel=0.03)
    assert np.all(np.isnan(found.values[1:]))
    assert found.resolved.tolist() == [True] + [False] * (dim - 1)
    # Sauer, Tempkin and Yorke: the plain method gives multiples of it, as far as rounding lets it.
    assert found.whole[0] > 1.9 * np.log(2)


@pytest.mark.parametrize("rate", [3.6, 3.75, 3.9])
@pytest.mark.parametrize("dim", [2, 3])
def test_vectors_near_the_tangent_do_not_grow_at_the_rate_of_curvature(rate, dim):
    # The curve through (x, f(x)) bends little, so free vectors stay close to it and yet grow twice as fast.
    x = states(logistic(rate), 3000)[:, 0]
    exact = np.log(np.abs(rate * (1 - 2 * x))).mean()
    found = lyapunov_spectrum(x, dim=dim, delay=1, theiler=1)
    assert found.settings["directions"] == 1
    assert found.whole[0] > 1.5 * exact
    assert found.values[0] == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_an_embedded_henon_map_has_two_exponents(dim):
    x = tt.embedding.embed(states(henon(), 5000)[:, 0], dim)
    found = lyapunov_spectrum(x, theiler=1)
    assert found.values[0] == pytest.approx(0.4192, rel=0.05)
    assert found.values[1] == pytest.approx(-1.6232, rel=0.12)
    assert np.all(np.isnan(found.values[2:]))
    if dim > 2:
        assert found.whole[0] > 0.7


def test_noise_gets_no_exponents():
    found = lyapunov_spectrum(np.random.default_rng(0).normal(size=(3000, 3)), theiler=1)
    assert np.all(np.isnan(found.values))
    assert not found.resolved.any()
    assert found.warnings[0].code == "unexplained"
    assert np.isnan(found.kaplan_yorke)


@pytest.mark.parametrize("scale", [2.0**-40, 1e-100, 3.7, 1e100])
def test_scale_changes_nothing(scale):
    x = states(henon(), 1500)
    plain, scaled = lyapunov_spectrum(x, theiler=1), lyapunov_spectrum(x * scale, theiler=1)
    assert_allclose(scaled.values, plain.values, rtol=1e-6)


def test_rotation_and_translation_change_nothing():
    x = states(henon(), 1500)
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))
    plain, turned = lyapunov_spectrum(x, theiler=1).values, lyapunov_spectrum(x @ q + 1, theiler=1).values
    assert turned.sum() == pytest.approx(plain.sum(), rel=1e-6)
    # The vectors start along the axes: a memory of one in 1500 steps.
    assert_allclose(turned, plain, atol=2e-3)


def test_time_unit_and_number_of_exponents_are_as_asked():
    x = states(henon(), 2000)
    path = Trajectory.from_array(x, step=np.arange(2000) * 5)
    plain, timed = lyapunov_spectrum(x, theiler=1), lyapunov_spectrum(path, theiler=1, k=1)
    assert_allclose(timed.values, plain.values[:1] / 5, rtol=1e-12)
    assert timed.unit == "1/step"
    assert timed.intervals.shape == (1, 2)
    assert plain.to_dict()["settings"]["neighbors"] == {"rule": "NearestK", "k": 12}


def test_intervals_narrow_as_the_record_grows():
    widths = []
    for x in henon().trajectories(4, 8000, rng=np.random.default_rng(0)):
        short, long = lyapunov_spectrum(x[:2000], theiler=1), lyapunov_spectrum(x, theiler=1)
        widths.append([np.diff(f.intervals[0])[0] for f in (short, long)])
    short, long = np.mean(widths, axis=0)
    assert long < 0.8 * short


@pytest.mark.parametrize(
    ("values", "last", "expected"),
    [
        ([0.2, 0.1, -0.4, -1.0], np.nan, 2.75),
        ([0.5, np.nan], -2.0, 1.25),
        ([0.5, 0.1], np.nan, np.nan),
        ([-0.1, -0.2], np.nan, 0.0),
        ([np.nan], -1.0, np.nan),
    ],
)
def test_kaplan_yorke_dimension_by_hand(values, last, expected):
    assert_allclose(kaplan_yorke(np.array(values), last), expected)


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(3, 40), st.integers(1, 3)),
        elements=st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-2, 2).map(float)),
    )
)
def test_no_numbers_crash_it(x):
    try:
        found = lyapunov_spectrum(x, theiler=1)
    except DataError:
        return
    assert not np.any(np.isposinf(found.values))


def test_inputs_are_left_unchanged():
    x = states(henon(), 500)
    before = x.copy()
    lyapunov_spectrum(x, theiler=1)
    assert_array_equal(x, before)


def test_refusals_say_the_way_out():
    x = states(henon(), 300)
    with pytest.raises(DataError, match=r"NearestK\(4\) or more, twice the dimension"):
        lyapunov_spectrum(x, theiler=1, neighbors=NearestK(3))
    with pytest.raises(DataError, match="must be a NearestK"):
        lyapunov_spectrum(x, theiler=1, neighbors=WithinRadius(0.1))
    with pytest.raises(DataError, match="got 3"):
        lyapunov_spectrum(x, theiler=1, k=3)
    with pytest.raises(DataError, match="level"):
        lyapunov_spectrum(x, theiler=1, level=95)
    with pytest.raises(DataError, match="at least one sample"):
        lyapunov_spectrum(x, theiler=1, horizon=0)
    with pytest.raises(DataError, match="project to at most 64"):
        lyapunov_spectrum(np.random.default_rng(0).normal(size=(300, 65)), theiler=1)
    with pytest.raises(UnknownNameError, match="give states"):
        lyapunov_spectrum(np.ones((30, 30)), theiler=1, metric="precomputed")
    with pytest.raises(NoNeighborsError, match="no state has 6 neighbours"):
        lyapunov_spectrum(np.ones((100, 2)), theiler=1)
    with pytest.raises(DataError, match="too few"):
        lyapunov_spectrum(x[:2], theiler=1)
    with pytest.raises(NoNeighborsError, match="span 2 directions"):
        lyapunov_spectrum(np.tile([[0.0, 0.0], [1.0, 1.0]], (50, 1)), theiler=1)
