"""Open a run: settings, members, tables and the file, all before the first state."""

from __future__ import annotations

import logging
import operator
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recorders.adapter import Structure, unwired
from recorders.background import MetricsBeside, MetricTable, Pace, Tape, is_recorded_here
from recorders.shards import Shards
from recorders.storage import Block, Sketch, Sketches, Storage, TwinDistances, Weights, WithBuffers
from trajtools.errors import ArchitectureError, FileBusyError, RecordingError, SelectionError
from trajtools.store import Place, Run, RunSpec, RunWriter, StreamLayout, origin
from trajtools.wiring import Member, NodeSet, Parameter, describe, listed

_log = logging.getLogger("recorders")

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
    model_buffers: Structure | None = None
    shards: Shards | None = None
    parameters: tuple[Parameter, ...] = ()
    nodes: tuple[NodeSet, ...] = ()
    committed: int = 0
    last_step: int = -1
    first_step: int = 0  # of the state at opening
    is_known: bool = False  # that state is in the file
    replanted: bool = False  # copies were made again beside their references
    tail_open: bool = False
    shard: str = ""  # place of this rank in a sharded network, as the file keeps it
    place: Place | None = None
    uuid: str = ""

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
        if (self.buffers or self.model_buffers) is not None and self.stored != "weights":
            raise RecordingError(
                f"buffers= and model_buffers= are stored with the weights, got store={self.stored!r}; omit them, or "
                "store='weights'"
            )

    def describe(self, kinds: Any, axes: Any, wiring: Any) -> None:
        """Fill the tables of parameters and nodes."""
        known, chosen = self.structure.all_names, set(self.structure.names)
        for what, mapping in (("kinds", kinds), ("axes", axes)):
            strange = [name for name in mapping or {} if name not in known]
            if strange:
                raise SelectionError(f"{what}= names {listed(strange)}; the parameters are {listed(known)}")
        kinds, axes = ({n: v for n, v in (mapping or {}).items() if n in chosen} for mapping in (kinds, axes))
        shapes = self.structure.described()
        if self.shards is not None:
            shapes = {name: (self.shards.parts[name].shape, dtype) for name, (_, dtype) in shapes.items()}
        self.parameters, self.nodes = describe(shapes, kinds=kinds, axes=axes, wiring=wiring)
        if self.shards is not None:
            self._describe_shard(self.shards)

    def _describe_shard(self, shards: Shards) -> None:
        """Take the tables of the whole into the text of this rank's place, and fill those of its part."""
        buffers = None
        if self.buffers is not None:
            whole = {name: (shards.parts[name].shape, dtype) for name, (_, dtype) in self.buffers.described().items()}
            buffers = shards.place(unwired(whole))
        self.place = shards.place(self.parameters)
        self.shard = shards.describe(self.place, self.nodes, buffers)
        kinds = [p.kind for p in self.parameters]
        table = unwired(self.structure.described())
        self.parameters = tuple(replace(p, kind=kind) for p, kind in zip(table, kinds, strict=True))
        self.nodes = ()

    @property
    def layouts(self) -> dict[str, StreamLayout]:
        """Geometry of what is stored, by stream, before the file says so."""
        return self._spec().layouts

    @property
    def block_bytes(self) -> int:
        """Size of a block in memory, buffers included."""
        return sum(layout.block_bytes for layout in self.layouts.values())

    def forecast(self, states: int | None) -> Forecast:
        """Say what the run will take; refuse where it cannot fit."""
        folder = Path(self.path).absolute().parent
        if not folder.is_dir():
            raise RecordingError(f"{folder} is not a folder; create it first")
        forecast = Forecast(self.block_bytes // self.layouts[self.stored].rows, states, shutil.disk_usage(folder).free)
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
        step: int | None,
        read: Callable[[], list[np.ndarray]],
    ) -> Tape:
        """Create the run, or find it, and give the tape that fills it; `read` gives what is stored of the state."""
        self.first_step = 0 if step is None else operator.index(step)
        if self.first_step < 0:
            raise RecordingError(f"step={step}: steps count updates from 0")
        if hparams is not None and not isinstance(hparams, Mapping):
            raise RecordingError(f"hparams={hparams!r:.60}: pass a mapping, such as {{'lr': 0.1}}")
        table = MetricTable(self.structure.n_members, metrics)
        storage = self._new_storage()  # refuses what cannot be measured before the path is claimed
        origin = {**provenance(settings, user_provenance), **framework}
        perturbations = _perturbations(mappings)
        if perturbations:
            origin["perturbations"] = perturbations
        try:
            if self.resume and Path(self.path).exists():
                writer = self._resumed(origin, step, read)
            else:
                writer = self._created(hparams, origin, reference, table)
        except FileBusyError as error:
            if not is_recorded_here(Path(self.path)):
                raise
            raise FileBusyError(
                f"{self.path} is still open in an earlier recorder of this process, perhaps of a notebook cell that "
                "failed or was interrupted: close that one, rec.close(), or record in a `with` block, which closes it"
            ) from error
        try:
            if writer.layouts != self.layouts:
                storage = self._new_storage(writer.layouts)
            pace = replace(pace, partial=not writer.filtered)  # a resumed run may be compressed, unasked
            self.committed, self.last_step, self.uuid = writer.committed, writer.last_step, writer.uuid
            return Tape(writer, storage, *self._block_to_go_on(writer, table, storage, pace), strict=self.strict)
        except BaseException:
            writer.abort()
            raise

    def _new_storage(self, layouts: Mapping[str, StreamLayout] | None = None) -> Storage:
        """What fills the blocks, in the geometry of the file or, before there is one, in ours."""
        layouts = layouts or self.layouts
        layout = layouts[self.stored]
        structures = {"optimizer": self.buffers, "buffers": self.model_buffers}
        beside = {name: (one, layouts[name]) for name, one in structures.items() if one is not None}
        if beside:
            return WithBuffers(self.structure, layout, beside)
        if self.stored == "weights":
            return Weights(self.structure, layout)
        if self.sketch is not None:
            entries = np.arange if self.place is None else self.place.entries
            return Sketches(self.structure, self.sketch, layout.rows, entries)
        return TwinDistances(self.structure, self.members, self.metric, layout.rows)

    def _spec(self, **more: Any) -> RunSpec:
        """The run as the file is to hold it."""
        return RunSpec(
            parameters=self.parameters,
            members=self.members,
            dtype=self.structure.dtype,
            stored=self.stored,
            sketch=self.sketch.settings if self.sketch else None,
            distance_metric=self.metric if self.stored == "distances" else None,
            optimizer={"parameters": unwired(b.described()), "dtype": b.dtype} if (b := self.buffers) else None,
            buffers={"parameters": unwired(m.described()), "dtype": m.dtype} if (m := self.model_buffers) else None,
            shard=self.shard,
            **more,
        )

    def _created(self, hparams: Any, origin: dict[str, Any], reference: str | None, table: MetricTable) -> RunWriter:
        spec = self._spec(
            name=self.name or (self.shards.name if self.shards else ""),
            metrics=table.shapes,
            nodes=self.nodes,
            hparams=hparams,
            provenance=origin,
            reference=reference,
            compress=self.compress,
            uuid=self.shards.uuid if self.shards else "",
        )
        writer = RunWriter.create(self.path, spec, mode=self.mode, durable=self.durable)
        self.path = writer.path  # mode="next" may have chosen another
        MetricsBeside(writer.path).path.unlink(missing_ok=True)  # of a run that is gone
        return writer

    def _resumed(self, origin: dict[str, Any], step: int | None, read: Callable[[], list[np.ndarray]]) -> RunWriter:
        if not self.named:  # members were not named now: take those in the file
            with Run(self.path) as run:
                if len(run.members) == len(self.members):
                    self.members = run.members

        def keep(run: Run) -> int:
            return self._states_to_keep(run, step, read(), origin)

        return RunWriter.resume(self.path, self._spec(provenance=origin), durable=self.durable, keep=keep)

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
            for name, array in tail.content.items():
                block.stored[name][: len(array)] = array  # a whole block of tiles, else the states that there are
            writer.tail = None  # as large as a block of the file
        return table, pace, block

    def _states_to_keep(self, run: Run, step: int | None, arrays: list[np.ndarray], origin: dict[str, Any]) -> int:
        """Find the place of the state at opening in a run that goes on; see the notes of `Recorder`."""
        if not run.n_states:
            return 0
        steps, here = run.step, self._as_stored(arrays)
        last = int(steps[-1])
        if step is None:
            at = next((at for at in self._candidates(run, here) if _equal(self._stored_at(run, at), here)), None)
            self.is_known = at is not None
            self.first_step = last + 1 if at is None else int(steps[at])
            keep = run.n_states if at is None else at + 1
        else:
            keep = int(np.searchsorted(steps, step, "right"))
            there = self._stored_at(run, keep - 1) if keep and steps[keep - 1] == step else here
            self.is_known = there is not here and _equal(there, here)
            if not _equal(*([array[self._compared] for array in arrays] for arrays in (there, here))):
                raise RecordingError(
                    f"this training is at step {step}, and {self.path} holds another state for that step, so the "
                    "training does not continue the run. Resume from a checkpoint of the recorded training, or record "
                    "to a new file: mode='next' takes the next free name, mode='w' overwrites"
                )
        if self.first_step < last and self.first_step <= steps[0]:
            raise RecordingError(
                f"{self.path} holds steps up to {last}, and this training begins again at step {self.first_step}. Load "
                "a checkpoint before the recorder opens, or record to a new file: mode='next' takes the next free "
                "name, mode='w' overwrites"
            )
        if keep < run.n_states:
            branch = _copy_beside(Path(self.path), last)
            origin["dropped_steps"] = [int(steps[keep]), last]
            origin["dropped_to"] = branch.name
            _log.warning(
                "%s: the training went back to step %d; steps %d to %d are recorded again, and %s keeps the former run",
                self.path, self.first_step, steps[keep], last, branch.name,
            )  # fmt: skip
        return keep

    @property
    def _compared(self) -> list[int]:
        """Members that a training which goes on has in common with the file."""
        return [i for i, member in enumerate(self.members) if member.reference < 0 or not self.replanted]

    def _candidates(self, run: Run, here: list[np.ndarray]) -> Iterator[int]:
        """Indices of stored states that may be this one, the newest first."""
        if self.stored != "weights":
            yield from reversed(range(run.n_states))
            return
        first = here[0][:, :64]  # tells most states apart, and is read from one chunk
        rows = run.axis.rows
        for start in reversed(range(0, run.n_states, rows)):
            rectangle = slice(start, min(start + rows, run.n_states))
            block = run.states.read(rectangle, columns=slice(0, first.shape[1]), raw=True)
            yield from (start + i for i in reversed(range(len(block))) if block[i].tobytes() == first.tobytes())

    def _stored_at(self, run: Run, at: int) -> list[np.ndarray]:
        """One state, and the buffers beside it, in the file."""
        if self.stored != "weights":
            return [np.asarray(getattr(run, self.stored)[at])]
        streams = (run.states, run.optimizer, run.buffers)
        return [stream.read(slice(at, at + 1), raw=True)[0] for stream in streams if stream is not None]

    def _as_stored(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """One state, and the buffers beside it, as the file holds them."""
        storage = self._new_storage()
        probe = storage.new_block(0)
        storage.put(probe, 0, arrays)
        if self.stored != "weights":
            return [probe.stored[self.stored][0]]
        return [layout.take(probe.stored[name], 1)[0] for name, layout in self.layouts.items()]


def _equal(there: Sequence[np.ndarray], here: Sequence[np.ndarray]) -> bool:
    return all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(there, here, strict=True))


def _perturbations(mappings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How the twins of a state were made, each `perturb` once."""
    settings: list[dict[str, Any]] = []
    for mapping in mappings:
        one = getattr(mapping, "made", None)
        if one and one not in settings:
            settings.append(one)
    return settings


@contextmanager
def explain_taken(call: str, callback: str) -> Iterator[None]:
    """Say how a callback goes on where its file exists already."""
    try:
        yield
    except FileExistsError as error:
        raise FileExistsError(
            f"{error} A callback takes these options, too: {callback}(path, mode='next'). A second {call} with the "
            "same callback, or a notebook cell that is run again, needs one of them"
        ) from None


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


def _copy_beside(path: Path, last: int) -> Path:
    """Copy a run that is about to be cut to the next free name, so that nothing committed is lost."""
    count = 1
    while True:
        branch = path.with_name(f"{path.stem}.until-{last}{'' if count == 1 else f'-{count}'}{path.suffix}")
        try:
            with path.open("rb") as source, branch.open("xb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except FileExistsError:
            count += 1
        else:
            return branch
