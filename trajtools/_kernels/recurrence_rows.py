"""Recurrence plots row by row, from distances read or computed. See trajtools.recurrences.lines."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from trajtools._kernels._jit import helper, kernel
from trajtools._kernels.lanes import lowest
from trajtools._kernels.recurrence_lines import (
    BEFORE,
    Plane,
    across,
    add_line,
    below,
    bits_between,
    count,
    is_void,
    recurrence_words,
)
from trajtools.types import L1, L2

# Arrays are passed one by one to functions called for every row: numba copies a tuple of them at each call.
# ruff: noqa: PLR0917


# Coordinates per block, and rows that share the block in the cache.
_CHUNK = 512
_TILE = 8


@kernel(nogil=True)
def distance_block(a: Any, b: Any, code: Any, out: Any) -> Any:
    """Write distances (squared for L2) of states (t, d) to states (S, d) into `out` (t, S)."""
    rows, dimension = a.shape
    for top in range(0, rows, _TILE):
        bottom = min(top + _TILE, rows)
        out[top:bottom] = 0.0
        for start in range(0, dimension, _CHUNK):
            stop = min(start + _CHUNK, dimension)
            for j in range(b.shape[0]):
                for i in range(top, bottom):
                    part = _part(a, b, i, j, start, stop, code)
                    if code in (L1, L2):
                        out[i, j] += part
                    else:
                        out[i, j] = part if part > out[i, j] or np.isnan(part) else out[i, j]


@helper(_nrt=False, forceinline=True)
def _part(a: Any, b: Any, i: Any, j: Any, start: Any, stop: Any, code: Any) -> Any:
    """Sum over some coordinates of one pair, with four running sums to hide latency."""
    s0 = s1 = s2 = s3 = 0.0
    whole = start + (stop - start) // 4 * 4
    if code == L2:
        for c in range(start, whole, 4):
            s0 += (a[i, c] - b[j, c]) * (a[i, c] - b[j, c])
            s1 += (a[i, c + 1] - b[j, c + 1]) * (a[i, c + 1] - b[j, c + 1])
            s2 += (a[i, c + 2] - b[j, c + 2]) * (a[i, c + 2] - b[j, c + 2])
            s3 += (a[i, c + 3] - b[j, c + 3]) * (a[i, c + 3] - b[j, c + 3])
        for c in range(whole, stop):
            s0 += (a[i, c] - b[j, c]) * (a[i, c] - b[j, c])
        return (s0 + s1) + (s2 + s3)
    if code == L1:
        for c in range(start, whole, 4):
            s0 += abs(a[i, c] - b[j, c])
            s1 += abs(a[i, c + 1] - b[j, c + 1])
            s2 += abs(a[i, c + 2] - b[j, c + 2])
            s3 += abs(a[i, c + 3] - b[j, c + 3])
        for c in range(whole, stop):
            s0 += abs(a[i, c] - b[j, c])
        return (s0 + s1) + (s2 + s3)
    for c in range(start, stop):
        gap = abs(a[i, c] - b[j, c])
        s0 = gap if gap > s0 or np.isnan(gap) else s0
    return s0


def bits_below(distances: np.ndarray, levels: np.ndarray, words: int) -> np.ndarray:
    """Bits (t, words): whether the distances of a row are at most its level."""
    out = np.zeros((len(distances), words), dtype=np.uint64)
    _bits_below(distances, levels, np.full(64 * words, np.nan), out)
    return out


@kernel(nogil=True, _nrt=False)
def _bits_below(distances: Any, levels: Any, padded: Any, out: Any) -> None:
    rows, columns = distances.shape
    for i in range(rows):
        for j in range(columns):
            padded[j] = distances[i, j]
        for w in range(out.shape[1]):
            out[i, w] = below(padded, 64 * w, levels[i])


@kernel(nogil=True)
def count_rows(
    bits: Any,
    start: Any,
    rows: Any,
    columns: Any,
    row_finite: Any,
    column_finite: Any,
    column_bits: Any,
    windows: Any,
    rule: Any,
    was: Any,
    memory: Any,
    slanted: Any,
    begun: Any,
    histograms: Any,
    counts: Any,
) -> Any:
    """Count the lines in the rows start, start + 1, ... of a recurrence plot, as bits (t, words).

    State between calls: `was` (2, words), `memory` (columns, 4), and for the ``rows + columns - 1`` diagonals whether a
    line is open (`slanted`) and where it began (`begun`). An empty row follows the last one.
    """
    diagonal_window, vertical_window = windows
    words = was.shape[1]
    black, valid = np.zeros(words, dtype=np.uint64), np.zeros(words, dtype=np.uint64)
    places = np.empty(64 * words + 2, dtype=np.uint32)
    square = min(rows, columns)
    for at in range(bits.shape[0]):
        i = start + at
        inside = i < rows
        for w in range(words):
            mask = column_bits[w] if inside and row_finite[i] else np.uint64(0)
            black[w], valid[w] = bits[at, w] & mask, mask
        if inside:
            _count_row(black, i, columns, square, counts)
        _slant(black, i, rows, columns, diagonal_window, row_finite, column_finite, slanted, begun, histograms)
        for w in range(words):
            band = ~bits_between(
                min(max(i - vertical_window + 1 - 64 * w, 0), 64), min(max(i + vertical_window - 64 * w, 0), 64)
            )
            black[w] &= band
            valid[w] &= band
        across(black, valid, was[0], was[1], 0, words, i, rule, memory, places, histograms)


@helper(_nrt=False)
def _count_row(black: Any, i: Any, columns: Any, square: Any, counts: Any) -> Any:
    """Recurrences of every lag: all, and those in the largest square."""
    for w in range(len(black)):
        word = black[w]
        while word != np.uint64(0):
            j = 64 * w + lowest(word)
            word &= word - np.uint64(1)
            counts[0, i - j + columns - 1] += 1
            if i < square and j < square:
                counts[1, i - j + columns - 1] += 1


@helper(_nrt=False)
def _slant(
    black: Any,
    i: Any,
    rows: Any,
    columns: Any,
    window: Any,
    row_finite: Any,
    column_finite: Any,
    slanted: Any,
    begun: Any,
    histograms: Any,
) -> Any:
    """Advance all diagonals by a row: column j of row i belongs to diagonal ``j - i + rows - 1``."""
    shift = rows - 1 - i
    low, high = max(shift, 0), shift + columns
    # A diagonal that the previous row reached and this one does not ends here.
    for w in range(low >> 6, min((high + 64) >> 6, len(slanted) - 1) + 1):
        word = _word_at(black, 64 * w - shift, columns)
        middle = rows - 1 - 64 * w
        word &= ~bits_between(min(max(middle - window + 1, 0), 64), min(max(middle + window, 0), 64))
        changed = slanted[w] & ~word
        while changed != np.uint64(0):
            place = 64 * w + lowest(changed)
            changed &= changed - np.uint64(1)
            lag = rows - 1 - place
            from_row = begun[place]
            length = i - from_row
            begins = from_row in (0, lag) or is_void(row_finite, column_finite, lag, from_row - 1 - lag)
            ends = i == rows or i - lag == columns or is_void(row_finite, column_finite, lag, i - lag)
            add_line(histograms, length, (1 if begins else 0) + (1 if ends else 0), 1)
        changed = word & ~slanted[w]
        while changed != np.uint64(0):
            begun[64 * w + lowest(changed)] = i
            changed &= changed - np.uint64(1)
        slanted[w] = word


@helper(_nrt=False, forceinline=True)
def _word_at(bits: Any, at: Any, length: Any) -> Any:
    """64 bits of a row from any position on, also before its start; zeros beyond `length`."""
    if at <= -64 or at >= length:
        return np.uint64(0)
    if at < 0:
        return bits[0] << np.uint64(-at)
    place, bit = at >> 6, np.uint64(at & 63)
    word = bits[place] >> bit
    if bit != np.uint64(0) and place + 1 < len(bits):
        word |= bits[place + 1] << (np.uint64(64) - bit)
    return word


@kernel(nogil=True)
def shared_neighbors(bits: Any) -> Any:
    """Closed pairs and all pairs of neighbours of each state, (T,) each, in a symmetric plot of bits (T, words)."""
    length, words = bits.shape
    closed, degree = np.zeros(length, dtype=np.int64), np.zeros(length, dtype=np.int64)
    for i in range(length):
        for w in range(words):
            word = bits[i, w]
            degree[i] += count(word)
            while word != np.uint64(0):
                j = 64 * w + lowest(word)
                word &= word - np.uint64(1)
                if j > i:
                    common = 0
                    for v in range(words):
                        common += count(bits[i, v] & bits[j, v])
                    closed[i] += common
                    closed[j] += common
    return closed // 2, degree


class Bins(NamedTuple):
    """Number, smallest and largest of the distances in equal parts of a bracket, and workspace of `lag_ranks`."""

    number: np.ndarray
    smallest: np.ndarray
    largest: np.ndarray
    raw: np.ndarray
    words: np.ndarray


def make_bins(plane: Plane, columns: int, bins: int) -> Bins:
    """Allocate empty bins, outside the kernels to save compilation."""
    words = (columns + 63) >> 6
    return Bins(
        number=np.zeros(bins, dtype=np.int64),
        smallest=np.full(bins, np.inf),
        largest=np.full(bins, -np.inf),
        raw=np.zeros(words + (int(plane.offsets[-1]) >> 6) + 3, dtype=np.uint64),
        words=np.zeros((2, words), dtype=np.uint64),
    )


@kernel(nogil=True, _nrt=False)
def lag_ranks(lower: Any, upper: Any, shape: Any, lags: Any, low: Any, high: Any, room: Any, selected: Any) -> Any:
    """Compare the distances (squared for L2) of some lags with a bracket.

    `lower` and `upper` are planes with the levels just below `low`, and `high`. `selected` receives the distances in
    the bracket, as long as there is room, and the bins of `room` all of them. Returns the number below and in the
    bracket.
    """
    rows, columns = shape
    number, smallest, largest, raw, words = room
    below_low, up_to_high = words[0], words[1]
    bins, origin = number.shape[0], np.int64(0)  # numba would compile the helpers once more for a literal
    under, inside = 0, 0
    width = bins / (high - low) if high > low else 0.0
    for lag in lags:
        begin, end = max(0, -lag), min(columns, rows - lag)
        first, last = begin >> 6, (end + 63) >> 6
        recurrence_words(upper, lag, origin, first, last, raw, up_to_high)
        recurrence_words(lower, lag, origin, first, last, raw, below_low)
        for w in range(first, last):
            # Beyond the ends there is NaN, or the distance of samples that are not states.
            mask = bits_between(max(begin - 64 * w, 0), min(end - 64 * w, 64))
            under += count(below_low[w] & mask)
            bits = up_to_high[w] & ~below_low[w] & mask
            while bits != np.uint64(0):
                value = _distance_at(lower, lag, 64 * w + lowest(bits))
                bits &= bits - np.uint64(1)
                if inside < len(selected):
                    selected[inside] = value
                inside += 1
                part = min(int((value - low) * width), bins - 1)
                number[part] += 1
                smallest[part] = min(smallest[part], value)
                largest[part] = max(largest[part], value)
    return under, inside


@helper(_nrt=False)
def _distance_at(plane: Any, lag: Any, column: Any) -> Any:
    """Distance (squared for L2) of the states column + lag and column, summed in the order of the bits."""
    total = 0.0
    for delay in range(len(plane.offsets)):
        at = BEFORE + column + plane.offsets[delay]
        for c in range(plane.rows.shape[0]):
            gap = abs(plane.rows[c, at + lag] - plane.columns[c, at])
            if plane.code == L2:
                total += gap * gap
            elif plane.code == L1:
                total += gap
            else:
                total = max(total, gap)
    return total
