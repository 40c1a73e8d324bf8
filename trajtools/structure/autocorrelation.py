"""Network autocorrelation: the similarity of a trajectory of networks to itself at later times."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.equal_times import as_states, read_rows
from trajtools.distances.metric import METRICS, block_floor
from trajtools.distances.pairwise import Distances
from trajtools.distances.tiles import stored_format
from trajtools.errors import DataError, SelectionError, TooLargeError, UnknownNameError
from trajtools.inputs import takes_states
from trajtools.networks import Network
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.statistics import largest_finite, random_generator, unit_scale
from trajtools.trajectory import StatesLike, Trajectory
from trajtools.types import Bools, Floats, Ints, RNGLike
from trajtools.values import not_finite, training_steps
from trajtools.wording import counted, spoken, time_units

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DETRENDS = ("linear", "quadratic", "difference")
DEGREES = {"linear": 1, "quadratic": 2}
Span = tuple[int, int]
BLOCK_BYTES = 64 * 2**20
FEWEST = 4
GRAM_BYTES = 2**30
EUCLIDEAN = ("l2", "rms")
NULLS = ("shuffle", "block")
FLOOR_FACTOR = 10.0
GROUPINGS = ("layer", "parameter", "kind")
TENSOR_BYTES = 2**30


@dataclass(frozen=True, eq=False, repr=False)
class Autocorrelation(Result):
    """Autocorrelation of a trajectory of networks, or of a series.

    Attributes
    ----------
    lag : ndarray of int64, shape (L + 1,)
        Lags 0 .. L, in states.
    time : ndarray of float64, shape (L + 1,)
        The same in `time_unit`.
    time_unit : str
        Unit of `time`.
    values : ndarray of float64, shape (L + 1,)
        tr C(lag) / tr C(0); 1 at lag 0. NaN for a constant trajectory, and where no pair of finite states has this lag.
    pairs : ndarray of int64, shape (L + 1,)
        Number of pairs of states that each value averages.
    variance : float
        tr C(0): temporal variance, summed over the weights, in squared units of the weights.
    bias : float
        Expected value of an uncorrelated trajectory of this length at any lag > 0: -1 / (number of states - 1),
        or 0 after correction.
    low, high : ndarray of float64, shape (L + 1,)
        Band of the null at each lag; NaN without a null.
    threshold : float
        Critical value for the largest absolute value over all lags > 0, at the level of the band: a value beyond it is
        significant at any lag. NaN without a null.
    p_value : float
        Probability under the null of a largest value at least as large as observed; NaN without a null.
    null : str
        Description of the null; empty without one.
    layers : tuple of str
        Names of the layers (or parameters, or kinds), if `per` is set.
    layer_values, layer_low, layer_high : ndarray of float64, shape (len(layers), L + 1)
        The same for each of them.
    n_states, n_excluded : int
        States in the window, and excluded ones (not finite).
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> result = tt.autocorrelation(x, surrogates=19)
    >>> round(float(result.values[0]), 6), result.lag[:3].tolist()
    (1.0, [0, 1, 2])
    """

    lag: Ints
    time: Floats
    time_unit: str
    values: Floats
    pairs: Ints
    variance: float
    bias: float
    low: Floats
    high: Floats
    threshold: float
    p_value: float
    null: str
    layers: tuple[str, ...]
    layer_values: Floats
    layer_low: Floats
    layer_high: Floats
    n_states: int
    n_excluded: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "values": ("lag",),
        "time": ("lag",),
        "pairs": ("lag",),
        "low": ("lag",),
        "high": ("lag",),
        "layer_values": ("layers", "lag"),
    }

    def _sentence(self) -> str:
        text = f"{counted(self.n_states, 'state')}, lags to {spoken(float(self.time[-1]))} {time_units(self.time_unit)}"
        below = np.flatnonzero(self.values < np.exp(-1))
        text += f"; falls below 1/e at lag {spoken(float(self.time[below[0]]))}" if len(below) else "; stays above 1/e"
        if np.isfinite(self.p_value):
            text += f"; largest value at any lag: p = {self.p_value:.3g} against {self.null}"
        return text + "."

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the values and the band of the null; see `trajtools.plots.autocorrelation`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Axes to draw in; None: a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes of the plot.
        """
        from trajtools import plots

        return plots.autocorrelation(self, ax=ax)


