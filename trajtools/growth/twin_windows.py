"""Growth of the distance of twins in windows of the training, up to saturation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError
from trajtools.exponents.curves import average_curves, mean_curve
from trajtools.exponents.divergence import Divergence
from trajtools.exponents.exponent import Exponent
from trajtools.exponents.fit_twins import fit_twins
from trajtools.exponents.verdict import FEWEST_EFOLDS
from trajtools.growth.windows import Windows, unknown, windows_of
from trajtools.reasons import Reason
from trajtools.statistics import choose_spans
from trajtools.types import Floats, Ints

RETURNED = 0.5  # of the saturated twins of one start that must be close again before any of them counts again
DELAYED = (
    "{stale} of {total} windows have no fresh twins: the twins in them were perturbed earlier and may have lost every "
    "part of the perturbation that would grow there, so growth can show too late or not at all (delayed loss of "
    "stability); perturb at the start of each window"
)


@dataclass(frozen=True, eq=False)
class _Alive:
    """Of each twin its steps, where it grows undisturbed, and where it is below or above saturation at all; (U, K)."""

    step: Ints
    before: NDArray[np.bool_]
    small: NDArray[np.bool_]
    large: NDArray[np.bool_]
    levels: dict[int, float]


def twin_windows(
    growth: Divergence, start: Ints, stop: Ints, *, null: str | None = "power-law", level: float = 0.95, rng: Any = 0
) -> Windows:
    r"""Growth of the distance of twins in windows of the training.

    Parameters
    ----------
    growth : Divergence
        Of `trajtools.twins`.
    start, stop : ndarray of int64, shape (W,)
        The windows, in steps: growth from the state at `start` to that at `stop`.
    null : "power-law", "quadratic-basin" or None
        What the growth in each window is tested against.
    level : float
        Confidence level of the intervals.
    rng : int, numpy.random.Generator or None
        Source of the resampling.

    Returns
    -------
    Windows
        A window with twins perturbed inside it has the exponent of these alone; the others that of older twins.

    Raises
    ------
    DataError
        If the curves are not those of twins.

    Notes
    -----
    .. math:: \lambda_w = \frac{\sum_i \ln d_i(b_i) - \ln d_i(a_i)}{\sum_i (b_i - a_i)}

    with :math:`a_i` the later of the window's start and the perturbation of twin i, and :math:`b_i` the earlier of the
    window's end and its saturation. Saturation is found for the twins of each start by themselves, and only where they
    do not go on growing after their bend. Twins that have saturated count again in a window in which half of those of
    their start are far below saturation throughout: they have met again, and what is left of their distance is as good
    a perturbation as any.
    """
    if growth.method != "twins":
        raise DataError(
            f"these are curves of {growth.method}, not of twins: a curve of neighbours has no window of its own"
        )
    per_step = float(growth.settings.get("dt", 1.0))
    alive = _alive(growth, per_step)
    starts = np.unique(growth.start)
    exponents, fresh, by_start = [], np.zeros(len(start), dtype=np.bool_), np.full((len(starts), len(start)), np.nan)
    for w, (a, b) in enumerate(zip(start, stop, strict=True)):
        usable = _usable(growth, alive, a, b)
        inside = (growth.start >= a) & (growth.start < b)
        fresh[w] = bool((usable.any(axis=1) & inside).any())
        by_start[:, w] = _rates(growth, usable, starts)
        usable[inside != fresh[w]] = False
        found = _of_window(growth, alive.step, usable, (int(a), int(b)), null=null, level=level, rng=rng)
        exponents.append(found)
    stale = int(np.sum(~fresh & np.isfinite([exponent.value for exponent in exponents])))
    delayed = (Reason.of("delayed-loss-of-stability", DELAYED, stale=stale, total=len(start)),) if stale else ()
    return windows_of(
        exponents,
        start,
        stop,
        per_step,
        fresh=fresh,
        perturbed=starts,
        by_start=by_start,
        settings={
            **growth.settings,
            "null": null,
            "level": level,
            "rng": int(rng) if isinstance(rng, (int, np.integer)) else str(rng),
            "returned_share": RETURNED,
            "saturation_levels": {str(s): found for s, found in alive.levels.items()},
        },
        warnings=(*growth.warnings, *delayed),
    )


def _alive(growth: Divergence, per_step: float) -> _Alive:
    """Find where twins grow undisturbed: above the rounding floor, and before saturation."""
    curves, group, start = growth.curves()
    floor = np.asarray(np.broadcast_to(growth.floor, growth.distances.shape))
    log_floor, _, _ = average_curves(floor, growth.group, growth.start, growth.average)
    cells = {pair: row for row, pair in enumerate(zip(group.tolist(), start.tolist(), strict=True))}
    of = (
        np.arange(len(curves))
        if growth.average == "mean-log"
        else np.array([cells[pair] for pair in zip(growth.group.tolist(), growth.start.tolist(), strict=True)])
    )
    index = np.arange(curves.shape[1])
    before, small, large = (np.zeros(curves.shape, dtype=np.bool_) for _ in range(3))
    levels: dict[int, float] = {}
    for begun in np.unique(start):
        rows = np.flatnonzero(start == begun)
        spans = choose_spans(growth.time, curves[rows], log_floor[rows])
        known = np.isfinite(curves[rows]) & (index >= spans.begin[:, None]) & (index <= spans.end[:, None])
        saturated = np.isfinite(spans.level) and not _goes_on(curves[rows], spans.knee, spans.end)
        last = spans.last if saturated else spans.end
        before[rows] = known & (index <= last[:, None])
        levels[int(begun)] = spans.level if saturated else float("inf")
        with np.errstate(invalid="ignore"):
            high = curves[rows] >= levels[int(begun)]
        small[rows], large[rows] = known & ~high, known & high
    step = growth.start[:, None] + np.round(growth.time / per_step).astype(np.int64)[None, :]
    return _Alive(step, before[of], small[of], large[of], levels)


def _goes_on(curves: Floats, knee: Ints, end: Ints) -> bool:
    """Whether curves that bend go on to grow by what counts as exponential growth: then they have not saturated."""
    bent = np.flatnonzero(knee < end)
    if not len(bent):
        return False
    after = np.arange(curves.shape[1]) >= knee[bent][:, None]
    top = np.nanmax(np.where(after, curves[bent], np.nan), axis=1)
    return bool(np.median(top - curves[bent, knee[bent]]) >= FEWEST_EFOLDS)


def _usable(growth: Divergence, alive: _Alive, a: int, b: int) -> NDArray[np.bool_]:
    """Points of each twin that count in a window, (U, K)."""
    inside = (alive.step >= a) & (alive.step <= b)
    usable = inside & alive.before
    over = inside.any(axis=1) & ~usable.any(axis=1)
    for begun in np.unique(growth.start[over]):
        mine = np.flatnonzero(over & (growth.start == begun))
        returned = mine[~(alive.large[mine] & inside[mine]).any(axis=1)]
        if len(returned) >= RETURNED * np.sum(growth.start == begun):
            usable[returned] = inside[returned] & alive.small[returned]
    usable[usable.sum(axis=1) < 2] = False
    return usable


def _rates(growth: Divergence, usable: NDArray[np.bool_], starts: Ints) -> Floats:
    """Rate of the twins of each start, (S,)."""
    rows = np.flatnonzero(usable.any(axis=1))
    first = usable[rows].argmax(axis=1)
    last = usable.shape[1] - 1 - usable[rows, ::-1].argmax(axis=1)
    gain = np.log(growth.distances[rows, last]) - np.log(growth.distances[rows, first])
    time = growth.time[last] - growth.time[first]
    found = np.full(len(starts), np.nan)
    for s, begun in enumerate(starts):
        mine = growth.start[rows] == begun
        if mine.any():
            found[s] = float(gain[mine].sum() / time[mine].sum())
    return found


def _of_window(
    growth: Divergence, step: Ints, usable: NDArray[np.bool_], window: tuple[int, int], **options: Any
) -> Exponent:
    rows = np.flatnonzero(usable.any(axis=1))
    if not len(rows):
        why = Reason("no-twins", "no twin was perturbed before the end of this window")
        if (growth.start < window[1]).any():
            why = Reason(
                "twins-saturated",
                "all twins in this window have saturated, ended or merged: they cannot show what the dynamics does "
                "now; perturb again at its start",
            )
        return unknown(growth.method, f"1/{growth.time_unit}", options["level"], why)
    first = usable[rows].argmax(axis=1)
    length = int(usable[rows].sum(axis=1).max())
    place = np.minimum(first[:, None] + np.arange(length), usable.shape[1] - 1)
    held = np.take_along_axis(usable[rows], place, axis=1) & (first[:, None] + np.arange(length) < usable.shape[1])
    time = growth.time[place] - growth.time[first][:, None]
    longest = time[int(held.sum(axis=1).argmax())]
    if not np.allclose(np.where(held, time, longest), longest, rtol=1e-12):
        raise DataError(
            f"the states in the window {window} were not recorded at equal spacing, so twins perturbed at different "
            "steps cannot be aligned; record every k-th step"
        )
    floor = np.broadcast_to(growth.floor, growth.distances.shape)
    part = replace(
        growth,
        time=longest,
        distances=np.where(held, np.take_along_axis(growth.distances[rows], place, axis=1), np.nan),
        floor=np.where(held, np.take_along_axis(floor[rows], place, axis=1), np.nan),
        group=growth.group[rows],
        start=step[rows, first],
        scale=growth.scale[rows],
        n_references=len(np.unique(growth.group[rows])),
        settings=growth.settings | {"window": window},
    )
    curves, group, _ = part.curves()
    part = replace(part, log_distance=mean_curve(curves, group))
    return fit_twins(part, (0.0, float(longest[-1])), **options)
