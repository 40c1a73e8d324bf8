"""Periods of a trajectory, from its autocorrelation and its returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.equal_times import pairs, read_rows
from trajtools.distances.metric import Metric, MetricLike, bind_metric, block_floor, find_metric
from trajtools.distances.pairwise import Distances, pairwise
from trajtools.distances.tiles import stored_format
from trajtools.errors import DataError
from trajtools.inputs import takes_states
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.statistics import random_generator
from trajtools.structure.autocorrelation import (
    BLOCK_BYTES,
    Filter,
    Series,
    along_lags,
    draw_from_gram,
    draw_from_states,
    from_distances,
    from_states,
    make_filter,
    null_of,
    series_of,
)
from trajtools.trajectory import StatesLike, Trajectory
from trajtools.types import Floats, Ints, RNGLike
from trajtools.wording import spoken, time_units

CYCLES = ("exact", "bands", "approximate", "none")
SAMPLED = 200
ROWS = 64
MULTIPLES = 4  # of the period must fit into the lags
SUSTAINED = 0.5
ABOVE = 0.9  # of the multiples must be significant
CONTRAST = 0.15
EXACT = 1e-9  # of the typical distance
SURROGATES = 99
FLOOR_FACTOR = 10.0
NEARLY_ONE = 0.9  # exact returns have autocorrelation 1, up to end effects


@dataclass(frozen=True, eq=False, repr=False)
class Cycles(Result):
    """Period of a trajectory, and the evidence for it.

    Attributes
    ----------
    kind : str
        ``"exact"``: every state equals the one a period earlier, up to rounding; ``"bands"``: the states of one phase
        of the period are closer to each other than to those of any other phase; ``"approximate"``: the states return
        more closely than by chance, at all multiples of the period; ``"none"``.
    period : float
        In states; NaN for ``"none"``.
    time : float
        The same in `time_unit`.
    time_unit : str
        Unit of `time`.
    strength : float
        Autocorrelation at the multiples of the period, median; NaN for ``"none"``.
    sustained : float
        Mean autocorrelation of the later half of the multiples over that of the earlier half: 1 for a period, towards
        0 if the memory of the phase is lost.
    return_distance : float
        Median distance of a state to the one a period later, over the typical distance of two states.
    reasons : tuple of Reason
        Reasons for it, with numbers.
    candidates : ndarray of float64, shape (C, 4)
        Every candidate lag: period, strength, sustained, contrast to the lags between its multiples.
    lag : ndarray of int64, shape (L + 1,)
        Lags in states.
    values : ndarray of float64, shape (L + 1,)
        Autocorrelation at these lags.
    threshold : float
        Critical value of the correlation.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> tt.structure.find_cycles(np.tile([0.0, 1.0, 5.0, 2.0], 50)).period
    4.0
    """

    kind: str
    period: float
    time: float
    time_unit: str
    strength: float
    sustained: float
    return_distance: float
    reasons: tuple[Reason, ...]
    candidates: Floats
    lag: Ints
    values: Floats
    threshold: float
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {"values": ("lag",)}
    _one_row: ClassVar[bool] = True

    def _sentence(self) -> str:
        if not np.isfinite(self.period):
            return "no period."
        period = f"{spoken(self.time)} {time_units(self.time_unit)}"
        return (
            f"{self.kind}: period {period}, autocorrelation {spoken(self.strength)} at "
            f"its multiples; states a period apart differ by {spoken(self.return_distance, 3)} of the typical distance."
        )

    def __post_init__(self) -> None:
        if self.kind not in CYCLES:
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(CYCLES)}")


@takes_states("x")
def find_cycles(
    x: StatesLike | Distances,
    *,
    metric: MetricLike = "l1",
    scale: str | None = None,
    lags: int | None = None,
    detrend: str | int | None = None,
    window: tuple[int, int] | None = None,
    alpha: float = 0.01,
    rng: RNGLike = None,
) -> Cycles:
    r"""Detect the period of a trajectory, if any.

    Parameters
    ----------
    x : Trajectory, ndarray (T, P) or (T,), or Distances
        States, or their Euclidean distances.
    metric : str, callable or Metric
        Distance of returns, see `trajtools.distances.METRICS`.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    lags : int or None, in states
        Largest lag; None: half of the states. Detectable periods reach a quarter of it.
    detrend : None, "linear", "quadratic", "difference" or int
        As in `trajtools.autocorrelation`; returns use the states without detrending.
    window : (int, int) or None
        Use only states at steps s with ``window[0] <= s < window[1]``; exclude transients, which hide periods.
    alpha : float
        False-alarm rate of the test of the autocorrelation against shuffled states.
    rng : int, numpy.random.Generator or None
        Generator of shuffles and samples; None is the seed 0.

    Returns
    -------
    Cycles

    Raises
    ------
    DataError
        If there are too few finite states for any period, or they are not equally spaced.
    SelectionError
        If no state lies in the window.
    UnknownNameError
        If there is no such metric or filter.

    Notes
    -----
    Candidates are the lags p at which the autocorrelation r has a local maximum and of which four multiples fit into
    the lags. A candidate is a period if (1) r at its multiples is significant against shuffled states (9 of 10 beyond
    the common threshold of all lags); (2) it does not decay (the later half of the multiples has at least half the
    strength of the earlier half: chaos loses its phase); (3) it exceeds the lags between by at least 0.15 (drift does
    not); (4) it has at least half of its strength at multiples among the next half as many lags, which were not
    searched; and (5) the states return more closely after p than is typical. The result is the smallest period nearly
    as strong as the strongest.

    It is *exact* if no state differs from the one a period earlier by more than the rounding floor (or 1e-9 of the
    typical distance); the smallest such period then takes precedence. It has *bands* if the nearest other state is
    always an integer number of periods away (200 states are sampled): the motion within a band may be chaotic.
    Otherwise it is *approximate*: noise, or a period that is not an integer number of states.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> tt.structure.find_cycles(np.tile([0.1, 0.7, 0.4], 50)).period
    3.0
    """
    bound = find_metric(metric)
    if not 1 / (SURROGATES + 1) <= alpha < 1:
        raise DataError(f"alpha={alpha!r}; it must lie between {1 / (SURROGATES + 1)} ({SURROGATES} shuffles) and 1")
    series = series_of(x, window)
    flat = make_filter(detrend, series.fine)
    count = len(flat.fine) // 2 if lags is None else int(lags)
    if not 2 * MULTIPLES <= count < len(flat.fine):
        raise DataError(
            f"lags up to {count} of {len(flat.fine)} states; a period needs at least {2 * MULTIPLES} lags, and fewer "
            "lags than states"
        )
    generator = random_generator(rng)
    beyond = min(count + count // 2, len(flat.fine) - 1)
    values, threshold, variance = _correlate(series, flat, (count, beyond), alpha, generator)
    returns = Returns(series, bound, generator)
    result = _decide(values, count, threshold, returns, variance)
    excluded = int((~series.fine).sum())
    return Cycles(
        kind=result["kind"],
        period=result["period"],
        time=result["period"] * series.spacing,
        time_unit=series.time_unit,
        strength=result["strength"],
        sustained=result["sustained"],
        return_distance=result["return_distance"],
        reasons=(result["reason"],),
        candidates=result["candidates"],
        lag=np.arange(count + 1),
        values=values[: count + 1],
        threshold=threshold,
        settings={
            "metric": x.metric if isinstance(x, Distances) else bound.name,
            "lags": count,
            "detrend": detrend,
            "window": window,
            "alpha": alpha,
            "surrogates": SURROGATES,
            "multiples": MULTIPLES,
            "sustained": SUSTAINED,
            "contrast": CONTRAST,
            "exact": EXACT,
            "n_states": len(series),
            "n_excluded": excluded,
        },
        warnings=series.not_finite(),
    )


def _correlate(
    series: Series, flat: Filter, lags: tuple[int, int], alpha: float, rng: np.random.Generator
) -> tuple[Floats, float, float]:
    """Autocorrelation at the searched lags and beyond, its critical value, and the variance."""
    spans, (count, beyond) = [(0, series.width)], lags
    if isinstance(series.states, Distances):
        gram = from_distances(series, flat)
        lagged, draw = along_lags(gram, flat, beyond), draw_from_gram(gram, flat, count)
    else:
        lagged, draw = from_states(series, flat, spans, beyond), None
    if not lagged.covariance[0] > 0:
        return lagged.correlation, float("nan"), 0.0
    if draw is None:
        draw = draw_from_states(series, flat, spans, count)
    values = lagged.correlation
    null = null_of(
        "shuffle", values[: count + 1], draw, flat=flat, surrogates=SURROGATES, block=1, level=1 - alpha, rng=rng
    )
    return values, null.threshold, float(lagged.covariance[0])


class Returns:
    """Distances between the states of a series, by index."""

    def __init__(self, series: Series, metric: Metric, rng: np.random.Generator) -> None:
        self._series = series
        self._metric = metric if isinstance(series.states, Distances) else bind_metric(metric, series.states)
        self._fine = np.flatnonzero(series.fine)
        self._sample = np.sort(rng.choice(self._fine, min(SAMPLED, len(self._fine)), replace=False))
        self._tables: Floats | None = None

    @property
    def typical(self) -> float:
        """Typical distance of two states: the median over those from the sampled states to all others."""
        table = self._table()
        return float(np.nanmedian(table)) if np.isfinite(table).any() else 0.0

    def floor(self) -> float:
        """Largest rounding floor of the sampled states; 0 if unknown."""
        states = self._series.states
        if isinstance(states, Distances):
            floors = np.asarray(states.floor)[self._series.rows][self._sample]
        else:
            sample = self._states()
            dtype = stored_format(states) if isinstance(states, Trajectory) else str(sample.dtype)
            floors = block_floor(sample[:, None], self._metric, dtype, sample.shape[1])
        return float(np.nan_to_num(floors).max(initial=0.0))

    def after(self, period: int) -> Floats:
        """Return the distances of all finite states to those `period` states later."""
        count, series = len(self._series), self._series
        both = np.flatnonzero(series.fine[: count - period] & series.fine[period:])
        if isinstance(series.states, Distances):
            offset = series.rows.start
            distances = [float(series.states.read(t + offset, t + offset + 1)[0, t + offset + period]) for t in both]
            return np.array(distances)
        out = np.empty(count - period)
        tall = max(1, BLOCK_BYTES // (16 * max(series.width, 1)))
        one = np.zeros(1, dtype=np.int64)
        for start in range(0, count - period, tall):
            stop = min(start + tall, count - period)
            early, late = self._read(start, stop), self._read(start + period, stop + period)
            out[start:stop] = pairs(self._metric, early[:, None], late[:, None], one, one)[:, 0]
        return out[both]

    def same_phase(self, period: int) -> float:
        """Fraction of the sampled states whose nearest other state is an integer number of periods away."""
        table, count = self._table(), len(self._series)
        nearest = np.array([int(np.nanargmin(row)) for row in table if np.isfinite(row).any()])
        sampled = self._sample[np.isfinite(table).any(axis=1)]
        return float(np.mean((nearest - sampled) % period == 0)) if count and len(sampled) else 0.0

    def _table(self) -> Floats:
        """Distances (s, T) of the sampled states to all others; NaN to themselves."""
        if self._tables is None:
            series, states = self._series, self._series.states
            if isinstance(states, Distances):
                rows = [states.read(t, t + 1)[0, series.rows] for t in (self._sample + series.rows.start).tolist()]
                table = np.array(rows, dtype=np.float64)
            else:
                sample: Any = self._states()
                if isinstance(states, Trajectory):
                    sample = Trajectory.from_array(sample, parameters=states.parameters, nodes=states.nodes)
                table = np.array(pairwise(sample, y=states[series.rows], metric=self._metric).values)
            table[np.arange(len(table)), self._sample] = np.nan
            table[:, ~series.fine] = np.nan
            self._tables = table
        return self._tables

    def _states(self) -> Any:
        """The sampled states, (s, P), read in the blocks of the file."""
        blocks = []
        for start in range(0, len(self._series), ROWS):
            here = self._sample[(self._sample >= start) & (self._sample < start + ROWS)]
            if len(here):
                blocks.append(self._read(start, min(start + ROWS, len(self._series)))[here - start])
        return np.concatenate(blocks)

    def _read(self, start: int, stop: int) -> Any:
        offset = self._series.rows.start
        return read_rows(self._series.states, start + offset, stop + offset)


def _decide(values: Floats, count: int, threshold: float, returns: Returns, variance: float) -> dict[str, Any]:
    """Return kind, period, reason and the other fields of the result."""
    fields: dict[str, Any] = dict.fromkeys(("period", "strength", "sustained", "return_distance"), float("nan"))
    fields |= {"kind": "none", "candidates": np.empty((0, 4))}
    typical, floor = returns.typical, FLOOR_FACTOR * returns.floor()
    if variance <= 0 or typical <= floor:
        text = "the states differ by no more than rounding: a fixed point has no period"
        return fields | {"reason": Reason("at-rest", text)}
    table = np.array([_comb(values, count, int(p), threshold) for p in _candidates(values[: count + 1])])
    if not len(table):
        text = "the autocorrelation has no local maximum of which four multiples fit into the lags"
        return fields | {"reason": Reason("no-maximum", text)}
    fields["candidates"] = table[:, :4]
    exact = _exact(table, returns, max(floor, EXACT * typical))
    if exact is not None:
        period, largest = exact
        same = Reason.of(
            "exact-cycle",
            "every state equals the one {period} earlier to within {largest:.3g}, {share:.2g} of the typical distance",
            period=period,
            largest=largest,
            share=largest / typical,
        )
        back = float(np.median(returns.after(period))) / typical
        return fields | _named("exact", table[table[:, 0] == period][0], back, same)
    good = table[
        (table[:, 1] > threshold)
        & (table[:, 2] >= SUSTAINED)
        & (table[:, 3] >= CONTRAST)
        & (table[:, 4] >= ABOVE)
        & (table[:, 5] >= SUSTAINED * table[:, 1])
    ]
    if not len(good):
        best = table[np.argmax(table[:, 1])]
        weak = Reason.of(
            "weak-cycle",
            "the strongest candidate, {period:.4g} states, has the autocorrelation {strength:.3g} at its multiples "
            "({share:.0%} of them beyond the threshold {threshold:.3g}), sustains {sustained:.2g} of it, has contrast "
            "{contrast:.3g}, and has {beyond:.3g} at lags outside the search",
            period=best[0],
            strength=best[1],
            share=best[4],
            threshold=threshold,
            sustained=best[2],
            contrast=best[3],
            beyond=best[5],
        )
        return fields | {"reason": weak}
    return fields | _repeated(good[good[:, 1] >= 0.9 * good[:, 1].max()][0], threshold, returns)


def _exact(table: Floats, returns: Returns, tolerance: float) -> tuple[int, float] | None:
    """Smallest candidate after which every state returns, and the largest distance."""
    for period, strength in table[:, :2]:
        if period != round(period) or strength < NEARLY_ONE:
            continue
        largest = float(returns.after(int(period)).max())
        if largest <= tolerance:
            return int(period), largest
    return None


def _repeated(row: Floats, threshold: float, returns: Returns) -> dict[str, Any]:
    """Fields of a period that is not exact, if the states return at all."""
    back = float(np.median(returns.after(round(row[0])))) / returns.typical
    if back >= 1:
        text = "states {period:.4g} apart are no closer than any others ({back:.3g} of the typical distance)"
        return {"reason": Reason.of("no-return", text, period=row[0], back=back)}
    whole = row[0] == round(row[0])
    share = returns.same_phase(round(row[0])) if whole else 0.0
    text = (
        "the autocorrelation at the multiples of {period:.6g} states is {strength:.3g} (threshold {threshold:.3g}) and "
        "sustains {sustained:.2g} of it; states return to {back:.3g} of the typical distance"
    )
    if whole:
        text += "; the nearest other state is an integer number of periods away for {share:.1%} of the states"
    numbers = {"period": row[0], "strength": row[1], "threshold": threshold, "sustained": row[2], "back": back}
    repeats = Reason.of("cycle", text, **numbers, **({"share": share} if whole else {}))
    return _named("bands" if share == 1 else "approximate", row, back, repeats)


def _named(kind: str, row: Floats, back: float, reason: Reason) -> dict[str, Any]:
    return {
        "kind": kind,
        "period": float(row[0]),
        "strength": float(row[1]),
        "sustained": float(row[2]),
        "return_distance": back,
        "reason": reason,
    }


def _comb(values: Floats, count: int, lag: int, threshold: float) -> list[float]:
    """Period, strength, sustained, contrast, fraction beyond the threshold, and strength beyond the lags searched."""
    slack, places, at = lag // 8, [], 0
    while at + lag + slack <= count:
        around = np.arange(at + lag - slack, at + lag + slack + 1)
        at = int(around[np.argmax(values[around])])
        places.append(at)
    comb, period = values[places], places[-1] / len(places)
    half = len(comb) // 2
    early, late = float(comb[:half].mean()), float(comb[half:].mean())
    near = np.zeros(places[-1] + 1, dtype=bool)
    for place in (0, *places):
        near[max(0, place - slack) : place + slack + 1] = True
    rest = values[: places[-1] + 1][~near]
    contrast = float(np.median(comb) - np.median(rest)) if len(rest) else 0.0
    further = np.rint(period * np.arange(len(places) + 1, int((len(values) - 1) / period) + 1)).astype(np.int64)
    further = further[further < len(values)]
    outside = float(np.median(values[further])) if len(further) else 0.0
    sustained = late / early if early > 0 else 0.0
    return [period, float(np.median(comb)), sustained, contrast, float(np.mean(comb > threshold)), outside]


def _candidates(values: Floats) -> NDArray[np.int64]:
    """Lags of the hundred strongest local maxima with enough multiples."""
    most = (len(values) - 1) // MULTIPLES
    p = np.arange(2, most + 1)
    peak = (values[p] > values[p - 1]) & (values[p] >= values[p + 1]) & (values[p] > 0)
    peaks = p[peak]
    return np.sort(peaks[np.argsort(values[peaks], kind="stable")[::-1][:100]])
