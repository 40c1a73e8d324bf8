"""`trajtools sweep`: exponents and training times of many runs against a hyper-parameter."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trajtools.cli import options
from trajtools.cli.runner import (
    FILES_HELP,
    bullets,
    check_target,
    compile_notice,
    document,
    emit,
    executor,
    expand,
    finish,
    progress,
    report,
    save_figure,
    table,
    without_unsafe,
)
from trajtools.cli.tables import check_is_file
from trajtools.errors import DataError

if TYPE_CHECKING:
    from trajtools.cli.runner import Block, Errors
    from trajtools.sweeps.sweep import Sweep

THRESHOLDS = (0.7, 0.8, 0.85, 0.9)  # of the library; a test compares them


@click.command("sweep", epilog=FILES_HELP)
@options.files
@click.option("--x", default="lr", show_default=True, help="Hyper-parameter to compare along (a number in hparams).")
@click.option("--y", help="A second one, for a phase diagram.")
@click.option("--accuracy", default="accuracy", show_default=True, help="Metric for the training times.")
@click.option("--loss", default="loss", show_default=True, help="Metric for the final loss.")
@click.option("--threshold", "thresholds", type=float, multiple=True, default=THRESHOLDS, show_default=True,
              help="Accuracy to be reached; repeatable.")  # fmt: skip
@click.option("--stays", type=click.IntRange(min=1), default=1, show_default=True,
              help="Number of recorded states that it must be held for.")  # fmt: skip
@click.option("--exponent", default="auto", show_default=True, help="auto, trajectory, metric:NAME, or none.")
@click.option("--control", default="control", show_default=True, help="Runs with this in their hparams are controls.")
@click.option("--scaling", metavar="NAME,NAME", help="Fit a power law of the training time in these hyper-parameters.")
@options.workers
@options.scheduler
@options.seed
@options.plot
@options.as_json
@options.output
@options.quiet
@options.debug
def sweep(
    *,
    files: tuple[Path, ...],
    plot: Path | None,
    as_json: bool,
    output: Path | None,
    quiet: bool,
    workers: int,
    scheduler: str | None,
    scaling: str | None,
    **chosen: Any,
) -> None:
    """Compare the runs of all FILEs: exponent, training time, loss; where chaos begins, and what trains fastest."""
    errors: Errors = []
    paths = without_unsafe(expand(files, errors), errors)
    report(errors)
    finish(errors)
    for path in paths:
        check_is_file(path)
    for target in (plot, output):
        if target is not None:
            check_target(target, paths)
    with compile_notice(quiet), executor(workers, scheduler) as pool:
        result = _measure(paths, chosen, pool, quiet)
    factors = tuple(scaling.split(",")) if scaling else None
    if as_json:
        emit(document("sweep/1", **_plain(result, factors, chosen["seed"])), output)
    else:
        emit(_text(result, factors, chosen["seed"]), output)
    if plot is not None:
        save_figure(_figure(result), plot)


def _measure(paths: list[Path], chosen: dict[str, Any], pool: Executor | None, quiet: bool) -> Sweep:
    """Measure every run."""
    import trajtools as tt

    names = ("y", "accuracy", "loss", "thresholds", "stays", "control")
    with progress(100, "Measuring runs", quiet) as advance:
        shown = 0

        def show(done: int, total: int) -> None:
            nonlocal shown
            percent = 100 * done // total
            advance(percent - shown)
            shown = percent

        return tt.sweep(
            list(map(str, paths)),
            chosen["x"],
            **{name: chosen[name] for name in names},
            exponent=None if chosen["exponent"] == "none" else chosen["exponent"],
            executor=pool,
            progress=show,
            rng=chosen["seed"],
        )


def _text(result: Sweep, factors: tuple[str, ...] | None, seed: int) -> list[Block]:
    """Return the table and what follows from it."""
    from trajtools.plots._axes import number
    from trajtools.sweeps.sweep import header, rows

    remarks = [f"- {words}" for words in result._remarks()]
    blocks: list[Block] = [[table(header(result), rows(result)), *remarks]]
    if result.y_name:
        diagram = result.phase_diagram(rng=seed)
        onsets = [
            [f"{y:g}", *(number(float(v)) for v in (value, *interval))]
            for y, value, interval in zip(diagram.y, diagram.boundary, diagram.intervals, strict=True)
        ]
        blocks.append(table([result.y_name, f"onset in {result.x_name}", "from", "to"], onsets, right=(0, 1, 2, 3)))
        blocks.append("\n".join(f"  - {reason}" for reason in diagram.reasons))
    else:
        both = result.coincidence(rng=seed)
        blocks.append(bullets("onset of chaos:", both.onset.reasons))
        blocks.append(bullets("fastest training:", both.fastest.reasons))
        blocks.append(bullets(f"do they coincide: {both.verdict}", both.reasons))
    if factors is not None:
        blocks.append(str(result.scaling(factors, rng=seed)))
    return blocks


def _plain(result: Sweep, factors: tuple[str, ...] | None, seed: int) -> dict[str, Any]:
    """Return the table and what follows from it, as JSON can hold it."""
    plain: dict[str, Any] = {"sweep": result.to_dict()}
    if result.y_name:
        plain["phase_diagram"] = result.phase_diagram(rng=seed).to_dict()
    else:
        plain["coincidence"] = result.coincidence(rng=seed).to_dict()
    if factors is not None:
        plain["scaling"] = result.scaling(factors, rng=seed).to_dict()
    return plain


def _figure(result: Sweep) -> Any:
    """Draw the sweep, or its phase diagram."""
    from trajtools import plots

    if not result.points:
        raise DataError("the sweep holds no runs to plot")
    return result.phase_diagram().plot().figure if result.y_name else plots.sweep(result)
