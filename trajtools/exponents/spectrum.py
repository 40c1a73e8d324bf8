"""Lyapunov spectrum from local linear maps (Sano and Sawada 1985; Eckmann, Kamphorst, Ruelle and Ciliberto 1986)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from trajtools.errors import DataError, NoNeighborsError, UnknownNameError
from trajtools.exponents.following import delay_vectors, sampling
from trajtools.inputs import takes_states
from trajtools.neighbors.rules import NearestK
from trajtools.neighbors.search import evenly, nearest
from trajtools.neighbors.states import States, prepare
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.types import Floats, Ints, StatesLike, TimeStepLike
from trajtools.wording import bounds, counted

# Neighbours per dimension of small and large neighbourhoods, and the number of sampled states.
SMALL, LARGE = 6, 24


STATES = 400


# Extent ~ size along the attractor, ~ size^2 across it; fractal or noisy thin directions lie between.
BORDER = 1.35


_ROUNDING = 1e4  # spacings of the largest coordinate; smaller extents come from rounding and its drift
_REFERENCE_DRAWS = 400
_CHUNK = 2_000_000  # numbers per batch of neighbourhoods
_IN_PLANE = 0.95  # overlap above which free vectors lie in the tangent planes
BLOCKS = 20  # of time, for the interval
FEWEST_BLOCKS = 8
SHORTEST_BLOCK = 8  # local maps
MOST_DIRECTIONS = 64
MOST_UNEXPLAINED = 0.5  # largest unexplained share of the variance for meaningful maps


@dataclass(frozen=True, eq=False, repr=False)
class LyapunovSpectrum(Result):
    """Lyapunov spectrum with intervals.

    Attributes
    ----------
    values : ndarray of float64, shape (k,)
        Exponents in descending order, natural logarithm, in `unit`; NaN for unresolved directions.
    intervals : ndarray of float64, shape (k, 2)
        Confidence intervals at `level`, from blocks of time: statistical errors only. Local maps also have a bias that
        decreases with the size of the neighbourhoods (that is, with T) and shows when `neighbors` is changed: it is
        negligible for the largest exponent, but a few percent for contracting exponents (Henon, T = 3000: 3 %), which
        exceeds their intervals.
    level : float
        Confidence level of the intervals.
    resolved : ndarray of bool, shape (k,)
        Whether the neighbourhoods extend in that many directions; further exponents would be spurious.
    whole : ndarray of float64, shape (d,)
        Exponents of the maps in all d directions, as in the original method; may include spurious ones.
    thickness : ndarray of float64, shape (d,)
        Power with which the extent of neighbourhoods in each direction grows with their size: 1 along the attractor,
        2 or more in directions in which it is only curved. NaN if the record is too short.
    kaplan_yorke : float
        Kaplan-Yorke dimension; NaN if the exponents do not determine it.
    block_values : ndarray of float64, shape (B, k)
        Exponents of each block of time.
    n_used, n_total : int
        Number of local maps, and of states at which one could begin.
    unit : str
        ``"1/sample"``, ``"1/step"``, ...
    settings : dict
        Every parameter used, including automatic choices.
    warnings : tuple of Reason
        Warnings that limit the interpretation of the values.

    Examples
    --------
    >>> import trajtools as tt
    >>> spectrum = tt.lyapunov_spectrum(tt.systems.henon().trajectory(1000, rng=0))
    >>> [round(float(value), 1) for value in spectrum.values]
    [0.4, -1.6]
    """

    values: Floats
    intervals: Floats
    level: float
    resolved: Any
    whole: Floats
    thickness: Floats
    kaplan_yorke: float
    block_values: Floats
    n_used: int
    n_total: int
    unit: str
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "values": ("exponent",),
        "intervals": ("exponent", "bound"),
        "resolved": ("exponent",),
        "block_values": ("block", "exponent"),
        "whole": ("direction",),
        "thickness": ("direction",),
    }

    def _sentence(self) -> str:
        known = int(np.isfinite(self.values).sum())
        text = f"{known} of {counted(len(self.values), 'exponent')} resolved, from {counted(self.n_used, 'local map')}"
        if np.isfinite(self.kaplan_yorke):
            text += f"; Kaplan-Yorke dimension {self.kaplan_yorke:.4g}"
        return text + "."

    def _head(self) -> str:
        largest = (f"{value:.4g} {bounds(ends)}" for value, ends in zip(self.values[:4], self.intervals, strict=False))
        return f"{', '.join(largest)}{', ...' if len(self.values) > 4 else ''} {self.unit}"


def thickness(states: States, dtype: Any = np.float64) -> Thickness:
    r"""Compare the principal extents of small and large neighbourhoods.

    Notes
    -----
    The power of direction c is the median over states of :math:`\ln \sigma_c(large)/\sigma_c(small)`, over that of the
    first direction. Small samples underestimate the extent in minor directions; to correct this, the same ratio for
    points drawn uniformly from a d-dimensional ball is subtracted, so a structureless cloud has power 1 in all
    directions. A direction in which neighbours differ only by rounding has an infinite power.
    """
    from trajtools._kernels.divergence import nearest_of

    d = states.points.shape[1]
    rounding = _rounding(states, dtype)
    sizes = (SMALL * (d + 1), LARGE * (d + 1))
    usable = np.flatnonzero(states.usable)
    if len(usable) < 4 * sizes[1]:
        return Thickness(np.full(d, np.nan), d, sizes, rounding, known=False)
    if d == 1:
        return Thickness(np.ones(1), 1, sizes, rounding, known=True)
    times = evenly(usable, STATES)
    points = np.ascontiguousarray(states.points)
    _, index, _ = nearest_of(points, states.matrix, states.usable, times, sizes[1], states.theiler, states.code)
    index = index[index[:, -1] >= 0]
    if not len(index):
        return Thickness(np.full(d, np.nan), d, sizes, rounding, known=False)
    large, small = _extents(points[index]), _extents(points[index[:, : sizes[0]]])
    fill = np.mean(_extents(_ball(d, sizes[1])) - _extents(_ball(d, sizes[0])), axis=0)
    with np.errstate(invalid="ignore"):
        middle = np.median(large - small, axis=0) - (fill - fill[0])
    if not middle[0] > 0:
        return Thickness(np.full(d, np.nan), d, sizes, rounding, known=False)
    dead = ~np.isfinite(middle) | (np.median(large, axis=0) < np.log(rounding))
    growth = np.where(dead, np.inf, middle / middle[0])
    thick = growth < BORDER
    directions = int(d if thick.all() else np.argmin(thick))
    return Thickness(growth, max(directions, 1), sizes, rounding, known=True)


@dataclass(frozen=True, eq=False)
class Thickness:
    """Growth of the extent of neighbourhoods with their size.

    Attributes
    ----------
    growth : ndarray of float64, shape (d,)
        Power of the size with which the extent grows in each principal direction; NaN where unknown.
    directions : int
        Number of leading directions with a power below `BORDER`; all of them if unknown.
    sizes : (int, int)
        Neighbours in the small and in the large neighbourhoods.
    rounding : float
        Smaller extents come from rounding.
    known : bool
        Whether the record was long enough.
    """

    growth: Floats
    directions: int
    sizes: tuple[int, int]
    rounding: float
    known: bool


def _rounding(states: States, dtype: Any) -> float:
    """Largest extent caused by rounding and its drift; a subnormal number if all states are zero."""
    spacing = np.finfo(dtype if np.issubdtype(dtype, np.floating) else np.float64).eps
    return float(max(_ROUNDING * float(spacing) * np.abs(states.points[states.usable]).max(), 5e-324))


def _extents(clouds: Floats) -> Floats:
    """Logarithms of the root mean square extents of clouds (n, m, d) in their principal directions, (n, d)."""
    centred = clouds - clouds.mean(axis=1, keepdims=True)
    top = np.abs(centred).max(axis=(1, 2), keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        extents = np.linalg.svd(np.where(top > 0, centred / top, 0.0), compute_uv=False)
        return np.asarray(np.log(extents / np.sqrt(clouds.shape[1])) + np.log(top[:, :, 0]))


def _ball(d: int, count: int) -> Floats:
    """Clouds of points drawn uniformly from the unit ball, with a fixed seed."""
    rng = np.random.default_rng(0)
    draws = max(8, _REFERENCE_DRAWS // d)
    points = rng.normal(size=(draws, count, d))
    points /= np.linalg.norm(points, axis=2, keepdims=True)
    return np.asarray(points * rng.random((draws, count, 1)) ** (1 / d))


def kaplan_yorke(values: Floats, last: float = float("nan")) -> float:
    """Kaplan-Yorke dimension of a spectrum whose last exponents may be unknown."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan")
    if known[0] < 0:
        return 0.0
    if len(known) < len(values) and last < known[-1]:
        known = np.append(known, last)
    sums = np.cumsum(known)
    below = np.flatnonzero(sums < 0)
    if not len(below):
        return float("nan")
    j = int(below[0])
    return float(j + sums[j - 1] / abs(known[j]))


