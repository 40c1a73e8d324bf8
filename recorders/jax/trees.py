"""The arrays of a pytree: names, order, kinds and axes; checks that they are readable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recorders.adapter import Role
from recorders.wiring import BLOCKS, PROJECTIONS, adds, chain, wire
from trajtools.errors import ArchitectureError, RecordingError
from trajtools.wiring import Ends

SEPARATOR = "."
NORMS = ("LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm", "InstanceNorm", "WeightNorm", "SpectralNorm")
ATTENTION = ("query", "key", "value", "out")
ATTENTION_KEYS = frozenset(("query", "key", "value", "query_proj", "key_proj", "value_proj"))
RECURRENT_GATES = frozenset(("h", "i", *(side + gate for side in "hi" for gate in "figonrz")))


@dataclass(frozen=True)
class Layout:
    """Positions, names and roles of the weights in a pytree.

    Attributes
    ----------
    treedef : PyTreeDef
        Structure of the whole tree, other leaves included.
    names : tuple of str
        Key paths joined by dots (``params.Dense_0.kernel``, ``layers.0.weight``), in the order of the state; a single
        array is named ``weights``.
    positions : tuple of int
        Index of each array among the leaves of the tree.
    paths : tuple of tuple of str
        The keys joined in `names`.
    owners : tuple
        The container of each array; None if it is not accessible.
    blocks : tuple of str
        Prefixes of the residual blocks, by the names of classes, or of keys that flax makes of them.

    Notes
    -----
    The state consists of the floating-point arrays (and complex ones, which raise an error); of flax.nnx, the
    `Param`s among them. Excluded are functions and
    Python numbers (equinox), integer counters (optax) and random keys. The order is that of JAX, except that dict keys
    are sorted naturally: ``Dense_2`` before ``Dense_10``. It does not depend on the insertion order of a dict.
    """

    treedef: Any
    names: tuple[str, ...]
    positions: tuple[int, ...]
    paths: tuple[tuple[str, ...], ...]
    owners: tuple[Any, ...]
    blocks: tuple[str, ...] = ()

    @classmethod
    def of(cls, tree: Any, *, statistics: bool = False) -> Layout:
        """Read the layout of a tree; `statistics`: of its variables of flax.nnx that are no parameters."""
        leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
        weights = [(path, position) for position, (path, leaf) in enumerate(leaves) if is_weight(leaf)]
        if not weights:
            raise ArchitectureError(
                f"this {type(tree).__name__} has no floating-point array, so there is no state to record. Pass the "
                "pytree of the parameters (a dict, a flax or equinox tree, ...), its leaves JAX or NumPy arrays"
            )
        weights.sort(key=_order([path for path, _ in weights]))
        chains = [_owners(tree, path) for path, _ in weights]
        params = [bool(chain) and _is_nnx(chain[-1], "Param") for chain in chains]
        if any(params):  # of flax.nnx, other variables are statistics and counters
            others = [bool(chain) and _is_nnx(chain[-1], "Variable") for chain in chains]
            keep = [(mine or not other) != statistics for mine, other in zip(params, others, strict=True)]
            weights, chains = list(compress(weights, keep)), list(compress(chains, keep))
        paths = tuple(_keys(path, chain) for (path, _), chain in zip(weights, chains, strict=True))
        if statistics and (not weights or not any(params)):
            raise ArchitectureError(
                f"a {type(tree).__name__} has no floating-point variables of flax.nnx beside its parameters: omit "
                "model_buffers="
            )
        names = tuple(SEPARATOR.join(path) for path in paths)
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise ArchitectureError(
                f"two arrays of the tree are called {twice[0]!r}; rename a key, names must be unique"
            )
        owners = tuple(chain[-1] if chain else None for chain in chains)
        blocks = dict.fromkeys(
            block for path, chain in zip(paths, chains, strict=True) for block in _blocks(path, chain)
        )
        return cls(treedef, names, tuple(position for _, position in weights), paths, owners, tuple(blocks))

    def pick(self, tree: Any) -> list[Any]:
        """Return the weights of a tree of this layout, in the order of the state."""
        leaves, treedef = jax.tree_util.tree_flatten(tree)
        if treedef != self.treedef:
            raise ArchitectureError(
                f"this state has the structure {_short(treedef)}, the run was opened with {_short(self.treedef)}; the "
                "parameters of a run are fixed when the recorder opens. Record a changed network as a separate run: "
                "Recorder('other.h5', params)"
            )
        return [leaves[position] for position in self.positions]

    def put(self, tree: Any, weights: Sequence[Any]) -> Any:
        """Return a tree like `tree` with other weights."""
        leaves = jax.tree_util.tree_leaves(tree)
        for position, array in zip(self.positions, weights, strict=True):
            leaves[position] = array
        return jax.tree_util.tree_unflatten(self.treedef, leaves)

    def roles(self, shapes: Sequence[tuple[int, ...]]) -> dict[str, Role]:
        """Roles of arrays in the graph, from the names of flax, equinox and haiku layers."""
        groups: dict[tuple[str, ...], dict[str, tuple[int, ...]]] = {}
        for path, shape in zip(self.paths, shapes, strict=True):
            groups.setdefault(path[:-1], {})[path[-1]] = shape
        result = {
            name: _role(path, owner, shape, groups[path[:-1]])
            for name, path, owner, shape in zip(self.names, self.paths, self.owners, shapes, strict=True)
        }
        return {name: role for name, role in result.items() if role is not None}

    def wiring(self, shapes: Sequence[tuple[int, ...]]) -> dict[str, Ends | None] | None:
        """What the kernels of a network with attention or residual blocks connect; None for a mere chain.

        The order of a tree is that of names, not of layers. Beside residual blocks only one convolution, before them,
        and one dense layer, after them, are part of the chain.
        """
        roles = self.roles(shapes)
        if any(ATTENTION_KEYS & set(path) for path in self.paths):
            stacks = {SEPARATOR.join(path[: path.index("query_proj")]): (PROJECTIONS, "") for path in self.paths
                      if "query_proj" in path}  # fmt: skip
            return wire(roles, stacks)
        if not self.blocks:
            return None
        inside = [name for name in roles if any(name.startswith(f"{block}{SEPARATOR}") for block in self.blocks)]
        around = {kind: [name for name, role in roles.items() if role.kind == kind and name not in inside]
                  for kind in ("conv", "dense")}  # fmt: skip
        first, last = (names if len(names) == 1 else [] for names in around.values())
        order = {name: roles[name] for name in (*first, *inside, *last)}
        by_name = dict(zip(self.names, shapes, strict=True))
        return {**wire(roles, {}), **chain(order, by_name, self.blocks)}


def _blocks(path: tuple[str, ...], owners: Sequence[Any]) -> Iterator[str]:
    """Prefixes of the residual blocks along a path: classes that add, or dicts under the name of such a class."""
    for depth in range(1, len(path)):
        owner = owners[depth] if depth < len(owners) else None
        is_plain = isinstance(owner, Mapping | Sequence) or owner is None
        name = re.sub(r"_\d+$", "", path[depth - 1]) if is_plain else type(owner).__name__
        if BLOCKS.search(name) and (is_plain or adds(type(owner).__call__)):
            yield SEPARATOR.join(path[:depth])


def is_weight(leaf: Any) -> bool:
    """Whether a leaf belongs to the state: an array of floating-point (or complex) numbers."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def refuse_unreadable(names: Sequence[str], leaves: Sequence[Any], *, sharded: bool = False) -> None:
    """Raise for leaves whose values this process cannot read; `sharded`: it takes its part of them."""
    for name, leaf in zip(names, leaves, strict=True):
        if isinstance(leaf, jax.core.Tracer):
            if sharded:
                raise RecordingError(
                    f"{name!r} is sharded over processes, which record_scan and tap do not record: call record(params) "
                    "between jitted steps"
                )
            raise RecordingError(
                f"{name!r} is a tracer: inside jit, grad, vmap and scan arrays have no values yet. Call this outside; "
                "to record a scan use record_scan(rec, step, carry, xs), or tap(rec, params), which works inside of it"
            )
        if not isinstance(leaf, jax.Array):
            continue
        if leaf.is_deleted():
            raise RecordingError(
                f"the buffer of {name!r} was deleted, most likely because the state was donated to a jitted function "
                "(donate_argnums) before it was recorded. Record a state before it is donated, or record the new "
                "state that the function returned"
            )
        if not (sharded or leaf.is_fully_addressable):
            raise ArchitectureError(
                f"{name!r} is sharded over several processes ({leaf.sharding}): no single process can read it. "
                "`Recorder` records each process's part; this needs the whole, e.g. by "
                "jax.experimental.multihost_utils.process_allgather(params, tiled=True)"
            )


