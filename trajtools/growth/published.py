"""Published procedures for an exponent from divergence curves, exactly, with what is known about their bias."""

from __future__ import annotations

import numpy as np

from trajtools.exponents.curves import average_curves
from trajtools.exponents.exponent import Exponent
from trajtools.reasons import Reason
from trajtools.results.divergence import Divergence
from trajtools.statistics import window_fits

STARTS = np.arange(0, 101, 5)
WIDTHS = np.arange(30, 101, 5)
LONGEST = 200
LOWEST_R2 = 0.9
LOWEST_SLOPE = 0.05


def danovski2024(growth: Divergence, *, level: float = 0.95) -> Exponent:
    r"""Best straight line per initial condition, kept if it is straight and steep (Danovski et al. 2024).

    Parameters
    ----------
    growth : Divergence
        Twins from step 0; the distances are averaged over the copies of each initial condition before the logarithm,
        whatever ``growth.average`` says.
    level : float
        Only kept in the result: the procedure has no interval.

    Returns
    -------
    Exponent
        Mean over the kept initial conditions; ``settings["sd"]`` is their standard deviation, which the paper draws as
        error bar, and ``n_used / n_total`` is the kept fraction. The verdict is always ``"inconclusive"``.

    Notes
    -----
    For each initial condition the straight line is fitted to :math:`\ln \langle d(t) \rangle` over the copies, on all
    windows that start at 0, 5, ..., 100 and hold 30, 35, ..., 100 samples with their end within the first 200; the one
    with the largest R2 counts. Initial conditions with R2 <= 0.9 or slope <= 0.05 are dropped. The grid is in samples,
    as published.

    References
    ----------
    .. [1] K. Danovski, M. C. Soriano, L. Lacasa, Front. Complex Syst. 2, 1367957 (2024), doi:10.3389/fcpxs.2024.1367957
    """
    curves, group, _ = average_curves(growth.distances, growth.group, growth.start, "log-mean")
    labels = np.unique(group)
    length = min(curves.shape[1], LONGEST)
    windows = [(int(s), int(s + w)) for s in STARTS for w in WIDTHS if s + w <= length]
    slope = r2 = intercept = np.full((len(curves), 1), np.nan)
    starts, stops = np.array(windows or [(0, 0)], dtype=np.int64).T
    if windows:
        slope, intercept, r2 = window_fits(growth.time, curves, starts, stops)
    best = np.argmax(np.where(np.isfinite(r2), r2, -np.inf), axis=1)
    rows = np.arange(len(curves))
    # The threshold of the slope is per step; a divergence in another unit of time is judged in samples.
    spacing = float(growth.time[1] - growth.time[0]) if len(growth.time) > 1 else 1.0
    slope, intercept, r2 = slope[rows, best], intercept[rows, best], r2[rows, best]
    kept = (r2 > LOWEST_R2) & (slope * spacing > LOWEST_SLOPE)
    values = np.where(kept, slope, np.nan)
    n = int(kept.sum())
    value = float(slope[kept].mean()) if n else float("nan")
    reasons = published_reasons(n, len(curves), "curves")
    if not windows:
        words = "{samples} samples are fewer than the shortest window of the procedure, {shortest}"
        reasons = (Reason.of("record-too-short", words, samples=length, shortest=WIDTHS[0]), *reasons)
    window = (float("nan"),) * 2
    if n:
        used = best[kept]
        window = (float(np.median(growth.time[starts[used]])), float(np.median(growth.time[stops[used] - 1])))
    return Exponent(
        value=value,
        interval=(float("nan"), float("nan")),
        level=level,
        p_value=float("nan"),
        null="",
        n_used=n,
        n_total=len(curves),
        verdict="inconclusive",
        reasons=reasons,
        window=(window[0], window[1]),
        window_values=slope,
        values=values,
        intercept=float(intercept[kept].mean()) if n else float("nan"),
        method=growth.method,
        unit=f"1/{growth.time_unit}",
        settings={
            **growth.settings,
            "procedure": "danovski2024",
            "average": "log-mean",
            "sd": float(slope[kept].std()) if n else float("nan"),
            "kept_fraction": n / max(len(curves), 1),
            "mean_of_all": float(np.nanmean(slope)) if np.isfinite(slope).any() else float("nan"),
            "counted": "initial conditions" if len(labels) == len(curves) else "initial conditions and starts",
            "r2_above": LOWEST_R2,
            "slope_above": LOWEST_SLOPE,
            "n_windows": len(windows),
        },
        warnings=(*growth.warnings, Reason("published-bias", BIAS)),
        curve=growth,
    )


def published_reasons(kept: int, total: int, what: str) -> tuple[Reason, ...]:
    """Why a published procedure gives no verdict.

    Parameters
    ----------
    kept, total : int
        Curves that entered the value, of how many.
    what : str
        What they are called.

    Returns
    -------
    tuple of Reason
    """
    return (
        Reason.of(
            "published-procedure",
            "the published procedure kept {kept} of {total} {what} ({share:.0%}); it has no null, so it cannot tell "
            "growth from chance",
            kept=kept,
            total=total,
            what=what,
            share=kept / max(total, 1),
        ),
        Reason("no-verdict", "omit `procedure` to get an interval and a verdict"),
    )


BIAS = (
    "danovski2024 takes the window with the best R2 and drops what is not straight and steep enough: both bias the "
    "exponent upwards (0.46 for 0.25 on the softmax map of the same paper), it turns 30 % of driftless random walks "
    "into exponents above 0.05, and after saturation it can lock on a slow drift, which fits a line best; its error "
    "bar is the spread over initial conditions, not the uncertainty of the mean"
)
