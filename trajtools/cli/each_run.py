"""One analysis of every run that the user named: the frame that the commands of one analysis share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from trajtools.cli import options
from trajtools.cli.asking import Choices, span
from trajtools.cli.lyapunov import check_plot, progress, saying_that_it_compiles
from trajtools.cli.reading import Errors, chosen_runs, debugging, reading, tell, told
from trajtools.cli.recurrences import Record, record_of
from trajtools.errors import TrajtoolsError
from trajtools.results.plain import Result, to_plain
from trajtools.store import Run
from trajtools.trajectory import Trajectory

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Found:
    """What an analysis found in one run.

    Attributes
    ----------
    file, run : str
        Where.
    result : Result or dict
        What.
    """

    file: str
    run: str
    result: Any


def selection(command: Command) -> Command:
    """Let a command choose the trajectory that it looks at.

    Parameters
    ----------
    command : callable
        What is to become a command.

    Returns
    -------
    callable
        The same, with ``runs, member, select, series, window``.
    """
    for option in (
        click.option("--window", callback=span(int), metavar="START:STOP", help="Only these steps of the training."),
        click.option("--series", metavar="NAME", help="This metric, such as loss, instead of the weights."),
        click.option("--select", metavar="GLOB", multiple=True, help="Only parameters of this name: '*.weight'."),
        click.option("--member", type=click.IntRange(min=0), help="This member of the run; the first if not given."),
        options.runs,
    ):
        command = option(command)
    return command


def printing(command: Command) -> Command:
    """Let a command print and draw.

    Parameters
    ----------
    command : callable
        What is to become a command.

    Returns
    -------
    callable
        The same, with ``plot, as_json, output, quiet`` and ``--debug``.
    """
    plot = click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw it (.png, .svg or .pdf).")
    for option in (options.debug, options.quiet, options.output, options.as_json, plot):
        command = option(command)
    return command


seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the resampling.")
strict = click.option("--strict", is_flag=True, help="Exit with status 3 if a verdict is inconclusive.")


def trajectory_of(run: Run, chosen: dict[str, Any]) -> Trajectory:
    """Read what the options of `selection` say.

    Parameters
    ----------
    run : Run
        Of an open file.
    chosen : dict
        ``member, select, series, window``, as click gives them; taken out of the dict.

    Returns
    -------
    Trajectory
        Lazy.
    """
    names = ("member", "select", "series", "window")
    found = record_of(run, Choices(**{name: chosen[name] for name in names}))
    return found.trajectory() if isinstance(found, Record) else found


@dataclass(frozen=True)
class Ask:
    """What every command of one analysis is asked for.

    Attributes
    ----------
    name : str
        Of the command.
    files : tuple of Path
        As the user gave them.
    runs : tuple of str
        Names or globs; empty for all.
    plot, output : Path or None
        Where to draw and to write.
    as_json, quiet, strict : bool
        As the options say.
    """

    name: str
    files: tuple[Path, ...]
    runs: tuple[str, ...]
    plot: Path | None
    output: Path | None
    as_json: bool
    quiet: bool
    strict: bool = False


def answer(
    ask: Ask,
    look: Callable[[Run], Any],
    words: Callable[[Sequence[Found]], str],
    draw: Callable[[Any, Any], Any] | None = None,
) -> None:
    """Look at every run, print what was found, draw it, and leave with the exit status that it deserves.

    Parameters
    ----------
    ask : Ask
        What the user asked for.
    look : callable
        ``look(run)`` gives the result of one run.
    words : callable
        ``words(found)`` says the results of all runs.
    draw : callable or None
        ``draw(result, ax)`` draws one panel.
    """
    check_plot(ask.plot, ask.files)
    if ask.output is not None:
        options.check_target(ask.output, ask.files)
    with saying_that_it_compiles(ask.quiet):
        found, errors = gather(ask, look)
    tell(errors)
    if ask.as_json:
        plain = [{"file": one.file, "run": one.run, "result": to_plain(_dict(one.result))} for one in found]
        text = options.document(f"{ask.name}/1", results=plain, errors=told(errors))
        options.emit(text, ask.output, ask.files)
    elif found:
        options.emit(words(found), ask.output, ask.files)
    if ask.plot is not None and found and draw is not None:
        panels(found, draw, ask.plot)
    if errors:
        click.get_current_context().exit(1)
    if ask.strict and any(getattr(one.result, "verdict", "") == "inconclusive" for one in found):
        click.get_current_context().exit(3)


def _dict(result: Any) -> Any:
    return result.to_dict() if isinstance(result, Result) or hasattr(result, "to_dict") else result


def gather(ask: Ask, look: Callable[[Run], Any]) -> tuple[list[Found], Errors]:
    """Look at every run; one that fails does not keep the others from being looked at.

    Parameters
    ----------
    ask : Ask
        What the user asked for.
    look : callable
        ``look(run)`` gives the result of one run.

    Returns
    -------
    found : list of Found
        One for each run that could be looked at.
    errors : list of (str, Exception)
        File and reason for the others.
    """
    found: list[Found] = []
    errors: Errors = []
    for path in ask.files:
        try:
            with reading(path) as file:
                chosen = chosen_runs(file, ask.runs)
                with progress(len(chosen), path.name, ask.quiet) as step:
                    for run in chosen:
                        try:
                            found.append(Found(str(path), run.name, look(run)))
                        except TrajtoolsError as problem:
                            if debugging():
                                raise
                            errors.append((str(path), problem))
                        step(1)
        except (TrajtoolsError, OSError) as problem:
            if debugging():
                raise
            errors.append((str(path), problem))
    return found, errors


def panels(found: Sequence[Found], draw: Callable[[Any, Any], Any], path: Path) -> None:
    """Draw one panel for each run.

    Parameters
    ----------
    found : sequence of Found
        At least one.
    draw : callable
        ``draw(result, ax)``.
    path : Path
        The figure; overwritten if it is there.
    """
    from trajtools.plots.canvas import new_figure

    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    figure = new_figure(7 * columns, 4.6 * rows)
    for place, one in enumerate(found, 1):
        ax = figure.add_subplot(rows, columns, place)
        draw(one.result, ax)
        ax.set_title(one.run, fontsize="small")
    figure.savefig(path)


def with_reasons(table: str, found: Sequence[Found]) -> str:
    """Put the reasons and warnings of every result below the table.

    Parameters
    ----------
    table : str
        The table.
    found : sequence of Found
        Results with ``reasons`` and ``warnings``, or one of them.

    Returns
    -------
    str
        Several paragraphs.
    """
    text = [table]
    for one in found:
        said = dict.fromkeys((*getattr(one.result, "reasons", ()), *getattr(one.result, "warnings", ())))
        if said:
            text.append("\n".join([f"{one.run}:", *(f"  - {words}" for words in said)]))
    return "\n\n".join(text)
