"""`trajtools demo`: train, record, analyse and report, on real data, with the ordinary dependencies alone."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trajtools.cli import lyapunov, options
from trajtools.cli.printing import bullets, document, emit, table
from trajtools.cli.runner import (
    Request,
    finish,
    module_command,
    module_environment,
    plain_errors,
    report as report_errors,
)
from trajtools.errors import DataError, RecordingError

if TYPE_CHECKING:
    from trajtools.cli.printing import Block
    from trajtools.report.collect import Analysis
    from trajtools.sweeps.sweep import Sweep

PARAMETERS = 83
ROWS_PER_CHUNK = 64
PUBLISHED = "danovski2024"


@click.command("demo")
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path, file_okay=False), default="trajtools-demo",
              show_default=True, help="Folder for the runs and report.html.")  # fmt: skip
@click.option("--rates", type=options.learning_rates, default="0.01,0.5,1,2", show_default=True, metavar="R,R,...",
              help="Learning rates.")  # fmt: skip
@click.option("--inits", type=click.IntRange(min=2), default=75, show_default=True, help="Initial conditions.")
@click.option("--copies", type=click.IntRange(min=1), default=5, show_default=True, help="Perturbed copies of each.")
@click.option("--steps", type=click.IntRange(min=10), default=300, show_default=True, help="Steps of gradient descent.")
@click.option("--epsilon", type=click.FloatRange(min=0), default=1e-8, show_default=True,
              help="Size of the perturbation of a weight.")  # fmt: skip
@options.seed
@click.option("--force", is_flag=True, help="Delete what an earlier demo left in the folder.")
@options.strict
@options.as_json
@options.quiet
@options.debug
def demo(
    *, folder: Path, rates: list[float], inits: int, copies: int, steps: int, epsilon: float, seed: int, force: bool,
    strict: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train a small network on Fisher's Iris data, record it, analyse it and write a report.

    Trains at several learning rates, from many initial weights, with copies that differ by 1e-8; records every step;
    measures how fast the copies diverge.
    """
    from rich.filesize import decimal

    from trajtools.report.render import demo_page

    started = time.monotonic()
    page = folder / "report.html"
    _make_room(folder, page, force=force)

    def note(message: str) -> None:
        if not quiet:
            click.echo(message, err=True)

    members = inits * (1 + copies)
    states = -(-(steps + 1) // ROWS_PER_CHUNK) * ROWS_PER_CHUNK  # the file grows by whole chunks
    size = decimal(8 * PARAMETERS * members * states * len(rates))
    note(f"Training {len(rates)} x {members} networks for {steps} steps; every step is recorded (about {size}) ...")
    _train(
        folder, rates=",".join(map(repr, rates)), inits=inits, copies=copies, steps=steps, epsilon=epsilon, seed=seed,
        quiet=quiet,
    )  # fmt: skip
    note("Measuring how fast the copies diverge ...")
    settings = lyapunov.Settings(seed=seed)
    outcomes, errors = Request("demo", (folder,), quiet=quiet).each_run(
        lambda source: lyapunov.analyse(source, settings, published=PUBLISHED)
    )
    report_errors(errors)
    answers: list[Analysis] = [one.result for one in outcomes]
    sizes = {"initial conditions": str(inits), "copies of each": str(copies), "steps": str(steps)}
    swept = _sweep(answers)
    page.write_text(demo_page(answers, _recording(folder, sizes, epsilon, seed), swept), encoding="utf-8")
    if as_json:
        results = [lyapunov.with_curve(answer) for answer in answers]
        emit(document("demo/1", folder=str(folder), report=str(page), results=results, errors=plain_errors(errors)))
    elif outcomes:
        emit(_text(answers, swept))
    note(f"\nDone in {time.monotonic() - started:.0f} s. Open {page} for the curves, the reasons and how to read them.")
    note(f"Next: trajtools info {folder}\n      trajtools lyapunov {folder}/eta=1.h5 --procedure {PUBLISHED}")
    finish(errors, [answer.exponent.verdict for answer in answers] if strict else ())


def _make_room(folder: Path, page: Path, *, force: bool) -> None:
    """Create the folder; refuse to overwrite an earlier demo unless forced."""
    present = [target for target in (*sorted(folder.glob("eta=*.h5")), page) if target.exists()]
    if present and not force:
        raise DataError(
            f"{present[0]} exists, and a recorded run is never overwritten: `--force` deletes it, `-o FOLDER` puts the "
            "demo elsewhere"
        )
    for target in present:
        target.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _train(folder: Path, *, quiet: bool, **chosen: Any) -> None:
    """Train and record in a process of its own: the analysis does not import the recorders."""
    arguments = [argument for name, value in chosen.items() for argument in (f"--{name}", str(value))]
    command = module_command("recorders.iris", str(folder), *arguments, *(["--quiet"] if quiet else []))
    status = subprocess.run(command, env=module_environment(), check=False).returncode
    if status:
        raise RecordingError(f"the training ended with exit status {status}; its messages are above")


def _sweep(answers: list[Analysis]) -> Sweep | None:
    """The runs as a sweep, with the exponents that are known already; None for a single learning rate."""
    import trajtools as tt

    if len(answers) < 2:
        return None
    exponents = {answer.run: answer.exponent for answer in answers}
    swept = tt.sweep([answer.file for answer in answers], "learning_rate", exponent=None)
    return replace(swept, points=tuple(replace(p, exponent=exponents.get(p.run)) for p in swept.points))


def _recording(folder: Path, sizes: dict[str, str], epsilon: float, seed: int) -> dict[str, str]:
    """Return what the report says about the recording."""
    from rich.filesize import decimal

    files = list(folder.glob("eta=*.h5"))
    size = decimal(sum(file.stat().st_size for file in files))
    return {
        "data": "Fisher's Iris: 150 flowers, 4 features in cm, not scaled; a seeded random 120 train, 30 test",
        "network": f"4-10-3, sigmoid hidden units, softmax output: {PARAMETERS} weights and biases, float64",
        "start": "weights drawn from N(0, 1), biases 0",
        "training": "full-batch gradient descent on the mean cross-entropy, no momentum: there is no noise, so copies "
        "separate by the dynamics alone",
        "perturbation": f"uniform in [-{epsilon:g}, {epsilon:g}] on every weight, biases unchanged; at step 0, and "
        "anew once a copy has saturated (some earlier), so that the training has several starts",
        **sizes,
        "seed": str(seed),
        "files": f"{len(files)} in {folder.name}, {size}: every weight at every step",
        "after": "Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024)",
    }


def _text(answers: list[Analysis], swept: Sweep | None) -> list[Block]:
    """The answer in a sentence, the numbers, and a sentence about each learning rate."""
    from trajtools.plots._axes import interval, number, waiting

    rows, words = [], []
    for answer in answers:
        one, published = answer.exponent, answer.published
        rate = answer.run.removeprefix("eta=")
        papers = "none left"
        if published is not None and published.n_used:
            papers = f"{number(published.value)} from {published.used_fraction:.0%}"
        rows.append([rate, number(one.value), interval(one), waiting(one), one.verdict, papers])
        words.append(f"{rate}: {one.summary()}")
    head = [
        "learning rate", "exponent while growing", f"{answers[0].exponent.level:.0%} interval", "waiting (steps)",
        "verdict", "papers' procedure",
    ]  # fmt: skip
    notes = (
        "exponent while growing: e-folds per step between the onset of growth and a factor 50 below saturation",
        "waiting: steps from a perturbation to the onset of growth, median (10 % to 90 %)",
        f"papers' procedure ({PUBLISHED}): mean slope of the straightest windows of the initial conditions that pass "
        "its filter, and their share; the others are left out, so it is high and never zero",
    )
    return [
        *([swept.summary()] if swept is not None else []),
        table(head, rows, right=(0, 1, 2, 3)),
        bullets("At learning rate", words),
        bullets("How to read it:", notes),
    ]
