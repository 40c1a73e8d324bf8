"""Neighbours and copies as published: blocks of a temporal network, and a perturbed cloud."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.errors import DataError
from trajtools.exponents.divergence import Divergence
from trajtools.exponents.following import Walk, prepare_walk, segments_divergence
from trajtools.exponents.published_fits import PRODUCTION
from trajtools.exponents.twins import twins
from trajtools.neighbors.rules import WithinRadius
from trajtools.reasons import Reason
from trajtools.statistics import average_curves, mean_curve
from trajtools.types import Floats, Ints

if TYPE_CHECKING:
    from trajtools.distances.metric import MetricLike

CALIGIURI = "caligiuri2023"
NO_THEILER = Reason(
    "no-theiler-window",
    "the procedure has no Theiler window: neighbours may be adjacent in time, and these stay close under any dynamics",
)


MITTRA = "mittra2024"
LARGEST = 1e9  # distance at which the published sum ends
CURVATURE = Reason(
    "published-bias",
    "mittra2024 averages the distances of an unaligned cloud over a few steps: for gradient descent this measures the "
    "mean curvature (-eta tr(H) / n), not the largest exponent (-eta h_min), which can have the opposite sign; there "
    "is no renormalisation, replacement or fit, and L1 is not divided by time, so it grows with the record",
)


def caligiuri_wolf(
    x: Any,
    *,
    metric: MetricLike,
    nodes: int | None,
    theiler: int | None,
    horizon: int,
    points: int | None,
    clock: tuple[float, str, Ints | None],
) -> Divergence:
    r"""Blocks of `horizon` states, each with the nearest state of the whole record.

    Notes
    -----
    For :math:`i = 0, \tau, 2\tau, \dots < T - \tau - 1`: the neighbour is the first of the nearest states j with
    0 < j < T - tau - 1 and a positive distance.
    """
    walk, ends = _prepare(x, metric=metric, nodes=nodes, theiler=theiler, horizon=horizon, points=points)
    others = np.arange(1, ends)
    rows, starts, neighbors = [], [], []
    for i in range(0, ends, horizon):
        gaps = walk.distances(i, others)
        apart = gaps > 0
        if not apart.any():
            continue
        j = int(others[apart][np.argmin(gaps[apart])])
        rows.append(walk.paths(i, np.array([j]))[0, :horizon])
        starts.append(i)
        neighbors.append(j)
    return segments_divergence(
        walk,
        np.array(rows).reshape(-1, horizon),
        np.array(starts, dtype=np.int64),
        method="wolf",
        average="mean-log",
        rule=None,
        strategy="brute",
        clock=clock,
        settings={"procedure": CALIGIURI, "points": points, "neighbor": np.array(neighbors, dtype=np.int64)},
        warnings=(NO_THEILER,),
    )


def _prepare(
    x: Any,
    *,
    metric: MetricLike,
    nodes: int | None,
    theiler: int | None,
    horizon: int,
    points: int | None,
    name: str = CALIGIURI,
) -> tuple[Walk, int]:
    """Check the arguments; return the prepared states, and the first state that cannot begin a block."""
    if theiler is None and name == CALIGIURI:
        theiler = 0
    if theiler != 0 and name == CALIGIURI:
        raise DataError(f"procedure 'caligiuri2023' has no Theiler window: use theiler=0, not {theiler}")
    most = horizon if name == CALIGIURI else horizon - 1  # the production code omits the first point
    if points is None or not 3 <= points <= most:
        raise DataError(
            f"points={points!r}: procedure {name!r} fits the first `points` states of each block of "
            f"horizon={horizon}; give 3 to {most}"
        )
    walk = prepare_walk(x, metric=metric, nodes=nodes, theiler=theiler, horizon=horizon)
    if walk.states.not_finite:
        raise DataError(
            f"{walk.states.not_finite} states contain NaN or inf, which procedure {name!r} does not define; select a "
            "window without them"
        )
    return walk, len(walk) - horizon - 1


def caligiuri_profile(
    x: Any,
    *,
    metric: MetricLike,
    nodes: int | None,
    theiler: int | None,
    horizon: int,
    points: int | None,
    clock: tuple[float, str, Ints | None],
) -> Divergence:
    r"""Blocks of `horizon` states, each with the nearest local minimum of its distance profile.

    Notes
    -----
    For :math:`i = 0, \tau, 2\tau, \dots < T - \tau - 1`: of the states j with 0 < j < T - tau - 1,
    :math:`|i - j|` above `theiler`, a positive distance :math:`p_j = d(i, j)` and :math:`p_{j-1} > p_j < p_{j+1}`, the
    neighbour is the nearest, the first of equals. Blocks without such a state are excluded.
    """
    walk, ends = _prepare(
        x, metric=metric, nodes=nodes, theiler=theiler, horizon=horizon, points=points, name=PRODUCTION
    )
    theiler = walk.states.theiler if theiler is None else theiler
    every = np.arange(ends + 1)
    rows, starts, neighbors = [], [], []
    for i in range(0, ends, horizon):
        profile = walk.distances(i, every)
        low = np.flatnonzero((profile[1:-1] < profile[:-2]) & (profile[1:-1] < profile[2:]) & (profile[1:-1] > 0)) + 1
        low = low[np.abs(low - i) > theiler]
        if not len(low):
            continue
        j = int(low[np.argmin(profile[low])])
        rows.append(walk.paths(i, np.array([j]))[0, :horizon])
        starts.append(i)
        neighbors.append(j)
    possible = len(range(0, ends, horizon))
    excluded = Reason.of(
        "blocks-left-out",
        "{missing} of {possible} blocks have no local minimum of the distance outside theiler={theiler}",
        missing=possible - len(rows),
        possible=possible,
        theiler=theiler,
    )
    return segments_divergence(
        walk,
        np.array(rows).reshape(-1, horizon),
        np.array(starts, dtype=np.int64),
        method="wolf",
        average="mean-log",
        rule=None,
        strategy="brute",
        clock=clock,
        settings={
            "procedure": PRODUCTION,
            "points": points,
            "neighbor": np.array(neighbors, dtype=np.int64),
            "blocks": possible,
            "theiler": theiler,
        },
        warnings=(excluded,) if len(rows) < possible else (),
    )


def caligiuri_kantz(
    x: Any,
    *,
    metric: MetricLike,
    nodes: int | None,
    neighbors: Any,
    theiler: int | None,
    horizon: int,
    points: int | None,
    clock: tuple[float, str, Ints | None],
) -> Divergence:
    r"""Blocks of `horizon` states, each with all later states within a radius, up to the first empty ball.

    Notes
    -----
    The ball of state i is :math:`\{j : i \le j < T - \tau - 1, 0 < d(i, j) < \epsilon\}`: only later states, so the
    balls thin out along the record, and the run ends at the first empty one.
    """
    if not isinstance(neighbors, WithinRadius) or neighbors.relative or not np.isscalar(neighbors.radius):
        raise DataError("procedure 'caligiuri2023' needs one absolute radius: neighbors=WithinRadius(epsilon)")
    if isinstance(neighbors.radius, str):
        raise DataError("procedure 'caligiuri2023' has no automatic radius: neighbors=WithinRadius(epsilon)")
    radius = float(np.asarray(neighbors.radius))
    walk, ends = _prepare(x, metric=metric, nodes=nodes, theiler=theiler, horizon=horizon, points=points)
    rows: list[Floats] = []
    sizes: list[int] = []
    for i in range(0, ends, horizon):
        others = np.arange(i, ends)
        gaps = walk.distances(i, others)
        ball = others[(gaps > 0) & (gaps < radius)]
        if not len(ball):
            break
        rows.append(walk.paths(i, ball)[:, :horizon].mean(axis=0))
        sizes.append(len(ball))
    possible = len(range(0, ends, horizon))
    text = "the run ended at the first empty ball, after {blocks} of {possible} blocks"
    ended = Reason.of("empty-ball", text, blocks=len(rows), possible=possible)
    return segments_divergence(
        walk,
        np.array(rows).reshape(-1, horizon),
        np.arange(len(rows)) * horizon,
        method="kantz",
        average="log-mean",
        rule=neighbors,
        strategy="brute",
        clock=clock,
        settings={
            "procedure": CALIGIURI,
            "points": points,
            "radius": radius,
            "sizes": np.array(sizes),
            "blocks": possible,
        },
        warnings=(NO_THEILER, ended) if len(rows) < possible else (NO_THEILER,),
    )


def mittra_cloud(x: Any, *, metric: MetricLike, horizon: int | None, dt: float | None) -> Divergence:
    r"""Mean distance of a cloud of copies to its parent, and the two statistics L1 and L2.

    Notes
    -----
    .. math:: L_1 = \langle \ln d_e / d_1 \rangle_{e = 2 \dots E}, \quad L_2 = \langle \ln d_e / d_{e-1} \rangle_{e = 2
       \dots E}, \quad d_e = \frac{1}{M + 1} \sum_{i=0}^{M} |\theta_i(e) - \theta_0(e)|

    over the M copies and the parent itself, whose zero distance is included, as published; d_1 is the distance after
    the first step. Both means end before the first d_e that is not finite or above 1e9.

    References
    ----------
    .. [1] T. Mittra, Utilizing Lyapunov Exponents in designing deep neural networks, arXiv:2410.05988 (2024)
    """
    growth = twins(x, metric=metric, average="log-mean", dt=dt)
    steps = growth.distances.shape[1] - 1
    last = steps if horizon is None else horizon
    if isinstance(last, bool) or not isinstance(last, (int, np.integer)) or not 2 <= last <= steps:
        raise DataError(f"horizon={horizon!r}: procedure 'mittra2024' needs 2 to {steps} steps; the record has {steps}")
    distances = growth.distances[:, : last + 1]
    curves, group, _ = average_curves(distances, growth.group, growth.start, "log-mean")
    cloud = _cloud(distances, np.stack([growth.group, growth.start], axis=1))
    summed, terms = _published(cloud)
    settings = growth.settings | {"procedure": MITTRA, "horizon": last, "cloud": cloud, "growth": terms}
    settings |= {"L1": summed, "L2": _means(terms)}
    frozen = int(np.count_nonzero(np.all(terms == 0, axis=1)))
    text = "{frozen} of {clouds} clouds never change their size: dead units, not a zero exponent"
    dead = (Reason.of("frozen-clouds", text, frozen=frozen, clouds=len(terms)),) if frozen else ()
    return replace(
        growth,
        method="hybrid",
        time=growth.time[: last + 1],
        log_distance=mean_curve(curves, group),
        distances=distances,
        floor=growth.floor[:, : last + 1],
        settings=settings,
        warnings=(*growth.warnings, CURVATURE, *dead),
    )


def _cloud(distances: Floats, labels: Any) -> Floats:
    """Mean distance to the parent over the parent and its copies, one row per initial condition."""
    _, inverse = np.unique(labels, axis=0, return_inverse=True)
    inverse = inverse.ravel()
    sums = np.zeros((int(inverse.max()) + 1, distances.shape[1]))
    np.add.at(sums, inverse, distances)
    return sums / (np.bincount(inverse) + 1.0)[:, None]


def _published(cloud: Floats) -> tuple[Floats, Floats]:
    """L1 of every cloud, and the terms of L2 (NaN where not used)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(cloud > 0, cloud, np.nan))[:, 1:]
        beyond = np.cumsum(~(cloud[:, 1:] <= LARGEST), axis=1) > 0
    logs = np.where(beyond, np.nan, logs)
    return _means(logs[:, 1:] - logs[:, :1]), np.diff(logs, axis=1)


def _means(rows: Floats) -> Floats:
    """Mean of the finite entries of each row; NaN if there are none."""
    known = np.isfinite(rows)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, rows, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
