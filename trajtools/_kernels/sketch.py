"""A count sketch: signed sums of hashed entries. See recorders.storage.Sketch."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools._kernels._jit import kernel


@kernel(nogil=True)
def add_placed(flat: Any, places: Any, out: Any) -> Any:
    """Add every entry to its place in `out`; the lowest bit of `places` is the sign, the others the place.

    One entry after the other: every bit is independent of how a state is split into parameters.
    """
    for i in range(flat.shape[0]):
        place = places[i]
        value = np.float64(flat[i])
        out[place >> 1] += -value if place & 1 else value


@kernel(nogil=True)
def place_entries(entries: Any, key: Any, k: Any, places: Any) -> Any:
    """Hash entries, by their indices, to places and signs, as `add_placed` reads them."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    inverse = 1.0 / np.float64(k)
    for i in range(places.shape[0]):
        z = key + (np.uint64(entries[i]) + np.uint64(1)) * golden
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        half = np.int64(z >> np.uint64(1))
        # The remainder without a division: the quotient is off by a few at most, since a float64 has 53 bits.
        rest = half - np.int64(np.float64(half) * inverse) * k
        while rest < 0:
            rest += k
        while rest >= k:
            rest -= k
        places[i] = (rest << 1) | np.int64(z & np.uint64(1))
