"""The onset of sensitive dependence along a sweep, the fastest training, and whether the two coincide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import erf
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, SelectionError
from trajtools.reasons import Reason, codes
from trajtools.results import Result
from trajtools.statistics import random_generator
from trajtools.types import Floats, RNGLike
from trajtools.wording import bounds, counted, spoken

if TYPE_CHECKING:
    from trajtools.exponents.exponent import Exponent
    from trajtools.sweeps.sweep import Sweep, SweepPoint

N_RESAMPLES = 1999
SENSITIVE = ("chaotic", "transient", "sensitive")
VOTING = (*SENSITIVE, "regular", "mixed")
# Below the onset gradient descent grows slowly along -h_min; three times the largest of these exponents is well past
# their scatter and still far below any instability.
TIMES_STABLE = 3.0
ERRORS = 4.0  # standard errors: beyond them a point is as sure as it can be
SHARE = 0.9  # of the resamplings must hold an onset
NEAR = 1.25
FASTER = 0.9  # a control counts as faster below this share of the time at the minimum
WIDE = 4.0  # a ratio whose interval spans a larger factor decides nothing
SPARSE = 2.0  # neighbouring values further apart than this factor leave a gap worth a sentence
SPARSE_SHARE = 0.25  # likewise, as a share of the range, where values are not all positive
SHOWN = 6  # values that a sentence lists
# Why a run does not vote on the onset -> reason code, what it has; in the order in which they are said.
SILENT = {
    "inconclusive": ("inconclusive", "an inconclusive exponent"),
    "not converged": ("not-converged", "an exponent that is not converged"),
    "diverging": ("diverging", "a training that runs away as fast as its twins separate"),
    "diverged": ("diverged", "a training that ended in NaN or infinity"),
    "dead": ("dead", "a training that stands still without having learned"),
}


@dataclass(frozen=True, eq=False, repr=False)
class Onset(Result):
    """Where sensitive dependence begins along a sweep; see `Sweep.onset`.

    Attributes
    ----------
    value : float
        The hyper-parameter at which the exponent passes `above`, on a logarithmic scale of x; NaN where there is none.
    interval : (float, float)
        From the resampled exponents, at least the two values on either side.
    bracket : (float, float)
        The largest x up to which every verdict is regular, and the smallest that is sensitive; inconclusive values
        between widen it. NaN at an end that the sweep does not reach.
    above : float
        The exponent that counts as sensitive.
    found : bool
        Whether the sweep holds an onset: points on both sides.
    reasons : tuple of Reason
        Why, in sentences.
    draws : ndarray of float64, shape (B,)
        The onset in each resampling; NaN where there was none.
    level : float
        Confidence level.
    settings : dict
        What was chosen; ``"points"`` is the number of values that vote, ``"left_out"`` maps why runs do not vote
        (``"inconclusive"``, ``"not converged"``, ``"diverging"``, ``"diverged"``, ``"dead"``) to their values.

    Examples
    --------
    >>> import trajtools as tt
    >>> from recorders.iris import record
    >>> files = [record(".", rate, inits=2, copies=1, steps=20, mode="w") for rate in (0.1, 1.0)]
    >>> onset = tt.sweep(files, "eta").onset()
    >>> onset.found, [reason.code for reason in onset.reasons]
    (False, ['too-few-values', 'inconclusive'])
    """

    value: float
    interval: tuple[float, float]
    bracket: tuple[float, float]
    above: float
    found: bool
    reasons: tuple[Reason, ...]
    draws: Floats
    level: float = 0.95
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def is_located(self) -> bool:
        """Whether the interval spans at most a factor of 4: else only the range is known, and `value` says little."""
        low, high = self.interval
        return self.found and (low <= 0 or high <= WIDE * low)

    def _sentence(self) -> str:
        if not self.found:
            return "The sweep holds no onset of chaos."
        if not self.is_located:
            low, high = self.interval
            return f"Sensitive dependence begins somewhere between {spoken(low)} and {spoken(high)}."
        return (
            f"Sensitive dependence begins at {spoken(self.value)}, {self.level:.0%} interval {bounds(self.interval)}."
        )


@dataclass(frozen=True, eq=False, repr=False)
class Fastest(Result):
    """Where training is fastest along a sweep; see `Sweep.fastest`.

    Attributes
    ----------
    value : float
        The hyper-parameter with the smallest median training time; NaN where nothing reaches the threshold.
    interval : (float, float)
        Between which the minimum lies in `level` of the resamplings of the initial conditions.
    time : float
        The smallest median training time, in `time_unit`.
    within : (float, float)
        Smallest and largest x whose median training time is at most 1.25 times the smallest.
    threshold : float
        The accuracy to be reached.
    inside : bool
        Whether the minimum lies inside the range of the sweep, not at one of its ends.
    reasons : tuple of Reason
        In sentences.
    draws : ndarray of float64, shape (B,)
        The minimum in each resampling.
    time_unit : str
        Unit of `time`.
    level : float
        Confidence level.

    Examples
    --------
    >>> import trajtools as tt
    >>> from recorders.iris import record
    >>> files = [record(".", rate, inits=2, copies=1, steps=20, mode="w") for rate in (0.1, 1.0)]
    >>> fastest = tt.sweep(files, "eta").fastest(0.7)
    >>> fastest.threshold, fastest.time_unit
    (0.7, 'step')
    """

    value: float
    interval: tuple[float, float]
    time: float
    within: tuple[float, float]
    threshold: float
    inside: bool
    reasons: tuple[Reason, ...]
    draws: Floats
    time_unit: str
    level: float = 0.95

    def _sentence(self) -> str:
        if not np.isfinite(self.value):
            return "Where training is fastest is unknown."
        text = f"Training is fastest at {spoken(self.value)}, {self.level:.0%} interval {bounds(self.interval)}: "
        text += f"{spoken(self.time)} {self.time_unit}s to {self.threshold:g}"
        return text + ("." if self.inside else "; this is an end of the range, so the minimum may lie outside.")


@dataclass(frozen=True, eq=False, repr=False)
class Coincidence(Result):
    """Whether training is fastest at the onset of chaos; see `Sweep.coincidence`.

    Attributes
    ----------
    ratio : float
        The fastest x over the onset; NaN where its interval is unknown or spans more than a factor of 4.
    interval : (float, float)
        Of the ratio, from the resamplings of both, no narrower than one step of the sweep.
    verdict : str
        ``"coincide"`` where the interval holds 1, ``"differ"`` where it does not, and ``"not decided"`` where there is
        no onset or no minimum inside the range, where either interval is unknown, or where that of the ratio spans more
        than a factor of 4.
    reasons : tuple of Reason
        In sentences, with what is missing for a decision, and what the control says.
    onset : Onset
        One of the two.
    fastest : Fastest
        The other.

    Examples
    --------
    >>> import trajtools as tt
    >>> from recorders.iris import record
    >>> files = [record(".", rate, inits=2, copies=1, steps=20, mode="w") for rate in (0.1, 1.0)]
    >>> tt.sweep(files, "eta").coincidence().verdict
    'not decided'
    """

    ratio: float
    interval: tuple[float, float]
    verdict: str
    reasons: tuple[Reason, ...]
    onset: Onset
    fastest: Fastest

    def _sentence(self) -> str:
        text = {"coincide": "Training is fastest at the onset of chaos", "differ": "Training is fastest elsewhere"}.get(
            self.verdict, "Whether training is fastest at the onset of chaos is not decided"
        )
        if not np.isfinite(self.interval[0]):
            return f"{text}."
        if not np.isfinite(self.ratio):
            low, high = self.interval
            return f"{text}: the fastest rate lies between {spoken(low)} and {spoken(high)} times the onset."
        return f"{text}: the fastest rate is {spoken(self.ratio, 3)} times the onset, interval {bounds(self.interval)}."


def onset(sweep: Sweep, *, above: float | str, level: float, rng: RNGLike) -> Onset:
    """Find the onset of a sweep over one hyper-parameter; see `Sweep.onset`."""
    return onset_of(curve_of(sweep.points), above=above, level=level, rng=rng)


def onset_of(curve: Curve, *, above: float | str = "auto", level: float = 0.95, rng: RNGLike = None) -> Onset:
    """Find the onset along a curve of exponents."""
    if isinstance(above, str) and above != "auto":
        raise DataError(f"above={above!r}: it must be an exponent, or 'auto'")
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    left_out = {word: sorted({x for x, why in curve.left_out if why == word}) for _, word in curve.left_out}
    silent = tuple(_left_out(curve))
    bracket, curve = _bracket(curve), curve.voting()
    settings = {"above": above, "level": level, "points": len(curve.x), "left_out": left_out}
    settings["times_stable"] = TIMES_STABLE
    if len(curve.x) < 2:
        words = "an onset needs tested exponents at two or more values of the hyper-parameter; this sweep has {values}"
        few = Reason.of("too-few-values", words, values=len(curve.x))
        return _none(bracket, (few, *silent), float("nan"), level, settings)
    limit, stable = _limits(curve, above)
    settings["stable"] = stable
    scale = np.log(curve.x) if (curve.x > 0).all() else curve.x
    error = np.where(np.isfinite(curve.error), curve.error, 0.0)
    cap = np.maximum(np.abs(limit), ERRORS * error)
    cap = np.where(cap > 0, cap, np.inf)
    excess = curve.value - limit
    if isinstance(above, str):
        excess = _agree_with_verdicts(curve, excess, limit)
    at, place = _crossing(scale, excess, cap)
    if at <= 0:
        return _none(bracket, (_why_none(curve, limit, at), *silent), float(limit[-1]), level, settings)
    drawn = excess + error * random_generator(rng).standard_normal((N_RESAMPLES, len(curve.x)))
    splits = [_crossing(scale, row, cap) for row in drawn]
    draws = np.array([crossing for _, crossing in splits])
    back = np.exp if (curve.x > 0).all() else np.asarray
    # Where the exponent bends, the line between two points is off by as much as they are apart: whole cells count.
    inside = np.array([k for k, crossing in splits if np.isfinite(crossing)] or [at])
    low, high = quantiles(curve.x[inside - 1], level)[0], quantiles(curve.x[inside], level)[1]
    low, high = min(low, curve.x[at - 1]), max(high, curve.x[at])
    share = float(np.isfinite(draws).mean())
    reasons = [
        Reason.of(
            "onset",
            "the exponent passes {limit:.3g}{origin} between {below:.4g} ({exponent_below:.3g}) and {above:.4g} "
            "({exponent_above:.3g})",
            limit=limit[at],
            origin="" if settings["above"] != "auto" else _origin(limit[at], curve.duration[at], stable),
            below=curve.x[at - 1],
            exponent_below=curve.value[at - 1],
            above=curve.x[at],
            exponent_above=curve.value[at],
        )
    ]
    reasons += gaps(curve.x, [at - 1], run=sorted({*curve.x.tolist(), *(x for xs in left_out.values() for x in xs)}))
    stray = int(np.sum((excess > 0) != (np.arange(len(curve.x)) >= at)))
    if stray:
        words = "{stray} of {values} values and their neighbours lie on opposite sides of the limit"
        reasons.append(Reason.of("stray-values", words, stray=stray, values=len(curve.x)))
    if share < SHARE:
        words = "only {share:.0%} of the resamples have an onset: it is within the noise of the exponents"
        reasons.append(Reason.of("hidden-by-noise", words, share=share))
    if not np.isfinite(curve.error[[at - 1, at]]).all():
        words = "the exponents on either side of the onset have no interval; they were not resampled"
        reasons.append(Reason("interval-unknown", words))
    return Onset(
        value=float(back(place)),
        interval=(float(low), float(high)),
        bracket=bracket,
        above=float(np.interp(place, scale, limit)),
        found=share >= SHARE,
        reasons=(*reasons, *silent),
        draws=np.asarray(back(draws)),
        level=level,
        settings=settings | {"share": share},
    )


@dataclass(frozen=True, eq=False)
class Curve:
    """Exponents against x.

    Attributes
    ----------
    x : ndarray of float64, shape (n,)
        Values of the hyper-parameter, in order.
    value, error : ndarray of float64, shape (n,)
        Mean exponent there, and its standard error; NaN where it is unknown.
    duration : ndarray of float64, shape (n,)
        For how long the growth was measured.
    verdict : tuple of str
        Of the runs that vote; ``"mixed"`` where some of them are sensitive and some regular. Where no run votes: why
        (``"inconclusive"``, ``"not converged"``, ``"diverging"``, ``"diverged"`` or ``"dead"``).
    left_out : tuple of (float, str)
        x of each run that does not vote, and why.
    n_runs : int
        Number of runs.
    """

    x: Floats
    value: Floats
    error: Floats
    duration: Floats
    verdict: tuple[str, ...]
    left_out: tuple[tuple[float, str], ...] = ()
    n_runs: int = 0

    @property
    def votes(self) -> NDArray[np.bool_]:
        """Where a run was tested, and trained."""
        return np.array([v in VOTING for v in self.verdict], dtype=bool)

    @property
    def sensitive(self) -> NDArray[np.bool_]:
        """Where the verdict says sensitive dependence."""
        return np.array([v in SENSITIVE for v in self.verdict], dtype=bool)

    @property
    def regular(self) -> NDArray[np.bool_]:
        """Where the verdict says regular."""
        return np.array([v == "regular" for v in self.verdict], dtype=bool)

    def voting(self) -> Curve:
        """Keep the values that vote on the onset."""
        votes = self.votes
        words = tuple(v for v in self.verdict if v in VOTING)
        kept = (self.x[votes], self.value[votes], self.error[votes], self.duration[votes])
        return Curve(*kept, words, self.left_out, self.n_runs)


def _agree_with_verdicts(curve: Curve, excess: Floats, limit: Floats) -> Floats:
    """Put tested values on the side of the limit that their verdict says."""
    # The verdict is a test of the run itself; the limit of the other runs only says how far from the onset it is.
    least = np.abs(curve.value) / TIMES_STABLE
    excess = np.where(curve.sensitive, np.maximum(excess, least), excess)
    return np.where(curve.regular, np.minimum(excess, -np.abs(limit) / TIMES_STABLE), excess)


def _left_out(curve: Curve) -> Iterator[Reason]:
    """Count the runs that do not vote, by cause."""
    for word, (code, words) in SILENT.items():
        values = [x for x, why in curve.left_out if why == word]
        if values:
            where = ", ".join(f"{x:.4g}" for x in sorted(set(values))[:SHOWN])
            where += ", ..." * (len(set(values)) > SHOWN)
            text = "{count} of {runs} runs (at {where}) have {words} and do not vote"
            yield Reason.of(code, text, count=len(values), runs=curve.n_runs, where=where, words=words)


def gaps(x: Floats, cells: Sequence[int], run: Sequence[float] | None = None) -> list[Reason]:
    """Say which of the cells from x[k] to x[k + 1] are wide, and that nothing in between was run.

    `run`: all values that were run, with those that do not vote.
    """
    run, wide = x.tolist() if run is None else run, []
    for k in cells:
        low, high = float(x[k]), float(x[k + 1])
        far = high > SPARSE * low * (1 + 1e-9) if (x > 0).all() else high - low > SPARSE_SHARE * float(np.ptp(x))
        if far and not any(low < value < high for value in run):
            words = "between {low:.4g} and {high:.4g} nothing was run"
            wide.append(Reason.of("sparse-grid", words, low=low, high=high))
    return wide


def _limits(curve: Curve, above: float | str) -> tuple[Floats, float]:
    """The exponent that counts as sensitive at each x, and the largest stable one before the first sensitive."""
    if not isinstance(above, str):
        return np.full(len(curve.x), float(above)), float("nan")
    first = int(np.argmax(curve.sensitive)) if curve.sensitive.any() else len(curve.x)
    regular = curve.regular
    regular[first:] = False
    stable = float(curve.value[regular].max(initial=0.0))
    known = np.isfinite(curve.duration) & (curve.duration > 0)
    e_fold = np.where(known, 1.0 / np.where(known, curve.duration, 1.0), 0.0)
    return np.maximum(TIMES_STABLE * stable, e_fold), stable


def _origin(limit: float, duration: float, stable: float) -> str:
    """Say where an automatic limit comes from: it differs from sweep to sweep."""
    if limit > TIMES_STABLE * stable:
        return f" (one e-fold in the {duration:.4g} units of time over which growth was measured)"
    return f" ({TIMES_STABLE:g} times the largest regular exponent)"


def _crossing(scale: Floats, excess: Floats, cap: Floats) -> tuple[int, float]:
    """Split with the fewest points on the wrong side, and where the line between its two neighbours crosses."""
    # A point counts by how far it is from its limit, up to a cap, so that neither noise nor an outlier moves the split.
    weight = np.clip(excess, -cap, cap)
    wrong_below = np.concatenate([[0.0], np.cumsum(np.maximum(weight, 0.0))])
    wrong_above = np.concatenate([np.cumsum(np.maximum(-weight, 0.0)[::-1])[::-1], [0.0]])
    at = int(np.argmin(wrong_below + wrong_above))
    if at in (0, len(excess)):
        return (0 if at == 0 else -1), float("nan")
    share = -excess[at - 1] / (excess[at] - excess[at - 1])
    return at, float(scale[at - 1] + share * (scale[at] - scale[at - 1]))


def _none(
    bracket: tuple[float, float], reasons: tuple[Reason, ...], above: float, level: float, settings: dict[str, Any]
) -> Onset:
    nothing = (float("nan"), float("nan"))
    return Onset(float("nan"), nothing, bracket, above, False, reasons, np.empty(0), level, settings)


def _bracket(curve: Curve) -> tuple[float, float]:
    """Largest x up to which every verdict is regular, smallest that is sensitive."""
    regular = curve.regular
    leading = int(np.argmin(regular)) if not regular.all() else len(regular)
    sensitive = np.flatnonzero(curve.sensitive)
    low = float(curve.x[leading - 1]) if leading else float("nan")
    return low, float(curve.x[sensitive[0]]) if len(sensitive) else float("nan")


def quantiles(draws: Floats, level: float) -> tuple[float, float]:
    """Interval of draws, those without a value left out."""
    known = draws[np.isfinite(draws)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _why_none(curve: Curve, limit: Floats, at: int) -> Reason:
    numbers = {"first": curve.x[0], "last": curve.x[-1], "limit": limit[0 if at == 0 else -1]}
    if at == 0:
        words = (
            "the exponent is above {limit:.3g} from the smallest value on: no onset in {first:.4g} to {last:.4g}; go "
            "lower"
        )
        return Reason.of("onset-below-range", words, **numbers)
    over = np.flatnonzero(curve.value > limit)
    single = f" except for {len(over)} isolated values above it" if len(over) else ""
    return Reason.of(
        "onset-above-range",
        "the exponent is below {limit:.3g} up to the largest value{single}: no onset in {first:.4g} to {last:.4g}; go "
        "higher",
        single=single,
        **numbers,
    )


def curve_of(points: Sequence[SweepPoint]) -> Curve:
    """Put the runs at each x together; controls and runs without an exponent are left out."""
    with_exponent = [p for p in points if not p.control and p.exponent is not None]
    groups = [[p for p in with_exponent if p.x == x] for x in sorted({p.x for p in with_exponent})]
    means = [combine(group) for group in groups]
    value, error, duration = (np.array([row[k] for row in means], dtype=np.float64) for k in range(3))
    left_out = tuple((p.x, why) for p in with_exponent if (why := _silent(p)))
    xs = np.array([group[0].x for group in groups], dtype=np.float64)
    return Curve(xs, value, error, duration, tuple(row[3] for row in means), left_out, len(with_exponent))


def _silent(point: SweepPoint) -> str:
    """Why a run does not vote; empty if it does."""
    exponent = point.exponent
    if point.outcome != "trained":
        return point.outcome
    if exponent is None or exponent.verdict == "inconclusive" or not np.isfinite(exponent.value):
        return "inconclusive"
    if exponent.verdict == "diverging":
        return "diverging"
    return "not converged" if "not-converged" in codes((*exponent.reasons, *exponent.warnings)) else ""


def combine(points: Sequence[SweepPoint]) -> tuple[float, float, float, str]:
    """Mean exponent, its standard error, measured time and verdict of the runs of one value that vote, else of all."""
    voting = [p for p in points if not _silent(p)]
    exponents = [p.exponent for p in voting or points if p.exponent is not None]
    exponents = [e for e in exponents if np.isfinite(e.value)]
    words = {e.verdict for e in exponents} if voting else {_silent(p) for p in points}
    kinds = {word in SENSITIVE for word in words}
    verdict = "mixed" if voting and len(kinds) > 1 else words.pop() if len(words) == 1 else _common(words, voting)
    if not exponents:
        return float("nan"), float("nan"), float("nan"), verdict
    values = np.array([e.value for e in exponents])
    errors = np.array([_error(e) for e in exponents])
    error = float(np.sqrt(np.sum(errors**2))) / len(errors)
    if len(values) > 1:  # runs that differ by their seed differ by more than their intervals say
        error = max(error, float(values.std(ddof=1)) / np.sqrt(len(values))) if np.isfinite(error) else float("nan")
    spans = [e.window[1] - e.window[0] for e in exponents]
    return float(values.mean()), error, float(np.mean(spans)), verdict


def _error(exponent: Exponent) -> float:
    """Standard error; of units that scatter too little for an interval, what they say."""
    low, high = exponent.interval
    if np.isfinite(high - low):
        return (high - low) / 2 / _quantile(exponent.level)
    return float(exponent.settings.get("standard_error", float("nan")))


def _common(words: set[str], voting: Sequence[SweepPoint]) -> str:
    """One word for several: the weakest of the sensitive verdicts, or the first cause for not voting."""
    order = ("sensitive", "transient", "chaotic") if voting else tuple(SILENT)
    return next(word for word in order if word in words)


def _quantile(level: float) -> float:
    """Two-sided quantile of the normal distribution, by bisection; scipy would cost its import."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if erf(middle / 2**0.5) < level else (low, middle)
    return low


