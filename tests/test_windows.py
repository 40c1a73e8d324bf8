"""Exponents of windows, held to systems whose rate changes at a known time."""

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from planted import from_distances, orbit, saddle

import trajtools as tt
from trajtools.errors import DataError
from trajtools.reasons import codes
from trajtools.systems import softmax_map, van_der_pol

FAST, SLOW, DECAY = 0.25, 0.05, -0.1


def piecewise(pieces, first=1e-12, inits=5):
    """Distances that grow by `rate` a step for `steps` steps, piece by piece."""
    rates = np.concatenate([np.full(steps, rate) for rate, steps in pieces])
    grown = np.exp(np.concatenate([[0.0], np.cumsum(rates)]))
    return first * np.linspace(1, 2, inits)[:, None] * grown


def fresh_pairs(advance, begin, *, every, count, copies=3, epsilon=1e-10, seed=0, inits=4):
    """Reference orbits (T, n, d) under `advance(t, x)`, and pairs of copies perturbed at several steps."""
    rng = np.random.default_rng(seed)
    states = [begin]
    for t in range(every * count):
        states.append(advance(t, states[-1]))
    states = np.array(states)
    pairs, starts = [], []
    references = [states[:, i].copy() for i in range(inits)]
    for k in range(count):
        at = k * every
        for i in range(inits):
            twins = []
            for _ in range(copies):
                x = states[at, i] + epsilon * rng.uniform(-1, 1, states.shape[2])
                twin = [*references[i][:at], x]
                for t in range(at, every * count):
                    twin.append(advance(t, twin[-1][None])[0])
                twins.append(np.array(twin))
            pairs.append((references[i], twins))
            starts.append(at)
    return pairs


# Twins


def test_a_linear_map_shows_its_factor_of_each_window():
    growth = from_distances(piecewise([(SLOW, 100), (FAST, 60), (DECAY, 80)]))
    found = tt.lyapunov_windows(growth, window=20)
    # The growth ends at a peak, which could be saturation: the two windows after it are not believed.
    assert_allclose(found.value[:8], [SLOW] * 5 + [FAST] * 3, rtol=1e-9)
    assert np.isnan(found.value[8:10]).all()
    assert_allclose(found.value[10:], [DECAY] * 2, rtol=1e-9)
    assert found.verdict[5] == "sensitive"
    assert found.verdict[-1] == "regular"
    assert found.start.tolist() == list(range(0, 240, 20))
    assert found.stop.tolist() == list(range(20, 241, 20))
    assert found.method == "twins"
    assert found.unit == "1/step"


def test_growth_that_only_slows_down_is_not_taken_for_saturation():
    found = tt.lyapunov_windows(from_distances(piecewise([(FAST, 60), (SLOW, 140)])), window=20)
    assert_allclose(found.value, [FAST] * 3 + [SLOW] * 7, rtol=1e-9)


def test_saturated_twins_say_nothing():
    distances = np.minimum(piecewise([(FAST, 200)]), 1e-3)
    found = tt.lyapunov_windows(from_distances(distances), window=20)
    assert_allclose(found.value[:3], FAST, rtol=1e-9)
    assert np.isnan(found.value[5:]).all()
    assert set(found.verdict[5:]) == {"inconclusive"}
    assert found.exponents[-1].reasons[0].code == "twins-saturated"


def test_twins_planted_anew_when_they_saturate_are_cut_at_the_level_of_other_starts():
    # Only the first start is followed long enough to show a plateau; the others end 5 steps after they reach it.
    time, rate = np.arange(150), 0.6
    start = np.repeat([0, 150, 195, 240, 285], 3)
    distances = np.minimum(1e-10 * np.exp(rate * time), 1.0) * np.tile([0.9, 1.0, 1.1], 5)[:, None]
    distances[3:, 45:] = np.nan
    growth = replace(from_distances(distances), start=start)
    found = tt.lyapunov_windows(growth, window=50)
    levels = found.settings["saturation_levels"]
    assert np.isfinite(list(levels.values())).all(), levels
    assert_allclose(found.value[[0, 3, 4]], rate, rtol=1e-9)
    assert_allclose(found.by_start[np.isfinite(found.by_start)], rate, rtol=1e-9)
    # Twins that end far below the plateau have not saturated.
    distances[3:, 30:] = np.nan
    levels = tt.lyapunov_windows(replace(from_distances(distances), start=start)).settings["saturation_levels"]
    assert list(np.isfinite(list(levels.values()))) == [True, False, False, False, False]


