"""HDF5 files of other programs: one dataset whose axes are declared, as twins, as distances, or as runs of our own."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite, nan, prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trajtools.errors import (
    DataError,
    TooLargeError,
    TrajtoolsError,
    UnknownNameError,
)
from trajtools.results import to_plain
from trajtools.store.layout import RunSpec
from trajtools.store.strangers import Objects, check_held, open_hdf5, read_text
from trajtools.store.writing import RunWriter
from trajtools.trajectory import Trajectory
from trajtools.types import Floats, Ints
from trajtools.wiring import Member, NodeSet, Parameter, describe

HOLDS = ("weights", "distances")
GROUPING = ("epsilon", "init", "member", "step")  # all other axes are of the state
EPSILONS = ("epsilons", "epsilon", "eps")  # attributes that may hold the sizes of the perturbation
MAX_DISTANCE_BYTES = 4 * 2**30
MAX_ATTRIBUTE_BYTES = 2**16
MAX_ATTRIBUTES = 200
MAX_LISTED, MAX_VISITED = 12, 2000
BLOCK_STATES = 64


@dataclass(frozen=True)
class Layout:
    """Where a program keeps what: dataset, axes, what the numbers are, and whether a state is a matrix of blocks.

    Examples
    --------
    >>> from trajtools.store.foreign import LAYOUTS
    >>> sorted(LAYOUTS)
    ['danovski2024', 'jimenez2025']
    """

    dataset: str
    axes: str
    holds: str
    network: bool = False


LAYOUTS = {
    "danovski2024": Layout("weights", "epsilon init member step row column", "weights", network=True),
    "jimenez2025": Layout("weights", "epsilon init member step", "distances"),
}


@dataclass(frozen=True, eq=False)
class Ensemble:
    """All trainings of a file that were perturbed by one epsilon.

    Attributes
    ----------
    name : str
        ``"epsilon=1e-08"``; empty if the file has no axis of epsilons, or one epsilon.
    epsilon : float
        Size of the perturbation, from the attributes of the file; NaN where unknown.
    holds : str
        ``"weights"`` or ``"distances"``.
    step : ndarray of int64, shape (T,)
        0, 1, 2, ...
    pairs : list of (Trajectory, list of Trajectory)
        Of weights: for each initial condition the reference and its perturbed copies, as `trajtools.twins` takes them.
        Read when they are used.
    distances : ndarray of float64, shape (T, C), or None
        Of distances: one curve for each copy, as `trajtools.Divergence.from_distances` takes them.
    group : ndarray of int64, shape (C,)
        Initial condition of each copy.
    metric : str
        Name of the distance of `distances`, as declared.
    parameters, nodes : tuple
        Which entry of a state is which; no edges where that is unknown.
    hparams : dict
        Attributes of the file and of the dataset: numbers, and texts of fixed length.
    source : dict
        File, dataset and axes, and the names of attributes that were not read.

    Examples
    --------
    >>> import h5py, numpy as np
    >>> from trajtools.store import foreign
    >>> with h5py.File("ensemble.h5", "w") as file:
    ...     file["W"] = np.random.default_rng(0).random((1, 3, 20, 5))
    >>> (ensemble,) = foreign.read("ensemble.h5", dataset="W", axes="init member step entry", holds="weights")
    >>> len(ensemble.pairs)
    1
    """

    name: str
    epsilon: float
    holds: str
    step: Ints
    pairs: list[tuple[Trajectory, list[Trajectory]]]
    distances: Floats | None
    group: Ints
    metric: str
    parameters: tuple[Parameter, ...]
    nodes: tuple[NodeSet, ...]
    hparams: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)


def read(
    path: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    axes: str | Sequence[str] | None = None,
    holds: str | None = None,
    layout: str | None = None,
    metric: str = "l1",
) -> list[Ensemble]:
    """Read an HDF5 file that another program wrote.

    Parameters
    ----------
    path : path
        The file.
    dataset : str or None
        Path of the dataset in it. None: that of the layout, or the only one of the file.
    axes : str, sequence of str or None
        Name of each axis: ``step``; ``epsilon``, ``init`` and ``member``, which may be missing; any other name is an
        axis of the state, such as ``"epsilon init member step row column"``. Of weights, member 0 is the reference and
        the others are its perturbed copies; of distances, every member is a copy.
    holds : str or None
        ``"weights"``, or ``"distances"`` of the copies to their reference.
    layout : str or None
        Instead of axes and holds, the layout of a published program: ``"danovski2024"`` (networks with one hidden layer
        as matrices of blocks) or ``"jimenez2025"`` (distances).
    metric : str
        Of distances: their metric, as a label.

    Returns
    -------
    list of Ensemble
        One for each epsilon.

    Raises
    ------
    DataError
        If the file is none, holds no such dataset, or the axes do not fit it.
    UnknownNameError
        If there is no such layout, or `holds` is neither.
    UnsafeFileError
        If the dataset lies in another file, uses an unknown filter, or declares more than the file holds.
    FormatError
        If HDF5 cannot read it, or parts of it were never written.

    Notes
    -----
    The file is data: links, virtual datasets and external storage are not followed, and nothing is executed.

    Examples
    --------
    >>> import tempfile
    >>> import h5py
    >>> import numpy as np
    >>> import trajtools as tt
    >>> from trajtools.store import foreign
    >>> w = np.random.default_rng(0).normal(size=(5, 1, 3, 100, 7))          # five initial conditions, two copies each
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with h5py.File(f"{folder}/other.h5", "w") as file:
    ...         file["w"] = w
    ...     one = foreign.read(f"{folder}/other.h5", axes="init epsilon member step entry", holds="weights")[0]
    ...     growth = tt.twins(one.pairs)
    >>> growth.distances.shape, growth.n_references
    ((10, 100), 5)
    """
    place = Path(path)
    chosen = _declared(axes, holds, layout)
    with open_hdf5(place) as file:
        data = _find(file, place, dataset or (chosen.dataset or _only_dataset(file, place)))
        name = str(data.name).strip("/")
        sizes = _sizes(data, chosen, name, place)
        check_held(data, place)
        hparams, unread = _attributes(file, data)
        kind = data.dtype
    source = {"file": str(place.absolute()), "dataset": name, "axes": chosen.axes, "holds": chosen.holds}
    source |= {"layout": layout} if layout else {}
    source |= {"unread_attributes": unread} if unread else {}
    dtype = np.dtype(np.float64) if kind.kind in "iu" or chosen.holds == "distances" else kind.newbyteorder("=")
    states = ForeignStates(place, name, tuple(sizes), (), (sizes["step"], _width(sizes)), dtype)
    return _ensembles(states, chosen, sizes, hparams=hparams, source=source, metric=metric)


def convert(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    axes: str | Sequence[str] | None = None,
    holds: str | None = None,
    layout: str | None = None,
    metric: str = "l1",
    hparams: Mapping[str, Any] | None = None,
    compress: str | None = None,
) -> list[Path]:
    """Convert an HDF5 file of another program into runs, one file for each initial condition and epsilon.

    Parameters
    ----------
    path : path
        The file.
    output : path
        A folder, or for a single run a file that ends in .h5; it must not exist, and is written whole or not at all.
    dataset, axes, holds, layout, metric
        As `read` takes them.
    hparams : mapping or None
        Hyper-parameters besides the attributes of the file.
    compress : str or None
        Lossless filter of the weights: ``"zstd"`` or ``"gzip"``.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    FileExistsError
        If the output exists.
    DataError
        If several runs would go to one file; otherwise as `read`.

    Examples
    --------
    >>> import h5py, numpy as np
    >>> from trajtools.store import foreign
    >>> with h5py.File("converted.h5", "w") as file:
    ...     file["W"] = np.random.default_rng(0).random((1, 3, 20, 5))
    >>> paths = foreign.convert("converted.h5", "runs", dataset="W", axes="init member step entry", holds="weights")
    >>> len(paths)
    1
    """
    ensembles = read(path, dataset=dataset, axes=axes, holds=holds, layout=layout, metric=metric)
    target = Path(os.path.abspath(output))
    if os.path.lexists(target):
        raise FileExistsError(f"{output} exists and is never overwritten: choose another output")
    if not target.parent.is_dir():
        raise DataError(f"{output} cannot be written: there is no folder {target.parent}")
    runs = _named(ensembles)
    single = target.suffix.lower() in (".h5", ".hdf5")
    if single and len(runs) > 1:
        raise DataError(
            f"{path} holds {len(runs)} runs (initial conditions and epsilons), and a file holds one: give a folder as "
            f"output, such as {target.with_suffix('').name}"
        )
    draft = target.with_name(f"{target.name}.part-{os.getpid()}")
    try:
        if not single:
            draft.mkdir()
        for name, (ensemble, init) in runs.items():
            more = {**ensemble.hparams, **(hparams or {})}
            _write(draft if single else draft / f"{name}.h5", name, ensemble, init, hparams=more, compress=compress)
        os.rename(draft, target)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        draft.unlink(missing_ok=True)
    return [target] if single else [target / f"{name}.h5" for name in runs]


def examine(path: str) -> int:
    """Touch everything of HDF5 that reading a dataset touches; run in a child process on files of strangers."""
    with open_hdf5(Path(path)) as file:
        return sum(file[name].id.get_num_chunks() for name in _datasets(file) if file[name].chunks is not None)


def suggestion(path: str | os.PathLike[str]) -> str:
    """Say how an HDF5 file of another program is read; empty for files that are none, and for our own.

    Examples
    --------
    >>> import h5py, numpy as np
    >>> from trajtools.store import foreign
    >>> with h5py.File("other.h5", "w") as file:
    ...     file["W"] = np.random.default_rng(0).random((1, 3, 20, 5))
    >>> foreign.suggestion("other.h5").split(":")[0]
    "its dataset 'W' has the shape (1, 3, 20, 5)"
    """
    place = Path(path)
    try:
        with open_hdf5(place) as file:
            if "format" in file.attrs:
                return ""
            listed = _datasets(file)
            attributes, _ = _attributes(file)
    except (TrajtoolsError, OSError):
        return ""
    if not listed:
        return ""
    name, shape = max(listed.items(), key=lambda item: prod(item[1]))
    likely = {4: "jimenez2025", 6: "danovski2024"}.get(len(shape)) if name == "weights" else None
    if likely and any(key in attributes for key in EPSILONS):
        options = f"{shlex.quote(str(path))} --layout {likely}"
        return (
            f"its dataset {name!r} looks like the layout {likely}: measure it by `trajtools lyapunov {options}`, or "
            f"turn it into runs by `trajtools convert {options} -o FOLDER`"
        )
    return (
        f"its dataset {name!r} has the shape {shape}: `trajtools convert` and `lyapunov` read it if "
        f'--dataset {name}, --axes "init member step entry" (a name for each axis) and --holds weights|distances say '
        "what it is"
    )


@dataclass(frozen=True, eq=False)
class ForeignStates:
    """The states of one training, (T, P), read from the dataset when asked for; pickles as path and place.

    Attributes
    ----------
    path, dataset : Path, str
        The file and the dataset in it.
    axes : tuple of str
        Names of its axes.
    at : tuple of (str, int)
        Index on the axes that are neither the step's nor the state's.
    shape : (int, int)
        Number of states T and of entries P.
    dtype : numpy.dtype
        Of what `read` returns.
    columns : ndarray of int64 or None
        Entries of the flattened state that are weights; None: all.
    """

    path: Path
    dataset: str
    axes: tuple[str, ...]
    at: tuple[tuple[str, int], ...]
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    columns: Ints | None = None

    def read(self, rows: slice | NDArray[np.int64], columns: slice | NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Return some states; of a stretch of weights, only the part of the dataset that contains it is read."""
        index = np.arange(self.shape[0])[rows]
        low, high = (int(index.min()), int(index.max()) + 1) if index.size else (0, 0)
        at = dict(self.at)
        with open_hdf5(self.path) as file:
            data = _find(file, self.path, self.dataset)
            sizes = {axis: size for axis, size in zip(self.axes, data.shape, strict=True) if axis not in at}
            del sizes["step"]
            outer = next(iter(sizes), "")
            inner = prod(list(sizes.values())[1:])  # entries for each index of the outer axis of a state
            wanted = self._entries(columns, prod(sizes.values()))
            first = last = 0
            if len(wanted):
                ends = (wanted[0], wanted[-1]) if isinstance(wanted, range) else (int(wanted.min()), int(wanted.max()))
                first, last = min(ends) // inner, max(ends) // inner + 1
            ranges = {"step": slice(low, high), outer: slice(first, last)}
            key = tuple(ranges.get(axis, at.get(axis, slice(None))) for axis in self.axes)
            block = np.asarray(data[key])
        left = [axis for axis in self.axes if axis not in at]
        block = np.moveaxis(block, left.index("step"), 0)
        states = block.reshape(len(block), prod(block.shape[1:]))[index - low].astype(self.dtype, copy=False)
        skipped = first * inner
        if isinstance(wanted, range) and wanted.step == 1:  # no index of a whole state, which takes more than the state
            return states[:, wanted.start - skipped : wanted.stop - skipped] if len(wanted) else states
        return states[:, np.asarray(wanted, np.int64) - skipped]

    def _entries(self, columns: slice | NDArray[np.int64] | None, size: int) -> Ints | range:
        """Entries of the flattened state, of `size` entries, that are asked for."""
        columns = slice(None) if columns is None else columns
        if self.columns is not None:
            return self.columns[columns]
        return range(size)[columns] if isinstance(columns, slice) else np.arange(size)[columns]


