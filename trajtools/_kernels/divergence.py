"""Separation of pairs of states. See trajtools.exponents.neighbor_methods.

Sums of logarithms are stored as products: mantissas are multiplied, exponents added as integers, and one logarithm is
taken at the end. `lags` holds the states as (d, T + padding), so that following a pair reads memory in order; `width`
is the number of steps followed (horizon + 1) rounded up to full lanes; values beyond the horizon are not used.
Distances below the smallest normal number (2e-308) count as zero.
"""

from __future__ import annotations

from math import frexp
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from trajtools._kernels._jit import helper, kernel, section
from trajtools._kernels.lanes import multiply_distances, write_gaps
from trajtools.types import L1, L2, L2_SCALED, PRECOMPUTED

# Arrays are passed one by one to functions called for every pair: numba copies a tuple of them at each call, which made
# the searches three times slower.
# ruff: noqa: PLR0917


_MANTISSA = np.int64(0x000FFFFFFFFFFFFF)
_ONE = np.int64(0x3FF0000000000000)
_BIAS = np.int64(1023)
# Mantissas are below 2, so this many can be multiplied before renormalisation.
TERMS = 900
LN2 = 0.6931471805599453
# A squared distance across the motion below this fraction of the full one is rounding and counts as zero.
ROUNDING = 1e-14
# Samples between two time shifts of the partner, and padding of the states.
LANES = 8
FARTHEST = 1e6  # samples, largest time shift


@section()
def _lengthen(gaps: Any, i: Any, j: Any, lags: Any) -> Any:
    """Convert largest differences to Euclidean distances without squaring numbers above one."""
    for k in range(gaps.shape[0]):
        if gaps[k] > 0.0:
            total = 0.0
            for c in range(lags.shape[0]):
                step = (lags[c, i + k] - lags[c, j + k]) / gaps[k]
                total += step * step
            gaps[k] *= np.sqrt(total)


@helper(_nrt=False)
def _slip(i: Any, j: Any, lags: Any) -> Any:
    """Lag in samples of state j behind state i along their mean motion; 0 if undetermined."""
    half = lags.shape[0] // 2
    j = min(max(j, 1), lags.shape[1] - LANES - 2)
    chord = 0.0
    step = 0.0
    for c in range(half):
        both = lags[half + c, i] + lags[half + c, j]
        chord += (lags[c, i] - lags[c, j]) * both
        step += 0.5 * (lags[c, j + 1] - lags[c, j - 1]) * both
    # The comparisons are false for NaN, next to a state that is not finite.
    if step > 0.0 and abs(chord) < FARTHEST * step:
        return int(np.floor(chord / step + 0.5))
    return 0


