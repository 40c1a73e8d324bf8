"""The answer of one trajectory: parameters from the data, checks, the curve, its fit, its null and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.embedding import Choice, embed, estimate_delay, estimate_dimension, theiler_window
from trajtools.errors import DataError
from trajtools.estimators.interpolation import fineness, interpolated
from trajtools.exponents.applicability import SUGGEST_TWINS, TWINS, Probe, objections, probe, probe_distances
from trajtools.exponents.divergence import Divergence
from trajtools.exponents.exponent import Exponent
from trajtools.exponents.fit_neighbors import BOUNDED
from trajtools.exponents.neighbor_methods import kantz, rosenstein
from trajtools.exponents.nulls import PLAIN, Tested, against_surrogates
from trajtools.exponents.verdict import no_null
from trajtools.exponents.wolf import hybrid, wolf
from trajtools.neighbors.rules import WithinRadius
from trajtools.neighbors.states import GIVEN, MetricOfStates, has_directions
from trajtools.optimizers import Optimizer
from trajtools.reasons import Reason, codes
from trajtools.statistics import DECISION
from trajtools.types import Floats

METHODS: dict[str, Any] = {"rosenstein": rosenstein, "kantz": kantz, "wolf": wolf, "hybrid": hybrid}
PROJECTED = 32  # dimensions that checks and nulls use of states with more than twice as many
LARGEST = 1e100  # number that is squared
LONGEST = 2000  # samples that pairs are followed which do not part

REPLACED = 16  # one part in so many of the time to saturation is how long a pair is followed before it may be replaced
MOST_IN_BALL = 16  # neighbours of a state that kantz follows: those of a dense region know no more
BENT = 0.5  # of the slope: a window whose thirds differ by more holds no exponential regime


@dataclass(frozen=True, eq=False)
class Asked:
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
    metric: MetricOfStates
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
    rng: Any = 0
    optimizer: Optimizer = PLAIN


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


def answer(x: Any, asked: Asked, *, clock: tuple[float, str], doubts: tuple[Reason, ...] = ()) -> Exponent:
    """Exponent of one trajectory from its recurrences.

    Parameters
    ----------
    x : array_like, shape (T, d) or (T,)
        Numbers, finite or not.
    asked : Asked
        What the caller chose.
    clock : (float, str)
        Time between two samples, and its unit.
    doubts : tuple of Reason
        Objections that are known already.

    Returns
    -------
    Exponent
        ``"inconclusive"`` with a reason wherever the data do not allow an answer.
    """
    try:
        if isinstance(x, Distances):
            # Imported here: it needs what stands in this file.
            from trajtools.estimators.given_distances import prepare_distances

            ready = prepare_distances(x, asked)
            seen = probe_distances(ready.states, theiler=ready.theiler, floor=x.floor)
        else:
            ready = prepare_states(x, asked)
            seen = probe(ready.small, theiler=ready.theiler, dtype=ready.dtype)
    except DataError as problem:
        return _nothing(asked, clock, (_refused(problem), *doubts))
    against = (*doubts, *objections(seen, theiler=ready.theiler))
    try:
        growth = curve_of(ready, seen, asked, clock)
    except DataError as problem:
        return _nothing(asked, clock, (*against, _refused(problem)), ready.choices | {"probe": _said(seen)})
    found = growth.fit(asked.region, level=asked.level, rng=asked.rng)
    verdict, reasons = found.verdict, found.reasons
    tested = Tested()
    untested = "not-tested" in codes(reasons)
    promising = untested and not against and found.settings["p_zero"] <= DECISION
    if asked.null is not None and (promising or asked.null != "auto") and ready.no_null is None:
        tested = against_surrogates(
            ready.small if ready.series.shape[1] > 1 else ready.series[:, :1],
            asked.null,
            embedding=(1, 1) if ready.series.shape[1] > 1 else (ready.dim, ready.delay),
            theiler=ready.theiler,
            horizon=max(seen.saturation, 4),
            count=asked.surrogates,
            rng=np.random.default_rng(asked.rng),
            optimizer=asked.optimizer,
        )
    if untested:
        verdict, reasons = _judge(found, seen, tested, asked, ready.no_null)
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
            "probe": _said(seen),
            "value_of_half_record": _of_half(ready, seen, asked, clock),
        },
    )


def prepare_states(x: Any, asked: Asked) -> Prepared:
    """Embed a series, project states of many dimensions, and choose the Theiler window.

    Parameters
    ----------
    x : array_like, shape (T, d) or (T,)
        Numbers.
    asked : Asked
        What is not None there is taken as it is.

    Returns
    -------
    Prepared

    Raises
    ------
    DataError
        If nothing can be said about time scales: too short, or constant.
    """
    given = np.asarray(x)
    if not given.size:
        raise DataError(f"the trajectory is empty, its shape is {given.shape}")
    series = _scaled(given.astype(np.float64, copy=False).reshape(len(given), -1))
    finite = np.isfinite(series).all(axis=1)
    if finite.sum() < 20:
        raise DataError(f"{int(finite.sum())} finite states are too few to tell a time scale; record more")
    if np.ptp(series[finite], axis=0).max() == 0:
        raise DataError("the trajectory is constant: it has no neighbours apart; nothing moves, so nothing diverges")
    choices: dict[str, Any] = {}
    dim, delay = asked.dim or 1, asked.delay or 1
    if series.shape[1] == 1 and asked.dim is None:
        dim, delay = _embedding(series[:, 0], asked, choices)
    states = embed(series, dim, delay) if dim > 1 else series
    whole = np.asarray(np.isfinite(states).all(axis=1))
    states = np.where(whole[:, None], states, np.nan)
    small = _projected(states, choices)
    theiler = asked.theiler
    if theiler is None:
        chosen = theiler_window(series if series.shape[1] <= 2 * PROJECTED else small)
        theiler = min(chosen.value, max(len(states) // 8, 1))
        choices["theiler_choice"] = _summary(chosen)
    choices |= {"dim": dim, "delay": delay, "theiler": theiler}
    return Prepared(series, states, small, dim, delay, theiler, given.dtype, choices)


def curve_of(ready: Prepared, seen: Probe, asked: Asked, clock: tuple[float, str], half: bool = False) -> Divergence:
    """Call the estimator with parameters from the data.

    Parameters
    ----------
    ready : Prepared
        The states.
    seen : Probe
        What their neighbours look like.
    asked : Asked
        What the caller chose.
    clock : (float, str)
        Time between two samples, and its unit.
    half : bool
        Use only the first half of the record.

    Returns
    -------
    Divergence
        The curves; `settings` says what was chosen.
    """
    states = ready.states
    if half:
        first = slice(len(states) // 2)
        states = states[first, first] if asked.metric == GIVEN else states[first]
    dt, unit = clock
    followed = asked.method in ("rosenstein", "kantz")
    wanted = seen.saturation + seen.saturation // 3 + 4 if followed else max(seen.saturation // REPLACED, 4)
    if followed and seen.rise < BOUNDED:
        wanted = min(len(states) // 8, LONGEST)  # nothing saturates: see whether neighbours stay neighbours
    horizon = asked.horizon if asked.horizon is not None else int(np.clip(wanted, 4, max(len(states) // 4, 4)))
    finer, step = fineness(ready.states, seen, asked.metric)
    finer = finer if followed else 1
    states = interpolated(states, finer)
    options: dict[str, Any] = {
        "metric": asked.metric,
        "neighbors": asked.neighbors,
        "theiler": ready.theiler * finer,
        "horizon": horizon * finer,
        "dt": dt / finer,
    }
    if asked.method == "kantz" and asked.neighbors is None:
        options["neighbors"] = WithinRadius(max_neighbors=MOST_IN_BALL)
    if not followed and asked.metric in ("l2", GIVEN):  # what was seen is in the units of these
        # A pair that is kept must have room for another block below a tenth of where distances saturate.
        grown = seen.rise * horizon / max(seen.saturation, 1)
        options["limit"] = 0.1 * float(np.exp(seen.log_distance[0] + seen.rise - min(grown, seen.rise)))
    across = step > 0 and asked.metric == "l2" and has_directions(states)
    if across:
        options |= {"across": True} | ({"stride": finer} if followed else {})
    if asked.average is not None and asked.method == "kantz":
        options["average"] = asked.average
    growth = METHODS[asked.method](states, **options)
    return replace(
        growth,
        time_unit=unit,
        settings={**growth.settings, "interpolated": finer, "distance_along": 0.0 if across else step / finer / 4},
    )


def _scaled(series: Floats) -> Floats:
    """Bring numbers whose squares overflow or vanish to one: an exponent knows no scale. What is beyond is NaN."""
    size = np.abs(series)
    some = size[np.isfinite(size) & (size > 0)]
    typical = float(np.median(some)) if len(some) else 1.0
    if not LARGEST**-1 < typical < LARGEST:
        series = series / typical
        size = np.abs(series)
    return series if np.all(size < LARGEST) else np.where(size < LARGEST, series, np.nan)


def _embedding(series: Floats, asked: Asked, choices: dict[str, Any]) -> tuple[int, int]:
    delay = asked.delay
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


def _projected(states: Floats, choices: dict[str, Any]) -> Floats:
    """States for checks and nulls: a fixed random projection keeps distances within a tenth or so."""
    if states.shape[1] <= 2 * PROJECTED:
        return states
    choices["checked_in"] = f"a random projection to {PROJECTED} of {states.shape[1]} dimensions"
    rng = np.random.default_rng(0)
    small = np.zeros((len(states), PROJECTED))
    for begin in range(0, states.shape[1], 4096):
        part = states[:, begin : begin + 4096]
        small += part @ rng.standard_normal((part.shape[1], PROJECTED))
    return small / np.sqrt(PROJECTED)


def _of_half(ready: Prepared, seen: Probe, asked: Asked, clock: tuple[float, str]) -> float:
    """The exponent of the first half of the record: whether it settles with T; NaN where there is none."""
    try:
        return curve_of(ready, seen, asked, clock, half=True).fit(asked.region, level=asked.level).value
    except DataError:
        return float("nan")


def _judge(
    found: Exponent, seen: Probe, tested: Tested, asked: Asked, missing: Reason | None
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
    if asked.null is None:
        return "inconclusive", (grown, no_null("auto"))
    if not np.isfinite(tested.p_value):
        return "inconclusive", (grown, missing or Reason("no-surrogate", "no surrogate could be drawn from these data"))
    if not tested.p_value <= DECISION:
        words = "{null} is as predictable (p = {p:.3g}, {surrogates} surrogates)"
        numbers = {"p": tested.p_value, "surrogates": asked.surrogates}
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
        surrogates=asked.surrogates,
        null=tested.words,
        p=tested.p_value,
    )
    return "chaotic", (grown, returns, rejected)


def _said(seen: Probe) -> dict[str, Any]:
    return {name: value for name, value in seen.to_dict().items() if name not in ("lags", "log_distance")}


def _refused(problem: DataError) -> Reason:
    return Reason("not-analysable", str(problem))


def _nothing(
    asked: Asked, clock: tuple[float, str], reasons: tuple[Reason, ...], settings: dict[str, Any] | None = None
) -> Exponent:
    nan = float("nan")
    if not set(codes(reasons)) & set(SUGGEST_TWINS):
        reasons = (*reasons, Reason("use-twins", f"or {TWINS}"))
    return Exponent(
        value=nan,
        interval=(nan, nan),
        level=asked.level,
        p_value=nan,
        null="",
        n_used=0,
        n_total=0,
        verdict="inconclusive",
        reasons=reasons,
        window=(nan, nan),
        window_values=np.empty(0),
        values=np.empty(0),
        intercept=nan,
        method=asked.method,
        unit=f"1/{clock[1]}",
        settings={
            "method": asked.method,
            "metric": asked.metric if isinstance(asked.metric, str) else asked.metric.name,
            **(settings or {}),
        },
    )