def fastest(sweep: Sweep, threshold: float | None, *, level: float, rng: RNGLike) -> Fastest:
    """Find the minimum of the training time of a sweep over one hyper-parameter; see `Sweep.fastest`."""
    points = [p for p in sweep.points if not p.control]
    row = select_threshold(points, sweep.thresholds, threshold)
    x, times = medians(points, row)
    middle = np.array([median(t) for t in times])
    accuracy = sweep.thresholds[row]
    if not np.isfinite(middle).any():
        words = "at no value do half of the initial conditions reach the accuracy {accuracy:g}"
        if not any(p.times.shape[1] for p in points):
            words = "no run has the metric of accuracy that training times are read from"
        never = Reason.of("accuracy-not-reached", words, accuracy=accuracy)
        nothing = (float("nan"), float("nan"))
        unit = sweep.time_unit
        return Fastest(
            float("nan"), nothing, float("inf"), nothing, accuracy, False, (never,), np.empty(0), unit, level
        )
    best = int(np.argmin(middle))
    draws = _draws(x, times, random_generator(rng))
    low, high = quantiles(draws, level)
    low, high = min(low, x[max(0, best - 1)]), max(high, x[min(len(x) - 1, best + 1)])
    near = x[middle <= NEAR * middle[best]]
    inside = 0 < best < len(x) - 1
    arrived = float(np.isfinite(times[best]).mean())
    reasons = [
        Reason.of(
            "fastest",
            "the median time to {accuracy:g} is {time:.4g} {unit}s at {value:.4g}, where {share:.0%} of "
            + counted(len(times[best]), "initial condition")
            + (" reaches it" if len(times[best]) == 1 else " reach it"),
            accuracy=accuracy,
            time=middle[best],
            unit=sweep.time_unit,
            value=x[best],
            share=arrived,
            count=len(times[best]),
        )
    ]
    around = range(max(0, best - 1), min(len(x) - 1, best + 1))
    reasons += gaps(x, around)
    if not inside:
        reasons.append(Reason("end-of-range", "the minimum lies at an end of the range: extend the sweep"))
    if min(len(t) for t in times[max(0, best - 1) : best + 2]) < 2:
        words = "at the minimum or beside it there is a single initial condition: how far its time scatters is unknown"
        reasons.append(Reason("interval-unknown", words))
    fewest = min(len(t) for t in times)
    if fewest < 5:
        words = f"some values have only {counted(fewest, 'initial condition')}: the interval is rough"
        reasons.append(Reason.of("few-initial-conditions", words, count=fewest))
    span = (float(near[0]), float(near[-1]))
    interval = (float(low), float(high))
    found = (float(x[best]), interval, float(middle[best]), span, accuracy, inside, tuple(reasons), draws)
    return Fastest(*found, sweep.time_unit, level)


