"""The class that follows from two trends: of the distance at equal times, and of the distance to the orbit."""

from __future__ import annotations

import numpy as np

from trajtools.results.stability import Trend

DECISIVE = 3.0  # e-folds that a distance must have fallen or grown
NEUTRAL = 1.0  # e-folds within which it has done neither
STOPPED = 0.2  # a fall goes on if at least this share of it belongs to its second half
STEADY = 0.35  # an exponential falls half of its e-folds in the second half
STILL = 0.1  # e-folds: a distance that changes by less in the second half stands still
TUBE = 3.0  # times the perturbation: what the tube around the orbit may measure
LEFT = 0.1  # of the size of the orbit: further away it has been left
SHAPE = 0.2  # evidence, from -1 to 1, that tells an exponential from a power of time where it has no p-value
THOUSANDFOLD = float(np.log(1000))  # growth that is no drift, whatever its shape, unless it is clearly a power of time

SETTINGS = {
    "decisive": DECISIVE,
    "neutral": NEUTRAL,
    "stopped": STOPPED,
    "still": STILL,
    "steady": STEADY,
    "tube_limit": TUBE,
    "left": LEFT,
    "shape": SHAPE,
    "thousandfold": THOUSANDFOLD,
}


def classify(
    dynamical: Trend, orbital: Trend, *, apart: float, reached: float, n_diverged: int
) -> tuple[str, tuple[str, ...]]:
    """Choose the class, in the order of the reasons."""
    if n_diverged:
        return "unstable", (
            f"{n_diverged} of {n_diverged + dynamical.n_units} perturbed trajectories end with NaN or infinite weights "
            "while their reference does not",
        )
    if not dynamical.n_units:
        return "inconclusive", ("no perturbed trajectory differs from its reference: there is nothing to follow",)
    if _decays(dynamical):
        return "asymptotically stable", (_fell(dynamical),)
    grown = _grows(orbital, reached)
    if grown:
        return "unstable", (grown,)
    if _decays(orbital):
        return "orbitally stable", (_fell(orbital), _phase(dynamical, apart))
    if orbital.largest <= -DECISIVE:
        words = f"the distance to the orbit is never more than {np.exp(orbital.largest):.2g} of the perturbation"
        return "orbitally stable", (words, _phase(dynamical, apart))
    if orbital.largest <= np.log(TUBE) and apart > NEUTRAL and dynamical.change_interval[0] > NEUTRAL:
        words = f"the distance to the orbit stays within {np.exp(orbital.largest):.3g} times the perturbation"
        return "orbitally stable", (words, _phase(dynamical, apart))
    neutral = "" if _falling(dynamical) or _falling(orbital) else _neutral(orbital)
    if neutral:
        return "marginal drift", (neutral, _told(dynamical))
    return "inconclusive", (_undecided(orbital), _told(dynamical))


def _decays(of: Trend) -> bool:
    if of.n_floor == of.n_units and of.change <= -DECISIVE:
        return True
    ended = of.change_interval[1] < -DECISIVE and of.rate_interval[1] < 0
    return bool(ended and of.late_change < STOPPED * of.change)


def _grows(of: Trend, reached: float) -> str:
    if not of.change_interval[0] > DECISIVE:
        return ""
    words = f"the distance to the orbit grew by {of.change:.3g} e-folds, interval {_span(of.change_interval)}"
    if _exponential(of):
        return f"{words}, exponentially (evidence against a power law {of.exponential:.2g} on a scale from -1 to 1)"
    if reached > LEFT:
        return f"{words}, and reached {reached:.2g} of the size of the orbit: its neighbourhood was left"
    if of.change_interval[0] > THOUSANDFOLD and not _power(of):
        return f"{words}: more than a thousandfold, though not in the shape of an exponential ({of.exponential:.2g})"
    return ""


def _exponential(of: Trend) -> bool:
    return of.p_exponential <= 0.01 if np.isfinite(of.p_exponential) else of.exponential > SHAPE


def _power(of: Trend) -> bool:
    return of.exponential < -SHAPE


def _falling(of: Trend) -> bool:
    """Whether it falls as steadily in the second half as in the first, though not yet far enough."""
    share = of.late_change / of.change if of.change < 0 else 0.0
    return bool(of.rate_interval[1] < 0 and of.late_change < -STILL and share > STEADY)


def _neutral(of: Trend) -> str:
    low, high = of.change_interval
    words = f"the distance to the orbit changed by {of.change:.3g} e-folds, interval {_span(of.change_interval)}"
    if low > -NEUTRAL and high < NEUTRAL:
        return f"{words}: it neither decays nor grows exponentially"
    if of.change < NEUTRAL and abs(of.late_change) < STILL and of.n_floor < of.n_units and np.isfinite(low):
        return f"{words}, and then stood still: {of.late_change:.2g} of it in the second half"
    if low > 0 and _power(of):
        return f"{words}, in the shape of a power of time (evidence for an exponential {of.exponential:.2g})"
    return ""


def _fell(of: Trend) -> str:
    if not np.isfinite(of.rate):
        return f"the {of.quantity} is below what numbers resolve from the start, {-of.change:.3g} e-folds down"
    floor = f"; {of.n_floor} of {of.n_units} reached the numerical floor" if of.n_floor else ""
    return (
        f"the {of.quantity} fell by {-of.change:.3g} e-folds at {of.rate:.4g} per unit of time, interval "
        f"{_span(of.rate_interval)} over {of.over}{floor}"
    )


def _phase(of: Trend, apart: float) -> str:
    words = f"the distance at equal times changed by {of.change:.3g} e-folds"
    if of.change <= -DECISIVE:
        span = _span(of.change_interval)
        return f"{words} too, interval {span} over {of.over}: asymptotic stability is neither shown nor excluded"
    return f"{words}: what remains is a lag along the orbit, {np.exp(apart):.3g} times the distance to it"


def _told(of: Trend) -> str:
    return f"the {of.quantity} changed by {of.change:.3g} e-folds, interval {_span(of.change_interval)} over {of.over}"


def _undecided(of: Trend) -> str:
    if not np.isfinite(of.change) or (of.n_floor == of.n_units and not np.isfinite(of.rate)):
        return f"the {of.quantity} is at the numerical floor, or excluded, from the start: perturb by more"
    if not np.isfinite(of.change_interval[0]):
        return (
            f"the {of.quantity} changed by {of.change:.3g} e-folds over too few states for an interval; record more "
            "states, or more initial conditions"
        )
    if _falling(of):
        return f"{_fell(of)}, and falls on: record longer"
    if of.change_interval[0] > NEUTRAL:
        return (
            f"the {of.quantity} grew by {of.change:.3g} e-folds, interval {_span(of.change_interval)}, and whether "
            f"exponentially cannot be told (evidence {of.exponential:.2g}); give more initial conditions, or a smaller "
            "perturbation"
        )
    return (
        f"the {of.quantity} changed by {of.change:.3g} e-folds, interval {_span(of.change_interval)}: neither within "
        f"{NEUTRAL:g} nor beyond {DECISIVE:g} of them; record longer, or more initial conditions"
    )


def _span(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.3g}, {interval[1]:.3g}]" if np.isfinite(interval).all() else "unknown"
