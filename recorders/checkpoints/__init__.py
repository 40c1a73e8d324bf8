"""Turn a folder of saved weights into a run: .npz, .safetensors and PyTorch's .pt, one file per state.

`convert` does it; ``python -m recorders.checkpoints`` is how ``trajtools convert`` asks for it, in a process of its
own, because the analysis imports neither recorders nor frameworks.
"""

from __future__ import annotations

from recorders.checkpoints.convert import Order, convert

__all__ = ["Order", "convert"]
