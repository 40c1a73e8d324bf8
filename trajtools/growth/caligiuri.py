"""The fit of Caligiuri et al. (2023) for temporal networks, exactly, with what is known about its bias."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError
from trajtools.exponents.exponent import Exponent
from trajtools.growth.published import published_reasons
from trajtools.reasons import Reason
from trajtools.results.divergence import Divergence
from trajtools.statistics import window_fits
from trajtools.types import Floats, Ints

LOWEST_R2 = 0.9
PRODUCTION = "caligiuri2023-production"
BIAS = (
    "caligiuri2023 keeps a block only if the line through its first points has R2 >= 0.9: it kept {n} of {total} here. "
    "On networks with a known exponent that filter biases the mean upwards by 3 to 45 % (most where distances are "
    "coarse), and without it the mean is {mean:.4g}; the blocks are not independent of their neighbours' future, since "
    "there is no Theiler window, and nothing tests whether the growth is exponential"
)
PRODUCTION_BIAS = (
    "caligiuri2023-production ends each window where R2 falls, so that it holds a stretch that happened to be "
    "straight: on dictionary networks of the logistic map it is 4 to 35 % too high (most for short first windows), on "
    "states of the Henon map 3 to 17 %; nothing tests whether the growth is exponential"
)


def first_window(growth: Divergence) -> tuple[Floats, Floats, Floats]:
    """Fit the first points of every block.

    Parameters
    ----------
    growth : Divergence
        From an estimator with ``procedure="caligiuri2023"``: ``settings["points"]`` is the length of the window.

    Returns
    -------
    slope, intercept, r2 : ndarray of float64, shape (U,)
        In 1 / time unit; NaN where a distance of the window is zero.

    Raises
    ------
    DataError
        If the divergence was made by another procedure.
    """
    points = growth.settings.get("points")
    if points is None:
        raise DataError(
            f"this divergence ({growth.method}) was not made for procedure 'caligiuri2023'; name the procedure and its "
            "`points` when calling wolf or kantz"
        )
    with np.errstate(divide="ignore"):
        curves = np.log(np.where(growth.distances > 0, growth.distances, np.nan))
    fits = window_fits(growth.time, curves, np.array([0]), np.array([int(points)]))
    return fits[0][:, 0], fits[1][:, 0], fits[2][:, 0]


def caligiuri2023(growth: Divergence, *, level: float = 0.95) -> Exponent:
    r"""Mean slope of the blocks whose first points lie on a line (Caligiuri et al. 2023).

    Parameters
    ----------
    growth : Divergence
        From `trajtools.wolf` or `trajtools.kantz` with ``procedure="caligiuri2023"``.
    level : float
        Only kept in the result: the procedure has no interval.

    Returns
    -------
    Exponent
        Mean slope of the kept blocks; ``settings["mean_of_all"]`` is that of all, ``n_used / n_total`` the kept
        fraction, `values` the slopes (NaN where dropped). The verdict is always ``"inconclusive"``.

    Raises
    ------
    DataError
        If the divergence was made by another procedure.

    Notes
    -----
    The published text slides a window of w points over :math:`\ln D_z` until its R2 reaches 0.9. The published code
    returns slope and R2 of the window before that one, so that a block is dropped unless its first window already
    reaches it: only the first w points are ever used, and that is what is done here.

    References
    ----------
    .. [1] A. Caligiuri, V. M. Eguiluz, L. Di Gaetano, T. Galla, L. Lacasa, Phys. Rev. E 107, 044305 (2023),
       doi:10.1103/PhysRevE.107.044305
    """
    slope, intercept, r2 = first_window(growth)
    kept = r2 >= LOWEST_R2
    n, total = int(kept.sum()), len(slope)
    everything = float(np.nanmean(slope)) if np.isfinite(slope).any() else float("nan")
    points = int(growth.settings["points"])
    return _mean_of_blocks(
        growth,
        (slope, intercept, kept),
        level=level,
        window=(float(growth.time[0]), float(growth.time[points - 1])),
        settings={"procedure": "caligiuri2023", "r2_at_least": LOWEST_R2, "mean_of_all": everything},
        warning=Reason.of("published-bias", BIAS, n=n, total=total, mean=everything),
    )


def _mean_of_blocks(
    growth: Divergence,
    fits: tuple[Floats, Floats, NDArray[np.bool_]],
    *,
    level: float,
    window: tuple[float, float],
    settings: dict[str, Any],
    warning: Reason,
) -> Exponent:
    """The mean slope of the blocks that were kept, without an interval or a verdict, as published."""
    slope, intercept, kept = fits
    n, total, nan = int(kept.sum()), len(slope), float("nan")
    return Exponent(
        value=float(slope[kept].mean()) if n else nan,
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
        values=np.where(kept, slope, np.nan),
        intercept=float(intercept[kept].mean()) if n else nan,
        method=growth.method,
        unit=f"1/{growth.time_unit}",
        settings={
            **growth.settings,
            "counted": "blocks",
            "sd": float(slope[kept].std()) if n else nan,
            "kept_fraction": n / max(total, 1),
            **settings,
        },
        warnings=(*growth.warnings, warning),
        curve=growth,
    )


def growing_window(growth: Divergence) -> tuple[Floats, Floats, Floats, Ints]:
    """Fit each block on a window that grows as long as its R2 does not fall.

    Parameters
    ----------
    growth : Divergence
        From `trajtools.wolf` with ``procedure="caligiuri2023-production"``: ``settings["points"]`` is the first length.

    Returns
    -------
    slope, intercept, r2 : ndarray of float64, shape (U,)
        Of the last window, in 1 / time unit; NaN where fewer than `points` distances in a row are positive.
    length : ndarray of int64, shape (U,)
        Its points; 0 where there is none.

    Raises
    ------
    DataError
        If the divergence was made by another procedure.
    """
    if growth.settings.get("procedure") != PRODUCTION:
        raise DataError(
            f"this divergence ({growth.method}) was not made for procedure {PRODUCTION!r}; name the procedure and its "
            "`points` when calling wolf"
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
        fits = [found[0] for found in window_fits(growth.time, curve, np.full(len(stops), begin), stops)]
        # A line through equal distances has no R2: it is taken as one that falls.
        worse = np.flatnonzero(~(np.diff(fits[2]) >= 0))
        at = int(worse[0]) if len(worse) else len(stops) - 1
        slope[block], intercept[block], r2[block] = (float(found[at]) for found in fits)
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


def caligiuri2023_production(growth: Divergence, *, level: float = 0.95) -> Exponent:
    r"""Mean slope of the blocks on windows that grow while R2 does not fall (Caligiuri et al. 2023, production code).

    Parameters
    ----------
    growth : Divergence
        From `trajtools.wolf` with ``procedure="caligiuri2023-production"``.
    level : float
        Only kept in the result: the procedure has no interval.

    Returns
    -------
    Exponent
        Mean slope of all blocks that have one; `values` are the slopes, ``settings["r2"]`` and ``settings["lengths"]``
        what the published table holds beside them, for a filter of the user's. The verdict is always
        ``"inconclusive"``.

    Raises
    ------
    DataError
        If the divergence was made by another procedure.

    Notes
    -----
    The first point of each block is left out, and of the rest the longest run of positive distances is used. The line
    through its first w points is extended point by point until R2 falls. A window chosen by its R2 favours blocks and
    stretches that happen to be straight; see the warning.

    References
    ----------
    .. [1] A. Caligiuri, V. M. Eguiluz, L. Di Gaetano, T. Galla, L. Lacasa, Phys. Rev. E 107, 044305 (2023),
       doi:10.1103/PhysRevE.107.044305
    """
    slope, intercept, r2, length = growing_window(growth)
    kept = np.isfinite(slope)
    longest = int(length.max()) if kept.any() else 0
    return _mean_of_blocks(
        growth,
        (slope, intercept, kept),
        level=level,
        window=(float(growth.time[1]), float(growth.time[max(longest, 1)])),
        settings={"procedure": PRODUCTION, "r2": r2, "lengths": length},
        warning=Reason("published-bias", PRODUCTION_BIAS),
    )
