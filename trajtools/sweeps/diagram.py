"""Two hyper-parameters: order and chaos on a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trajtools.errors import DataError, SelectionError
from trajtools.results.sweep_grids import BoundaryLaw, PhaseDiagram
from trajtools.sweeps.onset import N_RESAMPLES, curve_of, median, onset_of, quantiles
from trajtools.sweeps.sweep import Sweep, SweepPoint
from trajtools.types import Floats


def phase_diagram(sweep: Sweep, *, level: float, rng: Any) -> PhaseDiagram:
    """Arrange a sweep over two hyper-parameters as a grid; see `Sweep.phase_diagram`."""
    if not sweep.y_name:
        raise SelectionError("a phase diagram needs two hyper-parameters: sweep(files, x=..., y=...)")
    points = [p for p in sweep.points if not p.control]
    if not points:
        raise SelectionError(f"a phase diagram needs runs that are no controls; all {len(sweep.points)} of them are")
    xs, ys = sorted({p.x for p in points}), sorted({p.y for p in points})
    shape = (len(ys), len(xs))
    exponent, count = np.full(shape, np.nan), np.zeros(shape, dtype=np.int64)
    time = np.full((len(sweep.thresholds), *shape), np.nan)
    verdict = [["" for _ in xs] for _ in ys]
    for row, y in enumerate(ys):
        for column, x in enumerate(xs):
            here = [p for p in points if p.x == x and p.y == y]
            count[row, column] = len(here)
            exponent[row, column], verdict[row][column] = _cell(here)
            for k in range(len(sweep.thresholds)):
                times = np.concatenate([p.times[k] for p in here]) if here else np.empty(0)
                time[k, row, column] = median(times) if len(times) else np.nan
    random = np.random.default_rng(rng)
    begins = [onset_of(curve_of([p for p in points if p.y == y]), level=level, rng=random) for y in ys]
    reasons = [f"{sweep.y_name}={y:g}: {words}" for y, o in zip(ys, begins, strict=True) for words in o.reasons]
    return PhaseDiagram(
        x_name=sweep.x_name,
        y_name=sweep.y_name,
        x=np.array(xs),
        y=np.array(ys),
        exponent=exponent,
        verdict=verdict,
        time=time,
        count=count,
        boundary=np.array([o.value if o.found else np.nan for o in begins]),
        intervals=np.array([o.interval if o.found else (np.nan, np.nan) for o in begins]).reshape(-1, 2),
        reasons=(*reasons, *_not_shared(points)),
        level=level,
    )


def _not_shared(points: list[SweepPoint]) -> tuple[str, ...]:
    """Hyper-parameters in which runs of one cell differ: the cell is a mean over them."""
    seen: dict[tuple[float, float], dict[str, Any]] = {}
    names: dict[str, None] = {}
    for point in points:
        first = seen.setdefault((point.x, point.y), point.hparams)
        names |= dict.fromkeys(k for k in {**first, **point.hparams} if first.get(k) != point.hparams.get(k))
    if not names:
        return ()
    return (f"runs of one cell differ in {', '.join(names)}; the cell is their mean (choose with .where(runs=...))",)


def boundary_law(diagram: PhaseDiagram, factor: Callable[[Floats], Floats], name: str, *, rng: Any) -> BoundaryLaw:
    """Set the onsets against a function of y; see `PhaseDiagram.boundary_law`."""
    known = np.isfinite(diagram.boundary) & (diagram.intervals > 0).all(axis=1)
    n, nothing = int(known.sum()), (float("nan"), float("nan"))
    lost = f"{len(known) - n} of {len(known)} values of {diagram.y_name} have no onset"
    reasons = (lost,) if n < len(known) else ()
    if n < 2:
        words = f"a law needs two onsets, not {n}"
        return BoundaryLaw(name, float("nan"), nothing, False, nothing, n, (*reasons, words))
    values = np.broadcast_to(np.asarray(factor(diagram.y[known]), dtype=np.float64), (n,))
    if not (np.isfinite(values) & (values > 0)).all():
        raise DataError(f"the factor must be positive at each {diagram.y_name}; it is {values.tolist()}")
    scale, (low, high) = np.log(values), np.log(diagram.intervals[known]).T
    power, interval = float("nan"), nothing
    if np.ptp(scale) > 0:
        drawn = np.random.default_rng(rng).uniform(low, high, (N_RESAMPLES, n))
        slopes = (drawn - drawn.mean(axis=1, keepdims=True)) @ (scale - scale.mean()) / (n * scale.var())
        power, interval = float(np.median(slopes)), quantiles(slopes, diagram.level)
    least, most = float(np.exp((low - scale).max())), float(np.exp((high - scale).min()))
    constant = (least, most) if least <= most else nothing
    return BoundaryLaw(name, power, interval, least <= most, constant, n, reasons)


def _cell(points: list[SweepPoint]) -> tuple[float, str]:
    found = [p.exponent for p in points if p.exponent is not None]
    values = [e.value for e in found if np.isfinite(e.value)]
    verdicts = {e.verdict for e in found}
    word = "" if not verdicts else verdicts.pop() if len(verdicts) == 1 else "mixed"
    return (float(np.mean(values)) if values else float("nan")), word
