"""HDF5 files of runs: one file each, checksummed. All access to files is in this package; FORMAT.md specifies them."""

from __future__ import annotations

from trajtools.store.damage import Problem, Repair, repair, validate
from trajtools.store.isolation import open_isolated, probe
from trajtools.store.layout import RunSpec, StreamLayout, digest, promote, publish, stored_dtype, widen
from trajtools.store.reading import Run, StoredArray, StoredStates
from trajtools.store.runs import Runs, ShardedRun, open, open_runs, run_files, whole_runs
from trajtools.store.shards import Box, Place, Shard
from trajtools.store.writing import RunWriter, Tail, origin

__all__ = [
    "Box", "Place", "Problem", "Repair", "Run", "RunSpec", "RunWriter", "Runs", "Shard", "ShardedRun", "StoredArray",
    "StoredStates", "StreamLayout", "Tail", "digest", "open", "open_isolated", "open_runs", "origin", "probe",
    "promote", "publish", "repair", "run_files", "stored_dtype", "validate", "whole_runs", "widen",
]  # fmt: skip
