"""The recorder for any framework, and the policies that choose which steps it stores.

How a framework's adapter reads its states stands at the top of `recorders.adapter`.
"""

from __future__ import annotations

import logging
import operator
import os
import time
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsIndex

import numpy as np

from recorders.adapter import Adapter, Pending, Structure
from recorders.background import Pace, Tape
from recorders.live import Line, over_threshold
from recorders.opening import Forecast, Opening, member_table
from recorders.planting import Planting
from recorders.storage import Sketch
from trajtools.errors import ArchitectureError, RecordingError
from trajtools.store import digest
from trajtools.wiring import Member, listed
from trajtools.wording import counted

_log = logging.getLogger("recorders")


class Recorder(Adapter):
    """Records the states of a training, given as {name: array} by any loop.

    Parameters
    ----------
    path : path-like
        The HDF5 file.
    state : mapping of str to ndarray, or list of them
        The parameters at opening, real floating-point arrays; it is recorded at once, as step 0. A list records its
        networks as members of one run; `Twin` among them are entered as perturbed copies of the network before them.
        With `members` and one mapping, every array has a leading member axis.
    name : str
        Name of the run; that of the file if not given.
    mode : {"x", "next", "w"}
        "x": the file must not exist; "next": the next free name is taken (run.h5, run-2.h5, ...); "w": the file is
        overwritten, unless somebody is writing it.
    resume : bool
        Continue the run if the file exists, else begin it as `mode` says. See Notes.
    strict : bool
        Raise when the file cannot be written any more (full disk, file replaced, removed or moved). Otherwise that is
        one `RecordingWarning`, and the training goes on without being recorded. Likewise metrics that are no numbers.
    hparams, provenance : mapping, optional
        Kept as JSON; software, command, machine and start time are added to the provenance.
    reference : str, optional
        Name of the run that this one is a perturbed copy of.
    members : int or list of Member, optional
        See `state`; names, references, perturbations and noise of the members.
    every : int, LogSpaced, AtSteps or callable
        Which steps are stored: multiples, log-spaced, listed, or where ``every(step)`` is true.
    include, exclude : str or sequence of str
        Globs of parameter names; what `include` matches (nothing given: all) without what `exclude` matches.
    store : {"weights", "distances", "sketch"}
        What is kept of a state: every entry; only the distance of each twin to its reference; a `Sketch`.
    metric : {"l1", "l2", "linf", "rms"}
        For ``store="distances"``.
    sketch : Sketch, optional
        For ``store="sketch"``; 1024 numbers and seed 0 if not given.
    buffers : mapping of str to ndarray, or list of them, optional
        What the optimiser keeps beside the weights at opening (momenta, second moments, ...; zeros before the first
        step), in the form of `state`; recorded with every state from then on, for ``store="weights"``. Best named after
        the parameters: ``"W1.momentum"``. The weights alone do not say where a training with such buffers goes next.
    plantings : sequence of Planting, optional
        How the copies stand beside their references in the state at opening, as `plant` takes it; `Twins` say it by
        themselves.
    metrics : names, or mapping of name to shape, optional
        Metrics to come, so that the file has room for more than 32 (and 8 per member). Shapes are those of one state:
        () for a number, (M,) or (M, k) per member.
    kinds, axes, wiring : optional
        What names and shapes do not tell about the parameters, see `trajtools.wiring.describe`.
    compress : {None, "zstd", "gzip"}
        Filter of the weights. Filtered chunks are written whole only: the last states of a killed process, up to one
        block, are then lost.
    durable : bool
        Survive a crash of the machine as well, not only of the process: fsync at every flush.
    on_full : {"block", "skip", "error"}
        What happens when the disk is slower than the training and all buffers are full: the loop waits; states are
        left out, to be seen in ``step`` and in `n_skipped`; an error.
    buffer_bytes : int
        Memory for blocks; two (of 64 states, at most 64 MiB of weights or one state each) are the least, and no more
        than `flush_bytes` beyond them are used.
    flush_seconds, flush_bytes : float, int
        A state is committed at most so long after it was recorded, and at most so many bytes, or two blocks, wait to
        be written (a filtered file waits for whole blocks, and a slow disk takes its time).
    writer : {"auto", "thread", "direct"}
        Who writes full blocks: a thread, or the loop itself. "auto": a thread where a core is free.
    expected_steps : int, optional
        Length of the training, for the forecast.
    step : int, optional
        Step of the state at opening, 0 if not given (for resumed runs see Notes). Trainers know it.
    quiet : bool
        Do not log the forecast, nor what is in the file at the end; what is missing is logged.
    progress : bool
        Follow the training in one line on stderr: the step and `live`.

    Raises
    ------
    RecordingError
        If an argument or an array cannot be recorded, the disk is too small for a run of known length, or the training
        does not continue the run that is resumed.
    ArchitectureError
        If members differ, or the run that goes on has another architecture.
    SelectionError
        If a glob, or a name in `kinds`, `axes` or `wiring`, matches no parameter.
    FileExistsError, FileBusyError
        If the path is taken.

    Notes
    -----
    The recorder draws no random number, writes to no array of the user's, and keeps none.

    Step s is the state after s updates. Metrics belong to the newest state; those of states that `every` leaves out are
    not stored. A metric may come at any time; where it is not given it is NaN, and its first value fixes its shape.
    Metrics for which the file has no room are one `RecordingWarning`, and go to ``<path>.metrics.jsonl`` beside it.

    A resumed run goes on from its last step L, or from an earlier one that the training went back to: from `step`, or
    without it from the newest stored state that equals the state at opening, bit for bit; where none does, that state
    is stored as L + 1. The states after the one that the training goes on from leave the file, because the training
    computes these steps again, perhaps on other batches; the run as it was is copied beside it, to
    ``<name>.until-<last step>.h5``, and the log and the provenance say so. A training
    that is at a step of the file in another state, or begins again at step 0, is refused, and the file stays as it is.

    A recorder that is never closed is closed when it is collected or at exit; its run is then marked as interrupted.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> folder = tempfile.TemporaryDirectory()
    >>> w = {"w": np.ones((2, 3))}
    >>> with Recorder(pathlib.Path(folder.name) / "run.h5", w) as rec:
    ...     for _ in range(10):
    ...         rec.record(w, loss=float((w["w"] ** 2).sum()))
    ...         w["w"] = 0.9 * w["w"]
    >>> rec.step, rec.n_recorded
    (9, 10)
    >>> folder.cleanup()
    """

    _twins: Any = None  # whose numbers are live

    def __init__(
        self,
        path: str | os.PathLike[str],
        state: Any,
        *,
        name: str = "",
        mode: str = "x",
        resume: bool = False,
        strict: bool = False,
        hparams: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        reference: str | None = None,
        members: int | Sequence[Member] | None = None,
        every: SupportsIndex | LogSpaced | AtSteps | Callable[[int], bool] = 1,
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        store: str = "weights",
        metric: str = "l1",
        sketch: Sketch | None = None,
        buffers: Any = None,
        plantings: Sequence[Planting] = (),
        metrics: Mapping[str, tuple[int, ...]] | Iterable[str] | None = None,
        kinds: Mapping[str, str] | None = None,
        axes: Mapping[str, tuple[int, int]] | None = None,
        wiring: Any = None,
        compress: str | None = None,
        durable: bool = False,
        on_full: str = "block",
        buffer_bytes: int = 256 * 2**20,
        flush_seconds: float = 5.0,
        flush_bytes: int = 64 * 2**20,
        writer: str = "auto",
        expected_steps: int | None = None,
        step: int | None = None,
        quiet: bool = False,
        progress: bool = False,
    ) -> None:
        self._numbers: dict[str, float] = {}
        self._line = Line() if progress else None
        self._every, self._quiet = policy(every), quiet
        mappings = self._named(state)
        table, stacked = member_table(mappings, members)
        self._structure = Structure.of(
            mappings, n_members=len(table), stacked=stacked, include=include, exclude=exclude
        )
        self._buffers = self._structure_of_buffers([] if buffers is None else self._named_buffers(buffers))
        self._own = self._structure_of_buffers(self._named_own(state))
        self._store, self.metric = store, metric
        opening = Opening(
            path=path,
            name=name,
            strict=strict,
            structure=self._structure,
            members=table,
            named=members is not None or any(m.reference >= 0 for m in table),
            mode=mode,
            resume=resume,
            stored=store,
            metric=metric,
            sketch=sketch,
            compress=compress,
            durable=durable,
            buffers=self._buffers,
            model_buffers=self._own,
            shards=self._shards,
        )
        opening.replanted = bool(plantings)
        opening.describe(kinds, axes, wiring)
        self.forecast: Forecast = opening.forecast(self._every.count(expected_steps))
        if not quiet:
            _log.info("%s: %s", os.fspath(path), self.forecast.summary)
        pace = Pace.settle(
            writer=writer,
            busy_cores=self._busy_cores(),
            on_full=on_full,
            block_bytes=opening.block_bytes,
            buffer_bytes=buffer_bytes,
            flush_seconds=flush_seconds,
            flush_bytes=flush_bytes,
            partial=compress is None,
        )
        settings = {"every": policy_settings(self._every), "store": store, "include": include, "exclude": exclude}
        self._tape: Tape = opening.open(
            metrics=metrics,
            pace=pace,
            settings=settings,
            hparams=hparams,
            user_provenance=provenance,
            framework=self._origin,
            reference=reference,
            mappings=mappings,
            step=step,
            read=lambda: self._at_opening(state, buffers),
        )
        self.path, self._name, self._uuid = Path(opening.path), opening.name or Path(opening.path).stem, opening.uuid
        self._finalizer = weakref.finalize(self, Tape.finish, self._tape)
        self._stored, self._before = False, opening.committed
        self._passed = opening.last_step  # states up to here are in the file already
        self._plantings: list[Planting] = []  # that wait for their state
        try:
            self._open_with(self._beside(state, buffers), opening, step, plantings)
        except BaseException:
            Recorder.close(self, status="interrupted")  # an adapter is not whole yet
            raise

    def _open_with(self, state: Any, opening: Opening, step: int | None, plantings: Sequence[Planting]) -> None:
        """Record the state at opening, or find it in the run that goes on."""
        arrays = _waited(self._read(state))
        now = opening.first_step
        self._steps = Steps(self._every, now, arrays)
        # A state that is in the file says who was planted in it.
        self.plant([] if opening.is_known else [planting._replace(step=now) for planting in plantings])
        if now == self._passed:
            self._stored = opening.tail_open
        elif step is None or not opening.committed or self._steps.wanted(now):
            stored = _waited(self._arrays(state)) if self._store == "distances" else arrays
            self._stored = self._tape.append(now, _same, stored, None, self._plantings_until(now))
            self._plantings = []

    def _at_opening(self, state: Any, buffers: Any) -> list[np.ndarray]:
        """What is stored of the state at opening."""
        return _waited(self._arrays(self._beside(state, buffers)))

    # --------------------------------------------------------------------------------------------- what the user calls

    def record(self, state: Any = None, *, step: int | None = None, buffers: Any = None, **metrics: Any) -> None:
        """Record a state, metrics of the newest state, or both.

        Parameters
        ----------
        state : as at opening, optional
            The next state. The first one that equals the state at opening, bit for bit, is that state, so that loops
            may record before or after the update. An update that changes nothing (a warm-up from 0) counts where it
            can be seen: torch counts writes, JAX makes new arrays. In other loops, call `advance` after an update.
        step : int, optional
            Its step; one more than the last if not given. The step of the newest state adds metrics only.
        buffers : as at opening, optional
            Of this state; with every state if the recorder was opened with buffers, else with none.
        **metrics : float, 0-d array, or array (M,) or (M, k)
            Of the state that they were computed from: the newest. What comes more than once for a state, as from
            accumulated micro-batches, is averaged.

        Warns
        -----
        RecordingWarning
            If the state differs in names, shapes or dtypes from the first one: recording ends here, the training goes
            on. `strict` recorders raise ArchitectureError. If a metric is no number, has another shape than before or
            cannot be named: the state is recorded without it. `strict` recorders raise RecordingError.

        Raises
        ------
        RecordingError
            If the recorder is closed, steps go back, or buffers are missing; if it is `strict`, also where its writer
            has failed or a metric cannot be recorded.
        """
        began = time.perf_counter()
        tape = self._tape
        if tape.dead and not tape.check():
            return
        values = tape.numbers(metrics) if metrics else metrics
        if state is not None:
            try:
                self._place(self._beside(state, buffers), step, values)
            except ArchitectureError as error:
                tape.stop(str(error), error)
        elif buffers is not None:
            raise RecordingError("buffers= without a state: pass the state that they belong to")
        elif step is not None and operator.index(step) != self.step:
            raise RecordingError(f"record(step={step}) without a state: the newest state is that of step {self.step}")
        else:
            self._note(values)
        tape.meter.record_seconds += time.perf_counter() - began

    def advance(self, state: Any, step: int | None = None, buffers: Any = None) -> None:
        """Say that an update was made; the state is stored if `every` says so. Optimiser hooks call this.

        Parameters
        ----------
        state : as at opening
            The state after the update.
        step : int, optional
            Its step; one more than the last if not given.
        buffers : as at opening, optional
            As for `record`.

        Raises
        ------
        RecordingError
            As `record` does.
        """
        began = time.perf_counter()
        if not self._tape.check():
            return
        self._steps.fresh = False
        step = self.step + 1 if step is None else self._steps.check(step)
        try:
            self._take(self._arrays, self._beside(state, buffers), step)
        except ArchitectureError as error:
            self._tape.stop(str(error), error)
        self._tape.meter.record_seconds += time.perf_counter() - began

    def plant(self, plantings: Iterable[Planting]) -> None:
        """Say that members were placed anew beside their references; `Twins` do so by themselves.

        Parameters
        ----------
        plantings : iterable of Planting
            Each with the step of the first state that shows it, which is not recorded yet. They are committed with that
            state, or with the first one after it that is stored.
        """
        self._plantings += plantings

    def record_block(
        self, states: Any, step: int | Sequence[int] | None = None, *, buffers: Any = None, **metrics: Any
    ) -> None:
        """Record k consecutive states at once.

        Parameters
        ----------
        states : as at opening
            Every array with a leading axis of k states (before the member axis, if there is one).
        step : int or sequence of int, optional
            Step of the first state, or of each; one more than the last if not given. As for `record`, a first state
            that equals the state at opening is that state.
        buffers : as at opening, optional
            Of each state, with the same leading axis; as for `record`.
        **metrics : array (k,), (k, M) or (k, M, j)
            Metrics of each state.

        Raises
        ------
        RecordingError
            As `record` does.
        """
        began = time.perf_counter()
        if not self._tape.check():
            return
        try:
            self._record_states(states, step, buffers, metrics)
            self._end_block(states)
        except ArchitectureError as error:
            self._tape.stop(str(error), error)
        self._tape.meter.record_seconds += time.perf_counter() - began

    def _record_states(self, states: Any, step: Any, buffers: Any, metrics: Mapping[str, Any]) -> None:
        mappings = self._named(states)
        shape = tuple(getattr(mappings[0].get(self.names[0]), "shape", ()))
        if not shape:
            raise ArchitectureError(f"{self.names[0]!r} needs a leading axis over the states of the block")
        blocks = _waited(self._host(self._checked(self._beside(states, buffers), shape[:1])))
        values = self._tape.numbers(metrics, lead=shape[:1])
        for i, at in enumerate(self._steps.of_block(blocks, shape[0], step)):
            metrics_at = {name: value[i] for name, value in values.items()}
            if at == self.step:
                self._note(metrics_at)
            else:
                self._take(_same, [block[i] for block in blocks], at, metrics_at)

    def _end_block(self, states: Any) -> None:
        """Called after `record_block`, for adapters that recognise states later."""

    def _place(self, state: Any, step: int | None, values: Mapping[str, Any]) -> None:
        """Number a state, and take it unless it is the newest already."""
        steps = self._steps
        if step is not None:
            at = steps.check(step)
        else:
            is_opening = steps.fresh and self._is_untouched(state) and steps.is_opening(_waited(self._read(state)))
            steps.fresh = False
            at = steps.now if is_opening else steps.now + 1
        if at == steps.now:
            self._note(values)
        else:
            self._take(self._arrays, state, at, values)

    def _note(self, values: Mapping[str, Any]) -> None:
        if values:
            self._keep_numbers(values)
            self._tape.note(values, self._stored)

    def _keep_numbers(self, values: Mapping[str, Any]) -> None:
        """Keep numbers for `live`: those of the first member where there are several."""
        for name, value in values.items():
            if type(value) is float:
                self._numbers[name] = value
            elif np.ndim(value) < 2:
                self._numbers[name] = float(value if np.ndim(value) == 0 else value[0])

    def _take(
        self,
        read: Callable[[Any], list[np.ndarray] | Pending],
        state: Any,
        step: int,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """A new state: store it if it is wanted."""
        planted = self._plantings_until(step) if self._plantings else ()
        self._stored = self._steps.wanted(step) and self._tape.append(step, read, state, values, planted)
        if planted and self._stored:
            self._plantings = [planting for planting in self._plantings if planting.step > step]
        self._steps.now = step
        if values:
            self._keep_numbers(values)
        if values and not self._stored:
            self._tape.note(values, False)  # nothing to keep, but their names count
        if self._line is not None and self._line.is_due():
            self._line.write(step, self.live)

    def _plantings_until(self, step: int) -> list[Planting]:
        """The last planting of each member that waits for this state.

        A resumed run keeps the states that it has: what was planted in one of them is first seen in the next one, at a
        distance that nobody measured.
        """
        due = {planting.member: planting for planting in self._plantings if planting.step <= step}
        return [p if p.step > self._passed else p._replace(step=step, norm=float("nan")) for p in due.values()]

    def _takes_plantings(self, step: int) -> bool:
        """Whether copies may be planted in the state of a step: it is stored, and at the even spacing of curves."""
        return self._tape.dead or (isinstance(self._every, Every) and self._steps.wanted(step))

    # ------------------------------------------------------------------------------------------------- what it knows

    def __repr__(self) -> str:
        kind = type(self).__name__.lstrip("_")
        if not hasattr(self, "_steps"):
            return f"<{kind}, not open>"
        status = "recording" if self._tape.is_open and not self._tape.dead else self._tape.outcome
        stored = f"{counted(self.n_recorded, 'state')} up to step {self.step}"
        return f"<{kind} of run {self._name!r} to {str(self.path)!r}: {stored}, {status}>"

    @property
    def step(self) -> int:
        """Step of the newest state, stored or not."""
        return self._steps.now

    @property
    def n_recorded(self) -> int:
        """Number of states in the run, those before it was resumed included."""
        return self._before + self._tape.meter.states

    @property
    def n_skipped(self) -> int:
        """Number of states left out because no buffer was free."""
        return self._tape.meter.skipped

    @property
    def live(self) -> dict[str, float]:
        """Newest numbers, to watch a training by: metrics (of the first member), and the growth of twins.

        A curvature (``h_max_batch``, ``shadow_h_max_batch``, ...) comes with its ratio to the threshold of the
        optimiser where that is known, ``h_max_batch_over_threshold``: 1 is the edge of stability.
        `recorders.live.Growth` defines the numbers of twins; each look costs one pass over their weights.
        """
        growth = {} if self._twins is None else self._twins.live
        return {**self._numbers, **over_threshold(self._numbers, self._thresholds()), **growth}

    def _thresholds(self) -> Mapping[str, float]:
        """Largest curvatures at which the optimiser is stable, by the beginning of their names, where known."""
        return {}

    @property
    def overhead(self) -> dict[str, float | int]:
        """What recording cost so far: seconds in all, in record, blocked; states, skipped, bytes."""
        return self._tape.meter.as_dict()

    def flush(self) -> None:
        """Wait until the states so far are in the file, for instance where a checkpoint is saved.

        Notes
        -----
        Otherwise a run whose process is killed is up to ``flush_seconds`` behind it. An error of writing is reported by
        the next call of `record`. Compressed files take whole chunks only.
        """
        self._tape.flush()

    def close(self, status: str = "complete") -> None:
        """Write what is left and close the file; a second call does nothing.

        Parameters
        ----------
        status : {"complete", "interrupted"}
            What the file says of the run.

        Raises
        ------
        RecordingError
            If the last states could not be written, and the recorder is `strict`.
        """
        self._finalizer.detach()
        line, self._line = self._line, None
        if line is not None:
            line.write(self.step, self.live, last=True)
        was_open = self._tape.is_open
        self._tape.close(status)
        if was_open:
            self._sum_up()

    def _sum_up(self) -> None:
        """Log what is in the file; a warning if something is missing."""
        tape = self._tape
        skipped = [f"{self.n_skipped} states that the disk was too slow for"] if self.n_skipped else []
        metrics = [f"the metrics {listed(tape.unstored)}"] if tape.unstored else []
        missing = "; ".join([*tape.remarks, *skipped, *metrics])
        text = f"{self.path}: {counted(self.n_recorded, 'state')} up to step {self.step}, {tape.outcome}"
        if missing:
            _log.warning("%s. Missing: %s", text, missing)
        elif not self._quiet:
            _log.info("%s", text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        self._tape.ended = self._tape.ended or in_words(error)
        try:
            self.close(status="interrupted")
        except RecordingError as second:
            error.add_note(f"and while the recording was saved: {second}")


def in_words(error: BaseException) -> str:
    """An exception, as a run that it interrupted names it."""
    return f"{type(error).__name__}: {text}" if (text := " ".join(str(error).split())) else type(error).__name__


def _same(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return arrays


def _waited(arrays: list[np.ndarray] | Pending) -> list[np.ndarray]:
    if isinstance(arrays, Pending):
        arrays.wait()
        return arrays.arrays
    return arrays


@dataclass(frozen=True)
class LogSpaced:
    """Step 0, then about `per_decade` steps per factor of ten, rounded to integers, each once.

    The steps are ``round(10 ** (j / per_decade))`` for j = 0, 1, 2, ...

    Attributes
    ----------
    per_decade : int
        Stored steps per factor of ten, at least 1. Small steps coincide after rounding, so there are fewer below 10.

    Examples
    --------
    >>> from recorders import LogSpaced
    >>> policy = LogSpaced(per_decade=3)
    >>> [step for step in range(101) if policy(step)]
    [0, 1, 2, 5, 10, 22, 46, 100]
    """

    per_decade: int = 10

    def __post_init__(self) -> None:
        if self.per_decade < 1:
            raise RecordingError(f"LogSpaced({self.per_decade}): steps per decade must be at least 1")

    def _at(self, j: int) -> int:
        return round(10 ** (j / self.per_decade))

    def __call__(self, step: int) -> bool:
        """Say whether the state of a step is stored."""
        if step == 0:
            return True
        # The index of `step` on the grid, by integers only near the answer: exact for every step below 10 ** 15.
        j = bisect_right(range(16 * self.per_decade), step, key=self._at)
        return j > 0 and self._at(j - 1) == step

    def count(self, last: int | None) -> int | None:
        """Count the stored steps of a training.

        Parameters
        ----------
        last : int or None
            Last step of the training; None where it has no known end.

        Returns
        -------
        int or None
            Number of stored steps in 0 .. `last`; None where there is no end.
        """
        if last is None:
            return None
        steps = {self._at(j) for j in range(bisect_right(range(16 * self.per_decade), last, key=self._at))}
        return 1 + len(steps)


@dataclass(frozen=True, init=False)
class AtSteps:
    """The listed steps, and step 0, which every recorder stores when it opens.

    Attributes
    ----------
    steps : tuple of int
        Sorted, each once.

    Examples
    --------
    >>> from recorders import AtSteps
    >>> policy = AtSteps([10, 100])
    >>> [step for step in range(200) if policy(step)]
    [0, 10, 100]
    """

    steps: tuple[int, ...]

    def __init__(self, steps: Iterable[int]) -> None:
        listed = sorted({operator.index(step) for step in steps})
        if listed and listed[0] < 0:
            raise RecordingError(f"AtSteps: step {listed[0]} is negative; steps count optimiser updates from 0")
        object.__setattr__(self, "steps", tuple(listed))
        object.__setattr__(self, "_set", frozenset(listed))

    def __call__(self, step: int) -> bool:
        """Say whether the state of a step is stored."""
        return step == 0 or step in self._set  # type: ignore[attr-defined]

    def count(self, last: int | None) -> int | None:
        """Count the stored steps of a training.

        Parameters
        ----------
        last : int or None
            Last step of the training; None where it has no known end.

        Returns
        -------
        int
            Number of stored steps in 0 .. `last`, or of all that are listed.
        """
        return len({0, *(s for s in self.steps if last is None or s <= last)})


@dataclass(frozen=True)
class Every:
    """Steps 0, k, 2k, ...

    Attributes
    ----------
    k : int
        Distance between stored steps, at least 1.
    """

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise RecordingError(f"every={self.k}: states are stored every k-th step, k must be at least 1")

    def __call__(self, step: int) -> bool:
        """Say whether the state of a step is stored."""
        return step % self.k == 0

    def count(self, last: int | None) -> int | None:
        """Count the stored steps of a training."""
        return None if last is None else last // self.k + 1


@dataclass(frozen=True)
class Chosen:
    """The steps that a function of the step number chooses.

    Attributes
    ----------
    choose : callable
        ``choose(step) -> bool``; it must depend on the step alone, because it may be asked more than once.
    """

    choose: Callable[[int], bool]

    def __call__(self, step: int) -> bool:
        """Say whether the state of a step is stored."""
        return bool(self.choose(step))

    def count(self, last: int | None) -> int | None:
        """Count the stored steps of a training."""
        return None


Policy = Every | LogSpaced | AtSteps | Chosen


def policy(every: SupportsIndex | Policy | Callable[[int], bool]) -> Policy:
    """The policy that the argument `every` of a recorder means."""
    if isinstance(every, Every | LogSpaced | AtSteps | Chosen):
        return every
    if isinstance(every, bool) or not (hasattr(every, "__index__") or callable(every)):
        raise RecordingError(
            f"every={every!r} is a {type(every).__name__}; pass a whole number of steps, LogSpaced(per_decade), "
            "AtSteps([...]) or a function step -> bool"
        )
    return Every(operator.index(every)) if hasattr(every, "__index__") else Chosen(every)


def policy_settings(every: Policy) -> dict[str, Any]:
    """Settings of a policy, for the provenance of a run."""
    choose = getattr(every, "choose", None)
    return {type(every).__name__: asdict(every) if choose is None else getattr(choose, "__name__", repr(choose))}


class Steps:
    """Counts the updates of a training."""

    def __init__(self, every: Policy, now: int, opening: Sequence[np.ndarray]) -> None:
        self.now = now
        self.fresh = True  # no state has come since opening
        self._every, self._opening = every, digest(opening)

    def wanted(self, step: int) -> bool:
        """Whether the state of this step is stored."""
        return self._every(step)

    def is_opening(self, arrays: Sequence[np.ndarray]) -> bool:
        """Whether this state, the first since opening, is the one at opening, bit for bit."""
        fresh, self.fresh = self.fresh, False
        return fresh and self._opening == digest(arrays)

    def check(self, step: int) -> int:
        """A step that the user names."""
        self.fresh = False
        if operator.index(step) < self.now:
            raise RecordingError(
                f"step {step} comes after step {self.now}; steps must increase. Record it as a separate run"
            )
        return operator.index(step)

    def of_block(self, blocks: Sequence[np.ndarray], k: int, step: int | Sequence[int] | None) -> list[int]:
        """The steps of k consecutive states."""
        if k == 0:
            return []
        if step is None:
            first = self.now if self.is_opening([block[0] for block in blocks]) else self.now + 1
            return list(range(first, first + k))
        each = (
            step if isinstance(step, Sequence | np.ndarray) else range(operator.index(step), operator.index(step) + k)
        )
        steps = [operator.index(one) for one in each]
        if len(steps) != k or any(after <= before for before, after in pairwise(steps)):
            raise RecordingError(f"a block of {k} states needs {k} increasing steps, got {steps[:10]}")
        return [self.check(one) for one in steps]
