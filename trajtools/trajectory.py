"""Trajectory: T states of one network as a lazy (T, P) view, and its sources of states."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from trajtools.clocks import Duration, duration
from trajtools.errors import DataError, InputWarning, SelectionError, TooLargeError
from trajtools.results import Shown
from trajtools.types import RealArrayLike
from trajtools.values import read_values
from trajtools.wiring import NodeSet, Parameter
from trajtools.wording import counted

if TYPE_CHECKING:
    import networkx

# What functions take; strings, because the class stands below.
StatesLike: TypeAlias = "RealArrayLike | Trajectory"
"""States of one trajectory, (T, P), or a series (T,)."""
Pair: TypeAlias = "tuple[StatesLike, StatesLike | Sequence[StatesLike]]"
"""A reference and its perturbed copies."""

MAX_ARRAY_BYTES = 4 * 2**30
"""Largest trajectory that `numpy.asarray` converts."""
BLOCK_BYTES = 4 * 2**20  # two blocks stay in the cache, and the memory of one is used again by the next but one


class Trajectory(Shown):
    """T states of one network, shape (T, P), read lazily.

    Parameters
    ----------
    source : StateSource
        Source of the states.
    step : ndarray of int64, shape (T,)
        Step of each state, strictly increasing: the number of updates before it.
    parameters : sequence of Parameter
        Names and places of the entries of the state; empty if unknown (a plain array).
    nodes : sequence of NodeSet
        Node sets that the parameters connect.
    dt : float, in `time_unit`
        Time of one step.
    time_unit : str
        Unit of `dt`.
    name : str
        Name in messages and plots.

    Raises
    ------
    DataError
        If the steps do not increase, there are more steps than states, or `dt` is not a positive number.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> trajectory = tt.Trajectory.from_array(np.eye(4), dt=0.5, time_unit="epoch")
    >>> trajectory.shape, trajectory.time_unit
    ((4, 4), 'epoch')
    >>> trajectory[1:3].shape
    (2, 4)
    """

    def __init__(
        self,
        source: StateSource,
        *,
        step: ArrayLike,
        parameters: Sequence[Parameter] = (),
        nodes: Sequence[NodeSet] = (),
        dt: float = 1.0,
        time_unit: str = "step",
        name: str = "",
    ) -> None:
        steps = _checked_steps(step)
        if len(steps) > source.shape[0]:
            raise DataError(f"{len(steps)} steps for {source.shape[0]} states; give one step per state")
        if not (np.isfinite(dt) and dt > 0):
            raise DataError(f"dt is {dt}; the time of one step must be a positive number")
        described = sum(p.size for p in parameters)
        if parameters and described != source.shape[1]:
            raise DataError(f"the parameters describe {described} entries, the states have {source.shape[1]}")
        self._source = source
        self._rows = range(len(steps))
        self._stored = tuple(parameters)  # offsets in the source
        self._parameters = self._stored  # offsets in this selection
        self._columns: tuple[slice, ...] | None = None
        self._width = source.shape[1]
        self._step = steps
        self._nodes = tuple(nodes)
        self._dt = float(dt)
        self._time_unit = time_unit
        self._name = name

    @classmethod
    def from_array(
        cls,
        x: ArrayLike,
        *,
        dt: Any = None,
        step: ArrayLike | None = None,
        parameters: Sequence[Parameter] = (),
        nodes: Sequence[NodeSet] = (),
        time_unit: str | None = None,
    ) -> Trajectory:
        """Trajectory of states in memory.

        Parameters
        ----------
        x : array_like, shape (T, d) or (T,)
            States; a series (T,) becomes (T, 1). Floats are used without a copy, integers become float64, masked and
            missing numbers NaN. A table of pandas, polars or xarray brings its clock, which must be even.
        dt : float, duration or None
            Time of one step: a number in `time_unit`, or ``"1h"``, `numpy.timedelta64` or `pandas.Timedelta`. None:
            that of the index of a table, else 1.
        step : array_like of int or None, shape (T,)
            Step of each state; None: 0, 1, 2, ...
        parameters : sequence of Parameter
            Names and places of the entries.
        nodes : sequence of NodeSet
            Node sets that the parameters connect.
        time_unit : str or None
            Unit of `dt`; None: that of a duration or of the clock, else ``"step"``, or ``"time"`` if `dt` is not 1.

        Raises
        ------
        DataError
            If `x` is not a real array (T, d) or (T,), `step` has another length, or the clock of a table is uneven.

        Examples
        --------
        >>> x = Trajectory.from_array([[0.0, 1.0], [0.5, 1.5], [1.0, 2.0]], dt=0.1)
        >>> x.shape
        (3, 2)
        >>> x[1:].time.tolist()
        [0.1, 0.2]
        """
        values = read_values(x)
        array = values.array
        for reason in values.reasons:
            warnings.warn(str(reason), InputWarning, stacklevel=2)
        length = duration(dt)
        if length is None and values.clock is not None and step is None:
            length = Duration(values.clock.dt, values.clock.unit)
        dt = 1.0 if length is None else float(length)
        time_unit = time_unit or getattr(length, "unit", None)
        if array.dtype.kind in "biu":
            array = array.astype(np.float64)
        if array.ndim == 1:
            array = array[:, None]
        source = ArrayStates(array)
        steps = np.arange(len(array), dtype=np.int64) if step is None else _checked_steps(step)
        if len(steps) != len(array):
            raise DataError(f"{len(steps)} steps for {len(array)} states; give one step per state")
        unit = time_unit or ("step" if dt == 1 else "time")
        return cls(source, step=steps, parameters=parameters, nodes=nodes, dt=dt, time_unit=unit)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of states T and of entries P."""
        return len(self._rows), self._width

    @property
    def ndim(self) -> int:
        """2: states by entries."""
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the states as read."""
        return self._source.dtype

    @property
    def nbytes(self) -> int:
        """Size of all states in memory, in bytes."""
        return len(self._rows) * self._width * self.dtype.itemsize

    @property
    def step(self) -> NDArray[np.int64]:
        """Step of each state, int64, shape (T,)."""
        return self._step

    @property
    def time(self) -> NDArray[np.float64]:
        """Time of each state, ``step * dt`` in `time_unit`, float64, shape (T,)."""
        return np.asarray(self._step * self._dt, dtype=np.float64)

    @property
    def dt(self) -> float:
        """Time of one step, in `time_unit`."""
        return self._dt

    @property
    def time_unit(self) -> str:
        """Unit of `time` and `dt`."""
        return self._time_unit

    @property
    def name(self) -> str:
        """Name, for messages and plots."""
        return self._name

    @property
    def source(self) -> StateSource:
        """Source of the states, without the selections of this trajectory."""
        return self._source

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Selected parameters, with offsets in the states of this trajectory."""
        return self._parameters

    @property
    def nodes(self) -> tuple[NodeSet, ...]:
        """Node sets of the network."""
        return self._nodes

    def __len__(self) -> int:
        return len(self._rows)

    def _sentence(self) -> str:
        label = f"{self._name!r}, " if self._name else ""
        span = f", steps {self._step[0]} to {self._step[-1]}" if len(self) else ""
        return f"{label}{counted(len(self), 'state')} of {counted(self._width, 'number')} ({self.dtype}){span}."

    @overload
    def __getitem__(self, index: slice) -> Trajectory: ...
    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...
    def __getitem__(self, index: slice | int) -> Trajectory | NDArray[Any]:
        if isinstance(index, slice):
            if index.step is not None and operator.index(index.step) < 1:
                raise SelectionError(f"stride {index.step}: time runs forward; read the states and reverse the array")
            return self._with_rows(index)
        try:
            row = operator.index(index)
        except TypeError:
            raise SelectionError(
                f"a trajectory is indexed by one state or a slice of states, not by {type(index).__name__}; "
                "use select() for parameters and window() for steps"
            ) from None
        if not -len(self) <= row < len(self):
            raise IndexError(f"state {row} of a trajectory of {len(self)} states")
        row %= len(self)
        state: NDArray[Any] = self.read(row, row + 1)[0]
        return state

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for _, states in self.blocks():
            yield from states

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if self.nbytes > MAX_ARRAY_BYTES:
            size, limit = self.nbytes / 2**30, MAX_ARRAY_BYTES / 2**30
            raise TooLargeError(
                f"{self!r} is {size:.1f} GiB as one array, the limit is {limit:.1f} GiB; "
                "use blocks(), window() or select(), or read(start, stop) for a part of that size"
            )
        states = self.read()
        # `states` may be a view of the caller's array: copy=False only works for arrays in memory.
        return np.array(states, dtype=dtype, copy=copy)

    def read(self, start: int = 0, stop: int | None = None, columns: slice | None = None) -> NDArray[Any]:
        """States ``start .. stop`` as one array.

        Parameters
        ----------
        start, stop : int, in states
            As in a slice: negative values count from the end, None is the end.
        columns : slice or None
            Entries of the states, a slice without a stride; None: all.

        Returns
        -------
        ndarray, shape (t, P)
            In the stored dtype (bfloat16 as float32, without loss); possibly a read-only view.
        """
        rows = self._rows[start:stop]
        source_rows = slice(rows.start, rows.stop, rows.step)
        spans = self._columns if columns is None else cut_spans(self._columns, columns, self._width)
        if spans is None and len(rows):
            return self._source.read(source_rows)
        if spans is not None and len(spans) == 1 and len(rows):
            return self._source.read(source_rows, spans[0])
        widths = [self._width] if spans is None else [span.stop - span.start for span in spans]
        states = np.empty((len(rows), sum(widths)), self.dtype)
        at = 0
        for span in (spans or ()) if len(rows) else ():
            width = span.stop - span.start
            states[:, at : at + width] = self._source.read(source_rows, span)
            at += width
        return states

    def select(self, *globs: str, exclude: str | Sequence[str] = ()) -> Trajectory:
        """Select parameters by name, in the order of the state.

        Parameters
        ----------
        *globs : str
            Names or patterns with ``*``, ``?`` and ``[...]``; none: all parameters.
        exclude : str or sequence of str
            Names or patterns to leave out.

        Returns
        -------
        Trajectory
            A lazy view.

        Raises
        ------
        SelectionError
            If a pattern matches nothing, or no parameter is left; the message lists the names.

        Examples
        --------
        >>> p = [Parameter("w", "other", (2,), "float64", 0, 2), Parameter("b", "other", (1,), "float64", 2, 1)]
        >>> Trajectory.from_array([[1.0, 2.0, 3.0]], parameters=p).select("b")[0].tolist()
        [3.0]
        """
        excluded = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        names = [p.name for p in self._stored]
        for glob in (*globs, *excluded):
            if not any(fnmatchcase(name, glob) for name in names):
                raise SelectionError(f"no parameter matches {glob!r}; {_listed(names)}")
        chosen = [
            index
            for index, name in enumerate(names)
            if (not globs or any(fnmatchcase(name, g) for g in globs))
            and not any(fnmatchcase(name, g) for g in excluded)
        ]
        if not chosen:
            raise SelectionError(f"the selection leaves no parameter; {_listed(names)}")
        view = self._copy()
        view._stored = tuple(self._stored[i] for i in chosen)
        view._parameters = _packed(view._stored)
        view._columns = _merged(view._stored)
        view._width = sum(p.size for p in view._stored)
        return view

    def window(self, start: int | None = None, stop: int | None = None, every: int = 1) -> Trajectory:
        """Select every k-th state with a step in ``[start, stop)``.

        Parameters
        ----------
        start, stop : int or None, in steps
            Steps, not indices; None: the first, and past the last.
        every : int
            Select the first state in the window and every `every`-th after it.

        Returns
        -------
        Trajectory
            A lazy view.

        Raises
        ------
        SelectionError
            If no state lies in the window, or `every` is below 1.
        """
        if every < 1:
            raise SelectionError(f"every={every}; it must be 1 or more")
        first = 0 if start is None else int(np.searchsorted(self._step, start))
        last = len(self) if stop is None else int(np.searchsorted(self._step, stop))
        if first >= last:
            span = f"steps {self._step[0]} to {self._step[-1]}" if len(self) else "no states"
            raise SelectionError(f"no state in steps [{start}, {stop}); the trajectory has {span}")
        return self._with_rows(slice(first, last, every))

    def blocks(self, max_bytes: int = 64 * 2**20) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Iterate over all states in blocks of bounded size.

        Parameters
        ----------
        max_bytes : int, in bytes
            Size of a block; a block has at least one state.

        Yields
        ------
        rows : slice
            Rows of the block in this trajectory.
        states : ndarray, shape (t, P)
            Possibly a read-only view.
        """
        size = max(1, self._width * self.dtype.itemsize)
        rows, tall = min(max_bytes, BLOCK_BYTES) // size, getattr(self._source, "chunk", (1, 1))[0]
        rows = max(1, rows - rows % tall, min(tall, max_bytes // size))
        for start in range(0, len(self), rows):
            stop = min(start + rows, len(self))
            yield slice(start, stop), self.read(start, stop)

    def network(self, t: int, max_edges: int = 1_000_000) -> networkx.MultiDiGraph:
        """State `t` as a graph.

        Parameters
        ----------
        t : int
            Index of the state.
        max_edges : int
            Largest number of edges.

        Returns
        -------
        networkx.MultiDiGraph
            See `trajtools.networks.Network.to_networkx`.

        Raises
        ------
        TooLargeError
            If the graph has more than `max_edges` edges.
        DataError
            If no selected parameter is an edge.
        """
        from trajtools.networks import Network

        network = Network(self[t], self._parameters, self._nodes)
        return network.to_networkx(max_edges=max_edges)

    def _copy(self) -> Trajectory:
        view = object.__new__(Trajectory)
        view.__dict__.update(self.__dict__)
        return view

    def _with_rows(self, rows: slice) -> Trajectory:
        view = self._copy()
        view._rows = self._rows[rows]
        view._step = self._step[rows]
        return view


class StateSource(Protocol):
    """Source of states, such as an array or a file. Picklable, without an open file in the pickle.

    `read` is called from several threads at once.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Number of states T and of entries P."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of `read` (float32 for stored bfloat16, without loss)."""

    def read(self, rows: slice | NDArray[np.int64], columns: slice | NDArray[np.int64] | None = None) -> NDArray[Any]:
        """States `rows`, entries `columns` (None: all)."""


