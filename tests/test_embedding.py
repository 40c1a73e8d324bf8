"""Delay embedding and the parameters that are chosen from data."""

import numpy as np
import pytest

import trajtools as tt
from trajtools import embedding
from trajtools.embedding import embed, estimate_delay, estimate_dimension, theiler_window
from trajtools.errors import DataError, UnknownNameError
from trajtools.reasons import codes
from trajtools.systems import henon, logistic, lorenz, van_der_pol


@pytest.fixture(scope="module")
def lorenz_x():
    return lorenz(dt=0.02).trajectory(4000, rng=np.random.default_rng(0))[:, 0]


def test_embedding_puts_channels_side_by_side():
    x = np.arange(10).reshape(5, 2)
    rows = embed(x, dim=2, delay=2)
    np.testing.assert_array_equal(rows, [[0, 1, 4, 5], [2, 3, 6, 7], [4, 5, 8, 9]])


def test_embedding_says_how_many_samples_it_takes():
    with pytest.raises(DataError, match="which needs 21"):
        embed(np.arange(20.0), dim=5, delay=5)
    with pytest.raises(DataError, match="1 or more"):
        embed(np.arange(20.0), dim=0)


def test_maps_get_delay_one_and_flows_a_quarter_turn(lorenz_x):
    # A lag of tens of samples on the logistic map is what turns its exponent from .69 into .55 elsewhere.
    assert estimate_delay(logistic().trajectory(2000, rng=np.random.default_rng(1))[:, 0]).value == 1
    # With a little noise: the bins of an exactly repeating series are full of coincidences.
    sine = np.sin(2 * np.pi * np.arange(3000) / 41.01) + 0.05 * np.random.default_rng(7).standard_normal(3000)
    assert 8 <= estimate_delay(sine).value <= 12
    # The literature has .1 to .2 time units for Lorenz x.
    assert 4 <= estimate_delay(lorenz_x).value <= 12


