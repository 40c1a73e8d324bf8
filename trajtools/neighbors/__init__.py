"""Neighbours of states: rules as types, the Theiler window in every search, and the choice of the search itself.

A pair of states (i, j) may be neighbours if ``abs(i - j) >= theiler`` (and i != j), if their distance is neither zero
nor missing, and if both can be followed for the whole horizon: all states i .. i + horizon and j .. j + horizon are in
the record and finite. So every point of a divergence curve is an average over the same pairs.
"""

from __future__ import annotations

from trajtools.neighbors.rules import (
    NearestK as NearestK,
    RecurrenceRate as RecurrenceRate,
    ScaledRadius as ScaledRadius,
    WithinRadius as WithinRadius,
)
from trajtools.neighbors.search import Neighbors as Neighbors, find_nearest as find_nearest
from trajtools.neighbors.to_orbit import ToOrbit as ToOrbit, to_orbit as to_orbit
