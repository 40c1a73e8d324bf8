"""Edge of stability from recorded curvature, after Sasdelli et al. (2021) and Cohen et al. (2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.errors import DataError, SelectionError
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.statistics import blocked_mean, random_generator
from trajtools.types import Floats, Ints, RNGLike
from trajtools.wiring import listed
from trajtools.wording import spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.store import Run

KINDS = ("full", "subset", "batch")
NEAR = 0.15  # relative distance of the product from the threshold at the edge of stability
DIP = 0.25  # relative distance below the threshold at which the product has left the edge
AGREES = 0.1  # largest relative difference, in the median, of a shadow that stands for Lanczos
FEWEST = 10
AFTER = 0.25  # share of the record that has to stay below the threshold after a visit, to say that it left
STRETCHES = 20
SIDES = ("below-threshold", "above-threshold", "threshold-reached-late")  # reasons that a divergence replaces
LATE = np.log(1000.0)  # nats of damping after which late growth is delayed by a factor of 1000
N_RESAMPLES = 999
LEVEL = 0.95
DELAYED = (
    "rate x h_max exceeds the threshold from step {start} on, {nats:.0f} nats of growth before step {begins}, where "
    "the forward shadow starts to grow, because it was damped along the unstable direction (delayed loss of "
    "stability). Fresh offsets, Shadow(window=), or the windows of tangent_exponents show the growth without delay"
)


_RATES = ("lr", "learning_rate", "eta")
NAMES = {
    **dict.fromkeys(("sgd", "gradient descent", "full-batch gradient descent", "stochastic gradient descent"), "SGD"),
    "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop",
}  # fmt: skip
"""Optimisers as hparams name them, in lower case."""


@dataclass(frozen=True, eq=False, repr=False)
class Curvature(Result):
    """Curvature and learning rate of a run, with a verdict; see `trajtools.training.curvature`.

    Attributes
    ----------
    step : ndarray of int64, shape (T,)
        Steps of the states.
    rate : ndarray of float64, shape (T,)
        Learning rate at each state.
    h_max, h_min : ndarray of float64, shape (T,)
        Largest and smallest curvature; NaN where not recorded.
    sources : dict
        Source metric of each series.
    product : ndarray of float64, shape (T,)
        Rate times h_max.
    threshold : float
        Product at which the optimiser becomes unstable on a quadratic: 2 for gradient descent, see
        `stability_threshold`; NaN where none is known.
    predicted : ndarray of float64, shape (T,)
        Local exponent of plain gradient descent, ``ln max(|1 - rate h_min|, |1 - rate h_max|)``, per step; NaN for
        other optimisers, and where a curvature is missing.
    measured : ndarray of float64, shape (T,)
        Recorded growth of a forward shadow, per step; NaN without one.
    entry : float
        First step at which the product reaches the threshold with a later median near it; NaN if there is none.
    after : float
        Mean of the product from `entry` on; NaN without an entry.
    after_interval : (float, float)
        Confidence interval of `after`, from blocks of time.
    agreement : float
        Correlation of `measured` and `predicted`, averaged over blocks of the record; NaN if unknown.
    diverged : float
        First step from which the weights, the loss or the curvature are not finite; NaN if they stay finite.
    verdict : str
        ``"below the edge"``, ``"at the edge"``, ``"beyond the edge"``, ``"diverged"`` (the reasons say on which side
        of the edge), or ``"inconclusive"``.
    reasons : tuple of Reason
        Reasons for the verdict, with numbers.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from recorders import Recorder
    >>> with Recorder("curved.h5", {"w": np.ones(2)}, hparams={"lr": 0.1}, quiet=True) as recorder:
    ...     for step in range(60):
    ...         recorder.record({"w": np.ones(2)}, h_max_full=10.0)
    >>> result = tt.training.curvature(tt.open("curved.h5"))
    >>> result.threshold, float(result.product[0])
    (2.0, 1.0)
    """

    step: Ints
    rate: Floats
    h_max: Floats
    h_min: Floats
    sources: dict[str, str]
    product: Floats
    threshold: float
    predicted: Floats
    measured: Floats
    entry: float
    after: float
    after_interval: tuple[float, float]
    agreement: float
    diverged: float
    verdict: str
    reasons: tuple[Reason, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "product": ("step",),
        "rate": ("step",),
        "h_max": ("step",),
        "h_min": ("step",),
        "predicted": ("step",),
        "measured": ("step",),
    }

    def _sentence(self) -> str:
        crossed = any(reason.code == "diverged-beyond-edge" for reason in self.reasons)
        side = ", having crossed the edge of stability" if crossed else ""
        texts = {
            "diverged": f"The training diverges at step {spoken(self.diverged)}{side}",
            "below the edge": "The training stays below the edge of stability",
            "at the edge": f"The training reaches the edge of stability at step {spoken(self.entry)}, and stays there",
            "beyond the edge": "The training stays beyond the edge of stability",
        }
        text = texts.get(self.verdict, "The data do not decide; the reasons say what is missing")
        known = self.product[np.isfinite(self.product)]
        level = f" of {self.threshold:.3g}" if np.isfinite(self.threshold) else ""
        ends = "was last" if self.verdict == "diverged" else "ends at"
        last = f"; rate x curvature {ends} {known[-1]:.3g}{level}" if len(known) else ""
        return f"{text}{last}."

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the product of rate and curvature with its thresholds; see `trajtools.plots.curvature`.

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

        return plots.curvature(self, ax=ax)


def curvature(
    run: Run, *, of: str | None = None, rate: float | None = None, momentum: float | None = None,
    nesterov: bool | None = None, rng: RNGLike = None,
) -> Curvature:  # fmt: skip
    r"""Compare a training with the edge of stability, from recorded curvature.

    Parameters
    ----------
    run : Run
        With metrics of `sharpness` (``h_max_full``, ...) or `Shadow` (``shadow_h_max_batch``, ...).
    of : str or None
        Whose Hessian: ``"full"``, ``"subset"`` or ``"batch"``; None: the first of these that was recorded. Where both
        were recorded, a shadow that is known at more states stands for `sharpness` if they differ by at most 10 %
        (median).
    rate, momentum : float or None
        Learning rate and momentum. None: the metric ``learning_rate`` or ``lr`` if recorded, else the `hparams`, else
        those of the optimiser that the recorder followed.
    nesterov : bool or None
        Nesterov's momentum; None: from the `hparams` or the optimiser, else False.
    rng : int, numpy.random.Generator or None
        Generator of the resampling; None is the seed 0.

    Returns
    -------
    Curvature
        The series and the verdict.

    Raises
    ------
    SelectionError
        If no curvature was recorded; the message lists the metrics.
    DataError
        If the learning rate is unknown, or the run has no states.

    Notes
    -----
    Gradient descent on a quadratic is stable while rate x h_max < 2, with momentum beta while it is below 2 + 2 beta,
    with Nesterov's below (2 + 2 beta) / (1 + 2 beta). Adam, AdamW and RMSprop have a threshold for the curvature in
    units of their preconditioner (``preconditioned_h_max_full``, ...), and none for the Hessian; see
    `stability_threshold`. The optimiser is that of the recorder (``run.provenance["optimizer"]``), else the entry
    ``optimizer`` of the `hparams`, else gradient descent. A training run that reaches this threshold and stays near it
    is at the edge of stability [2]_. One that reaches it in the last quarter of the record, without an entry, is
    inconclusive: record longer. The local exponent of gradient descent is ln max(\|1 - rate h_min\|, \|1 - rate
    h_max\|): at small rates that of the most negative curvature [1]_, beyond the edge that of the largest.

    A training whose weights, loss or curvature end non-finite has diverged, whatever came before. The reason says
    whether the product had passed the threshold in the last tenth of the states before (at least ten), which is how
    gradient descent diverges, or was below it: then the cause is another, or lies between two recorded states.

    A warning reports a forward shadow that starts to grow much later than the threshold is passed. Neither is in error,
    see `docs/time.md`.

    The curvature of mini-batches exceeds that of the full set, and the threshold of stochastic training lies below 2:
    compare with ``of="full"``.

    References
    ----------
    .. [1] M. Sasdelli et al., A Chaos Theory Approach to Understand Neural Network Optimization, DICTA (2021)
    .. [2] J. Cohen et al., Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability, ICLR (2021),
       arXiv:2103.00065

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from recorders import Recorder
    >>> with Recorder("probed.h5", {"w": np.ones(2)}, hparams={"lr": 0.1}, quiet=True) as recorder:
    ...     for step in range(60):
    ...         recorder.record({"w": np.ones(2)}, h_max_full=10.0)
    >>> tt.training.curvature(tt.open("probed.h5")).verdict
    'below the edge'
    """
    if of is not None and of not in KINDS:
        raise SelectionError(f"of={of!r} is none of {', '.join(KINDS)}")
    if not run.n_states:
        raise DataError(f"run {run.name!r} has no states")
    metrics = run.metrics
    optimizer = _optimizer(run, momentum, nesterov)
    adaptive = optimizer["name"] != "SGD"
    units = ("preconditioned_", "") if adaptive else ("", "preconditioned_")
    unit = next((unit for unit in units if _source(metrics, f"{unit}h_max", of)), "")
    found = {name: _source(metrics, unit + name, of) for name in ("h_max", "h_min")}
    sources = {name: source for name, source in found.items() if source}
    if "h_max" not in sources:
        selection = f" of the {of} Hessian" if of else ""
        raise SelectionError(
            f"run {run.name!r} has no recorded curvature{selection}: record `sharpness` or `Shadow` metrics. It has "
            f"{', '.join(metrics) or 'no metrics'}"
        )
    growth = next((f"shadow_growth_{kind}" for kind in KINDS if f"shadow_growth_{kind}" in metrics), None)
    T = run.n_states
    h_max, h_min = (_series(metrics, sources.get(name), T) for name in ("h_max", "h_min"))
    measured = _series(metrics, growth, T)
    rates, rate_source = _rates(run, rate, optimizer)
    middle = float(np.median(rates[np.isfinite(rates)])) if np.isfinite(rates).any() else float("nan")
    limits = thresholds(optimizer, middle)
    limit = next(
        (value for stem, value in limits.items() if sources["h_max"].startswith((stem, "shadow_" + stem))), None
    )
    threshold = float("nan") if limit is None else middle * limit
    beta, ahead = float(optimizer["momentum"] or 0.0), bool(optimizer["nesterov"])
    product = rates * h_max
    plain = not (adaptive or unit or beta)
    predicted = _local(rates, h_min, h_max) if plain else np.full(T, np.nan)
    at, after, interval = _entry(run.step, product, threshold, random_generator(rng))
    agreement = _agreement(measured, predicted)
    calm = np.where(np.isnan(product), np.nan, 0.0)
    waiting = calm if adaptive or unit else np.where(product > threshold, _flipping(product, beta, ahead), calm)
    verdict, reasons = _judge(run.step, product, threshold, (at, after, interval))
    if limit is None:
        verdict, reasons = "inconclusive", (_no_threshold(optimizer, limits, sources["h_max"]),)
    end = _divergence(run, h_max)
    if end is not None:
        verdict, reasons = "diverged", (_last_finite(run.step, product, threshold, end, sources["h_max"]), *reasons)
        reasons = tuple(reason for reason in reasons if reason.code not in SIDES)
    settings = {"of": of, "rate": rate_source, "optimizer": optimizer, "near": NEAR, "level": LEVEL}
    return Curvature(
        step=run.step,
        rate=rates,
        h_max=h_max,
        h_min=h_min,
        sources=sources | ({"growth": growth} if growth else {}),
        product=product,
        threshold=threshold,
        predicted=predicted,
        measured=measured,
        entry=at,
        after=after,
        after_interval=interval,
        agreement=agreement,
        diverged=float("nan") if end is None else float(run.step[end]),
        verdict=verdict,
        reasons=reasons,
        settings=settings,
        warnings=(
            *_warnings(sources, h_max, metrics),
            *_of_optimizer(optimizer, rate_source),
            *_late(run, (sources["h_max"], growth), measured, waiting),
        ),
    )


def stability_threshold(
    rate: float,
    momentum: float = 0.0,
    *,
    nesterov: bool = False,
    is_average: bool = False,
    decay: float = 0.0,
    decoupled: bool = False,
) -> float:
    r"""Largest curvature at which gradient descent with momentum is stable on a quadratic.

    Parameters
    ----------
    rate, momentum : float
        eta and beta.
    nesterov : bool
        Gradient at the point ahead.
    is_average : bool
        False: Polyak's heavy ball as torch has it, m <- beta m + g. True: m <- beta m + (1 - beta) g, as in Adam.
    decay : float
        Weight decay lambda.
    decoupled : bool
        False: the gradient gets lambda w (an L2 penalty). True: w <- (1 - eta lambda) w, as in AdamW.

    Returns
    -------
    float
        NaN where the rate is not positive.

    Notes
    -----
    Heavy ball: :math:`2 (1 + \beta) / \eta` ([1]_); Nesterov: :math:`2 (1 + \beta) / ((1 + 2 \beta) \eta)`; an
    average: :math:`2 (1 + \beta) / ((1 - \beta) \eta)`, which is :math:`38 / \eta` at beta = .9 ([2]_, for the
    curvature :math:`P^{-1} H` of Adam at full batch with a preconditioner that changes slowly). An L2 penalty is
    curvature itself and is subtracted. Decoupled decay puts :math:`2 - \eta \lambda` for 2: the step
    :math:`w' = (1 - \eta \lambda) w - \eta m'` then has the multiplier -1.

    References
    ----------
    .. [1] J. Cohen et al., ICLR 2021, arXiv:2103.00065
    .. [2] J. Cohen et al., Adaptive gradient methods at the edge of stability (2022), arXiv:2207.14484

    Examples
    --------
    >>> import trajtools as tt
    >>> tt.training.stability_threshold(0.25), tt.training.stability_threshold(0.25, 0.5)
    (8.0, 12.0)
    """
    if not rate > 0:
        return float("nan")
    shrunk = rate * decay if decoupled else 0.0
    threshold = (2 - shrunk) * (1 + momentum) / rate
    if is_average:
        threshold /= 1 - momentum
    if nesterov:
        threshold /= 1 + 2 * momentum
    return threshold if decoupled else threshold - decay


def thresholds(optimizer: Mapping[str, Any], rate: float) -> dict[str, float]:
    """Largest stable curvatures of an optimiser, by the beginning of their metrics; empty where none is known.

    SGD: of the Hessian. Adam, AdamW and RMSprop: of the Hessian in units of their preconditioner.
    """
    if not optimizer.get("is_known", True):
        return {}
    name, decay = optimizer.get("name"), float(optimizer.get("weight_decay") or 0.0)
    momentum = float(optimizer.get("momentum") or 0.0)
    if name == "SGD" and not optimizer.get("dampening"):
        nesterov = bool(optimizer.get("nesterov"))
        apart = bool(optimizer.get("decoupled_weight_decay"))
        return {"h_max": stability_threshold(rate, momentum, nesterov=nesterov, decay=decay, decoupled=apart)}
    decoupled = name == "AdamW" or bool(optimizer.get("decoupled_weight_decay"))
    if decay and not decoupled:  # the penalty has the units of H, and the curvature those of P^-1 H
        return {}
    if name in ("Adam", "AdamW") and optimizer.get("betas"):
        beta = float(optimizer["betas"][0])
        return {"preconditioned_h_max": stability_threshold(rate, beta, is_average=True, decay=decay, decoupled=True)}
    if name == "RMSprop":
        return {"preconditioned_h_max": stability_threshold(rate, momentum)}
    return {}


def _series(metrics: Mapping[str, Any], name: str | None, T: int) -> Floats:
    """A metric as one series, (T,): the first column of several."""
    if name is None:
        return np.full(T, np.nan)
    values = np.asarray(metrics[name], dtype=np.float64).reshape(T, -1)
    return values[:, -1] if name.startswith("h_min") else values[:, 0]


def _rates(run: Any, rate: float | None, optimizer: Mapping[str, Any]) -> tuple[Floats, str]:
    if rate is not None:
        if not rate > 0:
            raise DataError(f"rate={rate!r} must be positive")
        return np.full(run.n_states, float(rate)), "given"
    for name in ("learning_rate", "lr", "learning_rate_0"):
        if name in run.metrics:
            values = np.asarray(run.metrics[name], dtype=np.float64).reshape(run.n_states, -1)[:, 0]
            return values, f"metric {name}"
    for name in _RATES:
        value = run.hparams.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return np.full(run.n_states, float(value)), f"hparams {name}"
    if isinstance(optimizer.get("lr"), (int, float)):
        return np.full(run.n_states, float(optimizer["lr"])), "optimizer lr"
    why = f". Of its optimiser, {optimizer['missing']}" if optimizer.get("missing") else ""
    raise DataError(f"run {run.name!r} has no learning rate: record it as a metric or in hparams, or pass rate={why}")


def _optimizer(run: Any, momentum: float | None, nesterov: bool | None) -> dict[str, Any]:
    """What is known of the optimiser: from the recorder, else from the hparams; gradient descent if nothing is."""
    hparams, recorded = run.hparams, run.provenance.get("optimizer")
    if not isinstance(recorded, Mapping):
        name = hparams.get("optimizer")
        name = NAMES.get(name.lower(), name) if isinstance(name, str) else "SGD"
        recorded = {"name": name, "betas": hparams.get("betas"), "weight_decay": hparams.get("weight_decay")}
    elif not recorded.get("is_known", True) and isinstance(hparams.get("optimizer"), str):
        name = hparams["optimizer"]
        recorded = {**recorded, **{key: hparams[key] for key in ("betas", "weight_decay") if key in hparams}}
        recorded |= {"name": NAMES.get(name.lower(), name), "is_known": True}
    optimizer = {"momentum": 0.0, "nesterov": False, **recorded}
    for key, value in (("momentum", hparams.get("momentum")), ("nesterov", hparams.get("nesterov"))):
        optimizer[key] = value if isinstance(value, (int, float)) else optimizer[key]
    if momentum is not None:
        optimizer["momentum"] = momentum
    if nesterov is not None:
        optimizer["nesterov"] = nesterov
    if not 0 <= float(optimizer["momentum"] or 0.0) < 1:
        raise DataError(f"momentum={optimizer['momentum']!r} must lie between 0 and 1")
    return optimizer


def _no_threshold(optimizer: Mapping[str, Any], limits: Mapping[str, float], source: str) -> Reason:
    """Why the recorded curvature has no threshold."""
    name = str(optimizer["name"])
    if not optimizer.get("is_known", True):
        text = "no threshold of the curvature is known for {optimizer}: {missing}"
        return Reason.of("no-threshold", text, optimizer=name, source=source, missing=str(optimizer.get("missing")))
    if source.startswith("preconditioned_") and not optimizer.get("betas"):
        text = (
            "{source} is in units of a preconditioner, and the file does not name the optimiser with its betas: record "
            "hparams={{'optimizer': 'Adam', 'betas': [0.9, 0.999]}} with their own values"
        )
    elif limits:
        text = (
            "{optimizer} divides its steps by a preconditioner, and {source} is the curvature without it: record "
            "sharpness(..., preconditioner=...)"
        )
    else:
        text = "no threshold of the curvature is known for {optimizer} as it was used; rate x {source} is shown only"
    return Reason.of("no-threshold", text, optimizer=name, source=source)


def _entry(
    step: Any, product: Floats, threshold: float, rng: np.random.Generator
) -> tuple[float, float, tuple[float, float]]:
    """First step at the threshold with a later median near it, and the mean of the product from there on."""
    nothing = (float("nan"), float("nan"))
    finite = np.flatnonzero(np.isfinite(product))
    values = product[finite]
    away = np.flatnonzero(_smoothed(values) < (1 - DIP) * threshold)
    for at in np.flatnonzero(values >= threshold):
        if len(away) and at < away[-1]:
            continue
        rest = values[at:]
        if len(rest) >= FEWEST and abs(np.median(rest) / threshold - 1) <= NEAR:
            return float(step[finite[at]]), float(rest.mean()), _interval(rest, rng)
    return float("nan"), float("nan"), nothing


def _smoothed(values: Floats) -> Floats:
    """Running median over a fiftieth of the record, which removes the oscillations at the edge."""
    half = max(1, len(values) // 100)
    padded = np.concatenate([values[:1].repeat(half), values, values[-1:].repeat(half)])
    if not len(values):
        return values
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1))


def _interval(values: Floats, rng: np.random.Generator) -> tuple[float, float]:
    length = max(1, round(len(values) ** 0.5))
    return blocked_mean(values, length, count=N_RESAMPLES, level=LEVEL, rng=rng)


def _agreement(measured: Floats, predicted: Floats) -> float:
    """Correlation of block means, since single steps of a shadow lag behind the curvature."""
    both = np.flatnonzero(np.isfinite(measured) & np.isfinite(predicted))
    if len(both) < 2 * STRETCHES:
        return float("nan")
    parts = np.array_split(both, STRETCHES)
    a, b = (np.array([values[part].mean() for part in parts]) for values in (measured, predicted))
    if min(a.std(), b.std()) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _judge(
    step: Ints, product: Floats, threshold: float, entry: tuple[float, float, tuple[float, float]]
) -> tuple[str, tuple[Reason, ...]]:
    at, after, interval = entry
    finite = np.flatnonzero(np.isfinite(product))
    values = product[finite]
    if len(values) < FEWEST:
        text = "rate x h_max is known at {states} states; the verdict needs {needed}"
        return "inconclusive", (Reason.of("too-few-states", text, states=len(values), needed=FEWEST),)
    if np.isfinite(at):
        reached = Reason.of(
            "threshold-reached",
            "rate x h_max reaches {threshold:.4g} at step {step:.0f} and is {mean:.4g} [{low:.4g}, {high:.4g}] on "
            "average from there on",
            threshold=threshold,
            step=at,
            mean=after,
            low=interval[0],
            high=interval[1],
        )
        return "at the edge", (reached,)
    late = float(np.median(values[len(values) // 2 :]))
    above = np.flatnonzero(values >= threshold)
    if late < threshold and len(above) and len(values) - 1 - above[-1] < max(FEWEST, AFTER * len(values)):
        away = np.flatnonzero(_smoothed(values) < (1 - DIP) * threshold)
        since = above[above > away[away < above[-1]].max(initial=-1)][0]
        visited = Reason.of(
            "threshold-reached-late",
            "rate x h_max reaches {threshold:.4g} at step {step} ({largest:.4g} at most), and of {states} states "
            "{after} follow the last one there: too few to say whether it stays or leaves; record longer",
            threshold=threshold,
            step=int(step[finite[since]]),
            largest=values[since:].max(),
            states=len(values),
            after=int(len(values) - 1 - above[-1]),
        )
        return "inconclusive", (visited,)
    if late < threshold:
        below = Reason.of(
            "below-threshold",
            "rate x h_max is {late:.4g} in the second half and {largest:.4g} at most; it does not stay at "
            "{threshold:.4g}",
            late=late,
            largest=values.max(),
            threshold=threshold,
        )
        return "below the edge", (below,)
    text = "rate x h_max is {late:.4g} in the second half, above {threshold:.4g}"
    return "beyond the edge", (Reason.of("above-threshold", text, late=late, threshold=threshold),)


def _divergence(run: Run, h_max: Floats) -> int | None:
    """First state from which nothing is finite up to the end; None for a training that stays finite."""
    T, known = len(h_max), np.flatnonzero(np.isfinite(h_max))
    first = int(known[-1]) + 1 if len(known) else 0
    if first == T:
        return None
    if run.stored == "weights":

        def is_finite(t: int) -> bool:
            return bool(np.isfinite(run.states[t]).all())

        if not is_finite(T - 1):
            low, high = first, T - 1  # not finite at `high`; what is not finite once stays so
            while low < high:
                middle = (low + high) // 2
                low, high = (middle + 1, high) if is_finite(middle) else (low, middle)
            return low
    if np.isposinf(h_max[-1]):
        return first
    for name in run.metrics:
        if "loss" in name.lower():
            loss = _series(run.metrics, name, T)
            finite = np.flatnonzero(np.isfinite(loss))
            end = int(finite[-1]) + 1 if len(finite) else T
            # NaN may also be a loss that was not recorded, as after the last update.
            if end < T and (np.isinf(loss[end:]).any() or (T - end > 1 and len(finite) == end)):
                return max(first, end)
    return None


def _last_finite(step: Ints, product: Floats, threshold: float, end: int, source: str) -> Reason:
    """On which side of the threshold a training was when it diverged."""
    known = np.flatnonzero(np.isfinite(product[:end]))
    if not len(known) or not np.isfinite(threshold):
        text = "the training diverges at step {step}; which side of the edge it was on before is unknown"
        return Reason.of("diverged", text, step=int(step[end]))
    numbers = {"step": int(step[end]), "threshold": threshold, "last": product[known[-1]], "at": int(step[known[-1]])}
    late = known[-max(FEWEST, len(known) // 10) :]
    if (product[late] >= threshold).any():
        away = known[product[known] < (1 - DIP) * threshold]
        above = known[product[known] >= threshold]
        since = above[above > away[away < above[-1]].max(initial=-1)][0]
        text = (
            "the training diverges at step {step}: rate x {source} passes {threshold:.4g} at step {since}, reaches "
            "{largest:.4g}, and is {last:.4g} at step {at}, the last where it is known"
        )
        largest = product[since:end][np.isfinite(product[since:end])].max()
        return Reason.of(
            "diverged-beyond-edge", text, **numbers, source=source, since=int(step[since]), largest=largest
        )
    text = "the training diverges at step {step}, with rate x {source} {last:.4g} at step {at}, below {threshold:.4g}: "
    between = int(step[end] - step[known[-1]])
    if between > 1:
        text += (
            "it crosses the edge in the {between} steps between, where the curvature is unknown, or has another cause"
        )
    else:
        text += "not through the edge, so look for another cause (a bad batch, a jump of the rate, overflow)"
    return Reason.of("diverged-below-edge", text, **numbers, source=source, between=between)


def _source(metrics: Mapping[str, Any], name: str, of: str | None) -> str | None:
    """Name of a metric: the full set before its parts; Lanczos, or a shadow that agrees and is known at more states."""
    for kind in (of,) if of else KINDS:
        exact, shadow = f"{name}_{kind}", f"shadow_{name}_{kind}"
        if exact in metrics and shadow in metrics:
            more = np.isfinite(metrics[shadow]).sum() > np.isfinite(metrics[exact]).sum()
            return shadow if more and _difference(metrics, exact) <= AGREES else exact
        if exact in metrics or shadow in metrics:
            return exact if exact in metrics else shadow
    return None


def _difference(metrics: Mapping[str, Any], exact: str) -> float:
    """Median relative difference of a shadow from Lanczos, at states where both are known; NaN without any."""
    T = len(metrics[exact])
    values, beside = _series(metrics, exact, T), _series(metrics, f"shadow_{exact}", T)
    both = np.isfinite(values) & np.isfinite(beside) & (values != 0)
    return float(np.median(np.abs(beside[both] / values[both] - 1))) if both.any() else float("nan")


def _local(rate: Floats, low: Floats, high: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(np.maximum(np.abs(1 - rate * low), np.abs(1 - rate * high))))


def _flipping(product: Floats, beta: float, ahead: bool) -> Floats:
    """Growth along the largest curvature of a quadratic, nats per step, from the roots of the update map."""
    trace = (1 + beta) * (1 - product) if ahead else 1 + beta - product
    determinant = beta * (1 - product) if ahead else np.full_like(product, beta)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        root = np.sqrt((trace**2 - 4 * determinant).astype(np.complex128))
        return np.log(np.maximum(np.abs(trace + root), np.abs(trace - root)) / 2)


def _warnings(sources: Mapping[str, str], h_max: Floats, metrics: Mapping[str, Any]) -> tuple[Reason, ...]:
    warnings = []
    if sources["h_max"].endswith("batch"):
        text = (
            "h_max is that of mini-batches, which is larger than that of the full data set unless a batch holds "
            "all of it"
        )
        warnings.append(Reason("batch-curvature", text))
    if sources["h_max"].startswith("shadow"):
        text = "h_max comes from a shadow, which lags when the curvature changes fast"
        exact = sources["h_max"].removeprefix("shadow_")
        numbers = {"difference": _difference(metrics, exact)} if exact in metrics else {}
        if numbers:
            text += "; where the largest eigenvalue was recorded too, it differs by {difference:.1%} (median)"
        warnings.append(Reason.of("shadow-curvature", text, **numbers))
    if "h_min" not in sources:
        text = "the smallest curvature was not recorded: there is no predicted local exponent"
        warnings.append(Reason("no-smallest-curvature", text))
    unknown = int(np.sum(~np.isfinite(h_max)))
    if unknown:
        text = "h_max is known at {known} of {states} states, where it was recorded and is finite"
        warnings.append(Reason.of("not-finite", text, unknown=unknown, known=len(h_max) - unknown, states=len(h_max)))
    return tuple(warnings)


def _of_optimizer(optimizer: Mapping[str, Any], rate_source: str) -> tuple[Reason, ...]:
    """What the threshold leaves out of the optimiser."""
    warnings = []
    is_fixed = "transforms" in optimizer and "learning_rate" not in (optimizer.get("injected") or ())
    if rate_source == "optimizer lr" and not is_fixed:
        text = "the learning rate is that at opening, and the loop may have changed it: record it as a metric"
        warnings.append(Reason("rate-at-opening", text))
    if optimizer.get("clips"):
        text = "the optimiser clips large gradients; where it does, steps are smaller than rate x gradient"
        warnings.append(Reason("gradients-clipped", text))
    others = optimizer.get("others") or ()
    if others:
        text = "the threshold is that of the largest array; other settings train {names}"
        warnings.append(Reason.of("other-settings", text, names=listed(others)))
    return tuple(warnings)


def _late(run: Any, sources: tuple[str, str | None], measured: Floats, waiting: Floats) -> tuple[Reason, ...]:
    """Warn of a shadow that starts to grow late.

    `waiting` is the growth on a quadratic of the recorded curvature at each state, in nats per step: 0 below the
    threshold, NaN where the curvature is unknown. States without growth of the shadow do not count.
    """
    if sources[1] is None or any(name.endswith("batch") for name in sources if name):
        return ()  # growths of the Hessians of different mini-batches do not add up
    finite = np.flatnonzero(np.isfinite(waiting))
    above = np.concatenate([[0], (waiting[finite] > 0).astype(int), [0]])
    for a, b in np.flatnonzero(np.diff(above)).reshape(-1, 2):
        rows = finite[a:b]
        steps = run.step[rows[0] : rows[-1] + 1]
        growth = measured[rows[0] : rows[-1]]
        grown = np.cumsum(np.where(np.isfinite(growth), growth, 0.0) * np.diff(steps))
        risen = grown - np.minimum(np.minimum.accumulate(grown), 0.0)
        if not (risen >= 1).any():
            continue
        begins = int(steps[np.argmax(risen >= 1)])
        before = run.step[rows[1:]] <= begins
        nats = float(np.sum((waiting[rows[:-1]] * np.diff(run.step[rows]))[before]))
        if nats > LATE + 0.5 * np.log(run.n_parameters):
            numbers = {"start": steps[0], "nats": nats, "begins": begins}
            return (Reason.of("delayed-loss-of-stability", DELAYED, **numbers),)
    return ()
