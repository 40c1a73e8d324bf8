"""Which learning rate to take, and where the edge of chaos is: common part of `find_edge` of torch and JAX.

A framework provides `Copies`: trainings from the same weights on the same batches, at any rate. The first answer is a
race between rates (`recorders.race`). The second comes from the growth of tangent vectors through the steps of each
training, one along the training itself and three along its float64 replica; an exponent is called converged where
vectors in different directions, and in both precisions, agree. Where the step of the optimiser has no derivative,
shadows of the float64 replica take their place: copies at two small distances that are trained alike and rescaled
after every step.

Most directions of the weights hardly matter, and neither grow nor shrink. A random vector lies in these: in tens of
steps it does not align with what grows, and all random vectors agree, because they average over the same directions.
So vectors start as products of the Hessian with random ones, which leaves out the directions without curvature, three
in a block; the combination that has grown most until the end of the alignment is followed from there (the leading
singular vector of the product of the Jacobians, as randomised methods find it: Halko, Martinsson and Tropp, SIAM Review
53, 217, 2011). Where everything with curvature shrinks, the other directions lead; a random vector sees that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from recorders.left_out import compare
from recorders.race import DIVERGED, GRID, RATIO, STALLED, Race, late, run_race
from recorders.shadows import random_direction
from trajtools.errors import DataError
from trajtools.reasons import Reason, codes
from trajtools.results import AxisNames, Result
from trajtools.types import Bools, Floats, Ints, RealArrayLike
from trajtools.wording import columns, counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trajtools.sweeps.onset import Onset

CURVED = 3  # blocks that start along the curvature: one along the training, the others along its float64 replica
VECTORS = CURVED + 1  # with a random vector along the replica
BLOCK = 3  # vectors of a block, until it is aligned
FIRST = 1  # step at which they start: the first update of Adam, g / |g|, is singular where the gradient is small
EPSILONS = (1e-7, 1e-8, 1e-8, 1e-8)  # distances of the float64 shadows, over the norm of the weights
EXPONENT_STEPS = 64
BURN = 0.375  # share of these steps for the alignment of the vectors
AGREE = 0.15  # relative difference of converged exponents
NATS = 0.15  # their difference over the whole window, where they are that small
FLOW = 2.0  # growth up to this multiple of what smaller rates show per unit of rate is that of gradient flow
FAR_BELOW = 10.0  # rates this factor below the recommended one have no exponents, unless the user chose the rates
VOTING = ("trains", "slow")  # states of trainings that count
ABOUT_EDGE = ("onset", "no-onset", "onset-not-stable", "gradient-flow", "exponents-not-measured")
SHOWN = (  # codes that the summary or the table of a result shows
    *ABOUT_EDGE, "smallest-loss", "smallest-that-arrives", "long-training", "left-out", "not-converged", "diverged",
    "dead", "stuck", "collapsed", "nothing-moved", "none-trains",
)  # fmt: skip
LEVEL = 0.95


class Copies(Protocol):
    """Trainings from the same weights on the same batches."""

    gradients: int
    exponents_from: str
    batches: CommonBatches

    def train(self, rate: float, seed: int, stop: int) -> Floats:
        """Continue the copy at this rate to `stop` steps; all its losses so far, each before its step."""
        ...

    def active(self, rate: float, seed: int) -> float:
        """Nonzero entries in the last gradient over those in the first."""
        ...

    def release(self, rate: float) -> None:
        """Free the copies at this rate."""
        ...

    def train_apart(
        self, rate: float, seed: int, batches: Sequence[Any], parts: Sequence[Any], at: Collection[int]
    ) -> tuple[Floats, Floats]:
        """Train a copy on other batches, see `recorders.left_out.Trainings`."""
        ...

    def grow(self, rate: float, seed: int, steps: int) -> tuple[Floats, Floats]:
        """Growth of vectors or shadows from `start`, nats per step, (steps, VECTORS), and the losses (steps,).

        Raises `ExponentsUnknown` where neither can be had.
        """
        ...


class ExponentsUnknown(Exception):
    """The training has neither a known derivative nor a float64 replica."""


@dataclass(frozen=True, eq=False, repr=False)
class Edge(Result):
    """Result of `find_edge`.

    Attributes
    ----------
    recommended : float
        Rate with the smallest training loss after `horizon` steps, or the smallest rate whose loss falls to a tenth
        within 20 steps; NaN if no rate lowers the loss.
    horizon : int
        Steps after which the rates were compared.
    recommended_long : float
        A more careful rate, for trainings that are much longer than `horizon`.
    doubts : tuple of Reason
        Why `recommended` is doubtful; empty if it is not.
    onset : float
        Rate at which sensitive dependence begins; NaN where no stable onset was found.
    onset_interval : (float, float)
        Its interval, in cells of the grid of rates.
    rates : ndarray of float64, shape (R,)
        Learning rates, in order.
    states : tuple of str
        State of the training at each rate: "trains", "slow" (its loss has hardly moved), "stuck" (likewise, above
        the best rate), "dead" (most of its gradient is zero), "collapsed" (it lost again what it had learned) or
        "diverged".
    losses : ndarray of float64, shape (R,)
        Median training loss over the last quarter of the steps of each rate, median over the seeds; inf where it
        diverged.
    left_out : ndarray of float64, shape (R,)
        Mean loss over the same steps on a quarter of the rows, of copies that trained on the others; NaN where not
        measured: it is for the fastest rate and those below it, once the steps come back to the same rows.
    steps : ndarray of int64, shape (R,)
        Steps of each rate. Losses at different numbers of steps are not comparable.
    exponents : ndarray of float64, shape (R,)
        Mean growth of tangent vectors in the weights, nats per step, after the first 3/8 of the steps in
        ``settings["exponent_steps"]``: of three blocks that start along the curvature, or of a random vector where
        that grows faster; NaN where not measured.
    intervals : ndarray of float64, shape (R, 2)
        95 % confidence intervals, from blocks of time; NaN where unknown.
    convergence : tuple of str
        How vectors in different directions and precisions agree on the exponent of each rate: "relative" (within 15 %,
        and the growth is at least 1 nat over the steps that count), "absolute" (within 0.15 nats over these steps,
        which is 0.00375 a step for 40 of them: for less growth no relative error can be known in so few steps), "no",
        or "" where it was not measured.
    seeds : tuple of int
        Seeds of the race.
    by_seed : tuple of float
        The best rate for each seed alone.
    reasons : tuple of Reason
        Reasons for both answers.
    warnings : tuple of Reason
        Caveats.
    gradients, exponent_gradients : int
        Gradient evaluations (one batch each) for the race, and for the exponents.
    curves : ndarray of float64, shape (T, R, S)
        Training loss before each step, per rate and seed; NaN after a rate was dropped.
    growth : ndarray of float64, shape (T, R, S, 4)
        Growth per step of the followed direction of each block, and of the random vector; NaN where not measured,
        and in the first step.
    settings : dict
        All parameters used.
    """

    recommended: float
    horizon: int
    recommended_long: float
    doubts: tuple[Reason, ...]
    onset: float
    onset_interval: tuple[float, float]
    rates: Floats
    states: tuple[str, ...]
    losses: Floats
    left_out: Floats
    steps: Ints
    exponents: Floats
    intervals: Floats
    convergence: tuple[str, ...]
    seeds: tuple[int, ...]
    by_seed: tuple[float, ...]
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...]
    gradients: int
    exponent_gradients: int
    curves: Floats
    growth: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    _dims: ClassVar[AxisNames] = {
        "losses": ("rates",),
        "left_out": ("rates",),
        "states": ("rates",),
        "steps": ("rates",),
        "exponents": ("rates",),
        "intervals": ("rates", "bound"),
        "convergence": ("rates",),
        "curves": ("step", "rates", "seeds"),
    }

    @property
    def doubtful(self) -> bool:
        """Whether there are doubts about the recommended rate."""
        return bool(self.doubts)

    @property
    def converged(self) -> Bools:
        """Whether the exponent of each rate is known, to a relative or to an absolute error, bool, shape (R,)."""
        return np.isin(self.convergence, ("relative", "absolute"))

    @property
    def found(self) -> bool:
        """Whether there is a stable onset."""
        return math.isfinite(self.onset)

    def _sentence(self) -> str:
        if math.isfinite(self.recommended):
            arrives = "smallest-that-arrives" in codes(self.reasons)
            why = "the smallest that takes the loss to a tenth in {}" if arrives else "the fastest over {}"
            lines = [f"recommended rate {self.recommended:.3g}, {why.format(counted(self.horizon, 'step'))}"]
            if self.recommended_long != self.recommended:
                lines[0] += f"; {self.recommended_long:.3g} for much longer trainings"
        else:
            lines = ["no rate can be recommended"]
        lines += [f"doubtful: {reason}" for reason in self.doubts] or ["no doubts about this rate"]
        lines += [str(reason) for reason in self.reasons if reason.code in ABOUT_EDGE]
        return "\n".join(lines)

    def _lines(self) -> Sequence[str]:
        head = ["rate", "state", "steps", "loss", "left-out loss", "exponent", "95% interval", ""]
        lines = columns(head, [self._cells(part) for part in self._alike()])
        if np.isfinite(self.exponents).any():
            steps = int(self.settings.get("exponent_steps", EXPONENT_STEPS))
            note = f"exponents: e-folds a step, after {steps - len(_burnt(self.growth))} of {steps} steps"
            lines.append(f"{note}; vectors agree within {AGREE:.0%} or {NATS / len(_burnt(self.growth)):.1g}")
        return lines

    def _alike(self) -> list[list[int]]:
        """Places of the rates that share a line: neighbours that were dropped at the same step in the same state."""
        groups: list[list[int]] = []
        before: tuple[Any, ...] = ()
        for i, rate in enumerate(self.rates):
            measured = np.isfinite([self.left_out[i], self.exponents[i]]).any()
            alone = measured or rate in (self.recommended, self.recommended_long)
            kind = (i,) if alone else (self.states[i], self.steps[i])
            if kind == before:
                groups[-1].append(i)
            else:
                groups.append([i])
            before = kind
        return groups

    def _cells(self, places: list[int]) -> list[str]:
        i, rates, losses = places[0], self.rates[places], np.sort(self.losses[places])
        row = [_span(rates), self.states[i], str(self.steps[i]), _span(losses), "", "", "", ""]
        if np.isfinite(self.left_out[i]):
            row[4] = f"{self.left_out[i]:.4g}"
        if np.isfinite(self.exponents[i]):
            low, high = self.intervals[i]
            row[5:7] = f"{self.exponents[i]:.3g}", f"[{low:.3g}, {high:.3g}]"
            row[6] += "" if self.converged[i] else " not converged"
        if rates[0] == self.recommended:
            row[7] = "recommended"
        elif rates[0] == self.recommended_long:
            row[7] = "for long trainings"
        return row

    def _remarks(self) -> tuple[str, ...]:
        """What neither the summary nor the table says."""
        return tuple(str(reason) for reason in (*self.reasons, *self.warnings) if reason.code not in SHOWN)

    def plot(self, ax: Sequence[Axes] | None = None) -> Figure:
        """Plot exponents and losses against the rate, with the onset and the recommendation.

        Parameters
        ----------
        ax : sequence of two matplotlib.axes.Axes, or None
            Upper and lower axes to draw in; None: a new figure.

        Returns
        -------
        matplotlib.figure.Figure
            The figure.
        """
        from trajtools import plots

        return plots.edge(self, ax=ax)


def _span(values: Floats) -> str:
    """Both ends of sorted values, or the only one."""
    ends = dict.fromkeys(f"{value:.4g}" for value in (values[0], values[-1]))
    return " to ".join(ends)


# -- input


def check_rates(rates: RealArrayLike | None) -> list[float] | None:
    """Return the learning rates of a range or sequence; None: the race chooses."""
    if rates is None:
        return None
    values = np.asarray(rates, dtype=np.float64).ravel()
    if not len(values) or not np.isfinite(values).all() or (values <= 0).any():
        raise DataError(f"rates={rates!r}: learning rates must be positive: pass (lowest, highest), or all of them")
    if len(values) == 2:
        low, high = values
        if low >= high:
            raise DataError(f"rates={rates!r}: a range needs its lower end first")
        cells = max(2, round(math.log(high / low) / math.log(RATIO)))
        return [float(rate) for rate in np.geomspace(low, high, cells + 1)]
    if len(values) < 3:
        raise DataError(f"rates={rates!r}: a race needs at least three rates, or a range (lowest, highest)")
    return [float(rate) for rate in np.unique(values)]


def check_seeds(seeds: int | Iterable[int]) -> tuple[int, ...]:
    """Return the seeds of a number or list of them."""
    if isinstance(seeds, int | np.integer) and not isinstance(seeds, bool) and seeds >= 1:
        return tuple(range(int(seeds)))
    numbers = () if isinstance(seeds, int | str) or not isinstance(seeds, Iterable) else tuple(seeds)
    if not numbers or any(isinstance(s, bool) or not isinstance(s, int | np.integer) or s < 0 for s in numbers):
        raise DataError(f"seeds={seeds!r}: pass their number, or a list of integers of at least 0")
    if len(set(numbers)) < len(numbers):
        raise DataError(f"seeds={seeds!r}: a seed occurs twice")
    return tuple(int(s) for s in numbers)


def check_steps(steps: int) -> int:
    """Raise for a race that is too short."""
    if isinstance(steps, bool) or int(steps) != steps or steps < 10:
        raise DataError(f"steps={steps!r}: it must be an integer of at least 10")
    return int(steps)


class CommonBatches:
    """The first batches of the data, the same for all rates; taken as they are needed, repeated if there are too few.

    Seed 0 has the order of the data, every other seed an order of its own.
    """

    def __init__(self, data: Iterable[Any], prepare: Callable[[Any], Any]) -> None:
        self._source: Iterator[Any] = iter(data)
        self._prepare = prepare
        self._batches: list[tuple[Any, ...]] = []
        self._ended = False

    def upto(self, n: int, seed: int) -> list[tuple[Any, ...]]:
        """Return the first n batches for a seed."""
        missing = n - len(self._batches)
        if missing > 0 and not self._ended:
            more = [self._prepare(_as_tuple(batch)) for batch in itertools.islice(self._source, missing)]
            self._ended = len(more) < missing
            self._batches += more
        if not self._batches:
            raise DataError("the data have no batch: pass a loader or a list of tuples, the arguments of one step each")
        return [self._batches[i] for i in self._order(n, seed)]

    def _order(self, n: int, seed: int) -> Iterator[int]:
        """Positions; a block of steps that was taken once is never drawn anew."""
        at, block = 0, 10
        while at < n:
            size = min(block, len(self._batches))
            places = np.arange(at, at + size)
            if seed:
                np.random.default_rng([seed, at]).shuffle(places)
            yield from (int(i) % len(self._batches) for i in places[: n - at])
            at += size


def _as_tuple(batch: Any) -> tuple[Any, ...]:
    return tuple(batch) if isinstance(batch, list | tuple) else (batch,)


# -- both answers


def search(
    copies: Copies,
    *,
    rates: list[float] | None,
    seeds: tuple[int, ...],
    steps: int,
    exponents: bool,
    progress: Callable[[int, int], None] | None,
    settings: Mapping[str, Any],
) -> Edge:
    """Race, measure exponents if requested, and judge."""
    done = _Progress(progress, copies, rates=len(rates or GRID), seeds=len(seeds), steps=steps, exponents=exponents)
    race = run_race(done.watch(copies.train), rates, seeds, steps, active=copies.active, release=copies.release)
    for rate in race.rates:
        copies.release(float(rate))
    batches = {seed: copies.batches.upto(race.horizon, seed) for seed in seeds}
    race = compare(race, copies, batches, done.report)
    cost = copies.gradients
    growth = np.full((min(steps, EXPONENT_STEPS), len(race.rates), len(seeds), VECTORS), np.nan)
    unknown: tuple[Reason, ...] = ()
    if exponents:
        losses = np.full(growth.shape[:3], np.nan)
        try:
            for i in _with_exponents(race, chosen=rates is not None):
                for s, seed in enumerate(seeds):
                    growth[:, i, s], losses[:, i, s] = copies.grow(float(race.rates[i]), seed, len(growth))
                    done.report()
                race = _looked_again(race, i, losses[:, i])
        except ExponentsUnknown as error:
            growth[:] = np.nan
            unknown = (Reason("exponents-not-measured", f"no exponents: {error}"),)
    done.finish()
    return judge(
        race, growth, seeds=seeds, gradients=cost, exponent_gradients=copies.gradients - cost, unknown=unknown,
        settings={
            "steps": steps, "exponents_from": copies.exponents_from if exponents else None,
            "exponent_steps": len(growth), "burn": BURN, **settings,
        },
    )  # fmt: skip


class _Progress:
    """Report gradients done and expected at most."""

    def __init__(
        self,
        progress: Callable[[int, int], None] | None,
        copies: Copies,
        *,
        rates: int,
        seeds: int,
        steps: int,
        exponents: bool,
    ) -> None:
        self._progress, self._copies = progress, copies
        race = rates * min(steps, 80) + max(0, steps - 80) * 4
        self._total = seeds * (race + exponents * 10 * min(steps, EXPONENT_STEPS) * 8)

    def watch(self, train: Callable[[float, int, int], Floats]) -> Callable[[float, int, int], Floats]:
        """Report after each call."""

        def watched(rate: float, seed: int, stop: int) -> Floats:
            losses = train(rate, seed, stop)
            self.report()
            return losses

        return watched

    def report(self) -> None:
        if self._progress is not None:
            self._total = max(self._total, self._copies.gradients + 1)
            self._progress(self._copies.gradients, self._total)

    def finish(self) -> None:
        if self._progress is not None:
            self._progress(self._copies.gradients, self._copies.gradients)


def _with_exponents(race: Race, *, chosen: bool) -> list[int]:
    """Rates whose exponents are of interest: those that train, and not far below the best; all that the user chose."""
    if chosen:
        return [i for i, state in enumerate(race.states) if state not in ("diverged", "dead")]
    stuck = [i for i, state in enumerate(race.states) if state == "stuck"]
    fine = sorted([i for i, state in enumerate(race.states) if state in VOTING] + stuck[:2])
    return [i for i in fine if race.winner < 0 or race.rates[i] * FAR_BELOW >= race.rates[race.winner] * (1 - 1e-6)]


def _looked_again(race: Race, i: int, losses: Floats) -> Race:
    """Correct the state of a rate from more steps than its race had, (T, S)."""
    level = race.level(float(np.median([late(column) for column in losses.T])))
    state, doubts = race.states[i], race.doubts
    if not level <= DIVERGED:
        state = "diverged"
        if i == race.winner:
            text = "at {rate:.4g} training diverges within {steps} steps"
            doubts = (*doubts, Reason.of("near-collapse", text, rate=race.rates[i], steps=len(losses)))
    elif state == "stuck" and level <= STALLED:
        state = "trains"
    return replace(race, states=(*race.states[:i], state, *race.states[i + 1 :]), doubts=doubts)


def judge(
    race: Race,
    growth: Floats,
    *,
    seeds: tuple[int, ...],
    gradients: int,
    exponent_gradients: int,
    unknown: tuple[Reason, ...] = (),
    settings: dict[str, Any],
) -> Edge:
    """Both answers from a race and the growth of vectors."""
    nowhere = (math.nan, math.nan)
    measured: Bools = np.asarray(np.isfinite(growth).any(axis=(0, 2, 3)), dtype=bool)
    leading = _leading(growth)
    values, intervals, convergence = _exponents(growth, leading)
    converged = np.isin(convergence, ("relative", "absolute"))
    onset, onset_interval, about_onset = math.nan, nowhere, unknown
    if measured.any():
        votes = converged & np.array([state in VOTING for state in race.states])
        onset, onset_interval, about_onset = _edge_of_chaos(race, leading, votes)
    recommended = float(race.rates[race.winner]) if race.winner >= 0 else math.nan
    relation = _relation(recommended, onset, onset_interval)
    warnings = race.warnings
    unknown_at = measured & ~converged
    if unknown_at.any():
        text = "{count} of {total} exponents are not converged: two directions, or float64, disagree"
        counts = {"count": int(unknown_at.sum()), "total": int(measured.sum())}
        warnings = (*warnings, Reason.of("not-converged", text, **counts))
    return Edge(
        recommended=recommended,
        horizon=race.horizon,
        recommended_long=float(race.rates[race.long]) if race.long >= 0 else math.nan,
        doubts=race.doubts,
        onset=onset,
        onset_interval=onset_interval,
        rates=race.rates,
        states=race.states,
        losses=race.scores,
        left_out=race.left_out,
        steps=race.steps,
        exponents=values,
        intervals=intervals,
        convergence=convergence,
        seeds=seeds,
        by_seed=race.by_seed,
        reasons=(*race.reasons, *about_onset, *relation),
        warnings=warnings,
        gradients=gradients,
        exponent_gradients=exponent_gradients,
        curves=race.curves,
        growth=growth,
        settings=settings,
    )


# -- exponents


def start(k: int, n_weights: int, curve: Callable[[Floats], Floats], size: int = 1) -> Floats:
    """First directions of vector or block k in the weights, (n_weights, size): random, times the Hessian but the last.

    ``curve(direction)`` is that product for the batch of the step, or a difference of gradients.
    """
    if k >= CURVED:
        return random_direction(n_weights, 0, "forward", k * BLOCK)[:, None]
    columns = []
    for j in range(min(size, n_weights)):
        direction = random_direction(n_weights, 0, "forward", k * BLOCK + j)
        curved = curve(direction)
        length = float(np.linalg.norm(curved))
        columns.append(curved / length if 0 < length < math.inf else direction)  # no curvature anywhere
    return np.stack(columns, axis=1)


class TangentVectors:
    """Blocks of tangent vectors of (weights, optimiser state) on the host, of which one direction each is followed.

    Parameters
    ----------
    n_state : int
        Numbers in weights and optimiser state.
    starts : list of ndarray of float64, shape (n_weights, size)
        Directions in the weights from which each block starts.
    burn : int
        Steps to align.
    """

    def __init__(self, n_state: int, starts: Sequence[Floats], burn: int) -> None:
        self._blocks = [_Block(n_state, directions) for directions in starts]
        self._left = burn

    @property
    def columns(self) -> Floats:
        """All vectors, shape (n_state, m)."""
        return np.hstack([block.columns for block in self._blocks])

    def advance(self, images: Floats) -> Floats:
        """Replace the vectors by their images; return the growth of each block in the weights, NaN once it is lost."""
        cuts = np.cumsum([block.columns.shape[1] for block in self._blocks])[:-1]
        pairs = zip(self._blocks, np.split(images, cuts, axis=1), strict=True)
        growth = np.array([block.advance(part) for block, part in pairs])
        self._left -= 1
        if self._left == 0:
            for block in self._blocks:
                block.align()
        return growth


class _Block:
    """Orthonormal vectors, and after `align` the one direction of them that had grown most."""

    def __init__(self, n_state: int, directions: Floats) -> None:
        self._n, size = directions.shape
        columns = np.zeros((n_state, size))
        columns[: self._n] = directions
        self.columns: Floats = np.linalg.qr(columns)[0]
        self._product = np.eye(size)
        self._is_lost = False

    def advance(self, images: Floats) -> float:
        """Replace the vectors by their images; return the growth of the first one in the weights."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.linalg.norm(self.columns[: self._n, 0])
            self.columns, triangle = np.linalg.qr(images)
            product = triangle @ self._product
            self._product = product / np.abs(product).max()  # only its directions matter
            length = abs(float(triangle[0, 0])) / share
            growth = float(np.log(length * np.linalg.norm(self.columns[: self._n, 0])))
        self._is_lost = self._is_lost or not np.isfinite(images).all() or not math.isfinite(growth)
        return math.nan if self._is_lost else growth

    def align(self) -> None:
        """Keep the direction that has grown most."""
        if not self._is_lost:
            self.columns = self.columns @ np.linalg.svd(self._product)[0][:, :1]
            self._product = np.eye(1)


