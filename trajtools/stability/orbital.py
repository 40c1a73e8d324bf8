"""Orbital stability: whether perturbed trajectories return to the orbit of their reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.distances.metric import Metric, MetricLike, find_metric
from trajtools.errors import DataError
from trajtools.inputs import takes_states
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.stability.pairs import Followed, Pair, Rows, follow, gather
from trajtools.stability.unrelated import UNKNOWN, unrelated
from trajtools.statistics import FEWEST_UNITS, power_evidence, random_generator, resampled_ratio, sign_flip_p
from trajtools.trajectory import StatesLike
from trajtools.types import Floats, Ints, RNGLike, TimeStepLike
from trajtools.wording import bounds, counted, spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.store import Run

STABILITY_CLASSES = ("asymptotically stable", "orbitally stable", "marginal drift", "unstable", "inconclusive")
FLOOR_FACTOR = 10.0  # distances below this multiple of the rounding floor count as rounding
RESOLUTION_FACTOR = 3.0  # likewise for the estimated error of the interpolated orbit
TIME_BLOCKS = (8, 4)  # the first that leaves two states per block
SATURATES = 3.0  # e-folds of growth after which a curve within one e-fold of its maximum is saturated
FEWEST_POINTS = 3
NAN = float("nan")
REFERENCES, SAMPLED, FEWEST_SAMPLED = 8, 128, 16  # references, and states of each, that are tested for drift
CLOSEST = 0.05  # of the pairs of their states
RETURNS = 0.5  # least mean time between these, relative to all pairs
DECISIVE = 3.0  # e-folds of decisive decay or growth
NEUTRAL = 1.0  # e-folds within which a distance is neutral
STOPPED = 0.2  # least fraction of a decay in its second half if it continues
STEADY = 0.35  # an exponential decays by half of its e-folds in the second half
STILL = 0.1  # e-folds: a smaller change in the second half is stationary
TUBE = 3.0  # largest radius of the tube, relative to the perturbation
LEFT = 0.1  # of the size of the orbit: further away the orbit has been left
SHAPE = 0.2  # evidence (-1 to 1) for an exponential against a power of time without a p-value
THOUSANDFOLD = float(np.log(1000))  # larger growth is no drift unless clearly a power of time
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


@dataclass(frozen=True, eq=False, repr=False)
class OrbitalStability(Result):
    """Distances of perturbed trajectories to the orbit of their reference, with a verdict.

    Attributes
    ----------
    verdict : str
        ``"asymptotically stable"``, ``"orbitally stable"``, ``"marginal drift"``, ``"unstable"`` or
        ``"inconclusive"``; see `trajtools.orbital_stability`.
    reasons : tuple of Reason
        Reasons for it, with numbers.
    dynamical, orbital : Trend
        The evidence: trends of the distance at equal times and of the distance to the orbit.
    metric : str
        Name of the distance between states.
    time : ndarray of float64, shape (K + 1,)
        Time since the perturbation, in `time_unit`.
    time_unit : str
        Unit of `time` and `lag`; rates are in 1 / unit.
    distance : ndarray of float64, shape (U, K + 1)
        Distance of each perturbed trajectory to its reference at equal times (dynamical stability); NaN if either state
        is not finite, and after the end of the record.
    orbit : ndarray of float64, shape (U, K + 1)
        Distance to the set of all recorded states of the reference, before and after: min over s.
    transverse : ndarray of float64, shape (U, K + 1)
        Distance to the orbit at the same phase, without the neutral direction along the flow if the orbit is sampled
        densely enough; NaN where the phase lies beyond the record.
    lag : ndarray of float64, shape (U, K + 1)
        Time of the reference at the same phase minus the current time, in `time_unit`: positive if the perturbed
        trajectory leads. NaN where the reference is at rest, or the phase lies beyond the record.
    floor : ndarray of float64, shape (U, K + 1)
        Rounding floor of the distance; NaN where unknown.
    resolution : ndarray of float64, shape (U, K + 1)
        Estimated error of the orbit between its recorded states, in the metric; 0 without interpolation.
    frechet : ndarray of float64, shape (U,)
        Discrete Frechet distance to the reference over the same steps.
    hausdorff : ndarray of float64, shape (U,)
        Hausdorff distance between the perturbed trajectory and the reference: the orbit in one direction, the same
        steps of the reference in the other.
    tube : ndarray of float64, shape (U,)
        Radius of the tube around the orbit that contains the perturbed trajectory: the largest `orbit`.
    extent : ndarray of float64, shape (U,)
        Size of the orbit: largest distance of a state of the reference to the one at the perturbation.
    group : ndarray of int64, shape (U,)
        Initial condition of each trajectory.
    start : ndarray of int64, shape (U,)
        Step of the perturbation.
    n_references : int
        Number of initial conditions.
    n_diverged, n_excluded : int
        Trajectories that end with NaN or inf; excluded states of either (not finite).
    chance_distance, chance_orbit : (float, float)
        What a copy has that has forgotten its reference: 5 % and 95 % quantiles of the distance between two states of
        the reference that lie far apart in time, and of the distance of such a state to the rest of the orbit. NaN
        where the reference drifts.
    settings : dict
        All parameters used, with the thresholds of the classes.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> t = np.arange(400.0)
    >>> orbit = np.c_[np.cos(0.1 * t), np.sin(0.1 * t)]
    >>> result = tt.orbital_stability((orbit, [orbit * (1 + 0.01 * 0.97**t)[:, None]]))
    >>> result.verdict
    'asymptotically stable'
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
    chance_distance: tuple[float, float] = UNKNOWN
    chance_orbit: tuple[float, float] = UNKNOWN
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "distance": ("curve", "time"),
        "orbit": ("curve", "time"),
        "transverse": ("curve", "time"),
        "lag": ("curve", "time"),
        "floor": ("curve", "time"),
        "resolution": ("curve", "time"),
        "group": ("curve",),
        "start": ("curve",),
        "frechet": ("curve",),
        "hausdorff": ("curve",),
        "tube": ("curve",),
        "extent": ("curve",),
    }

    def _sentence(self) -> str:
        meaning = {
            "asymptotically stable": "Perturbed trajectories come back to the orbit of their reference.",
            "orbitally stable": "Perturbed trajectories stay near the orbit of their reference.",
            "marginal drift": self._marginal_sentence(),
            "unstable": "Perturbed trajectories leave the orbit of their reference.",
        }.get(self.verdict, "The data do not decide; the reasons say what is missing.")
        return meaning

    def _marginal_sentence(self) -> str:
        code = self.reasons[0].code
        if code == "power-of-time":
            return "Perturbed trajectories drift away from the orbit of their reference, slower than exponentially."
        if code == "stands-still":
            return "Perturbed trajectories first move, and then stay at a constant distance from the orbit."
        low, high = self.orbital.change_interval
        move = "neither return to it nor leave it"
        if low > 0:
            move = "drift away by less than one e-fold"
        elif high < 0:
            move = "come a little closer, by less than one e-fold"
        return f"Perturbed trajectories stay beside the orbit of their reference: they {move}."

    def _head(self) -> str:
        copies = counted(len(self.group), "perturbed trajectory", "perturbed trajectories")
        return f"{self.verdict}, from {copies} of {counted(self.n_references, 'initial condition')} ({self.metric})"

    def __post_init__(self) -> None:
        if self.verdict not in STABILITY_CLASSES:
            raise ValueError(f"verdict {self.verdict!r} is none of {', '.join(STABILITY_CLASSES)}")

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the distances and the lag; see `trajtools.plots.stability`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Axes for the distances; None: a new figure, with the lag below them.

        Returns
        -------
        matplotlib.axes.Axes
            The axes of the distances.
        """
        from trajtools import plots

        return plots.stability(self, ax=ax)


@dataclass(frozen=True, eq=False, repr=False)
class Trend(Result):
    """Change of one distance after the perturbation.

    Attributes
    ----------
    quantity : str
        ``"distance at equal times"`` or ``"distance to the orbit"``.
    rate : float
        Slope of ln d(t), least squares over the part of each curve above the rounding floor and, after growth by 3
        e-folds, more than one e-fold below its maximum; mean over the initial conditions; in 1 / time unit. NaN
        without such a part.
    rate_interval : (float, float)
        Its confidence interval; NaN if unknown.
    change : float
        ln of the final distance (mean over the last tenth of the part above the rounding floor; the floor itself if
        reached) over the first one. NaN if all of it is below the floor.
    change_interval : (float, float)
        Its confidence interval; NaN if unknown.
    late_change : float
        The change in the second half.
    largest : float
        ln of the largest distance over the size of the perturbation.
    n_floor : int
        Trajectories whose distance fell to the rounding floor and stayed there.
    n_units : int
        Number of trajectories used.
    over : str
        Resampled units of the intervals: ``"initial conditions"``, ``"blocks of time"`` or ``"nothing"``.
    exponential : float
        For growth: advantage of an exponential over a power law or diffusion, between -1 and 1; NaN if nothing grows by
        an e-fold.
    p_exponential : float
        Probability of evidence at least this strong under the null of equally good descriptions; NaN with
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

    def _sentence(self) -> str:
        low, high = np.exp(self.change_interval)
        return f"the {self.quantity} changes by a factor {spoken(float(np.exp(self.change)))} {bounds((low, high))}."


