"""One tile of a matrix of distances: a task that travels to where it is computed, and its computation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.metric import METRICS, OPERATIONS, Metric, in_line, kernel_ready
from trajtools.errors import TooLargeError
from trajtools.parameters import NodeSet, Parameter
from trajtools.trajectory import Trajectory
from trajtools.types import LINF, Floats

# A sum of squares of float32 differences below this may have lost digits to underflow; of float64 ones likewise, and
# above the other to overflow.
_SMALLEST = {np.dtype(np.float32): 2.0**-90, np.dtype(np.float64): 1e-280}
_LARGEST_SUM = 1e300
# Squares of differences of float32 weights up to this, summed a few at a time, stay within float32.
LARGEST_SINGLE = 2.0**59
_WIDTH = 2**20


@dataclass(frozen=True)
class Which:
    """A metric on its way to another process: by name where that is known everywhere, with the wiring it is for."""

    metric: str | Metric
    parameters: tuple[Parameter, ...] = ()
    nodes: tuple[NodeSet, ...] = ()

    @classmethod
    def of(cls, metric: Metric, x: Trajectory) -> Which:
        """Say which metric it is; `metric` as it was found, not yet bound."""
        name = metric.name if METRICS.is_everywhere(metric) else metric
        return cls(name) if metric.bind is None else cls(name, tuple(x.parameters), tuple(x.nodes))

    def found(self) -> Metric:
        """Return the metric, bound to its wiring."""
        metric = METRICS[self.metric] if isinstance(self.metric, str) else self.metric
        return metric if metric.bind is None else _bound(metric, self.parameters, self.nodes)


@lru_cache(maxsize=8)
def _bound(metric: Metric, parameters: tuple[Parameter, ...], nodes: tuple[NodeSet, ...]) -> Metric:
    from dataclasses import replace

    assert metric.bind is not None
    return replace(metric.bind(parameters, nodes), name=metric.name, bind=None)


@dataclass(frozen=True, eq=False)
class Tile:
    """A rectangle of the matrix. It pickles as places in files, unless the states are in memory.

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
        Euclidean norms of the states, where the metric needs them; else empty.
    budget : int, in bytes
        Of states that are held at a time.
    size : int
        Number P of weights of a state.
    described : bool
        Whether left and right hold the features of the states already.
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


def compute(tile: Tile) -> Floats:
    """Compute the distances of a tile."""
    metric = tile.which.found()
    found = _by_sums(tile, metric) if metric.sums is not None else _by_pairs(tile, metric)
    if tile.lower:
        found = np.tril(found)
        found += np.tril(found, -1).T
    return found


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
    """Add up over all weights, block by block; the order is the same for every tile."""
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


def _sides(tile: Tile) -> tuple[tuple[Trajectory, Floats], tuple[Trajectory, Floats]]:
    return (tile.left, tile.left_norm), (tile.right, tile.right_norm)


def _width(tile: Tile, entries: int) -> int:
    """How many entries of all states of the tile are read at a time: whole blocks, so that sums do not depend on it."""
    states = len(tile.left) + (0 if tile.lower else len(tile.right))
    # Twice: as they are read, and in the format in which they are compared.
    return max(1, tile.budget // (2 * 8 * max(states, 1) * entries)) * entries


class _Panel:
    """States of one side of a tile, block by block in the order in which the kernel reads them."""

    def __init__(self, states: Trajectory, norm: Floats, unit: bool, kind: np.dtype[Any]) -> None:
        from trajtools._kernels import tiles as kernels

        self._states, self._kind = states, kind
        lanes = 64 // kind.itemsize
        groups, steps = -(-len(states) // kernels.GROUP), kernels.BLOCK_BYTES // 64
        self.packed = _aligned((groups, steps, kernels.GROUP, lanes), kind)
        scale = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0) if unit else np.ones(len(states))
        self._scale = scale.astype(kind)

    def read(self, first: int, last: int) -> tuple[NDArray[Any], int]:
        return in_line(self._states.read(0, len(self._states), slice(first, last)), self._kind)

    def pack(self, line: NDArray[Any], stride: int, start: int, end: int, signs: bool) -> int:
        from trajtools._kernels import tiles as kernels

        return int(kernels.pack(line, stride, len(self._states), self._scale, signs, start, end, self.packed))


def _aligned(shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    """An array that starts at a cache line: vectors across two of them are read twice."""
    size = int(np.prod(shape)) * kind.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(kind).reshape(shape)


def _roots(tile: Tile, metric: Metric, kind: np.dtype[Any], total: Floats) -> Floats:
    """Roots of sums of squares; where these left the range of their format, in parts of the largest difference."""
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
    """Euclidean distance of one pair, in parts of its largest difference."""
    assert metric.sums is not None
    total = 0.0
    for stretch in metric.sums.entries or (slice(0, tile.left.shape[1]),):
        for first in range(stretch.start, stretch.stop, _WIDTH):
            columns = slice(first, min(first + _WIDTH, stretch.stop))
            a, b = (np.asarray(x.read(k, k + 1, columns), np.float64) for x, k in ((tile.left, i), (tile.right, j)))
            total += float(np.sum(np.square((a - b) / largest)))
    return float(np.sqrt(total))


def _by_pairs(tile: Tile, metric: Metric) -> Floats:
    """Any other metric: whole states, as many at a time as fit."""
    n, m, width = len(tile.left), len(tile.right), tile.left.shape[1]
    needed = (n + m) * width * 8
    if needed > tile.budget and n * m > 1:
        raise TooLargeError(
            f"metric {metric.name!r} needs whole states, and {n + m} of them are {needed:,} bytes; lower block"
        )
    a, b = (kernel_ready(np.asarray(x.read(0, len(x))))[None] for x in (tile.left, tile.right))
    if a.dtype != b.dtype:
        a, b = a.astype(np.float64), b.astype(np.float64)
    finite = tile.left_finite, tile.right_finite
    left, right = np.tril_indices(n) if tile.lower else np.indices((n, m)).reshape(2, -1)
    there = finite[0][left] & finite[1][right]
    left, right = left[there], right[there]
    out = np.full((n, m), np.nan)
    if len(left):
        shown = a if tile.described else _described(metric, a, finite[0])
        other = shown if tile.left is tile.right else b if tile.described else _described(metric, b, finite[1])
        found = metric.pairs(shown, other, left, right)
        if metric.finish is not None:
            found = metric.finish(found, tile.size)
        out[left, right] = np.asarray(found, dtype=np.float64)[0]
    return out


def _described(metric: Metric, states: Any, finite: NDArray[np.bool_]) -> Any:
    """Features of the finite states; the others are not asked about."""
    if metric.features is None:
        return states
    known = metric.described(states[:, finite])
    found = np.full((1, len(finite), known.shape[2]), np.nan)
    found[:, finite] = known
    return found
