"""How much of the distances between states a few coordinates keep."""

from __future__ import annotations

import numpy as np

from trajtools.types import Floats

# Of P2's follow-up: the time at which the growth of a distance in one coordinate has died down.
LATE, SHARE_OF_STEEPEST, IN_A_ROW, OFFSET = 10, 0.15, 8, 1e-12


def decorrelation_index(distance: Floats) -> float:
    r"""First sample at which the logarithm of a distance has stopped growing (Jimenez-Gonzalez et al. 2026)."""
    if len(distance) < LATE + IN_A_ROW or not np.isfinite(distance).all():
        return float("nan")
    slope = np.gradient(np.log(distance + OFFSET))[LATE:]
    steepest = float(slope.max())
    if not steepest > 0:
        return float("nan")
    calm = (slope < SHARE_OF_STEEPEST * steepest).astype(np.int64)
    runs = np.convolve(calm, np.ones(IN_A_ROW, dtype=np.int64), mode="valid")
    first = np.flatnonzero(runs == IN_A_ROW)
    return float(first[0] + LATE) if len(first) else float("nan")


def trustworthiness(full: Floats, kept: Floats, neighbors: int) -> float:
    r"""How far the nearest states in the coordinates are near in truth (Venna and Kaski 2001)."""
    n = len(full)
    own = np.eye(n, dtype=bool)
    rank = np.argsort(np.argsort(np.where(own, -1.0, full), axis=1, kind="stable"), axis=1, kind="stable")
    nearest = np.argsort(np.where(own, np.inf, kept), axis=1, kind="stable")[:, :neighbors]
    excess = np.take_along_axis(rank, nearest, axis=1) - neighbors
    return float(1.0 - 2.0 * excess[excess > 0].sum() / (n * neighbors * (2 * n - 3 * neighbors - 1)))


def distance_correlations(full: Floats, kept: Floats) -> tuple[float, float]:
    """Pearson's and Spearman's correlation over all pairs."""
    from scipy.stats import rankdata

    upper = np.triu_indices(len(full), 1)
    a, b = full[upper], kept[upper]
    return _pearson(a, b), _pearson(rankdata(a), rankdata(b))


def _pearson(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")
