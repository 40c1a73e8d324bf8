"""The house procedure on systems whose answer is known, and on those that have none."""

from dataclasses import replace

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from planted import (
    SKEW_TENT_EXPONENT,
    from_distances,
    logistic,
    logistic_growth,
    orbit,
    quartic_growth,
    saddle,
    skew_tent_growth,
)

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.lyapunov import lyapunov
from trajtools.exponents.twins import twins
from trajtools.reasons import codes
from trajtools.statistics import average_curves

CLAIMS = ("chaotic", "transient", "sensitive")


def walk_rate(seed, *, inits=30, copies=3, rate=0.2, noise=0.5, steps=300):
    """Multiplicative noise: ln d is a random walk with drift, up to saturation at 1."""
    rng = np.random.default_rng(seed)
    steps = np.concatenate([np.full((inits, 1), -20.0), rate + noise * rng.normal(size=(inits, steps))], axis=1)
    log = np.repeat(steps.cumsum(axis=1), copies, axis=0)
    return from_distances(np.exp(-np.logaddexp(0, -log)), np.repeat(np.arange(inits), copies))


CHAOTIC = {
    "logistic": (logistic_growth, np.log(2)),
    "quartic": (quartic_growth, np.log(3)),
    "skew tent": (skew_tent_growth, SKEW_TENT_EXPONENT),
    "multiplicative walk": (walk_rate, 0.2),
}


# -- truths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.7, -0.5, 1.3, -1.2, 0.99])
@pytest.mark.parametrize("inits", [1, 4])
def test_gradient_descent_on_a_quadratic_gives_its_multiplier(rate, inits):
    pairs = [
        (orbit(lambda x: rate * x, x, 60), [orbit(lambda x: rate * x, x + 1e-6, 60)]) for x in 1.0 + np.arange(inits)
    ]
    exponent = twins(pairs).fit()
    assert_allclose(exponent.value, np.log(abs(rate)), rtol=1e-6)
    assert exponent.verdict == ("diverging" if abs(rate) > 1 else "regular")
    assert exponent.growth == ("diverging" if abs(rate) > 1 else "contracting")


def test_gradient_descent_on_a_quadratic_bowl_gives_its_slowest_direction():
    factors = 1 - 0.1 * np.array([1.0, 9.0, 12.0])  # ln |1 - eta h|
    rng = np.random.default_rng(0)
    states = rng.normal(size=(5, 3))
    pairs = [(orbit(lambda x: factors * x, x, 150), [orbit(lambda x: factors * x, x + 1e-4, 150)]) for x in states]
    exponent = twins(pairs).fit()
    assert_allclose(exponent.value, np.log(0.9), rtol=1e-6)
    assert exponent.verdict == "regular"
    assert exponent.interval[1] < 0


@pytest.mark.parametrize("name", CHAOTIC)
def test_exponent_of_a_chaotic_system_is_right(name):
    make, truth = CHAOTIC[name]
    exponent = make(0, inits=300).fit()
    error = exponent.settings["standard_error"]
    assert abs(exponent.value - truth) <= max(0.02 * truth, 3 * error)
    assert error < 0.04 * truth
    assert (exponent.growth, exponent.persistence) == ("exponential", "not tested")  # all were perturbed at step 0
    assert exponent.verdict == "sensitive"
    assert exponent.reasons[-1].code == "persistence-not-tested"


@pytest.mark.parametrize("name", CHAOTIC)
def test_intervals_cover_the_truth(name):
    make, truth = CHAOTIC[name]
    found = [make(seed).fit(rng=seed).interval for seed in range(12)]
    assert sum(low <= truth <= high for low, high in found) >= 9  # 95 % of 12; fewer than 9 has p < 0.3 %


@pytest.mark.slow
@pytest.mark.parametrize("inits", [8, 30])
@pytest.mark.parametrize("name", CHAOTIC)
def test_intervals_cover_the_truth_in_100_seeds(name, inits):
    make, truth = CHAOTIC[name]
    found = [make(seed, inits=inits).fit(rng=seed).interval for seed in range(100, 200)]
    assert sum(low <= truth <= high for low, high in found) >= 88


