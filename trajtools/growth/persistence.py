"""Separate times of perturbation: whether sensitivity persists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trajtools.growth.measured import Measured, rate
from trajtools.reasons import Reason
from trajtools.statistics import DECISION

FEWEST_EFOLDS = 3.0  # of fitted growth, before anything is called exponential
EARLY = 0.25  # of an epoch: perturbations introduced later in it are no evidence of their own
EPOCHS = 3  # separate times of perturbation that persistence asks for


@dataclass(frozen=True, eq=False)
class Epoch:
    """Perturbations introduced at about one time: before those of the epoch before had run their course.

    Attributes
    ----------
    start : int
        Step of the first of them.
    early : float
        Perturbations introduced before this step tell whether there is growth.
    until : float
        Step at which the growth of half of them has ended; later perturbations belong to the next epoch.
    value : float
        Rate of its curves.
    gain : float
        Mean fitted growth, in e-folds.
    p_positive : float
        One-sided p-value of "the rate is not positive"; NaN where unknown.
    long_enough : bool
        Whether its record is long enough for `FEWEST_EFOLDS` at the fastest rate that any start shows.
    """

    start: int
    early: float
    until: float
    value: float
    gain: float
    p_positive: float
    long_enough: bool

    @property
    def grows(self) -> bool:
        """Whether this epoch alone shows growth."""
        return self.gain >= FEWEST_EFOLDS and self.p_positive < DECISION

    @property
    def silent(self) -> bool:
        """Whether this epoch shows that growth is absent: it had the time, and did not grow."""
        return self.gain < FEWEST_EFOLDS and self.long_enough


def separate_starts(found: Measured, level: float, rng: np.random.Generator) -> tuple[Epoch, ...]:
    """Group the perturbations by when they were introduced, each group after the growth of the one before has ended.

    Parameters
    ----------
    found : Measured
        All curves.
    level : float
        Confidence level.
    rng : numpy.random.Generator
        Source of the resampling.

    Returns
    -------
    tuple of Epoch
        In the order of time. Perturbations introduced while others still grow see the same stretch of the orbit, and
        tell nothing more about persistence than those: they belong to one epoch.
    """
    growth, start = found.growth, found.curves.start
    step = float(growth.settings.get("dt", 1.0))
    over = start + growth.time[np.maximum(found.spans.last, found.spans.knee)] / step
    recorded = growth.time[np.where(np.isnan(growth.distances), 0, np.arange(len(growth.time))).max(axis=1)]
    needed = FEWEST_EFOLDS / max(_fastest(found), 1e-300)
    epochs: list[Epoch] = []
    left = np.unique(start[found.usable])
    while len(left):
        begun = int(left[0])
        until = max(float(np.median(over[start == begun])), begun + 1.0)
        # Those introduced late in the epoch see only the end of the growth: they belong to it, but are no evidence.
        early = begun + max((until - begun) * EARLY, 1.0)
        mine = np.flatnonzero((start >= begun) & (start < early))
        ratio = found.ratio
        if len(mine) < len(start):
            grown = found.gain[mine], found.duration[mine]
            ratio, _ = rate(found.curves[mine], found.first[mine], found.last[mine], grown, level=level, rng=rng)
        used = mine[found.last[mine] > found.first[mine]]
        gain = float(np.mean(found.gain[used])) if len(used) else 0.0
        units = (growth.start >= begun) & (growth.start < early)
        long_enough = bool(np.median(recorded[units]) >= needed)
        epochs.append(Epoch(begun, early, until, ratio.value, gain, ratio.p_positive, long_enough))
        left = left[left >= until]
    return tuple(epochs)


def _fastest(found: Measured) -> float:
    """Largest mean rate among the starts: how fast growth is where there is any."""
    rates = [0.0]
    for begun in np.unique(found.curves.start):
        mine = found.curves.start == begun
        duration = float(found.duration[mine].sum())
        rates.append(float(found.gain[mine].sum()) / duration if duration > 0 else 0.0)
    return max(rates)


def does_not_persist(epochs: tuple[Epoch, ...]) -> Reason:
    """Name the perturbations that do not grow.

    Parameters
    ----------
    epochs : tuple of Epoch
        Separate times of perturbation, of which some do not grow.

    Returns
    -------
    Reason
    """
    silent = ", ".join(f"{epoch.start} ({epoch.gain:.1f} e-folds)" for epoch in epochs if epoch.silent)
    return Reason.of(
        "not-persistent",
        "the sensitivity does not persist: of {starts} separate starts, those at step {silent} show no exponential "
        "growth of {needed:g} e-folds",
        starts=len(epochs),
        silent=silent,
        needed=FEWEST_EFOLDS,
    )
