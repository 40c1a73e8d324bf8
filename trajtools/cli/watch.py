"""`trajtools watch`: follows a file that is being written."""

from __future__ import annotations

import math
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from trajtools.cli import options
from trajtools.cli.looking import Look, Rates, look, missing
from trajtools.cli.reading import check_is_file, chosen_runs, reading
from trajtools.errors import DataError, RecordingError, TrajtoolsError
from trajtools.results.plain import to_plain

TRIES = 3
"""So often in a row a file that could be read before may be unreadable, because its writer changes its structure."""

GAP = 0.5
"""Seconds that may pass between two runs that one program records."""

DAY = 86400.0
"""Seconds; a longer pause between two looks is a mistake."""


class Seconds(click.FloatRange):
    """A number of seconds, which NaN is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number.

        Parameters
        ----------
        value, param, ctx : object
            Of the command line.

        Returns
        -------
        float
        """
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return found


@click.command("watch")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--run", "runs", metavar="NAME", multiple=True,
              help="Only runs of this name, also those still to come; may be repeated, * and ? match any.")  # fmt: skip
@click.option("--interval", type=Seconds(0.05, DAY), default=2.0, show_default=True, metavar="SECONDS",
              help="Time between two looks.")  # fmt: skip
@click.option("--timeout", type=Seconds(0), default=60.0, show_default=True, metavar="SECONDS",
              help="How long to wait for a file, or a --run, that is not there yet.")  # fmt: skip
@click.option("--once", is_flag=True, help="Look once, wait for nothing, and leave with status 0.")
@options.as_json
@options.quiet
@options.debug
def command(
    *, file: Path, runs: tuple[str, ...], interval: float, timeout: float, once: bool, as_json: bool, quiet: bool
) -> None:
    """Follow FILE while it is being written: for each run its status, states, rate and newest metrics.

    Rewrites its lines on a terminal; prints a line for each change in a pipe. Metrics of several members are means over
    those that are no perturbed copies. A recorder shows its states at most 5 s late. Ends when no run is being recorded
    any more: with status 0 if all are complete, with 1 if a run was interrupted or its writer died.
    """
    if as_json and not once:
        raise click.UsageError("--json prints one document, and following does not end: give --once too")
    if once:
        with reading(file) as opened:
            chosen_runs(opened, runs)  # says what is missing
        found = look(file, runs)
        if as_json:
            plain = to_plain([asdict(one) for one in found])
            click.echo(options.document("watch/1", file=str(file), runs=plain))
            return
        click.echo("\n".join(in_words(one) for one in found))
        return
    wait_for(file, runs, timeout, interval, quiet)
    follow(file, runs, interval)


def absent_words(file: Path, absent: str) -> str:
    """Say what is not there.

    Parameters
    ----------
    file : Path
        The file.
    absent : str
        Name of a run; ``"any"`` where there is none at all.

    Returns
    -------
    str
        Half a sentence.
    """
    return f"{file} holds no run yet" if absent == "any" else f"{file} holds no run {absent!r} yet"


def wait_for(file: Path, runs: tuple[str, ...], timeout: float, interval: float, quiet: bool) -> None:
    """Wait until the file and the runs are there.

    Parameters
    ----------
    file : Path
        The file.
    runs : tuple of str
        Names or globs; empty for any.
    timeout, interval : float, in seconds
        How long to wait, and how long between two looks.
    quiet : bool
        Do not say what is waited for.

    Raises
    ------
    DataError
        If they are not there in time.
    """
    until, said = time.monotonic() + timeout, False
    while True:
        if not file.is_dir() and (not file.exists() or file.stat().st_size == 0):
            words = f"{file} does not exist yet"
        else:
            check_is_file(file)
            absent = missing(look_again(file, runs), runs)
            if not absent:
                return
            words = absent_words(file, absent)
        left = until - time.monotonic()
        if left <= 0:
            raise DataError(f"{words}, after {timeout:g} s: start the recording, or wait longer with --timeout")
        if not said and not quiet:
            click.echo(options.printable(f"{words}: waiting up to {timeout:g} s ..."), err=True)
        said = True
        time.sleep(min(interval, left))


