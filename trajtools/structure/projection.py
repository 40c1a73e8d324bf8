"""Joint principal components and classical multidimensional scaling of runs and their perturbed copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.distances.equal_times import as_states, check_alike
from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, TooLargeError
from trajtools.exponents.divergence import Divergence
from trajtools.inputs import takes_states
from trajtools.neighbors.search import evenly
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.statistics import average_curves, largest_finite, mean_curve, unit_scale
from trajtools.trajectory import Pair, StatesLike
from trajtools.types import Bools, Floats, Ints
from trajtools.wording import counted, spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.distances.metric import MetricLike
    from trajtools.store import Run

MOST_STATES = 8192  # their products are 512 MiB
_BLOCK_BYTES = 128 * 2**20


# Jimenez-Gonzalez et al. 2026: the time at which the growth of a distance in one coordinate stops.
LATE, SHARE_OF_STEEPEST, IN_A_ROW, OFFSET = 10, 0.15, 8, 1e-12


CHECKED, NEIGHBORS = 256, 12
_FULL_SPECTRUM, _MOST_DISTANCES = 1500, 4096
_EQUAL = 1e-6  # relative difference of degenerate eigenvalues


@dataclass(frozen=True, eq=False, repr=False)
class Projection(Result):
    """States of one or several trajectories in a few common coordinates.

    Attributes
    ----------
    method : str
        ``"pca"`` or ``"mds"``.
    metric : str
        Distance that the coordinates represent.
    coordinates : ndarray of float64, shape (N, k)
        One row per state, member after member; NaN for excluded states. The mean of all states is at 0, and the first
        trajectory ends at larger coordinates than it starts.
    member : ndarray of int64, shape (N,)
        Trajectory of each row.
    step : ndarray of int64, shape (N,)
        Step of each row.
    names : tuple of str
        Names of the trajectories.
    reference : ndarray of int64, shape (M,)
        Index of the reference of each perturbed copy; -1 for other trajectories.
    eigenvalues : ndarray of float64, shape (k,)
        Mean square of each coordinate times the number of states.
    share : ndarray of float64, shape (k,)
        Fraction of the total variance: each eigenvalue over the sum of all absolute eigenvalues.
    negative : float
        Fraction of that sum from negative eigenvalues, which have no coordinates; 0 for Euclidean distances.
    axes : ndarray of float64, shape (k, P)
        Directions in weight space, of length 1; empty for distances.
    distance_correlation, rank_correlation : float
        Pearson's and Spearman's correlation of distances in the coordinates with distances of the full states, over
        the pairs of at most 256 states.
    trustworthiness : float
        Trustworthiness of the neighbours in the coordinates, 0 to 1 (Venna and Kaski 2001).
    n_excluded : int
        States excluded because of NaN or inf.
    embedded, full : Divergence or None
        Divergence of the perturbed copies from their references: in the first coordinate, and in the L1 distance of the
        full states (for `mds`, in its metric). None without copies.
    decorrelation : ndarray of float64, shape (U,), in steps
        Decorrelation time of each copy from the first coordinate; NaN if not reached.
    decorrelation_full : ndarray of float64, shape (U,), in steps
        The same from the distance of the full states.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.random.default_rng(0).standard_normal((80, 3)).cumsum(axis=0)
    >>> projection = tt.structure.pca([x, x + 0.01])
    >>> projection.names, projection.coordinates.shape
    (('trajectory 0', 'trajectory 1'), (160, 2))
    """

    method: str
    metric: str
    coordinates: Floats
    member: Ints
    step: Ints
    names: tuple[str, ...]
    reference: Ints
    eigenvalues: Floats
    share: Floats
    negative: float
    axes: Floats
    distance_correlation: float
    rank_correlation: float
    trustworthiness: float
    n_excluded: int
    embedded: Divergence | None
    full: Divergence | None
    decorrelation: Floats
    decorrelation_full: Floats
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "coordinates": ("state", "coordinate"),
        "member": ("state",),
        "step": ("state",),
        "share": ("coordinate",),
        "eigenvalues": ("coordinate",),
    }

    def _sentence(self) -> str:
        text = f"{counted(len(self.step), 'state')} of {counted(len(self.names), 'trajectory', 'trajectories')} in "
        text += f"{counted(self.coordinates.shape[1], 'coordinate')} ({self.method}, {self.metric}), which hold "
        text += (
            f"{float(self.share.sum()):.0%} of the variance; their distances correlate with those of the full states "
        )
        return text + f"with {spoken(self.distance_correlation, 3)}."

    def of(self, member: int = 0) -> Floats:
        """Coordinates of one trajectory.

        Parameters
        ----------
        member : int
            Index of the trajectory.

        Returns
        -------
        ndarray of float64, shape (T, k)
        """
        return self.coordinates[self.member == member]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the trajectories; see `trajtools.plots.projection`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Axes to draw in; None: a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes of the plot.
        """
        from trajtools import plots

        return plots.projection(self, ax=ax)


