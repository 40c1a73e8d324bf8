"""Array types that annotations name, and the codes by which kernels know metrics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# L2_SCALED is L2 for numbers whose squares would overflow or vanish; DIFFERING counts the entries that differ.
# PRECOMPUTED reads a matrix of distances; ACROSS takes out the part of a difference along the motion.
L1, L2, LINF, L2_SCALED, PRECOMPUTED, ACROSS, DIFFERING = 1, 2, 3, 4, 5, 6, 7
