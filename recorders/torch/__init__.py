"""Record and probe the training of torch modules: via the step hook of the optimiser, explicit calls, or any trainer.

Recording: `Recorder`, `perturb`, `Twins`, `LoopTwins`. Probes, whose numbers are recorded as metrics: `sharpness`,
`hessian_vector_product`, `batch_sharpness`, `trace`, `spectral_density` (with `Batches` for data in several batches),
`Shadow`, `tangent_exponents` and `Tangents`; and `CurvatureLR`, which sets the learning rate. Recorders and probes do
not modify the training: no train/eval switch, no draw from a generator, no gradient, no write. The trained weights are
bit-identical with and without them.
"""

from __future__ import annotations

from recorders.hessian import Batches
from recorders.torch.edge import find_edge
from recorders.torch.hessian import (
    batch_sharpness,
    hessian_vector_product,
    preconditioner,
    sharpness,
    spectral_density,
    trace,
)
from recorders.torch.loop_twins import LoopTwins
from recorders.torch.recorder import Recorder
from recorders.torch.shadow import CurvatureLR, Shadow
from recorders.torch.tangents import Tangents, tangent_exponents
from recorders.torch.twins import Twins, perturb

__all__ = [
    "Batches",
    "CurvatureLR",
    "LoopTwins",
    "Recorder",
    "Shadow",
    "Tangents",
    "Twins",
    "batch_sharpness",
    "find_edge",
    "hessian_vector_product",
    "perturb",
    "preconditioner",
    "sharpness",
    "spectral_density",
    "tangent_exponents",
    "trace",
]
