"""Orbital stability: whether perturbed trajectories return to the orbit of their reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.distances.metric import Metric, MetricLike, find_metric
from trajtools.errors import DataError
from trajtools.reasons import Reason
from trajtools.results import Result
from trajtools.stability.pairs import Followed, Pair, follow, gather
from trajtools.statistics import FEWEST_UNITS, power_evidence, resampled_ratio, sign_flip_p
from trajtools.types import Floats, Ints, RNGLike, StatesLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.store import Run

STABILITY_CLASSES = ("asymptotically stable", "orbitally stable", "marginal drift", "unstable", "inconclusive")
FLOOR_FACTOR = 10.0  # distances below this many times the rounding floor are rounding
RESOLUTION_FACTOR = 3.0  # the same for the estimated error of the interpolated orbit
TIME_BLOCKS = (8, 4)  # as many as leave two states to each
SATURATES = 3.0  # e-folds: after such growth, a curve that is within one of its largest value has ended to grow
FEWEST_POINTS = 3
NAN = float("nan")
DECISIVE = 3.0  # e-folds that a distance must have fallen or grown
NEUTRAL = 1.0  # e-folds within which it has done neither
STOPPED = 0.2  # a fall goes on if at least this share of it belongs to its second half
STEADY = 0.35  # an exponential falls half of its e-folds in the second half
STILL = 0.1  # e-folds: a distance that changes by less in the second half stands still
TUBE = 3.0  # times the perturbation: what the tube around the orbit may measure
LEFT = 0.1  # of the size of the orbit: further away it has been left
SHAPE = 0.2  # evidence, from -1 to 1, that tells an exponential from a power of time where it has no p-value
THOUSANDFOLD = float(np.log(1000))  # growth that is no drift, whatever its shape, unless it is clearly a power of time
SETTINGS = {
    "decisive": DECISIVE,
    "neutral": NEUTRAL,
    "stopped": STOPPED,
    "still": STILL,
    "steady": STEADY,
    "tube_limit": TUBE,
    "left": LEFT,
    "shape": SHAPE,
    "thousandfold": THOUSANDFOLD,
}


@dataclass(frozen=True, eq=False)
class OrbitalStability(Result):
    """How perturbed trajectories move against the orbit of their reference.

    Attributes
    ----------
    verdict : str
        ``"asymptotically stable"``, ``"orbitally stable"``, ``"marginal drift"``, ``"unstable"`` or
        ``"inconclusive"``; see `trajtools.orbital_stability`.
    reasons : tuple of Reason
        Why, in sentences with numbers.
    dynamical, orbital : Trend
        The evidence: how the distance at equal times and the distance to the orbit change.
    metric : str
        Name of the distance between states.
    time : ndarray of float64, shape (K + 1,)
        Time since the perturbation, in `time_unit`.
    time_unit : str
        Unit of `time` and `lag`; rates are in 1 / unit.
    distance : ndarray of float64, shape (U, K + 1)
        Distance of each perturbed trajectory to its reference at equal times (dynamical stability); NaN where either
        state is not finite, and after the end of the record.
    orbit : ndarray of float64, shape (U, K + 1)
        Distance to the set of all recorded states of the reference, before and after: min over s.
    transverse : ndarray of float64, shape (U, K + 1)
        Distance to the orbit at the same phase, the neutral direction along the flow removed where the orbit is
        sampled densely enough; NaN where the phase lies beyond the record.
    lag : ndarray of float64, shape (U, K + 1)
        Time of the reference at the same phase less the time now, in `time_unit`: positive where the perturbed
        trajectory leads. NaN where the reference stands still, or the phase lies beyond the record.
    floor : ndarray of float64, shape (U, K + 1)
        Distance that rounding of the stored weights alone produces; NaN where unknown.
    resolution : ndarray of float64, shape (U, K + 1)
        Estimated error of the orbit between its recorded states, in the metric; 0 where it was not interpolated.
    frechet : ndarray of float64, shape (U,)
        Discrete Frechet distance to the reference over the same steps.
    hausdorff : ndarray of float64, shape (U,)
        Hausdorff distance: no state of the perturbed is further from the orbit, and no state of the reference over
        the same steps is further from the perturbed.
    tube : ndarray of float64, shape (U,)
        Radius of the tube around the orbit that holds the perturbed trajectory: the largest `orbit`.
    extent : ndarray of float64, shape (U,)
        Size of the orbit: largest distance of a state of the reference to the one at the perturbation.
    group : ndarray of int64, shape (U,)
        The initial condition that each belongs to.
    start : ndarray of int64, shape (U,)
        Step of the perturbation.
    n_references : int
        Number of initial conditions.
    n_diverged, n_excluded : int
        Trajectories that end with NaN or inf; states, of either, that are not finite and were left out.
    settings : dict
        Every parameter as used, chosen or given, with the thresholds of the classes.
    warnings : tuple of Reason
        What the reader should know before believing the class.
    """

    verdict: str
    reasons: tuple[Reason, ...]
    dynamical: Trend
    orbital: Trend
    metric: str
    time: Floats
    time_unit: str
    distance: Floats
    orbit: Floats
    transverse: Floats
    lag: Floats
    floor: Floats
    resolution: Floats
    frechet: Floats
    hausdorff: Floats
    tube: Floats
    extent: Floats
    group: Ints
    start: Ints
    n_references: int
    n_diverged: int
    n_excluded: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in STABILITY_CLASSES:
            raise ValueError(f"verdict {self.verdict!r} is none of {', '.join(STABILITY_CLASSES)}")

    def __str__(self) -> str:
        """Say the class and its reasons, one to a line; `repr` has every field."""
        head = f"{self.verdict} ({len(self.group)} perturbed, {self.n_references} initial conditions, {self.metric})"
        return "\n".join([head, *(f"- {words}" for words in (*self.reasons, *self.warnings))])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the distances and the lag; see `trajtools.plots.stability`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw the distances; None makes a new figure, with the lag below them.

        Returns
        -------
        matplotlib.axes.Axes
            Where the distances were drawn.
        """
        from trajtools import plots

        return plots.stability(self, ax=ax)


