"""`trajtools distances`: the distances of all states of one trajectory to each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from trajtools.cli import options
from trajtools.cli.each_run import Ask, Found, answer, printing, selection, trajectory_of, with_reasons
from trajtools.cli.workers import executor_of, hands
from trajtools.distances.metric import METRICS
from trajtools.distances.pairwise import Distances, pairwise
from trajtools.errors import DataError
from trajtools.plots.words import number
from trajtools.store import Run

ROWS = 256


@click.command("distances")
@options.files
@selection
@click.option("--metric", default="l2", show_default=True, help=f"One of {', '.join(METRICS)}.")
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="Keep the matrix in this file.")
@hands
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
    """Measure the distances between all states of the trajectory of each run of each FILE.

    Prints a summary; --save keeps the whole matrix, for `trajtools.Distances.open` and for runs too long for memory: an
    interrupted computation goes on where it was.
    """
    save: Path | None = chosen["save"]
    used: list[str] = []

    def look(run: Run) -> Distances:
        if save is not None:
            if used:
                raise DataError(f"{save} holds the distances of one run; {run.name!r} is another: choose with --run")
            options.check_target(save, files)
        found = pairwise(trajectory_of(run, chosen), metric=chosen["metric"], out=save, executor=pool)
        used.append(run.name)
        return found

    def words(found: Sequence[Found]) -> str:
        return with_reasons(table_of(found), found)

    def summarised(run: Run) -> Any:
        found = look(run)
        return {**summary(found), "path": found.path, "settings": found.settings} if as_json and plot is None else found

    with executor_of(chosen["workers"], chosen["scheduler"]) as pool:
        answer(Ask("distances", files, runs, plot, output, as_json, quiet), summarised, words, draw)


def draw(result: Distances, ax: Any) -> None:
    """Draw the matrix.

    Parameters
    ----------
    result : Distances
        Of one run.
    ax : matplotlib.axes.Axes
        Where to draw.
    """
    from trajtools import plots

    plots.distances(result, ax=ax)


def summary(found: Distances) -> dict[str, Any]:
    """Describe a matrix of distances, a block of rows at a time.

    Parameters
    ----------
    found : Distances
        Square.

    Returns
    -------
    dict
        ``states, excluded``; ``smallest, mean, largest`` of all pairs; ``step`` (median distance of neighbouring
        states); ``first_to_last``; ``contrast`` (median over the states of nearest over mean distance, neighbours in
        time left out); ``below_floor``, the share of pairs below the rounding floor.
    """
    T = len(found)
    low, high, total, count, under = np.inf, -np.inf, 0.0, 0, 0
    steps, contrast = np.full(T, np.nan), np.full(T, np.nan)
    for start in range(0, T, ROWS):
        block = found.read(start, min(start + ROWS, T))
        rows = np.arange(start, start + len(block))
        apart = np.abs(rows[:, None] - np.arange(T))
        block = np.where(apart > 0, block, np.nan)
        known = np.isfinite(block)
        if known.any():
            low, high = min(low, float(np.nanmin(block))), max(high, float(np.nanmax(block)))
        total, count = total + float(block[known].sum()), count + int(known.sum())
        with np.errstate(invalid="ignore"):
            under += int(np.sum(block < found.floor[rows][:, None]))
        after = rows[rows + 1 < T]
        steps[after] = block[after - start, after + 1]
        contrast[rows] = _contrast(np.where(apart > 1, block, np.nan))
    return {
        "states": T,
        "excluded": found.n_excluded,
        "metric": found.metric,
        "smallest": low if count else float("nan"),
        "mean": total / count if count else float("nan"),
        "largest": high if count else float("nan"),
        "step": _median(steps),
        "first_to_last": float(found.read(0, 1)[0, -1]) if T else float("nan"),
        "contrast": _median(contrast),
        "below_floor": under / count if count else float("nan"),
    }


def _contrast(block: Any) -> Any:
    out = np.full(len(block), np.nan)
    some = np.isfinite(block).any(axis=1)
    mean = np.nanmean(block[some], axis=1)
    out[some] = np.where(mean > 0, np.nanmin(block[some], axis=1) / np.where(mean > 0, mean, 1.0), np.nan)
    return out


def _median(values: Any) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def table_of(found: Sequence[Found]) -> str:
    """Set the summaries of all runs beside each other.

    Parameters
    ----------
    found : sequence of Found
        Results of `trajtools.pairwise`.

    Returns
    -------
    str
        The table.
    """
    each = [summary(one.result) for one in found]
    names = list(each[0])
    rows = [[name.replace("_", " "), *(_cell(one[name]) for one in each)] for name in names]
    return options.table(["", *(one.run for one in found)], rows, right=range(1, len(found) + 1))


def _cell(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)
