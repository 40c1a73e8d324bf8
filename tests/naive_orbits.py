"""Slow, obvious distances between curves and correlations in time, from their definitions; nothing of the package."""

import math
from functools import cache


def distance(a, b, metric):
    gaps = [abs(float(p) - float(q)) for p, q in zip(a, b, strict=True)]
    return {"l1": sum(gaps), "l2": math.sqrt(sum(g * g for g in gaps)), "linf": max(gaps)}[metric]


def to_orbit(path, orbit, metric):
    """Smallest distance of every state of the path to any state of the orbit, and which."""
    table = [[distance(x, r, metric) for r in orbit] for x in path]
    return [min(row) for row in table], [row.index(min(row)) for row in table]


def hausdorff(path, orbit, metric):
    there = max(to_orbit(path, orbit, metric)[0])
    back = max(to_orbit(orbit, path, metric)[0])
    return max(there, back)


def frechet(path, orbit, metric):
    """Shortest leash of a man on the path and a dog on the orbit who never turn back: Eiter and Mannila's recursion."""

    @cache
    def leash(i, j):
        here = distance(path[i], orbit[j], metric)
        if i == 0 and j == 0:
            return here
        before = []
        if i > 0:
            before.append(leash(i - 1, j))
        if j > 0:
            before.append(leash(i, j - 1))
        if i > 0 and j > 0:
            before.append(leash(i - 1, j - 1))
        return max(here, min(before))

    return leash(len(path) - 1, len(orbit) - 1)


def autocorrelation(states, lags, order=None):
    """tr C(lag) / tr C(0), states with a NaN left out of every sum; in another order if one is given."""
    states = [list(map(float, s)) for s in states]
    if order is not None:
        states = [states[i] for i in order]
    whole = [not any(math.isnan(v) or math.isinf(v) for v in s) for s in states]
    kept = [s for s, w in zip(states, whole, strict=True) if w]
    mean = [sum(column) / len(kept) for column in zip(*kept, strict=True)]
    out = []
    for lag in range(lags + 1):
        products = []
        for t in range(len(states) - lag):
            if whole[t] and whole[t + lag]:
                products.append(
                    sum((a - m) * (b - m) for a, b, m in zip(states[t], states[t + lag], mean, strict=True))
                )
        out.append(sum(products) / len(products) if products else math.nan)
    return [c / out[0] for c in out]


def egonet_covariance(matrices, lag):
    """C(lag) entry by entry."""
    count, nodes = len(matrices), len(matrices[0])
    mean = [[sum(float(m[i][k]) for m in matrices) / count for k in range(nodes)] for i in range(nodes)]
    out = [[0.0] * nodes for _ in range(nodes)]
    for i in range(nodes):
        for j in range(nodes):
            total = 0.0
            for t in range(count - lag):
                for k in range(nodes):
                    total += (matrices[t][i][k] - mean[i][k]) * (matrices[t + lag][j][k] - mean[j][k])
            out[i][j] = total / (count - lag)
    return out
