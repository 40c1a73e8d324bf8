"""Figures of results; matplotlib is loaded when one is drawn and not before."""

from trajtools.plots.figures import divergence, divergences

__all__ = ["divergence", "divergences"]