def burn_of(steps: int) -> int:
    """Steps in which vectors align, and which do not count."""
    return math.ceil(BURN * steps)


def _burnt(growth: Floats) -> Floats:
    return growth[burn_of(len(growth)) :]


def _leading(growth: Floats) -> Floats:
    """Growth (T, R, S, CURVED) of the vectors that lead at each rate: those along the curvature, or the random one."""
    along, random = growth[..., :CURVED], growth[..., CURVED:]
    means = [np.nan_to_num(_burnt(part).mean(axis=(0, 2, 3)), nan=-np.inf) for part in (along, random)]
    return np.where((means[1] > means[0])[None, :, None, None], np.broadcast_to(random, along.shape), along)


def _exponents(growth: Floats, leading: Floats) -> tuple[Floats, Floats, tuple[str, ...]]:
    """Exponent, interval, and how it is converged, at every rate."""
    n = growth.shape[1]
    values, intervals, convergence = np.full(n, np.nan), np.full((n, 2), np.nan), [""] * n
    part = _burnt(leading)
    for i in np.flatnonzero(np.isfinite(_burnt(growth)).all(axis=(0, 2, 3))):  # else the replica diverged
        values[i], intervals[i] = float(part[:, i].mean()), _interval(part[:, i])
        convergence[i] = _agreement(_burnt(growth)[:, i].mean(axis=0), len(part))
    return values, intervals, tuple(convergence)


