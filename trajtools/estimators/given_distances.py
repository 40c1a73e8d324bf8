"""One trajectory of which only the distances of its states are known: time scales, and coordinates where there are any.

What the checks of one trajectory need can be read from distances alone: neighbours, the motion of segments (half the
mean squared distance of two points is their variance), and the correlation time (the mean squared displacement). Its
nulls cannot: a surrogate is a record of states. Where the distances are Euclidean, classical scaling gives the states
back, up to a rotation, which no null of states notices. Where they are not, there is no null, and it is said so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.embedding import Choice
from trajtools.errors import DataError, TooLargeError
from trajtools.estimators.single import LARGEST, Asked, Prepared
from trajtools.reasons import Reason
from trajtools.types import Floats, Ints

MOST_STATES = 16_384  # 2 GiB of distances, which the estimators read at random
SCALED_STATES = 1500  # that classical scaling turns into coordinates: its time grows with their cube
SCALED_DIMENSION = 64
NEGATIVE = 1e-4  # of the sum of the sizes of the eigenvalues: distances with more are not Euclidean
LONGEST_LAG = 1000
NOT_EUCLIDEAN = (
    "no null can be drawn from these distances: they are not Euclidean ({share:.1%} of their scalar products are "
    "negative), so there are no states to make surrogates of; give the states, or Euclidean distances"
)
MISSING = (
    "no null can be drawn from these distances: some are missing between states that have others, so the states cannot "
    "be reconstructed; give the states"
)


def prepare_distances(x: Distances, asked: Asked) -> Prepared:
    """Check distances, choose the Theiler window, and find coordinates for the null.

    Parameters
    ----------
    x : Distances
        Square.
    asked : Asked
        What is not None there is taken as it is.

    Returns
    -------
    Prepared
        `states` are the distances (T, T), `small` the coordinates (T', d) of a stretch of at most 1500 states, or
        (0, 0) where there are none; `no_null` then says why.

    Raises
    ------
    DataError
        If nothing can be said about time scales: too short, or all equal.
    TooLargeError
        If there are more than 16,384 states.
    """
    if len(x) > MOST_STATES:
        raise TooLargeError(
            f"following pairs reads distances at random, in memory: of at most {MOST_STATES} states, these are "
            f"{len(x)}. Take a part of them (window=), or give the states"
        )
    matrix = tame(np.asarray(x.read(0, len(x)), dtype=np.float64))
    usable = np.flatnonzero(np.count_nonzero(np.isfinite(matrix), axis=1) > 1)
    if len(usable) < 20:
        raise DataError(f"{len(usable)} states with distances are too few to tell a time scale; record more")
    if not np.nanmax(matrix[usable[0]]) > 0:
        raise DataError("all states are equal: they have no neighbours apart; nothing moves, so nothing diverges")
    choices: dict[str, Any] = {}
    theiler = asked.theiler
    if theiler is None:
        chosen = window_of(matrix, usable)
        theiler = min(chosen.value, max(len(matrix) // 8, 1))
        choices["theiler_choice"] = {
            name: getattr(chosen, name) for name in ("value", "method", "reason", "argument", "statistic", "warnings")
        }
    choices |= {"dim": 1, "delay": 1, "theiler": theiler}
    coordinates, missing = np.empty((0, 0)), None
    if asked.null is not None:
        coordinates, share = scaled(matrix, usable)
        choices["not_euclidean"] = share
        if coordinates.size:
            size = f"{coordinates.shape[1]} coordinates from classical scaling of {len(coordinates)} states"
            choices["tested_in"] = size
        elif np.isfinite(share):
            missing = Reason.of("not-euclidean", NOT_EUCLIDEAN, share=share)
        else:
            missing = Reason("missing-distances", MISSING)
    return Prepared(matrix, matrix, coordinates, 1, 1, theiler, np.dtype(np.float64), choices, missing)


def tame(matrix: Floats) -> Floats:
    """Bring distances whose squares overflow or vanish to one: an exponent knows no scale.

    Parameters
    ----------
    matrix : ndarray of float64, shape (T, T)
        Distances.

    Returns
    -------
    ndarray of float64, shape (T, T)
        As they are, or divided by a typical one; what is beyond 1e100 then is missing.
    """
    some = matrix[:: max(1, len(matrix) // 500)]
    some = some[np.isfinite(some) & (some > 0)]
    typical = float(np.median(some)) if len(some) else 1.0
    if not 1 / LARGEST < typical < LARGEST:
        matrix = matrix / typical
    largest = max((float(np.max(row, initial=0.0, where=np.isfinite(row))) for row in matrix), default=0.0)
    return matrix if largest < LARGEST else np.where(matrix < LARGEST, matrix, np.nan)


def _mean_square(distances: Floats) -> float:
    known = distances[np.isfinite(distances)]
    return float(np.mean(known**2)) if len(known) else float("nan")


def window_of(matrix: Floats, usable: Ints) -> Choice:
    r"""Theiler window from distances: three times the correlation time.

    Parameters
    ----------
    matrix : ndarray of float64, shape (T, T)
        Distances.
    usable : ndarray of int64, shape (n,)
        States that have some.

    Returns
    -------
    Choice
        In samples.

    Notes
    -----
    .. math:: C(k) = 1 - \langle d(t, t + k)^2 \rangle_t \, / \, \langle d(s, t)^2 \rangle_{s,t}

    which for Euclidean distances is the autocorrelation of the states.
    """
    longest = max(2, min(len(matrix) // 5, LONGEST_LAG))
    typical = float(np.mean([_mean_square(matrix[i, usable]) for i in usable[:: max(1, len(usable) // 2000)]]))
    lags = np.arange(longest + 1, dtype=np.float64)
    curve = 1 - np.array([_mean_square(np.diagonal(matrix, k)) for k in range(longest + 1)]) / typical
    below = np.flatnonzero(curve < np.exp(-1.0))
    lag = int(below[0]) if len(below) else longest
    words = "the autocorrelation is not below 1/e up to lag {lag}: the trajectory may drift"
    warnings = () if len(below) else (Reason.of("drift", words, lag=longest),)
    reason = f"3 times: the autocorrelation of the states is below 1/e from lag {lag} on"
    return Choice("theiler", max(1, 3 * lag), "mean squared displacement", lags, curve, reason, {}, warnings)


def scaled(matrix: Floats, usable: Ints) -> tuple[Floats, float]:
    """Coordinates of a stretch of the states, if their distances are Euclidean (classical scaling).

    Parameters
    ----------
    matrix : ndarray of float64, shape (T, T)
        Distances.
    usable : ndarray of int64, shape (n,)
        States that have some.

    Returns
    -------
    coordinates : ndarray of float64, shape (T', d)
        Of the longest stretch without gaps, at most 1500 states; a fixed random projection to 64 dimensions where
        there are more. Empty where the distances are not Euclidean.
    share : float
        Of the sum of the sizes of the eigenvalues of the matrix of scalar products, what is negative.
    """
    gaps = np.flatnonzero(np.diff(usable) != 1)
    edges = np.concatenate([[0], gaps + 1, [len(usable)]])
    at = int(np.argmax(np.diff(edges)))
    run = usable[edges[at] : edges[at + 1]][:SCALED_STATES]
    square = matrix[run[0] : run[-1] + 1, run[0] : run[-1] + 1] ** 2
    np.fill_diagonal(square, 0.0)
    if not np.isfinite(square).all():
        return np.empty((0, 0)), float("nan")
    rows = square.mean(axis=0)
    products = -(square - rows - rows[:, None] + rows.mean()) / 2
    size, axes = np.linalg.eigh(products)
    total = float(np.abs(size).sum())
    share = float(-size[size < 0].sum() / total) if total > 0 else 0.0
    if share > NEGATIVE:
        return np.empty((0, 0)), share
    real = size > max(-2 * float(size.min()), 1e-12 * float(size.max()))
    coordinates = axes[:, real] * np.sqrt(size[real])
    if coordinates.shape[1] > SCALED_DIMENSION:
        mix = np.random.default_rng(0).standard_normal((coordinates.shape[1], SCALED_DIMENSION))
        coordinates = coordinates @ mix / np.sqrt(SCALED_DIMENSION)
    return coordinates, share