@takes_states("reference", "perturbed", pairs=True, runs=True, single=True)
def orbital_stability(
    reference: Run | StatesLike | Sequence[Pair],
    perturbed: Run | StatesLike | Sequence[Run | StatesLike] | None = None,
    *,
    metric: MetricLike = "l1",
    scale: str | None = None,
    window: tuple[int, int] | None = None,
    start: int | Sequence[int] | None = None,
    dt: TimeStepLike = None,
    level: float = 0.95,
    rng: RNGLike = None,
    progress: Callable[[int, int], None] | None = None,
) -> OrbitalStability:
    r"""Test whether perturbed trajectories return to the orbit of their reference.

    Parameters
    ----------
    reference : Run, Trajectory, ndarray (T, P) or (T,), or list of pairs
        The unperturbed trajectory. A Run whose members refer to their reference needs no `perturbed`. A list of pairs
        ``(reference, [perturbed, ...])`` has several initial conditions.
    perturbed : Run, Trajectory, ndarray, list of these, or None
        One or several perturbed trajectories. A Run restarted from a state of the Run `reference` belongs to the member
        of the same name there, so that the orbit is all of the reference, before and after the restart.
    metric : str, callable or Metric
        Distance between states, see `trajtools.distances.METRICS`.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    window : (int, int) or None
        Steps ``window[0] <= s < window[1]`` of the perturbed trajectories. The orbit is always the whole reference.
    start : int, sequence of int or None
        First step of perturbed arrays in the reference; one number, or one per perturbed trajectory. None: 0, or that
        of the Trajectory.
    dt : float, duration or None
        Time of a step: a number, or a duration such as ``"1h"``; None: the unit of the data.
    level : float
        Confidence level of the intervals.
    rng : int, numpy.random.Generator or None
        Generator of the resampling; None is the seed 0.
    progress : callable or None
        ``progress(done, total)`` after each perturbed trajectory.

    Returns
    -------
    OrbitalStability
        Curves, class and evidence.

    Raises
    ------
    DataError
        If no trajectory is perturbed, shapes or steps do not match, or a run does not store weights.
    SelectionError
        If no common state lies in the window.
    UnknownNameError
        If there is no such metric.

    Notes
    -----
    Every trajectory starts at the first recorded step (in the window, if any) at which it differs from its reference.
    Of a copy that was planted anew beside its reference, the longest stretch between two plantings is one trajectory,
    and the rest is not used.
    Four distances:

    - :math:`d(x(t), r(t))`, at equal times: *dynamical* (Lyapunov) stability, as in [1]_;
    - :math:`\min_s d(x(t), r(s))`, to the set of all recorded states of the reference: *orbital* (Poincare)
      stability, and its largest value, the radius of the tube;
    - the distance at the phase, which is followed continuously from the perturbation on, between the recorded states:
      the difference has no component along the local velocity there (in the Euclidean sense, for any metric), which
      removes the neutral direction of every flow. The phase gives the lag;
    - the discrete Frechet distance [2]_ and the Hausdorff distance of the two curves.

    The classes compare ln of the final distance with ln of the initial distance (in e-folds):

    - *asymptotically stable*: the distance at equal times decreased by more than 3 e-folds and still decreases, or
      decreased to the rounding floor;
    - *unstable*: the distance to the orbit, at the phase, grew by more than 3 e-folds, and exponentially, or to more
      than 0.1 of the size of the orbit, or more than a thousandfold and not clearly as a power of time; or a trajectory
      ended with NaN or inf;
    - *orbitally stable*: the distance to the orbit decreased by more than 3 e-folds while that at equal times did not;
      or it stayed within 3 times the perturbation while that at equal times grew by more than one e-fold, into a lag;
      or all but 5 % of the perturbation is a lag at all times;
    - *marginal drift*: the distance to the orbit changed by less than one e-fold without a steady decrease, or stopped
      after a decrease, or grew as a power of time: a neutral direction, as of a valley of minima;
    - *inconclusive*: none of these.

    On an attractor even a copy that has forgotten its reference stays near the orbit, because the orbit is everywhere
    there. `chance_distance` and `chance_orbit` say how far apart unrelated states are, at equal times and from the
    orbit: states of the reference that lie more than three correlation times apart. A training that drifts has no
    unrelated states, since its close states are all close in time, and a reordering of them is no training. There the
    bands are NaN, and only the rounding floor remains to compare with.

    "More" and "less" than a number refer to the whole interval. Intervals come from resampling initial conditions, then
    their copies; with a single initial condition, from blocks of time. One pair of trajectories is evidence about that
    pair only.

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
    >>> result = tt.orbital_stability(circle(0, 1), circle(0.01, 1), metric="l2", dt=0.05)
    >>> result.verdict, round(float(result.lag[0, 100]), 6)
    ('orbitally stable', 0.01)
    """
    bound = find_metric(metric)
    if dt is not None and not (np.isfinite(dt) and dt > 0):
        raise DataError(f"dt must be a positive number, got {dt}")
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    pairs = gather(reference, perturbed, start=start, dt=dt)
    followed = []
    for done, pair in enumerate(pairs, 1):
        followed.append(follow(pair, bound, window))
        if progress is not None:
            progress(done, len(pairs))
    return _assemble(pairs, followed, bound, window=window, level=level, rng=random_generator(rng))


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
    references = list({id(pair.reference.states): pair.reference for pair in pairs}.values())[:REFERENCES]
    drift = _drift(references)
    chance_distance, chance_orbit = (UNKNOWN, UNKNOWN) if drift else unrelated(references, metric)
    forgotten = _forgotten(table, chance_distance, chance_orbit)
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
        chance_distance=chance_distance,
        chance_orbit=chance_orbit,
        settings=settings,
        warnings=(*_warnings(followed, settings), *drift, *forgotten),
    )


