"""Slow, obvious neighbours and divergence curves, written from the papers. Imports nothing of the package."""

from __future__ import annotations

import math

import numpy as np


def distance(a, b, metric="l2"):
    steps = [abs(float(p) - float(q)) for p, q in zip(a, b, strict=True)]
    if metric == "l1":
        return sum(steps)
    if metric == "linf":
        return max(steps)
    return math.sqrt(sum(s * s for s in steps))


def distances(x, metric="l2"):
    return np.array([[distance(a, b, metric) for b in x] for a in x])


def followable(x, horizon, among=None):
    """Which states have finite successors; `among`: times of the only states that are used."""
    good = [bool(np.all(np.isfinite(row))) for row in x]
    return [
        i + horizon < len(x) and all(good[i : i + horizon + 1]) and (among is None or i in among) for i in range(len(x))
    ]


def allowed(i, j, usable, theiler):
    return i != j and abs(i - j) >= theiler and usable[i] and usable[j]


def nearest(x, k, theiler, horizon=0, *, metric="l2", among=None):
    """Lists of (distance, time), nearest first, and the number of ordered pairs at zero."""
    usable = followable(x, horizon, among)
    lists, zeros = [], 0
    for i in range(len(x)):
        found = []
        for j in range(len(x)):
            if allowed(i, j, usable, theiler):
                d = distance(x[i], x[j], metric)
                if d > 0:
                    found.append((d, j))
                else:
                    zeros += 1
        lists.append(sorted(found)[:k])
    return lists, zeros


def rosenstein(x, k, theiler, horizon, *, metric="l2", among=None):
    """Mean over the pairs of the logarithm of their distance, and how many pairs there were at each step."""
    lists, _ = nearest(x, k, theiler, horizon, metric=metric, among=among)
    logs = [[] for _ in range(horizon + 1)]
    for i, found in enumerate(lists):
        for _, j in found:
            for step in range(horizon + 1):
                d = distance(x[i + step], x[j + step], metric)
                if d > 0:
                    logs[step].append(math.log(d))
    return np.array([math.fsum(v) / len(v) if v else math.nan for v in logs]), [len(v) for v in logs]


def inside(values, average):
    """Average of the distances in one neighbourhood, as a logarithm; None where there is none."""
    if average == "mean-log":
        logs = [math.log(v) for v in values if v > 0]
        return math.fsum(logs) / len(logs) if logs else None
    power = 2 if average == "rms" else 1
    mean = math.fsum(v**power for v in values) / len(values)
    return math.log(mean) / power if mean > 0 else None


def kantz(x, radius, theiler, horizon, *, metric="l2", average="log-mean", least=1, among=None):
    """Mean over the states of the averaged distance to their ball, and how many states had one."""
    usable = followable(x, horizon, among)
    curves, pairs = [], 0
    for i in range(len(x)):
        ball = [
            j for j in range(len(x)) if allowed(i, j, usable, theiler) and 0 < distance(x[i], x[j], metric) <= radius
        ]
        if not usable[i] or len(ball) < least:
            continue
        pairs += len(ball)
        curves.append(
            [inside([distance(x[i + s], x[j + s], metric) for j in ball], average) for s in range(horizon + 1)]
        )
    mean = []
    for step in range(horizon + 1):
        known = [c[step] for c in curves if c[step] is not None]
        mean.append(math.fsum(known) / len(known) if known else math.nan)
    return np.array(mean), len(curves), pairs


