"""Look at what comes before it is used: the decorator of every public function that takes states."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import is_dataclass, replace
from functools import wraps
from inspect import Signature, signature
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from trajtools.clocks import Duration, duration, even_clock
from trajtools.errors import DataError, InputWarning, UnknownNameError
from trajtools.reasons import Reason
from trajtools.trajectory import Trajectory
from trajtools.types import Floats
from trajtools.values import TABLES, package, read_array, read_values
from trajtools.wiring import NodeSet, Parameter

P = ParamSpec("P")
R = TypeVar("R")

SCALES = ("std",)
DWARFED = 30.0  # spread of a column over that of another, from which the other hardly counts in a distance
MOST_COLUMNS = 64  # columns that are compared; more are weights
SQUARABLE = 1e100  # squares of numbers below it, and above its inverse, neither overflow nor vanish
SAMPLED = 20_000  # rows from which the spread of columns is estimated
STEPS = 3  # flat arrays in a list that are one trajectory; two are a reference and its copy
COORDINATES = (None, "l1", "l2", "linf", "rms")  # metrics in which a column counts by its size
ENTRYWISE = ("l1", "l2", "linf", "rms", "relative", "cosine", "sign", "precomputed")
GRAPH_L1 = "graph-l1"
NODES = "nodes"

_inside: ContextVar[bool] = ContextVar("inside a function that has looked at its input", default=False)


def takes_states(
    *names: str,
    pairs: bool = False,
    runs: bool = False,
    matrices: bool = False,
    single: bool = False,
    aligned: bool = False,
    needs: str = "",
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Read the arguments `names` of a public function before it sees them.

    Masked and missing numbers become NaN; tensors, tables, lists and graphs become arrays or Trajectories; a clock is
    checked, and becomes the `dt` of a Trajectory. A `dt` with a unit becomes a `Duration`. If the function has an
    argument `scale`, columns of states are scaled by it here, and those that dwarf the others are named. What was done
    to the data stands in the warnings of the result, or is an `InputWarning` if the result has none.

    `pairs`: also (reference, copies) and lists of these; `runs`: the function takes a Run itself; `matrices`: it takes
    adjacency matrices (T, N, N) itself, for the metric ``"graph-l1"``; `single`: a single state makes sense;
    `aligned`: states of one time are compared, so that clocks must begin together; `needs`: what the function needs, at
    the head of its refusals.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = signature(function).parameters
        order = list(known)
        scalable = "scale" in known
        default = known["metric"].default if "metric" in known else None

        @wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            scale: Any = kwargs.get("scale")
            values = {**dict(zip(order, args, strict=False)), **kwargs}
            if (_inside.get() and scale is None) or names[0] not in values or len(args) > len(order):
                return function(*args, **kwargs)  # looked at already, or a wrong call, which Python names
            metric = values.get("metric", default)
            itself = matrices and ("metric" not in known or metric == GRAPH_L1)
            networks = _compares_networks(metric) and not itself
            reader = _Reader(pairs=pairs, runs=runs, networks=networks, matrices=itself, single=single)
            reader.collect_nodes(values[name] for name in names if name in values)
            for name in names:
                if name in values and (values[name] is not None or known[name].default is Signature.empty):
                    values[name] = reader.look(values[name], name, needs)
            if aligned:
                reader.check_starts()
            if values.get("dt") is not None:
                values["dt"] = _spacing(values["dt"], values.get(names[0]))
            if scale is not None:
                factor = _factor(reader.first(values[names[0]]), scale, names[0])
                for name in names:
                    if values.get(name) is not None:
                        values[name] = _scaled(values[name], factor, name)
                values["scale"] = None
            elif scalable and _by_size(metric):
                reader.compare_columns(values[names[0]])
            changed = tuple(values[name] for name in order[: len(args)])
            token = _inside.set(True)
            try:
                result = function(*changed, **{name: values[name] for name in kwargs})  # type: ignore[arg-type]
            finally:
                _inside.reset(token)
            return with_remarks(result, reader.remarks, scale)

        wrapper.__dict__["states"] = names
        return wrapper

    return decorate


class _Reader:
    """Reads the arguments of one call."""

    def __init__(self, *, pairs: bool, runs: bool, networks: bool, matrices: bool, single: bool) -> None:
        self.pairs, self.runs, self.networks, self.matrices, self.single = pairs, runs, networks, matrices, single
        self.remarks: list[Reason] = []
        self._nodes: dict[Any, None] = {}
        self._read: dict[int, Any] = {}  # the same object stays the same: twins of one reference are known by it
        self._names: dict[int, tuple[str, ...]] = {}
        self._starts: dict[str, str] = {}

    def collect_nodes(self, values: Any) -> None:
        """List the nodes of all graphs, so that all become matrices of the same nodes."""
        for value in values:
            for graph in _graphs(value):
                self._nodes |= dict.fromkeys(graph.nodes)

    def look(self, x: Any, name: str, needs: str) -> Any:
        """Read an argument; a refusal begins with what the function needs."""
        try:
            return self.read(x, name)
        except DataError as error:
            raise (DataError(f"{needs}: {error}") if needs else error) from None

    def read(self, x: Any, name: str) -> Any:
        """Read an argument: a leaf, or with `pairs` a pair or list of them."""
        if id(x) not in self._read:
            self._read[id(x)] = self._branch(x, name)
        return self._read[id(x)]

    def check_starts(self) -> None:
        """Refuse tables whose clocks begin at different times."""
        if len(set(self._starts.values())) > 1:
            begins = ", ".join(f"{name} at {start}" for name, start in self._starts.items())
            raise DataError(f"the tables begin at different times, {begins}; cut them to the times that they share")

    def first(self, x: Any) -> Any:
        """The first leaf: the reference."""
        return self.first(x[0]) if isinstance(x, (list, tuple)) and len(x) else x

    def compare_columns(self, x: Any) -> None:
        """Name columns that dwarf others."""
        states = self.first(x)
        if isinstance(states, Trajectory):
            if states.parameters or states.shape[1] > MOST_COLUMNS:
                return
            array = np.asarray(states.read(0, SAMPLED))
        else:
            array = states
        if isinstance(array, np.ndarray) and array.ndim == 2 and 1 < array.shape[1] <= MOST_COLUMNS:
            self.remarks += _unequal_columns(array, self._names.get(id(states), ()))

    def _branch(self, x: Any, name: str) -> Any:
        if self.pairs and isinstance(x, (list, tuple)) and not _is_trajectory(x):
            branch = [self.read(item, f"{name}[{at}]") for at, item in enumerate(x)]
            return tuple(branch) if isinstance(x, tuple) else branch
        return self._leaf(x, name)

    def _leaf(self, x: Any, name: str) -> Any:
        if _is_ours(x):
            return self._of_run(x, name) if hasattr(x, "members") and hasattr(x, "trajectory") else x
        if graphs := _graphs(x):
            return self._of_graphs(graphs)
        values = read_values(x, name)
        array = values.array
        self._check_shape(array, name)
        self.remarks += [reason for reason in values.reasons if reason not in self.remarks]
        if array.ndim == 3 and self.networks and array.shape[1] == array.shape[2]:
            return graph_states(array)
        out: Any = array
        if values.clock is not None:
            self._starts[name] = values.clock.start
            out = Trajectory.from_array(array, dt=values.clock.dt, time_unit=values.clock.unit)
        self._names[id(out)] = values.names
        return out

    def _of_run(self, run: Any, name: str) -> Any:
        if self.runs:
            return run
        if len(run.members) == 1:
            return run.trajectory()
        raise DataError(
            f"{name} is the run {run.name!r} of {len(run.members)} members, and this takes the states of one; give "
            "run.trajectory(0), or another member"
        )

    def _of_graphs(self, graphs: list[Any]) -> Any:
        import networkx

        place = {node: at for at, node in enumerate(self._nodes)}
        matrices = np.zeros((len(graphs), len(place), len(place)))
        for matrix, graph in zip(matrices, graphs, strict=True):
            own = [place[node] for node in graph.nodes]
            matrix[np.ix_(own, own)] = networkx.to_numpy_array(graph, weight="weight")
        if self.matrices:
            return matrices
        return graph_states(matrices, directed=any(graph.is_directed() for graph in graphs))

    def _check_shape(self, array: NDArray[Any], name: str) -> None:
        if not array.ndim:
            raise DataError(f"{name} is one number, {array.item()!r}; needed states (T, d) or a series (T,)")
        inner = name.endswith("]")  # of a pair or list: a copy with one state is short, and no row
        if array.ndim == 2 and len(array) == 1 and array.shape[1] > 1 and not (self.single or inner):
            raise single_row(array.shape[1], name)


def single_row(size: int, name: str = "x") -> DataError:
    """The error of a row where a series was meant."""
    return DataError(
        f"{name} is a row, shape (1, {size}): one state of {size} numbers. A series of {size} samples is {name}[0] or "
        f"{name}.T"
    )


def _is_ours(x: Any) -> bool:
    """Whether `x` is one of our classes, or has the interface of a Trajectory or a Run."""
    ours = type(x).__module__.partition(".")[0] == "trajtools"
    return ours or hasattr(x, "trajectory") or (hasattr(x, "read") and hasattr(x, "step"))


def _is_trajectory(x: Sequence[Any]) -> bool:
    """Whether a list is one trajectory: numbers, rows of numbers, graphs, dicts, or flat arrays of one size."""
    if not len(x):
        return False
    if all(_is_number(item) or package(item) == "networkx" for item in x):
        return True
    if isinstance(x, list) and all(isinstance(item, (list, tuple)) and all(map(_is_number, item)) for item in x):
        return True
    if isinstance(x, list) and all(isinstance(item, Mapping) for item in x):  # state dicts
        return True
    sizes = {_flat_size(item) for item in x}
    return len(x) >= STEPS and len(sizes) == 1 and sizes != {None}


def _is_number(item: Any) -> bool:
    return item is None or (isinstance(item, (int, float, np.generic)) and not isinstance(item, np.void))


def _flat_size(item: Any) -> int | None:
    """Entries of a flat array or tensor; None for anything else."""
    shape = getattr(item, "shape", None)
    if shape is None or _is_ours(item) or len(shape) > 1 or package(item) in TABLES:
        return None
    return int(shape[0]) if len(shape) else 1


def _graphs(x: Any) -> list[Any]:
    """The networkx graphs that `x` is, or is a list of."""
    if package(x) == "networkx":
        return [x]
    if not isinstance(x, (list, tuple)):
        return []
    if x and all(package(item) == "networkx" for item in x):
        return list(x)
    return [graph for item in x if isinstance(item, (list, tuple)) for graph in _graphs(item)]


def graph_states(matrices: Any, *, directed: bool | None = None) -> Trajectory:
    """Trajectory of networks from adjacency matrices (T, N, N) or (N, N), from the row to the column.

    `directed=None`: directed if a matrix is not symmetric.
    """
    array = read_array(matrices, "the adjacency matrix")
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[1] != array.shape[2]:
        raise DataError(f"adjacency matrices have shape (N, N) or (T, N, N); got {array.shape}")
    array = array.astype(np.float64) if array.dtype.kind in "iub" else array
    size = array.shape[1]
    if directed is None:
        directed = not np.array_equal(array, array.transpose(0, 2, 1), equal_nan=True)
    links = Parameter(
        "links", "other", (size, size), str(array.dtype), 0, size * size, NODES, NODES, 0, 1, undirected=not directed
    )
    return Trajectory.from_array(
        array.reshape(len(array), -1), parameters=(links,), nodes=(NodeSet(NODES, size),), time_unit="sample"
    )


def of_one_direction(left: Any, right: Any) -> tuple[Any, Any]:
    """Two trajectories of graphs, both directed if one of them is."""
    ends = [tuple(getattr(x, "parameters", ())) for x in (left, right)]
    if [len(parameters) for parameters in ends] != [1, 1] or ends[0][0].undirected == ends[1][0].undirected:
        return left, right
    one, other = (_directed(x) for x in (left, right))
    return one, other


def _directed(x: Trajectory) -> Trajectory:
    links = replace(x.parameters[0], undirected=False)
    return Trajectory.from_array(
        np.asarray(x), step=x.step, dt=x.dt, time_unit=x.time_unit, parameters=(links,), nodes=x.nodes
    )


# Time


def _spacing(dt: Any, x: Any) -> Any:
    """`dt` as a number or a `Duration`: also from the times of all samples."""
    is_list = isinstance(dt, (list, tuple)) or np.ndim(dt) == 1
    if not is_list:
        return duration(dt)
    stamps = dt.to_numpy() if hasattr(dt, "to_numpy") else np.asarray(dt)
    stamps = np.asarray(stamps)
    if stamps.dtype.kind not in "mMfiu":
        raise DataError(f"dt holds {stamps.dtype} values; the times of the samples are numbers, dates or durations")
    if hasattr(x, "__len__") and not isinstance(x, (list, tuple)) and len(x) != len(stamps):
        raise DataError(f"dt has {len(stamps)} times for {len(x)} samples; give one time a sample, or one number")
    clock = even_clock(stamps, "dt, the times of the samples,")
    if clock is None:
        raise DataError(f"dt has {len(stamps)} times; two or more are needed, or give the time between two samples")
    if clock.order is not None:
        raise DataError("dt, the times of the samples, must rise; sort the samples by time first")
    return Duration(clock.dt, clock.unit)


# Columns


def _compares_networks(metric: Any) -> bool:
    """Whether a metric may compare networks, and not the entries of states."""
    if isinstance(metric, str):
        return metric not in ENTRYWISE
    return getattr(metric, "bind", None) is not None


def _by_size(metric: Any) -> bool:
    return isinstance(metric, (str, type(None))) and metric in COORDINATES


def _spread(array: NDArray[Any]) -> Floats:
    part = array[:: max(1, len(array) // SAMPLED)]
    # Columns of many values are reduced ten times faster where each lies in one piece.
    part = np.array(part, dtype=np.float64, order="F" if len(part) > part.shape[1] else "C")
    finite = np.isfinite(part)
    if not finite.all():
        part = np.asarray(part[finite.all(axis=1)], order="F")
    if len(part) < 2:
        return np.zeros(array.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.maximum(part.max(axis=0), -part.min(axis=0))
        if not (size < SQUARABLE).all() or not (size > 1 / SQUARABLE).all():
            part /= np.where(size > 0, size, 1.0)
            return np.asarray(np.std(part, axis=0) * size)
        part -= part.mean(axis=0)
        return np.sqrt(np.einsum("ij,ij->j", part, part) / len(part))


def _unequal_columns(array: NDArray[Any], names: tuple[str, ...]) -> list[Reason]:
    spread = _spread(array)
    moving = spread > 0
    if np.count_nonzero(moving) < 2 or not np.isfinite(spread).all():
        return []
    largest = float(spread.max())
    small = np.flatnonzero(moving & (spread < largest / DWARFED))
    if not len(small):
        return []
    labels = [repr(name) for name in names] or [str(at) for at in range(array.shape[1])]
    large = [at for at in np.flatnonzero(moving) if at not in set(small.tolist())]
    text = (
        "distances between states are those of column {large}: its standard deviation is {ratio:,.0f} times that of "
        "{small}. If the columns have units of their own, scale='std' (--scale std) divides each by its own"
    )
    return [
        Reason.of(
            "columns-unequal",
            text,
            large=", ".join(labels[at] for at in large),
            small=("column " if len(small) == 1 else "columns ") + ", ".join(labels[at] for at in small),
            ratio=largest / float(spread[small].max()),
        )
    ]


def _factor(states: Any, scale: str, name: str) -> Floats:
    if scale not in SCALES:
        raise UnknownNameError(f"there is no scale {scale!r}; there are 'std' and None")
    if isinstance(states, Trajectory):
        states = np.asarray(states)
    if not isinstance(states, np.ndarray) or states.ndim > 2:
        raise DataError(
            f"scale={scale!r} divides the columns of an array of states (T, d), and {name} has none; omit scale="
        )
    spread = _spread(states if states.ndim == 2 else states[:, None])
    return np.where(spread > 0, spread, 1.0)


def _scaled(x: Any, factor: Floats, name: str) -> Any:
    if isinstance(x, (list, tuple)):
        branch = [_scaled(item, factor, name) for item in x]
        return tuple(branch) if isinstance(x, tuple) else branch
    if isinstance(x, Trajectory):
        states = _divided(np.asarray(x), factor, name)
        return Trajectory.from_array(
            states, step=x.step, dt=x.dt, time_unit=x.time_unit, parameters=x.parameters, nodes=x.nodes
        )
    return _divided(x, factor, name)


def _divided(array: Any, factor: Floats, name: str) -> Floats:
    width = array.shape[1] if array.ndim == 2 else 1
    if width != len(factor):
        raise DataError(f"{name} has {width} columns, and those to scale by are {len(factor)}; give the same columns")
    return np.asarray(array / (factor if array.ndim == 2 else factor[0]), dtype=np.float64)


# Results


def with_remarks(result: R, remarks: Sequence[Reason], scale: Any = None) -> R:
    """Add what was done to the data to the warnings and settings of a result."""
    if not remarks and scale is None:
        return result
    changes: dict[str, Any] = {}
    plain = is_dataclass(result) and not isinstance(result, type)
    if plain and remarks and hasattr(result, "warnings"):
        changes["warnings"] = tuple(dict.fromkeys([*remarks, *result.warnings]))
    elif remarks:
        for remark in remarks:
            warnings.warn(str(remark), InputWarning, stacklevel=3)
    if plain and scale is not None and isinstance(getattr(result, "settings", None), dict):
        changes["settings"] = {**result.settings, "scale": scale}  # type: ignore[attr-defined]
    return replace(result, **changes) if changes else result  # type: ignore[type-var]