@takes_states("x")
def lyapunov_spectrum(
    x: StatesLike,
    *,
    metric: str = "l2",
    scale: str | None = None,
    neighbors: NearestK | None = None,
    theiler: int | None = None,
    horizon: int = 1,
    dim: int | None = None,
    delay: int = 1,
    dt: TimeStepLike = None,
    k: int | None = None,
    level: float = 0.95,
) -> LyapunovSpectrum:
    r"""Lyapunov spectrum from linear maps fitted to the neighbours of each state.

    Parameters
    ----------
    x : array_like or Trajectory, shape (T, d) or (T,)
        States, or an embedding of a series (`trajtools.embedding.embed`).
    metric : str
        ``"l1"``, ``"l2"`` or ``"linf"``, for the neighbour search.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    neighbors : NearestK or None
        Number of neighbours per map, at least 2 d; None: 2 (d + 1).
    theiler : int or None, in samples
        States closer in time than this are not neighbours; None: three times the correlation time, at most an eighth of
        the record, as in `trajtools.lyapunov`.
    horizon : int, in samples
        Time span of one map; above 1 for finely sampled flows.
    dim, delay : int or None, int, in samples
        Embed a series: delay vectors of dimension `dim`; None: `x` already has states.
    dt : float, duration, array_like or None
        Time between two samples: a number, a duration (``"1h"``, `numpy.timedelta64`, `pandas.Timedelta`), or the times
        of all samples. None: that of the trajectory or of the clock of a table, else 1.
    k : int or None
        Number of exponents; None: d.
    level : float
        Confidence level of the intervals.

    Returns
    -------
    LyapunovSpectrum
        Exponents with intervals, which of them are resolved, and the Kaplan-Yorke dimension.

    Raises
    ------
    DataError
        If there are fewer than 2 d neighbours per map, or the data or an argument is invalid.
    NoNeighborsError
        If no state has enough neighbours.
    UnknownNameError
        If the metric is unknown.

    Notes
    -----
    At each state :math:`x_i` an affine map :math:`x_j \mapsto x_{j+h}` is fitted to the neighbours by least squares.
    The linear parts are applied in turn to an orthonormal frame, and the exponents are the mean logarithms of its
    stretching, from a QR decomposition after each map.

    A map in d dimensions has d exponents, even if the attractor extends in fewer directions. The surplus exponents of
    the original method are spurious: they can exceed every true exponent (2, 3, ... times the largest one for an
    embedded map, [3]_), and without noise they change sign under time reversal, like true ones. Therefore the number of
    directions is estimated first: the extent of a neighbourhood grows with its radius r along the attractor, and with
    r^2 or faster across it. The maps are then restricted to the tangent space of those directions (the principal
    directions of each neighbourhood), and the surplus exponents are NaN. `whole` contains those of the original method.
    Strongly contracting directions of flows (the third of the Lorenz system) are also that thin; their exponents exist,
    but such data do not resolve them.

    References
    ----------
    .. [1] M. Sano, Y. Sawada, Phys. Rev. Lett. 55, 1082 (1985), doi:10.1103/PhysRevLett.55.1082
    .. [2] J.-P. Eckmann, S. O. Kamphorst, D. Ruelle, S. Ciliberto, Phys. Rev. A 34, 4971 (1986),
       doi:10.1103/PhysRevA.34.4971
    .. [3] T. D. Sauer, J. A. Tempkin, J. A. Yorke, Phys. Rev. Lett. 81, 4341 (1998), doi:10.1103/PhysRevLett.81.4341

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.empty((3000, 2))
    >>> x[0] = 0.1, 0.1
    >>> for t in range(2999):
    ...     x[t + 1] = 1 - 1.4 * x[t, 0] ** 2 + x[t, 1], 0.3 * x[t, 0]
    >>> spectrum = tt.lyapunov_spectrum(x[100:], theiler=1)
    >>> bool(abs(spectrum.values[0] - 0.419) < 0.03)
    True
    """
    if metric == "precomputed":
        raise UnknownNameError(
            "lyapunov_spectrum fits maps to states, which distances alone do not determine: give states"
        )
    x, embedding = delay_vectors(x, dim, delay)
    clock = sampling(x, dt)
    states = prepare(x, metric=metric, theiler=theiler, horizon=horizon)
    d = states.points.shape[1]
    if states.horizon < 1:
        raise DataError("horizon=0: a map needs at least one sample")
    wanted, rule = _check_request(k, neighbors, d, level)
    nearby = nearest(states, rule)
    whole_rows = np.flatnonzero(nearby.index[:, -1] >= 0)
    if not len(whole_rows):
        raise NoNeighborsError(
            f"no state has {rule.k} neighbours outside theiler={states.theiler} ({nearby.counts}); record more, lower "
            "theiler, or reduce the dimension"
        )
    across = thickness(states, np.asarray(x).dtype)
    directions = across.directions
    time = clock[0] * states.horizon
    maps = fit_maps(states, nearby.index, whole_rows, across)
    unexplained = float(np.median(maps.unexplained))
    logs, laid, overlap = (_without_overflow(part) for part in stretching(maps, directions))
    whole = _mean(logs) / time
    count = 0 if unexplained > MOST_UNEXPLAINED else min(wanted, directions)
    logs = (logs if laid is None else laid)[:, :count]
    blocks = _blocks(logs) / time
    values, intervals = np.full(wanted, np.nan), np.full((wanted, 2), np.nan)
    values[:count] = _mean(logs) / time
    intervals[:count] = _intervals(values[:count], blocks, level)
    return LyapunovSpectrum(
        values=values,
        intervals=intervals,
        level=level,
        resolved=np.arange(wanted) < count,
        whole=whole,
        thickness=across.growth,
        kaplan_yorke=kaplan_yorke(values, float(whole[-1]) if laid is None else float("nan")),
        block_values=blocks,
        n_used=len(maps.times),
        n_total=int(np.count_nonzero(states.usable)),
        unit=f"1/{clock[1]}",
        settings={
            "metric": metric,
            "neighbors": {"rule": "NearestK", "k": int(rule.k)},
            "theiler": states.theiler,
            **({"theiler_why": states.theiler_why} if states.theiler_why else {}),
            "horizon": states.horizon,
            "dt": clock[0],
            **embedding,
            "k": wanted,
            "directions": directions,
            "overlap": overlap,
            "unexplained": unexplained,
            "vectors": "free" if laid is None else "laid into the tangent planes",
            "thickness_sizes": across.sizes,
            "strategy": nearby.strategy.name,
            "strategy_why": nearby.strategy.why,
            "left_out": nearby.counts,
            "n_blocks": len(blocks),
        },
        warnings=_warnings(across, whole, values, wanted, unexplained=unexplained, blocks=len(blocks)),
    )


