"""Recurrence quantification analysis: when a trajectory returns to an earlier state, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError
from trajtools.inputs import takes_states
from trajtools.neighbors.rules import RecurrenceRate
from trajtools.reasons import Reason
from trajtools.recurrences.lines import Lines
from trajtools.recurrences.measures import TREND_BORDER, Convention, Recurrence, find_convention, measure
from trajtools.recurrences.rows import PlotOptions, build_plot, sampling
from trajtools.recurrences.thresholds import fixed
from trajtools.trajectory import StatesLike
from trajtools.types import Bools, TimeStepLike
from trajtools.values import not_finite, training_steps

if TYPE_CHECKING:
    from trajtools.distances.metric import MetricLike

# Least mean time between states that recur, relative to that between all states.
RETURNS = 0.5
# If a larger fraction of states recurs with the next one, lines reflect the sampling density.
_TANGENTIAL = 0.9


_FIVE_PERCENT = RecurrenceRate(0.05)
Rule = Any


@takes_states("x", "y")
def recurrence(
    x: StatesLike | Distances,
    *,
    y: StatesLike | None = None,
    kind: str | None = None,
    threshold: Rule = _FIVE_PERCENT,
    theiler: int | None = None,
    convention: str = "standard",
    metric: MetricLike = "l2",
    scale: str | None = None,
    dim: int = 1,
    delay: int = 1,
    lmin: int = 2,
    vmin: int = 2,
    wmin: int | None = None,
    border: str = "keep",
    semi: bool = False,
    trend_border: int = TREND_BORDER,
    dt: TimeStepLike = None,
) -> Recurrence:
    r"""Quantify the recurrences of one trajectory or between two.

    Parameters
    ----------
    x : array_like, Trajectory or Distances, shape (T,), (T, d) or (T, S)
        States; or distances, as `Distances` or with ``metric="precomputed"``.
    y : array_like, Trajectory or None
        States of a second system, for cross and joint recurrences.
    kind : str or None
        ``"auto"``: state i of x recurs with state j of x. ``"cross"``: with state j of y. ``"joint"``: with state j of
        x, while state i of y recurs with state j of y. None: ``"auto"``, or ``"cross"`` with y or with distances of two
        systems (certain if not square).
    threshold : float, WithinRadius, ScaledRadius, RecurrenceRate, NearestK, or a pair of them
        Which states recur: those within a distance, within a multiple of the size of the trajectory, a fixed fraction
        of all pairs (exact, outside the Theiler window), or a fixed number of neighbours of each state. For a joint
        plot each system may have its own.
    theiler : int or None, in samples
        Pairs closer in time do not count; 1 excludes the line of identity. None: 1, and 0 for cross
        recurrences.
    convention : str
        ``"standard"``, ``"pyunicorn"``, ``"pyrqa"`` or ``"recurrenceanalysis"``: definitions of the measures, see
        Notes.
    metric : str, callable or Metric
        ``"l2"``, ``"linf"``, ``"l1"``, or another one of `METRICS`; ``"precomputed"``: x holds distances. In other
        metrics, and for states of over 128 coordinates if the distances need no more memory than the states, all
        distances are computed first, see `pairwise`.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    dim, delay : int
        Embedding of x (and y): dimension and delay in samples; dim=1: no embedding.
    lmin, vmin, wmin : int, in samples
        Shortest diagonal lines, vertical lines and recurrence times that count; `Recurrence.measures` changes them
        later. wmin None: 1, for "pyrqa" 2.
    border : str
        Diagonal lines that end at the border of the plot are truncated. ``"keep"``: count them unchanged.
        ``"discard"``: exclude them. ``"longest"``: exclude all but the longest. ``"censi"``: set all to the length of
        the longest [3]_ [4]_.
    semi : bool
        Whether lines with one end at the border count as truncated, else only those with both.
    trend_border : int, in samples
        Number of lags at the corners of the plot excluded from the trend.
    dt : float, duration, array_like or None
        Time between two samples: a number, a duration (``"1h"``, `numpy.timedelta64`, `pandas.Timedelta`), or the times
        of all samples. None: that of the trajectory or of the clock of a table, else 1.
        Only K2 and the times of windows use this unit.

    Returns
    -------
    Recurrence
        The measures, the histograms of lines, and the threshold.

    Raises
    ------
    DataError
        If the data or options are not suitable.
    UnknownNameError
        If there is no such metric, convention or border correction.

    Notes
    -----
    With :math:`R_{ij} = 1` where :math:`d(x_i, x_j) \le \varepsilon`, and P(l) diagonal, P(v) vertical lines of a
    length [1]_:

    .. math:: \mathrm{DET} = \frac{\sum_{l \ge l_{min}} l P(l)}{\sum_l l P(l)}, \quad
              \mathrm{L} = \frac{\sum_{l \ge l_{min}} l P(l)}{\sum_{l \ge l_{min}} P(l)}, \quad
              \mathrm{ENTR} = -\sum_{l \ge l_{min}} p(l) \ln p(l), \quad \mathrm{DIV} = 1/L_{max}

    LAM and TT are DET and L of the vertical lines. In the standard convention, cells inside the Theiler window belong
    to no measure, and lines end there; recurrence times are of the second type [2]_: from the start of a vertical line
    to the start of the next one in the same column, on the same side of the window; TREND is the least-squares slope of
    the recurrence rate over the lag, per 1000 samples. An undefined measure is NaN.

    The other conventions reproduce their packages: "pyunicorn" (distance < threshold; the line of identity is excluded
    from diagonal lines only; 1e-8 added to denominators; MRT and RTE of all white vertical lines), "pyrqa" (distance <
    threshold; the Theiler window applies to diagonal lines only; white lines from length 2), "recurrenceanalysis"
    (cells of cross plots in the denominator of RR; recurrence times are the white cells between two lines plus half of
    each, rounded down; lags of the trend centred half a lag too low). Theiler windows that a package lacks raise an
    error.

    K2 is the decay rate of the number of diagonal lines of at least a length, from lengths with 50 lines or more; it
    estimates the correlation entropy for long lines at small thresholds. The plot is never stored: memory is linear in
    T.

    References
    ----------
    .. [1] N. Marwan et al., Phys. Rep. 438, 237 (2007), doi:10.1016/j.physrep.2006.11.001
    .. [2] J. Gao and H. Cai, Phys. Lett. A 270, 75 (2000), doi:10.1016/S0375-9601(00)00304-2
    .. [3] F. Censi, G. Calcagnini and S. Cerutti, Med. Biol. Eng. Comput. 42, 856 (2004)
    .. [4] K. H. Kraemer and N. Marwan, Phys. Lett. A 383, 125977 (2019), doi:10.1016/j.physleta.2019.125977

    Examples
    --------
    >>> import numpy as np
    >>> result = recurrence(np.tile([0.0, 1.0, 5.0, 2.0], 50), threshold=0.0)
    >>> round(result.RR, 6), result.DET, result.L, result.Lmax, result.MRT
    (0.246231, 1.0, 100.0, 196, 4.0)
    """
    rules = find_convention(convention)
    from_distances = isinstance(x, Distances) or (isinstance(metric, str) and metric == "precomputed")
    kind = _kind_for_distances(kind, x) if from_distances else _kind(kind, y)
    theiler = _window(theiler, kind, rules)
    plot_options = PlotOptions(threshold, theiler, rules, metric, dim, delay)
    plot, automatic = build_plot(x, y, kind, plot_options)
    lines = plot.count(rules.windows(theiler), rules.times == "middles")
    step, unit = sampling(x, dt)
    options: dict[str, Any] = {
        "lmin": lmin,
        "vmin": vmin,
        "wmin": rules.wmin if wmin is None else wmin,
        "border": border,
        "semi": semi,
        "trend_border": trend_border,
    }
    measures = measure(
        lines,
        rules,
        theiler=theiler,
        symmetric=plot.symmetric,
        cross=kind == "cross",
        dt=step,
        **options,
    )
    metric_name = x.metric if isinstance(x, Distances) else _name(metric)
    n_excluded = int(np.count_nonzero(~plot.finite[0]))
    settings = options | {
        "dim": dim,
        "delay": delay,
        "theiler": theiler,
        "convention": convention,
        "threshold": _described(threshold),
        "symmetric": plot.symmetric,
        **automatic,
    }
    return Recurrence(
        **vars(measures),
        lines=lines,
        threshold=automatic["thresholds"][0],
        metric=metric_name,
        kind=kind,
        convention=convention,
        theiler=theiler,
        n_excluded=n_excluded,
        dt=step,
        time_unit=unit,
        settings=settings,
        warnings=(
            *_excluded(plot.finite[: 2 if kind == "cross" else 1], (x, y), dim),
            *_warnings(lines, theiler, kind, threshold, automatic["thresholds"]),
        ),
        plot_source=plot,
    )


def _window(theiler: int | None, kind: str, rules: Convention) -> int:
    if theiler is None:
        return 0 if kind == "cross" else 1
    if isinstance(theiler, bool) or not isinstance(theiler, (int, np.integer)) or theiler < 0:
        raise DataError(f"theiler={theiler!r}: it must be a whole number of samples, at least 0")
    if kind != "cross":
        rules.check_window(int(theiler))
    return int(theiler)


def _kind_for_distances(kind: str | None, x: Any) -> str:
    square = x.square if isinstance(x, Distances) else len(set(np.shape(x))) == 1
    resolved = kind or ("auto" if square else "cross")
    if resolved not in ("auto", "cross") or (resolved == "auto" and not square):
        raise DataError(f"kind={kind!r}: distances of shape {np.shape(x)} give {'auto or ' * square}cross recurrences")
    return resolved


def _kind(kind: str | None, y: Any) -> str:
    if kind is None:
        return "auto" if y is None else "cross"
    if kind not in ("auto", "cross", "joint"):
        raise DataError(f"kind={kind!r} is none of 'auto', 'cross', 'joint'")
    if (kind == "auto") != (y is None):
        requirement = "takes no y" if kind == "auto" else "needs the second system as y"
        raise DataError(f"kind={kind!r} {requirement}")
    return kind


def _name(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    from trajtools.distances.metric import find_metric

    return find_metric(metric).name


def _described(rule: Rule) -> Any:
    if isinstance(rule, (tuple, list)):
        return [_described(each) for each in rule]
    if is_dataclass(rule) and not isinstance(rule, type):
        return {"rule": type(rule).__name__, **asdict(rule)}
    return fixed(rule)


def _excluded(finite: Sequence[Bools], sources: Sequence[Any], dim: int) -> tuple[Reason, ...]:
    """Say how many states of x, and of y where that is a trajectory of its own, are left out."""
    remarks: list[Reason] = []
    noun = "states" if dim == 1 else "delay vectors"
    for name, good, source in zip("xy", finite, sources, strict=False):
        step = training_steps(source)
        known = step is not None and len(step) == len(good)  # delay vectors have no steps of their own
        remarks += not_finite(good, step=step if known else None, noun=noun, of=name if len(finite) > 1 else "")
    return tuple(remarks)


def _warnings(lines: Lines, theiler: int, kind: str, rule: Rule, thresholds: Any) -> tuple[Reason, ...]:
    warnings = []
    if (np.asarray(thresholds, dtype=np.float64) == 0).any():
        text = (
            "the threshold is 0: only equal states recur, and lines count how long the trajectory is constant or "
            "exactly periodic; entropies and K2 then describe no motion"
        )
        warnings.append(Reason("zero-threshold", text))
    if len(lines.diagonal) < 2:
        text = "no state recurs outside the Theiler window: most measures are not defined"
        warnings.append(Reason("no-recurrence", text))
    if isinstance(rule, RecurrenceRate) and not rule.local:
        recurrences, cells = lines.outside(theiler)
        if recurrences > 1.01 * rule.rate * cells + 2:
            text = "the recurrence rate is {share:.4g}, not {rate:.4g}: many distances are equal"
            warnings.append(Reason.of("equal-distances", text, share=recurrences / cells, rate=rule.rate))
    share = lines.time_apart(theiler)
    if kind == "auto" and share < RETURNS:
        text = (
            "states that recur are {share:.0%} as far apart in time as all states: the trajectory drifts and hardly "
            "returns, so the measures describe how fast it moves, not how it recurs; detrend it, or choose a window "
            "without drift"
        )
        warnings.append(Reason.of("drift", text, share=share))
    neighbors = lines.shape[1]
    if kind != "cross" and theiler == 1 and lines.recurrences[neighbors] > _TANGENTIAL * lines.cells[neighbors]:
        text = (
            "{share:.0%} of the states recur with the next one: lines then measure the sampling density; a longer "
            "Theiler window excludes them, see theiler_window"
        )
        share = lines.recurrences[neighbors] / lines.cells[neighbors]
        warnings.append(Reason.of("tangential-motion", text, share=share))
    return tuple(warnings)