def _grid(pairs: list[Pair], followed: list[Followed]) -> tuple[Floats, list[Ints]]:
    """Common time since the perturbation, and the indices of each trajectory on it."""
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
    """Trends of the perturbed trajectories that did not diverge, with further evidence for the classes."""
    count = np.array([not one.unperturbed and not one.diverged for one in followed])
    distance, transverse = table["distance"][count], table["transverse"][count]
    begun = np.array([row[np.isfinite(row) & (row > 0)][:1].sum() for row in distance])
    perturbed = begun > 0
    distance, transverse, begun = distance[perturbed], transverse[perturbed], begun[perturbed]
    rounding = FLOOR_FACTOR * np.nan_to_num(table["floor"][count][perturbed])
    finest = np.maximum(rounding, RESOLUTION_FACTOR * np.nan_to_num(table["resolution"][count][perturbed]))
    own = group[count][perturbed]
    dynamical = trend(
        "distance at equal times", time, distance, begun=begun, floor=rounding, group=own, level=level, rng=rng
    )
    orbital = trend(
        "distance to the orbit", time, transverse, begun=begun, floor=finest, group=own, level=level, rng=rng
    )
    apart, reached = [], []
    extent = np.array([one.extent for one in followed])[count][perturbed]
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
    """Compute the trend of a distance."""
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
    """Evidence for exponential growth, until one e-fold below the maximum."""
    grows = [u for u, unit in enumerate(units) if unit.largest > 1]
    if not grows:
        return NAN, NAN
    filled = np.array([_fill_forward(curves[u]) for u in grows])
    stop = np.array([int(np.argmax(curve >= curve.max() - 1)) for curve in filled], dtype=np.int64)
    evidence = power_evidence(time, filled, np.zeros(len(grows), dtype=np.int64), stop)[:, 0]
    finite = np.isfinite(evidence)
    if not finite.any():
        return NAN, NAN
    own = group[grows][finite]
    each = np.array([evidence[finite][own == g].mean() for g in np.unique(own)])
    p = sign_flip_p(each, rng=rng) if len(each) >= FEWEST_UNITS else NAN
    return float(each.mean()), p


