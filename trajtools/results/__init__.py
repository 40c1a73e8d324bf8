"""What estimators return: frozen, with every setting that was used, and words for what went wrong."""

from __future__ import annotations

from trajtools.results.curves import AVERAGES, Fit, Floats, Ints, average_curves, mean_curve
from trajtools.results.distances import Distances
from trajtools.results.divergence import Divergence
from trajtools.results.exponent import VERDICTS, Exponent
from trajtools.results.order_chaos import OrderChaos, TrunkStability
from trajtools.results.plain import Result, to_plain

__all__ = [
    "AVERAGES",
    "VERDICTS",
    "Distances",
    "Divergence",
    "Exponent",
    "Fit",
    "Floats",
    "Ints",
    "OrderChaos",
    "Result",
    "TrunkStability",
    "average_curves",
    "mean_curve",
    "to_plain",
]
