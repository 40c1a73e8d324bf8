"""Distances between states: the registry of metrics, and the distance of two trajectories at equal times."""

from __future__ import annotations

from trajtools.distances.entrywise import ENTRYWISE
from trajtools.distances.equal_times import between
from trajtools.distances.graphs import DELTACON, STRUCTURAL
from trajtools.distances.metric import METRICS, Metric, MetricLike, bind_metric, find_metric, floor, register_metric
from trajtools.distances.permutation import SYMMETRIES, align, permutation_metric
from trajtools.distances.spectral import QUANTUM, SPECTRAL, heat_trace, quantum_jensen_shannon

for _metric in (*ENTRYWISE, *SPECTRAL, *STRUCTURAL, DELTACON, QUANTUM, *SYMMETRIES):
    METRICS.add(_metric, _metric.name)

__all__ = [
    "METRICS",
    "Metric",
    "MetricLike",
    "align",
    "between",
    "bind_metric",
    "find_metric",
    "floor",
    "heat_trace",
    "permutation_metric",
    "quantum_jensen_shannon",
    "register_metric",
]