def _agreement(means: Floats, steps: int) -> str:
    """How vectors agree whose mean growths are (S, VECTORS): "relative", "absolute" or "no"."""
    compared = means[:, :CURVED]
    if means[:, CURVED:].mean() > compared.mean():
        if np.abs(means[:, CURVED:]).max() * steps <= NATS:
            return "absolute"  # what has curvature shrinks, what has none leads
        compared = means
    apart, size = np.ptp(compared, axis=1), np.abs(compared).max(axis=1)
    if not (apart <= np.maximum(AGREE * size, NATS / steps)).all():
        return "no"
    return "relative" if (size * steps >= NATS / AGREE).all() else "absolute"


def _interval(growth: Floats) -> Floats:
    """Interval of the mean growth at one rate, from (T, S, K): the hull over shadows."""
    from trajtools.sweeps.sweep import mean_growth

    rng = np.random.default_rng(0)
    hulls = [mean_growth(growth[:, :, k], rng, LEVEL)[1] for k in range(growth.shape[2])]
    return np.array([min(low for low, _ in hulls), max(high for _, high in hulls)])


def _edge_of_chaos(race: Race, growth: Floats, votes: Bools) -> tuple[float, tuple[float, float], tuple[Reason, ...]]:
    """Onset of sensitive dependence, where every half, seed and epsilon shows it."""
    nowhere, part = (math.nan, math.nan), _burnt(growth)
    if votes.sum() < 2:
        text = "no edge of chaos found: that needs converged exponents at two rates that train, and there are {count}"
        return math.nan, nowhere, (Reason.of("no-onset", text, count=int(votes.sum())),)
    rates, part = race.rates[votes], part[:, votes]
    main = _onset(rates, part)
    if not main.found:
        why = main.reasons[-1]
        if why.code == "onset-above-range" and rates[-1] < race.rates[-1]:
            return math.nan, nowhere, (_no_onset_up_to(race, float(rates[-1])),)
        return math.nan, nowhere, (Reason("no-onset", f"no edge of chaos found: {why}", why.numbers),)
    flow = _flow(rates, part, main)
    if flow is not None:
        return math.nan, nowhere, (flow,)
    half = len(part) // 2
    variants = {"the half of the run": [part[:half], part[half:]]}
    variants["epsilon"] = [part[..., k : k + 1] for k in range(part.shape[3])]
    variants["the seed"] = [part[:, :, s : s + 1] for s in range(part.shape[2])]
    for name, parts in variants.items():
        places = [_onset(rates, one, main.above) for one in parts]
        limit = RATIO * (1 + 1e-6)
        if any(not p.found or not 1 / limit <= p.value / main.value <= limit for p in places):
            text = "no stable edge of chaos: it depends on {name}"
            return math.nan, nowhere, (Reason.of("onset-not-stable", text, name=name),)
    low, high = main.interval
    text = "edge of chaos: sensitive dependence begins at {onset:.4g} [{low:.4g}, {high:.4g}]: {why}"
    reason = Reason.of("onset", text, onset=main.value, low=low, high=high, why=main.reasons[0])
    return main.value, main.interval, (reason,)