def test_mutual_information_equals_the_plain_double_sum():
    rng = np.random.default_rng(2)
    x = np.cumsum(rng.standard_normal(400))
    choice = estimate_delay(x, max_delay=5)
    bins = int(np.clip(np.sqrt(400 / 5), 4, 32))
    rank = {value: k for k, value in enumerate(sorted(x))}
    cell = [rank[value] * bins // 400 for value in x]
    pairs = list(zip(cell[:-3], cell[3:], strict=True))
    total = 0.0
    for a in range(bins):
        for b in range(bins):
            p = sum(pair == (a, b) for pair in pairs) / len(pairs)
            p_a = sum(pair[0] == a for pair in pairs) / len(pairs)
            p_b = sum(pair[1] == b for pair in pairs) / len(pairs)
            total += p * np.log(p / (p_a * p_b)) if p else 0.0
    assert choice.statistic[3] == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("method", ["cao", "false-neighbors"])
def test_dimension_of_henon_is_two_and_of_lorenz_at_most_four(method, lorenz_x):
    x = henon().trajectory(2000, rng=np.random.default_rng(3))[:, 0]
    assert estimate_dimension(x, delay=1, method=method, max_dim=5).value == 2
    assert 2 <= estimate_dimension(lorenz_x, delay=8, method=method, max_dim=6).value <= 4


def test_noise_is_called_noise_by_cao():
    x = np.random.default_rng(4).standard_normal(3000)
    choice = estimate_dimension(x, delay=1, max_dim=5)
    assert "noise" in codes(choice.warnings)


@pytest.mark.parametrize("method", ["autocorrelation", "space-time-separation"])
def test_theiler_window_scales_with_the_sampling(method):
    fine = lorenz(dt=0.01).trajectory(6000, rng=np.random.default_rng(5))
    coarse = fine[::4]
    ratio = theiler_window(fine, method=method).value / theiler_window(coarse, method=method).value
    assert 3 <= ratio <= 5


def test_a_drift_is_said_to_drift():
    ramp = np.linspace(0, 1, 500) + 1e-3 * np.random.default_rng(6).standard_normal(500)
    assert theiler_window(ramp, method="space-time-separation").warnings
    assert theiler_window(ramp).warnings


def test_choices_do_not_depend_on_scale_and_offset(lorenz_x):
    moved = 1e-6 * lorenz_x + 3
    assert estimate_delay(moved).value == estimate_delay(lorenz_x).value
    assert theiler_window(moved).value == theiler_window(lorenz_x).value


@pytest.mark.parametrize("scale", [1e160, 1e-200])
def test_choices_do_not_depend_on_numbers_whose_squares_overflow(scale, lorenz_x):
    assert estimate_delay(scale * lorenz_x).value == estimate_delay(lorenz_x).value
    for method in ("autocorrelation", "space-time-separation"):
        windows = [theiler_window(x, method=method).value for x in (lorenz_x, scale * lorenz_x)]
        assert windows[0] == windows[1]
    for method in ("cao", "false-neighbors"):
        dims = [estimate_dimension(x[:1000], delay=8, method=method, max_dim=4) for x in (lorenz_x, scale * lorenz_x)]
        np.testing.assert_allclose(dims[0].statistic, dims[1].statistic, rtol=1e-9)


@pytest.mark.parametrize("states", [1000, 3000])
@pytest.mark.parametrize("turn", [0.2, 0.1, 0.05, 2 * np.pi / 50])
def test_delay_of_a_sine_is_a_quarter_of_its_period(turn, states):
    quarter = np.pi / 2 / turn
    assert abs(estimate_delay(np.sin(turn * np.arange(states))).value - quarter) < 0.6


def test_dimension_takes_the_estimated_delay_if_none_is_given(lorenz_x):
    choice = estimate_dimension(lorenz_x)
    assert choice.settings["delay"] == estimate_delay(lorenz_x).value
    assert choice.value == estimate_dimension(lorenz_x, delay=choice.settings["delay"]).value


def test_delay_of_a_closed_curve_is_a_first_zero_of_its_autocorrelation():
    x = van_der_pol().trajectory(3000, rng=np.random.default_rng(0), transient=500)[:, 0]
    choice = estimate_delay(x)
    assert 12 <= choice.value <= 20
    assert "closed curve" in choice.reason


def test_default_dimensions_shrink_with_the_series():
    rng = np.random.default_rng(5)
    assert estimate_dimension(rng.random(54), delay=1).argument.tolist() == list(range(1, 11))
    assert estimate_dimension(rng.random(54), delay=5).argument.tolist() == [1, 2, 3, 4]
    assert estimate_dimension(rng.random(36), delay=5).argument.tolist() == [1]
    with pytest.raises(DataError, match="31 are needed"):
        estimate_dimension(rng.random(25), delay=1)


def test_missing_samples_are_left_out(lorenz_x):
    holed = lorenz_x.copy()
    holed[::97] = np.nan
    assert abs(estimate_delay(holed).value - estimate_delay(lorenz_x).value) <= 1
    assert 2 <= estimate_dimension(holed, delay=8, max_dim=5).value <= 4


@pytest.mark.parametrize("bad", [np.zeros(100), np.arange(3.0), np.full(50, np.nan)])
def test_series_without_a_time_scale_are_refused(bad):
    with pytest.raises(DataError, match=r"constant|finite"):
        estimate_delay(bad)


def test_the_delay_of_a_long_series_comes_from_pairs_spread_over_it():
    # A period of 100: pairs at equal distances would meet few phases. The whole series gives a quarter of a period.
    t = np.arange(300_000)
    choice = estimate_delay(np.sin(2 * np.pi * t / 100) + 0.3 * np.sin(2 * np.pi * t / 100 + 1) ** 3, max_delay=60)
    assert 100_000 < choice.settings["pairs"] <= 2**17
    assert abs(choice.value - 25) <= 2


@pytest.mark.parametrize("kind", ["map", "flow", "walk", "sine", "noise", "holes", "steps"])
@pytest.mark.parametrize("states", [60, 1500])
def test_lags_beyond_those_that_decide_change_nothing(kind, states, lorenz_x, monkeypatch):
    t, rng = np.arange(states), np.random.default_rng(3)
    x = {
        "map": logistic().trajectory(states, rng=rng)[:, 0],
        "flow": lorenz_x[:states],
        "walk": np.cumsum(rng.standard_normal(states)),
        "sine": np.sin(0.1 * t),
        "noise": np.sin(0.05 * t) + 0.3 * rng.standard_normal(states),
        "holes": np.where(t % 37 == 5, np.nan, lorenz_x[:states]),
        "steps": np.sign(np.sin(0.05 * t)),
    }[kind]
    monkeypatch.setattr(embedding, "_FIRST_LAGS", 4)
    few = estimate_delay(x)
    monkeypatch.setattr(embedding, "_FIRST_LAGS", states)
    every = estimate_delay(x)
    assert len(every.statistic) == states // 10 + 1
    assert (few.value, few.reason, few.warnings) == (every.value, every.reason, every.warnings)
    np.testing.assert_array_equal(few.statistic, every.statistic[: len(few.statistic)])
    if kind in ("map", "flow") and states == 1500:
        assert len(few.statistic) < len(every.statistic)


def test_unknown_methods_are_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="mutual-information"):
        estimate_delay(np.arange(50.0), method="guess")


