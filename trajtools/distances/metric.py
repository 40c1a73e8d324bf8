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
from trajtools.inputs import takes_states
from trajtools.trajectory import StatesLike
from trajtools.types import DIFFERING, L1, L2, LINF, Floats
from trajtools.wiring import NodeSet, Parameter

OPERATIONS = {"l1": L1, "l2": L2, "linf": LINF, "differing": DIFFERING}
"""Sum, root of the sum of squares, maximum and number of non-zero entries of the absolute differences."""


RowMetric = Callable[[Any, Any], Any]
KINDS = ("metric", "pseudo-metric", "divergence", "unstated")
ENTRY_POINTS = "trajtools.metrics"


# Stored bits of the significand, and exponent of the smallest normal number.
FORMATS = {"float16": (10, -14), "bfloat16": (7, -126), "float32": (23, -126), "float64": (52, -1022)}


@dataclass(frozen=True)
class Metric:
    """A distance between two states, with its properties.

    Attributes
    ----------
    name : str
        Its name in `METRICS`.
    description : str
        One line.
    pairs : callable
        ``pairs(a, b, left, right)`` with states a (t, m, p) and b (t, n, p) gives the distances (t, k) of
        ``a[:, left[k]]`` and ``b[:, right[k]]`` over these p entries. With `features`, a and b hold features.
    merge : callable or None
        Merges the distances over two disjoint sets of entries; None: the metric needs all entries at once.
    finish : callable or None
        ``finish(distance, P)``: applied after all P entries are merged.
    rounding : callable or None
        ``rounding(sums, P)``: the distance due to rounding alone, from the sum, the root of the sum of squares and the
        maximum of the spacings of the weights; None: unknown.
    kind : str
        ``"metric"``: zero for equal states only, symmetric, obeys the triangle inequality; ``"pseudo-metric"``: may be
        zero for different states; ``"divergence"``: zero for equal states, no triangle inequality; ``"unstated"``: no
        property is claimed (a user's function).
    symmetric : bool or None
        Whether d(a, b) = d(b, a); None: unknown, treated as False.
    invariant_to : tuple of str
        Transformations of a state (or of both) that leave the distance unchanged.
    cost : str
        Operations for one pair of states of P weights, N nodes.
    features : callable or None
        ``features(states)`` with states (n, P) gives float64 (n, F), computed once for each state. `pairs` then
        compares features, and `merge` must be None.
    bind : callable or None
        ``bind(parameters, nodes)`` gives the metric for networks with this table of parameters and these node sets.
        Such a metric needs the wiring, and its own `pairs` is never called. See `bind_metric`.
    following : callable or None
        ``following()`` gives a `pairs` that starts each search from the result of its previous call, for a caller that
        visits the states of the same pairs in temporal order. See `in_time`.
    sums : Sums or None
        How the distance follows from a sum over the weights, if it does; makes `pairwise` fast.

    Examples
    --------
    >>> import trajtools as tt
    >>> metric = tt.distances.METRICS["l1"]
    >>> metric.name, metric.kind
    ('l1', 'metric')
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
        """Return what `pairs` compares: the features of a block of states, or the block itself.

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
        features = np.asarray(self.features(states.reshape(count * members, size)), dtype=np.float64)
        return np.ascontiguousarray(features.reshape(count, members, -1))


@dataclass(frozen=True)
class Sums:
    """A distance computed from one sum over the weights.

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
    """Register a metric under a name that every function accepts.

    Parameters
    ----------
    name : str
        Its name; it must be new.
    function : callable or Metric
        ``function(a, b)`` with two blocks of states, each (t, P), gives the t distances of equal rows.
    description : str
        One line.

    Raises
    ------
    UnknownNameError
        If the name exists already.
    DataError
        If `function` cannot be called.

    Notes
    -----
    Another package can provide a metric through an entry point of the group ``trajtools.metrics`` instead. The
    rounding floor of a plain function is unknown; a `Metric` can define it.

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
        METRICS.register_local(function, name)
    elif callable(function):
        METRICS.register_local(_from_rows(name, function, description), name)
    else:
        raise DataError(f"metric {name!r} must be a function of two blocks of states, not {type(function).__name__}")


