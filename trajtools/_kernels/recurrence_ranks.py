"""How many distances are below a bracket, and which are in it. See trajtools.recurrences.thresholds."""

# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools._kernels._jit import kernel
from trajtools._kernels.recurrence_bits import below, count, lowest
from trajtools._kernels.recurrence_lines import sum_distances

_CHUNK = 512


@kernel(nogil=True)
def lag_ranks(plane: Any, shape: Any, lags: Any, low: Any, high: Any, bins: Any, kept: Any) -> Any:
    """Look at the distances of some lags (of L2 squared) against a bracket.

    `kept` takes those in the bracket, as long as there is room. Gives how many are below it and how many are in it;
    and for equal parts of it their number, smallest and largest: (bins,) each.
    """
    rows, columns = shape
    sums = np.empty(_CHUNK)
    number = np.zeros(bins, dtype=np.int64)
    smallest, largest = np.full(bins, np.inf), np.full(bins, -np.inf)
    under, inside = 0, 0
    just_below = np.nextafter(low, -np.inf)
    width = bins / (high - low) if high > low else 0.0
    for lag in lags:
        begin, end = max(0, -lag), min(columns, rows - lag)
        for start in range(begin, end, _CHUNK):
            length = min(_CHUNK, (end - start + 63) // 64 * 64)
            sum_distances(plane, lag, start, length, sums)
            for word in range(length // 64):
                # Beyond the end there is NaN, or the distance of samples that are no states any more.
                left = end - start - 64 * word
                mask = ~np.uint64(0) if left >= 64 else (np.uint64(1) << np.uint64(left)) - np.uint64(1)
                lower = below(sums, 64 * word, just_below) & mask
                bits = below(sums, 64 * word, high) & ~lower & mask
                under += count(lower)
                while bits != np.uint64(0):
                    value = sums[64 * word + lowest(bits)]
                    bits &= bits - np.uint64(1)
                    if inside < len(kept):
                        kept[inside] = value
                    inside += 1
                    part = min(int((value - low) * width), bins - 1)
                    number[part] += 1
                    smallest[part] = min(smallest[part], value)
                    largest[part] = max(largest[part], value)
    return under, inside, number, smallest, largest
