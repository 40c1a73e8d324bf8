"""How far states are from those a period later, and which states are nearest."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools.distances.equal_times import pairs, read_rows
from trajtools.distances.metric import Metric, bind_metric, block_floor
from trajtools.distances.pairwise import Distances, pairwise
from trajtools.distances.tiles import stored_format
from trajtools.structure.autocorrelation import BLOCK_BYTES, Series
from trajtools.trajectory import Trajectory
from trajtools.types import Floats

SAMPLED = 200
ROWS = 64


class Returns:
    """Distances between the states of a series, by index."""

    def __init__(self, series: Series, metric: Metric, rng: np.random.Generator) -> None:
        self._series = series
        self._metric = metric if isinstance(series.states, Distances) else bind_metric(metric, series.states)
        self._fine = np.flatnonzero(series.fine)
        self._sample = np.sort(rng.choice(self._fine, min(SAMPLED, len(self._fine)), replace=False))
        self._tables: Floats | None = None

    @property
    def typical(self) -> float:
        """Typical distance of two states: the median over those from the sampled states to all others."""
        table = self._table()
        return float(np.nanmedian(table)) if np.isfinite(table).any() else 0.0

    def floor(self) -> float:
        """Distance that rounding alone produces, largest over the sampled states; 0 where it is unknown."""
        states = self._series.states
        if isinstance(states, Distances):
            known = np.asarray(states.floor)[self._series.rows][self._sample]
        else:
            sample = self._states()
            dtype = stored_format(states) if isinstance(states, Trajectory) else str(sample.dtype)
            known = block_floor(sample[:, None], self._metric, dtype, sample.shape[1])
        return float(np.nan_to_num(known).max(initial=0.0))

    def after(self, period: int) -> Floats:
        """Return the distances of all finite states to those `period` states later."""
        count, series = len(self._series), self._series
        both = np.flatnonzero(series.fine[: count - period] & series.fine[period:])
        if isinstance(series.states, Distances):
            offset = series.rows.start
            found = [float(series.states.read(t + offset, t + offset + 1)[0, t + offset + period]) for t in both]
            return np.array(found)
        out = np.empty(count - period)
        tall = max(1, BLOCK_BYTES // (16 * max(series.width, 1)))
        one = np.zeros(1, dtype=np.int64)
        for start in range(0, count - period, tall):
            stop = min(start + tall, count - period)
            early, late = self._read(start, stop), self._read(start + period, stop + period)
            out[start:stop] = pairs(self._metric, early[:, None], late[:, None], one, one)[:, 0]
        return out[both]

    def same_phase(self, period: int) -> float:
        """Fraction of the sampled states whose nearest other state is a whole number of periods away."""
        table, count = self._table(), len(self._series)
        nearest = np.array([int(np.nanargmin(row)) for row in table if np.isfinite(row).any()])
        kept = self._sample[np.isfinite(table).any(axis=1)]
        return float(np.mean((nearest - kept) % period == 0)) if count and len(kept) else 0.0

    def _table(self) -> Floats:
        """Distances (s, T) of the sampled states to all others; NaN to themselves."""
        if self._tables is None:
            series, states = self._series, self._series.states
            if isinstance(states, Distances):
                rows = [states.read(t, t + 1)[0, series.rows] for t in (self._sample + series.rows.start).tolist()]
                table = np.array(rows, dtype=np.float64)
            else:
                sample: Any = self._states()
                if isinstance(states, Trajectory):
                    sample = Trajectory.from_array(sample, parameters=states.parameters, nodes=states.nodes)
                table = np.array(pairwise(sample, y=states[series.rows], metric=self._metric).values)
            table[np.arange(len(table)), self._sample] = np.nan
            table[:, ~series.fine] = np.nan
            self._tables = table
        return self._tables

    def _states(self) -> Any:
        """The sampled states, (s, P); read in the blocks that a file keeps."""
        found = []
        for start in range(0, len(self._series), ROWS):
            here = self._sample[(self._sample >= start) & (self._sample < start + ROWS)]
            if len(here):
                found.append(self._read(start, min(start + ROWS, len(self._series)))[here - start])
        return np.concatenate(found)

    def _read(self, start: int, stop: int) -> Any:
        offset = self._series.rows.start
        return read_rows(self._series.states, start + offset, stop + offset)
