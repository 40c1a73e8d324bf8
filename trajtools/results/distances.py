"""All distances between the states of a trajectory, or between those of two, in memory or on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from trajtools.errors import DataError, SelectionError, TooLargeError
from trajtools.results.plain import Result
from trajtools.types import Bools, Floats, Ints

MAX_PLAIN_ENTRIES = 2**24
"""`Distances.to_dict` of more numbers than this is refused."""


@dataclass(frozen=True, eq=False)
class Distances(Result):
    """Distances of all states of a trajectory to each other (T, T), or to the states of another one (T, S).

    Indexing, slicing and `numpy.asarray` work as for an array; on disk, only what is asked for is read.

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
        States that hold NaN or inf, or that the metric has no distance for.
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
        Every parameter as used, chosen or given.
    warnings : tuple of str
        What the reader should know before believing the distances.
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
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows, columns = self.values.shape
        wanted = {"step": rows, "excluded": rows, "floor": rows, "column_step": columns, "column_excluded": columns}
        for name, length in wanted.items():
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
        dt: float = 1.0,
        time_unit: str | None = None,
    ) -> Distances:
        """Take distances that were computed elsewhere.

        Parameters
        ----------
        matrix : array_like, shape (T, T)
            Distances of all pairs of states of one trajectory. NaN marks states without distances: whole rows and
            columns of it. Not copied if it is float64.
        metric : str
            What they measure, for the words.
        step : array_like of int or None, shape (T,)
            Step of each state; None: 0, 1, 2, ...
        dt : float, in the time unit
            Time of one step.
        time_unit : str or None
            Unit of `dt`; None: ``"step"``, or ``"time"`` where a step takes other than 1.

        Returns
        -------
        Distances

        Raises
        ------
        DataError
            If the matrix is not square, or holds negative numbers.

        Examples
        --------
        >>> d = Distances.from_array([[0.0, 1.0], [1.0, 0.0]])
        >>> d.shape, d.symmetric, d[0].tolist()
        ((2, 2), True, [0.0, 1.0])
        """
        array = np.asarray(matrix, dtype=np.float64)
        if array.ndim != 2 or array.shape[0] != array.shape[1]:
            raise DataError(f"distances of one trajectory are (T, T); these have shape {array.shape}")
        if np.any(array < 0):
            raise DataError("the given distances hold negative numbers; distances are positive or zero")
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
        """Open distances that `pairwise` or `save` left in a file.

        Parameters
        ----------
        path : str or Path
            The file.

        Returns
        -------
        Distances
            On disk: only what is asked for is read.

        Raises
        ------
        FormatError
            If it is no such file, or its distances are not complete.
        """
        from trajtools.store.saved import read_distances

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
            If there is a file already.
        """
        from trajtools.store.saved import write_distances

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
        """How many states (of the rows) have no distances."""
        return int(np.count_nonzero(self.excluded))

    def __len__(self) -> int:
        return self.values.shape[0]

    def __repr__(self) -> str:
        where = f" in {self.path!r}" if self.path else ""
        return f"Distances({self.shape[0]} x {self.shape[1]}, {self.metric}, {self.n_excluded} excluded{where})"

    def __getitem__(self, key: Any) -> Any:
        found = self.values[key]
        return np.asarray(found) if isinstance(found, np.ndarray) else found

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
            Of the states in the window, keep the first and every `every`-th after it.

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
        """Return the result as a dict that JSON can hold.

        Returns
        -------
        dict
            One entry per field. Arrays are lists, numbers keep every digit, NaN and the infinities are None.

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

    def plot(self, ax: Any = None) -> Any:
        """Draw them; see `trajtools.plots.distances`.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn.
        """
        from trajtools import plots

        return plots.distances(self, ax=ax)

    def __reduce__(self) -> Any:
        # What is on disk travels as its place there.
        if self.path is None or not isinstance(self.values, np.memmap) or not self.values.size:
            return super().__reduce__()
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "values"}
        return _again, (fields, self.values.shape, self.values.strides, _place(self.values))


def _within(steps: Ints, start: int | None, stop: int | None, every: int) -> slice:
    first = 0 if start is None else int(np.searchsorted(steps, start))
    last = len(steps) if stop is None else int(np.searchsorted(steps, stop))
    if first >= last:
        span = f"steps {steps[0]} to {steps[-1]}" if len(steps) else "no states"
        raise SelectionError(f"no state in steps [{start}, {stop}); the distances have {span}")
    return slice(first, last, every)


def _place(values: np.memmap[Any, Any]) -> int:
    """Byte of the file at which the first of these distances stands."""
    whole: Any = values
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    return int(whole.offset + values.__array_interface__["data"][0] - whole.__array_interface__["data"][0])


def _again(fields: Mapping[str, Any], shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Distances:
    reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) // 8 + 1
    flat = np.memmap(fields["path"], np.float64, "r", offset=offset, shape=(reach,))
    return Distances(values=np.lib.stride_tricks.as_strided(flat, shape, strides, subok=True), **fields)
