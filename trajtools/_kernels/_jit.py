"""How kernels are compiled, and how independent parts of their work run on several threads.

The kernels release the GIL, so plain threads do what `prange` would: numba compiles a function that holds a `prange`
twice, which doubled the wait for a first result, and its default threading layer aborts when two threads of the user
call it at once. Every part writes its own rows, so the number of threads changes no bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from numba import get_num_threads, njit
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


_PARTS_PER_THREAD = 8


def allowed() -> int:
    """How many threads numba may use: what a user sets where cores are shared."""
    return int(get_num_threads())


def in_parts(work: Callable[[int, int], object], count: int) -> None:
    """Call ``work(first, last)`` on consecutive parts of 0 .. count, on as many threads as numba is allowed."""
    threads = min(int(get_num_threads()), count)
    if threads < 2:
        work(0, count)
        return
    parts = min(count, threads * _PARTS_PER_THREAD)
    edges = [count * part // parts for part in range(parts + 1)]
    left = deque(pairwise(edges))

    def take() -> None:
        while left:
            try:
                part = left.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                work(*part)
            except BaseException:
                left.clear()
                raise

    # This thread takes its share: one thread less to start, which counts where a part lasts a millisecond.
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(take) for _ in range(threads - 1)]
        take()
        for other in others:
            other.result()
