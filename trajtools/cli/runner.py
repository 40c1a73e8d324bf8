"""Shared by all commands: open input files with helpful errors, analyse each run, write results and figures."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial, wraps
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import click

from trajtools.cli import debugging, options, printable, sentence
from trajtools.cli.options import Selection
from trajtools.cli.printing import bullets, document, emit
from trajtools.cli.tables import Table, check_is_file, is_table, read_table
from trajtools.errors import (
    DataError,
    FormatError,
    MissingDependencyError,
    SelectionError,
    TrajtoolsError,
)
from trajtools.reasons import in_order
from trajtools.wording import counted

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from trajtools.cli.printing import Block, Part
    from trajtools.store import Run
    from trajtools.store.foreign import Ensemble
    from trajtools.trajectory import Trajectory

Errors = list[tuple[str, Exception]]
MORE_STATES = "record more steps (Recorder(..., every=1) keeps every update), or let the training go on"
MANY = 20  # files, whose opening is shown
FILES_HELP = "FILE may also be a folder, for the runs in it, or a pattern in quotes, such as 'sweep/*.h5'."

# Inputs


@contextmanager
def collecting(errors: Errors, path: Path) -> Iterator[None]:
    """Append an error to `errors`, so that other files are still analysed; `--debug` raises it."""
    try:
        yield
    except (TrajtoolsError, OSError) as error:
        if debugging():
            raise
        errors.append((str(path), error))


def expand(files: Sequence[Path], errors: Errors) -> list[Path]:
    """Replace folders and patterns by the files in them."""
    paths: list[Path] = []
    for path in files:
        with collecting(errors, path):
            paths += _expand(path)
    return paths


def _expand(path: Path) -> list[Path]:
    if path.is_dir() or (any(c in str(path) for c in "*?[") and not path.exists()):
        from trajtools.store import run_files

        return [file if path.is_absolute() else Path(os.path.relpath(file)) for file in run_files(path)]
    return [path]


def without_unsafe(paths: Sequence[Path], errors: Errors) -> list[Path]:
    """Leave out, with an error, the files that a child process could not open."""
    return [path for path, _ in probed(paths, errors)]


def probed(paths: Sequence[Path], errors: Errors, task: Callable[[str], Any] | None = None) -> list[tuple[Path, Any]]:
    """What a task says in a child process of files that this user has not opened before, see `trajtools.store.probe`.

    Files that could not be opened are left out, with an error. Of the shards of one run, the first stays, which opens
    them all.
    """
    from trajtools.store import probe, whole_runs

    recorded = [path for path in paths if path.is_file() and path.stat().st_size and not is_table(path)]
    is_silent = click.get_current_context().meta.get("trajtools.silent", False)
    with progress(len(recorded), "Opening files", is_silent or len(recorded) < MANY) as advance:
        answers = probe(recorded, advance=advance) if task is None else probe(recorded, task, advance)
    refused = {path: answer for path, answer in answers.items() if isinstance(answer, Exception)}
    for path, error in refused.items():
        with collecting(errors, path):
            raise explained(path, error)
    return [(path, answers.get(path)) for path in whole_runs([path for path in paths if path not in refused])]


def explained(path: Path, error: Exception) -> Exception:
    """Add to the error of a file that is not ours how it can be read."""
    from trajtools.store.foreign import suggestion
    from trajtools.store.isolation import in_child

    if type(error) is not FormatError:
        return error
    ((_, way),) = in_child(suggestion, [str(path)])
    if isinstance(way, Exception):
        return error
    return FormatError(f"{path} is not a trajtools file; {way}") if way else error


@contextmanager
def opened(path: Path) -> Iterator[Run]:
    """Open a recorded file."""
    import trajtools as tt

    check_is_file(path)
    with tt.open(path) as run:
        yield run


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name equals or matches one of the patterns; all names do if there are none."""
    return not patterns or any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def no_such_run(paths: Sequence[Path], patterns: Sequence[str]) -> SelectionError:
    """The error of a selection by name that leaves no run."""
    names = []
    for path in paths[:20]:
        with opened(path) as run:
            names.append(run.name)
    more = f" and {len(paths) - 20} more" if len(paths) > 20 else ""
    return SelectionError(f"no run is named {' or '.join(map(repr, patterns))}; there are {', '.join(names)}{more}")


