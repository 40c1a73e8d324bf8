"""A seeded linear sketch of the state (count sketch), small enough for models that cannot be stored whole.

Entry i of the state is added, with a sign, to one of k numbers. Sign and place come from a 64-bit hash of the seed and
the index alone, written down below, so that anyone can recompute the sketch of a stored state.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np

from trajtools.errors import RecordingError

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_BLOCK = 2**16
_CACHED = 2**24


def _mix(z: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 on an array of uint64, in place."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


@dataclass(frozen=True)
class Sketch:
    r"""Size and seed of a count sketch.

    Attributes
    ----------
    k : int
        Numbers kept of each network, at least 1.
    seed : int
        Chooses the sketch, 0 <= seed < 2**64; runs are comparable only with the same k and seed.

    Notes
    -----
    .. math:: y_b = \sum_{i : b_i = b} s_i x_i, \quad h_i = m(m(\text{seed}) + (i + 1) g \bmod 2^{64}),
        \quad b_i = \lfloor h_i / 2 \rfloor \bmod k, \quad s_i = 1 - 2 (h_i \bmod 2)

    with m the finaliser of splitmix64 and g = 0x9E3779B97F4A7C15. The sketch is linear, and over seeds
    E |Sx|² = |x|² with variance at most 2 |x|⁴ / k, so the l2 distance of two states is kept within about
    1 / sqrt(2k) of itself; other distances are not.

    References
    ----------
    M. Charikar, K. Chen, M. Farach-Colton, Theor. Comput. Sci. 312, 3 (2004), doi:10.1016/S0304-3975(03)00400-6
    """

    k: int
    seed: int = 0

    def __post_init__(self) -> None:
        if operator.index(self.k) < 1:
            raise RecordingError(f"Sketch(k={self.k}): a sketch keeps at least one number")
        if not 0 <= operator.index(self.seed) <= _MASK:
            raise RecordingError(f"Sketch(seed={self.seed}): the seed must lie in 0 .. 2**64 - 1")

    @property
    def settings(self) -> dict[str, int | str]:
        """All that is needed to recompute the sketch, as the file keeps it."""
        return {"kind": "count", "hash": "splitmix64", "k": self.k, "seed": self.seed}

    def places(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Place and sign of the entries ``start .. stop``.

        Parameters
        ----------
        start, stop : int
            Range of indices into the state.

        Returns
        -------
        place : ndarray of int64, (stop - start,)
            b_i, in 0 .. k - 1.
        sign : ndarray of int8, (stop - start,)
            s_i, -1 or 1.
        """
        key = _mix(np.array([self.seed], dtype=np.uint64))
        h = _mix(key + (np.arange(start, stop, dtype=np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))
        place = ((h >> np.uint64(1)) % np.uint64(self.k)).astype(np.int64)
        return place, (1 - 2 * (h & np.uint64(1)).astype(np.int8)).astype(np.int8)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The sketch of states.

        Parameters
        ----------
        x : ndarray, (..., P)
            States; bfloat16 as float32.

        Returns
        -------
        ndarray of float64, (..., k)
            Their sketches.
        """
        states = np.asarray(x)
        out = np.zeros((*states.shape[:-1], self.k))
        sketcher = Sketcher(self, states.shape[-1])
        for place in np.ndindex(states.shape[:-1]):
            sketcher.add(states[place], 0, out[place])
        return out


class Sketcher:
    """Adds stretches of a state to its sketch; keeps the places of states up to 2**24 entries (5 bytes each)."""

    def __init__(self, sketch: Sketch, n_entries: int) -> None:
        self._sketch = sketch
        self._place: np.ndarray | None = None
        if n_entries <= _CACHED:
            self._place = np.empty(n_entries, np.int32)
            self._sign = np.empty(n_entries, np.int8)
            for at in range(0, n_entries, _BLOCK):
                end = min(at + _BLOCK, n_entries)
                self._place[at:end], self._sign[at:end] = sketch.places(at, end)

    def add(self, flat: np.ndarray, offset: int, out: np.ndarray) -> None:
        """Add the entries `offset` .. `offset` + len(flat) of a state to `out` (k,), float64."""
        at, end = offset, offset + flat.size
        while at < end:
            stop = min(end, at + _BLOCK)
            if self._place is None:
                place, sign = self._sketch.places(at, stop)
            else:
                place, sign = self._place[at:stop], self._sign[at:stop]
            signed = flat[at - offset : stop - offset] * sign.astype(np.float64)
            # One entry after the other: every bit is independent of how the state is split into parameters and blocks.
            np.add.at(out, place, signed)
            at = stop
