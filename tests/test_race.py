"""The race between learning rates, on loss curves that are known for every rate."""

from __future__ import annotations

import numpy as np
import pytest

from recorders.race import GRID, RATIO, late, run_race, rungs
from trajtools.errors import DataError
from trajtools.reasons import codes


class Curves:
    """Trainings whose loss is a function of rate, step and seed; counts what is trained."""

    def __init__(self, loss, noise=0.0):
        self.loss, self.noise, self.trained = loss, noise, {}

    def __call__(self, rate, seed, stop):
        assert stop > self.trained.get((rate, seed), 0)  # a copy is continued, never begun anew
        t = np.arange(stop)
        with np.errstate(over="ignore", invalid="ignore"):
            losses = np.asarray(self.loss(rate, t, seed), float) + self.noise * wobble(t, seed)
        cut = np.flatnonzero(~np.isfinite(losses))
        losses = losses[: cut[0] + 1] if len(cut) else losses
        self.trained[rate, seed] = stop
        return losses

    @property
    def cost(self):
        return sum(self.trained.values())


def wobble(t, seed):
    """Noise of the batches: the same at every rate."""
    return np.random.default_rng([5, seed]).standard_normal(100_000)[t]


def raced(loss, rates=None, seeds=(0,), longest=320, noise=0.0, **options):
    curves = Curves(loss, noise)
    race = run_race(curves, rates, seeds, longest, **options)
    return race, curves


def basin(best, speed=0.05, floor=0.0):
    """The loss falls fastest at the best rate, and overflows from five times that rate on."""

    def loss(rate, t, seed):
        if rate > 5 * best:
            return np.exp(np.minimum(t * rate / best, 800.0))
        decay = speed * min(rate / best, (best / rate) ** 2)
        return floor + (1 - floor) * np.exp(-decay * t)

    return loss


def test_a_loss_that_is_not_finite_at_the_start_is_an_error_and_not_a_divergence():
    for value in (np.nan, np.inf):
        with pytest.raises(DataError, match="before the first update"):
            raced(lambda rate, t, seed, value=value: np.full(len(t), value))


def test_a_loss_that_begins_at_zero_and_stays_there_moves_nothing():
    race, _ = raced(lambda rate, t, seed: np.zeros(len(t)))
    assert codes(race.reasons) == ("nothing-moved",)
    assert "diverged" not in race.states


@pytest.mark.parametrize("best", [3e-4, 1e-3, 0.02, 0.1, 1.0, 7.0])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_fastest_rate_wins(best, noise):
    race, curves = raced(basin(best), noise=noise)
    assert 1 / RATIO <= race.rates[race.winner] / best <= RATIO
    assert 20 <= race.horizon <= 160
    assert race.states[-1] == "diverged" or best > 1
    assert "smallest-loss" in codes(race.reasons)
    assert curves.cost <= 16 * 80


@pytest.mark.parametrize("best", [1e-6, 300.0])
def test_the_grid_is_extended_towards_the_best_rate(best):
    race, _ = raced(basin(best))
    assert 1 / RATIO <= race.rates[race.winner] / best <= RATIO
    assert "end-of-range" not in codes(race.doubts)


@pytest.mark.parametrize("rates", [(0.001, 0.01, 0.1), (10.0, 30.0, 100.0)])
def test_a_best_rate_at_the_end_of_chosen_rates_is_doubtful(rates):
    race, _ = raced(basin(1.0) if rates[0] < 1 else basin(1.0, speed=0.5), rates)
    if race.winner >= 0:
        assert race.rates[race.winner] in (rates[0], rates[-1])
        assert "end-of-range" in codes(race.doubts)
    else:
        assert rates[0] > 5


def test_a_plateau_and_pure_noise_recommend_nothing():
    race, curves = raced(lambda rate, t, seed: np.ones(len(t)), noise=0.05)
    assert race.winner == race.long == -1
    assert codes(race.reasons) == ("nothing-moved",)
    assert race.horizon == 320
    assert curves.cost <= 16 * 320
    race, _ = raced(lambda rate, t, seed: np.full(len(t), 2.0))
    assert codes(race.reasons) == ("nothing-moved",)


