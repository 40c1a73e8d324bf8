"""The exponent of one trajectory: its states, parameters from the data, checks, the curve, its null and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trajtools.distances.metric import Metric, MetricLike, bind_metric, find_metric
from trajtools.distances.pairwise import Distances
from trajtools.embedding import Choice, embed, estimate_delay, estimate_dimension
from trajtools.errors import DataError, TooLargeError, UnknownNameError
from trajtools.exponents.applicability import (
    SUGGEST_TWINS,
    TWINS,
    Optimizer,
    Probe,
    objections,
    optimizer_of,
    probe,
    probe_distances,
)
from trajtools.exponents.divergence import Divergence
from trajtools.exponents.exponent import Exponent, unknown_exponent, with_steps
from trajtools.exponents.fit_neighbors import BOUNDED
from trajtools.exponents.following import GRAPH_L1, LENGTHS, as_links, check_nodes, normalised, sampling
from trajtools.exponents.neighbor_methods import kantz, rosenstein
from trajtools.exponents.nulls import PLAIN, Tested, against_surrogates
from trajtools.exponents.verdict import no_null
from trajtools.exponents.wolf import hybrid, wolf
from trajtools.neighbors.rules import WithinRadius
from trajtools.neighbors.states import GIVEN, MATRIX_STATES, METRICS, has_directions
from trajtools.neighbors.theiler import PROJECTED, clipped, projected, theiler_window, window_of_distances
from trajtools.reasons import Reason, codes
from trajtools.statistics import DECISION
from trajtools.trajectory import Trajectory
from trajtools.types import Floats, Ints, RNGLike
from trajtools.wiring import Parameter

METHODS: dict[str, Any] = {"rosenstein": rosenstein, "kantz": kantz, "wolf": wolf, "hybrid": hybrid}
LARGEST = 1e100  # number that is squared
LONGEST = 2000  # samples that pairs are followed which do not part
REPLACED = 16  # one part in so many of the time to saturation is how long a pair is followed before it may be replaced
MOST_IN_BALL = 16  # neighbours of a state that kantz follows: those of a dense region know no more
BENT = 0.5  # of the slope: a window whose thirds differ by more holds no exponential regime
MOST_DISTANCES = 16_384  # 2 GiB of distances, which the estimators read at random
SCALED_STATES = 1500  # that classical scaling turns into coordinates: its time grows with their cube
SCALED_DIMENSION = 64
NEGATIVE = 1e-4  # of the sum of the sizes of the eigenvalues: distances with more are not Euclidean
NOT_EUCLIDEAN = (
    "no null can be drawn from these distances: they are not Euclidean ({share:.1%} of their scalar products are "
    "negative), so there are no states to make surrogates of; give the states, or Euclidean distances"
)


MISSING = (
    "no null can be drawn from these distances: some are missing between states that have others, so the states cannot "
    "be reconstructed; give the states"
)


REFINED_STATES = 160_000  # at most, after interpolation
REFINED_DIMENSION = 20
FINEST = 8  # samples that one is divided into, at most
SMOOTH = 0.1  # of the distance of neighbours: the largest error of an interpolation that may be used
HALVING = 10.0  # by which half the spacing lowers that error at least; fourth order would be 16
COUNTERS = ("step", "count", "steps")  # buffers that only say how late it is
CHECKED = "Euclidean distances of the states: the checks and the null use these, whatever the metric"
HIDDEN = (
    "the optimiser keeps buffers (momentum or moments), so nearby weights can part without sensitivity; record the "
    "buffers, too, give delay coordinates (dim=2 or more, delay=1), or use twins"
)


@dataclass(frozen=True, eq=False)
class Options:
    """What the caller chose; None where the data are to choose.

    Attributes
    ----------
    method : str
        Estimator.
    metric : str or Metric
        Distance between states.
    average : str or None
        Of Kantz's estimator.
    neighbors : object
        Rule of the estimator.
    theiler, horizon, dim, delay : int or None
        In samples; dimension of the embedding.
    dt : float or None
        Time between two samples.
    region : "auto" or (float, float)
        Of the fit.
    null : str or None
        ``"auto"``, a name, or None for no test.
    surrogates : int
        How many.
    level : float
        Confidence level.
    rng : int, numpy.random.Generator or None
        Source of draws.
    optimizer : Optimizer
        Of the training, for the null of a quadratic basin.
    """

    method: str
    metric: str | Metric
    average: str | None = None
    neighbors: Any = None
    theiler: int | None = None
    horizon: int | None = None
    dim: int | None = None
    delay: int | None = None
    dt: float | None = None
    region: str | tuple[float, float] = "auto"
    null: str | None = "auto"
    surrogates: int = 99
    level: float = 0.95
    rng: RNGLike = 0
    optimizer: Optimizer = PLAIN


def exponent_of_states(
    x: Any, options: Options, *, clock: tuple[float, str], doubts: tuple[Reason, ...] = ()
) -> Exponent:
    """Exponent of one trajectory from its recurrences."""
    try:
        if isinstance(x, Distances):
            ready = prepare_distances(x, options)
            seen = probe_distances(ready.states, theiler=ready.theiler, floor=x.floor)
        else:
            ready = prepare_states(x, options)
            seen = probe(ready.small, theiler=ready.theiler, dtype=ready.dtype)
    except DataError as problem:
        return _no_exponent(options, clock, (_refused(problem), *doubts))
    against = (*doubts, *objections(seen, theiler=ready.theiler))
    try:
        growth = curve_of(ready, seen, options, clock)
    except DataError as problem:
        return _no_exponent(
            options, clock, (*against, _refused(problem)), ready.choices | {"probe": _probe_settings(seen)}
        )
    found = growth.fit(options.region, level=options.level, rng=options.rng)
    verdict, reasons = found.verdict, found.reasons
    tested = Tested()
    untested = "not-tested" in codes(reasons)
    promising = untested and not against and found.settings["p_zero"] <= DECISION
    if options.null is not None and (promising or options.null != "auto") and ready.no_null is None:
        tested = against_surrogates(
            ready.small if ready.series.shape[1] > 1 else ready.series[:, :1],
            options.null,
            embedding=(1, 1) if ready.series.shape[1] > 1 else (ready.dim, ready.delay),
            theiler=ready.theiler,
            horizon=max(seen.saturation, 4),
            count=options.surrogates,
            rng=np.random.default_rng(options.rng),
            optimizer=options.optimizer,
        )
    if untested:
        verdict, reasons = _judge(found, seen, tested, options, ready.no_null)
    if against:
        verdict, reasons = "inconclusive", (*against, *reasons)
    p_values = [p for p in (tested.p_value, found.settings["p_zero"]) if np.isfinite(p)]
    return replace(
        found,
        verdict=verdict,
        reasons=reasons,
        null=tested.words,
        p_value=max(p_values) if tested.words and p_values else float("nan"),
        settings={
            **found.settings,
            **ready.choices,
            **tested.settings,
            "null": tested.name or None,
            "no_null": ready.no_null.code if ready.no_null is not None else None,
            "probe": _probe_settings(seen),
            "value_of_half_record": _of_half(ready, seen, options, clock),
        },
    )


def curve_of(
    ready: Prepared, seen: Probe, options: Options, clock: tuple[float, str], half: bool = False
) -> Divergence:
    """Call the estimator with parameters from the data."""
    states = ready.states
    if half:
        first = slice(len(states) // 2)
        states = states[first, first] if options.metric == GIVEN else states[first]
    dt, unit = clock
    followed = options.method in ("rosenstein", "kantz")
    wanted = seen.saturation + seen.saturation // 3 + 4 if followed else max(seen.saturation // REPLACED, 4)
    if followed and seen.rise < BOUNDED:
        wanted = min(len(states) // 8, LONGEST)  # nothing saturates: see whether neighbours stay neighbours
    horizon = options.horizon if options.horizon is not None else int(np.clip(wanted, 4, max(len(states) // 4, 4)))
    finer, step = fineness(ready.states, seen, options.metric)
    finer = finer if followed else 1
    states = interpolated(states, finer)
    arguments: dict[str, Any] = {
        "metric": options.metric,
        "neighbors": options.neighbors,
        "theiler": ready.theiler * finer,
        "horizon": horizon * finer,
        "dt": dt / finer,
    }
    if options.method == "kantz" and options.neighbors is None:
        arguments["neighbors"] = WithinRadius(max_neighbors=MOST_IN_BALL)
    if not followed and options.metric in ("l2", GIVEN):  # what was seen is in the units of these
        # A pair that is kept must have room for another block below a tenth of where distances saturate.
        grown = seen.rise * horizon / max(seen.saturation, 1)
        arguments["limit"] = 0.1 * float(np.exp(seen.log_distance[0] + seen.rise - min(grown, seen.rise)))
    across = step > 0 and options.metric == "l2" and has_directions(states)
    if across:
        arguments |= {"across": True} | ({"stride": finer} if followed else {})
    if options.average is not None and options.method == "kantz":
        arguments["average"] = options.average
    growth = METHODS[options.method](states, **arguments)
    return replace(
        growth,
        time_unit=unit,
        settings={**growth.settings, "interpolated": finer, "distance_along": 0.0 if across else step / finer / 4},
    )


@dataclass(frozen=True, eq=False)
class Prepared:
    """States, ready to be analysed, and how they came about.

    Attributes
    ----------
    series : ndarray of float64, shape (T, c)
        What was given.
    states : ndarray of float64, shape (T', d)
        Embedded, if so chosen.
    small : ndarray of float64, shape (T', d')
        The same for checks and nulls, projected where there are many dimensions.
    dim, delay, theiler : int
        As used.
    dtype : dtype
        That the numbers were stored in.
    choices : dict
        Every choice with its statistic.
    no_null : Reason or None
        Why no null can be drawn from these data.
    """

    series: Floats
    states: Floats
    small: Floats
    dim: int
    delay: int
    theiler: int
    dtype: np.dtype[Any]
    choices: dict[str, Any] = field(default_factory=dict)
    no_null: Reason | None = None


def fineness(states: Floats, seen: Probe, metric: MetricLike) -> tuple[int, float]:
    """How finely to interpolate, and the distance between samples.

    Neighbours of a sampled flow are apart along it by a quarter of a sample on average.
    """
    if seen.rise < BOUNDED or states.shape[1] > REFINED_DIMENSION or not np.isfinite(states).all():
        return 1, 0.0
    part = states[: min(len(states), 5001)]
    near = float(np.exp(seen.log_distance[0]))
    even, odd = part[::2], part[3:-3:2]
    between = (9 * (even[1:-2] + even[2:-1]) - even[:-3] - even[3:])[: len(odd)] / 16
    rough = np.sqrt(np.sum((between - odd[: len(between)]) ** 2, axis=1))
    # Between four points interpolation is off nine times as far as a spline: then none is loaded, which takes time.
    if len(rough) and float(np.quantile(rough, 0.95)) > 30 * HALVING * SMOOTH * near:
        return 1, 0.0
    from scipy.interpolate import CubicSpline

    coarse = CubicSpline(np.arange(0, len(part), 2), part[::2])
    error = np.sqrt(np.sum((coarse(np.arange(1, len(part) - 1, 2)) - part[1:-1:2]) ** 2, axis=1))
    if not float(np.quantile(error, 0.95)) < HALVING * SMOOTH * near:
        return 1, 0.0
    step = float(np.median(np.sqrt(np.sum(np.diff(part, axis=0) ** 2, axis=1))))
    wanted = int(np.ceil(2 * step / near))
    most = REFINED_STATES if isinstance(metric, str) else MATRIX_STATES
    return int(np.clip(min(wanted, most // len(states)), 1, FINEST)), step


def interpolated(states: Floats, finer: int) -> Floats:
    """Divide each sample by cubic splines."""
    if finer == 1:
        return states
    from scipy.interpolate import CubicSpline

    at = np.arange((len(states) - 1) * finer + 1) / finer
    return np.asarray(CubicSpline(np.arange(len(states)), states)(at))


def _judge(
    found: Exponent, seen: Probe, tested: Tested, options: Options, missing: Reason | None
) -> tuple[str, tuple[Reason, ...]]:
    grown = found.reasons[0]
    if found.interval[1] < 0:
        return "regular", (grown, Reason("contracts", "the whole interval of the exponent lies below zero"))
    p_zero = found.settings["p_zero"]
    if p_zero > DECISION:
        words = "an exponent of zero cannot be excluded at the 1 % level (p = {p:.3g})"
        return "inconclusive", (grown, Reason.of("zero-not-excluded", words, p=p_zero))
    if found.settings["bend"] > BENT * found.value:
        bent = Reason.of(
            "slopes-differ",
            "the local slopes differ from it by a factor of up to {factor:g}: there is no exponential regime; record "
            "more states, so that neighbours are closer",
            factor=BENT,
        )
        return "inconclusive", (grown, bent)
    if options.null is None:
        return "inconclusive", (grown, no_null("auto"))
    if not np.isfinite(tested.p_value):
        return "inconclusive", (grown, missing or Reason("no-surrogate", "no surrogate could be drawn from these data"))
    if not tested.p_value <= DECISION:
        words = "{null} is as predictable (p = {p:.3g}, {surrogates} surrogates)"
        numbers = {"p": tested.p_value, "surrogates": options.surrogates}
        return "inconclusive", (grown, Reason.of("null-not-rejected", words, null=tested.words, **numbers))
    returns = Reason.of(
        "persistent",
        "it is stationary and its neighbours return from {apart:.0%} of the record away (median), so the sensitivity "
        "persists",
        apart=seen.time_apart,
    )
    rejected = Reason.of(
        "null-rejected",
        "none of {surrogates} surrogates ({null}) is as predictable (p = {p:.3g})",
        surrogates=options.surrogates,
        null=tested.words,
        p=tested.p_value,
    )
    return "chaotic", (grown, returns, rejected)


def prepare_distances(x: Distances, options: Options) -> Prepared:
    """Check distances, choose the Theiler window, and find coordinates for the null."""
    if len(x) > MOST_DISTANCES:
        raise TooLargeError(
            f"following pairs reads distances at random, in memory: of at most {MOST_DISTANCES} states, these are "
            f"{len(x)}. Take a part of them (window=), or give the states"
        )
    matrix = tame(np.asarray(x.read(0, len(x)), dtype=np.float64))
    usable = np.flatnonzero(np.count_nonzero(np.isfinite(matrix), axis=1) > 1)
    if len(usable) < 20:
        raise DataError(f"{len(usable)} states with distances are too few for a time scale; record more")
    if not np.nanmax(matrix[usable[0]]) > 0:
        raise DataError("all states are equal: they have no neighbours apart; nothing moves, so nothing diverges")
    choices: dict[str, Any] = {}
    theiler = options.theiler
    if theiler is None:
        chosen = window_of_distances(matrix, usable)
        theiler = clipped(chosen.value, len(matrix))
        choices["theiler_choice"] = {
            name: getattr(chosen, name) for name in ("value", "method", "reason", "argument", "statistic", "warnings")
        }
    choices |= {"dim": 1, "delay": 1, "theiler": theiler}
    coordinates, missing = np.empty((0, 0)), None
    if options.null is not None:
        coordinates, share = scaled(matrix, usable)
        choices["not_euclidean"] = share
        if coordinates.size:
            size = f"{coordinates.shape[1]} coordinates from classical scaling of {len(coordinates)} states"
            choices["tested_in"] = size
        elif np.isfinite(share):
            missing = Reason.of("not-euclidean", NOT_EUCLIDEAN, share=share)
        else:
            missing = Reason("missing-distances", MISSING)
    return Prepared(matrix, matrix, coordinates, 1, 1, theiler, np.dtype(np.float64), choices, missing)


def tame(matrix: Floats) -> Floats:
    """Bring distances whose squares overflow or vanish to one: an exponent knows no scale."""
    some = matrix[:: max(1, len(matrix) // 500)]
    some = some[np.isfinite(some) & (some > 0)]
    typical = float(np.median(some)) if len(some) else 1.0
    if not 1 / LARGEST < typical < LARGEST:
        matrix = matrix / typical
    largest = max((float(np.max(row, initial=0.0, where=np.isfinite(row))) for row in matrix), default=0.0)
    return matrix if largest < LARGEST else np.where(matrix < LARGEST, matrix, np.nan)


def scaled(matrix: Floats, usable: Ints) -> tuple[Floats, float]:
    """Coordinates of a stretch of the states, if their distances are Euclidean (classical scaling)."""
    gaps = np.flatnonzero(np.diff(usable) != 1)
    edges = np.concatenate([[0], gaps + 1, [len(usable)]])
    at = int(np.argmax(np.diff(edges)))
    run = usable[edges[at] : edges[at + 1]][:SCALED_STATES]
    square = matrix[run[0] : run[-1] + 1, run[0] : run[-1] + 1] ** 2
    np.fill_diagonal(square, 0.0)
    if not np.isfinite(square).all():
        return np.empty((0, 0)), float("nan")
    rows = square.mean(axis=0)
    products = -(square - rows - rows[:, None] + rows.mean()) / 2
    size, axes = np.linalg.eigh(products)
    total = float(np.abs(size).sum())
    share = float(-size[size < 0].sum() / total) if total > 0 else 0.0
    if share > NEGATIVE:
        return np.empty((0, 0)), share
    real = size > max(-2 * float(size.min()), 1e-12 * float(size.max()))
    coordinates = axes[:, real] * np.sqrt(size[real])
    if coordinates.shape[1] > SCALED_DIMENSION:
        mix = np.random.default_rng(0).standard_normal((coordinates.shape[1], SCALED_DIMENSION))
        coordinates = coordinates @ mix / np.sqrt(SCALED_DIMENSION)
    return coordinates, share


def prepare_states(x: Any, options: Options) -> Prepared:
    """Embed a series, project states of many dimensions, and choose the Theiler window."""
    given = np.asarray(x)
    if not given.size:
        raise DataError(f"the trajectory is empty, its shape is {given.shape}")
    series = _scaled(given.astype(np.float64, copy=False).reshape(len(given), -1))
    finite = np.isfinite(series).all(axis=1)
    if finite.sum() < 20:
        raise DataError(f"{int(finite.sum())} finite states are too few for a time scale; record more")
    if np.ptp(series[finite], axis=0).max() == 0:
        raise DataError("the trajectory is constant: it has no neighbours apart; nothing moves, so nothing diverges")
    choices: dict[str, Any] = {}
    dim, delay = options.dim or 1, options.delay or 1
    if series.shape[1] == 1 and options.dim is None:
        dim, delay = _embedding(series[:, 0], options, choices)
    states = embed(series, dim, delay) if dim > 1 else series
    whole = np.asarray(np.isfinite(states).all(axis=1))
    states = np.where(whole[:, None], states, np.nan)
    small = _projected(states, choices)
    theiler = options.theiler
    if theiler is None:
        chosen = theiler_window(series if series.shape[1] <= 2 * PROJECTED else small)
        theiler = clipped(chosen.value, len(states))
        choices["theiler_choice"] = _summary(chosen)
    choices |= {"dim": dim, "delay": delay, "theiler": theiler}
    return Prepared(series, states, small, dim, delay, theiler, given.dtype, choices)


def _scaled(series: Floats) -> Floats:
    """Bring numbers whose squares overflow or vanish to one: an exponent knows no scale. What is beyond is NaN."""
    size = np.abs(series)
    some = size[np.isfinite(size) & (size > 0)]
    typical = float(np.median(some)) if len(some) else 1.0
    if not LARGEST**-1 < typical < LARGEST:
        series = series / typical
        size = np.abs(series)
    return series if np.all(size < LARGEST) else np.where(size < LARGEST, series, np.nan)


def _projected(states: Floats, choices: dict[str, Any]) -> Floats:
    """States for checks and nulls."""
    if states.shape[1] > 2 * PROJECTED:
        choices["checked_in"] = f"a random projection to {PROJECTED} of {states.shape[1]} dimensions"
    return projected(states)


def _embedding(series: Floats, options: Options, choices: dict[str, Any]) -> tuple[int, int]:
    delay = options.delay
    if delay is None:
        chosen = estimate_delay(series)
        delay, choices["delay_choice"] = chosen.value, _summary(chosen)
    most = int(np.clip((len(series) - 60) // (5 * delay), 1, 10))
    # Cao's criterion fails on steep maps, false neighbours on some flows: each then asks for too many dimensions.
    with np.errstate(all="ignore"):  # neighbours that agree exactly in the new coordinate, too
        found = [
            estimate_dimension(series, delay=delay, max_dim=most, method=name) for name in ("false-neighbors", "cao")
        ]
    dimension = min(found, key=lambda choice: choice.value)
    choices["dim_choice"] = _summary(dimension)
    choices["dim_by_method"] = {choice.method: choice.value for choice in found}
    return dimension.value, delay


def _summary(chosen: Choice) -> dict[str, Any]:
    """The choice with its statistic, thinned to what can be read."""
    stride = max(1, len(chosen.argument) // 50)
    return {
        "value": chosen.value,
        "method": chosen.method,
        "reason": chosen.reason,
        "argument": chosen.argument[::stride],
        "statistic": chosen.statistic[::stride],
        "warnings": chosen.warnings,
    }


def _no_exponent(
    options: Options, clock: tuple[float, str], reasons: tuple[Reason, ...], settings: dict[str, Any] | None = None
) -> Exponent:
    if not set(codes(reasons)) & set(SUGGEST_TWINS):
        reasons = (*reasons, Reason("use-twins", f"or {TWINS}"))
    metric = options.metric if isinstance(options.metric, str) else options.metric.name
    known = {"method": options.method, "metric": metric, **(settings or {})}
    return unknown_exponent(options.method, f"1/{clock[1]}", options.level, reasons, known)


def _probe_settings(seen: Probe) -> dict[str, Any]:
    return {name: value for name, value in seen.to_dict().items() if name not in ("lags", "log_distance")}


def _of_half(ready: Prepared, seen: Probe, options: Options, clock: tuple[float, str]) -> float:
    """The exponent of the first half of the record: whether it settles with T; NaN where there is none."""
    try:
        return curve_of(ready, seen, options, clock, half=True).fit(options.region, level=options.level).value
    except DataError:
        return float("nan")


def _refused(problem: DataError) -> Reason:
    return Reason("not-analysable", str(problem))


def read_record(
    x: Any,
    *,
    metric: MetricLike | None,
    dt: float | None,
    window: tuple[int, int] | None,
    dim: int | None,
    nodes: int | None,
    buffers: bool | None,
) -> Record:
    """Read what `trajtools.lyapunov` was given."""
    doubts: tuple[Reason, ...] = ()
    settings: dict[str, Any] = {}
    optimizer = PLAIN
    if hasattr(x, "hparams") and hasattr(x, "trajectory"):
        optimizer = optimizer_of(x.hparams)
        x, doubts, settings = _of_run(x, optimizer, dim, buffers)
    elif buffers:
        raise DataError("buffers=True joins the weights of a Run with its optimiser's buffers; this is not a Run")
    if window is not None:
        x = _windowed(x, window)
    kernel, name = _metric(metric, x)
    if kernel == GIVEN:
        if dim is not None:
            raise DataError(f"dim={dim}: distances have no coordinates to embed; give the states, or leave dim= out")
        check_nodes(nodes, GIVEN)
        return _of_distances(x, dt, optimizer, doubts)
    spacing, unit, step = sampling(x, dt)
    factor = 1.0
    if kernel == GRAPH_L1:
        x, factor = as_links(x, nodes)
        kernel = "l1"
    else:
        check_nodes(nodes, name)
    states = np.asarray(x)
    if states.dtype.kind not in "fiub" or states.ndim not in (1, 2):
        raise DataError(
            f"a trajectory is an array (T,) or (T, d) of real numbers, got {states.dtype} {states.shape}; for networks "
            "give their links as rows, or name metric='graph-l1'"
        )
    if kernel != "l2":
        settings["checked_with"] = CHECKED
    return Record(states, kernel, (spacing, unit), step, optimizer, factor, doubts, settings)


@dataclass(frozen=True, eq=False)
class Record:
    """States that are ready to be analysed, or their distances.

    Attributes
    ----------
    states : array_like, shape (T, d) or (T,); or Distances
        Numbers, finite or not.
    metric : str or callable
        As `trajtools.neighbors.states.prepare` takes it.
    clock : (float, str)
        Time between two samples, and its unit.
    step : ndarray of int64 or None
        Steps of the states.
    optimizer : Optimizer
        Of the training.
    factor : float
        What distances are multiplied with to be those of the requested metric: 1 but for graphs.
    doubts : tuple of Reason
        Objections that are known already.
    settings : dict
        What was chosen here.
    """

    states: Any
    metric: Any
    clock: tuple[float, str]
    step: Any = None
    optimizer: Optimizer = PLAIN
    factor: float = 1.0
    doubts: tuple[Reason, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def complete(self, exponent: Exponent) -> Exponent:
        """Return an exponent of these states with their steps, in the requested metric."""
        curve = exponent.curve
        settings = exponent.settings | self.settings
        if curve is not None and "distances" in self.settings:
            curve = replace(curve, metric=self.settings["distances"])
        if self.factor != 1.0 and curve is not None:
            curve = normalised(curve, self.factor)
            settings |= {name: curve.settings[name] for name in LENGTHS if name in curve.settings}
            settings["saturation_level"] = exponent.settings.get("saturation_level", np.nan) + np.log(self.factor)
            exponent = replace(exponent, intercept=exponent.intercept + np.log(self.factor))
        if self.factor != 1.0:
            settings |= {"metric": GRAPH_L1, "factor": self.factor}
        exponent = replace(exponent, curve=curve, settings=settings)
        return exponent if self.step is None else with_steps(exponent, self.step)


def _metric(metric: MetricLike | None, x: Any) -> tuple[Any, str]:
    """The metric as the neighbour search takes it, and its name."""
    if isinstance(x, Distances):
        if metric not in (None, GIVEN, x.metric):
            raise DataError(
                f"these distances are in the metric {x.metric!r}, so {metric!r} cannot be had from them; leave metric= "
                "out, or give the states"
            )
        return GIVEN, GIVEN
    if metric is None:
        return "l2", "l2"
    if isinstance(metric, str) and metric in (*METRICS, GRAPH_L1):
        return metric, metric
    try:
        # Bound here: what is analysed are arrays, which know no wiring.
        found = bind_metric(find_metric(metric), x)
    except UnknownNameError as unknown:
        raise UnknownNameError(
            f"{unknown}; for one trajectory there are also {GRAPH_L1!r} and {GIVEN!r} (distances of all pairs)"
        ) from None
    return found, found.name


def _of_run(
    run: Any, optimizer: Optimizer, dim: int | None, buffers: bool | None
) -> tuple[Trajectory, tuple[Reason, ...], dict[str, Any]]:
    """Weights, or weights and buffers, of a run; what is missing of its state; and what was joined."""
    delayed = dim is not None and dim > 1
    recorded = getattr(run, "optimizer", None) is not None
    if buffers and not recorded:
        raise DataError(
            "buffers=True: the run holds no buffers of its optimiser; give delay coordinates in their place "
            "(dim=2 or more, delay=1)"
        )
    joined = recorded and (buffers or (buffers is None and not delayed))
    if joined:
        states, settings = full_state(run)
        covered = settings["buffer_entries"] >= _buffers_of(optimizer) * settings["weight_entries"]
        if covered:
            return states, (), settings
        hidden = Reason.of(
            "hidden-state",
            "{buffers} recorded entries of the optimiser's buffers do not cover {weights} weights: " + HIDDEN,
            buffers=settings["buffer_entries"],
            weights=settings["weight_entries"],
        )
        return states, (hidden,), settings
    if delayed or not (optimizer.has_buffers or recorded):
        return run.trajectory(), (), {}
    return run.trajectory(), (Reason("hidden-state", f"the weights alone are not the state: {HIDDEN}"),), {}


def full_state(run: Any) -> tuple[Trajectory, dict[str, Any]]:
    r"""Weights of a run beside the buffers of its optimiser: a state that says where the training goes next.

    Notes
    -----
    A buffer has a unit of its own (a momentum is a sum of gradients, a second moment that of their squares), so all
    buffers of one kind are multiplied by one constant, after which their spread over the record,
    :math:`\sqrt{\sum_i \mathrm{var}_t}`, equals that of the weights. Exponents do not depend on it; which states are
    neighbours does. Counters (how many steps were made) are time, not state, and are left out.
    """
    source = getattr(run, "run", run)
    path, member = run.trajectory(), int(getattr(run, "member", 0) or 0)
    weights = np.asarray(path, dtype=np.float64)
    rows = np.searchsorted(np.asarray(source.step), path.step)
    names = {one.name for one in source.parameters}
    # Of a selection of parameters only their own buffers; one that names no parameter belongs to all.
    mine = {"", *(one.name for one in path.parameters)}
    table = [one for one in source.optimizer_parameters if not _is_counter(one) and _owner(one.name, names) in mine]
    held = source.optimizer.read(slice(int(rows[0]), int(rows[-1]) + 1), slice(member, member + 1))[:, 0][
        rows - rows[0]
    ]
    room = _spread(weights)
    blocks, scales = [weights], {}
    for kind in dict.fromkeys(_kind(one.name, names) for one in table):
        alike = [held[:, one.offset : one.offset + one.size] for one in table if _kind(one.name, names) == kind]
        block = np.concatenate(alike, axis=1).astype(np.float64)
        size = _spread(block)
        scales[kind] = room / size if size > 0 and room > 0 else 1.0
        blocks.append(block * scales[kind])
    states = np.concatenate(blocks, axis=1)
    settings = {
        "state": "weights and the buffers of the optimiser, each kind scaled to the spread of the weights",
        "buffer_scales": scales,
        "buffer_entries": states.shape[1] - weights.shape[1],
        "weight_entries": weights.shape[1],
    }
    return Trajectory.from_array(states, step=path.step, dt=path.dt, time_unit=path.time_unit), settings


def _spread(states: Floats) -> float:
    finite = states[np.isfinite(states).all(axis=1)]
    return float(np.sqrt(finite.var(axis=0).sum())) if len(finite) else 0.0


def _kind(name: str, parameters: set[str]) -> str:
    """What is left of the name of a buffer without that of its parameter: ``"momentum_buffer"``."""
    held = _owner(name, parameters)
    return (name.replace(held, "", 1) if held else name).strip("./: ") or name


def _owner(name: str, parameters: set[str]) -> str:
    """The parameter that a buffer is of, the longest whose whole name it holds; empty if there is none."""
    words = f".{name.replace('/', '.')}."
    return max((one for one in parameters if f".{one.replace('/', '.')}." in words), key=len, default="")


def _is_counter(buffer: Parameter) -> bool:
    return buffer.size == 1 and any(word in COUNTERS for word in buffer.name.lower().replace("/", ".").split("."))


def _buffers_of(optimizer: Optimizer) -> int:
    """How many entries of buffers each weight has."""
    return 2 if optimizer.adaptive.startswith(("adam", "nadam", "radam", "lamb")) else 1


def _windowed(x: Any, window: tuple[int, int]) -> Any:
    if isinstance(x, (Trajectory, Distances)):
        return x.window(*window)
    return Trajectory.from_array(x).window(*window)


def _of_distances(x: Any, dt: float | None, optimizer: Optimizer, doubts: tuple[Reason, ...]) -> Record:
    """Distances of all pairs of states."""
    if not isinstance(x, Distances):
        x = Distances.from_array(np.asarray(x), time_unit="sample")
    if x.shape[0] != x.shape[1]:
        raise DataError(
            f"one trajectory needs the distances between its own states (T, T); these are {x.shape}, of two "
            "trajectories"
        )
    spacing, unit, step = sampling(x, dt)
    return Record(x, GIVEN, (spacing, unit), step, optimizer, doubts=doubts, settings={"distances": x.metric})
