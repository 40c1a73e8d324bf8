"""Radii of balls as distances: as given, relative to the spread, or chosen from the data."""

from __future__ import annotations

import numpy as np

from trajtools.errors import NoNeighborsError
from trajtools.neighbors.rules import WithinRadius
from trajtools.neighbors.search import evenly
from trajtools.neighbors.states import States
from trajtools.types import Floats

# The fourth neighbour: a larger ball costs e-folds (a 30th neighbour made exponents of maps 2 to 6 % too high).
_AUTO_QUERIES, _AUTO_NEIGHBOR, _SPREAD_STATES = 64, 4, 512


def absolute_radii(states: States, rule: WithinRadius) -> Floats:
    """The radii of a rule as distances, ascending."""
    if not isinstance(rule.radius, str):
        radii = np.unique(np.asarray(rule.radius, dtype=np.float64))
        return radii * spread(states) if rule.relative else radii
    times = np.flatnonzero(states.usable)
    reach = []
    for query in evenly(times, _AUTO_QUERIES):
        distance = states.between(np.array([query]), times)[0]
        distance = np.sort(distance[(np.abs(times - query) >= states.theiler) & (distance > 0)])
        if len(distance):
            reach.append(distance[min(_AUTO_NEIGHBOR, len(distance)) - 1])
    if not reach:
        raise NoNeighborsError(
            f"no two states at least theiler={states.theiler} samples apart differ, so no radius can be chosen; "
            "lower theiler, record more, or check that the states move at all"
        )
    return np.array([float(np.median(reach))])


def spread(states: States) -> float:
    """Median distance between two states of the record, from at most 512 evenly spaced ones."""
    times = evenly(np.flatnonzero(states.usable), _SPREAD_STATES)
    distance = states.between(times, times)[np.triu_indices(len(times), 1)]
    median = float(np.median(distance))
    if not median > 0:
        raise NoNeighborsError(
            "half of the states are equal: radii relative to the spread mean nothing; give distances"
        )
    return median
