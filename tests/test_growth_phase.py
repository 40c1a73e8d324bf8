"""The growth phase of twins between two first passages: its rate, its shape, its starts, and the decay of others."""

from dataclasses import replace

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose
from planted import from_distances, logistic, logistic_growth, orbit, pairs

from trajtools.exponents.divergence import Divergence, size_classes
from trajtools.exponents.twins import twins
from trajtools.exponents.verdict import Start, judge_persistence
from trajtools.reasons import codes

T = np.arange(401.0)


def curve(rate, *, epsilon=1e-8, wait=0.0, level=1.0, time=T):
    """Distance that rests for `wait`, then grows at `rate` up to `level`."""
    return level * np.minimum(1, np.exp(np.log(epsilon) + rate * np.maximum(time - wait, 0)))


def starts_of(*grows, votes=None):
    votes = (True,) * len(grows) if votes is None else votes
    rows = np.arange(1)
    return tuple(
        Start(100 * k, 0.1, (0.05, 0.15), 5.0, v, g, rows) for k, (g, v) in enumerate(zip(grows, votes, strict=True))
    )


# -- the number --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [1e-6, 1e-8, 1e-11, 1e-14])
def test_rate_does_not_depend_on_epsilon_or_on_the_waiting_time(epsilon):
    growth = Divergence.from_distances(
        np.array([curve(0.2, epsilon=epsilon, wait=wait) for wait in (0, 20, 40, 60, 80, 100)]).T
    )
    exponent = growth.fit()
    assert_allclose(exponent.value, 0.2, rtol=1e-3)
    low, middle, high = exponent.waiting
    assert low < middle < high
    assert 50 <= middle - (exponent.settings["onset_level"] - np.log(epsilon)) / 0.2 <= 52
    assert exponent.from_perturbation < 0.9 * exponent.value
    assert exponent.fraction_growing == 1


def test_rate_is_the_ratio_of_sums_of_the_naive_twin():
    growth = logistic_growth(3, inits=9, copies=2)
    exponent = growth.fit()
    curves = np.array([np.log(growth.distances[growth.group == g]).mean(axis=0) for g in range(9)])
    expected = naive.growth_phase(curves.tolist(), exponent.settings["onset_share"], exponent.settings["upper_level"])
    assert_allclose(exponent.value, expected, rtol=1e-9)


def test_curves_that_never_grow_are_counted_and_do_not_slow_the_rate():
    d = np.array([curve(0.2, wait=w) for w in range(0, 60, 10)] + [1e-8 * np.ones(len(T))] * 2).T
    exponent = Divergence.from_distances(d).fit()
    assert exponent.fraction_growing == 0.75
    assert_allclose(exponent.value, 0.2, rtol=1e-3)


def test_rate_by_time_shows_a_rate_that_changes_along_the_training():
    log = np.log(1e-12) + np.cumsum(np.where(T < 100, 0.05, 0.2)) - 0.05
    d = np.exp(-np.logaddexp(0, -log))
    exponent = Divergence.from_distances(np.array([d * (1 + k / 10) for k in range(6)]).T).fit()
    rate, stop = exponent.rate_by_time["rate"], exponent.rate_by_time["stop"]
    known = np.isfinite(rate)
    assert_allclose(rate[known & (stop <= 100)], 0.05, rtol=1e-6)
    assert_allclose(rate[known & (exponent.rate_by_time["start"] >= 100)][:2], 0.2, rtol=0.02)
    assert np.isnan(rate[stop > 250]).all()  # saturated: fewer than three quarters are left


def test_per_converts_the_rates_and_keeps_the_waiting_time():
    growth = Divergence.from_distances(np.array([curve(0.2, wait=w) for w in range(6)]).T)
    step, epoch = growth.fit(), growth.fit().per("epoch", steps_per_epoch=10)
    assert_allclose(epoch.from_perturbation, 10 * step.from_perturbation)
    assert_allclose(epoch.rate_by_time["rate"], 10 * step.rate_by_time["rate"])
    assert epoch.waiting == step.waiting


