"""Exponents of one window of training after the other, because training is not stationary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError
from trajtools.fitting import choose_spans
from trajtools.growth.exponent import fit
from trajtools.growth.persistence import FEWEST_EFOLDS
from trajtools.growth.units import factor_of
from trajtools.results import Divergence, Exponent, Floats, Ints, Result, average_curves, mean_curve, to_plain

RETURNED = 0.5  # of the saturated twins of one start that must be close again before any of them counts again
DELAYED = (
    "{count} of {total} windows have no fresh twins: the twins in them were perturbed earlier and may have lost every "
    "part of the perturbation that would grow there, so growth can show too late or not at all (delayed loss of "
    "stability); perturb at the start of each window"
)


@dataclass(frozen=True, eq=False)
class Windows(Result):
    """Finite-time exponents, one per window of the training.

    Attributes
    ----------
    method : str
        The estimator that made them.
    unit, time_unit : str
        Unit of the exponents (``"1/step"``) and of the time of the curves.
    start, stop : ndarray of int64, shape (W,)
        The windows, in steps.
    value : ndarray of float64, shape (W,)
        Exponent of each window; NaN where there is none.
    interval : ndarray of float64, shape (W, 2)
        Confidence interval of each; NaN where unknown.
    level : float
        Confidence level of the intervals.
    verdict : tuple of str, length W
        As of an `Exponent`, for the window alone: growth within one window is ``"transient"``.
    fresh : ndarray of bool, shape (W,)
        Whether the exponent comes from twins perturbed inside the window; always true for methods without twins.
    perturbed : ndarray of int64, shape (S,)
        Steps at which twins were perturbed; empty for methods without twins.
    by_start : ndarray of float64, shape (S, W)
        Rate in each window of the twins of each start alone; NaN where they have not begun, or have saturated.
    gain : ndarray of float64, shape (W,)
        E-folds of each window: its exponent times the time to its end, or to the start of the next one if that is
        earlier.
    max_gain : float
        Largest sum of gains over windows that follow each other: how much a perturbation that is always turned to
        where it grows can gain. Zero where nothing grows, NaN where no window is known.
    max_gain_between : (int, int)
        Steps between which it is gained; equal where nothing grows.
    exponents : tuple of Exponent, length W
        The windows with reasons, counts and settings.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know before believing the numbers.
    """

    method: str
    unit: str
    time_unit: str
    start: Ints
    stop: Ints
    value: Floats
    interval: Floats
    level: float
    verdict: tuple[str, ...]
    fresh: NDArray[np.bool_]
    perturbed: Ints
    by_start: Floats
    gain: Floats
    max_gain: float
    max_gain_between: tuple[int, int]
    exponents: tuple[Exponent, ...] = field(repr=False)
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict that JSON can hold, without the curves.

        Returns
        -------
        dict
            One entry per field. Arrays are lists, NaN and the infinities are None.
        """
        plain = {f.name: to_plain(getattr(self, f.name)) for f in fields(self) if f.name != "exponents"}
        return plain | {"exponents": [exponent.to_dict() for exponent in self.exponents]}

    def per(self, unit: str, **known: Any) -> Windows:
        """State the exponents per step, per epoch or per unit of the learning rate integrated over each window.

        Parameters
        ----------
        unit : str
            ``"step"``, ``"epoch"`` or ``"learning-rate"``.
        **known
            As of `Exponent.per`.

        Returns
        -------
        Windows
            In the new unit; gains have none.
        """
        converted = tuple(exponent.per(unit, **known) for exponent in self.exponents)
        value = np.array([exponent.value for exponent in converted], dtype=np.float64)
        factor = [factor_of(one) / factor_of(old) for one, old in zip(converted, self.exponents, strict=True)]
        return replace(
            self,
            unit=converted[0].unit,
            value=value,
            interval=np.array([exponent.interval for exponent in converted], dtype=np.float64),
            by_start=self.by_start * np.array(factor),
            exponents=converted,
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the exponent against the training; see `trajtools.plots.windows`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn.
        """
        from trajtools import plots

        return plots.windows(self, ax=ax)


@dataclass(frozen=True, eq=False)
class _Alive:
    """Of each twin its steps, where it grows undisturbed, and where it is below or above saturation at all; (U, K)."""

    step: Ints
    before: NDArray[np.bool_]
    small: NDArray[np.bool_]
    large: NDArray[np.bool_]
    levels: dict[int, float]


def windows_of(exponents: Sequence[Exponent], start: Ints, stop: Ints, time_per_step: float, **more: Any) -> Windows:
    """Put the exponents of windows together.

    Parameters
    ----------
    exponents : sequence of Exponent
        One per window.
    start, stop : ndarray of int64, shape (W,)
        The windows, in steps.
    time_per_step : float
        In the time unit of the exponents.
    **more : object
        ``fresh``, ``perturbed``, ``by_start``, ``settings`` and ``warnings``, where they are not those of a method
        without twins.

    Returns
    -------
    Windows
    """
    value = np.array([exponent.value for exponent in exponents], dtype=np.float64)
    until = np.append(np.minimum(stop[:-1], start[1:]), stop[-1])
    gain: Floats = value * (until - start).astype(np.float64) * time_per_step
    most, between = _most(gain, start, until)
    given: dict[str, Any] = {
        "fresh": np.ones(len(value), dtype=np.bool_),
        "perturbed": np.empty(0, dtype=np.int64),
        "by_start": np.empty((0, len(value))),
    }
    unit = next((e.unit for e in exponents if np.isfinite(e.value)), exponents[0].unit)
    return Windows(
        method=exponents[0].method,
        unit=unit,
        time_unit=unit.removeprefix("1/"),
        start=start,
        stop=stop,
        value=value,
        interval=np.array([exponent.interval for exponent in exponents], dtype=np.float64),
        level=exponents[0].level,
        verdict=tuple(exponent.verdict for exponent in exponents),
        gain=gain,
        max_gain=most,
        max_gain_between=between,
        exponents=tuple(exponents),
        **(given | more),
    )


def _most(gain: Floats, start: Ints, until: Ints) -> tuple[float, tuple[int, int]]:
    """Largest sum over windows that follow each other without a gap, and where it lies."""
    if not np.isfinite(gain).any():
        return float("nan"), (int(start[0]), int(start[0]))
    most, between, running, begun = 0.0, (int(start[0]), int(start[0])), 0.0, 0
    for w in range(len(gain)):
        if running <= 0 or not np.isfinite(gain[w - 1]) or until[w - 1] != start[w]:
            running, begun = 0.0, w
        running += float(gain[w]) if np.isfinite(gain[w]) else 0.0
        if running > most:
            most, between = running, (int(start[begun]), int(until[w]))
    return most, between


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
    null : "power-law" or None
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
        exponents.append(found if fresh[w] else _reworded(found, "introduced at", "followed from"))
    stale = int(np.sum(~fresh & np.isfinite([exponent.value for exponent in exponents])))
    notes = (DELAYED.format(count=stale, total=len(start)),) if stale else ()
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
        warnings=(*growth.warnings, *notes),
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
        begun = (growth.start < window[1]).any()
        why = (
            "all twins in this window have saturated, ended or merged: they cannot show what the dynamics does now; "
            "perturb again at its start"
            if begun
            else "no twin was perturbed before the end of this window"
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
    return _reworded(fit(part, (0.0, float(longest[-1])), **options), "the record", "the window")


def _reworded(found: Exponent, words: str, by: str) -> Exponent:
    """Say what the fit of a whole record says in words that are true of a window."""
    return replace(found, reasons=tuple(reason.replace(words, by) for reason in found.reasons))


def unknown(method: str, unit: str, level: float, why: str) -> Exponent:
    """Return the answer of a window that has none.

    Parameters
    ----------
    method, unit : str
        As of the other windows.
    level : float
        Confidence level.
    why : str
        The reason.

    Returns
    -------
    Exponent
        NaN, inconclusive.
    """
    nan = float("nan")
    return Exponent(
        value=nan,
        interval=(nan, nan),
        level=level,
        p_value=nan,
        null="",
        n_used=0,
        n_total=0,
        verdict="inconclusive",
        reasons=(why,),
        window=(nan, nan),
        window_values=np.empty(0),
        values=np.empty(0),
        intercept=nan,
        method=method,
        unit=unit,
    )
