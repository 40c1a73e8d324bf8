"""A run open for reading: its states, series and tables, up to the last committed state."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DamagedError, FormatError, SelectionError, TooLargeError, UnsafeFileError
from trajtools.results import Shown, import_optional
from trajtools.store import layout as on_disk
from trajtools.store.chunks import Blocks, Piece, Selection, indices
from trajtools.store.files import (
    Owner,
    RawFile,
    check_head,
    cut_short,
    has_writer,
    one_line,
    one_sentence,
    open_for_reading,
)
from trajtools.store.layout import Axis, Cells, Structure
from trajtools.store.shards import Shard
from trajtools.store.strangers import Geometry, Objects
from trajtools.wiring import Member, NodeSet, Parameter
from trajtools.wording import WIDTH, counted

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import Dataset

    from trajtools.trajectory import Trajectory

LARGEST_BYTES = 4 * 2**30
_TRIES = 5
_EAGER_BLOCKS = 1000
_LOOK_BYTES = 64 * 2**20  # of chunks, to look whether a state is finite


class Run(Shown):
    """One training, open for reading: M members that advance in lock-step, T states of each.

    A run shows the states that were committed when it was opened; `refresh` shows those written since. Every chunk is
    checked against its checksum when it is first read. A run is a context manager, and pickles as its path.

    Parameters
    ----------
    path : path-like
        The file.

    Attributes
    ----------
    path : Path
        The file.
    name : str
        Name of the run.
    uuid : str
        Identifies the run wherever its file goes.
    n_states, n_members, n_parameters : int
        T, M, P.
    hparams, provenance : dict
        Hyper-parameters; software and versions, seeds, command, start time.
    time_unit : str
        Unit of `step`.
    reference : str or None
        Name of the run that this one was perturbed from.
    parameters, optimizer_parameters, buffer_parameters : tuple of Parameter
        Which edge of the graph each entry of the state is; which buffer each entry of `optimizer` and `buffers` is.
    nodes : tuple of NodeSet
        Node sets of the graph.
    members : tuple of Member
        The networks of the run.
    stored : str
        What the run keeps of each state: ``"weights"``, ``"sketch"`` or ``"distances"``.
    shard : Shard or None
        Which part of the network the file holds, if that is sharded over processes; None: the whole.
    is_cut : bool
        The file is shorter than its writer left it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is not a trajtools file, or too damaged to be opened.
    UnsafeFileError
        If it points outside itself, or declares more than it holds.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from recorders import Recorder
    >>> with Recorder("run.h5", {"w": np.ones(3)}, hparams={"lr": 0.1}, quiet=True) as recorder:
    ...     for step in range(5):
    ...         recorder.record({"w": np.full(3, 0.9**step)}, loss=0.9**step)
    >>> run = tt.open("run.h5")
    >>> run.step.tolist(), run.metrics["loss"].round(2).tolist()
    ([0, 1, 2, 3, 4], [1.0, 0.9, 0.81, 0.73, 0.66])
    >>> run.trajectory().shape
    (5, 3)
    """

    blocks: Blocks
    planting_blocks: Blocks
    axis: Axis
    planting_axis: Axis
    stored: str

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        self._lock = threading.RLock()
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} does not exist")
        if not self.path.is_file():
            kind = "a folder; open_runs() opens the runs in it" if self.path.is_dir() else "not a regular file"
            raise FormatError(f"{self.path} is {kind}; needed a trajtools file")
        self._raw = RawFile(self.path)
        self._planted: dict[int, list[slice]] | None = None  # stretches by member; -1: of a member that never was
        self._where: dict[str, int] = {}
        self.is_cut = False
        try:
            self._load()
        except BaseException:
            self._raw.close()
            raise

    @property
    def origin(self) -> tuple[type[Run], Any]:
        """What opens the run again: its class, and what that takes."""
        return type(self), self.path

    def __reduce__(self) -> tuple[Any, ...]:
        opener, where = self.origin
        return (opener, (where,))

    def _head(self) -> str:
        return f"{self.name!r}, {self.status}"

    def _sentence(self) -> str:
        references = sum(member.reference < 0 for member in self.members)
        copies = counted(self.n_members - references, "perturbed copy", "perturbed copies")
        networks = counted(references, "network") + (f" and {copies}" if self.n_members > references else "")
        steps = self.step
        span = f", {self.time_unit}s {steps[0]} to {steps[-1]}" if len(steps) else ""
        size = f"{counted(self.n_parameters, 'parameter')} ({self.logical_dtype})"
        return f"{counted(self.n_states, 'state')}{span}, of {networks} with {size}."

    def _lines(self) -> Sequence[str]:
        named = (("hyper-parameters", [f"{k} = {v}" for k, v in self.hparams.items()]), ("metrics", list(self.metrics)))
        lines = [f"{title}: {', '.join(items)}" for title, items in named if items]
        return [part for line in lines for part in wrap(line, WIDTH, subsequent_indent="  ")]

    def _facts(self) -> Sequence[tuple[str, ...]]:
        facts = [("file", str(self.path)), *((name, str(value)) for name, value in self.hparams.items())]
        if not self.n_states:
            return facts
        for name, values in self.latest(1)[1].items():
            known = values[np.isfinite(values)]
            if len(known):
                middle = f"{np.median(known):.4g}" + (" (median)" if known.size > 1 else "")
                facts.append((f"{name}, last state", middle))
        return facts

    def to_dataframe(self) -> DataFrame:
        """Convert the metrics to a table of pandas.

        Returns
        -------
        pandas.DataFrame
            `step` and every metric, one row a state; with `member`, one row a state and member, where a metric has one
            value for each member. Metrics of several numbers become one column each.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        frame = import_optional("pandas").DataFrame
        metrics = dict(self.metrics)
        by_member = any(name in self.member_metrics for name in metrics)
        columns: dict[str, Any] = {"step": self.step}
        repeats = self.n_members if by_member else 1
        if by_member:
            columns = {"step": np.repeat(self.step, repeats), "member": np.tile(np.arange(repeats), self.n_states)}
        for name, values in metrics.items():
            rows = values if name in self.member_metrics or not by_member else np.repeat(values, repeats, axis=0)
            flat = rows.reshape(self.n_states * repeats, -1)
            columns |= {name if flat.shape[1] == 1 else f"{name}_{k}": flat[:, k] for k in range(flat.shape[1])}
        return frame(columns)

    def to_xarray(self) -> Dataset:
        """Convert the metrics to a dataset of xarray.

        Returns
        -------
        xarray.Dataset
            Every metric over `step`, and over `member` where it has one value for each.

        Raises
        ------
        MissingDependencyError
            If xarray is not installed.
        """
        data = {}
        for name, values in self.metrics.items():
            dims = ["step", *(["member"] if name in self.member_metrics else [])]
            dims += [f"{name}_entry"] * (values.ndim - len(dims))
            data[name] = (dims, values)
        attributes = {name: v for name, v in self.hparams.items() if isinstance(v, (int, float, str))}
        coords = {"step": self.step, "member": [member.name for member in self.members]}
        return import_optional("xarray").Dataset(data, coords=coords, attrs=attributes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; trajectories taken from the run open it again when they are read."""
        self._raw.close()

    def refresh(self) -> None:
        """See the states that were committed since the run was opened."""
        with self._lock:
            previous = self._raw
            self._raw = RawFile(self.path)
            if self._raw.identity != previous.identity:
                self._where = {}
            previous.close()
            self._load()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files of the run: one, or of a sharded network that of each rank."""
        return (self.path,)

    def _show(self, n_states: int) -> None:
        """Show the first states only, as a run did that was opened earlier."""
        self.n_states, self._planted = n_states, None
        self.blocks.n = n_states

    # ------------------------------------------------------------------------------------------------ what it holds

    @property
    def status(self) -> str:
        """``"recording"``, ``"complete"`` or ``"interrupted"``; a writer that is gone has been interrupted."""
        if self.cells.status == on_disk.RECORDING and has_writer(self._raw, Owner.from_notes(self.notes)):
            return "recording"
        return "complete" if self.cells.status == on_disk.COMPLETE else "interrupted"

    @property
    def states(self) -> StoredArray:
        """The states, shape (T, M, P), read when indexed; bfloat16 comes as float32, exactly.

        Raises
        ------
        SelectionError
            If the run stores no weights.
        """
        self._require("weights")
        return StoredArray(self, "weights")

    @property
    def optimizer(self) -> StoredArray | None:
        """Buffers of the optimiser, shape (T, M, P'), or None."""
        return StoredArray(self, "optimizer") if "optimizer" in self.axis.streams else None

    @property
    def buffers(self) -> StoredArray | None:
        """Buffers of the network (running statistics, ...), shape (T, M, P''), or None."""
        return StoredArray(self, "buffers") if "buffers" in self.axis.streams else None

    @property
    def step(self) -> NDArray[np.int64]:
        """Step of each state, int64, shape (T,): the number of optimiser updates before it."""
        return self.series("step", 0, self.n_states)

    @property
    def time(self) -> NDArray[np.float64]:
        """Time of each state in `time_unit`, float64, shape (T,)."""
        return self.step.astype(np.float64)

    @property
    def metrics(self) -> Metrics:
        """Name of a metric -> its float64 values, shape (T,), (T, M) or (T, M, k), read when used."""
        return Metrics(self)

    @property
    def member_metrics(self) -> frozenset[str]:
        """Names of the metrics with one value for each member."""
        return frozenset(name for name in self.metrics if not self._metric_columns[name].numbers)

    @property
    def metric_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name of a metric -> its shape, without reading it."""
        shapes = {}
        for name in self.metrics:
            columns = self._metric_columns[name]
            members = () if columns.numbers else (self.n_members,)
            shapes[name] = (self.n_states, *members, *(() if columns.single else (len(columns.places),)))
        return shapes

    @property
    def distances(self) -> NDArray[np.float64] | None:
        """Distance of each member to its reference, shape (T, M), if that is what the run stores."""
        return self.series("distances", 0, self.n_states) if self.stored == "distances" else None

    @property
    def distance_metric(self) -> str | None:
        """Name of the metric of `distances`."""
        return self.texts.get("distances.metric")

    @property
    def sketch(self) -> NDArray[np.float64] | None:
        """Linear sketch of each state, shape (T, M, k), if that is what the run stores."""
        if self.stored != "sketch":
            return None
        return np.asarray(StoredArray(self, "sketch").read(), np.float64)

    @property
    def sketch_settings(self) -> dict[str, Any] | None:
        """Settings from which the sketch can be computed again."""
        text = self.texts.get("sketch.settings")
        return None if text is None else on_disk.from_json(text, f"{self.path}: settings of the sketch")

    @property
    def plantings(self) -> dict[str, NDArray[Any]]:
        """When which member was placed anew beside its reference, the first time included.

        Arrays (L,), one row a planting: `step` (the state of this step is the first that shows it), `member`, `epsilon`
        (as in the members table), `seed`, and `norm`, the Euclidean distance from the reference in that state.
        """
        names = tuple(on_disk.PLANTING_STREAMS)
        return dict(zip(names, self._planting_columns(*names), strict=True))

    def stretches(self, member: int) -> list[slice]:
        """Rows of the states between the plantings of a member; across them, it is not one trajectory.

        Parameters
        ----------
        member : int
            Row of the members table.

        Returns
        -------
        list of slice
            Each from the first state that shows a planting to the last one before the next; before the first planting,
            and for a member without any, from the first state on. Empty stretches are left out.
        """
        if self._planted is None:  # asked member by member
            planted, members = self._planting_columns("step", "member")
            order = np.lexsort((planted, members))
            rows = np.searchsorted(self.step, planted[order]).tolist()
            planted_at: dict[int, list[int]] = {}
            for planted_member, row in zip(members[order].tolist(), rows, strict=True):
                planted_at.setdefault(planted_member, []).append(row)
            cut = cache(self._cut)  # most members were planted together
            self._planted = {-1: cut(()), **{planted: cut(tuple(at)) for planted, at in planted_at.items()}}
        return list(self._planted.get(member, self._planted[-1]))

    def _cut(self, planted: tuple[int, ...]) -> list[slice]:
        edges = [0, *planted, self.n_states]
        return [slice(a, b) for a, b in pairwise(edges) if b > a]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the states as they are read."""
        return np.dtype("float32" if self.logical_dtype == "bfloat16" else self.logical_dtype)

    @property
    def logical_dtype(self) -> str:
        """Dtype of the states as they were recorded: float16, float32, float64 or bfloat16."""
        return self.texts.get("weights.logical_dtype") or on_disk.promote([p.dtype for p in self.parameters])

    @property
    def overhead(self) -> dict[str, Any] | None:
        """What the recording cost, as measured by the recorder; None before the run was closed."""
        value = self.notes.get("overhead")
        return value if isinstance(value, dict) else None

    @property
    def unstored(self) -> tuple[str, ...]:
        """Metrics that found no free column in the file."""
        return tuple(map(str, self.notes.get("unstored", ())))

    @property
    def ended(self) -> str:
        """Why the recording was interrupted, where its recorder could say so."""
        return str(self.notes.get("ended", "")) if self.status == "interrupted" else ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the recorder said about what is not in the file."""
        return tuple(map(str, self.notes.get("remarks", ())))

    def not_finite(self) -> dict[str, int] | None:
        """Where the states become NaN or infinite and stay so, as of a training that diverged.

        Reads the last state, and a few others to find the first; of very many members, not all. Where distances are
        stored, those of the copies are checked.

        Returns
        -------
        dict or None
            ``step``: the first step from which on a member has no finite state; ``states``: how many states that are;
            ``members``: how many members end so; ``checked``: of how many. None if all these end in finite states.

        Raises
        ------
        DamagedError
            If a chunk that is needed does not match its checksum.
        """
        checked = list(range(self.n_members))
        if self.stored == "distances":  # a reference has none: NaN says nothing of it
            checked = [index for index, member in enumerate(self.members) if member.reference >= 0]
        if not self.n_states or not checked:
            return None
        if self.stored == "weights":
            stream = self.axis.streams["weights"]
            of_one = stream.rows * self.n_parameters * self.dtype.itemsize  # whole chunks are read
            checked = checked[: max(1, _LOOK_BYTES // max(of_one, 1))]
        last = self._finite(self.n_states - 1, checked)
        ended = [member for member, finite in zip(checked, last, strict=True) if not finite]
        if not ended:
            return None
        low, high = -1, self.n_states - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._finite(middle, ended).all() else (low, middle)
        step = int(self.series("step", high, high + 1)[0])
        return {"step": step, "states": self.n_states - high, "members": len(ended), "checked": len(checked)}

    def _finite(self, state: int, members: list[int]) -> NDArray[np.bool_]:
        """Which members have a finite state."""
        if self.stored == "weights":
            row = StoredArray(self, "weights").read(slice(state, state + 1), members)[0]
        else:
            row = np.asarray(self._read_rows(self.stored, state, state + 1)[0])[members]
        return np.asarray(np.isfinite(row.reshape(len(members), -1)).all(axis=1))

    @property
    def format_version(self) -> str:
        """Version of the format, as the file says."""
        return self.texts["format_version"]

    def trajectory(self, member: int = 0) -> Trajectory:
        """The states of one member.

        Parameters
        ----------
        member : int
            Index of the member.

        Returns
        -------
        Trajectory
            Lazy, shape (T, P).

        Raises
        ------
        SelectionError
            If there is no such member, or the run stores no weights.
        """
        from trajtools.trajectory import Trajectory

        self._require("weights")
        if not -self.n_members <= member < self.n_members:
            raise SelectionError(f"run {self.name!r} has {self.n_members} members; there is no member {member}")
        return Trajectory(
            StoredStates(self, member % self.n_members),
            step=self.step,
            parameters=self.parameters,
            nodes=self.nodes,
            time_unit=self.time_unit,
            name=f"{self.name}/{self.members[member].name}",
        )

    def latest(self, count: int = 64) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
        """Steps and metrics of the newest states.

        Parameters
        ----------
        count : int
            How many states, at most.

        Returns
        -------
        step : ndarray of int64, shape (t,)
            Their steps.
        metrics : dict of str to ndarray of float64, shapes (t,), (t, M) or (t, M, k)
            Their metrics; NaN where there is none, often for the newest state.
        """
        first = max(0, self.n_states - count)
        return self.series("step", first, self.n_states), {name: self.metric(name, first) for name in self.metrics}

    def metric(self, name: str, first: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        """Read a metric.

        Parameters
        ----------
        name : str
            Its name.
        first, stop : int or None, in states
            As in a slice; None is the end.

        Returns
        -------
        ndarray of float64, shape (t,), (t, M) or (t, M, k)
            NaN where it was not recorded.
        """
        stop = self.n_states if stop is None else stop
        columns = self._metric_columns[name]
        stream = "metrics" if columns.numbers else "member_metrics"
        values = [self.series(stream, first, stop, column) for column in columns.places]
        if columns.numbers:
            return values[0].reshape(-1)
        return values[0] if columns.single else np.stack(values, axis=-1)

    def series(self, name: str, start: int, stop: int, column: int | None = None) -> NDArray[Any]:
        """Read rows of a stream.

        Parameters
        ----------
        name : str
            ``"step"``, ``"distances"``, ``"metrics"`` or ``"member_metrics"``.
        start, stop : int
            States.
        column : int or None
            One column of the metrics.

        Returns
        -------
        ndarray, shape (stop - start,) for steps, else (stop - start, entries)

        Raises
        ------
        DamagedError
            If a chunk does not match its checksum.
        """
        self._locate(self.blocks, name)
        values = self.blocks.series(name, column, start, stop)
        return values.reshape(-1) if name == "step" else values

    def rectangle(self, name: str, rows: Any, members: Any, columns: Any, *, by_member: bool = False) -> NDArray[Any]:
        """Read states of a (T, M, P) stream, as stored.

        Parameters
        ----------
        name : str
            ``"weights"``, ``"sketch"`` or ``"optimizer"``.
        rows, members, columns : slice or ndarray of int64
            Which states, members and entries.
        by_member : bool
            Put the members first: whole chunks are then read without a copy.

        Returns
        -------
        ndarray, shape (rows, members, columns) or (members, rows, columns)

        Raises
        ------
        DamagedError
            If a chunk does not match its checksum.
        """
        self._locate(self.blocks, name)
        return self.blocks.rectangle(name, rows, members, columns, by_member=by_member)

    def pieces(self, name: str, rows: slice, members: NDArray[np.int64], columns: slice) -> Iterator[Piece]:
        """Read states of a (T, M, P) stream, as stored, in pieces that fit into the cache of the processor.

        Parameters
        ----------
        name : str
            ``"weights"``, ``"sketch"`` or ``"optimizer"``.
        rows : slice
            Which states.
        members : ndarray of int64
            Which members.
        columns : slice
            Which entries.

        Yields
        ------
        rows, columns : slice
            Place of the piece in the rectangle.
        states : ndarray, shape (members, rows, columns)
            Valid until the next piece, and known to be whole once there is none.

        Raises
        ------
        DamagedError
            If a chunk does not match its checksum.
        """
        self._locate(self.blocks, name)
        yield from self.blocks.pieces(name, rows, members, columns)

    def _read_rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """States of any stream of theirs as stored: (stop - start, M, numbers), of distances (stop - start, M)."""
        if name == "distances":
            return self.series(name, start, stop)
        return StoredArray(self, name).read(slice(start, stop), raw=True)

    def _planting_columns(self, *names: str) -> list[NDArray[Any]]:
        n = self.planting_blocks.n
        if not n:
            return [np.zeros(0, on_disk.PLANTING_STREAMS[name]) for name in names]
        streams = [f"plantings/{name}" for name in names]
        self._locate(self.planting_blocks, *streams)  # HDF5 opens the file once for all
        return [self.planting_blocks.series(stream, None, 0, n).reshape(-1) for stream in streams]

    def locate_all(self) -> None:
        """Learn where all chunks are, as readers of many streams need it."""
        both = (self.blocks, self.planting_blocks)
        if any(blocks.missing(list(blocks.axis.streams)) for blocks in both):
            self._locate_in(*((blocks, list(blocks.axis.streams)) for blocks in both))

    def _locate(self, blocks: Blocks, *names: str) -> None:
        """Learn where the chunks of some streams are."""
        if blocks.missing(names):
            self._locate_in((blocks, names))

    def _locate_in(self, *wanted: tuple[Blocks, Sequence[str]]) -> None:
        with self._lock:
            self._raw.reopen()
            with one_sentence(self.path, "find the chunks"), open_for_reading(self._raw) as file:
                objects = Objects(file)
                for blocks, names in wanted:
                    self._learn(objects, blocks, names)

    def _learn(self, objects: Objects, blocks: Blocks, names: Sequence[str]) -> None:
        for name in blocks.missing(names) if blocks.n else ():
            length = blocks.locate(objects, name)
            if name != blocks.axis.sums and length < blocks.n:
                self._shorten(blocks, name, length)

    def _shorten(self, blocks: Blocks, name: str, length: int) -> None:
        text = f"{self.path} declares {blocks.n} committed states, but {name} holds {length}"
        self._refuse(FormatError(text))
        blocks.n = length
        if blocks is self.blocks:
            self.n_states, self._planted = length, None

    @property
    def places(self) -> dict[str, int]:
        """Offsets of what is rewritten in place."""
        if len(self._where) < len(on_disk.PLACES):
            with self._lock, one_sentence(self.path, "find the cells"), open_for_reading(self._raw) as file:
                self._place(Objects(file), *on_disk.PLACES)
        return self._where

    def _require(self, name: str) -> None:
        if name not in self.axis.streams:
            raise SelectionError(
                f"run {self.name!r} stores {self.stored} of each state, not the {name}; record it with store={name!r}"
            )

    # ------------------------------------------------------------------------------------------------------ loading

    def _load(self) -> None:
        for trial in range(_TRIES):
            try:
                self._load_once()
                return
            except FormatError as error:
                # A writer may have been at work in between, or be in the middle of a write of a few microseconds.
                if trial == _TRIES - 1 or (trial and not self._was_written_lately()):
                    if self.is_cut and error.__cause__ and not isinstance(error, UnsafeFileError):  # HDF5 stumbled
                        raise FormatError(
                            f"{self.path} {cut_short(self._raw)}, and a part of the structure is gone that every "
                            "reader needs; copy the file again from its source"
                        ) from error
                    raise
                time.sleep(0.002 * 4**trial)

    def _was_written_lately(self) -> bool:
        return abs(time.time() - os.fstat(self._raw.descriptor).st_mtime) < 5

    def _load_once(self) -> None:
        self.is_cut = not self._check_head()
        # Where their place is known, before anything else: what they promise is in the file, and stays there.
        before = self._read_cells() if self._where else None
        with one_sentence(self.path, "read the structure"), open_for_reading(self._raw) as file:
            objects = Objects(file)
            self._take(self._read_structure(objects))
            self._place(objects, "store/cells", "store/notes")
            self.cells, notes = before or self._read_cells()
            self.notes, self._names_known = notes or {}, notes is not None
            self._count(objects)
            self.n_states, self._planted = self.cells.committed, None
            for axis, n in ((self.axis, self.n_states), (self.planting_axis, self.cells.plantings)):
                self._check_room(axis, n)
            self.blocks = Blocks(self._raw, self.axis, self.n_states)
            self.planting_blocks = Blocks(self._raw, self.planting_axis, self.cells.plantings)
            # While HDF5 is open: everybody asks for the steps, and few for nothing else.
            names = ["step"] if self.blocks.n_blocks <= _EAGER_BLOCKS else []
            if self.blocks.n_blocks * self.axis.streams[self.stored].n_chunks <= _EAGER_BLOCKS:
                names.append(self.stored)
            self._learn(objects, self.blocks, names)
        self._name_columns()

    def _refuse(self, error: FormatError) -> None:
        """Meet damage that leaves something to read; only a survey goes on."""
        raise error

    def _count(self, objects: Objects) -> None:
        """Mend the count of states where the cells are damaged; only a survey does."""

    def _read_structure(self, objects: Objects) -> Structure:
        """The structure, from the first of its copies that is whole."""
        cause: Exception | None = None
        for name in on_disk.STRUCTURES:
            try:
                text = on_disk.unpack_json(self._read_whole(objects.geometry(name)))
            except UnsafeFileError:
                raise
            except (FormatError, OSError, RuntimeError, KeyError, ValueError) as error:
                cause = error
                continue
            if text is not None:
                return Structure.unpack(text, str(self.path), self._check_version)
        self._check_format(objects)
        reason = "it does not match its checksum" if cause is None else one_line(cause)
        raise FormatError(f"{self.path} is damaged: no copy of its structure can be read ({reason})") from cause

    def _check_format(self, objects: Objects) -> None:
        """Say of a file without a structure that it is none of ours, or of another version."""
        if not h5py.h5a.exists(objects.open(""), b"format") or objects.text("", "format") != on_disk.FORMAT:
            raise FormatError(
                f"{self.path} is an HDF5 file, but not a trajtools one (its attribute 'format' is not 'trajtools'); "
                "`trajtools convert` reads other layouts"
            )
        self._check_version(objects.text("", "format_version"))

    def _place(self, objects: Objects, *names: str) -> None:
        """Learn where datasets are that lie in one piece in the file."""
        sizes, places = {"store/cells": Cells.BYTES, "store/notes": 2 * on_disk.NOTES_BYTES}, {}
        for name in names:
            dataset = objects.geometry(name)
            expected = sizes.get(name) or on_disk.NAME_BYTES * self.axis.streams[f"{name}s"].shape[0]
            offset = dataset.id.get_offset()
            if dataset.chunks is not None or offset is None or dataset.nbytes != expected:
                raise FormatError(f"{dataset.name} must be stored in one piece of {expected} bytes")
            if offset + expected > self._raw.size:
                raise DamagedError(f"{dataset.name} ends beyond the end of the file, which was cut short")
            places[name] = int(offset)
        self._where |= places

    def _read_whole(self, dataset: Geometry) -> bytes:
        """A dataset of bytes in one piece, read past HDF5."""
        offset, size = dataset.id.get_offset(), dataset.nbytes
        if dataset.dtype.str != "|u1" or dataset.chunks is not None or size > on_disk.STRUCTURE_BYTES + 16:
            raise FormatError(f"{dataset.name} must be bytes in one piece, at most {on_disk.STRUCTURE_BYTES}")
        if offset is None or offset + size > self._raw.size:
            raise FormatError(f"{dataset.name} declares {size} bytes, more than the file holds")
        return self._raw.read(offset, size)

    def _check_head(self) -> bool:
        return check_head(self._raw)

    def _check_version(self, version: Any) -> None:
        try:
            major, minor = (int(part) for part in str(version).split("."))
        except ValueError:
            raise FormatError(f"{self.path} has format version {version!r}; needed two numbers such as '2.0'") from None
        if major != on_disk.VERSION[0]:
            raise FormatError(
                f"{self.path} has format version {version}, this trajtools reads version {on_disk.VERSION[0]}.x; "
                f"{'update trajtools' if major > on_disk.VERSION[0] else 'read it with an older trajtools'}"
            )
        self.is_newer = minor > on_disk.VERSION[1]

    def _read_cells(self) -> tuple[Cells, dict[str, Any] | None]:
        """The cells, and the notes that they point at; None where these are damaged."""
        for trial in range(_TRIES):
            cells = Cells.unpack(self._raw.read(self._where["store/cells"], Cells.BYTES))
            notes = None if cells is None else self._read_notes(cells)
            if notes is not None:
                break
            time.sleep(0.001 * 2**trial)  # a writer may be at work
        if cells is None:
            raise DamagedError(
                f"{self.path} is damaged: its count of committed states does not match its checksum; `trajtools repair "
                "--salvage` makes a file of what is whole"
            )
        if min(cells.committed, cells.plantings) < 0 or cells.status not in (0, 1, 2) or cells.notes not in (0, 1):
            raise FormatError(f"{self.path} declares {cells.committed} committed states, status {cells.status}")
        return cells, notes

    def _read_notes(self, cells: Cells) -> dict[str, Any] | None:
        data = self._raw.read(self._where["store/notes"] + (cells.notes & 1) * on_disk.NOTES_BYTES, on_disk.NOTES_BYTES)
        if not cells.committed and not any(data):
            return {}  # no writer came so far
        return on_disk.unpack_notes(data)

    def _take(self, structure: Structure) -> None:
        """Take from the structure what a run shows of it."""
        self.structure, self.texts = structure, structure.texts
        self.name, self.uuid, self.time_unit = (self.texts[name] for name in ("name", "uuid", "time_unit"))
        self.reference = self.texts["reference"] or None
        self.hparams = on_disk.from_json(self.texts["hparams"], f"{self.path}: hparams")
        self.provenance = on_disk.from_json(self.texts["provenance"], f"{self.path}: provenance")
        self.parameters: tuple[Parameter, ...] = structure.tables["parameters"]
        self.optimizer_parameters: tuple[Parameter, ...] = structure.tables["optimizer_parameters"]
        self.buffer_parameters: tuple[Parameter, ...] = structure.tables["buffer_parameters"]
        self.nodes: tuple[NodeSet, ...] = structure.tables["nodes"]
        self.members: tuple[Member, ...] = structure.tables["members"]
        text = self.texts.get("shard")
        self.shard = None if text is None else Shard.from_text(text, str(self.path))
        if self.shard is not None:
            self.shard.check(self.parameters, self.optimizer_parameters, str(self.path))
        self.n_members, self.n_parameters = len(self.members), structure.sizes["weights"]
        self.stored, self.axis, self.planting_axis = structure.stored, structure.axis, structure.planting_axis

    def _check_room(self, axis: Axis, n: int) -> None:
        """Refuse a count beyond what the file can hold before memory is taken: every state takes room."""
        width, blocks = axis.width, -(-n // axis.rows)
        missing = 64 if self.is_cut else 1  # of a file that was cut, the most may be gone
        tables = 8 * on_disk.SLOTS * width * max(1, blocks)
        plain = blocks * sum(s.n_chunks * s.chunk_bytes for s in axis.streams.values() if not (s.filters or s.sparse))
        packed = blocks * sum(s.n_chunks * s.chunk_bytes for s in axis.streams.values() if s.filters)
        if max(tables, plain / missing, packed / missing / on_disk.LARGEST_RATIO) > missing * self._raw.size:
            raise UnsafeFileError(f"{self.path} declares {n} states of {width} chunks in {self._raw.size} bytes")

    def _name_columns(self) -> None:
        """Take the names of the metrics from the notes, which have a checksum."""
        columns, widths = (v if isinstance(v := self.notes.get(name), dict) else {} for name in ("columns", "widths"))
        lists = {name: columns.get(name) for name in ("metrics", "member_metrics")}
        self.column_names = {n: list(map(str, v)) if isinstance(v, list) else [] for n, v in lists.items()}
        self._columns = _group_columns(self.column_names, widths)

    @property
    def _metric_columns(self) -> dict[str, _Columns]:
        if not self._names_known:
            raise DamagedError(
                f"{self.path} is damaged: the notes with the names of its metrics do not match their checksum; the "
                "states can be read"
            )
        return self._columns


class _Columns:
    """Where a metric stands: the numbers of its columns, and whether they are of numbers or of members."""

    def __init__(self, places: list[int], *, numbers: bool, single: bool) -> None:
        self.places, self.numbers, self.single = places, numbers, single


def _group_columns(names: dict[str, list[str]], widths: dict[str, Any]) -> dict[str, _Columns]:
    result = {name: _Columns([at], numbers=True, single=True) for at, name in enumerate(names["metrics"])}
    members = names["member_metrics"]
    grouped: set[str] = set()
    for name, width in widths.items():
        columns = [f"{name}[{k}]" for k in range(width)] if isinstance(width, int) and 0 < width <= len(members) else []
        if columns and set(columns) <= set(members):
            result[name] = _Columns([members.index(c) for c in columns], numbers=False, single=False)
            grouped |= set(columns)
    for at, name in enumerate(members):
        if name not in grouped:
            result[name] = _Columns([at], numbers=False, single=True)
    return result


class Metrics(Mapping[str, NDArray[np.float64]]):
    """The metrics of a run by name, each read when it is used."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name not in self._run._metric_columns:
            raise KeyError(f"run {self._run.name!r} has no metric {name!r}; it has {', '.join(self) or 'none'}")
        return self._run.metric(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._run._metric_columns))

    def __len__(self) -> int:
        return len(self._run._metric_columns)

    def __repr__(self) -> str:
        return f"<metrics {', '.join(self) or 'none'}>"