# -- growth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.5, 1, 2, 4, 8])
@pytest.mark.parametrize("units", [1, 4, 12])
def test_a_power_law_is_never_exponential(power, units):
    for seed in range(6):
        rng = np.random.default_rng([seed, units])
        noise = 0.3 * rng.standard_normal((units, len(T)))
        exponent = Divergence.from_distances((1e-8 * (1 + T) ** power * np.exp(noise)).T).fit()
        assert exponent.growth != "exponential", exponent.reasons


@pytest.mark.parametrize("units", [1, 4, 12])
def test_a_stretched_exponential_is_not_exponential(units):
    for seed in range(6):
        rng = np.random.default_rng([seed, units])
        log = rng.uniform(0.9, 1.1, (units, 1)) * T**0.4 + 0.1 * rng.standard_normal((units, len(T)))
        assert Divergence.from_distances(1e-8 * np.exp(log.T)).fit().growth != "exponential"


def test_walks_without_drift_are_rarely_exponential():
    wrong = total = 0
    for units in (1, 5, 20):
        for seed in range(20):
            steps = np.random.default_rng([seed, units]).standard_normal((units, len(T)))
            walk = np.exp(-18 + np.minimum(steps.cumsum(axis=1), 18))
            wrong += Divergence.from_distances(walk.T).fit().growth == "exponential"
            total += 1
    assert wrong <= 4  # 1 % each: more than 4 of 60 has p < .1 %


def test_few_units_are_never_regular():
    for seed in range(10):
        for copies in (2, 8):
            exponent = logistic_growth(seed, inits=1, copies=copies).fit()
            assert exponent.verdict in ("sensitive", "inconclusive")


def test_a_window_of_a_step_or_two_is_inconclusive():
    jump = np.full((len(T), 3), 1e-2)
    jump[0] = 1e-9
    exponent = Divergence.from_distances(jump * np.array([1, 1.1, 0.9])).fit()
    assert (exponent.growth, exponent.verdict) == ("undecided", "inconclusive")
    assert "too-fast" in codes(exponent.reasons)


def test_a_training_that_runs_away_is_no_chaos():
    reference = orbit(lambda w: -1.1 * w, 1.0, 300)
    listed = []
    for start in (0, 100, 200):
        twin = reference.copy()
        twin[start:] = orbit(lambda w: -1.1 * w, reference[start] * (1 + 1e-9), 300 - start)
        listed.append(twin)
    exponent = twins((reference, listed)).fit()
    assert (exponent.growth, exponent.verdict) == ("diverging", "diverging")
    assert exponent.settings["speed_share"] == pytest.approx(1, abs=0.01)
    assert exponent.reasons[0].code == "runaway"


def test_bounded_chaos_does_not_run_away():
    exponent = logistic_growth(0).fit()
    assert abs(exponent.settings["speed_share"]) < 0.2
    assert exponent.growth == "exponential"


# -- decay -------------------------------------------------------------------------------------------------------------


def cycle_exponent(r, period):
    x = 0.3
    for _ in range(20_000):
        x = r * x * (1 - x)
    total = 0.0
    for _ in range(period):
        total += np.log(abs(r - 2 * r * x))
        x = r * x * (1 - x)
    return total / period


@pytest.mark.parametrize(("r", "period"), [(2.9, 1), (3.2, 2), (3.5, 4), (3.55, 8)])
@pytest.mark.parametrize("units", [1, 8])
def test_contracting_twins_give_the_rate_down_to_the_rounding_level(r, period, units):
    def step(x):
        return r * x * (1 - x)

    truth = cycle_exponent(r, period)
    rng = np.random.default_rng(units)
    states = rng.uniform(0.2, 0.8, (units, 1))
    for _ in range(2000):
        states = step(states)
    exponent = twins(pairs(step, states, epsilon=1e-6, copies=3, n=400, rng=rng)).fit()
    assert exponent.verdict == "regular"
    assert_allclose(exponent.value, truth, rtol=0.02)
    assert exponent.interval[0] <= truth <= exponent.interval[1]