def _from_rows(name: str, function: RowMetric, description: str) -> Metric:
    return Metric(name, description, _Rows(name, function))


@dataclass(frozen=True)
class _Rows:
    """`pairs` of a row-wise function of two blocks of states; picklable if the function is."""

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


@takes_states("states", single=True)
def rounding_floor(states: StatesLike, metric: MetricLike = "l1", *, dtype: DTypeLike | None = None) -> Floats:
    """Distance between two equal states due to rounding of the stored weights.

    Parameters
    ----------
    states : ndarray, shape (T, P)
        States of the reference.
    metric : str, callable or Metric
        Distance between states, see `METRICS`.
    dtype : dtype, str or None
        Storage format of the weights, if `states` has a wider one (``"float32"``, ``"bfloat16"``, ...).

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
    Each weight has a uniform error of up to half the spacing u of its format, so the difference of two has the mean
    absolute value u/3 and the mean square u^2/6. A distance near the floor carries no information about the dynamics.

    Examples
    --------
    >>> import numpy as np
    >>> rounding_floor(np.ones((1, 3)), "l1") == np.spacing(1.0)
    array([ True])
    """
    states = np.asarray(states)
    if states.ndim != 2:
        raise DataError(f"rounding_floor needs states (T, P), got shape {states.shape}; a series (T,) is x[:, None]")
    name = str(states.dtype if dtype is None else dtype if dtype == "bfloat16" else np.dtype(dtype))
    return block_floor(states[:, None, :], find_metric(metric), name, states.shape[1])[:, 0]


def block_floor(block: Any, metric: Metric, dtype: str, size: int) -> Floats:
    """Return the rounding floor (t, m) of states (t, m, p) stored as `dtype`, with P = `size` weights."""
    if np.dtype(block.dtype).kind in "biu":
        return np.zeros(block.shape[:2])
    if metric.rounding is None or dtype not in FORMATS:
        return np.full(block.shape[:2], np.nan)
    from trajtools._kernels.distances import rounding_rows

    sums = rounding_rows(*bits_of(kernel_ready(block)), *FORMATS[dtype])
    return np.asarray(metric.rounding(sums, size), dtype=np.float64)


def bits_of(states: Any) -> tuple[Any, int, int]:
    """Return states as unsigned integers, the bit at which exponents begin, and what they are raised by."""
    single = states.dtype == np.float32
    return (states.view(np.uint32), 23, 127) if single else (states.view(np.uint64), 52, 1023)


def kernel_ready(block: Any) -> Any:
    """Return the block contiguous, as float32 or float64; float32 represents every narrower format exactly."""
    block = np.asarray(block)
    if block.dtype in (np.float16, np.float32):
        return np.ascontiguousarray(block, dtype=np.float32)
    if np.issubdtype(block.dtype, np.complexfloating) or block.dtype.kind not in "biuf":
        raise DataError(f"states must be real numbers, not {block.dtype}")
    return np.ascontiguousarray(block, dtype=np.float64)


def find_metric(metric: MetricLike) -> Metric:
    """Look up a metric by name, or wrap a function of two blocks of states (t, P)."""
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return _from_rows(getattr(metric, "__name__", "custom"), metric, "given as a function")
    if isinstance(metric, str) and metric in METRICS:
        return METRICS[metric]
    raise UnknownNameError(
        f"there is no metric {metric!r}; there are {', '.join(METRICS)}, and `register_metric` adds one"
    )


