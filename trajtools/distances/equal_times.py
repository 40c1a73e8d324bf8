"""Distances at equal times: of two trajectories, of an ensemble to its references, and of each part of a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.metric import (
    FORMATS,
    OPERATIONS,
    Metric,
    MetricLike,
    bind_metric,
    bits_of,
    find_metric,
    in_time,
    kernel_ready,
)
from trajtools.errors import DataError, TooLargeError, UnknownNameError
from trajtools.inputs import graph_states, of_one_direction, takes_states
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.trajectory import StatesLike
from trajtools.types import Floats, Ints
from trajtools.wiring import Parameter
from trajtools.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.trajectory import Trajectory

BLOCK_BYTES = 16 * 2**20  # memory of this size is used again by the next block; more is new, and slower
ONE = np.zeros(1, dtype=np.int64)
FEWEST_TWINS = 8  # read with their reference, however large the chunks are
PARTS = ("layer", "parameter", "kind")


@dataclass(frozen=True, eq=False, repr=False)
class Contributions(Result):
    """What each part of a network contributes to the distance of two trajectories.

    Attributes
    ----------
    metric : str
        Name of the distance between states.
    per : str
        ``"layer"``, ``"parameter"`` or ``"kind"``: what the parts are.
    names : tuple of str, length L
        The parts, in the order of the state.
    sizes : tuple of int, length L
        Number of weights of each.
    step : ndarray of int64, shape (T,)
        Step of each state.
    distance : ndarray of float64, shape (T, L)
        Distance of the two trajectories in each part alone.
    whole : ndarray of float64, shape (T,)
        Distance over all parts.
    share : ndarray of float64, shape (T, L)
        Part of the whole: of the sum of absolute differences (l1), of the sum of squares (l2, rms), of the number of
        signs (sign). The shares of a state add up to 1. NaN where the whole is 0, and for metrics that do not add up.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from trajtools.wiring import describe
    >>> table, nodes = describe({"W1": ((2, 3), "float64"), "W2": ((3, 1), "float64")})
    >>> a = tt.Trajectory.from_array(np.zeros((2, 9)), parameters=table, nodes=nodes)
    >>> b = tt.Trajectory.from_array(np.ones((2, 9)), parameters=table, nodes=nodes)
    >>> parts = tt.distances.contributions(a, b)
    >>> parts.names, parts.share[0].round(2).tolist()
    (('W1', 'W2'), [0.67, 0.33])
    """

    metric: str
    per: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    step: Ints
    distance: Floats
    whole: Floats
    share: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "distance": ("step", "names"),
        "share": ("step", "names"),
        "whole": ("step",),
        "sizes": ("names",),
    }

    def _sentence(self) -> str:
        share = np.nanmean(self.share, axis=0) if np.isfinite(self.share).any() else np.full(len(self.names), np.nan)
        ranked = np.argsort(-np.nan_to_num(share, nan=-1.0))[:3]
        text = f"{self.metric} distance per {self.per} at {counted(len(self.step), 'state')}"
        if not np.isfinite(share).any():
            return f"{text}; its parts do not add up to the whole."
        return f"{text}; on average {', '.join(f'{share[k]:.0%} from {self.names[k]}' for k in ranked)}."

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the contributions; see `trajtools.plots.contributions`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Axes to draw in; None: a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes of the plot.
        """
        from trajtools import plots

        return plots.contributions(self, ax=ax)


