"""Writing a run: claim the file, add the metrics, append whole blocks under SWMR, commit, close.

The structure changes only in all-or-nothing transactions; between them data are only appended, and `committed` is
written last. So a process killed anywhere leaves every committed state and every other run of the file as they were.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from trajtools.errors import RecordingError
from trajtools.store import structure, takeover, transaction
from trajtools.store.cells import Cells
from trajtools.store.dtypes import stored_dtype
from trajtools.store.geometry import StreamLayout
from trajtools.store.h5 import one_line
from trajtools.store.handles import release
from trajtools.store.incoming import Array, Block
from trajtools.store.resuming import Tail, prepare
from trajtools.store.streams import RunStreams
from trajtools.store.structure import RunSpec
from trajtools.wiring import Member, NodeSet, Parameter


class RunWriter:
    """The writer of one run; made by `create` or `resume`, closed by `close` or `abort`.

    Attributes
    ----------
    path : Path
        The file.
    run : str
        Name of the run.
    layout : StreamLayout
        Geometry of the states; `layout.rows` states make a block, whatever is stored.
    optimizer_layout : StreamLayout or None
        Geometry of the optimiser's buffers.
    committed : int
        States that are whole on disk.
    last_step : int
        Step of the last committed state; -1 before the first.
    metrics : dict of str to tuple of int, or None
        Shape of each metric for one state; None before `begin`.
    tail : Tail or None
        After `resume`: the last block as far as it was committed, if it was not full, so that it is completed in place.
    filtered : bool
        The states are compressed: a block is written whole, and a partial one only at the end.
    """

    def __init__(self, path: Path, run: str, spec: RunSpec, *, durable: bool) -> None:
        self.path, self.run = path, run
        self.layout: StreamLayout = spec.layout
        self.optimizer_layout: StreamLayout | None = spec.optimizer_layout
        self.committed, self.last_step = 0, -1
        self.metrics: dict[str, tuple[int, ...]] | None = None
        self.tail: Tail | None = None
        self.filtered = spec.compress is not None
        self._spec, self._durable, self._pid = spec, durable, os.getpid()
        self._cells: Cells | None = None
        self._streams: RunStreams | None = None
        self._before_block = -1  # step of the state before the last block
        self._ended = ""
        self._places = (0, 0, 0.0)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        run: str,
        *,
        parameters: Sequence[Parameter],
        nodes: Sequence[NodeSet],
        members: Sequence[Member],
        dtype: object,
        stored: str = "weights",
        mode: str = "x",
        time_unit: str = "step",
        hparams: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        reference: str | None = None,
        compress: str | None = None,
        durable: bool = False,
        sketch: Mapping[str, Any] | None = None,
        distance_metric: str | None = None,
        optimizer: Mapping[str, Any] | None = None,
    ) -> RunWriter:
        """Claim the path at once and make the run in it."""
        structure.check_name(run, "run")
        if mode not in ("x", "a"):
            raise ValueError(f"mode={mode!r}: needed 'x' (a new file) or 'a' (a new run in a file)")
        spec = RunSpec(
            parameters=tuple(parameters),
            nodes=tuple(nodes),
            members=tuple(members),
            dtype=stored_dtype(dtype)[0],
            stored=stored,
            time_unit=time_unit,
            hparams=hparams or {},
            provenance=provenance or {},
            reference=reference,
            compress=compress,
            sketch=sketch,
            distance_metric=distance_metric,
            optimizer_parameters=tuple(optimizer["parameters"]) if optimizer else (),
            optimizer_dtype=stored_dtype(optimizer["dtype"])[0] if optimizer else "",
        )
        writer = cls(Path(os.path.abspath(path)), run, spec, durable=durable)
        if mode == "x" or not writer.path.exists():
            writer._create_file()
        else:
            transaction.recover(writer.path)
            structure.require_ours(writer.path)
            writer._change(writer._add_run)
        return writer

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        run: str,
        *,
        parameters: Sequence[Parameter],
        members: Sequence[Member],
        dtype: object,
        stored: str = "weights",
        sketch: Mapping[str, Any] | None = None,
        distance_metric: str | None = None,
        optimizer: Mapping[str, Any] | None = None,
        durable: bool = False,
        provenance: Mapping[str, Any] | None = None,
    ) -> RunWriter:
        """Go on with a run whose writer closed it or died; nothing that was committed is dropped."""
        spec = RunSpec(
            parameters=tuple(parameters),
            nodes=(),
            members=tuple(members),
            dtype=stored_dtype(dtype)[0],
            stored=stored,
            sketch=sketch,
            distance_metric=distance_metric,
            optimizer_parameters=tuple(optimizer["parameters"]) if optimizer else (),
            optimizer_dtype=stored_dtype(optimizer["dtype"])[0] if optimizer else "",
        )
        writer = cls(Path(os.path.abspath(path)), run, spec, durable=durable)
        transaction.recover(writer.path)
        structure.require_ours(writer.path)
        found = prepare(writer.path, run, spec)
        writer.layout, writer.optimizer_layout = found.layout, found.optimizer_layout
        writer.committed, writer.last_step, writer.metrics = found.committed, found.last_step, found.metrics
        writer.tail, writer._before_block, writer.filtered = found.tail, found.before_block, found.filtered

        def edit(file: h5py.File) -> None:
            writer._places = takeover.take_over(file, writer.path, run, provenance)

        writer._change(edit)
        return writer

    def begin(self, metrics: Mapping[str, Sequence[int]] | None = None) -> None:
        """Fix the metrics and open the file for appending; called once, before the first `write`."""
        self._require_open()
        if self._streams is not None:
            raise RecordingError(f"run {self.run!r} has already begun; its metrics are fixed")
        shapes = structure.check_metrics(metrics or {}, len(self._spec.members))
        if self.metrics is not None:
            if metrics is not None and shapes != self.metrics:
                raise RecordingError(
                    f"run {self.run!r} records the metrics {self.metrics}, not {shapes}; names and shapes are fixed at "
                    "the first record. Record the same ones, or start a new run."
                )
        else:
            if shapes:
                self._change(lambda file: structure.add_metrics(file["runs"][self.run], shapes))
            self.metrics = shapes
        try:
            release(self.path)
            self._streams = RunStreams(self.path, self.run, self.layout, self.optimizer_layout)
        except OSError as error:
            raise self._fail(error) from error

    def write(
        self,
        start: int,
        count: int,
        *,
        step: Array,
        metrics: Mapping[str, Array] | None = None,
        tiles: Array | None = None,
        optimizer_tiles: Array | None = None,
        distances: Array | None = None,
        sketch: Array | None = None,
        final: bool = False,
    ) -> None:
        """Write one block, whole or as far as it goes, and commit it."""
        streams, cells = self._require_begun(), self._require_cells()
        steps = np.asarray(step, np.int64)
        block = Block(start, count, steps, metrics or {}, tiles, optimizer_tiles, distances, sketch, final)
        before = self.last_step if start >= self.committed else self._before_block
        block.check_place(self.layout.rows, self.committed, before, whole=self.filtered)
        block.check_tiles(self.layout if streams.has_weights else None, self.optimizer_layout)
        series = block.series(streams.shapes)
        try:
            cells.check()
            streams.append(block, series)
            if self._durable:
                cells.sync()
            cells.commit(start + count)
            if self._durable:
                cells.sync()
        except (OSError, RuntimeError) as error:
            raise self._fail(error) from error
        self._before_block = before
        self.committed, self.last_step = start + count, int(steps[-1])

    def beat(self) -> None:
        """Say that the recorder lives; call it every few seconds, from any thread."""
        if self._cells is not None and not self._ended and os.getpid() == self._pid:
            self._cells.beat()

    def close(self, status: str = "complete", overhead: Mapping[str, Any] | None = None) -> None:
        """Finish the run; every write after this is refused. A second call does nothing."""
        if self._ended or os.getpid() != self._pid:
            return
        if status not in ("complete", "interrupted"):
            raise ValueError(f"status={status!r}: needed 'complete' or 'interrupted'")
        cells = self._require_cells()
        try:
            cells.check()
            if self._streams is not None:
                self._streams.close()
                self._streams = None
            self._change(lambda file: structure.finish(file["runs"][self.run], status, overhead))
        except (OSError, RuntimeError) as error:
            raise self._fail(error) from error
        self._ended = "closed"
        cells.close()

    def abort(self) -> None:
        """Leave the file as it is on disk, every committed state valid, and give the run up as interrupted."""
        if self._ended or os.getpid() != self._pid:
            return
        self._ended = "aborted"
        if self._streams is not None:
            self._streams.detach()
            self._streams = None
        if self._cells is not None:
            with contextlib.suppress(OSError):
                self._cells.give_up()
            self._cells.close()

    def _create_file(self) -> None:
        def fill(file: h5py.File) -> None:
            structure.mark_file(file)
            self._add_run(file)

        try:
            transaction.create(self.path, fill, durable=self._durable)
        except FileExistsError:
            raise FileExistsError(
                f"{self.path} exists and is never overwritten. Choose another path, add a run to it with mode='a', "
                "or continue its run with resume=True."
            ) from None
        self._open_cells()

    def _add_run(self, file: h5py.File) -> None:
        self._places = takeover.add_run(file, self.path, self.run, self._spec)

    def _change(self, edit: Callable[[h5py.File], None]) -> None:
        transaction.change(self.path, edit, durable=self._durable)
        self._open_cells()

    def _open_cells(self) -> None:
        if self._cells is None:
            self._cells = Cells(self.path, *self._places)

    def _fail(self, error: BaseException) -> RecordingError:
        self.abort()
        if isinstance(error, RecordingError):
            return error
        return RecordingError(
            f"recording into {self.path} stopped: {one_line(error)}. The {self.committed} states committed before are "
            "safe; free some space or choose another disk, then continue with resume=True."
        )

    def _require_open(self) -> None:
        if os.getpid() != self._pid:
            raise RecordingError("a recorder belongs to the process that opened it; open another file in this one")
        if self._ended:
            raise RecordingError(f"the recording into {self.path} is {self._ended}; open a new one, or resume=True")

    def _require_begun(self) -> RunStreams:
        self._require_open()
        if self._streams is None:
            raise RecordingError("begin() fixes the metrics and must come before the first write")
        return self._streams

    def _require_cells(self) -> Cells:
        if self._cells is None:
            raise RecordingError("the run was not made")
        return self._cells
