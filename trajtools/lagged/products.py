"""Sums over time and weights of the products of states with later states, exactly, in blocks of columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trajtools.errors import DataError, TooLargeError
from trajtools.lagged.filters import Filter
from trajtools.lagged.series import Series, Span
from trajtools.types import Floats, Ints

GRAM_BYTES = 2**30
EUCLIDEAN = ("l2", "rms")


@dataclass(frozen=True, eq=False)
class Lagged:
    """Autocovariances, summed over the weights.

    Attributes
    ----------
    covariance : ndarray of float64, shape (L + 1,)
        Mean over the pairs of states of the product of a state with the one `lag` states later: tr C(lag).
    pairs : ndarray of int64, shape (L + 1,)
        Pairs of finite states.
    """

    covariance: Floats
    pairs: Ints

    @property
    def correlation(self) -> Floats:
        """The same over its value at lag 0; NaN where nothing moves."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.covariance / (self.covariance[0] if self.covariance[0] > 0 else np.nan)


def from_states(series: Series, flat: Filter, spans: list[Span], lags: int) -> Lagged:
    """Sum over the columns of some spans."""
    return correlate((flat.apply(block) for block in series.columns(spans)), flat, lags)


def correlate(blocks: Iterable[Floats], flat: Filter, lags: int) -> Lagged:
    """Sum over blocks (T', p) of filtered columns."""
    length = _length(len(flat.fine) + lags)
    power = np.zeros(length // 2 + 1)
    for block in blocks:
        spectrum = np.fft.rfft(block, length, axis=0)
        power += (spectrum.real**2 + spectrum.imag**2).sum(axis=1)
    sums = np.fft.irfft(power, length)[: lags + 1]
    pairs = _pairs(flat, lags)
    return Lagged(_over(sums, pairs), pairs)


def gram_of(series: Series, flat: Filter, spans: list[Span]) -> Floats:
    """Scalar products of all pairs of filtered states, (T', T')."""
    count = len(flat.fine)
    check_gram(count)
    gram = np.zeros((count, count))
    for block in series.columns(spans):
        filtered = flat.apply(block)
        gram += filtered @ filtered.T
    return gram


def from_distances(series: Series, flat: Filter) -> Floats:
    """Scalar products of all pairs of filtered states from their Euclidean distances, (T', T')."""
    if series.states.metric not in EUCLIDEAN:
        raise DataError(
            f"these are distances in the metric {series.states.metric!r}; only Euclidean ones (l2, rms) hold the "
            "scalar products of the states. Give the states, or pairwise(x, metric='l2')"
        )
    check_gram(len(series))
    square = np.asarray(series.states.read(series.rows.start, series.rows.stop))[:, series.rows] ** 2
    square = np.where(series.fine[:, None] & series.fine, square, 0.0)
    # Any filter takes out the mean, so the rows' and columns' parts of -d^2 / 2 vanish by themselves where none is
    # missing; where states are missing they must be taken out before the filter sees zeros in their place.
    first = int(np.argmax(series.fine))
    gram = -0.5 * (square - square[first] - square[:, first : first + 1])
    gram = np.where(series.fine[:, None] & series.fine, gram, 0.0)
    return flat.apply(flat.apply(gram).T)


def along_lags(gram: Floats, flat: Filter, lags: int, order: Ints | None = None) -> Lagged:
    """Sum a Gram matrix along its diagonals, with the states taken in another order."""
    count = len(gram)
    index = np.arange(count) if order is None else order
    sums = np.array([gram[index[: count - lag], index[lag:]].sum() for lag in range(lags + 1)])
    pairs = _pairs(flat, lags)
    return Lagged(_over(sums, pairs), pairs)


def check_gram(count: int) -> None:
    """Refuse a matrix of all pairs that does not fit."""
    if 8 * count * count > GRAM_BYTES:
        raise TooLargeError(
            f"the products of all pairs of {count} states take {8 * count * count / 2**30:.1f} GiB, the limit is "
            f"{GRAM_BYTES / 2**30:.0f} GiB; select fewer states (window, every k-th) or give null=None"
        )


def _pairs(flat: Filter, lags: int) -> Ints:
    fine = flat.fine.astype(np.float64)
    length = _length(len(fine) + lags)
    return np.rint(np.fft.irfft(np.abs(np.fft.rfft(fine, length)) ** 2, length)[: lags + 1]).astype(np.int64)


def _over(sums: Floats, pairs: Ints) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, sums / pairs, np.nan)


def _length(least: int) -> int:
    from scipy.fft import next_fast_len

    return int(next_fast_len(least, real=True))
