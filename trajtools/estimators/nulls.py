"""Is the trajectory more predictable than a null that it could have come from?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trajtools.embedding import embed
from trajtools.errors import DataError
from trajtools.optimizers import Optimizer
from trajtools.surrogates import BASIN, PLAIN, STATIONARY, WORDS, fit_basin, matched_ends, rank_p, surrogate
from trajtools.types import Floats, Ints

MOST_STATES = 3000  # that are compared with surrogates
REFERENCES = 500
LAGS = 24


@dataclass(frozen=True, eq=False)
class Tested:
    """A comparison with surrogates.

    Attributes
    ----------
    p_value : float
        ``(k + 1) / (n + 1)``; NaN where nothing was compared.
    name, words : str
        The null; empty where nothing was compared.
    settings : dict
        What was compared.
    """

    p_value: float = float("nan")
    name: str = ""
    words: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def against_surrogates(
    series: Floats,
    null: str,
    *,
    embedding: tuple[int, int],
    theiler: int,
    horizon: int,
    count: int,
    rng: np.random.Generator,
    optimizer: Optimizer = PLAIN,
) -> Tested:
    """Compare how long neighbours stay close with what surrogates do.

    Parameters
    ----------
    series : ndarray of float64, shape (T, c)
        Record, not embedded.
    null : str
        A null of `trajtools.surrogates`, or ``"auto"``: ``"iaaft"`` of a series, else ``"phase-randomised"``.
    embedding : (int, int)
        Dimension and delay.
    theiler, horizon : int, in samples
        As used for the record.
    count : int
        Surrogates.

    rng : numpy.random.Generator
        Source of draws.
    optimizer : Optimizer
        Of the training, for ``"quadratic-basin"``.

    Returns
    -------
    Tested
        NaN where the record has no finite stretch that is long enough.

    Notes
    -----
    The statistic is the mean over the lags up to saturation of minus the mean logarithm of the distance between
    nearest neighbours, of a stretch of at most `MOST_STATES` states; its ends are matched for the stationary nulls.
    It is the area under the same curve that the exponent is read from: chaos keeps close what a stochastic process with
    the same spectrum separates.
    """
    part = _longest_finite(series)[: MOST_STATES + (embedding[0] - 1) * embedding[1]]
    name = null
    if null == "auto":
        name = "phase-randomised" if part.shape[1] > 1 else "iaaft"
    if len(part) < 64:
        return Tested(settings={"tested_states": len(part)})
    if name in STATIONARY:
        part = part[matched_ends(part)]
    draw, words, fitted = _source(part, name, optimizer)
    lags, curve = _separation(part, embedding, theiler, horizon)
    curves = [_separation(draw(rng), embedding, theiler, horizon)[1] for _ in range(count)]
    value, drawn = _closeness(curve), np.array([_closeness(one) for one in curves])
    settings = {
        "tested_states": len(part),
        "surrogates": count,
        "statistic": "minus the mean log distance of nearest neighbours over the lags up to saturation",
        "statistic_value": value,
        "statistic_of_surrogates": np.quantile(drawn, [0, 0.05, 0.5, 0.95, 1]) if np.isfinite(drawn).all() else drawn,
        "null_band": _band(lags, curve, np.array(curves)),
        **fitted,
    }
    return Tested(rank_p(value, drawn), name, words, settings)


def _source(
    part: Floats, null: str, optimizer: Optimizer
) -> tuple[Callable[[np.random.Generator], Floats], str, dict[str, Any]]:
    """What draws a record, the null in words, and what of it was fitted."""
    if null != BASIN:
        return lambda rng: surrogate(part, null, rng=rng), WORDS[null], {}
    basin = fit_basin(part, optimizer)  # once, for all surrogates
    fitted = {"basin_rates": basin.rates, "basin_momentum": optimizer.momentum, "basin_nesterov": optimizer.nesterov}
    return basin.draw, WORDS[null].replace("gradient descent", optimizer.words), fitted


def _longest_finite(series: Floats) -> Floats:
    broken = np.flatnonzero(~np.isfinite(series).all(axis=1))
    edges = np.concatenate([[-1], broken, [len(series)]])
    at = int(np.argmax(np.diff(edges)))
    return series[edges[at] + 1 : edges[at + 1]]


def _closeness(curve: Floats) -> float:
    known = curve[np.isfinite(curve)]
    return -float(known.mean()) if len(known) else float("nan")


def _band(lags: Ints, curve: Floats, curves: Floats) -> dict[str, Floats | Ints]:
    """Curve of the record and the middle 90 % of those of the surrogates, as natural logarithms; lags in samples."""
    known = curves[np.isfinite(curves).all(axis=1)]
    nothing = np.full(len(lags), np.nan)
    low, high = np.quantile(known, [0.05, 0.95], axis=0) if len(known) else (nothing, nothing)
    return {"lag": lags, "record": curve, "low": low, "high": high}


def _separation(part: Floats, embedding: tuple[int, int], theiler: int, horizon: int) -> tuple[Ints, Floats]:
    """Mean logarithm of the distance between nearest neighbours against the lag; NaN where there is none."""
    from trajtools.neighbors.rules import NearestK
    from trajtools.neighbors.search import find_nearest

    states = embed(part, *embedding) if embedding[0] > 1 else part
    horizon = min(horizon, len(states) // 4)
    lags = np.unique(np.linspace(0, horizon, LAGS).astype(np.int64))
    curve = np.full(len(lags), np.nan)
    try:
        found = find_nearest(states, neighbors=NearestK(1), theiler=theiler, horizon=horizon)
    except DataError:
        return lags, curve
    i = np.flatnonzero(found.index[:, 0] >= 0)
    if not len(i):
        return lags, curve
    i = i[:: max(1, len(i) // REFERENCES)]
    j = found.index[i, 0]
    for place, lag in enumerate(lags):
        gaps = np.sqrt(np.sum((states[i + lag] - states[j + lag]) ** 2, axis=1))
        gaps = gaps[gaps > 0]
        if len(gaps):
            curve[place] = float(np.mean(np.log(gaps)))
    return lags, curve
