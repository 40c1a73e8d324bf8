"""Figures of results; matplotlib is loaded when one is drawn and not before."""

from trajtools.plots.correlation import autocorrelation
from trajtools.plots.curvature import curvature
from trajtools.plots.dimensions import correlation_dimension, correlation_sum
from trajtools.plots.edge import edge
from trajtools.plots.figures import divergence, divergences
from trajtools.plots.figures import draw_windows as windows
from trajtools.plots.matrices import contributions, distances, to_orbit
from trajtools.plots.order_chaos import order_chaos
from trajtools.plots.recurrence import draw_lines as recurrence_lines
from trajtools.plots.recurrence import draw_recurrence as recurrence
from trajtools.plots.recurrence import draw_windowed as recurrence_windows
from trajtools.plots.scaling import phase_diagram, scaling
from trajtools.plots.stability import stability
from trajtools.plots.structure import change_points, observables, projection, system_states
from trajtools.plots.sweep import sweep
from trajtools.plots.zero_ones import zero_one_test

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
    "observables",
    "order_chaos",
    "phase_diagram",
    "projection",
    "recurrence",
    "recurrence_lines",
    "recurrence_windows",
    "scaling",
    "stability",
    "sweep",
    "system_states",
    "to_orbit",
    "windows",
    "zero_one_test",
]
