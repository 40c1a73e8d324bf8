"""`trajtools watch`: follow a file while it is being written."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from trajtools.cli import options, printable
from trajtools.cli.printing import document, emit
from trajtools.cli.runner import expand, matches, no_such_run, opened
from trajtools.cli.tables import check_is_file
from trajtools.errors import DataError, RecordingError, TrajtoolsError

if TYPE_CHECKING:
    from trajtools.store import Run

ATTEMPTS = 3
"""Reads in a row that may fail of a file that could be read before, because its writer changes its structure."""

GAP = 0.5
"""Seconds that may pass between two runs that one program records."""

NEWEST = 256
"""States that are searched for the last value of a metric."""

RATE_SECONDS = 30.0
"""Seconds that rates are averaged over."""

DAY = 86400.0
"""Seconds; a longer interval is a mistake."""


@click.command("watch")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--run", "runs", metavar="NAME", multiple=True,
              help="Only runs of this name, also those still to come; repeatable; * and ? are wildcards.")  # fmt: skip
@click.option("--interval", type=options.Seconds(0.05, DAY), default=2.0, show_default=True, metavar="SECONDS",
              help="Time between two reads.")  # fmt: skip
@click.option("--timeout", type=options.Seconds(0), default=60.0, show_default=True, metavar="SECONDS",
              help="How long to wait for a file, or a --run, that does not exist yet.")  # fmt: skip
@click.option("--once", is_flag=True, help="Read once, wait for nothing, and exit with status 0.")
@options.as_json
@options.quiet
@options.debug
def watch(
    *, file: Path, runs: tuple[str, ...], interval: float, timeout: float, once: bool, as_json: bool, quiet: bool
) -> None:
    """Follow FILE, or the runs in a folder, while they are written: status, states, rate and newest metrics.

    On a terminal the lines are updated in place; in a pipe each change is one line. Metrics of several members are
    means over those that are not perturbed copies. States appear at most 5 s after they were recorded. Ends when no run
    is being recorded any more: with status 0 if all are complete, with 1 if a run was interrupted or its writer died.
    """
    if as_json and not once:
        raise click.UsageError("--json prints one document, and following does not end: give --once too")
    if not once:
        _wait_for(file, runs, timeout, interval, quiet)
        _follow(file, runs, interval)
        return
    if not file.is_dir():
        check_is_file(file)
    progress = _read(file, runs)
    if not progress:
        raise no_such_run(expand((file,), []), runs)
    if as_json:
        from trajtools.results import to_plain

        emit(document("watch/1", file=str(file), runs=to_plain([asdict(one) for one in progress])))
    else:
        emit("\n".join(map(_line, progress)))


@dataclass(frozen=True)
class LastValue:
    """The newest value of a metric.

    `value` is NaN only if there is no other among the newest states; of several members it is the mean over the
    references. `late`: it is older than the state before the last one, which often has no metric yet.
    """

    value: float
    step: int | None
    late: bool


@dataclass(frozen=True)
class Progress:
    """How far a run is: committed states, newest metrics, states per second, seconds since the last new state."""

    run: str
    status: str
    states: int
    last_step: int | None
    metrics: dict[str, LastValue]
    rate: float | None = None
    idle: float = 0.0


def _read(path: Path, patterns: Sequence[str]) -> list[Progress]:
    """Read how far the runs of these names or globs are."""
    from trajtools.store import run_files, whole_runs

    progress = []
    for file in whole_runs(run_files(path)):
        with opened(file) as run:
            if matches(run.name, patterns):
                progress.append(_progress(run))
    return progress


def _read_patiently(file: Path, patterns: Sequence[str]) -> list[Progress]:
    """Read a file that could be read before; its writer may be changing its structure."""
    for attempt in range(ATTEMPTS):
        try:
            return _read(file, patterns)
        except (TrajtoolsError, OSError):
            if attempt == ATTEMPTS - 1 or not file.exists():
                raise
            time.sleep(0.2)
    raise AssertionError("the loop returns or raises")


def _progress(run: Run) -> Progress:
    import numpy as np

    if not run.n_states:
        return Progress(run.name, run.status, 0, None, {})
    step, metrics = run.latest(NEWEST)
    references = [i for i, member in enumerate(run.members) if member.reference < 0] or [0]
    last = {}
    for name, values in metrics.items():
        if values.ndim < 3:
            with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs give NaN
                mean = values if values.ndim == 1 else values[:, references].mean(axis=1)
            last[name] = _last_value(step, mean)
    return Progress(run.name, run.status, run.n_states, int(step[-1]), last)


def _last_value(step: Any, values: Any) -> LastValue:
    import numpy as np

    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return LastValue(float("nan"), None, False)
    last = int(known[-1])
    return LastValue(float(values[last]), int(step[last]), last < len(values) - 2)


class Rates:
    """How fast the runs grow, over the last `RATE_SECONDS`."""

    def __init__(self) -> None:
        self._history: dict[str, deque[tuple[float, int]]] = {}
        self._growth: dict[str, tuple[float, int]] = {}

    def add(self, progress: Sequence[Progress], now: float) -> list[Progress]:
        """Return the same with `rate` and `idle`; `now` is in seconds of a monotonic clock."""
        return [self._add(one, now) for one in progress]

    def _add(self, one: Progress, now: float) -> Progress:
        history = self._history.setdefault(one.run, deque())
        history.append((now, one.states))
        while len(history) > 2 and history[0][0] < now - RATE_SECONDS:
            history.popleft()
        since, states = self._growth.get(one.run, (now, -1))
        if one.states != states:
            since = now
        self._growth[one.run] = (since, one.states)
        then, before = history[0]
        rate = (one.states - before) / (now - then) if now > then else None
        return replace(one, rate=rate, idle=now - since)


def _wait_for(file: Path, runs: tuple[str, ...], timeout: float, interval: float, quiet: bool) -> None:
    """Wait until the file and the runs exist."""
    deadline, announced = time.monotonic() + timeout, False
    while True:
        absent = _absent(file, runs)
        if absent is None:
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise DataError(f"{absent}, after {timeout:g} s: start the recording, or wait longer with --timeout")
        if not announced and not quiet:
            click.echo(printable(f"{absent}: waiting up to {timeout:g} s ..."), err=True)
        announced = True
        time.sleep(min(interval, left))


def _absent(file: Path, runs: tuple[str, ...]) -> str | None:
    """Say what does not exist yet; None if all does."""
    if not file.is_dir() and (not file.exists() or file.stat().st_size == 0):
        return f"{file} does not exist yet"
    if file.is_dir() and not any(file.glob("*.h5")):
        return f"{file} holds no run yet"
    if not file.is_dir():
        check_is_file(file)
    names = [one.run for one in _read_patiently(file, runs)]
    for pattern in runs:
        if not any(matches(name, (pattern,)) for name in names):
            return f"{file} holds no run {pattern!r} yet"
    return None if names else f"{file} holds no run yet"


def _follow(file: Path, runs: tuple[str, ...], interval: float) -> None:
    """Show the runs until none is being recorded; an interrupted one is an error."""
    rates, followed, idle_reads = Rates(), set[str](), 0
    with Screen() as screen:
        while True:
            progress = rates.add(_read_patiently(file, runs), time.monotonic())
            screen.show(progress)
            recording = {one.run for one in progress if one.status == "recording"}
            followed |= recording
            idle_reads = 0 if recording else idle_reads + 1
            # A program that records one run after the other is between two of them for a moment.
            if idle_reads > bool(followed):
                break
            time.sleep(interval if recording else min(interval, GAP))
    lost = [one for one in progress if one.status == "interrupted" and (one.run in followed or not followed)]
    if lost:
        text = "; ".join(f"run {one.run!r} was interrupted after {one.states} complete states" for one in lost[:5])
        raise RecordingError(
            f"{text}: its writer gave up or died. Nothing that was committed is lost, and resume=True continues the run"
        )


class Screen(AbstractContextManager["Screen"]):
    """Lines that are updated in place on a terminal, one line for each change elsewhere."""

    def __init__(self) -> None:
        self._live: Any = None
        self._last: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> Screen:
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(highlight=False), auto_refresh=False, vertical_overflow="ellipsis")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, progress: list[Progress]) -> None:
        """Show how far the runs are."""
        if self._live is not None:
            from rich.text import Text

            # What is being recorded comes first, for a terminal on which not all runs fit.
            ordered = sorted(progress, key=lambda one: one.status != "recording")
            lines = Text("\n".join(map(_line, ordered)), no_wrap=True, overflow="ellipsis")
            self._live.update(lines, refresh=True)
            return
        for one in progress:
            state = (one.status, one.states)
            if self._last.get(one.run) != state:
                self._last[one.run] = state
                click.echo(f"{time.strftime('%H:%M:%S')} {_line(one)}")


def _line(one: Progress) -> str:
    """Return how far a run is as one line, whatever its name."""
    parts = [one.status, f"{one.states} states" + (f" (step {one.last_step})" if one.last_step is not None else "")]
    if one.status == "recording" and one.idle >= RATE_SECONDS:
        parts.append(f"no new state for {one.idle:.0f} s")
    elif one.status == "recording" and one.rate is not None:
        parts.append(f"{one.rate:.3g} states/s")
    for name, last in one.metrics.items():
        parts.append(f"{name} {last.value:.4g}" + (f" at step {last.step}" if last.late else ""))
    return printable(f"{one.run}: {', '.join(parts)}").replace("\n", "\\n")