def test_coupled_bernoulli_maps_give_their_exact_finite_time_growth():
    # The map is linear but for the modulus, so a perturbation evolves by the spectrum until it is as large as a state.
    n, coupling, inits = 64, 0.3, 20
    rng = np.random.default_rng(1)
    modes = 2 * (1 - coupling + coupling * np.cos(2 * np.pi * np.fft.fftfreq(n)))
    shift = np.fft.fft(1e-8 * rng.uniform(-1, 1, (inits, n)))
    tangent = np.array([np.abs(np.fft.ifft(shift * modes**t).real) for t in range(36)])
    exponent = from_distances(np.minimum(tangent, 0.5).sum(axis=2).T).fit()
    assert_allclose(exponent.value, np.log(2), rtol=0.05)  # diffusion of the perturbation: -ln(t) / 4 on top


# -- persistence -------------------------------------------------------------------------------------------------------


def perturbed_at(step, reference, starts, *, epsilon, rng, copies=3):
    found = []
    for s in starts:
        for _ in range(copies):
            twin = reference.copy()
            twin[s:] = orbit(step, reference[s] + epsilon * rng.uniform(-1, 1), len(reference) - 1 - s)
            found.append(twin)
    return reference, found


def test_chaos_is_called_chaotic_when_it_persists():
    rng = np.random.default_rng(2)
    pairs = [
        perturbed_at(logistic, orbit(logistic, x, 200), (0, 60, 120), epsilon=1e-10, rng=rng)
        for x in rng.uniform(0.1, 0.9, 8)
    ]
    exponent = twins(pairs).fit()
    assert exponent.verdict == "chaotic"
    assert exponent.settings["starts"] == [0, 60, 120]
    assert_allclose(exponent.value, np.log(2), rtol=0.05)


def test_one_orbit_perturbed_again_and_again_is_enough():
    rng = np.random.default_rng(3)
    exponent = twins(
        perturbed_at(logistic, orbit(logistic, 0.3141, 1000), range(0, 900, 60), epsilon=1e-10, rng=rng)
    ).fit()
    assert exponent.verdict == "chaotic"
    assert exponent.settings["resampled"] == "starts"
    assert exponent.interval[0] < np.log(2) < exponent.interval[1]


def test_perturbations_during_the_same_growth_are_one_time_only():
    rng = np.random.default_rng(4)
    exponent = twins(perturbed_at(logistic, orbit(logistic, 0.2718, 100), (0, 3, 6, 9), epsilon=1e-12, rng=rng)).fit()
    assert exponent.verdict != "chaotic"
    assert len(exponent.settings["starts"]) < 3


@pytest.mark.parametrize("starts", [(0,), (0, 300, 600), (0, 60, 120), (0, 1, 2, 3), (0, 100, 200, 300, 400)])
@pytest.mark.parametrize("epsilon", [1e-12, 1e-10, 1e-8])
def test_escape_from_a_saddle_is_transient(starts, epsilon):
    rng = np.random.default_rng(5)
    exponent = twins(perturbed_at(saddle, orbit(saddle, 1e-9, 1000), starts, epsilon=epsilon, rng=rng)).fit()
    once = len(exponent.settings["starts"]) == 1
    assert exponent.verdict == ("sensitive" if once else "transient"), exponent.reasons
    assert exponent.persistence == ("not tested" if once else "ended")
    assert_allclose(exponent.value, np.log(1.1), rtol=0.01)


def test_a_single_orbit_has_an_interval_from_time_and_says_so():
    exponent = twins((orbit(logistic, 0.3, 80), [orbit(logistic, 0.3 + 1e-12, 80)])).fit()
    assert exponent.settings["resampled"] == "blocks of time"
    assert exponent.interval[0] < exponent.value < exponent.interval[1]
    assert "one-initial-condition" in codes(exponent.warnings)


# -- honesty -----------------------------------------------------------------------------------------------------------

