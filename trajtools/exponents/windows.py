"""Finite-time exponents in windows of a training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError
from trajtools.exponents.divergence import Divergence
from trajtools.exponents.exponent import Exponent, unknown_exponent
from trajtools.exponents.fit_twins import fit_twins
from trajtools.exponents.growth_phase import FEWEST_EFOLDS
from trajtools.exponents.lyapunov import lyapunov
from trajtools.exponents.twins import TwinsLike, has_twins, twins
from trajtools.inputs import takes_states
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result, to_plain
from trajtools.statistics import SATURATION_MARGIN, average_curves, choose_spans, first_passage, mean_curve
from trajtools.trajectory import StatesLike
from trajtools.types import Floats, Ints, RNGLike, TimeStepLike
from trajtools.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.distances.metric import MetricLike

MOST_WINDOWS = 10_000
RETURNED = 0.5  # share of the saturated twins of one start that must be close again before they are used again
SAME_LEVEL = float(np.log(2.0))  # e-folds: twins this close to the saturation of other starts have saturated
DELAYED = (
    "{stale} of {total} windows have no fresh twins: those that were perturbed earlier can show growth too late or not "
    "at all (delayed loss of stability); plant twins anew at the start of each window"
)


@dataclass(frozen=True, eq=False, repr=False)
class Windows(Result):
    """Finite-time exponents, one per window of the training.

    Attributes
    ----------
    method : str
        Name of the estimator.
    unit, time_unit : str
        Unit of the exponents (``"1/step"``) and of the time of the curves.
    start, stop : ndarray of int64, shape (W,)
        The windows, in steps.
    value : ndarray of float64, shape (W,)
        Exponent of each window; NaN if there is none.
    interval : ndarray of float64, shape (W, 2)
        Confidence intervals; NaN where unknown.
    level : float
        Confidence level of the intervals.
    verdict : tuple of str, length W
        As in `Exponent`, for the window alone: growth within one window is ``"sensitive"``.
    fresh : ndarray of bool, shape (W,)
        Whether the exponent comes from twins perturbed inside the window; always true for methods without twins.
    perturbed : ndarray of int64, shape (S,)
        Steps at which twins were perturbed; empty for methods without twins.
    by_start : ndarray of float64, shape (S, W)
        Rate in each window of the twins of each start alone; NaN before their start and after saturation.
    gain : ndarray of float64, shape (W,)
        E-folds of each window: its exponent times the time to its end, or to the start of the next one if that is
        earlier. NaN if unknown and, for methods without twins, if the verdict is inconclusive.
    max_gain : float
        Largest sum of gains over consecutive windows: the growth of a perturbation that always points in the growing
        direction. Zero without growth, NaN if no gain is known.
    max_gain_between : (int, int)
        Steps at the ends of these windows; equal without growth.
    exponents : tuple of Exponent, length W
        Exponents with reasons, counts and settings.
    settings : dict
        Every parameter used, including automatic choices.
    warnings : tuple of Reason
        Warnings that limit the interpretation of the values.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(60.0)
    >>> twins = (0.9**t, [0.9**t + 1e-9 * 1.3**t])
    >>> windows = tt.lyapunov_windows(twins, window=20)
    >>> windows.start.tolist(), windows.value.round(2).tolist()
    ([0, 20, 40], [0.26, 0.26, 0.26])
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
    exponents: tuple[Exponent, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "value": ("window",),
        "start": ("window",),
        "stop": ("window",),
        "interval": ("window", "bound"),
        "verdict": ("window",),
        "fresh": ("window",),
        "gain": ("window",),
        "by_start": ("perturbed", "window"),
    }

    def _sentence(self) -> str:
        counts = Counter(self.verdict)
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        text = f"{counted(len(self.start), 'window')} of the record: {verdicts}."
        if np.isfinite(self.max_gain) and self.max_gain > 0:
            low, high = self.max_gain_between
            text += f" Distances grow most between steps {low} and {high}, by {self.max_gain:.3g} e-folds."
        return text

    def to_dict(self) -> dict[str, Any]:
        """Convert the result to a dict that JSON can represent, without the curves.

        Returns
        -------
        dict
            One entry per field. Arrays become lists, NaN and infinities become None.
        """
        plain = {f.name: to_plain(getattr(self, f.name)) for f in fields(self) if f.name != "exponents"}
        return plain | {"exponents": [exponent.to_dict() for exponent in self.exponents]}

    def per(self, unit: str, **known: Any) -> Windows:
        """Convert the exponents to 1/step, 1/epoch or 1/(learning rate integrated over each window).

        Parameters
        ----------
        unit : str
            ``"step"``, ``"epoch"`` or ``"learning-rate"``.
        **known
            As in `Exponent.per`.

        Returns
        -------
        Windows
            In the new unit; gains have no unit.
        """
        converted = tuple(exponent.per(unit, **known) for exponent in self.exponents)
        value = np.array([exponent.value for exponent in converted], dtype=np.float64)
        factor = [one.unit_factor / old.unit_factor for one, old in zip(converted, self.exponents, strict=True)]
        return replace(
            self,
            unit=converted[0].unit,
            value=value,
            interval=np.array([exponent.interval for exponent in converted], dtype=np.float64),
            by_start=self.by_start * np.array(factor),
            exponents=converted,
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the exponent along the training; see `trajtools.plots.windows`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Axes to draw on; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from trajtools import plots

        return plots.windows(self, ax=ax)


@takes_states(
    "x",
    pairs=True,
    runs=True,
    matrices=True,
    single=True,
    needs="windows need twins, a Run, a Trajectory, or an array (T,) or (T, d) of real numbers",
)
def lyapunov_windows(
    x: TwinsLike | StatesLike | Divergence,
    *,
    window: int | None = None,
    step: int | None = None,
    method: str = "auto",
    metric: MetricLike | None = None,
    scale: str | None = None,
    dt: TimeStepLike = None,
    level: float = 0.95,
    rng: RNGLike = None,
    **options: Any,
) -> Windows:
    r"""Finite-time Lyapunov exponents in windows of a training.

    Parameters
    ----------
    x : Run, pair, list of Runs or pairs, Divergence of twins; or Trajectory, array_like (T, d) or (T,)
        As in `trajtools.lyapunov`, or existing curves of twins.
    window : int or None, in steps
        Length of the windows. None: for twins perturbed at several steps, from each of these steps to the next.
    step : int or None, in steps
        Distance between the starts of successive windows; None: `window`.
    method : str
        As in `trajtools.lyapunov`.
    metric : str, callable, Metric or None
        Distance between states; None: the default of the method.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    dt : float, duration, array_like or None
        Time between two steps: a number, a duration (``"1h"``, `numpy.timedelta64`, `pandas.Timedelta`), or the times
        of all samples of an array. None keeps the unit of the data.
    level : float
        Confidence level of the intervals.
    rng : int, numpy.random.Generator or None
        Random numbers; None is the seed 0.
    **options
        Options of `trajtools.lyapunov` (neighbours), or `average` and `null` (twins).

    Returns
    -------
    Windows
        One exponent per window with its interval and verdict, and the largest cumulative gain.

    Raises
    ------
    DataError
        If there are no windows, or more than 10,000, or an option is unknown.
    UnknownNameError
        If there is no such method, metric or average.

    Notes
    -----
    Training is not stationary, and one exponent over the whole record averages over its phases. Moreover, a
    perturbation made before a stable phase loses its growing component during that phase, so a later instability shows
    only after hundreds of steps (delayed loss of stability). A window therefore uses only the twins perturbed inside
    it, if there are any; a warning counts the windows without fresh twins.

    Twins: growth from the start of the window to its end, see `twin_windows`.
    Neighbours: the record is the window alone, so windows must be long enough for states to recur.

    See Also
    --------
    trajtools.lyapunov : one exponent for the whole record.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(101)
    >>> distance = 1e-6 * 0.9 ** np.minimum(t, 50) * 1.2 ** np.maximum(t - 50, 0)
    >>> windows = tt.lyapunov_windows((np.ones(101), [1 + distance]), window=25)
    >>> np.round(np.exp(windows.value), 3).tolist()
    [0.9, 0.9, 1.2, 1.2]
    """
    for name, value, least in (("window", window, 2), ("step", step, 1)):
        integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and not (integer and value >= least):
            raise DataError(f"{name} must be an integer number of steps, {least} or more; got {value!r}")
    if isinstance(x, Divergence) or method == "twins" or (method == "auto" and has_twins(x)):
        growth = x if isinstance(x, Divergence) else _twins(x, metric, dt, options)
        options = {name: value for name, value in options.items() if name != "average"}
        if set(options) - {"null"}:
            raise DataError(f"windows of twins have no option {', '.join(sorted(set(options) - {'null'}))}")
        null = options.get("null", "auto")
        begin, end = _twin_edges(growth, window, step)
        result = twin_windows(growth, begin, end, null="power-law" if null == "auto" else null, level=level, rng=rng)
    else:
        result = _record_windows(x, window, step, method=method, metric=metric, dt=dt, level=level, rng=rng, **options)
    settings = result.settings | {"window": window, "step": step if step is not None else window}
    return replace(result, settings=settings)


def _twin_edges(growth: Divergence, window: int | None, step: int | None) -> tuple[Ints, Ints]:
    starts = np.unique(growth.start)
    per_step = float(growth.settings.get("dt", 1.0))
    last = np.where(np.isfinite(growth.distances), np.arange(len(growth.time)), 0).max(axis=1)
    end = int((growth.start + np.round(growth.time[last] / per_step)).max())
    if window is not None:
        return _edges(int(starts[0]), end, window, step)
    if len(starts) < 2:
        raise DataError(
            f"all twins were perturbed at step {starts[0]}, so their starts define no windows: give window= (the "
            f"record ends at step {end}), or perturb at several steps"
        )
    return starts, np.append(starts[1:], max(end, int(starts[-1]) + 1))


def _edges(first: int, end: int, window: int, step: int | None) -> tuple[Ints, Ints]:
    """Windows of equal length; the last may be shorter, down to half of it, or shorter still if it is the only one."""
    stride = step if step is not None else window
    start = np.arange(first, max(end - window // 2, first) + 1, stride, dtype=np.int64)
    if stride < window:
        start = start[: 1 + max(0, end - first - window + stride - 1) // stride]  # the first to reach the end is last
    if len(start) > MOST_WINDOWS:
        raise DataError(
            f"window={window}, step={stride} gives {len(start)} windows; at most {MOST_WINDOWS} are allowed"
        )
    return start, np.minimum(start + window, end)


def twin_windows(
    growth: Divergence,
    start: Ints,
    stop: Ints,
    *,
    null: str | None = "power-law",
    level: float = 0.95,
    rng: RNGLike = None,
) -> Windows:
    r"""Growth of the distance of twins in windows of a training.

    Notes
    -----
    .. math:: \lambda_w = \frac{\sum_i \ln d_i(b_i) - \ln d_i(a_i)}{\sum_i (b_i - a_i)}

    where :math:`a_i` is the later of the start of the window and the perturbation of twin i, and :math:`b_i` the
    earlier of the end of the window and the saturation of twin i. The saturation level is estimated separately for the
    twins of each start, and only if they do not continue to grow after the bend; twins that show no saturation of their
    own but reach that of the other starts (their median) have the same level. Saturated twins are used again in
    windows in which at least half of the twins of their start stay far below saturation: they have converged, and
    their remaining distance is a valid perturbation.
    """
    if growth.method != "twins":
        raise DataError(f"these curves are from {growth.method}, not from twins: curves of neighbours have no windows")
    per_step = float(growth.settings.get("dt", 1.0))
    twin_spans = _twin_spans(growth, per_step)
    starts = np.unique(growth.start)
    exponents, fresh, by_start = [], np.zeros(len(start), dtype=np.bool_), np.full((len(starts), len(start)), np.nan)
    for w, (a, b) in enumerate(zip(start, stop, strict=True)):
        usable = _usable(growth, twin_spans, a, b)
        inside = (growth.start >= a) & (growth.start < b)
        fresh[w] = bool((usable.any(axis=1) & inside).any())
        by_start[:, w] = _rates(growth, usable, starts)
        usable[inside != fresh[w]] = False
        fit = _window_exponent(growth, twin_spans.step, usable, (int(a), int(b)), null=null, level=level, rng=rng)
        exponents.append(fit)
    stale = int(np.sum(~fresh & np.isfinite([exponent.value for exponent in exponents])))
    delayed = (Reason.of("delayed-loss-of-stability", DELAYED, stale=stale, total=len(start)),) if stale else ()
    return combine(
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
            "saturation_levels": {str(s): value for s, value in twin_spans.levels.items()},
        },
        warnings=(*growth.warnings, *delayed),
    )


def _twin_spans(growth: Divergence, per_step: float) -> _TwinSpans:
    """Points of each twin above the rounding floor and before saturation."""
    curves, group, start = growth.curves()
    floor = np.asarray(np.broadcast_to(growth.floor, growth.distances.shape))
    log_floor, _, _ = average_curves(floor, growth.group, growth.start, growth.average)
    cells = {pair: row for row, pair in enumerate(zip(group.tolist(), start.tolist(), strict=True))}
    curve = (
        np.arange(len(curves))
        if growth.average == "mean-log"
        else np.array([cells[pair] for pair in zip(growth.group.tolist(), growth.start.tolist(), strict=True)])
    )
    index = np.arange(curves.shape[1])
    before, small, large = (np.zeros(curves.shape, dtype=np.bool_) for _ in range(3))
    own = {}
    for first_step in np.unique(start):
        rows = np.flatnonzero(start == first_step)
        spans = choose_spans(growth.time, curves[rows], log_floor[rows])
        saturated = np.isfinite(spans.level) and not _continues(curves[rows], spans.knee, spans.end)
        own[int(first_step)] = rows, spans, spans.level if saturated else float("inf")
    known_levels = [level for _, _, level in own.values() if np.isfinite(level)]
    common = float(np.median(known_levels)) if known_levels else float("inf")
    levels: dict[int, float] = {}
    for first_step, (rows, spans, own_level) in own.items():
        known = np.isfinite(curves[rows]) & (index >= spans.begin[:, None]) & (index <= spans.end[:, None])
        level, last = own_level, spans.last if np.isfinite(own_level) else spans.end
        # Twins that are planted anew as soon as they saturate show no plateau: other starts show where it lies.
        top = np.where(known, curves[rows], -np.inf).max(axis=1)
        if not np.isfinite(own_level) and np.median(top) >= common + SATURATION_MARGIN - SAME_LEVEL:
            level, last = common, first_passage(curves[rows], spans.begin, spans.end, common)
        before[rows] = known & (index <= last[:, None])
        levels[first_step] = level
        with np.errstate(invalid="ignore"):
            high = curves[rows] >= level
        small[rows], large[rows] = known & ~high, known & high
    step = growth.start[:, None] + np.round(growth.time / per_step).astype(np.int64)[None, :]
    return _TwinSpans(step, before[curve], small[curve], large[curve], levels)


@dataclass(frozen=True, eq=False)
class _TwinSpans:
    """Steps of each twin, points before saturation, and points below and above the saturation level; (U, K)."""

    step: Ints
    before: NDArray[np.bool_]
    small: NDArray[np.bool_]
    large: NDArray[np.bool_]
    levels: dict[int, float]


def _continues(curves: Floats, knee: Ints, end: Ints) -> bool:
    """Whether bent curves continue to grow by `FEWEST_EFOLDS`, so that the bend is not saturation."""
    bent = np.flatnonzero(knee < end)
    if not len(bent):
        return False
    after = np.arange(curves.shape[1]) >= knee[bent][:, None]
    top = np.nanmax(np.where(after, curves[bent], np.nan), axis=1)
    return bool(np.median(top - curves[bent, knee[bent]]) >= FEWEST_EFOLDS)


def combine(
    exponents: Sequence[Exponent],
    start: Ints,
    stop: Ints,
    time_per_step: float,
    *,
    known: NDArray[np.bool_] | None = None,
    **more: Any,
) -> Windows:
    """Combine the exponents of windows."""
    value = np.array([exponent.value for exponent in exponents], dtype=np.float64)
    until = np.append(np.minimum(stop[:-1], start[1:]), stop[-1])
    gain: Floats = value * (until - start).astype(np.float64) * time_per_step
    if known is not None:
        gain = np.where(known, gain, np.nan)
    most, between = _max_gain(gain, start, until)
    defaults: dict[str, Any] = {
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
        **(defaults | more),
    )


def _max_gain(gain: Floats, start: Ints, until: Ints) -> tuple[float, tuple[int, int]]:
    """Largest sum over consecutive windows without a gap, and its steps."""
    if not np.isfinite(gain).any():
        return float("nan"), (int(start[0]), int(start[0]))
    most, between, running, first = 0.0, (int(start[0]), int(start[0])), 0.0, 0
    for w in range(len(gain)):
        if running <= 0 or not np.isfinite(gain[w - 1]) or until[w - 1] != start[w]:
            running, first = 0.0, w
        running += float(gain[w]) if np.isfinite(gain[w]) else 0.0
        if running > most:
            most, between = running, (int(start[first]), int(until[w]))
    return most, between


def _usable(growth: Divergence, twin_spans: _TwinSpans, a: int, b: int) -> NDArray[np.bool_]:
    """Usable points of each twin in a window, (U, K)."""
    inside = (twin_spans.step >= a) & (twin_spans.step <= b)
    usable = inside & twin_spans.before
    over = inside.any(axis=1) & ~usable.any(axis=1)
    for first_step in np.unique(growth.start[over]):
        members = np.flatnonzero(over & (growth.start == first_step))
        returned = members[~(twin_spans.large[members] & inside[members]).any(axis=1)]
        if len(returned) >= RETURNED * np.sum(growth.start == first_step):
            usable[returned] = inside[returned] & twin_spans.small[returned]
    usable[usable.sum(axis=1) < 2] = False
    return usable


def _rates(growth: Divergence, usable: NDArray[np.bool_], starts: Ints) -> Floats:
    """Rate of the twins of each start, (S,)."""
    rows = np.flatnonzero(usable.any(axis=1))
    first = usable[rows].argmax(axis=1)
    last = usable.shape[1] - 1 - usable[rows, ::-1].argmax(axis=1)
    gain = np.log(growth.distances[rows, last]) - np.log(growth.distances[rows, first])
    time = growth.time[last] - growth.time[first]
    rates = np.full(len(starts), np.nan)
    for s, first_step in enumerate(starts):
        members = growth.start[rows] == first_step
        if members.any():
            rates[s] = float(gain[members].sum() / time[members].sum())
    return rates


def _window_exponent(
    growth: Divergence, step: Ints, usable: NDArray[np.bool_], window: tuple[int, int], **options: Any
) -> Exponent:
    rows = np.flatnonzero(usable.any(axis=1))
    if not len(rows):
        reason = Reason("no-twins", "no twin was perturbed before the end of this window")
        if (growth.start < window[1]).any():
            reason = Reason(
                "twins-saturated",
                "all twins in this window have saturated, ended or merged, so they cannot show the dynamics; perturb "
                "again at the start of the window",
            )
        return unknown_exponent(growth.method, f"1/{growth.time_unit}", options["level"], (reason,))
    first = usable[rows].argmax(axis=1)
    length = int(usable[rows].sum(axis=1).max())
    place = np.minimum(first[:, None] + np.arange(length), usable.shape[1] - 1)
    valid = np.take_along_axis(usable[rows], place, axis=1) & (first[:, None] + np.arange(length) < usable.shape[1])
    time = growth.time[place] - growth.time[first][:, None]
    longest = time[int(valid.sum(axis=1).argmax())]
    if not np.allclose(np.where(valid, time, longest), longest, rtol=1e-12):
        raise DataError(
            f"the states in the window {window} were not recorded at equal spacing, so twins perturbed at different "
            "steps cannot be aligned; record every k-th step"
        )
    floor = np.broadcast_to(growth.floor, growth.distances.shape)
    part = replace(
        growth,
        time=longest,
        distances=np.where(valid, np.take_along_axis(growth.distances[rows], place, axis=1), np.nan),
        floor=np.where(valid, np.take_along_axis(floor[rows], place, axis=1), np.nan),
        group=growth.group[rows],
        start=step[rows, first],
        scale=growth.scale[rows],
        speed=None,
        n_references=len(np.unique(growth.group[rows])),
        settings=growth.settings | {"window": window},
    )
    curves, group, _ = part.curves()
    part = replace(part, log_distance=mean_curve(curves, group))
    return fit_twins(part, (0.0, float(longest[-1])), **options)


def _record_windows(x: Any, window: int | None, step: int | None, *, method: str, **options: Any) -> Windows:
    if not hasattr(x, "step"):
        x = np.asarray(x)
        if x.dtype.kind not in "fiub" or x.ndim not in (1, 2):
            raise DataError(
                f"windows need twins, a Run, a Trajectory, or an array (T,) or (T, d) of real numbers; got {x.dtype} "
                f"of shape {x.shape}"
            )
    recorded = np.asarray(x.step if hasattr(x, "step") else np.arange(len(x)), dtype=np.int64)
    if not len(recorded):
        raise DataError("the record has no states")
    if window is None:
        raise DataError(
            f"give window=, the length of the windows in steps; the record covers steps {recorded[0]} to {recorded[-1]}"
        )
    gap = int(np.median(np.diff(recorded))) if len(recorded) > 1 else 1
    start, stop = _edges(int(recorded[0]), int(recorded[-1]) + gap, window, step)
    exponents: list[Exponent] = []
    for a, b in zip(start.tolist(), stop.tolist(), strict=True):
        if not np.any((recorded >= a) & (recorded < b)):
            none = Reason.of("no-states", "no state was recorded in the steps {start} to {stop}", start=a, stop=b)
            exponents.append(unknown_exponent(method, "1/step", options["level"], (none,)))
        else:
            exponents.append(lyapunov(x, method=method, window=(a, b), **options))
    known = np.array([exponent.verdict != "inconclusive" for exponent in exponents])
    clock = _time_per_step(x, recorded, options["dt"])
    return combine(exponents, start, stop, clock, known=known, settings=_settings(exponents, options))


def _time_per_step(x: Any, recorded: Ints, dt: float | None) -> float:
    """Time of one step; `dt` is the time between two samples, which may be several steps apart."""
    if dt is None:
        return float(getattr(x, "dt", 1.0))
    gap = float(recorded[1] - recorded[0]) if len(recorded) > 1 else 1.0
    return dt / gap


def _settings(exponents: list[Exponent], options: dict[str, Any]) -> dict[str, Any]:
    rng = options["rng"]
    plain = {name: value for name, value in options.items() if name != "rng"}
    return plain | {"method": exponents[0].method, "rng": int(rng) if isinstance(rng, (int, np.integer)) else str(rng)}


def _twins(x: Any, metric: Any, dt: float | None, options: dict[str, Any]) -> Divergence:
    return twins(x, metric=metric, average=options.get("average") or "mean-log", dt=dt)