@dataclass(frozen=True, eq=False, repr=False)
class NodeCorrelation(Result):
    """Correlations between the egonets of nodes at one lag.

    Attributes
    ----------
    lag : int
        In states.
    covariance : ndarray of float64, shape (N, N)
        C(lag): entry (i, j) is the mean over time of the product of row i of the centred adjacency matrix with row j
        `lag` states later.
    correlation : ndarray of float64, shape (N, N)
        The same over the root of the product of the variances of the two nodes; NaN for constant nodes.
    labels : tuple
        The nodes: numbers, or (node set, index).
    n_states, n_excluded : int
        States in the window, and excluded ones (not finite).
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> states = np.random.default_rng(0).standard_normal((50, 3, 3))
    >>> tt.structure.node_correlation(states, lag=1).correlation.shape
    (3, 3)
    """

    lag: int
    covariance: Floats
    correlation: Floats
    labels: tuple[Any, ...]
    n_states: int
    n_excluded: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {"correlation": ("node", "other"), "covariance": ("node", "other")}

    def _sentence(self) -> str:
        nodes = len(self.correlation)
        known = np.abs(self.correlation[np.isfinite(self.correlation)])
        middle = float(np.median(known)) if len(known) else float("nan")
        return f"{counted(nodes, 'node')} at lag {self.lag}, median absolute correlation {spoken(middle, 3)}."