def _checked_steps(step: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(step)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DataError(f"steps must be whole numbers, shape (T,); got dtype {array.dtype}, shape {array.shape}")
    steps = array.astype(np.int64)
    backward = np.flatnonzero(steps[1:] <= steps[:-1])
    if len(backward):
        i = int(backward[0])
        raise DataError(f"steps must increase; state {i} has step {steps[i]}, state {i + 1} has step {steps[i + 1]}")
    steps.flags.writeable = False
    return steps


class ArrayStates:
    """States in memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        if array.ndim != 2:
            raise DataError(f"states form an array (T, P); this one has {array.ndim} dimensions, shape {array.shape}")
        view = array.view()
        view.flags.writeable = False
        self._array = view

    @property
    def shape(self) -> tuple[int, int]:
        """Number of states T and of entries P."""
        return self._array.shape[0], self._array.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the states."""
        return self._array.dtype

    def read(self, rows: slice | NDArray[np.int64], columns: slice | NDArray[np.int64] | None = None) -> NDArray[Any]:
        """States `rows`, entries `columns`; slices give a read-only view."""
        states = self._array[rows]
        return states if columns is None else states[:, columns]


def _packed(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    offset, packed = 0, []
    for p in parameters:
        packed.append(replace(p, offset=offset))
        offset += p.size
    return tuple(packed)


def _merged(parameters: Sequence[Parameter]) -> tuple[slice, ...]:
    """Columns of the parameters in as few slices as possible, since each one is a separate read."""
    spans: list[list[int]] = []
    for p in parameters:
        if spans and spans[-1][1] == p.offset:
            spans[-1][1] = p.offset + p.size
        else:
            spans.append([p.offset, p.offset + p.size])
    return tuple(slice(first, last) for first, last in spans)


def cut_spans(spans: tuple[slice, ...] | None, columns: slice, width: int) -> tuple[slice, ...]:
    """Spans in the source of a slice of the selected entries."""
    first, last, stride = columns.indices(width)
    if stride != 1:
        raise DataError(f"entries are read in slices without a stride; got a stride of {stride}")
    cut, at = [], 0
    for span in (slice(0, width),) if spans is None else spans:
        size = span.stop - span.start
        low, high = max(first - at, 0), min(last - at, size)
        if low < high:
            cut.append(slice(span.start + low, span.start + high))
        at += size
    return tuple(cut)


def _listed(names: Sequence[str], most: int = 20) -> str:
    if not names:
        return "this trajectory has no table of parameters"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"the parameters are {', '.join(names[:most])}{more}"
