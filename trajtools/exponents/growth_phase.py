"""The growth phase of twins, between two first passages, and its converse, the decay of contracting twins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from trajtools.statistics import SATURATION_MARGIN, Ratio, average_curves, usable
from trajtools.types import Bools, Floats, Ints

if TYPE_CHECKING:
    from trajtools.exponents.divergence import Divergence

ONSET = 2.0  # e-folds above the start, at least, from which growth counts
SHARES = (0.25, 0.35, 0.45, 0.55, 0.65)  # of the way from the start to the upper level: candidates for the onset level
EARLY = 0.3  # of the way from the onset to the upper level: the part compared with the rest
FEWEST_EFOLDS = 3.0  # between the onset and the upper level
FEW = 0.1  # of the cells of a start, at least, that grow
STALLED = 3.0  # median durations after which a curve that has not reached the upper level is censored
LAST_PART = 0.1  # of a curve, whose mean is its plateau
PEAK_PART = 0.02  # of a curve, whose mean is its peak
RETURNED = 3.0  # e-folds below its peak: a curve that ends lower has come down again
LEAST_DECAY = 2.0  # e-folds between the two levels of a decay
EARLY_DECAY = 0.4  # of the way down: the part compared with the rest
BEND = 0.05  # largest relative difference between the early and the late rate of a decay
STILL_GROWING = 0.3  # of the mean rate: a curve whose last part is steeper has not saturated
FEWEST_UNITS = 5  # independent units for an interval from their scatter; else from blocks of time
BLOCKS = 8  # of time, at least, over all units
FEWEST_BLOCKS = 4


@dataclass(frozen=True, eq=False)
class Cells:
    """Curves of initial conditions and starts: the mean over copies of ln d, from the first point above the floor.

    Attributes
    ----------
    time : ndarray of float64, shape (K + 1,)
        Time since the perturbation.
    values : ndarray of float64, shape (C, K + 1)
        Mean over the copies; its increments are means over the copies that are left.
    group, start, size : ndarray of int64, shape (C,)
        Initial condition, step of the perturbation, and class of its size.
    begin, end : ndarray of int64, shape (C,)
        First and last usable point; ``end < begin`` without one.
    at_floor : int
        Points of curves at or below the rounding floor.
    """

    time: Floats
    values: Floats
    group: Ints
    start: Ints
    size: Ints
    begin: Ints
    end: Ints
    at_floor: int

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Ints | Bools) -> Cells:
        return Cells(
            self.time,
            self.values[rows],
            self.group[rows],
            self.start[rows],
            self.size[rows],
            self.begin[rows],
            self.end[rows],
            self.at_floor,
        )

    @property
    def known(self) -> Ints:
        """Cells with at least two usable points."""
        return np.flatnonzero(self.end > self.begin)

    @property
    def planting(self) -> Ints:
        """Number of the planting of each cell: copies of several sizes that were planted together share it."""
        pairs = np.stack([self.group, self.start], axis=1)
        return np.unique(pairs, axis=0, return_inverse=True)[1].ravel().astype(np.int64)

    def way(self, upper: float) -> Floats:
        """How far each cell has to go to a level, relative to the others: 1 where all sizes are alike."""
        if len(np.unique(self.size)) < 2:
            return np.ones(len(self))
        far = upper - self.at(self.begin)
        own = np.array([np.nanmedian(far[self.size == size]) for size in self.size])
        return np.asarray(own / np.nanmedian(far))

    def at(self, point: Ints) -> Floats:
        """Value of each cell at a point of its own, (C,)."""
        return np.asarray(self.values[np.arange(len(self)), np.maximum(point, 0)])

    def passage(self, level: Floats, upward: bool = True) -> Ints:
        """First point of each cell at or beyond a level of its own; K + 1 where there is none."""
        index = np.arange(self.values.shape[1])
        inside = (index >= self.begin[:, None]) & (index <= self.end[:, None])
        with np.errstate(invalid="ignore"):
            beyond = self.values >= level[:, None] if upward else self.values <= level[:, None]
        beyond &= inside
        return np.where(beyond.any(axis=1), beyond.argmax(axis=1), self.values.shape[1]).astype(np.int64)

    def plateau(self) -> tuple[Floats, Bools]:
        """Level that each cell reaches, (C,), and whether it stopped growing there.

        The level is the mean of the last part, or, of cells that came down again, of the highest part.
        """
        last, before = self._mean_between(1 - LAST_PART, 1.0), self._mean_between(1 - 2 * LAST_PART, 1 - LAST_PART)
        length = self.time[np.maximum(self.end, 0)] - self.time[self.begin]
        with np.errstate(invalid="ignore", divide="ignore"):
            slope, mean = (last - before) / (LAST_PART * length), (last - self.at(self.begin)) / length
            saturated = np.asarray(~(slope > STILL_GROWING * mean))
        peak = self._peak()
        with np.errstate(invalid="ignore"):
            returned = peak > last + RETURNED
        return np.where(returned, peak, last), saturated | returned

    def _peak(self) -> Floats:
        """Largest running mean of each cell, (C,)."""
        out = np.full(len(self), np.nan)
        for row in self.known:
            part = self.values[row, self.begin[row] : self.end[row] + 1]
            width = min(max(3, round(PEAK_PART * len(part))), len(part))
            sums = np.cumsum(np.concatenate([[0.0], part]))
            out[row] = float(np.max(sums[width:] - sums[:-width])) / width
        return out

    def _mean_between(self, low: float, high: float) -> Floats:
        out = np.full(len(self), np.nan)
        for row in self.known:
            a, n = int(self.begin[row]), int(self.end[row] - self.begin[row])
            first, last = a + round(low * n), a + max(round(high * n), round(low * n) + 1)
            out[row] = self.values[row, first : last + 1].mean()
        return out


def make_cells(growth: Divergence) -> Cells:
    """Average the copies of each initial condition, start and size."""
    floor = np.broadcast_to(growth.floor, growth.distances.shape)
    parts, at_floor = [], 0
    for size in np.unique(growth.size):
        units = np.flatnonzero(growth.size == size)
        of = growth.group[units], growth.start[units], growth.average
        curves, group, start = average_curves(growth.distances[units], *of)
        begin, end, below = usable(curves, average_curves(floor[units], *of)[0])
        at_floor += below
        labels, cell = np.unique(np.stack([group, start], axis=1), axis=0, return_inverse=True)
        values = np.full((len(labels), curves.shape[1]), np.nan)
        first, last = np.zeros(len(labels), np.int64), np.full(len(labels), -1)
        for row in range(len(labels)):
            copies = np.flatnonzero((cell.ravel() == row) & (end > begin))
            if len(copies):
                first[row], last[row] = int(begin[copies].min()), int(end[copies].max())
                values[row] = _mean_of_copies(curves[copies], begin[copies], end[copies])
        parts.append((values, labels[:, 0], labels[:, 1], np.full(len(labels), size), first, last))
    values, group, start, size, begin, end = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Cells(growth.time, values, group, start, size, begin, end, at_floor)[np.lexsort((size, start, group))]


def _mean_of_copies(curves: Floats, begin: Ints, end: Ints) -> Floats:
    """Sum of the mean increments of the copies that are left: a copy that ends does not move the level."""
    index = np.arange(curves.shape[1])
    inside = (index >= begin[:, None]) & (index <= end[:, None])
    first = int(begin.min())
    both = inside[:, 1:] & inside[:, :-1]
    steps = np.where(both, np.diff(np.where(inside, curves, 0.0), axis=1), 0.0)
    count = both.sum(axis=0)
    mean = steps.sum(axis=0) / np.maximum(count, 1)
    out = np.full(curves.shape[1], np.nan)
    last = int(end.max())
    out[first] = curves[inside[:, first], first].mean()
    out[first + 1 : last + 1] = out[first] + np.cumsum(mean[first:last])
    return out


@dataclass(frozen=True, eq=False)
class Window:
    """The growth phase of each cell, from its onset level to the upper level.

    Attributes
    ----------
    first, last : ndarray of int64, shape (C,)
        First and last point; ``last <= first`` for cells without a growth phase.
    onset : ndarray of float64, shape (C,)
        Onset level.
    upper : float
        Upper level, common to all cells: `SATURATION_MARGIN` below saturation, or the end of the record without it.
    saturation : float
        Median plateau of the cells that saturate; infinite without saturation.
    growers, reached : ndarray of bool, shape (C,)
        Cells that grow by enough in all, and cells that reach the upper level.
    share : float
        Part of the way from the start to the upper level at which the onset level lies.
    settled : bool
        Whether the rate is constant from that onset level on.
    """

    first: Ints
    last: Ints
    onset: Floats
    upper: float
    saturation: float
    growers: Bools
    reached: Bools
    share: float
    settled: bool


def find_window(cells: Cells) -> Window | None:
    """Choose the growth phase; None if too few cells grow, or if there is too little room between the two levels."""
    start = cells.at(cells.begin)
    plateau, saturated = cells.plateau()
    with np.errstate(invalid="ignore"):
        rise = plateau - start
        growers = rise > np.where(saturated, ONSET + SATURATION_MARGIN + 1.0, ONSET + FEWEST_EFOLDS)
    if not _enough(growers, cells):
        return None
    bounded = growers & saturated
    if bounded.sum() >= FEW * growers.sum():
        saturation = float(np.median(plateau[bounded]))
        upper = saturation - SATURATION_MARGIN
    else:
        saturation, upper = float("inf"), float(np.median(plateau[growers]))
    chosen = None
    for share in SHARES:
        onset = start + np.maximum(ONSET, share * (upper - start))
        if np.median(upper - onset[growers]) < FEWEST_EFOLDS:
            break
        chosen = _between(cells, onset, upper, saturation=saturation, growers=growers, share=share)
        if chosen is None or chosen.settled:
            break
    return chosen


def _enough(growers: Bools, cells: Cells) -> bool:
    """Whether the cells of some start grow: three of them, or all of fewer, and at least a tenth."""
    for step in np.unique(cells.start[cells.known]):
        together = growers[cells.known][cells.start[cells.known] == step]
        if together.sum() >= max(min(3, len(together)), FEW * len(together)):
            return True
    return False


def _between(
    cells: Cells, onset: Floats, upper: float, *, saturation: float, growers: Bools, share: float
) -> Window | None:
    """The phase between two levels, with a test of whether its first part grows more slowly than the rest."""
    time = cells.time
    sigma = cells.passage(onset)
    tau = cells.passage(np.full(len(cells), upper))
    started = sigma <= cells.end
    reached = tau <= cells.end
    if not (started & growers).any():
        return None
    first = np.where(started, sigma, 0)
    last = np.where(started, cells.end, 0)
    if np.isfinite(saturation):
        last = np.where(reached & started, tau, last)
        both = reached & started & (tau > sigma)
        if both.any():
            longest = STALLED * float(np.median(time[tau[both]] - time[sigma[both]])) * cells.way(upper)
            until = np.searchsorted(time, time[first] + longest, side="right") - 1
            last = np.where(started, np.minimum(last, np.maximum(until, first)), 0)
    middle = cells.passage(onset + EARLY * (upper - onset))
    middle = np.where(started, np.clip(middle, first, last), first)
    early, late = ratio_of_sums(cells, first, middle), ratio_of_sums(cells, middle, last)
    slower = early.value < late.value - 2 * float(np.hypot(early.error, late.error))
    return Window(first, last, onset, upper, saturation, growers, reached & started, share, not slower)


def ratio_of_sums(cells: Cells, first: Ints, last: Ints, level: float = 0.95) -> Ratio:
    """Gain over time, with its error from initial conditions, else starts, else blocks of time; see `clusters`."""
    gain, duration, unit, _ = pieces(cells, first, last)
    return _ratio(gain, duration, unit, level)


def _ratio(gain: Floats, duration: Floats, unit: Ints, level: float) -> Ratio:
    total = float(duration.sum())
    nan = float("nan")
    if total <= 0:
        return Ratio(nan, nan, (nan, nan), nan, 0)
    value = float(gain.sum()) / total
    labels, of = np.unique(unit, return_inverse=True)
    n = len(labels)
    if n < FEWEST_BLOCKS:
        return Ratio(value, nan, (nan, nan), nan, n)
    pull = np.bincount(of, gain - value * duration)
    error = float(np.sqrt(n / (n - 1) * np.sum(pull**2))) / total
    from scipy.special import stdtr, stdtrit  # Student's t without scipy.stats, which takes a second to import

    half = float(stdtrit(n - 1, 0.5 + level / 2)) * error
    scale = max(error, 1e-12 * abs(value), 1e-300)
    return Ratio(value, error, (value - half, value + half), float(stdtr(n - 1, -value / scale)), n)


def pieces(cells: Cells, first: Ints, last: Ints) -> tuple[Floats, Floats, Ints, str]:
    """Gain, duration and independent unit of each piece of the phases, and the name of the unit."""
    rows = np.flatnonzero(last > first)
    a, b, planting = first[rows], last[rows], cells.planting[rows]
    if len(np.unique(cells.group[rows])) >= FEWEST_UNITS:
        unit, name = cells.group[rows], "initial conditions"
    elif len(np.unique(planting)) >= FEWEST_UNITS:
        unit, name = planting, "starts"
    else:
        # Copies of several sizes that were planted together are cut at the same times, and share their units.
        plantings, of = np.unique(planting, return_inverse=True)
        count = -(-BLOCKS // max(len(plantings), 1))
        low = np.array([a[of == k].min() for k in range(len(plantings))], np.int64)[of]
        high = np.array([b[of == k].max() for k in range(len(plantings))], np.int64)[of]
        edges = np.round(low[:, None] + (high - low)[:, None] * np.arange(count + 1) / count).astype(np.int64)
        edges = np.clip(edges, a[:, None], b[:, None])
        unit = (of[:, None] * count + np.arange(count)).ravel()
        a, b, rows = edges[:, :-1].ravel(), edges[:, 1:].ravel(), np.repeat(rows, count)
        a, b, rows, unit, name = a[b > a], b[b > a], rows[b > a], unit[b > a], "blocks of time"
    gain = cells.values[rows, b] - cells.values[rows, a]
    return gain, cells.time[b] - cells.time[a], unit, name


@dataclass(frozen=True, eq=False)
class Shape:
    """Comparison of a growth phase with a power of the time since the perturbation.

    Attributes
    ----------
    statistic : float
        Logarithm of the time spent in the upper over that in the lower half of the range of ln d: 0 for an exponential.
    power_law : float
        Its value for a power law.
    error : float
        Standard error of the statistic; NaN where unknown.
    p_power_law, p_exponential : float
        One-sided p-values: of the power law, against an exponential, and the converse; NaN where unknown.
    """

    statistic: float
    power_law: float
    error: float
    p_power_law: float
    p_exponential: float


def compare_shapes(cells: Cells, window: Window) -> Shape:
    """Compare the times in both halves of the range of ln d with those of a power law."""
    start = cells.at(cells.begin)
    low, high = start + ONSET, np.full(len(cells), window.upper)
    phase = _between(cells, low, window.upper, saturation=window.saturation, growers=window.growers, share=0.0)
    nan = float("nan")
    if phase is None:
        return Shape(nan, nan, nan, nan, nan)
    first, last, time = phase.first, phase.last, cells.time
    middle = cells.passage((low + high) / 2)
    middle = np.clip(np.where(middle > cells.end, last, middle), first, np.maximum(last, first))
    fitted = last > first
    lower, upper = np.where(fitted, time[middle] - time[first], 0.0), np.where(fitted, time[last] - time[middle], 0.0)
    # A power law since the perturbation passes equal factors of d in times that grow as the time itself.
    until, since = float(time[last[fitted]].sum()), float(time[first[fitted]].sum())
    if min(lower.sum(), upper.sum(), until, since) <= 0:
        return Shape(nan, nan, nan, nan, nan)
    statistic, expected = float(np.log(upper.sum() / lower.sum())), float(np.log(until / since)) / 2
    error, freedom = _shape_error(cells, phase, lower, upper)
    if not np.isfinite(error):
        return Shape(statistic, expected, nan, nan, nan)
    from scipy.special import stdtr

    scale = max(error, 1e-12)
    return Shape(
        statistic,
        expected,
        error,
        float(stdtr(freedom, (statistic - expected) / scale)),
        float(stdtr(freedom, -statistic / scale)),
    )


def _shape_error(cells: Cells, phase: Window, lower: Floats, upper: Floats) -> tuple[float, int]:
    """Error of the statistic and its degrees of freedom, from units, or from the scatter of blocks of time."""
    fitted = phase.last > phase.first
    gain, duration, _, name = pieces(cells, phase.first, phase.last)
    if name != "blocks of time":
        labels = cells.group if name == "initial conditions" else cells.planting
        pull = upper / upper.sum() - lower / lower.sum()
        _, of = np.unique(labels[fitted], return_inverse=True)
        total = np.bincount(of, pull[fitted])
        n = len(total)
        return float(np.sqrt(n / (n - 1) * np.sum(total**2))), n - 1
    if len(gain) < FEWEST_BLOCKS:
        return float("nan"), 0
    value = gain.sum() / duration.sum()
    variance = float(np.sum((gain - value * duration) ** 2 / duration)) / (len(gain) - 1)  # of ln d, per time
    # The time T over which ln d rises by a fixed amount has the relative variance v / (rate^2 T).
    return float(np.sqrt(variance / value**2 * (1 / lower.sum() + 1 / upper.sum()))), len(gain) - 1


@dataclass(frozen=True, eq=False)
class Comparison:
    """Rates of two sizes of the perturbation, over the same times of the same trainings.

    Attributes
    ----------
    first : (float, float)
        Median first distance of each size, the smaller one first.
    rates : (float, float)
        Rate of each.
    difference : Ratio
        Of the rates, the larger size less the smaller, with an interval at the level of the comparison.
    """

    first: tuple[float, float]
    rates: tuple[float, float]
    difference: Ratio


def compare_sizes(cells: Cells, window: Window, per_step: float, level: float) -> tuple[Comparison, ...]:
    """Compare each size of the perturbation with the next larger one, wherever both grow at the same time."""
    found = []
    for small, large in pairwise(np.unique(cells.size)):
        rows = []
        for i in np.flatnonzero((cells.size == small) & (window.last > window.first)):
            for j in np.flatnonzero((cells.size == large) & (window.last > window.first)):
                if cells.group[i] == cells.group[j]:
                    rows += _at_equal_times(cells, window, per_step, (int(i), int(j)))
        if not rows:
            continue
        gain, other, duration, group, begin = np.array(rows).T
        unit = group
        if len(np.unique(group)) < FEWEST_UNITS:
            unit = np.unique(np.stack([group, _blocks(group, begin)], axis=1), axis=0, return_inverse=True)[1].ravel()
        first = [np.exp(np.nanmedian(cells.at(cells.begin)[cells.size == size])) for size in (small, large)]
        rates = float(gain.sum() / duration.sum()), float(other.sum() / duration.sum())
        difference = _ratio(other - gain, duration, unit, level)
        found.append(Comparison((float(first[0]), float(first[1])), rates, difference))
    return tuple(found)


def _at_equal_times(cells: Cells, window: Window, per_step: float, pair: tuple[int, int]) -> list[tuple[float, ...]]:
    """Gains of two cells of one training step by step while both grow: gain, other gain, time, group, begin."""
    offset = [cells.start[row] * per_step for row in pair]
    begin = max(offset[k] + cells.time[window.first[row]] for k, row in enumerate(pair))
    end = min(offset[k] + cells.time[window.last[row]] for k, row in enumerate(pair))
    clock = offset[0] + cells.time
    clock = clock[(clock >= begin) & (clock <= end)]
    if len(clock) < 2:
        return []
    gains = [
        np.diff(np.interp(clock - offset[k], cells.time, np.nan_to_num(cells.values[row])))
        for k, row in enumerate(pair)
    ]
    group = np.full(len(clock) - 1, float(cells.group[pair[0]]))
    return list(zip(*gains, np.diff(clock), group, clock[:-1], strict=True))


def _blocks(group: Floats, begin: Floats) -> Ints:
    """Cut the times of each group into blocks of equal length, `BLOCKS` over all groups at least."""
    count = -(-BLOCKS // len(np.unique(group)))
    out = np.zeros(len(group), dtype=np.int64)
    for label in np.unique(group):
        rows = group == label
        low, high = begin[rows].min(), begin[rows].max()
        out[rows] = np.minimum((begin[rows] - low) / max(high - low, 1e-300) * count, count - 1).astype(np.int64)
    return out


@dataclass(frozen=True, eq=False)
class Decay:
    """The decay of contracting twins.

    Attributes
    ----------
    cells : Cells
        Curves in which a copy that has merged counts as one e-fold below the floor.
    first, last : ndarray of int64, shape (C,)
        Passages of the upper and of the lower level.
    floor : float
        Level, natural logarithm, that the decay ends at; minus infinity without one.
    ratio : Ratio
        The rate.
    shape : float
        Logarithm of the time spent in the lower over that in the upper half of the range: 0 for an exponential.
    """

    cells: Cells
    first: Ints
    last: Ints
    floor: float
    ratio: Ratio
    shape: float


def find_decay(growth: Divergence, level: float) -> Decay | None:
    """Measure the rate of contraction down to the floor that the curves themselves show; None if they do not shrink."""
    merged, floor = _with_floor(growth)
    cells = make_cells(merged)
    cells = cells[cells.known]
    if not len(cells):
        return None
    start, final = cells.at(cells.begin), cells.at(cells.end)
    bottom = floor + SATURATION_MARGIN if np.isfinite(floor) else float(np.max(final))
    chosen = None
    for share in SHARES:
        top = start - share * (start - bottom)
        if not np.median(top - bottom) >= LEAST_DECAY:
            break
        first, last = _decay_between(cells, top, bottom)
        chosen = first, last
        middle = cells.passage(top - EARLY_DECAY * (top - bottom), upward=False)
        middle = np.clip(np.where(middle > cells.end, last, middle), first, np.maximum(last, first))
        early, late = ratio_of_sums(cells, first, middle), ratio_of_sums(cells, middle, last)
        # A mixture of rates bends smoothly, which blocks of time take for scatter: the size of the bend decides.
        if not early.value < late.value - BEND * abs(late.value):
            break
    if chosen is None or not (chosen[1] > chosen[0]).any():
        return None
    first, last = chosen
    half = cells.passage((cells.at(first) + cells.at(last)) / 2, upward=False)
    half = np.clip(half, first, np.maximum(last, first))
    ratio = _decay_ratio(cells, (first, half, last), level)
    upper, lower = (
        float((cells.time[half] - cells.time[first]).sum()),
        float((cells.time[last] - cells.time[half]).sum()),
    )
    shape = float(np.log(lower / upper)) if min(lower, upper) > 0 else float("nan")
    return Decay(cells, first, last, floor, ratio, shape)


def _decay_between(cells: Cells, top: Floats, bottom: float) -> tuple[Ints, Ints]:
    time = cells.time
    sigma, tau = cells.passage(top, upward=False), cells.passage(np.full(len(cells), bottom), upward=False)
    started, reached = sigma <= cells.end, tau <= cells.end
    first = np.where(started, sigma, 0)
    last = np.where(started, np.where(reached, tau, cells.end), 0)
    both = started & reached & (tau > sigma)
    if both.any():
        longest = STALLED * float(np.median(time[tau[both]] - time[sigma[both]]))
        until = np.searchsorted(time, time[first] + longest, side="right") - 1
        last = np.where(started, np.minimum(last, np.maximum(until, first)), 0)
    return first, last


def _decay_ratio(cells: Cells, passages: tuple[Ints, Ints, Ints], level: float) -> Ratio:
    """Rate with an error that covers a rate that still changes, and the resolution of the steps.

    The difference between the second half and the whole counts twice: a mixture of rates converges geometrically.
    """
    first, half, last = passages
    ratio = ratio_of_sums(cells, first, last, level)
    tail = ratio_of_sums(cells, half, last, level)
    fitted = last > first
    steps = float(np.median((last - first)[fitted])) * float(np.sqrt(fitted.sum()))
    error = ratio.error if np.isfinite(ratio.error) else 0.0
    drift = 2 * abs(tail.value - ratio.value) if np.isfinite(tail.value) else 0.0
    from scipy.special import stdtr, stdtrit

    freedom = max(ratio.clusters - 1, 1) if ratio.clusters > 1 else 1
    quantile = float(stdtrit(freedom, 0.5 + level / 2))
    width = max(float(np.hypot(quantile * error, drift)), abs(ratio.value) / steps)
    scale = max(width / quantile, 1e-300)
    interval = (ratio.value - width, ratio.value + width)
    return Ratio(ratio.value, scale, interval, float(stdtr(freedom, -ratio.value / scale)), ratio.clusters)


def _with_floor(growth: Divergence) -> tuple[Divergence, float]:
    """Curves without zeros and rounding floor, and the floor that they show themselves."""
    distances = growth.distances
    floors = np.full(len(distances), np.nan)
    smallest = np.where(distances > 0, distances, np.inf)
    for row, curve in enumerate(distances):
        known = curve[np.isfinite(curve)]
        if len(known) < 4 or not (known > 0).any():
            continue
        quarter = known[-(len(known) // 4) :]
        if (quarter == 0).any():
            floors[row] = float(np.log(known[known > 0].min()))
            continue
        logs = np.log(quarter)
        half = len(logs) // 2
        fall = float(logs[:half].mean() - logs[half:].mean()) if half else 0.0
        mean = (np.log(known[known > 0][0]) - logs[-1]) / len(known) * half
        falls = fall > 1.0 or fall > STILL_GROWING * mean > 0
        floors[row] = np.nan if falls else float(logs.max())
    has = np.isfinite(floors)
    floor = float(np.median(floors[has])) if has.sum() * 2 > len(floors) else float("-inf")
    lowest = (
        floor - 1.0
        if np.isfinite(floor)
        else float(np.log(smallest.min())) - 1.0
        if np.isfinite(smallest).any()
        else 0.0
    )
    filled = np.where(distances == 0, np.exp(lowest), distances)
    return replace(growth, distances=filled, floor=np.full(growth.floor.shape, np.nan)), floor