class StoredArray:
    """A stream (T, M, P) of a run, read when indexed.

    Attributes
    ----------
    shape : tuple of int
        (T, M, P).
    dtype : numpy.dtype
        Of what indexing gives; bfloat16 comes as float32.
    """

    def __init__(self, run: Run, name: str) -> None:
        self._run, self._name = run, name
        stream = run.axis.streams[name]
        self._widened = run.texts.get(f"{name}.logical_dtype") == "bfloat16"
        self.shape: tuple[int, int, int] = (run.n_states, stream.shape[0], stream.shape[1])
        self.dtype: np.dtype[Any] = np.dtype(np.float32) if self._widened else stream.dtype

    @property
    def ndim(self) -> int:
        """Three."""
        return 3

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self._name} of run {self._run.name!r}, shape {self.shape}, {self.dtype}>"

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = list(key) if isinstance(key, tuple) else [key]
        if any(k is Ellipsis for k in keys):
            at = next(i for i, k in enumerate(keys) if k is Ellipsis)
            keys[at : at + 1] = [slice(None)] * (4 - len(keys))
        if len(keys) > 3:
            raise IndexError(f"{len(keys)} indices for an array of 3 axes")
        keys += [slice(None)] * (3 - len(keys))
        chosen: list[Selection] = []
        single = []
        for axis, (k, length) in enumerate(zip(keys, self.shape, strict=True)):
            if isinstance(k, int | np.integer):
                single.append(axis)
            chosen.append(k if isinstance(k, slice) else _positions(k, length))
        result = self.read(*chosen)
        return result[tuple(0 if axis in single else slice(None) for axis in range(3))]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("stored states must be read, which makes a copy")
        size = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        if size > LARGEST_BYTES:
            raise TooLargeError(
                f"all states of run {self._run.name!r} are {size / 2**30:.1f} GiB, more than "
                f"{LARGEST_BYTES // 2**30} GiB; read a part (states[a:b]), or iterate over run.trajectory().blocks()"
            )
        return np.asarray(self.read(), dtype)

    def read(
        self,
        rows: Selection | None = None,
        members: Selection | None = None,
        columns: Selection | None = None,
        *,
        raw: bool = False,
    ) -> NDArray[Any]:
        """Read a rectangle.

        Parameters
        ----------
        rows, members, columns : slice, sequence of int, or None
            Which states, members and entries; None: all.
        raw : bool
            Give bfloat16 as its bits (uint16) instead of float32.

        Returns
        -------
        ndarray, shape (rows, members, columns)

        Raises
        ------
        DamagedError
            If a chunk does not match its checksum; the message names the states.
        IndexError
            If an index is out of range.
        """
        chosen = [indices(k, n) for k, n in zip((rows, members, columns), self.shape, strict=True)]
        result = self._run.rectangle(self._name, *chosen)
        return on_disk.widen(result) if self._widened and not raw else result

    @property
    def chunk(self) -> tuple[int, int]:
        """States and entries of one chunk of the file: rectangles along its edges are read once."""
        stream = self._run.axis.streams[self._name]
        return stream.rows, stream.chunk[1]

    def by_member(self, rows: Selection, members: Selection, columns: Selection) -> NDArray[Any]:
        """Read a rectangle with the members first.

        Parameters
        ----------
        rows, members, columns : slice or sequence of int
            Which states, members and entries.

        Returns
        -------
        ndarray, shape (members, rows, columns)
        """
        chosen = [indices(k, n) for k, n in zip((rows, members, columns), self.shape, strict=True)]
        result = self._run.rectangle(self._name, *chosen, by_member=True)
        return on_disk.widen(result) if self._widened else result

    def pieces(self, rows: slice, members: Sequence[int], columns: slice) -> Iterator[Piece]:
        """Read a rectangle in pieces.

        Parameters
        ----------
        rows : slice
            Which states.
        members : sequence of int
            Which members.
        columns : slice
            Which entries.

        Yields
        ------
        rows, columns : slice
            Place of the piece in the rectangle.
        states : ndarray, shape (members, rows, columns)
            Valid until the next piece, and known to be whole once there is none.
        """
        for here, there, states in self._run.pieces(self._name, rows, np.asarray(members, np.int64), columns):
            yield here, there, on_disk.widen(states) if self._widened else states


