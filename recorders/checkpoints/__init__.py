"""Turn saved weights into a run: a folder with a checkpoint for each state, or a file with a whole trajectory.

`convert` does it; ``python -m recorders.checkpoints`` is how ``trajtools convert`` asks for it, in a process of its
own, because the analysis imports neither recorders nor frameworks.
"""

from __future__ import annotations

from recorders.checkpoints.convert import Conversion, convert
from recorders.checkpoints.steps import Order

__all__ = ["Conversion", "Order", "convert"]
