"""Network autocorrelation: how similar a trajectory of networks is to itself some time later."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, UnknownNameError
from trajtools.lagged.filters import Filter, make_filter
from trajtools.lagged.nulls import Null, draw_from_gram, draw_from_states, null_of
from trajtools.lagged.products import Lagged, along_lags, from_distances, from_states
from trajtools.lagged.series import Series, series_of
from trajtools.results.correlation import Autocorrelation
from trajtools.types import Floats

Span = tuple[int, int]

FLOOR_FACTOR = 10.0
GROUPINGS = ("layer", "parameter", "kind")


def autocorrelation(
    x: Any,
    *,
    lags: int | None = None,
    detrend: str | int | None = None,
    window: tuple[int, int] | None = None,
    per: str | None = None,
    correct: bool = False,
    null: str | None = "shuffle",
    surrogates: int = 199,
    block: int = 1,
    level: float = 0.95,
    rng: Any = 0,
) -> Autocorrelation:
    r"""Autocorrelation of a trajectory of networks, or of a scalar series.

    Parameters
    ----------
    x : Trajectory, ndarray (T, P) or (T,), or Distances
        States; a series such as the loss; or their Euclidean distances, from which the same numbers follow.
    lags : int or None, in states
        Largest lag; None: a quarter of the states.
    detrend : None, "linear", "quadratic", "difference" or int
        What is taken out of every weight besides its mean, for training that drifts: a polynomial in time, everything
        but the steps from state to state, or the running mean over an odd number of states.
    window : (int, int) or None
        Use only the states whose step s fulfils ``window[0] <= s < window[1]``.
    per : None, "layer", "parameter" or "kind"
        Also give the values of each layer (what stands before the last dot of the parameters' names), parameter or
        kind of parameter.
    correct : bool
        Correct the bias of an uncorrelated trajectory; see Notes.
    null : None, "shuffle" or "block"
        What the values are compared with: the states in random order, or blocks of `block` states in random order
        (no memory beyond a block).
    surrogates : int
        Number of shuffles.
    block : int, in states
        Length of the blocks of ``null="block"``.
    level : float
        Level of the band and of the threshold.
    rng : int, numpy.random.Generator or None
        Source of the shuffles; the same seed gives the same bits.

    Returns
    -------
    Autocorrelation

    Raises
    ------
    DataError
        If there are fewer than four finite states, they are not equally spaced, or distances are not Euclidean.
    SelectionError
        If no state lies in the window.
    UnknownNameError
        If there is no such filter, null or grouping.
    TooLargeError
        If the null needs the products of too many pairs of states.

    Notes
    -----
    With the centred states :math:`\tilde A(t) = A(t) - \frac1T \sum_s A(s)`, as in [1]_,

    .. math:: C(\tau) = \frac{1}{T-\tau} \sum_t \tilde A(t) \tilde A(t+\tau)^\mathsf{T}, \qquad
        \mathrm{nACF}(\tau) = \frac{\operatorname{tr} C(\tau)}{\operatorname{tr} C(0)}

    which is the sum of the autocovariances of all weights over the sum of their variances. States that are not finite
    are left out, and every sum is divided by the pairs that are left.

    The mean is estimated from the same T states, so that the states of an uncorrelated trajectory have the correlation
    :math:`-1/(T-1)` at every lag; `correct` gives :math:`((T-1) r + 1) / T`, which has none. Memory makes the bias
    larger: about minus the variance of the mean over that of the states.

    Surrogates with the same power spectrum (phase randomised) have the same autocorrelation and cannot be its null.

    References
    ----------
    .. [1] L. Lacasa, J. P. Rodriguez, V. M. Eguiluz, Phys. Rev. Research 4, L042008 (2022),
       doi:10.1103/PhysRevResearch.4.L042008

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.tile([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], (40, 1))
    >>> tt.autocorrelation(x, lags=3).values.round(3).tolist()
    [1.0, -0.502, -0.498, 1.0]
    """
    if per is not None and per not in GROUPINGS:
        raise UnknownNameError(f"there is no grouping {per!r}; there are {', '.join(map(repr, GROUPINGS))}, and None")
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    series = series_of(x, window)
    flat = make_filter(detrend, series.fine)
    count = _lags(lags, len(flat.fine))
    generator = np.random.default_rng(rng)
    chosen = {"null": null, "surrogates": surrogates, "block": block, "level": level, "rng": generator}
    whole, band = _measure(series, flat, [(0, series.width)], count, chosen)
    groups = _groups(x, per) if per is not None else {}
    parts = [_measure(series, flat, spans, count, chosen) for spans in groups.values()]
    states = int(flat.fine.sum())
    values, low, high = (_corrected(v, states, correct) for v in (whole.correlation, band.low, band.high))
    empty = np.empty((0, count + 1))
    return Autocorrelation(
        lag=np.arange(count + 1),
        time=np.asarray(np.arange(count + 1) * series.spacing, dtype=np.float64),
        time_unit=series.time_unit,
        values=values,
        pairs=whole.pairs,
        variance=float(whole.covariance[0]),
        bias=0.0 if correct else -1.0 / (states - 1),
        low=low,
        high=high,
        threshold=band.threshold,
        p_value=band.p_value,
        null=band.words,
        layers=tuple(groups),
        layer_values=np.array([_corrected(p[0].correlation, states, correct) for p in parts]) if parts else empty,
        layer_low=np.array([_corrected(p[1].low, states, correct) for p in parts]) if parts else empty,
        layer_high=np.array([_corrected(p[1].high, states, correct) for p in parts]) if parts else empty,
        n_states=len(series),
        n_excluded=int((~series.fine).sum()),
        settings={
            "lags": count,
            "detrend": detrend,
            "window": window,
            "per": per,
            "correct": correct,
            "null": null,
            "surrogates": surrogates if null else 0,
            "block": block,
            "level": level,
            "spacing": series.spacing,
        },
        warnings=_warnings(series, whole, count),
    )


def _measure(series: Series, flat: Filter, spans: list[Span], lags: int, chosen: dict[str, Any]) -> tuple[Lagged, Null]:
    """Autocovariances of some columns, and their null."""
    if isinstance(series.states, Distances):
        gram = from_distances(series, flat)
        found, draw = along_lags(gram, flat, lags), draw_from_gram(gram, flat, lags)
    else:
        found, draw = from_states(series, flat, spans, lags), None
    moves = bool(found.covariance[0] > 0)
    if chosen["null"] is None or not moves:
        unknown = np.full(lags + 1, np.nan)
        return found, Null(unknown, unknown, float("nan"), float("nan"), "")
    if draw is None:
        draw = draw_from_states(series, flat, spans, lags)
    return found, null_of(
        chosen["null"],
        found.correlation,
        draw,
        flat=flat,
        surrogates=chosen["surrogates"],
        block=chosen["block"],
        level=chosen["level"],
        rng=chosen["rng"],
    )


def _lags(lags: int | None, states: int) -> int:
    if lags is None:
        return max(1, states // 4)
    if not 1 <= lags < states:
        raise DataError(f"lags is {lags}; {states} states have lags from 1 to {states - 1}")
    return int(lags)


def _corrected(values: Floats, states: int, correct: bool) -> Floats:
    return ((states - 1) * values + 1) / states if correct else values


def _groups(x: Any, per: str) -> dict[str, list[Span]]:
    """Columns of each layer, parameter or kind."""
    parameters = getattr(x, "parameters", ())
    if not parameters:
        raise DataError(
            f"per={per!r} needs a trajectory that knows its parameters; run.trajectory() does, an array or distances "
            "do not: give Trajectory.from_array(x, parameters=...)"
        )
    groups: dict[str, list[Span]] = {}
    for p in parameters:
        layer = p.name.removesuffix(":0").replace("/", ".").rpartition(".")[0] or p.name
        name = {"layer": layer, "parameter": p.name, "kind": p.kind}[per]
        groups.setdefault(name, []).append((p.offset, p.offset + p.size))
    return groups


def _warnings(series: Series, found: Lagged, lags: int) -> tuple[str, ...]:
    words = []
    excluded = int((~series.fine).sum())
    if excluded:
        words.append(f"{excluded} of {len(series)} states are not finite and were left out")
    if not found.covariance[0] > 0:
        words.append("nothing moves: all states are equal after what was taken out, and nothing can be correlated")
    elif series.variance_of_rounding() * FLOOR_FACTOR > found.covariance[0]:
        words.append(
            f"the variance, {found.covariance[0]:.3g}, is near that of rounding alone, "
            f"{series.variance_of_rounding():.3g}: what is correlated may be rounding"
        )
    if 4 * lags > len(series):
        words.append(
            f"lags above a quarter of the {len(series)} states are means of few independent pairs; do not read single "
            "values there"
        )
    return tuple(words)
