"""What a trajectory looks like: correlations, cycles, dimension, projections, change points, system states."""

from __future__ import annotations

from trajtools.structure.autocorrelation import Autocorrelation as Autocorrelation
from trajtools.structure.autocorrelation import NodeCorrelation as NodeCorrelation
from trajtools.structure.autocorrelation import autocorrelation as autocorrelation
from trajtools.structure.autocorrelation import node_correlation as node_correlation
from trajtools.structure.change_points import ChangePoints as ChangePoints
from trajtools.structure.change_points import change_points as change_points
from trajtools.structure.correlation_sum import CorrelationSum as CorrelationSum
from trajtools.structure.correlation_sum import correlation_sum as correlation_sum
from trajtools.structure.cycles import Cycles as Cycles
from trajtools.structure.cycles import find_cycles as find_cycles
from trajtools.structure.dimension import Dimension as Dimension
from trajtools.structure.dimension import correlation_dimension as correlation_dimension
from trajtools.structure.observables import Observables as Observables
from trajtools.structure.observables import observables as observables
from trajtools.structure.projection import Projection as Projection
from trajtools.structure.projection import mds as mds
from trajtools.structure.projection import pca as pca
from trajtools.structure.system_states import SystemStates as SystemStates
from trajtools.structure.system_states import system_states as system_states
from trajtools.structure.zero_one import ZeroOne as ZeroOne
from trajtools.structure.zero_one import zero_one_test as zero_one_test