def follow(file: Path, runs: tuple[str, ...], interval: float) -> None:
    """Show the runs until none is being recorded.

    Parameters
    ----------
    file : Path
        The file.
    runs : tuple of str
        Names or globs; empty for all.
    interval : float, in seconds
        Between two looks.

    Raises
    ------
    RecordingError
        If a run was interrupted; the message says how many states are whole.
    """
    screen, rates = Screen(), Rates()
    followed: set[str] = set()
    still = 0
    while True:
        found = rates.join(look_again(file, runs), time.monotonic())
        screen.show(found)
        recording = {one.run for one in found if one.status == "recording"}
        followed |= recording
        still = 0 if recording else still + 1
        # A program that records one run after the other is between two of them for a moment.
        if still > bool(followed):
            break
        time.sleep(interval if recording else min(interval, GAP))
    lost = [one for one in found if one.status == "interrupted" and (one.run in followed or not followed)]
    if lost:
        words = "; ".join(f"run {one.run!r} was interrupted, its {one.states} states are whole" for one in lost[:5])
        raise RecordingError(
            f"{words}: its writer gave up, or died. `trajtools repair {file}` makes the file writable again, and "
            "resume=True goes on with the run"
        )


def look_again(file: Path, runs: tuple[str, ...]) -> list[Look]:
    """Look at a file that could be read before, and again if it cannot be read now.

    Parameters
    ----------
    file : Path
        The file.
    runs : tuple of str
        Names or globs; empty for all.

    Returns
    -------
    list of Look

    Raises
    ------
    TrajtoolsError, OSError
        If it cannot be read for longer than a writer takes to change its structure.
    """
    for trial in range(TRIES):
        try:
            return look(file, runs)
        except (TrajtoolsError, OSError):
            if trial == TRIES - 1 or not file.exists():
                raise
            time.sleep(0.2)
    raise AssertionError("the loop returns or raises")


class Screen:
    """Where the runs are shown: lines that are rewritten on a terminal, a line for each change elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._drawn = 0
        self._last: dict[str, tuple[object, ...]] = {}

    def show(self, found: list[Look]) -> None:
        """Show what a look has found.

        Parameters
        ----------
        found : list of Look
            Of all runs.
        """
        if self._live:
            # Runs come by name: where not all fit, those that are being recorded stay.
            self._redraw([in_words(one) for one in sorted(found, key=lambda one: one.status == "recording")])
            return
        for one in found:
            state = (one.status, one.states)
            if self._last.get(one.run) != state:
                self._last[one.run] = state
                click.echo(f"{time.strftime('%H:%M:%S')} {in_words(one)}")

    def _redraw(self, lines: list[str]) -> None:
        size = shutil.get_terminal_size()
        room = max(1, size.lines - 2)
        if len(lines) > room:
            lines = [f"... and {len(lines) - room + 1} more runs", *lines[len(lines) - room + 1 :]]
        back = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        # A line that wraps would be two, and the next look would not go back far enough.
        click.echo(back + "\n".join(line[: max(1, size.columns - 1)] for line in lines))
        self._drawn = len(lines)


def in_words(one: Look) -> str:
    """Say in one line how a run stands.

    Parameters
    ----------
    one : Look
        Of the run.

    Returns
    -------
    str
        One line, whatever the names hold.
    """
    words = [one.status, f"{one.states} states" + (f" (step {one.last_step})" if one.last_step is not None else "")]
    if one.status == "recording" and one.idle >= Rates.SECONDS:
        words.append(f"no new state for {one.idle:.0f} s")
    elif one.status == "recording" and one.rate is not None:
        words.append(f"{one.rate:.3g} states/s")
    for name, newest in one.metrics.items():
        words.append(f"{name} {newest.value:.4g}" + (f" at step {newest.step}" if newest.late else ""))
    return options.printable(f"{one.run}: {', '.join(words)}").replace("\n", "\\n")
