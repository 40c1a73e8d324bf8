"""The dtypes that states may have, and how each is stored. Lossless, always."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import ArchitectureError

_STORED = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "bfloat16": "<u2"}


def stored_dtype(dtype: object) -> tuple[str, np.dtype[np.generic]]:
    """Say how a dtype is named and stored."""
    try:
        name = dtype if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype).name  # type: ignore[call-overload]
    except TypeError:
        name = str(dtype)
    if name not in _STORED:
        raise ArchitectureError(
            f"states of dtype {name} cannot be recorded; needed: {', '.join(_STORED)}. "
            "Leave the parameter out with exclude=, or pass its real and imaginary parts (or its float values)."
        )
    return name, np.dtype(_STORED[name])


def promote(names: list[str]) -> str:
    """Give the smallest dtype that holds all the given ones exactly."""
    kinds = set(names)
    if len(kinds) == 1:
        return names[0]
    # No 16-bit float holds both float16 and bfloat16; float32 holds either.
    return "float64" if "float64" in kinds else "float32"


def widen(bits: NDArray[np.generic]) -> NDArray[np.float32]:
    """Turn the bits of bfloat16 numbers into float32, exactly."""
    # NaN payloads survive: only zero bits are added below.
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
