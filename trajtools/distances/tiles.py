"""Distances between two sets of states, tile by tile on any executor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.equal_times import as_states
from trajtools.distances.metric import (
    FORMATS,
    METRICS,
    OPERATIONS,
    Metric,
    MetricLike,
    bind_metric,
    find_metric,
    flatten_states,
    kernel_ready,
)
from trajtools.errors import DataError, TooLargeError
from trajtools.inputs import of_one_direction
from trajtools.trajectory import ArrayStates, Trajectory
from trajtools.types import LINF, Bools, Floats
from trajtools.wiring import NodeSet, Parameter

# Sums of squares of float32 (float64) differences below this may have lost digits to underflow, and above the other to
# overflow.
_SMALLEST = {np.dtype(np.float32): 2.0**-90, np.dtype(np.float64): 1e-280}


_LARGEST_SUM = 1e300


# Squares of differences of float32 weights up to this, summed a few at a time, stay within float32.
LARGEST_SINGLE = 2.0**59


_WIDTH = 2**20
Task = TypeVar("Task")
_AHEAD = 32  # tasks in the queue of a user's executor: enough for its workers, few enough to interrupt
ROWS = 64  # of a chunk in most files
BLOCK_BYTES = 32 * 2**20
_BITS = {4: (np.int32, 23, 256, 127), 8: (np.int64, 52, 2048, 1023)}
BUDGET = 256 * 2**20
"""Bytes of states that all threads together hold in memory."""


_LARGEST_TILE = 512
_LARGEST_READ = 2048
_TILES_PER_WORKER = 4
_GROUPS = 16  # a side is a multiple of this, so that register tiles are full
FEATURE_BYTES = 2**30
"""Features larger than this are recomputed for every tile."""


SHORT = 1024
"""Shorter states are compared in float64: the rounding errors of few differences do not average out."""


@dataclass(frozen=True, eq=False)
class Tile:
    """A rectangle of the matrix; it pickles as locations in files, unless the states are in memory.

    Attributes
    ----------
    left, right : Trajectory
        The states of its rows and of its columns.
    which : Which
        The metric.
    lower : bool
        Whether left and right are the same states and the metric is symmetric: only the lower half is computed.
    single : bool
        Whether differences are taken in float32.
    left_finite, right_finite : ndarray of bool
        States without NaN and inf.
    left_norm, right_norm : ndarray of float64
        Euclidean norms of the states, if the metric needs them; else empty.
    budget : int, in bytes
        States held in memory at a time.
    size : int
        Number P of weights of a state.
    described : bool
        Whether left and right are features of the states.
    """

    left: Trajectory
    right: Trajectory
    which: Which
    lower: bool
    single: bool
    left_finite: NDArray[np.bool_]
    right_finite: NDArray[np.bool_]
    left_norm: Floats
    right_norm: Floats
    budget: int
    size: int
    described: bool = False


@dataclass(frozen=True)
class Which:
    """A picklable reference to a metric, by name if other processes know it, with its wiring."""

    metric: str | Metric
    parameters: tuple[Parameter, ...] = ()
    nodes: tuple[NodeSet, ...] = ()

    @classmethod
    def of(cls, metric: Metric, x: Trajectory) -> Which:
        """Refer to an unbound metric."""
        name = metric.name if METRICS.is_everywhere(metric) else metric
        return cls(name) if metric.bind is None else cls(name, tuple(x.parameters), tuple(x.nodes))

    def resolve(self) -> Metric:
        """Return the metric bound to its wiring."""
        metric = METRICS[self.metric] if isinstance(self.metric, str) else self.metric
        return metric if metric.bind is None else _bound(metric, self.parameters, self.nodes)


@lru_cache(maxsize=8)
def _bound(metric: Metric, parameters: tuple[Parameter, ...], nodes: tuple[NodeSet, ...]) -> Metric:
    from dataclasses import replace

    assert metric.bind is not None
    return replace(metric.bind(parameters, nodes), name=metric.name, bind=None)


def compute(tile: Tile) -> Floats:
    """Compute the distances of a tile."""
    metric = tile.which.resolve()
    distances = _by_sums(tile, metric) if metric.sums is not None else _by_pairs(tile, metric)
    if tile.lower:
        distances = np.tril(distances)
        distances += np.tril(distances, -1).T
    return distances


def _by_sums(tile: Tile, metric: Metric) -> Floats:
    sums = metric.sums
    assert sums is not None
    operation = OPERATIONS[sums.operation]
    kind = np.dtype(np.float32 if tile.single else np.float64)
    total = np.zeros((len(tile.left), len(tile.right)))
    _add(tile, metric, operation, kind, total)
    if sums.operation == "l2":
        total = np.sqrt(total) if sums.unit else _roots(tile, metric, kind, total)
    return sums.finish(total, tile.size, tile.left_norm, tile.right_norm)


def _add(tile: Tile, metric: Metric, operation: int, kind: np.dtype[Any], total: Floats) -> None:
    """Sum over all weights, block by block, in the same order for every tile."""
    from trajtools._kernels import tiles as kernels

    sums = metric.sums
    assert sums is not None
    entries = kernels.BLOCK_BYTES // kind.itemsize
    left, right = (_Panel(states, norm, sums.unit, kind) for states, norm in _sides(tile))
    room = _aligned((kernels.GROUP**2 * 8,), np.dtype(np.float64))
    for stretch in sums.entries or (slice(0, tile.left.shape[1]),):
        width = _width(tile, entries)
        for first in range(stretch.start, stretch.stop, width):
            last = min(first + width, stretch.stop)
            a = left.read(first, last)
            b = a if tile.lower else right.read(first, last)
            other = left if tile.lower else right
            for start in range(0, last - first, entries):
                end = min(start + entries, last - first)
                steps = left.pack(*a, start, end, sums.signs)
                if not tile.lower:
                    right.pack(*b, start, end, sums.signs)
                kernels.add_block(operation, tile.lower, left.packed, other.packed, steps, room, total)


def _aligned(shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    """Allocate an array that starts at a cache line: vectors across two lines are read twice."""
    size = int(np.prod(shape)) * kind.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(kind).reshape(shape)


class _Panel:
    """States of one side of a tile, in blocks in the order that the kernel reads."""

    def __init__(self, states: Trajectory, norm: Floats, unit: bool, kind: np.dtype[Any]) -> None:
        from trajtools._kernels import tiles as kernels

        self._states, self._kind = states, kind
        lanes = 64 // kind.itemsize
        groups, steps = -(-len(states) // kernels.GROUP), kernels.BLOCK_BYTES // 64
        self.packed = _aligned((groups, steps, kernels.GROUP, lanes), kind)
        scale = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0) if unit else np.ones(len(states))
        self._scale = scale.astype(kind)

    def read(self, first: int, last: int) -> tuple[NDArray[Any], int]:
        return flatten_states(self._states.read(0, len(self._states), slice(first, last)), self._kind)

    def pack(self, line: NDArray[Any], stride: int, start: int, end: int, signs: bool) -> int:
        from trajtools._kernels import tiles as kernels

        return int(kernels.pack(line, stride, len(self._states), self._scale, signs, start, end, self.packed))


def _width(tile: Tile, entries: int) -> int:
    """Entries of each state read at a time: whole blocks, so that sums do not depend on it."""
    states = len(tile.left) + (0 if tile.lower else len(tile.right))
    # Twice: the stored format and the format of comparison.
    return max(1, tile.budget // (2 * 8 * max(states, 1) * entries)) * entries


def _sides(tile: Tile) -> tuple[tuple[Trajectory, Floats], tuple[Trajectory, Floats]]:
    return (tile.left, tile.left_norm), (tile.right, tile.right_norm)


def _roots(tile: Tile, metric: Metric, kind: np.dtype[Any], total: Floats) -> Floats:
    """Roots of sums of squares, rescaled by the largest difference where these underflow or overflow."""
    roots = np.sqrt(total)
    doubtful = ~((total >= _SMALLEST[kind]) & (total <= _LARGEST_SUM))
    doubtful &= tile.left_finite[:, None] & tile.right_finite
    if tile.lower:
        doubtful &= np.tri(len(doubtful), k=-1, dtype=bool)
    if not doubtful.any():
        return roots
    largest = np.zeros_like(total)
    _add(tile, metric, LINF, np.dtype(np.float64), largest)
    roots[doubtful & (largest == 0)] = 0.0
    for i, j in zip(*np.nonzero(doubtful & (largest > 0) & (largest < np.inf)), strict=True):
        roots[i, j] = largest[i, j] * _root_in_parts(tile, metric, int(i), int(j), float(largest[i, j]))
    return roots


def _root_in_parts(tile: Tile, metric: Metric, i: int, j: int, largest: float) -> float:
    """Euclidean distance of one pair, divided by its largest difference."""
    assert metric.sums is not None
    total = 0.0
    for stretch in metric.sums.entries or (slice(0, tile.left.shape[1]),):
        for first in range(stretch.start, stretch.stop, _WIDTH):
            columns = slice(first, min(first + _WIDTH, stretch.stop))
            a, b = (np.asarray(x.read(k, k + 1, columns), np.float64) for x, k in ((tile.left, i), (tile.right, j)))
            total += float(np.sum(np.square((a - b) / largest)))
    return float(np.sqrt(total))


def _by_pairs(tile: Tile, metric: Metric) -> Floats:
    """Distances of a tile with a metric on whole states."""
    n, m, width = len(tile.left), len(tile.right), tile.left.shape[1]
    size = (n + m) * width * 8
    if size > tile.budget and n * m > 1:
        raise TooLargeError(
            f"metric {metric.name!r} needs whole states, and {n + m} of them are {size:,} bytes; use a smaller block"
        )
    a, b = (kernel_ready(np.asarray(x.read(0, len(x))))[None] for x in (tile.left, tile.right))
    if a.dtype != b.dtype:
        a, b = a.astype(np.float64), b.astype(np.float64)
    finite = tile.left_finite, tile.right_finite
    left, right = np.tril_indices(n) if tile.lower else np.indices((n, m)).reshape(2, -1)
    finite_pairs = finite[0][left] & finite[1][right]
    left, right = left[finite_pairs], right[finite_pairs]
    out = np.full((n, m), np.nan)
    if len(left):
        features = a if tile.described else _description(metric, a, finite[0])
        other_features = (
            features if tile.left is tile.right else b if tile.described else _description(metric, b, finite[1])
        )
        distances = metric.pairs(features, other_features, left, right)
        if metric.finish is not None:
            distances = metric.finish(distances, tile.size)
        out[left, right] = np.asarray(distances, dtype=np.float64)[0]
    return out


def _description(metric: Metric, states: Any, finite: NDArray[np.bool_]) -> Any:
    """Features of the finite states; NaN for the others."""
    if metric.features is None:
        return states
    features = metric.described(states[:, finite])
    table = np.full((1, len(finite), features.shape[2]), np.nan)
    table[:, finite] = features
    return table


def stored_format(x: Trajectory) -> str:
    """Return the dtype of the weights in training if there is only one; else the stored dtype."""
    names = {p.dtype for p in x.parameters}
    return names.pop() if len(names) == 1 else str(x.dtype)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two checked sets of states and a metric.

    Attributes
    ----------
    x, y : Trajectory
        The states of the rows and of the columns; the same object for one trajectory.
    metric : Metric
        The bound metric.
    which : Which
        The picklable reference to the metric.
    rows, columns : Scan
        Properties of the states.
    size : int
        Number P of weights of a state.
    dtype : str
        Dtype of the states of the rows.
    described : bool
        Whether x and y are features, computed once for all tiles.
    single : bool
        Whether differences are taken in float32.
    budget : int, in bytes
        Memory of one tile.
    """

    x: Trajectory
    y: Trajectory
    metric: Metric
    which: Which
    rows: Scan
    columns: Scan
    size: int
    dtype: str
    described: bool
    single: bool
    budget: int

    @property
    def square(self) -> bool:
        """Whether a trajectory is compared with itself."""
        return self.x is self.y

    @property
    def symmetric(self) -> bool:
        """Whether the matrix is symmetric, so that half of it is enough."""
        return self.square and self.metric.symmetric is True

    def side(self, workers: int) -> int:
        """Choose the side of a tile: it fits into memory, and every worker (if any) gets several tiles."""
        most = _LARGEST_TILE
        if not all(isinstance(states.source, ArrayStates) for states in (self.x, self.y)):
            # Every tile rereads its states, so larger tiles read a file less often. Four such squares are in use.
            most = max(most, min(_LARGEST_READ, int(np.sqrt(self.budget / 32)) // _GROUPS * _GROUPS))
        if self.metric.sums is None:
            most = min(_LARGEST_TILE, self.budget // (2 * 8 * max(self.x.shape[1], 1)))
            if most < 1:
                raise TooLargeError(
                    f"metric {self.metric.name!r} needs whole states, and two of them are "
                    f"{2 * 8 * self.x.shape[1]:,} bytes, more than the {self.budget:,} of a thread; select "
                    "fewer parameters, or use a metric that adds up over the weights (l1, l2, linf, rms)"
                )
        if not workers:
            return most
        pairs = len(self.x) * len(self.y) / (2 if self.symmetric and workers > 1 else 1)
        # Large tiles copy each state less often; one worker needs no other tile to go on with.
        fair = int(np.ceil(np.sqrt(pairs / (_TILES_PER_WORKER * workers if workers > 1 else 1))))
        side = min(most, max(fair, 4 * _GROUPS))
        # Tiles of equal size.
        longest = max(len(self.x), len(self.y), 1)
        even = -(-longest // -(-longest // side))
        return min(most, -(-even // _GROUPS) * _GROUPS)

    def tile(self, rows: slice, columns: slice, *, travels: bool = False) -> Tile:
        """Cut out a rectangle; with `travels`, only with the states that it needs."""
        same = self.square and rows == columns
        left = _part(self.x, rows, travels)
        right = left if same else _part(self.y, columns, travels)
        norms = self.metric.sums is not None and self.metric.sums.norms
        return Tile(
            left,
            right,
            self.which,
            lower=same and self.symmetric,
            single=self.single,
            left_finite=self.rows.finite[rows],
            right_finite=self.columns.finite[columns],
            left_norm=self.rows.norm[rows] if norms else np.empty(0),
            right_norm=self.columns.norm[columns] if norms else np.empty(0),
            budget=self.budget,
            size=self.size,
            described=self.described,
        )

    def pick_columns(self, picked: NDArray[np.int64]) -> Comparison:
        """Return the comparison with selected states of the columns, held in memory."""
        states = np.concatenate([self.y.read(k, k + 1) for k in picked.tolist()])
        scan = self.columns
        norm = scan.norm[picked] if len(scan.norm) else scan.norm
        few = replace(scan, finite=scan.finite[picked], floor=scan.floor[picked], norm=norm)
        return replace(self, y=Trajectory.from_array(states, dt=self.y.dt, time_unit=self.y.time_unit), columns=few)

    def blank(self, rows: slice, columns: slice, block: NDArray[np.float64]) -> NDArray[np.float64]:
        """Set rows and columns of states that are not finite to NaN."""
        block[~self.rows.finite[rows]] = np.nan
        block[:, ~self.columns.finite[columns]] = np.nan
        return block


@dataclass(frozen=True, eq=False)
class Scan:
    """Properties of the states before comparison.

    Attributes
    ----------
    finite : ndarray of bool, shape (T,)
        States without NaN and inf.
    norm : ndarray of float64, shape (T,)
        Euclidean norms; empty if not requested.
    floor : ndarray of float64, shape (T,)
        Rounding floor of the distance; NaN where unknown.
    largest : float
        Upper bound of the absolute weights of finite states, at most twice the largest.
    digest : str
        Hash of the bits of the states; empty if not requested.
    """

    finite: NDArray[np.bool_]
    norm: Floats
    floor: Floats
    largest: float
    digest: str


def _part(x: Trajectory, rows: slice, travels: bool) -> Trajectory:
    part = x[rows]
    if travels and isinstance(x.source, ArrayStates):
        return Trajectory.from_array(np.array(part.read()), parameters=x.parameters, nodes=x.nodes)
    return part


def compare(x: Any, y: Any, metric: MetricLike, *, digest: bool, executor: Executor | None) -> Comparison:
    """Check two sets of states and scan each once."""
    left, right = both_sides(x, y, metric)
    unbound = find_metric(metric)
    bound = bind_metric(unbound, left, right)
    which = Which.of(unbound, left if left.parameters else right)
    norms = bound.sums is not None and bound.sums.norms
    rows = scan(left, bound, norms=norms, digest=digest, executor=executor)
    columns = rows if right is left else scan(right, bound, norms=norms, digest=digest, executor=executor)
    budget = BUDGET // (threads() if executor is None else 1)
    sources = [(left, rows.finite)] if right is left else [(left, rows.finite), (right, columns.finite)]
    features = _described(sources, bound, budget)
    return Comparison(
        features[0] if features else left,
        features[-1] if features else right,
        bound,
        which,
        rows,
        columns,
        size=left.shape[1],
        dtype=str(left.dtype),
        described=bool(features),
        single=_is_single(bound, left, right, max(rows.largest, columns.largest)),
        budget=budget,
    )


def both_sides(x: Any, y: Any, metric: MetricLike) -> tuple[Trajectory, Trajectory]:
    """Two sets of states of one architecture; the same object twice for one trajectory."""
    left = _as_trajectory(x, "x", metric)
    right = left if y is None or y is x else _as_trajectory(y, "y", metric)
    if right is not left:
        left, right = of_one_direction(left, right)
    if left.shape[1] != right.shape[1]:
        raise DataError(
            f"the states have {left.shape[1]} and {right.shape[1]} weights; only states of one architecture have a "
            "distance"
        )
    return left, right


def _as_trajectory(x: Any, name: str, metric: MetricLike) -> Trajectory:
    states = as_states(x, name, metric)
    return states if isinstance(states, Trajectory) else Trajectory.from_array(states)


def threads() -> int:
    """Number of threads that this process may use."""
    from trajtools._kernels._jit import allowed

    return allowed()


def scan(x: Trajectory, metric: Metric, *, norms: bool, digest: bool, executor: Executor | None) -> Scan:
    """Read all states once, those in files through the executor."""
    length, size = x.shape
    bins, bias = _BITS[_kind(x).itemsize][2:]
    counts = np.zeros((length, bins), np.int64)
    norm = np.zeros(length)
    hashes: dict[int, bytes] = {}

    def send(rows: slice) -> _Rows:
        return _Rows(x[rows], norms, digest)

    def keep(rows: slice, result: tuple[NDArray[np.int64], Floats, bytes]) -> None:
        counts[rows], norm[rows], hashes[rows.start] = result

    tasks = [slice(start, min(start + ROWS, length)) for start in range(0, length, ROWS)]
    remote = None if isinstance(x.source, ArrayStates) else executor
    if remote is not None and tasks:
        # Compilation in many processes at once can break numba's cache.
        _scan_rows(_Rows(x[:1], norms, digest))
    run(tasks, _scan_rows, keep, executor=remote, workers=min(threads(), max(1, len(tasks))), send=send)
    finite = counts[:, -1] == 0
    exponent = np.arange(bins) - bias
    occurring = np.flatnonzero(counts[finite].any(axis=0)) if finite.any() else np.empty(0, np.int64)
    # Exponents of zero and of subnormal numbers are 0.
    largest = float(np.ldexp(1.0, int(exponent[occurring[-1]]) + 1)) if occurring.size and occurring[-1] else 0.0
    whole = hashlib.sha256(f"{length} {size} {x.dtype}".encode())
    for start in sorted(hashes):
        whole.update(hashes[start])
    return Scan(
        finite=finite,
        norm=norm if norms else np.empty(0),
        floor=_floor(x, metric, counts, exponent),
        largest=largest,
        digest=whole.hexdigest() if digest else "",
    )


@dataclass(frozen=True, eq=False)
class _Rows:
    """Some states to scan; they pickle as a location in a file."""

    states: Trajectory
    norms: bool
    digest: bool


def _scan_rows(rows: _Rows) -> tuple[NDArray[np.int64], Floats, bytes]:
    """Exponents of the weights of each state (n, bins), norms (n,) and a hash of the bits."""
    states, kind, hasher = rows.states, _kind(rows.states), hashlib.sha256()
    counts = np.zeros((len(states), _BITS[kind.itemsize][2]), np.int64)
    norm = np.zeros(len(states))
    # Stretches have a fixed width, so that the hash depends on the states alone.
    width = BLOCK_BYTES // (ROWS * 8)
    for first in range(0, max(states.shape[1], 1), width):
        block = np.asarray(states.read(0, len(states), slice(first, first + width)))
        _count(block, kind, counts)
        if rows.norms:
            norm = np.hypot(norm, _norms(block))
        if rows.digest:
            hasher.update(np.ascontiguousarray(block).data)
    return counts, norm, hasher.digest()


def _kind(x: Trajectory) -> np.dtype[Any]:
    return np.dtype(np.float32) if x.dtype.itemsize < 8 else np.dtype(np.float64)


def _count(block: NDArray[Any], kind: np.dtype[Any], counts: NDArray[np.int64]) -> None:
    from trajtools._kernels.tiles import count_exponents

    word, shift, _, _ = _BITS[kind.itemsize]
    line, stride = flatten_states(block, kind)
    count_exponents(line.view(word), stride, block.shape[1], shift, counts)


def _floor(x: Trajectory, metric: Metric, counts: NDArray[np.int64], exponent: NDArray[np.int64]) -> Floats:
    name = stored_format(x)
    if metric.rounding is None or name not in FORMATS:
        return np.full(len(counts), np.nan)
    mantissa, smallest = FORMATS[name]
    spacing = np.ldexp(1.0, np.maximum(exponent[:-1], smallest) - mantissa)
    spacing[0] = np.ldexp(1.0, smallest - mantissa)
    occurring = np.where(counts[:, :-1].any(axis=0), spacing, 0.0)
    highest = counts.shape[1] - 2 - np.argmax(counts[:, -2::-1] > 0, axis=1)
    largest = np.where(counts[:, :-1].any(axis=1), spacing[highest], 0.0)
    unit = occurring.max(initial=0.0) or 1.0  # squares of spacings may overflow
    roots = unit * np.sqrt(counts[:, :-1] @ (occurring / unit) ** 2)
    sums = np.stack([counts[:, :-1] @ occurring, roots, largest])
    return np.asarray(metric.rounding(sums, prod(x.shape[1:])), dtype=np.float64)


def _norms(block: NDArray[Any]) -> Floats:
    from trajtools._kernels.distances import pairs_l2

    states = kernel_ready(block)[None]
    rows = np.arange(len(block))
    return pairs_l2(states, np.zeros_like(states[:, :1]), rows, np.zeros_like(rows))[0]


def _described(sources: list[tuple[Trajectory, Bools]], metric: Metric, budget: int) -> list[Trajectory]:
    """Compute the features of all finite states once for all tiles; empty if there are none, or too many."""
    if metric.features is None or metric.sums is not None or not all(finite.any() for _, finite in sources):
        return []
    described = []
    count = sum(len(x) for x, _ in sources)
    for x, finite in sources:
        first = int(np.flatnonzero(finite)[0])
        width = metric.described(kernel_ready(x.read(first, first + 1))[None]).shape[2]
        if 8 * width * count > FEATURE_BYTES:
            return []
        table = np.full((len(x), width), np.nan)
        states = max(1, budget // (2 * 8 * max(x.shape[1], 1)))

        def describe(
            start: int, x: Trajectory = x, finite: Bools = finite, table: Any = table, n: int = states
        ) -> None:
            rows = start + np.flatnonzero(finite[start : start + n])
            if len(rows):
                block = kernel_ready(x.read(start, min(start + n, len(x))))[rows - start]
                table[rows] = metric.described(block[None])[0]

        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(describe, range(0, len(x), states)))
        described.append(Trajectory(ArrayStates(table), step=x.step, dt=x.dt, time_unit=x.time_unit))
    return described


def _is_single(metric: Metric, left: Trajectory, right: Trajectory, largest: float) -> bool:
    narrow = all(x.dtype.itemsize < 8 for x in (left, right)) and largest <= LARGEST_SINGLE
    # Rounding a unit vector to float32 would be as large as the difference of neighbouring states.
    return metric.sums is not None and not metric.sums.unit and narrow and left.shape[1] >= SHORT


def run(
    tasks: Iterable[Task],
    compute: Callable[[Any], Any],
    keep: Callable[[Task, Any], None],
    *,
    executor: Executor | None,
    workers: int,
    send: Callable[[Task], Any] = lambda task: task,
) -> None:
    """Compute tasks and store their results in this thread as they complete."""
    if executor is not None:
        _drain(executor, tasks, compute, keep, send=send, ahead=_AHEAD)
    elif workers < 2:
        for task in tasks:
            keep(task, compute(send(task)))
    else:
        with ThreadPoolExecutor(workers) as pool:
            _drain(pool, tasks, compute, keep, send=send, ahead=2 * workers)


def _drain(
    pool: Executor,
    tasks: Iterable[Task],
    compute: Callable[[Any], Any],
    keep: Callable[[Task, Any], None],
    *,
    send: Callable[[Task], Any],
    ahead: int,
) -> None:
    waiting: dict[Future[Any], Task] = {}
    remaining = iter(tasks)
    try:
        for task in remaining:
            waiting[pool.submit(compute, send(task))] = task
            if len(waiting) >= ahead:
                _keep_some(waiting, keep)
        while waiting:
            _keep_some(waiting, keep)
    finally:
        for future in waiting:
            future.cancel()


def _keep_some(waiting: dict[Future[Any], Task], keep: Callable[[Task, Any], None]) -> None:
    completed, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in completed:
        task = waiting.pop(future)
        keep(task, future.result())
