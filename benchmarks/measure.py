"""Measure ours, the peers and what the machine gives in turns, and how costs grow: the rows of `table.py`.

Costs are processor seconds of this process and of children that it waited for, the least of several turns: they depend
little on what else the machine does. Peers are made by functions that import them, so that a missing one is a cell of
the table and no error.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

Way = Callable[[], Any]
TURNS = 7  # of each way at most
ENOUGH = 1.5  # seconds of one way, after which it is not repeated
LONG = 2.0  # seconds of ours at one size, beside which loading does not count
OURS = "ours"
SHORT = 0.02  # seconds: shorter calls are repeated within a turn


class Skipped(Exception):
    """A peer that cannot be measured; the reason stands in the table."""


@dataclass(frozen=True)
class Scaled:
    """A way on a part of the task, and how much of it the whole task is."""

    way: Way
    factor: float


Maker = Callable[[], Way | Scaled]


@dataclass(frozen=True)
class Row:
    """One row: our way, peers and the limit of the machine by name, and a check of the answers.

    `check` gets the last answer of each way that ran, ours under 'ours'; it raises where they do not agree, and may
    return a remark for the table.
    """

    work: str
    ours: Way
    peers: Mapping[str, Maker] = field(default_factory=dict)
    limit: tuple[str, Maker] | None = None
    check: Callable[[dict[str, Any]], str | None] | None = None


@dataclass(frozen=True)
class Growth:
    """Cost against one size. `make` prepares the task of a size, `aim` is the exponent that the task itself has."""

    work: str
    variable: str
    sizes: Sequence[int]
    make: Callable[[int], Way]
    aim: str


Item = Row | Growth


def clock() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def installed(module: str) -> Any:
    """A module of a peer; `Skipped` with the reason where it cannot be imported."""
    try:
        return import_module(module)
    except Exception as error:
        raise Skipped(f"cannot be imported ({type(error).__name__}: {str(error).splitlines()[0]})") from error


def skip(reason: str) -> Maker:
    """A peer that is named, but not run."""

    def make() -> Way:
        raise Skipped(reason)

    return make


def cost(way: Way, calls: int = 1) -> tuple[float, Any]:
    """Seconds of one call, and the last answer."""
    start = clock()
    for _ in range(calls):
        answer = way()
    return (clock() - start) / calls, answer


def least(
    ways: Mapping[str, Way], *, turns: int = TURNS, enough: float = ENOUGH, warm: Mapping[str, float] | None = None
) -> dict[str, tuple[float, Any]]:
    """Least seconds and last answer of each way; they take turns.

    The first call of each loads what is loaded on first use. It counts, and there is no other, where it took longer
    than `warm` of its name (by default `enough`).
    """
    seconds: dict[str, list[float]] = {}
    answers: dict[str, Any] = {}
    first: dict[str, float] = {}
    for name, way in ways.items():
        first[name], answers[name] = cost(way)
        seconds[name] = [first[name]] if first[name] > (warm or {}).get(name, enough) else []
    for _ in range(turns):
        for name, way in ways.items():
            if sum(seconds[name]) < enough:
                again, answers[name] = cost(way, max(1, int(SHORT / max(first[name], 1e-6))))
                first[name] = min(first[name], again)
                seconds[name].append(again)
    return {name: (min(seconds[name]), answers[name]) for name in ways}


def measure(row: Row) -> dict[str, Any]:
    """Seconds of ours, of each peer (or why there are none) and of the limit."""
    ways, factors, skipped = {OURS: row.ours}, {OURS: 1.0}, {}
    limit = {row.limit[0]: row.limit[1]} if row.limit else {}
    for name, make in {**row.peers, **limit}.items():
        try:
            made = make()
        except Skipped as reason:
            skipped[name] = str(reason)
            continue
        ways[name], factors[name] = (made.way, made.factor) if isinstance(made, Scaled) else (made, 1.0)
    results = least(ways, warm={OURS: np.inf})
    remark = row.check({name: answer for name, (_, answer) in results.items()}) if row.check else None
    seconds = {name: taken * factors[name] for name, (taken, _) in results.items()}
    return {
        "work": row.work,
        "ours": seconds[OURS],
        "peers": {name: seconds.get(name, skipped.get(name)) for name in row.peers},
        "limit": [(name, seconds.get(name, skipped.get(name))) for name in limit],
        "remark": remark or "",
    }


def grow(growth: Growth) -> dict[str, Any]:
    """Seconds for each size, and the slope of their logarithms: over all sizes, and the range between neighbours."""
    sizes = list(growth.sizes)
    growth.make(sizes[0])()
    seconds = [least({OURS: growth.make(n)}, turns=3, enough=0.3, warm={OURS: LONG})[OURS][0] for n in sizes]
    x, y = np.log(sizes), np.log(seconds)
    between = np.diff(y) / np.diff(x)
    return {
        "work": growth.work,
        "variable": growth.variable,
        "sizes": sizes,
        "seconds": seconds,
        "slope": float(np.polyfit(x, y, 1)[0]),
        "range": [float(between.min()), float(between.max())],
        "last": float(between[-1]),
        "aim": growth.aim,
    }
