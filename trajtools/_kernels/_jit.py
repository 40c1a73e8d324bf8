"""Compile options of the kernels, and threads.

Kernels release the GIL, so plain threads replace `prange`: numba compiles a function with `prange` twice, which doubled
the time to the first result, and its default threading layer aborts when two user threads call it at once. Every part
writes its own rows, so results do not depend on the number of threads, bit for bit.
"""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing import parent_process
from threading import local
from time import thread_time
from typing import Any

from numba import get_num_threads, njit
from numba.core import event
from numba.extending import register_jitable

NO_CACHE = (
    "neither the folder of trajtools nor the user's cache can be written. Set the environment variable NUMBA_CACHE_DIR "
    "to a folder that can"
)

_PATIENCE = 3.0  # seconds of compiling after which Python says so
_log = logging.getLogger("trajtools")
_listeners: list[Callable[[], None]] = []


@contextmanager
def on_compile(say: Callable[[], None]) -> Iterator[None]:
    """Call `say` whenever a kernel is compiled, not when it is loaded from the cache."""
    _listeners.append(say)
    try:
        yield
    finally:
        _listeners.remove(say)


def compile_message() -> str:
    """What the user reads while kernels are compiled."""
    return f"Compiling kernels, {'once; they are cached ...' if is_cached() else f'in every process: {NO_CACHE}.'}"


class Compilations(event.Listener):
    """Listener to compilations of our kernels by numba (not to loads from the cache).

    Where nobody has listened and they take long, a warning is logged, once and not in worker processes.
    """

    def __init__(self, clock: Callable[[], float] = thread_time) -> None:
        self._clock = clock
        self._depth = 0
        self._ours = self._logged = False
        self._begun = self._spent = 0.0

    def on_start(self, event: Any) -> None:
        """Notify the listeners, or log."""
        self._depth += 1
        if self._depth > 1:  # of what a kernel calls
            return
        self._ours = str(event.data["dispatcher"].py_func.__module__).startswith("trajtools.")
        if not self._ours:
            return
        for listener in _listeners:
            listener()
            self._logged = True  # a command has said it, or was asked to be quiet
        if not _listeners and self._spent >= _PATIENCE and not self._logged and parent_process() is None:
            self._logged = True
            _log.warning("%s", compile_message())
        self._begun = self._clock()

    def on_end(self, event: Any) -> None:
        """Add up the time of whole kernels."""
        self._depth -= 1
        if not self._depth and self._ours:
            self._spent += self._clock() - self._begun


event.register("numba:compile", Compilations())


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile with the common options; `options` may only add to them.

    No fastmath: NaN and inf are normal data here, and a sum must not depend on the number of threads. Where no folder
    for the cache can be written, as in containers, kernels are compiled in every process.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return njit(cache=True, error_model="numpy", no_cfunc_wrapper=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
        _warn_of_no_cache()
        return njit(error_model="numpy", no_cfunc_wrapper=True, **options)(function)

    return decorate


def helper(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile for the kernels that call it; what Python calls is interpreted.

    Without wrappers for Python and C and the files of a cache, each as slow to make as the code itself.
    """
    compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = register_jitable(
        error_model="numpy", no_cfunc_wrapper=True, **options
    )
    return compiled


def section() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the function a part of each kernel that calls it: nothing is compiled twice, once alone and once inlined.

    For functions that a kernel calls at one place.
    """
    spliced: Callable[[Callable[..., Any]], Callable[..., Any]] = njit(error_model="numpy", inline="always")
    return spliced


_without_cache: list[bool] = []


def _warn_of_no_cache() -> None:
    if not _without_cache:
        _without_cache.append(True)
        warnings.warn(f"kernels are compiled in every process: {NO_CACHE}", RuntimeWarning, stacklevel=2)


def is_cached() -> bool:
    """Whether compiled kernels are kept for the next process."""
    return not _without_cache


_PARTS_PER_THREAD = 8


def allowed() -> int:
    """Number of threads that numba may use, as set by the user."""
    return int(get_num_threads())


_inside = local()


def in_parts(work: Callable[[int, int], object], count: int, *, least: int = 1) -> None:
    """Call ``work(first, last)`` on consecutive parts of 0 .. count, on the threads allowed for numba.

    A thread gets at least `least` of the count: starting one takes 0.1 ms. A call from within a part runs on the thread
    of that part alone.
    """
    threads = min(int(get_num_threads()), count // least)
    if threads < 2 or getattr(_inside, "part", False):
        work(0, count)
        return
    parts = min(count, threads * _PARTS_PER_THREAD)
    edges = [count * part // parts for part in range(parts + 1)]
    queue = deque(pairwise(edges))
    failed: list[bool] = []

    def take() -> None:
        _inside.part, _inside.failed = True, failed
        try:
            while queue:
                try:
                    part = queue.popleft()
                except IndexError:  # another thread was faster
                    return
                work(*part)
        except BaseException:
            failed.append(True)
            queue.clear()
            raise
        finally:
            _inside.part, _inside.failed = False, ()

    # This thread works, too: one thread less to start, which matters for parts of a millisecond.
    with ThreadPoolExecutor(threads - 1) as pool:
        try:
            others = [pool.submit(take) for _ in range(threads - 1)]
            take()
            for other in others:
                other.result()
        except BaseException:  # the user's interruption comes here, too, while the others are at work
            failed.append(True)
            queue.clear()
            raise


def is_abandoned() -> bool:
    """Whether another part of the same work has failed or was interrupted, so that this one is for nothing."""
    return bool(getattr(_inside, "failed", ()))
