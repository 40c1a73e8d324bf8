"""The coupling table of two paths, a few rows at a time; see trajtools.stability.sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from trajtools._kernels._jit import kernel


@kernel(nogil=True)
def coupled_rows(distances: Any, before: Any, begun: bool) -> Any:
    """Last row of the discrete Frechet table after the rows of `distances`, from the row before them.

    See trajtools.stability.sets.
    """
    row = before.copy()
    for i in range(distances.shape[0]):
        # Before the first pair there is nothing to come from: the walk starts there for free.
        diagonal = np.inf if begun or i > 0 else -np.inf
        left = np.inf
        for j in range(distances.shape[1]):
            above = row[j]
            reach = min(above, diagonal, left)
            left = max(reach, distances[i, j])
            row[j] = left
            diagonal = above
    return row
