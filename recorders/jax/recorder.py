"""The recorder of pytrees: via explicit calls, scans and taps."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Self

import jax
import numpy as np

from recorders import recorder as framework_free
from recorders.adapter import Beside
from recorders.jax.optimizers import learning_rate, settings_of, settings_of_state, updates_of
from recorders.jax.shards import shards_of
from recorders.jax.trees import Layout, is_weight, refuse_unreadable
from recorders.jax.twins import TwinList, Twins, members_of
from recorders.shards import OtherRank
from recorders.twins import Twin
from trajtools.errors import ArchitectureError, RecordingError
from trajtools.store import digest
from trajtools.wiring import Member, select

"""Keys of the kernels of attention in flax and equinox."""


class Recorder(framework_free.Recorder):
    """Record the floating-point arrays of a pytree, or of several networks trained in lock-step.

    Parameters
    ----------
    path : path-like
        The file.
    state : pytree of arrays, list of them, or Twins
        One network (a dict, a flax or equinox tree, an optax state, ...); with `members`, a list of networks of one
        structure, or one tree with a leading axis of members (from vmap, or `stack`); or twins, which are then
        recorded automatically at every step.
    members : int, list of Member, TwinList or None
        Number of members, or their entries; the result of `perturb` stands for the reference and its twins.
    optimizer : optax.GradientTransformation, flax.nnx.Optimizer, flax TrainState or None
        The optimiser, whose name and settings go to the provenance; twins know theirs. See Notes.
    buffers : pytree of arrays, list of them, or None
        State of the optimiser at opening (optax: ``optimizer.init(params)``), in the form of `state`; recorded with
        every state in a separate table. Its integer counters are not recorded. Of `optax.inject_hyperparams` the
        learning rate is recorded as the metric ``learning_rate``, too, unless it follows a schedule.
    model_buffers : bool
        Of a flax.nnx module, record the variables other than `Param` (statistics of BatchNorm, ...) beside states.
    **options : object
        Options of `recorders.Recorder`: ``name``, ``hparams``, ``every``, ``include``, ``store``, ... ``kinds`` and
        ``axes`` correct the roles inferred from names, by name.

    Raises
    ------
    ArchitectureError
        If there is no array to record, or a list is ambiguous (layers or members).
    RecordingError
        As in `recorders.Recorder`; or if the state was donated or is being traced.

    Notes
    -----
    Of a flax.nnx module, `Param` is the state, and no other variables are (statistics of BatchNorm, ...). With
    `optax.MultiSteps` pass its state as `buffers`, or ``step=opt_state.gradient_step``: micro-steps between two updates
    then add to the metrics only, which are averaged.

    Leaves other than floating-point arrays (functions, Python numbers, integers, random keys) do not belong to the
    state; see `recorders.jax.trees.Layout` for names and their order. Kernels named ``kernel`` (flax) are
    (..., inputs, outputs), those named ``weight`` (equinox) (outputs, inputs, ...); other names follow the rules of
    `trajtools.wiring.describe`.

    A transformation of optax is a pair of functions that says neither its name nor its learning rate. The recorder
    tries it on a few numbers, without touching the training, and names gradient descent (momentum, Nesterov, weight
    decay), Adam and AdamW, if it repeats their formula: ``run.provenance["optimizer"]``, with a sentence on what is
    missing. A learning rate that follows a schedule is not known to it: record the metric ``learning_rate``.

    `record` transfers the whole state to the host by one call of `jax.device_get`, and waits for it: record a state
    before a jitted function with ``donate_argnums`` consumes it. In a scan use `record_scan`, or `tap` in a loop that
    you cannot change.

    Arrays that are sharded over the devices of one process are read device by device into one file. Where they are
    sharded over several processes, each writes its part to ``<name>.rank<i>.h5``, and nothing is gathered;
    `trajtools.open` reads these files as one run. All processes open the recorder; if one cannot open its file, none
    records.

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

    _shards: Any

    def __new__(  # noqa: D102
        cls, path: str | os.PathLike[str], state: Any, *, members: Any = None, **options: Any
    ) -> Self:
        tree = state.state if isinstance(state, Twins) else state
        shards = shards_of(tree)
        if shards is not None and options.get("model_buffers"):
            raise RecordingError("model_buffers= are those of a whole network, not of one sharded over processes")
        if shards is not None:
            first = tree[0] if members is not None and isinstance(tree, list | tuple) else tree
            if members is not None and first is tree:
                raise ArchitectureError(
                    "members with a leading axis cannot be sharded over processes: pass a list of networks"
                )
            layout = Layout.of(first)
            shards.local(dict(zip(layout.names, layout.pick(first), strict=True)))
            shards.agree(path, **options)
        made: Any = object.__new__(cls if shards is None or shards.is_recording else _OtherRank)
        made._shards = shards
        return made

    def __init__(
        self,
        path: str | os.PathLike[str],
        state: Any,
        *,
        members: int | Sequence[Member] | TwinList | None = None,
        optimizer: Any = None,
        buffers: Any = None,
        model_buffers: bool = False,
        **options: Any,
    ) -> None:
        self._programs: dict[Any, Any] = {}
        self._tapped = self._entering = False
        self._scanned: tuple[int, bytes] | None = None
        self._newest: list[Any] = []
        self._twins = state if isinstance(state, Twins) else None
        state = state.state if isinstance(state, Twins) else state
        who = self._twins or members
        self._made: Mapping[str, Any] = getattr(who, "made", {})
        table, self._listed = (list(who.members), False) if who is self._twins and who else _members(state, who)
        first = state[0] if self._listed else state
        self._layout = Layout.of(first)
        self._own_layout = Layout.of(first, statistics=True) if model_buffers else None
        cut = 0 if self._listed or table is None else 1
        shapes = [leaf.shape[cut:] for leaf in self._layout.pick(first)]
        roles = self._layout.roles(shapes)
        kinds = {name: role.kind for name, role in roles.items()}
        axes = {name: (role.source_axis, role.target_axis) for name, role in roles.items()}
        mine = self._layout.wiring(shapes)
        if mine is not None:
            chosen = select(self._layout.names, options.get("include", ()), options.get("exclude", ()))
            own = options.get("wiring") or {}
            options["wiring"] = {name: ends for name, ends in mine.items() if name in chosen} | dict(own)
        options["kinds"] = {**kinds, **(options.get("kinds") or {})}
        options["axes"] = {**axes, **(options.get("axes") or {})}
        self._origin = _provenance()
        if self._twins is not None:
            if members is not None:
                raise RecordingError("twins define their members: omit members=")
            if buffers is not None or optimizer is not None:
                raise RecordingError(
                    "twins know their optimiser, whose state cannot be recorded: omit buffers= and optimizer="
                )
            options["plantings"] = self._twins._newest_plantings()
            self._twins.attach(self)
        self._buffer_layout: Layout | None = None
        self._counts_updates = updates_of(buffers) is not None
        self._injects_rate = learning_rate(buffers) is not None
        self._optimizer = self._settings(shapes, optimizer, buffers)
        if self._optimizer:
            self._origin = {**self._origin, "optimizer": self._optimizer}
        if self._counts_updates and options.get("step") is None:
            options["step"] = updates_of(buffers)
        try:
            with self._shards.opening(self) if self._shards else nullcontext():
                place = self._shards.path if self._shards else path
                super().__init__(place, state, members=table, buffers=buffers, **options)
        except BaseException:
            self._detach()
            raise
        self._remember(state)

    def _settings(self, shapes: Sequence[tuple[int, ...]], optimizer: Any, buffers: Any) -> dict[str, Any]:
        """What is known of the optimiser; what its state at opening says goes before a try of a fresh one."""
        said = settings_of_state(buffers)
        if self._twins is not None:
            optimizer, said = self._twins.optimizer, settings_of_state(self._twins.carry[1])
        if optimizer is None:
            return said
        tried = settings_of(optimizer, self._layout, shapes)
        injected = {key: value for key, value in said.items() if key in tried} if "injected" in said else {}
        return {**tried, **injected, **{key: tried[key] for key in ("name", "is_known", "missing") if key in tried}}

    # -- reading a state, for recorders.recorder

    def _named(self, state: Any) -> list[Mapping[str, Any]]:
        """Return name -> leaf for each member, or one mapping for all."""
        if isinstance(state, Twins):
            state = state.state
        if self._listed and not isinstance(state, list | tuple):
            raise ArchitectureError(f"the run was opened with a list of networks; got a {type(state).__name__}")
        trees = state if self._listed else [state]
        mappings = [self._readable(self._layout, tree) for tree in trees]
        if not self._made:
            return list(mappings)
        return [Twin(mapping, member=Member(""), made=self._made) for mapping in mappings]

    def _named_buffers(self, buffers: Any) -> list[Mapping[str, Any]]:
        """Return name -> leaf of the optimiser state for each member, or one mapping for all."""
        if self._listed and not isinstance(buffers, list | tuple):
            raise ArchitectureError(f"the run has a list of networks; pass a list of buffers, not {type(buffers)}")
        trees = list(buffers) if self._listed else [buffers]
        if self._buffer_layout is None:
            if not any(is_weight(leaf) for leaf in jax.tree_util.tree_leaves(trees)):
                return [{}]  # plain gradient descent
            self._buffer_layout = Layout.of(trees[0])
        return [self._readable(self._buffer_layout, tree) for tree in trees]

    def _named_own(self, state: Any) -> list[Mapping[str, Any]]:
        """Return name -> variable other than a parameter, for each member."""
        if self._own_layout is None:
            return []
        return [self._readable(self._own_layout, tree) for tree in (state if self._listed else [state])]

    def _readable(self, layout: Layout, tree: Any) -> Mapping[str, Any]:
        """Return name -> leaf, of arrays that are sharded over processes what this one holds."""
        leaves = layout.pick(tree)
        named = dict(zip(layout.names, leaves, strict=True))
        if self._shards is None:
            return named
        refuse_unreadable(layout.names, leaves, sharded=True)
        return self._shards.local(named)

    def _beside(self, state: Any, buffers: Any) -> Any:
        """Return the state with its buffers; scans and taps have none."""
        if (self._buffers or self._own) is not None and isinstance(state, OnHost):
            raise RecordingError(
                "record_scan and tap record parameters only, but this run also records buffers: call "
                "record(params, buffers=opt_state), or record_block(...) the stacked output of your own scan"
            )
        return super()._beside(state, buffers)

    def _read(self, state: Any) -> Any:
        """Return the recorded arrays on the host; those of a compiled block or a tap are there already."""
        return list(state) if isinstance(state, OnHost) else super()._read(state)

    def _host(self, leaves: Sequence[Any]) -> list[np.ndarray]:
        """Return host arrays of the leaves by one transfer."""
        if self._shards is not None:
            held = jax.device_get([leaf.arrays for leaf in leaves])
            return [leaf.on_host(arrays) for leaf, arrays in zip(leaves, held, strict=True)]
        on_cpu = jax.default_backend() == "cpu"
        try:
            if on_cpu:  # views, for which `device_get` takes longer than copying a small layer
                return [np.asarray(leaf) for leaf in leaves]
        except Exception:
            self._refuse_unreadable(leaves)
            raise
        self._refuse_unreadable(leaves)
        return jax.device_get(list(leaves))

    def _refuse_unreadable(self, leaves: Sequence[Any]) -> None:
        """Raise for the first leaf without values here, by its name."""
        copies = 1 if self._structure.stacked else self._structure.n_members
        beside = [one.names * copies for one in (self._buffers, self._own) if one is not None]
        names = sum(beside, self.names * copies)
        refuse_unreadable(names[: len(leaves)], leaves)

    def _is_untouched(self, state: Any) -> bool:
        """Whether a state shares an array with the newest one; the states of scans and taps do not tell."""
        state = state.state if isinstance(state, Beside) else state
        newest = {id(array()) for array in self._newest}
        return self._entering or isinstance(state, OnHost) or any(id(leaf) in newest for leaf in _arrays(state))

    def _is_newest(self, state: Any) -> bool:
        """Whether the arrays are those of the newest state, by identity."""
        arrays = _arrays(state)
        return len(arrays) == len(self._newest) and all(a is b() for a, b in zip(arrays, self._newest, strict=True))

    def _thresholds(self) -> Mapping[str, float]:
        """Largest stable curvatures at the newest learning rate."""
        from trajtools.training.curvature import thresholds

        rate = self._numbers.get("learning_rate", self._optimizer.get("lr"))
        if rate is None or not self._optimizer.get("is_known", False):
            return {}
        return thresholds(self._optimizer, float(rate))

    def _busy_cores(self) -> int:
        """On the CPU, XLA's threads keep all cores busy."""
        return (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1

    def _leaves(self, state: Any) -> list[Any]:
        """Return the checked leaves of a state, for scans and taps; works on tracers."""
        self._beside(OnHost(), None)
        return self._structure.check(self._named(state))

    # -- public methods

    def record(self, state: Any = None, *, step: int | None = None, buffers: Any = None, **metrics: Any) -> None:
        """Record a state, metrics of the newest state, or both.

        Parameters
        ----------
        state : as at opening, optional
            The next state. The first one that equals the state at opening, bit for bit, and shares arrays with it, is
            that state, so loops may record before or after the update. All arrays new are an update, even one that
            changes nothing (warm-up from 0).
        step : int, optional
            Its step; default: one more than the last. The step of the newest state adds metrics only.
        buffers : as at opening, optional
            State of the optimiser; required with every state if the recorder was opened with buffers.
        **metrics : float, 0-d array, or array (M,) or (M, k)
            Metrics of the newest state.

        Raises
        ------
        RecordingError
            If the state was donated or is being traced, or as in `recorders.Recorder.record`.
        """
        if step is None and self._counts_updates:
            step = updates_of(buffers)
        if self._injects_rate and buffers is not None:
            metrics = {"learning_rate": learning_rate(buffers), **metrics}
        super().record(state, step=step, buffers=buffers, **metrics)
        if state is not None:
            self._remember(() if isinstance(state, OnHost) else state)

    def advance(self, state: Any, step: int | None = None, buffers: Any = None) -> None:
        """Count an update; store the state if `every` selects it.

        Parameters
        ----------
        state : as at opening
            The state after the update.
        step : int, optional
            Its step; default: one more than the last.
        buffers : as at opening, optional
            As in `record`.

        Raises
        ------
        RecordingError
            As in `record`.
        """
        super().advance(state, step, buffers)
        self._remember(state)

    def close(self, status: str = "complete") -> None:
        """Wait for the taps, write the remaining states and close the file; a second call does nothing.

        Parameters
        ----------
        status : {"complete", "interrupted"}
            Status of the run in the file.

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
            except Exception as error:  # exception types of XLA differ between versions
                failure, status = error, "interrupted"
        self._detach()
        super().close(status)
        if failure is not None:
            raise RecordingError(f"a tap failed, states after it are missing: {failure}") from failure

    # -- for scans and taps

    def _end_block(self, states: Any) -> None:
        """Identify the last state of a block if a scan starts from it."""
        mappings = self._named(states)
        length = mappings[0][self.names[0]].shape[:1]
        if length != (0,):
            last = [leaf[-1] for leaf in self._host(self._structure.check(mappings, lead=length))]
            self._newest, self._scanned = [], (self.step, digest(last))

    def _detach(self) -> None:
        """Stop following twins; once, because another recorder may follow them later."""
        if self._twins is not None:
            self._twins.attach(None)
            self._twins = None

    def _remember(self, state: Any) -> None:
        """Remember the arrays of the newest state by weak references."""
        self._newest = [weakref.ref(leaf) for leaf in _arrays(state)]

    def _enter(self, state: Any) -> int:
        """Return the step of the first state of a scan; record it if it is not the newest one."""
        self.record()  # raises pending errors
        if self._is_newest(state):
            return self.step
        if (self.step, digest(self._host(self._leaves(state)))) != self._scanned:
            self._entering = True
            try:
                self.record(state)  # identifies the state at opening
            finally:
                self._entering = False
        return self.step

    def _leave(self, step: int, state: Any) -> None:
        """Accept the last state of a scan."""
        self.advance(state, step=step)
        self._scanned = (step, digest(self._host(self._leaves(state))))

    def _wants(self, step: int) -> bool:
        """Whether the policy stores the state of a later step."""
        return self._steps.wanted(step)

    def _block(self, start: int, stored: np.ndarray, leaves: Sequence[np.ndarray], metrics: Mapping[str, Any]) -> None:
        """Record consecutive steps: `leaves` hold the states at the offsets `stored`, metrics belong to all."""
        if start == self.step and metrics:
            self.record(**{name: values[0] for name, values in metrics.items()})
        for i, offset in enumerate(stored):
            state = OnHost(leaf[i] for leaf in leaves)
            self.record(state, step=start + int(offset), **{name: values[offset] for name, values in metrics.items()})

    def _arrived(self, arrays: Sequence[np.ndarray], step: int | None, metrics: Mapping[str, Any]) -> None:
        """Record a state from a tap."""
        self.record(OnHost(arrays), step=step, **metrics)


class _OtherRank(OtherRank, Recorder):
    """Recorder of a process whose weights another process records."""


class OnHost(tuple[np.ndarray, ...]):
    """The recorded arrays of a state on the host, checked and in order."""


def _members(state: Any, members: Any) -> tuple[Any, bool]:
    """Return the members for `recorders.Recorder`, and whether the state is a list of networks."""
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
    n_members = len(table) if table is not None else int(members)
    listed, stacked = alike and len(state) == n_members, heads == {(n_members,)}
    if listed and stacked:
        raise ArchitectureError(
            f"a list of {n_members} equal trees with a leading axis of {n_members} in all arrays is ambiguous: it may "
            f"be {n_members} members, or layers with a member axis. For members pass stack(state[0], state[1:]); for "
            "layers pass {'layers': state}, here and to record"
        )
    if not (listed or stacked):
        shapes = sorted(heads)
        raise ArchitectureError(
            f"members= declares {n_members} networks; pass a list of {n_members} trees of one structure, or one tree "
            f"whose arrays all have a leading axis of {n_members} (the leading axes here: {shapes})"
        )
    if table is None:
        table = [Member(f"member {i}") for i in range(n_members)]
    return list(table), listed


def _arrays(state: Any) -> list[Any]:
    """The separate arrays of a state, by identity."""
    leaves = jax.tree_util.tree_leaves(state.held if isinstance(state, Twins) else state)
    return [leaf for leaf in leaves if isinstance(leaf, (jax.Array, np.ndarray))]


def _alike(trees: Sequence[Any]) -> bool:
    """Whether all trees have one structure and one set of shapes."""
    leaves = [jax.tree_util.tree_leaves(tree) for tree in trees]
    shapes = {tuple(np.shape(leaf) for leaf in leaves_of_tree) for leaves_of_tree in leaves}
    return len({jax.tree_util.tree_structure(tree) for tree in trees}) == 1 and len(shapes) == 1


def _provenance() -> dict[str, Any]:
    """Provenance of JAX."""
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
