"""Edge of chaos of a training run and a recommended learning rate: common part of `find_edge` of torch and JAX.

Both train copies of the network for a few steps over a range of learning rates, on the same batches. Each copy has
shadows at a small distance, trained by the same optimiser and rescaled after every step; the mean growth of their
distance is the exponent of the training at that rate. This module converts growth and losses to an `Edge`;
`trajtools.sweeps` estimates the onset and is imported only then.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recorders.shadows import ROUNDOFF
from trajtools.errors import DataError
from trajtools.reasons import Reason
from trajtools.types import Floats, RealArrayLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trajtools.sweeps.onset import Onset

BURN = 0.2  # fraction of the steps for the alignment of shadows
LATE = 0.25  # fraction of the steps, at the end, for late losses
SAME = 1.1  # losses within this factor of the smallest are equally good
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Edge:
    """Result of `find_edge`.

    Attributes
    ----------
    rates : ndarray of float64, shape (R,)
        Learning rates, in order.
    exponents : ndarray of float64, shape (R,)
        Mean growth of the shadows in nats per step, after the first fifth; NaN if the training diverged before.
    intervals : ndarray of float64, shape (R, 2)
        95 % confidence intervals, from blocks of time; NaN where unknown.
    losses : ndarray of float64, shape (R,)
        Median training loss over the last quarter of the steps; inf where it diverged.
    onset : float
        Rate at which the exponent rises above those of the stable rates; NaN without an onset.
    onset_interval : (float, float)
        Its interval, in cells of the grid of rates.
    found : bool
        Whether there is a significant onset in the range.
    recommended : float
        Recommended rate; NaN if training diverged at every rate.
    reasons : tuple of Reason
        Reasons for the onset and the recommendation.
    gradients : int
        Number of gradient evaluations (one batch each).
    growth : ndarray of float64, shape (T, R)
        Growth per step, mean over the shadows.
    curves : ndarray of float64, shape (T, R)
        Training loss per step.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.
    """

    rates: Floats
    exponents: Floats
    intervals: Floats
    losses: Floats
    onset: float
    onset_interval: tuple[float, float]
    found: bool
    recommended: float
    reasons: tuple[Reason, ...]
    gradients: int
    growth: Floats
    curves: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()

    def __str__(self) -> str:
        """Recommendation, reasons and table."""
        lines = [f"recommended rate {self.recommended:.4g}"]
        lines += [f"- {reason}" for reason in (*self.reasons, *self.warnings)]
        lines.append(f"{'rate':>10}  {'exponent':>10}  {'95 % interval':>22}  {'late loss':>10}")
        for rate, value, (low, high), loss in zip(self.rates, self.exponents, self.intervals, self.losses, strict=True):
            lines.append(f"{rate:10.4g}  {value:10.4g}  {f'[{low:.3g}, {high:.3g}]':>22}  {loss:10.4g}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data.

        Returns
        -------
        dict
            Lists for arrays; NaN and the infinities are None.
        """
        from trajtools.results import to_plain

        return {name: to_plain(getattr(self, name)) for name in self.__dataclass_fields__}

    def to_json(self, indent: int | None = None) -> str:
        """Return the result as a JSON document.

        Parameters
        ----------
        indent : int or None
            Spaces per level.

        Returns
        -------
        str
            The document.
        """
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def plot(self, figure: Figure | None = None) -> Figure:
        """Plot exponents and losses against the rate, with the onset and the recommendation.

        Parameters
        ----------
        figure : matplotlib.figure.Figure or None
            Figure to draw in; None: a new figure.

        Returns
        -------
        matplotlib.figure.Figure
            The figure.
        """
        from trajtools import plots

        return plots.edge(self, figure=figure)


