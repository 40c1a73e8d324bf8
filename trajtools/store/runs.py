"""From paths to runs: one file, the shards of one run as one, and many runs as a mapping."""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trajtools.errors import DataError, FormatError, SelectionError, TrajtoolsError
from trajtools.results import Shown, import_optional
from trajtools.store.chunks import Piece, Selection
from trajtools.store.isolation import open_isolated
from trajtools.store.reading import Run
from trajtools.store.shards import Place
from trajtools.wording import MOST_ROWS, columns, counted, short

if TYPE_CHECKING:
    from pandas import DataFrame

_RANK = re.compile(r"(.+)\.rank(\d+)(\.\w+)$")


def open(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, isolated: bool = False) -> Run:
    """Open a run.

    Parameters
    ----------
    path : path, pattern, or sequence of paths
        Its file. Of a network that was sharded over processes, the files of all ranks: a pattern such as
        ``"run.rank*.h5"``, a list, or one of them if the others stand beside it.
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
    DataError
        If the file of a rank is missing, or several files are not the shards of one run.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from recorders import Recorder
    >>> with Recorder("opened.h5", {"w": np.ones(3)}, hparams={"lr": 0.1}, quiet=True) as recorder:
    ...     for step in range(5):
    ...         recorder.record({"w": np.full(3, 0.9**step)}, loss=0.9**step)
    >>> with tt.open("opened.h5") as run:
    ...     run.n_states, run.hparams["lr"]
    (5, 0.1)
    """
    files = [
        file for one in listed_paths(path, "open()", "a file, a pattern or a list of files") for file in _paths(one)
    ]
    runs = [open_isolated(file) if isolated else Run(file) for file in dict.fromkeys(files)]
    first = runs[0]
    if len(runs) == 1 and first.shard is None:
        return first
    try:
        if len({run.uuid for run in runs}) > 1 or any(run.shard is None for run in runs):
            raise DataError(
                f"{_listed([run.path for run in runs])} are {len(runs)} files, and not the shards of one run: open one "
                "of them, or many runs with open_runs()"
            )
        if len(runs) == 1:
            runs += _beside(first, isolated)
        return ShardedRun([run.path for run in runs])
    finally:
        for run in runs:
            run.close()


def _paths(path: str | os.PathLike[str]) -> list[Path]:
    place = Path(os.path.abspath(path))
    return run_files(path) if has_magic(str(path)) and not place.exists() else [place]


def _beside(run: Run, isolated: bool) -> list[Run]:
    """Open the other shards of a run, from the folder of one of them."""
    match = _RANK.match(run.path.name)
    found = []
    for file in run.path.parent.iterdir():
        other = _RANK.match(file.name)
        if match and other and other.group(1, 3) == match.group(1, 3) and file != run.path:
            one = open_isolated(file) if isolated else Run(file)
            if one.uuid == run.uuid:
                found.append(one)
            else:
                one.close()
    return found


# --------------------------------------------------------------------------------------------------- one run of shards