T = np.arange(301.0)


def _walk(rng, n, c, *, epsilon, noise, weights=20):
    start = rng.uniform(-epsilon, epsilon, (n * c, 1, weights))
    return np.abs(np.concatenate([start, noise * rng.normal(size=(n * c, 300, weights))], axis=1).cumsum(axis=1)).sum(
        axis=2
    )


def _noisy(rng, n, c, size=0.1):
    return np.exp(size * rng.normal(size=(n * c, 301)))


def _logwalk(rng, n, c, noise):
    return np.exp(-18 + np.repeat((noise * rng.normal(size=(n, 301))).cumsum(axis=1), c, axis=0))


def _sine(phase):
    return np.abs(np.sin(0.1 * T + phase) - np.sin(0.1 * T + phase + 1e-8))


NULLS = {
    "random walk": lambda r, n, c: _walk(r, n, c, epsilon=1e-8, noise=1e-2),
    "slow random walk": lambda r, n, c: _walk(r, n, c, epsilon=1e-3, noise=1e-3),
    "walk of one weight": lambda r, n, c: _walk(r, n, c, epsilon=1e-8, noise=1e-4, weights=1),
    "walk with drift": lambda r, n, c: np.sqrt(1e-16 + 1e-4 * T + 1e-5 * T**2) * _noisy(r, n, c),
    "ballistic": lambda r, n, c: 1e-8 + r.uniform(1e-6, 1e-5, (n * c, 1)) * T,
    "slow ballistic": lambda r, n, c: 1e-8 * (1 + r.uniform(0.1, 1, (n * c, 1)) * T) * _noisy(r, n, c, 0.05),
    "accelerated": lambda r, n, c: 1e-8 * (1 + r.uniform(0.01, 0.1, (n * c, 1)) * T**2),
    "superdiffusion": lambda r, n, c: 1e-8 * (1 + T / 3) ** 1.5 * _noisy(r, n, c, 0.3),
    "logarithmic": lambda r, n, c: 1e-8 * np.log(2 + T) ** r.uniform(1, 3, (n * c, 1)),
    "constant": lambda r, n, c: 1e-8 * _noisy(r, n, c),
    "decay": lambda r, n, c: 1e-8 * np.exp(-0.05 * T) * _noisy(r, n, c),
    "bump": lambda r, n, c: 1e-8 * np.exp(2.5 * np.exp(-(((T - 100) / 40) ** 2)) * r.uniform(0.5, 1, (n * c, 1))),
    "driftless walk of ln d": lambda r, n, c: _logwalk(r, n, c, 1.0),
    "slow driftless walk of ln d": lambda r, n, c: _logwalk(r, n, c, 0.3),
    "phase of a sine": lambda r, n, c: _sine(r.uniform(0, 6, (n * c, 1))),
    "independent states": lambda r, n, c: np.abs(r.normal(size=(n * c, 301, 5))).sum(axis=2),
}  # fmt: skip


def claims(seeds, sizes=(1, 4, 20)):
    total, wrong = 0, {}
    for name, make in NULLS.items():
        for inits in sizes:
            for seed in seeds:
                rng = np.random.default_rng([seed, inits])
                verdict = from_distances(make(rng, inits, 3), np.repeat(np.arange(inits), 3)).fit(rng=seed).verdict
                total += 1
                if verdict in CLAIMS:
                    wrong[name] = wrong.get(name, 0) + 1
    return sum(wrong.values()) / total, wrong


def test_growth_that_is_not_exponential_is_not_called_so():
    share, wrong = claims(range(2), sizes=(1, 4))
    assert share <= 0.02, wrong


@pytest.mark.slow
def test_growth_that_is_not_exponential_is_not_called_so_in_100_seeds():
    share, wrong = claims(range(100, 200))
    assert share <= 0.02, wrong


def test_shapes_without_growth_are_called_regular():
    for name in ("constant", "decay", "ballistic", "accelerated", "walk with drift"):
        exponent = from_distances(NULLS[name](np.random.default_rng(0), 10, 2), np.repeat(np.arange(10), 2)).fit()
        assert exponent.verdict == "regular", (name, exponent.reasons)


