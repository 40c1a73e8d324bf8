"""Recording from inside jit: blocks of a scan with stacked states, and a callback as fallback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from trajtools.errors import RecordingError

# The CPU client of XLA copies callback arguments over 100 kB in the background. With one core the copying thread is the
# one that waits for the copy: jax 0.10.2 then hangs (measured). Smaller pieces are copied immediately.
PIECE_BYTES = 64 * 1024


def record_scan(
    recorder: Any,
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any = None,
    *,
    params: Callable[[Any], Any] | None = None,
    metrics: str | Sequence[str] | None = None,
    length: int | None = None,
    block: int = 64,
) -> tuple[Any, Any]:
    """Scan `step` over `xs` like `jax.lax.scan`, and record the states.

    Parameters
    ----------
    recorder : recorders.jax.Recorder
        An open recorder; the states continue at its current step.
    step : callable
        ``step(carry, x)`` -> ``(carry, y)``, one optimiser update; pure, traced by JAX.
    carry : pytree of arrays
        State of the training, e.g. ``(params, opt_state)``. Its parameters are the newest state of the recorder; if
        not, they are recorded first, as the next step.
    xs : pytree of arrays, each of shape (n, ...), or None
        Inputs of the n steps. NumPy arrays are sliced on the host, JAX arrays on their device.
    params : callable or None
        ``params(carry)`` -> the tree of the recorder, e.g. ``lambda carry: carry[0]``; None if the carry is that tree.
    metrics : str, sequence of str or None
        Which of `y` to record: the name of a single-array `y`; names in a mapping `y`; None for all of a mapping, and
        for nothing of any other `y`.
    length : int or None
        n, if `xs` is None.
    block : int
        Steps per compiled program and transfer.

    Returns
    -------
    carry : pytree of arrays
        The carry after the last step.
    ys : pytree of ndarray, each of shape (n, ...)
        Stacked outputs, on the host.

    Raises
    ------
    RecordingError
        If `block` or `length` is invalid, or a metric is not in `y`.
    ArchitectureError
        If ``params(carry)`` is not the tree of the recorder.

    Notes
    -----
    Equivalent to this loop, with the same states in the same order::

        for x in xs:
            new, y = step(carry, x)
            recorder.record(params(carry), loss=y["loss"])     # the state that the loss was computed from
            carry = new
        recorder.record(params(carry))

    The policy of the recorder is evaluated in advance for all steps of the call; skipped states never leave the device.
    The next block runs while one block is transferred and written; the device holds at most two blocks of states. Two
    programs are compiled, for full blocks and for a shorter last block. The recorder caches them for the same `step`
    and `params`, also if these are lambdas recreated in a loop. XLA may fuse, and so round, a step inside a scan
    differently from the step alone; with equal programs the states are bit-identical.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from recorders.jax import Recorder
    >>> def step(params, x):
    ...     return {"w": params["w"] - 0.1 * (params["w"] - x)}, {"loss": 0.5 * ((params["w"] - x) ** 2).sum()}
    >>> folder, params = tempfile.TemporaryDirectory(), {"w": jnp.ones(3)}
    >>> with Recorder(pathlib.Path(folder.name) / "run.h5", params) as rec:
    ...     params, ys = record_scan(rec, step, params, jnp.zeros((100, 3)))
    >>> rec.n_recorded, ys["loss"].shape
    (101, (100,))
    >>> folder.cleanup()
    """
    return scan_blocks(
        recorder, step, carry, xs, params=params, metrics=metrics, length=length, block=block, between=None
    )


def scan_blocks(
    recorder: Any,
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    *,
    params: Callable[[Any], Any] | None,
    block: int,
    between: Callable[[Any, int, int], Any] | None,
    metrics: str | Sequence[str] | None = None,
    length: int | None = None,
) -> tuple[Any, Any]:
    """Scan as `record_scan` does; ``between(carry, updates, step)`` may change the carry after each block."""
    n = _length(xs, length)
    if block < 1:
        raise RecordingError(f"block={block}: it must be the number of steps between two transfers, at least 1")
    params = _itself if params is None else params
    first = recorder._enter(params(carry))
    selected = np.array([i > 0 and recorder._wants(first + i) for i in range(n)], dtype=bool)
    carry = jax.tree_util.tree_map(_strong, carry)
    run = _program(recorder, step, params)
    capacity = max((int(selected[start : start + block].sum()) for start in range(0, n, block)), default=0)
    fetched: list[Any] = []
    pending: _Block | None = None
    for start in range(0, n, block):
        stored = np.flatnonzero(selected[start : start + block])
        slots = np.full(min(block, n - start), capacity)
        slots[stored] = np.arange(len(stored))
        carry, room, ys = run(carry, _rows(xs, start, len(slots)), slots, capacity=capacity)
        newest = _Block(first + start, stored, _head(room, len(stored)), ys)
        newest.start_transfer()
        if pending is not None:
            fetched.append(_write(recorder, pending, metrics))
        pending = newest
        if between is not None:
            carry = between(carry, len(slots), first + start + len(slots))
    if pending is not None:
        fetched.append(_write(recorder, pending, metrics))
        recorder._leave(first + n, params(carry))
        return carry, jax.tree_util.tree_map(lambda *parts: np.concatenate(parts), *fetched)
    nothing = jax.eval_shape(lambda c, x: jax.lax.scan(step, c, x, length=0)[1], carry, xs)
    return carry, jax.tree_util.tree_map(lambda y: np.zeros(y.shape, y.dtype), nothing)


@dataclass(frozen=True)
class _Block:
    """Steps dispatched together; `stored` are the offsets of the states in the slots of `room`."""

    start: int
    stored: np.ndarray
    room: list[Any]
    ys: Any

    def start_transfer(self) -> None:
        """Start the copies to the host once the block is computed, while the next one runs."""
        for leaf in jax.tree_util.tree_leaves((self.room, self.ys)):
            leaf.copy_to_host_async()


def _write(recorder: Any, block: _Block, metrics: str | Sequence[str] | None) -> Any:
    """Wait for a block, pass it to the recorder, and return its ys."""
    room, ys = jax.device_get((block.room, block.ys))
    values = _named_metrics(ys, metrics)
    recorder._block(block.start, block.stored, [leaf[: len(block.stored)] for leaf in room], values)
    return ys


def _named_metrics(ys: Any, metrics: str | Sequence[str] | None) -> dict[str, Any]:
    """Select the metrics from the stacked outputs of a block."""
    if isinstance(metrics, str) and not isinstance(ys, Mapping):
        if not hasattr(ys, "shape"):
            raise RecordingError(
                f"metrics={metrics!r} names one array, but y is a {type(ys).__name__}: return a dict of arrays"
            )
        return {metrics: ys}
    if metrics is None:
        return dict(ys) if isinstance(ys, Mapping) else {}
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    missing = [name for name in names if not (isinstance(ys, Mapping) and name in ys)]
    if missing:
        content = (
            f"has {', '.join(map(repr, ys))}" if isinstance(ys, Mapping) else f"is a {type(ys).__name__}, not a mapping"
        )
        raise RecordingError(f"metrics={metrics!r}: {missing[0]!r} is not in y, which {content}")
    return {name: ys[name] for name in names}


def _program(recorder: Any, step: Callable[..., Any], params: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return the compiled block of steps, cached per recorder, step and selection of parameters."""
    key = (_identity(step), _identity(params))
    if key not in recorder._programs:
        # The objects behind the ids in the key must live as long as the key.
        recorder._programs[key] = (_compiled(recorder._leaves, step, params), step, params)
    return recorder._programs[key][0]


