"""Recurrence quantification from the whole matrix, cell by cell: slow, obvious, and independent of the package."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import log

import numpy as np


def distances(x, y, metric):
    """All distances, one pair at a time."""
    out = np.full((len(x), len(y)), np.nan)
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            gaps = [abs(float(u) - float(v)) for u, v in zip(a, b, strict=True)]
            if not all(np.isfinite(gaps)):
                continue
            if metric == "l1":
                out[i, j] = sum(gaps)
            elif metric == "l2":
                out[i, j] = np.sqrt(sum(g * g for g in gaps))
            else:
                out[i, j] = max(gaps)
    return out


def runs(cells):
    """(value, start, stop) of the runs of equal values in a list."""
    found, start = [], 0
    for at in range(1, len(cells) + 1):
        if at == len(cells) or cells[at] != cells[start]:
            found.append((cells[start], start, at))
            start = at
    return found


def cell(matrix, good_rows, good_columns, place, window):
    """1 black, 0 white, None void."""
    i, j = place
    if abs(i - j) < window or not good_rows[i] or not good_columns[j]:
        return None
    return int(matrix[i][j])


def columns_of(matrix, good_rows, good_columns, window):
    rows, columns = matrix.shape
    for j in range(columns):
        yield [cell(matrix, good_rows, good_columns, (i, j), window) for i in range(rows)]


def diagonals_of(matrix, good_rows, good_columns, window):
    rows, columns = matrix.shape
    for lag in range(1 - columns, rows):
        if abs(lag) < window:
            continue
        yield (
            lag,
            [
                cell(matrix, good_rows, good_columns, (j + lag, j), 0)
                for j in range(max(0, -lag), min(columns, rows - lag))
            ],
        )


def lines(matrix, *, good_rows=None, good_columns=None, diagonal_window=1, vertical_window=1, middles=False):
    """Counters of lengths: diagonal, one_end, both_ends, vertical, white, white_cut, times."""
    matrix = np.asarray(matrix)
    good_rows = np.ones(matrix.shape[0], bool) if good_rows is None else good_rows
    good_columns = np.ones(matrix.shape[1], bool) if good_columns is None else good_columns
    found = {
        name: Counter() for name in ("diagonal", "one_end", "both_ends", "vertical", "white", "white_cut", "times")
    }
    for _, cells in diagonals_of(matrix, good_rows, good_columns, diagonal_window):
        for value, start, stop in runs(cells):
            if value != 1:
                continue
            ends = (start == 0 or cells[start - 1] is None) + (stop == len(cells) or cells[stop] is None)
            found["diagonal"][stop - start] += 1
            if ends:
                found["one_end" if ends == 1 else "both_ends"][stop - start] += 1
    for cells in columns_of(matrix, good_rows, good_columns, vertical_window):
        pieces = runs(cells)
        for at, (value, start, stop) in enumerate(pieces):
            if value == 1:
                found["vertical"][stop - start] += 1
            elif value == 0:
                inside = 0 < at < len(pieces) - 1 and pieces[at - 1][0] == 1 and pieces[at + 1][0] == 1
                found["white" if inside else "white_cut"][stop - start] += 1
                if inside and not middles:
                    found["times"][start - pieces[at - 1][1] + stop - start] += 1
        if middles:
            black = [(start, stop) for value, start, stop in pieces if value == 1]
            for (a, b), (c, d) in pairwise(black):
                found["times"][(c - b) + (b - a) // 2 + (d - c) // 2] += 1
    return found


def points(counter):
    return sum(length * number for length, number in counter.items())


def longer(counter, least):
    return Counter({length: number for length, number in counter.items() if length >= least})


def entropy(counter):
    total = sum(counter.values())
    return -sum(n / total * log(n / total) for n in counter.values()) if total else float("nan")


def lag_rates(matrix, good=None):
    """Share of black cells at each distance from the line of identity."""
    matrix = np.asarray(matrix)
    n = min(matrix.shape)
    good = np.ones(max(matrix.shape), bool) if good is None else good
    out = []
    for tau in range(n):
        values = [matrix[i][j] for i in range(n) for j in range(n) if abs(i - j) == tau and good[i] and good[j]]
        out.append(np.mean(values) if values else np.nan)
    return np.array(out)
