"""The recorder of pytrees: by hand, and through scans and taps."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from recorders import recorder as framework_free
from recorders.jax.trees import Layout, is_weight, refuse_unreadable
from recorders.jax.twins import TwinList, Twins, members_of
from recorders.recorder import digest
from recorders.twins import Twin
from trajtools.errors import ArchitectureError, RecordingError
from trajtools.wiring import Member


class Recorder(framework_free.Recorder):
    """Records the floating-point arrays of a pytree, or of several networks that train in lock-step.

    Parameters
    ----------
    path : path-like
        The file.
    state : pytree of arrays, list of them, or Twins
        One network (a dict, a flax or equinox tree, an optax state, ...); with `members`, a list of networks of one
        structure, or one tree whose arrays have a leading axis of members (from vmap, or `stack`); or twins, which are
        then recorded at every step by themselves.
    members : int, list of Member, TwinList or None
        Number of members, or who they are; twins as `perturb` gave them stand for the reference and its twins.
    buffers : pytree of arrays, list of them, or None
        The optimiser's state at opening (optax: ``optimizer.init(params)``), in the form of `state`; recorded beside
        every state from then on, in a table of its own. Its counters, which are integers, are left out.
    **options : object
        Everything else that `recorders.Recorder` takes: ``name``, ``hparams``, ``every``, ``include``, ``store``, ...
        ``kinds`` and ``axes`` correct what the names did not tell, name by name.

    Raises
    ------
    ArchitectureError
        If there is no array to record, the list may mean layers or members, or an array is spread over processes.
    RecordingError
        As `recorders.Recorder` does; if the state was donated before it was recorded, or is being traced.

    Notes
    -----
    Leaves that are no floating-point arrays (functions, Python numbers, integers, random keys) are not part of the
    state; see `recorders.jax.trees.Layout` for names and their order. Kernels named ``kernel`` (flax) are
    (..., inputs, outputs), those named ``weight`` (equinox) (outputs, inputs, ...); for other names the rules of
    `trajtools.wiring.describe` hold.

    `record` brings the whole state to the host by one call of `jax.device_get`, and waits for it: record a state
    before a jitted function with ``donate_argnums`` consumes it. In a scan use `record_scan`, or, where the loop is
    somebody else's, `tap`.

    Examples
    --------
    >>> import jax.numpy as jnp, pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
    >>> with Recorder(pathlib.Path(folder.name) / "run.h5", params) as rec:
    ...     for _ in range(3):
    ...         rec.record(params, loss=0.5)
    ...         params = jax.tree_util.tree_map(lambda p: 0.9 * p, params)
    >>> rec.names, rec.n_recorded
    (('b', 'w'), 3)
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        state: Any,
        *,
        members: int | Sequence[Member] | TwinList | None = None,
        buffers: Any = None,
        **options: Any,
    ) -> None:
        self._programs: dict[Any, Any] = {}
        self._tapped = False
        self._scanned: tuple[int, bytes] | None = None
        self._newest: list[Any] = []
        self._twins = state if isinstance(state, Twins) else None
        state = state.state if isinstance(state, Twins) else state
        who = self._twins or members
        self._made: Mapping[str, Any] = getattr(who, "made", {})
        table, self._listed = (list(who.members), False) if who is self._twins and who else _members(state, who)
        first = state[0] if self._listed else state
        self._layout = Layout.of(first)
        cut = 0 if self._listed or table is None else 1
        roles = self._layout.roles([leaf.shape[cut:] for leaf in self._layout.pick(first)])
        kinds = {name: role.kind for name, role in roles.items()}
        axes = {name: (role.source_axis, role.target_axis) for name, role in roles.items()}
        options["kinds"] = {**kinds, **(options.get("kinds") or {})}
        options["axes"] = {**axes, **(options.get("axes") or {})}
        self._origin = _provenance()
        if self._twins is not None:
            if members is not None:
                raise RecordingError("twins define their members: omit members=")
            if buffers is not None:
                raise RecordingError("the optimiser state of twins cannot be recorded: omit buffers=")
            self._twins.attach(self)
        self._buffer_layout: Layout | None = None
        try:
            super().__init__(path, state, members=table, buffers=buffers, **options)
        except BaseException:
            self._detach()
            raise
        self._remember(state)

    # -- reading a state, as recorders.recorder asks for it

    def _named(self, state: Any) -> list[Mapping[str, Any]]:
        """Mapping name -> leaf for each member, or one for all of them."""
        if isinstance(state, Twins):
            state = state.state
        if self._listed and not isinstance(state, list | tuple):
            raise ArchitectureError(f"the run was opened with a list of networks; got a {type(state).__name__}")
        trees = state if self._listed else [state]
        mappings = [dict(zip(self._layout.names, self._layout.pick(tree), strict=True)) for tree in trees]
        if not self._made:
            return list(mappings)
        return [Twin(mapping, member=Member(""), made=self._made) for mapping in mappings]

    def _named_buffers(self, buffers: Any) -> list[Mapping[str, Any]]:
        """Mapping name -> leaf of the optimiser's state for each member, or one for all of them."""
        if self._listed and not isinstance(buffers, list | tuple):
            raise ArchitectureError(f"the run has a list of networks; pass a list of buffers, not {type(buffers)}")
        trees = list(buffers) if self._listed else [buffers]
        if self._buffer_layout is None:
            if not any(is_weight(leaf) for leaf in jax.tree_util.tree_leaves(trees)):
                return [{}]  # plain gradient descent
            self._buffer_layout = Layout.of(trees[0])
        layout = self._buffer_layout
        return [dict(zip(layout.names, layout.pick(tree), strict=True)) for tree in trees]

    def _beside(self, state: Any, buffers: Any) -> Any:
        """The state with its buffers; scans and taps bring none."""
        if self._buffers is not None and isinstance(state, OnHost):
            raise RecordingError(
                "record_scan and tap record the parameters alone, and this run also records buffers: record by hand, "
                "record(params, buffers=opt_state), or record_block(...) the stacked output of your own scan"
            )
        return super()._beside(state, buffers)

    def _read(self, state: Any) -> Any:
        """The recorded arrays on the host; those that a compiled block or a tap brought are there already."""
        return list(state) if isinstance(state, OnHost) else super()._read(state)

    def _host(self, leaves: Sequence[Any]) -> list[np.ndarray]:
        """Host arrays of the leaves by one transfer."""
        copies = 1 if self._structure.stacked else self._structure.n_members
        names = self.names * copies + (self._buffers.names * copies if self._buffers else ())
        refuse_unreadable(names[: len(leaves)], leaves)
        return jax.device_get(list(leaves))

    def _busy_cores(self) -> int:
        """On the CPU, XLA's threads keep all cores busy."""
        return (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1

    def _leaves(self, state: Any) -> list[Any]:
        """The recorded leaves of a state, checked, for scans and taps; works on tracers."""
        self._beside(OnHost(), None)
        return self._structure.check(self._named(state))

    # -- what the user calls

    def record(self, state: Any = None, *, step: int | None = None, buffers: Any = None, **metrics: Any) -> None:
        """Record a state, metrics of the newest state, or both.

        Parameters
        ----------
        state : as at opening, optional
            The next state. The first one that equals the state at opening, bit for bit, is that state, so that loops
            may record before or after the update.
        step : int, optional
            Its step; one more than the last if not given. The step of the newest state adds metrics only.
        buffers : as at opening, optional
            The optimiser's state beside this one; with every state if the recorder was opened with buffers.
        **metrics : float, 0-d array, or array (M,) or (M, k)
            Of the state that they were computed from: the newest.

        Raises
        ------
        ArchitectureError
            If the state differs in structure, shapes or dtypes from the first one.
        RecordingError
            If the state was donated or is being traced, or as `recorders.Recorder.record` does.
        """
        super().record(state, step=step, buffers=buffers, **metrics)
        if state is not None:
            self._remember(() if isinstance(state, OnHost) else state)

    def advance(self, state: Any, step: int | None = None, buffers: Any = None) -> None:
        """Say that an update was made; the state is stored if `every` says so.

        Parameters
        ----------
        state : as at opening
            The state after the update.
        step : int, optional
            Its step; one more than the last if not given.
        buffers : as at opening, optional
            As for `record`.

        Raises
        ------
        ArchitectureError, RecordingError
            As `record` does.
        """
        super().advance(state, step, buffers)
        self._remember(state)

    def close(self, status: str = "complete") -> None:
        """Wait for the taps, write what is left and close the file; a second call does nothing.

        Parameters
        ----------
        status : {"complete", "interrupted"}
            What the file says of the run.

        Raises
        ------
        RecordingError
            If a tap failed, or the last states could not be written.
        """
        failure = None
        if self._tapped:
            self._tapped = False
            try:
                jax.effects_barrier()
            except Exception as error:  # XLA's own types, which differ between versions
                failure, status = error, "interrupted"
        self._detach()
        super().close(status)
        if failure is not None:
            raise RecordingError(f"a tap failed, states after it are missing: {failure}") from failure

    # -- what scans and taps call

    def _end_block(self, states: Any) -> None:
        """Recognise the last state of a block where a scan begins with it."""
        mappings = self._named(states)
        length = mappings[0][self.names[0]].shape[:1]
        if length != (0,):
            last = [leaf[-1] for leaf in self._host(self._structure.check(mappings, lead=length))]
            self._newest, self._scanned = [], (self.step, digest(last))

    def _detach(self) -> None:
        """Follow twins no longer; once, because another recorder may follow them later."""
        if self._twins is not None:
            self._twins.attach(None)
            self._twins = None

    def _remember(self, state: Any) -> None:
        """Note which arrays the newest state consists of, without keeping them alive."""
        self._newest = [weakref.ref(leaf) for leaf in _arrays(state)]

    def _enter(self, state: Any) -> int:
        """Step of the state that a scan begins with, recorded now if it is not the newest one."""
        self.record()  # raises now what stands in the way of recording
        arrays = _arrays(state)
        if len(arrays) == len(self._newest) and all(a is b() for a, b in zip(arrays, self._newest, strict=True)):
            return self.step
        if (self.step, digest(self._host(self._leaves(state)))) != self._scanned:
            self.record(state)  # the state at opening is recognised there
        return self.step

    def _leave(self, step: int, state: Any) -> None:
        """Take the state that a scan ends with."""
        self.advance(state, step=step)
        self._scanned = (step, digest(self._host(self._leaves(state))))

    def _wants(self, step: int) -> bool:
        """Whether the state of a later step will be stored."""
        return self._steps.wanted(step)

    def _block(self, start: int, stored: np.ndarray, leaves: Sequence[np.ndarray], metrics: Mapping[str, Any]) -> None:
        """Record consecutive steps: `leaves` hold the states at the offsets `stored`, metrics belong to all."""
        if start == self.step and metrics:
            self.record(**{name: values[0] for name, values in metrics.items()})
        for i, offset in enumerate(stored):
            state = OnHost(leaf[i] for leaf in leaves)
            self.record(state, step=start + int(offset), **{name: values[offset] for name, values in metrics.items()})

    def _arrived(self, arrays: Sequence[np.ndarray], step: int | None, metrics: Mapping[str, Any]) -> None:
        """A state that a tap brought."""
        self.record(OnHost(arrays), step=step, **metrics)


class OnHost(tuple[np.ndarray, ...]):
    """The recorded arrays of a state, checked, in order, and on the host already."""


def _members(state: Any, members: Any) -> tuple[Any, bool]:
    """The members as `recorders.Recorder` takes them, and whether the state is a list of networks."""
    alike = isinstance(state, list | tuple) and len(state) > 1 and _alike(state)
    if members is None:
        if alike and not isinstance(state, tuple):
            raise ArchitectureError(
                f"a list of {len(state)} trees of one structure is ambiguous: they may be members or layers. For "
                "members pass members= (a number, a list of Member, or the twins); for the layers of one network "
                "pass tuple(params), here and to record"
            )
        return None, False
    table = None if hasattr(members, "__index__") else getattr(members, "members", members)
    heads = {leaf.shape[:1] for leaf in Layout.of(state).pick(state)}
    count = len(state) if alike else next(iter(heads))[0] if len(heads) == 1 and () not in heads else 0
    if table is not None:
        table = members_of(table, count)
    wanted = len(table) if table is not None else int(members)
    listed, stacked = alike and len(state) == wanted, heads == {(wanted,)}
    if listed and stacked:
        raise ArchitectureError(
            f"a list of {wanted} equal trees came whose arrays all have a leading axis of {wanted}: it may be {wanted} "
            "members, or layers with a member axis. For members give stack(state[0], state[1:]); for layers give "
            "{'layers': state}, here and to record"
        )
    if not (listed or stacked):
        shapes = sorted(heads)
        raise ArchitectureError(
            f"members= declares {wanted} networks; pass a list of {wanted} trees of one structure, or one tree whose "
            "arrays "
            f"all have a leading axis of {wanted} (the leading axes here: {shapes})"
        )
    if table is None:
        table = [Member(f"member {i}") for i in range(wanted)]
    return list(table), listed


def _arrays(state: Any) -> list[Any]:
    """The arrays of a state that live on their own, as objects to be recognised."""
    leaves = jax.tree_util.tree_leaves(state.state if isinstance(state, Twins) else state)
    return [leaf for leaf in leaves if isinstance(leaf, jax.Array | np.ndarray)]


def _alike(trees: Sequence[Any]) -> bool:
    """Whether all trees have one structure and one set of shapes."""
    leaves = [jax.tree_util.tree_leaves(tree) for tree in trees]
    shapes = {tuple(np.shape(leaf) for leaf in found) for found in leaves}
    return len({jax.tree_util.tree_structure(tree) for tree in trees}) == 1 and len(shapes) == 1


def _provenance() -> dict[str, Any]:
    """What JAX adds to the provenance of a run."""
    return {
        "jax": {
            "version": jax.__version__,
            "backend": jax.default_backend(),
            "devices": [str(device) for device in jax.devices()],
            "enable_x64": bool(jax.config.jax_enable_x64),
            "matmul_precision": str(jax.config.jax_default_matmul_precision),
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        }
    }