def _compiled(
    leaves: Callable[[Any], list[Any]], step: Callable[..., Any], params: Callable[[Any], Any]
) -> Callable[..., Any]:
    """Scan over (x, slot): the state before a step goes to its slot, skipped ones to a last scratch slot."""

    def one(state: Any, inputs: Any) -> Any:
        (carry, room), (x, slot) = state, inputs
        room = [
            jax.lax.dynamic_update_index_in_dim(slots_of_leaf, leaf, slot, 0)
            for slots_of_leaf, leaf in zip(room, leaves(params(carry)), strict=True)
        ]
        carry, y = step(carry, x)
        return (carry, room), y

    def run(carry: Any, xs: Any, slots: Any, *, capacity: int) -> Any:
        shapes = jax.eval_shape(lambda c: leaves(params(c)), carry)
        room = [jnp.zeros((capacity + 1, *shape.shape), shape.dtype) for shape in shapes]
        (carry, room), ys = jax.lax.scan(one, (carry, room), (xs, slots))
        return carry, room, ys

    return jax.jit(run, static_argnames=("capacity",))


def _identity(function: Any) -> tuple[Any, ...]:
    """Key that is equal for functions recreated from the same source and objects, like a lambda in a loop."""
    code = getattr(function, "__code__", None)
    if code is None:
        return (id(function),)
    inside = [cell.cell_contents for cell in function.__closure__ or ()]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return (id(code), id(function.__globals__), id(getattr(function, "__self__", None)), *map(id, [*inside, *defaults]))


def _itself(carry: Any) -> Any:
    return carry


