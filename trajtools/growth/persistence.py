"""Separate times of perturbation: whether sensitivity persists."""

from __future__ import annotations

import numpy as np

from trajtools.exponents.verdict import FEWEST_EFOLDS, Epoch
from trajtools.growth.measured import Measured, rate

EARLY = 0.25  # of an epoch: perturbations introduced later in it are no evidence of their own


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
