"""One look at all states before they are compared: which are finite, how large they are, what rounding does to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.metric import FORMATS, Metric, in_line, kernel_ready
from trajtools.trajectory import Trajectory
from trajtools.types import Floats

ROWS = 64  # of a chunk in most files
BLOCK_BYTES = 32 * 2**20
_BITS = {4: (np.int32, 23, 256, 127), 8: (np.int64, 52, 2048, 1023)}


@dataclass(frozen=True, eq=False)
class Scan:
    """What is known of the states before they are compared.

    Attributes
    ----------
    finite : ndarray of bool, shape (T,)
        States without NaN and inf.
    norm : ndarray of float64, shape (T,)
        Euclidean norms; empty if they were not asked for.
    floor : ndarray of float64, shape (T,)
        Distance that rounding alone produces; NaN where unknown.
    largest : float
        A bound of the weights of the finite states: none is larger, and the largest is at least half of it.
    digest : str
        Hash of the states, bit by bit; empty if it was not asked for.
    """

    finite: NDArray[np.bool_]
    norm: Floats
    floor: Floats
    largest: float
    digest: str


def scan(x: Trajectory, metric: Metric, *, norms: bool, digest: bool, threads: int) -> Scan:
    """Read all states once."""
    length, size = x.shape
    kind = np.dtype(np.float32) if x.dtype.itemsize < 8 else np.dtype(np.float64)
    bins, bias = _BITS[kind.itemsize][2:]
    counts = np.zeros((length, bins), np.int64)
    norm = np.zeros(length)
    hashes: dict[int, bytes] = {}

    def look(start: int) -> None:
        rows, hasher = slice(start, min(start + ROWS, length)), hashlib.sha256()
        for block in _blocks(x, rows):
            _count(block, kind, counts[rows])
            if norms:
                norm[rows] = np.hypot(norm[rows], _norms(block))
            if digest:
                hasher.update(np.ascontiguousarray(block).data)
        hashes[start] = hasher.digest()

    starts = range(0, length, ROWS)
    with ThreadPoolExecutor(max(1, min(threads, len(starts)))) as pool:
        list(pool.map(look, starts))
    finite = counts[:, -1] == 0
    exponent = np.arange(bins) - bias
    occurring = np.flatnonzero(counts[finite].any(axis=0)) if finite.any() else np.empty(0, np.int64)
    # Exponents of zero and of subnormal numbers are 0.
    largest = float(np.ldexp(1.0, int(exponent[occurring[-1]]) + 1)) if occurring.size and occurring[-1] else 0.0
    whole = hashlib.sha256(f"{length} {size} {x.dtype}".encode())
    for start in starts:
        whole.update(hashes[start])
    return Scan(
        finite=finite,
        norm=norm if norms else np.empty(0),
        floor=_floor(x, metric, counts, exponent),
        largest=largest,
        digest=whole.hexdigest() if digest else "",
    )


def _blocks(x: Trajectory, rows: slice) -> Iterator[NDArray[Any]]:
    """Entries of some states, the same stretches whoever asks: a hash over them depends on the states alone."""
    width = BLOCK_BYTES // (ROWS * 8)
    for first in range(0, max(x.shape[1], 1), width):
        block = np.asarray(x.read(rows.start, rows.stop, slice(first, first + width)))
        yield block


def _count(block: NDArray[Any], kind: np.dtype[Any], counts: NDArray[np.int64]) -> None:
    from trajtools._kernels.tiles import count_exponents

    word, shift, _, _ = _BITS[kind.itemsize]
    line, stride = in_line(block, kind)
    count_exponents(line.view(word), stride, block.shape[1], shift, counts)


def _norms(block: NDArray[Any]) -> Floats:
    from trajtools._kernels.distances import pairs_l2

    states = kernel_ready(block)[None]
    rows = np.arange(len(block))
    return pairs_l2(states, np.zeros_like(states[:, :1]), rows, np.zeros_like(rows))[0]


def stored_format(x: Trajectory) -> str:
    """Return the format that the weights were trained in, if it is one; else the one they are stored in."""
    names = {p.dtype for p in x.parameters}
    return names.pop() if len(names) == 1 else str(x.dtype)


def _floor(x: Trajectory, metric: Metric, counts: NDArray[np.int64], exponent: NDArray[np.int64]) -> Floats:
    name = stored_format(x)
    if metric.rounding is None or name not in FORMATS:
        return np.full(len(counts), np.nan)
    mantissa, smallest = FORMATS[name]
    spacing = np.ldexp(1.0, np.maximum(exponent[:-1], smallest) - mantissa)
    spacing[0] = np.ldexp(1.0, smallest - mantissa)
    there = np.where(counts[:, :-1].any(axis=0), spacing, 0.0)
    largest = np.array([spacing[row[:-1] > 0].max(initial=0.0) for row in counts])
    unit = there.max(initial=0.0) or 1.0  # squares of spacings may leave the range of float64
    roots = unit * np.sqrt(counts[:, :-1] @ (there / unit) ** 2)
    sums = np.stack([counts[:, :-1] @ there, roots, largest])
    return np.asarray(metric.rounding(sums, prod(x.shape[1:])), dtype=np.float64)