def test_largest_gain_is_that_of_the_growing_stretch_and_not_of_the_whole():
    growth = from_distances(piecewise([(DECAY, 40), (FAST, 40), (DECAY, 80), (SLOW, 40)], first=1e-2))
    found = tt.lyapunov_windows(growth, window=20)
    assert found.max_gain == pytest.approx(40 * FAST)
    assert found.max_gain_between == (40, 80)
    known = np.isfinite(found.value)
    wanted = np.repeat([DECAY, FAST, DECAY, SLOW], [2, 2, 4, 2])
    assert_allclose(found.gain[known], 20 * wanted[known], rtol=1e-9)
    assert known.sum() >= 8


def test_overlapping_windows_do_not_count_gain_twice():
    growth = from_distances(piecewise([(SLOW, 200)]))
    found = tt.lyapunov_windows(growth, window=50, step=10)
    assert len(found.value) == 16
    assert found.max_gain == pytest.approx(200 * SLOW)
    assert found.max_gain_between == (0, 200)


def test_where_nothing_grows_there_is_no_gain():
    found = tt.lyapunov_windows(from_distances(piecewise([(DECAY, 100)], first=1e-2)), window=25)
    assert found.max_gain == 0
    assert_allclose(found.value, DECAY, rtol=1e-9)
    assert set(found.verdict) == {"regular"}
    assert np.isnan(found.interval).all()  # blocks of time that repeat one factor are no sample


def test_fresh_twins_show_what_old_ones_have_lost():
    # Two directions: the first always decays; the second, in which the old twins have died out, grows from step 200 on.
    def advance(t, x):
        return x * np.array([np.exp(-0.02), np.exp(-0.2 if t < 200 else 0.15)])

    begin = np.ones((4, 2))
    old = fresh_pairs(advance, begin, every=300, count=1, epsilon=1e-6)
    fresh = fresh_pairs(advance, begin, every=100, count=3, epsilon=1e-6)
    one, several = tt.lyapunov_windows(old, window=100), tt.lyapunov_windows(fresh)
    assert one.value[2] < 0  # delayed: 40 e-folds were lost, 15 have been regained
    assert 0.1 < several.value[2] < 0.15
    assert several.perturbed.tolist() == several.start.tolist() == [0, 100, 200]
    assert several.fresh.all()
    assert one.fresh.tolist() == [True, False, False]
    assert "delayed loss of stability" in one.warnings[-1].text
    assert "delayed-loss-of-stability" not in codes(several.warnings)
    assert_allclose(several.by_start[0], one.value, atol=0.03)
    assert several.max_gain_between == (200, 300)


def test_saddle_escape_grows_and_then_meets_again():
    rng = np.random.default_rng(0)
    pairs = []
    for x in 1e-9 * rng.uniform(0.5, 1.5, (8, 1)):
        reference = orbit(saddle, x, 500)
        pairs.append((reference, [orbit(saddle, x * (1 + 1e-3 * rng.uniform(0.5, 1)), 500) for _ in range(2)]))
    found = tt.lyapunov_windows(pairs, window=50)
    assert_allclose(found.value[:3], np.log(1.1), rtol=1e-3)
    assert_allclose(found.value[5], np.log(0.8), rtol=1e-3)
    assert_allclose(found.value[6], np.log(0.8), rtol=1e-2)  # a few units of rounding are left
    assert np.isnan(found.value[8:]).all()  # nothing is left of the distance but rounding
    assert set(found.verdict[:3]) == {"sensitive"}
    assert set(found.verdict[5:7]) == {"regular"}
    assert "chaotic" not in found.verdict
    assert 150 * np.log(1.1) <= found.max_gain < 220 * np.log(1.1)


