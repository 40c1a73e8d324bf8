"""HDF5 files of runs: one file each, checksummed. All access to files is in this package; FORMAT.md specifies them."""

from __future__ import annotations

from trajtools.store.checks import Problem, validate
from trajtools.store.isolation import open_isolated, probe
from trajtools.store.layout import StreamLayout, digest, promote, publish, stored_dtype, widen
from trajtools.store.reading import Run, StoredArray, StoredStates
from trajtools.store.runs import Runs, ShardedRun, open, open_runs, run_files, whole_runs
from trajtools.store.salvage import Repair, repair
from trajtools.store.shards import Box, Place, Shard
from trajtools.store.writing import RunWriter, Tail

__all__ = [
    "Box", "Place", "Problem", "Repair", "Run", "RunWriter", "Runs", "Shard", "ShardedRun", "StoredArray",
    "StoredStates", "StreamLayout", "Tail", "digest", "open", "open_isolated", "open_runs", "probe", "promote",
    "publish", "repair", "run_files", "stored_dtype", "validate", "whole_runs", "widen",
]  # fmt: skip
