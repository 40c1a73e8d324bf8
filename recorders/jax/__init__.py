"""Record the training of pytrees: state by state in a Python loop, in compiled blocks of a scan, or from inside jit.

The door to JAX: `Recorder`, `record_scan`, `tap`, `perturb`, `stack`, `Twins`. Names of parameters are key paths joined
by dots: ``params.Dense_0.kernel`` (flax), ``layers.0.weight`` (equinox), ``0.1`` (tuples). Nothing of the user's is
changed: no key is used, no option set, no array donated; the trained weights are bit-identical with and without a
recorder.
"""

from __future__ import annotations

from recorders.jax.perturbed import TwinList, perturb, stack
from recorders.jax.recorder import Recorder
from recorders.jax.scan import record_scan, tap
from recorders.jax.twins import Twins

__all__ = ["Recorder", "TwinList", "Twins", "perturb", "record_scan", "stack", "tap"]
