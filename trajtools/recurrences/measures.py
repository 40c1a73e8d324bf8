"""Measures of recurrence quantification: conventions, intervals, windows, the recurrence network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import log
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, TooLargeError, UnknownNameError
from trajtools.reasons import Reason
from trajtools.recurrences.lines import Lines, rows_at_a_time
from trajtools.recurrences.rows import unpack_rows
from trajtools.results import AxisNames, Result, import_optional, to_plain
from trajtools.statistics import fit_slope, random_generator
from trajtools.types import Floats, Ints
from trajtools.wording import bounds, counted, spoken

if TYPE_CHECKING:
    from pandas import DataFrame

# What each measure means, in a line.
MEASURES = {
    "RR": "recurrence rate: how often two states are close; fixed by the threshold rule, if that is a rate",
    "DET": "determinism: share of recurrences in diagonal lines; near 1 if close states stay close for a while",
    "L": "mean length of diagonal lines: how long close states stay close",
    "Lmax": "longest diagonal line; short if neighbours separate fast",
    "DIV": "1 / Lmax: large if neighbours separate fast; no exponent",
    "ENTR": "entropy of the lengths of diagonal lines: 0 if all are equal, large for complex motion",
    "LAM": "laminarity: share of recurrences in vertical lines; near 1 if states stand still or change slowly",
    "TT": "trapping time: mean length of vertical lines, that is, of standing still",
    "Vmax": "longest vertical line: the longest time of standing still",
    "VENTR": "entropy of the lengths of vertical lines",
    "TREND": "change of the recurrence rate with the lag: near 0 if stationary, negative if the trajectory drifts",
    "MRT": "mean recurrence time: how long until a state comes back",
    "RTE": "entropy of the recurrence times: small for a period, large for noise",
    "NMPRT": "how often the most frequent recurrence time occurs",
    "K2": "correlation entropy: rate at which predictability is lost; 0 for regular motion",
}


BORDERS = ("keep", "discard", "longest", "censi")


# Outermost lags at the corners of the plot, with too few cells for the trend.
TREND_BORDER = 10


# Fewest lines in the fitted tail of the cumulative distribution.
_FEWEST_LINES = 50


_THOUSAND = 1000.0
# Columns whose share of recurrences is counted for the vertical lines of chance: at least so many, and so many cells.
FEWEST_COLUMNS, MOST_CELLS = 100, 1_000_000
Counts = NDArray[Any]
_GROUPS = {"diagonal": ("DET", "L", "ENTR"), "vertical": ("LAM", "TT", "VENTR"), "times": (None, "MRT", "RTE")}
_LARGEST = 2 * 2**30
_SIMPLEX = float(np.log(3 / 4))
_LARGEST_MATRIX = 2**30  # bytes


@dataclass(frozen=True, eq=False, repr=False)
class Measures(Result):
    """Measures of recurrence quantification; lengths and times in samples, entropies in nats.

    Attributes
    ----------
    RR : float
        Recurrence rate: recurrences over pairs of states.
    DET : float
        Determinism: fraction of the recurrences in diagonal lines of at least lmin.
    L : float
        Mean length of those lines.
    Lmax : int
        Longest diagonal line.
    DIV : float
        ``1 / Lmax``.
    ENTR : float
        Shannon entropy of the lengths of diagonal lines of at least lmin.
    LAM : float
        Laminarity: fraction of the recurrences in vertical lines of at least vmin.
    TT : float
        Trapping time: mean length of those lines.
    Vmax : int
        Longest vertical line.
    VENTR : float
        Entropy of the lengths of vertical lines of at least vmin.
    TREND : float
        Change of the recurrence rate with the distance from the line of identity, per 1000 samples.
    MRT : float
        Mean recurrence time.
    RTE : float
        Entropy of the recurrence times.
    NMPRT : int
        Number of occurrences of the most probable recurrence time.
    K2 : float
        Estimate of the correlation entropy, 1 / unit of time: decay rate of the number of diagonal lines with length.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> result = tt.recurrence(x, dim=2, delay=8)
    >>> round(result.measures(lmin=5).DET, 2)
    1.0
    """

    RR: float
    DET: float
    L: float
    Lmax: int
    DIV: float
    ENTR: float
    LAM: float
    TT: float
    Vmax: int
    VENTR: float
    TREND: float
    MRT: float
    RTE: float
    NMPRT: int
    K2: float

    def __getitem__(self, name: str) -> float:
        """Return a measure by its name."""
        if name not in MEASURES:
            raise KeyError(f"no measure {name!r}; there are {', '.join(MEASURES)}")
        return float(getattr(self, name))

    def _sentence(self) -> str:
        return ", ".join(f"{name} {spoken(self[name], 3)}" for name in ("RR", "DET", "L", "LAM", "TT")) + "."

    def _lines(self) -> Sequence[str]:
        return [f"{name:6}{_cell(self[name]):>10}  {meaning}" for name, meaning in MEASURES.items()]

    def _facts(self) -> Sequence[tuple[str, ...]]:
        return [(name, _cell(self[name]), meaning) for name, meaning in MEASURES.items()]

    def to_dataframe(self) -> DataFrame:
        """Convert the measures to a table of pandas.

        Returns
        -------
        pandas.DataFrame
            One row per measure: its name, its value, and its meaning in a line.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        rows = [(name, self[name], meaning) for name, meaning in MEASURES.items()]
        return import_optional("pandas").DataFrame(rows, columns=["measure", "value", "meaning"])


