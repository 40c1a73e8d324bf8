"""The fit of Caligiuri et al. (2023) for temporal networks, exactly, with what is known about its bias."""

from __future__ import annotations

import numpy as np

from trajtools.errors import DataError
from trajtools.fitting import window_fits
from trajtools.results import Divergence, Exponent, Floats

LOWEST_R2 = 0.9
BIAS = (
    "caligiuri2023 keeps a block only if the line through its first points has R2 >= 0.9: it kept {n} of {total} here. "
    "On networks with a known exponent that filter biases the mean upwards by 3 to 45 % (most where distances are "
    "coarse), and without it the mean is {mean:.4g}; the blocks are not independent of their neighbours' future, since "
    "there is no Theiler window, and nothing tests whether the growth is exponential"
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
    nan = float("nan")
    points = int(growth.settings["points"])
    return Exponent(
        value=float(slope[kept].mean()) if n else nan,
        interval=(nan, nan),
        level=level,
        p_value=nan,
        null="",
        n_used=n,
        n_total=total,
        verdict="inconclusive",
        reasons=(
            f"the published procedure kept {n} of {total} blocks ({n / max(total, 1):.0%}); it has no null, so it "
            "cannot tell growth from chance",
            "leave `procedure` out for an interval and a verdict",
        ),
        window=(float(growth.time[0]), float(growth.time[points - 1])),
        window_values=slope,
        values=np.where(kept, slope, np.nan),
        intercept=float(intercept[kept].mean()) if n else nan,
        method=growth.method,
        unit=f"1/{growth.time_unit}",
        settings={
            **growth.settings,
            "procedure": "caligiuri2023",
            "counted": "blocks",
            "r2_at_least": LOWEST_R2,
            "sd": float(slope[kept].std()) if n else nan,
            "kept_fraction": n / max(total, 1),
            "mean_of_all": everything,
        },
        warnings=(*growth.warnings, BIAS.format(n=n, total=total, mean=everything)),
        curve=growth,
    )
