"""How the training time scales with the hyper-parameters where training is stable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, SelectionError
from trajtools.results.sweep_grids import Scaling
from trajtools.sweeps.onset import SENSITIVE, median, quantiles
from trajtools.sweeps.sweep import Sweep, SweepPoint, select_threshold
from trajtools.types import Floats

N_RESAMPLES = 499
COMPLEMENT = "1-momentum"
BEND = 4.0  # standard errors of the curvature
STRAIGHTER = 0.9  # a parabola must leave less than this share of the scatter
EXACT = 1e-9  # a scatter below is rounding


def scaling(
    sweep: Sweep,
    names: tuple[str, ...] | str | None,
    threshold: float | None,
    *,
    runs: Callable[[SweepPoint], bool] | None,
    level: float,
    rng: Any,
) -> Scaling:
    """Fit ln(time) as a linear function of the logarithms of the factors; see `Sweep.scaling`."""
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    given = (names,) if isinstance(names, str) else tuple(names or ())
    wanted = given or tuple(name for name in (sweep.x_name, sweep.y_name) if name)
    row = select_threshold(sweep.points, sweep.thresholds, threshold)
    points = [p for p in sweep.points if not p.control]
    used, reasons = _stable(points, row, sweep.thresholds[row], runs)
    n_used = int(used.sum())
    factors = _factors(sweep, points, wanted, used)
    if n_used < len(wanted) + 2:
        raise DataError(
            f"{n_used} stable runs reach {sweep.thresholds[row]:g}; a law with {len(wanted)} powers needs "
            f"{len(wanted) + 2} at least" + ": " * bool(reasons) + "; ".join(reasons)
        )
    design = np.column_stack([np.ones(n_used), np.log(factors[used])])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise DataError(f"the factors {', '.join(wanted)} do not vary independently among the {n_used} stable runs")
    times = [points[k].times[row] for k in np.flatnonzero(used)]
    log_time = np.log([median(t) for t in times])
    found = np.linalg.lstsq(design, log_time, rcond=None)[0]
    draws = _draws(design, times, np.random.default_rng(rng))
    intervals = np.array([quantiles(draws[:, k], level) for k in range(1, draws.shape[1])])
    scatter = float(np.sqrt(np.mean((log_time - design @ found) ** 2)))
    return Scaling(
        names=wanted,
        powers=found[1:],
        intervals=intervals,
        constant=float(found[0]),
        scatter=scatter,
        n_used=n_used,
        n_total=len(points),
        factors=factors,
        times=np.array([median(p.times[row]) if p.times.shape[1] else np.nan for p in points]),
        used=used,
        threshold=sweep.thresholds[row],
        time_unit=sweep.time_unit,
        level=level,
        reasons=(*reasons, *_bend(log_time, design @ found, scatter, design.shape[1])),
    )


def _stable(
    points: list[SweepPoint], row: int, threshold: float, runs: Callable[[SweepPoint], bool] | None
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which runs are asked for, are shown to be stable, and arrive after the first step; each is counted once."""
    verdict = np.array(["none" if p.exponent is None else p.exponent.verdict for p in points], dtype=object)
    asked = np.array([runs is None or bool(runs(p)) for p in points], dtype=bool)
    sensitive = asked & np.isin(verdict, SENSITIVE)
    unsure = asked & ~sensitive & np.array([v not in ("regular", "none") for v in verdict], dtype=bool)
    rest = asked & ~sensitive & ~unsure
    blind = rest & np.array([not p.times.shape[1] for p in points], dtype=bool)
    used = rest & np.array([bool(p.times.shape[1]) and 0 < median(p.times[row]) < np.inf for p in points], dtype=bool)
    counts = (
        (~asked, "were not asked for"),
        (sensitive, "with sensitive dependence were left out"),
        (unsure, "with an inconclusive exponent were left out (a sweep with exponent=None takes every run as stable)"),
        (blind, "have no recorded accuracy"),
        (rest & ~blind & ~used, f"do not reach {threshold:g} or begin there"),
        (used & (verdict == "none"), "have no exponent and count as stable"),
    )
    return used, [f"{int(which.sum())} of {len(points)} runs {words}" for which, words in counts if which.any()]


