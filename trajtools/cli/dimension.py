"""`trajtools dimension`: the correlation dimension of one trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from trajtools.cli import each_run, options
from trajtools.cli.each_run import Ask, Found, answer, printing, selection, trajectory_of, with_reasons
from trajtools.plots.words import number
from trajtools.store import Run
from trajtools.structure.dimension import Dimension, correlation_dimension


@click.command("dimension")
@options.files
@selection
@click.option("--metric", default="l2", show_default=True, help="Distance between two states.")
@click.option("--theiler", type=click.IntRange(min=0), help="States closer in time, in samples, are no pair.")
@click.option("--dims", type=click.IntRange(min=1), help="Largest embedding dimension of a series.")
@click.option("--delay", type=click.IntRange(min=1), help="Delay of the embedding, in samples.")
@each_run.seed
@each_run.strict
@printing
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
    """Estimate the correlation dimension of the trajectory of each run of each FILE.

    From the slope of the correlation sum over its scaling region, with an interval, Takens' estimator beside it, and
    'inconclusive' where there is no such region or too few states.
    """

    def look(run: Run) -> Dimension:
        given = {name: chosen[name] for name in ("metric", "theiler", "dims", "delay")}
        return correlation_dimension(trajectory_of(run, chosen), **given, rng=chosen["seed"])

    def words(found: Sequence[Found]) -> str:
        return with_reasons(table_of(found), found)

    def draw(result: Dimension, ax: Any) -> Any:
        from trajtools import plots

        return plots.correlation_dimension(result, ax=ax)

    answer(Ask("dimension", files, runs, plot, output, as_json, quiet, strict), look, words, draw)


def table_of(found: Sequence[Found]) -> str:
    """Set the dimensions of all runs below each other.

    Parameters
    ----------
    found : sequence of Found
        Results of `trajtools.correlation_dimension`.

    Returns
    -------
    str
        The table.
    """
    rows = [
        [
            one.run,
            number(one.result.value),
            _interval(one.result.interval),
            one.result.verdict,
            _interval(one.result.region),
            number(one.result.takens),
        ]
        for one in found
    ]
    head = ["run", "dimension", "95 % interval", "verdict", "radii", "Takens"]
    return options.table(head, rows, right=(1, 5))


def _interval(span: tuple[float, float]) -> str:
    return f"[{number(float(span[0]))}, {number(float(span[1]))}]" if np.isfinite(span[0]) else "unknown"
