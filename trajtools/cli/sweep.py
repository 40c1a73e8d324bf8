"""`trajtools sweep`: exponents and training times of many runs against a hyper-parameter."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trajtools.cli import options, printable
from trajtools.cli.printing import bullets, document, emit, table
from trajtools.cli.runner import (
    FILES_HELP,
    check_target,
    collecting,
    compile_notice,
    executor,
    expand,
    finish,
    plain_errors,
    probed,
    progress,
    report,
    save_figure,
)
from trajtools.cli.tables import check_is_file
from trajtools.errors import DataError

if TYPE_CHECKING:
    from trajtools.cli.printing import Block
    from trajtools.cli.runner import Errors
    from trajtools.sweeps.sweep import Options, Sweep

THRESHOLDS = (0.7, 0.8, 0.85, 0.9)  # of the library; a test compares them
CACHE_DAYS = 90  # since its last use, after which a cache that nobody named is deleted


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
@click.option("--exponent", type=options.measured_exponent, default="auto", show_default=True, metavar="WHICH",
              help="auto, trajectory, metric:NAME, or none.")  # fmt: skip
@click.option("--control", default="control", show_default=True, help="Runs with this in their hparams are controls.")
@click.option("--scaling", metavar="NAME,NAME", help="Fit a power law of the training time in these hyper-parameters.")
@options.workers
@options.scheduler
@click.option("--cache", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="Keep results of finished runs in FILE.  [default: in the user's cache folder]")  # fmt: skip
@click.option("--fresh", is_flag=True, help="Delete that file first, so that every run is measured.")
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
    cache: Path | None,
    fresh: bool,
    scaling: str | None,
    **chosen: Any,
) -> None:
    """Compare the runs of all FILEs: exponent, training time, loss; where chaos begins, and what trains fastest.

    Results of finished runs are kept, so that a sweep that was interrupted goes on when it is called again. A run is
    measured again if its file or an option has changed.
    """
    from trajtools.sweeps.sweep import UNREADABLE, Options, examine_and_measure

    errors: Errors = []
    seed, exponent = chosen.pop("seed"), chosen.pop("exponent")
    chosen |= {"exponent": None if exponent == "none" else exponent, "rng": seed}
    wanted = Options.of(**chosen)
    # Opening a run costs more than measuring it then, so the process that tries whether a file is safe does both.
    task = partial(examine_and_measure, *astuple(wanted)) if exponent == "none" else None
    known: dict[str, Any] = {}
    paths = readable(files, errors, task, known)
    for target, purpose in ((plot, "output"), (output, "output"), (cache, "cache")):
        if target is not None:
            check_target(target, paths, purpose)
    place = cache or own_cache(paths, quiet)
    if fresh and place is not None:
        from trajtools.sweeps.cache import Cache

        Cache(place)  # refuses a file of another kind, which must not be deleted
        place.unlink(missing_ok=True)
    new = _keep(known, wanted, place)
    # Only an exponent of weights runs kernels, and the notice imports their compiler.
    notice = compile_notice(quiet) if exponent in ("auto", "trajectory") else nullcontext()
    with notice, executor(workers, scheduler) as pool:
        try:
            result = measure(paths, chosen.pop("x"), pool, place, quiet, new=new, **chosen)
        except KeyboardInterrupt:
            if place is not None:
                words = f"Results of finished runs are kept in {place}: the same command goes on from there."
                click.echo(printable(words), err=True)
            raise
    unreadable = [str(reason) for reason in result.warnings if reason.code == UNREADABLE]
    for text in unreadable:
        click.echo(f"Error: {printable(text)}", err=True)
    factors = tuple(scaling.split(",")) if scaling else None
    if as_json:
        emit(document("sweep/1", **_plain(result, factors, seed), errors=plain_errors(errors)), output)
    else:
        emit(_text(result, factors, seed), output)
    if plot is not None:
        save_figure(_figure(result), plot)
    if errors or unreadable:
        click.get_current_context().exit(1)


def readable(
    files: tuple[Path, ...],
    errors: Errors,
    task: Callable[[str], Any] | None = None,
    known: dict[str, Any] | None = None,
) -> list[Path]:
    """The files that can be opened; the others are named on stderr, and end the command where there are no more.

    `known` gets by path what the task said of files that were not opened before.
    """
    from trajtools.sweeps.cache import decode

    paths = []
    for path, answer in probed(expand(files, errors), errors, task):
        with collecting(errors, path):
            check_is_file(path)
            paths.append(path)
            if known is not None and answer is not None:
                known[str(path)] = decode(answer)
    report(errors)
    if not paths:
        finish(errors)
    return paths


def _keep(known: Mapping[str, Any], options: Options, place: Path | None) -> int:
    """Put results into the cache; returns how many it took."""
    from trajtools.sweeps.cache import Cache, key_of

    keys = {} if place is None else {path: key for path in known if (key := key_of(path, options))}
    if place is not None and keys:
        cache = Cache(place)
        for path, key in keys.items():
            cache.put(key, known[path])
    return len(keys)


def own_cache(paths: list[Path], quiet: bool) -> Path | None:
    """Return the file in the user's cache folder for sweeps of these folders; None where there can be none.

    Files that were not used for a long time are deleted.
    """
    from trajtools.store.isolation import cache_folder

    folder = cache_folder() / "sweeps"
    content = sorted({os.path.realpath(path.parent) for path in paths})
    place = folder / f"{hashlib.sha256(repr(content).encode()).hexdigest()[:24]}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.jsonl"):
            if time.time() - file.stat().st_mtime > CACHE_DAYS * 86400:
                file.unlink(missing_ok=True)
        with place.open("ab"):
            os.utime(place)
    except OSError as error:
        if not quiet:
            click.echo(f"Results of finished runs are not kept: {printable(str(error))}.", err=True)
        return None
    return place


def measure(
    paths: list[Path], x: str, pool: Executor | None, cache: Path | None, quiet: bool, *, new: int = 0, **chosen: Any
) -> Sweep:
    """Measure every run, with progress; say how many were measured before, but for `new` ones in the cache."""
    import trajtools as tt

    with progress(len(paths), "Measuring runs", quiet) as advance:
        shown: int | None = None

        def show(done: int, total: int) -> None:
            nonlocal shown
            if shown is None and done > new and not quiet:
                click.echo(
                    f"{done - new} of {total} runs were measured before with these options and have not changed "
                    f"({printable(str(cache))}).",
                    err=True,
                )
            advance(done - (shown or 0))
            shown = done

        return tt.sweep(list(map(str, paths)), x, executor=pool, cache=cache, progress=show, **chosen)


def _text(result: Sweep, factors: tuple[str, ...] | None, seed: int) -> list[Block]:
    """The answer, the table, and what follows from it."""
    from trajtools.plots._axes import number
    from trajtools.sweeps.sweep import header, rows

    head = header(result)
    remarks = [f"- {words}" for words in result._remarks()]
    blocks: list[Block] = [result.summary(), [table(head, rows(result), keys=head.index("run") + 1), *remarks]]
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
        above = (*both.onset.reasons, *both.fastest.reasons)
        new = [reason for reason in both.reasons if reason not in above]
        blocks.append(bullets(f"do they coincide: {both.verdict}", new))
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