def _cell(value: float) -> str:
    """A measure in a table; counts as such."""
    return f"{value:,}" if isinstance(value, (int, np.integer)) else spoken(value)


@dataclass(frozen=True, eq=False, repr=False)
class Recurrence(Measures):
    """Recurrence quantification: the measures, and the histograms of lines.

    Attributes
    ----------
    RR, DET, L, Lmax, DIV, ENTR, LAM, TT, Vmax, VENTR, TREND, MRT, RTE, NMPRT, K2 : float
        See `Measures`.
    lines : Lines
        Histograms, from which `measures` recomputes the measures with other options.
    threshold : float
        Largest distance of a recurrence; NaN if every state has its own. For a joint plot, that of the first system.
    metric : str
        Name of the distance.
    kind : str
        ``"auto"``, ``"cross"`` or ``"joint"``.
    convention : str
        Convention of the measures.
    theiler : int, in samples
        Pairs closer in time do not count.
    n_excluded : int
        Excluded states (of the rows), with NaN or inf.
    dt : float
        Time between two samples, in `time_unit`.
    time_unit : str
        Unit of time.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.
    plot_source : object
        Source of the recurrences for windows, networks and plots; not part of `to_dict`.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> result = tt.recurrence(x, dim=2, delay=8)
    >>> round(result.RR, 3), round(result.DET, 1)
    (0.05, 1.0)
    """

    lines: Lines
    threshold: float
    metric: str
    kind: str
    convention: str
    theiler: int
    n_excluded: int
    dt: float
    time_unit: str
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    plot_source: Any = None

    def _sentence(self) -> str:
        rows, columns = self.lines.shape
        size = counted(rows, "state") if self.kind == "auto" else f"{rows} x {columns} states"
        return f"{self.kind} recurrences of {size} ({self.metric}, {self.convention} convention)."

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a JSON-serialisable dict, without the states.

        Returns
        -------
        dict
            One entry per field but `plot_source`. Arrays are lists, NaN and the infinities are None.
        """
        return {f.name: to_plain(getattr(self, f.name)) for f in fields(self) if f.name != "plot_source"}

    def in_random_order(self) -> dict[str, float]:
        r"""Line measures of the same number of recurrences, if the states came in random order.

        Returns
        -------
        dict of str to float
            ``"DET"``, ``"L"``, ``"LAM"`` and ``"TT"``; where the measures do not exceed them, lines say nothing about
            motion. LAM and TT are NaN unless i recurs with j where j does with i, and in the conventions of
            "pyunicorn" and "pyrqa".

        Notes
        -----
        For independent states, the recurrences along a diagonal are independent with probability p, the recurrence rate
        outside the Theiler window. A diagonal of n cells then holds n p of them, in p + (n - 1) p (1 - p) lines, and

        .. math:: E_l = p^l (1 - p) (2 + (n - l - 1) (1 - p)), \qquad E_n = p^n

        lines of l < n, and of n states. The measures are ratios of such expectations, summed over the diagonals. NaN
        where no line of ``lmin`` states can be. Vertical lines alike, with the recurrence rate of each column, on both
        sides of the Theiler window: states where the trajectory is dense have more recurrences, and longer lines by
        chance. Of long trajectories, columns at equal distances are taken.
        """
        recurrences, cells = self.lines.outside(self.theiler)
        rate = recurrences / cells if cells else float("nan")
        diagonals = self.lines.cells_outside(self.theiler)
        det, length = _by_chance(diagonals, np.full(len(diagonals), rate), int(self.settings["lmin"]))
        lam, trapping = _by_chance(*_columns(self), int(self.settings["vmin"]))
        return {"DET": det, "L": length, "LAM": lam, "TT": trapping}

    def _lines(self) -> Sequence[str]:
        null = self.in_random_order()
        ends = {name: f" [in random order {value:.3g}]" for name, value in null.items() if not np.isnan(value)}
        return [line + ends.get(line.split()[0], "") for line in super()._lines()]

    def _facts(self) -> Sequence[tuple[str, ...]]:
        null = self.in_random_order()
        head = ("measure", "value", "in random order", "meaning")
        return [head, *((n, v, spoken(null[n], 3) if n in null else "", m) for n, v, m in super()._facts())]

    def measures(
        self,
        *,
        lmin: int | None = None,
        vmin: int | None = None,
        wmin: int | None = None,
        border: str | None = None,
        semi: bool | None = None,
        trend_border: int | None = None,
    ) -> Measures:
        """Recompute the measures from the lines with other options.

        Parameters
        ----------
        lmin, vmin, wmin : int or None, in samples
            Shortest diagonal and vertical lines and recurrence times that count; None: unchanged.
        border : str or None
            ``"keep"``, ``"discard"``, ``"longest"`` or ``"censi"``, see `trajtools.recurrence`; None: unchanged.
        semi : bool or None
            Whether lines with one end at the border are border lines, too; None: unchanged.
        trend_border : int or None, in samples
            Outermost lags excluded from the trend; None: unchanged.

        Returns
        -------
        Measures
        """
        options = {
            "lmin": lmin,
            "vmin": vmin,
            "wmin": wmin,
            "border": border,
            "semi": semi,
            "trend_border": trend_border,
        }
        return measures_of(self, {name: value for name, value in options.items() if value is not None})

    def windowed(self, size: int, step: int | None = None, *, each: bool = False) -> WindowedRecurrence:
        """Quantify the recurrences within windows of time.

        Parameters
        ----------
        size : int, in samples
            Size of a window, in states.
        step : int or None, in samples
            Distance of consecutive windows; None: half a window.
        each : bool
            Apply the threshold rule to every window; else use the threshold of the whole record.

        Returns
        -------
        WindowedRecurrence

        Raises
        ------
        DataError
            If no window fits.
        """
        return quantify_windows(self, size, size // 2 or 1 if step is None else step, each=each)

    def network(self, *, max_edges: int = 5_000_000) -> Any:
        """Return the recurrence network: states are nodes, recurrences outside the Theiler window are edges.

        Parameters
        ----------
        max_edges : int
            Raise for more edges.

        Returns
        -------
        networkx.Graph
            Nodes are the indices of the finite states. A `networkx.DiGraph` where the plot is not symmetric.

        Raises
        ------
        TooLargeError
            If there are more edges.
        DataError
            If rows and columns are different systems.
        """
        return to_networkx(self, max_edges)

    def network_measures(self) -> RecurrenceNetwork:
        """Quantify the recurrence network.

        Returns
        -------
        RecurrenceNetwork

        Raises
        ------
        DataError
            If the plot is not symmetric.
        TooLargeError
            If the bits of the plot exceed 2 GiB.
        """
        return quantify_network(self)

    def bootstrap(
        self, *, n: int = 1000, level: float = 0.95, rng: np.random.Generator | int | None = None
    ) -> RecurrenceIntervals:
        """Compute confidence intervals by bootstrapping lines (Schinkel et al. 2009).

        Parameters
        ----------
        n : int
            Number of resamples.
        level : float
            Confidence level.
        rng : numpy.random.Generator, int or None
            Generator of the resamples, or its seed; None: seed 0.

        Returns
        -------
        RecurrenceIntervals
        """
        return resample_lines(self, n=n, level=level, rng=rng)

    def matrix(self, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """Return rows of the recurrence plot, including the line of identity and the Theiler window.

        Parameters
        ----------
        start, stop : int or None
            Rows; None: to the end.

        Returns
        -------
        ndarray of bool, shape (t, S)

        Raises
        ------
        TooLargeError
            If they take more than 1 GiB.
        """
        return _read_rows(self, start, stop)

    def image(self, pixels: int = 800, *, distances: bool = False) -> Floats:
        """Average the recurrence plot, or its distances, over equal cells.

        Parameters
        ----------
        pixels : int
            Largest number of cells per side; at most one per state.
        distances : bool
            Average the distances instead of the recurrences.

        Returns
        -------
        ndarray of float64, shape (at most pixels, at most pixels)
            Fraction of recurrences, or mean distance, in each cell; NaN where all states are excluded. The line of
            identity and the Theiler window are included.
        """
        return _average_cells(self.plot_source, pixels, distances)

    def plot(self, **options: Any) -> Any:
        """Draw the recurrence plot; see `trajtools.plots.recurrence`.

        Parameters
        ----------
        **options
            Options of `trajtools.plots.recurrence`.

        Returns
        -------
        matplotlib.axes.Axes
        """
        from trajtools.plots import recurrence

        return recurrence(self, **options)


@dataclass(frozen=True, eq=False, repr=False)
class WindowedRecurrence(Result):
    """Measures of recurrence quantification in windows of time.

    Attributes
    ----------
    start : ndarray of int64, shape (W,)
        First state of each window.
    time : ndarray of float64, shape (W,)
        Centre of each window, in `time_unit`.
    values : dict of str to ndarray of float64, shape (W,)
        Every measure by its name; NaN in a window with fewer than two finite states.
    threshold : ndarray of float64, shape (W,)
        Threshold of each window.
    size, step : int, in samples
        Size and distance of the windows.
    time_unit : str
        Unit of time.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> windows = tt.recurrence(x, dim=2, delay=8).windowed(100)
    >>> windows.start.tolist(), windows.values["DET"].shape
    ([0, 50, 100, 150, 200, 250], (6,))
    """

    start: Ints
    time: Floats
    values: dict[str, Floats]
    threshold: Floats
    size: int
    step: int
    time_unit: str
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {"values": ("time",), "start": ("time",), "threshold": ("time",)}

    def _sentence(self) -> str:
        rates = self.values["RR"]
        known = rates[np.isfinite(rates)]
        text = f"{counted(len(self.start), 'window')} of {self.size} states"
        return (
            f"{text}; RR from {known.min():.3g} to {known.max():.3g}." if len(known) else f"{text}, none with values."
        )

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, name: str) -> Floats:
        """Return the values of a measure by its name."""
        return self.values[name]


@dataclass(frozen=True, eq=False, repr=False)
class RecurrenceNetwork(Result):
    """Measures of a recurrence network: nodes are finite states, edges recurrences outside the Theiler window.

    Attributes
    ----------
    n_nodes, n_edges : int
        Numbers of nodes and edges.
    density : float
        Edges over pairs of nodes.
    transitivity : float
        Closed pairs of neighbours over all pairs; NaN if no node has two neighbours.
    average_clustering : float
        Mean local clustering; nodes with fewer than two neighbours count as zero.
    transitivity_dimension : float
        ``log(transitivity) / log(3 / 4)``: dimension of the attractor in the maximum norm (Donner et al. 2011).
    degree : ndarray of int64, shape (T,)
        Neighbours of each state; 0 for those that are not finite.
    clustering : ndarray of float64, shape (T,)
        Local clustering; NaN for states with fewer than two neighbours.
    settings : dict
        All parameters used.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> network = tt.recurrence(x, dim=2, delay=8).network_measures()
    >>> 0 < network.transitivity <= 1
    True
    """

    n_nodes: int
    n_edges: int
    density: float
    transitivity: float
    average_clustering: float
    transitivity_dimension: float
    degree: Ints
    clustering: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    _dims: ClassVar[AxisNames] = {"degree": ("node",), "clustering": ("node",)}

    def _sentence(self) -> str:
        return (
            f"{counted(self.n_nodes, 'node')}, {counted(self.n_edges, 'edge')}; transitivity "
            f"{spoken(self.transitivity)} (dimension {spoken(self.transitivity_dimension)}), mean clustering "
            f"{spoken(self.average_clustering)}."
        )


@dataclass(frozen=True, eq=False, repr=False)
class RecurrenceIntervals(Result):
    """Confidence intervals of measures, from a bootstrap of lines.

    Attributes
    ----------
    intervals : dict of str to (float, float)
        Of DET, L, ENTR, LAM, TT, VENTR, MRT and RTE: percentiles of the resamples.
    level : float
        Confidence level.
    n : int
        Number of resamples.
    settings : dict
        Numbers of resampled lines, and conventions.
    warnings : tuple of Reason
        Caveats of the intervals.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> result = tt.recurrence(x, dim=2, delay=8).bootstrap(n=100)
    >>> len(result.intervals["DET"]), result.level
    (2, 0.95)
    """

    intervals: dict[str, tuple[float, float]]
    level: float
    n: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()

    def _sentence(self) -> str:
        ends = ", ".join(f"{name} {bounds(self.intervals[name])}" for name in ("DET", "L", "LAM", "TT"))
        return f"{self.level:.0%} intervals from {counted(self.n, 'resample')} of lines: {ends}."

    def _facts(self) -> Sequence[tuple[str, ...]]:
        return [(name, bounds(ends), MEASURES[name]) for name, ends in self.intervals.items()]

    def to_dataframe(self) -> DataFrame:
        """Convert the intervals to a table of pandas.

        Returns
        -------
        pandas.DataFrame
            One row per measure: its name, both ends of its interval, and its meaning in a line.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        rows = [(name, *ends, MEASURES[name]) for name, ends in self.intervals.items()]
        return import_optional("pandas").DataFrame(rows, columns=["measure", "low", "high", "meaning"])

    def __getitem__(self, name: str) -> tuple[float, float]:
        """Return the interval of a measure by its name."""
        return self.intervals[name]


