"""Delay embedding; delay, dimension and Theiler window estimated from the data, with their statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, UnknownNameError
from trajtools.inputs import takes_states
from trajtools.neighbors.theiler import (
    E_FOLD,
    Choice,
    as_series,
    first_below,
    lagged_autocorrelation,
    longest_lag,
    scaled,
    theiler_window,
)
from trajtools.reasons import Reason
from trajtools.trajectory import StatesLike
from trajtools.types import Floats, Ints

__all__ = ["Choice", "embed", "estimate_delay", "estimate_dimension", "theiler_window"]
_SIGNIFICANCE = 0.01
_MOST_PAIRS = 2**17  # in the mutual information at one lag
_FIRST_LAGS = 64  # of the mutual information, doubled until they decide
_NOWHERE = 2**31
CURVE = 0.45  # of the information at lag 0: a closed curve keeps more at every lag, chaos and noise less
FEWEST_SAMPLES = 30  # for a dimension, besides those that an embedding loses
DIMENSIONS = 10  # considered by default


@takes_states("x")
def embed(x: StatesLike, dim: int, delay: int = 1) -> Floats:
    r"""Delay vectors of a series (Takens 1981).

    Parameters
    ----------
    x : array_like, shape (N,) or (N, c)
        The series; the channels are embedded separately and concatenated.
    dim : int
        Embedding dimension.
    delay : int, in samples
        Lag between successive entries.

    Returns
    -------
    ndarray of float64, shape (N - (dim - 1) delay, dim c)
        Row i is :math:`(x_i, x_{i+\tau}, \dots, x_{i+(m-1)\tau})`, oldest first.

    Raises
    ------
    DataError
        If dimension or delay is below one, or the series is too short.

    Examples
    --------
    >>> embed([0, 1, 2, 3, 4], dim=2, delay=3).tolist()
    [[0.0, 3.0], [1.0, 4.0]]
    """
    series = as_series(x, channels=True)
    if dim < 1 or delay < 1:
        raise DataError(f"dim and delay must be integers, 1 or more; got dim={dim} and delay={delay}")
    length = len(series) - (dim - 1) * delay
    if length < 1:
        raise DataError(
            f"{len(series)} samples are too few to embed with dim={dim} and delay={delay}, which needs "
            f"{(dim - 1) * delay + 1}; lower one of them"
        )
    return np.concatenate([series[k * delay : k * delay + length] for k in range(dim)], axis=1)


@takes_states("x")
def estimate_delay(x: StatesLike, *, method: str = "mutual-information", max_delay: int | None = None) -> Choice:
    """Embedding delay of a series, by mutual information or autocorrelation.

    Parameters
    ----------
    x : array_like, shape (N,)
        The series; pairs with a sample that is not finite are excluded.
    method : str
        ``"mutual-information"``: first minimum of the mutual information between the series and its shift
        (Fraser and Swinney 1986; bins of equal frequency), or the first lag where it falls below the 99 % level of
        independent samples, if that is smaller; 1 for a series that decorrelates within one sample, such as a map.
        On a closed curve (a sine) the information hardly falls, and its minima are ripples of the bins: then the first
        zero of the autocorrelation, a quarter of a period. Long series: the information of at most 131072 pairs a lag,
        spread over the whole series. Lags beyond those that decide are not computed.
        ``"autocorrelation"``: first lag where the autocorrelation is below 1/e.
    max_delay : int or None, in samples
        Longest delay considered; None: a tenth of the series, at most 1000.

    Returns
    -------
    Choice
        The delay, in samples, with the statistic (mutual information in nats).

    Raises
    ------
    UnknownNameError
        If there is no such method.
    DataError
        If the series is too short or constant.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.sin(2 * np.pi * np.arange(800) / 40)
    >>> estimate_delay(x, method="autocorrelation").value
    8
    """
    if method not in ("mutual-information", "autocorrelation"):
        raise UnknownNameError(f"there is no method {method!r}; there are 'mutual-information' and 'autocorrelation'")
    series = scaled(as_series(x)[:, 0])
    longest = longest_lag(series, max_delay)
    correlation = lagged_autocorrelation(series, longest)
    settings: dict[str, Any] = {"max_delay": longest, "n": len(series)}
    lags = np.arange(longest + 1, dtype=np.float64)
    if method == "autocorrelation":
        value, reason, warnings = first_below(correlation, E_FOLD, "the autocorrelation is below 1/e")
        return Choice("delay", max(value, 1), method, lags, correlation, reason, settings, warnings)
    information = _MutualInformation(series, longest)
    level, reach = information.level, max(1, int(np.argmax(correlation < E_FOLD)) // 4)
    settings |= {"level_of_independence": level, "pairs": information.pairs}
    crossing, last = _first_zero(correlation), min(_FIRST_LAGS, longest)
    while True:
        curve = information.until(last)
        closed = crossing and float(curve.min()) > CURVE * float(curve[0])
        minimum, independent = _first_minimum(curve, reach, longest), _first_at_most(curve, level)
        decided = minimum <= last or independent + reach <= last
        if last == longest or correlation[1] < E_FOLD or (decided and not closed):
            break
        last = min(2 * last, longest)
    warnings = ()
    if correlation[1] < E_FOLD:
        value, reason = 1, f"the autocorrelation is {correlation[1]:.2f} after one sample: sampled like a map"
    elif closed:
        value = crossing
        reason = (
            f"the mutual information stays above {CURVE:g} of its value at lag 0, as on a closed curve: first zero of "
            f"the autocorrelation, at lag {crossing}"
        )
    else:
        value = max(1, min(minimum, independent, longest))
        reason = f"first minimum of the mutual information at lag {value}"
        if independent < minimum:
            reason = f"the mutual information is that of independent samples from lag {value} on"
        elif minimum > longest:
            reason = f"no minimum of the mutual information up to lag {longest}"
            text = "the mutual information has no minimum up to {lag} samples; the series may drift"
            warnings = (Reason.of("drift", text, lag=longest),)
    return Choice("delay", value, method, lags[: len(curve)], curve, reason, settings, warnings)


def _first_zero(correlation: Floats) -> int:
    """Lag next to the first zero of the autocorrelation; 0 if there is none."""
    below = np.flatnonzero(correlation <= 0)
    if not len(below):
        return 0
    lag = int(below[0])
    return lag - 1 if lag > 1 and correlation[lag - 1] < -correlation[lag] else lag


class _MutualInformation:
    """Mutual information of a series and its shift, in nats, computed as far as needed.

    `level`: the 99 % level of independent samples; `pairs`: their number at lag 0.
    """

    def __init__(self, series: Floats, longest: int) -> None:
        from scipy.special import chdtri  # scipy.stats takes half a second to import

        good = np.isfinite(series)
        samples = int(good.sum())
        self._bins = int(np.clip(np.sqrt(samples / 5), 4, 32))
        order = np.empty(samples, dtype=np.int64)
        order[np.argsort(series[good], kind="stable")] = np.arange(samples)
        # The bin of each sample; of one that is not finite, and of the padding, one bin more, which is left out.
        self._binned = np.full(len(series) + longest, self._bins, dtype=np.int64)
        self._binned[: len(series)][good] = order * self._bins // samples
        self._first = _spread_out(len(series), _MOST_PAIRS)
        self._whole = len(self._first) == len(series)
        self._rows = self._binned[self._first] * (self._bins + 1)
        self._curve: list[float] = []
        # For independent samples 2 N I is chi-squared distributed (likelihood ratio test).
        self.pairs = min(samples, len(self._first))
        self.level = float(chdtri((self._bins - 1) ** 2, _SIGNIFICANCE) / (2 * self.pairs))

    def until(self, last: int) -> Floats:
        """Values at lags 0 .. last."""
        self._curve += [self._at(lag) for lag in range(len(self._curve), last + 1)]
        return np.array(self._curve)

    def _at(self, lag: int) -> float:
        bins, shifted = self._bins, self._binned[lag:]
        later = shifted[: len(self._rows)] if self._whole else shifted[self._first]
        counts = np.bincount(self._rows + later, minlength=(bins + 1) ** 2)
        inside = counts.reshape(bins + 1, bins + 1)[:bins, :bins]
        joint = inside / max(int(inside.sum()), 1)
        product = joint.sum(axis=1)[:, None] * joint.sum(axis=0)[None]
        positive = joint > 0
        return float(np.sum(joint[positive] * np.log(joint[positive] / product[positive])))


def _first_minimum(curve: Floats, reach: int, longest: int) -> int:
    """First lag with the lowest value within `reach`, because binning makes the curve noisy; else `longest` + 1."""
    known = len(curve) if len(curve) > longest else len(curve) - reach
    return next((lag for lag in range(1, min(known, longest)) if _is_lowest(curve, lag, reach)), longest + 1)


def _first_at_most(curve: Floats, level: float) -> int:
    """First lag with a value of at most `level`; far beyond the curve if there is none."""
    below = np.flatnonzero(curve <= level)
    return int(below[0]) if len(below) else _NOWHERE


def _spread_out(length: int, most: int) -> Ints:
    """All of 0 .. length, or about `most` that are spread out evenly but not periodically, ascending."""
    if length <= most:
        return np.arange(length)
    golden = (5**0.5 - 1) / 2  # equal steps would meet a periodic series at the same phases
    return np.unique((np.arange(most) * golden % 1.0 * length).astype(np.int64))


def _is_lowest(curve: Floats, at: int, reach: int) -> bool:
    around = curve[max(0, at - reach) : at + reach + 1]
    return bool(curve[at] == around.min() and curve[at] < curve[at - 1])


@takes_states("x")
def estimate_dimension(
    x: StatesLike,
    *,
    delay: int | None = None,
    method: str = "cao",
    max_dim: int | None = None,
    theiler: int | None = None,
    most: int = 5000,
) -> Choice:
    r"""Embedding dimension of a series, by Cao's method or false neighbours.

    Parameters
    ----------
    x : array_like, shape (N,)
        The series.
    delay : int or None, in samples
        Delay of the embedding; None: from the data, see `estimate_delay`.
    method : str
        ``"cao"``: smallest dimension from which E1 stays above 0.9 (Cao 1997, maximum norm).
        ``"false-neighbors"``: smallest dimension with at most 1 % false neighbours by the first and second criterion
        of Kennel, Brown and Abarbanel (1992), with tolerances 15 and 2.
    max_dim : int or None
        Largest dimension considered; None: 10, fewer for a short series.
    theiler : int or None, in samples
        Pairs closer in time are not neighbours; None: from the data, see `theiler_window`.
    most : int
        Only the first `most` samples of longer series are used.

    Returns
    -------
    Choice
        The dimension with the statistic: E1, or the fraction of false neighbours. ``settings["E2"]`` is Cao's E2,
        which is 1 in every dimension if the series is noise.

    Raises
    ------
    UnknownNameError, DataError
        For an unknown method, or too few samples.

    Examples
    --------
    >>> import numpy as np
    >>> from trajtools.systems import henon
    >>> x = henon().trajectory(1000, rng=0)[:, 0]
    >>> estimate_dimension(x, delay=1).value
    2
    """
    if method not in ("cao", "false-neighbors"):
        raise UnknownNameError(f"there is no method {method!r}; there are 'cao' and 'false-neighbors'")
    whole = scaled(as_series(x)[:, 0])
    delay = estimate_delay(whole).value if delay is None else delay
    series = whole[:most]
    finite = int(np.isfinite(series).sum())
    if max_dim is None:
        max_dim = int(np.clip((finite - FEWEST_SAMPLES) // max(delay, 1), 1, DIMENSIONS))
    needed = FEWEST_SAMPLES + max_dim * delay
    if finite < needed:
        raise DataError(
            f"{len(series)} samples ({finite} finite) are too few for the dimension {max_dim} with delay={delay}: "
            f"{needed} are needed"
        )
    if np.nanmin(series) == np.nanmax(series):
        raise DataError("the series is constant, so it has no dimension")
    window = theiler_window(series).value if theiler is None else theiler
    dims = np.arange(1, max_dim + 1, dtype=np.float64)
    settings: dict[str, Any] = {"delay": delay, "theiler": window, "n": len(series), "n_total": len(whole)}
    if method == "cao":
        e1, e2 = _cao(series, delay, max_dim, window)
        settings["E2"] = e2
        good = np.array([bool((e1[m:] > 0.9).all()) for m in range(max_dim)])
        value, warnings = _smallest(good, max_dim, "E1 does not stay above 0.9")
        if np.nanmax(np.abs(e2 - 1)) < 0.1:
            warnings += (Reason("noise", "E2 is 1 in every dimension: the series looks like noise"),)
        reason = f"E1 stays above 0.9 from dimension {value} on"
        return Choice("dimension", value, method, dims, e1, reason, settings, warnings)
    share = _false_neighbors(series, delay, max_dim, window)
    value, warnings = _smallest(share <= _SIGNIFICANCE, max_dim, "more than 1 % of the neighbours are false")
    reason = f"{share[value - 1]:.1%} of the neighbours are false in dimension {value}"
    return Choice("dimension", value, method, dims, share, reason, settings, warnings)


def _false_neighbors(series: Floats, delay: int, max_dim: int, theiler: int) -> Floats:
    spread = np.nanstd(series)
    share = np.empty(max_dim)
    for dim in range(1, max_dim + 1):
        i, j, near = _pairs(series, dim, delay, "l2", theiler)
        new = np.abs(series[i + dim * delay] - series[j + dim * delay])
        false = (new > 15 * near) | (np.hypot(near, new) > 2 * spread)
        share[dim - 1] = false.mean() if len(i) else np.nan
    return share


def _pairs(series: Floats, dim: int, delay: int, metric: str, theiler: int) -> tuple[NDArray[Any], ...]:
    """Indices i, nearest neighbours j and distances d(i, j) of the delay vectors that have one more entry."""
    from trajtools.neighbors.rules import NearestK
    from trajtools.neighbors.search import find_nearest

    length = len(series) - dim * delay
    vectors = embed(series, dim, delay)[:length]
    usable = np.isfinite(vectors).all(axis=1) & np.isfinite(series[dim * delay :])
    vectors = np.where(usable[:, None], vectors, np.nan)
    nearest = find_nearest(vectors, metric=metric, neighbors=NearestK(1), theiler=theiler)
    i = np.flatnonzero(nearest.index[:, 0] >= 0)
    return i, nearest.index[i, 0], nearest.distance[i, 0]


def _smallest(good: NDArray[np.bool_], max_dim: int, failure: str) -> tuple[int, tuple[Reason, ...]]:
    if good.any():
        return int(np.argmax(good)) + 1, ()
    text = "{failure} up to dimension {dimension}: noise, too few samples, or a higher dimension"
    return max_dim, (Reason.of("no-dimension", text, failure=failure, dimension=max_dim),)


def _cao(series: Floats, delay: int, max_dim: int, theiler: int) -> tuple[Floats, Floats]:
    growth, leap = np.empty(max_dim + 1), np.empty(max_dim + 1)
    for dim in range(1, max_dim + 2):
        i, j, near = _pairs(series, dim, delay, "linf", theiler)
        new = np.abs(series[i + dim * delay] - series[j + dim * delay])
        growth[dim - 1] = np.mean(np.maximum(near, new) / near) if len(i) else np.nan
        leap[dim - 1] = np.mean(new) if len(i) else np.nan
    return growth[1:] / growth[:-1], leap[1:] / leap[:-1]
