"""Who is told when a kernel has to be compiled; loads nothing, so that anybody can ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listeners: list[Callable[[], None]] = []


def started() -> None:
    """Tell the listeners that the compilation of a kernel begins."""
    for listener in _listeners:
        listener()


@contextmanager
def told_of_compiling(say: Callable[[], None]) -> Iterator[None]:
    """Have `say` called whenever a kernel is compiled, and not when it comes from the cache."""
    _listeners.append(say)
    try:
        yield
    finally:
        _listeners.remove(say)
