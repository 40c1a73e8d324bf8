"""The recorder that knows no framework: when a state is stored, and what a user may ask.

The seam for frameworks
-----------------------
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
    ``self._check(names, leaves)`` does the checks.
``_device_distances(state) -> numpy.ndarray (M,) | None``
    Only for ``store="distances"``: d of each member to its reference in ``self.metric`` (NaN for references), computed
    where the state lives; None (the default) lets the recorder compute it on the host from `_read`.

What the adapter knows about the parameters goes to ``super().__init__``: ``kinds={name: kind}``,
``axes={name: (source_axis, target_axis)}``, ``wiring=...`` as `trajtools.parameters.describe` takes them, and
``dtypes={name: "bfloat16"}`` is not needed: the name of ``leaf.dtype`` is enough (``torch.bfloat16`` reads as
``bfloat16``). Optimiser hooks call ``self.advance(state)``; user loops call ``self.record(...)``.
``_newest()`` may return the current state when `record` is called without one before any update; the default needs none.
"""