def _no_onset_up_to(race: Race, highest: float) -> Reason:
    """Say why larger rates show no onset: those that train have no converged exponent, the others do not vote."""
    beyond = [(rate, state) for rate, state in zip(race.rates, race.states, strict=True) if rate > highest]
    text = "no edge of chaos up to {highest:.4g}"
    trained = [rate for rate, state in beyond if state in VOTING]
    if trained:
        text += "; the exponents at {first:.4g} to {last:.4g} are not converged, so there it is unknown"
    fates = {"diverged": "training diverges", "dead": "the network dies", "collapsed": "training collapses",
             "stuck": "the loss stays at its start"}  # fmt: skip
    failed = [(rate, fates[state]) for rate, state in beyond if state in fates]
    if failed:
        text += "; from {lowest:.4g} on {fate}, which is not chaos"
    elif not trained:
        text += ", the largest rate that trains"
    ends = {"first": trained[0], "last": trained[-1]} if trained else {}
    lowest, fate = failed[0] if failed else (math.nan, "")
    return Reason.of("no-onset", text, highest=highest, **ends, **({"lowest": lowest, "fate": fate} if failed else {}))


def _onset(rates: Floats, growth: Floats, above: float | str = "auto") -> Onset:
    """Onset from the growth (T, R, S, K) at some rates."""
    from trajtools.sweeps.onset import Curve, onset_of

    values = growth.mean(axis=(0, 2, 3))
    intervals = np.array([_interval(growth[:, i]) for i in range(len(rates))])
    errors = (intervals[:, 1] - intervals[:, 0]) / 2 / 1.96
    lowest = np.where(np.isfinite(intervals[:, 0]), intervals[:, 0], values)
    verdicts = tuple("transient" if low > 1.0 / len(growth) else "regular" for low in lowest)
    curve = Curve(rates, values, errors, np.full(len(rates), float(len(growth))), verdicts)
    return onset_of(curve, above=above, level=LEVEL, rng=np.random.default_rng(0))


