"""Who does the work of a command: this process, several of this machine, or a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

import click

from trajtools.errors import DataError, MissingDependencyError

Command = TypeVar("Command", bound=Callable[..., Any])


def hands(command: Command) -> Command:
    """Let a command spread its work.

    Parameters
    ----------
    command : callable
        What is to become a command.

    Returns
    -------
    callable
        The same, with ``workers`` and ``scheduler``.
    """
    for option in (
        click.option("--scheduler", metavar="ADDRESS", help="Of a Dask cluster that does the work instead."),
        click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes."),
    ):
        command = option(command)
    return command


@contextmanager
def executor_of(workers: int, scheduler: str | None) -> Iterator[Executor | None]:
    """Choose who does the work.

    Parameters
    ----------
    workers : int
        Processes of this machine; 1: this one.
    scheduler : str or None
        Address of a Dask cluster.

    Yields
    ------
    Executor or None
        None for this process.

    Raises
    ------
    MissingDependencyError
        If Dask is asked for and not installed.
    DataError
        If no cluster answers.
    """
    if scheduler is not None:
        with _client(scheduler) as client:
            yield client.get_executor()
    elif workers == 1:
        yield None
    else:
        # Not forked: numba and BLAS may have threads by now.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield pool


def _client(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ImportError as missing:
        words = '--scheduler needs Dask, which is not installed: pip install "trajtools[dask]"'
        raise MissingDependencyError(words) from missing
    try:
        return Client(scheduler)
    except (OSError, ValueError) as problem:
        raise DataError(
            f"no Dask cluster answers at {scheduler!r} ({problem}): give the address that `dask scheduler` printed"
        ) from problem