@dataclass(frozen=True)
class MemberStates:
    """States of one member of a run, or of some parameters; `tt.lyapunov` takes it like a run with one member."""

    run: Run
    selection: Selection

    @property
    def hparams(self) -> dict[str, Any]:
        """Hyper-parameters of the run; they tell whether the weights are the whole state."""
        return self.run.hparams

    @property
    def provenance(self) -> dict[str, Any]:
        """What the recorder knows of the training; it names the optimiser."""
        return self.run.provenance

    @property
    def optimizer(self) -> Any:
        """Buffers of the optimiser, or None."""
        return self.run.optimizer

    @cached_property
    def step(self) -> Any:
        """Steps of the states, (T,)."""
        return self.trajectory().step

    def trajectory(self) -> Trajectory:
        """Return the states, lazily."""
        states = self.run.trajectory(self.selection.member or 0)
        states = states.select(*self.selection.select) if self.selection.select else states
        return states if self.selection.window is None else states.window(*self.selection.window)


@dataclass(frozen=True)
class Source:
    """What one analysis takes: a run of a recorded file, a table with one trajectory, or twins of another program."""

    path: Path
    name: str
    selection: Selection
    run: Run | None = None
    table: Table | None = None
    foreign: Ensemble | None = None
    init: int = 0
    copies: tuple[Source, ...] = ()  # tables of perturbed copies

    def recorded_run(self) -> Run:
        """Return the run; a table is refused."""
        if self.run is None:
            raise DataError(
                f"{self.path.name} is a table, which holds one trajectory; this command needs a recorded run"
            )
        return self.run

    def states(self) -> Any:
        """Return the selected trajectory: a Trajectory, or of a table an array (T,) or (T, d)."""
        if self.foreign is not None:
            return self._foreign_states(self.foreign)
        if self.table is not None:
            return self.table.states(self.selection, self.path)
        selected = select_states(self.recorded_run(), self.selection)
        states = selected.trajectory() if isinstance(selected, MemberStates) else selected
        if len(states) < 2:
            raise DataError(
                f"run {self.name!r} has {counted(len(states), 'state')} here, and this command needs a trajectory: "
                f"{MORE_STATES}"
            )
        return states

    def twins(self) -> Any:
        """Return a run with twins, or pairs (reference, copies)."""
        if self.foreign is not None:
            if not any(copies for _, copies in self.foreign.pairs):
                raise DataError(
                    f"{self.path.name} is declared to hold no weights of copies, and this command needs them; "
                    "`trajtools lyapunov` takes distances of twins"
                )
            return self.foreign.pairs
        if self.table is None:
            return self.recorded_run()
        if not self.copies:
            raise DataError(
                f"{self.path.name} is a table, which holds one trajectory; give the tables of its perturbed "
                "copies after it"
            )
        return [(self.states(), [copy.states() for copy in self.copies])]

    def remarked(self, result: Any) -> Any:
        """Add to a result what was done to the rows of its tables."""
        from trajtools.inputs import with_remarks

        if not hasattr(result, "warnings"):
            return result
        tables = [source.table for source in (self, *self.copies) if source.table is not None]
        return with_remarks(result, [remark for one in tables for remark in one.warnings])

    def each_trajectory(self) -> list[Source]:
        """Return a source for each initial condition of a file of another program; other sources are one."""
        if self.foreign is None or len(self.foreign.pairs) < 2:
            return [self]
        return [replace(self, name=f"{self.name} init {i}", init=i) for i in range(len(self.foreign.pairs))]

    def _foreign_states(self, ensemble: Ensemble) -> Trajectory:
        if not ensemble.pairs:
            raise DataError(
                f"{self.path.name} is declared to hold distances, and this command needs states; `trajtools lyapunov` "
                "takes distances of twins"
            )
        if self.selection.series is not None:
            raise SelectionError(
                f"--series is for metrics and tables; of {self.path.name} the states are read: drop it"
            )
        reference, copies = ensemble.pairs[self.init]
        member, members = self.selection.member or 0, [reference, *copies]
        if member >= len(members):
            raise SelectionError(f"{self.path.name} has {len(members)} members, from 0: there is no member {member}")
        states = members[member]
        states = states.select(*self.selection.select) if self.selection.select else states
        return states if self.selection.window is None else states.window(*self.selection.window)


