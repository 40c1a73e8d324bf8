"""Slow, obvious Wolf and hybrid blocks, published ones, and local maps. Imports nothing of the package."""

from __future__ import annotations

import math

import numpy as np
from naive_series import allowed, distance, followable


def cosine(a, b, c):
    """Of the angle between sides a and b of a triangle whose third side is c."""
    return max(-1.0, min(1.0, (a * a + b * b - c * c) / (2 * a * b)))


def block_starts(usable, horizon):
    starts, at = [], 0
    while at < len(usable):
        if usable[at]:
            starts.append(at)
            at += horizon
        else:
            at += 1
    return starts


def near(x, i, usable, theiler, metric):
    """Neighbours (distance, time) of one state, nearest first."""
    found = [(distance(x[i], x[j], metric), j) for j in range(len(x)) if allowed(i, j, usable, theiler)]
    return sorted(pair for pair in found if pair[0] > 0)


def wolf(x, k, theiler, horizon, *, limit, metric="l2"):
    """Blocks (start, neighbour, distances, kept)."""
    usable = followable(x, horizon)
    blocks, old = [], None
    for i in block_starts(usable, horizon):
        if old is not None and (old[0] != i or old[2] == 0):
            old = None
        if old is not None and old[2] <= limit and usable[old[1]]:
            j, kept = old[1], True
        else:
            candidates = near(x, i, usable, theiler, metric)[:k]
            kept = False
            if not candidates:
                old = None
                continue
            if old is None:
                j = candidates[0][1]
            else:
                candidates = [pair for at, pair in enumerate(candidates) if at < 8 or pair[0] <= limit]
                turned = [abs(cosine(old[2], d, distance(x[old[1]], x[c], metric))) for d, c in candidates]
                j = next(c for t, (_, c) in zip(turned, candidates, strict=True) if t >= max(turned) - 1e-9)
        path = [distance(x[i + z], x[j + z], metric) for z in range(horizon + 1)]
        blocks.append((i, j, path, kept))
        old = (i + horizon, j + horizon, path[-1])
    return blocks


def averaged(values, average):
    if average == "log-mean":
        return sum(values) / len(values)
    if average == "rms":
        return math.sqrt(sum(v * v for v in values) / len(values))
    logs = [math.log(v) for v in values if v > 0]
    return math.exp(sum(logs) / len(logs)) if logs else 0.0


def hybrid(x, k, theiler, horizon, *, limit, turn, metric="l2", average="log-mean"):
    """Blocks (start, averaged distances, number of members, kept); new members come from the k nearest."""
    usable = followable(x, horizon)
    blocks, old, arrival = [], [], None
    for i in block_starts(usable, horizon):
        if arrival != i:
            old = []

        def along(j, old=old, i=i):
            gap, far = max(old, key=lambda pair: pair[0])
            return abs(cosine(gap, distance(x[i], x[j], metric), distance(x[far], x[j], metric)))

        alive = [j for _, j in old if usable[j]]
        kept = bool(alive) and np.mean([d for d, _ in old]) <= limit
        kept = kept and np.median([along(j) for _, j in old]) >= math.cos(turn)
        if kept:
            members = alive
        else:
            members = [j for _, j in near(x, i, usable, theiler, metric)[:k]]
            if old and members:
                best = max(along(j) for j in members)
                members = [j for j in members if along(j) >= min(math.cos(turn), best) - 1e-9]
        if not members:
            arrival = None
            continue
        paths = [[distance(x[i + z], x[j + z], metric) for z in range(horizon + 1)] for j in members]
        blocks.append((i, [averaged(list(column), average) for column in zip(*paths, strict=True)], len(members), kept))
        old = [(path[-1], j + horizon) for path, j in zip(paths, members, strict=True) if path[-1] > 0]
        arrival = i + horizon
    return blocks