def _factors(sweep: Sweep, points: list[SweepPoint], names: tuple[str, ...], used: NDArray[np.bool_]) -> Floats:
    """Factors of all runs, (n, k); NaN where a run that does not enter has none."""
    factors = np.full((len(points), len(names)), np.nan)
    for k, point in enumerate(points):
        try:
            factors[k] = [_factor(point, name, sweep) for name in names]
        except SelectionError:
            if used[k]:
                raise
    return factors


def _bend(log_time: Floats, predicted: Floats, scatter: float, unknowns: int) -> list[str]:
    """Say so where a parabola describes the times far better than the law does."""
    free = len(log_time) - unknowns - 1
    if free < 1 or not np.ptp(predicted) > 0 or scatter < EXACT:
        return []
    z = predicted - predicted.mean()
    bent = np.column_stack([np.ones(len(z)), z, z**2])
    if np.linalg.matrix_rank(bent) < 3:
        return []
    found = np.linalg.lstsq(bent, log_time, rcond=None)[0]
    rest = float(np.sum((log_time - bent @ found) ** 2))
    error = np.sqrt(rest / free * np.linalg.inv(bent.T @ bent)[2, 2])
    left = float(np.sqrt(rest / len(z)))
    if not (abs(found[2]) > BEND * error and left < STRAIGHTER * scatter):
        return []
    slow, fast = (found[1] + 2 * found[2] * end for end in (z.max(), z.min()))
    return [
        f"no power law: the times change {slow:.2g} times as steeply as the fit at its slow end and {fast:.2g} times "
        f"at its fast end (a parabola leaves a scatter of {left:.2g}); ask for a part of the range with runs="
    ]


def _factor(point: SweepPoint, name: str, sweep: Sweep) -> float:
    key = "momentum" if name == COMPLEMENT else name
    value = point.x if name == sweep.x_name else point.y if name == sweep.y_name else point.hparams.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise SelectionError(f"run {point.run!r} has no number {key!r}; it has {', '.join(point.hparams) or 'none'}")
    factor = 1.0 - float(value) if name == COMPLEMENT else float(value)
    if not factor > 0:
        raise SelectionError(f"run {point.run!r}: {name}={factor:g}; a power law needs positive factors")
    return factor


def _draws(design: Floats, times: list[Floats], rng: np.random.Generator) -> Floats:
    """Coefficients with the runs and, within them, the initial conditions resampled."""
    n, unknowns = design.shape
    count = np.array([len(t) for t in times])
    padded = np.full((n, count.max()), np.nan)
    for k, t in enumerate(times):
        padded[k, : len(t)] = t
    beyond = np.arange(padded.shape[1]) >= count[:, None]
    draws = np.full((N_RESAMPLES, unknowns), np.nan)
    for at in range(N_RESAMPLES):
        rows = np.atleast_1d(rng.integers(0, n, size=n))
        drawn = padded[rows[:, None], (rng.random(padded.shape) * count[rows, None]).astype(np.int64)]
        middle = _medians(np.where(beyond[rows], np.nan, drawn), count[rows])
        fine = np.isfinite(middle) & (middle > 0)
        if np.linalg.matrix_rank(design[rows][fine]) == unknowns:
            draws[at] = np.linalg.lstsq(design[rows][fine], np.log(middle[fine]), rcond=None)[0]
    return draws


def _medians(values: Floats, count: NDArray[np.int64]) -> Floats:
    """`median` of the first `count` values of each row; NaN behind them."""
    ordered, row = np.sort(values, axis=1), np.arange(len(values))
    low, high = ordered[row, (count - 1) // 2], ordered[row, count // 2]
    return np.asarray(np.where(np.isinf(high), low, (low + np.where(np.isinf(high), low, high)) / 2))
