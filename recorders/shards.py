"""Networks that are sharded over processes: each rank records its part into a file of its own; nothing is gathered.

A framework says what a rank holds (`Part`) and how the ranks exchange a few words (`gather`). They do so twice when the
recorder opens, so that all of them record or none does; while the training runs, no rank waits for another.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trajtools.errors import RecordingError
from trajtools.store import Box, Place, Shard
from trajtools.wiring import NodeSet, Parameter, is_selected


class Part(NamedTuple):
    """What a rank records of one array.

    Attributes
    ----------
    shape : tuple of int
        Of the whole array.
    boxes : tuple of Box
        The parts, in order; none where another rank records this copy of them.
    """

    shape: tuple[int, ...]
    boxes: tuple[Box, ...]

    @property
    def local_shape(self) -> tuple[int, ...]:
        """Of the recorded array: that of its box, or one axis."""
        return self.boxes[0].shape if len(self.boxes) == 1 else (sum(box.size for box in self.boxes),)


@dataclass
class Shards:
    """The part of a sharded network that this rank records.

    Attributes
    ----------
    rank : int
        Number of this process.
    mesh : dict of str to int
        Axes of the mesh of processes.
    parts : dict of str to Part
        Of every array of the network, by name, and of the optimiser's buffers.
    gather : callable
        ``gather(x) -> [x of each rank]``; every rank calls it.
    """

    rank: int
    mesh: Mapping[str, int]
    parts: dict[str, Part]
    gather: Callable[[Any], list[Any]]
    path: Path = Path()
    name: str = ""
    uuid: str = ""
    ranks: tuple[int, ...] = ()

    @property
    def is_recording(self) -> bool:
        """Whether this rank has a file; one with copies only has none."""
        return self.rank in self.ranks

    def agree(
        self,
        path: str | os.PathLike[str],
        *,
        mode: str = "x",
        resume: bool = False,
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        **_: Any,
    ) -> None:
        """Agree with the other ranks on the run, and on the path of each file."""
        globs = [[one] if isinstance(one, str) else list(one) for one in (include, exclude)]
        owned = any(part.boxes for name, part in self.parts.items() if is_selected(name, *globs))
        place = Path(os.path.abspath(path))
        taken = -1 if mode != "next" or (resume and rank_path(place, self.rank).exists()) else _last_number(place)
        answers = self.gather((self.rank, owned, uuid.uuid4().hex, taken))
        self.ranks = tuple(sorted(rank for rank, owns, _, _ in answers if owns))
        self.uuid = min(answers)[2]
        last = max(number for *_, number in answers)
        if last > 0:
            place = place.with_name(f"{place.stem}-{last + 1}{place.suffix}")
        self.path, self.name = rank_path(place, self.rank), place.stem

    def conclude(self, error: BaseException | None, identity: tuple[str, int] | None = None) -> str:
        """Tell the other ranks how the opening went; returns why this one must not record, where another could not.

        `identity` is the uuid of the run, and the step of the state at opening.
        """
        mine = None if error is None else f"{type(error).__name__}: {error}"
        answers = self.gather((self.rank, mine, identity))
        wrong = [f"rank {rank} could not open its file ({text})" for rank, text, _ in answers if text is not None]
        if wrong:
            return wrong[0]
        known = {tuple(one) for *_, one in answers if one is not None}
        if len({run for run, _ in known}) > 1:
            return "the files of the ranks are of different runs: resume the files of one run, or none"
        if len(known) > 1:
            steps = sorted({step for _, step in known})
            return f"the ranks resume at different steps ({', '.join(map(str, steps))}): pass step="
        return ""

    def place(self, table: Sequence[Parameter]) -> Place:
        """Which entries of the whole the recorded arrays are; `table` is that of the whole."""
        return Place(tuple(table), tuple(self.parts[parameter.name].boxes for parameter in table))

    def describe(self, weights: Place, nodes: Sequence[NodeSet], buffers: Place | None) -> str:
        """What the file says of its place in the whole."""
        return Shard(self.rank, self.ranks, self.mesh, weights, tuple(nodes), buffers).to_text()

    @contextmanager
    def opening(self, recorder: Any) -> Iterator[None]:
        """Open the file of each rank, or none: where one cannot, those of the others are closed and removed."""
        try:
            yield
        except BaseException as error:
            self.conclude(error)
            raise
        trouble = self.conclude(None, (recorder._uuid, recorder.step))
        if trouble:
            recorder.close("interrupted")
            if not recorder._before:
                self.path.unlink(missing_ok=True)
            raise RecordingError(f"{self.path} is not recorded: {trouble}")


def rank_path(path: Path, rank: int) -> Path:
    """Path of the file of one rank."""
    return path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def _last_number(path: Path) -> int:
    """Largest number among ``name.rank*`` (1) and ``name-<number>.rank*``; 0 if there is none."""
    pattern = re.compile(rf"{re.escape(path.stem)}(?:-(\d+))?\.rank\d+{re.escape(path.suffix)}$")
    found = [pattern.match(file.name) for file in path.parent.glob("*.rank*")] if path.parent.is_dir() else []
    return max((int(match[1] or 1) for match in found if match), default=0)


class OtherRank:
    """Mixin for the recorder of a rank that writes no file: every call does nothing."""

    _shards: Any

    def __init__(self, path: Any, state: Any, **options: Any) -> None:
        del path, state, options
        if self._shards is not None:
            trouble = self._shards.conclude(None)
            if trouble:
                raise RecordingError(f"not recording: {trouble}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lstrip('_')} of another rank, which writes no file>"

    step = property(lambda self: 0)
    n_recorded = property(lambda self: 0)
    n_skipped = property(lambda self: 0)
    names = property(lambda self: ())
    overhead = property(lambda self: {})
    live = property(lambda self: {})

    def record(self, *args: Any, **metrics: Any) -> None:
        """Do nothing."""

    advance = record_block = flush = close = __exit__ = record
    _updated = _unhook = record  # what the callbacks of trainers call
