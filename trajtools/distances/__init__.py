"""Distances between states: the registry of metrics, and the distance of two trajectories at equal times."""

from __future__ import annotations

from trajtools.distances.metrics import METRICS, Metric, MetricLike, bind_metric, find_metric, floor, register_metric
from trajtools.distances.paths import between

__all__ = ["METRICS", "Metric", "MetricLike", "between", "bind_metric", "find_metric", "floor", "register_metric"]