@dataclass(frozen=True, eq=False)
class _Unit:
    """Trend of one curve; `stop` is the end of its usable part."""

    stop: int
    floored: bool
    rate: float
    change: float
    late: float
    largest: float


def _fill_forward(curve: Floats) -> Floats:
    """Fill excluded values with the last value before them, because fits allow no gaps."""
    finite = np.isfinite(curve)
    if finite.all():
        return curve
    index = np.maximum.accumulate(np.where(finite, np.arange(len(curve)), -1))
    first = int(np.argmax(finite))
    return np.where(index >= 0, curve[np.maximum(index, 0)], curve[first])


def _unit(time: Floats, curve: Floats, ground: Floats) -> _Unit:
    """Compute the trend of the part of a curve above the floor, and its rate before saturation."""
    defined = np.flatnonzero(~np.isnan(curve))
    if not len(defined):
        return _Unit(0, False, NAN, NAN, NAN, NAN)
    low = ~(curve[defined] > ground[defined])
    # Permanently at the floor: at this and most later states.
    share = np.cumsum(low[::-1])[::-1] / np.arange(len(low), 0, -1)
    reached = np.flatnonzero(low & (share > 0.5))
    growing = defined[: reached[0]] if len(reached) else defined
    growing, largest = growing[np.isfinite(curve[growing])], float(curve[defined].max())
    if not len(growing):
        return _Unit(0, bool(len(reached)), NAN, NAN, NAN, largest)
    first = float(curve[growing[0]])
    if len(reached):
        # An unknown floor is exact zero, below which there is no distance.
        bottom = float(ground[defined[reached[0]]])
        fall = (bottom if np.isfinite(bottom) else float(curve[growing].min())) - first
        return _Unit(int(defined[reached[0]]), True, _slope(time, curve, growing), fall, fall / 2, largest)
    tail, half, width = growing[-max(1, len(growing) // 10) :], len(growing) // 2, max(1, len(growing) // 20)
    end, middle = float(curve[tail].mean()), float(curve[growing[max(0, half - width) : half + width]].mean())
    stop = len(curve)
    if float(curve[growing].max()) - first > SATURATES:
        stop = int(growing[np.argmax(curve[growing] >= curve[growing].max() - 1)]) + 1
    return _Unit(stop, False, _slope(time, curve, growing[growing < stop]), end - first, end - middle, largest)


def _slope(time: Floats, curve: Floats, fitted: Ints) -> float:
    if len(fitted) < FEWEST_POINTS:
        return NAN
    x = time[fitted] - time[fitted].mean()
    return float(x @ curve[fitted] / (x @ x))


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
    """Return the class and its reasons."""
    if n_diverged:
        text = (
            "{diverged} of {total} perturbed trajectories end with NaN or infinite weights, but their reference does "
            "not"
        )
        total = n_diverged + dynamical.n_units
        return "unstable", (Reason.of("diverged", text, diverged=n_diverged, total=total),)
    if not dynamical.n_units:
        text = "no perturbed trajectory differs from its reference: there is nothing to analyse"
        return "inconclusive", (Reason("no-perturbation", text),)
    if _decays(dynamical):
        return "asymptotically stable", (_fell(dynamical),)
    grown = _grows(orbital, reached)
    if grown is not None:
        return "unstable", (grown,)
    if _decays(orbital):
        return "orbitally stable", (_fell(orbital), _phase(dynamical, apart))
    if orbital.largest <= -DECISIVE:
        text = "the distance to the orbit is never more than {share:.2g} of the perturbation"
        close = Reason.of("close-to-orbit", text, share=np.exp(orbital.largest))
        return "orbitally stable", (close, _phase(dynamical, apart))
    if orbital.largest <= np.log(TUBE) and apart > NEUTRAL and dynamical.change_interval[0] > NEUTRAL:
        text = "the distance to the orbit stays within {factor:.3g} times the perturbation"
        near = Reason.of("bounded", text, factor=np.exp(orbital.largest))
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
    text = "the distance to the orbit grew by {change:.3g} e-folds, interval {interval}"
    values = {"change": of.change, "interval": _span(of.change_interval), "evidence": of.exponential}
    if _exponential(of):
        text += ", exponentially (evidence against a power law {evidence:.2g} on a scale from -1 to 1)"
        return Reason.of("exponential-growth", text, **values)
    if reached > LEFT:
        text += ", and reached {reached:.2g} of the size of the orbit: the trajectory left its neighbourhood"
        return Reason.of("left-neighbourhood", text, reached=reached, **values)
    if of.change_interval[0] > THOUSANDFOLD and not _power(of):
        text += ": more than a thousandfold, but not exponentially ({evidence:.2g})"
        return Reason.of("thousandfold-growth", text, **values)
    return None


def _exponential(of: Trend) -> bool:
    return of.p_exponential <= 0.01 if np.isfinite(of.p_exponential) else of.exponential > SHAPE


def _span(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.3g}, {interval[1]:.3g}]" if np.isfinite(interval).all() else "unknown"


def _power(of: Trend) -> bool:
    return of.exponential < -SHAPE


def _neutral(of: Trend) -> Reason | None:
    low, high = of.change_interval
    text = "the distance to the orbit changed by {change:.3g} e-folds, interval {interval}"
    values = {"change": of.change, "interval": _span(of.change_interval)}
    if low > -NEUTRAL and high < NEUTRAL:
        if low > 0 or high < 0:
            text += ": it {direction}, but by less than {most:g} e-fold"
            return Reason.of("neutral", text, direction="grows" if low > 0 else "decays", most=NEUTRAL, **values)
        return Reason.of("neutral", text + ": neither a decay nor a growth is seen", **values)
    if of.change < NEUTRAL and abs(of.late_change) < STILL and of.n_floor < of.n_units and np.isfinite(low):
        text += ", and then stopped: {late:.2g} of it in the second half"
        return Reason.of("stands-still", text, late=of.late_change, **values)
    if low > 0 and _power(of):
        text += ", as a power of time (evidence for an exponential {evidence:.2g})"
        return Reason.of("power-of-time", text, evidence=of.exponential, **values)
    return None


def _falling(of: Trend) -> bool:
    """Whether a distance decreases as steadily in the second half as in the first, but not yet decisively."""
    share = of.late_change / of.change if of.change < 0 else 0.0
    return bool(of.rate_interval[1] < 0 and of.late_change < -STILL and share > STEADY)


def _undecided(of: Trend) -> Reason:
    values = {"quantity": of.quantity, "change": of.change, "interval": _span(of.change_interval)}
    if not np.isfinite(of.change) or (of.n_floor == of.n_units and not np.isfinite(of.rate)):
        text = "the {quantity} is at the rounding floor, or excluded, from the start: use a larger perturbation"
        return Reason.of("below-rounding-floor", text, quantity=of.quantity)
    if not np.isfinite(of.change_interval[0]):
        text = (
            "the {quantity} changed by {change:.3g} e-folds over too few states for an interval; record more states, "
            "or more initial conditions"
        )
        return Reason.of("too-few-states", text, **values)
    if _falling(of):
        falls = _fell(of)
        return Reason("still-decays", f"{falls}, and still decreases: record longer", falls.numbers)
    if of.change_interval[0] > NEUTRAL:
        text = (
            "the {quantity} grew by {change:.3g} e-folds, interval {interval}, and the data do not decide whether "
            "the growth was exponential (evidence {evidence:.2g}); use more initial conditions, or a smaller "
            "perturbation"
        )
        return Reason.of("growth-undecided", text, evidence=of.exponential, **values)
    text = (
        "the {quantity} changed by {change:.3g} e-folds, interval {interval}: that is neither less than {neutral:g} "
        "(unchanged) nor more than {decisive:g} (return or growth) in the whole interval; record longer, or more "
        "initial conditions"
    )
    return Reason.of("change-undecided", text, neutral=NEUTRAL, decisive=DECISIVE, **values)


def _fell(of: Trend) -> Reason:
    if not np.isfinite(of.rate):
        text = "the {quantity} is below numerical resolution from the start, {change:.3g} e-folds lower"
        return Reason.of("below-rounding-floor", text, quantity=of.quantity, change=-of.change)
    text = "the {quantity} fell by {change:.3g} e-folds at {rate:.4g} per unit of time, interval {interval} over {over}"
    if of.n_floor:
        text += "; {at_floor} of {units} reached the rounding floor"
    return Reason.of(
        "decays",
        text,
        quantity=of.quantity,
        change=-of.change,
        rate=of.rate,
        interval=_span(of.rate_interval),
        over=of.over,
        at_floor=of.n_floor,
        units=of.n_units,
    )


def _changed(of: Trend) -> Reason:
    text = "the {quantity} changed by {change:.3g} e-folds, interval {interval}"
    text += " over {over}" if np.isfinite(of.change_interval[0]) else " (too few states)"
    values = {"quantity": of.quantity, "interval": _span(of.change_interval), "over": of.over}
    return Reason.of("change", text, change=of.change, **values)


def _phase(of: Trend, apart: float) -> Reason:
    text = "the distance at equal times changed by {change:.3g} e-folds"
    if of.change <= -DECISIVE:
        text += " too, interval {interval} over {over}: asymptotic stability is neither shown nor excluded"
        values = {"interval": _span(of.change_interval), "over": of.over}
        return Reason.of("asymptotic-stability-open", text, change=of.change, **values)
    text += ": what remains is a lag along the orbit, {factor:.3g} times the distance to it"
    return Reason.of("phase-lag", text, change=of.change, factor=np.exp(apart))


def _drift(references: list[Rows]) -> tuple[Reason, ...]:
    """Warn if the references drift: a path that is passed once has nothing to return to."""
    shares = [_time_between_close(rows) for rows in references]
    known = [share for share in shares if np.isfinite(share)]
    if not known or np.median(known) >= RETURNS:
        return ()
    text = (
        "close states of the reference are {share:.0%} as far apart in time as all its states: it drifts and hardly "
        "returns, so the distance to the orbit is that to the path nearby, and says nothing about an attractor"
    )
    return (Reason.of("drift", text, share=float(np.median(known))),)


def _time_between_close(rows: Rows) -> float:
    """Mean time between close states over that between all states, from a sample of them."""
    index = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLED)).round().astype(np.int64))
    states = np.asarray(rows.take(index), dtype=np.float64)
    good = np.isfinite(states).all(axis=1)
    index, states = index[good], states[good]
    if len(index) < FEWEST_SAMPLED:
        return float("nan")
    states /= np.abs(states).max() or 1.0  # squares of a training that ran away overflow
    first, second = np.triu_indices(len(index), 1)
    square = (states * states).sum(axis=1)
    apart = square[first] + square[second] - 2.0 * (states @ states.T)[first, second]
    lag = index[second] - index[first]
    close = apart <= np.quantile(apart, CLOSEST)
    return float(lag[close].mean() / lag.mean())


