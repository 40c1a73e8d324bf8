"""One look at a file that is being written: how each of its runs stands."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from trajtools.store import Run
from trajtools.store import open as open_file

NEWEST = 256
"""States that are searched for the last value of a metric."""


@dataclass(frozen=True)
class Newest:
    """The newest value of a metric.

    Attributes
    ----------
    value : float
        Not NaN, unless there is no other among the newest states; of several members the mean over the references.
    step : int or None
        Step of its state; None where there is none.
    late : bool
        It is older than the state before the last one. The last one often has no metric yet.
    """

    value: float
    step: int | None
    late: bool


@dataclass(frozen=True)
class Look:
    """How a run stands.

    Attributes
    ----------
    run, status : str
        Its name; ``recording``, ``complete`` or ``interrupted``.
    states : int
        Committed states.
    last_step : int or None
        Step of the newest; None before the first.
    metrics : dict of str to Newest
        Those that are one number for each member.
    rate : float or None, in states per second
        Over the last looks; None at the first.
    idle : float, in seconds
        Since a look has found a new state.
    """

    run: str
    status: str
    states: int
    last_step: int | None
    metrics: dict[str, Newest]
    rate: float | None = None
    idle: float = 0.0


def look(path: Path, patterns: Sequence[str] = ()) -> list[Look]:
    """Look at the runs of a file.

    Parameters
    ----------
    path : Path
        The file; it may be being written.
    patterns : sequence of str
        Names or globs; empty for all runs.

    Returns
    -------
    list of Look
        Those that are there.
    """
    with open_file(path) as file:
        names = [n for n in file if not patterns or any(n == p or fnmatchcase(n, p) for p in patterns)]
        return [_look(file[name]) for name in names]


def missing(found: Sequence[Look], patterns: Sequence[str]) -> str:
    """Say which run is still to come.

    Parameters
    ----------
    found : sequence of Look
        What is there.
    patterns : sequence of str
        Names or globs; empty for any run.

    Returns
    -------
    str
        A pattern that no run matches, ``"any"`` where there is no run at all; empty if all is there.
    """
    names = [one.run for one in found]
    absent = [p for p in patterns if not any(n == p or fnmatchcase(n, p) for n in names)]
    return absent[0] if absent else "" if names else "any"


def _look(run: Run) -> Look:
    if not run.n_states:
        return Look(run.name, run.status, 0, None, {})
    step, metrics = run.latest(NEWEST)
    references = [i for i, member in enumerate(run.members) if member.reference < 0] or [0]
    newest = {}
    for name, values in metrics.items():
        if values.ndim < 3:
            with np.errstate(
                invalid="ignore", over="ignore"
            ):  # what infinities of both signs make is NaN, as it should
                mean = values if values.ndim == 1 else values[:, references].mean(axis=1)
            newest[name] = _newest(step, mean)
    return Look(run.name, run.status, run.n_states, int(step[-1]), newest)


def _newest(step: np.ndarray, values: np.ndarray) -> Newest:
    given = np.flatnonzero(~np.isnan(values))
    if not len(given):
        return Newest(float("nan"), None, False)
    last = int(given[-1])
    return Newest(float(values[last]), int(step[last]), last < len(values) - 2)


class Rates:
    """How fast the runs grow, over the looks of the last `SECONDS`."""

    SECONDS = 30.0

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, int]]] = {}
        self._grown: dict[str, tuple[float, int]] = {}

    def join(self, found: Sequence[Look], now: float) -> list[Look]:
        """Add the rates.

        Parameters
        ----------
        found : sequence of Look
            Of this moment.
        now : float, in seconds
            Of a clock that does not jump.

        Returns
        -------
        list of Look
            The same, with `rate` and `idle`.
        """
        return [self._joined(one, now) for one in found]

    def _joined(self, one: Look, now: float) -> Look:
        seen = self._seen.setdefault(one.run, deque())
        seen.append((now, one.states))
        while len(seen) > 2 and seen[0][0] < now - self.SECONDS:
            seen.popleft()
        since, states = self._grown.get(one.run, (now, -1))
        if one.states != states:
            since = now
        self._grown[one.run] = (since, one.states)
        then, before = seen[0]
        rate = (one.states - before) / (now - then) if now > then else None
        return replace(one, rate=rate, idle=now - since)
