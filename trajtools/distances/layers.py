"""Which part of the network a distance comes from."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.metric import Metric, MetricLike, bind_metric, find_metric
from trajtools.distances.paths import BLOCK_BYTES, ONE, as_states, check_alike, common
from trajtools.errors import DataError, UnknownNameError
from trajtools.parameters import Parameter
from trajtools.results.contributions import Contributions

PARTS = ("layer", "parameter", "kind")


def contributions(a: Any, b: Any, *, metric: MetricLike = "l1", per: str = "layer") -> Contributions:
    """Distance of two trajectories at equal times, part by part of the network.

    Parameters
    ----------
    a, b : Trajectory, shape (T, P)
        Two trajectories of one architecture; at least one knows its parameters.
    metric : str or Metric
        Distance between states that is put together from disjoint sets of weights: ``"l1"``, ``"l2"``, ``"linf"``,
        ``"rms"``, ``"sign"``.
    per : str
        ``"layer"``: all parameters of one layer (what is before the last dot or slash of their names);
        ``"parameter"``; ``"kind"``: dense, conv, bias, ...

    Returns
    -------
    Contributions
        The distance in each part, and its share of the whole.

    Raises
    ------
    DataError
        If lengths, numbers of weights or steps differ, nothing says which weight is which, or the metric cannot be put
        together from parts.
    UnknownNameError
        If there is no such metric or no such kind of part.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> p = [tt.Parameter("a.w", "other", (2,), "f8", 0, 2), tt.Parameter("b.w", "other", (1,), "f8", 2, 1)]
    >>> x = tt.Trajectory.from_array(np.zeros((1, 3)), parameters=p)
    >>> found = tt.contributions(x, np.array([[1.0, 2.0, 1.0]]))
    >>> found.names, found.distance.tolist(), found.share.tolist()
    (('a', 'b'), [[3.0, 1.0]], [[0.75, 0.25]])
    """
    if per not in PARTS:
        raise UnknownNameError(f"per={per!r}: the parts of a network are {', '.join(PARTS)}")
    left, right = as_states(a, "a"), as_states(b, "b")
    check_alike(left, right)
    chosen = bind_metric(find_metric(metric), left, right)
    if chosen.merge is None:
        raise DataError(
            f"metric {chosen.name!r} is not put together from parts of a state; use l1, l2, linf, rms or sign, or "
            "compare x.select(...) with y.select(...)"
        )
    parts = _parts([p for x in (left, right) for p in getattr(x, "parameters", ())], left.shape[1], per)
    sums = _sums(chosen, left, right, list(parts.values()))
    whole = sums[:, 0] if sums.shape[1] else np.zeros(len(left))
    for other in sums.T[1:]:
        whole = chosen.merge(whole, other)
    sizes = tuple(sum(s.stop - s.start for s in stretches) for stretches in parts.values())
    return Contributions(
        metric=chosen.name,
        per=per,
        names=tuple(parts),
        sizes=sizes,
        step=np.asarray(getattr(left, "step", np.arange(len(left)))),
        distance=np.stack([_finished(chosen, sums[:, k], size) for k, size in enumerate(sizes)], axis=1),
        whole=_finished(chosen, whole, left.shape[1]),
        share=_shares(chosen, sums, whole),
        settings={"metric": chosen.name, "per": per},
    )


def _parts(table: list[Parameter], size: int, per: str) -> dict[str, list[slice]]:
    if not table:
        raise DataError(
            "arrays do not say which weight belongs to which layer; give a Trajectory with parameters (from a run, or "
            "Trajectory.from_array(x, parameters=...))"
        )
    parts: dict[str, list[slice]] = {}
    covered = 0
    for p in table:
        if covered == size:
            break  # the second trajectory has the same table
        covered += p.size
        layer = re.split(r"[./](?=[^./]*$)", p.name)[0]
        name = {"layer": layer, "parameter": p.name, "kind": p.kind}[per]
        parts.setdefault(name, []).append(slice(p.offset, p.offset + p.size))
    return parts


def _sums(metric: Metric, a: Any, b: Any, parts: list[list[slice]]) -> NDArray[np.float64]:
    """Unfinished distances (T, L) of the parts, reading both trajectories once."""
    rows = max(1, BLOCK_BYTES // (2 * 8 * max(a.shape[1], 1)))
    out = np.zeros((len(a), len(parts)))
    for start in range(0, len(a), rows):
        stop = min(start + rows, len(a))
        for k, stretches in enumerate(parts):
            found = None
            for stretch in stretches:
                x, y = common(*(_entries(each, start, stop, stretch)[:, None] for each in (a, b)))
                part = metric.pairs(x, y, ONE, ONE)[:, 0]
                found = part if found is None or metric.merge is None else metric.merge(found, part)
            out[start:stop, k] = found
    return out


def _entries(x: Any, start: int, stop: int, columns: slice) -> Any:
    return np.asarray(x.read(start, stop, columns)) if hasattr(x, "read") else x[start:stop, columns]


def _finished(metric: Metric, distance: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    return distance if metric.finish is None else np.asarray(metric.finish(distance, size), dtype=np.float64)


def _shares(metric: Metric, sums: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    if metric.merge is np.add:
        power = 1
    elif metric.merge is np.hypot:
        power = 2
    else:
        return np.full(sums.shape, np.nan)
    with np.errstate(invalid="ignore"):
        # Parts of the whole first: squares of small distances would leave the range of float64.
        return np.divide(sums, whole[:, None], out=np.full(sums.shape, np.nan), where=whole[:, None] != 0) ** power
