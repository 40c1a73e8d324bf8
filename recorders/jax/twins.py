"""A pytree and its perturbed copies, trained in lock-step on common batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from recorders.jax.lockstep import Lockstep
from recorders.jax.perturbed import members_of, perturb
from recorders.jax.scan import record_scan
from trajtools.errors import RecordingError
from trajtools.parameters import Member


class Twins:
    """A reference and its perturbed copies, trained in lock-step on common batches with common noise.

    Parameters
    ----------
    params : pytree of arrays
        The reference; it is never changed. Leaves that are no floating-point arrays (functions, counters) are common
        to all members and stay as they are, so that an equinox module can be given whole.
    loss_fn : callable
        ``loss_fn(params, *batch)`` -> scalar; with ``has_aux=True`` -> ``(scalar, {name: number or (k,) array})``,
        whose entries are recorded as metrics. Pure, traced by JAX.
    optimizer : optax.GradientTransformation
        Anything with ``init(params)`` and ``update(gradients, state, params)``.
    epsilon, members, seed, distribution, only, allow_rounded
        As for `perturb`.
    has_aux : bool
        See `loss_fn`.
    noise : {"common", "independent"}
        What a random key (`jax.random.key`) in a batch does: "common": all members get the same key; "independent":
        member i gets ``jax.random.fold_in(key, i)``.
    vectorize : {"auto", True, False}
        False: one member after the other, inside one compiled step. True: all at once by vmap. "auto": by vmap where
        that gives equal members equal bits, which the first batch of every shape is used to find out.

    Attributes
    ----------
    members : tuple of Member
        Entries of the members table; the reference is the first.
    made : dict
        Settings of the perturbation, as the provenance of a run gets them.
    carry : tuple
        (stacked parameters, stacked optimiser state): what `pure_step` takes and gives. It may be set.

    Raises
    ------
    PerturbationError, RecordingError, ArchitectureError
        As for `perturb`.
    ValueError
        If `noise` or `vectorize` is not one of the words above.

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
        epsilon: float | Mapping[str, Any],
        members: int,
        seed: int,
        distribution: str = "uniform",
        only: str | Sequence[str] = "weights",
        allow_rounded: bool = False,
        has_aux: bool = False,
        noise: str = "common",
        vectorize: bool | str = "auto",
    ) -> None:
        if vectorize not in (True, False, "auto"):
            raise ValueError(f'vectorize={vectorize!r}: it must be True, False or "auto"')
        if noise not in ("common", "independent"):
            raise ValueError(f'noise={noise!r}: it must be "common" or "independent"')
        copies = perturb(
            params, epsilon, members, seed, distribution=distribution, only=only, allow_rounded=allow_rounded
        )
        self.members: tuple[Member, ...] = members_of(copies.members, 1 + len(copies), noise)
        self.made = copies.made
        self._lockstep = Lockstep(params, loss_fn, optimizer, has_aux, independent=noise == "independent")
        self._vectorize = vectorize
        self._plans: dict[Any, tuple[bool, str]] = {}
        self._plan: tuple[bool, str] | None = (False, "vectorize=False") if vectorize is False else None
        self._recorder: Any = None
        self.carry: tuple[Any, Any] = self._lockstep.start([params, *copies])

    def __len__(self) -> int:
        return len(self.members)

    @property
    def vectorized(self) -> bool | None:
        """Whether the last step computed all members by vmap; None before the first."""
        return self._plan[0] if self._plan else None

    @property
    def reason(self) -> str:
        """Why the steps are vectorised or not, in words; empty before the first step."""
        return self._plan[1] if self._plan else ""

    @property
    def state(self) -> Any:
        """Parameters of all members: the tree of the reference, arrays of shape (M, ...), None for other leaves."""
        return self.carry[0]

    def member(self, index: int) -> Any:
        """Give one member as a tree like the one that came.

        Parameters
        ----------
        index : int
            0 is the reference.

        Returns
        -------
        pytree
            Its parameters now.
        """
        return self._lockstep.whole(jax.tree_util.tree_map(lambda leaf: leaf[index], self.carry[0]))

    def reference(self) -> Any:
        """Give the reference as a tree like the one that came.

        Returns
        -------
        pytree
            Its parameters now.
        """
        return self.member(0)

    def step(self, *batch: Any) -> jax.Array:
        """Train every member on the same batch, one update each; a recorder that follows gets state and metrics.

        Parameters
        ----------
        *batch : pytree of arrays
            Passed on to the loss function.

        Returns
        -------
        jax.Array of shape (M,)
            Losses of the members before the update.

        Raises
        ------
        ValueError
            If ``loss_fn`` gives no scalar, or ``noise="independent"`` and there is no random key in the batch.
        """
        self._plan = self._planned(batch, scanned=False)
        carry, metrics = self._lockstep.compiled(self._plan[0])(self.carry, batch)
        if self._recorder is not None:
            self._recorder.record(**metrics)
        self.carry = carry
        if self._recorder is not None:
            self._recorder.advance(self)
        return metrics["loss"]

    def scan(self, batches: Sequence[Any], *, block: int = 64) -> np.ndarray:
        """Train on many batches inside compiled blocks of steps; a recorder that follows gets every state.

        Parameters
        ----------
        batches : tuple of pytrees of arrays, each of shape (n, ...)
            What n calls of `step` would get, stacked.
        block : int
            Steps between two transfers, see `record_scan`.

        Returns
        -------
        ndarray of shape (n, M)
            Losses of the members before each update.

        Raises
        ------
        RecordingError
            If no recorder follows: open ``Recorder(path, twins)`` first.
        ValueError
            As for `step`.
        """
        if self._recorder is None:
            raise RecordingError(
                "no recorder follows these twins: open Recorder(path, twins) first. Without one, "
                "jax.lax.scan(twins.pure_step, twins.carry, batches) trains them"
            )
        batches = tuple(batches)
        if all(len(leaf) for leaf in jax.tree_util.tree_leaves(batches)):
            self._plan = self._planned(jax.tree_util.tree_map(lambda leaf: leaf[0], batches), scanned=True)
        self.carry, ys = record_scan(
            self._recorder, self.pure_step, self.carry, batches, params=_parameters, block=block
        )
        return ys["loss"]

    def pure_step(self, carry: tuple[Any, Any], batch: Any) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
        """One update of all members as a pure function, for `jax.lax.scan` and `record_scan`.

        Parameters
        ----------
        carry : tuple
            (stacked parameters, stacked optimiser state), such as ``twins.carry``.
        batch : tuple, or pytree of arrays
            What the loss function gets after the parameters: several arguments, or one.

        Returns
        -------
        carry : tuple
            After the update.
        metrics : dict of str to Array
            ``loss`` (M,), before the update, and what ``has_aux`` adds.

        Notes
        -----
        With ``vectorize="auto"`` the members are computed one after the other unless `scan` has found before that
        batches of this shape can be vectorised. For `record_scan` the parameters are ``params=lambda carry: carry[0]``;
        set ``twins.carry`` to what comes out.
        """
        batch = batch if isinstance(batch, tuple) else (batch,)
        vectorized = self._vectorize is True or self._plans.get((True, *_shape(batch)), (False, ""))[0]
        return self._lockstep.update(vectorized, carry, batch)

    def _planned(self, batch: tuple[Any, ...], *, scanned: bool) -> tuple[bool, str]:
        """Vectorised or not, and why, for batches of this shape."""
        key = (scanned, *_shape(batch))
        if key not in self._plans:
            uneven = self._lockstep.rounds_unevenly(self.carry, batch, scanned) if self._vectorize else ""
            if self._vectorize is False:
                self._plans[key] = (False, "vectorize=False")
            elif uneven and self._vectorize == "auto":
                self._plans[key] = (False, uneven)
            else:
                self._plans[key] = (True, f"vectorize=True although {uneven}" if uneven else "vectorised")
        return self._plans[key]

    def attach(self, recorder: Any) -> None:
        """Let a recorder follow every step; a recorder opened on the twins does this by itself.

        Parameters
        ----------
        recorder : Recorder or None
            What is told the losses and the new state; None ends it.

        Raises
        ------
        RecordingError
            If another recorder follows already.
        """
        if recorder is not None and self._recorder is not None:
            raise RecordingError("a recorder follows these twins already: close it before another one is opened")
        self._recorder = recorder


def _parameters(carry: tuple[Any, Any]) -> Any:
    return carry[0]


def _shape(batch: Any) -> tuple[Any, ...]:
    """What of a batch decides how compiled code divides its work."""
    leaves, treedef = jax.tree_util.tree_flatten(batch)
    return treedef, tuple((np.shape(leaf), str(getattr(leaf, "dtype", type(leaf)))) for leaf in leaves)