def unchanged(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """Return the sums unchanged."""
    return sums


def root_means(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """Euclidean distances per weight."""
    return sums / np.sqrt(size)


def shares(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """Fractions of the weights."""
    return sums / size


def halves(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """Half the squared distance of two unit vectors: 1 - cos."""
    result = sums * sums / 2
    result[left == 0] = np.nan
    result[:, right == 0] = np.nan
    return result


def relative_to_larger(sums: Floats, size: int, left: Any, right: Any) -> Floats:
    """Euclidean distances divided by the larger norm; 0 for two zero states."""
    larger = np.maximum(left[:, None], right[None, :])
    with np.errstate(invalid="ignore"):  # inf of an excluded state
        return np.divide(sums, larger, out=np.zeros_like(sums), where=larger > 0)


@dataclass(frozen=True)
class PerPair:
    """Sums over edges, divided by a number of pairs of nodes."""

    number: float

    def __call__(self, sums: Floats, size: int, left: Any, right: Any) -> Floats:
        """Divide."""
        return sums / self.number


def bind_metric(metric: Metric, *sources: Any) -> Metric:
    """Bind the metric to the networks of these trajectories; a metric without wiring is returned unchanged."""
    if metric.bind is None:
        return metric
    tables = [(tuple(x.parameters), tuple(x.nodes)) for x in sources if getattr(x, "parameters", ())]
    if not tables:
        raise DataError(
            f"metric {metric.name!r} compares networks and needs their wiring; an array has none. Pass networkx "
            "graphs, adjacency matrices (N, N) or (T, N, N), or a Trajectory with parameters and nodes (from a run, or "
            "Trajectory.from_array(x, parameters=, nodes=))"
        )
    if any(table != tables[0] for table in tables):
        raise DataError(f"metric {metric.name!r}: the trajectories are networks of different wiring")
    bound = metric.bind(*tables[0])
    return replace(bound, name=metric.name, bind=None)


def in_time(metric: Metric) -> Metric:
    """Return a metric that follows pairs of states in time, for one caller that visits them in this order."""
    return metric if metric.following is None else replace(metric, pairs=metric.following())


def flatten_states(block: Any, kind: np.dtype[Any]) -> tuple[Any, int]:
    """Return states (n, p) as a flat array, not copied if possible, and the stride between states."""
    block = np.asarray(block)
    near = block.strides[1] == kind.itemsize and block.strides[0] % kind.itemsize == 0 and block.strides[0] >= 0
    if block.dtype != kind or not block.dtype.isnative or not near:
        block = kernel_ready(block).astype(kind, copy=False)
    stride = block.strides[0] // kind.itemsize
    length = (len(block) - 1) * stride + block.shape[1] if block.size else 0
    return np.lib.stride_tricks.as_strided(block, (length,), (kind.itemsize,), writeable=False), stride


class _Registry(Mapping[str, Metric]):
    """Metrics by name, including those of the entry points `trajtools.metrics` of other packages."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}
        self._local: set[str] = set()

    @staticmethod
    @lru_cache(maxsize=1)
    def _offered() -> dict[str, Any]:
        return {point.name: point for point in entry_points(group=ENTRY_POINTS)}

    def __getitem__(self, name: str) -> Metric:
        if name not in self._metrics and name in self._offered():
            loaded = self._offered()[name].load()
            self.add(loaded if isinstance(loaded, Metric) else _from_rows(name, loaded, f"entry point {name}"), name)
        return self._metrics[name]

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self._metrics, *self._offered()])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def add(self, metric: Metric, name: str) -> None:
        self._metrics[name] = metric

    def register_local(self, metric: Metric, name: str) -> None:
        self._local.add(name)
        self.add(metric, name)

    def is_everywhere(self, metric: Metric) -> bool:
        """Whether other processes know the metric by name; not so after `register_metric` in this process."""
        return metric.name not in self._local and self._metrics.get(metric.name) is metric


MetricLike = str | RowMetric | Metric
METRICS = _Registry()  # filled by the package