def _strong(leaf: Any) -> Any:
    """Convert to a strong dtype: a weakly typed carry would change type after the first block."""
    if isinstance(leaf, jax.Array) and not leaf.weak_type:
        return leaf
    return jnp.asarray(leaf, dtype=jnp.result_type(leaf))


def _length(xs: Any, length: int | None) -> int:
    """Number of steps from `xs` and `length`."""
    lengths = {len(leaf) for leaf in jax.tree_util.tree_leaves(xs)} | ({length} if length is not None else set())
    if len(lengths) != 1:
        lengths_text = f"arrays of lengths {sorted(lengths)}" if lengths else "nothing"
        raise RecordingError(
            f"xs and length give {lengths_text}; every array of xs needs one row per step, or pass length=n alone"
        )
    return lengths.pop()


def _rows(xs: Any, start: int, size: int) -> Any:
    """Rows start .. start + size of every array: a view on the host, a slice on the device of a JAX array."""
    return jax.tree_util.tree_map(
        lambda x: _slice(x, start, size) if isinstance(x, jax.Array) else x[start : start + size], xs
    )


def _slice_rows(x: Any, start: Any, size: int) -> Any:
    return jax.lax.dynamic_slice_in_dim(x, start, size)


# `start` is an argument, so that all blocks of one size share a compiled slice.
_slice = jax.jit(_slice_rows, static_argnums=2)


def _head_rows(room: list[Any], size: int) -> list[Any]:
    return [leaf[:size] for leaf in room]


_cut = jax.jit(_head_rows, static_argnums=1)


def _head(room: list[Any], count: int) -> list[Any]:
    """The first `count` rows, rounded up to a power of two to limit compilations."""
    size = 1 << (count - 1).bit_length() if count else 0
    return _cut(room, size) if room and size < len(room[0]) // 2 else room


def tap(recorder: Any, params: Any, step: Any = None, **metrics: Any) -> None:
    """Record a state from inside jit or scan; a fallback for loops that cannot use `record_scan`.

    Parameters
    ----------
    recorder : recorders.jax.Recorder
        An open recorder; the compiled function always writes to this one.
    params : pytree of arrays
        The tree of the recorder.
    step : int array of shape (), int or None
        Number of updates before this state; None: one more than the last.
    **metrics : array
        Metrics of this state, as in `Recorder.record`.

    Raises
    ------
    ArchitectureError
        If `params` is not the tree of the recorder, raised during tracing.

    Notes
    -----
    An ordered `jax.experimental.io_callback`: every call arrives once, in program order. It cannot be vectorised or
    differentiated: call it outside of `jax.vmap` (put the member axis into the state) and outside of the loss function.
    Every call blocks the device until the state is copied, so `record_scan` is faster. JAX raises errors of the host
    where the results are used, or in ``recorder.close()``, which waits for all calls. A jitted function keeps the
    recorder of its tracing: create the function again for another one.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from recorders.jax import Recorder
    >>> folder, params = tempfile.TemporaryDirectory(), {"w": jnp.ones(3)}
    >>> rec = Recorder(pathlib.Path(folder.name) / "run.h5", params)
    >>> def halve(i, params):
    ...     tap(rec, params, norm=jnp.abs(params["w"]).sum())
    ...     return {"w": params["w"] / 2}
    >>> params = jax.jit(lambda params: jax.lax.fori_loop(0, 10, halve, params))(params)
    >>> rec.close()
    >>> rec.n_recorded
    10
    >>> folder.cleanup()
    """
    recorder._tapped = True
    leaves = recorder._leaves(params)
    shapes = [tuple(leaf.shape) for leaf in leaves]
    pieces = [_pieces(leaf) for leaf in leaves]
    names = list(metrics)

    def arrive(at: Any, parts: list[list[Any]], values: list[Any]) -> None:
        # NumPy only: JAX code here would deadlock with the computation that waits for it.
        arrays = [
            np.concatenate([np.asarray(part) for part in leaf]).reshape(shape)
            for leaf, shape in zip(parts, shapes, strict=True)
        ]
        numbers = {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
        recorder._arrived(arrays, None if at is None else int(np.asarray(at)), numbers)

    io_callback(arrive, None, step, pieces, list(metrics.values()), ordered=True)


def _pieces(leaf: Any) -> list[Any]:
    """Split an array into pieces small enough for a synchronous copy to a CPU callback."""
    flat = jnp.reshape(leaf, -1)
    size = max(1, PIECE_BYTES // flat.dtype.itemsize) if jax.default_backend() == "cpu" else max(1, flat.size)
    return [flat[start : start + size] for start in range(0, max(1, flat.size), size)]
