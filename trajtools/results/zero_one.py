"""Whether a series moves regularly or not, by the 0-1 test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.plain import Result
from trajtools.types import Floats

ZERO_ONE_VERDICTS = ("irregular", "regular", "inconclusive")


@dataclass(frozen=True, eq=False)
class ZeroOne(Result):
    """Answer of the 0-1 test.

    Attributes
    ----------
    value : float
        K, the median over the frequencies: near 0 for regular motion, near 1 for irregular motion.
    verdict : str
        ``"irregular"``: chaos or noise, which this test does not tell apart. ``"regular"``: periodic, quasi-periodic
        or at rest. ``"inconclusive"``: see `reasons`.
    reasons : tuple of str
        Why, in sentences with numbers.
    method : str
        ``"correlation"`` or ``"regression"``.
    frequencies : ndarray of float64, shape (C,)
        The frequencies c, in radians per (thinned) sample.
    values : ndarray of float64, shape (C,)
        K for each of them; a resonance gives a lone value near 0 or 1.
    spread : (float, float)
        Quartiles of `values`; not a confidence interval.
    half : float
        K of the first half of the series: what a shorter record would have said.
    every : int, in samples
        Every so many samples of the series were used.
    n_used, n_total : int
        Samples that entered, out of how many.
    displacement : ndarray of float64, shape (L,)
        Mean square displacement at the median frequency, for lags 1 .. L, of the series over its largest absolute
        value.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know.
    """

    value: float
    verdict: str
    reasons: tuple[str, ...]
    method: str
    frequencies: Floats
    values: Floats
    spread: tuple[float, float]
    half: float
    every: int
    n_used: int
    n_total: int
    displacement: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def plot(self, ax: Any = None) -> Any:
        """Draw K over the frequencies; see `trajtools.plots.zero_one_test`.

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

        return plots.zero_one_test(self, ax=ax)
