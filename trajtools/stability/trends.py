"""How a distance changes in time, over all perturbed trajectories: its rate, its change, and the doubt of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trajtools.results.stability import Trend
from trajtools.significance import FEWEST_UNITS, power_evidence, resampled_ratio, sign_flip_p
from trajtools.types import Floats, Ints

FLOOR_FACTOR = 10.0  # distances below this many times the rounding floor are rounding
RESOLUTION_FACTOR = 3.0  # the same for the estimated error of the interpolated orbit
TIME_BLOCKS = (8, 4)  # as many as leave two states to each
SATURATES = 3.0  # e-folds: after such growth, a curve that is within one of its largest value has ended to grow
FEWEST_POINTS = 3
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class _Unit:
    """The numbers of one curve; `stop` is where its usable part ends."""

    stop: int
    floored: bool
    rate: float
    change: float
    late: float
    largest: float


def trend(
    quantity: str,
    time: Floats,
    distances: Floats,
    *,
    begun: Floats,
    floor: Floats,
    group: Ints,
    level: float,
    rng: np.random.Generator,
) -> Trend:
    """Measure how a distance changes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        curves = np.log(distances / begun[:, None])
        ground = np.log(floor / begun[:, None])
    units = [_unit(time, curve, low) for curve, low in zip(curves, ground, strict=True)]
    rates, changes, lates = (np.array([getattr(u, name) for u in units]) for name in ("rate", "change", "late"))
    groups = len(np.unique(group[np.isfinite(changes)]))
    if groups > 1:
        over = "initial conditions"
        rate, rate_interval = _over_units(rates, group, level, rng)
        change, change_interval = _over_units(changes, group, level, rng)
    else:
        rate, change = _mean(rates), _mean(changes)
        used = [k for k, unit in enumerate(units) if np.isfinite(unit.change)]
        stop = min((units[k].stop for k in used), default=0)
        rate_interval, change_interval = _over_blocks(time, curves[used, :stop], (rate, change), level)
        over = "blocks of time" if np.isfinite(rate_interval[0]) else "nothing"
    exponential, p = _growth(time, curves, units, group, rng)
    return Trend(
        quantity=quantity,
        rate=rate,
        rate_interval=rate_interval,
        change=change,
        change_interval=change_interval,
        late_change=_mean(lates),
        largest=float(np.max([u.largest for u in units], initial=-np.inf)) if units else NAN,
        n_floor=sum(u.floored for u in units),
        n_units=len(units),
        over=over,
        exponential=exponential,
        p_exponential=p,
    )


def _unit(time: Floats, curve: Floats, ground: Floats) -> _Unit:
    """Measure the part of a curve that is above the floor, and for its rate the part before it saturates."""
    known = np.flatnonzero(~np.isnan(curve))
    if not len(known):
        return _Unit(0, False, NAN, NAN, NAN, NAN)
    low = ~(curve[known] > ground[known])
    # At the floor for good: here, and in most of what follows.
    share = np.cumsum(low[::-1])[::-1] / np.arange(len(low), 0, -1)
    reached = np.flatnonzero(low & (share > 0.5))
    used = known[: reached[0]] if len(reached) else known
    used, largest = used[np.isfinite(curve[used])], float(curve[known].max())
    if not len(used):
        return _Unit(0, bool(len(reached)), NAN, NAN, NAN, largest)
    first = float(curve[used[0]])
    if len(reached):
        # Where the floor is unknown it is exact zero, and below it there is no distance that could be told.
        bottom = float(ground[known[reached[0]]])
        fall = (bottom if np.isfinite(bottom) else float(curve[used].min())) - first
        return _Unit(int(known[reached[0]]), True, _slope(time, curve, used), fall, fall / 2, largest)
    tail, half, width = used[-max(1, len(used) // 10) :], len(used) // 2, max(1, len(used) // 20)
    end, middle = float(curve[tail].mean()), float(curve[used[max(0, half - width) : half + width]].mean())
    stop = len(curve)
    if float(curve[used].max()) - first > SATURATES:
        stop = int(used[np.argmax(curve[used] >= curve[used].max() - 1)]) + 1
    return _Unit(stop, False, _slope(time, curve, used[used < stop]), end - first, end - middle, largest)


def _slope(time: Floats, curve: Floats, used: Ints) -> float:
    if len(used) < FEWEST_POINTS:
        return NAN
    x = time[used] - time[used].mean()
    return float(x @ curve[used] / (x @ x))


def _mean(values: Floats) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if len(good) else NAN


def _over_units(
    values: Floats, group: Ints, level: float, rng: np.random.Generator
) -> tuple[float, tuple[float, float]]:
    good = np.isfinite(values)
    if not good.any():
        return NAN, (NAN, NAN)
    ratio = resampled_ratio(values[good], np.ones(int(good.sum())), group[good], group[good], level=level, rng=rng)
    return ratio.value, ratio.interval


def _over_blocks(
    time: Floats, curves: Floats, values: tuple[float, float], level: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Student's intervals from the increments of the mean curve over blocks of time."""
    from scipy.special import stdtrit

    used = np.flatnonzero(np.isfinite(curves).all(axis=0)) if len(curves) else np.empty(0, np.int64)
    blocks = next((n for n in TIME_BLOCKS if len(used) > 2 * n), 0)
    if not blocks:
        return (NAN, NAN), (NAN, NAN)
    mean, edges = curves[:, used].mean(axis=0), np.linspace(0, len(used) - 1, blocks + 1).astype(np.int64)
    gain, took = np.diff(mean[edges]), np.diff(time[used][edges])
    error = float(np.std(gain / took, ddof=1) / np.sqrt(blocks))
    half = float(stdtrit(blocks - 1, 0.5 + level / 2)) * error
    width = half * float(time[used[-1]] - time[used[0]])
    rate, change = values
    return (rate - half, rate + half), (change - width, change + width)


def _growth(
    time: Floats, curves: Floats, units: list[_Unit], group: Ints, rng: np.random.Generator
) -> tuple[float, float]:
    """Whether growth is exponential, judged until one e-fold below its largest value."""
    grows = [u for u, unit in enumerate(units) if unit.largest > 1]
    if not grows:
        return NAN, NAN
    filled = np.array([_carried(curves[u]) for u in grows])
    stop = np.array([int(np.argmax(curve >= curve.max() - 1)) for curve in filled], dtype=np.int64)
    evidence = power_evidence(time, filled, np.zeros(len(grows), dtype=np.int64), stop)[:, 0]
    known = np.isfinite(evidence)
    if not known.any():
        return NAN, NAN
    own = group[grows][known]
    each = np.array([evidence[known][own == g].mean() for g in np.unique(own)])
    p = sign_flip_p(each, rng=rng) if len(each) >= FEWEST_UNITS else NAN
    return float(each.mean()), p


def _carried(curve: Floats) -> Floats:
    """Fill what was excluded with the last value before it: a fit takes no gaps."""
    known = np.isfinite(curve)
    if known.all():
        return curve
    index = np.maximum.accumulate(np.where(known, np.arange(len(curve)), -1))
    first = int(np.argmax(known))
    return np.where(index >= 0, curve[np.maximum(index, 0)], curve[first])