def test_slow_growth_is_not_called_none():
    rng = np.random.default_rng(0)
    noise = 0.02 * rng.standard_normal((10, 41))
    slow, still = (from_distances(1e-6 * np.exp(rate * np.arange(41) + noise)).fit() for rate in (0.012, 0.0))
    assert slow.interval[0] > 0
    for found in (slow, still):
        assert (found.verdict, found.growth) == ("regular", "none")
        assert codes(found.reasons) == ("bounded", "no-exponential-regime")
    assert "grows slowly" in slow.reasons[1].text
    assert "there is no growth" in still.reasons[1].text


def test_curves_that_end_when_twins_are_planted_anew_ask_for_fewer_plantings():
    rng = np.random.default_rng(0)
    curves = 1e-6 * np.exp(0.025 * np.arange(60) + 0.02 * rng.standard_normal((12, 60)))
    once = from_distances(curves)
    anew = replace(once, start=np.repeat([0, 60, 120, 180], 3))
    for growth, way in ((once, "record longer than"), (anew, "between plantings (replant=)")):
        found = growth.fit()
        assert found.reasons[0].code == "too-little-growth", found.reasons
        assert way in found.reasons[0].text


def test_too_short_a_region_asks_for_a_longer_one_and_not_for_a_longer_record():
    growth = from_distances(1e-9 * np.exp(0.2 * np.arange(100.0)) * np.array([[1.0], [1.1], [0.9], [1.05]]))
    found = growth.fit((0.0, 6.0))
    assert found.reasons[0].code == "too-little-growth", found.reasons
    assert "fit a longer region" in found.reasons[0].text


def test_too_few_e_folds_are_inconclusive_and_name_the_way_out():
    short = logistic_growth(0, n=4).fit()
    assert short.verdict == "inconclusive"
    assert short.reasons[0].code == "too-little-growth"
    assert "record longer" in short.reasons[0].text
    coarse = from_distances(np.minimum(1e-2 * np.exp(0.3 * np.arange(60)) * np.ones((5, 1)), 1)).fit()
    assert coarse.verdict == "inconclusive"
    assert coarse.reasons[0].code == "too-little-growth"
    assert "smaller epsilon" in coarse.reasons[0].text


@pytest.mark.parametrize(
    ("dtype", "epsilon", "way"),
    [
        ("float64", 1e-2, "use a smaller epsilon"),
        ("float32", 1e-5, "train in float64"),
        ("float64", 1e-14, "train more initial conditions"),  # a smaller one is lost in rounding
    ],
)
def test_a_smaller_epsilon_is_advised_only_where_rounding_leaves_room_for_it(dtype, epsilon, way):
    rng = np.random.default_rng(0)
    away = epsilon * np.exp(np.minimum(0.05 * np.arange(120), 2.5))[:, None] * rng.uniform(0.5, 1, (5, 1, 20))
    states = np.ones((120, 20), dtype)
    found = twins([(states.copy(), [(states + one).astype(dtype)]) for one in away]).fit()
    assert found.reasons[0].code == "too-little-growth"
    assert f"; {way}" in found.reasons[0].text


def test_points_at_the_rounding_floor_are_not_fitted():
    rng = np.random.default_rng(6)
    states = rng.uniform(0.1, 0.9, (20, 1))
    pairs = [(orbit(logistic, x, 60), [orbit(logistic, x + 1e-16, 60)]) for x in states]
    exponent = twins(pairs).fit()
    assert exponent.settings["n_points_at_floor"] > 0
    assert "below-rounding-floor" in codes(exponent.warnings)


def test_three_points_and_constant_series_give_an_answer_and_no_crash():
    for distances in (np.ones((2, 3)), np.ones((1, 1)), np.full((2, 50), np.nan), np.full((3, 50), 1e300)):
        exponent = from_distances(distances).fit()
        assert exponent.verdict in ("inconclusive", "regular")
        assert exponent.reasons
        exponent.to_json()