def test_a_decay_of_several_rates_ends_at_the_slowest():
    factors = 1 - 0.1 * np.array([0.5, 0.8, 1.0, 3.0, 9.0])
    rng = np.random.default_rng(0)
    growth = twins(pairs(lambda x: factors * x, rng.normal(size=(8, 5)), epsilon=1e-6, copies=3, n=250, rng=rng))
    exponent = growth.fit()
    assert exponent.growth == "contracting"
    assert_allclose(exponent.value, np.log(0.95), rtol=0.1)


def test_a_decay_that_is_no_exponential_says_so():
    power = Divergence.from_distances(np.array([1e-3 * c * (1 + T) ** -1.5 for c in range(1, 7)]).T).fit()
    assert power.verdict == "regular"
    assert "rate-not-constant" in codes(power.warnings)
    plain = Divergence.from_distances(np.array([1e-3 * c * np.exp(-0.05 * T) for c in range(1, 7)]).T).fit()
    assert_allclose(plain.value, -0.05, rtol=1e-6)
    assert "rate-not-constant" not in codes(plain.warnings)


def test_a_curve_that_stays_where_it_began_does_not_grow():
    rng = np.random.default_rng(0)
    exponent = Divergence.from_distances(1e-8 * np.exp(0.1 * rng.standard_normal((400, 6)))).fit()
    assert (exponent.growth, exponent.verdict) == ("none", "regular")
    assert exponent.interval[0] < 0 < exponent.interval[1]


@pytest.mark.parametrize(
    ("late", "units", "verdict"), [(2, 30, "inconclusive"), (2, 10, "inconclusive"), (1, 100, "regular")]
)
def test_a_few_curves_that_grow_late_are_seen(late, units, verdict):
    rng = np.random.default_rng(0)
    log = np.log(1e-8) + 0.05 * rng.standard_normal((units, len(T)))
    log[:late, 300:] += np.linspace(0, 9, 101)
    exponent = Divergence.from_distances(np.exp(log).T).fit()
    assert exponent.verdict == verdict, exponent.reasons
    assert "few-curves-grow" in codes(exponent.reasons)


# -- persistence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grows", "answer"),
    [
        ((True,), "not tested"),
        ((True, True), "mixed"),
        ((True, True, True), "shown"),
        ((True, True, False), "ended"),
        ((True, False, False), "ended"),
        ((False, True, True), "mixed"),
        ((True, False, True, True), "mixed"),
        ((True,) * 30 + (False,) + (True,) * 30, "mixed"),
        ((True,) * 15 + (False,) * 15, "ended"),
    ],
)
def test_persistence_follows_from_the_starts_that_vote(grows, answer):
    persistence, reason = judge_persistence(starts_of(*grows), "step")
    if answer == "mixed" and len(grows) > 50:
        assert persistence in ("shown", "mixed")  # one of 61 may fail by chance
    else:
        assert persistence == answer, reason


def test_many_starts_are_listed_by_their_range():
    persistence, reason = judge_persistence(starts_of(*[True] * 40), "step")
    assert persistence == "shown"
    assert "(steps 0 to 3900)" in str(reason)
    assert len(str(reason)) < 200
    assert "steps 0, 100, 200)" in str(judge_persistence(starts_of(True, True, True), "step")[1])


def test_starts_that_were_not_followed_long_enough_do_not_vote():
    starts = starts_of(True, True, True, False, votes=(True, True, True, False))
    persistence, reason = judge_persistence(starts, "step")
    assert persistence == "shown"
    assert "; no vote at step 300: not followed for long enough" in reason.text
    late = (*starts[:3], replace(starts[3], late=True))
    assert "; no vote at step 300: grew too late" in judge_persistence(late, "step")[1].text


