"""What a figure of a divergence shows, whoever draws it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trajtools.growth.units import factor_of
from trajtools.results.curves import average_curves, mean_curve
from trajtools.results.divergence import Divergence
from trajtools.results.exponent import Exponent

Floats = NDArray[np.float64]


def orbit_curves(growth: Divergence) -> Floats:
    """Return one curve per initial condition and time of perturbation: what the thin lines of the figures show.

    Parameters
    ----------
    growth : Divergence
        With any number of units.

    Returns
    -------
    ndarray of float64, shape (C, K + 1)
        Natural logarithm of the distance, averaged over the copies as the divergence says; NaN after a curve's end.
    """
    curves, group, start = average_curves(growth.distances, growth.group, growth.start, growth.average)
    orbits, inverse = np.unique(np.stack([group, start], axis=1), axis=0, return_inverse=True)
    if len(orbits) == len(curves):
        return curves
    found = [mean_curve(curves[inverse.ravel() == row], np.zeros(1, int).repeat(np.sum(inverse.ravel() == row)))
             for row in range(len(orbits))]  # fmt: skip
    return np.array(found)


def floor_curve(growth: Divergence) -> Floats:
    """Return the distance that rounding alone produces, as the median over the units.

    Parameters
    ----------
    growth : Divergence
        With any number of units.

    Returns
    -------
    ndarray of float64, shape (K + 1,)
        Natural logarithm; NaN where the floor is unknown or zero.
    """
    floor = np.broadcast_to(growth.floor, growth.distances.shape)
    found = np.full(floor.shape[1], np.nan)
    for k in range(floor.shape[1]):
        known = floor[:, k][floor[:, k] > 0]
        if known.size:
            found[k] = np.log(np.median(known))
    return found


def fitted_line(exponent: Exponent) -> tuple[Floats, Floats] | None:
    """Return the ends of the fitted line.

    Parameters
    ----------
    exponent : Exponent
        Perhaps without a fit.

    Returns
    -------
    (ndarray, ndarray) or None
        Times and natural logarithms of the distance at both ends; None where nothing was fitted.
    """
    ends = np.asarray(exponent.window, dtype=np.float64)
    # The curve keeps its unit of time, whatever unit the exponent is stated in.
    line = exponent.intercept + exponent.value / factor_of(exponent) * ends
    return (ends, line) if np.isfinite(ends).all() and np.isfinite(line).all() else None


def slopes(exponent: Exponent) -> tuple[Floats, Floats, Floats] | None:
    """Return the lines that the interval allows, through the start of the fitted line.

    Parameters
    ----------
    exponent : Exponent
        Perhaps without a fit, or without an interval.

    Returns
    -------
    (ndarray, ndarray, ndarray) or None
        Times of both ends, and the natural logarithms of the distance on the lowest and the highest line; None where
        they are unknown.
    """
    line, edges = fitted_line(exponent), np.asarray(exponent.interval, dtype=np.float64) / factor_of(exponent)
    if line is None or not np.isfinite(edges).all():
        return None
    ends, values = line
    low, high = values[0] + edges[:, None] * (ends - ends[0])
    return ends, low, high


def null_band(exponent: Exponent) -> dict[str, Floats] | None:
    """Return the curves of the null, where the exponent was tested against one.

    Parameters
    ----------
    exponent : Exponent
        Perhaps without a test.

    Returns
    -------
    dict or None
        ``time`` in the unit of the curve, and the natural logarithms ``record`` (what was compared: part of the record,
        or the mean of the twins), ``low`` and ``high``: the middle 90 % of the surrogates, or of what the null comes to
        when it is fitted to each curve of twins.
    """
    band = exponent.settings.get("null_band")
    if band is None or not np.isfinite(band["low"]).any():
        return None
    time = band.get("time")
    if time is None:
        spacing = float(exponent.settings.get("dt", 1.0)) * float(exponent.settings.get("interpolated", 1))
        time = np.asarray(band["lag"]) * spacing
    return {"time": np.asarray(time), **{name: np.asarray(band[name]) for name in ("record", "low", "high")}}


def saturation(growth: Divergence, exponent: Exponent) -> float:
    """Return the level above which distances were not fitted, as the median over the initial conditions.

    Parameters
    ----------
    growth : Divergence
        The curves.
    exponent : Exponent
        Whose settings say what was taken for saturation.

    Returns
    -------
    float
        Natural logarithm of the distance; NaN where the fit used none.
    """
    level = exponent.settings.get("saturation_level")
    return float(level) if isinstance(level, float | int) else float("nan")
