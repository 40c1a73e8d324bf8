"""The one place where numba's options are chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile with the house options; `options` may only add to them.

    No fastmath: NaN and inf are normal data here, and a sum must not depend on the number of threads.
    """
    return njit(cache=True, error_model="numpy", **options)
