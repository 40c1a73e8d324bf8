"""How large a correlation would be if the order of the states meant nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.lagged.filters import Filter
from trajtools.lagged.products import GRAM_BYTES, along_lags, correlate, gram_of
from trajtools.lagged.series import Series, Span
from trajtools.types import Floats, Ints

NULLS = ("shuffle", "block")


@dataclass(frozen=True, eq=False)
class Null:
    """Correlations of shuffled states.

    Attributes
    ----------
    low, high : ndarray of float64, shape (L + 1,)
        Band at each lag.
    threshold : float
        The largest correlation at any lag > 0, of either sign, stays below it at the level of the band.
    p_value : float
        Probability of a largest correlation at least as large as the one observed.
    words : str
        The null.
    """

    low: Floats
    high: Floats
    threshold: float
    p_value: float
    words: str


def null_of(
    null: str,
    observed: Floats,
    draw: Callable[[Ints], Floats],
    *,
    flat: Filter,
    surrogates: int,
    block: int,
    level: float,
    rng: np.random.Generator,
) -> Null:
    """Correlate shuffled states."""
    if null in ("phase-randomised", "iaaft"):
        raise UnknownNameError(
            f"{null!r} keeps the power spectrum, and with it the autocorrelation itself: it says nothing here. Use "
            "'shuffle' (no memory at all) or 'block' (no memory beyond a block)"
        )
    if null not in NULLS:
        raise UnknownNameError(f"there is no null {null!r}; there are {', '.join(map(repr, NULLS))}, and None")
    if surrogates < 19:
        raise DataError(f"{surrogates} surrogates make no band; give at least 19")
    width = 1 if null == "shuffle" else block
    if not 1 <= width <= len(flat.fine) // 2:
        raise DataError(f"blocks of {width} states; {len(flat.fine)} states allow 1 to {len(flat.fine) // 2}")
    drawn = np.array([draw(order) for order in _orders(flat, width, surrogates, rng)])
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    low[0] = high[0] = 1.0
    first = width  # within a block the shuffled states are as correlated as they were
    largest = np.nanmax(np.abs(drawn[:, first:]), axis=1, initial=0.0)
    reached = np.nanmax(np.abs(observed[first:]), initial=0.0)
    p = (1 + int(np.sum(largest >= reached))) / (surrogates + 1)
    words = "states in random order" if null == "shuffle" else f"blocks of {width} states in random order"
    return Null(low, high, float(np.quantile(largest, level)), p, words)


def draw_from_states(series: Series, flat: Filter, spans: list[Span], lags: int) -> Callable[[Ints], Floats]:
    """Return what correlates the states in a given order, through whichever is cheaper: columns or a Gram matrix."""
    count, width = len(flat.fine), sum(b - a for a, b in spans)
    small = 8 * count * width <= GRAM_BYTES
    # Measured: a transform takes about log2(T) / 4 of the time of one lag of a Gram matrix, whose making is shared.
    if small and width * np.log2(max(count, 2)) < 4 * lags + count * width / 5000:
        columns = np.concatenate([flat.apply(block) for block in series.columns(spans)], axis=1)

        def by_columns(order: Ints) -> Floats:
            return correlate([columns[order]], flat, lags).correlation

        return by_columns
    return draw_from_gram(gram_of(series, flat, spans), flat, lags)


def draw_from_gram(gram: Floats, flat: Filter, lags: int) -> Callable[[Ints], Floats]:
    """Return what correlates the states in a given order, from their scalar products."""
    return lambda order: along_lags(gram, flat, lags, order).correlation


def _orders(flat: Filter, width: int, surrogates: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Orders of the states; missing ones keep their place."""
    fine = np.flatnonzero(flat.fine)
    edges = np.arange(width, len(fine), width)
    for _ in range(surrogates):
        order = np.arange(len(flat.fine))
        if width == 1:
            order[fine] = rng.permutation(fine)
        else:
            # A random phase of the blocks, so that no pair of states is always together.
            pieces = np.split(np.roll(fine, int(rng.integers(width))), edges)
            order[fine] = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
        yield order
