"""Figures of results; matplotlib is loaded when one is drawn and not before."""

from trajtools.plots.figures import divergence, divergences, windows

__all__ = ["divergence", "divergences", "windows"]
