"""States as a table of text: a row for each, a column for each metric, distance or weight."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from typing import Any, TextIO

import numpy as np

from trajtools.distances.equal_times import between
from trajtools.errors import DataError, SelectionError, TooLargeError
from trajtools.exports.part import Part
from trajtools.store import Run
from trajtools.types import Floats

WHAT = ("metrics", "distances", "weights")
ROWS = 64

Tick = Callable[[int], object]


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of the table.

    Attributes
    ----------
    names : list of str
        Their heads.
    read : callable
        ``read(start, stop)`` gives rows as float64, (t, columns).
    """

    names: list[str]
    read: Callable[[int, int], Floats]


def columns_of(
    part: Part, what: Sequence[str], *, series: Sequence[str] = (), metric: str = "l1", largest: int = 1000
) -> list[Columns]:
    """Choose the columns; nothing is computed yet."""
    run = part.run
    asked = list(dict.fromkeys(what)) or ["metrics"] * bool(run.metrics) + ["distances"] * (run.stored == "distances")
    if not asked:
        raise _without_metrics(run)
    found = []
    for kind in asked:
        if kind == "metrics":
            found += _metrics(part, series)
        else:
            found.append(_distances(part, metric) if kind == "distances" else _weights(part, largest))
    _check(part, [name for columns in found for name in columns.names], largest)
    return found


def _check(part: Part, names: list[str], largest: int) -> None:
    if len(names) > largest:
        raise TooLargeError(
            f"the table of run {part.run.name!r} would have {len(names)} columns, more than {largest}: choose some "
            "(--member, --select, --series), write --format npz, or raise --max-columns"
        )
    if len({"step", *names}) <= len(names):
        twice = next(name for name in names if [*names, "step"].count(name) > 1)
        raise DataError(
            f"two columns would be called {twice!r}: write them into two files (--what, --series, --select)"
        )


def _metrics(part: Part, series: Sequence[str]) -> list[Columns]:
    run, there = part.run, list(part.run.metrics)
    for glob in series:
        if not any(fnmatchcase(name, glob) for name in there):
            raise SelectionError(f"run {run.name!r} has no metric {glob!r}; it has {', '.join(there) or 'none'}")
    if not there:
        raise _without_metrics(run)
    chosen = [name for name in there if not series or any(fnmatchcase(name, glob) for glob in series)]
    return [_metric(part, name) for name in chosen]


def _without_metrics(run: Run) -> DataError:
    twins = any(member.reference >= 0 for member in run.members)
    other = {"weights": ["weights", *["distances"] * twins], "distances": ["distances"] * twins}.get(run.stored, [])
    ways = [*(f"--what {kind}" for kind in other), "--format npz"]
    return DataError(f"run {run.name!r} has no metrics: write something else with {' or '.join(ways)}")


def _metric(part: Part, name: str) -> Columns:
    values = part.metric(name)
    axes: list[list[str]] = [[str(i) for i in range(n)] for n in values.shape[1:]]
    if axes and part.member is None:
        axes[0] = [member.name for member in part.run.members]
    flat = values.reshape(len(values), -1)
    return Columns([_head(name, place) for place in product(*axes)], lambda start, stop: flat[start:stop])


def _head(name: str, place: Sequence[str]) -> str:
    return f"{name}[{','.join(place)}]" if place else name


def _distances(part: Part, metric: str) -> Columns:
    run = part.run
    twins = [i for i, m in enumerate(run.members) if m.reference >= 0 and part.member in (None, i)]
    if not twins:
        who = f"member {part.member} of run {run.name!r} is" if part.member is not None else f"run {run.name!r} has"
        raise DataError(f"{who} no perturbed copy of another, so there is no distance between twins")
    if run.stored == "distances":
        if metric != run.distance_metric:
            raise DataError(
                f"run {run.name!r} stores distances in {run.distance_metric}: --metric {run.distance_metric}"
            )
        stored: Any = run.distances
        measured = stored[part.rows][:, twins]
        return Columns(_twin_heads(part, twins), lambda start, stop: measured[start:stop])

    @cache
    def computed() -> Floats:
        pairs = ((part.weights_of(run.members[i].reference), part.weights_of(i)) for i in twins)
        return np.stack([between(reference, twin, metric=metric) for reference, twin in pairs], axis=1)

    return Columns(_twin_heads(part, twins), lambda start, stop: computed()[start:stop])


def _twin_heads(part: Part, twins: list[int]) -> list[str]:
    return [f"distance[{part.run.members[i].name}]" for i in twins]


def _weights(part: Part, largest: int) -> Columns:
    states = part.weights()
    if states.shape[1] > largest:  # before as many names are made
        _check(part, [""] * states.shape[1], largest)
    names = [_head(p.name, [str(i) for i in place]) for p in states.parameters for place in np.ndindex(*p.shape)]
    return Columns(names, lambda start, stop: states.read(start, stop).astype(np.float64))


def write_csv(stream: TextIO, part: Part, columns: list[Columns], tick: Tick = lambda _: None) -> None:
    """Write the table; numbers keep every digit, NaN and infinities are ``nan`` and ``inf``."""
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["step", *(name for one in columns for name in one.names)])
    for rows, values in _blocks(len(part.step), columns):
        for step, row in zip(part.step[rows].tolist(), values.tolist(), strict=True):
            table.writerow([step, *row])
        tick(len(values))


def _blocks(count: int, columns: list[Columns]) -> Iterator[tuple[slice, Floats]]:
    for start in range(0, count, ROWS):
        stop = min(start + ROWS, count)
        yield slice(start, stop), np.concatenate([one.read(start, stop) for one in columns], axis=1)