def select_states(run: Run, selection: Selection) -> MemberStates | Trajectory:
    """Return the weights of a member, or one of its metrics."""
    if not run.n_states:
        raise DataError(f"run {run.name!r} holds no states")
    member = selection.member or 0
    if not 0 <= member < run.n_members:
        raise SelectionError(f"run {run.name!r} has {run.n_members} members, from 0: there is no member {member}")
    if selection.series is not None:
        series = _metric_series(run, selection.series, member, selection.select)
        return series if selection.window is None else series.window(*selection.window)
    if run.stored != "weights":
        raise DataError(
            f"run {run.name!r} stores {run.stored} and no weights, so it has no trajectory of states; use --method "
            "twins, or a metric (--series)"
        )
    return MemberStates(run, selection)


def _metric_series(run: Run, name: str, member: int, select: tuple[str, ...]) -> Trajectory:
    """Return a metric from its first to its last finite value; the newest state often has no metric yet."""
    import numpy as np

    import trajtools as tt

    if select:
        raise SelectionError(f"--select names parameters, and the metric {name!r} has none: drop one of the two")
    if name not in run.metrics:
        raise SelectionError(f"run {run.name!r} has no metric {name!r}; it has {', '.join(run.metrics) or 'none'}")
    values = np.asarray(run.metrics[name], dtype=np.float64)
    values = values if values.ndim == 1 else values[:, member]
    finite = np.flatnonzero(np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if not len(finite):
        raise DataError(f"the metric {name!r} of run {run.name!r} has no finite value")
    part = slice(int(finite[0]), int(finite[-1]) + 1)
    return tt.Trajectory.from_array(values[part], step=run.step[part], time_unit=run.time_unit)


# Each run


@dataclass(frozen=True)
class Outcome:
    """The result of one run."""

    file: str
    run: str
    result: Any


@dataclass(frozen=True)
class Request:
    """What every analysis has in common: its inputs, and where results go."""

    name: str
    files: tuple[Path, ...]
    runs: tuple[str, ...] = ()
    selection: Selection = field(default_factory=Selection)
    plot: Path | None = None
    output: Path | None = None
    as_json: bool = False
    quiet: bool = False
    strict: bool = False
    foreign: dict[str, Any] | None = None
    together: bool = False  # all trajectories of a file of another program, or all tables, in one analysis

    def run(
        self,
        analyse: Callable[..., Any],
        text: Callable[[list[Outcome]], list[Block]],
        draw: Callable[[Any, Any], Any] | None = None,
        *,
        in_steps: bool = False,
    ) -> None:
        """Analyse each run, print and draw the results, and exit.

        `text(outcomes)` makes the text, `draw(result, ax)` one panel of the figure (by default `result.plot(ax=ax)`).
        `in_steps`: `analyse(source, progress)` calls ``progress(done, total)`` as it goes.
        """
        outcomes, errors = self.each_run(analyse, in_steps=in_steps)
        plain = outcomes if self.as_json else []
        results = [{"file": one.file, "run": one.run, "result": _plain(one.result)} for one in plain]
        self.write(outcomes, errors, results, text)
        if self.plot is not None and outcomes:
            _draw_panels(outcomes, draw or (lambda result, ax: result.plot(ax=ax)), self.plot)
        finish(errors, [getattr(one.result, "verdict", "") for one in outcomes] if self.strict else ())

    def each_run(self, analyse: Callable[..., Any], *, in_steps: bool = False) -> tuple[list[Outcome], Errors]:
        """Analyse each run of each file; one that fails does not keep the others from being analysed."""
        outcomes: list[Outcome] = []
        errors: Errors = []
        paths = expand(self.files, errors)
        for target in (self.plot, self.output):
            if target is not None:
                check_target(target, paths)
        if self.foreign is None:
            paths = without_unsafe(paths, errors)
        with compile_notice(self.quiet), progress(len(paths), "Analysing runs", self.quiet) as advance:
            for path, more in self._grouped(paths):
                with (
                    _one_step(advance) as shown,
                    collecting(errors, path),
                    sources(path, self.runs, self.selection, self.foreign, more) as listed,
                ):
                    chosen = listed if self.together else [part for one in listed for part in one.each_trajectory()]
                    for at, source in enumerate(chosen):
                        with collecting(errors, path):
                            step = (_part_of(shown, at, len(chosen)),) if in_steps else ()
                            outcomes.append(Outcome(str(path), source.name, source.remarked(analyse(source, *step))))
        if self.runs and not outcomes and not errors:
            raise no_such_run(paths, self.runs)
        return outcomes, errors

    def all_runs(self, analyse: Callable[[list[Source]], Any]) -> tuple[list[Outcome], Errors]:
        """Analyse the runs of all files as one; none is left out, so that one that fails is the end of it."""
        errors: Errors = []
        paths = expand(self.files, errors)
        for target in (self.plot, self.output):
            if target is not None:
                check_target(target, paths)
        paths = without_unsafe(paths, errors)
        listed: list[Source] = []
        with ExitStack() as stack, compile_notice(self.quiet):
            for path in paths:
                with collecting(errors, path):
                    listed += stack.enter_context(sources(path, self.runs, self.selection))
            if errors:
                return [], errors
            if not listed:
                raise no_such_run(paths, self.runs)
            outcomes: list[Outcome] = []
            with collecting(errors, listed[0].path):
                files = ", ".join(str(source.path) for source in listed)
                outcomes.append(Outcome(files, counted(len(listed), "run"), analyse(listed)))
        return outcomes, errors

    def _grouped(self, paths: list[Path]) -> list[tuple[Path, list[Path]]]:
        """Each path, with the tables that belong to it: those after the first, if tables are analysed together."""
        tables = [path for path in paths if is_table(path)] if self.together and self.foreign is None else []
        return [(path, tables[1:] if path in tables[:1] else []) for path in paths if path not in tables[1:]]

    def write(
        self,
        outcomes: list[Outcome],
        errors: Errors,
        results: list[dict[str, Any]],
        text: Callable[[list[Outcome]], list[Block]],
    ) -> None:
        """Report the errors on stderr, and write the results as text or JSON."""
        report(errors)
        if self.as_json:
            emit(document(f"{self.name}/1", results=results, errors=plain_errors(errors)), self.output)
        elif outcomes:
            emit(text(outcomes), self.output)


@contextmanager
def sources(
    path: Path,
    patterns: Sequence[str],
    selection: Selection,
    declared: dict[str, Any] | None = None,
    copies: Sequence[Path] = (),
) -> Iterator[list[Source]]:
    """Open a file and list what there is to be analysed in it.

    `declared`: what a file of another program holds; `copies`: tables with copies of the trajectory of a table.
    """
    if declared is not None:
        from trajtools.store import foreign

        if patterns:
            raise DataError("--run is for recorded files: drop it, or --dataset, --axes, --holds and --layout")
        check_is_file(path)
        open_in_child(foreign.examine, path)
        ensembles = foreign.read(path, **declared)
        yield [Source(path, f"{path.stem} {one.name}".rstrip(), selection, foreign=one) for one in ensembles]
        return
    if is_table(path):
        if patterns:
            raise DataError(f"--run is for recorded files; {path.name} is a table, which holds one trajectory")
        one, *others = (Source(p, p.stem, selection, table=read_table(p, selection)) for p in (path, *copies))
        yield [replace(one, copies=tuple(others))]
        return
    if selection.for_tables():
        raise DataError(
            f"{', '.join(selection.for_tables())}: only for tables, and {path.name} is none; a metric of a run is "
            "--series"
        )
    with opened(path) as run:
        yield [Source(path, run.name, selection, run)] if matches(run.name, patterns) else []


def open_in_child(task: Callable[[str], Any], path: Path) -> None:
    """Do with a file of a stranger in a child process what will be done with it here."""
    from trajtools.store.isolation import in_child

    ((_, answer),) = in_child(task, [os.path.abspath(path)])
    if isinstance(answer, Exception):
        raise answer


def analysis_command(
    name: str, *, strict: bool = False, selection: bool = True, tables: bool = True
) -> Callable[[Callable[..., None]], Any]:
    """Make a command of a function that takes a `Request` and its own options.

    `strict` adds `--strict`; `selection=False` leaves only `--run` of the options that select a trajectory, and
    `tables=False` takes no tables and no files of other programs.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def callback(
            *,
            files: tuple[Path, ...],
            runs: tuple[str, ...],
            plot: Path | None,
            output: Path | None,
            as_json: bool,
            quiet: bool,
            strict: bool = False,
            **chosen: Any,
        ) -> None:
            names: tuple[str, ...] = ("member", "select", "series", "window") if selection else ()
            names += ("columns", "time", "sep", "decimal") if tables else ()
            part = Selection(**{key: chosen.pop(key) for key in names})
            declared = options.declaration(chosen) if tables else None
            function(Request(name, files, runs, part, plot, output, as_json, quiet, strict, declared), **chosen)

        own = callback.__dict__.pop("__click_params__", [])
        foreign = (*options.TABLES, options.foreign) if tables else ()
        for option in reversed((*foreign, *((options.strict,) if strict else ()), *options.OUTPUT)):
            option(callback)
        callback.__dict__["__click_params__"] += own
        for option in reversed((options.files, *(options.SELECTION if selection else (options.runs,)))):
            option(callback)
        return click.command(name, epilog=FILES_HELP)(callback)

    return decorate


def finish(errors: Errors, verdicts: Iterable[str] = ()) -> None:
    """Exit with status 1 if there were errors, 3 if one of the verdicts is inconclusive."""
    if errors:
        click.get_current_context().exit(1)
    if "inconclusive" in verdicts:
        click.get_current_context().exit(3)


def _plain(result: Any) -> Any:
    from trajtools.results import to_plain

    return to_plain(result.to_dict() if hasattr(result, "to_dict") else result)


def _draw_panels(outcomes: list[Outcome], draw: Callable[[Any, Any], Any], path: Path) -> None:
    """Draw one panel for each run."""
    from trajtools.plots._axes import panels

    draws = [partial(draw, one.result) for one in outcomes]
    figure = panels(labels(outcomes), draws)
    save_figure(figure, path)


def save_figure(figure: Any, path: Path) -> None:
    """Save a figure, overwriting the file."""
    from trajtools.plots import _axes

    _axes.save_figure(figure, path)
    click.echo(f"Figure written to {printable(str(path))}.", err=True)


# Text and JSON


def labels(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a name for each outcome: the run, with its file where several runs have the same name."""
    names = [one.run for one in outcomes]
    for file_name in (lambda file: Path(file).stem, str):
        if len(set(names)) == len(names):
            break
        names = [f"{file_name(one.file)}: {one.run}" for one in outcomes]
    return names


def with_reasons(content: Part, outcomes: Sequence[Outcome]) -> list[Block]:
    """Put the reasons and warnings of every result below a table."""
    blocks: list[Block] = [content]
    for label, one in zip(labels(outcomes), outcomes, strict=True):
        remarks = in_order((*getattr(one.result, "reasons", ()), *getattr(one.result, "warnings", ())))
        if hasattr(one.result, "verdict"):
            blocks.append(bullets(f"{label}: {one.result.verdict}. {one.result.summary()}", remarks))
        elif remarks:
            blocks.append(bullets(f"{label}:", remarks))
    return blocks


def report(errors: Errors) -> None:
    """Print errors on stderr, one sentence each."""
    for path, text in unique(errors):
        click.echo(f"Error: {text}" if path in text else f"Error: {path}: {text}", err=True)


def plain_errors(errors: Errors) -> list[dict[str, str]]:
    """Return errors as JSON can hold them."""
    return [{"file": path, "error": text} for path, text in unique(errors)]


def unique(errors: Errors) -> list[tuple[str, str]]:
    """Each error once: what is wrong with a file is often wrong with each of its runs."""
    return list(dict.fromkeys((path, sentence(error)) for path, error in errors))


def check_target(target: Path, inputs: Iterable[Path], purpose: str = "output") -> None:
    """Refuse, before anything is computed, an output in a missing folder or over one of the inputs."""
    if not target.parent.is_dir():
        raise DataError(f"{target} cannot be written: there is no folder {target.parent}")
    for path in inputs:
        if target.exists() and path.exists() and os.path.samefile(target, path):
            raise DataError(f"{target} is one of the input files: choose another file for the {purpose}")


# Work


@contextmanager
def _one_step(advance: Callable[[float], None]) -> Iterator[Callable[[float], None]]:
    """Yield a function that takes the share of one step that is done; in the end, all of it is."""
    before = 0.0

    def show(share: float) -> None:
        nonlocal before
        advance(share - before)
        before = share

    try:
        yield show
    finally:
        show(1.0)


def _part_of(show: Callable[[float], None], at: int, count: int) -> Callable[[int, int], None]:
    """Return ``progress(done, total)`` of one of `count` equal parts."""
    return lambda done, total: show((at + done / total) / count)


@contextmanager
def progress(length: int, label: str, quiet: bool = False) -> Iterator[Callable[[float], None]]:
    """Show on a terminal how many steps are done and how long the rest takes; yields what takes the number done."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    count = TextColumn("{task.completed:.0f} of {task.total:.0f},", markup=False)
    left = TimeRemainingColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), count, left)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(printable(label), total=length)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def compile_notice(quiet: bool) -> Iterator[None]:
    """Say on stderr, once, that kernels are being compiled: it takes seconds, the first time only."""
    from trajtools._kernels._jit import compile_message, on_compile

    reported: list[bool] = []

    def notify() -> None:
        if not reported and not quiet:
            reported.append(True)
            click.echo(compile_message(), err=True)

    with on_compile(notify), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="kernels are compiled in every process")
        yield


@contextmanager
def executor(workers: int, scheduler: str | None) -> Iterator[Executor | None]:
    """Choose an executor: None for this process, a pool of processes, or a Dask cluster."""
    if scheduler is not None:
        with _dask_client(scheduler) as client:
            if not client.nthreads():
                click.echo(f"The Dask cluster at {scheduler} has no workers, and waits for one.", err=True)
            yield client.get_executor()
    elif workers == 1:
        yield None
    else:
        from concurrent.futures import BrokenExecutor, ProcessPoolExecutor

        # Not forked: numba and BLAS may have started threads.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_depend_on_parent) as pool:
            try:
                yield pool
            except BrokenExecutor as error:
                raise DataError(
                    "a worker process was killed, most often because memory ran out: call the command again with fewer "
                    "--workers"
                ) from error
            except BaseException:
                _stop(pool)
                raise


def _depend_on_parent() -> None:
    """Leave Ctrl-C to the process that started this one, and end with it, also if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _stop(pool: Executor) -> None:
    """End the workers now: what they are at is no longer wanted."""
    dropped = Event()
    with suppress(RuntimeError):  # the pool is broken, and its workers have ended
        pool.submit(int).add_done_callback(lambda _: dropped.set())
        pool.shutdown(wait=False, cancel_futures=True)
        dropped.wait()  # a pool that loses its workers while it holds cancelled tasks prints a traceback
        for worker in active_children():
            worker.terminate()


def _dask_client(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ImportError as missing:
        message = '--scheduler needs Dask, which is not installed: pip install "trajtools[dask]"'
        raise MissingDependencyError(message) from missing
    try:
        return Client(scheduler)
    except (OSError, ValueError) as error:
        raise DataError(
            f"no Dask cluster responds at {scheduler!r} ({error}): give the address that `dask scheduler` printed"
        ) from error


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command line of one of our modules that runs in a process of its own."""
    # -P: a folder named as one of our packages in the working directory must not be taken for ours.
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment() -> dict[str, str]:
    """Return the environment of such a process, in which our packages can be imported, installed or not."""
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