def test_a_loss_that_falls_little_is_a_doubt():
    race, _ = raced(lambda rate, t, seed: 1 - 0.1 * (1 - np.exp(-t * min(rate, 0.01 / rate))))
    assert race.winner >= 0
    assert "plateau" in codes(race.doubts)


def test_a_race_is_over_at_once_where_the_loss_falls_to_a_tenth():
    race, curves = raced(basin(0.1, speed=1.0))
    assert race.horizon == 20
    negative, _ = raced(lambda rate, t, seed: basin(0.1, speed=1.0)(rate, t, seed) - 2)
    assert negative.horizon >= 80
    assert curves.cost < 16 * 20


def test_of_rates_that_fit_at_once_the_smallest_wins():
    race, _ = raced(basin(1.0, speed=3.0), seeds=(0, 1))  # exp(-3 t rate): a tenth at step 17 for .0464
    assert race.horizon == 20
    assert race.rates[race.winner] == pytest.approx(0.0464159)
    assert set(race.by_seed) == {race.rates[race.winner]}
    assert codes(race.reasons)[0] == "smallest-that-arrives"
    assert race.reasons[0].numbers["highest"] > 1
    assert race.scores.argmin() > race.winner
    alone, _ = raced(basin(1.0, speed=3.0), rates=(1e-4, 0.01, 0.0464159))
    assert codes(alone.reasons)[0] == "smallest-loss"


def test_ties_are_worth_one_more_rung():
    race, _ = raced(lambda rate, t, seed: 0.5 + 0.5 * np.exp(-t / 10) if 0.05 < rate < 0.5 else np.ones(len(t)))
    assert race.horizon == 160


def test_divergence_at_every_rate_is_said():
    race, _ = raced(lambda rate, t, seed: np.exp(t * 1.0))
    assert codes(race.reasons) == ("diverged",)
    assert set(race.states) == {"diverged"}
    assert race.rates[0] < 1e-7  # lower ones were tried
    assert np.isnan(race.by_seed[0])


def test_a_divergence_that_does_not_overflow_is_divergence():
    race, _ = raced(lambda rate, t, seed: 1 + rate * t if rate > 1 else np.exp(-rate * t / 10))
    assert race.states[-1] == "diverged"
    assert race.rates[race.winner] <= 1


def test_a_network_that_is_dead_at_every_rate_is_named():
    race, curves = raced(lambda rate, t, seed: np.full(len(t), 0.7), active=lambda rate, seed: 0.0)
    assert race.winner == -1
    assert set(race.states) == {"dead"}
    assert codes(race.reasons) == ("dead",)
    assert "other initial weights" in str(race.reasons[0])
    assert curves.cost == 10 * len(race.rates)


def test_a_dead_network_never_wins():
    # Its loss is at chance, lower than that of all others for forty steps.
    def loss(rate, t, seed):
        return np.where(t > 3, 0.8, 1.0) if rate > 0.5 else np.exp(-0.2 * min(rate / 0.1, 1) * np.maximum(t - 30.0, 0))

    race, _ = raced(loss, active=lambda rate, seed: 0.01 if rate > 0.5 else 0.9)
    assert race.rates[race.winner] < 0.5
    assert race.states[-1] == "dead"
    assert "dead" in codes(race.warnings)


def test_a_network_that_stays_at_chance_above_the_best_rate_is_stuck():
    race, _ = raced(lambda rate, t, seed: np.ones(len(t)) if rate > 0.5 else np.exp(-rate * t / 5))
    assert race.states[-1] == "stuck"
    assert race.states[0] == "slow"
    assert {"stuck", "near-collapse"} <= {*codes(race.warnings), *codes(race.doubts)}


