"""Exponents of one window of training after the other, because training is not stationary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.exponents.exponent import Exponent
from trajtools.reasons import Reason
from trajtools.results.plain import Result, to_plain
from trajtools.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Windows(Result):
    """Finite-time exponents, one per window of the training.

    Attributes
    ----------
    method : str
        The estimator that made them.
    unit, time_unit : str
        Unit of the exponents (``"1/step"``) and of the time of the curves.
    start, stop : ndarray of int64, shape (W,)
        The windows, in steps.
    value : ndarray of float64, shape (W,)
        Exponent of each window; NaN where there is none.
    interval : ndarray of float64, shape (W, 2)
        Confidence interval of each; NaN where unknown.
    level : float
        Confidence level of the intervals.
    verdict : tuple of str, length W
        As of an `Exponent`, for the window alone: growth within one window is ``"transient"``.
    fresh : ndarray of bool, shape (W,)
        Whether the exponent comes from twins perturbed inside the window; always true for methods without twins.
    perturbed : ndarray of int64, shape (S,)
        Steps at which twins were perturbed; empty for methods without twins.
    by_start : ndarray of float64, shape (S, W)
        Rate in each window of the twins of each start alone; NaN where they have not begun, or have saturated.
    gain : ndarray of float64, shape (W,)
        E-folds of each window: its exponent times the time to its end, or to the start of the next one if that is
        earlier. NaN where it is unknown; for methods without twins, where the verdict is inconclusive, too.
    max_gain : float
        Largest sum of gains over windows that follow each other: how much a perturbation that is always turned to
        where it grows can gain. Zero where nothing grows, NaN where no window is known.
    max_gain_between : (int, int)
        Steps between which it is gained; equal where nothing grows.
    exponents : tuple of Exponent, length W
        The windows with reasons, counts and settings.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of Reason
        What the reader should know before believing the numbers.
    """

    method: str
    unit: str
    time_unit: str
    start: Ints
    stop: Ints
    value: Floats
    interval: Floats
    level: float
    verdict: tuple[str, ...]
    fresh: NDArray[np.bool_]
    perturbed: Ints
    by_start: Floats
    gain: Floats
    max_gain: float
    max_gain_between: tuple[int, int]
    exponents: tuple[Exponent, ...] = field(repr=False)
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict that JSON can hold, without the curves.

        Returns
        -------
        dict
            One entry per field. Arrays are lists, NaN and the infinities are None.
        """
        plain = {f.name: to_plain(getattr(self, f.name)) for f in fields(self) if f.name != "exponents"}
        return plain | {"exponents": [exponent.to_dict() for exponent in self.exponents]}

    def per(self, unit: str, **known: Any) -> Windows:
        """State the exponents per step, per epoch or per unit of the learning rate integrated over each window.

        Parameters
        ----------
        unit : str
            ``"step"``, ``"epoch"`` or ``"learning-rate"``.
        **known
            As of `Exponent.per`.

        Returns
        -------
        Windows
            In the new unit; gains have none.
        """
        converted = tuple(exponent.per(unit, **known) for exponent in self.exponents)
        value = np.array([exponent.value for exponent in converted], dtype=np.float64)
        factor = [one.unit_factor / old.unit_factor for one, old in zip(converted, self.exponents, strict=True)]
        return replace(
            self,
            unit=converted[0].unit,
            value=value,
            interval=np.array([exponent.interval for exponent in converted], dtype=np.float64),
            by_start=self.by_start * np.array(factor),
            exponents=converted,
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the exponent against the training; see `trajtools.plots.windows`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn.
        """
        from trajtools import plots

        return plots.windows(self, ax=ax)


def windows_of(
    exponents: Sequence[Exponent],
    start: Ints,
    stop: Ints,
    time_per_step: float,
    *,
    known: NDArray[np.bool_] | None = None,
    **more: Any,
) -> Windows:
    """Put the exponents of windows together.

    Parameters
    ----------
    exponents : sequence of Exponent
        One per window.
    start, stop : ndarray of int64, shape (W,)
        The windows, in steps.
    time_per_step : float
        In the time unit of the exponents.
    known : ndarray of bool or None, shape (W,)
        Where the exponent is that of a growth that was seen, so that it makes a gain; None: everywhere.
    **more : object
        ``fresh``, ``perturbed``, ``by_start``, ``settings`` and ``warnings``, where they are not those of a method
        without twins.

    Returns
    -------
    Windows
    """
    value = np.array([exponent.value for exponent in exponents], dtype=np.float64)
    until = np.append(np.minimum(stop[:-1], start[1:]), stop[-1])
    gain: Floats = value * (until - start).astype(np.float64) * time_per_step
    if known is not None:
        gain = np.where(known, gain, np.nan)
    most, between = _most(gain, start, until)
    given: dict[str, Any] = {
        "fresh": np.ones(len(value), dtype=np.bool_),
        "perturbed": np.empty(0, dtype=np.int64),
        "by_start": np.empty((0, len(value))),
    }
    unit = next((e.unit for e in exponents if np.isfinite(e.value)), exponents[0].unit)
    return Windows(
        method=exponents[0].method,
        unit=unit,
        time_unit=unit.removeprefix("1/"),
        start=start,
        stop=stop,
        value=value,
        interval=np.array([exponent.interval for exponent in exponents], dtype=np.float64),
        level=exponents[0].level,
        verdict=tuple(exponent.verdict for exponent in exponents),
        gain=gain,
        max_gain=most,
        max_gain_between=between,
        exponents=tuple(exponents),
        **(given | more),
    )


def _most(gain: Floats, start: Ints, until: Ints) -> tuple[float, tuple[int, int]]:
    """Largest sum over windows that follow each other without a gap, and where it lies."""
    if not np.isfinite(gain).any():
        return float("nan"), (int(start[0]), int(start[0]))
    most, between, running, begun = 0.0, (int(start[0]), int(start[0])), 0.0, 0
    for w in range(len(gain)):
        if running <= 0 or not np.isfinite(gain[w - 1]) or until[w - 1] != start[w]:
            running, begun = 0.0, w
        running += float(gain[w]) if np.isfinite(gain[w]) else 0.0
        if running > most:
            most, between = running, (int(start[begun]), int(until[w]))
    return most, between


def unknown(method: str, unit: str, level: float, why: Reason) -> Exponent:
    """Return the result of a window that has no exponent.

    Parameters
    ----------
    method, unit : str
        As of the other windows.
    level : float
        Confidence level.
    why : Reason
        Why there is none.

    Returns
    -------
    Exponent
        NaN, inconclusive.
    """
    nan = float("nan")
    return Exponent(
        value=nan,
        interval=(nan, nan),
        level=level,
        p_value=nan,
        null="",
        n_used=0,
        n_total=0,
        verdict="inconclusive",
        reasons=(why,),
        window=(nan, nan),
        window_values=np.empty(0),
        values=np.empty(0),
        intercept=nan,
        method=method,
        unit=unit,
    )
