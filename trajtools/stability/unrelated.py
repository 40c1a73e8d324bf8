"""How far apart unrelated states of one orbit are: what a copy that has forgotten its reference keeps by chance."""

from __future__ import annotations

import numpy as np

from trajtools.distances.equal_times import pairs
from trajtools.distances.metric import Metric, bind_metric
from trajtools.neighbors.theiler import distance_window
from trajtools.stability.pairs import BLOCK_BYTES, Rows
from trajtools.types import Floats, Ints

SAMPLED, FEWEST = 128, 16  # states of each reference
RANGE = (0.05, 0.95)  # quantiles
MOST_PAIRS = 2**20  # in memory at a time
Band = tuple[float, float]
UNKNOWN: Band = (float("nan"), float("nan"))


def unrelated(references: list[Rows], metric: Metric) -> tuple[Band, Band]:
    """Bands of the distance between unrelated states of a reference, and of their distance to the rest of its orbit.

    States are unrelated if they lie further apart in time than three correlation times. NaN where the states stay
    correlated over a fifth of the record, or are few.
    """
    apart: list[Floats] = []
    nearest: list[Floats] = []
    for rows in references:
        bound = bind_metric(metric, rows.states, rows.states)
        index = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLED)).round().astype(np.int64))
        sample = rows.take(index)
        fine = np.isfinite(sample).all(axis=1)
        index, sample = index[fine], sample[fine]
        if len(index) < FEWEST:
            return UNKNOWN, UNKNOWN
        among = _distances(bound, sample, sample)
        window = _window(index, among)
        if window is None:
            return UNKNOWN, UNKNOWN
        apart.append(among[_lags(index, index) >= window])
        nearest.append(_nearest(bound, rows, index, sample, window))
    return _band(apart), _band(nearest)


def _window(index: Ints, among: Floats) -> int | None:
    """Rows between unrelated states; None if the states stay correlated."""
    largest = float(among.max())
    if not 0 < largest < np.inf:
        return None
    choice = distance_window(among / largest, np.arange(len(index)))
    stride = int(np.ceil((index[-1] - index[0]) / (len(index) - 1)))
    return None if choice.warnings else int(choice.value) * stride


def _nearest(metric: Metric, rows: Rows, index: Ints, sample: Floats, window: int) -> Floats:
    """Distance of each state of the sample to the nearest one that is unrelated to it."""
    best = np.full(len(index), np.inf)
    tall = max(1, min(BLOCK_BYTES // (8 * max(rows.shape[1], 1)), MOST_PAIRS // len(index)))
    for first in range(0, len(rows), tall):
        part = np.arange(first, min(first + tall, len(rows)))
        distances = _distances(metric, sample, rows.read(first, first + len(part)))
        usable = (_lags(index, part) >= window) & np.isfinite(distances)
        best = np.minimum(best, np.where(usable, distances, np.inf).min(axis=1))
    return best


def _lags(a: Ints, b: Ints) -> Ints:
    lags: Ints = np.abs(a[:, None] - b[None, :])
    return lags


def _distances(metric: Metric, a: Floats, b: Floats) -> Floats:
    left, right = np.repeat(np.arange(len(a)), len(b)), np.tile(np.arange(len(b)), len(a))
    return pairs(metric, np.asarray(a)[None], np.asarray(b)[None], left, right)[0].reshape(len(a), len(b))


def _band(values: list[Floats]) -> Band:
    known = np.concatenate([np.empty(0), *values])
    known = known[np.isfinite(known)]
    low, high = np.quantile(known, RANGE) if len(known) >= FEWEST else UNKNOWN
    return float(low), float(high)