HENON = henon().trajectory(1500, rng=np.random.default_rng(0))[:, 0]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (tt.kantz, {"theiler": 5, "horizon": 6, "neighbors": tt.WithinRadius(0.05)}),
        (tt.rosenstein, {"theiler": 5, "horizon": 6}),
        (tt.wolf, {"theiler": 5, "horizon": 4}),
        (tt.hybrid, {"theiler": 5, "horizon": 4}),
        (tt.wolf, {"horizon": 4, "points": 3, "procedure": "caligiuri2023"}),
    ],
)
def test_a_series_is_embedded_by_every_method(method, options):
    found = method(HENON, dim=2, delay=1, **options)
    np.testing.assert_array_equal(found.log_distance, method(embed(HENON, 2, 1), **options).log_distance)
    assert (found.settings["dim"], found.settings["delay"]) == (2, 1)
    timed = method(tt.Trajectory.from_array(HENON, dt=0.5, time_unit="s"), dim=2, **options)
    assert (timed.time_unit, timed.time[1] - timed.time[0]) == ("s", 0.5)


def test_the_spectrum_embeds_a_series():
    found = tt.lyapunov_spectrum(HENON, dim=2, theiler=5)
    np.testing.assert_array_equal(found.values, tt.lyapunov_spectrum(embed(HENON, 2), theiler=5).values)
    assert found.settings["dim"] == 2


def test_what_cannot_be_embedded_is_refused():
    with pytest.raises(DataError, match="delay=2 without dim"):
        tt.rosenstein(HENON, horizon=3, delay=2)
    with pytest.raises(DataError, match="distances and adjacency matrices are states already"):
        tt.rosenstein(tt.pairwise(HENON[:100]), horizon=3, dim=2)
    with pytest.raises(DataError, match="no neighbour search"):
        tt.hybrid((HENON, [HENON]), procedure="mittra2024", dim=2)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [({}, {"dim", "delay"}), ({"dim": 3}, {"delay"}), ({"delay": 8}, {"dim"}), ({"dim": 3, "delay": 8}, set())],
)
def test_the_answer_says_how_a_series_was_embedded(lorenz_x, options, chosen):
    found = tt.lyapunov(lorenz_x[:2000], null=None, **options)
    (said,) = [reason for reason in found.reasons if reason.code == "embedding"]
    assert dict(said.numbers) == {name: found.settings[name] for name in ("dim", "delay")}
    assert str(said).count("as passed") == len(options)
    assert {name for name in ("dim", "delay") if f"{name}_choice" in found.settings} == chosen
    assert found.settings["delay"] > 1  # a finely sampled flow
    assert str(said)[:20] in " ".join(str(found).split())


def test_states_and_series_that_are_whole_states_are_not_embedded():
    x = HENON if HENON.ndim == 2 else np.stack([HENON, HENON**2], axis=1)
    for data, options in ((x, {}), (x[:, 0], {"dim": 1})):
        assert "embedding" not in [reason.code for reason in tt.lyapunov(data[:500], null=None, **options).reasons]
