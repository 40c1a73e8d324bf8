"""Distances between states: the registry of metrics, and distances at equal times, of all pairs, up to symmetry."""

from __future__ import annotations

from trajtools.distances.entrywise import ENTRYWISE
from trajtools.distances.equal_times import (
    Contributions as Contributions,
    contributions as contributions,
    distance as distance,
)
from trajtools.distances.graphs import DELTACON, STRUCTURAL
from trajtools.distances.metric import (
    METRICS as METRICS,
    Metric as Metric,
    MetricLike as MetricLike,
    register_metric as register_metric,
    rounding_floor as rounding_floor,
)
from trajtools.distances.pairwise import Distances as Distances, pairwise as pairwise
from trajtools.distances.permutation import (
    SYMMETRIES,
    Alignment as Alignment,
    align as align,
    permutation_metric as permutation_metric,
)
from trajtools.distances.spectral import (
    QUANTUM,
    SPECTRAL,
    heat_trace as heat_trace,
    quantum_jensen_shannon as quantum_jensen_shannon,
)

for _metric in (*ENTRYWISE, *SPECTRAL, *STRUCTURAL, DELTACON, QUANTUM, *SYMMETRIES):
    METRICS.add(_metric, _metric.name)
