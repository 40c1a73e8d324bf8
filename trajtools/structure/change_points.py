"""Change points of a trajectory, located by ruptures and tested against stationary noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.distances.equal_times import as_states
from trajtools.distances.metric import MetricLike, bind_metric, find_metric
from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, MissingDependencyError, UnknownNameError
from trajtools.inputs import takes_states
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.statistics import random_generator
from trajtools.structure.observables import clock_of, walk
from trajtools.trajectory import StatesLike
from trajtools.types import Floats, Ints, RealArrayLike, RNGLike
from trajtools.values import read_array
from trajtools.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.store import Run

SIGNALS = ("step_length", "displacement", "norm")
MODELS = {"mean": "linear", "distribution": "rbf"}
ROUNDS = 2  # of re-estimation with the detected changes removed


# Choices of this toolkit, listed in the settings of every result.
MOST_POINTS = 400  # longer signals are block-averaged


MOST_CHANGES = 3  # of a null record are considered for the penalty
NULLS, ENOUGH = 199, 10  # records of the null; stop early once ENOUGH of them exceed the signal
AROUND = 10  # states on each side of a change
CORRELATED = 0.99  # the largest autocorrelation of the null
_FEWEST = 20


@dataclass(frozen=True, eq=False, repr=False)
class ChangePoints(Result):
    """Change points of a trajectory, and the metrics around them.

    Attributes
    ----------
    index : ndarray of int64, shape (C,)
        First state after each change; empty without changes.
    step : ndarray of int64, shape (C,)
        Step of this state.
    signal : str
        Name of the signal.
    values : ndarray of float64, shape (T,)
        The signal; NaN where unknown.
    steps : ndarray of int64, shape (T,)
        Steps of the signal.
    segment_mean : ndarray of float64, shape (C + 1,)
        Mean of the signal in each segment.
    around : dict of str to ndarray of float64, shape (C, 2)
        For every metric: its median over the states just before and just after each change.
    p_value : float
        Probability of evidence for a change at least this strong under the null; NaN with a user's penalty.
    alpha : float
        False-alarm rate of the test: the fraction of stationary records with a detected change.
    null : str
        Description of the null; empty with a user's penalty.
    penalty : float
        Minimum gain of each change, in units of the cost.
    correlation : float
        Autocorrelation of neighbouring (averaged) values, shared by the null.
    resolution : int, in states
        Resolution of the location of changes.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> series = np.r_[np.full(50, 1.0), np.full(50, 5.0)] + 0.1 * np.random.default_rng(0).standard_normal(100)
    >>> changes = tt.structure.change_points(series)
    >>> changes.step.tolist(), changes.segment_mean.round().tolist()
    ([50], [1.0, 5.0])
    """

    index: Ints
    step: Ints
    signal: str
    values: Floats
    steps: Ints
    segment_mean: Floats
    around: dict[str, Floats]
    p_value: float
    alpha: float
    null: str
    penalty: float
    correlation: float
    resolution: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "step": ("change",),
        "index": ("change",),
        "around": ("change", "side"),
        "values": ("steps",),
    }

    def _sentence(self) -> str:
        if not len(self.index):
            return f"{self.signal} has no change point{self._evidence()}."
        at = ", ".join(map(str, self.step[:8])) + (", ..." if len(self.step) > 8 else "")
        steps = "step" if len(self.step) == 1 else "steps"
        return f"{self.signal} changes {counted(len(self.index), 'time')}, at {steps} {at}{self._evidence()}."

    def _evidence(self) -> str:
        return f" (p = {self.p_value:.3g})" if np.isfinite(self.p_value) else ""

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the signal and its changes; see `trajtools.plots.change_points`.

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

        return plots.change_points(self, ax=ax)


@takes_states("x", runs=True)
def change_points(
    x: Run | StatesLike | Distances,
    *,
    signal: str = "step_length",
    metric: MetricLike = "l1",
    model: str = "mean",
    alpha: float = 0.01,
    penalty: float | None = None,
    min_size: int | None = None,
    metrics: Mapping[str, RealArrayLike] | None = None,
    member: int = 0,
    rng: RNGLike = None,
) -> ChangePoints:
    r"""Detect change points of a trajectory, and read metrics before and after them.

    Parameters
    ----------
    x : Run, Trajectory, array_like (T, P), Distances (T, T), or series (T,)
        The data; of a run, one member and its metrics.
    signal : str
        ``"step_length"``: distance to the previous state; ``"displacement"``: to the first state; ``"norm"``: to zero;
        or, for a run, the name of a recorded metric. A series is its own signal.
    metric : str, callable or Metric
        Distance between states, see `METRICS`; ignored for Distances.
    model : str
        ``"mean"``: changes of the mean (squared deviations); ``"distribution"``: of the whole distribution (Gaussian
        kernel, width from the median distance).
    alpha : float
        False-alarm rate: the fraction of stationary records with a detected change.
    penalty : float or None
        Minimum gain of each change; None: from the null, at `alpha`.
    min_size : int or None, in states
        Shortest segment; None: a fiftieth of the record, at least 5.
    metrics : mapping of str to array_like (T,), or None
        Series to read before and after each change; None: the metrics of the run.
    member : int
        Member of a run.
    rng : int, numpy.random.Generator or None
        Generator of the null; None is the seed 0.

    Returns
    -------
    ChangePoints
        Changes, the p-value of any change, and metrics before and after. A slow drift is not noise: it gives a
        staircase of changes.

    Raises
    ------
    MissingDependencyError
        If ruptures is not installed.
    DataError, UnknownNameError
        If the signal does not exist or is too short.

    Notes
    -----
    The signal is averaged to at most 400 points and replaced by its normal scores (the quantiles of its ranks), so that
    neither its unit nor a single spike matters. The linear prediction of each point from the previous one, by their
    autocorrelation, is subtracted, and normal scores are taken again. The autocorrelation is estimated with the best
    single change removed, real or not. The null is Gaussian noise with this autocorrelation, processed the same way,
    estimate included. For each of 199 null records, the smallest penalty that admits no change is computed (from the
    best segmentations with up to 3 changes); the penalty is their upper quantile at `alpha`. With it the segmentation
    is optimal (PELT, [1]_). If there are changes, the autocorrelation is re-estimated inside the segments, and the
    search is repeated.

    References
    ----------
    .. [1] R. Killick, P. Fearnhead, I. A. Eckley, J. Am. Stat. Assoc. 107, 1590 (2012),
       doi:10.1080/01621459.2012.737745

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> series = np.r_[np.full(50, 1.0), np.full(50, 5.0)] + 0.1 * np.random.default_rng(0).standard_normal(100)
    >>> tt.structure.change_points(series).step.tolist()
    [50]
    """
    ruptures = _ruptures()
    if model not in MODELS:
        raise UnknownNameError(f"no model {model!r}; there are {', '.join(MODELS)}")
    if not 1 / (NULLS + 1) <= alpha < 1:
        raise DataError(f"alpha={alpha!r}; it must lie between {1 / (NULLS + 1)} ({NULLS} null records) and 1")
    values, steps, name, metrics_of_run = _signal(x, signal, metric, member)
    good = np.flatnonzero(np.isfinite(values))
    size = max(5, len(good) // 50) if min_size is None else _whole("min_size", min_size)
    if len(good) < max(_FEWEST, 2 * size):
        raise DataError(
            f"{name} has {len(good)} finite values of {len(values)}; changes between segments of {size} states need "
            f"{max(_FEWEST, 2 * size)}"
        )
    width = -(-len(good) // MOST_POINTS)
    scores = normal_scores(_averaged(values[good], width))
    search = _Search(ruptures, MODELS[model], max(2, -(-size // width)))
    if penalty is None:
        changes, p_value, required, rho = search.tested(scores, alpha, random_generator(rng))
    else:
        rho = search.correlation(scores)
        changes, p_value, required = search.changes(innovations(scores, rho), penalty), float("nan"), float(penalty)
    null = f"stationary Gaussian noise with autocorrelation {rho:.2f} between neighbouring points"
    index = good[changes * width]
    table = {
        key: read_array(series, f"the metric {key!r}").astype(np.float64, copy=False)
        for key, series in (metrics or metrics_of_run).items()
    }
    return ChangePoints(
        index=index,
        step=steps[index],
        signal=name,
        values=values,
        steps=steps,
        segment_mean=np.array([np.nanmean(part) for part in np.split(values, index)]),
        around={key: _around(key, series, index, len(values)) for key, series in table.items()},
        p_value=p_value,
        alpha=alpha,
        null=null if penalty is None else "",
        penalty=required,
        correlation=rho,
        resolution=width,
        settings={
            "signal": name,
            "model": model,
            "penalty": required,
            "min_size": size,
            "nulls": 0 if penalty is not None else NULLS,
            "most_changes": MOST_CHANGES,
            "averaged_over": width,
            "around": AROUND,
        },
        warnings=_warnings(values, good, rho, width),
    )


def _ruptures() -> Any:
    try:
        import ruptures
    except ImportError as missing:
        raise MissingDependencyError(
            'change points need ruptures, which is not installed: pip install "trajtools[structure]"'
        ) from missing
    return ruptures


def _signal(x: Any, signal: str, metric: MetricLike, member: int) -> tuple[Floats, Ints, str, dict[str, Any]]:
    """Return values, steps and name of the signal, and the metrics."""
    metrics: dict[str, Any] = {}
    if hasattr(x, "members") and hasattr(x, "trajectory"):
        of_member = {name: np.asarray(x.metrics[name]) for name in x.metrics}
        metrics = {n: v[:, member] if v.ndim == 2 else v for n, v in of_member.items() if v.ndim <= 2}
        if signal in metrics:
            return metrics[signal].astype(np.float64), np.asarray(x.step), signal, metrics
        if signal not in SIGNALS:
            raise UnknownNameError(f"no signal {signal!r}; there are {', '.join((*SIGNALS, *metrics))}")
        x = x.trajectory(member)
    elif signal not in SIGNALS:
        raise UnknownNameError(f"no signal {signal!r}; there are {', '.join(SIGNALS)}, and the metrics of a run")
    if isinstance(x, Distances):
        return (*_from_distances(x, signal), metrics)
    states = as_states(x, "x")
    if states.shape[1] == 1 and not hasattr(states, "read"):
        return np.asarray(states, dtype=np.float64)[:, 0], np.arange(len(states)), "series", metrics
    path = walk(states, bind_metric(find_metric(metric), states), [])
    values = {"step_length": path.steps, "displacement": path.displacement, "norm": path.norm}[signal]
    return values, np.asarray(clock_of(states)[0]), signal, metrics


def _from_distances(distances: Distances, signal: str) -> tuple[Floats, Ints, str]:
    if signal == "norm":
        raise DataError(
            "the norm of a state cannot be computed from distances; use 'step_length' or 'displacement', or the states"
        )
    if not distances.square:
        raise DataError(f"change points need the distances of one trajectory, (T, T); these are {distances!r}")
    if signal == "displacement":
        first = int(np.argmin(distances.excluded))
        return np.array(distances.read(first, first + 1)[0]), distances.step, signal
    at = np.arange(len(distances))
    return np.concatenate([[np.nan], np.asarray(distances.values[at[1:], at[:-1]])]), distances.step, signal


def normal_scores(values: Floats) -> Floats:
    """Normal quantiles of the ranks of values; equal values share one."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    return np.asarray(ndtri((rankdata(values) - 0.5) / len(values)))


