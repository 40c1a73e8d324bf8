"""Record and probe the training of pytrees: state by state, in compiled blocks of a scan, or from inside jit.

Recording: `Recorder`, `record_scan`, `tap`, `perturb`, `stack`, `Twins`. Probes, whose numbers are recorded as metrics:
`sharpness`, `hessian_vector_product`, `batch_sharpness`, `trace`, `spectral_density` (with `Batches` for data in
several batches), `Shadow`, `tangent_exponents` and `Tangents`; and `CurvatureLR`, which sets the learning rate. Names
of parameters are key paths joined by dots: ``params.Dense_0.kernel`` (flax), ``layers.0.weight`` (equinox), ``0.1``
(tuples). Recorders and probes do not modify the training: no key is used, no option set, no array donated. The trained
weights are bit-identical with and without them.
"""

from __future__ import annotations

from recorders.hessian import Batches
from recorders.jax.edge import find_edge
from recorders.jax.hessian import (
    batch_sharpness,
    hessian_vector_product,
    preconditioner,
    sharpness,
    spectral_density,
    trace,
)
from recorders.jax.recorder import Recorder
from recorders.jax.scan import record_scan, tap
from recorders.jax.shadow import CurvatureLR, Shadow
from recorders.jax.tangents import Tangents, tangent_exponents
from recorders.jax.twins import TwinList, Twins, perturb, stack

__all__ = [
    "Batches",
    "CurvatureLR",
    "Recorder",
    "Shadow",
    "Tangents",
    "TwinList",
    "Twins",
    "batch_sharpness",
    "find_edge",
    "hessian_vector_product",
    "perturb",
    "preconditioner",
    "record_scan",
    "sharpness",
    "spectral_density",
    "stack",
    "tap",
    "tangent_exponents",
    "trace",
]
