"""Options and parameter types that several commands share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from trajtools.cli import debug_option

if TYPE_CHECKING:
    from trajtools.neighbors.rules import NearestK, WithinRadius

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

FIGURES = (".png", ".svg", ".pdf")
# Choices of `trajtools.store.foreign`, written out so that --help loads nothing; a test compares them.
LAYOUTS = ("danovski2024", "jimenez2025")
HOLDS = ("weights", "distances")


@dataclass(frozen=True)
class Selection:
    """Options that select a trajectory: a member of a run, parameters, a metric, and a window; and those of tables."""

    member: int | None = None
    select: tuple[str, ...] = ()
    series: str | None = None
    window: tuple[int, int] | None = None
    columns: tuple[str, ...] = ()
    time: str | None = None
    sep: str | None = None
    decimal: str | None = None

    def for_tables(self) -> list[str]:
        """The given options that only tables have."""
        values = {"--column": self.columns, "--time": self.time, "--sep": self.sep, "--decimal": self.decimal}
        return [name for name, value in values.items() if value]


# Types: click calls them with the text of the option.


def span(number: type[int] | type[float]) -> Callable[[str], tuple[float, float]]:
    """Return what reads START:STOP as two numbers."""

    def read(text: str) -> tuple[float, float]:
        try:
            start, stop = (number(end) for end in text.split(":"))
        except ValueError:
            raise click.BadParameter(f"{text!r} is not of the form START:STOP, such as 20:80") from None
        if not start < stop:
            raise click.BadParameter(f"{text!r} is empty: START must be below STOP")
        return start, stop

    return read


def neighbor_rule(text: str) -> NearestK | WithinRadius:
    """Read a number of neighbours K, a radius R or radii R,R,..."""
    from trajtools.neighbors.rules import NearestK, WithinRadius

    try:
        if text.isdigit() and int(text) > 0:
            return NearestK(int(text))
        radii = [float(radius) for radius in text.split(",")]
        return WithinRadius(radii[0] if len(radii) == 1 else radii)
    except ValueError:  # also raised by the rules themselves
        raise click.BadParameter(
            f"{text!r} is neither a number of neighbours, such as 4, nor a radius, such as 0.05, nor several radii, "
            "such as 0.01,0.02"
        ) from None


def embedding(text: str) -> tuple[int, int] | None:
    """Read DIM,DELAY or DIM as (dim, delay); None for auto."""
    if text == "auto":
        return None
    numbers = _positive_integers(text)
    if numbers is None or len(numbers) > 2:
        raise click.BadParameter(f"{text!r} is neither DIM,DELAY, such as 3,5, nor auto")
    return numbers[0], numbers[1] if len(numbers) == 2 else 1


def window_lengths(text: str) -> tuple[int, int]:
    """Read W or W,S: the length of windows, and the step from one to the next."""
    numbers = _positive_integers(text)
    if numbers is None or len(numbers) > 2 or numbers[0] < 2:
        raise click.BadParameter(
            f"{text!r} is neither a length of at least 2 steps, such as 500, nor W,S, such as 500,100"
        )
    return numbers[0], numbers[-1]


def _positive_integers(text: str) -> list[int] | None:
    numbers = text.split(",")
    return [int(n) for n in numbers] if all(n.isdigit() and int(n) > 0 for n in numbers) else None


def detrending(text: str) -> str | int:
    """Read the name of a method, or the length of a moving mean."""
    return int(text) if text.isdigit() else text


def measured_exponent(text: str) -> str:
    """Read which exponent a sweep measures."""
    if text not in ("auto", "trajectory", "none") and not text.startswith("metric:"):
        raise click.BadParameter(f"{text!r} is not auto, trajectory, metric:NAME or none")
    return text


def learning_rates(text: str) -> list[float]:
    """Read positive numbers separated by commas."""
    try:
        rates = [float(rate) for rate in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers, such as 0.01,1") from None
    if not all(0 < rate < math.inf for rate in rates):
        raise click.BadParameter(f"{text!r}: learning rates must be positive")
    return rates


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object, given as such or as a file that holds it."""
    example = "'{\"lr\": 0.1}'"
    try:
        source = text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
        content = json.loads(source, parse_constant=_refuse_constant)
    except OSError as error:
        raise click.BadParameter(f"{text!r} is neither JSON, such as {example}, nor a readable file: {error}") from None
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not valid JSON, such as {example}: {error}") from None
    if not isinstance(content, dict):
        raise click.BadParameter(f"{text!r} is not a JSON object: name every value, as in {example}")
    return content


def _refuse_constant(constant: str) -> None:
    """Refuse NaN and infinities, which the file would store as null."""
    raise ValueError(f"JSON has no {constant}; leave out unknown values")


