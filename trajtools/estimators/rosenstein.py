"""Growth of the distance between nearest neighbours (Rosenstein, Collins and De Luca 1993)."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.errors import DataError
from trajtools.neighbors.curves import as_divergence, block_edges, padded, sampling
from trajtools.neighbors.graphs import GRAPH_L1, check_nodes, on_graphs
from trajtools.neighbors.rules import NearestK
from trajtools.neighbors.search import nearest
from trajtools.neighbors.states import MetricOfStates, compact, prepare, thinned, with_directions
from trajtools.results.divergence import Divergence


def rosenstein(
    x: Any,
    *,
    metric: MetricOfStates = "l2",
    neighbors: NearestK | None = None,
    theiler: int,
    horizon: int,
    dt: float | None = None,
    nodes: int | None = None,
    across: bool = False,
    stride: int = 1,
) -> Divergence:
    r"""Mean logarithmic growth of the distance between nearest neighbours (Rosenstein 1993).

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,); or (T, T); or (T, N, N)
        States of one trajectory; with ``metric="precomputed"`` their distances; with ``metric="graph-l1"`` adjacency
        matrices.
    metric : str or callable
        ``"l1"``, ``"l2"``, ``"linf"``, ``"precomputed"``, or ``"graph-l1"``: the sum of the absolute differences of all
        links over N(N-1). Or a function of two blocks of states (t, d) that gives their distances (t,), pair by pair.
    neighbors : NearestK or None
        How many neighbours of each state are followed; None: one, as in the paper.
    theiler : int, in samples
        States closer in time than this are not neighbours.
    horizon : int, in samples
        How long each pair is followed. States and neighbours nearer to the end of the record, or to a state that is
        not finite, are not used.
    dt : float or None, in the time unit
        Time between two samples; None: that of the trajectory, 1 for arrays.
    nodes : int or None
        Number of nodes N for ``"graph-l1"`` of rows of links (T, E); a Trajectory of a network and matrices know it.
    across : bool
        Measure distances to the orbit of a neighbour: every eight samples it is shifted in time to where it is beside
        the reference, and what is left of the separation along their motion is taken out. In a flow that part does not
        grow, yet shear mixes it into what grows. The search takes whole distances.
    stride : int, in samples
        Only every so many states are references; all are neighbours. For states that were interpolated.

    Returns
    -------
    Divergence
        Curve S(k dt), k = 0 .. horizon, natural logarithm, and the same for each block of reference states (its
        units). Its slope is the largest exponent, in 1 / time unit. `settings` holds the search that was chosen and
        what was left out.

    Raises
    ------
    NoNeighborsError
        If no state has a neighbour.
    DataError
        If the data cannot be analysed so.
    UnknownNameError
        If the metric is unknown.

    Notes
    -----
    .. math:: S(k) = \langle \ln d(i+k, j+k) \rangle_{(i, j)}

    over all pairs of a state i and one of its nearest neighbours j outside the Theiler window. The distance is that of
    the whole states. Pairs at distance zero are no neighbours; a pair that meets later is left out at that k.

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
    from trajtools._kernels._threads import in_parts
    from trajtools._kernels.divergence import make_product, rosenstein_rows
    from trajtools.types import ACROSS

    if metric == GRAPH_L1:
        options: dict[str, Any] = {"theiler": theiler, "horizon": horizon, "across": across, "stride": stride}
        return on_graphs(rosenstein, x, nodes=nodes, neighbors=neighbors, dt=dt, **options)
    check_nodes(nodes, metric)
    rule = neighbors or NearestK()
    if not isinstance(rule, NearestK):
        raise DataError(
            f"rosenstein follows the nearest states: neighbors is a NearestK, not {rule}; kantz takes a radius"
        )
    clock = sampling(x, dt)
    states = prepare(x, metric=metric, theiler=theiler, horizon=horizon)
    states = states if across else compact(states)
    lags, code = (with_directions(states), ACROSS) if across else (states.lags(), states.code)
    found = nearest(states, rule)
    index = thinned(found.index, stride)
    edges = block_edges(states)
    width = padded(states.horizon)
    logs = np.zeros((len(edges) - 1, states.horizon + 1))
    terms = np.zeros(logs.shape, dtype=np.int64)
    missing = np.zeros(len(logs), dtype=np.int64)
    in_parts(
        lambda first, last: rosenstein_rows(
            index, edges, first, last, lags, states.matrix, code, make_product(width), logs, terms, missing
        ),
        len(logs),
    )
    counts = {**found.counts, "missing_later": int(missing.sum())}
    counts["zero_later"] = int((terms[:, :1] - terms).sum())
    return as_divergence(
        states,
        (logs, terms),
        edges,
        method="rosenstein",
        average="mean-log",
        rule=rule,
        strategy=found.strategy,
        clock=clock,
        n_references=int(np.count_nonzero(index[:, 0] >= 0)),
        counts=counts,
        extra={"k": int(rule.k), "across": across, "stride": int(stride)},
    )
