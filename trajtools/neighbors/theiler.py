"""Theiler window: the smallest separation in time of neighbours, from states or from distances."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from trajtools.errors import DataError, UnknownNameError
from trajtools.inputs import takes_states
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.statistics import largest_finite, unit_scale
from trajtools.trajectory import StatesLike
from trajtools.types import Floats, Ints

E_FOLD = float(np.exp(-1))
PROJECTED = 32  # dimensions of the random projection of states with more than twice as many
_LONGEST_LAG = 1000
_FEWEST = 20  # states for a time scale


@dataclass(frozen=True, eq=False, repr=False)
class Choice(Result):
    """A parameter chosen from data.

    Attributes
    ----------
    quantity : str
        ``"delay"``, ``"dimension"`` or ``"theiler"``.
    value : int
        The chosen value; delays and windows in samples.
    method : str
        Name of the statistic.
    argument : ndarray of float64, shape (n,)
        Arguments of the statistic: lags in samples, or dimensions.
    statistic : ndarray of float64, shape (n,)
        Values of the statistic.
    reason : str
        The rule, with its numbers.
    settings : dict
        Every parameter used.
    warnings : tuple of Reason
        Warnings about the choice.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> choice = tt.embedding.estimate_delay(x)
    >>> choice.quantity, choice.method
    ('delay', 'mutual-information')
    """

    quantity: str
    value: int
    method: str
    argument: Floats
    statistic: Floats
    reason: str
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {"statistic": ("argument",)}

    def _sentence(self) -> str:
        return f"{self.quantity} {self.value}, by {self.method}: {self.reason}"


@takes_states("x")
def theiler_window(x: StatesLike, *, method: str = "autocorrelation", max_lag: int | None = None) -> Choice:
    """Theiler window: the smallest separation in time at which close states count as recurrence.

    Parameters
    ----------
    x : array_like, shape (N,) or (N, d)
        Series or states.
    method : str
        ``"autocorrelation"``: three times the first lag where the autocorrelation of every coordinate is below 1/e.
        ``"space-time-separation"``: first lag where the 10 % quantile of the distances of pairs at that lag reaches
        half its largest value over all lags (Provenzale et al. 1992).
    max_lag : int or None, in samples
        Longest lag considered; None: a fifth of the series, at most 1000.

    Returns
    -------
    Choice
        The window, in samples: pairs with ``abs(i - j) < value`` are not neighbours.

    Raises
    ------
    UnknownNameError, DataError
        For an unknown method, or a series that is too short or constant.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.sin(2 * np.pi * np.arange(800) / 40)
    >>> theiler_window(x).value >= 10
    True
    """
    if method not in ("autocorrelation", "space-time-separation"):
        raise UnknownNameError(
            f"there is no method {method!r}; there are 'autocorrelation' and 'space-time-separation'"
        )
    states = scaled(as_series(x, channels=True))
    states = states[:, np.nanmax(states, axis=0) > np.nanmin(states, axis=0)]
    if not states.shape[1]:
        raise DataError("every coordinate is constant, so there is no time scale")
    longest = longest_lag(states[:, 0], max_lag, share=5)
    lags = np.arange(longest + 1, dtype=np.float64)
    settings = {"max_lag": longest, "n": len(states)}
    if method == "autocorrelation":
        slowest = np.stack([lagged_autocorrelation(column, longest) for column in states.T]).max(axis=0)
        lag, reason, warnings = first_below(slowest, E_FOLD, "every autocorrelation is below 1/e")
        return Choice("theiler", max(1, 3 * lag), method, lags, slowest, f"3 times: {reason}", settings, warnings)
    curve = _separation(states, longest)
    plateau = float(np.nanmax(curve)) / 2
    lag = int(np.argmax(curve >= plateau))
    reason = f"the 10 % quantile of the distances passes half its largest value at lag {lag}"
    warnings = ()
    if np.nanargmax(curve) > 0.9 * longest:
        text = "the distances still grow at lag {lag}: drift, not recurrence"
        warnings = (Reason.of("drift", text, lag=longest),)
    return Choice("theiler", max(1, lag), method, lags, curve, reason, settings, warnings)


def as_series(x: Any, channels: bool = False) -> Floats:
    """Convert a series to float64, (N, c)."""
    series = np.asarray(x, dtype=np.float64)
    if series.ndim == 1:
        series = series[:, None]
    if series.ndim != 2 or (series.shape[1] != 1 and not channels):
        kind = "(N,) or (N, c)" if channels else "(N,)"
        raise DataError(f"a series has shape {kind}; got {np.shape(x)}")
    if not len(series):
        raise DataError("the series is empty")
    return series


def scaled(series: Floats) -> Floats:
    """Scale a series whose squares would over- or underflow; time scales and dimensions do not depend on it."""
    scale = unit_scale(largest_finite(series))
    return series if scale == 1.0 else series * scale


def longest_lag(series: Floats, max_lag: int | None, share: int = 10) -> int:
    """Longest lag of an analysis; raises an error if the series has no time scale."""
    finite = int(np.isfinite(series).sum())
    if finite < 20:
        raise DataError(f"{finite} finite samples are too few to estimate a time scale; 20 or more are needed")
    if np.nanmin(np.where(np.isfinite(series), series, np.nan)) == np.nanmax(
        np.where(np.isfinite(series), series, np.nan)
    ):
        raise DataError("the series is constant, so it has no time scale")
    return max(2, min(max_lag or min(len(series) // share, 1000), len(series) - 2))


def _separation(states: Floats, longest: int) -> Floats:
    """10 % quantile of the distance at lags 0 .. longest, from at most 2000 pairs per lag."""
    curve = np.zeros(longest + 1)
    for lag in range(1, longest + 1):
        i = np.unique(np.linspace(0, len(states) - lag - 1, min(2000, len(states) - lag)).astype(np.int64))
        gaps = np.sqrt(np.sum((states[i + lag] - states[i]) ** 2, axis=1))
        gaps = gaps[np.isfinite(gaps)]
        curve[lag] = np.quantile(gaps, 0.1) if len(gaps) else np.nan
    return curve


def first_below(curve: Floats, level: float, rule: str) -> tuple[int, str, tuple[Reason, ...]]:
    """First lag at which a curve is below a level, the rule, and a warning if there is none."""
    below = curve < level
    if below.any():
        lag = int(np.argmax(below))
        return lag, f"{rule} from lag {lag} on", ()
    lag = len(curve) - 1
    drift = Reason.of("drift", "{rule} at no lag up to {lag}: the series may drift", rule=rule, lag=lag)
    return lag, f"{rule} at no lag up to {lag}", (drift,)


def lagged_autocorrelation(series: Floats, longest: int) -> Floats:
    """Autocorrelation at lags 0 .. longest, over the finite pairs at each lag."""
    good, series = np.isfinite(series), scaled(series)
    centred = np.where(good, series - series[good].mean(), 0.0)
    size = 1 << (len(series) + longest).bit_length()  # longer lags may wrap around

    def correlate(values: Floats) -> Floats:
        return np.fft.irfft(np.abs(np.fft.rfft(values, size)) ** 2, size)[: longest + 1]

    with np.errstate(invalid="ignore", divide="ignore"):
        whole = bool(good.all())
        pairs = len(series) - np.arange(longest + 1) if whole else np.round(correlate(good.astype(np.float64)))
        covariance = correlate(centred) / pairs
    return covariance / covariance[0]


def choose_window(array: Floats, *, distances: bool) -> tuple[int, str]:
    """Theiler window of `trajtools.lyapunov`, from states (T, d) or distances (T, T), and its reason."""
    none = 1, f"fewer than {_FEWEST} states, or all equal: no time scale"
    if distances:
        usable = np.flatnonzero(np.count_nonzero(np.isfinite(array), axis=1) > 1)
        if len(usable) < _FEWEST or not np.nanmax(array[usable]) > 0:
            return none
        largest = float(np.max(array, initial=0.0, where=np.isfinite(array)))
        choice = distance_window(array / largest, usable)
        return clipped(choice.value, len(array)), choice.reason
    finite = np.asarray(np.isfinite(array).all(axis=1))
    if np.count_nonzero(finite) < _FEWEST or not np.any(array[finite] != array[finite][0]):
        return none
    largest = float(np.abs(array[finite]).max())
    states = np.where(finite[:, None], array if 1e-100 < largest < 1e100 else array / largest, np.nan)
    choice = theiler_window(projected(states))
    return clipped(choice.value, len(array)), choice.reason


def distance_window(matrix: Floats, usable: Ints) -> Choice:
    r"""Theiler window from distances: three times the correlation time.

    Notes
    -----
    .. math:: C(k) = 1 - \langle d(t, t + k)^2 \rangle_t \, / \, \langle d(s, t)^2 \rangle_{s,t}

    which for Euclidean distances is the autocorrelation of the states.
    """
    longest = max(2, min(len(matrix) // 5, _LONGEST_LAG))
    typical = float(np.mean([_mean_square(matrix[i, usable]) for i in usable[:: max(1, len(usable) // 2000)]]))
    lags = np.arange(longest + 1, dtype=np.float64)
    curve = 1 - np.array([_mean_square(np.diagonal(matrix, k)) for k in range(longest + 1)]) / typical
    below = np.flatnonzero(curve < np.exp(-1.0))
    lag = int(below[0]) if len(below) else longest
    text = "the autocorrelation is not below 1/e up to lag {lag}: the trajectory may drift"
    warnings = () if len(below) else (Reason.of("drift", text, lag=longest),)
    reason = f"3 times: the autocorrelation of the states is below 1/e from lag {lag} on"
    return Choice("theiler", max(1, 3 * lag), "mean squared displacement", lags, curve, reason, {}, warnings)


def _mean_square(distances: Floats) -> float:
    known = distances[np.isfinite(distances)]
    return float(np.mean(known**2)) if len(known) else float("nan")


def projected(states: Floats) -> Floats:
    """Fixed random projection of high-dimensional states, which preserves distances to about 10 %."""
    if states.shape[1] <= 2 * PROJECTED:
        return states
    rng = np.random.default_rng(0)
    small = np.zeros((len(states), PROJECTED))
    for begin in range(0, states.shape[1], 4096):
        part = states[:, begin : begin + 4096]
        small += part @ rng.standard_normal((part.shape[1], PROJECTED))
    return small / np.sqrt(PROJECTED)


def clipped(window: int, length: int) -> int:
    """Limit the window to an eighth of the record."""
    return min(window, max(length // 8, 1))
