"""Slow, obvious correlation sums, 0-1 test and cluster scores, from the definitions. Imports nothing of the package."""

from __future__ import annotations

import cmath
import math
import statistics

import numpy as np


def distance(a, b, metric="l2"):
    steps = [abs(float(p) - float(q)) for p, q in zip(a, b, strict=True)]
    if metric == "l1":
        return sum(steps)
    if metric == "linf":
        return max(steps)
    return math.sqrt(sum(s * s for s in steps))


def pair_distances(x, theiler, metric="l2"):
    """Distances of all pairs i < j of finite states at least theiler (and one) samples apart."""
    good = [bool(np.all(np.isfinite(row))) for row in x]
    return [
        distance(x[i], x[j], metric)
        for i in range(len(x))
        for j in range(i + max(theiler, 1), len(x))
        if good[i] and good[j]
    ]


def correlation_sum(x, radii, theiler, metric="l2"):
    """Number of pairs within each radius, and of all pairs."""
    gaps = pair_distances(x, theiler, metric)
    return [sum(gap <= r for gap in gaps) for r in radii], len(gaps)


def takens(x, radius, theiler, metric="l2"):
    logs = [math.log(d / radius) for d in pair_distances(x, theiler, metric) if 0 < d <= radius]
    return -len(logs) / math.fsum(logs)


def displacement(x, c, damping=0.0):
    """Mean square displacement of the translation variables, as the papers define it, for lags 1 .. N / 10."""
    mean = math.fsum(x) / len(x)
    z, at = [], 0j
    for j, value in enumerate(x, start=1):
        at += (value - mean) * cmath.exp(1j * j * c)
        z.append(at)
    cut = max(2, len(x) // 10)
    kept = len(x) - cut
    return [
        math.fsum(abs(z[j + n] - z[j]) ** 2 for j in range(kept)) / kept
        + damping * mean**2 * math.sin(math.sqrt(2) * n)
        for n in range(1, cut + 1)
    ]


def displacement_with_mean(x, c):
    """The form with the mean left in and its oscillation subtracted (Gottwald and Melbourne 2009, eq. 3.4)."""
    mean = math.fsum(x) / len(x)
    z, at = [], 0j
    for j, value in enumerate(x, start=1):
        at += value * cmath.exp(1j * j * c)
        z.append(at)
    cut = len(x) // 10
    kept = len(x) - cut
    return [
        math.fsum(abs(z[j + n] - z[j]) ** 2 for j in range(kept)) / kept
        - mean**2 * (1 - math.cos(n * c)) / (1 - math.cos(c))
        for n in range(1, cut + 1)
    ]


def k_correlation(x, c, damping=0.0):
    moved = displacement(x, c, damping)
    return statistics.correlation(moved, list(range(1, len(moved) + 1)))


def silhouette(matrix, labels):
    scores = []
    for i, own in enumerate(labels):
        rest = [matrix[i][j] for j, label in enumerate(labels) if label == own and j != i]
        if not rest:
            scores.append(0.0)
            continue
        a = math.fsum(rest) / len(rest)
        others = []
        for k in set(labels) - {own}:
            far = [matrix[i][j] for j, label in enumerate(labels) if label == k]
            others.append(math.fsum(far) / len(far))
        scores.append((min(others) - a) / max(a, min(others)))
    return math.fsum(scores) / len(scores)


def dunn(matrix, labels):
    n = range(len(labels))
    within = max(matrix[i][j] for i in n for j in n if labels[i] == labels[j])
    between = min(matrix[i][j] for i in n for j in n if labels[i] != labels[j])
    return between / within


def decorrelation_time(distances):
    """First t >= 10 from which the slope of the logarithm is below 0.15 of its maximum for 8 samples; None if never."""
    logs = [math.log(d + 1e-12) for d in distances]
    last = len(logs) - 1
    slope = [logs[1] - logs[0], *((logs[t + 1] - logs[t - 1]) / 2 for t in range(1, last)), logs[last] - logs[last - 1]]
    steepest = max(slope[10:])
    for t in range(10, len(slope) - 7):
        if all(s < 0.15 * steepest for s in slope[t : t + 8]):
            return t
    return None
