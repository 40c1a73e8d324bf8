"""One neighbour at a time, replaced when it has gone too far: Wolf et al. (1985), and its hybrid with a Kantz ball."""

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
    growth_limit,
    mean_rate,
    prepare_walk,
    sampling,
    segments_divergence,
)
from trajtools.exponents.published_curves import (
    CALIGIURI,
    MITTRA,
    caligiuri_profile,
    caligiuri_wolf,
    mittra_cloud,
)
from trajtools.exponents.published_fits import PRODUCTION
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.neighbors.search import count_left_out
from trajtools.types import Floats, Ints, Pair, StatesLike

if TYPE_CHECKING:
    from trajtools.distances.metric import MetricLike
    from trajtools.distances.pairwise import Distances

WOLF_PROCEDURES = (CALIGIURI, PRODUCTION)
CANDIDATES, CANDIDATE_SHARE = 64, 50
HYBRID_PROCEDURES = (MITTRA,)


# Chosen on flows, where a neighbour off the growing direction first moves away faster than the exponent says.
TURN = 0.1


MEMBERS = 32


def wolf(
    x: StatesLike | Distances,
    *,
    metric: MetricLike = "l2",
    neighbors: NearestK | None = None,
    theiler: int | None = None,
    horizon: int,
    dt: float | None = None,
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
        links over N(N-1). Or a function of two blocks of states (t, d) that gives their distances (t,), pair by pair.
    neighbors : NearestK or None
        How many of the nearest states are candidates when a neighbour is chosen; None: a fiftieth of all, at most 64.
        With 1 the nearest is taken whatever its direction.
    theiler : int or None, in samples
        States closer in time than this are not neighbours; None: three times the correlation time, at most an eighth of
        the record, as `trajtools.lyapunov` takes it.
    horizon : int, in samples
        Evolution time: how long a pair is followed before it may be replaced, the length of a block.
    dt : float or None, in the time unit
        Time between two samples; None: that of the trajectory, 1 for arrays.
    limit : float or None, in units of the metric
        A neighbour farther away than this at the end of a block is replaced, a closer one is kept. None: a tenth
        of the median distance between two states.
    nodes : int or None
        Number of nodes N for ``"graph-l1"`` of rows of links (T, E); a Trajectory of a network and matrices know it.
    across : bool
        Read the growth from distances across the motion, see `trajtools.rosenstein`; neighbours, limits and angles take
        whole distances.
    procedure : None, "caligiuri2023" or "caligiuri2023-production"
        None is the procedure described here. ``"caligiuri2023"`` is that of [2]_ for networks, exactly, with its bias;
        ``"caligiuri2023-production"`` is the later code of the same authors, with a Theiler window and windows that
        grow; see `trajtools.exponents.published_curves`.
    points : int or None, in samples
        Only for the published procedures: the (first) length w of the fitted window.

    Returns
    -------
    Divergence
        One unit per block: its distances, at its start. The blocks do not overlap, so that `fit` can resample them
        as blocks of time. ``settings["rate"]`` is the value of the paper, the summed growth over the summed time;
        its first steps after a replacement are those of an arbitrary direction, which the curve shows.

    Raises
    ------
    NoNeighborsError
        If no block has a neighbour.
    DataError
        If the data cannot be analysed so.
    UnknownNameError
        If metric or procedure is unknown.

    Notes
    -----
    .. math:: \lambda = \frac{1}{M h} \sum_{m=1}^{M} \ln \frac{d(i_m + h, j_m + h)}{d(i_m, j_m)}, \; i_{m+1} = i_m + h

    This is the fixed evolution time variant. A replacement is the candidate whose separation lies closest to the line
    of the old one (the paper asks for the same side of it, too; small separations grow alike on both). Angles are taken
    from distances (the comparison angle), so that any metric will do. The nearest state alone is a poor choice for
    flows: it is nearest where the two orbits pass each other, and moves away faster than the exponent says. States
    at distance zero are no neighbours, and are counted; a pair that has met is replaced. No block is dropped for the
    look of its curve.

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
            f"wolf has no procedure {procedure!r}; there are None (ours) and {', '.join(WOLF_PROCEDURES)}"
        )
    clock = sampling(x, dt)
    if procedure is not None:
        if neighbors is not None or limit is not None or across:
            raise DataError(
                f"procedure {procedure!r} takes the nearest state and knows no limit and no across; leave them out"
            )
        published = caligiuri_wolf if procedure == CALIGIURI else caligiuri_profile
        return published(x, metric=metric, nodes=nodes, theiler=theiler, horizon=horizon, points=points, clock=clock)
    if points is not None:
        raise DataError("points belongs to the published procedures; this one fits nothing, see Divergence.fit")
    if not isinstance(neighbors, NearestK | None):
        raise DataError(f"wolf chooses among the nearest states: neighbors is a NearestK, not {neighbors!r}")
    walk = prepare_walk(x, metric=metric, nodes=nodes, theiler=theiler, horizon=horizon, across=across)
    rule = neighbors or NearestK(int(np.clip(len(walk) // CANDIDATE_SHARE, 1, CANDIDATES)))
    beyond = growth_limit(walk, limit)
    starts = block_starts(walk)
    index, repeats, strategy = candidates(walk, rule, starts)
    followed = _follow_wolf(walk, starts, index, beyond)
    counts = count_left_out(walk.states, repeats)
    counts["blocks_without_neighbors"] = len(starts) - len(followed.start)
    counts["zero_later"] = int(np.count_nonzero(followed.rows == 0))
    return segments_divergence(
        walk,
        followed.rows,
        followed.start,
        method="wolf",
        average="mean-log",
        rule=rule,
        strategy=strategy.name,
        clock=clock,
        settings={
            "strategy_why": strategy.why,
            "procedure": None,
            "limit": beyond,
            "left_out": counts,
            "neighbor": followed.neighbor,
            "turn": followed.turn,
            "kept": followed.kept,
            "n_kept": int(followed.kept.sum()),
            "rate": mean_rate(followed.rows, horizon * clock[0]),
        },
    )


def _follow_wolf(walk: Walk, starts: Ints, index: Ints, limit: float) -> _WolfPath:
    """Go along the trajectory and choose a neighbour for every block."""
    horizon = walk.states.horizon
    rows, begun, chosen, turns, kept = [], [], [], [], []
    # Where the old neighbour has come to, how far away it is, and at which time.
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
                cosines = np.abs(cosine(gap, walk.distances(i, near), walk.distances(old, near)))
                cosines = np.where(np.isnan(cosines), 0.0, cosines)  # a given distance may be missing
                at = int(np.argmax(cosines >= cosines.max() - EQUAL_COSINES))  # the nearest of the best
                turn = float(np.arccos(cosines[at]))
            j = int(near[at])
        one = np.array([j])
        whole = walk.paths(i, one)
        path = whole[0]
        rows.append(walk.measured(i, one, whole)[0])
        begun.append(i)
        chosen.append(j)
        turns.append(turn)
        kept.append(keep)
        old, gap, arrival = j + horizon, path[-1], i + horizon
    return _WolfPath(
        np.array(rows).reshape(-1, horizon + 1),
        np.array(begun, dtype=np.int64),
        np.array(chosen, dtype=np.int64),
        np.array(turns),
        np.array(kept, dtype=bool),
    )


@dataclass(frozen=True, eq=False)
class _WolfPath:
    """Blocks: distances (B, K + 1), first states, neighbours, angle turned through (NaN without an old one), kept."""

    rows: Floats
    start: Ints
    neighbor: Ints
    turn: Floats
    kept: Any


def hybrid(
    x: StatesLike | Distances | Pair,
    *,
    metric: MetricLike = "l2",
    neighbors: WithinRadius | NearestK | None = None,
    theiler: int | None = None,
    horizon: int | None = None,
    dt: float | None = None,
    average: str = "log-mean",
    limit: float | None = None,
    turn: float = TURN,
    nodes: int | None = None,
    across: bool = False,
    procedure: str | None = None,
) -> Divergence:
    r"""Growth of a neighbourhood that is followed block after block, and replaced when it no longer is one.

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,); or (T, T); or (T, N, N)
        States of one trajectory of any dimension; with ``metric="precomputed"`` their distances; with
        ``metric="graph-l1"`` adjacency matrices. For ``"mittra2024"``: a reference with its perturbed copies.
    metric : str or callable
        ``"l1"``, ``"l2"``, ``"linf"``, ``"precomputed"`` or ``"graph-l1"``; or a function of two blocks of states
        (t, d) that gives their distances (t,), pair by pair.
    neighbors : WithinRadius, NearestK or None
        The ball that the members of a new neighbourhood are taken from; None: the 32 nearest states.
    theiler : int or None, in samples
        States closer in time than this are not neighbours; None: three times the correlation time, at most an eighth of
        the record, as `trajtools.lyapunov` takes it. Not for ``"mittra2024"``.
    horizon : int, in samples
        How long a neighbourhood is followed before it may be replaced, the length of a block. Needed but for
        ``"mittra2024"``.
    dt : float or None, in the time unit
        Time between two samples; None: that of the trajectory, 1 for arrays.
    average : str
        Inside a neighbourhood: ``"log-mean"`` (Kantz), ``"mean-log"`` (Parlitz) or ``"rms"``, as in `trajtools.kantz`.
    limit : float or None, in units of the metric
        A neighbourhood whose mean distance is larger than this at the end of a block is replaced. None: a tenth of the
        median distance between two states.
    turn : float, in radians
        Largest angle to the line of the old neighbourhood: one in which half of the members are further off is
        replaced, and of the new ones those within it are taken.
    nodes : int or None
        Number of nodes N for ``"graph-l1"`` of rows of links (T, E); a Trajectory of a network and matrices know it.
    across : bool
        Read the growth from distances across the motion, see `trajtools.rosenstein`; neighbours, limits and angles take
        whole distances.
    procedure : None or "mittra2024"
        None is the procedure described here. ``"mittra2024"`` is the perturbed cloud of [3]_, with a warning about what
        it measures; see `trajtools.exponents.published_curves`.

    Returns
    -------
    Divergence
        One unit per block: the averaged distance of its neighbourhood. The blocks do not overlap, so that `fit` can
        resample them as blocks of time. ``settings["rate"]`` is the summed growth over the summed time.

    Raises
    ------
    NoNeighborsError
        If no block has a neighbour.
    DataError
        If the data cannot be analysed so.
    UnknownNameError
        If metric, average or procedure is unknown.

    Notes
    -----
    The neighbourhood of [2]_ is taken along the one trajectory of [1]_. At the end of a block its line is that of its
    farthest member, which has grown most. New members are those of the ball whose separation is within `turn` of that
    line, on either side; where they are too few, those closest to it are taken, and counted. Angles are taken from
    distances (the comparison angle), so that any metric will do. States at distance zero are no neighbours, and are
    counted.

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
            f"hybrid has no procedure {procedure!r}; there are None (ours) and {', '.join(HYBRID_PROCEDURES)}"
        )
    if procedure == MITTRA:
        if neighbors is not None or theiler is not None or limit is not None or nodes is not None or across:
            raise DataError(
                "procedure 'mittra2024' searches no neighbours: give the cloud, metric, horizon and dt only"
            )
        return mittra_cloud(x, metric=metric, horizon=horizon, dt=dt)
    if horizon is None:
        raise DataError("hybrid needs horizon=, in samples")
    if not 0 < turn <= np.pi / 2:
        raise DataError(f"turn={turn!r}: an angle between two lines is above 0 and at most pi/2")
    check_average(average)
    clock = sampling(x, dt)
    rule = neighbors or NearestK(MEMBERS)
    walk = prepare_walk(x, metric=metric, nodes=nodes, theiler=theiler, horizon=horizon, across=across)
    ask = _Ball(walk, rule, block_starts(walk))
    beyond = growth_limit(walk, limit)
    followed = _follow_ball(walk, ask, beyond, float(np.cos(turn)), average)
    counts = count_left_out(walk.states, ask.repeats)
    counts |= {"blocks_without_neighbors": len(ask.starts) - len(followed.rows), "missing_later": followed.missing}
    counts["zero_later"] = int(sum(np.count_nonzero(row == 0) for row in followed.rows))
    rows = np.array(followed.rows).reshape(-1, horizon + 1)
    return segments_divergence(
        walk,
        rows,
        np.array(followed.start, dtype=np.int64),
        method="hybrid",
        average=average,
        rule=rule,
        strategy=ask.strategy,
        clock=clock,
        settings={
            "procedure": None,
            "limit": beyond,
            "turn": turn,
            "radius": ask.radius,
            "left_out": counts,
            "sizes": np.array(followed.sizes, dtype=np.int64),
            "kept": np.array(followed.kept, dtype=bool),
            "n_kept": int(sum(followed.kept)),
            "n_too_far": followed.too_far,
            "n_turned": followed.turned,
            "n_unaligned": followed.unaligned,
            "rate": mean_rate(rows, horizon * clock[0]),
        },
    )


class _Ball:
    """New neighbourhoods: which states they hold."""

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
            raise DataError(f"hybrid follows one neighbourhood: one radius, not {len(radii)}")
        given = not (isinstance(rule.radius, str) or rule.relative)
        self.radius = float(radii[0]) * (1.0 if given else walk.factor)
        self.cap, self.least = rule.max_neighbors or len(walk), rule.min_neighbors

    def of(self, block: int) -> Ints:
        """Return the neighbours of the first state of a block, nearest first; none if there are too few."""
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


def _follow_ball(walk: Walk, ask: _Ball, limit: float, aligned: float, average: str) -> _HybridPath:
    """Go along the trajectory with a neighbourhood; `aligned` is the cosine of the largest turn."""
    done = _HybridPath()
    horizon = walk.states.horizon
    # Where the members of the old neighbourhood have come to, how far they are, and at which time.
    old, gaps, arrival = np.empty(0, dtype=np.int64), np.empty(0), -1
    for block, i in enumerate(ask.starts.tolist()):
        known = i == arrival and len(old) > 0
        usable = walk.states.usable[old] if known else np.zeros(0, dtype=bool)
        keep = known and int(usable.sum()) >= ask.least
        if keep:
            far = float(gaps.mean()) > limit
            away = not far and float(np.median(_along(walk, i, old, (old, gaps)))) < aligned
            done.too_far += far
            done.turned += away
            keep = not (far or away)
        members = old[usable] if keep else ask.of(block)
        if not keep and known and len(members):
            cosines = _along(walk, i, members, (old, gaps))
            done.unaligned += int(np.count_nonzero(cosines >= aligned - EQUAL_COSINES)) < ask.least
            # Never fewer than asked: then the best aligned ones.
            members = members[cosines >= min(aligned, np.sort(cosines)[-ask.least]) - EQUAL_COSINES]
        paths = walk.paths(i, members) if len(members) else np.empty((0, horizon + 1))
        whole = np.all(np.isfinite(paths), axis=1)
        done.missing += int(np.count_nonzero(~whole))
        paths, members = paths[whole], members[whole]
        if not len(members):
            arrival = -1
            continue
        done.rows.append(_averaged(walk.measured(i, members, paths), average))
        done.start.append(i)
        done.sizes.append(len(members))
        done.kept.append(keep)
        apart = paths[:, -1] > 0
        old, gaps, arrival = members[apart] + horizon, paths[apart, -1], i + horizon
    return done


@dataclass(eq=False)
class _HybridPath:
    """Blocks, and what happened at their ends."""

    rows: list[Floats] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    too_far: int = 0
    turned: int = 0
    unaligned: int = 0
    missing: int = 0


def _along(walk: Walk, i: int, members: Ints, old: tuple[Ints, Floats]) -> Floats:
    """Cosines between the separations of some states and the line of the old neighbourhood's farthest member."""
    times, gaps = old
    at = int(np.argmax(gaps))
    found = np.abs(cosine(gaps[at], walk.distances(i, members), walk.distances(int(times[at]), members)))
    return np.where(np.isnan(found), 0.0, found)


def _averaged(paths: Floats, average: str) -> Floats:
    """Average over the members at each step, as a distance; zero where all have met."""
    if average == "log-mean":
        return np.asarray(paths.mean(axis=0))
    if average == "mean-log":
        positive = paths > 0
        logs = np.log(np.where(positive, paths, 1.0)).sum(axis=0) / np.maximum(positive.sum(axis=0), 1)
        return np.where(positive.any(axis=0), np.exp(logs), 0.0)
    top = paths.max(axis=0)
    safe = np.where(top > 0, top, 1.0)  # scaled, so that squares neither underflow nor overflow
    return np.asarray(top * np.sqrt(np.mean((paths / safe) ** 2, axis=0)))
