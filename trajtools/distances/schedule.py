"""Tasks in any order, on threads of this process or on any executor; a few at a time, so that results never pile up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

Task = TypeVar("Task")

_AHEAD = 32  # tasks that wait on an executor of the user's: enough for its workers, few enough to interrupt


def threads() -> int:
    """How many threads of this process may work."""
    from trajtools._kernels._threads import allowed

    return allowed()


def run(
    tasks: Iterable[Task],
    compute: Callable[[Any], Any],
    keep: Callable[[Task, Any], None],
    *,
    executor: Executor | None,
    workers: int,
    send: Callable[[Task], Any] = lambda task: task,
) -> None:
    """Compute tasks and keep their results, in this thread, as they come."""
    if executor is not None:
        _drain(executor, tasks, compute, keep, send=send, ahead=_AHEAD)
    elif workers < 2:
        for task in tasks:
            keep(task, compute(send(task)))
    else:
        with ThreadPoolExecutor(workers) as pool:
            _drain(pool, tasks, compute, keep, send=send, ahead=2 * workers)


def _drain(
    pool: Executor,
    tasks: Iterable[Task],
    compute: Callable[[Any], Any],
    keep: Callable[[Task, Any], None],
    *,
    send: Callable[[Task], Any],
    ahead: int,
) -> None:
    waiting: dict[Future[Any], Task] = {}
    left = iter(tasks)
    try:
        for task in left:
            waiting[pool.submit(compute, send(task))] = task
            if len(waiting) >= ahead:
                _keep_some(waiting, keep)
        while waiting:
            _keep_some(waiting, keep)
    finally:
        for future in waiting:
            future.cancel()


def _keep_some(waiting: dict[Future[Any], Task], keep: Callable[[Task, Any], None]) -> None:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        task = waiting.pop(future)
        keep(task, future.result())