def rationed(rings, cap):
    """At most `cap` of the members of some rings, in order: equal shares of what is left, evenly spaced.

    Returns the chosen members of each ring.
    """
    chosen, left = [], cap
    for at, members in enumerate(rings):
        share = min(len(members), left // (len(rings) - at))
        left -= share
        chosen.append([m for t, m in enumerate(members) if (t * share) % len(members) < share] if members else [])
    return chosen


def capped_kantz(x, radii, *, theiler, horizon, cap, order, metric="l2"):
    """Log of the mean, over at most `cap` neighbours, ring by ring weighted with the rings' true sizes.

    `order` is the order in which the states are searched.
    """
    usable = followable(x, horizon)
    sums = np.zeros((len(radii), horizon + 1))
    counts = np.zeros(len(radii))
    for i in range(len(x)):
        rings = [[] for _ in radii]
        for j in order:
            d = distance(x[i], x[j], metric) if allowed(i, j, usable, theiler) else 0.0
            if 0 < d <= radii[-1]:
                rings[next(b for b, r in enumerate(radii) if d <= r)].append(j)
        chosen = rationed(rings, cap)
        size, total = 0, np.zeros(horizon + 1)
        for b in range(len(radii)):
            if chosen[b]:
                followed = [[distance(x[i + s], x[j + s], metric) for s in range(horizon + 1)] for j in chosen[b]]
                total += np.mean(followed, axis=0) * len(rings[b])
                size += len(rings[b])
            if size:
                sums[b] += np.log(total / size)
                counts[b] += 1
    return sums / counts[:, None]


def across(a, b, u, v):
    """Length of what is left of b - a when its part along the mean of two directions is taken out."""
    step = [float(q) - float(p) for p, q in zip(a, b, strict=True)]
    both = [float(p) + float(q) for p, q in zip(u, v, strict=True)]
    size = math.sqrt(sum(w * w for w in both))
    if size < 1e-7:
        return math.sqrt(sum(s * s for s in step))
    part = sum(s * w for s, w in zip(step, both, strict=True)) / size
    return math.sqrt(sum((s - part * w / size) ** 2 for s, w in zip(step, both, strict=True)))


def motion(x):
    """Unit vectors from a state's finite neighbours in time; zero where there are none."""
    found = []
    for t in range(len(x)):
        if not np.all(np.isfinite(x[t])):
            found.append([math.nan] * x.shape[1])
            continue
        before = x[t] - x[t - 1] if t > 0 and np.all(np.isfinite(x[t - 1])) else None
        after = x[t + 1] - x[t] if t + 1 < len(x) and np.all(np.isfinite(x[t + 1])) else None
        known = [step for step in (before, after) if step is not None]
        total = np.sum(known, axis=0) if known else np.zeros(x.shape[1])
        size = math.sqrt(float(np.sum(total**2)))
        found.append(list(total / size) if size > 0 else [0.0] * x.shape[1])
    return np.array(found)


def behind(x, ways, i, j):
    """Samples by which state j runs behind state i, along the sum of their directions."""
    j = min(max(j, 1), len(x) - 2)
    both = ways[i] + ways[j]
    chord, step = float(np.dot(x[i] - x[j], both)), float(np.dot(x[j + 1] - x[j - 1], both)) / 2
    return math.floor(chord / step + 0.5) if step > 0 and abs(chord) < 1e6 * step else 0


def beside(x, ways, i, j, horizon):
    """Distances of i, i + 1, .. to the orbit of j, whose phase is set anew every eight samples; inside the record."""
    found, shift = [], 0
    for step in range(horizon + 1):
        if step % 8 == 0:
            shift += min(max(behind(x, ways, i + step, j + step + shift), -8), 8)
            shift = min(max(shift, -j), len(x) - 1 - j - horizon)
            shift = max(shift, -((j - i) // 2)) if j > i else min(shift, (i - j) // 2)
            ahead = range(step, min(step + 8, horizon + 1))
            if any(math.isnan(ways[j + s + shift][0]) for s in ahead):
                shift = 0
        there = j + step + shift
        found.append(across(x[i + step], x[there], ways[i + step], ways[there]))
    return found


def rosenstein_across(x, k, theiler, horizon, stride):
    """`rosenstein` with distances across the motion, of every so many reference states."""
    lists, _ = nearest(x, k, theiler, horizon)
    ways = motion(x)
    logs = [[] for _ in range(horizon + 1)]
    for i in range(0, len(x), stride):
        for _, j in lists[i]:
            for step, d in enumerate(beside(x, ways, i, j, horizon)):
                if d > 1e-7:
                    logs[step].append(math.log(d))
    return np.array([math.fsum(v) / len(v) if v else math.nan for v in logs]), [len(v) for v in logs]


def kantz_across(x, radius, theiler, horizon, stride):
    """`kantz` (mean of the distances) with distances across the motion, of every so many reference states."""
    usable, ways, curves = followable(x, horizon), motion(x), []
    for i in range(0, len(x), stride):
        ball = [j for j in range(len(x)) if allowed(i, j, usable, theiler) and 0 < distance(x[i], x[j]) <= radius]
        if usable[i] and ball:
            rows = np.array([beside(x, ways, i, j, horizon) for j in ball])
            curves.append(np.log(np.mean(rows, axis=0)))
    return np.mean(curves, axis=0), len(curves)
