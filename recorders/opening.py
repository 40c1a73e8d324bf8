"""Open a run: settings, members, tables and the file, all before the first state."""

from __future__ import annotations

import operator
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recorders.adapter import Structure
from recorders.background import MetricsBeside, MetricTable, Pace, Tape
from recorders.storage import TILES, Block, Sketch, Sketches, Storage, TwinDistances, Weights, WithBuffers
from trajtools.errors import ArchitectureError, RecordingError, SelectionError
from trajtools.store import Run, RunWriter, StreamLayout
from trajtools.store.origin import origin
from trajtools.wiring import Member, NodeSet, Parameter, describe, listed

STORES = ("weights", "distances", "sketch")
MODES = ("x", "next", "w")


def member_table(
    mappings: Sequence[Mapping[str, Any]], members: int | Sequence[Member] | None
) -> tuple[tuple[Member, ...], bool]:
    """The members of a run, and whether they share a leading axis."""
    table = tuple(members) if isinstance(members, Sequence) else None
    if table is not None:
        n = len(table)
    else:
        n = len(mappings) if members is None else operator.index(members)  # type: ignore[arg-type]
    stacked = len(mappings) == 1 and members is not None
    if n < 1 or (not stacked and n != len(mappings)):
        raise ArchitectureError(f"members= declares {n} networks, the state holds {len(mappings)}")
    if table is not None:
        return table, stacked
    if stacked:
        return tuple(Member(f"member {i}") for i in range(n)), True
    return _members_of(mappings), False


def _members_of(mappings: Sequence[Mapping[str, Any]]) -> tuple[Member, ...]:
    entries = [getattr(mapping, "member", None) for mapping in mappings]
    plain = entries.count(None)
    stem = "network" if plain == len(entries) else "reference"
    table: list[Member] = []
    reference = -1
    for i, member in enumerate(entries):
        if member is None:
            reference = i
            number = sum(m is None for m in entries[:i])
            table.append(Member(stem if plain == 1 else f"{stem} {number}"))
        elif reference < 0:
            raise ArchitectureError(
                f"the state begins with {member.name!r}: put the network before its perturbed copies"
            )
        else:
            name = member.name if plain == 1 else f"{table[reference].name} {member.name}"
            taken = {m.name for m in table}
            name = name if name not in taken else f"{name} ({i})"
            table.append(replace(member, name=name, reference=reference))
    return tuple(table)