def test_a_rate_that_wins_early_and_collapses_is_not_recommended():
    def loss(rate, t, seed):
        if rate > 0.3:
            return np.where(t < 60, np.maximum(np.exp(-t / 10), 0.15), np.minimum(0.06 * (t - 59), 0.9))
        return np.exp(-0.05 * t * rate / 0.3)

    race, _ = raced(loss)
    assert race.rates[race.winner] < 0.3
    assert "collapsed" in race.states
    assert "collapsed" in codes(race.warnings)


def test_a_rate_that_wins_on_the_plateau_need_not_win_after_it():
    def loss(rate, t, seed):
        plateau = 1 - 0.05 * (1 - np.exp(-t * rate)) * (rate > 1)  # large rates look better first
        return plateau - (0.9 * (1 - np.exp(-np.maximum(t - 50.0, 0) / 20)) if 0.05 < rate < 0.3 else 0.0)

    race, _ = raced(loss)
    assert 0.05 < race.rates[race.winner] < 0.3


def test_seeds_that_disagree_are_said():
    race, _ = raced(lambda rate, t, seed: basin((0.01, 1.0, 0.01)[seed])(rate, t, seed), seeds=(0, 1, 2))
    assert "seeds-disagree" in codes(race.doubts)
    assert max(race.by_seed) / min(race.by_seed) > RATIO
    agreed, _ = raced(basin(0.1), seeds=(0, 1, 2), noise=0.01)
    assert "seeds-disagree" not in codes(agreed.doubts)
    assert agreed.curves.shape[1:] == (len(agreed.rates), 3)


def test_rates_far_apart_that_are_as_good_are_said():
    race, _ = raced(lambda rate, t, seed: 0.1 + 0.9 * np.exp(-t / 10) if 0.01 < rate < 3 else np.ones(len(t)))
    assert "equally-good" in codes(race.reasons)
    assert "close-call" in codes(race.doubts)


def test_a_clear_winner_is_not_doubtful():
    race, _ = raced(basin(0.1), noise=0.005)
    assert not race.doubts


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_units_of_the_loss_do_not_matter(scale):
    race, _ = raced(lambda rate, t, seed: scale * basin(0.1)(rate, t, seed), noise=0.01 * scale)
    again, _ = raced(basin(0.1), noise=0.01)
    assert race.winner == again.winner
    assert race.states == again.states


def test_negative_losses_are_losses():
    race, _ = raced(lambda rate, t, seed: basin(0.1)(rate, t, seed) - 0.5)
    assert 1 / RATIO <= race.rates[race.winner] / 0.1 <= RATIO


def test_the_order_of_the_rates_does_not_matter():
    rates = [0.001, 0.01, 0.1, 1.0]
    races = [raced(basin(0.1), order)[0] for order in (rates, rates[::-1])]
    assert races[0].rates[races[0].winner] == races[1].rates[races[1].winner]


def test_the_long_rate_is_at_most_half_the_winner():
    race, _ = raced(basin(0.1))
    assert race.rates[race.long] <= race.rates[race.winner] / 2 * (1 + 1e-9)
    assert "long-training" in codes(race.reasons)


def test_copies_are_released_once_they_are_out():
    released = set()
    race, curves = raced(basin(0.1), release=released.add)
    assert released <= set(race.rates)
    last = {rate for rate in race.rates if curves.trained[rate, 0] == race.horizon}
    assert not released & last or len(last) < len(race.rates)


def test_rungs_double_up_to_the_longest():
    assert rungs(320) == [10, 20, 40, 80, 160, 320]
    assert rungs(10) == [10]
    assert rungs(50) == [10, 20, 40, 50]
    assert list(GRID) == sorted(GRID)


def test_late_losses_are_medians_of_the_last_quarter():
    assert late(np.arange(40.0)) == np.median(np.arange(30, 40))
    assert late(np.array([3.0])) == 3.0
    assert late(np.array([1.0, np.nan])) == np.inf
