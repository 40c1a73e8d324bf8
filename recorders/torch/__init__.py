"""Record and probe the training of torch modules: by the optimiser's step hook, by hand, or under any trainer.

The door to torch. Recording: `Recorder`, `perturb`, `Twins`. Probes, whose numbers are recorded as metrics:
`sharpness`, `hessian_vector_product`, `batch_sharpness`, `trace`, `spectral_density` (with `Batches` for data that come
in pieces) and `Shadow`. Nothing of the user's is changed: no train/eval switch, no draw from a generator, no gradient,
no write; the trained weights are bit-identical with and without a recorder or a probe.
"""

from __future__ import annotations

from recorders.batches import Batches
from recorders.torch.curvature import batch_sharpness, hessian_vector_product, sharpness, spectral_density, trace
from recorders.torch.edge import find_edge
from recorders.torch.perturbed import perturb
from recorders.torch.recorder import Recorder
from recorders.torch.shadow import Shadow
from recorders.torch.twins import Twins

__all__ = [
    "Batches",
    "Recorder",
    "Shadow",
    "Twins",
    "batch_sharpness",
    "find_edge",
    "hessian_vector_product",
    "perturb",
    "sharpness",
    "spectral_density",
    "trace",
]