def _short(treedef: Any, limit: int = 300) -> str:
    text = str(treedef)
    return text if len(text) <= limit else text[:limit] + " ..."


def _key(entry: Any) -> Any:
    """The key, index or attribute name inside an entry of a key path."""
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return str(entry)


def _owners(tree: Any, path: Sequence[Any]) -> list[Any]:
    """Containers along a key path, outermost first; empty if one is not accessible by its key."""
    chain = []
    for depth, entry in enumerate(path):
        chain.append(tree)
        if depth == len(path) - 1:
            break
        try:
            tree = getattr(tree, entry.name) if hasattr(entry, "name") else tree[_key(entry)]
        except (AttributeError, KeyError, IndexError, TypeError):
            return []
    return chain


def _keys(path: Sequence[Any], chain: Sequence[Any]) -> tuple[str, ...]:
    """Keys of a path as strings, without the ``.value`` of flax.nnx."""
    keys = tuple(str(_key(entry)) for entry in path) or ("weights",)
    wrapped = chain and _is_nnx(chain[-1], "Variable")
    return keys[:-1] if len(keys) > 1 and keys[-1] == "value" and wrapped else keys


def _is_nnx(owner: Any, name: str) -> bool:
    """Whether an object is of a class of flax.nnx, or of one derived from it."""
    return any(cls.__name__ == name and cls.__module__.startswith("flax.nnx") for cls in type(owner).__mro__)


