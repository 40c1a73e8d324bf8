"""Metrics, their registry by name, and the rounding floor of distances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from trajtools.errors import DataError, UnknownNameError
from trajtools.types import DIFFERING, L1, L2, LINF, Floats, StatesLike
from trajtools.wiring import NodeSet, Parameter

OPERATIONS = {"l1": L1, "l2": L2, "linf": LINF, "differing": DIFFERING}
"""Sum of the absolute differences, root of the sum of their squares, the largest, the number of those not zero."""


RowMetric = Callable[[Any, Any], Any]
KINDS = ("metric", "pseudo-metric", "divergence", "unstated")
ENTRY_POINTS = "trajtools.metrics"


# Bits of the significand that are stored, and exponent of the smallest normal number.
FORMATS = {"float16": (10, -14), "bfloat16": (7, -126), "float32": (23, -126), "float64": (52, -1022)}


@dataclass(frozen=True)
class Metric:
    """A distance between two states, and what it says of itself.

    Attributes
    ----------
    name : str
        Its name in `METRICS`.
    description : str
        One line for people.
    pairs : callable
        ``pairs(a, b, left, right)`` with states a (t, m, p) and b (t, n, p) gives the distances (t, k) of
        ``a[:, left[k]]`` and ``b[:, right[k]]``, over the p entries it is shown. With `features`, a and b hold those.
    merge : callable or None
        Puts the distances over two disjoint sets of entries together; None: the metric needs all entries at once.
    finish : callable or None
        ``finish(distance, P)``: the last step, once all P entries are merged.
    rounding : callable or None
        ``rounding(sums, P)``: the distance that rounding alone produces, from the sum, the root of the sum of squares
        and the maximum of the spacings of the weights; None: unknown.
    kind : str
        ``"metric"``: zero for equal states only, symmetric, obeys the triangle inequality; ``"pseudo-metric"``: may be
        zero for states that differ; ``"divergence"``: zero on itself, the triangle inequality is not claimed;
        ``"unstated"``: nothing is claimed (a function that was given).
    symmetric : bool or None
        Whether d(a, b) = d(b, a); None: not said, then no one may count on it.
    invariant_to : tuple of str
        What may be done to a state (or to both) without any change of the distance.
    cost : str
        Operations for one pair of states of P weights, N nodes.
    features : callable or None
        ``features(states)`` with states (n, P) gives float64 (n, F): what is computed once for each state. `pairs` then
        compares features, and `merge` must be None.
    bind : callable or None
        ``bind(parameters, nodes)`` gives the metric for networks with this table of parameters and these node sets.
        Such a metric needs the wiring; its own `pairs` is never called. See `bind_metric`.
    following : callable or None
        ``following()`` gives a `pairs` that begins each search where its last call ended, for one caller that visits
        the states of the same pairs in the order of time. See `in_time`.
    sums : Sums or None
        How the distances of all pairs follow from sums over the weights, where they do: what makes `pairwise` fast.
    """

    name: str
    description: str
    pairs: Callable[..., Any]
    merge: Callable[[Any, Any], Any] | None = None
    finish: Callable[[Any, int], Any] | None = None
    rounding: Callable[[Any, int], Any] | None = None
    kind: str = "unstated"
    symmetric: bool | None = None
    invariant_to: tuple[str, ...] = ()
    cost: str = ""
    features: Callable[[Any], Any] | None = None
    bind: Callable[[Sequence[Parameter], Sequence[NodeSet]], Metric] | None = None
    following: Callable[[], Callable[..., Any]] | None = None
    sums: Sums | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"metric {self.name!r} is of kind {self.kind!r}; there are {', '.join(KINDS)}")
        if self.features is not None and self.merge is not None:
            raise DataError(f"metric {self.name!r} has features, which need whole states, and merges parts of states")

    @property
    def obeys_triangle(self) -> bool:
        """Whether the triangle inequality is claimed."""
        return self.kind in ("metric", "pseudo-metric")

    def described(self, states: Any) -> Any:
        """Return what `pairs` compares of a block of states: their features, or the block itself.

        Parameters
        ----------
        states : ndarray of float, shape (t, m, P)
            The block.

        Returns
        -------
        ndarray of float, shape (t, m, F) or (t, m, P)
        """
        if self.features is None:
            return states
        count, members, size = states.shape
        found = np.asarray(self.features(states.reshape(count * members, size)), dtype=np.float64)
        return np.ascontiguousarray(found.reshape(count, members, -1))


@dataclass(frozen=True)
class Sums:
    """A distance that follows from one sum over the weights.

    Attributes
    ----------
    operation : str
        One of `OPERATIONS`.
    finish : callable
        ``finish(sums, size, left, right)`` with sums (n, m), the number P of weights and the Euclidean norms (n,) and
        (m,) of the states (None unless `norms`) gives the distances (n, m).
    norms : bool
        Whether `finish` needs the norms.
    unit : bool
        Whether the states are divided by their norms first.
    signs : bool
        Whether the signs of the weights are compared instead of the weights.
    entries : tuple of slice or None
        The entries that count; None: all.
    """

    operation: str
    finish: Callable[[Floats, int, Any, Any], Floats]
    norms: bool = False
    unit: bool = False
    signs: bool = False
    entries: tuple[slice, ...] | None = None


def register_metric(name: str, function: RowMetric | Metric, *, description: str = "") -> None:
    """Add a metric, so that every function of the toolkit knows it by name.

    Parameters
    ----------
    name : str
        Its name; a name that is taken is refused.
    function : callable or Metric
        ``function(a, b)`` with two blocks of states, each (t, P), gives the t distances of equal rows.
    description : str
        One line for people.

    Raises
    ------
    UnknownNameError
        If the name is taken.
    DataError
        If `function` cannot be called.

    Notes
    -----
    Another package offers a metric without this call by an entry point of the group ``trajtools.metrics``. The
    numerical floor of such a metric is unknown, unless it is a `Metric` that says it.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> tt.distances.register_metric("first", lambda a, b: abs(a[:, 0] - b[:, 0]), description="of the first weight")
    >>> tt.distance(np.zeros((2, 3)), np.ones((2, 3)), metric="first")
    array([1., 1.])
    """
    if name in METRICS:
        raise UnknownNameError(f"a metric named {name!r} exists already; choose another name")
    if isinstance(function, Metric):
        METRICS.give(function, name)
    elif callable(function):
        METRICS.give(_from_rows(name, function, description), name)
    else:
        raise DataError(f"metric {name!r} must be a function of two blocks of states, not {type(function).__name__}")


def _from_rows(name: str, function: RowMetric, description: str) -> Metric:
    return Metric(name, description, _Rows(name, function))


@dataclass(frozen=True)
class _Rows:
    """The pairs of a metric that is a function of two blocks of states, row by row; it travels if the function does."""

    name: str
    function: RowMetric

    def __call__(self, a: Any, b: Any, left: Any, right: Any) -> Floats:
        out = np.empty((a.shape[0], len(left)))
        for k, (i, j) in enumerate(zip(left, right, strict=True)):
            row = np.asarray(self.function(a[:, i], b[:, j]), dtype=np.float64)
            if row.shape != (a.shape[0],):
                raise DataError(
                    f"metric {self.name!r} gave shape {row.shape} for two blocks of {a.shape[0]} states; "
                    f"it must give one distance per state, shape ({a.shape[0]},)"
                )
            out[:, k] = row
        return out


def rounding_floor(states: StatesLike, metric: MetricLike = "l1", *, dtype: DTypeLike | None = None) -> Floats:
    """Distance that rounding of the stored weights alone can produce between two equal states.

    Parameters
    ----------
    states : ndarray, shape (T, P)
        States of the reference.
    metric : str, callable or Metric
        The distance that is to be judged.
    dtype : dtype, str or None
        Format that the weights were stored in, if `states` holds them wider (``"float32"``, ``"bfloat16"``, ...).

    Returns
    -------
    ndarray of float64, shape (T,)
        Expected distance of two copies of each state that were rounded independently (for ``"linf"`` the largest
        possible); NaN where the metric has no known floor. Zero for integers.

    Raises
    ------
    DataError
        If the states are not two-dimensional.

    Notes
    -----
    Each weight is off by a uniform error of up to half the spacing u of its format, so the difference of two has the
    mean absolute value u/3 and the mean square u^2/6. A distance near the floor says nothing about the dynamics.

    Examples
    --------
    >>> import numpy as np
    >>> rounding_floor(np.ones((1, 3)), "l1") == np.spacing(1.0)
    array([ True])
    """
    states = np.asarray(states)
    if states.ndim != 2:
        raise DataError(f"floor needs states (T, P), got shape {states.shape}; a series (T,) is x[:, None]")
    name = str(states.dtype if dtype is None else dtype if dtype == "bfloat16" else np.dtype(dtype))
    return block_floor(states[:, None, :], find_metric(metric), name, states.shape[1])[:, 0]


def block_floor(block: Any, metric: Metric, dtype: str, size: int) -> Floats:
    """Return the numerical floor (t, m) of states (t, m, p) that were stored as `dtype` and have P = `size` weights."""
    if np.dtype(block.dtype).kind in "biu":
        return np.zeros(block.shape[:2])
    if metric.rounding is None or dtype not in FORMATS:
        return np.full(block.shape[:2], np.nan)
    from trajtools._kernels.distances import rounding_rows

    sums = rounding_rows(kernel_ready(block), *FORMATS[dtype])
    return np.asarray(metric.rounding(sums, size), dtype=np.float64)


def kernel_ready(block: Any) -> Any:
    """Return the block contiguous, as float32 or float64; every narrower format fits into float32 exactly."""
    block = np.asarray(block)
    if block.dtype in (np.float16, np.float32):
        return np.ascontiguousarray(block, dtype=np.float32)
    if np.issubdtype(block.dtype, np.complexfloating) or block.dtype.kind not in "biuf":
        raise DataError(f"states must be real numbers, not {block.dtype}")
    return np.ascontiguousarray(block, dtype=np.float64)


def find_metric(metric: MetricLike) -> Metric:
    """Return the metric of this name; a function of two blocks of states (t, P) is taken as it is."""
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return _from_rows(getattr(metric, "__name__", "custom"), metric, "given as a function")
    if isinstance(metric, str) and metric in METRICS:
        return METRICS[metric]
    raise UnknownNameError(
        f"there is no metric {metric!r}; there are {', '.join(METRICS)}, and `register_metric` adds one"
    )


def as_they_are(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """The distances are there already."""
    return sums


def root_means(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """Euclidean distances per weight."""
    return sums / np.sqrt(size)


def shares(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """The part of the weights that was counted."""
    return sums / size


def halves(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """Half the squared distance of two unit vectors: 1 - cos."""
    found = sums * sums / 2
    found[left == 0] = np.nan
    found[:, right == 0] = np.nan
    return found


def of_the_larger(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """Euclidean distances as parts of the larger norm; two states that are zero do not differ."""
    larger = np.maximum(left[:, None], right[None, :])
    with np.errstate(invalid="ignore"):  # inf of a state that is excluded
        return np.divide(sums, larger, out=np.zeros_like(sums), where=larger > 0)


@dataclass(frozen=True)
class PerPair:
    """Sums over edges, divided by a number of pairs of nodes."""

    number: float

    def __call__(self, sums: Floats, size: int, left: Any, right: Any) -> Floats:
        """Divide."""
        return sums / self.number


def bind_metric(metric: Metric, *sources: Any) -> Metric:
    """Return the metric for the networks of these trajectories; one that needs no wiring comes back as it is."""
    if metric.bind is None:
        return metric
    tables = [(tuple(x.parameters), tuple(x.nodes)) for x in sources if getattr(x, "parameters", ())]
    if not tables:
        raise DataError(
            f"metric {metric.name!r} compares networks and needs to know what connects what; an array does not say it. "
            "Give a Trajectory with parameters and nodes (from a run, or Trajectory.from_array(x, parameters=, nodes=))"
        )
    if any(table != tables[0] for table in tables):
        raise DataError(f"metric {metric.name!r}: the trajectories are networks of different wiring")
    bound = metric.bind(*tables[0])
    return replace(bound, name=metric.name, bind=None)


def in_time(metric: Metric) -> Metric:
    """Return a metric that follows pairs of states along time, for one caller that visits them in that order."""
    return metric if metric.following is None else replace(metric, pairs=metric.following())


def in_line(block: Any, kind: np.dtype[Any]) -> tuple[Any, int]:
    """Return states (n, p) as one line of numbers, not copied if possible, and how far apart the states begin."""
    block = np.asarray(block)
    near = block.strides[1] == kind.itemsize and block.strides[0] % kind.itemsize == 0 and block.strides[0] >= 0
    if block.dtype != kind or not block.dtype.isnative or not near:
        block = kernel_ready(block).astype(kind, copy=False)
    stride = block.strides[0] // kind.itemsize
    length = (len(block) - 1) * stride + block.shape[1] if block.size else 0
    return np.lib.stride_tricks.as_strided(block, (length,), (kind.itemsize,), writeable=False), stride


class _Registry(Mapping[str, Metric]):
    """Metrics by name; those of other packages are found through the entry points `trajtools.metrics`."""

    def __init__(self) -> None:
        self._known: dict[str, Metric] = {}
        self._given: set[str] = set()

    @staticmethod
    @lru_cache(maxsize=1)
    def _offered() -> dict[str, Any]:
        return {point.name: point for point in entry_points(group=ENTRY_POINTS)}

    def __getitem__(self, name: str) -> Metric:
        if name not in self._known and name in self._offered():
            loaded = self._offered()[name].load()
            self.add(loaded if isinstance(loaded, Metric) else _from_rows(name, loaded, f"entry point {name}"), name)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self._known, *self._offered()])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def add(self, metric: Metric, name: str) -> None:
        self._known[name] = metric

    def give(self, metric: Metric, name: str) -> None:
        self._given.add(name)
        self.add(metric, name)

    def is_everywhere(self, metric: Metric) -> bool:
        """Whether another process finds it under its name: not what this process was given by `register_metric`."""
        return metric.name not in self._given and self._known.get(metric.name) is metric


MetricLike = str | RowMetric | Metric
METRICS = _Registry()  # filled by the package