class ShardedRun(Run):
    """The run of a network that was sharded over processes, read from the files of all ranks as one.

    States, sketches and distances are those of the whole network. A metric is the mean over the ranks that recorded it.
    A state is there if every rank has it.

    Parameters
    ----------
    paths : sequence of path-like
        The files of all ranks, in any order.

    Attributes
    ----------
    shards : tuple of Run
        The runs of the files, in the order of their ranks.

    Raises
    ------
    DataError
        If a rank is missing or there twice, or the files are not of one run.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self._lock = threading.RLock()
        self.shards = tuple(Run(path) for path in paths)
        try:
            self._join()
        except BaseException:
            self.close()
            raise

    def _join(self) -> None:
        """Take from the shards what the whole is."""
        self._check_ranks()
        shards = [run.shard for run in self.shards]
        self.shards = tuple(run for _, run in sorted(zip([s.rank for s in shards if s], self.shards, strict=True)))
        first = self.shards[0]
        for name in ("path", "uuid", "name", "time_unit", "reference", "hparams", "provenance", "members", "stored",
                     "n_members", "texts", "notes", "cells", "is_newer", "planting_blocks"):  # fmt: skip
            setattr(self, name, getattr(first, name))
        whole = first.shard
        assert whole is not None
        self.shard = None
        self.parameters, self.nodes = whole.weights.parameters, whole.nodes
        self.optimizer_parameters = whole.optimizer.parameters if whole.optimizer else ()
        self.n_parameters = sum(p.size for p in self.parameters)
        self.is_cut = any(run.is_cut for run in self.shards)
        self._places: list[dict[str, Place]] = []
        for run in self.shards:
            assert run.shard is not None
            self._check_alike(run)
            self._places.append({"weights": run.shard.weights})
            if run.shard.optimizer:
                self._places[-1]["optimizer"] = run.shard.optimizer
        self._check_cover()
        widths = {"weights": self.n_parameters, "optimizer": sum(p.size for p in self.optimizer_parameters)}
        streams = {
            name: replace(stream, shape=(self.n_members, widths[name])) if name in widths else stream
            for name, stream in first.axis.streams.items()
        }
        self.axis = replace(first.axis, streams=streams)
        steps = [run.step for run in self.shards]
        common = reduce(lambda a, b: a[np.isin(a, b, assume_unique=True)], steps)
        # None: the states that all have are the first ones of this file.
        self._rows = [
            None if (step[: len(common)] == common).all() else np.searchsorted(step, common) for step in steps
        ]
        self.n_states = len(common)
        self._planted = None

    def _planting_columns(self, *names: str) -> list[NDArray[Any]]:
        return self.shards[0]._planting_columns(*names)

    def _check_ranks(self) -> None:
        runs = self.shards
        shards = [run.shard for run in runs]
        if len({run.uuid for run in runs}) > 1 or None in shards:
            raise DataError(f"{_listed([run.path for run in runs])} are not the shards of one run")
        ranks = [shard.rank for shard in shards if shard]
        twice = [rank for rank, count in Counter(ranks).items() if count > 1]
        if twice:
            same = [run.path for run, rank in zip(runs, ranks, strict=True) if rank == twice[0]]
            raise DataError(f"{_listed(same)} are both rank {twice[0]} of one run: drop one")
        wanted = next(shard.ranks for shard in shards if shard)
        missing = [rank for rank in wanted if rank not in ranks]
        if missing:
            path, match = runs[0].path, _RANK.match(runs[0].path.name)
            names = [f"{match[1]}.rank{rank}{match[3]}" if match else f"rank {rank}" for rank in missing]
            raise DataError(
                f"{path} is rank {ranks[0]} of a run whose network was sharded over the ranks "
                f"{', '.join(map(str, wanted))}, and rank {', '.join(map(str, missing))} is missing: put "
                f"{_listed(names)} beside it, or open all files together"
            )

    def _check_alike(self, run: Run) -> None:
        """Refuse files that one training does not write."""
        assert run.shard is not None
        names = ("stored", "members", "distance_metric", "sketch_settings", "logical_dtype")
        # As text, in which NaN equals NaN.
        differ = [name for name in names if str(getattr(run, name)) != str(getattr(self.shards[0], name))]
        if run.shard.weights.parameters != self.parameters:
            differ.append("parameters")
        optimizer = run.shard.optimizer.parameters if run.shard.optimizer else ()
        if optimizer != self.optimizer_parameters:
            differ.append("optimizer_parameters")
        if differ:
            raise DataError(f"{run.path} and {self.path} are shards of one run, but differ in {', '.join(differ)}")

    def _check_cover(self) -> None:
        """Refuse shards that together are not the whole, each entry once."""
        for stream in self._places[0]:
            for at, parameter in enumerate(self._places[0][stream].parameters):
                sizes = [places[stream].sizes[at] for places in self._places]
                if sum(sizes) != parameter.size:
                    raise DataError(
                        f"the shards of {self.path.name} hold {sum(sizes)} of the {parameter.size} entries of "
                        f"{parameter.name!r}"
                    )

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files of the run, in the order of their ranks."""
        return tuple(run.path for run in self.shards)

    @property
    def origin(self) -> tuple[type[Run], Any]:
        """What opens the run again: its class, and what that takes."""
        return type(self), self.paths

    def close(self) -> None:
        """Close the files; trajectories taken from the run open them again when they are read."""
        for run in self.shards:
            run.close()

    def refresh(self) -> None:
        """See the states that were committed since the run was opened."""
        with self._lock:
            for run in self.shards:
                run.refresh()
            self._join()

    def _show(self, n_states: int) -> None:
        """Show the first states only, as a run did that was opened earlier."""
        self.n_states = n_states

    @property
    def status(self) -> str:
        """``"complete"`` if all ranks are, ``"recording"`` while one of them is, else ``"interrupted"``."""
        found = {run.status for run in self.shards}
        return next((status for status in ("recording", "interrupted") if status in found), "complete")

    @property
    def overhead(self) -> dict[str, Any] | None:
        """What the recording cost the rank that it cost most; None before all runs were closed."""
        costs = [run.overhead for run in self.shards]
        known = [cost for cost in costs if cost is not None]
        return None if len(known) < len(costs) else max(known, key=lambda cost: float(cost.get("seconds_in_record", 0)))

    @property
    def unstored(self) -> tuple[str, ...]:
        """Metrics that found no free column in a file."""
        return tuple(dict.fromkeys(name for run in self.shards for name in run.unstored))

    @property
    def ended(self) -> str:
        """Why the recording of the first rank was interrupted whose recorder could say so."""
        return next((run.ended for run in self.shards if run.ended), "")

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the recorders of all ranks said about what is not in the files."""
        return tuple(dict.fromkeys(remark for run in self.shards for remark in run.remarks))

    @property
    def plantings(self) -> dict[str, NDArray[Any]]:
        """When which member was placed anew beside its reference; `norm` is that of the whole network."""
        parts = [run.plantings for run in self.shards]
        n = min(len(part["step"]) for part in parts)
        found = {name: values[:n] for name, values in parts[0].items()}
        found["norm"] = np.sqrt(np.sum([part["norm"][:n] ** 2 for part in parts], axis=0))
        return found

    @property
    def metric_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name of a metric -> its shape, without reading it."""
        shapes: dict[str, tuple[int, ...]] = {}
        for run in reversed(self.shards):
            shapes |= {name: (self.n_states, *shape[1:]) for name, shape in run.metric_shapes.items()}
        return shapes

    @property
    def _metric_columns(self) -> dict[str, Any]:
        return {name: columns for run in reversed(self.shards) for name, columns in run._metric_columns.items()}

    def metric(self, name: str, first: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        """Read a metric: its mean over the ranks that recorded it in a state, see `Run.metric`."""
        stop = self.n_states if stop is None else stop
        parts = []
        for run, rows in zip(self.shards, self._rows, strict=True):
            if name in run.metric_shapes:
                values = run.metric(name, first, stop) if rows is None else run.metric(name)[rows[first:stop]]
                parts.append(values)
        stack = np.stack(parts)
        known = ~np.isnan(stack)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(known, stack, 0.0).sum(axis=0) / known.sum(axis=0)
        return np.where((stack == stack[0]).all(axis=0), stack[0], mean)  # equal numbers keep every bit

    def series(self, name: str, start: int, stop: int, column: int | None = None) -> NDArray[Any]:
        """Read rows of a stream, see `Run.series`; metrics come from `metric`."""
        if name not in ("step", "distances"):
            raise SelectionError(f"{name} of a sharded run have columns in each file: read metric(name)")
        parts = []
        for run, rows in zip(self.shards, self._rows, strict=True):
            whole = run.series(name, start, stop) if rows is None else run.series(name, 0, run.n_states)
            parts.append(whole if rows is None else whole[rows[start:stop]])
            if name == "step":
                return parts[0]
        return self._combined(parts)

    def _combined(self, parts: list[NDArray[Any]]) -> NDArray[np.float64]:
        """Distances of the whole network from those of its parts."""
        stack, metric = np.asarray(parts, np.float64), self.distance_metric
        if metric == "l1":
            return np.asarray(stack.sum(axis=0))
        if metric == "linf":
            return np.asarray(stack.max(axis=0))
        if metric == "l2":
            return np.sqrt((stack**2).sum(axis=0))
        if metric == "rms":
            sizes = np.array([run.n_parameters for run in self.shards])[:, None, None]
            return np.sqrt((stack**2 * sizes).sum(axis=0) / self.n_parameters)
        raise FormatError(f"distances in the metric {metric!r} do not add over shards")

    def rectangle(self, name: str, rows: Any, members: Any, columns: Any, *, by_member: bool = False) -> NDArray[Any]:
        """Read states of the whole network as stored, see `Run.rectangle`."""
        result = self._assembled(name, rows, members, columns)
        return np.ascontiguousarray(result.transpose(1, 0, 2)) if by_member else result

    def pieces(self, name: str, rows: slice, members: NDArray[np.int64], columns: slice) -> Iterator[Piece]:
        """Read states of the whole network in one piece, see `Run.pieces`."""
        whole = slice(0, rows.stop - rows.start), slice(0, columns.stop - columns.start)
        yield *whole, self.rectangle(name, rows, members, columns, by_member=True)

    def _assembled(self, name: str, rows: Any, members: Any, columns: Any) -> NDArray[Any]:
        parts = list(zip(self.shards, [_taken(mine, rows) for mine in self._rows], strict=True))
        if name == "sketch":
            return np.asarray(sum(run.rectangle(name, mine, members, columns) for run, mine in parts))
        shape = [_length(rows), _length(members), _length(columns)]
        result = np.zeros(shape, self.axis.streams[name].dtype)
        for (run, mine), places in zip(parts, self._places, strict=True):
            pieces = places[name].cut(columns)
            together = [(local, target) for local, target in pieces if isinstance(local, slice)]
            if not pieces:
                continue
            if len(together) == len(pieces):  # one read of what lies together
                begin = min(local.start for local, _ in together)
                block = run.rectangle(name, mine, members, slice(begin, max(local.stop for local, _ in together)))
                for local, target in together:
                    result[:, :, target] = block[:, :, local.start - begin : local.stop - begin]
            else:
                block = run.rectangle(name, mine, members, np.concatenate([np.asarray(local) for local, _ in pieces]))
                result[:, :, np.concatenate([np.asarray(target) for _, target in pieces])] = block
        return result

    def locate_all(self) -> None:
        """Learn where all chunks are, as readers of many streams need it."""
        for run in self.shards:
            run.locate_all()


def _taken(mine: NDArray[np.int64] | None, rows: Selection) -> Any:
    """The rows of a file that hold some states of the run."""
    return rows if mine is None else mine[rows]


def _length(selection: Any) -> int:
    return selection.stop - selection.start if isinstance(selection, slice) else len(selection)


def _listed(names: Sequence[object]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(str, names[:5])) + more


def whole_runs(files: Sequence[Path]) -> list[Path]:
    """Leave one file of each sharded run; `open` finds the others beside it.

    Parameters
    ----------
    files : sequence of Path
        Files of runs. Those named ``<name>.rank<number>`` are opened to see whether they are shards.

    Returns
    -------
    list of Path
        In the same order.
    """
    kept, seen = [], set()
    for file in files:
        match = _RANK.match(file.name)
        if match:
            try:
                with Run(file) as run:
                    key = (file.parent, run.uuid) if run.shard else None
            except (FormatError, OSError):  # opening it says why
                key = None
            if key in seen:
                continue
            seen |= {key} - {None}
        kept.append(file)
    return kept


# ---------------------------------------------------------------------------------------------------------- many runs


class Runs(Shown, Mapping[str, Run]):
    """Many runs by name, each opened when it is used.

    The names are those of the files without their ending; where two are equal, with the folders that tell them apart.
    The shards of a run are one.

    Attributes
    ----------
    paths : dict of str to Path
        File of each run; of a sharded one, that of its first rank.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        files = whole_runs(paths)
        self.paths = dict(zip(_distinct_names(files), files, strict=True))
        self._open: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()

    def __getitem__(self, name: str) -> Run:
        if name not in self.paths:
            raise KeyError(
                f"there is no run {name!r}; there are {', '.join(map(repr, list(self.paths)[:20])) or 'none'}"
            )
        run = self._open.get(name)
        if run is None:
            run = self._open[name] = open(self.paths[name])
        return run

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def _sentence(self) -> str:
        return f"{counted(len(self), 'run')}."

    def _lines(self) -> Sequence[str]:
        head, *rows = self._cells(MOST_ROWS)
        return columns(head, rows, len(self))

    def _facts(self) -> Sequence[tuple[str, ...]]:
        return [tuple(row) for row in self._cells(len(self))]

    def _cells(self, most: int) -> list[list[str]]:
        """A head, and a row for each of the first runs."""
        read = [_read_about(self, name) for name in list(self.paths)[:most]]
        keys = dict.fromkeys(key for about in read for key in about.hparams)
        varied = [key for key in keys if len({repr(about.hparams.get(key)) for about in read}) > 1]
        head = ["run", *varied, "states", "networks", "parameters", "status"]
        rows = []
        for about in read:
            own = [short(about.hparams.get(key, "")) for key in varied]
            rows.append([about.name, *own, *(about.cells or ["", "", "", about.problem])])
        return [head, *rows]

    def to_dataframe(self) -> DataFrame:
        """Convert the runs to a table of pandas, one row a run.

        Returns
        -------
        pandas.DataFrame
            Name, path, hyper-parameters, sizes and status. A file that cannot be read has its error as status.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        frame = import_optional("pandas").DataFrame
        rows = []
        for name, path in self.paths.items():
            about = _read_about(self, name)
            row: dict[str, Any] = {"run": name, "path": str(path)} | about.hparams
            sizes = dict(zip(("states", "networks", "parameters"), map(int, about.cells[:3]), strict=False))
            rows.append(row | sizes | {"status": about.cells[3] if about.cells else about.problem})
        return frame(rows)


@dataclass(frozen=True)
class _About:
    """A run in a table of runs."""

    name: str
    hparams: dict[str, Any] = field(default_factory=dict)
    cells: tuple[str, ...] = ()
    problem: str = ""


def _read_about(runs: Runs, name: str) -> _About:
    """Read what a table says about a run; a file that cannot be read says why."""
    try:
        run = runs[name]
    except (TrajtoolsError, OSError) as problem:
        return _About(name, problem=f"cannot be read: {problem}"[:60])
    sizes = (run.n_states, run.n_members, run.n_parameters)
    return _About(name, dict(run.hparams), (*map(str, sizes), run.status))


def open_runs(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Runs:
    """Open many runs.

    Parameters
    ----------
    paths : path, pattern, or sequence of them
        Files, folders (their ``.h5`` and ``.hdf5`` files, by name) and patterns such as ``"sweep/*.h5"``.

    Returns
    -------
    Runs
        A mapping from names to `Run`; a file is opened when its run is first used.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or a folder or pattern holds no run.

    Examples
    --------
    >>> import tempfile
    >>> from trajtools.store import RunSpec, RunWriter
    >>> from trajtools.wiring import Member, Parameter
    >>> folder = tempfile.TemporaryDirectory()
    >>> table = [Parameter("w", "other", (3,), "float64", 0, 3)]
    >>> for lr in (0.1, 10.0):
    ...     spec = RunSpec(table, [Member("a")], "float64", hparams={"lr": lr})
    ...     RunWriter.create(f"{folder.name}/lr={lr}.h5", spec).close()
    >>> runs = open_runs(folder.name)
    >>> list(runs)
    ['lr=0.1', 'lr=10.0']
    >>> runs["lr=0.1"].hparams
    {'lr': 0.1}
    >>> folder.cleanup()
    """
    listed = listed_paths(paths, "open_runs()", "files, folders or patterns")
    files = [file for path in listed for file in run_files(path)]
    return Runs(list(dict.fromkeys(files)))


def listed_paths(paths: Any, who: str, needed: str) -> list[str | os.PathLike[str]]:
    """One path or several as a list; `who` and `needed` are for the sentence where they are none."""
    listed = list(paths) if isinstance(paths, Iterable) and not isinstance(paths, str | os.PathLike) else [paths]
    if not listed:
        raise DataError(f"{who} got no path; needed {needed}")
    for one in listed:
        if not isinstance(one, str | os.PathLike):
            raise DataError(f"{who} got a {type(one).__name__}; needed {needed}")
    return listed


def run_files(path: str | os.PathLike[str]) -> list[Path]:
    """Files of runs that a path, a folder or a pattern stands for."""
    place = Path(os.path.abspath(path))
    if place.is_dir():
        files = sorted((f for f in place.iterdir() if _is_run_name(f)), key=_natural)
        if not files:
            raise FileNotFoundError(f"the folder {place} holds no .h5 or .hdf5 file")
        return files
    if place.exists() or not has_magic(str(path)):
        if not place.exists():
            raise FileNotFoundError(f"{place} does not exist")
        return [place]
    files = sorted(
        (Path(os.path.abspath(f)) for f in glob(str(path), recursive=True) if os.path.isfile(f)), key=_natural
    )
    if not files:
        raise FileNotFoundError(f"no file matches {os.fspath(path)}")
    return files


def _is_run_name(path: Path) -> bool:
    return path.suffix.lower() in (".h5", ".hdf5") and not path.name.startswith(".") and path.is_file()


def _natural(path: Path) -> list[Any]:
    """Sort lr=0.5 before lr=10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", str(path.with_suffix("")))
    return [(float(p), "") if i % 2 else (-1.0, p) for i, p in enumerate(parts)]


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    names = [_stem(path) for path in paths]
    depth = 1
    while len(set(names)) < len(names) and depth < 64:
        depth += 1
        names = ["/".join([*path.parts[-depth:-1], _stem(path)]) for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _stem(path: Path) -> str:
    match = _RANK.match(path.name)
    return match[1] if match else path.stem
