"""Who writes the runs of a file, and whether one of them is being written now."""

from __future__ import annotations

import time
from collections.abc import Iterator

import h5py

from trajtools.errors import FileBusyError
from trajtools.store import safety
from trajtools.store.status import Owner, is_writing


def writer_of(group: h5py.Group) -> tuple[str, float, Owner]:
    """Read who writes a run."""
    beat = safety.child(group, "heartbeat", h5py.Dataset)
    owner = Owner(
        safety.number(beat, "process"),
        safety.attribute(beat, "host"),
        safety.attribute(beat, "boot"),
        safety.number(beat, "started"),
    )
    return safety.attribute(group, "status"), float(beat[()]), owner


def refuse_live_writer(file: h5py.File) -> None:
    """Refuse to change a file that somebody is writing."""
    for name, group in _groups(file):
        status, beat, owner = writer_of(group)
        if is_writing(status, beat, owner):
            raise FileBusyError(
                f"run {name!r} of this file is being recorded by process {owner.process} on {owner.host} "
                f"(last heartbeat {max(0.0, time.time() - beat):.0f} s ago); a file has one writer at a time. "
                "Record into another file, or close that recorder first."
            )


def has_live_writer(file: h5py.File) -> bool:
    """Say whether somebody is writing the file."""
    return any(is_writing(*writer_of(group)) for _, group in _groups(file))


def _groups(file: h5py.File) -> Iterator[tuple[str, h5py.Group]]:
    runs = safety.child(file, "runs", h5py.Group)
    for name in runs:
        yield name, safety.child(runs, name, h5py.Group)
