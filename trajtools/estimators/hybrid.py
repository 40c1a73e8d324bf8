"""Wolf's blocks with a Kantz ball: a neighbourhood is followed, and replaced when it has gone too far or turned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.estimators.mittra import NAME, mittra_cloud
from trajtools.exponents.following import absolute_radii, check_average, sampling
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.neighbors.search import count_left_out
from trajtools.neighbors.segments import (
    EQUAL_COSINES,
    Walk,
    block_starts,
    candidates,
    cosine,
    growth_limit,
    mean_rate,
    prepare_walk,
    segments_divergence,
)
from trajtools.neighbors.states import MetricOfStates
from trajtools.results.divergence import Divergence
from trajtools.types import Floats, Ints

PROCEDURES = (NAME,)
# Chosen on flows, where a neighbour off the growing direction first moves away faster than the exponent says.
TURN = 0.1
MEMBERS = 32


def hybrid(
    x: Any,
    *,
    metric: MetricOfStates = "l2",
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
    theiler : int, in samples
        States closer in time than this are not neighbours. Needed but for ``"mittra2024"``.
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
        it measures; see `trajtools.estimators.mittra`.

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
    if procedure is not None and procedure not in PROCEDURES:
        raise UnknownNameError(
            f"hybrid has no procedure {procedure!r}; there are None (ours) and {', '.join(PROCEDURES)}"
        )
    if procedure == NAME:
        if neighbors is not None or theiler is not None or limit is not None or nodes is not None or across:
            raise DataError(
                "procedure 'mittra2024' searches no neighbours: give the cloud, metric, horizon and dt only"
            )
        return mittra_cloud(x, metric=metric, horizon=horizon, dt=dt)
    if theiler is None or horizon is None:
        raise DataError("hybrid needs theiler= and horizon=, in samples")
    if not 0 < turn <= np.pi / 2:
        raise DataError(f"turn={turn!r}: an angle between two lines is above 0 and at most pi/2")
    check_average(average)
    clock = sampling(x, dt)
    rule = neighbors or NearestK(MEMBERS)
    walk = prepare_walk(x, metric=metric, nodes=nodes, theiler=theiler, horizon=horizon, across=across)
    ask = _Ball(walk, rule, block_starts(walk))
    beyond = growth_limit(walk, limit)
    followed = _follow(walk, ask, beyond, float(np.cos(turn)), average)
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


@dataclass(eq=False)
class _Followed:
    """Blocks, and what happened at their ends."""

    rows: list[Floats] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    too_far: int = 0
    turned: int = 0
    unaligned: int = 0
    missing: int = 0


def _follow(walk: Walk, ask: _Ball, limit: float, aligned: float, average: str) -> _Followed:
    """Go along the trajectory with a neighbourhood; `aligned` is the cosine of the largest turn."""
    done = _Followed()
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
