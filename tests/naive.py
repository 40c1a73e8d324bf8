"""Slow and obvious twins of what the package computes, written from the papers; nothing of ours is imported."""

import math

import numpy as np


def distance(a, b, metric):
    """Distance of two states, entry by entry, in Python floats."""
    gaps = [abs(float(x) - float(y)) for x, y in zip(a, b, strict=True)]
    if any(math.isnan(gap) for gap in gaps):
        return math.nan
    if metric == "l1":
        return math.fsum(gaps)
    if metric == "linf":
        return max(gaps)
    square = math.fsum(gap * gap for gap in gaps)
    return math.sqrt(square / len(gaps) if metric == "rms" else square)


def between(a, b, metric):
    return np.array([distance(x, y, metric) for x, y in zip(a, b, strict=True)])


def rounding_floor(state, metric, dtype):
    """Typical distance of two copies of one state, each rounded by up to half a spacing."""
    spacing = [float(np.spacing(np.abs(np.asarray(x, dtype)))) for x in state]
    if metric == "l1":
        return sum(spacing) / 3
    if metric == "linf":
        return max(spacing)
    square = sum(u * u / 6 for u in spacing)
    return math.sqrt(square / len(spacing) if metric == "rms" else square)


def averaged(distances, average):
    """One curve of the copies of one initial condition, (C, T) -> (T,)."""
    curve = []
    for column in np.asarray(distances).T:
        if average == "mean-log":
            curve.append(sum(math.log(d) for d in column) / len(column))
        elif average == "log-mean":
            curve.append(math.log(sum(column) / len(column)))
        else:
            curve.append(0.5 * math.log(sum(d * d for d in column) / len(column)))
    return np.array(curve)


def line(x, y):
    """Slope, intercept and R2 of a straight line, by the normal equations."""
    n = len(x)
    mx, my = sum(x) / n, sum(y) / n
    sxx = sum((p - mx) ** 2 for p in x)
    slope = sum((p - mx) * (q - my) for p, q in zip(x, y, strict=True)) / sxx
    intercept = my - slope * mx
    left = sum((q - intercept - slope * p) ** 2 for p, q in zip(x, y, strict=True))
    total = sum((q - my) ** 2 for q in y)
    return slope, intercept, 1 - left / total


def danovski2024(curves):
    """Slope and R2 of the best window of each curve, as the loops of Danovski et al. (2024) run over them."""
    found = []
    for curve in curves:
        best = (-math.inf, math.nan)
        for start in range(0, 101, 5):
            for width in range(30, 101, 5):
                if start + width > min(len(curve), 200):
                    continue
                slope, _, r2 = line(list(range(start, start + width)), list(curve[start : start + width]))
                best = max(best, (r2, slope))
        found.append((best[1], best[0]))
    return np.array(found)


def first_passage(curve, level):
    for t, value in enumerate(curve):
        if value >= level:
            return t
    return len(curve) - 1


def knee(curve):
    """Point of a curve highest above the chord between its ends, and its height above it."""
    last = len(curve) - 1
    above = [y - (curve[0] + (curve[last] - curve[0]) * t / last) for t, y in enumerate(curve)]
    return int(np.argmax(above)), max(above)


def jacobian_exponent(points, span, count, discarded):
    """Mean logarithm per sample by which fitted Jacobians, one after another, stretch a vector: state by state."""
    chain = range(0, len(points) - span, span)
    vector, logs = np.eye(points.shape[1])[0], []
    for i in chain:
        apart = [j for j in range(len(points) - span) if abs(i - j) >= 2 * span]
        near = sorted(apart, key=lambda j: math.dist(points[i], points[j]))[:count]
        before = np.array([[1.0, *points[j]] for j in near])
        after = np.array([points[j + span] for j in near])
        slopes = np.linalg.lstsq(before, after, rcond=None)[0][1:]
        vector = slopes.T @ vector
        size = math.sqrt(sum(v * v for v in vector))
        logs.append(math.log(size) / span)
        vector = vector / size
    return sum(logs[discarded:]) / len(logs[discarded:])


def returns(states, lag, first):
    """Means of ln |D(t)|, ln |D(t + lag) - D(t)| and ln |D(t + lag)| for D(t) = x(t + lag) - x(t), t >= first."""
    close, second, later = [], [], []
    for t in range(first, len(states) - 2 * lag):
        one = [b - a for a, b in zip(states[t], states[t + lag], strict=True)]
        two = [b - a for a, b in zip(states[t + lag], states[t + 2 * lag], strict=True)]
        close.append(math.log(math.hypot(*one)))
        second.append(math.log(math.hypot(*(b - a for a, b in zip(one, two, strict=True)))))
        later.append(math.log(math.hypot(*two)))
    return [sum(each) / len(each) for each in (close, second, later)]


def growth_phase(curves, share, upper, least=2.0, stalled=3.0):
    """Gain over time between the first passages of two levels, summed over curves of ln d; times are indices."""
    passages = []
    for values in curves:
        onset = values[0] + max(least, share * (upper - values[0]))
        sigma = next((k for k, v in enumerate(values) if v >= onset), None)
        tau = next((k for k, v in enumerate(values) if v >= upper), None)
        passages.append((sigma, tau))
    durations = sorted(tau - sigma for sigma, tau in passages if None not in {sigma, tau} and tau > sigma)
    longest = stalled * float(np.median(durations))
    gain = time = 0.0
    for values, (sigma, tau) in zip(curves, passages, strict=True):
        if sigma is None:
            continue
        end = len(values) - 1 if tau is None else tau
        end = min(end, int(sigma + longest))
        gain, time = gain + values[end] - values[sigma], time + end - sigma
    return gain / time


def ranks(values):
    """Position of each value among the sorted values at single precision; equal ones in their order."""
    single = np.asarray(values, dtype=np.float32)
    return np.array([sum(b < a for b in single) + sum(b == a for b in single[:k]) for k, a in enumerate(single)])


def with_amplitude(spectrum, amplitude):
    """Complex numbers with these amplitudes and their own phases, and the squared change of the amplitudes."""
    new = [a * (z / abs(z) if z != 0 else 1.0) for z, a in zip(spectrum, amplitude, strict=True)]
    return np.array(new), sum((abs(z) - a) ** 2 for z, a in zip(spectrum, amplitude, strict=True))