def r_squared_and_slope(y):
    n = len(y)
    t = np.arange(n)
    design = np.stack([t, np.ones(n)], axis=1)
    (slope, offset), *_ = np.linalg.lstsq(design, np.array(y), rcond=None)
    total = sum((v - np.mean(y)) ** 2 for v in y)
    rest = sum((v - slope * z - offset) ** 2 for z, v in zip(t, y, strict=True))
    return (1 - rest / total if total > 0 else math.nan), slope


def published_wolf(d, tau, w):
    """Slopes and R2 of the first w points of the blocks in a (T, T) matrix, by the letter of the published loop."""
    T = len(d)
    i, slopes = 0, []
    while i < T - tau - 1:
        best, j_star = math.inf, None
        for j in range(1, T - tau - 1):
            if 0 < d[i, j] < best:
                best, j_star = d[i, j], j
        if j_star is not None:
            path = [d[i + z, j_star + z] for z in range(tau)]
            if min(path[:w]) > 0:
                r2, slope = r_squared_and_slope([math.log(v) for v in path[:w]])
                slopes.append((slope, r2))
            else:
                slopes.append((math.nan, math.nan))
        i += tau
    return slopes


def production_wolf(d, tau, w, theiler):
    """Slope, R2 and points of each block, None without a neighbour: the published production code, by the letter."""
    T = len(d)
    out = []
    for i in range(0, T - tau - 1, tau):
        best, j_star = math.inf, None
        for j in range(1, T - tau - 1):
            lowest = d[i, j - 1] > d[i, j] < d[i, j + 1]
            if lowest and d[i, j] > 0 and abs(i - j) > theiler and d[i, j] < best:
                best, j_star = d[i, j], j
        if j_star is None:
            continue
        path = [d[i + z, j_star + z] for z in range(1, tau)]
        runs = "".join("+" if v > 0 else " " for v in path).split()
        longest = max(runs, key=len, default="")
        begin = "".join("+" if v > 0 else " " for v in path).find(longest)
        logs = [math.log(v) for v in path[begin : begin + len(longest)]]
        if len(logs) < w:
            out.append((math.nan, math.nan, 0))
            continue
        size = w
        r2, slope = r_squared_and_slope(logs[:size])
        while size < len(logs):
            longer, steeper = r_squared_and_slope(logs[: size + 1])
            if not longer >= r2:
                break
            size, r2, slope = size + 1, longer, steeper
        out.append((slope, r2, size))
    return out


def published_kantz(d, tau, w, eps):
    T = len(d)
    i, slopes = 0, []
    while i < T - tau - 1:
        ball = [j for j in range(i, T - tau - 1) if 0 < d[i, j] < eps]
        if not ball:
            break
        path = [sum(d[i + z, j + z] for j in ball) / len(ball) for z in range(tau)]
        r2, slope = r_squared_and_slope([math.log(v) for v in path[:w]]) if min(path[:w]) > 0 else (math.nan, math.nan)
        slopes.append((slope, r2))
        i += tau
    return slopes


def spectrum(x, m, theiler, horizon=1):
    """Exponents of affine maps fitted to the m nearest states, by lstsq and numpy's QR, per map."""
    usable = followable(x, horizon)
    frame, logs = np.eye(x.shape[1]), []
    for i in range(0, len(x) - horizon, horizon):
        found = near(x, i, usable, theiler, "l2")[:m] if usable[i] else []
        if len(found) < m:
            frame = np.eye(x.shape[1])
            continue
        times = np.array([j for _, j in found])
        design = np.column_stack([x[times], np.ones(m)])
        # Centred first, or the tiny neighbourhoods drown in the offset.
        design[:, :-1] -= x[i]
        solution, *_ = np.linalg.lstsq(design, x[times + horizon] - x[i + horizon], rcond=None)
        frame, r = np.linalg.qr(solution[:-1].T @ frame)
        logs.append(np.log(np.abs(np.diag(r))))
    return np.mean(logs, axis=0)
