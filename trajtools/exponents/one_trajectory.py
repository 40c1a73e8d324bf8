"""Exponent of one trajectory: input, parameters from the data, checks, divergence curve, null and verdict."""

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
from trajtools.exponents.fit_neighbors import BOUNDED, FOLLOWED_TO_SATURATION, UNBENT, fit_neighbors, more_states
from trajtools.exponents.following import GRAPH_L1, LENGTHS, as_links, check_nodes, normalised, sampling
from trajtools.exponents.local_jacobian import LocalJacobian, local_jacobian, roughness
from trajtools.exponents.neighbor_methods import kantz, rosenstein
from trajtools.exponents.nulls import PLAIN, Tested, against_surrogates
from trajtools.exponents.returns import (
    Returning,
    exact_period,
    orbit_period,
    periodic_reason,
    return_reason,
    returning,
)
from trajtools.exponents.verdict import no_null
from trajtools.exponents.wolf import hybrid, wolf
from trajtools.inputs import single_row
from trajtools.neighbors.rules import WithinRadius
from trajtools.neighbors.states import DISTANCES, MATRIX_STATES, METRICS, has_directions
from trajtools.neighbors.theiler import PROJECTED, clipped, distance_window, projected, theiler_window
from trajtools.reasons import Reason, codes
from trajtools.statistics import DECISION, random_generator
from trajtools.trajectory import Trajectory
from trajtools.types import Bools, Floats, Ints, RNGLike
from trajtools.values import finite_rows, not_finite, place, training_steps
from trajtools.wiring import Parameter
from trajtools.wording import one_unit

METHODS: dict[str, Any] = {"rosenstein": rosenstein, "kantz": kantz, "wolf": wolf, "hybrid": hybrid}
LARGEST = 1e100  # magnitude whose square neither overflows nor underflows
SPARSE = 0.25  # of the record, from which the exponent is measured again with neighbours farther apart
LONGEST = 2000  # samples for which pairs that do not separate are followed
REPLACED = 16  # saturation time over the time that a pair is followed before it may be replaced
MOST_WHOLE = 0.8  # of the delay vectors, below which gaps cost so many that something should be done
FEWEST_SURROGATES = 99  # (k + 1) / (n + 1) reaches the 1 % level
OF_PERIODS = ("repeats", "below-rounding-floor", "no-contrast")  # objections that an exact period explains
NOT_STOCHASTIC = (  # reasons that leave open whether a test would tell the trajectory from noise
    "no-null",
    "not-euclidean",
    "missing-distances",
    "error-unknown",
    "hidden-state",
    "too-few-surrogates",
    "too-few-states",
    "repeats",
)
REPEATED = 1e-6  # nearest over typical distance, below which states may repeat but for rounding
FEWEST_AT_REST = 20  # equal states at the end: the trajectory stands still
REST_SHARE = 0.5  # of the record, that must stand still for a verdict on the fixed point
REST_NAMED = 0.1  # of the record, for a reason
ULPS_AT_REST = 8  # of the largest number, by which such states may differ
FEWEST_FINITE = 20  # states, to estimate a time scale
MORE_STATES = "{needed} are needed to estimate a time scale; record more"
BLOCK_OF_STATES = 1024
RUNAWAY = 20.0  # last finite step over the usual one, from which a trajectory that overflows has run away
ROUGH = 0.7  # second over first differences of a drift with noise; sqrt(2) for a random walk
MOST_IN_BALL = 16  # neighbours of a state that kantz follows; more in dense regions add no information
BENT = 0.5  # of the slope: a window whose thirds differ by more has no exponential regime
MOST_DISTANCES = 16_384  # states; 2 GiB of distances, which the estimators read in random order
SCALED_STATES = 1500  # states in classical scaling, whose time grows with their cube
SCALED_DIMENSION = 64
NEGATIVE = 1e-4  # largest share of negative eigenvalues, by absolute value, of Euclidean distances
NOT_EUCLIDEAN = (
    "no null can be drawn from these distances: they are not Euclidean (negative eigenvalues make up {share:.1%} of "
    "the spectrum), so states for surrogates cannot be reconstructed; give the states, or Euclidean distances"
)


MISSING = (
    "no null can be drawn from these distances: some are missing, so the states cannot be reconstructed; give the "
    "states"
)


REFINED_STATES = 160_000  # most states after interpolation
REFINED_DIMENSION = 20
FINEST = 8  # largest factor of interpolation
SMOOTH = 0.1  # largest interpolation error over the distance of neighbours
HALVING = 10.0  # factor by which half the spacing reduces that error at least; 16 in fourth order
COUNTERS = ("step", "count", "steps")  # buffers that only count steps
CHECKED = "Euclidean distances of the states; the checks and the null use these with every metric"
HIDDEN = (
    "the optimiser has buffers (momentum or moments), so nearby weights can separate without sensitivity; record the "
    "buffers too, use delay coordinates (dim=2 or more, delay=1), or use twins"
)


