"""Numbers and verdicts in words, the same in tables, figures and reports."""

from __future__ import annotations

import numpy as np

from trajtools.results.exponent import Exponent


def number(value: float) -> str:
    """Return an exponent, or a number like one, in words: "unknown" for NaN.

    Parameters
    ----------
    value : float
        What to write.

    Returns
    -------
    str
        Three decimals, one more below 0.1, powers of ten below 0.001: ``0.277``, ``0.0482``, ``1.2e-05``.
    """
    if not np.isfinite(value):
        return "unknown"
    size = abs(value)
    if size != 0 and (size < 0.001 or size >= 10**6):
        return f"{value:.1e}"
    return f"{value:.4f}" if 0 < size < 0.1 else f"{value:.3f}"


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


def spread(exponent: Exponent) -> float:
    """Return the standard deviation over the initial conditions that were kept.

    Parameters
    ----------
    exponent : Exponent
        With its values.

    Returns
    -------
    float
        NaN where fewer than two were kept.
    """
    kept = exponent.values[np.isfinite(exponent.values)]
    return float(kept.std()) if kept.size > 1 else float("nan")


def kept(exponent: Exponent) -> float:
    """Return the fraction of initial conditions that entered the value.

    Parameters
    ----------
    exponent : Exponent
        With its counts.

    Returns
    -------
    float
        Between 0 and 1.
    """
    return exponent.n_used / exponent.n_total if exponent.n_total else 0.0
