"""Numbers and verdicts in words, the same in tables, figures and reports."""

from __future__ import annotations

import numpy as np

from trajtools.results import Exponent


def number(value: float, digits: int = 3) -> str:
    """Return a number in words: a minus sign that is one, and "unknown" for NaN.

    Parameters
    ----------
    value : float
        What to write.
    digits : int
        Decimals; numbers that would round to zero are written with as many significant digits.

    Returns
    -------
    str
        Such as ``0.277`` or ``1.2e-05``.
    """
    if not np.isfinite(value):
        return "unknown"
    tiny = 0 < abs(value) < 0.5 * 10.0**-digits
    return f"{value:.1e}" if tiny or abs(value) >= 10**6 else f"{value:.{digits}f}"


def interval(exponent: Exponent) -> str:
    """Return the confidence interval in words.

    Parameters
    ----------
    exponent : Exponent
        Its interval may be unknown.

    Returns
    -------
    str
        Such as ``[0.25, 0.30]``.
    """
    low, high = exponent.interval
    return f"[{number(low)}, {number(high)}]" if np.isfinite([low, high]).all() else "unknown"


def window(exponent: Exponent) -> str:
    """Return the fitted window in words.

    Parameters
    ----------
    exponent : Exponent
        Its window may be unknown.

    Returns
    -------
    str
        Such as ``12-58``; empty where nothing was fitted.
    """
    start, stop = exponent.window
    return f"{start:g}-{stop:g}" if np.isfinite([start, stop]).all() else ""