@dataclass(frozen=True, eq=False)
class Trend(Result):
    """How one distance changes from the perturbation on.

    Attributes
    ----------
    quantity : str
        ``"distance at equal times"`` or ``"distance to the orbit"``.
    rate : float
        Slope of ln d(t), least squares over the part of each curve that is above the numerical floor and, after
        growth by 3 e-folds, not yet within one of its largest value; mean over the initial conditions; in
        1 / time unit. NaN where no curve has such a part.
    rate_interval : (float, float)
        Its confidence interval; NaN where it is unknown.
    change : float
        ln of the distance at the end (mean over the last tenth of what is above the numerical floor; the floor itself
        where it was reached) over the first one. NaN where all of it is below the floor.
    change_interval : (float, float)
        Its confidence interval; NaN where it is unknown.
    late_change : float
        The part of the change that falls into the second half.
    largest : float
        ln of the largest distance over the distance at equal times that the perturbation made.
    n_floor : int
        Trajectories whose distance fell to the numerical floor, and stayed there.
    n_units : int
        Trajectories that count.
    over : str
        What was resampled for the intervals: ``"initial conditions"``, ``"blocks of time"`` or ``"nothing"``.
    exponential : float
        For growth: how much better an exponential describes it than a power law or diffusion, between -1 and 1; NaN
        where nothing grows by an e-fold.
    p_exponential : float
        Probability of evidence at least this strong under the null that both describe it equally well; NaN with
        fewer than 8 initial conditions.
    """

    quantity: str
    rate: float
    rate_interval: tuple[float, float]
    change: float
    change_interval: tuple[float, float]
    late_change: float
    largest: float
    n_floor: int
    n_units: int
    over: str
    exponential: float
    p_exponential: float


