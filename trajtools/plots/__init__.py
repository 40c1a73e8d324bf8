"""Figures of results; matplotlib is loaded when one is drawn and not before."""

from trajtools.plots.dimensions import correlation_dimension, correlation_sum
from trajtools.plots.correlation import autocorrelation
from trajtools.plots.figures import divergence, divergences
from trajtools.plots.figures import draw_windows as windows
from trajtools.plots.order_chaos import order_chaos
from trajtools.plots.stability import stability
from trajtools.plots.sweep import phase_diagram, sweep
from trajtools.plots.zero_ones import zero_one_test

__all__ = [
    "autocorrelation",
    "correlation_dimension",
    "correlation_sum",
    "zero_one_test",
    "divergence",
    "divergences",
    "order_chaos",
    "phase_diagram",
    "stability",
    "sweep",
    "windows",
]