def _forgotten(
    table: dict[str, Floats], chance_distance: tuple[float, float], chance_orbit: tuple[float, float]
) -> tuple[Reason, ...]:
    """Say so if the copies end as far from their reference as unrelated states."""
    late, orbit = (_late(table[name]) for name in ("distance", "orbit"))
    first = [row[np.isfinite(row)][0] for row in table["distance"] if np.isfinite(row).any()]
    # Where unrelated states are closer than the perturbation, as of a reference at rest, nothing was forgotten.
    if not (first and np.median(first) < chance_distance[0] <= late):
        return ()
    text = (
        "the distance at equal times ends at {late:.3g}, and unrelated states of the reference are {low:.3g} to "
        "{high:.3g} apart: the copies have forgotten their reference"
    )
    values = {"late": late, "low": chance_distance[0], "high": chance_distance[1]}
    if orbit <= chance_orbit[1]:
        text += (
            "; that they lie {orbit:.3g} from its orbit, as unrelated states do (up to {most:.3g}), shows the same "
            "attractor and no return"
        )
        values |= {"orbit": orbit, "most": chance_orbit[1]}
    return (Reason.of("unrelated", text, **values),)


def _late(rows: Floats) -> float:
    """Median over the trajectories of their mean over the last tenth; NaN without any."""
    finite = [row[np.isfinite(row)] for row in rows]
    ends = [float(row[-max(1, len(row) // 10) :].mean()) for row in finite if len(row)]
    return float(np.median(ends)) if ends else NAN


def _warnings(followed: list[Followed], settings: dict[str, Any]) -> tuple[Reason, ...]:
    total, warnings = len(followed), []
    if settings["n_unperturbed"]:
        text = (
            "{count} of {total} never differ from their reference and are excluded: they were not perturbed, or "
            "rounding removed the perturbation"
        )
        warnings.append(Reason.of("unperturbed", text, count=settings["n_unperturbed"], total=total))
    uncommon = sum(one.uncommon for one in followed)
    if uncommon:
        text = "{states} states of perturbed trajectories are excluded: the reference has no state at their step"
        warnings.append(Reason.of("steps-differ", text, states=uncommon))
    excluded = sum(one.excluded for one in followed)
    if excluded:
        lost = [one.lost for one in followed if one.lost >= 0]
        text = "left out as missing (NaN) or infinite: {states} of the reference and its copies"
        if lost:
            text = (
                "{ended} of {total} copies, or their reference, are NaN or infinite from step {first} on (the "
                "earliest): they are analysed up to there"
            )
        values = {
            "excluded": excluded,
            "states": counted(excluded, "state"),
            "ended": len(lost),
            "total": total,
            "first": min(lost, default=-1),
        }
        warnings.append(Reason.of("not-finite", text, **values))
    if settings["neutral_removed"] < 0.5:
        text = (
            "the neutral direction was removed at {share:.0%} of the states only: elsewhere the recorded states do "
            "not form a smooth path. If the system is a flow, record it more densely"
        )
        warnings.append(Reason.of("not-smooth", text, share=settings["neutral_removed"]))
    if settings["n_censored"]:
        text = (
            "at {states} states the phase lies before the first or after the last state of the reference; their "
            "distance to the orbit is not counted"
        )
        warnings.append(Reason.of("beyond-reference", text, states=settings["n_censored"]))
    if total - settings["n_unperturbed"] == 1:
        text = "one perturbed trajectory tests this perturbation only; perturb in several directions"
        warnings.append(Reason("one-perturbation", text))
    return tuple(warnings)
