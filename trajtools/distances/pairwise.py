"""All distances between the states of a trajectory: the result, its file, and the out-of-core computation."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from trajtools.clocks import duration
from trajtools.distances import tiles
from trajtools.distances.metric import METRICS, MetricLike
from trajtools.distances.tiles import Comparison, Tile, compare, compute
from trajtools.errors import DataError, FormatError, SelectionError, TooLargeError
from trajtools.inputs import takes_states
from trajtools.reasons import Reason
from trajtools.results import AxisNames, Result, import_optional, to_plain
from trajtools.store.matrices import VECTORS, MatrixFile, create_matrix
from trajtools.trajectory import StatesLike
from trajtools.types import Bools, Floats, Ints, TimeStepLike
from trajtools.values import not_finite, read_values, training_steps
from trajtools.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

MAX_PLAIN_ENTRIES = 2**24
"""Largest number of distances for `Distances.to_dict`."""


Rectangle = tuple[slice, slice]
MAX_MATRIX_BYTES = 4 * 2**30
"""Largest matrix held in memory."""


_ARITHMETIC = 2  # increase when the numbers change, so that older files are not continued
Progress = Callable[[int, int], None]
_ELSEWHERE = 16


@dataclass(frozen=True, eq=False, repr=False)
class Distances(Result):
    """Distances of all states of a trajectory to each other (T, T), or to the states of another one (T, S).

    Indexing, slicing and `numpy.asarray` work as for an array; on disk, only the selection is read.

    Attributes
    ----------
    values : ndarray of float64, shape (T, S)
        The distances; a read-only `numpy.memmap` where they are on disk. Rows and columns of excluded states are NaN.
    metric : str
        Name of the distance between states.
    step : ndarray of int64, shape (T,)
        Step of the state of each row.
    column_step : ndarray of int64, shape (S,)
        Step of the state of each column.
    dt : float, in `time_unit`
        Time of one step.
    time_unit : str
        Unit of `dt`.
    excluded : ndarray of bool, shape (T,)
        States that contain NaN or inf, or for which the metric is undefined.
    column_excluded : ndarray of bool, shape (S,)
        Likewise, of the columns.
    floor : ndarray of float64, shape (T,)
        Distance that rounding of the stored weights alone produces at each state; NaN where unknown.
    square : bool
        Whether rows and columns are the states of one trajectory.
    symmetric : bool
        Whether the matrix is square and symmetric.
    path : str or None
        The file, where they are on disk.
    settings : dict
        All parameters used.
    warnings : tuple of Reason
        Caveats of the result.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> distances = tt.pairwise(np.arange(4.0), metric="l1")
    >>> float(distances[0, 3]), distances.shape
    (3.0, (4, 4))
    """

    values: Floats
    metric: str
    step: Ints
    column_step: Ints
    dt: float
    time_unit: str
    excluded: Bools
    column_excluded: Bools
    floor: Floats
    square: bool = True
    symmetric: bool = True
    path: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[Reason, ...] = ()
    _dims: ClassVar[AxisNames] = {
        "values": ("step", "column_step"),
        "excluded": ("step",),
        "floor": ("step",),
        "column_excluded": ("column_step",),
    }

    def __post_init__(self) -> None:
        rows, columns = self.values.shape
        lengths = {"step": rows, "excluded": rows, "floor": rows, "column_step": columns, "column_excluded": columns}
        for name, length in lengths.items():
            if getattr(self, name).shape != (length,):
                raise DataError(
                    f"distances of shape {self.values.shape} need {name} of shape ({length},), not "
                    f"{getattr(self, name).shape}"
                )

    @classmethod
    def from_array(
        cls,
        matrix: ArrayLike,
        *,
        metric: str = "precomputed",
        step: ArrayLike | None = None,
        dt: TimeStepLike = 1.0,
        time_unit: str | None = None,
    ) -> Distances:
        """Wrap distances computed elsewhere.

        Parameters
        ----------
        matrix : array_like, shape (T, T)
            Distances of all pairs of states of one trajectory. NaN in a whole row and column marks a state without
            distances. Not copied if it is float64.
        metric : str
            Name of the distance between states.
        step : array_like of int or None, shape (T,)
            Step of each state; None: 0, 1, 2, ...
        dt : float or duration
            Time of one step: a number in `time_unit`, or a duration such as ``"1h"``.
        time_unit : str or None
            Unit of `dt`; None: that of the duration, else ``"step"``, or ``"time"`` where a step takes other than 1.

        Returns
        -------
        Distances

        Raises
        ------
        DataError
            If the matrix is not square, or contains negative numbers.

        Examples
        --------
        >>> d = Distances.from_array([[0.0, 1.0], [1.0, 0.0]])
        >>> d.shape, d.symmetric, d[0].tolist()
        ((2, 2), True, [0.0, 1.0])
        """
        array = read_values(matrix, "the matrix of distances").array.astype(np.float64, copy=False)
        if array.ndim != 2 or array.shape[0] != array.shape[1]:
            raise DataError(f"distances of one trajectory are (T, T); these have shape {array.shape}")
        if np.any(array < 0):
            raise DataError("the distances contain negative numbers; they must be positive or zero")
        length = duration(dt)
        time_unit, dt = time_unit or getattr(length, "unit", None), float(length)
        if not (np.isfinite(dt) and dt > 0):
            raise DataError(f"dt is {dt}; it must be a positive number, the time from one step to the next")
        steps = np.arange(len(array)) if step is None else np.asarray(step, dtype=np.int64)
        view = array.view()
        view.flags.writeable = False
        excluded: Bools = np.asarray(np.isnan(array).all(axis=1))
        return cls(
            values=view,
            metric=metric,
            step=steps,
            column_step=steps,
            dt=float(dt),
            time_unit=time_unit or ("step" if dt == 1 else "time"),
            excluded=excluded,
            column_excluded=excluded,
            floor=np.full(len(array), np.nan),
            symmetric=bool(np.array_equal(array, array.T, equal_nan=True)),
            settings={"source": "array"},
        )

    @classmethod
    def open(cls, path: str | Path) -> Distances:
        """Open distances written by `pairwise` or `save`.

        Parameters
        ----------
        path : str or Path
            The file.

        Returns
        -------
        Distances
            On disk: only selections are read.

        Raises
        ------
        FormatError
            If it is not a file of distances, or its distances are not complete.
        """
        return read_distances(Path(path))

    def save(self, path: str | Path) -> Distances:
        """Write the distances to a new file.

        Parameters
        ----------
        path : str or Path
            The file; it must not exist.

        Returns
        -------
        Distances
            The same, on disk.

        Raises
        ------
        FileExistsError
            If the file exists.
        """
        return write_distances(self, Path(path))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows T and of columns S."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def ndim(self) -> int:
        """Two."""
        return 2

    @property
    def dtype(self) -> np.dtype[np.float64]:
        """Always float64."""
        return self.values.dtype

    @property
    def time(self) -> Floats:
        """Time of each row, ``step * dt``."""
        return np.asarray(self.step * self.dt, dtype=np.float64)

    @property
    def n_excluded(self) -> int:
        """Number of states (of the rows) without distances."""
        return int(np.count_nonzero(self.excluded))

    def __len__(self) -> int:
        return self.values.shape[0]

    def _sentence(self) -> str:
        rows, columns = self.shape
        states = f"all pairs of {counted(rows, 'state')}" if self.square else f"{rows} x {columns} states"
        excluded = f", {self.n_excluded} excluded" if self.n_excluded else ""
        where = f", in {self.path}" if self.path else ""
        return f"{self.metric} distances between {states}{excluded}{where}."

    def to_dataframe(self) -> DataFrame:
        """Convert the distances to a table of pandas, one row and one column a state, labelled with their steps.

        Returns
        -------
        pandas.DataFrame, shape (T, S)

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        frame = import_optional("pandas").DataFrame
        return frame(np.asarray(self.values), index=self.step, columns=self.column_step)

    def __getitem__(self, key: Any) -> Any:
        values = self.values[key]
        return np.asarray(values) if isinstance(values, np.ndarray) else values

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=copy)

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Rows ``start .. stop`` as an array in memory.

        Parameters
        ----------
        start, stop : int, in states
            As in a slice: negative counts from the end, None is the end.

        Returns
        -------
        ndarray of float64, shape (t, S)
            On disk a copy; in memory a read-only view.
        """
        rows = self.values[start:stop]
        return np.array(rows) if isinstance(rows, np.memmap) else rows

    def window(self, start: int | None = None, stop: int | None = None, every: int = 1) -> Distances:
        """Only the states whose step is in ``[start, stop)``, every k-th of them.

        Parameters
        ----------
        start, stop : int or None, in steps
            Steps, not indices; None: from the first, to the last.
        every : int
            Select the first state of the window and every `every`-th after it.

        Returns
        -------
        Distances
            A view; nothing is computed or read.

        Raises
        ------
        SelectionError
            If no state lies in the window, or `every` is below 1.
        """
        if every < 1:
            raise SelectionError(f"every={every}; it must be 1 or more")
        rows, columns = (_within(steps, start, stop, every) for steps in (self.step, self.column_step))
        return replace(
            self,
            values=self.values[rows, columns],
            step=self.step[rows],
            column_step=self.column_step[columns],
            excluded=self.excluded[rows],
            column_excluded=self.column_excluded[columns],
            floor=self.floor[rows],
            settings=self.settings | {"window": (start, stop, every)},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a JSON-serialisable dict.

        Returns
        -------
        dict
            One entry per field. Arrays are lists, numbers have full precision, NaN and the infinities are None.

        Raises
        ------
        TooLargeError
            If there are more than 2^24 distances.
        """
        if self.values.size > MAX_PLAIN_ENTRIES:
            raise TooLargeError(
                f"{self.shape[0]} x {self.shape[1]} distances are too many for JSON; take a window, thin them out with "
                "window(every=k), or keep them in a file with save()"
            )
        return super().to_dict()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the distances; see `trajtools.plots.distances`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Axes to draw in; None: a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes of the plot.
        """
        from trajtools import plots

        return plots.distances(self, ax=ax)

    def __reduce__(self) -> Any:
        # Distances on disk are pickled as their location.
        if self.path is None or not isinstance(self.values, np.memmap) or not self.values.size:
            return super().__reduce__()
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "values"}
        return _reopen, (plain, self.values.shape, self.values.strides, _place(self.values))


def read_distances(path: Path) -> Distances:
    """Open the distances in a file."""
    with MatrixFile(path) as file:
        about = file.about
        if not about.get("complete"):
            raise FormatError(
                f"the distances in {path} are not complete; call pairwise with the same states, metric and out= again, "
                "and it continues"
            )
        vectors = {name: file.vector(name) for name in VECTORS}
        values = file.mapped()
    return Distances(
        values=values,
        metric=str(about["metric"]),
        step=vectors["step"],
        column_step=vectors["column_step"],
        dt=float(about["dt"]),
        time_unit=str(about["time_unit"]),
        excluded=vectors["excluded"].astype(bool),
        column_excluded=vectors["column_excluded"].astype(bool),
        floor=vectors["floor"],
        square=bool(about["square"]),
        symmetric=bool(about["symmetric"]),
        path=str(path),
        settings=dict(about["settings"]),
        warnings=tuple(Reason(**one) for one in about["warnings"]),
    )


def write_distances(distances: Distances, path: Path) -> Distances:
    """Write distances to a new file."""
    if path.exists():
        raise FileExistsError(f"{path} exists already; choose another name or delete it")
    side = max(1, *distances.shape)
    about = {name: getattr(distances, name) for name in ("metric", "dt", "time_unit", "square", "symmetric")}
    about |= {"settings": distances.settings, "warnings": distances.warnings}
    vectors = {name: np.asarray(getattr(distances, name)) for name in VECTORS}
    create_matrix(path, distances.shape, side, about, vectors)
    with MatrixFile(path, write=True) as file:
        for start in range(0, len(distances), 256):
            rows = slice(start, min(start + 256, len(distances)))
            file.put(rows, slice(0, distances.shape[1]), distances.read(rows.start, rows.stop))
        file.set_about(about | {"complete": True})
    return read_distances(path)


def _reopen(fields: Mapping[str, Any], shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Distances:
    reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) // 8 + 1
    flat = np.memmap(fields["path"], np.float64, "r", offset=offset, shape=(reach,))
    return Distances(values=np.lib.stride_tricks.as_strided(flat, shape, strides, subok=True), **fields)


def _within(steps: Ints, start: int | None, stop: int | None, every: int) -> slice:
    first = 0 if start is None else int(np.searchsorted(steps, start))
    last = len(steps) if stop is None else int(np.searchsorted(steps, stop))
    if first >= last:
        span = f"steps {steps[0]} to {steps[-1]}" if len(steps) else "no states"
        raise SelectionError(f"no state in steps [{start}, {stop}); the distances have {span}")
    return slice(first, last, every)


def _place(values: np.memmap[Any, Any]) -> int:
    """Byte offset of the first of these distances in the file."""
    whole: Any = values
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    return int(whole.offset + values.__array_interface__["data"][0] - whole.__array_interface__["data"][0])


@takes_states("x", "y", single=True)
def pairwise(
    x: StatesLike,
    *,
    y: StatesLike | None = None,
    metric: MetricLike = "l2",
    scale: str | None = None,
    out: str | Path | None = None,
    block: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Distances:
    """Distances of all states to each other.

    Parameters
    ----------
    x : Trajectory or array_like, shape (T, P) or (T,)
        The states. States in a file are read in parts as needed.
    y : Trajectory, array_like or None, shape (S, P) or (S,)
        States of another trajectory; None: those of `x`.
    metric : str, callable or Metric
        Distance between states, see `METRICS`.
    scale : "std" or None
        ``"std"`` divides every column by its standard deviation, for columns with units of their own.
    out : str, Path or None
        Write the distances to this file during the computation, and continue an unfinished file. A folder: to a file
        in it named after the content, so that the same distances are found again. The file can be deleted at any time.
        None: return them in memory.
    block : int or None, in states
        Side of the tiles of the matrix; None: automatic. The numbers do not depend on it.
    executor : concurrent.futures.Executor or None
        Where the tiles are computed: a process pool, ``dask.distributed.Client.get_executor()``, ...; None: on as many
        threads of this process as numba is allowed (``NUMBA_NUM_THREADS``, `numba.set_num_threads`).
    progress : callable or None
        ``progress(done, total)`` is called in this thread after every tile.

    Returns
    -------
    Distances
        float64, shape (T, T), or (T, S) with `y`. States with NaN or inf are excluded, counted, and NaN here.

    Raises
    ------
    DataError
        If the states cannot be compared, or `out` contains other distances.
    FileBusyError
        If another process writes to `out`.
    TooLargeError
        If the matrix does not fit into memory (pass `out`) or onto the disk.
    UnknownNameError
        If there is no such metric.

    Notes
    -----
    Sums go over direct differences of the weights, not over the Gram matrix, so close states are as exact as distant
    ones. Differences of float32 weights are taken and summed a few at a time in float32, everything else in float64
    (see `settings`): the relative error is about 1e-8, and at most 1e-14 for states stored as float64. The numbers do
    not depend on tiles, threads or the executor.

    Of states in a file, this process and every process of an executor hold at most 256 MiB at a time; besides them a
    worker holds a few tiles of `block` x `block` float64 numbers, and this process up to 32 that are finished.
    With `out`, every finished tile is in the file: after an interruption at most those under way are computed again.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> tt.pairwise(np.array([[0.0, 0.0], [3.0, 4.0]]))[:].tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    """
    if block is not None and (isinstance(block, bool) or not isinstance(block, int | np.integer) or block < 1):
        raise DataError(f"block={block!r}: it must be a positive integer, the number of states")
    comparison = compare(x, y, metric, digest=out is not None, executor=executor)
    workers = tiles.threads()
    # An executor does not report its number of workers.
    hands = workers if executor is None else max(workers, _ELSEWHERE)
    side = comparison.side(hands) if block is None else min(int(block), comparison.side(0))
    keeper = Keeper(comparison, side, None if out is None else Path(out))
    try:
        _compute(comparison, keeper, workers, executor, progress)
        return keeper.result()
    finally:
        keeper.close()


class Keeper:
    """Store the tiles of one matrix and count their exceptions."""

    def __init__(self, comparison: Comparison, side: int, path: Path | None) -> None:
        self._comparison = comparison
        self._below = self._undefined = self._pairs = self._resumed = 0
        self._silent = np.zeros(len(comparison.x), dtype=bool)  # finite, but without a distance to themselves
        self._file: MatrixFile | None = None
        self._matrix = np.empty((0, 0))
        if path is None:
            self._matrix = _in_memory(comparison)
            self.side = side
        else:
            self._file = _opened(comparison, side, path)
            self.side = self._file.side

    def tiles(self) -> list[Rectangle]:
        """All tiles to compute."""
        rows, columns = (
            [slice(start, min(start + self.side, len(states))) for start in range(0, len(states), self.side)]
            for states in (self._comparison.x, self._comparison.y)
        )
        # The half tiles on the diagonal come last, to shorten the wait for the last worker.
        tiles = [(r, c) for r in rows for c in columns if not self._comparison.symmetric or c.start <= r.start]
        return sorted(tiles, key=lambda tile: tile[0] == tile[1])

    def missing(self) -> list[Rectangle]:
        """Tiles not yet computed; finished ones are counted."""
        if self._file is None:
            return self.tiles()
        missing = []
        for rows, columns in self.tiles():
            block = self._file.finished(rows, columns)
            if block is None:
                missing.append((rows, columns))
            else:
                self._resumed += 1
                self._count(rows, columns, block)
        return missing

    def keep(self, task: Rectangle, block: Floats) -> None:
        """Store a computed tile."""
        rows, columns = task
        block = self._comparison.blank(rows, columns, block)
        mirrored = self._comparison.symmetric and rows != columns
        if self._file is None:
            self._matrix[rows, columns] = block
            if mirrored:
                self._matrix[columns, rows] = block.T
        else:
            self._file.put(rows, columns, block)
            if mirrored:
                self._file.put(columns, rows, block.T)
            self._file.mark(rows, columns, block)
        self._count(rows, columns, block)

    def _count(self, rows: slice, columns: slice, block: Floats) -> None:
        """Count the distances below the floor, and those undefined for two finite states."""
        comparison = self._comparison
        one = comparison.square and rows == columns
        counted: NDArray[np.bool_] = np.ones(block.shape, dtype=bool)
        if one:
            counted = np.tri(len(block), k=-1, dtype=bool) if comparison.symmetric else ~np.eye(len(block), dtype=bool)
            self._silent[rows] = np.isnan(np.diagonal(block)) & comparison.rows.finite[rows]
        floor = np.maximum(comparison.rows.floor[rows, None], comparison.columns.floor[None, columns])
        self._below += int(np.count_nonzero((block < floor) & counted))
        self._pairs += int(np.count_nonzero(np.isfinite(block) & counted))
        finite = comparison.rows.finite[rows, None] & comparison.columns.finite[None, columns]
        self._undefined += int(np.count_nonzero(np.isnan(block) & finite & counted))

    def result(self) -> Distances:
        """Return the complete distances."""
        comparison = self._comparison
        fields = _fields(comparison)
        vectors = _vectors(comparison)
        if comparison.square:
            vectors["excluded"] = vectors["excluded"] | self._silent
            vectors["column_excluded"] = vectors["excluded"]
        fields |= {
            "settings": fields["settings"]
            | {"block": self.side, "pairs": self._pairs, "below_floor": self._below, "tiles_resumed": self._resumed},
            "warnings": tuple(self._warnings(int(np.count_nonzero(vectors["excluded"])))),
        }
        if self._file is None:
            self._matrix.flags.writeable = False
            values: Floats = self._matrix
        else:
            for name in ("excluded", "column_excluded"):
                self._file.set_vector(name, vectors[name])
            self._file.set_about(self._file.about | to_plain(fields) | {"complete": True})
            values = self._file.mapped()
        path = None if self._file is None else str(self._file.path)
        return Distances(values=values, path=path, **fields, **vectors)

    def _warnings(self, excluded: int) -> list[Reason]:
        comparison = self._comparison
        warnings: list[Reason] = []
        warnings += not_finite(comparison.rows.finite, step=training_steps(comparison.x))
        silent = excluded - int(np.count_nonzero(~comparison.rows.finite))
        if silent:
            text = "{excluded} of {states} finite states have no distance in this metric: their distances are NaN"
            warnings.append(Reason.of("undefined-distances", text, excluded=silent, states=len(comparison.x)))
        others = int(np.count_nonzero(~comparison.columns.finite))
        if others and not comparison.square:
            text = "{excluded} of the {states} states of the columns hold NaN or inf and are excluded"
            warnings.append(Reason.of("orbit-not-finite", text, excluded=others, states=len(comparison.y)))
        if self._below:
            text = (
                "{below} of {pairs} distances lie below the rounding floor of the stored numbers (`floor`): "
                "they carry no information about the dynamics"
            )
            warnings.append(Reason.of("below-rounding-floor", text, below=self._below, pairs=self._pairs))
        elif np.isnan(comparison.rows.floor[comparison.rows.finite]).any():
            text = "the rounding floor of metric {metric!r} is unknown"
            warnings.append(Reason.of("floor-unknown", text, metric=comparison.metric.name))
        if self._undefined and not self._silent.any():
            text = "{undefined} distances between finite states are NaN: the metric is undefined for them"
            warnings.append(Reason.of("undefined-distances", text, undefined=self._undefined))
        return warnings

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _fields(comparison: Comparison) -> dict[str, Any]:
    return {
        "metric": comparison.metric.name,
        "dt": comparison.x.dt,
        "time_unit": comparison.x.time_unit,
        "square": comparison.square,
        "symmetric": comparison.symmetric,
        "settings": {
            "metric": comparison.metric.name,
            "kind": comparison.metric.kind,
            "n_parameters": comparison.size,
            "dtype": comparison.dtype,
            "differences": "float32" if comparison.single else "float64",
        },
    }


def _vectors(comparison: Comparison) -> dict[str, Any]:
    return {
        "step": np.asarray(comparison.x.step),
        "excluded": ~comparison.rows.finite,
        "floor": comparison.rows.floor,
        "column_step": np.asarray(comparison.y.step),
        "column_excluded": ~comparison.columns.finite,
    }


def _in_memory(comparison: Comparison) -> Floats:
    size = 8 * len(comparison.x) * len(comparison.y)
    if size > MAX_MATRIX_BYTES:
        raise TooLargeError(
            f"the distances of {len(comparison.x)} x {len(comparison.y)} states are {size / 2**30:.1f} GiB, more than "
            f"the {MAX_MATRIX_BYTES / 2**30:.1f} GiB that fit in memory; pass out=path to store them on disk, or thin "
            "the states out (x.window(every=k))"
        )
    return np.empty((len(comparison.x), len(comparison.y)))


def _opened(comparison: Comparison, side: int, path: Path) -> MatrixFile:
    key = _key(comparison)
    file = path / f"{key[:32]}.h5" if path.is_dir() else path
    if not file.exists():
        create_matrix(
            file,
            (len(comparison.x), len(comparison.y)),
            side,
            _fields(comparison) | {"key": key, "warnings": ()},
            _vectors(comparison),
        )
    opened = MatrixFile(file, write=True)
    if opened.about.get("key") == key:
        return opened
    content = f"{opened.about.get('metric')} distances of {opened.shape[0]} x {opened.shape[1]} states"
    opened.close()
    if METRICS.is_everywhere(comparison.metric) or isinstance(comparison.which.metric, str):
        raise DataError(
            f"{file} holds the {content}, not these: the states, steps or metric differ. Choose another "
            "file, or delete this one: it can be computed again"
        )
    raise DataError(
        f"{file} exists, and a metric that is a function cannot be identified, so the file may contain other "
        "distances; choose another file, or delete this one"
    )


def _key(comparison: Comparison) -> str:
    """Hash of everything the numbers depend on; unique for a metric that is a function."""
    metric = comparison.which.metric if isinstance(comparison.which.metric, str) else uuid.uuid4().hex
    content = {
        "arithmetic": _ARITHMETIC,
        "states": [comparison.rows.digest, comparison.columns.digest],
        "metric": metric,
        "wiring": [repr(comparison.which.parameters), repr(comparison.which.nodes)],
        "single": comparison.single,
        "time": [comparison.x.dt, comparison.x.time_unit, comparison.square],
        "steps": [
            hashlib.sha256(np.asarray(x.step, "<i8").tobytes()).hexdigest() for x in (comparison.x, comparison.y)
        ],
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _compute(
    comparison: Comparison, keeper: Keeper, workers: int, executor: Executor | None, progress: Progress | None
) -> None:
    tasks = keeper.missing()
    total = len(keeper.tiles())
    finished = total - len(tasks)

    def report() -> None:
        if progress is not None:
            progress(finished, total)

    def keep(task: tuple[slice, slice], block: Any) -> None:
        nonlocal finished
        keeper.keep(task, block)
        finished += 1
        report()

    def send(task: tuple[slice, slice]) -> Tile:
        return comparison.tile(*task, travels=executor is not None)

    report()
    if executor is not None and tasks:
        # Compilation in many processes at once can break numba's cache.
        compute(comparison.tile(slice(0, 1), slice(0, 1)))
    tiles.run(tasks, compute, keep, executor=executor, workers=workers, send=send)
