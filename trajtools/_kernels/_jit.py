"""The one place where numba's options are chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba import njit
from numba.core import event

_listeners: list[Callable[[], None]] = []


def _started() -> None:
    """Tell the listeners that the compilation of a kernel begins."""
    for listener in _listeners:
        listener()


@contextmanager
def on_compile(say: Callable[[], None]) -> Iterator[None]:
    """Have `say` called whenever a kernel is compiled, and not when it comes from the cache."""
    _listeners.append(say)
    try:
        yield
    finally:
        _listeners.remove(say)


class _Listener(event.Listener):
    """Passes on that numba compiles; what comes from the cache is not compiled."""

    def on_start(self, event: Any) -> None:
        """Tell who wants to know."""
        _started()

    def on_end(self, event: Any) -> None:
        """Tell nobody."""


event.register("numba:compile", _Listener())


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile with the house options; `options` may only add to them.

    No fastmath: NaN and inf are normal data here, and a sum must not depend on the number of threads.
    """
    return njit(cache=True, error_model="numpy", **options)