def measures_of(result: Recurrence, changed: dict[str, Any]) -> Measures:
    """Measures of a result with changed options; see `Recurrence.measures`."""
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
    """Compute all measures; see `trajtools.recurrence` for their definitions."""
    wmin = convention.wmin if wmin is None else wmin
    for name, value in (("lmin", lmin), ("vmin", vmin), ("wmin", wmin)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise DataError(f"{name}={value!r}: the minimum line length must be a whole number, at least 1")
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


@dataclass(frozen=True)
class Convention:
    """Conventions for counting recurrences and lines, and for the measures.

    Attributes
    ----------
    name : str
        Package, or ``"standard"``.
    inclusive : bool
        Recurrence is distance <= threshold, else distance < threshold.
    everywhere : bool
        The Theiler window applies to every measure, else to diagonal lines only: recurrence rate and vertical lines
        then include the line of identity and its neighbourhood.
    least_window, largest_window : int or None, in samples
        Smallest and largest Theiler window of the package; None: no bound.
    epsilon : float
        Added to every denominator.
    none : float
        Mean length without lines.
    no_entropy : float
        Entropy without lines.
    no_share : float
        Fractions without recurrences.
    times : str
        Recurrence times: ``"entries"``: from the start of a vertical line to the start of the next in the same column,
        on the same side of the Theiler window; ``"middles"``: the white cells between two lines and half of each,
        rounded down, also across the window; ``"white"``: all white vertical lines, also those cut by a border.
    wmin : int, in samples
        Shortest recurrence time that counts.
    trend : str
        ``"least-squares"``, or ``"shifted"``: the formula of the package, with lags centred half a lag too low.
    """

    name: str
    inclusive: bool = True
    everywhere: bool = True
    least_window: int = 0
    largest_window: int | None = None
    epsilon: float = 0.0
    none: float = float("nan")
    no_entropy: float = float("nan")
    no_share: float = float("nan")
    times: str = "entries"
    wmin: int = 1
    trend: str = "least-squares"

    def windows(self, theiler: int) -> tuple[int, int]:
        """Theiler windows of diagonal and of vertical lines."""
        return theiler, theiler if self.everywhere else 0

    def check_window(self, theiler: int) -> None:
        """Raise if the package does not support a Theiler window."""
        largest = self.largest_window
        if theiler < self.least_window or (largest is not None and theiler > largest):
            raise DataError(
                f"convention {self.name!r} supports theiler={self.least_window} only; theiler={theiler} needs "
                "convention 'standard'"
            )


def trend(lines: Lines, theiler: int, trend_border: int, convention: Convention) -> float:
    """Change of the recurrence rate with the lag, per 1000 samples; NaN for fewer than two lags."""
    rates = lag_rates(lines)
    lags = np.arange(theiler, max(len(rates) - trend_border, theiler))
    rates = rates[theiler : theiler + len(lags)]
    finite = np.isfinite(rates)
    if not finite.all():
        lags, rates = lags[finite], rates[finite]
    if len(lags) < 2:
        return float("nan")
    if convention.trend == "least-squares":
        return _THOUSAND * fit_slope(lags, rates).slope
    # The package counts lags from 1 and centres them half a lag too low.
    offset = lags + 1 - (lags[-1] + 1 + theiler) / 2
    return _THOUSAND * float(offset @ (rates - rates.mean())) / float(offset @ offset)


def lag_rates(lines: Lines) -> Floats:
    """Fraction of recurrent cells at every distance 0, 1, ... from the line of identity, in the largest square."""
    middle, size = lines.shape[1] - 1, min(lines.shape)
    recurrent, cells = (
        np.append(each[middle], each[middle + 1 : middle + size] + each[middle - size + 1 : middle][::-1])
        for each in (lines.square_recurrences, lines.square_cells)
    )
    with np.errstate(invalid="ignore"):  # NaN without cells
        return np.asarray(recurrent / cells)


def correct_border(lines: Lines, border: str, *, semi: bool, symmetric: bool) -> Ints:
    """Diagonal lines, corrected for those cut by the border of the plot (Kraemer and Marwan 2019)."""
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


def line_measures(lengths: Counts, least: int, convention: Convention) -> tuple[float, float, float, int]:
    """Fraction of cells in long lines, mean length of these lines, and entropy of the lengths."""
    from trajtools._kernels.recurrence_lines import summarize

    cells, number, logs, of_all, longest = summarize(lengths, least)
    share = cells / (of_all + convention.epsilon) if of_all else convention.no_share
    if not number:
        return share, convention.none, convention.no_entropy, longest
    # Minus the sum of p ln p, with p = n / total.
    total = number + convention.epsilon
    entropy = max((number * log(total) - logs) / total, 0.0)
    return share, cells / total, entropy, longest


def correlation_entropy(diagonal: Counts, lmin: int, dt: float) -> float:
    """Decay rate of the number of diagonal lines with length, per unit of time; NaN with fewer than two lengths.

    Least squares on the logarithm of the number of lines of at least length l, from lmin to the last length with 50
    lines.
    """
    longer = np.cumsum(diagonal[::-1])[::-1].astype(np.float64)
    lengths = np.arange(lmin, len(diagonal))
    lengths = lengths[longer[lmin:] >= _FEWEST_LINES] if len(lengths) else lengths
    if len(lengths) < 2:
        return float("nan")
    return -fit_slope(lengths * dt, np.log(longer[lengths])).slope


def find_convention(name: str) -> Convention:
    """Return a convention by its name."""
    if name not in CONVENTIONS:
        raise UnknownNameError(f"convention {name!r} is none of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def quantify_windows(result: Recurrence, size: int, step: int, *, each: bool) -> WindowedRecurrence:
    """Quantify windows of a recurrence plot along its line of identity; see `Recurrence.windowed`."""
    for name, value in (("size", size), ("step", step)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise DataError(f"{name}={value!r}: it must be a whole number of samples, at least 1")
    length = min(result.lines.shape)
    least = max(result.theiler, 1) + 2
    if not least <= size <= length:
        raise DataError(
            f"a window of {size} states: it takes between {least} states (theiler={result.theiler}) and all {length}"
        )
    start = np.arange(0, length - size + 1, step, dtype=np.int64)
    quantified = [_one(result, int(a), int(a) + size, each) for a in start]
    n_excluded = int(np.count_nonzero(~result.plot_source.finite[0]))
    empty = sum(measures is None for measures, _ in quantified)
    values = {
        name: np.array([np.nan if m is None else float(m[name]) for m, _ in quantified], dtype=np.float64)
        for name in MEASURES
    }
    text = "{empty} of {windows} windows have fewer than two finite states"
    warnings = (Reason.of("empty-windows", text, empty=empty, windows=len(start)),) if empty else ()
    return WindowedRecurrence(
        start=start,
        time=np.asarray((start + (size - 1) / 2) * result.dt, dtype=np.float64),
        values=values,
        threshold=np.array([level for _, level in quantified], dtype=np.float64),
        size=int(size),
        step=int(step),
        time_unit=result.time_unit,
        settings=result.settings | {"each": each, "n_excluded": n_excluded},
        warnings=warnings,
    )


def _one(result: Recurrence, start: int, stop: int, each: bool) -> tuple[Any, float]:
    """Measures and threshold of one window; None with too few states."""
    rules = find_convention(result.convention)
    plot = result.plot_source.part(start, stop)
    rows, columns = plot.finite
    lags = np.flatnonzero(rows)[:, None] - np.flatnonzero(columns)[None]
    if not np.any(np.abs(lags) >= max(result.theiler, 0 if result.kind == "cross" else 1)):
        return None, float("nan")
    if each:
        plot = plot.with_own_threshold(result.theiler)
    lines = plot.count(rules.windows(result.theiler), rules.times == "middles")
    options = {name: result.settings[name] for name in ("lmin", "vmin", "wmin", "border", "semi", "trend_border")}
    measures = measure(
        lines,
        rules,
        theiler=result.theiler,
        symmetric=plot.symmetric,
        cross=result.kind == "cross",
        dt=result.dt,
        **options,
    )
    return measures, plot.level()


def to_networkx(result: Recurrence, max_edges: int) -> Any:
    """Return the network as a graph; see `Recurrence.network`."""
    import networkx as nx

    _refuse_cross(result)
    directed = not result.settings["symmetric"]
    recurrences, _ = result.lines.outside(max(result.theiler, 1))
    edges = recurrences if directed else recurrences // 2
    if edges > max_edges:
        raise TooLargeError(
            f"the recurrence network has {edges} edges, more than max_edges={max_edges}; raise it, lower the "
            "threshold, or use network_measures(), which builds no graph"
        )
    finite = result.plot_source.finite[0]
    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_nodes_from(np.flatnonzero(finite).tolist())
    for start in range(0, len(finite), rows_at_a_time(len(finite))):
        stop = min(start + rows_at_a_time(len(finite)), len(finite))
        i, j = np.nonzero(unpack_rows(adjacency_bits(result, start, stop), len(finite)))
        i += start
        upper = slice(None) if directed else i < j
        graph.add_edges_from(zip(i[upper].tolist(), j[upper].tolist(), strict=True))
    return graph


def _refuse_cross(result: Recurrence) -> None:
    if result.kind == "cross" or result.lines.shape[0] != result.lines.shape[1]:
        raise DataError("a recurrence network has one set of states; cross recurrences have two")


def _by_chance(n: Any, rate: Floats, shortest: int) -> tuple[float, float]:
    """Share of points in long lines, and their mean length: lines of n cells, each recurring with its own rate."""
    p, q = rate, 1 - rate
    points, lines = n * p, p + (n - 1) * p * q
    all_points = float(points.sum())
    for length in range(1, shortest):
        expected = np.where(n > length, p**length * q * (2 + (n - length - 1) * q), np.where(n == length, p**length, 0))
        points, lines = points - length * expected, lines - expected
    possible = n >= shortest
    if not possible.any() or not all_points > 0:
        return float("nan"), float("nan")
    long_points = float(points.sum())
    return long_points / all_points, long_points / float(lines[possible].sum())


def _columns(result: Recurrence) -> tuple[Ints, Floats]:
    """Cells on either side of the Theiler window of columns, and their share of recurrences; empty where unknown."""
    nothing = np.empty(0, dtype=np.int64), np.empty(0)
    known = result.settings["symmetric"] and result.kind != "cross" and result.theiler > 0
    if not known or not find_convention(result.convention).everywhere:
        return nothing
    finite = result.plot_source.finite[0]
    places = np.flatnonzero(finite)
    most = max(FEWEST_COLUMNS, MOST_CELLS // max(len(finite), 1))
    cells, rates = [], []
    for at in places[np.unique(np.linspace(0, len(places) - 1, min(len(places), most)).round().astype(int))]:
        row = unpack_rows(adjacency_bits(result, int(at), int(at) + 1), len(finite))[0]
        before, after = int(finite[: max(at - result.theiler + 1, 0)].sum()), int(finite[at + result.theiler :].sum())
        sides = [count for count in (before, after) if count]
        cells += sides
        rates += [row.sum() / (before + after) for _ in sides]
    return (np.array(cells), np.array(rates)) if cells else nothing


def adjacency_bits(result: Recurrence, start: int, stop: int) -> Any:
    """Rows of the adjacency matrix as bits, without loops."""
    from trajtools.recurrences.rows import pack_rows

    rows, columns = result.plot_source.finite
    flags = unpack_rows(result.plot_source.bits(start, stop), len(columns))
    i, j = np.arange(start, stop)[:, None], np.arange(len(columns))
    flags &= rows[start:stop, None] & columns & (np.abs(i - j) >= max(result.theiler, 1))
    return pack_rows(flags)


def quantify_network(result: Recurrence) -> RecurrenceNetwork:
    """Compute the measures of the network from the bits of the plot; see `Recurrence.network_measures`."""
    from trajtools._kernels.recurrence_rows import shared_neighbors

    _refuse_cross(result)
    if not result.settings["symmetric"]:
        raise DataError(
            "the measures need an undirected network; with a fixed number of neighbours the recurrence network is "
            "directed: use another threshold, or network()"
        )
    finite = result.plot_source.finite[0]
    length, text = len(finite), -(-len(finite) // 64)
    if 8 * length * text > _LARGEST:
        raise TooLargeError(
            f"the plot of {length} states takes {8 * length * text / 2**30:.1f} GiB as bits, more than "
            f"{_LARGEST / 2**30:.0f}; thin the states or select a window"
        )
    bits = np.empty((length, text), dtype=np.uint64)
    for start in range(0, length, rows_at_a_time(length)):
        stop = min(start + rows_at_a_time(length), length)
        bits[start:stop] = adjacency_bits(result, start, stop)
    closed, degree = shared_neighbors(bits)
    pairs = degree * (degree - 1) // 2
    n_nodes = int(np.count_nonzero(finite))
    n_edges = int(degree.sum()) // 2
    with np.errstate(invalid="ignore", divide="ignore"):
        clustering = closed / pairs
        transitivity = float(np.float64(closed.sum()) / pairs.sum())
        dimension = float(np.log(transitivity) / _SIMPLEX)
    return RecurrenceNetwork(
        n_nodes=n_nodes,
        n_edges=n_edges,
        density=2 * n_edges / (n_nodes * (n_nodes - 1)),
        transitivity=transitivity,
        average_clustering=float(np.where(pairs > 0, closed / np.maximum(pairs, 1), 0.0)[finite].mean()),
        transitivity_dimension=dimension,
        degree=degree,
        clustering=clustering,
        settings={"threshold": result.threshold, "theiler": max(result.theiler, 1), "metric": result.metric},
    )


def resample_lines(
    result: Recurrence, *, n: int, level: float, rng: np.random.Generator | int | None
) -> RecurrenceIntervals:
    """Bootstrap the lines and their measures; see `Recurrence.bootstrap`.

    Notes
    -----
    A symmetric plot has every diagonal line twice, and every vertical line also as a horizontal one: half as many
    diagonal lines are drawn. Lines are drawn as if independent. Neighbouring lines are not: the intervals are too
    narrow for smooth motion, and do not apply to another part of the trajectory.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 100:
        raise DataError(f"n={n!r}: percentiles need at least 100 resamples")
    if not 0 < level < 1:
        raise DataError(f"level={level!r}: it must lie between 0 and 1")
    source = random_generator(rng)
    rules, symmetric = find_convention(result.convention), bool(result.settings["symmetric"])
    options = result.settings
    lengths = {
        "diagonal": correct_border(result.lines, options["border"], semi=options["semi"], symmetric=symmetric),
        "vertical": result.lines.vertical,
        "times": recurrence_times(result.lines, rules),
    }
    least = {"diagonal": options["lmin"], "vertical": options["vmin"], "times": options["wmin"]}
    intervals, numbers = {}, {}
    tail = (1 - level) / 2
    for group, names in _GROUPS.items():
        halves = 2 if group == "diagonal" and symmetric else 1
        number = int(lengths[group].sum()) // halves
        numbers[group] = number
        values = np.full((n, 3), np.nan)
        if number:
            for row, counts in enumerate(_draw(lengths[group], number, int(n), source)):
                values[row] = line_measures(counts, least[group], rules)[:3]
        for column, name in enumerate(names):
            if name is not None:
                intervals[name] = _percentiles(values[:, column], tail)
    return RecurrenceIntervals(
        intervals=intervals,
        level=float(level),
        n=int(n),
        settings={"lines": numbers, "symmetric": symmetric, "convention": result.convention},
        warnings=(
            Reason(
                "dependent-lines",
                "lines are resampled as if independent: for smooth motion the intervals are too narrow",
            ),
        ),
    )


def _draw(lengths: Ints, number: int, n: int, rng: np.random.Generator) -> Ints:
    """Resampled histograms of lengths, (n, lengths), from a multinomial distribution."""
    return rng.multinomial(number, lengths / lengths.sum(), size=n)


def _percentiles(values: Floats, tail: float) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def _read_rows(result: Recurrence, start: int, stop: int | None) -> NDArray[np.bool_]:
    """Read rows of the plot of a result; see `Recurrence.matrix`."""
    source = result.plot_source
    rows, columns = source.shape
    start, stop, _ = slice(start, stop).indices(rows)
    if (stop - start) * columns > _LARGEST_MATRIX:
        raise TooLargeError(
            f"{stop - start} rows of {columns} recurrences take more than {_LARGEST_MATRIX // 2**30} GiB; read fewer "
            "rows at a time with matrix(start, stop)"
        )
    flags = unpack_rows(source.bits(start, max(stop, start)), columns)
    rows_finite, columns_finite = source.finite
    return flags & rows_finite[start:stop, None] & columns_finite


def _average_cells(source: Any, pixels: int, distances: bool) -> Floats:
    """Fractions of recurrences, or mean distances, per cell; NaN where all states are excluded."""
    rows, columns = source.shape
    row_cells, column_cells = min(rows, pixels), min(columns, pixels)
    row_of = np.arange(rows) * row_cells // rows
    starts = np.searchsorted(np.arange(columns) * column_cells // columns, np.arange(column_cells))
    finite_rows, finite_columns = source.finite
    total, number = np.zeros((row_cells, column_cells)), np.zeros((row_cells, column_cells))
    step = rows_at_a_time(columns)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        good = finite_rows[start:stop, None] & finite_columns
        values = source.distances(start, stop) if distances else unpack_rows(source.bits(start, stop), columns)
        np.add.at(total, row_of[start:stop], np.add.reduceat(np.where(good, values, 0.0), starts, axis=1))
        np.add.at(number, row_of[start:stop], np.add.reduceat(good.astype(np.float64), starts, axis=1))
    with np.errstate(invalid="ignore"):
        return total / number


CONVENTIONS = {
    "standard": Convention("standard"),
    "pyunicorn": Convention(
        "pyunicorn",
        inclusive=False,
        everywhere=False,
        least_window=1,
        largest_window=1,
        epsilon=1e-8,
        none=0.0,
        no_entropy=0.0,
        no_share=0.0,
        times="white",
    ),
    "pyrqa": Convention("pyrqa", inclusive=False, everywhere=False, no_entropy=0.0, times="white", wmin=2),
    "recurrenceanalysis": Convention("recurrenceanalysis", none=0.0, no_share=0.0, times="middles", trend="shifted"),
}