def planted_at(starts, length, *, rng, epsilon=1e-10):
    reference = orbit(logistic, 0.3141, length)
    copies = []
    for start in starts:
        twin = reference.copy()
        twin[start:] = orbit(logistic, reference[start] + epsilon * rng.uniform(0.5, 1), length - start)
        copies.append(twin)
    return twins((reference, copies))


def test_chaos_from_many_plantings_of_one_training():
    exponent = planted_at(range(0, 600, 60), 660, rng=np.random.default_rng(1)).fit()
    assert (exponent.growth, exponent.persistence, exponent.verdict) == ("exponential", "shown", "chaotic")
    assert exponent.settings["resampled"] == "starts"
    assert exponent.interval[0] < np.log(2) < exponent.interval[1]


def test_a_last_start_that_is_cut_short_changes_nothing():
    exponent = planted_at([*range(0, 600, 60), 650], 660, rng=np.random.default_rng(1)).fit()
    assert exponent.verdict == "chaotic"
    assert exponent.settings["start_votes"][-1] is False


def test_starts_whose_rates_differ_are_named():
    d = [curve(rate, wait=0) for rate in (0.14, 0.19, 0.04)]
    growth = Divergence.from_distances(np.array(d).T, group=[0, 0, 0], start=[0, 500, 1000])
    exponent = growth.fit()
    warning = next(w for w in exponent.warnings if w.code == "starts-differ")
    assert "0.14" in warning.text
    assert_allclose([warning.numbers["lowest"], warning.numbers["highest"]], [0.04, 0.19], rtol=1e-6)


@pytest.mark.parametrize(("late", "others"), [([], 0), ([540], 1)])
def test_where_starts_differ_the_value_is_pooled_over_all_fitted_curves(late, others):
    starts, rates = [0, 500, 1000, *late], [0.14, 0.19, 0.04, 0.1]
    d = [curve(rate, wait=0) for rate in rates[: len(starts)]]
    exponent = Divergence.from_distances(np.array(d).T, group=[0] * len(d), start=starts).fit()
    warning = next(w for w in exponent.warnings if w.code == "starts-differ")
    assert exponent.settings["starts"] == starts[:3]
    assert len(exponent.settings["stretches"]) == warning.numbers["curves"] == len(starts)
    assert warning.numbers["others"] == others
    assert f"pooled over all {len(starts)} fitted curves" in warning.text
    assert ("1 of them from other starts" in warning.text) == bool(others)


def test_starts_after_the_growth_ended_are_not_compared_with_those_of_the_value():
    fast, slow = [curve(rate) for rate in np.linspace(0.45, 0.55, 6)], np.minimum(1e-8 * np.exp(0.1 * T), 1e-3)
    growth = Divergence.from_distances(
        np.array([*fast, slow, slow]).T, group=[*range(6), 0, 1], start=[0] * 6 + [500] * 2
    )
    exponent = growth.fit()
    assert (exponent.persistence, exponent.settings["start_grows"]) == ("ended", [True, False])
    assert_allclose(exponent.value, 0.5, rtol=0.01)
    assert "starts-differ" not in codes(exponent.warnings)


def test_a_single_curve_has_an_interval_from_blocks_of_time():
    exponent = from_distances([curve(0.2) * np.exp(0.3 * np.sin(T))]).fit()
    assert exponent.settings["resampled"] == "blocks of time"
    assert exponent.interval[0] < 0.2 < exponent.interval[1]
    assert "one-initial-condition" in codes(exponent.warnings)


# -- perturbations of several sizes ------------------------------------------------------------------------------------


def rising(rates, start, epsilon):
    """Distance of a copy planted at a step, whose rate along the training is `rates` while it is below 1."""
    log = np.concatenate([[0.0], np.cumsum(rates[start:-1])]) + np.log(epsilon)
    return np.exp(-np.logaddexp(0, -log))


