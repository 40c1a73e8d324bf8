"""A race between learning rates: copies of one training, each at its own rate, on the same batches.

Framework-free: a race only calls ``train(rate, seed, stop)``, which continues a copy and returns its losses so far.
Copies run in rungs of 10, 20, 40, ... steps. After each rung the score of a rate is the median loss over the last
quarter of its steps. Until training has left its first plateau, only what diverged, died or rises is dropped: a rate
that wins on a plateau need not win after it. Afterwards the better half goes on, at least three rates, with the
neighbours of the winner, so that it stays bracketed, and the best rate for each seed.

The winner has the smallest score. Only where the loss falls to a tenth within the shortest race is it the smallest rate
that gets there: scores below a tenth say how closely the data are fitted, and of tables that a few steps fit, the rates
with the smallest training loss are those that overfit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trajtools.errors import DataError
from trajtools.reasons import Reason
from trajtools.types import Floats, Ints

RATIO = 10 ** (1 / 3)
GRID = tuple(float(f"{10 ** (i / 3):.6g}") for i in range(-12, 4))  # 1e-4 to 10
LOWEST, HIGHEST = 1e-8, 1e4  # how far the grid is extended where the best rate is at its end
SHORTEST_RUNG = 10
SHORTEST_RACE = 20
DONE = 0.1  # of the first loss
SETTLED = 80  # steps; a shorter race has not left its transients, unless it is done
LATE = 0.25  # share of the steps that is scored
MOVED = 0.7  # of the first loss: training has left its first plateau
STALLED = 0.9
RISEN = 1.05
DIVERGED = 2.0
COLLAPSED = 0.5  # share of the progress that was lost again
CLOSE = 1.1  # scores within this factor are as good
FEWEST = 3
DEAD = 0.1  # of the nonzero entries of the first gradient
DEAD_LEVEL = 0.05  # of the first loss
Train = Callable[[float, int, int], Floats]


@dataclass(frozen=True, eq=False)
class Race:
    """Outcome of a race.

    Attributes
    ----------
    rates : ndarray of float64, shape (R,)
        Learning rates, in order.
    curves : ndarray of float64, shape (T, R, S)
        Losses before each step, per rate and seed; NaN after a rate was dropped, and after it diverged.
    steps : ndarray of int64, shape (R,)
        Steps of each rate.
    scores : ndarray of float64, shape (R,)
        Median over the seeds of the median loss over the last quarter of the steps; inf where it diverged.
    states : tuple of str
        "trains", "slow", "stuck", "dead", "collapsed" or "diverged", per rate.
    winner, long : int
        Index of the rate for the horizon and of the one for long trainings; -1: none.
    by_seed : tuple of float
        Winner for each seed alone; NaN: none.
    horizon : int
        Steps after which the winner was chosen.
    reasons, doubts, warnings : tuple of Reason
        Why; why not to rely on it; what else is to be known.
    first, floor : float
        Loss at the start, and the smallest possible one: 0, or the smallest loss if that is negative.
    left_out : ndarray of float64, shape (R,)
        Losses on rows left out (`recorders.left_out`); NaN where not measured.
    """

    rates: Floats
    curves: Floats
    steps: Ints
    scores: Floats
    states: tuple[str, ...]
    winner: int
    long: int
    by_seed: tuple[float, ...]
    horizon: int
    reasons: tuple[Reason, ...]
    doubts: tuple[Reason, ...]
    warnings: tuple[Reason, ...]
    first: float
    floor: float
    left_out: Floats

    def level(self, loss: float) -> float:
        """Loss over that at the start, both above the smallest possible loss."""
        return (loss - self.floor) / (self.first - self.floor) if self.first > self.floor else math.inf


def run_race(
    train: Train,
    rates: Sequence[float] | None,
    seeds: Sequence[int],
    longest: int,
    *,
    active: Callable[[float, int], float] = lambda rate, seed: 1.0,
    release: Callable[[float], None] = lambda rate: None,
) -> Race:
    """Run a race and judge it.

    Parameters
    ----------
    train : callable
        ``train(rate, seed, stop)`` continues a copy to `stop` steps and returns all its losses, each before its
        step; it may stop early after a loss that is not finite.
    rates : sequence of float or None
        None: the grid, extended where the best rate is at its end.
    seeds : sequence of int
        Each rate trains once per seed.
    longest : int
        Most steps of a copy.
    active : callable
        ``active(rate, seed)`` -> number of nonzero entries in the last gradient over that in the first.
    release : callable
        ``release(rate)``: the copies at this rate do not train any more.
    """
    race = _Running(train, active, list(GRID if rates is None else rates), tuple(seeds), rates is None)
    horizon = 0
    for rung in rungs(longest):
        horizon = rung
        race.advance(rung)
        race.drop_dead()
        if not race.alive or race.is_decided(rung):
            break
        if rung < longest:
            race.drop(rung)
        for rate in set(race.rates) - set(race.alive):
            release(rate)
    return race.judge(horizon)


def rungs(longest: int) -> list[int]:
    """Steps at which the copies are compared."""
    steps = [min(SHORTEST_RUNG, longest)]
    while steps[-1] < longest:
        steps.append(min(2 * steps[-1], longest))
    return steps


def careful(rates: Floats, states: Sequence[str], winner: int) -> int:
    """A rate for long trainings: one cell below the winner, or at least a factor of two."""
    below = [i for i in range(winner) if rates[i] <= rates[winner] / 2 * (1 + 1e-9)]
    trained = [i for i in below if states[i] in ("trains", "slow")]
    return trained[-1] if trained else winner


def for_long(horizon: int, rate: float) -> Reason:
    """Say which rate is for long trainings."""
    text = (
        "for trainings much longer than {steps} steps {rate:.4g} is the safer choice: the rate that is fastest "
        "at first is often too large later"
    )
    return Reason.of("long-training", text, steps=horizon, rate=rate)


def late(losses: Floats) -> float:
    """Median loss over the last steps; inf if one of them is not finite."""
    part = losses[-max(1, round(LATE * len(losses))) :]
    return float(np.median(part)) if len(part) and np.isfinite(part).all() else math.inf


class _Running:
    """The copies of a race and what is known of them."""

    def __init__(
        self,
        train: Train,
        active: Callable[[float, int], float],
        rates: list[float],
        seeds: tuple[int, ...],
        open_ended: bool,
    ) -> None:
        self.train, self.active, self.seeds, self.open_ended = train, active, seeds, open_ended
        self.rates = sorted(rates)
        self.alive = list(self.rates)
        self.dead: set[float] = set()
        self.losses: dict[tuple[float, int], Floats] = {}
        self.first = self.noise = math.nan
        self.floor = 0.0

    # -- rungs

    def advance(self, rung: int) -> None:
        """Train the rates that are left; extend the grid at an end where the best rate is."""
        self._train(self.alive, rung)
        while self.open_ended and self.alive:
            best = min(self.alive, key=self.score)
            if best == self.rates[-1] and best < HIGHEST:
                rate = best * RATIO
            elif best == self.rates[0] and best > LOWEST and not STALLED <= self.level(best) <= DIVERGED:
                rate = best / RATIO
            else:
                return
            self.rates = sorted([*self.rates, rate])
            self._train([rate], rung)
            self.alive = [r for r in self.rates if r in self.alive or r == rate]

    def _train(self, rates: Sequence[float], rung: int) -> None:
        for rate in rates:
            for seed in self.seeds:
                self.losses[rate, seed] = np.asarray(self.train(rate, seed, rung), dtype=np.float64)
        begin = [self.losses[self.rates[0], seed][:SHORTEST_RUNG] for seed in self.seeds]
        at_start = float(np.median([losses[0] for losses in self.losses.values() if len(losses)]))
        if not math.isfinite(at_start):
            raise DataError(
                f"the loss is {at_start:g} before the first update, so no rate can be compared: check the data, the "
                "loss function and the initial weights"
            )
        together = float(np.median(np.concatenate(begin)))
        # The slowest rate shows the loss of several batches at the start, unless it trains or diverges.
        slow = STALLED * abs(at_start) <= together <= DIVERGED * abs(at_start)
        self.first = together if slow else at_start
        self.noise = float(np.median([_noise(losses) for losses in begin]))
        known = [losses[np.isfinite(losses)] for losses in self.losses.values()]
        self.floor = min(0.0, *(float(losses.min()) for losses in known if len(losses)), 0.0)

    def score(self, rate: float) -> float:
        return float(np.median([late(self.losses[rate, seed]) for seed in self.seeds]))

    def level(self, rate: float) -> float:
        """Score over the first loss, both above the smallest possible loss."""
        span = self.first - self.floor
        if span > 0:
            return (self.score(rate) - self.floor) / span
        return 1.0 if self.score(rate) <= self.first else math.inf

    def best_level(self) -> float:
        return min((self.level(rate) for rate in self.alive), default=math.inf)

    def is_decided(self, rung: int) -> bool:
        """Whether the race may end.

        Below a tenth of the first loss longer races compare how well the training data are fitted, not how fast; a loss
        that can be negative has no such level. Rates that are as good are worth one more rung.
        """
        level = self.best_level()
        if self.floor == 0 and rung >= SHORTEST_RACE and level <= DONE:
            return True
        ties = sum(self.level(rate) <= CLOSE * level for rate in self.alive)
        return level <= MOVED and rung >= (SETTLED if ties < 2 else 2 * SETTLED)

    def drop_dead(self) -> None:
        """Drop rates whose gradient has vanished in most weights."""
        for rate in self.alive:
            # A gradient also vanishes where training has arrived.
            active = np.median([self.active(rate, seed) for seed in self.seeds])
            if DEAD_LEVEL < self.level(rate) < math.inf and active < DEAD:
                self.dead.add(rate)
        fine = [rate for rate in self.alive if rate not in self.dead]
        best_of_a_seed = set(self._by_seed(fine))
        self.alive = [rate for rate in fine if self.level(rate) <= DIVERGED or rate in best_of_a_seed]

    def drop(self, rung: int) -> None:
        """Drop the rates that cannot win any more."""
        ranked = sorted(self.alive, key=self.score)
        if self.best_level() > MOVED and rung < SETTLED:
            limit = max(RISEN, 1 + 3 * self.noise / max(self.first - self.floor, 1e-300))
            keep = {rate for rate in ranked if self.level(rate) <= limit}
        else:
            keep = set(ranked[: max(FEWEST, math.ceil(len(ranked) / 2))])
            keep |= set([rate for rate in self.alive if rate > ranked[0]][:1])
            keep |= set([rate for rate in self.alive if rate < ranked[0]][-1:])
            keep |= set(self._by_seed(self.alive))
        self.alive = [rate for rate in self.alive if rate in keep]

    # -- the outcome

    def judge(self, horizon: int) -> Race:
        """Choose the rates and say why."""
        rates = np.array(self.rates)
        best = min(self.alive, key=self.score, default=None)
        states = tuple(self._state(rate, best) for rate in self.rates)
        voting = [rate for rate in self.alive if states[self.rates.index(rate)] in ("trains", "slow")]
        moved = [rate for rate in voting if self._has_moved(rate)]
        by_seed = self._by_seed(self.alive if moved else [])
        arrived = self._arrived(moved, self.seeds) if horizon <= SHORTEST_RACE else []
        if arrived:
            best = arrived[0]
            by_seed = tuple(
                next(iter(self._arrived(moved, (seed,))), rate) for seed, rate in zip(self.seeds, by_seed, strict=True)
            )
        else:
            best = min(moved, key=self.score, default=None)
        longest = max(len(losses) for losses in self.losses.values())
        curves = np.full((longest, len(rates), len(self.seeds)), np.nan)
        for (rate, seed), losses in self.losses.items():
            curves[: len(losses), self.rates.index(rate), self.seeds.index(seed)] = losses
        steps = np.array([max(len(self.losses[rate, s]) for s in self.seeds) for rate in self.rates], dtype=np.int64)
        scores = np.array([self.score(rate) for rate in self.rates])
        winner = -1 if best is None else self.rates.index(best)
        long = -1 if best is None else careful(rates, states, winner)
        if best is None:
            reasons: tuple[Reason, ...] = (self._why_none(voting, states, horizon),)
            doubts: tuple[Reason, ...] = reasons
        else:
            reasons = self._reasons(winner, long, moved, arrived, horizon)
            doubts = self._doubts(winner, moved, states, by_seed, horizon)
        warnings = self._warnings(states)
        return Race(
            rates, curves, steps, scores, states, winner, long, by_seed, horizon, reasons, doubts, warnings,
            self.first, self.floor, np.full(len(rates), np.nan),
        )  # fmt: skip

    def _state(self, rate: float, best: float | None) -> str:
        level = self.level(rate)
        if not level <= DIVERGED:
            return "diverged"
        if rate in self.dead:
            return "dead"
        lows = [_lowest(self.losses[rate, seed]) for seed in self.seeds]
        lost = (self.score(rate) - float(np.median(lows))) / max(self.first - float(np.median(lows)), 1e-300)
        enough = float(np.median(lows)) - self.floor < MOVED * (self.first - self.floor)
        if enough and lost > COLLAPSED:
            return "collapsed"
        if level <= STALLED:
            return "trains"
        return "stuck" if best is not None and rate > best and self.best_level() <= MOVED else "slow"

    def _has_moved(self, rate: float) -> bool:
        """Whether the loss has fallen by more than its noise and 3 %."""
        span = self.first - self.floor
        count = max(1, round(LATE * len(self.losses[rate, self.seeds[0]]))) * len(self.seeds)
        return self.first - self.score(rate) > max(0.03 * span, 3 * self.noise / math.sqrt(count))

    def _arrived(self, rates: list[float], seeds: tuple[int, ...]) -> list[float]:
        """The rates whose loss has fallen to a tenth, in order."""
        if self.floor < 0:
            return []
        limit = DONE * self.first
        return [rate for rate in rates if np.median([late(self.losses[rate, seed]) for seed in seeds]) <= limit]

    def _by_seed(self, rates: list[float]) -> tuple[float, ...]:
        """The best rate for each seed alone."""
        return tuple(
            min(rates, key=lambda rate, seed=seed: late(self.losses[rate, seed]), default=math.nan)  # type: ignore[misc]
            for seed in self.seeds
        )

    def _why_none(self, voting: list[float], states: tuple[str, ...], horizon: int) -> Reason:
        if voting:
            text = (
                "no rate lowered the loss by more than its noise in {steps} steps: this is a plateau, or there is "
                "nothing to learn. Pass a larger steps=, or other initial weights"
            )
            return Reason.of("nothing-moved", text, steps=horizon)
        if set(states) == {"dead"}:
            text = (
                "all or nearly all gradients are zero at every rate, the lowest one too: the network is dead (units "
                "that no example reaches, a saturated loss, or layers that are cut off); use other initial weights"
            )
            return Reason("dead", text)
        if {"dead", "stuck", "collapsed"} & set(states):
            return Reason("none-trains", "training diverged or died at every rate: use lower rates")
        return Reason("diverged", "training diverged at every rate: use lower rates")

    def _reasons(
        self, winner: int, long: int, moved: list[float], arrived: list[float], horizon: int
    ) -> tuple[Reason, ...]:
        best = self.rates[winner]
        numbers = {"steps": horizon, "rate": best, "loss": self.score(best), "first": self.first}
        text = "after {steps} steps the training loss is smallest at {rate:.4g} ({loss:.4g}; {first:.4g} at the start)"
        reasons = [Reason.of("smallest-loss", text, **numbers)]
        if len(arrived) > 1:
            text = (
                "within {steps} steps the training loss falls to a tenth ({first:.4g} at the start) at {count} rates "
                "from {rate:.4g} to {highest:.4g}; the smallest is taken, because those that fit faster tend to overfit"
            )
            numbers |= {"count": len(arrived), "highest": arrived[-1]}
            reasons = [Reason.of("smallest-that-arrives", text, **numbers)]
        if long != winner:
            reasons.append(for_long(horizon, self.rates[long]))
        good = self._as_good(best, moved)
        if len(good) > 1 and len(arrived) < 2:
            text = "from {low:.4g} to {high:.4g} the loss is within {share:.0%} of that"
            reasons.append(Reason.of("equally-good", text, low=good[0], high=good[-1], share=CLOSE - 1))
        return tuple(reasons)

    def _as_good(self, best: float, moved: list[float]) -> list[float]:
        limit = self.floor + CLOSE * (self.score(best) - self.floor)
        return sorted(rate for rate in moved if self.score(rate) <= limit)

    def _doubts(
        self, winner: int, moved: list[float], states: tuple[str, ...], by_seed: tuple[float, ...], horizon: int
    ) -> tuple[Reason, ...]:
        best, doubts = self.rates[winner], []
        if self.level(best) > MOVED:
            text = (
                "after {steps} steps the loss has fallen by {fall:.0%} only: training has hardly left its first plateau"
            )
            doubts.append(Reason.of("plateau", text, steps=horizon, fall=1 - self.level(best)))
        if winner in (0, len(self.rates) - 1):
            which, other = ("largest", "larger") if winner else ("smallest", "smaller")
            text = f"that is the {which} rate of the range: try {other} ones"
            doubts.append(Reason("end-of-range", text))
        spread = max(by_seed) / min(by_seed)
        if spread > RATIO * (1 + 1e-6):
            text = "the seeds disagree: their best rates are from {low:.4g} to {high:.4g}"
            doubts.append(Reason.of("seeds-disagree", text, low=min(by_seed), high=max(by_seed)))
        good = self._as_good(best, moved)
        if good[-1] / good[0] > RATIO**2 * (1 + 1e-6):
            text = "rates a factor of {factor:.2g} apart are as good so far"
            doubts.append(Reason.of("close-call", text, factor=good[-1] / good[0]))
        return (*doubts, *self._unsteady(winner, states))

    def _unsteady(self, winner: int, states: tuple[str, ...]) -> tuple[Reason, ...]:
        best = self.rates[winner]
        above = states[winner + 1 : winner + 2]
        if above and above[0] in ("dead", "stuck", "collapsed"):
            text = "at the next rate, {rate:.4g}, the network {fate}: the winner may do so later"
            fates = {"dead": "died", "stuck": "does not learn", "collapsed": "lost again what it had learned"}
            fate = fates[above[0]]
            return (Reason.of("near-collapse", text, rate=self.rates[winner + 1], fate=fate),)
        rises = [late(self.losses[best, seed]) / max(_lowest(self.losses[best, seed]), 1e-300) for seed in self.seeds]
        if float(np.median(rises)) > 1.5:
            text = "at {rate:.4g} the loss is {factor:.2g} times its lowest so far: this rate may be too large for long"
            return (Reason.of("unsteady", text, rate=best, factor=float(np.median(rises))),)
        return ()

    def _warnings(self, states: tuple[str, ...]) -> tuple[Reason, ...]:
        texts = {
            "diverged": "training diverged at {count} of {rates} rates, from {lowest:.4g} on",
            "dead": "the network died at {count} of {rates} rates, from {lowest:.4g} on: most gradients are zero",
            "stuck": "the loss stays at its start or above at {count} of {rates} rates, from {lowest:.4g} on",
            "collapsed": "training lost again what it had learned at {count} of {rates} rates, from {lowest:.4g} on",
        }
        return tuple(
            Reason.of(code, text, count=states.count(code), rates=len(states), lowest=self.rates[states.index(code)])
            for code, text in texts.items()
            if code in states and set(states) != {"dead"}  # which is the reason by itself
        )


def _noise(losses: Floats) -> float:
    """Standard deviation of the noise between batches, from successive differences without their median."""
    steps = np.diff(losses[np.isfinite(losses)])
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / math.sqrt(2)) if len(steps) else 0.0


def _lowest(losses: Floats) -> float:
    """Smallest running median, over an eighth of the steps."""
    width = max(3, len(losses) // 8)
    if len(losses) < width or not np.isfinite(losses).all():
        return math.inf
    return float(np.median(np.lib.stride_tricks.sliding_window_view(losses, width), axis=1).min())