@section()
def _follow_across(gaps: Any, along: Any, i: Any, j: Any, lags: Any, width: Any, horizon: Any) -> Any:
    """Squared gaps of i to the orbit of j: `lags` holds the states followed by the directions of their motion.

    Every few samples the partner is shifted in time to be beside i, within the record. The remaining gap along the mean
    of the two directions, that of a chord of one orbit to second order, is subtracted.
    """
    half = lags.shape[0] // 2
    # Within the record, and at most half the way to the reference itself.
    lowest = -j if j < i else max(-j, -((j - i) // 2))
    highest = lags.shape[1] - LANES - 1 - (j + horizon)
    if j < i:
        highest = min(highest, (i - j) // 2)
    shift = 0
    for first in range(0, width, LANES):
        if first <= horizon:
            slip = _slip(i + first, j + first + shift, lags)
            shift = min(max(shift + min(max(slip, -LANES), LANES), lowest), highest)
            for k in range(first, min(first + LANES, horizon + 1)):
                if lags[half, j + k + shift] != lags[half, j + k + shift]:  # not a finite state
                    shift = 0
                    break
        here, there, last = i + first, j + first + shift, first + LANES
        gap, part = gaps[first:last], along[first:last]
        for k in range(LANES):
            gap[k] = 0.0
            part[k] = 0.0
        for c in range(half):
            a, u = lags[c, here : here + LANES], lags[half + c, here : here + LANES]
            b, v = lags[c, there : there + LANES], lags[half + c, there : there + LANES]
            for k in range(LANES):
                step = a[k] - b[k]
                gap[k] += step * step
                part[k] += step * (u[k] + v[k])
        for k in range(LANES):
            size = 0.0
            for c in range(half, 2 * half):
                both = lags[c, here + k] + lags[c, there + k]
                size += both * both
            rest = gap[k] - part[k] * part[k] / size if size > ROUNDING else gap[k]
            gap[k] = rest if rest > ROUNDING * gap[k] else 0.0


@helper(_nrt=False)
def follow(gaps: Any, along: Any, i: Any, j: Any, lags: Any, matrix: Any, metric: Any, width: Any, horizon: Any) -> Any:
    """Gaps of the pair (i, j) after 0 .. horizon steps; returns False if a distance is missing.

    From a matrix of distances, or across the motion where there is workspace for the part `along` it, or from the
    states. What is None is not compiled.
    """
    if matrix is not None:
        whole = True
        for k in range(horizon + 1):
            gaps[k] = matrix[i + k, j + k]
            whole &= gaps[k] < np.inf
        return whole
    if along is not None:
        _follow_across(gaps, along, i, j, lags, width, horizon)
        return True
    write_gaps(gaps, lags, i, j, metric)
    if metric == L2_SCALED:
        _lengthen(gaps, i, j, lags)
    return True


@helper(_nrt=False)
def multiply(product: Any, exponent: Any, zeros: Any, bits: Any, mantissas: Any, split: Any) -> Any:
    """Multiply values into products of mantissas and exponents; zeros are skipped and counted.

    `bits` is the integer view of the values, `mantissas` that of `split`: creating a view costs more than the sums.
    """
    dead = np.int64(0)
    for k in range(product.shape[0]):
        power = bits[k] >> 52
        live = power > 0
        dead |= power - 1
        exponent[k] += power - _BIAS if live else 0
        mantissas[k] = (bits[k] & _MANTISSA) | _ONE if live else _ONE
    for k in range(product.shape[0]):
        product[k] *= split[k]
    if dead < 0:
        for k in range(product.shape[0]):
            zeros[k] += bits[k] >> 52 == 0


@helper(_nrt=False)
def renormalise(product: Any, exponent: Any) -> Any:
    """Move the exponents of the products into the integer exponents."""
    for k in range(product.shape[0]):
        mantissa, power = frexp(product[k])
        product[k] = mantissa
        exponent[k] += power


class Product(NamedTuple):
    """Sums of logarithms as products, one per step, with workspace for a pair and integer views."""

    mantissa: np.ndarray
    other: np.ndarray
    exponent: np.ndarray
    zeros: np.ndarray
    gaps: np.ndarray
    bits: np.ndarray
    split: np.ndarray
    split_bits: np.ndarray


def make_product(width: int) -> Product:
    """Allocate the workspace of one thread, outside the kernels to save compilation.

    Integer views cost more than a pair, so they are created once.
    """
    gaps, split, zeros = np.ones(width), np.ones(width), np.zeros(width, dtype=np.int64)
    exponent = np.zeros(width, dtype=np.int64)
    bits = gaps.view(np.int64), split, split.view(np.int64)
    return Product(np.ones(width), np.ones(width), exponent, zeros, gaps, *bits)


@kernel(nogil=True, _nrt=False)
def rosenstein_rows(
    neighbors: Any,
    edges: Any,
    first: Any,
    last: Any,
    lags: Any,
    matrix: Any,
    along: Any,
    metric: Any,
    product: Any,
    logs: Any,
    counts: Any,
    missing: Any,
) -> Any:
    """Fill one row per block of references: sums of logs, counts, pairs skipped for a missing distance.

    `matrix` and `along` as in `follow`.
    """
    half = 0.5 if metric == L2 else 1.0
    horizon = logs.shape[1] - 1
    mantissa, other, exponent, zeros = product.mantissa, product.other, product.exponent, product.zeros
    gaps, bits, split, split_bits = product.gaps, product.bits, product.split, product.split_bits
    width = gaps.shape[0]
    for block in range(first, last):
        pairs = 0
        for k in range(width):
            mantissa[k] = 1.0
            exponent[k] = 0
            zeros[k] = 0
        for i in range(edges[block], edges[block + 1]):
            for at in range(neighbors.shape[1]):
                j = neighbors[i, at]
                if j < 0:
                    break
                if matrix is None and along is None and metric != L2_SCALED:  # noqa: SIM102 (None first: not compiled)
                    if multiply_distances(mantissa, other, lags, i, j, metric) == 0:
                        mantissa, other = other, mantissa
                        pairs += 1
                        continue
                # Exponents are split off only where a gap or a product leaves the middle of the range.
                if not follow(gaps, along, i, j, lags, matrix, metric, width, horizon):
                    missing[block] += 1
                    continue
                renormalise(mantissa, exponent)
                multiply(mantissa, exponent, zeros, bits, split_bits, split)
                pairs += 1
        renormalise(mantissa, exponent)
        for k in range(horizon + 1):
            logs[block, k] = half * (exponent[k] * LN2 + np.log(mantissa[k]))
            counts[block, k] = pairs - zeros[k]


@kernel()
def distance(points: Any, matrix: Any, i: Any, j: Any, metric: Any) -> Any:
    """Distance of two states, with four running sums to hide latency."""
    if metric == PRECOMPUTED:
        return matrix[i, j]
    a, b = points[i], points[j]
    whole = a.shape[0] // 4 * 4
    s0 = s1 = s2 = s3 = 0.0
    if metric == L2:
        for c in range(0, whole, 4):
            s0 += (a[c] - b[c]) ** 2
            s1 += (a[c + 1] - b[c + 1]) ** 2
            s2 += (a[c + 2] - b[c + 2]) ** 2
            s3 += (a[c + 3] - b[c + 3]) ** 2
        for c in range(whole, a.shape[0]):
            s0 += (a[c] - b[c]) ** 2
        return np.sqrt((s0 + s1) + (s2 + s3))
    if metric == L1:
        for c in range(0, whole, 4):
            s0 += abs(a[c] - b[c])
            s1 += abs(a[c + 1] - b[c + 1])
            s2 += abs(a[c + 2] - b[c + 2])
            s3 += abs(a[c + 3] - b[c + 3])
        for c in range(whole, a.shape[0]):
            s0 += abs(a[c] - b[c])
        return (s0 + s1) + (s2 + s3)
    top = 0.0
    for c in range(a.shape[0]):
        top = max(top, abs(a[c] - b[c]))
    if metric == L2_SCALED and top > 0.0:
        for c in range(a.shape[0]):
            s0 += ((a[c] - b[c]) / top) ** 2
        return top * np.sqrt(s0)
    return top


@kernel()
def distances_to(points: Any, matrix: Any, i: Any, others: Any, metric: Any) -> Any:
    """Distances of one state to other states."""
    out = np.empty(others.shape[0])
    for m in range(others.shape[0]):
        out[m] = distance(points, matrix, i, others[m], metric)
    return out


@kernel()
def paths(points: Any, matrix: Any, i: Any, others: Any, horizon: Any, metric: Any) -> Any:
    """Distances of one state to other states and of their successors: one row per other state."""
    out = np.empty((others.shape[0], horizon + 1))
    for m in range(others.shape[0]):
        for k in range(horizon + 1):
            out[m, k] = distance(points, matrix, i + k, others[m] + k, metric)
    return out


@kernel(parallel=True)
def nearest_of(points: Any, matrix: Any, usable: Any, times: Any, k: Any, theiler: Any, metric: Any) -> Any:
    """The k nearest neighbours of states: distances, times (-1 if missing), pairs at distance zero."""
    best = np.full((times.shape[0], k), np.inf)
    neighbors = np.full((times.shape[0], k), -1, dtype=np.int64)
    repeats = np.zeros(times.shape[0], dtype=np.int64)
    for row in prange(times.shape[0]):
        i = times[row]
        for j in range(usable.shape[0]):
            if abs(i - j) < theiler or not usable[j]:
                continue
            d = distance(points, matrix, i, j, metric)
            if d == 0.0:
                repeats[row] += 1
            if not 0.0 < d < best[row, k - 1]:
                continue
            at = k - 1
            while at > 0 and best[row, at - 1] > d:
                best[row, at] = best[row, at - 1]
                neighbors[row, at] = neighbors[row, at - 1]
                at -= 1
            best[row, at] = d
            neighbors[row, at] = j
    return best, neighbors, repeats
