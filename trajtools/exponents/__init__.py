"""How fast neighbouring trajectories part: estimators, fits, nulls and the verdict."""

from __future__ import annotations

from trajtools.exponents.divergence import Divergence as Divergence
from trajtools.exponents.exponent import Exponent as Exponent
from trajtools.exponents.spectrum import LyapunovSpectrum as LyapunovSpectrum
from trajtools.exponents.windows import Windows as Windows
