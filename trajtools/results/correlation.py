"""How similar the states of a trajectory are to later ones, and whether they come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trajtools.results.plain import Result
from trajtools.types import Floats, Ints

CYCLES = ("exact", "bands", "approximate", "none")


@dataclass(frozen=True, eq=False)
class Autocorrelation(Result):
    """Autocorrelation of a trajectory of networks, or of a series.

    Attributes
    ----------
    lag : ndarray of int64, shape (L + 1,)
        Lags 0 .. L, in states.
    time : ndarray of float64, shape (L + 1,)
        The same in `time_unit`.
    time_unit : str
        Unit of `time`.
    values : ndarray of float64, shape (L + 1,)
        tr C(lag) / tr C(0); 1 at lag 0. NaN where nothing moves, and where no pair of finite states has this lag.
    pairs : ndarray of int64, shape (L + 1,)
        Pairs of states that each value is the mean of.
    variance : float
        tr C(0): variance of the weights in time, summed over them, in squared units of the weights.
    bias : float
        Expected value of an uncorrelated trajectory of this length at any lag > 0: -1 / (number of states - 1),
        or 0 where it was corrected.
    low, high : ndarray of float64, shape (L + 1,)
        Band of the null at each lag; NaN without a null.
    threshold : float
        The largest value of the null at any lag > 0, of either sign, stays below it at the level of the band: a value
        beyond it is significant, whichever lag it was found at. NaN without a null.
    p_value : float
        Probability, under the null, of a largest value at least as large as the one observed; NaN without a null.
    null : str
        The null, in words; empty without one.
    layers : tuple of str
        Names of the layers (or parameters, or kinds), if asked for.
    layer_values, layer_low, layer_high : ndarray of float64, shape (len(layers), L + 1)
        The same for each of them.
    n_states, n_excluded : int
        States in the window; those that are not finite and were left out.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know before believing the numbers.
    """

    lag: Ints
    time: Floats
    time_unit: str
    values: Floats
    pairs: Ints
    variance: float
    bias: float
    low: Floats
    high: Floats
    threshold: float
    p_value: float
    null: str
    layers: tuple[str, ...]
    layer_values: Floats
    layer_low: Floats
    layer_high: Floats
    n_states: int
    n_excluded: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def plot(self, ax: Any = None) -> Any:
        """Draw the values and the band of the null; see `trajtools.plots.autocorrelation`.

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

        return plots.autocorrelation(self, ax=ax)


@dataclass(frozen=True, eq=False)
class NodeCorrelation(Result):
    """Correlations between the egonets of nodes at one lag.

    Attributes
    ----------
    lag : int
        In states.
    covariance : ndarray of float64, shape (N, N)
        C(lag): entry (i, j) is the mean over time of the product of row i of the centred adjacency matrix with row j
        `lag` states later.
    correlation : ndarray of float64, shape (N, N)
        The same over the root of the product of the two nodes' variances; NaN for nodes that do not move.
    labels : tuple
        The nodes: numbers, or (node set, index).
    n_states, n_excluded : int
        States in the window; those that are not finite and were left out.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know before believing the numbers.
    """

    lag: int
    covariance: Floats
    correlation: Floats
    labels: tuple[Any, ...]
    n_states: int
    n_excluded: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Cycles(Result):
    """Whether a trajectory comes back at regular times.

    Attributes
    ----------
    kind : str
        ``"exact"``: every state is the one a period before, to the numerical floor; ``"bands"``: the states of one
        phase of the period are closer to each other than to those of any other; ``"approximate"``: they come back
        more closely than by chance, at all multiples of the period; ``"none"``.
    period : float
        In states; NaN for ``"none"``.
    time : float
        The same in `time_unit`.
    time_unit : str
        Unit of `time`.
    strength : float
        Autocorrelation at the multiples of the period, median; NaN for ``"none"``.
    sustained : float
        Its mean over the later half of the multiples over that of the earlier half: 1 for a period, towards 0 where
        the memory of the phase is lost.
    return_distance : float
        Distance of a state to the one a period later, median, over the typical distance of two states.
    reasons : tuple of str
        Why, in sentences with numbers.
    candidates : ndarray of float64, shape (C, 4)
        Every lag that was considered: period, strength, sustained, contrast to the lags between its multiples.
    lag : ndarray of int64, shape (L + 1,)
        Lags in states.
    values : ndarray of float64, shape (L + 1,)
        Autocorrelation at these lags.
    threshold : float
        Value beyond which a correlation is significant.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know before believing the period.
    """

    kind: str
    period: float
    time: float
    time_unit: str
    strength: float
    sustained: float
    return_distance: float
    reasons: tuple[str, ...]
    candidates: Floats
    lag: Ints
    values: Floats
    threshold: float
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in CYCLES:
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(CYCLES)}")

    def __str__(self) -> str:
        """Say the kind, the period and the reasons, one to a line; `repr` has every field."""
        head = self.kind if self.kind == "none" else f"{self.kind}, period {self.period:.6g} states"
        return "\n".join([head, *(f"- {words}" for words in (*self.reasons, *self.warnings))])
