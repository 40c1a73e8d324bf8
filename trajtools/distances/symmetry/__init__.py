"""Distances modulo the symmetries of a network: the order, sign and scale of its hidden units."""

from __future__ import annotations

from trajtools.distances.permutation import SYMMETRIES, Symmetry, align, permutation_metric
from trajtools.distances.symmetries import Units, UnitSet, find_units

__all__ = ["SYMMETRIES", "Symmetry", "UnitSet", "Units", "align", "find_units", "permutation_metric"]
