"""One neighbour at a time, replaced when it has gone too far (Wolf, Swift, Swinney and Vastano 1985)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.estimators.caligiuri import NAME, PRODUCTION, caligiuri_profile, caligiuri_wolf
from trajtools.exponents.following import sampling
from trajtools.neighbors.rules import NearestK
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

PROCEDURES = (NAME, PRODUCTION)
CANDIDATES, CANDIDATE_SHARE = 64, 50


def wolf(
    x: Any,
    *,
    metric: MetricOfStates = "l2",
    neighbors: NearestK | None = None,
    theiler: int,
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
    theiler : int, in samples
        States closer in time than this are not neighbours.
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
        grow; see `trajtools.estimators.caligiuri`.
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
    if procedure is not None and procedure not in PROCEDURES:
        raise UnknownNameError(
            f"wolf has no procedure {procedure!r}; there are None (ours) and {', '.join(PROCEDURES)}"
        )
    clock = sampling(x, dt)
    if procedure is not None:
        if neighbors is not None or limit is not None or across:
            raise DataError(
                f"procedure {procedure!r} takes the nearest state and knows no limit and no across; leave them out"
            )
        published = caligiuri_wolf if procedure == NAME else caligiuri_profile
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
    followed = _follow(walk, starts, index, beyond)
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


@dataclass(frozen=True, eq=False)
class _Followed:
    """Blocks: distances (B, K + 1), first states, neighbours, angle turned through (NaN without an old one), kept."""

    rows: Floats
    start: Ints
    neighbor: Ints
    turn: Floats
    kept: Any


def _follow(walk: Walk, starts: Ints, index: Ints, limit: float) -> _Followed:
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
    return _Followed(
        np.array(rows).reshape(-1, horizon + 1),
        np.array(begun, dtype=np.int64),
        np.array(chosen, dtype=np.int64),
        np.array(turns),
        np.array(kept, dtype=bool),
    )
