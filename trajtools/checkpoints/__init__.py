"""Turn saved weights into a run: a folder with a checkpoint for each state, or a file with a whole trajectory.

`trajtools.convert` does it; ``python -m trajtools.checkpoints`` is how ``trajtools convert`` asks for it, in a process
of its own, because a file of a stranger can crash what reads it.
"""

from __future__ import annotations

from trajtools.checkpoints.convert import Conversion, convert
from trajtools.checkpoints.steps import Order

__all__ = ["Conversion", "Order", "convert"]
