"""HDF5 files of runs: one file each, checksummed. All access to files is in this package; FORMAT.md specifies them."""

from __future__ import annotations

from trajtools.store.layout import StreamLayout, promote, stored_dtype, widen
from trajtools.store.reading import Run, Runs, StoredArray, StoredStates, open_runs, run_files
from trajtools.store.writing import RunWriter, Tail

__all__ = [
    "Run",
    "RunWriter",
    "Runs",
    "StoredArray",
    "StoredStates",
    "StreamLayout",
    "Tail",
    "open",
    "open_runs",
    "promote",
    "run_files",
    "stored_dtype",
    "widen",
]

open = Run
