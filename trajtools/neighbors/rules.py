"""Neighbour rules, as types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trajtools.errors import DataError


@dataclass(frozen=True)
class NearestK:
    """The k nearest states outside the Theiler window.

    Attributes
    ----------
    k : int
        Number of neighbours, at least 1. Of two at the same distance, the earlier one comes first.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = tt.systems.henon().trajectory(300, rng=0)
    >>> tt.rosenstein(x, theiler=5, horizon=10).method
    'rosenstein'
    >>> tt.kantz(x, neighbors=tt.NearestK(5), theiler=5, horizon=10).settings["neighbors"]
    {'rule': 'NearestK', 'k': 5}
    """

    k: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, (int, np.integer)) or self.k < 1:
            raise DataError(f"NearestK({self.k!r}): k must be an integer, at least 1")


@dataclass(frozen=True)
class WithinRadius:
    """All states outside the Theiler window within a radius (distance <= radius).

    Attributes
    ----------
    radius : float, sequence of float or "auto"
        One radius or several; several need only one search. ``"auto"``: the median distance to the fourth neighbour.
    relative : bool
        Whether the radii are multiples of the spread, the median distance between two states of the record.
    max_neighbors : int or None
        Largest number of neighbours per state, for all radii together. With several radii, each ring between two of
        them contributes an equal number, evenly spaced in the order of the search and weighted by its true size.
    min_neighbors : int
        States with fewer neighbours are skipped, and counted.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> result = tt.recurrence(x, dim=2, delay=8, threshold=tt.WithinRadius(0.1))
    >>> result.threshold
    0.1
    """

    radius: float | Sequence[float] | str = "auto"
    relative: bool = False
    max_neighbors: int | None = None
    min_neighbors: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.radius, str):
            if self.radius != "auto":
                raise DataError(f"WithinRadius({self.radius!r}): give a number, several numbers, or 'auto'")
            if self.relative:
                raise DataError("WithinRadius('auto', relative=True): 'auto' is an absolute distance; omit `relative`")
        else:
            radii = np.atleast_1d(np.asarray(self.radius, dtype=np.float64))
            if radii.ndim != 1 or not radii.size or not np.all(np.isfinite(radii) & (radii > 0)):
                raise DataError(f"WithinRadius({self.radius!r}): radii must be positive numbers")
        if self.min_neighbors < 1:
            raise DataError(f"WithinRadius(min_neighbors={self.min_neighbors}): must be at least 1")
        if self.max_neighbors is not None and self.max_neighbors < max(self.min_neighbors, self.n_radii):
            raise DataError(
                f"WithinRadius(max_neighbors={self.max_neighbors}): must not be below min_neighbors="
                f"{self.min_neighbors} or the number of radii, {self.n_radii}"
            )

    @property
    def n_radii(self) -> int:
        """Number of radii."""
        return 1 if isinstance(self.radius, str) else int(np.size(self.radius))


@dataclass(frozen=True)
class RecurrenceRate:
    """The nearest pairs of states, up to a share of all pairs.

    Attributes
    ----------
    rate : float
        Share of the pairs outside the Theiler window that recur, above 0 and at most 1. The threshold is the exact
        quantile of their distances; pairs at the same distance recur together.
    local : bool
        Whether every state has its own threshold and recurs with this share of the states outside its Theiler window,
        rounded up: the same number for all except near the ends. Of two at the same distance, the earlier comes first.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> result = tt.recurrence(x, dim=2, delay=8, threshold=tt.RecurrenceRate(0.1))
    >>> round(result.RR, 2)
    0.1
    """

    rate: float
    local: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.rate, bool) or not isinstance(self.rate, (int, float, np.number)) or not 0 < self.rate <= 1:
            raise DataError(f"RecurrenceRate({self.rate!r}): the rate must be above 0 and at most 1")


@dataclass(frozen=True)
class ScaledRadius:
    """All pairs of states within a multiple of the size of the trajectory.

    Attributes
    ----------
    factor : float
        Multiple, positive.
    by : str
        ``"std"``: the standard deviation of the coordinates, root mean square over the channels of the series.
        ``"max"``: the largest distance of two states outside the Theiler window.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> x = np.sin(0.2 * np.arange(400))
    >>> rule = tt.neighbors.ScaledRadius(0.2)
    >>> result = tt.recurrence(x, dim=2, delay=8, threshold=rule)
    >>> result.threshold < 0.5
    True
    """

    factor: float
    by: str = "std"

    def __post_init__(self) -> None:
        known = isinstance(self.factor, (int, float, np.number)) and not isinstance(self.factor, bool)
        if not known or not (np.isfinite(self.factor) and self.factor > 0):
            raise DataError(f"ScaledRadius({self.factor!r}): the factor must be a positive number")
        if self.by not in ("std", "max"):
            raise DataError(f"ScaledRadius(by={self.by!r}): must be 'std' or 'max'")