@dataclass
class Opening:
    """Settings of a run that is being opened, and what its file holds already."""

    path: str | os.PathLike[str]
    structure: Structure
    members: tuple[Member, ...]
    named: bool
    mode: str
    resume: bool
    stored: str
    metric: str
    sketch: Sketch | None
    compress: str | None
    durable: bool
    strict: bool = False
    name: str = ""
    buffers: Structure | None = None
    parameters: tuple[Parameter, ...] = ()
    nodes: tuple[NodeSet, ...] = ()
    committed: int = 0
    last_step: int = -1
    tail_open: bool = False

    def __post_init__(self) -> None:
        if self.stored not in STORES:
            raise RecordingError(f"store={self.stored!r}: it must be one of {', '.join(STORES)}")
        if self.mode not in MODES:
            raise RecordingError(
                f"mode={self.mode!r}: it must be one of {', '.join(MODES)}; a file holds one run, so give each its own"
            )
        if self.sketch is not None and self.stored != "sketch":
            raise RecordingError(f"sketch={self.sketch} needs store='sketch', got store={self.stored!r}")
        if self.stored == "sketch" and self.sketch is None:
            self.sketch = Sketch(1024)
        if self.buffers is not None and self.stored != "weights":
            raise RecordingError(
                f"buffers= are stored with the weights, got store={self.stored!r}; omit them, or store='weights'"
            )

    def describe(self, kinds: Any, axes: Any, wiring: Any) -> None:
        """Fill the tables of parameters and nodes."""
        known, chosen = self.structure.all_names, set(self.structure.names)
        for what, mapping in (("kinds", kinds), ("axes", axes)):
            strange = [name for name in mapping or {} if name not in known]
            if strange:
                raise SelectionError(f"{what}= names {listed(strange)}; the parameters are {listed(known)}")
        kinds, axes = ({n: v for n, v in (mapping or {}).items() if n in chosen} for mapping in (kinds, axes))
        self.parameters, self.nodes = describe(self.structure.described(), kinds=kinds, axes=axes, wiring=wiring)

    @property
    def layout(self) -> StreamLayout:
        """Geometry of what is stored, before the file says so."""
        s = self.structure
        if self.stored == "weights":
            return StreamLayout.choose(s.n_entries, s.n_members, s.dtype)
        return StreamLayout.choose(self.sketch.k if self.sketch else 1, s.n_members, "float64")

    @property
    def buffer_layout(self) -> StreamLayout | None:
        """Geometry of the optimiser's buffers, before the file says so."""
        return None if self.buffers is None else self.layout.beside(self.buffers.n_entries, self.buffers.dtype)

    @property
    def block_bytes(self) -> int:
        """Size of a block in memory, buffers of the optimiser included."""
        return self.layout.block_bytes + (self.buffer_layout.block_bytes if self.buffer_layout else 0)

    def forecast(self, states: int | None) -> Forecast:
        """Say what the run will take; refuse where it cannot fit."""
        folder = Path(self.path).absolute().parent
        if not folder.is_dir():
            raise RecordingError(f"{folder} is not a folder; create it first")
        forecast = Forecast(self.block_bytes // self.layout.rows, states, shutil.disk_usage(folder).free)
        if forecast.bytes is not None and forecast.bytes > forecast.free_bytes and self.compress is None:
            raise RecordingError(
                f"the run will not fit on the disk: {forecast.summary}. Record less: every=, include=, store='sketch'"
            )
        return forecast

    def open(
        self,
        *,
        metrics: Mapping[str, tuple[int, ...]] | Iterable[str] | None,
        pace: Pace,
        settings: Mapping[str, Any],
        hparams: Mapping[str, Any] | None,
        user_provenance: Mapping[str, Any] | None,
        framework: Mapping[str, Any],
        reference: str | None,
        mappings: Sequence[Mapping[str, Any]],
    ) -> Tape:
        """Create the run, or find it, and give the tape that fills it."""
        table = MetricTable(self.structure.n_members, metrics)
        storage = self._new_storage()  # refuses what cannot be measured before the path is claimed
        origin = {**provenance(settings, user_provenance), **framework}
        perturbations = _perturbations(mappings)
        if perturbations:
            origin["perturbations"] = perturbations
        if self.resume and Path(self.path).exists():
            writer = self._resumed(origin)
        else:
            writer = self._created(hparams, origin, reference, table)
        try:
            if (writer.layout, writer.optimizer_layout) != (self.layout, self.buffer_layout):
                storage = self._new_storage(writer.layout, writer.optimizer_layout)
            self.committed, self.last_step = writer.committed, writer.last_step
            return Tape(writer, storage, *self._block_to_go_on(writer, table, storage, pace), strict=self.strict)
        except BaseException:
            writer.abort()
            raise

    def _new_storage(self, layout: StreamLayout | None = None, beside: StreamLayout | None = None) -> Storage:
        """What fills the blocks, in the geometry of the file or, before there is one, in ours."""
        layout, beside = layout or self.layout, beside or self.buffer_layout
        if self.buffers is not None:
            return WithBuffers(self.structure, layout, self.buffers, beside)
        if self.stored == "weights":
            return Weights(self.structure, layout)
        if self.sketch is not None:
            return Sketches(self.structure, self.sketch, layout.rows)
        return TwinDistances(self.structure, self.members, self.metric, layout.rows)

    def _common(self) -> dict[str, Any]:
        return {
            "parameters": self.parameters,
            "members": self.members,
            "dtype": self.structure.dtype,
            "stored": self.stored,
            "durable": self.durable,
            "sketch": self.sketch.settings if self.sketch else None,
            "distance_metric": self.metric if self.stored == "distances" else None,
            "optimizer": {"parameters": b.table(), "dtype": b.dtype} if (b := self.buffers) else None,
        }

    def _created(self, hparams: Any, origin: dict[str, Any], reference: str | None, table: MetricTable) -> RunWriter:
        writer = RunWriter.create(
            self.path,
            name=self.name,
            metrics=table.shapes,
            nodes=self.nodes,
            mode=self.mode,
            hparams=hparams,
            provenance=origin,
            reference=reference,
            compress=self.compress,
            **self._common(),
        )
        self.path = writer.path  # mode="next" may have chosen another
        MetricsBeside(writer.path).path.unlink(missing_ok=True)  # of a run that is gone
        return writer

    def _resumed(self, origin: dict[str, Any]) -> RunWriter:
        if not self.named:  # members were not named now: take those in the file
            with Run(self.path) as run:
                if len(run.members) == len(self.members):
                    self.members = run.members
        return RunWriter.resume(self.path, provenance=origin, **self._common())

    def _block_to_go_on(
        self, writer: RunWriter, table: MetricTable, storage: Storage, pace: Pace
    ) -> tuple[MetricTable, Pace, Block]:
        block = storage.new_block(writer.committed)
        table.adopt(writer.metrics)
        tail = writer.tail
        if tail is not None:
            self.tail_open = True
            block.start, block.count, block.written = tail.start, tail.count, tail.count
            block.step[: tail.count] = tail.step
            for name, values in tail.metrics.items():
                block.metrics[name] = table.new_rows(block.rows, name)
                block.metrics[name][: tail.count] = values
            for name in TILES:
                if getattr(tail, name) is not None:
                    block.stored[name][:] = getattr(tail, name)
            for name, array in (("distances", tail.distances), ("sketch", tail.sketch)):
                if array is not None:
                    block.stored[name][: tail.count] = array
        return table, pace, block

    def first_step(self, step: int | None, arrays: list[np.ndarray]) -> int:
        """Step of the state at opening; see the notes of `Recorder`."""
        if step is not None and operator.index(step) < 0:
            raise RecordingError(f"step={step}: steps count updates from 0")
        if step is not None:
            return operator.index(step)
        if not self.committed:
            return 0
        here = self._as_stored(arrays)
        newest = slice(self.committed - 1, self.committed)
        with Run(self.path) as run:
            if self.stored == "weights":
                streams = (run.states, run.optimizer)
                there = [stream.read(newest, raw=True)[0] for stream in streams if stream is not None]
            else:
                there = [np.asarray(getattr(run, self.stored)[self.committed - 1])]
        same = all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(there, here, strict=True))
        return self.last_step if same else self.last_step + 1

    def _as_stored(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """One state, and the buffers beside it, as the file holds them."""
        storage = self._new_storage()
        probe = storage.new_block(0)
        storage.put(probe, 0, arrays)
        if self.stored != "weights":
            return [probe.stored[self.stored][0]]
        layouts = zip(TILES, (self.layout, self.buffer_layout), strict=True)
        return [layout.take(probe.stored[name], 1)[0] for name, layout in layouts if layout is not None]


def _perturbations(mappings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How the twins of a state were made, each `perturb` once."""
    settings: list[dict[str, Any]] = []
    for mapping in mappings:
        one = getattr(mapping, "made", None)
        if one and one not in settings:
            settings.append(one)
    return settings


@dataclass(frozen=True)
class Forecast:
    """What a recording will take on the disk, before compression.

    Attributes
    ----------
    bytes_per_state : int
        Of all members.
    states : int or None
        How many will be stored; None where the training has no known end.
    free_bytes : int
        Room on the disk when the recorder opened.
    """

    bytes_per_state: int
    states: int | None
    free_bytes: int

    @property
    def bytes(self) -> int | None:
        """Of the whole run; None where the training has no known end."""
        return None if self.states is None else self.states * self.bytes_per_state

    @property
    def summary(self) -> str:
        """One line for people."""
        each = f"{self.bytes_per_state / 1e6:.3g} MB per state"
        room = f"{self.free_bytes / 1e9:.3g} GB free"
        if self.states is None or self.bytes is None:
            return f"{each}, {room}: enough for about {self.free_bytes // max(1, self.bytes_per_state):,} states"
        return f"{each}, {self.states:,} states, {self.bytes / 1e9:.3g} GB in all, {room}"


def provenance(settings: Mapping[str, Any], user: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Provenance of a run, as its file holds it."""
    return {**origin(), "recorder": dict(settings), **({"user": dict(user)} if user else {})}