def orbital_stability(
    reference: Run | StatesLike | Sequence[Pair],
    perturbed: Run | StatesLike | Sequence[Run | StatesLike] | None = None,
    *,
    metric: MetricLike = "l1",
    window: tuple[int, int] | None = None,
    start: int | Sequence[int] | None = None,
    dt: float | None = None,
    level: float = 0.95,
    rng: RNGLike = 0,
) -> OrbitalStability:
    r"""Test whether perturbed trajectories return to the orbit of their reference.

    Parameters
    ----------
    reference : Run, Trajectory, ndarray (T, P) or (T,), or list of pairs
        The unperturbed trajectory. A Run with members that know their reference needs no `perturbed`. A list of pairs
        ``(reference, [perturbed, ...])`` holds several initial conditions.
    perturbed : Run, Trajectory, ndarray, list of these, or None
        One or several perturbed trajectories. A Run that was restarted from a state of the Run `reference` belongs to
        the member of the same name there, so that the orbit is all of the reference: what came before the restart
        and what came after.
    metric : str, callable or Metric
        Distance between states, see `trajtools.distances.METRICS`.
    window : (int, int) or None
        Steps ``window[0] <= s < window[1]`` of the perturbed trajectories that count. The orbit is always the whole
        reference.
    start : int, sequence of int or None
        Step of the reference at which perturbed arrays begin; one number, or one per perturbed trajectory. None: 0, or
        what a Trajectory says.
    dt : float or None
        Time of a step, in the caller's unit; None keeps the unit of the data.
    level : float
        Confidence level of the intervals.
    rng : int, numpy.random.Generator or None
        Source of the resampling; the same seed gives the same bits.

    Returns
    -------
    OrbitalStability
        Curves, and the class with its evidence.

    Raises
    ------
    DataError
        If there is nothing perturbed, shapes or steps do not match, or a run does not store weights.
    SelectionError
        If no common state lies in the window.
    UnknownNameError
        If there is no such metric.

    Notes
    -----
    Every trajectory counts from the first recorded step (in the window, if there is one) at which it differs from its
    reference. Four distances:

    - :math:`d(x(t), r(t))`, at equal times: *dynamical* (Lyapunov) stability, what [1]_ measures;
    - :math:`\min_s d(x(t), r(s))`, to the set of all recorded states of the reference: *orbital* (Poincare)
      stability, and its largest value, the radius of the tube;
    - the same at the phase that is followed continuously from the perturbation on, between the recorded states: the
      difference has no component along the local velocity there (in the Euclidean sense, whatever the metric), so
      that the neutral direction of every flow is removed. The phase gives the lag;
    - the discrete Frechet distance [2]_ and the Hausdorff distance of the two curves.

    The classes compare ln of a distance at the end with ln of the same distance at the beginning (e-folds):

    - *asymptotically stable*: the distance at equal times fell by more than 3 e-folds and was still falling, or fell
      to the numerical floor;
    - *unstable*: the distance to the orbit, at the phase, grew by more than 3 e-folds, and exponentially, or to more
      than 0.1 of the size of the orbit, or by more than a thousandfold that is not clearly a power of time; or a
      trajectory ended with NaN or inf;
    - *orbitally stable*: the distance to the orbit fell by more than 3 e-folds while that at equal times did not; or
      it stayed within 3 times the perturbation while that at equal times grew by more than one e-fold, into a lag; or
      all but 5 % of the perturbation is a lag at all times;
    - *marginal drift*: the distance to the orbit changed by less than one e-fold without falling steadily, or stood
      still after a fall, or grew as a power of time: a neutral direction, as of a valley of minima;
    - *inconclusive*: none of this can be said.

    A change is "more" or "less" than a number where its whole interval is. Intervals come from resampling initial
    conditions, then their copies; with a single initial condition from blocks of time. One pair of trajectories is
    evidence about that pair only.

    References
    ----------
    .. [1] K. Danovski, M. C. Soriano, L. Lacasa, Front. Complex Syst. 2, 1367957 (2024), doi:10.3389/fcpxs.2024.1367957
    .. [2] T. Eiter, H. Mannila, Technical Report CD-TR 94/64, TU Wien (1994)

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(0, 40, 0.05)[:, None]
    >>> circle = lambda phase, r: r * np.concatenate([np.cos(t + phase), np.sin(t + phase)], axis=1)
    >>> found = tt.orbital_stability(circle(0, 1), circle(0.01, 1), metric="l2", dt=0.05)
    >>> found.verdict, round(float(found.lag[0, 100]), 6)
    ('orbitally stable', 0.01)
    """
    chosen = find_metric(metric)
    if dt is not None and not (np.isfinite(dt) and dt > 0):
        raise DataError(f"dt must be a positive number, got {dt}")
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    pairs = gather(reference, perturbed, start=start, dt=dt)
    followed = [follow(pair, chosen, window) for pair in pairs]
    return _assemble(pairs, followed, chosen, window=window, level=level, rng=np.random.default_rng(rng))


