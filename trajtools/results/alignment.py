"""What `trajtools.align` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.results.plain import Result


@dataclass(frozen=True, eq=False)
class Alignment(Result):
    """Networks whose hidden units were put in the order in which they are closest to other networks.

    Attributes
    ----------
    metric : str
        The distance that was made small, of the weights as they stand.
    step : ndarray of int64, shape (T,)
        Step of each state.
    distance : ndarray of float64, shape (T,)
        The smallest distance found: an upper bound of the smallest one over all orders. NaN where a weight of either
        network is not finite.
    unaligned : ndarray of float64, shape (T,)
        The distance before.
    proven : ndarray of bool, shape (T,)
        Whether no order at all is closer, up to rounding.
    states : ndarray, shape (T, P)
        The second networks, aligned: each computes what it did before, and `metric` says `distance` of it.
    reference : ndarray, shape (T, P), or None
        The first networks, where their units were scaled as well; None: as they were given.
    orders : dict of str to ndarray of int64, shape (T, n)
        For every node set that was reordered: which of its units stands at each place now.
    signs : dict of str to ndarray of float64, shape (T, n)
        For every node set that may change sign: +1 or -1 at each place.
    excluded : ndarray of bool, shape (T,)
        Pairs with a weight that is not finite; they were left as they are.
    settings : dict
        What was assumed and used; ``fixed``: node sets that were left in their order, and why.
    warnings : tuple of str
        What to know before using it.
    """

    metric: str
    step: NDArray[np.int64]
    distance: NDArray[np.float64]
    unaligned: NDArray[np.float64]
    proven: NDArray[np.bool_]
    states: NDArray[Any]
    reference: NDArray[np.float64] | None
    orders: dict[str, NDArray[np.int64]]
    signs: dict[str, NDArray[np.float64]]
    excluded: NDArray[np.bool_]
    settings: dict[str, Any]
    warnings: tuple[str, ...]
