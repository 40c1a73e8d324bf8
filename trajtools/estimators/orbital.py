"""Orbital stability: distance of perturbed trajectories to the orbit of their reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trajtools.distances.metric import Metric, MetricLike, find_metric
from trajtools.errors import DataError
from trajtools.results.stability import OrbitalStability, Trend
from trajtools.stability.classes import SETTINGS, classify
from trajtools.stability.pairs import Followed, Pair, follow, gather
from trajtools.stability.trends import FLOOR_FACTOR, RESOLUTION_FACTOR, trend
from trajtools.types import Floats, Ints


def orbital_stability(
    reference: Any,
    perturbed: Any = None,
    *,
    metric: MetricLike = "l1",
    window: tuple[int, int] | None = None,
    start: int | Sequence[int] | None = None,
    dt: float | None = None,
    level: float = 0.95,
    rng: Any = 0,
) -> OrbitalStability:
    r"""Compare perturbed trajectories with the orbit of their reference, not only with the state at the same time.

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
        Distance between states, see `trajtools.METRICS`.
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
        raise DataError(f"the trajectories have different units of time, {sorted(units)}; give dt to put them on one")
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
    return dynamical, orbital, _mean(apart), float(np.median(reached)) if reached else float("nan")


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _warnings(followed: list[Followed], settings: dict[str, Any]) -> tuple[str, ...]:
    total, words = len(followed), []
    if settings["n_unperturbed"]:
        words.append(
            f"{settings['n_unperturbed']} of {total} never differ from their reference: they were not perturbed, or "
            "the perturbation was rounded away; they do not count"
        )
    uncommon = sum(one.uncommon for one in followed)
    if uncommon:
        words.append(
            f"{uncommon} states of perturbed trajectories were left out: the reference has no state at their step"
        )
    excluded = sum(one.excluded for one in followed)
    if excluded:
        words.append(f"{excluded} states that are not finite were left out")
    if settings["neutral_removed"] < 0.5:
        words.append(
            f"the neutral direction was removed at {settings['neutral_removed']:.0%} of the states only: elsewhere the "
            "recorded states do not follow each other smoothly. Where the system is a flow, record it more densely"
        )
    if settings["n_censored"]:
        words.append(
            f"at {settings['n_censored']} states the phase lies before the first or after the last state of the "
            "reference; their distance to the orbit does not count"
        )
    if total - settings["n_unperturbed"] == 1:
        words.append("one perturbed trajectory is evidence about this perturbation only; perturb in several directions")
    return tuple(words)
