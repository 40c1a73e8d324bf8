"""Many runs: exponent, training time and sharpness against hyper-parameters, and where the onset of chaos lies."""

from __future__ import annotations

from trajtools.sweeps.diagram import BoundaryLaw as BoundaryLaw
from trajtools.sweeps.diagram import PhaseDiagram as PhaseDiagram
from trajtools.sweeps.diagram import Scaling as Scaling
from trajtools.sweeps.onset import Coincidence as Coincidence
from trajtools.sweeps.onset import Fastest as Fastest
from trajtools.sweeps.onset import Onset as Onset
from trajtools.sweeps.sweep import Sweep as Sweep
from trajtools.sweeps.sweep import SweepPoint as SweepPoint
from trajtools.sweeps.sweep import sweep as sweep