@dataclass(frozen=True)
class _Declared:
    """What the caller says of the file; `dataset` of the layout only."""

    axes: tuple[str, ...]
    holds: str
    network: bool = False
    dataset: str = ""


def _declared(axes: str | Sequence[str] | None, holds: str | None, layout: str | None) -> _Declared:
    if layout is not None:
        if layout not in LAYOUTS:
            raise UnknownNameError(f"there is no layout {layout!r}; there are {', '.join(LAYOUTS)}")
        if axes is not None or holds is not None:
            raise DataError(f"the layout {layout} names the axes and what they hold: drop it, or axes and holds")
        known = LAYOUTS[layout]
        return _Declared(tuple(known.axes.split()), known.holds, known.network, known.dataset)
    if axes is None or holds is None:
        raise DataError(
            "what the file holds is unknown: give axes (such as 'init member step entry') and holds ('weights' or "
            f"'distances'), or a layout ({', '.join(LAYOUTS)})"
        )
    if holds not in HOLDS:
        raise UnknownNameError(f"holds={holds!r}: needed {' or '.join(HOLDS)}")
    names = tuple(axes.replace(",", " ").split()) if isinstance(axes, str) else tuple(axes)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"two axes are called {twice!r}; each needs a name of its own")
    if "step" not in names:
        raise DataError(f"no axis is called 'step', along which the training goes; the axes are {', '.join(names)}")
    strange = [name for name in names if name not in GROUPING]
    if holds == "distances" and strange:
        raise DataError(
            f"distances have the axes {', '.join(GROUPING)} only, not {', '.join(strange)}; for states give "
            "holds='weights'"
        )
    return _Declared(names, holds)