@takes_states("a", "b", single=True, aligned=True)
def distance(a: StatesLike, b: StatesLike, *, metric: MetricLike = "l1", scale: str | None = None) -> Floats:
    """Distance d(t) of two trajectories at equal times.

    Parameters
    ----------
    a, b : Trajectory or ndarray, shape (T, P) or (T,)
        Two trajectories of the same length and the same weights, e.g. ``run.trajectory(0)`` and ``run.trajectory(1)``.
    metric : str, callable or Metric
        Distance between states, see `METRICS`.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.

    Returns
    -------
    ndarray of float64, shape (T,)
        The distances. NaN where a weight is NaN, or where both are the same infinity.

    Raises
    ------
    DataError
        If lengths, numbers of weights or steps differ, or the metric needs the wiring of a network and neither has it.
    UnknownNameError
        If there is no such metric.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> tt.distance(np.zeros((3, 2)), np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]))
    array([1., 2., 3.])
    """
    left, right = of_one_direction(as_states(a, "a", metric), as_states(b, "b", metric))
    check_alike(left, right)
    bound = in_time(bind_metric(find_metric(metric), left, right))
    size = left.shape[1]
    rows = rows_of_chunks(BLOCK_BYTES // (2 * 8 * max(size, 1)), left)
    out = np.empty(len(left))
    for start in range(0, len(left), rows):
        stop = min(start + rows, len(left))
        out[start:stop] = pairs(
            bound, read_rows(left, start, stop)[:, None], read_rows(right, start, stop)[:, None], ONE, ONE
        )[:, 0]
    return out


def check_alike(a: Any, b: Any) -> None:
    """Raise if two trajectories cannot be compared at equal times."""
    if a.shape[1] != b.shape[1]:
        raise DataError(
            f"the states have {a.shape[1]} and {b.shape[1]} weights; only states of one architecture have a distance"
        )
    if len(a) != len(b):
        raise DataError(
            f"the trajectories have {len(a)} and {len(b)} states; d(t) compares equal times: cut both to the same steps"
        )
    steps = [np.asarray(x.step) for x in (a, b) if hasattr(x, "step")]
    if len(steps) == 2 and not np.array_equal(steps[0], steps[1]):
        raise DataError(
            "the trajectories were recorded at different steps; select the steps that both have (`.window`)"
        )


def as_states(x: Any, name: str, metric: MetricLike | None = None) -> Any:
    """Return a Trajectory unchanged, anything else as an array (T, P); of networks if `metric` compares these."""
    if hasattr(x, "read") and hasattr(x, "step"):
        return x
    array = np.asarray(x)
    if metric is not None and array.ndim == 2 and array.shape[0] == array.shape[1] and find_metric(metric).bind:
        return graph_states(array)
    if array.ndim == 1 and array.dtype.kind in "biuf":
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise DataError(
            f"{name} must be a Trajectory or an array of real numbers, (T, P) or (T,); "
            f"got shape {array.shape} of {array.dtype}"
        )
    return array


def pairs(metric: Metric, a: Any, b: Any, left: NDArray[np.int64], right: NDArray[np.int64]) -> Floats:
    """Return the finished distances (t, k) of members ``left[k]`` of a (t, m, P) and ``right[k]`` of b (t, n, P)."""
    a, b = common(a, b)
    distance = metric.pairs(metric.described(a), metric.described(b), left, right)
    if metric.finish is not None:
        distance = metric.finish(distance, a.shape[2])
    return np.asarray(distance, dtype=np.float64)


def common(a: Any, b: Any) -> tuple[Any, Any]:
    """Cast both blocks to a dtype that represents both exactly."""
    a = kernel_ready(a)
    if b is None:
        return a, None
    b = kernel_ready(b)
    if a.dtype != b.dtype:
        a, b = a.astype(np.float64), b.astype(np.float64)
    return a, b


def read_rows(x: Any, start: int, stop: int, columns: slice | None = None) -> Any:
    """Return the states start .. stop of a Trajectory or array, (t, P), or some entries of them."""
    if hasattr(x, "read"):
        return np.asarray(x.read(start, stop, columns))
    return x[start:stop] if columns is None else x[start:stop, columns]


@takes_states("a", "b", single=True, aligned=True)
def contributions(a: Trajectory, b: Trajectory, *, metric: MetricLike = "l1", per: str = "layer") -> Contributions:
    """Distance of two trajectories at equal times, part by part of the network.

    Parameters
    ----------
    a, b : Trajectory, shape (T, P)
        Two trajectories of one architecture; at least one has a table of parameters.
    metric : str or Metric
        Distance between states that merges over disjoint sets of weights: ``"l1"``, ``"l2"``, ``"linf"``, ``"rms"``,
        ``"sign"``.
    per : str
        ``"layer"``: all parameters of one layer (the name up to its last dot or slash);
        ``"parameter"``; ``"kind"``: dense, conv, bias, ...

    Returns
    -------
    Contributions
        The distance in each part, and its share of the whole.

    Raises
    ------
    DataError
        If lengths, numbers of weights or steps differ, neither trajectory has parameters, or the metric does not merge
        over parts.
    UnknownNameError
        If there is no such metric or no such kind of part.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from trajtools.wiring import Parameter
    >>> p = [Parameter("a.w", "other", (2,), "f8", 0, 2), Parameter("b.w", "other", (1,), "f8", 2, 1)]
    >>> x = tt.Trajectory.from_array(np.zeros((1, 3)), parameters=p)
    >>> result = tt.distances.contributions(x, np.array([[1.0, 2.0, 1.0]]))
    >>> result.names, result.distance.tolist(), result.share.tolist()
    (('a', 'b'), [[3.0, 1.0]], [[0.75, 0.25]])
    """
    if per not in PARTS:
        raise UnknownNameError(f"per={per!r}: the parts of a network are {', '.join(PARTS)}")
    left, right = as_states(a, "a"), as_states(b, "b")
    check_alike(left, right)
    bound = bind_metric(find_metric(metric), left, right)
    if bound.merge is None:
        raise DataError(
            f"metric {bound.name!r} does not merge over parts of a state; use l1, l2, linf, rms or sign, or "
            "compare x.select(...) with y.select(...)"
        )
    parts = _parts([p for x in (left, right) for p in getattr(x, "parameters", ())], left.shape[1], per)
    sums = _sums(bound, left, right, list(parts.values()))
    whole = sums[:, 0] if sums.shape[1] else np.zeros(len(left))
    for other in sums.T[1:]:
        whole = bound.merge(whole, other)
    sizes = tuple(sum(s.stop - s.start for s in stretches) for stretches in parts.values())
    return Contributions(
        metric=bound.name,
        per=per,
        names=tuple(parts),
        sizes=sizes,
        step=np.asarray(getattr(left, "step", np.arange(len(left)))),
        distance=np.stack([_finished(bound, sums[:, k], size) for k, size in enumerate(sizes)], axis=1),
        whole=_finished(bound, whole, left.shape[1]),
        share=_shares(bound, sums, whole),
        settings={"metric": bound.name, "per": per},
    )


def _parts(table: list[Parameter], size: int, per: str) -> dict[str, list[slice]]:
    if not table:
        raise DataError(
            "arrays have no table of parameters; pass a Trajectory with parameters (from a run, or "
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
    """Unfinished distances (T, L) of the parts; reads both trajectories once."""
    rows = rows_of_chunks(BLOCK_BYTES // (2 * 8 * max(a.shape[1], 1)), a)
    out = np.zeros((len(a), len(parts)))
    for start in range(0, len(a), rows):
        stop = min(start + rows, len(a))
        for k, stretches in enumerate(parts):
            total = None
            for stretch in stretches:
                x, y = common(*(read_rows(each, start, stop, stretch)[:, None] for each in (a, b)))
                part = metric.pairs(x, y, ONE, ONE)[:, 0]
                total = part if total is None or metric.merge is None else metric.merge(total, part)
            out[start:stop, k] = total
    return out


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
        # Divide first: squares of small distances would leave the range of float64.
        return np.divide(sums, whole[:, None], out=np.full(sums.shape, np.nan), where=whole[:, None] != 0) ** power


def to_references(
    ensemble: Ensemble, twins: Ints, reference: Ints, metric: Metric, *, rows: slice, dtype: str, size: int
) -> ReferenceDistances:
    """Return the distance of every twin to its reference; reads each state once."""
    from trajtools._kernels._jit import is_abandoned

    count = rows.stop - rows.start
    references = np.unique(reference)
    out = ReferenceDistances(
        np.empty((count, len(twins))),
        np.empty((count, len(references))),
        np.full(len(references), np.nan),
        np.full((count, len(references)), np.nan),
        references,
    )
    sequential = in_time(metric)
    batches = _batches(twins, reference, 8 * ensemble.chunk[0] * min(ensemble.chunk[1], size))
    scales: list[tuple[Ints, Floats]] = []
    # Batches share references, whose sums may differ in the last bit: one of them counts, whichever ends last.
    owner = np.empty(len(references), np.int64)
    for k, units in enumerate(batches):
        owner[np.searchsorted(references, reference[units])] = k

    def compare(first: int, last: int) -> None:
        for k in range(first, last):
            units = batches[k]
            members = np.unique(np.concatenate([twins[units], reference[units]]))
            where = np.searchsorted(references, np.unique(reference[units]))
            left, right = np.searchsorted(members, twins[units]), np.searchsorted(members, reference[units])
            centre = np.searchsorted(members, references[where])
            height, columns = _shape(metric, ensemble.chunk, len(members), size)
            # Blocks of rows start where chunks do.
            edges = [rows.start, *range(rows.start // height * height + height, rows.stop, height), rows.stop]
            scale, before = np.full(len(where), np.nan), dict[int, Any]()
            own = owner[where] == k
            for start, stop in pairwise(edges):
                if is_abandoned():
                    return
                here = slice(start - rows.start, stop - rows.start)
                distance, floor, norm, speed = _block(
                    ensemble,
                    slice(start, stop),
                    members,
                    columns=columns,
                    size=size,
                    units=(left, right, centre),
                    metric=sequential,
                    dtype=dtype,
                    before=before,
                )
                out.distance[here, units] = distance
                out.floor[here, where[own]] = floor[:, own]
                out.speed[here, where[own]] = speed[:, own]
                if len(norm):
                    largest = np.fmax.reduce(np.where(np.isfinite(norm), norm, np.nan), axis=0)
                    scale = np.fmax(scale, largest)
            scales.append((where, scale))

    _in_parts(compare, len(batches), metric)
    for where, scale in scales:
        out.scale[where] = np.fmax(out.scale[where], scale)
    return out


@dataclass(frozen=True, eq=False)
class ReferenceDistances:
    """Distances of twins to their references.

    Attributes
    ----------
    distance : ndarray of float64, shape (T, U)
        Distance of each twin to its reference.
    floor : ndarray of float64, shape (T, R)
        Distance that rounding alone produces at the state of each reference; NaN where unknown.
    scale : ndarray of float64, shape (R,)
        Largest distance of each reference to the zero state; NaN where it is never finite.
    speed : ndarray of float64, shape (T, R)
        L1 distance of each reference to its previous state; NaN in the first row.
    references : ndarray of int64, shape (R,)
        The members that are references, ascending.
    """

    distance: Floats
    floor: Floats
    scale: Floats
    speed: Floats
    references: Ints


class Ensemble(Protocol):
    """States of members that advance together: those of a `Run`, or of a reference with its perturbed copies."""

    @property
    def chunk(self) -> tuple[int, int]:
        """States and entries of a chunk: rectangles along its edges are read once."""

    def by_member(self, rows: slice, members: Any, columns: slice) -> Any:
        """Return the states of some members, (m, t, p)."""


def chunk_of(x: Any) -> tuple[int, int]:
    """States and entries of a chunk of a Trajectory or array; (1, 1) of what is in memory."""
    shape: tuple[int, int] = getattr(getattr(x, "source", x), "chunk", (1, 1))
    return shape


def rows_of_chunks(rows: int, x: Any) -> int:
    """Return a number of rows to read at a time, whole chunks of a file."""
    tall = chunk_of(x)[0]
    return max(tall, rows - rows % tall)


def _batches(twins: Ints, reference: Ints, bytes_per_member: int) -> list[Ints]:
    """Group the units by reference, with as many as fit into a block; of a large family, some at a time."""
    order = np.argsort(reference, kind="stable")
    ends = np.flatnonzero(np.diff(reference[order])) + 1
    most = max(FEWEST_TWINS, BLOCK_BYTES // bytes_per_member - 1)
    batches: list[list[Any]] = []
    room = 0
    for family in np.split(order, ends):
        for part in np.array_split(family, -(-len(family) // most)):
            size = (len(part) + 1) * bytes_per_member
            if not batches or size > room:
                batches.append([])
                room = BLOCK_BYTES
            batches[-1].append(part)
            room -= size
    return [np.concatenate(batch) for batch in batches]


def _shape(metric: Metric, chunk: tuple[int, int], members: int, size: int) -> tuple[int, int]:
    """Choose rows and columns of a block, whole chunks; fewer rows only if the metric needs whole states."""
    tall, wide = chunk
    entries = BLOCK_BYTES // (8 * members)
    if tall * size <= entries:
        return entries // (tall * size) * tall, size
    if metric.merge is not None:
        return tall, min(size, max(1, entries // (tall * wide)) * wide)
    height = entries // size
    if height < 1:
        raise TooLargeError(
            f"metric {metric.name!r} needs whole states, and one state of {members} members is {8 * members * size:,} "
            "bytes; "
            "use l1, l2, linf or rms, select fewer parameters, or analyse fewer members at a time"
        )
    return height, size


def _block(
    ensemble: Ensemble,
    rows: slice,
    members: Ints,
    *,
    columns: int,
    size: int,
    units: tuple[Ints, Ints, Ints],
    metric: Metric,
    dtype: str,
    before: dict[int, Any],
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return distance (t, u), floor, distance to zero and speed (t, r) of a block of rows, merged over columns.

    `before` holds the last states of the references in the previous block by their first column, and takes those of
    this one.
    """
    spans = [slice(start, min(start + columns, size)) for start in range(0, size, columns)]
    strips: list[Any] = [None] * len(spans)

    def compare(first: int, last: int) -> None:
        for k in range(first, last):
            strips[k] = _strip(
                ensemble, rows, members, spans[k], units=units, metric=metric, dtype=dtype, before=before
            )

    _in_parts(compare, len(spans), metric)
    # In the order of the columns, whichever was ready first: the sums are the same to the bit.
    distances, norms, speeds, spacings = zip(*strips, strict=True)
    merge = metric.merge or np.add  # of a metric that needs whole states, there is nothing to merge
    distance, norm, speed = reduce(merge, distances), reduce(merge, norms), reduce(np.add, speeds)
    floor = np.full(norm.shape, np.nan)
    if metric.rounding is not None and dtype in FORMATS:
        three = zip((np.add, np.hypot, np.maximum), zip(*spacings, strict=True), strict=True)
        floor = metric.rounding([reduce(each, parts) for each, parts in three], size)
    if metric.finish is not None:
        distance, norm = metric.finish(distance, size), metric.finish(norm, size)
    return distance, floor, norm, speed


def _strip(
    ensemble: Ensemble,
    rows: slice,
    members: Ints,
    columns: slice,
    *,
    units: tuple[Ints, Ints, Ints],
    metric: Metric,
    dtype: str,
    before: dict[int, Any],
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return distance (t, u), distance to zero and speed (t, r) and spacings (3, t, r) over some columns."""
    from trajtools._kernels.distances import reference_rows, twin_rows

    (left, right, centre), height = units, rows.stop - rows.start
    distance, norm, speed = (np.empty((height, len(one))) for one in (left, centre, centre))
    spacings = np.empty((3, *norm.shape))
    has_kernel = _has_kernel(metric)
    operation = OPERATIONS[metric.sums.operation if metric.sums is not None and has_kernel else "l1"]
    last = before.get(columns.start)
    is_first = last is None
    for here, there, states in _pieces(ensemble, rows, members, columns, whole=metric.merge is None):
        block, top, add = kernel_ready(states), here.start, there.start > 0
        bits, *form = bits_of(block)
        layout = None if metric.rounding is None or dtype not in FORMATS else (*form, *FORMATS[dtype])
        if last is None:
            last = before[columns.start] = np.zeros((len(centre), columns.stop - columns.start), block.dtype)
        reference_rows(block, bits, centre, last, there.start, operation, layout, norm, speed, spacings, top, add)
        if has_kernel:
            twin_rows(block, left, right, operation, distance, top, add)
        else:
            for total, part in zip((distance, norm), _by_metric(metric, block, units), strict=True):
                total[here] = metric.merge(total[here], part) if add and metric.merge is not None else part
    if is_first:
        speed[:1] = np.nan
    return distance, norm, speed, spacings


def _by_metric(metric: Metric, block: Any, units: tuple[Ints, Ints, Ints]) -> tuple[Floats, Floats]:
    """Distances (t, u) of states (m, t, p), and those of the references to zero (t, r), by the metric's own code."""
    left, right, centre = units
    states = np.ascontiguousarray(block.transpose(1, 0, 2))
    features, zero = metric.described(states), metric.described(np.zeros_like(states[:, :1]))
    norm = metric.pairs(features, zero, centre, np.zeros(len(centre), dtype=np.int64))
    return metric.pairs(features, features, left, right), norm


def _in_parts(work: Callable[[int, int], None], count: int, metric: Metric) -> None:
    """Call ``work(first, last)`` on parts of 0 .. count, on threads where a kernel compares the states.

    Other metrics follow states in time, or are functions of users.
    """
    from trajtools._kernels._jit import in_parts

    if _has_kernel(metric):
        in_parts(work, count)
    else:
        work(0, count)


def _has_kernel(metric: Metric) -> bool:
    """Whether the metric is l1, l2, linf, or made of one of them."""
    return metric.sums is not None and metric.merge is not None and not metric.sums.signs


def _pieces(ensemble: Ensemble, rows: slice, members: Ints, columns: slice, *, whole: bool) -> Iterator[Any]:
    """States (m, t, p) of a block with their rows and columns in it, in pieces unless they must be `whole`."""
    if not whole and hasattr(ensemble, "pieces"):
        return ensemble.pieces(rows, members.tolist(), columns)
    place = slice(0, rows.stop - rows.start), slice(0, columns.stop - columns.start)
    return iter([(*place, ensemble.by_member(rows, members.tolist(), columns))])
