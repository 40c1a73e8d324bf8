"""Distances between states: the registry of metrics, and distances at equal times, of all pairs, up to symmetry."""

from __future__ import annotations

from trajtools.distances.entrywise import ENTRYWISE as ENTRYWISE
from trajtools.distances.equal_times import Contributions as Contributions
from trajtools.distances.equal_times import contributions as contributions
from trajtools.distances.equal_times import distance as distance
from trajtools.distances.graphs import DELTACON as DELTACON
from trajtools.distances.graphs import STRUCTURAL as STRUCTURAL
from trajtools.distances.metric import METRICS as METRICS
from trajtools.distances.metric import Metric as Metric
from trajtools.distances.metric import MetricLike as MetricLike
from trajtools.distances.metric import bind_metric as bind_metric
from trajtools.distances.metric import find_metric as find_metric
from trajtools.distances.metric import register_metric as register_metric
from trajtools.distances.metric import rounding_floor as rounding_floor
from trajtools.distances.pairwise import Distances as Distances
from trajtools.distances.pairwise import pairwise as pairwise
from trajtools.distances.permutation import SYMMETRIES as SYMMETRIES
from trajtools.distances.permutation import Alignment as Alignment
from trajtools.distances.permutation import align as align
from trajtools.distances.permutation import permutation_metric as permutation_metric
from trajtools.distances.spectral import QUANTUM as QUANTUM
from trajtools.distances.spectral import SPECTRAL as SPECTRAL
from trajtools.distances.spectral import heat_trace as heat_trace
from trajtools.distances.spectral import quantum_jensen_shannon as quantum_jensen_shannon

for _metric in (*ENTRYWISE, *SPECTRAL, *STRUCTURAL, DELTACON, QUANTUM, *SYMMETRIES):
    METRICS.add(_metric, _metric.name)
