"""The contents of a run's group, and its layout when the run begins, as FORMAT.md specifies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from trajtools.errors import ArchitectureError, FormatError
from trajtools.store import safety, tables
from trajtools.store.geometry import StreamLayout
from trajtools.store.h5 import filter_options, set_text
from trajtools.store.handles import open_checked
from trajtools.store.status import Owner
from trajtools.store.wholeness import check_committed
from trajtools.wiring import Member, NodeSet, Parameter

FORMAT = "trajtools"
FORMAT_VERSION = safety.VERSION
STORED = ("weights", "distances", "sketch")
_STATUS_BYTES = 16
_SERIES_ROWS = 1024
_SERIES_BYTES = 2**16


@dataclass(frozen=True)
class RunSpec:
    """Everything about a run that is fixed before its first state.

    Attributes are the arguments of `RunWriter.create`.
    """

    parameters: tuple[Parameter, ...]
    nodes: tuple[NodeSet, ...]
    members: tuple[Member, ...]
    dtype: str
    stored: str = "weights"
    time_unit: str = "step"
    hparams: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None
    compress: str | None = None
    sketch: Mapping[str, Any] | None = None
    distance_metric: str | None = None
    optimizer_parameters: tuple[Parameter, ...] = ()
    optimizer_dtype: str = ""

    def __post_init__(self) -> None:
        tables.check_parameters(self.parameters)
        tables.check_members(self.members)
        # What has no JSON form is refused before a file is made.
        for value in (self.hparams, self.provenance, self.sketch):
            tables.to_json(value)
        if self.stored not in STORED:
            raise ValueError(f"stored={self.stored!r}: needed one of {', '.join(STORED)}")
        if (self.stored == "sketch") != (self.sketch is not None):
            raise ValueError(
                "stored='sketch' and the settings of the sketch (sketch=, with its k) must be passed together"
            )
        if self.sketch is not None and not (isinstance(self.sketch.get("k"), int) and self.sketch["k"] > 0):
            raise ValueError(f"the settings of a sketch need a positive integer k, got {dict(self.sketch)!r}")
        if (self.stored == "distances") != (self.distance_metric is not None):
            raise ValueError("stored='distances' and the name of the metric (distance_metric=) must be passed together")

    @property
    def layout(self) -> StreamLayout:
        """Geometry of the states; where no weights are stored, `rows` still is the length of a block."""
        members, n_parameters = len(self.members), sum(p.size for p in self.parameters)
        if self.stored == "weights":
            return StreamLayout.choose(n_parameters, members, self.dtype)
        if self.sketch is not None:
            return StreamLayout.choose(int(self.sketch["k"]), members, "float64")
        return StreamLayout.choose(1, members, "float64")

    @property
    def optimizer_layout(self) -> StreamLayout | None:
        """Geometry of the optimiser's buffers; their blocks are as long as those of the states."""
        if not self.optimizer_parameters:
            return None
        return self.layout.beside(tables.check_parameters(self.optimizer_parameters), self.optimizer_dtype)