class _Search:
    """Segmentations by ruptures.

    Parameters
    ----------
    ruptures : module
        The package.
    kernel : str
        ``"linear"`` or ``"rbf"``.
    min_size : int
        Shortest segment, in points.
    """

    def __init__(self, ruptures: Any, kernel: str, min_size: int) -> None:
        self._ruptures, self._kernel, self._min_size = ruptures, kernel, min_size

    def _fitted(self, points: Floats) -> Any:
        return self._ruptures.KernelCPD(kernel=self._kernel, min_size=self._min_size).fit(points[:, None])

    def critical(self, points: Floats) -> float:
        """Smallest penalty without a change, from the best segmentations with few changes."""
        fitted = self._fitted(points)
        most = min(MOST_CHANGES, len(points) // self._min_size - 1)
        fitted.predict(n_bkps=most)
        whole = fitted.cost.sum_of_costs([len(points)])
        gains = [
            (whole - fitted.cost.sum_of_costs(fitted.segmentations_dict[count])) / count for count in range(1, most + 1)
        ]
        return float(max(gains))

    def correlation(self, scores: Floats) -> float:
        """Autocorrelation with the best single change removed, real or not."""
        return _within(scores, np.array(self._fitted(scores).predict(n_bkps=1)[:-1], dtype=np.int64))

    def tested(self, scores: Floats, alpha: float, rng: np.random.Generator) -> tuple[Ints, float, float, float]:
        """Return changes of normal scores, the p-value of any change, the penalty, and the autocorrelation."""
        rho = self.correlation(scores)
        p_value, penalty = self._against_noise(innovations(scores, rho), rho, alpha, rng)
        changes = np.empty(0, dtype=np.int64)
        if p_value > alpha:
            return changes, p_value, penalty, rho
        changes = self.changes(innovations(scores, rho), penalty)
        for _ in range(ROUNDS):
            # The changes are significant, but raise the autocorrelation: repeat with them removed.
            rho = _within(scores, changes)
            _, penalty = self._against_noise(innovations(scores, rho), rho, alpha, rng)
            previous, changes = changes, self.changes(innovations(scores, rho), penalty)
            if np.array_equal(previous, changes):
                break
        return changes, p_value, penalty, rho

    def _against_noise(self, points: Floats, rho: float, alpha: float, rng: np.random.Generator) -> tuple[float, float]:
        """P-value of any change, and the penalty that stationary noise passes at `alpha`.

        Sampling stops once enough records reach the value of the points; the p-value is then their fraction
        (Besag and Clifford 1991).
        """
        observed, null = self.critical(points), []
        for _ in range(NULLS):
            noise = normal_scores(_noise(len(points) + 1, rho, rng))
            null.append(self.critical(innovations(noise, self.correlation(noise))))
            if np.count_nonzero(np.array(null) >= observed) >= ENOUGH:
                break
        above = int(np.count_nonzero(np.array(null) >= observed))
        p_value = above / len(null) if above >= ENOUGH else (above + 1) / (NULLS + 1)
        return float(p_value), float(np.sort(null)[-max(1, int(alpha * (len(null) + 1)))])

    def changes(self, points: Floats, penalty: float) -> Ints:
        """First states after the changes (the first state has no innovation)."""
        return np.array(self._fitted(points).predict(pen=penalty)[:-1], dtype=np.int64) + 1


def _within(scores: Floats, changes: Ints) -> float:
    """Autocorrelation inside the segments.

    A fitted mean adds the bias once, a fitted location of a change about as much again. With this correction, one
    record in a hundred (two, if it is 0.9 or more) of 120 to 400 points of noise passes a test with alpha=0.01.
    """
    parts = np.split(scores, changes)
    return lag_one(np.concatenate([part - part.mean() for part in parts]), 2 * len(parts) + 1)


def lag_one(points: Floats, means: int = 1) -> float:
    """Autocorrelation of neighbouring points, from 0 to 0.99, by least squares.

    The bias of first order (Marriott and Pope 1954) is corrected once for each subtracted mean.
    """
    size = float(points @ points)
    if not size > 0:
        return 0.0
    rho = float(points[1:] @ points[:-1]) / size
    return float(np.clip(rho + means * (1 + 3 * rho) / len(points), 0.0, CORRELATED))


def innovations(points: Floats, rho: float) -> Floats:
    """Normal scores of the residuals of predicting each point from the previous one, (n - 1,)."""
    return normal_scores(points[1:] - rho * points[:-1])


def _noise(length: int, rho: float, rng: np.random.Generator) -> Floats:
    from scipy.signal import lfilter

    shocks = rng.standard_normal(length)
    shocks[1:] *= np.sqrt(1 - rho**2)
    return np.asarray(lfilter([1.0], [1.0, -rho], shocks))


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 2:
        raise DataError(f"{name}={value!r}: it must be an integer of at least 2, in states")
    return int(value)


def _averaged(values: Floats, width: int) -> Floats:
    """Means over groups of neighbours; the last group may be smaller."""
    if width == 1:
        return values
    starts = np.arange(0, len(values), width)
    return np.asarray(np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values))))


