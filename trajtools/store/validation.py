"""Check every MUST of FORMAT.md, one by one, without changing the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from trajtools.errors import TrajtoolsError
from trajtools.store import safety
from trajtools.store.files import File
from trajtools.store.h5 import in_words
from trajtools.store.runs import Run
from trajtools.store.wholeness import GROWING, missing_chunks
from trajtools.wiring import NodeSet, Parameter

RUN_ATTRIBUTES = {"status", "time_unit", "hparams", "provenance", "reference", "overhead"}
RUN_CHILDREN = {
    *GROWING,
    *("committed", "heartbeat", "parameters", "nodes", "members", "metrics", "optimizer_parameters", "replay"),
}
STATUSES = ("recording", "complete", "interrupted")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file.

    Attributes
    ----------
    severity : str
        ``"error"``: a MUST is broken; ``"warning"``: the file can be read, but something is odd.
    where : str
        Path inside the file.
    words : str
        What is wrong.
    """

    severity: str
    where: str
    words: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.words}"


def validate(path: str | os.PathLike[str]) -> list[Problem]:
    """Check a file against FORMAT.md.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    list of Problem
        Empty if all is well.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    where = Path(os.path.abspath(path))
    if not where.exists():
        raise FileNotFoundError(f"{where} does not exist")
    found = _Findings(where)
    with found.noting("/"), File(where) as file, file._handle.lock:
        root = file._handle.file
        if file.readable_newer:
            found.warn("/", f"format version {file.format_version} is newer than this trajtools; new parts are ignored")
        found.unknown("/", set(root), {"runs", "cache"})
        found.unknown("/", set(root.attrs), {"format", "format_version"})
        _check_links(found, root)
        for name in file:
            with found.noting(f"/runs/{name}"):
                _check_run(found, file[name], os.path.getsize(where))
    return found.problems


class _Findings:
    """Collects problems, so that one does not hide the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems: list[Problem] = []

    def error(self, where: str, words: str) -> None:
        problem = Problem("error", where, words)
        if problem not in self.problems:
            self.problems.append(problem)

    def warn(self, where: str, words: str) -> None:
        self.problems.append(Problem("warning", where, words))

    def need(self, holds: bool, where: str, words: str) -> None:
        if not holds:
            self.error(where, words)

    def unknown(self, where: str, present: set[str], known: set[str]) -> None:
        for name in sorted(present - known):
            self.warn(where, f"{name!r} is not part of the format and is ignored")

    @contextlib.contextmanager
    def noting(self, where: str) -> Iterator[None]:
        try:
            with in_words(self._path, "read an object"):
                yield
        except TrajtoolsError as error:
            self.error(where, str(error))


def _check_links(found: _Findings, root: h5py.Group) -> None:
    """Walk the whole file once; an object that is reached twice (a cycle, too) is entered once."""
    seen, waiting = {h5py.h5o.get_info(root.id).addr}, [root]
    while waiting:
        group = waiting.pop()
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            with found.noting(where):
                kind = h5py.Group if group.get(name, getclass=True, getlink=False) is h5py.Group else h5py.Dataset
                item = safety.child(group, name, kind)
                address = h5py.h5o.get_info(item.id).addr
                if address in seen:
                    found.error(where, "is a second hard link to an object of the file; every object has one place")
                    continue
                seen.add(address)
                if isinstance(item, h5py.Group):
                    waiting.append(item)


def _check_run(found: _Findings, run: Run, size: int) -> None:
    where, group = f"/runs/{run.name}", run._group
    found.unknown(where, set(group), RUN_CHILDREN)
    found.unknown(where, set(group.attrs), RUN_ATTRIBUTES)
    for read in ("hparams", "provenance", "overhead", "time_unit", "reference", "nodes", "sketch_settings"):
        with found.noting(where):
            getattr(run, read)
    said = safety.attribute(group, "status")
    found.need(said in STATUSES, where, f"status is {said!r}, must be one of {', '.join(STATUSES)}")
    if said == "recording" and run.status == "interrupted":
        found.warn(where, "the writer died; `trajtools repair` makes the file writable again, all states are intact")
    stored = [name for name in ("weights", "distances", "sketch") if name in group]
    found.need(len(stored) == 1, where, f"must hold one of weights, distances, sketch; holds {stored or 'none'}")
    _check_series(found, run, size)
    _check_streams(found, run)
    with found.noting(f"{where}/parameters"):
        _check_graph(found, run)
    with found.noting(f"{where}/members"):
        _check_members(found, run)


