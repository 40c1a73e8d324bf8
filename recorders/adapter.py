"""The interface between a framework and the recorder, and the structure that every state of a run must have.

`recorders.torch` and `recorders.jax` subclass `Recorder`. A state is whatever the framework's user has in hand; the
recorder asks for it through three methods, and never looks at it otherwise:

``_named(state) -> list[Mapping[str, leaf]]``
    One mapping name -> array per member, or exactly one whose leaves have a leading member axis (when `members=` was
    given). A leaf needs ``.shape`` and ``.dtype``; nothing is copied here. Called at opening, and by the default
    `_read` at every state. The order of the first mapping is the order of the parameters in the state.
``_host(leaves) -> list[numpy.ndarray] | Pending``
    The selected leaves as host arrays in their native dtype (bfloat16: as `ml_dtypes` array or as its bits in uint16),
    in the order given: member by member, parameter by parameter (one mapping with a member axis: parameter by
    parameter). Views are welcome: the recorder copies before `record` returns, and keeps no reference.
    A device adapter starts its copies and returns ``Pending(arrays, wait)``: `wait()` blocks until the arrays are
    filled, is called exactly once, possibly from the recorder's background thread, and the arrays are consumed right
    after. At most one Pending is open when `_host` is called, so two sets of buffers taken in turn suffice.
``_read(state) -> list[numpy.ndarray] | Pending``
    `_named` + the selection of `include`/`exclude` + checks of names, shapes and dtypes + `_host`. An adapter that
    has a faster way to its (selected) leaves overrides it; ``self.names`` are the selected names, in order, and
    ``self._structure.check(mappings)`` does the checks and gives the leaves.
``_device_distances(state) -> numpy.ndarray (M,) | None``
    Only for ``store="distances"``: d of each member to its reference in ``self.metric`` (NaN for references), computed
    where the state lives; None (the default) lets the recorder compute it on the host from `_read`.

Buffers of the optimiser (``buffers=``) are read with the state, by one call of `_host`:

``_named_buffers(buffers) -> list[Mapping[str, leaf]]``
    As `_named`, of what the user gave as buffers; an adapter that knows the optimiser looks there instead.
``_named_own(state) -> list[Mapping[str, leaf]]``
    As `_named`, the network's own buffers (running statistics, ...) where the user wants them; none by default.
``_beside(state, buffers) -> state | Beside``
    The state together with its buffers, for `_read`; the state itself in a run that records none.

What the adapter knows about the parameters goes to ``super().__init__``: ``kinds={name: kind}``,
``axes={name: (source_axis, target_axis)}`` and ``wiring=...`` as `trajtools.wiring.describe` takes them. Optimiser
hooks call ``self.advance(state)``; user loops call ``self.record(...)``. ``_busy_cores()`` says how many cores the
training keeps busy, for ``writer="auto"``.

An adapter of a network that is sharded over processes sets ``self._shards`` (`recorders.shards.Shards`) before
``super().__init__``; its `_named` then gives the parts of the arrays that this process records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from recorders.shards import Shards
from trajtools.errors import ArchitectureError, RecordingError
from trajtools.store import promote, widen as widen_bits
from trajtools.wiring import FLOATS, Parameter, listed, select


class Adapter:
    """Reads states for the recorder; this one reads mappings of arrays. Each framework overrides it, see above."""

    metric: str
    _structure: Structure
    _store: str
    _origin: Mapping[str, Any] = {}  # what the adapter adds to the provenance, beside what the user gives
    _buffers: Structure | None = None  # of the optimiser's buffers; None where the run records none
    _own: Structure | None = None  # of the network's own buffers, likewise
    _shards: Shards | None = None  # what this process holds of a network that is sharded over processes

    def _named(self, state: Any) -> list[Mapping[str, Any]]:
        """The state as mappings name -> leaf, one per member."""
        if isinstance(state, Mapping):
            return [state]
        if isinstance(state, Sequence) and state and all(isinstance(one, Mapping) for one in state):
            return list(state)
        raise RecordingError(
            "a state is a mapping name -> array or a list of such mappings, one per member; got "
            f"{type(state).__name__}. For torch modules and JAX trees use recorders.torch and recorders.jax"
        )

    def _host(self, leaves: Sequence[Any]) -> list[np.ndarray] | Pending:
        """The leaves as arrays in host memory."""
        return list(leaves)

    def _read(self, state: Any) -> list[np.ndarray] | Pending:
        """The recorded arrays of a state, checked."""
        return self._host(self._checked(state))

    def _checked(self, state: Any, lead: tuple[int, ...] = ()) -> list[Any]:
        """The leaves of a state, and of the buffers beside it, after the checks."""
        beside = state if isinstance(state, Beside) else Beside(state)
        leaves = self._structure.check(self._named(beside.state), lead)
        if self._buffers is not None and beside is state:
            leaves = leaves + self._buffers.check(self._named_buffers(beside.buffers), lead)
        if self._own is not None:
            leaves = leaves + self._own.check(self._named_own(beside.state), lead)
        return leaves

    def _named_buffers(self, buffers: Any) -> list[Mapping[str, Any]]:
        """The optimiser's buffers as mappings name -> leaf."""
        if isinstance(buffers, Mapping):
            return [buffers]
        if isinstance(buffers, Sequence) and buffers and all(isinstance(one, Mapping) for one in buffers):
            return list(buffers)
        raise RecordingError(
            "buffers are a mapping name -> array or a list of such mappings, one per member, like the state; got "
            f"{type(buffers).__name__}"
        )

    def _named_own(self, state: Any) -> list[Mapping[str, Any]]:
        """The network's own buffers as mappings name -> leaf, where they are recorded."""
        return []

    def _structure_of_buffers(self, mappings: Sequence[Mapping[str, Any]]) -> Structure | None:
        """Structure of the buffers of every state; None where there are none."""
        if not any(mappings):
            return None
        return Structure.of(mappings, n_members=self._structure.n_members, stacked=self._structure.stacked)

    def _beside(self, state: Any, buffers: Any) -> Any:
        """A state together with its buffers."""
        if self._buffers is None:
            if buffers is not None and any(self._named_buffers(buffers)):
                raise RecordingError("this recorder was opened without buffers; pass buffers= when opening it")
            return state
        if buffers is None:
            raise RecordingError(
                f"this run records the buffers {listed(self._buffers.names)} with every state; pass buffers="
            )
        return Beside(state, buffers)

    def _device_distances(self, state: Any) -> np.ndarray | None:
        """Distances measured where the state lives; None: they are computed on the host."""
        return None

    def _is_untouched(self, state: Any) -> bool:
        """Whether the state may be that at opening: False where its arrays were written or made anew since."""
        return True

    def _busy_cores(self) -> int:
        """How many cores the training keeps busy."""
        return 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the recorded parameters, in the order of the state."""
        return self._structure.names

    def _arrays(self, state: Any) -> list[np.ndarray] | Pending:
        if self._store == "distances":
            measured = self._device_distances(state)
            if measured is not None:
                return Measured([np.asarray(measured, np.float64)])
        return self._read(state)


@dataclass(frozen=True, eq=False)
class Beside:
    """A state and the buffers of its optimiser, as the user or the adapter gave them."""

    state: Any
    buffers: Any = None


@dataclass(frozen=True)
class Pending:
    """Host arrays that a device is still filling.

    Attributes
    ----------
    arrays : list of ndarray
        As `Recorder._host` returns them.
    wait : callable
        Blocks until the arrays are filled; called once.
    """

    arrays: list[np.ndarray]
    wait: Callable[[], None]


class Measured(list[np.ndarray]):
    """One array (M,), float64: distances that an adapter has measured where the state lives."""


@dataclass(frozen=True)
class Role:
    """What the entries of one array are in the graph.

    Attributes
    ----------
    kind : str
        One of `trajtools.wiring.KINDS`.
    source_axis, target_axis : int
        Axes that run over the source and the target units; -1 where there is none.
    """

    kind: str
    source_axis: int = -1
    target_axis: int = -1


@dataclass(frozen=True)
class Structure:
    """Names, shapes and dtypes that every state of a run must have.

    Attributes
    ----------
    all_names : tuple of str
        Every name of a state, in order, also those that are not recorded.
    names, shapes, dtypes : tuple
        Of the recorded parameters; shapes without the member axis, dtypes by name.
    n_members : int
        Number of networks in a state.
    stacked : bool
        True where one mapping holds all members on a leading axis, False where every member has a mapping.
    """

    all_names: tuple[str, ...]
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    n_members: int
    stacked: bool

    @classmethod
    def of(
        cls,
        mappings: Sequence[Mapping[str, Any]],
        *,
        n_members: int,
        stacked: bool,
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
    ) -> Structure:
        """Read the structure of the first state."""
        first = mappings[0]
        names = select(list(first), include, exclude)
        shapes = []
        for name in names:
            if not (hasattr(first[name], "shape") and hasattr(first[name], "dtype")):
                raise RecordingError(f"{name!r} is a {type(first[name]).__name__}; a state maps names to arrays")
            shape = tuple(first[name].shape)
            if stacked and (not shape or shape[0] != n_members):
                raise ArchitectureError(
                    f"{name!r} has shape {shape}; with members={n_members} and one mapping every array needs a leading "
                    f"axis of {n_members}"
                )
            shapes.append(shape[1:] if stacked else shape)
            if dtype_name(first[name]) not in FLOATS:
                raise RecordingError(
                    f"{name!r} is {dtype_name(first[name])}; a state holds {', '.join(FLOATS)}. "
                    f"Leave it out with exclude=({name!r},), or convert it in a copy of the mapping"
                )
        if sum(map(prod, shapes)) == 0:
            raise RecordingError(f"the selected parameters are all empty: {listed(names)}")
        dtypes = tuple(dtype_name(first[name]) for name in names)
        made = cls(tuple(first), tuple(names), tuple(shapes), dtypes, n_members, stacked)
        made.check(mappings)
        return made

    @property
    def dtype(self) -> str:
        """Name of the dtype of the stored state."""
        return common_dtype(self.dtypes)

    @property
    def n_entries(self) -> int:
        """P, the number of entries of one network."""
        return sum(map(prod, self.shapes))

    def described(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> (shape, dtype name), as `trajtools.wiring.describe` takes them."""
        return {n: (s, d) for n, s, d in zip(self.names, self.shapes, self.dtypes, strict=True)}

    def check(self, mappings: Sequence[Mapping[str, Any]], lead: tuple[int, ...] = ()) -> list[Any]:
        """The leaves of the recorded parameters, member by member, after checking names, shapes and dtypes."""
        expected = 1 if self.stacked else self.n_members
        if len(mappings) != expected:
            raise ArchitectureError(f"this state has {len(mappings)} members, the run was opened with {expected}")
        extra = (*lead, self.n_members) if self.stacked else lead
        wanted = [(n, (*extra, *s), d) for n, s, d in self._fields] if extra else self._fields
        leaves = []
        for member, mapping in enumerate(mappings):
            if mapping.keys() != self._keys:
                self._refuse_names(member, mapping)
            for name, shape, dtype in wanted:
                leaf = mapping[name]
                # Every microsecond here is one of the training's: what is known of a dtype is not asked by a call.
                known = getattr(leaf, "shape", None) == shape and (_NAMES.get(leaf.dtype) or dtype_name(leaf)) == dtype
                if not known:
                    self._refuse(member, name, leaf, shape, dtype)
                leaves.append(leaf)
        return leaves

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(self.all_names)

    @cached_property
    def _fields(self) -> list[tuple[str, tuple[int, ...], str]]:
        return list(zip(self.names, self.shapes, self.dtypes, strict=True))

    def _refuse_names(self, member: int, mapping: Mapping[str, Any]) -> None:
        gone = [name for name in self.all_names if name not in mapping]
        new = [name for name in mapping if name not in self.all_names]
        differences = [f"lacks {listed(gone)}"] * bool(gone) + [f"has the new {listed(new)}"] * bool(new)
        raise ArchitectureError(
            f"the state of member {member} {' and '.join(differences)}; the parameters of a run are fixed at "
            "opening. Record a changed network as a separate run: Recorder('other.h5', state)"
        )

    @staticmethod
    def _refuse(member: int, name: str, leaf: Any, shape: tuple[int, ...], dtype: str) -> None:
        is_array = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
        came = f"{dtype_name(leaf)} of shape {tuple(leaf.shape)}" if is_array else f"a {type(leaf).__name__}"
        raise ArchitectureError(
            f"{name!r} of member {member} is {came}; the run was opened with {dtype} of shape {shape}. "
            "Record a changed network as a separate run: "
            "Recorder('other.h5', state)"
        )


def unwired(shapes: Mapping[str, tuple[tuple[int, ...], str]]) -> tuple[Parameter, ...]:
    """Return the arrays one after the other, none of them edges of the graph."""
    rows, offset = [], 0
    for name, (shape, dtype) in shapes.items():
        rows.append(Parameter(name, "other", shape, dtype, offset, prod(shape)))
        offset += prod(shape)
    return tuple(rows)


def common_dtype(names: Iterable[str]) -> str:
    """The smallest dtype that holds every value of the named dtypes exactly."""
    return promote(sorted(set(names)))


_NAMES: dict[Any, str] = {}


def dtype_name(leaf: Any) -> str:
    """NumPy's name of the dtype of an array of any framework (``torch.bfloat16`` is ``bfloat16``)."""
    dtype = leaf.dtype
    name = _NAMES.get(dtype)
    if name is None:
        name = _NAMES[dtype] = getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]
    return name


def widen(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """The values of `array`, of dtype name `source`, in a form that can be assigned to tiles of dtype name `target`."""
    if source != "bfloat16":
        return array
    bits = array.view(np.uint16)
    if target == "bfloat16":
        return bits
    return widen_bits(bits)