def check_rates(rates: RealArrayLike, points: int) -> Floats:
    """Return the learning rates of a range or sequence."""
    values = np.asarray(rates, dtype=np.float64).ravel()
    if not len(values) or not np.isfinite(values).all() or (values <= 0).any():
        raise DataError(f"rates={rates!r}: learning rates must be positive: pass (lowest, highest), or all of them")
    if len(values) == 2:
        if points < 3 or values[0] >= values[1]:
            raise DataError(
                f"rates={rates!r}, points={points}: a range needs its lower end first and at least 3 points"
            )
        return np.geomspace(values[0], values[1], points)
    if len(values) < 3:
        raise DataError(f"rates={rates!r}: an onset needs at least three rates")
    return np.unique(values)


def check_counts(**counts: int) -> None:
    """Raise for counts below their minimum."""
    for name, value in counts.items():
        least = 10 if name == "steps" else 1
        if isinstance(value, bool) or int(value) != value or value < least:
            raise DataError(f"{name}={value!r}: it must be an integer of at least {least}")


def first_batches(data: Iterable[Any], steps: int) -> list[tuple[Any, ...]]:
    """Return the first batches, at most one per step, so that every rate uses the same."""
    batches = [tuple(b) if isinstance(b, list | tuple) else (b,) for b in itertools.islice(iter(data), steps)]
    if not batches:
        raise DataError("the data have no batch: pass a loader or a list of tuples, the arguments of one step each")
    return batches


def shadow_distance(epsilon: float | None, norm: float, bytes_per_weight: Iterable[int]) -> float:
    """Distance of the shadows: epsilon, or sqrt(coarsest roundoff) times the norm of the weights."""
    coarse = max(ROUNDOFF[size] for size in bytes_per_weight)
    distance = epsilon if epsilon is not None else float(np.sqrt(coarse)) * norm
    if not distance > 0:
        raise DataError(f"epsilon={epsilon}, |weights|={norm:g}: the shadows need a positive distance")
    return distance


