"""Recurrence quantification analysis: when a trajectory returns to an earlier state, and for how long."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError
from trajtools.neighbors.rules import RecurrenceRate
from trajtools.reasons import Reason
from trajtools.recurrences.lines import Lines
from trajtools.recurrences.measures import TREND_BORDER, Convention, Recurrence, find_convention, measure
from trajtools.recurrences.rows import Asked, build_plot, sampling
from trajtools.recurrences.thresholds import fixed
from trajtools.types import StatesLike

if TYPE_CHECKING:
    from trajtools.distances.metric import MetricLike

# Where more of the states recur with the next one, lines show how densely the motion is sampled.
_TANGENTIAL = 0.9


_FIVE_PERCENT = RecurrenceRate(0.05)
Rule = Any


def recurrence(
    x: StatesLike | Distances,
    *,
    y: StatesLike | None = None,
    kind: str | None = None,
    threshold: Rule = _FIVE_PERCENT,
    theiler: int | None = None,
    convention: str = "standard",
    metric: MetricLike = "l2",
    dim: int = 1,
    delay: int = 1,
    lmin: int = 2,
    vmin: int = 2,
    wmin: int | None = None,
    border: str = "keep",
    semi: bool = False,
    trend_border: int = TREND_BORDER,
    dt: float | None = None,
) -> Recurrence:
    r"""Quantify the recurrences of a trajectory, or between two.

    Parameters
    ----------
    x : array_like, Trajectory or Distances, shape (T,), (T, d) or (T, S)
        States; or distances, as `Distances` or with ``metric="precomputed"``.
    y : array_like, Trajectory or None
        States of a second system, for cross and joint recurrences.
    kind : str or None
        ``"auto"``: state i of x recurs with state j of x. ``"cross"``: with state j of y. ``"joint"``: with state j of
        x, while state i of y recurs with state j of y. None: ``"auto"``, or ``"cross"`` where y is given or x holds the
        distances of two systems (which is sure where they are no square).
    threshold : float, WithinRadius, ScaledRadius, RecurrenceRate, NearestK, or a pair of them
        Which states recur: those within a distance, within a multiple of the size of the trajectory, as many pairs as
        make up a share of all (exactly, outside the Theiler window), or so many neighbours of each state. Of a joint
        plot each system may have its own.
    theiler : int or None, in samples
        Pairs closer in time than this do not count; 1 leaves out the line of identity. None: 1, and 0 for cross
        recurrences.
    convention : str
        ``"standard"``, ``"pyunicorn"``, ``"pyrqa"`` or ``"recurrenceanalysis"``: what the measures mean, see Notes.
    metric : str, callable or Metric
        ``"l2"``, ``"linf"``, ``"l1"``, or another one of `METRICS`; ``"precomputed"``: x holds distances. In another
        metric, and of states of more than 128 coordinates where they take no more room than the states, all distances
        are computed first, see `pairwise`.
    dim, delay : int
        Embedding of x (and y): dimension and delay in samples; 1: the states as they are.
    lmin, vmin, wmin : int, in samples
        Shortest diagonal lines, vertical lines and recurrence times that count. Other ones later:
        `Recurrence.measures`. wmin None: 1, for "pyrqa" 2.
    border : str
        Diagonal lines that end at the border of the plot are cut. ``"keep"``: counted as they are. ``"discard"``: left
        out. ``"longest"``: all but the longest left out. ``"censi"``: all counted as long as the longest [3]_ [4]_.
    semi : bool
        Lines with one end at the border are such lines, else only those with both.
    trend_border : int, in samples
        The trend leaves out so many lags at the corners of the plot.
    dt : float or None, in the time unit
        Time between two samples; None: what the trajectory says, 1 for arrays. Only K2 and the times of windows are in
        units of time.

    Returns
    -------
    Recurrence
        The measures, the histograms of lines they were made of, and the threshold as it was used.

    Raises
    ------
    DataError
        If the data cannot be analysed so.
    UnknownNameError
        If there is no such metric, convention or border correction.

    Notes
    -----
    With :math:`R_{ij} = 1` where :math:`d(x_i, x_j) \le \varepsilon`, and P(l) diagonal, P(v) vertical lines of a
    length [1]_:

    .. math:: \mathrm{DET} = \frac{\sum_{l \ge l_{min}} l P(l)}{\sum_l l P(l)}, \quad
              \mathrm{L} = \frac{\sum_{l \ge l_{min}} l P(l)}{\sum_{l \ge l_{min}} P(l)}, \quad
              \mathrm{ENTR} = -\sum_{l \ge l_{min}} p(l) \ln p(l), \quad \mathrm{DIV} = 1/L_{max}

    LAM and TT are DET and L of the vertical lines. In the standard convention cells inside the Theiler window belong to
    no measure, and lines end there; recurrence times are those of the second type [2]_: from the beginning of a
    vertical line to the beginning of the next one in the same column, on the same side of the window; TREND is the
    least-squares slope of the recurrence rate over the lag, per 1000 samples. A measure that is not defined is NaN.

    The other conventions reproduce their packages: "pyunicorn" (distance < threshold; line of identity left out of the
    diagonal lines only; 1e-8 added to denominators; MRT and RTE of all white vertical lines), "pyrqa" (distance <
    threshold; the Theiler window applies to diagonal lines only; white lines from 2 on), "recurrenceanalysis" (cells of
    cross plots in the denominator of RR; recurrence times that are the white cells between two lines and half of each,
    rounded down; lags of the trend centred half a lag too low). Theiler windows that the package has not are refused.

    K2 is the decay of the number of diagonal lines of at least a length, where 50 or more are left; it estimates the
    correlation entropy for long lines of small thresholds. The plot is never held: memory is linear in T.

    References
    ----------
    .. [1] N. Marwan et al., Phys. Rep. 438, 237 (2007), doi:10.1016/j.physrep.2006.11.001
    .. [2] J. Gao and H. Cai, Phys. Lett. A 270, 75 (2000), doi:10.1016/S0375-9601(00)00304-2
    .. [3] F. Censi, G. Calcagnini and S. Cerutti, Med. Biol. Eng. Comput. 42, 856 (2004)
    .. [4] K. H. Kraemer and N. Marwan, Phys. Lett. A 383, 125977 (2019), doi:10.1016/j.physleta.2019.125977

    Examples
    --------
    >>> import numpy as np
    >>> found = recurrence(np.tile([0.0, 1.0, 5.0, 2.0], 50), threshold=0.0)
    >>> round(found.RR, 6), found.DET, found.L, found.Lmax, found.MRT
    (0.246231, 1.0, 100.0, 196, 4.0)
    """
    rules = find_convention(convention)
    given = isinstance(x, Distances) or (isinstance(metric, str) and metric == "precomputed")
    kind = _kind_of_distances(kind, x) if given else _kind(kind, y)
    theiler = _window(theiler, kind, rules)
    asked = Asked(threshold, theiler, rules, metric, dim, delay)
    plot, chosen = build_plot(x, y, kind, asked)
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
    used = x.metric if isinstance(x, Distances) else _name(metric)
    settings = options | {
        "dim": dim,
        "delay": delay,
        "theiler": theiler,
        "convention": convention,
        "threshold": _described(threshold),
        "symmetric": plot.symmetric,
        **chosen,
    }
    return Recurrence(
        **vars(measures),
        lines=lines,
        threshold=chosen["thresholds"][0],
        metric=used,
        kind=kind,
        convention=convention,
        theiler=theiler,
        n_excluded=len(plot.finite[0]) - int(np.count_nonzero(plot.finite[0])),
        dt=step,
        time_unit=unit,
        settings=settings,
        warnings=_warnings(lines, theiler, kind, threshold, chosen["thresholds"]),
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


def _kind_of_distances(kind: str | None, x: Any) -> str:
    square = x.square if isinstance(x, Distances) else len(set(np.shape(x))) == 1
    found = kind or ("auto" if square else "cross")
    if found not in ("auto", "cross") or (found == "auto" and not square):
        raise DataError(f"kind={kind!r}: distances of shape {np.shape(x)} give {'auto or ' * square}cross recurrences")
    return found


def _kind(kind: str | None, y: Any) -> str:
    if kind is None:
        return "auto" if y is None else "cross"
    if kind not in ("auto", "cross", "joint"):
        raise DataError(f"kind={kind!r} is none of 'auto', 'cross', 'joint'")
    if (kind == "auto") != (y is None):
        wanted = "takes no y" if kind == "auto" else "needs the second system as y"
        raise DataError(f"kind={kind!r} {wanted}")
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


def _warnings(lines: Lines, theiler: int, kind: str, rule: Rule, thresholds: Any) -> tuple[Reason, ...]:
    found = []
    if (np.asarray(thresholds, dtype=np.float64) == 0).any():
        words = (
            "the threshold is 0: only equal states recur, and lines count how long the trajectory is constant or "
            "exactly periodic; entropies and K2 then describe no motion"
        )
        found.append(Reason("zero-threshold", words))
    if len(lines.diagonal) < 2:
        words = "no state recurs outside the Theiler window: most measures are not defined"
        found.append(Reason("no-recurrence", words))
    if isinstance(rule, RecurrenceRate) and not rule.local:
        recurrences, cells = lines.outside(theiler)
        if recurrences > 1.01 * rule.rate * cells + 2:
            words = "{share:.4g} of the pairs recur, not {rate:.4g}: many distances are equal"
            found.append(Reason.of("equal-distances", words, share=recurrences / cells, rate=rule.rate))
    neighbors = lines.shape[1]
    if kind != "cross" and theiler == 1 and lines.recurrences[neighbors] > _TANGENTIAL * lines.cells[neighbors]:
        words = (
            "{share:.0%} of the states recur with the next one: lines then measure the sampling density; a longer "
            "Theiler window excludes them, see theiler_window"
        )
        share = lines.recurrences[neighbors] / lines.cells[neighbors]
        found.append(Reason.of("tangential-motion", words, share=share))
    return tuple(found)
