"""Commands of one analysis each: stability, recurrence, distances, correlation, dimension, curvature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trajtools.cli import options
from trajtools.cli.printing import bullets, table
from trajtools.cli.runner import (
    Outcome,
    Request,
    Source,
    analysis_command,
    check_target,
    executor,
    labels,
    with_reasons,
)
from trajtools.errors import DataError
from trajtools.wording import time_units

if TYPE_CHECKING:
    from trajtools.cli.printing import Block
    from trajtools.distances.pairwise import Distances
    from trajtools.stability.orbital import OrbitalStability
    from trajtools.structure.autocorrelation import Autocorrelation

# Choices of the library, written out so that --help loads nothing; a test compares them.
CONVENTIONS = ("pyrqa", "pyunicorn", "recurrenceanalysis", "standard")
HESSIANS = ("full", "subset", "batch")

ROWS = 256  # of a matrix of distances that are in memory at a time
LAGS = 12  # shown in the text
DISTANCES = {  # what the table of distances says
    "states": "recorded states that are compared",
    "excluded": "of these, states without a distance (NaN, infinite)",
    "metric": "distance between two states",
    "smallest": "over all pairs",
    "mean": "over all pairs",
    "largest": "over all pairs",
    "step": "from one state to the next (median)",
    "first_to_last": "from the first state to the last",
    "contrast": "nearest over mean distance of a state, the states next in time left out (median): near 1, no returns",
    "below_floor": "share of the pairs whose distance is rounding error",
}


# stability


@analysis_command("stability", strict=True, selection=False)
@options.metric("l1")
@options.scale
@options.window
@click.option("--start", type=click.IntRange(min=0), help="Step of the perturbation, if the run does not record it.")
@options.level
@options.seed
def stability(request: Request, *, seed: int, **chosen: Any) -> None:
    """Test whether the twins in each run of each FILE return to the orbit of their reference.

    Compares the distance at equal times (dynamical stability) with the distance to the orbit, at any time on it
    (orbital stability), and gives the phase lag between them. Of tables, the first FILE is the reference and the others
    are its copies.
    """
    import trajtools as tt

    request = replace(request, together=True)

    def analyse(source: Source, progress: Callable[[int, int], None]) -> Any:
        return tt.orbital_stability(source.twins(), **chosen, rng=seed, progress=progress)

    request.run(analyse, _stability_text, in_steps=True)


def _stability_text(outcomes: list[Outcome]) -> list[Block]:
    factors = [title for part in ("equal times", "orbit") for title in (f"{part} x", f"{part}: interval")]
    head = [
        "run",
        "twins",
        f"followed ({time_units(outcomes[0].result.time_unit)})",
        "verdict",
        *factors,
        "Frechet",
        "tube",
        "lag",
    ]
    rows = [[label, *_stability_row(one.result)] for label, one in zip(labels(outcomes), outcomes, strict=True)]
    blocks = with_reasons(table(head, rows, right=(1, 2, 4, 6, 8, 9, 10)), outcomes)
    notes = (
        "verdict: whether copies return to the path of their reference; `trajtools lyapunov` asks another question, "
        "whether and how fast they part. Copies that return or stay (asymptotically or orbitally stable, marginal "
        "drift) are mostly 'regular' there, and unstable ones are not",
        "followed: time since the perturbation; of copies that were planted anew, the longest stretch",
        "equal times x, orbit x: factor by which the distance changes, at equal times and to the nearest point of the "
        "orbit; below 1 copies come back",
        "Frechet: how far apart the two paths are, at the best alignment in time (median)",
        "tube: largest distance of a copy to the orbit (median)",
        "lag: time by which a copy runs ahead (+) or behind (-) along the orbit at the end (median)",
    )
    return [*blocks, bullets("How to read it:", notes)]


def _stability_row(result: OrbitalStability) -> list[str]:
    import numpy as np

    from trajtools.plots._axes import ends, number

    late = result.lag[:, -max(1, result.lag.shape[1] // 10) :]
    cells = [str(len(result.group)), f"{result.time[-1]:g}", result.verdict]
    for trend in (result.dynamical, result.orbital):
        low, high = np.exp(trend.change_interval)
        cells += [number(float(np.exp(trend.change))), ends(float(low), float(high))]
    return [*cells, *(number(_median(values)) for values in (result.frechet, result.tube, late))]


def _median(values: Any) -> float:
    import numpy as np

    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


# recurrence


@analysis_command("recurrence")
@click.option("--rate", type=click.FloatRange(0, 1, min_open=True), help="Recurrence rate.  [default: 0.05]")
@click.option("--threshold", type=click.FloatRange(0, min_open=True), help="Distance below which states recur.")
@click.option("--scaled", type=click.FloatRange(0, min_open=True), help="The same, in standard deviations.")
@click.option("--neighbors", type=click.IntRange(min=1), help="Number of nearest states that recur, for each state.")
@options.metric("l2")
@options.scale
@click.option("--theiler", type=click.IntRange(min=0), help="Ignore lags below this.  [default: the convention's]")
@click.option("--convention", type=click.Choice(CONVENTIONS), default="standard", show_default=True,
              help="Definitions of the measures.")  # fmt: skip
@click.option("--embed", type=options.embedding, metavar="DIM,DELAY", help="Delay coordinates.")
@click.option("--lmin", type=click.IntRange(min=1), default=2, show_default=True, help="Shortest diagonal line.")
@click.option("--vmin", type=click.IntRange(min=1), default=2, show_default=True, help="Shortest vertical line.")
@click.option("--windows", type=click.IntRange(min=4), metavar="W", help="Also in windows of W states.")
@click.option("--distances", is_flag=True, help="Plot the distances, not the recurrences.")
def recurrence(
    request: Request, *, embed: tuple[int, int] | None, windows: int | None, distances: bool, **chosen: Any
) -> None:
    """Quantify how the trajectory of each run of each FILE returns to earlier states.

    Lengths and times are in recorded states. --rate, --threshold, --scaled and --neighbors are the rules for what
    counts as a recurrence.
    """
    import trajtools as tt

    rule = _recurrence_rule({name: chosen.pop(name) for name in ("rate", "threshold", "scaled", "neighbors")})
    dim, delay = embed or (1, 1)

    def analyse(source: Source) -> Any:
        return tt.recurrence(source.states(), threshold=rule, dim=dim, delay=delay, **chosen)

    request.run(
        analyse,
        lambda outcomes: _recurrence_text(outcomes, windows),
        lambda result, ax: result.plot(distances=distances, ax=ax),
    )


def _recurrence_rule(rules: dict[str, Any]) -> Any:
    """Return the one rule that was given; a recurrence rate of 0.05 by default."""
    from trajtools.neighbors.rules import NearestK, RecurrenceRate, ScaledRadius, WithinRadius

    present = {name: value for name, value in rules.items() if value is not None} or {"rate": 0.05}
    if len(present) > 1:
        raise click.UsageError(f"{' and '.join(f'--{name}' for name in present)}: give only one rule of recurrence")
    ((name, value),) = present.items()
    classes = {"rate": RecurrenceRate, "threshold": WithinRadius, "scaled": ScaledRadius, "neighbors": NearestK}
    return classes[name](value)


def _recurrence_text(outcomes: list[Outcome], windows: int | None) -> list[Block]:
    """One measure a line, one run a column."""
    from trajtools.plots._axes import number
    from trajtools.recurrences.measures import MEASURES

    def cell(value: float) -> str:
        return f"{value:,.0f}" if abs(value) >= 1 and float(value).is_integer() else number(value)

    results, names = [one.result for one in outcomes], labels(outcomes)
    chances = [result.in_random_order() for result in results]
    rows = []
    for name, meaning in MEASURES.items():
        rows.append([name, *(cell(result[name]) for result in results), meaning])
        if any(isfinite(chance.get(name, nan)) for chance in chances):
            rows.append(
                ["  by chance", *(cell(c[name]) for c in chances), f"{name} if the states came in random order"]
            )
    rows.append(["threshold", *(number(float(r.threshold)) for r in results), "largest distance of a recurrence"])
    rows.append(["theiler", *(str(r.theiler) for r in results), "states closer in time are not counted"])
    last = len(outcomes) + 1
    grid = table(["measure", *names, "meaning"], rows, right=range(1, last), prose=[last])
    blocks = with_reasons(grid, outcomes)
    if windows is not None:
        blocks += [_windowed_text(name, result, windows) for name, result in zip(names, results, strict=True)]
    return blocks


def _windowed_text(name: str, result: Any, size: int) -> Block:
    from trajtools.plots._axes import number

    measures = ("RR", "DET", "L", "LAM", "TT")
    windowed = result.windowed(size)
    rows = [
        [f"{start}-{start + windowed.size}", *(number(float(windowed.values[measure][at])) for measure in measures)]
        for at, start in enumerate(windowed.start)
    ]
    return [f"{name}, in windows of {size} states:", table(["states", *measures], rows, right=range(1, 6))]


# distances


@analysis_command("distances")
@options.metric("l2", "Distance between two states, such as l1, l2 or cosine; an unknown name lists all.")
@options.scale
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="Save the matrix to this file.")
@options.workers
@options.scheduler
def distances(
    request: Request, *, metric: str, scale: str | None, save: Path | None, workers: int, scheduler: str | None
) -> None:
    """Compute the distances between all states of the trajectory of each run of each FILE.

    Prints a summary; --save saves the whole matrix, for `trajtools.Distances.open` and for runs that do not fit into
    memory. An interrupted computation continues where it was.
    """
    import trajtools as tt

    saved: list[str] = []

    def analyse(source: Source) -> Any:
        if save is not None:
            if saved:
                raise DataError(f"{save} holds the distances of one run; {source.name!r} is another: choose with --run")
            check_target(save, (source.path,))
        matrix = tt.pairwise(source.states(), metric=metric, scale=scale, out=save, executor=pool)
        saved.append(source.name)
        if request.as_json and request.plot is None:
            return {**_summary(matrix), "path": matrix.path, "settings": matrix.settings}
        return matrix

    with executor(workers, scheduler) as pool:
        request.run(analyse, _distances_text)


def _summary(matrix: Distances) -> dict[str, Any]:
    """Summarise a square matrix, a block of rows at a time.

    `smallest, mean, largest` are of all pairs, `step` is the median distance of successive states, `contrast` the
    median over the states of nearest over mean distance, without successive states, `below_floor` the share of pairs
    below the rounding floor.
    """
    import numpy as np

    T = len(matrix)
    low, high, total, count, under = np.inf, -np.inf, 0.0, 0, 0
    steps, contrast = np.full(T, np.nan), np.full(T, np.nan)
    for start in range(0, T, ROWS):
        block = matrix.read(start, min(start + ROWS, T))
        rows = np.arange(start, start + len(block))
        apart = np.abs(rows[:, None] - np.arange(T))
        block = np.where(apart > 0, block, np.nan)
        known = np.isfinite(block)
        if known.any():
            low, high = min(low, float(np.nanmin(block))), max(high, float(np.nanmax(block)))
        total, count = total + float(block[known].sum()), count + int(known.sum())
        with np.errstate(invalid="ignore"):
            under += int(np.sum(block < matrix.floor[rows][:, None]))
        after = rows[rows + 1 < T]
        steps[after] = block[after - start, after + 1]
        contrast[rows] = _contrast(np.where(apart > 1, block, np.nan))
    return {
        "states": T,
        "excluded": matrix.n_excluded,
        "metric": matrix.metric,
        "smallest": low if count else float("nan"),
        "mean": total / count if count else float("nan"),
        "largest": high if count else float("nan"),
        "step": _median(steps),
        "first_to_last": float(matrix.read(0, 1)[0, -1]) if T else float("nan"),
        "contrast": _median(contrast),
        "below_floor": under / count if count else float("nan"),
    }


def _contrast(block: Any) -> Any:
    import numpy as np

    out = np.full(len(block), np.nan)
    some = np.isfinite(block).any(axis=1)
    mean = np.nanmean(block[some], axis=1)
    out[some] = np.where(mean > 0, np.nanmin(block[some], axis=1) / np.where(mean > 0, mean, 1.0), np.nan)
    return out


def _distances_text(outcomes: list[Outcome]) -> list[Block]:
    """One property a line, one run a column."""
    from trajtools.plots._axes import number

    summaries = [_summary(one.result) for one in outcomes]
    rows = [
        [name.replace("_", " "), *(number(v) if isinstance(v, float) else str(v) for v in values), DISTANCES[name]]
        for name, *values in zip(summaries[0], *(one.values() for one in summaries), strict=True)
    ]
    last = len(outcomes) + 1
    grid = table(["", *labels(outcomes), "meaning"], rows, right=range(1, last), prose=[last])
    return with_reasons(grid, outcomes)


# correlation


@analysis_command("correlation")
@click.option("--lags", type=click.IntRange(min=1), help="Largest lag, in recorded states.  [default: a quarter]")
@click.option("--detrend", type=options.detrending, metavar="METHOD",
              help="linear, quadratic, difference, or the length of a moving mean.")  # fmt: skip
@click.option("--per", type=click.Choice(["layer", "parameter", "kind"]), help="Also for each of these.")
@click.option("--null", default="shuffle", show_default=True, help="Null hypothesis of the band; none: no band.")
@click.option("--surrogates", type=click.IntRange(min=1), default=199, show_default=True, help="Number of surrogates.")
@options.seed
def correlation(request: Request, *, null: str, seed: int, **chosen: Any) -> None:
    """Compute the autocorrelation of the trajectory of each run of each FILE.

    It is the sum over all weights of their autocovariances over the sum of their variances. A training drifts, which
    alone makes it correlated: --window and --detrend remove the drift.
    """
    import trajtools as tt

    def analyse(source: Source) -> Any:
        try:
            return tt.autocorrelation(source.states(), **chosen, null=None if null == "none" else null, rng=seed)
        except ValueError as error:
            raise DataError(str(error)) from error

    def text(outcomes: list[Outcome]) -> list[Block]:
        head, *rest = (
            _correlation_text(label, one.result) for label, one in zip(labels(outcomes), outcomes, strict=True)
        )
        return [head, *rest, *with_reasons("", outcomes)[1:]]

    request.run(analyse, text)


def _correlation_text(label: str, result: Autocorrelation) -> Block:
    """Some lags, evenly spread on a logarithmic scale, and the test over all of them."""
    import numpy as np

    from trajtools.plots._axes import number

    last = len(result.lag) - 1
    lags = np.unique(np.round(np.geomspace(1, max(last, 1), LAGS)).astype(int)) if last else np.array([0])
    shown = np.array([0, *lags[lags <= last]])
    in_steps = np.array_equal(result.time[shown], result.lag[shown])  # then the column would repeat the lags
    rows = []
    for at in shown:
        low, high = float(result.low[at]), float(result.high[at])
        band = f"[{number(low)}, {number(high)}]" if np.isfinite(low) else "-"
        layers = [number(float(values[at])) for values in result.layer_values]
        time = [] if in_steps else [f"{float(result.time[at]):.6g}"]
        rows.append([str(result.lag[at]), *time, number(float(result.values[at])), band, *layers])
    head = ["lag", *([] if in_steps else [result.time_unit]), "autocorrelation", "band of the null"]
    head += [f"{result.settings['per']} {name}" for name in result.layers]
    block: list[Any] = [label, table(head, rows, right=range(2 if in_steps else 3))]
    if np.isfinite(result.p_value):
        block.append(f"largest value at any lag: p = {number(result.p_value)} against {result.null}")
    return block


# dimension


@analysis_command("dimension", strict=True)
@options.metric("l2")
@options.scale
@options.theiler
@click.option("--dims", type=click.IntRange(min=1), help="Largest embedding dimension of a series.")
@click.option("--delay", type=click.IntRange(min=1), help="Delay of the embedding, in samples.")
@options.level
@options.seed
def dimension(request: Request, *, seed: int, **chosen: Any) -> None:
    """Estimate the correlation dimension of the trajectory of each run of each FILE.

    It is the slope of the correlation sum over its scaling region, with an interval and Takens' estimator.
    The verdict is 'inconclusive' if there is no such region or there are too few states.
    """
    import trajtools as tt

    request.run(lambda source: tt.correlation_dimension(source.states(), **chosen, rng=seed), _dimension_text)


def _dimension_text(outcomes: list[Outcome]) -> list[Block]:
    from trajtools.plots._axes import ends, number

    rows = [
        [
            label,
            number(one.result.value),
            ends(*one.result.interval),
            one.result.verdict,
            ends(*one.result.region),
            number(one.result.takens),
        ]
        for label, one in zip(labels(outcomes), outcomes, strict=True)
    ]
    level = outcomes[0].result.level
    head = ["run", "dimension", f"{level:.0%} interval", "verdict", "radii", "Takens"]
    return with_reasons(table(head, rows, right=(1, 5)), outcomes)


# curvature


@analysis_command("curvature", strict=True, selection=False, tables=False)
@click.option("--of", type=click.Choice(HESSIANS), help="Hessian of the full data set, a subset or a batch.  "
              "[default: the first that was recorded]")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Learning rate, if the run does not record it.")
@click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), help="Momentum, if the run does not record it.")
@options.seed
def curvature(request: Request, *, seed: int, **chosen: Any) -> None:
    """Compare the recorded curvature of each run of each FILE with the learning rate: the edge of stability.

    Uses the curvature that probes recorded (`sharpness`, `Shadow`): learning rate x largest curvature, the level at
    which the optimiser becomes unstable, and the predicted and measured local exponents.
    """
    import trajtools as tt

    request.run(lambda source: tt.training.curvature(source.recorded_run(), **chosen, rng=seed), _curvature_text)


def _curvature_text(outcomes: list[Outcome]) -> list[Block]:
    import numpy as np

    from trajtools.plots._axes import ends, number

    head = ["run", "verdict", "edge at", "entry step", "rate x h_max after", "95% interval", "r(measured, predicted)"]
    rows = []
    for label, one in zip(labels(outcomes), outcomes, strict=True):
        result = one.result
        after = [number(result.entry), number(result.after), ends(*result.after_interval)]
        if not np.isfinite(result.entry):
            after = ["-"] * 3  # it never came to the edge
        rows.append([label, result.verdict, number(result.threshold), *after, number(result.agreement)])
    return with_reasons(table(head, rows, right=(2, 3, 4, 6)), outcomes)
