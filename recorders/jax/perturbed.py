"""Perturbed copies of a pytree, as a list or side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recorders import twins as framework_free
from recorders.jax.trees import Layout, refuse_unreadable
from trajtools.errors import ArchitectureError, PerturbationError
from trajtools.parameters import Member


class TwinList(list[Any]):
    """The perturbed trees that `perturb` made.

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
    """

    def __init__(
        self, trees: Iterable[Any], *, members: Sequence[Member], made: Mapping[str, Any], rounded_fraction: float
    ) -> None:
        super().__init__(trees)
        self.members = tuple(members)
        self.made = dict(made)
        self.rounded_fraction = rounded_fraction


def perturb(
    params: Any,
    epsilon: float | Mapping[str, Any],
    members: int,
    seed: int,
    *,
    distribution: str = "uniform",
    only: str | Sequence[str] = "weights",
    allow_rounded: bool = False,
) -> TwinList:
    """Make perturbed copies of a pytree of parameters.

    Parameters
    ----------
    params : pytree of arrays
        The reference. It is not changed; leaves that are no floating-point arrays are shared with the copies.
    epsilon : float or {glob: float or array}
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
        Accept an epsilon that the dtype rounds away.

    Returns
    -------
    TwinList
        Pytrees like `params`, arrays of the same dtype and on the same devices. Its ``.members`` are the entries of
        the members table: ``Recorder(path, [params, *twins], members=twins)``, and the same for
        ``stack(params, twins)``.

    Raises
    ------
    PerturbationError
        If the dtype of the weights rounds more than 1 % of the perturbed entries away, or JAX would narrow them.
    RecordingError, ArchitectureError
        If the values cannot be read: inside jit, after donation, spread over several processes.
    """
    layout = Layout.of(params)
    leaves = layout.pick(params)
    refuse_unreadable(layout.names, leaves)
    _refuse_narrowing(layout.names, leaves)
    roles = layout.roles([leaf.shape for leaf in leaves])
    try:
        drawn = framework_free.perturb(
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
        for twin in drawn
    ]
    return TwinList(made, members=drawn.members, made=drawn[0].made, rounded_fraction=drawn.rounded_fraction)


def stack(params: Any, twins: Iterable[Any]) -> Any:
    """Lay a reference and its twins side by side, ready for vmap.

    Parameters
    ----------
    params : pytree
        The reference.
    twins : iterable of pytrees
        Of the same structure and shapes, as `perturb` makes them.

    Returns
    -------
    pytree
        Every array with a leading axis of 1 + len(twins) members, the reference first; other leaves as in `params`.

    Raises
    ------
    ArchitectureError
        If a twin has another structure or other shapes.
    """
    trees = [params, *twins]
    columns, treedef = [], jax.tree_util.tree_structure(params)
    for i, tree in enumerate(trees):
        leaves, other = jax.tree_util.tree_flatten(tree)
        if other != treedef:
            raise ArchitectureError(f"tree {i} has another structure than the first: {other} instead of {treedef}")
        columns.append(leaves)
    stacked = []
    for row in zip(*columns, strict=True):
        if len({np.shape(leaf) for leaf in row}) > 1:
            raise ArchitectureError(
                f"members of different shapes cannot be stacked: {sorted({np.shape(a) for a in row})}"
            )
        stacked.append(jnp.stack(row) if isinstance(row[0], jax.Array | np.ndarray | np.generic) else row[0])
    return jax.tree_util.tree_unflatten(treedef, stacked)


def members_of(given: Sequence[Member], count: int, noise: str = "common") -> tuple[Member, ...]:
    """Members table of a state of `count` networks, the reference put first where only its twins were given."""
    table = tuple(given)
    if len(table) == count - 1 and all(member.reference == 0 for member in table):
        table = (Member("reference"), *table)
    if noise == "common":
        return table
    return tuple(Member(m.name, m.reference, m.epsilon, m.norm, m.seed, noise) for m in table)


def _like(values: np.ndarray, leaf: Any) -> Any:
    """The values as the same kind of array as `leaf`, in the same place."""
    if not isinstance(leaf, jax.Array):
        return np.asarray(values)[()] if isinstance(leaf, np.generic) else values
    return jax.device_put(values, leaf.sharding) if getattr(leaf, "committed", True) else jnp.asarray(values)


def _refuse_narrowing(names: Sequence[str], leaves: Sequence[Any]) -> None:
    """Refuse NumPy weights that JAX would round before the first step."""
    for name, leaf in zip(names, leaves, strict=True):
        kept = jax.dtypes.canonicalize_dtype(leaf.dtype)
        if kept != leaf.dtype and not isinstance(leaf, jax.Array):
            raise PerturbationError(
                f"{name!r} is a NumPy array of {leaf.dtype}, which JAX rounds to {kept} as it is set, and the "
                "perturbation with it. Call jax.config.update('jax_enable_x64', True) first, or convert the parameters "
                f"to {kept} before they are perturbed"
            )


def _way_to_float64(leaves: Sequence[Any]) -> str:
    """What to say about float64 where JAX is set to do without it."""
    if jax.config.jax_enable_x64 or not any(str(leaf.dtype) != "float64" for leaf in leaves):
        return ""
    return (
        ". JAX is in its float32 mode: jax.config.update('jax_enable_x64', True), called before the parameters are "
        "made, allows float64"
    )