def _check_series(found: _Findings, run: Run, size: int) -> None:
    where, group = f"/runs/{run.name}", run._group
    for name, kinds in (("committed", "i"), ("heartbeat", "f")):
        dataset = group[name]
        found.need(
            dataset.shape == () and dataset.dtype.kind == kinds and dataset.dtype.itemsize == 8,
            f"{where}/{name}",
            (f"must be one 8-byte number of kind {kinds!r}, is {dataset.dtype} of shape {dataset.shape}"),
        )
    with found.noting(f"{where}/step"):
        step = run.step
        found.need(group["step"].dtype.str == "<i8", f"{where}/step", f"must be int64, is {group['step'].dtype}")
        found.need(bool((np.diff(step) > 0).all()), f"{where}/step", "must rise from state to state")
        found.need(len(step) == 0 or step[0] >= 0, f"{where}/step", "must not be negative")
    for name in run.metrics:
        with found.noting(f"{where}/metrics/{name}"):
            dataset = safety.child(group["metrics"], name, h5py.Dataset)
            shape = dataset.shape[1:]
            found.need(dataset.dtype.str == "<f8", f"{where}/metrics/{name}", f"must be float64, is {dataset.dtype}")
            found.need(
                len(shape) <= 2 and shape[:1] in ((), (run.n_members,)),
                f"{where}/metrics/{name}",
                f"must have the shape (T,), (T, {run.n_members}) or (T, {run.n_members}, k), has {dataset.shape}",
            )
    growing = [(group, n) for n in GROWING if n in group] + [(group["metrics"], n) for n in group["metrics"]]
    for parent, name in growing:
        with found.noting(f"{parent.name}/{name}"):
            dataset = safety.child(parent, name, h5py.Dataset)
            found.need(
                dataset.chunks is not None and dataset.maxshape[0] is None,
                f"{parent.name}/{name}",
                "must be chunked and unlimited along its first axis",
            )
            if dataset.chunks is not None and dataset.shape[0] >= run.n_states:
                gone = missing_chunks(dataset, run.n_states, size)
                found.need(
                    gone == 0, f"{parent.name}/{name}", f"{gone} chunks of the {run.n_states} committed states are gone"
                )


def _check_streams(found: _Findings, run: Run) -> None:
    where, group = f"/runs/{run.name}", run._group
    wanted = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "bfloat16": "<u2"}
    for name in ("weights", "optimizer", "sketch"):
        if name not in group:
            continue
        dataset = group[name]
        with found.noting(f"{where}/{name}"):
            logical = safety.attribute(dataset, "logical_dtype")
            found.need(
                wanted.get(logical) == dataset.dtype.str,
                f"{where}/{name}",
                f"logical_dtype {logical!r} must be one of {', '.join(wanted)} and fit the stored {dataset.dtype}",
            )
            found.need(
                dataset.chunks is not None and len(dataset.chunks) == 3 and dataset.chunks[1] == 1,
                f"{where}/{name}",
                f"chunks must be (rows, 1, columns), are {dataset.chunks}",
            )
    found.need(
        ("optimizer" in group) == ("optimizer_parameters" in group),
        where,
        "optimizer and optimizer_parameters must be there both or not at all",
    )
    if "optimizer_parameters" in group and "optimizer" in group:
        held = sum(p.size for p in run.optimizer_parameters)
        shape = group["optimizer"].shape
        found.need(shape[2] == held, f"{where}/optimizer", f"has shape {shape}, its table has {held} entries")


def _check_graph(found: _Findings, run: Run) -> None:
    where = f"/runs/{run.name}/parameters"
    sizes = {node.name: node.size for node in run.nodes}
    found.need(len(sizes) == len(run.nodes), f"/runs/{run.name}/nodes", "names of node sets must be unique")
    found.need(min(sizes.values(), default=1) > 0, f"/runs/{run.name}/nodes", "node sets must not be empty")
    for p in run.parameters:
        for end, axis in ((p.source, p.source_axis), (p.target, p.target_axis)):
            if end is None:
                found.need(axis == -1, where, f"{p.name!r} names axis {axis} for a node set that it does not name")
                continue
            found.need(end in sizes, where, f"{p.name!r} names the node set {end!r}, which is not in the table nodes")
            if axis != -1 and end in sizes:
                _check_axis(found, p, axis, NodeSet(end, sizes[end]), where)


def _check_axis(found: _Findings, p: Parameter, axis: int, nodes: NodeSet, where: str) -> None:
    found.need(0 <= axis < len(p.shape), where, f"{p.name!r} of shape {p.shape} has no axis {axis}")
    if 0 <= axis < len(p.shape):
        found.need(
            p.shape[axis] == nodes.size,
            where,
            f"axis {axis} of {p.name!r} has {p.shape[axis]} entries, its node set {nodes.name!r} has {nodes.size}",
        )


def _check_members(found: _Findings, run: Run) -> None:
    where = f"/runs/{run.name}/members"
    found.need(run.n_members > 0, where, "must not be empty")
    found.need(len({m.name for m in run.members}) == run.n_members, where, "names must be unique")
    for index, member in enumerate(run.members):
        found.need(
            -1 <= member.reference < run.n_members and member.reference != index,
            where,
            f"{member.name!r} refers to member {member.reference}, there are {run.n_members}",
        )