# -- invariances -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def growth():
    return logistic_growth(7)


def rescaled(growth, **changes):
    from dataclasses import replace

    return replace(growth, **changes)


def test_exponent_does_not_depend_on_the_scale_of_the_weights(growth):
    times = rescaled(growth, distances=growth.distances * 1e3, floor=growth.floor * 1e3, scale=growth.scale * 1e3)
    assert_allclose(times.fit().value, growth.fit().value, rtol=1e-9)
    assert_allclose(times.fit().interval, growth.fit().interval, rtol=1e-9)


def test_dt_divides_the_exponent(growth):
    slow = rescaled(growth, time=growth.time * 4, settings=growth.settings | {"dt": 4.0})
    assert_allclose(slow.fit().value, growth.fit().value / 4, rtol=1e-9)
    assert slow.fit().verdict == growth.fit().verdict


def test_order_of_the_twins_does_not_matter(growth):
    order = np.random.default_rng(8).permutation(len(growth.group))
    mixed = {name: getattr(growth, name)[order] for name in ("distances", "floor", "group", "start", "scale")}
    one, other = growth.fit(), rescaled(growth, **mixed).fit()
    assert_allclose(one.value, other.value, rtol=1e-12)
    assert_allclose(one.interval, other.interval, rtol=0.1)
    assert one.verdict == other.verdict


def test_same_seed_same_bits(growth):
    one, other = growth.fit(rng=5), growth.fit(rng=np.random.default_rng(5))
    assert (one.value, one.interval, one.p_value) == (other.value, other.interval, other.p_value)
    assert growth.fit(rng=6).interval == one.interval  # only the test of a least-squares null draws


def test_level_widens_the_interval(growth):
    assert np.diff(growth.fit(level=0.99).interval) > np.diff(growth.fit(level=0.9).interval)


def test_everything_chosen_stands_in_the_result(growth):
    exponent = growth.fit()
    assert {
        "saturation_level",
        "upper_level",
        "onset_share",
        "n_points_at_floor",
        "resampled",
        "shape",
        "starts",
    } <= set(exponent.settings)
    assert len(exponent.window_values) > 20
    assert exponent.window_values.min() < exponent.value < exponent.window_values.max()
    assert exponent.n_used == exponent.n_total == len(exponent.values) == 30
    assert 0 < exponent.p_value < 0.01
    assert exponent.window[0] >= 1


def test_a_given_region_is_used_as_given(growth):
    exponent = growth.fit((5, 15))
    assert exponent.window == (5, 15)
    curves, _, _ = growth.curves()
    assert_allclose(exponent.value, np.mean(curves[:, 15] - curves[:, 5]) / 10, rtol=1e-12)
    with pytest.raises(DataError, match="widen it"):
        growth.fit((5.2, 5.9))
    with pytest.raises(DataError, match="two times"):
        growth.fit("all")
    with pytest.raises(DataError, match="two times"):
        growth.fit((1, 2, 3))


def test_without_a_null_nothing_is_decided(growth):
    exponent = growth.fit(null=None)
    assert exponent.verdict == "inconclusive"
    assert np.isnan(exponent.p_value)
    assert_allclose(exponent.value, growth.fit().value)


def test_unknown_words_list_the_known_ones(growth):
    with pytest.raises(UnknownNameError, match="danovski2024"):
        growth.fit(procedure="best")
    with pytest.raises(UnknownNameError, match="power-law"):
        growth.fit(null="iid")
    with pytest.raises(DataError, match="between 0 and 1"):
        growth.fit(level=95)
    with pytest.raises(UnknownNameError, match="twins"):
        lyapunov((np.zeros(3), [np.ones(3)]), method="benettin")


@pytest.mark.parametrize("average", ["log-mean", "rms"])
def test_other_averages_are_fitted_too(average):
    exponent = logistic_growth(9, average=average).fit()
    assert_allclose(exponent.value, np.log(2), rtol=0.1)


