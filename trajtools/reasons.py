"""Reasons and warnings of results: a stable code, an English sentence, and the numbers in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True)
class Reason:
    """A reason for a verdict, or a warning about a result.

    Attributes
    ----------
    code : str
        One of `CODES`; independent of the wording.
    text : str
        English sentence; also the value of `str`.
    numbers : dict
        Name -> int or float: the numbers in the text.
    """

    code: str
    text: str
    numbers: Mapping[str, int | float] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"reason code {self.code!r} is not in trajtools.reasons.CODES")

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, code: str, template: str, /, **values: Any) -> Reason:
        """Fill a template with values, and store the numeric ones in `numbers`."""
        numbers = {name: _number(value) for name, value in values.items() if _is_number(value)}
        return cls(code, template.format(**values), numbers)


def codes(reasons: Iterable[Reason]) -> tuple[str, ...]:
    """Codes of reasons or warnings, in order."""
    return tuple(reason.code for reason in reasons)


def in_order(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Reasons and warnings as they are shown, each once: what is missing from the data comes first."""
    return tuple(sorted(dict.fromkeys(reasons), key=lambda reason: reason.code not in MISSING))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _number(value: Any) -> int | float:
    return int(value) if isinstance(value, Integral) else float(value)


MISSING = ("not-finite", "spoiled-vectors", "ended-at-once", "diverged")
# A code stands for a statement, not for a kind of result; several kinds of results may share it.
CODES: dict[str, str] = {
    # input
    "embedding": "how a series was embedded",
    "sorted-by-time": "the rows were sorted by their times",
    "clock-column": "a column of the table is the clock",
    "columns-unequal": "some columns dwarf others in the distances between states",
    # growth of twins and of neighbours
    "little-room": "the perturbation lies too near the size of the weights, or too near rounding, to be followed far",
    "growth": "how far and how fast the distance grows",
    "waiting": "how long twins wait before they grow, and how many grow",
    "bounded": "the distance, or the series, stays bounded",
    "contracts": "the exponent is negative in its whole interval",
    "no-exponential-regime": "no exponential growth within the record",
    "too-little-growth": "too few e-folds of growth to identify an exponential",
    "unresolved": "most of the separation happens within one sample",
    "slopes-differ": "the local slopes have no plateau",
    "no-room": "the perturbation is too large to grow",
    "no-perturbation": "no copy differs from its reference at any state",
    "independent-batches": "each twin used its own batches, so gradient noise alone separates them",
    "error-unknown": "too few independent samples for a standard error",
    "interval-unknown": "too few independent samples for a confidence interval",
    "zero-not-excluded": "a rate of zero is not excluded",
    "rate-not-constant": "the rate changes within the fitted window",
    "one-initial-condition": "the interval comes from one initial condition and does not cover others",
    "unused-curves": "some curves have no point in the fitted window",
    "too-fast": "the growth takes fewer steps than a fit needs",
    "slows-down": "the growth is slower than exponential, and faster than a power law",
    "few-curves-grow": "some curves grow, and the others do not",
    "runaway": "the training itself diverges, or is still escaping from a saddle",
    "starts-differ": "the rates of separate starts differ",
    # tests
    "no-null": "no null was requested",
    "not-tested": "the data were not compared with a null",
    "no-surrogate": "no surrogate could be drawn",
    "null-rejected": "the null is rejected",
    "local-jacobian": "fitted Jacobians grow at two neighbourhood sizes",
    "local-jacobian-not-positive": "fitted Jacobians do not grow significantly",
    "local-jacobian-unknown": "too few states to fit Jacobians",
    "too-few-surrogates": "too few surrogates for the level of the test",
    "stochastic": "the trajectory behaves like a stochastic process",
    "periodic": "the trajectory repeats itself with a period",
    "quasi-periodic": "the trajectory returns without a single period",
    "null-not-rejected": "surrogates are as predictable as the data",
    "null-fits-better": "the null fits the growth better than an exponential",
    "null-fits-as-well": "the null fits the growth as well as an exponential",
    # persistence
    "persistent": "growth follows every separate start, or the trajectory returns",
    "not-persistent": "there is no growth after some starts",
    "persistence-mixed": "growth follows some starts and not others, or too few starts to decide",
    "persistence-not-tested": "too few separate starts to test whether growth persists",
    # trajectory
    "not-analysable": "an estimator refused the data; the text is its message",
    "use-twins": "twins (perturbed copies) give an exponent where neighbours do not",
    "too-few-states": "the record has too few states",
    "too-few-steps": "the record, or the fit, covers too few steps",
    "record-too-short": "the record is shorter than the method needs",
    "drift": "the trajectory drifts and does not return",
    "not-stationary": "mean or spread of the states changes along the record",
    "no-contrast": "the nearest neighbours are barely closer than other states",
    "repeats": "states repeat exactly",
    "constant": "the trajectory is constant",
    "hidden-state": "the optimiser's buffers, which are part of the state, are missing",
    "noise": "the series looks like noise",
    "measurement-noise": "noise in the states makes the exponent too low, beyond its interval",
    "no-dimension": "no embedding dimension up to the limit is large enough",
    "thinned": "a long record was thinned or cut, to bound the time",
    "oversampled": "successive samples barely differ",
    "not-euclidean": "the distances are not Euclidean",
    "missing-distances": "distances between some states are missing",
    "below-rounding-floor": "values lie at or below the rounding floor",
    "floor-unknown": "the rounding floor is unknown",
    "not-finite": "NaN, infinite or missing values were excluded",
    "spoiled-vectors": "missing values spoil delay vectors",
    "ended-at-once": "nothing grew before the NaN or infinity that ends the trajectory",
    "orbit-not-finite": "states of the orbit, or of the columns, contain NaN or inf and were excluded",
    "undefined-distances": "the metric returned NaN for finite states",
    "first-member": "the result is for the first member",
    # twins
    "unperturbed": "some copies never differ from their reference",
    "merged": "some copies merged with their reference",
    "diverged": "runs, copies or orbits diverged to NaN or infinity",
    "sketched": "distances come from sketches and are approximate",
    "delayed-loss-of-stability": "an earlier perturbation was damped before growth began, so growth shows late",
    "no-twins": "there are no twins, or none yet",
    "twins-saturated": "the twins have saturated, ended or merged",
    "no-states": "no state was recorded in the window",
    # units
    "converted": "how the exponent was converted to another unit",
    "learning-rates-differ": "the mean learning rate differs between the starts",
    # published procedures
    "published-procedure": "a published procedure gives no verdict; how many blocks it retained",
    "no-verdict": "how to get a verdict",
    "published-bias": "known bias of a published procedure",
    "no-theiler-window": "the procedure admits neighbours that are close in time",
    "blocks-left-out": "blocks without a neighbour were excluded",
    "empty-ball": "the run ended at a state without neighbours",
    "frozen-clouds": "clouds of copies that never change their size",
    # orbital stability
    "decays": "the distance decayed",
    "still-decays": "the distance still decays at the end of the record",
    "exponential-growth": "the distance to the orbit grew exponentially",
    "left-neighbourhood": "the copies left the neighbourhood of the orbit",
    "thousandfold-growth": "the distance to the orbit grew more than a thousandfold",
    "growth-undecided": "the distance grew, perhaps exponentially",
    "change": "how much the distance changed",
    "change-undecided": "the change is neither small nor large",
    "neutral": "the distance to the orbit changed by less than one e-fold",
    "stands-still": "the distance changed and then stayed constant",
    "power-of-time": "the distance grew as a power of time",
    "close-to-orbit": "the distance to the orbit stays a small fraction of the perturbation",
    "phase-lag": "the remaining difference is a lag along the orbit",
    "asymptotic-stability-open": "asymptotic stability is neither shown nor excluded",
    "steps-differ": "the reference has no state at some steps",
    "unrelated": "copies are as far from their reference as unrelated states of it",
    "not-smooth": "successive states are too far apart to define a direction of motion",
    "beyond-reference": "the phase lies outside the recorded reference",
    "one-perturbation": "there is a single perturbed trajectory",
    # dimension
    "slope": "the slope of the correlation sum",
    "no-scaling": "the correlation sum has no scaling region",
    "wide-interval": "the interval is wide",
    "exceeds-space": "the slope exceeds the dimension of the space",
    "fills-space": "the set fills the space, or is noise",
    "below-space": "the dimension is smaller than that of the space",
    "space-unknown": "the dimension of the space is unknown",
    "long-theiler-window": "the Theiler window leaves too few independent states",
    "too-few-dimensions": "too few embedding dimensions have a scaling region",
    "saturated": "the slope no longer grows with the embedding dimension",
    "not-saturated": "the slope still grows with the embedding dimension",
    # 0-1 test
    "k": "the statistic K",
    "k-between": "K is neither near 0 nor near 1",
    "k-varies": "K depends on the frequency",
    "not-converged": "the value would change with more data, more computation, or another epsilon",
    "wanders": "the transformed series behaves like a random walk",
    # correlation, cycles and recurrence
    "long-lags": "long lags average few pairs",
    "at-rest": "the states are at rest",
    "no-maximum": "the autocorrelation has no maximum that recurs at its multiples",
    "exact-cycle": "states repeat within rounding",
    "cycle": "the autocorrelation is periodic",
    "weak-cycle": "the strongest period is not significant",
    "no-return": "states one period apart are not close",
    "zero-threshold": "the recurrence threshold is zero",
    "no-recurrence": "no state recurs",
    "equal-distances": "many distances are equal, so the recurrence rate differs from the requested one",
    "tangential-motion": "states recur mostly with their successors",
    "empty-windows": "some windows have fewer than two finite states",
    "dependent-lines": "lines are not independent, so the intervals are too narrow",
    # projections, spectra, change points, observables
    "equal-spreads": "coordinates of equal spread are determined up to a rotation",
    "not-resolved": "some exponents are not resolved",
    "neighborhood-bias": "the interval of the most negative exponent leaves out a bias",
    "unexplained": "the local maps leave much of the variance unexplained",
    "averaged": "the signal was averaged, which limits the resolution of change points",
    "no-measure": "a measure could not be computed",
    "zero-start": "the first state is zero",
    # alignment
    "order-fixed": "hidden units that must not be permuted",
    "scales-fixed": "hidden units whose signs or scales are fixed",
    # curvature, and the order-chaos transition
    "threshold-reached": "rate times curvature reaches the threshold and stays there",
    "threshold-reached-late": "rate times curvature reaches the threshold too late to say that it stays",
    "no-threshold": "no threshold is known for this curvature under this optimiser",
    "diverged-beyond-edge": "the training diverged after it had crossed the edge of stability",
    "diverged-below-edge": "the training diverged below the edge of stability, as far as it was measured",
    "below-threshold": "rate times curvature stays below the threshold",
    "above-threshold": "rate times curvature stays above the threshold",
    "batch-curvature": "the curvature is that of mini-batches",
    "shadow-curvature": "the curvature comes from a shadow, which lags",
    "rate-at-opening": "the learning rate is that at the opening of the file",
    "gradients-clipped": "the optimiser clips large gradients",
    "other-settings": "some arrays are trained with other settings",
    "no-smallest-curvature": "the smallest curvature was not recorded",
    "not-square": "the layer is not square",
    "unknown-hyper-parameters": "hyper-parameters are neither passed nor recorded",
    # sweeps and the edge of chaos
    "onset": "where the exponent passes the limit",
    "no-onset": "there is no onset",
    "onset-below-range": "the exponent is above the limit at every value",
    "onset-above-range": "the exponent is below the limit at every value",
    "stray-values": "some values lie on the other side of the limit than their neighbours",
    "hidden-by-noise": "the exponents are too noisy to locate the onset",
    "too-few-values": "too few values of the hyper-parameter",
    "fastest": "where training is fastest",
    "end-of-range": "the optimum lies at an end of the range",
    "few-initial-conditions": "few initial conditions at some value",
    "accuracy-not-reached": "runs that do not reach the accuracy",
    "fastest-over-onset": "ratio of the fastest value to the onset",
    "wide-ratio": "the interval of the ratio is too wide to decide",
    "no-ratio": "the hyper-parameter is not positive, so ratios of its values mean nothing",
    "sparse-grid": "nothing was run between two values that are far apart",
    "diverging": "a training that runs away as fast as its twins separate",
    "dead": "runs, or networks, that stand still without having learned",
    "fastest-below-onset": "training is fastest below the onset",
    "fastest-at-onset": "training is fastest at the onset",
    "fastest-beyond-onset": "training is fastest beyond the onset",
    "smallest-loss": "where the loss is smallest",
    "smallest-that-arrives": "the smallest rate whose loss falls to a tenth in the shortest race",
    "equally-good": "the range over which the loss is about as small",
    "long-training": "the more careful rate for long trainings",
    "plateau": "training has hardly left its first plateau",
    "left-out": "the loss on rows that were not trained on",
    "smaller-on-left-out": "a smaller rate than the fastest is better on rows left out",
    "no-worse-on-left-out": "a smaller rate than the fastest is no worse on rows left out",
    "unconfirmed": "a smaller rate than the fastest is as good on rows left out",
    "overfits": "the loss on rows left out is more than twice that on the others",
    "few-rows": "rows are trained on again, and too few to leave some out",
    "short-race": "too few steps to tell rates apart",
    "nothing-moved": "no rate lowered the loss",
    "none-trains": "no rate trains",
    "seeds-disagree": "the best rate depends on the seed",
    "close-call": "rates far apart are as good",
    "near-collapse": "the rate above the best one collapses",
    "unsteady": "the loss at the best rate rises again",
    "stuck": "the loss stays at its start or above",
    "collapsed": "training lost again what it had learned",
    "gradient-flow": "the growth is that of gradient flow, proportional to the rate",
    "onset-not-stable": "the onset depends on the half of the run, the seed or epsilon",
    "exponents-not-measured": "no exponents were measured",
    "no-control": "no stable control to compare with",
    "control-faster": "the stable control becomes faster beyond the optimum",
    "control-no-faster": "the stable control is no faster beyond the optimum",
    "runs-differ": "runs in one cell differ in other hyper-parameters",
    "no-power-law": "the times do not follow a power law",
    "not-selected": "runs that were not selected",
    "sensitive": "runs with sensitive dependence",
    "inconclusive": "runs with an inconclusive exponent",
    "no-exponent": "runs without an exponent",
    "no-metric": "runs without the metric",
    "no-hyper-parameter": "runs without the hyper-parameter",
    "unreadable-file": "files that cannot be read, or are damaged where they are needed",
}
"""Meaning of each code."""
