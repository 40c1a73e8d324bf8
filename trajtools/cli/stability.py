"""`trajtools stability`: whether perturbed trainings come back to the orbit of their reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from trajtools.cli import each_run, options
from trajtools.cli.asking import span
from trajtools.cli.each_run import Ask, Found, answer, with_reasons
from trajtools.plots.words import number
from trajtools.stability.orbital import OrbitalStability, orbital_stability
from trajtools.store import Run


@click.command("stability")
@options.files
@options.runs
@click.option("--metric", default="l1", show_default=True, help="Distance between two states.")
@click.option("--window", callback=span(int), metavar="START:STOP", help="Only these steps of the training.")
@click.option("--start", type=click.IntRange(min=0), help="Step of the perturbation, if the run does not know.")
@click.option(
    "--level", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True,
    help="Confidence level of the intervals.",
)  # fmt: skip
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
    """Ask of the twins in each run of each FILE whether they come back to the orbit of their reference.

    Distance at equal times (dynamical stability) and distance to the orbit, wherever on it (orbital stability), with
    the phase lag between them.
    """

    def look(run: Run) -> OrbitalStability:
        names = ("metric", "window", "start", "level")
        return orbital_stability(run, **{name: chosen[name] for name in names}, rng=chosen["seed"])

    def words(found: Sequence[Found]) -> str:
        return with_reasons(table_of(found), found)

    def draw(result: OrbitalStability, ax: Any) -> Any:
        from trajtools import plots

        return plots.stability(result, ax=ax)

    answer(Ask("stability", files, runs, plot, output, as_json, quiet, strict), look, words, draw)


def table_of(found: Sequence[Found]) -> str:
    """Set the verdicts and the evidence for them beside each other.

    Parameters
    ----------
    found : sequence of Found
        Results of `trajtools.orbital_stability`.

    Returns
    -------
    str
        The table.
    """
    head = ["run", "twins", "verdict", "equal times x", "interval", "orbit x", "interval", "Frechet", "tube", "lag"]
    return options.table(head, [_row(one) for one in found], right=(1, 3, 5, 7, 8, 9))


def _row(one: Found) -> list[str]:
    result: OrbitalStability = one.result
    late = result.lag[:, -max(1, result.lag.shape[1] // 10) :]
    lag = float(np.median(late[np.isfinite(late)])) if np.isfinite(late).any() else float("nan")
    cells = [one.run, str(len(result.group)), result.verdict]
    for trend in (result.dynamical, result.orbital):
        low, high = np.exp(trend.change_interval)
        cells += [number(float(np.exp(trend.change))), f"[{number(float(low))}, {number(float(high))}]"]
    return [*cells, number(_middle(result.frechet)), number(_middle(result.tube)), number(lag)]


def _middle(values: Any) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