@takes_states("x")
def autocorrelation(
    x: StatesLike | Distances,
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
    rng: RNGLike = None,
) -> Autocorrelation:
    r"""Autocorrelation of a trajectory of networks, or of a scalar series.

    Parameters
    ----------
    x : Trajectory, ndarray (T, P) or (T,), or Distances
        States; a series such as the loss; or Euclidean distances of states, which give the same numbers.
    lags : int or None, in states
        Largest lag; None: a quarter of the states.
    detrend : None, "linear", "quadratic", "difference" or int
        Removed from every weight besides its mean, for training that drifts: a polynomial in time, all but the steps
        between states, or the running mean over an odd number of states.
    window : (int, int) or None
        Use only states at steps s with ``window[0] <= s < window[1]``.
    per : None, "layer", "parameter" or "kind"
        Also compute the values of each layer (parameter names up to their last dot), parameter or kind of parameter.
    correct : bool
        Correct the bias of uncorrelated trajectories; see Notes.
    null : None, "shuffle" or "block"
        Null hypothesis: states in random order, or blocks of `block` states in random order (no memory beyond a block).
    surrogates : int
        Number of shuffles.
    block : int, in states
        Length of the blocks of ``null="block"``.
    level : float
        Confidence level of the band and of the threshold: the share of shuffles that stay within.
    rng : int, numpy.random.Generator or None
        Generator of the shuffles; None is the seed 0.

    Returns
    -------
    Autocorrelation

    Raises
    ------
    DataError
        If fewer than four states are finite, the states are not equally spaced, or distances are not Euclidean.
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
    are excluded, and every sum is divided by its number of pairs.

    The mean is estimated from the same T states, so the states of an uncorrelated trajectory have the correlation
    :math:`-1/(T-1)` at every lag; `correct` returns :math:`((T-1) r + 1) / T`, which is unbiased for them. Memory
    increases the bias, to about minus the variance of the mean over that of the states.

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
    generator = random_generator(rng)
    settings = {"null": null, "surrogates": surrogates, "block": block, "level": level, "rng": generator}
    whole, band = _measure(series, flat, [(0, series.width)], count, settings)
    groups = _groups(x, per) if per is not None else {}
    parts = [_measure(series, flat, spans, count, settings) for spans in groups.values()]
    states = int(flat.fine.sum())
    values, low, high = (_corrected(v, states, correct) for v in (whole.correlation, band.low, band.high))
    empty = np.empty((0, count + 1))
    return Autocorrelation(
        lag=np.arange(count + 1),
        time=np.asarray(np.arange(count + 1) * series.spacing, dtype=np.float64),
        time_unit=series.time_unit,
        values=values,
        pairs=whole.pairs,
        variance=float(whole.covariance[0]) / series.scale / series.scale,
        bias=0.0 if correct else -1.0 / (states - 1),
        low=low,
        high=high,
        threshold=band.threshold,
        p_value=band.p_value,
        null=band.text,
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


def series_of(x: Any, window: tuple[int, int] | None) -> Series:
    """Check the input and restrict it to the window."""
    states = x if isinstance(x, Distances) else as_states(x, "x")
    if isinstance(states, Distances) and not states.square:
        raise DataError(f"autocorrelation needs the square distances of one trajectory; got {states.shape}")
    step = np.asarray(getattr(states, "step", np.arange(len(states))), dtype=np.int64)
    rows = slice(0, len(step))
    if window is not None:
        inside = np.flatnonzero((step >= window[0]) & (step < window[1]))
        if not len(inside):
            span = f"the steps run from {step[0]} to {step[-1]}" if len(step) else "there is no state at all"
            raise SelectionError(f"no state lies in the window {window}; {span}")
        rows = slice(int(inside[0]), int(inside[-1]) + 1)
    step = step[rows]
    spacing = np.unique(np.diff(step))
    if len(spacing) > 1:
        raise DataError(
            f"the states are {spacing[0]} to {spacing[-1]} steps apart; a correlation at a lag needs equal spacing: "
            "select a window with equal spacing, or every k-th state"
        )
    fine, largest = _fine(states, rows)
    if fine.sum() < FEWEST:
        raise DataError(
            f"{counted(int(fine.sum()), 'finite state')} of {len(fine)}; a correlation needs at least {FEWEST}"
        )
    between = float(spacing[0]) if len(spacing) else 1.0
    return Series(
        states,
        rows,
        fine,
        between * float(getattr(states, "dt", 1.0)),
        str(getattr(states, "time_unit", "step")),
        unit_scale(largest),
    )


@dataclass(frozen=True, eq=False)
class Series:
    """A trajectory (or distances) whose states are equally spaced in time.

    Attributes
    ----------
    states : Trajectory, ndarray (T, P) or Distances
        The states, or their distances.
    rows : slice
        Rows in the window.
    fine : ndarray of bool, shape (T,)
        Which states are finite.
    spacing : float
        Time between two states.
    time_unit : str
        Unit of `spacing`.
    scale : float
        Power of two that multiplies all values, so that their squares neither overflow nor underflow.
    """

    states: Any
    rows: slice
    fine: Bools
    spacing: float
    time_unit: str
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.fine)

    @property
    def width(self) -> int:
        """Number of entries of a state."""
        return int(self.states.shape[1])

    def not_finite(self) -> tuple[Reason, ...]:
        """Say which states are left out because they are not finite."""
        step = training_steps(self.states)
        return not_finite(self.fine, step=None if step is None else step[self.rows])

    def variance_of_rounding(self) -> float:
        """Variance due to rounding of the stored states, scaled, summed over the entries; 0 if unknown."""
        states, first = self.states, self.rows.start + int(np.argmax(self.fine))
        if isinstance(states, Distances):
            floor = float(np.asarray(states.floor)[first])
        else:
            state = read_rows(states, first, first + 1)
            dtype = stored_format(states) if isinstance(states, Trajectory) else str(state.dtype)
            floor = float(block_floor(state[:, None], METRICS["l2"], dtype, state.shape[1])[0, 0])
        # The floor is the root mean square difference of two rounded copies.
        return (floor * self.scale) ** 2 / 2 if np.isfinite(floor) else 0.0

    def columns(self, spans: list[Span]) -> Iterator[Floats]:
        """Yield blocks (T, p) of columns as float64, scaled, minus the first finite state."""
        first = int(np.argmax(self.fine))
        wide = max(1, BLOCK_BYTES // (8 * max(len(self), 1)))
        for begin, end in spans:
            for start in range(begin, end, wide):
                block = _columns(self.states, self.rows, start, min(start + wide, end)).astype(np.float64)
                # Subtract before averaging: weights near 1 that move by 1e-8 keep all digits of their motion.
                block = np.where(self.fine[:, None], block, 0.0) * self.scale
                block -= block[first]
                block[~self.fine] = 0.0
                yield block


def _columns(states: Any, rows: slice, start: int, stop: int) -> NDArray[Any]:
    """Read some columns of all rows only: files store blocks of columns contiguously."""
    if isinstance(states, Trajectory):
        return states.read(rows.start, rows.stop, slice(start, stop))
    return np.asarray(read_rows(states, rows.start, rows.stop))[:, start:stop]


def _fine(states: Any, rows: slice) -> tuple[Bools, float]:
    """Which states are finite, and the largest magnitude in them."""
    if isinstance(states, Distances):
        finite = ~np.asarray(states.excluded, dtype=bool)[rows]
        first = rows.start + int(np.argmax(finite)) if finite.any() else rows.start
        return finite, largest_finite(np.asarray(states.read(first, first + 1))) if len(finite) else 0.0
    tall = max(1, BLOCK_BYTES // (8 * max(int(states.shape[1]), 1)))
    parts, largest = [np.zeros(0, dtype=bool)], 0.0
    for start in range(rows.start, rows.stop, tall):
        block = read_rows(states, start, min(start + tall, rows.stop))
        parts.append(np.isfinite(block).all(axis=1))
        largest = max(largest, largest_finite(block[parts[-1]]))
    return np.concatenate(parts), largest


def make_filter(detrend: str | int | None, fine: Bools) -> Filter:
    """Return the filter of a detrending."""
    if detrend is None:
        return Filter(_polynomial(0, fine), fine)
    if isinstance(detrend, str) and detrend in DEGREES:
        return Filter(_polynomial(DEGREES[detrend], fine), fine)
    if detrend == "difference":
        valid = fine[1:] & fine[:-1]
        centre = _polynomial(0, valid)
        return Filter(lambda x: centre(np.where(valid[:, None], np.diff(x, axis=0), 0.0)), valid)
    if isinstance(detrend, (int, np.integer)) and not isinstance(detrend, bool):
        return _running(int(detrend), fine)
    raise UnknownNameError(
        f"there is no detrending {detrend!r}; there are None, {', '.join(map(repr, DETRENDS))}, and an odd number of "
        "states, the width of the running mean"
    )


@dataclass(frozen=True, eq=False)
class Filter:
    """A linear filter along time.

    Attributes
    ----------
    apply : callable
        (T, p) -> (T', p), both with zeros for missing states; the output columns have zero mean.
    fine : ndarray of bool, shape (T',)
        Valid states after the filter.
    """

    apply: Callable[[Floats], Floats]
    fine: Bools


def _polynomial(degree: int, fine: Bools) -> Callable[[Floats], Floats]:
    if fine.sum() < degree + 2:
        raise DataError(
            f"too few finite states for a polynomial of degree {degree}: {int(fine.sum())}; pass more states"
        )
    time = np.linspace(-1, 1, len(fine))
    columns = np.where(fine[:, None], time[:, None] ** np.arange(degree + 1), 0.0)
    basis = np.linalg.qr(columns)[0]
    return lambda x: np.where(fine[:, None], x - basis @ (basis.T @ x), 0.0)


def _running(width: int, fine: Bools) -> Filter:
    if width < 3 or width % 2 == 0 or width > len(fine):
        raise DataError(
            f"a running mean over {width} of {len(fine)} states is not possible; pass an odd number from 3 to "
            f"{len(fine)}"
        )
    count = _window_sums(fine.astype(np.float64)[:, None], width)
    centre = _polynomial(0, fine)

    def apply(x: Floats) -> Floats:
        return centre(np.where(fine[:, None], x - _window_sums(x, width) / np.maximum(count, 1.0), 0.0))

    return Filter(apply, fine)


def _window_sums(x: Floats, width: int) -> Floats:
    """Sums over the window around each state, shorter at the ends."""
    half = width // 2
    total = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, axis=0)])
    index = np.arange(len(x))
    return total[np.minimum(index + half + 1, len(x))] - total[np.maximum(index - half, 0)]


def _lags(lags: int | None, states: int) -> int:
    if lags is None:
        return max(1, states // 4)
    if not 1 <= lags < states:
        raise DataError(f"lags={lags!r}; {states} states have lags from 1 to {states - 1}")
    return int(lags)


def _measure(
    series: Series, flat: Filter, spans: list[Span], lags: int, settings: dict[str, Any]
) -> tuple[Lagged, Null]:
    """Compute the autocovariances of some columns, and their null."""
    if isinstance(series.states, Distances):
        gram = from_distances(series, flat)
        lagged, draw = along_lags(gram, flat, lags), draw_from_gram(gram, flat, lags)
    else:
        lagged, draw = from_states(series, flat, spans, lags), None
    moves = bool(lagged.covariance[0] > 0)
    if settings["null"] is None or not moves:
        unknown = np.full(lags + 1, np.nan)
        return lagged, Null(unknown, unknown, float("nan"), float("nan"), "")
    if draw is None:
        draw = draw_from_states(series, flat, spans, lags)
    return lagged, null_of(
        settings["null"],
        lagged.correlation,
        draw,
        flat=flat,
        surrogates=settings["surrogates"],
        block=settings["block"],
        level=settings["level"],
        rng=settings["rng"],
    )


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
        """Covariance over its value at lag 0; NaN for a constant trajectory."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.covariance / (self.covariance[0] if self.covariance[0] > 0 else np.nan)


@dataclass(frozen=True, eq=False)
class Null:
    """Correlations of shuffled states.

    Attributes
    ----------
    low, high : ndarray of float64, shape (L + 1,)
        Band at each lag.
    threshold : float
        Quantile of the largest absolute correlation over all lags > 0, at the level of the band.
    p_value : float
        Probability of a largest correlation at least as large as observed.
    text : str
        Description of the null.
    """

    low: Floats
    high: Floats
    threshold: float
    p_value: float
    text: str


def from_distances(series: Series, flat: Filter) -> Floats:
    """Scalar products of all pairs of filtered states from their Euclidean distances, (T', T')."""
    if series.states.metric not in EUCLIDEAN:
        raise DataError(
            f"these are distances in the metric {series.states.metric!r}; only Euclidean ones (l2, rms) determine the "
            "scalar products of the states. Pass the states, or pairwise(x, metric='l2')"
        )
    check_gram(len(series))
    square = (np.asarray(series.states.read(series.rows.start, series.rows.stop))[:, series.rows] * series.scale) ** 2
    square = np.where(series.fine[:, None] & series.fine, square, 0.0)
    # Every filter removes the mean, so the row and column terms of -d^2 / 2 cancel without missing states; with missing
    # states they must be removed before the filter, which sees zeros in their place.
    first = int(np.argmax(series.fine))
    gram = -0.5 * (square - square[first] - square[:, first : first + 1])
    gram = np.where(series.fine[:, None] & series.fine, gram, 0.0)
    return flat.apply(flat.apply(gram).T)


def check_gram(count: int) -> None:
    """Raise if a matrix of all pairs of states exceeds the limit."""
    if 8 * count * count > GRAM_BYTES:
        raise TooLargeError(
            f"the products of all pairs of {count} states take {8 * count * count / 2**30:.1f} GiB, the limit is "
            f"{GRAM_BYTES / 2**30:.0f} GiB; select fewer states (window, every k-th) or pass null=None"
        )


def draw_from_states(series: Series, flat: Filter, spans: list[Span], lags: int) -> Callable[[Ints], Floats]:
    """Return a function that correlates permuted states, by columns or by a Gram matrix, whichever is cheaper."""
    count, width = len(flat.fine), sum(b - a for a, b in spans)
    small = 8 * count * width <= GRAM_BYTES
    # Measured: a transform costs about log2(T) / 4 of one lag of a Gram matrix, which is computed once.
    if small and width * np.log2(max(count, 2)) < 4 * lags + count * width / 5000:
        columns = np.concatenate([flat.apply(block) for block in series.columns(spans)], axis=1)

        def by_columns(order: Ints) -> Floats:
            return correlate([columns[order]], flat, lags).correlation

        return by_columns
    return draw_from_gram(gram_of(series, flat, spans), flat, lags)


def draw_from_gram(gram: Floats, flat: Filter, lags: int) -> Callable[[Ints], Floats]:
    """Return a function that correlates permuted states from their scalar products."""
    return lambda order: along_lags(gram, flat, lags, order).correlation


def along_lags(gram: Floats, flat: Filter, lags: int, order: Ints | None = None) -> Lagged:
    """Sum a Gram matrix along its diagonals, with permuted states."""
    count = len(gram)
    index = np.arange(count) if order is None else order
    sums = np.array([gram[index[: count - lag], index[lag:]].sum() for lag in range(lags + 1)])
    pairs = _pairs(flat, lags)
    return Lagged(_over(sums, pairs), pairs)


def _pairs(flat: Filter, lags: int) -> Ints:
    fine = flat.fine.astype(np.float64)
    length = _length(len(fine) + lags)
    return np.rint(np.fft.irfft(np.abs(np.fft.rfft(fine, length)) ** 2, length)[: lags + 1]).astype(np.int64)


def _length(least: int) -> int:
    from scipy.fft import next_fast_len

    return int(next_fast_len(least, real=True))


def _over(sums: Floats, pairs: Ints) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, sums / pairs, np.nan)


def gram_of(series: Series, flat: Filter, spans: list[Span]) -> Floats:
    """Scalar products of all pairs of filtered states, (T', T')."""
    count = len(flat.fine)
    check_gram(count)
    gram = np.zeros((count, count))
    for block in series.columns(spans):
        filtered = flat.apply(block)
        gram += filtered @ filtered.T
    return gram


def correlate(blocks: Iterable[Floats], flat: Filter, lags: int) -> Lagged:
    """Sum the autocovariances over blocks (T, p) of columns."""
    length = _length(len(flat.fine) + lags)
    power = np.zeros(length // 2 + 1)
    for block in blocks:
        spectrum = np.fft.rfft(block, length, axis=0)
        power += (spectrum.real**2 + spectrum.imag**2).sum(axis=1)
    sums = np.fft.irfft(power, length)[: lags + 1]
    pairs = _pairs(flat, lags)
    return Lagged(_over(sums, pairs), pairs)


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
    """Return the null distribution from shuffled states."""
    if null in ("phase-randomised", "iaaft"):
        raise UnknownNameError(
            f"{null!r} keeps the power spectrum, and so the autocorrelation itself, so it is no null. Use "
            "'shuffle' (no memory) or 'block' (no memory beyond a block)"
        )
    if null not in NULLS:
        raise UnknownNameError(f"there is no null {null!r}; there are {', '.join(map(repr, NULLS))}, and None")
    if surrogates < 19:
        raise DataError(f"{surrogates} surrogates are too few for a band; use at least 19")
    width = 1 if null == "shuffle" else block
    if not 1 <= width <= len(flat.fine) // 2:
        raise DataError(f"blocks of {width} states; {len(flat.fine)} states allow 1 to {len(flat.fine) // 2}")
    samples = np.array([draw(order) for order in _orders(flat, width, surrogates, rng)])
    tail = (1 - level) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
    low[0] = high[0] = 1.0
    first = width  # within a block the correlation is unchanged
    largest = np.nanmax(np.abs(samples[:, first:]), axis=1, initial=0.0)
    reached = np.nanmax(np.abs(observed[first:]), initial=0.0)
    p = (1 + int(np.sum(largest >= reached))) / (surrogates + 1)
    text = "states in random order" if null == "shuffle" else f"blocks of {width} states in random order"
    # The rank that a new shuffle exceeds with probability 1 - level; the largest where there are too few for it.
    rank = min(surrogates, math.ceil(round(level * (surrogates + 1), 9)))
    return Null(low, high, float(np.sort(largest)[rank - 1]), p, text)


def _orders(flat: Filter, width: int, surrogates: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Yield random orders of the states; missing ones keep their position."""
    fine = np.flatnonzero(flat.fine)
    edges = np.arange(width, len(fine), width)
    for _ in range(surrogates):
        order = np.arange(len(flat.fine))
        if width == 1:
            order[fine] = rng.permutation(fine)
        else:
            # A random phase of the blocks, so that no pair of states always stays together.
            pieces = np.split(np.roll(fine, int(rng.integers(width))), edges)
            order[fine] = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
        yield order


def from_states(series: Series, flat: Filter, spans: list[Span], lags: int) -> Lagged:
    """Sum the autocovariances over the columns of some spans."""
    return correlate((flat.apply(block) for block in series.columns(spans)), flat, lags)


def _groups(x: Any, per: str) -> dict[str, list[Span]]:
    """Columns of each layer, parameter or kind."""
    parameters = getattr(x, "parameters", ())
    if not parameters:
        raise DataError(
            f"per={per!r} needs a trajectory with parameters; run.trajectory() has them, an array or distances do not: "
            "use Trajectory.from_array(x, parameters=...)"
        )
    groups: dict[str, list[Span]] = {}
    for p in parameters:
        layer = p.name.removesuffix(":0").replace("/", ".").rpartition(".")[0] or p.name
        name = {"layer": layer, "parameter": p.name, "kind": p.kind}[per]
        groups.setdefault(name, []).append((p.offset, p.offset + p.size))
    return groups


def _corrected(values: Floats, states: int, correct: bool) -> Floats:
    return ((states - 1) * values + 1) / states if correct else values


def _warnings(series: Series, lagged: Lagged, lags: int) -> tuple[Reason, ...]:
    warnings = [*series.not_finite()]
    if not lagged.covariance[0] > 0:
        text = "all states are equal after detrending: there is no variance to correlate"
        warnings.append(Reason("constant", text))
    elif series.variance_of_rounding() * FLOOR_FACTOR > lagged.covariance[0]:
        text = (
            "the variance, {variance:.3g}, is near that of rounding alone, {rounding:.3g}: the correlation may be that "
            "of rounding errors"
        )
        sizes = np.array([lagged.covariance[0], series.variance_of_rounding()]) / series.scale / series.scale
        numbers = {"variance": float(sizes[0]), "rounding": float(sizes[1])}
        warnings.append(Reason.of("below-rounding-floor", text, **numbers))
    if 4 * lags > len(series):
        text = (
            "values at lags above a quarter of the {states} states average few independent pairs; do not interpret "
            "them one by one"
        )
        warnings.append(Reason.of("long-lags", text, states=len(series)))
    return tuple(warnings)


@takes_states("x", matrices=True)
def node_correlation(x: StatesLike, *, lag: int = 0, window: tuple[int, int] | None = None) -> NodeCorrelation:
    r"""Correlations of the egonet of every node with that of every other, `lag` states later.

    Parameters
    ----------
    x : Trajectory or ndarray, shape (T, N, N)
        Adjacency matrices in time, entry (i, j) the edge from i to j; or a trajectory whose parameters are edges (then
        the whole network, with the bias node).
    lag : int, in states
        Lag; 0: correlations at equal times.
    window : (int, int) or None
        Use only states at steps s with ``window[0] <= s < window[1]``.

    Returns
    -------
    NodeCorrelation

    Raises
    ------
    DataError
        If `x` is not square matrices, fewer than four states are finite, or no pair of them has this lag.
    SelectionError
        If no state lies in the window.
    TooLargeError
        If the matrices take more than 1 GiB.

    Notes
    -----
    .. math:: C(\tau) = \frac{1}{T - \tau} \sum_t \tilde A(t) \tilde A(t + \tau)^\mathsf{T}

    with the centred matrices, as in [1]_. The trace of C(tau) over that of C(0) is `trajtools.autocorrelation` (of all
    edges). Row i of the matrix has the outgoing edges of node i; pass transposed matrices for the incoming ones.

    References
    ----------
    .. [1] L. Lacasa, J. P. Rodriguez, V. M. Eguiluz, Phys. Rev. Research 4, L042008 (2022),
       doi:10.1103/PhysRevResearch.4.L042008

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> a = np.zeros((4, 2, 2))
    >>> a[:, 0, 1], a[:, 1, 1] = [1, 0, 1, 0], [0, 1, 0, 1]
    >>> tt.structure.node_correlation(a).correlation.tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    matrices, labels = _matrices(x, window)
    count = len(matrices)
    if not 0 <= lag < count:
        raise DataError(f"lag={lag!r}; {count} states have lags from 0 to {count - 1}")
    fine = np.asarray(np.isfinite(matrices).all(axis=(1, 2)))
    if fine.sum() < FEWEST:
        raise DataError(f"{counted(int(fine.sum()), 'finite state')} of {count}; a correlation needs at least {FEWEST}")
    scale = unit_scale(largest_finite(matrices[fine]))
    shifted = np.where(fine[:, None, None], matrices, 0.0) * scale
    shifted -= shifted[int(np.argmax(fine))]
    centred = np.where(fine[:, None, None], shifted - shifted[fine].mean(axis=0), 0.0)
    pairs = int(np.sum(fine[: count - lag] & fine[lag:]))
    if not pairs:
        raise DataError(f"no two finite states are {lag} apart; choose another lag")
    covariance = np.einsum("tik,tjk->ij", centred[: count - lag], centred[lag:], optimize=True) / pairs
    own = np.einsum("tik,tik->i", centred, centred) / fine.sum()
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        unscaled = covariance / scale / scale  # infinite beyond the largest float
        correlation = np.where((own[:, None] > 0) & (own > 0), covariance / np.sqrt(np.outer(own, own)), np.nan)
    still, excluded = int((own == 0).sum()), int((~fine).sum())
    warnings = []
    if still:
        text = "{still} of {nodes} nodes are constant and have no correlation"
        warnings.append(Reason.of("constant", text, still=still, nodes=len(own)))
    if excluded:
        text = "{excluded} of {states} states are not finite and are excluded"
        warnings.append(Reason.of("not-finite", text, excluded=excluded, states=count))
    return NodeCorrelation(
        lag=int(lag),
        covariance=unscaled,
        correlation=correlation,
        labels=labels,
        n_states=count,
        n_excluded=excluded,
        settings={"lag": int(lag), "window": window, "pairs": pairs},
        warnings=tuple(warnings),
    )


def _matrices(x: Any, window: tuple[int, int] | None) -> tuple[Floats, tuple[Any, ...]]:
    """Adjacency matrices (T, N, N) and names of the nodes."""
    trajectory = isinstance(x, Trajectory)
    array = x if trajectory else np.asarray(x)
    if not trajectory and (array.ndim != 3 or array.shape[1] != array.shape[2] or array.dtype.kind not in "biuf"):
        raise DataError(
            f"x must be adjacency matrices, (T, N, N), or a Trajectory with parameters; got shape "
            f"{array.shape} of {array.dtype}"
        )
    step = np.asarray(x.step) if trajectory else np.arange(len(array))
    inside = np.arange(len(step)) if window is None else np.flatnonzero((step >= window[0]) & (step < window[1]))
    if not len(inside):
        raise SelectionError(f"no state lies in the window {window} of {counted(len(step), 'state')}")
    rows = slice(int(inside[0]), int(inside[-1]) + 1)
    if len(np.unique(np.diff(step[rows]))) > 1:
        raise DataError("the states are not equally spaced; select a window with equal spacing")
    if not trajectory:
        return array[rows].astype(np.float64), tuple(range(array.shape[1]))
    states = x.read(rows.start, rows.stop)
    networks = [Network(state, x.parameters, x.nodes) for state in states[:1]]
    nodes = networks[0].n_nodes
    if 8 * len(states) * nodes**2 > TENSOR_BYTES:
        raise TooLargeError(
            f"{len(states)} matrices of {nodes} x {nodes} take {8 * len(states) * nodes**2 / 2**30:.1f} GiB, the limit "
            f"is {TENSOR_BYTES / 2**30:.0f} GiB; select fewer layers or states"
        )
    dense = np.stack([Network(state, x.parameters, x.nodes).adjacency().toarray() for state in states])
    return dense, tuple(networks[0].labels)
