"""Structure of a trajectory: correlations, cycles, dimension, projections, change points, system states."""

from __future__ import annotations

from trajtools.structure.autocorrelation import (
    Autocorrelation as Autocorrelation,
    NodeCorrelation as NodeCorrelation,
    autocorrelation as autocorrelation,
    node_correlation as node_correlation,
)
from trajtools.structure.change_points import ChangePoints as ChangePoints, change_points as change_points
from trajtools.structure.correlation_sum import CorrelationSum as CorrelationSum, correlation_sum as correlation_sum
from trajtools.structure.cycles import Cycles as Cycles, find_cycles as find_cycles
from trajtools.structure.dimension import Dimension as Dimension, correlation_dimension as correlation_dimension
from trajtools.structure.observables import Observables as Observables, observables as observables
from trajtools.structure.projection import Projection as Projection, mds as mds, pca as pca
from trajtools.structure.system_states import SystemStates as SystemStates, system_states as system_states
from trajtools.structure.zero_one import ZeroOne as ZeroOne, zero_one_test as zero_one_test