def trustworthiness(full: Floats, coordinates: Floats, neighbors: int) -> float:
    r"""Trustworthiness of nearest neighbours in the coordinates (Venna and Kaski 2001)."""
    n = len(full)
    own = np.eye(n, dtype=bool)
    rank = np.argsort(np.argsort(np.where(own, -1.0, full), axis=1, kind="stable"), axis=1, kind="stable")
    nearest = np.argsort(np.where(own, np.inf, coordinates), axis=1, kind="stable")[:, :neighbors]
    excess = np.take_along_axis(rank, nearest, axis=1) - neighbors
    return float(1.0 - 2.0 * excess[excess > 0].sum() / (n * neighbors * (2 * n - 3 * neighbors - 1)))


@takes_states("x", pairs=True, runs=True, single=True)
def pca(
    x: Run | StatesLike | Pair | Sequence[StatesLike], *, components: int = 2, scale: str | None = None
) -> Projection:
    r"""Principal components of all states of several trajectories together.

    Parameters
    ----------
    x : Run, Trajectory, array_like (T, P), pair (reference, [perturbed, ...]), or list of trajectories
        The trajectories; a Run stands for all its members. States need not fit in memory.
    components : int
        Number of coordinates.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.

    Returns
    -------
    Projection
        Coordinates in the unit of the weights.

    Raises
    ------
    DataError
        If `x` has another type, or all states are equal.
    TooLargeError
        If there are more than 8192 states.

    Notes
    -----
    The states are centred, their products :math:`G = X X^\top` are summed over blocks of weights in float64, and the
    coordinates are :math:`X u` with the axes u from the leading eigenvectors of G. The sign of each coordinate is such
    that the first trajectory ends at a larger value than it starts. Distances of perturbed copies are projected as
    differences of states, so that one of 1e-15 is not lost in coordinates of size 1.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> line = np.arange(20.0)[:, None] * [1.0, 2.0, 2.0]
    >>> tt.structure.pca(line).share.round(6).tolist()
    [1.0]
    """
    return _project(join(x), "pca", components)


