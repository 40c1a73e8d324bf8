"""What a sweep over one hyper-parameter says: where chaos begins, what is fastest, whether they coincide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.plain import Result
from trajtools.types import Floats


@dataclass(frozen=True, eq=False)
class Onset(Result):
    """Where sensitive dependence begins along a sweep; see `Sweep.onset`.

    Attributes
    ----------
    value : float
        The hyper-parameter at which the exponent passes `above`, on a logarithmic scale of x; NaN where there is none.
    interval : (float, float)
        From the resampled exponents.
    bracket : (float, float)
        The largest x below which nothing is sensitive by its verdict, and the smallest that is; inconclusive points
        between widen it. NaN at an end that the sweep does not reach.
    above : float
        The exponent that counts as sensitive.
    found : bool
        Whether the sweep holds an onset: points on both sides.
    reasons : tuple of str
        Why, in sentences.
    draws : ndarray of float64, shape (B,)
        The onset in each resampling; NaN where there was none.
    level : float
        Confidence level.
    settings : dict
        What was chosen.
    """

    value: float
    interval: tuple[float, float]
    bracket: tuple[float, float]
    above: float
    found: bool
    reasons: tuple[str, ...]
    draws: Floats
    level: float = 0.95
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
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
    reasons : tuple of str
        In sentences.
    draws : ndarray of float64, shape (B,)
        The minimum in each resampling.
    time_unit : str
        Unit of `time`.
    level : float
        Confidence level.
    """

    value: float
    interval: tuple[float, float]
    time: float
    within: tuple[float, float]
    threshold: float
    inside: bool
    reasons: tuple[str, ...]
    draws: Floats
    time_unit: str
    level: float = 0.95


@dataclass(frozen=True, eq=False)
class Coincidence(Result):
    """Whether training is fastest at the onset of chaos; see `Sweep.coincidence`.

    Attributes
    ----------
    ratio : float
        The fastest x over the onset.
    interval : (float, float)
        From the resamplings of both, no narrower than one step of the sweep.
    verdict : str
        ``"coincide"`` where the interval holds 1, ``"apart"``, or ``"inconclusive"``.
    reasons : tuple of str
        In sentences, with what the control says.
    onset : Onset
        One of the two.
    fastest : Fastest
        The other.
    """

    ratio: float
    interval: tuple[float, float]
    verdict: str
    reasons: tuple[str, ...]
    onset: Onset
    fastest: Fastest