def _warnings(values: Floats, good: Ints, rho: float, width: int) -> tuple[Reason, ...]:
    warnings = []
    if len(good) < len(values) - 1:
        text = "{excluded} of {values} values are not finite and are excluded"
        warnings.append(Reason.of("not-finite", text, excluded=len(values) - len(good), values=len(values)))
    if width > 1:
        text = "the signal was averaged over {width} states, so changes are located to within {width} states"
        warnings.append(Reason.of("averaged", text, width=width))
    if np.ptp(values[good]) == 0:
        warnings.append(Reason("constant", "the signal is constant: it has no changes"))
    if rho >= CORRELATED:
        text = "the signal is smooth or drifts: noise with an autocorrelation of 0.99 is a poor null for it"
        warnings.append(Reason("drift", text))
    return tuple(warnings)


def _around(name: str, series: Floats, index: Ints, length: int) -> Floats:
    if series.shape != (length,):
        raise DataError(f"metric {name!r} has shape {series.shape}; it needs one value per state, ({length},)")
    edges = np.concatenate([[0], index, [length]])
    out = np.full((len(index), 2), np.nan)
    for c, at in enumerate(index):
        sides = series[max(at - AROUND, edges[c]) : at], series[at : min(at + AROUND, edges[c + 2])]
        for side, part in enumerate(sides):
            if np.isfinite(part).any():
                out[c, side] = np.median(part[np.isfinite(part)])
    return out
