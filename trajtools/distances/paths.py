"""Distance of two trajectories at equal times, in blocks of bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajtools.distances.metric import Metric, MetricLike, bind_metric, find_metric, in_time, kernel_ready
from trajtools.errors import DataError
from trajtools.types import Floats

BLOCK_BYTES = 64 * 2**20
ONE = np.zeros(1, dtype=np.int64)


def between(a: Any, b: Any, *, metric: MetricLike = "l1") -> Floats:
    """Distance d(t) of two trajectories at equal times.

    Parameters
    ----------
    a, b : Trajectory or ndarray, shape (T, P) or (T,)
        Two trajectories of the same length and the same weights, e.g. ``run.trajectory(0)`` and ``run.trajectory(1)``.
    metric : str, callable or Metric
        Distance between states, see `METRICS`.

    Returns
    -------
    ndarray of float64, shape (T,)
        The distances. NaN where a weight is NaN, or where both are the same infinity.

    Raises
    ------
    DataError
        If lengths, numbers of weights or steps differ, or the metric needs the wiring of a network and nothing says it.
    UnknownNameError
        If there is no such metric.

    Examples
    --------
    >>> import numpy as np
    >>> import trajtools as tt
    >>> tt.between(np.zeros((3, 2)), np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]))
    array([1., 2., 3.])
    """
    left, right = as_states(a, "a"), as_states(b, "b")
    check_alike(left, right)
    chosen = in_time(bind_metric(find_metric(metric), left, right))
    size = left.shape[1]
    rows = max(1, BLOCK_BYTES // (2 * 8 * max(size, 1)))
    out = np.empty(len(left))
    for start in range(0, len(left), rows):
        stop = min(start + rows, len(left))
        out[start:stop] = pairs(
            chosen, rows_of(left, start, stop)[:, None], rows_of(right, start, stop)[:, None], ONE, ONE
        )[:, 0]
    return out


def pairs(metric: Metric, a: Any, b: Any, left: NDArray[np.int64], right: NDArray[np.int64]) -> Floats:
    """Return the finished distances (t, k) of members ``left[k]`` of a (t, m, P) and ``right[k]`` of b (t, n, P)."""
    a, b = common(a, b)
    distance = metric.pairs(metric.described(a), metric.described(b), left, right)
    if metric.finish is not None:
        distance = metric.finish(distance, a.shape[2])
    return np.asarray(distance, dtype=np.float64)


def common(a: Any, b: Any) -> tuple[Any, Any]:
    """Return both blocks in one dtype that holds both exactly, ready for the kernels."""
    a = kernel_ready(a)
    if b is None:
        return a, None
    b = kernel_ready(b)
    if a.dtype != b.dtype:
        a, b = a.astype(np.float64), b.astype(np.float64)
    return a, b


def as_states(x: Any, name: str) -> Any:
    """Return a Trajectory as it is and anything else as an array (T, P)."""
    if hasattr(x, "read") and hasattr(x, "step"):
        return x
    array = np.asarray(x)
    if array.ndim == 1 and array.dtype.kind in "biuf":
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise DataError(
            f"{name} must be a Trajectory or an array of real numbers, (T, P) or (T,); "
            f"got shape {array.shape} of {array.dtype}"
        )
    return array


def rows_of(x: Any, start: int, stop: int) -> Any:
    """Return the states start .. stop of a Trajectory or array, (t, P)."""
    return np.asarray(x.read(start, stop)) if hasattr(x, "read") else x[start:stop]


def check_alike(a: Any, b: Any) -> None:
    """Refuse two trajectories whose states cannot be compared one by one."""
    if a.shape[1] != b.shape[1]:
        raise DataError(
            f"the states have {a.shape[1]} and {b.shape[1]} weights; only states of one architecture have a distance"
        )
    if len(a) != len(b):
        raise DataError(
            f"the trajectories have {len(a)} and {len(b)} states; d(t) compares equal times: cut both to the same steps"
        )
    steps = [np.asarray(x.step) for x in (a, b) if hasattr(x, "step")]
    if len(steps) == 2 and not np.array_equal(steps[0], steps[1]):
        raise DataError(
            "the trajectories were recorded at different steps; select the steps that both have (`.window`)"
        )
