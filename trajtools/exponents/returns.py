"""Regular motion from returns: a lag after which every state comes back close, and keeps its distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trajtools.errors import DataError
from trajtools.reasons import Reason
from trajtools.statistics import DECISION
from trajtools.types import Bools, Floats
from trajtools.wording import one_unit

EARLIEST, LATEST = 1 / 6, 1 / 3  # of the record: lags that are searched
CLOSE = 1.0  # e-folds below the typical distance, at least, for a return
SMOOTH = float(np.log(0.7))  # log of second over first differences; sqrt(2) for diffusion, sqrt(3) for white noise
BLOCKS = 10
FEWEST_PAIRS = 30
MOST_STATES = 20_000  # in which a period is looked for; it is checked in all
MOST_CYCLES = 8  # multiples of a period that are checked for a closed orbit
CLOSED = 0.25  # of the typical distance, for states that are a period apart
ACROSS = 0.3  # of the displacement, across the motion, below which it is a shift along a closed orbit
STEP_SHARE = 0.75  # of the length of a step, for the same; sampling alone gives up to a half


@dataclass(frozen=True, eq=False)
class Returning:
    """How a trajectory returns after one lag, and after twice that lag.

    Attributes
    ----------
    lag : int
        Lag, in samples, at which the first half of the record returns most closely.
    closeness : float
        Mean natural logarithm of the distance of states `lag` apart over the typical distance of two states.
    smoothness : float
        Mean natural logarithm of the second over the first difference at `lag`: far below 0 where the displacement
        after two lags is twice that after one, as on a torus; 0.3 to 0.6 for stochastic displacements.
    rate : float
        Growth per sample of the distance of states `lag` apart over the next `lag` samples.
    interval : (float, float)
        Its confidence interval, from blocks of time.
    closeness_bound, smoothness_bound, rate_bound : float
        Upper limits of the three at the 1 % level.
    block_rates : ndarray of float64, shape (B,)
        `rate` of each block.
    """

    lag: int
    closeness: float
    smoothness: float
    rate: float
    interval: tuple[float, float]
    closeness_bound: float
    smoothness_bound: float
    rate_bound: float
    block_rates: Floats

    @property
    def margin(self) -> float:
        """Largest rate that counts as none: one e-fold in the time that pairs are followed."""
        return 1.0 / self.lag

    @property
    def close(self) -> bool:
        """Whether the states return, at the 1 % level."""
        return self.closeness_bound < -CLOSE

    @property
    def contracting(self) -> bool:
        """Whether the distance after one lag shrinks by at least an e-fold over the next, at the 1 % level."""
        return self.close and self.rate_bound < -self.margin

    @property
    def regular(self) -> bool:
        """Whether states return, smoothly, and stay as close, each at the 1 % level."""
        return self.close and self.smoothness_bound < SMOOTH and self.rate_bound < self.margin

    def to_settings(self) -> dict[str, Any]:
        """Entries for the settings of an exponent."""
        names = ("lag", "closeness", "closeness_bound", "smoothness", "smoothness_bound", "rate", "rate_bound")
        return {
            "returns": {
                **{name: getattr(self, name) for name in names},
                "largest_closeness": -CLOSE,
                "largest_smoothness": SMOOTH,
                "margin": self.margin,
            }
        }


def returning(states: Floats, *, level: float) -> Returning | None:
    r"""Test whether a trajectory returns as regular motion does; None if the record is too short or does not move.

    Notes
    -----
    Periodic and quasi-periodic motion is almost periodic: there are lags :math:`\tau` after which every state comes
    back closely, and the displacement :math:`\Delta(t) = x(t + \tau) - x(t)` is nearly the same one lag later. After
    a long lag a stochastic process is as far away as any other state; if it is not, as a noisy cycle, its displacement
    is random: :math:`|\Delta(t + \tau) - \Delta(t)| / |\Delta(t)|` is at least :math:`\sqrt 2`. The lag is
    chosen in the first part of the record and tested in the rest.
    """
    fine = np.asarray(np.isfinite(states).all(axis=1))
    length = len(states)
    first, last = int(length * EARLIEST), int(length * LATEST)
    if last - first < 4:
        return None
    typical = float(np.sqrt(2 * states[fine].var(axis=0).sum()))
    lag = _closest_lag(states[: length // 2], fine[: length // 2], first, last)
    if lag is None or not typical > 0:
        return None
    one = states[lag:-lag] - states[: -2 * lag]
    two = states[2 * lag :] - states[lag:-lag]
    one, two = one[first:], two[first:]
    sizes = np.sqrt(np.stack([np.sum(one**2, axis=1), np.sum((two - one) ** 2, axis=1), np.sum(two**2, axis=1)]))
    sizes = sizes[:, np.isfinite(sizes).all(axis=0) & (sizes > 0).all(axis=0)]
    if sizes.shape[1] < FEWEST_PAIRS:
        return None
    logs = np.log(sizes)
    measures = np.stack([logs[0] - np.log(typical), logs[1] - logs[0], (logs[2] - logs[0]) / lag])
    blocks = np.stack([part.mean(axis=1) for part in np.array_split(measures, BLOCKS, axis=1)])
    mean, error = blocks.mean(axis=0), blocks.std(axis=0, ddof=1) / np.sqrt(BLOCKS)
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    # The displacement changes by this much over one lag, so its growth is not known better.
    least = float(np.exp(mean[1])) / lag
    bound = mean + float(stdtrit(BLOCKS - 1, 1 - DECISION)) * error
    half = max(float(stdtrit(BLOCKS - 1, 0.5 + level / 2)) * float(error[2]), least)
    return Returning(
        lag=lag,
        closeness=float(mean[0]),
        smoothness=float(mean[1]),
        rate=float(mean[2]),
        interval=(float(mean[2]) - half, float(mean[2]) + half),
        closeness_bound=float(bound[0]),
        smoothness_bound=float(bound[1]),
        rate_bound=max(float(bound[2]), float(mean[2]) + least),
        block_rates=blocks[:, 2],
    )


def _closest_lag(states: Floats, fine: Bools, first: int, last: int) -> int | None:
    """Lag with the smallest mean squared displacement."""
    length = len(states)
    size = 1 << (2 * length - 1).bit_length()
    known = np.where(fine[:, None], states - states[fine].mean(axis=0) if fine.any() else states, 0.0)

    def correlate(a: Floats, b: Floats) -> Floats:
        return np.fft.irfft(np.conj(np.fft.rfft(a, size)) * np.fft.rfft(b, size), size)[: last + 1]

    weight = fine.astype(np.float64)
    square = np.sum(known**2, axis=1)
    total = correlate(square, weight) + correlate(weight, square)
    for column in known.T:
        total -= 2 * correlate(column, column)
    count = np.round(correlate(weight, weight))
    with np.errstate(divide="ignore", invalid="ignore"):
        displacement = np.where(count >= FEWEST_PAIRS, total / count, np.inf)
    displacement[:first] = np.inf
    best = int(np.argmin(displacement))
    return best if np.isfinite(displacement[best]) else None


def exact_period(states: Floats, rng: np.random.Generator) -> tuple[int, float] | None:
    """Period after which every state repeats up to rounding, and the largest difference; None if there is none."""
    from trajtools.structure.cycles import EXACT, find_cycles  # loads the distances of networks

    try:
        cycles = find_cycles(states[:MOST_STATES], metric="l2", rng=rng)
    except DataError:
        return None
    if cycles.kind != "exact":
        return None
    period, largest = round(cycles.period), float(cycles.reasons[0].numbers["largest"])
    if len(states) > MOST_STATES:
        fine = states[np.isfinite(states).all(axis=1)].astype(np.float64)
        typical = float(np.sqrt(2 * fine.var(axis=0).sum()))
        later = float(np.nanmax(np.linalg.norm(states[period:] - states[:-period], axis=1)))
        if later > max(EXACT * typical, 10 * largest):
            return None
        largest = max(largest, later)
    return period, largest


def orbit_period(states: Floats, lag: int, rng: np.random.Generator) -> float | None:
    """Period, in samples, of a closed orbit that returns between samples after `lag`; None if it is not closed.

    The closest return is a multiple of the period but for a fraction of a sample, which the displacement along the
    motion gives.
    """
    from trajtools.structure.cycles import find_cycles

    motion = (states[2:] - states[:-2])[: len(states) - lag - 2] / 2
    ahead = (states[lag:] - states[:-lag])[1 : len(motion) + 1]
    both = np.isfinite(motion).all(axis=1) & np.isfinite(ahead).all(axis=1)
    motion, ahead = motion[both], ahead[both]
    offset = float(np.sum(motion * ahead) / max(float(np.sum(motion**2)), 1e-300))
    across = float(np.sum((ahead - offset * motion) ** 2) / max(float(np.sum(ahead**2)), 1e-300))
    multiples: tuple[int, ...] = ()
    try:
        cycles = find_cycles(states[:MOST_STATES], metric="l2", rng=rng)
    except DataError:
        return None
    if cycles.kind != "none":
        multiples = (round(lag / cycles.period),)
    elif across < ACROSS**2:  # a slow cycle, of which too few turns were recorded for its autocorrelation
        multiples = tuple(range(MOST_CYCLES, 0, -1))
    periods = [(lag - float(np.clip(offset, -1, 1))) / multiple for multiple in multiples]
    return next((period for period in periods if _is_closed(states, period)), None)


def _is_closed(states: Floats, period: float) -> bool:
    """Whether the states return after every multiple of a period, but for sampling."""
    fine = states[np.isfinite(states).all(axis=1)]
    typical = float(np.sqrt(2 * fine.var(axis=0).sum()))
    step = float(np.nanmedian(np.linalg.norm(np.diff(states, axis=0), axis=1)))
    for multiple in range(1, MOST_CYCLES + 1):
        after = round(multiple * period)
        if after > len(states) // 2:
            break
        back = float(np.nanmedian(np.linalg.norm(states[after:] - states[:-after], axis=1)))
        if back > min(CLOSED * typical, STEP_SHARE * step):
            return False
    return period >= 2


def periodic_reason(period: int, largest: float, bound: float, unit: str) -> Reason:
    """Reason of the verdict on a trajectory that repeats exactly."""
    text = (
        "every state equals the one {period} samples earlier to within {largest:.2g}: the orbit is periodic. The "
        "exponent is below {bound:.2g} per {unit}: at a larger one, rounding errors would have ended the cycle by now"
    )
    return Reason.of("periodic", text, period=period, largest=largest, bound=bound, unit=one_unit(unit))


def return_reason(found: Returning, period: float | None, unit: str, dt: float) -> Reason:
    """Reason of the verdict on a trajectory that returns between samples."""
    numbers = {
        "lag": found.lag,
        "share": float(np.exp(found.closeness)),
        "ratio": float(np.exp(found.smoothness)),
        "bound": found.rate_bound / dt,
        "margin": found.margin / dt,
    }
    text = (
        "states {lag} samples apart are {share:.2g} of the typical distance apart, the displacement of the next {lag} "
        "samples is the same up to {ratio:.2g} of it, and the distance grows by at most {bound:.2g} per {unit} (1 % "
        "level; less than {margin:.2g} counts as none)"
    )
    if period is None:
        return Reason.of("quasi-periodic", "the motion is quasi-periodic: " + text, **numbers, unit=one_unit(unit))
    return Reason.of(
        "periodic",
        "the motion is periodic, period {period:.6g} samples: " + text,
        **numbers,
        period=period,
        unit=one_unit(unit),
    )
