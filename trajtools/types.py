"""Array types that annotations name, and the codes by which kernels know metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class SupportsArray(Protocol):
    """What `numpy.asarray` converts by itself: arrays, tensors, tables of pandas and xarray, Trajectories."""

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]: ...


# What functions take. Strings, so that naming a type loads nothing.
RealArrayLike: TypeAlias = "SupportsArray | Sequence[float | SupportsArray | Sequence[float | Sequence[float]]]"
"""An array or nested lists of real numbers; unlike `numpy.typing.ArrayLike` no text, so that a path is an error."""
TimeStepLike: TypeAlias = Any
"""Time between two samples: a number, a duration, or the times of all samples; functions see a number or None."""
RNGLike: TypeAlias = "int | np.random.Generator | None"
"""A seed, a generator, or None for fresh random numbers."""

# L2_SCALED is L2 for numbers whose squares would overflow or vanish; DIFFERING counts the entries that differ.
# PRECOMPUTED reads a matrix of distances.
L1, L2, LINF, L2_SCALED, PRECOMPUTED, DIFFERING = 1, 2, 3, 4, 5, 7
