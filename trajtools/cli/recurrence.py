"""`trajtools recurrence`: recurrence quantification of one trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from trajtools.cli import options
from trajtools.cli.asking import embedding
from trajtools.cli.each_run import Ask, Found, answer, printing, selection, trajectory_of, with_reasons
from trajtools.neighbors.rules import NearestK, RecurrenceRate, ScaledRadius, WithinRadius
from trajtools.plots.words import number
from trajtools.recurrences.recurrence import recurrence
from trajtools.recurrences.result import CONVENTIONS, MEASURES, Recurrence
from trajtools.store import Run


@click.command("recurrence")
@options.files
@selection
@click.option("--rate", type=click.FloatRange(0, 1, min_open=True), help="Recurrence rate; 0.05 if nothing is given.")
@click.option("--threshold", type=click.FloatRange(0, min_open=True), help="Distance below which states recur.")
@click.option("--scaled", type=click.FloatRange(0, min_open=True), help="The same, in standard deviations.")
@click.option("--neighbors", type=click.IntRange(min=1), help="So many nearest states recur, for each state.")
@click.option("--metric", default="l2", show_default=True, help="Distance between two states.")
@click.option("--theiler", type=click.IntRange(min=0), help="Lags below this are left out; from the convention.")
@click.option(
    "--convention", type=click.Choice(sorted(CONVENTIONS)), default="standard", show_default=True,
    help="Whose definitions.",
)  # fmt: skip
@click.option("--embed", callback=embedding, metavar="DIM,DELAY", help="Delay coordinates.")
@click.option("--lmin", type=click.IntRange(min=1), default=2, show_default=True, help="Shortest diagonal line.")
@click.option("--vmin", type=click.IntRange(min=1), default=2, show_default=True, help="Shortest vertical line.")
@click.option("--windows", type=click.IntRange(min=4), metavar="W", help="Also in windows of W states.")
@click.option("--distances", is_flag=True, help="Draw the distances, not the recurrences.")
@printing
def command(
    *,
    files: tuple[Path, ...],
    runs: tuple[str, ...],
    plot: Path | None,
    as_json: bool,
    output: Path | None,
    quiet: bool,
    **chosen: Any,
) -> None:
    """Quantify when the trajectory of each run of each FILE returns to where it has been.

    Lengths and times are in recorded states. A rule for what counts as a recurrence is --rate, --threshold, --scaled or
    --neighbors.
    """
    rule = rule_of(chosen)
    windows, distances = chosen["windows"], chosen["distances"]

    def look(run: Run) -> Recurrence:
        x = trajectory_of(run, chosen)
        dim, delay = chosen["embed"] or (1, 1)
        names = ("theiler", "convention", "metric", "lmin", "vmin")
        return recurrence(x, threshold=rule, dim=dim, delay=delay, **{name: chosen[name] for name in names})

    def words(found: Sequence[Found]) -> str:
        text = with_reasons(table_of(found), found)
        return "\n\n".join([text, *(windowed(one, windows) for one in found)]) if windows else text

    def draw(result: Recurrence, ax: Any) -> Any:
        from trajtools import plots

        return plots.recurrence(result, distances=distances, ax=ax)

    answer(Ask("recurrence", files, runs, plot, output, as_json, quiet), look, words, draw)


def rule_of(chosen: dict[str, Any]) -> Any:
    """Read the rule of what recurs.

    Parameters
    ----------
    chosen : dict
        ``rate, threshold, scaled, neighbors`` as click gives them.

    Returns
    -------
    RecurrenceRate, WithinRadius, ScaledRadius or NearestK
        The one that was given; a recurrence rate of 0.05 if none was.
    """
    given = {name: chosen[name] for name in ("rate", "threshold", "scaled", "neighbors") if chosen[name] is not None}
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(f'--{name}' for name in given)}: give one rule of what recurs")
    rules = {"rate": RecurrenceRate, "threshold": WithinRadius, "scaled": ScaledRadius, "neighbors": NearestK}
    name, value = next(iter(given.items()), ("rate", 0.05))
    return rules[name](value)


def table_of(found: Sequence[Found]) -> str:
    """Set the measures of all runs beside each other, one measure a line.

    Parameters
    ----------
    found : sequence of Found
        Results of `trajtools.recurrence`.

    Returns
    -------
    str
        The table.
    """
    rows = [[name, *(_set(one.result[name]) for one in found)] for name in MEASURES]
    rows.append(["threshold", *(number(float(one.result.threshold)) for one in found)])
    rows.append(["theiler", *(str(one.result.theiler) for one in found)])
    return options.table(["measure", *(one.run for one in found)], rows, right=range(1, len(found) + 1))


def _set(value: float) -> str:
    """Lengths and counts are whole numbers and stand as such."""
    return f"{value:,.0f}" if abs(value) >= 1 and float(value).is_integer() else number(value)


def windowed(one: Found, size: int) -> str:
    """Say some measures window by window.

    Parameters
    ----------
    one : Found
        Of one run.
    size : int
        States of a window.

    Returns
    -------
    str
        A table.
    """
    names = ("RR", "DET", "L", "LAM", "TT")
    found = one.result.windowed(size)
    rows = [
        [f"{start}-{start + found.size}", *(number(float(found.values[name][at])) for name in names)]
        for at, start in enumerate(found.start)
    ]
    head = f"{one.run}, in windows of {size} states"
    return f"{head}\n{options.table(['states', *names], rows, right=range(1, 6))}"