def test_one_call_gives_the_same_as_two(growth):
    rng = np.random.default_rng(10)
    reference, copies = perturbed_at(logistic, orbit(logistic, 0.3, 60), (0,), epsilon=1e-10, rng=rng)
    one, two = lyapunov((reference, copies)), twins((reference, copies)).fit()
    assert (one.value, one.interval, one.verdict) == (two.value, two.interval, two.verdict)


# -- the published procedure -------------------------------------------------------------------------------------------


def test_published_procedure_is_that_of_its_loops():
    growth = walk_rate(0, inits=6, copies=2, steps=200)
    exponent = growth.fit(procedure="danovski2024")
    curves, _, _ = average_curves(growth.distances, growth.group, growth.start, "log-mean")
    expected = naive.danovski2024(curves)
    kept = (expected[:, 1] > 0.9) & (expected[:, 0] > 0.05)
    assert_allclose(exponent.window_values, expected[:, 0], rtol=1e-8)
    assert_array_equal(np.isfinite(exponent.values), kept)
    assert_allclose(exponent.value, expected[kept, 0].mean(), rtol=1e-8)
    assert_allclose(exponent.settings["sd"], expected[kept, 0].std(), rtol=1e-8)
    assert exponent.settings["kept_fraction"] == kept.mean()
    assert "published-bias" in codes(exponent.warnings)
    assert exponent.verdict == "inconclusive"


def test_published_procedure_invents_exponents_and_ours_does_not():
    rng = np.random.default_rng(11)
    growth = from_distances(_logwalk(rng, 200, 1, 0.3)[:, :201])
    published = growth.fit(procedure="danovski2024")
    assert published.settings["kept_fraction"] > 0.15
    assert published.value > 0.05
    ours = growth.fit()
    assert ours.verdict not in CLAIMS
    assert np.isnan(ours.value) or abs(ours.value) < 3 * ours.settings["standard_error"]


def test_short_records_have_no_published_window():
    exponent = logistic_growth(0, n=20).fit(procedure="danovski2024")
    assert exponent.n_used == 0
    assert exponent.reasons[0].code == "record-too-short"


@pytest.mark.slow
def test_iris_at_the_edge_of_stability_gives_the_published_number():
    pytest.importorskip("sklearn")
    import iris_training

    growth = twins(iris_training.pairs(iris_training.train(1.0, inits=300, copies=5, epsilon=1e-8, steps=200, seed=0)))
    published = growth.fit(procedure="danovski2024")
    assert 0.26 <= published.value <= 0.31
    assert 0.09 <= published.settings["sd"] <= 0.11
    assert 0.84 <= published.settings["kept_fraction"] <= 0.95
    ours = growth.fit()
    assert (ours.growth, ours.verdict) == ("exponential", "sensitive")
    assert 0 < ours.value < published.value
    assert_allclose(growth.distances[:, 0].mean(), 70 * 1e-8 / 2, rtol=0.02)


def test_iris_at_a_small_learning_rate_is_regular():
    pytest.importorskip("sklearn")
    import iris_training

    growth = twins(iris_training.pairs(iris_training.train(0.01, inits=40, copies=3, epsilon=1e-8, steps=200, seed=1)))
    exponent = growth.fit()
    assert exponent.verdict == "regular"
    assert growth.fit(procedure="danovski2024").n_used <= 2


def test_a_few_steps_of_growth_are_too_few_to_call_it_a_power_law():
    # What training far beyond the edge of stability does: many e-folds in a few concave steps, then a plateau.
    rng = np.random.default_rng(11)
    pairs = []
    for _ in range(40):
        log_d = np.full(150, 16.0)
        log_d[:8] = [0, 5, 7, 8.2, 9, 10, 12, 14]
        log_d[1:] += 0.3 * rng.standard_normal(149)
        pairs.append((np.zeros((150, 1)), [1e-7 * np.exp(log_d)[:, None]]))
    exponent = twins(pairs).fit(rng=0)
    assert exponent.verdict == "inconclusive"
    assert "null-fits-as-well" in codes(exponent.reasons)
