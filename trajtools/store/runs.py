"""A run open for reading: its states, series and tables, up to the last committed state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trajtools.errors import ArchitectureError, FormatError, RunNotFoundError, SelectionError
from trajtools.store import safety, tables
from trajtools.store.dtypes import promote
from trajtools.store.h5 import in_words
from trajtools.store.handles import Handle, shared, steady
from trajtools.store.liveness import writer_of
from trajtools.store.states import StoredArray, StoredStates
from trajtools.store.status import effective_status
from trajtools.wiring import Member, NodeSet, Parameter

if TYPE_CHECKING:
    from trajtools.trajectory import Trajectory

_PARAMETER_FIELDS = {
    **dict.fromkeys(("name", "kind", "dtype", "source", "target"), "S"),
    **dict.fromkeys(("ndim", "shape", "offset", "size", "source_axis", "target_axis"), "iu"),
}
_MEMBER_FIELDS = {"name": "S", "reference": "i", "epsilon": "f", "norm": "S", "seed": "i", "noise": "S"}


class Run:
    """One training: M members that advance in lock-step, T states of each.

    A run shows the states that were committed when it was opened; `refresh` shows those written since. It pickles as
    path and name.

    Attributes
    ----------
    path : Path
        The file.
    name : str
        Of the run.
    n_states, n_members, n_parameters : int
        T, M, P.
    """

    def __init__(self, path: Path, name: str, *, handle: Handle | None = None) -> None:
        self.path, self.name = path, name
        self._handle = handle if handle is not None else shared(path)
        self._group_cache: tuple[int, h5py.Group] | None = None
        self._weights: StoredArray | None = None
        self._load()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Run, (self.path, self.name))

    def __repr__(self) -> str:
        return (
            f"<run {self.name!r}: {self.n_states} states, {self.n_members} members, {self.n_parameters} parameters, "
            f"{self.status}>"
        )

    def refresh(self) -> None:
        """See the states that were committed since the run was opened."""
        self._handle.close()
        self._load()

    @property
    def status(self) -> str:
        """``"recording"``, ``"complete"`` or ``"interrupted"`` (also where the writer has died without a word)."""
        return effective_status(*self._writer)

    @property
    def weights(self) -> StoredArray:
        """The states, shape (T, M, P), read when indexed; bfloat16 comes as float32, exactly."""
        if self._weights is None:
            self._require("weights")
            self._weights = StoredArray(self._handle, self.name, "weights", self.n_states)
        return self._weights

    @property
    @steady
    def optimizer(self) -> StoredArray | None:
        """Buffers of the optimiser, shape (T, M, P'), or None."""
        if not self._has("optimizer"):
            return None
        return StoredArray(self._handle, self.name, "optimizer", self.n_states)

    @property
    @steady
    def optimizer_parameters(self) -> tuple[Parameter, ...]:
        """Table of the optimiser's buffers; empty if none are stored."""
        return self._parameters("optimizer_parameters") if self._has("optimizer_parameters") else ()

    @property
    def step(self) -> NDArray[np.int64]:
        """Step of each state, shape (T,): the number of optimiser updates before it."""
        return np.asarray(self._series("step"), np.int64)

    @property
    def metrics(self) -> Metrics:
        """Name of a metric -> its float64 values, shape (T,), (T, M) or (T, M, k), read when asked for."""
        return Metrics(self)

    @property
    def distances(self) -> NDArray[np.float64] | None:
        """Distance of each member to its reference, shape (T, M), if that is what the run stores."""
        return np.asarray(self._series("distances"), np.float64) if self._has("distances") else None

    @property
    @steady
    def distance_metric(self) -> str | None:
        """Name of the metric of `distances`."""
        if not self._has("distances"):
            return None
        return safety.attribute(self._dataset("distances"), "metric")

    @property
    def sketch(self) -> NDArray[np.float64] | None:
        """Linear sketch of each state, shape (T, M, k), if that is what the run stores."""
        return np.asarray(self._series("sketch"), np.float64) if self._has("sketch") else None

    @property
    @steady
    def sketch_settings(self) -> dict[str, Any] | None:
        """Settings from which the sketch can be made again."""
        if not self._has("sketch"):
            return None
        where = f"{self.path}: settings of the sketch of run {self.name!r}"
        return tables.from_json(safety.attribute(self._dataset("sketch"), "settings"), where)

    @property
    @steady
    def stored(self) -> str:
        """What the run keeps of each state: ``"weights"``, ``"sketch"`` or ``"distances"``."""
        return next((name for name in ("weights", "sketch", "distances") if self._has(name)), "weights")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the states as they are read."""
        name = self.logical_dtype
        return np.dtype("float32" if name == "bfloat16" else name)

    @property
    @steady
    def logical_dtype(self) -> str:
        """Dtype of the states as they were recorded: float16, float32, float64 or bfloat16."""
        if self._has("weights"):
            return safety.attribute(self._dataset("weights"), "logical_dtype")
        return promote([p.dtype for p in self.parameters])

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Which edge of the graph each entry of the state is."""
        return self._parameter_table

    @property
    @steady
    def nodes(self) -> tuple[NodeSet, ...]:
        """The node sets of the graph."""
        with self._reading("the node sets"):
            return tables.nodes_from(safety.table(self._dataset("nodes"), self._size, {"name": "S", "size": "iu"}))

    @property
    def members(self) -> tuple[Member, ...]:
        """The networks of the run."""
        return self._member_table

    @property
    def hparams(self) -> dict[str, Any]:
        """Hyper-parameters."""
        return self._json("hparams")

    @property
    def provenance(self) -> dict[str, Any]:
        """Software and versions, seeds, command, start time."""
        return self._json("provenance")

    @property
    @steady
    def overhead(self) -> dict[str, Any] | None:
        """What the recording cost, as measured by the recorder; None before the run was closed."""
        return self._json("overhead") if "overhead" in self._group.attrs else None

    @property
    @steady
    def time_unit(self) -> str:
        """Unit of `step`."""
        return safety.attribute(self._group, "time_unit")

    @property
    @steady
    def reference(self) -> str | None:
        """Name of the run that this one was perturbed from, or None."""
        return safety.attribute(self._group, "reference", "") or None

    def trajectory(self, member: int = 0) -> Trajectory:
        """Give the states of one member.

        Parameters
        ----------
        member : int
            Index of the member.

        Returns
        -------
        Trajectory
            Lazy, shape (T, P).

        Raises
        ------
        SelectionError
            If there is no such member, or the run stores no weights.
        """
        from trajtools.trajectory import Trajectory

        self._require("weights")
        if not -self.n_members <= member < self.n_members:
            raise SelectionError(f"run {self.name!r} has {self.n_members} members; there is no member {member}")
        source = StoredStates(self.path, self.name, member % self.n_members, n_states=self.n_states)
        return Trajectory(
            source,
            step=self.step,
            parameters=self.parameters,
            nodes=self.nodes,
            time_unit=self.time_unit,
            name=f"{self.name}/{self.members[member].name}",
        )

    def states(
        self,
        rows: slice | NDArray[Any] | None = None,
        members: slice | list[int] | NDArray[Any] | None = None,
        columns: slice | NDArray[Any] | None = None,
        *,
        raw: bool = False,
    ) -> NDArray[Any]:
        """Read many states at once.

        Parameters
        ----------
        rows, members, columns : slice, array of int, or None
            Which states, members and entries; None: all.
        raw : bool
            Give bfloat16 as its bits (uint16) instead of float32.

        Returns
        -------
        ndarray, shape (rows, members, columns)

        Raises
        ------
        SelectionError
            If the run stores no weights.
        IndexError
            If an index is out of range.
        """
        return self.weights.read(rows, members, columns, raw=raw)

    def latest(self, count: int = 64) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
        """Read steps and metrics of the newest states, without those of all others.

        Parameters
        ----------
        count : int
            How many states, at most.

        Returns
        -------
        step : ndarray of int64, shape (t,)
            Their steps.
        metrics : dict of str to ndarray of float64, shapes (t,), (t, M) or (t, M, k)
            Their metrics; NaN where none was given, often for the newest state.
        """
        first = max(0, self.n_states - count)
        found = {name: self._series(name, metric=True, first=first) for name in self.metrics}
        return np.asarray(self._series("step", first=first), np.int64), found

    @steady
    def _load(self) -> None:
        with self._reading("the run"):
            runs = safety.child(self._handle.file, "runs", h5py.Group)
            if self.name not in runs:
                raise RunNotFoundError(
                    f"{self.path} holds no run {self.name!r}; it has {', '.join(map(repr, runs)) or 'no run at all'}"
                )
            self._size = os.path.getsize(self.path)
            self._weights = None
            # First the number, then the data: what is written in between only makes the data longer.
            self.n_states = int(self._dataset("committed")[()])
            self._writer = writer_of(self._group)
            self._parameter_table = self._parameters("parameters")
            members = safety.table(self._dataset("members"), self._size, _MEMBER_FIELDS)
            self._member_table = tables.members_from(members)
            self.n_members, self.n_parameters = len(members), sum(p.size for p in self._parameter_table)
            self._check()

    def _check(self) -> None:
        if self.n_states < 0:
            raise FormatError(f"run {self.name!r} declares {self.n_states} committed states")
        shapes = {
            "step": (),
            "weights": (self.n_members, self.n_parameters),
            "distances": (self.n_members,),
            "sketch": (self.n_members, None),
            "optimizer": (self.n_members, None),
        }
        for name, shape in shapes.items():
            if name != "step" and not self._has(name):
                continue
            dataset = self._dataset(name)
            if dataset.ndim != len(shape) + 1 or any(
                b not in (None, a) for a, b in zip(dataset.shape[1:], shape, strict=True)
            ):
                raise FormatError(f"{name} of run {self.name!r} has the shape {dataset.shape}, needed (T, {shape})")
            if dataset.shape[0] < self.n_states:
                raise FormatError(
                    f"run {self.name!r} declares {self.n_states} committed states, but {name} holds {dataset.shape[0]}"
                )
            if dataset.dtype.str not in ("<f2", "<f4", "<f8", "<u2", "<i8"):
                raise FormatError(f"{name} of run {self.name!r} is not of a known dtype: {dataset.dtype}")
            safety.check_backed(dataset, self._size, self.n_states)

    @property
    def _group(self) -> h5py.Group:
        file = self._handle.file
        if self._group_cache is None or self._group_cache[0] != self._handle.generation:
            group = safety.child(safety.child(file, "runs", h5py.Group), self.name, h5py.Group)
            self._group_cache = (self._handle.generation, group)
        return self._group_cache[1]

    @property
    def _metrics_group(self) -> h5py.Group:
        return safety.child(self._group, "metrics", h5py.Group)

    @steady
    def _metric_names(self) -> list[str]:
        with self._reading("the names of the metrics"):
            return list(self._metrics_group)

    @steady
    def _has(self, name: str) -> bool:
        return self._group.get(name, getlink=True) is not None

    def _dataset(self, name: str) -> h5py.Dataset:
        return safety.child(self._group, name, h5py.Dataset)

    @steady
    def _series(self, name: str, *, metric: bool = False, first: int = 0) -> NDArray[Any]:
        with self._reading(name):
            dataset = safety.child(self._metrics_group if metric else self._group, name, h5py.Dataset)
            if dataset.ndim < 1 or dataset.shape[0] < self.n_states or dataset.dtype.kind not in "if":
                raise FormatError(
                    f"{dataset.name} must hold a number for each of the {self.n_states} states; its shape is "
                    f"{dataset.shape}, its dtype {dataset.dtype}"
                )
            safety.check_backed(dataset, self._size, self.n_states)
            return np.asarray(dataset[first : self.n_states])

    @steady
    def _parameters(self, name: str) -> tuple[Parameter, ...]:
        with self._reading("the table of parameters"):
            found = tables.parameters_from(safety.table(self._dataset(name), self._size, _PARAMETER_FIELDS))
            try:
                tables.check_parameters(found)
            except ArchitectureError as error:
                raise FormatError(f"{self.path}: the table {name} of run {self.name!r} is wrong: {error}") from error
            return found

    @steady
    def _json(self, name: str) -> dict[str, Any]:
        with self._reading(name):
            text = safety.attribute(self._group, name)
            return tables.from_json(text, f"{self.path}: {name} of run {self.name!r}")

    def _require(self, name: str) -> None:
        if not self._has(name):
            raise SelectionError(
                f"run {self.name!r} stores {self.stored} of each state, not the {name}; record it with store={name!r}"
            )

    def _reading(self, what: str) -> AbstractContextManager[None]:
        return in_words(self.path, f"read {what} (run {self.name!r})")


class Metrics(Mapping[str, NDArray[np.float64]]):
    """The metrics of a run by name, each read when it is asked for."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name not in list(self):
            raise KeyError(f"run {self._run.name!r} has no metric {name!r}; it has {', '.join(self) or 'none'}")
        return np.asarray(self._run._series(name, metric=True), np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._run._metric_names())

    def __len__(self) -> int:
        return len(self._run._metric_names())

    def __repr__(self) -> str:
        return f"<metrics {', '.join(self) or 'none'}>"
