"""Figures of results; the first one imports matplotlib."""

from trajtools.plots._axes import style
from trajtools.plots.exponents import divergence, divergences, draw_windows as windows
from trajtools.plots.states import (
    change_points,
    contributions,
    distances,
    metric,
    observables,
    projection,
    stability,
    system_states,
    to_orbit,
)
from trajtools.plots.structure import (
    autocorrelation,
    correlation_dimension,
    correlation_sum,
    recurrence,
    recurrence_lines,
    recurrence_windows,
    zero_one_test,
)
from trajtools.plots.sweeps import curvature, edge, order_chaos, phase_diagram, scaling, sweep

__all__ = [
    "autocorrelation",
    "change_points",
    "contributions",
    "correlation_dimension",
    "correlation_sum",
    "curvature",
    "distances",
    "divergence",
    "divergences",
    "edge",
    "metric",
    "observables",
    "order_chaos",
    "phase_diagram",
    "projection",
    "recurrence",
    "recurrence_lines",
    "recurrence_windows",
    "scaling",
    "stability",
    "style",
    "sweep",
    "system_states",
    "to_orbit",
    "windows",
    "zero_one_test",
]