def test_a_softmax_map_whose_gain_is_switched_shows_both_regimes():
    # At the fixed point of equal classes perturbations grow by |1 - g / 3| a step: lost at gain 12, to chaos.
    calm, wild = softmax_map(5.0), softmax_map(12.0)

    def advance(t, x):
        return (calm if t < 60 else wild).advance(x)

    rng = np.random.default_rng(1)
    begin = rng.standard_normal((24, 3))
    found = tt.lyapunov_windows(fresh_pairs(advance, begin, every=30, count=4, inits=24, copies=2, epsilon=1e-6))
    chaos = wild.exponents(4000, rng=rng, n=8).values[0]
    assert (found.value[:2] < 0.01).all()  # what the perturbation has along (1, 1, 1) is conserved
    assert_allclose(found.value[2:], [np.log(3), chaos], rtol=0.1)
    assert set(found.verdict[:2]) <= {"regular", "inconclusive"}
    assert found.verdict[2:] == ("sensitive", "sensitive")
    assert found.max_gain_between == (60, 120)


def test_windows_of_a_run_are_those_of_its_curves(tmp_path):
    from recorders import iris

    with tt.open(iris.record(tmp_path, 1.0, inits=6, copies=2, steps=100, seed=0)) as run:
        direct = tt.lyapunov_windows(run, window=25)
        curves = tt.lyapunov_windows(tt.twins(run), window=25)
        scaled = tt.lyapunov_windows(run, window=25, dt=0.5)
    assert_allclose(direct.value, curves.value)
    assert_allclose(scaled.value, 2 * direct.value)
    assert_allclose(scaled.gain, direct.gain)
    assert scaled.unit == "1/time"


def test_averages_over_copies_are_known_to_windows():
    growth = from_distances(piecewise([(SLOW, 100)], inits=6), group=[0, 0, 0, 1, 1, 1], average="log-mean")
    found = tt.lyapunov_windows(growth, window=50)
    assert_allclose(found.value, SLOW, rtol=1e-9)


def test_answers_are_repeatable_and_written_down():
    growth = from_distances(piecewise([(SLOW, 50), (FAST, 50)]))
    one, two = (tt.lyapunov_windows(growth, window=25, rng=3) for _ in range(2))
    assert one.to_json() == two.to_json()
    plain = json.loads(one.to_json())
    assert plain["settings"]["window"] == 25
    assert plain["settings"]["step"] == 25
    assert len(plain["exponents"]) == len(plain["value"]) == 4
    assert plain["exponents"][0]["reasons"]
    assert_allclose(one.value, [SLOW, SLOW, FAST, FAST], rtol=1e-6)


# One trajectory


def test_windows_of_a_record_show_when_it_became_chaotic():
    x = np.empty(2400)
    x[0] = 0.3
    for t in range(len(x) - 1):
        x[t + 1] = (3.2 if t < 1200 else 3.99) * x[t] * (1 - x[t])
    path = tt.Trajectory.from_array(x + 1e-4 * np.sin(np.arange(2400.0)))
    found = tt.lyapunov_windows(path, window=1200, method="rosenstein", dim=1)
    assert found.verdict[1] == "chaotic"
    assert found.verdict[0] != "chaotic"
    assert abs(found.value[1] - 0.64) < 0.1
    assert found.fresh.all()
    assert found.by_start.shape == (0, 2)


def test_a_van_der_pol_cycle_is_chaotic_in_no_window():
    x = van_der_pol().trajectory(4000, rng=np.random.default_rng(0))
    found = tt.lyapunov_windows(x, window=2000, method="rosenstein")
    assert not set(found.verdict) & {"chaotic", "sensitive"}


def test_windows_count_steps_and_not_states():
    x = tt.systems.henon().trajectory(1000, rng=np.random.default_rng(0))
    path = tt.Trajectory.from_array(x, step=np.arange(1000) * 10)
    found = tt.lyapunov_windows(path, window=5000, method="rosenstein")
    assert found.start.tolist() == [0, 5000]
    one = tt.lyapunov(path, window=(0, 5000), method="rosenstein", null=None)
    assert_allclose(found.value[0], one.value)
    assert_allclose(found.gain[0], one.value * 5000)


