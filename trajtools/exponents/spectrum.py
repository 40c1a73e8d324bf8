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
from trajtools.trajectory import StatesLike
from trajtools.types import Floats, Ints, TimeStepLike
from trajtools.values import rows_not_finite
from trajtools.wording import bounds, counted

# Neighbours per dimension of small and large neighbourhoods, and the number of sampled states.
SMALL, LARGE = 6, 24


STATES = 400


# Extent ~ size along the attractor, ~ size^2 across it; fractal or noisy thin directions lie between.
BORDER = 1.35


_ROUNDING = 1e4  # spacings of the largest coordinate; smaller extents come from rounding and its drift
_REFERENCE_DRAWS = 400
_SINGULAR = 1e-12  # of the largest extent: terms that the neighbours do not tell apart
_CHUNK = 2_000_000  # numbers per batch of neighbourhoods
_IN_PLANE = 0.95  # overlap above which free vectors lie in the tangent planes
BLOCKS = 20  # of time, for the interval
FEWEST_BLOCKS = 8
CURVED = 0.5  # residual variance of quadratic over linear maps, below which the curvature is what linear maps miss
LEAST = 0.02  # of an exponent: errors that no larger neighbourhoods are tried against
MOST_NEIGHBORS = 200  # unless the user passes more: fits to more of them take seconds
SHARE = 0.1  # of the states: larger neighbourhoods are not local
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
        Intervals at `level`: the statistical error, from blocks of time, and the systematic one (see Notes). NaN
        without enough blocks.
    shifts : ndarray of float64, shape (k,)
        Change of each exponent with neighbourhoods of twice as many states. Local maps miss what is curved more than
        they are, and confuse noise with the dynamics; both matter most in contracting directions, in which neighbours
        are closest. NaN where the record is too short for larger neighbourhoods.
    level : float
        Confidence level of the intervals.
    resolved : ndarray of bool, shape (k,)
        Whether the neighbourhoods extend in that many directions (further exponents would be spurious), and the record
        is long enough for an interval.
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
    shifts: Floats
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
        "shifts": ("exponent",),
        "resolved": ("exponent",),
        "block_values": ("block", "exponent"),
        "whole": ("direction",),
        "thickness": ("direction",),
    }

    def _sentence(self) -> str:
        known = int(np.count_nonzero(self.resolved))
        text = f"{known} of {counted(len(self.values), 'exponent')} resolved, from {counted(self.n_used, 'local map')}"
        if np.isfinite(self.kaplan_yorke):
            text += f"; Kaplan-Yorke dimension {self.kaplan_yorke:.4g}"
        return text + "."

    def _head(self) -> str:
        pairs = zip(self.values[:4], self.intervals, strict=False)
        largest = (f"{value:.4g} {bounds(ends)}" if np.isfinite(value) else "not resolved" for value, ends in pairs)
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
        Number of neighbours per map, at least 2 d, for linear maps. None: 2 (d + 1), or for quadratic maps
        (d + 1) (d + 2), twice as many as they have coefficients, and more where there is noise; see Notes.
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

    In contracting directions neighbours are closest, and there the curvature of the map over the neighbourhood
    outweighs its slope (Henon, T = 3000, linear maps: -1.56 for -1.62). So, unless `neighbors` is passed, the maps have
    quadratic terms where these halve the variance of what is left over (median over the states), or where noise
    flattens them less than linear ones (below), and where four times their coefficients are no more than a tenth of the
    states.

    Errors s of the coordinates flatten a fitted slope by the factor :math:`1 + s^2 / e_c^2`, for the extent
    :math:`e_c` of the neighbours in direction c; the spread around the fit, :math:`s (d + |J|^2)^{1/2}`, tells s. While
    the mean logarithm of this exceeds 2 % of the last exponent, the neighbours are doubled, as long as that makes it
    smaller, up to a tenth of the states and 200. The intervals are widened by what remains: this logarithm, and the
    largest change of each exponent over the neighbourhoods that were tried, with twice as many neighbours as the last.

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
    vectors, embedding = delay_vectors(x, dim, delay)
    clock = sampling(vectors, dt)
    states = prepare(vectors, metric=metric, theiler=theiler, horizon=horizon)
    d = states.points.shape[1]
    wanted, rule = _check_request(k, neighbors, d, level, states.horizon)
    across = thickness(states, np.asarray(vectors).dtype)
    directions, room = across.directions, min(SHARE * np.count_nonzero(states.usable), MOST_NEIGHBORS)
    bends = (d + 1) * (d + 2)
    may_bend = neighbors is None and directions == d and 2 * bends <= room
    most = max(size for size in (rule.k, 2 * rule.k, 2 * bends * may_bend) if size <= max(room, rule.k))
    nearby = nearest(states, NearestK(most))
    maps = fit_maps(states, nearby.index[:, : rule.k], across)
    unexplained, time = float(np.median(maps.unexplained)), clock[0] * states.horizon
    logs, in_planes, overlap = (_without_overflow(part) for part in stretching(maps, directions))
    laid = _belong_in_planes(maps, logs, in_planes, overlap)
    whole = _mean(logs) / time
    count = 0 if unexplained > MOST_UNEXPLAINED else min(wanted, directions)
    used, order, chosen = rule.k, 1, in_planes if laid else logs
    if may_bend and count:
        bent = fit_maps(states, nearby.index[:, :bends], across, quadratic=True)
        if _better(bent, maps, abs(_mean(chosen)[count - 1]), count):
            used, order, maps = bends, 2, bent
            chosen = _without_overflow(stretching(bent, directions)[0])
    values, intervals, shifts = np.full(wanted, np.nan), np.full((wanted, 2), np.nan), np.full(wanted, np.nan)
    confused = _attenuation(maps)[:count] / time
    tried = [_mean(chosen)[:count] / time]
    while count and (2 * used <= most or 2 * used <= room):
        if 2 * used > most:
            most = 2 * used
            nearby = nearest(states, NearestK(most))
        near, bend = nearby.index[:, : 2 * used], order
        wider = fit_maps(states, near, across, quadratic=order == 2)
        if order == 1 and may_bend and 2 * used >= bends:
            bent = fit_maps(states, near, across, quadratic=True)
            wider, bend = (bent, 2) if _better(bent, wider, abs(_mean(chosen)[count - 1]), count) else (wider, 1)
        wide = _without_overflow(stretching(wider, directions)[1 if laid else 0])
        shifts[:count] = _apart(_mean(wide), _mean(chosen))[:count] / time
        flatter = _attenuation(wider)[:count] / time
        tried.append(_mean(wide)[:count] / time)
        if (
            neighbors is not None
            or confused[-1] < LEAST * abs(_mean(chosen)[count - 1]) / time
            or flatter[-1] >= confused[-1]
        ):
            break
        used, order, maps, chosen, confused = 2 * used, bend, wider, wide, flatter
    values[:count] = _mean(chosen[:, :count]) / time
    blocks = _blocks(chosen[:, :count]) / time
    moved = [np.nan_to_num(np.abs(_apart(each, values[:count])), posinf=0.0) for each in tried]
    intervals[:count] = _intervals(values[:count], blocks, level) + (np.max(moved, axis=0) + confused)[:, None] * [
        -1,
        1,
    ]
    return LyapunovSpectrum(
        values=values,
        intervals=intervals,
        shifts=shifts,
        level=level,
        resolved=np.isfinite(intervals).all(axis=1),
        whole=whole,
        thickness=across.growth,
        kaplan_yorke=kaplan_yorke(values, float("nan") if laid else float(whole[-1])),
        block_values=blocks,
        n_used=len(maps.times),
        n_total=int(np.count_nonzero(states.usable)),
        unit=f"1/{clock[1]}",
        settings={
            "metric": metric,
            "neighbors": {"rule": "NearestK", "k": int(used)},
            "order": order,
            "theiler": states.theiler,
            **({"theiler_why": states.theiler_why} if states.theiler_why else {}),
            "horizon": states.horizon,
            "dt": clock[0],
            **embedding,
            "k": wanted,
            "directions": directions,
            "overlap": overlap,
            "unexplained": unexplained,
            "vectors": "laid into the tangent planes" if laid else "free",
            "thickness_sizes": across.sizes,
            "strategy": nearby.strategy.name,
            "strategy_why": nearby.strategy.why,
            "left_out": nearby.counts,
            "n_blocks": len(blocks),
        },
        warnings=(
            *rows_not_finite(x),
            *_warnings(
                across, whole, values, shifts, wanted, unexplained=unexplained, blocks=len(blocks), plain=not embedding
            ),
        ),
    )