def test_copies_of_two_sizes_of_one_training_give_one_rate_and_say_that_it_agrees():
    rng = np.random.default_rng(2)
    rows, group = [], []
    for k in range(8):
        rates = 0.2 + 0.05 * rng.standard_normal(300)
        rows += [rising(rates, 0, epsilon) for epsilon in (1e-12, 2e-12, 1e-7)]
        group += [k] * 3
    growth = Divergence.from_distances(np.array(rows).T, group=group)
    assert growth.size.tolist() == [0, 0, 1] * 8
    exponent = growth.fit()
    (agreed,) = exponent.settings["rates_by_size"]
    assert_allclose(agreed["rates"], [agreed["rates"][0]] * 2, rtol=0.02)
    assert_allclose(agreed["first"], [np.sqrt(2) * 1e-12, 1e-7], rtol=1e-6)
    assert_allclose(exponent.value, 0.2, rtol=0.03)
    assert "not-converged" not in codes(exponent.warnings)


def test_sizes_that_grow_at_different_rates_at_the_same_steps_are_not_converged():
    """A staircase under a smooth map: below its steps, at 1e-7, distances grow twice as fast as above."""
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(8):
        for epsilon in (1e-22, 1e-6):
            log = [np.log(epsilon)]
            for noise in rng.standard_normal(250):
                log.append(min(log[-1] + (0.2 if log[-1] < np.log(1e-7) else 0.1) + 0.02 * noise, 0.0))
            rows.append(np.exp(log))
    exponent = Divergence.from_distances(np.array(rows).T, group=np.repeat(np.arange(8), 2)).fit()
    (warning,) = [one for one in exponent.warnings if one.code == "not-converged"]
    assert_allclose(warning.numbers["rate"], 0.2, rtol=0.05)
    assert_allclose(warning.numbers["other"], 0.1, rtol=0.05)
    assert_allclose(warning.numbers["small"], 1e-22)


def test_copies_of_two_sizes_count_as_one_planting():
    """The same training seen through two sizes of perturbation: no more evidence than through one."""
    rng = np.random.default_rng(4)
    trainings = [0.2 + 0.1 * rng.standard_normal(200) for _ in range(6)]
    one, two = (
        Divergence.from_distances(
            np.array([rising(rates, 0, epsilon) for rates in trainings for epsilon in sizes]).T,
            group=np.repeat(np.arange(6), len(sizes)),
        ).fit()
        for sizes in ([1e-9], [1e-9, 1e-11])
    )
    assert one.settings["resampled"] == two.settings["resampled"] == "initial conditions"
    few = [
        Divergence.from_distances(
            np.array([rising(trainings[0], 0, epsilon) for epsilon in sizes]).T, group=[0] * len(sizes)
        ).fit()
        for sizes in ([1e-11], [1e-9, 1e-11])
    ]
    widths = [exponent.interval[1] - exponent.interval[0] for exponent in few]
    assert [exponent.settings["resampled"] for exponent in few] == ["blocks of time"] * 2
    assert 0.6 < widths[1] / widths[0] < 1.7


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ([1e-8, 1e-8], [0, 0]),
        ([1e-5, 1e-8, 2e-5, 1e-8], [1, 0, 1, 0]),
        ([1e-12, 1e-8, 1e-4], [0, 1, 2]),
        ([1e-8, 3e-8, 9e-8], [0, 0, 0]),
        ([1e-11, 6e-11, 4e-10, 3e-9, 8e-8], [0, 0, 0, 0, 0]),  # as wide as the gaps: draws in one dimension
        ([np.nan, 1e-8, 1e-4], [0, 0, 1]),
    ],
)
def test_first_distances_of_different_epsilons_are_told_apart(first, expected):
    assert size_classes(np.array(first)).tolist() == expected
