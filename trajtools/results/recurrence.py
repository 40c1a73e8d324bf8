"""What a recurrence plot holds: its lines, and the measures made of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.recurrences.lines import Lines
from trajtools.results.plain import Result, to_plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trajtools.results.recurrence_views import RecurrenceIntervals, RecurrenceNetwork, WindowedRecurrence

MEASURES = (
    "RR", "DET", "L", "Lmax", "DIV", "ENTR", "LAM", "TT", "Vmax", "VENTR", "TREND", "MRT", "RTE", "NMPRT", "K2",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Measures(Result):
    """Measures of recurrence quantification; lengths and times in samples, entropies in nats.

    Attributes
    ----------
    RR : float
        Recurrence rate: recurrences over pairs of states.
    DET : float
        Determinism: share of the recurrences in diagonal lines of at least lmin.
    L : float
        Mean length of those lines.
    Lmax : int
        Longest diagonal line.
    DIV : float
        ``1 / Lmax``.
    ENTR : float
        Shannon entropy of the lengths of diagonal lines of at least lmin.
    LAM : float
        Laminarity: share of the recurrences in vertical lines of at least vmin.
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
        How often the most probable recurrence time occurs.
    K2 : float
        Estimate of the correlation entropy, 1 / unit of time: decay of the number of diagonal lines with their length.
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
        """Look a measure up by its name."""
        if name not in MEASURES:
            raise KeyError(f"no measure {name!r}; there are {', '.join(MEASURES)}")
        return float(getattr(self, name))


@dataclass(frozen=True, eq=False)
class Recurrence(Measures):
    """Recurrence quantification: the measures, and the lines they were made of.

    Attributes
    ----------
    RR, DET, L, Lmax, DIV, ENTR, LAM, TT, Vmax, VENTR, TREND, MRT, RTE, NMPRT, K2 : float
        See `Measures`.
    lines : Lines
        Histograms, from which `measures` makes the measures for other shortest lines.
    threshold : float
        Largest distance of a recurrence; NaN where every state has its own. Of a joint plot that of the first system.
    metric : str
        Name of the distance.
    kind : str
        ``"auto"``, ``"cross"`` or ``"joint"``.
    convention : str
        What the names mean.
    theiler : int, in samples
        Pairs closer in time do not count.
    n_excluded : int
        States (of the rows) with NaN or inf, which are left out.
    dt : float
        Time between two samples, in `time_unit`.
    time_unit : str
        Unit of time.
    settings : dict
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know before believing the numbers.
    plot_source : object
        What the recurrences are counted from again for windows, networks and plots; not part of `to_dict`.
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
    warnings: tuple[str, ...] = ()
    plot_source: Any = field(default=None, repr=False)

    def __str__(self) -> str:
        """Say the measures, one to a line; `repr` has every field."""
        head = f"{self.kind} recurrences of {self.lines.shape[0]} states, {self.convention} convention"
        return "\n".join([head, *(f"{name:6} {self[name]:.6g}" for name in MEASURES), *self.warnings])

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict that JSON can hold, without the states it was counted from.

        Returns
        -------
        dict
            One entry per field but `plot_source`. Arrays are lists, NaN and the infinities are None.
        """
        return {f.name: to_plain(getattr(self, f.name)) for f in fields(self) if f.name != "plot_source"}

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
        """Make the measures anew from the lines that were counted.

        Parameters
        ----------
        lmin, vmin, wmin : int or None, in samples
            Shortest diagonal and vertical lines and recurrence times that count; None: as before.
        border : str or None
            ``"keep"``, ``"discard"``, ``"longest"`` or ``"censi"``, see `trajtools.recurrence`; None: as before.
        semi : bool or None
            Whether lines with one end at the border are border lines as well; None: as before.
        trend_border : int or None, in samples
            Outermost lags that the trend leaves out; None: as before.

        Returns
        -------
        Measures
        """
        from trajtools.recurrences.quantities import measures_of

        given = {
            "lmin": lmin,
            "vmin": vmin,
            "wmin": wmin,
            "border": border,
            "semi": semi,
            "trend_border": trend_border,
        }
        return measures_of(self, {name: value for name, value in given.items() if value is not None})

    def windowed(self, size: int, step: int | None = None, *, each: bool = False) -> WindowedRecurrence:
        """Quantify the recurrences within windows of time.

        Parameters
        ----------
        size : int, in samples
            States of a window.
        step : int or None, in samples
            From one window to the next; None: half a window.
        each : bool
            Every window has a threshold of its own by the rule that was given, else all have that of the whole.

        Returns
        -------
        WindowedRecurrence

        Raises
        ------
        DataError
            If no window fits.
        """
        from trajtools.recurrences.windows import quantify_windows

        return quantify_windows(self, size, size // 2 or 1 if step is None else step, each=each)

    def network(self, *, max_edges: int = 5_000_000) -> Any:
        """Return the recurrence network: states are nodes, recurrences outside the Theiler window are edges.

        Parameters
        ----------
        max_edges : int
            A network with more edges is refused.

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
        from trajtools.recurrences.networks import to_networkx

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
            If the plot does not fit into 2 GiB as bits.
        """
        from trajtools.recurrences.networks import quantify_network

        return quantify_network(self)

    def bootstrap(
        self, *, n: int = 1000, level: float = 0.95, rng: np.random.Generator | int | None = None
    ) -> RecurrenceIntervals:
        """Give confidence intervals by drawing lines with replacement (Schinkel et al. 2009).

        Parameters
        ----------
        n : int
            Resamples.
        level : float
            Confidence level.
        rng : numpy.random.Generator, int or None
            Source of the draws, or its seed; None: seed 0.

        Returns
        -------
        RecurrenceIntervals
        """
        from trajtools.recurrences.resampling import resample_lines

        return resample_lines(self, n=n, level=level, rng=rng)

    def matrix(self, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """Return rows of the recurrence plot, with the line of identity and the Theiler window in it.

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
        from trajtools.recurrences.plot import read_rows

        return read_rows(self, start, stop)

    def plot(self, **options: Any) -> Any:
        """Draw the recurrence plot; see `trajtools.plots.recurrence`.

        Parameters
        ----------
        **options
            For `trajtools.plots.recurrence`.

        Returns
        -------
        matplotlib.axes.Axes
        """
        from trajtools.plots import recurrence

        return recurrence(self, **options)
