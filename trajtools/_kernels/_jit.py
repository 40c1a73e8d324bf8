"""The one place where numba's options are chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core import event

from trajtools._kernels import _compiling


class _Listener(event.Listener):
    """Passes on that numba compiles; what comes from the cache is not compiled."""

    def on_start(self, event: Any) -> None:
        """Tell who wants to know."""
        _compiling.started()

    def on_end(self, event: Any) -> None:
        """Tell nobody."""


event.register("numba:compile", _Listener())


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile with the house options; `options` may only add to them.

    No fastmath: NaN and inf are normal data here, and a sum must not depend on the number of threads.
    """
    return njit(cache=True, error_model="numpy", **options)
