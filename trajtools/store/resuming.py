"""Resume a run: checks, and the last block read back into memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from trajtools.errors import ArchitectureError, FormatError
from trajtools.store.files import File
from trajtools.store.geometry import StreamLayout
from trajtools.store.h5 import filters
from trajtools.store.runs import Run
from trajtools.store.structure import RunSpec
from trajtools.wiring import Parameter

Array = NDArray[Any]


@dataclass(frozen=True)
class Tail:
    """The last block of a run, not yet full.

    Attributes
    ----------
    start, count : int
        First state of the block, and how many of it are committed.
    step : ndarray of int64, shape (count,)
        Their steps.
    metrics : dict of str to ndarray, shapes (count, ...)
        Their metrics.
    tiles, optimizer_tiles : ndarray or None
        The block as `StreamLayout.new_tiles` gives it.
    distances, sketch : ndarray or None
        Shapes (count, M), (count, M, k).
    """

    start: int
    count: int
    step: Array
    metrics: dict[str, Array]
    tiles: Array | None = None
    optimizer_tiles: Array | None = None
    distances: Array | None = None
    sketch: Array | None = None


@dataclass(frozen=True)
class Found:
    """What `prepare` found in the run that goes on."""

    layout: StreamLayout
    optimizer_layout: StreamLayout | None
    committed: int
    last_step: int
    before_block: int
    metrics: dict[str, tuple[int, ...]] | None
    tail: Tail | None
    filtered: bool


def prepare(path: Path, run: str, spec: RunSpec) -> Found:
    """Check that a run can go on with these parameters, and read what is needed for it."""
    with File(path) as file:
        stored = file[run]
        _compare(stored, spec)
        layout = _layout(stored, spec.layout, "weights" if spec.stored == "weights" else "sketch")
        optimizer = spec.optimizer_layout
        if optimizer is not None:
            optimizer = _layout(stored, optimizer, "optimizer")
        start = max(0, stored.n_states - 1) // layout.rows * layout.rows
        steps = stored.step
        return Found(
            layout=layout,
            optimizer_layout=optimizer,
            committed=stored.n_states,
            last_step=int(steps[-1]) if len(steps) else -1,
            before_block=int(steps[start - 1]) if start else -1,
            metrics=_fixed_metrics(stored),
            tail=_tail(stored, layout, optimizer) if stored.n_states % layout.rows else None,
            filtered=any(filters(stored._dataset(name)) for name in ("weights", "optimizer") if stored._has(name)),
        )


def _fixed_metrics(run: Run) -> dict[str, tuple[int, ...]] | None:
    """Give names and shapes; None where the writer died before it fixed them."""
    found = {name: values.shape[1:] for name, values in run.metrics.items()}
    return found if found or run.n_states else None


def _compare(run: Run, spec: RunSpec) -> None:
    differences = list(_table_differences("parameter", run.parameters, spec.parameters))
    differences += _table_differences("optimiser buffer", run.optimizer_parameters, spec.optimizer_parameters)
    if len(run.members) != len(spec.members):
        differences.append(f"{len(run.members)} members in the file, {len(spec.members)} now")
    else:
        differences += [f"member {a} in the file is {b} now" for a, b in _unequal(run.members, spec.members)]
    if run.stored != spec.stored:
        differences.append(f"the file stores {run.stored}, now {spec.stored} are to be stored")
    elif run.logical_dtype != spec.dtype and spec.stored == "weights":
        differences.append(f"states are {run.logical_dtype} in the file, {spec.dtype} now")
    if run.distance_metric != spec.distance_metric:
        differences.append(f"the metric is {run.distance_metric} in the file, {spec.distance_metric} now")
    if run.sketch_settings != (None if spec.sketch is None else dict(spec.sketch)):
        differences.append(f"the sketch is {run.sketch_settings} in the file, {spec.sketch} now")
    if differences:
        more = f" (and {len(differences) - 3} more differences)" if len(differences) > 3 else ""
        raise ArchitectureError(
            f"run {run.name!r} of {run.path} cannot be resumed: {'; '.join(differences[:3])}{more}. "
            "Build the same network, or record into a new run."
        )


def _unequal(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    # By repr: a NaN epsilon equals itself here.
    return [(a, b) for a, b in zip(ours, theirs, strict=True) if repr(a) != repr(b)]


def _table_differences(what: str, ours: tuple[Parameter, ...], theirs: tuple[Parameter, ...]) -> list[str]:
    if len(ours) != len(theirs):
        return [f"{len(ours)} {what}s in the file, {len(theirs)} now"]
    keys = ("name", "shape", "dtype")
    return [
        f"{what} {a.name!r} {a.shape} {a.dtype} in the file is {b.name!r} {b.shape} {b.dtype} now"
        for a, b in zip(ours, theirs, strict=True)
        if any(getattr(a, key) != getattr(b, key) for key in keys)
    ]


def _layout(run: Run, wanted: StreamLayout, name: str) -> StreamLayout:
    """Take the geometry from the file: it counts, whatever this version would choose."""
    if not run._has(name):
        return wanted
    rows, one, columns = run._dataset(name).chunks or (0, 0, 0)
    if one != 1 or rows < 1 or not 1 <= columns <= wanted.n_parameters:
        raise FormatError(f"{name} of run {run.name!r} has chunks {(rows, one, columns)}, needed (rows, 1, columns)")
    return StreamLayout(wanted.n_parameters, wanted.n_members, wanted.logical_dtype, rows, columns)


def _tail(run: Run, layout: StreamLayout, optimizer: StreamLayout | None) -> Tail:
    start = run.n_states // layout.rows * layout.rows
    rows = slice(start, run.n_states)
    distances, sketch = run.distances, run.sketch
    buffers = run.optimizer
    return Tail(
        start=start,
        count=run.n_states - start,
        step=run.step[rows],
        metrics={name: values[rows] for name, values in run.metrics.items()},
        tiles=_fill(layout, run.weights.read(rows, raw=True)) if run.stored == "weights" else None,
        optimizer_tiles=_fill(optimizer, buffers.read(rows, raw=True)) if buffers is not None and optimizer else None,
        distances=None if distances is None else distances[rows],
        sketch=None if sketch is None else sketch[rows],
    )


def _fill(layout: StreamLayout, states: Array) -> Array:
    tiles = layout.new_tiles()
    for row in range(len(states)):
        for member in range(layout.n_members):
            layout.put(tiles, row, member, states[row, member])
    return tiles
