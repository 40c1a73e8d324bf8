"""Numbers of a training while it runs: the growth of its twins, the edge of stability, and a line that shows them.

Framework-free. `Growth` is what `Twins.live` shows, `Line` what ``Recorder(progress=True)`` writes. The numbers are for
watching; the verdict, with its tests, is that of `tt.twins` on the file.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite, log, nan, sqrt
from typing import Any, TextIO

import numpy as np

from trajtools.types import Floats

ONSET = 2.0  # e-folds above the start: growth is measured from there
BELOW_TOP = 1.0  # and up to so many e-folds below the highest distance
LEAST_GROWTH = 1.0  # e-folds between both, less is no growth


class Growth:
    """Finite-time exponents of perturbed copies, from the distances seen so far.

    Notes
    -----
    Every stretch of a copy from one planting to the next gives a gain in ln d and the time that it took. Where the
    distance has risen by at least 4 e-folds, these are counted between the first passages of two levels, 2 e-folds
    above the start and 1 below the highest distance, so that neither the wait before the growth nor saturation counts;
    elsewhere from the planting to now. Copies of one planting are averaged: they are one start.

    The exponent is the sum of the gains over that of the times. Its 95 % interval is Student's, from the scatter of the
    starts, and unknown for one start. Distances are known where the schedule of plantings looks (at every step up to
    age 16, then every age / 16 steps) and where somebody asks, and interpolated between.
    """

    def __init__(self) -> None:
        self._open: dict[int, Stretch] = {}
        self._ended: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)  # planting -> (gain, time)

    def planted(self, step: int, copies: Iterable[int], distances: Floats) -> None:
        """Begin a stretch for each copy planted; `distances` are those of all copies, numbered from 1."""
        for copy in copies:
            self._end(copy)
            distance = float(distances[copy - 1])
            if isfinite(distance) and distance > 0:  # exact copies have no growth
                self._open[copy] = Stretch(step, log(distance))

    def note(self, step: int, distances: Floats) -> None:
        """Add the distances of all copies after an update."""
        for copy, stretch in self._open.items():
            stretch.add(step, float(distances[copy - 1]))

    def _end(self, copy: int) -> None:
        stretch = self._open.pop(copy, None)
        if stretch is not None and stretch.seen:
            self._ended[stretch.planted].append(stretch.gain_and_time())

    def numbers(self, step: int, distances: Floats) -> dict[str, float]:
        """The numbers now.

        Parameters
        ----------
        step : int
            Updates so far.
        distances : ndarray (M - 1,)
            Of the copies.

        Returns
        -------
        dict of str to float
            ``twin_distance``, the geometric mean of the Euclidean distances; ``twin_exponent`` in nats per update, with
            ``twin_exponent_low`` and ``twin_exponent_high``; ``twin_starts``, the number of plantings behind it. NaN
            where unknown.
        """
        starts = {planted: list(pairs) for planted, pairs in self._ended.items()}
        for stretch in self._open.values():
            if stretch.seen and stretch.planted < step:
                starts.setdefault(stretch.planted, []).append(stretch.gain_and_time())
        pairs = np.array([np.mean(each, axis=0) for each in starts.values()]).reshape(-1, 2)
        value, low, high = ratio_with_interval(pairs[:, 0], pairs[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = float(np.exp(np.mean(np.log(distances)))) if len(distances) else nan
        return {
            "twin_distance": distance,
            "twin_exponent": value,
            "twin_exponent_low": low,
            "twin_exponent_high": high,
            "twin_starts": float(len(pairs)),
        }


@dataclass
class Stretch:
    """ln d of one copy since its planting: the newest value, and the highest ones in order."""

    planted: int
    start: float
    newest: float = nan
    age: int = 0
    seen: bool = False
    highs: list[tuple[int, float]] = field(default_factory=list)

    def add(self, step: int, distance: float) -> None:
        """Add one distance; a copy that has merged or diverged is no longer followed."""
        if step <= self.planted or not (isfinite(distance) and distance > 0):
            return
        self.age, self.newest, self.seen = step - self.planted, log(distance), True
        if self.newest > (self.highs[-1][1] + 0.05 if self.highs else self.start):
            self.highs.append((self.age, self.newest))

    def gain_and_time(self) -> tuple[float, float]:
        """Gain in ln d and the time that it took, as `Growth` counts them."""
        onset, end = self.start + ONSET, (self.highs[-1][1] if self.highs else -inf) - BELOW_TOP
        if end - onset >= LEAST_GROWTH:
            time = self._passage(end) - self._passage(onset)
            if time > 0:
                return end - onset, time
        return self.newest - self.start, float(self.age)

    def _passage(self, level: float) -> float:
        """Age at which a level was first passed, between two values interpolated."""
        ages, values = zip((0, self.start), *self.highs, strict=True)
        at = int(np.searchsorted(values, level))
        share = (level - values[at - 1]) / (values[at] - values[at - 1])
        return ages[at - 1] + share * (ages[at] - ages[at - 1])


def ratio_with_interval(gains: Floats, times: Floats) -> tuple[float, float, float]:
    """Sum of gains over sum of times, and its 95 % interval from the scatter of the pairs; NaN where unknown."""
    n, total = len(gains), float(np.sum(times))
    if not total > 0:
        return nan, nan, nan
    value = float(np.sum(gains)) / total
    if n < 2:
        return value, nan, nan
    from scipy.special import stdtrit  # Student's t without scipy.stats, which takes a second to import

    error = sqrt(n / (n - 1) * float(np.sum((gains - value * times) ** 2))) / total
    half = float(stdtrit(n - 1, 0.975)) * error
    return value, value - half, value + half


def over_threshold(metrics: Mapping[str, float], thresholds: Mapping[str, float]) -> dict[str, float]:
    """Recorded curvatures over the largest one at which the optimiser is stable: 1 is the edge of stability.

    `thresholds` are by the beginning of the names: ``h_max`` of the Hessian, ``preconditioned_h_max`` of P^-1 H.
    """
    return {
        f"{name}_over_threshold": value / threshold
        for stem, threshold in thresholds.items()
        for name, value in metrics.items()
        if name.removeprefix("shadow_").startswith(stem) and isfinite(threshold) and threshold > 0
    }


class Line:
    """One line that follows a training, for ``Recorder(progress=True)``.

    Notes
    -----
    On a terminal the line is rewritten at most once a second; in a file there is a new line at most every 30 seconds.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._rewrites = self._stream.isatty()
        self._width = 0
        self._due = time.monotonic() + self._pause

    @property
    def _pause(self) -> float:
        return 1.0 if self._rewrites else 30.0

    def is_due(self) -> bool:
        """Whether the line may be written again."""
        return time.monotonic() >= self._due

    def write(self, step: int, numbers: Mapping[str, float], *, last: bool = False) -> None:
        """Write the numbers of a step."""
        text = in_a_line(step, numbers)
        if self._rewrites:
            self._stream.write(f"\r{text:<{self._width}}" + "\n" * last)
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()
        self._width, self._due = len(text), time.monotonic() + self._pause


def in_a_line(step: int, numbers: Mapping[str, float]) -> str:
    """A step and its numbers in one line: the exponent with its interval, all others by name."""
    rest: dict[str, Any] = dict(numbers)
    low, high = rest.pop("twin_exponent_low", nan), rest.pop("twin_exponent_high", nan)
    parts = [f"step {step}"]
    for name, value in rest.items():
        interval = f" [{low:.3g}, {high:.3g}]" if name == "twin_exponent" and isfinite(low) else ""
        parts.append(f"{name} {value:.4g}{interval}")
    return "  ".join(parts)