def train(
    step: Callable[[tuple[Any, ...]], tuple[Any, Any]],
    batches: Sequence[tuple[Any, ...]],
    *,
    steps: int,
    n_rates: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[Floats, Floats]:
    """Train the copies; ``step(batch)`` -> losses and growth at every rate. Returns growth and losses, (T, R) each."""
    growth, losses = np.full((steps, n_rates), np.nan), np.full((steps, n_rates), np.nan)
    for t, batch in enumerate(itertools.islice(itertools.cycle(batches), steps)):
        losses[t], growth[t] = step(batch)
        if progress is not None:
            progress(t + 1, steps)
    return growth, losses


def judge(rates: Floats, growth: Floats, losses: Floats, *, gradients: int, settings: dict[str, Any]) -> Edge:
    """Estimate the onset and recommend a rate."""
    from trajtools.sweeps.onset import Curve, onset_of
    from trajtools.sweeps.sweep import mean_growth

    steps = len(growth)
    burn = math.ceil(BURN * steps)
    rng = np.random.default_rng(settings.get("seed", 0))
    fits = [mean_growth(column[burn:, None], rng, LEVEL) for column in _until_diverged(growth).T]
    values = np.array([value for value, _ in fits])
    intervals = np.array([interval for _, interval in fits], dtype=np.float64).reshape(-1, 2)
    late = late_losses(losses)
    finite = np.isfinite(values)
    errors = (intervals[:, 1] - intervals[:, 0]) / 2 / 1.96
    lowest = np.where(np.isfinite(intervals[:, 0]), intervals[:, 0], values)
    sensitive = finite & (lowest > 1.0 / max(1, steps - burn))
    verdicts = tuple("transient" if s else "regular" for s in sensitive[finite])
    spans = np.full(int(finite.sum()), float(steps - burn))
    begins = onset_of(Curve(rates[finite], values[finite], errors[finite], spans, verdicts), level=LEVEL, rng=rng)
    limit = begins.interval[1] if begins.found else math.inf
    recommended, reasons = recommend(rates, late, limit)
    n_diverged = int(np.sum(~np.isfinite(late)))
    diverged = Reason.of("diverged", "training diverged at {lost} of {rates} rates", lost=n_diverged, rates=len(rates))
    return Edge(
        rates=rates,
        exponents=values,
        intervals=intervals,
        losses=late,
        onset=begins.value,
        onset_interval=begins.interval,
        found=begins.found,
        recommended=recommended,
        reasons=(_onset_reason(begins), *reasons, *_relation(recommended, begins)),
        gradients=gradients,
        growth=growth,
        curves=losses,
        settings=settings | {"burn": burn, "late": LATE, "onset": begins.settings, "above": begins.above},
        warnings=(diverged,) if n_diverged else (),
    )


def late_losses(losses: Floats) -> Floats:
    """Median loss of the last steps."""
    late = losses[-max(1, round(LATE * len(losses))) :]
    fine = np.isfinite(late).all(axis=0)
    return np.where(fine, np.median(np.where(fine, late, 0.0), axis=0), np.inf)


def recommend(rates: Floats, late: Floats, limit: float) -> tuple[float, tuple[Reason, ...]]:
    """Choose the rate with the smallest late loss; one beyond the onset only if it is clearly better."""
    fine = np.isfinite(late)
    if not fine.any():
        return math.nan, (Reason("diverged", "training diverged at every rate: use lower rates"),)
    below = fine & (rates <= limit * (1 + 1e-12))
    best = int(np.argmin(np.where(fine, late, np.inf)))
    inside = int(np.argmin(np.where(below, late, np.inf))) if below.any() else best
    if late[inside] <= SAME * late[best]:
        best = inside
    text = "after the same number of steps the loss is smallest at {rate:.4g} ({loss:.4g})"
    reasons = [Reason.of("smallest-loss", text, rate=rates[best], loss=late[best])]
    if best != inside:
        text = "up to the onset the smallest loss is {loss:.4g}, at {rate:.4g}"
        reasons.append(Reason.of("worse-below-onset", text, loss=late[inside], rate=rates[inside]))
    as_good = np.flatnonzero(fine & (late <= SAME * late[best])) if late[best] > 0 else np.array([best])
    if len(as_good) > 1:
        text = "from {low:.4g} to {high:.4g} the loss is within {share:.0%} of that"
        low, high = rates[as_good[0]], rates[as_good[-1]]
        reasons.append(Reason.of("equally-good", text, low=low, high=high, share=SAME - 1))
    if best == len(rates) - 1:
        reasons.append(Reason("end-of-range", "that is the largest rate of the range: try larger ones"))
    elif best == 0:
        reasons.append(Reason("end-of-range", "that is the smallest rate of the range: try smaller ones"))
    return float(rates[best]), tuple(reasons)


def _until_diverged(growth: Floats) -> Floats:
    """Growth up to divergence; later values are overflow, not chaos."""
    diverged = np.cumsum(~np.isfinite(growth), axis=0) > 0
    return np.where(diverged, np.nan, growth)


def _onset_reason(begins: Onset) -> Reason:
    if not begins.found:
        return Reason("no-onset", f"no onset of chaos: {begins.reasons[-1]}", begins.reasons[-1].numbers)
    low, high = begins.interval
    return Reason.of(
        "onset",
        "the onset of chaos is at {onset:.4g} [{low:.4g}, {high:.4g}]: {why}",
        onset=begins.value,
        low=low,
        high=high,
        why=begins.reasons[0],
    )


def _relation(recommended: float, begins: Onset) -> tuple[Reason, ...]:
    if not begins.found or not math.isfinite(recommended):
        return ()
    low, high = begins.interval
    ratio = recommended / begins.value
    if recommended < low:
        text = "training is fastest below the onset, at {ratio:.2g} times it: chaos is not the cause of the speed"
        return (Reason.of("fastest-below-onset", text, ratio=ratio),)
    if recommended > high * (1 + 1e-12):
        text = "training is fastest beyond the onset, at {ratio:.2g} times it: sensitive dependence does not hinder it"
        return (Reason.of("fastest-beyond-onset", text, ratio=ratio),)
    text = "training is fastest at the onset ({ratio:.2g} times it, between {low:.4g} and {high:.4g})"
    return (Reason.of("fastest-at-onset", text, ratio=ratio, low=low, high=high),)
