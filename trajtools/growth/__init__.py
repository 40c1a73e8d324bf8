"""From divergence curves to an exponent: the region, the rate, its interval, its null and the verdict."""

from __future__ import annotations

from trajtools.growth.methods import fit

__all__ = ["fit"]
