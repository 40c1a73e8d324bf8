"""Neighbours of states: rules as types, searches with a Theiler window, and distances to orbits.

A pair of states (i, j) can be neighbours if ``abs(i - j) >= theiler`` (and i != j), if their distance is neither zero
nor missing, and if both can be followed for the whole horizon: all states i .. i + horizon and j .. j + horizon are in
the record and finite. Every point of a divergence curve is therefore an average over the same pairs.
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