def _order(paths: Sequence[Sequence[Any]]) -> Any:
    """Sort key of (path, position): dict keys in natural order, all else in the order of JAX."""
    first_index: dict[Any, int] = {}
    for path in paths:
        for depth in range(len(path) + 1):
            first_index.setdefault(jax.tree_util.keystr(path[:depth]), len(first_index))

    def key(item: tuple[Sequence[Any], int]) -> list[Any]:
        path, _ = item
        return [
            _natural(entry.key)
            if isinstance(entry, jax.tree_util.DictKey)
            else first_index[jax.tree_util.keystr(path[: i + 1])]
            for i, entry in enumerate(path)
        ]

    return key


def _natural(key: Any) -> tuple[Any, ...]:
    """Natural sort key (``Dense_2`` before ``Dense_10``); ties (``1`` and ``01``) by the text."""
    pieces = re.split(r"(\d+)", str(key))
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], str(key)


def _role(
    path: tuple[str, ...], owner: Any, shape: tuple[int, ...], siblings: Mapping[str, tuple[int, ...]]
) -> Role | None:
    """Role of the array at `path`, or None if unknown; `siblings` are the shapes in its container."""
    name = path[-1].lower()
    kind = type(owner).__name__
    if kind in NORMS or name in ("scale", "offset") or (name == "bias" and "scale" in siblings):
        return Role("norm")
    if name.startswith("bias"):
        # equinox gives the biases of convolutions the form (channels, 1, 1)
        return Role("bias", -1, 0) if shape and all(n == 1 for n in shape[1:]) else Role("bias")
    if len(shape) < 2:
        return None
    if name == "embedding" or kind == "Embedding":
        return Role("embedding", 0, 1) if len(shape) == 2 else Role("embedding")
    if name.startswith(("weight_ih", "weight_hh")):
        return Role("recurrent", 1, 0)
    if name == "weight":
        return _equinox_weight(owner, shape)
    return _flax_kernel(path, shape) if name == "kernel" else None


def _equinox_weight(owner: Any, shape: tuple[int, ...]) -> Role:
    """Role of a ``weight``: outputs first, as in torch."""
    if len(shape) == 2:
        return Role("dense", 1, 0)
    # A grouped kernel names its channels only within the group: no axis runs over all source units.
    return Role("conv", 1, 0) if getattr(owner, "groups", 1) == 1 else Role("conv")


def _flax_kernel(path: tuple[str, ...], shape: tuple[int, ...]) -> Role:
    """Role of a ``kernel``: inputs before outputs, both last."""
    parent = path[-2].lower() if len(path) > 1 else ""
    if len(shape) == 2:
        cell = parent in RECURRENT_GATES and any("cell" in key.lower() for key in path[:-2])
        return Role("recurrent" if cell else "dense", 0, 1)
    # The kernels of flax's attention have several axes of units on one side: no single axis runs over them.
    return Role("other") if parent in ATTENTION else Role("conv", len(shape) - 2, len(shape) - 1)


def float64() -> Any:
    """Context in which JAX computes in float64, by the name that this version has for it."""
    if hasattr(jax, "enable_x64"):
        context: Any = jax.enable_x64
        return context(True)
    from jax.experimental import enable_x64

    return enable_x64()
