"""`trajtools curvature`: recorded curvature against the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from trajtools.cli import each_run, options
from trajtools.cli.each_run import Ask, Found, answer, with_reasons
from trajtools.plots.words import number
from trajtools.store import Run
from trajtools.training.curvature import KINDS, Curvature, curvature


@click.command("curvature")
@options.files
@options.runs
@click.option("--of", type=click.Choice(KINDS), help="Whose Hessian; the first of these that was recorded.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Learning rate, if the run does not know.")
@click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), help="Likewise.")
@each_run.seed
@each_run.strict
@each_run.printing
def command(
    *,
    files: tuple[Path, ...],
    runs: tuple[str, ...],
    plot: Path | None,
    as_json: bool,
    output: Path | None,
    quiet: bool,
    strict: bool,
    **chosen: Any,
) -> None:
    """Ask where each run of each FILE stands to the edge of stability.

    From the curvature that probes recorded (`sharpness`, `Shadow`): learning rate x largest curvature, with the level
    at which the optimiser loses its stability, and the local exponents that follow beside those measured.
    """

    def look(run: Run) -> Curvature:
        return curvature(run, of=chosen["of"], rate=chosen["rate"], momentum=chosen["momentum"], rng=chosen["seed"])

    def words(found: Sequence[Found]) -> str:
        return with_reasons(table_of(found), found)

    def draw(result: Curvature, ax: Any) -> Any:
        from trajtools import plots

        return plots.curvature(result, ax=ax)

    answer(Ask("curvature", files, runs, plot, output, as_json, quiet, strict), look, words, draw)


def table_of(found: Sequence[Found]) -> str:
    """Set the runs below each other.

    Parameters
    ----------
    found : sequence of Found
        Results of `trajtools.curvature`.

    Returns
    -------
    str
        The table.
    """
    head = ["run", "verdict", "edge at", "entry step", "rate x h_max after", "95 % interval", "r(measured, predicted)"]
    rows = []
    for one in found:
        low, high = one.result.after_interval
        rows.append(
            [
                one.run,
                one.result.verdict,
                number(one.result.threshold),
                number(one.result.entry),
                number(one.result.after),
                f"[{number(low)}, {number(high)}]",
                number(one.result.agreement),
            ]
        )
    return options.table(head, rows, right=(2, 3, 4, 6))
