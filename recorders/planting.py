"""When a perturbed copy is planted anew beside its reference: the schedule, framework-free.

A copy that has saturated says nothing more about the growth of perturbations, nor does one that rounding has taken
over. Planted anew, it is another **start**, and whether sensitivity persists can only be judged from several of them.

**Which copies.** The copies of a reference form cohorts that are planted together. Copies of one planting grow along
the same direction and are not independent, so more of them at one step add little, while another step is another
start. Yet the time that growth takes is not known beforehand: were all copies cut at doubling ages, none would reach
saturation from step 0; were all left alone, a training of twice the time to saturation would have two starts. So with
``"auto"`` the first cohort, at least half of the copies, is left alone while it grows, and up to three copies are
cohorts of their own, planted anew at doubling ages (64, 32, 16 steps at first) whether they grow or not: at steps 16,
32, 48, 64, 96, 112, ..., of which those about half way through the training live long enough. Once a cohort saturates,
the time that takes is known, no cohort is cut before twice that age, and plantings keep a distance of age / cohorts:
the cohorts then saturate one after the other, and n cohorts give n starts in the time of one.

**When.** The mean of ln d over a cohort, d the Euclidean distance of all trained parameters, is all that is looked at:

- *Growing*: its highest value since its lowest has risen by at least one e-fold in the last third of its age, or in
  the last 8 steps if that is longer. Growth at a constant rate that has gained 4 e-folds always does.
- *Saturated*: it has gained at least 4 e-folds, is not growing, and lies within ln 50 of the distance that the
  reference itself covers from one look to the next (a step, up to a sixteenth of the age): two trainings that have
  nothing to do with each other any more are as far apart as a training moves, or farther. A copy that rests far below
  after a first burst is not saturated. Growth that stops at age a is noticed at about 1.5 a, so that the level is in
  the record too.
- *At the floor*: within ln 50 of the rounding floor, and 2 e-folds below its start; or all of it merged.
- *Old*: at its limit of age, which then doubles; the first cohort (256 steps at first, 128 where there is one copy)
  only if it is not growing.

Beside weights that are not finite, or so large that rounding exceeds the perturbation, nothing is planted any more.

Nothing is planted before the age of 8 steps. The distances of a cohort are measured at every step up to the age of 16,
then every age / 16 steps: at most one pass over its weights a step, and soon none to speak of. The weights of the
reference are copied to the host only where a copy seems to have saturated, or is planted. All is deterministic.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isfinite, log
from typing import Any, NamedTuple

import numpy as np

from trajtools.types import Floats

POLICIES = ("auto", "saturation")
Replant = str | int | None
YOUNGEST = 8
EVERY_STEP = 16  # measured at every step up to this age, then every age / 16 steps
LEAST_GAIN, LEAST_RISE = 4.0, 1.0
ABOVE_FLOOR, BELOW_START, BELOW_STRIDE = log(50), 2.0, log(50)
FIRST_LIMITS = (256, 64, 32, 16)
ONLY_LIMIT = 128
SMALLEST = 5e-324
CACHED = 2**13
"""Entries of pieces of arrays that stay in the cache of a core, and for which BLAS starts no threads."""
_PIECE, _ROW = 2**15, 2**8  # entries of differences held, and of those whose squares are summed in their precision
_LEAST = 2.0**-80  # of the sum of a piece, beside which squares lost to underflow are less than 1e-8


class Planting(NamedTuple):
    """One planting of one member; the fields are those of the file's table.

    Attributes
    ----------
    step : int
        The state of this step is the first that shows it.
    member : int
        Row of the copy in the members table.
    epsilon : float
        Size of the perturbation of an entry; NaN where parameters have sizes of their own.
    seed : int
        The copy drew from ``numpy.random.default_rng([seed, i])``, i its number among the copies of its reference.
    norm : float
        Euclidean distance from the reference in that state, over all trained parameters.

    Examples
    --------
    >>> from recorders import Planting
    >>> Planting(step=100, member=1, epsilon=1e-8, seed=0, norm=1e-8).step
    100
    """

    step: int
    member: int
    epsilon: float
    seed: int
    norm: float


def seed_of(seed: int, step: int) -> int:
    """Seed of the plantings at a step: that of the copies at first, then one of 63 bits derived from both."""
    if step == 0:
        return seed
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def check_replant(replant: Replant) -> None:
    """Refuse what `replant` cannot be."""
    if replant is None or replant in POLICIES:
        return
    if isinstance(replant, str | bool) or not hasattr(replant, "__index__") or operator.index(replant) < 1:
        raise ValueError(
            f'replant={replant!r}: it must be "auto", "saturation", a number of steps of at least 1, or None'
        )


@dataclass
class Track:
    """Where ln d of a cohort was since its planting: its lowest value, and the highest ones after it."""

    start: float
    low: float = inf
    ages: list[int] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)

    def add(self, age: int, value: float) -> None:
        """Take one value; highs closer than a twentieth of an e-fold to the last are not kept."""
        if value <= self.low:
            self.low, self.ages, self.highs = value, [age], [value]
        elif value > self.highs[-1] + 0.05:
            self.ages.append(age)
            self.highs.append(value)

    @property
    def gain(self) -> float:
        """From the lowest value to the highest after it."""
        return self.highs[-1] - self.low

    def is_growing(self, age: int) -> bool:
        """Whether the highest value rose by an e-fold in the last third of the age, or the last `YOUNGEST` steps."""
        before = bisect_right(self.ages, min(2 * age / 3, age - YOUNGEST)) - 1
        return self.highs[-1] - (self.highs[before] if before >= 0 else self.low) >= LEAST_RISE


@dataclass
class Cohort:
    """Copies that are planted together."""

    copies: tuple[int, ...]
    limit: float
    is_patient: bool  # not cut while it grows
    planted: int = 0
    lifetime: int = 0  # age at which it was to be planted anew; 0 before
    next_look: int = 1
    track: Track = field(default_factory=lambda: Track(-inf))


class Schedule:
    """Which copies of one reference are planted anew at a step.

    Parameters
    ----------
    copies : sequence of int
        Rows of the copies in the members table.
    replant : {"auto", "saturation"}, int or None
        As in `Twins`.
    """

    def __init__(self, copies: Sequence[int], replant: Replant) -> None:
        check_replant(replant)
        self._replant = replant
        self._floor = log(SMALLEST)
        self.cohorts = _cohorts(tuple(copies), replant)
        self.saturation = float("nan")
        self.is_over = replant is None
        self._before: Mapping[str, Any] | None = None

    def planted(self, step: int, copies: Iterable[int], distances: Sequence[float] | Floats, floor: float) -> None:
        """Take that copies were planted: `distances` of all copies in order, of which only theirs count.

        `floor` is the distance that rounding makes.
        """
        self._floor = log(max(floor, SMALLEST))
        new = set(copies)
        for cohort in self.cohorts:
            if new.intersection(cohort.copies):
                cohort.planted, cohort.next_look, cohort.lifetime = step, 1, 0
                start = self._mean(cohort, distances)
                self.is_over |= not isfinite(start)  # weights that are not finite at the start
                cohort.track = Track(start)
                cohort.track.add(0, start if isfinite(start) else 0.0)

    def looks(self, step: int) -> bool:
        """Whether `due` may plant something at this step."""
        return not self.is_over and (not isinstance(self._replant, str) or bool(self._looking(step)))

    def due(
        self,
        step: int,
        measure: Callable[[Sequence[int]], Sequence[float] | Floats],
        network: Callable[[], Mapping[str, Any]],
    ) -> tuple[int, ...]:
        """Copies to plant now.

        ``measure(copies)`` gives an entry for each copy, of which those of these copies must be their distances;
        `network` gives the parameters of the reference. Both are called only where they count.
        """
        if self.is_over:
            return ()
        if not isinstance(self._replant, str):
            interval = operator.index(self._replant or 1)
            return tuple(c for one in self.cohorts if step - one.planted >= interval for c in one.copies)
        looking = self._looking(step)
        if not looking:
            return ()
        distances = measure([copy for cohort in looking for copy in cohort.copies])
        chosen: list[int] = []
        stride = _Stride(network, self._before)
        for cohort in sorted(looking, key=lambda one: one.planted):
            reason = self._reason(cohort, step, distances, stride)
            if reason and self._has_room(cohort, step):
                cohort.limit *= 2 if reason == "old" else 1
                cohort.planted = step  # the cohorts after it keep their distance
                chosen += cohort.copies
        self._before = stride.now
        return tuple(chosen)

    def _looking(self, step: int) -> list[Cohort]:
        return [one for one in self.cohorts if step - one.planted >= one.next_look]

    def _reason(self, cohort: Cohort, step: int, distances: Sequence[float] | Floats, stride: _Stride) -> str:
        """Why a cohort is to be planted anew; empty if it is not."""
        age = step - cohort.planted
        cohort.next_look = age + max(1, age // EVERY_STEP)
        value, track = self._mean(cohort, distances), cohort.track
        if isfinite(value):
            track.add(age, value)
        if age < YOUNGEST:
            return ""
        if not isfinite(value):  # the copy has diverged, its reference has not
            return "diverged"
        is_growing = track.is_growing(age)
        if not is_growing and track.gain >= LEAST_GAIN:
            if stride.length is None:
                cohort.next_look = age + 1
            elif track.highs[-1] >= log(max(stride.length, SMALLEST)) - BELOW_STRIDE:
                self._saturated(cohort, age)
                return "saturated"
        if all(distances[copy - self.cohorts[0].copies[0]] == 0 for copy in cohort.copies):
            return "merged"
        if self._replant == "saturation":
            return ""
        if value < min(self._floor + ABOVE_FLOOR, track.start - BELOW_START):
            return "floor"
        return "old" if age >= cohort.limit and not (is_growing and cohort.is_patient) else ""

    def _saturated(self, cohort: Cohort, age: int) -> None:
        """Learn how long saturation takes, and where it lies."""
        self.saturation = float(np.exp(cohort.track.highs[-1]))
        for one in self.cohorts:
            one.limit = max(one.limit, 2 * age)

    def _has_room(self, cohort: Cohort, step: int) -> bool:
        cohort.lifetime = cohort.lifetime or step - cohort.planted
        newest = max(one.planted for one in self.cohorts)
        return (step - newest) * len(self.cohorts) >= cohort.lifetime

    def _mean(self, cohort: Cohort, distances: Sequence[float] | Floats) -> float:
        """Mean of ln d; what has merged counts as the floor, and one that is not finite makes all of it so."""
        floor, first, total = self._floor, self.cohorts[0].copies[0], 0.0
        for copy in cohort.copies:
            distance = float(distances[copy - first])
            total += floor if distance == 0 else max(log(distance), floor) if distance > 0 else distance
        return total / len(cohort.copies)


def _cohorts(copies: tuple[int, ...], replant: Replant) -> list[Cohort]:
    if replant != "auto" or len(copies) < 2:
        return [Cohort(copies, ONLY_LIMIT, True)]
    n = min(len(FIRST_LIMITS) - 1, len(copies) // 2)
    first = Cohort(copies[: len(copies) - n], FIRST_LIMITS[0], True)
    rest = zip(copies[len(copies) - n :], FIRST_LIMITS[1:], strict=False)
    return [first, *(Cohort((copy,), limit, False) for copy, limit in rest)]


class _Stride:
    """How far the reference went since the last look; measured when asked for, and not known the first time."""

    def __init__(self, network: Callable[[], Mapping[str, Any]], before: Mapping[str, Any] | None) -> None:
        self._network, self._before = network, before
        self.now: Mapping[str, Any] | None = None

    @cached_property
    def length(self) -> float | None:
        """Euclidean distance over all parameters; None where there was no look before."""
        self.now = {name: np.array(array) for name, array in self._network().items()}
        if self._before is None:
            return None
        return sum(float(squared_gaps(array, [self._before[name]])[0]) for name, array in self.now.items()) ** 0.5


def squared_gaps(first: Any, others: Sequence[Any]) -> Floats:
    """Squares of the Euclidean distances of arrays from a first one of their shape and dtype.

    Differences are taken in float32 at least. Their squares are summed in that precision over a few hundred entries,
    else in float64. Larger arrays go through the cache in pieces, and no array as large as they are is made.
    """
    flat, *rest = [np.asarray(array).reshape(-1) for array in (first, *others)]
    kind = np.promote_types(flat.dtype, np.float32)
    total = np.zeros(len(rest))
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        if flat.size <= CACHED:
            gaps = np.subtract(rest, flat, dtype=kind).astype(np.float64, copy=False)
            return np.asarray(np.einsum("ij,ij->i", gaps, gaps))
        gap = np.empty(min(_PIECE, flat.size), kind)
        for at in range(0, flat.size, _PIECE):
            piece = flat[at : at + _PIECE]
            for i, other in enumerate(rest):
                total[i] += _square(np.subtract(other[at : at + _PIECE], piece, out=gap[: len(piece)], dtype=kind))
    return total


def _square(gap: np.ndarray) -> float:
    """Sum of squares; in float64 throughout where squares of float32 may have left their range."""
    rows = gap[: len(gap) // _ROW * _ROW].reshape(-1, _ROW)
    rest = gap[rows.size :]
    square = float(np.vecdot(rows, rows).sum(dtype=np.float64)) + float(np.vecdot(rest, rest))
    if gap.dtype == np.float64 or _LEAST <= square < inf:
        return square
    return _square(gap.astype(np.float64))


class Room(NamedTuple):
    """How far a perturbation can grow and shrink, in e-folds of the distance.

    Attributes
    ----------
    above : float
        From the planting up to saturation where a copy has saturated, else up to the size of the weights, which is more
        than most trainings leave.
    below : float
        From the planting down to what rounding the weights makes of a distance.
    """

    above: float
    below: float
