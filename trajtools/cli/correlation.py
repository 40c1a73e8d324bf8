"""`trajtools correlation`: the autocorrelation of one trajectory of networks, and its cycles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from trajtools.cli import each_run, options
from trajtools.cli.each_run import Ask, Found, answer, printing, selection, trajectory_of, with_reasons
from trajtools.errors import DataError
from trajtools.plots.words import number
from trajtools.store import Run
from trajtools.structure.autocorrelation import Autocorrelation, autocorrelation

SHOWN = 12


def detrending(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str | int | None:
    """Read how to detrend: a name, or a degree or length as a whole number.

    Parameters
    ----------
    _ctx, _parameter : object
        Of the command line.
    value : str or None
        As given.

    Returns
    -------
    str, int or None
        As `trajtools.autocorrelation` takes it.
    """
    return int(value) if value is not None and value.isdigit() else value


@click.command("correlation")
@options.files
@selection
@click.option("--lags", type=click.IntRange(min=1), help="Largest lag, in recorded states.")
@click.option("--detrend", callback=detrending, metavar="HOW", help="linear, diff, or a length of a moving mean.")
@click.option("--per", type=click.Choice(["layer", "parameter", "kind"]), help="Also for each of these.")
@click.option("--null", default="shuffle", show_default=True, help="What the band is drawn from; none: no band.")
@click.option("--surrogates", type=click.IntRange(min=1), default=199, show_default=True, help="Drawn from the null.")
@each_run.seed
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
    """Correlate the trajectory of each run of each FILE with itself, some states later.

    The sum over all weights of their autocovariances over the sum of their variances. A training drifts, which alone
    correlates it: --window and --detrend take that out.
    """

    def look(run: Run) -> Autocorrelation:
        null = None if chosen["null"] == "none" else chosen["null"]
        given = {name: chosen[name] for name in ("lags", "detrend", "per", "surrogates")}
        try:
            return autocorrelation(trajectory_of(run, chosen), **given, null=null, rng=chosen["seed"])
        except ValueError as problem:
            raise DataError(str(problem)) from problem

    def words(found: Sequence[Found]) -> str:
        return with_reasons("\n\n".join(f"{one.run}\n{table_of(one.result)}" for one in found), found)

    def draw(result: Autocorrelation, ax: Any) -> Any:
        from trajtools import plots

        return plots.autocorrelation(result, ax=ax)

    answer(Ask("correlation", files, runs, plot, output, as_json, quiet), look, words, draw)


def table_of(result: Autocorrelation) -> str:
    """Say some lags, spread evenly on a logarithmic scale, and the test over all of them.

    Parameters
    ----------
    result : Autocorrelation
        Of one run.

    Returns
    -------
    str
        Several lines.
    """
    last = len(result.lag) - 1
    lags = np.unique(np.round(np.geomspace(1, max(last, 1), SHOWN)).astype(int)) if last else np.array([0])
    rows = []
    for at in [0, *lags[lags <= last]]:
        low, high = float(result.low[at]), float(result.high[at])
        band = f"[{number(low)}, {number(high)}]" if np.isfinite(low) else "-"
        layers = [number(float(values[at])) for values in result.layer_values]
        time, value = number(float(result.time[at])), number(float(result.values[at]))
        rows.append([str(result.lag[at]), time, value, band, *layers])
    head = ["lag", result.time_unit, "autocorrelation", "band of the null", *result.layers]
    text = options.table(head, rows, right=(0, 1, 2))
    if np.isfinite(result.p_value):
        text += f"\nlargest value at any lag: p = {number(result.p_value)} against {result.null}"
    return text