# What is refused


def test_windows_that_cannot_be_are_refused_with_the_way_out():
    growth = from_distances(piecewise([(SLOW, 50)]))
    with pytest.raises(DataError, match="give window="):
        tt.lyapunov_windows(growth)
    for wrong in (1, 20.5, "20", True):
        with pytest.raises(DataError, match="integer number of steps, 2 or more"):
            tt.lyapunov_windows(growth, window=wrong)
    with pytest.raises(DataError, match="step must be an integer number of steps, 1 or more; got 0"):
        tt.lyapunov_windows(growth, window=5, step=0)
    for wrong in (None, "abc", np.zeros((3, 3, 3)), [None]):
        with pytest.raises(DataError, match="windows need"):
            tt.lyapunov_windows(wrong, window=2)
    with pytest.raises(DataError, match="have no option theiler"):
        tt.lyapunov_windows(growth, window=5, theiler=3)
    with pytest.raises(DataError, match="give window="):
        tt.lyapunov_windows(np.random.default_rng(0).normal(size=100))
    with pytest.raises(DataError, match="10000"):
        tt.lyapunov_windows(np.zeros(40_000), window=2)
    curve = tt.rosenstein(np.random.default_rng(0).normal(size=200), theiler=1, horizon=4)
    with pytest.raises(DataError, match="not from twins"):
        tt.lyapunov_windows(curve, window=5)


def test_a_window_longer_than_the_record_is_the_record():
    found = tt.lyapunov_windows(from_distances(piecewise([(SLOW, 50)])), window=500)
    assert (found.start.tolist(), found.stop.tolist()) == ([0], [50])


def test_what_is_left_at_the_end_is_a_window_if_it_is_half_as_long():
    growth = from_distances(piecewise([(SLOW, 110)]))
    assert tt.lyapunov_windows(growth, window=20).stop.tolist() == [20, 40, 60, 80, 100, 110]
    assert tt.lyapunov_windows(growth, window=30).stop.tolist() == [30, 60, 90, 110]
    assert tt.lyapunov_windows(growth, window=50).stop.tolist() == [50, 100]
    found = tt.lyapunov_windows(growth, window=50, step=20)
    assert (found.start.tolist(), found.stop.tolist()) == ([0, 20, 40, 60], [50, 70, 90, 110])
    found = tt.lyapunov_windows(growth, window=50, step=25)
    assert (found.start.tolist(), found.stop.tolist()) == ([0, 25, 50, 75], [50, 75, 100, 110])


@pytest.mark.parametrize(
    "broken",
    [np.ones((40, 2)), np.arange(80).reshape(40, 2), np.full((40, 2), np.nan), np.ones((3, 2)), np.ones((1, 2))],
    ids=["constant", "integers", "NaN", "three states", "one state"],
)
def test_windows_of_nothing_are_answered_and_not_chaotic(broken):
    other = broken.astype(np.float64) * (1 + 1e-9)
    other[len(other) // 2 :, 0] = np.inf
    for x, method in (((broken, [other]), "twins"), (other, "rosenstein"), (broken, "kantz")):
        found = tt.lyapunov_windows(x, window=10, method=method)
        assert not set(found.verdict) & {"chaotic", "sensitive"}
        json.loads(found.to_json())


def test_noise_gains_nothing():
    found = tt.lyapunov_windows(np.random.default_rng(0).normal(size=(400, 2)), window=200)
    assert set(found.verdict) == {"inconclusive"}
    assert np.isnan(found.gain).all()
    assert np.isnan(found.max_gain)


def test_windows_draw_themselves():
    distances = np.minimum(piecewise([(FAST, 150)]), 1e-3)
    ax = tt.lyapunov_windows(from_distances(distances), window=25).plot()
    assert ax.get_ylabel() == "exponent (1/step)"
    assert any(line.get_label() == "sensitive" for line in ax.lines)
    assert "largest gain" in ax.get_title()