def _assemble(
    pairs: list[Pair],
    followed: list[Followed],
    metric: Metric,
    *,
    window: tuple[int, int] | None,
    level: float,
    rng: np.random.Generator,
) -> OrbitalStability:
    time, where = _grid(pairs, followed)
    names = ("distance", "orbit", "transverse", "lag", "floor", "resolution")
    table = {name: np.full((len(pairs), len(time)), np.nan) for name in names}
    for u, one in enumerate(followed):
        for name in names:
            table[name][u, where[u]] = getattr(one, name)
    group = np.array([one.group for one in followed], dtype=np.int64)
    dynamical, orbital, apart, reached = _evidence(followed, table, time, group, level=level, rng=rng)
    diverged = sum(one.diverged for one in followed)
    verdict, reasons = classify(dynamical, orbital, apart=apart, reached=reached, n_diverged=diverged)
    settings = {
        "metric": metric.name,
        "window": window,
        "level": level,
        "dt": pairs[0].dt,
        "floor_factor": FLOOR_FACTOR,
        "resolution_factor": RESOLUTION_FACTOR,
        **SETTINGS,
        "apart": apart,
        "reached": reached,
        "n_unperturbed": sum(one.unperturbed for one in followed),
        "n_censored": int(sum(one.censored.sum() for one in followed)),
        "neutral_removed": float(np.mean(np.concatenate([one.removed for one in followed]))),
    }
    return OrbitalStability(
        verdict=verdict,
        reasons=reasons,
        dynamical=dynamical,
        orbital=orbital,
        metric=metric.name,
        time=time,
        time_unit=pairs[0].time_unit,
        **table,
        frechet=np.array([one.frechet for one in followed]),
        hausdorff=np.array([one.hausdorff for one in followed]),
        tube=np.array([one.tube for one in followed]),
        extent=np.array([one.extent for one in followed]),
        group=group,
        start=np.array([one.step[0] for one in followed], dtype=np.int64),
        n_references=len(np.unique(group)),
        n_diverged=diverged,
        n_excluded=sum(one.excluded for one in followed),
        settings=settings,
        warnings=_warnings(followed, settings),
    )


def _grid(pairs: list[Pair], followed: list[Followed]) -> tuple[Floats, list[Ints]]:
    """Time since the perturbation that all trajectories share, and where each has its states on it."""
    units = {(pair.dt, pair.time_unit) for pair in pairs}
    if len(units) > 1:
        raise DataError(
            f"the trajectories have different units of time, {sorted(units)}; pass dt to bring them to one unit"
        )
    own = [one.step - one.step[0] for one in followed]
    grid = np.unique(np.concatenate(own))
    spacing = max((np.diff(steps).max() for steps in own if len(steps) > 1), default=0)
    if len(grid) > 1 and np.diff(grid).min() < spacing and any(len(s) < np.sum(grid <= s[-1]) for s in own):
        raise DataError(
            "the trajectories were perturbed at different steps, and the states were not recorded at equal spacing, so "
            "their times cannot be aligned; record every k-th step, or analyse one perturbation at a time with `window`"
        )
    return grid * pairs[0].dt, [np.searchsorted(grid, steps) for steps in own]


