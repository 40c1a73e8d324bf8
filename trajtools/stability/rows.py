"""States by index, read in blocks that are kept while they are in use."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from trajtools.distances.equal_times import read_rows
from trajtools.types import Ints

ROWS = 64  # the chunks of a file are 64 states
BLOCK_BYTES = 8 * 2**20
KEPT_BYTES = 128 * 2**20


class Rows:
    """The states of a trajectory or array, in any order, without reading the whole of it."""

    def __init__(self, x: Any) -> None:
        self.states = x
        self.shape: tuple[int, int] = (len(x), int(x.shape[1]))
        size = 8 * max(self.shape[1], 1)
        self._rows = max(1, min(ROWS, BLOCK_BYTES // size))
        self._most = max(2, KEPT_BYTES // (self._rows * size))
        self._kept: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def dtype(self) -> str:
        """Name of the dtype in which the states are read."""
        return str(self.states.dtype)

    def read(self, start: int, stop: int) -> Any:
        """Return the states start .. stop, (t, P), in the dtype they are stored in."""
        return read_rows(self.states, start, stop)

    def take(self, index: Ints) -> Any:
        """Return the states of some indices, (k, P)."""
        block = index // self._rows
        out = None
        for number in np.unique(block):
            here = block == number
            states = self._block(int(number))
            if out is None:
                out = np.empty((len(index), self.shape[1]), dtype=states.dtype)
            out[here] = states[index[here] - int(number) * self._rows]
        return np.empty((0, self.shape[1])) if out is None else out

    def _block(self, number: int) -> Any:
        if number in self._kept:
            self._kept.move_to_end(number)
        else:
            start = number * self._rows
            self._kept[number] = self.read(start, min(start + self._rows, len(self)))
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return self._kept[number]
