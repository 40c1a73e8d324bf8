"""One trajectory: the exponent of known systems, the verdict on what has none, and never a crash."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import trajtools as tt
from trajtools.errors import DataError, UnknownNameError
from trajtools.reasons import codes
from trajtools.systems import SYSTEMS

HENON = 0.4192
NOT_CHAOS = ("regular", "inconclusive")


def trajectory(name, length, seed, transient=1000, **parameters):
    return SYSTEMS[name](**parameters).trajectory(length, rng=np.random.default_rng(seed), transient=transient)


def autoregression(phi, length, rng):
    x = np.zeros(length)
    noise = rng.standard_normal(length)
    for t in range(1, length):
        x[t] = phi * x[t - 1] + noise[t]
    return x


@pytest.fixture(scope="module")
def henon():
    return trajectory("henon", 5000, 1)


@pytest.fixture(scope="module")
def found(henon):
    return tt.lyapunov(henon)


# -- right -------------------------------------------------------------------------------------------------------------


def test_henon_is_chaotic_within_five_percent(found):
    assert found.verdict == "chaotic"
    assert_allclose(found.value, HENON, rtol=0.05)
    assert found.interval[0] < HENON < found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.1
    assert found.p_value == 0.01
    assert "cross-spectra" in found.null


def test_a_coordinate_is_embedded_and_the_choices_are_told(henon):
    found = tt.lyapunov(henon[:, 0])
    assert found.verdict == "chaotic"
    assert_allclose(found.value, HENON, rtol=0.07)
    assert found.settings["dim"] == found.settings["dim_choice"]["value"] == 2
    assert found.settings["delay"] == found.settings["delay_choice"]["value"] == 1
    assert len(found.settings["theiler_choice"]["statistic"]) > 2
    assert "same spectrum" in found.null


@pytest.mark.parametrize(("method", "rtol"), [("kantz", 0.1), ("wolf", 0.15)])
def test_other_methods_agree(henon, method, rtol):
    found = tt.lyapunov(henon, method=method)
    assert found.method == method
    assert_allclose(found.value, HENON, rtol=rtol)


@pytest.mark.parametrize("method", ["kantz", "wolf", "hybrid"])
def test_other_methods_are_within_5_percent_on_henon(method):
    found = [tt.lyapunov(trajectory("henon", 5000, seed), method=method, null=None) for seed in range(5)]
    assert abs(np.median([f.value for f in found]) / HENON - 1) < 0.05
    assert sum(f.interval[0] < HENON < f.interval[1] for f in found) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "wolf", "hybrid"])
def test_methods_are_within_10_percent_on_lorenz(method):
    found = [
        tt.lyapunov(trajectory("lorenz", 20000, seed, transient=3000), dt=0.01, method=method, null=None)
        for seed in range(3)
    ]
    assert abs(np.median([f.value for f in found]) / 0.9056 - 1) < 0.1
    assert all(f.interval[0] < 0.9056 < f.interval[1] for f in found)
    assert all(f.settings["across"] for f in found)


@pytest.mark.slow
def test_rossler_is_within_10_percent():
    found = [
        tt.lyapunov(trajectory("rossler", 20000, seed, transient=3000), dt=0.1, null=None).value for seed in range(3)
    ]
    assert abs(np.median(found) / 0.0714 - 1) < 0.1


def test_a_smooth_series_in_one_dimension_has_no_direction_to_take_out():
    x = trajectory("lorenz", 3000, 6, transient=3000)[:, 0]
    found = tt.lyapunov(x, dim=1, null=None)
    assert found.settings["across"] is False
    assert found.settings["distance_along"] > 0


def test_training_chaos_is_chaotic():
    found = tt.lyapunov(trajectory("quartic_descent", 3000, 3))
    assert found.verdict == "chaotic"
    assert_allclose(found.value, np.log(3), rtol=0.03)


@pytest.mark.parametrize(
    ("name", "true"), [("lorenz", 0.9056), pytest.param("rossler", 0.0714, marks=pytest.mark.slow)]
)
def test_flows_are_within_their_interval_and_a_tenth(name, true):
    x = trajectory(name, 20_000, 5, transient=3000)
    found = tt.lyapunov(x, dt=SYSTEMS[name]().dt, null=None)
    assert found.interval[0] < true < found.interval[1]
    assert_allclose(found.value, true, rtol=0.1)
    assert found.settings["interpolated"] > 1
    assert found.verdict == "inconclusive"
    assert found.reasons[-1].code == "no-null"


def test_scale_and_time_unit_do_what_they_must(henon, found):
    moved = tt.lyapunov(1e-6 * henon, null=None)
    assert_allclose(moved.value, found.value, rtol=1e-6)
    slow = tt.lyapunov(henon, dt=0.5, null=None)
    assert_allclose(slow.value, 2 * found.value, rtol=1e-9)
    huge = tt.lyapunov(henon * 1e200, null=None)
    assert_allclose(huge.value, found.value, rtol=1e-6)


def test_same_seed_gives_the_same_bits(henon, found):
    assert tt.lyapunov(henon).to_json() == found.to_json()


# -- honest ------------------------------------------------------------------------------------------------------------


def regular_records():
    rng = np.random.default_rng(7)
    t = np.arange(3000)
    yield "sine", np.sin(0.13 * t)
    yield "torus", np.sin(0.1 * t) + np.sin(0.1 * np.sqrt(2) * t)
    yield "iid", rng.standard_normal(1200)
    yield "iid in 20 dimensions", rng.standard_normal((1500, 20))
    yield "walk", rng.standard_normal(2000).cumsum()
    yield "walk in 30 dimensions", rng.standard_normal((2000, 30)).cumsum(axis=0)
    yield "coloured", autoregression(0.9, 1500, rng)
    yield "cycle", trajectory("van_der_pol", 3000, 8)
    yield "period 4", trajectory("logistic", 1000, 9, r=3.5)
    yield "descent", trajectory("quadratic_descent", 1000, 10, transient=0, eta=0.01)
    yield "saddle", trajectory("saddle_escape", 1000, 11, transient=0)
    yield "runaway", np.exp(np.linspace(0, 300, 1000))


@pytest.mark.parametrize(("name", "x"), list(regular_records()), ids=lambda each: each if isinstance(each, str) else "")
@pytest.mark.parametrize("method", ["auto", "kantz", "wolf"])
def test_what_is_not_chaos_is_not_called_so(name, x, method):
    found = tt.lyapunov(x, method=method)
    assert found.verdict in NOT_CHAOS
    assert found.reasons


def test_a_cycle_is_regular_and_a_drift_points_to_twins():
    assert tt.lyapunov(trajectory("hopf", 3000, 12)).verdict == "regular"
    way = np.linspace(0, 1, 1000)[:, None] * np.random.default_rng(13).standard_normal(30)
    drift = tt.lyapunov(way)
    assert drift.verdict == "inconclusive"
    assert drift.reasons[0].code == "drift"
    assert "use-twins" in codes(drift.reasons)


def test_the_null_is_one_that_the_data_could_be(henon):
    walk = np.random.default_rng(14).standard_normal((500, 3)).cumsum(axis=0)
    assert tt.lyapunov(walk, null="random-walk", surrogates=19).settings["null"] == "random-walk"
    few = tt.lyapunov(henon[:2000], surrogates=19)
    assert few.p_value == 0.05
    assert few.verdict == "inconclusive"


def test_weights_under_momentum_are_not_the_state(henon):
    def run(**hparams):
        held = tt.Trajectory.from_array(henon[:1500])
        return SimpleNamespace(
            hparams=hparams, optimizer=None, members=(0,), states=None, stored="weights", trajectory=lambda: held
        )

    plain, heavy = tt.lyapunov(run(lr=0.1)), tt.lyapunov(run(lr=0.1, momentum=0.9), null=None)
    assert plain.verdict == "chaotic"
    assert heavy.verdict == "inconclusive"
    assert heavy.reasons[0].code == "hidden-state"
    assert tt.lyapunov(run(optimizer="Adam"), null=None).reasons[0].code == "hidden-state"
    delayed = tt.lyapunov(run(momentum=0.9), dim=2, delay=1)
    assert delayed.verdict == "chaotic"


def test_coarse_numbers_are_told():
    x = trajectory("logistic", 2000, 15)
    assert tt.lyapunov(x.astype(np.float32)).verdict == "chaotic"
    coarse = tt.lyapunov(np.round(x, 2))
    assert coarse.verdict == "inconclusive"
    assert "repeats" in [reason.code for reason in coarse.reasons]


# -- never a crash -----------------------------------------------------------------------------------------------------


def with_value(x, index, value):
    out = np.array(x, dtype=np.float64)
    out[index] = value
    return out


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308])
@pytest.mark.parametrize("index", [0, 777, -1])
def test_a_state_that_is_no_number_is_left_out(value, index):
    x = trajectory("logistic", 1500, 16)[:, 0]
    found = tt.lyapunov(with_value(x, index, value), null=None)
    assert_allclose(found.value, np.log(2), rtol=0.05)


@pytest.mark.parametrize(
    "x",
    [
        [1.0],
        [1.0, 2.0, 3.0],
        np.ones(400),
        np.ones((400, 3)),
        np.full(400, np.nan),
        np.full(400, np.inf),
        np.tile([0.0, 1.0], 300),
        np.arange(500),
        np.r_[np.zeros(300), 1.0, np.zeros(300)],
        np.random.default_rng(17).integers(0, 3, 500),
        np.random.default_rng(18).random(500).astype(np.float16),
        np.random.default_rng(19).random(500) < 0.5,
        np.random.default_rng(20).random(35),
        np.random.default_rng(21).random((1, 50)),
        np.exp(-np.arange(1500.0)),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["auto", "kantz", "wolf", "hybrid"])
def test_poor_data_get_a_verdict_and_a_reason(x, method):
    found = tt.lyapunov(x, method=method)
    assert found.verdict in NOT_CHAOS
    assert found.reasons
    assert found.to_json()


@pytest.mark.parametrize("shape", [(0,), (5, 0)])
def test_an_empty_trajectory_is_refused(shape):
    with pytest.raises(DataError, match="empty"):
        tt.lyapunov(np.empty(shape))


def test_missing_values_that_an_embedding_spreads_over_all_states_are_named():
    x = trajectory("logistic", 500, 16)[:, 0]
    x[::3] = np.nan
    found = tt.lyapunov(x, dim=4, delay=1, null=None)
    assert "167 of 500 values are missing, and delay vectors with dim=4 (as passed)" in found.reasons[0].text
    assert str(found).startswith("Exponent: unknown: inconclusive")


def test_very_many_dimensions_are_no_obstacle():
    x = np.random.default_rng(22).standard_normal((110, 100_000)).astype(np.float32)
    found = tt.lyapunov(x)
    assert found.verdict == "inconclusive"
    assert found.reasons[0].code == "no-contrast"
    assert "random projection" in found.settings["checked_in"]


def test_arguments_that_make_no_sense_are_refused(henon):
    with pytest.raises(UnknownNameError, match="rosenstein"):
        tt.lyapunov(henon, method="best")
    with pytest.raises(UnknownNameError, match="precomputed"):
        tt.lyapunov(henon, metric="no such")
    with pytest.raises(UnknownNameError, match="iaaft"):
        tt.lyapunov(henon, null="power-law")
    with pytest.raises(UnknownNameError, match="twins"):
        tt.lyapunov(henon, procedure="danovski2024")
    with pytest.raises(DataError, match="theiler"):
        tt.lyapunov(henon, theiler=-1)
    with pytest.raises(DataError, match="level"):
        tt.lyapunov(henon, level=95)
    with pytest.raises(DataError, match="real numbers"):
        tt.lyapunov(henon * 1j)
    with pytest.raises(DataError, match="rows of links"):
        tt.lyapunov(np.zeros((4, 4, 4)))