def _project(joint: Joint, method: str, components: int, metric: str = "l2") -> Projection:
    _check_components(components)
    rows = int(joint.starts[-1])
    gram, usable, largest = _products(joint)
    scale = unit_scale(largest)
    if scale != 1.0:
        joint = replace(joint, scale=scale)
        gram, usable, _ = _products(joint)
    finite = np.flatnonzero(usable)
    if len(finite) < 2:
        raise DataError(f"{len(finite)} of {rows} states are finite; a projection needs two that differ")
    inner = _centred(gram[np.ix_(finite, finite)] if len(finite) < rows else gram)
    del gram
    total = float(np.trace(inner))
    if not total > 0:
        raise DataError(f"all {len(finite)} states are equal: there is no direction to project on")
    values, vectors = _leading(inner, min(components, len(finite) - 1))
    some = values > total * np.finfo(np.float64).eps * len(finite)
    values, vectors = values[some], vectors[:, some]
    sums = _project_directly(joint, finite, vectors, np.sqrt(values))
    unit = (1.0 if method == "pca" or metric == "l2" else 1.0 / np.sqrt(joint.size)) / joint.scale
    sign = _signs(sums.scores, int(np.count_nonzero(finite < joint.starts[1])))
    scores, apart = sums.scores * sign * unit, sums.apart * unit
    coordinates = np.full((rows, len(values)), np.nan)
    coordinates[finite] = scores
    sample = evenly(np.arange(len(finite)), CHECKED)
    head = {
        "method": method,
        "metric": metric if method == "mds" else "l2",
        "coordinates": coordinates,
        "eigenvalues": _squared(values, unit),
        "share": values / total,
        "negative": 0.0,
        "axes": sums.axes * sign[:, None],
    }
    sampled = scores[sample] * joint.scale
    return _finish(
        joint, head, np.sqrt(sums.squares), sampled, twins=(apart, sums.between / joint.scale, "l1"), unit=unit
    )


def _products(joint: Joint) -> tuple[Floats, Bools, float]:
    """Products of all states, which of them are finite, and the largest magnitude in those."""
    rows = int(joint.starts[-1])
    gram, usable, largest = np.zeros((rows, rows)), np.ones(rows, dtype=bool), 0.0
    for _, block in joint.columns():
        good = np.isfinite(block).all(axis=1)
        usable &= good
        largest = max(largest, largest_finite(block[good]))
        if unit_scale(largest) != 1.0:
            continue  # only the magnitude is needed
        if good.any():
            block[good] -= block[good].mean(axis=0)
        block[~good] = 0.0
        gram += block @ block.T
    return gram, usable, largest