def check_name(name: str, what: str) -> None:
    """Refuse names that HDF5 would take for a path."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(
            f"{what} name {name!r}: needed a text without '/', e.g. {str(name).replace('/', '_') or what!r}"
        )


def mark_file(file: h5py.File) -> None:
    """Write the attributes and groups that make an HDF5 file one of ours."""
    set_text(file, "format", FORMAT)
    set_text(file, "format_version", ".".join(map(str, FORMAT_VERSION)))
    file.create_group("runs")


def set_status(group: h5py.Group, status: str) -> None:
    """Write the status of a run, always at the same length, so that a change stays in place."""
    group.attrs.create("status", np.bytes_(status.encode()), dtype=h5py.string_dtype("utf-8", _STATUS_BYTES))


def set_owner(group: h5py.Group, owner: Owner) -> float:
    """Write who records the run, and its first heartbeat."""
    beat = group["heartbeat"]
    now = time.time()
    beat[()] = now
    beat.attrs.create("process", owner.process, dtype="<i8")
    beat.attrs.create("started", owner.started, dtype="<i8")
    set_text(beat, "host", owner.host)
    set_text(beat, "boot", owner.boot)
    return now


def build_run(runs: h5py.Group, name: str, spec: RunSpec, owner: Owner) -> float:
    """Make the group of a new run with everything but its metrics."""
    group = runs.create_group(name)
    set_status(group, "recording")
    set_text(group, "time_unit", spec.time_unit)
    set_text(group, "hparams", tables.to_json(spec.hparams))
    set_text(group, "provenance", tables.to_json(spec.provenance))
    if spec.reference is not None:
        set_text(group, "reference", spec.reference)
    group.create_dataset("parameters", data=tables.parameters_table(spec.parameters))
    group.create_dataset("nodes", data=tables.nodes_table(spec.nodes))
    group.create_dataset("members", data=tables.members_table(spec.members))
    group.create_dataset("committed", data=np.int64(0), dtype="<i8")
    group.create_dataset("heartbeat", data=0.0, dtype="<f8")
    group.create_dataset("step", (0,), maxshape=(None,), chunks=(_SERIES_ROWS,), dtype="<i8")
    group.create_group("metrics")
    layout = spec.layout
    if spec.stored == "weights":
        _stream(group, "weights", layout, spec.compress)
    elif spec.sketch is not None:
        sketch = _stream(group, "sketch", layout, None)
        set_text(sketch, "settings", tables.to_json(spec.sketch))
    else:
        set_text(_series(group, "distances", (len(spec.members),)), "metric", str(spec.distance_metric))
    optimizer = spec.optimizer_layout
    if optimizer is not None:
        _stream(group, "optimizer", optimizer, spec.compress)
        group.create_dataset("optimizer_parameters", data=tables.parameters_table(spec.optimizer_parameters))
    return set_owner(group, owner)


def _stream(group: h5py.Group, name: str, layout: StreamLayout, compress: str | None) -> h5py.Dataset:
    dataset = group.create_dataset(
        name,
        (0, layout.n_members, layout.n_parameters),
        maxshape=(None, layout.n_members, layout.n_parameters),
        chunks=layout.chunk,
        dtype=layout.dtype,
        **filter_options(compress),
    )
    set_text(dataset, "logical_dtype", layout.logical_dtype)
    return dataset


def _series(group: h5py.Group, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    row = max(8, 8 * int(np.prod(shape)))
    chunk = (max(1, min(_SERIES_ROWS, _SERIES_BYTES // row)), *shape)
    return group.create_dataset(name, (0, *shape), maxshape=(None, *shape), chunks=chunk, dtype="<f8", fillvalue=np.nan)


def add_metrics(group: h5py.Group, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Add the datasets of the metrics to a new run."""
    for name, shape in shapes.items():
        _series(group["metrics"], name, shape)


def check_metrics(shapes: Mapping[str, Sequence[int]], n_members: int) -> dict[str, tuple[int, ...]]:
    """Check names and shapes of the metrics."""
    checked = {}
    for name, shape in shapes.items():
        check_name(name, "metric")
        checked[name] = tuple(int(n) for n in shape)
        if len(checked[name]) > 2 or (checked[name] and checked[name][0] != n_members) or 0 in checked[name]:
            raise ArchitectureError(
                f"metric {name!r} has the shape {checked[name]} for one state; needed (), ({n_members},) or "
                f"({n_members}, k), one row for each of the {n_members} members"
            )
    return checked


def refuse_truncated(file: h5py.File, size: int) -> None:
    """Refuse to change a file from which committed states have been cut off."""
    short = file.id.get_filesize() > size
    for group in file["runs"].values():
        if short or safety.attribute(group, "status") == "recording":
            check_committed(group, size)


def require_ours(path: Path) -> None:
    """Refuse to write into a file that is not ours, or of another version."""
    with open_checked(path) as file:
        version = safety.check_version(safety.attribute(file, "format_version"), str(path))
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {'.'.join(map(str, version))}, this trajtools writes "
            f"{'.'.join(map(str, FORMAT_VERSION))}; versions are not mixed in a file. Record into a new file."
        )


def finish(group: h5py.Group, status: str, overhead: Mapping[str, Any] | None) -> None:
    """Write the last attributes of a run."""
    set_status(group, status)
    if overhead is not None:
        set_text(group, "overhead", tables.to_json(overhead))


def note_resumption(group: h5py.Group, provenance: Mapping[str, Any]) -> None:
    """Add to the provenance of a run that its recording went on."""
    known = tables.from_json(safety.attribute(group, "provenance"), "provenance")
    before = known.get("resumed")
    known["resumed"] = [*(before if isinstance(before, list) else []), dict(provenance)]
    set_text(group, "provenance", tables.to_json(known))