def _check_request(k: int | None, neighbors: NearestK | None, d: int, level: float) -> tuple[int, NearestK]:
    if d > MOST_DIRECTIONS:
        raise DataError(
            f"local maps in {d} dimensions need more than {2 * d} close neighbours of every state, too many for any "
            f"record: project to at most {MOST_DIRECTIONS} dimensions (PCA, observables), or use wolf or kantz"
        )
    wanted = d if k is None else k
    if isinstance(wanted, bool) or not isinstance(wanted, (int, np.integer)) or not 1 <= wanted <= d:
        raise DataError(f"k must be 1 to {d} for states of dimension {d}, got {k!r}")
    rule = neighbors or NearestK(2 * (d + 1))
    if not isinstance(rule, NearestK):
        raise DataError(f"a map needs a fixed number of neighbours: neighbors must be a NearestK, not {rule!r}")
    if rule.k < 2 * d:
        raise DataError(
            f"{rule.k} neighbours do not determine a map in {d} dimensions: use NearestK({2 * d}) or more, twice the "
            "dimension"
        )
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, got {level}")
    return int(wanted), rule


def fit_maps(states: States, index: Ints, rows: Ints, across: Thickness) -> LocalMaps:
    """Fit maps along the record, each beginning where the previous one ends."""
    step, d = states.horizon, states.points.shape[1]
    has = np.zeros(len(states), dtype=bool)
    has[rows] = True
    chain = np.arange(int(rows[0]), len(states) - step, step)
    chain = chain[has[chain]]
    linear, principal = np.empty((len(chain), d, d)), np.empty((len(chain), d, d))
    rank, unexplained = np.empty(len(chain), dtype=np.int64), np.empty(len(chain))
    batch = max(1, _CHUNK // (index.shape[1] * d))
    for start in range(0, len(chain), batch):
        part = slice(start, min(start + batch, len(chain)))
        linear[part], principal[part], rank[part], unexplained[part] = _maps(
            states, index[chain[part]], across.rounding
        )
    spanned = rank >= across.directions
    if not spanned.any():
        raise NoNeighborsError(
            f"no state has {index.shape[1]} neighbours that span {across.directions} directions, so no map can be "
            "fitted: states repeat, or a coordinate is constant or a combination of others; omit it, or use more "
            "neighbours"
        )
    chain = chain[spanned]
    linked = np.concatenate([[False], np.diff(chain) == step])
    return LocalMaps(linear[spanned], principal[spanned], chain, linked, unexplained[spanned])


@dataclass(frozen=True, eq=False)
class LocalMaps:
    """Affine maps along a record.

    Attributes
    ----------
    linear : ndarray of float64, shape (n, d, d)
        Linear parts.
    principal : ndarray of float64, shape (n, d, d)
        Principal directions of the neighbourhoods, as rows.
    times : ndarray of int64, shape (n,)
        First state of each map.
    linked : ndarray of bool, shape (n,)
        Whether a map begins where the previous one ends.
    unexplained : ndarray of float64, shape (n,)
        Share of the variance of the images of the neighbours that the fit does not explain.
    """

    linear: Floats
    principal: Floats
    times: Ints
    linked: Any
    unexplained: Floats


def _maps(states: States, near: Ints, rounding: float) -> tuple[Floats, Floats, Ints, Floats]:
    """Linear parts of affine fits, principal directions as rows, ranks, and unexplained shares of the variance."""
    before, after = states.points[near], states.points[near + states.horizon]
    before = before - before.mean(axis=1, keepdims=True)
    after = after - after.mean(axis=1, keepdims=True)
    # Rescale the tiny neighbourhoods to size one, so that the inverse does not depend on the scale of the states.
    scale = np.maximum(np.abs(before).max(axis=(1, 2), keepdims=True), rounding)
    after /= scale
    left, extent, principal = np.linalg.svd(before / scale, full_matrices=False)
    # A direction in which the neighbours do not differ has no map.
    dead = extent * scale[:, 0] <= rounding
    inverse = np.where(dead, 0.0, 1.0 / np.where(dead, 1.0, extent))
    image = np.swapaxes(left, 1, 2) @ after
    linear = np.swapaxes(image * inverse[:, :, None], 1, 2) @ principal
    rank = np.count_nonzero(~dead, axis=1)
    top = np.abs(after).max(axis=(1, 2), keepdims=True)
    top[top == 0] = 1.0
    left_over = np.sum(((after - left @ image) / top) ** 2, axis=(1, 2)) / np.maximum(near.shape[1] - 1 - rank, 1)
    total = np.sum((after / top) ** 2, axis=(1, 2)) / (near.shape[1] - 1)
    return linear, principal, rank, np.where(total > 0, left_over / np.where(total > 0, total, 1.0), 0.0)


def _intervals(values: Floats, blocks: Floats, level: float) -> Floats:
    """Student's interval of the mean over the blocks, (k, 2)."""
    if not len(blocks):
        return np.full((len(values), 2), np.nan)
    from scipy.special import stdtrit  # Student's t; scipy.stats takes half a second to import

    with np.errstate(invalid="ignore"):  # an exponent of minus infinity has no interval
        reach = stdtrit(len(blocks) - 1, (1 + level) / 2) * blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks))
        return np.stack([values - reach, values + reach], axis=1)


