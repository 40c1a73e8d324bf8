"""Growth of the distance between neighbours: Kantz (1994) and Rosenstein, Collins and De Luca (1993)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.divergence import Divergence
from trajtools.exponents.following import (
    GRAPH_L1,
    absolute_radii,
    as_divergence,
    block_edges,
    check_average,
    check_nodes,
    check_share,
    delay_vectors,
    in_blocks,
    on_graphs,
    padded,
    sampling,
    with_settings,
)
from trajtools.exponents.published_curves import caligiuri_kantz
from trajtools.inputs import takes_states
from trajtools.neighbors.rules import NearestK, WithinRadius
from trajtools.neighbors.search import Strategy, build, choose, count_left_out, nearest
from trajtools.neighbors.states import (
    PRECOMPUTED,
    States,
    compact,
    is_scaled,
    prepare,
    thinned,
    with_directions,
)
from trajtools.trajectory import StatesLike
from trajtools.types import L2_SCALED, Floats, Ints, TimeStepLike

if TYPE_CHECKING:
    from trajtools.distances.metric import MetricLike
    from trajtools.distances.pairwise import Distances

_MOST_SUMS = 2**24  # distances summed over neighbours that are held at a time: 128 MiB


@takes_states("x", matrices=True)
def kantz(
    x: StatesLike | Distances,
    *,
    metric: MetricLike = "l2",
    scale: str | None = None,
    neighbors: WithinRadius | NearestK | None = None,
    theiler: int | None = None,
    horizon: int,
    dim: int | None = None,
    delay: int = 1,
    dt: TimeStepLike = None,
    average: str = "log-mean",
    nodes: int | None = None,
    across: bool = False,
    stride: int = 1,
    share: float = 1.0,
    procedure: str | None = None,
    points: int | None = None,
) -> Divergence:
    r"""Mean growth of the distance between a state and its neighbourhood (Kantz 1994).

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,); or (T, T); or (T, N, N)
        States of one trajectory; with ``metric="precomputed"`` their distances; with ``metric="graph-l1"`` adjacency
        matrices.
    metric : str or callable
        ``"l1"``, ``"l2"``, ``"linf"``, ``"precomputed"``, or ``"graph-l1"``: the sum of the absolute differences of all
        links over N(N-1). Or a function of two blocks of states (t, d) that returns their distances (t,), row by row.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    neighbors : WithinRadius, NearestK or None
        Neighbourhood of a state; None: a radius from the data. Several radii need only one search; see Returns.
    theiler : int or None, in samples
        States closer in time than this are not neighbours; None: three times the correlation time, at most an eighth of
        the record, as in `trajtools.lyapunov`.
    horizon : int, in samples
        How long each pair is followed. States closer to the end of the record, or to a state that is not finite, are
        not used.
    dim, delay : int or None, int, in samples
        Embed a series: delay vectors of dimension `dim`; None: `x` already has states.
    dt : float, duration, array_like or None
        Time between two samples: a number, a duration (``"1h"``, `numpy.timedelta64`, `pandas.Timedelta`), or the times
        of all samples. None: that of the trajectory or of the clock of a table, else 1.
    average : str
        Inside a neighbourhood: ``"log-mean"``, the logarithm of the mean distance (Kantz); ``"mean-log"``, the mean of
        the logarithms (Parlitz), which weighs close pairs more; ``"rms"``, the logarithm of the root mean square
        (TISEAN's lyap_k).
    nodes : int or None
        Number of nodes N for ``"graph-l1"`` of rows of links (T, E); matrices and Trajectories of networks define it.
    across : bool
        Measure distances to the orbit of a neighbour: every eight samples the neighbour is shifted in time to its point
        closest to the reference, and the remaining separation along the motion is removed. In a flow that component
        does not grow, but shear mixes it into the growing one. The search uses full distances.
    stride : int, in samples
        Only every `stride`-th state is a reference; all states are neighbours. For interpolated states.
    share : float
        Share of the record, in blocks of time, whose states are references and neighbours: with a smaller one,
        neighbours are farther apart, which shows how far a result depends on their distance.
    procedure : None or "caligiuri2023"
        None: the procedure described here. ``"caligiuri2023"``: that of [2]_ for networks, reproduced exactly, with its
        bias: blocks of `horizon` states, each with the later states within the radius; see
        `trajtools.exponents.published_curves`.
    points : int or None, in samples
        Only for ``"caligiuri2023"``: the length w of the fitted window.

    Returns
    -------
    Divergence
        Curve S(k dt), k = 0 .. horizon, natural logarithm, also for each block of reference states (its units). Its
        slope is the largest exponent, in 1 / time unit. With several radii, the curve is that of the smallest one at
        which at least half of the states have neighbours; ``settings["curves"]`` contains all, in the order of
        ``settings["radii"]``.

    Raises
    ------
    NoNeighborsError
        If no state has neighbours.
    DataError
        If the data or an argument is invalid.
    UnknownNameError
        If metric, average or procedure is unknown.

    Notes
    -----
    .. math:: S(k) = \langle \ln \frac{1}{|U_i|} \sum_{j \in U_i} d(i+k, j+k) \rangle_i

    Distances are those of the full states; the paper uses the newest coordinate of the delay vectors, which gives the
    same slope. Pairs at distance zero are not neighbours. Pairs that reach distance zero later enter a mean as zero,
    and are excluded from a mean of logarithms.

    References
    ----------
    .. [1] H. Kantz, Phys. Lett. A 185, 77 (1994), doi:10.1016/0375-9601(94)90991-1
    .. [2] A. Caligiuri, V. M. Eguiluz, L. Di Gaetano, T. Galla, L. Lacasa, Phys. Rev. E 107, 044305 (2023),
       doi:10.1103/PhysRevE.107.044305

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.empty(3000)
    >>> x[0] = 0.4
    >>> for t in range(2999):
    ...     x[t + 1] = 1 - 2 * x[t] ** 2 * 0.999
    >>> s = tt.kantz(x, neighbors=tt.WithinRadius([1e-3, 2e-3]), theiler=1, horizon=4)
    >>> bool(abs((s.log_distance[3] - s.log_distance[0]) / 3 - np.log(2)) < 0.05)
    True
    """
    code = check_average(average)
    x, embedding = delay_vectors(x, dim, delay)
    clock = sampling(x, dt)
    options: dict[str, Any] = {"theiler": theiler, "horizon": horizon}
    motion: dict[str, Any] = {"across": across, "stride": stride}
    part = check_share(share)
    if procedure is not None:
        if procedure != "caligiuri2023":
            raise UnknownNameError(
                f"kantz has no procedure {procedure!r}; there are None (the default) and caligiuri2023"
            )
        if across or stride != 1 or part != 1:
            raise DataError("procedure 'caligiuri2023' has no across=, stride= and share=; omit them")
        published: dict[str, Any] = {"metric": metric, "nodes": nodes, "points": points, "clock": clock, **options}
        return with_settings(caligiuri_kantz(x, neighbors=neighbors, **published), embedding)
    if points is not None:
        raise DataError(
            "points= applies to procedure='caligiuri2023'; the default one fits nothing, see Divergence.fit"
        )
    if metric == GRAPH_L1:
        return on_graphs(
            kantz, x, nodes=nodes, neighbors=neighbors, dt=dt, average=average, share=part, **options | motion
        )
    check_nodes(nodes, metric)
    rule = neighbors or WithinRadius()
    states = in_blocks(prepare(x, metric=metric, theiler=theiler, horizon=horizon), part)
    states = states if across else compact(states)
    if average == "rms" and is_scaled(states):
        raise DataError(
            "average='rms' squares the distances, and some entries of these states are too small or too large: "
            "multiply the states by a constant, which shifts the curve by its logarithm"
        )
    lags = with_directions(states) if across else states.lags()
    is_reference = thinned(np.where(states.usable, 0, -1)[:, None], stride)[:, 0] >= 0
    # Distances of states are summed as they come; their logarithms, and what is no plain distance, pair by pair.
    plain = states.code not in (PRECOMPUTED, L2_SCALED) and not across and average != "mean-log"
    whole = np.size(rule.radius) if isinstance(rule, WithinRadius) and not rule.max_neighbors else 0
    paired = plain and stride == 1 and 0 < whole * len(states) * padded(states.horizon) <= _MOST_SUMS
    radii, lists, strategy, index = _neighborhoods(states, rule, paired)
    paired = paired and strategy.name != "tree"
    edges = block_edges(states)
    rows = _sum_growth(
        states, rule, (radii, lists, index), lags, edges, average=code, plain=plain, paired=paired, **motion
    )
    references = int(np.count_nonzero(is_reference))
    skips = rows.skipped.sum(axis=0)
    at = int(np.argmax((references - skips) * 2 >= references))
    if (references - skips[at]) * 2 < references:
        at = len(radii) - 1
    counts = count_left_out(states, bool(rows.repeats.any()))
    counts["without_neighbors"] = int(skips[at])
    counts["missing_later"] = int(rows.missing.sum())
    counts["zero_later"] = int((references - skips[at]) * (states.horizon + 1) - rows.counts[:, at].sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        curves = rows.logs.sum(axis=0) / rows.counts.sum(axis=0)
    return as_divergence(
        states,
        (rows.logs[:, at], rows.counts[:, at]),
        edges,
        method="kantz",
        average=average,
        rule=rule,
        strategy=strategy,
        clock=clock,
        n_references=references - int(skips[at]),
        counts=counts,
        extra={
            "radius": float(radii[at]),
            "radii": radii,
            "curves": curves,
            "pairs": rows.pairs.sum(axis=0),
            "references": references - skips,
            **motion,
            "share": part,
            **embedding,
        },
    )


def _sum_growth(
    states: States,
    rule: WithinRadius | NearestK,
    neighborhoods: tuple[Floats, Ints | None, Any],
    lags: Floats,
    edges: Ints,
    *,
    average: int,
    plain: bool,
    paired: bool,
    across: bool,
    stride: int,
) -> Any:
    """Follow all neighbours, with `paired` each pair once; the `Rows` of the kernels, by block and radius."""
    from trajtools._kernels._jit import in_parts
    from trajtools._kernels.balls import Balls, Rows, kantz_rows, make_work
    from trajtools._kernels.neighbors import FAR

    radii, lists, index = neighborhoods
    cap: int | None = 0
    least = 1
    if isinstance(rule, WithinRadius):
        cap, least = rule.max_neighbors or 0, rule.min_neighbors
    with np.errstate(over="ignore"):
        # An infinite limit would reach the empty lanes of the index.
        limits = np.minimum(states.gap(radii), FAR)
    followed = states.usable, lags, states.code, states.theiler, states.horizon
    balls = Balls(limits, *followed, average, least, int(stride))
    shape = (len(edges) - 1, len(radii))
    rows = Rows(
        logs=np.zeros((*shape, states.horizon + 1)),
        counts=np.zeros((*shape, states.horizon + 1), dtype=np.int64),
        pairs=np.zeros(shape, dtype=np.int64),
        skipped=np.zeros(shape, dtype=np.int64),
        missing=np.zeros(shape[0], dtype=np.int64),
        repeats=np.zeros(len(states), dtype=np.bool_),
    )
    matrix = states.matrix if states.code == PRECOMPUTED else None
    axis, groups = (index.axis, index.groups) if index else (None, None)
    width = padded(states.horizon)
    pairs = None
    if paired:
        pairs = _sum_pairs(index, balls, rows.repeats)
        index = axis = groups = cap = None
    searched = index and index._replace(axis=None, groups=None, boxes=None), axis, groups, matrix, lists, pairs, cap

    def work(first: int, last: int) -> None:
        rings, sums = make_work(len(states), len(radii), width, states.points.shape[1])
        gaps = None if plain else np.ones(width)
        bits, along = (None if gaps is None else gaps.view(np.int64)), (np.empty(width) if across else None)
        kantz_rows(*searched, balls, edges, first, last, gaps, bits, along, rings, sums, rows)

    in_parts(work, shape[0])
    return rows


def _sum_pairs(index: Any, balls: Any, repeats: Any) -> tuple[Floats, Ints, Ints]:
    """Sums over the neighbours of all states, each pair followed once: rows by slot and radius, numbers, slots."""
    from trajtools._kernels._jit import in_parts
    from trajtools._kernels.balls import RMS
    from trajtools._kernels.lanes import FOUR
    from trajtools._kernels.pairs import make_batch, sum_pairs

    shape = index.times.size + 1, len(balls.limits), -(-(balls.horizon + 1) // FOUR) * FOUR
    totals, sizes = np.zeros(shape), np.zeros(shape[:2], dtype=np.int64)
    searched = index.leaves, index.times, index.axis, index.metric, balls.theiler, balls.limits
    followed = balls.lags, shape[-1], balls.average == RMS
    sums = totals.reshape(-1), sizes.reshape(-1)
    in_parts(lambda a, b: sum_pairs(*searched, *followed, a, b, *make_batch(), *sums, repeats), len(index.leaves))
    return totals, sizes, index.slots


def _neighborhoods(
    states: States, rule: WithinRadius | NearestK, paired: bool
) -> tuple[Floats, Ints | None, Strategy, Any]:
    """Radii, lists of neighbours (None for balls), the search and its index (None without one)."""
    if isinstance(rule, NearestK):
        neighbors = nearest(states, rule)
        # The lists exist already.
        return np.array([np.inf]), neighbors.index, neighbors.strategy, None
    radii = absolute_radii(states, rule)
    strategy = choose(states, float(radii[-1]), paired=paired)
    return radii, None, strategy, None if states.code == PRECOMPUTED else build(states, strategy)


@takes_states("x", matrices=True)
def rosenstein(
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
    nodes: int | None = None,
    across: bool = False,
    stride: int = 1,
    share: float = 1.0,
) -> Divergence:
    r"""Mean logarithmic growth of the distance between nearest neighbours (Rosenstein 1993).

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,); or (T, T); or (T, N, N)
        States of one trajectory; with ``metric="precomputed"`` their distances; with ``metric="graph-l1"`` adjacency
        matrices.
    metric : str or callable
        ``"l1"``, ``"l2"``, ``"linf"``, ``"precomputed"``, or ``"graph-l1"``: the sum of the absolute differences of all
        links over N(N-1). Or a function of two blocks of states (t, d) that returns their distances (t,), row by row.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    neighbors : NearestK or None
        Number of neighbours of each state to follow; None: one, as in the paper.
    theiler : int or None, in samples
        States closer in time than this are not neighbours; None: three times the correlation time, at most an eighth of
        the record, as in `trajtools.lyapunov`.
    horizon : int, in samples
        How long each pair is followed. States closer to the end of the record, or to a state that is not finite, are
        not used.
    dim, delay : int or None, int, in samples
        Embed a series: delay vectors of dimension `dim`; None: `x` already has states.
    dt : float, duration, array_like or None
        Time between two samples: a number, a duration (``"1h"``, `numpy.timedelta64`, `pandas.Timedelta`), or the times
        of all samples. None: that of the trajectory or of the clock of a table, else 1.
    nodes : int or None
        Number of nodes N for ``"graph-l1"`` of rows of links (T, E); matrices and Trajectories of networks define it.
    across : bool
        Measure distances to the orbit of a neighbour: every eight samples the neighbour is shifted in time to its point
        closest to the reference, and the remaining separation along the motion is removed. In a flow that component
        does not grow, but shear mixes it into the growing one. The search uses full distances.
    stride : int, in samples
        Only every `stride`-th state is a reference; all states are neighbours. For interpolated states.
    share : float
        Share of the record, in blocks of time, whose states are references and neighbours: with a smaller one,
        neighbours are farther apart, which shows how far a result depends on their distance.

    Returns
    -------
    Divergence
        Curve S(k dt), k = 0 .. horizon, natural logarithm, also for each block of reference states (its units). Its
        slope is the largest exponent, in 1 / time unit. `settings` contains the search and counts of excluded data.

    Raises
    ------
    NoNeighborsError
        If no state has a neighbour.
    DataError
        If the data or an argument is invalid.
    UnknownNameError
        If the metric is unknown.

    Notes
    -----
    .. math:: S(k) = \langle \ln d(i+k, j+k) \rangle_{(i, j)}

    over all pairs of a state i and one of its nearest neighbours j outside the Theiler window. Distances are those of
    the full states. Pairs at distance zero are not neighbours; a pair that reaches zero later is excluded at that k.

    References
    ----------
    .. [1] M. T. Rosenstein, J. J. Collins, C. J. De Luca, Physica D 65, 117 (1993), doi:10.1016/0167-2789(93)90009-P

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.empty(3000)
    >>> x[0] = 0.4
    >>> for t in range(2999):
    ...     x[t + 1] = 1 - 2 * x[t] ** 2 * 0.999
    >>> s = tt.rosenstein(x, theiler=1, horizon=4)
    >>> bool(abs((s.log_distance[3] - s.log_distance[0]) / 3 - np.log(2)) < 0.05)
    True
    """
    from trajtools._kernels._jit import in_parts
    from trajtools._kernels.divergence import make_product, rosenstein_rows

    x, embedding = delay_vectors(x, dim, delay)
    part = check_share(share)
    if metric == GRAPH_L1:
        options: dict[str, Any] = {"theiler": theiler, "horizon": horizon, "across": across, "stride": stride}
        options["share"] = part
        return on_graphs(rosenstein, x, nodes=nodes, neighbors=neighbors, dt=dt, **options)
    check_nodes(nodes, metric)
    rule = neighbors or NearestK()
    if not isinstance(rule, NearestK):
        raise DataError(
            f"rosenstein follows the nearest states: neighbors must be a NearestK, not {rule}; kantz accepts a radius"
        )
    clock = sampling(x, dt)
    states = in_blocks(prepare(x, metric=metric, theiler=theiler, horizon=horizon), part)
    states = states if across else compact(states)
    lags = with_directions(states) if across else states.lags()
    matrix = states.matrix if states.code == PRECOMPUTED else None
    nearest_states = nearest(states, rule)
    index = thinned(nearest_states.index, stride)
    edges = block_edges(states)
    width = padded(states.horizon)
    logs = np.zeros((len(edges) - 1, states.horizon + 1))
    terms = np.zeros(logs.shape, dtype=np.int64)
    missing = np.zeros(len(logs), dtype=np.int64)

    def work(first: int, last: int) -> None:
        along = np.empty(width) if across else None
        measured = lags, matrix, along, states.code
        rosenstein_rows(index, edges, first, last, *measured, make_product(width), logs, terms, missing)

    in_parts(work, len(logs))
    counts = {**nearest_states.counts, "missing_later": int(missing.sum())}
    counts["zero_later"] = int((terms[:, :1] - terms).sum())
    return as_divergence(
        states,
        (logs, terms),
        edges,
        method="rosenstein",
        average="mean-log",
        rule=rule,
        strategy=nearest_states.strategy,
        clock=clock,
        n_references=int(np.count_nonzero(index[:, 0] >= 0)),
        counts=counts,
        extra={"k": int(rule.k), "across": across, "stride": int(stride), "share": part, **embedding},
    )
