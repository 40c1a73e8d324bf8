"""System states: clusters in which a trajectory dwells (Masuda and Holme 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trajtools.distances.pairwise import Distances
from trajtools.errors import DataError, TooLargeError, UnknownNameError
from trajtools.inputs import takes_states
from trajtools.neighbors.search import evenly
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result
from trajtools.statistics import random_generator
from trajtools.trajectory import StatesLike
from trajtools.types import Floats, Ints, RNGLike
from trajtools.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trajtools.distances.metric import MetricLike

LINKAGES = ("average", "complete", "single", "weighted")
CRITERIA = ("silhouette", "dunn")


# Choices of this toolkit, listed in the settings of every result.
NULLS, ENOUGH = 99, 5  # records of the null; stop early once ENOUGH of them score as high


TESTED = 150  # evenly spaced states compared with the null
COORDINATES = 6  # principal coordinates of the null
SMALLEST = 3  # states in a system state
_MOST, _CORRELATED = 8192, 0.999
_NULL = (
    "in each principal coordinate a stationary Gaussian process with the same variance and the same correlation from "
    "one state to the next"
)


@dataclass(frozen=True, eq=False, repr=False)
class SystemStates(Result):
    """System states of a trajectory; one without evidence for more.

    Attributes
    ----------
    count : int
        Number K of system states.
    labels : ndarray of int64, shape (T,)
        System state of each state, numbered in the order of their first visit; -1 for excluded states.
    step : ndarray of int64, shape (T,)
        Step of each state.
    sizes : ndarray of int64, shape (K,)
        States in each.
    medoids : ndarray of int64, shape (K,)
        Index of the state with the smallest mean distance to the others of its system state.
    transitions : ndarray of int64, shape (K, K)
        Transitions from system state i (row) to j between consecutive samples.
    dwell : ndarray of int64, shape (V,), in samples
        Length of each visit, in order of time.
    visited : ndarray of int64, shape (V,)
        The system state of each visit.
    candidates : ndarray of int64, shape (n,)
        Numbers of system states compared.
    scores : ndarray of float64, shape (n,)
        The criterion for each of them.
    criterion : str
        ``"silhouette"``, ``"dunn"`` or ``"given"``.
    p_value : float
        Probability under the null of a score as high as the best one; NaN without a test.
    null : str
        Description of the null; empty without a test.
    linkage : str
        Linkage of the clusters.
    n_excluded : int
        States without distances.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.random.default_rng(0).standard_normal((80, 3)).cumsum(axis=0)
    >>> states = tt.structure.system_states(np.r_[x, x + 100])
    >>> states.count, states.labels[[0, -1]].tolist()
    (2, [0, 1])
    """

    count: int
    labels: Ints
    step: Ints
    sizes: Ints
    medoids: Ints
    transitions: Ints
    dwell: Ints
    visited: Ints
    candidates: Ints
    scores: Floats
    criterion: str
    p_value: float
    null: str
    linkage: str
    n_excluded: int
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "labels": ("step",),
        "scores": ("candidates",),
        "dwell": ("visit",),
        "visited": ("visit",),
    }

    def _sentence(self) -> str:
        text = f"{counted(self.count, 'system state')} in {counted(len(self.step), 'state')}"
        if self.count > 1:
            text += f", with {counted(len(self.dwell), 'visit')}"
        return text + (f" (p = {self.p_value:.3g})." if np.isfinite(self.p_value) else ".")

    def mean_dwell(self) -> Floats:
        """Mean length of the visits to each system state, in samples.

        Returns
        -------
        ndarray of float64, shape (K,)
        """
        visits = np.bincount(self.visited, minlength=self.count)
        return np.asarray(np.bincount(self.visited, weights=self.dwell, minlength=self.count) / np.maximum(visits, 1))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the system states over time; see `trajtools.plots.system_states`.

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

        return plots.system_states(self, ax=ax)


@takes_states("x")
def system_states(
    x: StatesLike | Distances,
    *,
    metric: MetricLike = "l2",
    scale: str | None = None,
    linkage: str = "average",
    criterion: str = "silhouette",
    count: int | None = None,
    most: int = 8,
    alpha: float = 0.01,
    rng: RNGLike = None,
) -> SystemStates:
    r"""Cluster the states of a trajectory into system states, possibly a single one.

    Parameters
    ----------
    x : Distances, shape (T, T); or Trajectory or array_like, shape (T, P) or (T,)
        Distances of the states, or the states.
    metric : str or callable
        Distance between states; ignored for Distances.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    linkage : str
        Linkage of the clusters: ``"average"``, ``"complete"``, ``"single"`` (that of [1]_) or ``"weighted"``.
    criterion : str
        Criterion that the number of clusters maximises: ``"silhouette"`` (mean over the states, [2]_) or ``"dunn"``
        (smallest distance between clusters over the largest within, [1]_).
    count : int or None
        Number of system states; None: from the criterion, or 1 if the null explains its best value.
    most : int
        Largest number of system states to try.
    alpha : float
        False-alarm rate: the fraction of records without system states for which more than one is reported.
    rng : int, numpy.random.Generator or None
        Generator of the null; None is the seed 0.

    Returns
    -------
    SystemStates
        Labels, dwell times, transitions, and the score of every number compared.

    Raises
    ------
    DataError, UnknownNameError
        If the distances are not suitable, or an option does not exist.
    TooLargeError
        If there are more than 8192 states.

    Notes
    -----
    Every set of points can be cut in two. The best score of at most 150 evenly spaced states is therefore compared with
    that of 99 records of a null: Gaussian processes of first order with the variances of their principal coordinates
    (at most 6, from the distances) and their correlations between consecutive states, which move as far and as smoothly
    but dwell nowhere. Noise, a steady drift and a smooth path all give one state; a relaxation dwells at its end.
    [1]_ makes no such test.

    References
    ----------
    .. [1] N. Masuda, P. Holme, Sci. Rep. 9, 795 (2019), doi:10.1038/s41598-018-37534-2
    .. [2] P. J. Rousseeuw, J. Comput. Appl. Math. 20, 53 (1987), doi:10.1016/0377-0427(87)90125-7

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> place = np.repeat([0.0, 5.0, 0.0, 5.0], [40, 60, 50, 50])
    >>> s = tt.structure.system_states(place[:, None] + np.random.default_rng(0).normal(size=(200, 3)))
    >>> s.count, s.transitions.tolist(), s.dwell.tolist()
    (2, [[88, 2], [1, 108]], [40, 60, 50, 50])
    """
    if linkage not in LINKAGES:
        raise UnknownNameError(f"no linkage {linkage!r}; there are {', '.join(LINKAGES)}")
    if criterion not in CRITERIA:
        raise UnknownNameError(f"no criterion {criterion!r}; there are {', '.join(CRITERIA)}")
    if not 1 / (NULLS + 1) <= alpha < 1:
        raise DataError(f"alpha={alpha!r}; it must lie between {1 / (NULLS + 1)} ({NULLS} null records) and 1")
    for name, value, least in (("count", count, 1), ("most", most, 2)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least):
            raise DataError(f"{name}={value!r}; it must be an integer of at least {least}")
    distances = _distances(x, metric)
    finite = np.flatnonzero(~np.asarray(distances.excluded))
    matrix = _checked(distances, finite, count)
    tree = _tree(matrix, linkage)
    p_value, null, selected = float("nan"), "", count
    candidates, scores = np.empty(0, dtype=np.int64), np.empty(0)
    if count is None:
        candidates, scores = _scores(matrix, tree, most, criterion)
        selected = int(candidates[np.argmax(scores)]) if len(candidates) else 1
        if len(candidates):
            p_value = _p_value(matrix, linkage, criterion, most, random_generator(rng))
            null = _NULL
            selected = selected if p_value <= alpha else 1
    labels = np.full(len(distances), -1, dtype=np.int64)
    labels[finite] = _in_order(_cut(tree, int(selected or 1)))
    return _result(distances, matrix, finite, labels, {
        "candidates": candidates, "scores": scores, "criterion": criterion if count is None else "given",
        "p_value": p_value, "null": null, "linkage": linkage,
        "settings": {"metric": distances.metric, "linkage": linkage, "criterion": criterion, "count": count,
                     "most": most, "alpha": alpha, "nulls": NULLS, "tested": min(TESTED, len(finite)),
                     "coordinates": COORDINATES, "smallest": SMALLEST},
    })  # fmt: skip


def _distances(x: Any, metric: Any) -> Distances:
    if isinstance(x, Distances):
        return x
    from trajtools.distances.pairwise import pairwise

    return pairwise(x, metric=metric)


def _checked(distances: Distances, finite: Ints, count: int | None) -> Floats:
    if not distances.symmetric:
        raise DataError(f"clustering needs symmetric distances of one trajectory, (T, T); these are {distances!r}")
    if len(distances) > _MOST:
        raise TooLargeError(
            f"{len(distances)} states; clustering is limited to {_MOST}. Thin them out with "
            f"window(every={-(-len(distances) // _MOST)})"
        )
    if not len(finite) or (count or 1) > len(finite):
        raise DataError(
            f"{len(finite)} of {len(distances)} states have distances; clustering needs at least {count or 1}"
        )
    matrix = np.asarray(distances.values)[np.ix_(finite, finite)]
    if not np.isfinite(matrix).all():
        raise DataError(
            f"{np.count_nonzero(~np.isfinite(matrix)) // 2} pairs of states have no distance in {distances.metric}; "
            "clustering needs all of them"
        )
    return matrix


def _tree(matrix: Floats, linkage: str) -> Floats:
    """Linkage matrix, (n - 1, 4)."""
    if len(matrix) < 2:
        return np.empty((0, 4))
    from scipy.cluster.hierarchy import linkage as joined

    return np.asarray(joined(matrix[np.triu_indices(len(matrix), 1)], method=linkage))


def _in_order(labels: Ints) -> Ints:
    """Number the clusters in the order of their first state."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _result(distances: Distances, matrix: Floats, finite: Ints, labels: Ints, head: dict[str, Any]) -> SystemStates:
    inside = labels[finite]
    number = int(inside.max()) + 1
    pairs = (labels[1:] >= 0) & (labels[:-1] >= 0)
    transitions = np.zeros((number, number), dtype=np.int64)
    np.add.at(transitions, (labels[:-1][pairs], labels[1:][pairs]), 1)
    starts = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    lengths = np.diff(np.append(starts, len(labels)))
    visits = labels[starts] >= 0
    excluded = len(labels) - len(finite)
    medoids = [
        finite[members[np.argmin(matrix[np.ix_(members, members)].mean(axis=1))]]
        for members in (np.flatnonzero(inside == k) for k in range(number))
    ]
    text = "{excluded} states have no distances; visits end at them"
    return SystemStates(
        count=number,
        labels=labels,
        step=distances.step,
        sizes=np.bincount(inside, minlength=number),
        medoids=np.array(medoids, dtype=np.int64),
        transitions=transitions,
        dwell=lengths[visits],
        visited=labels[starts][visits],
        n_excluded=excluded,
        warnings=(Reason.of("not-finite", text, excluded=excluded),) if excluded else (),
        **head,
    )


