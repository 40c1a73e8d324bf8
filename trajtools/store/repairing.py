"""Repair a file left by a crashed writer, in pure Python."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import h5py

from trajtools.store import handles, liveness, safety, structure, transaction
from trajtools.store.superblock import SIZE


@dataclass(frozen=True)
class Repair:
    """What `repair` did.

    Attributes
    ----------
    path : Path
        The file.
    rolled_back : bool
        A change of the structure had been cut short, and was undone.
    mark_cleared : bool
        The mark of the dead writer was taken off.
    interrupted : tuple of str
        Runs whose status was set to ``interrupted``.
    committed : dict of str to int
        Whole states of every run of the file.
    """

    path: Path
    rolled_back: bool
    mark_cleared: bool
    interrupted: tuple[str, ...]
    committed: dict[str, int]

    @property
    def changed(self) -> bool:
        """Whether there was anything to mend."""
        return self.rolled_back or self.mark_cleared or bool(self.interrupted)

    def __str__(self) -> str:
        if not self.changed:
            return f"{self.path}: nothing to repair"
        done = []
        if self.rolled_back:
            done.append("an unfinished change was undone")
        if self.mark_cleared:
            done.append("the mark of a crashed writer was cleared")
        done += [f"run {name!r} is interrupted, {self.committed[name]} states are intact" for name in self.interrupted]
        return f"{self.path}: {'; '.join(done)}"


def repair(path: str | os.PathLike[str]) -> Repair:
    """Make a file whole and writable again after its writer was killed; every committed state is kept.

    All or nothing, like every change: `repair` itself may be killed. A file that needs nothing is not touched.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    Repair
        What was done.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FileBusyError
        If its writer lives.
    FormatError
        If it is no trajtools file, or committed states are missing.
    """
    where = Path(os.path.abspath(path))
    if not where.exists():
        raise FileNotFoundError(f"{where} does not exist")
    rolled_back = handles.roll_back(where)
    structure.require_ours(where)
    size = os.path.getsize(where)
    with open(where, "rb") as raw:
        block = handles.check_head(where, raw.read(SIZE), size)
    interrupted: list[str] = []
    committed: dict[str, int] = {}

    def mend(file: h5py.File) -> None:
        liveness.refuse_live_writer(file)
        structure.refuse_truncated(file, size)
        runs = safety.child(file, "runs", h5py.Group)
        for name in runs:
            group = safety.child(runs, name, h5py.Group)
            committed[name] = int(safety.child(group, "committed", h5py.Dataset)[()])
            if safety.attribute(group, "status") == "recording":
                structure.set_status(group, "interrupted")
                interrupted.append(name)

    handles.release(where)
    transaction.change(where, mend)
    return Repair(where, rolled_back, block is not None and block.flags != 0, tuple(interrupted), committed)
