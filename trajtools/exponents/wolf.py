"""Exponents from one neighbour, or one neighbourhood, with replacement: Wolf et al. (1985), and a hybrid with Kantz."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.divergence import Divergence
from trajtools.exponents.following import (
    EQUAL_COSINES,
    Walk,
    absolute_radii,
    block_starts,
    candidates,
    check_average,
    cosine,
    delay_vectors,
    growth_limit,
    mean_rate,
    prepare_walk,
    sampling,
    segments_divergence,
    with_settings,
)
from trajtools.exponents.published_curves import (
    CALIGIURI,
    MITTRA,
    caligiuri_profile,
    caligiuri_wolf,
    mittra_cloud,
)
from trajtools.exponents.published_fits import PRODUCTION
from trajtools.inputs import takes_states
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.neighbors.search import count_left_out
from trajtools.trajectory import Pair, StatesLike
from trajtools.types import Floats, Ints, TimeStepLike

if TYPE_CHECKING:
    from trajtools.distances.metric import MetricLike
    from trajtools.distances.pairwise import Distances

WOLF_PROCEDURES = (CALIGIURI, PRODUCTION)
CANDIDATES, CANDIDATE_SHARE = 64, 50
LEAST_CHOICE = 8  # nearest states among which a replacement is chosen, though they be beyond the limit
HYBRID_PROCEDURES = (MITTRA,)


# Radians; tuned on flows, where a neighbour off the growing direction first separates faster than the exponent.
TURN = 0.1


MEMBERS = 32


@takes_states("x", matrices=True)
def wolf(
    x: StatesLike | Distances,
    *,
    metric: MetricLike = "l2",
    scale: str | None = None,
    neighbors: NearestK | None = None,
    theiler: int | None = None,
    horizon: int,
    dim: int | None = None,
    delay: int = 1,
    dt: TimeStepLike = None,
    limit: float | None = None,
    nodes: int | None = None,
    across: bool = False,
    procedure: str | None = None,
    points: int | None = None,
) -> Divergence:
    r"""Growth of the distance to one neighbour, block after block, with replacement (Wolf et al. 1985).

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,); or (T, T); or (T, N, N)
        States of one trajectory of any dimension; with ``metric="precomputed"`` their distances; with
        ``metric="graph-l1"`` adjacency matrices.
    metric : str or callable
        ``"l1"``, ``"l2"``, ``"linf"``, ``"precomputed"``, or ``"graph-l1"``: the sum of the absolute differences of all
        links over N(N-1). Or a function of two blocks of states (t, d) that returns their distances (t,), row by row.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    neighbors : NearestK or None
        Number of nearest states among which a replacement is chosen; None: a fiftieth of all, at most 64. With 1, the
        nearest state is used regardless of its direction.
    theiler : int or None, in samples
        States closer in time than this are not neighbours; None: three times the correlation time, at most an eighth of
        the record, as in `trajtools.lyapunov`.
    horizon : int, in samples
        Evolution time: length of a block, after which a pair may be replaced.
    dim, delay : int or None, int, in samples
        Embed a series: delay vectors of dimension `dim`; None: `x` already has states.
    dt : float, duration, array_like or None
        Time between two samples: a number, a duration (``"1h"``, `numpy.timedelta64`, `pandas.Timedelta`), or the times
        of all samples. None: that of the trajectory or of the clock of a table, else 1.
    limit : float or None, in units of the metric
        A neighbour beyond this distance at the end of a block is replaced. None: a tenth of the median distance between
        two states.
    nodes : int or None
        Number of nodes N for ``"graph-l1"`` of rows of links (T, E); matrices and Trajectories of networks define it.
    across : bool
        Measure the growth across the motion, see `trajtools.rosenstein`; neighbours, limits and angles use full
        distances.
    procedure : None, "caligiuri2023" or "caligiuri2023-production"
        None: the procedure described here. ``"caligiuri2023"``: that of [2]_ for networks, reproduced exactly, with its
        bias. ``"caligiuri2023-production"``: the later code of the same authors, with a Theiler window and growing
        windows. See `trajtools.exponents.published_curves`.
    points : int or None, in samples
        Only for the published procedures: the (initial) length w of the fitted window.

    Returns
    -------
    Divergence
        One unit per block, with its distances. The blocks do not overlap, so `fit` can resample them as blocks of time.
        ``settings["rate"]`` is the value of the paper, the total growth over the total time; it includes the first
        steps after a replacement, whose direction is arbitrary, as the curve shows.

    Raises
    ------
    NoNeighborsError
        If no block has a neighbour.
    DataError
        If the data or an argument is invalid.
    UnknownNameError
        If metric or procedure is unknown.

    Notes
    -----
    .. math:: \lambda = \frac{1}{M h} \sum_{m=1}^{M} \ln \frac{d(i_m + h, j_m + h)}{d(i_m, j_m)}, \; i_{m+1} = i_m + h

    This is the variant with fixed evolution time. The replacement is the candidate within `limit` whose separation has
    the smallest angle to the line of the old one (in the paper also on the same side; small separations grow equally on
    both sides); the eight nearest states are candidates in any case, so that there is a choice of directions.
    Angles are computed from distances (comparison angles), for any metric. The nearest state alone is a poor choice for
    flows: it is nearest where the two orbits pass each other, and separates faster than the exponent. States at
    distance zero are not neighbours, and are counted; a pair at distance zero is replaced. No block is dropped because
    of its curve.

    References
    ----------
    .. [1] A. Wolf, J. B. Swift, H. L. Swinney, J. A. Vastano, Physica D 16, 285 (1985),
       doi:10.1016/0167-2789(85)90011-9
    .. [2] A. Caligiuri, V. M. Eguiluz, L. Di Gaetano, T. Galla, L. Lacasa, Phys. Rev. E 107, 044305 (2023),
       doi:10.1103/PhysRevE.107.044305

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.empty(4000)
    >>> x[0] = 0.4
    >>> for t in range(3999):
    ...     x[t + 1] = 1 - 2 * x[t] ** 2 * 0.999
    >>> w = tt.wolf(x, theiler=1, horizon=4)
    >>> bool(abs(w.settings["rate"] - np.log(2)) < 0.05)
    True
    """
    if procedure is not None and procedure not in WOLF_PROCEDURES:
        raise UnknownNameError(
            f"wolf has no procedure {procedure!r}; there are None (the default) and {', '.join(WOLF_PROCEDURES)}"
        )
    x, embedding = delay_vectors(x, dim, delay)
    clock = sampling(x, dt)
    if procedure is not None:
        if neighbors is not None or limit is not None or across:
            raise DataError(
                f"procedure {procedure!r} uses the nearest state, without neighbors=, limit= and across=; omit them"
            )
        published = caligiuri_wolf if procedure == CALIGIURI else caligiuri_profile
        options: dict[str, Any] = {"metric": metric, "nodes": nodes, "theiler": theiler, "horizon": horizon}
        return with_settings(published(x, points=points, clock=clock, **options), embedding)
    if points is not None:
        raise DataError("points= applies to the published procedures; the default one fits nothing, see Divergence.fit")
    if not isinstance(neighbors, NearestK | None):
        raise DataError(f"wolf chooses among the nearest states: neighbors must be a NearestK, not {neighbors!r}")
    walk = prepare_walk(x, metric=metric, nodes=nodes, theiler=theiler, horizon=horizon, across=across)
    rule = neighbors or NearestK(int(np.clip(len(walk) // CANDIDATE_SHARE, 1, CANDIDATES)))
    beyond, spread = growth_limit(walk, limit)
    starts = block_starts(walk)
    index, repeats, strategy = candidates(walk, rule, starts)
    path = _follow_wolf(walk, starts, index, beyond)
    counts = count_left_out(walk.states, repeats)
    counts["blocks_without_neighbors"] = len(starts) - len(path.start)
    counts["zero_later"] = int(np.count_nonzero(path.rows == 0))
    return segments_divergence(
        walk,
        path.rows,
        path.start,
        method="wolf",
        average="mean-log",
        rule=rule,
        strategy=strategy.name,
        clock=clock,
        settings={
            "strategy_why": strategy.why,
            "procedure": None,
            "limit": beyond,
            "spread": spread,
            "left_out": counts,
            "neighbor": path.neighbor,
            "turn": path.turn,
            "kept": path.retained,
            "n_kept": int(path.retained.sum()),
            "rate": mean_rate(path.rows, horizon * clock[0]),
            **embedding,
        },
    )


def _follow_wolf(walk: Walk, starts: Ints, index: Ints, limit: float) -> _WolfPath:
    """Choose and follow a neighbour for every block along the trajectory."""
    horizon = walk.states.horizon
    rows, first_states, chosen, turns, retained = [], [], [], [], []
    # Index of the old neighbour, its distance, and the time, at the end of the last block.
    old, gap, arrival = -1, np.nan, -1
    for i, row in zip(starts.tolist(), index, strict=True):
        known = i == arrival and gap > 0
        keep = known and gap <= limit and bool(walk.states.usable[old])
        turn = np.nan
        if keep:
            j = old
        else:
            near = row[row >= 0]
            if not len(near):
                arrival = -1
                continue
            at = 0
            if known:
                # A replacement beyond the limit would not be kept either, and leaves the linear range before long.
                gaps = walk.distances(i, near)
                inside = max(LEAST_CHOICE, int(np.count_nonzero(gaps <= limit)))
                near, gaps = near[:inside], gaps[:inside]
                cosines = np.abs(cosine(gap, gaps, walk.distances(old, near)))
                cosines = np.where(np.isnan(cosines), 0.0, cosines)  # a precomputed distance may be missing
                at = int(np.argmax(cosines >= cosines.max() - EQUAL_COSINES))  # the nearest of the best aligned
                turn = float(np.arccos(cosines[at]))
            j = int(near[at])
        one = np.array([j])
        whole = walk.paths(i, one)
        path = whole[0]
        rows.append(walk.measured(i, one, whole)[0])
        first_states.append(i)
        chosen.append(j)
        turns.append(turn)
        retained.append(keep)
        old, gap, arrival = j + horizon, path[-1], i + horizon
    return _WolfPath(
        np.array(rows).reshape(-1, horizon + 1),
        np.array(first_states, dtype=np.int64),
        np.array(chosen, dtype=np.int64),
        np.array(turns),
        np.array(retained, dtype=bool),
    )


@dataclass(frozen=True, eq=False)
class _WolfPath:
    """Blocks: distances (B, K + 1), first states, neighbours, angles to the old one (NaN if none), whether retained."""

    rows: Floats
    start: Ints
    neighbor: Ints
    turn: Floats
    retained: Any


@takes_states("x", pairs=True, matrices=True)
def hybrid(
    x: StatesLike | Distances | Pair,
    *,
    metric: MetricLike = "l2",
    scale: str | None = None,
    neighbors: WithinRadius | NearestK | None = None,
    theiler: int | None = None,
    horizon: int | None = None,
    dim: int | None = None,
    delay: int = 1,
    dt: TimeStepLike = None,
    average: str = "log-mean",
    limit: float | None = None,
    turn: float = TURN,
    nodes: int | None = None,
    across: bool = False,
    procedure: str | None = None,
) -> Divergence:
    r"""Growth of a neighbourhood, block after block, with replacement when it has grown or turned too far.

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,); or (T, T); or (T, N, N)
        States of one trajectory of any dimension; with ``metric="precomputed"`` their distances; with
        ``metric="graph-l1"`` adjacency matrices. For ``"mittra2024"``: a reference with its perturbed copies.
    metric : str or callable
        ``"l1"``, ``"l2"``, ``"linf"``, ``"precomputed"`` or ``"graph-l1"``; or a function of two blocks of states
        (t, d) that returns their distances (t,), row by row.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    neighbors : WithinRadius, NearestK or None
        Ball from which the members of a new neighbourhood are chosen; None: the 32 nearest states.
    theiler : int or None, in samples
        States closer in time than this are not neighbours; None: three times the correlation time, at most an eighth of
        the record, as in `trajtools.lyapunov`. Not for ``"mittra2024"``.
    horizon : int, in samples
        Length of a block, after which a neighbourhood may be replaced. Required except for ``"mittra2024"``.
    dim, delay : int or None, int, in samples
        Embed a series: delay vectors of dimension `dim`; None: `x` already has states.
    dt : float, duration, array_like or None
        Time between two samples: a number, a duration (``"1h"``, `numpy.timedelta64`, `pandas.Timedelta`), or the times
        of all samples. None: that of the trajectory or of the clock of a table, else 1.
    average : str
        Inside a neighbourhood: ``"log-mean"`` (Kantz), ``"mean-log"`` (Parlitz) or ``"rms"``, as in `trajtools.kantz`.
    limit : float or None, in units of the metric
        A neighbourhood with a larger mean distance at the end of a block is replaced. None: a tenth of the median
        distance between two states.
    turn : float, in radians
        Largest angle to the line of the old neighbourhood: a neighbourhood with a larger median angle is replaced, and
        new members must be within it.
    nodes : int or None
        Number of nodes N for ``"graph-l1"`` of rows of links (T, E); matrices and Trajectories of networks define it.
    across : bool
        Measure the growth across the motion, see `trajtools.rosenstein`; neighbours, limits and angles use full
        distances.
    procedure : None or "mittra2024"
        None: the procedure described here. ``"mittra2024"``: the perturbed cloud of [3]_, with a warning about what it
        measures; see `trajtools.exponents.published_curves`.

    Returns
    -------
    Divergence
        One unit per block: the averaged distance of its neighbourhood. The blocks do not overlap, so `fit` can resample
        them as blocks of time. ``settings["rate"]`` is the total growth over the total time.

    Raises
    ------
    NoNeighborsError
        If no block has a neighbour.
    DataError
        If the data or an argument is invalid.
    UnknownNameError
        If metric, average or procedure is unknown.

    Notes
    -----
    The neighbourhood of [2]_ follows the trajectory as in [1]_. At the end of a block its line is that of its
    farthest member, which has grown most. New members are the states of the ball whose separation is within `turn` of
    that line, on either side; if they are too few, the best aligned ones are used, and counted. Angles are computed
    from distances (comparison angles), for any metric. States at distance zero are not neighbours, and are counted.

    References
    ----------
    .. [1] A. Wolf, J. B. Swift, H. L. Swinney, J. A. Vastano, Physica D 16, 285 (1985),
       doi:10.1016/0167-2789(85)90011-9
    .. [2] H. Kantz, Phys. Lett. A 185, 77 (1994), doi:10.1016/0375-9601(94)90991-1
    .. [3] T. Mittra, Utilizing Lyapunov Exponents in designing deep neural networks, arXiv:2410.05988 (2024)

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.empty(4000)
    >>> x[0] = 0.4
    >>> for t in range(3999):
    ...     x[t + 1] = 1 - 2 * x[t] ** 2 * 0.999
    >>> h = tt.hybrid(x, neighbors=tt.WithinRadius(2e-3), theiler=1, horizon=4)
    >>> bool(abs(h.settings["rate"] - np.log(2)) < 0.05)
    True
    """
    if procedure is not None and procedure not in HYBRID_PROCEDURES:
        raise UnknownNameError(
            f"hybrid has no procedure {procedure!r}; there are None (the default) and {', '.join(HYBRID_PROCEDURES)}"
        )
    if procedure == MITTRA:
        others = (neighbors, theiler, limit, nodes, dim)
        if across or any(value is not None for value in others):
            raise DataError(
                "procedure 'mittra2024' has no neighbour search: give only the cloud, metric, horizon and dt"
            )
        return mittra_cloud(x, metric=metric, horizon=horizon, dt=dt)
    if horizon is None:
        raise DataError("hybrid needs horizon=, in samples")
    if not 0 < turn <= np.pi / 2:
        raise DataError(f"turn, an angle between two lines, must be above 0 and at most pi/2; got {turn!r}")
    check_average(average)
    x, embedding = delay_vectors(x, dim, delay)
    clock = sampling(x, dt)
    rule = neighbors or NearestK(MEMBERS)
    walk = prepare_walk(x, metric=metric, nodes=nodes, theiler=theiler, horizon=horizon, across=across)
    balls = _Ball(walk, rule, block_starts(walk))
    beyond, spread = growth_limit(walk, limit)
    path = _follow_ball(walk, balls, beyond, float(np.cos(turn)), average)
    counts = count_left_out(walk.states, balls.repeats)
    counts |= {"blocks_without_neighbors": len(balls.starts) - len(path.rows), "missing_later": path.missing}
    counts["zero_later"] = int(sum(np.count_nonzero(row == 0) for row in path.rows))
    rows = np.array(path.rows).reshape(-1, horizon + 1)
    return segments_divergence(
        walk,
        rows,
        np.array(path.start, dtype=np.int64),
        method="hybrid",
        average=average,
        rule=rule,
        strategy=balls.strategy,
        clock=clock,
        settings={
            "procedure": None,
            "limit": beyond,
            "spread": spread,
            "turn": turn,
            "radius": balls.radius,
            "left_out": counts,
            "sizes": np.array(path.sizes, dtype=np.int64),
            "kept": np.array(path.retained, dtype=bool),
            "n_kept": int(sum(path.retained)),
            "n_too_far": path.too_far,
            "n_turned": path.turned,
            "n_unaligned": path.unaligned,
            "rate": mean_rate(rows, horizon * clock[0]),
            **embedding,
        },
    )


class _Ball:
    """New neighbourhoods of the first states of blocks."""

    def __init__(self, walk: Walk, rule: WithinRadius | NearestK, starts: Ints) -> None:
        self.walk, self.starts, self.repeats = walk, starts, False
        self.times = np.flatnonzero(walk.states.usable)
        self.radius, self.cap, self.least = np.inf, len(walk), 1
        self.strategy = "brute"
        if isinstance(rule, NearestK):
            self.index, self.repeats, strategy = candidates(walk, rule, starts)
            self.strategy = strategy.name
            return
        self.index = np.empty((len(starts), 0), dtype=np.int64)
        radii = absolute_radii(walk.states, rule)
        if len(radii) > 1:
            raise DataError(f"hybrid follows one neighbourhood: give one radius, not {len(radii)}")
        absolute = not (isinstance(rule.radius, str) or rule.relative)
        self.radius = float(radii[0]) * (1.0 if absolute else walk.factor)
        self.cap, self.least = rule.max_neighbors or len(walk), rule.min_neighbors

    def members(self, block: int) -> Ints:
        """Neighbours of the first state of a block, nearest first; none if there are too few."""
        if self.index.shape[1]:
            row = self.index[block]
            return row[row >= 0]
        i = int(self.starts[block])
        others = self.times[np.abs(self.times - i) >= self.walk.states.theiler]
        gaps = self.walk.distances(i, others)
        self.repeats |= bool((gaps == 0).any())
        inside = np.flatnonzero((gaps > 0) & (gaps <= self.radius))
        near = others[inside[np.argsort(gaps[inside], kind="stable")]][: self.cap]
        return near if len(near) >= self.least else near[:0]


def _follow_ball(walk: Walk, balls: _Ball, limit: float, aligned: float, average: str) -> _HybridPath:
    """Follow a neighbourhood along the trajectory; `aligned` is the cosine of the largest turn."""
    path = _HybridPath()
    horizon = walk.states.horizon
    # Members of the old neighbourhood, their distances, and the time, at the end of the last block.
    old, gaps, arrival = np.empty(0, dtype=np.int64), np.empty(0), -1
    for block, i in enumerate(balls.starts.tolist()):
        known = i == arrival and len(old) > 0
        usable = walk.states.usable[old] if known else np.zeros(0, dtype=bool)
        keep = known and int(usable.sum()) >= balls.least
        if keep:
            far = float(gaps.mean()) > limit
            away = not far and float(np.median(_along(walk, i, old, (old, gaps)))) < aligned
            path.too_far += far
            path.turned += away
            keep = not (far or away)
        members = old[usable] if keep else balls.members(block)
        if not keep and known and len(members):
            cosines = _along(walk, i, members, (old, gaps))
            path.unaligned += int(np.count_nonzero(cosines >= aligned - EQUAL_COSINES)) < balls.least
            # At least `least` members: the best aligned ones if too few are within the turn.
            members = members[cosines >= min(aligned, np.sort(cosines)[-balls.least]) - EQUAL_COSINES]
        paths = walk.paths(i, members) if len(members) else np.empty((0, horizon + 1))
        whole = np.all(np.isfinite(paths), axis=1)
        path.missing += int(np.count_nonzero(~whole))
        paths, members = paths[whole], members[whole]
        if not len(members):
            arrival = -1
            continue
        path.rows.append(_averaged(walk.measured(i, members, paths), average))
        path.start.append(i)
        path.sizes.append(len(members))
        path.retained.append(keep)
        apart = paths[:, -1] > 0
        old, gaps, arrival = members[apart] + horizon, paths[apart, -1], i + horizon
    return path


@dataclass(eq=False)
class _HybridPath:
    """Blocks, and counts of the replacements."""

    rows: list[Floats] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    retained: list[bool] = field(default_factory=list)
    too_far: int = 0
    turned: int = 0
    unaligned: int = 0
    missing: int = 0


def _along(walk: Walk, i: int, members: Ints, old: tuple[Ints, Floats]) -> Floats:
    """Cosines between the separations of states and the line of the farthest member of the old neighbourhood."""
    times, gaps = old
    at = int(np.argmax(gaps))
    cosines = np.abs(cosine(gaps[at], walk.distances(i, members), walk.distances(int(times[at]), members)))
    return np.where(np.isnan(cosines), 0.0, cosines)


def _averaged(paths: Floats, average: str) -> Floats:
    """Average distance over the members at each step; zero if all are at distance zero."""
    if average == "log-mean":
        return np.asarray(paths.mean(axis=0))
    if average == "mean-log":
        positive = paths > 0
        logs = np.log(np.where(positive, paths, 1.0)).sum(axis=0) / np.maximum(positive.sum(axis=0), 1)
        return np.where(positive.any(axis=0), np.exp(logs), 0.0)
    top = paths.max(axis=0)
    safe = np.where(top > 0, top, 1.0)  # scaled, so that squares neither underflow nor overflow
    return np.asarray(top * np.sqrt(np.mean((paths / safe) ** 2, axis=0)))
