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

What the adapter knows about the parameters goes to ``super().__init__``: ``kinds={name: kind}``,
``axes={name: (source_axis, target_axis)}`` and ``wiring=...`` as `trajtools.parameters.describe` takes them. Optimiser
hooks call ``self.advance(state)``; user loops call ``self.record(...)``. ``_busy_cores()`` says how many cores the
training keeps busy, for ``writer="auto"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recorders.buffers import Pending
from recorders.storage import Measured
from recorders.structure import Structure
from trajtools.store import RecordingError


class Seam:
    """What the recorder asks of a state; this one knows mappings of arrays, adapters know their frameworks."""

    metric: str
    _structure: Structure
    _store: str

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
        return self._host(self._structure.check(self._named(state)))

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
