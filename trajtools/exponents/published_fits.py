"""Published procedures for an exponent from curves, reproduced exactly, with their known bias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, UnknownNameError
from trajtools.exponents.exponent import Exponent
from trajtools.reasons import Reason
from trajtools.statistics import average_curves, window_fits
from trajtools.types import Floats, Ints

if TYPE_CHECKING:
    from trajtools.exponents.divergence import Divergence

STARTS = np.arange(0, 101, 5)
WIDTHS = np.arange(30, 101, 5)
LONGEST = 200
LOWEST_R2 = 0.9
LOWEST_SLOPE = 0.05
DANOVSKI_BIAS = (
    "danovski2024 selects the window with the largest R2 and drops curves that are not straight or steep: both bias "
    "the exponent upwards (0.46 instead of 0.25 on the softmax map of the same paper), 30 % of driftless random walks "
    "get exponents above 0.05, and after saturation it can select a slow drift, which is the straightest part; its "
    "error bar is the spread over initial conditions, not the uncertainty of the mean"
)


PRODUCTION = "caligiuri2023-production"
CALIGIURI_BIAS = (
    "caligiuri2023 retains a block only if the line through its first points has R2 >= 0.9, here {n} of {total}. "
    "On networks with a known exponent this filter biases the mean upwards by 3 to 45 % (most where distances are "
    "coarse); without it the mean is {mean:.4g}. Without a Theiler window, neighbours can be adjacent in time, and "
    "there is no test for exponential growth"
)


PRODUCTION_BIAS = (
    "caligiuri2023-production ends each window where R2 decreases, which selects parts that are straight by chance: on "
    "dictionary networks of the logistic map it is 4 to 35 % too high (most for short first windows), on states of the "
    "Henon map 3 to 17 %; there is no test for exponential growth"
)


def fit_published(growth: Divergence, procedure: str, *, level: float = 0.95) -> Exponent:
    """Fit curves by a published procedure."""
    fits = {
        "danovski2024": danovski2024,
        "caligiuri2023": caligiuri2023,
        PRODUCTION: caligiuri2023_production,
    }
    if procedure not in fits:
        raise UnknownNameError(
            f"there is no procedure {procedure!r}; there are None (the default) and {', '.join(fits)}"
        )
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    return fits[procedure](growth, level=level)


def danovski2024(growth: Divergence, *, level: float = 0.95) -> Exponent:
    r"""Best line per initial condition, retained if it is straight and steep (Danovski et al. 2024).

    Notes
    -----
    For each initial condition a line is fitted to :math:`\ln \langle d(t) \rangle` over the copies, on all windows
    that start at 0, 5, ..., 100, have 30, 35, ..., 100 samples and end within the first 200; the one with the largest
    R2 is used. Initial conditions with R2 <= 0.9 or slope <= 0.05 are dropped. The grid is in samples, as published.
    Of several starts of an initial condition only the first is used, because the paper perturbs once.

    References
    ----------
    .. [1] K. Danovski, M. C. Soriano, L. Lacasa, Front. Complex Syst. 2, 1367957 (2024), doi:10.3389/fcpxs.2024.1367957
    """
    # The paper perturbs once: of twins that were planted anew, the first start of each initial condition.
    first = growth.start == np.array([growth.start[growth.group == one].min() for one in growth.group])
    curves, group, _ = average_curves(growth.distances[first], growth.group[first], growth.start[first], "log-mean")
    labels = np.unique(group)
    length = min(curves.shape[1], LONGEST)
    windows = [(int(s), int(s + w)) for s in STARTS for w in WIDTHS if s + w <= length]
    slope = r2 = intercept = np.full((len(curves), 1), np.nan)
    starts, stops = np.array(windows or [(0, 0)], dtype=np.int64).T
    if windows:
        slope, intercept, r2 = window_fits(growth.time, curves, starts, stops)
    best = np.argmax(np.where(np.isfinite(r2), r2, -np.inf), axis=1)
    rows = np.arange(len(curves))
    # The threshold of the slope is per step; in another unit of time it applies per sample.
    spacing = float(growth.time[1] - growth.time[0]) if len(growth.time) > 1 else 1.0
    slope, intercept, r2 = slope[rows, best], intercept[rows, best], r2[rows, best]
    retained = (r2 > LOWEST_R2) & (slope * spacing > LOWEST_SLOPE)
    values = np.where(retained, slope, np.nan)
    n = int(retained.sum())
    value = float(slope[retained].mean()) if n else float("nan")
    reasons = published_reasons(n, len(curves), "curves")
    if not windows:
        text = "{samples} samples are fewer than the shortest window of the procedure, {shortest}"
        reasons = (Reason.of("record-too-short", text, samples=length, shortest=WIDTHS[0]), *reasons)
    window = (float("nan"),) * 2
    if n:
        used = best[retained]
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
        intercept=float(intercept[retained].mean()) if n else float("nan"),
        method=growth.method,
        unit=f"1/{growth.time_unit}",
        settings={
            **growth.settings,
            "procedure": "danovski2024",
            "average": "log-mean",
            "sd": float(slope[retained].std()) if n else float("nan"),
            "kept_fraction": n / max(len(curves), 1),
            "mean_of_all": float(np.nanmean(slope)) if np.isfinite(slope).any() else float("nan"),
            "counted": "initial conditions" if len(labels) == len(curves) else "initial conditions and starts",
            "r2_above": LOWEST_R2,
            "slope_above": LOWEST_SLOPE,
            "n_windows": len(windows),
        },
        warnings=(*growth.warnings, Reason("published-bias", DANOVSKI_BIAS)),
        curve=growth,
    )


def published_reasons(retained: int, total: int, what: str) -> tuple[Reason, ...]:
    """Reasons why a published procedure gives no verdict."""
    return (
        Reason.of(
            "published-procedure",
            "the published procedure retains {kept} of {total} {what} ({share:.0%}); it has no null, so it cannot "
            "distinguish growth from chance",
            kept=retained,
            total=total,
            what=what,
            share=retained / max(total, 1),
        ),
        Reason("no-verdict", "omit `procedure` to get an interval and a verdict"),
    )


def caligiuri2023(growth: Divergence, *, level: float = 0.95) -> Exponent:
    r"""Mean slope of the blocks whose first points lie on a line (Caligiuri et al. 2023).

    Notes
    -----
    In the published text, a window of w points slides over :math:`\ln D_z` until its R2 reaches 0.9. The published
    code returns slope and R2 of the window before that one, so it drops a block unless its first window already reaches
    0.9. This function follows the code: it uses only the first w points.

    References
    ----------
    .. [1] A. Caligiuri, V. M. Eguiluz, L. Di Gaetano, T. Galla, L. Lacasa, Phys. Rev. E 107, 044305 (2023),
       doi:10.1103/PhysRevE.107.044305
    """
    slope, intercept, r2 = first_window(growth)
    retained = r2 >= LOWEST_R2
    n, total = int(retained.sum()), len(slope)
    mean_of_all = float(np.nanmean(slope)) if np.isfinite(slope).any() else float("nan")
    points = int(growth.settings["points"])
    return _mean_of_blocks(
        growth,
        (slope, intercept, retained),
        level=level,
        window=(float(growth.time[0]), float(growth.time[points - 1])),
        settings={"procedure": "caligiuri2023", "r2_at_least": LOWEST_R2, "mean_of_all": mean_of_all},
        warning=Reason.of("published-bias", CALIGIURI_BIAS, n=n, total=total, mean=mean_of_all),
    )


def first_window(growth: Divergence) -> tuple[Floats, Floats, Floats]:
    """Fit the first `points` states of every block."""
    points = growth.settings.get("points")
    if points is None:
        raise DataError(
            f"this divergence ({growth.method}) was not computed for procedure 'caligiuri2023'; pass procedure= and "
            "points= to wolf or kantz"
        )
    with np.errstate(divide="ignore"):
        curves = np.log(np.where(growth.distances > 0, growth.distances, np.nan))
    fits = window_fits(growth.time, curves, np.array([0]), np.array([int(points)]))
    return fits[0][:, 0], fits[1][:, 0], fits[2][:, 0]


def _mean_of_blocks(
    growth: Divergence,
    fits: tuple[Floats, Floats, NDArray[np.bool_]],
    *,
    level: float,
    window: tuple[float, float],
    settings: dict[str, Any],
    warning: Reason,
) -> Exponent:
    """Mean slope of the retained blocks, without an interval or a verdict, as published."""
    slope, intercept, retained = fits
    n, total, nan = int(retained.sum()), len(slope), float("nan")
    return Exponent(
        value=float(slope[retained].mean()) if n else nan,
        interval=(nan, nan),
        level=level,
        p_value=nan,
        null="",
        n_used=n,
        n_total=total,
        verdict="inconclusive",
        reasons=published_reasons(n, total, "blocks"),
        window=window,
        window_values=slope,
        values=np.where(retained, slope, np.nan),
        intercept=float(intercept[retained].mean()) if n else nan,
        method=growth.method,
        unit=f"1/{growth.time_unit}",
        settings={
            **growth.settings,
            "counted": "blocks",
            "sd": float(slope[retained].std()) if n else nan,
            "kept_fraction": n / max(total, 1),
            **settings,
        },
        warnings=(*growth.warnings, warning),
        curve=growth,
    )


def caligiuri2023_production(growth: Divergence, *, level: float = 0.95) -> Exponent:
    r"""Mean slope of the blocks on windows that grow until R2 decreases (Caligiuri et al. 2023, production code).

    Notes
    -----
    The first point of each block is omitted, and the longest run of positive distances in the rest is used. The line
    through its first w points is extended point by point until R2 decreases. Selection by R2 favours blocks and parts
    that are straight by chance; see the warning.

    References
    ----------
    .. [1] A. Caligiuri, V. M. Eguiluz, L. Di Gaetano, T. Galla, L. Lacasa, Phys. Rev. E 107, 044305 (2023),
       doi:10.1103/PhysRevE.107.044305
    """
    slope, intercept, r2, length = growing_window(growth)
    retained = np.isfinite(slope)
    longest = int(length.max()) if retained.any() else 0
    return _mean_of_blocks(
        growth,
        (slope, intercept, retained),
        level=level,
        window=(float(growth.time[1]), float(growth.time[max(longest, 1)])),
        settings={"procedure": PRODUCTION, "r2": r2, "lengths": length},
        warning=Reason("published-bias", PRODUCTION_BIAS),
    )


def growing_window(growth: Divergence) -> tuple[Floats, Floats, Floats, Ints]:
    """Fit each block on a window that grows until its R2 decreases."""
    if growth.settings.get("procedure") != PRODUCTION:
        raise DataError(
            f"this divergence ({growth.method}) was not computed for procedure {PRODUCTION!r}; pass procedure= and "
            "points= to wolf"
        )
    points = int(growth.settings["points"])
    slope, intercept, r2 = (np.full(len(growth.distances), np.nan) for _ in range(3))
    length = np.zeros(len(growth.distances), dtype=np.int64)
    for block, distances in enumerate(growth.distances):
        begin, end = _longest_run(distances)
        if end - begin < points:
            continue
        stops = np.arange(begin + points, end + 1)
        curve = np.log(np.where(distances > 0, distances, 1.0))[None]
        fits = [rows[0] for rows in window_fits(growth.time, curve, np.full(len(stops), begin), stops)]
        # A line through equal distances has no R2: this counts as a decrease.
        worse = np.flatnonzero(~(np.diff(fits[2]) >= 0))
        at = int(worse[0]) if len(worse) else len(stops) - 1
        slope[block], intercept[block], r2[block] = (float(rows[at]) for rows in fits)
        length[block] = stops[at] - begin
    return slope, intercept, r2, length


def _longest_run(distances: Floats) -> tuple[int, int]:
    """First and past-last point of the longest run of positive distances after the first point; the first of equals."""
    best, begin = (1, 1), 1
    for point in range(1, len(distances) + 1):
        if point == len(distances) or not distances[point] > 0:
            if point - begin > best[1] - best[0]:
                best = (begin, point)
            begin = point + 1
    return best