def _without_overflow(logs: Any) -> Any:
    """Replace infinite stretching by NaN."""
    return np.where(np.isposinf(logs), np.nan, logs) if isinstance(logs, np.ndarray) else logs


def _mean(logs: Floats) -> Floats:
    return np.asarray(logs.mean(axis=0))


def _blocks(logs: Floats) -> Floats:
    """Means over equal blocks of time, (B, k); empty if there are too few."""
    count = min(BLOCKS, len(logs) // SHORTEST_BLOCK)
    if count < FEWEST_BLOCKS:
        return np.empty((0, logs.shape[1]))
    edges = (np.arange(count) * len(logs)) // count
    sums = np.add.reduceat(logs, edges, axis=0)
    return np.asarray(sums / np.diff([*edges, len(logs)])[:, None])


def stretching(maps: LocalMaps, directions: int) -> tuple[Floats, Floats | None, float]:
    """Log stretching of free vectors and of vectors in the tangent planes (None if equal), and their overlap."""
    from trajtools._kernels.tangents import tangent_logs

    d = maps.linear.shape[1]
    free, vectors = tangent_logs(maps.linear, maps.linked, None, d)
    if directions == d:
        return free, None, 1.0
    planes = np.ascontiguousarray(maps.principal[:, :directions])
    inside = planes @ np.swapaxes(vectors[:, :directions], 1, 2)
    overlap = float(np.median(np.linalg.svd(inside, compute_uv=False)[:, -1]))
    if overlap >= _IN_PLANE:
        return free, None, overlap
    laid, _ = tangent_logs(maps.linear, maps.linked, planes, directions)
    return free, laid, overlap


def _warnings(
    across: Thickness, whole: Floats, values: Floats, wanted: int, *, unexplained: float, blocks: int
) -> tuple[Reason, ...]:
    warnings = []
    d, directions = len(whole), across.directions
    if unexplained > MOST_UNEXPLAINED:
        text = (
            "the maps leave {share:.0%} of the variance unexplained (median): noise, missing coordinates, or too few "
            "states; their exponents are meaningless, and omitted"
        )
        warnings.append(Reason.of("unexplained", text, share=unexplained))
    if not across.known:
        text = (
            "the record is too short to determine in how many of the {dimension} directions the attractor extends: "
            "some exponents may be spurious"
        )
        warnings.append(Reason.of("record-too-short", text, dimension=d))
    elif directions < d:
        flat = Reason.of(
            "not-resolved",
            "the neighbourhoods extend in {directions} of {dimension} directions (their extent in the next grows with "
            "the power {power:.2g} of their size), so {missing} of {wanted} exponents are not resolved; in the full "
            "space the maps give {listed}, of which {spurious} are spurious or unresolved",
            directions=directions,
            dimension=d,
            power=across.growth[directions],
            missing=max(wanted - directions, 0),
            wanted=wanted,
            listed=", ".join(f"{value:.3g}" for value in whole),
            spurious=d - directions,
        )
        warnings.append(flat)
    resolved = values[np.isfinite(values)]
    if len(resolved) > 1 and resolved[-1] < 0 and resolved[-1] < -np.abs(resolved[0]):
        text = (
            "the most negative exponent, {lowest:.3g}, has a bias that its interval leaves out: neighbours are closest "
            "in the contracting direction, where the curvature of the map over the neighbourhood counts most; few "
            "neighbours give values nearer to zero. Repeat with another neighbors= to see its size"
        )
        warnings.append(Reason.of("neighborhood-bias", text, lowest=float(resolved[-1])))
    if blocks < FEWEST_BLOCKS:
        text = "fewer than {needed} local maps: the intervals are unknown"
        warnings.append(Reason.of("interval-unknown", text, needed=FEWEST_BLOCKS * SHORTEST_BLOCK))
    return tuple(warnings)
