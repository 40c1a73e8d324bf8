"""`trajtools demo`: train, record, analyse and report, on real data and with nothing but what is installed."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import click

from trajtools.cli import options
from trajtools.cli.analysis import head, row
from trajtools.cli.asking import Choices
from trajtools.cli.lyapunov import gather, leave, with_curve
from trajtools.cli.reading import tell, told
from trajtools.cli.recorder_process import command_line, environment
from trajtools.errors import DataError, RecordingError
from trajtools.plots.words import kept, number, spread
from trajtools.report.answers import Answer
from trajtools.report.demo import demo_page

PARAMETERS = 83
BLOCK = 64
PUBLISHED = "danovski2024"


@click.command("demo")
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path, file_okay=False), default="trajtools-demo",
              show_default=True, help="Folder for iris.h5 and report.html.")  # fmt: skip
@click.option("--rates", default="0.01,0.5,1,2", show_default=True, metavar="R,R,...", help="Learning rates.")
@click.option("--inits", type=click.IntRange(min=2), default=75, show_default=True, help="Initial conditions.")
@click.option("--copies", type=click.IntRange(min=1), default=5, show_default=True, help="Perturbed copies of each.")
@click.option("--steps", type=click.IntRange(min=10), default=200, show_default=True, help="Steps of gradient descent.")
@click.option("--epsilon", type=float, default=1e-8, show_default=True, help="Size of the perturbation of a weight.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same numbers."
)
@click.option("--force", is_flag=True, help="Delete what an earlier demo left in the folder.")
@click.option("--strict", is_flag=True, help="Exit with status 3 if a verdict is inconclusive.")
@options.as_json
@options.quiet
@options.debug
def command(
    *, folder: Path, rates: str, inits: int, copies: int, steps: int, epsilon: float, seed: int, force: bool,
    strict: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train a small network on Fisher's Iris at several learning rates, from many initial weights and with copies that
    differ by 1e-8; record every step; measure how fast the copies run away; write a report.
    """
    began = time.monotonic()
    values = parsed_rates(rates)
    file, report = folder / "iris.h5", folder / "report.html"
    make_room(folder, (file, report), force=force)

    def say(words: str) -> None:
        if not quiet:
            click.echo(words, err=True)

    members = inits * (1 + copies)
    states = -(-(steps + 1) // BLOCK) * BLOCK  # the file grows by whole blocks
    size = options.megabytes(8.0 * PARAMETERS * members * states * len(values))
    say(f"Training {len(values)} x {members} networks for {steps} steps; every step goes to {file} (about {size}) ...")
    train(file, rates=rates, inits=inits, copies=copies, steps=steps, epsilon=epsilon, seed=seed, quiet=quiet)
    say("Measuring how the copies diverge (the first time, kernels are compiled) ...")
    answers, errors = gather((file,), (), Choices(seed=seed), quiet=quiet, published=PUBLISHED)
    tell(errors)
    sizes = {"initial conditions": str(inits), "copies of each": str(copies), "steps": str(steps)}
    report.write_text(demo_page(answers, recorded(file, sizes, epsilon, seed)), encoding="utf-8")
    if as_json:
        results = [with_curve(answer) for answer in answers]
        click.echo(options.document("demo/1", file=str(file), report=str(report), results=results, errors=told(errors)))
    elif answers:
        click.echo(in_words(answers))
    say(f"\nDone in {time.monotonic() - began:.0f} s. Open {report} for the curves, the reasons and how to read them.")
    say(f"Next: trajtools info {file}\n      trajtools lyapunov {file} --run eta=1 --procedure {PUBLISHED}")
    leave(answers, failed=bool(errors), strict=strict)


def parsed_rates(text: str) -> list[float]:
    """Return the learning rates as numbers.

    Parameters
    ----------
    text : str
        Numbers with commas between them.

    Returns
    -------
    list of float
        At least one, all positive.
    """
    try:
        rates = [float(word) for word in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 0.01,1", param_hint="--rates") from None
    if not all(0 < rate < float("inf") for rate in rates):
        raise click.BadParameter(f"{text!r}: learning rates are positive numbers", param_hint="--rates")
    return rates


def make_room(folder: Path, targets: tuple[Path, ...], *, force: bool) -> None:
    """Create the folder, and refuse to write over an earlier demo.

    Parameters
    ----------
    folder : Path
        Where the demo goes.
    targets : tuple of Path
        What it will write.
    force : bool
        Delete these, if they are there.

    Raises
    ------
    DataError
        If one of them is there.
    """
    there = [target for target in targets if target.exists()]
    if there and not force:
        raise DataError(
            f"{there[0]} is there already and a recorded run is never overwritten: "
            "`--force` deletes it, `-o FOLDER` puts the demo elsewhere"
        )
    for target in there:
        target.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def train(file: Path, *, quiet: bool, **chosen: Any) -> None:
    """Train and record, in a process of its own: the analysis does not import the recorders.

    Parameters
    ----------
    file : Path
        The file to be written.
    quiet : bool
        No progress.
    **chosen : object
        Options of `python -m recorders.iris`.

    Raises
    ------
    RecordingError
        If the training failed.
    """
    words = [word for name, value in chosen.items() for word in (f"--{name}", str(value))]
    line = command_line("recorders.iris", str(file), *words, *(["--quiet"] if quiet else []))
    status = subprocess.run(line, env=environment(), check=False).returncode
    if status:
        raise RecordingError(f"the training ended with exit status {status}; what it said stands above")


def recorded(file: Path, sizes: dict[str, str], epsilon: float, seed: int) -> dict[str, str]:
    """Return what the report says about the recording.

    Parameters
    ----------
    file : Path
        What was written.
    sizes : dict
        Name -> number, in words.
    epsilon : float
        Size of the perturbation.
    seed : int
        Of everything.

    Returns
    -------
    dict
        Name -> words.
    """
    return {
        "data": "Fisher's Iris: 150 flowers, 4 features in cm, not scaled; a seeded random 120 train, 30 test",
        "network": f"4-10-3, sigmoid hidden units, softmax out: {PARAMETERS} weights and biases, float64",
        "start": "weights drawn from N(0, 1), biases 0",
        "training": "full-batch gradient descent on the mean cross-entropy, no momentum: no noise, so that copies "
        "separate by the dynamics alone",
        "perturbation": f"uniform in [-{epsilon:g}, {epsilon:g}] on every weight, at step 0; biases unchanged",
        **sizes,
        "seed": str(seed),
        "file": f"{file.name}, {options.megabytes(file.stat().st_size)}: every weight at every step",
        "after": "Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024)",
    }


def in_words(answers: list[Answer]) -> str:
    """Return the table of the demo.

    Parameters
    ----------
    answers : list of Answer
        At least one.

    Returns
    -------
    str
        Several lines.
    """
    rows = []
    for answer in answers:
        cells = row(answer)
        theirs = answer.published
        if theirs is not None:
            words = f"{number(theirs.value)} (s.d. {number(spread(theirs))}, kept {kept(theirs):.0%})"
            cells.append(words if theirs.n_used else "none kept")
        rows.append([answer.run.removeprefix("eta="), *cells[1:]])
    columns = ["learning rate", *head(answers[0])[1:], "papers' procedure"]
    return options.table(columns, rows, right=(0, 1, 2, 4, 5))