def _apart(one: Floats, other: Floats) -> Floats:
    """Difference of exponents; NaN for a direction that vanishes."""
    with np.errstate(invalid="ignore"):
        return np.asarray(one - other)


def _better(bent: LocalMaps, straight: LocalMaps, size: float, count: int) -> bool:
    """Whether quadratic maps are better: they halve the variance around linear ones, or noise flattens them less.

    `size` is that of the last of `count` exponents, per map; noise that flattens by less than `LEAST` of it is none.
    """
    if np.median(bent.residual) < np.sqrt(CURVED) * np.median(straight.residual):
        return True
    flat = float(_attenuation(straight)[count - 1])
    return flat > LEAST * size and float(_attenuation(bent)[count - 1]) < flat


def _check_request(
    k: int | None, neighbors: NearestK | None, d: int, level: float, horizon: int
) -> tuple[int, NearestK]:
    if horizon < 1:
        raise DataError("horizon=0: a map needs at least one sample")
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


def fit_maps(states: States, index: Ints, across: Thickness, *, quadratic: bool = False) -> LocalMaps:
    """Fit maps along the record, each beginning where the previous one ends."""
    step, d = states.horizon, states.points.shape[1]
    has = index[:, -1] >= 0
    if not has.any():
        raise NoNeighborsError(
            f"no state has {index.shape[1]} neighbours outside theiler={states.theiler}; record more, lower theiler, "
            "or reduce the dimension"
        )
    chain = np.arange(int(np.argmax(has)), len(states) - step, step)
    chain = chain[has[chain]]
    linear, principal = np.empty((len(chain), d, d)), np.empty((len(chain), d, d))
    rank, (unexplained, residual) = np.empty(len(chain), dtype=np.int64), np.empty((2, len(chain)))
    extent = np.empty((len(chain), d))
    batch = max(1, _CHUNK // (index.shape[1] * d))
    for start in range(0, len(chain), batch):
        part = slice(start, min(start + batch, len(chain)))
        near = index[chain[part]]
        linear[part], principal[part], rank[part], unexplained[part], residual[part], extent[part] = _maps(
            states, near, across.rounding
        )
        if quadratic:
            linear[part], residual[part] = _bent(states, chain[part], near, linear[part], residual[part])
    spanned = rank >= across.directions
    if not spanned.any():
        raise NoNeighborsError(
            f"no state has {index.shape[1]} neighbours that span {across.directions} directions, so no map can be "
            "fitted: states repeat, or a coordinate is constant or a combination of others; omit it, or use more "
            "neighbours"
        )
    chain = chain[spanned]
    linked = np.concatenate([[False], np.diff(chain) == step])
    return LocalMaps(
        linear[spanned], principal[spanned], chain, linked, unexplained[spanned], residual[spanned], extent[spanned]
    )


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
        Share of the variance of the images of the neighbours that a linear fit does not explain.
    residual : ndarray of float64, shape (n,)
        Standard deviation of these images around the fit, over all directions.
    extent : ndarray of float64, shape (n, d)
        Root mean square extents of the neighbours in the principal directions.
    """

    linear: Floats
    principal: Floats
    times: Ints
    linked: Any
    unexplained: Floats
    residual: Floats
    extent: Floats


def _maps(states: States, near: Ints, rounding: float) -> tuple[Floats, Floats, Ints, Floats, Floats, Floats]:
    """Linear parts of affine fits, principal directions as rows, ranks, unexplained share, deviation, extents."""
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
    share = np.where(total > 0, left_over / np.where(total > 0, total, 1.0), 0.0)
    extent = extent * scale[:, 0] / np.sqrt(near.shape[1])
    return linear, principal, rank, share, np.sqrt(left_over) * (top * scale)[:, 0, 0], extent


def _attenuation(maps: LocalMaps) -> Floats:
    """By how much errors of the size of the residual in the coordinates flatten the maps, nats per map, (d,)."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        sizes = maps.linear.shape[1] + np.sum(maps.linear**2, axis=(1, 2))  # of errors before and after
        nats = np.log1p((maps.residual[:, None] / maps.extent) ** 2 / sizes[:, None])
    return np.asarray(np.where(np.isfinite(nats), nats, 0.0).mean(axis=0))


def _bent(states: States, rows: Ints, near: Ints, linear: Floats, residual: Floats) -> tuple[Floats, Floats]:
    """Slopes at the states of fits with quadratic terms, and residual deviations; linear where undetermined."""
    centre = states.points[rows][:, None]
    before, after = states.points[near] - centre, states.points[near + states.horizon]
    d, count = before.shape[2], near.shape[1]
    scale = np.abs(before).max(axis=(1, 2), keepdims=True)
    scale[scale == 0] = 1.0
    before = before / scale
    i, j = np.triu_indices(d)
    terms = np.concatenate([before, before[:, :, i] * before[:, :, j]], axis=2)
    terms = terms - terms.mean(axis=1, keepdims=True)
    after = after - after.mean(axis=1, keepdims=True)
    top = np.abs(after).max(axis=(1, 2), keepdims=True)
    top[top == 0] = 1.0
    after = after / top
    left, extent, right = np.linalg.svd(terms, full_matrices=False)
    known = extent[:, -1] > _SINGULAR * extent[:, 0]
    extent[~known] = 1.0
    image = np.swapaxes(left, 1, 2) @ after
    slopes = np.swapaxes(np.swapaxes(right, 1, 2)[:, :d] @ (image / extent[:, :, None]), 1, 2) * (top / scale)
    left_over = np.sum((after - left @ image) ** 2, axis=(1, 2)) / (count - 1 - terms.shape[2])
    bent = np.sqrt(left_over) * top[:, 0, 0]
    return np.where(known[:, None, None], slopes, linear), np.where(known, bent, residual)


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
    return free, tangent_logs(maps.linear, maps.linked, planes, directions)[0], overlap


def _belong_in_planes(maps: LocalMaps, free: Floats, in_planes: Floats | None, overlap: float) -> bool:
    """Whether free vectors leave the tangent planes, or are among those that the maps stretch across them.

    If the leading ones are those in the planes, the next one grows with what is across.
    """
    if in_planes is None:
        return False
    last, following = _mean(free)[in_planes.shape[1] - 1 :][:2]
    return overlap < _IN_PLANE or not _outside(maps, in_planes.shape[1]) < (last + following) / 2


def _outside(maps: LocalMaps, directions: int) -> float:
    """Leading exponent of the maps across the tangent planes, per map.

    Where the attractor is only curved, it is the curvature that the maps stretch there, at twice the leading exponent
    of the dynamics, and vectors that lie close to the planes can grow at that spurious rate too.
    """
    from trajtools._kernels.tangents import tangent_logs

    across = maps.principal[:, directions:]
    linked = maps.linked[1:]
    between = across[1:] @ maps.linear[:-1] @ np.swapaxes(across[:-1], 1, 2)
    if not linked.any():
        return float("inf")
    continued = np.concatenate([[False], linked[:-1]])[linked]
    return float(_mean(tangent_logs(np.ascontiguousarray(between[linked]), continued, None, 1)[0])[0])


def _warnings(
    across: Thickness,
    whole: Floats,
    values: Floats,
    shifts: Floats,
    wanted: int,
    *,
    unexplained: float,
    blocks: int,
    plain: bool,
) -> tuple[Reason, ...]:
    warnings = []
    d, directions = len(whole), across.directions
    if unexplained > MOST_UNEXPLAINED:
        text = (
            "the maps leave {share:.0%} of the variance unexplained (median): noise, missing coordinates, or too few "
            "states; their exponents are meaningless, and omitted"
        )
        if d == 1 and plain:
            text += ". A series shows one coordinate of its system: embed it with dim= (2, 3, ...) and delay="
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
            "space the maps give {listed}, of which {spurious} spurious or unresolved",
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
    if len(resolved) > 1 and resolved[-1] < -np.abs(resolved[0]) and not np.isfinite(shifts[len(resolved) - 1]):
        text = (
            "the most negative exponent, {lowest:.3g}, has a bias that its interval leaves out: neighbours are closest "
            "in the contracting direction, and the record is too short for larger neighbourhoods, which would show it"
        )
        warnings.append(Reason.of("neighborhood-bias", text, lowest=float(resolved[-1])))
    if blocks < FEWEST_BLOCKS:
        text = "fewer than {needed} local maps: the intervals are unknown"
        warnings.append(Reason.of("interval-unknown", text, needed=FEWEST_BLOCKS * SHORTEST_BLOCK))
    return tuple(warnings)
