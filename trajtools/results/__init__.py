"""What estimators return: frozen, with every setting that was used, and words for what went wrong."""

from __future__ import annotations

from trajtools.distances.equal_times import Contributions
from trajtools.distances.permutation import Alignment
from trajtools.results.change_points import ChangePoints
from trajtools.results.correlation import CYCLES, Autocorrelation, Cycles, NodeCorrelation
from trajtools.results.correlation_sum import CorrelationSum
from trajtools.results.curvature import Curvature
from trajtools.results.curves import AVERAGES, Fit, Floats, Ints, average_curves, mean_curve
from trajtools.results.dimension import DIMENSION_VERDICTS, Dimension
from trajtools.results.distances import Distances
from trajtools.results.divergence import Divergence
from trajtools.results.exponent import VERDICTS, Exponent
from trajtools.results.observables import Observables
from trajtools.results.order_chaos import OrderChaos, TrunkStability
from trajtools.results.plain import Result, to_plain
from trajtools.results.projection import Projection
from trajtools.results.recurrence import MEASURES, Lines, Measures, Recurrence
from trajtools.results.recurrence_views import RecurrenceIntervals, RecurrenceNetwork, WindowedRecurrence
from trajtools.results.stability import STABILITY_CLASSES, OrbitalStability, Trend
from trajtools.results.sweep import Sweep, SweepPoint
from trajtools.results.sweep_answers import Coincidence, Fastest, Onset
from trajtools.results.sweep_grids import BoundaryLaw, PhaseDiagram, Scaling
from trajtools.results.system_states import SystemStates
from trajtools.results.to_orbit import ToOrbit
from trajtools.results.zero_one import ZERO_ONE_VERDICTS, ZeroOne

__all__ = [
    "AVERAGES",
    "CYCLES",
    "DIMENSION_VERDICTS",
    "MEASURES",
    "STABILITY_CLASSES",
    "VERDICTS",
    "Alignment",
    "Contributions",
    "Distances",
    "ChangePoints",
    "Coincidence",
    "Curvature",
    "CorrelationSum",
    "Dimension",
    "Autocorrelation",
    "BoundaryLaw",
    "Cycles",
    "Divergence",
    "Exponent",
    "Fastest",
    "Fit",
    "Floats",
    "Ints",
    "Lines",
    "Measures",
    "NodeCorrelation",
    "Observables",
    "Onset",
    "OrbitalStability",
    "OrderChaos",
    "PhaseDiagram",
    "Recurrence",
    "RecurrenceIntervals",
    "RecurrenceNetwork",
    "Projection",
    "Result",
    "ToOrbit",
    "Scaling",
    "Sweep",
    "SweepPoint",
    "SystemStates",
    "Trend",
    "TrunkStability",
    "ZERO_ONE_VERDICTS",
    "ZeroOne",
    "WindowedRecurrence",
    "average_curves",
    "mean_curve",
    "to_plain",
]