def _evidence(
    followed: list[Followed],
    table: dict[str, Floats],
    time: Floats,
    group: Ints,
    *,
    level: float,
    rng: np.random.Generator,
) -> tuple[Trend, Trend, float, float]:
    """Trends of the trajectories that were perturbed and did not diverge, and what the classes need beside them."""
    count = np.array([not one.unperturbed and not one.diverged for one in followed])
    distance, transverse = table["distance"][count], table["transverse"][count]
    begun = np.array([row[np.isfinite(row) & (row > 0)][:1].sum() for row in distance])
    known = begun > 0
    distance, transverse, begun = distance[known], transverse[known], begun[known]
    rounding = FLOOR_FACTOR * np.nan_to_num(table["floor"][count][known])
    finest = np.maximum(rounding, RESOLUTION_FACTOR * np.nan_to_num(table["resolution"][count][known]))
    own = group[count][known]
    dynamical = trend(
        "distance at equal times", time, distance, begun=begun, floor=rounding, group=own, level=level, rng=rng
    )
    orbital = trend(
        "distance to the orbit", time, transverse, begun=begun, floor=finest, group=own, level=level, rng=rng
    )
    apart, reached = [], []
    extent = np.array([one.extent for one in followed])[count][known]
    for same, far, low, size in zip(distance, transverse, finest, extent, strict=True):
        both = np.flatnonzero(np.isfinite(same) & np.isfinite(far) & (same > 0))
        tail = both[-max(1, len(both) // 10) :]
        if len(tail):
            bottom = np.maximum(np.maximum(far[tail], low[tail]), np.finfo(float).tiny)
            apart.append(float(np.mean(np.log(same[tail] / bottom))))
            reached.append(float(np.median(far[tail])) / size if size > 0 else float("nan"))
    return dynamical, orbital, _mean_or_nan(apart), float(np.median(reached)) if reached else float("nan")


def trend(
    quantity: str,
    time: Floats,
    distances: Floats,
    *,
    begun: Floats,
    floor: Floats,
    group: Ints,
    level: float,
    rng: np.random.Generator,
) -> Trend:
    """Measure how a distance changes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        curves = np.log(distances / begun[:, None])
        ground = np.log(floor / begun[:, None])
    units = [_unit(time, curve, low) for curve, low in zip(curves, ground, strict=True)]
    rates, changes, lates = (np.array([getattr(u, name) for u in units]) for name in ("rate", "change", "late"))
    groups = len(np.unique(group[np.isfinite(changes)]))
    if groups > 1:
        over = "initial conditions"
        rate, rate_interval = _over_units(rates, group, level, rng)
        change, change_interval = _over_units(changes, group, level, rng)
    else:
        rate, change = _finite_mean(rates), _finite_mean(changes)
        used = [k for k, unit in enumerate(units) if np.isfinite(unit.change)]
        stop = min((units[k].stop for k in used), default=0)
        rate_interval, change_interval = _over_blocks(time, curves[used, :stop], (rate, change), level)
        over = "blocks of time" if np.isfinite(rate_interval[0]) else "nothing"
    exponential, p = _growth(time, curves, units, group, rng)
    return Trend(
        quantity=quantity,
        rate=rate,
        rate_interval=rate_interval,
        change=change,
        change_interval=change_interval,
        late_change=_finite_mean(lates),
        largest=float(np.max([u.largest for u in units], initial=-np.inf)) if units else NAN,
        n_floor=sum(u.floored for u in units),
        n_units=len(units),
        over=over,
        exponential=exponential,
        p_exponential=p,
    )


def _growth(
    time: Floats, curves: Floats, units: list[_Unit], group: Ints, rng: np.random.Generator
) -> tuple[float, float]:
    """Whether growth is exponential, judged until one e-fold below its largest value."""
    grows = [u for u, unit in enumerate(units) if unit.largest > 1]
    if not grows:
        return NAN, NAN
    filled = np.array([_carried(curves[u]) for u in grows])
    stop = np.array([int(np.argmax(curve >= curve.max() - 1)) for curve in filled], dtype=np.int64)
    evidence = power_evidence(time, filled, np.zeros(len(grows), dtype=np.int64), stop)[:, 0]
    known = np.isfinite(evidence)
    if not known.any():
        return NAN, NAN
    own = group[grows][known]
    each = np.array([evidence[known][own == g].mean() for g in np.unique(own)])
    p = sign_flip_p(each, rng=rng) if len(each) >= FEWEST_UNITS else NAN
    return float(each.mean()), p


@dataclass(frozen=True, eq=False)
class _Unit:
    """The numbers of one curve; `stop` is where its usable part ends."""

    stop: int
    floored: bool
    rate: float
    change: float
    late: float
    largest: float


def _carried(curve: Floats) -> Floats:
    """Fill what was excluded with the last value before it: a fit takes no gaps."""
    known = np.isfinite(curve)
    if known.all():
        return curve
    index = np.maximum.accumulate(np.where(known, np.arange(len(curve)), -1))
    first = int(np.argmax(known))
    return np.where(index >= 0, curve[np.maximum(index, 0)], curve[first])


def _unit(time: Floats, curve: Floats, ground: Floats) -> _Unit:
    """Measure the part of a curve that is above the floor, and for its rate the part before it saturates."""
    known = np.flatnonzero(~np.isnan(curve))
    if not len(known):
        return _Unit(0, False, NAN, NAN, NAN, NAN)
    low = ~(curve[known] > ground[known])
    # At the floor for good: here, and in most of what follows.
    share = np.cumsum(low[::-1])[::-1] / np.arange(len(low), 0, -1)
    reached = np.flatnonzero(low & (share > 0.5))
    used = known[: reached[0]] if len(reached) else known
    used, largest = used[np.isfinite(curve[used])], float(curve[known].max())
    if not len(used):
        return _Unit(0, bool(len(reached)), NAN, NAN, NAN, largest)
    first = float(curve[used[0]])
    if len(reached):
        # Where the floor is unknown it is exact zero, and below it there is no distance that could be told.
        bottom = float(ground[known[reached[0]]])
        fall = (bottom if np.isfinite(bottom) else float(curve[used].min())) - first
        return _Unit(int(known[reached[0]]), True, _slope(time, curve, used), fall, fall / 2, largest)
    tail, half, width = used[-max(1, len(used) // 10) :], len(used) // 2, max(1, len(used) // 20)
    end, middle = float(curve[tail].mean()), float(curve[used[max(0, half - width) : half + width]].mean())
    stop = len(curve)
    if float(curve[used].max()) - first > SATURATES:
        stop = int(used[np.argmax(curve[used] >= curve[used].max() - 1)]) + 1
    return _Unit(stop, False, _slope(time, curve, used[used < stop]), end - first, end - middle, largest)


def _slope(time: Floats, curve: Floats, used: Ints) -> float:
    if len(used) < FEWEST_POINTS:
        return NAN
    x = time[used] - time[used].mean()
    return float(x @ curve[used] / (x @ x))


def _over_units(
    values: Floats, group: Ints, level: float, rng: np.random.Generator
) -> tuple[float, tuple[float, float]]:
    good = np.isfinite(values)
    if not good.any():
        return NAN, (NAN, NAN)
    ratio = resampled_ratio(values[good], np.ones(int(good.sum())), group[good], group[good], level=level, rng=rng)
    return ratio.value, ratio.interval


def _over_blocks(
    time: Floats, curves: Floats, values: tuple[float, float], level: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Student's intervals from the increments of the mean curve over blocks of time."""
    from scipy.special import stdtrit

    used = np.flatnonzero(np.isfinite(curves).all(axis=0)) if len(curves) else np.empty(0, np.int64)
    blocks = next((n for n in TIME_BLOCKS if len(used) > 2 * n), 0)
    if not blocks:
        return (NAN, NAN), (NAN, NAN)
    mean, edges = curves[:, used].mean(axis=0), np.linspace(0, len(used) - 1, blocks + 1).astype(np.int64)
    gain, took = np.diff(mean[edges]), np.diff(time[used][edges])
    error = float(np.std(gain / took, ddof=1) / np.sqrt(blocks))
    half = float(stdtrit(blocks - 1, 0.5 + level / 2)) * error
    width = half * float(time[used[-1]] - time[used[0]])
    rate, change = values
    return (rate - half, rate + half), (change - width, change + width)


def _finite_mean(values: Floats) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if len(good) else NAN


def _mean_or_nan(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def classify(
    dynamical: Trend, orbital: Trend, *, apart: float, reached: float, n_diverged: int
) -> tuple[str, tuple[Reason, ...]]:
    """Choose the class, in the order of the reasons."""
    if n_diverged:
        words = (
            "{diverged} of {total} perturbed trajectories end with NaN or infinite weights while their reference does "
            "not"
        )
        total = n_diverged + dynamical.n_units
        return "unstable", (Reason.of("diverged", words, diverged=n_diverged, total=total),)
    if not dynamical.n_units:
        words = "no perturbed trajectory differs from its reference: there is nothing to analyse"
        return "inconclusive", (Reason("no-perturbation", words),)
    if _decays(dynamical):
        return "asymptotically stable", (_fell(dynamical),)
    grown = _grows(orbital, reached)
    if grown is not None:
        return "unstable", (grown,)
    if _decays(orbital):
        return "orbitally stable", (_fell(orbital), _phase(dynamical, apart))
    if orbital.largest <= -DECISIVE:
        words = "the distance to the orbit is never more than {share:.2g} of the perturbation"
        close = Reason.of("close-to-orbit", words, share=np.exp(orbital.largest))
        return "orbitally stable", (close, _phase(dynamical, apart))
    if orbital.largest <= np.log(TUBE) and apart > NEUTRAL and dynamical.change_interval[0] > NEUTRAL:
        words = "the distance to the orbit stays within {factor:.3g} times the perturbation"
        near = Reason.of("bounded", words, factor=np.exp(orbital.largest))
        return "orbitally stable", (near, _phase(dynamical, apart))
    neutral = None if _falling(dynamical) or _falling(orbital) else _neutral(orbital)
    if neutral is not None:
        return "marginal drift", (neutral, _changed(dynamical))
    return "inconclusive", (_undecided(orbital), _changed(dynamical))


def _decays(of: Trend) -> bool:
    if of.n_floor == of.n_units and of.change <= -DECISIVE:
        return True
    ended = of.change_interval[1] < -DECISIVE and of.rate_interval[1] < 0
    return bool(ended and of.late_change < STOPPED * of.change)


def _grows(of: Trend, reached: float) -> Reason | None:
    if not of.change_interval[0] > DECISIVE:
        return None
    words = "the distance to the orbit grew by {change:.3g} e-folds, interval {interval}"
    values = {"change": of.change, "interval": _span(of.change_interval), "evidence": of.exponential}
    if _exponential(of):
        words += ", exponentially (evidence against a power law {evidence:.2g} on a scale from -1 to 1)"
        return Reason.of("exponential-growth", words, **values)
    if reached > LEFT:
        words += ", and reached {reached:.2g} of the size of the orbit: its neighbourhood was left"
        return Reason.of("left-neighbourhood", words, reached=reached, **values)
    if of.change_interval[0] > THOUSANDFOLD and not _power(of):
        words += ": more than a thousandfold, though not in the shape of an exponential ({evidence:.2g})"
        return Reason.of("thousandfold-growth", words, **values)
    return None


def _exponential(of: Trend) -> bool:
    return of.p_exponential <= 0.01 if np.isfinite(of.p_exponential) else of.exponential > SHAPE


def _span(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.3g}, {interval[1]:.3g}]" if np.isfinite(interval).all() else "unknown"


def _power(of: Trend) -> bool:
    return of.exponential < -SHAPE


def _neutral(of: Trend) -> Reason | None:
    low, high = of.change_interval
    words = "the distance to the orbit changed by {change:.3g} e-folds, interval {interval}"
    values = {"change": of.change, "interval": _span(of.change_interval)}
    if low > -NEUTRAL and high < NEUTRAL:
        return Reason.of("neutral", words + ": it neither decays nor grows exponentially", **values)
    if of.change < NEUTRAL and abs(of.late_change) < STILL and of.n_floor < of.n_units and np.isfinite(low):
        words += ", and then stopped: {late:.2g} of it in the second half"
        return Reason.of("stands-still", words, late=of.late_change, **values)
    if low > 0 and _power(of):
        words += ", in the shape of a power of time (evidence for an exponential {evidence:.2g})"
        return Reason.of("power-of-time", words, evidence=of.exponential, **values)
    return None


def _falling(of: Trend) -> bool:
    """Whether it falls as steadily in the second half as in the first, though not yet far enough."""
    share = of.late_change / of.change if of.change < 0 else 0.0
    return bool(of.rate_interval[1] < 0 and of.late_change < -STILL and share > STEADY)


def _undecided(of: Trend) -> Reason:
    values = {"quantity": of.quantity, "change": of.change, "interval": _span(of.change_interval)}
    if not np.isfinite(of.change) or (of.n_floor == of.n_units and not np.isfinite(of.rate)):
        words = "the {quantity} is at the numerical floor, or excluded, from the start: perturb by more"
        return Reason.of("below-rounding-floor", words, quantity=of.quantity)
    if not np.isfinite(of.change_interval[0]):
        words = (
            "the {quantity} changed by {change:.3g} e-folds over too few states for an interval; record more states, "
            "or more initial conditions"
        )
        return Reason.of("too-few-states", words, **values)
    if _falling(of):
        falls = _fell(of)
        return Reason("still-decays", f"{falls}, and is still falling: record longer", falls.numbers)
    if of.change_interval[0] > NEUTRAL:
        words = (
            "the {quantity} grew by {change:.3g} e-folds, interval {interval}, and the data do not decide whether "
            "the growth was exponential (evidence {evidence:.2g}); use more initial conditions, or a smaller "
            "perturbation"
        )
        return Reason.of("growth-undecided", words, evidence=of.exponential, **values)
    words = (
        "the {quantity} changed by {change:.3g} e-folds, interval {interval}: neither within {neutral:g} nor beyond "
        "{decisive:g} of them; record longer, or more initial conditions"
    )
    return Reason.of("change-undecided", words, neutral=NEUTRAL, decisive=DECISIVE, **values)


def _fell(of: Trend) -> Reason:
    if not np.isfinite(of.rate):
        words = "the {quantity} is below numerical resolution from the start, {change:.3g} e-folds down"
        return Reason.of("below-rounding-floor", words, quantity=of.quantity, change=-of.change)
    words = (
        "the {quantity} fell by {change:.3g} e-folds at {rate:.4g} per unit of time, interval {interval} over {over}"
    )
    if of.n_floor:
        words += "; {at_floor} of {units} reached the numerical floor"
    return Reason.of(
        "decays",
        words,
        quantity=of.quantity,
        change=-of.change,
        rate=of.rate,
        interval=_span(of.rate_interval),
        over=of.over,
        at_floor=of.n_floor,
        units=of.n_units,
    )


def _changed(of: Trend) -> Reason:
    words = "the {quantity} changed by {change:.3g} e-folds, interval {interval} over {over}"
    values = {"quantity": of.quantity, "interval": _span(of.change_interval), "over": of.over}
    return Reason.of("change", words, change=of.change, **values)


def _phase(of: Trend, apart: float) -> Reason:
    words = "the distance at equal times changed by {change:.3g} e-folds"
    if of.change <= -DECISIVE:
        words += " too, interval {interval} over {over}: asymptotic stability is neither shown nor excluded"
        values = {"interval": _span(of.change_interval), "over": of.over}
        return Reason.of("asymptotic-stability-open", words, change=of.change, **values)
    words += ": what remains is a lag along the orbit, {factor:.3g} times the distance to it"
    return Reason.of("phase-lag", words, change=of.change, factor=np.exp(apart))


def _warnings(followed: list[Followed], settings: dict[str, Any]) -> tuple[Reason, ...]:
    total, warnings = len(followed), []
    if settings["n_unperturbed"]:
        words = (
            "{count} of {total} never differ from their reference: they were not perturbed, or rounding removed "
            "the perturbation; they are not counted"
        )
        warnings.append(Reason.of("unperturbed", words, count=settings["n_unperturbed"], total=total))
    uncommon = sum(one.uncommon for one in followed)
    if uncommon:
        words = "{states} states of perturbed trajectories were left out: the reference has no state at their step"
        warnings.append(Reason.of("steps-differ", words, states=uncommon))
    excluded = sum(one.excluded for one in followed)
    if excluded:
        words = "{excluded} states that are not finite were left out"
        warnings.append(Reason.of("not-finite", words, excluded=excluded))
    if settings["neutral_removed"] < 0.5:
        words = (
            "the neutral direction was removed at {share:.0%} of the states only: elsewhere the recorded states do "
            "not form a smooth path. If the system is a flow, record it more densely"
        )
        warnings.append(Reason.of("not-smooth", words, share=settings["neutral_removed"]))
    if settings["n_censored"]:
        words = (
            "at {states} states the phase lies before the first or after the last state of the reference; their "
            "distance to the orbit is not counted"
        )
        warnings.append(Reason.of("beyond-reference", words, states=settings["n_censored"]))
    if total - settings["n_unperturbed"] == 1:
        words = "one perturbed trajectory tests this perturbation only; perturb in several directions"
        warnings.append(Reason("one-perturbation", words))
    return tuple(warnings)