# The file


def _find(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """Return a dataset that lies in this very file."""
    objects, place = Objects(file), name.strip("/")
    if {".", ".."} & set(place.split("/")) or not objects.has(place):
        raise DataError(f"{path} holds no dataset {name!r}; its datasets are: {_listed(_datasets(file))}")
    return objects.dataset(place)


def _only_dataset(file: h5py.File, path: Path) -> str:
    listed = _datasets(file)
    if len(listed) != 1:
        there = _listed(listed)
        raise DataError(f"{path} holds several datasets or none, choose one with dataset=; there are: {there}")
    return next(iter(listed))


def _listed(datasets: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in datasets.items()) or "none"


def _datasets(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """Return path and shape of the first datasets of numbers; links are not followed."""
    listed: dict[str, tuple[int, ...]] = {}
    for name, entry in islice(Objects(file).walk(), MAX_VISITED):
        with suppress(TypeError):  # a type that NumPy does not have
            if isinstance(entry, h5py.h5d.DatasetID) and entry.shape and entry.dtype.kind in "iuf":
                listed[name] = entry.shape
        if len(listed) >= MAX_LISTED:
            break
    return listed


def _sizes(data: h5py.Dataset, chosen: _Declared, name: str, path: Path) -> dict[str, int]:
    """Return the size of each axis by its name."""
    if data.dtype.kind not in "iuf" or data.dtype.itemsize > 8:
        raise DataError(f"the dataset {name!r} of {path} holds {data.dtype}; needed real numbers of at most 64 bits")
    if data.ndim != len(chosen.axes):
        raise DataError(
            f"the dataset {name!r} of {path} has {data.ndim} axes, of sizes {data.shape}; {len(chosen.axes)} are "
            f"named: {' '.join(chosen.axes)}"
        )
    sizes = dict(zip(chosen.axes, data.shape, strict=True))
    empty = next((axis for axis, size in sizes.items() if not size), None)
    if empty is not None:
        raise DataError(f"the dataset {name!r} of {path} is empty: its axis {empty!r} has the size 0")
    return sizes


def _attributes(*targets: h5py.Group | h5py.Dataset) -> tuple[dict[str, Any], list[str]]:
    """Return the attributes that are numbers or texts of fixed length, as JSON can hold them, and the names of others.

    Text of variable length lies in a heap that HDF5 walks through, without end if a stranger has bent it into a ring.
    """
    values: dict[str, Any] = {}
    unread: list[str] = []
    for target in targets:
        for name in islice(target.attrs, MAX_ATTRIBUTES):
            try:
                handle = h5py.h5a.open(target.id, name.encode())
                kind = handle.get_type()
                text = isinstance(kind, h5py.h5t.TypeStringID)
                number = isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID | h5py.h5t.TypeEnumID)
                if handle.get_storage_size() > MAX_ATTRIBUTE_BYTES or not (
                    number or (text and not kind.is_variable_str())
                ):
                    unread.append(_printable(name))
                else:
                    values[name] = read_text(handle, name) if text else to_plain(target.attrs[name])
            except (OSError, RuntimeError, ValueError, KeyError, TypeError):
                unread.append(_printable(name))  # no reason to refuse the data
    return values, unread


def _printable(name: str) -> str:
    """Return a name as text that JSON and UTF-8 can hold."""
    return name.encode("utf-8", "backslashreplace").decode()


# What it holds


def _width(sizes: Mapping[str, int]) -> int:
    return prod(size for axis, size in sizes.items() if axis not in GROUPING)


def _ensembles(
    states: ForeignStates,
    chosen: _Declared,
    sizes: Mapping[str, int],
    *,
    hparams: dict[str, Any],
    source: dict[str, Any],
    metric: str,
) -> list[Ensemble]:
    epsilons = _epsilons(hparams, sizes.get("epsilon", 1))
    inits, members = sizes.get("init", 1), sizes.get("member", 1)
    step = np.arange(sizes["step"], dtype=np.int64)
    of_weights = chosen.holds == "weights"
    parameters: tuple[Parameter, ...] = ()
    nodes: tuple[NodeSet, ...] = ()
    if of_weights:
        states, parameters, nodes = _described(states, chosen, sizes)
    ensembles = []
    for e, epsilon in enumerate(epsilons):
        at = [("epsilon", e)] if "epsilon" in sizes else []
        pairs: list[tuple[Trajectory, list[Trajectory]]] = []
        distances = None
        if of_weights:
            for i in range(inits):
                here = [*at, *([("init", i)] if "init" in sizes else [])]
                every = [_trajectory(states, here, m, parameters, nodes) for m in range(members)]
                pairs.append((every[0], every[1:]))
        else:
            distances = _read_distances(states, at, sizes)
        copies = members - 1 if of_weights else members
        ensembles.append(
            Ensemble(
                name=(f"epsilon={epsilon:g}" if isfinite(epsilon) else f"epsilon {e}") if len(epsilons) > 1 else "",
                epsilon=epsilon,
                holds=chosen.holds,
                step=step,
                pairs=pairs,
                distances=distances,
                group=np.repeat(np.arange(inits), copies).astype(np.int64),
                metric=metric,
                parameters=parameters,
                nodes=nodes,
                hparams=hparams,
                source=source,
            )
        )
    return ensembles


def _epsilons(hparams: Mapping[str, Any], count: int) -> list[float]:
    for name in EPSILONS:
        values = np.ravel(np.asarray(hparams.get(name, ()), dtype=object)).tolist()
        if len(values) == count and all(isinstance(value, (int, float)) for value in values):
            return [float(value) for value in values]
    return [nan] * count


def _trajectory(
    states: ForeignStates,
    at: list[tuple[str, int]],
    member: int,
    parameters: tuple[Parameter, ...],
    nodes: tuple[NodeSet, ...],
) -> Trajectory:
    at = [*at, *([("member", member)] if "member" in states.axes else [])]
    own = ForeignStates(states.path, states.dataset, states.axes, tuple(at), states.shape, states.dtype, states.columns)
    return Trajectory(own, step=np.arange(states.shape[0]), parameters=parameters, nodes=nodes)


def _read_distances(states: ForeignStates, at: list[tuple[str, int]], sizes: Mapping[str, int]) -> Floats:
    """Read the curves of one epsilon, (T, C), the copies of an initial condition side by side."""
    count = prod(size for axis, size in sizes.items() if axis != "epsilon")
    if count * 8 > MAX_DISTANCE_BYTES:
        raise TooLargeError(f"the distances of {states.path} are {count * 8 / 2**30:.1f} GiB; at most 4 GiB are read")
    left = [axis for axis in states.axes if axis != "epsilon"]
    key = tuple(dict(at).get(axis, slice(None)) for axis in states.axes)
    with open_hdf5(states.path) as file:
        block = np.asarray(_find(file, states.path, states.dataset)[key], dtype=np.float64)
    order = [left.index(axis) for axis in ("step", "init", "member") if axis in left]
    return np.ascontiguousarray(block.transpose(order).reshape(sizes["step"], -1))


def _described(
    states: ForeignStates, chosen: _Declared, sizes: Mapping[str, int]
) -> tuple[ForeignStates, tuple[Parameter, ...], tuple[NodeSet, ...]]:
    """Say which entry of a state is which: of a network of blocks each weight, else one array without edges."""
    if not chosen.network:
        shape = tuple(size for axis, size in sizes.items() if axis not in GROUPING)
        name = states.dataset.rpartition("/")[2]
        return states, (Parameter(name, "other", shape, states.dtype.name, 0, prod(shape)),), ()
    rows, columns = (size for axis, size in sizes.items() if axis not in GROUPING)
    blocks = _blocks(_ever_used(states).reshape(rows, columns), states)
    grid = np.arange(rows * columns).reshape(rows, columns)
    parameters, nodes = describe({name: (grid[block].shape, states.dtype.name) for name, block in blocks.items()})
    entries = np.concatenate([grid[block].ravel() for block in blocks.values()]).astype(np.int64)
    shape = (states.shape[0], len(entries))
    return (
        ForeignStates(states.path, states.dataset, states.axes, states.at, shape, states.dtype, entries),
        parameters,
        nodes,
    )


def _ever_used(states: ForeignStates) -> NDArray[np.bool_]:
    """Entries of the matrix that are not zero at some state of the first training, (R * C,)."""
    first = [(axis, 0) for axis in GROUPING if axis in states.axes and axis != "step"]
    one = ForeignStates(states.path, states.dataset, states.axes, tuple(first), states.shape, states.dtype)
    used = np.zeros(states.shape[1], dtype=bool)
    for start in range(0, states.shape[0], BLOCK_STATES):
        used |= (one.read(slice(start, start + BLOCK_STATES)) != 0).any(axis=0)
    return used


def _blocks(used: NDArray[np.bool_], states: ForeignStates) -> dict[str, tuple[Any, Any]]:
    """Find the network of one hidden layer in its matrix: two blocks on the diagonal, each with a row of biases."""
    rows, columns = used.shape
    fitting = []
    for hidden in range(1, columns):
        inputs = rows - hidden - 2
        outside = used.copy()
        outside[: inputs + 1, :hidden] = outside[inputs + 1 :, hidden:] = False
        if inputs > 0 and not outside.any():
            fitting.append((inputs, hidden))
    if len(fitting) != 1:
        sizes = " or ".join(f"{inputs}-{hidden}-{columns - hidden}" for inputs, hidden in fitting)
        raise DataError(
            f"the zeros of the {rows} x {columns} matrices of {states.path} fit {sizes or 'no network'} of one hidden "
            "layer; take the matrices as they are with --axes 'epsilon init member step row column' --holds weights"
        )
    inputs, hidden = fitting[0]
    return {
        "hidden.kernel": (slice(0, inputs), slice(0, hidden)),
        "hidden.bias": (inputs, slice(0, hidden)),
        "output.kernel": (slice(inputs + 1, rows - 1), slice(hidden, columns)),
        "output.bias": (rows - 1, slice(hidden, columns)),
    }


# Runs of our own


def _named(ensembles: list[Ensemble]) -> dict[str, tuple[Ensemble, int]]:
    """Name each run: an initial condition at one epsilon."""
    runs: dict[str, tuple[Ensemble, int]] = {}
    for ensemble in ensembles:
        inits = len(ensemble.pairs) if ensemble.holds == "weights" else int(ensemble.group.max()) + 1
        for i in range(inits):
            parts = [ensemble.name.replace("=", "_").replace(" ", "_"), f"init_{i:0{len(str(inits - 1))}d}"]
            runs["_".join(filter(None, parts))] = (ensemble, i)
    return runs


def _write(
    path: Path, name: str, ensemble: Ensemble, init: int, *, hparams: Mapping[str, Any], compress: str | None
) -> None:
    """Write one run; the only place that knows how."""
    weights = ensemble.holds == "weights"
    own = ensemble.group == init
    copies = [Member(f"copy {k}", 0, ensemble.epsilon) for k in range(int(own.sum()))]
    unknown = (Parameter("unknown", "other", (1,), "float64", 0, 1),)  # distances do not say of which parameters
    parameters = ensemble.parameters or unknown
    spec = RunSpec(
        name=name,
        parameters=parameters,
        nodes=ensemble.nodes,
        members=[Member("reference"), *copies],
        dtype=parameters[0].dtype,
        stored=ensemble.holds,
        hparams=hparams,
        provenance={"converted": {**ensemble.source, "init": init}},
        compress=compress if weights else None,
        distance_metric=None if weights else ensemble.metric,
    )
    writer = RunWriter.create(path, spec)
    try:
        count, rows = len(ensemble.step), writer.layout.rows
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            if weights:
                reference, perturbed = ensemble.pairs[init]
                block = np.stack([states.read(start, stop) for states in (reference, *perturbed)], axis=1)
            else:
                assert ensemble.distances is not None
                curves = ensemble.distances[start:stop, own]
                block = np.concatenate([np.zeros((stop - start, 1)), curves], axis=1)
            step = ensemble.step[start:stop]
            content: dict[str, Any] = {ensemble.holds: block}
            writer.write(start, stop - start, step=step, final=stop == count, **content)
        writer.close()
    except BaseException:
        writer.abort()
        raise