def _scores(matrix: Floats, tree: Floats, most: int, criterion: str) -> tuple[Ints, Floats]:
    """Feasible numbers of clusters, each with at least SMALLEST states, and their scores."""
    counts, scores = [], []
    for count in range(2, min(most, len(matrix) // SMALLEST) + 1):
        labels = _cut(tree, count)
        if np.bincount(labels).min() < SMALLEST:
            continue
        score = silhouette(matrix, labels) if criterion == "silhouette" else dunn(matrix, labels)
        if np.isfinite(score):
            counts.append(count)
            scores.append(score)
    return np.array(counts, dtype=np.int64), np.array(scores)


def _cut(tree: Floats, count: int) -> Ints:
    """Labels (n,) of `count` clusters; fewer only if there are fewer states."""
    size = len(tree) + 1
    parent = np.arange(2 * size - 1)
    for at in range(size - count):
        parent[tree[at, :2].astype(np.int64)] = size + at
    for node in range(2 * size - 2, -1, -1):
        parent[node] = parent[parent[node]]
    return np.unique(parent[:size], return_inverse=True)[1].astype(np.int64)


def silhouette(matrix: Floats, labels: Ints) -> float:
    r"""Mean over the states of :math:`(b - a) / \max(a, b)` (Rousseeuw 1987)."""
    sizes = np.bincount(labels)
    means = matrix @ np.eye(len(sizes))[labels]
    own = np.take_along_axis(means, labels[:, None], axis=1)[:, 0] / np.maximum(sizes[labels] - 1, 1)
    means /= sizes
    np.put_along_axis(means, labels[:, None], np.inf, axis=1)
    other = means.min(axis=1)
    larger = np.maximum(own, other)
    alone = (sizes[labels] == 1) | (larger == 0)
    return float(np.mean(np.where(alone, 0.0, (other - own) / np.where(alone, 1.0, larger))))


def dunn(matrix: Floats, labels: Ints) -> float:
    """Smallest distance between two clusters over the largest distance within one (Dunn 1974)."""
    same = labels[:, None] == labels[None, :]
    within, between = float(matrix[same].max()), float(matrix[~same].min())
    return between / within if within > 0 else float("nan")


def _p_value(matrix: Floats, linkage: str, criterion: str, most: int, rng: np.random.Generator) -> float:
    """P-value of the best score against records of the null."""
    sample = evenly(np.arange(len(matrix)), TESTED)
    if len(sample) < 4 * SMALLEST:
        return 1.0
    inner = -0.5 * matrix[np.ix_(sample, sample)] ** 2
    inner = inner - inner.mean(axis=0) - inner.mean(axis=1)[:, None] + inner.mean()
    values, vectors = np.linalg.eigh(inner)
    coordinates = (vectors * np.sqrt(np.maximum(values, 0.0)))[:, ::-1][:, :COORDINATES]
    best = _best(coordinates, linkage, criterion, most)
    above = 0
    for draw in range(1, NULLS + 1):
        above += _best(_wandering(coordinates, rng), linkage, criterion, most) >= best
        if above >= ENOUGH:
            return above / draw  # Besag and Clifford 1991
    return (above + 1) / (NULLS + 1)


def _best(coordinates: Floats, linkage: str, criterion: str, most: int) -> float:
    matrix = np.sqrt(((coordinates[:, None] - coordinates[None]) ** 2).sum(axis=2))
    _, scores = _scores(matrix, _tree(matrix, linkage), most, criterion)
    return float(scores.max()) if len(scores) else -np.inf


def _wandering(coordinates: Floats, rng: np.random.Generator) -> Floats:
    """A record of the null."""
    spread = coordinates.std(axis=0)
    centred = coordinates - coordinates.mean(axis=0)
    moved = (centred[1:] * centred[:-1]).sum(axis=0)
    size = (centred**2).sum(axis=0)
    rho = np.clip(moved / np.where(size > 0, size, 1.0), -_CORRELATED, _CORRELATED)
    out = rng.standard_normal(coordinates.shape)
    out[1:] *= np.sqrt(1 - rho**2)
    for t in range(1, len(out)):
        out[t] += rho * out[t - 1]
    return np.asarray(out * spread)
