"""Where the states of a trajectory are read from: the protocol, and states that are in memory."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError


class StateSource(Protocol):
    """Where the states come from: an array, a file. Picklable, and never holding an open file when pickled."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of states T and of entries P."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what `read` returns (float32 for stored bfloat16, which is exact)."""

    def read(self, rows: slice | NDArray[np.int64], columns: slice | NDArray[np.int64] | None = None) -> NDArray[Any]:
        """States `rows`, entries `columns` (all for None)."""


class ArrayStates:
    """States that are in memory already."""

    def __init__(self, array: NDArray[Any]) -> None:
        if array.ndim != 2:
            raise DataError(f"states form an array (T, P); this one has {array.ndim} dimensions, shape {array.shape}")
        view = array.view()
        view.flags.writeable = False
        self._array = view

    @property
    def shape(self) -> tuple[int, int]:
        """Number of states T and of entries P."""
        return self._array.shape[0], self._array.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the states."""
        return self._array.dtype

    def read(self, rows: slice | NDArray[np.int64], columns: slice | NDArray[np.int64] | None = None) -> NDArray[Any]:
        """States `rows`, entries `columns`, as a read-only view where they are slices."""
        states = self._array[rows]
        return states if columns is None else states[:, columns]


def cut_spans(spans: tuple[slice, ...] | None, wanted: slice, width: int) -> tuple[slice, ...]:
    """Where some entries of a selection lie in the source."""
    first, last, stride = wanted.indices(width)
    if stride != 1:
        raise DataError(f"entries are read in slices without a stride; got a stride of {stride}")
    cut, at = [], 0
    for span in (slice(0, width),) if spans is None else spans:
        size = span.stop - span.start
        low, high = max(first - at, 0), min(last - at, size)
        if low < high:
            cut.append(slice(span.start + low, span.start + high))
        at += size
    return tuple(cut)