def select_threshold(points: Sequence[SweepPoint], thresholds: Sequence[float], asked: float | None) -> int:
    """Choose the threshold of the training time."""
    if asked is not None:
        near = [k for k, value in enumerate(thresholds) if abs(value - asked) < 1e-12]
        if not near:
            raise SelectionError(f"threshold {asked:g} is none of the sweep's: {', '.join(map(str, thresholds))}")
        return near[0]
    good = [k for k in range(len(thresholds)) if any(p.times.shape[1] and p.reached[k] >= 0.5 for p in points)]
    return max(good, default=0)


def medians(points: Sequence[SweepPoint], row: int) -> tuple[Floats, list[Floats]]:
    """Training times at each x, the initial conditions of all runs there put together."""
    xs = sorted({p.x for p in points if p.times.shape[1]})
    return np.array(xs), [np.concatenate([p.times[row] for p in points if p.x == x]) for x in xs]


def _draws(x: Floats, times: list[Floats], rng: np.random.Generator) -> Floats:
    """The minimum of the median training time in resamplings of the initial conditions."""
    drawn = np.empty((N_RESAMPLES, len(x)))
    for k, values in enumerate(times):
        ordered = np.sort(values[rng.integers(0, len(values), size=(N_RESAMPLES, len(values)))], axis=1)
        low, high = ordered[:, (len(values) - 1) // 2], ordered[:, len(values) // 2]
        drawn[:, k] = np.where(np.isinf(high), low, (low + np.where(np.isinf(high), low, high)) / 2)
    return np.where(np.isfinite(drawn.min(axis=1)), x[np.argmin(drawn, axis=1)], np.nan)


def median(times: Floats) -> float:
    """Median with the infinite times at the end; the lower of two middle values if the upper is infinite."""
    ordered = np.sort(times)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(low) if np.isinf(high) else float((low + high) / 2)


def coincidence(sweep: Sweep, threshold: float | None, *, level: float, rng: RNGLike) -> Coincidence:
    """Compare the minimum of the training time with the onset; see `Sweep.coincidence`."""
    random = random_generator(rng)
    begins, quickest = sweep.onset(level=level, rng=random), sweep.fastest(threshold, level=level, rng=random)
    control = _control(sweep, quickest)
    if not begins.found or not np.isfinite(quickest.value):
        missing = begins.reasons if not begins.found else quickest.reasons
        return _undecided((*missing, *control), begins, quickest)
    unknown = [r for r in (*begins.reasons, *quickest.reasons) if r.code == "interval-unknown"]
    if unknown:  # without one of the two intervals, their ratio is a number without a meaning
        return _undecided((*unknown, *control), begins, quickest)
    if not min(begins.interval[0], quickest.interval[0]) > 0:
        words = "the values are not all positive, so the ratio of two of them means nothing"
        return _undecided((Reason("no-ratio", words), *control), begins, quickest)
    ratio = quickest.value / begins.value
    with np.errstate(invalid="ignore"):
        low, high = quantiles(random.permutation(quickest.draws) / begins.draws, level)
    low = min(low, quickest.interval[0] / begins.interval[1])
    high = max(high, quickest.interval[1] / begins.interval[0])
    doubts = [r for r in quickest.reasons if r.code == "end-of-range"]
    if high > WIDE * low:
        words = (
            "training is fastest somewhere between {low:.2g} and {high:.2g} times the onset: a range of more than a "
            "factor of {most:g} decides nothing"
        )
        sparse = [r for r in (*begins.reasons, *quickest.reasons) if r.code == "sparse-grid"]
        gaps_between = {(r.numbers["low"], r.numbers["high"]): r for r in sparse}.values()
        reasons = [Reason.of("wide-ratio", words, low=low, high=high, most=WIDE), *doubts, *gaps_between]
        ratio, verdict = float("nan"), "not decided"
    else:
        words = "training is fastest at {ratio:.3g} times the onset [{low:.3g}, {high:.3g}]"
        reasons = [Reason.of("fastest-over-onset", words, ratio=ratio, low=low, high=high), *doubts]
        verdict = "not decided" if doubts else "coincide" if low <= 1 <= high else "differ"
    return Coincidence(ratio, (float(low), float(high)), verdict, (*reasons, *control), begins, quickest)


def _undecided(reasons: tuple[Reason, ...], begins: Onset, quickest: Fastest) -> Coincidence:
    return Coincidence(float("nan"), (float("nan"), float("nan")), "not decided", reasons, begins, quickest)


def _control(sweep: Sweep, quickest: Fastest) -> tuple[Reason, ...]:
    """What the stable controls of equal step length say about the minimum."""
    controls = [p for p in sweep.points if p.control]
    if not controls:
        words = "no stable control in the sweep: whether chaos causes the minimum was not tested"
        return (Reason("no-control", words),)
    x, times = medians(controls, sweep.thresholds.index(quickest.threshold))
    beyond = x > quickest.value
    if not beyond.any() or not np.isfinite(quickest.time):
        return (Reason("no-control", "no control beyond the minimum"),)
    middle = np.array([median(t) for t in times])[beyond]
    best = int(np.argmin(middle))
    if middle[best] < FASTER * quickest.time:
        words = (
            "the stable control of equal step length reaches {time:.4g} {unit}s at {value:.4g}, faster than the "
            "minimum: instability ends the speed-up and does not cause it"
        )
        numbers = {"time": middle[best], "value": x[beyond][best]}
        return (Reason.of("control-faster", words, unit=sweep.time_unit, **numbers),)
    words = (
        "the stable control of equal step length is no faster beyond the minimum ({time:.4g} at best): the minimum is "
        "not explained by instability alone"
    )
    return (Reason.of("control-no-faster", words, time=middle[best]),)
