"""Lines of a recurrence plot, from rows of bits: 64 comparisons at once, lines along a row and across rows.

numba has no vector types, so these functions are written for LLVM. Each is wrapped into a section, so that the loops
that call them also run interpreted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import get_num_threads, types
from numba.core.cgutils import alloca_once, for_range, unpack_tuple
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from trajtools._kernels._jit import helper, kernel, section
from trajtools._kernels.lanes import DOUBLES, LANES, WORD, bits, eight, lowest, magnitude, spread
from trajtools.types import L2, LINF

# ruff: noqa: PLR0917


def _load(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Load eight numbers of an array from `at` on."""
    return eight(builder, make_array(kind)(context, builder, array).data, at)


def _word(builder: Any, compare: Any) -> Any:
    """Bits of eight comparisons of eight numbers each."""
    word = ir.Constant(WORD, 0)
    for group in range(64 // LANES):
        eight_bits = bits(builder, compare(group * LANES))
        word = builder.or_(word, builder.shl(eight_bits, ir.Constant(WORD, group * LANES)))
    return word


@intrinsic
def _near(typing: Any, a: Any, at: Any, b: Any, other: Any, level: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        x, i, y, j, limit = values
        limits = spread(builder, limit)

        def compare(offset: int) -> Any:
            shift = ir.Constant(WORD, offset)
            left = _load(context, builder, signature.args[0], x, builder.add(i, shift))
            right = _load(context, builder, signature.args[2], y, builder.add(j, shift))
            return builder.fcmp_ordered("<=", magnitude(builder, builder.fsub(left, right)), limits)

        return _word(builder, compare)

    return types.uint64(a, types.int64, b, types.int64, types.float64), generate


def _sums_within(squared: bool) -> Any:
    """Compare sums over coordinates, which stay in registers for speed."""

    def _within(typing: Any, a: Any, at: Any, b: Any, other: Any, offsets: Any, level: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
            x, i, y, j, delays, limit = values
            left, right = (make_array(signature.args[k])(context, builder, v) for k, v in ((0, x), (2, y)))
            steps = make_array(signature.args[4])(context, builder, delays)
            channels, width = unpack_tuple(builder, left.shape)
            _, other_width = unpack_tuple(builder, right.shape)
            sums = [alloca_once(builder, DOUBLES) for _ in range(64 // LANES)]
            for place in sums:
                builder.store(ir.Constant(DOUBLES, [0.0] * LANES), place)
            with for_range(builder, unpack_tuple(builder, steps.shape)[0]) as delay:
                step = builder.load(builder.gep(steps.data, [delay.index]))
                with for_range(builder, channels) as channel:
                    here = builder.add(builder.add(i, step), builder.mul(channel.index, width))
                    there = builder.add(builder.add(j, step), builder.mul(channel.index, other_width))
                    for group, place in enumerate(sums):
                        shift = ir.Constant(WORD, group * LANES)
                        gap = builder.fsub(
                            eight(builder, left.data, builder.add(here, shift)),
                            eight(builder, right.data, builder.add(there, shift)),
                        )
                        part = builder.fmul(gap, gap) if squared else magnitude(builder, gap)
                        builder.store(builder.fadd(builder.load(place), part), place)
            limits = spread(builder, limit)
            return _word(builder, lambda q: builder.fcmp_ordered("<=", builder.load(sums[q // LANES]), limits))

        return types.uint64(a, types.int64, b, types.int64, offsets, types.float64), generate

    return _within


_squares_within, _gaps_within = intrinsic(_sums_within(True)), intrinsic(_sums_within(False))


@intrinsic
def _below(typing: Any, a: Any, at: Any, level: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        x, i, limit = values
        limits = spread(builder, limit)

        def compare(offset: int) -> Any:
            left = _load(context, builder, signature.args[0], x, builder.add(i, ir.Constant(WORD, offset)))
            return builder.fcmp_ordered("<=", left, limits)

        return _word(builder, compare)

    return types.uint64(a, types.int64, types.float64), generate


@intrinsic
def _count(typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Signature, values: Any) -> Any:
        return builder.ctpop(values[0])

    return types.int64(types.uint64), generate


@section()
def near(a: Any, at: Any, b: Any, other: Any, level: Any) -> Any:
    """Bit q: whether a[at + q] and b[other + q] differ by at most the level. NaN is near nothing."""
    return _near(a, at, b, other, level)


@section()
def squares_within(a: Any, at: Any, b: Any, other: Any, offsets: Any, level: Any) -> Any:
    """Bit q: whether the squares of ``a[c, at + q + o] - b[c, other + q + o]``, over all c and o, sum to the level."""
    return _squares_within(a, at, b, other, offsets, level)


@section()
def gaps_within(a: Any, at: Any, b: Any, other: Any, offsets: Any, level: Any) -> Any:
    """Bit q: whether the magnitudes of ``a[c, at + q + o] - b[c, other + q + o]`` sum to at most the level."""
    return _gaps_within(a, at, b, other, offsets, level)


@section()
def below(a: Any, at: Any, level: Any) -> Any:
    """Bit q: whether a[at + q] is at most the level."""
    return _below(a, at, level)


@section()
def count(word: Any) -> Any:
    """Number of set bits."""
    return _count(word)


@section()
def bits_between(low: Any, high: Any) -> Any:
    """A word with the bits low .. high - 1, for 0 <= low, high <= 64; empty if low >= high."""
    if low >= high:
        return np.uint64(0)
    filled = ~np.uint64(0) >> np.uint64(64 - (high - low))
    return filled << np.uint64(low)


# Arrays are passed one by one to functions called for every row: numba copies a tuple of them at each call.
# ruff: noqa: PLR0917


# Rows of a histogram (7, n): diagonal lines by length, those with one end or both ends at a border of the plot,
# vertical lines, white vertical lines between two black ones, white lines with an end at a border, and recurrence
# times.
DIAGONAL, ONE_END, BOTH_ENDS, VERTICAL, WHITE, WHITE_CUT, TIMES = range(7)
HISTOGRAMS = 7
# Recurrence times: from the start of a line to the start of the next; or the white cells between them plus the halves
# of both, rounded down, also across a void.
ENTRIES, MIDDLES = 0, 1
# Memory of every column: start of the current and of the previous line, end of the previous line, end of the void.
_START, _LAST_START, _LAST_END, _OPENED = range(4)
MEMORY = 4
WHOLE = -1


@section()
def is_void(row_finite: Any, column_finite: Any, lag: Any, column: Any) -> Any:
    """Whether a cell inside the plot belongs to a state that is not finite."""
    return not (row_finite[column + lag] and column_finite[column])


@helper(_nrt=False, forceinline=True)
def add_line(histograms: Any, length: Any, ends: Any, weight: Any) -> Any:
    """Count a diagonal line; `ends`: the number of its ends at a border."""
    histograms[DIAGONAL, length] += weight
    if ends == 1:
        histograms[ONE_END, length] += weight
    elif ends == 2:
        histograms[BOTH_ENDS, length] += weight


@kernel(nogil=True, _nrt=False)
def along(
    black: Any,
    origin: Any,
    low: Any,
    high: Any,
    row_low: Any,
    row_high: Any,
    lag: Any,
    row_finite: Any,
    column_finite: Any,
    weight: Any,
    histograms: Any,
    edge: Any,
) -> Any:
    """Count the lines of one lag between the columns low and high; a line that continues in another block is its edge.

    `black` begins at the column `origin`. The whole lag lies between `row_low` and `row_high`. An edge is twice the
    length, plus one if the other end is at a border; `WHOLE` if the line fills the block.
    """
    start = -1
    edge[0] = edge[1] = 0
    for w in range((low - origin) >> 6, (high - origin + 63) >> 6):
        word = black[w]
        while True:
            if start < 0:
                if word == np.uint64(0):
                    break
                bit = lowest(word)
                start = origin + (w << 6) + bit
                word |= (np.uint64(1) << np.uint64(bit)) - np.uint64(1)
            else:
                if word == ~np.uint64(0):
                    break
                bit = lowest(~word)
                stop = origin + (w << 6) + bit
                word &= ~np.uint64(0) << np.uint64(bit)
                _end_line(
                    start, stop, low, high, row_low, row_high, lag, row_finite, column_finite, weight, histograms, edge
                )
                start = -1
    if start >= 0:
        _end_line(start, high, low, high, row_low, row_high, lag, row_finite, column_finite, weight, histograms, edge)


@helper(_nrt=False, forceinline=True)
def _end_line(
    start: Any,
    stop: Any,
    low: Any,
    high: Any,
    row_low: Any,
    row_high: Any,
    lag: Any,
    row_finite: Any,
    column_finite: Any,
    weight: Any,
    histograms: Any,
    edge: Any,
) -> Any:
    from_before = start == low and low > row_low
    goes_on = stop == high and high < row_high
    if from_before and goes_on:
        edge[0] = edge[1] = WHOLE
        return
    begins = start == row_low or is_void(row_finite, column_finite, lag, start - 1)
    ends = stop == row_high or is_void(row_finite, column_finite, lag, stop)
    if from_before:
        edge[0] = 2 * (stop - start) + (1 if ends else 0)
    elif goes_on:
        edge[1] = 2 * (stop - start) + (1 if begins else 0)
    else:
        add_line(histograms, stop - start, (1 if begins else 0) + (1 if ends else 0), weight)


@kernel(nogil=True)
def stitch(
    edges: Any, bounds: Any, rows: Any, columns: Any, skip: Any, mirrored: Any, row_finite: Any, column_finite: Any
) -> Any:
    """Join the lines of neighbouring blocks: histograms (7, n) of the edges from `along`."""
    histograms = np.zeros((HISTOGRAMS, max(rows, columns) + 2), dtype=np.int64)
    for index in range(edges.shape[1]):
        lag = index - (columns - 1)
        if abs(lag) < skip or (mirrored and lag < 0):
            continue
        weight = 2 if mirrored and lag > 0 else 1
        row_low, row_high = max(0, -lag), min(columns, rows - lag)
        length, ends = 0, 0
        for block in range(len(bounds) - 1):
            low, high = bounds[block], bounds[block + 1]
            if max(low, row_low) >= min(high, row_high):
                continue
            if low > row_low:
                if length == 0:
                    ends = 1 if is_void(row_finite, column_finite, lag, low - 1) else 0
                if edges[block, index, 0] == WHOLE:
                    length += high - low
                    continue
                lead = edges[block, index, 0] >> 1
                if length + lead > 0:
                    void = is_void(row_finite, column_finite, lag, low)
                    closes = (edges[block, index, 0] & 1) if lead > 0 else (1 if void else 0)
                    add_line(histograms, length + lead, ends + closes, weight)
            length, ends = edges[block, index, 1] >> 1, edges[block, index, 1] & 1
    return histograms


@kernel(nogil=True, _nrt=False)
def across(
    black: Any,
    valid: Any,
    was_black: Any,
    was_valid: Any,
    first: Any,
    last: Any,
    step: Any,
    rule: Any,
    memory: Any,
    places: Any,
    histograms: Any,
) -> Any:
    """Advance one row in every column of the words first .. last; only columns with a change need work.

    `places` has room for the columns of a row, and two more.
    """
    changed = 0
    for w in range(first, last):
        changed = _append_places(was_black[w] & ~black[w], w << 6, places, changed)
    vertical, white, white_cut, times = (
        histograms[VERTICAL], histograms[WHITE], histograms[WHITE_CUT], histograms[TIMES],
    )  # fmt: skip
    for k in range(np.uint64(changed)):
        _end_column(memory[places[k]], step, rule, vertical, white, white_cut, times)
    changed = 0
    for w in range(first, last):
        changed = _append_places(black[w] & ~was_black[w], w << 6, places, changed)
        was_black[w] = black[w]
    for k in range(changed):
        memory[places[k], _START] = step
    for w in range(first, last):
        if valid[w] != was_valid[w]:
            _move_void(valid[w], was_valid[w], w << 6, step, memory, histograms)
            was_valid[w] = valid[w]


@section()
def _append_places(word: Any, base: Any, places: Any, filled: Any) -> Any:
    """Append the positions of set bits; always writes two, to avoid branch mispredictions for few bits."""
    places[filled] = base + lowest(word)
    rest = word & (word - np.uint64(1))
    places[filled + 1] = base + lowest(rest)
    rest &= rest - np.uint64(1)
    more = filled + 2
    while rest != np.uint64(0):
        places[more] = base + lowest(rest)
        rest &= rest - np.uint64(1)
        more += 1
    return filled + count(word)


@helper(_nrt=False)
def _move_void(valid: Any, was_valid: Any, base: Any, step: Any, memory: Any, histograms: Any) -> Any:
    """Close and open lines next to the void, which moved since the previous row."""
    changed = was_valid & ~valid
    while changed != np.uint64(0):
        column = base + lowest(changed)
        rest = step - max(memory[column, _LAST_END] + 1, memory[column, _OPENED])
        if rest > 0:
            histograms[WHITE_CUT, rest] += 1
        changed &= changed - np.uint64(1)
    changed = valid & ~was_valid
    while changed != np.uint64(0):
        memory[base + lowest(changed), _OPENED] = step
        changed &= changed - np.uint64(1)


@helper(_nrt=False, forceinline=True)
def _end_column(past: Any, step: Any, rule: Any, vertical: Any, white: Any, white_cut: Any, times: Any) -> Any:
    """End the line of a column with memory `past`; unsigned lengths save a test."""
    start, last_start = past[_START], past[_LAST_START]
    last_end, opened = past[_LAST_END], past[_OPENED]
    length = step - start
    vertical[np.uint64(length)] += 1
    if last_end >= opened:
        white[np.uint64(start - last_end - 1)] += 1
        if rule == ENTRIES:
            times[np.uint64(start - last_start)] += 1
    elif start > opened:
        white_cut[np.uint64(start - opened)] += 1
    if rule == MIDDLES and last_end >= 0:
        times[np.uint64(start - last_end - 1 + (last_end + 1 - last_start) // 2 + length // 2)] += 1
    past[_LAST_START] = start
    past[_LAST_END] = step - 1


@kernel(nogil=True, _nrt=False)
def summarize(lengths: Any, least: Any) -> Any:
    """Cells and number n of the lines of at least a length, sum of n ln n over the lengths, all cells, the longest."""
    cells, number, logs, everything, longest = 0, 0, 0.0, 0, 0
    for length in range(len(lengths)):
        n = lengths[length]
        if n == 0:
            continue
        longest = length
        everything += n * length
        if length >= least:
            cells += n * length
            number += n
            logs += n * np.log(float(n))
    return cells, number, logs, everything, longest


# NaN before the first and after the last sample of every series, because whole words are compared.
BEFORE, AFTER = 64, 192


class Plane(NamedTuple):
    """Two sets of states for their recurrences.

    `rows` (C, ...) and `columns` (C, ...): series padded with NaN; state i has the coordinates
    ``rows[c, BEFORE + i + offset]`` for all channels c and offsets. `code`: the metric; `level`: largest distance
    (squared for L2).
    """

    rows: Any
    columns: Any
    offsets: Any
    code: Any
    level: Any


def threads() -> int:
    """Number of threads that numba may use."""
    return int(get_num_threads())


@helper(_nrt=False)
def _near_words(plane: Any, lag: Any, origin: Any, first: Any, last: Any, raw: Any, black: Any) -> Any:
    """Maximum norm: a delay vector recurs if the series does at all delays."""
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


@helper(_nrt=False, forceinline=True)
def _keep_shifted(words: Any, others: Any, bit: Any) -> Any:
    """Intersect words with other words, shifted by some bits."""
    if bit == np.uint64(0):
        for w in range(len(words)):
            words[w] &= others[w]
    else:
        rest = np.uint64(64) - bit
        for w in range(len(words)):
            words[w] &= (others[w] >> bit) | (others[w + 1] << rest)


@helper(_nrt=False)
def _sum_words(plane: Any, lag: Any, origin: Any, first: Any, last: Any, black: Any) -> Any:
    """L1 and L2: sums over the coordinates in order."""
    left, right, offsets, level = plane.rows, plane.columns, plane.offsets, plane.level
    for w in range(first, last):
        other = BEFORE + origin + 64 * w
        if plane.code == L2:
            black[w] = squares_within(left, other + lag, right, other, offsets, level)
        else:
            black[w] = gaps_within(left, other + lag, right, other, offsets, level)


@helper(_nrt=False, forceinline=True)
def recurrence_words(plane: Any, lag: Any, origin: Any, first: Any, last: Any, raw: Any, black: Any) -> Any:
    """Bits of one lag: whether the states recur, in the words first .. last of columns from `origin` on."""
    if plane.code == LINF:
        _near_words(plane, lag, origin, first, last, raw, black)
    else:
        _sum_words(plane, lag, origin, first, last, black)


@helper(_nrt=False)
def _mark_valid(
    low: Any, high: Any, origin: Any, lag: Any, holes: Any, row_bits: Any, column_bits: Any, valid: Any
) -> Any:
    """Set the bits of the columns low .. high with both states finite; return their number."""
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


@helper(_nrt=False, forceinline=True)
def _count_words(words: Any) -> Any:
    total = 0
    for w in range(len(words)):
        total += count(words[w])
    return total


class LagRoom(NamedTuple):
    """Workspace of some columns of a plot, and what is counted in them, all zero at first.

    `histograms` (7, n); `counts` (4, lags): recurrences, those in the largest square, cells, those in that square.
    """

    raw: np.ndarray
    words: np.ndarray
    memory: np.ndarray
    places: np.ndarray
    histograms: np.ndarray
    counts: np.ndarray


def make_lags(plane: Plane, other: Plane, rows: int, columns: int, origin: int, stop: int) -> LagRoom:
    """Allocate the room of `lag_block`, outside the kernels to save compilation."""
    words = (stop - origin + 63) >> 6
    reach = max(int(plane.offsets[-1]), int(other.offsets[-1]))
    return LagRoom(
        raw=np.zeros(words + (reach >> 6) + 3, dtype=np.uint64),
        words=np.zeros((6, words), dtype=np.uint64),
        memory=np.full((64 * words, MEMORY), -1, dtype=np.int32),
        places=np.empty(64 * words + 2, dtype=np.uint32),
        histograms=np.zeros((HISTOGRAMS, max(rows, columns) + 2), dtype=np.int64),
        counts=np.zeros((4, rows + columns - 1), dtype=np.int64),
    )


@kernel(nogil=True, _nrt=False)
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
    room: Any,
) -> Any:
    """Count the recurrences and lines in some columns of a recurrence plot.

    `finite` and `bits`: finite states of the rows and columns, as flags and, if there are `holes`, as bits (those of
    the rows from BEFORE on). `windows`: the Theiler windows of diagonal and of vertical lines. `edges` (lags, 2)
    receives the lines that continue in another block, `room` the histograms and counts.
    """
    row_finite, column_finite = finite
    row_bits, column_bits = bits
    diagonal_window, vertical_window = windows
    raw, words, memory, places, histograms, counts = room
    black, more, valid, was_black, was_valid, nothing = words[0], words[1], words[2], words[3], words[4], words[5]
    square = min(rows, columns)
    old_first, old_last = 0, 0
    for lag in range(1 - columns, rows + 1):
        index = lag + columns - 1
        row_low, row_high = max(0, -lag), min(columns, rows - lag)
        low, high = max(origin, row_low), min(stop, row_high)
        first, last = 0, 0
        if low < high:
            first, last = (low - origin) >> 6, (high - origin + 63) >> 6
            recurrence_words(plane, lag, origin, first, last, raw, black)
            if joint:
                recurrence_words(other, lag, origin, first, last, raw, more)
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
            # Columns that the last lag reached and this one does not are void now.
            black[from_word:first] = np.uint64(0)
            valid[from_word:first] = np.uint64(0)
            black[last:to_word] = np.uint64(0)
            valid[last:to_word] = np.uint64(0)
            across(black, valid, was_black, was_valid, from_word, to_word, index, rule, memory, places, histograms)
            old_first, old_last = first, last
        else:
            across(nothing, nothing, was_black, was_valid, from_word, to_word, index, rule, memory, places, histograms)


@helper(_nrt=False, forceinline=True)
def _count_square(black: Any, valid: Any, origin: Any, low: Any, high: Any, index: Any, counts: Any) -> Any:
    """Recurrences and cells of one lag in the largest square from the first states on."""
    counts[1, index] = counts[3, index] = 0
    for w in range((low - origin) >> 6, (high - origin + 63) >> 6):
        inside = bits_between(0, min(high - origin - 64 * w, 64))
        counts[1, index] += count(black[w] & inside)
        counts[3, index] += count(valid[w] & inside)
