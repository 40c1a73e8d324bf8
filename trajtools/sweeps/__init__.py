"""Compare many runs: exponent, training time and sharpness against hyper-parameters, and the onset of chaos."""

from __future__ import annotations

from trajtools.sweeps.diagram import BoundaryLaw as BoundaryLaw, PhaseDiagram as PhaseDiagram, Scaling as Scaling
from trajtools.sweeps.onset import Coincidence as Coincidence, Fastest as Fastest, Onset as Onset
from trajtools.sweeps.sweep import Sweep as Sweep, SweepPoint as SweepPoint, sweep as sweep
