"""The kernels of recurrence: words against single comparisons, compiled against interpreted, threads, inputs."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from trajtools._kernels import (
    recurrence_lines as bits,
    recurrence_lines as lags,
    recurrence_lines as lines,
    recurrence_rows as ranks,
    recurrence_rows as rows,
)
from trajtools.recurrences.lines import pack
from trajtools.recurrences.rows import make_pair, prepare
from trajtools.types import L1, L2, LINF


def word(flags):
    assert len(flags) == 64
    return sum(1 << place for place, flag in enumerate(flags) if flag)


def states(length=70, seed=0, gaps=2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(length, 2)).cumsum(axis=0)
    x[rng.integers(0, length, gaps)] = np.nan
    return x


def test_words_hold_64_comparisons():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    a[[10, 40]] = np.nan
    b[50] = np.inf
    with np.errstate(invalid="ignore"):
        for at, other, level in ((3, 7, 0.5), (100, 0, 2.0), (0, 136, 0.0)):
            gaps = np.abs(a[at : at + 64] - b[other : other + 64])
            assert int(bits.near(a, at, b, other, level)) == word(gaps <= level)
            assert int(bits.below(a, at, level)) == word(a[at : at + 64] <= level)
    assert int(bits.near(a, 60, a, 60, 0.0)) == 2**64 - 1


@pytest.mark.parametrize("channels", [1, 3])
def test_words_hold_sums_over_coordinates(channels):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(channels, 220)), rng.normal(size=(channels, 190))
    a[0, 100] = np.nan
    offsets = np.array([0, 3, 10])
    squares, gaps = np.zeros(64), np.zeros(64)
    for offset in offsets:
        for c in range(channels):
            gap = a[c, 50 + offset : 114 + offset] - b[c, 20 + offset : 84 + offset]
            squares += gap * gap
            gaps += np.abs(gap)
    for level in (squares[5], np.nextafter(squares[5], 0), 4.0):
        assert int(bits.squares_within(a, 50, b, 20, offsets, level)) == word(squares <= level)
    for level in (gaps[7], np.nextafter(gaps[7], 0), 4.0):
        assert int(bits.gaps_within(a, 50, b, 20, offsets, level)) == word(gaps <= level)


def test_bits_are_found_counted_and_made():
    for value in (1, 6, 2**63, 2**64 - 1, 0x10_0000_1000):
        places = [place for place in range(64) if value >> place & 1]
        assert bits.lowest(np.uint64(value)) == places[0]
        assert bits.count(np.uint64(value)) == len(places)
    for low, high in ((0, 64), (0, 0), (64, 64), (5, 5), (3, 64), (0, 1), (63, 64), (10, 4)):
        assert int(bits.bits_between(low, high)) == sum(1 << place for place in range(low, high))


def lag_arguments(metric="linf", delay=3):
    a = prepare(states(), dim=2, delay=delay)
    b = prepare(states(50, seed=1), dim=2, delay=delay)
    plane = make_pair(a, b, metric).plane(2.0, True)
    finite = (a.finite, b.finite)
    words = (pack(a.finite, before=1), pack(b.finite))
    edges = np.zeros((len(a) + len(b) - 1, 2), dtype=np.int64)
    return (plane, plane, False, len(a), len(b), finite, words, True, (1, 1), False, 0, 0, len(b), edges)


def counted(arguments, kernel=lags.lag_block):
    plane, other, _, rows, columns, *_, origin, stop, edges = arguments
    room, edges = lags.make_lags(plane, other, rows, columns, origin, stop), edges.copy()
    kernel(*arguments[:-1], edges, room)
    return room.histograms, room.counts, edges


def ranked(probe, room, selected, kernel=ranks.lag_ranks):
    under, inside = kernel(*probe, room, selected)
    return under, inside, room.number, room.smallest, room.largest


@pytest.mark.parametrize("metric", ["linf", "l2", "l1"])
def test_lags_compiled_equal_interpreted(metric):
    arguments = lag_arguments(metric)
    for found, wanted in zip(counted(arguments), counted(arguments, lags.lag_block.py_func), strict=True):
        assert_array_equal(found, wanted)
    plane, shape = arguments[0], arguments[3:5]
    lower, upper = plane._replace(level=np.nextafter(0.5, 0)), plane._replace(level=3.0)
    probe = (lower, upper, shape, np.arange(-20, 30), 0.5, 3.0)
    kept, other = np.zeros(400), np.zeros(400)
    bins = [ranks.make_bins(plane, shape[1], 16) for _ in range(2)]
    found, wanted = ranked(probe, bins[0], kept), ranked(probe, bins[1], other, ranks.lag_ranks.py_func)
    for each, same in zip(found, wanted, strict=True):
        assert_array_equal(each, same)
    assert_array_equal(kept, other)


@pytest.mark.parametrize("metric", ["linf", "l2", "l1"])
def test_ranks_are_those_of_all_distances_of_the_lags(metric):
    rng = np.random.default_rng(8)
    series = [rng.standard_normal(n) for n in (150, 90)]
    series[0][[3, 140]], series[1][50] = np.nan, np.inf
    a, b = (prepare(x, dim=3, delay=2) for x in series)
    plane, chosen = make_pair(a, b, metric).plane(0.0, True), np.arange(-40, 100)
    gaps = np.abs(a.points()[:, None] - b.points()[None])
    distances = {"linf": gaps.max(axis=2), "l1": gaps.sum(axis=2), "l2": (gaps**2).sum(axis=2)}[metric]
    lag = np.arange(len(a))[:, None] - np.arange(len(b))
    values = distances[np.isin(lag, chosen) & a.finite[:, None] & b.finite]
    low, high = np.quantile(values, [0.2, 0.4])
    planes = plane._replace(level=np.nextafter(low, 0)), plane._replace(level=high)
    kept = np.empty(values.size)
    bins = ranks.make_bins(plane, len(b), 16)
    under, inside = ranks.lag_ranks(*planes, distances.shape, chosen, low, high, bins, kept)
    number = bins.number
    assert under == np.count_nonzero(values < low)
    assert inside == number.sum() == np.count_nonzero((values >= low) & (values <= high))
    assert_allclose(np.sort(kept[:inside]), np.sort(values[(values >= low) & (values <= high)]), rtol=1e-14)


def test_lines_compiled_equal_interpreted():
    rng = np.random.default_rng(3)
    black, valid = (rng.integers(0, 2**63, 2).astype(np.uint64) for _ in range(2))
    found = []
    for along, across in ((lines.along, lines.across), (lines.along.py_func, lines.across.py_func)):
        histograms = np.zeros((lines.HISTOGRAMS, 140), dtype=np.int64)
        edge = np.zeros(2, dtype=np.int64)
        good = np.ones(130, dtype=bool)
        along(black, 0, 0, 127, 0, 127, 2, good, good, 1, histograms, edge)
        memory = np.full((128, lines.MEMORY), -1, dtype=np.int32)
        places = np.empty(130, dtype=np.uint32)
        was = np.zeros((2, 2), dtype=np.uint64)
        for step in range(5):
            turned = black << np.uint64(step)
            across(turned & valid, valid, was[0], was[1], 0, 2, step, lines.ENTRIES, memory, places, histograms)
        found.append((histograms, edge, memory, was))
    for each, same in zip(*found, strict=True):
        assert_array_equal(each, same)
    assert found[0][0][lines.DIAGONAL].sum() > 0
    assert found[0][0][lines.VERTICAL].sum() > 0


def test_distances_compiled_equal_interpreted():
    a, b = states(17), states(9, seed=4)
    for code in (L1, L2, LINF):
        out, other = np.empty((17, 9)), np.empty((17, 9))
        rows.distance_block(a, b, code, out)
        rows.distance_block.py_func(a, b, code, other)
        assert_array_equal(out, other)
        assert np.isnan(out[np.isnan(a).any(axis=1)]).all()


def test_inputs_are_left_unchanged_and_threads_change_nothing():
    arguments = lag_arguments()
    plane, finite = arguments[0], arguments[5]
    held = [plane.rows, plane.columns, plane.offsets, *finite, *arguments[6]]
    before = [array.copy() for array in held]
    alone = counted(arguments)
    for array, old in zip(held, before, strict=True):
        assert_array_equal(array, old)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: counted(arguments), range(16)):
            for each, same in zip(found, alone, strict=True):
                assert_array_equal(each, same)
