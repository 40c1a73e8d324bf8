"""How the training time scales with the hyper-parameters where training is stable."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.errors import DataError, SelectionError
from trajtools.results import Floats
from trajtools.results.sweep import Sweep, SweepPoint
from trajtools.results.sweep_answers import Scaling
from trajtools.sweeps.curve import SENSITIVE, quantiles
from trajtools.sweeps.fastest import median
from trajtools.sweeps.reading import select_threshold

N_RESAMPLES = 499
COMPLEMENT = "1-momentum"


def scaling(sweep: Sweep, names: tuple[str, ...] | None, threshold: float | None, *, level: float, rng: Any) -> Scaling:
    """Fit ln(time) as a linear function of the logarithms of the factors; see `Sweep.scaling`.

    Parameters
    ----------
    sweep : Sweep
        The runs.
    names : tuple of str or None
        The factors.
    threshold : float or None
        Which accuracy.
    level : float
        Confidence level.
    rng : int, numpy.random.Generator or None
        Source of the resampling.

    Returns
    -------
    Scaling
        By least squares over the runs, the intervals from resampled initial conditions and runs.

    Raises
    ------
    DataError
        If fewer stable runs than two more than the unknowns are left, or a factor does not vary among them.
    """
    wanted = names or tuple(name for name in (sweep.x_name, sweep.y_name) if name)
    row = select_threshold(sweep.points, sweep.thresholds, threshold)
    used, reasons = _stable(sweep, row)
    factors = np.array([[_factor(p, name, sweep) for name in wanted] for p in used]).reshape(len(used), len(wanted))
    if len(used) < len(wanted) + 2:
        raise DataError(
            f"{len(used)} stable runs reach {sweep.thresholds[row]:g}; a law with {len(wanted)} powers needs "
            f"{len(wanted) + 2} at least: " + "; ".join(reasons)
        )
    design = np.column_stack([np.ones(len(used)), np.log(factors)])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise DataError(f"the factors {', '.join(wanted)} do not vary independently among the {len(used)} stable runs")
    times = [p.times[row] for p in used]
    log_time = np.log([median(t) for t in times])
    found = np.linalg.lstsq(design, log_time, rcond=None)[0]
    draws = _draws(design, times, np.random.default_rng(rng))
    intervals = np.array([quantiles(draws[:, k], level) for k in range(1, draws.shape[1])])
    scatter = float(np.sqrt(np.mean((log_time - design @ found) ** 2)))
    total = sum(not p.control for p in sweep.points)
    return Scaling(wanted, found[1:], intervals, float(found[0]), scatter, len(used), total, level, tuple(reasons))


def _stable(sweep: Sweep, row: int) -> tuple[list[SweepPoint], list[str]]:
    """Runs without sensitive dependence whose median initial condition arrives, after the first step."""
    points = [p for p in sweep.points if not p.control]
    sensitive = [p for p in points if p.exponent is not None and p.exponent.verdict in SENSITIVE]
    rest = [p for p in points if p not in sensitive]
    used = [p for p in rest if p.times.shape[1] and 0 < median(p.times[row]) < np.inf]
    reasons = []
    if sensitive:
        reasons.append(f"{len(sensitive)} runs with sensitive dependence were left out")
    if len(used) < len(rest):
        reasons.append(f"{len(rest) - len(used)} runs do not reach {sweep.thresholds[row]:g} or begin there")
    unknown = sum(p.exponent is None for p in used)
    if unknown:
        reasons.append(f"{unknown} runs have no exponent and count as stable")
    return used, reasons


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
    draws = np.full((N_RESAMPLES, unknowns), np.nan)
    for at in range(N_RESAMPLES):
        rows = np.atleast_1d(rng.integers(0, n, size=n)).tolist()
        drawn = [rng.choice(times[k], len(times[k])) for k in rows]
        middle = np.array([median(chosen) for chosen in drawn])
        fine = np.isfinite(middle) & (middle > 0)
        if np.linalg.matrix_rank(design[rows][fine]) == unknowns:
            draws[at] = np.linalg.lstsq(design[rows][fine], np.log(middle[fine]), rcond=None)[0]
    return draws
