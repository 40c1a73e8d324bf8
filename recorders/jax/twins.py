"""Lock-step training of a pytree and its perturbed copies on common batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recorders import twins
from recorders.jax.scan import scan_blocks
from recorders.jax.trees import Layout, refuse_unreadable
from recorders.planting import check_replant, squared_gaps
from trajtools.errors import ArchitectureError, PerturbationError, RecordingError
from trajtools.wiring import Member

PROBES = 8
"""Draws of the check that equal members get equal bits."""
LARGEST_AT_ONCE = 5_000
"""Weights up to which vmap over the members is faster on the CPU than a loop; see benchmarks/training.py."""
LARGEST_STACKED = 50_000
"""Weights up to which such a loop inside one compiled step is faster on the CPU than a compiled step per member."""


class Twins(twins.Twins):
    """A reference and its perturbed copies, trained in lock-step on common batches with common noise.

    Parameters
    ----------
    params : pytree of arrays
        The reference; not modified. Leaves other than floating-point arrays (functions, counters) are common to all
        members and unchanged, so an equinox module can be passed as a whole.
    loss_fn : callable
        ``loss_fn(params, *batch)`` -> scalar; with ``has_aux=True`` -> ``(scalar, {name: number or (k,) array})``,
        whose entries are recorded as metrics. Pure, traced by JAX.
    optimizer : optax.GradientTransformation
        Anything with ``init(params)`` and ``update(gradients, state, params)``.
    epsilon, members, seed, distribution, only, allow_rounded
        As in `perturb`; epsilon from the dtype and the weights if not given. A list, ``epsilon=[1e-8, 1e-11]``: the
        copies take its sizes in turn, and `tt.twins` tests whether their rates agree.
    replant : {"auto", "saturation"}, int or None
        When copies are planted anew beside the reference: its weights plus a fresh perturbation, and all else of the
        training copied. "auto": those that have saturated, merged or come near the rounding floor, and otherwise at
        doubling ages, in cohorts, so that a training has several starts. "saturation": all of them, when they have
        saturated or merged. k: all of them, every k steps. None: never. See Notes.
    has_aux : bool
        See `loss_fn`.
    noise : {"common", "independent"}
        Random keys (`jax.random.key`) in a batch: "common": all members get the same key; "independent": member i gets
        ``jax.random.fold_in(key, i)``.
    vectorize : {"auto", True, False}
        False: one member after the other. True: all at once by vmap. "auto": by vmap if equal members then get equal
        bits, as tested on the first batch of every shape; on the CPU only for networks of at most 5,000 weights, since
        one after the other is as fast or faster beyond. Up to 50,000 weights these are parts of one compiled step;
        beyond, the members have arrays and calls of their own, because stacking them costs more than the calls.

    Attributes
    ----------
    members : tuple of Member
        Entries of the members table; the reference is the first.
    made : dict
        Settings of the perturbation, for the provenance of a run.
    plantings : list of Planting
        Every planting so far, those at step 0 included.
    room : Room
        Room of the perturbation, in e-folds: ``above`` up to saturation (before any: up to the size of the weights),
        ``below`` down to rounding.
    carry : tuple
        (stacked parameters, stacked optimiser state), as in `pure_step`. It may be set. Of members that have arrays of
        their own it is a copy.

    Raises
    ------
    PerturbationError, RecordingError, ArchitectureError
        As in `perturb`.
    ValueError
        If `noise`, `vectorize` or `replant` is not one of the values above.

    Notes
    -----
    The reference trains as without twins, to the bit; only copies are planted anew. State s of a recorded run shows
    what was planted at step s, and `tt.twins` reads every stretch from one planting to the next as one start. While a
    recorder follows, copies are planted only at steps that it stores, and never with an `every` that is no number
    (curves of uneven spacing cannot be compared). `recorders.planting` says when copies count as saturated, and why
    they are planted in cohorts.
    A planting copies the parameters and optimiser state of the reference. `step` plants after any update, `scan` after
    whole blocks only, `pure_step` never.

    Examples
    --------
    >>> import jax.numpy as jnp, optax
    >>> def loss_fn(params, x, y):
    ...     return jnp.mean((x @ params["w"] - y) ** 2)
    >>> twins = Twins({"w": jnp.ones((4, 1))}, loss_fn, optax.sgd(0.1), epsilon=1e-3, members=2, seed=0)
    >>> twins.step(jnp.ones((8, 4)), jnp.zeros((8, 1))).shape
    (3,)
    """

    def __init__(
        self,
        params: Any,
        loss_fn: Callable[..., Any],
        optimizer: Any,
        *,
        epsilon: float | Sequence[float] | Mapping[str, Any] | None = None,
        members: int,
        seed: int,
        distribution: str = "uniform",
        only: str | Sequence[str] = "weights",
        allow_rounded: bool = False,
        replant: str | int | None = "auto",
        has_aux: bool = False,
        noise: str = "common",
        vectorize: bool | str = "auto",
    ) -> None:
        twins.check_vectorize(vectorize)
        if noise not in ("common", "independent"):
            raise ValueError(f'noise={noise!r}: it must be "common" or "independent"')
        check_replant(replant)
        copies = perturb(
            params, epsilon, members, seed, distribution=distribution, only=only, allow_rounded=allow_rounded
        )
        table = members_of(copies.members, 1 + len(copies), noise)
        assert copies.perturbation is not None
        super().__init__(table, copies.made, vectorize, perturbation=copies.perturbation, replant=replant)
        self._lockstep = Lockstep(params, loss_fn, optimizer, has_aux, independent=noise == "independent")
        started = self._lockstep.start([params, *copies])
        self._slower = _slower_at_once(started[0][0]) if vectorize == "auto" else ""
        self._apart: list[tuple[Any, Any]] | None = None
        if vectorize is not True and _is_large(started[0][0]):
            self._apart, self._layout = started, Layout.of(started[0][0])
        else:
            self._carry: tuple[Any, Any] = _stacked(started)
            self._layout = Layout.of(self._carry[0])
        path = self._slower or ("vectorize=False" if vectorize is False else "at once")
        path += " where equal members then get equal bits" if path == "at once" and vectorize == "auto" else ""
        self.made |= {"vectorize": vectorize, "path": path}
        self._start()

    @property
    def optimizer(self) -> Any:
        """The transformation of optax that trains every member."""
        return self._lockstep.optimizer

    @property
    def state(self) -> Any:
        """Parameters of all members: the tree of the reference, arrays of shape (M, ...), None for other leaves."""
        return self._carry[0] if self._apart is None else _stacked([params for params, _ in self._apart])

    @property
    def carry(self) -> tuple[Any, Any]:
        """Stacked parameters and stacked optimiser state."""
        return self._carry if self._apart is None else _stacked(self._apart)

    @carry.setter
    def carry(self, carry: tuple[Any, Any]) -> None:
        if self._apart is None:
            self._carry = carry
        else:
            self._apart = [jax.tree_util.tree_map(lambda leaf, i=i: leaf[i], carry) for i in range(len(self.members))]

    @property
    def held(self) -> Any:
        """The parameters as they are held: one tree of stacked arrays, or a list of trees."""
        return self._carry[0] if self._apart is None else [params for params, _ in self._apart]

    def member(self, index: int) -> Any:
        """Return one member as a tree like `params`.

        Parameters
        ----------
        index : int
            0 is the reference.

        Returns
        -------
        pytree
            Its current parameters.
        """
        held = self.held
        one = jax.tree_util.tree_map(lambda leaf: leaf[index], held) if self._apart is None else held[index]
        return self._lockstep.whole(one)

    def reference(self) -> Any:
        """Return the reference as a tree like `params`.

        Returns
        -------
        pytree
            Its current parameters.
        """
        return self.member(0)

    def step(self, *batch: Any) -> jax.Array:
        """Train every member on the same batch, one update each; an attached recorder gets state and metrics.

        Parameters
        ----------
        *batch : pytree of arrays
            Arguments of the loss function after the parameters.

        Returns
        -------
        jax.Array of shape (M,)
            Losses of the members before the update.

        Raises
        ------
        ValueError
            If ``loss_fn`` does not return a scalar, or ``noise="independent"`` and there is no random key in the batch.
        """
        self._plan = self._planned(batch, scanned=False)
        if self._apart is None:
            new, metrics = self._lockstep.compiled(self._plan[0])(self._carry, batch)
        else:
            new, metrics = self._lockstep.each(self._apart, batch)
        if self._recorder is not None:
            self._recorder.record(**metrics)
        if self._apart is None:
            self._carry = new
        else:
            self._apart = new
        self._replant()
        if self._recorder is not None:
            self._recorder.advance(self)
        return metrics["loss"]

    def scan(self, batches: Sequence[Any], *, block: int = 64) -> np.ndarray:
        """Train on many batches inside compiled blocks of steps; the attached recorder gets every state.

        Parameters
        ----------
        batches : tuple of pytrees of arrays, each of shape (n, ...)
            Stacked arguments of n calls of `step`.
        block : int
            Steps between two transfers, see `record_scan`; copies are planted anew between two blocks.

        Returns
        -------
        ndarray of shape (n, M)
            Losses of the members before each update.

        Raises
        ------
        RecordingError
            If no recorder is attached: open ``Recorder(path, twins)`` first.
        ValueError
            As in `step`.
        """
        if self._recorder is None:
            raise RecordingError(
                "no recorder is attached to these twins: open Recorder(path, twins) first. Without one, "
                "jax.lax.scan(twins.pure_step, twins.carry, batches) trains them"
            )
        batches = tuple(batches)
        if all(len(leaf) for leaf in jax.tree_util.tree_leaves(batches)):
            self._plan = self._planned(jax.tree_util.tree_map(lambda leaf: leaf[0], batches), scanned=True)
        carry = self.carry
        if self._apart is not None and self._recorder._is_newest(self):
            self._recorder._remember(carry[0])
        self.carry, ys = scan_blocks(
            self._recorder, self.pure_step, carry, batches, params=_parameters, block=block, between=self._between
        )
        return ys["loss"]

    def _between(self, carry: tuple[Any, Any], updates: int, step: int) -> tuple[Any, Any]:
        """Plant after a block of updates, in the state of a step of the recorder."""
        self.carry = carry
        self._replant(updates, step)
        return self.carry

    def _network(self) -> dict[str, np.ndarray]:
        """Return the parameters of the reference on the host."""
        held = self.held
        leaves = self._layout.pick(held[0] if self._apart is not None else held)
        if self._apart is None:
            leaves = [(np.asarray(leaf) if jax.default_backend() == "cpu" else leaf)[0] for leaf in leaves]
        return dict(zip(self._layout.names, jax.device_get(leaves), strict=True))

    def _distances(self, copies: Sequence[int]) -> np.ndarray:
        """Measure copies where they are; only one number a copy is transferred."""
        held = self.held
        if self._apart is not None:
            rows = zip(*(self._layout.pick(held[i]) for i in (0, *copies)), strict=True)
            squares = [squared_gaps(first, others) for first, *others in rows]
            return np.sqrt(np.sum(squares, axis=0))
        leaves = self._layout.pick(held)
        if jax.default_backend() == "cpu":  # views, and XLA sums no faster than this
            stacks = [np.asarray(leaf) for leaf in leaves]
            squares = [squared_gaps(stack[0], [stack[copy] for copy in copies]) for stack in stacks]
        else:
            squares = [np.square(norms, dtype=np.float64) for norms in jax.device_get(_norms(leaves))]
            squares = [each[np.array(copies) - 1] for each in squares]
        return np.sqrt(np.sum(squares, axis=0))

    def _plant(self, moved: Mapping[int, Mapping[str, np.ndarray]]) -> None:
        """Make members anew from the reference."""
        if self._apart is not None:
            params, state = self._apart[0]
            leaves = self._layout.pick(params)
            for i, arrays in moved.items():
                own = [_like(arrays[name], leaf) for name, leaf in zip(self._layout.names, leaves, strict=True)]
                self._apart[i] = self._layout.put(params, own), state
            return
        at = np.array(list(moved))
        params, state = self._carry
        leaves = [
            _with_rows(leaf, at, np.stack([arrays[name] for arrays in moved.values()]))
            for name, leaf in zip(self._layout.names, self._layout.pick(params), strict=True)
        ]
        state = jax.tree_util.tree_map(lambda leaf: _with_rows(leaf, at, None), state)
        self._carry = self._layout.put(params, leaves), state

    def pure_step(self, carry: tuple[Any, Any], batch: Any) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
        """One update of all members as a pure function, for `jax.lax.scan` and `record_scan`.

        Parameters
        ----------
        carry : tuple
            (stacked parameters, stacked optimiser state), such as ``twins.carry``.
        batch : tuple, or pytree of arrays
            Arguments of the loss function after the parameters: a tuple of several, or one.

        Returns
        -------
        carry : tuple
            The carry after the update.
        metrics : dict of str to Array
            ``loss`` (M,), before the update, and the metrics of ``has_aux``.

        Notes
        -----
        With ``vectorize="auto"`` the members are computed one after the other unless an earlier `scan` established that
        batches of this shape can be vectorised. For `record_scan` pass ``params=lambda carry: carry[0]``; assign the
        final carry to ``twins.carry``.
        """
        batch = batch if isinstance(batch, tuple) else (batch,)
        vectorized = self._vectorize is True or self._plans.get((True, *_shape(batch)), (False, ""))[0]
        return self._lockstep.update(vectorized, carry, batch)

    def _planned(self, batch: tuple[Any, ...], *, scanned: bool) -> tuple[bool, str]:
        """Whether to vectorise batches of this shape, and why."""
        key = (scanned, *_shape(batch))
        if key not in self._plans:
            loops = self._apart is not None or self._vectorize is False or bool(self._slower)
            uneven = "" if loops else self._lockstep.rounds_unevenly(self._carry, batch, scanned)
            if loops:
                self._plans[key] = (False, self._slower or "vectorize=False")
            elif uneven and self._vectorize == "auto":
                self._plans[key] = (False, uneven)
            else:
                self._plans[key] = (True, f"vectorize=True although {uneven}" if uneven else "vectorised")
        return self._plans[key]


def _with_rows(leaf: Any, at: np.ndarray, values: np.ndarray | None) -> Any:
    """Replace rows of an array, by the first row where there are no values."""
    if jax.default_backend() == "cpu" and not _is_key(leaf):  # XLA would compile it for every number of rows
        host = np.array(leaf)
        host[at] = host[0] if values is None else values
        return _like(host, leaf)
    return leaf.at[at].set(leaf[0] if values is None else values)


def _weights(member: Any) -> int:
    return sum(leaf.size for leaf in jax.tree_util.tree_leaves(member))


def _slower_at_once(member: Any) -> str:
    """Why vmap over the members is not worth it, by the size of one; empty if it is."""
    weights = _weights(member)
    if jax.default_backend() != "cpu" or weights <= LARGEST_AT_ONCE:
        return ""
    return f"{weights} weights on the CPU, more than {LARGEST_AT_ONCE}: one after the other is as fast or faster"


def _is_large(member: Any) -> bool:
    """Whether members of this size have arrays of their own, where they are updated one after the other."""
    return jax.default_backend() == "cpu" and _weights(member) > LARGEST_STACKED


@jax.jit
def _norms(leaves: list[Any]) -> list[Any]:
    """Distance of the copies in each array, scaled so that squares of float32 do not underflow."""

    def norm(leaf: Any) -> Any:
        gap = jnp.abs(leaf[1:] - leaf[:1]).reshape(len(leaf) - 1, leaf[0].size)
        gap = gap.astype(jnp.promote_types(gap.dtype, jnp.float32))
        top = jnp.max(gap, axis=1, keepdims=True, initial=0.0)
        scaled = gap / jnp.where(top > 0, top, 1)
        return top[:, 0] * jnp.sqrt(jnp.sum(scaled**2, axis=1))

    return [norm(leaf) for leaf in leaves]


def _parameters(carry: tuple[Any, Any]) -> Any:
    return carry[0]


def _shape(batch: Any) -> tuple[Any, ...]:
    """Properties of a batch that determine the division of work in compiled code."""
    leaves, treedef = jax.tree_util.tree_flatten(batch)
    return treedef, tuple((np.shape(leaf), str(getattr(leaf, "dtype", type(leaf)))) for leaf in leaves)


class TwinList(list[Any]):
    """Perturbed trees from `perturb`.

    Parameters
    ----------
    trees : iterable of pytrees
        The copies.
    members : sequence of Member
        The rows of the members table, one per copy.
    made : mapping
        Settings of the perturbation, for the provenance of a run.
    rounded_fraction : float
        Fraction of the perturbed entries, pooled over the copies, that rounding left unchanged.
    perturbation : Perturbation, optional
        What moved them.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> params = {"w": jnp.ones(3)}
    >>> twins = perturb(params, 1e-3, 2, 0)
    >>> type(twins).__name__, twins.rounded_fraction
    ('TwinList', 0.0)
    """

    def __init__(
        self,
        trees: Iterable[Any],
        *,
        members: Sequence[Member],
        made: Mapping[str, Any],
        rounded_fraction: float,
        perturbation: twins.Perturbation | None = None,
    ) -> None:
        super().__init__(trees)
        self.perturbation = perturbation
        self.members = tuple(members)
        self.made = dict(made)
        self.rounded_fraction = rounded_fraction


def perturb(
    params: Any,
    epsilon: float | Sequence[float] | Mapping[str, Any] | None,
    members: int,
    seed: int,
    *,
    distribution: str = "uniform",
    only: str | Sequence[str] = "weights",
    allow_rounded: bool = False,
) -> TwinList:
    """Create perturbed copies of a pytree of parameters.

    Parameters
    ----------
    params : pytree of arrays
        The reference; not modified. Leaves other than floating-point arrays are shared with the copies.
    epsilon : float, list of float, {glob: float or array} or None
        Size of the perturbation of an entry, see `recorders.perturb`.
    members : int
        Number of copies.
    seed : int
        Copy i draws from ``numpy.random.default_rng([seed, i])``: the same bits as in numpy and torch. No JAX key is
        used.
    distribution : {"uniform", "gaussian"}
        Uniform(-epsilon, epsilon), or normal with standard deviation epsilon.
    only : {"weights", "all"} or globs of parameter names
        "weights": every parameter that is neither a bias nor belongs to a normalisation.
    allow_rounded : bool
        Accept an epsilon lost to rounding.

    Returns
    -------
    TwinList
        Pytrees like `params`, with arrays of the same dtype on the same devices. Its ``.members`` are the entries of
        the members table: ``Recorder(path, [params, *twins], members=twins)``, likewise for ``stack(params, twins)``.

    Raises
    ------
    PerturbationError
        If the dtype of the weights rounds more than 1 % of the perturbed entries away, or JAX would narrow them.
    RecordingError, ArchitectureError
        If the values cannot be read: inside jit, after donation, or sharded over several processes.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> params = {"w": jnp.ones(3)}
    >>> twins = perturb(params, 1e-3, 2, 0)
    >>> len(twins), twins[0]["w"].shape
    (2, (3,))
    """
    layout = Layout.of(params)
    leaves = layout.pick(params)
    refuse_unreadable(layout.names, leaves)
    _refuse_narrowing(layout.names, leaves)
    roles = layout.roles([leaf.shape for leaf in leaves])
    try:
        copies = twins.perturb(
            dict(zip(layout.names, jax.device_get(leaves), strict=True)),
            epsilon,
            members,
            seed,
            distribution=distribution,
            only=only,
            allow_rounded=allow_rounded,
            kinds={name: role.kind for name, role in roles.items()},
        )
    except PerturbationError as error:
        raise PerturbationError(f"{error}{_way_to_float64(leaves)}") from error
    made = [
        layout.put(params, [_like(twin[name], leaf) for name, leaf in zip(layout.names, leaves, strict=True)])
        for twin in copies
    ]
    return TwinList(
        made,
        members=copies.members,
        made=copies[0].made,
        rounded_fraction=copies.rounded_fraction,
        perturbation=copies.perturbation,
    )


def stack(params: Any, twins: Iterable[Any]) -> Any:
    """Stack a reference and its twins, ready for vmap.

    Parameters
    ----------
    params : pytree
        The reference.
    twins : iterable of pytrees
        Twins of the same structure and shapes, as from `perturb`.

    Returns
    -------
    pytree
        Every array with a leading axis of 1 + len(twins) members, the reference first; other leaves as in `params`.

    Raises
    ------
    ArchitectureError
        If a twin has another structure or other shapes.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> params = {"w": jnp.ones(3)}
    >>> stack(params, perturb(params, 1e-3, 2, 0))["w"].shape
    (3, 3)
    """
    trees = [params, *twins]
    columns, treedef = [], jax.tree_util.tree_structure(params)
    for i, tree in enumerate(trees):
        leaves, other = jax.tree_util.tree_flatten(tree)
        if other != treedef:
            raise ArchitectureError(f"tree {i} differs in structure from the first: {other} instead of {treedef}")
        columns.append(leaves)
    stacked = []
    for row in zip(*columns, strict=True):
        if len({np.shape(leaf) for leaf in row}) > 1:
            raise ArchitectureError(
                f"members of different shapes cannot be stacked: {sorted({np.shape(a) for a in row})}"
            )
        stacked.append(jnp.stack(row) if isinstance(row[0], jax.Array | np.ndarray | np.generic) else row[0])
    return jax.tree_util.tree_unflatten(treedef, stacked)


def members_of(members: Sequence[Member], count: int, noise: str = "common") -> tuple[Member, ...]:
    """Members table of a state of `count` networks, with the reference first if only its twins are listed."""
    table = tuple(members)
    if len(table) == count - 1 and all(member.reference == 0 for member in table):
        table = (Member("reference"), *table)
    if noise == "common":
        return table
    return tuple(Member(m.name, m.reference, m.epsilon, m.norm, m.seed, noise) for m in table)


def _like(values: np.ndarray, leaf: Any) -> Any:
    """Convert values to the array type and device of `leaf`."""
    if not isinstance(leaf, jax.Array):
        return np.asarray(values)[()] if isinstance(leaf, np.generic) else values
    return jax.device_put(values, leaf.sharding) if getattr(leaf, "committed", True) else jnp.asarray(values)


def _refuse_narrowing(names: Sequence[str], leaves: Sequence[Any]) -> None:
    """Raise for NumPy weights that JAX would round before the first step."""
    for name, leaf in zip(names, leaves, strict=True):
        narrow = jax.dtypes.canonicalize_dtype(leaf.dtype)
        if narrow != leaf.dtype and not isinstance(leaf, jax.Array):
            raise PerturbationError(
                f"{name!r} is a NumPy array of {leaf.dtype}, which JAX rounds to {narrow} in this configuration, and "
                "the "
                "perturbation with it. Call jax.config.update('jax_enable_x64', True) first, or convert the parameters "
                f"to {narrow} before they are perturbed"
            )


def _way_to_float64(leaves: Sequence[Any]) -> str:
    """Hint about float64 if JAX has it disabled."""
    if jax.config.jax_enable_x64 or not any(str(leaf.dtype) != "float64" for leaf in leaves):
        return ""
    return (
        ". JAX is in its float32 mode: jax.config.update('jax_enable_x64', True), called before the parameters are "
        "created, allows float64"
    )


class Lockstep:
    """The pure arithmetic behind `recorders.jax.Twins`."""

    def __init__(
        self, params: Any, loss_fn: Callable[..., Any], optimizer: Any, has_aux: bool, *, independent: bool
    ) -> None:
        self._layout = Layout.of(params)
        self._params = params
        self._loss_fn = loss_fn
        self.optimizer = optimizer
        self._has_aux = has_aux
        self._independent = independent
        self._compiled: dict[bool | None, Callable[..., Any]] = {}

    def trained(self, tree: Any) -> Any:
        """Return the tree with its weights only, None for all other leaves."""
        weights = set(self._layout.positions)
        leaves = [leaf if i in weights else None for i, leaf in enumerate(jax.tree_util.tree_leaves(tree))]
        return jax.tree_util.tree_unflatten(self._layout.treedef, leaves)

    def whole(self, trained: Any) -> Any:
        """Combine the weights with the other leaves of the reference."""
        leaves = jax.tree_util.tree_leaves(self._params)
        for position, leaf in zip(sorted(self._layout.positions), jax.tree_util.tree_leaves(trained), strict=True):
            leaves[position] = leaf
        return jax.tree_util.tree_unflatten(self._layout.treedef, leaves)

    def start(self, trees: Sequence[Any]) -> list[tuple[Any, Any]]:
        """The weights of the members, with states of their optimisers."""
        members = [jax.tree_util.tree_map(jnp.asarray, self.trained(tree)) for tree in trees]
        return [(member, self.optimizer.init(member)) for member in members]

    def each(self, members: Sequence[tuple[Any, Any]], batch: tuple[Any, ...]) -> tuple[list[Any], dict[str, Any]]:
        """Make one update of every member, with a call of the same compiled function for each."""
        if self._independent:
            _refuse_keyless(batch)
        if None not in self._compiled:

            def update(member: Any, batch: Any, index: Any = None) -> Any:
                return self._one(member, batch if index is None else self._own(batch, index))

            self._compiled[None] = jax.jit(update)
        # An index is a transfer to the device.
        numbers = [(i,) if self._independent else () for i in range(len(members))]
        results = [self._compiled[None](member, batch, *own) for member, own in zip(members, numbers, strict=True)]
        return [new for new, _ in results], _metrics_of([metrics for _, metrics in results])

    def compiled(self, vectorized: bool) -> Callable[..., Any]:
        """Return the jitted `update`."""
        if vectorized not in self._compiled:

            def update(carry: Any, batch: Any) -> Any:
                return self.update(vectorized, carry, batch)

            self._compiled[vectorized] = jax.jit(update)
        return self._compiled[vectorized]

    def update(self, vectorized: bool, carry: tuple[Any, Any], batch: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        """Make one update of every member."""
        if self._independent:
            _refuse_keyless(batch)
        index = jnp.arange(len(jax.tree_util.tree_leaves(carry[0])[0]))

        def one(row: tuple[Any, Any]) -> Any:
            member, i = row
            return self._one(member, self._own(batch, i) if self._independent else batch)

        return jax.vmap(one)((carry, index)) if vectorized else jax.lax.map(one, (carry, index))

    def _own(self, batch: Any, index: Any) -> Any:
        """Return the batch with the random keys of one member."""
        return jax.tree_util.tree_map(lambda leaf: jax.random.fold_in(leaf, index) if _is_key(leaf) else leaf, batch)

    def _one(self, carry: tuple[Any, Any], batch: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        """One update of one member."""
        params, state = carry

        def loss_of(trained: Any) -> tuple[Any, dict[str, Any]]:
            value = self._loss_fn(self.whole(trained), *batch)
            loss, aux = value if self._has_aux else (value, {})
            if jnp.shape(loss) != ():
                raise ValueError(
                    f"loss_fn(params, *batch) returned shape {jnp.shape(loss)}; it must be one number: take the mean "
                    "or the sum"
                )
            return loss, dict(aux)

        (loss, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, state = self.optimizer.update(gradients, state, params)
        moved = jax.tree_util.tree_map(lambda p, u: jnp.asarray(p + u).astype(p.dtype), params, updates)
        return (moved, state), {"loss": loss, **aux}

    def _two_steps(self, carry: tuple[Any, Any], batch: tuple[Any, ...]) -> Any:
        """Vectorised updates as the body of a loop, which XLA compiles differently from a single update."""

        def body(carry: Any, _: None) -> Any:
            return self.update(True, carry, batch)

        return jax.lax.scan(body, carry, length=2)[0]

    def rounds_unevenly(self, carry: tuple[Any, Any], batch: tuple[Any, ...], scanned: bool = False) -> str:
        """Test on one batch whether the vectorised update gives equal members equal bits.

        Notes
        -----
        Compiled loops process the end of an array that does not fill a SIMD register with other instructions; with
        several members in one array that end belongs to the last of them. If rounding separates equal members,
        d(t) = 0 is lost for epsilon = 0. The test gives all members the state of the reference, at `PROBES` scales of
        its weights.
        """
        if self._independent:
            return ""  # members under different noise are never bit-identical
        update = jax.jit(self._two_steps) if scanned else self.compiled(True)
        rng = np.random.default_rng(0)
        for draw in range(PROBES):
            scale = 1 + 0.3 * rng.standard_normal() if draw else 1.0
            params, state = jax.tree_util.tree_map(_all_like_first, carry)
            params = jax.tree_util.tree_map(lambda leaf, by=scale: (leaf * by).astype(leaf.dtype), params)
            leaves = jax.tree_util.tree_leaves(update((params, state), batch))
            if not all(_same_rows(leaf) for leaf in jax.device_get([leaf for leaf in leaves if not _is_key(leaf)])):
                return "vectorised kernels round equal members differently for batches of this shape"
        return ""


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree_util.tree_map(lambda *leaves: jnp.stack(leaves), *trees)


@jax.jit
def _metrics_of(members: list[dict[str, Any]]) -> dict[str, Any]:
    """Metrics with an axis of members, in one call: one for each would cost a small network's update."""
    return dict(_stacked(members))


def _all_like_first(leaf: Any) -> Any:
    return jnp.broadcast_to(leaf[:1], leaf.shape)


def _same_rows(values: np.ndarray) -> bool:
    """Whether all rows are equal; NaN equals NaN."""
    first = values[:1]
    return bool(((values == first) | (np.isnan(values) & np.isnan(first))).all())


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _refuse_keyless(batch: Any) -> None:
    """Raise for independent noise without a random key."""
    if not any(_is_key(leaf) for leaf in jax.tree_util.tree_leaves(batch)):
        raise ValueError(
            'noise="independent" needs a random key among the arguments of the loss function, made by jax.random.key '
            "(not jax.random.PRNGKey, which is indistinguishable from other integers): twins.step(x, y, key)"
        )
