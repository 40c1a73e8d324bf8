"""The seam between the recorder and the frameworks.

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
``_beside(state, buffers) -> state | Beside``
    The state together with its buffers, for `_read`; the state itself in a run that records none.

What the adapter knows about the parameters goes to ``super().__init__``: ``kinds={name: kind}``,
``axes={name: (source_axis, target_axis)}`` and ``wiring=...`` as `trajtools.wiring.describe` takes them. Optimiser
hooks call ``self.advance(state)``; user loops call ``self.record(...)``. ``_busy_cores()`` says how many cores the
training keeps busy, for ``writer="auto"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recorders.buffers import Pending
from recorders.storage import Measured
from recorders.structure import Structure, listed
from trajtools.errors import RecordingError


@dataclass(frozen=True, eq=False)
class Beside:
    """A state and the buffers of its optimiser, as the user or the adapter gave them."""

    state: Any
    buffers: Any = None


class Seam:
    """What the recorder asks of a state; this one knows mappings of arrays, adapters know their frameworks."""

    metric: str
    _structure: Structure
    _store: str
    _origin: Mapping[str, Any] = {}  # what the adapter adds to the provenance, beside what the user gives
    _buffers: Structure | None = None  # of the optimiser's buffers; None where the run records none

    def _named(self, state: Any) -> list[Mapping[str, Any]]:
        """Mappings name -> leaf, see the top of this module."""
        if isinstance(state, Mapping):
            return [state]
        if isinstance(state, Sequence) and state and all(isinstance(one, Mapping) for one in state):
            return list(state)
        raise RecordingError(
            "a state is a mapping name -> array or a list of such mappings, one per member; got "
            f"{type(state).__name__}. For torch modules and JAX trees use recorders.torch and recorders.jax"
        )

    def _host(self, leaves: Sequence[Any]) -> list[np.ndarray] | Pending:
        """The leaves as host arrays, see the top of this module."""
        return list(leaves)

    def _read(self, state: Any) -> list[np.ndarray] | Pending:
        """The recorded arrays of a state, checked, see the top of this module."""
        return self._host(self._checked(state))

    def _checked(self, state: Any, lead: tuple[int, ...] = ()) -> list[Any]:
        """The leaves of a state, and of the buffers beside it, after the checks."""
        if not isinstance(state, Beside) or self._buffers is None:
            return self._structure.check(self._named(state), lead)
        weights = self._structure.check(self._named(state.state), lead)
        return weights + self._buffers.check(self._named_buffers(state.buffers), lead)

    def _named_buffers(self, buffers: Any) -> list[Mapping[str, Any]]:
        """Mappings name -> leaf of the optimiser's buffers, see the top of this module."""
        if isinstance(buffers, Mapping):
            return [buffers]
        if isinstance(buffers, Sequence) and buffers and all(isinstance(one, Mapping) for one in buffers):
            return list(buffers)
        raise RecordingError(
            "buffers are a mapping name -> array or a list of such mappings, one per member, as the state is; got "
            f"{type(buffers).__name__}"
        )

    def _structure_of_buffers(self, buffers: Any) -> Structure | None:
        """What the buffers of every state must look like; None where there are none."""
        found = [] if buffers is None else self._named_buffers(buffers)
        if not any(found):
            return None
        return Structure.of(found, n_members=self._structure.n_members, stacked=self._structure.stacked)

    def _beside(self, state: Any, buffers: Any) -> Any:
        """A state together with its buffers, see the top of this module."""
        if self._buffers is None:
            if buffers is not None and any(self._named_buffers(buffers)):
                raise RecordingError("this recorder was opened without buffers; give buffers= there as well")
            return state
        if buffers is None:
            raise RecordingError(
                f"this run records the buffers {listed(self._buffers.names)} beside every state; give buffers="
            )
        return Beside(state, buffers)

    def _device_distances(self, state: Any) -> np.ndarray | None:
        """Distances measured where the state lives, see the top of this module."""
        return None

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