@dataclass(frozen=True, eq=False)
class Options:
    """Arguments of the caller; None: from the data.

    Attributes
    ----------
    method : str
        Estimator.
    metric : str or Metric
        Distance between states.
    average : str or None
        Average of Kantz's estimator.
    neighbors : object
        Neighbour rule.
    theiler, horizon, dim, delay : int or None
        Theiler window, horizon and delay in samples; embedding dimension.
    dt : float or None
        Time between two samples.
    region : "auto" or (float, float)
        Region of the fit.
    null : str or None
        ``"auto"``, a name, or None for no test.
    surrogates : int
        Number of surrogates.
    level : float
        Confidence level.
    rng : int, numpy.random.Generator or None
        Random numbers; None is the seed 0.
    optimizer : Optimizer
        Optimiser of the training, for the null of a quadratic basin.
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
    rng: RNGLike = None
    optimizer: Optimizer = PLAIN


def states_exponent(
    x: Any, options: Options, *, clock: tuple[float, str], step: Ints | None = None, issues: tuple[Reason, ...] = ()
) -> Exponent:
    """Exponent of one trajectory from its recurrences, or from the fixed point that it ends at.

    A trajectory whose steps grow until it overflows is diverging. A warning says how many states are left out because
    they are not finite.
    """
    if not (len(x) if isinstance(x, Distances) else np.size(x)):
        shape = (0, 0) if isinstance(x, Distances) else np.shape(x)
        raise DataError(f"the trajectory is empty, its shape is {shape}")
    if step is not None and len(x) == 1:
        text = "the trajectory has one state, of step {step}, and {more}: every step (every=1), or a longer training"
        reason = Reason.of("too-few-states", text, step=step[0], more=MORE_STATES.format(needed=FEWEST_FINITE))
        return _no_exponent(options, clock, (reason,))
    of_distances = isinstance(x, Distances)
    finite = ~np.asarray(x.excluded) if of_distances else finite_rows(x)
    noun = "states" if of_distances or np.size(x) > len(x) else "samples"
    gaps = not_finite(finite, step=step, noun=noun)
    end = None if of_distances or finite.all() else _end_of_finite(x, finite, step)
    if end is not None and end.code == "diverged":
        return replace(_no_exponent(options, clock, (end,)), reasons=(end,), growth="diverging", verdict="diverging")
    exponent = _resting_or_moving(x, options, clock=clock, issues=issues)
    exponent = _with_twins(exponent, step, 2 if of_distances else np.size(x) // max(len(x), 1))
    gaps += () if end is None else (end,)
    if gaps and exponent.settings.get("dim", 1) > 1:
        gaps += _whole_vectors(finite, exponent.settings["dim"], exponent.settings["delay"])
    return replace(exponent, warnings=(*gaps, *exponent.warnings))


def _with_twins(exponent: Exponent, step: Ints | None, width: int) -> Exponent:
    """Point to twins where neighbours cannot tell; a series of numbers is no training."""
    missing = {"not-analysable", *SUGGEST_TWINS} & set(codes(exponent.reasons))
    if exponent.verdict != "inconclusive" or not missing or width < 2:
        return exponent
    text = TWINS if step is not None else f"if these are states of a training, {TWINS}"
    return replace(exponent, reasons=(*exponent.reasons, Reason("use-twins", text)))


def _whole_vectors(finite: Bools, dim: int, delay: int) -> tuple[Reason, ...]:
    """Say how many delay vectors a series with gaps leaves."""
    total = len(finite) - (dim - 1) * delay
    if total < 1:
        return ()
    whole = np.count_nonzero(np.logical_and.reduce([finite[k * delay : k * delay + total] for k in range(dim)]))
    text = (
        "with dim={dim} and delay={delay} every missing sample spoils up to {dim} delay vectors: {whole} of {total} "
        "are whole"
    )
    if whole < MOST_WHOLE * total:
        text += "; pass a smaller dim=, or fill the gaps"
    return (Reason.of("spoiled-vectors", text, dim=dim, delay=delay, whole=whole, total=total),)


def _end_of_finite(x: Any, finite: Bools, step: Ints | None) -> Reason | None:
    """How a trajectory went that ends in NaN or infinity: by growing steps, or at once; None where that is unknown."""
    stop = int(np.argmin(finite))
    if finite[stop:].any() or stop < 2:
        return None
    states = np.asarray(x)[:stop].reshape(stop, -1)
    sizes = [
        np.abs(np.diff(states[max(begin - 1, 0) : begin + BLOCK_OF_STATES].astype(np.float64), axis=0)).max(axis=1)
        for begin in range(0, stop, BLOCK_OF_STATES)
    ]
    lengths = np.concatenate(sizes)
    moving = lengths[:-1][lengths[:-1] > 0]
    usual = float(np.median(moving)) if len(moving) else float(np.abs(states[0].astype(np.float64)).max())
    if not usual > 0:
        return None
    factor = float(lengths[-1]) / usual
    if lengths[-1] == lengths.max() and factor > RUNAWAY:
        text = (
            "the trajectory runs away: its steps grow (the last finite one is {factor:.2g} times the usual) until it "
            "is NaN or infinite, at {place}, so there is no exponent to measure; for a training, lower the learning "
            "rate"
        )
        return Reason.of("diverged", text, factor=factor, place=place(stop, step))
    if len(lengths) < FEWEST_AT_REST:
        return None
    text = (
        "the last finite step is {factor:.2g} times the usual one: nothing grew before the NaN or infinity, which came "
        "at once, as from the loss or the data"
    )
    return Reason.of("ended-at-once", text, factor=factor)


def _resting_or_moving(x: Any, options: Options, *, clock: tuple[float, str], issues: tuple[Reason, ...]) -> Exponent:
    rest, largest = rest_of(x)
    share = (len(x) - rest) / max(len(x), 1)
    if len(x) - rest >= FEWEST_AT_REST and share >= REST_SHARE:
        return _at_rest(x, rest, largest, options, clock)
    exponent = _moving(x, options, clock=clock, issues=issues)
    if exponent.verdict == "inconclusive" and len(x) - rest >= FEWEST_AT_REST and share >= REST_NAMED:
        return replace(exponent, reasons=(rest_reason(len(x), rest), *exponent.reasons))
    return exponent


def _moving(x: Any, options: Options, *, clock: tuple[float, str], issues: tuple[Reason, ...]) -> Exponent:
    ready: Prepared | None = None
    try:
        if isinstance(x, Distances):
            ready = prepare_distances(x, options)
            stats = probe_distances(ready.states, theiler=ready.theiler, floor=x.floor)
        else:
            ready = prepare_states(x, options)
            stats = probe(ready.small, theiler=ready.theiler, dtype=ready.dtype)
    except DataError as error:
        exact = None if ready is None or issues else _exact_period(ready, options)
        known = {} if ready is None else ready.choices
        failed = _no_exponent(options, clock, (_not_analysable(error), *issues), known)
        return failed if ready is None or exact is None else _periodic(failed, ready, exact, clock)
    problems = (*issues, *objections(stats, theiler=ready.theiler))
    exact = None
    if set(codes(problems)) <= set(OF_PERIODS) and (stats.repeats or stats.contrast < REPEATED):
        exact = _exact_period(ready, options)
    try:
        growth = divergence_curve(ready, stats, options, clock)
    except DataError as error:
        reasons, known = (*problems, _not_analysable(error)), ready.choices | {"probe": _probe_settings(stats)}
        failed = _no_exponent(options, clock, reasons, known)
        return failed if exact is None else _periodic(failed, ready, exact, clock)
    sparser = _sparser_curve(ready, stats, options, clock)
    fit = fit_neighbors(growth, options.region, level=options.level, rng=options.rng, sparser=sparser)
    fit = replace(
        fit,
        settings={
            **fit.settings,
            **ready.choices,
            "null": None,
            "no_null": ready.no_null.code if ready.no_null is not None else None,
            "probe": _probe_settings(stats),
        },
    )
    if exact is not None:
        return _periodic(fit, ready, exact, clock)
    back = returning(ready.small, level=options.level) if ready.small.size else None
    if back is not None:
        fit = replace(fit, settings=fit.settings | back.to_settings())
    if back is not None and not problems and (back.regular or back.contracting):
        return _regular(fit, ready, back, options, clock)
    return _judged(fit, ready, stats, problems, options, clock=clock)


def rest_of(x: Any) -> tuple[int, float]:
    """State from which nothing moves but by rounding, and the largest difference since then."""
    if isinstance(x, Distances):
        gaps = np.asarray(x.read(len(x) - 1, len(x)), dtype=np.float64)[0] if len(x) else np.empty(0)
        moving = np.flatnonzero(~(gaps == 0))
        return (int(moving[-1]) + 1 if len(moving) else 0), 0.0
    states = np.asarray(x)
    if not states.size:
        return len(states), 0.0
    states = states.reshape(len(states), -1)
    if not np.isfinite(last := states[-1].astype(np.float64)).all():
        return len(states), 0.0
    rounding = float(np.finfo(states.dtype).eps) if states.dtype.kind == "f" else 0.0
    largest, within = 0.0, ULPS_AT_REST * rounding * float(np.abs(last).max())
    for stop in range(len(states), 0, -BLOCK_OF_STATES):
        begin = max(stop - BLOCK_OF_STATES, 0)
        gaps = np.abs(states[begin:stop].astype(np.float64) - last).max(axis=1)
        moving = np.flatnonzero(gaps > within)
        first = int(moving[-1]) + 1 if len(moving) else 0
        largest = max(largest, float(np.nanmax(gaps[first:], initial=0.0)))
        if len(moving):
            return begin + first, largest
    return 0, largest


def rest_reason(length: int, rest: int) -> Reason:
    """Say from where on the trajectory stands still."""
    text = (
        "the trajectory stands still: its last {count} of {length} states are equal to within rounding (of a "
        "training: it has converged, or its gradients are zero by dead units, a saturated loss or a rate of 0)"
    )
    return Reason.of("at-rest", text, count=length - rest, length=length)


def _at_rest(x: Any, rest: int, largest: float, options: Options, clock: tuple[float, str]) -> Exponent:
    """Verdict on a trajectory that ends at a fixed point: rounding errors bound its exponent."""
    scale = np.asarray(x[-1:], dtype=np.float64) if not isinstance(x, Distances) else np.zeros(1)
    rounding = np.finfo(np.float64).eps * float(np.nanmax(np.abs(scale), initial=0.0))
    efolds = 1.0 + max(float(np.log(largest / rounding)) if largest > 0 < rounding else 0.0, 0.0)
    bound = efolds / (len(x) - rest) / clock[0]
    text = (
        "it is a fixed point. The exponent is below {bound:.2g} per {unit}: at a larger one, rounding errors would show"
    )
    fixed = Reason.of("periodic", text, bound=bound, unit=one_unit(clock[1]))
    found = _no_exponent(options, clock, (rest_reason(len(x), rest), fixed))
    settings = found.settings | {"period": 1.0, "largest_exponent": bound, "at_rest": rest}
    return replace(found, reasons=found.reasons[:2], growth="none", verdict="regular", settings=settings)


def _exact_period(ready: Prepared, options: Options) -> tuple[int, float] | None:
    """Period of an orbit that repeats exactly, and the largest difference."""
    if not ready.small.size:
        return None
    stored = ready.dtype if ready.dtype.kind == "f" and ready.small.shape == ready.states.shape else np.dtype("f8")
    return exact_period(ready.small.astype(stored), random_generator(options.rng))


def _periodic(fit: Exponent, ready: Prepared, exact: tuple[int, float], clock: tuple[float, str]) -> Exponent:
    """Verdict on an orbit that repeats exactly: rounding errors bound its exponent."""
    period, largest = exact
    states = ready.small[np.isfinite(ready.small).all(axis=1)]
    rounding = np.finfo(ready.dtype if ready.dtype.kind == "f" else np.float64).eps * float(np.abs(states).max())
    efolds = 1.0 + max(float(np.log(largest / rounding)) if largest > 0 else 0.0, 0.0)
    bound = efolds / (len(states) - period) / clock[0]
    nan = float("nan")
    return replace(
        fit,
        value=nan,
        interval=(nan, nan),
        window=(nan, nan),
        intercept=nan,
        values=np.empty(0),
        window_values=np.empty(0),
        n_used=0,
        growth="none",
        verdict="regular",
        reasons=(periodic_reason(period, largest, bound, clock[1]),),
        settings=fit.settings | {"period": float(period), "largest_exponent": bound},
    )


def _regular(fit: Exponent, ready: Prepared, back: Returning, options: Options, clock: tuple[float, str]) -> Exponent:
    """Verdict on a trajectory that returns, and the rate at which its returns part."""
    dt, unit = clock
    period = orbit_period(ready.small, back.lag, random_generator(options.rng))
    settings = fit.settings | {"period": period, "largest_exponent": back.rate_bound / dt}
    if back.contracting:
        text = "states {lag} samples apart approach each other: at a rate below {bound:.3g} per {unit} (1 % level)"
        closer = Reason.of("contracts", text, lag=back.lag, bound=back.rate_bound / dt, unit=one_unit(unit))
        return replace(fit, growth="contracting", verdict="regular", reasons=(closer,), settings=settings)
    return replace(
        fit,
        value=back.rate / dt,
        interval=(back.interval[0] / dt, back.interval[1] / dt),
        values=back.block_rates / dt,
        n_used=len(back.block_rates),
        n_total=len(back.block_rates),
        growth="none",
        verdict="regular",
        reasons=(return_reason(back, period, unit, dt),),
        settings=settings,
        window=(0.0, back.lag * dt),
        intercept=float("nan"),
        window_values=np.empty(0),
    )


def _judged(
    fit: Exponent,
    ready: Prepared,
    stats: Probe,
    problems: tuple[Reason, ...],
    options: Options,
    *,
    clock: tuple[float, str],
) -> Exponent:
    """Verdict on a trajectory that is not regular: chaotic after every test, else inconclusive."""
    reasons, tested, jacobian = fit.reasons, Tested(), None
    measured = codes(reasons) == ("growth", "not-tested")
    promising = measured and not problems and not _objection(fit)
    if promising and options.null is not None and ready.no_null is None:
        jacobian = local_jacobian(ready.small, rng=random_generator(options.rng))
    grows = jacobian is not None and jacobian.positive
    if options.null is not None and ready.no_null is None and (grows or options.null != "auto"):
        tested = against_surrogates(
            ready.small if ready.series.shape[1] > 1 else ready.series[:, :1],
            options.null,
            embedding=(1, 1) if ready.series.shape[1] > 1 else (ready.dim, ready.delay),
            theiler=ready.theiler,
            horizon=max(stats.saturation, 4),
            count=options.surrogates,
            rng=random_generator(options.rng),
            optimizer=options.optimizer,
        )
    verdict = "inconclusive"
    if measured:
        verdict, reasons = _judge(
            fit,
            stats,
            options,
            clock=clock,
            tested=tested,
            jacobian=jacobian,
            missing=ready.no_null,
            gaps=not np.isfinite(ready.states).all(),
        )
    if problems:
        verdict, reasons = "inconclusive", (*problems, *reasons)
    if verdict == "inconclusive":
        reasons = (*(r for r in reasons if r.code != "not-tested"), *_stochastic(ready, reasons))
    p_values = [p for p in (tested.p_value, fit.settings["p_zero"]) if np.isfinite(p)]
    noise = (jacobian.noise_reason,) if jacobian is not None and jacobian.noisy else ()
    return replace(
        fit,
        verdict=verdict,
        warnings=(*fit.warnings, *noise),
        growth="exponential" if verdict == "chaotic" else "undecided",
        persistence="shown" if verdict == "chaotic" else "not tested",
        reasons=reasons,
        null=tested.description,
        p_value=max(p_values) if tested.description and p_values else float("nan"),
        settings={
            **fit.settings,
            **tested.settings,
            **(jacobian.to_settings() if jacobian is not None else {}),
            "null": tested.name or None,
        },
    )


def divergence_curve(
    ready: Prepared, stats: Probe, options: Options, clock: tuple[float, str], share: float = 1.0
) -> Divergence:
    """Divergence curve of the estimator, with parameters from the data, from a share of the states."""
    states = ready.states
    dt, unit = clock
    followed = options.method in ("rosenstein", "kantz")
    target = stats.saturation + stats.saturation // 3 + 4 if followed else max(stats.saturation // REPLACED, 4)
    if followed and stats.rise < BOUNDED:
        target = min(len(states) // 8, LONGEST)  # no saturation: test whether neighbours stay neighbours
    horizon = options.horizon if options.horizon is not None else int(np.clip(target, 4, max(len(states) // 4, 4)))
    finer, step = fineness(ready.states, stats, options.metric)
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
    if not followed and options.metric in ("l2", DISTANCES):  # the metrics of the probe
        # A retained pair needs room for another block below a tenth of the saturation distance.
        grown = stats.rise * horizon / max(stats.saturation, 1)
        arguments["limit"] = 0.1 * float(np.exp(stats.log_distance[0] + stats.rise - min(grown, stats.rise)))
    across = step > 0 and options.metric == "l2" and has_directions(states)
    if share != 1:
        arguments["share"] = share
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
    """States ready for analysis, with the choices made for them.

    Attributes
    ----------
    series : ndarray of float64, shape (T, c)
        The input.
    states : ndarray of float64, shape (T', d)
        States, embedded if required.
    small : ndarray of float64, shape (T', d')
        States for checks and nulls, projected if the dimension is high.
    dim, delay, theiler : int
        Embedding and Theiler window.
    dtype : dtype
        Dtype of the input.
    choices : dict
        Automatic choices with their statistics.
    no_null : Reason or None
        Why no null can be drawn, if so.
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


def fineness(states: Floats, stats: Probe, metric: MetricLike) -> tuple[int, float]:
    """Factor of interpolation, and the distance between samples.

    Neighbours of a sampled flow are a quarter of a sample apart along the flow on average.
    """
    if stats.rise < BOUNDED or states.shape[1] > REFINED_DIMENSION or not np.isfinite(states).all():
        return 1, 0.0
    part = states[: min(len(states), 5001)]
    near = float(np.exp(stats.log_distance[0]))
    even, odd = part[::2], part[3:-3:2]
    between = (9 * (even[1:-2] + even[2:-1]) - even[:-3] - even[3:])[: len(odd)] / 16
    rough = np.sqrt(np.sum((between - odd[: len(between)]) ** 2, axis=1))
    # Four-point interpolation has about nine times the error of a spline: a cheap test before the slow import.
    if len(rough) and float(np.quantile(rough, 0.95)) > 30 * HALVING * SMOOTH * near:
        return 1, 0.0
    from scipy.interpolate import CubicSpline

    coarse = CubicSpline(np.arange(0, len(part), 2), part[::2])
    error = np.sqrt(np.sum((coarse(np.arange(1, len(part) - 1, 2)) - part[1:-1:2]) ** 2, axis=1))
    if not float(np.quantile(error, 0.95)) < HALVING * SMOOTH * near:
        return 1, 0.0
    step = float(np.median(np.sqrt(np.sum(np.diff(part, axis=0) ** 2, axis=1))))
    target = int(np.ceil(2 * step / near))
    most = REFINED_STATES if isinstance(metric, str) else MATRIX_STATES
    return int(np.clip(min(target, most // len(states)), 1, FINEST)), step


def interpolated(states: Floats, finer: int) -> Floats:
    """Interpolate by cubic splines, `finer` points per sample."""
    if finer == 1:
        return states
    from scipy.interpolate import CubicSpline

    at = np.arange((len(states) - 1) * finer + 1) / finer
    return np.asarray(CubicSpline(np.arange(len(states)), states)(at))


def _objection(fit: Exponent) -> Reason | None:
    """Reason of the fit alone why its growth is not shown to be exponential; None if there is none."""
    if fit.interval[1] < 0:
        return Reason("contracts", "the whole interval of the exponent lies below zero")
    p_zero = fit.settings["p_zero"]
    if p_zero > DECISION:
        text = "an exponent of zero cannot be excluded at the 1 % level (p = {p:.3g}); record longer"
        return Reason.of("zero-not-excluded", text, p=p_zero)
    if (
        fit.method in FOLLOWED_TO_SATURATION
        and fit.settings["gain"] < UNBENT
        and not np.isfinite(fit.settings["saturation_level"])
    ):
        text = (
            "the growth is measured over {gain:.1f} e-folds and does not lead to saturation: an exponential would; "
            "{needed:g} e-folds are needed; {advice}, or use a longer horizon"
        )
        gain = float(fit.settings["gain"])
        advice, times = more_states(UNBENT - gain, fit.settings["density_dimension"])
        return Reason.of("too-little-growth", text, gain=gain, needed=UNBENT, advice=advice, times=times)
    if fit.settings["bend"] > BENT * fit.value:
        return Reason.of(
            "slopes-differ",
            "half the range of the local slopes exceeds {factor:g} of the exponent: there is no exponential regime; "
            "record more states, so that neighbours are closer",
            factor=BENT,
        )
    return None


def _judge(
    fit: Exponent,
    stats: Probe,
    options: Options,
    *,
    clock: tuple[float, str],
    tested: Tested,
    jacobian: LocalJacobian | None,
    missing: Reason | None,
    gaps: bool,
) -> tuple[str, tuple[Reason, ...]]:
    """Verdict and reasons where a rate was measured: every test must be passed."""
    growth, objection = fit.reasons[0], _objection(fit)
    if objection is not None:
        return "inconclusive", (growth, objection)
    if options.null is None:
        return "inconclusive", (growth, no_null("auto"))
    if missing is not None:
        return "inconclusive", (growth, missing)
    if jacobian is None:
        text = "the record is too short to fit Jacobians, which tell growth from noise; record more states"
        if gaps:
            text = (
                "no stretch without a gap is long enough to fit Jacobians, which tell growth from noise; fill the "
                "gaps, or give a window without them"
            )
        return "inconclusive", (growth, Reason("local-jacobian-unknown", text))
    if not jacobian.positive:
        return "inconclusive", (growth, jacobian.reason(*clock))
    if not np.isfinite(tested.p_value):
        return "inconclusive", (growth, Reason("no-surrogate", "no surrogate could be drawn from these data"))
    numbers = {"p": tested.p_value, "surrogates": tested.settings["surrogates"]}
    if not tested.p_value <= DECISION and options.surrogates < FEWEST_SURROGATES:
        text = (
            "{surrogates} surrogates ({null}) give p-values down to {least:.2g} (here p = {p:.3g}): the 1 % level "
            "needs surrogates={needed} or more"
        )
        least = 1 / (options.surrogates + 1)
        few = Reason.of(
            "too-few-surrogates", text, null=tested.description, least=least, needed=FEWEST_SURROGATES, **numbers
        )
        return "inconclusive", (growth, jacobian.reason(*clock), few)
    if not tested.p_value <= DECISION:
        text = "{null} is as predictable (p = {p:.3g}, {surrogates} surrogates)"
        return "inconclusive", (growth, Reason.of("null-not-rejected", text, null=tested.description, **numbers))
    returns = Reason.of(
        "persistent",
        "the trajectory is stationary and recurrent (neighbours are {apart:.0%} of the record apart in time, median), "
        "so the sensitivity persists",
        apart=stats.time_apart,
    )
    rejected = Reason.of(
        "null-rejected",
        "none of {surrogates} surrogates ({null}) is as predictable (p = {p:.3g})",
        null=tested.description,
        **numbers,
    )
    return "chaotic", (growth, returns, rejected, jacobian.reason(*clock))


def _stochastic(ready: Prepared, reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """Reason of a verdict that a stochastic process could have got too; empty where it could not, or nobody tested."""
    known = set(codes(reasons))
    if known & set(NOT_STOCHASTIC):
        return ()
    if known & {"drift", "not-stationary"}:
        ratio = roughness(ready.small)
        if not ratio > ROUGH:
            return ()
        text = (
            "its steps are rough: second differences are {ratio:.2g} times the first (1.4 for a random walk), as of a "
            "stochastic process"
        )
        return (Reason.of("stochastic", text, ratio=ratio),)
    text = "no test tells the trajectory from a stochastic process, such as coloured noise or a noisy cycle"
    return (Reason("stochastic", text),)


def prepare_distances(x: Distances, options: Options) -> Prepared:
    """Check distances, choose the Theiler window, and compute coordinates for the null."""
    if len(x) > MOST_DISTANCES:
        raise TooLargeError(
            f"distances are analysed in memory, for at most {MOST_DISTANCES} states; these are {len(x)}. Select a part "
            "(window=), or give the states"
        )
    matrix = tame(np.asarray(x.read(0, len(x)), dtype=np.float64))
    usable = np.flatnonzero(np.count_nonzero(np.isfinite(matrix), axis=1) > 1)
    if len(usable) < FEWEST_FINITE:
        raise DataError(f"{len(usable)} states have distances, and {MORE_STATES.format(needed=FEWEST_FINITE)}")
    choices: dict[str, Any] = {}
    theiler = options.theiler
    if theiler is None:
        chosen = distance_window(matrix, usable)
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
    """Rescale distances whose squares overflow or underflow; exponents do not depend on the scale."""
    positive = matrix[:: max(1, len(matrix) // 500)]
    positive = positive[np.isfinite(positive) & (positive > 0)]
    typical = float(np.median(positive)) if len(positive) else 1.0
    if not 1 / LARGEST < typical < LARGEST:
        matrix = matrix / typical
    largest = max((float(np.max(row, initial=0.0, where=np.isfinite(row))) for row in matrix), default=0.0)
    return matrix if largest < LARGEST else np.where(matrix < LARGEST, matrix, np.nan)


def scaled(matrix: Floats, usable: Ints) -> tuple[Floats, float]:
    """Coordinates of a segment of the states by classical scaling, and the share of negative eigenvalues."""
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
    array = np.asarray(x)
    if array.ndim == 2 and len(array) == 1 and array.shape[1] > 1:
        raise single_row(array.shape[1])
    series = _scaled(array.astype(np.float64, copy=False).reshape(len(array), -1))
    finite = np.isfinite(series).all(axis=1)
    if finite.sum() < FEWEST_FINITE:
        raise DataError(f"there are {int(finite.sum())} finite states, and {MORE_STATES.format(needed=FEWEST_FINITE)}")
    choices: dict[str, Any] = {}
    dim, delay = options.dim or 1, options.delay or 1
    if series.shape[1] == 1 and options.dim is None:
        dim, delay = _embedding(series[:, 0], options, choices)
    elif series.shape[1] == 1 and dim > 1 and options.delay is None:
        delay = _delay(series[:, 0], choices)
    states = embed(series, dim, delay) if dim > 1 else series
    finite_rows = np.asarray(np.isfinite(states).all(axis=1))
    states = np.where(finite_rows[:, None], states, np.nan)
    whole = int(np.count_nonzero(finite_rows))
    if dim > 1 and whole < FEWEST_FINITE:
        missing = int(len(series) - finite.sum())
        raise DataError(
            f"{missing} of {len(series)} values are missing, and delay vectors with dim={dim} "
            f"{'(as passed)' if options.dim else '(chosen from the data)'} and delay={delay} contain {dim} values "
            f"each: {whole} of {len(states)} are whole, and {FEWEST_FINITE} are needed; fill the gaps, or pass dim=1"
        )
    small = _projected(states, choices)
    theiler = options.theiler
    if theiler is None:
        chosen = theiler_window(series if series.shape[1] <= 2 * PROJECTED else small)
        theiler = clipped(chosen.value, len(states))
        choices["theiler_choice"] = _summary(chosen)
    choices |= {"dim": dim, "delay": delay, "theiler": theiler}
    return Prepared(series, states, small, dim, delay, theiler, array.dtype, choices)


def _scaled(series: Floats) -> Floats:
    """Rescale numbers whose squares overflow or underflow; those still too large become NaN."""
    size = np.abs(series)
    positive = size[np.isfinite(size) & (size > 0)]
    typical = float(np.median(positive)) if len(positive) else 1.0
    if not LARGEST**-1 < typical < LARGEST:
        series = series / typical
        size = np.abs(series)
    return series if np.all(size < LARGEST) else np.where(size < LARGEST, series, np.nan)


def _projected(states: Floats, choices: dict[str, Any]) -> Floats:
    """States for checks and nulls, projected if the dimension is high."""
    if states.shape[1] > 2 * PROJECTED:
        choices["checked_in"] = f"a random projection to {PROJECTED} of {states.shape[1]} dimensions"
    return projected(states)


def _embedding(series: Floats, options: Options, choices: dict[str, Any]) -> tuple[int, int]:
    delay = options.delay if options.delay is not None else _delay(series, choices)
    most = int(np.clip((len(series) - 60) // (5 * delay), 1, 10))
    # Cao's criterion fails on steep maps, false neighbours on some flows; both failures overestimate the dimension.
    try:
        with np.errstate(all="ignore"):  # neighbours can be equal in the new coordinate
            candidates = [
                estimate_dimension(series, delay=delay, max_dim=most, method=name)
                for name in ("false-neighbors", "cao")
            ]
    except DataError as error:
        if np.isfinite(series).all():
            raise
        raise DataError(
            f"the embedding dimension cannot be chosen: delay vectors with dim={most} and delay={delay} are compared, "
            f"and too few of them are without a missing value ({error}); fill the gaps, or pass dim= (1 takes the "
            "values as they are)"
        ) from error
    dimension = min(candidates, key=lambda choice: choice.value)
    choices["dim_choice"] = _summary(dimension)
    choices["dim_by_method"] = {choice.method: choice.value for choice in candidates}
    return dimension.value, delay


def _delay(series: Floats, choices: dict[str, Any]) -> int:
    chosen = estimate_delay(series)
    choices["delay_choice"] = _summary(chosen)
    return int(chosen.value)


def _summary(chosen: Choice) -> dict[str, Any]:
    """The choice with its statistic at about 50 points."""
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
    metric = options.metric if isinstance(options.metric, str) else options.metric.name
    known = {"method": options.method, "metric": metric, **(settings or {})}
    return unknown_exponent(options.method, f"1/{clock[1]}", options.level, reasons, known)


def _probe_settings(stats: Probe) -> dict[str, Any]:
    return {name: value for name, value in stats.to_dict().items() if name not in ("lags", "log_distance")}


def _sparser_curve(ready: Prepared, stats: Probe, options: Options, clock: tuple[float, str]) -> Divergence | None:
    """The curve from a quarter of the record, whose neighbours are farther apart; None if there is none."""
    if options.method not in FOLLOWED_TO_SATURATION:
        return None
    try:
        return divergence_curve(ready, stats, options, clock, share=SPARSE)
    except DataError:
        return None


def _not_analysable(error: DataError) -> Reason:
    return Reason("not-analysable", str(error))


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
    """Read the input of `trajtools.lyapunov`."""
    issues: tuple[Reason, ...] = ()
    settings: dict[str, Any] = {}
    optimizer = PLAIN
    if hasattr(x, "hparams") and hasattr(x, "trajectory"):
        optimizer = optimizer_of(x)
        x, issues, settings = _run_states(x, optimizer, dim, buffers)
    elif buffers:
        raise DataError(
            "buffers=True needs a Run, whose optimiser buffers are appended to its weights; this is not a Run"
        )
    if window is not None:
        x = _windowed(x, window)
    kernel, name = _metric(metric, x)
    if kernel == DISTANCES:
        if dim is not None:
            raise DataError(f"dim={dim}: distances have no coordinates to embed; give the states, or omit dim=")
        check_nodes(nodes, DISTANCES)
        return _distance_record(x, dt, optimizer, issues)
    spacing, unit, step = sampling(x, dt)
    trained, factor = training_steps(x), 1.0
    if kernel == GRAPH_L1:
        x, factor = as_links(x, nodes)
        kernel = "l1"
    else:
        check_nodes(nodes, name)
    states = np.asarray(x)
    if states.dtype.kind not in "fiub" or states.ndim not in (1, 2):
        raise DataError(
            f"a trajectory is an array (T,) or (T, d) of real numbers, got {states.dtype} {states.shape}; for networks "
            "give rows of links, or use metric='graph-l1'"
        )
    if kernel != "l2":
        settings["checked_with"] = CHECKED
    return Record(states, kernel, (spacing, unit), step, trained, optimizer, factor, issues, settings)


@dataclass(frozen=True, eq=False)
class Record:
    """States or distances, with their clock and metric.

    Attributes
    ----------
    states : array_like, shape (T, d) or (T,); or Distances
        States or distances; values that are not finite are allowed.
    metric : str or callable
        Metric, as in `trajtools.neighbors.states.prepare`.
    clock : (float, str)
        Time between two samples, and its unit.
    step : ndarray of int64 or None
        Steps of the states.
    trained : ndarray of int64 or None
        The same, of the states of a training.
    optimizer : Optimizer
        Optimiser of the training.
    factor : float
        Factor that converts distances to the requested metric; 1 except for graphs.
    issues : tuple of Reason
        Objections known from the input alone.
    settings : dict
        Settings of the input.
    """

    states: Any
    metric: Any
    clock: tuple[float, str]
    step: Any = None
    trained: Any = None
    optimizer: Optimizer = PLAIN
    factor: float = 1.0
    issues: tuple[Reason, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def complete(self, exponent: Exponent) -> Exponent:
        """Add steps, and convert distances to the requested metric."""
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
    """Metric for the neighbour search, and its name."""
    if isinstance(x, Distances):
        if metric not in (None, DISTANCES, x.metric):
            raise DataError(
                f"these distances are in the metric {x.metric!r} and cannot be converted to {metric!r}; omit metric=, "
                "or give the states"
            )
        return DISTANCES, DISTANCES
    if metric is None:
        return "l2", "l2"
    if isinstance(metric, str) and metric in (*METRICS, GRAPH_L1):
        return metric, metric
    try:
        # Bound here: the analysis works on arrays, which have no wiring.
        bound = bind_metric(find_metric(metric), x)
    except UnknownNameError as unknown:
        raise UnknownNameError(
            f"{unknown}; one trajectory also accepts {GRAPH_L1!r} and {DISTANCES!r} (distances of all pairs)"
        ) from None
    return bound, bound.name


def _run_states(
    run: Any, optimizer: Optimizer, dim: int | None, buffers: bool | None
) -> tuple[Trajectory, tuple[Reason, ...], dict[str, Any]]:
    """Weights of a run, with buffers if required; objections about its state; and settings."""
    delayed = dim is not None and dim > 1
    recorded = getattr(run, "optimizer", None) is not None
    if buffers and not recorded:
        raise DataError(
            "buffers=True: the run has no buffers of its optimiser; use delay coordinates instead (dim=2 or more, "
            "delay=1)"
        )
    joined = recorded and (buffers or (buffers is None and not delayed))
    if joined:
        states, settings = full_state(run)
        covered = settings["buffer_entries"] >= _buffers_per_weight(optimizer) * settings["weight_entries"]
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
    r"""Weights of a run and buffers of its optimiser: the full state of the training.

    Notes
    -----
    Buffers have their own units (a momentum is a sum of gradients, a second moment a sum of their squares), so each
    kind of buffer is multiplied by a constant that makes its spread over the record,
    :math:`\sqrt{\sum_i \mathrm{var}_t}`, equal to that of the weights. The constant affects which states are
    neighbours, but not the exponent. Step counters are time, not state, and are excluded.
    """
    source = getattr(run, "run", run)
    path, member = run.trajectory(), int(getattr(run, "member", 0) or 0)
    weights = np.asarray(path, dtype=np.float64)
    rows = np.searchsorted(np.asarray(source.step), path.step)
    names = {p.name for p in source.parameters}
    # A selection of parameters includes only its own buffers; a buffer without a parameter belongs to all.
    owners = {"", *(p.name for p in path.parameters)}
    table = [p for p in source.optimizer_parameters if not _is_counter(p) and _owner(p.name, names) in owners]
    buffers = source.optimizer.read(slice(int(rows[0]), int(rows[-1]) + 1), slice(member, member + 1))[:, 0][
        rows - rows[0]
    ]
    spread = _spread(weights)
    blocks, scales = [weights], {}
    for kind in dict.fromkeys(_kind(p.name, names) for p in table):
        columns = [buffers[:, p.offset : p.offset + p.size] for p in table if _kind(p.name, names) == kind]
        block = np.concatenate(columns, axis=1).astype(np.float64)
        size = _spread(block)
        scales[kind] = spread / size if size > 0 and spread > 0 else 1.0
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
    """Name of a buffer without that of its parameter, such as ``"momentum_buffer"``."""
    owner = _owner(name, parameters)
    return (name.replace(owner, "", 1) if owner else name).strip("./: ") or name


def _owner(name: str, parameters: set[str]) -> str:
    """Parameter of a buffer: the longest name contained in that of the buffer; empty if there is none."""
    path = f".{name.replace('/', '.')}."
    return max((p for p in parameters if f".{p.replace('/', '.')}." in path), key=len, default="")


def _is_counter(buffer: Parameter) -> bool:
    return buffer.size == 1 and any(part in COUNTERS for part in buffer.name.lower().replace("/", ".").split("."))


def _buffers_per_weight(optimizer: Optimizer) -> int:
    """Number of buffer entries per weight."""
    return 2 if optimizer.adaptive.startswith(("adam", "nadam", "radam", "lamb")) else 1


def _windowed(x: Any, window: tuple[int, int]) -> Any:
    if isinstance(x, (Trajectory, Distances)):
        return x.window(*window)
    return Trajectory.from_array(x, time_unit="sample").window(*window)


def _distance_record(x: Any, dt: float | None, optimizer: Optimizer, issues: tuple[Reason, ...]) -> Record:
    """Record of the distances of all pairs of states."""
    if not isinstance(x, Distances):
        x = Distances.from_array(np.asarray(x), time_unit="sample")
    if x.shape[0] != x.shape[1]:
        raise DataError(
            f"one trajectory needs the distances between its own states, (T, T); these, {x.shape}, are of two "
            "trajectories"
        )
    spacing, unit, step = sampling(x, dt)
    return Record(
        x,
        DISTANCES,
        (spacing, unit),
        step,
        training_steps(x),
        optimizer,
        issues=issues,
        settings={"distances": x.metric},
    )
