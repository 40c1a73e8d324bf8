"""Recurrences of states lag by lag, as bits; a recurrence plot is never held. See trajtools.recurrences.counting."""

# Arrays go one by one into what is called for every row: numba copies a tuple of them at each call.
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads

from trajtools._kernels._jit import kernel
from trajtools._kernels.recurrence_bits import bits_between, count, gaps_within, near, squares_within
from trajtools._kernels.recurrence_lines import HISTOGRAMS, MEMORY, across, along

L1, L2, LINF = 1, 2, 3
# Every series has so many NaN before its first sample, and so many after its last: whole words are compared.
BEFORE, AFTER = 64, 192


class Plane(NamedTuple):
    """Two sets of states whose recurrences are looked at.

    `rows` (C, ...) and `columns` (C, ...): series with NaN around them; state i has the coordinates
    ``rows[c, BEFORE + i + offset]`` for all channels c and offsets. `code`: the metric; `level`: largest distance, of
    L2 largest squared distance.
    """

    rows: Any
    columns: Any
    offsets: Any
    code: Any
    level: Any


def threads() -> int:
    """How many threads numba may use."""
    return int(get_num_threads())


@kernel(nogil=True, _nrt=False)
def _near_words(plane: Any, lag: Any, origin: Any, first: Any, last: Any, raw: Any, black: Any) -> Any:
    """Maximum norm: a delay vector recurs where the series does at all its delays at once."""
    left, right, offsets, level = plane.rows, plane.columns, plane.offsets, plane.level
    delays, words = len(offsets), last - first
    other = BEFORE + origin + 64 * first
    at = other + lag
    out = black[first:last]
    for c in range(left.shape[0]):
        a, b = left[c], right[c]
        if delays == 1:
            for w in range(words):
                if c == 0:
                    out[w] = near(a, at + 64 * w, b, other + 64 * w, level)
                elif out[w] != np.uint64(0):
                    out[w] &= near(a, at + 64 * w, b, other + 64 * w, level)
            continue
        for w in range(words + (offsets[delays - 1] + 63) // 64):
            raw[w] = near(a, at + 64 * w, b, other + 64 * w, level)
        for w in range(words):
            out[w] = raw[w] if c == 0 else out[w] & raw[w]
        for delay in range(1, delays):
            _keep_shifted(out, raw[offsets[delay] >> 6 :], np.uint64(offsets[delay] & 63))


@kernel(nogil=True, _nrt=False, forceinline=True)
def _keep_shifted(words: Any, others: Any, bit: Any) -> Any:
    """Keep the bits that are set in other words as well, from a bit of their first word on."""
    if bit == np.uint64(0):
        for w in range(len(words)):
            words[w] &= others[w]
    else:
        rest = np.uint64(64) - bit
        for w in range(len(words)):
            words[w] &= (others[w] >> bit) | (others[w + 1] << rest)


@kernel(nogil=True, _nrt=False)
def _sum_words(plane: Any, lag: Any, origin: Any, first: Any, last: Any, black: Any) -> Any:
    """L1 and L2: sums over the coordinates, in their order."""
    left, right, offsets, level = plane.rows, plane.columns, plane.offsets, plane.level
    for w in range(first, last):
        other = BEFORE + origin + 64 * w
        if plane.code == L2:
            black[w] = squares_within(left, other + lag, right, other, offsets, level)
        else:
            black[w] = gaps_within(left, other + lag, right, other, offsets, level)


@kernel(nogil=True, _nrt=False)
def sum_distances(plane: Any, lag: Any, column: Any, length: Any, sums: Any) -> Any:
    """Distances, of L2 squared, of the states ``column + lag + q`` and ``column + q`` for q < length."""
    for delay in range(len(plane.offsets)):
        for c in range(plane.rows.shape[0]):
            at = BEFORE + column + plane.offsets[delay]
            a = plane.rows[c, at + lag : at + lag + length]
            b = plane.columns[c, at : at + length]
            if delay == 0 and c == 0:
                _first_gaps(a, b, plane.code, sums)
            elif plane.code == L2:
                for q in range(length):
                    sums[q] += (a[q] - b[q]) * (a[q] - b[q])
            elif plane.code == L1:
                for q in range(length):
                    sums[q] += abs(a[q] - b[q])
            else:
                for q in range(length):
                    gap = abs(a[q] - b[q])
                    # NaN stays, and comes in.
                    sums[q] = gap if gap > sums[q] or np.isnan(gap) else sums[q]


@kernel(nogil=True, _nrt=False, forceinline=True)
def _first_gaps(a: Any, b: Any, code: Any, sums: Any) -> Any:
    if code == L2:
        for q in range(len(a)):
            sums[q] = (a[q] - b[q]) * (a[q] - b[q])
    else:
        for q in range(len(a)):
            sums[q] = abs(a[q] - b[q])


@kernel(nogil=True, _nrt=False, forceinline=True)
def _recurrences(plane: Any, lag: Any, origin: Any, first: Any, last: Any, raw: Any, black: Any) -> Any:
    if plane.code == LINF:
        _near_words(plane, lag, origin, first, last, raw, black)
    else:
        _sum_words(plane, lag, origin, first, last, black)


@kernel(nogil=True, _nrt=False)
def _mark_valid(
    low: Any, high: Any, origin: Any, lag: Any, holes: Any, row_bits: Any, column_bits: Any, valid: Any
) -> Any:
    """Bits of the columns low .. high whose states are finite, both of them; gives their number."""
    first, last = (low - origin) >> 6, (high - origin + 63) >> 6
    marked = valid[first:last]
    for w in range(len(marked)):
        marked[w] = ~np.uint64(0)
    marked[0] &= bits_between((low - origin) & 63, 64)
    marked[len(marked) - 1] &= bits_between(0, high - origin - 64 * (last - 1))
    if not holes:
        return high - low
    begin = origin + 64 * first
    _keep_shifted(marked, column_bits[begin >> 6 :], np.uint64(0))
    _keep_shifted(marked, row_bits[(BEFORE + begin + lag) >> 6 :], np.uint64((BEFORE + begin + lag) & 63))
    return _count_words(marked)


@kernel(nogil=True, _nrt=False, forceinline=True)
def _count_words(words: Any) -> Any:
    total = 0
    for w in range(len(words)):
        total += count(words[w])
    return total


@kernel(nogil=True)
def lag_block(
    plane: Any,
    other: Any,
    joint: Any,
    rows: Any,
    columns: Any,
    finite: Any,
    bits: Any,
    holes: Any,
    windows: Any,
    mirrored: Any,
    rule: Any,
    origin: Any,
    stop: Any,
    edges: Any,
) -> Any:
    """Count the recurrences and lines in some columns of a recurrence plot.

    `finite` and `bits`: which states of the rows and columns are finite, as flags and, if there are `holes`, as bits
    (those of the rows from BEFORE on). `windows`: the Theiler windows of diagonal and of vertical lines. `edges`
    (lags, 2) takes the lines that go on in another block. Gives histograms (7, n), and for every lag the recurrences,
    those in the largest square, the cells, and the cells in that square: (4, lags).
    """
    row_finite, column_finite = finite
    row_bits, column_bits = bits
    diagonal_window, vertical_window = windows
    words = (stop - origin + 63) >> 6
    reach = max(plane.offsets[-1], other.offsets[-1])
    raw = np.zeros(words + (reach >> 6) + 3, dtype=np.uint64)
    black, more, valid = np.zeros(words, np.uint64), np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    was_black, was_valid = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    nothing = np.zeros(words, dtype=np.uint64)
    memory = np.full((64 * words, MEMORY), -1, dtype=np.int32)
    places = np.empty(64 * words + 2, dtype=np.uint32)
    histograms = np.zeros((HISTOGRAMS, max(rows, columns) + 2), dtype=np.int64)
    counts = np.zeros((4, rows + columns - 1), dtype=np.int64)
    square = min(rows, columns)
    old_first, old_last = 0, 0
    for lag in range(1 - columns, rows + 1):
        index = lag + columns - 1
        row_low, row_high = max(0, -lag), min(columns, rows - lag)
        low, high = max(origin, row_low), min(stop, row_high)
        first, last = 0, 0
        if low < high:
            first, last = (low - origin) >> 6, (high - origin + 63) >> 6
            _recurrences(plane, lag, origin, first, last, raw, black)
            if joint:
                _recurrences(other, lag, origin, first, last, raw, more)
                for w in range(first, last):
                    black[w] &= more[w]
            counts[0, index] = counts[1, index] = _count_words(black[first:last])
            cells = _mark_valid(low, high, origin, lag, holes, row_bits, column_bits, valid)
            counts[2, index] = counts[3, index] = cells
            if rows != columns:
                _count_square(black, valid, origin, low, min(high, square, square - lag), index, counts)
            if abs(lag) >= diagonal_window and not (mirrored and lag < 0):
                weight = 2 if mirrored and lag > 0 else 1
                cut = edges[index]
                along(
                    black, origin, low, high, row_low, row_high, lag, row_finite, column_finite, weight, histograms, cut
                )
        from_word, to_word = min(first, old_first), max(last, old_last)
        if low < high and abs(lag) >= vertical_window:
            # What the last lag reached and this one does not is void now.
            black[from_word:first] = np.uint64(0)
            valid[from_word:first] = np.uint64(0)
            black[last:to_word] = np.uint64(0)
            valid[last:to_word] = np.uint64(0)
            across(black, valid, was_black, was_valid, from_word, to_word, index, rule, memory, places, histograms)
            old_first, old_last = first, last
        else:
            across(nothing, nothing, was_black, was_valid, from_word, to_word, index, rule, memory, places, histograms)
    return histograms, counts


@kernel(nogil=True, _nrt=False, forceinline=True)
def _count_square(black: Any, valid: Any, origin: Any, low: Any, high: Any, index: Any, counts: Any) -> Any:
    """Recurrences and cells of one lag in the largest square from the first states on."""
    counts[1, index] = counts[3, index] = 0
    for w in range((low - origin) >> 6, (high - origin + 63) >> 6):
        inside = bits_between(0, min(high - origin - 64 * w, 64))
        counts[1, index] += count(black[w] & inside)
        counts[3, index] += count(valid[w] & inside)
