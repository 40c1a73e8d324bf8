"""Distances modulo the symmetries of a network: the order, sign and scale of its hidden units."""

from __future__ import annotations

from trajtools.distances.symmetries import Units, UnitSet, find_units
from trajtools.distances.symmetry.aligning import align
from trajtools.distances.symmetry.assumed import SYMMETRIES, Symmetry, permutation_metric

__all__ = ["SYMMETRIES", "Symmetry", "UnitSet", "Units", "align", "find_units", "permutation_metric"]
