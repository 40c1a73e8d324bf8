"""`trajtools sweep`: many runs, their exponents and training times against a hyper-parameter."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import click

from trajtools.cli import each_run, options
from trajtools.cli.lyapunov import check_plot, progress, saying_that_it_compiles
from trajtools.cli.reading import check_is_file
from trajtools.cli.workers import executor_of, hands
from trajtools.errors import DataError
from trajtools.plots.words import number
from trajtools.sweeps.sweep import THRESHOLDS, Sweep, as_text, sweep


@click.command("sweep")
@options.files
@click.option("--x", default="lr", show_default=True, help="Hyper-parameter of the runs (hparams), a number.")
@click.option("--y", help="A second one: gives the phase diagram.")
@click.option("--accuracy", default="accuracy", show_default=True, help="Metric that training times are taken from.")
@click.option("--loss", default="loss", show_default=True, help="Metric of the final loss.")
@click.option("--threshold", "thresholds", type=float, multiple=True, default=THRESHOLDS, show_default=True,
              help="Accuracy to be reached; may be repeated.")  # fmt: skip
@click.option("--stays", type=click.IntRange(min=1), default=1, show_default=True, help="For so many recorded states.")
@click.option("--exponent", default="auto", show_default=True, help="auto, trajectory, metric:NAME, or none.")
@click.option("--control", default="control", show_default=True, help="Runs with this in hparams are controls.")
@click.option("--scaling", metavar="NAME,NAME", help="Fit a power law of the training time in these hyper-parameters.")
@hands
@each_run.seed
@each_run.printing
def command(
    *,
    files: tuple[Path, ...],
    plot: Path | None,
    as_json: bool,
    output: Path | None,
    quiet: bool,
    **chosen: Any,
) -> None:
    """Set the runs of all FILEs beside each other: exponent, training time, loss; where chaos begins, what is fastest.

    A FILE may be a pattern in quotes.
    """
    check_plot(plot, ())
    for path in files:
        if not any(c in str(path) for c in "*?["):
            check_is_file(path)
    with saying_that_it_compiles(quiet), executor_of(chosen["workers"], chosen["scheduler"]) as pool:
        found = measured(files, chosen, pool, quiet)
    factors = tuple(chosen["scaling"].split(",")) if chosen["scaling"] else None
    if as_json:
        options.emit(options.document("sweep/1", **as_plain(found, factors, chosen["seed"])), output)
    else:
        options.emit(in_words(found, factors, chosen["seed"]), output)
    if plot is not None:
        draw(found, plot)


def measured(files: tuple[Path, ...], chosen: dict[str, Any], pool: Executor | None, quiet: bool) -> Sweep:
    """Measure every run.

    Parameters
    ----------
    files : tuple of Path
        Files and patterns.
    chosen : dict
        What click gives.
    pool : Executor or None
        Who does the work.
    quiet : bool
        No progress.

    Returns
    -------
    Sweep
        All runs.
    """
    names = ("y", "accuracy", "loss", "thresholds", "stays", "control")
    exponent = None if chosen["exponent"] == "none" else chosen["exponent"]
    given = {name: chosen[name] for name in names}
    with progress(100, "runs", quiet) as step:
        shown = [0]

        def show(done: int, total: int) -> None:
            now = 100 * done // total
            step(now - shown[0])
            shown[0] = now

        return sweep(
            [str(path) for path in files], chosen["x"], **given, exponent=exponent, executor=pool, progress=show,
            rng=chosen["seed"],
        )  # fmt: skip


def in_words(found: Sweep, factors: tuple[str, ...] | None, rng: int) -> str:
    """Say the table and what follows from it.

    Parameters
    ----------
    found : Sweep
        The runs.
    factors : tuple of str or None
        Of a power law.
    rng : int
        Seed of the resampling.

    Returns
    -------
    str
        Several paragraphs.
    """
    text = [as_text(found)]
    if found.y_name:
        diagram = found.phase_diagram(rng=rng)
        rows = [
            [f"{y:g}", *(number(float(v)) for v in (value, *interval))]
            for y, value, interval in zip(diagram.y, diagram.boundary, diagram.intervals, strict=True)
        ]
        head = [found.y_name, f"onset in {found.x_name}", "from", "to"]
        text.append(options.table(head, rows, right=(0, 1, 2, 3)))
        text.append("\n".join(f"  - {words}" for words in diagram.reasons))
    else:
        both = found.coincidence(rng=rng)
        text.append("\n".join(["onset of chaos:", *(f"  - {words}" for words in both.onset.reasons)]))
        text.append("\n".join(["fastest training:", *(f"  - {words}" for words in both.fastest.reasons)]))
        text.append("\n".join([f"do they coincide: {both.verdict}", *(f"  - {words}" for words in both.reasons)]))
    if factors is not None:
        text.append(str(found.scaling(factors, rng=rng)))
    return "\n\n".join(text)


def as_plain(found: Sweep, factors: tuple[str, ...] | None, rng: int) -> dict[str, Any]:
    """Give the table and what follows from it as plain data.

    Parameters
    ----------
    found : Sweep
        The runs.
    factors : tuple of str or None
        Of a power law.
    rng : int
        Seed of the resampling.

    Returns
    -------
    dict
        Ready for JSON.
    """
    plain: dict[str, Any] = {"sweep": found.to_dict()}
    if found.y_name:
        plain["phase_diagram"] = found.phase_diagram(rng=rng).to_dict()
    else:
        plain["coincidence"] = found.coincidence(rng=rng).to_dict()
    if factors is not None:
        plain["scaling"] = found.scaling(factors, rng=rng).to_dict()
    return plain


def draw(found: Sweep, path: Path) -> None:
    """Draw the sweep, or its phase diagram.

    Parameters
    ----------
    found : Sweep
        The runs.
    path : Path
        The figure; overwritten if it is there.

    Raises
    ------
    DataError
        If there is nothing to draw.
    """
    from trajtools import plots

    if not found.points:
        raise DataError("the sweep holds no run: nothing to draw")
    if found.y_name:
        figure = found.phase_diagram().plot().figure
    else:
        figure = plots.sweep(found)
    figure.savefig(path)
