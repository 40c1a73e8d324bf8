"""HDF5 files of runs: one file each, checksummed. All access to files is in this package; FORMAT.md specifies them."""

from __future__ import annotations

import os

from trajtools.store.checks import Problem, validate
from trajtools.store.isolation import open_isolated, probe
from trajtools.store.layout import StreamLayout, digest, promote, publish, stored_dtype, widen
from trajtools.store.reading import Run, Runs, StoredArray, StoredStates, open_runs, run_files
from trajtools.store.salvage import Repair, repair
from trajtools.store.writing import RunWriter, Tail

__all__ = [
    "Problem", "Repair", "Run", "RunWriter", "Runs", "StoredArray", "StoredStates", "StreamLayout", "Tail", "digest",
    "open", "open_isolated", "open_runs", "probe", "promote", "publish",
    "repair", "run_files", "stored_dtype", "validate", "widen",
]  # fmt: skip


def open(path: str | os.PathLike[str], *, isolated: bool = False) -> Run:
    """Open a run.

    Parameters
    ----------
    path : path-like
        Its file.
    isolated : bool
        Let a child process open the file first, within 5 s and 1 GiB, because a file of a stranger can crash HDF5.

    Returns
    -------
    Run

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is not a trajtools file, or too damaged to be opened.
    UnsafeFileError
        If it points outside itself, declares more than it holds, or the child process did not survive it.
    """
    return open_isolated(path) if isolated else Run(path)
