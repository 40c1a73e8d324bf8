"""Figures of results; matplotlib is loaded when one is drawn and not before."""

from trajtools.plots.figures import divergence, divergences
from trajtools.plots.figures import draw_windows as windows

__all__ = ["divergence", "divergences", "windows"]
