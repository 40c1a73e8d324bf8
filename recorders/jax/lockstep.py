"""One update of M members of a pytree on a common batch: by vmap, or one after the other, as one pure function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recorders.jax.trees import Layout

PROBES = 8
"""Draws of the check that equal members get equal bits."""


class Lockstep:
    """The pure arithmetic behind `recorders.jax.Twins`."""

    def __init__(
        self, params: Any, loss_fn: Callable[..., Any], optimizer: Any, has_aux: bool, *, independent: bool
    ) -> None:
        self._layout = Layout.of(params)
        self._params = params
        self._loss_fn = loss_fn
        self._optimizer = optimizer
        self._has_aux = has_aux
        self._independent = independent
        self._compiled: dict[bool, Callable[..., Any]] = {}

    def trained(self, tree: Any) -> Any:
        """Give the tree with its weights alone, None in the place of every other leaf."""
        weights = set(self._layout.positions)
        leaves = [leaf if i in weights else None for i, leaf in enumerate(jax.tree_util.tree_leaves(tree))]
        return jax.tree_util.tree_unflatten(self._layout.treedef, leaves)

    def whole(self, trained: Any) -> Any:
        """Put the weights back among the other leaves of the reference."""
        leaves = jax.tree_util.tree_leaves(self._params)
        for position, leaf in zip(sorted(self._layout.positions), jax.tree_util.tree_leaves(trained), strict=True):
            leaves[position] = leaf
        return jax.tree_util.tree_unflatten(self._layout.treedef, leaves)

    def start(self, trees: Sequence[Any]) -> tuple[Any, Any]:
        """Stack the members and start their optimisers."""
        members = [self.trained(tree) for tree in trees]
        states = [self._optimizer.init(member) for member in members]
        return _stacked(members), _stacked(states)

    def compiled(self, vectorized: bool) -> Callable[..., Any]:
        """Give the jitted `update`."""
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

        def one(given: tuple[Any, Any]) -> Any:
            member, i = given
            return self._one(member, self._own(batch, i) if self._independent else batch)

        return jax.vmap(one)((carry, index)) if vectorized else jax.lax.map(one, (carry, index))

    def _own(self, batch: Any, index: Any) -> Any:
        """The batch with the random keys of one member."""
        return jax.tree_util.tree_map(lambda leaf: jax.random.fold_in(leaf, index) if _is_key(leaf) else leaf, batch)

    def _one(self, carry: tuple[Any, Any], batch: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
        """One update of one member."""
        params, state = carry

        def loss_of(trained: Any) -> tuple[Any, dict[str, Any]]:
            given = self._loss_fn(self.whole(trained), *batch)
            loss, aux = given if self._has_aux else (given, {})
            if jnp.shape(loss) != ():
                raise ValueError(
                    f"loss_fn(params, *batch) gave shape {jnp.shape(loss)}; it must give one number: take the mean "
                    "or the sum"
                )
            return loss, dict(aux)

        (loss, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, state = self._optimizer.update(gradients, state, params)
        moved = jax.tree_util.tree_map(lambda p, u: jnp.asarray(p + u).astype(p.dtype), params, updates)
        return (moved, state), {"loss": loss, **aux}

    def _two_steps(self, carry: tuple[Any, Any], batch: tuple[Any, ...]) -> Any:
        """Vectorised updates as the body of a loop, which XLA compiles apart from a single update."""

        def body(carry: Any, _: None) -> Any:
            return self.update(True, carry, batch)

        return jax.lax.scan(body, carry, length=2)[0]

    def rounds_unevenly(self, carry: tuple[Any, Any], batch: tuple[Any, ...], scanned: bool = False) -> str:
        """Find out on one batch whether the vectorised update gives equal members equal bits.

        Notes
        -----
        Compiled loops treat the end of an array that does not fill a SIMD register by other instructions than the
        rest; with several members in one array that end belongs to the last of them. Where equal members drift apart
        by rounding, d(t) = 0 is lost for epsilon = 0. The members get the reference's state here, at `PROBES` scales
        of its weights.
        """
        if self._independent:
            return ""  # members under different noise are not equal to the bit anyway
        update = jax.jit(self._two_steps) if scanned else self.compiled(True)
        rng = np.random.default_rng(0)
        for draw in range(PROBES):
            scale = 1 + 0.3 * rng.standard_normal() if draw else 1.0
            params, state = jax.tree_util.tree_map(_all_like_first, carry)
            params = jax.tree_util.tree_map(lambda leaf, by=scale: (leaf * by).astype(leaf.dtype), params)
            found = jax.tree_util.tree_leaves(update((params, state), batch))
            if not all(_same_rows(leaf) for leaf in jax.device_get([leaf for leaf in found if not _is_key(leaf)])):
                return "vectorised kernels round equal members differently for batches of this shape"
        return ""


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree_util.tree_map(lambda *leaves: jnp.stack(leaves), *trees)


def _all_like_first(leaf: Any) -> Any:
    return jnp.broadcast_to(leaf[:1], leaf.shape)


def _same_rows(values: np.ndarray) -> bool:
    """Whether all rows hold the same numbers; NaN equals NaN."""
    first = values[:1]
    return bool(((values == first) | (np.isnan(values) & np.isnan(first))).all())


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _refuse_keyless(batch: Any) -> None:
    """Refuse independent noise where nothing random comes in."""
    if not any(_is_key(leaf) for leaf in jax.tree_util.tree_leaves(batch)):
        raise ValueError(
            'noise="independent" needs a random key among the arguments of the loss function, made by jax.random.key '
            "(not jax.random.PRNGKey, which cannot be told from other integers): twins.step(x, y, key)"
        )
