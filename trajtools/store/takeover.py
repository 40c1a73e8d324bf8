"""Becoming the writer of a file, for a new or a resumed run, in one atomic change."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from trajtools.errors import RunExistsError
from trajtools.store import liveness, structure
from trajtools.store.status import Owner
from trajtools.store.structure import RunSpec

Places = tuple[int, int, float]
"""Where `committed` and `heartbeat` lie in the file, and what the heartbeat is."""


def add_run(file: h5py.File, path: Path, run: str, spec: RunSpec) -> Places:
    """Make a new run, as its writer."""
    liveness.refuse_live_writer(file)
    if path.exists():
        structure.refuse_truncated(file, os.path.getsize(path))
    runs = file["runs"]
    if run in runs:
        raise RunExistsError(
            f"{path} already holds a run {run!r}, which is never overwritten; it has {', '.join(map(repr, runs))}. "
            "Choose another name, or continue the run with resume=True."
        )
    return _places(runs, run, structure.build_run(runs, run, spec, Owner.current()))


def take_over(file: h5py.File, path: Path, run: str, provenance: Mapping[str, Any] | None) -> Places:
    """Go on with a run, as its writer."""
    liveness.refuse_live_writer(file)
    structure.refuse_truncated(file, os.path.getsize(path))
    group = file["runs"][run]
    structure.set_status(group, "recording")
    if provenance is not None:
        structure.note_resumption(group, provenance)
    return _places(file["runs"], run, structure.set_owner(group, Owner.current()))


def _places(runs: h5py.Group, run: str, heartbeat: float) -> Places:
    group = runs[run]
    return group["committed"].id.get_offset(), group["heartbeat"].id.get_offset(), heartbeat