class Seconds(click.FloatRange):
    """A duration; NaN is not one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number of seconds."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


def figure(text: str) -> Path:
    """Read the path of a figure; its ending names the format."""
    if Path(text).suffix.lower() not in FIGURES:
        raise click.BadParameter(f"{text!r} must end in {', '.join(FIGURES[:-1])} or {FIGURES[-1]}")
    return Path(text)


# Options


def _note_files(ctx: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    ctx.meta["trajtools.files"] = [str(path) for path in value]
    return value


def _note_silence(ctx: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    """A program, or a user who wants it quiet, needs no hint at the end."""
    if value:
        ctx.meta["trajtools.silent"] = True
    return value


def _file_names(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def _metric_names(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from trajtools.distances import METRICS

    return [name for name in METRICS if name.startswith(incomplete)]


files = click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path), callback=_note_files
)
as_json = click.option(
    "--json", "as_json", is_flag=True, callback=_note_silence, help="Print one JSON document instead of text."
)
output = click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the result to this file."
)
runs = click.option(
    "--run", "runs", metavar="NAME", multiple=True, help="Only runs of this name; repeatable; * and ? are wildcards."
)
quiet = click.option(
    "-q", "--quiet", is_flag=True, callback=_note_silence, help="Show no progress, and no hint at the end."
)
silent = click.option(  # of commands that show no progress
    "-q", "--quiet", is_flag=True, expose_value=False, callback=_note_silence, help="Show no hint at the end."
)
plot = click.option(
    "--plot", type=figure, metavar="FILE", help="Draw a figure (.png, .svg or .pdf).", shell_complete=_file_names
)
strict = click.option("--strict", is_flag=True, help="Exit with status 3 if a verdict is inconclusive.")
seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
level = click.option(
    "--level", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True,
    help="Confidence level of intervals.",
)  # fmt: skip
member = click.option("--member", type=click.IntRange(min=0), help="Member of the run.  [default: the first]")
select = click.option("--select", metavar="GLOB", multiple=True, help="Only parameters of this name: '*.weight'.")
series = click.option("--series", metavar="NAME", help="A metric, such as loss (in a table: columns), not the weights.")
window = click.option("--window", type=span(int), metavar="START:STOP", help="Only these training steps.")
theiler = click.option(
    "--theiler", type=click.IntRange(min=0), help="Theiler window: pairs closer in time, in samples, are not compared."
)
workers = click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
scheduler = click.option("--scheduler", metavar="ADDRESS", help="Compute on the Dask cluster at this address.")

debug = debug_option

columns = click.option(
    "--column", "columns", metavar="NAME", multiple=True,
    help="Column of a table; repeatable.  [default: all but the clock]",
)  # fmt: skip
time = click.option("--time", metavar="NAME", help="Column of a table that is its clock, or none.  [default: found]")
sep = click.option(
    "--sep", metavar="CHAR", help="Separator in a text table, such as ';', tab, space.  [default: found]"
)
decimal = click.option(
    "--decimal", type=click.Choice([".", ","]), help="Decimal mark in a text table.  [default: found]"
)
scale = click.option(
    "--scale", type=click.Choice(["std"]), help="Divide every column by its standard deviation, if units differ."
)

SELECTION = (runs, member, select, series, window)
TABLES = (columns, time, sep, decimal)
OUTPUT = (plot, as_json, output, quiet, debug)


def metric(default: str | None, text: str = "Distance between two states, such as l1, l2 or cosine.") -> Decorator[Any]:
    """Return the option `--metric`."""
    return click.option(
        "--metric", default=default, show_default=default is not None, help=text, shell_complete=_metric_names
    )


def foreign(command: Command) -> Command:
    """Add the options that declare what an HDF5 file of another program holds."""
    for option in reversed(_FOREIGN):
        command = option(command)
    return command


_FOREIGN: tuple[Decorator[Any], ...] = (
    click.option("--layout", type=click.Choice(LAYOUTS), help="Layout of an HDF5 file of a published program."),
    click.option("--dataset", metavar="NAME", help="Dataset of an HDF5 file of another program, with --axes, --holds."),
    click.option("--axes", metavar="NAMES", help="Its axes: 'epsilon init member step row column'; step is needed."),
    click.option("--holds", type=click.Choice(HOLDS), help="What it holds; of weights, member 0 is the reference."),
)


def declaration(chosen: dict[str, Any]) -> dict[str, Any] | None:
    """Take these options out of `chosen`; None if none was given."""
    layout = {name: chosen.pop(name) for name in ("layout", "dataset", "axes", "holds")}
    return layout if any(value is not None for value in layout.values()) else None
