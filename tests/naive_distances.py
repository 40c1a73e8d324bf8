"""Slow and obvious twins of all pairwise distances, in exact fractions; nothing of ours is imported."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def distance(a, b, metric):
    """Distance of two finite states; sums are exact."""
    x, y = ([Fraction(float(v)) for v in state] for state in (a, b))
    gaps = [abs(p - q) for p, q in zip(x, y, strict=True)]
    squares = sum(gap * gap for gap in gaps)
    if metric == "l1":
        return float(sum(gaps))
    if metric == "l2":
        return root(squares)
    if metric == "rms":
        return root(squares / len(gaps))
    if metric == "linf":
        return float(max(gaps))
    if metric == "sign":
        return sum(sign(p) != sign(q) for p, q in zip(x, y, strict=True)) / len(gaps)
    norms = [sum(v * v for v in state) for state in (x, y)]
    if metric == "relative":
        return root(squares / max(norms)) if max(norms) else 0.0
    if metric == "cosine":
        # 1 - cos = (|x| |y| - x.y) / (|x| |y|), and (|x| |y|)^2 - (x.y)^2 without cancellation is Lagrange's identity.
        if not min(norms):
            return math.nan
        dot = sum(p * q for p, q in zip(x, y, strict=True))
        product = root(norms[0] * norms[1])
        if dot <= 0:
            return 1 - float(dot) / product
        return float(norms[0] * norms[1] - dot * dot) / (product * (product + float(dot)))
    raise AssertionError(metric)


def long_distance(a, b, metric):
    """Distance of two long states, in extended precision, by direct differences."""
    x, y = (np.asarray(state, dtype=np.longdouble) for state in (a, b))
    if metric == "cosine":
        x, y = (state / np.sqrt(np.sum(state * state)) for state in (x, y))
    gaps = np.abs(x - y)
    if metric == "l1":
        return float(gaps.sum())
    if metric == "linf":
        return float(gaps.max())
    if metric == "sign":
        return float(np.mean(np.sign(x) != np.sign(y)))
    square = np.sum(gaps * gaps)
    if metric == "cosine":
        return float(square / 2)
    divisor = {"l2": 1, "rms": len(x), "relative": max(np.sum(x * x), np.sum(y * y))}[metric]
    return float(np.sqrt(square / divisor))


def long_matrix(x, y, metric):
    return np.array([[long_distance(a, b, metric) for b in y] for a in x]).reshape(len(x), len(y))


def root(fraction):
    """Root of an exact fraction, also where it leaves the range of floats."""
    if not fraction:
        return 0.0
    shift = (fraction.numerator.bit_length() - fraction.denominator.bit_length()) // 2
    return math.ldexp(math.sqrt(fraction / Fraction(4) ** shift), shift)


def sign(number):
    return (number > 0) - (number < 0)


def matrix(x, y, metric):
    return np.array([[distance(a, b, metric) for b in y] for a in x]).reshape(len(x), len(y))


def edges_l1(a, b, edges, nodes):
    """sum |a - b| over the edges, over N(N-1)."""
    total = sum(abs(Fraction(float(a[k])) - Fraction(float(b[k]))) for k in edges)
    return float(total / (nodes * (nodes - 1)))


def nearest(x, y, metric):
    """Distance to the nearest of y, and the first place where it is."""
    found = []
    for a in x:
        row = [distance(a, b, metric) for b in y]
        found.append((min(row), row.index(min(row))))
    return np.array([d for d, _ in found]), np.array([k for _, k in found])
