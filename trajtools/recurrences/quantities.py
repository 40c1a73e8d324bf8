"""Measures of recurrence quantification from the numbers of lines."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, UnknownNameError
from trajtools.fitting import fit_slope
from trajtools.recurrences.conventions import Convention, find_convention
from trajtools.recurrences.lines import Lines
from trajtools.results.recurrence import Measures, Recurrence
from trajtools.types import Floats, Ints

BORDERS = ("keep", "discard", "longest", "censi")
# Of the lags at the corners of the plot so many hold too few cells to tell a trend.
TREND_BORDER = 10
# The tail of the cumulative distribution is not fitted where fewer lines than this are left.
_FEWEST_LINES = 50
_THOUSAND = 1000.0
Counts = NDArray[Any]


def measure(
    lines: Lines,
    convention: Convention,
    *,
    theiler: int,
    lmin: int = 2,
    vmin: int = 2,
    wmin: int | None = None,
    border: str = "keep",
    semi: bool = False,
    symmetric: bool = True,
    cross: bool = False,
    trend_border: int = TREND_BORDER,
    dt: float = 1.0,
) -> Measures:
    """All measures; see `trajtools.recurrence` for what they mean."""
    wmin = convention.wmin if wmin is None else wmin
    for name, value in (("lmin", lmin), ("vmin", vmin), ("wmin", wmin)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise DataError(f"{name}={value!r}: the shortest line that counts has a whole length, at least 1")
    diagonal = correct_border(lines, border, semi=semi, symmetric=symmetric)
    times = recurrence_times(lines, convention)
    recurrences, cells = lines.outside(theiler if convention.everywhere else 0)
    if cross and convention.name == "recurrenceanalysis":
        cells = int(lines.cells.sum())
    least = 1 if convention.name != "recurrenceanalysis" else None
    det, length, entropy, lmax = line_measures(diagonal, lmin, convention)
    lam, trapping, vertical_entropy, vmax = line_measures(lines.vertical, vmin, convention)
    _, mean_time, time_entropy, _ = line_measures(times, wmin, convention)
    lmax, vmax = (lmax if lmax >= (least or lmin) else 0), (vmax if vmax >= (least or vmin) else 0)
    return Measures(
        RR=recurrences / cells if cells else float("nan"),
        DET=det,
        L=length,
        Lmax=lmax,
        DIV=1.0 / lmax if lmax else float("inf"),
        ENTR=entropy,
        LAM=lam,
        TT=trapping,
        Vmax=vmax,
        VENTR=vertical_entropy,
        TREND=trend(lines, theiler, trend_border, convention),
        MRT=mean_time,
        RTE=time_entropy,
        NMPRT=int(times[wmin:].max(initial=0)),
        K2=correlation_entropy(diagonal, lmin, dt),
    )


def line_measures(lengths: Counts, least: int, convention: Convention) -> tuple[float, float, float, int]:
    """Share of the cells that lie in long lines, their mean length, and the entropy of their lengths."""
    from trajtools._kernels.recurrence_lines import summarize

    cells, number, logs, of_all, longest = summarize(lengths, least)
    share = cells / (of_all + convention.epsilon) if of_all else convention.no_share
    if not number:
        return share, convention.none, convention.no_entropy, longest
    # Minus the sum of p ln p, with p = n / total.
    total = number + convention.epsilon
    entropy = max((number * log(total) - logs) / total, 0.0)
    return share, cells / total, entropy, longest


def correct_border(lines: Lines, border: str, *, semi: bool, symmetric: bool) -> Ints:
    """Diagonal lines without the bias of those that are cut by the border of the plot (Kraemer and Marwan 2019)."""
    if border not in BORDERS:
        raise UnknownNameError(f"border {border!r} is none of {', '.join(BORDERS)}")
    if border == "keep":
        return lines.diagonal
    at_border = np.zeros_like(lines.diagonal)
    at_border[: len(lines.both_ends)] += lines.both_ends
    if semi:
        at_border[: len(lines.one_end)] += lines.one_end
    top = int(np.flatnonzero(at_border)[-1]) if at_border.any() else 0
    corrected = lines.diagonal - at_border
    if top and border == "longest":
        corrected[top] += min(2 if symmetric else 1, int(at_border[top]))
    elif top and border == "censi":
        corrected[top] += at_border.sum()
    return corrected


def recurrence_times(lines: Lines, convention: Convention) -> Ints:
    """Entry t: recurrence times t, as the convention defines them."""
    if convention.times != "white":
        return lines.times
    out = np.zeros(max(len(lines.white), len(lines.white_cut)), dtype=np.int64)
    out[: len(lines.white)] += lines.white
    out[: len(lines.white_cut)] += lines.white_cut
    return out


def lag_rates(lines: Lines) -> Floats:
    """Share of the cells that recur at every distance 0, 1, ... from the line of identity, in the largest square."""
    from trajtools._kernels.recurrence_lines import fold_lags

    return fold_lags(lines.square_recurrences, lines.square_cells, lines.shape[1] - 1, min(lines.shape))


def trend(lines: Lines, theiler: int, trend_border: int, convention: Convention) -> float:
    """Change of the recurrence rate with the distance from the line of identity, per 1000 samples; NaN of < 2 lags."""
    rates = lag_rates(lines)
    lags = np.arange(theiler, max(len(rates) - trend_border, theiler))
    rates = rates[theiler : theiler + len(lags)]
    known = np.isfinite(rates)
    if not known.all():
        lags, rates = lags[known], rates[known]
    if len(lags) < 2:
        return float("nan")
    if convention.trend == "least-squares":
        return _THOUSAND * fit_slope(lags, rates).slope
    # Lags are counted from 1 there, and centred half a lag too low.
    offset = lags + 1 - (lags[-1] + 1 + theiler) / 2
    return _THOUSAND * float(offset @ (rates - rates.mean())) / float(offset @ offset)


def correlation_entropy(diagonal: Counts, lmin: int, dt: float) -> float:
    """Decay of the number of diagonal lines with their length, per unit of time; NaN where two lengths are not left.

    Least squares through the logarithm of the number of lines at least l long, from lmin to where fewer than 50 are
    left.
    """
    longer = np.cumsum(diagonal[::-1])[::-1].astype(np.float64)
    lengths = np.arange(lmin, len(diagonal))
    lengths = lengths[longer[lmin:] >= _FEWEST_LINES] if len(lengths) else lengths
    if len(lengths) < 2:
        return float("nan")
    return -fit_slope(lengths * dt, np.log(longer[lengths])).slope


def measures_of(result: Recurrence, changed: dict[str, Any]) -> Measures:
    """The measures of a result, with some options changed; see `Recurrence.measures`."""
    options = {name: result.settings[name] for name in ("lmin", "vmin", "wmin", "border", "semi", "trend_border")}
    return measure(
        result.lines,
        find_convention(result.convention),
        theiler=result.theiler,
        symmetric=bool(result.settings["symmetric"]),
        cross=result.kind == "cross",
        dt=result.dt,
        **(options | changed),
    )
