"""Divergences with a known course, for tests of what is drawn and printed."""

import numpy as np

from trajtools.exponents.divergence import Divergence
from trajtools.exponents.exponent import Exponent
from trajtools.reasons import Reason
from trajtools.report.collect import Analysis
from trajtools.statistics import average_curves, mean_curve


def divergence(*, slope=0.3, inits=6, copies=3, steps=80, level=1.0, average="mean-log"):
    """Exponential growth from 1e-8 with `slope` per step, up to `level`; copies differ by a constant factor."""
    time = np.arange(steps + 1.0)
    unit = np.arange(inits * copies)
    distances = np.minimum(1e-8 * (1 + unit[:, None] / 10) * np.exp(slope * time), level)
    group, start = unit // copies, np.zeros(inits * copies, dtype=np.int64)
    curves = average_curves(distances, group, start, average)
    return Divergence(
        "twins", "l1", average, time, "step", mean_curve(curves[0], curves[1]), distances, group, start,
        np.full(distances.shape, 1e-13), np.ones(len(unit)), inits,
    )  # fmt: skip


GROWS = (Reason("growth", "Because it grows."),)


def exponent(growth, value=0.3, *, verdict="transient", reasons=GROWS, warnings=(), **settings):
    fitted = np.isfinite(value)
    return Exponent(
        value=value, interval=(value - 0.02, value + 0.03), level=0.95, p_value=0.001, null="power-law",
        n_used=growth.n_references, n_total=growth.n_references, verdict=verdict, reasons=reasons,
        window=(10.0, 40.0) if fitted else (np.nan, np.nan), window_values=np.array([value]),
        values=np.full(growth.n_references, value), intercept=float(np.log(1e-8)), method="twins", unit="1/step",
        settings=settings, warnings=warnings, curve=growth, waiting=(5.0, 10.0, 20.0),
    )  # fmt: skip


def analysis(rate=1.0, value=0.3, *, run=None, **said):
    growth = divergence()
    ours = exponent(growth, value, **said)
    hparams = {"learning_rate": rate}
    return Analysis("made.h5", run or f"eta={rate:g}", growth, ours, exponent(growth, 0.33), {"states": 81}, hparams)