def _positions(key: Any, length: int) -> NDArray[np.int64]:
    array = np.atleast_1d(np.asarray(key))
    if array.dtype == bool:
        if array.shape != (length,):
            raise IndexError(f"a mask of shape {array.shape} for an axis of {length}")
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise IndexError(f"states are indexed by integers, slices, lists of integers or masks, not by {key!r}")
    return array.astype(np.int64)


class StoredStates:
    """The states of one member, as a source for `Trajectory`; pickles as path and member, opens the file when read.

    Attributes
    ----------
    path : Path
        The file.
    member : int
        Index of the member.
    stream : str
        ``"weights"``, or ``"optimizer"`` for its buffers.
    shape : tuple of int
        (T, P).
    dtype : numpy.dtype
        Of what `read` gives.
    chunk : tuple of int
        States and entries of one chunk of the file.
    """

    def __init__(self, run: Run, member: int, stream: str = "weights") -> None:
        self.path, self.member, self.stream = run.path, member, stream
        self._origin: tuple[type[Run], Any] = run.origin
        self._array = StoredArray(run, stream)
        self.shape: tuple[int, int] = (self._array.shape[0], self._array.shape[2])
        self.dtype, self.chunk = self._array.dtype, self._array.chunk

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (*self._origin, self.member, self.stream, self.shape[0]))

    def __repr__(self) -> str:
        return f"<member {self.member} of {str(self.path)!r}, shape {self.shape}>"

    def read(self, rows: slice | NDArray[Any], columns: slice | NDArray[Any] | None = None) -> NDArray[Any]:
        """Read states."""
        return self._array.read(rows, slice(self.member, self.member + 1), columns)[:, 0]


# Tasks of one process that read the same file share what they know of it.
_OPENED: weakref.WeakValueDictionary[tuple[Any, int, int], Run] = weakref.WeakValueDictionary()


def _reopen(opener: type[Run], where: Any, member: int, stream: str, n_states: int) -> StoredStates:
    key = (where, os.getpid(), n_states)
    run = _OPENED.get(key)
    if run is None:
        run = _OPENED[key] = opener(where)
        if run.n_states < n_states:
            raise FormatError(f"{run.path} holds {run.n_states} states, it held {n_states}; it was replaced meanwhile")
        run._show(n_states)
    return StoredStates(run, member, stream)
