"""Record the training of torch modules: by the optimiser's step hook, by hand, or under any trainer.

The door to torch: `Recorder`, `perturb`, `Twins`. Nothing of the user's is changed: no train/eval switch, no draw from
a generator, no gradient, no write; the trained weights are bit-identical with and without a recorder.
"""

from __future__ import annotations

from recorders.torch.perturbed import perturb
from recorders.torch.recorder import Recorder
from recorders.torch.twins import Twins

__all__ = ["Recorder", "Twins", "perturb"]