@dataclass(frozen=True, eq=False)
class Joint:
    """Trajectories side by side.

    Attributes
    ----------
    members : tuple
        A Trajectory or array (T, P) each.
    names : tuple of str
        What they are called.
    reference : ndarray of int64, shape (M,)
        Index of the reference of each copy; -1 for other members.
    step : tuple of ndarray of int64
        Steps of each.
    time_unit : str
        Unit of the steps.
    scale : float
        Power of two that multiplies the blocks of `columns`, so that their squares neither overflow nor underflow.
    """

    members: tuple[Any, ...]
    names: tuple[str, ...]
    reference: Ints
    step: tuple[Ints, ...]
    time_unit: str
    scale: float = 1.0

    @property
    def size(self) -> int:
        """Number of weights in a state."""
        return int(self.members[0].shape[1])

    @property
    def starts(self) -> Ints:
        """First row of each member, and one past the last row of all."""
        return np.concatenate([[0], np.cumsum([len(each) for each in self.members])])

    def member_of_rows(self) -> Ints:
        """Member of each row."""
        return np.repeat(np.arange(len(self.members)), np.diff(self.starts))

    def columns(self) -> Iterator[tuple[slice, Floats]]:
        """Yield blocks of entries of all states, float64 (N, p), scaled."""
        rows = int(self.starts[-1])
        width = max(1, _BLOCK_BYTES // (8 * max(rows, 1)))
        for first in range(0, self.size, width):
            span = slice(first, min(first + width, self.size))
            block = np.empty((rows, span.stop - span.start))
            for each, start in zip(self.members, self.starts[:-1], strict=True):
                part = each.read(0, None, span) if hasattr(each, "read") else each[:, span]
                block[start : start + len(each)] = part
            yield span, block if self.scale == 1.0 else block * self.scale


def _squared(values: Floats, unit: float) -> Floats:
    """Squares in another unit; infinite beyond the largest float."""
    with np.errstate(over="ignore", under="ignore"):
        return values * unit * unit


def _check_components(components: int) -> None:
    if isinstance(components, bool) or not isinstance(components, (int, np.integer)) or components < 1:
        raise DataError(f"components={components!r}: it must be a positive integer")


def _centred(inner: Floats) -> Floats:
    """Inner products of the centred states."""
    means = inner.mean(axis=0)
    return inner - means - means[:, None] + means.mean()


def _leading(inner: Floats, count: int) -> tuple[Floats, Floats]:
    """Largest eigenvalues, descending, and their vectors; reproducible to the bit."""
    if len(inner) <= _FULL_SPECTRUM or count > len(inner) // 4:
        values, vectors = np.linalg.eigh(inner)
        return values[::-1][:count], vectors[:, ::-1][:, :count]
    from scipy.sparse.linalg import eigsh

    values, vectors = eigsh(inner, k=count, which="LA", v0=np.random.default_rng(0).standard_normal(len(inner)))
    return values[::-1], vectors[:, ::-1]


def _project_directly(joint: Joint, finite: Ints, vectors: Floats, roots: Floats) -> _Sums:
    """Project all states, and compute the distances of close pairs directly, not from products."""
    from trajtools._kernels.distances import TILE, distance_rows
    from trajtools.types import L2

    starts, copies = joint.starts, np.flatnonzero(joint.reference >= 0)
    for copy in copies:
        check_alike(joint.members[joint.reference[copy]], joint.members[copy])
    length = len(joint.step[copies[0]]) if len(copies) else 0
    sample = finite[evenly(np.arange(len(finite)), CHECKED)]
    out = _Sums(
        np.zeros((len(finite), len(roots))),
        np.zeros((len(roots), joint.size)),
        np.zeros((len(copies), length)),
        np.zeros((len(copies), length)),
        np.zeros((len(sample), len(sample))),
    )
    for span, block in joint.columns():
        inside = block[finite]
        inside -= inside.mean(axis=0)
        axes = inside.T @ (vectors / roots)
        out.axes[:, span] = axes.T
        out.scores[:] += inside @ axes
        part = np.zeros(out.squares.shape)
        distance_rows(np.ascontiguousarray(block[sample]), L2, 0, -(-len(sample) // TILE), part)
        out.squares[:] += part**2
        for at, copy in enumerate(copies):
            reference = starts[joint.reference[copy]]
            difference = block[starts[copy] : starts[copy + 1]] - block[reference : reference + length]
            out.apart[at] += difference @ axes[:, 0]
            out.between[at] += np.abs(difference).sum(axis=1)
    return out


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums of the second pass over all states."""

    scores: Floats
    axes: Floats
    apart: Floats
    between: Floats
    squares: Floats


def _signs(scores: Floats, first: int) -> Floats:
    """Signs such that the first trajectory ends above its start, or its largest entry is positive."""
    scale = np.abs(scores).max(axis=0)
    moved = scores[max(first - 1, 0)] - scores[0]
    largest = scores[np.argmax(np.abs(scores), axis=0), np.arange(scores.shape[1])]
    return np.where(np.where(np.abs(moved) > _EQUAL * scale, moved, largest) < 0, -1.0, 1.0)


def _finish(
    joint: Joint,
    head: dict[str, Any],
    full: Floats,
    coordinates: Floats,
    *,
    twins: tuple[Floats, Floats, str],
    unit: float,
) -> Projection:
    distances = np.sqrt(((coordinates[:, None, :] - coordinates[None, :, :]) ** 2).sum(axis=2))
    neighbors = min(NEIGHBORS, (len(full) - 1) // 3)
    pearson, spearman = distance_correlations(full, distances)
    embedded = complete = None
    late = late_full = np.empty(0)
    apart, between, metric = twins
    if len(apart):
        embedded = _divergence(joint, np.abs(apart), f"{head['method']}, first coordinate")
        complete = _divergence(joint, between, metric)
        late, late_full = _decorrelation(joint, np.abs(apart)), _decorrelation(joint, between)
    excluded = int(np.count_nonzero(np.isnan(head["coordinates"]).any(axis=1)))
    return Projection(
        **head,
        member=np.repeat(np.arange(len(joint.step)), [len(s) for s in joint.step]),
        step=np.concatenate(joint.step),
        names=joint.names,
        reference=joint.reference,
        distance_correlation=pearson,
        rank_correlation=spearman,
        trustworthiness=trustworthiness(full, distances, neighbors) if neighbors else float("nan"),
        n_excluded=excluded,
        embedded=embedded,
        full=complete,
        decorrelation=late,
        decorrelation_full=late_full,
        settings={"components": len(head["share"]), "unit": float(unit), "checked": len(full), "neighbors": neighbors},
        warnings=_warnings(head, excluded),
    )


def distance_correlations(full: Floats, coordinates: Floats) -> tuple[float, float]:
    """Pearson's and Spearman's correlation over all pairs."""
    from scipy.stats import rankdata

    upper = np.triu_indices(len(full), 1)
    a, b = full[upper], coordinates[upper]
    return _pearson(a, b), _pearson(rankdata(a), rankdata(b))


def _pearson(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def _divergence(joint: Joint, distances: Floats, metric: str) -> Divergence:
    """Distances (U, T) of the copies as a divergence."""
    copies = np.flatnonzero(joint.reference >= 0)
    group = joint.reference[copies]
    start = np.array([joint.step[copy][0] for copy in copies], dtype=np.int64)
    time = (joint.step[copies[0]] - joint.step[copies[0]][0]).astype(np.float64)
    curves, of, _ = average_curves(distances, group, start, "mean-log")
    return Divergence(
        method="twins",
        metric=metric,
        average="mean-log",
        time=time,
        time_unit=joint.time_unit,
        log_distance=mean_curve(curves, of),
        distances=distances,
        group=group,
        start=start,
        floor=np.full(distances.shape, np.nan),
        scale=np.full(len(copies), np.nan),
        n_references=len(np.unique(group)),
        settings={"metric": metric, "average": "mean-log"},
    )


def _decorrelation(joint: Joint, distances: Floats) -> Floats:
    """Decorrelation times of the copies, in steps."""
    copies = np.flatnonzero(joint.reference >= 0)
    out = np.full(len(copies), np.nan)
    for at, copy in enumerate(copies):
        index = decorrelation_index(distances[at])
        if np.isfinite(index):
            out[at] = joint.step[copy][int(index)] - joint.step[copy][0]
    return out


def decorrelation_index(distance: Floats) -> float:
    r"""First sample at which the logarithm of a distance stops growing (Jimenez-Gonzalez et al. 2026)."""
    if len(distance) < LATE + IN_A_ROW or not np.isfinite(distance).all():
        return float("nan")
    slope = np.gradient(np.log(distance + OFFSET))[LATE:]
    steepest = float(slope.max())
    if not steepest > 0:
        return float("nan")
    calm = (slope < SHARE_OF_STEEPEST * steepest).astype(np.int64)
    runs = np.convolve(calm, np.ones(IN_A_ROW, dtype=np.int64), mode="valid")
    first = np.flatnonzero(runs == IN_A_ROW)
    return float(first[0] + LATE) if len(first) else float("nan")


def _warnings(head: dict[str, Any], excluded: int) -> tuple[Reason, ...]:
    warnings = []
    if excluded:
        text = "{excluded} states contain NaN or inf and are excluded"
        warnings.append(Reason.of("not-finite", text, excluded=excluded))
    values = head["share"]  # the eigenvalues can be too large for a float
    for k in range(len(values) - 1):
        if values[k] - values[k + 1] <= _EQUAL * values[k]:
            text = "coordinates {first} and {second} have equal variance: only their plane is determined"
            warnings.append(Reason.of("equal-spreads", text, first=k, second=k + 1))
    if head["negative"] > 0.1:
        text = "{share:.0%} of the spread of the distances is not Euclidean and has no coordinates"
        warnings.append(Reason.of("not-euclidean", text, share=head["negative"]))
    return tuple(warnings)


def join(x: Any) -> Joint:
    """Join trajectories for a common projection."""
    if hasattr(x, "members") and hasattr(x, "trajectory"):
        trajectories = [x.trajectory(m) for m in range(len(x.members))]
        names = tuple(member.name for member in x.members)
        reference = np.array([member.reference for member in x.members], dtype=np.int64)
        return _checked(trajectories, names, reference, x.time_unit)
    if isinstance(x, (list, tuple)) and len(x) == 2 and isinstance(x[1], (list, tuple)) and _is_states(x[0]):
        if not x[1] or not all(_is_states(each) for each in x[1]):
            raise DataError("the reference has no copies; pass (reference, [perturbed, ...])")
        names = ("reference", *(f"copy {i + 1}" for i in range(len(x[1]))))
        return _checked([x[0], *x[1]], names, np.array([-1] + [0] * len(x[1])))
    if isinstance(x, (list, tuple)) and x and all(_is_states(each) for each in x):
        return _checked(list(x), tuple(f"trajectory {i}" for i in range(len(x))), np.full(len(x), -1))
    return _checked([x], ("trajectory",), np.array([-1]))


def _checked(trajectories: list[Any], names: tuple[str, ...], reference: Ints, time_unit: str | None = None) -> Joint:
    members = tuple(as_states(each, name) for each, name in zip(trajectories, names, strict=True))
    sizes = {int(each.shape[1]) for each in members}
    if len(sizes) > 1 or 0 in sizes:
        raise DataError(f"the states have {sorted(sizes)} weights; only states of one architecture can be compared")
    total = sum(len(each) for each in members)
    if total > MOST_STATES:
        raise TooLargeError(
            f"{total} states; the limit is {MOST_STATES}. Thin them out with "
            f"trajectory.window(every={-(-total // MOST_STATES)}), or use fewer members"
        )
    step = tuple(
        np.asarray(each.step, dtype=np.int64) if hasattr(each, "step") else np.arange(len(each)) for each in members
    )
    unit = time_unit or str(getattr(members[0], "time_unit", "step"))
    return Joint(members, names, reference.astype(np.int64), step, unit)


def _is_states(x: Any) -> bool:
    return (hasattr(x, "read") and hasattr(x, "step")) or (isinstance(x, np.ndarray) and x.ndim in (1, 2))


@takes_states("x", pairs=True, runs=True, single=True)
def mds(
    x: Run | StatesLike | Pair | Sequence[StatesLike] | Distances,
    *,
    components: int = 1,
    metric: MetricLike = "rms",
    scale: str | None = None,
) -> Projection:
    r"""Classical multidimensional scaling of all states of several trajectories together.

    Parameters
    ----------
    x : Run, Trajectory, array_like (T, P), pair (reference, [perturbed, ...]), or list of trajectories; or Distances
        The trajectories; a Run stands for all its members. Distances must be those of one trajectory, (T, T).
    components : int
        Number of coordinates; [1]_ uses 1.
    metric : str or callable
        Distance between states. ``"rms"``, :math:`\sqrt{\sum_k (w_k - w'_k)^2 / P}`, and ``"l2"`` are computed by
        columns from states of any size; for others all distances are computed (`trajtools.pairwise`). Ignored for
        Distances.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.

    Returns
    -------
    Projection
        Coordinates whose distances approximate those of the states.

    Raises
    ------
    DataError
        If `x` has another type, or all states are equal.
    TooLargeError
        If there are more than 8192 states.

    Notes
    -----
    .. math:: B = -\tfrac{1}{2} H D^2 H = V \Lambda V^\top, \quad z_m = v_m \sqrt{\lambda_m}

    with the centring matrix H. For ``"rms"`` these are the principal components over :math:`\sqrt{P}`, and are computed
    as such. Other metrics may have negative eigenvalues: that part of the distances has no coordinates.

    References
    ----------
    .. [1] Jimenez-Gonzalez, Soriano, Lacasa, Scalar representations of neural network training dynamics,
       arXiv:2606.30384 (2026)

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> line = np.arange(20.0)[:, None] * [1.0, 2.0, 2.0]
    >>> tt.structure.mds(line, metric="l2").share.round(6).tolist()
    [1.0]
    """
    if isinstance(x, Distances):
        return _project_distances(x, components)
    joint = join(x)
    if isinstance(metric, str) and metric in ("rms", "l2"):
        return _project(joint, "mds", components, metric=metric)
    from trajtools.distances.pairwise import pairwise

    states = joint.members[0] if len(joint.members) == 1 else np.concatenate([np.asarray(m) for m in joint.members])
    return _project_distances(pairwise(states, metric=metric), components, joint)


def _project_distances(distances: Distances, components: int, joint: Joint | None = None) -> Projection:
    _check_components(components)
    if not distances.symmetric:
        raise DataError(f"scaling needs symmetric distances of one trajectory, (T, T); these are {distances!r}")
    if len(distances) > _MOST_DISTANCES:
        raise TooLargeError(
            f"{len(distances)} states; scaling is limited to {_MOST_DISTANCES}. Thin the distances out "
            f"with window(every={-(-len(distances) // _MOST_DISTANCES)}), or use metric='rms' on the states"
        )
    finite = np.flatnonzero(~np.asarray(distances.excluded))
    matrix = np.asarray(distances.values)[np.ix_(finite, finite)]
    if len(finite) < 2 or not np.nanmax(matrix) > 0:
        raise DataError(f"all {len(distances)} states are equal: there is no direction to project on")
    if not np.isfinite(matrix).all():
        raise DataError(
            f"{np.count_nonzero(~np.isfinite(matrix)) // 2} pairs of states have no distance in {distances.metric}; "
            "scaling needs all of them"
        )
    scale = unit_scale(float(matrix.max()))
    inner = _centred(-0.5 * (matrix * scale) ** 2)
    everything, vectors = np.linalg.eigh(inner)
    total = float(np.abs(everything).sum())
    values, vectors = everything[::-1][:components], vectors[:, ::-1][:, :components]
    some = values > total * np.finfo(np.float64).eps * len(finite)
    values, vectors = values[some], vectors[:, some]
    scores = vectors * np.sqrt(values)
    joint = joint or Joint((), ("trajectory",), np.array([-1]), (distances.step,), distances.time_unit)
    scores = scores * _signs(scores, int(np.count_nonzero(finite < len(joint.step[0]))))
    coordinates = np.full((len(distances), len(values)), np.nan)
    coordinates[finite] = scores / scale
    sample = evenly(np.arange(len(finite)), CHECKED)
    head = {
        "method": "mds",
        "metric": distances.metric,
        "coordinates": coordinates,
        "eigenvalues": _squared(values, 1 / scale),
        "share": values / total,
        "negative": float(-everything[everything < 0].sum()) / total,
        "axes": np.empty((0, 0)),
    }
    twins = (*_copies_in(distances, joint, coordinates), distances.metric)
    return _finish(joint, head, matrix[np.ix_(sample, sample)] * scale, scores[sample], twins=twins, unit=1.0)


def _copies_in(distances: Distances, joint: Joint, coordinates: Floats) -> tuple[Floats, Floats]:
    """Distances of copies to their references in the first coordinate and in the metric, (U, T) each."""
    apart, between = [], []
    for copy in np.flatnonzero(joint.reference >= 0):
        check_alike(joint.members[joint.reference[copy]], joint.members[copy])
        own = np.arange(joint.starts[copy], joint.starts[copy + 1])
        other = own - joint.starts[copy] + joint.starts[joint.reference[copy]]
        apart.append(coordinates[own, 0] - coordinates[other, 0])
        between.append(np.asarray(distances.values[own, other]))
    return (np.stack(apart), np.stack(between)) if apart else (np.empty((0, 0)), np.empty((0, 0)))