def _flow(rates: Floats, growth: Floats, onset: Onset) -> Reason | None:
    """Growth in proportion to the rate is that of gradient flow, which leaves a plateau or a saddle at any rate."""
    below, above = rates < onset.value, rates >= onset.value
    blocks = np.array_split(growth.mean(axis=(2, 3)), 4)
    per_rate = max(float((block.mean(axis=0)[below] / rates[below]).max()) for block in blocks)
    first = int(np.flatnonzero(above)[0])
    value = float(growth[:, first].mean())
    if value > FLOW * per_rate * rates[first]:
        return None
    text = (
        "no edge of chaos found: the growth at {rate:.4g} ({value:.3g} a step) is no more than in proportion to that "
        "at smaller rates, as of gradient flow that leaves a plateau"
    )
    return Reason.of("gradient-flow", text, rate=rates[first], value=value)


def _relation(recommended: float, onset: float, interval: tuple[float, float]) -> tuple[Reason, ...]:
    if not math.isfinite(onset) or not math.isfinite(recommended):
        return ()
    low, high = interval
    ratio = recommended / onset
    if recommended < low:
        text = "training is fastest below the onset, at {ratio:.2g} times it: chaos is not the cause of the speed"
        return (Reason.of("fastest-below-onset", text, ratio=ratio),)
    if recommended > high * (1 + 1e-12):
        text = "training is fastest beyond the onset, at {ratio:.2g} times it: sensitive dependence does not hinder it"
        return (Reason.of("fastest-beyond-onset", text, ratio=ratio),)
    text = "training is fastest at the onset ({ratio:.2g} times it, between {low:.4g} and {high:.4g})"
    return (Reason.of("fastest-at-onset", text, ratio=ratio, low=low, high=high),)
