"""Ranks and spectra of many surrogate series at once. See trajtools.exponents.nulls."""

# Arrays are passed one by one to kernels: a tuple of them takes longer to compile.
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools._kernels._jit import kernel

_BITS = 11  # of a digit; three digits cover a float32
_DIGITS = 1 << _BITS


def rank_rows(values: np.ndarray, ranks: np.ndarray) -> None:
    """Fill `ranks` (rows, n) with the rank of every value in its row, at single precision; ties are ordered by index.

    `values` (rows, n) are float32. A radix sort: comparisons of random values would be mispredicted every other time.
    """
    n = values.shape[1]
    keys, places = np.empty((2, n), dtype=np.uint32), np.empty((2, n), dtype=np.int64)
    _rank_bits(values.view(np.uint32), ranks, *keys, *places, np.empty((3, _DIGITS), dtype=np.int64))


@kernel(nogil=True, _nrt=False)
def _rank_bits(bits: Any, ranks: Any, keys: Any, other_keys: Any, at: Any, other_at: Any, starts: Any) -> Any:
    """`rank_rows` of the bits of the values; the rest is workspace: keys and places twice, counts of digits."""
    n = bits.shape[1]
    for row in range(bits.shape[0]):
        for digit in range(3):
            for k in range(_DIGITS):
                starts[digit, k] = 0
        for k in range(n):
            bit = bits[row, k] if bits[row, k] != np.uint32(0x80000000) else np.uint32(0)  # negative zero is zero
            # Monotone in the float: the sign bit is flipped, for negative numbers all bits.
            key = bit ^ (np.uint32(0xFFFFFFFF) if bit >> np.uint32(31) else np.uint32(0x80000000))
            keys[k] = key
            at[k] = k
            starts[0, key & np.uint32(_DIGITS - 1)] += 1
            starts[1, (key >> np.uint32(_BITS)) & np.uint32(_DIGITS - 1)] += 1
            starts[2, key >> np.uint32(2 * _BITS)] += 1
        for digit in range(3):
            total = 0
            for k in range(_DIGITS):
                held = starts[digit, k]
                starts[digit, k] = total
                total += held
        for k in range(n):
            digit = keys[k] & np.uint32(_DIGITS - 1)
            to = starts[0, digit]
            starts[0, digit] = to + 1
            other_keys[to] = keys[k]
            other_at[to] = at[k]
        for k in range(n):
            digit = (other_keys[k] >> np.uint32(_BITS)) & np.uint32(_DIGITS - 1)
            to = starts[1, digit]
            starts[1, digit] = to + 1
            keys[to] = other_keys[k]
            at[to] = other_at[k]
        for k in range(n):
            digit = keys[k] >> np.uint32(2 * _BITS)
            ranks[row, at[k]] = starts[2, digit]
            starts[2, digit] += 1


@kernel(nogil=True, _nrt=False)
def impose_spectrum(spectra: Any, amplitude: Any, misfit: Any) -> Any:
    """Give `spectra` (rows, n) the amplitude (n,), keep the phases; `misfit` (rows,): squared change of amplitudes."""
    for row in range(spectra.shape[0]):
        total = 0.0
        for k in range(amplitude.shape[0]):
            value = spectra[row, k]
            size = np.sqrt(value.real * value.real + value.imag * value.imag)
            total += (size - amplitude[k]) * (size - amplitude[k])
            if size > 0.0:
                spectra[row, k] = value * (amplitude[k] / size)
            else:
                spectra[row, k] = amplitude[k]
        misfit[row] = total
